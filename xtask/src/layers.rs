//! `layers`: which crate may know which, asserted against Cargo's own view of the tree.
//!
//! Four rules, each a table below: a crate depends only on crates further down the house; some
//! libraries belong to one crate alone; some programs must not contain some libraries at all, not
//! even through others; and `unsafe` lives in one crate.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::process;
use crate::workspace::Workspace;

/// The house from top to bottom. A crate may depend on crates of later rows only.
/// The names are those of the folders; not every one exists yet.
const HOUSE: &[&[&str]] = &[
    &[
        "vessel",
        "vesseld",
        "vessel-launcher",
        "vessel-procview",
        "criu-plugin",
    ],
    &["server", "panel", "client"],
    &["api"],
    &["engine"],
    &["policy"],
    &["registry"],
    &["migrate", "checkpoint", "backup", "meter", "notify"],
    &["difference"],
    &["runtime", "template"],
    &["procview"],
    &["pool", "cgroup", "network"],
    &["packages"],
    &["kernel"],
    &["ve"],
];

/// Chores and tests: outside the house, and nothing depends on them.
const OUTSIDE: &[&str] = &["xtask", "system-tests", "bench"];

/// Crates that must not use some others although they could, directly.
const STRANGERS: &[(&str, &[&str], &str)] = &[
    (
        "engine",
        &["runtime", "template", "pool", "cgroup", "network", "kernel"],
        "the engine sees mechanisms as traits, so that it runs on fakes",
    ),
    (
        "policy",
        &["kernel", "registry", "serde"],
        "policy decides from values, without I/O",
    ),
    (
        "ve",
        &["serde"],
        "stored and sent forms differ from the nouns",
    ),
    (
        "api",
        &["ve", "engine"],
        "wire types are their own, so that the domain may change freely",
    ),
    ("client", &["ve", "engine"], "a client knows the wire only"),
    (
        "server",
        &["ve", "engine"],
        "the door speaks wire types; `vesseld` translates",
    ),
];

/// Libraries that only some crates may use directly.
const OWNED: &[(&str, &[&str], &str)] = &[
    (
        "anyhow",
        &[
            "vessel",
            "vesseld",
            "vessel-launcher",
            "vessel-procview",
            "xtask",
            "system-tests",
            "bench",
        ],
        "libraries have typed errors",
    ),
    ("axum", &["server"], "one crate serves HTTP"),
    (
        "hyper",
        &["server", "client", "notify"],
        "HTTP is known to both ends of the wire, and to webhooks",
    ),
    ("lettre", &["notify"], "one crate carries messages out"),
    ("rustls", &["notify"], "one crate carries messages out"),
    (
        "clap",
        &["vessel", "vesseld"],
        "arguments are parsed by programs",
    ),
    ("rusqlite", &["registry"], "one crate stores records"),
    ("composefs", &["template"], "one crate stores templates"),
    ("netlink-sys", &["network"], "one crate makes links"),
    ("libc", &["kernel"], "raw system calls have one place"),
    ("nix", &["kernel"], "raw system calls have one place"),
];

/// Libraries that must be absent from a crate's whole tree.
const ABSENT: &[(&str, &[&str], &str)] = &[
    (
        "vessel-launcher",
        &[
            "tokio",
            "axum",
            "hyper",
            "rustls",
            "openssl",
            "rusqlite",
            "clap",
            "tracing-subscriber",
        ],
        "the parent of every init is small and single-threaded",
    ),
    (
        "vessel-procview",
        &["tokio", "fuser", "netlink-sys", "tracing-subscriber"],
        "a server that runs for each node, always, is small",
    ),
    ("ve", &["tokio", "rustix", "libc"], "the nouns are pure"),
    ("policy", &["tokio", "rustix", "libc"], "policy is pure"),
    (
        "engine",
        &["axum", "hyper"],
        "the engine knows no transport",
    ),
];

/// Crates that may contain `unsafe`: the one for all calls, and a library that another program
/// loads, which must say its function's name (one attribute).
const UNSAFE: &[&str] = &["kernel", "criu-plugin"];

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: Vec<String>,
    resolve: Resolve,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Target {
    kind: Vec<String>,
    src_path: String,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Debug, Deserialize)]
struct Edge {
    pkg: String,
    dep_kinds: Vec<EdgeKind>,
}

#[derive(Debug, Deserialize)]
struct EdgeKind {
    kind: Option<String>,
}

/// Applies every rule to the workspace and returns what breaks one.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let metadata = metadata(workspace)?;
    let members: Vec<&Package> = metadata
        .packages
        .iter()
        .filter(|package| metadata.workspace_members.contains(&package.id))
        .collect();
    let mut findings = Vec::new();
    for package in &members {
        check_direct(&package.name, &direct(package), &mut findings);
        check_lints(package, &mut findings)?;
    }
    for (name, banned, reason) in ABSENT {
        for found in whole_tree(&metadata, name).intersection(&banned.iter().copied().collect()) {
            findings.push(format!(
                "`{name}` contains `{found}`: {reason} (see `cargo tree -p {name} -i {found}`)"
            ));
        }
    }
    Ok(findings)
}

fn metadata(workspace: &Workspace) -> Result<Metadata> {
    let version = process::output(Command::new("rustc").arg("-vV"))?;
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("`rustc -vV` names no host")?;
    let mut command = Command::new(env!("CARGO"));
    command
        .current_dir(workspace.root())
        .args(["metadata", "--format-version", "1", "--locked"]);
    let text = process::output(command.args(["--filter-platform", host]))?;
    serde_json::from_str(&text).context("cannot read what `cargo metadata` wrote")
}

