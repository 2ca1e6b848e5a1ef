//! The life of a container with a trivial init, beside the floor and beside others.
//!
//! Each round takes everybody once through create, start, stop and delete. The time to the first
//! instruction runs from just before the request to what the init's own clock said. A cycle is the
//! sum of the four; the floor's is that of one process that does all four, which is less.

use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::interrupt;
use crate::peers::{self, Floor, Peer};
use crate::process;
use crate::report::{Bound, Results, Unit};

const SECTION: &str = "life";

const MEASURES: [&str; 6] = [
    "create",
    "start to first instruction",
    "start",
    "stop",
    "delete",
    "cycle",
];

/// How much longer than the floor a VE may take to its first instruction, and for a cycle.
const FIRST_INSTRUCTION_MAX: f64 = 1.5;
const CYCLE_MAX: f64 = 3.0;

/// Milliseconds of one round, in the order of [`MEASURES`].
type Round = [f64; 6];

pub(crate) fn measure(context: &mut Context, results: &mut Results) -> Result<()> {
    let mut peers = peers::all(context, results)?;
    let floor = Floor::new(&context.stage);
    let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); peers.len()];
    let mut least = Vec::new();
    // The first round fills caches and is not counted.
    for round in 0..=context.rounds(3, 40) {
        floor.settle()?;
        let begun = process::now_ns();
        let first = floor.cycle();
        let ended = process::now_ns();
        let first = first.inspect_err(|_| peers::sweep())?;
        floor.settle()?;
        if round > 0 {
            least.push((
                process::milliseconds(begun, first),
                process::milliseconds(begun, ended),
            ));
        }
        for (peer, measured) in peers.iter_mut().zip(&mut rounds) {
            interrupt::check()?;
            let one = cycle(peer.as_mut()).with_context(|| peer.name());
            let one = one.inspect_err(|_| peer.clear())?;
            if round > 0 {
                measured.push(one);
            }
        }
    }
    for (peer, measured) in peers.iter().zip(rounds) {
        for (at, what) in MEASURES.iter().enumerate() {
            let samples = measured.iter().map(|round| round[at]).collect();
            results.add(SECTION, &peer.name(), what, Unit::Milliseconds, samples);
        }
    }
    let (first, whole) = least.into_iter().unzip();
    let name = "floor, one process";
    results.add(SECTION, name, MEASURES[1], Unit::Milliseconds, first);
    results.add(SECTION, name, MEASURES[5], Unit::Milliseconds, whole);
    promises(results);
    Ok(())
}

fn cycle(peer: &mut dyn Peer) -> Result<Round> {
    let times = [process::now_ns(), timed(peer.create())?];
    let start = process::now_ns();
    let started = timed(peer.start())?;
    let first = process::first_instruction_ns(peer.init_pid()?)?;
    let stop = process::now_ns();
    let stopped = timed(peer.stop())?;
    let delete = process::now_ns();
    let deleted = timed(peer.delete())?;
    let create = process::milliseconds(times[0], times[1]);
    let whole_start = process::milliseconds(start, started.max(first));
    let stop = process::milliseconds(stop, stopped);
    let delete = process::milliseconds(delete, deleted);
    let sum = create + whole_start + stop + delete;
    let first = process::milliseconds(start, first);
    Ok([
        create,
        first,
        process::milliseconds(start, started),
        stop,
        delete,
        sum,
    ])
}

/// When something that was just done had been done.
fn timed(done: Result<()>) -> Result<i64> {
    done.map(|()| process::now_ns())
}

fn promises(results: &mut Results) {
    let pairs = [
        ("start to first instruction", "floor", FIRST_INSTRUCTION_MAX),
        ("cycle", "floor, one process", CYCLE_MAX),
    ];
    for (what, floor, most) in pairs {
        for subject in ["vessel (API)", "vessel (command)"] {
            let ours = results.median(SECTION, subject, what);
            let least = results.median(SECTION, floor, what);
            if let (Some(ours), Some(least)) = (ours, least) {
                let title = format!("{what}, {subject} over {floor}");
                results.promise(
                    SECTION,
                    &title,
                    Unit::Ratio,
                    ours / least,
                    (Bound::AtMost, most),
                );
            }
        }
    }
}
