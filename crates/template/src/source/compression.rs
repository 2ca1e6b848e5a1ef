//! Unpacking compressed streams. The format is told by the first bytes, never by a file's name.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::session::Cancel;

/// Bytes read at once from a compressed stream.
const BUFFER_BYTES: usize = 128 << 10;

/// Largest window of a zstd stream, as a power of two: what `zstd --long` writes. It bounds the
/// memory that a hostile stream can ask for.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Memory that `xz` may use: `xz -9` needs 65 MiB.
const XZ_MEMORY: &str = "--memlimit-decompress=256MiB";

/// How a stream of xz begins.
const XZ: &[u8] = b"\xfd7zXZ\0";

/// A stream of a kind that cannot be unpacked here.
#[derive(Debug)]
pub(super) enum CompressionError {
    Read(io::Error),
    Unsupported(&'static str),
    /// `xz` does not run.
    Program(io::Error),
}

/// Unpacks a file whatever its format. See [`unpack`].
pub(super) fn unpack_file(
    mut file: File,
    cancel: &Cancel,
) -> Result<Box<dyn Read + Send + '_>, CompressionError> {
    let head = super::head::<6>(&mut file).map_err(CompressionError::Read)?;
    file.rewind().map_err(CompressionError::Read)?;
    if head == XZ {
        return Ok(Box::new(Xz::new(file, cancel)?));
    }
    unpack(file, cancel)
}

/// Unpacks a stream whatever its format; plain bytes stay as they are. Reading ends with an error
/// when the work is cancelled.
pub(super) fn unpack<'a>(
    input: impl Read + Send + 'a,
    cancel: &'a Cancel,
) -> Result<Box<dyn Read + Send + 'a>, CompressionError> {
    let guarded = Guarded { input, cancel };
    let mut input = BufReader::with_capacity(BUFFER_BYTES, guarded);
    let head = peek(&mut input).map_err(CompressionError::Read)?;
    match head {
        [0x1f, 0x8b, ..] => Ok(Box::new(flate2::bufread::MultiGzDecoder::new(input))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut decoder = zstd::Decoder::with_buffer(input).map_err(CompressionError::Read)?;
            decoder
                .window_log_max(ZSTD_WINDOW_LOG_MAX)
                .map_err(CompressionError::Read)?;
            Ok(Box::new(decoder))
        }
        XZ => Err(CompressionError::Unsupported(
            "a part of it is compressed by xz, which this format does not allow",
        )),
        [b'B', b'Z', b'h', ..] => Err(CompressionError::Unsupported(
            "it is compressed by bzip2; unpack it first (`bunzip2`)",
        )),
        [b'P', b'K', 3, 4, ..] => Err(CompressionError::Unsupported(
            "it is a zip archive, which keeps no owners and modes; use a tar archive",
        )),
        [b'h', b's', b'q', b's', ..] => Err(CompressionError::Unsupported(
            "it is a squashfs image; unpack it first (`unsquashfs`) and import the folder",
        )),
        _ => Ok(Box::new(input)),
    }
}

/// The first bytes, as many as there are of six. Inputs are files: reading once gives them.
fn peek(input: &mut impl BufRead) -> io::Result<&[u8]> {
    let head = input.fill_buf()?;
    Ok(&head[..head.len().min(6)])
}

/// Stops reading when the work is cancelled.
struct Guarded<'a, R> {
    input: R,
    cancel: &'a Cancel,
}

impl<R: Read> Read for Guarded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        self.input.read(buffer)
    }
}

/// The program `xz`, reading a file. A decoder in Rust is several times slower, one in C would be
/// one more library to build, and the program is on every Debian system.
struct Xz<'a> {
    child: Child,
    output: ChildStdout,
    cancel: &'a Cancel,
    ended: bool,
}

impl<'a> Xz<'a> {
    fn new(file: File, cancel: &'a Cancel) -> Result<Self, CompressionError> {
        let mut child = Command::new("xz")
            .args(["--decompress", "--stdout", "--quiet", XZ_MEMORY])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir("/")
            .stdin(file)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(CompressionError::Program)?;
        match child.stdout.take() {
            Some(output) => Ok(Self {
                child,
                output,
                cancel,
                ended: false,
            }),
            None => Err(CompressionError::Program(io::ErrorKind::BrokenPipe.into())),
        }
    }
}

impl Read for Xz<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("cancelled"));
        }
        let count = self.output.read(buffer)?;
        if count == 0 && !buffer.is_empty() && !self.ended {
            self.ended = true;
            if !self.child.wait()?.success() {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "`xz` cannot unpack it: it is damaged or cut off",
                ));
            }
        }
        Ok(count)
    }
}

impl Drop for Xz<'_> {
    fn drop(&mut self) {
        if !self.ended {
            // It may be waiting to write what nobody reads. That it is gone already is no error.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
