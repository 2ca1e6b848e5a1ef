//! What was measured, and how it compares with what was promised.

mod json;
mod machine;
mod table;

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use crate::context::Effort;
pub(crate) use json::folder;
use machine::Machine;

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Unit {
    Milliseconds,
    Seconds,
    Mebibytes,
    Kibibytes,
    Microseconds,
    PerSecond,
    Count,
    Ratio,
    Percent,
}

impl Unit {
    fn word(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Seconds => "s",
            Self::Mebibytes => "MiB",
            Self::Kibibytes => "KiB",
            Self::Microseconds => "us",
            Self::PerSecond => "/s",
            Self::Percent => "%",
            Self::Count => "",
            Self::Ratio => "x",
        }
    }
}

/// Samples of one thing about one subject.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measurement {
    pub(crate) section: &'static str,
    /// Who: `vessel (API)`, `lxc 5.0.2`.
    pub(crate) subject: String,
    /// What: `start to first instruction`.
    pub(crate) what: String,
    pub(crate) unit: Unit,
    pub(crate) median: f64,
    pub(crate) samples: Vec<f64>,
}

/// Which side of a bound is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    AtMost,
    AtLeast,
}

/// A promise, and whether it holds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Target {
    pub(crate) section: &'static str,
    /// What is promised, in words.
    pub(crate) what: String,
    pub(crate) unit: Unit,
    pub(crate) measured: f64,
    pub(crate) bound: Bound,
    pub(crate) target: f64,
    pub(crate) met: bool,
}

/// Somebody who could not be measured here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Absent {
    pub(crate) subject: String,
    pub(crate) reason: String,
}

/// Everything that one run found out.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Results {
    /// Version of this form: fields are only added within one.
    format: u32,
    effort: &'static str,
    machine: Machine,
    measurements: Vec<Measurement>,
    targets: Vec<Target>,
    absent: Vec<Absent>,
    notes: Vec<String>,
}

impl Results {
    pub(crate) fn begin(effort: Effort) -> Self {
        Self {
            format: 1,
            effort: match effort {
                Effort::Quick => "quick",
                Effort::Full => "full",
            },
            machine: Machine::look(),
            measurements: Vec::new(),
            targets: Vec::new(),
            absent: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds the samples of one measurement; none at all is nothing to add.
    pub(crate) fn add(
        &mut self,
        section: &'static str,
        subject: &str,
        what: &str,
        unit: Unit,
        samples: Vec<f64>,
    ) {
        if let Some(median) = median(&samples) {
            self.measurements.push(Measurement {
                section,
                subject: subject.to_owned(),
                what: what.to_owned(),
                unit,
                median,
                samples,
            });
        }
    }

    /// The median that was added for a subject whose name begins so.
    pub(crate) fn median(&self, section: &str, subject: &str, what: &str) -> Option<f64> {
        let found = self
            .measurements
            .iter()
            .find(|m| m.section == section && m.subject.starts_with(subject) && m.what == what);
        found.map(|measurement| measurement.median)
    }

    /// Holds a number against what was promised.
    pub(crate) fn promise(
        &mut self,
        section: &'static str,
        what: &str,
        unit: Unit,
        measured: f64,
        bound: (Bound, f64),
    ) {
        let (bound, target) = bound;
        let met = match bound {
            Bound::AtMost => measured <= target,
            Bound::AtLeast => measured >= target,
        };
        self.targets.push(Target {
            section,
            what: what.to_owned(),
            unit,
            measured,
            bound,
            target,
            met,
        });
    }

    /// Notes that somebody could not be measured; once is enough.
    pub(crate) fn absent(&mut self, subject: &str, reason: &str) {
        let absent = Absent {
            subject: subject.to_owned(),
            reason: reason.to_owned(),
        };
        if !self.absent.contains(&absent) {
            self.absent.push(absent);
        }
    }

    /// Adds a sentence that readers of the figures should know.
    pub(crate) fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// Prints tables for people.
    pub(crate) fn print(&self) {
        println!("{}", table::text(self));
    }

    /// Writes everything for programs; returns where.
    pub(crate) fn save(&self) -> Result<PathBuf> {
        json::save(self)
    }
}

/// The middle one, or the mean of the two in the middle.
pub(crate) fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get(sorted.len().saturating_sub(1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 9.0, 2.0]), Some(3.0));
    }

    #[test]
    fn a_promise_is_met_on_its_side_of_the_bound() {
        let mut results = Results::begin(Effort::Quick);
        results.promise("life", "a", Unit::Ratio, 1.5, (Bound::AtMost, 1.5));
        results.promise("life", "b", Unit::Ratio, 1.6, (Bound::AtMost, 1.5));
        results.promise("web", "c", Unit::Ratio, 0.84, (Bound::AtLeast, 0.85));
        let met: Vec<bool> = results.targets.iter().map(|target| target.met).collect();
        assert_eq!(met, [true, false, false]);
    }

    #[test]
    fn nothing_measured_is_nothing_said() {
        let mut results = Results::begin(Effort::Quick);
        results.add("life", "floor", "start", Unit::Milliseconds, Vec::new());
        assert_eq!(results.median("life", "floor", "start"), None);
        results.add("life", "floor 1", "start", Unit::Milliseconds, vec![2.0]);
        assert_eq!(results.median("life", "floor", "start"), Some(2.0));
    }
}
