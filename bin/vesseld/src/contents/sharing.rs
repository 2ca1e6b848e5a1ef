//! What sharing saves, measured.
//!
//! Disk: what the templates would take without a common store, as it is now, and a copy of its template's files
//! for every VE but the first.
//!
//! Memory: the pages of template files that VEs have mapped (programs, libraries). Each VE would have them for
//! itself without a common inode, so what is saved is the sum over all VEs of what each has mapped of a
//! file, less what the page cache holds of that file once. Both are the kernel's own figures: the former is
//! `Rss` of `/proc/PID/smaps`, the latter cachestat(2) of the store's object (on the overlay's file that
//! is 0), or the sum of `Pss` where every process was looked at, which counts each shared page once.
//! What is only read and never mapped is in the page cache once, too, and nobody can tell by whom; it is
//! not counted, so the figure is a lower bound.
//!
//! Looking at all processes of 1,000 VEs would take seconds: of many VEs some are looked at, evenly, and stand for
//! the rest of their template. What was measured is kept for a while.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read as _};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use registry::VeRecord;
use rustix::fs::{Mode, OFlags};
use ve::VeId;

use super::{Layers, locked};
use crate::host::Host;

/// Running VEs that are looked at at most, and processes of each: some 0.3 ms a process.
const VES_MAX: usize = 40;
const PROCESSES_MAX: usize = 40;
/// Bytes read of a process's mappings; a browser's are 2 MB.
const SMAPS_BYTES_MAX: u64 = 8 << 20;
/// How long a measurement is kept, while the same VEs run.
const KEPT: Duration = Duration::from_secs(15);

/// What sharing saves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Saved {
    /// Bytes of disk.
    pub(crate) disk: u64,
    /// Bytes of memory.
    pub(crate) memory: u64,
    /// Running VEs whose memory was looked at.
    pub(crate) measured_ves: u32,
}

/// What was measured last, when, and with which inits running.
pub(super) type Measured = Option<(Instant, Vec<(VeId, u32)>, Saved)>;

/// What processes have mapped of one file, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Mapped {
    /// Pages in memory.
    resident: u64,
    /// The same, each page divided by the number of those who have it mapped.
    proportional: u64,
}

/// What VEs of one template have mapped of its objects.
#[derive(Default)]
struct Sample {
    /// VEs that run, and that were looked at.
    running: u64,
    looked_at: u64,
    /// By object: of each VE what one of its processes has at most, and the proportional parts of all.
    objects: HashMap<String, Mapped>,
}

/// What sharing saves now, or did a moment ago.
pub(crate) fn saved(host: &Host, records: &[VeRecord]) -> Saved {
    let running = records
        .iter()
        .filter_map(|r| Some((r.spec.id, r.run.as_ref()?.pid)));
    let running: Vec<_> = running.collect();
    let mut kept = locked(&host.contents.saved);
    if let Some((at, inits, saved)) = &*kept
        && at.elapsed() < KEPT
        && *inits == running
    {
        return Saved {
            disk: disk(host, records),
            ..*saved
        };
    }
    let saved = Saved {
        disk: disk(host, records),
        ..memory(host, records)
    };
    *kept = Some((Instant::now(), running, saved));
    saved
}

/// Space of disk. Templates that cannot be read count as nothing.
fn disk(host: &Host, records: &[VeRecord]) -> u64 {
    let among_templates = host
        .catalogue
        .disk_usage()
        .map_or(0, |usage| usage.saved_bytes);
    let templates = host.catalogue.list().unwrap_or_default().templates;
    let among_ves = templates.iter().map(|manifest| {
        let ves = records
            .iter()
            .filter(|r| r.spec.stack().to_string() == manifest.name);
        manifest.sizes.content_bytes * ves.count().saturating_sub(1) as u64
    });
    among_templates + among_ves.sum::<u64>()
}

fn memory(host: &Host, records: &[VeRecord]) -> Saved {
    let running: Vec<_> = records
        .iter()
        .filter(|record| record.run.is_some())
        .collect();
    let step = running.len().div_ceil(VES_MAX).max(1);
    let mut complete = step == 1;
    let mut samples: BTreeMap<String, Sample> = BTreeMap::new();
    for (index, record) in running.iter().enumerate() {
        let sample = samples.entry(record.spec.stack().to_string()).or_default();
        sample.running += 1;
        if index % step == 0 {
            complete &= look(host, record, sample).unwrap_or(false);
        }
    }
    let looked_at: u64 = samples.values().map(|sample| sample.looked_at).sum();
    Saved {
        disk: 0,
        memory: sum(host, samples.values(), complete),
        measured_ves: u32::try_from(looked_at).unwrap_or(u32::MAX),
    }
}

