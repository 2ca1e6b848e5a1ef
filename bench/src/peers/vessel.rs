//! Vessel itself, through its command line and through its API.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use api::latest::{
    CreateRequest, DeleteRequest, Operation, OperationState, StartRequest, StopRequest, VeState,
};
use client::Client;
use tokio::runtime::Runtime;

use super::Peer;
use crate::command;
use crate::node::{Node, TRIVIAL};

/// How long a VE with a trivial init may take to be what it is asked to be.
const PATIENCE: Duration = Duration::from_secs(20);

/// One command for each verb, as an administrator types them.
#[derive(Debug)]
pub(crate) struct CommandLine {
    program: PathBuf,
    root: PathBuf,
}

const TYPED: &str = "typed";

impl CommandLine {
    pub(crate) fn new(node: &Node) -> Self {
        Self {
            program: node.command(&[]).get_program().into(),
            root: node.root().to_owned(),
        }
    }

    fn run(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        command
            .env_remove("VESSEL_ROOT")
            .arg("--root")
            .arg(&self.root);
        command::output(command.args(words))
    }
}

impl Peer for CommandLine {
    fn name(&self) -> String {
        "vessel (command)".to_owned()
    }

    fn create(&mut self) -> Result<()> {
        self.run(&["create", TYPED, "--template", TRIVIAL])
            .map(drop)
    }

    fn start(&mut self) -> Result<()> {
        self.run(&["start", TYPED]).map(drop)
    }

    fn init_pid(&mut self) -> Result<u32> {
        let text = self.run(&["show", TYPED, "--json"])?;
        let shown: serde_json::Value = serde_json::from_str(&text)?;
        let pid = shown["pid"].as_u64().context("the VE shows no pid")?;
        Ok(u32::try_from(pid)?)
    }

    fn stop(&mut self) -> Result<()> {
        self.run(&["stop", TYPED]).map(drop)
    }

    fn delete(&mut self) -> Result<()> {
        self.run(&["delete", TYPED]).map(drop)
    }

    fn clear(&mut self) {
        let _ = self.run(&["delete", TYPED, "--force"]);
    }
}

/// The API over the node's socket, as the command line and other programs use it.
pub(crate) struct Api {
    client: Client,
    runtime: Runtime,
    ve: &'static str,
    template: &'static str,
}

impl Api {
    /// With one VE of this name and template.
    pub(crate) fn new(node: &Node, ve: &'static str, template: &'static str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("no runtime for the API")?;
        Ok(Self {
            client: Client::of_root(node.root()),
            runtime,
            ve,
            template,
        })
    }

    /// Waits for an operation that was just begun.
    fn finish(&self, begun: client::Result<Operation>) -> Result<()> {
        let begun = begun?;
        let ended = if begun.state.is_ended() {
            begun
        } else {
            self.runtime
                .block_on(self.client.wait_operation(begun.id))?
        };
        match (ended.state, ended.error) {
            (OperationState::Done, _) => Ok(()),
            (state, Some(error)) => bail!("{} {state}: {}", ended.kind, error.message),
            (state, None) => bail!("{} {state}", ended.kind),
        }
    }
}

impl Peer for Api {
    fn name(&self) -> String {
        "vessel (API)".to_owned()
    }

    fn create(&mut self) -> Result<()> {
        let request = CreateRequest {
            name: self.ve.to_owned(),
            template: self.template.to_owned(),
            ..CreateRequest::default()
        };
        self.finish(self.runtime.block_on(self.client.create(&request)))
    }

    fn start(&mut self) -> Result<()> {
        self.finish(
            self.runtime
                .block_on(self.client.start(self.ve, &StartRequest {})),
        )?;
        let waited = self.client.wait(self.ve, VeState::Running, PATIENCE);
        let state = self.runtime.block_on(waited)?.state;
        if state != VeState::Running {
            bail!("the VE is {state}");
        }
        Ok(())
    }

    fn init_pid(&mut self) -> Result<u32> {
        let shown = self.runtime.block_on(self.client.show(self.ve))?;
        shown.pid.context("the VE shows no pid")
    }

    fn stop(&mut self) -> Result<()> {
        self.finish(
            self.runtime
                .block_on(self.client.stop(self.ve, &StopRequest::default())),
        )
    }

    fn delete(&mut self) -> Result<()> {
        self.finish(
            self.runtime
                .block_on(self.client.delete(self.ve, &DeleteRequest::default())),
        )
    }

    fn clear(&mut self) {
        let force = DeleteRequest { force: true };
        let _ = self.finish(self.runtime.block_on(self.client.delete(self.ve, &force)));
    }
}
