//! Against the kernel's own overlay: what is read outside is what a process inside sees, and what is given
//! back changes nothing of it. Detached mounts only.
#![allow(
    clippy::print_stdout,
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "all of this program is tests"
)]

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use difference::{Change, Changed, Kind, Merged, give_back, walk};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_fd,
    fsconfig_set_string, fsmount, fsopen,
};
use template::{Cancel, Catalogue, ImageTree, ImportRequest, ImportSource, Layers, Session};
use ve::Name;

/// A template, and a private area over it.
struct Scratch {
    folder: tempfile::TempDir,
    catalogue: Catalogue,
    tree: ImageTree,
}

/// Files of a tree: mode, owner, time, and what is in it. The kernel counts the names in its index as links
/// of what was copied up, so these are not compared.
type Seen = BTreeMap<PathBuf, (u32, u32, i64, Vec<u8>)>;

fn at(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn write(path: &Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
    File::open(path)
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000))
        .unwrap();
}

fn content(seed: u8, length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| u8::try_from(at % 251).unwrap().wrapping_add(seed))
        .collect()
}

fn scratch() -> Scratch {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    write(&source.join("etc/small"), b"inline");
    write(&source.join("etc/large"), &content(1, 100_000));
    write(&source.join("usr/bin/one"), &content(2, 50_000));
    std::fs::hard_link(source.join("usr/bin/one"), source.join("usr/bin/two")).unwrap();
    for name in ["a", "b", "c"] {
        write(&source.join("usr/lib").join(name), &content(3, 30_000));
    }
    write(&source.join("var/lib/dpkg/status"), b"Package: x\n");
    symlink("usr/lib", source.join("lib")).unwrap();
    symlink("small", source.join("etc/link")).unwrap();
    std::fs::create_dir(folder.path().join("templates")).unwrap();
    let catalogue = Catalogue::open(folder.path().join("templates")).unwrap();
    let request = ImportRequest {
        name: Name::new("t").unwrap(),
        source: ImportSource::Directory(source),
    };
    let session = Session {
        progress: &|_| {},
        cancel: &Cancel::new(),
    };
    catalogue.import(&request, session).unwrap();
    std::fs::create_dir_all(folder.path().join("upper")).unwrap();
    std::fs::create_dir_all(folder.path().join("work")).unwrap();
    let layers = catalogue.open_layers(&Name::new("t").unwrap()).unwrap();
    let tree = ImageTree::read(&mut layers.image.into()).unwrap();
    Scratch {
        folder,
        catalogue,
        tree,
    }
}

impl Scratch {
    fn layers(&self) -> Layers {
        self.catalogue
            .open_layers(&Name::new("t").unwrap())
            .unwrap()
    }

    fn open(&self, name: &str) -> OwnedFd {
        File::open(self.folder.path().join(name)).unwrap().into()
    }

    /// Mounts it as the launcher does; nothing where this process may not.
    fn mount(&self) -> Option<OwnedFd> {
        let image = match fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC) {
            Ok(image) => image,
            Err(errno) => {
                println!("skipped: this process cannot mount erofs: {errno}");
                return None;
            }
        };
        let layers = self.layers();
        fsconfig_set_string(&image, "source", at(&layers.image).as_os_str()).unwrap();
        fsconfig_create(&image).unwrap();
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        let image = fsmount(&image, flags, MountAttrFlags::MOUNT_ATTR_RDONLY).unwrap();
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        for (key, layer) in [
            ("lowerdir+", &image),
            ("datadir+", &layers.objects),
            ("upperdir", &self.open("upper")),
            ("workdir", &self.open("work")),
        ] {
            fsconfig_set_fd(&context, key, layer).unwrap();
        }
        for key in ["index", "nfs_export", "xino", "redirect_dir"] {
            fsconfig_set_string(&context, key, "on").unwrap();
        }
        fsconfig_create(&context).unwrap();
        Some(fsmount(&context, flags, MountAttrFlags::empty()).unwrap())
    }

    fn with_merged<T>(&self, look: impl FnOnce(&Merged<'_>) -> T) -> T {
        let (upper, layers) = (self.open("upper"), self.layers());
        look(&Merged {
            upper: Some(upper.as_fd()),
            lower: &self.tree,
            objects: layers.objects.as_fd(),
        })
    }

    fn changes(&self) -> Vec<Changed> {
        let mut changes = Vec::new();
        self.with_merged(|merged| {
            walk(merged, &mut |changed| {
                changes.push(changed.clone());
                Ok(())
            })
            .unwrap()
        });
        changes.sort_by(|a, b| a.path.cmp(&b.path));
        changes
    }

    fn told(&self) -> Vec<String> {
        let changes = self.changes();
        changes
            .iter()
            .map(|c| format!("{:?} {}", c.change, String::from_utf8_lossy(&c.path)))
            .collect()
    }

    fn give_back(&self) -> difference::Compaction {
        let work = self.open("work");
        let image = self.layers().image;
        self.with_merged(|merged| {
            give_back(merged, work.as_fd(), image.as_fd(), &|| false).unwrap()
        })
    }

    /// Bytes of the files of the private area, each inode once.
    fn own_bytes(&self) -> u64 {
        let mut inodes = BTreeMap::new();
        for part in ["upper", "work"] {
            let root = self.folder.path().join(part);
            for (path, _) in see(&root) {
                let found = root.join(path).symlink_metadata().unwrap();
                if found.is_file() {
                    inodes.insert(found.ino(), found.len());
                }
            }
        }
        inodes.values().sum()
    }
}

