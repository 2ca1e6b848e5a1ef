//! Reading a tar stream, member by member.
//!
//! Understood: the old format, ustar, GNU (long names, sparse files) and pax (paths, times, ids,
//! attributes, sparse files of GNU's versions 0.1 and 1.0), which is what GNU tar, mmdebstrap, LXC,
//! Incus and container engines write.
//!
//! The crate `tar` is used to write archives in tests, but not to read them: it reads extension
//! records (long names, attributes) into memory whatever their length, so a kilobyte of compressed
//! zeros could take all memory. Here each record has a limit.

use std::io::{self, Read};

use crate::limits::{ARCHIVE_HEADERS_MAX, EXTENSION_BYTES_MAX, SPARSE_PIECES_MAX};

mod header;
#[cfg(test)]
mod tests;

use header::{BLOCK, Block, Pax};

/// Why a stream cannot be read on.
#[derive(Debug)]
pub(crate) enum TarError {
    /// The input failed.
    Read(io::Error),
    /// The stream is no tar archive, or is cut off, or breaks a limit.
    Damaged(String),
}

impl From<io::Error> for TarError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Damaged("it ends in the middle".to_owned()),
            _ => Self::Read(error),
        }
    }
}

fn damaged<T>(what: impl Into<String>) -> Result<T, TarError> {
    Err(TarError::Damaged(what.into()))
}

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    Device,
    Directory,
    Fifo,
    /// Nothing that belongs in a tree (volume labels).
    Nothing,
    Unknown(u8),
}

/// One member. Its content follows from [`TarReader::content`].
#[derive(Debug)]
pub(crate) struct Member {
    pub name: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: Kind,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: i64,
    /// Bytes of the content, holes of sparse files included.
    pub size: u64,
    pub attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A piece of a sparse file that is stored: where it begins and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    offset: u64,
    length: u64,
}

/// What has to be there after the last member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The end mark. Without it nobody can tell a whole archive from one cut off between members.
    Mark,
    /// The end of the stream will do: it is checked by a digest.
    Stream,
}

/// Reads one archive.
#[derive(Debug)]
pub(crate) struct TarReader<R> {
    input: R,
    end: End,
    headers: u64,
    /// Stored bytes of the current member not read yet, and the padding after them.
    stored: u64,
    padding: u64,
    /// Logical size and position of the current member, and its pieces if it is sparse.
    size: u64,
    position: u64,
    pieces: Option<Vec<Piece>>,
}

impl<R: Read> TarReader<R> {
    /// Begins to read.
    pub(crate) fn new(input: R, end: End) -> Self {
        Self {
            input,
            end,
            headers: 0,
            stored: 0,
            padding: 0,
            size: 0,
            position: 0,
            pieces: None,
        }
    }

    /// The next member, or `None` after the last.
    pub(crate) fn next(&mut self) -> Result<Option<Member>, TarError> {
        self.skip_content()?;
        let mut pax = Pax::default();
        let (mut long_name, mut long_link) = (None, None);
        loop {
            let Some(block) = self.block()? else {
                return Ok(None);
            };
            let size = block.size().map_err(TarError::Damaged)?;
            match block.kind() {
                b'x' | b'X' => {
                    let bytes = self.extension(size)?;
                    pax.read(&bytes).map_err(TarError::Damaged)?;
                }
                b'g' => self.skip(padded(size)?)?,
                b'L' => long_name = Some(header::until_zero(&self.extension(size)?)),
                b'K' => long_link = Some(header::until_zero(&self.extension(size)?)),
                _ => return self.member(&block, pax, long_name, long_link).map(Some),
            }
        }
    }

    fn block(&mut self) -> Result<Option<Block>, TarError> {
        let mut bytes = [0; BLOCK];
        if !self.read_block(&mut bytes)? {
            return match self.end {
                End::Stream => Ok(None),
                End::Mark => damaged("it ends without its end mark: perhaps it was cut off"),
            };
        }
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        self.headers += 1;
        if self.headers > ARCHIVE_HEADERS_MAX {
            return damaged(format!("it has more than {ARCHIVE_HEADERS_MAX} headers"));
        }
        match Block::new(bytes) {
            Some(block) => Ok(Some(block)),
            None if self.headers == 1 => damaged("it is no tar archive"),
            None => damaged("a header's checksum is wrong"),
        }
    }

