//! Bringing a VE to another version of its template.
//!
//! ```text
//! what it changed goes with the new version:   end, keep, move, start, ready, check
//! it has packages of its own:                  keep, upgrade inside, end, move, start, ready, check
//! ```
//!
//! A VE that is stopped is left stopped, and checked by nobody. How its files were is kept as a snapshot under the name of
//! the stack that it is to have. Nothing is decided before the end of the operation, which writes the record: until
//! then whatever fails, also the daemon, leads back. Files that are brought back must be under no process, so
//! whoever brings them back ends what runs, whatever it is, and starts the VE again if it ran before.
//!
//! What a VE wrote between its start on the new version and a check that failed is lost with the way back.

use std::collections::BTreeMap;
use std::time::Duration;

use registry::{OperationId, VeRecord};
use ve::{Spec, Stack, State};

use crate::error::{Failure, FailureKind};
use crate::inner::TicketSink;
use crate::lanes::Engine;
use crate::mechanisms::{Fault, Nobody, Patience};
use crate::plan::{self, Step, Work};
use crate::recovery::Found;
use crate::stacks::no_such_template;
use crate::updating::{Before, Check, Foreseen, Kept, UpdateStep, Way};

/// What a VE is to be brought to, and how that is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The revision of its template to have; its applications stay what they are.
    pub to: Stack,
    /// What has to succeed in it before the way back is given up.
    pub check: Option<Check>,
    /// How long its init may take to end before its processes are killed.
    pub stop_timeout: Duration,
    /// How long its init may take to be ready.
    pub start_timeout: Duration,
}

/// How an update went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Updated {
    /// The stack that the VE had.
    pub from: Stack,
    /// The one that it was to have.
    pub to: Stack,
    /// How it was done; nothing where it was there already, or where it was not begun.
    pub way: Option<Way>,
    /// From the moment at which its init was told to end until the next one was ready, or until it ran again as it was.
    pub downtime: Option<Duration>,
    /// What it kept of its own.
    pub kept: Kept,
    /// Whether it was brought back to what it was.
    pub rolled_back: bool,
}

/// An update under way.
struct Course {
    report: Updated,
    /// When the VE's init was told to end.
    down: Option<Duration>,
}

/// How long a VE that was brought back is waited for, for its report.
const START_TIMEOUT_BACK: Duration = Duration::from_secs(30);

/// Reports of ended updates that are kept for whoever asks: as many as a bulk over a large node has.
const REPORTS_MAX: usize = 2_000;

/// Reports of updates, by operation. They end with the daemon.
#[derive(Debug, Default)]
pub(crate) struct Reports(BTreeMap<OperationId, Updated>);

impl Reports {
    fn keep(&mut self, operation: OperationId, report: Updated) {
        self.0.insert(operation, report);
        while self.0.len() > REPORTS_MAX {
            self.0.pop_first();
        }
    }

    pub(crate) fn find(&self, operation: OperationId) -> Option<Updated> {
        self.0.get(&operation).cloned()
    }
}

impl Course {
    /// Notes that the VE is there again.
    fn up(&mut self, now: Duration) {
        let down = self.down.map(|down| now.saturating_sub(down));
        self.report.downtime = down;
    }
}

impl Engine {
    /// How a VE would come to another version of its template.
    ///
    /// # Errors
    /// When there is no such template, or the VE cannot be looked at.
    pub fn update_foresee(&self, record: &VeRecord, to: &Stack) -> Result<Foreseen, Failure> {
        let target = target(&record.spec, to)?.stack();
        let mechanisms = self.inner.parts.mechanisms.as_ref();
        let seen = match mechanisms.template_version(&target)? {
            Some(_) => target,
            // Its applications are built on the new version when they are needed; its system is there.
            None => {
                mechanisms
                    .template_version(to)?
                    .ok_or_else(|| no_such_template(to))?;
                to.clone()
            }
        };
        Ok(mechanisms.update_foresee(record, &seen)?)
    }

    /// How an update went that ended since the daemon began.
    #[must_use]
    pub fn update_report(&self, operation: OperationId) -> Option<Updated> {
        self.inner.reports().find(operation)
    }