/// Everything in a tree.
fn see(root: &Path) -> Seen {
    let mut seen = Seen::new();
    let mut left = vec![PathBuf::new()];
    while let Some(folder) = left.pop() {
        for entry in std::fs::read_dir(root.join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            let full = root.join(&path);
            let found = full.symlink_metadata().unwrap();
            let bytes = match found.file_type() {
                kind if kind.is_file() => std::fs::read(&full).unwrap(),
                kind if kind.is_symlink() => std::fs::read_link(&full)
                    .unwrap()
                    .into_os_string()
                    .into_encoded_bytes(),
                _ => Vec::new(),
            };
            seen.insert(
                path.clone(),
                (found.mode(), found.uid(), found.mtime(), bytes),
            );
            if found.is_dir() {
                left.push(path);
            }
        }
    }
    seen
}

/// What hostile and diligent hands do to a tree.
fn change(root: &Path) {
    write(&root.join("etc/new"), b"new");
    write(&root.join("etc/large"), &content(9, 100_000));
    std::fs::remove_file(root.join("usr/lib/a")).unwrap();
    std::fs::set_permissions(root.join("usr/lib/b"), PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::rename(root.join("var/lib/dpkg"), root.join("var/moved")).unwrap();
    std::fs::rename(root.join("usr/lib"), root.join("usr/libx")).unwrap();
    symlink("libx", root.join("usr/lib")).unwrap();
    std::fs::remove_file(root.join("etc/link")).unwrap();
    std::fs::create_dir(root.join("etc/link")).unwrap();
    symlink("/../../../etc/small", root.join("etc/link/out")).unwrap();
}

#[test]
fn outside_is_seen_what_is_seen_inside() {
    let scratch = scratch();
    let Some(mount) = scratch.mount() else { return };
    change(&at(&mount));
    let inside = see(&at(&mount));
    scratch.with_merged(|merged| {
        let mut compared = 0;
        for (path, (mode, _, _, bytes)) in &inside {
            let text = path.to_str().unwrap();
            if mode & 0o170_000 == 0o120_000 {
                continue;
            }
            let place = merged
                .lookup(text)
                .unwrap()
                .unwrap_or_else(|| panic!("{text}"));
            if mode & 0o170_000 == 0o100_000 {
                let found = merged.read(&place, 1 << 20).unwrap().unwrap();
                assert!(found == *bytes, "{text}");
                compared += 1;
            } else {
                let names = merged.names(&place, 100).unwrap();
                let below = std::fs::read_dir(at(&mount).join(path)).unwrap().count();
                assert_eq!(names.len(), below, "{text}");
            }
        }
        assert_eq!(compared, 8);
        for gone in [
            "usr/libx/a",
            "lib/a",
            "var/lib/dpkg/status",
            "etc/link/none",
        ] {
            assert!(merged.lookup(gone).unwrap().is_none(), "{gone}");
        }
        for (path, wanted) in [
            ("lib/b", "usr/libx/b"),
            ("/etc/link/out", "etc/small"),
            ("var/moved/status", "var/moved/status"),
        ] {
            let place = merged.lookup(path).unwrap().unwrap();
            let found = merged.read(&place, 1 << 20).unwrap().unwrap();
            assert!(found == inside[Path::new(wanted)].3, "{path}");
        }
        let large = merged.lookup("etc/large").unwrap().unwrap();
        let refused = merged.read(&large, 1_000).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::FileTooLarge);
    });
}

