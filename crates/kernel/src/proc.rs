//! What `/proc` says, parsed once for all crates: processes, memory, uptime, processors, mounts.
//!
//! Every function reads one small file, allocates little and keeps nothing. Parsers are separate
//! from readers, so that they are tested on text of any machine. Nothing here looks into a VE's own
//! `/proc`: that is the business of whoever serves it.

use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

/// A file of `/proc` could not be read, or did not say what the kernel's documentation promises.
#[derive(Debug, thiserror::Error)]
pub enum ProcError {
    /// Reading failed; for a process, `NotFound` means that it is gone.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The text lacks a field.
    #[error("{path} has no usable `{field}`: is /proc the kernel's own?")]
    Field {
        /// The file.
        path: PathBuf,
        /// The field that is missing or no number.
        field: &'static str,
    },
}

/// When a process started, in clock ticks since boot: with its pid it names a process for good,
/// as a pid alone is used again (field 22 of `proc_pid_stat(5)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StartTime(u64);

impl StartTime {
    /// The number of clock ticks, for storing.
    #[must_use]
    pub fn ticks(self) -> u64 {
        self.0
    }

    /// A start time that was stored as [`StartTime::ticks`].
    #[must_use]
    pub fn from_ticks(ticks: u64) -> Self {
        Self(ticks)
    }
}

/// Memory of the whole machine, in bytes (`proc_meminfo(5)`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryInfo {
    /// What the kernel manages.
    pub total_bytes: u64,
    /// What new programs could get without swapping, by the kernel's estimate.
    pub available_bytes: u64,
    /// Not used for anything.
    pub free_bytes: u64,
    /// All swap.
    pub swap_total_bytes: u64,
    /// Swap not in use.
    pub swap_free_bytes: u64,
}

/// One line of `mountinfo` (`proc_pid_mountinfo(5)`), octal escapes undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountInfo {
    /// Unique number of the mount.
    pub mount_id: u64,
    /// The directory of the file system that is the mount's root; `/` unless a part was bound.
    pub root: PathBuf,
    /// Where it is mounted, as seen from the reader's root.
    pub mount_point: PathBuf,
    /// Type of the file system, such as `cgroup2`.
    pub file_system: String,
    /// What is mounted: a device, a name, or `none`.
    pub source: String,
    /// Options of the file system (not of the mount).
    pub super_options: String,
}

/// Reads when a process started.
///
/// # Errors
/// [`ProcError::Read`] when there is no such process.
pub fn start_time(pid: u32) -> Result<StartTime, ProcError> {
    let path = PathBuf::from(format!("/proc/{pid}/stat"));
    let text = read(&path)?;
    parse_start_time(&text).ok_or(ProcError::Field {
        path,
        field: "starttime",
    })
}

/// Reads by how many nanoseconds the time since boot that a process's children see differs from the
/// machine's (time_namespaces(7)).
///
/// # Errors
/// [`ProcError::Read`] when there is no such process, or the kernel has no time namespaces.
pub fn boot_time_offset(pid: u32) -> Result<i64, ProcError> {
    let path = PathBuf::from(format!("/proc/{pid}/timens_offsets"));
    let text = read(&path)?;
    parse_boot_time_offset(&text).ok_or(ProcError::Field {
        path,
        field: "boottime",
    })
}

/// Reads the name of a process's program, at most 15 bytes, for messages.
///
/// # Errors
/// [`ProcError::Read`] when there is no such process.
pub fn program_name(pid: u32) -> Result<String, ProcError> {
    read(Path::new(&format!("/proc/{pid}/comm"))).map(|text| text.trim_end().to_owned())
}

/// Reads the numbers that a process has in the pid namespaces that it is in, from the reader's inwards:
/// the init of a namespace has the number 1 there.
///
/// # Errors
/// [`ProcError::Read`] when there is no such process.
pub fn numbers_in_namespaces(pid: u32) -> Result<Vec<u32>, ProcError> {
    let path = PathBuf::from(format!("/proc/{pid}/status"));
    let text = read(&path)?;
    let line = text.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let numbers = line.map(|line| line.split_whitespace().map(str::parse).collect());
    numbers.and_then(Result::ok).ok_or(ProcError::Field {
        path,
        field: "NSpid",
    })
}

