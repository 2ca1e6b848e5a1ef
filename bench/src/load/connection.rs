//! One connection that stays open: one request at a time, and its answer.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// What is asked for: see `bench/src/web.rs`.
const REQUEST: &[u8] = b"GET /page HTTP/1.1\r\nHost: bench\r\n\r\n";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Enough for a head and a page of 4 KiB, so that one read takes a whole answer.
const BUFFER_BYTES: usize = 16 << 10;

/// What is there of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Part,
    Whole,
}

#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

impl Connection {
    pub(crate) fn open(server: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&server, CONNECT_TIMEOUT)?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: vec![0; BUFFER_BYTES],
            filled: 0,
        })
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Sends a request. It fits into any socket's buffer, as nothing else is in it.
    pub(crate) fn ask(&mut self) -> Result<()> {
        let sent = self.stream.write(REQUEST).context("cannot ask")?;
        ensure!(sent == REQUEST.len(), "a request was sent in parts");
        self.filled = 0;
        Ok(())
    }

    /// Reads what came.
    pub(crate) fn hear(&mut self) -> Result<Answer> {
        match self.stream.read(&mut self.buffer[self.filled..]) {
            Ok(0) => bail!("a server closed a connection"),
            Ok(length) => self.filled += length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Answer::Part),
            Err(error) => return Err(error).context("cannot hear"),
        }
        match answer_bytes(&self.buffer[..self.filled])? {
            Some(bytes) if self.filled >= bytes => Ok(Answer::Whole),
            _ => Ok(Answer::Part),
        }
    }
}

/// Length of the whole answer, once its head is there.
fn answer_bytes(buffer: &[u8]) -> Result<Option<usize>> {
    let Some(head) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&buffer[..head]).context("an answer is no HTTP")?;
    ensure!(text.starts_with("HTTP/1.1 200 "), "a server said: {text}");
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .context("an answer has no length")?;
    Ok(Some(head + 4 + length.parse::<usize>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_with_its_last_byte() {
        let head = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(answer_bytes(&head[..20]).unwrap(), None);
        assert_eq!(answer_bytes(head).unwrap(), Some(head.len() + 5));
        assert!(answer_bytes(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").is_err());
        assert!(answer_bytes(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
