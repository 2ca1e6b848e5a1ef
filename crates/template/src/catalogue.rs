//! The catalogue: all templates of a node.
//!
//! ```text
//! DIR/lock                       flock: shared while contents are added, exclusive while removed
//! DIR/store/                     objects and images (see `store`)
//! DIR/catalogue/NAME/manifest.json
//! DIR/catalogue/NAME/image.erofs another name of the image's object in the store
//! DIR/staging/ID/                unfinished work; its maker holds a flock on the folder
//! ```
//!
//! Invariants:
//! - A folder in `catalogue/` is complete: it is put there by one rename, after everything it needs
//!   is on disk. A template is there whole or not at all, whatever crashes.
//! - Contents are removed only under the exclusive lock, contents are added only under the shared one
//!   and belong to a template in `catalogue/` before it is let go.
//! - Readers take no lock. A template in use is never removed: its user sees to that.
//!
//! Work that died leaves its folder in `staging/`, without the lock on it: [`Catalogue::open`] removes
//! such folders and then the contents that nothing refers to.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use ve::{Name, Stack};

use crate::image;
use crate::manifest::{self, Manifest};
use crate::store::{self, StoreError};

mod keep;
mod lock;
mod make;
mod staging;
mod usage;
mod verify;

pub use keep::{Applied, KeepRequest, KeepWork, Kept};
pub use make::ImportRequest;
pub use usage::DiskUsage;
pub use verify::{Damage, DamageKind, Verification, VerifyError};

pub(crate) use make::finish;
pub(crate) use staging::Staging;

/// Folder of the finished templates.
const ENTRIES: &str = "catalogue";
/// Name of the description in a template's folder.
const MANIFEST: &str = "manifest.json";
/// Name of the image in a template's folder.
const IMAGE: &str = "image.erofs";
/// Bytes of a manifest: 20,000 packages with long names.
const MANIFEST_BYTES_MAX: u64 = 16 << 20;

/// How long a removal waits for imports to end before it leaves the garbage to the next collection.
const REMOVE_PATIENCE: Duration = Duration::from_secs(2);

/// The catalogue refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// No template has this name.
    #[error("there is no template `{name}`; `vessel template list` shows which there are")]
    NotFound {
        /// The name.
        name: String,
    },
    /// The name is taken.
    #[error("there is a template `{name}` already; choose another name, or remove it first")]
    Exists {
        /// The name.
        name: String,
    },
    /// What is on disk is not what was put there.
    #[error("template `{name}` is damaged: {what}; remove it and build or import it anew")]
    Damaged {
        /// The template.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// Made by a newer program.
    #[error(
        "template `{name}` was written by a newer version (format {format}, this one reads up to {}); upgrade this node",
        manifest::FORMAT
    )]
    Newer {
        /// The template.
        name: String,
        /// Its format.
        format: u32,
    },
    /// Somebody else works on the catalogue.
    #[error("templates are being built or imported; try again when that is done")]
    Busy,
    /// A system call failed.
    #[error("cannot {action} `{}`", path.display())]
    System {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The object store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CatalogueError {
    pub(crate) fn system(
        action: &'static str,
        path: &Path,
    ) -> impl FnOnce(io::Error) -> CatalogueError {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::Store(StoreError::Full)
            }
            _ => Self::System {
                action,
                path,
                source,
            },
        }
    }
}

/// What templates are called by: one path component, checked when it was made.
pub trait TemplateName: std::fmt::Display {}

impl TemplateName for Name {}

impl TemplateName for Stack {}

/// The templates in one folder. Cheap to open; any number may be open at once, in any process.
#[derive(Debug)]
pub struct Catalogue {
    path: PathBuf,
    directory: OwnedFd,
}

/// All templates, sorted by name.
#[derive(Debug, Default)]
pub struct Listing {
    /// Templates that can be read.
    pub templates: Vec<Manifest>,
    /// Names that are there but cannot be read, and why.
    pub broken: Vec<(String, CatalogueError)>,
}

/// What the launcher of a VE mounts.
#[derive(Debug)]
pub struct Layers {
    /// The metadata image, open for reading: an erofs file system.
    pub image: OwnedFd,
    /// The folder of objects: the data-only layer below it.
    pub objects: OwnedFd,
}

