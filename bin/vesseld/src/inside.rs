//! Scripts that run inside: in sandboxes, and in VEs that run.
//!
//! A script is handed in as bytes and run by the `/bin/sh` that is there, with the rights of the VE's root and within all its
//! walls. What it says goes into a log, line by line; what it answers is bounded and hostile.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use engine::{FailureKind, Fault};
use runtime::{ExecSpec, ExecStreams, Task};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use template::{BuildError, Session, Words};
use ve::VeId;

use crate::host::Host;
use crate::mechanisms::cgroup_entry;
use crate::package_cache::Moved;

/// How often is looked whether a script has ended, or is to end.
const POLL: Duration = Duration::from_millis(200);

/// Where a script lies while it runs: in a file system that is not kept.
const SCRIPT: &str = "/run/vessel-script";

/// Bytes of an answer: the names of all packages that a desktop could fetch at once.
const ANSWER_BYTES_MAX: u64 = 2 << 20;

/// Where scripts run, and what becomes of their words.
pub(crate) struct Inside<'a> {
    pub(crate) host: &'a Host,
    pub(crate) id: VeId,
    /// What is being done, as the first words of a failure's message: "building `x`".
    pub(crate) subject: String,
    log: File,
    log_path: PathBuf,
    session: Session<'a>,
}

fn fault(error: &(dyn std::error::Error + 'static)) -> Fault {
    Fault::from_error(error)
}

fn no_pipe(error: io::Error) -> Fault {
    Fault::new(format!("no pipe to the inside: {error}"))
}

impl<'a> Inside<'a> {
    /// Begins a log, in the place of one of the same name.
    ///
    /// # Errors
    /// When the log cannot be made.
    pub(crate) fn new(
        host: &'a Host,
        id: VeId,
        subject: String,
        log_path: &Path,
        session: Session<'a>,
    ) -> Result<Self, Fault> {
        let log = File::create(log_path).map_err(|source| {
            let path = log_path.to_owned();
            fault(&BuildError::Log { path, source })
        })?;
        Ok(Self {
            host,
            id,
            subject,
            log,
            log_path: log_path.to_owned(),
            session,
        })
    }

    /// Writes a line of our own into the log.
    pub(crate) fn note(&mut self, line: &str) {
        // A log that cannot be written is no reason to end work that goes well.
        let _ = writeln!(self.log, "I: {line}");
    }

    /// Writes into the log how many archives of packages went where, or why not.
    pub(crate) fn note_moved(&mut self, what: &str, moved: Result<Moved, Fault>) {
        match moved {
            Ok(Moved { files: 0, .. }) => {}
            Ok(Moved { files, bytes }) => {
                self.note(&format!("{files} archives, {} KiB: {what}", bytes >> 10));
            }
            Err(fault) => self.note(&format!("archives could not be {what}: {}", fault.message)),
        }
    }

    /// Whether somebody wants the work to end.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.session.is_cancelled()
    }

    /// Runs a script to its end; returns what it wrote to its standard output. What it left running runs on.
    ///
    /// # Errors
    /// With the reason that the script told, the log's name and its last lines.
    pub(crate) fn run(&mut self, script: &str) -> Result<Vec<u8>, Fault> {
        hand_over(self.host, self.id, script)?;
        let (words, their_words) = pipe().map_err(no_pipe)?;
        let (answer, their_answer) = pipe().map_err(no_pipe)?;
        let nothing = File::open("/dev/null").map_err(no_pipe)?;
        let streams = ExecStreams {
            input: nothing.as_fd(),
            output: their_answer.as_fd(),
            error: their_words.as_fd(),
        };
        let task = execute(self.host, self.id, &["/bin/sh", SCRIPT], &streams)?;
        drop((their_words, their_answer));
        let ended = AtomicBool::new(false);
        let (log, session) = (&mut self.log, self.session);
        let (code, words, answer) = std::thread::scope(|scope| {
            let until = |pipe| Until {
                pipe: File::from(pipe),
                ended: &ended,
            };
            let (words, answer) = (until(words), until(answer));
            let words = scope.spawn(|| template::follow(words, log, session));
            let answer = scope.spawn(|| {
                let mut bytes = Vec::new();
                // An answer that breaks off is what came of it.
                let _ = answer.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes);
                bytes
            });
            let code = wait(&task, session);
            ended.store(true, Ordering::Relaxed);
            (
                code,
                words.join().unwrap_or_default(),
                answer.join().unwrap_or_default(),
            )
        });
        match code? {
            Some(0) => Ok(answer),
            None => Err(Fault::new("it was cancelled").of_kind(FailureKind::Cancelled)),
            Some(code) => Err(self.failed(code, words)),
        }
    }

    fn failed(&self, code: i32, words: Words) -> Fault {
        let reason = words
            .reason
            .unwrap_or_else(|| format!("it ended with code {code}"));
        let reason = match words.full {
            true => format!("no space was left to write to ({reason})"),
            false => reason,
        };
        let failed = Fault::new(format!(
            "{} failed: {reason}; the whole log is `{}`, it ends with:\n{}",
            self.subject,
            self.log_path.display(),
            Vec::from(words.last_lines).join("\n")
        ));
        match words.full {
            true => failed.of_kind(FailureKind::Resources),
            false => failed,
        }
    }
}

