//! Reading a folder of the host.
//!
//! The folder may be changed by someone hostile while it is read, so every name is opened relative
//! to its directory's descriptor, symbolic links are never followed, and what is believed about a
//! file is asked of the open file. `openat2` refuses to cross into other mounts: an import of a
//! running system's root takes neither its /proc nor its disks elsewhere.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::error::{ImportError, MemberError};
use crate::ingest::{Attributes, Ingest};
use crate::limits::ATTRIBUTE_BYTES_MAX;
use crate::path::MemberPath;
use crate::tree::Body;

/// Files with several names, by device and inode, and the name under which each is in the tree.
type Links = HashMap<(u64, u64), MemberPath>;

/// Reads a whole folder.
pub(super) fn read(path: &Path, ingest: &mut Ingest<'_>) -> Result<(), ImportError> {
    ingest.source = path.to_owned();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| ImportError::Open {
        path: path.to_owned(),
        source: errno.into(),
    })?;
    let before = ingest.tree.inodes();
    let top = MemberPath::default();
    let stat = rustix::fs::fstat(&root).map_err(|e| ingest.read_error(e.into()))?;
    let found = attributes(&root).map_err(|e| ingest.read_error(e))?;
    put(&top, &stat, found, Body::Directory(BTreeMap::new()), ingest)?;
    walk(root, &top, &mut Links::new(), ingest)?;
    if ingest.tree.inodes() == before {
        return Err(ingest.damaged("the folder is empty"));
    }
    Ok(())
}

fn walk(
    directory: OwnedFd,
    path: &MemberPath,
    links: &mut Links,
    ingest: &mut Ingest<'_>,
) -> Result<(), ImportError> {
    let directory = Dir::new(directory).map_err(|e| ingest.read_error(e.into()))?;
    let mut entries = directory;
    while let Some(entry) = entries.read() {
        ingest.check()?;
        let entry = entry.map_err(|e| ingest.read_error(e.into()))?;
        let name = entry.file_name().to_bytes();
        if matches!(name, b"." | b"..") {
            continue;
        }
        let path = path.join(name);
        // Names from a directory can still be too deep for a tree.
        ingest.path(&path.components().join(&b'/'))?;
        let here = entries.fd().map_err(|e| ingest.read_error(e.into()))?;
        member(here, &entry, &path, links, ingest)?;
    }
    Ok(())
}

fn member(
    directory: BorrowedFd<'_>,
    entry: &rustix::fs::DirEntry,
    path: &MemberPath,
    links: &mut Links,
    ingest: &mut Ingest<'_>,
) -> Result<(), ImportError> {
    let pointer = match rustix::fs::openat2(
        directory,
        entry.file_name(),
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS,
    ) {
        Ok(pointer) => pointer,
        Err(Errno::XDEV) => return mount_point(directory, entry, path, ingest),
        // Gone since the directory was listed.
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(ingest.read_error(errno.into())),
    };
    let stat = rustix::fs::fstat(&pointer).map_err(|e| ingest.read_error(e.into()))?;
    let several = stat.st_nlink > 1;
    let key = (stat.st_dev, stat.st_ino);
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind != FileType::Directory
        && several
        && let Some(first) = links.get(&key)
    {
        let linked = ingest.tree.hard_link(path, first);
        return linked.map_err(|e| ingest.refuse(&path.components().join(&b'/'), e));
    }
    match kind {
        FileType::Directory => {
            let below = reopen(&pointer, OFlags::DIRECTORY).map_err(|e| ingest.read_error(e))?;
            let found = attributes(&below).map_err(|e| ingest.read_error(e))?;
            put(path, &stat, found, Body::Directory(BTreeMap::new()), ingest)?;
            return walk(below, path, links, ingest);
        }
        FileType::RegularFile => regular(&pointer, &stat, path, ingest)?,
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(&pointer, "", Vec::new())
                .map_err(|e| ingest.read_error(e.into()))?;
            let body = Ingest::symlink(target.to_bytes());
            let body = body.map_err(|e| refuse(path, e, ingest))?;
            put(path, &stat, Vec::new(), body, ingest)?;
        }
        FileType::Fifo => put(path, &stat, Vec::new(), Body::Fifo, ingest)?,
        FileType::Socket => {
            ingest.note("socket left out");
            return Ok(());
        }
        _ => {
            ingest.note("device node left out");
            return Ok(());
        }
    }
    if several {
        links.insert(key, path.clone());
    }
    Ok(())
}

fn regular(
    pointer: &OwnedFd,
    stat: &Stat,
    path: &MemberPath,
    ingest: &mut Ingest<'_>,
) -> Result<(), ImportError> {
    let file = reopen(pointer, OFlags::NOCTTY).map_err(|e| ingest.read_error(e))?;
    let found = attributes(&file).map_err(|e| ingest.read_error(e))?;
    let mut file = File::from(file);
    let size = file.metadata().map_err(|e| ingest.read_error(e))?.len();
    let accounted = ingest.account(size);
    accounted.map_err(|e| refuse(path, e, ingest))?;
    let body = ingest.file(&mut file, size)?;
    put(path, stat, found, body, ingest)
}

/// Another file system begins here: its place stays, its files do not belong to the tree.
fn mount_point(
    directory: BorrowedFd<'_>,
    entry: &rustix::fs::DirEntry,
    path: &MemberPath,
    ingest: &mut Ingest<'_>,
) -> Result<(), ImportError> {
    ingest.note(format!("other file system mounted at `{path}` left out"));
    let stat = rustix::fs::statat(directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|e| ingest.read_error(e.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Ok(());
    }
    put(
        path,
        &stat,
        Vec::new(),
        Body::Directory(BTreeMap::new()),
        ingest,
    )
}

/// Opens for reading what a descriptor points to: it cannot have become something else.
fn reopen(pointer: &OwnedFd, flags: OFlags) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", pointer.as_raw_fd());
    Ok(rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::CLOEXEC | flags,
        Mode::empty(),
    )?)
}

fn put(
    path: &MemberPath,
    stat: &Stat,
    extended: Vec<(Vec<u8>, Vec<u8>)>,
    body: Body,
    ingest: &mut Ingest<'_>,
) -> Result<(), ImportError> {
    let attributes = Attributes {
        mode: stat.st_mode,
        uid: u64::from(stat.st_uid),
        gid: u64::from(stat.st_gid),
        mtime: stat.st_mtime,
    };
    let metadata = ingest.metadata(attributes, extended);
    let metadata = metadata.map_err(|e| refuse(path, e, ingest))?;
    let inserted = ingest.insert(path, metadata, body);
    inserted.map_err(|e| refuse(path, e, ingest))
}

fn refuse(path: &MemberPath, error: MemberError, ingest: &Ingest<'_>) -> ImportError {
    ingest.refuse(&path.components().join(&b'/'), error)
}

/// All extended attributes of an open file.
fn attributes(file: impl AsFd) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = vec![0; ATTRIBUTE_BYTES_MAX];
    let length = match rustix::fs::flistxattr(&file, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(errno) => return Err(errno.into()),
    };
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0) {
        if name.is_empty() {
            continue;
        }
        let mut value = vec![0; ATTRIBUTE_BYTES_MAX];
        match rustix::fs::fgetxattr(&file, name, &mut value[..]) {
            Ok(length) => value.truncate(length),
            // Removed meanwhile.
            Err(Errno::NODATA) => continue,
            Err(errno) => return Err(errno.into()),
        }
        found.push((name.to_vec(), value));
    }
    Ok(found)
}
