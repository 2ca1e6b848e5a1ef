//! The node as the engine sees it: everything that is done, and nothing that is decided.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use policy::InUse;
use registry::{Run, VeRecord};
use ve::{Bytes, Exit, Limits, Name, Spec, VeId};

use crate::error::FailureKind;
use crate::request::TemplateRequest;

/// Why a mechanism failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What kind of failure it is.
    pub kind: FailureKind,
    /// The thing and the cause.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

/// How long the end of an init is waited for before it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// It is killed at once.
    None,
    /// It is asked, and killed when this is over.
    Until(Duration),
}

/// An init that runs, as the launcher knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Which process it is.
    pub run: Run,
    /// Whether it has said that it is ready.
    pub ready: bool,
}

/// How far a long operation is.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// 0 to 1 where it can be known.
    pub fraction: Option<f32>,
    /// What is being done.
    pub message: String,
}

/// Where a long operation reports its progress, and learns that it is to stop.
pub trait ProgressSink: Send + Sync {
    /// Takes note of progress.
    fn report(&self, progress: Progress);
    /// Whether somebody cancelled the operation.
    fn cancelled(&self) -> bool;
}

/// The mechanisms of a node.
///
/// Every method can be repeated: what is there already is kept, what is gone already is no fault.
/// Methods block; each is called from the lane of its VE, and never two at once for one VE.
pub trait Mechanisms: Send + Sync {
    /// The version of a template, if it is there.
    fn template_version(&self, name: &Name) -> Result<Option<String>, Fault>;
    /// Builds, imports or verifies a template, as the request says.
    fn template_work(
        &self,
        request: &TemplateRequest,
        sink: &dyn ProgressSink,
    ) -> Result<(), Fault>;
    /// Removes a template that nobody uses.
    fn template_remove(&self, name: &Name) -> Result<(), Fault>;

    /// Whether a VE may have this address here, apart from what other VEs have.
    fn address_check(&self, address: IpAddr) -> Result<(), Fault>;

    /// Makes the VE's private area, with a bound on what it may hold.
    fn area_create(&self, id: VeId, disk: Option<Bytes>) -> Result<(), Fault>;
    /// Removes the VE's private area with everything in it.
    fn area_remove(&self, id: VeId) -> Result<(), Fault>;

    /// Makes the VE's control groups and puts its limits on them.
    fn groups_create(&self, spec: &Spec) -> Result<(), Fault>;
    /// Runs the VE's init, from its parts. Whatever was made on the way is gone after a fault.
    fn launch(&self, record: &VeRecord) -> Result<Running, Fault>;
    /// Ends the VE's init, and returns how it ended once all its processes are gone. How an init
    /// is asked depends on the `template` that it comes from; without one it is killed.
    fn end(
        &self,
        id: VeId,
        template: Option<&Name>,
        patience: Patience,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Exit, Fault>;
    /// Removes what a VE without processes leaves: groups, link, run-time files.
    fn clear(&self, id: VeId) -> Result<(), Fault>;
    /// The inits that run, those of VEs that the registry does not know, too.
    fn running(&self, known: &BTreeMap<VeId, Run>) -> Result<BTreeMap<VeId, Running>, Fault>;
    /// How inits ended that ended while nobody listened.
    fn exits(&self) -> Result<BTreeMap<VeId, (Run, Exit)>, Fault>;
    /// Says that the end of the init with this process number was dealt with.
    fn exit_settled(&self, id: VeId, pid: u32);

    /// Freezes the VE's processes.
    fn freeze(&self, id: VeId) -> Result<(), Fault>;
    /// Lets them go on.
    fn thaw(&self, id: VeId) -> Result<(), Fault>;
    /// Whether they are frozen.
    fn frozen(&self, id: VeId) -> Result<bool, Fault>;

    /// Puts the VE's processes on disk; they are gone then. After a fault they run on.
    ///
    /// # Errors
    /// A node without the means for it refuses.
    fn suspend(&self, _record: &VeRecord) -> Result<(), Fault> {
        Err(Fault::new("this node cannot put processes on disk"))
    }
    /// Ends a suspension that was interrupted, one way or the other: whether the VE's processes are
    /// on disk and nowhere else. If not, they run if they live.
    ///
    /// # Errors
    /// What is in the way of both.
    fn asleep(&self, _record: &VeRecord) -> Result<bool, Fault> {
        Ok(false)
    }
    /// Wakes processes from disk; what is on disk is of no use then. After a fault it is as before.
    ///
    /// # Errors
    /// Why they cannot be woken.
    fn wake(&self, _record: &VeRecord) -> Result<Running, Fault> {
        Err(Fault::new("this node cannot wake processes from disk"))
    }
    /// Drops what is on disk.
    ///
    /// # Errors
    /// What cannot be removed.
    fn discard(&self, _id: VeId) -> Result<(), Fault> {
        Ok(())
    }

    /// What the VE uses that cannot be taken back.
    fn in_use(&self, id: VeId, running: bool) -> Result<InUse, Fault>;
    /// Puts limits on a VE, at once if it runs.
    fn limits_apply(&self, id: VeId, limits: &Limits, running: bool) -> Result<(), Fault>;
    /// Gives a running VE other addresses.
    fn addresses_apply(&self, id: VeId, old: &[IpAddr], new: &[IpAddr]) -> Result<(), Fault>;

    /// Removes what lies about of VEs other than these: areas, groups, links. Says what it found.
    fn sweep(&self, keep: &[VeId]) -> Result<Vec<String>, Fault>;
}

impl Fault {
    /// A plain failure without a hint.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            kind: FailureKind::Failed,
            message: message.into(),
            hint: None,
        }
    }

    /// The same of another kind.
    #[must_use]
    pub fn of_kind(mut self, kind: FailureKind) -> Self {
        self.kind = kind;
        self
    }

    /// The same with the next step.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Out of an error and all its causes.
    pub fn from_error(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(crate::error::chain(error))
    }
}
