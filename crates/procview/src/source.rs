//! A VE's numbers out of its control groups. Readers take a group's files, parsers their text.
//!
//! Only the node's own files are read here, which answer from the kernel's memory: nothing that a
//! VE could let somebody wait for.

use std::path::Path;

use cgroup::{Controller, NodeReader, Reading};
use ve::VeId;

use crate::facts::{DiskUse, Memory, Work};
use crate::host::Host;

/// Why a VE's numbers cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the numbers of VE {ve}")]
pub(crate) struct ReadError {
    /// The VE.
    pub(crate) ve: VeId,
    /// What the kernel refused.
    #[source]
    pub(crate) source: cgroup::FileError,
}

/// Pressure files that a group may have.
pub(crate) const PRESSURES: [&str; 4] = ["cpu", "memory", "io", "irq"];

/// Most that a text of the kernel may say about a limit for it to be one: v1 writes the largest
/// number of pages for "none".
const LIMIT_BYTES_MAX: u64 = 1 << 60;

/// The groups of one VE.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) reader: &'a NodeReader,
    pub(crate) ve: VeId,
}

impl Source<'_> {
    /// Its memory, on a machine with so much.
    pub(crate) fn memory(&self, host: &Host) -> Result<Memory, ReadError> {
        let number = |v1: &str, v2: &str| self.number(Controller::Memory, v1, v2);
        let used = number("memory.usage_in_bytes", "memory.current")?.unwrap_or(0);
        let mut memory = match self.read(Controller::Memory, "memory.stat", "memory.stat")? {
            Some(Reading::V1(stat)) => {
                let mut memory = memory_v1(&stat);
                // Not split, so nothing of it is promised to be had back.
                memory.slab_unreclaimable_bytes =
                    number("memory.kmem.usage_in_bytes", "")?.unwrap_or(0);
                memory
            }
            Some(Reading::V2(stat)) => memory_v2(&stat),
            None => Memory::default(),
        };
        memory.used_bytes = used;
        let ended = self.read(Controller::Memory, "memory.oom_control", "memory.events")?;
        let ended = ended.map(Reading::into_text).unwrap_or_default();
        memory.oom_kills = keyed(&ended, "oom_kill");
        // Not `memory.high`, by which the node hears of a VE whose memory grows: what is above it can be had.
        let limit = number("memory.limit_in_bytes", "memory.max")?;
        memory.total_bytes = limit.map_or(host.memory_bytes, |l| l.min(host.memory_bytes));
        memory.huge_page_bytes = host.huge_page_bytes;
        self.swap(&mut memory, limit, host)?;
        Ok(memory)
    }

    /// v1 counts swap together with memory.
    fn swap(&self, memory: &mut Memory, limit: Option<u64>, host: &Host) -> Result<(), ReadError> {
        let number = |v1: &str, v2: &str| self.number(Controller::Memory, v1, v2);
        let swap_limit = match self.read(
            Controller::Memory,
            "memory.memsw.limit_in_bytes",
            "memory.swap.max",
        )? {
            Some(Reading::V1(text)) => {
                bytes(&text).map(|both| both.saturating_sub(limit.unwrap_or(host.memory_bytes)))
            }
            Some(Reading::V2(text)) => bytes(&text),
            None => None,
        };
        let used = match number("memory.memsw.usage_in_bytes", "memory.swap.current")? {
            Some(both) if self.is_v1(Controller::Memory) => both.saturating_sub(memory.used_bytes),
            Some(used) => used,
            None => 0,
        };
        memory.swap_total_bytes = swap_limit.map_or(host.swap_bytes, |l| l.min(host.swap_bytes));
        memory.swap_used_bytes = used.min(memory.swap_total_bytes);
        Ok(())
    }

    /// Processor time that it used.
    pub(crate) fn work(&self) -> Result<Work, ReadError> {
        let stat = self.unified("cpu.stat")?.unwrap_or_default();
        let mut work = Work {
            user_us: keyed(&stat, "user_usec"),
            nice_us: keyed(&stat, "nice_usec"),
            system_us: keyed(&stat, "system_usec"),
            throttled_us: 0,
        };
        work.throttled_us = match self.read(Controller::Cpu, "cpu.stat", "cpu.stat")? {
            Some(Reading::V1(text)) => keyed(&text, "throttled_time") / 1_000,
            Some(Reading::V2(text)) => keyed(&text, "throttled_usec"),
            None => 0,
        };
        Ok(work)
    }

    /// The numbers of the processors that it is shown: those that it may run on, and of these as
    /// many as its limit lets it keep busy.
    pub(crate) fn processors(&self, host: &Host) -> Result<Vec<u32>, ReadError> {
        let set = self.read(
            Controller::CpuSet,
            "cpuset.effective_cpus",
            "cpuset.cpus.effective",
        )?;
        let set = set.map(Reading::into_text).unwrap_or_default();
        let quota = match self.read(Controller::Cpu, "cpu.cfs_quota_us", "cpu.max")? {
            Some(Reading::V1(quota)) => {
                let period = self.number(Controller::Cpu, "cpu.cfs_period_us", "")?;
                quota.trim().parse().ok().zip(period)
            }
            Some(Reading::V2(text)) => text
                .trim()
                .split_once(' ')
                .and_then(|(quota, period)| Some((quota.parse().ok()?, period.parse().ok()?))),
            None => None,
        };
        Ok(shown(&host.online, &set, quota))
    }

    /// Its processes and threads, and the most that there ever were.
    pub(crate) fn tasks(&self) -> Result<(u64, u64), ReadError> {
        let number = |name: &str| self.number(Controller::Processes, name, name);
        let now = number("pids.current")?.unwrap_or(0);
        Ok((now, number("pids.peak")?.unwrap_or(now)))
    }

    /// What it did with block devices.
    pub(crate) fn disks(&self) -> Result<Vec<DiskUse>, ReadError> {
        let read = |v1: &str| self.read(Controller::Io, v1, "io.stat");
        let mut disks = match read("blkio.throttle.io_service_bytes_recursive")? {
            Some(Reading::V1(bytes)) => {
                let requests = read("blkio.throttle.io_serviced_recursive")?;
                disks_v1(
                    &bytes,
                    &requests.map(Reading::into_text).unwrap_or_default(),
                )
            }
            Some(Reading::V2(text)) => disks_v2(&text),
            None => Vec::new(),
        };
        for disk in &mut disks {
            disk.name = device_name(disk.major, disk.minor);
        }
        // What has no name is no block device of this machine any more.
        disks.retain(|disk| !disk.name.is_empty());
        Ok(disks)
    }

    /// One of [`PRESSURES`], in the kernel's own words.
    pub(crate) fn pressure(&self, name: &str) -> Result<String, ReadError> {
        Ok(self
            .unified(&format!("{name}.pressure"))?
            .unwrap_or_default())
    }

    fn is_v1(&self, controller: Controller) -> bool {
        self.reader.is_v1(controller)
    }

    fn unified(&self, name: &str) -> Result<Option<String>, ReadError> {
        let text = self.reader.read_unified(self.ve, name);
        text.map_err(|source| self.failure(source))
    }

    fn read(
        &self,
        controller: Controller,
        v1: &str,
        v2: &str,
    ) -> Result<Option<Reading>, ReadError> {
        let text = self.reader.read(self.ve, controller, v1, v2);
        text.map_err(|source| self.failure(source))
    }

    /// A file with one number; nothing for "no limit", or a version that has no such file.
    fn number(&self, controller: Controller, v1: &str, v2: &str) -> Result<Option<u64>, ReadError> {
        let name = if self.is_v1(controller) { v1 } else { v2 };
        if name.is_empty() {
            return Ok(None);
        }
        let text = self.read(controller, v1, v2)?.map(Reading::into_text);
        Ok(text.and_then(|text| bytes(&text)))
    }

    fn failure(&self, source: cgroup::FileError) -> ReadError {
        ReadError {
            ve: self.ve,
            source,
        }
    }
}

