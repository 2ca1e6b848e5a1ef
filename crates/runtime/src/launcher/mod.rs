//! The launcher's inside, and how the daemon starts one.
//!
//! - `state`, `poller`: the loop; `requests`: what the daemon asks; `watching`: what happens by
//!   itself.
//! - `launch`: a launch as seen by the launcher; `child`, `inside`, `facts`: as seen by the VE's
//!   first process; `root`, `image`, `dev`: what is handed from the one to the other.
//! - `clocks`: a VE's uptime, counted from its own start.
//! - `exec`, `command`, `files`: work in a VE; `confine`, `identity`: the walls around it.
//! - `restore`: waking a VE from disk, as seen by the launcher; `restorer`: by what becomes CRIU.
//! - `view`: the VEs' own `/proc`, held by the launcher; `covers`: bound by a VE's first process.
//! - `report`, `step`: how the launcher's processes tell it what happened.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, inotify};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{DumpableBehavior, Resource, Rlimit};

use crate::client::socket_path;

mod child;
mod clocks;
mod command;
mod confine;
mod console;
mod covers;
mod dev;
mod exec;
mod facts;
mod files;
mod identity;
mod image;
mod inside;
mod launch;
mod poller;
mod report;
mod requests;
mod restore;
mod restorer;
mod root;
mod state;
mod step;
mod tree;
mod ves;
mod view;
mod watching;

/// The kernel's usual bound on open files of one process (`fs.nr_open`, proc_sys_fs(5)).
const OPEN_FILES_MAX: u64 = 1_048_576;
/// How long a new launcher may take until it listens.
const SPAWN_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a killed launcher's lock is waited for.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);

/// Daemons that may wait to be heard; there is one, and a doctor now and then.
const BACKLOG: i32 = 16;

/// Why no launcher could be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The program cannot be opened or executed.
    #[error("cannot prepare the launcher program {program}")]
    Program {
        /// Its path.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its log cannot be written.
    #[error("cannot write the launcher's log {log}")]
    Log {
        /// Its path.
        log: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended at once or never listened.
    #[error("the launcher did not come up: see {log}")]
    NotUp {
        /// Its log.
        log: PathBuf,
    },
}

/// Why the launcher cannot work.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another launcher serves this node.
    #[error("another launcher serves the node at {root}")]
    Held {
        /// The node's root.
        root: PathBuf,
    },
    /// Something that it needs was refused.
    #[error("cannot {step}")]
    Prepare {
        /// What.
        step: &'static str,
        /// Why.
        #[source]
        source: Errno,
    },
}

