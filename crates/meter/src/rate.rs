//! From two readings to what went on between them.

use crate::metric::{Metric, Values};
use crate::reading::{Counter, Reading};

/// The metrics of a VE between two readings; only those of a moment where there is no earlier one.
#[must_use]
pub fn between(before: Option<&Reading>, now: &Reading) -> Values {
    let mut values = Values::default();
    moment(&mut values, now);
    if let Some(before) = before {
        rates(&mut values, before, now);
    }
    values
}

#[expect(clippy::cast_precision_loss, reason = "a rate needs no 54th bit")]
fn float(number: u64) -> f64 {
    number as f64
}

fn moment(values: &mut Values, now: &Reading) {
    let ratio = |used: u64, bound: Option<u64>| {
        let bound = bound.filter(|bound| *bound > 0)?;
        Some(float(used) / float(bound))
    };
    values.set(Metric::DiskBytes, now.disk_bytes.map(float));
    values.set(
        Metric::DiskUsedRatio,
        now.disk_bytes
            .and_then(|used| ratio(used, now.bounds.disk_bytes)),
    );
    let Some(usage) = &now.usage else { return };
    // The page cache of files is given back before anybody is killed: it is no reason for alarm.
    let kept = usage
        .memory_bytes
        .saturating_sub(usage.memory_reclaimable_bytes);
    values.set(Metric::MemoryBytes, Some(float(usage.memory_bytes)));
    values.set(
        Metric::MemoryUsedRatio,
        ratio(kept, now.bounds.memory_bytes),
    );
    values.set(Metric::SwapBytes, Some(float(usage.swap_bytes)));
    values.set(Metric::Processes, Some(float(usage.processes)));
    values.set(
        Metric::ProcessesUsedRatio,
        ratio(usage.processes, now.bounds.processes),
    );
}

fn rates(values: &mut Values, before: &Reading, now: &Reading) {
    let seconds = float(now.at_ms.saturating_sub(before.at_ms)) / 1_000.0;
    if seconds <= 0.0 {
        return;
    }
    let difference = |counter: Counter| {
        let same = if counter.is_of_filter() {
            before.filter_epoch == now.filter_epoch
        } else {
            before.run == now.run
        };
        let earlier = before.counters.get(counter).filter(|_| same)?;
        // A group that is younger than the earlier reading has no past.
        now.counters.get(counter)?.checked_sub(earlier)
    };
    let rate = |counter| difference(counter).map(|count| float(count) / seconds);
    let time = |counter| rate(counter).map(|microseconds| microseconds / 1e6);
    times(values, &time);
    for (metric, value) in [
        (Metric::OomKillsPerSecond, rate(Counter::OomKills)),
        (Metric::IoReadBytesPerSecond, rate(Counter::IoReadBytes)),
        (Metric::IoWriteBytesPerSecond, rate(Counter::IoWriteBytes)),
        (
            Metric::IoReadOperationsPerSecond,
            rate(Counter::IoReadOperations),
        ),
        (
            Metric::IoWriteOperationsPerSecond,
            rate(Counter::IoWriteOperations),
        ),
        (
            Metric::NetworkReceiveInsideBytesPerSecond,
            rate(Counter::NetworkReceiveInsideBytes),
        ),
        (
            Metric::NetworkReceiveOutsideBytesPerSecond,
            rate(Counter::NetworkReceiveOutsideBytes),
        ),
        (
            Metric::NetworkTransmitInsideBytesPerSecond,
            rate(Counter::NetworkTransmitInsideBytes),
        ),
        (
            Metric::NetworkTransmitOutsideBytesPerSecond,
            rate(Counter::NetworkTransmitOutsideBytes),
        ),
    ] {
        values.set(metric, value);
    }
    let packets = |inside, outside| Some(rate(inside)? + rate(outside)?);
    values.set(
        Metric::NetworkReceivePacketsPerSecond,
        packets(
            Counter::NetworkReceiveInsidePackets,
            Counter::NetworkReceiveOutsidePackets,
        ),
    );
    values.set(
        Metric::NetworkTransmitPacketsPerSecond,
        packets(
            Counter::NetworkTransmitInsidePackets,
            Counter::NetworkTransmitOutsidePackets,
        ),
    );
    values.set(
        Metric::CpuThrottledRatio,
        throttled(
            difference(Counter::CpuThrottledPeriods),
            difference(Counter::CpuPeriods),
        ),
    );
}

fn times(values: &mut Values, time: &impl Fn(Counter) -> Option<f64>) {
    let part = |counter| time(counter).map(|part| part.min(1.0));
    for (metric, value) in [
        (Metric::CpuCores, time(Counter::Cpu)),
        (Metric::CpuPressureRatio, part(Counter::CpuPressure)),
        (Metric::MemoryPressureRatio, part(Counter::MemoryPressure)),
        (Metric::IoPressureRatio, part(Counter::IoPressure)),
    ] {
        values.set(metric, value);
    }
}

/// A VE that had nothing to do was not held back.
fn throttled(throttled: Option<u64>, periods: Option<u64>) -> Option<f64> {
    match (throttled?, periods?) {
        (_, 0) => Some(0.0),
        (throttled, periods) => Some((float(throttled) / float(periods)).min(1.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Bounds;
    use cgroup::Usage;
    use network::node::traffic::{Flow, Traffic};

    fn reading(at_ms: u64, run: &str, cpu: u64, sent: u64) -> Reading {
        let usage = Usage {
            cpu_microseconds: cpu,
            cpu_periods: at_ms / 100,
            cpu_throttled_periods: at_ms / 400,
            memory_bytes: 300,
            memory_reclaimable_bytes: 100,
            ..Usage::default()
        };
        let traffic = Traffic {
            transmit_outside: Flow {
                bytes: sent,
                packets: sent / 100,
            },
            ..Traffic::default()
        };
        let bounds = Bounds {
            memory_bytes: Some(400),
            disk_bytes: Some(0),
            ..Bounds::default()
        };
        let usage = Some((run.to_owned(), usage));
        Reading::new(
            at_ms,
            at_ms / 1_000,
            usage,
            Some(("table", traffic)),
            Some(7),
            bounds,
        )
    }

    #[test]
    fn rates_are_of_the_time_between() {
        let (before, now) = (reading(0, "a", 0, 0), reading(4_000, "a", 2_000_000, 4_000));
        let values = between(Some(&before), &now);
        assert_eq!(values.get(Metric::CpuCores), Some(0.5));
        assert_eq!(values.get(Metric::CpuThrottledRatio), Some(0.25));
        assert_eq!(
            values.get(Metric::NetworkTransmitOutsideBytesPerSecond),
            Some(1_000.0)
        );
        assert_eq!(
            values.get(Metric::NetworkTransmitPacketsPerSecond),
            Some(10.0)
        );
        assert_eq!(values.get(Metric::MemoryUsedRatio), Some(0.5));
        assert_eq!(values.get(Metric::CpuPressureRatio), None, "not counted");
        assert_eq!(values.get(Metric::DiskUsedRatio), None, "no limit");
    }

    #[test]
    fn another_life_has_no_rates_of_its_group_and_goes_on_in_the_filter() {
        let (before, now) = (reading(0, "a", 9, 0), reading(1_000, "b", 50, 500));
        let values = between(Some(&before), &now);
        assert_eq!(values.get(Metric::CpuCores), None);
        assert_eq!(values.get(Metric::MemoryBytes), Some(300.0));
        assert_eq!(
            values.get(Metric::NetworkTransmitOutsideBytesPerSecond),
            Some(500.0)
        );
    }
}
