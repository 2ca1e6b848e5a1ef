//! Maps: what programs and processes share.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::{Attributes, ByIdAttributes, Command, InformationAttributes, call, name_bytes, open};

/// How a map keeps its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapKind {
    /// Until they are taken out; room is taken with each entry.
    Hash,
    /// The ones that were not used for the longest time make place for new ones; room is taken at once.
    LeastRecentlyUsed,
}

/// A map. It lives as long as a descriptor or a program refers to it.
#[derive(Debug)]
pub struct Map {
    fd: OwnedFd,
    key_bytes: usize,
    value_bytes: usize,
}

/// `BPF_F_NO_PREALLOC`.
const FLAG_NO_ROOM_AHEAD: u32 = 1;

#[repr(C)]
struct CreateAttributes {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries_max: u32,
    flags: u32,
    inner: u32,
    numa_node: u32,
    name: [u8; 16],
}
// SAFETY: `BPF_MAP_CREATE` without pointers.
unsafe impl Attributes for CreateAttributes {}

#[repr(C)]
struct ElementAttributes {
    map: u32,
    padding: u32,
    key: u64,
    value_or_next: u64,
    flags: u64,
}
// SAFETY: `BPF_MAP_*_ELEM` and `BPF_MAP_GET_NEXT_KEY`: the second word is padding there, too.
unsafe impl Attributes for ElementAttributes {}

/// The beginning of `struct bpf_map_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Information {
    kind: u32,
    id: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries_max: u32,
    flags: u32,
    name: [u8; 16],
}

/// Size of [`Information`].
const INFORMATION_BYTES: u32 = 40;
const _: () = assert!(size_of::<Information>() == INFORMATION_BYTES as usize);

impl Map {
    /// Makes an empty map. Of its name 15 letters, digits and `_` count.
    ///
    /// # Errors
    /// `EPERM` without `CAP_BPF`, `E2BIG` and `ENOMEM` when it is too large.
    pub fn create(
        kind: MapKind,
        name: &str,
        key_bytes: u32,
        value_bytes: u32,
        entries_max: u32,
    ) -> io::Result<Self> {
        let (kind, flags) = match kind {
            MapKind::Hash => (1, FLAG_NO_ROOM_AHEAD),
            MapKind::LeastRecentlyUsed => (9, 0),
        };
        let mut attributes = CreateAttributes {
            kind,
            key_bytes,
            value_bytes,
            entries_max,
            flags,
            inner: 0,
            numa_node: 0,
            name: name_bytes(name),
        };
        // SAFETY: no pointer is in it, and BPF_MAP_CREATE answers with a descriptor.
        let fd = unsafe { open(Command::MapCreate, &mut attributes) }?;
        Ok(Self {
            fd,
            key_bytes: key_bytes as usize,
            value_bytes: value_bytes as usize,
        })
    }

    /// Opens a map by its number, if it has this name and these sizes.
    ///
    /// # Errors
    /// `ENOENT` when there is none of this number.
    pub fn by_id(
        id: u32,
        name: &str,
        key_bytes: u32,
        value_bytes: u32,
    ) -> io::Result<Option<Self>> {
        let mut attributes = ByIdAttributes {
            id,
            next: 0,
            flags: 0,
        };
        // SAFETY: no pointer is in it, and the command answers with a descriptor.
        let fd = unsafe { open(Command::MapById, &mut attributes) }?;
        let found = information(fd.as_fd())?;
        let same = found.name == name_bytes(name)
            && found.key_bytes == key_bytes
            && found.value_bytes == value_bytes;
        Ok(same.then_some(Self {
            fd,
            key_bytes: key_bytes as usize,
            value_bytes: value_bytes as usize,
        }))
    }

