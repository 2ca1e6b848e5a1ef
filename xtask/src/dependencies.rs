//! `dependencies`: the Debian packages that building, a node and the tests need.
//!
//! Costs one `dpkg-query` when everything is there, so that every other chore can call it first.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{criu, process};

/// What a package is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Compiling the tree.
    Build,
    /// Running a node.
    Node,
    /// The system tests.
    Tests,
    /// An emulated machine with another kernel.
    Machine,
    /// What Vessel is measured beside.
    Bench,
}

struct Package {
    name: &'static str,
    need: Need,
    reason: &'static str,
}

const PACKAGES: &[Package] = &[
    package("gcc", Need::Build, "the embedded SQLite and zstd are C"),
    package("libssl-dev", Need::Build, "composefs hashes with OpenSSL"),
    package("pkg-config", Need::Build, "finds the same"),
    package("libc6-dev", Need::Build, "headers for the same"),
    package("make", Need::Build, "the short names of these chores"),
    package("btrfs-progs", Need::Node, "mkfs.btrfs makes the pool"),
    package(
        "mmdebstrap",
        Need::Node,
        "builds templates from Debian's packages",
    ),
    package(
        "debian-archive-keyring",
        Need::Node,
        "verifies those packages on hosts that are not Debian",
    ),
    package("xz-utils", Need::Node, "LXC images are .tar.xz"),
    package("squashfs-tools", Need::Node, "or .squashfs"),
    package("nftables", Need::Node, "nft sets the filters of a node"),
    package("iproute2", Need::Node, "ip, to look at links and routes"),
    package(
        "util-linux",
        Need::Node,
        "setpriv and unshare confine a build; setsid, nsenter",
    ),
    package("ca-certificates", Need::Node, "images are fetched over TLS"),
    package(
        "busybox-static",
        Need::Tests,
        "a whole VE in 2 MB, started by nearly every test",
    ),
    package(
        "openssh-client",
        Need::Tests,
        "logging in to a VE as its owner does",
    ),
    package("iputils-ping", Need::Tests, "reachability, both families"),
    package("e2fsprogs", Need::Tests, "a small file system to fill up"),
    package("curl", Need::Tests, "asking web servers in VEs for a page"),
    package("zstd", Need::Tests, "an archive in each compression"),
    package(
        "openssl",
        Need::Tests,
        "an authority of the tests' own, for servers that speak TLS",
    ),
    package("busybox-static", Need::Bench, "a light VE in 2 MB"),
    package("crun", Need::Bench, "the fastest OCI runtime"),
    package("lxc", Need::Bench, "system containers"),
    package("systemd-container", Need::Bench, "systemd-nspawn"),
    package("qemu-system-x86", Need::Machine, "the emulator"),
    package(
        "cpio",
        Need::Machine,
        "the machine's first root file system",
    ),
];

/// Names of the packages that serve one of these needs.
pub(crate) fn names(needs: &[Need]) -> impl Iterator<Item = &'static str> {
    PACKAGES
        .iter()
        .filter(|package| needs.contains(&package.need))
        .map(|package| package.name)
}

const fn package(name: &'static str, need: Need, reason: &'static str) -> Package {
    Package { name, need, reason }
}

/// Installs what is missing for these needs. Running it again does nothing.
pub(crate) fn install(needs: &[Need]) -> Result<()> {
    install_packages(needs)?;
    if needs.contains(&Need::Node) {
        criu::install()
    } else {
        Ok(())
    }
}

fn install_packages(needs: &[Need]) -> Result<()> {
    let wanted = PACKAGES
        .iter()
        .filter(|package| needs.contains(&package.need));
    let installed = installed()?;
    let missing: Vec<&Package> = wanted
        .filter(|package| !installed.iter().any(|name| name == package.name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    for package in &missing {
        eprintln!("missing: {} ({})", package.name, package.reason);
    }
    process::need_root("installing packages")?;
    process::run(apt("update").arg("--quiet"))?;
    let mut install = apt("install");
    install.args(["--quiet", "--yes", "--no-install-recommends"]);
    process::run(install.args(missing.iter().map(|package| package.name)))
}

fn apt(verb: &str) -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").arg(verb);
    command
}

fn installed() -> Result<Vec<String>> {
    let names = PACKAGES.iter().map(|package| package.name);
    let mut query = Command::new("dpkg-query");
    query
        .args(["--show", "--showformat=${Package} ${db:Status-Status}\n"])
        .args(names);
    // It fails when one name is unknown, and has answered for the others all the same.
    let output = query.output().context(
        "cannot run `dpkg-query`: these chores know Debian and its descendants only; elsewhere install by hand what \
         `vessel doctor` names",
    )?;
    let Ok(text) = String::from_utf8(output.stdout) else {
        bail!("`dpkg-query` wrote no text")
    };
    let names = text
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"));
    Ok(names.map(str::to_owned).collect())
}
