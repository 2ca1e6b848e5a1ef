//! How rules stand about their subjects, and what becomes of it at a look.

use std::collections::{BTreeMap, BTreeSet};

use policy::alert::{Phase, Standing, Telling, look};
use registry::{DocumentChange, Event, Registry, RegistryError};
use serde::{Deserialize, Serialize};

use super::kept::{SILENCE, STANDING};
use super::message::{self, Told};
use super::observed::{self, Observed, Source, Subject};
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

/// How rules stand, by rule and subject.
pub(super) type Standings = BTreeMap<String, BTreeMap<Subject, Stood>>;

/// The values of one rule's metric, in the order of what was observed.
pub(super) type Values = Vec<Option<f64>>;

impl Inner {
    /// The values of the metric of each rule in force, in the order of rules. Remembers what the next rate needs.
    pub(super) fn values(&mut self, observed: &[Observed<'_>]) -> Vec<Values> {
        let mut rated = BTreeMap::new();
        let in_force = self.rules.values().filter(|ruled| ruled.wire.enabled);
        let of_rule = |ruled: &Ruled| -> Values {
            let condition = &ruled.rule.condition;
            let Some(source) = Source::of(&condition.metric) else {
                return vec![None; observed.len()];
            };
            let values = observed.iter().map(|one| {
                let value = one.value(source)?;
                if !condition.rate {
                    return Some(value);
                }
                let of = (one.subject, condition.metric.clone());
                let before = self.rated.get(&of).filter(|(at, _)| one.at_seconds > *at);
                let rate = before.map(|(at, before)| (value - before) / (one.at_seconds - at));
                rated.insert(of, (one.at_seconds, value));
                rate
            });
            values.collect()
        };
        let values = in_force.map(of_rule).collect();
        self.rated = rated;
        values
    }

    /// What each rule says of what was observed.
    pub(super) fn decide(
        &self,
        observed: &[Observed<'_>],
        values: &[Values],
        node: &str,
        now: u64,
    ) -> Decided {
        let mut round = Round {
            inner: self,
            node,
            now,
            decided: Decided::default(),
        };
        let there: BTreeSet<Subject> = observed.iter().map(|one| one.subject).collect();
        let in_force = self.rules.values().filter(|ruled| ruled.wire.enabled);
        for (ruled, values) in in_force.zip(values) {
            let of_node = observed::is_of_node(&ruled.rule.condition.metric);
            let is_about = |subject: Subject| (subject == Subject::Node) == of_node;
            let standings = self.standings.get(&ruled.wire.name);
            for (one, value) in observed.iter().zip(values) {
                if is_about(one.subject) {
                    let in_scope = of_node || ruled.rule.scope.holds(one.name, one.labels);
                    let stood = standings.and_then(|all| all.get(&one.subject));
                    round.look(ruled, one, stood, value.filter(|_| in_scope));
                }
            }
            // VEs that are gone: what they fired is over.
            for (subject, stood) in standings.into_iter().flatten() {
                if !is_about(*subject) || !there.contains(subject) {
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
        let standings = self.standings.get(&ruled.wire.name);
        for (subject, stood) in standings.into_iter().flatten() {
            round.end(ruled, *subject, stood);
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
        for ((rule, subject), stood) in decided.standings {
            let of_rule = self.standings.entry(rule).or_default();
            match stood {
                Some(stood) => of_rule.insert(subject, stood),
                None => of_rule.remove(&subject),
            };
        }
        self.standings.retain(|_, of_rule| !of_rule.is_empty());
        let now = convert::timestamp(now);
        self.silences.retain(|_, silence| silence.until > now);
        Ok(decided.events)
    }
}

impl Round<'_> {
    fn look(
        &mut self,
        ruled: &Ruled,
        one: &Observed<'_>,
        before: Option<&Stood>,
        value: Option<f64>,
    ) {
        let silenced = self.inner.is_silenced(&ruled.wire.name, one.name, self.now);
        let standing = before.map(|stood| stood.standing);
        let (after, telling) = look(&ruled.rule, standing, value, silenced, self.now);
        if before.is_none() && after.is_none() {
            return;
        }
        let after = after.map(|standing| Stood {
            standing,
            name: one.name.to_owned(),
        });
        if let (Some(telling), Some(stood)) = (telling, &after) {
            self.tell(ruled, one.subject, stood, telling);
        }
        self.put((ruled.wire.name.clone(), one.subject), before, after);
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
