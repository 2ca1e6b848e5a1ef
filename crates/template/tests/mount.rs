//! Mounting templates as a launcher does: erofs from a file, objects as data-only layer, overlay with
//! all options. Detached mounts only: they are in nobody's mount table and end with their descriptor.
#![allow(
    clippy::print_stdout,
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "all of this program is tests"
)]

mod common;

use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use common::{content, name, scratch};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_fd,
    fsconfig_set_string, fsmount, fsopen,
};
use template::{ImportSource, Layers};

/// Whether mounting is possible; says why not.
fn can_mount() -> bool {
    match fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC) {
        Ok(_) => true,
        Err(errno) => {
            println!("skipped: this process cannot mount erofs: {errno}");
            false
        }
    }
}

fn at(fd: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

fn mount_image(layers: &Layers) -> OwnedFd {
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    fsconfig_set_string(&context, "source", at(&layers.image).as_os_str()).unwrap();
    fsconfig_create(&context).unwrap();
    fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::MOUNT_ATTR_RDONLY,
    )
    .unwrap()
}

fn open_directory(path: &Path) -> OwnedFd {
    std::fs::create_dir_all(path).unwrap();
    std::fs::File::open(path).unwrap().into()
}

fn mount_overlay(images: &[OwnedFd], objects: &OwnedFd, upper: &Path) -> OwnedFd {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    for image in images {
        fsconfig_set_fd(&context, "lowerdir+", image).unwrap();
    }
    fsconfig_set_fd(&context, "datadir+", objects).unwrap();
    fsconfig_set_fd(&context, "upperdir", open_directory(&upper.join("upper"))).unwrap();
    fsconfig_set_fd(&context, "workdir", open_directory(&upper.join("work"))).unwrap();
    for (key, value) in [
        ("index", "on"),
        ("nfs_export", "on"),
        ("xino", "on"),
        ("redirect_dir", "on"),
    ] {
        fsconfig_set_string(&context, key, value).unwrap();
    }
    fsconfig_create(&context).unwrap();
    fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
    .unwrap()
}

fn make_tree(root: &Path) {
    std::fs::create_dir_all(root.join("usr/bin")).unwrap();
    std::fs::create_dir_all(root.join("etc")).unwrap();
    std::fs::write(root.join("usr/bin/large"), content(1, 3_000_001)).unwrap();
    std::fs::set_permissions(
        root.join("usr/bin/large"),
        PermissionsExt::from_mode(0o4755),
    )
    .unwrap();
    std::fs::hard_link(root.join("usr/bin/large"), root.join("usr/bin/second")).unwrap();
    std::fs::write(root.join("etc/same"), content(2, 5_000)).unwrap();
    std::fs::write(root.join("etc/same-2"), content(2, 5_000)).unwrap();
    std::fs::write(root.join("etc/small"), b"inline").unwrap();
    std::fs::write(root.join("etc/empty"), b"").unwrap();
    symlink("../usr/bin/large", root.join("etc/link")).unwrap();
    let sparse = std::fs::File::create(root.join("etc/sparse")).unwrap();
    sparse.set_len(2 << 20).unwrap();
    // Enough names for a directory of several blocks.
    for number in 0..600 {
        let file = format!("usr/bin/a-rather-long-name-of-a-program-{number:04}");
        std::fs::write(
            root.join(file),
            content(u8::try_from(number % 250).unwrap(), 100),
        )
        .unwrap();
    }
}

/// Compares two trees, names, metadata and contents.
fn compare(expected: &Path, found: &Path) -> usize {
    let mut names: Vec<_> = std::fs::read_dir(expected)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    let mut others: Vec<_> = std::fs::read_dir(found)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    others.sort();
    assert_eq!(names, others);
    let mut count = 0;
    for name in names {
        let (left, right) = (expected.join(&name), found.join(&name));
        let (a, b) = (
            left.symlink_metadata().unwrap(),
            right.symlink_metadata().unwrap(),
        );
        assert_eq!(
            (a.mode(), a.uid(), a.gid()),
            (b.mode(), b.uid(), b.gid()),
            "{left:?}"
        );
        assert_eq!(a.mtime(), b.mtime(), "{left:?}");
        count += 1;
        if a.is_dir() {
            count += compare(&left, &right);
        } else if a.is_symlink() {
            assert_eq!(left.read_link().unwrap(), right.read_link().unwrap());
        } else {
            assert_eq!((a.len(), a.nlink()), (b.len(), b.nlink()), "{left:?}");
            assert!(
                std::fs::read(&left).unwrap() == std::fs::read(&right).unwrap(),
                "{left:?}"
            );
        }
    }
    count
}

