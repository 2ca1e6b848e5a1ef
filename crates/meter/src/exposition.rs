//! Text for Prometheus, in its exposition format 0.0.4.
//!
//! Names follow Prometheus' rules: base units (seconds, bytes), the unit at the end, `_total` for what counts
//! up. A VE is the label `ve`, its name. Counters begin at 0 with each start of a VE, which `rate()`
//! understands; what a host cannot count is absent.

use std::fmt::Write;

use crate::reading::{Counter, Reading};

/// The content type of such a text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What kind of number a family has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It counts up.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// A text that is being written.
#[derive(Clone, Debug, Default)]
pub struct Page(String);

/// A VE as it is shown.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// Its name.
    pub name: &'a str,
    /// Whether it has processes.
    pub running: bool,
    /// Whether something that it needs is missing or damaged.
    pub broken: bool,
    /// What was last read of it.
    pub reading: &'a Reading,
}

impl Page {
    /// Writes a family: its name, what it tells, and its samples with their labels.
    pub fn family<'a>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        samples: impl IntoIterator<Item = (Vec<(&'a str, &'a str)>, f64)>,
    ) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            self.0.push_str(name);
            for (at, (label, text)) in labels.iter().enumerate() {
                let text = text.replace('\\', "\\\\").replace('"', "\\\"");
                let text = text.replace('\n', "\\n");
                let open = if at == 0 { '{' } else { ',' };
                let _ = write!(self.0, "{open}{label}=\"{text}\"");
            }
            let close = if labels.is_empty() { "" } else { "}" };
            let _ = writeln!(self.0, "{close} {value}");
        }
    }

    /// Writes everything about some VEs.
    pub fn ves(&mut self, ves: &[Shown<'_>]) {
        let flag = |set: bool| f64::from(u8::from(set));
        let each = |value: fn(&Shown<'_>) -> bool| {
            ves.iter()
                .map(move |ve| (vec![("ve", ve.name)], flag(value(ve))))
        };
        let help = "Whether the VE has processes.";
        self.family("vessel_ve_up", Kind::Gauge, help, each(|ve| ve.running));
        let help = "Whether something that the VE needs is missing or damaged.";
        self.family("vessel_ve_broken", Kind::Gauge, help, each(|ve| ve.broken));
        for family in FAMILIES {
            let samples = ves.iter().flat_map(|ve| {
                family.parts.iter().filter_map(move |(labels, value)| {
                    let mut all = vec![("ve", ve.name)];
                    all.extend_from_slice(labels);
                    Some((all, value.of(ve.reading)?))
                })
            });
            self.family(family.name, family.kind, family.help, samples);
        }
    }

    /// The text.
    #[must_use]
    pub fn into_text(self) -> String {
        self.0
    }
}

/// Where a number comes from.
#[derive(Clone, Copy)]
enum Value {
    /// A counter as it is.
    Count(Counter),
    /// A counter of microseconds, in seconds.
    Time(Counter),
    /// Something of the moment.
    Now(fn(&Reading) -> Option<f64>),
}

impl Value {
    #[expect(
        clippy::cast_precision_loss,
        reason = "Prometheus has floats of 64 bits and nothing else"
    )]
    fn of(self, reading: &Reading) -> Option<f64> {
        match self {
            Self::Count(counter) => reading.counters.get(counter).map(|count| count as f64),
            Self::Time(counter) => reading.counters.get(counter).map(|time| time as f64 / 1e6),
            Self::Now(value) => value(reading),
        }
    }
}

