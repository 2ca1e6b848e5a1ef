//! The parts of a node that is up: pool, templates, groups, network, launcher.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use cgroup::{Layout, NodeGroup};
use engine::Fault;
use network::Netlink;
use network::fast_path::{FastPath, FastPathError};
use network::node::NodeNetwork;
use pool::Pool;
use template::Catalogue;
use ve::VeId;

use crate::config::{Config, PoolConfig};
use crate::contents::Contents;
use crate::growth::Growth;
use crate::guard::Guard;
use crate::launcher::Launcher;
use crate::metering::Metering;
use crate::shaper::Shaper;
use crate::space::Space;

/// Size of each of the two files of a console's log.
pub(crate) const CONSOLE_LOG_BYTES_MAX: u64 = 512 << 10;

/// Everything that mechanisms work with.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) root: PathBuf,
    pub(crate) config: Config,
    pub(crate) pool: Pool,
    pub(crate) catalogue: Catalogue,
    pub(crate) groups: NodeGroup,
    pub(crate) guard: Arc<Guard>,
    pub(crate) growth: Arc<Growth>,
    pub(crate) launcher: Arc<Launcher>,
    pub(crate) boot_id: String,
    pub(crate) metering: Metering,
    pub(crate) shaper: Shaper,
    /// Where this kernel has what it takes.
    pub(crate) fast_path: Option<Arc<FastPath>>,
    pub(crate) contents: Contents,
    pub(crate) space: Space,
    netlink: Mutex<Netlink>,
    /// The largest packet that leaves the node whole, as last looked at; 0 where none leaves it.
    mtu: AtomicU32,
}

/// Where the pool is mounted, in the node's own mount namespace.
pub(crate) fn pool_mount(root: &Path) -> PathBuf {
    root.join("pool")
}

/// The pool's source as its configuration names it.
pub(crate) fn pool_source(root: &Path, config: &PoolConfig) -> pool::Source {
    match config {
        PoolConfig::Loop { size_bytes } => pool::Source::LoopFile {
            path: root.join(crate::teardown::POOL_FILE),
            size_bytes: *size_bytes,
        },
        PoolConfig::Device { path } => pool::Source::Device(path.clone()),
        PoolConfig::Folder { path } => pool::Source::Directory(path.clone()),
    }
}

/// The node's place in the network.
pub(crate) fn node_network(config: &Config) -> Result<NodeNetwork> {
    Ok(NodeNetwork {
        ids: config.first()?..=config.last()?,
        ranges: config.networks.clone(),
        nat: config.nat,
    })
}

