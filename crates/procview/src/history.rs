//! What of a VE must be watched because no counter of the kernel has it: its load averages, and how
//! long its processors were idle although their number may have changed meanwhile.
//!
//! Kept as one line of text for each VE, so that a new server goes on where the old one ended.

use std::str::FromStr;
use std::time::Duration;

use crate::facts::{ProcessorTime, Work};

/// How often tasks are counted for the averages: as the kernel does (`LOAD_FREQ`).
pub const LOAD_INTERVAL: Duration = Duration::from_secs(5);

/// Fixed-point arithmetic of the kernel's `include/linux/sched/loadavg.h`: eleven binary places, and
/// what is left of an average after one interval, for one, five and fifteen minutes.
const SHIFT: u32 = 11;
const ONE: u64 = 1 << SHIFT;
const KEPT: [u64; 3] = [1_884, 2_014, 2_037];

/// Most tasks that an average believes in: any kernel's limit of process numbers.
const TASKS_MAX: u64 = 1 << 22;

/// Intervals that are made up for when the server was away: after an hour nothing is left of any
/// average anyway.
const INTERVALS_MAX: u32 = 720;

/// Load averages of one, five and fifteen minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Averages([u64; 3]);

impl Averages {
    /// Takes a count of active tasks in, which held for so many intervals.
    pub fn count(&mut self, active: u64, intervals: u32) {
        let active = active.min(TASKS_MAX) << SHIFT;
        for _ in 0..intervals.min(INTERVALS_MAX) {
            for (load, kept) in self.0.iter_mut().zip(KEPT) {
                let mut new = *load * kept + active * (ONE - kept);
                // Rounded towards where it goes, else it would never get there.
                if active >= *load {
                    new += ONE - 1;
                }
                *load = new >> SHIFT;
            }
        }
    }

    /// In hundredths, rounded as the kernel does.
    #[must_use]
    pub fn hundredths(&self) -> [u64; 3] {
        self.0.map(|load| ((load + ONE / 200) * 100) >> SHIFT)
    }
}

/// The history of one VE since its init began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Load averages.
    pub averages: Averages,
    /// When time was last accounted for, since init began.
    at_us: u64,
    /// What the VE had worked by then.
    worked_us: u64,
    /// What it had been kept from by then.
    throttled_us: u64,
    idle_us: u64,
    steal_us: u64,
}

impl History {
    /// Accounts for the time until now, during which the VE had `processors`.
    ///
    /// What it did not work was idle, but for what its limit kept it from, which is stolen.
    pub fn advance(&mut self, uptime: Duration, work: &Work, processors: u64) {
        let now_us = u64::try_from(uptime.as_micros()).unwrap_or(u64::MAX);
        let worked_us = work.user_us.saturating_add(work.system_us);
        let passed = now_us.saturating_sub(self.at_us);
        let worked = worked_us.saturating_sub(self.worked_us);
        let throttled = work.throttled_us.saturating_sub(self.throttled_us);
        let rest = passed.saturating_mul(processors).saturating_sub(worked);
        let stolen = throttled.min(rest);
        self.steal_us = self.steal_us.saturating_add(stolen);
        self.idle_us = self.idle_us.saturating_add(rest - stolen);
        self.at_us = now_us;
        self.worked_us = worked_us;
        self.throttled_us = work.throttled_us;
    }

    /// Time of all processors together, in ticks of which there are `ticks_per_second`.
    #[must_use]
    pub fn processor_time(&self, work: &Work, ticks_per_second: u64) -> ProcessorTime {
        let ticks = |us: u64| us / (1_000_000 / ticks_per_second.clamp(1, 1_000_000));
        ProcessorTime {
            user_ticks: ticks(work.user_us.saturating_sub(work.nice_us)),
            nice_ticks: ticks(work.nice_us.min(work.user_us)),
            system_ticks: ticks(work.system_us),
            idle_ticks: ticks(self.idle_us),
            steal_ticks: ticks(self.steal_us),
        }
    }

    /// How long all processors together were idle.
    #[must_use]
    pub fn idle(&self) -> Duration {
        Duration::from_micros(self.idle_us)
    }
}

