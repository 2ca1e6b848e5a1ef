//! `vessel cp`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use api::latest::VeState;

use crate::fake::{Served, details};
use crate::{Ran, command, finish, run};

struct Place {
    served: Served,
    inside: PathBuf,
    outside: PathBuf,
}

impl Place {
    fn new() -> Self {
        let served = Served::start();
        served.node.add(details(100, "web", VeState::Running));
        let inside = served.node.files.path().to_owned();
        let outside = served.root().join("outside");
        fs::create_dir(&outside).unwrap();
        Self {
            served,
            inside,
            outside,
        }
    }

    fn cp(&self, from: &str, to: &str) -> Ran {
        let mut copy = command(self.served.root(), &["cp", from, to]);
        copy.current_dir(&self.outside);
        finish(copy, b"")
    }

    fn ok(&self, from: &str, to: &str) {
        let ran = self.cp(from, to);
        assert_eq!(
            (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
            (0, "", ""),
            "{from} {to}"
        );
    }
}

#[test]
fn files_and_folders_go_in_and_come_back() {
    let place = Place::new();
    let content = vec![7; 3_000_000];
    fs::write(place.outside.join("file"), &content).unwrap();
    fs::set_permissions(
        place.outside.join("file"),
        fs::Permissions::from_mode(0o750),
    )
    .unwrap();
    place.ok("file", "web:/");
    place.ok("file", "web:/other");
    let copy = fs::metadata(place.inside.join("other")).unwrap();
    assert_eq!((copy.len(), copy.mode() & 0o777), (3_000_000, 0o750));
    place.ok("web:/file", "back");
    assert!(fs::read(place.outside.join("back")).unwrap() == content);

    fs::create_dir_all(place.outside.join("site/deep/er")).unwrap();
    fs::write(place.outside.join("site/deep/er/page"), "page").unwrap();
    symlink("deep/er/page", place.outside.join("site/link")).unwrap();
    place.ok("site", "100:/srv");
    assert_eq!(
        fs::read_link(place.inside.join("srv/link")).unwrap(),
        PathBuf::from("deep/er/page")
    );
    place.ok("site", "web:/srv/");
    assert_eq!(
        fs::read(place.inside.join("srv/site/deep/er/page")).unwrap(),
        b"page"
    );
    place.ok("web:/srv/site", ".");
    place.ok("web:/srv/site", "new");
    for name in ["site", "new"] {
        let path = place.outside.join(name).join("link");
        assert_eq!(fs::read(path).unwrap(), b"page");
    }
}

#[test]
fn what_cannot_be_copied_is_named() {
    let place = Place::new();
    fs::write(place.outside.join("file"), "x").unwrap();
    for (from, to, code, words) in [
        ("web:/no/such", ".", 3, "`/no/such`"),
        ("no-such", "web:/", 3, "`no-such`"),
        ("file", "web:/no/such/folder/", 3, "/no/such/folder"),
        ("file", "nobody:/", 3, "nobody"),
        ("web:/etc", "missing/new", 3, "`missing`"),
        ("file", "other", 2, "NAME:/PATH"),
        ("web:/a", "web:/b", 2, "pipe"),
        ("web:etc", ".", 2, "web:/etc"),
        ("web:/a/../b", ".", 2, "`..`"),
    ] {
        let ran = place.cp(from, to);
        assert!(
            ran.code == code && ran.stderr.contains(words),
            "{from} {to}: {ran:?}"
        );
        assert!(ran.stdout.is_empty());
    }
    assert_eq!(fs::read_dir(&place.outside).unwrap().count(), 1);
}

#[test]
fn archives_go_through_pipes() {
    let place = Place::new();
    fs::create_dir(place.inside.join("etc")).unwrap();
    fs::write(place.inside.join("etc/hosts"), "hosts").unwrap();
    let mut out = command(place.served.root(), &["cp", "web:/etc", "-"]);
    let archive = out.output().unwrap();
    assert!(archive.status.success());
    fs::create_dir(place.inside.join("copy")).unwrap();
    let ran = finish(
        command(place.served.root(), &["cp", "-", "web:/copy"]),
        &archive.stdout,
    );
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(
        fs::read(place.inside.join("copy/etc/hosts")).unwrap(),
        b"hosts"
    );
    let ran = finish(
        command(place.served.root(), &["cp", "-", "web:/copy"]),
        b"no archive at all",
    );
    assert_eq!(ran.code, 1, "{ran:?}");
}

#[test]
fn half_an_archive_is_no_success() {
    let place = Place::new();
    fs::create_dir(place.outside.join("site")).unwrap();
    fs::write(place.outside.join("site/good"), "good").unwrap();
    // Nobody can copy a pipe; the VE must hear that the archive is not whole.
    let pipe = place.outside.join("site/pipe");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let ran = place.cp("site", "web:/");
    assert!(ran.code == 1 && ran.stderr.contains("site/pipe"), "{ran:?}");
}

#[test]
fn a_daemon_that_dies_in_the_middle_is_a_failure() {
    let place = Place::new();
    // An endless file: the copy goes on until the node is gone.
    let file = fs::File::create(place.inside.join("endless")).unwrap();
    file.set_len(1 << 40).unwrap();
    let mut copy = command(place.served.root(), &["cp", "web:/endless", "-"]);
    copy.stdout(fs::File::create("/dev/null").unwrap())
        .stderr(std::process::Stdio::piped());
    let child = copy.spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    let mut served = place.served;
    served.end();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(8) && text.contains("cut"),
        "{:?} {text}",
        output.status
    );
}

#[test]
fn one_word_is_not_enough() {
    let served = Served::start();
    assert_eq!(run(&served, &["cp", "web:/etc"]).code, 2);
}
