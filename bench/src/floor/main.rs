//! The floor: the least program that makes what a VE with a trivial init has (user, mount, pid,
//! network, uts, ipc and cgroup namespaces, an overlay over idmapped layers, the same file systems
//! of its own, a group in every hierarchy, a link with address and route) and executes its init.
//!
//! ```text
//! bench-floor create|start|stop|delete|cycle FOLDER NAME UID_BASE ADDRESS
//!   FOLDER/tree                    what the root is made of
//!   FOLDER/NAME/{upper,work,pid}   what is private
//! ```
//!
//! It records nothing, checks nothing, limits nothing and cleans nothing up that failed: no program
//! that does less can be said to have started a VE. `cycle` does all four in one process, and writes
//! the time of the init's first instruction.
//!
//! It waits for nothing for ever: a first process that died, or hangs, is told of and killed, and one whose
//! parent died ends.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program"
)]

mod child;
mod dev;
mod groups;
mod link;
mod wire;

use std::cell::Cell;
use std::ffi::OsString;
use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bench::{stack, users};
use kernel::clone::{Child, Options, namespaces, spawn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::groups::Groups;

const NAMESPACES: u64 = namespaces::USER
    | namespaces::MOUNT
    | namespaces::PID
    | namespaces::NETWORK
    | namespaces::UTS
    | namespaces::IPC;

/// How long something that takes milliseconds may take on a machine that is busy otherwise.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a container is, from the command line.
struct Container {
    folder: PathBuf,
    name: String,
    base: u32,
    address: Ipv4Addr,
}

fn main() -> ExitCode {
    match run(std::env::args_os().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Vec<OsString>) -> Result<()> {
    let words = arguments.into_iter().map(OsString::into_string);
    let words: Vec<String> = words.collect::<Result<_, _>>().ok().context("odd words")?;
    let [verb, folder, name, base, address] = words.as_slice() else {
        bail!("usage: bench-floor create|start|stop|delete|cycle FOLDER NAME UID_BASE ADDRESS");
    };
    let container = Container {
        folder: folder.into(),
        name: name.clone(),
        base: base.parse().context("UID_BASE is no number")?,
        address: address.parse().context("ADDRESS is none")?,
    };
    match verb.as_str() {
        "create" => stack::prepare(&container.private()),
        "start" => container.note(&container.start()?),
        "stop" => container.stop(),
        "delete" => container.delete(),
        "cycle" => container.cycle(),
        other => bail!("no verb `{other}`"),
    }
}

impl Container {
    fn private(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    fn note(&self, child: &Child) -> Result<()> {
        fs::write(self.private().join("pid"), child.pid.to_string()).context("cannot note the pid")
    }

    fn start(&self) -> Result<Child> {
        link::await_gone(&self.link_name())?;
        let groups = Groups::make(&self.name)?;
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let ours = Cell::new(Some(ours));
        let options = Options {
            namespaces: NAMESPACES,
            into_cgroup: groups.v2.as_ref().map(AsFd::as_fd),
            sibling: false,
        };
        let child = spawn(&options, || {
            // With a copy of the parent's end it would never see that the parent is gone.
            drop(ours.take());
            child::run(self.address, &groups.tasks, &theirs)
        })
        .context("no first process")?;
        drop(theirs);
        let channel = ours.into_inner().context("no channel")?;
        if let Err(error) = self.equip(&child, &channel) {
            // What is the first process's own goes with it.
            let _ = pidfd_send_signal(&child.pidfd, Signal::KILL);
            let _ = await_end(&child.pidfd);
            return Err(error);
        }
        Ok(child)
    }

    /// Gives the first process what it waits for, and waits for the execution of the init.
    fn equip(&self, child: &Child, channel: &OwnedFd) -> Result<()> {
        users::map(child.pid, self.base)?;
        let space = kernel::pidfd::user_namespace(&child.pidfd)?;
        let lower = self.folder.join("tree");
        let root = stack::mount(&lower, &self.private(), &space, self.base)?;
        let dev = dev::build(self.base)?;
        link::make(&self.link_name(), child, self.address)?;
        wire::send(channel, &[root.as_fd(), dev.as_fd()])?;
        await_execution(channel, child)
    }

    fn stop(&self) -> Result<()> {
        let file = self.private().join("pid");
        let text = fs::read_to_string(&file).context("it was not started")?;
        let pid = text
            .parse()
            .ok()
            .and_then(Pid::from_raw)
            .context("no pid")?;
        self.end(&pidfd_open(pid, PidfdFlags::empty())?)
    }

    fn end(&self, init: &OwnedFd) -> Result<()> {
        pidfd_send_signal(init, Signal::TERM)?;
        let ended = await_end(init);
        if ended.is_err() {
            let _ = pidfd_send_signal(init, Signal::KILL);
        }
        ended
    }

    fn delete(&self) -> Result<()> {
        groups::remove(&self.name)?;
        fs::remove_dir_all(self.private()).context("cannot remove the private tree")
    }

    fn cycle(&self) -> Result<()> {
        stack::prepare(&self.private())?;
        let child = self.start()?;
        println!("{}", first_instruction(&child)?);
        self.end(&child.pidfd)?;
        self.delete()
    }

    /// Interfaces have names of at most 15 bytes.
    fn link_name(&self) -> String {
        format!("fl{}", self.base / users::COUNT)
    }
}

/// Waits until the channel closes with the execution of the init.
fn await_execution(channel: &OwnedFd, child: &Child) -> Result<()> {
    if !is_ready_within(channel, PATIENCE)? {
        bail!("the first process does not come to the init");
    }
    let mut words = [0; 512];
    match rustix::io::read(channel, &mut words)? {
        // It closes with a death, too.
        0 if is_ready_within(&child.pidfd, Duration::ZERO)? => bail!("the first process died"),
        0 => Ok(()),
        length => bail!("{}", String::from_utf8_lossy(&words[..length])),
    }
}

/// The init's name, once it has written the time there.
fn first_instruction(child: &Child) -> Result<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let path = format!("/proc/{}/comm", child.pid);
        let name = fs::read_to_string(path).context("the init is gone")?;
        if name.trim_end().len() == 15 {
            return Ok(name.trim_end().to_owned());
        }
        // One that died keeps its name.
        if is_ready_within(&child.pidfd, Duration::ZERO)? {
            bail!("the init died before it had a name");
        }
        if Instant::now() > deadline {
            bail!("the init `{}` left no time", name.trim_end());
        }
        std::thread::yield_now();
    }
}

fn await_end(process: &OwnedFd) -> Result<()> {
    if !is_ready_within(process, PATIENCE)? {
        bail!("the init does not end");
    }
    Ok(())
}

/// Waits until a descriptor has something to tell: a process, its end.
fn is_ready_within(descriptor: &OwnedFd, patience: Duration) -> Result<bool> {
    let timeout = Timespec {
        tv_sec: patience.as_secs().try_into().context("too much patience")?,
        tv_nsec: patience.subsec_nanos().into(),
    };
    let mut wanted = [PollFd::new(descriptor, PollFlags::IN)];
    let count = rustix::io::retry_on_intr(|| poll(&mut wanted, Some(&timeout)))?;
    Ok(count > 0)
}

/// Writes to a descriptor whose file takes whole values only.
fn put(file: BorrowedFd<'_>, value: &str) -> Result<()> {
    rustix::io::write(file, value.as_bytes())?;
    Ok(())
}
