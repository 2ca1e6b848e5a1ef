//! A year of what each VE did, in one file whose size has a bound.
//!
//! ```text
//! head (4 KiB)                      what the file is; checked at every opening
//! region of the node's first VE     head (4 KiB): which VE, up to where steps were made coarser
//!                                   ring of 10 s   for an hour      360 records
//!                                   ring of 1 min  for a day      1,440
//!                                   ring of 10 min for a month    4,464
//!                                   ring of 1 h    for a year     8,784
//! region of its second VE ...
//! ```
//!
//! A record has 108 bytes ([`Record`]), a region [`REGION_BYTES`], 1.6 MB, when its VE is a year old. The
//! file is sparse: a VE of a day takes 0.2 MB, a number without a VE nothing. A region lies where the
//! VE's number says, so there is no index that could be damaged.
//!
//! A record lies where its time says, and says its time: an old one under it is told by that and never shown. Every
//! record has a checksum. Steps are made coarser when they are over, from what is in the file, so that
//! another daemon goes on where one was killed.
//!
//! What a power cut leaves: at most the last half minute is missing (the kernel writes back by itself, nothing waits
//! for the disk here), and a torn record is absent. A file whose head is damaged is put beside as
//! `NAME.damaged`, in place of an earlier such one, and a new one begins: history is worth less than a node
//! that starts.

mod encode;
mod record;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;
use ve::VeId;

use crate::metric::{Metric, Values};
use record::RECORD_BYTES;
pub use record::{Point, Record};

/// A resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// Seconds of a step.
    pub step_seconds: u32,
    /// Steps that are kept.
    pub steps: u32,
}

/// The resolutions, from fine to coarse. Each step is a whole number of those before.
pub const LEVELS: [Level; 4] = [
    Level::new(10, 360),
    Level::new(60, 1_440),
    Level::new(600, 4_464),
    Level::new(3_600, 8_784),
];

/// Most steps of a level within one of the next coarser.
const RECORDS_WITHIN_MAX: usize = 10;

const PAGE: u64 = 4_096;
/// What of the file one VE takes at most.
pub const REGION_BYTES: u64 = {
    let mut records = 0;
    let mut at = 0;
    while at < LEVELS.len() {
        records += LEVELS[at].steps as u64;
        at += 1;
    }
    PAGE + (records * RECORD_BYTES as u64).div_ceil(PAGE) * PAGE
};

/// What the file begins with: name, format, size of a record, first number, check sum.
const MAGIC: &[u8; 12] = b"vessel-meter";
const FORMAT: u32 = 1;
const HEAD_BYTES: usize = 32;

impl Level {
    const fn new(step_seconds: u32, steps: u32) -> Self {
        Self {
            step_seconds,
            steps,
        }
    }

    /// Seconds that it reaches back.
    #[must_use]
    pub const fn reach_seconds(self) -> u32 {
        self.step_seconds * self.steps
    }

    fn step_of(self, time: u32) -> u32 {
        time - time % self.step_seconds
    }

    /// Place of a step's record in its ring.
    fn slot(self, time: u32) -> u64 {
        u64::from(time / self.step_seconds % self.steps)
    }
}

/// The finest resolution that reaches back so far; the coarsest when none does.
#[must_use]
pub fn level_for(age_seconds: u64) -> usize {
    LEVELS
        .iter()
        .position(|level| u64::from(level.reach_seconds()) >= age_seconds)
        .unwrap_or(LEVELS.len() - 1)
}

/// The file cannot be opened or made.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} the history {}", path.display())]
pub struct OpenError {
    action: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The history of a VE cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The disk refused; most often it is full.
    #[error("cannot {action} the history of VE {ve} in {}", path.display())]
    File {
        /// What was to be done.
        action: &'static str,
        /// Whose history.
        ve: VeId,
        /// The file.
        path: PathBuf,
        /// The kernel's words.
        #[source]
        source: io::Error,
    },
    /// The number is none of this node's.
    #[error("VE {0} has no place in this node's history")]
    Foreign(VeId),
}

/// Which life of a number a region is of, and up to where its steps were made coarser.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Region {
    created: u64,
    /// For each coarse level the first step that was not made yet.
    next: [u32; LEVELS.len() - 1],
}

/// The file.
#[derive(Debug)]
pub struct History {
    file: File,
    path: PathBuf,
    ids: Range<u32>,
    regions: BTreeMap<VeId, Region>,
    /// The finest step that was last written here for each VE.
    written: BTreeMap<VeId, u32>,
}

