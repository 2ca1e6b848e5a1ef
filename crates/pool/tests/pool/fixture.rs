//! A folder for one test, whose pools, mounts and loop devices are gone when it ends.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use kernel::loop_device::LoopDevice;
use pool::{Closed, Options, Pool, Source};
use ve::VeId;

pub(crate) const GIB: u64 = 1 << 30;
pub(crate) const MIB: u64 = 1 << 20;

/// A test's own folder.
#[derive(Debug)]
pub(crate) struct Folder {
    directory: tempfile::TempDir,
}

impl Folder {
    pub(crate) fn new() -> Self {
        std::fs::create_dir_all("/tmp/pool-tests").unwrap();
        let directory = tempfile::Builder::new()
            .tempdir_in("/tmp/pool-tests")
            .unwrap();
        Self { directory }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn image(&self) -> PathBuf {
        self.path("pool.img")
    }

    pub(crate) fn mount_point(&self) -> PathBuf {
        self.path("pool")
    }

    pub(crate) fn source(&self, size_bytes: u64) -> Source {
        Source::LoopFile {
            path: self.image(),
            size_bytes,
        }
    }

    /// A pool of 2 GiB on a file.
    pub(crate) fn pool(&self) -> Pool {
        Pool::create(
            &self.source(2 * GIB),
            &self.mount_point(),
            &Options::default(),
        )
        .unwrap()
    }

    pub(crate) fn open(&self) -> Pool {
        Pool::open(
            &self.source(2 * GIB),
            &self.mount_point(),
            &Options::default(),
        )
        .unwrap()
    }

    pub(crate) fn loop_number(&self) -> Option<u32> {
        let file = File::open(self.image()).ok()?;
        let found = LoopDevice::find(file.as_fd(), self.directory.path()).unwrap();
        found.map(|device| device.number())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Only after a failed test is anything left to unmount.
        let flags = rustix::mount::UnmountFlags::DETACH;
        while is_mounted(&self.mount_point()) {
            let _ = rustix::mount::unmount(self.mount_point(), flags);
        }
    }
}

/// Closes a pool and insists that nothing of it is left.
pub(crate) fn close(folder: &Folder, pool: Pool) {
    assert_eq!(pool.close().unwrap(), Closed::Released);
    assert!(!is_mounted(&folder.mount_point()));
    assert_eq!(folder.loop_number(), None);
}

pub(crate) fn is_mounted(path: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == path.to_str())
}

pub(crate) fn id(number: u32) -> VeId {
    VeId::new(number).unwrap()
}

pub(crate) fn upper(pool: &Pool, id: VeId) -> PathBuf {
    pool.path().join(format!("private/{id}/upper"))
}
