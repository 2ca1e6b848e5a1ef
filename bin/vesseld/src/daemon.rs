//! The daemon as a whole: a node that waits to be prepared, or one that is up.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use api::latest::{ApiError, ErrorCode};
use api::time::Timestamp;
use engine::{Engine, EngineParts, Fault, Notice};
use ipnet::IpNet;
use pool::Pool;
use runtime::Events;
use tokio::sync::{broadcast, watch};
use ve::VeId;

use crate::alerts::Alerts;
use crate::config::{Choices, Config};
use crate::convert;
use crate::growth::Growth;
use crate::guard::{self, Guard};
use crate::host::{self, Host};
use crate::launcher::{self, News};
use crate::mechanisms::NodeMechanisms;
use crate::metering;
use crate::network_watch::look_after;
use crate::records;

/// Notices that a slow listener may fall behind by before it has to look for itself.
const NOTICES_KEPT: usize = 4_096;

/// The daemon.
#[derive(Debug)]
pub(crate) struct Daemon {
    pub(crate) root: PathBuf,
    pub(crate) started: Timestamp,
    pub(crate) notices: broadcast::Sender<Notice>,
    /// Turns true when the daemon is to end.
    pub(crate) ending: watch::Sender<bool>,
    up: RwLock<Option<Arc<Up>>>,
}

/// A node that is up.
#[derive(Debug)]
pub(crate) struct Up {
    pub(crate) host: Arc<Host>,
    pub(crate) engine: Engine,
    pub(crate) alerts: Alerts,
}

/// Seconds since 1970. A clock before that counts as 1970.
fn seconds_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

/// Why choices for a node are refused, where a program may have to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is prepared already, and otherwise.
    Prepared,
    /// The choices make no sense.
    Usage,
    /// Something that they name does not exist.
    Missing,
    /// Another node has what they choose.
    Taken,
    /// Something else is where the pool is to be.
    Occupied,
    /// The file system below cannot hold a file of the chosen size.
    TooLarge,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Prepared => "the node is prepared already, and otherwise",
            Self::Usage => "the choices cannot be used",
            Self::Missing => "there is no such thing",
            Self::Taken => "another node of this host is in the way",
            Self::Occupied => "something else is there",
            Self::TooLarge => "the size is more than the file system below can hold",
        })
    }
}

impl std::error::Error for Refusal {}

/// Which refusal an error is.
pub(crate) fn refusal(error: &anyhow::Error) -> Option<Refusal> {
    let Some(creation) = error.downcast_ref::<pool::CreateError>() else {
        return error.downcast_ref::<Refusal>().copied();
    };
    match creation {
        pool::CreateError::TooSmall { .. }
        | pool::CreateError::NotADevice { .. }
        | pool::CreateError::NotBtrfs { .. } => return Some(Refusal::Usage),
        pool::CreateError::Occupied { .. } | pool::CreateError::InUse { .. } => {
            return Some(Refusal::Occupied);
        }
        _ => {}
    }
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref());
    causes.find_map(|cause: &std::io::Error| match cause.kind() {
        std::io::ErrorKind::NotFound => Some(Refusal::Missing),
        std::io::ErrorKind::FileTooLarge => Some(Refusal::TooLarge),
        _ => None,
    })
}

/// Prepares the node at `root` as chosen, if it was not: pool and configuration. True when
/// something was made.
pub(crate) fn prepare(root: &Path, choices: &Choices) -> Result<bool> {
    if let Some(config) = Config::load(root)? {
        if let Some(difference) = config.differs_from(choices).context(Refusal::Usage)? {
            return Err(anyhow::anyhow!(difference).context(Refusal::Prepared));
        }
        return Ok(false);
    }
    kernel::probe::Features::probe().require_needed()?;
    let nodes = cgroup::neighbours(&cgroup::Layout::detect()?)?;
    let numbers: Vec<VeId> = nodes.iter().map(|node| node.first_id).collect();
    let used: Vec<IpNet> = network::uplink::networks(&mut network::Netlink::open()?)?
        .into_iter()
        .map(|used| used.network)
        .collect();
    let config = Config::choose(choices, &numbers, &used).context(Refusal::Usage)?;
    refuse_taken_numbers(&config, &nodes)?;
    refuse_used_networks(&config)?;
    let created = Pool::create(
        &host::pool_source(root, &config.pool),
        &host::pool_mount(root),
        &pool::Options::default(),
    )?;
    for warning in created.warnings() {
        tracing::warn!("pool: {warning}");
    }
    // Before the configuration: from then on a node without a registry has lost it.
    drop(records::make(root)?);
    config.save(root)?;
    Ok(true)
}

/// Refuses the numbers of another node's VEs: their user ids would be the same.
fn refuse_taken_numbers(config: &Config, nodes: &[cgroup::Neighbour]) -> Result<()> {
    let first = config.first()?;
    let Some(node) = nodes.iter().find(|node| node.first_id == first) else {
        return Ok(());
    };
    Err(anyhow::anyhow!(
        "VEs of a node that runs here are numbered from {first}, too; {} holds their groups",
        node.holder
    )
    .context(Refusal::Taken))
}

