//! mount_setattr(2), which no library offers: id maps, propagation and read-only binds.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// Shows the files of a detached mount with ids mapped by a user namespace (file owner 0 becomes
/// the namespace's root, whatever user that is on the node).
///
/// # Errors
/// `EINVAL` when the file system cannot be mapped or the mount is or was attached; `EPERM` when
/// the namespace is the node's own or has no map yet.
pub fn map_ids(mount: impl AsFd, user_namespace: impl AsFd) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: descriptor_field(user_namespace.as_fd()),
    };
    set_attributes(
        mount.as_fd().as_raw_fd(),
        c"",
        libc::AT_EMPTY_PATH,
        &attributes,
    )
}

/// Makes a mount read-only, whatever its file system allows.
///
/// # Errors
/// `EPERM` when the mount's attributes are locked by a more privileged namespace.
pub fn make_read_only(mount: impl AsFd) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    set_attributes(
        mount.as_fd().as_raw_fd(),
        c"",
        libc::AT_EMPTY_PATH,
        &attributes,
    )
}

/// Cuts every mount of this mount namespace off from others: nothing that is mounted or unmounted
/// here shows elsewhere, nor the other way round.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`.
pub fn make_all_private() -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: 0,
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    set_attributes(libc::AT_FDCWD, c"/", libc::AT_RECURSIVE, &attributes)
}

fn descriptor_field(descriptor: BorrowedFd<'_>) -> u64 {
    // An owned or borrowed descriptor is never negative.
    u64::from(descriptor.as_raw_fd().unsigned_abs())
}

fn set_attributes(
    directory: RawFd,
    path: &CStr,
    flags: libc::c_int,
    attributes: &libc::mount_attr,
) -> io::Result<()> {
    // SAFETY: `path` is a C string and `attributes` a structure of the size named, both living
    // until the call returns; the kernel only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            directory,
            path.as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
