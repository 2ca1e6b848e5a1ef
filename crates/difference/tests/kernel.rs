//! Against the kernel's own overlay: what is read outside is what a process inside sees, and what is given
//! back changes nothing of it. Detached mounts only.
#![allow(
    clippy::print_stdout,
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "all of this program is tests"
)]

mod common;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::path::Path;

use common::{Scratch, at, content, scratch, see, write};
use difference::{Change, Kind};

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
