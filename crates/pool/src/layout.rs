//! The directories of a pool, and the mark that says it is one.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Directories of the root.
pub(crate) const PRIVATE: &str = "private";
pub(crate) const TEMPLATES: &str = "templates";
pub(crate) const STAGING: &str = "staging";

/// The file that says that this is a pool.
const MARK: &str = ".vessel-pool";
/// The mark while it is being written.
const MARK_NEW: &str = ".vessel-pool.new";
/// What the mark says: the layout's number is raised when an older program would misread it.
const MARK_TEXT: &str = "vessel pool, layout 1\n";
/// Most of a mark that is read; another program's file of this name may be of any size.
const MARK_BYTES_MAX: u64 = 256;

/// For root only: the files of VEs lie unshifted, so what a VE's root made set-user-id is the host root's.
const ROOT_ONLY: Mode = Mode::RWXU;

/// A directory is no pool, or cannot be made one.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The directory has no mark.
    #[error("`{path}` is not a pool; run `vessel init` to make one")]
    NotAPool {
        /// The directory.
        path: PathBuf,
    },
    /// The mark is of another version.
    #[error(
        "the pool in `{path}` says `{found}`, which this version does not know; use the version that made it, or a newer one"
    )]
    Unknown {
        /// The directory.
        path: PathBuf,
        /// What its mark says.
        found: String,
    },
    /// The directory holds something else.
    #[error("`{path}` is not empty (it holds `{}`); give an empty directory", entry.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// One of the things in it.
        entry: OsString,
    },
    /// A part could not be read or made.
    #[error("cannot {action} `{part}` of the pool in `{path}`")]
    Io {
        /// The directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// With what.
        part: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Opens a directory of the pool, never leaving the pool and following no link.
pub(crate) fn open_directory(root: BorrowedFd<'_>, path: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let beneath = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    Ok(rustix::fs::openat2(
        root,
        path,
        flags,
        Mode::empty(),
        beneath,
    )?)
}

/// Makes a directory of the given mode, whatever the umask is; finds one that is there.
pub(crate) fn make_directory(parent: BorrowedFd<'_>, name: &str, mode: Mode) -> io::Result<()> {
    match rustix::fs::mkdirat(parent, name, mode) {
        Ok(()) => Ok(rustix::fs::chmodat(parent, name, mode, AtFlags::empty())?),
        Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether there is something with this name, a dangling link included.
pub(crate) fn exists(parent: BorrowedFd<'_>, name: &str) -> io::Result<bool> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The names in a directory, without `.` and `..`.
pub(crate) fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
    use std::os::unix::ffi::OsStringExt;
    let mut found = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if !matches!(name.as_slice(), b"." | b"..") {
            found.push(OsString::from_vec(name));
        }
    }
    Ok(found)
}

/// The root of a pool that is looked at.
#[derive(Clone, Copy)]
pub(crate) struct Root<'a> {
    pub(crate) directory: BorrowedFd<'a>,
    /// Its path, for messages.
    pub(crate) path: &'a std::path::Path,
}

