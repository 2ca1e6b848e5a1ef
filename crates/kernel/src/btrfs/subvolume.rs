//! Subvolumes: making, snapshotting, finding and destroying them.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::ioctl::{Opcode, opcode};

use super::GROUP;
use super::quota::{QgroupId, QgroupLimit};
use super::search::{Tree, disk_u16, disk_u64, search};
use crate::control;

/// Inode number of the root directory of every subvolume (`BTRFS_FIRST_FREE_OBJECTID`).
pub const SUBVOLUME_ROOT_INODE: u64 = 256;

/// Least number of a subvolume that somebody made; those below are the file system's own.
pub const SUBVOLUME_ID_MIN: u64 = 256;

/// Item types of the tree of roots (`BTRFS_ROOT_ITEM_KEY`, `BTRFS_ROOT_REF_KEY`).
const ROOT_ITEM: u32 = 132;
const ROOT_REFERENCE: u32 = 156;

/// Length of `struct btrfs_root_ref`, behind which the name lies.
const ROOT_REFERENCE_BYTES: usize = 18;

/// `BTRFS_SUBVOL_RDONLY`, `_QGROUP_INHERIT`, `_SPEC_BY_ID`.
const FLAG_READ_ONLY: u64 = 1 << 1;
const FLAG_INHERIT: u64 = 1 << 2;
const FLAG_BY_ID: u64 = 1 << 4;

/// `BTRFS_SUBVOL_NAME_MAX + 1`, the buffer; a name itself has at most 255 bytes.
const NAME_BUFFER_BYTES: usize = 4040;
/// `BTRFS_NAME_LEN`.
const NAME_BYTES_MAX: usize = 255;

/// Most groups that a new subvolume can be made a member of at once here.
const INHERIT_MAX: usize = 4;

/// The number of a subvolume, unique in its file system and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubvolumeId(u64);

/// Whether a subvolume can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading only.
    ReadOnly,
    /// Reading and writing.
    ReadWrite,
}

/// A subvolume that hangs in a directory of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// Its number.
    pub id: SubvolumeId,
    /// Inode number, in the subvolume above, of the directory that holds its name.
    pub directory: u64,
    /// Its name in that directory.
    pub name: std::ffi::OsString,
}

/// `struct btrfs_qgroup_inherit` with room for [`INHERIT_MAX`] groups.
#[repr(C)]
struct Inherit {
    flags: u64,
    qgroup_count: u64,
    referenced_copies: u64,
    exclusive_copies: u64,
    limit: QgroupLimit,
    qgroups: [u64; INHERIT_MAX],
}
/// Length of `struct btrfs_qgroup_inherit` without its groups.
const INHERIT_HEAD_BYTES: u64 = 72;
const _: () = assert!(size_of::<Inherit>() == 72 + 8 * INHERIT_MAX);

/// `struct btrfs_ioctl_vol_args_v2`.
#[repr(C)]
struct VolumeArguments {
    fd: i64,
    transaction: u64,
    flags: u64,
    inherit_bytes: u64,
    inherit: *const Inherit,
    unused: [u64; 2],
    name: [u8; NAME_BUFFER_BYTES],
}
const _: () = assert!(size_of::<VolumeArguments>() == 4096);

/// `struct btrfs_ioctl_ino_lookup_args`.
#[repr(C)]
struct InodeLookup {
    tree: u64,
    object: u64,
    name: [u8; 4080],
}
const _: () = assert!(size_of::<InodeLookup>() == 4096);

const INO_LOOKUP: Opcode = opcode::read_write::<InodeLookup>(GROUP, 18);
const SNAP_CREATE_V2: Opcode = opcode::write::<VolumeArguments>(GROUP, 23);
const SUBVOL_CREATE_V2: Opcode = opcode::write::<VolumeArguments>(GROUP, 24);
const SUBVOL_SETFLAGS: Opcode = opcode::write::<u64>(GROUP, 26);
const SNAP_DESTROY_V2: Opcode = opcode::write::<VolumeArguments>(GROUP, 63);

impl SubvolumeId {
    /// The number itself; 5 is the top of the file system.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }

    /// The subvolume whose own group `qgroup` is, or nothing for a group of a higher level.
    #[must_use]
    pub fn of_qgroup(qgroup: QgroupId) -> Option<Self> {
        (qgroup.level() == 0).then(|| Self(qgroup.number()))
    }
}