    /// Reads a block; `false` at a clean end of the stream.
    fn read_block(&mut self, bytes: &mut [u8; BLOCK]) -> Result<bool, TarError> {
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut bytes[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return damaged("it ends in the middle of a header"),
                Ok(count) => filled += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(true)
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, TarError> {
        if size > EXTENSION_BYTES_MAX {
            return damaged(format!(
                "an extension record has {size} bytes, more than {EXTENSION_BYTES_MAX}"
            ));
        }
        let mut bytes = Vec::new();
        (&mut self.input).take(size).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != size {
            return damaged("it ends in the middle of an extension record");
        }
        self.skip(padded(size)? - size)?;
        Ok(bytes)
    }

    fn member(
        &mut self,
        block: &Block,
        pax: Pax,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Member, TarError> {
        let number = |field: Result<u64, String>| field.map_err(TarError::Damaged);
        let name = pax.name().or(long_name).unwrap_or_else(|| block.name());
        let kind = block.member_kind(&name);
        let has_content =
            matches!(kind, Kind::File | Kind::Nothing | Kind::Unknown(_)) || block.kind() == b'D';
        let stored = match (has_content, pax.size) {
            (false, _) => 0,
            (true, Some(size)) => size,
            (true, None) => number(block.size())?,
        };
        self.padding = padded(stored)? - stored;
        self.stored = stored;
        self.size = stored;
        self.position = 0;
        self.pieces = None;
        if block.kind() == b'S' {
            let (pieces, size) = self.old_sparse(block)?;
            self.begin_sparse(pieces, size)?;
        } else if let Some(size) = pax.sparse_size {
            let pieces = match pax.sparse_map {
                Some(pieces) => pieces,
                None => self.sparse_map_in_content()?,
            };
            self.begin_sparse(pieces, size)?;
        }
        let mtime = match pax.mtime {
            Some(time) => time,
            None => block.mtime().map_err(TarError::Damaged)?,
        };
        Ok(Member {
            name,
            link: pax.link.or(long_link).unwrap_or_else(|| block.link()),
            kind,
            mode: u32::try_from(number(block.mode())? & 0o7777).unwrap_or_default(),
            uid: pax.uid.map_or_else(|| number(block.uid()), Ok)?,
            gid: pax.gid.map_or_else(|| number(block.gid()), Ok)?,
            mtime,
            size: self.size,
            attributes: pax.attributes,
        })
    }

    /// The map of GNU's old sparse format: four pieces in the header, more in blocks after it.
    fn old_sparse(&mut self, block: &Block) -> Result<(Vec<Piece>, u64), TarError> {
        let (mut pieces, mut more, size) = block.sparse().map_err(TarError::Damaged)?;
        while more {
            let mut bytes = [0; BLOCK];
            if !self.read_block(&mut bytes)? {
                return damaged("it ends in the middle of a sparse file's map");
            }
            more = header::more_pieces(&bytes, &mut pieces).map_err(TarError::Damaged)?;
            if pieces.len() > SPARSE_PIECES_MAX {
                return damaged(format!("a sparse file has over {SPARSE_PIECES_MAX} pieces"));
            }
        }
        Ok((pieces, size))
    }

    /// The map of pax sparse format 1.0: decimal numbers, a line each, before the content.
    fn sparse_map_in_content(&mut self) -> Result<Vec<Piece>, TarError> {
        let mut map = header::SparseMap::default();
        let mut bytes = [0; BLOCK];
        loop {
            let Some(left) = self.stored.checked_sub(BLOCK as u64) else {
                return damaged("a sparse file is shorter than its map");
            };
            if !self.read_block(&mut bytes)? {
                return damaged("it ends in the middle of a sparse file's map");
            }
            self.stored = left;
            if map.read(&bytes).map_err(TarError::Damaged)? {
                return Ok(map.pieces);
            }
        }
    }

    fn begin_sparse(&mut self, mut pieces: Vec<Piece>, size: u64) -> Result<(), TarError> {
        let mut end = 0;
        let mut stored = 0_u64;
        for piece in &pieces {
            let next = piece.offset.checked_add(piece.length);
            match next {
                Some(next) if piece.offset >= end && next <= size => end = next,
                _ => return damaged("the pieces of a sparse file overlap or lie outside it"),
            }
            stored += piece.length;
        }
        if stored != self.stored {
            return damaged("the pieces of a sparse file are not what is stored of it");
        }
        pieces.retain(|piece| piece.length > 0);
        pieces.reverse();
        self.size = size;
        self.pieces = Some(pieces);
        Ok(())
    }

    /// What is read from: right after [`TarReader::next`] it stands at the member's content.
    pub(crate) fn input(&self) -> &R {
        &self.input
    }

    /// The content of the current member. What is not read is skipped by [`TarReader::next`].
    pub(crate) fn content(&mut self) -> Contents<'_, R> {
        Contents(self)
    }

    fn skip_content(&mut self) -> Result<(), TarError> {
        let left = self.stored + self.padding;
        (self.stored, self.padding) = (0, 0);
        self.skip(left)
    }

    fn skip(&mut self, count: u64) -> Result<(), TarError> {
        let skipped = io::copy(&mut (&mut self.input).take(count), &mut io::sink())?;
        if skipped != count {
            return damaged("it ends in the middle of a member");
        }
        Ok(())
    }

    /// Reads what follows the end mark, so that a program writing into this end is not broken off
    /// and a compressed stream's own checksum is seen.
    pub(crate) fn finish(mut self) -> Result<R, TarError> {
        io::copy(&mut self.input, &mut io::sink())?;
        Ok(self.input)
    }
}

fn padded(size: u64) -> Result<u64, TarError> {
    size.checked_next_multiple_of(BLOCK as u64)
        .ok_or_else(|| TarError::Damaged("a member's size is out of range".to_owned()))
}

/// Reads the content of one member, with zeros for the holes of sparse files.
#[derive(Debug)]
pub(crate) struct Contents<'a, R>(&'a mut TarReader<R>);

impl<R: Read> Read for Contents<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let reader = &mut *self.0;
        let left = reader.size - reader.position;
        let (length, hole) = match reader.pieces.as_deref() {
            None => (left, false),
            Some([.., piece]) if piece.offset <= reader.position => {
                (piece.offset + piece.length - reader.position, false)
            }
            Some([.., piece]) => (piece.offset - reader.position, true),
            Some([]) => (left, true),
        };
        let wanted = usize::try_from(length)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let buffer = &mut buffer[..wanted];
        let count = if hole {
            buffer.fill(0);
            wanted
        } else {
            let count = reader.input.read(buffer)?;
            reader.stored -= count as u64;
            count
        };
        reader.position += count as u64;
        if let Some(pieces) = &mut reader.pieces
            && let Some(piece) = pieces.last()
            && piece.offset + piece.length == reader.position
        {
            pieces.pop();
        }
        Ok(count)
    }
}