impl Root<'_> {
    fn failed(
        &self,
        action: &'static str,
        part: &'static str,
    ) -> impl FnOnce(io::Error) -> LayoutError {
        let path = self.path.to_owned();
        move |source| LayoutError::Io {
            path,
            action,
            part,
            source,
        }
    }

    /// Accepts the directory only when it is a pool of a layout that is known.
    pub(crate) fn check(&self) -> Result<(), LayoutError> {
        match self.mark()? {
            Some(text) if text == MARK_TEXT => Ok(()),
            Some(text) => {
                let found = text.trim().to_owned();
                Err(LayoutError::Unknown {
                    path: self.path.to_owned(),
                    found,
                })
            }
            None => Err(LayoutError::NotAPool {
                path: self.path.to_owned(),
            }),
        }
    }

    fn mark(&self) -> Result<Option<String>, LayoutError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(self.directory, MARK, flags, Mode::empty()) {
            Ok(file) => std::fs::File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(self.failed("open", MARK)(error.into())),
        };
        let mut bytes = Vec::new();
        let read = file.take(MARK_BYTES_MAX).read_to_end(&mut bytes);
        read.map_err(self.failed("read", MARK))?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Refuses a directory that holds anything but a pool, whole or half-made.
    pub(crate) fn check_vacant(&self) -> Result<(), LayoutError> {
        let ours = [MARK, MARK_NEW, PRIVATE, TEMPLATES, STAGING];
        if self.mark()?.is_some() {
            return self.check();
        }
        let entries = names(self.directory).map_err(self.failed("list", "."))?;
        for entry in entries {
            let known = ours.iter().find(|name| entry == **name);
            let harmless = match known {
                Some(&(PRIVATE | TEMPLATES | STAGING)) => {
                    // Half-made means empty: the mark comes before any content.
                    let name = entry.to_str().unwrap_or_default();
                    let directory = open_directory(self.directory, name);
                    directory
                        .and_then(|d| names(d.as_fd()))
                        .is_ok_and(|inside| inside.is_empty())
                }
                Some(_) => true,
                None => false,
            };
            if !harmless {
                return Err(LayoutError::NotEmpty {
                    path: self.path.to_owned(),
                    entry,
                });
            }
        }
        Ok(())
    }

    /// Makes what is missing, the mark last: a directory with the mark has the rest.
    pub(crate) fn make(&self) -> Result<(), LayoutError> {
        rustix::fs::fchmod(self.directory, ROOT_ONLY)
            .map_err(|e| self.failed("protect", ".")(e.into()))?;
        for name in [PRIVATE, TEMPLATES, STAGING] {
            make_directory(self.directory, name, ROOT_ONLY).map_err(self.failed("make", name))?;
        }
        if self.mark()?.is_some() {
            return self.check();
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.directory, MARK_NEW, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| self.failed("make", MARK_NEW)(e.into()))?;
        let mut file = std::fs::File::from(file);
        let written = file
            .write_all(MARK_TEXT.as_bytes())
            .and_then(|()| file.sync_all());
        written.map_err(self.failed("write", MARK_NEW))?;
        rustix::fs::renameat(self.directory, MARK_NEW, self.directory, MARK)
            .map_err(|e| self.failed("make", MARK)(e.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_root<T>(look: impl FnOnce(Root<'_>) -> T) -> T {
        let directory = tempfile::tempdir().unwrap();
        let file = std::fs::File::open(directory.path()).unwrap();
        look(Root {
            directory: file.as_fd(),
            path: directory.path(),
        })
    }

    #[test]
    fn an_empty_directory_becomes_a_pool_once() {
        with_root(|root| {
            assert!(matches!(root.check(), Err(LayoutError::NotAPool { .. })));
            root.check_vacant().unwrap();
            root.make().unwrap();
            root.make().unwrap();
            root.check().unwrap();
            root.check_vacant().unwrap();
        });
    }

    #[test]
    fn a_half_made_pool_is_completed() {
        with_root(|root| {
            std::fs::create_dir(root.path.join(PRIVATE)).unwrap();
            std::fs::write(root.path.join(MARK_NEW), "ves").unwrap();
            root.check_vacant().unwrap();
            root.make().unwrap();
            root.check().unwrap();
        });
    }

    #[test]
    fn somebody_elses_directory_is_refused() {
        with_root(|root| {
            std::fs::create_dir(root.path.join(PRIVATE)).unwrap();
            std::fs::write(root.path.join(PRIVATE).join("letter"), "").unwrap();
            assert!(matches!(
                root.check_vacant(),
                Err(LayoutError::NotEmpty { .. })
            ));
        });
        with_root(|root| {
            std::fs::write(root.path.join(MARK), "vessel pool, layout 9\n").unwrap();
            let error = root.check().unwrap_err();
            assert!(error.to_string().contains("layout 9"), "{error}");
        });
    }
}
