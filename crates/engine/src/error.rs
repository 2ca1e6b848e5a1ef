//! Why something was refused or failed, free of any transport.

use std::error::Error;
use std::fmt;

use policy::{Action, ActionDenied, AdmissionDenied, LimitDenied};
use registry::{CreateConflict, RegistryError};
use ve::{Name, State};

use crate::mechanisms::Fault;

/// The kinds of failure that a program may have to tell apart. Each has one exit code and one
/// stable word (see the list in the CLI's documentation).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// Something below failed.
    Failed,
    /// The request makes no sense.
    Usage,
    /// What it names does not exist.
    NotFound,
    /// Something else has what it wants.
    Conflict,
    /// The VE is in the wrong state.
    State,
    /// The node has not enough of something.
    Resources,
    /// It is not allowed.
    Permission,
    /// Somebody cancelled it.
    Cancelled,
}

/// A refusal or failure: the thing and the cause in the message, the next step in the hint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure it is.
    pub kind: FailureKind,
    /// The thing and the cause.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl FailureKind {
    const ALL: [Self; 8] = [
        Self::Failed,
        Self::Usage,
        Self::NotFound,
        Self::Conflict,
        Self::State,
        Self::Resources,
        Self::Permission,
        Self::Cancelled,
    ];

    /// The stable word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::NotFound => "not-found",
            Self::Conflict => "conflict",
            Self::State => "wrong-state",
            Self::Resources => "no-resources",
            Self::Permission => "permission",
            Self::Cancelled => "cancelled",
        }
    }

    /// Finds the kind that a word names; an unknown word is a plain failure.
    #[must_use]
    pub fn from_word(word: &str) -> Self {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == word)
            .unwrap_or(Self::Failed)
    }
}

impl Failure {
    /// A failure without a hint.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
        }
    }

    /// The same with the next step.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// A failure that names the VE it is about.
    pub(crate) fn about(name: &Name, failure: Self) -> Self {
        Self {
            message: format!("VE `{name}`: {}", failure.message),
            ..failure
        }
    }

    pub(crate) fn no_such_ve(reference: &str) -> Self {
        Self::new(
            FailureKind::NotFound,
            format!("there is no VE `{reference}`"),
        )
        .with_hint("`vessel list` shows the VEs of this node")
    }
}

/// An error with all its causes in one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self {
            kind: fault.kind,
            message: fault.message,
            hint: fault.hint,
        }
    }
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        Self::new(FailureKind::Failed, chain(&error)).with_hint(
            "see that the disk of the node's root has room and is healthy; nothing was changed",
        )
    }
}

impl From<CreateConflict> for Failure {
    fn from(conflict: CreateConflict) -> Self {
        let hint = match &conflict {
            CreateConflict::Name { .. } => "choose another name, or delete that VE first",
            CreateConflict::Address { .. } => {
                "choose another address, or `address=auto` for one that is free"
            }
            CreateConflict::Registry(_) => {
                "see that the disk of the node's root has room and is healthy; nothing was changed"
            }
        };
        let kind = match &conflict {
            CreateConflict::Registry(_) => FailureKind::Failed,
            CreateConflict::Name { .. } | CreateConflict::Address { .. } => FailureKind::Conflict,
        };
        Self::new(kind, chain(&conflict)).with_hint(hint)
    }
}

impl From<ActionDenied> for Failure {
    fn from(denied: ActionDenied) -> Self {
        let (kind, hint) = match denied {
            ActionDenied::Protected => (
                FailureKind::Permission,
                "take the protection away: `vessel set NAME protected=no`",
            ),
            ActionDenied::State {
                state: State::Checkpointed,
                ..
            } => (
                FailureKind::State,
                "wake it first: `vessel resume NAME`; or drop its processes: `vessel stop --kill NAME`",
            ),
            ActionDenied::State {
                action: Action::Enter | Action::Files,
                state: State::Paused,
                ..
            } => (
                FailureKind::State,
                "let its processes go on first: `vessel resume NAME`",
            ),
            ActionDenied::State {
                action: Action::Enter,
                state: State::Stopped,
                ..
            } => (FailureKind::State, "start it first: `vessel start NAME`"),
            ActionDenied::State {
                action: Action::Start,
                ..
            } => (
                FailureKind::State,
                "`vessel restart NAME` starts it anew; `vessel resume NAME` lets a paused one go on",
            ),
            ActionDenied::State {
                needed: "stopped", ..
            } => (FailureKind::State, "stop it first: `vessel stop NAME`"),
            ActionDenied::State {
                needed: "paused or checkpointed",
                ..
            } => (
                FailureKind::State,
                "only a paused or checkpointed VE can be resumed",
            ),
            ActionDenied::State { .. } => (
                FailureKind::State,
                "`vessel show NAME` tells what it is doing",
            ),
        };
        Self::new(kind, denied.to_string()).with_hint(hint)
    }
}

impl From<LimitDenied> for Failure {
    fn from(denied: LimitDenied) -> Self {
        let hint = match denied {
            LimitDenied::BelowUse { .. } => {
                "ask for more, or free some inside the VE first; nothing was changed"
            }
            LimitDenied::NoSuchProcessor { .. } => "name processors that exist",
            LimitDenied::TooManyFiles { .. } => {
                "ask for less, or start the node with a higher limit of its own (`ulimit -Hn`, \
                 `LimitNOFILE=` of its unit)"
            }
            LimitDenied::Contradiction { .. } => "set both in one command; nothing was changed",
        };
        let kind = match denied {
            LimitDenied::BelowUse { .. } | LimitDenied::TooManyFiles { .. } => {
                FailureKind::Resources
            }
            LimitDenied::NoSuchProcessor { .. } | LimitDenied::Contradiction { .. } => {
                FailureKind::Usage
            }
        };
        Self::new(kind, denied.to_string()).with_hint(hint)
    }
}

impl From<AdmissionDenied> for Failure {
    fn from(denied: AdmissionDenied) -> Self {
        let hint = match denied {
            AdmissionDenied::Guarantee { .. } | AdmissionDenied::Set { .. } => {
                "ask for less, or stop or lower another VE; `vessel node show` tells what is sold"
            }
            AdmissionDenied::Unknown { .. } => {
                "tell it, as in `vessel node set network.capacity=1Gbit`"
            }
            AdmissionDenied::Overcommit { .. } => {
                "ask for less, or allow more: `vessel node set --help`"
            }
        };
        Self::new(FailureKind::Resources, denied.to_string()).with_hint(hint)
    }
}