impl Host {
    /// Brings the parts of a prepared node up. Warnings are logged.
    pub(crate) fn up(root: &Path, config: Config) -> Result<(Self, runtime::Events)> {
        for folder in ["run", "log"] {
            let folder = root.join(folder);
            let mut builder = std::fs::DirBuilder::new();
            let made = builder.recursive(true).mode(0o700).create(&folder);
            made.with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let layout = Layout::detect()?;
        let (mut client, events) = crate::launcher::connect(root)?;
        let groups = NodeGroup::open(&layout, config.first()?, client.take_held())?;
        // Held there, too, the numbers stay this node's while no daemon runs.
        client.hold(groups.lock())?;
        crate::launcher::give_view(&client, config.first()?);
        let pool = Pool::open(
            &pool_source(root, &config.pool),
            &pool_mount(root),
            &pool::Options::default(),
        )?;
        for warning in pool.warnings() {
            tracing::warn!("pool: {warning}");
        }
        count_io(&pool, &groups)?;
        let catalogue = Catalogue::open(pool.templates_path())?;
        let mut netlink = Netlink::open()?;
        let network = node_network(&config)?;
        network::node::prepare(&mut netlink, &network)?;
        let fast_path = open_fast_path(&mut netlink, &network);
        let mtu = network::uplink::mtu(&mut netlink)?;
        let boot_id = kernel::proc::boot_id()?;
        let metering = Metering::new(root, network, fast_path.clone(), &boot_id);
        let host = Self {
            root: root.to_owned(),
            config,
            pool,
            catalogue,
            groups,
            guard: Arc::new(Guard::new().context("no descriptor is left")?),
            growth: Arc::new(Growth::new().context("no descriptor is left")?),
            launcher: Launcher::new(client),
            boot_id,
            metering,
            shaper: Shaper::default(),
            fast_path,
            contents: Contents::default(),
            space: Space::default(),
            netlink: Mutex::new(netlink),
            mtu: AtomicU32::new(mtu.unwrap_or_default()),
        };
        Ok((host, events))
    }

    /// The socket to the kernel's network, for one exchange.
    pub(crate) fn netlink(&self) -> MutexGuard<'_, Netlink> {
        self.netlink.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the node's part of the network up again if something of it is gone, and looks at what it
    /// leaves the node by.
    pub(crate) fn restore_network(&self) -> Result<()> {
        let network = node_network(&self.config)?;
        let mut netlink = self.netlink();
        if !network::node::intact(&mut netlink, &network)? {
            tracing::warn!("something else changed the node's network; setting it up again");
            network::node::prepare(&mut netlink, &network)?;
        }
        let mtu = network::uplink::mtu(&mut netlink)?;
        self.mtu.store(mtu.unwrap_or_default(), Ordering::Relaxed);
        drop(netlink);
        self.refresh_fast_path();
        Ok(())
    }

    /// Opens or closes the fast path as it must be now.
    pub(crate) fn refresh_fast_path(&self) {
        let Some(fast_path) = &self.fast_path else {
            return;
        };
        // Of its own: who else filters is asked by programs, and nobody shall wait for them.
        let refreshed = Netlink::open()
            .map_err(FastPathError::from)
            .and_then(|mut netlink| fast_path.refresh(&mut netlink));
        if let Err(error) = refreshed {
            let error = anyhow::Error::from(error);
            tracing::warn!("the fast path of VEs' packets cannot be changed: {error:#}");
        }
    }

    /// The MTU of links of VEs that are started now, in bytes.
    pub(crate) fn mtu(&self) -> Option<u32> {
        let mtu = self.mtu.load(Ordering::Relaxed);
        (mtu > 0).then_some(mtu)
    }

    /// Folder of a VE's console log.
    pub(crate) fn log_folder(&self, id: VeId) -> PathBuf {
        self.root.join("log").join(id.to_string())
    }

    /// Waits until all that was written to the pool is on disk.
    pub(crate) fn pool_sync(&self) -> Result<(), Fault> {
        let synced = self.pool.sync();
        synced.map_err(|error| Fault::new(format!("cannot write out the pool: {error}")))
    }

    /// A VE's private area.
    pub(crate) fn private(&self, id: VeId) -> PathBuf {
        pool_mount(&self.root).join("private").join(id.to_string())
    }

    /// The layers of a VE's root.
    pub(crate) fn root_spec(
        &self,
        id: VeId,
        stack: &ve::Stack,
    ) -> Result<runtime::RootSpec, Fault> {
        Ok(runtime::RootSpec {
            lower: self.lower(stack)?,
            private: self.private(id),
        })
    }

    /// The layers of a template.
    pub(crate) fn lower(&self, stack: &ve::Stack) -> Result<runtime::Lower, Fault> {
        let damaged = |error: &dyn std::error::Error| {
            Fault::new(error.to_string()).with_hint("`vessel template verify` tells more")
        };
        let layers = self
            .catalogue
            .open_layers(stack)
            .map_err(|error| damaged(&error))?;
        Ok(runtime::Lower::Composefs {
            image: path_of(&layers.image).map_err(|error| damaged(&error))?,
            objects: path_of(&layers.objects).map_err(|error| damaged(&error))?,
        })
    }
}

/// Makes the fast path; where the kernel cannot, packets take the slow one.
fn open_fast_path(netlink: &mut Netlink, network: &NodeNetwork) -> Option<Arc<FastPath>> {
    match FastPath::open(netlink, network) {
        Ok(fast_path) => Some(Arc::new(fast_path)),
        Err(error) => {
            let error = anyhow::Error::from(error);
            tracing::warn!("there is no fast path for packets of VEs: {error:#}");
            None
        }
    }
}

/// Counts what VEs read and write on the devices of the pool.
fn count_io(pool: &Pool, groups: &NodeGroup) -> Result<()> {
    for device in pool.health()?.devices {
        let status = rustix::fs::stat(&device.path)
            .with_context(|| format!("cannot look at {}", device.path.display()))?;
        let (major, minor) = (
            rustix::fs::major(status.st_rdev),
            rustix::fs::minor(status.st_rdev),
        );
        groups.count_io_of(major, minor)?;
    }
    Ok(())
}

/// Where an open file lies, in the node's mount namespace, which is the launcher's, too.
fn path_of(file: &impl std::os::fd::AsRawFd) -> std::io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
