//! Where a tree can be imported from, and how each source is read.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::error::ImportError;
use crate::ingest::Ingest;
use crate::manifest::Source;

pub(crate) mod archive;
mod compression;
mod folder;
mod oci;
mod squashfs;
pub(crate) mod tar;

/// What image servers call the two files of a split LXC or Incus image.
const SPLIT_METADATA: [&str; 4] = [
    "incus.tar.xz",
    "lxd.tar.xz",
    "meta.tar.xz",
    "metadata.tar.xz",
];
/// See [`SPLIT_METADATA`].
const SPLIT_ROOTS: [&str; 4] = [
    "rootfs.squashfs",
    "rootfs.tar.xz",
    "rootfs.tar.zst",
    "rootfs.tar.gz",
];

/// What is to be imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImportSource {
    /// A tar archive of a root file system, plain or compressed by gzip, xz or zstd.
    Tar(PathBuf),
    /// A folder with a root file system. Other file systems mounted in it are left out.
    Directory(PathBuf),
    /// An OCI image layout: a folder, or a plain tar archive of one.
    OciLayout {
        /// The layout.
        path: PathBuf,
        /// Tag of the image (`org.opencontainers.image.ref.name`); not needed if it has only one.
        reference: Option<String>,
    },
    /// An image of LXC or Incus.
    LxcImage {
        /// The unified archive (`metadata.yaml` and `rootfs/`) when `metadata` is not given, else the
        /// root file system: a tar archive or a squashfs image.
        rootfs: PathBuf,
        /// The archive with `metadata.yaml` of a split image.
        metadata: Option<PathBuf>,
    },
}

/// A text does not say what to import.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSource {
    /// Pulling from a registry is not there yet.
    #[error(
        "`oci:{reference}` is no folder or file here, and images cannot be pulled from a registry yet; \
         save it as an OCI layout (`skopeo copy docker://{reference} oci:DIR:TAG`) and import `oci:DIR:TAG`"
    )]
    Registry {
        /// What was given after `oci:`.
        reference: String,
    },
    /// No such file.
    #[error("cannot import `{}`: there is no such file or folder", path.display())]
    Missing {
        /// What was given.
        path: PathBuf,
    },
}

impl ImportSource {
    /// Understands what a person gives: `FILE`, `DIR` or `oci:PATH[:TAG]`, and looks at what it is:
    /// a folder with `oci-layout` is an OCI layout, one with `rootfs/` and `metadata.yaml` an
    /// unpacked LXC image, one with the two files of a split LXC image that image; archives are
    /// recognised by the names of their first members.
    ///
    /// # Errors
    /// Refuses what does not exist, and references to a registry.
    pub fn detect(text: &str) -> Result<Self, InvalidSource> {
        if let Some(reference) = text.strip_prefix("oci:") {
            return Self::oci(reference);
        }
        let path = PathBuf::from(text);
        let Ok(metadata) = std::fs::metadata(&path) else {
            return Err(InvalidSource::Missing { path });
        };
        if metadata.is_dir() {
            if path.join("oci-layout").is_file() {
                return Ok(Self::OciLayout {
                    path,
                    reference: None,
                });
            }
            if path.join("metadata.yaml").is_file() && path.join("rootfs").is_dir() {
                return Ok(Self::Directory(path.join("rootfs")));
            }
            let first_of = |names: &[&str]| {
                let mut paths = names.iter().map(|name| path.join(name));
                paths.find(|path| path.is_file())
            };
            if let (Some(rootfs), Some(metadata)) =
                (first_of(&SPLIT_ROOTS), first_of(&SPLIT_METADATA))
            {
                return Ok(Self::LxcImage {
                    rootfs,
                    metadata: Some(metadata),
                });
            }
            return Ok(Self::Directory(path));
        }
        Ok(match archive::recognise(&path) {
            archive::Shape::Tree => Self::Tar(path),
            archive::Shape::Oci => Self::OciLayout {
                path,
                reference: None,
            },
            archive::Shape::Lxc => Self::LxcImage {
                rootfs: path,
                metadata: None,
            },
        })
    }

    fn oci(reference: &str) -> Result<Self, InvalidSource> {
        let layout = |path: &str, reference: Option<&str>| {
            let path = PathBuf::from(path);
            path.exists().then(|| Self::OciLayout {
                path,
                reference: reference.map(str::to_owned),
            })
        };
        layout(reference, None)
            .or_else(|| {
                let (path, tag) = reference.rsplit_once(':')?;
                layout(path, Some(tag))
            })
            .ok_or_else(|| InvalidSource::Registry {
                reference: reference.to_owned(),
            })
    }

    /// What is read, for messages.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Tar(path) | Self::Directory(path) => path,
            Self::OciLayout { path, .. } => path,
            Self::LxcImage { rootfs, .. } => rootfs,
        }
    }

    /// Reads all of it. `staging` is a folder for what cannot be read as a stream.
    pub(crate) fn read(
        &self,
        ingest: &mut Ingest<'_>,
        staging: &Path,
    ) -> Result<Source, ImportError> {
        let origin = self.path().display().to_string();
        match self {
            Self::Tar(path) => {
                archive::read_file(path, ingest, &mut archive::Plain)?;
                Ok(Source::Tar { path: origin })
            }
            Self::Directory(path) => {
                folder::read(path, ingest)?;
                Ok(Source::Directory { path: origin })
            }
            Self::OciLayout { path, reference } => {
                let image = oci::read(path, reference.as_deref(), ingest)?;
                Ok(Source::Oci {
                    path: origin,
                    reference: image.reference,
                    manifest_digest: image.digest,
                    entrypoint: image.entrypoint,
                })
            }
            Self::LxcImage { rootfs, metadata } => {
                let mut lxc = archive::Lxc::default();
                match metadata {
                    None => {
                        archive::read_file(rootfs, ingest, &mut lxc)?;
                        lxc.check(ingest)?;
                    }
                    Some(metadata) => {
                        archive::read_file(metadata, ingest, &mut archive::LxcMetadata(&mut lxc))?;
                        if squashfs::is_one(rootfs) {
                            let folder = squashfs::unpack(rootfs, staging, ingest)?;
                            folder::read(&folder, ingest)?;
                        } else {
                            archive::read_file(rootfs, ingest, &mut archive::Plain)?;
                        }
                    }
                }
                Ok(Source::Lxc {
                    path: origin,
                    properties: lxc.properties(),
                })
            }
        }
    }
}

fn open(path: &Path) -> Result<File, ImportError> {
    File::open(path).map_err(|source| ImportError::Open {
        path: path.to_owned(),
        source,
    })
}

/// The first bytes of a file; fewer if it is shorter.
fn head<const N: usize>(file: &mut File) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(N);
    file.take(N as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}
