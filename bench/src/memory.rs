//! How much memory processes and the machine use.

use std::fs;

use anyhow::{Context as _, Result};

const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// Memory of one process, in mebibytes, from `/proc/PID/smaps_rollup`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Everything of it that is in memory, shared pages whole.
    pub(crate) resident: f64,
    /// The same with each shared page divided among those who share it.
    pub(crate) proportional: f64,
}

impl Memory {
    /// Of a process.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
            number.map(|kibibytes| kibibytes / 1024.0)
        };
        Ok(Self {
            resident: field("Rss:").with_context(|| format!("{path} tells no Rss"))?,
            proportional: field("Pss:").with_context(|| format!("{path} tells no Pss"))?,
        })
    }
}

/// What the machine could give to new programs, in mebibytes.
pub(crate) fn available() -> Result<f64> {
    let memory = kernel::proc::memory_info()?;
    Ok(mebibytes(memory.available_bytes))
}

/// Bytes as mebibytes.
pub(crate) fn mebibytes(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let bytes = bytes as f64;
    bytes / MEBIBYTE
}
