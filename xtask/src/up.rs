//! `up`: from a fresh clone to a node that runs a Debian VE, and `down`'s other half.
//!
//! Every step looks first whether its work is done, so running it again is quick and harmless.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::dependencies::{self, Need};
use crate::process;
use crate::workspace::Workspace;

/// The first template, and what it holds besides the distribution's own minimum.
const TEMPLATE: &str = "debian-12";
const TEMPLATE_PACKAGES: [&str; 2] = ["nginx-light", "openssh-server"];
/// The first VE.
const VE: &str = "web";

/// A daemon opens its socket within tens of milliseconds; a loaded machine may take longer.
const DAEMON_TIMEOUT: Duration = Duration::from_secs(15);
/// Debian answers within a second of its start; a loaded machine may take longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The programs of this tree and the node that they work on.
#[derive(Debug)]
pub(crate) struct Node {
    /// Where the built programs lie.
    pub(crate) programs: PathBuf,
    /// The node's root folder.
    pub(crate) root: PathBuf,
}

impl Node {
    /// The node that `VESSEL_ROOT` names, else the default one.
    pub(crate) fn of_environment(workspace: &Workspace) -> Self {
        let root = std::env::var_os("VESSEL_ROOT").unwrap_or_else(|| "/var/lib/vessel".into());
        Self {
            programs: workspace.target().join("release"),
            root: PathBuf::from(root),
        }
    }

    /// `vessel` for this node.
    pub(crate) fn vessel(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join("vessel"));
        command.arg("--root").arg(&self.root).args(arguments);
        command
    }

    /// Whether a daemon answers.
    pub(crate) fn answers(&self) -> bool {
        process::succeeds(&mut self.vessel(&["node", "show", "--json"]))
    }

    /// Starts the daemon detached from this terminal, unless one answers, and waits for it.
    pub(crate) fn start_daemon(&self) -> Result<()> {
        if self.answers() {
            return Ok(());
        }
        let folder = self.root.join("log");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let log = folder.join("vesseld.log");
        let file = File::options().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        let errors = file
            .try_clone()
            .with_context(|| format!("cannot write {}", log.display()))?;
        let daemon = self.programs.join("vesseld");
        eprintln!("$ {} --root {} &", daemon.display(), self.root.display());
        let mut command = Command::new("setsid");
        command
            .arg("--fork")
            .arg(daemon)
            .arg("--root")
            .arg(&self.root);
        let status = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .status();
        if !status.context("cannot run `setsid`")?.success() {
            bail!("`setsid` could not start the daemon");
        }
        let deadline = Instant::now() + DAEMON_TIMEOUT;
        while !self.answers() {
            if Instant::now() > deadline {
                bail!(
                    "the daemon does not answer; {} ends with:\n{}",
                    log.display(),
                    tail(&log)
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

/// Prepares everything and ends by saying what to type next.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    process::need_root("a node")?;
    dependencies::install(&[Need::Build, Need::Node])?;
    build(workspace)?;
    let node = Node::of_environment(workspace);
    node.start_daemon()?;
    process::run(&mut node.vessel(&["init"]))?;
    if !process::succeeds(&mut node.vessel(&["template", "show", TEMPLATE])) {
        let mut build = node.vessel(&["template", "build", TEMPLATE]);
        for package in TEMPLATE_PACKAGES {
            build.args(["--package", package]);
        }
        process::run(&mut build)?;
    }
    if !process::succeeds(&mut node.vessel(&["show", VE])) {
        process::run(&mut node.vessel(&["create", VE, "--template", TEMPLATE, "--start"]))?;
    } else if state(&node)? == "stopped" {
        process::run(&mut node.vessel(&["start", VE]))?;
    }
    let address = prove(&node)?;
    println!("{}", next_steps(&node, address));
    Ok(())
}

/// What a node consists of: packages, and the file that each becomes. They look for each other in one
/// folder.
pub(crate) const PARTS: [(&str, &str); 5] = [
    ("vessel", "vessel"),
    ("vesseld", "vesseld"),
    ("vessel-launcher", "vessel-launcher"),
    ("vessel-procview", "vessel-procview"),
    ("criu-plugin", "libcriu_plugin.so"),
];

/// Builds what a node consists of, as it is shipped.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    let mut build = Command::new(env!("CARGO"));
    build
        .current_dir(workspace.root())
        .args(["build", "--release", "--locked"]);
    for (package, _) in PARTS {
        build.args(["-p", package]);
    }
    process::run(&mut build)
}

fn show(node: &Node) -> Result<Value> {
    let text = process::output(&mut node.vessel(&["show", VE, "--json"]))?;
    serde_json::from_str(&text).context("`vessel show --json` wrote no JSON")
}

fn state(node: &Node) -> Result<String> {
    Ok(show(node)?["state"].as_str().unwrap_or_default().to_owned())
}

/// Asks the VE's systemd how it is, and its nginx for a page over the VE's own address.
fn prove(node: &Node) -> Result<IpAddr> {
    let wait = ["exec", VE, "--", "systemctl", "is-system-running", "--wait"];
    let answer = process::output(&mut node.vessel(&wait))?;
    println!("systemd in `{VE}` is {}", answer.trim());
    let shown = show(node)?;
    let address = shown["addresses"][0].as_str().unwrap_or_default();
    let bare = address.split('/').next().unwrap_or_default();
    let address: IpAddr = bare
        .parse()
        .with_context(|| format!("`{VE}` has no address"))?;
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    loop {
        match fetch(SocketAddr::new(address, 80)) {
            Ok(first_line) => {
                println!("nginx at http://{address}/ answers {first_line}");
                return Ok(address);
            }
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("nginx at {address} does not answer")));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// First line of the answer to a request for `/`.
fn fetch(to: SocketAddr) -> Result<String> {
    let second = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&to, second)?;
    stream.set_read_timeout(Some(second))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(64 << 10).read_to_string(&mut answer)?;
    let line = answer.lines().next().unwrap_or_default();
    if !line.contains(" 200 ") {
        bail!("it said `{line}`");
    }
    Ok(line.to_owned())
}

fn next_steps(node: &Node, address: IpAddr) -> String {
    let programs = node.programs.display();
    let root = match node.root == Path::new("/var/lib/vessel") {
        true => String::new(),
        false => format!("  export VESSEL_ROOT={}\n", node.root.display()),
    };
    format!(
        "
A node is ready, with one VE on it. What to type next:

  export PATH={programs}:$PATH
{root}  vessel list                       what runs here
  curl http://{address}/            a page from the VE
  vessel enter {VE}                  a shell in it
  vessel create app --template {TEMPLATE} --count 10 --start
  vessel top                        who uses what
  vessel set {VE} memory.limit=256M  takes effect at once
  vessel --help

`make down` takes all of it away again."
    )
}

/// The last lines of a log, for a message.
fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
