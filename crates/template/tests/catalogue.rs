//! The catalogue over time: crashes, removal, garbage, damage, several at once.
#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "all of this program is tests"
)]

mod common;

use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;

use common::{Archive, content, name, scratch, session, told};
use template::{
    Cancel, Catalogue, CatalogueError, DamageKind, ImageTree, ImportError, ImportSource, NodeKind,
    Removed,
};

fn tree(seed: u8) -> Archive {
    Archive::new()
        .file("shared", &content(1, 10_000))
        .file("own", &content(seed, 20_000))
        .file("large", &content(seed, 700_001))
        .file("small", b"in the image")
}

#[test]
fn templates_share_contents_and_go_one_by_one() {
    let scratch = scratch();
    let first = scratch.import_tar("first", tree(2)).unwrap();
    assert_eq!(first.sizes.new_bytes, 730_001);
    assert_eq!(first.sizes.content_bytes, 730_013);
    assert_eq!(first.sizes.inodes, 5);
    let second = scratch.import_tar("second", tree(3)).unwrap();
    assert_eq!(second.sizes.new_bytes, 720_001);
    assert_ne!(first.image.uuid, second.image.uuid);
    let again = scratch.import_tar("again", tree(2)).unwrap();
    assert_eq!((again.sizes.new_bytes, &again.version), (0, &first.version));
    let usage = scratch.catalogue.disk_usage().unwrap();
    assert_eq!((usage.templates, usage.objects), (3, 7));
    assert!(usage.saved_bytes > 730_000, "{usage:?}");

    assert!(scratch.catalogue.contains(&name("first")));
    let Removed::All(garbage) = scratch.catalogue.remove(&name("first")).unwrap() else {
        panic!("nothing else runs");
    };
    // `again` has the same contents and the same image.
    assert_eq!(garbage.objects, 0);
    let Removed::All(garbage) = scratch.catalogue.remove(&name("again")).unwrap() else {
        panic!("nothing else runs");
    };
    assert_eq!(garbage.objects, 3);
    let cancel = Cancel::new();
    let sound = scratch
        .catalogue
        .verify(&name("second"), session(&cancel))
        .unwrap();
    assert!(sound.is_sound());
    assert_eq!(sound.objects, 4);
    assert!(matches!(
        scratch.catalogue.remove(&name("first")),
        Err(CatalogueError::NotFound { .. })
    ));
    scratch.catalogue.remove(&name("second")).unwrap();
    assert!(scratch.objects().is_empty());
}

#[test]
fn taken_names_are_refused() {
    let scratch = scratch();
    scratch.import_tar("one", tree(2)).unwrap();
    let error = scratch.import_tar("one", tree(3)).unwrap_err();
    assert_eq!(
        told(&error),
        "there is a template `one` already; choose another name, or remove it first"
    );
    assert_eq!(scratch.catalogue.list().unwrap().templates.len(), 1);
    assert!(scratch.staging_is_empty());
}

#[test]
fn what_a_crash_leaves_is_swept() {
    let scratch = scratch();
    scratch.import_tar("kept", tree(2)).unwrap();
    let before = scratch.objects().len();
    // An import that died after its contents and before its name: they are there, referred to by
    // nothing but a folder in staging.
    scratch.import_tar("dying", tree(9)).unwrap();
    let path = scratch.catalogue.path().to_owned();
    std::fs::create_dir(path.join("staging/dead")).unwrap();
    std::fs::rename(
        path.join("catalogue/dying"),
        path.join("staging/dead/entry"),
    )
    .unwrap();
    assert!(scratch.objects().len() > before);
    let opened = Catalogue::open(&path).unwrap();
    assert!(scratch.staging_is_empty());
    assert_eq!(scratch.objects().len(), before);
    let names: Vec<String> = opened
        .list()
        .unwrap()
        .templates
        .into_iter()
        .map(|m| m.name)
        .collect();
    assert_eq!(names, ["kept"]);
    // A stray file is swept as well.
    std::fs::write(path.join("staging/file"), "x").unwrap();
    Catalogue::open(&path).unwrap();
    assert!(scratch.staging_is_empty());
}

#[test]
fn work_of_the_living_is_left_alone() {
    let scratch = scratch();
    let path = scratch.catalogue.path().join("staging/living");
    std::fs::create_dir(&path).unwrap();
    let alive = std::fs::File::open(&path).unwrap();
    rustix::fs::flock(&alive, rustix::fs::FlockOperation::LockExclusive).unwrap();
    Catalogue::open(scratch.catalogue.path()).unwrap();
    assert!(path.exists());
    drop(alive);
    Catalogue::open(scratch.catalogue.path()).unwrap();
    assert!(!path.exists());
}

