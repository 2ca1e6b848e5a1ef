//! The engine's front: taking requests, and one lane of work per VE and per template.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use policy::NodeCapacity;
use registry::{Event, NewOperation, OperationId, Outcome, Registry, VeRecord};
use ve::{Exit, Name, Revision, Stack, StackReference, VeId};

use crate::admission::{self, AdmissionError};
use crate::error::{Failure, FailureKind};
use crate::inner::{Inner, Ticket};
use crate::mechanisms::Mechanisms;
use crate::request::{CreateRequest, NodeFacts, Request, TemplateRequest, VeRequest};
use crate::stacks;

/// Most work that may wait in one lane. Who asks for more is told to wait.
pub(crate) const LANE_LENGTH_MAX: usize = 32;

/// Runs the work of a lane, at once or on a thread of its own.
pub type RunLane = Box<dyn Fn(Box<dyn FnOnce() + Send>) + Send + Sync>;

/// What an engine is made of.
pub struct EngineParts {
    /// The records.
    pub registry: Registry,
    /// The node.
    pub mechanisms: Box<dyn Mechanisms>,
    /// Facts about the node.
    pub facts: NodeFacts,
    /// What the node has for VEs.
    pub capacity: NodeCapacity,
    /// Seconds since 1970.
    pub clock: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Runs a lane.
    pub run_lane: RunLane,
    /// Hears whatever changes. Must not block.
    pub publish: Box<dyn Fn(Notice) + Send + Sync>,
}

/// Something that changed.
#[derive(Clone, Debug)]
pub enum Notice {
    /// An operation moved on or ended.
    Operation(OperationId),
    /// A VE changed.
    Ve(VeId),
    /// Something happened that is worth remembering.
    Event(Event),
}

/// A request that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// The operation that carries it out.
    pub operation: OperationId,
    /// The VE, if it is about one.
    pub ve: Option<VeId>,
    /// The VE's or template's name.
    pub subject: String,
}

/// The engine of one node. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LaneKey {
    Ve(VeId),
    /// Of no revision, so that what is asked of any of them is done one after the other.
    Template(StackReference),
}

/// A piece of work in a lane.
pub(crate) enum Job {
    /// Finish a VE that was reserved.
    Create(OperationId, VeId),
    /// A request about a VE. The name tells it from another that got the number meanwhile.
    Ve(OperationId, VeId, Name, VeRequest),
    /// A request about a template.
    Template(OperationId, TemplateRequest),
    /// An init ended. Another may run by the time this is dealt with.
    Exited(VeId, u32, Exit),
    /// An init is ready.
    Ready(VeId, u32),
    /// The record of a VE is in doubt.
    Doubts(VeId),
}

impl Job {
    /// The operation that is done with it, if it has one already.
    pub(crate) fn operation(&self) -> Option<OperationId> {
        match self {
            Self::Create(operation, _) | Self::Ve(operation, ..) | Self::Template(operation, _) => {
                Some(*operation)
            }
            Self::Exited(..) | Self::Ready(..) | Self::Doubts(_) => None,
        }
    }

    /// The VE that it is about.
    pub(crate) fn ve(&self) -> Option<VeId> {
        match self {
            Self::Create(_, id)
            | Self::Ve(_, id, ..)
            | Self::Exited(id, ..)
            | Self::Ready(id, _)
            | Self::Doubts(id) => Some(*id),
            Self::Template(..) => None,
        }
    }
}

impl Engine {
    /// Puts an engine together. What is asked of it and told to it waits until
    /// [`Engine::recover`] has run.
    #[must_use]
    pub fn new(parts: EngineParts) -> Self {
        Self {
            inner: Arc::new(Inner::new(parts)),
        }
    }

    /// Writes down something that happened and changes nothing, and tells it. Number and time are given
    /// here.
    ///
    /// # Errors
    /// When the registry cannot be written.
    pub fn announce(&self, event: Event) -> Result<(), Failure> {
        self.inner.tell(Outcome::Unchanged, event)
    }

    /// Takes a request: checks it, journals it, and hands it to its lane.
    ///
    /// # Errors
    /// Says why it cannot be granted; nothing was changed then.
    pub fn submit(&self, request: Request) -> Result<Submitted, Failure> {
        match request {
            Request::Create(request) => self.submit_create(&request),
            Request::Ve { reference, request } => self.submit_ve(&reference, request),
            Request::Template(request) => self.submit_template(request),
        }
    }

    /// Tells that the init with the process number `pid` ended.
    pub fn exited(&self, id: VeId, pid: u32, exit: Exit) {
        // Whoever builds in a sandbox waits for its end, and deals with it.
        if !self.inner.is_sandbox(id) {
            self.push(LaneKey::Ve(id), Job::Exited(id, pid, exit));
        }
    }

