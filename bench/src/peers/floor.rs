//! The floor program; see `bench/src/floor`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use bench::users;

use super::Peer;
use crate::command;
use crate::process;
use crate::stage::{PEER_ADDRESS, PEER_ID, Stage};

/// Name of its container and of its control groups.
const NAME: &str = "vessel-bench-floor";

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
