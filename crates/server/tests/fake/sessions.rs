//! What `exec` and `console` of the fake node run.

use std::process::Stdio;
use std::sync::Arc;

use api::latest::{ApiError, ErrorCode, ExecRequest};
use api::stream::Ended;
use server::{Control, Session};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::{mpsc, oneshot};

use super::node::refuse;

/// Runs a command of this host.
pub(super) fn command(request: &ExecRequest) -> Result<Session, ApiError> {
    let Some((program, arguments)) = request.command.split_first() else {
        return refuse(ErrorCode::Usage, "no command", "give one");
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .kill_on_drop(true);
    command.envs(
        request
            .environment
            .iter()
            .filter_map(|pair| pair.split_once('=')),
    );
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return refuse(
                ErrorCode::CommandNotFound,
                format!("`{program}`: not found"),
                "look at PATH",
            );
        }
        Err(error) => {
            return refuse(
                ErrorCode::CommandNotExecutable,
                format!("`{program}`: {error}"),
                "chmod it",
            );
        }
    };
    let (control, mut wishes) = mpsc::channel(4);
    let (tell, ended) = oneshot::channel();
    let input = child.stdin.take().unwrap();
    let (output, errors) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    tokio::spawn(async move {
        loop {
            tokio::select! {
                status = child.wait() => {
                    use std::os::unix::process::ExitStatusExt;
                    let status = status.unwrap();
                    let code = status.code().map(Ended::Code);
                    let _ = tell.send(code.unwrap_or_else(|| Ended::Signal(status.signal().unwrap())));
                    return;
                }
                wish = wishes.recv() => match wish {
                    Some(Control::Signal(number)) => {
                        let pid = child.id().unwrap().to_string();
                        let kill = Command::new("kill").arg(format!("-{number}")).arg(pid).status();
                        assert!(kill.await.unwrap().success());
                    }
                    Some(Control::Resize(_)) => {}
                    // The caller is gone: `kill_on_drop` ends the command.
                    None => return,
                }
            }
        }
    });
    Ok(Session {
        input: Box::new(input),
        output: Box::new(output),
        errors: Some(Box::new(errors)),
        control,
        ended,
    })
}

/// A terminal that says something, then gives back what is typed until `q`, with code 3.
pub(super) fn echo(greeting: String) -> Session {
    let (ours, theirs) = tokio::io::duplex(4_096);
    let (input, output) = (tokio::io::split(ours), tokio::io::split(theirs));
    let (control, mut wishes) = mpsc::channel(4);
    let (tell, ended) = oneshot::channel();
    let (mut typed, mut screen) = output;
    let screen_lock = Arc::new(tokio::sync::Mutex::new(()));
    tokio::spawn(async move {
        let _guard = screen_lock.lock().await;
        screen.write_all(greeting.as_bytes()).await.unwrap();
        let mut byte = [0];
        loop {
            tokio::select! {
                read = typed.read(&mut byte) => match read {
                    Ok(1) if byte == *b"q" => {
                        let _ = tell.send(Ended::Code(3));
                        return;
                    }
                    Ok(1) => screen.write_all(&byte).await.unwrap(),
                    _ => return,
                },
                wish = wishes.recv() => match wish {
                    Some(Control::Resize(size)) => {
                        let text = format!("resized {}x{}\r\n", size.columns, size.rows);
                        screen.write_all(text.as_bytes()).await.unwrap();
                    }
                    Some(Control::Signal(_)) => {}
                    None => return,
                },
            }
        }
    });
    let (from_node, to_node) = input;
    Session {
        input: Box::new(to_node),
        output: Box::new(from_node),
        errors: None,
        control,
        ended,
    }
}
