//! Running something in a living VE: the door and the worker.
//!
//! A process that joins a pid namespace does not enter it, only its children do. So the launcher
//! forks a *door*, which joins the VE's control groups and namespaces and forks the *worker* as
//! its sibling: the launcher is the worker's parent, and the door ends at once.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use kernel::clone::{Options, spawn};
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use ve::VeId;

use super::poller::Source;
use super::report::{self, Report, tell};
use super::requests::Groups;
use super::state::State;
use super::step::{Step, failure};
use super::ves::TaskState;
use super::{clocks, command, confine, identity};
use crate::protocol::{Answer, Event, Failure, FailureKind, Message, VeState};
use crate::seccomp::Profile;
use crate::spec::ExecSpec;

/// How long a task may take from its request to its execution.
const TASK_START_TIMEOUT: Duration = Duration::from_secs(30);

/// 128 and a signal's number: what shells return for a command that a signal ended.
const CODE_OF_SIGNAL: i32 = 128;

impl State {
    /// Begins a command in a VE; its reports answer it.
    ///
    /// # Errors
    /// `NotFound` when the VE does not run.
    pub(super) fn exec(
        &mut self,
        connection: u64,
        number: u64,
        id: VeId,
        spec: &ExecSpec,
        groups: &Groups,
        streams: &[OwnedFd],
    ) -> Result<(), Failure> {
        if spec.terminal.is_none() && streams.len() < 3 {
            let message = "a command without a terminal needs three streams";
            return Err(failure(FailureKind::Invalid, message));
        }
        let ve = self.living(id)?;
        let profile = Profile {
            nesting: ve.nesting,
            compat_32bit: ve.compat_32bit,
        };
        let streams: Vec<BorrowedFd<'_>> = streams.iter().map(AsFd::as_fd).collect();
        self.enter(connection, number, id, groups, &streams, |channel| {
            command::run(spec, profile, channel, &streams)
        })
    }

