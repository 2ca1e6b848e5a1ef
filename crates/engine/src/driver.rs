//! The driver of a lane: carries jobs out, one after the other.

use std::panic::{AssertUnwindSafe, catch_unwind};

use registry::{Event, Operation, OperationId, Outcome, Stage, VeRecord};
use ve::{Bytes, Name, State, VeId};

use crate::admission;
use crate::error::{Failure, FailureKind};
use crate::inner::TicketSink;
use crate::lanes::{Engine, Job, LaneKey};
use crate::mechanisms::{Patience, ProgressSink};
use crate::plan::{self, Step, Work};
use crate::request::{StopManner, VeRequest};

impl Engine {
    /// Carries a job out. Whatever goes wrong ends with it: the lane goes on, and a VE whose
    /// record may not be true any more is set right before its next operation.
    pub(crate) fn carry_out(&self, job: Job) {
        let (operation, ve) = (job.operation(), job.ve());
        let work = || match job {
            Job::Create(operation, id) => self.create(operation, id),
            Job::Ve(operation, id, name, request) => {
                self.ve_request(operation, id, &name, &request)
            }
            Job::Template(operation, request) => self.template_request(operation, &request),
            Job::Exited(id, pid, exit) => self.settle(id, pid, exit),
            Job::Ready(id, pid) => self.note_ready(id, pid),
            Job::Doubts(id) => self.settle_doubts(id),
        };
        let outcome = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
            Err(Failure::new(
                FailureKind::Failed,
                "its driver failed inside",
            ))
        });
        if let Err(failure) = outcome {
            // Nobody waits for this: the journal itself could not be written.
            tracing::error!("an operation's end could not be recorded: {failure}");
            if let Some(id) = ve {
                self.inner.doubt(id);
            }
            if let Some(operation) = operation {
                self.inner.close_ticket(operation);
            }
        } else {
            // The journal can be written, so what it could not take before is tried again.
            for id in self.inner.doubts() {
                self.push(LaneKey::Ve(id), Job::Doubts(id));
            }
        }
        if let Some(id) = ve {
            self.inner.show_activity(id, None);
        }
    }

    /// Ends a job that nobody can carry out, as if it had failed before its first step.
    pub(crate) fn abandon(&self, job: Job) {
        let failure = Failure::new(
            FailureKind::Resources,
            "the node has no thread to carry it out",
        )
        .with_hint("try again when it does less");
        let ve = job.ve();
        let ended = match job {
            Job::Create(operation, id) => {
                let event = event("ve-create-failed", Some(id), id.to_string(), None);
                self.inner
                    .end_operation(operation, &Err(failure), Outcome::Forget(id), event)
            }
            Job::Ve(operation, id, name, _) => {
                let event = event("operation-failed", Some(id), name.to_string(), None);
                self.inner
                    .end_operation(operation, &Err(failure), Outcome::Unchanged, event)
            }
            Job::Template(operation, request) => {
                let subject = request.subject();
                let event = event("operation-failed", None, subject, None);
                self.inner
                    .end_operation(operation, &Err(failure), Outcome::Unchanged, event)
            }
            Job::Exited(..) | Job::Ready(..) | Job::Doubts(_) => Err(failure),
        };
        if let (Err(_), Some(id)) = (ended, ve) {
            self.inner.doubt(id);
        }
    }

    /// Makes the private area of a VE that was reserved.
    fn create(&self, operation: OperationId, id: VeId) -> Result<(), Failure> {
        let Some(record) = self.registry().ve(id)? else {
            return self.end_missing(operation, id, &id.to_string());
        };
        let name = record.spec.name.clone();
        self.inner.mark_running(operation);
        let (result, mut record) = self.make(operation, record);
        let result = result.map_err(|failure| named(&name, failure));
        let event = match &result {
            Ok(()) => event("ve-created", Some(id), name.to_string(), None),
            Err(failure) => failed("ve-create-failed", id, &name, failure),
        };
        let outcome = match &result {
            Ok(()) => {
                record.stage = Stage::Whole;
                Outcome::Record(&record)
            }
            Err(failure) if record.unclean => {
                record = half_removed(record, failure);
                Outcome::Record(&record)
            }
            Err(_) => Outcome::Forget(id),
        };
        self.inner.end_operation(operation, &result, outcome, event)
    }

    /// Makes what a VE shares with others, if nobody did before, and then what is its own.
    fn make(&self, operation: OperationId, record: VeRecord) -> (Result<(), Failure>, VeRecord) {
        match self.stack_ensure(operation, &record.spec.stack()) {
            Err(failure) => (Err(failure), record),
            Ok(template_version) => {
                let spec = ve::Spec {
                    template_version,
                    ..record.spec
                };
                let record = VeRecord { spec, ..record };
                self.work(operation, record, &[Step::AreaCreate])
            }
        }
    }

    fn ve_request(
        &self,
        operation: OperationId,
        id: VeId,
        name: &Name,
        request: &VeRequest,
    ) -> Result<(), Failure> {
        let settled = self.settle_doubts(id);
        let same = |r: &VeRecord| !r.stage.is_hidden() && r.spec.name == *name;
        let Some(before) = self.registry().ve(id)?.filter(same) else {
            return self.end_missing(operation, id, name.as_str());
        };
        let memory_before = before.spec.limits.memory_now();
        self.inner.mark_running(operation);
        let allowed = self.allowed(operation, &before, request, settled);
        let allowed = allowed.and_then(|()| self.promise_to_run(&before, request));
        let (result, after) = match allowed {
            Ok(()) => {
                self.inner
                    .show_activity(id, activity(request, before.state));
                self.requested(operation, &before, request)?
            }
            Err(failure) => (Err(failure), before),
        };
        let result = result.map_err(|failure| named(name, failure));
        let event = match &result {
            Ok(()) => done(request, &memory_before, &after),
            Err(failure) => failed("operation-failed", id, name, failure),
        };
        let outcome = if result.is_ok() && matches!(request, VeRequest::Delete { .. }) {
            self.inner.forget_restarts(id);
            Outcome::Forget(id)
        } else {
            Outcome::Record(&after)
        };
        let inner = &self.inner;
        let ended = match request {
            VeRequest::Grow { .. } => inner.end_unwaited(operation, &result, outcome, event),
            _ => inner.end_operation(operation, &result, outcome, event),
        };
        match request {
            VeRequest::Applications { .. } | VeRequest::Update(_)
                if ended.is_ok() && !after.unclean =>
            {
                self.lower_settled(&after);
            }
            VeRequest::Applications { .. } | VeRequest::Update(_) => {
                self.inner.stack_hold(id, None);
            }
            VeRequest::Delete { .. } => self.stacks_collect(),
            _ => {}
        }
        ended
    }

    /// Whether a request whose turn has come can be carried out. What could not be set right is in
    /// the way of everything but a deletion, which does not care how the VE is.
    fn allowed(
        &self,
        operation: OperationId,
        before: &VeRecord,
        request: &VeRequest,
        settled: Result<(), Failure>,
    ) -> Result<(), Failure> {
        let sink = TicketSink {
            inner: &self.inner,
            operation,
        };
        if sink.cancelled() {
            return Err(plan::cancelled().into());
        }
        if !matches!(request, VeRequest::Delete { .. }) {
            settled?;
        }
        admission::permit(before, request)
    }

    /// Promises a VE that is to run by this request what it is guaranteed.
    fn promise_to_run(&self, before: &VeRecord, request: &VeRequest) -> Result<(), Failure> {
        let runs = before.run.is_some();
        match request {
            VeRequest::Start | VeRequest::Restart(_) | VeRequest::Resume if !runs => {
                self.inner.promise(before.spec.id, &before.spec.limits)
            }
            _ => Ok(()),
        }
    }

    /// Carries out a permitted request; returns how it went, and the record as it is true then.
    ///
    /// # Errors
    /// When what has to be in the journal first could not be written; nothing was done then.
    fn requested(
        &self,
        operation: OperationId,
        before: &VeRecord,
        request: &VeRequest,
    ) -> Result<(Result<(), Failure>, VeRecord), Failure> {
        let plan = match request {
            VeRequest::Start => plan::start(),
            VeRequest::Stop(_) if before.state == State::Checkpointed => {
                vec![Step::Discard, Step::Clear]
            }
            VeRequest::Stop(manner) => plan::stop(patience(*manner)),
            VeRequest::Restart(manner) if before.run.is_some() => plan::restart(patience(*manner)),
            VeRequest::Restart(_) => plan::start(),
            VeRequest::Pause => vec![Step::Freeze],
            VeRequest::Suspend => plan::suspend(),
            VeRequest::Resume if before.state == State::Checkpointed => plan::wake(),
            VeRequest::Resume => vec![Step::Thaw],
            VeRequest::Compact => vec![Step::Compact],
            VeRequest::Delete { .. } => {
                // From here on a crash leads to its end, never to half a VE.
                self.registry().ve_update(&VeRecord {
                    stage: Stage::Removing,
                    ..before.clone()
                })?;
                plan::delete()
            }
            VeRequest::Grow { given, .. } => return Ok(self.grow(operation, before, *given)),
            VeRequest::Applications { add, remove } => {
                return Ok(self.applications_change(operation, before, add, remove));
            }
            VeRequest::Update(update) => return Ok(self.update(operation, before, update)),
            VeRequest::Set { settings, labels } => {
                return Ok(self.change(operation, before, settings, labels));
            }
        };
        // A frozen init hears no signal, not even one that it is to end on.
        let thaw = before.state == State::Paused && plan.iter().any(|s| matches!(s, Step::End(_)));
        let asleep = before.state == State::Checkpointed && plan.contains(&Step::AreaRemove);
        let first = match (thaw, asleep) {
            (true, _) => vec![Step::Thaw],
            (_, true) => vec![Step::Discard],
            _ => Vec::new(),
        };
        let plan = [first, plan].concat();
        let (result, mut after) = self.work(operation, before.clone(), &plan);
        if let Err(failure) = &result {
            if after.stage == Stage::Removing {
                after = half_removed(after, failure);
            } else if before.run.is_some() && after.run.is_none() {
                after.fault = Some(failure.to_string());
            }
        }
        Ok((result, after))
    }

    pub(crate) fn work(
        &self,
        operation: OperationId,
        record: VeRecord,
        plan: &[Step],
    ) -> (Result<(), Failure>, VeRecord) {
        let sink = TicketSink {
            inner: &self.inner,
            operation,
        };
        let mut work = Work::new(record, self.inner.parts.mechanisms.as_ref(), &sink);
        let result = work.carry_out(plan);
        (result, work.record)
    }

    /// Ends an operation on a VE that was deleted while it waited.
    fn end_missing(&self, operation: OperationId, id: VeId, name: &str) -> Result<(), Failure> {
        let failure = Failure::no_such_ve(name);
        let message = Some(failure.to_string());
        let event = event("operation-failed", Some(id), name.to_owned(), message);
        self.inner
            .end_operation(operation, &Err(failure), Outcome::Unchanged, event)
    }
}

