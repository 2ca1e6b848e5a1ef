//! Making a pool, or finding the one that was made.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use kernel::btrfs;
use rustix::fs::{FlockOperation, IFlags, OFlags};
use rustix::io::Errno;

use crate::full::Size;
use crate::layout::{LayoutError, Root};
use crate::open::{Layout, OpenError};
use crate::program::{self, ProgramError};
use crate::source::{Options, POOL_BYTES_MIN, Source, Warning};
use crate::superblock::{self, LABEL, Superblock};
use crate::{Pool, usage};

/// A pool could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The file or device is too small for a pool.
    #[error(
        "a pool of {} in `{}` is too small: a template and a VE need {} at least",
        Size(*size_bytes), path.display(), Size(POOL_BYTES_MIN)
    )]
    TooSmall {
        /// The file or device.
        path: PathBuf,
        /// Its size.
        size_bytes: u64,
    },
    /// The file or device holds something that is no pool.
    #[error("`{path}` holds {found}, and is left as it is; {advice}")]
    Occupied {
        /// The file or device.
        path: PathBuf,
        /// What was found there.
        found: String,
        /// The next step.
        advice: &'static str,
    },
    /// The device is mounted, or in use by a volume manager.
    #[error(
        "`{path}` is in use (mounted, swap, or part of a volume group or RAID); give a device that is free"
    )]
    InUse {
        /// The device.
        path: PathBuf,
    },
    /// The path is no block device.
    #[error("`{path}` is not a block device")]
    NotADevice {
        /// The path.
        path: PathBuf,
    },
    /// Somebody else is making the same pool right now.
    #[error("another program is making the pool `{path}`; wait until it is done")]
    Concurrent {
        /// The file.
        path: PathBuf,
    },
    /// The directory lies on another file system.
    #[error(
        "`{path}` is not on btrfs; give a directory of a btrfs, a device, or no place at all for a file of its own"
    )]
    NotBtrfs {
        /// The directory.
        path: PathBuf,
    },
    /// A step on the file, device or directory failed.
    #[error("cannot {action} `{path}`")]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A program that is needed failed or is missing.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The directory is no place for a pool.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The pool was made and could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
}

const ADVICE_FILE: &str = "move it away, or give the pool another file";
const ADVICE_DEVICE: &str =
    "if nobody needs it, clear the device with `wipefs --all` and try again";

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CreateError {
    let path = path.to_owned();
    move |source| CreateError::Io {
        action,
        path,
        source,
    }
}

impl Pool {
    /// Makes the pool on `source`, mounts it on `mount_point` in the mount namespace of this
    /// process, and turns simple quotas on. Finds a pool that was made before, also half.
    ///
    /// Never overwrites anything: a device or file that holds another file system, and a directory
    /// that holds files, are refused.
    ///
    /// # Errors
    /// [`CreateError`] says what stands in the way; what existed before is as it was.
    pub fn create(
        source: &Source,
        mount_point: &Path,
        options: &Options,
    ) -> Result<Self, CreateError> {
        let warnings = match source {
            Source::LoopFile { path, size_bytes } => prepare_file(path, *size_bytes)?,
            Source::Device(path) => prepare_device(path)?,
            Source::Directory(path) => prepare_directory(path)?,
        };
        let mut pool = Self::open_with(source, mount_point, options, Layout::Make)?;
        pool.warnings.extend(warnings);
        Ok(pool)
    }
}

/// Makes the file, complete or not at all: it gets its name when the file system is in it.
fn prepare_file(path: &Path, size_bytes: u64) -> Result<Vec<Warning>, CreateError> {
    if let Some(file) = open_existing(path)? {
        return check_file(path, &file, size_bytes);
    }
    if size_bytes < POOL_BYTES_MIN {
        return Err(CreateError::TooSmall {
            path: path.to_owned(),
            size_bytes,
        });
    }
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    let file = open_unfinished(&unfinished)?;
    if let Some(file) = open_existing(path)? {
        // Somebody finished it while we waited to begin.
        return check_file(path, &file, size_bytes);
    }
    let fill = || {
        file.set_len(size_bytes)
            .map_err(failed("size", &unfinished))?;
        program::make_file_system(&unfinished)?;
        file.sync_all().map_err(failed("write out", &unfinished))
    };
    if let Err(error) = fill() {
        // Ours, and of no use to anybody: a next try begins anew.
        let _ = fs::remove_file(&unfinished);
        return Err(error);
    }
    fs::rename(&unfinished, path).map_err(failed("name", path))?;
    let parent = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let synced = File::open(parent).and_then(|directory| directory.sync_all());
    synced.map_err(failed("write out", parent))?;
    room_warning(path, &file)
}

fn open_existing(path: &Path) -> Result<Option<File>, CreateError> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("open", path)(error)),
    }
}