#[test]
fn templates_mount_with_every_option() {
    if !can_mount() {
        return;
    }
    let scratch = scratch();
    let root = scratch.path("root");
    make_tree(&root);
    scratch
        .import("one", ImportSource::Directory(root.clone()))
        .unwrap();
    let layers = scratch.catalogue.open_layers(&name("one")).unwrap();
    let image = mount_image(&layers);
    let overlay = mount_overlay(&[image], &layers.objects, &scratch.path("ve"));
    let mounted = at(&overlay);
    assert!(compare(&root, &mounted) > 600);

    // Two names of one inode stay one when one of them is written.
    std::fs::write(mounted.join("usr/bin/second"), b"changed").unwrap();
    assert_eq!(
        std::fs::read(mounted.join("usr/bin/large")).unwrap(),
        b"changed"
    );
    // Two equal files do not.
    std::fs::write(mounted.join("etc/same"), b"changed").unwrap();
    assert_eq!(
        std::fs::read(mounted.join("etc/same-2")).unwrap(),
        content(2, 5_000)
    );
    // Nothing of it reached the template.
    let cancel = template::Cancel::new();
    let report = scratch
        .catalogue
        .verify(&name("one"), common::session(&cancel))
        .unwrap();
    assert!(report.is_sound());
}

/// overlayfs refuses a second layer without a UUID under these options: each image has its own.
///
/// It then refuses to read objects of all layers but a single one (`metacopy` apart), so stacks have to
/// be composed into one image; what lies in the images themselves can be read.
#[test]
fn two_images_lie_over_each_other() {
    if !can_mount() {
        return;
    }
    let scratch = scratch();
    let (first, second) = (scratch.path("first"), scratch.path("second"));
    make_tree(&first);
    std::fs::create_dir_all(second.join("opt")).unwrap();
    std::fs::write(second.join("opt/program"), b"small").unwrap();
    scratch
        .import("first", ImportSource::Directory(first))
        .unwrap();
    scratch
        .import("second", ImportSource::Directory(second))
        .unwrap();
    let one = scratch.catalogue.open_layers(&name("first")).unwrap();
    let two = scratch.catalogue.open_layers(&name("second")).unwrap();
    let images = [mount_image(&two), mount_image(&one)];
    let overlay = mount_overlay(&images, &one.objects, &scratch.path("ve"));
    let mounted = at(&overlay);
    assert_eq!(
        std::fs::read(mounted.join("opt/program")).unwrap(),
        b"small"
    );
    assert_eq!(std::fs::read(mounted.join("etc/small")).unwrap(), b"inline");
}

/// A file system of a few megabytes fills up in the middle of an import.
#[test]
fn a_full_disk_is_named_and_left_as_it_was() {
    if !can_mount() {
        return;
    }
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    fsconfig_set_string(&context, "size", "6m").unwrap();
    fsconfig_create(&context).unwrap();
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    let small = fsmount(&context, flags, MountAttrFlags::empty()).unwrap();
    let catalogue = template::Catalogue::open(at(&small)).unwrap();
    let scratch = scratch();
    let import = |text: &str, archive: common::Archive| {
        let path = scratch.path("archive.tar");
        std::fs::write(&path, archive.finish()).unwrap();
        let request = template::ImportRequest {
            name: name(text),
            source: ImportSource::Tar(path),
        };
        let cancel = template::Cancel::new();
        catalogue.import(&request, common::session(&cancel))
    };
    import(
        "kept",
        common::Archive::new().file("a", &content(1, 100_000)),
    )
    .unwrap();
    let before = catalogue.disk_usage().unwrap();
    let mut large = common::Archive::new();
    for number in 0..20 {
        large = large.file(&format!("file-{number}"), &content(number + 2, 500_000));
    }
    let error = import("large", large).unwrap_err();
    assert_eq!(
        common::told(&error),
        "no space left for the contents of the template; free some space in the pool"
    );
    assert_eq!(catalogue.disk_usage().unwrap(), before);
    import(
        "second",
        common::Archive::new().file("a", &content(9, 100_000)),
    )
    .unwrap();
}
