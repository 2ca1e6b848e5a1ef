//! What a VE is promised, may use at most, and its share when there is not enough for all.
//!
//! Four words, the same for every resource:
//!
//! | word | meaning |
//! |---|---|
//! | guarantee | what it gets whatever others do |
//! | limit | what it gets at most, whatever is free |
//! | share | its weight against others for what nobody is guaranteed |
//! | burst | what it may use beyond its limit for a while |

use std::fmt;
use std::str::FromStr;

use crate::growth::MemoryGrowth;
use crate::units::{Bits, Bytes, Cores, InvalidUnit, Operations};

/// The resources of a VE. `None` is "no promise", "as much as the node has", "the usual share".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Processor time per time that it gets whatever others do.
    pub cpu_guarantee: Option<Cores>,
    /// Processor time per time that it gets at most, whatever the node has free.
    pub cpu: Option<Cores>,
    /// Processor time per time beyond [`Limits::cpu`] for a tenth of a second, saved up before.
    pub cpu_burst: Option<Cores>,
    /// Weight against the other VEs when they want more processor time than there is: 1 to
    /// 10,000, where a VE without one has 100 (the scale of `cpu.weight`, cgroup-v2.rst).
    pub cpu_share: Option<u32>,
    /// The processors that the VE may run on.
    pub cpu_set: Option<CpuSet>,
    /// Memory that it keeps whatever others do.
    pub memory_guarantee: Option<Bytes>,
    /// Memory of all processes and of their page cache.
    pub memory: Option<Bytes>,
    /// Memory beyond [`Limits::memory`] while the node has some free.
    pub memory_burst: Option<Bytes>,
    /// How its memory grows by itself beyond [`Limits::memory`], and what it was given so far.
    pub memory_growth: MemoryGrowth,
    /// Swap beyond [`Limits::memory`].
    pub memory_swap: Option<Bytes>,
    /// Number of processes and threads.
    pub processes: Option<u32>,
    /// Open files of each process.
    pub files: Option<u32>,
    /// Space in the pool that nobody else takes, whether the VE runs or not.
    pub disk_guarantee: Option<Bytes>,
    /// Space in the pool, for everything that the VE changed.
    pub disk: Option<Bytes>,
    /// Weight against the other VEs when the pool's disk is busy: 1 to 1,000, usually 100.
    pub io_share: Option<u32>,
    /// Bytes per second that it reads from the pool's disk at most.
    pub io_read: Option<Bytes>,
    /// Bytes per second that it writes to it at most.
    pub io_write: Option<Bytes>,
    /// Operations per second of reading at most.
    pub io_read_operations: Option<Operations>,
    /// Operations per second of writing at most.
    pub io_write_operations: Option<Operations>,
    /// What it can send to, and receive from, other networks whatever others do; each direction.
    pub network_guarantee: Option<Bits>,
    /// What it can send and receive at most, each direction; what it exchanges with neighbours counts.
    pub network: Option<Bits>,
    /// What it can send and receive beyond [`Limits::network`] for a second, saved up before.
    pub network_burst: Option<Bits>,
}

impl Limits {
    /// What holds as its limit of memory now: what was set, and what it was given beyond that.
    #[must_use]
    pub fn memory_now(&self) -> Option<Bytes> {
        let given = self.memory_growth.given.map_or(0, Bytes::get);
        Some(Bytes::new(self.memory?.get().saturating_add(given)))
    }
}

/// A set of processors in the kernel's list format: `0-3,8`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuSet(Vec<u32>);

/// Highest processor number that a set may name; the kernel's own `NR_CPUS` ends at 8,192.
const CPU_MAX: u32 = 8_191;

impl CpuSet {
    /// The processors, in ascending order, each once, at least one.
    #[must_use]
    pub fn processors(&self) -> &[u32] {
        &self.0
    }
}

impl FromStr for CpuSet {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let refuse = || InvalidUnit::new(text, "a set of processors", "write it as 0-3,8");
        let mut processors = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first = first.parse::<u32>().map_err(|_| refuse())?;
            let last = last.parse::<u32>().map_err(|_| refuse())?;
            if first > last || last > CPU_MAX {
                return Err(refuse());
            }
            processors.extend(first..=last);
        }
        processors.sort_unstable();
        processors.dedup();
        Ok(Self(processors))
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = self.0.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
            [one] => one.to_string(),
            run => format!("{}-{}", run[0], run[run.len() - 1]),
        });
        f.pad(&runs.collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_print_as_the_kernel_writes_them() {
        for (text, printed) in [("0", "0"), ("3,0-1", "0-1,3"), ("0-3,2-5", "0-5")] {
            assert_eq!(text.parse::<CpuSet>().unwrap().to_string(), printed);
        }
        for text in ["", "a", "3-1", "0,", "-1", "0-9999999"] {
            assert!(text.parse::<CpuSet>().is_err(), "{text}");
        }
    }
}
