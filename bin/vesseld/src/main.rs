//! `vesseld`: the daemon of a node.
//!
//! Begins single-threaded, to enter the node's mount namespace, and only then starts threads. It
//! takes nothing with it when it ends: VEs run on under the launcher, and the next daemon takes
//! them over.
#![forbid(unsafe_code)]

mod alerts;
mod config;
mod contents;
mod convert;
mod daemon;
mod doctor;
mod growth;
mod guard;
mod guest;
mod host;
mod inside;
mod launcher;
mod leftovers;
mod limits;
mod mechanisms;
mod metering;
mod network_watch;
mod node;
mod package_cache;
mod passwords;
mod records;
mod scheduler;
mod shaper;
mod sleep;
mod space;
mod stacks;
mod teardown;
mod templates;
mod updates;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use api::latest::{ApiError, ErrorCode};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::config::{Choices, Config};
use crate::daemon::Daemon;
use crate::node::NodeDoor;
use crate::teardown::LOCK_FILE;

/// Threads for what blocks: sessions hold one each for as long as they last.
const BLOCKING_THREADS_MAX: usize = 2_048;

/// Runs a Vessel node in the foreground.
#[derive(Debug, Parser)]
#[command(version, about, long_about = None, after_help = "Example: vesseld --root /var/lib/vessel")]
struct Arguments {
    /// Folder of the node: its configuration, registry, pool and sockets.
    #[arg(
        long,
        env = "VESSEL_ROOT",
        default_value = "/var/lib/vessel",
        value_name = "DIR"
    )]
    root: PathBuf,
    /// Prepare the node as `vessel init` does, print what came of it as JSON, and end.
    #[arg(long)]
    init_only: bool,
    /// Print what this host has and lacks as JSON, and end.
    #[arg(long, conflicts_with = "init_only")]
    doctor: bool,
    /// Answer metrics for Prometheus over TCP, too: a port of the loopback address, or ADDRESS:PORT.
    #[arg(long, value_name = "WHERE")]
    metrics_listen: Option<String>,
    /// Size of the pool's file.
    #[arg(long, requires = "init_only", value_name = "SIZE")]
    pool_size: Option<String>,
    /// Block device for the pool.
    #[arg(long, requires = "init_only", value_name = "DEV")]
    device: Option<String>,
    /// Folder in a btrfs for the pool.
    #[arg(long, requires = "init_only", value_name = "DIR")]
    pool: Option<String>,
    /// Range of addresses for VEs; several with commas.
    #[arg(long, requires = "init_only", value_name = "CIDR")]
    network: Option<String>,
    /// First number of this node's VEs.
    #[arg(long, requires = "init_only", value_name = "N")]
    first_id: Option<u32>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env("VESSEL_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    if !rustix::process::geteuid().is_root() {
        return answer(
            &ApiError::new(
                ErrorCode::Permission,
                "vesseld makes namespaces, mounts and links",
            )
            .with_hint("run it as root"),
        );
    }
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if arguments.init_only => answer(&node::init_error(&error)),
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    if arguments.doctor {
        return print(&doctor::report(&arguments.root, None));
    }
    let root = absolute(&arguments.root)?;
    let _lock = lock(&root)?;
    enter_mount_namespace(&root)?;
    if arguments.init_only {
        let prepared = init_only(&root, arguments);
        if prepared.is_err() {
            remove_empty(&root);
        }
        return prepared;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build()
        .context("cannot start threads")?;
    let served = runtime.block_on(serve(&root, arguments.metrics_listen.as_deref()));
    // What still blocks belongs to clients that are gone now.
    runtime.shutdown_background();
    served
}

async fn serve(root: &Path, metrics_listen: Option<&str>) -> Result<()> {
    let daemon = Daemon::new(root);
    let mut metrics_listen = metrics_listen.map(str::to_owned);
    if let Some(config) = Config::load(root)? {
        metrics_listen = metrics_listen.or_else(|| config.metrics_listen.clone());
        let daemon = Arc::clone(&daemon);
        tokio::task::spawn_blocking(move || daemon.bring_up(config))
            .await
            .context("the node failed inside while coming up")??;
    }
    tokio::spawn(alerts::outbox::run(Arc::clone(&daemon)));
    if let Some(text) = metrics_listen {
        answer_metrics(&daemon, &text).await?;
    }
    let listener = server::bind(&root.join("vessel.sock"))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut ending = daemon.ending.subscribe();
    tracing::info!("node at {} is up", root.display());
    // Does nothing where no service manager asked for it.
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::warn!("the service manager cannot be told that the node is up: {error}");
    }
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("asked to end; VEs run on"),
            _ = interrupt.recv() => tracing::info!("interrupted; VEs run on"),
            _ = ending.wait_for(|ending| *ending) => {}
        }
    };
    server::serve(listener, Arc::new(NodeDoor(Arc::clone(&daemon))), shutdown).await;
    let _ = daemon.ending.send(true);
    if let Some(up) = daemon.up_if_prepared() {
        up.host.metering.store(&up);
        records::copy(root, &up);
    }
    // Nobody answers there any more. A destroyed node has left its root empty, to go with it.
    std::fs::remove_file(root.join("vessel.sock")).context("cannot remove the socket")?;
    if Config::load(root)?.is_none() {
        let _ = std::fs::remove_dir(root);
    }
    Ok(())
}

