//! Simple quotas and their groups.
//!
//! A simple quota (kernel 6.7) charges an extent to the subvolume that wrote it, when it is
//! written, and never looks at sharing. A group `0/SUBVOLUME` exists per subvolume; groups of
//! higher levels sum up their members and can carry the limit.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::ioctl::{Opcode, opcode};

use super::GROUP;
use super::search::{Tree, disk_u64, search};
use super::subvolume::SubvolumeId;
use crate::control;

/// Item types of the quota tree (`BTRFS_QGROUP_*_KEY`).
const STATUS: u32 = 240;
const INFO: u32 = 242;
const LIMIT: u32 = 244;
const RELATION: u32 = 246;

/// `BTRFS_QGROUP_STATUS_FLAG_ON` and `_SIMPLE_MODE`.
const STATUS_ON: u64 = 1;
const STATUS_SIMPLE: u64 = 1 << 3;

/// `BTRFS_QGROUP_LIMIT_MAX_RFER`: the limit on referenced bytes is set.
const LIMIT_REFERENCED: u64 = 1;
/// The kernel's `CLEAR_VALUE`: takes a limit away.
const LIMIT_CLEAR: u64 = u64::MAX;

/// `BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA`; headers before 6.7 lack it.
const ENABLE_SIMPLE: u64 = 4;

/// `BTRFS_QGROUP_LEVEL_SHIFT`: the level lies above the number.
const LEVEL_SHIFT: u32 = 48;
const NUMBER_MASK: u64 = (1 << LEVEL_SHIFT) - 1;

/// A quota group, written `LEVEL/NUMBER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QgroupId(u64);

/// How the file system counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaMode {
    /// Not at all.
    Off,
    /// Simple quotas: by who wrote first, at no measurable cost.
    Simple,
    /// Full quota groups: by walking back references, which makes snapshots slow.
    Full,
}

/// What a group has used, in bytes, as of the last commit of the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QgroupInfo {
    /// Bytes of data and metadata charged to the group and its members.
    pub referenced_bytes: u64,
}

/// `struct btrfs_ioctl_quota_ctl_args`.
#[repr(C)]
struct QuotaControl {
    command: u64,
    status: u64,
}
const _: () = assert!(size_of::<QuotaControl>() == 16);

/// `struct btrfs_ioctl_qgroup_create_args`.
#[repr(C)]
struct QgroupCreate {
    create: u64,
    qgroup: u64,
}
const _: () = assert!(size_of::<QgroupCreate>() == 16);

/// `struct btrfs_ioctl_qgroup_assign_args`.
#[repr(C)]
struct QgroupAssign {
    assign: u64,
    member: u64,
    parent: u64,
}
const _: () = assert!(size_of::<QgroupAssign>() == 24);

/// `struct btrfs_qgroup_limit`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct QgroupLimit {
    flags: u64,
    referenced_max: u64,
    exclusive_max: u64,
    referenced_reserved: u64,
    exclusive_reserved: u64,
}
const _: () = assert!(size_of::<QgroupLimit>() == 40);

/// `struct btrfs_ioctl_qgroup_limit_args`.
#[repr(C)]
struct QgroupLimitSet {
    qgroup: u64,
    limit: QgroupLimit,
}
const _: () = assert!(size_of::<QgroupLimitSet>() == 48);

const QUOTA_CTL: Opcode = opcode::read_write::<QuotaControl>(GROUP, 40);
const QGROUP_ASSIGN: Opcode = opcode::write::<QgroupAssign>(GROUP, 41);
const QGROUP_CREATE: Opcode = opcode::write::<QgroupCreate>(GROUP, 42);
/// Declared as reading in the kernel's header, although it writes.
const QGROUP_LIMIT: Opcode = opcode::read::<QgroupLimitSet>(GROUP, 43);

impl QgroupId {
    /// The group `LEVEL/NUMBER`, or nothing when the number needs more than 48 bits.
    #[must_use]
    pub fn new(level: u16, number: u64) -> Option<Self> {
        (number <= NUMBER_MASK).then_some(Self((u64::from(level) << LEVEL_SHIFT) | number))
    }

    /// The group `LEVEL/NUMBER` of a number that fits anyway.
    #[must_use]
    pub fn above(level: u16, number: u32) -> Self {
        Self((u64::from(level) << LEVEL_SHIFT) | u64::from(number))
    }