/// The record of a VE whose removal failed: shown as broken, to be deleted again by whoever sees
/// it, or by the node at its next start.
pub(crate) fn half_removed(record: VeRecord, failure: &Failure) -> VeRecord {
    VeRecord {
        stage: Stage::Removing,
        state: State::Broken,
        unclean: false,
        fault: Some(format!("it could not be removed wholly: {failure}")),
        ..record
    }
}

/// What a VE is shown as while a request is carried out on it.
fn activity(request: &VeRequest, before: State) -> Option<State> {
    match request {
        VeRequest::Start => Some(State::Starting),
        VeRequest::Resume if before == State::Checkpointed => Some(State::Starting),
        // It stands still, and nobody may come in: he would be lost.
        VeRequest::Suspend => Some(State::Paused),
        VeRequest::Stop(_) | VeRequest::Restart(_) | VeRequest::Delete { .. } => {
            Some(State::Stopping)
        }
        VeRequest::Pause
        | VeRequest::Resume
        | VeRequest::Compact
        | VeRequest::Applications { .. }
        | VeRequest::Grow { .. }
        | VeRequest::Update(_)
        | VeRequest::Set { .. } => None,
    }
}

/// The event of a request that was carried out.
fn done(request: &VeRequest, memory_before: &Option<Bytes>, after: &VeRecord) -> Event {
    let (id, name) = (after.spec.id, after.spec.name.to_string());
    let VeRequest::Grow { cause, .. } = request else {
        return event(done_word(request.kind()), Some(id), name, None);
    };
    let memory = after.spec.limits.memory_now();
    let word = match memory > *memory_before {
        true => "ve-memory-given",
        false => "ve-memory-given-back",
    };
    let shown = |memory: Option<Bytes>| memory.map_or("no limit".to_owned(), |it| it.to_string());
    let message = format!("{} -> {}: {cause}", shown(*memory_before), shown(memory));
    event(word, Some(id), name, Some(message))
}

