//! Giving back files that have become equal to the template's.
//!
//! On a stopped VE the private area's copy is removed, and the template's file shows through: no space, and its
//! pages in memory are everybody's again. What stands in the way:
//!
//! - The kernel keeps an index, `work/index`, in which a name stands for a file of the template's by its handle.
//!   Of a file that was copied up it is another name of the copy, whose space is free only when that is gone, too.
//!   Of one that was deleted or replaced it is a whiteout, and with it the template's file cannot be
//!   opened any more even if nothing hides it (measured: EIO). So this name goes first: a copy without it is a
//!   plain file, and a second run finds it; a name without a copy would never be found again.
//! - A name in the index that belongs to another copy means that the template's hard links were changed in part:
//!   these stay.
//! - Several names of one file go together or not at all, and only where the template has them as one file,
//!   too: else they would not be one file any more.
//! - Beneath a directory that hides the template's (an opaque one) nothing would show.
//! - Removing a name changes its directory's time, which is put back.
//!
//! Each file is given back by itself, and the tree is what the VE saw before at any moment, so a crash at any
//! point leaves a whole VE, and doing it again goes on.
//!
//! On a running VE a removal behind the kernel's back is undefined: it keeps the copy open, and would
//! write into a file without a name. There the copy's blocks are made the template's by the kernel
//! (ioctl_fideduperange(2)), which compares both itself: that frees the space, and not the memory.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};
use template::ImageTree;

use crate::merged::Merged;
use crate::upper::{beneath, times_of};
use crate::walk::{Change, Found, Kind, walk_found};

/// Files below this size lie in btrfs' metadata, whose blocks cannot be shared.
const SHARED_BYTES_MIN: u64 = 4_096;

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compaction {
    /// Files and links that are the template's again; of a running VE, files whose blocks are.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Equal ones that stay.
    pub kept: Kept,
}

/// Why files that are equal to the template's stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// They have other names, which are not all equal.
    pub linked: u64,
    /// They lie in a directory that took the place of the template's.
    pub hidden: u64,
    /// Their path is longer than the kernel takes.
    pub too_long: u64,
}

/// A copy that is of no use: one inode of the upper directory, with all its names.
#[derive(Default)]
struct Copy {
    /// Paths beneath the upper directory.
    names: Vec<Vec<u8>>,
    links: u64,
    /// Inodes of the template at those names, and the path of one.
    lower: BTreeSet<Option<usize>>,
    lower_path: Vec<u8>,
    bytes: u64,
}

/// What the index says of a file of the template's.
enum Indexed {
    Nothing,
    /// It was deleted or replaced.
    Whiteout(String),
    /// It was copied up, and this is the copy.
    Copy(String),
    /// It was copied up to another one.
    Other,
}

/// The index of an overlay, and the template's files that its names stand for.
struct Index<'a> {
    directory: OwnedFd,
    lower: OwnedFd,
    tree: &'a ImageTree,
}

/// Removes what is equal to the template's from the upper directory of a VE without processes. `work` is the
/// overlay's other directory, `image` the template's. `cancelled` is asked before each file.
///
/// # Errors
/// Those of reading and changing the private area, and of looking into the image. What was given back before
/// stays so.
pub fn give_back(
    merged: &Merged<'_>,
    work: BorrowedFd<'_>,
    image: BorrowedFd<'_>,
    cancelled: &dyn Fn() -> bool,
) -> io::Result<Compaction> {
    let mut done = Compaction::default();
    let Some(upper) = merged.upper else {
        return Ok(done);
    };
    let index = Index::open(work, image, merged.lower)?;
    for (inode, copy) in copies(merged, &mut done.kept)? {
        if cancelled() {
            break;
        }
        let indexed = match &index {
            Some(index) => index.find(&copy.lower_path, inode)?,
            None => Indexed::Nothing,
        };
        let names = copy.names.len() as u64 + u64::from(matches!(indexed, Indexed::Copy(_)));
        let whole = names == copy.links && copy.lower.len() == 1;
        if !whole || matches!(indexed, Indexed::Other) {
            done.kept.linked += copy.names.len() as u64;
            continue;
        }
        if let (Some(index), Indexed::Copy(name) | Indexed::Whiteout(name)) = (&index, indexed) {
            rustix::fs::unlinkat(&index.directory, name, AtFlags::empty())?;
        }
        for path in &copy.names {
            match remove(upper, path, inode) {
                Ok(()) => done.files += 1,
                Err(Errno::NAMETOOLONG) => done.kept.too_long += 1,
                Err(errno) => return Err(errno.into()),
            }
        }
        done.bytes += copy.bytes;
    }
    Ok(done)
}

/// The equal ones, by inode.
fn copies(merged: &Merged<'_>, kept: &mut Kept) -> io::Result<BTreeMap<u64, Copy>> {
    let mut copies: BTreeMap<u64, Copy> = BTreeMap::new();
    walk_found(merged, &mut |found| {
        let Some((upper, lower)) = equal(found) else {
            return Ok(());
        };
        if !found.shows {
            kept.hidden += 1;
            return Ok(());
        }
        let copy = copies.entry(upper.stat.st_ino).or_default();
        copy.names.push(found.changed.path.clone());
        copy.links = upper.stat.st_nlink;
        copy.lower.insert(lower.inode());
        copy.lower_path = found.lower_path.to_vec();
        copy.bytes = found.changed.size_bytes;
        Ok(())
    })?;
    Ok(copies)
}

