//! A node under test: its daemon, its command line, its network namespace, its end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::harness::machine::Place;
use crate::harness::uplink::Uplink;
use crate::harness::{Output, command, service, tree, until};

/// How long a daemon may take to answer, or to end, on a busy machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// A pool for tests: sparse, and small enough to fill.
const POOL_SIZE: &str = "2G";

/// A node of its own for one test.
#[derive(Debug)]
pub(crate) struct Node {
    pub(super) place: Place,
    pub(super) daemon: Option<Child>,
    /// What daemons find in their environment from now on.
    pub(super) environment: Vec<(String, String)>,
    /// What the network namespace held before the node.
    network_before: String,
    uplink: Option<Uplink>,
    kept: bool,
}

impl Node {
    /// Takes a place and starts a daemon on an empty root there.
    pub(crate) fn with_daemon() -> Result<Self> {
        let mut node = Self::placed()?;
        node.start_daemon()?;
        Ok(node)
    }

    /// The same, with a way to the machine's own network for downloading packages.
    pub(crate) fn with_uplink() -> Result<Self> {
        let mut node = Self::placed()?;
        node.uplink = Some(Uplink::connect(node.place)?);
        node.network_before = node.network()?;
        node.start_daemon()?;
        Ok(node)
    }

    /// The node that is installed on this machine, up and not prepared.
    pub(crate) fn installed() -> Result<Self> {
        let mut node = Self::at(Place::take_machine()?);
        node.network_before = node.network()?;
        node.start_daemon()?;
        Ok(node)
    }

    fn at(place: Place) -> Self {
        Self {
            place,
            daemon: None,
            environment: Vec::new(),
            network_before: String::new(),
            uplink: None,
            kept: false,
        }
    }

    fn placed() -> Result<Self> {
        let mut node = Self::at(Place::take()?);
        node.inside(&["ip", "link", "set", "lo", "up"])?.success()?;
        node.network_before = node.network()?;
        Ok(node)
    }

    /// Prepares the node with a small pool.
    pub(crate) fn init(&mut self) -> Result<()> {
        self.init_with_pool(POOL_SIZE)
    }

    /// Prepares the node with a pool of this size.
    pub(crate) fn init_with_pool(&mut self, size: &str) -> Result<()> {
        let first = self.place.first_id().to_string();
        self.ok(&["init", "--pool-size", size, "--first-id", &first])?;
        Ok(())
    }

    /// The name of its network namespace.
    pub(crate) fn name(&self) -> String {
        self.place.name()
    }

    /// Where its network namespace can be entered.
    pub(crate) fn network_namespace(&self) -> String {
        self.place.network_namespace()
    }

    /// The node's root folder.
    pub(crate) fn root(&self) -> PathBuf {
        self.place.root()
    }

    /// A folder for files of the test, gone with the node.
    pub(crate) fn folder(&self) -> PathBuf {
        self.place.folder()
    }

    /// The id that its first VE gets.
    pub(crate) fn first_id(&self) -> u32 {
        self.place.first_id()
    }

