//! Updates of VEs: readiness, checks, upgrades inside. What lies below files is for `contents`.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use engine::{
    Before, Check, FailureKind, Fault, Foreseen, Kept, Mechanisms as _, ProgressSink, Updating, Way,
};
use registry::VeRecord;
use runtime::{ExecStreams, Task};
use rustix::process::Signal;
use template::{PackageJob, PackagePlace, PackageTask, WantedArchive};
use ve::{Name, Stack, State, VeId};

use crate::contents;
use crate::inside::{Inside, execute, pipe};
use crate::launcher::Readiness;
use crate::mechanisms::NodeMechanisms;
use crate::package_cache;
use crate::templates::with_session;

/// Between two tries of a check.
const CHECK_PAUSE: Duration = Duration::from_millis(500);
/// How often a running check looks whether its time is over, or the update was cancelled.
const POLL: Duration = Duration::from_millis(100);
/// How much of what a check says is kept: its end.
const WORDS_BYTES_MAX: usize = 2_000;

fn cancelled() -> Fault {
    Fault::new("it was cancelled").of_kind(FailureKind::Cancelled)
}

impl Updating for NodeMechanisms {
    fn update_foresee(&self, record: &VeRecord, new: &Stack) -> Result<Foreseen, Fault> {
        contents::revision::foresee(&self.0, record, new)
    }

    fn lower_keep(&self, record: &VeRecord, new: &Stack) -> Result<(), Fault> {
        if record.run.is_none() {
            return contents::revision::keep(&self.0, record, new);
        }
        // What is kept is then what a process could find after it was killed at one moment.
        let id = record.spec.id;
        let kept = self
            .freeze(id)
            .and_then(|()| contents::revision::keep(&self.0, record, new));
        self.thaw(id)?;
        kept
    }

    fn lower_before(&self, record: &VeRecord) -> Result<Before, Fault> {
        contents::revision::before(&self.0, record)
    }

    fn upgrade(&self, record: &VeRecord, _: &Stack, sink: &dyn ProgressSink) -> Result<(), Fault> {
        let host = &self.0;
        let own = record.spec.stack();
        let base = host.catalogue.get(&own);
        let base = base.map_err(|error| Fault::from_error(&error))?;
        let job = PackageJob {
            task: PackageTask::Upgrade,
            place: PackagePlace::Ve,
            distribution: &base.distribution,
            manager: base.packages.manager,
            mirror: None,
        };
        let log = host.log_folder(record.spec.id).join("update.log");
        with_session(sink, |session| {
            let subject = "its upgrade inside".to_owned();
            let mut inside = Inside::new(host, record.spec.id, subject, &log, session)?;
            upgrade(&mut inside, &job, own.template())
        })
    }

    fn lower_move(&self, record: &VeRecord, new: &Stack, way: &Way) -> Result<Kept, Fault> {
        contents::revision::exchange(&self.0, record, new, way)
    }

    fn ready_wait(
        &self,
        record: &VeRecord,
        timeout: Duration,
        sink: &dyn ProgressSink,
    ) -> Result<(), Fault> {
        let Some(run) = &record.run else {
            return Err(Fault::new("it does not run"));
        };
        if record.state == State::Running {
            return Ok(());
        }
        let id = record.spec.id;
        let waited = self
            .0
            .launcher
            .wait_ready(id, run.pid, timeout, &|| sink.cancelled());
        match waited {
            Readiness::Ready => Ok(()),
            Readiness::Ended(exit) => Err(Fault::new(format!(
                "its init ended before it was ready: {exit}"
            ))
            .with_hint(format!("see `vessel logs {}`", record.spec.name))),
            Readiness::Waiting if sink.cancelled() => Err(cancelled()),
            Readiness::Waiting => Err(Fault::new(format!(
                "its init runs but did not get ready within {} s",
                timeout.as_secs()
            ))
            .with_hint(format!("see `vessel logs {}`", record.spec.name))),
        }
    }

    fn check(
        &self,
        record: &VeRecord,
        check: &Check,
        sink: &dyn ProgressSink,
    ) -> Result<(), Fault> {
        let until = Instant::now() + check.timeout;
        loop {
            let (code, words) = self.try_check(record.spec.id, check, until, sink)?;
            let ended = match code {
                Some(0) => return Ok(()),
                Some(code) => format!("ended with code {code}"),
                None => "did not end in time".to_owned(),
            };
            if Instant::now() + CHECK_PAUSE >= until {
                let said = match words.as_str() {
                    "" => String::new(),
                    words => format!(": {words}"),
                };
                let command = &check.command;
                return Err(Fault::new(format!("the check `{command}` {ended}{said}")));
            }
            if sink.cancelled() {
                return Err(cancelled());
            }
            std::thread::sleep(CHECK_PAUSE);
        }
    }

