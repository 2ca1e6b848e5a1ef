//! What is full, in words that say what to do.

use std::fmt;
use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::io::Errno;
use ve::VeId;

use crate::{Backing, Pool, usage};

/// Something is full.
#[derive(Debug, thiserror::Error)]
pub enum Full {
    /// The private area of a VE has reached its limit. Deleting files in the VE works.
    #[error(
        "the private area of VE {id} is full: {} of its limit of {} are in use; \
         delete files in the VE, or raise `disk.limit`",
        Size(*used_bytes), Size(*limit_bytes)
    )]
    Area {
        /// Whose area.
        id: VeId,
        /// Bytes in use, as of the last commit.
        used_bytes: u64,
        /// The limit in bytes.
        limit_bytes: u64,
    },
    /// The pool is full.
    #[error(
        "the pool `{}` is full: {} of {} are in use; \
         delete VEs, snapshots or templates that nobody needs, or grow the pool",
        mount_point.display(), Size(*used_bytes), Size(*size_bytes)
    )]
    Pool {
        /// Where the pool is mounted.
        mount_point: PathBuf,
        /// Bytes in use.
        used_bytes: u64,
        /// Its size.
        size_bytes: u64,
    },
    /// The disk that holds the pool's file is full. The pool turns read-only when it needs what the
    /// disk does not have.
    #[error(
        "the disk under the pool's file `{}` is full: {} are left; make room there",
        path.display(), Size(*free_bytes)
    )]
    Disk {
        /// The pool's file.
        path: PathBuf,
        /// Bytes that are left on the disk.
        free_bytes: u64,
    },
}

/// Bytes, rounded for people: `1.5G`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size(pub(crate) u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in [("T", 40), ("G", 30), ("M", 20), ("K", 10)] {
            if self.0 >= 1 << shift {
                // 128 bits: ten times the largest size would not fit 64.
                let tenths = (u128::from(self.0) * 10) >> shift;
                return match (tenths / 10, tenths % 10) {
                    (whole, 0) => write!(f, "{whole}{unit}"),
                    (whole, tenth) => write!(f, "{whole}.{tenth}{unit}"),
                };
            }
        }
        write!(f, "{} bytes", self.0)
    }
}

impl Pool {
    /// Says what is full when an operation on the pool failed with `error`, or nothing when the
    /// error means something else. `area` is the VE in whose private area the operation wrote.
    ///
    /// For those who write into the pool: copying into a VE, unpacking a template.
    #[must_use]
    pub fn explain_full(&self, error: &std::io::Error, area: Option<VeId>) -> Option<Full> {
        match (error.kind(), area) {
            (std::io::ErrorKind::QuotaExceeded, Some(id)) => Some(self.full_area(id)),
            (std::io::ErrorKind::StorageFull, _) => Some(self.full_pool()),
            // The pool was promised more than its disk has: the device fails, then all is read-only.
            _ if is_any(error, &[Errno::IO, Errno::ROFS]) => self.full_disk(),
            _ => None,
        }
    }

    fn full_area(&self, id: VeId) -> Full {
        // Best effort: the message is worth more than the reason why a number is missing.
        let used_bytes = self.private_usage(id).unwrap_or_default();
        let limit_bytes = self.private_limit(id).ok().flatten().unwrap_or_default();
        Full::Area {
            id,
            used_bytes,
            limit_bytes,
        }
    }

    fn full_disk(&self) -> Option<Full> {
        let Backing::File { path, file, .. } = &self.backing else {
            return None;
        };
        let free_bytes = usage::backing(file.as_fd()).ok()?.disk_free_bytes;
        (free_bytes < DISK_FULL_BYTES).then(|| Full::Disk {
            path: path.clone(),
            free_bytes,
        })
    }

    fn full_pool(&self) -> Full {
        let usage = self.usage().ok();
        self.full_disk().unwrap_or_else(|| Full::Pool {
            mount_point: self.mount_point.clone(),
            used_bytes: usage.as_ref().map_or(0, |usage| usage.used_bytes),
            size_bytes: usage.as_ref().map_or(0, |usage| usage.size_bytes),
        })
    }
}

/// Below this a disk counts as full: btrfs takes from it in steps of up to 16 MiB at a time.
const DISK_FULL_BYTES: u64 = 16 << 20;

fn is_any(error: &std::io::Error, errnos: &[Errno]) -> bool {
    errnos
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let text = |bytes| Size(bytes).to_string();
        assert_eq!(text(0), "0 bytes");
        assert_eq!(text(1536), "1.5K");
        assert_eq!(text(2 << 30), "2G");
        assert_eq!(text(u64::MAX), "16777215.9T");
    }
}