#[test]
fn every_kind_of_change_is_told() {
    let scratch = scratch();
    let Some(mount) = scratch.mount() else { return };
    change(&at(&mount));
    // A hidden directory: removed, and made again with a part of what was in it.
    std::fs::remove_dir_all(at(&mount).join("usr/bin")).unwrap();
    write(&at(&mount).join("usr/bin/one"), &content(2, 50_000));
    drop(mount);
    assert_eq!(
        scratch.told(),
        [
            "Content etc/large",
            "Kind etc/link",
            "Added etc/link/out",
            "Added etc/new",
            "Equal usr/bin/one",
            "Deleted usr/bin/two",
            "Kind usr/lib",
            "Added usr/libx",
            "Deleted usr/libx/a",
            "Metadata usr/libx/b",
            "Deleted var/lib/dpkg",
            "Added var/moved",
        ]
    );
    let changes = scratch.changes();
    let of = |path: &str| changes.iter().find(|c| c.path == path.as_bytes()).unwrap();
    assert_eq!(
        of("usr/libx").moved_from.as_deref(),
        Some(b"usr/lib".as_slice())
    );
    assert_eq!(
        of("var/moved").moved_from.as_deref(),
        Some(b"var/lib/dpkg".as_slice())
    );
    assert_eq!(of("usr/libx/b").differs, ["mode"]);
    assert_eq!(of("var/lib/dpkg").template_bytes, 11);
    assert_eq!(
        (of("etc/large").size_bytes, of("etc/large").template_bytes),
        (100_000, 100_000)
    );
    assert_eq!(of("etc/link").kind, Kind::Directory);
    // Beneath what hides the template nothing can be given back.
    let kept = scratch.give_back().kept;
    assert_eq!((kept.hidden, kept.linked), (1, 0));
}

#[test]
fn what_became_equal_is_given_back_and_nothing_else_changes() {
    let scratch = scratch();
    let Some(mount) = scratch.mount() else { return };
    let root = at(&mount);
    // Touched and put back as it was, in every way in which that happens.
    for path in ["etc/large", "usr/lib/a"] {
        let whole = std::fs::read(root.join(path)).unwrap();
        write(&root.join(path), b"x");
        write(&root.join(path), &whole);
    }
    // Replaced, as package managers do.
    let whole = std::fs::read(root.join("usr/lib/b")).unwrap();
    write(&root.join("usr/lib/b.new"), &whole);
    std::fs::rename(root.join("usr/lib/b.new"), root.join("usr/lib/b")).unwrap();
    // Hard links of the template, copied up by one of their names.
    let whole = std::fs::read(root.join("usr/bin/one")).unwrap();
    write(&root.join("usr/bin/one"), &whole);
    // A hard link that the VE made: its other name is not the template's.
    let whole = std::fs::read(root.join("usr/lib/c")).unwrap();
    write(&root.join("usr/lib/c"), &whole);
    std::fs::hard_link(root.join("usr/lib/c"), root.join("usr/lib/other")).unwrap();
    // What stays: changed in truth.
    write(&root.join("etc/small"), b"other!");
    std::fs::remove_file(root.join("etc/link")).unwrap();
    symlink("small", root.join("etc/link")).unwrap();
    let before = see(&root);
    drop(mount);

    let equal = |scratch: &Scratch| {
        let changes = scratch.changes();
        changes.iter().filter(|c| c.change == Change::Equal).count()
    };
    assert_eq!(equal(&scratch), 5);
    let bytes_before = scratch.own_bytes();
    let done = scratch.give_back();
    assert_eq!((done.files, done.bytes), (4, 100_000 + 2 * 30_000 + 50_000));
    assert_eq!((done.kept.linked, done.kept.hidden), (1, 0));
    assert_eq!(bytes_before - scratch.own_bytes(), done.bytes);
    assert_eq!(equal(&scratch), 1);
    assert_eq!(scratch.give_back().files, 0);

    let mount = scratch.mount().unwrap();
    let root = at(&mount);
    let after = see(&root);
    assert_eq!(
        after.keys().collect::<Vec<_>>(),
        before.keys().collect::<Vec<_>>()
    );
    for (path, seen) in &after {
        assert!(
            *seen == before[path],
            "{path:?}: {seen:?} was {:?}",
            before[path]
        );
    }
    // It goes on as any tree: what was given back can be changed, linked, removed.
    let (one, two) = (root.join("usr/bin/one"), root.join("usr/bin/two"));
    std::fs::write(&one, b"again").unwrap();
    assert_eq!(std::fs::read(&two).unwrap(), b"again");
    assert_eq!(one.metadata().unwrap().ino(), two.metadata().unwrap().ino());
    std::fs::remove_file(root.join("usr/lib/a")).unwrap();
    std::fs::write(root.join("etc/large"), b"again").unwrap();
    drop(mount);
    let mount = scratch.mount().unwrap();
    assert_eq!(
        std::fs::read(at(&mount).join("etc/large")).unwrap(),
        b"again"
    );
    assert!(!at(&mount).join("usr/lib/a").exists());
}
