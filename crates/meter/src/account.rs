//! Exact totals of each month, for billing.
//!
//! The kernel counts from 0 with each start of a VE, the packet filter with each of its tables. An
//! [`Account`] remembers up to where it has added (its [`Baseline`]) and of which life of the counters that
//! was:
//!
//! | the next reading is | added is |
//! |---|---|
//! | of the same life | the difference |
//! | of another life | all that it counted |
//! | without counters | nothing, and the baseline stays |
//!
//! So nothing is added twice or left out, provided that a group is read once more before it is removed
//! ([`Account::add`], then [`Account::end_of_group`]) and that what is pending and the baseline are stored
//! in one transaction. Not in the totals: what a VE did after the last reading before a power cut.
//!
//! What was counted across the end of a month is divided by time, to the last byte.

use std::collections::BTreeMap;

use crate::month::Month;
use crate::reading::{Counter, Counters, Reading};

/// Unit of the integrals over time: bytes would overflow 64 bits at a petabyte for a month.
const KIBIBYTE: u64 = 1_024;

/// Up to where an account has added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Baseline {
    /// As in [`Reading`].
    pub at_ms: u64,
    /// As in [`Reading`]; 0 before the first.
    pub time: u64,
    /// As in [`Reading`].
    pub run: Option<String>,
    /// As in [`Reading`].
    pub filter_epoch: Option<String>,
    /// As in [`Reading`].
    pub counters: Counters,
    /// Memory at that moment.
    pub memory_bytes: u64,
    /// What of its memory it had been given beyond `memory.limit`.
    pub memory_given_bytes: u64,
    /// Space of the private area at that moment.
    pub disk_bytes: u64,
}

/// What a VE used in some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// What was counted.
    pub counters: Counters,
    /// How long it had processes.
    pub running_milliseconds: u64,
    /// Memory times the time for which it had it.
    pub memory_kibibyte_seconds: u64,
    /// What it was given beyond `memory.limit`, times the time for which it had it.
    pub memory_given_kibibyte_seconds: u64,
    /// Space times the time for which it had it.
    pub disk_kibibyte_seconds: u64,
}

impl Totals {
    /// All amounts that are not 0, by name.
    #[must_use]
    pub fn entries(&self) -> Vec<(&'static str, u64)> {
        let counted = self.counters.entries();
        let counted = counted.map(|(counter, amount)| (counter.name(), amount));
        let over_time = [
            ("running_milliseconds", self.running_milliseconds),
            ("memory_kibibyte_seconds", self.memory_kibibyte_seconds),
            (
                "memory_given_kibibyte_seconds",
                self.memory_given_kibibyte_seconds,
            ),
            ("disk_kibibyte_seconds", self.disk_kibibyte_seconds),
        ];
        counted
            .chain(over_time)
            .filter(|(_, amount)| *amount > 0)
            .collect()
    }

    fn add(&mut self, other: &Self) {
        for (counter, amount) in other.counters.entries() {
            let sum = self.counters.get(counter).unwrap_or(0);
            self.counters.set(counter, Some(sum.saturating_add(amount)));
        }
        let add = |sum: &mut u64, amount: u64| *sum = sum.saturating_add(amount);
        add(&mut self.running_milliseconds, other.running_milliseconds);
        add(
            &mut self.memory_kibibyte_seconds,
            other.memory_kibibyte_seconds,
        );
        add(
            &mut self.memory_given_kibibyte_seconds,
            other.memory_given_kibibyte_seconds,
        );
        add(&mut self.disk_kibibyte_seconds, other.disk_kibibyte_seconds);
    }

