//! What the processes of a VE watch by inotify and fanotify.
//!
//! CRIU opens what is watched by its file handle. Overlayfs decodes the handle of a directory only
//! while it is cached, and none at all with the layers that kernels before 6.16 take. Then CRIU asks
//! for a path, and looks in the places that it was told of: these are found here, as the inodes
//! that the kernel shows for a watch, and by [`crate::walk`], which meets them.

use std::collections::HashSet;
use std::fs;
use std::io::Read as _;

use rustix::fs::{Stat, major, minor};

/// Most that is read about one descriptor. A watch takes about 130 bytes: this is 8,000 of them.
const INFO_BYTES_MAX: u64 = 1 << 20;
/// Most inodes that are looked for; a Debian with its servers watches some dozens.
const INODES_MAX: usize = 16_384;

/// What is watched.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    inodes: HashSet<Inode>,
    numbers: HashSet<u64>,
}

/// An inode, with its file system's number as the kernel writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Inode {
    device: u64,
    number: u64,
}

impl Watched {
    /// Whether something that was looked at is watched.
    pub(crate) fn has(&self, status: &Stat) -> bool {
        let device = status.st_dev;
        self.inodes.contains(&Inode {
            device: u64::from(major(device)) << 20 | u64::from(minor(device)),
            number: status.st_ino,
        })
    }

    /// Whether something with this inode number may be watched, so that a look at it pays.
    pub(crate) fn may_have(&self, number: u64) -> bool {
        self.numbers.contains(&number)
    }

    fn add(&mut self, inode: Inode) {
        self.inodes.insert(inode);
        self.numbers.insert(inode.number);
    }
}

/// What processes watch. What cannot be read (a process ended) is not in it.
pub(crate) fn watched(processes: &[u32]) -> Watched {
    let mut found = Watched::default();
    for pid in processes {
        let entries = fs::read_dir(format!("/proc/{pid}/fd"));
        for entry in entries.into_iter().flatten().flatten() {
            let target = fs::read_link(entry.path()).unwrap_or_default();
            if !target.to_string_lossy().contains("notify") {
                continue;
            }
            let info = format!("/proc/{pid}/fdinfo/{}", entry.file_name().display());
            let mut text = String::new();
            let Ok(file) = fs::File::open(info) else {
                continue;
            };
            // Cut off or not, the whole lines in it are good.
            let _ = file.take(INFO_BYTES_MAX).read_to_string(&mut text);
            text.lines()
                .filter_map(inode)
                .for_each(|inode| found.add(inode));
            if found.inodes.len() > INODES_MAX {
                return found;
            }
        }
    }
    found
}

/// Reads one line of `proc_pid_fdinfo(5)`: `inotify wd:1 ino:9e7e sdev:800013 mask:...`, or
/// `fanotify ino:... sdev:...`; a mark on a whole mount has no inode.
fn inode(line: &str) -> Option<Inode> {
    let mut words = line.split_ascii_whitespace();
    if !matches!(words.next(), Some("inotify" | "fanotify")) {
        return None;
    }
    let value = |name: &str| {
        let text = line
            .split_ascii_whitespace()
            .find_map(|word| word.strip_prefix(name))?;
        u64::from_str_radix(text, 16).ok()
    };
    Some(Inode {
        device: value("sdev:")?,
        number: value("ino:")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_watches_of_both_kinds() {
        let line = "inotify wd:3 ino:9e7e sdev:800013 mask:800afce ignored_mask:0 \
                    fhandle-bytes:8 fhandle-type:1 f_handle:7e9e0000640d1b6d";
        let wanted = Inode {
            device: 0x80_0013,
            number: 0x9e7e,
        };
        assert_eq!(inode(line), Some(wanted));
        let line = "fanotify ino:9e7e sdev:800013 mflags:0 mask:3b ignored_mask:40000000";
        assert_eq!(inode(line), Some(wanted));
        for line in [
            "fanotify mnt_id:12 mflags:0 mask:3b",
            "pos:\t0",
            "inotify wd:3",
            "",
        ] {
            assert_eq!(inode(line), None, "{line}");
        }
    }

    #[test]
    fn finds_what_this_process_watches() {
        use rustix::fs::inotify;

        let folder = tempfile::tempdir().unwrap();
        let status = rustix::fs::stat(folder.path()).unwrap();
        let own = [std::process::id()];
        assert!(!watched(&own).has(&status));
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
        inotify::add_watch(&watch, folder.path(), inotify::WatchFlags::MODIFY).unwrap();
        assert!(watched(&own).has(&status));
    }
}
