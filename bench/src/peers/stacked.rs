//! A root for runtimes that stack none themselves: a private layer over a shared tree, mounted at a
//! folder of the bench's own mount namespace, its files owned by the containers' users.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use bench::{stack, users};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};

use crate::stage::{PEER_ID, Stage};

#[derive(Debug)]
pub(super) struct Stacked {
    tree: PathBuf,
    folder: PathBuf,
    users: OwnedFd,
}

impl Stacked {
    /// A root over `tree`, in `folder`, which must exist when it is prepared.
    pub(super) fn new(stage: &Stage, tree: &Path, folder: &Path) -> Result<Self> {
        Ok(Self {
            tree: tree.to_owned(),
            folder: folder.to_owned(),
            users: stage.users().try_clone().context("no descriptor left")?,
        })
    }

    /// Where it is mounted.
    pub(super) fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// Makes what lies on disk.
    pub(super) fn prepare(&self) -> Result<()> {
        fs::create_dir(self.root()).context("cannot make a folder for a root")?;
        stack::prepare(&self.folder.join("private"))
    }

    /// Mounts it.
    pub(super) fn mount(&self) -> Result<()> {
        let base = PEER_ID * users::COUNT;
        let private = self.folder.join("private");
        let root = stack::mount(&self.tree, &private, &self.users, base)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&root, "", CWD, self.root(), flags).context("cannot attach a root")
    }

    /// Unmounts it, also while something uses it.
    pub(super) fn unmount(&self) {
        let _ = unmount(self.root(), UnmountFlags::DETACH);
    }
}
