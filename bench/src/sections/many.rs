//! Three hundred Debian VEs at once: whether they all run, how long that takes, what each costs.
//!
//! No kernel setting is touched, here or by the node, for them to run.

use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::debian;
use crate::interrupt;
use crate::memory::{self, Memory};
use crate::process;
use crate::report::{Bound, Results, Unit};

const SECTION: &str = "many";

/// How many.
const COUNT: usize = 300;

/// VEs whose processes are looked at one by one; of all of them it would take longer than the rest.
const LOOKED_AT: usize = 10;

const RUNNING: &str = "Debian VEs that run";

pub(crate) fn measure(context: &mut Context, results: &mut Results) -> Result<()> {
    context.debian()?;
    interrupt::check()?;
    let node = &context.node;
    let count = COUNT.to_string();
    let free = memory::available()?;
    let begun = process::now_ns();
    let words = ["--template", debian::NAME, "--count", &count, "--start"];
    // One that does not get ready is one that does not run, below.
    let made = node.vessel(&[&["create", "many"], &words[..]].concat());
    let seconds = process::milliseconds(begun, process::now_ns()) / 1_000.0;
    if let Err(error) = made {
        results.note(format!("{SECTION}: {error:#}"));
    }
    let machine = free - memory::available()?;
    let running = node.running()?;
    let mut charged = Vec::new();
    for one in node
        .json(&["stats", "--all"])?
        .as_array()
        .context("no list")?
    {
        charged.extend(one["memory_bytes"].as_u64().map(memory::mebibytes));
    }
    let mut processes = Vec::new();
    for n in 1..=LOOKED_AT {
        let family = process::family(node.init_pid(&format!("many-{n}"))?);
        let memories = family.into_iter().filter_map(|pid| Memory::of(pid).ok());
        processes.push(memories.map(|memory| memory.proportional).sum());
    }
    let daemon = Memory::of(node.daemon_pid())?.resident;
    let subject = "vessel";
    results.add(SECTION, subject, RUNNING, Unit::Count, vec![running]);
    let title = "created and running by one command";
    results.add(SECTION, subject, title, Unit::Seconds, vec![seconds]);
    let unit = Unit::Mebibytes;
    results.add(SECTION, subject, "its processes, each VE", unit, processes);
    results.add(
        SECTION,
        subject,
        "charged to its group, each VE",
        unit,
        charged,
    );
    let each = machine / running.max(1.0);
    results.add(SECTION, subject, "whole machine, each VE", unit, vec![each]);
    results.add(SECTION, subject, "daemon resident", unit, vec![daemon]);
    let bound = (Bound::AtLeast, f64::from(u16::try_from(COUNT)?));
    results.promise(SECTION, RUNNING, Unit::Count, running, bound);
    node.vessel(&["delete", "--all", "--force"]).map(drop)
}
