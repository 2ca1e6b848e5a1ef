//! A VE sees the same over another template: against the kernel's own overlay, whatever differs and whatever it did.
#![allow(
    clippy::print_stdout,
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "all of this program is tests"
)]

mod common;

use std::os::fd::AsFd as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use common::{Scratch, Seen, at, content, import, scratch, see, tree_of, write};
use difference::{Preserved, conflicts, forget_lower, preserve};
use proptest::prelude::*;

/// Puts another template below the private area.
fn exchange(scratch: &Scratch, other: &str) -> Preserved {
    let new = tree_of(&scratch.catalogue, other);
    let upper = scratch.open("upper");
    let objects = scratch.layers_of(other).objects;
    let done = preserve(upper.as_fd(), &scratch.tree, &new, objects.as_fd()).unwrap();
    forget_lower(upper.as_fd(), &new).unwrap();
    let work = scratch.folder.path().join("work");
    std::fs::remove_dir_all(&work).unwrap();
    std::fs::create_dir(&work).unwrap();
    done
}

/// Without the times of directories.
fn comparable(seen: Seen) -> Seen {
    let timeless = |(path, (mode, user, time, bytes)): (PathBuf, (u32, u32, i64, Vec<u8>))| {
        let directory = mode & 0o170_000 == 0o040_000;
        (path, (mode, user, if directory { 0 } else { time }, bytes))
    };
    seen.into_iter().map(timeless).collect()
}

fn assert_same(before: &Seen, after: &Seen) {
    let names = |seen: &Seen| seen.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(after), names(before));
    for (path, seen) in after {
        assert!(*seen == before[path], "{}", path.display());
    }
}

#[test]
fn an_upgraded_tree_stays_what_it_is_and_shares_what_is_equal() {
    let scratch = scratch();
    // The other template: what a distribution's upgrade does.
    let source = scratch.folder.path().join("source");
    write(&source.join("etc/large"), &content(7, 100_000));
    write(&source.join("usr/lib/new"), &content(8, 60_000));
    std::fs::remove_file(source.join("usr/lib/c")).unwrap();
    write(&source.join("usr/lib/b"), &content(9, 30_000));
    write(&source.join("var/lib/dpkg/status"), b"Package: y\n");
    import(&scratch.catalogue, "u", source);
    let Some(mount) = scratch.mount() else { return };
    // The VE's own package manager did a part of that, and the VE something else.
    let root = at(&mount);
    write(&root.join("etc/large"), &content(7, 100_000));
    write(&root.join("var/lib/dpkg/status"), b"Package: mine\n");
    write(&root.join("etc/mine"), b"mine");
    let before = comparable(see(&root));
    drop((root, mount));
    let done = exchange(&scratch, "u");
    // What it showed of the old one: two files; and one of the new one that it did not show.
    assert_eq!((done.given, done.given_bytes, done.hidden), (2, 60_000, 1));
    let mount = scratch.mount_on("u").unwrap();
    assert_same(&before, &comparable(see(&at(&mount))));
    drop(mount);
    let (upper, work) = (scratch.open("upper"), scratch.open("work"));
    let (new, layers) = (tree_of(&scratch.catalogue, "u"), scratch.layers_of("u"));
    let merged = difference::Merged {
        upper: Some(upper.as_fd()),
        lower: &new,
        objects: layers.objects.as_fd(),
    };
    let image = layers.image.as_fd();
    let back = difference::give_back(&merged, work.as_fd(), image, &|| false).unwrap();
    assert_eq!((back.files, back.bytes), (1, 100_000));
    let mount = scratch.mount_on("u").unwrap();
    assert_same(&before, &comparable(see(&at(&mount))));
}

#[test]
fn what_stays_is_told_from_what_would_break() {
    let scratch = scratch();
    let source = scratch.folder.path().join("source");
    write(&source.join("etc/small"), b"other");
    write(&source.join("usr/lib/a"), &content(5, 30_000));
    import(&scratch.catalogue, "u", source);
    let Some(mount) = scratch.mount() else { return };
    let root = at(&mount);
    write(&root.join("etc/small"), b"mine");
    std::fs::rename(root.join("usr/lib"), root.join("usr/moved")).unwrap();
    drop((root, mount));
    let new = tree_of(&scratch.catalogue, "u");
    let upper = scratch.open("upper");
    let found = conflicts(upper.as_fd(), &scratch.tree, &new, 100).unwrap();
    let mut told: Vec<_> = found
        .iter()
        .map(|conflict| (String::from_utf8_lossy(&conflict.path), conflict.stays))
        .collect();
    told.sort();
    assert_eq!(
        told,
        [
            ("etc/small".into(), true),
            ("usr/lib".into(), true),
            ("usr/moved".into(), false)
        ]
    );
}

