//! What a VE's view takes from the machine: its size, and what its processors are.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long what was read of the machine is believed. Processors and memory come and go by hand.
const LIFETIME: Duration = Duration::from_secs(2);

/// Longest text that is taken over from the machine: `cpuinfo` of a thousand processors fits.
const TEXT_BYTES_MAX: u64 = 4 << 20;

/// The machine, as far as VEs are shown it.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) memory_bytes: u64,
    pub(crate) swap_bytes: u64,
    pub(crate) huge_page_bytes: u64,
    /// Numbers of the processors that are at work, ascending.
    pub(crate) online: Vec<u32>,
    /// `/proc/cpuinfo`, once somebody asked for it.
    cpuinfo: Option<Arc<str>>,
    read: Instant,
}

impl Host {
    /// Reads it.
    pub(crate) fn read() -> Self {
        let memory = kernel::proc::memory_info().unwrap_or_default();
        let online = text(Path::new("/sys/devices/system/cpu/online")).unwrap_or_default();
        let mut online = kernel::proc::parse_set(online.trim()).unwrap_or_default();
        if online.is_empty() {
            online.push(0);
        }
        Self {
            memory_bytes: memory.total_bytes,
            swap_bytes: memory.swap_total_bytes,
            huge_page_bytes: huge_page_bytes(&text(Path::new("/proc/meminfo")).unwrap_or_default()),
            online,
            cpuinfo: None,
            read: Instant::now(),
        }
    }

    /// Reads it again if that was a while ago.
    pub(crate) fn refresh(&mut self, now: Instant) {
        if now.saturating_duration_since(self.read) > LIFETIME {
            *self = Self::read();
        }
    }

    /// The kernel's text about its processors.
    pub(crate) fn cpuinfo(&mut self) -> Arc<str> {
        let read = || text(Path::new("/proc/cpuinfo")).unwrap_or_default().into();
        Arc::clone(self.cpuinfo.get_or_insert_with(read))
    }
}

/// A file of the machine's own `/proc` or `/sys`, if it has it.
pub(crate) fn text(path: &Path) -> Option<String> {
    let file = fs::File::open(path).ok()?;
    let mut text = String::new();
    std::io::Read::read_to_string(&mut std::io::Read::take(file, TEXT_BYTES_MAX), &mut text)
        .ok()?;
    Some(text)
}

fn huge_page_bytes(meminfo: &str) -> u64 {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("Hugepagesize:"));
    let kibibytes = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory_and_processors() {
        let mut host = Host::read();
        assert!(host.memory_bytes > 1 << 20 && !host.online.is_empty());
        assert_eq!(
            huge_page_bytes("A: 1 kB\nHugepagesize:       2048 kB\n"),
            2 << 20
        );
        assert!(!host.cpuinfo().is_empty());
    }
}