/// The reading end of a pipe, until the task has ended that writes to it: others that it left behind may hold it for
/// ever, and are not waited for.
struct Until<'a> {
    pipe: File,
    ended: &'a AtomicBool,
}

impl Read for Until<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(POLL.subsec_nanos()),
        };
        loop {
            // Before the look: whatever the task wrote is there when it has ended.
            let ended = self.ended.load(Ordering::Relaxed);
            let mut events = [PollFd::new(&self.pipe, PollFlags::IN)];
            match poll(&mut events, Some(&timeout)) {
                Ok(0) if ended => return Ok(0),
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return self.pipe.read(buffer),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Waits for a task; nothing when the work was cancelled first.
fn wait(task: &Task, session: Session<'_>) -> Result<Option<i32>, Fault> {
    loop {
        if let Some(end) = task.wait_within(POLL).map_err(|error| fault(&error))? {
            return Ok(Some(end.code));
        }
        if session.is_cancelled() {
            return Ok(None);
        }
    }
}

/// Puts a script where it is run.
fn hand_over(host: &Host, id: VeId, script: &str) -> Result<(), Fault> {
    let io = |error: io::Error| Fault::new(format!("cannot tell the inside what to do: {error}"));
    let (theirs, ours) = pipe().map_err(io)?;
    let nothing = File::options().write(true).open("/dev/null").map_err(io)?;
    let task = execute(
        host,
        id,
        &["/bin/sh", "-c", &format!("cat >{SCRIPT}")],
        &ExecStreams {
            input: theirs.as_fd(),
            output: nothing.as_fd(),
            error: nothing.as_fd(),
        },
    )?;
    drop(theirs);
    let written = File::from(ours).write_all(script.as_bytes());
    let end = task.wait().map_err(|error| fault(&error))?;
    match (end.code, written) {
        (0, Ok(())) => Ok(()),
        (_, Err(error)) => Err(io(error)),
        (code, Ok(())) => Err(Fault::new(format!(
            "cannot tell the inside what to do: its shell ended with code {code}"
        ))),
    }
}

pub(crate) fn execute(
    host: &Host,
    id: VeId,
    command: &[&str],
    streams: &ExecStreams<'_>,
) -> Result<Task, Fault> {
    let entry = host.groups.ve(id).exec_entry();
    let entry = entry.map_err(|error| fault(&error))?;
    let spec = ExecSpec {
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        user: "root".to_owned(),
        environment: template::proxies()
            .filter_map(|(name, value)| Some((name.to_owned(), value.into_string().ok()?)))
            .collect(),
        directory: Some("/".to_owned()),
        login: false,
        terminal: None,
        open_files: runtime::open_files(None),
    };
    let client = host.launcher.client();
    let task = client.exec(id, &spec, Some(*streams), &cgroup_entry(&entry));
    task.map_err(|error| fault(&error))
}

/// A pipe: its reading and its writing end.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}
