//! Commands in a VE, and its console, as sessions.

use std::os::fd::AsFd;
use std::sync::Arc;

use api::latest::{ApiError, ConsoleRequest, ErrorCode, ExecRequest, TerminalSize};
use api::stream::Ended;
use engine::Notice;
use policy::Action;
use registry::VeRecord;
use runtime::{CallError, ExecSpec, ExecStreams, FailureKind, Task, WindowSize};
use server::node::{Control, Session, VeKey};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use ve::VeId;

use super::streams::{self, PipeInput, Terminal};
use super::{NodeDoor, blocking, ves};
use crate::daemon::Up;

/// Wishes of a caller that may wait to be carried out.
const CONTROLS_WAITING_MAX: usize = 16;
/// What ends a command whose caller is gone, as a terminal that hangs up does.
const SIGNAL_HANG_UP: i32 = 1;

/// Finds a VE that something can be run in.
fn enterable(up: &Up, key: &VeKey, action: Action) -> Result<VeRecord, ApiError> {
    let record = ves::find(up, key)?;
    ves::permit(&record, action)?;
    Ok(record)
}

pub(super) async fn exec(
    door: &NodeDoor,
    ve: VeKey,
    request: ExecRequest,
) -> Result<Session, ApiError> {
    let up = door.0.up()?;
    let mut spec = exec_spec(request)?;
    let record = {
        let up = Arc::clone(&up);
        blocking(move || enterable(&up, &ve, Action::Enter)).await?
    };
    let id = record.spec.id;
    spec.open_files = runtime::open_files(record.spec.limits.files);
    if spec.terminal.is_some() {
        let mut task = blocking(move || run(&up, id, &spec, None)).await?;
        let master = task
            .take_terminal()
            .ok_or_else(|| broken("the launcher gave no terminal"))?;
        let terminal = Terminal::new(master).map_err(|error| broken(&error.to_string()))?;
        let resized = terminal.clone();
        return Ok(session(
            terminal.clone(),
            terminal,
            None,
            task,
            move |size| {
                // A terminal whose command ended meanwhile has no size any more.
                let _ = runtime::client::resize_terminal(resized.descriptor(), size);
            },
        ));
    }
    let io = |error: std::io::Error| broken(&error.to_string());
    let (input, their_input) = streams::pipe_to_other().map_err(io)?;
    let (output, their_output) = streams::pipe_from_other().map_err(io)?;
    let (errors, their_errors) = streams::pipe_from_other().map_err(io)?;
    let task = blocking(move || {
        let streams = ExecStreams {
            input: their_input.as_fd(),
            output: their_output.as_fd(),
            error: their_errors.as_fd(),
        };
        run(&up, id, &spec, Some(streams))
    })
    .await?;
    Ok(session(
        PipeInput::new(input),
        output,
        Some(Box::new(errors)),
        task,
        |_| {},
    ))
}

pub(super) async fn console(
    door: &NodeDoor,
    ve: VeKey,
    request: ConsoleRequest,
) -> Result<Session, ApiError> {
    let up = door.0.up()?;
    let mut notices = door.0.notices.subscribe();
    let (ours, theirs) =
        UnixStream::pair().map_err(|error| broken(&format!("no socket: {error}")))?;
    let record = {
        let up = Arc::clone(&up);
        blocking(move || {
            let record = enterable(&up, &ve, Action::Enter)?;
            let id = record.spec.id;
            let client = up.host.launcher.client();
            let theirs = theirs
                .into_std()
                .map_err(|error| broken(&error.to_string()))?;
            client
                .console_attach(id, theirs.as_fd())
                .map_err(|error| call_error(&error))?;
            let _ = client.console_resize(id, window(request.terminal));
            Ok(record)
        })
        .await?
    };
    let (output, input) = ours.into_split();
    let (control, mut wishes) = mpsc::channel(CONTROLS_WAITING_MAX);
    let (end, ended) = oneshot::channel();
    let id = record.spec.id;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                wish = wishes.recv() => match wish {
                    Some(Control::Resize(size)) => {
                        let client = up.host.launcher.client();
                        let resize = move || client.console_resize(id, window(size));
                        let _ = tokio::task::spawn_blocking(resize).await;
                    }
                    Some(Control::Signal(_)) => {}
                    None => return,
                },
                notice = notices.recv() => {
                    let about = !matches!(notice, Ok(Notice::Ve(changed)) if changed != id);
                    if about && init_changed(&up, &record).await {
                        let _ = end.send(Ended::Code(0));
                        return;
                    }
                }
            }
        }
    });
    Ok(Session {
        input: Box::new(input),
        output: Box::new(output),
        errors: None,
        control,
        ended,
    })
}

