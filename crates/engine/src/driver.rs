//! The driver of a lane: carries jobs out, one after the other.

use policy::AfterExit;
use registry::{Event, OperationId, Outcome, VeRecord};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::PoisonError;
use ve::{Exit, Setting, Spec, State, VeId};

use crate::admission;
use crate::error::{Failure, FailureKind};
use crate::lanes::{Engine, Job, Notice, TicketSink};
use crate::mechanisms::{Patience, ProgressSink};
use crate::plan::{self, Step, Work};
use crate::request::{StopManner, TemplateRequest, VeRequest};

impl Engine {
    pub(crate) fn carry_out(&self, job: Job) {
        let outcome = match job {
            Job::Create(operation, id) => self.create(operation, id),
            Job::Ve(operation, id, request) => self.ve_request(operation, id, &request),
            Job::Template(operation, request) => self.template_request(operation, &request),
            Job::Exited(id, pid, exit) => self.settle(id, pid, exit),
            Job::Ready(id, pid) => self.note_ready(id, pid),
        };
        if let Err(failure) = outcome {
            // Nobody waits for these any more: the journal itself could not be written.
            tracing::error!("an operation's end could not be recorded: {failure}");
        }
    }

    /// Makes the private area of a VE that was reserved.
    fn create(&self, operation: OperationId, id: VeId) -> Result<(), Failure> {
        let Some(record) = self.registry().ve(id)? else {
            return Ok(());
        };
        let name = record.spec.name.to_string();
        self.inner.mark_running(operation);
        let mut result = Ok(());
        let record = self.work(operation, record, &[Step::AreaCreate], &mut result);
        let record = VeRecord {
            created: true,
            ..record
        };
        let (outcome, event) = match &result {
            Ok(()) => (
                Outcome::Record(&record),
                event("ve-created", Some(id), name, None),
            ),
            Err(failure) => (
                Outcome::Forget(id),
                event(
                    "ve-create-failed",
                    Some(id),
                    name,
                    Some(failure.to_string()),
                ),
            ),
        };
        self.inner
            .end_operation(operation, Some(id), &result, outcome, event)
    }

    fn ve_request(
        &self,
        operation: OperationId,
        id: VeId,
        request: &VeRequest,
    ) -> Result<(), Failure> {
        let Some(before) = self.registry().ve(id)? else {
            let result = Err(Failure::new(
                FailureKind::NotFound,
                format!("VE {id} was deleted"),
            ));
            let event = event("operation-failed", Some(id), id.to_string(), None);
            return self
                .inner
                .end_operation(operation, None, &result, Outcome::Unchanged, event);
        };
        self.inner.mark_running(operation);
        self.inner.show_activity(id, activity(request));
        let (result, after) = match admission::permit(&before, request) {
            Ok(()) => self.requested(operation, &before, request),
            Err(failure) => (Err(failure), before.clone()),
        };
        let result = result.map_err(|failure| named(&before.spec, failure));
        let name = before.spec.name.to_string();
        let (outcome, event) = match &result {
            Ok(()) if matches!(request, VeRequest::Delete { .. }) => (
                Outcome::Forget(id),
                event("ve-deleted", Some(id), name, None),
            ),
            Ok(()) => (
                Outcome::Record(&after),
                event(done_word(request), Some(id), name, None),
            ),
            Err(failure) => (
                if after == before {
                    Outcome::Unchanged
                } else {
                    Outcome::Record(&after)
                },
                event(
                    "operation-failed",
                    Some(id),
                    name,
                    Some(failure.to_string()),
                ),
            ),
        };
        let ended = self
            .inner
            .end_operation(operation, Some(id), &result, outcome, event);
        self.inner.show_activity(id, None);
        ended
    }

