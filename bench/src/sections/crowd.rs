//! Many VEs with a trivial init: made and started by one command, and what they cost in memory.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::interrupt;
use crate::memory::{self, Memory};
use crate::node::{Node, TRIVIAL};
use crate::process;
use crate::report::{Bound, Results, Unit};

const SECTION: &str = "crowd";
/// What is said of the cost of watching.
const SAMPLING: &str = "daemon, while VEs idle";

/// What was promised for so many VEs: seconds, and mebibytes of the daemon.
const PROMISED: usize = 100;
const SECONDS_MAX: f64 = 3.0;
const DAEMON_MAX: f64 = 40.0;

/// What the daemon may take of one processor while these VEs do nothing: nearly all of it is
/// reading what they use, every ten seconds.
const SAMPLING_PERCENT_MAX: f64 = 1.0;
/// For how long that is watched, in seconds: whole sweeps of the meter.
const WATCHED_SECONDS: usize = 60;
/// How long the daemon may still be at work after the last start.
const SETTLE: Duration = Duration::from_secs(3);

/// Growth of daemon and launcher for each VE that counts as none: less than half of a hundredth of
/// a mebibyte, some pages of records. The least helper process of others takes 0.35.
const GROWTH_MAX: f64 = 0.01;

/// VEs that are there before growth is measured: what the first ones make the daemon allocate is
/// not for each.
const BASE: usize = 10;

/// Memory of both of the node's processes.
#[derive(Clone, Copy, Debug)]
struct NodeMemory {
    daemon: Memory,
    launcher: Memory,
}

pub(crate) fn measure(context: &mut Context, results: &mut Results) -> Result<()> {
    let count = context.rounds(20, PROMISED);
    let node = &context.node;
    let (mut seconds, mut machine, mut growth) = (Vec::new(), Vec::new(), Vec::new());
    let mut running = Vec::new();
    for _ in 0..context.rounds(1, 3) {
        interrupt::check()?;
        make(node, "base", BASE)?;
        let before = NodeMemory::of(node)?;
        let free = memory::available()?;
        let begun = process::now_ns();
        make(node, "one", count)?;
        seconds.push(process::milliseconds(begun, process::now_ns()) / 1_000.0);
        let after = NodeMemory::of(node)?;
        machine.push((free - memory::available()?) / as_number(count));
        running.push(node.running()?);
        growth.push(after.growth(before) / as_number(count));
        if growth.len() == context.rounds(1, 3) {
            inits(node, results)?;
            after.tell(results, count + BASE);
            let seconds = context.rounds(10, WATCHED_SECONDS);
            let percent = vec![sampling(node, seconds)?];
            results.add(SECTION, "vessel", SAMPLING, Unit::Percent, percent);
        }
        node.vessel(&["delete", "--all", "--force"])?;
    }
    let title = format!("{count} VEs by one command");
    results.add(SECTION, "vessel", &title, Unit::Seconds, seconds);
    let title = "node's processes, each VE";
    results.add(SECTION, "vessel", title, Unit::Mebibytes, growth);
    let title = "whole machine, each VE";
    results.add(SECTION, "vessel", title, Unit::Mebibytes, machine);
    results.add(SECTION, "vessel", "VEs that run", Unit::Count, running);
    promises(results, count);
    Ok(())
}

/// What the daemon takes of one processor while nobody asks it anything.
fn sampling(node: &Node, seconds: usize) -> Result<f64> {
    std::thread::sleep(SETTLE);
    process::busy_percent(node.daemon_pid(), seconds)
}

fn make(node: &Node, name: &str, count: usize) -> Result<()> {
    let count = count.to_string();
    let words = [
        "create",
        name,
        "--template",
        TRIVIAL,
        "--count",
        &count,
        "--start",
    ];
    node.vessel(&words).map(drop)
}

/// Memory of the VEs themselves: of one's process, and what its control group is charged.
fn inits(node: &Node, results: &mut Results) -> Result<()> {
    let mut processes = Vec::new();
    let mut charged = Vec::new();
    let stats = node.json(&["stats", "--all"])?;
    for one in stats.as_array().context("`stats --all` is no list")? {
        charged.extend(one["memory_bytes"].as_u64().map(memory::mebibytes));
    }
    for n in 1..=BASE {
        let pid = node.init_pid(&format!("base-{n}"))?;
        processes.push(Memory::of(pid)?.proportional);
    }
    let title = "its processes, each VE";
    results.add(SECTION, "vessel", title, Unit::Mebibytes, processes);
    let title = "charged to its group, each VE";
    results.add(SECTION, "vessel", title, Unit::Mebibytes, charged);
    Ok(())
}

fn promises(results: &mut Results, count: usize) {
    if let Some(measured) = results.median(SECTION, "vessel", "VEs that run") {
        let bound = (Bound::AtLeast, as_number(count + BASE));
        results.promise(SECTION, "VEs that run", Unit::Count, measured, bound);
    }
    if count != PROMISED {
        return;
    }
    let title = format!("{count} VEs by one command");
    if let Some(measured) = results.median(SECTION, "vessel", &title) {
        let bound = (Bound::AtMost, SECONDS_MAX);
        results.promise(SECTION, &title, Unit::Seconds, measured, bound);
    }
    if let Some(measured) = results.median(SECTION, "vessel", SAMPLING) {
        let bound = (Bound::AtMost, SAMPLING_PERCENT_MAX);
        results.promise(SECTION, SAMPLING, Unit::Percent, measured, bound);
    }
    let pairs = [
        ("node's processes, each VE", GROWTH_MAX),
        ("daemon resident", DAEMON_MAX),
    ];
    for (title, most) in pairs {
        if let Some(measured) = results.median(SECTION, "vessel", title) {
            let bound = (Bound::AtMost, most);
            results.promise(SECTION, title, Unit::Mebibytes, measured, bound);
        }
    }
}

impl NodeMemory {
    fn of(node: &Node) -> Result<Self> {
        Ok(Self {
            daemon: Memory::of(node.daemon_pid())?,
            launcher: Memory::of(node.launcher_pid()?)?,
        })
    }

    fn growth(self, before: Self) -> f64 {
        let sum = |one: Self| one.daemon.proportional + one.launcher.proportional;
        sum(self) - sum(before)
    }

    fn tell(self, results: &mut Results, count: usize) {
        let Self { daemon, launcher } = self;
        let pairs = [("daemon", daemon), ("launcher", launcher)];
        for (name, memory) in pairs {
            let title = format!("{name} resident");
            let samples = vec![memory.resident];
            results.add(SECTION, "vessel", &title, Unit::Mebibytes, samples);
        }
        results.note(format!(
            "{SECTION}: resident sizes are those with {count} VEs"
        ));
    }
}

fn as_number(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}
