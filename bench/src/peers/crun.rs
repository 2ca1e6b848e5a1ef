//! crun, the fastest of the OCI runtimes: the same namespaces, file systems, groups, and a filter;
//! no link, since an OCI runtime makes none.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use bench::users;
use rustix::mount::mount_bind;
use serde_json::{Value, json};

use super::Peer;
use super::stacked::Stacked;
use crate::command;
use crate::process;
use crate::stage::{PEER_ID, Stage};

/// Name of its container and of its control groups.
const NAME: &str = "vessel-bench-crun";

/// System calls that the filter refuses; about what ours does.
const REFUSED: [&str; 22] = [
    "add_key",
    "bpf",
    "delete_module",
    "finit_module",
    "fsconfig",
    "init_module",
    "io_uring_setup",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "open_by_handle_at",
    "perf_event_open",
    "quotactl",
    "reboot",
    "request_key",
    "settimeofday",
    "swapoff",
    "swapon",
    "syslog",
    "userfaultfd",
    "vhangup",
];

#[derive(Debug)]
pub(crate) struct Crun {
    version: String,
    bundle: PathBuf,
    root: Stacked,
}

impl Crun {
    pub(crate) fn new(stage: &Stage, version: String) -> Result<Self> {
        please_with_hybrid(&stage.folder().join("no-controllers"))?;
        let bundle = stage.folder().join("crun");
        Ok(Self {
            version,
            root: Stacked::new(stage, &stage.folder().join("tree"), &bundle)?,
            bundle,
        })
    }

    fn run(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new("crun");
        command.arg("--root").arg(self.state());
        command.args(["--cgroup-manager", "cgroupfs"]);
        command::output(command.args(words))
    }

    fn state(&self) -> PathBuf {
        self.bundle.with_extension("state")
    }
}

impl Peer for Crun {
    fn name(&self) -> String {
        format!("crun {} (no link)", self.version)
    }

    fn create(&mut self) -> Result<()> {
        fs::create_dir(&self.bundle).context("cannot make crun's bundle")?;
        self.root.prepare()?;
        let text = config().to_string();
        fs::write(self.bundle.join("config.json"), text).context("cannot write config.json")
    }

    fn start(&mut self) -> Result<()> {
        self.root.mount()?;
        let bundle = self.bundle.display().to_string();
        let pid = self.bundle.join("pid").display().to_string();
        // Its streams go nowhere: a pipe would be kept open by the container.
        let mut command = Command::new("crun");
        command.arg("--root").arg(self.state());
        command.args(["--cgroup-manager", "cgroupfs", "run", "--detach"]);
        command.args(["--bundle", &bundle, "--pid-file", &pid, NAME]);
        let log = fs::File::create(self.bundle.join("log")).context("no log for crun")?;
        let status = command
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(log)
            .status()
            .context("cannot run crun")?;
        if !status.success() {
            let log = fs::read_to_string(self.bundle.join("log")).unwrap_or_default();
            anyhow::bail!("crun failed: {}", log.trim());
        }
        Ok(())
    }

    fn init_pid(&mut self) -> Result<u32> {
        let text = fs::read_to_string(self.bundle.join("pid")).context("crun noted no pid")?;
        text.trim().parse().context("crun noted no number")
    }

    fn stop(&mut self) -> Result<()> {
        self.run(&["kill", NAME, "TERM"])?;
        process::await_end(self.init_pid()?)
    }

    fn delete(&mut self) -> Result<()> {
        self.run(&["delete", NAME])?;
        self.root.unmount();
        fs::remove_dir_all(&self.bundle).context("cannot remove crun's bundle")
    }

    fn clear(&mut self) {
        let _ = self.run(&["delete", "--force", NAME]);
        self.root.unmount();
        let _ = fs::remove_dir_all(&self.bundle);
        sweep();
    }
}

/// crun refuses to make groups where cgroup v1 and cgroup2 both have controllers, which it reads from
/// one file. In the bench's own mount namespace that file can be empty: crun then uses v1, as VEs do.
fn please_with_hybrid(empty: &Path) -> Result<()> {
    let controllers = Path::new("/sys/fs/cgroup/unified/cgroup.controllers");
    if fs::read_to_string(controllers).is_ok_and(|text| !text.trim().is_empty()) {
        fs::write(empty, "").context("cannot write an empty file")?;
        mount_bind(empty, controllers).context("cannot cover cgroup2's controllers")?;
    }
    Ok(())
}

pub(crate) fn sweep() {
    super::groups::sweep(NAME);
}

fn config() -> Value {
    let base = PEER_ID * users::COUNT;
    let map = json!([{"containerID": 0, "hostID": base, "size": users::COUNT}]);
    let space = |kind: &str| json!({"type": kind});
    let kinds = ["pid", "network", "ipc", "uts", "mount", "user", "cgroup"];
    let capabilities = json!([
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_KILL",
        "CAP_NET_ADMIN",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SYS_ADMIN",
        "CAP_SYS_CHROOT"
    ]);
    let mount = |kind: &str, place: &str, options: &[&str]| json!({"destination": place, "type": kind, "source": kind, "options": options});
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": ["/sbin/init"],
            "env": ["PATH=/sbin"],
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities,
                "permitted": capabilities},
        },
        "root": {"path": "root"},
        "hostname": "crun",
        "mounts": [
            mount("proc", "/proc", &["nosuid", "noexec", "nodev"]),
            mount("sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"]),
            mount("cgroup2", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev"]),
            mount("tmpfs", "/dev", &["nosuid", "mode=755"]),
            mount("devpts", "/dev/pts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666"]),
            mount("tmpfs", "/dev/shm", &["nosuid", "nodev", "mode=1777"]),
            mount("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]),
            mount("tmpfs", "/run", &["nosuid", "nodev", "mode=755"]),
        ],
        "linux": {
            "uidMappings": map, "gidMappings": map,
            "namespaces": kinds.map(space),
            "cgroupsPath": format!("/{NAME}"),
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": REFUSED, "action": "SCMP_ACT_ERRNO"}],
            },
        },
    })
}
