//! States of a VE and the ways its init can end.

use std::fmt;

/// What a VE is doing.
///
/// ```text
/// stopped -> starting -> running <-> paused
///    ^          |         | |  ^       |
///    +----------+-stopping+-|--|-------+      any -> broken (what is wrong is in its record)
///    |                      v  |
///    +----------------- checkpointed
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// It has no processes.
    Stopped,
    /// Its init runs and has not said that it is ready.
    Starting,
    /// Its init runs and is ready.
    Running,
    /// Its processes exist and are frozen.
    Paused,
    /// Its init was asked to end.
    Stopping,
    /// Its processes are on disk, to be resumed.
    Checkpointed,
    /// It is on its way to another node.
    Migrating,
    /// Something that it needs is missing or damaged.
    Broken,
}

impl State {
    /// Every state, in the order in which a VE meets them.
    pub const ALL: [Self; 8] = [
        Self::Stopped,
        Self::Starting,
        Self::Running,
        Self::Paused,
        Self::Stopping,
        Self::Checkpointed,
        Self::Migrating,
        Self::Broken,
    ];

    /// The word for it in tables, JSON and the registry.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Checkpointed => "checkpointed",
            Self::Migrating => "migrating",
            Self::Broken => "broken",
        }
    }

    /// Finds the state that a word names.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether the VE has processes in this state.
    #[must_use]
    pub fn has_processes(self) -> bool {
        matches!(
            self,
            Self::Starting | Self::Running | Self::Paused | Self::Stopping
        )
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How a VE's init ended, as its parent's `waitpid` shows it.
///
/// In a pid namespace `reboot(2)` ends the init with a signal that says what was asked for:
/// `SIGHUP` for a restart, `SIGINT` for halt and power-off (reboot(2), "Behavior inside PID
/// namespaces").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The init returned this code.
    Code(i32),
    /// This signal ended it, and no `reboot(2)` was asked for.
    Signal(i32),
    /// The VE asked for a restart.
    Reboot,
    /// The VE asked for halt or power-off.
    PowerOff,
    /// Nobody saw it end (the node was down).
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "init ended with code {code}"),
            Self::Signal(signal) => write!(f, "init was ended by signal {signal}"),
            Self::Reboot => f.write_str("the VE asked for a restart"),
            Self::PowerOff => f.write_str("the VE asked to be powered off"),
            Self::Unknown => f.write_str("init ended while nobody looked"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lead_back_to_their_states() {
        for state in State::ALL {
            assert_eq!(State::from_word(state.as_str()), Some(state));
        }
        assert_eq!(State::from_word("Running"), None);
    }
}
