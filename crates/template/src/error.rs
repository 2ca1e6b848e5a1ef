//! What can go wrong when a tree is taken in.

use std::io;
use std::path::PathBuf;

use crate::catalogue::CatalogueError;
use crate::limits::{
    ATTRIBUTE_BYTES_MAX, ATTRIBUTES_MAX, CONTENT_BYTES_MAX, FILE_BYTES_MAX, SYMLINK_BYTES_MAX,
};
use crate::path::InvalidPath;
use crate::store::StoreError;
use crate::tree::TreeError;

/// An import was refused or failed. The catalogue is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// There is no such file or folder, or it may not be read.
    #[error("cannot open `{}`", path.display())]
    Open {
        /// What was to be imported.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Reading stopped.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// What was being imported.
        path: PathBuf,
        /// Why it stopped.
        #[source]
        source: io::Error,
    },
    /// The source is of a kind that cannot be imported.
    #[error("cannot import `{}`: {what}", path.display())]
    Unsupported {
        /// What was to be imported.
        path: PathBuf,
        /// What it is, and what to do.
        what: String,
    },
    /// The source contradicts itself.
    #[error("`{}` is damaged: {what}", path.display())]
    Damaged {
        /// What was being imported.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// One member cannot be taken.
    #[error("cannot import `{}`: its member `{member}` is refused", path.display())]
    Member {
        /// What was being imported.
        path: PathBuf,
        /// The member's name, non-printable bytes escaped.
        member: String,
        /// Why it is refused.
        #[source]
        source: MemberError,
    },
    /// A program that unpacks this format is missing.
    #[error("cannot unpack `{}`: the program `{program}` does not run; install the package `{package}`", path.display())]
    Program {
        /// What was to be imported.
        path: PathBuf,
        /// The program.
        program: &'static str,
        /// Debian's package that has it.
        package: &'static str,
        /// Why it does not run.
        #[source]
        source: io::Error,
    },
    /// The work was cancelled.
    #[error("the making of template `{name}` was cancelled; nothing of it is left")]
    Cancelled {
        /// The template.
        name: String,
    },
    /// The object store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The catalogue refused or failed.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
}

/// Why one member of a source cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum MemberError {
    /// Its name leads out of the tree or breaks a limit.
    #[error(transparent)]
    Path(#[from] InvalidPath),
    /// It does not fit into the tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// Each VE has ids 0 to 65,535 only.
    #[error("its owner {uid}:{gid} is outside 0 to 65535, the ids that a VE has")]
    Owner {
        /// User id.
        uid: u64,
        /// Group id.
        gid: u64,
    },
    /// One file is too long.
    #[error("it has {size} bytes, more than the {FILE_BYTES_MAX} that one file may have")]
    FileSize {
        /// What it says it has.
        size: u64,
    },
    /// All files together are too long.
    #[error("with it the tree has more than {CONTENT_BYTES_MAX} bytes")]
    ContentSize,
    /// A symbolic link to nothing, with a zero byte, or too long for an image.
    #[error(
        "its link target is empty, has a zero byte or is longer than {SYMLINK_BYTES_MAX} bytes"
    )]
    LinkTarget,
    /// Too many or too long attributes.
    #[error(
        "it has more than {ATTRIBUTES_MAX} extended attributes or {ATTRIBUTE_BYTES_MAX} bytes of them"
    )]
    Attributes,
    /// A type that no system image has.
    #[error("it is of the unknown type {kind:?}")]
    Kind {
        /// The archive's type flag.
        kind: char,
    },
}
