//! A VE's `/dev`: a file system of its own with its own device nodes, made by the node.
//!
//! It is made in the node's user namespace, since only there device nodes may be made, and its
//! files belong to the VE's root from birth. The node's own `/dev/null` is never bound into a VE:
//! a chown there would change the node's. Which devices answer is decided by the VE's control
//! group. To a checkpoint all of it is one external mount.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, makedev, mkdirat, mknodat,
    openat, openat2, symlinkat,
};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string,
    fsmount, fsopen, open_tree,
};
use rustix::pty::OpenptFlags;
use ve::UidBase;

use super::identity::as_ve_root;
use super::step::Step;
use crate::isolation::kernel_limits::{DEV, DEV_NAMES};
use crate::protocol::Failure;
use crate::restore::{DevEntry, DevKind};

/// Directories, with their modes; other file systems are mounted on the first three.
const DIRECTORIES: &[(&str, u32)] = &[
    ("pts", 0o755),
    ("shm", 0o1777),
    ("mqueue", 0o755),
    ("net", 0o755),
];

/// Symbolic links: name, target.
const LINKS: &[(&str, &str)] = &[
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Group `tty` of every distribution that has one.
const TTY_GROUP: u32 = 5;

/// Builds `/dev`, detached.
///
/// # Errors
/// Names the step that the node refused.
pub(super) fn build(base: UidBase) -> Result<OwnedFd, Failure> {
    let mount = mount_tmpfs(base).step("make a file system for /dev")?;
    as_ve_root(base, || fill(mount.as_fd())).step("act as the VE's root")??;
    Ok(mount)
}

/// Builds the `/dev` of a VE that wakes: what every VE has, and what it had put there itself.
///
/// # Errors
/// Names the entry that could not be made.
pub(super) fn build_as(base: UidBase, entries: &[DevEntry]) -> Result<OwnedFd, Failure> {
    let mount = build(base)?;
    let made = as_ve_root(base, || {
        entries
            .iter()
            .try_for_each(|entry| make_entry(mount.as_fd(), base, entry))
    });
    made.step("act as the VE's root")??;
    Ok(mount)
}

fn make_entry(dev: BorrowedFd<'_>, base: UidBase, entry: &DevEntry) -> Result<(), Failure> {
    let what = || format!("make /dev/{} again", entry.path);
    let (folder, name) = entry.path.rsplit_once('/').unwrap_or((".", &entry.path));
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let folder = openat2(dev, folder, flags, Mode::empty(), inside).step(what())?;
    let mode = Mode::from_raw_mode(entry.mode);
    let made = match &entry.kind {
        DevKind::Directory => mkdirat(&folder, name, mode),
        DevKind::Link(target) => symlinkat(target.as_str(), &folder, name),
        DevKind::File(content) => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            openat(&folder, name, flags, mode).and_then(|file| {
                rustix::io::write(&file, content)?;
                Ok(())
            })
        }
    };
    match made {
        Err(Errno::EXIST) => return Ok(()),
        outcome => outcome.step(what())?,
    }
    let (user, group) = entry.owner;
    let owner = Uid::from_raw(base.get().saturating_add(user));
    let group = Gid::from_raw(base.get().saturating_add(group));
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    chownat(&folder, name, Some(owner), Some(group), flags).step(what())
}

fn mount_tmpfs(base: UidBase) -> Result<OwnedFd, Errno> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let owner = base.get().to_string();
    let options = [
        ("source", "dev"),
        ("mode", "755"),
        (DEV.option, DEV.most),
        (DEV_NAMES.option, DEV_NAMES.most),
        ("uid", &owner),
        ("gid", &owner),
    ];
    for (key, value) in options {
        fsconfig_set_string(&context, key, value)?;
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// The nodes: every single device that a VE's control group allows a node of, but `ptmx`, which
/// the VE's own devpts has.
fn nodes() -> impl Iterator<Item = (&'static str, u32, u32)> {
    let made = cgroup::ALLOWED.iter().filter(|device| {
        let linked = LINKS.iter().any(|(name, _)| *name == device.name);
        device.rule.make_node && !linked
    });
    made.filter_map(|device| Some((device.name, device.rule.major, device.rule.minor?)))
}

fn fill(dev: BorrowedFd<'_>) -> Result<(), Failure> {
    for (name, mode) in DIRECTORIES {
        mkdirat(dev, *name, Mode::from_raw_mode(*mode)).step(format_args!("make /dev/{name}"))?;
    }
    for (name, major, minor) in nodes() {
        // All may be opened by everybody, as on any Linux.
        let mode = Mode::from_raw_mode(0o666);
        let device = makedev(major, minor);
        mknodat(dev, name, FileType::CharacterDevice, mode, device)
            .step(format_args!("make /dev/{name}"))?;
    }
    for (name, target) in LINKS {
        symlinkat(*target, dev, *name).step(format_args!("make /dev/{name}"))?;
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    openat(dev, "console", flags, Mode::from_raw_mode(0o600)).step("make /dev/console")?;
    Ok(())
}

/// A VE's console.
#[derive(Debug)]
pub(super) struct Console {
    /// The launcher's end.
    pub(super) master: OwnedFd,
    /// The VE's end. The launcher keeps it open, else every moment in which the VE has its console
    /// closed would be a hang-up.
    pub(super) slave: OwnedFd,
    /// The VE's end as a detached mount, for `/dev/console`.
    pub(super) mount: OwnedFd,
}

/// Opens a terminal of the node whose inner end belongs to the VE.
///
/// # Errors
/// Names the step; `ENOSPC` when the node has no more terminals (`kernel.pty.max`).
pub(super) fn open_console(base: UidBase) -> Result<Console, Failure> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = rustix::pty::openpt(flags).step("open a terminal for the console")?;
    rustix::pty::unlockpt(&master).step("unlock the console's terminal")?;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).step("open the console")?;
    let owner = (
        Uid::from_raw(base.get()),
        Gid::from_raw(base.get() + TTY_GROUP),
    );
    rustix::fs::fchown(&slave, Some(owner.0), Some(owner.1)).step("give the console to the VE")?;
    rustix::fs::fchmod(&slave, Mode::from_raw_mode(0o620)).step("give the console to the VE")?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = open_tree(&slave, "", flags).step("take the console's terminal as a mount")?;
    rustix::io::ioctl_fionbio(&master, true).step("open the console")?;
    Ok(Console {
        master,
        slave,
        mount,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nodes_are_those_that_the_control_group_opens() {
        let names: Vec<&str> = nodes().map(|(name, ..)| name).collect();
        assert_eq!(
            names,
            [
                "null", "zero", "full", "random", "urandom", "tty", "fuse", "net/tun"
            ]
        );
    }
}
