//! VEs made from a template and not started: how long each takes, and what of the disk.
//!
//! No file is copied, whatever the template holds, so the trivial one stands for all.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::context::Context;
use crate::interrupt;
use crate::memory;
use crate::node::{Node, TRIVIAL};
use crate::peers::{Api, Peer as _};
use crate::process;
use crate::report::{Bound, Results, Unit};

const SECTION: &str = "creation";
const TIME: &str = "time each";
const DISK: &str = "disk each";

/// What was promised of each creation.
const MILLISECONDS_MAX: f64 = 5.0;
const KIBIBYTES_MAX: f64 = 64.0;

/// How often the pool is looked at until it takes as much as before, and for how long in all: what was deleted is given
/// back in the background.
const LOOK: Duration = Duration::from_millis(500);
const LOOKS_ALIKE: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn measure(context: &mut Context, results: &mut Results) -> Result<()> {
    let node = &context.node;
    let mut api = Api::new(node, "asked", TRIVIAL)?;
    let (mut asked, mut typed) = (Vec::new(), Vec::new());
    // The first round fills caches and is not counted.
    for round in 0..=context.rounds(3, 40) {
        interrupt::check()?;
        let times = [timed(|| api.create())?, timed(|| create(node, "typed", 1))?];
        api.delete()?;
        node.vessel(&["delete", "typed"])?;
        if round > 0 {
            asked.push(times[0]);
            typed.push(times[1]);
        }
    }
    let count = context.rounds(20, 100);
    let (mut each, mut disk) = (Vec::new(), Vec::new());
    for _ in 0..context.rounds(1, 5) {
        interrupt::check()?;
        let before = settled(node)?;
        let whole = timed(|| create(node, "many", count))?;
        let parts = f64::from(u32::try_from(count)?);
        each.push(whole / parts);
        disk.push((settled(node)? - before) * 1_024.0 / parts);
        node.vessel(&["delete", "--all", "--force"])?;
    }
    let crowd = format!("{count} by one command");
    for (subject, samples) in [
        ("one, by the API", asked),
        ("one, by a command", typed),
        (crowd.as_str(), each),
    ] {
        results.add(SECTION, subject, TIME, Unit::Milliseconds, samples);
        if let Some(measured) = results.median(SECTION, subject, TIME) {
            let (title, bound) = (
                format!("{TIME}, {subject}"),
                (Bound::AtMost, MILLISECONDS_MAX),
            );
            results.promise(SECTION, &title, Unit::Milliseconds, measured, bound);
        }
    }
    results.add(SECTION, &crowd, DISK, Unit::Kibibytes, disk);
    if let Some(measured) = results.median(SECTION, &crowd, DISK) {
        let bound = (Bound::AtMost, KIBIBYTES_MAX);
        results.promise(SECTION, DISK, Unit::Kibibytes, measured, bound);
    }
    Ok(())
}

fn create(node: &Node, name: &str, count: usize) -> Result<()> {
    let count = count.to_string();
    let words = ["create", name, "--template", TRIVIAL, "--count", &count];
    // With a count the name is but the beginning of names.
    let words = if count == "1" {
        &words[..4]
    } else {
        &words[..]
    };
    node.vessel(words).map(drop)
}

/// How long something takes, in milliseconds.
fn timed(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let begun = process::now_ns();
    work()?;
    Ok(process::milliseconds(begun, process::now_ns()))
}

/// What the pool takes, in mebibytes, once it takes neither more nor less.
fn settled(node: &Node) -> Result<f64> {
    let deadline = Instant::now() + PATIENCE;
    let (mut last, mut alike) = (0, 0);
    while alike < LOOKS_ALIKE {
        interrupt::check()?;
        if Instant::now() > deadline {
            bail!("the pool does not come to rest");
        }
        std::thread::sleep(LOOK);
        // So that what was written is counted, and what it takes the place of no more.
        rustix::fs::sync();
        let pool = node.json(&["pool", "show"])?;
        let used = pool["used_bytes"]
            .as_u64()
            .context("a pool without a use")?;
        alike = if used == last { alike + 1 } else { 0 };
        last = used;
    }
    Ok(memory::mebibytes(last))
}
