//! The node that is measured: its daemon, from the programs beside the bench, and its end.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::command;
use crate::stage::{FIRST_ID, NETWORK, Stage};
use crate::trivial;

/// Sparse; 300 Debian VEs take 3 GB of it.
const POOL_SIZE: &str = "16G";

/// How long a daemon may take to answer, or to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Name of the template with the trivial init.
pub(crate) const TRIVIAL: &str = "trivial";

/// A running node.
#[derive(Debug)]
pub(crate) struct Node {
    root: PathBuf,
    programs: PathBuf,
    daemon: Child,
}

impl Node {
    /// Starts a node with the trivial template.
    pub(crate) fn start(stage: &Stage) -> Result<Self> {
        let root = root_of(stage.folder());
        let programs = stage.program("");
        let daemon = spawn(&programs, &root)?;
        let node = Self {
            root,
            programs,
            daemon,
        };
        let first = FIRST_ID.to_string();
        let size = ["--pool-size", POOL_SIZE];
        node.vessel(
            &[
                &["init", "--first-id", &first, "--network", NETWORK],
                &size[..],
            ]
            .concat(),
        )?;
        let tree = stage.folder().join("tree");
        trivial::write(&tree)?;
        let tree = tree.display().to_string();
        node.vessel(&["template", "import", &tree, "--name", TRIVIAL])?;
        Ok(node)
    }

    /// Its root folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The command line, not yet run.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        command_of(&self.programs, &self.root, words)
    }

    /// Runs the command line, which must succeed.
    pub(crate) fn vessel(&self, words: &[&str]) -> Result<String> {
        command::output(&mut self.command(words))
    }

    /// Runs the command line with `--json` and reads what it says.
    pub(crate) fn json(&self, words: &[&str]) -> Result<Value> {
        let text = self.vessel(&[words, &["--json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("{words:?} wrote no JSON"))
    }

    /// Number of a VE's init, as the host sees it.
    pub(crate) fn init_pid(&self, name: &str) -> Result<u32> {
        let shown = self.json(&["show", name])?;
        let pid = shown["pid"]
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok());
        pid.with_context(|| format!("`{name}` shows no pid"))
    }

    /// How many VEs run.
    pub(crate) fn running(&self) -> Result<f64> {
        let list = self.json(&["list"])?;
        let list = list.as_array().context("`list` is no list")?;
        let running = list.iter().filter(|ve| ve["state"] == "running");
        Ok(f64::from(u32::try_from(running.count())?))
    }

    /// Number of the daemon's process.
    pub(crate) fn daemon_pid(&self) -> u32 {
        self.daemon.id()
    }

    /// Number of the launcher's process: the one whose arguments name this node.
    pub(crate) fn launcher_pid(&self) -> Result<u32> {
        let root = self.root.display().to_string();
        for entry in fs::read_dir("/proc")
            .context("cannot list processes")?
            .flatten()
        {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            // The kernel keeps 15 bytes of a program's name.
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let ours = String::from_utf8_lossy(&line)
                .split('\0')
                .any(|word| word == root);
            if ours && name.trim() == "vessel-launcher" {
                return Ok(pid);
            }
        }
        bail!("no launcher runs for {root}")
    }
}

/// A VE's first IPv4 address, in what `list` or `show` says of it.
pub(crate) fn ipv4_of(ve: &Value) -> Result<&str> {
    let addresses = ve["addresses"]
        .as_array()
        .context("a VE has no addresses")?;
    let mut texts = addresses.iter().filter_map(Value::as_str);
    let address = texts.find(|text| text.contains('.'));
    let address = address.context("a VE has no IPv4 address")?;
    Ok(address.split('/').next().unwrap_or(address))
}

impl Drop for Node {
    fn drop(&mut self) {
        destroy(&self.programs, &self.root);
        let deadline = Instant::now() + PATIENCE;
        while let Ok(None) = self.daemon.try_wait() {
            if Instant::now() > deadline {
                let _ = self.daemon.kill();
                let _ = self.daemon.wait();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Takes away the node of a bench that was killed.
pub(crate) fn sweep(programs: &Path, folder: &Path) {
    let root = root_of(folder);
    if !root.exists() {
        return;
    }
    eprintln!(
        "taking away what an earlier bench left in {}",
        root.display()
    );
    let daemon = match UnixStream::connect(root.join("vessel.sock")) {
        Ok(_) => None,
        Err(_) => spawn(programs, &root).ok(),
    };
    destroy(programs, &root);
    if let Some(mut daemon) = daemon {
        let _ = daemon.wait();
    }
}

fn root_of(folder: &Path) -> PathBuf {
    folder.join("node")
}

fn command_of(programs: &Path, root: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(programs.join("vessel"));
    command.env_remove("VESSEL_ROOT").arg("--root").arg(root);
    command.args(words);
    command
}

fn destroy(programs: &Path, root: &Path) {
    let words = ["node", "destroy", "--force", "--yes"];
    if let Err(error) = command::output(&mut command_of(programs, root, &words)) {
        eprintln!("the node stays: {error:#}");
    }
}

/// Starts a daemon and waits until it listens. In a process group of its own, so that Ctrl-C
/// reaches the bench alone, which needs the daemon to clean up.
fn spawn(programs: &Path, root: &Path) -> Result<Child> {
    let log = root.with_extension("log");
    let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let errors = file.try_clone().context("cannot write the log twice")?;
    let mut command = Command::new(programs.join("vesseld"));
    command.env_remove("VESSEL_ROOT").arg("--root").arg(root);
    let mut daemon = command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(errors)
        .spawn()
        .with_context(|| format!("cannot run {}", programs.join("vesseld").display()))?;
    let deadline = Instant::now() + PATIENCE;
    while UnixStream::connect(root.join("vessel.sock")).is_err() {
        let ended = daemon.try_wait().context("cannot look at the daemon")?;
        if ended.is_some() || Instant::now() > deadline {
            let _ = daemon.kill();
            let _ = daemon.wait();
            let story = fs::read_to_string(&log).unwrap_or_default();
            bail!("the daemon does not come up:\n{story}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(daemon)
}
