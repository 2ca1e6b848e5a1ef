//! Verbs that change something: for one VE, for many, and what is refused.

use api::latest::VeState;

use crate::fake::{Served, details};
use crate::{run, run_with_input, snapshot};

#[test]
fn a_life() {
    let served = Served::start();
    snapshot(
        "life",
        &served,
        &[
            &["create", "web", "--template", "debian-12", "--start"],
            &["start", "web"],
            &["pause", "web"],
            &["resume", "web"],
            &["resume", "web"],
            &["restart", "web"],
            &["set", "web", "memory.limit=1G", "hostname=www"],
            &["set", "web", "hostname=www", "--json"],
            &["set", "web", "io.write.limit=10M"],
            &["set", "web", "--add-label", "tier=front"],
            &["delete", "web"],
            &["stop", "web", "--timeout", "5s"],
            &["delete", "web", "--json"],
            &["delete", "web"],
        ],
    );
}

#[test]
fn refusals() {
    let served = Served::start();
    served.node.add(details(100, "web", VeState::Stopped));
    served.node.add(details(101, "dead", VeState::Stopped));
    served.node.add(details(102, "lazy", VeState::Stopped));
    served.node.add(details(103, "broken", VeState::Stopped));
    snapshot(
        "refusals",
        &served,
        &[
            &["create", "web", "--template", "debian-12"],
            &["create", "new", "--template", "none"],
            &["create", "New", "--template", "debian-12"],
            &[
                "create",
                "new",
                "--template",
                "debian-12",
                "--set",
                "memry.limit=1G",
            ],
            &[
                "create",
                "new",
                "--template",
                "debian-12",
                "--label",
                "team",
            ],
            &[
                "create",
                "new",
                "--template",
                "debian-12",
                "--ssh-key",
                "/no/such",
            ],
            &[
                "create",
                "new",
                "--template",
                "debian-12",
                "--count",
                "1000000",
            ],
            &[
                "create",
                "new",
                "--template",
                "debian-12",
                "--count",
                "2",
                "--address",
                "10.99.0.9",
            ],
            &["set", "web", "memry.limit=1G"],
            &["set", "web"],
            &["set", "memory.limit=1G"],
            &["set", "web", "--all", "memory.limit=1G"],
            &["start", "dead"],
            &["start", "lazy", "--timeout", "1s"],
            &["start", "broken", "--json"],
            &["pause", "web"],
            &["stop", "web", "--timeout", "soon"],
            &["template", "import", "/no/such", "--name", "x"],
            &["template", "build", "debian-0"],
            &["template", "remove", "debian-12"],
            &["node", "destroy"],
        ],
    );
}

#[test]
fn many_at_once() {
    let served = Served::start();
    let ran = run(
        &served,
        &[
            "create",
            "web",
            "--template",
            "debian-12",
            "--count",
            "40",
            "--start",
        ],
    );
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    let mut names: Vec<&str> = ran.stdout.lines().collect();
    names.sort_unstable();
    let mut expected: Vec<String> = (1..=40).map(|n| format!("web-{n}")).collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
    let ran = run(&served, &["stop", "--all"]);
    assert_eq!((ran.code, ran.stdout.lines().count()), (0, 40));
    assert!(
        ran.stdout.lines().all(|line| line.ends_with(" stopped")),
        "{ran:?}"
    );
    // Nothing is left to stop, which is no failure.
    let ran = run(&served, &["stop", "--all"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""));
    let ran = run(&served, &["delete", "--label", "team=none"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""));
    let ran = run(&served, &["delete", "--all", "--quiet"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str(), ran.stderr.as_str()),
        (0, "", "")
    );
    assert!(served.node.lock().ves.is_empty());
}

#[test]
fn a_part_that_fails_does_not_stop_the_rest() {
    let served = Served::start();
    served.node.add(details(100, "web-1", VeState::Stopped));
    served.node.add(details(101, "web-2", VeState::Stopped));
    let ran = run(&served, &["start", "web-1", "nobody", "web-2"]);
    assert_eq!(ran.code, 9, "{ran:?}");
    assert_eq!(ran.stdout.lines().count(), 2);
    assert!(
        ran.stderr
            .starts_with("error: VE `nobody`: there is none\nhint: "),
        "{ran:?}"
    );
    assert!(ran.stderr.ends_with("1 of 3 failed\n"), "{ran:?}");
    assert_eq!(run(&served, &["start", "nobody", "nowhere"]).code, 3);
    // One VE that is named twice is one VE.
    assert_eq!(
        run(&served, &["stop", "web-1", "web-1"]).stdout,
        "web-1 stopped\n"
    );
    let ran = run(&served, &["stop", "web-2", "nobody", "--json"]);
    let results: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(ran.code, 9);
    assert_eq!(
        (&results[0]["state"], &results[1]["error"]["code"]),
        (&"stopped".into(), &"not_found".into())
    );
}