const PATHS: [&str; 10] = [
    "a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "d/e/b", "f", "f/a",
];

/// Something at a path of a tree.
#[derive(Clone, Debug)]
enum Thing {
    File(u8, bool),
    Link,
    Folder,
}

/// Something that a VE does; what cannot be done is left.
#[derive(Clone, Debug)]
enum Deed {
    Put(usize, Thing),
    Remove(usize),
    Move(usize, usize),
    Name(usize, usize),
    Mode(usize),
}

fn thing() -> impl Strategy<Value = Thing> {
    prop_oneof![
        (0..3_u8, any::<bool>()).prop_map(|(seed, large)| Thing::File(seed, large)),
        Just(Thing::Link),
        Just(Thing::Folder),
    ]
}

fn deed() -> impl Strategy<Value = Deed> {
    let path = 0..PATHS.len();
    prop_oneof![
        (path.clone(), thing()).prop_map(|(at, thing)| Deed::Put(at, thing)),
        path.clone().prop_map(Deed::Remove),
        (path.clone(), path.clone()).prop_map(|(from, to)| Deed::Move(from, to)),
        (path.clone(), path.clone()).prop_map(|(from, to)| Deed::Name(from, to)),
        path.prop_map(Deed::Mode),
    ]
}

fn put(path: &Path, thing: &Thing) -> std::io::Result<()> {
    match thing {
        Thing::File(seed, large) => {
            if path.is_dir() || !path.parent().is_some_and(Path::is_dir) {
                return Ok(());
            }
            std::fs::remove_file(path).ok();
            write(path, &content(*seed, if *large { 9_000 } else { 20 }));
            Ok(())
        }
        Thing::Link => symlink("d/e", path),
        Thing::Folder => std::fs::create_dir(path),
    }
}

fn make(root: &Path, things: &[(usize, Thing)]) {
    // An empty folder is no template.
    std::fs::create_dir_all(root.join("z")).unwrap();
    let mut things = things.to_vec();
    things.sort_by_key(|(at, _)| *at);
    for (at, thing) in things {
        let _ = put(&root.join(PATHS[at]), &thing);
    }
}

fn carry_out(root: &Path, deed: &Deed) -> std::io::Result<()> {
    let path = |at: usize| root.join(PATHS[at]);
    match deed {
        Deed::Put(at, thing) => put(&path(*at), thing),
        Deed::Remove(at) => match path(*at).symlink_metadata()?.is_dir() {
            true => std::fs::remove_dir_all(path(*at)),
            false => std::fs::remove_file(path(*at)),
        },
        Deed::Move(from, to) => std::fs::rename(path(*from), path(*to)),
        Deed::Name(from, to) => std::fs::hard_link(path(*from), path(*to)),
        Deed::Mode(at) => {
            if path(*at).symlink_metadata()?.is_symlink() {
                return Ok(());
            }
            std::fs::set_permissions(path(*at), std::fs::Permissions::from_mode(0o700))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_differs_is_seen_as_before(
        old in proptest::collection::vec((0..PATHS.len(), thing()), 0..14),
        new in proptest::collection::vec((0..PATHS.len(), thing()), 0..14),
        deeds in proptest::collection::vec(deed(), 0..8),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (source, other) = (folder.path().join("source"), folder.path().join("other"));
        make(&source, &old);
        make(&other, &new);
        let scratch = Scratch::on(folder, source);
        import(&scratch.catalogue, "u", other);
        let Some(mount) = scratch.mount() else { return Ok(()) };
        for deed in &deeds {
            let _ = carry_out(&at(&mount), deed);
        }
        let before = comparable(see(&at(&mount)));
        drop(mount);
        exchange(&scratch, "u");
        let mount = scratch.mount_on("u").unwrap();
        let after = comparable(see(&at(&mount)));
        prop_assert_eq!(
            before.keys().collect::<Vec<_>>(),
            after.keys().collect::<Vec<_>>()
        );
        for (path, seen) in &after {
            prop_assert!(*seen == before[path], "{}", path.display());
        }
    }
}
