//! The first process, from its birth to the execution of the init.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};
use rustix::process::{Gid, Uid};

use crate::{link, put, wire};

/// A file system of its own.
struct Own {
    kind: &'static str,
    options: &'static [(&'static str, &'static str)],
    place: &'static str,
}

const OWN: [Own; 7] = [
    own("proc", &[], "proc"),
    own("sysfs", &[], "sys"),
    own("cgroup2", &[], "sys/fs/cgroup"),
    own(
        "devpts",
        &[("mode", "620"), ("gid", "5"), ("ptmxmode", "666")],
        "dev/pts",
    ),
    own("tmpfs", &[("mode", "1777")], "dev/shm"),
    own("mqueue", &[], "dev/mqueue"),
    own("tmpfs", &[("mode", "755")], "run"),
];

const fn own(
    kind: &'static str,
    options: &'static [(&'static str, &'static str)],
    place: &'static str,
) -> Own {
    Own {
        kind,
        options,
        place,
    }
}

/// Returns only when something failed, and says what on the channel.
pub(crate) fn run(address: Ipv4Addr, tasks: &[OwnedFd], channel: &OwnedFd) -> u8 {
    let Err(error) = become_init(address, tasks, channel);
    let _ = rustix::io::write(channel, format!("{error:#}").as_bytes());
    1
}

fn become_init(address: Ipv4Addr, tasks: &[OwnedFd], channel: &OwnedFd) -> Result<Infallible> {
    for file in tasks {
        put(file.as_fd(), "0").context("cannot enter a group")?;
    }
    let [root, dev] = wire::receive(channel)?;
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
    rustix::process::setsid()?;
    rustix::system::sethostname(b"floor")?;
    kernel::clone::enter_new_cgroup_namespace()?;
    let own = OWN.map(|one| (make(&one), one.place));
    enter(&root)?;
    attach(&dev, "dev")?;
    for (mount, place) in own {
        attach(
            &mount.with_context(|| format!("no file system for {place}"))?,
            place,
        )?;
    }
    link::configure(address)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    let path = c"/sbin/init";
    Err(kernel::execute::execute(path, &[path.to_owned()], &[]).into())
}

fn make(own: &Own) -> Result<OwnedFd> {
    let context = fsopen(own.kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in own.options {
        fsconfig_set_string(&context, *key, *value)?;
    }
    fsconfig_create(&context)?;
    Ok(fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_NOSUID,
    )?)
}

fn enter(root: &OwnedFd) -> Result<()> {
    kernel::mount::make_all_private()?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(root, "", CWD, "/proc", flags).context("cannot attach the root")?;
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    Ok(())
}

fn attach(mount: &OwnedFd, place: &str) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(mount, "", CWD, place, flags).with_context(|| format!("cannot attach {place}"))
}