/// Refuses ranges that the host uses already: VEs there and hosts there would hide each other.
fn refuse_used_networks(config: &Config) -> Result<()> {
    let mut netlink = network::Netlink::open()?;
    for range in &config.networks {
        if let Some(used) = network::uplink::overlaps(&mut netlink, *range)?.first() {
            return Err(anyhow::anyhow!(
                "the network {range} is not free: this host uses {used}; choose another with --network"
            )
            .context(Refusal::Usage));
        }
    }
    Ok(())
}

impl Daemon {
    pub(crate) fn new(root: &Path) -> Arc<Self> {
        Arc::new(Self {
            root: root.to_owned(),
            started: convert::now(),
            notices: broadcast::channel(NOTICES_KEPT).0,
            ending: watch::channel(false).0,
            up: RwLock::default(),
        })
    }

    /// The node, if it is up.
    ///
    /// # Errors
    /// Says how to prepare a node that was not.
    pub(crate) fn up(&self) -> Result<Arc<Up>, ApiError> {
        self.up_if_prepared().ok_or_else(|| {
            let message = format!("the node at {} is not prepared yet", self.root.display());
            ApiError::new(ErrorCode::WrongState, message).with_hint(
                "prepare it with `vessel init`; `vessel doctor` shows what this host has",
            )
        })
    }

    pub(crate) fn up_if_prepared(&self) -> Option<Arc<Up>> {
        self.up
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Takes the node down, so that nothing of it is used any more.
    pub(crate) fn take_down(&self) -> Option<Arc<Up>> {
        self.up
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Brings a prepared node up: parts, registry, recovery, and the VEs that start with it.
    pub(crate) fn bring_up(self: &Arc<Self>, config: Config) -> Result<()> {
        let facts = engine::NodeFacts {
            first_id: config.first()?,
            last_id: config.last()?,
            ranges: config.networks.clone(),
            machine: policy::limits::Machine {
                processors: u32::try_from(kernel::proc::processors()?.get())?,
                open_files: crate::limits::open_files_most(),
            },
        };
        let resources = config.resources()?;
        let registry = records::open(&self.root)?;
        let (host, events) = Host::up(&self.root, config)?;
        let host = Arc::new(host);
        let capacity = capacity(&host, facts.machine.processors, resources)?;
        let notices = self.notices.clone();
        let engine = Engine::new(EngineParts {
            registry,
            mechanisms: Box::new(NodeMechanisms(Arc::clone(&host))),
            facts,
            capacity,
            clock: Box::new(seconds_now),
            run_lane: Box::new(run_lane),
            // Without a listener nobody has to hear.
            publish: Box::new(move |notice| drop(notices.send(notice))),
        });
        crate::node::samples::prepare(engine.registry())?;
        let alerts = Alerts::load(engine.registry(), self.root.clone())?;
        let up = Arc::new(Up {
            host,
            engine,
            alerts,
        });
        up.host.metering.attach(Arc::downgrade(&up))?;
        *self.up.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&up));
        // Recovery ends inits, and hears of their ends as everybody does. Nothing else is begun
        // before it is over: the engine sees to that.
        let daemon = Arc::clone(self);
        let listener = Arc::clone(&up);
        std::thread::Builder::new()
            .name("events".to_owned())
            .spawn(move || daemon.listen(&listener, events))?;
        let findings = up.engine.recover().map_err(|failure| match &failure.hint {
            Some(hint) => anyhow::anyhow!("{failure}; {hint}"),
            None => anyhow::anyhow!("{failure}"),
        })?;
        for finding in findings {
            tracing::info!("recovery: {finding}");
        }
        up.adopt_running();
        self.keep_up(up)
    }

    /// Starts what a node does all the time, and the VEs that start with it.
    fn keep_up(self: &Arc<Self>, up: Arc<Up>) -> Result<()> {
        let guarded = Arc::clone(self);
        let guard = Arc::clone(&up.host.guard);
        std::thread::Builder::new()
            .name("memory".to_owned())
            .spawn(move || guarded.guard_memory(&guard))?;
        let grown = Arc::clone(self);
        let growth = Arc::clone(&up.host.growth);
        std::thread::Builder::new()
            .name("growth".to_owned())
            .spawn(move || grown.grow_memory(&growth))?;
        let copied = Arc::clone(self);
        std::thread::Builder::new()
            .name("registry".to_owned())
            .spawn(move || records::keep_copy(&copied))?;
        let watched = Arc::clone(self);
        std::thread::Builder::new()
            .name("network".to_owned())
            .spawn(move || look_after(|| watched.up_if_prepared()))?;
        let metered = Arc::clone(self);
        std::thread::Builder::new()
            .name("meter".to_owned())
            .spawn(move || {
                metering::run(
                    || metered.up_if_prepared(),
                    |up, current| {
                        up.host.space_deal();
                        up.alerts.look(up, current);
                    },
                );
            })?;
        std::thread::Builder::new()
            .name("autostart".to_owned())
            .spawn(move || {
                up.engine
                    .autostart(|operation| wait_for(&up.engine, operation))
            })?;
        Ok(())
    }

