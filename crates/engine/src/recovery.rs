//! After a start of the daemon: what was under way, what still runs, what lies about.
//!
//! The record says what was meant, the launcher and the kernel say what is. A crash of the daemon
//! leaves VEs running; a crash of the node leaves none. Both are set right here, before the first
//! request is taken:
//!
//! 1. Operations that never ended are ended: a creation is undone, a deletion is carried on to its
//!    end, of anything else the VE is left as the kernel has it.
//! 2. Every record is held against what runs: an init that the registry knows is taken over, one
//!    that it does not know is ended, one that ended meanwhile is settled.
//! 3. Whatever belongs to no VE is removed.

use std::collections::BTreeMap;

use registry::{Operation, Outcome, Run, VeRecord};
use ve::{Exit, State, VeId};

use crate::driver::event;
use crate::error::{Failure, FailureKind};
use crate::lanes::{Engine, Job, LaneKey};
use crate::mechanisms::{Patience, Running};
use crate::plan::{self, Work};

impl Engine {
    /// Sets the node right. Returns in words what was found and done.
    ///
    /// # Errors
    /// When the registry cannot be used, or the launcher cannot be asked what runs.
    pub fn recover(&self) -> Result<Vec<String>, Failure> {
        let mechanisms = self.inner.parts.mechanisms.as_ref();
        let mut findings = Vec::new();
        let open = self.registry().operations_open()?;
        let records = self.registry().ves()?;
        let known: BTreeMap<VeId, Run> = records
            .iter()
            .filter_map(|r| Some((r.spec.id, r.run.clone()?)))
            .collect();
        let mut running = mechanisms.running(&known)?;
        let exits = mechanisms.exits()?;

        for record in records {
            let id = record.spec.id;
            let operation = open.iter().rev().find(|o| o.ve == Some(id.get()));
            let alive = running.remove(&id);
            let exit = exits
                .get(&id)
                .filter(|(run, _)| Some(run) == record.run.as_ref());
            if let Some(line) = self.recover_ve(record, operation, alive, exit.map(|e| e.1))? {
                findings.push(line);
            }
        }
        for id in running.into_keys() {
            mechanisms.end(id, None, Patience::None, &|| false)?;
            mechanisms.clear(id)?;
            findings.push(format!(
                "ended the processes of VE {id}, which is not in the registry"
            ));
        }
        for operation in &open {
            self.end_open(operation)?;
        }
        let keep: Vec<_> = self
            .registry()
            .ves()?
            .into_iter()
            .map(|r| r.spec.id)
            .collect();
        findings.extend(mechanisms.sweep(&keep)?);
        Ok(findings)
    }

    /// Starts, in the order that their administrators set, the VEs that start with the node and do
    /// not run. Each wave is over when its starts have ended, or failed.
    pub fn autostart(&self, wait: impl Fn(i64)) {
        let Ok(records) = self.list() else { return };
        for wave in policy::start_waves(records.iter().map(|record| &record.spec)) {
            let stopped = wave.into_iter().filter(|id| {
                records
                    .iter()
                    .any(|r| r.spec.id == *id && r.state == State::Stopped)
            });
            let submitted: Vec<_> = stopped
                .filter_map(|id| {
                    let request = crate::VeRequest::Start;
                    let reference = id.to_string();
                    self.submit(crate::Request::Ve { reference, request }).ok()
                })
                .collect();
            for submitted in submitted {
                wait(submitted.operation);
            }
        }
    }

    fn recover_ve(
        &self,
        record: VeRecord,
        operation: Option<&Operation>,
        alive: Option<Running>,
        exit: Option<Exit>,
    ) -> Result<Option<String>, Failure> {
        let id = record.spec.id;
        let name = record.spec.name.clone();
        if !record.created {
            self.undo_creation(record)?;
            return Ok(Some(format!(
                "undid the creation of VE `{name}`, which was interrupted"
            )));
        }
        if operation.is_some_and(|operation| operation.kind == "delete") {
            self.carry_on_deletion(record)?;
            return Ok(Some(format!("finished the deletion of VE `{name}`")));
        }
        match (&record.run, alive) {
            (Some(run), Some(alive)) if *run == alive.run => {
                self.take_over(record, &alive, operation)?;
                Ok(None)
            }
            (_, Some(alive)) if operation.is_some() => {
                // The launch was done and not yet recorded; nobody was told that it runs.
                let record = VeRecord {
                    run: Some(alive.run.clone()),
                    ..record
                };
                self.take_over(record, &alive, operation)?;
                Ok(Some(format!(
                    "took over VE `{name}`, whose start was interrupted"
                )))
            }
            (_, Some(_)) => {
                let mechanisms = self.inner.parts.mechanisms.as_ref();
                mechanisms.end(id, None, Patience::None, &|| false)?;
                mechanisms.clear(id)?;
                self.note_stopped(record)?;
                Ok(Some(format!(
                    "ended processes of VE `{name}` that the registry knows not"
                )))
            }
            (Some(run), None) => {
                let exit = exit.unwrap_or(Exit::Unknown);
                self.push(LaneKey::Ve(id), Job::Exited(id, run.pid, exit));
                Ok(Some(format!(
                    "VE `{name}` ended while the node was down: {exit}"
                )))
            }
            (None, None) => {
                if operation.is_some() {
                    self.inner.parts.mechanisms.clear(id)?;
                    self.restore_limits(&record, false)?;
                    self.note_stopped(record)?;
                }
                Ok(None)
            }
        }
    }