    /// Brings a VE to another version of its template, or leaves it as it was; returns how it went, and the record as
    /// it is true then.
    pub(crate) fn update(
        &self,
        operation: OperationId,
        before: &VeRecord,
        update: &Update,
    ) -> (Result<(), Failure>, VeRecord) {
        let mut course = Course {
            report: Updated {
                from: before.spec.stack(),
                to: update.to.clone(),
                way: None,
                downtime: None,
                kept: Kept::default(),
                rolled_back: false,
            },
            down: None,
        };
        let ended = self.update_or_back(operation, before, update, &mut course);
        self.inner.reports().keep(operation, course.report);
        ended
    }

    fn update_or_back(
        &self,
        operation: OperationId,
        before: &VeRecord,
        update: &Update,
        course: &mut Course,
    ) -> (Result<(), Failure>, VeRecord) {
        let prepared = self.update_prepare(operation, before, update);
        let (spec, way) = match prepared {
            Ok(Some(prepared)) => prepared,
            Ok(None) => return (Ok(()), before.clone()),
            Err(failure) => return (Err(failure), before.clone()),
        };
        course.report.to = spec.stack();
        course.report.way = Some(way);
        let sink = TicketSink {
            inner: &self.inner,
            operation,
        };
        let mechanisms = self.inner.parts.mechanisms.as_ref();
        let mut work = Work::new(before.clone(), mechanisms, &sink);
        match self.update_forward(&mut work, update, spec, course) {
            Ok(()) => (Ok(()), work.record),
            Err(failure) => {
                let (failure, record) = self.roll_back(before, work.record, failure, course);
                (Err(failure), record)
            }
        }
    }

    /// Makes the stack that the VE is to have, and looks how it comes there; nothing if it has it.
    fn update_prepare(
        &self,
        operation: OperationId,
        before: &VeRecord,
        update: &Update,
    ) -> Result<Option<(Spec, Way)>, Failure> {
        let spec = target(&before.spec, &update.to)?;
        let stack = spec.stack();
        if stack == before.spec.stack() {
            return Ok(None);
        }
        {
            let _gate = self.inner.template_gate();
            self.inner.stack_hold(before.spec.id, Some(stack.clone()));
        }
        let template_version = self.stack_ensure(operation, &stack)?;
        let mechanisms = self.inner.parts.mechanisms.as_ref();
        let foreseen = mechanisms.update_foresee(before, &stack)?;
        let spec = Spec {
            template_version,
            ..spec
        };
        Ok(Some((spec, foreseen.way)))
    }

    fn update_forward(
        &self,
        work: &mut Work<'_>,
        update: &Update,
        spec: Spec,
        course: &mut Course,
    ) -> Result<(), Failure> {
        let mechanisms = self.inner.parts.mechanisms.as_ref();
        let (id, stack) = (spec.id, spec.stack());
        let ran = work.record.run.is_some();
        let way = course.report.way.clone().unwrap_or(Way::Below);
        let keep = Step::Update(UpdateStep::Keep(stack.clone()));
        let ready = || Step::Update(UpdateStep::Ready(update.start_timeout));
        if way != Way::Below {
            work.carry_out(std::slice::from_ref(&keep))?;
            if !ran {
                self.inner.promise(id, &work.record.spec.limits)?;
                self.inner.show_activity(id, Some(State::Starting));
                work.carry_out(&plan::start())?;
                work.carry_out(&[ready()])?;
                self.inner.show_activity(id, Some(State::Running));
            }
            work.carry_out(&[Step::Update(UpdateStep::Upgrade(stack))])?;
        }
        if work.record.run.is_some() {
            course.down = ran.then(|| mechanisms.monotonic());
            self.intend_end(&work.record)?;
            self.inner.show_activity(id, Some(State::Stopping));
            work.carry_out(&[Step::End(Patience::Until(update.stop_timeout))])?;
        }
        if way == Way::Below {
            work.carry_out(&[keep])?;
        }
        // What its next init has beyond its limits is decided anew.
        let limits = work.record.spec.limits.clone();
        let spec = Box::new(Spec { limits, ..spec });
        work.carry_out(&[Step::Update(UpdateStep::Move { spec, way })])?;
        course.report.kept = std::mem::take(&mut work.kept);
        if ran {
            self.inner.show_activity(id, Some(State::Starting));
            work.carry_out(&plan::start())?;
            work.carry_out(&[ready()])?;
            course.up(mechanisms.monotonic());
            let check = update.check.iter().cloned().map(UpdateStep::Check);
            work.carry_out(&check.map(Step::Update).collect::<Vec<_>>())?;
        } else {
            self.inner.show_activity(id, None);
            work.carry_out(&[Step::Clear])?;
        }
        // The record that follows must not be on disk before this is.
        work.carry_out(&[Step::Update(UpdateStep::Sync)])
    }