/// Whether the init that this record tells of is not the VE's any more.
async fn init_changed(up: &Arc<Up>, record: &VeRecord) -> bool {
    let (up, id) = (Arc::clone(up), record.spec.id);
    let now = tokio::task::spawn_blocking(move || up.engine.registry().ve(id)).await;
    !matches!(now, Ok(Ok(Some(now))) if now.run == record.run)
}

/// Puts a session together, and a task that carries the caller's wishes to the command.
fn session(
    input: impl tokio::io::AsyncWrite + Send + Unpin + 'static,
    output: impl tokio::io::AsyncRead + Send + Unpin + 'static,
    errors: Option<server::node::ByteSource>,
    task: Task,
    resize: impl Fn(WindowSize) + Send + 'static,
) -> Session {
    let (control, mut wishes) = mpsc::channel(CONTROLS_WAITING_MAX);
    let (end, ended) = oneshot::channel();
    let task = Arc::new(task);
    let waited = Arc::clone(&task);
    tokio::task::spawn_blocking(move || {
        let ended = waited
            .wait()
            .map_or(Ended::Code(1), |end| ended_of(end.code));
        let _ = end.send(ended);
    });
    tokio::spawn(async move {
        while let Some(wish) = wishes.recv().await {
            match wish {
                Control::Resize(size) => resize(window(size)),
                Control::Signal(number) => signal(&task, i32::from(number)).await,
            }
        }
        // The caller is gone. A command that has ended is not there to hear it.
        signal(&task, SIGNAL_HANG_UP).await;
    });
    Session {
        input: Box::new(input),
        output: Box::new(output),
        errors,
        control,
        ended,
    }
}

async fn signal(task: &Arc<Task>, number: i32) {
    let task = Arc::clone(task);
    // Refused when it has ended: nothing is left to be told.
    let _ = tokio::task::spawn_blocking(move || task.signal(number)).await;
}

fn ended_of(code: i32) -> Ended {
    if code > 128 {
        Ended::Signal(code - 128)
    } else {
        Ended::Code(code)
    }
}

fn run(
    up: &Up,
    id: VeId,
    spec: &ExecSpec,
    streams: Option<ExecStreams<'_>>,
) -> Result<Task, ApiError> {
    let entry = up.host.groups.ve(id).exec_entry().map_err(|error| {
        let fault = engine::Fault::from_error(&error);
        broken(&fault.message)
    })?;
    let entry = crate::mechanisms::cgroup_entry(&entry);
    up.host
        .launcher
        .client()
        .exec(id, spec, streams, &entry)
        .map_err(|error| call_error(&error))
}

fn exec_spec(request: ExecRequest) -> Result<ExecSpec, ApiError> {
    let mut environment = Vec::new();
    for variable in request.environment {
        match variable.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                environment.push((name.to_owned(), value.to_owned()));
            }
            _ => {
                let message = format!("`{variable}` is not KEY=VALUE");
                return Err(ApiError::new(ErrorCode::Usage, message));
            }
        }
    }
    Ok(ExecSpec {
        login: request.command.is_empty(),
        command: request.command,
        user: request.user.unwrap_or_else(|| "root".to_owned()),
        environment,
        directory: request.working_folder,
        terminal: request.terminal.map(window),
        open_files: runtime::open_files(None),
    })
}

fn window(size: TerminalSize) -> WindowSize {
    WindowSize {
        rows: size.rows,
        columns: size.columns,
    }
}

fn broken(message: &str) -> ApiError {
    ApiError::new(
        ErrorCode::Failed,
        format!("the session cannot be made: {message}"),
    )
}

/// What the launcher refused, with the code that scripts rely on.
pub(super) fn call_error(error: &CallError) -> ApiError {
    let code = match error {
        CallError::Failed(failure) => match failure.kind {
            FailureKind::CommandNotFound => ErrorCode::CommandNotFound,
            FailureKind::CommandNotExecutable => ErrorCode::CommandNotExecutable,
            FailureKind::NotFound => ErrorCode::WrongState,
            FailureKind::Busy => ErrorCode::Conflict,
            FailureKind::Invalid => ErrorCode::Usage,
            FailureKind::Guest | FailureKind::Node => ErrorCode::Failed,
        },
        _ => ErrorCode::Failed,
    };
    ApiError::new(code, engine::Fault::from_error(error).message)
}