    /// Tells that the init with the process number `pid` is ready.
    pub fn ready(&self, id: VeId, pid: u32) {
        self.push(LaneKey::Ve(id), Job::Ready(id, pid));
    }

    /// Asks an operation to stop where it can. What it did is undone.
    ///
    /// # Errors
    /// Refuses operations that do not exist or have ended.
    pub fn cancel(&self, operation: OperationId) -> Result<(), Failure> {
        match self.inner.tickets().get(&operation) {
            Some(ticket) => {
                ticket.cancelled.store(true, Ordering::Relaxed);
                Ok(())
            }
            None => match self.registry().operation(operation)? {
                Some(_) => Err(Failure::new(
                    FailureKind::State,
                    format!("operation {operation} has ended"),
                )
                .with_hint("only what is queued or running can be cancelled")),
                None => Err(Failure::new(
                    FailureKind::NotFound,
                    format!("there is no operation {operation}"),
                )
                .with_hint("`vessel operation list` shows them")),
            },
        }
    }

    /// The node's records.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.inner.parts.registry
    }

    /// Facts about the node.
    #[must_use]
    pub fn facts(&self) -> &NodeFacts {
        &self.inner.parts.facts
    }

    /// An operation's ticket, until it has ended.
    #[must_use]
    pub fn ticket(&self, operation: OperationId) -> Option<Ticket> {
        self.inner.tickets().get(&operation).cloned()
    }

    /// The VE that a name or number refers to, with what it is doing now.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(&self, reference: &str) -> Result<VeRecord, Failure> {
        admission::find(self.registry(), reference).map(|record| self.inner.as_seen(record))
    }

    /// All VEs by number, with what they are doing now.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub fn list(&self) -> Result<Vec<VeRecord>, Failure> {
        let records = self.registry().ves()?;
        let created = records.into_iter().filter(|r| !r.stage.is_hidden());
        Ok(created.map(|record| self.inner.as_seen(record)).collect())
    }

    /// Numbers of VEs that the registry does not know, and whose files are kept.
    #[must_use]
    pub fn strangers(&self) -> BTreeSet<VeId> {
        self.inner.strangers()
    }

    fn submit_create(&self, request: &CreateRequest) -> Result<Submitted, Failure> {
        let parts = &self.inner.parts;
        admission::check_settings(parts.mechanisms.as_ref(), &request.settings)?;
        let gate = self.inner.template_gate();
        let (revision, version) = self.version_for(request)?;
        let submitting = self.inner.submit_gate();
        let now = (parts.clock)();
        let mut held = None;
        let strangers = self.inner.strangers();
        let reserved = parts
            .registry
            .create_reserve(&request.first_boot, now, |ids, addresses| {
                let ids = ids.union(&strangers).copied().collect();
                let taken = (&ids, addresses);
                let of = (revision, version.as_str());
                let specified = admission::specification(request, of, &parts.facts, now, taken)?;
                let (spec, _) = &specified;
                self.inner
                    .promise_new(spec.id, &spec.limits)
                    .map_err(|failure| Failure::about(&spec.name, failure))?;
                held = Some(spec.id);
                Ok::<_, AdmissionError>(specified)
            });
        let (spec, operation) = reserved.map_err(|AdmissionError(failure)| {
            if let Some(id) = held {
                self.inner.settle_holding(Outcome::Forget(id));
            }
            failure
        })?;
        self.inner.open_ticket(operation);
        let lane = self.enqueue(LaneKey::Ve(spec.id), Job::Create(operation, spec.id));
        drop(submitting);
        // From here on the record itself keeps what it is made of.
        drop(gate);
        self.run(lane);
        Ok(Submitted {
            operation,
            ve: Some(spec.id),
            subject: spec.name.to_string(),
        })
    }

    /// The revision and the version of the files that a new VE shares with others; no version where they are to be made
    /// of what is there.
    fn version_for(&self, request: &CreateRequest) -> Result<(Revision, String), Failure> {
        let mechanisms = self.inner.parts.mechanisms.as_ref();
        let template = &request.template;
        let newest = || -> Result<_, Failure> {
            let newest = policy::stacks::newest(&mechanisms.templates()?, template);
            newest.ok_or_else(|| stacks::no_such_template(&Stack::from(template)))
        };
        let revision = request.revision.map_or_else(newest, Ok)?;
        let names = request.applications.keys().cloned();
        let stack = Stack::new(template.clone(), revision, names)
            .map_err(|error| Failure::new(FailureKind::Usage, error.to_string()))?;
        let bare = stack.bare();
        if mechanisms.template_version(&bare)?.is_none() {
            return Err(stacks::no_such_revision(bare));
        }
        for (name, options) in &request.applications {
            let recipe = self.recipe_of(&stack.of_one(name))?;
            mechanisms.options_check(&recipe, options)?;
        }
        let version = mechanisms.template_version(&stack)?;
        Ok((revision, version.unwrap_or_default()))
    }

    fn submit_ve(&self, reference: &str, request: VeRequest) -> Result<Submitted, Failure> {
        let record = self.find(reference)?;
        let (id, name) = (record.spec.id, record.spec.name.clone());
        let key = LaneKey::Ve(id);
        if let VeRequest::Set { settings, .. } = &request {
            admission::check_settings(self.inner.parts.mechanisms.as_ref(), settings)?;
        }
        let submitting = self.inner.submit_gate();
        let waiting = self.inner.lane_length(&key);
        if waiting >= LANE_LENGTH_MAX {
            let message = format!("VE `{name}`: {waiting} operations wait for it already");
            return Err(Failure::new(FailureKind::Conflict, message)
                .with_hint("`vessel operation list` shows them; try again when they are done"));
        }
        if waiting == 0 {
            // With work before it in the lane, the state that counts is the one it will find.
            admission::permit(&record, &request)?;
        }
        let new = NewOperation {
            kind: request.kind(),
            ve: Some(id),
            subject: name.to_string(),
            request: request.summary(),
        };
        let operation = self
            .registry()
            .operation_insert(&new, (self.inner.parts.clock)())?;
        self.inner.open_ticket(operation);
        let lane = self.enqueue(key, Job::Ve(operation, id, name.clone(), request));
        drop(submitting);
        self.run(lane);
        Ok(Submitted {
            operation,
            ve: Some(id),
            subject: name.to_string(),
        })
    }

    fn submit_template(&self, request: TemplateRequest) -> Result<Submitted, Failure> {
        self.template_admit(&request)?;
        let subject = request.subject();
        let new = NewOperation {
            kind: request.kind(),
            ve: None,
            subject: subject.clone(),
            request: request.summary(),
        };
        let operation = self
            .registry()
            .operation_insert(&new, (self.inner.parts.clock)())?;
        self.inner.open_ticket(operation);
        let lane = LaneKey::Template(request.lane());
        self.push(lane, Job::Template(operation, request));
        Ok(Submitted {
            operation,
            ve: None,
            subject,
        })
    }

    /// Adds work to a lane, and runs the lane if nobody does.
    pub(crate) fn push(&self, key: LaneKey, job: Job) {
        let lane = self.enqueue(key, job);
        self.run(lane);
    }

    /// Adds work to a lane; returns the lane if it has to be run.
    fn enqueue(&self, key: LaneKey, job: Job) -> Option<LaneRun> {
        let mut lanes = self.inner.lanes();
        let open = lanes.open;
        let mut new = false;
        let lane = lanes.waiting.entry(key.clone()).or_insert_with(|| {
            new = true;
            VecDeque::new()
        });
        lane.push_back(job);
        (open && new).then(|| LaneRun {
            engine: self.clone(),
            key: Some(key),
        })
    }

    fn run(&self, lane: Option<LaneRun>) {
        if let Some(lane) = lane {
            (self.inner.parts.run_lane)(Box::new(move || lane.drain()));
        }
    }

    /// Begins with the work that came while the node was being set right, and takes more.
    pub(crate) fn open_lanes(&self) {
        let mut lanes = self.inner.lanes();
        lanes.open = true;
        let waiting: Vec<_> = lanes.waiting.keys().cloned().collect();
        drop(lanes);
        for key in waiting {
            self.run(Some(LaneRun {
                engine: self.clone(),
                key: Some(key),
            }));
        }
    }
}

/// A lane that is to be run. One that never is (there was no thread for it) says so to everybody
/// who waits in it when it is dropped, so that no lane is ever blocked.
struct LaneRun {
    engine: Engine,
    key: Option<LaneKey>,
}

impl LaneRun {
    /// Works a lane off. The lane exists as long as somebody works on it, so a job pushed while
    /// the last one is done is either seen here or finds no lane and starts one.
    fn drain(mut self) {
        while let Some(job) = self.next() {
            self.engine.carry_out(job);
        }
    }

    fn next(&mut self) -> Option<Job> {
        let mut lanes = self.engine.inner.lanes();
        let key = self.key.as_ref()?;
        let job = lanes.waiting.get_mut(key).and_then(VecDeque::pop_front);
        if job.is_none() {
            lanes.waiting.remove(key);
            drop(lanes);
            self.key = None;
        }
        job
    }
}

impl Drop for LaneRun {
    fn drop(&mut self) {
        while let Some(job) = self.next() {
            self.engine.abandon(job);
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("facts", &self.inner.parts.facts)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for EngineParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineParts")
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}
