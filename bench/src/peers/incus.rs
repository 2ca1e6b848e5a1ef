//! Incus, where it is installed and its daemon runs.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::Peer;
use crate::command;
use crate::stage::Stage;

/// Name of its container and of its image.
const NAME: &str = "vessel-bench-incus";

#[derive(Debug)]
pub(crate) struct Incus {
    version: String,
}

impl Incus {
    /// Imports the trivial tree as an image.
    pub(crate) fn new(stage: &Stage) -> Result<Self> {
        let version = command::version("incus").context("not installed")?;
        let answers = command::output(Command::new("incus").args(["query", "/1.0"])).is_ok();
        ensure!(answers, "its daemon does not run");
        let _ = run(&["image", "delete", NAME]);
        let metadata = stage.folder().join("metadata.yaml");
        std::fs::write(
            &metadata,
            "architecture: x86_64\ncreation_date: 1700000000\n",
        )
        .context("cannot write metadata.yaml")?;
        let archive = stage.folder().join("incus.tar").display().to_string();
        let folder = stage.folder().display().to_string();
        let tar = [
            "tar",
            "--create",
            "--file",
            &archive,
            "--directory",
            &folder,
        ];
        let words = ["--transform=s,^tree,rootfs,", "metadata.yaml", "tree"];
        command::output(command::words(&tar).args(words))?;
        run(&["image", "import", &archive, "--alias", NAME])?;
        Ok(Self { version })
    }
}

fn run(words: &[&str]) -> Result<String> {
    command::output(Command::new("incus").args(words))
}

impl Peer for Incus {
    fn name(&self) -> String {
        format!("incus {}", self.version)
    }

    fn create(&mut self) -> Result<()> {
        run(&["init", NAME, NAME]).map(drop)
    }

    fn start(&mut self) -> Result<()> {
        run(&["start", NAME]).map(drop)
    }

    fn init_pid(&mut self) -> Result<u32> {
        let text = run(&["query", &format!("/1.0/instances/{NAME}/state")])?;
        let state: serde_json::Value = serde_json::from_str(&text)?;
        let pid = state["pid"].as_u64().context("incus told no pid")?;
        Ok(u32::try_from(pid)?)
    }

    fn stop(&mut self) -> Result<()> {
        run(&["stop", NAME]).map(drop)
    }

    fn delete(&mut self) -> Result<()> {
        run(&["delete", NAME]).map(drop)
    }

    fn clear(&mut self) {
        let _ = run(&["delete", "--force", NAME]);
    }
}

impl Drop for Incus {
    fn drop(&mut self) {
        let _ = run(&["image", "delete", NAME]);
    }
}
