//! The catalogue of templates: building, importing, storing and verifying immutable trees.
//!
//! A template is a tree of files that many VEs share. It is kept as composefs keeps trees: an erofs
//! image with names, owners and modes, over a store of contents named by their digests. Equal
//! contents are one file for all templates, so they are on disk once and in memory once.
//!
//! [`Catalogue`] is the way in: `build` from a distribution's packages, `import` from an archive,
//! folder, OCI layout or LXC image, then `list`, `get`, `verify`, `remove`, and `open_layers` for
//! whoever mounts. This crate mounts nothing and knows nothing of VEs: that a template in use is not
//! removed is up to its caller.
//!
//! What is imported is never unpacked to the host's file system (see `tree`), and what a template may
//! be at most is in [`limits`].
#![forbid(unsafe_code)]

mod archives;
mod build;
mod catalogue;
mod error;
mod image;
mod ingest;
mod inspect;
pub mod limits;
pub mod manifest;
mod path;
mod reading;
mod recipe;
mod restore;
mod scrub;
mod session;
mod source;
mod store;
mod tree;

pub use archives::{Archives, WantedArchive};
pub use build::{BuildError, BuildRequest, InvalidRequest, Words, follow, proxies};
pub use catalogue::{
    Applied, Catalogue, CatalogueError, Damage, DamageKind, DiskUsage, Garbage, ImportRequest,
    KeepRequest, KeepWork, Kept, Layers, Listing, Removed, TemplateName, Verification, VerifyError,
};
pub use error::{ImportError, MemberError};
pub use manifest::Manifest;
pub use path::InvalidPath;
pub use reading::{ImageTree, Node, NodeKind, ReadError};
pub use recipe::{
    ARCHIVES, InvalidOption, InvalidRecipe, Kind, OfferedSetting, PackageJob, PackagePlace,
    PackageTask, Recipe, RecipeFile,
};
pub use session::{Cancel, Progress, Session, Stage};
pub use source::{ImportSource, InvalidSource};
pub use store::StoreError;
pub use tree::TreeError;
