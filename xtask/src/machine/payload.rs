//! The machine's second disk: Vessel as it is installed, the tests, and the script that runs them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::slice;

use anyhow::{Context, Result};

use super::choice::{CRATES, Choice, SYSTEM, Suite, choose, crate_arguments};
use super::{disk, make_disk};
use crate::workspace::Workspace;
use crate::{completion, install, process, suite};

/// Sparse; holds two copies of the programs with their line tables, the tests and a Debian.
const SIZE: &str = "3G";
/// An emulated processor does in this many seconds what a real one does in one.
const SLOWNESS: &str = "12";
/// The archive of the Debian that tests make VEs from, and what is in it besides a minimal one: what
/// a server has, and what the tests ask of it.
const DEBIAN: &str = "debian-12.tar";
const DEBIAN_SUITE: &str = "bookworm";
const DEBIAN_PACKAGES: &str = "ca-certificates,cron,dbus,iproute2,iputils-ping,libnss-systemd,\
     libpam-systemd,netbase,nginx-light,openssh-server,procps,redis-server,systemd-sysv";

/// Builds everything and writes the disk. Filters select system tests; then nothing else runs. What
/// is left out, as lines for people: whoever filters knows it.
pub(super) fn pack(
    workspace: &Workspace,
    folder: &Path,
    filters: &[String],
) -> Result<Vec<String>> {
    completion::run(workspace)?;
    let debian = debian(folder)?;
    let payload = folder.join("payload");
    let _ = fs::remove_dir_all(&payload);
    fs::create_dir_all(payload.join("tests")).context("cannot make a folder for the programs")?;
    install::install(workspace, &payload.join("root"))?;
    fs::hard_link(&debian, payload.join(DEBIAN)).context("cannot take the Debian along")?;
    let crates = if filters.is_empty() { CRATES } else { &[] };
    let built = build_tests(workspace, crates)?;
    let system = find(SYSTEM, &built)?;
    let choice = match filters {
        [] => choose(&process::output(Command::new(&system).arg("--list"))?)?,
        _ => Choice::default(),
    };
    let mut script = Script::new(workspace);
    program(&system, &payload.join("tests").join(SYSTEM.name()))?;
    match filters {
        [] => script.run(SYSTEM, &choice.arguments),
        // A program of tests takes one.
        _ => filters
            .iter()
            .for_each(|filter| script.run(SYSTEM, slice::from_ref(filter))),
    }
    for suite in crates {
        let to = payload.join("tests").join(suite.name());
        program(&find(*suite, &built)?, &to)?;
        script.run(*suite, &crate_arguments());
    }
    let path = payload.join("run");
    fs::write(&path, script.finish()).context("cannot write the script")?;
    executable(&path)?;
    make_disk(&folder.join("payload.img"), SIZE, &payload)?;
    Ok(choice.left_out)
}

/// A program of tests among those that Cargo told of.
fn find(suite: Suite, messages: &str) -> Result<PathBuf> {
    let Suite { package, target } = suite;
    // Cargo leaves the name out where the folder has it.
    let (by_name, by_folder) = (format!("#{package}@"), format!("/{package}#"));
    let path = messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let id = message["package_id"].as_str()?;
        let ours = id.contains(&by_name) || id.contains(&by_folder);
        let wanted = ours && message["target"]["name"] == *target;
        let path = message["executable"].as_str()?;
        wanted.then(|| PathBuf::from(path))
    });
    path.with_context(|| format!("Cargo built no test `{target}` of `{package}`"))
}

/// What the machine does: installs, then runs every program, whatever becomes of those before.
struct Script(String);

impl Script {
    fn new(workspace: &Workspace) -> Self {
        // Tests of crates look for programs where Cargo built them.
        let built = workspace.target().join("debug").display().to_string();
        let programs = install::PROGRAMS;
        Self(format!(
            "#!/bin/sh
cp --archive /payload/root/. / || exit 1
systemctl daemon-reload || exit 1
mkdir -p '{built}' && ln -s /{programs}/* '{built}/' || exit 1
export VESSEL_SLOWNESS={SLOWNESS} VESSEL_REQUIRE=1 VESSEL_PROGRAMS=/{programs}
export VESSEL_TEST_INSTALLED=1 VESSEL_TEST_DEBIAN=/payload/{DEBIAN}
failed=0
"
        ))
    }

    fn run(&mut self, suite: Suite, arguments: &[String]) {
        let name = suite.name();
        let quoted: String = arguments.iter().map(|word| format!(" '{word}'")).collect();
        let line = format!("echo '=== {name}'; /payload/tests/{name}{quoted} || failed=1\n");
        self.0.push_str(&line);
    }

    fn finish(self) -> String {
        format!("{}exit $failed\n", self.0)
    }
}

/// The Debian for VEs. Made here, where it takes a minute and not ten; once.
fn debian(folder: &Path) -> Result<PathBuf> {
    let archive = folder.join(DEBIAN);
    let recipe = format!("{DEBIAN_SUITE} {DEBIAN_PACKAGES}");
    let noted = folder.join("debian.recipe");
    if disk::is_built(&noted, &recipe) {
        return Ok(archive);
    }
    let mut bootstrap = Command::new("mmdebstrap");
    bootstrap.args(["--quiet", "--variant=minbase", "--mode=root", disk::UNSAFE]);
    bootstrap.arg(format!("--include={DEBIAN_PACKAGES}"));
    process::run(bootstrap.arg(DEBIAN_SUITE).arg(&archive))?;
    disk::note(&noted, &recipe)?;
    Ok(archive)
}

/// Builds the tests, just as `cargo xtask test` does: after it, they are there. What Cargo told of it.
fn build_tests(workspace: &Workspace, crates: &[Suite]) -> Result<String> {
    let crates = (!crates.is_empty()).then_some(&suite::OF_CRATES[..]);
    let mut told = String::new();
    for tests in crates.into_iter().chain([&suite::OF_SYSTEM[..]]) {
        process::run(suite::cargo(workspace, tests).arg("--no-run"))?;
        // Built, and asked again where.
        let mut ask = suite::cargo(workspace, tests);
        ask.args(["--no-run", "--message-format", "json"]);
        told += &process::output(&mut ask)?;
    }
    Ok(told)
}

fn program(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    executable(to)
}

fn executable(path: &Path) -> Result<()> {
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(path, mode).with_context(|| format!("cannot mark {}", path.display()))
}
