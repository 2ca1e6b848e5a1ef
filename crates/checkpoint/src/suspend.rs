//! Putting a running VE on disk.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use cgroup::{Controller, VeGroup};
use procview::{PLACES, Place};
use runtime::gate::GATE_VARIABLE;
use runtime::protocol::Launched;
use runtime::restore::{COMMON_OPTIONS, CONSOLE_NAME, DEV_NAME, view_name};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use ve::VeId;

use crate::console;
use crate::criu::Criu;
use crate::gate::{self, Gate, Waiting};
use crate::inspect;
use crate::manifest::{Manifest, VERSION};
use crate::settle::{lives, unfreeze};
use crate::walk::{Walk, walk};
use crate::{folder, groups, watches, words};

/// How long the VE may take to stand still.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long killed processes may take to be gone, and thawed ones to run.
pub(crate) const END_TIMEOUT: Duration = Duration::from_secs(20);
/// How long CRIU may take. It writes half a GB of memory a second to a fast disk; a VE of 64 GB on a
/// slow one fits.
const DUMP_TIMEOUT: Duration = Duration::from_secs(900);
/// How often the follower hears how much is written.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);
/// A directory can fall out of the cache between the walk and the dump; then it is tried again
/// after a closer walk.
const ATTEMPTS: [Walk; 2] = [Walk::Directories, Walk::Files];

const LOG: &str = "dump.log";
const OUTPUT: &str = "dump.out";
/// Words by which a daemon that comes after finds the CRIU that writes.
pub(crate) const DUMP: &str = "dump";
pub(crate) const IMAGES_FOLDER: &str = "--images-dir";

/// Who looks on while a VE is put on disk, or woken.
pub trait Follower: std::fmt::Debug + Sync {
    /// Takes note of how many bytes were written.
    fn wrote(&self, bytes: u64);
    /// Whether it shall be left as it was, after all. CRIU can be stopped at the end of its work
    /// only.
    fn cancelled(&self) -> bool;
}

/// What is to be put on disk.
#[derive(Debug)]
pub struct SuspendRequest<'a> {
    /// The VE.
    pub id: VeId,
    /// Its init.
    pub init: Launched,
    /// Its control groups.
    pub group: &'a VeGroup,
    /// Whether it has a link.
    pub linked: bool,
    /// The addresses that it has inside.
    pub addresses: &'a [IpAddr],
    /// The checkpoint's folder. Its parent is made if need be; it should lie on the pool, where
    /// there is room for all of the VE's memory.
    pub folder: &'a Path,
    /// Where a socket can be made, for this VE alone.
    pub gate: &'a Path,
    /// The CRIU to use.
    pub criu: &'a Criu,
    /// Who looks on.
    pub follower: &'a dyn Follower,
}

/// A VE that is on disk.
#[derive(Clone, Copy, Debug)]
pub struct Suspended {
    /// Size of its images in bytes.
    pub bytes: u64,
    /// How long it took in all.
    pub took: Duration,
    /// How long the VE stood still before its processes were gone.
    pub frozen: Duration,
}