impl std::fmt::Display for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [one, five, fifteen] = self.averages.0;
        write!(
            f,
            "{one} {five} {fifteen} {} {} {} {} {}",
            self.at_us, self.worked_us, self.throttled_us, self.idle_us, self.steal_us
        )
    }
}

/// What is no history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not eight numbers")]
pub struct InvalidHistory;

impl FromStr for History {
    type Err = InvalidHistory;

    fn from_str(text: &str) -> Result<Self, InvalidHistory> {
        let numbers: Result<Vec<u64>, _> = text.split(' ').map(str::parse).collect();
        match numbers.as_deref() {
            Ok(
                &[
                    one,
                    five,
                    fifteen,
                    at_us,
                    worked_us,
                    throttled_us,
                    idle_us,
                    steal_us,
                ],
            ) => Ok(Self {
                averages: Averages([one, five, fifteen].map(|load| load.min(TASKS_MAX << SHIFT))),
                at_us,
                worked_us,
                throttled_us,
                idle_us,
                steal_us,
            }),
            _ => Err(InvalidHistory),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    fn worked(us: u64, throttled_us: u64) -> Work {
        Work {
            user_us: us,
            throttled_us,
            ..Work::default()
        }
    }

    #[test]
    fn a_minute_of_one_task_is_two_thirds_of_a_load() {
        let mut averages = Averages::default();
        averages.count(1, 12);
        // 1 - 1/e of it, as on any Linux.
        assert_eq!(averages.hundredths(), [63, 18, 6]);
        averages.count(1, 700);
        assert_eq!(averages.hundredths(), [100, 100, 100]);
        averages.count(0, 720);
        assert_eq!(averages.hundredths(), [0, 0, 0]);
    }

    #[test]
    fn what_is_not_worked_is_idle_or_stolen() {
        let mut history = History::default();
        history.advance(seconds(10), &worked(4_000_000, 0), 1);
        assert_eq!(history.idle(), seconds(6));
        // Half a processor by limit, wholly wanted: it works half of the time.
        history.advance(seconds(20), &worked(9_000_000, 5_000_000), 1);
        let time = history.processor_time(&worked(9_000_000, 0), 100);
        assert_eq!((time.idle_ticks, time.steal_ticks), (600, 500));
        assert_eq!(time.user_ticks, 900);
    }

    #[test]
    fn a_changed_number_of_processors_spoils_nothing() {
        let mut history = History::default();
        history.advance(seconds(100), &worked(200_000_000, 0), 2);
        assert_eq!(history.idle(), seconds(0));
        // One is taken away; from here on it is idle, and idle time grows at once.
        history.advance(seconds(101), &worked(200_000_000, 0), 1);
        assert_eq!(history.idle(), seconds(1));
        history.advance(seconds(102), &worked(200_000_000, 0), 4);
        assert_eq!(history.idle(), seconds(5));
    }

    proptest! {
        #[test]
        fn no_numbers_overflow_and_time_never_goes_back(
            steps in proptest::collection::vec(any::<(u64, u64, u64, u64)>(), 1..20),
        ) {
            let mut history = History::default();
            for (now, user_us, throttled_us, processors) in steps {
                let before = history;
                let work = Work { user_us, throttled_us, system_us: user_us, nice_us: throttled_us };
                history.advance(Duration::from_micros(now), &work, processors);
                prop_assert!(history.idle_us >= before.idle_us);
                prop_assert!(history.steal_us >= before.steal_us);
                let _ = history.processor_time(&work, 100);
            }
            prop_assert_eq!(history.to_string().parse(), Ok(history));
        }

        #[test]
        fn averages_stay_between_what_was_and_what_is(
            counts in proptest::collection::vec((any::<u64>(), 0_u32..2_000), 1..10),
        ) {
            let mut averages = Averages::default();
            for (active, intervals) in counts {
                averages.count(active, intervals);
                for load in averages.hundredths() {
                    prop_assert!(load <= TASKS_MAX * 100 + 1);
                }
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,80}") {
            let _ = text.parse::<History>();
        }
    }
}