    /// A command of the command line, not yet run.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("vessel"));
        command.env_remove("VESSEL_ROOT").env("NO_COLOR", "1");
        command.arg("--root").arg(self.root()).args(arguments);
        command
    }

    /// Runs the command line to its end.
    pub(crate) fn vessel(&self, arguments: &[&str]) -> Result<Output> {
        command::run(&mut self.command(arguments))
    }

    /// Runs the command line, which must succeed, and returns its standard output.
    pub(crate) fn ok(&self, arguments: &[&str]) -> Result<String> {
        self.vessel(arguments)?.success()
    }

    /// Runs the command line with something to read.
    pub(crate) fn vessel_with_input(&self, arguments: &[&str], input: &[u8]) -> Result<Output> {
        command::run_with_input(&mut self.command(arguments), input)
    }

    /// Runs the command line on a terminal where somebody types these pieces.
    pub(crate) fn terminal(&self, arguments: &[&str], pieces: &[&str]) -> Result<Output> {
        let root = self.root().display().to_string();
        let program = program("vessel").display().to_string();
        let words = [&[program.as_str(), "--root", &root][..], arguments].concat();
        let mut script = Command::new("script");
        script.args([
            "--quiet",
            "--return",
            "--command",
            &words.join(" "),
            "/dev/null",
        ]);
        command::run_typing(script.env_remove("VESSEL_ROOT"), pieces)
    }

    /// Runs the command line with `--json` and reads what it wrote.
    pub(crate) fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut words = arguments.to_vec();
        words.push("--json");
        let text = self.ok(&words)?;
        serde_json::from_str(&text).with_context(|| format!("{arguments:?} wrote no JSON: {text}"))
    }

    /// What `show` says about a VE.
    pub(crate) fn show(&self, name: &str) -> Result<Value> {
        let value = self.json(&["show", name])?;
        // One VE may be shown as itself or as a list of one.
        Ok(value.get(0).cloned().unwrap_or(value))
    }

    /// The state of a VE, as a word.
    pub(crate) fn state(&self, name: &str) -> Result<String> {
        Ok(self.show(name)?["state"]
            .as_str()
            .unwrap_or_default()
            .to_owned())
    }

    /// Number of a VE's init, as this machine sees it.
    pub(crate) fn init_pid(&self, name: &str) -> Result<u64> {
        self.show(name)?["pid"]
            .as_u64()
            .with_context(|| format!("`{name}` shows no pid"))
    }

    /// A VE's addresses without their prefix lengths.
    pub(crate) fn addresses(&self, name: &str) -> Result<Vec<String>> {
        let shown = self.show(name)?;
        let list = shown["addresses"].as_array().context("no `addresses`")?;
        let texts = list.iter().filter_map(Value::as_str);
        Ok(texts
            .map(|text| text.split('/').next().unwrap_or(text).to_owned())
            .collect())
    }

    /// A VE's IPv4 address.
    pub(crate) fn v4(&self, name: &str) -> Result<String> {
        let found = self
            .addresses(name)?
            .into_iter()
            .find(|address| address.contains('.'));
        found.with_context(|| format!("`{name}` has no IPv4 address"))
    }

    /// A VE's IPv6 address.
    pub(crate) fn v6(&self, name: &str) -> Result<String> {
        let found = self
            .addresses(name)?
            .into_iter()
            .find(|address| address.contains(':'));
        found.with_context(|| format!("`{name}` has no IPv6 address"))
    }

    /// Makes a VE from `tiny` and starts it.
    pub(crate) fn start_tiny(&self, name: &str) -> Result<()> {
        self.ok(&["create", name, "--template", "tiny", "--start"])?;
        self.expect_state(name, "running")
    }

    /// Waits for a VE to be in a state.
    pub(crate) fn expect_state(&self, name: &str, state: &str) -> Result<()> {
        let what = format!("`{name}` is {state}");
        until(&what, PATIENCE, || self.state(name), |found| found == state)?;
        Ok(())
    }

    /// Runs a shell line in a VE; it must succeed. Returns what it wrote, without the last newline.
    pub(crate) fn sh(&self, name: &str, line: &str) -> Result<String> {
        Ok(self
            .ok(&["exec", name, "--", "sh", "-c", line])?
            .trim_end()
            .to_owned())
    }

    /// Runs a program of this machine in the node's network namespace.
    pub(crate) fn inside(&self, words: &[&str]) -> Result<Output> {
        self.place.run_inside(words)
    }

    /// Whether an address answers to a ping from the node.
    pub(crate) fn reaches(&self, address: &str) -> Result<bool> {
        Ok(self.inside(&["ping", "-c", "1", "-W", "2", address])?.code == 0)
    }

    /// Waits until a VE's own web server answers to the node with its page.
    pub(crate) fn expect_page(&self, address: &str, page: &str) -> Result<()> {
        let host = if address.contains(':') {
            format!("[{address}]")
        } else {
            address.to_owned()
        };
        let url = format!("http://{host}/");
        let fetch = || self.inside(&["curl", "--silent", "--show-error", "--max-time", "2", &url]);
        until(
            "the page",
            PATIENCE,
            || fetch()?.success(),
            |found| found.contains(page),
        )?;
        Ok(())
    }

    /// The pool's folder, which only the node's own mount namespace shows.
    pub(crate) fn pool(&self) -> Result<PathBuf> {
        let root = self.root();
        let inner = root.strip_prefix("/").context("the root is not absolute")?;
        let view = PathBuf::from(format!("/proc/{}/root", self.daemon_pid()?));
        Ok(view.join(inner).join("pool"))
    }

    /// A control file of a VE: `v1` in the hierarchy of `controller`, or `v2` in the one hierarchy.
    pub(crate) fn control(&self, id: u64, controller: &str, v1: &str, v2: &str) -> Result<String> {
        let groups = self.place.control_groups();
        let wanted = id.to_string();
        let own = groups
            .iter()
            .filter(|group| group.file_name().is_some_and(|n| *n == *wanted));
        for group in own {
            let is_v1 = group.starts_with(Path::new("/sys/fs/cgroup").join(controller));
            let file = group.join(if is_v1 { v1 } else { v2 });
            if file.exists() {
                let text = fs::read_to_string(&file);
                return Ok(text
                    .with_context(|| format!("cannot read {}", file.display()))?
                    .trim()
                    .to_owned());
            }
        }
        bail!("VE {id} has neither {controller} {v1} nor {v2}")
    }

    /// The node's control groups, as text.
    pub(crate) fn control_groups(&self) -> Vec<String> {
        self.place
            .control_groups()
            .iter()
            .map(|path| path.display().to_string())
            .collect()
    }

    /// Everything in the node's network namespace, one fact a line, without what counts and passes.
    pub(crate) fn network(&self) -> Result<String> {
        let mut facts = String::new();
        for words in [
            &["ip", "-brief", "link"][..],
            &["ip", "-brief", "address"],
            &["ip", "rule"],
            &["ip", "route", "show", "table", "all"],
            &["ip", "-6", "route", "show", "table", "all"],
            &["ip", "neighbour", "show", "proxy"],
            &["nft", "list", "ruleset"],
        ] {
            let text = self.inside(words)?.success()?;
            let lasting = text
                .lines()
                .filter(|line| !line.contains("packets ") && !line.contains(" expires "));
            facts.extend(lasting.flat_map(|line| [line, "\n"]));
        }
        Ok(facts)
    }

    /// Destroys the node as its administrator does, and fails if anything of it is left.
    pub(crate) fn finish(mut self) -> Result<()> {
        if self.daemon.is_none() {
            self.start_daemon()?;
        }
        self.ok(&["node", "destroy", "--force", "--yes"])?;
        if let Some(mut daemon) = self.daemon.take() {
            let code = || daemon.try_wait().map_err(anyhow::Error::from);
            let ended = until(
                "the daemon ends after `destroy`",
                PATIENCE,
                code,
                Option::is_some,
            );
            if ended.is_err() {
                let _ = daemon.kill();
                let _ = daemon.wait();
            }
            ended?;
        }
        if self.place == Place::Machine {
            service::expect_ended()?;
        }
        let left = self.place.traces();
        ensure!(left.is_empty(), "left on this machine: {left:#?}");
        let network = self.network()?;
        ensure!(
            network == self.network_before,
            "left in the network namespace:\n{network}"
        );
        Ok(())
    }

    /// Imports the template `tiny`.
    pub(crate) fn import_tiny(&self) -> Result<()> {
        let archive = tree::tiny_archive()?;
        self.ok(&["template", "import", &archive, "--name", "tiny"])?;
        Ok(())
    }

    /// Names of all templates.
    pub(crate) fn templates(&self) -> Result<Vec<String>> {
        let listed = self.json(&["template", "list"])?;
        let listed = listed.as_array().into_iter().flatten();
        Ok(listed
            .filter_map(|t| Some(t["name"].as_str()?.to_owned()))
            .collect())
    }

    /// The end of the logs, for the message of a failed test.
    pub(crate) fn story(&self) -> String {
        let logs = [
            self.place.folder().join("vesseld.log"),
            self.root().join("log/launcher.log"),
        ];
        let tail = |path: &PathBuf| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let end = lines[lines.len().saturating_sub(15)..].join("\n    ");
            format!("  {}:\n    {end}", path.display())
        };
        let mut told: Vec<String> = logs.iter().map(tail).collect();
        if self.place == Place::Machine {
            told.push(service::journal());
        }
        told.push(self.waits());
        told.join("\n")
    }

    /// Leaves everything running, and says where it is.
    pub(crate) fn keep(mut self) -> String {
        self.kept = true;
        format!(
            "VESSEL_ROOT={} in `ip netns` {}",
            self.root().display(),
            self.place.name()
        )
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        if self.place == Place::Machine {
            service::give_up();
        }
        self.place.sweep();
        drop(self.uplink.take());
    }
}

/// A program of ours: beside the test program's folder, or where `VESSEL_PROGRAMS` says.
pub(crate) fn program(name: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os("VESSEL_PROGRAMS") {
        return PathBuf::from(folder).join(name);
    }
    let own = std::env::current_exe().unwrap_or_default();
    own.ancestors()
        .nth(2)
        .unwrap_or(Path::new("target/debug"))
        .join(name)
}
