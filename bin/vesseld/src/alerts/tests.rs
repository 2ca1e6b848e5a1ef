//! Alerts over a real registry: nothing is lost, and nothing told twice, whatever ends between.

use std::path::Path;

use api::latest::{AlertChannel, AlertChannelKind, AlertRule, AlertSilence};
use registry::Registry;
use tempfile::TempDir;
use ve::VeId;

use super::kept;
use super::message::Told;
use super::observed::{Observed, Subject};
use super::{Inner, Ruled, rules};
use crate::convert;

const BEGIN: u64 = 1_800_000_000;

fn subject() -> Subject {
    Subject::Ve(VeId::new(100).unwrap(), 5)
}

fn web(at: u64, bytes: f64) -> Observed<'static> {
    Observed::of(subject(), "web", at, [("disk_bytes", bytes)])
}

/// A daemon on a registry, with one rule that is told by one channel.
struct Daemon {
    registry: Registry,
    inner: Inner,
}

impl Daemon {
    fn start(folder: &Path) -> Self {
        let registry = Registry::open(&folder.join("registry.db")).unwrap();
        let inner = kept::load(&registry).unwrap();
        Self { registry, inner }
    }

    fn with_rule(folder: &Path, rule: AlertRule) -> Self {
        let mut daemon = Self::start(folder);
        daemon.inner.rules.clear();
        daemon.rule(rule);
        daemon
    }

    fn rule(&mut self, wire: AlertRule) {
        let rule = rules::parse(&wire).unwrap();
        self.inner
            .rules
            .insert(wire.name.clone(), Ruled { wire, rule });
    }

