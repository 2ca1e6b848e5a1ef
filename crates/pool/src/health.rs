//! Whether the pool is well, and if not, what to do.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use kernel::btrfs::{self, DeviceStatistics};
use rustix::fs::StatVfsMountFlags;

use crate::full::Size;
use crate::usage::PoolUsage;
use crate::{Backing, Pool};

/// Below this much free metadata, writes begin to fail while files still seem to have room.
const METADATA_FREE_BYTES_MIN: u64 = 64 << 20;

/// Below this much free, VEs are about to meet a full pool.
const FREE_BYTES_MIN: u64 = 512 << 20;

/// The state of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolHealth {
    /// Whether the kernel refuses all writes, as it does after an error that it cannot get around.
    pub read_only: bool,
    /// The devices of the pool.
    pub devices: Vec<DeviceHealth>,
    /// What is wrong, worst first. Empty when the pool is well.
    pub problems: Vec<Problem>,
}

/// The state of one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceHealth {
    /// Its number in the file system, from 1.
    pub id: u64,
    /// The path by which it was mounted; empty when it is missing.
    pub path: PathBuf,
    /// Errors since its counters were last reset.
    pub statistics: DeviceStatistics,
}

/// One thing that is wrong with a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The kernel refuses all writes.
    ReadOnly {
        /// The disk under the pool's file, when that is what is full.
        disk_full: bool,
    },
    /// The pool's file or device is gone, or its path names another one.
    BackingGone {
        /// The path it had.
        path: PathBuf,
    },
    /// A device shows errors.
    DeviceErrors {
        /// Its path.
        path: PathBuf,
        /// How many of all kinds.
        count: u64,
    },
    /// There is little room for metadata.
    MetadataLow {
        /// What is left.
        free_bytes: u64,
    },
    /// There is little room for anything.
    SpaceLow {
        /// What is left.
        free_bytes: u64,
    },
    /// The disk under the pool's file has little room.
    DiskLow {
        /// The pool's file.
        path: PathBuf,
        /// What is left.
        free_bytes: u64,
    },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReadOnly { disk_full: true } => write!(
                f,
                "the pool is read-only because the disk under its file is full: make room there, \
                 then stop all VEs and open the pool again"
            ),
            Self::ReadOnly { disk_full: false } => write!(
                f,
                "the pool is read-only after an error: `dmesg` says which; stop all VEs, check \
                 the file system (`btrfs check`) and open the pool again"
            ),
            Self::BackingGone { path } => write!(
                f,
                "`{}` is gone although VEs still run on it: migrate or back up the VEs before \
                 anything is stopped",
                path.display()
            ),
            Self::DeviceErrors { path, count } => write!(
                f,
                "`{}` has had {count} error(s): back up the VEs, check the device, and reset the \
                 counters with `btrfs device stats --reset`",
                path.display()
            ),
            Self::MetadataLow { free_bytes } => write!(
                f,
                "{} are left for metadata: grow the pool, or run `btrfs balance start -dusage=20`",
                Size(*free_bytes)
            ),
            Self::SpaceLow { free_bytes } => write!(
                f,
                "{} are left: delete VEs, snapshots or templates that nobody needs, or grow the pool",
                Size(*free_bytes)
            ),
            Self::DiskLow { path, free_bytes } => write!(
                f,
                "the disk under `{}` has {} left: make room there, else the pool turns read-only",
                path.display(),
                Size(*free_bytes)
            ),
        }
    }
}

impl Pool {
    /// Examines the pool.
    ///
    /// # Errors
    /// Those of asking a mounted file system; what is wrong with the pool is in the answer instead.
    pub fn health(&self) -> io::Result<PoolHealth> {
        let statistics = rustix::fs::fstatvfs(&self.root)?;
        let read_only = statistics.f_flag.contains(StatVfsMountFlags::RDONLY);
        let mut devices = Vec::new();
        for device in btrfs::devices(self.root())? {
            let statistics = btrfs::device_statistics(self.root(), device.id)?;
            devices.push(DeviceHealth {
                id: device.id,
                path: device.path,
                statistics,
            });
        }
        let usage = self.usage()?;
        let mut problems = Vec::new();
        let disk_low = disk_low(&usage);
        if read_only {
            problems.push(Problem::ReadOnly {
                disk_full: disk_low.is_some(),
            });
        }
        problems.extend(
            self.backing_problem()?
                .map(|path| Problem::BackingGone { path }),
        );
        problems.extend(devices.iter().filter_map(device_problem));
        if usage.metadata_free_bytes < METADATA_FREE_BYTES_MIN {
            problems.push(Problem::MetadataLow {
                free_bytes: usage.metadata_free_bytes,
            });
        }
        match (&self.backing, disk_low) {
            (Backing::File { path, .. }, Some(free_bytes)) => {
                problems.push(Problem::DiskLow {
                    path: path.clone(),
                    free_bytes,
                });
            }
            _ if usage.free_bytes < FREE_BYTES_MIN => {
                problems.push(Problem::SpaceLow {
                    free_bytes: usage.free_bytes,
                });
            }
            _ => (),
        }
        Ok(PoolHealth {
            read_only,
            devices,
            problems,
        })
    }

    /// The path of the pool's file or device when it no longer leads there.
    fn backing_problem(&self) -> io::Result<Option<PathBuf>> {
        let gone = match &self.backing {
            Backing::File { path, file, .. } => {
                let ours = rustix::fs::fstat(file.as_fd())?;
                let found = std::fs::metadata(path).ok();
                let same = found.is_some_and(|m| (m.dev(), m.ino()) == (ours.st_dev, ours.st_ino));
                (!same).then_some(path)
            }
            Backing::Device { path } => (!path.exists()).then_some(path),
            Backing::Directory { .. } => None,
        };
        Ok(gone.map(|path| Path::to_path_buf(path)))
    }
}

/// What the disk under a sparse file has left, when that is little and the pool may need it.
fn disk_low(usage: &PoolUsage) -> Option<u64> {
    let file = usage.backing?;
    let may_need = file.size_bytes.saturating_sub(file.allocated_bytes);
    let low = file.disk_free_bytes < FREE_BYTES_MIN && file.disk_free_bytes < may_need;
    low.then_some(file.disk_free_bytes)
}

fn device_problem(device: &DeviceHealth) -> Option<Problem> {
    let DeviceStatistics {
        write_errors,
        read_errors,
        flush_errors,
        corruption_errors,
        generation_errors,
    } = device.statistics;
    let count = write_errors + read_errors + flush_errors + corruption_errors + generation_errors;
    (count != 0).then(|| Problem::DeviceErrors {
        path: device.path.clone(),
        count,
    })
}
