//! Building a VE's view of the world, in its first process, out of what the launcher handed over.
//!
//! Order matters. `/proc` and `/sys` can be mounted in a user namespace only while the node's own
//! are still visible (the kernel's protection against uncovering), so they are made first and
//! attached later. After [`enter_root`] nothing of the node can be named any more: whatever
//! follows acts on the VE's own files only, however hostile they are.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree, unmount,
};

use super::step::{Step, failure};
use crate::isolation::kernel_limits::{RUN_NAMES, TERMINALS};
use crate::isolation::paths::MASKED;
use crate::masks;
use crate::protocol::{Failure, FailureKind};
use crate::spec::LaunchSpec;

/// Where the covers of masked paths come from, beneath the VE's own `/dev`.
const COVER_FILE: &str = "null";
const COVER_DIRECTORY: &str = ".hidden";

/// Where a VE that nests has a `/proc` and a `/sys` that nothing covers.
const UNCOVERED: &str = ".uncovered";
const UNCOVERED_PROC: &str = "dev/.uncovered/proc";
const UNCOVERED_SYS: &str = "dev/.uncovered/sys";

/// File systems that the VE's first process makes for itself, not attached yet.
#[derive(Debug)]
pub(super) struct Own {
    proc: OwnedFd,
    sys: OwnedFd,
    groups: OwnedFd,
    terminals: OwnedFd,
    shared_memory: OwnedFd,
    message_queues: OwnedFd,
    run: OwnedFd,
    /// A second `/proc` and `/sys` for a VE that nests.
    uncovered: Option<[OwnedFd; 2]>,
}

impl Own {
    /// The root of the VE's procfs.
    pub(super) fn proc(&self) -> BorrowedFd<'_> {
        self.proc.as_fd()
    }
}

/// Makes the VE's own file systems.
///
/// # Errors
/// Names the file system that the kernel refused.
pub(super) fn make_own(spec: &LaunchSpec) -> Result<Own, Failure> {
    let plain = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let strict = plain | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let read_only = strict | MountAttrFlags::MOUNT_ATTR_RDONLY;
    let shm_size = spec.shm_bytes_max.to_string();
    let run_size = spec.run_bytes_max.to_string();
    let proc = || make("proc", &[("source", "proc")], strict);
    let sys = || make("sysfs", &[("source", "sysfs")], read_only);
    let uncovered = match spec.nesting {
        true => Some([proc()?, sys()?]),
        false => None,
    };
    Ok(Own {
        proc: proc()?,
        sys: sys()?,
        uncovered,
        groups: make("cgroup2", &[("source", "cgroup2")], strict)?,
        terminals: make(
            "devpts",
            &[
                ("source", "devpts"),
                ("mode", "620"),
                ("gid", "5"),
                ("ptmxmode", "666"),
                (TERMINALS.option, TERMINALS.most),
            ],
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC,
        )?,
        shared_memory: make(
            "tmpfs",
            &[("source", "shm"), ("mode", "1777"), ("size", &shm_size)],
            plain,
        )?,
        message_queues: make("mqueue", &[("source", "mqueue")], strict)?,
        run: make(
            "tmpfs",
            &[
                ("source", "run"),
                ("mode", "755"),
                ("size", &run_size),
                (RUN_NAMES.option, RUN_NAMES.most),
            ],
            plain,
        )?,
    })
}

fn make(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd, Failure> {
    let made = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).and_then(|context| {
        for (key, value) in options {
            fsconfig_set_string(&context, *key, *value)?;
        }
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    });
    made.step(format_args!("mount the VE's own {kind}"))
}

/// Where a root is attached before it becomes the root, in that process's own view only: every host
/// has it, and the VE's root user gets there, which is not so beneath a node's root directory.
const STAGING: &str = "/proc";

/// Makes `root` this process's root and lets go of every mount of the node.
///
/// # Errors
/// Names the step.
pub(super) fn enter_root(root: BorrowedFd<'_>) -> Result<(), Failure> {
    kernel::mount::make_all_private().step("cut off the VE's mounts from the node's")?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(root, "", CWD, STAGING, flags).step("attach the VE's root")?;
    rustix::process::fchdir(root).step("enter the VE's root")?;
    rustix::process::pivot_root(".", ".").step("make the VE's root the root")?;
    unmount(".", UnmountFlags::DETACH).step("let go of the node's mounts")?;
    rustix::process::chdir("/").step("enter the VE's root")
}