impl VolumeArguments {
    /// Refuses a name that is no single path component, before the kernel sees it.
    fn named(name: &OsStr) -> io::Result<Self> {
        let bytes = name.as_bytes();
        let invalid = bytes.is_empty()
            || bytes.len() > NAME_BYTES_MAX
            || matches!(bytes, b"." | b"..")
            || bytes.iter().any(|b| matches!(b, 0 | b'/'));
        if invalid {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let mut arguments = Self::unnamed();
        for (to, from) in arguments.name.iter_mut().zip(bytes) {
            *to = *from;
        }
        Ok(arguments)
    }

    fn unnamed() -> Self {
        Self {
            fd: 0,
            transaction: 0,
            flags: 0,
            inherit_bytes: 0,
            inherit: std::ptr::null(),
            unused: [0; 2],
            name: [0; NAME_BUFFER_BYTES],
        }
    }

    /// Makes the new subvolume a member of `inherit`'s groups.
    fn inheriting(self, inherit: &Inherit) -> Self {
        if inherit.qgroup_count == 0 {
            return self;
        }
        Self {
            flags: self.flags | FLAG_INHERIT,
            inherit_bytes: INHERIT_HEAD_BYTES + 8 * inherit.qgroup_count,
            inherit: std::ptr::from_ref(inherit),
            ..self
        }
    }
}

impl Inherit {
    fn of(groups: &[QgroupId]) -> io::Result<Self> {
        let mut qgroups = [0; INHERIT_MAX];
        if groups.len() > INHERIT_MAX {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        for (to, from) in qgroups.iter_mut().zip(groups) {
            *to = from.raw();
        }
        Ok(Self {
            flags: 0,
            qgroup_count: groups.len() as u64,
            referenced_copies: 0,
            exclusive_copies: 0,
            limit: QgroupLimit::default(),
            qgroups,
        })
    }
}

/// Makes an empty subvolume `name` in the directory `parent`, a member of `groups` from its first
/// byte. It is on the disk at the next commit of the file system, not before.
///
/// # Errors
/// `EEXIST` when the name is taken, `ENOENT` or `EINVAL` when a group is missing, `ENOSPC`, `EROFS`;
/// `InvalidInput` for a name that is no path component or for more than 4 groups.
pub fn subvolume_create(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    groups: &[QgroupId],
) -> io::Result<()> {
    let inherit = Inherit::of(groups)?;
    let arguments = VolumeArguments::named(name)?.inheriting(&inherit);
    // SAFETY: the request reads one VolumeArguments and, through its pointer, `inherit_bytes`
    // of `inherit`, which lives on this frame until the call is over.
    unsafe { control::write::<SUBVOL_CREATE_V2, _>(parent, arguments) }
}

/// Makes `name` in the directory `parent` a snapshot of the subvolume whose root directory
/// `source` is, a member of `groups`. Writes out what is dirty of the source first.
///
/// # Errors
/// As [`subvolume_create`]; `EINVAL` when `source` is no root of a subvolume, `EXDEV` when it is of another file system.
pub fn snapshot_create(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    source: BorrowedFd<'_>,
    access: Access,
    groups: &[QgroupId],
) -> io::Result<()> {
    let inherit = Inherit::of(groups)?;
    let mut arguments = VolumeArguments::named(name)?.inheriting(&inherit);
    arguments.fd = i64::from(source.as_raw_fd());
    if access == Access::ReadOnly {
        arguments.flags |= FLAG_READ_ONLY;
    }
    // SAFETY: the request reads one VolumeArguments and, through its pointer, `inherit_bytes`
    // of `inherit`, which lives on this frame; `source` is borrowed for the whole call.
    unsafe { control::write::<SNAP_CREATE_V2, _>(parent, arguments) }
}

/// Destroys the subvolume `name` in the directory `parent`, also while files of it are open or
/// mounted. Its name is gone at once; its space comes back in the background.
///
/// # Errors
/// `ENOENT` when there is none, `ENOTEMPTY` while other subvolumes hang in it, `EROFS` when the subvolume
/// above is read-only, `EINVAL` or `ENOTDIR` when it is no subvolume.
pub fn subvolume_destroy(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let arguments = VolumeArguments::named(name)?;
    // SAFETY: the request reads one VolumeArguments; without flags it follows no pointer.
    unsafe { control::write::<SNAP_DESTROY_V2, _>(parent, arguments) }
}

/// Destroys a subvolume by its number, wherever in the file system of `fd` it hangs.
///
/// # Errors
/// As [`subvolume_destroy`]; `ENAMETOOLONG` when its path has more than 4,095 bytes.
pub fn subvolume_destroy_by_id(fd: BorrowedFd<'_>, subvolume: SubvolumeId) -> io::Result<()> {
    let mut arguments = VolumeArguments::unnamed();
    arguments.flags = FLAG_BY_ID;
    // The number shares its place with the name (a union in the header).
    for (to, from) in arguments.name.iter_mut().zip(subvolume.0.to_ne_bytes()) {
        *to = from;
    }
    // SAFETY: the request reads one VolumeArguments; with this flag it follows no pointer.
    unsafe { control::write::<SNAP_DESTROY_V2, _>(fd, arguments) }
}

/// The number of the subvolume in which `fd` lies.
///
/// # Errors
/// `ENOTTY` when `fd` is not of a btrfs.
pub fn subvolume_id(fd: BorrowedFd<'_>) -> io::Result<SubvolumeId> {
    lookup(fd, 0, SUBVOLUME_ROOT_INODE).map(|found| SubvolumeId(found.tree))
}

/// The path of a directory, by its inode number, from the root of its subvolume.
///
/// # Errors
/// `ENOENT` when there is no such directory; `ENAMETOOLONG` beyond 4,079 bytes.
pub fn directory_path(
    fd: BorrowedFd<'_>,
    subvolume: SubvolumeId,
    directory: u64,
) -> io::Result<PathBuf> {
    let found = lookup(fd, subvolume.0, directory)?;
    let bytes = found.name.split(|b| *b == 0).next().unwrap_or_default();
    Ok(PathBuf::from(OsStr::from_bytes(bytes)))
}

fn lookup(fd: BorrowedFd<'_>, tree: u64, object: u64) -> io::Result<Box<InodeLookup>> {
    let mut arguments = Box::new(InodeLookup {
        tree,
        object,
        name: [0; 4080],
    });
    // SAFETY: the request reads and writes one InodeLookup of plain numbers.
    unsafe { control::update::<INO_LOOKUP, _>(fd, arguments.as_mut()) }?;
    Ok(arguments)
}

/// Makes the subvolume whose root directory `fd` is writable or not.
///
/// # Errors
/// `EINVAL` when `fd` is no root of a subvolume, `EPERM` while it is being sent.
pub fn subvolume_access_set(fd: BorrowedFd<'_>, access: Access) -> io::Result<()> {
    let flags = match access {
        Access::ReadOnly => FLAG_READ_ONLY,
        Access::ReadWrite => 0,
    };
    // SAFETY: the request reads one number of 64 bits.
    unsafe { control::write::<SUBVOL_SETFLAGS, u64>(fd, flags) }
}

/// The subvolumes that hang directly in `parent`, anywhere in its directories.
///
/// # Errors
/// Those of a tree search: `EPERM` without the privilege, `EIO` on a damaged file system.
pub fn subvolume_children(fd: BorrowedFd<'_>, parent: SubvolumeId) -> io::Result<Vec<Child>> {
    let mut children = Vec::new();
    let all = (0, u64::MAX);
    search(fd, Tree::Roots, parent.0, ROOT_REFERENCE, all, |item| {
        let length = usize::from(disk_u16(item.content, 16));
        let name = item.content.get(ROOT_REFERENCE_BYTES..).unwrap_or_default();
        let name = name.get(..length).unwrap_or(name);
        children.push(Child {
            id: SubvolumeId(item.offset),
            directory: disk_u64(item.content, 0),
            name: OsStr::from_bytes(name).to_owned(),
        });
    })?;
    Ok(children)
}

/// Whether the subvolume is there: true also for one that was destroyed and is still being
/// emptied in the background.
///
/// # Errors
/// Those of a tree search.
pub fn subvolume_exists(fd: BorrowedFd<'_>, subvolume: SubvolumeId) -> io::Result<bool> {
    let mut exists = false;
    let all = (0, u64::MAX);
    search(fd, Tree::Roots, subvolume.0, ROOT_ITEM, all, |_| {
        exists = true
    })?;
    Ok(exists)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_numbers_are_those_of_the_header() {
        assert_eq!(SUBVOL_CREATE_V2, 0x5000_9418);
        assert_eq!(SNAP_CREATE_V2, 0x5000_9417);
        assert_eq!(SNAP_DESTROY_V2, 0x5000_943F);
        assert_eq!(INO_LOOKUP, 0xD000_9412);
        assert_eq!(SUBVOL_SETFLAGS, 0x4008_941A);
    }

    #[test]
    fn names_that_are_no_component_never_reach_the_kernel() {
        for name in ["", ".", "..", "a/b", "a\0b", &"x".repeat(256)] {
            assert!(
                VolumeArguments::named(OsStr::new(name)).is_err(),
                "{name:?}"
            );
        }
        assert!(VolumeArguments::named(OsStr::new(&"x".repeat(255))).is_ok());
    }
}
