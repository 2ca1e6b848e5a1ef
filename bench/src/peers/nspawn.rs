//! systemd-nspawn, for a Debian: it knows no other inits than systemd.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bench::users;
use rustix::process::{Pid, Signal, kill_process};

use super::Peer;
use super::stacked::Stacked;
use crate::process;
use crate::stage::{PEER_ID, Stage};

/// Name of its container.
const NAME: &str = "vessel-bench-nspawn";

/// How long its init may take to appear.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct Nspawn {
    version: String,
    folder: PathBuf,
    root: Stacked,
    /// The helper that it keeps for each container.
    helper: Option<Child>,
}

impl Nspawn {
    pub(crate) fn new(stage: &Stage, version: String, tree: &Path) -> Result<Self> {
        let folder = stage.folder().join("nspawn");
        Ok(Self {
            version,
            root: Stacked::new(stage, tree, &folder)?,
            folder,
            helper: None,
        })
    }
}

impl Peer for Nspawn {
    fn name(&self) -> String {
        format!("systemd-nspawn {}", self.version)
    }

    fn create(&mut self) -> Result<()> {
        fs::create_dir(&self.folder).context("cannot make a folder for nspawn")?;
        self.root.prepare()?;
        self.root.mount()
    }

    /// Returns at once, as a service manager would start it.
    fn start(&mut self) -> Result<()> {
        let base = PEER_ID * users::COUNT;
        let log = fs::File::create(self.folder.join("log")).context("no log for nspawn")?;
        let errors = log.try_clone().context("no log for nspawn")?;
        let mut command = Command::new("systemd-nspawn");
        command
            .args([
                "--quiet",
                "--boot",
                "--register=no",
                "--keep-unit",
                "--network-veth",
            ])
            .arg(format!("--machine={NAME}"))
            .arg(format!("--private-users={base}:{}", users::COUNT))
            .args(["--private-users-ownership=off", "--console=read-only"])
            .arg(format!("--directory={}", self.root.root().display()));
        let helper = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn();
        self.helper = Some(helper.context("cannot run systemd-nspawn")?);
        Ok(())
    }

    fn init_pid(&mut self) -> Result<u32> {
        let helper = self.helper.as_mut().context("nspawn was not started")?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let below = process::children(helper.id());
            if let Some(pid) = below.into_iter().find(|pid| process::is_init(*pid)) {
                return Ok(pid);
            }
            let ended = helper.try_wait().context("cannot look at nspawn")?;
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                bail!("nspawn runs no init: {}", log.trim());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn stop(&mut self) -> Result<()> {
        let mut helper = self.helper.take().context("nspawn was not started")?;
        kill_process(Pid::from_child(&helper), Signal::TERM).context("cannot signal nspawn")?;
        helper.wait().context("cannot wait for nspawn")?;
        Ok(())
    }

    fn delete(&mut self) -> Result<()> {
        self.root.unmount();
        fs::remove_dir_all(&self.folder).context("cannot remove nspawn's folder")
    }

    fn clear(&mut self) {
        if let Some(mut helper) = self.helper.take() {
            let init = process::children(helper.id());
            init.into_iter().for_each(process::kill);
            let _ = helper.kill();
            let _ = helper.wait();
        }
        let _ = self.delete();
        sweep();
    }
}

/// Takes away the folder that it keeps for a container whose helper was killed.
pub(crate) fn sweep() {
    let _ = fs::remove_dir_all(format!("/run/systemd/nspawn/unix-export/{NAME}"));
}
