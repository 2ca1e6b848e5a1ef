//! Counters in sets of the packet filter, asked of the kernel itself.
//!
//! `nft` reads the same, and takes 20 ms of a processor for it with 1,000 VEs, most of them to load its libraries and
//! to write what we would parse. What is asked for here is little: the comment of a table, and the elements of a set with
//! their counters, as `linux/netfilter/nf_tables.h` has them.
//!
//! ```text
//! nlmsghdr | nfgenmsg | attributes: NEWSETELEM { ELEMENTS [ LIST_ELEM { KEY { VALUE }, EXPR { NAME, DATA { BYTES, PACKETS } } } ] }
//! ```
//!
//! All numbers of counters are big-endian, and keys of interfaces are in the machine's own order.

use std::io;
use std::os::fd::OwnedFd;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NlaBuffer, NlasIterator};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::NftError;

/// Large enough for any part of a dump: the kernel fills at most 32 KiB of a larger buffer.
const RECEIVE_BYTES: usize = 64 * 1024;
/// How often a dump is repeated that others' changes of the filter disturbed.
const DUMP_ATTEMPTS: usize = 5;

const HEADER_BYTES: usize = 16;
/// `struct nfgenmsg`.
const FAMILY_BYTES: usize = 4;
/// `NFPROTO_INET`.
const INET: u8 = 1;

/// `NLMSG_ERROR` and `NLMSG_DONE`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `NFNL_SUBSYS_NFTABLES`, in the upper byte of a message's type.
const TABLES: u16 = 10 << 8;
const NEW_TABLE: u16 = TABLES;
const GET_TABLE: u16 = TABLES | 1;
const NEW_SET_ELEMENT: u16 = TABLES | 12;
const GET_SET_ELEMENT: u16 = TABLES | 13;

/// `NFTA_*`, which each kind of message counts for itself.
mod attribute {
    pub(super) const TABLE_NAME: u16 = 1;
    pub(super) const TABLE_USER_DATA: u16 = 6;
    pub(super) const LIST_TABLE: u16 = 1;
    pub(super) const LIST_SET: u16 = 2;
    pub(super) const LIST_ELEMENTS: u16 = 3;
    pub(super) const ELEMENT_KEY: u16 = 1;
    pub(super) const ELEMENT_EXPRESSION: u16 = 7;
    pub(super) const DATA_VALUE: u16 = 1;
    pub(super) const EXPRESSION_DATA: u16 = 2;
    pub(super) const COUNTER_BYTES: u16 = 1;
    pub(super) const COUNTER_PACKETS: u16 = 2;
}

/// What `nft` calls a table's comment, among the user data that the kernel keeps for it: type, length, text.
const USER_DATA_COMMENT: u8 = 0;

/// An element of a set and its counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Its key, of four bytes.
    pub(crate) key: u32,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

/// A connection to the packet filter of the network namespace of the thread that made it.
#[derive(Debug)]
pub(crate) struct Filter {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Filter {
    pub(crate) fn open() -> Result<Self, NftError> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(rustix::net::netlink::NETFILTER),
        );
        Ok(Self {
            socket: socket.map_err(|errno| failed("open a socket to it", errno.into()))?,
            sequence: 0,
            buffer: vec![0; RECEIVE_BYTES],
        })
    }

    /// The comment of a table of the family `inet`, empty where it has none; nothing where there is no such table.
    pub(crate) fn table_comment(&mut self, table: &str) -> Result<Option<String>, NftError> {
        let mut comment = String::new();
        let names = [(attribute::TABLE_NAME, table)];
        // One table is one message, without an end behind it.
        let asked = self.ask(GET_TABLE, 0, &names, |kind, attributes| {
            if kind == NEW_TABLE
                && let Some(data) = find(attributes, attribute::TABLE_USER_DATA)
            {
                comment = comment_in(data).unwrap_or_default();
            }
        });
        match asked {
            Ok(_) => Ok(Some(comment)),
            Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => Ok(None),
            Err(error) => Err(failed("find a table", error)),
        }
    }

    /// The elements of a set of a table of the family `inet`, in no order. An element that others add or remove
    /// meanwhile is there or not.
    pub(crate) fn counters(&mut self, table: &str, set: &str) -> Result<Vec<Counted>, NftError> {
        let names = [(attribute::LIST_TABLE, table), (attribute::LIST_SET, set)];
        let mut found = Vec::new();
        for _ in 0..DUMP_ATTEMPTS {
            found.clear();
            let asked = self.ask(GET_SET_ELEMENT, NLM_F_DUMP, &names, |kind, attributes| {
                if kind == NEW_SET_ELEMENT
                    && let Some(list) = find(attributes, attribute::LIST_ELEMENTS)
                {
                    found.extend(each(list).filter_map(|element| counted(element.value())));
                }
            });
            if asked.map_err(|error| failed("list a set", error))? {
                break;
            }
        }
        Ok(found)
    }

    /// Sends one request and visits the attributes of all answers. Answers whether they are consistent.
    fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        names: &[(u16, &str)],
        mut visit: impl FnMut(u16, &[u8]),
    ) -> io::Result<bool> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request(kind, NLM_F_REQUEST | flags, self.sequence, names);
        let socket = &self.socket;
        rustix::io::retry_on_intr(|| rustix::net::send(socket, &request, SendFlags::empty()))?;
        let mut consistent = true;
        loop {
            let buffer = self.buffer.as_mut_slice();
            let receive = || rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::empty());
            let (length, _) = rustix::io::retry_on_intr(receive)?;
            let mut rest = self.buffer.get(..length).unwrap_or_default();
            while !rest.is_empty() {
                let (message, behind) = Message::split(rest)?;
                rest = behind;
                if message.sequence != self.sequence {
                    continue;
                }
                consistent &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    DONE | ERROR => return message.outcome().map(|()| consistent),
                    kind => visit(kind, message.body.get(FAMILY_BYTES..).unwrap_or_default()),
                }
                if flags & NLM_F_DUMP == 0 {
                    return Ok(consistent);
                }
            }
        }
    }
}

