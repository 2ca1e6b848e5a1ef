//! Reading items of the file system's trees (`BTRFS_IOC_TREE_SEARCH_V2`).
//!
//! The kernel answers a slice of the tree's linear key space, so a search whose lower and upper
//! keys differ in more than the offset also yields what lies between. Every search here fixes
//! object and type and lets only the offset run, which makes the answer exact.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::ioctl::{Opcode, opcode};

use super::GROUP;
use crate::control;

/// Bytes of answers per request: some 200 small items. The kernel caps it at 16 MiB; items are
/// never larger than a tree node (64 KiB at most), and those searched here are below 600 bytes.
const ANSWER_BYTES: usize = 16 * 1024;

/// Length of `struct btrfs_ioctl_search_header`.
const HEADER_BYTES: usize = 32;

/// The trees that are searched here (`BTRFS_*_TREE_OBJECTID`).
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
pub(super) enum Tree {
    /// The tree of tree roots: subvolumes and their names.
    Roots = 1,
    /// The tree of quota groups; absent (`ENOENT`) while quotas are off.
    Quotas = 8,
}

/// `struct btrfs_ioctl_search_key`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Key {
    tree: u64,
    object_min: u64,
    object_max: u64,
    offset_min: u64,
    offset_max: u64,
    transaction_min: u64,
    transaction_max: u64,
    type_min: u32,
    type_max: u32,
    items: u32,
    unused: u32,
    unused_more: [u64; 4],
}
const _: () = assert!(size_of::<Key>() == 104);

/// `struct btrfs_ioctl_search_args_v2` without its flexible array: what the number is made from.
#[repr(C)]
struct Head {
    key: Key,
    answer_bytes: u64,
}
const _: () = assert!(size_of::<Head>() == 112);

#[repr(C)]
struct Arguments {
    head: Head,
    answer: [u8; ANSWER_BYTES],
}
const _: () = assert!(size_of::<Arguments>() == 112 + ANSWER_BYTES);

const TREE_SEARCH_V2: Opcode = opcode::read_write::<Head>(GROUP, 17);

/// One item of a tree: the last part of its key, and its content in the disk's little-endian form.
#[derive(Debug)]
pub(super) struct Item<'a> {
    pub(super) offset: u64,
    pub(super) content: &'a [u8],
}

/// Visits every item of `object` and `item_type` whose offset lies in `first..=last`, in order.
pub(super) fn search(
    fd: BorrowedFd<'_>,
    tree: Tree,
    object: u64,
    item_type: u32,
    (first, last): (u64, u64),
    mut visit: impl FnMut(Item<'_>),
) -> io::Result<()> {
    let mut next = first;
    loop {
        let mut arguments = Arguments {
            head: Head {
                key: Key {
                    tree: tree as u64,
                    object_min: object,
                    object_max: object,
                    offset_min: next,
                    offset_max: last,
                    transaction_min: 0,
                    transaction_max: u64::MAX,
                    type_min: item_type,
                    type_max: item_type,
                    items: u32::MAX,
                    unused: 0,
                    unused_more: [0; 4],
                },
                answer_bytes: ANSWER_BYTES as u64,
            },
            answer: [0; ANSWER_BYTES],
        };
        // SAFETY: the request updates the head and writes at most `answer_bytes`, which is the
        // length of `answer`, behind it; Arguments is plain numbers.
        unsafe { control::update::<TREE_SEARCH_V2, _>(fd, &mut arguments) }?;
        let Some(greatest) = visit_answer(&arguments, &mut visit)? else {
            return Ok(());
        };
        match greatest.checked_add(1) {
            Some(following) if following <= last => next = following,
            _ => return Ok(()),
        }
    }
}

/// Visits the items of one answer and returns the greatest offset, or nothing for an empty answer.
fn visit_answer(
    arguments: &Arguments,
    visit: &mut impl FnMut(Item<'_>),
) -> io::Result<Option<u64>> {
    let mut rest: &[u8] = &arguments.answer;
    let mut greatest = None;
    for _ in 0..arguments.head.key.items {
        let truncated = || io::Error::new(io::ErrorKind::InvalidData, "a tree item is cut short");
        let (header, behind) = rest.split_at_checked(HEADER_BYTES).ok_or_else(truncated)?;
        let offset = native_u64(header, 16).ok_or_else(truncated)?;
        let length = native_u32(header, 28).ok_or_else(truncated)?;
        let length = usize::try_from(length).map_err(io::Error::other)?;
        let (content, behind) = behind.split_at_checked(length).ok_or_else(truncated)?;
        visit(Item { offset, content });
        greatest = Some(offset);
        rest = behind;
    }
    Ok(greatest)
}

/// Reads a number of a search header, which is in the machine's own byte order.
fn native_u64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn native_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Reads a number of an item, which is little-endian on the disk; what is missing reads as 0, as
/// in items written by a kernel that did not know the field.
pub(super) fn disk_u64(content: &[u8], at: usize) -> u64 {
    content
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |b| u64::from_le_bytes(*b))
}

/// As [`disk_u64`], two bytes wide.
pub(super) fn disk_u16(content: &[u8], at: usize) -> u16 {
    content
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |b| u16::from_le_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Arguments {
        let key = Key {
            tree: 0,
            object_min: 0,
            object_max: 0,
            offset_min: 0,
            offset_max: 0,
            transaction_min: 0,
            transaction_max: 0,
            type_min: 0,
            type_max: 0,
            items: 0,
            unused: 0,
            unused_more: [0; 4],
        };
        Arguments {
            head: Head {
                key,
                answer_bytes: 0,
            },
            answer: [0; ANSWER_BYTES],
        }
    }

    #[test]
    fn an_empty_answer_ends_the_search() {
        assert_eq!(
            visit_answer(&empty(), &mut |_| panic!("nothing to visit")).unwrap(),
            None
        );
    }

    #[test]
    fn items_are_taken_apart_by_their_headers() {
        let mut arguments = empty();
        arguments.head.key.items = 2;
        arguments.answer[16..24].copy_from_slice(&7_u64.to_ne_bytes());
        arguments.answer[28..32].copy_from_slice(&8_u32.to_ne_bytes());
        arguments.answer[32..40].copy_from_slice(&0x1234_u64.to_le_bytes());
        arguments.answer[40 + 16..40 + 24].copy_from_slice(&9_u64.to_ne_bytes());
        let mut seen = Vec::new();
        let greatest = visit_answer(&arguments, &mut |i| {
            seen.push((i.offset, disk_u64(i.content, 0)))
        });
        assert_eq!(greatest.unwrap(), Some(9));
        assert_eq!(seen, [(7, 0x1234), (9, 0)]);
    }

    #[test]
    fn a_length_beyond_the_buffer_is_an_error_and_no_panic() {
        let mut arguments = empty();
        arguments.head.key.items = 1;
        arguments.answer[28..32].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(visit_answer(&arguments, &mut |_| ()).is_err());
    }
}
