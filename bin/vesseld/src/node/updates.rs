//! Requests about updates of VEs.

use std::sync::Arc;
use std::time::Duration;

use api::latest::{
    ApiError, ErrorCode, Operation, UpdatePlan, UpdateReport, UpdateRequest, UpdateWay,
};
use engine::{Check, Update, Updated, VeRequest, Way};
use policy::Action;
use registry::VeRecord;
use server::Updates;
use server::node::{Reply, VeKey};
use ve::{Revision, Stack};

use super::{NodeDoor, STOP_TIMEOUT_DEFAULT, STOP_TIMEOUT_MAX, ves};
use crate::convert::api_error;
use crate::daemon::Up;

/// How long an init may take to be ready, and a check to succeed, when a client names no time.
const START_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
const CHECK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Longest text of a check: it is one word of a command.
const CHECK_BYTES_MAX: usize = 4_096;

impl Updates for NodeDoor {
    fn update(&self, ve: VeKey, request: UpdateRequest) -> Reply<'_, Operation> {
        Box::pin(self.with_up(move |up| {
            let record = ves::find(up, &ve)?;
            let update = Update {
                to: target(up, &record, request.revision)?,
                check: check(&request)?,
                stop_timeout: time(request.stop_timeout_ms, STOP_TIMEOUT_DEFAULT),
                start_timeout: time(request.start_timeout_ms, START_TIMEOUT_DEFAULT),
            };
            ves::submit(up, &ve, VeRequest::Update(update))
        }))
    }

    fn update_plan(&self, ve: VeKey, revision: Option<u32>) -> Reply<'_, UpdatePlan> {
        Box::pin(self.with_up(move |up| plan(up, &ve, revision)))
    }
}

fn time(milliseconds: Option<u64>, otherwise: Duration) -> Duration {
    let time = milliseconds.map_or(otherwise, Duration::from_millis);
    time.min(STOP_TIMEOUT_MAX)
}

fn check(request: &UpdateRequest) -> Result<Option<Check>, ApiError> {
    let Some(command) = &request.check else {
        return Ok(None);
    };
    let plain = !command.contains('\0') && !command.trim().is_empty();
    if !plain || command.len() > CHECK_BYTES_MAX {
        let message = format!(
            "a check is a command of at most {CHECK_BYTES_MAX} characters, without a zero byte"
        );
        return Err(ApiError::new(ErrorCode::Usage, message)
            .with_hint("put a longer one into a file of the VE, and name that"));
    }
    Ok(Some(Check {
        command: command.clone(),
        timeout: time(request.check_timeout_ms, CHECK_TIMEOUT_DEFAULT),
    }))
}

/// The revision of a VE's template that is asked for, else its newest.
fn target(up: &Arc<Up>, record: &VeRecord, revision: Option<u32>) -> Result<Stack, ApiError> {
    let template = &record.spec.template;
    let revision = match revision {
        None => return super::templates::resolve(up, template.as_str()),
        Some(number) => Revision::new(number).map_err(|error| {
            ApiError::new(ErrorCode::Usage, error.to_string())
                .with_hint("revisions are numbered from 1 on; `vessel template list` shows them")
        })?,
    };
    let stack = Stack::from(template)
        .at(revision)
        .map_err(|error| ApiError::new(ErrorCode::Usage, error.to_string()))?;
    match up.host.catalogue.contains(&stack) {
        true => Ok(stack),
        false => {
            let message = format!("template `{template}` has no revision {revision}");
            Err(ApiError::new(ErrorCode::NotFound, message)
                .with_hint("`vessel template list` shows those that there are"))
        }
    }
}

fn plan(up: &Arc<Up>, ve: &VeKey, revision: Option<u32>) -> Result<UpdatePlan, ApiError> {
    let record = ves::find(up, ve)?;
    ves::permit(&record, Action::Update)?;
    let to = target(up, &record, revision)?;
    let from = record.spec.stack();
    let mut plan = UpdatePlan {
        id: record.spec.id.get(),
        name: record.spec.name.to_string(),
        to: from.at(to.revision()).unwrap_or(to.clone()).to_string(),
        from: from.to_string(),
        way: UpdateWay::None,
        because: None,
        restarts: false,
        conflicts: Vec::new(),
        conflicts_count: 0,
    };
    if plan.from == plan.to {
        return Ok(plan);
    }
    let foreseen = up.engine.update_foresee(&record, &to).map_err(api_error)?;
    (plan.way, plan.because) = way(Some(foreseen.way));
    plan.restarts = record.run.is_some();
    plan.conflicts = foreseen.kept.paths;
    plan.conflicts_count = foreseen.kept.count;
    Ok(plan)
}

fn way(way: Option<Way>) -> (UpdateWay, Option<String>) {
    match way {
        None => (UpdateWay::None, None),
        Some(Way::Below) => (UpdateWay::Template, None),
        Some(Way::Inside { because }) => (UpdateWay::Inside, Some(because)),
    }
}

/// How an update went, on the wire.
pub(super) fn report(updated: Updated) -> UpdateReport {
    let (way, because) = way(updated.way);
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    UpdateReport {
        from: updated.from.to_string(),
        to: updated.to.to_string(),
        way,
        because,
        downtime_ms: updated.downtime.map(milliseconds),
        conflicts: updated.kept.paths,
        conflicts_count: updated.kept.count,
        rolled_back: updated.rolled_back,
    }
}
