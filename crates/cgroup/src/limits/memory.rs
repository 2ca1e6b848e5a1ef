//! Memory and swap.

use std::path::Path;

use rustix::io::Errno;

use super::{Limits, Refusal, unlimited_or_unsupported};
use crate::error::{FileError, UsageError};
use crate::files::Directory;
use crate::group::VeGroup;
use crate::layout::{Controller, Home};

/// How often memory is taken back before a lower limit is refused. The kernel stops early when
/// it makes no progress, so that few rounds are enough.
const RECLAIM_ROUNDS: u32 = 8;
pub(crate) const V1_USAGE: &str = "memory.usage_in_bytes";
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

    /// Bounds the VE's memory for a while below its limit, or takes that back: nothing of swap, nothing
    /// for ever.
    ///
    /// # Errors
    /// [`Refusal::MemoryInUse`] when the kernel cannot take so much back; it is as before then.
    pub fn cap_memory(&self, bytes: Option<u64>) -> Result<(), Refusal> {
        match self.inner.directory(Controller::Memory) {
            Some((directory, home)) => bound(directory, home, &self.below, bytes),
            None => Ok(()),
        }
    }

    /// On cgroup2 the kernel itself keeps it from being taken back. v1 knows only which groups to begin
    /// with: those above their soft limit, most above first, so every VE has one.
    pub(super) fn apply_memory_guarantee(&self, bytes: Option<u64>) -> Result<(), Refusal> {
        let Some((directory, home)) = self.inner.directory(Controller::Memory) else {
            return unlimited_or_unsupported(bytes.is_none(), Controller::Memory);
        };
        let name = if home == Home::V2 {
            "memory.min"
        } else {
            "memory.soft_limit_in_bytes"
        };
        let file = self.file(name);
        // Kernels from 6.13 on can be built without the soft limit of v1 (`CONFIG_MEMCG_V1`'s parts).
        if home != Home::V2 && !directory.has(&file) {
            return Ok(());
        }
        Ok(directory.write(&file, &bytes.unwrap_or(0).to_string())?)
    }

    pub(super) fn apply_memory(&self, limits: &Limits) -> Result<(), Refusal> {
        let bytes = limits.memory_limit_bytes;
        let Some((directory, home)) = self.inner.directory(Controller::Memory) else {
            return unlimited_or_unsupported(bytes.is_none(), Controller::Memory);
        };
        if home != Home::V2 && directory.has(&self.file(V1_LIMIT_WITH_SWAP)) {
            self.make_room_for_swap_v1(directory, limits)?;
        }
        bound(directory, home, &self.below, bytes)
    }

    /// v1 limits memory, and memory with swap together, and never lets the first exceed the second:
    /// so the order depends on the direction. Here the second goes up, if it has to.
    fn make_room_for_swap_v1(&self, directory: &Directory, limits: &Limits) -> Result<(), Refusal> {
        let with_swap = with_swap(limits);
        let now = self.number(directory, V1_LIMIT_WITH_SWAP)?;
        if with_swap.is_none_or(|with_swap| with_swap >= now) {
            let value = with_swap.map_or_else(|| "-1".to_owned(), |bytes| bytes.to_string());
            directory.write(&self.file(V1_LIMIT_WITH_SWAP), &value)?;
        }
        Ok(())
    }

    /// On v1 the rest of [`VeGroup::apply_memory`]: memory with swap goes down, if it has to.
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
}

/// Bounds the memory of a group below `directory`, after taking back what is above.
///
/// v1 takes it back by itself, and refuses with `EBUSY` when that is not enough. cgroup2 takes any limit at
/// once and kills for what is above it, so it is taken back beforehand. `memory.high` is not used: it
/// slows a VE down without bound, where a server should swap or lose one process.
pub(crate) fn bound(
    directory: &Directory,
    home: Home,
    below: &Path,
    bytes: Option<u64>,
) -> Result<(), Refusal> {
    let number = |name: &str| -> Result<u64, FileError> {
        let text = directory.read(&below.join(name))?;
        Ok(text.trim().parse().unwrap_or(u64::MAX))
    };
    if home != Home::V2 {
        let value = bytes.map_or_else(|| "-1".to_owned(), |bytes| bytes.to_string());
        return match directory.write(&below.join(V1_LIMIT), &value) {
            Err(error) if error.is(Errno::BUSY) => Err(Refusal::MemoryInUse {
                in_use_bytes: number(V1_USAGE)?,
                limit_bytes: bytes.unwrap_or(u64::MAX),
            }),
            other => Ok(other?),
        };
    }
    let file = below.join("memory.max");
    let Some(limit_bytes) = bytes else {
        return Ok(directory.write(&file, "max")?);
    };
    for _ in 0..RECLAIM_ROUNDS {
        let in_use = number("memory.current")?;
        let Some(excess) = in_use.checked_sub(limit_bytes).filter(|excess| *excess > 0) else {
            break;
        };
        match directory.write(&below.join("memory.reclaim"), &excess.to_string()) {
            // Not all of it could be had; the next look says how much there is left.
            Err(error) if error.is(Errno::AGAIN) => {}
            other => other?,
        }
    }
    let in_use_bytes = number("memory.current")?;
    if in_use_bytes > limit_bytes {
        return Err(Refusal::MemoryInUse {
            in_use_bytes,
            limit_bytes,
        });
    }
    Ok(directory.write(&file, &limit_bytes.to_string())?)
}

/// Memory and swap together, as v1 limits them.
fn with_swap(limits: &Limits) -> Option<u64> {
    Some(
        limits
            .memory_limit_bytes?
            .saturating_add(limits.swap_limit_bytes?),
    )
}
