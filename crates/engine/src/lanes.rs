//! The engine's front: taking requests, and one lane of work per VE and per template.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use registry::{Event, NewOperation, OperationId, OperationState, Outcome, Registry, VeRecord};
use ve::{Exit, Name, State, VeId};

use crate::admission::{self, AdmissionError};
use crate::error::{Failure, FailureKind};
use crate::mechanisms::{Mechanisms, Progress, ProgressSink};
use crate::request::{CreateRequest, NodeFacts, Request, TemplateRequest, VeRequest};

/// Most work that may wait in one lane. Who asks for more is told to wait.
const LANE_LENGTH_MAX: usize = 32;

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

/// An operation that has not ended, in memory.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// Whether its steps are being carried out.
    pub running: bool,
    /// How far it is.
    pub progress: Option<Progress>,
    cancelled: Arc<AtomicBool>,
}

/// The engine of one node. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) parts: EngineParts,
    lanes: Mutex<HashMap<LaneKey, Lane>>,
    tickets: Mutex<BTreeMap<OperationId, Ticket>>,
    /// What VEs are doing while an operation is at work on them; the record says what they did.
    activities: Mutex<HashMap<VeId, State>>,
    /// Held while a template is looked up and a VE of it recorded, and while one is removed.
    pub(crate) templates: Mutex<()>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LaneKey {
    Ve(VeId),
    Template(Name),
}

#[derive(Default)]
struct Lane {
    waiting: VecDeque<Job>,
}

/// A piece of work in a lane.
pub(crate) enum Job {
    /// Finish a VE that was reserved.
    Create(OperationId, VeId),
    /// A request about a VE.
    Ve(OperationId, VeId, VeRequest),
    /// A request about a template.
    Template(OperationId, TemplateRequest),
    /// An init ended. Another may run by the time this is dealt with.
    Exited(VeId, u32, Exit),
    /// An init is ready.
    Ready(VeId, u32),
}

impl Engine {
    /// Puts an engine together. It does nothing until [`Engine::recover`] has run.
    #[must_use]
    pub fn new(parts: EngineParts) -> Self {
        Self {
            inner: Arc::new(Inner {
                parts,
                lanes: Mutex::default(),
                tickets: Mutex::default(),
                activities: Mutex::default(),
                templates: Mutex::default(),
            }),
        }
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
        self.push(LaneKey::Ve(id), Job::Exited(id, pid, exit));
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
        let created = records.into_iter().filter(|record| record.created);
        Ok(created.map(|record| self.inner.as_seen(record)).collect())
    }

    fn submit_create(&self, request: &CreateRequest) -> Result<Submitted, Failure> {
        let parts = &self.inner.parts;
        admission::check_addresses(parts.mechanisms.as_ref(), &request.settings)?;
        let _gate = self
            .inner
            .templates
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let version = parts.mechanisms.template_version(&request.template)?.ok_or_else(|| {
            Failure::new(
                FailureKind::NotFound,
                format!("there is no template `{}`", request.template),
            )
            .with_hint("`vessel template list` shows those of this node; `vessel template build debian-12` makes one")
        })?;
        let now = (parts.clock)();
        let (spec, operation) = parts
            .registry
            .create_reserve(&request.first_boot, now, |ids, addresses| {
                let taken = (ids, addresses);
                admission::specification(request, &version, &parts.facts, now, taken)
            })
            .map_err(|AdmissionError(failure)| failure)?;
        self.inner.open_ticket(operation);
        self.push(LaneKey::Ve(spec.id), Job::Create(operation, spec.id));
        Ok(Submitted {
            operation,
            ve: Some(spec.id),
            subject: spec.name.to_string(),
        })
    }

    fn submit_ve(&self, reference: &str, request: VeRequest) -> Result<Submitted, Failure> {
        let record = self.find(reference)?;
        let (id, name) = (record.spec.id, record.spec.name.clone());
        let key = LaneKey::Ve(id);
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
        if let VeRequest::Set { settings, .. } = &request {
            admission::check_addresses(self.inner.parts.mechanisms.as_ref(), settings)?;
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
        self.push(key, Job::Ve(operation, id, request));
        Ok(Submitted {
            operation,
            ve: Some(id),
            subject: name.to_string(),
        })
    }

    fn submit_template(&self, request: TemplateRequest) -> Result<Submitted, Failure> {
        let name = request.name().clone();
        let exists = self
            .inner
            .parts
            .mechanisms
            .template_version(&name)?
            .is_some();
        match &request {
            TemplateRequest::Remove { .. } | TemplateRequest::Verify { .. } if !exists => {
                return Err(Failure::new(
                    FailureKind::NotFound,
                    format!("there is no template `{name}`"),
                )
                .with_hint("`vessel template list` shows those of this node"));
            }
            TemplateRequest::Build { .. } | TemplateRequest::Import { .. } if exists => {
                return Err(Failure::new(
                    FailureKind::Conflict,
                    format!("there is a template `{name}` already"),
                )
                .with_hint("give this one another name with `--name`"));
            }
            _ => {}
        }
        let new = NewOperation {
            kind: request.kind(),
            ve: None,
            subject: name.to_string(),
            request: format!("{request:?}"),
        };
        let operation = self
            .registry()
            .operation_insert(&new, (self.inner.parts.clock)())?;
        self.inner.open_ticket(operation);
        self.push(
            LaneKey::Template(name.clone()),
            Job::Template(operation, request),
        );
        Ok(Submitted {
            operation,
            ve: None,
            subject: name.to_string(),
        })
    }

    /// Adds work to a lane, and runs the lane if nobody does.
    pub(crate) fn push(&self, key: LaneKey, job: Job) {
        let mut lanes = self.inner.lanes();
        if let Some(lane) = lanes.get_mut(&key) {
            lane.waiting.push_back(job);
            return;
        }
        lanes.insert(
            key.clone(),
            Lane {
                waiting: VecDeque::from([job]),
            },
        );
        drop(lanes);
        let engine = self.clone();
        (self.inner.parts.run_lane)(Box::new(move || engine.drain(&key)));
    }

    /// Works a lane off. The lane exists as long as somebody works on it, so a job pushed while
    /// the last one is done is either seen here or finds no lane and starts one.
    fn drain(&self, key: &LaneKey) {
        loop {
            let job = {
                let mut lanes = self.inner.lanes();
                let next = lanes.get_mut(key).and_then(|lane| lane.waiting.pop_front());
                match next {
                    Some(job) => job,
                    None => {
                        lanes.remove(key);
                        return;
                    }
                }
            };
            self.carry_out(job);
        }
    }
}

impl Inner {
    fn lanes(&self) -> MutexGuard<'_, HashMap<LaneKey, Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tickets(&self) -> MutexGuard<'_, BTreeMap<OperationId, Ticket>> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn activities(&self) -> MutexGuard<'_, HashMap<VeId, State>> {
        self.activities
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// How much waits in a lane, with what is being done.
    fn lane_length(&self, key: &LaneKey) -> usize {
        self.lanes()
            .get(key)
            .map_or(0, |lane| lane.waiting.len() + 1)
    }