/// Answers metrics over TCP until the daemon ends.
async fn answer_metrics(daemon: &Arc<Daemon>, text: &str) -> Result<()> {
    let address = config::listen_address(text)?;
    let listener = server::listen(address).await?;
    tracing::info!(
        "metrics are answered at http://{}/metrics",
        listener.local_addr()?
    );
    let mut ending = daemon.ending.subscribe();
    let shutdown = async move {
        // A sender that is gone is an end, too.
        drop(ending.wait_for(|ending| *ending).await);
    };
    let node = Arc::new(NodeDoor(Arc::clone(daemon)));
    tokio::spawn(server::serve_metrics(listener, node, shutdown));
    Ok(())
}

/// Prepares the node and says what came of it, without a daemon.
fn init_only(root: &Path, arguments: &Arguments) -> Result<()> {
    let choices = Choices {
        pool_size: arguments.pool_size.clone(),
        device: arguments.device.clone(),
        pool: arguments.pool.clone(),
        network: arguments.network.clone(),
        first_id: arguments.first_id,
    };
    let changed = daemon::prepare(root, &choices)?;
    print(&serde_json::json!({ "changed": changed, "root": root }))
}

/// Removes a root that holds nothing but our lock: one that was made for a node that is refused.
fn remove_empty(root: &Path) {
    let Ok(entries) = std::fs::read_dir(root) else {
        return;
    };
    let own = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.file_name() == LOCK_FILE)
    };
    if entries.into_iter().all(own) {
        let _ = std::fs::remove_file(root.join(LOCK_FILE));
        let _ = std::fs::remove_dir(root);
    }
}

/// Says why something was refused as `vessel` does, which passes words and code of an `init` on.
#[expect(
    clippy::print_stderr,
    reason = "the program's answer, for the command line that ran it"
)]
fn answer(error: &ApiError) -> ExitCode {
    eprintln!("error: {}", error.message);
    if let Some(hint) = &error.hint {
        eprintln!("hint: {hint}");
    }
    ExitCode::from(error.code.exit_code())
}

#[expect(
    clippy::print_stdout,
    reason = "the program's answer, for the command line that ran it"
)]
fn print(value: &impl serde::Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(value)?);
    Ok(())
}

/// The root as an absolute path, made if need be: the daemon's working directory is not its own.
fn absolute(root: &Path) -> Result<PathBuf> {
    // What VEs say on their consoles, and the hashes of their passwords, are root's to read.
    let mut builder = std::fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(root);
    made.with_context(|| format!("cannot make {}", root.display()))?;
    std::path::absolute(root).with_context(|| format!("cannot use {}", root.display()))
}

/// Keeps a second daemon away from this root, for as long as the descriptor is open.
fn lock(root: &Path) -> Result<OwnedFd> {
    let path = root.join(LOCK_FILE);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(
        |_| {
            anyhow::anyhow!(
                "another vesseld runs on {}; use that one, or end it first",
                root.display()
            )
        },
    )?;
    Ok(file.into())
}

/// Enters the mount namespace that the node's launcher holds, or a new one of its own.
///
/// Nobody outside sees the pool there, so nothing outside can hold it when it is to go.
fn enter_mount_namespace(root: &Path) -> Result<()> {
    if let Ok((client, _events)) = runtime::Client::connect(root) {
        let path = format!("/proc/{}/ns/mnt", client.launcher_pid());
        drop(client);
        let namespace = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        return join_when_alone(&namespace);
    }
    kernel::namespace::leave_mount_namespace().context("cannot make a mount namespace; run as root")
}

/// Joins once the threads of the connection above have ended: the kernel wants a single thread.
fn join_when_alone(namespace: &File) -> Result<()> {
    let mut tries = 0;
    loop {
        match kernel::namespace::join_mount_namespace(namespace) {
            Ok(()) => return Ok(()),
            Err(error) if tries == 100 => {
                return Err(error).context("cannot enter the launcher's mount namespace");
            }
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(5)),
        }
        tries += 1;
    }
}