impl History {
    /// Opens the history of the VEs with numbers from `first` to `last`, making it where there is none. The
    /// second answer is where a damaged one was put.
    ///
    /// # Errors
    /// When the file cannot be read, made or put beside.
    pub fn open(
        path: &Path,
        first: VeId,
        last: VeId,
    ) -> Result<(Self, Option<PathBuf>), OpenError> {
        let failed = |action| {
            move |source| OpenError {
                action,
                path: path.to_owned(),
                source,
            }
        };
        let mut file = open_file(path).map_err(failed("open"))?;
        let expected = head(first);
        let mut set_aside = None;
        let mut found = vec![0; HEAD_BYTES];
        let is_new = file.metadata().map_err(failed("look at"))?.len() == 0;
        if !is_new {
            let whole = read_whole(&file, &mut found, 0).map_err(failed("read"))?;
            if !whole || found != expected {
                let beside = beside(path);
                std::fs::rename(path, &beside).map_err(failed("put aside"))?;
                file = open_file(path).map_err(failed("make"))?;
                set_aside = Some(beside);
            }
        }
        if is_new || set_aside.is_some() {
            file.write_all_at(&expected, 0)
                .and_then(|()| file.sync_all())
                .map_err(failed("begin"))?;
        }
        let history = Self {
            file,
            path: path.to_owned(),
            ids: first.get()..last.get() + 1,
            regions: BTreeMap::new(),
            written: BTreeMap::new(),
        };
        Ok((history, set_aside))
    }

    /// Adds what a VE did in the last few seconds before `time`, in seconds since 1970. `created`
    /// tells VEs apart that had the same number one after the other: the history of the earlier goes.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn append(
        &mut self,
        ve: VeId,
        created: u64,
        time: u64,
        values: &Values,
    ) -> Result<(), AccessError> {
        let time = u32::try_from(time).unwrap_or(u32::MAX);
        let mut region = match self.region(ve)? {
            Some(region) if region.created == created => region,
            Some(_) => {
                self.forget(ve)?;
                Region::begin(created, time)
            }
            None => Region::begin(created, time),
        };
        let step = LEVELS[0].step_of(time);
        let mut record = Record::new(step);
        record.samples = 1;
        for metric in Metric::ALL {
            let point = values.get(metric).map(|value| Point {
                mean: value,
                max: value,
            });
            record.set(metric, point);
        }
        // A step behind the last that was written here has nothing in it yet.
        let is_new = self.written.get(&ve).is_some_and(|last| *last < step);
        if !is_new && let Some(earlier) = self.read_record(ve, 0, step)? {
            record = Record::of_finer(step, &[earlier, record]);
        }
        self.write_record(ve, 0, &record)?;
        self.written.insert(ve, step);
        let before = self.regions.get(&ve).copied();
        self.make_coarser(ve, &mut region, time)?;
        if before != Some(region) {
            self.write_at(ve, "write", 0, &region.to_bytes())?;
            self.regions.insert(ve, region);
        }
        Ok(())
    }

    /// The steps of a VE at a level (an index of [`LEVELS`]) that began in a span of time, oldest first; steps
    /// that nobody saw are not among them. A VE that has this number and is another has none.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn read(
        &mut self,
        ve: VeId,
        created: u64,
        level: usize,
        span: Range<u64>,
    ) -> Result<Vec<Record>, AccessError> {
        if self
            .region(ve)?
            .is_none_or(|region| region.created != created)
        {
            return Ok(Vec::new());
        }
        let ring = LEVELS[level];
        let length = usize::try_from(ring.steps).unwrap_or(usize::MAX) * RECORD_BYTES;
        let mut bytes = vec![0; length];
        self.read_at(ve, offset(level, 0), &mut bytes)?;
        let records = bytes
            .chunks_exact(RECORD_BYTES)
            .filter_map(Record::from_bytes);
        let mut records: Vec<Record> = records
            .filter(|record| span.contains(&u64::from(record.time)))
            .collect();
        records.sort_by_key(|record| record.time);
        Ok(records)
    }

    /// Gives back what the history of a VE takes.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn forget(&mut self, ve: VeId) -> Result<(), AccessError> {
        self.regions.remove(&ve);
        self.written.remove(&ve);
        let at = self.start(ve)?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&self.file, flags, at, REGION_BYTES)
            .map_err(|errno| self.failure("forget", ve, errno.into()))
    }

    /// Makes coarser steps out of those that are over.
    fn make_coarser(&self, ve: VeId, region: &mut Region, time: u32) -> Result<(), AccessError> {
        for level in 1..LEVELS.len() {
            let (finer, coarse) = (LEVELS[level - 1], LEVELS[level]);
            let current = coarse.step_of(time);
            let next = &mut region.next[level - 1];
            // A clock that was set back: what is over by the new one was made by the old one.
            if *next > current {
                *next = current;
            }
            let oldest = coarse.step_of(time.saturating_sub(finer.reach_seconds()));
            let mut step = (*next).max(oldest);
            while step < current {
                let records = self.read_within(ve, level, step)?;
                if !records.is_empty() {
                    self.write_record(ve, level, &Record::of_finer(step, &records))?;
                }
                step += coarse.step_seconds;
            }
            *next = current;
        }
        Ok(())
    }

    /// Which VE a region is of; nothing where none was written.
    fn region(&mut self, ve: VeId) -> Result<Option<Region>, AccessError> {
        if let Some(region) = self.regions.get(&ve) {
            return Ok(Some(*region));
        }
        let mut bytes = [0; Region::BYTES];
        self.read_at(ve, 0, &mut bytes)?;
        let region = Region::from_bytes(&bytes);
        if let Some(region) = region {
            self.regions.insert(ve, region);
        }
        Ok(region)
    }

    /// The steps of the next finer level within one of a level. They lie behind each other: a ring is a whole
    /// number of coarser steps.
    fn read_within(&self, ve: VeId, level: usize, step: u32) -> Result<Vec<Record>, AccessError> {
        let (finer, coarse) = (LEVELS[level - 1], LEVELS[level]);
        let count = coarse.step_seconds / finer.step_seconds;
        let mut bytes = [0; RECORDS_WITHIN_MAX * RECORD_BYTES];
        let length = usize::try_from(count).unwrap_or(usize::MAX) * RECORD_BYTES;
        let bytes = &mut bytes[..length];
        self.read_at(ve, offset(level - 1, finer.slot(step)), bytes)?;
        let records = bytes.chunks_exact(RECORD_BYTES).map(Record::from_bytes);
        let times = (step..).step_by(usize::try_from(finer.step_seconds).unwrap_or(1));
        let of_time = |(record, time): (Option<Record>, u32)| record.filter(|r| r.time == time);
        Ok(records.zip(times).filter_map(of_time).collect())
    }

    fn read_record(
        &self,
        ve: VeId,
        level: usize,
        step: u32,
    ) -> Result<Option<Record>, AccessError> {
        let mut bytes = [0; RECORD_BYTES];
        self.read_at(ve, offset(level, LEVELS[level].slot(step)), &mut bytes)?;
        Ok(Record::from_bytes(&bytes).filter(|record| record.time == step))
    }

    fn write_record(&self, ve: VeId, level: usize, record: &Record) -> Result<(), AccessError> {
        let at = offset(level, LEVELS[level].slot(record.time));
        self.write_at(ve, "write", at, &record.to_bytes())
    }

    fn start(&self, ve: VeId) -> Result<u64, AccessError> {
        if !self.ids.contains(&ve.get()) {
            return Err(AccessError::Foreign(ve));
        }
        Ok(PAGE + u64::from(ve.get() - self.ids.start) * REGION_BYTES)
    }

    fn read_at(&self, ve: VeId, at: u64, bytes: &mut [u8]) -> Result<(), AccessError> {
        let at = self.start(ve)? + at;
        // Behind the end of the file is what was never written.
        read_whole(&self.file, bytes, at)
            .map(drop)
            .map_err(|source| self.failure("read", ve, source))
    }

    fn write_at(
        &self,
        ve: VeId,
        action: &'static str,
        at: u64,
        bytes: &[u8],
    ) -> Result<(), AccessError> {
        let at = self.start(ve)? + at;
        self.file
            .write_all_at(bytes, at)
            .map_err(|source| self.failure(action, ve, source))
    }

    fn failure(&self, action: &'static str, ve: VeId, source: io::Error) -> AccessError {
        AccessError::File {
            action,
            ve,
            path: self.path.clone(),
            source,
        }
    }
}

