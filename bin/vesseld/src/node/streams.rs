//! Descriptors of pipes and terminals as streams of the runtime.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

/// What the terminal's line discipline takes for the end of input (VEOF, termios(3)).
const END_OF_INPUT: u8 = 4;

/// The master side of a terminal, to read and to write.
#[derive(Clone, Debug)]
pub(super) struct Terminal(Arc<AsyncFd<OwnedFd>>);

/// The writing end of a pipe that is closed when it is shut down.
#[derive(Debug)]
pub(super) struct PipeInput(Option<pipe::Sender>);

/// The reading end of a pipe whose writer says afterwards whether it wrote everything.
#[derive(Debug)]
pub(super) struct CheckedOutput {
    pipe: pipe::Receiver,
    verdict: Option<oneshot::Receiver<Result<(), String>>>,
}

impl Terminal {
    pub(super) fn new(master: OwnedFd) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&master)?;
        rustix::fs::fcntl_setfl(&master, flags | rustix::fs::OFlags::NONBLOCK)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; an owned descriptor stays open here"
        )]
        let registered = AsyncFd::new(master)?;
        Ok(Self(Arc::new(registered)))
    }

    /// The descriptor, for its window size.
    pub(super) fn descriptor(&self) -> &OwnedFd {
        self.0.get_ref()
    }
}

impl PipeInput {
    pub(super) fn new(pipe: pipe::Sender) -> Self {
        Self(Some(pipe))
    }
}

impl CheckedOutput {
    pub(super) fn new(
        pipe: pipe::Receiver,
        verdict: oneshot::Receiver<Result<(), String>>,
    ) -> Self {
        Self {
            pipe,
            verdict: Some(verdict),
        }
    }
}

impl AsyncRead for Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(context))?;
            let space = buffer.initialize_unfilled();
            let read = guard.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), space)?));
            match read {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // The last process has closed the other side (pty(7)): the end.
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(context))?;
            match guard.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), data)?)) {
                Ok(written) => return Poll::Ready(written),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// A terminal has no half to close; whoever reads it is told the end as a person would.
    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_write(context, &[END_OF_INPUT]).map_ok(drop)
    }
}

impl AsyncWrite for PipeInput {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Some(pipe) => Pin::new(pipe).poll_write(context, data),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0 = None;
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for CheckedOutput {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.pipe).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            return Poll::Ready(Ok(()));
        }
        let Some(verdict) = &mut self.verdict else {
            return Poll::Ready(Ok(()));
        };
        let verdict = ready!(Pin::new(verdict).poll(context));
        self.verdict = None;
        match verdict {
            Ok(Ok(())) => Poll::Ready(Ok(())),
            Ok(Err(message)) => Poll::Ready(Err(io::Error::other(message))),
            Err(_) => Poll::Ready(Err(io::Error::other("the transfer broke off"))),
        }
    }
}

/// A pipe whose writing end is a stream of ours, and whose reading end is another's.
pub(super) fn pipe_to_other() -> io::Result<(pipe::Sender, OwnedFd)> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok((pipe::Sender::from_owned_fd(writer)?, reader))
}

/// A pipe whose reading end is a stream of ours, and whose writing end is another's.
pub(super) fn pipe_from_other() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok((pipe::Receiver::from_owned_fd(reader)?, writer))
}
