//! Private areas: what each VE changed, counted and limited.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use kernel::btrfs::{self, QgroupId, SUBVOLUME_ROOT_INODE};
use rustix::fs::Mode;
use rustix::io::Errno;
use ve::VeId;

use crate::full::{Full, Size};
use crate::layout::{self, PRIVATE};
use crate::{Pool, Quota, nested};

/// The parts of an area.
pub(crate) const UPPER: &str = "upper";
const WORK: &str = "work";
/// A work directory that was replaced and is being removed.
const WORK_DEAD: &str = ".work-dead";

/// Prefixes of areas that are being made and removed.
pub(crate) const NEW: &str = ".new-";
pub(crate) const DEAD: &str = ".dead-";

/// Level of the quota groups that carry the limits: `1/ID`.
pub(crate) const AREA_LEVEL: u16 = 1;

/// Least limit of an area.
///
/// An empty area takes one metadata node (16 KiB), but btrfs reserves several nodes for each
/// change before it makes it, so below about 1 MiB not even a directory can be made. This much lets a
/// distribution's first boot write its machine id, host keys and a journal.
pub const PRIVATE_LIMIT_BYTES_MIN: u64 = 16 << 20;

/// The root of an area and its upper layer: as the root directory of a VE is seen from inside.
const AREA_MODE: Mode = Mode::RWXU
    .union(Mode::RGRP)
    .union(Mode::XGRP)
    .union(Mode::ROTH)
    .union(Mode::XOTH);
/// The overlay's own directory concerns nobody else.
const WORK_MODE: Mode = Mode::RWXU;

