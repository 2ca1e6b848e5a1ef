//! Counting the tasks of a VE that run or wait for a disk, for its load averages.
//!
//! cgroup v1 counts a group's tasks by itself. cgroup2 does not, and there a VE's threads have to be
//! looked at one by one, so only those of a VE that did or wanted anything since the last time are,
//! and of very many only some.

use std::io;
use std::time::{Duration, Instant};

use cgroup::NodeReader;
use kernel::taskstats::TaskStatistics;
use std::os::fd::AsFd as _;
use ve::VeId;

use crate::facts::Work;
use crate::history::LOAD_INTERVAL;
use crate::view::Views;

/// Threads that are looked at on cgroup2; of more, the share found among these is taken for all.
/// They take some milliseconds.
const THREADS_MAX: usize = 256;
/// Groups that are looked at for them; systemd of a full server has about 60.
const GROUPS_MAX: usize = 256;

/// How old a count may be for those who ask between two samples, on cgroup v1. On cgroup2 they get
/// that of the last sample.
const COUNT_LIFETIME: Duration = Duration::from_millis(500);

/// A VE that used less than this part of a processor, and waited for no disk, has nobody to count. An
/// idle Debian uses a thousandth of that.
const IDLE_PER_MILLE: u128 = 1;

/// Tasks that count for a load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TaskCount {
    pub(crate) running: u64,
    pub(crate) blocked: u64,
}

/// The way to count.
#[derive(Debug)]
pub(crate) struct Counter(Option<TaskStatistics>);

impl Counter {
    pub(crate) fn new() -> Self {
        Self(TaskStatistics::open().ok())
    }

    /// Asks the kernel. Nothing where there is no v1 group to be asked about.
    fn ask(&self, reader: &NodeReader, ve: VeId) -> Option<TaskCount> {
        let group = reader.open_v1(ve).ok()??;
        let counts = self.0.as_ref()?.count(group.as_fd()).ok()?;
        Some(TaskCount {
            running: counts.running,
            blocked: counts.uninterruptible + counts.io_wait,
        })
    }
}

impl Views {
    /// Counts the tasks of a VE and takes them into its averages, if that is due.
    pub(crate) fn sample(&mut self, ve: VeId, now: Instant) {
        let shown = self.shown(ve);
        // A VE that is gone is forgotten by the launcher's word.
        let Ok((_, work)) = self.account(ve, &shown) else {
            return;
        };
        let count = match self.counter.ask(&self.reader, ve) {
            Some(count) => count,
            None if self.is_active(ve, &work, now) => self.look(ve),
            None => TaskCount::default(),
        };
        let view = self.view(ve);
        let passed = view
            .sampled
            .map_or(LOAD_INTERVAL, |at| now.saturating_duration_since(at));
        let intervals = (passed + LOAD_INTERVAL / 2).as_millis() / LOAD_INTERVAL.as_millis();
        let intervals = u32::try_from(intervals).unwrap_or(u32::MAX).max(1);
        view.history
            .averages
            .count(count.running + count.blocked, intervals);
        view.sampled = Some(now);
        view.tasks = Some((now, count));
    }

    /// The tasks of a VE as they were a moment ago.
    pub(crate) fn count(&mut self, ve: VeId, now: Instant) -> TaskCount {
        let known = self.ves.get(&ve).and_then(|view| view.tasks);
        if let Some((at, count)) = known
            && now.saturating_duration_since(at) < COUNT_LIFETIME
        {
            return count;
        }
        match self.counter.ask(&self.reader, ve) {
            Some(count) => {
                self.view(ve).tasks = Some((now, count));
                count
            }
            None => known.map_or_else(TaskCount::default, |(_, count)| count),
        }
    }

    /// Whether a VE worked or waited for a disk since the last sample.
    fn is_active(&mut self, ve: VeId, work: &Work, now: Instant) -> bool {
        let pressure = self.source(ve).pressure("io").unwrap_or_default();
        let stalled_us = total_us(&pressure);
        let worked_us = work.user_us.saturating_add(work.system_us);
        let view = self.view(ve);
        let passed = view
            .sampled
            .map_or(LOAD_INTERVAL, |at| now.saturating_duration_since(at));
        let worked = u128::from(worked_us.saturating_sub(view.worked_us));
        let active =
            worked * 1_000 > passed.as_micros() * IDLE_PER_MILLE || stalled_us > view.stalled_us;
        view.worked_us = worked_us;
        view.stalled_us = stalled_us;
        active
    }

    /// Looks at a VE's threads in `/proc`.
    fn look(&self, ve: VeId) -> TaskCount {
        let threads = self.reader.threads(ve, GROUPS_MAX, THREADS_MAX);
        let threads = threads.unwrap_or_default();
        let total = self.source(ve).tasks().map_or(0, |(total, _)| total);
        let mut count = TaskCount::default();
        for thread in &threads {
            match state(*thread) {
                Ok('R') => count.running += 1,
                Ok('D') => count.blocked += 1,
                _ => {}
            }
        }
        let looked = u64::try_from(threads.len()).unwrap_or(u64::MAX).max(1);
        let all = total.max(looked);
        TaskCount {
            running: count.running * all / looked,
            blocked: count.blocked * all / looked,
        }
    }
}

/// What a thread does, as one letter: the field after its name in `stat`. The path leads to the thread
/// alone: `/proc/TID/stat` would add up all threads of its process.
fn state(thread: u32) -> io::Result<char> {
    let text = std::fs::read_to_string(format!("/proc/{thread}/task/{thread}/stat"))?;
    let state = text
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    state.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// How long somebody waited for a disk, of the first line of a pressure file: `some ... total=1`.
fn total_us(pressure: &str) -> u64 {
    let first = pressure.lines().next().unwrap_or_default();
    let total = first.rsplit_once("total=").map(|(_, total)| total.trim());
    total.and_then(|total| total.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_what_threads_do() {
        let own = rustix::thread::gettid()
            .as_raw_nonzero()
            .get()
            .unsigned_abs();
        assert_eq!(state(own).unwrap(), 'R');
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(state(child.id()).unwrap(), 'S');
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(state(child.id()).is_err());
    }

    #[test]
    fn reads_how_long_a_disk_was_waited_for() {
        let text = "some avg10=0.00 avg60=0.10 avg300=0.00 total=4711\nfull avg10=0.00 total=1\n";
        assert_eq!((total_us(text), total_us("")), (4_711, 0));
    }
}
