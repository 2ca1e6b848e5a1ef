//! Web servers outside of VEs, the network between them and their client, and the client itself.

use std::fs;
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::mount::{UnmountFlags, unmount};
use rustix::thread::CpuSet;
use serde::Deserialize;

use crate::command;
use crate::process;
use crate::stage::Stage;

/// Processors of the servers and of the client.
pub(crate) const SERVERS: usize = 0;
pub(crate) const CLIENT: usize = 1;

/// Connections to each server.
const CONNECTIONS: &str = "8";

/// The client's addresses, and the other ends of its links: to the host without a node, and to the
/// one with.
const LINKS: [(&str, &str, &str); 2] = [
    ("host", "10.122.0.1", "10.122.0.2"),
    ("node", "10.122.0.5", "10.122.0.6"),
];

/// Port of the first server on the host, and of the one whose files lie in an overlay.
pub(crate) const FIRST_PORT: usize = 8_000;
pub(crate) const STACKED_PORT: usize = 7_999;

/// What a server must have done within.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes of the page that is asked for.
const PAGE_BYTES: usize = 4_096;

/// A server as Debian configures it, but for three things: one worker, so that a server is as many
/// processes everywhere; no log of requests, which would measure file systems; and connections that
/// stay open, so that the client can be simple.
const CONFIG: &str = "\
user www-data;
worker_processes 1;
error_log /var/log/nginx/error.log;
include /etc/nginx/modules-enabled/*.conf;
events { worker_connections 768; }
http {
    sendfile on;
    tcp_nopush on;
    types_hash_max_size 2048;
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    access_log off;
    keepalive_requests 100000000;
    server { listen LISTEN; root /var/www/html; }
}
";

/// Puts the configuration and the page into a Debian, before it becomes a template.
pub(crate) fn configure(tree: &Path) -> Result<()> {
    let config = format!("pid /run/nginx.pid;\n{}", CONFIG.replace("LISTEN", "80"));
    fs::write(tree.join("etc/nginx/nginx.conf"), config).context("cannot configure nginx")?;
    let page = "x".repeat(PAGE_BYTES);
    fs::write(tree.join("var/www/html/page"), page).context("cannot write the page")
}

/// Connects the client's namespace with the host's and with the node's.
pub(crate) fn connect(stage: &Stage) -> Result<()> {
    let client = stage.client_network();
    let host = stage.host_network();
    for (name, near, far) in LINKS {
        let outer = match name {
            "host" => Some(host.as_str()),
            _ => None,
        };
        let pair = ["ip", "link", "add", name, "type", "veth"];
        let peer = ["peer", "name", name, "netns", &client];
        let mut add = inside(outer, &[&pair[..], &peer].concat());
        command::output(&mut add)?;
        for (place, own) in [(outer, near), (Some(client.as_str()), far)] {
            let address = format!("{own}/30");
            let lines: [&[&str]; 3] = [
                &["ip", "address", "add", &address, "dev", name],
                &["ip", "link", "set", name, "up"],
                &["ip", "link", "set", "lo", "up"],
            ];
            for line in lines {
                command::output(&mut inside(place, line))?;
            }
        }
    }
    let (_, gateway, _) = LINKS[1];
    let route = ["ip", "route", "add", "default", "via", gateway];
    command::output(&mut inside(Some(&client), &route)).map(drop)
}

fn inside(network: Option<&str>, words: &[&str]) -> Command {
    match network {
        Some(network) => {
            let enter = format!("--net={network}");
            let mut command = command::words(&["nsenter", &enter, "--"]);
            command.args(words);
            command
        }
        None => command::words(words),
    }
}

/// An overlay over a tree, as a VE has one, mounted for as long as this lives.
#[derive(Debug)]
pub(crate) struct Overlay(PathBuf);

impl Overlay {
    pub(crate) fn mount(stage: &Stage, tree: &Path) -> Result<Self> {
        let folder = stage.folder().join("web-overlay");
        for name in ["", "upper", "work", "root"] {
            fs::create_dir(folder.join(name)).context("cannot make a folder for an overlay")?;
        }
        let shown = folder.display();
        let layers = format!(
            "lowerdir={},upperdir={shown}/upper,workdir={shown}/work",
            tree.display()
        );
        let root = folder.join("root");
        let at = root.display().to_string();
        let words = ["mount", "-t", "overlay", "overlay", "-o", &layers, &at];
        command::output(&mut command::words(&words))?;
        Ok(Self(root))
    }

    pub(crate) fn root(&self) -> &Path {
        &self.0
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// Servers on the host, from the same files as those in VEs.
#[derive(Debug)]
pub(crate) struct HostServers {
    children: Vec<Child>,
    ports: Range<usize>,
}

impl HostServers {
    /// Starts one for each port, in a network namespace without a node: a node's filter is part of what it
    /// costs.
    pub(crate) fn start(stage: &Stage, tree: &Path, ports: Range<usize>) -> Result<Self> {
        let mut servers = Self {
            children: Vec::new(),
            ports: ports.clone(),
        };
        let (_, address, _) = LINKS[0];
        for n in ports {
            let listen = format!("{address}:{n}");
            let config = CONFIG.replace("LISTEN", &listen);
            let config = format!("daemon off;\npid /run/nginx-{n}.pid;\n{config}");
            let file = format!("etc/nginx/host-{n}.conf");
            fs::write(tree.join(&file), config).context("cannot configure nginx")?;
            let tree = tree.display().to_string();
            let file = format!("/{file}");
            let words = ["chroot", &tree, "/usr/sbin/nginx", "-c", &file];
            let mut command = inside(Some(&stage.host_network()), &words);
            let quiet = command
                .process_group(0)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            servers
                .children
                .push(quiet.spawn().context("cannot run nginx")?);
        }
        Ok(servers)
    }

    /// Where they listen, and their processes.
    pub(crate) fn servers(&self) -> Result<Vec<Server>> {
        let (_, address, _) = LINKS[0];
        let mut servers = Vec::new();
        for (port, child) in self.ports.clone().zip(&self.children) {
            servers.push(Server {
                address: format!("{address}:{port}"),
                processes: await_workers(child.id())?,
            });
        }
        Ok(servers)
    }
}

impl Drop for HostServers {
    fn drop(&mut self) {
        for child in &mut self.children {
            // The master first: it would replace a worker that it outlives.
            for pid in process::family(child.id()) {
                process::kill(pid);
            }
            let _ = child.wait();
        }
    }
}

/// One server.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) processes: Vec<u32>,
}

/// The processes of the server among the descendants of a process, pinned; waits for both of them.
pub(crate) fn await_workers(pid: u32) -> Result<Vec<u32>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let family = process::family(pid).into_iter();
        let found: Vec<u32> = family
            .filter(|one| process::is_named(*one, "nginx"))
            .collect();
        if found.len() >= 2 {
            for one in &found {
                pin(*one)?;
            }
            return Ok(found);
        }
        if Instant::now() > deadline {
            bail!("nginx has no worker");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn pin(pid: u32) -> Result<()> {
    let mut processors = CpuSet::new();
    processors.set(SERVERS);
    rustix::thread::sched_setaffinity(process::number(pid), &processors).context("cannot pin nginx")
}

/// What the client found out.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Load {
    pub(crate) seconds: f64,
    pub(crate) answered: f64,
    pub(crate) late: f64,
    pub(crate) server_ns: f64,
    pub(crate) client_ns: f64,
    pub(crate) kernel_ns: f64,
}

/// Asks servers for some seconds: `rate` requests a second, or as fast as they answer.
pub(crate) fn load(
    stage: &Stage,
    servers: &[Server],
    seconds: f64,
    rate: Option<f64>,
) -> Result<Load> {
    let pids = |pids: &mut dyn Iterator<Item = u32>| {
        pids.map(|pid| pid.to_string())
            .collect::<Vec<_>>()
            .join(",")
    };
    let watched = pids(
        &mut servers
            .iter()
            .flat_map(|server| server.processes.iter().copied()),
    );
    let kernel = pids(&mut process::named("ksoftirqd/").into_iter());
    let mut command = Command::new(stage.program("bench-load"));
    command
        .arg(stage.client_network())
        .args([CLIENT.to_string(), seconds.to_string()])
        .args([CONNECTIONS, &rate.unwrap_or_default().to_string()])
        .args([&watched, &kernel])
        .args(servers.iter().map(|server| &server.address));
    let text = command::output(&mut command)?;
    serde_json::from_str(&text).context("the client said no JSON")
}

/// A namespace of this process, as a path that others can open.
pub(crate) fn path_of(namespace: &fs::File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_listens_where_it_is_told() {
        let tree = std::env::temp_dir().join(format!("bench-web-{}", std::process::id()));
        fs::create_dir_all(tree.join("etc/nginx")).unwrap();
        fs::create_dir_all(tree.join("var/www/html")).unwrap();
        configure(&tree).unwrap();
        let config = fs::read_to_string(tree.join("etc/nginx/nginx.conf")).unwrap();
        assert!(config.contains("listen 80;") && !config.contains("LISTEN"));
        let page = fs::read(tree.join("var/www/html/page")).unwrap();
        assert_eq!(page.len(), PAGE_BYTES);
        fs::remove_dir_all(&tree).unwrap();
    }
}