/// What a garbage collection removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Garbage {
    /// Files removed.
    pub objects: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// What a removal did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// The template and the contents that only it had.
    All(Garbage),
    /// The template. Imports were running, so its contents stay until
    /// [`Catalogue::collect_garbage`].
    ContentsLater,
}

impl Catalogue {
    /// Opens the catalogue in a folder, making it if the folder is empty, and removes what dead work
    /// left there.
    ///
    /// # Errors
    /// Fails if the folder is missing or cannot be written.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CatalogueError> {
        let path = std::path::absolute(path.as_ref())
            .map_err(CatalogueError::system("find", path.as_ref()))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(&path, flags, Mode::empty())
            .map_err(|e| CatalogueError::system("open the folder of templates", &path)(e.into()))?;
        let catalogue = Self { path, directory };
        for (name, mode) in [(ENTRIES, 0o755), (staging::DIRECTORY, 0o711)] {
            match rustix::fs::mkdirat(&catalogue.directory, name, Mode::from_raw_mode(mode)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(errno) => {
                    let path = catalogue.path.join(name);
                    return Err(CatalogueError::system("create", &path)(errno.into()));
                }
            }
        }
        store::prepare(&catalogue.directory)?;
        if catalogue.sweep()? > 0 {
            match catalogue.collect(Duration::ZERO) {
                // Whoever works now may be followed by another collection.
                Ok(_) | Err(CatalogueError::Busy) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(catalogue)
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn entry(&self, name: &impl TemplateName) -> PathBuf {
        self.path.join(ENTRIES).join(name.to_string())
    }

    /// All templates.
    ///
    /// # Errors
    /// Fails if the catalogue cannot be read. A template that cannot be read is listed as broken.
    pub fn list(&self) -> Result<Listing, CatalogueError> {
        let mut listing = Listing::default();
        for text in self.folders()? {
            let Ok(name) = text.parse::<Stack>() else {
                let what = "its folder's name cannot be a template's".to_owned();
                let error = CatalogueError::Damaged {
                    name: text.clone(),
                    what,
                };
                listing.broken.push((text, error));
                continue;
            };
            match self.get(&name) {
                Ok(manifest) => listing.templates.push(manifest),
                // Removed meanwhile.
                Err(CatalogueError::NotFound { .. }) => {}
                Err(error) => listing.broken.push((text, error)),
            }
        }
        Ok(listing)
    }

    /// The names of all templates, readable or not. Opens none of them.
    ///
    /// # Errors
    /// Fails if the catalogue cannot be read.
    pub fn names(&self) -> Result<BTreeSet<Stack>, CatalogueError> {
        let names = self.folders()?.into_iter();
        Ok(names.filter_map(|text| text.parse().ok()).collect())
    }

    /// The names of the templates' folders, sorted.
    fn folders(&self) -> Result<Vec<String>, CatalogueError> {
        let path = self.path.join(ENTRIES);
        let error = || CatalogueError::system("list the templates in", &path);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&path).map_err(error())? {
            let entry = entry.map_err(error())?;
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// Whether a name is taken, be the template readable or not.
    #[must_use]
    pub fn contains(&self, name: &impl TemplateName) -> bool {
        self.entry(name).symlink_metadata().is_ok()
    }

    /// What a template says about itself.
    ///
    /// # Errors
    /// [`CatalogueError::NotFound`], [`CatalogueError::Damaged`] or [`CatalogueError::Newer`].
    pub fn get(&self, name: &impl TemplateName) -> Result<Manifest, CatalogueError> {
        let path = self.entry(name).join(MANIFEST);
        let damaged = |what: String| CatalogueError::Damaged {
            name: name.to_string(),
            what,
        };
        let mut bytes = Vec::new();
        match File::open(&path) {
            Ok(file) => file
                .take(MANIFEST_BYTES_MAX)
                .read_to_end(&mut bytes)
                .map_err(CatalogueError::system("read", &path))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(match self.contains(name) {
                    true => damaged(format!("it has no {MANIFEST}")),
                    false => CatalogueError::NotFound {
                        name: name.to_string(),
                    },
                });
            }
            Err(e) => return Err(CatalogueError::system("open", &path)(e)),
        };
        #[derive(serde::Deserialize)]
        struct Head {
            format: u32,
        }
        let malformed = |e: serde_json::Error| damaged(format!("its {MANIFEST} is malformed: {e}"));
        let head: Head = serde_json::from_slice(&bytes).map_err(malformed)?;
        if head.format > manifest::FORMAT {
            return Err(CatalogueError::Newer {
                name: name.to_string(),
                format: head.format,
            });
        }
        serde_json::from_slice(&bytes).map_err(malformed)
    }

    /// Opens what a launcher mounts: the image as erofs, and over the objects as data-only layer an
    /// overlay (`lowerdir=IMAGE::OBJECTS`).
    ///
    /// Looks only whether the image is the template's by length and UUID, for it is called at every
    /// start; [`Catalogue::verify`] looks at every byte.
    ///
    /// # Errors
    /// [`CatalogueError::NotFound`], or [`CatalogueError::Damaged`] if the image is missing or another.
    pub fn open_layers(&self, name: &impl TemplateName) -> Result<Layers, CatalogueError> {
        let manifest = self.get(name)?;
        let path = self.entry(name).join(IMAGE);
        let damaged = |what: &str| CatalogueError::Damaged {
            name: name.to_string(),
            what: what.to_owned(),
        };
        let image = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(damaged("its image is missing"));
            }
            Err(e) => return Err(CatalogueError::system("open", &path)(e)),
        };
        let found = image
            .metadata()
            .map_err(CatalogueError::system("read", &path))?;
        if found.len() != manifest.sizes.image_bytes {
            return Err(damaged(
                "its image has another length than it was made with",
            ));
        }
        let mut head = [0; image::HEAD_BYTES];
        image
            .read_exact_at(&mut head, 0)
            .map_err(CatalogueError::system("read", &path))?;
        if image::uuid_of(&head).map(|uuid| uuid.to_string()) != Some(manifest.image.uuid) {
            return Err(damaged("its image is not the one that it was made with"));
        }
        Ok(Layers {
            image: image.into(),
            objects: store::open_objects(&self.directory)?,
        })
    }