#[test]
fn secrets_and_options_reach_the_node() {
    let served = Served::start();
    let keys = served.root().join("keys");
    std::fs::write(&keys, "# mine\nssh-ed25519 AAAA me@here\n\nssh-rsa BBBB\n").unwrap();
    let keys = keys.to_str().unwrap();
    let words = [
        "create",
        "web",
        "--template",
        "debian-12",
        "--password-stdin",
        "--ssh-key",
        keys,
        "--address",
        "10.99.0.20",
        "--address",
        "fd00::20",
        "--hostname",
        "www",
        "--set",
        "memory.limit=1G",
        "--label",
        "a=b",
    ];
    let ran = run_with_input(&served, &words, b"secret word\nrest\n");
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "web\n"), "{ran:?}");
    let call = served.node.lock().calls[0].clone();
    for part in [
        r#"settings: ["memory.limit=1G", "address=10.99.0.20,fd00::20", "hostname=www"]"#,
        r#"root_password: Some("secret word")"#,
        r#"ssh_keys: ["ssh-ed25519 AAAA me@here", "ssh-rsa BBBB"]"#,
        r#"labels: {"a": "b"}"#,
    ] {
        assert!(call.contains(part), "{call}");
    }
    let private = served.root().join("private");
    std::fs::write(&private, "-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();
    let ran = run(
        &served,
        &[
            "create",
            "x",
            "--template",
            "debian-12",
            "--ssh-key",
            private.to_str().unwrap(),
        ],
    );
    assert!(ran.code == 2 && ran.stderr.contains(".pub"), "{ran:?}");
    let ran = run_with_input(
        &served,
        &["create", "x", "--template", "debian-12", "--password-stdin"],
        b"\n",
    );
    assert!(ran.code == 2 && ran.stderr.contains("empty"), "{ran:?}");
}

#[test]
fn templates_are_asked_for_as_the_daemon_needs_it() {
    let served = Served::start();
    let file = served.root().join("rootfs.tar");
    std::fs::write(&file, "x").unwrap();
    let mut import = crate::command(
        served.root(),
        &["template", "import", "rootfs.tar", "--name", "mine"],
    );
    import.current_dir(served.root());
    let ran = crate::finish(import, b"");
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "mine\n"), "{ran:?}");
    let ran = run(
        &served,
        &[
            "template",
            "import",
            "oci:example.org/a:1",
            "--name",
            "b",
            "--json",
        ],
    );
    assert!(
        ran.code == 0 && ran.stdout.contains(r#""kind":"template-import""#),
        "{ran:?}"
    );
    let words = [
        "template",
        "build",
        "debian-12",
        "--name",
        "web",
        "--package",
        "nginx",
        "-p",
        "redis",
    ];
    assert_eq!(run(&served, &words).stdout, "web\n");
    let calls = served.node.lock().calls.clone();
    assert!(
        calls[0].contains(&format!("{:?}", file.display().to_string())),
        "{calls:?}"
    );
    assert!(calls[1].contains("oci:example.org/a:1"), "{calls:?}");
    assert!(
        calls[2].contains(r#"packages: ["nginx", "redis"]"#),
        "{calls:?}"
    );
}

#[test]
fn a_shutdown_ends_the_daemon() {
    let mut served = Served::start();
    let ran = run(&served, &["node", "shutdown", "--timeout", "1m"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    served.end();
    assert_eq!(run(&served, &["list"]).code, 8);
}

#[test]
fn stop_says_how_long_init_has() {
    let served = Served::start();
    served.node.add(details(100, "web", VeState::Running));
    assert_eq!(run(&served, &["stop", "web", "--timeout", "90"]).code, 0);
    served.node.add(details(100, "web", VeState::Running));
    assert_eq!(run(&served, &["stop", "web", "--kill"]).code, 0);
    let calls = served.node.lock().calls.clone();
    assert_eq!(
        calls[0],
        "StopRequest { kill: false, timeout_ms: Some(90000) }"
    );
    assert_eq!(calls[1], "StopRequest { kill: true, timeout_ms: None }");
}

#[test]
fn an_update_of_a_template_tells_what_it_brought() {
    let served = Served::start();
    let ran = run(
        &served,
        &["template", "update", "debian-12", "--mirror", "http://m"],
    );
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert_eq!(lines[1].split_whitespace().last(), Some("3.0.17-1~deb12u2"));
    assert_eq!(
        lines.last(),
        Some(&"debian-12@1 to debian-12@2: 1 changed, 1 added, 1 removed")
    );
    assert!(
        served.node.lock().calls[0].contains("http://m"),
        "{:?}",
        served.node.lock().calls
    );
    // Nothing is newer now.
    let ran = run(&served, &["template", "update", "debian-12"]);
    assert_eq!(
        ran.stdout,
        "debian-12@2 is up to date: no package is newer\n"
    );
    let ran = run(&served, &["template", "update", "debian-12", "--json"]);
    assert!(ran.stdout.contains("\"changed\":false"), "{ran:?}");
    let refused = run(&served, &["template", "update", "none"]);
    assert_eq!(refused.code, 3);
}
