//! The 512-byte header of a tar member, and the pax records that extend it (POSIX.1-2017, `pax`).

use super::{Kind, Piece};
use crate::limits::SPARSE_PIECES_MAX;

/// Everything in a tar archive comes in blocks of this many bytes.
pub(super) const BLOCK: usize = 512;

/// A header whose checksum is right.
#[derive(Debug)]
pub(super) struct Block([u8; BLOCK]);

impl Block {
    /// Checks the sum over the header. Some old programs summed signed bytes.
    pub(super) fn new(bytes: [u8; BLOCK]) -> Option<Self> {
        let said = number(&bytes[148..156]).ok()?;
        let spaced = |at: usize, byte: u8| match at {
            148..156 => b' ',
            _ => byte,
        };
        let (mut unsigned, mut signed) = (0_u64, 0_i64);
        for (at, byte) in bytes.iter().enumerate() {
            let byte = spaced(at, *byte);
            unsigned += u64::from(byte);
            signed += i64::from(i8::from_ne_bytes([byte]));
        }
        (said == unsigned || i64::try_from(said) == Ok(signed)).then_some(Self(bytes))
    }

    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }

    /// What the member is; old archives mark directories by a final slash only.
    pub(super) fn member_kind(&self, name: &[u8]) -> Kind {
        match self.kind() {
            b'0' | 0 | b'7' if name.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' | b'4' => Kind::Device,
            b'5' | b'D' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'V' => Kind::Nothing,
            other => Kind::Unknown(other),
        }
    }

    pub(super) fn name(&self) -> Vec<u8> {
        let name = until_zero(&self.0[..100]);
        let prefix = until_zero(&self.0[345..500]);
        // GNU's own format keeps other things where ustar has the prefix.
        let ustar = self.0[257..263] == *b"ustar\0";
        if ustar && !prefix.is_empty() {
            [prefix, name].join(&b'/')
        } else {
            name
        }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        until_zero(&self.0[157..257])
    }

    pub(super) fn mode(&self) -> Result<u64, String> {
        number(&self.0[100..108])
    }

    pub(super) fn uid(&self) -> Result<u64, String> {
        number(&self.0[108..116])
    }

    pub(super) fn gid(&self) -> Result<u64, String> {
        number(&self.0[116..124])
    }

    pub(super) fn size(&self) -> Result<u64, String> {
        number(&self.0[124..136])
    }

    /// Times before 1970 are taken as 1970: GNU tar writes them as negative binary numbers.
    pub(super) fn mtime(&self) -> Result<i64, String> {
        let field = &self.0[136..148];
        if field[0] == 0xff {
            return Ok(0);
        }
        i64::try_from(number(field)?).map_err(|_| "a member's time is out of range".to_owned())
    }

    /// Pieces in the header of a sparse file, whether more follow, and the file's size.
    pub(super) fn sparse(&self) -> Result<(Vec<Piece>, bool, u64), String> {
        let mut pieces = Vec::new();
        add_pieces(&self.0[386..482], &mut pieces)?;
        Ok((pieces, self.0[482] != 0, number(&self.0[483..495])?))
    }
}

/// Pieces in a block that continues a sparse file's map, and whether more follow.
pub(super) fn more_pieces(bytes: &[u8; BLOCK], pieces: &mut Vec<Piece>) -> Result<bool, String> {
    add_pieces(&bytes[..504], pieces)?;
    Ok(bytes[504] != 0)
}

fn add_pieces(bytes: &[u8], pieces: &mut Vec<Piece>) -> Result<(), String> {
    for field in bytes.chunks_exact(24) {
        if field[0] == 0 {
            break;
        }
        pieces.push(Piece {
            offset: number(&field[..12])?,
            length: number(&field[12..])?,
        });
    }
    Ok(())
}

/// The bytes before the first zero.
pub(super) fn until_zero(bytes: &[u8]) -> Vec<u8> {
    bytes
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default()
        .to_vec()
}

/// A number: octal digits among spaces, or binary when the first bit is set. An empty field is 0.
fn number(field: &[u8]) -> Result<u64, String> {
    let refuse = || format!("a header has `{}` for a number", field.escape_ascii());
    if field[0] & 0x80 != 0 {
        let (head, tail) = field.split_at(field.len() - field.len().min(8));
        let head_is_empty = head.iter().all(|byte| matches!(byte, 0 | 0x80));
        let mut bytes = [0; 8];
        bytes[8 - tail.len()..].copy_from_slice(tail);
        if head.is_empty() {
            bytes[8 - tail.len()] &= 0x7f;
        }
        return head_is_empty
            .then(|| u64::from_be_bytes(bytes))
            .ok_or_else(refuse);
    }
    let text = until_zero(field);
    let text = text.trim_ascii();
    if text.is_empty() {
        return Ok(0);
    }
    let text = std::str::from_utf8(text).map_err(|_| refuse())?;
    u64::from_str_radix(text, 8).map_err(|_| refuse())
}

