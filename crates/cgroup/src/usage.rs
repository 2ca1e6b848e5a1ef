//! What a VE uses, in one pass over a few small files.
//!
//! All numbers are of the VE's whole tree. Counters begin with the VE's group, that is at its start.
//! Some five microseconds per file, twenty for `memory.stat`: files are opened anew each time, since the kernel keeps
//! a page for each that stays open and was read (`seq_file`), 50 kB a VE. Who reads often asks for [`Motion`] first.

use std::path::Path;

use rustix::io::Errno;
use ve::VeId;

use crate::error::{FileError, UsageError};
use crate::files::{Directory, keyed};
use crate::group::VeGroup;
use crate::layout::{Controller, Home};
use crate::node::NodeGroup;

/// What a VE uses. Fields that this host cannot tell are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time.
    pub cpu_microseconds: u64,
    /// Of it, in programs.
    pub cpu_user_microseconds: u64,
    /// Of it, in the kernel.
    pub cpu_system_microseconds: u64,
    /// Periods of 100 ms in which there was a quota and something to do.
    pub cpu_periods: u64,
    /// Of those, the ones in which the quota ran out.
    pub cpu_throttled_periods: u64,
    /// How long processes waited for the next quota, summed over processors.
    pub cpu_throttled_microseconds: u64,
    /// Memory that counts against the limit: programs, page cache, kernel.
    pub memory_bytes: u64,
    /// Most memory since the group was made, where the kernel keeps it (cgroup2 since 5.19).
    pub memory_peak_bytes: Option<u64>,
    /// Of it, what the kernel takes back before anything else: pages of files.
    pub memory_reclaimable_bytes: u64,
    /// Of it, page cache, tmpfs included.
    pub memory_cache_bytes: u64,
    /// Of it, programs' own memory.
    pub memory_anonymous_bytes: u64,
    /// Swap.
    pub swap_bytes: u64,
    /// Processes killed because the limit of memory was reached.
    pub out_of_memory_kills: u64,
    /// Processes and threads, as the limit counts them.
    pub processes: u64,
    /// Read from the block device of [`NodeGroup::count_io_of`], else from all.
    pub io_read_bytes: u64,
    /// Written to it. cgroup v1 does not see what is written later from the page cache.
    pub io_write_bytes: u64,
    /// Read operations.
    pub io_read_operations: u64,
    /// Write operations.
    pub io_write_operations: u64,
    /// How long some of its processes waited for a processor, for memory, for a disk (PSI, "some");
    /// absent where cgroup2 is not mounted or the kernel does not count it.
    pub cpu_pressure_microseconds: Option<u64>,
    /// See above.
    pub memory_pressure_microseconds: Option<u64>,
    /// See above.
    pub io_pressure_microseconds: Option<u64>,
}

/// What moves with anything that goes on in a VE, in one to three small files.
///
/// Nothing in a VE comes about without processor time, and a process that waits for a disk all the time has its
/// waiting counted. So as long as this stays the same, so do the counters of [`Usage`]. Its memory may become less then,
/// when the node takes pages back, and no more: [`VeGroup::usage_at_rest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Motion {
    /// Processor time, in a unit of the hierarchy's own.
    processor: u64,
    io_pressure_microseconds: Option<u64>,
    /// Where the kernel counts what it writes later as the VE's (cgroup2): read and written bytes and operations.
    io: [u64; 4],
}

impl NodeGroup {
    /// How long some process of some VE waited for a disk (PSI), where that is told: as long as it stays the same,
    /// nobody waits.
    #[must_use]
    pub fn io_pressure_microseconds(&self) -> Option<u64> {
        let v2 = self.inner().v2.as_ref()?;
        pressure_total(&v2.read_record(Path::new("io.pressure")).ok()?)
    }

    /// What each of some VEs uses.
    #[must_use]
    pub fn usage_all(&self, ves: &[VeId]) -> Vec<(VeId, Result<Usage, UsageError>)> {
        ves.iter().map(|ve| (*ve, self.ve(*ve).usage())).collect()
    }
}

impl VeGroup {
    /// What the VE uses now.
    ///
    /// # Errors
    /// When the VE has no group.
    pub fn usage(&self) -> Result<Usage, UsageError> {
        let mut usage = Usage::default();
        self.read_cpu(&mut usage)
            .and_then(|()| self.read_memory(&mut usage))
            .and_then(|()| self.read_io(&mut usage))
            .and_then(|()| self.read_processes(&mut usage))
            .and_then(|()| self.read_pressure(&mut usage))
            .map_err(|source| UsageError {
                ve: self.ve,
                source,
            })?;
        Ok(usage)
    }

    /// What tells whether anything went on in the VE.
    ///
    /// # Errors
    /// When the VE has no group.
    pub fn motion(&self) -> Result<Motion, UsageError> {
        self.motion_with(|| self.pressure("io.pressure"))
    }

    /// The same, where no process of any VE waited for a disk since `before` was read
    /// ([`NodeGroup::io_pressure_microseconds`]).
    ///
    /// # Errors
    /// When the VE has no group.
    pub fn motion_without_waiting(&self, before: Motion) -> Result<Motion, UsageError> {
        self.motion_with(|| Ok(before.io_pressure_microseconds))
    }

