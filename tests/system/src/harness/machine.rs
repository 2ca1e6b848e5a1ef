//! The machine around the tests: what belongs to a node on it, and taking that away by force.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{command, slowness};

/// Ids between one test node and the next. No test makes as many VEs.
pub(crate) const IDS_PER_PLACE: u32 = 300;
/// How many test nodes the range of ids holds.
const PLACES: u32 = 200;
/// First id of the first place.
const FIRST_ID: u32 = 1_000;

/// Where a node under test lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// One of the places for test nodes on this machine. Its network namespace is the lock on it.
    Test(u32),
    /// The machine's own: the node that is installed there as a service.
    Machine,
}

impl Place {
    /// Takes a free place. Several runs of the tests on one machine get different ones.
    pub(crate) fn take() -> Result<Self> {
        let start = std::process::id();
        for step in 0..PLACES {
            let place = Self::Test((start.wrapping_mul(7) + step) % PLACES);
            let added = ip(&["netns", "add", &place.name()])?;
            if added.code == 0 {
                fs::create_dir_all(place.folder()).context("cannot make a folder for a node")?;
                fs::write(place.folder().join("owner"), std::process::id().to_string())
                    .context("cannot mark a place as taken")?;
                return Ok(place);
            }
            if !added.stderr.contains("File exists") {
                bail!("cannot make a network namespace: {added}");
            }
        }
        bail!("all {PLACES} places for test nodes are taken: see `ip netns`")
    }

    /// Takes the machine's own place, which one test at a time may have.
    pub(crate) fn take_machine() -> Result<Self> {
        let place = Self::Machine;
        fs::create_dir_all(place.folder()).context("cannot make a folder for a node")?;
        Ok(place)
    }

    /// Name of everything of this place that has a name.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Test(number) => format!("vessel-test-{number}"),
            Self::Machine => "vessel-test-machine".to_owned(),
        }
    }

    /// A folder for what the test writes down, and for the node's root if it is a test's.
    pub(crate) fn folder(self) -> PathBuf {
        std::env::temp_dir().join(self.name())
    }

    /// The node's root folder.
    pub(crate) fn root(self) -> PathBuf {
        match self {
            Self::Test(_) => self.folder().join("node"),
            Self::Machine => PathBuf::from("/var/lib/vessel"),
        }
    }

    /// Where the network namespace can be entered.
    pub(crate) fn network_namespace(self) -> String {
        match self {
            Self::Test(_) => format!("/run/netns/{}", self.name()),
            Self::Machine => "/proc/1/ns/net".to_owned(),
        }
    }

    /// Runs a program of this machine in the network namespace.
    pub(crate) fn run_inside(self, words: &[&str]) -> Result<command::Output> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.network_namespace()));
        command::run(command.arg("--").args(words))
    }

    /// The first id of the node's VEs.
    pub(crate) fn first_id(self) -> u32 {
        match self {
            Self::Test(number) => FIRST_ID + number * IDS_PER_PLACE,
            // What `vessel init` chooses.
            Self::Machine => 100,
        }
    }

    /// Everything on the machine that belongs to the node of this place.
    pub(crate) fn traces(self) -> BTreeSet<String> {
        let root = self.root();
        let text = root.display().to_string();
        let mut traces = BTreeSet::new();
        if root.exists() {
            traces.insert(text.clone());
        }
        for process in self.processes() {
            let line =
                fs::read(format!("/proc/{}/cmdline", process.as_raw_nonzero())).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            traces.insert(format!("process {}: {line}", process.as_raw_nonzero()));
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        traces.extend(
            mounts
                .lines()
                .filter(|line| line.contains(&text))
                .map(|l| format!("mount {l}")),
        );
        traces.extend(
            loop_devices(&text)
                .iter()
                .map(|path| format!("loop device {path}")),
        );
        traces.extend(
            self.control_groups()
                .iter()
                .map(|path| format!("control group {}", path.display())),
        );
        traces
    }

    /// Processes of the node's programs and of its VEs.
    fn processes(self) -> Vec<Pid> {
        let root = self.root().display().to_string();
        let group = format!("/vessel-{}/", self.first_id());
        all_processes()
            .into_iter()
            .filter(|pid| {
                let folder = format!("/proc/{}", pid.as_raw_nonzero());
                let line = fs::read(format!("{folder}/cmdline")).unwrap_or_default();
                let groups = fs::read_to_string(format!("{folder}/cgroup")).unwrap_or_default();
                String::from_utf8_lossy(&line).contains(&root) || groups.contains(&group)
            })
            .collect()
    }

    /// The node's control groups in every hierarchy, deepest first.
    pub(crate) fn control_groups(self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let name = format!("vessel-{}", self.first_id());
        find_folders(Path::new("/sys/fs/cgroup"), &name, 4, &mut found);
        let mut all = Vec::new();
        for group in found {
            descend(&group, &mut all);
        }
        all
    }

    /// Ends all processes of the place, and removes their control groups.
    pub(crate) fn end_processes(self) {
        for _ in 0..3 {
            for process in self.processes() {
                let _ = kill_process(process, Signal::KILL);
            }
            if settled(|| self.processes().is_empty()) {
                break;
            }
        }
        let _ = settled(|| {
            for group in self.control_groups() {
                let _ = fs::remove_dir(group);
            }
            self.control_groups().is_empty()
        });
    }

    /// Takes away by force whatever belongs to this place, and the place itself.
    pub(crate) fn sweep(self) {
        self.end_processes();
        for device in loop_devices(&self.root().display().to_string()) {
            let _ = command::run(Command::new("losetup").args(["--detach", &device]));
        }
        let _ = fs::remove_dir_all(self.root());
        let _ = fs::remove_dir_all(self.folder());
        if let Self::Test(number) = self {
            let _ = ip(&["link", "del", &format!("vt{number}")]);
            let _ = command::run(Command::new("nft").args(["delete", "table", "ip", &self.name()]));
            // Last, because whoever can make it again owns the place.
            let _ = ip(&["netns", "del", &self.name()]);
        }
    }
}

/// Sweeps the places that test programs left which are no more (they were killed).
pub(crate) fn sweep_abandoned() -> Result<()> {
    for number in 0..PLACES {
        let place = Place::Test(number);
        let Ok(owner) = fs::read_to_string(place.folder().join("owner")) else {
            continue;
        };
        if !Path::new("/proc").join(owner.trim()).exists() {
            place.sweep();
        }
    }
    Ok(())
}

/// Runs `ip`.
pub(crate) fn ip(arguments: &[&str]) -> Result<command::Output> {
    command::run(Command::new("ip").args(arguments))
}

/// Every process of the machine.
pub(crate) fn all_processes() -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let numbers = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter_map(Pid::from_raw).collect()
}

/// Loop devices whose file's path contains a text.
pub(super) fn loop_devices(text: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir("/sys/block") else {
        return Vec::new();
    };
    let ours = entries.flatten().filter(|entry| {
        fs::read_to_string(entry.path().join("loop/backing_file")).is_ok_and(|f| f.contains(text))
    });
    ours.map(|entry| format!("/dev/{}", entry.file_name().display()))
        .collect()
}

fn find_folders(below: &Path, name: &str, depth: u32, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(below) else {
        return;
    };
    for entry in entries.flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_str() == Some(name) {
            found.push(entry.path());
        } else if depth > 0 {
            find_folders(&entry.path(), name, depth - 1, found);
        }
    }
}

fn descend(group: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            descend(&entry.path(), all);
        }
    }
    all.push(group.to_owned());
}

/// Waits a moment for something that the kernel does after the fact.
fn settled(mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(3) * slowness();
    loop {
        if done() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
