//! One step of one VE: the mean and the largest of each metric.
//!
//! ```text
//! 0     4        6          8                                  104      108
//! time  samples  (unused)   24 columns of mean and largest     crc32
//! ```
//!
//! Numbers are little-endian. A record that was torn by a power cut, or was never written, has a wrong
//! checksum and counts as absent.

use super::encode::{decode, encode};
use crate::metric::Metric;

/// Columns of a record. More than there are metrics, so that one can be added without another format.
const COLUMNS: usize = 24;
const HEAD_BYTES: usize = 8;
/// Size of a record.
pub(super) const RECORD_BYTES: usize = HEAD_BYTES + COLUMNS * 4 + 4;

const _: () = assert!(
    Metric::ALL.len() <= COLUMNS,
    "more metrics than columns: give the file another format"
);

/// What a metric was during a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Mean of the samples.
    pub mean: f64,
    /// The largest of them.
    pub max: f64,
}

/// A step of a VE.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// When the step began, in seconds since 1970.
    pub time: u32,
    /// Samples that it is made of.
    pub samples: u16,
    points: [Option<Point>; COLUMNS],
}

impl Record {
    /// A step without values.
    pub(super) fn new(time: u32) -> Self {
        Self {
            time,
            samples: 0,
            points: [None; COLUMNS],
        }
    }

    /// What a metric was.
    #[must_use]
    pub fn get(&self, metric: Metric) -> Option<Point> {
        self.points[metric.index()]
    }

    pub(super) fn set(&mut self, metric: Metric, point: Option<Point>) {
        self.points[metric.index()] = point;
    }

    /// One step out of the finer ones in it. Means are weighted by samples, as a VE may have been down.
    pub(super) fn of_finer(time: u32, finer: &[Self]) -> Self {
        let mut whole = Self::new(time);
        for record in finer {
            whole.samples = whole.samples.saturating_add(record.samples);
        }
        for metric in Metric::ALL {
            let with = finer
                .iter()
                .filter_map(|record| Some((f64::from(record.samples.max(1)), record.get(metric)?)));
            let (mut weight, mut sum, mut max) = (0.0, 0.0, f64::MIN);
            for (samples, point) in with {
                weight += samples;
                sum += samples * point.mean;
                max = max.max(point.max);
            }
            let point = Point {
                mean: sum / weight,
                max,
            };
            whole.set(metric, (weight > 0.0).then_some(point));
        }
        whole
    }

    pub(super) fn to_bytes(&self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        bytes[0..4].copy_from_slice(&self.time.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.samples.to_le_bytes());
        for (at, point) in self.points.iter().enumerate() {
            let offset = HEAD_BYTES + at * 4;
            let codes = [
                encode(point.map(|point| point.mean)),
                encode(point.map(|point| point.max)),
            ];
            bytes[offset..offset + 2].copy_from_slice(&codes[0].to_le_bytes());
            bytes[offset + 2..offset + 4].copy_from_slice(&codes[1].to_le_bytes());
        }
        let end = RECORD_BYTES - 4;
        let checksum = crc32fast::hash(&bytes[..end]);
        bytes[end..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let end = RECORD_BYTES - 4;
        let checksum = u32::from_le_bytes(bytes.get(end..RECORD_BYTES)?.try_into().ok()?);
        if checksum != crc32fast::hash(&bytes[..end]) {
            return None;
        }
        let short = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let mut record = Self::new(u32::from_le_bytes(bytes[0..4].try_into().ok()?));
        record.samples = short(4);
        for (at, point) in record.points.iter_mut().enumerate() {
            let offset = HEAD_BYTES + at * 4;
            *point = decode(short(offset)).and_then(|mean| {
                let max = decode(short(offset + 2))?;
                Some(Point { mean, max })
            });
        }
        // Zeros have the checksum of zeros.
        (record.time > 0).then_some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(time: u32, samples: u16, mean: f64, max: f64) -> Record {
        let mut record = Record::new(time);
        record.samples = samples;
        record.set(Metric::CpuCores, Some(Point { mean, max }));
        record
    }

    #[test]
    fn comes_back_from_its_bytes_and_not_from_torn_ones() {
        let bytes = record(77, 1, 0.5, 2.0).to_bytes();
        let back = Record::from_bytes(&bytes).unwrap();
        assert_eq!((back.time, back.samples), (77, 1));
        let point = back.get(Metric::CpuCores).unwrap();
        assert!((point.mean - 0.5).abs() < 0.001 && (point.max - 2.0).abs() < 0.001);
        assert_eq!(back.get(Metric::DiskBytes), None);
        for at in 0..RECORD_BYTES {
            let mut torn = bytes;
            torn[at] ^= 0x10;
            assert_eq!(Record::from_bytes(&torn), None, "byte {at}");
        }
        assert_eq!(Record::from_bytes(&[0; RECORD_BYTES]), None);
        assert_eq!(Record::from_bytes(&[1; 4]), None);
    }

    #[test]
    fn a_coarser_step_weighs_by_samples_and_keeps_the_peak() {
        let finer = [record(60, 6, 1.0, 1.5), record(120, 2, 5.0, 9.0)];
        let whole = Record::of_finer(0, &finer);
        assert_eq!(whole.samples, 8);
        assert_eq!(
            whole.get(Metric::CpuCores),
            Some(Point {
                mean: 2.0,
                max: 9.0
            })
        );
        assert_eq!(whole.get(Metric::SwapBytes), None);
    }
}
