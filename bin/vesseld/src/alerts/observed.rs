//! What rules look at: the metrics of each VE between two looks, and those of the node.
//!
//! A look has its own earlier readings, and not the last sweep's: whoever watches `vessel top` makes a sweep
//! a second, and a process that was killed nine sweeps ago must still be seen.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use api::latest::AlertMetric;
use meter::{Metric, Reading, Unit, Values};
use ve::{State, VeId};

use crate::daemon::Up;
use crate::metering::Current;

const RUNNING: &str = "running";
const BROKEN: &str = "broken";

/// Metrics of a VE that the history does not have: name, what it tells.
const OF_VE: [(&str, &str); 2] = [
    (RUNNING, "1 while it has processes, 0 otherwise"),
    (BROKEN, "1 when somebody must look after it, 0 otherwise"),
];

/// Metrics of the node: name, unit, what it tells.
const OF_NODE: [(&str, Unit, &str); 8] = [
    (
        "node_cpu_pressure_ratio",
        Unit::Ratio,
        "part of the time in which something on the node waited for a processor",
    ),
    (
        "node_memory_pressure_ratio",
        Unit::Ratio,
        "part of the time in which something on the node waited for memory",
    ),
    (
        "node_io_pressure_ratio",
        Unit::Ratio,
        "part of the time in which something on the node waited for a disk",
    ),
    (
        "node_memory_used_ratio",
        Unit::Ratio,
        "memory of the node that cannot be had by new programs, of all",
    ),
    (
        "node_memory_available_bytes",
        Unit::Bytes,
        "memory of the node that new programs could have",
    ),
    (
        "pool_used_ratio",
        Unit::Ratio,
        "space of the pool that is in use, of its size",
    ),
    ("pool_used_bytes", Unit::Bytes, "space of the pool in use"),
    (
        "pool_free_bytes",
        Unit::Bytes,
        "space of the pool that is free for files",
    ),
];

/// What a rule is about: a VE in one of its lives, as numbers are given again, or the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// The node.
    Node,
    /// The VE with this number that was created then.
    Ve(VeId, u64),
}

/// Where the value of a metric is found: looked up once for a rule, and not for each VE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Among those that the history has.
    Metric(Metric),
    /// Whether a VE has processes.
    Running,
    /// Whether somebody must look after a VE.
    Broken,
    /// Among those of the node, at this place.
    Node(usize),
}

/// What was seen of a subject.
#[derive(Clone, Debug)]
pub(crate) struct Observed<'a> {
    pub(crate) subject: Subject,
    /// Its name; empty for the node.
    pub(crate) name: &'a str,
    pub(crate) labels: &'a BTreeMap<String, String>,
    /// When, in seconds of a clock that nobody sets.
    pub(crate) at_seconds: f64,
    seen: Seen,
}

/// The values of all metrics.
#[derive(Clone, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "of a thousand only one is the node"
)]
enum Seen {
    Node([Option<f64>; OF_NODE.len()]),
    Ve {
        rates: Values,
        running: bool,
        broken: bool,
    },
}

static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();

/// Readings of the look before.
#[derive(Debug, Default)]
pub(crate) struct Before {
    readings: BTreeMap<Subject, Arc<Current>>,
    pressures: Option<(f64, [Option<u64>; 3])>,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node => f.write_str("node"),
            Self::Ve(id, created) => write!(f, "{id}-{created}"),
        }
    }
}

impl Subject {
    /// Reads what was written by `Display`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text == "node" {
            return Some(Self::Node);
        }
        let (id, created) = text.split_once('-')?;
        let id = VeId::new(id.parse().ok()?).ok()?;
        Some(Self::Ve(id, created.parse().ok()?))
    }
}

