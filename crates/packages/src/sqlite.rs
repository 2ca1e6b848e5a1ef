//! Reading the rows of one table out of the bytes of an SQLite database.
//!
//! The plain way is SQLite itself. It reads hostile files well, but it is C in the daemon, it runs what
//! the file's own schema says, and a tree whose pages point at each other can keep it busy for hours. This reads
//! the tables of <https://www.sqlite.org/fileformat.html> and nothing else: no index, no view, no trigger;
//! each page is visited once, so time and memory are bounded by the file's size.
//!
//! What lies in a write-ahead log (`-wal`) beside the file is not seen. rpm folds it in at the end of every
//! transaction.

use std::collections::BTreeSet;

/// The file's beginning (section 1.3).
const MAGIC: &[u8] = b"SQLite format 3\0";
const HEADER_BYTES: usize = 100;
/// Kinds of pages of a table's tree (section 1.6).
const INNER: u8 = 5;
const LEAF: u8 = 13;
/// Pages below each other; SQLite itself stops at 20 (`BTCURSOR_MAX_DEPTH`).
const DEPTH_MAX: usize = 20;
/// Columns looked at of one row; `sqlite_schema` has five.
const COLUMNS_MAX: usize = 16;

/// A database that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDatabase {
    /// It is something else.
    #[error("it is no SQLite database")]
    Magic,
    /// A part lies beyond the end, or points where nothing of its kind is.
    #[error("the database is damaged")]
    Damaged,
    /// The table is missing.
    #[error("the database has no table of packages")]
    NoTable,
}

/// A value of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// Anything that is no whole number, text or blob.
    Other,
    Integer(i64),
    Bytes(&'a [u8]),
}

/// A database in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Database<'a> {
    bytes: &'a [u8],
    page_bytes: usize,
    /// Of each page, without what is reserved at its end.
    usable: usize,
}

/// Where a walk is.
struct Walk {
    seen: BTreeSet<usize>,
    payload: Vec<u8>,
}

impl<'a> Database<'a> {
    /// Looks at the header.
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, InvalidDatabase> {
        let header = bytes.get(..HEADER_BYTES).ok_or(InvalidDatabase::Magic)?;
        if !header.starts_with(MAGIC) {
            return Err(InvalidDatabase::Magic);
        }
        let page_bytes = match u16::from_be_bytes([header[16], header[17]]) {
            1 => 65_536,
            size => usize::from(size),
        };
        let usable = page_bytes.saturating_sub(usize::from(header[20]));
        // The smallest that the format allows, so that what is computed below never underflows.
        if !page_bytes.is_power_of_two() || usable < 480 {
            return Err(InvalidDatabase::Damaged);
        }
        Ok(Self {
            bytes,
            page_bytes,
            usable,
        })
    }

