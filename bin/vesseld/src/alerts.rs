//! Alerts: rules looked at after each sweep, and what they tell put in the outbox.
//!
//! ```text
//! sweep -> observed -> policy::alert::look -> standing and messages, in one transaction -> outbox -> channels
//! ```
//!
//! Nothing is lost: a message is on disk with the reason for it, and leaves the outbox when its receiver has
//! it. Nothing is told twice for a restart: what was told is on disk, too. Only if the daemon is killed
//! between a receiver's answer and its noting is a message sent again, with the same id.
//! What a rule says of many at the same time is one message (see `gathered`).
//!
//! What is kept are documents of the registry: rules and channels as the wire has them (its first version, which
//! is only added to), silences, and how rules stand.

pub(crate) mod channels;
mod gathered;
mod kept;
pub(crate) mod message;
pub(crate) mod observed;
pub(crate) mod outbox;
pub(crate) mod rules;
mod standing;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::Result;
use api::latest::{Alert, AlertChannel, AlertRule, AlertSilence, AlertState};
use policy::alert::{Phase, Rule};
use registry::{Event, Registry};
use tokio::sync::Notify;

use crate::convert;
use crate::daemon::Up;
use crate::metering::{Current, seconds_now};
use observed::{Before, Subject};
use standing::{Standings, Stood};

/// Rules, channels and silences that a node has at most, each.
pub(crate) const MOST: usize = 1_000;

/// The alerts of a node.
#[derive(Debug)]
pub(crate) struct Alerts {
    inner: Mutex<Inner>,
    /// The node's root, where the log is.
    root: PathBuf,
    /// What the node is called in messages.
    node: String,
    /// Wakes whoever empties the outbox.
    pub(crate) wake: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Inner {
    rules: BTreeMap<String, Ruled>,
    channels: BTreeMap<String, AlertChannel>,
    silences: BTreeMap<u64, AlertSilence>,
    standings: Standings,
    before: Before,
    /// Whether there was a look, with which the next can compare.
    has_looked: bool,
    /// When a metric of a subject was what, for rates.
    rated: BTreeMap<(Subject, String), (f64, f64)>,
    /// Why a channel did not take its last message.
    failures: BTreeMap<String, String>,
    /// Channels to which messages are under way.
    busy: BTreeSet<String>,
    /// When something of a rule was last sent to a channel: its name, and the rule's.
    sent: BTreeMap<(String, String), Instant>,
    /// The failure that was told last, so that each is told once and not every ten seconds.
    told: Option<String>,
}

/// A rule, and as policy has it.
#[derive(Clone, Debug)]
struct Ruled {
    wire: AlertRule,
    rule: Rule,
}

impl Alerts {
    /// Reads what the registry has; gives a new node its rules and the channel `log`.
    pub(crate) fn load(registry: &Registry, root: PathBuf) -> Result<Self> {
        let host = rustix::system::uname();
        let inner = kept::load(registry)?;
        Ok(Self {
            inner: Mutex::new(inner),
            root,
            node: host.nodename().to_string_lossy().into_owned(),
            wake: Arc::default(),
        })
    }

    /// Looks at all rules after a sweep.
    pub(crate) fn look(&self, up: &Up, current: &[Arc<Current>]) {
        let now = seconds_now();
        let mut guard = self.lock();
        let inner = &mut *guard;
        let observed = observed::all(up, current, &mut inner.before);
        let values = inner.values(&observed);
        // The first look of a daemon has no rates: taken for "no more", that would end what is pending.
        if !std::mem::replace(&mut inner.has_looked, true) {
            return;
        }
        let mut decided = inner.decide(&observed, &values, &self.node, now);
        inner.drop_old_silences(&mut decided, now);
        let committed = inner.commit(up.engine.registry(), decided, now);
        let failure = committed.as_ref().err().map(|error| format!("{error:#}"));
        if failure != inner.told {
            match &failure {
                Some(failure) => {
                    tracing::warn!("alerts cannot be stored, so none is told: {failure}")
                }
                None => tracing::info!("alerts can be stored again"),
            }
            inner.told = failure;
        }
        drop(guard);
        self.announce(up, committed.unwrap_or_default());
    }

