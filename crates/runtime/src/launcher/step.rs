//! Naming the step that failed, where a failure crosses from one process into another.
//!
//! A launch runs in two processes and is reported by a third, so its failures travel as text from
//! where they arise: each says the step, the thing and the kernel's reason.

use std::fmt::Display;

use crate::protocol::{Failure, FailureKind};

/// Turns an error into a [`Failure`] that says what could not be done.
pub(super) trait Step<T> {
    /// The node refused: `cannot <what>: <why>`.
    fn step(self, what: impl Display) -> Result<T, Failure>;

    /// What the VE's own files hold is in the way.
    fn guest_step(self, what: impl Display) -> Result<T, Failure>;
}

impl<T, E: Display> Step<T> for Result<T, E> {
    fn step(self, what: impl Display) -> Result<T, Failure> {
        self.map_err(|error| failure(FailureKind::Node, format!("cannot {what}: {error}")))
    }

    fn guest_step(self, what: impl Display) -> Result<T, Failure> {
        self.map_err(|error| failure(FailureKind::Guest, format!("cannot {what}: {error}")))
    }
}

/// A failure from its parts.
pub(super) fn failure(kind: FailureKind, message: impl Into<String>) -> Failure {
    Failure {
        kind,
        message: message.into(),
    }
}
