//! Holding records against what is: after a start of the daemon for all VEs, and for one VE whose
//! record is in doubt or unclean before the next operation on it.
//!
//! The record says what was meant, the launcher and the kernel say what is. A crash of the daemon
//! leaves VEs running; a crash of the node leaves none. An operation that was under way leads to
//! the VE as it was before or as it was to be after:
//!
//! | under way | what is found | what is done |
//! |---|---|---|
//! | create | anything | what there is of the VE is removed |
//! | delete, begun | anything | carried on to its end |
//! | restart, reboot | the old init ended | the VE is started |
//! | restart | the old init runs | taken over, and restarted: it may have been told to end |
//! | update | how its files were is kept | what runs is ended, they are brought back, and it is started if it ran |
//! | update | the old init was told to end | as with a restart |
//! | stop | the init ended | cleared up, also if the init asked for a reboot |
//! | start | a new init runs | taken over |
//! | suspend | all is on disk | it is checkpointed |
//! | suspend | not all of it | its processes go on |
//! | resume from disk | no process ran yet | it stays checkpointed |
//! | resume from disk | it ran, and ended | an end as any other |
//! | stop of a sleeper | it is gone from disk | it is stopped |
//! | anything else | the init runs | taken over as it is; limits and addresses as recorded |
//! | anything else | no init runs | cleared up; an end that nobody saw is settled |
//!
//! Operations that had only been queued are ended; nothing of them was done. Whatever belongs to no VE
//! is removed, but for files that one wrote, and no number is given again where such lie. While an init
//! runs that the registry does not know, the node stays down, and everything is left as it is: then the
//! registry is an old one, and with the right one all is well. A part of a VE that
//! cannot be set right makes its record unclean and is no reason for the node to stay down.

use std::collections::BTreeMap;

use policy::AfterExit;
use registry::{Operation, Outcome, Run, Stage, VeRecord};
use ve::{Exit, State, VeId};

use crate::driver::{
    done_word, event, failed, half_removed, interrupted_by_crash, interrupted_event,
};
use crate::error::{Failure, FailureKind};
use crate::exits::after_exit_plan;
use crate::lanes::Engine;
use crate::mechanisms::{Nobody, Patience, Running};
use crate::plan::{self, Step, Work};
use crate::sleep::Slept;
use crate::{restarts, strangers};

/// One VE as it was found.
pub(crate) struct Found {
    pub(crate) record: VeRecord,
    /// The operation that was under way on it, if one was.
    pub(crate) interrupted: Option<Operation>,
    pub(crate) alive: Option<Running>,
    /// An init of it that ended, and that nobody has dealt with.
    pub(crate) ended: Option<(Run, Exit)>,
    /// Whether its files were brought back to what they were, and what ran on them was ended.
    pub(crate) brought_back: bool,
}

