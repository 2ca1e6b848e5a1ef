//! Putting a running VE on disk.

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use cgroup::{Controller, VeGroup};
use runtime::protocol::Launched;
use runtime::restore::{COMMON_OPTIONS, CONSOLE_NAME, DEV_NAME};
use ve::VeId;

use crate::criu::Criu;
use crate::inspect::{self, Walk};
use crate::manifest::{Manifest, VERSION};
use crate::{folder, groups, words};

/// How long the VE may take to stand still.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long killed processes may take to be gone, and thawed ones to run.
const END_TIMEOUT: Duration = Duration::from_secs(20);
/// A directory can fall out of the cache between the walk and the dump; then it is tried again
/// after a closer walk.
const ATTEMPTS: [Walk; 2] = [Walk::Directories, Walk::Files];

const LOG: &str = "dump.log";
const OUTPUT: &str = "dump.out";
/// CRIU writes it last of all, when everything else went well and the processes are gone.
const LAST_WRITTEN: &str = "stats-dump";
/// Who writes the checkpoint, for a daemon that comes after.
const WRITER: &str = "writer";

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
    /// The CRIU to use.
    pub criu: &'a Criu,
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
    #[error(
        "`{name}` (process {pid}) was entered into VE {id} from outside and would be lost: \
             end it (`exec`, `enter`, a file transfer) and try again"
    )]
    Stray {
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
    let mut failed = None;
    for how in ATTEMPTS {
        inspect::walk(request.init.pid, how);
        let write = |source| SuspendError::Write {
            folder: request.folder.to_owned(),
            source,
        };
        let new = folder::begin(request.folder).map_err(write)?;
        match attempt(request, &new) {
            Ok(frozen) => {
                let bytes = folder::bytes(&new);
                finish(request.id, request.group, &new, request.folder)?;
                return Ok(Suspended {
                    bytes,
                    took: begun.elapsed(),
                    frozen,
                });
            }
            Err(error) => {
                let cached = matches!(&error, SuspendError::Criu { words, .. }
                    if words.contains("fsnotify") || words.contains("inotify"));
                folder::remove(&new).map_err(write)?;
                if !cached {
                    return Err(error);
                }
                failed = Some(error);
            }
        }
    }
    Err(failed.unwrap_or_else(|| SuspendError::Run(io::ErrorKind::Other.into())))
}

fn check_strays(request: &SuspendRequest<'_>) -> Result<(), SuspendError> {
    let id = request.id;
    let processes = request
        .group
        .processes()
        .map_err(|error| SuspendError::Look {
            id,
            what: "processes",
            source: io::Error::other(error),
        })?;
    match inspect::stray(&processes, request.init.pid) {
        None => Ok(()),
        Some(stray) => Err(SuspendError::Stray {
            id,
            pid: stray.pid,
            name: stray.name,
        }),
    }
}

/// One try, from a running VE to one that is gone or runs on; how long it was frozen.
fn attempt(request: &SuspendRequest<'_>, new: &Path) -> Result<Duration, SuspendError> {
    let id = request.id;
    let freeze = |source| SuspendError::Freeze { id, source };
    request.group.freeze(FREEZE_TIMEOUT).map_err(freeze)?;
    let begun = Instant::now();
    let dumped = look(request, new).and_then(|console| dump(request, new, &console));
    match dumped {
        Ok(()) => Ok(begun.elapsed()),
        Err(error) => {
            request.group.thaw(END_TIMEOUT).map_err(freeze)?;
            Err(error)
        }
    }
}

/// Notes what CRIU leaves out, of a VE that stands still.
fn look(request: &SuspendRequest<'_>, new: &Path) -> Result<String, SuspendError> {
    // Again: somebody may have come while the directories were walked.
    check_strays(request)?;
    let id = request.id;
    let at = |what| move |source| SuspendError::Look { id, what, source };
    let init = request.init.pid;
    let console = inspect::console(init).map_err(|errno| at("console")(errno.into()))?;
    let dev = inspect::dev_entries(init, id.uid_base()).map_err(at("/dev"))?;
    let groups = match request.group.unified_path() {
        Some(top) => groups::save(&top).map_err(at("control groups"))?,
        None => Vec::new(),
    };
    let manifest = Manifest {
        version: VERSION,
        id: id.get(),
        criu: request.criu.version.clone(),
        console: console.clone(),
        addresses: request.addresses.to_vec(),
        dev,
        groups,
    };
    let written = manifest.write(new);
    written.map_err(|source| SuspendError::Write {
        folder: new.to_owned(),
        source,
    })?;
    Ok(console)
}

