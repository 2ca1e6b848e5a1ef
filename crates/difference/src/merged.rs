//! A VE's tree as the VE itself sees it, put together outside: its upper directory over its template.
//!
//! The plain way to read a file of a VE is a process inside (as `vessel cp` does), or another overlay
//! mount. A process costs milliseconds for each of hundreds of VEs, and a second overlay over an upper in
//! use is refused with `index=on`. So the lookup is done here, as the kernel does it: whiteouts,
//! opaque directories, redirects, files of metadata alone, and symbolic links, which lead from this root's
//! own top and never out of it. What the VE mounted over its files is not seen.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::FileType;
use template::{ImageTree, Node, NodeKind};

use crate::upper::{self, Entry, Redirect, Upper};

/// Symbolic links followed on one way (`MAXSYMLINKS` of Linux), and names on it: each holds a descriptor.
const HOPS_MAX: usize = 40;
const NAMES_MAX: usize = 128;

/// A tree of two layers.
#[derive(Clone, Copy, Debug)]
pub struct Merged<'a> {
    /// The upper directory of a private area; a template alone has none.
    pub upper: Option<BorrowedFd<'a>>,
    /// The template's tree.
    pub lower: &'a ImageTree,
    /// The folder of the store of contents.
    pub objects: BorrowedFd<'a>,
}

/// A place in a [`Merged`] tree.
#[derive(Debug)]
pub struct Place<'a> {
    pub(crate) upper: Option<Upper>,
    pub(crate) lower: Option<Node<'a>>,
}

/// Tells one content of a file from another without reading it: while it is equal, so is the content.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Identity {
    /// A content of the template's.
    Template {
        /// Its name in the store; what is in the image itself has none, and is told by its template.
        object: Option<String>,
    },
    /// A file of the VE's own. The kernel changes the last with every write, and nobody can set it.
    Own {
        /// Its file system and number.
        inode: (u64, u64),
        /// Its length.
        size: i64,
        /// When it changed, in seconds and nanoseconds (`st_ctime`).
        changed: (i64, u64),
    },
}

