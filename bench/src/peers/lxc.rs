//! LXC: a container with a link of its own, a filter, and its own overlay.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use bench::users;
use rustix::mount::mount_bind;

use super::Peer;
use crate::command;
use crate::stage::{PEER_ADDRESS, PEER_ID, Stage};

/// Name of its container.
const NAME: &str = "vessel-bench-lxc";

/// Where a container's files and the setting of its root come from.
#[derive(Debug)]
pub(crate) struct Lxc {
    version: String,
    /// Where LXC keeps what it knows.
    path: PathBuf,
    /// A copy of the tree whose files belong to the container's users.
    tree: PathBuf,
}

impl Lxc {
    /// One with the trivial init.
    pub(crate) fn trivial(stage: &Stage, version: String) -> Result<Self> {
        let tree = stage.folder().join("lxc-tree");
        let path = stage.folder().join("lxc");
        if !tree.exists() {
            fs::create_dir(&path).context("cannot make a folder for LXC")?;
            shifted_copy(&stage.folder().join("tree"), &tree)?;
            allow_range(stage.folder())?;
        }
        Ok(Self {
            version,
            path,
            tree,
        })
    }

    fn run(&self, program: &str, words: &[&str]) -> Result<String> {
        let mut command = Command::new(program);
        command.arg("--lxcpath").arg(&self.path);
        command::output(command.args(["--name", NAME]).args(words))
    }

    fn folder(&self) -> PathBuf {
        self.path.join(NAME)
    }
}

impl Peer for Lxc {
    fn name(&self) -> String {
        format!("lxc {}", self.version)
    }

    /// Not `lxc-create`, which takes no root that is yet to be stacked: a folder and a configuration
    /// are what it would make.
    fn create(&mut self) -> Result<()> {
        let folder = self.folder();
        for layer in ["upper", "work"].map(|name| folder.join(name)) {
            fs::create_dir_all(&layer).context("cannot make a layer for LXC")?;
            own(&layer)?;
        }
        let config = config(&self.tree, &folder);
        fs::write(folder.join("config"), config).context("cannot write the configuration")
    }

    fn start(&mut self) -> Result<()> {
        let log = self.path.join("log");
        let words = ["--daemon", "--logpriority", "ERROR", "--logfile"];
        let shown = log.display().to_string();
        let started = self.run("lxc-start", &[&words[..], &[&shown]].concat());
        started
            .map(drop)
            .with_context(|| fs::read_to_string(&log).unwrap_or_default())
    }

    fn init_pid(&mut self) -> Result<u32> {
        let text = self.run("lxc-info", &["--pid", "--no-humanize"])?;
        text.trim().parse().context("lxc-info told no pid")
    }

    fn stop(&mut self) -> Result<()> {
        self.run("lxc-stop", &[]).map(drop)
    }

    fn delete(&mut self) -> Result<()> {
        fs::remove_dir_all(self.folder()).context("cannot remove LXC's container")
    }

    fn clear(&mut self) {
        let _ = self.run("lxc-stop", &["--kill"]);
        let _ = fs::remove_dir_all(self.folder());
        sweep();
    }
}

/// Takes away the groups that LXC leaves: those of a container when it is killed, and always one
/// that its monitor passes through at its end (empty, and made again by whoever needs it).
pub(crate) fn sweep() {
    for hierarchy in fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten()
    {
        let _ = fs::remove_dir(hierarchy.path().join("lxc.pivot"));
    }
    for part in ["payload", "monitor"] {
        super::crun::sweep_groups(&format!("lxc.{part}.{NAME}"));
    }
}

fn config(tree: &Path, folder: &Path) -> String {
    let base = PEER_ID * users::COUNT;
    let count = users::COUNT;
    let (tree, upper) = (tree.display(), folder.join("upper"));
    format!(
        "lxc.rootfs.path = overlay:{tree}:{upper}
lxc.uts.name = lxc
lxc.idmap = u 0 {base} {count}
lxc.idmap = g 0 {base} {count}
lxc.init.cmd = /sbin/init
lxc.signal.halt = SIGTERM
lxc.mount.auto = proc:mixed sys:ro cgroup:mixed
lxc.mount.entry = tmpfs run tmpfs nosuid,nodev,mode=755 0 0
lxc.mount.entry = mqueue dev/mqueue mqueue nosuid,noexec,nodev,create=dir 0 0
lxc.mount.entry = tmpfs dev/shm tmpfs nosuid,nodev,create=dir 0 0
lxc.autodev = 1
lxc.pty.max = 64
lxc.tty.max = 0
lxc.cap.drop = mac_admin mac_override sys_time sys_module sys_rawio
lxc.seccomp.profile = /usr/share/lxc/config/common.seccomp
lxc.net.0.type = veth
lxc.net.0.veth.mode = router
lxc.net.0.veth.pair = vblxc
lxc.net.0.flags = up
lxc.net.0.ipv4.address = {PEER_ADDRESS}/32
lxc.net.0.ipv4.gateway = dev
",
        upper = upper.display()
    )
}

/// LXC uses `newuidmap` where it is installed, also for root, and that gives out what two files
/// allow: those of the bench's own mount namespace.
fn allow_range(folder: &Path) -> Result<()> {
    let text = format!("root:{}:{}\n", PEER_ID * users::COUNT, users::COUNT);
    let file = folder.join("subordinate-ids");
    fs::write(&file, text).context("cannot write the range of ids")?;
    for place in ["/etc/subuid", "/etc/subgid"] {
        if Path::new(place).exists() {
            mount_bind(&file, place).with_context(|| format!("cannot cover {place}"))?;
        }
    }
    Ok(())
}

/// A copy of a tree whose owners are those of the container.
fn shifted_copy(from: &Path, to: &Path) -> Result<()> {
    let copy = ["cp", "--archive", "--no-target-directory"];
    command::output(command::words(&copy).arg(from).arg(to))?;
    let owner = (PEER_ID * users::COUNT).to_string();
    let owner = format!("{owner}:{owner}");
    let chown = ["chown", "--recursive", "--no-dereference", &owner];
    command::output(command::words(&chown).arg(to)).map(drop)
}

fn own(path: &Path) -> Result<()> {
    let root = PEER_ID * users::COUNT;
    std::os::unix::fs::chown(path, Some(root), Some(root)).context("cannot give a folder away")
}
