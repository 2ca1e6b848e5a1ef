//! How a private area was before something is done to it, until that is done.
//!
//! It is a snapshot beside the area, `.before-ID-LABEL`. The label says what the area is to become: whoever finds one
//! after a crash knows by it whether that came true. There is one for an area at most.

use std::os::fd::AsFd;

use kernel::btrfs::{self, Access};
use ve::VeId;

use crate::private::{DEAD, PrivateError, group};
use crate::{Pool, Quota, layout, nested};

const BEFORE: &str = ".before-";

impl Pool {
    /// Keeps how an area is now, under a label: a part of a name. The VE must be stopped.
    ///
    /// # Errors
    /// [`PrivateError::NotFound`], [`PrivateError::Full`], [`PrivateError::Io`]; also when one is kept already.
    pub fn private_before_keep(&self, id: VeId, label: &str) -> Result<(), PrivateError> {
        let area = self.private_open(id)?;
        let areas = self.areas(id)?;
        let groups = match *self.quota() {
            Quota::Simple => &[group(id)][..],
            Quota::Unavailable { .. } => &[],
        };
        let name = format!("{BEFORE}{id}-{label}");
        btrfs::snapshot_create(
            areas.as_fd(),
            name.as_ref(),
            area.as_fd(),
            Access::ReadWrite,
            groups,
        )
        .map_err(self.failed(id, "keep a snapshot of the private area"))
    }

    /// The label under which it is kept how an area was, if it is.
    ///
    /// # Errors
    /// [`PrivateError::Io`].
    pub fn private_before(&self, id: VeId) -> Result<Option<String>, PrivateError> {
        let areas = self.areas(id)?;
        let names =
            layout::names(areas.as_fd()).map_err(self.failed(id, "list the private areas"))?;
        let prefix = format!("{BEFORE}{id}-");
        let own =
            |name: &std::ffi::OsString| Some(name.to_str()?.strip_prefix(&prefix)?.to_owned());
        Ok(names.iter().find_map(own))
    }

    /// Makes an area as it was, with a fresh work directory. Done again after a crash, it goes on where it stopped.
    ///
    /// # Errors
    /// [`PrivateError::Io`].
    pub fn private_before_restore(&self, id: VeId, label: &str) -> Result<(), PrivateError> {
        let areas = self.areas(id)?;
        let failed = |action| self.failed(id, action);
        self.finish_removal(areas.as_fd(), id)?;
        let (name, dead) = (id.to_string(), format!("{DEAD}{id}"));
        if layout::exists(areas.as_fd(), &name).map_err(failed("examine the private area"))? {
            rustix::fs::renameat(&areas, &name, &areas, &dead)
                .map_err(|e| failed("put the private area aside")(e.into()))?;
        }
        let before = format!("{BEFORE}{id}-{label}");
        // Handles of files in the overlay's index are those of the area that it was a snapshot of (ESTALE).
        let kept = layout::open_directory(areas.as_fd(), &before)
            .map_err(failed("open the snapshot of the private area"))?;
        self.renew_work(id, kept.as_fd(), &before)?;
        drop(kept);
        rustix::fs::renameat(&areas, &before, &areas, &name)
            .map_err(|e| failed("bring the private area back")(e.into()))?;
        self.finish_removal(areas.as_fd(), id)
    }

    /// Forgets how an area was, if that is kept.
    ///
    /// # Errors
    /// [`PrivateError::Io`].
    pub fn private_before_forget(&self, id: VeId) -> Result<(), PrivateError> {
        while let Some(label) = self.private_before(id)? {
            let areas = self.areas(id)?;
            nested::destroy(areas.as_fd(), &format!("{BEFORE}{id}-{label}"))
                .map_err(self.failed(id, "remove a snapshot of the private area"))?;
        }
        Ok(())
    }
}