#[test]
fn damage_is_found_and_named() {
    let scratch = scratch();
    scratch.import_tar("one", tree(2)).unwrap();
    let cancel = Cancel::new();
    let of_size = |bytes: u64| {
        let found = scratch
            .objects()
            .into_iter()
            .find(|p| p.metadata().unwrap().len() == bytes);
        found.unwrap()
    };
    let own = std::fs::OpenOptions::new()
        .write(true)
        .open(of_size(20_000))
        .unwrap();
    own.write_all_at(b"!", 5).unwrap();
    std::fs::remove_file(of_size(10_000)).unwrap();
    let large = std::fs::OpenOptions::new()
        .write(true)
        .open(of_size(700_001))
        .unwrap();
    large.set_len(5).unwrap();
    let report = scratch
        .catalogue
        .verify(&name("one"), session(&cancel))
        .unwrap();
    let mut damage: Vec<String> = report.damage.iter().map(ToString::to_string).collect();
    damage.sort();
    assert_eq!(
        damage,
        [
            "/large: 5 bytes instead of 700001",
            "/own: its content has changed",
            "/shared: missing"
        ]
    );
    // Importing the same again heals what is missing or has the wrong length.
    scratch.import_tar("two", tree(2)).unwrap();
    let report = scratch
        .catalogue
        .verify(&name("one"), session(&cancel))
        .unwrap();
    assert_eq!(report.damage.len(), 1);
    assert_eq!(report.damage[0].kind, DamageKind::Content);
}

#[test]
fn damaged_images_are_found_at_start() {
    let scratch = scratch();
    scratch.import_tar("one", tree(2)).unwrap();
    scratch.catalogue.open_layers(&name("one")).unwrap();
    let image = scratch.catalogue.path().join("catalogue/one/image.erofs");
    let bytes = std::fs::read(&image).unwrap();
    std::fs::remove_file(&image).unwrap();
    let open = || told(&scratch.catalogue.open_layers(&name("one")).unwrap_err());
    assert!(open().contains("template `one` is damaged: its image is missing"));
    std::fs::write(&image, &bytes[..bytes.len() - 1]).unwrap();
    assert!(open().contains("another length"));
    let mut other = bytes.clone();
    other[1024 + 50] ^= 1;
    std::fs::write(&image, &other).unwrap();
    assert!(open().contains("not the one that it was made with"));
    let mut broken = bytes;
    broken[1024..1028].fill(0);
    std::fs::write(&image, &broken).unwrap();
    let cancel = Cancel::new();
    let report = scratch
        .catalogue
        .verify(&name("one"), session(&cancel))
        .unwrap();
    assert_eq!(report.damage.len(), 2, "{report:?}");

    let manifest = scratch.catalogue.path().join("catalogue/one/manifest.json");
    std::fs::write(&manifest, "{\"format\": 3}").unwrap();
    let message = told(&scratch.catalogue.get(&name("one")).unwrap_err());
    assert!(
        message.contains("newer version (format 3, this one reads up to 2)"),
        "{message}"
    );
    std::fs::write(&manifest, "{").unwrap();
    let message = told(&scratch.catalogue.get(&name("one")).unwrap_err());
    assert!(
        message.contains("its manifest.json is malformed"),
        "{message}"
    );
    assert_eq!(scratch.catalogue.list().unwrap().broken.len(), 1);
    // What a broken template needs is unknown, so nothing is collected.
    assert!(scratch.catalogue.collect_garbage().is_err());
    let missing = scratch.catalogue.get(&name("none")).unwrap_err();
    assert!(matches!(missing, CatalogueError::NotFound { .. }));
}

#[test]
fn cancelled_work_leaves_nothing() {
    let scratch = scratch();
    let path = scratch.path("tree.tar");
    std::fs::write(&path, tree(2).finish()).unwrap();
    let cancel = Cancel::new();
    cancel.cancel();
    let request = template::ImportRequest {
        name: name("one"),
        source: ImportSource::Tar(path),
    };
    let error = scratch
        .catalogue
        .import(&request, session(&cancel))
        .unwrap_err();
    assert!(
        matches!(error, ImportError::Cancelled { .. }),
        "{}",
        told(&error)
    );
    assert!(scratch.staging_is_empty());
    assert!(scratch.catalogue.list().unwrap().templates.is_empty());
}

