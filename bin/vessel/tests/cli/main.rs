//! The built `vessel` against a fake node over a real socket: exact output, exit codes, terminals.
//!
//! Exact output lies in `snapshots/`; `UPDATE_SNAPSHOTS=1 cargo test -p vessel` writes it anew, to be
//! looked at before it is committed.
#![allow(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "a test program is a test module, and its helpers are tests"
)]

#[path = "../../../../crates/server/tests/fake/mod.rs"]
mod fake;

mod alerts;
mod contents;
mod copying;
mod help;
mod sessions;
mod tables;
mod verbs;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use fake::Served;

/// What a run of the command line left.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The command line for a root folder, with nothing of the caller's own environment that matters.
pub(crate) fn command(root: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vessel"));
    command
        .env_remove("VESSEL_ROOT")
        .env_remove("COLUMNS")
        .env("NO_COLOR", "1")
        .env("TERM", "xterm");
    command.arg("--root").arg(root).args(words);
    command
}

pub(crate) fn run(served: &Served, words: &[&str]) -> Ran {
    run_with_input(served, words, b"")
}

pub(crate) fn run_with_input(served: &Served, words: &[&str], input: &[u8]) -> Ran {
    finish(command(served.root(), words), input)
}

pub(crate) fn finish(mut command: Command, input: &[u8]) -> Ran {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let feeder = std::thread::spawn(move || {
        // A program may end before it has read everything.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Compares what was left of some runs with the snapshot of this name.
pub(crate) fn snapshot(name: &str, served: &Served, runs: &[&[&str]]) {
    let root = served.root().display().to_string();
    let mut seen = String::new();
    for words in runs {
        let ran = run(served, words);
        seen.push_str(&format!("$ vessel {}\n{}", words.join(" "), ran.stdout));
        for line in ran.stderr.lines() {
            seen.push_str(format!("stderr: {line}").trim_end());
            seen.push('\n');
        }
        seen.push_str(&format!("exit: {}\n\n", ran.code));
    }
    let seen = seen.replace(&root, "ROOT");
    compare(name, &format!("{}\n", seen.trim_end()));
}

pub(crate) fn compare(name: &str, seen: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/snapshots/{name}.txt"));
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, seen).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        seen == expected,
        "{} is no longer what is written:\n{seen}",
        path.display()
    );
}
