//! Waking a VE that CRIU wrote to disk, as seen by the launcher.
//!
//! ```text
//! launcher                                   restorer (CRIU)            init of the VE
//!   root, /dev, console made as for a launch
//!   clone (own mounts, own network) --------> waits
//!   link, host end down
//!   Go + descriptors ----------------------> attaches them, execve criu
//!                                             makes all processes -----> stopped
//!                                             asks the daemon (see `gate`), which asks here:
//!   neighbours inside, host end up            lets them go on ---------> goes on
//!   <------------------------- exit code 0
//!   now the init's parent (subreaper); answered
//! ```
//!
//! The host end comes up last: a packet that reached the VE before its sockets are back would be
//! answered with a reset, and connections would be lost.
//!
//! A restore whose daemon dies ends by itself: CRIU finds nobody to ask, and fails.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use kernel::clone::{Child, Options, namespaces, spawn};
use network::link::HostEnd;
use rustix::fs::{Mode, OFlags, inotify};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process, pidfd_open, pidfd_send_signal,
    waitid,
};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use ve::VeId;

use super::console::ConsoleState;
use super::identity::as_ve_root;
use super::launch::{bury, write_maps};
use super::poller::Source;
use super::report::{self, Report, tell};
use super::root::Root;
use super::state::State;
use super::step::{Step, failure};
use super::ves::Ve;
use super::{confine, dev, restorer};
use crate::protocol::{Answer, Event, Failure, FailureKind, Launched, VeState};
use crate::restore::RestoreSpec;
use crate::spec::LaunchSpec;

/// How long CRIU may take. It reads about 1.5 GB of memory a second from a fast disk; a VE of 64 GB
/// on a slow one fits.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(900);

/// A restore that was not answered yet.
#[derive(Debug)]
pub(super) struct Restoring {
    spec: RestoreSpec,
    criu: Child,
    connection: u64,
    number: u64,
    console: ConsoleState,
    image: Option<Rc<super::image::Image>>,
    root_watch: Option<i32>,
    pub(super) deadline: Instant,
}

impl State {
    /// Begins a restore; [`State::hear_restore`] answers it.
    ///
    /// # Errors
    /// Names the step; nothing of the VE is left then.
    pub(super) fn restore(
        &mut self,
        connection: u64,
        number: u64,
        spec: RestoreSpec,
    ) -> Result<(), Failure> {
        let id = spec.launch.id;
        self.check_free(id)?;
        let _ = fs::remove_file(spec.work.join(restorer::PID_FILE));
        let base = id.uid_base();
        let root = self.root_of_sleeper(&spec.launch)?;
        let dev = dev::build_as(base, &spec.dev)?;
        let console = dev::open_console(base)?;
        let (ours, theirs) = report::channel()?;
        let options = Options {
            namespaces: namespaces::MOUNT | namespaces::NETWORK,
            ..Options::default()
        };
        let criu = spawn(&options, || restorer::run(&spec, theirs.as_fd()))
            .step("make a process for CRIU")?;
        drop(theirs);
        let view = self.view_tree();
        let mut given = vec![
            root.mount.as_fd(),
            dev.as_fd(),
            console.mount.as_fd(),
            console.slave.as_fd(),
        ];
        given.extend(view.as_ref().map(AsFd::as_fd));
        let handed = match &spec.launch.network {
            Some(network) => self.link(id, network, &criu, HostEnd::Down),
            None => Ok(()),
        }
        .and_then(|()| tell(&ours, &Report::Go, &given).step("hand CRIU the VE's file systems"))
        .and_then(|()| restorer::await_execution(&ours))
        .and_then(|()| {
            let source = Source::Restorer(u64::from(id.get()));
            self.poller.add(&criu.pidfd, source).step("watch CRIU")
        });
        if let Err(failed) = handed {
            bury(&criu);
            self.unlink(id);
            return Err(failed);
        }
        let root_watch = self.watch_root(&root);
        let restoring = Restoring {
            console: ConsoleState::new(console, spec.launch.console.clone()),
            image: root.image,
            root_watch,
            criu,
            connection,
            number,
            deadline: Instant::now() + RESTORE_TIMEOUT,
            spec,
        };
        self.restores.insert(id, restoring);
        Ok(())
    }

