//! Reading the tree of a finished template out of its image, without mounting it.
//!
//! For whoever compares: a VE's files with its template's, one version with another. The image is ours
//! and immutable; what lies in it (names, targets of links) came from outside and is hostile.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek as _};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;

use composefs::erofs::reader::erofs_to_filesystem;
use composefs::generic_tree::{LeafContent, Stat};
use composefs::tree::{Directory, FileSystem, Inode, RegularFile};

use crate::image;
use crate::limits::{IMAGE_BYTES_MAX, SYMLINK_HOPS_MAX};
use crate::store::{self, ObjectId};

/// An image could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk failed, or the file is not there.
    #[error("cannot read the template's image")]
    Read(#[source] io::Error),
    /// It is no image of ours.
    #[error("the template's image cannot be understood: {what}")]
    Image {
        /// What the reader says.
        what: String,
    },
}

/// The tree of a template. Takes about 500 bytes of memory for each inode.
#[derive(Debug)]
pub struct ImageTree {
    filesystem: FileSystem<ObjectId>,
    uuid: [u8; 16],
}

/// A place in an [`ImageTree`].
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    tree: &'a ImageTree,
    at: At<'a>,
}

#[derive(Clone, Copy, Debug)]
enum At<'a> {
    Directory(&'a Directory<ObjectId>),
    Leaf(usize),
}

/// What is at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind<'a> {
    /// A directory.
    Directory,
    /// A file with so many bytes.
    File {
        /// Its length.
        size: u64,
    },
    /// A symbolic link.
    Symlink {
        /// Where it leads.
        target: &'a [u8],
    },
    /// A device, a pipe or a socket.
    Special,
}

impl ImageTree {
    /// Reads an image.
    ///
    /// # Errors
    /// When the file cannot be read, or is no image.
    pub fn read(image: &mut File) -> Result<Self, ReadError> {
        let mut bytes = Vec::new();
        image
            .rewind()
            .and_then(|()| image.take(IMAGE_BYTES_MAX).read_to_end(&mut bytes))
            .map_err(ReadError::Read)?;
        let head = bytes.first_chunk().and_then(image::uuid_of);
        let filesystem =
            erofs_to_filesystem::<ObjectId>(&bytes).map_err(|error| ReadError::Image {
                what: format!("{error:#}"),
            })?;
        Ok(Self {
            filesystem,
            uuid: head.unwrap_or_default().into_bytes(),
        })
    }

    /// The UUID in the image's superblock.
    #[must_use]
    pub fn uuid(&self) -> [u8; 16] {
        self.uuid
    }

    /// The root directory.
    #[must_use]
    pub fn root(&self) -> Node<'_> {
        Node {
            tree: self,
            at: At::Directory(&self.filesystem.root),
        }
    }

    /// What a path leads to, links followed within the tree.
    #[must_use]
    pub fn lookup(&self, path: &str) -> Option<Node<'_>> {
        let mut left: Vec<&[u8]> = segments(path.as_bytes());
        let mut way = vec![self.root()];
        let mut hops = 0;
        while let Some(name) = left.pop() {
            if name == b".." {
                if way.len() > 1 {
                    way.pop();
                }
                continue;
            }
            let next = way.last()?.child(name)?;
            let NodeKind::Symlink { target } = next.kind() else {
                way.push(next);
                continue;
            };
            hops += 1;
            if hops > SYMLINK_HOPS_MAX {
                return None;
            }
            if target.starts_with(b"/") {
                way.truncate(1);
            }
            left.extend(segments(target));
        }
        way.pop()
    }
}

/// The names of a path, last first.
fn segments(path: &[u8]) -> Vec<&[u8]> {
    let names = path.split(|byte| *byte == b'/');
    names
        .filter(|name| !matches!(*name, b"" | b"."))
        .rev()
        .collect()
}