/// Opens the file that a pool is being made in, emptied of what a crash left.
fn open_unfinished(path: &Path) -> Result<File, CreateError> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed("make", path))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => (),
        Err(Errno::WOULDBLOCK) => {
            return Err(CreateError::Concurrent {
                path: path.to_owned(),
            });
        }
        Err(error) => return Err(failed("lock", path)(error.into())),
    }
    file.set_len(0).map_err(failed("empty", path))?;
    // On a btrfs, copying on write below copying on write fragments without end. The flag is
    // only taken by an empty file; other file systems refuse it, and need not know it.
    if let Ok(flags) = rustix::fs::ioctl_getflags(&file) {
        let _ = rustix::fs::ioctl_setflags(&file, flags | IFlags::NOCOW);
    }
    Ok(file)
}

/// Accepts an existing file only when a pool is in it.
fn check_file(path: &Path, file: &File, wanted: u64) -> Result<Vec<Warning>, CreateError> {
    let metadata = file.metadata().map_err(failed("examine", path))?;
    let occupied = |found: String| CreateError::Occupied {
        path: path.to_owned(),
        found,
        advice: ADVICE_FILE,
    };
    if !metadata.is_file() {
        return Err(occupied("something that is no file".to_owned()));
    }
    match superblock::read(file).map_err(failed("read", path))? {
        Superblock::Btrfs { label, .. } if label == LABEL => (),
        Superblock::Btrfs { label, .. } => {
            return Err(occupied(format!(
                "a btrfs with the label `{label}` that is no pool"
            )));
        }
        Superblock::Absent | Superblock::Unfinished => {
            let found = program::signatures(path)?.join(", ");
            let found = if found.is_empty() {
                "no pool".to_owned()
            } else {
                found
            };
            return Err(occupied(found));
        }
    }
    let mut warnings = room_warning(path, file)?;
    if wanted != metadata.len() {
        let (path, size_bytes) = (path.to_owned(), metadata.len());
        warnings.push(Warning::SizeDiffers {
            path,
            wanted_bytes: wanted,
            size_bytes,
        });
    }
    Ok(warnings)
}

/// Warns when the disk has less than the file may still take from it.
fn room_warning(path: &Path, file: &File) -> Result<Vec<Warning>, CreateError> {
    let backing = usage::backing(file.as_fd()).map_err(failed("examine", path))?;
    let wanted_bytes = backing.size_bytes.saturating_sub(backing.allocated_bytes);
    let free_bytes = backing.disk_free_bytes;
    let short = wanted_bytes > free_bytes;
    let warning = Warning::DiskSmaller {
        path: path.to_owned(),
        wanted_bytes,
        free_bytes,
    };
    Ok(short.then_some(warning).into_iter().collect())
}

/// Makes the file system on a device that holds nothing; accepts one that holds a pool.
fn prepare_device(path: &Path) -> Result<Vec<Warning>, CreateError> {
    let device = File::open(path).map_err(failed("open", path))?;
    let metadata = device.metadata().map_err(failed("examine", path))?;
    if !metadata.file_type().is_block_device() {
        return Err(CreateError::NotADevice {
            path: path.to_owned(),
        });
    }
    let size = kernel::loop_device::block_device_size_bytes(device.as_fd());
    let size_bytes = size.map_err(failed("examine", path))?;
    let occupied = |found| CreateError::Occupied {
        path: path.to_owned(),
        found,
        advice: ADVICE_DEVICE,
    };
    match superblock::read(&device).map_err(failed("read", path))? {
        Superblock::Btrfs {
            label,
            device_count: 1,
        } if label == LABEL => return Ok(Vec::new()),
        Superblock::Btrfs {
            label,
            device_count,
        } => {
            return Err(occupied(format!(
                "a btrfs of {device_count} device(s) with the label `{label}` that is no pool"
            )));
        }
        Superblock::Absent | Superblock::Unfinished => (),
    }
    if size_bytes < POOL_BYTES_MIN {
        return Err(CreateError::TooSmall {
            path: path.to_owned(),
            size_bytes,
        });
    }
    let found = program::signatures(path)?;
    if !found.is_empty() {
        return Err(occupied(found.join(", ")));
    }
    // Opening exclusively fails while the kernel has the device in use for anything.
    let exclusive = OFlags::EXCL.bits().cast_signed();
    match File::options()
        .read(true)
        .custom_flags(exclusive)
        .open(path)
    {
        Ok(_) => (),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            return Err(CreateError::InUse {
                path: path.to_owned(),
            });
        }
        Err(error) => return Err(failed("open", path)(error)),
    }
    drop(device);
    program::make_file_system(path)?;
    Ok(Vec::new())
}

/// Makes the directory a pool when it is empty; accepts one that is a pool.
fn prepare_directory(path: &Path) -> Result<Vec<Warning>, CreateError> {
    let directory = File::open(path).map_err(failed("open", path))?;
    let statistics =
        rustix::fs::fstatfs(&directory).map_err(|e| failed("examine", path)(e.into()))?;
    if u64::try_from(statistics.f_type) != Ok(btrfs::SUPER_MAGIC) {
        return Err(CreateError::NotBtrfs {
            path: path.to_owned(),
        });
    }
    let root = Root {
        directory: directory.as_fd(),
        path,
    };
    root.check_vacant()?;
    root.make()?;
    Ok(Vec::new())
}