/// Attaches everything, and hides what is to be hidden unless the VE nests.
///
/// # Errors
/// `Guest` when the VE's tree has something else where a directory must be.
pub(super) fn attach(
    own: &Own,
    dev: BorrowedFd<'_>,
    console: BorrowedFd<'_>,
) -> Result<(), Failure> {
    for (mount, place) in [
        (own.proc.as_fd(), "proc"),
        (own.sys.as_fd(), "sys"),
        (own.groups.as_fd(), "sys/fs/cgroup"),
        (dev, "dev"),
        (own.terminals.as_fd(), "dev/pts"),
        (own.shared_memory.as_fd(), "dev/shm"),
        (own.message_queues.as_fd(), "dev/mqueue"),
        (own.run.as_fd(), "run"),
    ] {
        attach_at(mount, place)?;
    }
    let target = rustix::fs::openat(
        dev,
        "console",
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .step("find /dev/console")?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(console, "", &target, "", flags).step("attach the console")?;
    // A container inside gets a /proc and a /sys of its own only where the kernel finds ones that
    // nothing covers: a VE that nests has a second of each.
    match &own.uncovered {
        Some([proc, sys]) => {
            rustix::fs::mkdirat(dev, UNCOVERED, Mode::from_raw_mode(0o755))
                .step("make a place for what nothing covers")?;
            attach_at(proc.as_fd(), UNCOVERED_PROC)?;
            attach_at(sys.as_fd(), UNCOVERED_SYS)
        }
        None => hide(dev),
    }
}

/// Attaches a mount at a directory of the VE, which is made if it is missing.
fn attach_at(mount: BorrowedFd<'_>, place: &str) -> Result<(), Failure> {
    let target = match open_directory(place) {
        Err(Errno::NOENT) => {
            let path = format!("/{place}");
            rustix::fs::mkdir(path.as_str(), Mode::from_raw_mode(0o755))
                .guest_step(format_args!("make {path} in the VE"))?;
            open_directory(place)
        }
        outcome => outcome,
    };
    let target = target.map_err(|errno| {
        failure(
            FailureKind::Guest,
            format!(
                "/{place} of the VE must be a plain directory: {errno}; put one there (`repair` \
                 gives access to the files) and start again"
            ),
        )
    })?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", &target, "", flags).step(format_args!("attach /{place}"))
}

fn open_directory(place: &str) -> Result<OwnedFd, Errno> {
    rustix::fs::openat2(
        CWD,
        place,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
    )
}

/// Covers the masked paths with an empty file or directory of the VE's own `/dev`.
fn hide(dev: BorrowedFd<'_>) -> Result<(), Failure> {
    match rustix::fs::mkdirat(dev, COVER_DIRECTORY, Mode::from_raw_mode(0o555)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno).step("make a cover for hidden paths"),
    }
    for masked in MASKED {
        let path = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(target) = rustix::fs::open(masked.path, path, Mode::empty()) else {
            continue;
        };
        let kind = rustix::fs::fstat(&target).step(format_args!("look at {}", masked.path))?;
        let directory = rustix::fs::FileType::from_raw_mode(kind.st_mode).is_dir();
        let cover = if directory {
            COVER_DIRECTORY
        } else {
            COVER_FILE
        };
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let cover = open_tree(dev, cover, flags).step("take a cover for hidden paths")?;
        kernel::mount::make_read_only(&cover).step("make a cover read-only")?;
        let flags =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&cover, "", &target, "", flags).step(format_args!("hide {}", masked.path))?;
    }
    Ok(())
}

/// Fills the VE's fresh `/run`.
///
/// # Errors
/// Names the file.
pub(super) fn fill_run(spec: &LaunchSpec, own: &Own) -> Result<(), Failure> {
    let run = own.run.as_fd();
    make_directories(run, "host")?;
    let ssh_keys = spec.facts.ssh_host_keys;
    for (path, content) in masks::run_files(spec.kind, spec.nesting, ssh_keys) {
        write_run_file(run, path, content)?;
    }
    if let Some(machine) = &spec.facts.machine_id {
        write_run_file(run, "host/container-uuid", &format!("{machine}\n"))?;
    }
    let units = masks::masked_units(spec.kind);
    if !units.is_empty() {
        make_directories(run, "systemd/system")?;
    }
    for unit in units {
        let path = format!("systemd/system/{unit}");
        rustix::fs::symlinkat("/dev/null", run, path.as_str())
            .step(format_args!("mask {unit} in the VE"))?;
    }
    Ok(())
}

fn write_run_file(run: BorrowedFd<'_>, path: &str, content: &str) -> Result<(), Failure> {
    if let Some((directory, _)) = path.rsplit_once('/') {
        make_directories(run, directory)?;
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = rustix::fs::openat(run, path, flags, Mode::from_raw_mode(0o644))
        .step(format_args!("write /run/{path} in the VE"))?;
    std::io::Write::write_all(&mut std::fs::File::from(file), content.as_bytes())
        .step(format_args!("write /run/{path} in the VE"))
}

fn make_directories(run: BorrowedFd<'_>, path: &str) -> Result<(), Failure> {
    let ends = path
        .match_indices('/')
        .map(|(end, _)| end)
        .chain([path.len()]);
    for end in ends {
        match rustix::fs::mkdirat(run, &path[..end], Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).step(format_args!("make /run/{path} in the VE")),
        }
    }
    Ok(())
}
