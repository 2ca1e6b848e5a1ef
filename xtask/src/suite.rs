//! `test`: everything that has a test, in the order in which a failure is cheapest.

use std::process::Command;

use anyhow::Result;

use crate::dependencies::{self, Need};
use crate::process;
use crate::workspace::Workspace;

/// Builds all programs, then runs the tests of every crate and the system tests.
///
/// With arguments only the system tests run, and get them: a filter, `--list`, `--exact`.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    dependencies::install(&[Need::Build, Need::Node, Need::Tests])?;
    let cargo = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        command
            .current_dir(workspace.root())
            .args(words)
            .arg("--locked");
        command
    };
    // The tests run the programs, and CRIU loads the plugin; Cargo builds these for a test of the
    // same package only, and a plugin not even then.
    process::run(&mut cargo(&["build", "--workspace"]))?;
    let mut failed = None;
    if arguments.is_empty() {
        let crates = [
            "test",
            "--workspace",
            "--exclude",
            "system-tests",
            "--no-fail-fast",
        ];
        failed = process::run(&mut cargo(&crates)).err();
    }
    process::run(
        cargo(&["test", "-p", "system-tests"])
            .arg("--")
            .args(arguments),
    )?;
    failed.map_or(Ok(()), Err)
}
