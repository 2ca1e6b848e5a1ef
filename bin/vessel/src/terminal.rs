//! The caller's terminal: raw mode that is always taken back, its size, its keys.

use std::io::{Read, Write};
use std::task::Poll;

use api::latest::{ApiError, TerminalSize};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::output::failed;

/// Pieces of input or output on their way: enough to keep both sides busy, little enough to hold back.
const PIECES_QUEUED: usize = 8;

const READ_BYTES: usize = 32 * 1024;

/// A terminal on standard input that passes every key on, until this is dropped. Dropping happens on
/// every way out: ends, failures, panics, and signals, which are awaited rather than left to kill us.
#[derive(Debug)]
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Switches the terminal on standard input; nothing if it is no terminal.
    pub(crate) fn enter() -> Option<Self> {
        let before = tcgetattr(rustix::stdio::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(rustix::stdio::stdin(), OptionalActions::Drain, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Flush, &self.before);
    }
}

/// The size of the caller's terminal, or the classic one where there is none or it has no size.
pub(crate) fn size() -> TerminalSize {
    let size = tcgetwinsize(rustix::stdio::stdout())
        .or_else(|_| tcgetwinsize(rustix::stdio::stdin()))
        .ok()
        .filter(|size| size.ws_row > 0 && size.ws_col > 0);
    size.map_or(
        TerminalSize {
            rows: 24,
            columns: 80,
        },
        |size| TerminalSize {
            rows: size.ws_row,
            columns: size.ws_col,
        },
    )
}

/// Reads standard input on a thread of its own, since a read of it cannot be cancelled. The channel closes at
/// the end of input.
pub(crate) fn input() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(PIECES_QUEUED);
    std::thread::spawn(move || {
        let mut buffer = vec![0; READ_BYTES];
        let mut stdin = std::io::stdin().lock();
        loop {
            match stdin.read(&mut buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => return,
                Ok(length) => {
                    let piece = buffer.get(..length).unwrap_or_default().to_vec();
                    if sender.blocking_send(piece).is_err() {
                        return;
                    }
                }
            }
        }
    });
    receiver
}

/// Signals that are awaited rather than left to end this program.
#[derive(Debug)]
pub(crate) struct Signals(Vec<(SignalKind, Signal)>);

impl Signals {
    /// From now on, each of these signals is kept for [`Signals::next`].
    pub(crate) fn new(kinds: &[SignalKind]) -> Result<Self, ApiError> {
        let open = kinds.iter().map(|kind| Ok((*kind, signal(*kind)?)));
        open.collect::<std::io::Result<_>>()
            .map(Self)
            .map_err(|error| failed(format!("signals cannot be received: {error}")))
    }

    /// Waits for the next of them and gives its number.
    pub(crate) async fn next(&mut self) -> u8 {
        std::future::poll_fn(|context| {
            for (kind, signal) in &mut self.0 {
                if signal.poll_recv(context).is_ready() {
                    return Poll::Ready(u8::try_from(kind.as_raw_value()).unwrap_or(0));
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Which of the two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

/// Writes to the outputs on a thread of its own, so that a reader that does not read holds back the
/// command and not the keys and signals for it.
#[derive(Debug)]
pub(crate) struct Writer {
    pieces: mpsc::Sender<(Stream, Vec<u8>)>,
    thread: std::thread::JoinHandle<std::io::Result<()>>,
}

impl Writer {
    pub(crate) fn start() -> Self {
        let (pieces, mut queued) = mpsc::channel::<(Stream, Vec<u8>)>(PIECES_QUEUED);
        let thread = std::thread::spawn(move || {
            while let Some((stream, piece)) = queued.blocking_recv() {
                match stream {
                    Stream::Out => write(std::io::stdout().lock(), &piece)?,
                    Stream::Err => write(std::io::stderr().lock(), &piece)?,
                }
            }
            Ok(())
        });
        Self { pieces, thread }
    }

    /// Queues a piece; false when an output cannot be written any more.
    pub(crate) async fn write(&self, stream: Stream, piece: Vec<u8>) -> bool {
        self.pieces.send((stream, piece)).await.is_ok()
    }

    /// Waits until everything is written.
    ///
    /// # Errors
    /// Why an output cannot be written.
    pub(crate) fn finish(self) -> std::io::Result<()> {
        drop(self.pieces);
        match self.thread.join() {
            Ok(result) => result,
            Err(_) => Err(std::io::Error::other("the thread that writes output broke")),
        }
    }
}

fn write(mut out: impl Write, piece: &[u8]) -> std::io::Result<()> {
    out.write_all(piece)?;
    out.flush()
}
