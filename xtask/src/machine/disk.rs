//! The machine's own disk: Debian's packages, a way to the mirrors, and a unit that runs what the
//! payload brings.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::{RESULT, make_disk};
use crate::dependencies::{self, Need};
use crate::process;

const SUITE: &str = "trixie";
/// What a server has, besides what nodes and tests need.
const PACKAGES: [&str; 6] = [
    "systemd-sysv",
    "linux-image-cloud-amd64",
    "systemd-timesyncd",
    "dbus",
    "criu",
    "zstd",
];
/// A folder that is thrown away if this machine dies need not be on its disk before that.
pub(super) const UNSAFE: &str = "--dpkgopt=force-unsafe-io";
/// Sparse; pools of the tests lie on it.
const SIZE: &str = "16G";

/// The emulator's own network: a way to the packages and nowhere else.
const NETWORK: &str = "[Match]\nName=en*\n\n[Network]\nDHCP=ipv4\n";

/// The tests as a service that makes nodes of its own: its control group is delegated to it, as
/// to the daemon of a real node.
fn unit() -> String {
    format!(
        "\
[Unit]
Description=Tests of Vessel
After=network-online.target
Wants=network-online.target

[Service]
# Its start is over at once, and so is the machine's: tests see one that has come up.
Type=exec
Delegate=yes
DelegateSubgroup=daemon
TasksMax=infinity
Environment=HOME=/root TMPDIR=/var/tmp
ExecStart=/payload/run
ExecStopPost=/bin/sh -c 'echo \"{RESULT}$EXIT_STATUS\"; systemctl --no-block poweroff'
StandardOutput=file:/dev/ttyS1
StandardError=file:/dev/ttyS1
TimeoutStartSec=infinity
"
    )
}

/// Makes disk, kernel and first root file system in `folder`, unless they are there for this very
/// recipe.
pub(super) fn build(folder: &Path) -> Result<()> {
    let packages = packages();
    let recipe = format!("{SUITE} {SIZE} {packages}\n{}{NETWORK}", unit());
    if is_built(&folder.join("disk.recipe"), &recipe) {
        return Ok(());
    }
    let root = folder.join("root");
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
    let archive = folder.join("root.tar");
    let mut bootstrap = Command::new("mmdebstrap");
    bootstrap.args(["--quiet", "--variant=important", "--mode=root", UNSAFE]);
    bootstrap.arg(format!("--include={packages}"));
    process::run(bootstrap.arg(SUITE).arg(&archive))?;
    let mut unpack = Command::new("tar");
    unpack.args(["--extract", "--numeric-owner", "--file"]);
    process::run(unpack.arg(&archive).arg("--directory").arg(&root))?;
    configure(&root)?;
    for name in ["vmlinuz", "initrd.img"] {
        let from = root.join(name);
        fs::copy(&from, folder.join(name)).with_context(|| format!("no {}", from.display()))?;
    }
    make_disk(&folder.join("disk.img"), SIZE, &root)?;
    fs::remove_dir_all(&root).context("cannot remove the unpacked machine")?;
    fs::remove_file(&archive).context("cannot remove the packed machine")?;
    note(&folder.join("disk.recipe"), &recipe)
}

/// Whether what a recipe makes is there, as it would be made today.
pub(super) fn is_built(noted: &Path, recipe: &str) -> bool {
    fs::read_to_string(noted).is_ok_and(|built| built == recipe)
}

/// Notes after all work that a recipe's work is done.
pub(super) fn note(noted: &Path, recipe: &str) -> Result<()> {
    fs::write(noted, recipe).with_context(|| format!("cannot write {}", noted.display()))
}

fn packages() -> String {
    let needs = [Need::Node, Need::Tests];
    let all = PACKAGES.into_iter().chain(dependencies::names(&needs));
    all.collect::<Vec<_>>().join(",")
}

/// What a fresh Debian lacks to run the tests unattended.
fn configure(root: &Path) -> Result<()> {
    let unit = unit();
    let files = [
        ("etc/systemd/system/vessel-tests.service", unit.as_str()),
        ("etc/systemd/network/uplink.network", NETWORK),
        ("etc/resolv.conf", "nameserver 10.0.2.3\n"),
        ("etc/hostname", "machine\n"),
        (
            "etc/fstab",
            "/dev/vda / ext4 defaults 0 0\n/dev/vdb /payload ext4 ro 0 0\n",
        ),
    ];
    for (name, text) in files {
        let path = root.join(name);
        let _ = fs::remove_file(&path);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    fs::create_dir_all(root.join("payload")).context("cannot make the payload's folder")?;
    let wanted = root.join("etc/systemd/system/multi-user.target.wants");
    fs::create_dir_all(&wanted).context("cannot make the folder of wanted units")?;
    for (unit, folder) in [
        ("vessel-tests.service", "/etc/systemd/system"),
        ("systemd-networkd.service", "/usr/lib/systemd/system"),
    ] {
        let link = wanted.join(unit);
        let _ = fs::remove_file(&link);
        symlink(format!("{folder}/{unit}"), &link)
            .with_context(|| format!("cannot enable {unit}"))?;
    }
    Ok(())
}
