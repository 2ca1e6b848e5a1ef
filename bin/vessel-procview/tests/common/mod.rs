//! A server for tests, as the launcher starts it, with a VE that is a group and nothing else.
#![allow(
    dead_code,
    clippy::print_stdout,
    reason = "tests, each using its own part"
)]

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cgroup::{Controller, Layout, NodeGroup, VeGroup};
use kernel::packet;
use procview::control::{Init, Notice, Order};
use procview::mount::FileSystem;
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use ve::VeId;

/// Long for anything that a test waits for, on a busy machine under emulation.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A mounted view, its server, and the groups that it is about.
pub(crate) struct Stage {
    pub(crate) file_system: FileSystem,
    pub(crate) spare: OwnedFd,
    pub(crate) channel: OwnedFd,
    pub(crate) server: Option<Child>,
    pub(crate) group: Option<NodeGroup>,
    pub(crate) first_id: u32,
    pub(crate) ves: Vec<VeGroup>,
    folder: tempfile::TempDir,
}

impl Stage {
    /// Makes everything, with so many VEs, or says why this machine cannot.
    pub(crate) fn new(first_id: u32, ves: u32) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: mounting needs root");
            return None;
        }
        if let Err(error) = File::open("/dev/fuse") {
            println!("skipped: this machine has no FUSE: {error}");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        for name in ["run", "mnt"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let group = NodeGroup::open(
            &Layout::detect().unwrap(),
            VeId::new(first_id).unwrap(),
            None,
        );
        let group = group.unwrap();
        let numbers = first_id + 1..=first_id + ves;
        let ves = numbers
            .map(|n| group.create(VeId::new(n).unwrap()).unwrap())
            .collect();
        let file_system = FileSystem::make().unwrap();
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(
            &file_system.mount,
            "",
            CWD,
            folder.path().join("mnt"),
            flags,
        )
        .unwrap();
        let spare = file_system.mount.try_clone().unwrap();
        let (channel, theirs) = Self::channel();
        drop(theirs);
        let mut stage = Self {
            file_system,
            spare,
            channel,
            server: None,
            group: Some(group),
            first_id,
            ves,
            folder,
        };
        stage.start(String::new());
        Some(stage)
    }

    fn channel() -> (OwnedFd, OwnedFd) {
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        socketpair(family, kind, SocketFlags::CLOEXEC, None).unwrap()
    }

    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }

    /// Starts a server on the connection.
    pub(crate) fn start(&mut self, history: String) {
        let (ours, theirs) = Self::channel();
        self.channel = ours;
        let server = Command::new(env!("CARGO_BIN_EXE_vessel-procview"))
            .arg("--root")
            .arg(self.root())
            .stdin(Stdio::from(theirs))
            .spawn()
            .unwrap();
        self.server = Some(server);
        let first_id = self.first_id;
        let given = [self.file_system.device.as_fd(), self.spare.as_fd()];
        let order = serde_json::to_vec(&Order::Serve { first_id, history }).unwrap();
        packet::send(&self.channel, &order, &given).unwrap();
    }

    pub(crate) fn tell(&self, order: &Order) {
        packet::send(&self.channel, &serde_json::to_vec(order).unwrap(), &[]).unwrap();
    }

    /// Tells of an init of the first VE: this process.
    pub(crate) fn begin(&self) -> Init {
        let init = Init {
            id: self.ves[0].ve().get(),
            pid: std::process::id(),
            start_time: kernel::proc::start_time(std::process::id())
                .unwrap()
                .ticks(),
        };
        self.tell(&Order::Ve(init));
        init
    }

    /// Waits until the server says that it works, and what it knows.
    pub(crate) fn hear_history(&self) -> String {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let packet = packet::receive(&self.channel)
                .unwrap()
                .expect("the server ended");
            let notice = serde_json::from_slice(&packet.bytes).unwrap();
            if let Notice::Alive {
                history: Some(history),
            } = notice
            {
                return history;
            }
        }
        panic!("the server does not say that it lives");
    }

    /// Kills the server as a crash would.
    pub(crate) fn kill(&mut self) {
        let mut server = self.server.take().unwrap();
        server.kill().unwrap();
        server.wait().unwrap();
    }

    /// Where a file of a VE is, the first being 0.
    pub(crate) fn path(&self, ve: usize, name: &str) -> PathBuf {
        self.root()
            .join(format!("mnt/{}/{name}", self.ves[ve].ve()))
    }

    pub(crate) fn read(&self, ve: usize, name: &str) -> String {
        let path = self.path(ve, name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Writes a control file of a VE, by its name in either version.
    pub(crate) fn limit(&self, ve: usize, limits: &cgroup::Limits) {
        let applied = self.ves[ve].apply(limits);
        assert!(applied.is_complete(), "{applied:?}");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
        let _ = unmount(self.root().join("mnt"), UnmountFlags::DETACH);
        if let Some(group) = self.group.take() {
            for ve in &self.ves {
                let _ = ve.kill_all(PATIENCE);
                let _ = group.remove(ve.ve());
            }
            let _ = group.close_and_remove();
        }
    }
}

/// Lets threads that watch a flag end when it goes: a scope waits for its threads, also when the
/// assertions in it fail.
pub(crate) struct Ending<'a>(pub(crate) &'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A process in a VE's group; it ends with this, and by itself when this program was killed.
pub(crate) struct Guest(Child);

/// Processor time that a guest may use, in seconds.
const GUEST_SECONDS: u64 = 120;

/// Runs a shell's command in a VE's group.
pub(crate) fn enter(ve: &VeGroup, command: &str) -> Guest {
    let v1 = Controller::ALL
        .iter()
        .filter_map(|controller| ve.v1_path(*controller));
    let files = v1
        .map(|path| path.join("tasks"))
        .chain(ve.unified_path().map(|path| path.join("cgroup.procs")))
        .filter(|path| path.exists());
    let moves: String = files
        .map(|path| format!("echo $$ > {}; ", path.display()))
        .collect();
    let mut shell = Command::new("sh");
    let limit = format!("ulimit -t {GUEST_SECONDS}; ");
    shell.arg("-c").arg(limit + &moves + command);
    shell.stdin(Stdio::null());
    Guest(shell.stdout(Stdio::null()).spawn().unwrap())
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The number in kB behind a name of `meminfo`.
pub(crate) fn meminfo(text: &str, name: &str) -> u64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let line = line.unwrap_or_else(|| panic!("no {name} in {text}"));
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Reads a file in pieces of a size, as a shell does.
pub(crate) fn read_in_pieces(path: &Path, size: usize) -> String {
    let mut file = File::open(path).unwrap();
    let mut text = Vec::new();
    let mut piece = vec![0; size];
    loop {
        match file.read(&mut piece).unwrap() {
            0 => return String::from_utf8(text).unwrap(),
            count => text.extend(&piece[..count]),
        }
    }
}
