//! Operations as steps, each with its way back.
//!
//! A plan says how a record gets from what it is to what was asked for. Carrying a step out
//! changes the [`Work`]'s record to what is true then, so the record can be written down wherever
//! the plan ends. Some steps have no way back (an init that has ended cannot be revived): a plan
//! that fails behind one leaves the VE as far as it got, which is a state of its own and not a
//! half of one.

use std::net::IpAddr;

use registry::VeRecord;
use ve::{Limits, State};

use crate::error::Failure;
use crate::mechanisms::{Fault, Mechanisms, Patience};

/// One step of a plan.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Make the private area.
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
    /// Replace the limits.
    Limits {
        /// Those that apply.
        old: Limits,
        /// Those that shall.
        new: Limits,
    },
    /// Replace the addresses of a running VE.
    Addresses {
        /// Those that it has.
        old: Vec<IpAddr>,
        /// Those that it shall have.
        new: Vec<IpAddr>,
    },
    /// Remove the private area.
    AreaRemove,
}

/// A plan being carried out on one VE.
pub(crate) struct Work<'a> {
    /// The record as it is true now.
    pub(crate) record: VeRecord,
    mechanisms: &'a dyn Mechanisms,
    cancelled: &'a dyn Fn() -> bool,
}

impl<'a> Work<'a> {
    pub(crate) fn new(
        record: VeRecord,
        mechanisms: &'a dyn Mechanisms,
        cancelled: &'a dyn Fn() -> bool,
    ) -> Self {
        Self {
            record,
            mechanisms,
            cancelled,
        }
    }

    /// Carries out all steps; when one fails, takes back those before it, last first. The failed
    /// step is taken back, too: it may have done a part.
    ///
    /// # Errors
    /// The cause, and with it whatever could not be taken back: that stays until the VE is next
    /// started, stopped or deleted, or the node comes up, each of which clears it away.
    pub(crate) fn carry_out(&mut self, plan: &[Step]) -> Result<(), Failure> {
        for (done, step) in plan.iter().enumerate() {
            let outcome = if (self.cancelled)() && step.can_be_cancelled() {
                Err(Fault::new("it was cancelled").of_kind(crate::FailureKind::Cancelled))
            } else {
                self.step(step)
            };
            if let Err(cause) = outcome {
                return Err(self.take_back(&plan[..=done], cause.into()));
            }
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), Fault> {
        let Self {
            record,
            mechanisms,
            cancelled,
        } = self;
        let id = record.spec.id;
        let has_processes = record.run.is_some();
        match step {
            Step::AreaCreate => mechanisms.area_create(id, record.spec.limits.disk)?,
            Step::GroupsCreate => mechanisms.groups_create(&record.spec)?,
            Step::Launch => {
                let running = mechanisms.launch(record)?;
                record.state = if running.ready {
                    State::Running
                } else {
                    State::Starting
                };
                record.run = Some(running.run);
                record.first_boot = None;
                record.fault = None;
            }
            Step::End(patience) => {
                mechanisms.end(id, Some(&record.spec.template), *patience, *cancelled)?;
                record.run = None;
                record.state = State::Stopped;
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
            Step::Limits { new, .. } => mechanisms.limits_apply(id, new, has_processes)?,
            Step::Addresses { old, new } => mechanisms.addresses_apply(id, old, new)?,
            Step::AreaRemove => mechanisms.area_remove(id)?,
        }
        Ok(())
    }

    fn take_back(&mut self, plan: &[Step], mut cause: Failure) -> Failure {
        for step in plan.iter().rev() {
            if let Err(fault) = self.step_back(step) {
                cause.message = format!("{}; and then: {}", cause.message, fault.message);
            }
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
            Step::AreaCreate => mechanisms.area_remove(id),
            Step::GroupsCreate => mechanisms.clear(id),
            Step::Launch => {
                mechanisms.end(id, None, Patience::None, &|| false)?;
                record.run = None;
                record.state = State::Stopped;
                mechanisms.clear(id)
            }
            Step::Freeze => {
                mechanisms.thaw(id)?;
                record.state = State::Running;
                Ok(())
            }
            Step::Thaw => {
                mechanisms.freeze(id)?;
                record.state = State::Paused;
                Ok(())
            }
            Step::Limits { old, .. } => mechanisms.limits_apply(id, old, has_processes),
            Step::Addresses { old, new } => mechanisms.addresses_apply(id, new, old),
            Step::End(_) | Step::Clear | Step::AreaRemove => Ok(()),
        }
    }
}

impl Step {
    /// Whether a cancelled plan may end before this step. Behind the end of an init only the way
    /// forward leads to a whole VE.
    fn can_be_cancelled(&self) -> bool {
        !matches!(self, Self::Clear | Self::AreaRemove)
    }
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
    [stop(patience), start()[1..].to_vec()].concat()
}

/// The steps that remove a VE.
pub(crate) fn delete() -> Vec<Step> {
    [stop(Patience::None), vec![Step::AreaRemove]].concat()
}
