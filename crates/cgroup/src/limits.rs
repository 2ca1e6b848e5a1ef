//! What a VE may use at most, written live.
//!
//! Nothing here needs a restart. Each limit is written by itself and answers by itself: a refusal
//! of one leaves the others applied and the refused one as it was. A memory limit below what is in
//! use first makes the kernel take memory back; what remains is refused, never killed for.

use std::fmt;
use std::path::Path;

use rustix::io::Errno;

use crate::error::{FileError, OpenError, UsageError};
use crate::files::{Directory, keyed};
use crate::group::VeGroup;
use crate::layout::{Controller, Home};
use crate::node::{enable, inherit_cpuset};
use crate::processes::processes_default;

/// The limits of a VE. `None` is "as much as there is".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Processor time, in thousandths of a processor; 10 and up.
    pub cpu_limit_millicores: Option<u32>,
    /// Weight against other VEs when processors are short: 1 to 10,000; `None` is 100.
    pub cpu_share: Option<u32>,
    /// Processors that may be used; empty is all.
    pub cpu_set: Vec<u32>,
    /// Memory, page cache included.
    pub memory_limit_bytes: Option<u64>,
    /// Swap beyond the memory.
    pub swap_limit_bytes: Option<u64>,
    /// Processes and threads; `None` is [`processes_default`].
    pub processes_limit: Option<u32>,
}

/// One of the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitKey {
    /// [`Limits::cpu_limit_millicores`].
    CpuLimit,
    /// [`Limits::cpu_share`].
    CpuShare,
    /// [`Limits::cpu_set`].
    CpuSet,
    /// [`Limits::memory_limit_bytes`].
    Memory,
    /// [`Limits::swap_limit_bytes`].
    Swap,
    /// [`Limits::processes_limit`].
    Processes,
}

/// Why a limit was not applied.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// More memory is in use than the new limit, and the kernel could not take it back.
    #[error(
        "{in_use_bytes} bytes of memory are in use, more than the limit of {limit_bytes} bytes: stop \
         something in the VE, or choose a higher limit"
    )]
    MemoryInUse {
        /// What is in use now.
        in_use_bytes: u64,
        /// What was asked.
        limit_bytes: u64,
    },
    /// This host cannot limit it.
    #[error("this host cannot limit it: {reason}")]
    Unsupported {
        /// What is missing, and how to get it.
        reason: String,
    },
    /// The value cannot be.
    #[error("{reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// The kernel refused.
    #[error("the kernel refused the limit")]
    File(#[from] FileError),
    /// The controller could not be switched on.
    #[error("the controller that it needs could not be switched on")]
    Enable(#[from] OpenError),
}

/// What became of each limit.
#[derive(Debug, Default)]
#[must_use]
pub struct Applied {
    /// The limits that were not applied, with the reasons; all others hold now.
    pub refused: Vec<(LimitKey, Refusal)>,
}

impl fmt::Display for LimitKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::CpuLimit => "cpu.limit",
            Self::CpuShare => "cpu.share",
            Self::CpuSet => "cpu.set",
            Self::Memory => "memory.limit",
            Self::Swap => "memory.swap",
            Self::Processes => "processes.limit",
        })
    }
}

/// Period of the processor quota: the kernel's default, and what people expect of `0.5` cores.
const CPU_PERIOD_MICROSECONDS: u64 = 100_000;
/// Least quota: the kernel takes no less than 1,000 microseconds per period.
const CPU_MILLICORES_MIN: u32 = 10;
const CPU_SHARE_DEFAULT: u32 = 100;
/// How often memory is taken back before a lower limit is refused. The kernel stops early when
/// it makes no progress, so that few rounds are enough.
const RECLAIM_ROUNDS: u32 = 8;

impl Applied {
    /// Whether all limits hold.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.refused.is_empty()
    }
}

impl VeGroup {
    /// Writes all limits, live. May take seconds when memory has to be taken back; else some
    /// hundred microseconds.
    pub fn apply(&self, limits: &Limits) -> Applied {
        let outcomes = [
            (
                LimitKey::CpuLimit,
                self.apply_cpu_limit(limits.cpu_limit_millicores),
            ),
            (LimitKey::CpuShare, self.apply_cpu_share(limits.cpu_share)),
            (LimitKey::CpuSet, self.apply_cpu_set(&limits.cpu_set)),
            (LimitKey::Memory, self.apply_memory(limits)),
            (
                LimitKey::Processes,
                self.apply_processes(limits.processes_limit),
            ),
        ];
        let mut refused: Vec<_> = outcomes
            .into_iter()
            .filter_map(|(key, outcome)| Some((key, outcome.err()?)))
            .collect();
        // Swap is counted beyond the memory limit, so it follows it.
        if !refused.iter().any(|(key, _)| *key == LimitKey::Memory)
            && let Err(refusal) = self.apply_swap(limits)
        {
            refused.push((LimitKey::Swap, refusal));
        }
        Applied { refused }
    }

