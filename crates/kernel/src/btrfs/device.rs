//! Sizes, devices and their error counters.

use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::ioctl::{Opcode, opcode};

use super::GROUP;
use crate::control;

/// Slots of one space request: data, metadata, system and the global reserve take one each, and
/// one more per profile during a conversion.
const SPACES_MAX: usize = 32;

/// `BTRFS_DEV_STAT_VALUES_MAX`.
const STATISTICS_COUNT: u64 = 5;

/// What the file system says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSystemInfo {
    /// The UUID under which the kernel knows this mounted file system.
    pub uuid: [u8; 16],
    /// Largest number of a device.
    pub device_id_max: u64,
    /// Number of devices, missing ones included.
    pub device_count: u64,
    /// Bytes of a metadata node: the least that a subvolume costs.
    pub node_bytes: u32,
}

/// One device of the file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its number in the file system, from 1.
    pub id: u64,
    /// Bytes of it that are parcelled out to data or metadata.
    pub allocated_bytes: u64,
    /// Bytes of it that the file system may use.
    pub size_bytes: u64,
    /// Path by which it was mounted; empty for a missing device.
    pub path: PathBuf,
}

/// Errors that a device has shown since its counters were last reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceStatistics {
    /// Writes that failed.
    pub write_errors: u64,
    /// Reads that failed.
    pub read_errors: u64,
    /// Flushes that failed.
    pub flush_errors: u64,
    /// Blocks whose checksum was wrong.
    pub corruption_errors: u64,
    /// Blocks that were older than they should be (lost writes).
    pub generation_errors: u64,
}

/// What a space is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpaceKind {
    /// Contents of files.
    Data,
    /// Names, attributes, small files, trees.
    Metadata,
    /// Both, in one kind of block group (very small file systems).
    Mixed,
    /// The chunk tree.
    System,
    /// Part of the metadata that is kept for emergencies.
    GlobalReserve,
}

/// One kind of space. Bytes are logical: a [`SpaceInfo::copies`] of 2 takes twice as much of the devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpaceInfo {
    /// What it is for.
    pub kind: SpaceKind,
    /// How often everything in it is kept.
    pub copies: u64,
    /// Bytes parcelled out to it.
    pub total_bytes: u64,
    /// Bytes of them in use.
    pub used_bytes: u64,
}

/// `struct btrfs_ioctl_fs_info_args`.
#[repr(C)]
struct FsInfo {
    max_id: u64,
    num_devices: u64,
    fsid: [u8; 16],
    nodesize: u32,
    sectorsize: u32,
    clone_alignment: u32,
    csum_type: u16,
    csum_size: u16,
    flags: u64,
    generation: u64,
    metadata_uuid: [u8; 16],
    reserved: [u8; 944],
}
const _: () = assert!(size_of::<FsInfo>() == 1024);

/// `struct btrfs_ioctl_dev_info_args`.
#[repr(C)]
struct DevInfo {
    devid: u64,
    uuid: [u8; 16],
    bytes_used: u64,
    total_bytes: u64,
    unused: [u64; 379],
    path: [u8; 1024],
}
const _: () = assert!(size_of::<DevInfo>() == 4096);

/// `struct btrfs_ioctl_get_dev_stats`.
#[repr(C)]
struct DevStats {
    devid: u64,
    nr_items: u64,
    flags: u64,
    values: [u64; 5],
    unused: [u64; 121],
}
const _: () = assert!(size_of::<DevStats>() == 1032);

/// `struct btrfs_ioctl_space_args` without its flexible array.
#[repr(C)]
struct SpaceHead {
    slots: u64,
    total: u64,
}
const _: () = assert!(size_of::<SpaceHead>() == 16);

/// `struct btrfs_ioctl_space_info`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Space {
    flags: u64,
    total_bytes: u64,
    used_bytes: u64,
}
const _: () = assert!(size_of::<Space>() == 24);

#[repr(C)]
struct Spaces {
    head: SpaceHead,
    spaces: [Space; SPACES_MAX],
}

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct Volume {
    fd: i64,
    name: [u8; 4088],
}
const _: () = assert!(size_of::<Volume>() == 4096);

/// `struct fstrim_range` of `linux/fs.h`.
#[repr(C)]
struct TrimRange {
    start: u64,
    length: u64,
    least: u64,
}
const _: () = assert!(size_of::<TrimRange>() == 24);