    /// Carries out a permitted request; returns how it went, and the record as it is true then.
    fn requested(
        &self,
        operation: OperationId,
        before: &VeRecord,
        request: &VeRequest,
    ) -> (Result<(), Failure>, VeRecord) {
        let plan = match request {
            VeRequest::Start => plan::start(),
            VeRequest::Stop(manner) => plan::stop(patience(*manner)),
            VeRequest::Restart(manner) if before.run.is_some() => plan::restart(patience(*manner)),
            VeRequest::Restart(_) => plan::start(),
            VeRequest::Pause => vec![Step::Freeze],
            VeRequest::Resume => vec![Step::Thaw],
            VeRequest::Delete { .. } => plan::delete(),
            VeRequest::Set { settings, labels } => {
                return match self.changed(before, settings, labels) {
                    Ok((after, plan)) => {
                        let mut result = Ok(());
                        self.work(operation, before.clone(), &plan, &mut result);
                        let record = if result.is_ok() {
                            after
                        } else {
                            before.clone()
                        };
                        (result, record)
                    }
                    Err(failure) => (Err(failure), before.clone()),
                };
            }
        };
        let mut result = Ok(());
        // A frozen init hears no signal, not even one that it is to end on.
        let thaw = before.state == State::Paused && plan.iter().any(|s| matches!(s, Step::End(_)));
        let plan = if thaw {
            [vec![Step::Thaw], plan].concat()
        } else {
            plan
        };
        let after = self.work(operation, before.clone(), &plan, &mut result);
        (result, after)
    }

    fn work(
        &self,
        operation: OperationId,
        record: VeRecord,
        plan: &[Step],
        result: &mut Result<(), Failure>,
    ) -> VeRecord {
        let sink = TicketSink {
            inner: &self.inner,
            operation,
        };
        let cancelled = || sink.cancelled();
        let mut work = Work::new(record, self.inner.parts.mechanisms.as_ref(), &cancelled);
        *result = work.carry_out(plan);
        work.record
    }

    /// The record with other settings, and the steps that make them true.
    fn changed(
        &self,
        before: &VeRecord,
        settings: &[Setting],
        labels: &BTreeMap<String, Option<String>>,
    ) -> Result<(VeRecord, Vec<Step>), Failure> {
        let parts = &self.inner.parts;
        let (id, running) = (before.spec.id, before.run.is_some());
        let mut after = before.clone();
        for setting in settings {
            after.spec.apply(setting);
            if *setting == Setting::AddressAuto {
                after.spec.addresses = self.automatic_addresses(&before.spec)?;
            }
        }
        for (label, value) in labels {
            match value {
                Some(value) => after.spec.labels.insert(label.clone(), value.clone()),
                None => after.spec.labels.remove(label),
            };
        }
        let mut plan = Vec::new();
        if after.spec.limits != before.spec.limits {
            let in_use = parts.mechanisms.in_use(id, running)?;
            let lowered = policy::limits::lowered(&before.spec.limits, &after.spec.limits);
            policy::limits::grant(&lowered, &in_use, parts.facts.processors)?;
            let (old, new) = (before.spec.limits.clone(), after.spec.limits.clone());
            plan.push(Step::Limits { old, new });
        }
        if running && after.spec.addresses != before.spec.addresses {
            let (old, new) = (before.spec.addresses.clone(), after.spec.addresses.clone());
            plan.push(Step::Addresses { old, new });
        }
        // Held before they are used: nobody else is given them while this VE gets them.
        parts.registry.addresses_hold(id, &after.spec.addresses)?;
        Ok((after, plan))
    }

    fn automatic_addresses(&self, spec: &Spec) -> Result<Vec<IpAddr>, Failure> {
        let records = self.registry().ves()?;
        let others = records.iter().filter(|record| record.spec.id != spec.id);
        let taken = others
            .flat_map(|record| record.spec.addresses.iter().copied())
            .collect();
        admission::automatic_addresses(&self.inner.parts.facts, &taken)
    }

    /// Clears up behind an init that ended by itself, and runs it again if it asked for that.
    fn settle(&self, id: VeId, pid: u32, exit: Exit) -> Result<(), Failure> {
        let mechanisms = self.inner.parts.mechanisms.as_ref();
        let known = |record: &VeRecord| record.run.as_ref().is_some_and(|run| run.pid == pid);
        let Some(before) = self.registry().ve(id)?.filter(known) else {
            // A stop or a delete has dealt with it.
            mechanisms.exit_settled(id, pid);
            return Ok(());
        };
        let name = before.spec.name.to_string();
        let again = policy::after_exit(exit) == AfterExit::StartAgain;
        let new = registry::NewOperation {
            kind: if again { "reboot" } else { "settle" },
            ve: Some(id),
            subject: name.clone(),
            request: exit.to_string(),
        };
        let operation = self
            .registry()
            .operation_insert(&new, (self.inner.parts.clock)())?;
        self.inner.open_ticket(operation);
        self.inner.mark_running(operation);
        self.inner
            .show_activity(id, again.then_some(State::Starting));
        let stopped = VeRecord {
            state: State::Stopped,
            run: None,
            ..before
        };
        let mut result = Ok(());
        let plan = if again {
            plan::start()
        } else {
            vec![Step::Clear]
        };
        let mut after = self.work(operation, stopped, &plan, &mut result);
        after.fault = result.as_ref().err().map(ToString::to_string);
        let word = if again && result.is_ok() {
            "ve-rebooted"
        } else {
            "ve-exited"
        };
        let event = event(word, Some(id), name, Some(exit.to_string()));
        let outcome = Outcome::Record(&after);
        let ended = self
            .inner
            .end_operation(operation, Some(id), &result, outcome, event);
        mechanisms.exit_settled(id, pid);
        self.inner.show_activity(id, None);
        ended
    }

