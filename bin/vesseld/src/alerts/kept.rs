//! Rules, channels and silences: read at the start, changed by people.

use api::latest::{
    AlertChannel, AlertChannelKind, AlertChannelStatus, AlertRule, AlertSilence,
    AlertSilenceRequest, ApiError, ErrorCode,
};
use policy::alert::SECONDS_MAX;
use registry::{DocumentChange, Registry, RegistryError};
use serde::de::DeserializeOwned;

use super::channels::{self, Way};
use super::observed::Subject;
use super::rules::{self, usage};
use super::standing::{Decided, Stood};
use super::{Alerts, Inner, MOST, Ruled};
use crate::convert;
use crate::daemon::Up;
use crate::metering::seconds_now;

/// Kinds of documents.
const RULE: &str = "alert-rule";
const CHANNEL: &str = "alert-channel";
pub(super) const SILENCE: &str = "alert-silence";
pub(super) const STANDING: &str = "alert-standing";
/// Facts about all of them, by these keys.
const FACT: &str = "alert";
const DEFAULTS_KEY: &str = "defaults";
const SILENCES_KEY: &str = "silences";

fn put(kind: &'static str, key: &str, body: String) -> DocumentChange {
    DocumentChange {
        kind,
        key: key.to_owned(),
        body: Some(body),
    }
}

