//! OCI image layouts (OCI image specification, "Image Layout"): `index.json` names a manifest, the
//! manifest names layers, all by digest. A layout is a folder, or a tar archive of one that is read
//! in place.
//!
//! Every blob is compared with its digest while it is read. Digests come from hostile JSON, so only
//! `sha256:` and 64 hexadecimal digits are taken, which can be nothing but a file's name.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use composefs::digest::{Digest, Sha256};
use serde::Deserialize;

use super::archive;
use super::tar::{End, Kind, TarError, TarReader};
use crate::error::ImportError;
use crate::image::hexadecimal;
use crate::ingest::Ingest;
use crate::limits::{OCI_DOCUMENT_BYTES_MAX, OCI_LAYERS_MAX};
use crate::path::MemberPath;

/// Annotation with a manifest's tag.
const TAG: &str = "org.opencontainers.image.ref.name";

/// Indexes within indexes: one level for platforms, one to be lenient.
const INDEX_DEPTH_MAX: usize = 3;

/// What was read.
#[derive(Debug)]
pub(super) struct OciImage {
    pub reference: Option<String>,
    pub digest: String,
    pub entrypoint: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: HashMap<String, String>,
    platform: Option<Platform>,
}

#[derive(Clone, Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Debug, Default, Deserialize)]
struct Configuration {
    #[serde(default)]
    config: Option<Process>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Process {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
}

/// Where the blobs of a layout are.
#[derive(Debug)]
enum Layout {
    Folder(PathBuf),
    /// An archive, and where each member's content begins and how long it is.
    Archive(File, HashMap<Vec<u8>, (u64, u64)>),
}

/// Reads one image of a layout, layer over layer.
pub(super) fn read(
    path: &Path,
    reference: Option<&str>,
    ingest: &mut Ingest<'_>,
) -> Result<OciImage, ImportError> {
    ingest.source = path.to_owned();
    let mut layout = Layout::open(path, ingest)?;
    let index: Index = parse(
        &layout.document("index.json", ingest)?,
        "index.json",
        ingest,
    )?;
    let chosen = choose(index.manifests, reference, &mut layout, ingest)?;
    let manifest: Manifest = layout.json(&chosen, ingest)?;
    if manifest.layers.len() > OCI_LAYERS_MAX {
        return Err(ingest.damaged(format!("it has more than {OCI_LAYERS_MAX} layers")));
    }
    let configuration: Configuration = layout.json(&manifest.config, ingest)?;
    for (number, layer) in manifest.layers.iter().enumerate() {
        if !layer.media_type.contains("tar") || layer.media_type.contains("encrypted") {
            return Err(ImportError::Unsupported {
                path: path.to_owned(),
                what: format!(
                    "its layer {} is of the type `{}`; only tar layers that are not encrypted can be read",
                    number + 1,
                    layer.media_type
                ),
            });
        }
        if number > 0 {
            ingest.tree.begin_layer();
        }
        read_layer(layer, &mut layout, ingest)?;
    }
    let process = configuration.config.unwrap_or_default();
    let mut entrypoint = process.entrypoint.unwrap_or_default();
    entrypoint.extend(process.cmd.unwrap_or_default());
    Ok(OciImage {
        reference: chosen.annotations.get(TAG).cloned(),
        digest: chosen.digest,
        entrypoint,
    })
}

fn read_layer(
    layer: &Descriptor,
    layout: &mut Layout,
    ingest: &mut Ingest<'_>,
) -> Result<(), ImportError> {
    let mut blob = layout.blob(layer, ingest)?;
    archive::read_layer(&mut blob, ingest)?;
    blob.check(layer, ingest)
}

/// Follows indexes to the manifest with the tag wanted, for this machine.
fn choose(
    manifests: Vec<Descriptor>,
    reference: Option<&str>,
    layout: &mut Layout,
    ingest: &Ingest<'_>,
) -> Result<Descriptor, ImportError> {
    let tags: Vec<&str> = manifests
        .iter()
        .filter_map(|descriptor| descriptor.annotations.get(TAG).map(String::as_str))
        .collect();
    let tag_of = |descriptor: &Descriptor| descriptor.annotations.get(TAG).cloned();
    let mut matching = manifests
        .iter()
        .filter(|descriptor| reference.is_none() || tag_of(descriptor).as_deref() == reference);
    let (first, second) = (matching.next(), matching.next());
    let mut chosen = match (first, second, reference) {
        (None, _, Some(tag)) => {
            return Err(ingest.damaged(format!("no image is tagged `{tag}`; there are: {tags:?}")));
        }
        (None, ..) => return Err(ingest.damaged("its index names no image")),
        (Some(_), Some(_), None) if !tags.is_empty() => {
            return Err(ImportError::Unsupported {
                path: ingest.source.clone(),
                what: format!("it has several images; give one as `oci:PATH:TAG`: {tags:?}"),
            });
        }
        (Some(first), None, _) => first.clone(),
        (Some(_), Some(_), _) => for_this_machine(&manifests, ingest)?,
    };
    for _ in 0..INDEX_DEPTH_MAX {
        let is_index =
            chosen.media_type.contains("index") || chosen.media_type.contains("manifest.list");
        if !is_index {
            return Ok(chosen);
        }
        let index: Index = layout.json(&chosen, ingest)?;
        let mut next = for_this_machine(&index.manifests, ingest)?;
        next.annotations.extend(chosen.annotations);
        chosen = next;
    }
    Err(ingest.damaged("its indexes lie too deep in each other"))
}

fn for_this_machine(
    manifests: &[Descriptor],
    ingest: &Ingest<'_>,
) -> Result<Descriptor, ImportError> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let fits = |descriptor: &&Descriptor| match &descriptor.platform {
        Some(platform) => platform.os == "linux" && platform.architecture == architecture,
        None => manifests.len() == 1,
    };
    let found = manifests.iter().find(fits).cloned();
    found.ok_or_else(|| ImportError::Unsupported {
        path: ingest.source.clone(),
        what: format!("it has no image for linux/{architecture}, this machine's kind"),
    })
}

