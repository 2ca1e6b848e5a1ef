//! Putting another template below a private area.
//!
//! What the kernel remembers of the old one in the upper layer has to go: with `index` on, an overlay whose
//! upper layer names another lower one is refused (`failed to verify upper root origin`). And nothing
//! of the VE's may contradict the new template: where the two templates differ, the VE must have changed
//! nothing. A VE that ran its package manager did, for it has its own database of packages.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::io::Errno;
use template::{ImageTree, Node, NodeKind};

use crate::upper::{Entry, Redirect, Upper, entry};
use crate::walk::{DEPTH_MAX, ENTRIES_MAX, join};

/// What names the lower layer (Documentation/filesystems/overlayfs.rst; `fs/overlayfs/overlayfs.h`). The marks that
/// stay say what the VE did: what it deleted, replaced and moved.
const OF_THE_LOWER: [&str; 4] = [
    "trusted.overlay.origin",
    "trusted.overlay.uuid",
    "trusted.overlay.impure",
    "trusted.overlay.nlink",
];

/// Something that a VE changed where two templates differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Where, without the first `/`.
    pub path: Vec<u8>,
    /// Whether the VE would still have there what it had: a file of its own stays one. A directory that it moved would
    /// show other files, or none.
    pub stays: bool,
}

/// A directory of the upper layer, with what the templates have below it.
struct Level<'a> {
    upper: Upper,
    old: Option<Node<'a>>,
    new: Option<Node<'a>>,
    path: Vec<u8>,
    depth: usize,
}

/// What a VE changed where two templates differ: at most `most` places.
///
/// # Errors
/// Those of reading the upper layer; `InvalidData` if it has more, or deeper, than is walked.
pub fn conflicts(
    upper: BorrowedFd<'_>,
    old: &ImageTree,
    new: &ImageTree,
    most: usize,
) -> io::Result<Vec<Conflict>> {
    let mut found = Vec::new();
    let mut levels = vec![Level {
        upper: Upper::root(upper)?,
        old: Some(old.root()),
        new: Some(new.root()),
        path: Vec::new(),
        depth: 0,
    }];
    let mut seen = 0;
    while let Some(level) = levels.pop() {
        for name in names(&level.upper, &mut seen)? {
            let bytes = name.as_bytes();
            let path = join(&level.path, bytes);
            let before = child(level.old, bytes);
            let after = child(level.new, bytes);
            let directory = match entry(level.upper.open()?.as_fd(), &name)? {
                Entry::Absent => continue,
                Entry::There(upper) if upper.is_directory() => upper,
                Entry::Whiteout if after.is_none() => continue,
                // What only the old one had, and the VE has a copy of, is the VE's own from now on.
                Entry::There(upper) if after.is_none() && !upper.is_metacopy()? => continue,
                own @ (Entry::Whiteout | Entry::There(_)) => {
                    if !same(before, after) {
                        let stays = match own {
                            Entry::There(upper) if upper.is_metacopy()? => is_file(after),
                            _ => true,
                        };
                        found.push(Conflict { path, stays });
                    }
                    if found.len() >= most {
                        return Ok(found);
                    }
                    continue;
                }
            };
            let redirect = directory.redirect()?;
            let before = lower(&redirect, bytes, level.old, old);
            let after = lower(&redirect, bytes, level.new, new);
            let moved = !matches!(redirect, Redirect::None | Redirect::Opaque);
            let hides = after.is_some_and(|node| node.kind() != NodeKind::Directory);
            // What a moved directory shows of the template would change, or be gone.
            if (moved || hides) && !same(before, after) {
                let stays = false;
                found.push(Conflict { path, stays });
                continue;
            }
            if level.depth >= DEPTH_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            levels.push(Level {
                upper: directory,
                old: before,
                new: after,
                path,
                depth: level.depth + 1,
            });
        }
    }
    Ok(found)
}

/// What a template has under a name in a folder.
pub(crate) fn child<'a>(folder: Option<Node<'a>>, name: &[u8]) -> Option<Node<'a>> {
    folder.and_then(|folder| folder.child(name))
}

/// What a template has below an entry of the upper layer, whose name and folder these are.
pub(crate) fn lower<'a>(
    redirect: &Redirect,
    name: &[u8],
    folder: Option<Node<'a>>,
    tree: &'a ImageTree,
) -> Option<Node<'a>> {
    match redirect {
        Redirect::None => child(folder, name),
        // What was below it shows nowhere.
        Redirect::Opaque => None,
        Redirect::Sibling(other) => child(folder, other),
        Redirect::Path(path) => at(tree, path),
    }
}