    /// Memory in use, page cache included: what a lower limit has to be compared with.
    ///
    /// # Errors
    /// When the VE has no group.
    pub fn memory_usage(&self) -> Result<u64, UsageError> {
        let refused = |source| UsageError {
            ve: self.ve,
            source,
        };
        match self.inner.directory(Controller::Memory) {
            Some((directory, home)) => {
                let name = if home == Home::V2 {
                    "memory.current"
                } else {
                    V1_USAGE
                };
                self.number(directory, name).map_err(refused)
            }
            None => Ok(0),
        }
    }

    fn apply_cpu_limit(&self, millicores: Option<u32>) -> Result<(), Refusal> {
        if let Some(given) = millicores.filter(|given| *given < CPU_MILLICORES_MIN) {
            let reason = format!(
                "{given} thousandths of a processor are less than {CPU_MILLICORES_MIN}, which the \
                 kernel's scheduler can divide"
            );
            return Err(Refusal::Invalid { reason });
        }
        let Some((directory, home)) = self.inner.directory(Controller::Cpu) else {
            return unlimited_or_unsupported(millicores.is_none(), Controller::Cpu);
        };
        let quota = millicores.map(|m| u64::from(m) * CPU_PERIOD_MICROSECONDS / 1_000);
        if home == Home::V2 {
            let quota = quota.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
            let value = format!("{quota} {CPU_PERIOD_MICROSECONDS}");
            return Ok(directory.write(&self.file("cpu.max"), &value)?);
        }
        let quota = quota.map_or_else(|| "-1".to_owned(), |quota| quota.to_string());
        Ok(directory.write(&self.file("cpu.cfs_quota_us"), &quota)?)
    }

    fn apply_cpu_share(&self, share: Option<u32>) -> Result<(), Refusal> {
        let weight = share.unwrap_or(CPU_SHARE_DEFAULT);
        if !(1..=10_000).contains(&weight) {
            let reason = format!("a share of {weight} is not between 1 and 10000");
            return Err(Refusal::Invalid { reason });
        }
        match self.inner.directory(Controller::Cpu) {
            Some((directory, Home::V1(_))) => {
                Ok(directory.write(&self.file("cpu.shares"), &shares(weight).to_string())?)
            }
            Some((directory, Home::V2)) => {
                Ok(directory.write(&self.file("cpu.weight"), &weight.to_string())?)
            }
            None => unlimited_or_unsupported(share.is_none(), Controller::Cpu),
        }
    }

    fn apply_processes(&self, limit: Option<u32>) -> Result<(), Refusal> {
        let value = limit.unwrap_or_else(processes_default).to_string();
        match self.inner.directory(Controller::Processes) {
            Some((directory, _)) => Ok(directory.write(&self.file("pids.max"), &value)?),
            None => unlimited_or_unsupported(limit.is_none(), Controller::Processes),
        }
    }

    fn apply_memory(&self, limits: &Limits) -> Result<(), Refusal> {
        match self.inner.directory(Controller::Memory) {
            Some((directory, Home::V1(_))) => self.apply_memory_v1(directory, limits),
            Some((directory, Home::V2)) => {
                self.apply_memory_v2(directory, limits.memory_limit_bytes)
            }
            None => {
                let unlimited = limits.memory_limit_bytes.is_none();
                unlimited_or_unsupported(unlimited, Controller::Memory)
            }
        }
    }

    /// v1 limits memory, and memory with swap together, and never lets the first exceed the second:
    /// so the order depends on the direction. The kernel takes memory back itself and refuses with
    /// `EBUSY` when that is not enough.
    fn apply_memory_v1(&self, directory: &Directory, limits: &Limits) -> Result<(), Refusal> {
        let unlimited = |limit: Option<u64>| limit.map_or_else(|| "-1".into(), |l| l.to_string());
        let memory = unlimited(limits.memory_limit_bytes);
        let write_memory = || match directory.write(&self.file(V1_LIMIT), &memory) {
            Err(error) if error.is(Errno::BUSY) => Err(Refusal::MemoryInUse {
                in_use_bytes: self.number(directory, V1_USAGE)?,
                limit_bytes: limits.memory_limit_bytes.unwrap_or(u64::MAX),
            }),
            other => other.map_err(Refusal::from),
        };
        if !directory.has(&self.file(V1_LIMIT_WITH_SWAP)) {
            return write_memory();
        }
        let with_swap = with_swap(limits);
        let now = self.number(directory, V1_LIMIT_WITH_SWAP)?;
        if with_swap.is_none_or(|with_swap| with_swap >= now) {
            directory.write(&self.file(V1_LIMIT_WITH_SWAP), &unlimited(with_swap))?;
        }
        write_memory()
    }