    /// Builds the root of a VE that has no processes: a process that only holds a user namespace
    /// with the VE's ids lends it for the mapping of the layers.
    fn root_of_sleeper(&mut self, spec: &LaunchSpec) -> Result<Root, Failure> {
        let base = spec.id.uid_base();
        let (ours, theirs) = report::channel()?;
        let options = Options {
            namespaces: namespaces::USER,
            ..Options::default()
        };
        let holder = as_ve_root(base, || {
            spawn(&options, || {
                let _ = report::await_go(theirs.as_fd());
                0
            })
        })
        .step("act as the VE's root")?
        .step("make a user namespace")?;
        drop(theirs);
        let built = write_maps(holder.pid, base)
            .and_then(|()| kernel::pidfd::user_namespace(&holder.pidfd).step("find the VE's users"))
            .and_then(|users| self.roots.build(&spec.root, users.as_fd(), base));
        drop(ours);
        bury(&holder);
        built
    }

    /// Answers a restore whose CRIU has ended.
    pub(super) fn hear_restore(&mut self, id: VeId) {
        let Some(restoring) = self.restores.get(&id) else {
            return;
        };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = match waitid(WaitId::PidFd(restoring.criu.pidfd.as_fd()), options) {
            Ok(Some(status)) => status.exit_status(),
            Ok(None) | Err(Errno::AGAIN) => return,
            Err(_) => None,
        };
        let Some(restoring) = self.restores.remove(&id) else {
            return;
        };
        let _ = self.poller.remove(&restoring.criu.pidfd);
        let (connection, number) = (restoring.connection, restoring.number);
        let woken = if status == Some(0) {
            Self::wake(&restoring.spec)
        } else {
            let code = status.map_or("by a signal".to_owned(), |code| format!("with code {code}"));
            Err(failure(FailureKind::Node, format!("CRIU ended {code}")))
        };
        match woken {
            Ok((init, pidfd)) => {
                self.enroll_woken(restoring, init, pidfd);
                self.reply(connection, number, Ok(Answer::Launched(init)), Vec::new());
                self.publish(&Event::Ready { id, pid: init.pid });
            }
            Err(failed) => {
                if let Some(watch) = restoring.root_watch {
                    let _ = inotify::remove_watch(&self.roots_freed, watch);
                }
                self.bury_orphans();
                self.unlink(id);
                self.reply(connection, number, Err(failed), Vec::new());
            }
        }
    }

    /// Ends a restore that takes too long; its end is heard as any other. First what it has made:
    /// processes that CRIU holds would go on when it dies.
    pub(super) fn give_up_restore(&mut self, id: VeId) {
        if let Some(restoring) = self.restores.get_mut(&id) {
            children(restoring.criu.pid).into_iter().for_each(kill);
            let _ = pidfd_send_signal(&restoring.criu.pidfd, Signal::KILL);
            restoring.deadline = Instant::now() + RESTORE_TIMEOUT;
        }
    }

