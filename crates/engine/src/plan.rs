//! Operations as steps, each with its way back.
//!
//! A plan says how a record gets from what it is to what was asked for. Carrying a step out
//! changes the [`Work`]'s record to what is true then, so the record can be written down wherever
//! the plan ends. Some steps have no way back (an init that has ended cannot be revived): a plan
//! that fails behind one leaves the VE as far as it got, which is a state of its own and not a
//! half of one. What cannot be taken back is marked in the record as unclean, and tried again.

use std::net::IpAddr;

use registry::{Stage, VeRecord};
use ve::{Limits, Stack, State};

use crate::error::Failure;
use crate::mechanisms::{Fault, Mechanisms, Patience, ProgressSink, Running};
use crate::request::StackBuild;
use crate::updating::{Kept, UpdateStep};

/// One step of a plan.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Make the private area. One that an earlier VE of this number left is removed first: a new
    /// VE never sees another's files.
    AreaCreate,
    /// Make the control groups.
    GroupsCreate,
    /// Run the init.
    Launch,
    /// End the init.
    End(Patience),
    /// Remove what a VE without processes leaves.
    Clear,
    /// Freeze the processes.
    Freeze,
    /// Let them go on.
    Thaw,
    /// Put the processes on disk.
    Suspend,
    /// Wake them from there.
    Wake,
    /// Drop them there.
    Discard,
    /// Give back files that are equal to the template's. What the VE sees is the same before, amid and
    /// behind it, so there is nothing to take back, and a crash amid it leaves a whole VE.
    Compact,
    /// Replace the limits.
    Limits {
        /// Those that apply.
        old: Box<Limits>,
        /// Those that shall.
        new: Box<Limits>,
    },
    /// Replace the addresses of a running VE.
    Addresses {
        /// Those that it has.
        old: Vec<IpAddr>,
        /// Those that it shall have.
        new: Vec<IpAddr>,
    },
    /// Make the files ready for another stack below them.
    Lower(Stack),
    /// Do the work of a build in the running VE, which is a sandbox.
    Install(Box<StackBuild>),
    /// Keep the files of the sandbox as a template.
    Keep(Box<StackBuild>),
    /// Remove the private area.
    AreaRemove,
    /// A step of an update; what it changed is taken back by the update as a whole.
    Update(UpdateStep),
}

/// A plan being carried out on one VE.
pub(crate) struct Work<'a> {
    /// The record as it is true now.
    pub(crate) record: VeRecord,
    /// What the last move to another stack left of the VE's own.
    pub(crate) kept: Kept,
    /// What the VE was doing before, for steps back.
    state_before: State,
    mechanisms: &'a dyn Mechanisms,
    sink: &'a dyn ProgressSink,
}

impl<'a> Work<'a> {
    pub(crate) fn new(
        record: VeRecord,
        mechanisms: &'a dyn Mechanisms,
        sink: &'a dyn ProgressSink,
    ) -> Self {
        Self {
            kept: Kept::default(),
            state_before: record.state,
            record,
            mechanisms,
            sink,
        }
    }

