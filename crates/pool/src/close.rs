//! Unmounting a pool.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kernel::loop_device::{LoopDevice, LoopError};
use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;

use crate::open::nodes;
use crate::{Backing, Pool};

/// How long [`Pool::close`] waits for the kernel to let go of the file after the unmount. Writing
/// out what is dirty happens before; this is for the last reference only.
const DETACH_WAIT: Duration = Duration::from_secs(2);
/// How long it waits for passing users of the mount.
const BUSY_WAIT: Duration = Duration::from_secs(1);
/// How often it looks.
const DETACH_POLL: Duration = Duration::from_millis(5);

/// What closing led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Nothing uses the pool's place any more: a file is detached, a device is free.
    Released,
    /// It is unmounted here, and VEs or other mount namespaces still use it. The kernel lets go of it
    /// after the last of them.
    StillUsed,
}

/// A pool could not be closed.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// It cannot be unmounted.
    #[error(
        "cannot unmount the pool `{path}`; if it is busy, something still has files of it open"
    )]
    Unmount {
        /// The mount point.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Whether its device is free cannot be told.
    #[error("cannot tell whether `{path}` is still attached")]
    Detach {
        /// The pool's file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: LoopError,
    },
}

impl Pool {
    /// Unmounts the pool here. Its place is released when no VE uses it.
    ///
    /// # Errors
    /// `EBUSY` while this mount has open files; then the pool stays mounted and can be opened again.
    pub fn close(self) -> Result<Closed, CloseError> {
        let Self {
            root,
            mount_point,
            backing,
            ..
        } = self;
        drop(root);
        if !matches!(backing, Backing::Directory { bound: false }) {
            unmount(&mount_point).map_err(|error| CloseError::Unmount {
                path: mount_point.clone(),
                source: error.into(),
            })?;
        }
        match backing {
            Backing::File { path, file, device } => {
                device.node_forget();
                drop(device);
                let nodes = nodes(&mount_point);
                let closed = wait_detached(file.as_fd(), &nodes)
                    .map_err(|source| CloseError::Detach { path, source })?;
                // It exists only where the host lacks nodes of loop devices.
                let _ = fs::remove_dir(nodes);
                Ok(closed)
            }
            Backing::Device { path } => Ok(device_state(&path)),
            Backing::Directory { .. } => Ok(Closed::Released),
        }
    }
}

/// Unmounts, patiently for a moment: while another thread starts a program, the child has copies of
/// all our descriptors until it executes.
fn unmount(mount_point: &Path) -> rustix::io::Result<()> {
    let begin = Instant::now();
    loop {
        match rustix::mount::unmount(mount_point, UnmountFlags::NOFOLLOW) {
            Err(rustix::io::Errno::BUSY) if begin.elapsed() < BUSY_WAIT => {
                std::thread::sleep(DETACH_POLL);
            }
            other => return other,
        }
    }
}

/// Waits until the file is no longer attached, or somebody else evidently uses it.
fn wait_detached(file: BorrowedFd<'_>, nodes: &Path) -> Result<Closed, LoopError> {
    let begin = Instant::now();
    loop {
        match LoopDevice::find(file, nodes)? {
            None => return Ok(Closed::Released),
            Some(device) => device.node_forget(),
        }
        if begin.elapsed() > DETACH_WAIT {
            return Ok(Closed::StillUsed);
        }
        std::thread::sleep(DETACH_POLL);
    }
}

/// Whether anybody holds the device. A device that cannot be opened for another reason is not held.
fn device_state(path: &Path) -> Closed {
    let flags = OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Err(rustix::io::Errno::BUSY) => Closed::StillUsed,
        _ => Closed::Released,
    }
}
