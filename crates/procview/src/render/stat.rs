//! `/proc/stat`.

use std::fmt::Write as _;

use crate::facts::{ProcessorTime, Tasks};

/// `/proc/stat` (`proc_stat(5)`), for the processors with these numbers.
///
/// The kernel counts a group's time on all processors together, so each shown processor has an
/// equal part of it. What it does not count for a group at all (interrupts, context switches) is
/// zero, and `processes` is the most that there ever were at once, a lower bound.
#[must_use]
pub fn stat(processors: &[u32], time: &ProcessorTime, boot_seconds: u64, tasks: &Tasks) -> String {
    let mut text = String::with_capacity(256 + 64 * processors.len());
    // Never zero: a VE has at least one processor.
    let parts = u64::try_from(processors.len().max(1)).unwrap_or(1);
    let each = time.part(parts);
    // The first line is the sum of those that follow, to the tick, as programs compare them.
    line(&mut text, "cpu ", &each.times(parts));
    for number in processors {
        line(&mut text, &format!("cpu{number}"), &each);
    }
    let running = tasks.running + 1;
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "intr 0\nctxt 0\nbtime {boot_seconds}\nprocesses {}\nprocs_running {running}\n\
         procs_blocked {}\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n",
        tasks.most.max(running),
        tasks.blocked
    );
    text
}

fn line(text: &mut String, name: &str, time: &ProcessorTime) {
    let _ = writeln!(
        text,
        "{name} {} {} {} {} 0 0 0 {} 0 0",
        time.user_ticks, time.nice_ticks, time.system_ticks, time.idle_ticks, time.steal_ticks
    );
}