    /// The part of every amount that falls between two points of a span of `whole`.
    fn between(&self, from: u64, to: u64, whole: u64) -> Self {
        let until = |amount: u64, point: u64| {
            let part = u128::from(amount) * u128::from(point) / u128::from(whole.max(1));
            // No more than `amount`, since no point lies behind the whole.
            u64::try_from(part).unwrap_or(amount)
        };
        let part = |amount: u64| until(amount, to) - until(amount, from);
        let mut counters = Counters::default();
        for (counter, amount) in self.counters.entries() {
            counters.set(counter, Some(part(amount)));
        }
        Self {
            counters,
            running_milliseconds: part(self.running_milliseconds),
            memory_kibibyte_seconds: part(self.memory_kibibyte_seconds),
            memory_given_kibibyte_seconds: part(self.memory_given_kibibyte_seconds),
            disk_kibibyte_seconds: part(self.disk_kibibyte_seconds),
        }
    }
}

/// The account of one VE.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    baseline: Baseline,
    pending: BTreeMap<Month, Totals>,
}

impl Account {
    /// An account that goes on where it was stored.
    #[must_use]
    pub fn from_baseline(baseline: Baseline) -> Self {
        Self {
            baseline,
            pending: BTreeMap::new(),
        }
    }

    /// The account of a new VE which got the number of this one: the packet filter goes on counting by
    /// number, nothing else does.
    #[must_use]
    pub fn successor(&self) -> Self {
        let mut baseline = Baseline {
            filter_epoch: self.baseline.filter_epoch.clone(),
            counters: self.baseline.counters,
            ..Baseline::default()
        };
        baseline.counters.forget_group();
        Self::from_baseline(baseline)
    }

    /// Up to where it has added.
    #[must_use]
    pub fn baseline(&self) -> &Baseline {
        &self.baseline
    }

    /// What was added since the last [`Account::stored`].
    #[must_use]
    pub fn pending(&self) -> &BTreeMap<Month, Totals> {
        &self.pending
    }

    /// Says that what is pending is on disk, with the baseline.
    pub fn stored(&mut self) {
        self.pending.clear();
    }

    /// Adds what a VE used since the last reading.
    pub fn add(&mut self, reading: &Reading) {
        let used = self.used(reading);
        self.distribute(&used, reading.time);
        let baseline = &mut self.baseline;
        for (counter, value) in reading.counters.entries() {
            baseline.counters.set(counter, Some(value));
        }
        if reading.run.is_some() {
            baseline.run.clone_from(&reading.run);
        }
        if reading.filter_epoch.is_some() {
            baseline.filter_epoch.clone_from(&reading.filter_epoch);
        }
        baseline.at_ms = reading.at_ms;
        baseline.time = reading.time;
        baseline.memory_bytes = reading.usage.map_or(0, |usage| usage.memory_bytes);
        baseline.memory_given_bytes = reading.given_bytes();
        if let Some(disk_bytes) = reading.disk_bytes {
            baseline.disk_bytes = disk_bytes;
        }
    }

    /// Says that the group whose last reading was added is gone.
    pub fn end_of_group(&mut self) {
        self.baseline.run = None;
        self.baseline.counters.forget_group();
        self.baseline.memory_bytes = 0;
        self.baseline.memory_given_bytes = 0;
    }

    fn used(&self, reading: &Reading) -> Totals {
        let before = &self.baseline;
        let mut used = Totals::default();
        for (counter, now) in reading.counters.entries() {
            let same = if counter.is_of_filter() {
                before.filter_epoch == reading.filter_epoch
            } else {
                before.run == reading.run
            };
            let earlier = before.counters.get(counter).filter(|_| same).unwrap_or(0);
            // A counter of the same life never falls; if one did, it began anew.
            let difference = now.checked_sub(earlier).unwrap_or(now);
            used.counters.set(counter, Some(difference));
        }
        if let Some(usage) = &reading.usage {
            // The run names the boot, and this clock counts from that.
            let (since, memory_bytes) = match before.run == reading.run {
                true => (Some(before.at_ms), before.memory_bytes),
                false => (reading.run_since_ms, usage.memory_bytes),
            };
            let elapsed = since.map_or(0, |since| reading.at_ms.saturating_sub(since));
            used.running_milliseconds = elapsed;
            used.memory_kibibyte_seconds = integral(memory_bytes, usage.memory_bytes, elapsed);
            let given = reading.given_bytes();
            let given_before = match before.run == reading.run {
                true => before.memory_given_bytes,
                false => 0,
            };
            used.memory_given_kibibyte_seconds = integral(given_before, given, elapsed);
        }
        if let (Some(disk_bytes), true) = (reading.disk_bytes, before.time > 0) {
            let elapsed = reading.time.saturating_sub(before.time);
            let elapsed = elapsed.saturating_mul(1_000);
            used.disk_kibibyte_seconds = integral(before.disk_bytes, disk_bytes, elapsed);
        }
        used
    }

