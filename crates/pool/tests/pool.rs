//! Pools on real loop devices. Needs root; says so where it is missing.
//!
//! The program starts itself again in a mount namespace of its own, so that no other namespace of
//! the host ever sees a pool, and none stays when it dies.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test program: it asserts, and speaks on a terminal"
)]

#[path = "pool/areas.rs"]
mod areas;
#[path = "pool/bench.rs"]
mod bench;
#[path = "pool/fixture.rs"]
mod fixture;
#[path = "pool/places.rs"]
mod places;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};

/// Set in the program that runs in its own namespace.
const INSIDE: &str = "POOL_TEST_INSIDE";

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    if let Some(reason) = missing() {
        eprintln!("the tests of pools are not run: {reason}");
        return ExitCode::SUCCESS;
    }
    if std::env::var_os(INSIDE).is_none() && !arguments.list {
        let itself = std::env::current_exe().unwrap();
        let error = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "--"])
            .arg(itself)
            .args(std::env::args_os().skip(1))
            .env(INSIDE, "1")
            .exec();
        eprintln!("cannot run `unshare` (package util-linux): {error}");
        return ExitCode::FAILURE;
    }
    let mut trials = Vec::new();
    for (name, test) in [places::TESTS, areas::TESTS].concat() {
        trials.push(Trial::test(name, move || run(test)));
    }
    for (name, test) in bench::TESTS {
        trials.push(Trial::test(*name, move || run(*test)).with_ignored_flag(true));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn run(test: fn()) -> Result<(), Failed> {
    test();
    Ok(())
}

fn missing() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root");
    }
    if !std::path::Path::new("/dev/loop-control").exists() {
        return Some("no /dev/loop-control");
    }
    None
}
