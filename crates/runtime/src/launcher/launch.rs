//! The launcher's side of a launch.
//!
//! ```text
//! launcher                                  first process of the VE
//!   clone (as the VE's root user) --------->  enters its control groups
//!   user and group maps                        waits
//!   /dev, console, root, link
//!   Go + descriptors ---------------------->  mounts, network, facts, walls
//!   <----------------------------- Notify     (systemd only)
//!   <-------------------------- Executing     execve
//!   channel closes: answered
//! ```

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use kernel::clone::{Child, Options, spawn};
use network::Netlink;
use network::link::{HostEnd, LinkSpec, Target};
use rustix::fs::inotify::{self, WatchFlags};
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use ve::{UidBase, VeId};

use super::child::Cradle;
use super::clocks::Beginning;
use super::console::ConsoleState;
use super::covers::Tree;
use super::identity::as_ve_root;
use super::poller::Source;
use super::report::{self, Report, tell};
use super::requests::Groups;
use super::root::Root;
use super::state::State;
use super::step::{Step, failure};
use super::ves::{Launching, NotifySocket, Ve};
use super::{child, dev, identity};
use crate::isolation;
use crate::protocol::{Answer, Event, Failure, FailureKind, Launched, VeState};
use crate::spec::{InitKind, LaunchSpec, NetworkSpec};

/// How long a first process may take from its birth to its execution: making SSH keys on a slow,
/// busy node fits.
const LAUNCH_TIMEOUT: Duration = Duration::from_secs(60);

/// Messages that are heard on a readiness socket: systemd sends one for each unit that it starts
/// from version 256 on.
const NOTIFY_MESSAGES_MAX: u32 = 10_000;

impl State {
    /// Begins a launch; [`State::hear_launch`] answers it.
    ///
    /// # Errors
    /// Names the step; nothing of the VE is left then.
    pub(super) fn launch(
        &mut self,
        connection: u64,
        number: u64,
        spec: LaunchSpec,
        groups: &Groups,
    ) -> Result<(), Failure> {
        let id = spec.id;
        self.check_free(id)?;
        let (ours, theirs) = report::channel()?;
        let tasks: Vec<BorrowedFd<'_>> = groups.v1_tasks.iter().map(AsFd::as_fd).collect();
        let options = Options {
            namespaces: isolation::namespaces::at_birth(),
            into_cgroup: groups.v2.as_ref().map(AsFd::as_fd),
            sibling: false,
        };
        let view = self.view_tree();
        let familiar = !self.viewers.insert(id);
        let cradle = Cradle {
            channel: theirs.as_fd(),
            tasks: &tasks,
            view: view.as_ref().map(|mount| Tree {
                mount: mount.as_fd(),
                familiar,
            }),
            beginning: Beginning::now(),
        };
        let birth = || spawn(&options, || child::run(&spec, &cradle));
        let child = as_ve_root(id.uid_base(), birth)
            .step("act as the VE's root")?
            .step("make the VE's first process")?;
        drop(theirs);
        let launching = Launching {
            channel: ours,
            connection,
            number,
            executing: false,
            failure: None,
            deadline: Instant::now() + LAUNCH_TIMEOUT,
        };
        match self.equip(&spec, &child, &launching) {
            Ok(equipment) => self.enroll(spec, child, launching, equipment),
            Err(failed) => {
                bury(&child);
                Err(failed)
            }
        }
    }

    /// Makes what the first process waits for, and hands it over.
    fn equip(
        &mut self,
        spec: &LaunchSpec,
        child: &Child,
        launching: &Launching,
    ) -> Result<Equipment, Failure> {
        let base = spec.id.uid_base();
        identity::forgo_protection(child.pid).step("let the VE count when memory runs out")?;
        write_maps(child.pid, base)?;
        let users = kernel::pidfd::user_namespace(&child.pidfd).step("find the VE's users")?;
        let root = self.roots.build(&spec.root, users.as_fd(), base)?;
        let dev = dev::build(base)?;
        let console = dev::open_console(base)?;
        if let Some(network) = &spec.network {
            self.link(spec.id, network, child, HostEnd::Up)?;
        }
        let given = [root.mount.as_fd(), dev.as_fd(), console.mount.as_fd()];
        tell(&launching.channel, &Report::Go, &given).step("hand the VE its file systems")?;
        let root_watch = self.watch_root(&root);
        let log = spec.console.clone();
        Ok(Equipment {
            root,
            root_watch,
            console: ConsoleState::new(console, log),
        })
    }

    /// Makes a VE's link, whose inner end goes into the network of `child`.
    pub(super) fn link(
        &mut self,
        id: VeId,
        network: &NetworkSpec,
        child: &Child,
        host_end: HostEnd,
    ) -> Result<(), Failure> {
        let inside =
            kernel::pidfd::network_namespace(&child.pidfd).step("find the VE's network")?;
        let spec = LinkSpec {
            id,
            addresses: &network.addresses,
            target: Target::Fd(inside.as_fd()),
            mtu: network.mtu,
            host_end,
        };
        self.with_netlink(|netlink| network::link::create(netlink, &spec))?
            .step(format_args!("connect VE {id} to the node"))
    }

    /// Speaks to the node's network. A socket that failed once may hold half an answer: the next
    /// work gets a new one.
    pub(super) fn with_netlink<T, E>(
        &mut self,
        work: impl FnOnce(&mut Netlink) -> Result<T, E>,
    ) -> Result<Result<T, E>, Failure> {
        let mut netlink = match self.netlink.take() {
            Some(netlink) => netlink,
            None => Netlink::open().step("speak to the node's network")?,
        };
        let done = work(&mut netlink);
        if done.is_ok() {
            self.netlink = Some(netlink);
        }
        Ok(done)
    }