    fn note_ready(&self, id: VeId, pid: u32) -> Result<(), Failure> {
        let Some(record) = self.registry().ve(id)? else {
            return Ok(());
        };
        let same = record.run.as_ref().is_some_and(|run| run.pid == pid);
        if record.state != State::Starting || !same {
            return Ok(());
        }
        let name = record.spec.name.to_string();
        self.registry().ve_update(&VeRecord {
            state: State::Running,
            ..record
        })?;
        let mut event = event("ve-ready", Some(id), name, None);
        event.at = (self.inner.parts.clock)();
        event.id = self.registry().event_insert(&event)?;
        (self.inner.parts.publish)(Notice::Ve(id));
        (self.inner.parts.publish)(Notice::Event(event));
        Ok(())
    }

    fn template_request(
        &self,
        operation: OperationId,
        request: &TemplateRequest,
    ) -> Result<(), Failure> {
        self.inner.mark_running(operation);
        let mechanisms = self.inner.parts.mechanisms.as_ref();
        let sink = TicketSink {
            inner: &self.inner,
            operation,
        };
        let name = request.name().clone();
        let result = match request {
            TemplateRequest::Remove { .. } => self.template_remove(&name),
            _ => mechanisms
                .template_work(request, &sink)
                .map_err(Failure::from),
        };
        let word = match (&result, request) {
            (Err(_), _) => "operation-failed",
            (Ok(()), TemplateRequest::Remove { .. }) => "template-removed",
            (Ok(()), TemplateRequest::Verify { .. }) => "template-verified",
            (Ok(()), _) => "template-made",
        };
        let message = result.as_ref().err().map(ToString::to_string);
        let event = event(word, None, name.to_string(), message);
        self.inner
            .end_operation(operation, None, &result, Outcome::Unchanged, event)
    }

    fn template_remove(&self, name: &ve::Name) -> Result<(), Failure> {
        let _gate = self
            .inner
            .templates
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let records = self.registry().ves()?;
        let users: Vec<_> = records
            .iter()
            .filter(|record| record.spec.template == *name)
            .map(|record| record.spec.name.as_str())
            .collect();
        if !users.is_empty() {
            let shown = users.iter().take(5).copied().collect::<Vec<_>>().join(", ");
            let message = format!("template `{name}` is used by {} VEs: {shown}", users.len());
            return Err(
                Failure::new(FailureKind::Conflict, message).with_hint("delete these VEs first")
            );
        }
        Ok(self.inner.parts.mechanisms.template_remove(name)?)
    }
}

fn activity(request: &VeRequest) -> Option<State> {
    match request {
        VeRequest::Start => Some(State::Starting),
        VeRequest::Stop(_) | VeRequest::Restart(_) | VeRequest::Delete { .. } => {
            Some(State::Stopping)
        }
        VeRequest::Pause | VeRequest::Resume | VeRequest::Set { .. } => None,
    }
}

fn done_word(request: &VeRequest) -> &'static str {
    match request {
        VeRequest::Start => "ve-started",
        VeRequest::Stop(_) => "ve-stopped",
        VeRequest::Restart(_) => "ve-restarted",
        VeRequest::Pause => "ve-paused",
        VeRequest::Resume => "ve-resumed",
        VeRequest::Delete { .. } => "ve-deleted",
        VeRequest::Set { .. } => "ve-changed",
    }
}

fn patience(manner: StopManner) -> Patience {
    match manner {
        StopManner::Kill => Patience::None,
        StopManner::Ask { timeout } => Patience::Until(timeout),
    }
}

fn named(spec: &Spec, failure: Failure) -> Failure {
    if failure.message.contains(&format!("`{}`", spec.name)) {
        failure
    } else {
        Failure::about(&spec.name, failure)
    }
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