impl Engine {
    /// Sets the node right, and begins with the work that it is given from then on. Returns in
    /// words what was found and done, and what could not be done.
    ///
    /// # Errors
    /// When the registry cannot be used, or the launcher cannot be asked what runs.
    pub fn recover(&self) -> Result<Vec<String>, Failure> {
        let mechanisms = self.inner.parts.mechanisms.as_ref();
        let mut findings = Vec::new();
        let open = self.registry().operations_open()?;
        let records = self.registry().ves()?;
        let known = records.iter().map(|r| (r.spec.id, r.run.clone()));
        let known = known.collect();
        let mut running = mechanisms.running(&known)?;
        strangers::refuse(&records, &running)?;
        let exits = mechanisms.exits()?;
        self.inner.settle_holdings(&records);

        let mut restarts = Vec::new();
        for record in records {
            let id = record.spec.id;
            let found = Found::new(record, &open, running.remove(&id), exits.get(&id));
            restarts.extend(restarts::begun(&found));
            findings.extend(self.set_right(found)?);
        }
        for operation in &open {
            self.end_open(operation)?;
        }
        for (id, (run, _)) in exits {
            mechanisms.exit_settled(id, run.pid);
        }
        let records = self.registry().ves()?;
        self.inner.settle_holdings(&records);
        let keep: Vec<_> = records.into_iter().map(|r| r.spec.id).collect();
        match mechanisms.sweep(&keep) {
            Ok(swept) => {
                findings.extend(swept.found);
                findings.extend(strangers::told(&swept.strangers));
                self.inner.keep_strangers(swept.strangers);
            }
            Err(fault) => findings.push(format!(
                "what belongs to no VE could not be removed: {}",
                fault.message
            )),
        }
        self.stacks_collect();
        self.open_lanes();
        findings.extend(self.carry_on(restarts));
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

    /// Sets one VE right, if its record is in doubt or unclean. Called in its lane.
    ///
    /// # Errors
    /// Says what is still wrong with it.
    pub(crate) fn settle_doubts(&self, id: VeId) -> Result<(), Failure> {
        let Some(record) = self.registry().ve(id)? else {
            self.inner.trust(id);
            return Ok(());
        };
        if !record.unclean && !self.inner.doubted(id) {
            return Ok(());
        }
        let mechanisms = self.inner.parts.mechanisms.as_ref();
        let known = BTreeMap::from([(id, record.run.clone())]);
        let alive = mechanisms.running(&known)?.remove(&id);
        let exits = mechanisms.exits()?;
        let mut open = self.registry().operations_open()?;
        // Those with a ticket wait in this very lane.
        open.retain(|o| o.ve == Some(id.get()) && self.ticket(o.id).is_none());
        self.set_right(Found::new(record, &open, alive, exits.get(&id)))?;
        for operation in &open {
            self.end_open(operation)?;
        }
        if let Some((run, _)) = exits.get(&id) {
            mechanisms.exit_settled(id, run.pid);
        }
        self.inner.trust(id);
        let record = self.registry().ve(id)?;
        let outcome = record.as_ref().map_or(Outcome::Forget(id), Outcome::Record);
        self.inner.settle_holding(outcome);
        match record.filter(|record| record.unclean) {
            None => Ok(()),
            Some(record) => {
                let fault = record.fault.unwrap_or_default();
                let message = format!("what an earlier operation left is in the way: {fault}");
                Err(Failure::about(
                    &record.spec.name,
                    Failure::new(FailureKind::Failed, message),
                )
                .with_hint("remove the cause and ask again; `vessel delete --force` works at once"))
            }
        }
    }

    fn set_right(&self, found: Found) -> Result<Option<String>, Failure> {
        if found.record.stage != Stage::Whole {
            return self.remove_rest(found).map(Some);
        }
        let found = match self.settle_lower(found) {
            Ok(found) => found,
            Err((found, fault)) => return self.leave_unclean(*found, &fault),
        };
        let found = match self.settle_sleep(found)? {
            Slept::Settled(said) => return Ok(said),
            Slept::Awake(found) => *found,
        };
        let known = found.record.run.as_ref();
        match &found.alive {
            Some(alive) if known == Some(&alive.run) || found.interrupted.is_some() => {
                self.take_over(found)
            }
            None if known.is_some() => self.settle_found(found).map(Some),
            None if found.interrupted.is_none() && !found.record.unclean => Ok(None),
            _ => self.clean(found).map(Some),
        }
    }

    /// Takes over an init that runs, as it is, with limits and addresses as recorded.
    fn take_over(&self, found: Found) -> Result<Option<String>, Failure> {
        let Found {
            record: before,
            interrupted,
            alive: Some(alive),
            ..
        } = found
        else {
            return Ok(None);
        };
        let name = before.spec.name.clone();
        let (id, new) = (before.spec.id, before.run.as_ref() != Some(&alive.run));
        let kind = interrupted
            .as_ref()
            .map(|operation| operation.kind.as_str());
        let (record, trouble) = self.as_it_runs(before.clone(), &alive, kind)?;
        let frozen = record.state == State::Paused;
        let Some(operation) = interrupted else {
            if record != before {
                self.registry().ve_update(&record)?;
            }
            return Ok(trouble.map(|failure| format!("VE `{name}`: {failure}")));
        };
        let done = match operation.kind.as_str() {
            "start" | "restart" | "reboot" => new,
            "resume" if before.state == State::Checkpointed => new,
            "pause" => frozen,
            "resume" => !frozen,
            _ => false,
        };
        let (result, event) = if done {
            let word = done_word(&operation.kind);
            (Ok(()), event(word, Some(id), name.to_string(), None))
        } else {
            (Err(interrupted_by_crash()), interrupted_event(&operation))
        };
        self.inner
            .end_operation(operation.id, &result, Outcome::Record(&record), event)?;
        let kind = operation.kind;
        Ok(Some(if done {
            format!("took over VE `{name}`: its {kind} was done, and not yet recorded")
        } else {
            format!("took over VE `{name}` as it was: its {kind} was interrupted")
        }))
    }

    /// The record of a VE that runs, as it is true; limits and addresses are as recorded then, if
    /// an operation of this kind may have changed them. With what could not be set right.
    fn as_it_runs(
        &self,
        mut record: VeRecord,
        alive: &Running,
        kind: Option<&str>,
    ) -> Result<(VeRecord, Option<Failure>), Failure> {
        let id = record.spec.id;
        let mechanisms = self.inner.parts.mechanisms.as_ref();
        let new = record.run.as_ref() != Some(&alive.run);
        if new {
            // It was launched, and that was not recorded any more.
            record.run = Some(alive.run.clone());
            record.first_boot = None;
            record.fault = None;
        }
        let was_paused = record.state == State::Paused && !new;
        // Thawed to hear that it is to end, which it did not hear any more.
        let refreeze = was_paused && matches!(kind, Some("stop" | "restart"));
        let frozen = match mechanisms.frozen(id) {
            Ok(false) if refreeze => mechanisms.freeze(id).map(|()| true),
            // It stood still for as long as it took to keep its files.
            Ok(true) if kind == Some("update") => mechanisms.thaw(id).map(|()| false),
            frozen => frozen,
        };
        let mut trouble = frozen.as_ref().err().cloned().map(Failure::from);
        let frozen = frozen.unwrap_or(was_paused);
        record.state = match (frozen, alive.ready) {
            (true, _) => State::Paused,
            (false, true) => State::Running,
            // A VE that was paused before it was ready, and resumed, counts as running.
            (false, false) if !new && record.state == State::Running => State::Running,
            (false, false) => State::Starting,
        };
        if kind.is_some() || record.unclean {
            let held = self.registry().addresses_held(id)?;
            let limits = mechanisms.limits_apply(id, &record.spec.limits, true);
            let addresses = if held.is_empty() {
                // It has no link that could have any.
                Ok(())
            } else {
                mechanisms.addresses_apply(id, &held, &record.spec.addresses)
            };
            trouble = trouble.or(limits.and(addresses).err().map(Failure::from));
            record.unclean = false;
            record.fault = None;
        }
        if let Some(failure) = &trouble {
            record.unclean = true;
            record.fault = Some(failure.to_string());
        }
        Ok((record, trouble))
    }

    /// Deals with the end of an init that nobody saw, or that was under way.
    fn settle_found(&self, found: Found) -> Result<String, Failure> {
        let record = found.record;
        let name = record.spec.name.clone();
        // Of its last init, not of one that it had before.
        let last = |(run, _): &&(Run, Exit)| Some(run) == record.run.as_ref();
        let exit = found
            .ended
            .as_ref()
            .filter(last)
            .map_or(Exit::Unknown, |e| e.1);
        let kind = found.interrupted.as_ref().map(|o| o.kind.clone());
        let next = match kind.as_deref() {
            Some("restart" | "reboot" | "update") => AfterExit::StartAgain,
            _ if found.brought_back => AfterExit::StartAgain,
            Some("stop") => AfterExit::StayStopped,
            _ => policy::after_exit(exit, 0),
        };
        let again = next == AfterExit::StartAgain;
        let operation = match found.interrupted {
            Some(operation)
                if matches!(
                    operation.kind.as_str(),
                    "restart" | "reboot" | "stop" | "settle"
                ) =>
            {
                operation.id
            }
            _ => self.journal_exit(&record, exit, next)?,
        };
        let mut plan = after_exit_plan(next);
        if kind.is_some() || record.unclean {
            plan.insert(1, restore_limits(&record));
        }
        if let Some("restart" | "reboot" | "update") = kind.as_deref() {
            // The new init may run already, unknown to a launcher that is new itself.
            if let Some((run, _)) = &found.ended {
                self.inner
                    .parts
                    .mechanisms
                    .exit_settled(record.spec.id, run.pid);
            }
            plan.insert(0, Step::End(Patience::None));
        }
        let after = self.after_exit(operation, record, exit, next, &plan)?;
        Ok(match (&after.fault, again) {
            (Some(fault), _) => format!("VE `{name}` ended ({exit}), and then: {fault}"),
            (None, true) => format!("VE `{name}` was started again: {exit}"),
            (None, false) => format!("VE `{name}` ended while the node was down: {exit}"),
        })
    }

    /// Clears up what there may be of a VE that is to have no processes.
    fn clean(&self, found: Found) -> Result<String, Failure> {
        let mechanisms = self.inner.parts.mechanisms.as_ref();
        let id = found.record.spec.id;
        let name = found.record.spec.name.clone();
        if let Some((run, _)) = &found.ended {
            mechanisms.exit_settled(id, run.pid);
        }
        let mut stopped = VeRecord {
            state: State::Stopped,
            run: None,
            unclean: false,
            fault: None,
            ..found.record
        };
        stopped.spec.limits.memory_growth.given = None;
        let limits = restore_limits(&stopped);
        let mut work = Work::new(stopped, mechanisms, &Nobody);
        let result = work.carry_out(&[Step::End(Patience::None), Step::Clear, limits]);
        let mut after = work.record;
        if let Err(failure) = &result {
            after.unclean = true;
            after.fault = Some(failure.to_string());
        }
        match &found.interrupted {
            Some(operation) => {
                let event = interrupted_event(operation);
                let outcome = Outcome::Record(&after);
                self.inner.end_operation(
                    operation.id,
                    &Err(interrupted_by_crash()),
                    outcome,
                    event,
                )?;
            }
            None => self.registry().ve_update(&after)?,
        }
        Ok(match (result, found.interrupted) {
            (Err(failure), _) => format!("VE `{name}` could not be cleaned up: {failure}"),
            (Ok(()), Some(operation)) => {
                format!(
                    "VE `{name}` is as before: its {} was interrupted",
                    operation.kind
                )
            }
            (Ok(()), None) => format!("cleaned up what was left of VE `{name}`, which is stopped"),
        })
    }

    /// Removes what there is of a VE whose creation or removal was interrupted, or failed.
    fn remove_rest(&self, found: Found) -> Result<String, Failure> {
        let (id, name) = (found.record.spec.id, found.record.spec.name.clone());
        let creating = found.record.stage.is_hidden();
        let mechanisms = self.inner.parts.mechanisms.as_ref();
        let mut work = Work::new(found.record, mechanisms, &Nobody);
        let removed = work.carry_out(&plan::delete());
        self.settle_exit_of(id);
        let after = match &removed {
            Ok(()) => None,
            Err(failure) => Some(half_removed(work.record, failure)),
        };
        let outcome = after.as_ref().map_or(Outcome::Forget(id), Outcome::Record);
        let told = match &removed {
            Ok(()) if creating => event("ve-create-undone", Some(id), name.to_string(), None),
            Ok(()) => event("ve-deleted", Some(id), name.to_string(), None),
            Err(failure) => failed("operation-failed", id, &name, failure),
        };
        match found.interrupted {
            Some(operation) => {
                let result = match &removed {
                    Ok(()) if creating => Err(interrupted_by_crash()),
                    outcome => outcome.clone(),
                };
                self.inner
                    .end_operation(operation.id, &result, outcome, told)?;
            }
            None => self.inner.tell(outcome, told)?,
        }
        Ok(match removed {
            Ok(()) if creating => {
                format!("undid the creation of VE `{name}`, which was interrupted")
            }
            Ok(()) => format!("finished the deletion of VE `{name}`"),
            Err(failure) => format!("VE `{name}` could not be removed wholly: {failure}"),
        })
    }

    fn end_open(&self, operation: &Operation) -> Result<(), Failure> {
        let still_open = self.registry().operation(operation.id)?;
        if still_open.is_none_or(|operation| operation.ended.is_some()) {
            return Ok(());
        }
        self.inner.end_operation(
            operation.id,
            &Err(interrupted_by_crash()),
            Outcome::Unchanged,
            interrupted_event(operation),
        )
    }
}

impl Found {
    fn new(
        record: VeRecord,
        open: &[Operation],
        alive: Option<Running>,
        ended: Option<&(Run, Exit)>,
    ) -> Self {
        let mut mine = open.iter().filter(|o| o.ve == Some(record.spec.id.get()));
        // Operations of a VE are begun in the order of the journal, but for those that follow the
        // end of its init: they are journalled when they are begun.
        let own_doing = |o: &&Operation| matches!(o.kind.as_str(), "reboot" | "settle");
        let interrupted = mine.clone().find(own_doing).or_else(|| mine.next());
        Self {
            interrupted: interrupted.cloned(),
            alive,
            ended: ended.cloned(),
            brought_back: false,
            record,
        }
    }
}

/// Puts the recorded limits on again, whichever apply.
pub(crate) fn restore_limits(record: &VeRecord) -> Step {
    Step::Limits {
        old: Box::new(record.spec.limits.clone()),
        new: Box::new(record.spec.limits.clone()),
    }
}