/// A number, unless it stands for "none" (`max`, `-1`, or larger than any memory).
fn bytes(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|n| *n < LIMIT_BYTES_MAX)
}

/// The number behind a key in a flat keyed file; zero without it.
fn keyed(text: &str, key: &str) -> u64 {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    value
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or(0)
}

fn memory_v2(stat: &str) -> Memory {
    let of = |key: &str| keyed(stat, key);
    Memory {
        anon_bytes: of("anon"),
        file_bytes: of("file"),
        shmem_bytes: of("shmem"),
        mapped_bytes: of("file_mapped"),
        dirty_bytes: of("file_dirty"),
        writeback_bytes: of("file_writeback"),
        swap_cached_bytes: of("swapcached"),
        active_anon_bytes: of("active_anon"),
        inactive_anon_bytes: of("inactive_anon"),
        active_file_bytes: of("active_file"),
        inactive_file_bytes: of("inactive_file"),
        unevictable_bytes: of("unevictable"),
        slab_reclaimable_bytes: of("slab_reclaimable"),
        slab_unreclaimable_bytes: of("slab_unreclaimable"),
        kernel_stack_bytes: of("kernel_stack"),
        page_tables_bytes: of("pagetables"),
        percpu_bytes: of("percpu"),
        anon_huge_bytes: of("anon_thp"),
        shmem_huge_bytes: of("shmem_thp"),
        file_huge_bytes: of("file_thp"),
        faults: of("pgfault"),
        major_faults: of("pgmajfault"),
        swapped_in_pages: of("pswpin"),
        swapped_out_pages: of("pswpout"),
        ..Memory::default()
    }
}

