//! How a request fails.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::words::words;

words! {
    /// The stable word of a failure. Programs decide by it, people read the message.
    pub enum ErrorCode {
        /// The node tried and could not.
        Failed = "failed",
        /// The request makes no sense: a wrong key, unit, name or combination.
        Usage = "usage",
        /// There is no such VE, template, operation or path.
        NotFound = "not_found",
        /// Taken or in use: a name, an address, a template with VEs on it.
        Conflict = "conflict",
        /// Another operation holds it.
        Locked = "locked",
        /// The VE is in a state that does not allow this.
        WrongState = "wrong_state",
        /// Memory, space, addresses or ids are used up, or promised to others.
        NoResources = "no_resources",
        /// The caller may not do this, or the VE is protected.
        Permission = "permission",
        /// The node, or something outside of it, does not answer.
        Unreachable = "unreachable",
        /// Some of a bulk failed. Only the command line makes this.
        Partial = "partial",
        /// The command of an `exec` is there and cannot be executed.
        CommandNotExecutable = "command_not_executable",
        /// The command of an `exec` is not there.
        CommandNotFound = "command_not_found",
    }
}

impl ErrorCode {
    /// The exit code of `vessel` for this failure.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Failed | Self::Unknown => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Conflict | Self::Locked => 4,
            Self::WrongState => 5,
            Self::NoResources => 6,
            Self::Permission => 7,
            Self::Unreachable => 8,
            Self::Partial => 9,
            Self::CommandNotExecutable => 126,
            Self::CommandNotFound => 127,
        }
    }
}

/// A failure: the body of every answer that is no success, and part of a failed operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Wire", into = "Wire")]
pub struct ApiError {
    /// The stable word.
    pub code: ErrorCode,
    /// What failed and why, naming the thing: lower-case, one line, no full stop.
    pub message: String,
    /// What to do next, when there is something.
    pub hint: Option<String>,
}

/// As it travels: with the exit code beside the word, for scripts that speak HTTP.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Wire {
    code: ErrorCode,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(default)]
    exit_code: u8,
}

impl ApiError {
    /// A failure without a hint.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
        }
    }

    /// The same failure with what to do next.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

impl From<Wire> for ApiError {
    fn from(wire: Wire) -> Self {
        Self {
            code: wire.code,
            message: wire.message,
            hint: wire.hint,
        }
    }
}

impl From<ApiError> for Wire {
    fn from(error: ApiError) -> Self {
        let exit_code = error.code.exit_code();
        Self {
            code: error.code,
            message: error.message,
            hint: error.hint,
            exit_code,
        }
    }
}
