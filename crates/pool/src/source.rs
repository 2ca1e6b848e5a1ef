//! What a pool can lie on, and what is said about it.

use std::fmt;
use std::path::PathBuf;

use crate::full::Size;

/// Least size of a pool that is made.
///
/// mkfs.btrfs itself asks for some 110 MiB. A pool also needs room for one template: an unpacked Debian of
/// 350 MiB beside its objects of 300 MiB, twice 100 MiB for the first metadata, and some hundred MiB
/// for a VE that installs packages. Below this, creating succeeds and the first template fails.
pub const POOL_BYTES_MIN: u64 = 2 << 30;

/// Where a pool lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A sparse file, attached to a loop device; made when it does not exist.
    LoopFile {
        /// Path of the file.
        path: PathBuf,
        /// Size of a new file. An existing one keeps its size, and a difference is a [`Warning`].
        size_bytes: u64,
    },
    /// A block device that holds nothing, or a pool.
    Device(PathBuf),
    /// A directory in an existing btrfs that is mounted already; empty, or a pool.
    Directory(PathBuf),
}

/// How a pool is mounted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Whether new data is compressed. Has no effect on [`Source::Directory`], which is mounted already.
    pub compression: Compression,
}

/// Whether new data is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    #[default]
    Off,
    /// zstd at its fastest: halves a template, and cold reads take 20 to 30 % longer.
    Zstd1,
}

/// Whether bytes are counted and can be limited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Quota {
    /// Simple quotas are on: each private area is counted and can be limited.
    Simple,
    /// Nothing is counted; limits are refused.
    Unavailable {
        /// Why, for people.
        reason: String,
    },
}

/// Something that works less well than it could.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// The disk under a sparse file has less room than the pool promises.
    DiskSmaller {
        /// The pool's file.
        path: PathBuf,
        /// Bytes that the file still has to get from the disk to be as large as it says.
        wanted_bytes: u64,
        /// Bytes that the disk has.
        free_bytes: u64,
    },
    /// The existing file has another size than the one asked for.
    SizeDiffers {
        /// The pool's file.
        path: PathBuf,
        /// What was asked for.
        wanted_bytes: u64,
        /// What it has.
        size_bytes: u64,
    },
    /// The file's file system cannot do direct I/O: every page is cached twice.
    Buffered {
        /// The pool's file.
        path: PathBuf,
    },
    /// Bytes are not counted and cannot be limited.
    NoQuota {
        /// Why.
        reason: String,
    },
}

impl Source {
    /// The path that people know the pool's place by.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        match self {
            Self::LoopFile { path, .. } | Self::Device(path) | Self::Directory(path) => path,
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DiskSmaller {
                path,
                wanted_bytes,
                free_bytes,
            } => write!(
                f,
                "the disk under `{}` has {} free, but the pool may grow by {}: a full disk makes \
                 the pool read-only, so keep room there or make the pool smaller",
                path.display(),
                Size(*free_bytes),
                Size(*wanted_bytes),
            ),
            Self::SizeDiffers {
                path,
                wanted_bytes,
                size_bytes,
            } => write!(
                f,
                "`{}` exists with {}, not {}: grow the pool if it should be larger",
                path.display(),
                Size(*size_bytes),
                Size(*wanted_bytes),
            ),
            Self::Buffered { path } => write!(
                f,
                "the file system of `{}` cannot do direct I/O, so file pages are cached twice: \
                 put the pool on ext4, xfs or btrfs, or on a device",
                path.display(),
            ),
            Self::NoQuota { reason } => write!(f, "disk limits are not available: {reason}"),
        }
    }
}
