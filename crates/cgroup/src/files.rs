//! Files of a control group below a directory that is held open.
//!
//! All access goes by a path relative to an open directory, so a mount that is covered or moved
//! later does not redirect us. A control file takes one value in one `write(2)`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::error::FileError;

/// A directory of a hierarchy, held open.
#[derive(Debug)]
pub(crate) struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

/// Longest control file that is read. `memory.stat` has 2 to 4 kB, `cgroup.procs` of a VE with its
/// limit of processes at most some hundred kB.
const FILE_BYTES_MAX: usize = 4 << 20;
/// What nearly all control files of one record fit in: all but the `memory.stat` of some kernels.
const RECORD_BYTES: usize = 4 << 10;

impl Directory {
    /// Opens a directory by its path.
    pub(crate) fn open(path: &Path) -> Result<Self, FileError> {
        let fd = rustix::fs::open(path, directory_flags(), Mode::empty())
            .map_err(|errno| failure("open", path.to_owned(), errno))?;
        Ok(Self {
            fd,
            path: path.to_owned(),
        })
    }

    /// Opens a directory below this one.
    pub(crate) fn open_below(&self, below: &Path) -> Result<Self, FileError> {
        let path = self.path.join(below);
        let fd = rustix::fs::openat(&self.fd, below, directory_flags(), Mode::empty())
            .map_err(|errno| failure("open", path.clone(), errno))?;
        Ok(Self { fd, path })
    }

    /// The path by which it was opened, for messages.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives up the descriptor.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Makes a directory; one that is there already is well. Answers whether it is new.
    pub(crate) fn make(&self, below: &Path) -> Result<bool, FileError> {
        match rustix::fs::mkdirat(&self.fd, below, Mode::from_raw_mode(0o755)) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(self.failure("make directory", below, errno)),
        }
    }

    /// Removes a directory of a control group (which has files and no directories in it).
    pub(crate) fn remove(&self, below: &Path) -> Result<(), FileError> {
        match rustix::fs::unlinkat(&self.fd, below, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.failure("remove", below, errno)),
        }
    }

    /// Names of the directories in a directory.
    pub(crate) fn directories(&self, below: &Path) -> Result<Vec<PathBuf>, FileError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = rustix::fs::openat(&self.fd, below, flags, Mode::empty());
        let list = open.and_then(rustix::fs::Dir::new);
        let list = list.map_err(|errno| self.failure("list", below, errno))?;
        let mut found = Vec::new();
        for entry in list {
            let entry = entry.map_err(|errno| self.failure("list", below, errno))?;
            let name = entry.file_name().to_bytes();
            if entry.file_type() == rustix::fs::FileType::Directory && name != b"." && name != b".."
            {
                found.push(below.join(String::from_utf8_lossy(name).as_ref()));
            }
        }
        Ok(found)
    }

    /// Reads a whole control file.
    pub(crate) fn read(&self, below: &Path) -> Result<String, FileError> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.fd, below, flags, Mode::empty())
            .map_err(|errno| self.failure("read", below, errno))?;
        let mut bytes = vec![0; 8192];
        let mut length = 0;
        loop {
            let space = &mut bytes[length..];
            let count = rustix::io::retry_on_intr(|| rustix::io::read(&file, &mut *space))
                .map_err(|errno| self.failure("read", below, errno))?;
            length += count;
            if count == 0 || length >= FILE_BYTES_MAX {
                break;
            }
            if length == bytes.len() {
                bytes.resize(length * 2, 0);
            }
        }
        bytes.truncate(length);
        String::from_utf8(bytes).map_err(|_| self.failure("read as text", below, Errno::ILSEQ))
    }

    /// Reads a control file that the kernel writes as one record, as it does all but lists of processes: one
    /// read(2) gives all that fits (`seq_read_iter`, fs/seq_file.c), and one that fills less than the space was
    /// the last.
    pub(crate) fn read_record(&self, below: &Path) -> Result<String, FileError> {
        let failed = |errno| self.failure("read", below, errno);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.fd, below, flags, Mode::empty()).map_err(failed)?;
        let mut bytes = Vec::with_capacity(RECORD_BYTES);
        loop {
            let space = bytes.capacity() - bytes.len();
            let read = || rustix::io::read(&file, rustix::buffer::spare_capacity(&mut bytes));
            let count = rustix::io::retry_on_intr(read).map_err(failed)?;
            if count < space || bytes.len() >= FILE_BYTES_MAX {
                break;
            }
            bytes.reserve(bytes.len());
        }
        String::from_utf8(bytes).map_err(|_| self.failure("read as text", below, Errno::ILSEQ))
    }

    /// Opens a file for writing or reading, not creating it.
    pub(crate) fn open_file(&self, below: &Path, flags: OFlags) -> Result<OwnedFd, FileError> {
        rustix::fs::openat(&self.fd, below, flags | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| self.failure("open", below, errno))
    }

    /// Writes one value to a control file.
    pub(crate) fn write(&self, below: &Path, value: &str) -> Result<(), FileError> {
        let refused = |errno| self.failure(&format!("write \"{value}\" to"), below, errno);
        // O_TRUNC does nothing to a control file and keeps trees of plain files honest (tests).
        let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.fd, below, flags, Mode::empty()).map_err(refused)?;
        rustix::io::retry_on_intr(|| rustix::io::write(&file, value.as_bytes()))
            .map_err(refused)?;
        Ok(())
    }

    /// Gives a file or directory to another owner.
    pub(crate) fn give(&self, below: &Path, uid: u32) -> Result<(), FileError> {
        let (user, group) = (
            rustix::fs::Uid::from_raw(uid),
            rustix::fs::Gid::from_raw(uid),
        );
        rustix::fs::chownat(
            &self.fd,
            below,
            Some(user),
            Some(group),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(|errno| self.failure("change the owner of", below, errno))
    }

    /// Whether something of that name is there.
    pub(crate) fn has(&self, below: &Path) -> bool {
        rustix::fs::accessat(
            &self.fd,
            below,
            rustix::fs::Access::EXISTS,
            AtFlags::empty(),
        )
        .is_ok()
    }

    fn failure(&self, action: &str, below: &Path, errno: Errno) -> FileError {
        failure(action, self.path.join(below), errno)
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn directory_flags() -> OFlags {
    OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC
}

pub(crate) fn failure(action: &str, path: PathBuf, errno: Errno) -> FileError {
    FileError {
        action: action.to_owned(),
        path,
        source: io::Error::from(errno),
    }
}

/// The number behind a key in a flat keyed file (`cpu.stat`, `memory.stat`, `cgroup.events`).
pub(crate) fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        line.strip_prefix(key)?
            .strip_prefix(' ')?
            .trim()
            .parse()
            .ok()
    })
}
