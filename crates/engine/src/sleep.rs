//! VEs that sleep on disk, when the node is set right.
//!
//! What the record says of a sleeper is true unless an operation was under way: nothing but the
//! engine wakes it. A suspension whose daemon died goes on by itself, and is waited for.

use registry::{Outcome, VeRecord};
use ve::State;

use crate::driver::{done_word, event};
use crate::error::Failure;
use crate::lanes::Engine;
use crate::plan::{Step, Work};
use crate::recovery::{Found, interrupted_by_crash, interrupted_event};

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
    /// When the registry cannot be used, or the suspension can be ended neither way.
    pub(crate) fn settle_sleep(&self, found: Found) -> Result<Slept, Failure> {
        let mechanisms = self.inner.parts.mechanisms.as_ref();
        let kind = found
            .interrupted
            .as_ref()
            .map(|operation| operation.kind.as_str());
        if found.record.state != State::Checkpointed {
            if kind == Some("suspend") && mechanisms.asleep(&found.record)? {
                return self.fall_asleep(found).map(Slept::Settled);
            }
            return Ok(Slept::Awake(Box::new(found)));
        }
        // Woken, and not recorded; or to be dropped.
        if found.alive.is_some() || kind == Some("stop") {
            mechanisms.discard(found.record.spec.id)?;
            return Ok(Slept::Awake(Box::new(found)));
        }
        if !mechanisms.asleep(&found.record)? {
            return self.lose(found).map(Slept::Settled);
        }
        if found.interrupted.is_none() && !found.record.unclean {
            return Ok(Slept::Settled(None));
        }
        self.sleep_on(found).map(Slept::Settled)
    }

    /// Records a suspension that was done.
    fn fall_asleep(&self, found: Found) -> Result<Option<String>, Failure> {
        let mechanisms = self.inner.parts.mechanisms.as_ref();
        let id = found.record.spec.id;
        if let Some(run) = found
            .ended
            .as_ref()
            .map(|(run, _)| run)
            .or(found.record.run.as_ref())
        {
            mechanisms.exit_settled(id, run.pid);
        }
        let name = found.record.spec.name.clone();
        let record = self.cleared(VeRecord {
            run: None,
            ..found.record
        });
        if let Some(operation) = &found.interrupted {
            let word = event(done_word("suspend"), Some(id), name.to_string(), None);
            let outcome = Outcome::Record(&record);
            self.inner
                .end_operation(operation.id, &Ok(()), outcome, word)?;
        }
        Ok(Some(format!(
            "VE `{name}` is on disk: its suspend was done, and not yet recorded"
        )))
    }

    /// Ends whatever was interrupted on a VE that sleeps on.
    fn sleep_on(&self, found: Found) -> Result<Option<String>, Failure> {
        let name = found.record.spec.name.clone();
        let record = self.cleared(found.record);
        match &found.interrupted {
            Some(operation) => self.inner.end_operation(
                operation.id,
                &Err(interrupted_by_crash()),
                Outcome::Record(&record),
                interrupted_event(operation),
            )?,
            None => self.registry().ve_update(&record)?,
        }
        Ok(Some(format!("VE `{name}` is on disk as before")))
    }

    /// Clears up around a sleeper.
    fn cleared(&self, before: VeRecord) -> VeRecord {
        let mut work = Work::new(before, self.inner.parts.mechanisms.as_ref(), &|| false);
        let cleared = work.carry_out(&[Step::Clear]);
        let failure = cleared.err();
        VeRecord {
            state: State::Checkpointed,
            unclean: failure.is_some(),
            fault: failure.map(|failure| failure.to_string()),
            ..work.record
        }
    }

    /// Records that what was on disk is gone.
    fn lose(&self, found: Found) -> Result<Option<String>, Failure> {
        let name = found.record.spec.name.clone();
        let record = VeRecord {
            state: State::Stopped,
            fault: Some("what was on disk of its processes is gone".to_owned()),
            ..found.record
        };
        match &found.interrupted {
            Some(operation) => self.inner.end_operation(
                operation.id,
                &Err(interrupted_by_crash()),
                Outcome::Record(&record),
                interrupted_event(operation),
            )?,
            None => self.registry().ve_update(&record)?,
        }
        Ok(Some(format!(
            "VE `{name}` is stopped: what was on disk of its processes is gone"
        )))
    }
}