const RESIZE: Opcode = opcode::write::<Volume>(GROUP, 3);
const SYNC: Opcode = opcode::none(GROUP, 8);
const SPACE_INFO: Opcode = opcode::read_write::<SpaceHead>(GROUP, 20);
const DEV_INFO: Opcode = opcode::read_write::<DevInfo>(GROUP, 30);
const FS_INFO: Opcode = opcode::read::<FsInfo>(GROUP, 31);
const GET_DEV_STATS: Opcode = opcode::read_write::<DevStats>(GROUP, 52);
const FITRIM: Opcode = opcode::read_write::<TrimRange>(b'X', 121);

/// Says what the file system is.
///
/// # Errors
/// `ENOTTY` when `fd` is not of a btrfs.
pub fn file_system_info(fd: BorrowedFd<'_>) -> io::Result<FileSystemInfo> {
    // SAFETY: the request fills one FsInfo of plain numbers.
    let info = unsafe { control::read::<FS_INFO, FsInfo>(fd) }?;
    Ok(FileSystemInfo {
        uuid: info.fsid,
        device_id_max: info.max_id,
        device_count: info.num_devices,
        node_bytes: info.nodesize,
    })
}

/// Describes the device with the number `id`.
///
/// # Errors
/// `ENODEV` when there is none with that number.
pub fn device_info(fd: BorrowedFd<'_>, id: u64) -> io::Result<DeviceInfo> {
    let mut info = Box::new(DevInfo {
        devid: id,
        uuid: [0; 16],
        bytes_used: 0,
        total_bytes: 0,
        unused: [0; 379],
        path: [0; 1024],
    });
    // SAFETY: the request reads and writes one DevInfo of plain numbers.
    unsafe { control::update::<DEV_INFO, _>(fd, info.as_mut()) }?;
    let path = info.path.split(|b| *b == 0).next().unwrap_or_default();
    Ok(DeviceInfo {
        id,
        allocated_bytes: info.bytes_used,
        size_bytes: info.total_bytes,
        path: PathBuf::from(OsStr::from_bytes(path)),
    })
}