    /// Asks to be told when the kernel frees a root; without it ends are told at once.
    pub(super) fn watch_root(&self, root: &Root) -> Option<i32> {
        let path = format!("/proc/self/fd/{}", root.mount.as_raw_fd());
        inotify::add_watch(&self.roots_freed, path.as_str(), WatchFlags::DELETE_SELF).ok()
    }

    fn enroll(
        &mut self,
        spec: LaunchSpec,
        child: Child,
        launching: Launching,
        equipment: Equipment,
    ) -> Result<(), Failure> {
        let number = u64::from(spec.id.get());
        let start_time = kernel::proc::start_time(child.pid).step("look at the new process");
        let watched = rustix::io::ioctl_fionbio(&launching.channel, true)
            .and_then(|()| self.poller.add(&launching.channel, Source::Channel(number)))
            .and_then(|()| self.poller.add(&child.pidfd, Source::Init(number)))
            .and_then(|()| {
                self.poller
                    .add(equipment.console.master(), Source::Console(number))
            })
            .step("watch the new process");
        let start_time = match watched.and(start_time) {
            Ok(start_time) => start_time,
            Err(failed) => {
                bury(&child);
                return Err(failed);
            }
        };
        let ve = Ve {
            id: spec.id,
            init: Launched {
                pid: child.pid,
                start_time: start_time.ticks(),
            },
            pidfd: child.pidfd,
            ours: true,
            state: VeState::Launching,
            kind: spec.kind,
            nesting: spec.nesting,
            compat_32bit: spec.compat_32bit,
            launching: Some(launching),
            refusal: None,
            notify: None,
            console: Some(equipment.console),
            image: equipment.root.image,
            root_watch: equipment.root_watch,
            ending: None,
        };
        self.ves.insert(spec.id, ve);
        self.begin_view(spec.id);
        Ok(())
    }

    /// Hears a VE's first process until it executes or fails.
    pub(super) fn hear_launch(&mut self, id: VeId) {
        loop {
            let Some(ve) = self.ves.get_mut(&id) else {
                return;
            };
            let Some(launching) = &mut ve.launching else {
                return;
            };
            match report::hear(&launching.channel) {
                Ok(Some((Report::Notify, mut given))) => {
                    if let Some(socket) = given.pop()
                        && self
                            .poller
                            .add(&socket, Source::Notify(u64::from(id.get())))
                            .is_ok()
                    {
                        let messages_left = NOTIFY_MESSAGES_MAX;
                        ve.notify = Some(NotifySocket {
                            socket,
                            messages_left,
                        });
                    }
                }
                Ok(Some((Report::Executing, _))) => launching.executing = true,
                Ok(Some((Report::Failed(failed), _))) => launching.failure = Some(failed),
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Ok(None) | Err(_) => return self.conclude_launch(id),
            }
        }
    }

    /// Answers a launch whose first process became the init, or did not.
    fn conclude_launch(&mut self, id: VeId) {
        let Some(ve) = self.ves.get_mut(&id) else {
            return;
        };
        let Some(launching) = ve.launching.take() else {
            return;
        };
        let failed = match launching.failure {
            None if launching.executing => {
                let ready = ve.kind == InitKind::Other;
                ve.state = if ready {
                    VeState::Ready
                } else {
                    VeState::Booting
                };
                let init = ve.init;
                let (connection, number) = (launching.connection, launching.number);
                self.reply(connection, number, Ok(Answer::Launched(init)), Vec::new());
                if ready {
                    self.publish(&Event::Ready { id, pid: init.pid });
                }
                return;
            }
            Some(failed) => failed,
            None => failure(
                FailureKind::Node,
                format!("the first process of VE {id} died underway: does its memory limit fit?"),
            ),
        };
        let _ = pidfd_send_signal(&ve.pidfd, Signal::KILL);
        // Answered when nothing is left of it, so that whoever asked can act on that at once.
        ve.refusal = Some((launching.connection, launching.number, failed));
    }

    /// Ends a launch that takes too long.
    pub(super) fn give_up_launch(&mut self, id: VeId) {
        let launching = self.ves.get_mut(&id).and_then(|ve| ve.launching.as_mut());
        if let Some(launching) = launching {
            launching.executing = false;
            launching.failure.get_or_insert_with(|| {
                let seconds = LAUNCH_TIMEOUT.as_secs();
                failure(
                    FailureKind::Guest,
                    format!("VE {id} had no init after {seconds} s"),
                )
            });
        }
        self.conclude_launch(id);
    }
}

#[derive(Debug)]
struct Equipment {
    root: Root,
    root_watch: Option<i32>,
    console: ConsoleState,
}

/// Gives a new user namespace the VE's own range of ids.
pub(super) fn write_maps(pid: u32, base: UidBase) -> Result<(), Failure> {
    let map = format!("0 {} {}", base.get(), ve::id::UIDS_PER_VE);
    for name in ["gid_map", "uid_map"] {
        std::fs::write(format!("/proc/{pid}/{name}"), &map)
            .step(format_args!("give the VE its ids ({name} {map})"))?;
    }
    Ok(())
}

/// Kills a child that nobody else knows of yet, and reaps it.
pub(super) fn bury(child: &Child) {
    let _ = pidfd_send_signal(&child.pidfd, Signal::KILL);
    let _ = waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED);
}
