//! Carrying messages out of the node: mail by SMTP, webhooks, commands.
//!
//! Each way takes a [`Message`] and comes back when the other side has taken it, or says why not. Nothing is
//! tried again here, and nothing kept: who sends has an outbox. A message may arrive twice, when the answer was
//! lost; its id is the same then.
//!
//! TLS: `https` webhooks, and mail by STARTTLS or by TLS from the first byte, to whom one of the system's authorities
//! vouches for, or one of a file (see [`authorities`]). There are no client certificates, no proxies and no redirects.
#![forbid(unsafe_code)]

mod command;
mod mail;
mod template;
mod trust;
mod webhook;

use std::collections::BTreeMap;
use std::time::Duration;

pub use command::{Command, CommandError};
pub use mail::{Mail, MailError, Security};
pub use template::{TemplateError, check, render};
pub use trust::{TrustError, authorities};
pub use webhook::{Webhook, WebhookError};

/// Longest time for one message, from the first look-up to the last answer.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// A message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// Never given to another message.
    pub id: String,
    /// One line.
    pub subject: String,
    /// Some lines.
    pub text: String,
    /// The same for programs.
    pub json: serde_json::Value,
    /// What templates may name.
    pub fields: BTreeMap<String, String>,
}
