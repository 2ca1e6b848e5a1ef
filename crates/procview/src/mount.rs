//! Making the file system: one for all VEs of a node, since what the kernel keeps for a file system
//! grows with the number of memory groups.

use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

/// What the mounts are called in `/proc/mounts`.
pub const SOURCE: &str = "vessel-view";

/// A new file system, which answers when a server serves the device.
#[derive(Debug)]
pub struct FileSystem {
    /// The connection to the kernel. The file system ends with its last descriptor.
    pub device: OwnedFd,
    /// The whole tree, detached.
    pub mount: OwnedFd,
}

impl FileSystem {
    /// Makes one.
    ///
    /// # Errors
    /// `ENOENT` or `ENODEV` on a kernel without FUSE, `EPERM` without `CAP_SYS_ADMIN`.
    pub fn make() -> Result<Self, Errno> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let device = rustix::fs::open("/dev/fuse", flags, Mode::empty())?;
        let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let number = device.as_raw_fd().to_string();
        for (key, value) in [
            ("source", SOURCE),
            ("subtype", "vessel"),
            ("fd", &number),
            ("rootmode", "40555"),
            ("user_id", "0"),
            ("group_id", "0"),
        ] {
            fsconfig_set_string(&context, key, value)?;
        }
        // Everybody in a VE may read; modes and owners are the kernel's to check.
        for flag in ["allow_other", "default_permissions"] {
            fsconfig_set_flag(&context, flag)?;
        }
        fsconfig_create(&context)?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        Ok(Self { device, mount })
    }
}