/// Starts the launcher of the node at `root` from the program `binary`, in the caller's mount
/// namespace, in a session of its own, and returns when it listens.
///
/// The program runs from a read-only mount of its own, so nothing that gets hold of its executable
/// (the class of CVE-2019-5736) can change the file, whatever user it is.
///
/// # Errors
/// Says what could not be prepared; the launcher's own words are in `ROOT/log/launcher.log`.
pub fn spawn(binary: &Path, root: &Path) -> Result<(), SpawnError> {
    let log = root.join("log/launcher.log");
    let output = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(&log);
    let output = output.map_err(|source| SpawnError::Log {
        log: log.clone(),
        source,
    })?;
    let error = output.try_clone().map_err(|source| SpawnError::Log {
        log: log.clone(),
        source,
    })?;
    let program = |source| SpawnError::Program {
        program: binary.to_owned(),
        source,
    };
    let view = read_only_view(binary).map_err(program)?;
    let mut child = Command::new(format!("/proc/self/fd/{}", view.as_raw_fd()))
        .arg("--root")
        .arg(root)
        .current_dir("/")
        .env_clear()
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(error)
        .spawn()
        .map_err(program)?;
    let begun = Instant::now();
    let path = socket_path(root);
    while begun.elapsed() < SPAWN_TIMEOUT {
        if listens(&path, child.id()) {
            // It outlives this process; while both live, somebody has to reap it.
            let reaper = std::thread::Builder::new().name("launcher-reaper".to_owned());
            let _ = reaper.spawn(move || child.wait());
            return Ok(());
        }
        if !matches!(child.try_wait(), Ok(None)) {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let _ = child.kill();
    let _ = child.wait();
    Err(SpawnError::NotUp { log })
}

/// Whether this very process listens: the socket of one that was just killed may still answer.
fn listens(path: &Path, pid: u32) -> bool {
    crate::exchange::open_socket(path)
        .and_then(rustix::net::sockopt::socket_peercred)
        .is_ok_and(|peer| u32::try_from(peer.pid.as_raw_nonzero().get()) == Ok(pid))
}

/// The program by a mount of its own that is read-only, whatever the file is elsewhere.
pub(crate) fn read_only_view(binary: &Path) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let view = rustix::mount::open_tree(rustix::fs::CWD, binary, flags)?;
    kernel::mount::make_read_only(&view)?;
    Ok(view)
}

/// Serves the node at `root` until a daemon ends it. The whole of the launcher program.
///
/// # Errors
/// [`ServeError::Held`] when another launcher does already; else what was refused.
pub fn serve(root: &Path) -> Result<(), ServeError> {
    let prepare = |step| move |source| ServeError::Prepare { step, source };
    // Fails only for one that leads a session already.
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"vessel-launcher");
    rustix::process::chdir("/").map_err(prepare("enter the root directory"))?;
    // Copies of this process enter VEs: nobody there may look into them.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(prepare("protect its memory"))?;
    identity::keep_capabilities().map_err(prepare("keep its capabilities"))?;
    // An init that CRIU woke becomes its child when CRIU ends.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(prepare("become the parent of woken VEs"))?;
    // Every file that it makes gets its mode by name.
    rustix::process::umask(Mode::empty());
    raise_open_files();
    let lock = take_lock(root)?;
    let listener = listen(&socket_path(root)).map_err(prepare("listen on its socket"))?;
    let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
    let roots_freed = inotify::init(flags).map_err(prepare("watch roots"))?;
    let poller = poller::Poller::new().map_err(prepare("wait for events"))?;
    poller
        .add(&listener, poller::Source::Listener)
        .map_err(prepare("wait for events"))?;
    poller
        .add(&roots_freed, poller::Source::Roots)
        .map_err(prepare("wait for events"))?;
    let mut state = state::State::new(poller, listener, roots_freed, root);
    let outcome = state.serve().map_err(prepare("wait for events"));
    let _ = std::fs::remove_file(socket_path(root));
    drop(lock);
    outcome
}

/// Takes the lock that makes this the node's only launcher.
fn take_lock(root: &Path) -> Result<File, ServeError> {
    let path = root.join("run/launcher.lock");
    let lock = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path);
    let lock = lock.map_err(|error| ServeError::Prepare {
        step: "open its lock",
        source: Errno::from_io_error(&error).unwrap_or(Errno::IO),
    })?;
    let begun = Instant::now();
    loop {
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(lock),
            // One that was just killed lets go of it in a moment.
            Err(Errno::WOULDBLOCK) if begun.elapsed() < LOCK_TIMEOUT => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(Errno::WOULDBLOCK) => {
                return Err(ServeError::Held {
                    root: root.to_owned(),
                });
            }
            Err(source) => {
                return Err(ServeError::Prepare {
                    step: "take its lock",
                    source,
                });
            }
        }
    }
}

fn listen(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let listener =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // Left by a launcher that was killed; the lock says that it is not in use.
    match rustix::fs::unlink(path) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    let usual = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = rustix::net::bind(&listener, &SocketAddrUnix::new(path)?);
    rustix::process::umask(usual);
    bound?;
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener)
}

/// Six descriptors a VE: takes what the hard limit gives, and as many as the kernel usually lets a process
/// have (`fs.nr_open`) if it may. What VEs get is set for each, and is no more than this.
fn raise_open_files() {
    let most = Rlimit {
        current: Some(OPEN_FILES_MAX),
        maximum: Some(OPEN_FILES_MAX),
    };
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let enough = limit
        .maximum
        .is_none_or(|maximum| maximum >= OPEN_FILES_MAX);
    if !enough && rustix::process::setrlimit(Resource::Nofile, most).is_ok() {
        return;
    }
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let _ = rustix::process::setrlimit(Resource::Nofile, raised);
}
