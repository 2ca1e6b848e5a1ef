//! What the kernel and a FUSE server say to each other, as bytes: `include/uapi/linux/fuse.h`.
//!
//! Only what a tree of small read-only files needs. A library was looked at first: the crate `fuser`
//! (0.18) insists on the first request of a connection being the handshake, so it cannot take over a
//! connection that another server began, and it does not know how to have requests sent again.

use rustix::io::Errno;

/// Version of the protocol that is spoken: that of Linux 6.12.
const MAJOR: u32 = 7;
const MINOR: u32 = 41;

/// Buffer for requests. The kernel wants 8,192 bytes at least (`FUSE_MIN_READ_BUFFER`).
pub(crate) const REQUEST_BYTES_MAX: usize = 16 * 1024;

const HEADER: usize = 40;

/// Sizes of an answer's header, and of what a lookup answers.
const ANSWER_HEADER: usize = 16;
const ENTRY: usize = 128;

/// Attributes are asked for of an open file.
const ATTRIBUTES_OF_OPEN: u32 = 1;

/// Opening answers: reads go to the server and not to the page cache; closing is not asked about.
const OPEN_DIRECT: u32 = 1;
const OPEN_WITHOUT_FLUSH: u32 = 1 << 5;

/// `FUSE_DO_READDIRPLUS`, `FUSE_INIT_EXT`, and of its second half `FUSE_HAS_RESEND`.
const INIT_LIST_PLUS: u32 = 1 << 13;
const INIT_EXTENDED: u32 = 1 << 30;
const INIT_HAS_RESEND: u32 = 1 << (39 - 32);

/// Largest write that is taken: none is, but the kernel wants a number.
const WRITE_BYTES_MAX: u32 = 4_096;

/// `FUSE_NOTIFY_RESEND`: send again what was read by a server and not answered.
const NOTIFY_RESEND: i32 = 7;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Names it in its answer.
    pub(crate) unique: u64,
    /// What it is about.
    pub(crate) node: u64,
    /// What is asked.
    pub(crate) operation: Operation,
}

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// The handshake: the kernel's major version.
    Init { major: u32 },
    /// Finds a name in a folder.
    Lookup { name: Vec<u8> },
    /// Asks for attributes. Of an open file only lseek(2) does, to find its end.
    Attributes { handle: Option<u64> },
    /// Opens a file, with open(2)'s flags.
    Open { flags: u32 },
    /// Opens a folder.
    OpenFolder,
    /// Reads an open file.
    Read { handle: u64, offset: u64, size: u32 },
    /// Lists a folder from a place on.
    List { offset: u64, size: u32 },
    /// Lists it as if everything in it were looked up, too.
    ListPlus { offset: u64, size: u32 },
    /// Closes a file.
    Release { handle: u64 },
    /// Closes a folder.
    ReleaseFolder,
    /// Asks for the size of the file system.
    FileSystem,
    /// Looks for data or for a hole: files of `/proc` refuse it.
    Seek,
    /// Somebody who waits for another request was interrupted.
    Interrupt,
    /// The kernel forgets something: not answered.
    Forget,
    /// The file system is gone.
    Destroy,
    /// Anything else is not known here.
    Other,
}