    fn files_sync(&self) -> Result<(), Fault> {
        self.0.pool_sync()
    }

    fn monotonic(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let nanoseconds = u32::try_from(now.tv_nsec).unwrap_or(0);
        Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), nanoseconds)
    }
}

/// Upgrades all packages inside, with those archives that the template's own sandboxes fetched before: a VE is given
/// what its own signed lists ask for, and gives nothing.
fn upgrade(inside: &mut Inside<'_>, job: &PackageJob<'_>, template: &Name) -> Result<(), Fault> {
    if let Some(lists) = job.lists() {
        let answer = inside.run(&lists)?;
        let wanted = WantedArchive::parse_all(&String::from_utf8_lossy(&answer));
        let moved = package_cache::hand_in(inside.host, inside.id, template, &wanted);
        inside.note_moved("taken from those kept for the template", moved);
    }
    inside.run(&job.script())?;
    match job.clean() {
        Some(script) => inside.run(&script).map(drop),
        None => Ok(()),
    }
}

impl NodeMechanisms {
    /// Runs a check once; its code, if it ended in time, and the end of what it said.
    fn try_check(
        &self,
        id: VeId,
        check: &Check,
        until: Instant,
        sink: &dyn ProgressSink,
    ) -> Result<(Option<i32>, String), Fault> {
        let io = |error: std::io::Error| Fault::new(format!("no pipe to the VE: {error}"));
        let (words, theirs) = pipe().map_err(io)?;
        let nothing = File::open("/dev/null").map_err(io)?;
        let task = execute(
            &self.0,
            id,
            &["/bin/sh", "-c", &check.command],
            &ExecStreams {
                input: nothing.as_fd(),
                output: theirs.as_fd(),
                error: theirs.as_fd(),
            },
        )?;
        drop((theirs, nothing));
        let (to, said) = std::sync::mpsc::channel();
        // What the check leaves running may hold the pipe for ever: then what it said until its end has to do.
        std::thread::spawn(move || to.send(end_of(File::from(words))));
        let code = wait(&task, until, sink)?;
        let words = said.recv_timeout(POLL).unwrap_or_default();
        Ok((code, words))
    }
}

/// Waits for a task, and kills it when its time is over.
fn wait(task: &Task, until: Instant, sink: &dyn ProgressSink) -> Result<Option<i32>, Fault> {
    loop {
        let end = task.wait_within(POLL);
        let end = end.map_err(|error| Fault::from_error(&error))?;
        if let Some(end) = end {
            return Ok(Some(end.code));
        }
        if Instant::now() > until || sink.cancelled() {
            // It may just have ended.
            let _ = task.signal(Signal::KILL.as_raw());
            return match sink.cancelled() {
                true => Err(cancelled()),
                false => Ok(None),
            };
        }
    }
}

/// The end of what is said, in one line, without what would steer a terminal.
fn end_of(mut words: File) -> String {
    let mut kept = VecDeque::with_capacity(WORDS_BYTES_MAX);
    let mut bytes = [0; 4_096];
    while let Ok(count) = words.read(&mut bytes) {
        let Some(read) = bytes.get(..count).filter(|read| !read.is_empty()) else {
            break;
        };
        kept.extend(read);
        let over = kept.len().saturating_sub(WORDS_BYTES_MAX);
        kept.drain(..over);
    }
    let kept: Vec<u8> = kept.into();
    let text = String::from_utf8_lossy(&kept);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines = lines.map(|line| line.chars().filter(|c| !c.is_control()).collect::<String>());
    lines.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek as _, Write as _};

    fn said(text: &[u8]) -> String {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        file.rewind().unwrap();
        end_of(file)
    }

    #[test]
    fn what_a_check_says_is_one_bounded_line_without_control() {
        assert_eq!(said(b"a\n\n  b\x1b[1m\r\n"), "a; b[1m");
        let long = said(&b"x".repeat(100_000));
        assert_eq!(long.len(), WORDS_BYTES_MAX);
        assert!(said(&[0xff; 10]).starts_with('\u{fffd}'));
    }
}
