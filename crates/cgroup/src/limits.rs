//! What a VE may use at most, written live.
//!
//! Nothing here needs a restart. Each limit is written by itself and answers by itself: a refusal
//! of one leaves the others applied and the refused one as it was. A memory limit below what is in
//! use first makes the kernel take memory back; what remains is refused, never killed for.

mod cpu;
mod cpu_set;
mod io;
mod memory;

use std::fmt;

use crate::error::{FileError, OpenError};
use crate::files::{Directory, keyed};
use crate::group::VeGroup;
use crate::layout::Controller;
use crate::processes::processes_default;

pub(crate) use cpu::shares;
pub use io::{IoControl, IoLimits};
pub(crate) use memory::{V1_USAGE, bound};

/// The limits of a VE. `None` is "as much as there is".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Processor time, in thousandths of a processor; 10 and up.
    pub cpu_limit_millicores: Option<u32>,
    /// Processor time beyond the limit for one period of 100 ms, saved up in periods before that used
    /// less; no more than the limit.
    pub cpu_burst_millicores: Option<u32>,
    /// Weight against other VEs when processors are short: 1 to 10,000, 100 in a new group; `None`
    /// leaves it to [`VeGroup::set_cpu_weight`].
    pub cpu_weight: Option<u32>,
    /// Processors that may be used; empty is all.
    pub cpu_set: Vec<u32>,
    /// Memory that is not taken from the VE when others want it; see [`crate::Protection`].
    pub memory_guarantee_bytes: Option<u64>,
    /// Memory, page cache included.
    pub memory_limit_bytes: Option<u64>,
    /// Swap beyond the memory.
    pub swap_limit_bytes: Option<u64>,
    /// Processes and threads; `None` is [`processes_default`].
    pub processes_limit: Option<u32>,
    /// Weight at the pool's disk against other VEs: 1 to 1,000; `None` is 100.
    pub io_weight: Option<u32>,
    /// Rates at the pool's disk.
    pub io: IoLimits,
}

/// One of the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LimitKey {
    /// [`Limits::cpu_limit_millicores`].
    CpuLimit,
    /// [`Limits::cpu_burst_millicores`].
    CpuBurst,
    /// [`Limits::cpu_weight`].
    CpuShare,
    /// [`Limits::cpu_set`].
    CpuSet,
    /// [`Limits::memory_guarantee_bytes`].
    MemoryGuarantee,
    /// [`Limits::memory_limit_bytes`].
    Memory,
    /// [`Limits::swap_limit_bytes`].
    Swap,
    /// [`Limits::processes_limit`].
    Processes,
    /// [`Limits::io_weight`].
    IoShare,
    /// [`Limits::io`].
    Io,
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
            Self::CpuBurst => "cpu.burst",
            Self::CpuShare => "cpu.share",
            Self::CpuSet => "cpu.set",
            Self::MemoryGuarantee => "memory.guarantee",
            Self::Memory => "memory.limit",
            Self::Swap => "memory.swap",
            Self::Processes => "processes.limit",
            Self::IoShare => "io.share",
            Self::Io => "io",
        })
    }
}

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
            (
                LimitKey::CpuBurst,
                self.apply_cpu_burst(limits.cpu_burst_millicores),
            ),
            (LimitKey::CpuShare, self.apply_cpu_weight(limits.cpu_weight)),
            (LimitKey::CpuSet, self.apply_cpu_set(&limits.cpu_set)),
            (
                LimitKey::MemoryGuarantee,
                self.apply_memory_guarantee(limits.memory_guarantee_bytes),
            ),
            (LimitKey::Memory, self.apply_memory(limits)),
            (
                LimitKey::Processes,
                self.apply_processes(limits.processes_limit),
            ),
            (LimitKey::IoShare, self.apply_io_weight(limits.io_weight)),
            (LimitKey::Io, self.apply_io(&limits.io)),
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

    fn apply_processes(&self, limit: Option<u32>) -> Result<(), Refusal> {
        let value = limit.unwrap_or_else(processes_default).to_string();
        match self.inner.directory(Controller::Processes) {
            Some((directory, _)) => Ok(directory.write(&self.file("pids.max"), &value)?),
            None => unlimited_or_unsupported(limit.is_none(), Controller::Processes),
        }
    }

    /// A file that holds one number; `max` is the greatest.
    pub(crate) fn number(&self, directory: &Directory, name: &str) -> Result<u64, FileError> {
        let text = directory.read_record(&self.file(name))?;
        Ok(text.trim().parse().unwrap_or(u64::MAX))
    }

    /// A number from a file of keys and values; 0 when the key is not there.
    pub(crate) fn keyed(
        &self,
        directory: &Directory,
        name: &str,
        key: &str,
    ) -> Result<u64, FileError> {
        Ok(keyed(&directory.read_record(&self.file(name))?, key).unwrap_or_default())
    }
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
