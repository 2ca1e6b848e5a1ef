//! Emptying the outbox: each channel at its own pace, so that a dead mail server holds up no webhook.
//!
//! What is not taken is tried again after ten seconds, then after twice as long each time, at most a quarter of
//! an hour, for a week. Nothing of a node that is taken down is held while a receiver thinks.
//!
//! The first of a rule goes at once, and with it all that is due (see `gathered`); what the rule says in the half
//! minute after it waits, and goes as one. So a rule sends a channel a message of each kind in half a minute and for
//! each 200 VEs, and no more. The log has a line each, at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use registry::{Message, RegistryError};

use super::channels::Way;
use super::gathered::{self, Group};
use super::message::Told;
use super::{Alerts, Inner};
use crate::daemon::{Daemon, Up};
use crate::metering::seconds_now;

/// How often is looked for what is due.
const INTERVAL: Duration = Duration::from_secs(2);
/// Messages that are looked at for a channel in one go, and the most that become one.
const BATCH_MAX: u32 = 200;
/// For how long what a rule says is gathered after it said something.
const GATHER: Duration = Duration::from_secs(30);
/// Failures in one go after which the rest waits, too: the channel is dead, and not one message bad.
const FAILURES_MAX: u32 = 2;
/// Time to the second try.
const BACKOFF_SECONDS: u64 = 10;
/// Longest time between two tries.
const BACKOFF_SECONDS_MAX: u64 = 900;
/// What nobody took for so long is given up.
const GIVE_UP_SECONDS: u64 = 7 * 86_400;

/// What is due for a channel.
struct Batch {
    channel: String,
    way: Result<Way, String>,
    groups: Vec<Group>,
}

/// Empties the outbox until the daemon ends.
pub(crate) async fn run(daemon: Arc<Daemon>) {
    let mut ending = daemon.ending.subscribe();
    loop {
        let wake = daemon
            .up_if_prepared()
            .map(|up| Arc::clone(&up.alerts.wake));
        let due = with_up(&daemon, |up| up.alerts.due(up)).await;
        for batch in due.unwrap_or_default() {
            tokio::spawn(deliver(Arc::clone(&daemon), batch));
        }
        let woken = async {
            match &wake {
                Some(wake) => wake.notified().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = woken => {}
            () = tokio::time::sleep(INTERVAL) => {}
            // A sender that is gone is an end, too.
            _ = ending.wait_for(|ending| *ending) => return,
        }
    }
}

/// Runs what blocks on a thread that may, with the node, if it is up.
async fn with_up<T: Send + 'static>(
    daemon: &Arc<Daemon>,
    work: impl FnOnce(&Up) -> T + Send + 'static,
) -> Option<T> {
    let daemon = Arc::clone(daemon);
    let work = move || daemon.up_if_prepared().map(|up| work(&up));
    tokio::task::spawn_blocking(work).await.ok().flatten()
}

/// Sends what is due to one channel, the oldest first.
async fn deliver(daemon: Arc<Daemon>, batch: Batch) {
    let mut failures = 0;
    let mut groups = batch.groups.into_iter();
    for group in groups.by_ref() {
        let sent = match &batch.way {
            Ok(way) => send(&daemon, way, &group).await,
            Err(reason) => Err(reason.clone()),
        };
        failures += u32::from(sent.is_err());
        let channel = batch.channel.clone();
        with_up(&daemon, move |up| {
            up.alerts.settle(up, &channel, group.messages(), sent);
        })
        .await;
        if failures >= FAILURES_MAX {
            break;
        }
    }
    let left: Vec<Message> = groups.flat_map(Group::into_messages).collect();
    with_up(&daemon, move |up| {
        up.alerts.rest(up, &batch.channel, &left);
    })
    .await;
}

async fn send(daemon: &Arc<Daemon>, way: &Way, group: &Group) -> Result<(), String> {
    let prefix = with_up(daemon, |up| {
        format!("{}-{}", up.alerts.node, up.engine.facts().first_id)
    });
    let prefix = prefix.await.ok_or("the node is taken down")?;
    way.send(group.message(&prefix)?).await
}

fn backoff_seconds(attempts: u32) -> u64 {
    let factor = 1_u64.checked_shl(attempts.min(32)).unwrap_or(u64::MAX);
    BACKOFF_SECONDS
        .saturating_mul(factor)
        .min(BACKOFF_SECONDS_MAX)
}

impl Alerts {
    /// What is due for channels to which nothing is under way. They are busy from now on.
    fn due(&self, up: &Up) -> Vec<Batch> {
        let now = seconds_now();
        let names: Vec<String> = {
            let inner = self.lock();
            let idle = inner
                .channels
                .keys()
                .filter(|name| !inner.busy.contains(*name));
            idle.cloned().collect()
        };
        let mut batches = Vec::new();
        for channel in names {
            let messages = match up.engine.registry().outbox_due(&channel, now, BATCH_MAX) {
                Ok(messages) => messages,
                Err(error) => {
                    tracing::warn!("the outbox of alerts cannot be read: {error}");
                    return batches;
                }
            };
            if messages.is_empty() {
                continue;
            }
            let way = self.way(&channel).map_err(|error| error.message);
            let groups = match &way {
                Ok(way) if !way.gathers() => gathered::apart(messages),
                _ => self.lock().ready(&channel, messages, Instant::now()),
            };
            if groups.is_empty() {
                continue;
            }
            self.lock().busy.insert(channel.clone());
            batches.push(Batch {
                channel,
                way,
                groups,
            });
        }
        batches
    }

