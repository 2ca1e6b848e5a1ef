//! Hostile archives: each is refused, or made harmless, and leaves nothing behind.
#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "all of this program is tests"
)]

mod common;

use common::{Archive, content, scratch, told};
use tar::EntryType;
use template::ImportSource;

/// Imports an archive that must be refused; gives the message.
fn refused(archive: Archive) -> String {
    let scratch = scratch();
    let error = scratch.import_tar("bad", archive).unwrap_err();
    assert!(scratch.staging_is_empty());
    assert!(scratch.catalogue.list().unwrap().templates.is_empty());
    told(&error)
}

#[test]
fn names_that_lead_out_are_refused() {
    for name in ["../etc/passwd", "usr/../../etc/passwd", ".."] {
        let message = refused(Archive::new().file(name, b"x"));
        assert!(message.contains("goes up by `..`"), "{message}");
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn absolute_names_mean_the_root_of_the_tree() {
    let scratch = scratch();
    let archive = Archive::new().file("/etc/passwd", b"root");
    scratch.import_tar("good", archive).unwrap();
    assert_eq!(scratch.paths("good"), ["/etc", "/etc/passwd"]);
}

#[test]
fn links_lead_nowhere_else() {
    let message = refused(Archive::new().hard_link("shadow", "/etc/shadow"));
    assert!(
        message.contains("hard link to something that is no file"),
        "{message}"
    );
    let message = refused(Archive::new().hard_link("x", "../../etc/shadow"));
    assert!(message.contains("goes up"), "{message}");
    let message = refused(Archive::new().directory("d").hard_link("x", "d"));
    assert!(
        message.contains("hard link to something that is no file"),
        "{message}"
    );
    let message = refused(
        Archive::new()
            .symlink("a", "b")
            .symlink("b", "a")
            .file("a/x", b""),
    );
    assert!(
        message.contains("symbolic links lie on its path"),
        "{message}"
    );
    let message = refused(Archive::new().file("a", b"x").file("a/b", b"y"));
    assert!(message.contains("not a directory"), "{message}");
}

#[test]
fn names_through_links_stay_in_the_tree() {
    let scratch = scratch();
    let archive = Archive::new()
        .symlink("out", "/../../../..")
        .file("out/etc/evil", b"x")
        .directory("usr/lib")
        .symlink("lib", "usr/lib")
        .file("lib/libc.so", b"elf");
    scratch.import_tar("good", archive).unwrap();
    assert!(!std::path::Path::new("/etc/evil").exists());
    let paths = scratch.paths("good");
    for path in ["/etc/evil", "/usr/lib/libc.so", "/lib", "/out"] {
        assert!(paths.iter().any(|p| p == path), "{path} in {paths:?}");
    }
}

#[test]
fn devices_are_left_out() {
    let scratch = scratch();
    let mut device = Archive::header(EntryType::Block, b"sda", 0);
    device.set_device_major(8).unwrap();
    device.set_device_minor(0).unwrap();
    let mut whiteout = Archive::header(EntryType::Char, b"whiteout", 0);
    whiteout.set_device_major(0).unwrap();
    whiteout.set_device_minor(0).unwrap();
    let fifo = Archive::header(EntryType::Fifo, b"pipe", 0);
    let archive = Archive::new()
        .entry(device, b"")
        .entry(whiteout, b"")
        .entry(fifo, b"");
    let manifest = scratch.import_tar("good", archive).unwrap();
    assert_eq!(scratch.paths("good"), ["/pipe"]);
    assert!(
        manifest
            .notes
            .contains(&"device node left out (2 times)".to_owned())
    );
}

#[test]
fn attributes_of_overlays_and_of_other_machines_are_dropped() {
    let scratch = scratch();
    let archive = Archive::new()
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc/shadow"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.security.selinux", b"system_u"),
            ("SCHILY.xattr.user.comment", b"kept"),
        ])
        .file("a", b"x");
    let manifest = scratch.import_tar("good", archive).unwrap();
    let line = scratch.line("good", "/a").unwrap();
    assert!(line.ends_with("user.comment=kept"), "{line}");
    assert!(
        !line.contains("overlay") && !line.contains("selinux"),
        "{line}"
    );
    assert_eq!(
        manifest
            .notes
            .iter()
            .filter(|n| n.contains("left out"))
            .count(),
        4
    );
}

#[test]
fn foreign_owners_are_refused() {
    let mut header = Archive::header(EntryType::Regular, b"a", 0);
    header.set_uid(65_536);
    let message = refused(Archive::new().entry(header, b""));
    assert!(
        message.contains("65536:0 is outside 0 to 65535"),
        "{message}"
    );
    let message = refused(Archive::new().pax(&[("gid", b"4294967296")]).file("a", b""));
    assert!(message.contains("0:4294967296"), "{message}");
}

#[test]
fn setuid_stays() {
    let scratch = scratch();
    let mut header = Archive::header(EntryType::Regular, b"su", 1);
    header.set_mode(0o4755);
    scratch
        .import_tar("good", Archive::new().entry(header, b"x"))
        .unwrap();
    let line = scratch.line("good", "/su").unwrap();
    assert!(line.contains(" 104755 "), "{line}");
}

