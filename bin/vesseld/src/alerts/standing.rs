//! How rules stand about their subjects, and what becomes of it at a look.

use std::collections::{BTreeMap, BTreeSet};

use policy::alert::{Phase, Standing, Telling, look};
use registry::{DocumentChange, Event, Registry, RegistryError};
use serde::{Deserialize, Serialize};

use super::kept::{SILENCE, STANDING};
use super::message::{self, Told};
use super::observed::{self, Observed, Subject};
use super::{Inner, Ruled};
use crate::convert;

/// How a rule stands about a subject, and what that was called.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stood {
    pub(super) standing: Standing,
    /// Empty for the node.
    pub(super) name: String,
}

/// The same on disk. What was last read is not worth a write.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    phase: String,
    since: u64,
    value: f64,
    told: Option<u64>,
    last_told: Option<u64>,
    name: String,
}

/// What changes, all or nothing.
#[derive(Debug, Default)]
pub(super) struct Decided {
    standings: Vec<((String, Subject), Option<Stood>)>,
    pub(super) documents: Vec<DocumentChange>,
    messages: Vec<(String, String)>,
    events: Vec<Event>,
}

/// One look at one time.
struct Round<'a> {
    inner: &'a Inner,
    node: &'a str,
    now: u64,
    decided: Decided,
}

fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "pending",
        Phase::Firing => "firing",
        Phase::Resolved => "resolved",
    }
}

impl Stood {
    fn body(&self) -> String {
        let standing = &self.standing;
        let stored = Stored {
            phase: word(standing.phase).to_owned(),
            since: standing.since,
            value: standing.value,
            told: standing.told,
            last_told: standing.last_told,
            name: self.name.clone(),
        };
        serde_json::json!(stored).to_string()
    }

    /// Reads what was stored; nothing where it makes no sense.
    pub(super) fn parse(body: &str) -> Option<Self> {
        let stored: Stored = serde_json::from_str(body).ok()?;
        let phases = [Phase::Pending, Phase::Firing, Phase::Resolved];
        let phase = phases.into_iter().find(|of| word(*of) == stored.phase)?;
        let standing = Standing {
            phase,
            since: stored.since,
            value: stored.value,
            clear_since: None,
            told: stored.told,
            last_told: stored.last_told,
        };
        Some(Self {
            standing,
            name: stored.name,
        })
    }
}

impl Inner {
    /// The value of each rule's metric, for each subject that has one. Remembers what the next rate needs.
    pub(super) fn values(&mut self, observed: &[Observed]) -> BTreeMap<(String, Subject), f64> {
        let mut values = BTreeMap::new();
        let mut rated = BTreeMap::new();
        for ruled in self.rules.values().filter(|ruled| ruled.wire.enabled) {
            let condition = &ruled.rule.condition;
            for one in observed {
                let Some(value) = one.value(&condition.metric) else {
                    continue;
                };
                let key = (ruled.wire.name.clone(), one.subject);
                if !condition.rate {
                    values.insert(key, value);
                    continue;
                }
                let of = (one.subject, condition.metric.clone());
                if let Some((at, before)) = self.rated.get(&of)
                    && one.at_seconds > *at
                {
                    values.insert(key, (value - before) / (one.at_seconds - at));
                }
                rated.insert(of, (one.at_seconds, value));
            }
        }
        self.rated = rated;
        values
    }

    /// What each rule says of what was observed.
    pub(super) fn decide(
        &self,
        observed: &[Observed],
        values: &BTreeMap<(String, Subject), f64>,
        node: &str,
        now: u64,
    ) -> Decided {
        let mut round = Round {
            inner: self,
            node,
            now,
            decided: Decided::default(),
        };
        for ruled in self.rules.values().filter(|ruled| ruled.wire.enabled) {
            let of_node = observed::is_of_node(&ruled.rule.condition.metric);
            let mut seen = BTreeSet::new();
            for one in observed {
                if (one.subject == Subject::Node) != of_node {
                    continue;
                }
                seen.insert(one.subject);
                let in_scope = of_node || ruled.rule.scope.holds(&one.name, &one.labels);
                let value = values.get(&(ruled.wire.name.clone(), one.subject));
                round.look(ruled, one, value.copied().filter(|_| in_scope));
            }
            // VEs that are gone: what they fired is over.
            for ((rule, subject), stood) in &self.standings {
                if *rule == ruled.wire.name && !seen.contains(subject) {
                    round.end(ruled, *subject, stood);
                }
            }
        }
        round.decided
    }

    /// Ends all that a rule says, since the rule goes.
    pub(super) fn end_of(&self, ruled: &Ruled, node: &str, now: u64) -> Decided {
        let mut round = Round {
            inner: self,
            node,
            now,
            decided: Decided::default(),
        };
        for ((rule, subject), stood) in &self.standings {
            if *rule == ruled.wire.name {
                round.end(ruled, *subject, stood);
            }
        }
        round.decided
    }

