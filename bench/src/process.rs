//! What the host sees of a process: the time that a trivial init left, its end.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};

use crate::interrupt;

/// How long something that takes milliseconds may take on a machine that is busy otherwise.
const PATIENCE: Duration = Duration::from_secs(20);

/// Nanoseconds on the host's clock that never jumps.
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

/// What a reading of that clock by a process is on the host's: containers may have clocks of their
/// own (time_namespaces(7)).
pub(crate) fn on_host_ns(pid: u32, reading: i64) -> i64 {
    let text = fs::read_to_string(format!("/proc/{pid}/timens_offsets")).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("monotonic "));
    let mut words = line.unwrap_or_default().split_whitespace();
    let mut number = || words.next().and_then(|word| word.parse::<i64>().ok());
    let ahead = number().unwrap_or(0) * 1_000_000_000 + number().unwrap_or(0);
    reading - ahead
}

/// When a trivial init executed its first instruction, on the same clock.
pub(crate) fn first_instruction_ns(pid: u32) -> Result<i64> {
    let path = format!("/proc/{pid}/comm");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let name = fs::read_to_string(&path).context("the init is gone")?;
        if let Some(time) = stamp(name.trim_end()) {
            return Ok(on_host_ns(pid, time));
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

/// A number as a process to be signalled.
pub(crate) fn number(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// The sum of fields of `/proc/PID/stat` that are times, in seconds. The kernel tells hundredths
/// (proc_pid_stat(5): 14 and 15 are its own, 16 and 17 those of its children that ended).
fn times(pid: u32, fields: &[usize]) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    // The name in the second field may hold anything, a bracket too.
    let third = text.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let mut sum = 0.0;
    for field in fields {
        let ticks = third.split(' ').nth(field - 3);
        let ticks = ticks.and_then(|ticks| ticks.parse::<u32>().ok());
        sum += f64::from(ticks.with_context(|| format!("{path} has no times"))?);
    }
    Ok(sum / 100.0)
}

/// Percent of a processor that a process takes in the next seconds, with the programs that it runs.
pub(crate) fn busy_percent(pid: u32, seconds: usize) -> Result<f64> {
    let busy = || times(pid, &[14, 15, 16, 17]);
    let (before, begun) = (busy()?, now_ns());
    for _ in 0..seconds {
        interrupt::check()?;
        std::thread::sleep(Duration::from_secs(1));
    }
    let elapsed = milliseconds(begun, now_ns()) / 1_000.0;
    Ok((busy()? - before) / elapsed * 100.0)
}

/// Kills a process, if it is there.
pub(crate) fn kill(pid: u32) {
    if let Some(process) = number(pid) {
        let _ = kill_process(process, Signal::KILL);
    }
}

/// Whether a process has this name.
pub(crate) fn is_named(pid: u32, name: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|found| found.trim_end() == name)
}

/// All processes whose name begins so.
pub(crate) fn named(beginning: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let name = |pid: u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    numbers
        .filter(|pid| name(*pid).starts_with(beginning))
        .collect()
}

/// The children of a process.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

/// A process and everything that descends from it.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let mut at = 0;
    while let Some(next) = family.get(at) {
        family.extend(children(*next));
        at += 1;
    }
    family
}

/// Whether a process is the first of a pid namespace below ours.
pub(crate) fn is_init(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers.is_some_and(|text| text.split_whitespace().count() > 1 && text.ends_with("\t1"))
}

/// The parent of a process.
pub(crate) fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

fn alive(pid: u32) -> bool {
    // A zombie has ended, whoever has yet to reap it.
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = status.rsplit_once(") ").map_or("", |(_, rest)| rest);
    Path::new("/proc").join(pid.to_string()).exists() && !state.starts_with(['Z', 'X'])
}
