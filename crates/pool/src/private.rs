//! Private areas: what each VE changed, counted and limited.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use kernel::btrfs::{self, QgroupId, SUBVOLUME_ROOT_INODE, SubvolumeId};
use rustix::fs::Mode;
use rustix::io::Errno;
use ve::VeId;

use crate::full::{Full, Size};
use crate::layout::{self, PRIVATE};
use crate::{Pool, Quota, nested};

/// The parts of an area.
const UPPER: &str = "upper";
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

    /// Removes the private area of a VE with everything in it, nested subvolumes included, and its quota
    /// group. Its name is gone at once; the space comes back in the background. Removing what is not
    /// there is no error. A VE that still runs on it keeps its files until it ends.
    ///
    /// # Errors
    /// [`PrivateError::Io`]; the same call, or a sweep, goes on where this one stopped.
    pub fn private_remove(&self, id: VeId) -> Result<(), PrivateError> {
        let areas = self.areas(id)?;
        let failed = |action| self.failed(id, action);
        self.finish_removal(areas.as_fd(), id)?;
        let dead = format!("{DEAD}{id}");
        for name in [id.to_string(), format!("{NEW}{id}")] {
            match rustix::fs::renameat(&areas, &name, &areas, &dead) {
                Ok(()) => self.finish_removal(areas.as_fd(), id)?,
                Err(Errno::NOENT) => (),
                Err(error) => return Err(failed("begin to remove the private area")(error.into())),
            }
        }
        self.release_group(id, &[])
            .map_err(failed("remove the quota group"))
    }

    /// Goes on with a removal that was begun. The name `.dead-ID` is the record that it was: it stays
    /// until the group is gone, so that no group is forgotten.
    pub(crate) fn finish_removal(
        &self,
        areas: BorrowedFd<'_>,
        id: VeId,
    ) -> Result<(), PrivateError> {
        let failed = |action| self.failed(id, action);
        let dead = format!("{DEAD}{id}");
        if !layout::exists(areas, &dead).map_err(failed("examine the removed area"))? {
            return Ok(());
        }
        let area = layout::open_directory(areas, &dead).map_err(failed("open the removed area"))?;
        if !is_subvolume(area.as_fd()).map_err(failed("examine the removed area"))? {
            return Err(PrivateError::NotAnArea {
                id,
                pool: self.mount_point.clone(),
            });
        }
        let family = btrfs::subvolume_id(area.as_fd())
            .and_then(|top| nested::family(area.as_fd(), top))
            .map_err(failed("list the nested subvolumes"))?;
        drop(area);
        // The id may have been given again meanwhile: then the group is the new VE's.
        let reused =
            layout::exists(areas, &id.to_string()).map_err(failed("examine the private area"))?;
        if reused {
            self.unassign(id, |member| family.contains(&member))
        } else {
            self.release_group(id, &family)
        }
        .map_err(failed("remove the quota group"))?;
        nested::destroy(areas, &dead).map_err(failed("remove the private area"))?;
        if *self.quota() == Quota::Simple {
            self.drop_empty_groups(&family);
        }
        Ok(())
    }

    /// Destroys the group `1/ID` when nothing but `dying` subvolumes and destroyed ones are its members.
    pub(crate) fn release_group(&self, id: VeId, dying: &[SubvolumeId]) -> io::Result<()> {
        if *self.quota() != Quota::Simple {
            return Ok(());
        }
        self.unassign(id, |member| {
            dying.contains(&member)
                || btrfs::subvolume_exists(self.root(), member).is_ok_and(|exists| !exists)
        })?;
        match btrfs::qgroup_destroy(self.root(), group(id)) {
            // Gone already; or snapshots of the VE still count in it, and whoever removes the last
            // of them sweeps.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ResourceBusy
                ) =>
            {
                Ok(())
            }
            other => other,
        }
    }

    fn unassign(&self, id: VeId, leaves: impl Fn(SubvolumeId) -> bool) -> io::Result<()> {
        if *self.quota() != Quota::Simple {
            return Ok(());
        }
        for member in btrfs::qgroup_members(self.root(), group(id))? {
            if SubvolumeId::of_qgroup(member).is_some_and(&leaves) {
                match btrfs::qgroup_unassign(self.root(), member, group(id)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => (),
                }
            }
        }
        Ok(())
    }

    /// Tries to destroy the groups `0/N` of destroyed subvolumes. They are busy until the kernel has
    /// emptied the subvolume, and newer kernels destroy them themselves; a sweep gets the rest.
    fn drop_empty_groups(&self, subvolumes: &[SubvolumeId]) {
        for subvolume in subvolumes {
            let _ = btrfs::qgroup_destroy(self.root(), QgroupId::of_subvolume(*subvolume));
        }
    }

    /// Limits what a VE's private area and its snapshots may take, at once, or lifts the limit.
    ///
    /// # Errors
    /// [`PrivateError::LimitBelowUse`] (and nothing changes), [`PrivateError::LimitTooSmall`],
    /// [`PrivateError::NoQuota`], [`PrivateError::NotFound`].
    pub fn private_limit_set(
        &self,
        id: VeId,
        limit_bytes: Option<u64>,
    ) -> Result<(), PrivateError> {
        self.require_quota(id)?;
        if let Some(limit_bytes) = limit_bytes {
            if limit_bytes < PRIVATE_LIMIT_BYTES_MIN {
                return Err(PrivateError::LimitTooSmall { id, limit_bytes });
            }
            let used_bytes = self.private_usage(id)?;
            if used_bytes > limit_bytes {
                return Err(PrivateError::LimitBelowUse {
                    id,
                    limit_bytes,
                    used_bytes,
                });
            }
        }
        btrfs::qgroup_limit_set(self.root(), group(id), limit_bytes).map_err(|error| {
            match error.kind() {
                io::ErrorKind::NotFound => self.not_found(id),
                _ => self.failed(id, "limit the private area")(error),
            }
        })
    }

    /// The limit of a private area in bytes, if it has one.
    ///
    /// # Errors
    /// [`PrivateError::Io`].
    pub fn private_limit(&self, id: VeId) -> Result<Option<u64>, PrivateError> {
        btrfs::qgroup_limit(self.root(), group(id))
            .map_err(self.failed(id, "read the limit of the private area"))
    }

    /// Bytes that a VE's private area and its snapshots take now, those still on the way to the disk included.
    ///
    /// # Errors
    /// [`PrivateError::NotFound`], [`PrivateError::NoQuota`].
    pub fn private_usage(&self, id: VeId) -> Result<u64, PrivateError> {
        self.require_quota(id)?;
        if let Some(bytes) = self.live_usage(id) {
            return Ok(bytes);
        }
        let info = btrfs::qgroup_info(self.root(), group(id))
            .map_err(self.failed(id, "read the use of the private area"))?;
        info.map(|info| info.referenced_bytes)
            .ok_or_else(|| self.not_found(id))
    }

    /// What the kernel has counted in memory: the quota tree is up to 30 s older. Nothing where
    /// sysfs is not mounted or there is no such group.
    fn live_usage(&self, id: VeId) -> Option<u64> {
        let uuid = btrfs::file_system_info(self.root()).ok()?.uuid;
        let hex: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
        let part = |from, to| hex.get(from..to).unwrap_or_default();
        let uuid = [
            part(0, 8),
            part(8, 12),
            part(12, 16),
            part(16, 20),
            part(20, 32),
        ]
        .join("-");
        let directory = format!("/sys/fs/btrfs/{uuid}/qgroups/{AREA_LEVEL}_{id}");
        let read = |name| -> Option<u64> {
            fs::read_to_string(format!("{directory}/{name}"))
                .ok()?
                .trim()
                .parse()
                .ok()
        };
        Some(read("referenced")?.saturating_add(read("rsv_data")?))
    }

    /// Bytes that every VE's private area takes, as of the last commit (at most 30 s ago): one request for
    /// all, to meter by.
    ///
    /// # Errors
    /// Those of reading the quota tree.
    pub fn private_usages(&self) -> io::Result<Vec<(VeId, u64)>> {
        let groups = btrfs::qgroups(self.root(), AREA_LEVEL)?;
        let of_ve = |(group, info): (QgroupId, btrfs::QgroupInfo)| {
            let number = u32::try_from(group.number()).ok()?;
            Some((VeId::new(number).ok()?, info.referenced_bytes))
        };
        Ok(groups.into_iter().filter_map(of_ve).collect())
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
        let failed = |action| self.failed(id, action);
        self.remove_dead_work(id)
            .map_err(failed("remove the old work directory"))?;
        match rustix::fs::renameat(&area, WORK, &area, WORK_DEAD) {
            Ok(()) | Err(Errno::NOENT) => (),
            Err(error) => return Err(failed("put the work directory aside")(error.into())),
        }
        make_parts(area.as_fd()).map_err(failed("make the work directory"))?;
        self.remove_dead_work(id)
            .map_err(failed("remove the old work directory"))
    }

    /// By path: nothing on it belongs to the VE, which reaches neither the area's root nor `work`.
    fn remove_dead_work(&self, id: VeId) -> io::Result<()> {
        let path = self
            .mount_point
            .join(PRIVATE)
            .join(id.to_string())
            .join(WORK_DEAD);
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The directory of all areas.
    fn areas(&self, id: VeId) -> Result<OwnedFd, PrivateError> {
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

    fn require_quota(&self, id: VeId) -> Result<(), PrivateError> {
        match self.quota() {
            Quota::Simple => Ok(()),
            Quota::Unavailable { reason } => Err(PrivateError::NoQuota {
                id,
                reason: reason.clone(),
            }),
        }
    }

    fn not_found(&self, id: VeId) -> PrivateError {
        PrivateError::NotFound {
            id,
            pool: self.mount_point.clone(),
        }
    }

    fn failed(&self, id: VeId, action: &'static str) -> impl Fn(io::Error) -> PrivateError {
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

fn is_subvolume(directory: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(rustix::fs::fstat(directory)?.st_ino == SUBVOLUME_ROOT_INODE)
}
