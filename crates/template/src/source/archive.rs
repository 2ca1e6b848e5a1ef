//! From the members of an archive to a tree: plain trees, LXC images and layers of OCI images.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use super::compression::{self, CompressionError};
use super::tar::{End, Kind, Member, TarError, TarReader};
use crate::error::{ImportError, MemberError};
use crate::ingest::{Attributes, Ingest};
use crate::limits::LXC_METADATA_BYTES_MAX;
use crate::path::MemberPath;
use crate::tree::Body;

/// What an archive's members mean.
pub(crate) trait Layout {
    /// Where a member belongs in the tree, or `None` if it was dealt with.
    fn place(
        &mut self,
        path: MemberPath,
        content: &mut dyn Read,
        size: u64,
        ingest: &mut Ingest<'_>,
    ) -> Result<Option<MemberPath>, ImportError>;

    /// Where the target of a hard link is in the tree.
    fn place_target(&self, path: MemberPath) -> MemberPath {
        path
    }
}

/// The members are the tree.
pub(crate) struct Plain;

impl Layout for Plain {
    fn place(
        &mut self,
        path: MemberPath,
        _: &mut dyn Read,
        _: u64,
        _: &mut Ingest<'_>,
    ) -> Result<Option<MemberPath>, ImportError> {
        Ok(Some(path))
    }
}

/// A layer of an OCI image: names beginning with `.wh.` hide what lower layers have
/// (OCI image specification, "Whiteouts").
pub(super) struct Layer;

impl Layout for Layer {
    fn place(
        &mut self,
        path: MemberPath,
        _: &mut dyn Read,
        _: u64,
        ingest: &mut Ingest<'_>,
    ) -> Result<Option<MemberPath>, ImportError> {
        let Some((above, name)) = path.split() else {
            return Ok(Some(path));
        };
        let Some(hidden) = name.strip_prefix(b".wh.") else {
            return Ok(Some(path));
        };
        let above = above.join(&b'/');
        let above = ingest.path(&above)?;
        if hidden == b".wh..opq" {
            ingest.tree.hide_all_in(&above);
        } else if matches!(hidden, b"" | b"." | b"..") {
            return Err(ingest.refuse(name, crate::path::InvalidPath::Up));
        } else if !hidden.starts_with(b".wh.") {
            // Names with the prefix twice are AUFS's own book-keeping.
            ingest.tree.hide(&above.join(hidden));
        }
        Ok(None)
    }
}

/// A unified image of LXC or Incus: `metadata.yaml`, `templates/` and the tree in `rootfs/`.
#[derive(Debug, Default)]
pub(super) struct Lxc {
    metadata: Option<Vec<u8>>,
    saw_tree: bool,
}

impl Layout for Lxc {
    fn place(
        &mut self,
        path: MemberPath,
        content: &mut dyn Read,
        size: u64,
        ingest: &mut Ingest<'_>,
    ) -> Result<Option<MemberPath>, ImportError> {
        if let Some(below) = path.below(b"rootfs") {
            self.saw_tree = true;
            return Ok(Some(below));
        }
        if path.to_string() == "/metadata.yaml" {
            if size > LXC_METADATA_BYTES_MAX {
                return Err(ingest.damaged(format!(
                    "its metadata.yaml has more than {LXC_METADATA_BYTES_MAX} bytes"
                )));
            }
            let mut text = Vec::new();
            content
                .read_to_end(&mut text)
                .map_err(|e| ingest.read_error(e))?;
            self.metadata = Some(text);
        }
        Ok(None)
    }

    fn place_target(&self, path: MemberPath) -> MemberPath {
        path.below(b"rootfs").unwrap_or(path)
    }
}

/// The metadata half of a split image: nothing of it belongs into the tree.
pub(super) struct LxcMetadata<'a>(pub(super) &'a mut Lxc);

impl Layout for LxcMetadata<'_> {
    fn place(
        &mut self,
        path: MemberPath,
        content: &mut dyn Read,
        size: u64,
        ingest: &mut Ingest<'_>,
    ) -> Result<Option<MemberPath>, ImportError> {
        self.0.place(path, content, size, ingest)?;
        Ok(None)
    }
}

impl Lxc {
    /// Whether the archive had what an image must have.
    pub(super) fn check(&self, ingest: &Ingest<'_>) -> Result<(), ImportError> {
        if self.saw_tree {
            return Ok(());
        }
        Err(ingest.damaged(
            "it has no `rootfs/`, so it is no unified LXC image; \
             give a split image's two files, or import a plain archive",
        ))
    }

    /// The scalars below `properties:` and at the top of `metadata.yaml`.
    ///
    /// This is no YAML parser: it takes `key: value` lines as every image server writes them, for a
    /// person to read in the manifest. Nothing depends on them.
    pub(super) fn properties(&self) -> BTreeMap<String, String> {
        const LINES_MAX: usize = 1000;
        let text = String::from_utf8_lossy(self.metadata.as_deref().unwrap_or_default());
        let mut inside = false;
        let mut found = BTreeMap::new();
        for line in text.lines().take(LINES_MAX) {
            let nested = line.starts_with([' ', '\t']);
            if !nested {
                inside = line.trim_end() == "properties:";
            }
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            let value = value.trim().trim_matches(['"', '\'']);
            let (key, short) = (key.trim(), value.len() <= 200);
            if (inside || !nested) && short && !value.is_empty() && !key.starts_with('-') {
                found.insert(key.to_owned(), value.to_owned());
            }
        }
        found
    }
}

