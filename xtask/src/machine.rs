//! `machine`: a Debian 13 of its own kernel, emulated, to run the system tests on another kernel
//! and on cgroup v2 than this machine's.
//!
//! Emulated in software, so it runs where no nested virtualization is to be had. What is tested
//! comes on a second disk; the machine boots, runs it, tells the result on its second serial line
//! and powers itself off. Nothing listens, and its disk is not written to: every run begins the same.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::dependencies::{self, Need};
use crate::process;
use crate::workspace::Workspace;

const SUITE: &str = "trixie";
/// What a server has, besides what nodes and tests need.
const PACKAGES: [&str; 5] = [
    "systemd-sysv",
    "linux-image-cloud-amd64",
    "systemd-timesyncd",
    "dbus",
    "zstd",
];
/// What a node consists of.
const PROGRAMS: [&str; 4] = ["vessel", "vesseld", "vessel-launcher", "vessel-procview"];

/// Sparse; pools of the tests lie on it.
const DISK_SIZE: &str = "16G";
const MEMORY_MEBIBYTES: &str = "3072";
/// An emulated processor does in this many seconds what a real one does in one.
const SLOWNESS: &str = "12";
/// How the machine tells its result, on a line of its own.
const RESULT: &str = "machine: tests exited with ";

/// The tests as a service, like the daemon on a real node: own control group, delegated to it.
const UNIT: &str = "\
[Unit]
Description=System tests of Vessel
After=network-online.target
Wants=network-online.target

[Service]
Type=oneshot
Delegate=yes
Environment=TMPDIR=/var/tmp VESSEL_PROGRAMS=/payload
EnvironmentFile=/payload/environment
ExecStart=/payload/system $ARGUMENTS
ExecStopPost=/bin/sh -c 'echo \"machine: tests exited with $EXIT_STATUS\"; systemctl --no-block poweroff'
StandardOutput=file:/dev/ttyS1
StandardError=file:/dev/ttyS1
TimeoutStartSec=infinity
";

/// The emulator's own network: a way to the packages and nowhere else.
const NETWORK: &str = "[Match]\nName=en*\n\n[Network]\nDHCP=ipv4\n";

struct Machine {
    folder: PathBuf,
}

/// Builds the machine if it is not there, then runs the system tests on it.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    process::need_root("building a machine")?;
    dependencies::install(&[Need::Build, Need::Node, Need::Tests, Need::Machine])?;
    let machine = Machine {
        folder: workspace.target().join("machine"),
    };
    machine.build()?;
    machine.pack(workspace, arguments)?;
    let code = machine.boot()?;
    if code != "0" {
        bail!(
            "the tests on the machine failed; its console is in {}",
            machine.path("console.log").display()
        );
    }
    Ok(())
}

impl Machine {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Makes disk, kernel and first root file system, unless they are there for this very recipe.
    fn build(&self) -> Result<()> {
        let packages = recipe();
        let recipe = format!("{SUITE} {DISK_SIZE} {packages}\n{UNIT}{NETWORK}");
        if fs::read_to_string(self.path("recipe")).is_ok_and(|built| built == recipe) {
            return Ok(());
        }
        let root = self.path("root");
        let _ = fs::remove_dir_all(&self.folder);
        fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
        let archive = self.path("root.tar");
        let mut bootstrap = Command::new("mmdebstrap");
        bootstrap
            .args(["--variant=important", "--mode=root"])
            .arg(format!("--include={packages}"));
        process::run(bootstrap.arg(SUITE).arg(&archive))?;
        let mut unpack = Command::new("tar");
        process::run(
            unpack
                .args(["--extract", "--numeric-owner", "--file"])
                .arg(&archive)
                .arg("--directory")
                .arg(&root),
        )?;
        configure(&root)?;
        for name in ["vmlinuz", "initrd.img"] {
            let from = root.join(name);
            fs::copy(&from, self.path(name)).with_context(|| format!("no {}", from.display()))?;
        }
        make_disk(&self.path("disk.img"), DISK_SIZE, &root)?;
        fs::remove_dir_all(&root).context("cannot remove the unpacked machine")?;
        fs::remove_file(&archive).context("cannot remove the packed machine")?;
        fs::write(self.path("recipe"), recipe).context("cannot note the recipe")
    }