    /// Lets go of silences that are over.
    pub(super) fn drop_old_silences(&self, decided: &mut Decided, now: u64) {
        let now = convert::timestamp(now);
        let over = self.silences.values().filter(|one| one.until <= now);
        decided.documents.extend(over.map(|silence| DocumentChange {
            kind: SILENCE,
            key: silence.id.to_string(),
            body: None,
        }));
    }

    /// Puts what was decided on disk, and then in force; answers what happened.
    ///
    /// # Errors
    /// When it cannot be stored; it is decided again at the next look then.
    pub(super) fn commit(
        &mut self,
        registry: &Registry,
        decided: Decided,
        now: u64,
    ) -> Result<Vec<Event>, RegistryError> {
        if !decided.documents.is_empty() || !decided.messages.is_empty() {
            registry.documents_change(&decided.documents, &decided.messages, now)?;
        }
        for (key, stood) in decided.standings {
            match stood {
                Some(stood) => self.standings.insert(key, stood),
                None => self.standings.remove(&key),
            };
        }
        let now = convert::timestamp(now);
        self.silences.retain(|_, silence| silence.until > now);
        Ok(decided.events)
    }
}

impl Round<'_> {
    fn look(&mut self, ruled: &Ruled, one: &Observed, value: Option<f64>) {
        let key = (ruled.wire.name.clone(), one.subject);
        let before = self.inner.standings.get(&key);
        let silenced = self
            .inner
            .is_silenced(&ruled.wire.name, &one.name, self.now);
        let standing = before.map(|stood| stood.standing);
        let (after, telling) = look(&ruled.rule, standing, value, silenced, self.now);
        let after = after.map(|standing| Stood {
            standing,
            name: one.name.clone(),
        });
        if let (Some(telling), Some(stood)) = (telling, &after) {
            self.tell(ruled, one.subject, stood, telling);
        }
        self.put(key, before, after);
    }

    /// Takes back what was told, and forgets the rest.
    fn end(&mut self, ruled: &Ruled, subject: Subject, stood: &Stood) {
        if stood.standing.phase == Phase::Firing && stood.standing.told.is_some() {
            let mut over = stood.clone();
            over.standing.phase = Phase::Resolved;
            over.standing.since = self.now;
            self.tell(ruled, subject, &over, Telling::Resolved);
        }
        self.put((ruled.wire.name.clone(), subject), Some(stood), None);
    }

    fn put(&mut self, key: (String, Subject), before: Option<&Stood>, after: Option<Stood>) {
        let lasting = |stood: &Stood| {
            let standing = Standing {
                value: 0.0,
                clear_since: None,
                ..stood.standing
            };
            (standing, stood.name.clone())
        };
        if before.map(lasting) != after.as_ref().map(lasting) {
            self.decided.documents.push(DocumentChange {
                kind: STANDING,
                key: format!("{}/{}", key.0, key.1),
                body: after.as_ref().map(Stood::body),
            });
        }
        if before != after.as_ref() {
            self.decided.standings.push((key, after));
        }
    }

    fn tell(&mut self, ruled: &Ruled, subject: Subject, stood: &Stood, telling: Telling) {
        let condition = &ruled.rule.condition;
        let (ve, ve_id) = match subject {
            Subject::Node => (None, None),
            Subject::Ve(id, _) => (Some(stood.name.clone()), Some(id.get())),
        };
        let mut told = Told {
            time: self.now,
            since: stood.standing.since,
            node: self.node.to_owned(),
            rule: ruled.wire.name.clone(),
            severity: ruled.wire.severity.to_string(),
            state: message::state(telling).to_owned(),
            again: telling == Telling::Again,
            ve,
            ve_id,
            condition: condition.to_string(),
            metric: condition.metric.clone(),
            unit: observed::unit(&condition.metric).as_str().to_owned(),
            value: stood.standing.value,
            threshold: condition.threshold,
            summary: String::new(),
        };
        let usual = told.usual_summary(condition.comparison, condition.rate);
        let own = ruled.wire.message.as_ref();
        // It was checked when the rule was put.
        let own = own.and_then(|template| notify::render(template, &told.fields("")).ok());
        told.summary = own.unwrap_or(usual);
        let body = serde_json::json!(told).to_string();
        for channel in self.inner.channels_of(&ruled.wire) {
            self.decided.messages.push((channel, body.clone()));
        }
        self.decided.events.push(Event {
            id: 0,
            at: self.now,
            kind: format!("alert-{}", told.state),
            ve: ve_id,
            subject: told.ve.unwrap_or_else(|| self.node.to_owned()),
            message: Some(format!("{}: {}", told.rule, told.summary)),
        });
    }
}