impl Request {
    /// Reads a request. Nothing for bytes that are none, which the kernel does not send.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let length = usize::try_from(word(bytes, 0)?).ok()?;
        if length != bytes.len() || length < HEADER {
            return None;
        }
        let body = bytes.get(HEADER..)?;
        let operation = match word(bytes, 4)? {
            1 => Operation::Lookup {
                name: body.split(|byte| *byte == 0).next()?.to_vec(),
            },
            2 | 42 => Operation::Forget,
            3 => Operation::Attributes {
                handle: match word(body, 0)? & ATTRIBUTES_OF_OPEN {
                    0 => None,
                    _ => Some(long(body, 8)?),
                },
            },
            14 => Operation::Open {
                flags: word(body, 0)?,
            },
            15 => Operation::Read {
                handle: long(body, 0)?,
                offset: long(body, 8)?,
                size: word(body, 16)?,
            },
            17 => Operation::FileSystem,
            18 => Operation::Release {
                handle: long(body, 0)?,
            },
            26 => Operation::Init {
                major: word(body, 0)?,
            },
            27 => Operation::OpenFolder,
            28 => Operation::List {
                offset: long(body, 8)?,
                size: word(body, 16)?,
            },
            29 => Operation::ReleaseFolder,
            44 => Operation::ListPlus {
                offset: long(body, 8)?,
                size: word(body, 16)?,
            },
            36 => Operation::Interrupt,
            38 => Operation::Destroy,
            46 => Operation::Seek,
            _ => Operation::Other,
        };
        Some(Self {
            unique: long(bytes, 8)?,
            node: long(bytes, 16)?,
            operation,
        })
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// What a file or folder looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// Its number.
    pub(crate) number: u64,
    /// Whether it is a folder.
    pub(crate) folder: bool,
    /// Its length: a guess that is a power of two, unless its end was asked for.
    pub(crate) size: u64,
    /// When it changed, in seconds since 1970.
    pub(crate) time: u64,
    /// For how many seconds the kernel may believe its name, and that it is there.
    pub(crate) name_lifetime: u64,
    /// For how many seconds it may believe the rest.
    pub(crate) lifetime: u64,
}

impl Attributes {
    /// Who reads the last bytes believes a length of one block to be a guess, as it is.
    fn block_size(&self) -> u32 {
        let size = u32::try_from(self.size).unwrap_or(1 << 31);
        size.next_power_of_two().max(4_096)
    }
}

/// An answer in the making.
#[derive(Clone, Debug)]
pub(crate) struct Answer(Vec<u8>);

impl Answer {
    fn new(unique: u64) -> Self {
        Self::with_code(unique, 0)
    }

    fn with_code(unique: u64, code: i32) -> Self {
        // The length is filled in at the end.
        Self(vec![0; 4]).signed(code).long(unique)
    }

    fn word(mut self, value: u32) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn signed(mut self, value: i32) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn long(mut self, value: u64) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn zeros(mut self, count: usize) -> Self {
        self.0.extend(std::iter::repeat_n(0, count));
        self
    }

    /// The bytes to be written to the kernel, in one piece.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }

    /// Refuses.
    pub(crate) fn refusal(unique: u64, errno: Errno) -> Self {
        Self::with_code(unique, -errno.raw_os_error())
    }

    /// Agrees, with nothing to say.
    pub(crate) fn empty(unique: u64) -> Self {
        Self::new(unique)
    }

    /// Asks the kernel to send again what a server before this one did not answer.
    pub(crate) fn resend() -> Self {
        Self::with_code(0, NOTIFY_RESEND)
    }

    /// Answers the handshake.
    pub(crate) fn init(unique: u64) -> Self {
        Self::new(unique)
            .word(MAJOR)
            .word(MINOR)
            // No read-ahead: every read is answered for itself.
            .word(0)
            .word(INIT_EXTENDED | INIT_LIST_PLUS)
            // The kernel's own numbers of requests in the background.
            .zeros(4)
            .word(WRITE_BYTES_MAX)
            // Times are whole seconds.
            .word(1_000_000_000)
            .zeros(4)
            .word(INIT_HAS_RESEND)
            .zeros(28)
    }

    /// Names what a lookup found.
    pub(crate) fn entry(unique: u64, attributes: &Attributes) -> Self {
        Self::new(unique)
            .long(attributes.number)
            // Generation.
            .long(0)
            .long(attributes.name_lifetime)
            .long(attributes.lifetime)
            // Nanoseconds of both.
            .zeros(2 * 4)
            .attributes(attributes)
    }

    /// Tells attributes.
    pub(crate) fn of_attributes(unique: u64, attributes: &Attributes) -> Self {
        Self::new(unique)
            .long(attributes.lifetime)
            // Nanoseconds.
            .zeros(8)
            .attributes(attributes)
    }

