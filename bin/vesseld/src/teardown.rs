//! Taking a node down: for a reboot of its host, or for ever.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use api::latest::{ApiError, DestroyRequest, ErrorCode, ShutdownRequest};
use engine::{Request, StopManner, VeRequest};
use runtime::VeState;
use ve::{State, VeId};

use crate::config::Config;
use crate::convert::api_error;
use crate::daemon::{Daemon, Up};
use crate::host::{self, Host};
use crate::records;

/// The default pool, below the node's root.
pub(crate) const POOL_FILE: &str = "pool.img";

/// What keeps a second daemon away, below the node's root.
pub(crate) const LOCK_FILE: &str = "vesseld.lock";

/// How long VEs are waited for when a client names no time.
const STOP_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);

/// How long requests that are under way may use a node that is taken down.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(10);

/// Stops all VEs, and takes everything down that is not on disk. The daemon ends afterwards.
pub(crate) fn shut_down(daemon: &Arc<Daemon>, request: &ShutdownRequest) -> Result<(), ApiError> {
    if let Some(up) = daemon.up_if_prepared() {
        let timeout = request
            .timeout_ms
            .map_or(STOP_TIMEOUT_DEFAULT, Duration::from_millis);
        let failed = stop_all(&up, StopManner::Ask { timeout })?;
        if let Some(message) = failed {
            return Err(ApiError::new(ErrorCode::Failed, message)
                .with_hint("stop these VEs by hand, then shut the node down again"));
        }
        release(daemon, up).map_err(|error| failed_to_release(&error))?;
    }
    let _ = daemon.ending.send(true);
    Ok(())
}

/// Deletes all VEs and everything that was made for the node. The daemon ends afterwards.
pub(crate) fn destroy(daemon: &Arc<Daemon>, request: &DestroyRequest) -> Result<(), ApiError> {
    if let Some(up) = daemon.up_if_prepared() {
        let records = up.engine.list().map_err(api_error)?;
        if !records.is_empty() && !request.force {
            let message = format!("this node has {} VEs", records.len());
            return Err(ApiError::new(ErrorCode::Conflict, message)
                .with_hint("delete them first, or repeat with `--force` to lose them"));
        }
        if let Some(message) = stop_all(&up, StopManner::Kill)? {
            return Err(ApiError::new(ErrorCode::Failed, message));
        }
        let swept = up.host.pool.private_clear();
        let swept = swept.map_err(|error| failed_to_release(&error.into()))?;
        if let Some((id, error)) = swept.failed.first() {
            let message = format!("the files of VE {id} cannot be removed: {error}");
            return Err(ApiError::new(ErrorCode::Failed, message));
        }
        release(daemon, up).map_err(|error| failed_to_release(&error))?;
    }
    remove_files(daemon)
        .and_then(|()| remove_file(daemon, POOL_FILE))
        .and_then(|()| remove_file(daemon, LOCK_FILE))
        .map_err(|error| failed_to_release(&error))?;
    let _ = daemon.ending.send(true);
    Ok(())
}

/// Takes back what was made for a node that was never up, except the file of its pool. The daemon
/// waits for the next try.
pub(crate) fn take_back(daemon: &Daemon, config: &Config) -> Result<()> {
    match daemon.up_if_prepared() {
        Some(up) => release(daemon, up)?,
        None => {
            if let Ok((client, _)) = runtime::Client::connect(&daemon.root) {
                client.shutdown().context("the launcher does not end")?;
            }
            let source = host::pool_source(&daemon.root, &config.pool);
            let mount = host::pool_mount(&daemon.root);
            pool::Pool::open(&source, &mount, &pool::Options::default())?.close()?;
        }
    }
    remove_files(daemon)
}

