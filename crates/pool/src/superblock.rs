//! The btrfs superblock, read without mounting.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Where the first superblock lies (`BTRFS_SUPER_INFO_OFFSET`).
const OFFSET: u64 = 64 << 10;
/// Bytes of it that are looked at: up to the end of the label.
const BYTES: usize = 0x12B + LABEL_BYTES;
/// Where the magic, the number of devices and the label lie in it (`struct btrfs_super_block`).
const MAGIC_AT: usize = 0x40;
const DEVICES_AT: usize = 0x88;
const LABEL_AT: usize = 0x12B;
const LABEL_BYTES: usize = 256;
const MAGIC: &[u8] = b"_BHRfS_M";
/// The magic that mkfs.btrfs writes first and replaces last (`BTRFS_MAGIC_TEMPORARY`).
const MAGIC_UNFINISHED: &[u8] = b"!BHRfS_M";

/// The label of file systems that this crate makes.
pub(crate) const LABEL: &str = "vessel-pool";

/// What a superblock says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Superblock {
    /// There is none.
    Absent,
    /// mkfs.btrfs died before it was done.
    Unfinished,
    /// A btrfs.
    Btrfs {
        /// Its label, lossily.
        label: String,
        /// How many devices it spans.
        device_count: u64,
    },
}

/// Reads the superblock of a file or block device. One that is too short has none.
pub(crate) fn read(file: &File) -> io::Result<Superblock> {
    let mut block = [0; BYTES];
    match file.read_exact_at(&mut block, OFFSET) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Superblock::Absent),
        Err(error) => Err(error),
        Ok(()) => Ok(parse(&block)),
    }
}

fn parse(block: &[u8; BYTES]) -> Superblock {
    let part = |at: usize, bytes: usize| block.get(at..at + bytes).unwrap_or_default();
    match part(MAGIC_AT, MAGIC.len()) {
        MAGIC => (),
        MAGIC_UNFINISHED => return Superblock::Unfinished,
        _ => return Superblock::Absent,
    }
    let label = part(LABEL_AT, LABEL_BYTES)
        .split(|b| *b == 0)
        .next()
        .unwrap_or_default();
    let device_count = part(DEVICES_AT, 8)
        .first_chunk()
        .map_or(0, |b| u64::from_le_bytes(*b));
    Superblock::Btrfs {
        label: String::from_utf8_lossy(label).into_owned(),
        device_count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_finished_from_unfinished_and_from_nothing() {
        let mut block = [0; BYTES];
        assert_eq!(parse(&block), Superblock::Absent);
        block[MAGIC_AT..MAGIC_AT + 8].copy_from_slice(MAGIC_UNFINISHED);
        assert_eq!(parse(&block), Superblock::Unfinished);
        block[MAGIC_AT..MAGIC_AT + 8].copy_from_slice(MAGIC);
        block[DEVICES_AT] = 1;
        block[LABEL_AT..LABEL_AT + LABEL.len()].copy_from_slice(LABEL.as_bytes());
        let expected = Superblock::Btrfs {
            label: LABEL.into(),
            device_count: 1,
        };
        assert_eq!(parse(&block), expected);
    }

    #[test]
    fn a_short_file_has_no_superblock() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(OFFSET + 10).unwrap();
        assert_eq!(read(&file).unwrap(), Superblock::Absent);
    }
}
