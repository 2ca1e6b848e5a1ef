//! `test`: everything that has a test, in the order in which a failure is cheapest.

use std::process::Command;

use anyhow::Result;

use crate::dependencies::{self, Need};
use crate::process;
use crate::workspace::Workspace;

/// How Cargo is asked for the tests of all crates, and for the system tests. Another choice of
/// packages would be another build of what they share.
pub(crate) const OF_CRATES: [&str; 4] = ["test", "--workspace", "--exclude", "system-tests"];
pub(crate) const OF_SYSTEM: [&str; 3] = ["test", "--package", "system-tests"];

/// Builds all programs, then runs the tests of every crate and the system tests.
///
/// With arguments only the system tests run, and get them: a filter, `--list`, `--exact`.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    dependencies::install(&[Need::Build, Need::Node, Need::Tests])?;
    // The tests run the programs, and CRIU loads the plugin; Cargo builds these for a test of the
    // same package only, and a plugin not even then.
    process::run(&mut cargo(workspace, &["build", "--workspace"]))?;
    let mut failed = None;
    if arguments.is_empty() {
        let mut crates = cargo(workspace, &OF_CRATES);
        failed = process::run(crates.arg("--no-fail-fast")).err();
    }
    let mut system = cargo(workspace, &OF_SYSTEM);
    process::run(system.arg("--").args(arguments))?;
    failed.map_or(Ok(()), Err)
}

/// Cargo, with the versions that were chosen.
pub(crate) fn cargo(workspace: &Workspace, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(workspace.root());
    command.args(words).arg("--locked");
    command
}
