//! The machine's second disk: Vessel as it is installed, the tests, and the script that runs them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Runs, disk, make_disk};
use crate::workspace::Workspace;
use crate::{completion, install, process};

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

/// Tests of crates that say something about another kernel or cgroup v2.
struct Suite {
    package: &'static str,
    target: &'static str,
    /// What is left out of it, by a part of its name, and why.
    left_out: &'static [(&'static str, &'static str)],
}

const SUITES: &[Suite] = &[
    suite("cgroup", "life", &[]),
    suite("cgroup", "limits", &[]),
    suite("cgroup", "confinement", &[]),
    suite(
        "network",
        "namespaces",
        &[("scale::", "measures with a thousand VEs")],
    ),
    suite("vessel-launcher", "life", &[]),
    suite("vessel-launcher", "inside", &[]),
    suite("vessel-launcher", "walls", &[]),
    suite("vessel-launcher", "network", &[]),
    suite("vessel-launcher", "template", &[]),
    suite("vessel-launcher", "distribution", &[]),
    suite("vessel-launcher", "checkpoint", &[]),
    suite("vessel-procview", "server", &[]),
];

/// All system tests, but for these.
const SYSTEM: Suite = suite("system-tests", "system", &[]);

const fn suite(
    package: &'static str,
    target: &'static str,
    left_out: &'static [(&'static str, &'static str)],
) -> Suite {
    Suite {
        package,
        target,
        left_out,
    }
}

/// Builds everything and writes the disk. Arguments select system tests; then nothing else runs.
pub(super) fn pack(workspace: &Workspace, folder: &Path, arguments: &[String]) -> Result<Runs> {
    completion::run(workspace)?;
    let debian = debian(folder)?;
    let payload = folder.join("payload");
    let _ = fs::remove_dir_all(&payload);
    fs::create_dir_all(payload.join("tests")).context("cannot make a folder for the programs")?;
    install::install(workspace, &payload.join("root"))?;
    fs::hard_link(&debian, payload.join(DEBIAN)).context("cannot take the Debian along")?;
    let suites = if arguments.is_empty() { SUITES } else { &[] };
    let built = build_tests(workspace, suites)?;
    let mut script = Script::new(workspace);
    let mut left_out = Vec::new();
    for suite in suites.iter().chain([&SYSTEM]) {
        let name = suite.name();
        program(&suite.program(&built)?, &payload.join("tests").join(&name))?;
        if arguments.is_empty() {
            script.run(&name, &suite.skips());
            let told = suite.left_out.iter();
            left_out.extend(told.map(|(test, why)| format!("{name} {test}: {why}")));
        } else {
            script.run(&name, arguments);
        }
    }
    let path = payload.join("run");
    fs::write(&path, script.finish()).context("cannot write the script")?;
    executable(&path)?;
    make_disk(&folder.join("payload.img"), SIZE, &payload)?;
    Ok(Runs { left_out })
}

impl Suite {
    fn name(&self) -> String {
        format!("{}-{}", self.package, self.target)
    }

    fn skips(&self) -> Vec<String> {
        let names = self.left_out.iter().map(|(test, _)| *test);
        names
            .flat_map(|name| ["--skip".to_owned(), name.to_owned()])
            .collect()
    }

    /// Its program among those that Cargo told of.
    fn program(&self, messages: &str) -> Result<PathBuf> {
        let Self {
            package, target, ..
        } = self;
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
}

/// What the machine does: installs, then runs every program, whatever becomes of those before.
struct Script(String);

impl Script {
    fn new(workspace: &Workspace) -> Self {
        // Tests of crates look for programs where Cargo built them.
        let built = workspace.target().join("release").display().to_string();
        let programs = install::PROGRAMS;
        Self(format!(
            "#!/bin/sh
cp --archive /payload/root/. / || exit 1
systemctl daemon-reload || exit 1
mkdir -p '{built}' && ln -s /{programs}/* '{built}/' || exit 1
export VESSEL_SLOWNESS={SLOWNESS} VESSEL_REQUIRE=1 VESSEL_PROGRAMS=/{programs}
export VESSEL_TEST_INSTALLED=1 VESSEL_TEST_DEBIAN=/payload/{DEBIAN}
mkdir /var/tmp/debian && tar --extract --file /payload/{DEBIAN} --directory /var/tmp/debian || exit 1
export VESSEL_TEST_SERVERS=/var/tmp/debian VESSEL_TEST_DISTRIBUTION=/var/tmp/debian
failed=0
"
        ))
    }

    fn run(&mut self, name: &str, arguments: &[String]) {
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

/// Builds the tests in one go, as another choice of packages is another build of what they share.
/// What Cargo told of it.
fn build_tests(workspace: &Workspace, suites: &[Suite]) -> Result<String> {
    let mut build = Command::new(env!("CARGO"));
    build.current_dir(workspace.root());
    build.args(["test", "--release", "--locked", "--no-run", "--test", "*"]);
    build.args(["--message-format", "json-render-diagnostics"]);
    let packages: BTreeSet<&str> = suites
        .iter()
        .chain([&SYSTEM])
        .map(|suite| suite.package)
        .collect();
    for package in packages {
        build.args(["-p", package]);
    }
    process::output(&mut build)
}

fn program(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    executable(to)
}

fn executable(path: &Path) -> Result<()> {
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(path, mode).with_context(|| format!("cannot mark {}", path.display()))
}
