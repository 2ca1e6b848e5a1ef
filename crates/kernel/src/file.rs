//! What the kernel tells of files, and does with them, beyond the usual.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::ioctl::{Opcode, opcode};

use crate::control;

/// `MAX_HANDLE_SZ` (open_by_handle_at(2)).
const HANDLE_BYTES_MAX: usize = 128;

/// The handle of a file: names it in its file system for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handle {
    /// How the file system writes it.
    pub kind: i32,
    /// The handle itself.
    pub bytes: Vec<u8>,
}

/// `struct file_handle` with room for the longest.
#[repr(C)]
struct RawHandle {
    bytes: u32,
    kind: i32,
    handle: [u8; HANDLE_BYTES_MAX],
}

/// The handle of an open file (`O_PATH` will do).
///
/// # Errors
/// `EOPNOTSUPP` on a file system that has none.
pub fn handle(file: BorrowedFd<'_>) -> io::Result<Handle> {
    let mut raw = RawHandle {
        bytes: u32::try_from(HANDLE_BYTES_MAX).map_err(io::Error::other)?,
        kind: 0,
        handle: [0; HANDLE_BYTES_MAX],
    };
    let mut mount = 0;
    // SAFETY: the path is an empty C string, which `AT_EMPTY_PATH` wants; `raw` is a `file_handle` whose
    // `bytes` says how much room lies behind it, and both it and `mount` live until the call returns.
    let result = unsafe {
        libc::name_to_handle_at(
            file.as_raw_fd(),
            c"".as_ptr(),
            (&raw mut raw).cast::<libc::file_handle>(),
            &raw mut mount,
            libc::AT_EMPTY_PATH,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let length = usize::try_from(raw.bytes).map_err(io::Error::other)?;
    let bytes = raw.handle.get(..length).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Handle {
        kind: raw.kind,
        bytes: bytes.to_vec(),
    })
}

/// Bytes that one call shares at most: btrfs takes 16 MiB (`BTRFS_MAX_DEDUPE_LEN`).
const DEDUPE_BYTES_MAX: u64 = 16 << 20;
/// `FILE_DEDUPE_RANGE_SAME` and `_DIFFERS`.
const SAME: i32 = 0;
const DIFFERS: i32 = 1;

/// `struct file_dedupe_range` with one `file_dedupe_range_info`.
#[repr(C)]
#[derive(Default)]
struct DedupeRange {
    source_offset: u64,
    source_length: u64,
    count: u16,
    reserved: [u16; 3],
    destination: i64,
    destination_offset: u64,
    deduped: u64,
    status: i32,
    reserved_too: u32,
}

/// The ioctl's argument ends with an array of no length: 24 bytes.
const DEDUPE: Opcode = opcode::read_write::<[u8; 24]>(0x94, 54);

/// Makes the blocks of `own` those of `source`, from the beginning on, where both hold the same bytes: the
/// kernel compares them under locks on both. Returns how many bytes are shared then; both files are as
/// before to whoever reads them.
///
/// # Errors
/// `EOPNOTSUPP`, `EXDEV` where blocks cannot be shared.
pub fn share_blocks(source: BorrowedFd<'_>, own: BorrowedFd<'_>, bytes: u64) -> io::Result<u64> {
    let mut done = 0;
    while done < bytes {
        let mut range = DedupeRange {
            source_offset: done,
            source_length: (bytes - done).min(DEDUPE_BYTES_MAX),
            count: 1,
            destination: own.as_raw_fd().into(),
            destination_offset: done,
            ..DedupeRange::default()
        };
        // SAFETY: the ioctl reads and writes a `file_dedupe_range` with `count` records behind it, which is
        // what `DedupeRange` is with its one; both descriptors are open meanwhile.
        let ioctl = unsafe { control::update::<DEDUPE, _>(source, &mut range) };
        ioctl?;
        match range.status {
            SAME if range.deduped > 0 => done += range.deduped,
            SAME | DIFFERS => break,
            errno => return Err(io::Error::from_raw_os_error(-errno)),
        }
    }
    Ok(done)
}

/// `__NR_cachestat` is the same on every architecture (asm-generic/unistd.h).
const CACHESTAT: libc::c_long = 451;

/// What of a file is in memory, in pages (`struct cachestat` of linux/mman.h).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cached {
    /// In the page cache.
    pub pages: u64,
    /// Of them, not written yet.
    pub dirty: u64,
    /// Of them, being written.
    pub writeback: u64,
    /// Taken out of it.
    pub evicted: u64,
    /// Taken out not long ago.
    pub recently_evicted: u64,
}

/// What of a file is in the page cache. On an overlay's file it is nothing: its pages belong to the layer's.
///
/// # Errors
/// `ENOSYS` before kernel 6.5; `EPERM` for a file of somebody else's.
pub fn cached(file: BorrowedFd<'_>) -> io::Result<Cached> {
    #[repr(C)]
    struct Range {
        offset: u64,
        /// Zero for all of it.
        length: u64,
    }
    let range = Range {
        offset: 0,
        length: 0,
    };
    let mut cached = Cached::default();
    // SAFETY: cachestat reads a `cachestat_range`, which is two 64-bit numbers, and writes a `cachestat`,
    // which is five; both live until the call returns, and flags must be zero.
    let result = unsafe {
        libc::syscall(
            CACHESTAT,
            file.as_raw_fd(),
            &raw const range,
            &raw mut cached,
            0,
        )
    };
    match result {
        0 => Ok(cached),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::fd::AsFd as _;

    #[test]
    fn written_pages_are_in_the_page_cache() {
        let mut file = tempfile::tempfile().unwrap();
        assert_eq!(cached(file.as_fd()).unwrap().pages, 0);
        file.write_all(&[1; 3 * 4096]).unwrap();
        assert_eq!(cached(file.as_fd()).unwrap().pages, 3);
    }

    #[test]
    fn a_handle_names_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str| std::fs::File::create(folder.path().join(name)).unwrap();
        let (one, other) = (open("one"), open("other"));
        let first = handle(one.as_fd()).unwrap();
        assert_eq!(first, handle(one.try_clone().unwrap().as_fd()).unwrap());
        assert_ne!(first, handle(other.as_fd()).unwrap());
    }
}