/// One message of the kernel's.
struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

impl<'a> Message<'a> {
    /// Takes the first message off.
    fn split(bytes: &'a [u8]) -> io::Result<(Self, &'a [u8])> {
        let cut = || io::Error::new(io::ErrorKind::InvalidData, "an answer is cut short");
        let (header, _) = bytes.split_at_checked(HEADER_BYTES).ok_or_else(cut)?;
        let long = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
        let short = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
        let length = usize::try_from(u32::from_ne_bytes(long(0))).unwrap_or(usize::MAX);
        let body = bytes.get(HEADER_BYTES..length).ok_or_else(cut)?;
        let message = Self {
            kind: short(4),
            flags: short(6),
            sequence: u32::from_ne_bytes(long(8)),
            body,
        };
        // Messages are aligned to four bytes; the last one may lack its padding.
        Ok((
            message,
            bytes.get(length.next_multiple_of(4)..).unwrap_or_default(),
        ))
    }

    /// What an end or an acknowledgement says.
    fn outcome(&self) -> io::Result<()> {
        let code = self
            .body
            .first_chunk()
            .map_or(0, |code| i32::from_ne_bytes(*code));
        match code {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        }
    }
}

fn failed(action: &'static str, source: io::Error) -> NftError {
    NftError::Kernel { action, source }
}

fn request(kind: u16, flags: u16, sequence: u32, names: &[(u16, &str)]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes.extend([INET, 0, 0, 0]);
    for (attribute, name) in names {
        // Header, text, and the end of the text. Names have at most 255 bytes.
        let length = u16::try_from(4 + name.len() + 1).unwrap_or(u16::MAX);
        bytes.extend(length.to_ne_bytes());
        bytes.extend(attribute.to_ne_bytes());
        bytes.extend(name.as_bytes());
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    bytes[0..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
    bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
    bytes
}

/// The attributes of a list, as far as they make sense.
fn each(list: &[u8]) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(list).map_while(Result::ok)
}

fn find(list: &[u8], kind: u16) -> Option<&[u8]> {
    let mut rest = list;
    // By hand, as what is found is to outlive the iterator.
    while let Some((header, _)) = rest.split_at_checked(4) {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        // The upper two bits say how the content is written.
        let found = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        if found == kind {
            return rest.get(4..length);
        }
        rest = rest.get(length.max(4).next_multiple_of(4)..)?;
    }
    None
}

/// Reads one element; nothing where it has no counter.
fn counted(element: &[u8]) -> Option<Counted> {
    let key = find(
        find(element, attribute::ELEMENT_KEY)?,
        attribute::DATA_VALUE,
    )?;
    let expression = find(element, attribute::ELEMENT_EXPRESSION)?;
    let counter = find(expression, attribute::EXPRESSION_DATA)?;
    let number = |kind| Some(u64::from_be_bytes(*find(counter, kind)?.first_chunk()?));
    Some(Counted {
        key: u32::from_ne_bytes(*key.first_chunk()?),
        packets: number(attribute::COUNTER_PACKETS)?,
        bytes: number(attribute::COUNTER_BYTES)?,
    })
}

fn comment_in(user_data: &[u8]) -> Option<String> {
    let mut rest = user_data;
    while let [kind, length, behind @ ..] = rest {
        let (text, behind) = behind.split_at_checked(usize::from(*length))?;
        if *kind == USER_DATA_COMMENT {
            let text = text.strip_suffix(&[0]).unwrap_or(text);
            return String::from_utf8(text.to_vec()).ok();
        }
        rest = behind;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(kind: u16, content: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(content.len() + 4)
            .unwrap()
            .to_ne_bytes()
            .to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn an_element_is_its_key_and_its_counter() {
        let counter = [put(2, &5_u64.to_be_bytes()), put(1, &420_u64.to_be_bytes())].concat();
        let expression = [put(1, b"counter\0"), put(0x8002, &counter)].concat();
        let key = put(0x8001, &put(1, &77_u32.to_ne_bytes()));
        let element = [key.clone(), put(0x8007, &expression)].concat();
        let wanted = Counted {
            key: 77,
            packets: 5,
            bytes: 420,
        };
        assert_eq!(counted(&element), Some(wanted));
        assert_eq!(counted(&key), None, "without a counter");
        for length in 0..element.len() {
            // Cut short anywhere it is nothing, and no panic.
            assert_eq!(counted(&element[..length]), None, "{length}");
        }
    }

    #[test]
    fn a_comment_is_found_among_user_data() {
        assert_eq!(
            comment_in(b"\x07\x01x\x00\x04abc\0"),
            Some("abc".to_owned())
        );
        assert_eq!(comment_in(b"\x00\x09abc\0"), None);
        assert_eq!(comment_in(b""), None);
    }

    #[test]
    fn messages_are_split_by_their_length() {
        let two = [
            request(NEW_TABLE, 0, 1, &[(1, "a")]),
            request(DONE, 0, 2, &[]),
        ]
        .concat();
        let (first, rest) = Message::split(&two).unwrap();
        assert_eq!((first.kind, first.sequence), (NEW_TABLE, 1));
        assert_eq!(find(&first.body[FAMILY_BYTES..], 1), Some(&b"a\0"[..]));
        let (second, rest) = Message::split(rest).unwrap();
        assert_eq!((second.kind, rest), (DONE, &[][..]));
        assert!(Message::split(&two[..12]).is_err());
    }
}
