//! What may be asked of a VE in each state, and what follows the end of its init.

use std::fmt;

use ve::{Exit, State};

/// Something that can be asked of an existing VE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Run its init.
    Start,
    /// End its processes.
    Stop,
    /// End its processes and run its init again.
    Restart,
    /// Freeze its processes.
    Pause,
    /// Put its processes on disk.
    Suspend,
    /// Let frozen processes go on, or wake those on disk.
    Resume,
    /// Drop its processes on disk.
    Discard,
    /// Remove it and its files; `force` also when it runs.
    Delete {
        /// Whether it may be running.
        force: bool,
    },
    /// Change its settings.
    Set,
    /// Run a command in it, or use its console.
    Enter,
    /// Read or write its files.
    Files,
    /// Give back files that are equal to its template's.
    Compact,
    /// Put other applications below its files.
    Applications,
    /// Bring it to another version of its template.
    Update,
}

/// Why an action is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ActionDenied {
    /// The VE is in a state in which the action means nothing.
    #[error("it is {state}, and {action} needs it to be {needed}")]
    State {
        /// What was asked.
        action: Action,
        /// What the VE is doing.
        state: State,
        /// What it would have to be doing.
        needed: &'static str,
    },
    /// The VE is protected against being deleted.
    #[error("it is protected")]
    Protected,
}

/// What to do once an init has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterExit {
    /// Leave the VE stopped.
    StayStopped,
    /// Run its init again: its own root asked for a restart.
    StartAgain,
    /// Leave it stopped, although its root asked for a restart: it does nothing else.
    GiveUp,
}

/// A VE may restart itself as often as [`RESTARTS_MAX`] within so many seconds. One that does more has
/// an init that ends as soon as it begins: it would keep a processor busy for nothing. A server that
/// boots and restarts as fast as it can takes longer.
pub const RESTARTS_SECONDS: u64 = 60;
/// See [`RESTARTS_SECONDS`].
pub const RESTARTS_MAX: usize = 10;

/// Decides whether `action` may be carried out on a VE in `state`.
///
/// # Errors
/// Says what state the action needs.
pub fn permit(action: Action, state: State, protected: bool) -> Result<(), ActionDenied> {
    use State::{Broken, Checkpointed, Paused, Running, Starting, Stopped, Stopping};
    let (allowed, needed) = match action {
        Action::Start => (matches!(state, Stopped), "stopped"),
        Action::Stop => (
            matches!(state, Starting | Running | Paused | Stopping | Broken),
            "starting, running or paused",
        ),
        Action::Restart => (
            matches!(state, Starting | Running | Paused | Stopped),
            "running",
        ),
        Action::Pause => (matches!(state, Starting | Running), "running"),
        Action::Suspend => (matches!(state, Running), "running"),
        Action::Resume => (
            matches!(state, Paused | Checkpointed),
            "paused or checkpointed",
        ),
        Action::Discard => (matches!(state, Checkpointed), "checkpointed"),
        Action::Delete { .. } if protected => return Err(ActionDenied::Protected),
        Action::Delete { force } => (force || matches!(state, Stopped | Broken), "stopped"),
        Action::Set => (!matches!(state, State::Migrating), "here"),
        Action::Enter => (matches!(state, Starting | Running | Stopping), "running"),
        Action::Files => (
            matches!(state, Starting | Running | Stopped),
            "running or stopped",
        ),
        // Processes on disk hold files that they had open.
        Action::Compact => (
            matches!(state, Starting | Running | Paused | Stopped),
            "running or stopped",
        ),
        // What runs holds the files of its template open.
        Action::Applications => (matches!(state, Stopped), "stopped"),
        // It is stopped and started, which frozen processes and those on disk are not asked.
        Action::Update => (
            matches!(state, Starting | Running | Stopped),
            "running or stopped",
        ),
    };
    if allowed {
        Ok(())
    } else {
        Err(ActionDenied::State {
            action,
            state,
            needed,
        })
    }
}

/// Decides what follows the end of an init, of a VE that restarted itself so many times within the
/// last [`RESTARTS_SECONDS`].
#[must_use]
pub fn after_exit(exit: Exit, restarts: usize) -> AfterExit {
    match exit {
        Exit::Reboot if restarts >= RESTARTS_MAX => AfterExit::GiveUp,
        Exit::Reboot => AfterExit::StartAgain,
        Exit::Code(_) | Exit::Signal(_) | Exit::PowerOff | Exit::Unknown => AfterExit::StayStopped,
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Pause => "pause",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::Discard => "dropping its processes on disk",
            Self::Delete { .. } => "delete",
            Self::Set => "set",
            Self::Enter => "running a command",
            Self::Files => "copying files",
            Self::Compact => "compact",
            Self::Applications => "change of applications",
            Self::Update => "update",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTIONS: [Action; 15] = [
        Action::Start,
        Action::Stop,
        Action::Restart,
        Action::Pause,
        Action::Suspend,
        Action::Resume,
        Action::Discard,
        Action::Delete { force: false },
        Action::Delete { force: true },
        Action::Set,
        Action::Enter,
        Action::Files,
        Action::Compact,
        Action::Applications,
        Action::Update,
    ];

    #[test]
    fn a_protected_ve_is_never_deleted() {
        for state in State::ALL {
            for force in [false, true] {
                let denied = permit(Action::Delete { force }, state, true);
                assert_eq!(denied, Err(ActionDenied::Protected));
            }
        }
    }

    #[test]
    fn some_action_leads_out_of_every_state_that_ours_lead_into() {
        for state in [
            State::Stopped,
            State::Starting,
            State::Running,
            State::Paused,
            State::Checkpointed,
            State::Broken,
        ] {
            let ways = ACTIONS
                .iter()
                .filter(|action| permit(**action, state, false).is_ok());
            assert!(ways.count() > 1, "{state}");
        }
    }

    #[test]
    fn refusals_say_what_is_needed() {
        let denied = permit(Action::Start, State::Running, false).unwrap_err();
        assert_eq!(
            denied.to_string(),
            "it is running, and start needs it to be stopped"
        );
    }

    #[test]
    fn only_a_reboot_starts_again() {
        assert_eq!(after_exit(Exit::Reboot, 0), AfterExit::StartAgain);
        for exit in [
            Exit::PowerOff,
            Exit::Code(0),
            Exit::Signal(9),
            Exit::Unknown,
        ] {
            for restarts in [0, RESTARTS_MAX] {
                assert_eq!(after_exit(exit, restarts), AfterExit::StayStopped);
            }
        }
    }

    #[test]
    fn one_that_only_restarts_is_given_up() {
        let after = |restarts| after_exit(Exit::Reboot, restarts);
        assert_eq!(after(RESTARTS_MAX - 1), AfterExit::StartAgain);
        assert_eq!(after(RESTARTS_MAX), AfterExit::GiveUp);
    }
}
