//! Limits of VEs, put where they hold: control groups, pool, network; and which of them this host can
//! hold at all.

use cgroup::{IoControl, Protection};
use engine::{Division, FailureKind, Fault, Support};
use kernel::merging::{Merging, merging};
use policy::InUse;
use rustix::thread::CapabilitySet;
use ve::{Bytes, Key, Limits, Operations, VeId};

use crate::guard;
use crate::host::Host;
use crate::mechanisms::pool_fault;

impl Host {
    /// Whether this host can do what a key asks for.
    pub(crate) fn support(&self, key: Key) -> Support {
        match key {
            Key::MemoryGuarantee => match self.groups.memory_protection() {
                Protection::Kernel => Support::Full,
                Protection::KernelExcept(what) => Support::Partly(what),
                Protection::Nobody => Support::Partly(
                    "cgroup v1 protects no memory: the node holds the other VEs back while its daemon runs"
                        .to_owned(),
                ),
                Protection::Missing => missing_controller("memory"),
            },
            Key::IoReadLimit | Key::IoReadOperations => match self.groups.io_control() {
                IoControl::All | IoControl::NoWriteBack => Support::Full,
                IoControl::Missing => missing_throttling(),
            },
            Key::IoWriteLimit | Key::IoWriteOperations => match self.groups.io_control() {
                IoControl::All => Support::Full,
                IoControl::NoWriteBack => Support::Partly(
                    "cgroup v1 holds what is written directly or waited for, and not what is written later \
                     from the page cache"
                        .to_owned(),
                ),
                IoControl::Missing => missing_throttling(),
            },
            Key::NetworkGuarantee => self.shaper.division_support(self.shaped_network()),
            Key::NetworkLimit | Key::NetworkBurst => network::shape::missing()
                .map_or(Support::Full, |missing| Support::None(missing.to_owned())),
            Key::FilesLimit if !may_limit_processes() => Support::Partly(
                "without `CAP_SYS_RESOURCE` the daemon cannot change processes that run: a change holds from \
                 the next start"
                    .to_owned(),
            ),
            Key::DiskGuarantee => match self.pool.space_undivisible() {
                Some(why) => Support::None(why.to_owned()),
                None => Support::Full,
            },
            Key::MemoryMerge => match merging() {
                Merging::On => Support::Full,
                Merging::Off => Support::Partly(
                    "this machine merges nothing: `echo 1 > /sys/kernel/mm/ksm/run` begins, for all that chose it"
                        .to_owned(),
                ),
                Merging::Missing => {
                    Support::None("the kernel cannot merge memory (CONFIG_KSM)".to_owned())
                }
            },
            Key::IoShare => self.io_share_support(),
            _ => Support::Full,
        }
    }

    /// Gives each VE its part of the node.
    pub(crate) fn divide(&self, division: &Division) -> Result<(), Fault> {
        let for_ves = division.memory_for_ves.get();
        let guaranteed = division.memory_guaranteed.get();
        let divided = self.guard.divide(&self.groups, for_ves, guaranteed);
        let mut first = divided.map_err(|refusal| {
            Fault::new(format!(
                "memory.reserve: {}",
                Fault::from_error(&refusal).message
            ))
            .of_kind(FailureKind::Resources)
        });
        for divided in [
            self.shape_divide(division),
            self.space_divide(division),
            self.io_schedule(division.io_shared),
        ] {
            first = first.and(divided);
        }
        for (id, weight) in &division.cpu_weights {
            match self.groups.ve(*id).set_cpu_weight(*weight) {
                // It ended meanwhile.
                Err(error) if error.is_missing() => {}
                Err(error) if first.is_ok() => first = Err(Fault::from_error(&error)),
                _ => {}
            }
        }
        first
    }

    /// What a VE uses that cannot be taken back.
    pub(crate) fn in_use(&self, id: VeId, running: bool) -> Result<InUse, Fault> {
        let disk = self
            .pool
            .private_usage(id)
            .map_err(|error| pool_fault(&error))?;
        let mut in_use = InUse {
            disk_bytes: Some(disk),
            ..InUse::default()
        };
        if running {
            let usage = self.groups.ve(id).usage();
            let usage = usage.map_err(|error| Fault::from_error(&error))?;
            in_use.memory_bytes = Some(usage.memory_bytes.saturating_sub(usage.memory_cache_bytes));
            in_use.processes = Some(usage.processes);
            let open_files = self.groups.ve(id).open_files_most();
            in_use.open_files = Some(open_files.map_err(|error| Fault::from_error(&error))?);
        } else if let Some((memory, processes)) = crate::sleep::needs(self, id) {
            in_use.memory_bytes = Some(memory);
            in_use.processes = Some(processes);
        }
        Ok(in_use)
    }

