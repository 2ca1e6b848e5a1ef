//! The node's mechanisms as the engine wants them: each method glues crates that do the work.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use engine::{
    Division, FailureKind, Fault, Mechanisms, Patience, ProgressSink, Running, StackBuild, Support,
    Sweep, TemplateRequest,
};
use policy::InUse;
use registry::{Run, Stage, VeRecord};
use runtime::{CgroupEntry, ConsoleLog, InitKind, LaunchSpec, NetworkSpec, VeState, VeStatus};
use ve::{Bytes, Exit, Key, Limits, Options, Spec, Stack, VeId};

use crate::host::{CONSOLE_LOG_BYTES_MAX, Host};
use crate::{contents, guest, leftovers, sleep, stacks, templates};

/// How long a killed VE may take to be gone: a process in an uninterruptible wait for a disk can
/// hold it.
pub(crate) const KILL_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the freezer may take with a VE that forks as fast as it can.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end of a network namespace may take to remove its link.
const LINK_TIMEOUT: Duration = Duration::from_millis(200);

/// [`Mechanisms`] over a [`Host`].
pub(crate) struct NodeMechanisms(pub(crate) Arc<Host>);

fn fault(error: &(dyn std::error::Error + 'static)) -> Fault {
    Fault::from_error(error)
}

impl Mechanisms for NodeMechanisms {
    fn templates(&self) -> Result<BTreeSet<Stack>, Fault> {
        let names = self.0.catalogue.names();
        names.map_err(|error| fault(&error))
    }

    fn template_version(&self, stack: &Stack) -> Result<Option<String>, Fault> {
        templates::version(&self.0, stack)
    }

    fn template_work(
        &self,
        request: &TemplateRequest,
        sink: &dyn ProgressSink,
    ) -> Result<(), Fault> {
        templates::work(&self.0, request, sink)
    }

    fn template_remove(&self, stack: &Stack) -> Result<(), Fault> {
        templates::remove(&self.0, stack)
    }

    fn options_check(&self, stack: &Stack, options: &Options) -> Result<(), Fault> {
        stacks::options_check(&self.0, stack, options)
    }

    fn build_check(&self, build: &StackBuild) -> Result<(), Fault> {
        stacks::build_check(&self.0, build)
    }

    fn stack_install(
        &self,
        sandbox: &VeRecord,
        build: &StackBuild,
        sink: &dyn ProgressSink,
    ) -> Result<(), Fault> {
        stacks::install(self, sandbox, build, sink)
    }

    fn stack_keep(
        &self,
        sandbox: &VeRecord,
        build: &StackBuild,
        sink: &dyn ProgressSink,
    ) -> Result<(), Fault> {
        stacks::keep(&self.0, sandbox, build, sink)
    }

    fn lower_check(&self, record: &VeRecord, new: &Stack) -> Result<(), Fault> {
        contents::lower_check(&self.0, record, new)
    }

    fn lower_change(&self, record: &VeRecord, new: &Stack) -> Result<(), Fault> {
        contents::lower_change(&self.0, record, new)
    }

    fn lower_settle(&self, record: &VeRecord) -> Result<(), Fault> {
        contents::lower_settle(&self.0, record)
    }

    fn address_check(&self, address: IpAddr) -> Result<(), Fault> {
        network::address::check(address).map_err(|error| fault(&error).of_kind(FailureKind::Usage))
    }

    fn support(&self, key: Key) -> Support {
        self.0.support(key)
    }

    fn divide(&self, division: &Division) -> Result<(), Fault> {
        self.0.divide(division)
    }

    fn area_create(&self, id: VeId, disk: Option<Bytes>) -> Result<(), Fault> {
        self.0
            .pool
            .private_create(id, disk.map(Bytes::get))
            .map_err(|error| pool_fault(&error))
    }

    fn area_remove(&self, id: VeId) -> Result<(), Fault> {
        sleep::discard(&self.0, id)?;
        let before = self.0.pool.private_before_forget(id);
        before.map_err(|error| pool_fault(&error))?;
        self.0
            .pool
            .private_remove(id)
            .map_err(|error| pool_fault(&error))?;
        remove_folder(&self.0.log_folder(id))
    }

    fn groups_create(&self, spec: &Spec) -> Result<(), Fault> {
        let host = &self.0;
        host.groups.create(spec.id).map_err(|error| fault(&error))?;
        host.group_limits_apply(spec.id, &spec.limits)
    }

    fn launch(&self, record: &VeRecord) -> Result<Running, Fault> {
        // There already, but for a node that lost power before the area of a new VE was on disk.
        self.area_create(record.spec.id, record.spec.limits.disk)?;
        let launch = self.launch_spec(record)?;
        let folder = self.0.log_folder(record.spec.id);
        std::fs::create_dir_all(&folder)
            .map_err(|error| Fault::new(format!("cannot make {}: {error}", folder.display())))?;
        let entry = self
            .0
            .groups
            .ve(record.spec.id)
            .entry()
            .map_err(|error| fault(&error))?;
        // The launcher keeps the end of an init until it is dealt with, and here it is: this VE's lane
        // has come to its next init.
        self.0.launcher.acknowledge(record.spec.id);
        let launched = self
            .0
            .launcher
            .client()
            .launch(&launch, &cgroup_entry(&entry))
            .map_err(|error| fault(&error))?;
        if let Err(fault) = self.0.shape_new(record.spec.id, &record.spec.limits) {
            // It must not run without its limit.
            self.end(record.spec.id, None, Patience::None, &|| false)?;
            return Err(fault);
        }
        self.announce(&record.spec.addresses)?;
        Ok(Running {
            run: self.run(launched),
            ready: launch.kind == InitKind::Other,
        })
    }

    fn end(
        &self,
        id: VeId,
        stack: Option<&Stack>,
        patience: Patience,
        cancelled: &dyn Fn() -> bool,
    ) -> Result<Exit, Fault> {
        let launcher = &self.0.launcher;
        let pid = match self
            .status(id)?
            .map(|status| (status.init.pid, status.state))
        {
            Some((pid, state)) if !matches!(state, VeState::Exited(_)) => pid,
            ended => {
                self.kill_stray(id)?;
                return Ok(match ended {
                    Some((_, VeState::Exited(exit))) => exit,
                    _ => Exit::Unknown,
                });
            }
        };
        if let (Patience::Until(timeout), Some(stack)) = (patience, stack) {
            // An init that cannot be asked is killed below.
            if launcher
                .client()
                .signal(id, self.stop_signal(stack))
                .is_ok()
                && let Some(exit) = launcher.wait_exit(id, pid, timeout, cancelled)
            {
                self.kill_stray(id)?;
                return Ok(exit);
            }
            if cancelled() {
                return Err(Fault::new("it was cancelled").of_kind(FailureKind::Cancelled));
            }
        }
        // Gone by itself, or killed by this: either way its end is told.
        let _ = launcher.client().kill(id);
        self.kill_stray(id)?;
        launcher
            .wait_exit(id, pid, KILL_TIMEOUT, &|| false)
            .ok_or_else(|| {
                Fault::new("its processes were killed and are not gone yet").with_hint(
                    "a process may wait for a disk that does not answer; try again, or see `dmesg`",
                )
            })
    }

    fn clear(&self, id: VeId) -> Result<(), Fault> {
        self.0.metering.group_ends(&self.0.groups, id);
        self.0.groups.remove(id).map_err(|error| fault(&error))?;
        self.0.metering.group_ended(id);
        self.0.guard.forget(id);
        self.0.growth.forget(id);
        let mut netlink = self.0.netlink();
        let gone = network::link::wait_gone(&mut netlink, id, LINK_TIMEOUT);
        if !gone.map_err(|error| fault(&error))? {
            network::link::remove_if_present(&mut netlink, &[id]).map_err(|error| fault(&error))?;
        }
        drop(netlink);
        self.0.shape_end(id)
    }

    fn running(
        &self,
        known: &BTreeMap<VeId, Option<Run>>,
    ) -> Result<BTreeMap<VeId, Running>, Fault> {
        leftovers::running(self, known)
    }

    fn exits(&self) -> Result<BTreeMap<VeId, (Run, Exit)>, Fault> {
        let listed = self
            .0
            .launcher
            .client()
            .list()
            .map_err(|error| fault(&error))?;
        let exits = listed.into_iter().filter_map(|status| match status.state {
            VeState::Exited(exit) => Some((status.id, (self.run(status.init), exit))),
            _ => None,
        });
        Ok(exits.collect())
    }

    fn exit_settled(&self, id: VeId, pid: u32) {
        self.0.launcher.settle_exit(id, pid);
    }

    fn freeze(&self, id: VeId) -> Result<(), Fault> {
        self.0
            .groups
            .ve(id)
            .freeze(FREEZE_TIMEOUT)
            .map_err(|error| fault(&error))
    }

    fn thaw(&self, id: VeId) -> Result<(), Fault> {
        self.0
            .groups
            .ve(id)
            .thaw(FREEZE_TIMEOUT)
            .map_err(|error| fault(&error))
    }

    fn frozen(&self, id: VeId) -> Result<bool, Fault> {
        self.0
            .groups
            .ve(id)
            .is_frozen()
            .map_err(|error| fault(&error))
    }

    fn suspend(&self, record: &VeRecord, sink: &dyn ProgressSink) -> Result<(), Fault> {
        sleep::suspend(self, record, sink)
    }

    fn asleep(&self, record: &VeRecord) -> Result<bool, Fault> {
        sleep::asleep(&self.0, record)
    }

    fn wake(&self, record: &VeRecord, sink: &dyn ProgressSink) -> Result<Running, Fault> {
        sleep::wake(self, record, sink)
    }

    fn discard(&self, id: VeId) -> Result<(), Fault> {
        sleep::discard(&self.0, id)
    }

    fn compact(&self, record: &VeRecord, sink: &dyn ProgressSink) -> Result<(), Fault> {
        contents::compact(&self.0, record, sink)
    }

    fn in_use(&self, id: VeId, running: bool) -> Result<InUse, Fault> {
        self.0.in_use(id, running)
    }

    fn limits_apply(&self, id: VeId, limits: &Limits, running: bool) -> Result<(), Fault> {
        self.0.limits_apply(id, limits, running)
    }

    fn addresses_apply(&self, id: VeId, old: &[IpAddr], new: &[IpAddr]) -> Result<(), Fault> {
        network::link::set_addresses(&mut self.0.netlink(), id, old, new)
            .map_err(|error| fault(&error))?;
        self.withdraw(old)?;
        self.announce(new)?;
        match self.status(id)? {
            Some(status) => set_addresses_inside(status.init.pid, old, new),
            None => Ok(()),
        }
    }

    fn sweep(&self, keep: &[VeId]) -> Result<Sweep, Fault> {
        leftovers::sweep(self, keep)
    }
}

impl NodeMechanisms {
    /// Addresses that do not lie in the node's own ranges, and so may belong to a network that the
    /// node itself is in: there it has to answer for them.
    fn foreign(&self, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let ranges = &self.0.config.networks;
        let own = |address: &&IpAddr| ranges.iter().any(|range| range.contains(*address));
        addresses
            .iter()
            .filter(|address| !own(address))
            .copied()
            .collect()
    }

    pub(crate) fn announce(&self, addresses: &[IpAddr]) -> Result<(), Fault> {
        let foreign = self.foreign(addresses);
        if foreign.is_empty() {
            return Ok(());
        }
        network::uplink::announce(&mut self.0.netlink(), &foreign)
            .map(drop)
            .map_err(|error| fault(&error))
    }

    fn withdraw(&self, addresses: &[IpAddr]) -> Result<(), Fault> {
        let foreign = self.foreign(addresses);
        if foreign.is_empty() {
            return Ok(());
        }
        network::uplink::withdraw(&mut self.0.netlink(), &foreign).map_err(|error| fault(&error))
    }

    pub(crate) fn run(&self, init: runtime::protocol::Launched) -> Run {
        Run {
            pid: init.pid,
            start_time_ticks: init.start_time,
            boot_id: self.0.boot_id.clone(),
        }
    }

    /// What the launcher knows of this VE's init, if it has one or had one until just now.
    fn status(&self, id: VeId) -> Result<Option<VeStatus>, Fault> {
        let listed = self
            .0
            .launcher
            .client()
            .list()
            .map_err(|error| fault(&error))?;
        Ok(listed.into_iter().find(|status| status.id == id))
    }

    /// Kills what is left in a VE's groups: processes that were entered from outside.
    pub(crate) fn kill_stray(&self, id: VeId) -> Result<(), Fault> {
        self.0
            .groups
            .ve(id)
            .kill_all(KILL_TIMEOUT)
            .map_err(|error| fault(&error))
    }

    /// The signal on which an init of this template ends everything and powers off.
    fn stop_signal(&self, stack: &Stack) -> i32 {
        templates::init(&self.0, stack).map_or(templates::SIGNAL_TERMINATE, |init| {
            templates::stop_signal(&init)
        })
    }

    pub(crate) fn launch_spec(&self, record: &VeRecord) -> Result<LaunchSpec, Fault> {
        let spec = &record.spec;
        let stack = spec.stack();
        let init = templates::init(&self.0, &stack)?;
        let console = ConsoleLog {
            path: self.0.log_folder(spec.id).join("console.log"),
            bytes_max: CONSOLE_LOG_BYTES_MAX,
        };
        let root = self.0.root_spec(spec.id, &stack)?;
        let mut launch = LaunchSpec::new(spec.id, &spec.hostname, root, console);
        launch.kind = templates::launch_kind(&init);
        if record.stage == Stage::Building {
            // Nothing of the template's own starts in a sandbox.
            launch.kind = InitKind::Other;
            launch.init = stacks::IDLE.map(str::to_owned).to_vec();
        }
        launch.nesting = spec.nesting;
        launch.merge_memory = spec.memory_merge;
        launch.open_files = runtime::open_files(spec.limits.files);
        launch.facts = guest::facts(record)?;
        if !spec.addresses.is_empty() {
            launch.network = Some(NetworkSpec {
                addresses: spec.addresses.clone(),
                mtu: self.0.mtu(),
            });
        }
        Ok(launch)
    }
}

/// Changes addresses within a VE: on a thread of its own, which enters the VE's network namespace
/// and ends there. Nothing of the VE's files or processes is touched.
fn set_addresses_inside(pid: u32, old: &[IpAddr], new: &[IpAddr]) -> Result<(), Fault> {
    let path = format!("/proc/{pid}/ns/net");
    let namespace = std::fs::File::open(&path)
        .map_err(|error| Fault::new(format!("cannot open {path}: {error}")))?;
    let inside = || -> Result<(), Fault> {
        kernel::namespace::join_network_namespace(&namespace)
            .map_err(|error| Fault::new(format!("cannot enter the VE's network: {error}")))?;
        network::inside::set_addresses(old, new).map_err(|error| fault(&error))
    };
    std::thread::scope(|scope| scope.spawn(inside).join())
        .unwrap_or_else(|_| Err(Fault::new("changing addresses within the VE failed")))
}

pub(crate) fn cgroup_entry(entry: &cgroup::Entry) -> CgroupEntry<'_> {
    use std::os::fd::AsFd;
    CgroupEntry {
        v1_tasks: entry.v1_tasks.iter().map(AsFd::as_fd).collect(),
        v2: entry.v2_directory.as_ref().map(AsFd::as_fd),
    }
}

pub(crate) fn pool_fault(error: &pool::PrivateError) -> Fault {
    use pool::PrivateError::{Full, LimitBelowUse, LimitTooSmall, NoQuota};
    let kind = match error {
        Full(_) | LimitBelowUse { .. } | NoQuota { .. } => FailureKind::Resources,
        LimitTooSmall { .. } => FailureKind::Usage,
        _ => FailureKind::Failed,
    };
    Fault::from_error(error).of_kind(kind)
}

fn remove_folder(folder: &std::path::Path) -> Result<(), Fault> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Fault::new(format!(
            "cannot remove {}: {error}",
            folder.display()
        ))),
        _ => Ok(()),
    }
}