impl Source {
    /// Finds a metric by its name.
    pub(crate) fn of(metric: &str) -> Option<Self> {
        let of_node = || OF_NODE.iter().position(|(name, ..)| *name == metric);
        match metric {
            RUNNING => Some(Self::Running),
            BROKEN => Some(Self::Broken),
            _ => match Metric::from_name(metric) {
                Some(metric) => Some(Self::Metric(metric)),
                None => of_node().map(Self::Node),
            },
        }
    }
}

impl<'a> Observed<'a> {
    /// As a test wants it.
    #[cfg(test)]
    pub(super) fn of<const COUNT: usize>(
        subject: Subject,
        name: &'a str,
        at: u64,
        values: [(&str, f64); COUNT],
    ) -> Self {
        let mut rates = Values::default();
        for (metric, value) in values {
            rates.set(Metric::from_name(metric).unwrap(), Some(value));
        }
        Self {
            subject,
            name,
            labels: &NO_LABELS,
            at_seconds: f64::from(u32::try_from(at).unwrap_or(u32::MAX)),
            seen: Seen::Ve {
                rates,
                running: true,
                broken: false,
            },
        }
    }

    /// The value of a metric, where it has one.
    pub(crate) fn value(&self, source: Source) -> Option<f64> {
        let flag = |is: bool| Some(f64::from(u8::from(is)));
        match (&self.seen, source) {
            (Seen::Node(values), Source::Node(at)) => *values.get(at)?,
            (Seen::Ve { rates, .. }, Source::Metric(metric)) => rates.get(metric),
            (Seen::Ve { running, .. }, Source::Running) => flag(*running),
            (Seen::Ve { broken, .. }, Source::Broken) => flag(*broken),
            _ => None,
        }
    }
}

/// Names of all metrics.
pub(crate) fn names() -> Vec<&'static str> {
    let of_ve = Metric::ALL.into_iter().map(Metric::name);
    let more = OF_VE.iter().map(|(name, _)| *name);
    let of_node = OF_NODE.iter().map(|(name, ..)| *name);
    of_ve.chain(more).chain(of_node).collect()
}

/// Whether a metric is of the node, and not of each VE.
pub(crate) fn is_of_node(metric: &str) -> bool {
    OF_NODE.iter().any(|(name, ..)| *name == metric)
}

/// What a metric is of.
pub(crate) fn unit(metric: &str) -> Unit {
    let of_node = OF_NODE.iter().find(|(name, ..)| *name == metric);
    match (Metric::from_name(metric), of_node) {
        (Some(metric), _) => metric.unit(),
        (None, Some((_, unit, _))) => *unit,
        (None, None) => Unit::Number,
    }
}

/// All metrics, as the wire lists them.
pub(crate) fn list() -> Vec<AlertMetric> {
    let metric = |name: &str, help: &str| AlertMetric {
        name: name.to_owned(),
        unit: unit(name).as_str().to_owned(),
        help: help.to_owned(),
        of_node: is_of_node(name),
    };
    let of_ve = Metric::ALL.map(|of| metric(of.name(), of.help()));
    let more = OF_VE.map(|(name, help)| metric(name, help));
    let of_node = OF_NODE.map(|(name, _, help)| metric(name, help));
    of_ve.into_iter().chain(more).chain(of_node).collect()
}

/// Looks at the node and all VEs.
pub(crate) fn all<'a>(
    up: &Up,
    current: &'a [Arc<Current>],
    before: &mut Before,
) -> Vec<Observed<'a>> {
    let mut readings = BTreeMap::new();
    let mut observed = vec![node(up, before)];
    for ve in current {
        let subject = Subject::Ve(ve.record.spec.id, ve.record.spec.created);
        let earlier = before.readings.get(&subject);
        observed.push(of_ve(ve, subject, earlier.map(|ve| &ve.reading)));
        readings.insert(subject, Arc::clone(ve));
    }
    before.readings = readings;
    observed
}

