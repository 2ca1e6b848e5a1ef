//! How large the pool is, and what is really left.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use kernel::btrfs::{self, SpaceKind};

use crate::{Backing, Pool};

/// Unit of `st_blocks`, whatever the file system's block is.
const BLOCK_BYTES: u64 = 512;

/// Sizes of a pool, in bytes of its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolUsage {
    /// The size of the pool.
    pub size_bytes: u64,
    /// Bytes in use by data and metadata, all copies counted. In a directory of an existing btrfs, by
    /// everything in that btrfs.
    pub used_bytes: u64,
    /// Bytes that can still be written as file content: an estimate, as metadata takes its share
    /// when needed, and bounded by the disk under a sparse file.
    pub free_bytes: u64,
    /// Bytes that metadata can still take, those that nothing has been parcelled out of included.
    pub metadata_free_bytes: u64,
    /// Bytes that are parcelled out to neither data nor metadata.
    pub unallocated_bytes: u64,
    /// The sparse file under the pool, when it is one.
    pub backing: Option<BackingUsage>,
}

/// Sizes of the sparse file that a pool lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackingUsage {
    /// Its size as it says: the pool's.
    pub size_bytes: u64,
    /// Bytes that it takes of the disk.
    pub allocated_bytes: u64,
    /// Bytes that the disk still has.
    pub disk_free_bytes: u64,
}

/// Measures a sparse file and the disk under it.
pub(crate) fn backing(file: BorrowedFd<'_>) -> io::Result<BackingUsage> {
    let stat = rustix::fs::fstat(file)?;
    let disk = rustix::fs::fstatvfs(file)?;
    Ok(BackingUsage {
        size_bytes: u64::try_from(stat.st_size).unwrap_or_default(),
        allocated_bytes: u64::try_from(stat.st_blocks).unwrap_or_default() * BLOCK_BYTES,
        disk_free_bytes: disk.f_bavail.saturating_mul(disk.f_frsize),
    })
}

impl Pool {
    /// Measures the pool.
    ///
    /// # Errors
    /// Those of asking a mounted file system; none are expected.
    pub fn usage(&self) -> io::Result<PoolUsage> {
        let devices = btrfs::devices(self.root())?;
        let spaces = btrfs::space_info(self.root())?;
        let backing = match &self.backing {
            Backing::File { file, .. } => Some(backing(file.as_fd())?),
            Backing::Device { .. } | Backing::Directory { .. } => None,
        };
        let size_bytes: u64 = devices.iter().map(|device| device.size_bytes).sum();
        let allocated: u64 = devices.iter().map(|device| device.allocated_bytes).sum();
        let unallocated_bytes = size_bytes.saturating_sub(allocated);
        let used_bytes = spaces
            .iter()
            // The reserve is part of the metadata, and empty unless something is wrong.
            .filter(|space| space.kind != SpaceKind::GlobalReserve)
            .map(|space| space.used_bytes * space.copies)
            .sum();
        let statistics = rustix::fs::fstatvfs(&self.root)?;
        let free = statistics.f_bavail.saturating_mul(statistics.f_frsize);
        Ok(PoolUsage {
            size_bytes,
            used_bytes,
            free_bytes: free.min(backing.map_or(u64::MAX, |file| disk_allows(&file, used_bytes))),
            metadata_free_bytes: metadata_free(&spaces, unallocated_bytes),
            unallocated_bytes,
            backing,
        })
    }
}

/// What the disk allows the pool to write: what it has, and what the file took and the pool freed.
fn disk_allows(file: &BackingUsage, used_bytes: u64) -> u64 {
    file.disk_free_bytes
        .saturating_add(file.allocated_bytes.saturating_sub(used_bytes))
}

fn metadata_free(spaces: &[btrfs::SpaceInfo], unallocated_bytes: u64) -> u64 {
    let reserve: u64 = spaces
        .iter()
        .filter(|space| space.kind == SpaceKind::GlobalReserve)
        .map(|space| space.total_bytes)
        .sum();
    let metadata = || {
        spaces
            .iter()
            .filter(|s| matches!(s.kind, SpaceKind::Metadata | SpaceKind::Mixed))
    };
    let free: u64 = metadata()
        .map(|s| s.total_bytes.saturating_sub(s.used_bytes))
        .sum();
    let copies = metadata().map(|space| space.copies).max().unwrap_or(1);
    free.saturating_sub(reserve)
        .saturating_add(unallocated_bytes / copies)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_without_its_reserve_and_with_what_is_not_parcelled_out() {
        let space = |kind, copies, total_bytes, used_bytes| btrfs::SpaceInfo {
            kind,
            copies,
            total_bytes,
            used_bytes,
        };
        let spaces = [
            space(SpaceKind::Data, 1, 1000, 900),
            space(SpaceKind::Metadata, 2, 100, 40),
            space(SpaceKind::GlobalReserve, 1, 20, 0),
        ];
        assert_eq!(metadata_free(&spaces, 500), 100 - 40 - 20 + 250);
    }

    #[test]
    fn a_full_disk_leaves_what_the_pool_freed() {
        let file = BackingUsage {
            size_bytes: 100,
            allocated_bytes: 50,
            disk_free_bytes: 3,
        };
        assert_eq!(disk_allows(&file, 40), 13);
        assert_eq!(disk_allows(&file, 60), 3);
    }
}