fn dump(request: &SuspendRequest<'_>, new: &Path, console: &str) -> Result<(), SuspendError> {
    let mut criu = start(request, new, console).map_err(SuspendError::Run)?;
    let status = criu.wait().map_err(SuspendError::Run)?;
    if status.success() {
        return Ok(());
    }
    let words = words::of(&new.join(LOG));
    Err(SuspendError::Criu {
        id: request.id,
        words,
    })
}

fn start(request: &SuspendRequest<'_>, new: &Path, console: &str) -> io::Result<Child> {
    let output = File::create(new.join(OUTPUT))?;
    let mut command = request.criu.command(request.id.uid_base().get());
    command.args(["dump", "--tree", &request.init.pid.to_string()]);
    command
        .arg("--images-dir")
        .arg(new)
        .args(["--log-file", LOG, "-v1", "--root", "/"]);
    command.args(["--external", &format!("mnt[/dev]:{DEV_NAME}")]);
    command.args(["--external", &format!("mnt[/dev/console]:{CONSOLE_NAME}")]);
    command.args(["--external", console]);
    if request.linked {
        let host_end = request.id.interface_name();
        command.args(["--external", &format!("veth[eth0]:{host_end}")]);
    }
    command.args(COMMON_OPTIONS);
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
    let criu = command.process_group(0).spawn()?;
    let started = kernel::proc::start_time(criu.id()).map_or(0, |time| time.ticks());
    fs::write(new.join(WRITER), format!("{} {started}", criu.id()))?;
    Ok(criu)
}

fn finish(id: VeId, group: &VeGroup, new: &Path, folder: &Path) -> Result<(), SuspendError> {
    let owner = id.uid_base().get();
    folder::finish(new, folder, owner).map_err(|source| SuspendError::Write {
        folder: folder.to_owned(),
        source,
    })?;
    // CRIU ended them all; this waits until they are gone, and thaws the group.
    let killed = group.kill_all(END_TIMEOUT);
    killed.map_err(|source| SuspendError::Kill { id, source })
}

/// What became of a suspension whose daemon died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The VE is on disk and its processes are gone.
    Asleep,
    /// It is not on disk; it runs on, thawed, if its init lives.
    Awake,
}

/// Ends what a daemon began that died within [`suspend`]: waits for its CRIU, then completes the
/// checkpoint or takes it back. `init` is that of the VE, if it had one.
///
/// # Errors
/// What cannot be completed or taken back; calling again is well.
pub fn settle(
    id: VeId,
    init: Option<Launched>,
    group: &VeGroup,
    folder: &Path,
) -> Result<Settled, SuspendError> {
    let alive = || init.is_some_and(|init| lives(init.pid, init.start_time));
    let new = folder::unfinished(folder);
    if !new.exists() {
        let asleep = !alive() && folder.exists();
        return Ok(if asleep {
            Settled::Asleep
        } else {
            Settled::Awake
        });
    }
    if let Some((pid, started)) = writer(&new) {
        while lives(pid, started) {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    if new.join(LAST_WRITTEN).exists() && !alive() {
        finish(id, group, &new, folder)?;
        return Ok(Settled::Asleep);
    }
    let thawed = group.thaw(END_TIMEOUT);
    folder::remove(&new).map_err(|source| SuspendError::Write {
        folder: folder.to_owned(),
        source,
    })?;
    // A VE without processes may have no group any more.
    if alive() {
        thawed.map_err(|source| SuspendError::Freeze { id, source })?;
    }
    Ok(Settled::Awake)
}

fn writer(new: &Path) -> Option<(u32, u64)> {
    let text = fs::read_to_string(new.join(WRITER)).ok()?;
    let (pid, started) = text.split_once(' ')?;
    Some((pid.parse().ok()?, started.parse().ok()?))
}

fn lives(pid: u32, started: u64) -> bool {
    // One that ended and was not reaped yet counts as ended.
    let zombie = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
    };
    kernel::proc::start_time(pid).is_ok_and(|time| time.ticks() == started) && !zombie()
}