    fn as_seen(&self, mut record: VeRecord) -> VeRecord {
        if let Some(state) = self.activities().get(&record.spec.id) {
            record.state = *state;
        }
        record
    }

    /// Shows what an operation is doing to a VE, until it is taken away again.
    pub(crate) fn show_activity(&self, id: VeId, state: Option<State>) {
        match state {
            Some(state) => self.activities().insert(id, state),
            None => self.activities().remove(&id),
        };
        (self.parts.publish)(Notice::Ve(id));
    }

    pub(crate) fn open_ticket(&self, operation: OperationId) {
        let ticket = Ticket {
            running: false,
            progress: None,
            cancelled: Arc::default(),
        };
        self.tickets().insert(operation, ticket);
        (self.parts.publish)(Notice::Operation(operation));
    }

    pub(crate) fn mark_running(&self, operation: OperationId) {
        if let Some(ticket) = self.tickets().get_mut(&operation) {
            ticket.running = true;
        }
        (self.parts.publish)(Notice::Operation(operation));
    }

    /// Ends an operation: journal, record and event in one transaction, then whoever waits hears.
    ///
    /// A registry that cannot be written leaves the operation open; the node finds it at its next
    /// start and sets the VE right.
    pub(crate) fn end_operation(
        &self,
        operation: OperationId,
        ve: Option<VeId>,
        result: &Result<(), Failure>,
        outcome: Outcome<'_>,
        mut event: Event,
    ) -> Result<(), Failure> {
        event.at = (self.parts.clock)();
        let (state, failure) = match result {
            Ok(()) => (OperationState::Done, None),
            Err(failure) if failure.kind == FailureKind::Cancelled => {
                (OperationState::Cancelled, Some(failure))
            }
            Err(failure) => (OperationState::Failed, Some(failure)),
        };
        let text = failure.map(stored_message);
        let words = failure
            .zip(text.as_deref())
            .map(|(f, text)| (f.kind.as_str(), text));
        let ended = self
            .parts
            .registry
            .operation_end(operation, state, words, outcome, &event);
        self.tickets().remove(&operation);
        (self.parts.publish)(Notice::Operation(operation));
        if let Some(id) = ve {
            (self.parts.publish)(Notice::Ve(id));
        }
        event.id = ended?;
        (self.parts.publish)(Notice::Event(event));
        Ok(())
    }
}

/// A failure as one text for the journal: the hint in a line of its own.
fn stored_message(failure: &Failure) -> String {
    match &failure.hint {
        Some(hint) => format!("{}\n{hint}", failure.message),
        None => failure.message.clone(),
    }
}

impl Failure {
    /// The failure that a journalled operation ended with.
    #[must_use]
    pub fn from_journal(code: &str, text: &str) -> Self {
        let (message, hint) = text
            .split_once('\n')
            .map_or((text, None), |(m, h)| (m, Some(h)));
        Self {
            kind: FailureKind::from_word(code),
            message: message.to_owned(),
            hint: hint.map(str::to_owned),
        }
    }
}

/// Progress and cancellation of one operation.
pub(crate) struct TicketSink<'a> {
    pub(crate) inner: &'a Inner,
    pub(crate) operation: OperationId,
}

impl ProgressSink for TicketSink<'_> {
    fn report(&self, progress: Progress) {
        if let Some(ticket) = self.inner.tickets().get_mut(&self.operation) {
            ticket.progress = Some(progress);
        }
        (self.inner.parts.publish)(Notice::Operation(self.operation));
    }

    fn cancelled(&self) -> bool {
        let tickets = self.inner.tickets();
        tickets
            .get(&self.operation)
            .is_some_and(|ticket| ticket.cancelled.load(Ordering::Relaxed))
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