#[expect(
    clippy::cast_precision_loss,
    reason = "milliseconds since boot stay below 2^53 for 280,000 years"
)]
fn of_ve<'a>(ve: &'a Current, subject: Subject, before: Option<&Reading>) -> Observed<'a> {
    Observed {
        subject,
        name: ve.record.spec.name.as_str(),
        labels: &ve.record.spec.labels,
        at_seconds: ve.reading.at_ms as f64 / 1e3,
        seen: Seen::Ve {
            rates: meter::rate::between(before, &ve.reading),
            running: ve.record.state.has_processes(),
            broken: ve.record.state == State::Broken,
        },
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "microseconds and bytes of a node, told as a part of a whole"
)]
fn node(up: &Up, before: &mut Before) -> Observed<'static> {
    let mut values = [None; OF_NODE.len()];
    let mut set = |name: &str, value: f64| {
        if let Some(at) = OF_NODE.iter().position(|(own, ..)| *own == name) {
            values[at] = Some(value);
        }
    };
    let at_seconds = crate::metering::boot_milliseconds() as f64 / 1e3;
    let now = ["cpu", "memory", "io"].map(kernel::proc::pressure_microseconds);
    if let Some((earlier, then)) = before.pressures {
        let names = [
            "node_cpu_pressure_ratio",
            "node_memory_pressure_ratio",
            "node_io_pressure_ratio",
        ];
        let spent = (at_seconds - earlier).max(1e-3);
        for ((name, then), now) in names.into_iter().zip(then).zip(now) {
            let waited = then.zip(now).and_then(|(then, now)| now.checked_sub(then));
            if let Some(waited) = waited {
                set(name, (waited as f64 / 1e6 / spent).min(1.0));
            }
        }
    }
    before.pressures = Some((at_seconds, now));
    if let Ok(memory) = kernel::proc::memory_info() {
        let (all, left) = (memory.total_bytes as f64, memory.available_bytes as f64);
        set("node_memory_used_ratio", 1.0 - left / all.max(1.0));
        set("node_memory_available_bytes", left);
    }
    if let Ok(usage) = up.host.pool.usage() {
        let (size, used) = (usage.size_bytes as f64, usage.used_bytes as f64);
        set("pool_used_ratio", used / size.max(1.0));
        set("pool_used_bytes", used);
        set("pool_free_bytes", usage.free_bytes as f64);
    }
    Observed {
        subject: Subject::Node,
        name: "",
        labels: &NO_LABELS,
        at_seconds,
        seen: Seen::Node(values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_listed_once_and_found() {
        let names = names();
        let mut once = names.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), names.len());
        assert_eq!(list().len(), names.len());
        for metric in list() {
            assert_eq!(unit(&metric.name).as_str(), metric.unit);
            assert_eq!(is_of_node(&metric.name), metric.of_node);
            let source = Source::of(&metric.name).unwrap();
            assert_eq!(matches!(source, Source::Node(_)), metric.of_node);
        }
    }

    #[test]
    fn a_value_is_found_by_the_name_of_its_metric() {
        let subject = Subject::Ve(VeId::new(100).unwrap(), 17);
        let values = [("disk_bytes", 7.0), ("processes", 3.0)];
        let one = Observed::of(subject, "web", 0, values);
        let value = |metric| one.value(Source::of(metric).unwrap());
        assert_eq!(
            (value("disk_bytes"), value("processes")),
            (Some(7.0), Some(3.0))
        );
        assert_eq!((value("running"), value("broken")), (Some(1.0), Some(0.0)));
        assert_eq!((value("cpu_cores"), value("pool_used_ratio")), (None, None));
        assert_eq!(Source::of("cpu"), None);
    }

    #[test]
    fn subjects_read_back() {
        for subject in [Subject::Node, Subject::Ve(VeId::new(100).unwrap(), 17)] {
            assert_eq!(Subject::parse(&subject.to_string()), Some(subject));
        }
        for text in ["", "100", "x-1", "100-"] {
            assert_eq!(Subject::parse(text), None, "{text}");
        }
    }
}
