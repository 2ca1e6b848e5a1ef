//! A walk through a VE's directories before it is frozen.
//!
//! It brings them into the kernel's cache of names, as overlayfs decodes the file handle of a directory
//! only while it is cached, and it finds the paths of what is watched, for where no handle can be
//! decoded (see [`crate::watches`]). It follows no link, stays on the root's file system, and trusts
//! nothing: what it misses fails the dump, and the VE runs on.
//!
//! Another one removes what a dump left that was killed.

use std::ffi::{CStr, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, Dir, DirEntry, FileType, Mode, OFlags, fstat, openat2, statat, unlinkat,
};

use crate::inspect::{root_of, within};
use crate::watches::Watched;

/// How long is walked. It is a help to CRIU and not needed for most.
const TIME_MAX: Duration = Duration::from_secs(5);
/// Most paths that are told: each becomes an argument of CRIU.
const PATHS_MAX: usize = 1_024;
/// Most bytes of all paths together; the kernel takes 2 MB of arguments.
const PATHS_BYTES_MAX: usize = 512 << 10;

/// How thoroughly is looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Walk {
    /// Opens directories.
    Directories,
    /// Looks at each file, too.
    Files,
}

/// Something in a folder of a VE.
struct Met<'a> {
    folder: &'a OwnedFd,
    entry: &'a DirEntry,
    /// Where it lies, as the VE sees it.
    path: PathBuf,
    /// A directory that could be opened.
    opened: Option<&'a OwnedFd>,
}

/// Walks through the VE with this init. Returns the paths of what is watched, parents first; the root
/// itself is not among them, as CRIU looks there anyway.
pub(crate) fn walk(init: u32, how: Walk, watched: &Watched) -> Vec<PathBuf> {
    // An init that is gone fails the dump, which says so.
    root_of(init).map_or_else(|_| Vec::new(), |root| paths_below(&root, how, watched))
}

fn paths_below(root: &OwnedFd, how: Walk, watched: &Watched) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    let mut bytes = 0;
    through(root, |met| {
        if met.is_watched(how, watched) {
            bytes += met.path.as_os_str().len();
            if paths.len() < PATHS_MAX && bytes < PATHS_BYTES_MAX {
                paths.push(met.path);
            }
        }
    });
    paths
}

/// Removes the names that CRIU gives to files that have lost theirs, and takes away itself unless it
/// is killed: they are in the way of the next dump.
pub(crate) fn remove_links(init: u32) {
    let Ok(root) = root_of(init) else { return };
    through(&root, |met| {
        let name = met.entry.file_name();
        if met.entry.file_type() == FileType::RegularFile && is_link(name.to_bytes()) {
            let _ = unlinkat(met.folder, name, AtFlags::empty());
        }
    });
}

/// `link_remap.NUMBER` (CRIU's `files-reg.c`).
fn is_link(name: &[u8]) -> bool {
    let number = name.strip_prefix(b"link_remap.").unwrap_or_default();
    !number.is_empty() && number.iter().all(u8::is_ascii_digit)
}

/// Goes through all directories, for as long as [`TIME_MAX`], and shows what is in them.
fn through(root: &OwnedFd, mut show: impl FnMut(Met<'_>)) {
    let until = Instant::now() + TIME_MAX;
    let root = open(root, c".").map(|root| (root, PathBuf::from("/")));
    let mut folders: Vec<_> = root.into_iter().collect();
    while let Some((folder, path)) = folders.pop() {
        if Instant::now() >= until {
            return;
        }
        for entry in Dir::read_from(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let path = path.join(OsStr::from_bytes(name.to_bytes()));
            let opened = match entry.file_type() {
                FileType::Directory => open(&folder, name).ok(),
                _ => None,
            };
            show(Met {
                folder: &folder,
                entry: &entry,
                path: path.clone(),
                opened: opened.as_ref(),
            });
            folders.extend(opened.map(|opened| (opened, path)));
        }
    }
}

impl Met<'_> {
    fn is_watched(&self, how: Walk, watched: &Watched) -> bool {
        let status = match self.opened {
            Some(directory) => fstat(directory),
            None if how == Walk::Files || watched.may_have(self.entry.ino()) => {
                let name = self.entry.file_name();
                statat(self.folder, name, AtFlags::SYMLINK_NOFOLLOW)
            }
            None => return false,
        };
        status.is_ok_and(|status| watched.has(&status))
    }
}

fn open(folder: &OwnedFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOATIME | OFlags::CLOEXEC;
    openat2(folder, name, flags, Mode::empty(), within())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

    use super::*;
    use crate::watches;

    #[test]
    fn finds_the_paths_of_what_is_watched_parents_first() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let below = folder.path().join("sub/deep");
        fs::create_dir_all(&below).unwrap();
        let file = below.join("file");
        fs::write(&file, "").unwrap();
        fs::write(below.join("other"), "").unwrap();
        std::os::unix::fs::symlink(&below, folder.path().join("link")).unwrap();
        let watch = inotify::init(CreateFlags::CLOEXEC).unwrap();
        let wanted = [folder.path().join("sub"), file];
        for path in &wanted {
            inotify::add_watch(&watch, path, WatchFlags::MODIFY).unwrap();
        }
        let watched = watches::watched(&[std::process::id()]);
        let root = fs::File::open(folder.path()).unwrap().into();
        for how in [Walk::Directories, Walk::Files] {
            let found = paths_below(&root, how, &watched);
            assert_eq!(found, ["/sub", "/sub/deep/file"].map(PathBuf::from));
        }
    }

    #[test]
    fn knows_the_names_of_criu() {
        assert!(is_link(b"link_remap.12"));
        for other in [
            &b"link_remap."[..],
            b"link_remap.1a",
            b"my_link_remap.1",
            b"",
        ] {
            assert!(!is_link(other));
        }
    }
}
