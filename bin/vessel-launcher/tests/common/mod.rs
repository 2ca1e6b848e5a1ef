//! A node for tests: a launcher on a folder of its own, and trees to start.
#![allow(
    dead_code,
    clippy::print_stdout,
    reason = "tests, each using its own part"
)]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use runtime::{
    CgroupEntry, Client, ConsoleLog, Event, Events, ExecSpec, ExecStreams, InitKind, LaunchSpec,
    Lower, RootSpec,
};
use ve::{Exit, VeId};

/// Long for anything that a test waits for, on a busy machine under emulation.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A launcher and the folder that it works in; both go with it.
pub(crate) struct Node {
    pub(crate) client: Client,
    pub(crate) events: Events,
    folder: tempfile::TempDir,
}

impl Node {
    /// Starts a launcher, or says why this machine cannot.
    pub(crate) fn start() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: starting VEs needs root");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        for name in ["run", "log", "private"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let binary = Path::new(env!("CARGO_BIN_EXE_vessel-launcher"));
        runtime::launcher::spawn(binary, folder.path()).unwrap();
        let (client, events) = Client::connect(folder.path()).unwrap();
        Some(Self {
            client,
            events,
            folder,
        })
    }

    /// Starts another launcher in place of one that died.
    pub(crate) fn restart(&mut self) {
        let binary = Path::new(env!("CARGO_BIN_EXE_vessel-launcher"));
        runtime::launcher::spawn(binary, self.root()).unwrap();
        self.reconnect();
    }

    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }

    /// Connects anew, as a daemon does that was started again.
    pub(crate) fn reconnect(&mut self) {
        (self.client, self.events) = Client::connect(self.root()).unwrap();
    }

    /// A specification over a plain directory, with a fresh private area.
    pub(crate) fn spec(&self, id: u32, lower: &Path) -> LaunchSpec {
        let id = VeId::new(id).unwrap();
        let private = self.root().join(format!("private/{id}"));
        for name in ["upper", "work"] {
            fs::create_dir_all(private.join(name)).unwrap();
        }
        let console = ConsoleLog {
            path: self.log(id),
            bytes_max: 1 << 20,
        };
        let root = RootSpec {
            lower: Lower::Directory(lower.to_owned()),
            private,
        };
        LaunchSpec {
            kind: InitKind::Other,
            ..LaunchSpec::new(id, "guest", root, console)
        }
    }

    pub(crate) fn log(&self, id: VeId) -> PathBuf {
        self.root().join(format!("log/{id}.log"))
    }

    pub(crate) fn console(&self, id: VeId) -> String {
        fs::read_to_string(self.log(id)).unwrap_or_default()
    }

    /// Waits for the end of a VE.
    pub(crate) fn wait_exit(&self, wanted: VeId) -> Exit {
        while let Some(event) = self.events.next_within(PATIENCE) {
            if let Event::Exited { id, pid, exit } = event
                && id == wanted
            {
                self.client.acknowledge(id, pid).unwrap();
                return exit;
            }
        }
        panic!(
            "VE {wanted} did not end; its console:\n{}",
            self.console(wanted)
        );
    }

    /// Waits until a VE is ready.
    pub(crate) fn wait_ready(&self, wanted: VeId) {
        while let Some(event) = self.events.next_within(PATIENCE) {
            if matches!(event, Event::Ready { id, .. } if id == wanted) {
                return;
            }
        }
        panic!(
            "VE {wanted} did not get ready; its console:\n{}",
            self.console(wanted)
        );
    }

    /// Runs a shell command in a VE; its code and what it wrote.
    pub(crate) fn shell(&self, id: VeId, command: &str) -> (i32, String) {
        self.shell_as(id, "root", command)
    }

    pub(crate) fn shell_as(&self, id: VeId, user: &str, command: &str) -> (i32, String) {
        self.run(id, user, command, &CgroupEntry::default())
    }

    /// As [`Node::shell`], in control groups.
    pub(crate) fn shell_in(
        &self,
        id: VeId,
        command: &str,
        groups: &CgroupEntry<'_>,
    ) -> (i32, String) {
        self.run(id, "root", command, groups)
    }

    fn run(&self, id: VeId, user: &str, command: &str, groups: &CgroupEntry<'_>) -> (i32, String) {
        let spec = ExecSpec {
            command: ["/bin/sh", "-c", command].map(str::to_owned).to_vec(),
            user: user.to_owned(),
            environment: Vec::new(),
            directory: None,
            login: false,
            terminal: None,
            open_files: runtime::open_files(None),
        };
        let (read, write) = std::io::pipe().unwrap();
        let null = fs::File::open("/dev/null").unwrap();
        use std::os::fd::AsFd as _;
        let streams = ExecStreams {
            input: null.as_fd(),
            output: write.as_fd(),
            error: write.as_fd(),
        };
        let task = self.client.exec(id, &spec, Some(streams), groups).unwrap();
        drop(write);
        let text = std::io::read_to_string(read).unwrap();
        (task.wait().unwrap().code, text)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for status in self.client.list().unwrap_or_default() {
            let _ = self.client.kill(status.id);
        }
        let deadline = std::time::Instant::now() + PATIENCE;
        while std::time::Instant::now() < deadline {
            for status in self.client.list().unwrap_or_default() {
                let _ = self.client.acknowledge(status.id, status.init.pid);
            }
            if self.client.shutdown().is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A tree with busybox and nothing else, or why there is none.
pub(crate) fn busybox_tree(folder: &Path, inittab: &str) -> Option<PathBuf> {
    let busybox = [
        "/bin/busybox",
        "/usr/bin/busybox",
        "/tmp/runtime/bb/bin/busybox",
    ]
    .into_iter()
    .find(|path| Path::new(path).exists());
    let Some(busybox) = busybox else {
        println!("skipped: this test needs busybox (package busybox-static)");
        return None;
    };
    let tree = folder.join("tree");
    for name in [
        "bin", "sbin", "etc", "proc", "sys", "dev", "run", "root", "tmp",
    ] {
        fs::create_dir_all(tree.join(name)).unwrap();
    }
    fs::copy(busybox, tree.join("bin/busybox")).unwrap();
    let list = Command::new(busybox).arg("--list").output().unwrap();
    for name in String::from_utf8(list.stdout).unwrap().lines() {
        if name != "busybox" {
            let _ = symlink("busybox", tree.join("bin").join(name));
        }
    }
    symlink("../bin/busybox", tree.join("sbin/init")).unwrap();
    fs::write(tree.join("etc/inittab"), inittab).unwrap();
    fs::write(
        tree.join("etc/passwd"),
        "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/tmp:/bin/sh\n",
    )
    .unwrap();
    fs::write(
        tree.join("etc/group"),
        "root:x:0:\nweb:x:33:\nextra:x:50:web\n",
    )
    .unwrap();
    fs::write(tree.join("etc/shadow"), "root:*:1::::::\n").unwrap();
    fs::set_permissions(tree.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    chown(&tree, Some(0), Some(0)).unwrap();
    Some(tree)
}

/// An inittab whose VE waits until it is told to end.
pub(crate) const IDLE: &str = "::sysinit:/bin/echo booted\n::respawn:/bin/sleep 1000\n\
                               ::shutdown:/bin/echo going down\n";
