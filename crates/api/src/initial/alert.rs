//! Alerts: rules, how they stand, where they are told, and silence.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;
use crate::words::words;

words! {
    /// How bad it is.
    pub enum AlertSeverity {
        /// Good to know.
        Info = "info",
        /// Somebody should look soon.
        Warning = "warning",
        /// Somebody should look now.
        Critical = "critical",
    }
}

words! {
    /// How far an alert is.
    pub enum AlertState {
        /// The condition holds, and not for long enough.
        Pending = "pending",
        /// It held for long enough.
        Firing = "firing",
        /// It fired, and is over.
        Resolved = "resolved",
    }
}

words! {
    /// What kind of way a channel is.
    pub enum AlertChannelKind {
        /// The daemon's log, and a file below the node's root.
        Log = "log",
        /// A program on the node.
        Command = "command",
        /// A POST by HTTP.
        Webhook = "webhook",
        /// Mail by SMTP.
        Mail = "mail",
    }
}

words! {
    /// How a connection to a mail server is secured.
    pub enum AlertSecurity {
        /// Not at all: for a server on the same machine.
        None = "none",
        /// By STARTTLS; a server without it gets nothing.
        StartTls = "starttls",
        /// By TLS from the first byte.
        Tls = "tls",
    }
}

fn yes() -> bool {
    true
}

fn warning() -> AlertSeverity {
    AlertSeverity::Warning
}

fn info() -> AlertSeverity {
    AlertSeverity::Info
}

/// When something is told: the body of `PUT /v1/alerts/rules/NAME`, and what the list shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertRule {
    /// Its name. In a request the path's counts.
    #[serde(default)]
    pub name: String,
    /// What must hold: `memory_used_ratio > 90%`, `rate(disk_bytes) > 10M`. `GET /v1/alerts/metrics` lists metrics.
    pub condition: String,
    /// For how long before it fires.
    #[serde(default)]
    pub for_seconds: u64,
    /// For how long it must not hold before it is over; absent for a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolve_seconds: Option<u64>,
    /// How often it is told again while it fires; absent for every four hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat_seconds: Option<u64>,
    /// How bad it is.
    #[serde(default = "warning")]
    pub severity: AlertSeverity,
    /// Names of the VEs that it is about; none for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ves: Vec<String>,
    /// Labels that these have, as `KEY=VALUE`, or `KEY` for any value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Names of the channels by which it is told; none for all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<String>,
    /// What is said, with names in braces to be filled in; absent for the usual words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Whether it is looked at.
    #[serde(default = "yes")]
    pub enabled: bool,
}

impl AlertRule {
    /// A rule with nothing but what it must have: a warning at once, about all VEs, by all channels.
    #[must_use]
    pub fn new(name: impl Into<String>, condition: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            condition: condition.into(),
            for_seconds: 0,
            resolve_seconds: None,
            repeat_seconds: None,
            severity: warning(),
            ves: Vec::new(),
            labels: Vec::new(),
            channels: Vec::new(),
            message: None,
            enabled: true,
        }
    }
}

/// How a rule stands about a VE or the node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Name of the rule.
    pub rule: String,
    /// How bad it is.
    pub severity: AlertSeverity,
    /// How far it is.
    pub state: AlertState,
    /// Number of the VE; absent for the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u32>,
    /// Name of the VE; absent for the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What must hold.
    pub condition: String,
    /// What was last read, in the metric's base unit; for a rate its change in a second.
    pub value: f64,
    /// Unit of the metric: `bytes`, `ratio`, ...
    pub unit: String,
    /// Since when it is as far as it is.
    pub since: Timestamp,
    /// When it was last told; absent when it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<Timestamp>,
    /// Whether it is silenced now.
    pub silenced: bool,
}

/// Where alerts are told: the body of `PUT /v1/alerts/channels/NAME`, and what the list shows. Which fields it has
/// follows from its kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertChannel {
    /// Its name. In a request the path's counts.
    #[serde(default)]
    pub name: String,
    /// What kind of way it is.
    pub kind: AlertChannelKind,
    /// Least severity that is told by it.
    #[serde(default = "info")]
    pub severity: AlertSeverity,
    /// `command`: the program's absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// `command`: its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// `webhook`: where it is, `http://` or `https://`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// `webhook`: headers that are sent along, as `Name: value`. Lists show the names only, as `Name: ...`; one given back so
    /// keeps its value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// `webhook`: the body, with names in braces to be filled in; absent for JSON with all that is known. What a rule says
    /// of many VEs at once is one message: `count` tells how many, and `alerts` in the JSON has each one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// `webhook` and `mail`: a file on the node with certificates (PEM) of authorities that are trusted besides the system's;
    /// its absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorities: Option<String>,
    /// `mail`: the server, as `HOST` or `HOST:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// `mail`: how the connection is secured; absent for STARTTLS, and for nothing with a server on the loopback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<AlertSecurity>,
    /// `mail`: the user's name, where the server wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// `mail`: the password. Lists show `...`; given back so it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// `mail`: who it is from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// `mail`: whom it goes to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<String>,
    /// `mail`: the subject, with names in braces to be filled in; absent for the usual words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// `mail`: the text, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

impl AlertChannel {
    /// A channel of a kind, with nothing in it yet.
    #[must_use]
    pub fn new(name: impl Into<String>, kind: AlertChannelKind) -> Self {
        Self {
            name: name.into(),
            kind,
            severity: info(),
            program: None,
            arguments: Vec::new(),
            url: None,
            headers: Vec::new(),
            body: None,
            authorities: None,
            server: None,
            security: None,
            user: None,
            password: None,
            from: None,
            to: Vec::new(),
            subject: None,
            text: None,
        }
    }
}

/// A channel and how it fares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertChannelStatus {
    /// The channel.
    pub channel: AlertChannel,
    /// Messages that wait for it.
    pub waiting: u64,
    /// When the next of them is tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// Why the last one could not be sent; absent when it could.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// What is not told for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertSilence {
    /// Its number, never used again.
    pub id: u64,
    /// Of which rule; absent for every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// About which VE; absent for all, and the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ve: Option<String>,
    /// Until when.
    pub until: Timestamp,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

/// Silences something for a while.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertSilenceRequest {
    /// Which rule; absent for every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// About which VE; absent for all, and the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ve: Option<String>,
    /// For how long.
    pub for_seconds: u64,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
}

/// Something that a rule can name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertMetric {
    /// Its name.
    pub name: String,
    /// Its unit: `bytes`, `bytes_per_second`, `per_second`, `cores`, `ratio`, `number`.
    pub unit: String,
    /// What it tells.
    pub help: String,
    /// Whether it is of the node, and not of each VE.
    pub of_node: bool,
}