/// Describes every device. Numbers can have gaps after a device was taken out.
///
/// # Errors
/// As [`file_system_info`] and [`device_info`].
pub fn devices(fd: BorrowedFd<'_>) -> io::Result<Vec<DeviceInfo>> {
    let mut found = Vec::new();
    for id in 1..=file_system_info(fd)?.device_id_max {
        match device_info(fd, id) {
            Ok(info) => found.push(info),
            Err(error) if is_absent(&error) => (),
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn is_absent(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

/// Reads the error counters of a device, which persist over mounts.
///
/// # Errors
/// `ENODEV` when there is no device with that number or it is missing.
pub fn device_statistics(fd: BorrowedFd<'_>, id: u64) -> io::Result<DeviceStatistics> {
    let mut statistics = DevStats {
        devid: id,
        nr_items: STATISTICS_COUNT,
        flags: 0,
        values: [0; 5],
        unused: [0; 121],
    };
    // SAFETY: the request reads and writes one DevStats of plain numbers.
    unsafe { control::update::<GET_DEV_STATS, _>(fd, &mut statistics) }?;
    let [
        write_errors,
        read_errors,
        flush_errors,
        corruption_errors,
        generation_errors,
    ] = statistics.values;
    Ok(DeviceStatistics {
        write_errors,
        read_errors,
        flush_errors,
        corruption_errors,
        generation_errors,
    })
}

/// Lists what is parcelled out to data and metadata, and how much of it is used.
///
/// # Errors
/// `ENOTTY` when `fd` is not of a btrfs.
pub fn space_info(fd: BorrowedFd<'_>) -> io::Result<Vec<SpaceInfo>> {
    let mut spaces = Spaces {
        head: SpaceHead {
            slots: SPACES_MAX as u64,
            total: 0,
        },
        spaces: [Space::default(); SPACES_MAX],
    };
    // SAFETY: the request updates the head and fills at most `slots` spaces behind it, which is
    // the length of the array; Spaces is plain numbers.
    unsafe { control::update::<SPACE_INFO, _>(fd, &mut spaces) }?;
    let count = usize::try_from(spaces.head.total).unwrap_or(SPACES_MAX);
    Ok(spaces
        .spaces
        .iter()
        .take(count)
        .filter_map(read_space)
        .collect())
}

/// Takes a space's flags apart (`BTRFS_BLOCK_GROUP_*` of `linux/btrfs_tree.h`).
fn read_space(space: &Space) -> Option<SpaceInfo> {
    const DATA: u64 = 1;
    const SYSTEM: u64 = 1 << 1;
    const METADATA: u64 = 1 << 2;
    const TWO_COPIES: u64 = (1 << 4) | (1 << 5) | (1 << 6); // RAID1, DUP, RAID10
    const THREE_COPIES: u64 = 1 << 9;
    const FOUR_COPIES: u64 = 1 << 10;
    const GLOBAL_RESERVE: u64 = 1 << 49;
    let kind = match space.flags {
        flags if flags & GLOBAL_RESERVE != 0 => SpaceKind::GlobalReserve,
        flags if flags & (DATA | METADATA) == DATA | METADATA => SpaceKind::Mixed,
        flags if flags & DATA != 0 => SpaceKind::Data,
        flags if flags & METADATA != 0 => SpaceKind::Metadata,
        flags if flags & SYSTEM != 0 => SpaceKind::System,
        _ => return None,
    };
    let copies = match space.flags {
        flags if flags & TWO_COPIES != 0 => 2,
        flags if flags & THREE_COPIES != 0 => 3,
        flags if flags & FOUR_COPIES != 0 => 4,
        _ => 1,
    };
    let Space {
        total_bytes,
        used_bytes,
        ..
    } = *space;
    Some(SpaceInfo {
        kind,
        copies,
        total_bytes,
        used_bytes,
    })
}

/// Grows the file system to the whole of its device `id`, which became larger.
///
/// # Errors
/// `EINVAL` when there is no such device, `EROFS`; `EIO` or another error while a balance or a
/// removal of a device is under way.
pub fn resize_to_device(fd: BorrowedFd<'_>, id: u64) -> io::Result<()> {
    let mut name = [0; 4088];
    for (to, from) in name.iter_mut().zip(format!("{id}:max").bytes()) {
        *to = from;
    }
    // SAFETY: the request reads one Volume of plain numbers and ends the name at its zero.
    unsafe { control::write::<RESIZE, _>(fd, Volume { fd: 0, name }) }
}

/// Writes out everything that changed, and has the kernel begin to empty destroyed subvolumes,
/// which else waits for the next commit by itself (30 s).
///
/// # Errors
/// `EIO` when a device fails. A file system that is read-only has nothing to write.
pub fn sync(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the request ignores its argument and touches no memory of this process.
    unsafe { control::number::<SYNC>(fd, 0) }
}

/// Tells the device of all space that is not in use; returns how many bytes that was.
///
/// # Errors
/// `EOPNOTSUPP` when the device cannot discard.
pub fn trim(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let mut range = TrimRange {
        start: 0,
        length: u64::MAX,
        least: 0,
    };
    // SAFETY: the request reads and writes one TrimRange of plain numbers.
    unsafe { control::update::<FITRIM, _>(fd, &mut range) }?;
    Ok(range.length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_numbers_are_those_of_the_header() {
        assert_eq!(SYNC, 0x9408);
        assert_eq!(RESIZE, 0x5000_9403);
        assert_eq!(SPACE_INFO, 0xC010_9414);
        assert_eq!(DEV_INFO, 0xD000_941E);
        assert_eq!(FS_INFO, 0x8400_941F);
        assert_eq!(GET_DEV_STATS, 0xC408_9434);
        assert_eq!(FITRIM, 0xC018_5879);
    }

    #[test]
    fn spaces_are_told_apart_by_their_flags() {
        let space = |flags| {
            read_space(&Space {
                flags,
                total_bytes: 2,
                used_bytes: 1,
            })
        };
        let dup = space((1 << 2) | (1 << 5)).unwrap();
        assert_eq!((dup.kind, dup.copies), (SpaceKind::Metadata, 2));
        assert_eq!(
            space((1 << 2) | (1 << 49)).unwrap().kind,
            SpaceKind::GlobalReserve
        );
        assert_eq!(space(0b101).unwrap().kind, SpaceKind::Mixed);
        assert_eq!(space(1).unwrap().copies, 1);
    }
}
