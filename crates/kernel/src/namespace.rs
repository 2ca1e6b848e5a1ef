//! Entering mount and network namespaces.

use std::io;
use std::os::fd::AsFd;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// Gives the process a mount namespace of its own, from which nothing propagates and into which
/// nothing does.
///
/// The kernel refuses this to a process with several threads that share their file system
/// information (unshare(2)), so it belongs at the very start of a program.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`.
pub fn leave_mount_namespace() -> io::Result<()> {
    // SAFETY: a new mount namespace changes no memory and closes no descriptor; the only flag that
    // rustix calls unsafe, CLONE_FILES, is not among those passed here.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    crate::mount::make_all_private()
}

/// Gives the calling thread, and no other, a network namespace of its own: with `lo`, which is down, and
/// nothing else. It ends with the thread and what it made there.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN`.
pub fn leave_network_namespace() -> io::Result<()> {
    // SAFETY: a new network namespace changes no memory and closes no descriptor; the only flag that
    // rustix calls unsafe, CLONE_FILES, is not among those passed here.
    Ok(unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?)
}

/// Moves the process into a mount namespace (`/proc/PID/ns/mnt`); its root and working directory
/// become those of that namespace.
///
/// # Errors
/// `EINVAL` when the process has more than one thread (setns(2)).
pub fn join_mount_namespace(namespace: impl AsFd) -> io::Result<()> {
    Ok(move_into_link_name_space(
        namespace.as_fd(),
        Some(LinkNameSpaceType::Mount),
    )?)
}

/// Moves the calling thread, and no other, into a network namespace (`/proc/PID/ns/net`).
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` in the user namespace that owns it.
pub fn join_network_namespace(namespace: impl AsFd) -> io::Result<()> {
    Ok(move_into_link_name_space(
        namespace.as_fd(),
        Some(LinkNameSpaceType::Network),
    )?)
}
