//! `check`: what CI runs besides the tests, reporting every failure and not only the first.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::workspace::Workspace;
use crate::{layers, process, tidy};

/// One check: its name, and what it finds wrong.
type Step = (&'static str, fn(&Workspace) -> Result<Vec<String>>);

/// The cheap ones first, so that a mistake in a document shows in a second.
const STEPS: [Step; 5] = [
    ("tidy", tidy::check),
    ("layers", layers::check),
    ("format", format),
    ("clippy", clippy),
    ("documentation", documentation),
];

/// Runs every step, then says what failed.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut failed = Vec::new();
    let mut summary = Vec::new();
    for (name, step) in STEPS {
        eprintln!("== {name}");
        let begun = Instant::now();
        let findings = match step(workspace) {
            Ok(findings) => findings,
            Err(error) => vec![format!("{error:#}")],
        };
        for finding in &findings {
            eprintln!("{finding}");
        }
        let verdict = if findings.is_empty() { "ok" } else { "FAILED" };
        summary.push(line(name, verdict, begun.elapsed()));
        if !findings.is_empty() {
            failed.push(name);
        }
    }
    println!("{}", summary.join("\n"));
    if !failed.is_empty() {
        bail!("check failed: {}", failed.join(", "));
    }
    Ok(())
}

fn line(name: &str, verdict: &str, took: Duration) -> String {
    format!("{name:<15}{verdict:<8}{:.1} s", took.as_secs_f64())
}

fn cargo(workspace: &Workspace, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(workspace.root()).args(arguments);
    command
}

fn format(workspace: &Workspace) -> Result<Vec<String>> {
    process::run(&mut cargo(workspace, &["fmt", "--all", "--check"]))?;
    Ok(Vec::new())
}

/// `--locked` makes a stale lock file a failure too.
fn clippy(workspace: &Workspace) -> Result<Vec<String>> {
    let arguments = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--keep-going",
        "--",
        "-D",
        "warnings",
    ];
    process::run(&mut cargo(workspace, &arguments))?;
    Ok(Vec::new())
}

/// Broken links between documented items. Costs seconds after clippy, which shares its results.
fn documentation(workspace: &Workspace) -> Result<Vec<String>> {
    let arguments = [
        "doc",
        "--workspace",
        "--no-deps",
        "--locked",
        "--document-private-items",
    ];
    process::run(cargo(workspace, &arguments).env("RUSTDOCFLAGS", "-D warnings"))?;
    Ok(Vec::new())
}
