//! The control groups within a VE: CRIU makes those again that hold processes, and systemd keeps
//! many that hold none and would miss them.
//!
//! Only cgroup2 matters: a VE sees no other, so it makes groups in no other.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;

use crate::manifest::Group;

/// Most groups that are kept; `cgroup` lets a VE make no more.
const GROUPS_MAX: usize = cgroup::NESTED_GROUPS_MAX as usize + 1;

/// Files that hold what a VE may set in its own groups. `cgroup.subtree_control` first: the others
/// appear when the group above distributes their controller.
const SETTINGS: &[&str] = &[
    "cgroup.subtree_control",
    "cgroup.max.descendants",
    "cgroup.max.depth",
    "cpu.weight",
    "cpu.max",
    "cpu.idle",
    "cpuset.cpus",
    "cpuset.mems",
    "io.weight",
    "memory.min",
    "memory.low",
    "memory.high",
    "memory.max",
    "memory.swap.max",
    "memory.oom.group",
    "pids.max",
];

/// Notes the groups below `top`, and `top` itself, parents first.
pub(crate) fn save(top: &Path) -> io::Result<Vec<Group>> {
    let mut groups = vec![note(top, String::new())?];
    let mut at = 0;
    while let Some(group) = groups.get(at) {
        let prefix = if group.path.is_empty() {
            String::new()
        } else {
            format!("{}/", group.path)
        };
        let directory = top.join(&group.path);
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                continue;
            };
            // An exec group's processes end before a dump; it is made when somebody enters.
            if !entry.file_type()?.is_dir() || name == cgroup::EXEC_GROUP {
                continue;
            }
            if groups.len() >= GROUPS_MAX {
                return Err(io::Error::other("it has too many control groups"));
            }
            groups.push(note(&entry.path(), format!("{prefix}{name}"))?);
        }
        at += 1;
    }
    Ok(groups)
}

fn note(directory: &Path, path: String) -> io::Result<Group> {
    let metadata = fs::metadata(directory)?;
    let mut settings = Vec::new();
    for name in SETTINGS {
        // The limits of the VE's own group are the node's.
        if path.is_empty() && *name != SETTINGS[0] {
            break;
        }
        if let Ok(value) = fs::read_to_string(directory.join(name)) {
            settings.push(((*name).to_owned(), value.trim().to_owned()));
        }
    }
    Ok(Group {
        path,
        owner: (metadata.uid(), metadata.gid()),
        settings,
    })
}

/// Makes the groups below `top` that are not there. Nothing is distributed to them yet: CRIU moves a
/// process into `top` before it moves it further down, and the kernel lets nobody below a group that
/// holds processes and distributes controllers (`EOPNOTSUPP`).
pub(crate) fn make(top: &Path, groups: &[Group]) -> io::Result<()> {
    for group in groups.iter().filter(|group| !group.path.is_empty()) {
        let directory = top.join(&group.path);
        match fs::create_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => give(&directory, group.owner)?,
        }
    }
    Ok(())
}

/// Sets the groups as they were, once every process is in its own. Parents first: what they
/// distribute makes files below.
pub(crate) fn set_up(top: &Path, groups: &[Group]) -> io::Result<()> {
    for group in groups {
        let directory = top.join(&group.path);
        if !group.path.is_empty() {
            give(&directory, group.owner)?;
        }
        for (name, value) in &group.settings {
            set(&directory.join(name), name, value);
        }
    }
    Ok(())
}

/// A group and its files belong to whoever made it.
fn give(directory: &Path, (user, group): (u32, u32)) -> io::Result<()> {
    chown(directory, Some(user), Some(group))?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            chown(entry.path(), Some(user), Some(group))?;
        }
    }
    Ok(())
}

/// A setting that another kernel does not have, or that is as it was, is passed over: the groups
/// bound only what the VE itself bounded.
fn set(file: &Path, name: &str, value: &str) {
    let value = if name == SETTINGS[0] {
        value
            .split_whitespace()
            .map(|controller| format!("+{controller} "))
            .collect()
    } else {
        value.to_owned()
    };
    if !value.is_empty() {
        let _ = fs::write(file, value);
    }
}
