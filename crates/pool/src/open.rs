//! Mounting a pool in the mount namespace of this process, and unmounting it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kernel::btrfs::{self, QuotaMode};
use kernel::loop_device::{LoopDevice, LoopError};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags,
};

use crate::layout::{LayoutError, Root};
use crate::source::{Compression, Options, Quota, Source, Warning};
use crate::{Backing, Pool};

/// How long [`Pool::close`] waits for the kernel to let go of the file after the unmount. Writing
/// out what is dirty happens before; this is for the last reference only.
const DETACH_WAIT: Duration = Duration::from_secs(2);
const DETACH_POLL: Duration = Duration::from_millis(5);

/// Whether the layout is made or must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    Make,
    Require,
}

/// A pool could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file, device or directory cannot be opened.
    #[error(
        "cannot open the pool's place `{path}`; if it is gone, restore it or run `vessel init` for a new pool"
    )]
    Source {
        /// Its path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file cannot be attached to a loop device.
    #[error("cannot attach the pool's file `{path}`")]
    Attach {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: LoopError,
    },
    /// Somebody attached the file in another way.
    #[error(
        "`{path}` is attached to `{device}` read-only or in part; detach it (`losetup --detach {device}`) and try again"
    )]
    AttachedOtherwise {
        /// The file.
        path: PathBuf,
        /// The loop device that has it.
        device: String,
    },
    /// The loop device cannot be asked or set.
    #[error("cannot set up the loop device of `{path}`")]
    Loop {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The mount point cannot be made or examined.
    #[error("cannot use `{path}` as mount point")]
    MountPoint {
        /// The mount point.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Something else is mounted there.
    #[error("`{path}` has another file system mounted; unmount it first")]
    Taken {
        /// The mount point.
        path: PathBuf,
    },
    /// The kernel refused the mount.
    #[error("cannot mount `{device}` on `{path}`{detail}; `dmesg` may say more")]
    Mount {
        /// What was to be mounted.
        device: PathBuf,
        /// The mount point.
        path: PathBuf,
        /// What the kernel said, after a colon, or nothing.
        detail: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The state of the quotas cannot be read.
    #[error("cannot read the quota state of the pool `{path}`")]
    Quota {
        /// The mount point.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It is no pool.
    #[error(transparent)]
    Layout(#[from] LayoutError),
}

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

fn mount_point_failed(path: &Path) -> impl Fn(io::Error) -> OpenError {
    move |source| OpenError::MountPoint {
        path: path.to_owned(),
        source,
    }
}

impl Pool {
    /// Opens an existing pool: mounts it on `mount_point` in the mount namespace of this process, unless
    /// it is mounted there already.
    ///
    /// A file that is still attached, because VEs live on after a crash of everything else, is used
    /// through the device that has it; mounting that device again gives the same file system.
    ///
    /// # Errors
    /// [`OpenError`] says what stands in the way. `EIO` and the like in it mean a damaged file system.
    pub fn open(source: &Source, mount_point: &Path, options: &Options) -> Result<Self, OpenError> {
        Self::open_with(source, mount_point, options, Layout::Require)
    }

    pub(crate) fn open_with(
        source: &Source,
        mount_point: &Path,
        options: &Options,
        layout: Layout,
    ) -> Result<Self, OpenError> {
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(mount_point);
        made.map_err(mount_point_failed(mount_point))?;
        let mut warnings = Vec::new();
        let (backing, root) = match source {
            Source::LoopFile { path, .. } => open_file(path, mount_point, options, &mut warnings)?,
            Source::Device(path) => {
                let root = mounted_or_mount(path, path, mount_point, options)?;
                (Backing::Device { path: path.clone() }, root)
            }
            Source::Directory(path) => open_bound(path, mount_point)?,
        };
        let view = Root {
            directory: root.as_fd(),
            path: mount_point,
        };
        match layout {
            Layout::Make => view.make()?,
            Layout::Require => view.check()?,
        }
        let quota = enable_quota(root.as_fd()).map_err(|source| OpenError::Quota {
            path: mount_point.to_owned(),
            source,
        })?;
        if let Quota::Unavailable { reason } = &quota {
            warnings.push(Warning::NoQuota {
                reason: reason.clone(),
            });
        }
        Ok(Self {
            root,
            mount_point: mount_point.to_owned(),
            backing,
            quota,
            warnings,
        })
    }

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
            rustix::mount::unmount(&mount_point, UnmountFlags::NOFOLLOW).map_err(|error| {
                CloseError::Unmount {
                    path: mount_point.clone(),
                    source: error.into(),
                }
            })?;
        }
        match backing {
            Backing::File { path, file, device } => {
                let own_node = mount_point.join(format!("loop{}", device.number()));
                drop(device);
                let closed = wait_detached(file.as_fd(), &mount_point)
                    .map_err(|source| CloseError::Detach { path, source })?;
                // Where the host had no node of the device, we made this one; else it is not there.
                let _ = fs::remove_file(own_node);
                Ok(closed)
            }
            Backing::Device { path } => Ok(device_state(&path)),
            Backing::Directory { .. } => Ok(Closed::Released),
        }
    }
}

/// Attaches the file and mounts its device.
fn open_file(
    path: &Path,
    mount_point: &Path,
    options: &Options,
    warnings: &mut Vec<Warning>,
) -> Result<(Backing, OwnedFd), OpenError> {
    let opened = File::options().read(true).write(true).open(path);
    let file = opened.map_err(|source| OpenError::Source {
        path: path.to_owned(),
        source,
    })?;
    // A node that the host lacks is made in the mount point, where the mount then hides it.
    let device =
        LoopDevice::attach(file.as_fd(), mount_point).map_err(|source| OpenError::Attach {
            path: path.to_owned(),
            source,
        })?;
    if !set_up(path, &file, &device)? {
        warnings.push(Warning::Buffered {
            path: path.to_owned(),
        });
    }
    let root = mounted_or_mount(path, device.path(), mount_point, options)?;
    Ok((
        Backing::File {
            path: path.to_owned(),
            file: file.into(),
            device,
        },
        root,
    ))
}

/// Makes sure that the device shows the whole file, as large as it is; says whether I/O is direct.
fn set_up(path: &Path, file: &File, device: &LoopDevice) -> Result<bool, OpenError> {
    let failed = |source| OpenError::Loop {
        path: path.to_owned(),
        source,
    };
    let status = device.status().map_err(failed)?;
    if status.read_only || status.offset_bytes != 0 || status.size_limit_bytes.is_some() {
        let device = device.path().display().to_string();
        return Err(OpenError::AttachedOtherwise {
            path: path.to_owned(),
            device,
        });
    }
    if device.size_bytes().map_err(failed)? < file.metadata().map_err(failed)?.len() {
        device.size_refresh().map_err(failed)?;
    }
    Ok(status.direct_io || device.direct_io_enable().is_ok())
}

/// Returns the root of the file system on `device` at `mount_point`, mounting it if need be.
fn mounted_or_mount(
    source: &Path,
    device: &Path,
    mount_point: &Path,
    options: &Options,
) -> Result<OwnedFd, OpenError> {
    let failed = mount_point_failed(mount_point);
    let directory = open_plain(mount_point).map_err(&failed)?;
    if is_mount_root(directory.as_fd()).map_err(&failed)? {
        let ours = is_on_device(directory.as_fd(), device).map_err(&failed)?;
        let taken = || OpenError::Taken {
            path: mount_point.to_owned(),
        };
        return if ours { Ok(directory) } else { Err(taken()) };
    }
    mount(device, mount_point, options).map_err(|(detail, error)| OpenError::Mount {
        device: source.to_owned(),
        path: mount_point.to_owned(),
        detail,
        source: error,
    })?;
    open_plain(mount_point).map_err(&failed)
}

fn open_plain(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

fn is_mount_root(directory: BorrowedFd<'_>) -> io::Result<bool> {
    let found = rustix::fs::statx(directory, "", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
    Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Whether the btrfs in which `directory` lies is on this block device, by the device's number.
fn is_on_device(directory: BorrowedFd<'_>, device: &Path) -> io::Result<bool> {
    if u64::try_from(rustix::fs::fstatfs(directory)?.f_type) != Ok(btrfs::SUPER_MAGIC) {
        return Ok(false);
    }
    let wanted = fs::metadata(device)?.rdev();
    for found in btrfs::devices(directory)? {
        let same_node = fs::metadata(&found.path).is_ok_and(|metadata| metadata.rdev() == wanted);
        // A node that we made in the mount point is hidden by the mount: its name must do, which
        // the kernel gives each loop device once.
        let same_loop = found.path.file_name() == device.file_name()
            && device
                .file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with("loop"));
        if same_node || same_loop {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Mounts the device; an error comes with what the kernel said about it.
///
/// Set-user-id bits mean nothing on this mount: they are the VEs', and count in their overlays only.
fn mount(device: &Path, mount_point: &Path, options: &Options) -> Result<(), (String, io::Error)> {
    let quiet = |error: rustix::io::Errno| (String::new(), error.into());
    let context = rustix::mount::fsopen("btrfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(quiet)?;
    let mut settings = vec![("discard", "async"), ("subvolid", "5")];
    match options.compression {
        Compression::Off => (),
        Compression::Zstd1 => settings.push(("compress", "zstd:1")),
    }
    let configured =
        rustix::mount::fsconfig_set_string(&context, "source", device).and_then(|()| {
            settings.iter().try_for_each(|(key, value)| {
                rustix::mount::fsconfig_set_string(&context, *key, *value)
            })
        });
    let attributes = MountAttrFlags::MOUNT_ATTR_NOATIME | MountAttrFlags::MOUNT_ATTR_NOSUID;
    let mounted = configured
        .and_then(|()| rustix::mount::fsconfig_create(&context))
        .and_then(|()| rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes))
        .and_then(|mount| {
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
            rustix::mount::move_mount(&mount, "", CWD, mount_point, flags)
        });
    mounted.map_err(|error| (kernel_log(context), error.into()))
}

/// What the kernel logged in a mount's context: lines of a severity letter and a text.
fn kernel_log(context: OwnedFd) -> String {
    let mut context = File::from(context);
    let mut text = String::new();
    let mut line = [0; 512];
    // Each read gives one message, and an error when there are no more.
    while let Ok(length @ 1..) = context.read(&mut line) {
        let message = String::from_utf8_lossy(line.get(..length).unwrap_or_default());
        text.push_str(": ");
        text.push_str(message.get(2..).unwrap_or_default().trim());
    }
    text
}

/// Binds the directory on the mount point, unless it is there already.
fn open_bound(path: &Path, mount_point: &Path) -> Result<(Backing, OwnedFd), OpenError> {
    let failed = mount_point_failed(mount_point);
    let source = |source| OpenError::Source {
        path: path.to_owned(),
        source,
    };
    let wanted = fs::metadata(path).map_err(source)?;
    let same_path = fs::canonicalize(path).map_err(source)?
        == fs::canonicalize(mount_point).map_err(&failed)?;
    let directory = open_plain(mount_point).map_err(&failed)?;
    let found = rustix::fs::fstat(&directory).map_err(|e| failed(e.into()))?;
    if (found.st_dev, found.st_ino) == (wanted.dev(), wanted.ino()) {
        return Ok((Backing::Directory { bound: !same_path }, directory));
    }
    if is_mount_root(directory.as_fd()).map_err(&failed)? {
        return Err(OpenError::Taken {
            path: mount_point.to_owned(),
        });
    }
    let flags = MountFlags::BIND | MountFlags::NOATIME | MountFlags::NOSUID;
    rustix::mount::mount_bind(path, mount_point)
        .and_then(|()| rustix::mount::mount_remount(mount_point, flags, ""))
        .map_err(|error| OpenError::Mount {
            device: path.to_owned(),
            path: mount_point.to_owned(),
            detail: String::new(),
            source: error.into(),
        })?;
    let root = open_plain(mount_point).map_err(&failed)?;
    Ok((Backing::Directory { bound: true }, root))
}

/// Turns simple quotas on where they are off; says what there is.
fn enable_quota(root: BorrowedFd<'_>) -> io::Result<Quota> {
    if btrfs::quota_mode(root)? == QuotaMode::Off
        && let Err(error) = btrfs::quota_enable_simple(root)
    {
        let reason = format!("the kernel refuses simple quotas ({error}); they need Linux 6.7");
        return Ok(Quota::Unavailable { reason });
    }
    // Enabling answers success whatever mode was on before, so look again.
    Ok(match btrfs::quota_mode(root)? {
        QuotaMode::Simple => Quota::Simple,
        QuotaMode::Full => Quota::Unavailable {
            reason: "the btrfs uses full quota groups, which make snapshots slow; \
                     turn them off (`btrfs quota disable`) and open the pool again"
                .to_owned(),
        },
        QuotaMode::Off => Quota::Unavailable {
            reason: "the kernel did not turn simple quotas on".to_owned(),
        },
    })
}

/// Waits until the file is no longer attached, or somebody else evidently uses it.
fn wait_detached(file: BorrowedFd<'_>, nodes: &Path) -> Result<Closed, LoopError> {
    let begin = Instant::now();
    loop {
        if LoopDevice::find(file, nodes)?.is_none() {
            return Ok(Closed::Released);
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