#[test]
fn imports_and_removals_at_once_lose_nothing() {
    let scratch = scratch();
    let path = scratch.catalogue.path();
    std::thread::scope(|scope| {
        for worker in 0..4_u8 {
            let archive = scratch.path(&format!("tree-{worker}.tar"));
            scope.spawn(move || {
                let catalogue = Catalogue::open(path).unwrap();
                let cancel = Cancel::new();
                for round in 0..6_u8 {
                    std::fs::write(&archive, tree(10 + (worker + round) % 3).finish()).unwrap();
                    let request = template::ImportRequest {
                        name: name(&format!("t{worker}-{round}")),
                        source: ImportSource::Tar(archive.clone()),
                    };
                    let manifest = catalogue.import(&request, session(&cancel)).unwrap();
                    let made = name(&manifest.name);
                    let report = catalogue.verify(&made, session(&cancel)).unwrap();
                    assert!(report.is_sound(), "{report:?}");
                    if round % 2 == 0 {
                        catalogue.remove(&made).unwrap();
                    }
                }
            });
        }
    });
    let cancel = Cancel::new();
    let listing = scratch.catalogue.list().unwrap();
    assert_eq!((listing.templates.len(), listing.broken.len()), (12, 0));
    scratch.catalogue.collect_garbage().unwrap();
    for manifest in listing.templates {
        let report = scratch
            .catalogue
            .verify(&name(&manifest.name), session(&cancel))
            .unwrap();
        assert!(report.is_sound(), "{report:?}");
    }
    assert!(scratch.staging_is_empty());
}

#[test]
fn manifests_say_the_same_for_ever() {
    let text = r#"{"format":1,"name":"n","version":"v","created_unix_seconds":1,
        "distribution":{"id":"debian","version":"12","codename":null,"pretty_name":null},
        "architecture":"amd64","init":{"kind":"systemd","version":252,"path":"/sbin/init"},
        "packages":{"manager":"dpkg","list":[{"name":"a","version":"1"}]},
        "sizes":{"content_bytes":1,"inodes":2,"new_bytes":3,"image_bytes":4},
        "source":{"from":"packages","suite":"debian-12","codename":"bookworm","packages":[],"mirror":null},
        "image":{"object":"o","sha256":"s","uuid":"u"},
        "first_boot":["machine_id","ssh_host_keys"],"notes":[]}"#;
    let manifest: template::Manifest = serde_json::from_str(text).unwrap();
    let back = serde_json::to_value(&manifest).unwrap();
    let before: serde_json::Value = serde_json::from_str(text).unwrap();
    assert_eq!(back, before);
}

#[test]
fn a_tree_is_read_out_of_its_image() {
    let scratch = scratch();
    let large = content(3, 300_000);
    let archive = Archive::new()
        .directory("usr")
        .directory("usr/lib")
        .file("usr/lib/large", &large)
        .hard_link("usr/lib/second", "usr/lib/large")
        .file("usr/lib/small", b"inline")
        .symlink("lib", "usr/lib")
        .symlink("usr/out", "../../../lib/small")
        .symlink("usr/round", "round");
    scratch.import_tar("t", archive).unwrap();
    let layers = scratch.catalogue.open_layers(&name("t")).unwrap();
    let tree = ImageTree::read(&mut layers.image.into()).unwrap();
    let find = |path| tree.lookup(path);

    let node = find("/lib/large").unwrap();
    assert_eq!(node.kind(), NodeKind::File { size: 300_000 });
    assert_eq!((node.mode(), node.owner()), (0o644, (0, 0)));
    assert_eq!(node.modified(), 1_700_000_000);
    assert_eq!(node.attributes().count(), 0);
    assert_eq!(node.inode(), find("usr/lib/second").unwrap().inode());
    let objects = layers.objects.as_fd();
    assert_eq!(node.bytes(objects, 1 << 20).unwrap(), large);
    assert_eq!(node.bytes(objects, 10).unwrap(), large[..10]);
    let object = rustix::fs::statat(
        objects,
        node.object().unwrap(),
        rustix::fs::AtFlags::empty(),
    );
    assert_eq!(object.unwrap().st_size, 300_000);

    let small = find("/usr/out").unwrap();
    assert_eq!(small.bytes(objects, 100).unwrap(), b"inline");
    assert_eq!(small.object(), None);
    assert!(find("/usr/round").is_none() && find("/usr/lib/none").is_none());
    assert!(find("/usr/lib/large/x").is_none());

    let other = |bytes: &[u8]| {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, bytes).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        file
    };
    let mut longer = large.clone();
    longer.push(0);
    assert!(node.holds(&mut other(&large)).unwrap());
    assert!(!node.holds(&mut other(&longer)).unwrap());
    assert!(!node.holds(&mut other(&content(4, 300_000))).unwrap());
    assert!(small.holds(&mut other(b"inline")).unwrap());
    assert!(!small.holds(&mut other(b"inline2")).unwrap());
}
