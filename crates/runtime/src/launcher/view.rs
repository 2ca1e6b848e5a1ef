//! The VEs' own `/proc` and `/sys` files: keeping the connection to the kernel, and a server for it.
//!
//! The launcher makes the file system and holds it; a program of its own serves it (see `procview`),
//! which is started again when it dies, hangs, or is to be replaced. The launcher itself never looks
//! into the tree: a look waits for the server, which waits for the launcher to be started.
//!
//! ```text
//!            Call::View             died, silent for too long, another program
//!  nothing ------------> served <-------------------------------.
//!     ^                    |        starts another, which asks   |
//!     |                    '------- for what was not answered ---'
//!     '--- no server stays alive: lets go, so that readers fail and do not hang for ever
//! ```

use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kernel::packet;
use procview::control::{self, Init, Notice, Order};
use procview::mount::FileSystem;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use ve::VeId;

use super::poller::Source;
use super::root::clone_of;
use super::state::State;
use super::step::{Step, failure};
use crate::protocol::{Failure, FailureKind};

/// How long a server may say nothing. It says something every second; a busy machine fits.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// How long the server of a launcher that died may take to hand over.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(2);

/// Servers that may die one after the other without ever having worked. With the pauses between
/// them that takes some ten seconds; then readers get errors, since nothing ends one who waits for
/// an answer that was begun.
const FAILURES_MAX: u32 = 20;

/// The pause before the next server after so many failures: none at first.
fn pause_after(failures: u32) -> Duration {
    Duration::from_millis(u64::from(failures.saturating_sub(1)) * 50)
}

/// The file system, held.
#[derive(Debug)]
pub(super) struct View {
    device: OwnedFd,
    /// The whole tree where it is attached in the launcher's own mounts: kernels before 6.15 clone
    /// only what is attached.
    tree: OwnedFd,
    /// The whole tree detached, for the launcher after this one.
    spare: OwnedFd,
    program: Program,
    first_id: u32,
    /// What servers have told of what they know.
    history: String,
    server: Option<Server>,
    failures: u32,
    /// When the next server is started, while there is none.
    restart: Option<Instant>,
}

/// The server's program, by a mount of its own.
#[derive(Debug)]
struct Program {
    file: OwnedFd,
    /// Device, inode and time of change: another file is another program.
    identity: (u64, u64, i64, i64),
}

#[derive(Debug)]
struct Server {
    pid: u32,
    pidfd: OwnedFd,
    channel: OwnedFd,
    /// When it counts as hung.
    deadline: Instant,
}

impl State {
    /// Gives VEs a view from here on, served by this program; replaces a server of another one.
    ///
    /// # Errors
    /// Names what the node lacks; VEs are launched without a view then.
    pub(super) fn set_view(
        &mut self,
        program: Option<OwnedFd>,
        first_id: VeId,
    ) -> Result<(), Failure> {
        let program = program
            .ok_or_else(|| failure(FailureKind::Invalid, "the request lacks the program"))?;
        let program = Program::new(program).step("look at the program of the view's server")?;
        if let Some(view) = &mut self.view {
            if view.program.identity != program.identity {
                view.program = program;
                view.failures = 0;
                self.kill_view_server();
            }
            return Ok(());
        }
        let place = control::mount_path(&self.root);
        let (file_system, history) = match take_over(&self.root) {
            Some(taken) => taken,
            None => {
                let made = FileSystem::make();
                (
                    made.step("make the file system of the VEs' view")?,
                    String::new(),
                )
            }
        };
        let FileSystem { device, mount } = file_system;
        attach(&mount, &place)?;
        let view = View {
            device,
            spare: clone_of(&mount).step("keep the VEs' view")?,
            tree: mount,
            program,
            first_id: first_id.get(),
            history,
            server: None,
            failures: 0,
            restart: None,
        };
        self.view = Some(view);
        self.start_view_server();
        Ok(())
    }

    /// The whole tree for a VE, which binds its own part of it.
    pub(super) fn view_tree(&self) -> Option<OwnedFd> {
        clone_of(&self.view.as_ref()?.tree).ok()
    }

    /// Tells the server of a VE's init. One that cannot be told is replaced by one that can.
    pub(super) fn begin_view(&mut self, id: VeId) {
        if let Some(ve) = self.ves.get(&id) {
            let order = Order::Ve(Init {
                id: id.get(),
                pid: ve.init.pid,
                start_time: ve.init.start_time,
            });
            self.tell_view(&order);
        }
    }

