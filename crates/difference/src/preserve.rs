//! Putting another template below a private area without anything that the VE sees becoming another.
//!
//! For a VE that its own package manager brought to what the other template has. Most of what differs between the two
//! templates is in its upper layer then, and stays. Where a VE shows the old template, and the new one differs,
//! it is given what it showed: a copy (of a file's blocks, which takes no space), or a whiteout. What has become
//! equal to the new template's is given back afterwards, as by any compaction.
//!
//! Times of directories are kept where one is made or changed, and not compared: one would be made for each directory in
//! which the new template has another file. Names of one file of the template stay one file where all are given;
//! where the templates differ in some of them only, those become a file of their own.
//!
//! Done amid its way, the tree is neither: the caller keeps how it was.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use template::{ImageTree, Node, NodeKind};

use crate::rebase::{child, lower};
use crate::upper::{self, Entry, METACOPY, OPAQUE, REDIRECT, Redirect, Upper, beneath, times_of};
use crate::walk::{DEPTH_MAX, ENTRIES_MAX, enter};

/// What was done so that a VE sees the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Preserved {
    /// Files, links and directories of the old template that are the VE's now.
    pub given: u64,
    /// Length of those files.
    pub given_bytes: u64,
    /// Places of the new template that are hidden.
    pub hidden: u64,
}

struct Preserver<'a> {
    upper: BorrowedFd<'a>,
    old: &'a ImageTree,
    new: &'a ImageTree,
    objects: BorrowedFd<'a>,
    /// The path of the first copy of an inode of the old template.
    copies: BTreeMap<usize, Vec<u8>>,
    /// Where it is.
    path: Vec<u8>,
    depth: usize,
    entries: u64,
    done: Preserved,
}

/// Lets an upper layer show over `new` what it shows over `old`. No process may use it. `objects` is the folder of the
/// store of both templates.
///
/// # Errors
/// Those of the file system; `InvalidData` if there is more, or deeper, than is walked. The tree is of no use then.
pub fn preserve(
    upper: BorrowedFd<'_>,
    old: &ImageTree,
    new: &ImageTree,
    objects: BorrowedFd<'_>,
) -> io::Result<Preserved> {
    let mut preserver = Preserver {
        upper,
        old,
        new,
        objects,
        copies: BTreeMap::new(),
        path: Vec::new(),
        depth: 0,
        entries: 0,
        done: Preserved::default(),
    };
    let root = Upper::root(upper)?;
    preserver.directory(&root, Some(old.root()), Some(new.root()))?;
    Ok(preserver.done)
}