    fn motion_with(
        &self,
        pressure: impl Fn() -> Result<Option<u64>, FileError>,
    ) -> Result<Motion, UsageError> {
        let read = || {
            let accounting = self.inner.directory(Controller::CpuAccounting);
            let processor = match (accounting, &self.inner.v2) {
                (Some((directory, Home::V1(_))), _) => self.number(directory, "cpuacct.usage")?,
                (_, Some(v2)) => self.keyed(v2, "cpu.stat", "usage_usec")?,
                (_, None) => 0,
            };
            let mut io = Usage::default();
            if let Some((_, Home::V2)) = self.inner.directory(Controller::Io) {
                self.read_io(&mut io)?;
            }
            Ok(Motion {
                processor,
                io_pressure_microseconds: pressure()?,
                io: [
                    io.io_read_bytes,
                    io.io_write_bytes,
                    io.io_read_operations,
                    io.io_write_operations,
                ],
            })
        };
        read().map_err(|source| UsageError {
            ve: self.ve,
            source,
        })
    }

    /// What a VE uses in which nothing went on since this is what it used: only its memory is read.
    ///
    /// # Errors
    /// When the VE has no group.
    pub fn usage_at_rest(&self, mut usage: Usage) -> Result<Usage, UsageError> {
        let read = self.read_memory(&mut usage);
        read.map(|()| usage).map_err(|source| UsageError {
            ve: self.ve,
            source,
        })
    }

    /// What tells this life of the group from those before it with the same name: counters are of one life.
    /// Nothing where the VE has no group.
    ///
    /// The number of a directory's inode, which kernfs gives once in a boot.
    #[must_use]
    pub fn identity(&self) -> Option<u64> {
        let directory = self.inner.v2.as_ref();
        let directory = directory.or_else(|| self.inner.v1.iter().flatten().next())?;
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        let status = rustix::fs::statat(directory, &self.below, flags).ok()?;
        Some(status.st_ino)
    }

    fn read_cpu(&self, usage: &mut Usage) -> Result<(), FileError> {
        // cgroup2 keeps times for every group, with controllers or without.
        if let Some(v2) = &self.inner.v2 {
            let stat = v2.read_record(&self.file("cpu.stat"))?;
            let number = |key| keyed(&stat, key).unwrap_or_default();
            usage.cpu_microseconds = number("usage_usec");
            usage.cpu_user_microseconds = number("user_usec");
            usage.cpu_system_microseconds = number("system_usec");
            usage.cpu_periods = number("nr_periods");
            usage.cpu_throttled_periods = number("nr_throttled");
            usage.cpu_throttled_microseconds = number("throttled_usec");
        } else if let Some((directory, _)) = self.inner.directory(Controller::CpuAccounting) {
            usage.cpu_microseconds = self.number(directory, "cpuacct.usage")? / 1_000;
            usage.cpu_user_microseconds = self.number(directory, "cpuacct.usage_user")? / 1_000;
            usage.cpu_system_microseconds = self.number(directory, "cpuacct.usage_sys")? / 1_000;
        }
        if let Some((directory, Home::V1(_))) = self.inner.directory(Controller::Cpu) {
            let stat = directory.read_record(&self.file("cpu.stat"))?;
            let number = |key| keyed(&stat, key).unwrap_or_default();
            usage.cpu_periods = number("nr_periods");
            usage.cpu_throttled_periods = number("nr_throttled");
            usage.cpu_throttled_microseconds = number("throttled_time") / 1_000;
        }
        Ok(())
    }

    fn read_memory(&self, usage: &mut Usage) -> Result<(), FileError> {
        let Some((directory, home)) = self.inner.directory(Controller::Memory) else {
            return Ok(());
        };
        let stat = directory.read_record(&self.file("memory.stat"))?;
        let number = |key| keyed(&stat, key).unwrap_or_default();
        if home == Home::V2 {
            usage.memory_bytes = self.number(directory, "memory.current")?;
            usage.memory_cache_bytes = number("file");
            usage.memory_anonymous_bytes = number("anon");
            usage.memory_reclaimable_bytes = number("active_file") + number("inactive_file");
            let peak = "memory.peak";
            if directory.has(&self.file(peak)) {
                usage.memory_peak_bytes = Some(self.number(directory, peak)?);
            }
            usage.out_of_memory_kills = self.keyed(directory, "memory.events", "oom_kill")?;
            let swap = "memory.swap.current";
            if directory.has(&self.file(swap)) {
                usage.swap_bytes = self.number(directory, swap)?;
            }
            return Ok(());
        }
        usage.memory_bytes = self.number(directory, "memory.usage_in_bytes")?;
        usage.memory_cache_bytes = number("total_cache");
        usage.memory_anonymous_bytes = number("total_rss");
        usage.memory_reclaimable_bytes =
            number("total_active_file") + number("total_inactive_file");
        usage.memory_peak_bytes = Some(self.number(directory, "memory.max_usage_in_bytes")?);
        usage.swap_bytes = number("total_swap");
        usage.out_of_memory_kills = self.keyed(directory, "memory.oom_control", "oom_kill")?;
        Ok(())
    }

