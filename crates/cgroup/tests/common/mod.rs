//! What the tests on real control groups share. They need root, touch only groups of their own
//! (`vessel-60000` and up), and take them away again.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test binary uses a part"
)]

use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cgroup::{Controller, DetectError, Entry, Layout, NodeGroup, VeGroup};
use ve::VeId;

pub const SECOND: Duration = Duration::from_secs(1);

/// A node of this test alone, that leaves nothing behind.
pub struct Node {
    pub group: NodeGroup,
}

impl Node {
    /// On what this host has. `None`, with the reason printed, where the tests cannot run.
    pub fn open(first_id: u32) -> Option<Self> {
        Self::on(first_id, &Layout::detect().unwrap())
    }

    /// As if cgroup2 were not mounted: pure v1.
    pub fn open_v1(first_id: u32) -> Option<Self> {
        let mut mounts = kernel::proc::mounts().unwrap();
        mounts.retain(|mount| mount.file_system != "cgroup2");
        match Layout::from_parts(&mounts, "", |_| false) {
            Ok(layout) => Self::on(first_id, &layout),
            Err(DetectError::NoneMounted) => {
                println!("not run: no v1 hierarchy is mounted");
                None
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn on(first_id: u32, layout: &Layout) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("not run: control groups need root");
            return None;
        }
        Some(Self {
            group: NodeGroup::open(layout, id(first_id), None).unwrap(),
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for ve in self.group.list().unwrap() {
            self.group.ve(ve).kill_all(5 * SECOND).unwrap();
            self.group.remove(ve).unwrap();
        }
        self.group.clone().close_and_remove().unwrap();
    }
}

/// A process that is killed at the end of the test, whatever its end.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

pub fn id(number: u32) -> VeId {
    VeId::new(number).unwrap()
}

/// Runs a shell script that first enters as the launcher's child would.
pub fn run_in(entry: &Entry, script: &str) -> Command {
    let own = format!("/proc/{}/fd", std::process::id());
    let mut enter = String::from("set -e\n");
    for tasks in &entry.v1_tasks {
        enter += &format!("echo 0 > {own}/{}\n", tasks.as_raw_fd());
    }
    if let Some(directory) = &entry.v2_directory {
        enter += &format!("echo 0 > {own}/{}/cgroup.procs\n", directory.as_raw_fd());
    }
    enter += &format!("set +e\n{script}\n");
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &enter]).stdin(Stdio::null());
    command
}

/// Starts a script in the VE and waits until it entered.
pub fn start(group: &VeGroup, script: &str) -> Process {
    let entry = group.entry().unwrap();
    let child = run_in(&entry, script)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let process = Process(child);
    let own = format!("/{}", group.ve());
    let entered = || {
        let path = format!("/proc/{}/cgroup", process.0.id());
        let groups = std::fs::read_to_string(path).unwrap_or_default();
        groups.lines().filter(|line| line.ends_with(&own)).count()
    };
    let wanted = entry.v1_tasks.len() + usize::from(entry.v2_directory.is_some());
    wait_for("the process to enter", || entered() == wanted);
    process
}

pub fn output(group: &VeGroup, script: &str) -> String {
    let entry = group.entry().unwrap();
    let output = run_in(&entry, script).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn path(group: &VeGroup, controller: Controller) -> PathBuf {
    group
        .v1_path(controller)
        .or_else(|| group.unified_path())
        .unwrap()
}

pub fn value(group: &VeGroup, controller: Controller, v1: &str, v2: &str) -> String {
    let name = if group.v1_path(controller).is_some() {
        v1
    } else {
        v2
    };
    let text = std::fs::read_to_string(path(group, controller).join(name)).unwrap();
    text.trim().to_owned()
}

/// Waits, as long as a busy machine may take.
pub fn wait_for(what: &str, done: impl Fn() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < 30 * SECOND, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
