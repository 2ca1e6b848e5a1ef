//! Waking a VE that is on disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cgroup::VeGroup;
use runtime::protocol::Launched;
use runtime::restore::RESTORE_LOG;
use runtime::{CallError, Client, LaunchSpec, RestoreSpec};

use crate::criu::Criu;
use crate::gate::{self, Gate, Waiting};
use crate::manifest::{Group, Manifest, ManifestError};
use crate::suspend::Follower;
use crate::{folder, groups, words};

/// How long processes may take to be gone that a failed CRIU left.
const KILL_TIMEOUT: Duration = Duration::from_secs(20);

/// What is to be woken.
#[derive(Debug)]
pub struct ResumeRequest<'a> {
    /// The VE as it would be started: its root, link and console. Facts are not looked at.
    pub launch: LaunchSpec,
    /// Its control groups, made as for a start.
    pub group: &'a VeGroup,
    /// The checkpoint.
    pub folder: &'a Path,
    /// Where a socket can be made, for this VE alone.
    pub gate: &'a Path,
    /// A folder for CRIU's log, for this VE alone, with room where the pool has none. It stays when a
    /// waking failed.
    pub work: &'a Path,
    /// The CRIU to use.
    pub criu: &'a Criu,
    /// The launcher, which becomes the init's parent.
    pub launcher: &'a Client,
    /// Who looks on.
    pub follower: &'a dyn Follower,
}