    fn distribute(&mut self, used: &Totals, now: u64) {
        let since = self.baseline.time;
        // Before the first reading nobody knows since when; a clock that was set back says nothing.
        if since == 0 || since >= now {
            self.pending.entry(Month::of(now)).or_default().add(used);
            return;
        }
        let mut month = Month::of(since);
        let mut from = 0;
        while from < now - since {
            let to = month.next().start().min(now) - since;
            let part = used.between(from, to, now - since);
            self.pending.entry(month).or_default().add(&part);
            (from, month) = (to, month.next());
        }
    }
}

/// An amount that went from one value to another, times the time that it took.
fn integral(before_bytes: u64, now_bytes: u64, elapsed_ms: u64) -> u64 {
    let mean = u128::midpoint(u128::from(before_bytes), u128::from(now_bytes));
    let product = mean * u128::from(elapsed_ms) / u128::from(KIBIBYTE * 1_000);
    u64::try_from(product).unwrap_or(u64::MAX)
}

/// The number of a counter over all months of some totals, for tests and reports.
#[must_use]
pub fn sum(months: &BTreeMap<Month, Totals>, counter: Counter) -> u64 {
    let amounts = months.values();
    amounts
        .filter_map(|totals| totals.counters.get(counter))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Bounds;
    use cgroup::Usage;
    use network::node::traffic::{Flow, Traffic};
    use proptest::prelude::*;

    fn reading(time: u64, run: Option<(&str, u64)>, filter: Option<(&str, u64)>) -> Reading {
        let usage = run.map(|(run, cpu_microseconds)| {
            let usage = Usage {
                cpu_microseconds,
                memory_bytes: 10 << 20,
                ..Usage::default()
            };
            (run.to_owned(), usage)
        });
        let filter = filter.map(|(epoch, bytes)| {
            let flow = Flow { bytes, packets: 1 };
            let traffic = Traffic {
                receive_inside: flow,
                ..Traffic::default()
            };
            (epoch, traffic)
        });
        Reading::new(
            time * 1_000,
            time,
            usage,
            filter,
            Some(1 << 20),
            Bounds::default(),
        )
    }

    fn cpu(account: &Account) -> u64 {
        sum(account.pending(), Counter::Cpu)
    }

    fn received(account: &Account) -> u64 {
        sum(account.pending(), Counter::NetworkReceiveInsideBytes)
    }

    #[test]
    fn starts_of_the_ve_lose_nothing_and_count_nothing_twice() {
        let mut account = Account::default();
        account.add(&reading(10, Some(("a", 100)), Some(("t", 5))));
        account.add(&reading(20, Some(("a", 150)), Some(("t", 7))));
        // The group is read once more and removed, and its VE starts again.
        account.add(&reading(25, Some(("a", 170)), None));
        account.end_of_group();
        account.add(&reading(30, None, Some(("t", 9))));
        account.add(&reading(40, Some(("b", 30)), Some(("t", 9))));
        assert_eq!((cpu(&account), received(&account)), (200, 9));
        // 15 s of the first life, and none yet of the second: it was seen once.
        let totals = account.pending()[&Month::of(0)];
        assert_eq!(totals.running_milliseconds, 15_000);
        assert_eq!(totals.memory_kibibyte_seconds, 15 * 10 * 1_024);
        assert_eq!(totals.disk_kibibyte_seconds, 30 * 1_024);
    }

    #[test]
    fn what_was_given_counts_as_long_as_the_ve_has_it() {
        let mut account = Account::default();
        for (at, run, given_mebibytes) in [
            (10, Some(("a", 1)), 0),
            (20, Some(("a", 1)), 64),
            (40, Some(("a", 1)), 64),
            (50, None, 64),
        ] {
            let mut reading = reading(at, run, None);
            reading.bounds.memory_given_bytes = given_mebibytes << 20;
            account.add(&reading);
        }
        let totals = account.pending()[&Month::of(0)];
        assert_eq!(
            totals.memory_given_kibibyte_seconds,
            (10 * 32 + 20 * 64) * 1_024
        );
    }

    #[test]
    fn a_life_between_two_readings_counts_whole() {
        let mut account = Account::default();
        account.add(&reading(10, Some(("a", 100)), None));
        account.end_of_group();
        account.add(&reading(12, Some(("b", 40)), None).since(Some(10_500)));
        account.end_of_group();
        account.add(&reading(14, Some(("c", 2)), None).since(Some(13_000)));
        // Seen again, the begin of a life counts no more.
        account.add(&reading(15, Some(("c", 2)), None).since(Some(13_000)));
        assert_eq!(cpu(&account), 142);
        let totals = account.pending()[&Month::of(0)];
        assert_eq!(totals.running_milliseconds, 1_500 + 1_000 + 1_000);
        assert_eq!(totals.memory_kibibyte_seconds, 3_500 * 10 * 1_024 / 1_000);
    }

    #[test]
    fn another_daemon_goes_on_where_the_first_stored() {
        let mut first = Account::default();
        first.add(&reading(10, Some(("a", 100)), Some(("t", 5))));
        let mut second = Account::from_baseline(first.baseline().clone());
        first.stored();
        assert!(first.pending().is_empty());
        second.add(&reading(5_000, Some(("a", 180)), Some(("u", 3))));
        // Another table of the filter counts from 0.
        assert_eq!((cpu(&second), received(&second)), (80, 3));
        let totals = second.pending()[&Month::of(0)];
        assert_eq!(totals.running_milliseconds, 4_990_000);
    }

    #[test]
    fn a_number_that_is_given_again_leaves_its_traffic_behind() {
        let mut account = Account::default();
        account.add(&reading(10, Some(("a", 100)), Some(("t", 500))));
        let mut next = account.successor();
        next.add(&reading(20, Some(("b", 7)), Some(("t", 510))));
        assert_eq!((cpu(&next), received(&next)), (7, 10));
    }

    #[test]
    fn the_end_of_a_month_divides_by_time() {
        let end = Month::of(0).next().start();
        let mut account = Account::default();
        account.add(&reading(end - 30, Some(("a", 0)), None));
        account.add(&reading(end + 10, Some(("a", 41)), None));
        let part = |month: Month| account.pending()[&month].counters.get(Counter::Cpu);
        assert_eq!(part(Month::of(0)), Some(30));
        assert_eq!(part(Month::of(0).next()), Some(11));
    }

    proptest! {
        /// Whatever happens when, the sum over months is what the kernel counted.
        #[test]
        fn the_sum_over_months_is_what_was_counted(
            steps in prop::collection::vec((1_u64..10_000_000, 0_u64..1_000_000, 0_u8..4), 1..40)
        ) {
            let mut account = Account::default();
            let (mut time, mut life, mut counted, mut truth) = (1, 0_u32, 0, 0);
            for (elapsed, amount, what) in steps {
                time += elapsed;
                counted += amount;
                truth += amount;
                let run = life.to_string();
                account.add(&reading(time, Some((&run, counted)), None));
                match what {
                    0 => { account.end_of_group(); life += 1; counted = 0; }
                    1 => { // A crash of the node: nobody saw the end of the group.
                        life += 1; counted = 0;
                    }
                    2 => { // A crash of the daemon, after it stored.
                        let before = account.pending().clone();
                        account = Account::from_baseline(account.baseline().clone());
                        account.pending = before;
                    }
                    _ => {}
                }
            }
            prop_assert_eq!(cpu(&account), truth);
        }
    }
}
