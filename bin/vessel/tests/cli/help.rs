//! What the command line says of itself.

use crate::fake::Served;
use crate::{command, finish, run, snapshot};

#[test]
fn help_and_mistakes() {
    let served = Served::start();
    snapshot(
        "help",
        &served,
        &[
            &["--help"],
            &["start", "--help"],
            &["set", "--help"],
            &["strat", "web"],
            &["list", "--no-such-flag"],
            &["create", "web"],
            &["start"],
            &["create", "web", "--template", "debian-12", "--count", "0"],
        ],
    );
}

#[test]
fn nothing_at_all_is_help() {
    let ran = finish(
        std::process::Command::new(env!("CARGO_BIN_EXE_vessel")),
        b"",
    );
    assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
    assert!(
        ran.stderr
            .contains("vessel create web --template debian-12 --start"),
        "{ran:?}"
    );
}

#[test]
fn completions_and_manual_pages_are_written() {
    let served = Served::start();
    for shell in ["bash", "zsh", "fish"] {
        let ran = run(&served, &["completion", shell]);
        assert!(ran.code == 0 && ran.stdout.contains("template"), "{shell}");
    }
    let folder = served.root().join("man");
    std::fs::create_dir(&folder).unwrap();
    let ran = run(&served, &["man", folder.to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let page = std::fs::read_to_string(folder.join("vessel-create.1")).unwrap();
    assert!(
        page.contains("debian\\-12") && page.contains(".TH"),
        "{page}"
    );
    assert!(folder.join("vessel.1").exists() && folder.join("vessel-template-build.1").exists());
}

/// What bash would offer for the last of these words.
fn offered(served: &Served, words: &[&str]) -> Vec<String> {
    let script = served.root().join("completion.bash");
    std::fs::write(&script, run(served, &["completion", "bash"]).stdout).unwrap();
    let last = words.len() - 1;
    let program = env!("CARGO_BIN_EXE_vessel");
    let quoted = std::iter::once(&program)
        .chain(&words[1..])
        .map(|word| format!("'{word}'"));
    let quoted: Vec<String> = quoted.collect();
    let line = format!(
        "source {}; COMP_WORDS=({}); COMP_CWORD={last}; _vessel_names {program} '{}' '{}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        script.display(),
        quoted.join(" "),
        words[last],
        words[last - 1]
    );
    let mut bash = std::process::Command::new("bash");
    bash.args(["--norc", "-c", &line])
        .env("VESSEL_ROOT", served.root());
    let ran = finish(bash, b"");
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{words:?}");
    ran.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn names_are_completed_by_what_a_verb_can_do_with_them() {
    let served = Served::start();
    served.node.add(crate::fake::details(
        100,
        "web",
        api::latest::VeState::Running,
    ));
    served.node.add(crate::fake::details(
        101,
        "db",
        api::latest::VeState::Stopped,
    ));
    let root = served.root().to_str().unwrap();
    for (words, expected) in [
        (&["vessel", "start", ""][..], &["db"][..]),
        (&["vessel", "stop", "w"], &["web"]),
        (&["vessel", "--root", root, "exec", ""], &["web"]),
        (&["vessel", "delete", "--force", ""], &["web", "db"]),
        (&["vessel", "cp", "we"], &["web:/"]),
        (
            &["vessel", "create", "new", "--template", ""],
            &["debian-12"],
        ),
        (&["vessel", "template", "show", "deb"], &["debian-12"]),
        (&["vessel", "stop", "--timeo"], &["--timeout"]),
        (&["vessel", "star"], &["start"]),
    ] {
        assert_eq!(offered(&served, words), expected, "{words:?}");
    }
}

#[test]
fn the_root_comes_from_the_environment_and_a_noun_may_lead() {
    let served = Served::start();
    let mut asked = command(served.root(), &[]);
    asked = {
        let mut other = std::process::Command::new(asked.get_program());
        other
            .env("VESSEL_ROOT", served.root())
            .args(["ct", "list", "--json"]);
        other
    };
    let ran = finish(asked, b"");
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "[]\n"), "{ran:?}");
}

#[test]
fn a_daemon_that_does_not_run_is_named_with_the_way_to_start_it() {
    let mut served = Served::start();
    served.end();
    snapshot(
        "unreachable",
        &served,
        &[&["list"], &["list", "--json"], &["start", "web", "db"]],
    );
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let served = Served::start();
    for id in 100..900 {
        served.node.add(crate::fake::details(
            id,
            &format!("ve-{id}"),
            api::latest::VeState::Stopped,
        ));
    }
    let mut list = command(served.root(), &["list"]);
    list.stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = list.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), output.stderr.as_slice()),
        (Some(0), &b""[..])
    );
}
