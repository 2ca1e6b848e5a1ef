//! The group of one VE: making it, and getting processes into it.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::OFlags;
use ve::VeId;

use crate::error::{CreateError, EntryError, FileError};
use crate::files::Directory;
use crate::layout::{Controller, Home};
use crate::node::{Inner, inherit_cpuset};

/// Most groups that a VE may make below its own: systemd of a full server has about 60, and each
/// podman container in it a few. A bound, because the kernel's memory for them is not charged.
pub const NESTED_GROUPS_MAX: u32 = 1_024;
/// Deepest nesting of groups below a VE's own; systemd needs 6, podman in a user's session 12.
pub const NESTED_DEPTH_MAX: u32 = 32;
/// Name of the group, below the VE's own, for processes that come in from outside. A process that
/// sits in the root of a VE's groups breaks logind (`su` hangs), and on cgroup2 there may be none.
pub const EXEC_GROUP: &str = "vessel-exec";

/// The group of one VE in every hierarchy. Cheap to clone; holds no descriptor of its own.
#[derive(Clone, Debug)]
pub struct VeGroup {
    pub(crate) inner: Arc<Inner>,
    pub(crate) ve: VeId,
    pub(crate) below: PathBuf,
}

/// What a new process needs to enter a VE's group.
#[derive(Debug)]
pub struct Entry {
    /// v1 `tasks` files: the child writes `0` to each before it does anything else. It may do so with
    /// any rights and from any mount namespace, as it is the opener's rights that count. (A parent that writes
    /// the child's pid instead waits an RCU grace period for each: 12 to 15 ms in all.)
    pub v1_tasks: Vec<OwnedFd>,
    /// The cgroup2 directory, for `CLONE_INTO_CGROUP`. `None` where cgroup2 is not mounted.
    pub v2_directory: Option<OwnedFd>,
}

impl VeGroup {
    pub(crate) fn new(inner: Arc<Inner>, ve: VeId) -> Self {
        Self {
            inner,
            ve,
            below: PathBuf::from(ve.to_string()),
        }
    }

    /// The VE.
    #[must_use]
    pub fn ve(&self) -> VeId {
        self.ve
    }

    /// Opens what the VE's init needs to enter the group. Before a `clone`, in the parent.
    ///
    /// The child makes its cgroup namespace *after* it entered, so that the VE sees its own group as the
    /// root.
    ///
    /// # Errors
    /// When the group was not created.
    pub fn entry(&self) -> Result<Entry, EntryError> {
        let v2_directory = match &self.inner.v2 {
            Some(v2) => Some(
                v2.open_below(&self.below)
                    .map_err(|e| self.entry_error(e))?
                    .into_fd(),
            ),
            None => None,
        };
        Ok(Entry {
            v1_tasks: self.v1_tasks()?,
            v2_directory,
        })
    }

    /// Opens what a process from outside (exec, enter) needs to enter: as [`VeGroup::entry`], but on
    /// cgroup2 a group of its own within the VE's, made again if the VE removed it.
    ///
    /// # Errors
    /// When the group was not created.
    pub fn exec_entry(&self) -> Result<Entry, EntryError> {
        let v2_directory = match &self.inner.v2 {
            Some(v2) => {
                let opened = self.make_exec_group(v2);
                Some(opened.map_err(|error| self.entry_error(error))?.into_fd())
            }
            None => None,
        };
        Ok(Entry {
            v1_tasks: self.v1_tasks()?,
            v2_directory,
        })
    }

    /// The cgroup2 directory of the VE, the root of its cgroup namespace.
    #[must_use]
    pub fn unified_path(&self) -> Option<PathBuf> {
        Some(self.inner.v2.as_ref()?.path().join(&self.below))
    }

    /// The VE's directory in the v1 hierarchy of a controller, for tools that want a path.
    #[must_use]
    pub fn v1_path(&self, controller: Controller) -> Option<PathBuf> {
        match self.inner.directory(controller)? {
            (directory, Home::V1(_)) => Some(directory.path().join(&self.below)),
            (_, Home::V2) => None,
        }
    }

    /// The path of a file of the VE in the directory that carries a controller.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.below.join(name)
    }

    pub(crate) fn create(&self) -> Result<(), CreateError> {
        let refused = |source| CreateError::File {
            ve: self.ve,
            source,
        };
        for directory in self.inner.v1.iter().flatten() {
            directory.make(&self.below).map_err(refused)?;
            if directory.has(&self.file("cpuset.cpus")) {
                inherit_cpuset(directory, directory, &self.below).map_err(refused)?;
            }
        }
        if let Some(v2) = &self.inner.v2 {
            v2.make(&self.below).map_err(refused)?;
            self.bound(v2)
                .and_then(|()| self.delegate(v2))
                .map_err(refused)?;
        }
        self.restrict_devices()
    }

    /// Bounds what the VE may make below. The files stay root's.
    fn bound(&self, v2: &Directory) -> Result<(), FileError> {
        v2.write(
            &self.file("cgroup.max.descendants"),
            &NESTED_GROUPS_MAX.to_string(),
        )?;
        v2.write(
            &self.file("cgroup.max.depth"),
            &NESTED_DEPTH_MAX.to_string(),
        )
    }

    /// Gives the VE's root what it needs to make groups and move its processes between them, and
    /// nothing that holds a limit: see "Delegation" in the kernel's `cgroup-v2.rst`. One level is
    /// enough, as the limits in this very directory stay root's.
    fn delegate(&self, v2: &Directory) -> Result<(), FileError> {
        let uid = self.ve.uid_base().get();
        v2.give(&self.below, uid)?;
        for name in DELEGATED {
            v2.give(&self.file(name), uid)?;
        }
        Ok(())
    }

    fn make_exec_group(&self, v2: &Directory) -> Result<Directory, FileError> {
        let below = self.file(EXEC_GROUP);
        if v2.make(&below)? {
            let uid = self.ve.uid_base().get();
            v2.give(&below, uid)?;
            for name in DELEGATED {
                v2.give(&below.join(name), uid)?;
            }
        }
        v2.open_below(&below)
    }

    fn v1_tasks(&self) -> Result<Vec<OwnedFd>, EntryError> {
        let open = |directory: &Directory| {
            directory
                .open_file(&self.file("tasks"), OFlags::WRONLY)
                .map_err(|error| self.entry_error(error))
        };
        let mut tasks = Vec::with_capacity(self.inner.v1.len());
        for directory in self.inner.v1.iter().flatten() {
            tasks.push(open(directory)?);
        }
        // Only a VE with a mask has a group there.
        if let Some(cpuset) = self
            .inner
            .cpuset_group()
            .map_err(|error| self.entry_error(error))?
            && cpuset.has(&self.below)
        {
            tasks.push(open(&cpuset)?);
        }
        Ok(tasks)
    }

    fn entry_error(&self, source: FileError) -> EntryError {
        EntryError {
            ve: self.ve,
            source,
        }
    }
}

/// The files that `/sys/kernel/cgroup/delegate` has named since 4.15. Later kernels add
/// `memory.oom.group` and `memory.reclaim`, which a VE gets for the groups that it makes itself.
const DELEGATED: [&str; 3] = ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"];