    /// The group of level 0 that every subvolume has.
    #[must_use]
    pub fn of_subvolume(subvolume: SubvolumeId) -> Self {
        Self(subvolume.get() & NUMBER_MASK)
    }

    /// The level: 0 for a subvolume's own group.
    #[must_use]
    pub fn level(self) -> u64 {
        self.0 >> LEVEL_SHIFT
    }

    /// The number within its level.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0 & NUMBER_MASK
    }

    pub(super) fn raw(self) -> u64 {
        self.0
    }
}

impl fmt::Display for QgroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.level(), self.number())
    }
}

/// Turns simple quotas on. Commits a transaction, so it takes a disk's time.
///
/// The kernel answers success and changes nothing when quotas of *any* mode are on already: ask
/// [`quota_mode`] before and after.
///
/// # Errors
/// `EINVAL` or `ENOTTY` before kernel 6.7; `EROFS` on a file system that is read-only.
pub fn quota_enable_simple(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut control = QuotaControl {
        command: ENABLE_SIMPLE,
        status: 0,
    };
    // SAFETY: the request reads and writes one QuotaControl of plain numbers.
    unsafe { control::update::<QUOTA_CTL, _>(fd, &mut control) }
}

/// Says how the file system counts, from the status item of its quota tree.
///
/// # Errors
/// Those of a tree search: `EPERM` without the privilege, `EIO` on a damaged file system.
pub fn quota_mode(fd: BorrowedFd<'_>) -> io::Result<QuotaMode> {
    let mut mode = QuotaMode::Off;
    search_quotas(fd, 0, STATUS, (0, 0), |_, content| {
        let flags = disk_u64(content, 16);
        mode = match (flags & STATUS_ON != 0, flags & STATUS_SIMPLE != 0) {
            (false, _) => QuotaMode::Off,
            (true, true) => QuotaMode::Simple,
            (true, false) => QuotaMode::Full,
        };
    })?;
    Ok(mode)
}

/// Makes an empty group.
///
/// # Errors
/// `EEXIST` when it exists, `ENOTCONN` while quotas are off.
pub fn qgroup_create(fd: BorrowedFd<'_>, qgroup: QgroupId) -> io::Result<()> {
    let argument = QgroupCreate {
        create: 1,
        qgroup: qgroup.0,
    };
    // SAFETY: the request reads one QgroupCreate of plain numbers.
    unsafe { control::write::<QGROUP_CREATE, _>(fd, argument) }
}

/// Takes a group away.
///
/// # Errors
/// `ENOENT` when there is none; `EBUSY` while it has members, while its subvolume exists, or
/// while extents are charged to it (a deleted subvolume is emptied in the background).
pub fn qgroup_destroy(fd: BorrowedFd<'_>, qgroup: QgroupId) -> io::Result<()> {
    let argument = QgroupCreate {
        create: 0,
        qgroup: qgroup.0,
    };
    // SAFETY: the request reads one QgroupCreate of plain numbers.
    unsafe { control::write::<QGROUP_CREATE, _>(fd, argument) }
}

/// Makes `member` count in `parent`, with what it has used so far.
///
/// # Errors
/// `EEXIST` when it does already, `EINVAL` when one of them is missing or the levels are not ascending.
pub fn qgroup_assign(fd: BorrowedFd<'_>, member: QgroupId, parent: QgroupId) -> io::Result<()> {
    let argument = QgroupAssign {
        assign: 1,
        member: member.0,
        parent: parent.0,
    };
    // SAFETY: the request reads one QgroupAssign of plain numbers.
    unsafe { control::write::<QGROUP_ASSIGN, _>(fd, argument) }
}

/// Makes `member` no longer count in `parent`.
///
/// # Errors
/// `ENOENT` when it does not.
pub fn qgroup_unassign(fd: BorrowedFd<'_>, member: QgroupId, parent: QgroupId) -> io::Result<()> {
    let argument = QgroupAssign {
        assign: 0,
        member: member.0,
        parent: parent.0,
    };
    // SAFETY: the request reads one QgroupAssign of plain numbers.
    unsafe { control::write::<QGROUP_ASSIGN, _>(fd, argument) }
}