    /// Runs `work` in a VE, in a process of its own. `kept` are the descriptors that it needs.
    ///
    /// # Errors
    /// `NotFound` when the VE does not run; else names the step.
    pub(super) fn enter(
        &mut self,
        connection: u64,
        number: u64,
        id: VeId,
        groups: &Groups,
        kept: &[BorrowedFd<'_>],
        work: impl FnOnce(BorrowedFd<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let ve = self.living(id)?;
        // Until its init is executed, a VE's first process may still see the node's files.
        if ve.state == VeState::Launching {
            let message = format!("VE {id} is being started: try again in a moment");
            return Err(failure(FailureKind::Busy, message));
        }
        let init = ve.pidfd.as_fd();
        let (ours, theirs) = report::channel()?;
        let tasks: Vec<BorrowedFd<'_>> = groups.v1_tasks.iter().map(AsFd::as_fd).collect();
        let into_cgroup = groups.v2.as_ref().map(AsFd::as_fd);
        let options = Options {
            into_cgroup,
            ..Options::default()
        };
        let channel = theirs.as_fd();
        let door = spawn(&options, || {
            match open_door(init, channel, &tasks, kept, work) {
                Ok(()) => 0,
                Err(failed) => {
                    let _ = tell(channel, &Report::Failed(failed), &[]);
                    1
                }
            }
        })
        .step(format_args!("make a process for VE {id}"))?;
        drop(theirs);
        let task = TaskState {
            connection,
            number,
            channel: Some(ours),
            door: Some(door.pidfd),
            worker: None,
            terminal: None,
            ready: false,
            working: false,
            answered: false,
            failure: None,
            code: None,
            deadline: Some(Instant::now() + TASK_START_TIMEOUT),
        };
        self.enroll_task(task)
    }

    /// Watches a task's processes.
    ///
    /// # Errors
    /// When they cannot be watched; they are killed then.
    pub(super) fn enroll_task(&mut self, task: TaskState) -> Result<(), Failure> {
        let key = self.fresh();
        let watched = (|| {
            if let Some(channel) = &task.channel {
                rustix::io::ioctl_fionbio(channel, true)?;
                self.poller.add(channel, Source::TaskChannel(key))?;
            }
            if let Some(door) = &task.door {
                self.poller.add(door, Source::TaskDoor(key))?;
            }
            if let Some((_, worker)) = &task.worker {
                self.poller.add(worker, Source::TaskWorker(key))?;
            }
            Ok::<(), Errno>(())
        })();
        if let Err(errno) = watched {
            for process in task
                .door
                .iter()
                .chain(task.worker.iter().map(|(_, worker)| worker))
            {
                let _ = pidfd_send_signal(process, Signal::KILL);
                let _ = waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED);
            }
            return Err(errno).step("watch a new process");
        }
        self.tasks.insert(key, task);
        Ok(())
    }

    /// Hears a task's reports.
    pub(super) fn hear_task(&mut self, key: u64) {
        loop {
            let Some(task) = self.tasks.get_mut(&key) else {
                return;
            };
            let Some(channel) = &task.channel else { return };
            match report::hear(channel) {
                Ok(Some((Report::Joined { pid }, mut given))) => {
                    let Some(worker) = given.pop() else { continue };
                    // Unwatched it would stay a zombie, so it is not left alive.
                    if self.poller.add(&worker, Source::TaskWorker(key)).is_err() {
                        let _ = pidfd_send_signal(&worker, Signal::KILL);
                    }
                    task.worker = Some((pid, worker));
                    self.answer_transfer(key);
                }
                Ok(Some((Report::Terminal, mut given))) => task.terminal = given.pop(),
                Ok(Some((Report::Executing, _))) => task.ready = true,
                Ok(Some((Report::Working, _))) => {
                    task.ready = true;
                    task.working = true;
                    self.answer_transfer(key);
                }
                Ok(Some((Report::Failed(failed), _))) => {
                    task.failure.get_or_insert(failed);
                }
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Ok(None) | Err(_) => {
                    task.channel = None;
                    self.answer_task(key);
                    self.finish_task(key);
                    return;
                }
            }
        }
    }

    /// Answers a transfer's request as soon as it works and is known: its own word may overtake the
    /// door's. (A command's request is answered when the channel closes by its execution.)
    fn answer_transfer(&mut self, key: u64) {
        if self
            .tasks
            .get(&key)
            .is_some_and(|task| task.working && task.worker.is_some())
        {
            self.answer_task(key);
        }
    }

    /// Answers the request that began a task, once.
    fn answer_task(&mut self, key: u64) {
        let Some(task) = self.tasks.get_mut(&key) else {
            return;
        };
        if task.answered {
            return;
        }
        task.answered = true;
        task.deadline = None;
        let (connection, number) = (task.connection, task.number);
        let pid = task.worker.as_ref().map(|(pid, _)| *pid);
        let terminal = task.terminal.take();
        let outcome = match (&task.failure, pid) {
            (None, Some(pid)) if task.ready => Ok(Answer::Started { pid }),
            (Some(failed), _) => Err(failed.clone()),
            (None, _) => Err(failure(
                FailureKind::NotFound,
                "the process died on its way into the VE: the VE ended, or its memory is used up",
            )),
        };
        let given = if outcome.is_ok() {
            terminal.into_iter().collect()
        } else {
            Vec::new()
        };
        self.reply(connection, number, outcome, given);
    }

    /// Kills a task that takes too long to begin.
    pub(super) fn give_up_task(&mut self, key: u64) {
        let Some(task) = self.tasks.get_mut(&key) else {
            return;
        };
        task.deadline = None;
        let message = format!(
            "the command did not begin within {} s",
            TASK_START_TIMEOUT.as_secs()
        );
        task.failure
            .get_or_insert(failure(FailureKind::Guest, message));
        for process in task
            .door
            .iter()
            .chain(task.worker.iter().map(|(_, worker)| worker))
        {
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
        self.answer_task(key);
    }

    /// Reaps a task's door.
    pub(super) fn reap_door(&mut self, key: u64) {
        let Some(task) = self.tasks.get_mut(&key) else {
            return;
        };
        let Some(door) = &task.door else { return };
        if reap(door).is_some() {
            let _ = self.poller.remove(door);
            task.door = None;
            self.hear_task(key);
            self.finish_task(key);
        }
    }

    /// Reaps a task's worker and tells its end.
    pub(super) fn reap_worker(&mut self, key: u64) {
        let Some(task) = self.tasks.get_mut(&key) else {
            return;
        };
        let Some((_, worker)) = &task.worker else {
            return;
        };
        if let Some(code) = reap(worker) {
            let _ = self.poller.remove(worker);
            task.code = Some(code);
            self.hear_task(key);
            self.finish_task(key);
        }
    }

    /// Forgets a task of which nothing is left, and tells how it ended if it had begun.
    fn finish_task(&mut self, key: u64) {
        let Some(task) = self.tasks.get(&key) else {
            return;
        };
        let worker_left = task.worker.is_some() && task.code.is_none();
        if task.door.is_some() || worker_left || task.channel.is_some() {
            return;
        }
        self.answer_task(key);
        let Some(task) = self.tasks.remove(&key) else {
            return;
        };
        if !task.ready {
            return;
        }
        let event = Event::TaskEnded {
            task: task.number,
            code: task.code.unwrap_or(1),
            message: task.failure.map(|failed| failed.message),
        };
        self.send(task.connection, &Message::Event(event), Vec::new());
    }

    /// Sends a signal to the worker of a connection's task.
    ///
    /// # Errors
    /// `NotFound` when it has ended.
    pub(super) fn signal_task(
        &self,
        connection: u64,
        number: u64,
        signal: i32,
    ) -> Result<(), Failure> {
        let gone = || failure(FailureKind::NotFound, "the command has ended");
        let task = self.tasks.values().find(|task| {
            task.connection == connection && task.number == number && task.code.is_none()
        });
        let (_, worker) = task
            .and_then(|task| task.worker.as_ref())
            .ok_or_else(gone)?;
        kernel::pidfd::send_signal(worker, signal).map_err(|_| gone())
    }
}

/// Joins a VE and makes the worker there.
fn open_door(
    init: BorrowedFd<'_>,
    channel: BorrowedFd<'_>,
    tasks: &[BorrowedFd<'_>],
    kept: &[BorrowedFd<'_>],
    work: impl FnOnce(BorrowedFd<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut all = vec![init, channel];
    all.extend(tasks.iter().chain(kept));
    kernel::execute::close_all_but(&all).step("close the launcher's descriptors")?;
    confine::enter_groups(tasks)?;
    identity::forgo_protection(std::process::id()).step("count when memory runs out")?;
    let mut namespaces = ThreadNameSpaceType::USER
        | ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::CONTROL_GROUP;
    if clocks::available() {
        namespaces |= ThreadNameSpaceType::TIME;
    }
    move_into_thread_name_spaces(init, namespaces).step("enter the VE")?;
    identity::become_root().step("become the VE's root")?;
    let options = Options {
        sibling: true,
        ..Options::default()
    };
    let worker = spawn(&options, || {
        let mut needed = vec![channel];
        needed.extend_from_slice(kept);
        let outcome = kernel::execute::close_all_but(&needed)
            .step("close the door's descriptors")
            .and_then(|()| work(channel));
        match outcome {
            Ok(()) => 0,
            Err(failed) => {
                let _ = tell(channel, &Report::Failed(failed), &[]);
                1
            }
        }
    })
    .step("make a process in the VE")?;
    let joined = Report::Joined { pid: worker.pid };
    tell(channel, &joined, &[worker.pidfd.as_fd()]).step("tell the launcher")
}

/// How a child ended; nothing while it lives.
fn reap(child: &OwnedFd) -> Option<i32> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    match waitid(WaitId::PidFd(child.as_fd()), options) {
        Ok(Some(status)) => Some(
            status
                .exit_status()
                .or(status
                    .terminating_signal()
                    .map(|signal| CODE_OF_SIGNAL + signal))
                .unwrap_or(1),
        ),
        Ok(None) | Err(Errno::AGAIN | Errno::INTR) => None,
        Err(_) => Some(1),
    }
}
