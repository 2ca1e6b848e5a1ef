//! Memory and swap.

use rustix::io::Errno;

use super::{Limits, Refusal, unlimited_or_unsupported};
use crate::error::UsageError;
use crate::files::Directory;
use crate::group::VeGroup;
use crate::layout::{Controller, Home};

/// How often memory is taken back before a lower limit is refused. The kernel stops early when
/// it makes no progress, so that few rounds are enough.
const RECLAIM_ROUNDS: u32 = 8;
const V1_USAGE: &str = "memory.usage_in_bytes";
const V1_LIMIT: &str = "memory.limit_in_bytes";
const V1_LIMIT_WITH_SWAP: &str = "memory.memsw.limit_in_bytes";

impl VeGroup {
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

    pub(super) fn apply_memory(&self, limits: &Limits) -> Result<(), Refusal> {
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
    pub(super) fn apply_memory_v1(
        &self,
        directory: &Directory,
        limits: &Limits,
    ) -> Result<(), Refusal> {
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
    pub(super) fn apply_swap(&self, limits: &Limits) -> Result<(), Refusal> {
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
    pub(super) fn apply_memory_v2(
        &self,
        directory: &Directory,
        limit: Option<u64>,
    ) -> Result<(), Refusal> {
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
}

/// Memory and swap together, as v1 limits them.
fn with_swap(limits: &Limits) -> Option<u64> {
    Some(
        limits
            .memory_limit_bytes?
            .saturating_add(limits.swap_limit_bytes?),
    )
}
