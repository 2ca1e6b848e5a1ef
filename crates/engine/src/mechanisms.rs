//! The node as the engine sees it: everything that is done, and nothing that is decided.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use policy::InUse;
use registry::{Run, VeRecord};
use ve::{Bits, Bytes, Exit, Key, Limits, Options, Spec, Stack, VeId};

use crate::error::FailureKind;
use crate::request::{StackBuild, TemplateRequest};
use crate::updating::Updating;

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

/// Whether a node can do what a key asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Support {
    /// As it is meant.
    Full,
    /// Not wholly: what it does instead, for people.
    Partly(String),
    /// Not at all: what is missing and how to get it.
    None(String),
}

/// How a node is divided among its VEs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Division {
    /// Weights of processor time, 1 to 10,000, of running VEs whose weight changes.
    pub cpu_weights: BTreeMap<VeId, u32>,
    /// What running VEs are guaranteed of the memory, together.
    pub memory_guaranteed: Bytes,
    /// What VEs may use of it, together.
    pub memory_for_ves: Bytes,
    /// Whether a running VE has a share of the pool's disk of its own.
    pub io_shared: bool,
    /// Guarantees of space in the pool, each with the VE's limit, of all VEs that have one.
    pub disk_guarantees: BTreeMap<VeId, (Bytes, Option<Bytes>)>,
    /// What VEs together do not use of the pool while one has one.
    pub disk_reserve: Bytes,
    /// Whether a running VE is guaranteed a part of the way to other networks.
    pub network_guaranteed: bool,
    /// What VEs may use of that together while one is, if the node knows how fast it is.
    pub network_for_ves: Option<Bits>,
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

/// For work that nobody asked for: nobody looks on, and nobody stops it.
pub(crate) struct Nobody;

impl ProgressSink for Nobody {
    fn report(&self, _: Progress) {}

    fn cancelled(&self) -> bool {
        false
    }
}

/// The mechanisms of a node.
///
/// Every method can be repeated: what is there already is kept, what is gone already is no fault.
/// Methods block; each is called from the lane of its VE, and never two at once for one VE.
pub trait Mechanisms: Updating + Send + Sync {
    /// The templates that there are, with applications and without, those that cannot be read, too.
    fn templates(&self) -> Result<BTreeSet<Stack>, Fault>;
    /// The version of a template with applications, if it is there.
    fn template_version(&self, stack: &Stack) -> Result<Option<String>, Fault>;
    /// Builds, imports or verifies a template, as the request says.
    fn template_work(
        &self,
        request: &TemplateRequest,
        sink: &dyn ProgressSink,
    ) -> Result<(), Fault>;
    /// Removes a template that nobody uses.
    fn template_remove(&self, stack: &Stack) -> Result<(), Fault>;

    /// Whether what was chosen for an application is what it offers. `stack` is the one that keeps its recipe.
    fn options_check(&self, stack: &Stack, options: &Options) -> Result<(), Fault>;
    /// Checks whether a build can be done, without doing any of it.
    fn build_check(&self, build: &StackBuild) -> Result<(), Fault>;
    /// Does the work of a build in a sandbox that runs.
    fn stack_install(
        &self,
        sandbox: &VeRecord,
        build: &StackBuild,
        sink: &dyn ProgressSink,
    ) -> Result<(), Fault>;
    /// Keeps the files of a sandbox that has ended as a template: whole, or not at all. An update that changed no
    /// package is not kept, and no fault.
    fn stack_keep(
        &self,
        sandbox: &VeRecord,
        build: &StackBuild,
        sink: &dyn ProgressSink,
    ) -> Result<(), Fault>;
    /// Whether another stack can be put below the files of a stopped VE: not where it changed what differs.
    fn lower_check(&self, record: &VeRecord, new: &Stack) -> Result<(), Fault>;
    /// Makes the files of a stopped VE ready for another stack below them. How they were is kept until
    /// [`Mechanisms::lower_settle`].
    fn lower_change(&self, record: &VeRecord, new: &Stack) -> Result<(), Fault>;
    /// Ends a change of what is below a VE's files: brings back how they were if its record has another stack than
    /// the one that they were made ready for, and forgets it if it has that. Nothing is no fault.
    fn lower_settle(&self, record: &VeRecord) -> Result<(), Fault>;