    fn attributes(self, attributes: &Attributes) -> Self {
        const FOLDER: u32 = 0o040_555;
        const FILE: u32 = 0o100_444;
        let folder = attributes.folder;
        self.long(attributes.number)
            .long(attributes.size)
            // Blocks of 512 bytes: with fewer `cp` would look for holes.
            .long(attributes.size.div_ceil(512))
            .long(attributes.time)
            .long(attributes.time)
            .long(attributes.time)
            .zeros(12)
            .word(if folder { FOLDER } else { FILE })
            .word(if folder { 2 } else { 1 })
            // Owner and group are the node's root, as those of the kernel's own files; device.
            .zeros(12)
            .word(attributes.block_size())
            .zeros(4)
    }

    /// Hands out a handle for an open file.
    pub(crate) fn opened(unique: u64, handle: u64) -> Self {
        Self::new(unique)
            .long(handle)
            .word(OPEN_DIRECT | OPEN_WITHOUT_FLUSH)
            .zeros(4)
    }

    /// Hands out a handle for an open folder.
    pub(crate) fn opened_folder(unique: u64) -> Self {
        Self::new(unique).zeros(16)
    }

    /// Data that was read.
    pub(crate) fn data(unique: u64, data: &[u8]) -> Self {
        let mut answer = Self::new(unique);
        answer.0.extend(data);
        answer
    }

    /// Tells the size of the file system: none.
    pub(crate) fn file_system(unique: u64) -> Self {
        // Blocks, free, available, files, free files; block size, longest name, fragment size.
        Self::new(unique)
            .zeros(5 * 8)
            .word(4_096)
            .word(255)
            .word(4_096)
            .zeros(4 + 6 * 4)
    }
}

/// An entry of a folder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    /// What it looks like.
    pub(crate) attributes: Attributes,
    /// The place of its successor.
    pub(crate) next: u64,
    /// Its name.
    pub(crate) name: &'a str,
}

/// Entries of a folder as the kernel wants them, as many as fit.
#[derive(Clone, Debug)]
pub(crate) struct Entries {
    bytes: Vec<u8>,
    room: usize,
}

impl Entries {
    /// None yet, with room for so many bytes.
    pub(crate) fn new(room: u32) -> Self {
        Self {
            bytes: Vec::new(),
            room: usize::try_from(room).unwrap_or(usize::MAX),
        }
    }

    /// Adds an entry as if it had been looked up, but for `.` and `..`. False when it does not fit.
    pub(crate) fn add_plus(&mut self, entry: &Entry<'_>) -> bool {
        let before = self.bytes.len();
        if entry.name == "." || entry.name == ".." {
            self.bytes.resize(before + ENTRY, 0);
        } else {
            let answer = Answer::entry(0, &entry.attributes).0;
            self.bytes.extend(answer.iter().skip(ANSWER_HEADER));
        }
        let fits = self.add(entry);
        if !fits {
            self.bytes.truncate(before);
        }
        fits
    }

    /// Adds an entry. False when it does not fit.
    pub(crate) fn add(&mut self, entry: &Entry<'_>) -> bool {
        const FOLDER: u32 = 4;
        const FILE: u32 = 8;
        let length = (24 + entry.name.len()).next_multiple_of(8);
        if self.bytes.len() + length > self.room {
            return false;
        }
        let end = self.bytes.len() + length;
        self.bytes.extend(entry.attributes.number.to_ne_bytes());
        self.bytes.extend(entry.next.to_ne_bytes());
        let name_length = u32::try_from(entry.name.len()).unwrap_or(u32::MAX);
        self.bytes.extend(name_length.to_ne_bytes());
        let kind = if entry.attributes.folder {
            FOLDER
        } else {
            FILE
        };
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(entry.name.bytes());
        self.bytes.resize(end, 0);
        true
    }

