//! Comparing a template with the digests that it was made with.

use std::fs::File;
use std::io::{self, Read as _};

use super::{Catalogue, CatalogueError, IMAGE, TemplateName};
use crate::image;
use crate::limits::IMAGE_BYTES_MAX;
use crate::session::{Progress, Session, Stage};
use crate::store::{self, Health};

/// A verification could not be done. Damage found is no error: see [`Verification`].
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The template is not there or not readable.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// An object could not be read for a reason other than damage.
    #[error("cannot read an object of template `{name}`")]
    Read {
        /// The template.
        name: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It was cancelled.
    #[error("the verification of template `{name}` was cancelled")]
    Cancelled {
        /// The template.
        name: String,
    },
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Objects looked at, the image included.
    pub objects: u64,
    /// Bytes hashed.
    pub bytes: u64,
    /// What is not as it was made. Empty for a sound template.
    pub damage: Vec<Damage>,
}

impl Verification {
    /// Whether nothing is damaged.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }
}

/// One damaged object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// One of the paths that have it in the tree, bytes escaped; `image` for the image.
    pub path: String,
    /// Its name in the store.
    pub object: String,
    /// What is wrong.
    pub kind: DamageKind,
}

/// What is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// It is not there.
    Missing,
    /// It has another length.
    Size {
        /// Bytes it should have.
        expected: u64,
        /// Bytes it has.
        found: u64,
    },
    /// Its bytes are others, or the disk cannot read them.
    Content,
    /// The image cannot be understood, so its objects are unknown.
    Image {
        /// What the reader says.
        what: String,
    },
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: ", self.path)?;
        match &self.kind {
            DamageKind::Missing => write!(f, "missing"),
            DamageKind::Size { expected, found } => {
                write!(f, "{found} bytes instead of {expected}")
            }
            DamageKind::Content => write!(f, "its content has changed"),
            DamageKind::Image { what } => write!(f, "not readable: {what}"),
        }
    }
}

impl Catalogue {
    /// Hashes a template's image and every object of it. Reads all of its bytes from disk.
    ///
    /// # Errors
    /// Fails if there is no such template or reading is refused. Damage is in the result.
    pub fn verify(
        &self,
        name: &impl TemplateName,
        session: Session<'_>,
    ) -> Result<Verification, VerifyError> {
        session.stage(Stage::Verify);
        let manifest = self.get(name)?;
        let mut result = Verification::default();
        let damage_of_image = |kind| Damage {
            path: "image".to_owned(),
            object: manifest.image.object.clone(),
            kind,
        };
        let read_error = |source| VerifyError::Read {
            name: name.to_string(),
            source,
        };
        let mut bytes = Vec::new();
        match File::open(self.entry(name).join(IMAGE)) {
            Ok(file) => file
                .take(IMAGE_BYTES_MAX)
                .read_to_end(&mut bytes)
                .map_err(read_error)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                result.damage.push(damage_of_image(DamageKind::Missing));
                return Ok(result);
            }
            Err(e) => return Err(read_error(e)),
        };
        result.objects += 1;
        result.bytes += bytes.len() as u64;
        if image::sha256(&bytes) != manifest.image.sha256 {
            result.damage.push(damage_of_image(DamageKind::Content));
        }
        let references = match image::objects(&bytes) {
            Ok(references) => references,
            Err(what) => {
                result
                    .damage
                    .push(damage_of_image(DamageKind::Image { what }));
                return Ok(result);
            }
        };
        let objects = store::open_objects(&self.directory).map_err(CatalogueError::from)?;
        for (object, reference) in references {
            if session.cancel.is_cancelled() {
                return Err(VerifyError::Cancelled {
                    name: name.to_string(),
                });
            }
            let health = store::verify(&objects, &reference.id, reference.size);
            let kind = match health.map_err(read_error)? {
                Health::Sound => None,
                Health::Missing => Some(DamageKind::Missing),
                Health::Content => Some(DamageKind::Content),
                Health::Size(found) => Some(DamageKind::Size {
                    expected: reference.size,
                    found,
                }),
            };
            result.objects += 1;
            result.bytes += reference.size;
            result.damage.extend(kind.map(|kind| Damage {
                path: reference.path,
                object,
                kind,
            }));
            if result.objects.is_multiple_of(256) {
                (session.progress)(Progress::Read {
                    inodes: result.objects,
                    content_bytes: result.bytes,
                });
            }
        }
        Ok(result)
    }
}
