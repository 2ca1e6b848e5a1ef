//! Making a pool larger, and giving back what it no longer needs.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use kernel::btrfs;

use crate::full::Size;
use crate::{Backing, Pool};

/// A pool could not grow.
#[derive(Debug, thiserror::Error)]
pub enum GrowError {
    /// The size that was asked for is less than the present one.
    #[error(
        "the pool `{}` has {} and cannot shrink to {}; give a larger size",
        pool.display(), Size(*size_bytes), Size(*wanted_bytes)
    )]
    Shrink {
        /// Where the pool is mounted.
        pool: PathBuf,
        /// Its size.
        size_bytes: u64,
        /// The size that was asked for.
        wanted_bytes: u64,
    },
    /// The device is smaller than the size that was asked for.
    #[error(
        "the device of the pool `{}` has {}, less than {}; enlarge the device first",
        pool.display(), Size(*device_bytes), Size(*wanted_bytes)
    )]
    DeviceSmaller {
        /// Where the pool is mounted.
        pool: PathBuf,
        /// The size of the device.
        device_bytes: u64,
        /// The size that was asked for.
        wanted_bytes: u64,
    },
    /// The pool is a directory.
    #[error("the pool `{}` is a directory of an existing btrfs; grow that one", pool.display())]
    NotOurs {
        /// Where the pool is mounted.
        pool: PathBuf,
    },
    /// A step failed.
    #[error("cannot {action} of the pool `{}`", pool.display())]
    Io {
        /// Where the pool is mounted.
        pool: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl Pool {
    /// Makes the pool `size_bytes` large while it is in use: the file is extended (sparsely), its loop device and
    /// the file system follow. A device must have been enlarged already. Growing to the present size
    /// finishes what a crash cut off.
    ///
    /// # Errors
    /// [`GrowError::Shrink`], [`GrowError::DeviceSmaller`], [`GrowError::NotOurs`], and the steps' own.
    pub fn grow(&self, size_bytes: u64) -> Result<(), GrowError> {
        let pool = || self.mount_point.clone();
        let failed = |action| {
            move |source| GrowError::Io {
                pool: self.mount_point.clone(),
                action,
                source,
            }
        };
        match &self.backing {
            Backing::Directory { .. } => return Err(GrowError::NotOurs { pool: pool() }),
            Backing::File { file, device, .. } => {
                let stat = rustix::fs::fstat(file.as_fd())
                    .map_err(|e| failed("measure the file")(e.into()))?;
                let present = u64::try_from(stat.st_size).unwrap_or_default();
                if size_bytes < present {
                    let (wanted_bytes, size_bytes) = (size_bytes, present);
                    return Err(GrowError::Shrink {
                        pool: pool(),
                        size_bytes,
                        wanted_bytes,
                    });
                }
                if size_bytes > present {
                    rustix::fs::ftruncate(file, size_bytes)
                        .map_err(|e| failed("extend the file")(e.into()))?;
                }
                device
                    .size_refresh()
                    .map_err(failed("enlarge the loop device"))?;
            }
            Backing::Device { path } => {
                let device_bytes = std::fs::File::open(path)
                    .and_then(|d| kernel::loop_device::block_device_size_bytes(d.as_fd()))
                    .map_err(failed("measure the device"))?;
                if device_bytes < size_bytes {
                    let wanted_bytes = size_bytes;
                    return Err(GrowError::DeviceSmaller {
                        pool: pool(),
                        device_bytes,
                        wanted_bytes,
                    });
                }
            }
        }
        let devices = btrfs::devices(self.root()).map_err(failed("list the devices"))?;
        for device in devices {
            btrfs::resize_to_device(self.root(), device.id)
                .map_err(failed("resize the file system"))?;
        }
        Ok(())
    }

    /// Gives the space that is not in use back to the disk or device; returns how many bytes that
    /// was. `discard=async` does it all the time; this gets what was freed before, and the last.
    ///
    /// # Errors
    /// `EOPNOTSUPP` when the device cannot discard.
    pub fn trim(&self) -> io::Result<u64> {
        btrfs::trim(self.root())
    }
}