fn parse<T: for<'de> Deserialize<'de>>(
    bytes: &[u8],
    what: &str,
    ingest: &Ingest<'_>,
) -> Result<T, ImportError> {
    serde_json::from_slice(bytes).map_err(|e| ingest.damaged(format!("{what} is malformed: {e}")))
}

impl Layout {
    fn open(path: &Path, ingest: &Ingest<'_>) -> Result<Self, ImportError> {
        let mut file = super::open(path)?;
        if path.is_dir() {
            return Ok(Self::Folder(path.to_owned()));
        }
        let head = super::head::<2>(&mut file).map_err(|e| ingest.read_error(e))?;
        if head == [0x1f, 0x8b] || head == [0x28, 0xb5] || head == [0xfd, b'7'] {
            return Err(ImportError::Unsupported {
                path: path.to_owned(),
                what: "an archive of an OCI layout is read in place and must not be compressed; \
                       unpack it first"
                    .to_owned(),
            });
        }
        let members = members(&mut file).map_err(|error| match error {
            TarError::Read(e) => ingest.read_error(e),
            TarError::Damaged(what) => ingest.damaged(what),
        })?;
        if !members.contains_key(b"index.json".as_slice()) {
            return Err(ingest.damaged("it has no index.json, so it is no OCI layout"));
        }
        Ok(Self::Archive(file, members))
    }

    fn document(&mut self, name: &str, ingest: &Ingest<'_>) -> Result<Vec<u8>, ImportError> {
        let input = self.member(name, ingest)?;
        let mut bytes = Vec::new();
        input
            .take(OCI_DOCUMENT_BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| ingest.read_error(e))?;
        if bytes.len() as u64 > OCI_DOCUMENT_BYTES_MAX {
            return Err(ingest.damaged(format!(
                "{name} has more than {OCI_DOCUMENT_BYTES_MAX} bytes"
            )));
        }
        Ok(bytes)
    }

