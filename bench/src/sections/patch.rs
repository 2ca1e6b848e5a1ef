//! Patching every server of a machine: 100 that run, brought to a new version of their template by one command.
//!
//! What makes the new version is no part of it: a stand-in for the package manager changes the database of packages and some
//! files, without a network.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::context::Context;
use crate::interrupt;
use crate::node::Node;
use crate::process;
use crate::report::{Bound, Results, Unit};

const SECTION: &str = "patch";

/// How many VEs, and what was promised of them: seconds for all, and milliseconds for each.
const COUNT: usize = 100;
const TOTAL_MAX: f64 = 30.0;
const DOWN_MAX: f64 = 1_000.0;

/// What has to succeed in each behind it.
const CHECK: &str = "read line </srv/patched";

/// Files that a new version changes, beside the database of packages.
const FILES: usize = 200;

const TEMPLATE: &str = "patch";

/// The VEs' database of packages, and where the stand-in lies: before the real one on every path that is searched.
const DATABASE: &str = "var/lib/dpkg/status";
const MANAGER: &str = "usr/local/sbin/apt-get";

pub(crate) fn measure(context: &mut Context, results: &mut Results) -> Result<()> {
    let tree = context.debian()?;
    prepare(&context.node, &tree)?;
    patch(&context.node, results)?;
    context.node.vessel(&["delete", "--all", "--force"])?;
    Ok(())
}

fn write(tree: &Path, name: &str, text: &str, mode: u32) -> Result<()> {
    let path = tree.join(name);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let written = fs::write(&path, text);
    written.with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(&path, Permissions::from_mode(mode))
        .with_context(|| format!("cannot allow {}", path.display()))
}

/// A package manager that upgrades to what it brings itself.
fn stand_in() -> String {
    format!(
        "#!/bin/sh\nfor word; do case $word in *upgrade)\necho patched >/srv/patched\nn=0\n\
         while [ $n -lt {FILES} ]; do echo \"new $n\" >/srv/file-$n; n=$((n + 1)); done\n\
         sed -i '0,/^Version: /s/^Version: .*/&.1/' /{DATABASE} ;;\nesac; done\n"
    )
}

/// Makes a template and its VEs, and the next revision of the template.
fn prepare(node: &Node, tree: &Path) -> Result<()> {
    write(tree, MANAGER, &stand_in(), 0o755)?;
    for n in 0..FILES {
        write(tree, &format!("srv/file-{n}"), &format!("old {n}\n"), 0o644)?;
    }
    let from = tree.display().to_string();
    let imported = node.vessel(&["template", "import", &from, "--name", TEMPLATE]);
    fs::remove_file(tree.join(MANAGER)).context("cannot take the stand-in away")?;
    imported?;
    interrupt::check()?;
    let count = COUNT.to_string();
    let words = ["--template", TEMPLATE, "--count", &count, "--start"];
    node.vessel(&[&["create", "patch"], &words[..]].concat())?;
    interrupt::check()?;
    node.vessel(&["template", "update", TEMPLATE]).map(drop)
}

/// Patches them all, and looks at what that took.
fn patch(node: &Node, results: &mut Results) -> Result<()> {
    let begun = process::now_ns();
    let report = node.json(&["update", "--template", TEMPLATE, "--check", CHECK])?;
    let seconds = process::milliseconds(begun, process::now_ns()) / 1_000.0;
    let report = report.as_array().context("`update` reports no list")?;
    let updated = report.iter().filter(|ve| ve["result"] == "updated").count();
    ensure!(updated == COUNT, "{updated} of {COUNT} were updated");
    let downs = report.iter().filter_map(|ve| ve["downtime_ms"].as_f64());
    let downs: Vec<f64> = downs.collect();
    ensure!(
        downs.len() == COUNT,
        "a VE does not tell how long it was down"
    );
    let longest = downs.iter().copied().fold(0.0, f64::max);
    let subject = format!("{COUNT} Debian");
    let (title, unit) = ("patched by one command", Unit::Seconds);
    results.add(SECTION, &subject, title, unit, vec![seconds]);
    let bound = (Bound::AtMost, TOTAL_MAX);
    results.promise(
        SECTION,
        &format!("{subject}: {title}"),
        unit,
        seconds,
        bound,
    );
    let (title, unit) = ("down, each VE", Unit::Milliseconds);
    results.add(SECTION, &subject, title, unit, downs);
    let title = format!("{subject}: down, the longest");
    results.promise(SECTION, &title, unit, longest, (Bound::AtMost, DOWN_MAX));
    Ok(())
}
