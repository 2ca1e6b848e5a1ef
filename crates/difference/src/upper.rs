//! The upper directory of an overlay, one name at a time.
//!
//! Everything in it was made by a hostile root, but for the attributes `trusted.overlay.*`: those only the
//! kernel can set (a VE's root has no `CAP_SYS_ADMIN` over the node). They are read with bounds all the
//! same. No path is ever given to the kernel: each step opens one name beneath a descriptor, follows no
//! link, and crosses no mount, so nothing outside the directory can be reached, whatever is renamed meanwhile.

use std::ffi::{CStr, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

/// Marks of the kernel (Documentation/filesystems/overlayfs.rst).
pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";
pub(crate) const REDIRECT: &str = "trusted.overlay.redirect";
pub(crate) const METACOPY: &str = "trusted.overlay.metacopy";
/// All of them begin so.
pub(crate) const MARKS: &[u8] = b"trusted.overlay.";
/// Longest value of one: a redirect is a path.
const MARK_BYTES_MAX: usize = 4_096;
/// Bytes of all names of a file's attributes (`XATTR_LIST_MAX`, xattr(7)), and of one value.
const ATTRIBUTE_BYTES_MAX: usize = 65_536;

/// What a name is in an upper directory.
#[derive(Debug)]
pub(crate) enum Entry {
    /// Nothing: the lower layer shows.
    Absent,
    /// It was deleted.
    Whiteout,
    /// Something of the VE's.
    There(Upper),
}

/// Something in an upper directory.
#[derive(Debug)]
pub(crate) struct Upper {
    /// Opened as a path: for nothing but to look at it.
    handle: OwnedFd,
    pub(crate) stat: Stat,
}

/// Where the lower part of a directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Redirect {
    /// At the same name.
    None,
    /// Nowhere: it replaced what was there.
    Opaque,
    /// At another name in the same directory.
    Sibling(Vec<u8>),
    /// At a path from the root.
    Path(Vec<u8>),
}

/// Opens a name in a directory.
pub(crate) fn entry(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<Entry> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = match rustix::fs::openat2(directory, name, flags, Mode::empty(), beneath()) {
        Ok(handle) => handle,
        Err(Errno::NOENT) => return Ok(Entry::Absent),
        Err(errno) => return Err(errno.into()),
    };
    let stat = rustix::fs::fstat(&handle)?;
    if FileType::from_raw_mode(stat.st_mode).is_char_device() && stat.st_rdev == 0 {
        return Ok(Entry::Whiteout);
    }
    Ok(Entry::There(Upper { handle, stat }))
}

/// How a path beneath a hostile directory is opened.
pub(crate) fn beneath() -> ResolveFlags {
    ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV
}

/// The times of something, to be put back.
pub(crate) fn times_of(stat: &Stat) -> Timestamps {
    let time = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

impl Upper {
    /// The root of an upper layer.
    pub(crate) fn root(directory: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self {
            handle: directory.try_clone_to_owned()?,
            stat: rustix::fs::fstat(directory)?,
        })
    }

    pub(crate) fn file_type(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.file_type().is_dir()
    }

    /// Opens it for reading. Only files and directories: opening a pipe or a device acts.
    pub(crate) fn open(&self) -> io::Result<File> {
        let flags = match self.file_type() {
            FileType::RegularFile => OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOATIME,
            FileType::Directory => OFlags::RDONLY | OFlags::DIRECTORY,
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let flags = flags | OFlags::CLOEXEC;
        Ok(rustix::fs::open(self.path(), flags, Mode::empty())?.into())
    }

    /// The descriptor itself as a path: it leads to this very inode, and to no other.
    fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.handle.as_raw_fd())
    }

    /// Where a symbolic link leads.
    pub(crate) fn target(&self) -> io::Result<Vec<u8>> {
        let target = rustix::fs::readlinkat(self.handle.as_fd(), "", Vec::new())?;
        Ok(target.into_bytes())
    }

    /// The names in a directory, at most `most`; whether there are more.
    pub(crate) fn names(&self, most: usize) -> io::Result<(Vec<OsString>, bool)> {
        let directory = self.open()?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&directory)? {
            let entry = entry?;
            let name: &CStr = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if names.len() == most {
                return Ok((names, true));
            }
            names.push(OsString::from_vec(name.to_bytes().to_vec()));
        }
        names.sort_unstable();
        Ok((names, false))
    }

    /// Where the lower part of this directory is, or of a file that holds metadata alone.
    pub(crate) fn redirect(&self) -> io::Result<Redirect> {
        if self.is_directory() && self.mark(OPAQUE)?.as_deref() == Some(b"y") {
            return Ok(Redirect::Opaque);
        }
        Ok(match self.mark(REDIRECT)? {
            None => Redirect::None,
            Some(path) if path.starts_with(b"/") => Redirect::Path(path),
            Some(name) => Redirect::Sibling(name),
        })
    }

    /// Whether this file holds metadata alone, and its content is the lower one's.
    pub(crate) fn is_metacopy(&self) -> io::Result<bool> {
        Ok(self.file_type().is_file() && self.mark(METACOPY)?.is_some())
    }

    fn mark(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.attribute(name.as_bytes(), MARK_BYTES_MAX)
    }

    /// Opens a file of it for writing.
    pub(crate) fn open_to_write(&self) -> io::Result<File> {
        if !self.file_type().is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        Ok(rustix::fs::open(self.path(), flags, Mode::empty())?.into())
    }

    /// Sets a mark as the kernel does.
    pub(crate) fn set_mark(&self, name: &str, value: &[u8]) -> io::Result<()> {
        let flags = rustix::fs::XattrFlags::empty();
        Ok(rustix::fs::setxattr(self.path(), name, value, flags)?)
    }

    /// Takes a name out of this directory, whose times stay what they are.
    pub(crate) fn remove_name(&self, name: &OsStr) -> io::Result<()> {
        let directory = self.open()?;
        rustix::fs::unlinkat(&directory, name, rustix::fs::AtFlags::empty())?;
        Ok(rustix::fs::futimens(&directory, &times_of(&self.stat))?)
    }

    /// Takes a mark of the kernel's away.
    pub(crate) fn remove_mark(&self, name: &str) -> Result<(), Errno> {
        rustix::fs::removexattr(self.path(), name)
    }

    fn attribute(&self, name: &[u8], most: usize) -> io::Result<Option<Vec<u8>>> {
        let mut value = vec![0; most];
        match rustix::fs::getxattr(self.path(), OsStr::from_bytes(name), &mut value) {
            Ok(length) => {
                value.truncate(length);
                Ok(Some(value))
            }
            Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// All extended attributes but the overlay's own marks, sorted.
    pub(crate) fn attributes(&self) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let mut list = vec![0_u8; ATTRIBUTE_BYTES_MAX];
        let length = match rustix::fs::listxattr(self.path(), &mut list) {
            Ok(length) => length,
            Err(Errno::NOTSUP) => 0,
            Err(errno) => return Err(errno.into()),
        };
        let names = list[..length].split(|byte| *byte == 0);
        let mut found = Vec::new();
        for name in names.filter(|name| !name.is_empty() && !name.starts_with(MARKS)) {
            if let Some(value) = self.attribute(name, ATTRIBUTE_BYTES_MAX)? {
                found.push((name.to_vec(), value));
            }
        }
        found.sort();
        Ok(found)
    }
}
