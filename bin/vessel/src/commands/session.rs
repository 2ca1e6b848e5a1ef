//! `vessel exec`, `enter` and `console`.

use std::io::IsTerminal;
use std::time::Duration;

use api::latest::{ApiError, ConsoleRequest, ErrorCode, ExecRequest};
use api::stream::{Ended, Frame};
use client::{Session, SessionReceiver, SessionSender};
use tokio::signal::unix::SignalKind;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::Context;
use crate::arguments::{ConsoleArguments, EnterArguments, ExecArguments};
use crate::output::{Outcome, Stop, failed};
use crate::terminal::{self, RawMode, Signals, Stream, Writer};

/// Exit code when the command could not be run at all, as `env` and `chroot` have it.
const CODE_NOT_RUN: u8 = 125;

/// How long a lone Esc waits for the dot that makes it a detach.
const ESCAPE_PATIENCE: Duration = Duration::from_millis(400);

/// Signals that are passed on when there is no terminal to turn keys into them.
const PASSED_ON: [SignalKind; 6] = [
    SignalKind::interrupt(),
    SignalKind::terminate(),
    SignalKind::hangup(),
    SignalKind::quit(),
    SignalKind::user_defined1(),
    SignalKind::user_defined2(),
];

pub(crate) async fn exec(context: &Context, arguments: ExecArguments) -> Outcome {
    let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let request = ExecRequest {
        command: arguments.command,
        user: arguments.user,
        environment: arguments.env,
        working_folder: arguments.chdir,
        terminal: None,
    };
    run(
        context,
        &arguments.ve,
        request,
        is_terminal && !arguments.no_tty,
    )
    .await
}

pub(crate) async fn enter(context: &Context, arguments: EnterArguments) -> Outcome {
    let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let request = ExecRequest {
        user: arguments.user,
        ..ExecRequest::default()
    };
    run(context, &arguments.ve, request, is_terminal).await
}

async fn run(context: &Context, ve: &str, request: ExecRequest, on_terminal: bool) -> Outcome {
    let mut request = request;
    if on_terminal {
        request.terminal = Some(terminal::size());
        // What the caller's terminal understands; nothing else of the environment goes inside.
        if let Ok(term) = std::env::var("TERM") {
            request.environment.insert(0, format!("TERM={term}"));
        }
    }
    let session = context.client.exec(ve, &request).await;
    let session = session.map_err(|error| not_run(context, &error.into_api_error()))?;
    let raw = if on_terminal { RawMode::enter() } else { None };
    let end = attach(session, raw.is_some(), false).await;
    drop(raw);
    match end {
        Ok(End::Exited(ended)) => match ended.exit_code() {
            0 => Ok(()),
            code => Err(Stop::Said(code)),
        },
        Ok(End::Unread) => Err(Stop::Said(128 + 13)),
        Ok(End::Signalled(code)) => Err(Stop::Said(code)),
        Ok(End::Detached) => Ok(()),
        Err(error) => Err(not_run(context, &error)),
    }
}

/// Shows why a command did not run, with the exit code that shells use for it.
fn not_run(context: &Context, error: &ApiError) -> Stop {
    context.out.error(error);
    Stop::Said(match error.code {
        ErrorCode::CommandNotFound | ErrorCode::CommandNotExecutable => error.code.exit_code(),
        _ => CODE_NOT_RUN,
    })
}

pub(crate) async fn console(context: &Context, arguments: ConsoleArguments) -> Outcome {
    let request = ConsoleRequest {
        terminal: terminal::size(),
    };
    let session = context.client.console(&arguments.ve, &request).await?;
    context.out.note(&format!(
        "console of {}; leave it with Ctrl-] or Esc followed by a dot",
        arguments.ve
    ));
    let raw = RawMode::enter();
    let end = attach(session, raw.is_some(), true).await;
    drop(raw);
    match end? {
        End::Exited(_) => context.out.note("\nthe VE ended"),
        End::Detached => context.out.note("\nleft the console; the VE runs on"),
        End::Signalled(code) => return Err(Stop::Said(code)),
        End::Unread => {}
    }
    Ok(())
}

/// How a session ended for its caller.
#[derive(Debug)]
enum End {
    /// The command, or the VE of a console, ended.
    Exited(Ended),
    /// The caller left.
    Detached,
    /// A signal told this program to end; its code.
    Signalled(u8),
    /// Nobody reads the output any more.
    Unread,
}

/// Carries everything between the caller and the session until one of them ends it.
async fn attach(session: Session, raw: bool, detachable: bool) -> Result<End, ApiError> {
    let (sender, receiver) = session.split();
    let writer = Writer::start();
    let (leave, left) = oneshot::channel();
    let typing = tokio::spawn(send_input(
        sender.clone(),
        terminal::input(),
        detachable,
        leave,
    ));
    let watching = watch_size(sender.clone(), raw)?;
    let signals = Signals::new(&PASSED_ON)?;
    let end = tokio::select! {
        end = show_output(receiver, &writer) => end,
        Ok(()) = left => Ok(End::Detached),
        code = handle_signals(signals, &sender, raw || detachable) => Ok(End::Signalled(code)),
    };
    typing.abort();
    watching.abort();
    match writer.finish() {
        Ok(()) => end,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(End::Unread),
        Err(error) => Err(failed(format!("the output cannot be written: {error}"))),
    }
}

