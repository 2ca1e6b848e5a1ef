//! What the host sees of a process: the time that a trivial init left, its end.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::time::{ClockId, clock_gettime};

/// How long something that takes milliseconds may take on a machine that is busy otherwise.
const PATIENCE: Duration = Duration::from_secs(20);

/// Nanoseconds on the clock that the trivial init reads.
pub(crate) fn now_ns() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// A span between two readings of it.
pub(crate) fn milliseconds(from: i64, to: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "spans of minutes at most")]
    let nanoseconds = (to - from) as f64;
    nanoseconds / 1e6
}

/// When a trivial init executed its first instruction, on the same clock.
pub(crate) fn first_instruction_ns(pid: u32) -> Result<i64> {
    let path = format!("/proc/{pid}/comm");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let name = fs::read_to_string(&path).context("the init is gone")?;
        if let Some(time) = stamp(name.trim_end()) {
            return Ok(time);
        }
        if Instant::now() > deadline {
            bail!("the init `{}` left no time", name.trim_end());
        }
        std::thread::yield_now();
    }
}

/// The time in a name that the trivial init gave itself.
pub(crate) fn stamp(name: &str) -> Option<i64> {
    (name.len() == 15).then(|| i64::from_str_radix(name, 16).ok())?
}

/// Waits until a process is gone.
pub(crate) fn await_end(pid: u32) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while alive(pid) {
        if Instant::now() > deadline {
            bail!("process {pid} does not end");
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

fn alive(pid: u32) -> bool {
    // A zombie has ended, whoever has yet to reap it.
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = status.rsplit_once(") ").map_or("", |(_, rest)| rest);
    Path::new("/proc").join(pid.to_string()).exists() && !state.starts_with(['Z', 'X'])
}