/// Stops VEs in the order of a shutdown; says which did not.
fn stop_all(up: &Up, manner: StopManner) -> Result<Option<String>, ApiError> {
    let records = up.engine.list().map_err(api_error)?;
    let mut failed = Vec::new();
    for wave in policy::stop_waves(records.iter().map(|record| &record.spec)) {
        let runs = |id: &VeId| {
            records
                .iter()
                .any(|record| record.spec.id == *id && record.state != State::Stopped)
        };
        let mut operations = Vec::new();
        for id in wave.iter().filter(|id| runs(id)) {
            let request = VeRequest::Stop(manner);
            match up.engine.submit(Request::Ve {
                reference: id.to_string(),
                request,
            }) {
                Ok(submitted) => operations.push(submitted),
                Err(failure) if failure.kind == engine::FailureKind::State => {}
                Err(failure) => failed.push(failure.message),
            }
        }
        for submitted in operations {
            crate::daemon::wait_for(&up.engine, submitted.operation);
            let ended = up.engine.registry().operation(submitted.operation);
            if let Ok(Some(operation)) = ended
                && let Some(message) = operation.message
            {
                failed.push(message);
            }
        }
    }
    Ok((!failed.is_empty()).then(|| failed.join("; ")))
}

/// Gives back everything of the node but its files: launcher, network, groups, pool.
fn release(daemon: &Daemon, up: Arc<Up>) -> Result<()> {
    daemon.take_down();
    up.host.guard.wake();
    up.host.growth.wake();
    // Its end is also that of the thread that hears it.
    end_launcher(&up.host)?;
    let Up { host, engine, .. } = sole(up)?;
    drop(engine);
    let Host {
        pool,
        catalogue,
        groups,
        config,
        ..
    } = sole(host)?;
    let mut netlink = network::Netlink::open()?;
    network::node::remove(&mut netlink, &host::node_network(&config)?)?;
    groups.close_and_remove()?;
    drop(catalogue);
    pool.close()?;
    Ok(())
}

/// Ends the launcher. Ends of inits that it still keeps are dealt with: every VE was stopped.
fn end_launcher(host: &Host) -> Result<()> {
    let client = host.launcher.client();
    for status in client.list().context("the launcher does not answer")? {
        if matches!(status.state, VeState::Exited(_)) {
            client.acknowledge(status.id, status.init.pid)?;
        }
    }
    client.shutdown().context("the launcher does not end")
}

/// Waits until nobody else uses something: requests that are under way end by themselves.
fn sole<T>(mut shared: Arc<T>) -> Result<T> {
    let until = Instant::now() + RELEASE_TIMEOUT;
    loop {
        match Arc::try_unwrap(shared) {
            Ok(sole) => return Ok(sole),
            Err(_) if Instant::now() > until => {
                anyhow::bail!("clients still use the node; try again when they have ended")
            }
            Err(still) => {
                shared = still;
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Removes what the node has below its root, except the file of its pool and the daemon's lock.
fn remove_files(daemon: &Daemon) -> Result<()> {
    let root = &daemon.root;
    for folder in ["run", "log", "pool", records::ASIDE] {
        gone(std::fs::remove_dir_all(root.join(folder)), folder)?;
    }
    for file in [
        "node.toml",
        records::FILE,
        "registry.db-wal",
        "registry.db-shm",
        records::COPY,
        "registry.new",
        crate::metering::HISTORY_FILE,
        "history.damaged",
    ] {
        remove_file(daemon, file)?;
    }
    Ok(())
}

pub(crate) fn remove_file(daemon: &Daemon, file: &str) -> Result<()> {
    gone(std::fs::remove_file(daemon.root.join(file)), file)
}

fn gone(result: std::io::Result<()>, what: &str) -> Result<()> {
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {what}"))
        }
        _ => Ok(()),
    }
}

fn failed_to_release(error: &anyhow::Error) -> ApiError {
    ApiError::new(
        ErrorCode::Failed,
        format!("the node cannot be taken down: {error:#}"),
    )
    .with_hint("nothing is lost; start `vesseld` again if it ended, and repeat")
}
