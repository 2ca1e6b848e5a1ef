//! A template, a private area over it, and the kernel's own overlay of both. Detached mounts only.
#![allow(
    dead_code,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "shared by test programs, each of which uses a part"
)]

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use difference::{Changed, Merged, give_back, walk};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_fd,
    fsconfig_set_string, fsmount, fsopen,
};
use template::{Cancel, Catalogue, ImageTree, ImportRequest, ImportSource, Layers, Session};
use ve::Name;

/// A template, and a private area over it.
pub(crate) struct Scratch {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) catalogue: Catalogue,
    pub(crate) tree: ImageTree,
}

/// Files of a tree: mode, owner, time, and what is in it. The kernel counts the names in its index as links
/// of what was copied up, so these are not compared.
pub(crate) type Seen = BTreeMap<PathBuf, (u32, u32, i64, Vec<u8>)>;

pub(crate) fn at(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

pub(crate) fn write(path: &Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
    File::open(path)
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000))
        .unwrap();
}

pub(crate) fn content(seed: u8, length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| u8::try_from(at % 251).unwrap().wrapping_add(seed))
        .collect()
}

/// Imports a folder as a template.
pub(crate) fn import(catalogue: &Catalogue, name: &str, source: PathBuf) {
    let request = ImportRequest {
        name: Name::new(name).unwrap(),
        source: ImportSource::Directory(source),
    };
    let session = Session {
        progress: &|_| {},
        cancel: &Cancel::new(),
    };
    catalogue.import(&request, session).unwrap();
}

/// The tree of a template.
pub(crate) fn tree_of(catalogue: &Catalogue, name: &str) -> ImageTree {
    let layers = catalogue.open_layers(&Name::new(name).unwrap()).unwrap();
    ImageTree::read(&mut layers.image.into()).unwrap()
}

pub(crate) fn scratch() -> Scratch {
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
    Scratch::on(folder, source)
}

impl Scratch {
    /// Makes the template `t` of a folder, and an empty private area.
    pub(crate) fn on(folder: tempfile::TempDir, source: PathBuf) -> Self {
        std::fs::create_dir(folder.path().join("templates")).unwrap();
        let catalogue = Catalogue::open(folder.path().join("templates")).unwrap();
        import(&catalogue, "t", source);
        std::fs::create_dir_all(folder.path().join("upper")).unwrap();
        std::fs::create_dir_all(folder.path().join("work")).unwrap();
        let tree = tree_of(&catalogue, "t");
        Self {
            folder,
            catalogue,
            tree,
        }
    }

    pub(crate) fn layers(&self) -> Layers {
        self.layers_of("t")
    }

    pub(crate) fn layers_of(&self, template: &str) -> Layers {
        let name = Name::new(template).unwrap();
        self.catalogue.open_layers(&name).unwrap()
    }

    pub(crate) fn open(&self, name: &str) -> OwnedFd {
        File::open(self.folder.path().join(name)).unwrap().into()
    }

    /// Mounts it as the launcher does; nothing where this process may not.
    pub(crate) fn mount(&self) -> Option<OwnedFd> {
        self.mount_on("t")
    }

    /// The same over another template.
    pub(crate) fn mount_on(&self, template: &str) -> Option<OwnedFd> {
        let image = match fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC) {
            Ok(image) => image,
            Err(errno) => {
                println!("skipped: this process cannot mount erofs: {errno}");
                return None;
            }
        };
        let layers = self.layers_of(template);
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

    pub(crate) fn with_merged<T>(&self, look: impl FnOnce(&Merged<'_>) -> T) -> T {
        let (upper, layers) = (self.open("upper"), self.layers());
        look(&Merged {
            upper: Some(upper.as_fd()),
            lower: &self.tree,
            objects: layers.objects.as_fd(),
        })
    }

    pub(crate) fn changes(&self) -> Vec<Changed> {
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

    pub(crate) fn told(&self) -> Vec<String> {
        let changes = self.changes();
        changes
            .iter()
            .map(|c| format!("{:?} {}", c.change, String::from_utf8_lossy(&c.path)))
            .collect()
    }

    pub(crate) fn give_back(&self) -> difference::Compaction {
        let work = self.open("work");
        let image = self.layers().image;
        self.with_merged(|merged| {
            give_back(merged, work.as_fd(), image.as_fd(), &|| false).unwrap()
        })
    }

    /// Bytes of the files of the private area, each inode once.
    pub(crate) fn own_bytes(&self) -> u64 {
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
pub(crate) fn see(root: &Path) -> Seen {
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