/// Limits the bytes of a group, or takes its limit away. Takes effect at once; what is in use
/// already stays, and the next write above the limit fails with `EDQUOT`.
///
/// # Errors
/// `ENOENT` when there is no such group, `ENOTCONN` while quotas are off.
pub fn qgroup_limit_set(
    fd: BorrowedFd<'_>,
    qgroup: QgroupId,
    bytes_max: Option<u64>,
) -> io::Result<()> {
    let limit = QgroupLimit {
        flags: LIMIT_REFERENCED,
        referenced_max: bytes_max.unwrap_or(LIMIT_CLEAR),
        ..QgroupLimit::default()
    };
    // SAFETY: the request reads one QgroupLimitSet of plain numbers, whatever its direction says.
    unsafe {
        control::write::<QGROUP_LIMIT, _>(
            fd,
            QgroupLimitSet {
                qgroup: qgroup.0,
                limit,
            },
        )
    }
}

/// The limit of a group in bytes, or nothing when it has none (or does not exist).
///
/// # Errors
/// Those of a tree search.
pub fn qgroup_limit(fd: BorrowedFd<'_>, qgroup: QgroupId) -> io::Result<Option<u64>> {
    let mut limit = None;
    search_quotas(fd, 0, LIMIT, (qgroup.0, qgroup.0), |_, content| {
        limit = (disk_u64(content, 0) & LIMIT_REFERENCED != 0).then(|| disk_u64(content, 8));
    })?;
    Ok(limit)
}

/// What a group has used as of the last commit, or nothing when there is no such group.
///
/// # Errors
/// Those of a tree search.
pub fn qgroup_info(fd: BorrowedFd<'_>, qgroup: QgroupId) -> io::Result<Option<QgroupInfo>> {
    let mut info = None;
    search_quotas(fd, 0, INFO, (qgroup.0, qgroup.0), |_, content| {
        info = Some(QgroupInfo {
            referenced_bytes: disk_u64(content, 8),
        });
    })?;
    Ok(info)
}

/// Every group of one level with what it has used as of the last commit, ascending.
/// Nothing while quotas are off.
///
/// # Errors
/// Those of a tree search.
pub fn qgroups(fd: BorrowedFd<'_>, level: u16) -> io::Result<Vec<(QgroupId, QgroupInfo)>> {
    let mut found = Vec::new();
    let first = u64::from(level) << LEVEL_SHIFT;
    search_quotas(
        fd,
        0,
        INFO,
        (first, first | NUMBER_MASK),
        |offset, content| {
            found.push((
                QgroupId(offset),
                QgroupInfo {
                    referenced_bytes: disk_u64(content, 8),
                },
            ));
        },
    )?;
    Ok(found)
}

/// The groups of lower levels that count in `parent`.
///
/// # Errors
/// Those of a tree search.
pub fn qgroup_members(fd: BorrowedFd<'_>, parent: QgroupId) -> io::Result<Vec<QgroupId>> {
    let mut members = Vec::new();
    // Relations are kept in both directions: only the lower levels are members.
    let below = (parent.level() << LEVEL_SHIFT).saturating_sub(1);
    search_quotas(fd, parent.0, RELATION, (0, below), |offset, _| {
        members.push(QgroupId(offset))
    })?;
    Ok(members)
}

/// Searches the quota tree, which reads as empty while quotas are off.
fn search_quotas(
    fd: BorrowedFd<'_>,
    object: u64,
    item_type: u32,
    range: (u64, u64),
    mut visit: impl FnMut(u64, &[u8]),
) -> io::Result<()> {
    let found = search(fd, Tree::Quotas, object, item_type, range, |item| {
        visit(item.offset, item.content);
    });
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_written_as_their_level_and_number() {
        let group = QgroupId::new(1, 65_534).unwrap();
        assert_eq!(group.to_string(), "1/65534");
        assert_eq!(group.raw(), 0x0001_0000_0000_FFFE);
        assert_eq!(QgroupId::new(0, 1 << 48), None);
    }

    #[test]
    fn request_numbers_are_those_of_the_header() {
        assert_eq!(QUOTA_CTL, 0xC010_9428);
        assert_eq!(QGROUP_ASSIGN, 0x4018_9429);
        assert_eq!(QGROUP_CREATE, 0x4010_942A);
        assert_eq!(QGROUP_LIMIT, 0x8030_942B);
    }
}
