//! Mounting a pool in the mount namespace of this process, and unmounting it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use kernel::btrfs::{self, QuotaMode};
use kernel::loop_device::{LoopDevice, LoopError};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags};

use crate::layout::{LayoutError, Root};
use crate::source::{Compression, Options, Quota, Source, Warning};
use crate::{Backing, Pool};

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
}

/// Where nodes of loop devices are made on a host that lacks them: `.NAME.nodes` beside the mount point.
pub(crate) fn nodes(mount_point: &Path) -> PathBuf {
    let name = mount_point
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    mount_point.with_file_name(format!(".{name}.nodes"))
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
        // A node of our own may be gone since: its name must do, which is each loop device's alone.
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
    // What VEs marked as set-user-id or as a device means nothing here: files lie unshifted.
    let attributes = MountAttrFlags::MOUNT_ATTR_NOATIME
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
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
    let flags = MountFlags::BIND | MountFlags::NOATIME | MountFlags::NOSUID | MountFlags::NODEV;
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
