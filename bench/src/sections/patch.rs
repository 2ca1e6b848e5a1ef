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
use crate::light;
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

/// A kind of VE: its database of packages, and where its package manager lies.
struct Kind {
    name: &'static str,
    template: &'static str,
    database: &'static str,
    manager: &'static str,
}

const LIGHT: Kind = Kind {
    name: "light",
    template: "patch-light",
    database: "lib/apk/db/installed",
    manager: "sbin/apk",
};

const DEBIAN: Kind = Kind {
    name: "Debian",
    template: "patch-debian",
    database: "var/lib/dpkg/status",
    // Before the real one on every path that is searched.
    manager: "usr/local/sbin/apt-get",
};

pub(crate) fn measure(context: &mut Context, results: &mut Results) -> Result<()> {
    let tree = context.stage.folder().join("patch-light");
    light::write(&tree)?;
    fs::create_dir_all(tree.join("lib/apk/db")).context("cannot make a database of packages")?;
    write(&tree, LIGHT.database, "P:light\nV:1\nA:noarch\n\n", 0o644)?;
    write(&tree, "etc/os-release", "ID=alpine\nVERSION_ID=3\n", 0o644)?;
    patch(&context.node, &LIGHT, &tree, results)?;
    let tree = context.debian()?;
    patch(&context.node, &DEBIAN, &tree, results)
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

/// A package manager that upgrades to what it brings itself. It knows no word but its shell's own.
fn stand_in(kind: &Kind) -> String {
    let database = kind.database;
    format!(
        "#!/bin/sh\nfor word in \"$@\"; do case $word in\n\
         *upgrade)\necho patched >/srv/patched\nn=0\n\
         while [ $n -lt {FILES} ]; do echo \"new $n\" >/srv/file-$n; n=$((n + 1)); done\n\
         text=; while IFS= read -r line; do text=\"$text$line\n\"; done </{database}\n\
         printf '%s' \"${{text%%1*}}2${{text#*1}}\" >/{database} ;;\nesac; done\n"
    )
}

/// Makes a template and its VEs, patches both, and looks at what that took.
fn patch(node: &Node, kind: &Kind, tree: &Path, results: &mut Results) -> Result<()> {
    interrupt::check()?;
    write(tree, kind.manager, &stand_in(kind), 0o755)?;
    for n in 0..FILES {
        write(tree, &format!("srv/file-{n}"), &format!("old {n}\n"), 0o644)?;
    }
    let from = tree.display().to_string();
    let imported = node.vessel(&["template", "import", &from, "--name", kind.template]);
    fs::remove_file(tree.join(kind.manager)).context("cannot take the stand-in away")?;
    imported?;
    let count = COUNT.to_string();
    let words = ["--template", kind.template, "--count", &count, "--start"];
    node.vessel(&[&["create", "patch"], &words[..]].concat())?;
    node.vessel(&["template", "update", kind.template])?;
    interrupt::check()?;
    let begun = process::now_ns();
    let words = ["update", "--template", kind.template, "--check", CHECK];
    let report = node.json(&words)?;
    let seconds = process::milliseconds(begun, process::now_ns()) / 1_000.0;
    let report = report.as_array().context("`update` reports no list")?;
    let updated = report.iter().filter(|ve| ve["result"] == "updated").count();
    ensure!(updated == COUNT, "{updated} of {COUNT} were updated");
    let downs: Vec<f64> = report
        .iter()
        .filter_map(|ve| ve["downtime_ms"].as_f64())
        .collect();
    ensure!(
        downs.len() == COUNT,
        "not every VE tells how long it was down"
    );
    let longest = downs.iter().copied().fold(0.0, f64::max);
    let subject = format!("{COUNT} {}", kind.name);
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
    node.vessel(&["delete", "--all", "--force"])?;
    Ok(())
}
