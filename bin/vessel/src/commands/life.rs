//! `vessel start`, `stop`, `restart`, `pause`, `suspend` and `resume`.

use std::time::Duration;

use api::latest::{ApiError, ApplicationsRequest, Operation, StartRequest, StopRequest, VeState};
use client::{Client, ClientError};
use indicatif::ProgressBar;

use crate::Context;
use crate::arguments::{
    ApplicationVerb, PauseArguments, StartArguments, StopArguments, SuspendArguments, Targets,
};
use crate::bulk::{self, Done};
use crate::follow;
use crate::output::Outcome;

/// How long a restarted VE is waited for until it is ready.
const RESTART_PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn start(context: &Context, arguments: StartArguments) -> Outcome {
    let chosen = arguments
        .targets
        .choose(context, &[VeState::Stopped])
        .await?;
    let timeout = Duration::from_secs(arguments.patience.timeout.get());
    let wait = (!arguments.patience.no_wait).then_some(timeout);
    let client = context.client.clone();
    bulk::run(context, "start", chosen, line, move |name, bar| {
        let client = client.clone();
        async move {
            let begun = client.start(&name, &StartRequest {}).await;
            let begun = begun.map_err(ClientError::into_api_error)?;
            finish_start(&client, begun, &name, wait, &bar).await
        }
    })
    .await
}

pub(crate) async fn stop(context: &Context, arguments: StopArguments) -> Outcome {
    let running = [
        VeState::Starting,
        VeState::Running,
        VeState::Paused,
        VeState::Stopping,
    ];
    let chosen = arguments.targets.choose(context, &running).await?;
    let request = stop_request(&arguments);
    let client = context.client.clone();
    bulk::run(context, "stop", chosen, line, move |name, bar| {
        let (client, request) = (client.clone(), request.clone());
        async move {
            let begun = client.stop(&name, &request).await;
            let begun = begun.map_err(ClientError::into_api_error)?;
            let states = ["stopping", "stopped"];
            finish(&client, begun, &name, arguments.no_wait, states, &bar).await
        }
    })
    .await
}

pub(crate) async fn restart(context: &Context, arguments: StopArguments) -> Outcome {
    let running = [VeState::Starting, VeState::Running, VeState::Paused];
    let chosen = arguments.targets.choose(context, &running).await?;
    let request = stop_request(&arguments);
    let wait = (!arguments.no_wait).then_some(RESTART_PATIENCE);
    let client = context.client.clone();
    bulk::run(context, "restart", chosen, line, move |name, bar| {
        let (client, request) = (client.clone(), request.clone());
        async move {
            let begun = client.restart(&name, &request).await;
            let begun = begun.map_err(ClientError::into_api_error)?;
            if wait.is_none() {
                return Ok(Done::by(&begun, &name, "stopping"));
            }
            finish_start(&client, begun, &name, wait, &bar).await
        }
    })
    .await
}

pub(crate) async fn pause(context: &Context, arguments: PauseArguments) -> Outcome {
    let PauseArguments { targets, no_wait } = arguments;
    Change::Pause.of_each(context, &targets, no_wait).await
}

pub(crate) async fn suspend(context: &Context, arguments: SuspendArguments) -> Outcome {
    let SuspendArguments { targets, no_wait } = arguments;
    Change::Suspend.of_each(context, &targets, no_wait).await
}

pub(crate) async fn resume(context: &Context, arguments: PauseArguments) -> Outcome {
    let PauseArguments { targets, no_wait } = arguments;
    Change::Resume.of_each(context, &targets, no_wait).await
}

