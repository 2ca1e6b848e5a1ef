//! The floor program; see `bench/src/floor`.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bench::users;
use rustix::net::{AddressFamily, SocketType};

use super::Peer;
use crate::command;
use crate::process;
use crate::stage::{PEER_ADDRESS, PEER_ID, Stage};

/// Name of its container and of its control groups.
const NAME: &str = "vessel-bench-floor";
/// How long the kernel may take to remove a link.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(crate) struct Floor {
    program: PathBuf,
    folder: PathBuf,
}

impl Floor {
    pub(crate) fn new(stage: &Stage) -> Self {
        Self {
            program: stage.program("bench-floor"),
            folder: stage.folder().to_owned(),
        }
    }

    fn run(&self, verb: &str) -> Result<String> {
        let base = (PEER_ID * users::COUNT).to_string();
        let mut command = Command::new(&self.program);
        command.arg(verb).arg(&self.folder);
        command::output(command.args([NAME, &base, PEER_ADDRESS]))
    }

    /// Waits until the link of the last container is gone, which the kernel takes away some time after its end: whoever is
    /// timed next is not to wait for that.
    pub(crate) fn settle(&self) -> Result<()> {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
        let deadline = Instant::now() + PATIENCE;
        let name = format!("fl{PEER_ID}");
        while rustix::net::netdevice::name_to_index(&socket, &name).is_ok() {
            ensure!(Instant::now() < deadline, "the link {name} stays");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// A whole cycle in one process. Returns the time of the init's first instruction.
    pub(crate) fn cycle(&self) -> Result<i64> {
        let time = self.run("cycle")?;
        process::stamp(time.trim()).context("the floor program told no time")
    }
}

impl Peer for Floor {
    fn name(&self) -> String {
        "floor".to_owned()
    }

    fn create(&mut self) -> Result<()> {
        self.run("create").map(drop)
    }

    fn start(&mut self) -> Result<()> {
        self.run("start").map(drop)
    }

    fn init_pid(&mut self) -> Result<u32> {
        let file = self.folder.join(NAME).join("pid");
        let text = std::fs::read_to_string(file).context("the floor program noted no pid")?;
        text.parse().context("the floor program noted no number")
    }

    fn stop(&mut self) -> Result<()> {
        self.run("stop").map(drop)
    }

    fn delete(&mut self) -> Result<()> {
        self.run("delete").map(drop)
    }

    fn clear(&mut self) {
        sweep();
        let _ = std::fs::remove_dir_all(self.folder.join(NAME));
    }
}

pub(crate) fn sweep() {
    super::groups::sweep(NAME);
}