    /// Tells events, and that there may be something to send.
    fn announce(&self, up: &Up, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        self.wake.notify_one();
        for event in events {
            if let Err(failure) = up.engine.announce(event) {
                tracing::warn!("an alert is told, and is no event: {failure}");
            }
        }
    }

    /// How rules stand: the worst first.
    pub(crate) fn list(&self) -> Vec<Alert> {
        let inner = self.lock();
        let now = seconds_now();
        let mut alerts: Vec<Alert> = Vec::new();
        for (rule, standings) in &inner.standings {
            let Some(ruled) = inner.rules.get(rule) else {
                continue;
            };
            let of_rule = standings.iter();
            alerts.extend(of_rule.map(|(subject, stood)| inner.alert(ruled, *subject, stood, now)));
        }
        let urgency = |alert: &Alert| {
            let state = match alert.state {
                AlertState::Firing => 0,
                AlertState::Pending => 1,
                AlertState::Resolved | AlertState::Unknown => 2,
            };
            (state, std::cmp::Reverse(alert.severity))
        };
        alerts.sort_by_key(urgency);
        alerts
    }

    /// What a test of a channel says.
    pub(crate) fn test_message(&self) -> notify::Message {
        let now = seconds_now();
        let told = message::Told {
            time: now,
            since: now,
            node: self.node.clone(),
            rule: "test".to_owned(),
            severity: "info".to_owned(),
            state: "test".to_owned(),
            again: false,
            ve: None,
            ve_id: None,
            condition: "somebody asked for it".to_owned(),
            metric: String::new(),
            unit: String::new(),
            value: 0.0,
            threshold: 0.0,
            summary: "This is a test: alerts of this node arrive here.".to_owned(),
        };
        let number = now.try_into().unwrap_or(i64::MAX);
        gathered::of_several(&[told], &[number], &format!("{}-test", self.node))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn alert(&self, ruled: &Ruled, subject: Subject, stood: &Stood, now: u64) -> Alert {
        let standing = &stood.standing;
        let id = match subject {
            Subject::Node => None,
            Subject::Ve(id, _) => Some(id.get()),
        };
        let condition = &ruled.rule.condition;
        Alert {
            rule: ruled.wire.name.clone(),
            severity: ruled.wire.severity,
            state: match standing.phase {
                Phase::Pending => AlertState::Pending,
                Phase::Firing => AlertState::Firing,
                Phase::Resolved => AlertState::Resolved,
            },
            id,
            name: id.map(|_| stood.name.clone()),
            condition: condition.to_string(),
            value: standing.value,
            unit: observed::unit(&condition.metric).as_str().to_owned(),
            since: convert::timestamp(standing.since),
            told: standing.last_told.map(convert::timestamp),
            silenced: self.is_silenced(&ruled.wire.name, &stood.name, now),
        }
    }

    /// Whether a rule is silenced about a VE, or about the node, which has no name.
    fn is_silenced(&self, rule: &str, name: &str, now: u64) -> bool {
        let now = convert::timestamp(now);
        self.silences.values().any(|silence| {
            let of_rule = silence.rule.as_deref().is_none_or(|own| own == rule);
            let of_ve = silence.ve.as_deref().is_none_or(|own| own == name);
            of_rule && of_ve && silence.until > now
        })
    }

    /// Channels by which a rule is told.
    fn channels_of(&self, rule: &AlertRule) -> Vec<String> {
        let chosen = |channel: &&AlertChannel| {
            let named = rule.channels.is_empty() || rule.channels.contains(&channel.name);
            named && rule.severity >= channel.severity
        };
        let chosen = self.channels.values().filter(chosen);
        chosen.map(|channel| channel.name.clone()).collect()
    }
}