    fn look(&mut self, at: u64, observed: &[Observed<'_>]) -> usize {
        let values = self.inner.values(observed);
        let decided = self.inner.decide(observed, &values, "one", BEGIN + at);
        let events = self.inner.commit(&self.registry, decided, BEGIN + at);
        events.unwrap().len()
    }

    /// What waits in the outbox: state, and whether it was told before.
    fn outbox(&self) -> Vec<(String, bool)> {
        let messages = self.registry.outbox_due("log", u64::MAX, 100).unwrap();
        messages
            .iter()
            .map(|message| serde_json::from_str(&message.body).unwrap())
            .map(|told: Told| (told.state, told.again))
            .collect()
    }
}

fn firing() -> (String, bool) {
    ("firing".to_owned(), false)
}

fn resolved() -> (String, bool) {
    ("resolved".to_owned(), false)
}

fn full(for_seconds: u64) -> AlertRule {
    AlertRule {
        for_seconds,
        ..AlertRule::new("full", "disk_bytes > 1K")
    }
}

#[test]
fn a_new_node_has_rules_and_a_log_and_what_was_deleted_stays_away() {
    let folder = TempDir::new().unwrap();
    let daemon = Daemon::start(folder.path());
    assert_eq!(daemon.inner.rules.len(), rules::defaults().count());
    assert!(daemon.inner.channels.contains_key("log"));
    let change = registry::DocumentChange {
        kind: "alert-rule",
        key: "broken".to_owned(),
        body: None,
    };
    daemon.registry.documents_change(&[change], &[], 0).unwrap();
    drop(daemon);
    let daemon = Daemon::start(folder.path());
    assert_eq!(daemon.inner.rules.len(), rules::defaults().count() - 1);
}

#[test]
fn a_restart_neither_loses_nor_repeats() {
    let folder = TempDir::new().unwrap();
    let mut daemon = Daemon::with_rule(folder.path(), full(20));
    assert_eq!(daemon.look(0, &[web(0, 2_000.0)]), 0);
    // Killed while it is pending: the time goes on.
    drop(daemon);
    let mut daemon = Daemon::with_rule(folder.path(), full(20));
    assert_eq!(daemon.look(20, &[web(20, 2_000.0)]), 1);
    assert_eq!(daemon.outbox(), [firing()]);
    // Killed before anything was sent.
    drop(daemon);
    let mut daemon = Daemon::with_rule(folder.path(), full(20));
    assert_eq!(daemon.look(30, &[web(30, 2_000.0)]), 0);
    assert_eq!(daemon.outbox(), [firing()]);
    // And it ends once.
    for at in [40, 110, 120] {
        daemon.look(at, &[web(at, 1.0)]);
    }
    assert_eq!(daemon.outbox(), [firing(), resolved()]);
}

#[test]
fn the_end_of_a_ve_and_of_a_rule_end_what_they_fired() {
    let folder = TempDir::new().unwrap();
    let mut daemon = Daemon::with_rule(folder.path(), full(0));
    daemon.look(0, &[web(0, 2_000.0)]);
    daemon.look(10, &[]);
    assert_eq!(daemon.outbox(), [firing(), resolved()]);
    assert!(daemon.inner.standings.is_empty());
    assert!(
        daemon
            .registry
            .documents("alert-standing")
            .unwrap()
            .is_empty()
    );
    daemon.look(20, &[web(20, 2_000.0)]);
    let ruled = daemon.inner.rules["full"].clone();
    let decided = daemon.inner.end_of(&ruled, "one", BEGIN + 30);
    daemon
        .inner
        .commit(&daemon.registry, decided, BEGIN + 30)
        .unwrap();
    assert_eq!(daemon.outbox().len(), 4);
    assert!(daemon.inner.standings.is_empty());
}

#[test]
fn what_cannot_be_stored_is_decided_again() {
    let folder = TempDir::new().unwrap();
    let mut daemon = Daemon::with_rule(folder.path(), full(0));
    let observed = [web(0, 2_000.0)];
    let values = daemon.inner.values(&observed);
    let lost = daemon.inner.decide(&observed, &values, "one", BEGIN);
    drop(lost);
    assert_eq!(daemon.look(10, &[web(10, 2_000.0)]), 1);
    assert_eq!(daemon.outbox(), [firing()]);
}

#[test]
fn a_rate_is_of_the_time_between_two_looks() {
    let folder = TempDir::new().unwrap();
    let rule = AlertRule::new("grows", "rate(disk_bytes) > 100");
    let mut daemon = Daemon::with_rule(folder.path(), rule);
    assert_eq!(daemon.look(0, &[web(0, 1e9)]), 0, "no rate yet");
    assert_eq!(daemon.look(10, &[web(10, 1e9 + 900.0)]), 0);
    assert_eq!(daemon.look(20, &[web(20, 1e9 + 2_000.0)]), 1);
    let standing = &daemon.inner.standings["grows"][&subject()];
    assert!((standing.standing.value - 110.0).abs() < 1e-9);
}

#[test]
fn a_silence_holds_back_and_ends() {
    let folder = TempDir::new().unwrap();
    let mut daemon = Daemon::with_rule(folder.path(), full(0));
    let silence = |id, rule: Option<&str>, ve: Option<&str>| AlertSilence {
        id,
        rule: rule.map(str::to_owned),
        ve: ve.map(str::to_owned),
        until: convert::timestamp(BEGIN + 15),
        comment: String::new(),
    };
    let inner = &mut daemon.inner;
    inner
        .silences
        .insert(1, silence(1, Some("full"), Some("db")));
    assert!(!inner.is_silenced("full", "web", BEGIN));
    inner
        .silences
        .insert(2, silence(2, Some("full"), Some("web")));
    assert!(inner.is_silenced("full", "web", BEGIN));
    assert!(!inner.is_silenced("other", "web", BEGIN));
    assert_eq!(daemon.look(0, &[web(0, 2_000.0)]), 0);
    assert_eq!(daemon.look(20, &[web(20, 2_000.0)]), 1);
    assert!(daemon.inner.silences.is_empty());
}

#[test]
fn channels_take_what_is_bad_enough_and_rules_choose() {
    use api::latest::AlertSeverity::{Critical, Warning};
    let folder = TempDir::new().unwrap();
    let mut daemon = Daemon::with_rule(folder.path(), full(0));
    let pager = AlertChannel {
        severity: Critical,
        ..AlertChannel::new("pager", AlertChannelKind::Log)
    };
    daemon.inner.channels.insert("pager".to_owned(), pager);
    let rule = |severity, channels: &[&str]| AlertRule {
        severity,
        channels: channels.iter().map(|&name| name.to_owned()).collect(),
        ..full(0)
    };
    let of = |rule| daemon.inner.channels_of(&rule);
    assert_eq!(of(rule(Warning, &[])), ["log"]);
    assert_eq!(of(rule(Critical, &[])), ["log", "pager"]);
    assert_eq!(of(rule(Critical, &["pager"])), ["pager"]);
    assert!(of(rule(Warning, &["pager"])).is_empty());
}
