//! What VEs do by themselves: an init that becomes ready, and one that ends.

use policy::{AfterExit, RESTARTS_MAX, RESTARTS_SECONDS};
use registry::{NewOperation, OperationId, Outcome, VeRecord};
use ve::{Exit, State, VeId};

use crate::driver::event;
use crate::error::Failure;
use crate::lanes::Engine;
use crate::plan::{self, Step};

impl Engine {
    /// Clears up behind an init that ended by itself, and runs it again if it asked for that.
    pub(crate) fn settle(&self, id: VeId, pid: u32, exit: Exit) -> Result<(), Failure> {
        // What cannot be set right stays in doubt, and is tried again before the next operation.
        let settled = self.settle_doubts(id);
        let known = |record: &VeRecord| record.run.as_ref().is_some_and(|run| run.pid == pid);
        if let Some(record) = self.registry().ve(id)?.filter(known) {
            settled?;
            let now = (self.inner.parts.clock)();
            let restarts = self.inner.restarts_before(id, now);
            let next = policy::after_exit(exit, restarts);
            let operation = self.journal_exit(&record, exit, next)?;
            self.after_exit(operation, record, exit, next, &after_exit_plan(next))?;
            match next {
                AfterExit::StartAgain => self.inner.note_restart(id, now),
                AfterExit::StayStopped | AfterExit::GiveUp => self.inner.forget_restarts(id),
            }
        }
        // Here, or by a stop or a delete, it was dealt with.
        self.inner.parts.mechanisms.exit_settled(id, pid);
        Ok(())
    }

    /// Journals the operation that follows the end of an init.
    pub(crate) fn journal_exit(
        &self,
        record: &VeRecord,
        exit: Exit,
        next: AfterExit,
    ) -> Result<OperationId, Failure> {
        let again = next == AfterExit::StartAgain;
        let new = NewOperation {
            kind: if again { "reboot" } else { "settle" },
            ve: Some(record.spec.id),
            subject: record.spec.name.to_string(),
            request: exit.to_string(),
        };
        let now = (self.inner.parts.clock)();
        let operation = self.registry().operation_insert(&new, now)?;
        self.inner.open_ticket(operation);
        Ok(operation)
    }

    /// Carries out what follows the end of an init, and ends the operation that it belongs to.
    /// Returns the record that is left.
    pub(crate) fn after_exit(
        &self,
        operation: OperationId,
        before: VeRecord,
        exit: Exit,
        next: AfterExit,
        plan: &[Step],
    ) -> Result<VeRecord, Failure> {
        let again = next == AfterExit::StartAgain;
        let (id, name) = (before.spec.id, before.spec.name.to_string());
        self.inner.mark_running(operation);
        self.inner
            .show_activity(id, again.then_some(State::Starting));
        let mut stopped = VeRecord {
            state: State::Stopped,
            run: None,
            unclean: false,
            ..before
        };
        // Its next init begins with what its administrator gave it.
        stopped.spec.limits.memory_growth.given = None;
        let (result, mut after) = self.work(operation, stopped, plan);
        after.fault = result.as_ref().err().map(ToString::to_string);
        let given_up = (next == AfterExit::GiveUp).then(given_up);
        after.fault = after.fault.or_else(|| given_up.clone());
        let word = match (next, &result) {
            (AfterExit::StartAgain, Ok(())) => "ve-rebooted",
            (AfterExit::GiveUp, _) => "ve-given-up",
            _ => "ve-exited",
        };
        let message = given_up.unwrap_or_else(|| exit.to_string());
        let event = event(word, Some(id), name, Some(message));
        let ended = self
            .inner
            .end_operation(operation, &result, Outcome::Record(&after), event);
        self.inner.show_activity(id, None);
        ended.map(|()| after)
    }

    /// Notes that an init is ready.
    pub(crate) fn note_ready(&self, id: VeId, pid: u32) -> Result<(), Failure> {
        let Some(record) = self.registry().ve(id)? else {
            return Ok(());
        };
        let same = record.run.as_ref().is_some_and(|run| run.pid == pid);
        if record.state != State::Starting || !same {
            return Ok(());
        }
        let event = event("ve-ready", Some(id), record.spec.name.to_string(), None);
        let ready = VeRecord {
            state: State::Running,
            ..record
        };
        self.inner.tell(Outcome::Record(&ready), event)
    }
}

/// The steps behind the end of an init.
pub(crate) fn after_exit_plan(next: AfterExit) -> Vec<Step> {
    match next {
        AfterExit::StartAgain => plan::start(),
        AfterExit::StayStopped | AfterExit::GiveUp => vec![Step::Clear],
    }
}

/// Why a VE that asked for a restart is left stopped.
fn given_up() -> String {
    format!(
        "it asked for a restart {RESTARTS_MAX} times within {RESTARTS_SECONDS} s, and once more; \
         see `vessel logs`, and start it when that is mended"
    )
}