    /// Opens the folder of contents, below which [`crate::Node::object`] names one.
    ///
    /// # Errors
    /// Those of opening it.
    pub fn open_objects(&self) -> Result<OwnedFd, CatalogueError> {
        Ok(store::open_objects(&self.directory)?)
    }

    /// Removes a template, and then the contents that no other template has.
    ///
    /// The caller has made sure that no VE uses it: mounted or stopped, a VE without its template is
    /// lost.
    ///
    /// # Errors
    /// [`CatalogueError::NotFound`]. Once the template is gone from the catalogue it stays gone, also if
    /// removing its contents then fails.
    pub fn remove(&self, name: &impl TemplateName) -> Result<Removed, CatalogueError> {
        let staging = Staging::create(self)?;
        let entry = self.entry(name);
        match std::fs::rename(&entry, staging.path().join("removed")) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(CatalogueError::NotFound {
                    name: name.to_string(),
                });
            }
            Err(e) => return Err(CatalogueError::system("remove", &entry)(e)),
        }
        drop(staging);
        match self.collect(REMOVE_PATIENCE) {
            Ok(garbage) => Ok(Removed::All(garbage)),
            Err(CatalogueError::Busy) => Ok(Removed::ContentsLater),
            Err(error) => Err(error),
        }
    }

    /// Removes all contents that no template refers to, if nothing is being imported.
    ///
    /// # Errors
    /// [`CatalogueError::Busy`] while something is being imported; and fails, removing nothing, if any
    /// template cannot be read: what it needs would be unknown.
    pub fn collect_garbage(&self) -> Result<Garbage, CatalogueError> {
        self.collect(Duration::ZERO)
    }

    fn collect(&self, patience: Duration) -> Result<Garbage, CatalogueError> {
        let _lock = lock::exclusive(self, patience)?;
        let listing = self.list()?;
        if let Some((_, error)) = listing.broken.into_iter().next() {
            return Err(error);
        }
        let images: Vec<&str> = listing
            .templates
            .iter()
            .map(|manifest| manifest.image.object.as_str())
            .collect();
        let (objects, bytes) = store::collect_garbage(&self.directory, &images)?;
        Ok(Garbage { objects, bytes })
    }
}
