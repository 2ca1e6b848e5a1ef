//! VEs that sleep on disk, when the node is set right.
//!
//! What the record says of a sleeper is true unless an operation was under way: nothing but the
//! engine wakes it. A suspension whose daemon died goes on by itself, and is waited for. What is on
//! disk can be woken once: from then on the VE changes its files, and they would not fit any more.

use registry::{Operation, Outcome, VeRecord};
use ve::State;

use crate::driver::{done_word, event, interrupted_by_crash, interrupted_event};
use crate::error::Failure;
use crate::lanes::Engine;
use crate::mechanisms::{Fault, Nobody, Patience};
use crate::plan::{LOST, Step, Work};
use crate::recovery::{Found, restore_limits};

/// What became of a VE that may sleep.
pub(crate) enum Slept {
    /// It does, and is set right; what is told about that.
    Settled(Option<String>),
    /// It does not, or is to be set right as any other.
    Awake(Box<Found>),
}

impl Engine {
    /// Sets a VE right that sleeps, or that was put to sleep when the daemon died.
    ///
    /// # Errors
    /// When the registry cannot be used.
    pub(crate) fn settle_sleep(&self, mut found: Found) -> Result<Slept, Failure> {
        let mechanisms = self.inner.parts.mechanisms.as_ref();
        let kind = found.interrupted.as_ref().map(|o| o.kind.as_str());
        if found.record.state != State::Checkpointed {
            let doubted = found.record.unclean || self.inner.doubted(found.record.spec.id);
            let suspended = kind == Some("suspend") || (doubted && found.record.run.is_some());
            if !suspended {
                return Ok(Slept::Awake(Box::new(found)));
            }
            return match mechanisms.asleep(&found.record) {
                Ok(true) => self.fall_asleep(found).map(Slept::Settled),
                Ok(false) => Ok(Slept::Awake(Box::new(found))),
                Err(fault) => self.leave_unclean(found, &fault).map(Slept::Settled),
            };
        }
        match mechanisms.asleep(&found.record) {
            Err(fault) => self.leave_unclean(found, &fault).map(Slept::Settled),
            Ok(true)
                if found.interrupted.is_none()
                    && found.alive.is_none()
                    && !found.record.unclean =>
            {
                Ok(Slept::Settled(None))
            }
            // Processes that a waking has made, and that never ran, end.
            Ok(true) => self.sleep_on(found).map(Slept::Settled),
            Ok(false) if found.alive.is_some() => {
                // Woken, and not recorded. What stays on disk is of no use, and swept some day.
                let _ = mechanisms.discard(found.record.spec.id);
                Ok(Slept::Awake(Box::new(found)))
            }
            Ok(false) => match &found.ended {
                Some((run, _)) if kind == Some("resume") => {
                    // Woken, and ended again by itself: what follows is as after any end.
                    found.record.run = Some(run.clone());
                    found.record.state = State::Running;
                    Ok(Slept::Awake(Box::new(found)))
                }
                _ => self.lose(found).map(Slept::Settled),
            },
        }
    }

    /// Records a suspension that was done.
    fn fall_asleep(&self, found: Found) -> Result<Option<String>, Failure> {
        let ended = found.ended.as_ref().map(|(run, _)| run);
        if let Some(run) = ended.or(found.record.run.as_ref()) {
            let mechanisms = &self.inner.parts.mechanisms;
            mechanisms.exit_settled(found.record.spec.id, run.pid);
        }
        let record = self.cleared(VeRecord {
            run: None,
            ..found.record
        });
        let name = record.spec.name.clone();
        let done = |operation: &Operation| operation.kind == "suspend";
        self.end_settled(&record, found.interrupted.as_ref(), done)?;
        Ok(Some(format!(
            "VE `{name}` is on disk: its suspend was done, and not yet recorded"
        )))
    }

    /// Ends whatever was interrupted on a VE that sleeps on.
    fn sleep_on(&self, found: Found) -> Result<Option<String>, Failure> {
        let record = self.cleared(found.record);
        let name = record.spec.name.clone();
        self.end_settled(&record, found.interrupted.as_ref(), |_| false)?;
        Ok(Some(format!("VE `{name}` is on disk as before")))
    }

    /// Clears up around a sleeper: no process of it runs, and its limits are as recorded.
    fn cleared(&self, before: VeRecord) -> VeRecord {
        let limits = restore_limits(&before);
        let mut work = Work::new(before, self.inner.parts.mechanisms.as_ref(), &Nobody);
        let cleared = work.carry_out(&[Step::End(Patience::None), Step::Clear, limits]);
        let failure = cleared.err();
        VeRecord {
            state: State::Checkpointed,
            unclean: failure.is_some(),
            fault: failure.map(|failure| failure.to_string()),
            ..work.record
        }
    }

    /// Records that what was on disk is gone, or of no use.
    fn lose(&self, found: Found) -> Result<Option<String>, Failure> {
        let dropped = |operation: &Operation| operation.kind == "stop";
        let asked = found.interrupted.as_ref().is_some_and(dropped);
        let cleared = self.cleared(found.record);
        let mut record = VeRecord {
            state: State::Stopped,
            fault: cleared.fault.or_else(|| (!asked).then(|| LOST.to_owned())),
            ..cleared
        };
        record.spec.limits.memory_growth.given = None;
        let name = record.spec.name.clone();
        self.end_settled(&record, found.interrupted.as_ref(), dropped)?;
        Ok(Some(format!("VE `{name}` is stopped: {LOST}")))
    }

    /// Leaves what cannot be settled now for the next operation, or the next start of the node.
    pub(crate) fn leave_unclean(
        &self,
        found: Found,
        fault: &Fault,
    ) -> Result<Option<String>, Failure> {
        let record = VeRecord {
            unclean: true,
            fault: Some(fault.message.clone()),
            ..found.record
        };
        self.end_settled(&record, found.interrupted.as_ref(), |_| false)?;
        let name = &record.spec.name;
        let message = &fault.message;
        Ok(Some(format!(
            "VE `{name}` could not be set right: {message}"
        )))
    }

    /// Writes down what is true of a VE now, and how the operation ended that was under way on it.
    fn end_settled(
        &self,
        record: &VeRecord,
        interrupted: Option<&Operation>,
        done: impl Fn(&Operation) -> bool,
    ) -> Result<(), Failure> {
        let outcome = Outcome::Record(record);
        match interrupted {
            None => Ok(self.registry().ve_update(record)?),
            Some(operation) if done(operation) => {
                let (id, name) = (record.spec.id, record.spec.name.to_string());
                let word = event(done_word(&operation.kind), Some(id), name, None);
                self.inner
                    .end_operation(operation.id, &Ok(()), outcome, word)
            }
            Some(operation) => {
                let failed = Err(interrupted_by_crash());
                let word = interrupted_event(operation);
                self.inner
                    .end_operation(operation.id, &failed, outcome, word)
            }
        }
    }
}