    /// Puts limits on a VE, at once if it runs.
    pub(crate) fn limits_apply(
        &self,
        id: VeId,
        limits: &Limits,
        running: bool,
    ) -> Result<(), Fault> {
        let disk = limits.disk.map(Bytes::get);
        let limited = self.pool.private_limit_set(id, disk);
        limited.map_err(|error| pool_fault(&error))?;
        self.space_promise(id, limits)?;
        if running {
            self.shape(id, limits)?;
            self.group_limits_apply(id, limits)?;
            self.open_files_apply(id, limits)
        } else {
            Ok(())
        }
    }

    /// Bounds the open files of processes that run, where the daemon may.
    pub(crate) fn open_files_apply(&self, id: VeId, limits: &Limits) -> Result<(), Fault> {
        let (_, most) = runtime::open_files(limits.files);
        let bounded = self
            .groups
            .ve(id)
            .limit_open_files(most.min(open_files_most()));
        // Who may not was told so: see `support`.
        bounded.map(drop).map_err(|error| {
            Fault::new(format!(
                "files.limit: {}",
                Fault::from_error(&error).message
            ))
        })
    }

    /// Puts limits on the processes of a VE.
    pub(crate) fn group_limits_apply(&self, id: VeId, limits: &Limits) -> Result<(), Fault> {
        if limits.io_share.is_some() {
            self.io_schedule(true)?;
        }
        let group = self.groups.ve(id);
        self.guard.apply(id, limits, || apply(&group, limits))?;
        self.growth.note(&group, limits);
        Ok(())
    }
}

/// Whether this process may change the limits of others (prlimit(2)).
pub(crate) fn may_limit_processes() -> bool {
    rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_RESOURCE))
}

/// Open files that the launcher may give a process: it has the daemon's own limit, or raised it.
pub(crate) fn open_files_most() -> u64 {
    /// As many as `files.limit` ever grants.
    const MOST: u64 = 1_048_576;
    if may_limit_processes() {
        return MOST;
    }
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    own.maximum.unwrap_or(MOST).min(MOST)
}

fn missing_throttling() -> Support {
    Support::None(
        "its kernel has no throttling of block devices (`CONFIG_BLK_DEV_THROTTLING`), or the controller is \
         not given to the daemon's group"
            .to_owned(),
    )
}

fn missing_controller(name: &str) -> Support {
    Support::None(format!(
        "the controller `{name}` is not there; it may be switched off by `cgroup_disable={name}` on the \
         kernel's command line"
    ))
}

fn apply(group: &cgroup::VeGroup, limits: &Limits) -> Result<(), Fault> {
    let applied = group.apply(&cgroup::Limits {
        cpu_limit_millicores: limits.cpu.map(ve::Cores::thousandths),
        cpu_burst_millicores: limits.cpu_burst.map(ve::Cores::thousandths),
        // With a guarantee it depends on the others: see `divide`.
        cpu_weight: match limits.cpu_guarantee {
            None => Some(limits.cpu_share.unwrap_or(policy::weights::SHARE_DEFAULT)),
            Some(_) => None,
        },
        cpu_set: limits
            .cpu_set
            .as_ref()
            .map(|set| set.processors().to_vec())
            .unwrap_or_default(),
        memory_guarantee_bytes: limits.memory_guarantee.map(Bytes::get),
        // While memory is short, the guard ends the burst.
        memory_limit_bytes: guard::most(limits),
        swap_limit_bytes: limits.memory_swap.map(Bytes::get),
        processes_limit: limits.processes,
        io_weight: limits.io_share,
        io: cgroup::IoLimits {
            read_bytes: limits.io_read.map(Bytes::get),
            write_bytes: limits.io_write.map(Bytes::get),
            read_operations: limits.io_read_operations.map(Operations::get),
            write_operations: limits.io_write_operations.map(Operations::get),
        },
    });
    match applied.refused.into_iter().next() {
        None => Ok(()),
        Some((key, refusal)) => {
            let kind = match refusal {
                cgroup::Refusal::Invalid { .. } => FailureKind::Usage,
                _ => FailureKind::Resources,
            };
            let detail = Fault::from_error(&refusal).message;
            Err(Fault::new(format!("{key}: {detail}")).of_kind(kind))
        }
    }
}
