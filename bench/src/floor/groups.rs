//! One control group in each hierarchy that a VE has one in: all but a `cpuset` of its own, which
//! Vessel uses only where a mask is set.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use rustix::fs::{CWD, Mode, OFlags};

use crate::PATIENCE;

/// The groups of one container, open.
#[derive(Debug)]
pub(crate) struct Groups {
    /// `tasks` of each v1 group.
    pub(crate) tasks: Vec<OwnedFd>,
    /// The cgroup2 directory.
    pub(crate) v2: Option<OwnedFd>,
}

impl Groups {
    pub(crate) fn make(name: &str) -> Result<Self> {
        let mut groups = Self {
            tasks: Vec::new(),
            v2: None,
        };
        for (kind, group) in places(name)? {
            fs::create_dir(&group).with_context(|| format!("cannot make {}", group.display()))?;
            if kind == "cgroup2" {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                groups.v2 = Some(rustix::fs::openat(CWD, &group, flags, Mode::empty())?);
            } else {
                let flags = OFlags::WRONLY | OFlags::CLOEXEC;
                let tasks = group.join("tasks");
                groups
                    .tasks
                    .push(rustix::fs::openat(CWD, &tasks, flags, Mode::empty())?);
            }
        }
        Ok(groups)
    }
}

/// Removes the groups, whose processes have just ended.
pub(crate) fn remove(name: &str) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    for (_, group) in places(name)? {
        loop {
            match fs::remove_dir(&group) {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::NotFound => break,
                // Its last process is not reaped yet.
                Err(error)
                    if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline =>
                {
                    std::thread::yield_now();
                }
                Err(error) => {
                    return Err(error).context(format!("cannot remove {}", group.display()));
                }
            }
        }
    }
    Ok(())
}

/// Type of the hierarchy, and the group in it.
fn places(name: &str) -> Result<Vec<(String, PathBuf)>> {
    let mut places: Vec<(String, PathBuf)> = Vec::new();
    for mount in kernel::proc::mounts()? {
        let whole = mount.root == std::path::Path::new("/");
        let ours = matches!(mount.file_system.as_str(), "cgroup" | "cgroup2");
        let only_cpuset = mount.mount_point.ends_with("cpuset");
        let group = mount.mount_point.join(name);
        if whole && ours && !only_cpuset && !places.iter().any(|(_, known)| *known == group) {
            places.push((mount.file_system, group));
        }
    }
    Ok(places)
}
