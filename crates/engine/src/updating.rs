//! What the node has to be able to do for an update, and its steps.

use std::time::Duration;

use registry::VeRecord;
use ve::{Spec, Stack, State};

use crate::mechanisms::{Fault, Mechanisms, ProgressSink};

/// A command in a VE that says by its exit code whether all is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// For its `/bin/sh`.
    pub command: String,
    /// How long it is tried again and again.
    pub timeout: Duration,
}

/// How a VE comes to another version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// What it did not change comes from the new version, what it changed stays its own.
    Below,
    /// Its own package manager has to bring it there.
    Inside {
        /// Why, for people.
        because: String,
    },
}

/// What is foreseen for a VE, and what it will keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreseen {
    /// How it would be done.
    pub way: Way,
    /// What it changed where the versions differ.
    pub kept: Kept,
}

/// Files that a VE changed, and that also differ between two versions: they stay the VE's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Some of them, for people.
    pub paths: Vec<String>,
    /// How many there are.
    pub count: u64,
}

/// What is kept of how a VE's files were, for [`crate::Mechanisms::lower_settle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// Nothing.
    None,
    /// How they were before they became what the record says: to be forgotten.
    Done,
    /// How they were before they were to become something else: to be brought back.
    Pending,
}

/// A step of an update. None has a way back of its own: the update as a whole leads back.
#[derive(Clone, Debug, PartialEq)]
pub enum UpdateStep {
    /// Keep how the files are, until it is known whether the VE becomes this.
    Keep(Stack),
    /// Let the package manager of the running VE bring it to this version.
    Upgrade(Stack),
    /// Put another stack below the files of the stopped VE.
    Move {
        /// The specification with that stack.
        spec: Box<Spec>,
        /// What of the files follows it.
        way: Way,
    },
    /// Wait until the init is ready.
    Ready(Duration),
    /// Wait until the check succeeds.
    Check(Check),
    /// Have it on disk what was done to the files.
    Sync,
    /// Bring back how the files were, if that was kept.
    Restore,
}

/// The mechanisms of an update.
pub trait Updating: Send + Sync {
    /// How a VE would come to a stack that is there. The VE may run.
    fn update_foresee(&self, record: &VeRecord, new: &Stack) -> Result<Foreseen, Fault>;
    /// Keeps how a VE's files are until [`crate::Mechanisms::lower_settle`]. A VE that runs stands still meanwhile.
    fn lower_keep(&self, record: &VeRecord, new: &Stack) -> Result<(), Fault>;
    /// What is kept of how a VE's files were.
    fn lower_before(&self, record: &VeRecord) -> Result<Before, Fault>;
    /// Lets the package manager of a VE that runs bring it to the packages of this stack.
    fn upgrade(&self, record: &VeRecord, new: &Stack, sink: &dyn ProgressSink)
    -> Result<(), Fault>;
    /// Puts another stack below the files of a stopped VE, which were kept before. By [`Way::Below`] it refuses what
    /// has come in the way since it was foreseen; by [`Way::Inside`] the VE sees the same behind it.
    fn lower_move(&self, record: &VeRecord, new: &Stack, way: &Way) -> Result<Kept, Fault>;
    /// Waits until the init of a VE is ready; its end is a fault.
    fn ready_wait(
        &self,
        record: &VeRecord,
        timeout: Duration,
        sink: &dyn ProgressSink,
    ) -> Result<(), Fault>;
    /// Runs the check in a VE until it succeeds; the fault tells how it ended the last time.
    fn check(&self, record: &VeRecord, check: &Check, sink: &dyn ProgressSink)
    -> Result<(), Fault>;
    /// Waits until what was done to files is on disk.
    fn files_sync(&self) -> Result<(), Fault>;
    /// A clock that nobody sets.
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

impl UpdateStep {
    /// Carries the step out; what is true then is in the record.
    pub(crate) fn carry_out(
        &self,
        record: &mut VeRecord,
        mechanisms: &dyn Mechanisms,
        sink: &dyn ProgressSink,
    ) -> Result<Kept, Fault> {
        match self {
            Self::Keep(new) => mechanisms.lower_keep(record, new)?,
            Self::Upgrade(new) => mechanisms.upgrade(record, new, sink)?,
            Self::Move { spec, way } => {
                let kept = mechanisms.lower_move(record, &spec.stack(), way)?;
                record.spec = (**spec).clone();
                return Ok(kept);
            }
            Self::Ready(timeout) => {
                mechanisms.ready_wait(record, *timeout, sink)?;
                record.state = State::Running;
            }
            Self::Check(check) => mechanisms.check(record, check, sink)?,
            Self::Sync => mechanisms.files_sync()?,
            Self::Restore => mechanisms.lower_settle(record)?,
        }
        Ok(Kept::default())
    }
}