    /// What there is.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(opcode: u32, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + body.len()).unwrap();
        let mut bytes = Vec::new();
        bytes.extend(length.to_ne_bytes());
        bytes.extend(opcode.to_ne_bytes());
        bytes.extend(9_u64.to_ne_bytes());
        bytes.extend(5_u64.to_ne_bytes());
        bytes.resize(HEADER, 0);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn reads_what_the_kernel_asks() {
        let lookup = Request::parse(&request(1, b"meminfo\0")).unwrap();
        assert_eq!((lookup.unique, lookup.node), (9, 5));
        let name = b"meminfo".to_vec();
        assert_eq!(lookup.operation, Operation::Lookup { name });
        let mut body = Vec::new();
        body.extend(7_u64.to_ne_bytes());
        body.extend(u64::MAX.to_ne_bytes());
        body.extend(4_096_u32.to_ne_bytes());
        body.resize(40, 0);
        let (handle, offset, size) = (7, u64::MAX, 4_096);
        assert_eq!(
            Request::parse(&request(15, &body)).unwrap().operation,
            Operation::Read {
                handle,
                offset,
                size
            }
        );
        assert_eq!(
            Request::parse(&request(16, &body)).unwrap().operation,
            Operation::Other
        );
        assert_eq!(Request::parse(&request(15, &[0; 4])), None);
        let mut body = [0; 16];
        let asked = |body: &[u8]| Request::parse(&request(3, body)).unwrap().operation;
        assert_eq!(asked(&body), Operation::Attributes { handle: None });
        (body[0], body[8]) = (1, 7);
        assert_eq!(asked(&body), Operation::Attributes { handle: Some(7) });
    }

    /// Sizes of the kernel's structures, with the header of 16 bytes.
    #[test]
    fn answers_have_the_sizes_that_the_kernel_checks() {
        let attributes = Attributes {
            number: 1,
            folder: true,
            size: 0,
            time: 0,
            name_lifetime: 0,
            lifetime: 0,
        };
        for (answer, size) in [
            (Answer::init(1), 64),
            (Answer::entry(1, &attributes), 128),
            (Answer::of_attributes(1, &attributes), 104),
            (Answer::opened(1, 2), 16),
            (Answer::opened_folder(1), 16),
            (Answer::file_system(1), 80),
            (Answer::refusal(1, Errno::NOENT), 0),
            (Answer::resend(), 0),
        ] {
            let bytes = answer.finish();
            assert_eq!(bytes.len(), 16 + size);
            assert_eq!(
                usize::try_from(word(&bytes, 0).unwrap()).unwrap(),
                bytes.len()
            );
        }
        let refused = Answer::refusal(3, Errno::NOENT).finish();
        assert_eq!(
            (word(&refused, 4), long(&refused, 8)),
            (Some((-2_i32).cast_unsigned()), Some(3))
        );
    }

    fn entry(next: u64, name: &str) -> Entry<'_> {
        let attributes = Attributes {
            number: 77,
            folder: name.starts_with('.'),
            size: 4_096,
            time: 0,
            name_lifetime: 9,
            lifetime: 0,
        };
        Entry {
            attributes,
            next,
            name,
        }
    }

    /// `struct fuse_direntplus`.
    #[test]
    fn entries_with_attributes_are_whole_or_not_there() {
        let mut entries = Entries::new(320);
        assert!(entries.add_plus(&entry(1, ".")));
        assert_eq!(long(entries.bytes(), 0), Some(0));
        assert_eq!(entries.bytes().len(), 160);
        assert!(entries.add_plus(&entry(2, "stat")));
        assert_eq!(long(entries.bytes(), 160), Some(77));
        assert_eq!(long(entries.bytes(), 160 + 16), Some(9));
        assert_eq!(long(entries.bytes(), 160 + 128), Some(77));
        assert!(!entries.add_plus(&entry(3, "swaps")));
        assert_eq!(entries.bytes().len(), 320);
    }

    #[test]
    fn entries_stop_where_the_room_ends() {
        let mut entries = Entries::new(64);
        assert!(entries.add(&entry(1, ".")));
        assert!(entries.add(&entry(2, "online")));
        assert!(!entries.add(&entry(3, "offline")));
        assert_eq!(entries.bytes().len(), 64);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(opcode in 0_u32..60, body in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Request::parse(&request(opcode, &body));
            let _ = Request::parse(&body);
        }
    }
}
