//! LXC: a container with a link of its own, a filter, and its own overlay where the tree is small.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use bench::users;
use rustix::mount::mount_bind;

use super::Peer;
use super::stacked::Stacked;
use crate::command;
use crate::stage::{PEER_ADDRESS, PEER_ID, Stage};

/// Names of its containers.
const TRIVIAL: &str = "vessel-bench-lxc";
const DEBIAN: &str = "vessel-bench-lxc-debian";

/// One container.
#[derive(Debug)]
pub(crate) struct Lxc {
    version: String,
    /// Where LXC keeps what it knows.
    path: PathBuf,
    name: &'static str,
    root: Root,
}

/// Where its root comes from.
#[derive(Debug)]
enum Root {
    /// LXC's own overlay over a tree whose files belong to the container's users.
    Overlay(PathBuf),
    /// One that is mounted for it: a copy of a whole Debian would lose its set-user-id programs.
    Mounted(Stacked),
}

impl Lxc {
    /// One with the trivial init.
    pub(crate) fn trivial(stage: &Stage, version: String) -> Result<Self> {
        let tree = stage.folder().join("lxc-tree");
        shifted_copy(&stage.folder().join("tree"), &tree)?;
        Self::new(stage, version, TRIVIAL, Root::Overlay(tree))
    }

    /// One with a Debian.
    pub(crate) fn debian(stage: &Stage, version: String, tree: &Path) -> Result<Self> {
        let folder = stage.folder().join("lxc").join(DEBIAN);
        let root = Stacked::new(stage, tree, &folder)?;
        Self::new(stage, version, DEBIAN, Root::Mounted(root))
    }

    fn new(stage: &Stage, version: String, name: &'static str, root: Root) -> Result<Self> {
        let path = stage.folder().join("lxc");
        if !path.exists() {
            fs::create_dir(&path).context("cannot make a folder for LXC")?;
            allow_range(stage.folder())?;
        }
        Ok(Self {
            version,
            path,
            name,
            root,
        })
    }

    fn run(&self, program: &str, words: &[&str]) -> Result<String> {
        let mut command = Command::new(program);
        command.arg("--lxcpath").arg(&self.path);
        command::output(command.args(["--name", self.name]).args(words))
    }

    fn folder(&self) -> PathBuf {
        self.path.join(self.name)
    }

    fn prepare_root(&self) -> Result<()> {
        match &self.root {
            Root::Overlay(_) => {
                for layer in ["upper", "work"].map(|name| self.folder().join(name)) {
                    fs::create_dir(&layer).context("cannot make a layer for LXC")?;
                    own(&layer)?;
                }
                Ok(())
            }
            Root::Mounted(root) => {
                root.prepare()?;
                root.mount()
            }
        }
    }

    fn config(&self) -> String {
        match &self.root {
            Root::Overlay(tree) => {
                let (tree, upper) = (tree.display(), self.folder().join("upper"));
                let root = format!("lxc.rootfs.path = overlay:{tree}:{}\n", upper.display());
                root + FOR_TRIVIAL + &for_both()
            }
            Root::Mounted(root) => {
                let root = format!("lxc.rootfs.path = dir:{}\n", root.root().display());
                root + FOR_DEBIAN + &for_both()
            }
        }
    }
}

impl Peer for Lxc {
    fn name(&self) -> String {
        format!("lxc {}", self.version)
    }

    /// Not `lxc-create`, which takes no root that is yet to be stacked: a folder and a configuration
    /// are what it would make.
    fn create(&mut self) -> Result<()> {
        fs::create_dir(self.folder()).context("cannot make LXC's folder")?;
        self.prepare_root()?;
        fs::write(self.folder().join("config"), self.config())
            .context("cannot write LXC's configuration")
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
        if let Root::Mounted(root) = &self.root {
            root.unmount();
        }
        fs::remove_dir_all(self.folder()).context("cannot remove LXC's container")
    }

    fn clear(&mut self) {
        let _ = self.run("lxc-stop", &["--kill"]);
        let _ = self.delete();
        sweep();
    }
}

/// Takes away the groups that LXC leaves: those of a container when it is killed, and always one
/// that its monitor passes through at its end (empty, and made again by whoever needs it).
pub(crate) fn sweep() {
    for name in [TRIVIAL, DEBIAN] {
        for part in ["payload", "monitor"] {
            super::groups::sweep(&format!("lxc.{part}.{name}"));
        }
    }
    for hierarchy in fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten()
    {
        let _ = fs::remove_dir(hierarchy.path().join("lxc.pivot"));
    }
}

/// What LXC's own configurations for distributions give a container, as far as it is not about
/// devices and terminals of a login.
const FOR_TRIVIAL: &str = "\
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
";

/// What `lxc-create --template download` writes for a Debian.
const FOR_DEBIAN: &str = "\
lxc.include = /usr/share/lxc/config/common.conf
lxc.include = /usr/share/lxc/config/userns.conf
";

fn for_both() -> String {
    let base = PEER_ID * users::COUNT;
    let count = users::COUNT;
    format!(
        "lxc.uts.name = lxc
lxc.idmap = u 0 {base} {count}
lxc.idmap = g 0 {base} {count}
lxc.net.0.type = veth
lxc.net.0.veth.mode = router
lxc.net.0.veth.pair = vblxc
lxc.net.0.flags = up
lxc.net.0.ipv4.address = {PEER_ADDRESS}/32
lxc.net.0.ipv4.gateway = dev
"
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
    let owner = PEER_ID * users::COUNT;
    let owner = format!("{owner}:{owner}");
    let chown = ["chown", "--recursive", "--no-dereference", &owner];
    command::output(command::words(&chown).arg(to)).map(drop)
}

fn own(path: &Path) -> Result<()> {
    let root = PEER_ID * users::COUNT;
    std::os::unix::fs::chown(path, Some(root), Some(root)).context("cannot give a folder away")
}