/// Why a VE was not woken. Its checkpoint is as before but after [`ResumeError::Late`].
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// What is on disk is no checkpoint of this VE.
    #[error("the checkpoint at {folder} cannot be used")]
    Manifest {
        /// Where it is.
        folder: PathBuf,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// The place where CRIU asks cannot be made.
    #[error("cannot make {path}")]
    Gate {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The folder for CRIU's log cannot be made.
    #[error("cannot make {path} anew")]
    Work {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its control groups cannot be made.
    #[error("cannot make the control groups of the VE again")]
    Groups(#[source] io::Error),
    /// CRIU failed.
    #[error("CRIU cannot wake the VE, which stays on disk: {words}")]
    Criu {
        /// What CRIU said.
        words: String,
        /// What the launcher said.
        #[source]
        source: CallError,
    },
    /// CRIU failed when the VE's processes had begun to go on.
    #[error("CRIU failed when the VE's processes began to go on: {words}")]
    Late {
        /// What CRIU said.
        words: String,
        /// What the launcher said.
        #[source]
        source: CallError,
    },
    /// The launcher refused before CRIU ran.
    #[error("the VE was not woken and stays on disk")]
    Launcher(#[source] CallError),
    /// The VE cannot be connected to the network.
    #[error("the VE cannot be connected and stays on disk")]
    Connect(#[source] CallError),
    /// Somebody changed his mind.
    #[error("it was cancelled; the VE stays on disk")]
    Cancelled,
    /// Files cannot be removed.
    #[error("cannot remove the checkpoint at {folder}")]
    Discard {
        /// Where it is.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Wakes a VE; returns when all its processes run and its link carries traffic. The checkpoint is
/// spent then, and the caller's to [`discard`].
///
/// # Errors
/// Says what failed; no process of the VE is left then.
pub fn resume(request: &ResumeRequest<'_>) -> Result<Launched, ResumeError> {
    let id = request.launch.id;
    let damaged = |source| ResumeError::Manifest {
        folder: request.folder.to_owned(),
        source,
    };
    let manifest = Manifest::read(request.folder, id).map_err(damaged)?;
    if let Some(top) = request.group.unified_path() {
        groups::make(&top, &manifest.groups).map_err(ResumeError::Groups)?;
    }
    // What an earlier try said would be told for this one's.
    let renewed = folder::remove(request.work).and_then(|()| std::fs::create_dir_all(request.work));
    renewed.map_err(|source| ResumeError::Work {
        path: request.work.to_owned(),
        source,
    })?;
    let log = request.work.join(RESTORE_LOG);
    let gate = Gate::open(request.gate).map_err(|source| ResumeError::Gate {
        path: request.gate.to_owned(),
        source,
    })?;
    let spec = RestoreSpec {
        launch: request.launch.clone(),
        criu: request.criu.program.clone(),
        images: request.folder.to_owned(),
        work: request.work.to_owned(),
        console: manifest.console,
        addresses_before: manifest.addresses,
        dev: manifest.dev,
        views: manifest.views,
        gate: gate.path().to_owned(),
    };
    let over = AtomicBool::new(false);
    let (woken, veto) = std::thread::scope(|scope| {
        let keeper = scope.spawn(|| keep(request, &manifest.groups, &gate, &over));
        let woken = request.launcher.restore(&spec);
        over.store(true, Ordering::Relaxed);
        (woken, keeper.join().unwrap_or(None))
    });
    if woken.is_ok() {
        // One that stays is renewed by the next waking.
        let _ = folder::remove(request.work);
    }
    woken.map_err(|source| {
        // A CRIU that was killed may leave processes; without any this does nothing.
        let _ = request.group.kill_all(KILL_TIMEOUT);
        veto.unwrap_or_else(|| failure(request, &log, source))
    })
}

/// Keeps the gate until CRIU has come through it, and the restore is over; why it was not let on.
fn keep(
    request: &ResumeRequest<'_>,
    groups: &[Group],
    gate: &Gate,
    over: &AtomicBool,
) -> Option<ResumeError> {
    let mut veto = None;
    while !over.load(Ordering::Relaxed) {
        match gate.look() {
            Ok(Some(waiting)) => veto = pass(request, groups, waiting).err(),
            // Who cannot be asked for whom he comes has been turned back by that.
            Ok(None) | Err(_) => std::thread::sleep(gate::POLL),
        }
    }
    veto
}

/// All processes are made, and none has run: sets their groups, connects the VE, and lets them go on.
fn pass(
    request: &ResumeRequest<'_>,
    groups: &[Group],
    waiting: Waiting,
) -> Result<(), ResumeError> {
    if request.follower.cancelled() {
        return Err(ResumeError::Cancelled);
    }
    if let Some(top) = request.group.unified_path() {
        groups::set_up(&top, groups).map_err(ResumeError::Groups)?;
    }
    let connected = request
        .launcher
        .connect_woken(request.launch.id, waiting.init);
    connected.map_err(ResumeError::Connect)?;
    // A script that is gone has not marked the checkpoint, and lets nobody on.
    let _ = waiting.let_on();
    Ok(())
}

fn failure(request: &ResumeRequest<'_>, log: &Path, source: CallError) -> ResumeError {
    let words = words::of(log).unwrap_or_else(|| format!("it gave no reason in {}", log.display()));
    if !exists(request.folder) {
        ResumeError::Late { words, source }
    } else if log.exists() {
        ResumeError::Criu { words, source }
    } else {
        ResumeError::Launcher(source)
    }
}

/// What the processes on disk need again: bytes of memory, and their number.
///
/// # Errors
/// Says what is wrong with the checkpoint.
pub fn needs(folder: &Path, id: ve::VeId) -> Result<(u64, u64), ManifestError> {
    let manifest = Manifest::read(folder, id)?;
    Ok((manifest.memory_bytes, manifest.processes))
}

/// Whether a checkpoint lies at `folder` that can be woken.
#[must_use]
pub fn exists(folder: &Path) -> bool {
    folder::is_valid(folder)
}

/// Removes a checkpoint and what an unfinished one left; none is well. An error comes before it is
/// void, or leaves a rest that [`sweep`] removes.
///
/// # Errors
/// Names the folder that stays.
pub fn discard(folder: &Path) -> Result<(), ResumeError> {
    let unfinished = folder::unfinished(folder);
    let removed = folder::discard(folder).and_then(|()| folder::remove(&unfinished));
    removed.map_err(|source| ResumeError::Discard {
        folder: folder.to_owned(),
        source,
    })
}

/// Removes, of all checkpoints in a folder, those of VEs that `keep` does not name, and whatever
/// cannot be woken. Returns whose were removed.
///
/// # Errors
/// Names the folder.
pub fn sweep(all: &Path, keep: &[ve::VeId]) -> Result<Vec<String>, ResumeError> {
    let kept = |name: &str| keep.iter().any(|id| id.to_string() == name);
    folder::sweep(all, kept).map_err(|source| ResumeError::Discard {
        folder: all.to_owned(),
        source,
    })
}