    /// Hears the launcher for as long as the daemon lives; when it dies, starts another, which
    /// takes the VEs over.
    fn listen(&self, up: &Up, mut events: Events) {
        loop {
            up.host.launcher.listen(&events, |news| match news {
                News::Ready(id, pid) => up.engine.ready(id, pid),
                News::Exited(id, pid, exit) => up.engine.exited(id, pid, exit),
                News::Gone => {}
            });
            if *self.ending.borrow() || self.up_if_prepared().is_none() {
                return;
            }
            tracing::warn!("the launcher ended; starting another, VEs run on");
            match self.replace_launcher(up) {
                Ok(new) => events = new,
                Err(error) => {
                    tracing::error!("no launcher can be started: {error:#}; ending");
                    let _ = self.ending.send(true);
                    return;
                }
            }
        }
    }

    /// Keeps the memory of VEs as it was promised. Ends with the daemon or the node.
    fn guard_memory(&self, guard: &Arc<Guard>) {
        guard::hurry();
        while let Some(up) = self.up_if_prepared() {
            let longest = guard.look(&up.host.groups);
            drop(up);
            guard.wait(longest);
        }
    }

    /// Gives VEs the memory that they come to need. Ends with the daemon or the node.
    fn grow_memory(&self, growth: &Arc<Growth>) {
        guard::hurry();
        while let Some(up) = self.up_if_prepared() {
            let longest = growth.look(&up);
            drop(up);
            growth.wait(longest);
        }
    }

    /// Starts another launcher, hands it the VEs that run, and settles those that ended between.
    fn replace_launcher(&self, up: &Up) -> Result<Events> {
        let (client, events) = launcher::connect(&self.root)?;
        client.hold(up.host.groups.lock())?;
        launcher::give_view(&client, up.host.config.first()?);
        up.host.launcher.replace(client);
        let records = up.engine.registry().ves()?;
        let known = records
            .iter()
            .filter(|record| record.run.is_some())
            .map(|record| (record.spec.id, record.run.clone()))
            .collect();
        let mechanisms = NodeMechanisms(Arc::clone(&up.host));
        let running = engine::Mechanisms::running(&mechanisms, &known)
            .map_err(|fault: Fault| anyhow::anyhow!(fault.message))?;
        for (id, run) in known.into_iter().filter_map(|(id, run)| Some((id, run?))) {
            if running.get(&id).is_none_or(|running| running.run != run) {
                up.host.launcher.note_exit(id, run.pid, ve::Exit::Unknown);
                up.engine.exited(id, run.pid, ve::Exit::Unknown);
            }
        }
        Ok(events)
    }
}

impl Up {
    /// Takes note of VEs that an earlier daemon started.
    fn adopt_running(&self) {
        let holdings = self.engine.holdings();
        let running = || holdings.iter().filter(|(_, holding)| holding.runs);
        for (id, holding) in running() {
            self.host.guard.adopt(*id, &holding.limits);
            let group = self.host.groups.ve(*id);
            self.host.growth.note(&group, &holding.limits);
        }
        let shaped = running().map(|(id, holding)| (*id, &holding.limits));
        if let Err(fault) = self.host.shape_begin(shaped) {
            tracing::error!("the node's network is not divided: {}", fault.message);
        }
    }
}

/// What this machine has for VEs.
fn capacity(
    host: &Host,
    processors: u32,
    resources: ve::NodeResources,
) -> Result<policy::NodeCapacity> {
    let has = policy::Capacity {
        cpu: ve::Cores::from_thousandths(processors.saturating_mul(1_000)),
        memory: ve::Bytes::new(kernel::proc::memory_info()?.total_bytes),
        disk: ve::Bytes::new(host.pool.usage()?.size_bytes),
    };
    Ok(policy::NodeCapacity { has, resources })
}

/// A thread for the work of one lane. Lanes end when nothing waits in them, so there are never
/// more threads than VEs with something under way.
fn run_lane(work: Box<dyn FnOnce() + Send>) {
    let spawned = std::thread::Builder::new()
        .name("lane".to_owned())
        .stack_size(1 << 20)
        .spawn(work);
    if let Err(error) = spawned {
        tracing::error!("no thread for an operation: {error}; it is done at the next start");
    }
}

/// Waits until an operation has ended, looking every now and then: for the order of starts.
pub(crate) fn wait_for(engine: &Engine, operation: i64) {
    while engine.ticket(operation).is_some() {
        std::thread::sleep(Duration::from_millis(20));
    }
}