    /// Finds the init that CRIU left.
    fn wake(spec: &RestoreSpec) -> Result<(Launched, OwnedFd), Failure> {
        let path = spec.work.join(restorer::PID_FILE);
        let text = fs::read_to_string(&path).step(format_args!("read {}", path.display()))?;
        let pid = text.trim().parse().ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| failure(FailureKind::Node, "CRIU named no process"))?;
        let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK).step("find the woken init")?;
        let number = pid.as_raw_nonzero().get().unsigned_abs();
        let started = kernel::proc::start_time(number).step("look at the woken init")?;
        let init = Launched {
            pid: number,
            start_time: started.ticks(),
        };
        Ok((init, pidfd))
    }

    /// Puts back what CRIU does not keep: limits of namespaces, and of the network neighbours; then lets
    /// packets through.
    ///
    /// # Errors
    /// Names the step; nothing has run of the VE then.
    pub(super) fn connect_woken(&mut self, id: VeId, pid: u32) -> Result<(), Failure> {
        let no_such = || failure(FailureKind::NotFound, format!("VE {id} is not being woken"));
        let spec = &self.restores.get(&id).ok_or_else(no_such)?.spec;
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pidfd = pidfd_open(pid.ok_or_else(no_such)?, PidfdFlags::NONBLOCK);
        let pidfd = pidfd.step("find the woken init")?;
        limit_woken(&pidfd)?;
        let Some(network) = &spec.launch.network else {
            return Ok(());
        };
        let inside = kernel::pidfd::network_namespace(pidfd).step("find the VE's network")?;
        let addresses = network.addresses.clone();
        let before = &spec.addresses_before;
        let configure = || {
            network::inside::configure(&addresses)?;
            network::inside::set_addresses(before, &addresses)
        };
        let worker = spawn(&Options::default(), || {
            let joined = kernel::namespace::join_network_namespace(&inside).is_ok();
            u8::from(!(joined && configure().is_ok()))
        })
        .step("make a process for the VE's network")?;
        let ended = waitid(WaitId::PidFd(worker.pidfd.as_fd()), WaitIdOptions::EXITED);
        if !matches!(ended, Ok(Some(status)) if status.exit_status() == Some(0)) {
            return Err(failure(
                FailureKind::Node,
                "cannot configure the woken VE's network",
            ));
        }
        self.with_netlink(|netlink| network::link::activate(netlink, id, &addresses))?
            .step(format_args!("connect VE {id} to the node"))
    }

    fn enroll_woken(&mut self, restoring: Restoring, init: Launched, pidfd: OwnedFd) {
        let spec = restoring.spec.launch;
        let number = u64::from(spec.id.get());
        // Refused only without memory; then the VE runs on, unwatched until the next launcher.
        let _ = self.poller.add(&pidfd, Source::Init(number));
        let master = restoring.console.master();
        let _ = self.poller.add(master, Source::Console(number));
        let ve = Ve {
            id: spec.id,
            init,
            pidfd,
            ours: true,
            state: VeState::Ready,
            kind: spec.kind,
            nesting: spec.nesting,
            compat_32bit: spec.compat_32bit,
            launching: None,
            notify: None,
            console: Some(restoring.console),
            image: restoring.image,
            refusal: None,
            root_watch: restoring.root_watch,
            ending: None,
        };
        self.ves.insert(spec.id, ve);
        self.begin_view(spec.id);
    }

    /// Refuses a VE that runs, ends or wakes already; forgets the told end of one that does not,
    /// for whoever starts it knows of that.
    ///
    /// # Errors
    /// `Busy`.
    pub(super) fn check_free(&mut self, id: VeId) -> Result<(), Failure> {
        let message = match self.ves.get(&id) {
            Some(ve) if ve.is_alive() => {
                format!("VE {id} runs already as process {}", ve.init.pid)
            }
            Some(ve) if !matches!(ve.state, VeState::Exited(_)) => {
                format!("VE {id} has just ended and its files are not free yet: try again")
            }
            _ if self.restores.contains_key(&id) => format!("VE {id} is being woken"),
            _ => {
                self.ves.remove(&id);
                return Ok(());
            }
        };
        Err(failure(FailureKind::Busy, message))
    }

    fn unlink(&mut self, id: VeId) {
        // What stays is found by the node's next sweep.
        let _ = self.with_netlink(|netlink| network::link::remove_if_present(netlink, &[id]));
    }

    /// Ends processes that a CRIU left which was killed: the launcher inherits them.
    fn bury_orphans(&self) {
        let woken = |restoring: &Restoring| {
            let text = fs::read_to_string(restoring.spec.work.join(restorer::PID_FILE));
            text.ok().and_then(|text| text.trim().parse().ok())
        };
        let woken: Vec<u32> = self.restores.values().filter_map(woken).collect();
        let known = |pid: u32| {
            let tasks = self.tasks.values();
            self.view_server() == Some(pid)
                || self.ves.values().any(|ve| ve.init.pid == pid)
                || self.restores.values().any(|r| r.criu.pid == pid)
                || woken.contains(&pid)
                || tasks.clone().any(|task| task.door.is_some())
                || tasks
                    .clone()
                    .any(|t| t.worker.as_ref().is_some_and(|w| w.0 == pid))
        };
        for pid in children(std::process::id()) {
            if !known(pid) {
                kill(pid);
                let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
                let _ = pid.map(|pid| waitid(WaitId::Pid(pid), WaitIdOptions::EXITED));
            }
        }
    }
}

/// Limits the namespaces of a woken VE, which CRIU does not keep: in a process that enters its
/// user namespace and nothing else of it.
fn limit_woken(pidfd: &OwnedFd) -> Result<(), Failure> {
    let limit = || {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = rustix::fs::open("/proc", flags, Mode::empty()).step("open /proc")?;
        move_into_thread_name_spaces(pidfd.as_fd(), ThreadNameSpaceType::USER)
            .step("enter the VE's user namespace")?;
        confine::limit_namespaces(proc.as_fd())
    };
    let worker = spawn(&Options::default(), || u8::from(limit().is_err()))
        .step("make a process for the VE's limits")?;
    let ended = waitid(WaitId::PidFd(worker.pidfd.as_fd()), WaitIdOptions::EXITED);
    if matches!(ended, Ok(Some(status)) if status.exit_status() == Some(0)) {
        return Ok(());
    }
    let message = "cannot limit the namespaces of the woken VE";
    Err(failure(FailureKind::Node, message))
}

/// The children of a process with one thread.
fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let list = list.unwrap_or_default();
    let numbers = list.split_whitespace();
    numbers.filter_map(|number| number.parse().ok()).collect()
}

fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, Signal::KILL);
    }
}
