//! Loop devices: a file as a block device, attached once and found again.
//!
//! Two loop devices over one file are two caches over one disk, and destroy the file system in it.
//! So a file is looked up before it is attached, under an advisory lock on the file (`flock`),
//! by the identity of its inode and not by a path.
//!
//! Devices are attached with *autoclear*: the kernel detaches the file when the last user is gone,
//! be it an orderly unmount or the end of the last mount namespace that had it. An open
//! [`LoopDevice`] is such a user, so what was found stays attached while it is held. And with
//! *direct I/O* where the file system of the file can, else every page would be cached twice.
//!
//! Hosts without devtmpfs may lack `/dev/loopN`: then a node of our own is made in a directory
//! that the caller names.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, FlockOperation, Mode, OFlags};
use rustix::ioctl::Opcode;

use crate::control;

/// Major number of loop devices (`LOOP_MAJOR` of `linux/major.h`).
const LOOP_MAJOR: u32 = 7;

/// Where the host keeps the nodes of its devices.
const HOST_DIRECTORY: &str = "/dev";

/// Where new loop devices come from.
const CONTROL_PATH: &str = "/dev/loop-control";

/// Attempts to get a free device while others take them from under us. Each failure means that
/// somebody else succeeded, so this many is more than contention explains.
const ATTACH_ATTEMPTS_MAX: u32 = 64;

/// `LO_FLAGS_*` of `linux/loop.h`.
const FLAG_READ_ONLY: u32 = 1;
const FLAG_AUTOCLEAR: u32 = 4;
const FLAG_DIRECT_IO: u32 = 16;

/// Requests of `linux/loop.h` and, for the size, `linux/fs.h`.
const LOOP_CLR_FD: Opcode = 0x4C01;
const LOOP_GET_STATUS64: Opcode = 0x4C05;
const LOOP_SET_CAPACITY: Opcode = 0x4C07;
const LOOP_SET_DIRECT_IO: Opcode = 0x4C08;
const LOOP_CONFIGURE: Opcode = 0x4C0A;
const LOOP_CTL_GET_FREE: Opcode = 0x4C82;
const BLKGETSIZE64: Opcode = rustix::ioctl::opcode::read::<usize>(0x12, 114);

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}
const _: () = assert!(size_of::<LoopInfo>() == 232);

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}
const _: () = assert!(size_of::<LoopConfig>() == 304);

impl LoopInfo {
    const EMPTY: Self = Self {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: 0,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
}

/// A loop device with a file attached, held open: it stays attached at least as long as this
/// value lives.
#[derive(Debug)]
pub struct LoopDevice {
    number: u32,
    path: PathBuf,
    device: OwnedFd,
}

/// How a file is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopStatus {
    /// Where the device begins in the file, in bytes.
    pub offset_bytes: u64,
    /// Most bytes of the file that the device shows; nothing for all of it.
    pub size_limit_bytes: Option<u64>,
    /// Whether reads and writes go past the page cache of the file.
    pub direct_io: bool,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Whether the kernel detaches the file after the last user.
    pub autoclear: bool,
}