/// Reads the machine's memory.
///
/// # Errors
/// When `/proc/meminfo` cannot be read or lacks `MemTotal`.
pub fn memory_info() -> Result<MemoryInfo, ProcError> {
    let path = Path::new("/proc/meminfo");
    parse_memory_info(&read(path)?).ok_or(ProcError::Field {
        path: path.to_owned(),
        field: "MemTotal",
    })
}

/// Reads the seconds since boot.
///
/// # Errors
/// When `/proc/uptime` cannot be read.
pub fn uptime_seconds() -> Result<f64, ProcError> {
    let path = Path::new("/proc/uptime");
    read(path)?
        .split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .ok_or(ProcError::Field {
            path: path.to_owned(),
            field: "uptime",
        })
}

/// Reads the number that the kernel made up for this boot: it changes at every boot, so that
/// what was recorded with another one (pids, above all) is known to be void.
///
/// # Errors
/// When `/proc/sys/kernel/random/boot_id` cannot be read.
pub fn boot_id() -> Result<String, ProcError> {
    read(Path::new("/proc/sys/kernel/random/boot_id")).map(|text| text.trim_end().to_owned())
}

/// Reads for how many microseconds since boot something waited for a resource (`cpu`, `memory` or `io`):
/// the `some` line of `/proc/pressure` (Documentation/accounting/psi.rst). Nothing on a kernel without it.
#[must_use]
pub fn pressure_microseconds(resource: &str) -> Option<u64> {
    let text = read(Path::new(&format!("/proc/pressure/{resource}"))).ok()?;
    parse_pressure(&text)
}

/// Counts the processors that are on line, whatever this process itself may use.
///
/// # Errors
/// When `/sys/devices/system/cpu/online` cannot be read or holds no set.
pub fn processors() -> Result<NonZeroUsize, ProcError> {
    let path = Path::new("/sys/devices/system/cpu/online");
    parse_set(read(path)?.trim_end())
        .and_then(|set| NonZeroUsize::new(set.len()))
        .ok_or(ProcError::Field {
            path: path.to_owned(),
            field: "online",
        })
}

fn parse_pressure(text: &str) -> Option<u64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let total = some
        .split_whitespace()
        .find_map(|word| word.strip_prefix("total="));
    total?.parse().ok()
}

/// Reads the mounts that this process sees, in the kernel's order: of two on one directory, the
/// later is on top.
///
/// # Errors
/// When `/proc/self/mountinfo` cannot be read. Lines that make no sense are left out.
pub fn mounts() -> Result<Vec<MountInfo>, ProcError> {
    Ok(parse_mounts(&read(Path::new("/proc/self/mountinfo"))?))
}

/// Parses the text of a `mountinfo` file; lines that make no sense are left out.
#[must_use]
pub fn parse_mounts(text: &str) -> Vec<MountInfo> {
    text.lines().filter_map(parse_mount).collect()
}

/// Parses a set in the kernel's list format, such as `0-3,8`. `None` when it is none.
#[must_use]
pub fn parse_set(text: &str) -> Option<Vec<u32>> {
    let mut members = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        members.extend(first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?);
    }
    Some(members)
}

fn read(path: &Path) -> Result<String, ProcError> {
    let bytes = fs::read(path).map_err(|source| ProcError::Read {
        path: path.to_owned(),
        source,
    })?;
    // The name of a program is any bytes; everything else here is ASCII.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `boottime SECONDS NANOSECONDS`, the seconds with a sign.
fn parse_boot_time_offset(text: &str) -> Option<i64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("boottime "))?;
    let mut words = line.split_whitespace();
    let seconds: i64 = words.next()?.parse().ok()?;
    let nanoseconds = words.next()?.parse().ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

/// The program's name is in brackets and may itself hold brackets and blanks: count from the last.
fn parse_start_time(stat: &str) -> Option<StartTime> {
    let (_, rest) = stat.rsplit_once(')')?;
    // Field 3 is the first after the name; start time is field 22.
    rest.split_whitespace()
        .nth(22 - 3)?
        .parse()
        .ok()
        .map(StartTime)
}