    /// Notes what came of messages that went as one.
    fn settle(&self, up: &Up, channel: &str, messages: &[Message], sent: Result<(), String>) {
        let registry = up.engine.registry();
        let now = seconds_now();
        let ids = |of: &[&Message]| of.iter().map(|message| message.id).collect::<Vec<_>>();
        let (over, again): (Vec<&Message>, Vec<&Message>) = messages
            .iter()
            .partition(|message| sent.is_ok() || is_too_old(message, now));
        if let Err(reason) = &sent {
            for message in &over {
                let id = message.id;
                tracing::error!(
                    "alert {id} is given up after a week: channel `{channel}`: {reason}"
                );
            }
        }
        if !over.is_empty() {
            unnoted(registry.outbox_remove(&ids(&over)));
        }
        // They go together because they were tried as often.
        if let Some(message) = again.first() {
            let next = now + backoff_seconds(message.attempts);
            unnoted(registry.outbox_postpone(&ids(&again), next));
        }
        let mut inner = self.lock();
        match sent {
            Ok(()) => {
                if inner.failures.remove(channel).is_some() {
                    tracing::info!("channel `{channel}` takes alerts again");
                }
            }
            Err(reason) => {
                if inner.failures.get(channel) != Some(&reason) {
                    tracing::warn!("channel `{channel}` did not take an alert: {reason}");
                }
                inner.failures.insert(channel.to_owned(), reason);
            }
        }
    }

    /// Puts off what was not tried, and lets the channel go.
    fn rest(&self, up: &Up, channel: &str, left: &[Message]) {
        let ids: Vec<i64> = left.iter().map(|message| message.id).collect();
        let next = seconds_now() + BACKOFF_SECONDS;
        unnoted(up.engine.registry().outbox_postpone(&ids, next));
        self.lock().busy.remove(channel);
    }
}

impl Inner {
    /// What goes out to a channel now, as one message each; the rest is left in the outbox for a while.
    fn ready(&mut self, channel: &str, messages: Vec<Message>, now: Instant) -> Vec<Group> {
        self.sent
            .retain(|_, at| now.saturating_duration_since(*at) < GATHER);
        let mut groups = gathered::together(messages);
        let of = |group: &Group| Some((channel.to_owned(), group.rule()?.to_owned()));
        groups.retain(|group| {
            // What waits for its next try waited already, and what is full gets no fuller.
            let is_full = group.messages().len() >= BATCH_MAX as usize;
            let is_told = of(group).is_some_and(|key| self.sent.contains_key(&key));
            !group.is_new() || is_full || !is_told
        });
        self.sent
            .extend(groups.iter().filter_map(of).map(|key| (key, now)));
        groups
    }
}

fn unnoted(noted: Result<(), RegistryError>) {
    if let Err(error) = noted {
        tracing::warn!("what came of an alert cannot be noted, so it may be told again: {error}");
    }
}

/// Whether nobody took a message for so long that it says nothing any more. One that cannot be read goes, too.
fn is_too_old(message: &Message, now: u64) -> bool {
    let told: Result<Told, _> = serde_json::from_str(&message.body);
    told.map_or(true, |told| now.saturating_sub(told.time) > GIVE_UP_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_become_rarer_and_never_end() {
        let waits: Vec<u64> = (0..9).map(backoff_seconds).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 900, 900]);
        assert_eq!(backoff_seconds(u32::MAX), 900);
    }

    fn waiting(id: i64, rule: &str, attempts: u32) -> Message {
        let mut told = super::super::message::tests::told();
        told.rule = rule.to_owned();
        Message {
            id,
            channel: "ops".to_owned(),
            body: serde_json::json!(told).to_string(),
            attempts,
            next: 0,
        }
    }

    #[test]
    fn a_rule_tells_at_once_and_then_gathers() {
        let mut inner = Inner::default();
        let begun = Instant::now();
        let mut ready = |after, messages| {
            let groups = inner.ready("ops", messages, begun + Duration::from_secs(after));
            let count = |group: &Group| group.messages().len();
            groups.iter().map(count).collect::<Vec<_>>()
        };
        assert_eq!(ready(0, vec![waiting(1, "a", 0), waiting(2, "a", 0)]), [2]);
        // Another rule is not held, what was tried neither.
        let more = || vec![waiting(3, "a", 0), waiting(4, "b", 0), waiting(5, "a", 1)];
        assert_eq!(ready(1, more()), [1, 1]);
        let many = (0..i64::from(BATCH_MAX)).map(|id| waiting(id, "b", 0));
        assert_eq!(ready(20, many.collect()), [200], "no fuller by waiting");
        assert_eq!(
            ready(30, more()),
            [1],
            "`a` was told a second after the first"
        );
        assert_eq!(ready(60, vec![waiting(3, "a", 0), waiting(9, "a", 0)]), [2]);
    }

    #[test]
    fn only_what_is_old_is_given_up() {
        let told = super::super::message::tests::told();
        let message = |body: String| Message {
            id: 1,
            channel: "ops".to_owned(),
            body,
            attempts: 0,
            next: 0,
        };
        let body = serde_json::json!(told).to_string();
        assert!(!is_too_old(
            &message(body.clone()),
            told.time + GIVE_UP_SECONDS
        ));
        assert!(is_too_old(&message(body), told.time + GIVE_UP_SECONDS + 1));
        assert!(is_too_old(&message("broken".to_owned()), 0));
    }
}