    /// On v1 the rest of [`VeGroup::apply_memory_v1`]: the other direction.
    fn apply_swap(&self, limits: &Limits) -> Result<(), Refusal> {
        let limit = limits.swap_limit_bytes;
        let Some((directory, home)) = self.inner.directory(Controller::Memory) else {
            return unlimited_or_unsupported(limit.is_none(), Controller::Memory);
        };
        let name = if home == Home::V2 {
            "memory.swap.max"
        } else {
            V1_LIMIT_WITH_SWAP
        };
        if !directory.has(&self.file(name)) {
            return match limit {
                None => Ok(()),
                Some(_) => Err(Refusal::Unsupported {
                    reason: format!("{name} is missing: boot the kernel with `swapaccount=1`"),
                }),
            };
        }
        if home == Home::V2 {
            let value = limit.map_or_else(|| "max".to_owned(), |limit| limit.to_string());
            return Ok(directory.write(&self.file(name), &value)?);
        }
        match (with_swap(limits), limit) {
            (Some(both), _) => match directory.write(&self.file(name), &both.to_string()) {
                Err(error) if error.is(Errno::BUSY) => Err(Refusal::MemoryInUse {
                    in_use_bytes: self.number(directory, "memory.memsw.usage_in_bytes")?,
                    limit_bytes: both,
                }),
                other => Ok(other?),
            },
            (None, None) => Ok(()),
            (None, Some(_)) => Err(Refusal::Unsupported {
                reason: "cgroup v1 counts swap together with memory, so set memory.limit too"
                    .to_owned(),
            }),
        }
    }

    /// cgroup2 takes any limit at once and kills for what is above it, so the memory is taken back
    /// beforehand. `memory.high` is not used: it slows a VE down without bound, where a server should
    /// swap or lose one process.
    fn apply_memory_v2(&self, directory: &Directory, limit: Option<u64>) -> Result<(), Refusal> {
        let file = self.file("memory.max");
        let Some(limit_bytes) = limit else {
            return Ok(directory.write(&file, "max")?);
        };
        for _ in 0..RECLAIM_ROUNDS {
            let in_use = self.number(directory, "memory.current")?;
            let Some(excess) = in_use.checked_sub(limit_bytes).filter(|excess| *excess > 0) else {
                break;
            };
            match directory.write(&self.file("memory.reclaim"), &excess.to_string()) {
                // Not all of it could be had; the next look says how much there is left.
                Err(error) if error.is(Errno::AGAIN) => {}
                other => other?,
            }
        }
        let in_use_bytes = self.number(directory, "memory.current")?;
        if in_use_bytes > limit_bytes {
            return Err(Refusal::MemoryInUse {
                in_use_bytes,
                limit_bytes,
            });
        }
        Ok(directory.write(&file, &limit_bytes.to_string())?)
    }

    fn apply_cpu_set(&self, processors: &[u32]) -> Result<(), Refusal> {
        match self.inner.layout.home(Controller::CpuSet) {
            None => unlimited_or_unsupported(processors.is_empty(), Controller::CpuSet),
            Some(Home::V2) => self.apply_cpu_set_v2(processors),
            Some(Home::V1(at)) => self.apply_cpu_set_v1(at, processors),
        }
    }

    fn apply_cpu_set_v2(&self, processors: &[u32]) -> Result<(), Refusal> {
        let Some(directory) = &self.inner.v2 else {
            return Ok(());
        };
        let file = self.file("cpuset.cpus");
        if !directory.has(&file) {
            if processors.is_empty() {
                return Ok(());
            }
            if let Some(unified) = self.inner.layout.unified() {
                enable(&Directory::open(&unified.base)?, "cpuset")?;
            }
            enable(directory, "cpuset")?;
        }
        if !processors.is_empty() {
            return Ok(directory.write(&file, &list(processors))?);
        }
        // An empty line is "those of the group above", which the kernel takes from groups without
        // processes only (ENOSPC): with processes, name them.
        match directory.write(&file, "\n") {
            Err(error) if error.is(Errno::NOSPC) => {
                let above = directory.read(Path::new("cpuset.cpus.effective"))?;
                Ok(directory.write(&file, above.trim())?)
            }
            other => Ok(other?),
        }
    }