fn memory_v1(stat: &str) -> Memory {
    let of = |key: &str| keyed(stat, key);
    Memory {
        anon_bytes: of("total_rss"),
        file_bytes: of("total_cache"),
        shmem_bytes: of("total_shmem"),
        mapped_bytes: of("total_mapped_file"),
        dirty_bytes: of("total_dirty"),
        writeback_bytes: of("total_writeback"),
        swap_cached_bytes: of("total_swapcached"),
        active_anon_bytes: of("total_active_anon"),
        inactive_anon_bytes: of("total_inactive_anon"),
        active_file_bytes: of("total_active_file"),
        inactive_file_bytes: of("total_inactive_file"),
        unevictable_bytes: of("total_unevictable"),
        anon_huge_bytes: of("total_rss_huge"),
        faults: of("total_pgfault"),
        major_faults: of("total_pgmajfault"),
        ..Memory::default()
    }
}

/// The online processors of a set (all of them when it names none), at most as many as a quota of a
/// period lets work, rounded up, and at least one.
fn shown(online: &[u32], set: &str, quota: Option<(i64, u64)>) -> Vec<u32> {
    let set = kernel::proc::parse_set(set.trim()).unwrap_or_default();
    let chosen: Vec<u32> = online.iter().copied().filter(|n| set.contains(n)).collect();
    let mut shown = if chosen.is_empty() {
        online.to_vec()
    } else {
        chosen
    };
    if let Some((quota, period)) = quota
        && let Ok(quota) = u64::try_from(quota)
        && period > 0
    {
        shown.truncate(usize::try_from(quota.div_ceil(period).max(1)).unwrap_or(usize::MAX));
    }
    shown
}

/// Two numbers of a device: `8:0`.
fn device(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`.
fn disks_v2(stat: &str) -> Vec<DiskUse> {
    let disk = |line: &str| {
        let (numbers, rest) = line.split_once(' ')?;
        let (major, minor) = device(numbers)?;
        let of = |key: &str| {
            let value = rest
                .split_whitespace()
                .find_map(|word| word.strip_prefix(key));
            value.and_then(|value| value.parse().ok()).unwrap_or(0)
        };
        Some(DiskUse {
            major,
            minor,
            name: String::new(),
            reads: of("rios="),
            read_bytes: of("rbytes="),
            writes: of("wios="),
            write_bytes: of("wbytes="),
            discards: of("dios="),
            discard_bytes: of("dbytes="),
        })
    };
    stat.lines().filter_map(disk).collect()
}

/// `8:0 Read 1`, in one text for bytes and one for requests; a last line is of no device.
fn disks_v1(bytes: &str, requests: &str) -> Vec<DiskUse> {
    let mut disks: Vec<DiskUse> = Vec::new();
    for (text, of_bytes) in [(bytes, true), (requests, false)] {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let numbers = words.next().and_then(device);
            let (Some((major, minor)), Some(operation), Some(Ok(value))) =
                (numbers, words.next(), words.next().map(str::parse::<u64>))
            else {
                continue;
            };
            let known = disks
                .iter()
                .position(|d| (d.major, d.minor) == (major, minor));
            let at = known.unwrap_or_else(|| {
                disks.push(DiskUse {
                    major,
                    minor,
                    ..DiskUse::default()
                });
                disks.len() - 1
            });
            let disk = &mut disks[at];
            match (operation, of_bytes) {
                ("Read", true) => disk.read_bytes = value,
                ("Write", true) => disk.write_bytes = value,
                ("Discard", true) => disk.discard_bytes = value,
                ("Read", false) => disk.reads = value,
                ("Write", false) => disk.writes = value,
                ("Discard", false) => disk.discards = value,
                _ => {}
            }
        }
    }
    disks
}

/// Name of a block device; empty when there is none with these numbers.
fn device_name(major: u32, minor: u32) -> String {
    let link = std::fs::read_link(Path::new("/sys/dev/block").join(format!("{major}:{minor}")));
    let name = link
        .ok()
        .and_then(|link| Some(link.file_name()?.to_str()?.to_owned()));
    name.unwrap_or_default()
}

#[cfg(test)]
mod tests;
