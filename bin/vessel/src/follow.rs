//! Waits for operations and for VEs to be ready, and shows how far they are.

use std::time::Duration;

use api::latest::{ApiError, ErrorCode, Operation, OperationState, VeDetails, VeState};
use client::{Client, ClientError};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{Instant, sleep};

use crate::output::{Output, failed, one_line};

/// Time between two looks at the progress of an operation, when somebody looks on.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// Parts of a bar: a fraction of 1 in thousandths.
const BAR_PARTS: f64 = 1_000.0;

/// A bar of so many things on a terminal, nothing elsewhere.
pub(crate) fn bar(out: Output, title: &str, count: usize) -> ProgressBar {
    if !out.shows_progress() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(
        Some(count.try_into().unwrap_or(u64::MAX)),
        ProgressDrawTarget::stderr(),
    );
    style(&bar, "{prefix} [{bar:30}] {pos}/{len} {elapsed} {msg}");
    bar.set_prefix(title.to_owned());
    bar
}

/// A line that shows how far one operation is on a terminal, nothing elsewhere.
pub(crate) fn spinner(out: Output, title: &str) -> ProgressBar {
    if !out.shows_progress() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    style(&bar, "{spinner} {prefix} {elapsed} {wide_msg}");
    bar.set_prefix(title.to_owned());
    bar.enable_steady_tick(PROGRESS_INTERVAL / 2);
    bar
}

fn style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
}

/// Waits until an operation ended, showing on `bar` how far it is.
///
/// # Errors
/// As the operation failed; a cancelled or undone one is a failure too.
pub(crate) async fn operation(
    client: &Client,
    operation: Operation,
    bar: &ProgressBar,
) -> Result<Operation, ApiError> {
    let ended = if operation.state.is_ended() {
        operation
    } else {
        let id = operation.id;
        let mut wait = std::pin::pin!(client.wait_operation(id));
        loop {
            tokio::select! {
                ended = &mut wait => break ended.map_err(ClientError::into_api_error)?,
                () = sleep(PROGRESS_INTERVAL), if !bar.is_hidden() => {
                    // Only a look: a failure of it shows in the wait as well.
                    if let Ok(seen) = client.operation(id).await {
                        show(&seen, bar);
                    }
                }
            }
        }
    };
    outcome(ended)
}

/// What an operation that ended comes to.
pub(crate) fn outcome(operation: Operation) -> Result<Operation, ApiError> {
    match operation.state {
        OperationState::Done => Ok(operation),
        state => Err(operation.error.unwrap_or_else(|| {
            let message = format!(
                "operation {} ({}) was {state}",
                operation.id, operation.kind
            );
            failed(message).with_hint(format!(
                "`vessel operation show {}` tells more",
                operation.id
            ))
        })),
    }
}

fn show(operation: &Operation, bar: &ProgressBar) {
    if let Some(fraction) = operation.progress.fraction {
        if bar.length().is_none() {
            style(
                bar,
                "{spinner} {prefix} [{bar:20}] {percent:>3}% {elapsed} {wide_msg}",
            );
            bar.set_length(1_000);
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to 0..=1000 before"
        )]
        bar.set_position((fraction.clamp(0.0, 1.0) * BAR_PARTS) as u64);
    }
    bar.set_message(one_line(&operation.progress.message));
}

/// Waits until a VE whose start was begun is ready.
///
/// # Errors
/// Its init ended, or it is not ready after `timeout`.
pub(crate) async fn until_running(
    client: &Client,
    ve: &str,
    timeout: Duration,
) -> Result<VeDetails, ApiError> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let seen = client.wait(ve, VeState::Running, left).await;
        let seen = seen.map_err(ClientError::into_api_error)?;
        match seen.state {
            VeState::Running => return Ok(seen),
            VeState::Starting if Instant::now() < deadline => {}
            VeState::Starting => {
                let message = format!(
                    "VE `{}`: its init runs but did not get ready within {} s",
                    seen.name,
                    timeout.as_secs()
                );
                return Err(failed(message).with_hint(format!(
                    "it goes on starting; see `vessel logs {}`, or wait longer with --timeout",
                    seen.name
                )));
            }
            state => return Err(not_ready(&seen, state)),
        }
    }
}

fn not_ready(seen: &VeDetails, state: VeState) -> ApiError {
    let why = seen
        .reason
        .clone()
        .unwrap_or_else(|| format!("it is {state}"));
    ApiError::new(
        ErrorCode::Failed,
        format!("VE `{}` did not get ready: {why}", seen.name),
    )
    .with_hint(format!("see `vessel logs {}`", seen.name))
}