/// Names of what a crate uses in its product: its tests may use anything.
fn direct(package: &Package) -> Vec<&str> {
    let product = package
        .dependencies
        .iter()
        .filter(|d| d.kind.as_deref() != Some("dev"));
    product.map(|dependency| dependency.name.as_str()).collect()
}

fn row(name: &str) -> Option<usize> {
    HOUSE.iter().position(|row| row.contains(&name))
}

fn check_direct(name: &str, dependencies: &[&str], findings: &mut Vec<String>) {
    let own_row = row(name);
    if own_row.is_none() && !OUTSIDE.contains(&name) {
        findings.push(format!(
            "`{name}` has no place in the house: add it to HOUSE in xtask/src/layers.rs"
        ));
    }
    for dependency in dependencies {
        if OUTSIDE.contains(dependency) {
            findings.push(format!(
                "`{name}` depends on `{dependency}`, which is outside the house"
            ));
        }
        if let (Some(own), Some(other)) = (own_row, row(dependency))
            && other <= own
        {
            findings.push(format!(
                "`{name}` depends on `{dependency}`, which is not below it in the house"
            ));
        }
    }
    for (who, strangers, reason) in STRANGERS {
        for stranger in strangers
            .iter()
            .filter(|s| *who == name && dependencies.contains(s))
        {
            findings.push(format!("`{name}` depends on `{stranger}`: {reason}"));
        }
    }
    for (library, owners, reason) in OWNED {
        if dependencies.contains(library) && !owners.contains(&name) {
            findings.push(format!("`{name}` uses `{library}`: {reason}"));
        }
    }
}

/// Cargo does not make members inherit lints, and an expectation of `unsafe` is one line.
fn check_lints(package: &Package, findings: &mut Vec<String>) -> Result<()> {
    let manifest = read(&package.manifest_path)?;
    if !inherits_lints(&manifest) {
        findings.push(format!(
            "`{}` does not say `[lints] workspace = true`",
            package.name
        ));
    }
    for target in &package.targets {
        if target.kind.iter().any(|kind| kind == "custom-build") {
            findings.push(format!(
                "`{}` has a build script: builds stay plain",
                package.name
            ));
            continue;
        }
        let is_root = target
            .kind
            .iter()
            .any(|kind| ["lib", "bin", "cdylib"].contains(&kind.as_str()));
        let forbids = read(&target.src_path)?.contains("#![forbid(unsafe_code)]");
        if is_root && !forbids && !UNSAFE.contains(&package.name.as_str()) {
            findings.push(format!(
                "{} lacks `#![forbid(unsafe_code)]`",
                target.src_path
            ));
        }
    }
    Ok(())
}

fn inherits_lints(manifest: &str) -> bool {
    let mut lines = manifest
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != "[lints]")
        .skip(1);
    lines.find(|line| !line.is_empty()) == Some("workspace = true")
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(Path::new(path)).with_context(|| format!("cannot read {path}"))
}

/// Names of all packages in a crate's tree, tests left out.
fn whole_tree<'a>(metadata: &'a Metadata, name: &str) -> BTreeSet<&'a str> {
    let names: BTreeMap<&str, &str> = metadata
        .packages
        .iter()
        .map(|p| (p.id.as_str(), p.name.as_str()))
        .collect();
    let edges: BTreeMap<&str, &Vec<Edge>> = metadata
        .resolve
        .nodes
        .iter()
        .map(|n| (n.id.as_str(), &n.deps))
        .collect();
    let mut seen = BTreeSet::new();
    let mut ahead: Vec<&str> = names
        .iter()
        .filter(|(_, n)| **n == name)
        .map(|(id, _)| *id)
        .collect();
    while let Some(id) = ahead.pop() {
        if !seen.insert(id) {
            continue;
        }
        let Some(edges) = edges.get(id) else { continue };
        let product = edges.iter().filter(|edge| {
            edge.dep_kinds
                .iter()
                .any(|k| k.kind.as_deref() != Some("dev"))
        });
        ahead.extend(product.map(|edge| edge.pkg.as_str()));
    }
    seen.iter()
        .filter_map(|id| names.get(id).copied())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(name: &str, dependencies: &[&str]) -> Vec<String> {
        let mut findings = Vec::new();
        check_direct(name, dependencies, &mut findings);
        findings
    }

    #[test]
    fn the_house_is_entered_from_above_only() {
        assert_eq!(findings("runtime", &["kernel", "ve", "tracing"]), [""; 0]);
        assert_eq!(findings("kernel", &["runtime"]).len(), 1);
        assert_eq!(
            findings("pool", &["network"]).len(),
            1,
            "the same row is not below"
        );
        assert_eq!(findings("attic", &[]).len(), 1, "an unknown crate");
        assert_eq!(findings("ve", &["xtask"]).len(), 1);
    }

    #[test]
    fn owners_and_strangers_are_named_with_the_reason() {
        let found = findings("engine", &["runtime"]);
        assert!(found[0].contains("traits"), "{found:?}");
        let found = findings("runtime", &["axum"]);
        assert!(found[0].contains("HTTP"), "{found:?}");
    }

    #[test]
    fn lints_must_be_inherited_in_their_own_table() {
        assert!(inherits_lints(
            "[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n"
        ));
        assert!(!inherits_lints("[package]\nversion.workspace = true\n"));
        assert!(!inherits_lints(
            "[lints]\n\n[dependencies]\nworkspace = true\n"
        ));
    }
}