fn parse_memory_info(text: &str) -> Option<MemoryInfo> {
    let mut info = MemoryInfo::default();
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        let field = match key {
            "MemTotal" => &mut info.total_bytes,
            "MemAvailable" => &mut info.available_bytes,
            "MemFree" => &mut info.free_bytes,
            "SwapTotal" => &mut info.swap_total_bytes,
            "SwapFree" => &mut info.swap_free_bytes,
            _ => continue,
        };
        let kibibytes: u64 = value.split_whitespace().next()?.parse().ok()?;
        *field = kibibytes.saturating_mul(1024);
    }
    (info.total_bytes > 0).then_some(info)
}

fn parse_mount(line: &str) -> Option<MountInfo> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ');
    let mount_id = mount.next()?.parse().ok()?;
    let (_parent, _device) = (mount.next()?, mount.next()?);
    let (root, mount_point) = (unescape(mount.next()?), unescape(mount.next()?));
    let mut file_system = file_system.splitn(3, ' ');
    Some(MountInfo {
        mount_id,
        root: PathBuf::from(root),
        mount_point: PathBuf::from(mount_point),
        file_system: file_system.next()?.to_owned(),
        source: unescape(file_system.next()?),
        super_options: file_system.next().unwrap_or_default().to_owned(),
    })
}

/// Undoes the kernel's `\ooo` escapes of blank, tab, newline and backslash.
fn unescape(word: &str) -> String {
    let mut plain = String::with_capacity(word.len());
    let mut rest = word;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let code = rest
            .get(at + 1..at + 4)
            .and_then(|code| u8::from_str_radix(code, 8).ok());
        match code {
            Some(byte) => {
                plain.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            None => {
                plain.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_the_total_of_some() {
        let text = "some avg10=0.12 avg60=0.05 avg300=0.01 total=78321\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n";
        assert_eq!(parse_pressure(text), Some(78_321));
        assert_eq!(parse_pressure("full total=9\n"), None);
    }

    #[test]
    fn reads_the_offset_of_a_time_namespace() {
        let text = "monotonic           0         0\nboottime    -23807 250000000\n";
        assert_eq!(parse_boot_time_offset(text), Some(-23_806_750_000_000));
        assert_eq!(parse_boot_time_offset("monotonic 0 0\n"), None);
        assert_eq!(
            parse_boot_time_offset("boottime 9223372036854775807 0\n"),
            None
        );
    }

    #[test]
    fn reads_this_machine() {
        let own = start_time(std::process::id()).unwrap();
        assert_eq!(own, start_time(std::process::id()).unwrap());
        assert!(matches!(start_time(u32::MAX), Err(ProcError::Read { .. })));
        let memory = memory_info().unwrap();
        assert!(memory.available_bytes <= memory.total_bytes);
        assert!(uptime_seconds().unwrap() > 0.0);
        assert!(processors().unwrap().get() >= 1);
        assert_eq!(boot_id().unwrap().len(), 36);
        assert!(
            mounts()
                .unwrap()
                .iter()
                .any(|m| m.mount_point == Path::new("/proc"))
        );
        assert!(!program_name(std::process::id()).unwrap().is_empty());
        let numbers = numbers_in_namespaces(std::process::id()).unwrap();
        assert_eq!(numbers.first(), Some(&std::process::id()));
    }

    #[test]
    fn start_time_survives_a_hostile_program_name() {
        let stat = "7 (a) S 1 (b) R 1 7 7 0 -1 4194560 1 0 0 0 1 2 0 0 20 0 1 0 4711 1 2";
        assert_eq!(parse_start_time(stat), Some(StartTime(4711)));
        assert_eq!(parse_start_time("7 (x) S 1"), None);
    }

    #[test]
    fn mount_lines_with_optional_fields_and_escapes() {
        let text = "36 35 98:0 /a\\040b /mnt\\0112 rw,noatime master:1 shared:2 - ext3 /dev/x rw,e=c\n\
                    junk\n\
                    41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let mounts = parse_mounts(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].root, Path::new("/a b"));
        assert_eq!(mounts[0].mount_point, Path::new("/mnt\t2"));
        assert_eq!(mounts[0].super_options, "rw,e=c");
        assert_eq!(mounts[1].file_system, "cgroup2");
    }

    #[test]
    fn sets() {
        assert_eq!(parse_set("0-2,5"), Some(vec![0, 1, 2, 5]));
        assert_eq!(parse_set(""), Some(vec![]));
        assert_eq!(parse_set("x"), None);
    }
}
