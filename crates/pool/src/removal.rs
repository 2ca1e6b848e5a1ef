//! Removing private areas, so that nothing of them is forgotten whenever it is interrupted.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use kernel::btrfs::{self, QgroupId, SubvolumeId};
use rustix::io::Errno;
use ve::VeId;

use crate::private::{DEAD, NEW, PrivateError, group, is_subvolume};
use crate::{Pool, Quota, layout, nested};

impl Pool {
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
}
