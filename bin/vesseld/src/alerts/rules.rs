//! From the wire's rules to those that policy decides by, and the rules that a new node has.

use api::latest::{AlertRule, AlertSeverity, ApiError, ErrorCode};
use policy::alert::{
    Condition, REPEAT_SECONDS_DEFAULT, RESOLVE_SECONDS_DEFAULT, Rule, SECONDS_MAX, Scope,
};
use ve::Name;

use super::message::FIELDS;
use super::observed;

/// Number of the set of rules that a node was given. A later set adds to what is there.
pub(crate) const DEFAULTS_VERSION: &str = "1";

/// The rules of a new node: name, condition, for how long, how bad. What people are woken for is what cannot
/// wait: somebody was killed, nothing can be written, nothing works.
const DEFAULTS: [(&str, &str, u64, AlertSeverity); 13] = [
    ("broken", "broken > 0", 0, AlertSeverity::Critical),
    (
        "cpu-throttled",
        "cpu_throttled_ratio > 50%",
        900,
        AlertSeverity::Info,
    ),
    (
        "disk-full",
        "disk_used_ratio > 98%",
        0,
        AlertSeverity::Critical,
    ),
    (
        "disk-high",
        "disk_used_ratio > 90%",
        60,
        AlertSeverity::Warning,
    ),
    (
        "io-pressure",
        "io_pressure_ratio > 50%",
        600,
        AlertSeverity::Info,
    ),
    (
        "memory-high",
        "memory_used_ratio > 90%",
        300,
        AlertSeverity::Warning,
    ),
    (
        "memory-killed",
        "oom_kills_per_second > 0",
        0,
        AlertSeverity::Critical,
    ),
    (
        "memory-pressure",
        "memory_pressure_ratio > 20%",
        300,
        AlertSeverity::Warning,
    ),
    (
        "node-memory-high",
        "node_memory_used_ratio > 95%",
        120,
        AlertSeverity::Critical,
    ),
    (
        "node-memory-pressure",
        "node_memory_pressure_ratio > 20%",
        300,
        AlertSeverity::Warning,
    ),
    (
        "pool-full",
        "pool_used_ratio > 95%",
        0,
        AlertSeverity::Critical,
    ),
    (
        "pool-high",
        "pool_used_ratio > 85%",
        300,
        AlertSeverity::Warning,
    ),
    (
        "processes-high",
        "processes_used_ratio > 90%",
        60,
        AlertSeverity::Warning,
    ),
];

/// The rules of a new node.
pub(crate) fn defaults() -> impl Iterator<Item = AlertRule> {
    DEFAULTS
        .into_iter()
        .map(|(name, condition, for_seconds, severity)| AlertRule {
            for_seconds,
            severity,
            ..AlertRule::new(name, condition)
        })
}

pub(super) fn usage(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::Usage, message)
}

/// Refuses what is no name of a rule or a channel.
pub(super) fn check_name(what: &str, name: &str) -> Result<(), ApiError> {
    name.parse::<Name>()
        .map(drop)
        .map_err(|error| usage(format!("{what} `{name}`: {error}")))
}

/// Reads a rule.
///
/// # Errors
/// Names what makes no sense in it. Whether its VEs and channels exist is not looked at.
pub(crate) fn parse(wire: &AlertRule) -> Result<Rule, ApiError> {
    let refused = |message: String| usage(format!("rule `{}`: {message}", wire.name));
    check_name("rule", &wire.name)?;
    let condition = Condition::parse(&wire.condition, &observed::names()).map_err(|error| {
        refused(error.to_string()).with_hint("`vessel alert metrics` lists what there is")
    })?;
    let resolve_seconds = wire.resolve_seconds.unwrap_or(RESOLVE_SECONDS_DEFAULT);
    let repeat_seconds = wire.repeat_seconds.unwrap_or(REPEAT_SECONDS_DEFAULT);
    for (what, seconds) in [
        ("for", wire.for_seconds),
        ("resolve", resolve_seconds),
        ("repeat", repeat_seconds),
    ] {
        if seconds > SECONDS_MAX {
            return Err(refused(format!("{what}: a year is the longest time")));
        }
    }
    if wire.severity == AlertSeverity::Unknown {
        return Err(refused(
            "its severity is info, warning or critical".to_owned(),
        ));
    }
    let of_node = observed::is_of_node(&condition.metric);
    if of_node && !(wire.ves.is_empty() && wire.labels.is_empty()) {
        let metric = &condition.metric;
        return Err(refused(format!(
            "`{metric}` is of the node, and not of single VEs"
        )));
    }
    if let Some(template) = &wire.message {
        notify::check(template, &FIELDS).map_err(|error| refused(format!("message: {error}")))?;
    }
    Ok(Rule {
        condition,
        for_seconds: wire.for_seconds,
        resolve_seconds,
        repeat_seconds,
        scope: Scope {
            names: wire.ves.clone(),
            labels: wire.labels.iter().map(|text| label(text)).collect(),
        },
    })
}

fn label(text: &str) -> (String, Option<String>) {
    match text.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (text.to_owned(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_of_a_new_node_make_sense() {
        for rule in defaults() {
            parse(&rule).unwrap();
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let first = defaults().next().unwrap();
        let refused = |change: &dyn Fn(&mut AlertRule)| {
            let mut rule = first.clone();
            change(&mut rule);
            parse(&rule).unwrap_err().message
        };
        let message = refused(&|rule| rule.condition = "broke > 0".to_owned());
        assert!(message.contains("did you mean `broken`"), "{message}");
        let message = refused(&|rule| rule.for_seconds = SECONDS_MAX + 1);
        assert!(message.contains("for: "), "{message}");
        let message = refused(&|rule| {
            rule.condition = "pool_used_ratio > 1".to_owned();
            rule.ves = vec!["web".to_owned()];
        });
        assert!(message.contains("of the node"), "{message}");
        let message = refused(&|rule| rule.message = Some("{who}".to_owned()));
        assert!(message.contains("`who`"), "{message}");
        let message = refused(&|rule| rule.name = "A rule".to_owned());
        assert!(message.contains("A rule"), "{message}");
    }
}
