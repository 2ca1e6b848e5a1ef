//! What the tests of this crate share: making archives, importing them, looking at the result.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "tests panic, and each test program uses a part of what is shared here"
)]

use std::path::{Path, PathBuf};

use composefs::erofs::reader::erofs_to_filesystem;
use composefs::fsverity::Sha256HashValue;
use tar::{Builder, EntryType, Header};
use template::{
    Cancel, Catalogue, ImportError, ImportRequest, ImportSource, Manifest, Progress, Session,
};
use ve::Name;

/// A catalogue in a folder of its own.
pub(crate) struct Scratch {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) catalogue: Catalogue,
}

pub(crate) fn scratch() -> Scratch {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("templates")).unwrap();
    let catalogue = Catalogue::open(folder.path().join("templates")).unwrap();
    Scratch { folder, catalogue }
}

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn silent(_: Progress<'_>) {}

/// A session that says nothing.
pub(crate) fn session(cancel: &Cancel) -> Session<'_> {
    Session {
        progress: &silent,
        cancel,
    }
}

impl Scratch {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn import(&self, text: &str, source: ImportSource) -> Result<Manifest, ImportError> {
        let request = ImportRequest {
            name: name(text),
            source,
        };
        self.catalogue.import(&request, session(&Cancel::new()))
    }

    /// Writes an archive and imports it.
    pub(crate) fn import_tar(&self, text: &str, archive: Archive) -> Result<Manifest, ImportError> {
        let path = self.path("archive.tar");
        std::fs::write(&path, archive.finish()).unwrap();
        self.import(text, ImportSource::Tar(path))
    }

    /// A template's tree in composefs' own text form: a line for each name.
    pub(crate) fn dump(&self, text: &str) -> String {
        let image = self.catalogue.path().join("catalogue").join(text);
        let bytes = std::fs::read(image.join("image.erofs")).unwrap();
        let tree = erofs_to_filesystem::<Sha256HashValue>(&bytes).unwrap();
        let mut out = Vec::new();
        composefs::dumpfile::write_dumpfile(&mut out, &tree).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// The line of one path: `PATH SIZE MODE NLINK UID GID RDEV MTIME PAYLOAD CONTENT DIGEST XATTRS`.
    pub(crate) fn line(&self, text: &str, path: &str) -> Option<String> {
        let dump = self.dump(text);
        let found = dump
            .lines()
            .find(|line| line.split(' ').next() == Some(path));
        found.map(str::to_owned)
    }

    /// Paths of a tree, without the root.
    pub(crate) fn paths(&self, text: &str) -> Vec<String> {
        self.dump(text)
            .lines()
            .filter_map(|line| line.split(' ').next())
            .filter(|path| *path != "/")
            .map(str::to_owned)
            .collect()
    }

    pub(crate) fn staging_is_empty(&self) -> bool {
        let staging = self.catalogue.path().join("staging");
        std::fs::read_dir(staging).unwrap().next().is_none()
    }

    pub(crate) fn objects(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let objects = self.catalogue.path().join("store/objects");
        for folder in std::fs::read_dir(objects).unwrap() {
            for object in std::fs::read_dir(folder.unwrap().path()).unwrap() {
                found.push(object.unwrap().path());
            }
        }
        found
    }
}

/// An archive being written, with names that a well-meaning writer refuses.
pub(crate) struct Archive(Builder<Vec<u8>>);

impl Archive {
    pub(crate) fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    pub(crate) fn header(kind: EntryType, name: &[u8], size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(size);
        header
    }

    pub(crate) fn entry(mut self, mut header: Header, content: &[u8]) -> Self {
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    pub(crate) fn file(self, name: &str, content: &[u8]) -> Self {
        let header = Self::header(EntryType::Regular, name.as_bytes(), content.len() as u64);
        self.entry(header, content)
    }

    pub(crate) fn directory(self, name: &str) -> Self {
        let mut header = Self::header(EntryType::Directory, name.as_bytes(), 0);
        header.set_mode(0o755);
        self.entry(header, b"")
    }

    pub(crate) fn link(self, kind: EntryType, name: &str, target: &str) -> Self {
        let mut header = Self::header(kind, name.as_bytes(), 0);
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        self.entry(header, b"")
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.link(EntryType::Symlink, name, target)
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.link(EntryType::Link, name, target)
    }

    /// A pax header for the next entry.
    pub(crate) fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        let records = records.iter().map(|(key, value)| (*key, *value));
        self.0.append_pax_extensions(records).unwrap();
        self
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// Content that is kept as an object: longer than what is kept in the image.
pub(crate) fn content(seed: u8, length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| {
            u8::try_from(at % 251)
                .unwrap()
                .wrapping_mul(7)
                .wrapping_add(seed)
        })
        .collect()
}

/// An error and its causes in one line.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Packs a file by a program; whether the program is there.
pub(crate) fn packed_by(program: &str, path: &Path) -> bool {
    std::process::Command::new(program)
        .args(["--keep", "--force"])
        .arg(path)
        .stderr(std::process::Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
