//! What is told: as names and values for templates, as JSON for programs, as words for people.

use std::collections::BTreeMap;

use meter::Unit;
use notify::Message;
use policy::alert::{Comparison, Telling};
use serde::{Deserialize, Serialize};

use super::observed;

/// What templates may name.
pub(crate) const FIELDS: [&str; 18] = [
    "again",
    "condition",
    "count",
    "id",
    "metric",
    "node",
    "rule",
    "severity",
    "since",
    "state",
    "subject",
    "summary",
    "text",
    "threshold",
    "time",
    "value",
    "ve",
    "ve_id",
];

/// What happened, as it waits in the outbox. Fields are only added to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Told {
    /// When it was decided, in seconds since 1970.
    pub(crate) time: u64,
    /// Since when the alert is as far as it is.
    pub(crate) since: u64,
    pub(crate) node: String,
    pub(crate) rule: String,
    pub(crate) severity: String,
    /// `firing` or `resolved`; `test` for a test.
    pub(crate) state: String,
    /// Whether it was told before and still fires.
    pub(crate) again: bool,
    /// The VE's name; nothing for the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ve: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ve_id: Option<u32>,
    pub(crate) condition: String,
    pub(crate) metric: String,
    pub(crate) unit: String,
    pub(crate) value: f64,
    pub(crate) threshold: f64,
    /// In words.
    pub(crate) summary: String,
}

/// The words for what is told.
pub(crate) fn state(telling: Telling) -> &'static str {
    match telling {
        Telling::Firing | Telling::Again => "firing",
        Telling::Resolved => "resolved",
    }
}

impl Told {
    /// What is said where the rule has no words of its own.
    pub(crate) fn usual_summary(&self, comparison: Comparison, rate: bool) -> String {
        let unit = observed::unit(&self.metric);
        let of = |value| human(value, unit, rate);
        let than = match comparison {
            Comparison::Above => "above",
            Comparison::Below => "below",
        };
        let whose = self.ve.as_deref().unwrap_or("the node");
        let change = if rate { "change of " } else { "" };
        format!(
            "{whose}: {change}{} is {} ({} if {than} {})",
            self.metric,
            of(self.value),
            self.severity,
            of(self.threshold)
        )
    }

