//! Doing something as a VE's root would seem to the node, and back.

use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use rustix::thread::CapabilitiesSecureBits;
use ve::UidBase;

/// Keeps this process's capabilities when its user ids change. Once, at the launcher's start.
pub(super) fn keep_capabilities() -> Result<(), Errno> {
    let bits = rustix::thread::capabilities_secure_bits()?;
    rustix::thread::set_capabilities_secure_bits(bits | CapabilitiesSecureBits::NO_SETUID_FIXUP)
}

/// Runs `work` with the effective and file system ids of a VE's root and all capabilities.
///
/// Three things need it: a user namespace counts against its maker's effective user, so each VE
/// has its own inotify and namespace quotas; an overlay whose maker's ids are not mapped comes up
/// silently read-only; what is made in a file system belongs to the VE without a chown.
///
/// # Errors
/// What setresuid(2) says; the ids are then as before.
pub(super) fn as_ve_root<T>(base: UidBase, work: impl FnOnce() -> T) -> Result<T, Errno> {
    set_effective(base.get())?;
    let result = work();
    set_effective(0)?;
    Ok(result)
}

fn set_effective(id: u32) -> Result<(), Errno> {
    rustix::thread::set_thread_res_gid(None::<Gid>, Gid::from_raw(id), None::<Gid>)?;
    rustix::thread::set_thread_res_uid(None::<Uid>, Uid::from_raw(id), None::<Uid>)
}

/// Becomes root of the user namespace that this process is in, in every id and group.
///
/// # Errors
/// What setresuid(2) says: `EINVAL` while the namespace has no map.
pub(super) fn become_root() -> Result<(), Errno> {
    become_user(0, 0, &[])
}

/// Becomes a user of the user namespace that this process is in, in every id.
///
/// # Errors
/// `EINVAL` for ids that the namespace does not have.
pub(super) fn become_user(user: u32, group: u32, groups: &[u32]) -> Result<(), Errno> {
    let groups: Vec<Gid> = groups.iter().map(|id| Gid::from_raw(*id)).collect();
    rustix::thread::set_thread_groups(&groups)?;
    let group = Gid::from_raw(group);
    rustix::thread::set_thread_res_gid(group, group, group)?;
    let user = Uid::from_raw(user);
    rustix::thread::set_thread_res_uid(user, user, user)
}

/// Gives a process the usual place in the order in which the kernel kills when memory runs out.
///
/// A node protects its daemon, and the launcher inherits that; a VE must not.
///
/// # Errors
/// What the kernel says; raising the value is always allowed.
pub(super) fn forgo_protection(pid: u32) -> std::io::Result<()> {
    let path = format!("/proc/{pid}/oom_score_adj");
    let now = std::fs::read_to_string(&path)?;
    if now.starts_with('-') {
        std::fs::write(path, "0")
    } else {
        Ok(())
    }
}