    fn read_processes(&self, usage: &mut Usage) -> Result<(), FileError> {
        if let Some((directory, _)) = self.inner.directory(Controller::Processes) {
            usage.processes = self.number(directory, "pids.current")?;
        }
        Ok(())
    }

    fn read_pressure(&self, usage: &mut Usage) -> Result<(), FileError> {
        usage.cpu_pressure_microseconds = self.pressure("cpu.pressure")?;
        usage.memory_pressure_microseconds = self.pressure("memory.pressure")?;
        usage.io_pressure_microseconds = self.pressure("io.pressure")?;
        Ok(())
    }

    /// cgroup2 has pressure for every group, with controllers or without; not on a kernel without PSI, nor
    /// where `cgroup.pressure` turned it off.
    fn pressure(&self, name: &str) -> Result<Option<u64>, FileError> {
        let Some(v2) = &self.inner.v2 else {
            return Ok(None);
        };
        match v2.read_record(&self.file(name)) {
            Ok(text) => Ok(pressure_total(&text)),
            Err(error) if error.is_missing() || error.is(Errno::OPNOTSUPP) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read_io(&self, usage: &mut Usage) -> Result<(), FileError> {
        let Some((directory, home)) = self.inner.directory(Controller::Io) else {
            return Ok(());
        };
        let device = self.inner.io_device.get().map(String::as_str);
        if home == Home::V2 {
            let stat = directory.read_record(&self.file("io.stat"))?;
            usage.io_read_bytes = sum_v2(&stat, device, "rbytes=");
            usage.io_write_bytes = sum_v2(&stat, device, "wbytes=");
            usage.io_read_operations = sum_v2(&stat, device, "rios=");
            usage.io_write_operations = sum_v2(&stat, device, "wios=");
            return Ok(());
        }
        let read = |name: &str| self.read_optional(directory, name);
        let bytes = read("blkio.throttle.io_service_bytes_recursive")?;
        let operations = read("blkio.throttle.io_serviced_recursive")?;
        usage.io_read_bytes = sum_v1(&bytes, device, "Read");
        usage.io_write_bytes = sum_v1(&bytes, device, "Write");
        usage.io_read_operations = sum_v1(&operations, device, "Read");
        usage.io_write_operations = sum_v1(&operations, device, "Write");
        Ok(())
    }

    /// A kernel without `BLK_DEV_THROTTLING` lacks these.
    fn read_optional(&self, directory: &Directory, name: &str) -> Result<String, FileError> {
        match directory.read_record(&self.file(name)) {
            Err(error) if error.is_missing() && directory.has(&self.below) => Ok(String::new()),
            other => other,
        }
    }
}

/// The sum in `some avg10=0.00 avg60=0.00 avg300=0.00 total=1234`.
fn pressure_total(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with("some "))?;
    line.rsplit_once("total=")?.1.trim().parse().ok()
}

/// Lines of a device, or of all, without the device's numbers.
fn of_device<'a>(stat: &'a str, device: Option<&str>) -> impl Iterator<Item = &'a str> {
    stat.lines().filter_map(move |line| {
        let (numbers, rest) = line.split_once(' ')?;
        device
            .is_none_or(|device| device == numbers)
            .then_some(rest)
    })
}

/// Sums `8:0 rbytes=1 wbytes=2 rios=3 wios=4 ...`.
fn sum_v2(stat: &str, device: Option<&str>, key: &str) -> u64 {
    let words = of_device(stat, device).flat_map(str::split_whitespace);
    let values = words.filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok());
    values.sum()
}

/// Sums `8:0 Read 1`. The last line, `Total 1`, is of no device.
fn sum_v1(stat: &str, device: Option<&str>, operation: &str) -> u64 {
    let lines = of_device(stat, device);
    let values = lines.filter_map(|line| line.strip_prefix(operation)?.trim().parse::<u64>().ok());
    values.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_that_of_some() {
        let text = "some avg10=1.00 avg60=0.00 avg300=0.00 total=1234\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        assert_eq!(pressure_total(text), Some(1_234));
        assert_eq!(pressure_total(""), None);
    }

    #[test]
    fn sums_over_devices_or_takes_one() {
        let v2 = "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n7:1 rbytes=5 wbytes=1\n";
        assert_eq!(
            (sum_v2(v2, None, "rbytes="), sum_v2(v2, None, "wios=")),
            (15, 2)
        );
        assert_eq!(sum_v2(v2, Some("7:1"), "rbytes="), 5);
        let v1 = "8:0 Read 10\n8:0 Write 20\n7:1 Read 5\n7:1 Total 5\nTotal 35\n";
        assert_eq!(
            (sum_v1(v1, None, "Read"), sum_v1(v1, None, "Write")),
            (15, 20)
        );
        assert_eq!(sum_v1(v1, Some("8:0"), "Read"), 10);
    }
}