/// Why a VE was not put on disk. It runs on.
#[derive(Debug, thiserror::Error)]
pub enum SuspendError {
    /// Somebody is in it.
    #[error("`{name}` (process {pid}) was entered into VE {id} from outside and would be lost")]
    Stray {
        /// The VE.
        id: VeId,
        /// The process.
        pid: u32,
        /// Its name.
        name: String,
    },
    /// Somebody is at its console.
    #[error("`{name}` (process {pid}) in VE {id} holds the console by /dev/tty")]
    Console {
        /// The VE.
        id: VeId,
        /// The process.
        pid: u32,
        /// Its name.
        name: String,
    },
    /// It ended by itself meanwhile.
    #[error("VE {id} ended while it was being put on disk")]
    Ended {
        /// The VE.
        id: VeId,
    },
    /// Its console was cut off when the launcher was killed that had it.
    #[error(
        "the console of VE {id} was cut off when the node's launcher was killed, and `{name}` \
         (process {pid}) still holds it"
    )]
    DeadConsole {
        /// The VE.
        id: VeId,
        /// The process.
        pid: u32,
        /// Its name.
        name: String,
    },
    /// It cannot be frozen or thawed.
    #[error("VE {id} cannot be held still")]
    Freeze {
        /// The VE.
        id: VeId,
        /// Why.
        #[source]
        source: cgroup::FreezeError,
    },
    /// Something about it cannot be found out.
    #[error("cannot look at the {what} of VE {id}")]
    Look {
        /// The VE.
        id: VeId,
        /// At what.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The checkpoint cannot be written.
    #[error("cannot write the checkpoint at {folder}")]
    Write {
        /// Where.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody changed his mind.
    #[error("it was cancelled; VE {id} runs on")]
    Cancelled {
        /// The VE.
        id: VeId,
    },
    /// CRIU cannot be run.
    #[error("cannot run CRIU")]
    Run(#[source] io::Error),
    /// CRIU cannot put it on disk.
    #[error("CRIU cannot put VE {id} on disk; it runs on: {words}")]
    Criu {
        /// The VE.
        id: VeId,
        /// What CRIU said.
        words: String,
    },
    /// It is on disk, and something of it cannot be ended.
    #[error("VE {id} is on disk, but processes of it are left")]
    Kill {
        /// The VE.
        id: VeId,
        /// Why.
        #[source]
        source: cgroup::KillError,
    },
}

/// Puts a VE on disk. Blocks: seconds for each GB of memory.
///
/// On success its processes are gone and the folder holds all of them; its groups and its link's
/// remains are the caller's to clear, as after any end. On failure it runs on.
///
/// # Errors
/// Says what is in the way; the folder is then not there.
pub fn suspend(request: &SuspendRequest<'_>) -> Result<Suspended, SuspendError> {
    let begun = Instant::now();
    check_strays(request)?;
    check_console(request)?;
    let mut failed = None;
    for how in ATTEMPTS {
        let watched = watches::watched(&processes(request)?);
        let watched = walk(request.init.pid, how, &watched);
        let new = folder::begin(request.folder).map_err(|source| write(request, source))?;
        match attempt(request, &new, &watched) {
            Ok(frozen) => {
                return Ok(Suspended {
                    bytes: folder::bytes(request.folder),
                    took: begun.elapsed(),
                    frozen,
                });
            }
            Err(error) => {
                let cached = matches!(&error, SuspendError::Criu { words, .. }
                    if words.contains("fsnotify") || words.contains("inotify"));
                folder::remove(&new).map_err(|source| write(request, source))?;
                if !lives(request.init.pid, request.init.start_time) {
                    return Err(SuspendError::Ended { id: request.id });
                }
                if !cached {
                    return Err(error);
                }
                failed = Some(error);
            }
        }
    }
    Err(failed.unwrap_or_else(|| SuspendError::Run(io::ErrorKind::Other.into())))
}

fn write(request: &SuspendRequest<'_>, source: io::Error) -> SuspendError {
    SuspendError::Write {
        folder: request.folder.to_owned(),
        source,
    }
}

fn processes(request: &SuspendRequest<'_>) -> Result<Vec<u32>, SuspendError> {
    let listed = request.group.processes();
    listed.map_err(|error| SuspendError::Look {
        id: request.id,
        what: "processes",
        source: io::Error::other(error),
    })
}

fn check_strays(request: &SuspendRequest<'_>) -> Result<(), SuspendError> {
    let id = request.id;
    match inspect::stray(&processes(request)?, request.init.pid) {
        None => Ok(()),
        Some(stray) => Err(SuspendError::Stray {
            id,
            pid: stray.pid,
            name: stray.name,
        }),
    }
}

fn check_console(request: &SuspendRequest<'_>) -> Result<(), SuspendError> {
    let id = request.id;
    match console::holder_of_dead_console(&processes(request)?, request.init.pid) {
        None => Ok(()),
        Some((pid, name)) => Err(SuspendError::DeadConsole { id, pid, name }),
    }
}

/// One try, from a running VE to one that is gone or runs on; how long it was frozen. `watched` are
/// paths in the VE that CRIU may have to find.
fn attempt(
    request: &SuspendRequest<'_>,
    new: &Path,
    watched: &[PathBuf],
) -> Result<Duration, SuspendError> {
    let id = request.id;
    let freeze = |source| SuspendError::Freeze { id, source };
    request.group.freeze(FREEZE_TIMEOUT).map_err(freeze)?;
    let begun = Instant::now();
    let dumped = look(request, new).and_then(|left_out| dump(request, new, &left_out, watched));
    match dumped {
        Ok(()) => {
            let frozen = begun.elapsed();
            // Its init is dead, and with it all that is in its pid namespace; this waits until they
            // are gone, and thaws the group.
            let killed = request.group.kill_all(END_TIMEOUT);
            killed.map_err(|source| SuspendError::Kill { id, source })?;
            Ok(frozen)
        }
        Err(error) => {
            folder::discard(request.folder).map_err(|source| write(request, source))?;
            unfreeze(request.group, request.init).map_err(freeze)?;
            Err(error)
        }
    }
}

/// Notes what CRIU leaves out, of a VE that stands still.
fn look(request: &SuspendRequest<'_>, new: &Path) -> Result<Manifest, SuspendError> {
    // Again: somebody may have come while the directories were walked.
    check_strays(request)?;
    let id = request.id;
    let at = |what| move |source| SuspendError::Look { id, what, source };
    let init = request.init.pid;
    let console = inspect::console(init).map_err(|errno| at("console")(errno.into()))?;
    let dev = inspect::dev_entries(init, id.uid_base()).map_err(at("/dev"))?;
    let views = inspect::views(init, id).map_err(at("mounts"))?;
    let groups = match request.group.unified_path() {
        Some(top) => groups::save(&top).map_err(at("control groups"))?,
        None => Vec::new(),
    };
    let usage = request.group.usage().map_err(io::Error::other);
    let usage = usage.map_err(at("use of memory"))?;
    let manifest = Manifest {
        version: VERSION,
        id: id.get(),
        criu: request.criu.version.clone(),
        console,
        addresses: request.addresses.to_vec(),
        memory_bytes: usage.memory_bytes.saturating_sub(usage.memory_cache_bytes),
        processes: usage.processes,
        dev,
        views,
        groups,
    };
    let written = manifest.write(new);
    written.map_err(|source| write(request, source))?;
    Ok(manifest)
}

/// Lets CRIU write; on success the checkpoint is valid and the VE's init dead, or about to be.
fn dump(
    request: &SuspendRequest<'_>,
    new: &Path,
    left_out: &Manifest,
    watched: &[PathBuf],
) -> Result<(), SuspendError> {
    let gate = Gate::open(request.gate).map_err(|source| SuspendError::Write {
        folder: request.gate.to_owned(),
        source,
    })?;
    let started = start(request, new, left_out, watched, gate.path());
    let mut criu = started.map_err(SuspendError::Run)?;
    let begun = Instant::now();
    let mut reported = begun;
    let mut passed = None;
    let status = loop {
        if let Some(status) = ended(&mut criu).map_err(SuspendError::Run)? {
            break status;
        }
        match gate.look() {
            Ok(None) => std::thread::sleep(gate::POLL),
            Ok(Some(waiting)) => passed = Some(pass(request, new, waiting)),
            Err(source) => passed = Some(Err(SuspendError::Run(source))),
        }
        if reported.elapsed() >= REPORT_INTERVAL {
            request.follower.wrote(folder::bytes(new));
            reported = Instant::now();
        }
        if begun.elapsed() >= DUMP_TIMEOUT {
            criu.kill().map_err(SuspendError::Run)?;
        }
    };
    match passed {
        Some(Ok(())) if !lives(request.init.pid, request.init.start_time) => Ok(()),
        Some(Err(error)) => Err(error),
        // A log of a checkpoint that was valid already lies there.
        _ => Err(complaint(request, &[new, request.folder], status)),
    }
}

/// How CRIU ended, if it has. One that was killed leaves helpers that wait for it for ever and hold
/// files of the pool: they end with it. It is still a zombie then, so that its number, which names them
/// all, is nobody else's.
fn ended(criu: &mut Child) -> io::Result<Option<ExitStatus>> {
    let pid = Pid::from_child(criu);
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    if waitid(WaitId::Pid(pid), options)?.is_none() {
        return Ok(None);
    }
    match kill_process_group(pid, Signal::KILL) {
        // Nobody is left but itself.
        Ok(()) | Err(Errno::SRCH | Errno::PERM) => {}
        Err(error) => return Err(error.into()),
    }
    criu.wait().map(Some)
}

/// All images are written: makes them the checkpoint, and lets CRIU end the processes.
fn pass(request: &SuspendRequest<'_>, new: &Path, waiting: Waiting) -> Result<(), SuspendError> {
    if request.follower.cancelled() {
        return Err(SuspendError::Cancelled { id: request.id });
    }
    let owner = request.id.uid_base().get();
    folder::finish(new, request.folder, owner).map_err(|source| write(request, source))?;
    waiting.let_on().map_err(SuspendError::Run)
}

fn complaint(request: &SuspendRequest<'_>, folders: &[&Path], status: ExitStatus) -> SuspendError {
    let said = folders
        .iter()
        .find_map(|folder| words::of(&folder.join(LOG)));
    // CRIU can make a terminal of its own open again by that name, and no other.
    let terminal = said.as_ref();
    if terminal.is_some_and(|words| words.contains("ctty inheritance"))
        && let Ok(processes) = request.group.processes()
        && let Some((pid, name)) = console::holder_of_tty(&processes)
    {
        let id = request.id;
        return SuspendError::Console { id, pid, name };
    }
    let ended = || match (status.code(), status.signal()) {
        (Some(code), _) => format!("it ended with code {code} and gave no reason"),
        (_, Some(signal)) => format!("it was ended by signal {signal}"),
        _ => "it ended for no known reason".to_owned(),
    };
    SuspendError::Criu {
        id: request.id,
        words: said.unwrap_or_else(ended),
    }
}

fn start(
    request: &SuspendRequest<'_>,
    new: &Path,
    left_out: &Manifest,
    watched: &[PathBuf],
    gate: &Path,
) -> io::Result<Child> {
    let output = File::create(new.join(OUTPUT))?;
    let mut command = request.criu.command(request.id.uid_base().get());
    command.args([DUMP, "--tree", &request.init.pid.to_string()]);
    command
        .arg(IMAGES_FOLDER)
        .arg(new)
        .args(["--log-file", LOG, "-v1", "--root", "/"]);
    command.args(["--external", &format!("mnt[/dev]:{DEV_NAME}")]);
    command.args(["--external", &format!("mnt[/dev/console]:{CONSOLE_NAME}")]);
    command.args(["--external", &left_out.console]);
    let is_bound = |place: &&Place| left_out.views.iter().any(|name| name == place.name);
    for place in PLACES.iter().filter(is_bound) {
        let external = format!("mnt[{}]:{}", place.target, view_name(place.name));
        command.args(["--external", &external]);
    }
    if request.linked {
        let host_end = request.id.interface_name();
        command.args(["--external", &format!("veth[eth0]:{host_end}")]);
    }
    command.args(COMMON_OPTIONS);
    // The last that is named is searched first, with all below it: hence children after parents.
    for path in watched {
        command.arg("--irmap-scan-path").arg(path);
    }
    let script = &request.criu.program.script;
    command.arg("--action-script").arg(script);
    command.env(GATE_VARIABLE, gate);
    // Frozen already: CRIU finds its processes by it, and leaves it frozen when it fails.
    let frozen = request.group.unified_path();
    if let Some(path) = frozen.or_else(|| request.group.v1_path(Controller::Freezer)) {
        command.arg("--freeze-cgroup").arg(path);
    }
    if let Some(plugins) = &request.criu.program.plugins {
        command.arg("--libdir").arg(plugins);
    }
    command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    // What ends the daemon from a terminal must not end this.
    command.process_group(0).spawn()
}