    /// Calls `row` with the columns of every row of a table, until it says that this is enough.
    pub(crate) fn rows(
        self,
        table: &str,
        mut row: impl FnMut(&[Value<'_>]) -> bool,
    ) -> Result<(), InvalidDatabase> {
        let mut root = None;
        self.walk(1, &mut |columns| {
            if let [kind, name, _, Value::Integer(page), ..] = columns
                && *kind == Value::Bytes(b"table")
                && *name == Value::Bytes(table.as_bytes())
            {
                root = usize::try_from(*page).ok();
            }
            root.is_none()
        })?;
        self.walk(root.ok_or(InvalidDatabase::NoTable)?, &mut row)
    }

    fn walk(
        self,
        root: usize,
        row: &mut dyn FnMut(&[Value<'_>]) -> bool,
    ) -> Result<(), InvalidDatabase> {
        let mut walk = Walk {
            seen: BTreeSet::new(),
            payload: Vec::new(),
        };
        self.page(root, 0, &mut walk, row).map(drop)
    }

    /// Visits a page and all below it; whether to go on.
    fn page(
        self,
        number: usize,
        depth: usize,
        walk: &mut Walk,
        row: &mut dyn FnMut(&[Value<'_>]) -> bool,
    ) -> Result<bool, InvalidDatabase> {
        if depth > DEPTH_MAX || !walk.seen.insert(number) {
            return Err(InvalidDatabase::Damaged);
        }
        let page = self.page_at(number)?;
        let header = if number == 1 { HEADER_BYTES } else { 0 };
        let kind = byte(page, header)?;
        let cells = usize::from(u16_at(page, header + 3)?);
        let pointers = header + if kind == INNER { 12 } else { 8 };
        for cell in 0..cells {
            let at = usize::from(u16_at(page, pointers + 2 * cell)?);
            let more = match kind {
                INNER => self.page(page_number(page, at)?, depth + 1, walk, row)?,
                LEAF => {
                    self.payload(page, at, walk)?;
                    row(&columns(&walk.payload)?)
                }
                _ => return Err(InvalidDatabase::Damaged),
            };
            if !more {
                return Ok(false);
            }
        }
        match kind {
            INNER => self.page(page_number(page, header + 8)?, depth + 1, walk, row),
            _ => Ok(true),
        }
    }

    fn page_at(self, number: usize) -> Result<&'a [u8], InvalidDatabase> {
        let begin = number
            .checked_sub(1)
            .and_then(|n| n.checked_mul(self.page_bytes));
        begin
            .and_then(|begin| self.bytes.get(begin..begin.checked_add(self.usable)?))
            .ok_or(InvalidDatabase::Damaged)
    }

    /// Puts a leaf's cell together, with what does not fit into its page (section 1.6, "overflow").
    fn payload(self, page: &[u8], at: usize, walk: &mut Walk) -> Result<(), InvalidDatabase> {
        let (length, at) = varint(page, at)?;
        let (_, at) = varint(page, at)?;
        // More than the whole file holds is a lie that must not be allocated.
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= self.bytes.len())
            .ok_or(InvalidDatabase::Damaged)?;
        let local = self.local(length);
        let begin = page.get(at..at + local).ok_or(InvalidDatabase::Damaged)?;
        walk.payload.clear();
        walk.payload.extend_from_slice(begin);
        if local == length {
            return Ok(());
        }
        let mut next = page_number(page, at + local)?;
        while walk.payload.len() < length {
            if !walk.seen.insert(next) {
                return Err(InvalidDatabase::Damaged);
            }
            let page = self.page_at(next)?;
            let wanted = (length - walk.payload.len()).min(self.usable - 4);
            walk.payload.extend_from_slice(&page[4..4 + wanted]);
            next = page_number(page, 0)?;
        }
        Ok(())
    }

    /// How many bytes of a payload lie in the leaf itself.
    fn local(self, length: usize) -> usize {
        let most = self.usable - 35;
        if length <= most {
            return length;
        }
        let least = (self.usable - 12) * 32 / 255 - 23;
        let kept = least + (length - least) % (self.usable - 4);
        if kept <= most { kept } else { least }
    }
}

/// The columns of a record (section 2.1).
fn columns(record: &[u8]) -> Result<Vec<Value<'_>>, InvalidDatabase> {
    let (header, mut at) = varint(record, 0)?;
    let header = usize::try_from(header).map_err(|_| InvalidDatabase::Damaged)?;
    let mut content = header;
    let mut columns = Vec::new();
    while at < header && columns.len() < COLUMNS_MAX {
        let (kind, next) = varint(record, at)?;
        at = next;
        let length = match kind {
            0 | 8 | 9 => 0,
            1..=4 => usize::try_from(kind).unwrap_or(0),
            5 => 6,
            6 | 7 => 8,
            10 | 11 => return Err(InvalidDatabase::Damaged),
            _ => usize::try_from((kind - 12) / 2).map_err(|_| InvalidDatabase::Damaged)?,
        };
        let end = content
            .checked_add(length)
            .ok_or(InvalidDatabase::Damaged)?;
        let bytes = record.get(content..end).ok_or(InvalidDatabase::Damaged)?;
        content = end;
        columns.push(match kind {
            1..=6 => Value::Integer(integer(bytes)),
            8 => Value::Integer(0),
            9 => Value::Integer(1),
            12.. => Value::Bytes(bytes),
            _ => Value::Other,
        });
    }
    Ok(columns)
}

/// A big-endian number of up to eight bytes, with its sign.
fn integer(bytes: &[u8]) -> i64 {
    let negative = bytes.first().is_some_and(|first| *first >= 0x80);
    let begin = if negative { -1 } else { 0 };
    bytes
        .iter()
        .fold(begin, |value, byte| (value << 8) | i64::from(*byte))
}

/// A number of one to nine bytes (section 1.6, "varint"), and where it ends.
fn varint(bytes: &[u8], at: usize) -> Result<(u64, usize), InvalidDatabase> {
    let mut value = 0;
    for index in 0..9 {
        let next = byte(bytes, at + index)?;
        if index == 8 {
            return Ok(((value << 8) | u64::from(next), at + 9));
        }
        value = (value << 7) | u64::from(next & 0x7f);
        if next < 0x80 {
            return Ok((value, at + index + 1));
        }
    }
    Err(InvalidDatabase::Damaged)
}

fn byte(bytes: &[u8], at: usize) -> Result<u8, InvalidDatabase> {
    bytes.get(at).copied().ok_or(InvalidDatabase::Damaged)
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, InvalidDatabase> {
    Ok(u16::from_be_bytes([byte(bytes, at)?, byte(bytes, at + 1)?]))
}

fn page_number(bytes: &[u8], at: usize) -> Result<usize, InvalidDatabase> {
    let high = usize::from(u16_at(bytes, at)?);
    Ok(high << 16 | usize::from(u16_at(bytes, at + 2)?))
}