    /// Names and values for templates.
    pub(crate) fn fields(&self, id: &str) -> BTreeMap<String, String> {
        let time = |seconds| crate::convert::timestamp(seconds).to_string();
        let ve_id = self.ve_id.map(|id| id.to_string()).unwrap_or_default();
        let pairs: [(&str, String); FIELDS.len()] = [
            ("again", self.again.to_string()),
            ("condition", self.condition.clone()),
            // Of several messages in one, `gathered` says how many.
            ("count", "1".to_owned()),
            ("id", id.to_owned()),
            ("metric", self.metric.clone()),
            ("node", self.node.clone()),
            ("rule", self.rule.clone()),
            ("severity", self.severity.clone()),
            ("since", time(self.since)),
            ("state", self.state.clone()),
            ("subject", self.subject()),
            ("summary", self.summary.clone()),
            ("text", self.text()),
            ("threshold", self.threshold.to_string()),
            ("time", time(self.time)),
            ("value", self.value.to_string()),
            ("ve", self.ve.clone().unwrap_or_default()),
            ("ve_id", ve_id),
        ];
        pairs
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    /// As it is sent.
    pub(crate) fn message(&self, id: String) -> Message {
        let mut json = serde_json::to_value(self).unwrap_or_default();
        if let Some(map) = json.as_object_mut() {
            map.insert("id".to_owned(), id.clone().into());
            for (key, seconds) in [("time", self.time), ("since", self.since)] {
                let text = crate::convert::timestamp(seconds).to_string();
                map.insert(key.to_owned(), text.into());
            }
        }
        Message {
            subject: self.subject(),
            text: self.text(),
            json,
            fields: self.fields(&id),
            id,
        }
    }

    /// The VE's name; nothing for the node.
    pub(super) fn name(&self) -> &str {
        self.ve.as_deref().unwrap_or_default()
    }

    fn subject(&self) -> String {
        self.subject_about(self.name())
    }

    /// The subject, with these names.
    pub(super) fn subject_about(&self, names: &str) -> String {
        let again = if self.again { "still " } else { "" };
        format!(
            "[{}] {again}{} on {}: {} {}",
            self.severity, self.state, self.node, self.rule, names
        )
        .trim_end()
        .to_owned()
    }

    /// The usual text.
    pub(super) fn text(&self) -> String {
        let since = crate::convert::timestamp(self.since);
        format!(
            "{}\n\nrule: {}\nstate: {} since {since}\ncondition: {}\nnode: {}\n",
            self.summary, self.rule, self.state, self.condition, self.node
        )
    }
}

/// A value as people read it.
fn human(value: f64, unit: Unit, rate: bool) -> String {
    let per = if rate { "/s" } else { "" };
    let bytes = |per: &str| {
        let mut scaled = value;
        let mut units = ["", "K", "M", "G", "T"].iter();
        let mut name = units.next().copied().unwrap_or_default();
        while let Some(next) = units.next().filter(|_| scaled.abs() >= 1_024.0) {
            scaled /= 1_024.0;
            name = next;
        }
        format!("{}{name}{per}", short(scaled))
    };
    match unit {
        Unit::Ratio => format!("{}%{per}", short(value * 100.0)),
        Unit::Bytes => bytes(per),
        Unit::BytesPerSecond if rate => bytes("/s/s"),
        Unit::BytesPerSecond => bytes("/s"),
        Unit::PerSecond => format!("{}/s{per}", short(value)),
        Unit::Cores | Unit::Number => format!("{}{per}", short(value)),
    }
}

/// A number to one decimal, small ones to three.
fn short(value: f64) -> String {
    let text = match value.abs() {
        small if small < 1.0 => format!("{value:.3}"),
        _ => format!("{value:.1}"),
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn told() -> Told {
        Told {
            time: 1_763_721_194,
            since: 1_763_721_184,
            node: "one".to_owned(),
            rule: "memory-high".to_owned(),
            severity: "warning".to_owned(),
            state: "firing".to_owned(),
            again: false,
            ve: Some("web".to_owned()),
            ve_id: Some(100),
            condition: "memory_used_ratio > 0.9".to_owned(),
            metric: "memory_used_ratio".to_owned(),
            unit: "ratio".to_owned(),
            value: 0.953,
            threshold: 0.9,
            summary: "short of \"memory\"".to_owned(),
        }
    }

    #[test]
    fn every_field_has_a_value_and_json_has_the_same() {
        let message = told().message("one-7".to_owned());
        let names: Vec<&str> = message.fields.keys().map(String::as_str).collect();
        assert_eq!(names, FIELDS);
        assert_eq!(message.fields["time"], "2025-11-21T10:33:14.000Z");
        assert_eq!(message.json["id"], "one-7");
        assert_eq!(message.json["time"], message.fields["time"].as_str());
        assert_eq!(message.json["value"], 0.953);
        assert_eq!(message.subject, "[warning] firing on one: memory-high web");
        for (name, _) in message.json.as_object().unwrap() {
            assert!(name == "unit" || FIELDS.contains(&name.as_str()), "{name}");
        }
    }

    #[test]
    fn the_usual_words_have_units() {
        assert_eq!(
            told().usual_summary(Comparison::Above, false),
            "web: memory_used_ratio is 95.3% (warning if above 90%)"
        );
        for (value, unit, rate, text) in [
            (1_610_612_736.0, Unit::Bytes, false, "1.5G"),
            (10_485_760.0, Unit::Bytes, true, "10M/s"),
            (2_048.0, Unit::BytesPerSecond, false, "2K/s"),
            (0.1, Unit::PerSecond, false, "0.1/s"),
            (0.0, Unit::Number, false, "0"),
            (12.0, Unit::Cores, false, "12"),
        ] {
            assert_eq!(human(value, unit, rate), text);
        }
    }

    #[test]
    fn what_waits_reads_back() {
        let text = serde_json::to_string(&told()).unwrap();
        assert_eq!(serde_json::from_str::<Told>(&text).unwrap(), told());
    }
}