    /// Its descriptor.
    #[must_use]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn element(&self, key: Option<&[u8]>, value_or_next: u64) -> io::Result<ElementAttributes> {
        if key.is_some_and(|key| key.len() != self.key_bytes) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(ElementAttributes {
            map: self.fd.as_raw_fd().cast_unsigned(),
            padding: 0,
            key: key.map_or(0, |key| key.as_ptr().addr() as u64),
            value_or_next,
            flags: 0,
        })
    }

    /// Reads an entry.
    ///
    /// # Errors
    /// Fails when the key is of another size.
    pub fn get(&self, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut value = vec![0; self.value_bytes];
        let mut attributes = self.element(Some(key), value.as_mut_ptr().addr() as u64)?;
        // SAFETY: the key has the map's size (checked) and is only read; the kernel writes one value, and
        // `value` is as large and borrowed by nobody else.
        match unsafe { call(Command::MapLookup, &mut attributes) } {
            Ok(_) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes an entry, new or not.
    ///
    /// # Errors
    /// `E2BIG` when the map is full; fails when key or value are of another size.
    pub fn set(&self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if value.len() != self.value_bytes {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut attributes = self.element(Some(key), value.as_ptr().addr() as u64)?;
        // SAFETY: key and value have the map's sizes (checked), and are only read.
        unsafe { call(Command::MapUpdate, &mut attributes) }.map(|_| ())
    }

    /// All keys, in no order. Others may come and go meanwhile.
    ///
    /// # Errors
    /// The kernel's.
    pub fn keys(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        loop {
            let mut next = vec![0; self.key_bytes];
            let last = keys.last().map(Vec::as_slice);
            let mut attributes = self.element(last, next.as_mut_ptr().addr() as u64)?;
            // SAFETY: the key has the map's size or is null (the first is asked for); the kernel writes one key,
            // and `next` is as large and borrowed by nobody else.
            match unsafe { call(Command::MapNextKey, &mut attributes) } {
                Ok(_) => keys.push(next),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(keys),
                Err(error) => return Err(error),
            }
        }
    }
}

fn information(map: BorrowedFd<'_>) -> io::Result<Information> {
    let mut found = Information::default();
    let mut attributes = InformationAttributes {
        fd: map.as_raw_fd().cast_unsigned(),
        length: INFORMATION_BYTES,
        information: std::ptr::from_mut(&mut found).addr() as u64,
    };
    // SAFETY: the kernel writes at most `length` bytes of `struct bpf_map_info`, whose beginning
    // `Information` is, without padding and of plain numbers.
    unsafe { call(Command::Information, &mut attributes) }?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_kept_and_found_by_another() {
        if !rustix::process::geteuid().is_root() {
            println!("not run: making a map needs root");
            return;
        }
        let map = Map::create(MapKind::Hash, "ve_test", 4, 8, 16).unwrap();
        assert_eq!(map.get(&[1, 0, 0, 0]).unwrap(), None);
        map.set(&[1, 0, 0, 0], &[7; 8]).unwrap();
        map.set(&[2, 0, 0, 0], &[8; 8]).unwrap();
        assert_eq!(map.get(&[1, 0, 0, 0]).unwrap(), Some(vec![7; 8]));
        let mut keys = map.keys().unwrap();
        keys.sort();
        assert_eq!(keys, [[1, 0, 0, 0], [2, 0, 0, 0]]);
        let id = information(map.as_fd()).unwrap().id;
        let same = Map::by_id(id, "ve_test", 4, 8).unwrap().unwrap();
        assert_eq!(same.get(&[2, 0, 0, 0]).unwrap(), Some(vec![8; 8]));
        assert!(Map::by_id(id, "ve_other", 4, 8).unwrap().is_none());
        assert!(Map::by_id(id, "ve_test", 4, 16).unwrap().is_none());
    }

    #[test]
    fn keys_and_values_of_another_size_are_refused() {
        if !rustix::process::geteuid().is_root() {
            println!("not run: making a map needs root");
            return;
        }
        let map = Map::create(MapKind::LeastRecentlyUsed, "ve_test", 4, 8, 16).unwrap();
        map.get(&[1]).unwrap_err();
        map.set(&[1, 0, 0, 0], &[7; 4]).unwrap_err();
        map.set(&[1; 5], &[7; 8]).unwrap_err();
    }
}