    /// Whether a VE may have this address here, apart from what other VEs have.
    fn address_check(&self, address: IpAddr) -> Result<(), Fault>;

    /// Whether the node can do what this key asks for.
    fn support(&self, _key: Key) -> Support {
        Support::Full
    }
    /// Divides the node among its VEs. One that ended meanwhile is no fault.
    ///
    /// # Errors
    /// The first share that could not be given; the others are.
    fn divide(&self, _division: &Division) -> Result<(), Fault> {
        Ok(())
    }

    /// Makes the VE's private area, with a bound on what it may hold.
    fn area_create(&self, id: VeId, disk: Option<Bytes>) -> Result<(), Fault>;
    /// Removes the VE's private area with everything in it.
    fn area_remove(&self, id: VeId) -> Result<(), Fault>;

    /// Makes the VE's control groups and puts its limits on them.
    fn groups_create(&self, spec: &Spec) -> Result<(), Fault>;
    /// Runs the VE's init, from its parts. Whatever was made on the way is gone after a fault.
    fn launch(&self, record: &VeRecord) -> Result<Running, Fault>;
    /// Ends the VE's init, and returns how it ended once all its processes are gone. How an init
    /// is asked depends on the `stack` that it comes from; without one it is killed.
    fn end(
        &self,
        id: VeId,
        stack: Option<&Stack>,
        patience: Patience,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Exit, Fault>;
    /// Removes what a VE without processes leaves: groups, link, run-time files.
    fn clear(&self, id: VeId) -> Result<(), Fault>;
    /// The inits that run, those of VEs that the registry does not know, too. Of `known` VEs, with
    /// their inits as recorded, also those that were made and not recorded any more.
    fn running(
        &self,
        known: &BTreeMap<VeId, Option<Run>>,
    ) -> Result<BTreeMap<VeId, Running>, Fault>;
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

    /// Puts the VE's processes on disk; they are gone then. After a fault, [`Mechanisms::asleep`]
    /// tells which it is.
    fn suspend(&self, record: &VeRecord, sink: &dyn ProgressSink) -> Result<(), Fault>;
    /// Whether the VE's processes are on disk and nowhere else, and can be woken. Ends a
    /// suspension that was interrupted, one way or the other: if they are not on disk, they run,
    /// if they live.
    fn asleep(&self, record: &VeRecord) -> Result<bool, Fault>;
    /// Wakes processes from disk. What is on disk is of no use from the moment on at which one of
    /// them runs, for they change their files: after a fault, [`Mechanisms::asleep`] tells whether
    /// it came before.
    fn wake(&self, record: &VeRecord, sink: &dyn ProgressSink) -> Result<Running, Fault>;
    /// Drops what is on disk.
    fn discard(&self, id: VeId) -> Result<(), Fault>;

    /// Gives back files of the VE's private area that are equal to its template's. What the VE sees stays
    /// the same at any moment of it; done again, it goes on. Of a VE with processes only the blocks on
    /// disk are given back.
    fn compact(&self, record: &VeRecord, sink: &dyn ProgressSink) -> Result<(), Fault>;

    /// What the VE uses that cannot be taken back.
    fn in_use(&self, id: VeId, running: bool) -> Result<InUse, Fault>;
    /// Puts limits on a VE, at once if it runs.
    fn limits_apply(&self, id: VeId, limits: &Limits, running: bool) -> Result<(), Fault>;
    /// Gives a running VE other addresses.
    fn addresses_apply(&self, id: VeId, old: &[IpAddr], new: &[IpAddr]) -> Result<(), Fault>;

    /// Removes what lies about of VEs other than these: areas, groups, links. Files that a VE wrote stay.
    fn sweep(&self, keep: &[VeId]) -> Result<Sweep, Fault>;
}

/// What was found of VEs that are not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sweep {
    /// What was removed, in words.
    pub found: Vec<String>,
    /// Numbers whose files stay: nothing of Vessel's own leaves files without a VE, so the registry
    /// was lost, or is an old one.
    pub strangers: BTreeSet<VeId>,
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

    /// The same, with another that came of it.
    #[must_use]
    pub(crate) fn and_then(mut self, next: &Self) -> Self {
        self.message = format!("{}; and then: {}", self.message, next.message);
        self
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
