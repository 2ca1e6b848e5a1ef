//! btrfs as the pool needs it: subvolumes, simple quotas, sizes, devices.
//!
//! Layouts and request numbers are those of `linux/btrfs.h` and `linux/btrfs_tree.h`; every
//! structure has its size asserted beside it. Request numbers are computed from the structures, so a wrong
//! size is a wrong number and the kernel answers `ENOTTY` instead of writing past a buffer.
//!
//! What is *not* here: mounting (the pool does it with `rustix`), send and receive, scrub, balance
//! and full quota groups, which make snapshots slow by orders of magnitude.
//!
//! Most calls need `CAP_SYS_ADMIN` in the initial user namespace; without it they answer `EPERM`.

mod device;
mod quota;
mod search;
mod subvolume;

pub use device::{
    DeviceInfo, DeviceStatistics, FileSystemInfo, SpaceInfo, SpaceKind, device_info,
    device_statistics, devices, file_system_info, resize_to_device, space_info, sync, trim,
};
pub use quota::{
    QgroupId, QgroupInfo, QuotaMode, qgroup_assign, qgroup_create, qgroup_destroy, qgroup_info,
    qgroup_limit, qgroup_limit_set, qgroup_members, qgroup_unassign, qgroups, quota_enable_simple,
    quota_mode,
};
pub use subvolume::{
    Access, Child, SUBVOLUME_ID_MIN, SUBVOLUME_ROOT_INODE, SubvolumeId, directory_path,
    snapshot_create, subvolume_access_set, subvolume_children, subvolume_create, subvolume_destroy,
    subvolume_destroy_by_id, subvolume_exists, subvolume_id,
};

/// `BTRFS_IOCTL_MAGIC`, the group of every request of btrfs.
const GROUP: u8 = 0x94;

/// The magic number of a btrfs file system in `statfs` (`BTRFS_SUPER_MAGIC` of `linux/magic.h`).
pub const SUPER_MAGIC: u64 = 0x9123_683E;
