//! Operations, events, pool and node, as they are.

use std::sync::Arc;
use std::time::Duration;

use api::latest::{
    ApiError, Capacity, ErrorCode, Event, InitReply, InitRequest, NodeStatus, Operation,
    Overcommit, PoolKind, PoolStatus, Reserve, Sold,
};
use engine::Notice;
use registry::OperationId;
use server::node::{EventFilter, OperationFilter};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use super::{NodeDoor, resources, ves};
use crate::config::{Choices, Config, PoolConfig};
use crate::convert::{self, api_error};
use crate::daemon::{self, Daemon, Refusal, Up};
use crate::teardown;

/// Longest wait in one request; whoever wants to wait longer asks again.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Events that a follower may fall behind by before it is dropped.
const EVENTS_WAITING_MAX: usize = 1_024;
/// Events that are read from the registry at once.
const EVENTS_PAGE: u32 = 1_000;
/// Operations that are looked through for those that a filter wants.
const OPERATIONS_SEEN_MAX: u32 = 10_000;

/// An operation that was just submitted.
pub(super) fn operation_of(up: &Up, id: OperationId) -> Result<Operation, ApiError> {
    let missing = || ApiError::new(ErrorCode::NotFound, format!("there is no operation {id}"));
    // The ticket first: an operation that ends in between is then shown as ended.
    let ticket = up.engine.ticket(id);
    let operation = up
        .engine
        .registry()
        .operation(id)
        .map_err(|error| registry_error(&error))?;
    let operation = operation.ok_or_else(missing)?;
    Ok(told(up, operation, ticket.as_ref()))
}

/// An operation with what is known of how it went.
fn told(up: &Up, operation: registry::Operation, ticket: Option<&engine::Ticket>) -> Operation {
    let report = up.engine.update_report(operation.id);
    Operation {
        update: report.map(super::updates::report),
        ..convert::operation(operation, ticket)
    }
}

pub(super) fn operation(up: &Arc<Up>, id: u64) -> Result<Operation, ApiError> {
    operation_of(up, number(id)?)
}

pub(super) fn operations(
    up: &Arc<Up>,
    filter: &OperationFilter,
) -> Result<Vec<Operation>, ApiError> {
    let ve = filter
        .ve
        .as_ref()
        .map(|key| ves::find(up, key))
        .transpose()?;
    let ve = ve.map(|record| record.spec.id.get());
    let all = up
        .engine
        .registry()
        .operations(OPERATIONS_SEEN_MAX)
        .map_err(|error| registry_error(&error))?;
    Ok(all
        .into_iter()
        .filter(|operation| filter.ended || operation.ended.is_none())
        .filter(|operation| ve.is_none() || operation.ve == ve)
        .take(filter.count_max.max(1))
        .map(|operation| {
            let ticket = up.engine.ticket(operation.id);
            told(up, operation, ticket.as_ref())
        })
        .collect())
}

pub(super) fn cancel(up: &Arc<Up>, id: u64) -> Result<Operation, ApiError> {
    let id = number(id)?;
    up.engine.cancel(id).map_err(api_error)?;
    operation_of(up, id)
}

pub(super) async fn wait_operation(
    door: &NodeDoor,
    id: u64,
    timeout: Duration,
) -> Result<Operation, ApiError> {
    let mut notices = door.0.notices.subscribe();
    let until = tokio::time::Instant::now() + timeout.min(WAIT_MAX);
    let number = number(id)?;
    loop {
        let operation = door.with_up(move |up| operation_of(up, number)).await?;
        if operation.state.is_ended() {
            return Ok(operation);
        }
        let change = async {
            loop {
                match notices.recv().await {
                    Ok(Notice::Operation(changed)) if changed == number => return,
                    Ok(_) => {}
                    Err(RecvError::Lagged(_) | RecvError::Closed) => return,
                }
            }
        };
        if tokio::time::timeout_at(until, change).await.is_err() {
            return Ok(operation);
        }
    }
}

