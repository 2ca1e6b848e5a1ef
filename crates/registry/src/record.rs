//! What the registry knows about one VE.

use ve::{Spec, State};

/// A VE: what it was asked to be, and what it was doing when the registry last heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VeRecord {
    /// What it was asked to be.
    pub spec: Spec,
    /// What it was doing. Whether its init still runs is for the kernel to say.
    pub state: State,
    /// The init, while there is one.
    pub run: Option<Run>,
    /// What is wrong with a VE that is [`State::Broken`], or what went wrong last.
    pub fault: Option<String>,
    /// What its next start has to write into it, if it never started.
    pub first_boot: Option<FirstBoot>,
    /// How much of it there is.
    pub stage: Stage,
    /// Whether an operation left something behind that it could not clean up. It is tried again
    /// before the next operation on the VE, and at the next start of the node.
    pub unclean: bool,
}

/// How much of a VE there is.
///
/// ```text
/// creating -> whole -> removing -> (no record)
///     +----------------------------^
/// building --------------------^
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is being made: it holds its number, name and addresses, and is shown to nobody. A node
    /// that finds such a record at its start removes what there is of the VE.
    Creating,
    /// It is no VE but a sandbox in which a template is built: as one that is being made, shown to nobody and
    /// removed by a node that finds it at its start. Its processes run.
    Building,
    /// It is there.
    Whole,
    /// It is being removed. A node that finds such a record at its start carries on with that.
    Removing,
}

impl Stage {
    const ALL: [Self; 4] = [Self::Creating, Self::Building, Self::Whole, Self::Removing];

    /// Whether nobody is shown it: it is not a VE yet, or never will be one.
    #[must_use]
    pub fn is_hidden(self) -> bool {
        matches!(self, Self::Creating | Self::Building)
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Building => "building",
            Self::Whole => "whole",
            Self::Removing => "removing",
        }
    }

    pub(crate) fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.as_str() == word)
    }
}

/// One life of an init. Process numbers are used again; with the start time and the boot that it
/// is counted from, a process is known for certain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The init's process number, as the node sees it.
    pub pid: u32,
    /// Its start time in clock ticks since boot (field 22 of proc_pid_stat(5)).
    pub start_time_ticks: u64,
    /// The kernel's boot id (`/proc/sys/kernel/random/boot_id`).
    pub boot_id: String,
}

/// What a VE gets at its first start and never again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirstBoot {
    /// Hash of root's password in the format of crypt(5).
    pub root_password_hash: Option<String>,
    /// Lines for root's `authorized_keys`.
    pub ssh_keys: Vec<String>,
}