pub(crate) async fn application(context: &Context, verb: ApplicationVerb) -> Outcome {
    let (title, states) = match &verb {
        ApplicationVerb::Add { .. } => ("add application", ["adding", "added"]),
        ApplicationVerb::Remove { .. } => ("remove application", ["removing", "removed"]),
    };
    let mut request = ApplicationsRequest::default();
    let (targets, no_wait) = match verb {
        ApplicationVerb::Add {
            application,
            targets,
            option,
            no_wait,
        } => {
            request.add.push(application);
            request.options = option;
            (targets, no_wait)
        }
        ApplicationVerb::Remove {
            application,
            targets,
            no_wait,
        } => {
            request.remove.push(application);
            (targets, no_wait)
        }
    };
    let chosen = targets.choose(context, &[VeState::Stopped]).await?;
    let client = context.client.clone();
    bulk::run(context, title, chosen, line, move |name, bar| {
        let (client, request) = (client.clone(), request.clone());
        async move {
            let begun = client.change_applications(&name, &request).await;
            let begun = begun.map_err(ClientError::into_api_error)?;
            finish(&client, begun, &name, no_wait, states, &bar).await
        }
    })
    .await
}

/// A change of state that takes no words of its own.
#[derive(Clone, Copy, Debug)]
enum Change {
    Pause,
    Suspend,
    Resume,
}

impl Change {
    async fn of_each(self, context: &Context, targets: &Targets, no_wait: bool) -> Outcome {
        // What VEs are chosen from, what is said of one that was asked only, and of one that is done.
        let (title, from, states) = match self {
            Self::Pause => ("pause", &[VeState::Running][..], ["running", "paused"]),
            Self::Suspend => (
                "suspend",
                &[VeState::Running][..],
                ["running", "checkpointed"],
            ),
            Self::Resume => (
                "resume",
                &[VeState::Paused, VeState::Checkpointed][..],
                ["resuming", "running"],
            ),
        };
        let chosen = targets.choose(context, from).await?;
        let client = context.client.clone();
        bulk::run(context, title, chosen, line, move |name, bar| {
            let client = client.clone();
            async move {
                let begun = self.ask(&client, &name).await;
                let begun = begun.map_err(ClientError::into_api_error)?;
                finish(&client, begun, &name, no_wait, states, &bar).await
            }
        })
        .await
    }

    async fn ask(self, client: &Client, name: &str) -> Result<Operation, ClientError> {
        match self {
            Self::Pause => client.pause(name).await,
            Self::Suspend => client.suspend(name).await,
            Self::Resume => client.resume(name).await,
        }
    }
}

/// Waits for an operation that starts a VE, then for the VE to be ready if `wait` says how long.
pub(super) async fn finish_start(
    client: &Client,
    begun: Operation,
    name: &str,
    wait: Option<Duration>,
    bar: &ProgressBar,
) -> Result<Done, ApiError> {
    let ended = follow::operation(client, begun, bar).await?;
    let Some(timeout) = wait else {
        return Ok(Done::by(&ended, name, "starting"));
    };
    bar.set_message("waiting until it is ready");
    let ve = follow::until_running(client, name, timeout).await?;
    Ok(Done {
        name: ve.name,
        id: Some(ve.id),
        ..Done::by(&ended, name, ve.state.as_str())
    })
}

/// Waits for an operation unless told not to; `states` are the VE's before and after it.
pub(super) async fn finish(
    client: &Client,
    begun: Operation,
    name: &str,
    no_wait: bool,
    states: [&str; 2],
    bar: &ProgressBar,
) -> Result<Done, ApiError> {
    let [before, after] = states;
    if no_wait {
        return Ok(Done::by(&begun, name, before));
    }
    let ended = follow::operation(client, begun, bar).await?;
    Ok(Done::by(&ended, name, after))
}

/// The line of a VE that is in a state now.
pub(super) fn line(done: &Done) -> String {
    format!("{} {}", done.name, done.state)
}

fn stop_request(arguments: &StopArguments) -> StopRequest {
    let timeout_ms = arguments
        .timeout
        .map(|timeout| timeout.get().saturating_mul(1_000));
    StopRequest {
        kill: arguments.kill,
        timeout_ms,
    }
}