impl<'a> Merged<'a> {
    /// The root directory.
    ///
    /// # Errors
    /// When the upper directory cannot be looked at.
    pub fn root(&self) -> io::Result<Place<'a>> {
        Ok(Place {
            upper: self.upper.map(Upper::root).transpose()?,
            lower: Some(self.lower.root()),
        })
    }

    /// What a directory shows under a name.
    ///
    /// # Errors
    /// When the private area cannot be read.
    pub fn child(&self, parent: &Place<'a>, name: &[u8]) -> io::Result<Option<Place<'a>>> {
        let below = || parent.lower.and_then(|lower| lower.child(name));
        let Some(directory) = parent.upper.as_ref().filter(|upper| upper.is_directory()) else {
            return Ok(below().map(|lower| Place {
                upper: None,
                lower: Some(lower),
            }));
        };
        let directory = directory.open()?;
        match upper::entry(directory.as_fd(), OsStr::from_bytes(name))? {
            Entry::Whiteout => Ok(None),
            Entry::Absent => Ok(below().map(|lower| Place {
                upper: None,
                lower: Some(lower),
            })),
            Entry::There(upper) => {
                let lower = self.lower_of(&upper, parent.lower, name)?;
                Ok(Some(Place {
                    upper: Some(upper),
                    lower,
                }))
            }
        }
    }

    /// What lies below something in the upper layer: what a directory is merged with, or what a file took the
    /// place of.
    pub(crate) fn lower_of(
        &self,
        upper: &Upper,
        parent: Option<Node<'a>>,
        name: &[u8],
    ) -> io::Result<Option<Node<'a>>> {
        if !upper.is_directory() && !upper.is_metacopy()? {
            return Ok(parent.and_then(|parent| parent.child(name)));
        }
        Ok(match upper.redirect()? {
            Redirect::Opaque => None,
            Redirect::None => parent.and_then(|parent| parent.child(name)),
            Redirect::Sibling(name) => parent.and_then(|parent| parent.child(&name)),
            Redirect::Path(path) => path
                .split(|byte| *byte == b'/')
                .filter(|name| !name.is_empty())
                .try_fold(self.lower.root(), Node::child),
        })
    }

    /// What a path leads to; links are followed within this tree.
    ///
    /// # Errors
    /// When the private area cannot be read.
    pub fn lookup(&self, path: &str) -> io::Result<Option<Place<'a>>> {
        let mut left: Vec<Vec<u8>> = names(path.as_bytes());
        let mut way = vec![self.root()?];
        let mut hops = 0;
        while let Some(name) = left.pop() {
            if name == b".." {
                if way.len() > 1 {
                    way.pop();
                }
                continue;
            }
            let Some(parent) = way.last().filter(|_| way.len() <= NAMES_MAX) else {
                return Ok(None);
            };
            let Some(next) = self.child(parent, &name)? else {
                return Ok(None);
            };
            let Some(target) = next.target()? else {
                way.push(next);
                continue;
            };
            hops += 1;
            if hops > HOPS_MAX {
                return Ok(None);
            }
            if target.starts_with(b"/") {
                way.truncate(1);
            }
            left.extend(names(&target));
        }
        Ok(way.pop())
    }

    /// The bytes of a file, if it is one of at most `most`.
    ///
    /// # Errors
    /// `EFBIG` for a longer one; those of reading it.
    pub fn read(&self, place: &Place<'a>, most: u64) -> io::Result<Option<Vec<u8>>> {
        let bytes = match (&place.upper, place.lower) {
            (Some(upper), lower) if upper.file_type().is_file() => match upper.is_metacopy()? {
                false => take(upper.open()?, most)?,
                true => match lower {
                    Some(lower) => lower.bytes(self.objects, most + 1)?,
                    None => return Ok(None),
                },
            },
            (None, Some(lower)) if matches!(lower.kind(), NodeKind::File { .. }) => {
                lower.bytes(self.objects, most + 1)?
            }
            _ => return Ok(None),
        };
        if bytes.len() as u64 > most {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(Some(bytes))
    }

    /// The names in a directory, at most `most`.
    ///
    /// # Errors
    /// When the private area cannot be read.
    pub fn names(&self, place: &Place<'a>, most: usize) -> io::Result<Vec<Vec<u8>>> {
        let mut found: Vec<Vec<u8>> = Vec::new();
        let upper = place.upper.as_ref().filter(|upper| upper.is_directory());
        if let Some(upper) = upper {
            let names = upper.names(most)?.0;
            found.extend(names.iter().map(|name| name.as_bytes().to_vec()));
        }
        let below = place.lower.into_iter().flat_map(Node::children);
        found.extend(below.map(|(name, _)| name.to_vec()).take(most));
        found.sort_unstable();
        found.dedup();
        let mut shown = Vec::new();
        for name in found {
            if self.child(place, &name)?.is_some() {
                shown.push(name);
            }
        }
        Ok(shown)
    }
}

impl Place<'_> {
    /// Where a symbolic link leads.
    fn target(&self) -> io::Result<Option<Vec<u8>>> {
        match (&self.upper, self.lower.map(Node::kind)) {
            (Some(upper), _) => match upper.file_type() {
                FileType::Symlink => upper.target().map(Some),
                _ => Ok(None),
            },
            (None, Some(NodeKind::Symlink { target })) => Ok(Some(target.to_vec())),
            _ => Ok(None),
        }
    }

    /// Tells this file's content from others.
    #[must_use]
    pub fn identity(&self) -> Identity {
        match (&self.upper, self.lower) {
            (Some(Upper { stat, .. }), _) => Identity::Own {
                inode: (stat.st_dev, stat.st_ino),
                size: stat.st_size,
                changed: (stat.st_ctime, stat.st_ctime_nsec),
            },
            (None, lower) => Identity::Template {
                object: lower.and_then(Node::object),
            },
        }
    }
}

/// The names of a path, last first.
fn names(path: &[u8]) -> Vec<Vec<u8>> {
    let names = path.split(|byte| *byte == b'/');
    names
        .filter(|name| !matches!(*name, b"" | b"."))
        .rev()
        .map(<[u8]>::to_vec)
        .collect()
}

/// At most one byte more than `most`.
fn take(file: File, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
