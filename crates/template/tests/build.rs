//! Building from packages. The whole build fetches 100 MB and is run on request only:
//! `cargo test -p template --test build -- --ignored`.
#![allow(
    clippy::print_stdout,
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "all of this program is tests"
)]

mod common;

use std::time::{Duration, Instant};

use common::{name, scratch, session, told};
use template::manifest::{FirstBoot, InitKind, PackageManager};
use template::{BuildError, BuildRequest, Cancel, ImportError};

fn request(scratch: &common::Scratch, suite: &str, mirror: Option<&str>) -> BuildRequest {
    BuildRequest {
        name: name("built"),
        suite: suite.to_owned(),
        packages: Vec::new(),
        mirror: mirror.map(str::to_owned),
        log: scratch.path("build.log"),
    }
}

/// Whether builds run here; says why not.
fn can_build(error: &BuildError) -> bool {
    if let BuildError::Missing { .. } = error {
        println!("skipped: {error}");
        return false;
    }
    true
}

#[test]
fn a_mirror_that_does_not_answer_is_named() {
    let scratch = scratch();
    let request = request(&scratch, "debian-12", Some("http://127.0.0.1:9/debian"));
    let error = scratch
        .catalogue
        .build(&request, session(&Cancel::new()))
        .unwrap_err();
    if !can_build(&error) {
        return;
    }
    let message = told(&error);
    assert!(
        message.starts_with("building `debian-12` failed: "),
        "{message}"
    );
    assert!(
        message.contains("Could not connect to 127.0.0.1:9"),
        "{message}"
    );
    assert!(message.contains(request.log.to_str().unwrap()), "{message}");
    let log = std::fs::read_to_string(&request.log).unwrap();
    assert!(log.contains("running apt-get update"), "{log}");
    assert!(scratch.staging_is_empty());
    assert!(scratch.catalogue.list().unwrap().templates.is_empty());
}

#[test]
fn a_cancelled_build_ends_at_once() {
    let scratch = scratch();
    // Nobody answers there (RFC 5737), so the build would wait for half a minute.
    let request = request(&scratch, "debian-12", Some("http://192.0.2.1/debian"));
    let cancel = Cancel::new();
    let begin = Instant::now();
    let error = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(800));
            cancel.cancel();
        });
        scratch
            .catalogue
            .build(&request, session(&cancel))
            .unwrap_err()
    });
    if !can_build(&error) {
        return;
    }
    let cancelled = matches!(error, BuildError::Import(ImportError::Cancelled { .. }));
    assert!(cancelled, "{}", told(&error));
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert!(scratch.staging_is_empty());
}

#[test]
fn requests_are_checked_before_anything_runs() {
    let scratch = scratch();
    let refuse = |request: BuildRequest| {
        let error = scratch.catalogue.build(&request, session(&Cancel::new()));
        assert!(!request.log.exists());
        told(&error.unwrap_err())
    };
    let message = refuse(request(&scratch, "--help", None));
    assert!(message.contains("`--help` is no suite"), "{message}");
    let message = refuse(request(&scratch, "debian-12", Some("deb.debian.org")));
    assert!(message.contains("is no mirror"), "{message}");
    let mut bad = request(&scratch, "debian-12", None);
    bad.packages = vec!["nginx".to_owned(), "a,b".to_owned()];
    assert!(refuse(bad).contains("`a,b` is no package name"));
}

#[test]
fn debian_12_is_built() {
    let scratch = scratch();
    let request = request(&scratch, "debian-12", None);
    let manifest = scratch
        .catalogue
        .build(&request, session(&Cancel::new()))
        .unwrap();
    assert_eq!(manifest.distribution.codename.as_deref(), Some("bookworm"));
    let init = manifest.init.as_ref().unwrap();
    assert_eq!(init.kind, InitKind::Systemd { version: Some(252) });
    assert_eq!(manifest.packages.manager, PackageManager::Dpkg);
    assert!(
        manifest
            .packages
            .list
            .iter()
            .any(|p| p.name == "openssh-server")
    );
    assert_eq!(
        manifest.first_boot,
        [FirstBoot::MachineId, FirstBoot::SshHostKeys]
    );
    assert!(
        manifest.sizes.content_bytes < 300_000_000,
        "{:?}",
        manifest.sizes
    );
    let paths = scratch.paths("built");
    for gone in [
        "/etc/resolv.conf",
        "/etc/hostname",
        "/var/log/dpkg.log",
        "/dev/null",
        "/etc/apt/apt.conf.d/99mmdebstrap",
        "/etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    ] {
        assert!(!paths.iter().any(|path| path == gone), "{gone}");
    }
    let leftovers = [
        "/etc/ssh/ssh_host_",
        "/var/lib/apt/lists/deb",
        "/var/cache/apt/archives/a",
    ];
    for path in paths {
        assert!(
            !leftovers.iter().any(|left| path.starts_with(left)),
            "{path}"
        );
    }
    let report = scratch
        .catalogue
        .verify(&name("built"), session(&Cancel::new()))
        .unwrap();
    assert!(report.is_sound());
}