/// Makes an upper layer forget which lower one it had, and takes whiteouts away that hide nothing of the `new` one: in a
/// directory that is merged with none the kernel lists them as names. Done again, it does nothing.
///
/// # Errors
/// Those of the file system; what was done stays done.
pub fn forget_lower(upper: BorrowedFd<'_>, new: &ImageTree) -> io::Result<()> {
    let mut levels = vec![(Upper::root(upper)?, Some(new.root()), 0)];
    let mut seen = 0;
    while let Some((level, below, depth)) = levels.pop() {
        forget(&level)?;
        let below = below.filter(|node| node.kind() == NodeKind::Directory);
        let child = |name: &[u8]| below.and_then(|node| node.child(name));
        for name in names(&level, &mut seen)? {
            let upper = match entry(level.open()?.as_fd(), &name)? {
                Entry::There(upper) => upper,
                Entry::Whiteout if below.is_none() => {
                    level.remove_name(&name)?;
                    continue;
                }
                Entry::Absent | Entry::Whiteout => continue,
            };
            if !upper.is_directory() {
                forget(&upper)?;
                continue;
            }
            if depth >= DEPTH_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let below = match upper.redirect()? {
                Redirect::None => child(name.as_bytes()),
                Redirect::Opaque => None,
                Redirect::Sibling(other) => child(&other),
                Redirect::Path(other) => at(new, &other),
            };
            levels.push((upper, below, depth + 1));
        }
    }
    Ok(())
}

fn forget(upper: &Upper) -> io::Result<()> {
    for mark in OF_THE_LOWER {
        match upper.remove_mark(mark) {
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn names(upper: &Upper, seen: &mut u64) -> io::Result<Vec<std::ffi::OsString>> {
    let left = usize::try_from(ENTRIES_MAX.saturating_sub(*seen)).unwrap_or(usize::MAX);
    let (names, more) = upper.names(left)?;
    *seen += names.len() as u64;
    match more {
        true => Err(io::ErrorKind::InvalidData.into()),
        false => Ok(names),
    }
}

/// What a tree has at a path of names, links not followed.
pub(crate) fn at<'a>(tree: &'a ImageTree, path: &[u8]) -> Option<Node<'a>> {
    let names = path
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty());
    let mut node = tree.root();
    for name in names {
        node = node.child(name)?;
    }
    Some(node)
}

fn is_file(node: Option<Node<'_>>) -> bool {
    node.is_some_and(|node| matches!(node.kind(), NodeKind::File { .. }))
}

/// Whether two templates have the same at a place. Times may differ: what a build makes anew has a new one.
fn same(old: Option<Node<'_>>, new: Option<Node<'_>>) -> bool {
    let (Some(old), Some(new)) = (old, new) else {
        return old.is_none() && new.is_none();
    };
    if old.kind() != new.kind() || old.mode() != new.mode() || old.owner() != new.owner() {
        return false;
    }
    match old.kind() {
        NodeKind::Directory => {
            let names = |node: Node<'_>| node.children().count();
            names(old) == names(new)
                && old
                    .children()
                    .all(|(name, child)| same(Some(child), new.child(name)))
        }
        NodeKind::File { .. } => old.same_content(new),
        NodeKind::Symlink { .. } | NodeKind::Special => true,
    }
}

/// Whether a path, as [`conflicts`] gives them, belongs to a package manager.
#[must_use]
pub fn is_package_database(path: &[u8]) -> bool {
    let databases = [
        "var/lib/dpkg",
        "lib/apk/db",
        "usr/lib/apk/db",
        "usr/lib/sysimage/rpm",
        "var/lib/rpm",
        "var/lib/pacman",
    ];
    let path = OsStr::from_bytes(path);
    let path = std::path::Path::new(path);
    databases.iter().any(|database| path.starts_with(database))
}

/// Whether a path only keeps two programs from working at once: nothing of it is worth anything while none does.
#[must_use]
pub fn is_lock(path: &[u8]) -> bool {
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    let name = name.to_ascii_lowercase();
    name.starts_with(b"lock") || name.ends_with(b".lock") || name.ends_with(b".lck")
}

/// Whether a path tells the users of a system: packages add theirs to what others, and people, wrote there.
#[must_use]
pub fn is_account_database(path: &[u8]) -> bool {
    matches!(path, b"etc/passwd" | b"etc/group")
}