async fn show_output(mut receiver: SessionReceiver, writer: &Writer) -> Result<End, ApiError> {
    let broken = |why: &str| {
        failed(format!("the session broke: {why}"))
            .with_hint("the daemon's log says why; the command may run on")
    };
    loop {
        let (stream, piece) = match receiver.next_frame().await {
            Ok(Some(Frame::Stdout(piece))) => (Stream::Out, piece),
            Ok(Some(Frame::Stderr(piece))) => (Stream::Err, piece),
            Ok(Some(Frame::Exit(ended))) => return Ok(End::Exited(ended)),
            Ok(Some(Frame::Error(error))) => return Err(error),
            Ok(Some(_)) => return Err(broken("the daemon sent what only a caller sends")),
            Ok(None) => return Err(broken("the daemon ended the connection")),
            Err(error) => return Err(broken(&error.to_string())),
        };
        if !writer.write(stream, piece).await {
            return Ok(End::Unread);
        }
    }
}

async fn send_input(
    sender: SessionSender,
    mut typed: mpsc::Receiver<Vec<u8>>,
    detachable: bool,
    leave: oneshot::Sender<()>,
) {
    let mut keys = Keys::default();
    loop {
        let typed = match keys.is_waiting() {
            true => timeout(ESCAPE_PATIENCE, typed.recv()).await.ok(),
            false => Some(typed.recv().await),
        };
        let (passed, is_left) = match typed {
            None => (keys.give_up(), false),
            Some(None) => break,
            Some(Some(piece)) if detachable => keys.press(&piece),
            Some(Some(piece)) => (piece, false),
        };
        if is_left {
            // A session that just ended has nobody left to be told.
            let _ = leave.send(());
            return;
        }
        if sender.input(&passed).await.is_err() {
            return;
        }
    }
    if detachable {
        let _ = leave.send(());
    } else {
        // The session is over when this fails, which its output shows as well.
        let _ = sender.end_input().await;
    }
}

/// Watches for the keys that leave a console: Ctrl-], or Esc and a dot.
#[derive(Debug, Default)]
struct Keys {
    escape: bool,
}

impl Keys {
    const CTRL_BRACKET: u8 = 0x1d;
    const ESCAPE: u8 = 0x1b;

    /// What of the pressed keys goes to the console, and whether the caller leaves.
    fn press(&mut self, keys: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(keys.len() + 1);
        for &key in keys {
            if key == Self::CTRL_BRACKET || (self.escape && key == b'.') {
                return (passed, true);
            }
            if std::mem::take(&mut self.escape) {
                passed.push(Self::ESCAPE);
            }
            match key {
                Self::ESCAPE => self.escape = true,
                key => passed.push(key),
            }
        }
        (passed, false)
    }

    /// Whether an Esc is held back.
    fn is_waiting(&self) -> bool {
        self.escape
    }

    /// An Esc that no dot followed in time.
    fn give_up(&mut self) -> Vec<u8> {
        self.escape = false;
        vec![Self::ESCAPE]
    }
}

/// Tells the session each new size of the caller's terminal.
fn watch_size(sender: SessionSender, raw: bool) -> Result<tokio::task::JoinHandle<()>, ApiError> {
    let mut changed = Signals::new(&[SignalKind::window_change()])?;
    Ok(tokio::spawn(async move {
        loop {
            changed.next().await;
            if raw && sender.resize(terminal::size()).await.is_err() {
                return;
            }
        }
    }))
}

/// Passes signals on to the command, for ever; on a terminal they are meant for this program, so it
/// gives the code to end with instead.
async fn handle_signals(mut signals: Signals, sender: &SessionSender, ends_us: bool) -> u8 {
    loop {
        let number = signals.next().await;
        if ends_us {
            return number.saturating_add(128);
        }
        if sender.signal(number).await.is_err() {
            // The output shows how the session ended.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_leave_a_console() {
        let mut keys = Keys::default();
        assert_eq!(keys.press(b"ab\x1d c"), (b"ab".to_vec(), true));
        assert_eq!(Keys::default().press(b"a\x1b."), (b"a".to_vec(), true));
        // An arrow key is an escape that no dot follows.
        assert_eq!(
            Keys::default().press(b"\x1b[A."),
            (b"\x1b[A.".to_vec(), false)
        );
        let mut keys = Keys::default();
        assert_eq!(keys.press(b"a\x1b"), (b"a".to_vec(), false));
        assert!(keys.is_waiting());
        assert_eq!(keys.press(b"."), (vec![], true));
        let mut keys = Keys::default();
        assert_eq!(keys.press(b"\x1b"), (vec![], false));
        assert_eq!(keys.press(b"\x1b."), (b"\x1b".to_vec(), true));
    }
}