/// A file could not be attached, or its device not be found.
#[derive(Debug, thiserror::Error)]
pub enum LoopError {
    /// The host has no loop driver, or hides it.
    #[error(
        "cannot open `{CONTROL_PATH}`; load the module `loop`, or give this container the device"
    )]
    Control(#[source] io::Error),
    /// No free device was to be had.
    #[error("the kernel gave no free loop device")]
    NoneFree(#[source] io::Error),
    /// Others took each device that the kernel offered.
    #[error("each of {ATTACH_ATTEMPTS_MAX} free loop devices was taken by others first; try again")]
    Contended,
    /// The device's node could be neither opened nor made.
    #[error("cannot open the loop device {number} as `{path}`")]
    Node {
        /// Number of the device.
        number: u32,
        /// Path that was tried last.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The kernel refused the file.
    #[error("the kernel refused to attach the file to loop device {number}")]
    Configure {
        /// Number of the device.
        number: u32,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file could not be examined or locked.
    #[error("cannot examine the file that is to be attached")]
    File(#[source] io::Error),
    /// The kernel's list of loop devices could not be read.
    #[error("cannot list the loop devices in `/sys/block`")]
    List(#[source] io::Error),
    /// A device could not be asked.
    #[error("cannot read the state of loop device {number}")]
    Status {
        /// Number of the device.
        number: u32,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl LoopDevice {
    /// Finds the device to which `file` is attached already, by whomever.
    ///
    /// # Errors
    /// When the devices cannot be listed or asked.
    pub fn find(file: BorrowedFd<'_>, nodes: &Path) -> Result<Option<Self>, LoopError> {
        let wanted = rustix::fs::fstat(file).map_err(|e| LoopError::File(e.into()))?;
        for number in attached_numbers().map_err(LoopError::List)? {
            let device = match Self::open(number, nodes, OFlags::RDONLY) {
                Ok(device) => device,
                // Detached and removed since it was listed.
                Err(LoopError::Node { source, .. }) if is_gone(&source) => continue,
                Err(error) => return Err(error),
            };
            match device.info() {
                Ok(info) if (info.device, info.inode) == (wanted.st_dev, wanted.st_ino) => {
                    return Ok(Some(device));
                }
                Ok(_) => device.node_forget(),
                Err(source) if is_gone(&source) => device.node_forget(),
                Err(source) => return Err(LoopError::Status { number, source }),
            }
        }
        Ok(None)
    }

    /// Returns the device to which `file` is attached, attaching it to a free one if need be:
    /// writable, with autoclear, and with direct I/O where the file's file system can.
    ///
    /// `file` must be open for reading and writing, else the device is read-only. Where `/dev` lacks
    /// the device's node, one is made in the directory `nodes`, which is made for root only when missing.
    ///
    /// # Errors
    /// When there is no loop driver, no free device, or the kernel refuses the file.
    pub fn attach(file: BorrowedFd<'_>, nodes: &Path) -> Result<Self, LoopError> {
        // Two of us between looking and attaching would attach twice.
        rustix::fs::flock(file, FlockOperation::LockExclusive)
            .map_err(|e| LoopError::File(e.into()))?;
        let attached = match Self::find(file, nodes) {
            Ok(Some(device)) => Ok(device),
            Ok(None) => Self::attach_new(file, nodes),
            Err(error) => Err(error),
        };
        // The lock also ends with the file's last descriptor, so failing to end it harms nobody
        // for long, and the attached device counts more.
        let _ = rustix::fs::flock(file, FlockOperation::Unlock);
        attached
    }

    fn attach_new(file: BorrowedFd<'_>, nodes: &Path) -> Result<Self, LoopError> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let control = rustix::fs::open(CONTROL_PATH, flags, Mode::empty())
            .map_err(|e| LoopError::Control(e.into()))?;
        for _ in 0..ATTACH_ATTEMPTS_MAX {
            // SAFETY: the request takes no argument and answers a device's number.
            let number = unsafe { control::answer::<LOOP_CTL_GET_FREE>(control.as_fd()) };
            let number = number.map_err(LoopError::NoneFree)?.cast_unsigned();
            let writable = match Self::open(number, nodes, OFlags::RDWR) {
                Ok(device) => device,
                Err(LoopError::Node { source, .. }) if is_gone(&source) => continue,
                Err(error) => return Err(error),
            };
            match writable.configure(file) {
                Ok(()) => (),
                Err(error) if is_busy(&error) => {
                    writable.node_forget();
                    continue;
                }
                Err(source) => return Err(LoopError::Configure { number, source }),
            }
            // A writer that is left open would make some kernels refuse the mount
            // (BLK_DEV_WRITE_MOUNTED off); the new descriptor keeps the device attached.
            return Self::open(number, nodes, OFlags::RDONLY);
        }
        Err(LoopError::Contended)
    }

    /// Opens the node of a device: the host's, or one made in `nodes`.
    fn open(number: u32, nodes: &Path, access: OFlags) -> Result<Self, LoopError> {
        let failed = |path: &Path, source| LoopError::Node {
            number,
            path: path.into(),
            source,
        };
        let ordinary = Path::new(HOST_DIRECTORY).join(format!("loop{number}"));
        match open_node(number, &ordinary, access) {
            Ok(device) => {
                return Ok(Self {
                    number,
                    path: ordinary,
                    device,
                });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => (),
            Err(error) => return Err(failed(&ordinary, error)),
        }
        let own = nodes.join(format!("loop{number}"));
        make_node(number, &own).map_err(|error| failed(&own, error))?;
        let device = open_node(number, &own, access).map_err(|error| failed(&own, error))?;
        Ok(Self {
            number,
            path: own,
            device,
        })
    }

    /// Attaches the file with direct I/O, or without where that is refused outright.
    fn configure(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        let configure = |flags| {
            let config = LoopConfig {
                fd: file.as_raw_fd().cast_unsigned(),
                block_size: 0,
                info: LoopInfo {
                    flags,
                    ..LoopInfo::EMPTY
                },
                reserved: [0; 8],
            };
            // SAFETY: the request reads one LoopConfig without pointers; the kernel takes its own
            // reference to the borrowed file.
            unsafe { control::write::<LOOP_CONFIGURE, _>(self.device.as_fd(), config) }
        };
        match configure(FLAG_AUTOCLEAR | FLAG_DIRECT_IO) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => configure(FLAG_AUTOCLEAR),
            other => other,
        }
    }

    fn info(&self) -> io::Result<LoopInfo> {
        // SAFETY: the request fills one LoopInfo of plain numbers.
        unsafe { control::read::<LOOP_GET_STATUS64, LoopInfo>(self.device.as_fd()) }
    }

    /// The number of the device, as in `/dev/loopN`.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// A path of the device's node, to mount it by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the device's node where it was made by [`LoopDevice::attach`]; the host's stays.
    /// For when nobody will mount the device by its path any more.
    pub fn node_forget(&self) {
        if self.path.parent() != Some(Path::new(HOST_DIRECTORY)) {
            // A node that stays costs nothing and is used again.
            let _ = fs::remove_file(&self.path);
        }
    }

    /// Says how the file is attached.
    ///
    /// # Errors
    /// `ENXIO` when it no longer is.
    pub fn status(&self) -> io::Result<LoopStatus> {
        let info = self.info()?;
        Ok(LoopStatus {
            offset_bytes: info.offset,
            size_limit_bytes: (info.size_limit != 0).then_some(info.size_limit),
            direct_io: info.flags & FLAG_DIRECT_IO != 0,
            read_only: info.flags & FLAG_READ_ONLY != 0,
            autoclear: info.flags & FLAG_AUTOCLEAR != 0,
        })
    }

    /// Turns direct I/O on, for a file that somebody else attached without.
    ///
    /// # Errors
    /// `EINVAL` when the file's file system cannot.
    pub fn direct_io_enable(&self) -> io::Result<()> {
        // SAFETY: the request takes a number, 1 for on.
        unsafe { control::number::<LOOP_SET_DIRECT_IO>(self.device.as_fd(), 1) }
    }

    /// Makes the device as large as its file has become.
    ///
    /// # Errors
    /// `ENXIO` when no file is attached.
    pub fn size_refresh(&self) -> io::Result<()> {
        // SAFETY: the request ignores its argument and touches no memory of this process.
        unsafe { control::number::<LOOP_SET_CAPACITY>(self.device.as_fd(), 0) }
    }

    /// The size of the device in bytes.
    ///
    /// # Errors
    /// Those of the request; none are expected on an open block device.
    pub fn size_bytes(&self) -> io::Result<u64> {
        block_device_size_bytes(self.device.as_fd())
    }

    /// Detaches the file, at once or when its last user is gone. For a device without autoclear.
    ///
    /// # Errors
    /// `ENXIO` when no file is attached.
    pub fn detach(self) -> io::Result<()> {
        // SAFETY: the request ignores its argument and touches no memory of this process.
        unsafe { control::number::<LOOP_CLR_FD>(self.device.as_fd(), 0) }
    }
}

/// The size of a block device in bytes.
///
/// # Errors
/// `ENOTTY` when `device` is no block device.
pub fn block_device_size_bytes(device: BorrowedFd<'_>) -> io::Result<u64> {
    // SAFETY: the request fills one u64; its number says size_t for history's sake only.
    unsafe { control::read::<BLKGETSIZE64, u64>(device) }
}

/// Numbers of the devices that have a file attached: those have a directory `loop` in sysfs.
fn attached_numbers() -> io::Result<Vec<u32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir("/sys/block")? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|n| n.strip_prefix("loop"))
            .and_then(|n| n.parse().ok());
        if let Some(number) = number
            && entry.path().join("loop").exists()
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Opens a node and refuses one that is not the device it is named after.
fn open_node(number: u32, path: &Path, access: OFlags) -> io::Result<OwnedFd> {
    let device = rustix::fs::open(path, access | OFlags::CLOEXEC, Mode::empty())?;
    let stat = rustix::fs::fstat(&device)?;
    let is_block = FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice;
    if is_block && stat.st_rdev == rustix::fs::makedev(LOOP_MAJOR, number) {
        return Ok(device);
    }
    let message = format!(
        "`{}` is not the block device {LOOP_MAJOR}:{number}",
        path.display()
    );
    Err(io::Error::new(io::ErrorKind::InvalidData, message))
}

fn make_node(number: u32, path: &Path) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
    }
    let mode = Mode::RUSR | Mode::WUSR;
    let device = rustix::fs::makedev(LOOP_MAJOR, number);
    match rustix::fs::mknodat(rustix::fs::CWD, path, FileType::BlockDevice, mode, device) {
        Err(error) if error != rustix::io::Errno::EXIST => Err(error.into()),
        _ => Ok(()),
    }
}

/// Whether the device has no file, or is no more.
fn is_gone(error: &io::Error) -> bool {
    let gone = [rustix::io::Errno::NXIO, rustix::io::Errno::NODEV];
    gone.iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn is_busy(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error())
}

#[cfg(test)]
mod tests;
