//! `vessel update`: canaries first, then the others, some at a time, as long as not too many fail.
//!
//! Each VE is an operation of its own, which goes forward or back by itself: whatever happens to this program, no VE is
//! left in between. This program decides which VE comes next.

mod report;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use api::latest::{ApiError, ErrorCode, Operation, OperationState, UpdateRequest, Ve};
use client::{Client, ClientError, Filter};
use indicatif::ProgressBar;
use tokio::task::JoinSet;

use crate::Context;
use crate::arguments::{UpdateArguments, UpdateTargets};
use crate::follow;
use crate::output::{Outcome, Stop, failed, usage};

pub(crate) use report::told;
use report::{Ended, Told};

/// How long a daemon that ended amid an update is waited for, and how often it is asked: whoever starts it again does that
/// at once, and what it was doing to a VE it takes back then.
const DAEMON_PATIENCE: Duration = Duration::from_secs(30);
const DAEMON_INTERVAL: Duration = Duration::from_millis(500);

pub(crate) async fn run(context: &Context, arguments: UpdateArguments) -> Outcome {
    let ves = choose(context, &arguments.targets).await?;
    require(context, &ves, arguments.to).await?;
    let one = arguments.targets.names.len() == 1;
    if arguments.dry_run {
        return report::foresee(context, ves, one, arguments.to).await;
    }
    let parallel = match arguments.parallel {
        Some(parallel) => usize::try_from(parallel).unwrap_or(1),
        None => processors(context).await?,
    };
    let begun = Instant::now();
    let mut rollout = Rollout {
        context,
        bar: follow::bar(context.out, "update", ves.len()),
        request: request(&arguments),
        named: !arguments.targets.names.is_empty(),
        parallel,
        failures: 0,
        interrupted: false,
        told: Vec::new(),
    };
    let stop_at = arguments.stop_at.of(ves.len());
    let mut others = ves;
    let canaries = others.drain(..arguments.canary.min(others.len())).collect();
    let left = rollout.wave(canaries, 1).await?;
    if rollout.failures == 0 && left.is_empty() {
        others = rollout.wave(others, stop_at).await?.into();
    } else {
        others.splice(0..0, left);
    }
    rollout.bar.finish_and_clear();
    let not_begun = others.iter().map(|ve| Told::not_begun(&ve.name, ve.id));
    rollout.told.extend(not_begun);
    report::write(context, &rollout.told, one, begun.elapsed())
}

fn request(arguments: &UpdateArguments) -> UpdateRequest {
    let milliseconds = |seconds: ve::units::Seconds| seconds.get().saturating_mul(1_000);
    UpdateRequest {
        revision: arguments.to,
        check: arguments.check.clone(),
        check_timeout_ms: arguments
            .check
            .as_ref()
            .map(|_| milliseconds(arguments.check_timeout)),
        stop_timeout_ms: arguments.timeout.map(milliseconds),
        start_timeout_ms: None,
    }
}

async fn processors(context: &Context) -> Outcome<usize> {
    let node = context.client.node().await?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at least one, and no machine has as many as would matter"
    )]
    let processors = node.capacity.cpu_cores.clamp(1.0, 64.0) as usize;
    Ok(processors)
}

/// Finds the VEs. Unlike with other verbs one that does not exist, or is of another template, refuses them all: who
/// updates a hundred servers should not find out afterwards that a name was misspelt.
async fn choose(context: &Context, targets: &UpdateTargets) -> Outcome<Vec<Ve>> {
    let filter = Filter {
        labels: targets.label.clone(),
        ..Filter::default()
    };
    let all = context.client.list(&filter).await?;
    let of_template = |ve: &Ve| targets.template.as_ref().is_none_or(|t| *t == ve.template);
    if targets.names.is_empty() {
        let chosen: Vec<Ve> = all.into_iter().filter(of_template).collect();
        if chosen.is_empty() {
            if let Some(template) = &targets.template {
                // A name that is misspelt is no template that nobody uses.
                context.client.template(template, false).await?;
            }
            context.out.note("no VE to update");
        }
        return Ok(chosen);
    }
    let mut chosen: Vec<Ve> = Vec::new();
    for name in &targets.names {
        let found = all
            .iter()
            .find(|ve| ve.name == *name || ve.id.to_string() == *name);
        let Some(ve) = found else {
            let error = ApiError::new(ErrorCode::NotFound, format!("VE `{name}`: there is none"));
            return Err(error
                .with_hint("`vessel list` shows all; nothing was updated")
                .into());
        };
        if let Some(template) = targets.template.as_ref().filter(|_| !of_template(ve)) {
            let message = format!(
                "VE `{name}` is of the template `{}`, not `{template}`",
                ve.template
            );
            return Err(usage(message).with_hint("nothing was updated").into());
        }
        if chosen.iter().all(|known| known.id != ve.id) {
            chosen.push(ve.clone());
        }
    }
    Ok(chosen)
}

