//! The machine that the figures belong to.

use std::fs;

use serde::Serialize;

/// What figures depend on.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) processor: String,
    pub(crate) processors: usize,
    pub(crate) memory_mebibytes: u64,
    /// Processes that wanted a processor in the minute before the run: what else went on.
    pub(crate) load_before: f64,
    /// Seconds since 1970.
    pub(crate) time: u64,
}

impl Machine {
    pub(crate) fn look() -> Self {
        let release = rustix::system::uname();
        let memory = kernel::proc::memory_info().map_or(0, |memory| memory.total_bytes);
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            kernel: release.release().to_string_lossy().into_owned(),
            processor: model.map_or("unknown", |(_, name)| name).to_owned(),
            processors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_mebibytes: memory >> 20,
            load_before: load
                .split(' ')
                .next()
                .and_then(|first| first.parse().ok())
                .unwrap_or_default(),
            time: std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |elapsed| elapsed.as_secs()),
        }
    }
}