/// What an archive looks like from its first members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A root file system.
    Tree,
    /// A unified LXC image.
    Lxc,
    /// An OCI layout.
    Oci,
}

/// Looks at the first members of an archive. What cannot be read is called a tree: reading it says
/// what is wrong.
pub(super) fn recognise(path: &Path) -> Shape {
    /// LXC images have `metadata.yaml` first, OCI archives `blobs/` and up to some tens of blobs.
    const MEMBERS: usize = 300;
    let cancel = crate::session::Cancel::new();
    let Ok(file) = super::open(path) else {
        return Shape::Tree;
    };
    let Ok(input) = compression::unpack_file(file, &cancel) else {
        return Shape::Tree;
    };
    let mut reader = TarReader::new(input, End::Stream);
    for _ in 0..MEMBERS {
        let Ok(Some(member)) = reader.next() else {
            break;
        };
        let Ok(path) = MemberPath::parse(&member.name) else {
            break;
        };
        match path.components().first().map(|name| &**name) {
            Some(b"metadata.yaml" | b"rootfs") => return Shape::Lxc,
            Some(b"oci-layout" | b"index.json") => return Shape::Oci,
            None | Some(b"templates" | b"blobs" | b"manifest.json" | b"repositories") => {}
            Some(_) => break,
        }
    }
    Shape::Tree
}

/// Reads an archive file.
pub(super) fn read_file(
    path: &Path,
    ingest: &mut Ingest<'_>,
    layout: &mut dyn Layout,
) -> Result<(), ImportError> {
    ingest.source = path.to_owned();
    let cancel = ingest.session.cancel;
    let input = compression::unpack_file(super::open(path)?, cancel)
        .map_err(|e| compression_error(e, ingest))?;
    read(input, End::Mark, ingest, layout)?;
    Ok(())
}

/// Reads a layer of an OCI image from a stream, to its end.
pub(super) fn read_layer<R: Read + Send>(
    input: R,
    ingest: &mut Ingest<'_>,
) -> Result<(), ImportError> {
    let cancel = ingest.session.cancel;
    let input = compression::unpack(input, cancel).map_err(|e| compression_error(e, ingest))?;
    read(input, End::Stream, ingest, &mut Layer)?;
    Ok(())
}

pub(super) fn compression_error(error: CompressionError, ingest: &Ingest<'_>) -> ImportError {
    match error {
        CompressionError::Read(source) => ingest.read_error(source),
        CompressionError::Unsupported(what) => ImportError::Unsupported {
            path: ingest.source.clone(),
            what: what.to_owned(),
        },
        CompressionError::Program(source) => ImportError::Program {
            path: ingest.source.clone(),
            program: "xz",
            package: "xz-utils",
            source,
        },
    }
}

/// Reads all members of a tar stream.
pub(crate) fn read<R: Read>(
    input: R,
    end: End,
    ingest: &mut Ingest<'_>,
    layout: &mut dyn Layout,
) -> Result<R, ImportError> {
    let mut reader = TarReader::new(input, end);
    let mut members = 0_u64;
    while let Some(member) = reader.next().map_err(|e| tar_error(e, ingest))? {
        ingest.check()?;
        members += 1;
        take(member, &mut reader, ingest, layout)?;
    }
    if members == 0 && end == End::Mark {
        return Err(ingest.damaged("it holds nothing"));
    }
    reader.finish().map_err(|e| tar_error(e, ingest))
}

fn tar_error(error: TarError, ingest: &Ingest<'_>) -> ImportError {
    match error {
        TarError::Read(source) => ingest.read_error(source),
        TarError::Damaged(what) => ingest.damaged(what),
    }
}

fn take<R: Read>(
    member: Member,
    reader: &mut TarReader<R>,
    ingest: &mut Ingest<'_>,
    layout: &mut dyn Layout,
) -> Result<(), ImportError> {
    let name = member.name;
    let path = ingest.path(&name)?;
    let mut content = reader.content();
    let Some(path) = layout.place(path, &mut content, member.size, ingest)? else {
        return Ok(());
    };
    let body = match member.kind {
        Kind::Nothing => return Ok(()),
        Kind::Device => {
            ingest.note("device node left out");
            return Ok(());
        }
        Kind::Unknown(kind) => {
            let kind = char::from(kind);
            return Err(ingest.refuse(&name, MemberError::Kind { kind }));
        }
        Kind::HardLink => {
            let target = layout.place_target(ingest.path(&member.link)?);
            let linked = ingest.tree.hard_link(&path, &target);
            return linked.map_err(|e| ingest.refuse(&name, e));
        }
        Kind::Directory => Body::Directory(BTreeMap::new()),
        Kind::Fifo => Body::Fifo,
        Kind::Symlink => Ingest::symlink(&member.link).map_err(|e| ingest.refuse(&name, e))?,
        Kind::File => {
            let accounted = ingest.account(member.size);
            accounted.map_err(|e| ingest.refuse(&name, e))?;
            ingest.content(&mut content, member.size)?
        }
    };
    let attributes = Attributes {
        mode: member.mode,
        uid: member.uid,
        gid: member.gid,
        mtime: member.mtime,
    };
    let metadata = ingest.metadata(attributes, member.attributes);
    let metadata = metadata.map_err(|e| ingest.refuse(&name, e))?;
    let inserted = ingest.insert(&path, metadata, body);
    inserted.map_err(|e| ingest.refuse(&name, e))
}