impl<'a> Node<'a> {
    /// What is here.
    #[must_use]
    pub fn kind(self) -> NodeKind<'a> {
        match self.at {
            At::Directory(_) => NodeKind::Directory,
            At::Leaf(leaf) => match &self.tree.filesystem.leaves[leaf].content {
                LeafContent::Regular(file) => NodeKind::File {
                    size: file.file_size(),
                },
                LeafContent::Symlink(target) => NodeKind::Symlink {
                    target: target.as_bytes(),
                },
                _ => NodeKind::Special,
            },
        }
    }

    /// What this directory holds under a name; nothing if it is none.
    #[must_use]
    pub fn child(self, name: &[u8]) -> Option<Self> {
        match self.at {
            At::Directory(directory) => directory
                .lookup(OsStr::from_bytes(name))
                .map(|inode| self.at(inode)),
            At::Leaf(_) => None,
        }
    }

    /// What this directory holds, by name.
    pub fn children(self) -> impl Iterator<Item = (&'a [u8], Self)> {
        let directory = match self.at {
            At::Directory(directory) => Some(directory),
            At::Leaf(_) => None,
        };
        directory
            .into_iter()
            .flat_map(Directory::entries)
            .map(move |(name, inode)| (name.as_bytes(), self.at(inode)))
    }

    fn at(self, inode: &'a Inode<ObjectId>) -> Self {
        let at = match inode {
            Inode::Directory(directory) => At::Directory(directory),
            Inode::Leaf(leaf, _) => At::Leaf(leaf.0),
        };
        Self { at, ..self }
    }

    fn stat(self) -> &'a Stat {
        match self.at {
            At::Directory(directory) => &directory.stat,
            At::Leaf(leaf) => &self.tree.filesystem.leaves[leaf].stat,
        }
    }

    /// Permission bits, without the file's type.
    #[must_use]
    pub fn mode(self) -> u32 {
        self.stat().st_mode & 0o7777
    }

    /// User and group.
    #[must_use]
    pub fn owner(self) -> (u32, u32) {
        (self.stat().st_uid, self.stat().st_gid)
    }

    /// When its content changed, in seconds since 1970: an image keeps whole ones.
    #[must_use]
    pub fn modified(self) -> i64 {
        self.stat().st_mtim_sec
    }

    /// Extended attributes, by name.
    pub fn attributes(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let attributes = self.stat().xattrs.iter();
        attributes.map(|(name, value)| (name.as_bytes(), value.as_ref()))
    }

    /// Names one inode of the tree: hard links share it. Directories have none.
    #[must_use]
    pub fn inode(self) -> Option<usize> {
        match self.at {
            At::Directory(_) => None,
            At::Leaf(leaf) => Some(leaf),
        }
    }

    /// The name of a file's content in the store, with the folder; none for what lies in the image itself.
    #[must_use]
    pub fn object(self) -> Option<String> {
        match self.file()? {
            RegularFile::External(id, _) => Some(store::object_path(id)),
            _ => None,
        }
    }

    /// Whether two files of templates of one store have the same content. What is no file has none.
    #[must_use]
    pub fn same_content(self, other: Node<'_>) -> bool {
        match (self.file(), other.file()) {
            (Some(RegularFile::Inline(own)), Some(RegularFile::Inline(its))) => own == its,
            (
                Some(RegularFile::External(own, size)),
                Some(RegularFile::External(its, its_size)),
            ) => own == its && size == its_size,
            _ => false,
        }
    }

    fn file(self) -> Option<&'a RegularFile<ObjectId>> {
        match self.at {
            At::Directory(_) => None,
            At::Leaf(leaf) => match &self.tree.filesystem.leaves[leaf].content {
                LeafContent::Regular(file) => Some(file),
                _ => None,
            },
        }
    }

    /// At most `length` bytes of a file, from the image or out of `objects`, the folder of the store.
    ///
    /// # Errors
    /// `EINVAL` for what is no file, and those of reading an object.
    pub fn bytes(self, objects: BorrowedFd<'_>, length: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match self.file() {
            Some(RegularFile::Inline(inline)) => {
                inline.as_ref().take(length).read_to_end(&mut bytes)?
            }
            Some(RegularFile::External(id, _)) => store::open_object(objects, id)?
                .take(length)
                .read_to_end(&mut bytes)?,
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        };
        Ok(bytes)
    }

    /// Whether a file of the same length holds the same bytes: it is read and hashed once.
    ///
    /// # Errors
    /// Those of reading it.
    pub fn holds(self, other: &mut File) -> io::Result<bool> {
        match self.file() {
            Some(RegularFile::Inline(inline)) => {
                let mut bytes = Vec::new();
                other
                    .take(inline.len() as u64 + 1)
                    .read_to_end(&mut bytes)?;
                Ok(bytes == inline.as_ref())
            }
            // What grows while it is read is not hashed for ever.
            Some(RegularFile::External(id, size)) => {
                Ok(store::hash(&mut other.take(size + 1))? == (id.clone(), *size))
            }
            _ => Ok(false),
        }
    }
}
