//! Alert rules: when something is told, told again, and told to be over.
//!
//! ```text
//!            holds              held for `for_seconds`        no more for `resolve_seconds`
//! (nothing) -------> pending -------------------------> firing -------------------> resolved
//!     ^                 | no more                                                      |
//!     +-----------------+                                           forgotten after a day, or holds anew
//! ```
//!
//! One [`Standing`] is one rule about one subject (a VE, or the node). [`look`] is asked at each reading.
//!
//! So that nobody is flooded: what fires is told once, again after `repeat_seconds`, and what comes and goes
//! is told at most once in [`FLAP_SECONDS`]. What is silenced is told when the silence ends and it
//! still fires. Its end is told to whoever was told its begin, silenced or not: an alarm that was raised must be
//! taken back.

mod condition;

pub use condition::{Comparison, Condition, InvalidCondition};

use std::collections::BTreeMap;

/// What fires, is over and fires again is not told more often.
pub const FLAP_SECONDS: u64 = 300;
/// How long what is over is still shown.
pub const RESOLVED_KEPT_SECONDS: u64 = 86_400;
/// Longest time that a rule may name: a year.
pub const SECONDS_MAX: u64 = 366 * 86_400;
/// How long a condition must not hold before it is over, unless the rule says otherwise: some readings.
pub const RESOLVE_SECONDS_DEFAULT: u64 = 60;
/// How often what still fires is told again, unless the rule says otherwise.
pub const REPEAT_SECONDS_DEFAULT: u64 = 4 * 3_600;

/// Which VEs a rule is about: those with one of the names (all if there are none) that have all labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Names.
    pub names: Vec<String>,
    /// Labels, with this value if one is given.
    pub labels: Vec<(String, Option<String>)>,
}

/// When something is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// What must hold.
    pub condition: Condition,
    /// For how long before it fires.
    pub for_seconds: u64,
    /// For how long it must not hold before it is over.
    pub resolve_seconds: u64,
    /// How often it is told again while it fires.
    pub repeat_seconds: u64,
    /// About which VEs.
    pub scope: Scope,
}

/// How far an alert is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The condition holds, and not for long enough.
    Pending,
    /// It held for long enough.
    Firing,
    /// It fired, and is over.
    Resolved,
}

/// How a rule stands about one subject.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// How far it is.
    pub phase: Phase,
    /// Since when, in seconds.
    pub since: u64,
    /// What was last read.
    pub value: f64,
    /// Since when the condition does not hold, while it fires.
    pub clear_since: Option<u64>,
    /// When this alert was last told; nothing where it was not yet.
    pub told: Option<u64>,
    /// When this or the alert before was last told.
    pub last_told: Option<u64>,
}

/// What is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// It fires.
    Firing,
    /// It still fires.
    Again,
    /// It is over.
    Resolved,
}

impl Scope {
    /// Whether a VE is in it.
    #[must_use]
    pub fn holds(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let named = self.names.is_empty() || self.names.iter().any(|own| own == name);
        named
            && self.labels.iter().all(|(key, value)| {
                labels
                    .get(key)
                    .is_some_and(|own| value.as_ref().is_none_or(|value| value == own))
            })
    }
}

impl Standing {
    fn begin(rule: &Rule, value: f64, now: u64, last_told: Option<u64>) -> Self {
        Self {
            phase: match rule.for_seconds {
                0 => Phase::Firing,
                _ => Phase::Pending,
            },
            since: now,
            value,
            clear_since: None,
            told: None,
            last_told,
        }
    }
}

/// How a rule stands after a reading, and what is to be told now.
///
/// `value` is nothing where there was nothing to read: a VE that is stopped meets no condition.
#[must_use]
pub fn look(
    rule: &Rule,
    standing: Option<Standing>,
    value: Option<f64>,
    silenced: bool,
    now: u64,
) -> (Option<Standing>, Option<Telling>) {
    let met = value.filter(|value| rule.condition.holds(*value));
    match (standing, met) {
        (None, None) => (None, None),
        (None, Some(value)) => fire(rule, Standing::begin(rule, value, now, None), silenced, now),
        (Some(standing), Some(value)) => match standing.phase {
            Phase::Pending | Phase::Firing => {
                let standing = Standing {
                    value,
                    clear_since: None,
                    ..standing
                };
                fire(rule, standing, silenced, now)
            }
            Phase::Resolved => {
                let standing = Standing::begin(rule, value, now, standing.last_told);
                fire(rule, standing, silenced, now)
            }
        },
        (Some(standing), None) => ease(rule, standing, value, now),
    }
}

/// The condition holds.
fn fire(
    rule: &Rule,
    mut standing: Standing,
    silenced: bool,
    now: u64,
) -> (Option<Standing>, Option<Telling>) {
    if standing.phase == Phase::Pending && now.saturating_sub(standing.since) >= rule.for_seconds {
        standing.phase = Phase::Firing;
        standing.since = now;
    }
    if standing.phase != Phase::Firing || silenced {
        return (Some(standing), None);
    }
    let long_ago = |told: Option<u64>, span: u64| {
        // A clock that was set back makes nothing wait for ever.
        told.is_none_or(|told| told > now || now - told >= span)
    };
    let telling = match standing.told {
        None => long_ago(standing.last_told, FLAP_SECONDS).then_some(Telling::Firing),
        told => long_ago(told, rule.repeat_seconds.max(FLAP_SECONDS)).then_some(Telling::Again),
    };
    if telling.is_some() {
        standing.told = Some(now);
        standing.last_told = Some(now);
    }
    (Some(standing), telling)
}

/// The condition does not hold.
fn ease(
    rule: &Rule,
    mut standing: Standing,
    value: Option<f64>,
    now: u64,
) -> (Option<Standing>, Option<Telling>) {
    match standing.phase {
        // What flaps is remembered by whom it was told to.
        Phase::Pending => (
            standing.last_told.map(|_| Standing {
                phase: Phase::Resolved,
                since: now,
                ..standing
            }),
            None,
        ),
        Phase::Firing => {
            standing.value = value.unwrap_or(standing.value);
            let clear_since = *standing.clear_since.get_or_insert(now);
            if now.saturating_sub(clear_since) < rule.resolve_seconds {
                return (Some(standing), None);
            }
            let telling = standing.told.map(|_| Telling::Resolved);
            standing.phase = Phase::Resolved;
            standing.since = now;
            standing.clear_since = None;
            standing.told = None;
            (Some(standing), telling)
        }
        Phase::Resolved => {
            let kept = now.saturating_sub(standing.since) < RESOLVED_KEPT_SECONDS;
            (kept.then_some(standing), None)
        }
    }
}

#[cfg(test)]
mod tests;