/// A file or link of the VE's that is as in the template, with the template's.
fn equal<'b, 'a>(found: &Found<'a, 'b>) -> Option<(&'b crate::upper::Upper, template::Node<'a>)> {
    let kind = matches!(found.changed.kind, Kind::File | Kind::Symlink);
    let equal = found.changed.change == Change::Equal && kind;
    found.upper.zip(found.lower).filter(|_| equal)
}

impl<'a> Index<'a> {
    /// Nothing where the overlay keeps none.
    fn open(
        work: BorrowedFd<'_>,
        image: BorrowedFd<'_>,
        tree: &'a ImageTree,
    ) -> io::Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(work, "index", flags, Mode::empty()) {
            Ok(directory) => Ok(Some(Self {
                directory,
                lower: mount_image(image)?,
                tree,
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// What it says of the template's file at a path, whose copy this inode may be.
    fn find(&self, path: &[u8], inode: u64) -> io::Result<Indexed> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let path = std::ffi::OsStr::from_bytes(path);
        let file = rustix::fs::openat2(&self.lower, path, flags, Mode::empty(), beneath())?;
        let handle = kernel::file::handle(file.as_fd())?;
        // An overlay whose layers are of one file system, and some options, leave the UUID out.
        for uuid in [self.tree.uuid(), [0; 16]] {
            let name = index_name(&handle, uuid);
            let stat = match rustix::fs::statat(&self.directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT | Errno::NAMETOOLONG) => continue,
                Err(errno) => return Err(errno.into()),
            };
            return Ok(match FileType::from_raw_mode(stat.st_mode) {
                FileType::CharacterDevice if stat.st_rdev == 0 => Indexed::Whiteout(name),
                _ if stat.st_ino == inode => Indexed::Copy(name),
                _ => Indexed::Other,
            });
        }
        Ok(Indexed::Nothing)
    }
}

/// The name in an index of the file with this handle: `struct ovl_fb` of the kernel's
/// fs/overlayfs/overlayfs.h in hexadecimal, that is version, magic, length, flags, type, UUID, handle.
fn index_name(handle: &kernel::file::Handle, uuid: [u8; 16]) -> String {
    const HEAD_BYTES: usize = 21;
    let byte = |value| u8::try_from(value).unwrap_or(u8::MAX);
    let length = byte(HEAD_BYTES + handle.bytes.len());
    let flags = u8::from(cfg!(target_endian = "big"));
    let kind = u8::try_from(handle.kind).unwrap_or(u8::MAX);
    let head = [0, 0xfb, length, flags, kind];
    let bytes = head.iter().chain(&uuid).chain(&handle.bytes);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

/// Mounts a template's image where nobody sees it, to learn the handles of its files.
fn mount_image(image: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let path = format!("/proc/self/fd/{}", image.as_raw_fd());
    fsconfig_set_string(&context, "source", path.as_str())?;
    fsconfig_set_flag(&context, "ro")?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        attributes,
    )?)
}

/// Removes a name of the upper directory that leads to this inode, and puts its directory's time back.
fn remove(upper: BorrowedFd<'_>, path: &[u8], inode: u64) -> Result<(), Errno> {
    let (folder, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b".".as_slice(), path),
    };
    let name = OsString::from_vec(name.to_vec());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = std::ffi::OsStr::from_bytes(folder);
    let folder = rustix::fs::openat2(upper, folder, flags, Mode::empty(), beneath())?;
    match rustix::fs::statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if stat.st_ino == inode => {}
        Ok(_) | Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno),
    }
    let before = rustix::fs::fstat(&folder)?;
    rustix::fs::unlinkat(&folder, &name, AtFlags::empty())?;
    rustix::fs::futimens(&folder, &times_of(&before))
}

/// Makes files that hold what the template's hold share its blocks; the VE may run meanwhile.
///
/// # Errors
/// Those of reading the private area and the template, and of a file system that shares no blocks.
pub fn share(merged: &Merged<'_>, cancelled: &dyn Fn() -> bool) -> io::Result<Compaction> {
    let mut done = Compaction::default();
    walk_found(merged, &mut |found| {
        let same = matches!(found.changed.change, Change::Equal | Change::Metadata);
        let large = found.changed.size_bytes >= SHARED_BYTES_MIN;
        let Some((upper, lower)) = found.upper.zip(found.lower).filter(|_| same && large) else {
            return Ok(());
        };
        let Some(object) = lower.object().filter(|_| !cancelled()) else {
            return Ok(());
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let source = rustix::fs::openat(merged.objects, object, flags, Mode::empty())?;
        let own = match upper.open() {
            Ok(own) => own,
            // Gone meanwhile, or a file of metadata alone that is not opened so.
            Err(_) => return Ok(()),
        };
        let bytes = found.changed.size_bytes;
        let shared = kernel::file::share_blocks(source.as_fd(), own.as_fd(), bytes)?;
        done.files += u64::from(shared > 0);
        done.bytes += shared;
        Ok(())
    })?;
    Ok(done)
}