    /// On v1 the group is made at the first mask and stays until the VE's end, as taking all
    /// processes out of it again would gain nothing.
    fn apply_cpu_set_v1(&self, at: usize, processors: &[u32]) -> Result<(), Refusal> {
        let Some(hierarchy) = self.inner.layout.hierarchies().get(at) else {
            return Ok(());
        };
        let file = self.file("cpuset.cpus");
        let value = |above: &Directory| match processors {
            [] => Ok(above.read(Path::new("cpuset.cpus"))?.trim().to_owned()),
            _ => Ok::<_, FileError>(list(processors)),
        };
        // Mounted together with others, it has been there from the beginning.
        if let Some(directory) = self.inner.v1.get(at).and_then(Option::as_ref) {
            return Ok(directory.write(&file, &value(directory)?)?);
        }
        let existing = self.inner.cpuset_group()?.filter(|group| group.has(&file));
        if let Some(directory) = existing {
            return Ok(directory.write(&file, &value(&directory)?)?);
        }
        if processors.is_empty() {
            return Ok(());
        }
        let directory = self.inner.make_cpuset_group(&hierarchy.mount_point)?;
        directory.make(&self.below)?;
        inherit_cpuset(&directory, &directory, &self.below)?;
        let masked = directory.write(&file, &list(processors));
        let moved = masked.and_then(|()| self.move_all(&directory));
        if let Err(error) = moved {
            // An empty group would catch the next process that enters, and only that.
            crate::remove::one(&directory, &self.below).ok();
            return Err(error.into());
        }
        Ok(())
    }

    /// Moves all processes of the VE into its group in a hierarchy, until none is left elsewhere: a
    /// process that forks while it is moved may leave its child behind.
    fn move_all(&self, directory: &Directory) -> Result<(), FileError> {
        const ROUNDS_MAX: u32 = 16;
        let file = self.file("cgroup.procs");
        for _ in 0..ROUNDS_MAX {
            let there = crate::process::pids(&directory.read(&file)?);
            let all = self.process_list()?;
            let left: Vec<_> = all.into_iter().filter(|pid| !there.contains(pid)).collect();
            if left.is_empty() {
                return Ok(());
            }
            for pid in left {
                match directory.write(&file, &pid.to_string()) {
                    Err(error) if error.is(Errno::SRCH) => {}
                    other => other?,
                }
            }
        }
        Ok(())
    }

    /// A file that holds one number; `max` is the greatest.
    pub(crate) fn number(&self, directory: &Directory, name: &str) -> Result<u64, FileError> {
        let text = directory.read(&self.file(name))?;
        Ok(text.trim().parse().unwrap_or(u64::MAX))
    }

    /// A number from a file of keys and values; 0 when the key is not there.
    pub(crate) fn keyed(
        &self,
        directory: &Directory,
        name: &str,
        key: &str,
    ) -> Result<u64, FileError> {
        Ok(keyed(&directory.read(&self.file(name))?, key).unwrap_or_default())
    }
}

const V1_USAGE: &str = "memory.usage_in_bytes";
const V1_LIMIT: &str = "memory.limit_in_bytes";
const V1_LIMIT_WITH_SWAP: &str = "memory.memsw.limit_in_bytes";

/// Memory and swap together, as v1 limits them.
fn with_swap(limits: &Limits) -> Option<u64> {
    Some(
        limits
            .memory_limit_bytes?
            .saturating_add(limits.swap_limit_bytes?),
    )
}

fn unlimited_or_unsupported(unlimited: bool, controller: Controller) -> Result<(), Refusal> {
    if unlimited {
        return Ok(());
    }
    let name = controller.v1_name();
    Err(Refusal::Unsupported {
        reason: format!(
            "the controller `{name}` is not there: it may be switched off by `cgroup_disable={name}` \
             on the kernel's command line"
        ),
    })
}

fn list(processors: &[u32]) -> String {
    processors
        .iter()
        .map(u32::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

/// `cpu.shares` of v1 for a weight of cgroup2: 1,024 is the default of one, 100 that of the other.
pub(crate) fn shares(weight: u32) -> u32 {
    // The kernel takes 2 to 262,144.
    (u64::from(weight) * 1_024 / 100)
        .clamp(2, 262_144)
        .try_into()
        .unwrap_or(262_144)
}