/// An operation on a private area failed.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// There is no such area.
    #[error("VE {id} has no private area in the pool `{pool}`")]
    NotFound {
        /// Whose area.
        id: VeId,
        /// Where the pool is mounted.
        pool: PathBuf,
    },
    /// The name is taken by something that is no area.
    #[error(
        "`private/{id}` in the pool `{pool}` is no subvolume, so no private area; move it away"
    )]
    NotAnArea {
        /// Whose area.
        id: VeId,
        /// Where the pool is mounted.
        pool: PathBuf,
    },
    /// The limit leaves no room for anything.
    #[error(
        "a disk limit of {} for VE {id} is too small: give {} at least",
        Size(*limit_bytes), Size(PRIVATE_LIMIT_BYTES_MIN)
    )]
    LimitTooSmall {
        /// Whose area.
        id: VeId,
        /// The limit that was wanted.
        limit_bytes: u64,
    },
    /// The VE uses more than the limit that was wanted.
    #[error(
        "VE {id} uses {} of disk, more than the limit of {}; delete files in it first, or give a higher limit",
        Size(*used_bytes), Size(*limit_bytes)
    )]
    LimitBelowUse {
        /// Whose area.
        id: VeId,
        /// The limit that was wanted.
        limit_bytes: u64,
        /// What is in use.
        used_bytes: u64,
    },
    /// The pool counts nothing.
    #[error("the disk use of VE {id} can be neither counted nor limited: {reason}")]
    NoQuota {
        /// Whose area.
        id: VeId,
        /// Why the pool has no quotas.
        reason: String,
    },
    /// Something is full.
    #[error(transparent)]
    Full(#[from] Full),
    /// A step failed.
    #[error("cannot {action} of VE {id}")]
    Io {
        /// Whose area.
        id: VeId,
        /// What was tried.
        action: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// The quota group of a VE.
pub(crate) fn group(id: VeId) -> QgroupId {
    QgroupId::above(AREA_LEVEL, id.get())
}

impl Pool {
    /// Makes the private area of a VE with its quota group and limit, or completes the one that is
    /// there, whose content is kept.
    ///
    /// # Errors
    /// [`PrivateError::LimitTooSmall`]; [`PrivateError::NoQuota`] for a limit where nothing is counted;
    /// [`PrivateError::Full`].
    pub fn private_create(&self, id: VeId, limit_bytes: Option<u64>) -> Result<(), PrivateError> {
        if let Some(limit_bytes) = limit_bytes {
            self.require_quota(id)?;
            if limit_bytes < PRIVATE_LIMIT_BYTES_MIN {
                return Err(PrivateError::LimitTooSmall { id, limit_bytes });
            }
        }
        let areas = self.areas(id)?;
        let failed = |action| self.failed(id, action);
        self.finish_removal(areas.as_fd(), id)?;
        let name = id.to_string();
        if layout::exists(areas.as_fd(), &name).map_err(failed("examine the private area"))? {
            return self.complete(areas.as_fd(), id, limit_bytes);
        }
        let new = format!("{NEW}{id}");
        self.destroy_if_there(areas.as_fd(), &new)
            .map_err(failed("remove a half-made area"))?;
        self.make_subvolume(areas.as_fd(), &new, id, limit_bytes)
            .map_err(failed("make the private area"))?;
        let area = layout::open_directory(areas.as_fd(), &new)
            .map_err(failed("open the new private area"))?;
        make_parts(area.as_fd()).map_err(failed("make the parts of the private area"))?;
        rustix::fs::renameat(&areas, &new, &areas, &name)
            .map_err(|e| failed("name the private area")(e.into()))
    }

    /// Makes the group, the limit and the subvolume in it.
    fn make_subvolume(
        &self,
        areas: BorrowedFd<'_>,
        name: &str,
        id: VeId,
        limit_bytes: Option<u64>,
    ) -> io::Result<()> {
        if *self.quota() != Quota::Simple {
            return btrfs::subvolume_create(areas, name.as_ref(), &[]);
        }
        self.ensure_group(id, limit_bytes)?;
        match btrfs::subvolume_create(areas, name.as_ref(), &[group(id)]) {
            // The group is new and has no members yet, so that another node on the same btrfs may
            // just have swept it away.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::InvalidInput
                ) =>
            {
                self.ensure_group(id, limit_bytes)?;
                btrfs::subvolume_create(areas, name.as_ref(), &[group(id)])
            }
            other => other,
        }
    }

    fn ensure_group(&self, id: VeId, limit_bytes: Option<u64>) -> io::Result<()> {
        match btrfs::qgroup_create(self.root(), group(id)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => (),
        }
        btrfs::qgroup_limit_set(self.root(), group(id), limit_bytes)
    }

    /// Makes whole what is there: parts, membership, limit.
    fn complete(
        &self,
        areas: BorrowedFd<'_>,
        id: VeId,
        limit_bytes: Option<u64>,
    ) -> Result<(), PrivateError> {
        let area = self.open_area(areas, id)?;
        make_parts(area.as_fd())
            .map_err(self.failed(id, "complete the parts of the private area"))?;
        if *self.quota() != Quota::Simple {
            return Ok(());
        }
        self.ensure_group(id, limit_bytes)
            .map_err(self.failed(id, "limit the private area"))?;
        self.ensure_member(area.as_fd(), id)
            .map_err(self.failed(id, "count the private area"))
    }

    fn ensure_member(&self, area: BorrowedFd<'_>, id: VeId) -> io::Result<()> {
        // Its own group is there: the kernel makes one per subvolume, and for all when quotas begin.
        let own = QgroupId::of_subvolume(btrfs::subvolume_id(area)?);
        match btrfs::qgroup_assign(self.root(), own, group(id)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    /// The VEs that have a complete private area, ascending.
    ///
    /// # Errors
    /// Those of listing a directory.
    pub fn private_list(&self) -> io::Result<Vec<VeId>> {
        let areas = layout::open_directory(self.root(), PRIVATE)?;
        let names = layout::names(areas.as_fd())?;
        let mut ids: Vec<VeId> = names
            .iter()
            .filter_map(|name| name.to_str()?.parse().ok())
            .collect();
        ids.sort_unstable();
        Ok(ids)
    }

    /// Opens the private area of a VE: the directory that holds `upper` and `work`.
    ///
    /// # Errors
    /// [`PrivateError::NotFound`], [`PrivateError::NotAnArea`].
    pub fn private_open(&self, id: VeId) -> Result<OwnedFd, PrivateError> {
        self.open_area(self.areas(id)?.as_fd(), id)
    }

    /// Gives the overlay an empty work directory, as it needs after a restore, a clone or a roll-back. The VE must be stopped.
    ///
    /// # Errors
    /// [`PrivateError::NotFound`], [`PrivateError::Io`]. A reset that was cut off is finished by the next.
    pub fn private_work_reset(&self, id: VeId) -> Result<(), PrivateError> {
        let area = self.private_open(id)?;
        self.renew_work(id, area.as_fd(), &id.to_string())
    }

    /// The same in an area, or a snapshot of it, under this name.
    pub(crate) fn renew_work(
        &self,
        id: VeId,
        area: BorrowedFd<'_>,
        name: &str,
    ) -> Result<(), PrivateError> {
        let failed = |action| self.failed(id, action);
        self.remove_dead_work(name)
            .map_err(failed("remove the old work directory"))?;
        match rustix::fs::renameat(area, WORK, area, WORK_DEAD) {
            Ok(()) | Err(Errno::NOENT) => (),
            Err(error) => return Err(failed("put the work directory aside")(error.into())),
        }
        make_parts(area).map_err(failed("make the work directory"))?;
        self.remove_dead_work(name)
            .map_err(failed("remove the old work directory"))
    }

    /// By path: nothing on it belongs to the VE, which reaches neither the area's root nor `work`.
    fn remove_dead_work(&self, name: &str) -> io::Result<()> {
        let path = self.mount_point.join(PRIVATE).join(name).join(WORK_DEAD);
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The directory of all areas.
    pub(crate) fn areas(&self, id: VeId) -> Result<OwnedFd, PrivateError> {
        layout::open_directory(self.root(), PRIVATE)
            .map_err(self.failed(id, "find the private area"))
    }

    fn open_area(&self, areas: BorrowedFd<'_>, id: VeId) -> Result<OwnedFd, PrivateError> {
        let not_an_area = || PrivateError::NotAnArea {
            id,
            pool: self.mount_point.clone(),
        };
        let area = match layout::open_directory(areas, &id.to_string()) {
            Ok(area) => area,
            Err(error) => {
                return Err(match error.kind() {
                    io::ErrorKind::NotFound => self.not_found(id),
                    io::ErrorKind::NotADirectory => not_an_area(),
                    _ if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => not_an_area(),
                    _ => self.failed(id, "open the private area")(error),
                });
            }
        };
        let is_area =
            is_subvolume(area.as_fd()).map_err(self.failed(id, "examine the private area"))?;
        if is_area {
            Ok(area)
        } else {
            Err(not_an_area())
        }
    }

    pub(crate) fn destroy_if_there(&self, areas: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        if layout::exists(areas, name)? {
            nested::destroy(areas, name)
        } else {
            Ok(())
        }
    }

    pub(crate) fn require_quota(&self, id: VeId) -> Result<(), PrivateError> {
        match self.quota() {
            Quota::Simple => Ok(()),
            Quota::Unavailable { reason } => Err(PrivateError::NoQuota {
                id,
                reason: reason.clone(),
            }),
        }
    }

    pub(crate) fn not_found(&self, id: VeId) -> PrivateError {
        PrivateError::NotFound {
            id,
            pool: self.mount_point.clone(),
        }
    }

    pub(crate) fn failed(
        &self,
        id: VeId,
        action: &'static str,
    ) -> impl Fn(io::Error) -> PrivateError {
        move |source| match self.explain_full(&source, Some(id)) {
            Some(full) => PrivateError::Full(full),
            None => PrivateError::Io { id, action, source },
        }
    }
}

/// Makes what an area consists of.
fn make_parts(area: BorrowedFd<'_>) -> io::Result<()> {
    rustix::fs::fchmod(area, AREA_MODE)?;
    layout::make_directory(area, UPPER, AREA_MODE)?;
    layout::make_directory(area, WORK, WORK_MODE)
}

pub(crate) fn is_subvolume(directory: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(rustix::fs::fstat(directory)?.st_ino == SUBVOLUME_ROOT_INODE)
}