    /// Takes over an init that runs, as it is: an interrupted stop or pause leaves the VE as far
    /// as it got, and interrupted changes of its limits are taken back to the recorded ones.
    fn take_over(
        &self,
        mut record: VeRecord,
        alive: &Running,
        operation: Option<&Operation>,
    ) -> Result<(), Failure> {
        let id = record.spec.id;
        let frozen = self.inner.parts.mechanisms.frozen(id)?;
        record.state = match (frozen, alive.ready) {
            (true, _) => State::Paused,
            (false, true) => State::Running,
            (false, false) => State::Starting,
        };
        if operation.is_some() {
            self.restore_limits(&record, true)?;
            let held = self.registry().addresses_held(id)?;
            let mechanisms = self.inner.parts.mechanisms.as_ref();
            mechanisms.addresses_apply(id, &held, &record.spec.addresses)?;
        }
        self.registry().ve_update(&record)?;
        Ok(())
    }

    fn restore_limits(&self, record: &VeRecord, running: bool) -> Result<(), Failure> {
        let mechanisms = self.inner.parts.mechanisms.as_ref();
        Ok(mechanisms.limits_apply(record.spec.id, &record.spec.limits, running)?)
    }

    fn note_stopped(&self, record: VeRecord) -> Result<(), Failure> {
        let record = VeRecord {
            run: None,
            state: State::Stopped,
            ..record
        };
        self.registry().ve_update(&record)?;
        Ok(())
    }

    fn undo_creation(&self, record: VeRecord) -> Result<(), Failure> {
        self.inner.parts.mechanisms.area_remove(record.spec.id)?;
        self.forget(&record, "ve-create-undone")
    }

    fn carry_on_deletion(&self, record: VeRecord) -> Result<(), Failure> {
        let mechanisms = self.inner.parts.mechanisms.as_ref();
        let mut work = Work::new(record, mechanisms, &|| false);
        work.carry_out(&plan::delete())?;
        self.forget(&work.record, "ve-deleted")
    }

    /// Forgets a VE together with the end of the operation that was under way on it.
    fn forget(&self, record: &VeRecord, word: &str) -> Result<(), Failure> {
        let id = record.spec.id;
        let open = self.registry().operations_open()?;
        let operation = open.iter().rev().find(|o| o.ve == Some(id.get()));
        let deleted = word == "ve-deleted";
        let result = if deleted { Ok(()) } else { Err(interrupted()) };
        let event = event(word, Some(id), record.spec.name.to_string(), None);
        // An unfinished VE always has its operation: both were written in one transaction.
        let operation = operation.map_or(0, |operation| operation.id);
        self.inner
            .end_operation(operation, Some(id), &result, Outcome::Forget(id), event)
    }

    fn end_open(&self, operation: &Operation) -> Result<(), Failure> {
        let still_open = self.registry().operation(operation.id)?;
        if still_open.is_none_or(|operation| operation.ended.is_some()) {
            return Ok(());
        }
        let id = operation.ve.and_then(|number| VeId::new(number).ok());
        let event = event(
            "operation-interrupted",
            id,
            operation.subject.clone(),
            Some(format!(
                "{} was interrupted by the end of the daemon",
                operation.kind
            )),
        );
        self.inner.end_operation(
            operation.id,
            id,
            &Err(interrupted()),
            Outcome::Unchanged,
            event,
        )
    }
}

fn interrupted() -> Failure {
    Failure::new(
        FailureKind::Failed,
        "it was interrupted by the end of the daemon",
    )
    .with_hint("ask again")
}
