//! `machine`: a Debian 13 of its own kernel, emulated, to run tests on another kernel and on cgroup v2
//! than this machine's.
//!
//! Emulated in software, so it runs where no nested virtualization is to be had; what an emulated
//! processor does takes ten to twenty times as long, so what runs there is chosen, and what is left
//! out is told. Vessel is installed there as `cargo xtask install` does it.
//!
//! ```text
//! choice    what runs there, and what does not and why
//! disk      Debian as it comes, built once
//! payload   Vessel, the tests, and the script that runs them; built for each run
//! ```
//!
//! The machine boots, installs, tests, tells the result on its second serial line and powers
//! itself off. Nothing listens, and its disks are not written to: every run begins the same.

mod choice;
mod disk;
mod payload;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::dependencies::{self, Need};
use crate::process;
use crate::workspace::Workspace;

const MEMORY_MEBIBYTES: &str = "3072";
/// As many as the machines have that test this, so that neither waits for the other's turn.
const PROCESSORS: &str = "2";
/// How long its disks may take to be found, which systemd would wait for no longer than 90 s: a machine
/// on a busy one boots slowly.
const DEVICES_SECONDS: u32 = 600;
/// An emulated timer that is set anew for each event has missed one on a busy machine, and with it
/// all that come after. One that ticks goes on.
const TIMERS: &str = "nohz=off highres=off";
/// How the machine tells its result, on a line of its own.
const RESULT: &str = "machine: tests exited with ";
/// A machine that says nothing for so long hangs. The slowest test takes three minutes.
const SILENCE_MAX: Duration = Duration::from_secs(900);

/// Where a machine is made and run.
#[derive(Debug)]
struct Machine {
    folder: PathBuf,
}

/// Builds the machine if it is not there, then runs tests on it: the usual ones, or the system
/// tests that arguments select.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    process::need_root("building a machine")?;
    dependencies::install(&[Need::Build, Need::Node, Need::Tests, Need::Machine])?;
    let machine = Machine {
        folder: workspace.target().join("machine"),
    };
    disk::build(&machine.folder)?;
    for line in payload::pack(workspace, &machine.folder, arguments)? {
        println!("left out: {line}");
    }
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

    /// Boots, shows what the tests say and when, and returns their exit code as text.
    fn boot(&self) -> Result<String> {
        let begun = Instant::now();
        let mut emulator = self
            .emulator()
            .spawn()
            .context("cannot run `qemu-system-x86_64`")?;
        let told = self.listen(&mut emulator, begun);
        if told.is_err() {
            let _ = emulator.kill();
        }
        emulator.wait().context("cannot wait for the emulator")?;
        told?.with_context(|| {
            format!(
                "the machine told no result; its console is in {}",
                self.path("console.log").display()
            )
        })
    }

    /// Passes on what the machine says until it says no more; the result, if it told one.
    fn listen(&self, emulator: &mut Child, begun: Instant) -> Result<Option<String>> {
        let output = emulator.stdout.take();
        let output = output.context("the emulator has no output")?;
        let (said, heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).split(b'\n') {
                if said.send(line).is_err() {
                    return;
                }
            }
        });
        let mut code = None;
        loop {
            let line = match heard.recv_timeout(SILENCE_MAX) {
                Ok(line) => line.context("cannot read what the machine says")?,
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return Ok(code),
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => bail!(
                    "the machine has said nothing for {} s; its console is in {}",
                    SILENCE_MAX.as_secs(),
                    self.path("console.log").display()
                ),
            };
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end();
            println!("{:5} s  {line}", begun.elapsed().as_secs());
            code = line.strip_prefix(RESULT).map(str::to_owned).or(code);
        }
    }

    fn emulator(&self) -> Command {
        let mut emulator = Command::new("qemu-system-x86_64");
        emulator.args(["-accel", "tcg,thread=multi", "-cpu", "max"]);
        emulator.args(["-smp", PROCESSORS, "-m", MEMORY_MEBIBYTES]);
        emulator.args(["-display", "none", "-no-reboot", "-nodefaults"]);
        emulator.args(["-nic", "user,model=virtio-net-pci"]);
        emulator.arg("-kernel").arg(self.path("vmlinuz"));
        emulator.arg("-initrd").arg(self.path("initrd.img"));
        let devices = format!("systemd.default_device_timeout_sec={DEVICES_SECONDS}");
        let append = format!("console=ttyS0 root=/dev/vda rw quiet {TIMERS} {devices}");
        emulator.arg("-append").arg(append);
        for name in ["disk.img", "payload.img"] {
            let file = self.path(name);
            let drive = format!("file={},if=virtio,format=raw,snapshot=on", file.display());
            emulator.arg("-drive").arg(drive);
        }
        let console = format!("file:{}", self.path("console.log").display());
        emulator.arg("-serial").arg(console);
        emulator.args(["-serial", "stdio"]);
        emulator.stdin(Stdio::null()).stdout(Stdio::piped());
        emulator
    }
}

/// A sparse ext4 with a folder's files, made without mounting anything.
fn make_disk(path: &Path, size: &str, from: &Path) -> Result<()> {
    let _ = std::fs::remove_file(path);
    let mut make = Command::new("mkfs.ext4");
    process::run(make.args(["-q", "-F", "-d"]).arg(from).arg(path).arg(size))
}