/// What pax records say about the next member.
#[derive(Debug, Default)]
pub(super) struct Pax {
    path: Option<Vec<u8>>,
    sparse_name: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<i64>,
    pub(super) attributes: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse_size: Option<u64>,
    pub(super) sparse_map: Option<Vec<Piece>>,
}

impl Pax {
    /// The member's name: sparse files have their real one apart.
    pub(super) fn name(&self) -> Option<Vec<u8>> {
        self.sparse_name.clone().or_else(|| self.path.clone())
    }

    /// Reads records: `LENGTH KEY=VALUE` and a line feed, the length counting all of it.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> Result<(), String> {
        let refuse = || "a pax record is malformed".to_owned();
        while !bytes.is_empty() && bytes[0] != 0 {
            let space = bytes.iter().position(|byte| *byte == b' ');
            let space = space.ok_or_else(refuse)?;
            let length = decimal(&bytes[..space])?;
            let length = usize::try_from(length).map_err(|_| refuse())?;
            if length <= space + 1 || length > bytes.len() || bytes[length - 1] != b'\n' {
                return Err(refuse());
            }
            let record = &bytes[space + 1..length - 1];
            bytes = &bytes[length..];
            let equals = record.iter().position(|byte| *byte == b'=');
            let (key, value) = record.split_at(equals.ok_or_else(refuse)?);
            self.set(key, &value[1..])?;
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(decimal(value)?),
            b"uid" => self.uid = Some(decimal(value)?),
            b"gid" => self.gid = Some(decimal(value)?),
            b"mtime" => self.mtime = Some(time(value)?),
            b"GNU.sparse.name" => self.sparse_name = Some(value.to_vec()),
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => {
                self.sparse_size = Some(decimal(value)?);
            }
            b"GNU.sparse.map" => self.sparse_map = Some(pieces(value)?),
            b"GNU.sparse.offset" => {
                return Err("it has sparse files of pax version 0.0; pack it anew".to_owned());
            }
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.attributes.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

/// `OFFSET,LENGTH,OFFSET,LENGTH...`
fn pieces(text: &[u8]) -> Result<Vec<Piece>, String> {
    let numbers: Vec<u64> = text
        .split(|byte| *byte == b',')
        .take(2 * SPARSE_PIECES_MAX)
        .map(decimal)
        .collect::<Result<_, _>>()?;
    Ok(numbers
        .chunks_exact(2)
        .map(|pair| Piece {
            offset: pair[0],
            length: pair[1],
        })
        .collect())
}

/// The map at the beginning of a sparse file's content.
#[derive(Debug, Default)]
pub(super) struct SparseMap {
    text: Vec<u8>,
    expected: Option<u64>,
    offset: Option<u64>,
    pub(super) pieces: Vec<Piece>,
}

impl SparseMap {
    /// Reads one block; whether the map is complete.
    pub(super) fn read(&mut self, bytes: &[u8; BLOCK]) -> Result<bool, String> {
        for byte in bytes {
            if *byte != b'\n' {
                self.text.push(*byte);
                if self.text.len() > 20 {
                    return Err("a sparse file's map is malformed".to_owned());
                }
                continue;
            }
            let value = decimal(&self.text)?;
            self.text.clear();
            match (self.expected, self.offset.take()) {
                (None, _) if value > SPARSE_PIECES_MAX as u64 => {
                    return Err(format!("a sparse file has over {SPARSE_PIECES_MAX} pieces"));
                }
                (None, _) => self.expected = Some(value),
                (Some(_), None) => self.offset = Some(value),
                (Some(_), Some(offset)) => self.pieces.push(Piece {
                    offset,
                    length: value,
                }),
            }
            if self.expected == Some(self.pieces.len() as u64) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn decimal(text: &[u8]) -> Result<u64, String> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| format!("a pax record has `{}` for a number", text.escape_ascii()))
}

/// Seconds, with a fraction that is left out; times before 1970 are taken as 1970.
fn time(text: &[u8]) -> Result<i64, String> {
    if text.starts_with(b"-") {
        return Ok(0);
    }
    let seconds = text.split(|byte| *byte == b'.').next().unwrap_or_default();
    i64::try_from(decimal(seconds)?).map_err(|_| "a time is out of range".to_owned())
}
