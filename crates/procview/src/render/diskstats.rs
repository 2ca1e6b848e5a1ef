//! `/proc/diskstats`.

use std::fmt::Write as _;

use crate::facts::DiskUse;

/// The kernel counts in sectors of this size, whatever the device has.
const SECTOR_BYTES: u64 = 512;

/// `/proc/diskstats` (`proc_diskstats(5)`): what the VE read and wrote. How long that took, and what
/// was merged, is not counted for a group.
#[must_use]
pub fn diskstats(disks: &[DiskUse]) -> String {
    let mut text = String::new();
    for disk in disks {
        let sectors = |bytes: u64| bytes / SECTOR_BYTES;
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:4} {:7} {} {} 0 {} 0 {} 0 {} 0 0 0 0 {} 0 {} 0 0 0",
            disk.major,
            disk.minor,
            disk.name,
            disk.reads,
            sectors(disk.read_bytes),
            disk.writes,
            sectors(disk.write_bytes),
            disk.discards,
            sectors(disk.discard_bytes),
        );
    }
    text
}