    /// Puts the built programs, the tests and their arguments on the second disk.
    fn pack(&self, workspace: &Workspace, arguments: &[String]) -> Result<()> {
        let mut build = Command::new(env!("CARGO"));
        build
            .current_dir(workspace.root())
            .args(["build", "--release", "--locked"]);
        build.args(PROGRAMS.iter().flat_map(|name| ["-p", name]));
        process::run(&mut build)?;
        let payload = self.path("payload");
        let _ = fs::remove_dir_all(&payload);
        fs::create_dir_all(&payload).context("cannot make a folder for the programs")?;
        for name in PROGRAMS {
            copy(
                &workspace.target().join("release").join(name),
                &payload.join(name),
            )?;
        }
        copy(&test_program(workspace)?, &payload.join("system"))?;
        let arguments = arguments.join(" ");
        let environment = format!("ARGUMENTS={arguments}\nVESSEL_SLOWNESS={SLOWNESS}\n");
        fs::write(payload.join("environment"), environment)
            .context("cannot write the arguments")?;
        make_disk(&self.path("payload.img"), "1G", &payload)
    }

    /// Boots, shows what the tests say, and returns their exit code as text.
    fn boot(&self) -> Result<String> {
        let drive = |name: &str| {
            format!(
                "file={},if=virtio,format=raw,snapshot=on",
                self.path(name).display()
            )
        };
        let mut emulator = Command::new("qemu-system-x86_64");
        emulator.args([
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            "2",
            "-m",
            MEMORY_MEBIBYTES,
        ]);
        emulator.args([
            "-display",
            "none",
            "-no-reboot",
            "-nodefaults",
            "-nic",
            "user,model=virtio-net-pci",
        ]);
        emulator
            .arg("-kernel")
            .arg(self.path("vmlinuz"))
            .arg("-initrd")
            .arg(self.path("initrd.img"));
        emulator.args(["-append", "console=ttyS0 root=/dev/vda rw quiet"]);
        emulator.args([
            "-drive",
            &drive("disk.img"),
            "-drive",
            &drive("payload.img"),
        ]);
        emulator
            .arg("-serial")
            .arg(format!("file:{}", self.path("console.log").display()));
        emulator
            .args(["-serial", "stdio"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = emulator
            .spawn()
            .context("cannot run `qemu-system-x86_64`")?;
        let output = child.stdout.take().context("the emulator has no output")?;
        let mut code = None;
        for line in BufReader::new(output).lines() {
            let line = line.context("cannot read what the machine says")?;
            let line = line.trim_end();
            println!("{line}");
            code = line.strip_prefix(RESULT).map(str::to_owned).or(code);
        }
        child.wait().context("cannot wait for the emulator")?;
        code.with_context(|| {
            format!(
                "the machine told no result; its console is in {}",
                self.path("console.log").display()
            )
        })
    }
}

fn recipe() -> String {
    let needs = [Need::Node, Need::Tests];
    let all = PACKAGES.into_iter().chain(dependencies::names(&needs));
    all.collect::<Vec<_>>().join(",")
}

/// What a fresh Debian lacks to run the tests unattended.
fn configure(root: &Path) -> Result<()> {
    let files = [
        ("etc/systemd/system/vessel-tests.service", UNIT),
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

/// A sparse ext4 with a folder's files, made without mounting anything.
fn make_disk(path: &Path, size: &str, from: &Path) -> Result<()> {
    let _ = fs::remove_file(path);
    let mut make = Command::new("mkfs.ext4");
    process::run(make.args(["-q", "-F", "-d"]).arg(from).arg(path).arg(size))
}

/// Builds the system tests and asks Cargo where they are.
fn test_program(workspace: &Workspace) -> Result<PathBuf> {
    let mut build = Command::new(env!("CARGO"));
    build.current_dir(workspace.root()).args([
        "test",
        "--release",
        "--locked",
        "-p",
        "system-tests",
    ]);
    let messages = process::output(build.args(["--no-run", "--message-format", "json"]))?;
    let mut paths = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_test = message["target"]["name"] == "system";
        message["executable"]
            .as_str()
            .filter(|_| is_test)
            .map(PathBuf::from)
    });
    paths.next_back().context("Cargo built no system tests")
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).context("cannot make it executable")
}
