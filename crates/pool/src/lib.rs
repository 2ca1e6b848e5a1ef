//! The node's btrfs file system: subvolumes, quotas, sizes, health.
//!
//! A pool is a sparse file on a loop device (the default), a block device, or a directory of an
//! existing btrfs. Whatever it is, it looks the same below its mount point:
//!
//! ```text
//! MOUNT_POINT/            0700: files of VEs lie unshifted, so their set-user-id programs are the host's
//!   .vessel-pool          says that this is a pool, and of which layout
//!   private/              private areas
//!     ID/                 a subvolume, member of the quota group 1/ID
//!       upper/            what the VE changed (upper layer of its overlay)
//!       work/             the overlay's own
//!     .new-ID             being made: gets its name when it is complete
//!     .dead-ID            being removed: finished by the next removal or sweep
//!   templates/            the crate `template`'s
//!   staging/              work in progress of other crates
//! ```
//!
//! # What holds
//!
//! - A file is never attached to two loop devices, whoever crashed before.
//! - An area named `ID` is complete, and every byte in it counts in `1/ID` from the first.
//! - Everything can be repeated: creating finds what exists, removing finds nothing, and neither is an
//!   error. After a crash in the middle the same call finishes the work.
//! - Changes are on the disk at the next commit of btrfs (30 s) or [`Pool::sync`], whichever comes
//!   first, and in order: what is there after a power cut is a state that was.
//! - Nothing here is undone on drop: a pool stays mounted when its daemon ends, as its VEs need it.
//!
//! # What is not here
//!
//! Mount namespaces (the daemon is in its own before it opens the pool), templates, snapshots,
//! full quota groups (never: they make snapshots slow by orders of magnitude), pools of several devices.
#![forbid(unsafe_code)]

mod before;
mod close;
mod create;
mod full;
mod grow;
mod health;
mod layout;
mod limit;
mod nested;
mod open;
mod private;
mod program;
mod removal;
mod share;
mod source;
mod superblock;
mod sweep;
mod usage;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use kernel::loop_device::LoopDevice;

pub use close::{CloseError, Closed};
pub use create::CreateError;
pub use full::Full;
pub use grow::GrowError;
pub use health::{DeviceHealth, PoolHealth, Problem};
pub use layout::LayoutError;
pub use open::OpenError;
pub use private::{PRIVATE_LIMIT_BYTES_MIN, PrivateError};
pub use program::ProgramError;
pub use share::Shares;
pub use source::{Compression, Options, POOL_BYTES_MIN, Quota, Source, Warning};
pub use sweep::{SweepReport, Swept};
pub use usage::{BackingUsage, PoolUsage};

/// An open pool. Opening the same pool twice is harmless; [`Pool::close`] ends it, dropping does not.
///
/// All methods block on the file system: call them off the threads of an executor.
#[derive(Debug)]
pub struct Pool {
    /// The pool's root directory; relative to it everything is opened.
    root: OwnedFd,
    mount_point: PathBuf,
    backing: Backing,
    quota: Quota,
    warnings: Vec<Warning>,
}

/// What the pool lies on.
#[derive(Debug)]
enum Backing {
    File {
        path: PathBuf,
        file: OwnedFd,
        device: LoopDevice,
    },
    Device {
        path: PathBuf,
    },
    /// `bound` is false when the mount point is the directory itself.
    Directory {
        bound: bool,
    },
}

impl Pool {
    /// The pool's root directory, open for reading.
    #[must_use]
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Where the pool is mounted, in the mount namespace that opened it.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.mount_point
    }

    /// The directory that belongs to the crate `template`.
    #[must_use]
    pub fn templates_path(&self) -> PathBuf {
        self.mount_point.join(layout::TEMPLATES)
    }

    /// The directory for work in progress. Nothing in it outlives the operation that made it.
    #[must_use]
    pub fn staging_path(&self) -> PathBuf {
        self.mount_point.join(layout::STAGING)
    }

    /// Whether bytes are counted and can be limited.
    #[must_use]
    pub fn quota(&self) -> &Quota {
        &self.quota
    }

    /// What works less well than it could, found while opening.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Writes out everything that changed, so that it survives a power cut, and begins to give back the
    /// space of removed areas.
    ///
    /// # Errors
    /// `EIO` when a device fails, `EROFS` never: then there is nothing to write.
    pub fn sync(&self) -> std::io::Result<()> {
        kernel::btrfs::sync(self.root())
    }

    /// Whether the file system is the pool's alone, so that everything in it is the pool's.
    fn is_exclusive(&self) -> bool {
        !matches!(self.backing, Backing::Directory { .. })
    }
}