/// Refuses a revision that there is not of a template of theirs.
async fn require(context: &Context, ves: &[Ve], revision: Option<u32>) -> Outcome {
    let Some(revision) = revision else {
        return Ok(());
    };
    let templates: BTreeSet<&str> = ves.iter().map(|ve| ve.template.as_str()).collect();
    for template in templates {
        let name = format!("{template}@{revision}");
        context.client.template(&name, false).await?;
    }
    Ok(())
}

/// Updates under way.
struct Rollout<'a> {
    context: &'a Context,
    bar: ProgressBar,
    request: UpdateRequest,
    /// Whether VEs were named: then one that is gone is a failure.
    named: bool,
    parallel: usize,
    failures: usize,
    /// Whether somebody pressed Ctrl-C.
    interrupted: bool,
    told: Vec<Told>,
}

impl Rollout<'_> {
    /// Updates VEs until so many failed in all; returns those that were not begun.
    async fn wave(&mut self, ves: Vec<Ve>, stop_at: usize) -> Outcome<VecDeque<Ve>> {
        let mut waiting = VecDeque::from(ves);
        let mut running = JoinSet::new();
        let order: BTreeMap<u32, usize> = waiting.iter().map(|ve| ve.id).zip(0..).collect();
        let mut ended = Vec::new();
        loop {
            while running.len() < self.parallel
                && self.failures < stop_at
                && !self.interrupted
                && let Some(ve) = waiting.pop_front()
            {
                let (client, request) = (self.context.client.clone(), self.request.clone());
                running.spawn(async move {
                    let operation = one(&client, &ve, &request).await;
                    let mut told = Told::of(&ve, operation);
                    if told.is_missing() && is_gone(&client, ve.id).await {
                        told.result = Ended::Deleted;
                    }
                    told
                });
            }
            let next = tokio::select! {
                next = running.join_next() => next,
                _ = tokio::signal::ctrl_c(), if !running.is_empty() => {
                    self.interrupt()?;
                    continue;
                }
            };
            let Some(next) = next else { break };
            let told =
                next.map_err(|error| failed(format!("a part of the update broke: {error}")))?;
            ended.push(self.note(told));
        }
        ended.sort_by_key(|told| order.get(&told.id).copied());
        self.told.extend(ended);
        Ok(waiting)
    }

    /// Takes note of a VE that is through.
    fn note(&mut self, mut told: Told) -> Told {
        if told.result == Ended::Deleted && !self.named {
            // It was there when they were chosen.
            told.error = None;
        }
        if let Some(error) = &told.error {
            self.failures += 1;
            self.bar.suspend(|| self.context.out.error(error));
        }
        self.bar.inc(1);
        self.bar.set_message(told.name.clone());
        told
    }

    fn interrupt(&mut self) -> Outcome {
        if self.interrupted {
            self.bar.finish_and_clear();
            self.context
                .out
                .note("updates under way go on: `vessel operation list` shows them");
            return Err(Stop::Said(130));
        }
        self.interrupted = true;
        self.bar.suspend(|| {
            self.context
                .out
                .note("no other VE is begun; waiting for those under way (Ctrl-C again to leave)");
        });
        Ok(())
    }
}

/// Updates one VE, and waits until that has ended, also by another daemon than the one that began it.
async fn one(client: &Client, ve: &Ve, request: &UpdateRequest) -> Result<Operation, ApiError> {
    let id = ve.id.to_string();
    let begun = client.update(&id, request).await;
    let begun = begun.map_err(ClientError::into_api_error)?;
    let mut patience = None;
    loop {
        let error = match client.wait_operation(begun.id).await {
            Ok(ended) => return Ok(ended),
            Err(error) => error.into_api_error(),
        };
        let until = *patience.get_or_insert_with(|| Instant::now() + DAEMON_PATIENCE);
        if error.code != ErrorCode::Unreachable || Instant::now() > until {
            return Err(error);
        }
        tokio::time::sleep(DAEMON_INTERVAL).await;
    }
}

/// Whether there is no VE of this number any more.
async fn is_gone(client: &Client, id: u32) -> bool {
    let seen = client.show(&id.to_string()).await;
    let error = seen.err().map(ClientError::into_api_error);
    error.is_some_and(|error| error.code == ErrorCode::NotFound)
}

/// Whether an operation did what it was asked for.
fn is_done(operation: &Operation) -> bool {
    operation.state == OperationState::Done
}