impl Region {
    const BYTES: usize = 32;

    fn begin(created: u64, time: u32) -> Self {
        let mut next = [0; LEVELS.len() - 1];
        for (at, next) in next.iter_mut().enumerate() {
            *next = LEVELS[at + 1].step_of(time);
        }
        Self { created, next }
    }

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0..8].copy_from_slice(&self.created.to_le_bytes());
        for (at, next) in self.next.iter().enumerate() {
            bytes[8 + at * 4..12 + at * 4].copy_from_slice(&next.to_le_bytes());
        }
        let checksum = crc32fast::hash(&bytes[..Self::BYTES - 4]);
        bytes[Self::BYTES - 4..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let word = |at: usize| -> u32 {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let sound = word(Self::BYTES - 4) == crc32fast::hash(&bytes[..Self::BYTES - 4]);
        let created = u64::from(word(0)) | u64::from(word(4)) << 32;
        sound.then_some(Self {
            created,
            next: [word(8), word(12), word(16)],
        })
    }
}

/// Where a record lies in its region.
fn offset(level: usize, slot: u64) -> u64 {
    let before: u64 = LEVELS[..level]
        .iter()
        .map(|level| u64::from(level.steps))
        .sum();
    PAGE + (before + slot) * RECORD_BYTES as u64
}

fn head(first: VeId) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(FORMAT.to_le_bytes());
    bytes.extend((RECORD_BYTES as u64).to_le_bytes());
    bytes.extend(first.get().to_le_bytes());
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".damaged");
    PathBuf::from(name)
}

fn open_file(path: &Path) -> io::Result<File> {
    File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path)
}

/// Fills `bytes` from the file; false, and zeros, where that ends before.
fn read_whole(file: &File, bytes: &mut [u8], at: u64) -> io::Result<bool> {
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], at + filled as u64) {
            Ok(0) => {
                bytes[filled..].fill(0);
                return Ok(false);
            }
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