fn remove(kind: &'static str, key: &str) -> DocumentChange {
    DocumentChange {
        kind,
        key: key.to_owned(),
        body: None,
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::json!(value).to_string()
}

/// Documents of a kind that can be read. One that cannot is told and left alone: a newer daemon may have made it.
fn read<T: DeserializeOwned>(
    registry: &Registry,
    kind: &str,
) -> Result<Vec<(String, T)>, RegistryError> {
    let mut found = Vec::new();
    for (key, body) in registry.documents(kind)? {
        match serde_json::from_str(&body) {
            Ok(value) => found.push((key, value)),
            Err(error) => tracing::warn!("{kind} `{key}` is left out: {error}"),
        }
    }
    Ok(found)
}

/// Reads what the registry has; gives a new node its rules and the channel `log`.
pub(super) fn load(registry: &Registry) -> Result<Inner, RegistryError> {
    if registry.document(FACT, DEFAULTS_KEY)?.is_none() {
        let log = AlertChannel::new("log", AlertChannelKind::Log);
        let mut changes: Vec<DocumentChange> = rules::defaults()
            .map(|rule| put(RULE, &rule.name, json(&rule)))
            .collect();
        changes.push(put(CHANNEL, &log.name, json(&log)));
        changes.push(put(FACT, DEFAULTS_KEY, rules::DEFAULTS_VERSION.to_owned()));
        registry.documents_change(&changes, &[], 0)?;
    }
    let mut inner = Inner::default();
    for (name, wire) in read::<AlertRule>(registry, RULE)? {
        match rules::parse(&wire) {
            Ok(rule) => drop(inner.rules.insert(name, Ruled { wire, rule })),
            Err(error) => tracing::warn!("an alert rule is left out: {}", error.message),
        }
    }
    inner.channels = read(registry, CHANNEL)?.into_iter().collect();
    for (_, silence) in read::<AlertSilence>(registry, SILENCE)? {
        inner.silences.insert(silence.id, silence);
    }
    for (key, body) in registry.documents(STANDING)? {
        let stood = key.split_once('/').and_then(|(rule, subject)| {
            let subject = Subject::parse(subject)?;
            Some(((rule.to_owned(), subject), Stood::parse(&body)?))
        });
        match stood {
            Some(((rule, subject), stood)) => {
                let of_rule = inner.standings.entry(rule).or_default();
                of_rule.insert(subject, stood);
            }
            None => tracing::warn!("how an alert stood is lost: `{key}`"),
        }
    }
    Ok(inner)
}

fn unstored(error: &RegistryError) -> ApiError {
    ApiError::new(ErrorCode::Failed, format!("it cannot be stored: {error}"))
}

fn missing(what: &str, name: &str, verb: &str) -> ApiError {
    let message = format!("{what} `{name}`: there is none");
    ApiError::new(ErrorCode::NotFound, message)
        .with_hint(format!("`vessel alert {verb}` shows all"))
}

fn too_many(what: &str) -> ApiError {
    let message = format!("this node has {MOST} {what}, which is the most");
    ApiError::new(ErrorCode::NoResources, message).with_hint("delete some first")
}

/// The name of a VE that is there, by name or number.
fn name_of(up: &Up, reference: &str) -> Result<String, ApiError> {
    let record = up.engine.find(reference).map_err(convert::api_error)?;
    Ok(record.spec.name.to_string())
}

impl Alerts {
    /// The rules, by name.
    pub(crate) fn rules(&self) -> Vec<AlertRule> {
        let inner = self.lock();
        inner
            .rules
            .values()
            .map(|ruled| ruled.wire.clone())
            .collect()
    }

    /// Makes a rule, or takes the place of one. What the former fired goes on where both look at the same
    /// metric, and is over otherwise.
    pub(crate) fn put_rule(&self, up: &Up, mut wire: AlertRule) -> Result<AlertRule, ApiError> {
        let names = wire.ves.iter().map(|name| name_of(up, name));
        wire.ves = names.collect::<Result<_, _>>()?;
        let rule = rules::parse(&wire)?;
        let mut inner = self.lock();
        for channel in &wire.channels {
            if !inner.channels.contains_key(channel) {
                return Err(missing("channel", channel, "channel list"));
            }
        }
        let former = inner.rules.get(&wire.name).cloned();
        if former.is_none() && inner.rules.len() >= MOST {
            return Err(too_many("rules"));
        }
        let now = seconds_now();
        let mut decided = match &former {
            Some(former) if !wire.enabled || is_about_another(former, &rule.condition) => {
                inner.end_of(former, &self.node, now)
            }
            _ => Decided::default(),
        };
        let change = put(RULE, &wire.name, json(&wire));
        decided.documents.push(change);
        let events = inner
            .commit(up.engine.registry(), decided, now)
            .map_err(|error| unstored(&error))?;
        let ruled = Ruled {
            wire: wire.clone(),
            rule,
        };
        inner.rules.insert(wire.name.clone(), ruled);
        drop(inner);
        self.announce(up, events);
        Ok(wire)
    }

    /// Deletes a rule: what it fired is over.
    pub(crate) fn delete_rule(&self, up: &Up, name: &str) -> Result<(), ApiError> {
        let mut inner = self.lock();
        let Some(ruled) = inner.rules.get(name).cloned() else {
            return Err(missing("rule", name, "rule list"));
        };
        let now = seconds_now();
        let mut decided = inner.end_of(&ruled, &self.node, now);
        decided.documents.push(remove(RULE, name));
        let events = inner
            .commit(up.engine.registry(), decided, now)
            .map_err(|error| unstored(&error))?;
        inner.rules.remove(name);
        drop(inner);
        self.announce(up, events);
        Ok(())
    }

    /// The channels, by name, and how they fare. Secrets are left out.
    pub(crate) fn channels(&self, up: &Up) -> Result<Vec<AlertChannelStatus>, ApiError> {
        let waiting = up.engine.registry().outbox_waiting();
        let waiting = waiting.map_err(|error| {
            ApiError::new(
                ErrorCode::Failed,
                format!("the outbox cannot be read: {error}"),
            )
        })?;
        let inner = self.lock();
        let status = |channel: &AlertChannel| {
            let of = waiting.iter().find(|(name, ..)| *name == channel.name);
            AlertChannelStatus {
                channel: channels::shown(channel),
                waiting: of.map_or(0, |(_, count, _)| *count),
                next: of.map(|(_, _, next)| convert::timestamp(*next)),
                failure: inner.failures.get(&channel.name).cloned(),
            }
        };
        Ok(inner.channels.values().map(status).collect())
    }

    /// Makes a channel, or takes the place of one.
    pub(crate) fn put_channel(
        &self,
        up: &Up,
        mut channel: AlertChannel,
    ) -> Result<AlertChannel, ApiError> {
        let mut inner = self.lock();
        match inner.channels.get(&channel.name) {
            Some(former) => channels::keep_secrets(&mut channel, former),
            None if inner.channels.len() >= MOST => return Err(too_many("channels")),
            None => {}
        }
        channels::parse(&channel, &self.root)?;
        let change = put(CHANNEL, &channel.name, json(&channel));
        up.engine
            .registry()
            .documents_change(&[change], &[], 0)
            .map_err(|error| unstored(&error))?;
        let shown = channels::shown(&channel);
        inner.failures.remove(&channel.name);
        inner.channels.insert(channel.name.clone(), channel);
        Ok(shown)
    }

    /// Deletes a channel that no rule names, and what waits for it.
    pub(crate) fn delete_channel(&self, up: &Up, name: &str) -> Result<(), ApiError> {
        let mut inner = self.lock();
        if !inner.channels.contains_key(name) {
            return Err(missing("channel", name, "channel list"));
        }
        let names = |ruled: &&Ruled| ruled.wire.channels.iter().any(|own| own == name);
        if let Some(ruled) = inner.rules.values().find(names) {
            let rule = &ruled.wire.name;
            let message = format!("channel `{name}`: rule `{rule}` is told by it");
            return Err(ApiError::new(ErrorCode::Conflict, message)
                .with_hint("give the rule other channels first"));
        }
        let registry = up.engine.registry();
        registry
            .documents_change(&[remove(CHANNEL, name)], &[], 0)
            .and_then(|()| registry.outbox_drop(name))
            .map_err(|error| unstored(&error))?;
        inner.channels.remove(name);
        inner.failures.remove(name);
        Ok(())
    }

    /// The way that a channel is.
    pub(crate) fn way(&self, name: &str) -> Result<Way, ApiError> {
        let inner = self.lock();
        let channel = inner.channels.get(name);
        let channel = channel.ok_or_else(|| missing("channel", name, "channel list"))?;
        channels::parse(channel, &self.root)
    }

    /// The silences that still last.
    pub(crate) fn silences(&self) -> Vec<AlertSilence> {
        let now = convert::timestamp(seconds_now());
        let inner = self.lock();
        let lasting = inner.silences.values().filter(|one| one.until > now);
        lasting.cloned().collect()
    }

    /// Silences something for a while.
    pub(crate) fn silence(
        &self,
        up: &Up,
        request: AlertSilenceRequest,
    ) -> Result<AlertSilence, ApiError> {
        if request.for_seconds == 0 || request.for_seconds > SECONDS_MAX {
            return Err(usage("a silence lasts between a second and a year"));
        }
        if request.comment.len() > 1_000 {
            return Err(usage("a comment has at most 1,000 bytes"));
        }
        let ve = request.ve.map(|name| name_of(up, &name)).transpose()?;
        let mut inner = self.lock();
        if let Some(rule) = &request.rule
            && !inner.rules.contains_key(rule)
        {
            return Err(missing("rule", rule, "rule list"));
        }
        if inner.silences.len() >= MOST {
            return Err(too_many("silences"));
        }
        let registry = up.engine.registry();
        let last = registry.document(FACT, SILENCES_KEY);
        let last = last.map_err(|error| unstored(&error))?;
        let last: u64 = last.and_then(|text| text.parse().ok()).unwrap_or(0);
        let silence = AlertSilence {
            id: last + 1,
            rule: request.rule,
            ve,
            until: convert::timestamp(seconds_now() + request.for_seconds),
            comment: request.comment,
        };
        let changes = [
            put(FACT, SILENCES_KEY, silence.id.to_string()),
            put(SILENCE, &silence.id.to_string(), json(&silence)),
        ];
        registry
            .documents_change(&changes, &[], 0)
            .map_err(|error| unstored(&error))?;
        inner.silences.insert(silence.id, silence.clone());
        Ok(silence)
    }

    /// Ends a silence.
    pub(crate) fn end_silence(&self, up: &Up, id: u64) -> Result<(), ApiError> {
        let mut inner = self.lock();
        if !inner.silences.contains_key(&id) {
            return Err(missing("silence", &id.to_string(), "silence list"));
        }
        up.engine
            .registry()
            .documents_change(&[remove(SILENCE, &id.to_string())], &[], 0)
            .map_err(|error| unstored(&error))?;
        inner.silences.remove(&id);
        Ok(())
    }
}

/// Whether what a former rule fired says nothing about a condition.
fn is_about_another(former: &Ruled, now: &policy::alert::Condition) -> bool {
    let before = &former.rule.condition;
    (&before.metric, before.rate, before.comparison) != (&now.metric, now.rate, now.comparison)
}
