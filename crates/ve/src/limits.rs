//! What a VE may use at most, and its share when there is not enough for all.

use std::fmt;
use std::str::FromStr;

use crate::units::{Bytes, Cores, InvalidUnit};

/// The limits of a VE. `None` is "as much as the node has".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Processor time per time, whatever the node has free.
    pub cpu: Option<Cores>,
    /// Weight against the other VEs when they want more processor time than there is: 1 to
    /// 10,000, where a VE without one has 100 (the scale of `cpu.weight`, cgroup-v2.rst).
    pub cpu_share: Option<u32>,
    /// The processors that the VE may run on.
    pub cpu_set: Option<CpuSet>,
    /// Memory of all processes and of their page cache.
    pub memory: Option<Bytes>,
    /// Swap beyond [`Limits::memory`].
    pub memory_swap: Option<Bytes>,
    /// Number of processes and threads.
    pub processes: Option<u32>,
    /// Space in the pool, for everything that the VE changed.
    pub disk: Option<Bytes>,
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
