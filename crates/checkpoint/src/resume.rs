//! Waking a VE that is on disk.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cgroup::VeGroup;
use runtime::protocol::Launched;
use runtime::restore::RESTORE_LOG;
use runtime::{CallError, Client, LaunchSpec, RestoreSpec};

use crate::criu::Criu;
use crate::manifest::{Manifest, ManifestError};
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
    /// The CRIU to use.
    pub criu: &'a Criu,
    /// The launcher, which becomes the init's parent.
    pub launcher: &'a Client,
}

/// Why a VE was not woken. Its checkpoint is as before.
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
    /// Its control groups cannot be made.
    #[error("cannot make the control groups of the VE again")]
    Groups(#[source] io::Error),
    /// The launcher or CRIU failed.
    #[error("CRIU cannot wake the VE, which stays on disk: {words}")]
    Criu {
        /// What CRIU said.
        words: String,
        /// What the launcher said.
        #[source]
        source: CallError,
    },
    /// The launcher refused before CRIU ran.
    #[error("the VE was not woken and stays on disk")]
    Launcher(#[source] CallError),
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

/// Wakes a VE; returns when all its processes run and its link carries traffic. The checkpoint
/// stays until [`discard`]: by then the caller has written down that the VE runs.
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
        groups::restore(&top, &manifest.groups).map_err(ResumeError::Groups)?;
    }
    let log = request.folder.join(RESTORE_LOG);
    // What an earlier try said would be told for this one's.
    let _ = std::fs::remove_file(&log);
    let spec = RestoreSpec {
        launch: request.launch.clone(),
        criu: request.criu.program.clone(),
        images: request.folder.to_owned(),
        console: manifest.console,
        addresses_before: manifest.addresses,
        dev: manifest.dev,
    };
    request.launcher.restore(&spec).map_err(|source| {
        // A CRIU that was killed may leave processes; without any this does nothing.
        let _ = request.group.kill_all(KILL_TIMEOUT);
        if log.exists() {
            ResumeError::Criu {
                words: words::of(&log),
                source,
            }
        } else {
            ResumeError::Launcher(source)
        }
    })
}

/// Whether a complete checkpoint lies at `folder`.
#[must_use]
pub fn exists(folder: &Path) -> bool {
    folder.is_dir()
}

/// Removes a checkpoint and what an unfinished one left; none is well.
///
/// # Errors
/// Names the folder that stays.
pub fn discard(folder: &Path) -> Result<(), ResumeError> {
    for path in [folder.to_owned(), folder::unfinished(folder)] {
        folder::remove(&path).map_err(|source| ResumeError::Discard {
            folder: path,
            source,
        })?;
    }
    Ok(())
}