/// Adds what a VE has mapped; whether all of it was seen. One that ended meanwhile adds nothing.
fn look(host: &Host, record: &VeRecord, sample: &mut Sample) -> Option<bool> {
    let processes = host.groups.ve(record.spec.id).processes().ok()?;
    let layers = Layers::of_ve(host, record).ok()?;
    let merged = layers.merged();
    let mut files: HashMap<String, Mapped> = HashMap::new();
    let mut complete = processes.len() <= PROCESSES_MAX;
    for pid in processes.into_iter().take(PROCESSES_MAX) {
        let Ok(smaps) = File::open(format!("/proc/{pid}/smaps")) else {
            continue;
        };
        let mut of_process: HashMap<String, Mapped> = HashMap::new();
        complete &= mappings(
            &mut BufReader::new(smaps.take(SMAPS_BYTES_MAX)),
            &mut of_process,
        );
        for (path, mapped) in of_process {
            let file = files.entry(path).or_default();
            file.resident = file.resident.max(mapped.resident);
            file.proportional += mapped.proportional;
        }
    }
    sample.looked_at += 1;
    for (path, mapped) in files {
        let Ok(Some(place)) = merged.lookup(&path) else {
            continue;
        };
        if let difference::Identity::Template {
            object: Some(object),
        } = place.identity()
        {
            let sum = sample.objects.entry(object).or_default();
            sum.resident += mapped.resident;
            sum.proportional += mapped.proportional;
        }
    }
    Some(complete)
}

/// Adds up the mappings of a process by file; whether all were read.
fn mappings(smaps: &mut impl std::io::BufRead, files: &mut HashMap<String, Mapped>) -> bool {
    let mut file: Option<String> = None;
    let mut line = Vec::new();
    let mut bytes = 0;
    loop {
        line.clear();
        match smaps.read_until(b'\n', &mut line) {
            Ok(0) => return bytes < SMAPS_BYTES_MAX,
            Err(_) => return false,
            Ok(length) => bytes += length as u64,
        }
        let text = String::from_utf8_lossy(&line);
        let mut words = text.split_ascii_whitespace();
        let first = words.next().unwrap_or_default();
        let kilobytes = |mut words: std::str::SplitAsciiWhitespace<'_>| {
            words
                .next()
                .and_then(|number| number.parse::<u64>().ok())
                .unwrap_or(0)
                * 1024
        };
        match (first, &file) {
            ("Rss:", Some(path)) => {
                files.entry(path.clone()).or_default().resident += kilobytes(words)
            }
            ("Pss:", Some(path)) => {
                files.entry(path.clone()).or_default().proportional += kilobytes(words);
            }
            (first, _) if first.contains('-') => {
                // ADDRESSES MODES OFFSET DEVICE INODE PATH; a path may hold blanks.
                let path = words.nth(3).and_then(|_| text.split_once('/'));
                file = path.map(|(_, path)| format!("/{}", path.trim_end()));
            }
            _ => {}
        }
    }
}

/// What all VEs have mapped, less what is in memory of it.
fn sum<'a>(host: &Host, samples: impl Iterator<Item = &'a Sample>, complete: bool) -> u64 {
    let mut objects: HashMap<&str, Mapped> = HashMap::new();
    for sample in samples.filter(|sample| sample.looked_at > 0) {
        for (object, mapped) in &sample.objects {
            let all = objects.entry(object).or_default();
            all.resident += mapped.resident * sample.running / sample.looked_at;
            all.proportional += mapped.proportional;
        }
    }
    let store = host.catalogue.open_objects();
    let saved = objects.iter().map(|(object, mapped)| {
        let held = match complete {
            true => Some(mapped.proportional),
            false => store.as_ref().ok().and_then(|store| cached(store, object)),
        };
        mapped.resident.saturating_sub(held.unwrap_or(u64::MAX))
    });
    saved.sum()
}

/// Bytes of an object in the page cache.
fn cached(store: &std::os::fd::OwnedFd, object: &str) -> Option<u64> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(store, object, flags, Mode::empty()).ok()?;
    let cached = kernel::file::cached(file.as_fd()).ok()?;
    Some(cached.pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_added_up_by_file() {
        let smaps = "\
55d0-55d8 r-xp 00001000 00:2f 1234   /usr/sbin/with a blank\nSize: 8 kB\nRss:   8 kB\nPss:   4 kB\nPss_Dirty: 3 kB\n\
7f00-7f08 r--p 00000000 00:2f 1234   /usr/sbin/with a blank\nRss:  16 kB\nPss:  16 kB\nVmFlags: rd mr\n\
7f08-7f09 rw-p 00000000 00:00 0 \nRss: 99 kB\nPss: 99 kB\n\
7ffd-7ffe rw-p 00000000 00:00 0   [stack]\nRss: 99 kB\nPss: 99 kB\n";
        let mut files = HashMap::new();
        assert!(mappings(&mut smaps.as_bytes(), &mut files));
        let expected = Mapped {
            resident: 24 << 10,
            proportional: 20 << 10,
        };
        let path = "/usr/sbin/with a blank".to_owned();
        assert_eq!(files, HashMap::from([(path, expected)]));
    }
}