#[test]
fn what_is_too_large_is_refused_before_it_is_read() {
    let huge = Archive::header(EntryType::Regular, b"huge", 17 << 30);
    let scratch = scratch();
    let mut bytes = Archive::new().entry(huge, b"").finish();
    bytes.truncate(512);
    let path = scratch.path("huge.tar");
    std::fs::write(&path, &bytes).unwrap();
    let error = scratch.import("bad", ImportSource::Tar(path)).unwrap_err();
    assert!(told(&error).contains("more than the 17179869184 that one file may have"));

    let message = refused(Archive::new().symlink("a", ""));
    assert!(message.contains("link target is empty"), "{message}");
    let message = refused(
        Archive::new()
            .pax(&[("linkpath", &[b'a'; 1025])])
            .symlink("a", "b"),
    );
    assert!(message.contains("longer than 1024 bytes"), "{message}");
    let message = refused(
        Archive::new()
            .pax(&[("path", &b"d/".repeat(300))])
            .file("a", b""),
    );
    assert!(
        message.contains("more than 256 directories deep"),
        "{message}"
    );
    let message = refused(Archive::new().pax(&[("path", &[b'a'; 300])]).file("a", b""));
    assert!(message.contains("longer than 255 bytes"), "{message}");
    let large = vec![b'v'; 40_000];
    let message = refused(
        Archive::new()
            .pax(&[
                ("SCHILY.xattr.user.a", &large),
                ("SCHILY.xattr.user.b", &large),
            ])
            .file("a", b""),
    );
    assert!(message.contains("65536 bytes of them"), "{message}");
}

#[test]
fn extension_records_cannot_take_all_memory() {
    let long = Archive::header(EntryType::GNULongName, b"././@LongLink", 4 << 30);
    let scratch = scratch();
    let mut bytes = Archive::new().entry(long, b"").finish();
    bytes.truncate(512);
    let path = scratch.path("long.tar");
    std::fs::write(&path, &bytes).unwrap();
    let error = scratch.import("bad", ImportSource::Tar(path)).unwrap_err();
    assert!(told(&error).contains("an extension record has 4294967296 bytes"));
}

#[test]
fn directories_pile_up_through_links_only_so_far() {
    let mut archive = Archive::new();
    let deep = vec!["d"; 49].join("/");
    archive = archive.directory(&deep).symlink("s0", &deep);
    for level in 1..7 {
        let below = format!("s{}/{deep}", level - 1);
        archive = archive.pax(&[("path", below.as_bytes())]).directory("x");
        archive = archive.symlink(&format!("s{level}"), &below);
    }
    let message = refused(archive);
    assert!(
        message.contains("more than 256 directories deep"),
        "{message}"
    );
}

#[test]
fn archives_cut_off_or_damaged_are_refused() {
    let whole = Archive::new()
        .file("a", &content(1, 5_000))
        .file("b", &content(2, 5_000))
        .finish();
    for length in [100, 512, 700, 6_000, 6_144, 8_000, 11_264] {
        let scratch = scratch();
        let path = scratch.path("cut.tar");
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = scratch.import("bad", ImportSource::Tar(path)).unwrap_err();
        let message = told(&error);
        assert!(message.contains("damaged: it ends"), "{length}: {message}");
        assert!(scratch.staging_is_empty());
    }
    let scratch = scratch();
    let path = scratch.path("text");
    std::fs::write(&path, content(3, 2_000)).unwrap();
    let message = told(&scratch.import("bad", ImportSource::Tar(path)).unwrap_err());
    assert!(message.contains("it is no tar archive"), "{message}");
    let path = scratch.path("empty.tar");
    std::fs::write(&path, [0; 10_240]).unwrap();
    let message = told(&scratch.import("bad", ImportSource::Tar(path)).unwrap_err());
    assert!(message.contains("it holds nothing"), "{message}");
    let missing = scratch.import("bad", ImportSource::Tar("/no/such/file".into()));
    assert!(told(&missing.unwrap_err()).contains("cannot open `/no/such/file`: No such file"));
}

#[test]
fn names_need_not_be_text() {
    let scratch = scratch();
    let header = Archive::header(EntryType::Regular, b"a\xff\x01b", 1);
    scratch
        .import_tar("good", Archive::new().entry(header, b"x"))
        .unwrap();
    assert_eq!(scratch.paths("good"), ["/a\\xff\\x01b"]);
}

#[test]
fn sparse_files_are_read_and_their_lies_refused() {
    // Two pages at 1 MiB of a file of 3 MiB, in pax sparse format 1.0.
    let mut stored = b"1\n1048576\n8192\n".to_vec();
    stored.resize(512, 0);
    let piece = content(5, 8192);
    stored.extend(&piece);
    let records = |size: &'static [u8]| -> Vec<(&'static str, &'static [u8])> {
        vec![
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"lastlog"),
            ("GNU.sparse.realsize", size),
        ]
    };
    let scratch = scratch();
    let archive = Archive::new()
        .pax(&records(b"3145728"))
        .file("GNUSparse/x", &stored);
    let manifest = scratch.import_tar("good", archive).unwrap();
    assert_eq!(manifest.sizes.content_bytes, 3 << 20);
    let object = scratch
        .objects()
        .into_iter()
        .find(|path| path.metadata().unwrap().len() == 3 << 20)
        .unwrap();
    let bytes = std::fs::read(object).unwrap();
    assert_eq!(bytes[1 << 20..(1 << 20) + 8192], piece);
    assert!(bytes[..1 << 20].iter().all(|byte| *byte == 0));

    let archive = Archive::new()
        .pax(&records(b"1000"))
        .file("GNUSparse/x", &stored);
    assert!(refused(archive).contains("lie outside it"));
    let archive = Archive::new()
        .pax(&records(b"99999999999"))
        .file("GNUSparse/x", &stored);
    assert!(refused(archive).contains("that one file may have"));
}