    /// Carries out all steps; when one fails, takes back those before it, last first, as far as
    /// there is a way back. The failed step is taken back, too: it may have done a part. A plan
    /// can be cancelled up to its first step without a way back: behind that, only the way forward
    /// leads to a whole VE.
    ///
    /// # Errors
    /// The cause, and with it whatever could not be taken back; the record is unclean then.
    pub(crate) fn carry_out(&mut self, plan: &[Step]) -> Result<(), Failure> {
        let mut way_back = 0;
        for (index, step) in plan.iter().enumerate() {
            let outcome = if way_back == 0 && self.sink.cancelled() {
                Err(cancelled())
            } else {
                self.step(step)
            };
            match outcome {
                Ok(()) if step.is_final() => way_back = index + 1,
                Ok(()) => {}
                Err(cause) => return Err(self.take_back(&plan[way_back..=index], cause.into())),
            }
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), Fault> {
        let Self {
            record,
            mechanisms,
            sink,
            ..
        } = self;
        let id = record.spec.id;
        match step {
            Step::AreaCreate => {
                mechanisms.area_remove(id)?;
                mechanisms.area_create(id, record.spec.limits.disk)?;
            }
            Step::GroupsCreate => mechanisms.groups_create(&record.spec)?,
            Step::Launch => {
                let running = mechanisms.launch(record)?;
                runs(record, running);
                record.first_boot = None;
            }
            Step::End(patience) => {
                let cancelled = || sink.cancelled();
                mechanisms.end(id, Some(&record.spec.stack()), *patience, &cancelled)?;
                record.run = None;
                stopped(record);
            }
            Step::Clear => mechanisms.clear(id)?,
            Step::Freeze => {
                mechanisms.freeze(id)?;
                record.state = State::Paused;
            }
            Step::Thaw => {
                mechanisms.thaw(id)?;
                record.state = State::Running;
            }
            Step::Suspend => {
                // One that failed behind its last image is done all the same.
                let suspended = mechanisms.suspend(record, *sink);
                suspended.or_else(|fault| self.unless_asleep(true, fault))?;
                let record = &mut self.record;
                record.run = None;
                record.state = State::Checkpointed;
            }
            Step::Wake => {
                let running = mechanisms.wake(record, *sink)?;
                record.run = Some(running.run);
                record.state = State::Running;
                record.fault = None;
            }
            Step::Discard => {
                let dropped = mechanisms.discard(id);
                dropped.or_else(|fault| self.unless_asleep(false, fault))?;
                stopped(&mut self.record);
            }
            Step::Compact | Step::Lower(_) | Step::Install(_) | Step::Keep(_) => {
                return self.step_on_files(step);
            }
            Step::Update(step) => self.kept = step.carry_out(record, *mechanisms, *sink)?,
            Step::Limits { new, .. } => mechanisms.limits_apply(id, new, record.run.is_some())?,
            Step::Addresses { old, new } => mechanisms.addresses_apply(id, old, new)?,
            Step::AreaRemove => {
                // It may do a part and fail: from here on, there is no whole VE any more.
                record.stage = Stage::Removing;
                mechanisms.area_remove(id)?;
            }
        }
        Ok(())
    }

    /// A step on the VE's files, which changes nothing in its record.
    fn step_on_files(&self, step: &Step) -> Result<(), Fault> {
        let Self {
            record,
            mechanisms,
            sink,
            ..
        } = self;
        match step {
            Step::Compact => mechanisms.compact(record, *sink),
            Step::Lower(new) => mechanisms.lower_change(record, new),
            Step::Install(build) => mechanisms.stack_install(record, build, *sink),
            Step::Keep(build) => mechanisms.stack_keep(record, build, *sink),
            _ => Ok(()),
        }
    }

    /// Passes a fault over if the VE is on disk, or is not, all the same. Where that cannot be
    /// told, its record is unclean.
    fn unless_asleep(&mut self, wanted: bool, fault: Fault) -> Result<(), Fault> {
        match self.mechanisms.asleep(&self.record) {
            Ok(asleep) if asleep == wanted => Ok(()),
            Ok(_) => Err(fault),
            Err(doubt) => {
                self.record.unclean = true;
                Err(fault.and_then(&doubt))
            }
        }
    }

    fn take_back(&mut self, plan: &[Step], mut cause: Failure) -> Failure {
        for step in plan.iter().rev() {
            if let Err(fault) = self.step_back(step) {
                self.record.unclean = true;
                cause.message = format!("{}; and then: {}", cause.message, fault.message);
            }
        }
        if plan.contains(&Step::Wake) && self.record.fault.as_deref() == Some(LOST) {
            cause.message = format!("{}; {LOST}", cause.message);
        }
        cause
    }

    fn step_back(&mut self, step: &Step) -> Result<(), Fault> {
        let Self {
            record, mechanisms, ..
        } = self;
        let id = record.spec.id;
        let has_processes = record.run.is_some();
        match step {
            // Files that something still works on stay until that is ended.
            Step::AreaCreate if has_processes => Ok(()),
            Step::AreaCreate => mechanisms.area_remove(id),
            Step::Clear | Step::GroupsCreate if has_processes => Ok(()),
            Step::Clear | Step::GroupsCreate => mechanisms.clear(id),
            Step::Launch => {
                mechanisms.end(id, None, Patience::None, &|| false)?;
                record.run = None;
                record.state = State::Stopped;
                Ok(())
            }
            Step::Wake => {
                // None that it left may run: what wakes next goes on from the same moment.
                mechanisms.end(id, None, Patience::None, &|| false)?;
                if !mechanisms.asleep(record)? {
                    record.state = State::Stopped;
                    record.fault = Some(LOST.to_owned());
                }
                Ok(())
            }
            // A suspension that failed left all as it was.
            Step::Suspend | Step::Discard | Step::Compact => Ok(()),
            Step::Lower(_) => mechanisms.lower_settle(record),
            // The sandbox goes as a whole; a template that is there is whole.
            Step::Install(_) | Step::Keep(_) | Step::Update(_) => Ok(()),
            Step::Freeze => {
                mechanisms.thaw(id)?;
                record.state = self.state_before;
                Ok(())
            }
            Step::Thaw => {
                mechanisms.freeze(id)?;
                record.state = self.state_before;
                Ok(())
            }
            Step::Limits { old, .. } => mechanisms.limits_apply(id, old, has_processes),
            Step::Addresses { old, new } => mechanisms.addresses_apply(id, new, old),
            Step::End(_) | Step::AreaRemove => Ok(()),
        }
    }
}

impl Step {
    /// Whether there is no way back behind this step.
    fn is_final(&self) -> bool {
        matches!(
            self,
            Self::End(_) | Self::Suspend | Self::Wake | Self::Discard | Self::AreaRemove
        )
    }
}

/// An init runs, and may still be on its way.
fn runs(record: &mut VeRecord, running: Running) {
    record.state = if running.ready {
        State::Running
    } else {
        State::Starting
    };
    record.run = Some(running.run);
    record.fault = None;
}

/// Its next init begins with what its administrator gave it.
fn stopped(record: &mut VeRecord) {
    record.state = State::Stopped;
    record.spec.limits.memory_growth.given = None;
}

/// What is said of a sleeper that cannot be woken any more.
pub(crate) const LOST: &str = "what was on disk of its processes is of no use any more";

/// Why a cancelled operation ended.
pub(crate) fn cancelled() -> Fault {
    Fault::new("it was cancelled").of_kind(crate::FailureKind::Cancelled)
}

/// The steps that run an init.
pub(crate) fn start() -> Vec<Step> {
    vec![Step::Clear, Step::GroupsCreate, Step::Launch]
}

/// The steps that end one.
pub(crate) fn stop(patience: Patience) -> Vec<Step> {
    vec![Step::End(patience), Step::Clear]
}

/// The steps that end one and run another.
pub(crate) fn restart(patience: Patience) -> Vec<Step> {
    [vec![Step::End(patience)], start()].concat()
}

/// The steps that put a VE on disk.
pub(crate) fn suspend() -> Vec<Step> {
    vec![Step::Suspend, Step::Clear]
}

/// The steps that wake it.
pub(crate) fn wake() -> Vec<Step> {
    vec![Step::Clear, Step::GroupsCreate, Step::Wake]
}

/// The steps that remove a VE.
pub(crate) fn delete() -> Vec<Step> {
    [stop(Patience::None), vec![Step::AreaRemove]].concat()
}