/// The word for the event that a successful operation of this kind leaves.
pub(crate) fn done_word(kind: &str) -> &'static str {
    match kind {
        "start" => "ve-started",
        "stop" => "ve-stopped",
        "restart" => "ve-restarted",
        "reboot" => "ve-rebooted",
        "settle" => "ve-exited",
        "pause" => "ve-paused",
        "suspend" => "ve-suspended",
        "resume" => "ve-resumed",
        "compact" => "ve-compacted",
        "update" => "ve-updated",
        "delete" => "ve-deleted",
        _ => "ve-changed",
    }
}

fn patience(manner: StopManner) -> Patience {
    match manner {
        StopManner::Kill => Patience::None,
        StopManner::Ask { timeout } => Patience::Until(timeout),
    }
}

fn named(name: &Name, failure: Failure) -> Failure {
    if failure.message.contains(&format!("`{name}`")) {
        failure
    } else {
        Failure::about(name, failure)
    }
}

/// The event of a failure.
pub(crate) fn failed(kind: &str, id: VeId, name: &Name, failure: &Failure) -> Event {
    let message = Some(failure.to_string());
    event(kind, Some(id), name.to_string(), message)
}

pub(crate) fn event(
    kind: &str,
    ve: Option<VeId>,
    subject: String,
    message: Option<String>,
) -> Event {
    Event {
        id: 0,
        at: 0,
        kind: kind.to_owned(),
        ve: ve.map(VeId::get),
        subject,
        message,
    }
}

/// The event of an operation that was under way when the daemon died.
pub(crate) fn interrupted_event(operation: &Operation) -> Event {
    let id = operation.ve.and_then(|number| VeId::new(number).ok());
    let message = format!(
        "{} was interrupted by the end of the daemon",
        operation.kind
    );
    event(
        "operation-interrupted",
        id,
        operation.subject.clone(),
        Some(message),
    )
}

/// How such an operation ended.
pub(crate) fn interrupted_by_crash() -> Failure {
    Failure::new(
        FailureKind::Failed,
        "it was interrupted by the end of the daemon",
    )
    .with_hint("ask again")
}