pub(super) async fn events(
    door: &NodeDoor,
    filter: EventFilter,
) -> Result<mpsc::Receiver<Event>, ApiError> {
    let mut notices = door.0.notices.subscribe();
    let up = door.0.up()?;
    let newest = {
        let up = Arc::clone(&up);
        super::blocking(move || {
            up.engine
                .registry()
                .event_newest()
                .map_err(|error| registry_error(&error))
        })
        .await?
    };
    let begin = match filter.after {
        Some(after) => number(after)?,
        None if filter.follow => newest,
        None => 0,
    };
    let (to, events) = mpsc::channel(EVENTS_WAITING_MAX);
    tokio::spawn(async move {
        let mut last = begin;
        while let Some(sent) = send_after(&up, last, &to).await {
            last = sent.max(last);
            if !filter.follow {
                return;
            }
            loop {
                match notices.recv().await {
                    Ok(Notice::Event(_)) | Err(RecvError::Lagged(_)) => break,
                    Ok(_) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        }
    });
    Ok(events)
}

/// Sends the kept events after `last`; returns the newest that was sent, or nothing when nobody
/// listens any more.
async fn send_after(up: &Arc<Up>, mut last: i64, to: &mpsc::Sender<Event>) -> Option<i64> {
    loop {
        let up = Arc::clone(up);
        let page = move || up.engine.registry().events_after(last, EVENTS_PAGE);
        let page = tokio::task::spawn_blocking(page).await.ok()?.ok()?;
        let Some(newest) = page.last().map(|event| event.id) else {
            return Some(last);
        };
        for event in page {
            to.send(convert::event(event)).await.ok()?;
        }
        last = newest;
    }
}

pub(super) fn pool(up: &Arc<Up>) -> Result<PoolStatus, ApiError> {
    let host = &up.host;
    let failed = |error: std::io::Error| {
        ApiError::new(
            ErrorCode::Failed,
            format!("the pool cannot be looked at: {error}"),
        )
    };
    let usage = host.pool.usage().map_err(failed)?;
    let health = host.pool.health().map_err(failed)?;
    let records = up.engine.list().map_err(api_error)?;
    let saved = crate::contents::saved(host, &records);
    let source = crate::host::pool_source(&host.root, &host.config.pool);
    let strangers = up.engine.strangers();
    let strangers = strangers.iter().map(|id| {
        format!(
            "`private/{id}` holds the files of a VE that the registry does not know: bring back a registry \
             that does, or remove it with `nsenter --target {} --mount btrfs subvolume delete {}`",
            std::process::id(),
            crate::host::pool_mount(&host.root).join("private").join(id.to_string()).display()
        )
    });
    let warnings = host.pool.warnings().iter().map(ToString::to_string);
    let sold = resources::sold(up);
    let unlimited = records
        .iter()
        .filter(|record| record.spec.limits.disk.is_none())
        .count();
    // The node promised by the pool's size; templates beyond the reserve, and a disk below that others
    // fill, break that.
    let areas = host.pool.private_usages().unwrap_or_default();
    let areas: u64 = areas.into_iter().map(|(_, bytes)| bytes).sum();
    let kept = areas.saturating_add(usage.free_bytes);
    let broken = (sold.disk_guarantee_bytes > kept).then(|| {
        format!(
            "VEs are guaranteed more than the pool has for them, which is {}: remove templates, free the \
             disk below the pool, or lower `disk.guarantee` of some",
            ve::Bytes::new(kept >> 20 << 20)
        )
    });
    Ok(PoolStatus {
        kind: match host.config.pool {
            PoolConfig::Loop { .. } => PoolKind::Loop,
            PoolConfig::Device { .. } => PoolKind::Device,
            PoolConfig::Folder { .. } => PoolKind::Folder,
        },
        source: source.path().display().to_string(),
        size_bytes: usage.size_bytes,
        used_bytes: usage.used_bytes,
        free_bytes: usage.free_bytes,
        guaranteed_bytes: sold.disk_guarantee_bytes,
        limits_bytes: sold.disk_limit_bytes,
        unlimited_ves: u32::try_from(unlimited).unwrap_or(u32::MAX),
        allocated_bytes: usage.backing.map(|backing| backing.allocated_bytes),
        disk_free_bytes: usage.backing.map(|backing| backing.disk_free_bytes),
        saved_disk_bytes: saved.disk,
        saved_memory_bytes: saved.memory,
        saved_memory_measured_ves: saved.measured_ves,
        healthy: health.problems.is_empty() && !health.read_only,
        warnings: warnings
            .chain(health.problems.iter().map(ToString::to_string))
            .chain(strangers)
            .chain(broken)
            .collect(),
    })
}

pub(super) fn node(daemon: &Daemon) -> Result<NodeStatus, ApiError> {
    let up = daemon.up_if_prepared();
    let failed =
        |error: &dyn std::fmt::Display| ApiError::new(ErrorCode::Failed, error.to_string());
    let system = rustix::system::uname();
    let layout = cgroup::Layout::detect().map_err(|error| failed(&error))?;
    let mut node = NodeStatus {
        url: format!("unix://{}", daemon.root.join("vessel.sock").display()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        hostname: system.nodename().to_string_lossy().into_owned(),
        kernel: system.release().to_string_lossy().into_owned(),
        cgroup: format!("{:?}", layout.mode()).to_lowercase(),
        root: daemon.root.display().to_string(),
        initialized: up.is_some(),
        networks: Vec::new(),
        first_id: 0,
        last_id: 0,
        started: daemon.started,
        capacity: Capacity::default(),
        reserve: Reserve::default(),
        overcommit: Overcommit::default(),
        sold: Sold::default(),
    };
    match up {
        None => {
            let memory = kernel::proc::memory_info().map_err(|error| failed(&error))?;
            let processors = kernel::proc::processors().map_err(|error| failed(&error))?;
            let processors = u32::try_from(processors.get()).unwrap_or(u32::MAX);
            node.capacity.cpu_cores = f64::from(processors);
            node.capacity.memory_bytes = memory.total_bytes;
        }
        Some(up) => {
            let (facts, has) = (up.engine.facts(), up.engine.capacity());
            node.networks = facts.ranges.iter().map(ToString::to_string).collect();
            (node.first_id, node.last_id) = (facts.first_id.get(), facts.last_id.get());
            let ves = (node.last_id + 1).saturating_sub(node.first_id);
            node.capacity = resources::capacity(&has, ves);
            if let Ok(usage) = up.host.pool.usage() {
                node.capacity.disk_bytes = usage.size_bytes;
            }
            node.reserve = resources::reserve(&has);
            node.overcommit = resources::overcommit(&has);
            node.sold = resources::sold(&up);
        }
    }
    Ok(node)
}

pub(super) fn init(daemon: &Arc<Daemon>, request: InitRequest) -> Result<InitReply, ApiError> {
    let choices = Choices {
        pool_size: request.pool_size,
        device: request.device,
        pool: request.pool,
        network: request.network,
        first_id: request.first_id,
    };
    // Found as it is, the file of an earlier node is nothing that may be taken back.
    let pool_found = daemon.root.join(teardown::POOL_FILE).exists();
    let changed = daemon::prepare(&daemon.root, &choices).map_err(|error| init_error(&error))?;
    if daemon.up_if_prepared().is_none() {
        let config = Config::load(&daemon.root).map_err(|error| init_error(&error))?;
        let config = config.ok_or_else(|| {
            ApiError::new(
                ErrorCode::Failed,
                "the configuration vanished while it was read",
            )
        })?;
        if let Err(error) = daemon.bring_up(config.clone()) {
            if changed {
                take_back(daemon, &config, pool_found);
            }
            return Err(init_error(&error));
        }
    }
    Ok(InitReply {
        changed,
        node: node(daemon)?,
    })
}

/// Takes back what an `init` made whose node does not come up, so that a next one begins anew.
fn take_back(daemon: &Daemon, config: &Config, pool_found: bool) {
    let taken = teardown::take_back(daemon, config).and_then(|()| {
        if pool_found {
            return Ok(());
        }
        teardown::remove_file(daemon, teardown::POOL_FILE)
    });
    if let Err(error) = taken {
        tracing::error!("what was made for a node that does not come up stays: {error:#}");
    }
}

/// Why a node could not be prepared, with the code that fits.
pub(crate) fn init_error(error: &anyhow::Error) -> ApiError {
    let message = format!("{error:#}");
    let (code, hint) = match daemon::refusal(error) {
        Some(Refusal::Prepared) => (
            ErrorCode::Conflict,
            "leave the options away to use it as it is, or take it away with `vessel node destroy`",
        ),
        Some(Refusal::Usage) => (
            ErrorCode::Usage,
            "`vessel init --help` shows what can be chosen",
        ),
        Some(Refusal::Missing) => (
            ErrorCode::NotFound,
            "name a place that exists; nothing was changed",
        ),
        Some(Refusal::Taken) => (
            ErrorCode::Conflict,
            "without --first-id free numbers are chosen; nothing was changed",
        ),
        Some(Refusal::Occupied) => (
            ErrorCode::Conflict,
            "name another place; nothing was changed",
        ),
        Some(Refusal::TooLarge) => (
            ErrorCode::NoResources,
            "take a smaller one; nothing was changed",
        ),
        None => (
            ErrorCode::Failed,
            "`vessel doctor` shows what this host has and lacks",
        ),
    };
    ApiError::new(code, message).with_hint(hint)
}

fn number(id: u64) -> Result<i64, ApiError> {
    i64::try_from(id)
        .map_err(|_| ApiError::new(ErrorCode::NotFound, format!("there is no number {id}")))
}

fn registry_error(error: &registry::RegistryError) -> ApiError {
    let message = engine::Fault::from_error(error).message;
    ApiError::new(ErrorCode::Failed, message)
        .with_hint("see that the disk of the node's root has room and is healthy")
}
