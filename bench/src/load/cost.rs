//! Processor time, by the scheduler's own account in nanoseconds (`/proc/PID/schedstat`).
//!
//! It holds what the kernel does in the context of a process, so also the network's work that its
//! sending sets off. Where such work is too much for that, kernel threads take it over.

use std::fs;

use anyhow::{Context, Result};

/// Nanoseconds that processes ran.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) watched_ns: u64,
    pub(crate) own_ns: u64,
    pub(crate) kernel_ns: u64,
}

impl Cost {
    /// Until now.
    pub(crate) fn of(watched: &[u32], kernel: &[u32]) -> Result<Self> {
        let sum = |pids: &[u32]| {
            let mut sum = 0;
            for pid in pids {
                sum += ran_ns(&pid.to_string())?;
            }
            Ok::<u64, anyhow::Error>(sum)
        };
        Ok(Self {
            watched_ns: sum(watched)?,
            own_ns: ran_ns("self")?,
            kernel_ns: sum(kernel)?,
        })
    }

    /// Between two looks.
    pub(crate) fn since(self, before: &Self) -> Self {
        Self {
            watched_ns: self.watched_ns - before.watched_ns,
            own_ns: self.own_ns - before.own_ns,
            kernel_ns: self.kernel_ns - before.kernel_ns,
        }
    }
}

fn ran_ns(process: &str) -> Result<u64> {
    let path = format!("/proc/{process}/schedstat");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let first = text.split_whitespace().next().unwrap_or_default();
    first
        .parse()
        .with_context(|| format!("{path} says no number"))
}