impl<'a> Preserver<'a> {
    /// A directory of the upper layer, over what it was and will be merged with.
    fn directory(
        &mut self,
        upper: &Upper,
        old: Option<Node<'a>>,
        new: Option<Node<'a>>,
    ) -> io::Result<()> {
        if self.depth >= DEPTH_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.depth += 1;
        let left = usize::try_from(ENTRIES_MAX.saturating_sub(self.entries)).unwrap_or(usize::MAX);
        let (names, more) = upper.names(left)?;
        self.entries += names.len() as u64;
        if more {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let handle = upper.open()?;
        let own: BTreeSet<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
        for name in &own {
            let length = enter(&mut self.path, name);
            self.own(&handle, name, old, new)?;
            self.path.truncate(length);
        }
        let below = old.into_iter().chain(new).flat_map(Node::children);
        let below: BTreeSet<&[u8]> = below.map(|(name, _)| name).collect();
        for name in below.difference(&own) {
            let length = enter(&mut self.path, name);
            self.untouched(&handle, name, child(old, name), child(new, name))?;
            self.path.truncate(length);
        }
        rustix::fs::futimens(&handle, &times_of(&upper.stat))?;
        self.depth -= 1;
        Ok(())
    }

    /// Something of the VE's own: it shows over both. What is merged with a directory, and what a file of metadata takes
    /// its content from, is the template's.
    fn own(
        &mut self,
        folder: &File,
        name: &[u8],
        old: Option<Node<'a>>,
        new: Option<Node<'a>>,
    ) -> io::Result<()> {
        let Entry::There(upper) = upper::entry(folder.as_fd(), OsStr::from_bytes(name))? else {
            return Ok(());
        };
        if !upper.is_directory() && !upper.is_metacopy()? {
            return Ok(());
        }
        let redirect = upper.redirect()?;
        let old = lower(&redirect, name, old, self.old);
        let new = lower(&redirect, name, new, self.new);
        if !upper.is_directory() {
            return self.fill(&upper, old, new);
        }
        let directory = |node: &Node<'_>| node.kind() == NodeKind::Directory;
        let (old, new) = (old.filter(directory), new.filter(directory));
        let moved = matches!(redirect, Redirect::Sibling(_) | Redirect::Path(_));
        if (old.is_none() && new.is_some()) || (moved && new.is_none()) {
            upper.set_mark(OPAQUE, b"y")?;
            forget(&upper, REDIRECT)?;
            return self.directory(&upper, old, None);
        }
        self.directory(&upper, old, new)
    }

    /// Gives a file that holds metadata alone the content that it showed, if it would be another one.
    fn fill(
        &mut self,
        upper: &Upper,
        old: Option<Node<'a>>,
        new: Option<Node<'a>>,
    ) -> io::Result<()> {
        let Some(old) = old else { return Ok(()) };
        if new.is_some_and(|new| old.same_content(new)) {
            return Ok(());
        }
        let mut file = upper.open_to_write()?;
        self.copy_content(old, &mut file)?;
        rustix::fs::futimens(&file, &times_of(&upper.stat))?;
        forget(upper, METACOPY)?;
        forget(upper, REDIRECT)
    }

    /// Something that the VE left as it was.
    fn untouched(
        &mut self,
        folder: &File,
        name: &[u8],
        old: Option<Node<'a>>,
        new: Option<Node<'a>>,
    ) -> io::Result<()> {
        let directory = |node: Node<'_>| node.kind() == NodeKind::Directory;
        match (old, new) {
            (None, None) => Ok(()),
            (None, Some(_)) => {
                self.done.hidden += 1;
                let name = OsStr::from_bytes(name);
                let kind = FileType::CharacterDevice;
                Ok(rustix::fs::mknodat(folder, name, kind, Mode::empty(), 0)?)
            }
            (Some(old), Some(new)) if identical(old, new) => Ok(()),
            (Some(old), Some(new)) if directory(old) && directory(new) => {
                let made = self.make_directory(folder, name, old)?;
                self.directory(&made, Some(old), Some(new))
            }
            (Some(old), _) => self.give(folder, name, old),
        }
    }

    /// Makes a copy of the old template's.
    fn give(&mut self, folder: &File, name: &[u8], old: Node<'a>) -> io::Result<()> {
        self.done.given += 1;
        let text = OsStr::from_bytes(name);
        match old.kind() {
            NodeKind::Directory => {
                let made = self.make_directory(folder, name, old)?;
                self.directory(&made, Some(old), None)
            }
            _ if self.link(folder, text, old)? => Ok(()),
            NodeKind::File { .. } => self.give_file(folder, text, old),
            NodeKind::Symlink { target } => {
                rustix::fs::symlinkat(OsStr::from_bytes(target), folder, text)?;
                put_metadata(folder, text, old)
            }
            // Templates have no devices and no sockets.
            NodeKind::Special => {
                let mode = Mode::from_raw_mode(old.mode());
                rustix::fs::mknodat(folder, text, FileType::Fifo, mode, 0)?;
                put_metadata(folder, text, old)?;
                rustix::fs::chmodat(folder, text, mode, AtFlags::empty())?;
                Ok(())
            }
        }
    }

    /// Another name of a file that was given before. Whether it was.
    fn link(&mut self, folder: &File, name: &OsStr, old: Node<'a>) -> io::Result<bool> {
        let Some(inode) = old.inode() else {
            return Ok(false);
        };
        let Some(first) = self.copies.get(&inode) else {
            self.copies.insert(inode, self.path.clone());
            return Ok(false);
        };
        let (above, last) = match first.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&first[..slash], &first[slash + 1..]),
            None => (b".".as_slice(), first.as_slice()),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let above = OsStr::from_bytes(above);
        let above = rustix::fs::openat2(self.upper, above, flags, Mode::empty(), beneath())?;
        let last = OsStr::from_bytes(last);
        match rustix::fs::linkat(&above, last, folder, name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            // A copy of its own then.
            Err(Errno::MLINK | Errno::NAMETOOLONG) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    fn give_file(&mut self, folder: &File, name: &OsStr, old: Node<'a>) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(folder, name, flags | OFlags::CLOEXEC, Mode::RUSR)?;
        let mut file = File::from(file);
        self.copy_content(old, &mut file)?;
        if let NodeKind::File { size } = old.kind() {
            self.done.given_bytes += size;
        }
        let (user, group) = owner(old);
        rustix::fs::fchown(&file, Some(user), Some(group))?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(old.mode()))?;
        put_attributes(&file, old)?;
        Ok(rustix::fs::futimens(&file, &times(old.modified()))?)
    }

    /// Copies a content, as blocks of the store where the file system can share them.
    fn copy_content(&self, old: Node<'a>, file: &mut File) -> io::Result<()> {
        let Some(object) = old.object() else {
            let NodeKind::File { size } = old.kind() else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            return file.write_all(&old.bytes(self.objects, size)?);
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut source = File::from(rustix::fs::openat(
            self.objects,
            object,
            flags,
            Mode::empty(),
        )?);
        match rustix::fs::ioctl_ficlone(&*file, &source) {
            Ok(()) => Ok(()),
            // Another file system, or a file without checksums.
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOTTY) => {
                io::copy(&mut source, file).map(drop)
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// Makes a directory as the old template's; it is merged with whatever lies below.
    fn make_directory(&mut self, folder: &File, name: &[u8], old: Node<'a>) -> io::Result<Upper> {
        let text = OsStr::from_bytes(name);
        rustix::fs::mkdirat(folder, text, Mode::RWXU)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = File::from(rustix::fs::openat(folder, text, flags, Mode::empty())?);
        let (user, group) = owner(old);
        rustix::fs::fchown(&made, Some(user), Some(group))?;
        rustix::fs::fchmod(&made, Mode::from_raw_mode(old.mode()))?;
        put_attributes(&made, old)?;
        // Its time is put back once more when all is in it.
        rustix::fs::futimens(&made, &times(old.modified()))?;
        match upper::entry(folder.as_fd(), text)? {
            Entry::There(upper) => Ok(upper),
            Entry::Absent | Entry::Whiteout => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// Owner and time of what is no file and no directory.
fn put_metadata(folder: &File, name: &OsStr, old: Node<'_>) -> io::Result<()> {
    let (user, group) = owner(old);
    let flags = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(folder, name, Some(user), Some(group), flags)?;
    Ok(rustix::fs::utimensat(
        folder,
        name,
        &times(old.modified()),
        flags,
    )?)
}

fn put_attributes(file: &File, old: Node<'_>) -> io::Result<()> {
    for (name, value) in attributes(old) {
        rustix::fs::fsetxattr(file, OsStr::from_bytes(name), value, XattrFlags::empty())?;
    }
    Ok(())
}

/// Without the marks by which an image names its objects.
fn attributes(node: Node<'_>) -> BTreeSet<(&[u8], &[u8])> {
    node.attributes()
        .filter(|(name, _)| !name.starts_with(upper::MARKS))
        .collect()
}

fn owner(node: Node<'_>) -> (Uid, Gid) {
    let (user, group) = node.owner();
    (Uid::from_raw(user), Gid::from_raw(group))
}

fn forget(upper: &Upper, mark: &str) -> io::Result<()> {
    match upper.remove_mark(mark) {
        Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn times(modified: i64) -> Timestamps {
    let time = Timespec {
        tv_sec: modified,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Whether two templates show the same at a place; the time of a directory does not count.
fn identical(old: Node<'_>, new: Node<'_>) -> bool {
    let alike = old.kind() == new.kind()
        && old.mode() == new.mode()
        && old.owner() == new.owner()
        && attributes(old) == attributes(new);
    if !alike {
        return false;
    }
    match old.kind() {
        NodeKind::Directory => {
            old.children().count() == new.children().count()
                && old
                    .children()
                    .all(|(name, child)| new.child(name).is_some_and(|new| identical(child, new)))
        }
        NodeKind::File { .. } => old.modified() == new.modified() && old.same_content(new),
        NodeKind::Symlink { .. } | NodeKind::Special => old.modified() == new.modified(),
    }
}