    /// Tells the server of a VE's end.
    pub(super) fn end_view(&mut self, id: VeId) {
        self.tell_view(&Order::Gone { id: id.get() });
    }

    fn tell_view(&mut self, order: &Order) {
        let Some(server) = self.view.as_ref().and_then(|view| view.server.as_ref()) else {
            return;
        };
        if say(&server.channel, order, &[]).is_err() {
            self.kill_view_server();
        }
    }

    fn start_view_server(&mut self) {
        let Some(view) = &mut self.view else { return };
        view.restart = None;
        match view.start(&self.root) {
            Ok(server) => {
                let watched = self.poller.add(&server.channel, Source::ViewChannel);
                let watched = watched.and_then(|()| self.poller.add(&server.pidfd, Source::View));
                view.server = Some(server);
                if watched.is_err() {
                    self.kill_view_server();
                }
                let living = self.ves.values().filter(|ve| ve.is_alive());
                for id in living.map(|ve| ve.id).collect::<Vec<_>>() {
                    self.begin_view(id);
                }
            }
            Err(error) => {
                log(&format!(
                    "cannot start the server of the VEs' view: {error}"
                ));
                self.note_view_failure();
            }
        }
    }

    /// Hears that the server works, and what it knows.
    pub(super) fn hear_view(&mut self) {
        let Some(view) = &mut self.view else { return };
        let Some(server) = &mut view.server else {
            return;
        };
        loop {
            match packet::receive(&server.channel) {
                Ok(Some(packet)) => {
                    server.deadline = Instant::now() + SILENCE_MAX;
                    view.failures = 0;
                    if let Ok(Notice::Alive {
                        history: Some(text),
                    }) = serde_json::from_slice(&packet.bytes)
                    {
                        view.history = text;
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => return,
                // Its end is told by its pidfd.
                Ok(None) | Err(_) => {
                    let _ = self.poller.remove(&server.channel);
                    return;
                }
            }
        }
    }

    /// The server ended.
    pub(super) fn reap_view(&mut self) {
        let Some(view) = &mut self.view else { return };
        let Some(server) = view.server.take() else {
            return;
        };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        match waitid(WaitId::PidFd(server.pidfd.as_fd()), options) {
            Ok(None) | Err(Errno::AGAIN) => view.server = Some(server),
            _ => {
                let _ = self.poller.remove(&server.pidfd);
                let _ = self.poller.remove(&server.channel);
                self.note_view_failure();
            }
        }
    }

    fn note_view_failure(&mut self) {
        let Some(view) = &mut self.view else { return };
        view.failures += 1;
        if view.failures > FAILURES_MAX {
            log("no server of the VEs' view stays alive: VEs lose it, restart them later");
            self.let_go_of_view();
            return;
        }
        view.restart = Some(Instant::now() + pause_after(view.failures));
    }

    /// When something is to be done about the view.
    pub(super) fn view_deadline(&self) -> Option<Instant> {
        let view = self.view.as_ref()?;
        view.server
            .as_ref()
            .map(|server| server.deadline)
            .or(view.restart)
    }

    /// Starts the next server, or kills one that hangs.
    pub(super) fn handle_view_deadline(&mut self, now: Instant) {
        // What was said while this process itself could not run counts.
        if self.view_deadline().is_some_and(|at| at <= now) {
            self.hear_view();
        }
        let Some(view) = &self.view else { return };
        if view
            .server
            .as_ref()
            .is_some_and(|server| server.deadline <= now)
        {
            log("the server of the VEs' view hangs: replacing it");
            self.kill_view_server();
        } else if view.restart.is_some_and(|at| at <= now) {
            self.start_view_server();
        }
    }

    /// Kills the server; its end is heard as any other.
    fn kill_view_server(&mut self) {
        if let Some(server) = self.view.as_mut().and_then(|view| view.server.as_mut()) {
            let _ = pidfd_send_signal(&server.pidfd, Signal::KILL);
            server.deadline = Instant::now() + SILENCE_MAX;
        }
    }

    /// The process of the server, which is a child like no other.
    pub(super) fn view_server(&self) -> Option<u32> {
        Some(self.view.as_ref()?.server.as_ref()?.pid)
    }

    /// Gives the view up: files of it that are still open in VEs answer no more.
    pub(super) fn let_go_of_view(&mut self) {
        let Some(view) = self.view.take() else { return };
        if let Some(server) = &view.server {
            let _ = pidfd_send_signal(&server.pidfd, Signal::KILL);
            let _ = waitid(WaitId::PidFd(server.pidfd.as_fd()), WaitIdOptions::EXITED);
            let _ = self.poller.remove(&server.pidfd);
            let _ = self.poller.remove(&server.channel);
        }
        detach(&control::mount_path(&self.root));
        let _ = std::fs::remove_file(control::socket_path(&self.root));
    }
}

impl View {
    fn start(&self, root: &Path) -> io::Result<Server> {
        let flags = SocketFlags::CLOEXEC;
        let (channel, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let child = Command::new(format!("/proc/self/fd/{}", self.program.file.as_raw_fd()))
            .arg("--root")
            .arg(root)
            .current_dir("/")
            .env_clear()
            .stdin(theirs)
            .stdout(Stdio::null())
            .spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::InvalidData)?;
        // A child's number is its own until it is reaped.
        let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        rustix::io::ioctl_fionbio(&channel, true)?;
        let order = Order::Serve {
            first_id: self.first_id,
            history: self.history.clone(),
        };
        say(&channel, &order, &[&self.device, &self.spare])?;
        Ok(Server {
            pid: child.id(),
            pidfd,
            channel,
            deadline: Instant::now() + SILENCE_MAX,
        })
    }
}

impl Program {
    fn new(file: OwnedFd) -> Result<Self, Errno> {
        let status = rustix::fs::fstat(&file)?;
        let changed = (status.st_ctime, i64::try_from(status.st_ctime_nsec));
        let identity = (
            status.st_dev,
            status.st_ino,
            changed.0,
            changed.1.unwrap_or(0),
        );
        Ok(Self { file, identity })
    }
}

fn say(channel: impl AsFd, order: &Order, descriptors: &[&OwnedFd]) -> io::Result<()> {
    let bytes = serde_json::to_vec(order)?;
    let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    Ok(packet::send(channel, &bytes, &descriptors)?)
}

/// Shows the tree at a place, instead of what a launcher left there that was killed.
fn attach(tree: &OwnedFd, place: &Path) -> Result<(), Failure> {
    detach(place);
    std::fs::create_dir_all(place).step(format_args!("make {}", place.display()))?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(tree, "", CWD, place, flags)
        .step(format_args!("attach the VEs' view at {}", place.display()))
}

fn detach(place: &Path) {
    while unmount(place, UnmountFlags::DETACH).is_ok() {}
    let _ = std::fs::remove_dir(place);
}

/// Takes the file system from the server of a launcher that died, and ends that server.
fn take_over(root: &Path) -> Option<(FileSystem, String)> {
    let socket = crate::exchange::open_socket(&control::socket_path(root)).ok()?;
    say(&socket, &Order::HandOver, &[]).ok()?;
    let timeout = Timespec {
        tv_sec: i64::try_from(HAND_OVER_TIMEOUT.as_secs()).unwrap_or(1),
        tv_nsec: 0,
    };
    let mut waiting = [PollFd::new(&socket, PollFlags::IN)];
    let answered = poll(&mut waiting, Some(&timeout)).is_ok_and(|count| count > 0);
    let packet = if answered {
        packet::receive(&socket).ok().flatten()
    } else {
        None
    };
    let handed = packet.and_then(|packet| {
        let notice = serde_json::from_slice(&packet.bytes).ok()?;
        let Notice::Handed { history, .. } = notice else {
            return None;
        };
        let [device, mount] = <[OwnedFd; 2]>::try_from(packet.descriptors).ok()?;
        Some((FileSystem { device, mount }, history))
    });
    if handed.is_none() {
        // It hangs, and with it every reader: what it holds is lost.
        if let Ok(peer) = rustix::net::sockopt::socket_peercred(&socket)
            && let Ok(server) = pidfd_open(peer.pid, PidfdFlags::empty())
        {
            log("the server of the VEs' view does not hand over: running VEs lose it");
            let _ = pidfd_send_signal(server, Signal::KILL);
        }
    }
    handed
}

/// A line in the launcher's log.
fn log(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_restarted_at_once_and_given_up_after_some_seconds() {
        assert_eq!(pause_after(1), Duration::ZERO);
        let all: Duration = (1..=FAILURES_MAX).map(pause_after).sum();
        assert!(
            all > Duration::from_secs(5) && all < Duration::from_secs(30),
            "{all:?}"
        );
    }
}
