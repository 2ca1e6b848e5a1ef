//! Archives as a hostile root of a VE would make them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use tar::Builder;

use super::*;

struct Made {
    folder: tempfile::TempDir,
    builder: Builder<Vec<u8>>,
}

impl Made {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("to")).unwrap();
        fs::create_dir(folder.path().join("outside")).unwrap();
        fs::write(folder.path().join("outside/secret"), "secret").unwrap();
        Self {
            folder,
            builder: Builder::new(Vec::new()),
        }
    }

    /// Adds an entry with a name that the honest way of adding would refuse.
    fn add(&mut self, kind: EntryType, name: &str, link: &str, content: &[u8]) -> &mut Self {
        let mut header = Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o6755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.builder.append(&header, content).unwrap();
        self
    }

    fn unpack(self) -> (tempfile::TempDir, io::Result<Vec<String>>) {
        let bytes = self.builder.into_inner().unwrap();
        let to = self.folder.path().join("to");
        let target = Target::open(&to, 1, "copy".into(), false).unwrap();
        let result = unpack(bytes.as_slice(), target);
        (self.folder, result)
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn an_honest_tree_arrives() {
    let mut made = Made::new();
    made.add(EntryType::Directory, "top/", "", b"")
        .add(EntryType::Regular, "top/deep/file", "", b"content")
        .add(EntryType::Link, "top/twin", "top/deep/file", b"")
        .add(EntryType::Symlink, "top/link", "/etc/passwd", b"")
        .add(EntryType::Char, "top/device", "", b"")
        .add(EntryType::Fifo, "top/pipe", "", b"");
    let (folder, result) = made.unpack();
    assert_eq!(result.unwrap(), ["top/device", "top/pipe"]);
    let copy = folder.path().join("to/copy");
    assert_eq!(fs::read(copy.join("twin")).unwrap(), b"content");
    assert_eq!(
        fs::read_link(copy.join("link")).unwrap(),
        Path::new("/etc/passwd")
    );
    let file = fs::metadata(copy.join("deep/file")).unwrap();
    assert_eq!(
        (file.permissions().mode() & 0o7777, file.nlink()),
        (0o755, 2)
    );
    assert_eq!(
        (file.mtime(), fs::metadata(&copy).unwrap().mtime()),
        (1_000_000_000, 1_000_000_000)
    );
    assert_eq!(
        fs::metadata(&copy).unwrap().permissions().mode() & 0o7777,
        0o755
    );
}

#[test]
fn names_that_lead_out_are_refused() {
    for name in ["/outside/x", "top/../../outside/x", "..", "../outside/x"] {
        let mut made = Made::new();
        made.add(EntryType::Regular, name, "", b"planted");
        let (folder, result) = made.unpack();
        assert!(result.is_err(), "{name}");
        assert_eq!(names(&folder.path().join("outside")), ["secret"], "{name}");
        assert_eq!(names(folder.path()), ["outside", "to"], "{name}");
    }
}

#[test]
fn links_are_never_followed() {
    // A folder that becomes a link to the outside, in the archive itself.
    let mut made = Made::new();
    let outside = made.folder.path().join("outside").display().to_string();
    made.add(EntryType::Symlink, "top/way", &outside, b"").add(
        EntryType::Regular,
        "top/way/planted",
        "",
        b"planted",
    );
    let (folder, result) = made.unpack();
    assert!(result.is_err());
    assert_eq!(names(&folder.path().join("outside")), ["secret"]);
    // The same with a second name of a file outside, reached by the link.
    let mut made = Made::new();
    made.add(EntryType::Symlink, "top/way", &outside, b"").add(
        EntryType::Link,
        "top/theirs",
        "top/way/secret",
        b"",
    );
    let (folder, result) = made.unpack();
    assert!(result.is_err());
    assert!(!folder.path().join("to/copy/theirs").exists());
    // A folder entry with the name of a link.
    let mut made = Made::new();
    made.add(EntryType::Symlink, "top/way", &outside, b"").add(
        EntryType::Directory,
        "top/way",
        "",
        b"",
    );
    let (folder, result) = made.unpack();
    assert!(result.is_err());
    let mode = fs::metadata(folder.path().join("outside"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o755);
    // A second name of a link.
    let mut made = Made::new();
    made.add(EntryType::Symlink, "top/way", "/etc/shadow", b"")
        .add(EntryType::Link, "top/second", "top/way", b"");
    assert!(made.unpack().1.is_err());
}

#[test]
fn a_link_that_was_there_is_replaced_and_not_written_through() {
    let mut made = Made::new();
    let to = made.folder.path().join("to");
    fs::create_dir(to.join("copy")).unwrap();
    symlink(
        made.folder.path().join("outside/secret"),
        to.join("copy/file"),
    )
    .unwrap();
    made.add(EntryType::Regular, "top/file", "", b"new");
    let (folder, result) = made.unpack();
    result.unwrap();
    assert_eq!(
        fs::read(folder.path().join("to/copy/file")).unwrap(),
        b"new"
    );
    assert_eq!(
        fs::read(folder.path().join("outside/secret")).unwrap(),
        b"secret"
    );
}

#[test]
fn one_file_gets_the_name_of_the_target() {
    let mut made = Made::new();
    made.add(EntryType::Regular, "file", "", b"content");
    let (folder, result) = made.unpack();
    result.unwrap();
    assert_eq!(fs::read(folder.path().join("to/copy")).unwrap(), b"content");
}

#[test]
fn what_is_no_archive_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let target = Target::open(folder.path(), 1, "copy".into(), false).unwrap();
    assert!(unpack(&[7_u8; 2_000][..], target).is_err());
}
