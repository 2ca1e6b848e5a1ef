//! Looking at a VE from outside, for what a dump must be told. Nothing in a VE is trusted: paths
//! are opened without following links or leaving the file system that is looked at.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use procview::Place;
use runtime::{DevEntry, DevKind};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, openat, openat2, readlinkat,
    statat,
};
use rustix::io::Errno;
use ve::{UidBase, VeId};

/// Most that is kept of what a VE put into its `/dev`: usually five symbolic links. It travels in
/// one message to the launcher.
const DEV_ENTRIES_MAX: usize = 256;
const DEV_BYTES_MAX: usize = 16 << 10;

/// A process that is in the VE's groups and no descendant of its init.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stray {
    pub(crate) pid: u32,
    pub(crate) name: String,
}

/// Finds a process that came in from outside: it would be lost, or stop a dump halfway.
pub(crate) fn stray(processes: &[u32], init: u32) -> Option<Stray> {
    let parents: HashMap<u32, u32> = processes
        .iter()
        .filter_map(|pid| Some((*pid, parent(*pid)?)))
        .collect();
    let belongs = |mut pid: u32| {
        // A chain of parents cannot be longer than there are processes.
        for _ in 0..=parents.len() {
            if pid == init {
                return true;
            }
            match parents.get(&pid) {
                Some(parent) => pid = *parent,
                None => return false,
            }
        }
        false
    };
    let found = parents.keys().copied().find(|pid| !belongs(*pid))?;
    let name = kernel::proc::program_name(found).unwrap_or_default();
    Some(Stray { pid: found, name })
}

fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

/// The root directory of a process's mounts.
pub(crate) fn root_of(init: u32) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, format!("/proc/{init}/root"), flags, Mode::empty())
}

/// The VE's `/dev`, whatever its root made of that name.
pub(crate) fn dev_of(init: u32) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(root_of(init)?, "dev", flags, Mode::empty(), resolve)
}

/// How CRIU names the terminal on the VE's console.
pub(crate) fn console(init: u32) -> Result<String, Errno> {
    let terminal = statat(dev_of(init)?, "console", AtFlags::SYMLINK_NOFOLLOW)?;
    if !FileType::from_raw_mode(terminal.st_mode).is_char_device() {
        return Err(Errno::NOTTY);
    }
    Ok(format!("tty[{:x}:{:x}]", terminal.st_rdev, terminal.st_dev))
}

/// Which parts of the node's view the VE has over its own files, by their names in
/// [`procview::PLACES`]. A VE may take them away.
pub(crate) fn views(init: u32, id: VeId) -> io::Result<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{init}/mountinfo"))?;
    let mounts = kernel::proc::parse_mounts(&text);
    let is_bound = |place: &&Place| {
        let part = Path::new("/").join(id.to_string()).join(place.name);
        mounts.iter().any(|mount| {
            mount.source == procview::mount::SOURCE
                && mount.mount_point == Path::new(place.target)
                && mount.root == part
        })
    };
    let bound = procview::PLACES.iter().filter(is_bound);
    Ok(bound.map(|place| place.name.to_owned()).collect())
}

/// What the VE put into its `/dev`, parents first.
pub(crate) fn dev_entries(init: u32, base: UidBase) -> io::Result<Vec<DevEntry>> {
    let dev = dev_of(init)?;
    let device = rustix::fs::fstat(&dev)?.st_dev;
    let mut entries = Vec::new();
    let mut bytes = 0;
    let mut folders = vec![(dev, String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        for name in names(&folder)? {
            let metadata = match statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                outcome => outcome?,
            };
            if metadata.st_dev != device {
                continue;
            }
            let Some(kind) = dev_kind(&folder, &name, &metadata)? else {
                continue;
            };
            let path = format!("{prefix}{name}");
            bytes += path.len()
                + match &kind {
                    DevKind::File(content) => content.len(),
                    _ => 0,
                };
            if entries.len() >= DEV_ENTRIES_MAX || bytes > DEV_BYTES_MAX {
                return Err(io::Error::other(
                    "its /dev holds more than links: files belong into /dev/shm or /run",
                ));
            }
            if kind == DevKind::Directory {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let below = openat2(&folder, &name, flags, Mode::empty(), within())?;
                folders.push((below, format!("{path}/")));
            }
            let inside = |id: u32| id.saturating_sub(base.get());
            entries.push(DevEntry {
                path,
                owner: (inside(metadata.st_uid), inside(metadata.st_gid)),
                mode: metadata.st_mode & 0o7777,
                kind,
            });
        }
    }
    // Found depth first, and a parent always before what is in it.
    Ok(entries)
}

fn dev_kind(folder: impl AsFd, name: &str, metadata: &Stat) -> io::Result<Option<DevKind>> {
    Ok(match FileType::from_raw_mode(metadata.st_mode) {
        FileType::Directory => Some(DevKind::Directory),
        FileType::Symlink => {
            let target = readlinkat(folder, name, Vec::new())?;
            Some(DevKind::Link(target.to_string_lossy().into_owned()))
        }
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = fs::File::from(openat2(folder, name, flags, Mode::empty(), within())?);
            let mut content = Vec::new();
            let limit = DEV_BYTES_MAX as u64 + 1;
            io::Read::read_to_end(&mut io::Read::take(file, limit), &mut content)?;
            Some(DevKind::File(content))
        }
        // The node's own device nodes; and sockets, which their servers keep open.
        _ => None,
    })
}

pub(crate) fn within() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV
}

fn names(folder: &OwnedFd) -> Result<Vec<String>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        // CRIU itself cannot name others in an option; they are left alone.
        if let Ok(name) = entry.file_name().to_str()
            && name != "."
            && name != ".."
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_who_does_not_descend_from_the_init() {
        let own = std::process::id();
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .unwrap();
        assert_eq!(stray(&[own, child.id()], own), None);
        let found = stray(&[own, child.id()], child.id()).unwrap();
        assert_eq!(found.pid, own);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