/// Labels beside the VE's name, and where their number comes from.
type Part = (&'static [(&'static str, &'static str)], Value);

struct Family {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    parts: &'static [Part],
}

const fn counter(name: &'static str, help: &'static str, parts: &'static [Part]) -> Family {
    Family {
        name,
        kind: Kind::Counter,
        help,
        parts,
    }
}

const fn gauge(name: &'static str, help: &'static str, parts: &'static [Part]) -> Family {
    Family {
        name,
        kind: Kind::Gauge,
        help,
        parts,
    }
}

#[expect(clippy::cast_precision_loss, reason = "as above")]
fn number(number: u64) -> f64 {
    number as f64
}

const INSIDE: &[(&str, &str)] = &[("class", "inside")];
const OUTSIDE: &[(&str, &str)] = &[("class", "outside")];

const FAMILIES: &[Family] = &[
    counter(
        "vessel_ve_cpu_seconds_total",
        "Processor time by mode.",
        &[
            (&[("mode", "user")], Value::Time(Counter::CpuUser)),
            (&[("mode", "system")], Value::Time(Counter::CpuSystem)),
        ],
    ),
    counter(
        "vessel_ve_cpu_throttled_seconds_total",
        "Time for which processes waited for the next quota, over all processors.",
        &[(&[], Value::Time(Counter::CpuThrottled))],
    ),
    counter(
        "vessel_ve_cpu_periods_total",
        "Periods of quota in which there was something to do.",
        &[(&[], Value::Count(Counter::CpuPeriods))],
    ),
    counter(
        "vessel_ve_cpu_throttled_periods_total",
        "Those of them in which the quota ran out.",
        &[(&[], Value::Count(Counter::CpuThrottledPeriods))],
    ),
    counter(
        "vessel_ve_pressure_seconds_total",
        "Time in which some process waited for a resource (PSI).",
        &[
            (&[("resource", "cpu")], Value::Time(Counter::CpuPressure)),
            (
                &[("resource", "memory")],
                Value::Time(Counter::MemoryPressure),
            ),
            (&[("resource", "io")], Value::Time(Counter::IoPressure)),
        ],
    ),
    counter(
        "vessel_ve_oom_kills_total",
        "Processes that the kernel killed for memory.",
        &[(&[], Value::Count(Counter::OomKills))],
    ),
    counter(
        "vessel_ve_io_read_bytes_total",
        "Bytes read from disks.",
        &[(&[], Value::Count(Counter::IoReadBytes))],
    ),
    counter(
        "vessel_ve_io_write_bytes_total",
        "Bytes written to disks.",
        &[(&[], Value::Count(Counter::IoWriteBytes))],
    ),
    counter(
        "vessel_ve_io_read_operations_total",
        "Read operations.",
        &[(&[], Value::Count(Counter::IoReadOperations))],
    ),
    counter(
        "vessel_ve_io_write_operations_total",
        "Write operations.",
        &[(&[], Value::Count(Counter::IoWriteOperations))],
    ),
    counter(
        "vessel_ve_network_receive_bytes_total",
        "Bytes that the VE received, by where from: inside the node's own network or outside.",
        &[
            (INSIDE, Value::Count(Counter::NetworkReceiveInsideBytes)),
            (OUTSIDE, Value::Count(Counter::NetworkReceiveOutsideBytes)),
        ],
    ),
    counter(
        "vessel_ve_network_transmit_bytes_total",
        "Bytes that the VE sent, by where to.",
        &[
            (INSIDE, Value::Count(Counter::NetworkTransmitInsideBytes)),
            (OUTSIDE, Value::Count(Counter::NetworkTransmitOutsideBytes)),
        ],
    ),
    counter(
        "vessel_ve_network_receive_packets_total",
        "Packets that the VE received, by where from.",
        &[
            (INSIDE, Value::Count(Counter::NetworkReceiveInsidePackets)),
            (OUTSIDE, Value::Count(Counter::NetworkReceiveOutsidePackets)),
        ],
    ),
    counter(
        "vessel_ve_network_transmit_packets_total",
        "Packets that the VE sent, by where to.",
        &[
            (INSIDE, Value::Count(Counter::NetworkTransmitInsidePackets)),
            (
                OUTSIDE,
                Value::Count(Counter::NetworkTransmitOutsidePackets),
            ),
        ],
    ),
    gauge(
        "vessel_ve_memory_bytes",
        "Memory, with the page cache charged to the VE.",
        &[(&[], Value::Now(|r| Some(number(r.usage?.memory_bytes))))],
    ),
    gauge(
        "vessel_ve_memory_anonymous_bytes",
        "Part of it that belongs to processes.",
        &[(
            &[],
            Value::Now(|r| Some(number(r.usage?.memory_anonymous_bytes))),
        )],
    ),
    gauge(
        "vessel_ve_memory_peak_bytes",
        "Most memory since the VE's start.",
        &[(&[], Value::Now(|r| r.usage?.memory_peak_bytes.map(number)))],
    ),
    gauge(
        "vessel_ve_memory_limit_bytes",
        "The setting memory.limit.",
        &[(&[], Value::Now(|r| r.bounds.memory_bytes.map(number)))],
    ),
    gauge(
        "vessel_ve_swap_bytes",
        "Swap.",
        &[(&[], Value::Now(|r| Some(number(r.usage?.swap_bytes))))],
    ),
    gauge(
        "vessel_ve_processes",
        "Processes and threads.",
        &[(&[], Value::Now(|r| Some(number(r.usage?.processes))))],
    ),
    gauge(
        "vessel_ve_processes_limit",
        "The setting processes.limit.",
        &[(&[], Value::Now(|r| r.bounds.processes.map(number)))],
    ),
    gauge(
        "vessel_ve_disk_bytes",
        "Space of the private area in the pool.",
        &[(&[], Value::Now(|r| r.disk_bytes.map(number)))],
    ),
    gauge(
        "vessel_ve_disk_limit_bytes",
        "The setting disk.limit.",
        &[(&[], Value::Now(|r| r.bounds.disk_bytes.map(number)))],
    ),
    gauge(
        "vessel_ve_cpu_limit_cores",
        "The setting cpu.limit, in processors.",
        &[(&[], Value::Now(|r| r.bounds.cpu_cores))],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Bounds;
    use cgroup::Usage;

    #[test]
    fn a_family_is_told_once_and_then_all_its_samples() {
        let usage = Usage {
            cpu_user_microseconds: 1_500_000,
            memory_bytes: 4_096,
            ..Usage::default()
        };
        let reading = Reading::new(
            1,
            1,
            Some(("a".to_owned(), usage)),
            None,
            None,
            Bounds::default(),
        );
        let stopped = Reading::default();
        let shown = |name, running, reading| Shown {
            name,
            running,
            broken: false,
            reading,
        };
        let mut page = Page::default();
        page.ves(&[shown("web", true, &reading), shown("db", false, &stopped)]);
        let text = page.into_text();
        assert!(
            text.contains("vessel_ve_up{ve=\"web\"} 1\nvessel_ve_up{ve=\"db\"} 0\n"),
            "{text}"
        );
        assert!(
            text.contains("vessel_ve_cpu_seconds_total{ve=\"web\",mode=\"user\"} 1.5\n"),
            "{text}"
        );
        assert!(
            text.contains("vessel_ve_memory_bytes{ve=\"web\"} 4096\n"),
            "{text}"
        );
        // Nothing is made up: no limit, no pressure, and no memory of what is stopped.
        for absent in [
            "memory_limit",
            "pressure",
            "memory_bytes{ve=\"db\"",
            "network",
        ] {
            assert!(!text.contains(absent), "{absent} in {text}");
        }
        let mut families: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("# TYPE"))
            .collect();
        let count = families.len();
        families.sort_unstable();
        families.dedup();
        assert_eq!(families.len(), count);
    }

    #[test]
    fn labels_are_escaped() {
        let mut page = Page::default();
        page.family("x", Kind::Gauge, "a\nb", [(vec![("l", "q\"\\\n")], 1.0)]);
        assert_eq!(
            page.into_text(),
            "# HELP x a\\nb\n# TYPE x gauge\nx{l=\"q\\\"\\\\\\n\"} 1\n"
        );
    }
}