    fn member(
        &mut self,
        name: &str,
        ingest: &Ingest<'_>,
    ) -> Result<Box<dyn Read + Send + '_>, ImportError> {
        let missing = || ingest.damaged(format!("it has no {name}"));
        match self {
            Self::Folder(path) => match File::open(path.join(name)) {
                Ok(file) => Ok(Box::new(file)),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Err(missing()),
                Err(e) => Err(ingest.read_error(e)),
            },
            Self::Archive(file, members) => {
                let (offset, size) = *members.get(name.as_bytes()).ok_or_else(missing)?;
                file.seek(SeekFrom::Start(offset))
                    .map_err(|e| ingest.read_error(e))?;
                Ok(Box::new(file.take(size)))
            }
        }
    }

    fn blob(
        &mut self,
        descriptor: &Descriptor,
        ingest: &Ingest<'_>,
    ) -> Result<Blob<'_>, ImportError> {
        let hexadecimal = descriptor
            .digest
            .strip_prefix("sha256:")
            .filter(|digits| digits.len() == 64)
            .filter(|digits| {
                digits
                    .bytes()
                    .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            })
            .ok_or_else(|| {
                let shown: String = descriptor.digest.escape_debug().take(100).collect();
                ingest.damaged(format!("`{shown}` is no SHA-256 digest"))
            })?;
        Ok(Blob {
            input: self.member(&format!("blobs/sha256/{hexadecimal}"), ingest)?,
            hasher: Sha256::new(),
            size: 0,
        })
    }

    fn json<T: for<'de> Deserialize<'de>>(
        &mut self,
        descriptor: &Descriptor,
        ingest: &Ingest<'_>,
    ) -> Result<T, ImportError> {
        if descriptor.size > OCI_DOCUMENT_BYTES_MAX {
            return Err(ingest.damaged(format!(
                "{} has more than {OCI_DOCUMENT_BYTES_MAX} bytes",
                descriptor.digest
            )));
        }
        let mut blob = self.blob(descriptor, ingest)?;
        let mut bytes = Vec::new();
        (&mut blob)
            .take(descriptor.size)
            .read_to_end(&mut bytes)
            .map_err(|e| ingest.read_error(e))?;
        blob.check(descriptor, ingest)?;
        parse(&bytes, &descriptor.digest, ingest)
    }
}

/// Finds the members of an archive without reading their contents.
fn members(file: &mut File) -> Result<HashMap<Vec<u8>, (u64, u64)>, TarError> {
    file.seek(SeekFrom::Start(0))?;
    let mut found = HashMap::new();
    let counted = Counted {
        input: &*file,
        read: 0,
    };
    let mut reader = TarReader::new(counted, End::Mark);
    while let Some(member) = reader.next()? {
        if member.kind == Kind::File
            && let Ok(path) = MemberPath::parse(&member.name)
        {
            let place = (reader.input().read, member.size);
            found.insert(path.components().join(&b'/'), place);
        }
    }
    Ok(found)
}

/// Knows how far it has read.
struct Counted<'a> {
    input: &'a File,
    read: u64,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.read += count as u64;
        Ok(count)
    }
}

/// A blob that is hashed while it is read.
struct Blob<'a> {
    input: Box<dyn Read + Send + 'a>,
    hasher: Sha256,
    size: u64,
}

impl Blob<'_> {
    /// Reads what is left and compares with the descriptor.
    fn check(mut self, descriptor: &Descriptor, ingest: &Ingest<'_>) -> Result<(), ImportError> {
        io::copy(&mut self, &mut io::sink()).map_err(|e| ingest.read_error(e))?;
        let found = format!("sha256:{}", hexadecimal(&self.hasher.finalize()));
        if self.size != descriptor.size || found != descriptor.digest {
            return Err(ingest.damaged(format!(
                "the content of {} is not what its digest says",
                descriptor.digest
            )));
        }
        Ok(())
    }
}

impl Read for Blob<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.size += count as u64;
        Ok(count)
    }
}