    /// Notes that the init of a VE is told to end: if the daemon dies then, it may end some time later.
    fn intend_end(&self, record: &VeRecord) -> Result<(), Failure> {
        if self.registry().ve(record.spec.id)?.map(|known| known.run) != Some(record.run.clone()) {
            // Started by the update itself: its end is no news.
            return Ok(());
        }
        Ok(self.registry().ve_update(&VeRecord {
            state: State::Stopping,
            ..record.clone()
        })?)
    }

    /// Brings a VE back to what it was, when its update failed behind `record`; returns the failure with what
    /// came of that, and the record.
    fn roll_back(
        &self,
        before: &VeRecord,
        mut record: VeRecord,
        mut failure: Failure,
        course: &mut Course,
    ) -> (Failure, VeRecord) {
        let mechanisms = self.inner.parts.mechanisms.as_ref();
        record.spec.take_template(&before.spec);
        record.first_boot.clone_from(&before.first_boot);
        // One that was told to end may do that some time later.
        let runs_on = record.run == before.run && course.down.is_none();
        if runs_on && mechanisms.lower_before(&record) == Ok(Before::None) {
            return (failure, record);
        }
        let id = before.spec.id;
        let ran = before.run.is_some();
        self.inner.show_activity(id, ran.then_some(State::Starting));
        let next = match ran {
            true => plan::start(),
            false => vec![Step::Clear],
        };
        let mut work = Work::new(record, mechanisms, &Nobody);
        let back = work
            .carry_out(&[Step::End(Patience::None)])
            .and_then(|()| {
                let restored = work.carry_out(&[Step::Update(UpdateStep::Restore)]);
                // One that failed behind its last part is done all the same.
                restored.or_else(|fault| match mechanisms.lower_before(&work.record) {
                    Ok(Before::None) => Ok(()),
                    _ => Err(fault),
                })
            })
            .and_then(|()| work.carry_out(&next));
        if back.is_ok() && ran {
            // As it was it may not get ready either, and then that is how it was.
            let _ = work.carry_out(&[Step::Update(UpdateStep::Ready(START_TIMEOUT_BACK))]);
        }
        course.report.rolled_back = back.is_ok();
        let mut record = work.record;
        if record.run.is_some() {
            course.up(mechanisms.monotonic());
        }
        match back {
            Ok(()) => failure.message = format!("rolled back: {failure}"),
            Err(fault) => {
                record.unclean |= mechanisms.lower_before(&record) != Ok(Before::None);
                if !ran {
                    // Whatever runs is to end, and nothing is to be started in its place.
                    record.run = None;
                    record.state = State::Stopped;
                }
                failure.message = format!("{failure}; and then: {}", fault.message);
                record.fault = Some(failure.message.clone());
            }
        }
        (failure, record)
    }

    /// Brings files back whose change was not recorded, or forgets how they were. What runs on them is ended first.
    ///
    /// # Errors
    /// With the fault, whatever was found as it is.
    pub(crate) fn settle_lower(&self, mut found: Found) -> Result<Found, (Box<Found>, Fault)> {
        let mechanisms = self.inner.parts.mechanisms.as_ref();
        let id = found.record.spec.id;
        let settled = mechanisms.lower_before(&found.record).and_then(|before| {
            match before {
                Before::None => return Ok(()),
                Before::Done => {}
                Before::Pending => {
                    // It may stand still, and cannot be ended then; without groups there is nothing to let go on.
                    let _ = mechanisms.thaw(id);
                    mechanisms.end(id, None, Patience::None, &|| false)?;
                    found.alive = None;
                    found.brought_back = true;
                    self.settle_exit_of(id);
                }
            }
            mechanisms.lower_settle(&found.record)
        });
        match settled {
            Ok(()) => Ok(found),
            Err(fault) => Err((Box::new(found), fault)),
        }
    }
}

/// The specification of a VE on another revision.
fn target(spec: &Spec, to: &Stack) -> Result<Spec, Failure> {
    let mut spec = spec.clone();
    spec.template = to.template().clone();
    spec.revision = to.revision();
    // All of it has to fit into one name.
    let applications = spec.applications.keys().cloned();
    Stack::new(spec.template.clone(), spec.revision, applications)
        .map_err(|error| Failure::new(FailureKind::Usage, error.to_string()))?;
    Ok(spec)
}
