//! The caller's side of `exec` and `console`.

use std::io;
use std::sync::Arc;

use api::latest::TerminalSize;
use api::stream::{Decoder, Frame, PAYLOAD_BYTES_MAX, STDIN_WINDOW};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Mutex, Semaphore};

const READ_BYTES: usize = 64 * 1024;

/// An open session. Dropping both of its halves hangs up.
#[derive(Debug)]
pub struct Session {
    sender: SessionSender,
    receiver: SessionReceiver,
}

/// The half that speaks. Clones share the connection, so that input that waits for the command does not
/// hold a signal back.
#[derive(Clone, Debug)]
pub struct SessionSender {
    writer: Arc<Mutex<WriteHalf<TokioIo<Upgraded>>>>,
    window: Arc<Semaphore>,
}

/// The half that listens.
#[derive(Debug)]
pub struct SessionReceiver {
    reader: ReadHalf<TokioIo<Upgraded>>,
    decoder: Decoder,
    buffer: Vec<u8>,
    window: Arc<Semaphore>,
}

impl Session {
    pub(crate) fn new(upgraded: Upgraded) -> Self {
        let (reader, writer) = tokio::io::split(TokioIo::new(upgraded));
        let window = Arc::new(Semaphore::new(STDIN_WINDOW as usize));
        Self {
            sender: SessionSender {
                writer: Arc::new(Mutex::new(writer)),
                window: Arc::clone(&window),
            },
            receiver: SessionReceiver {
                reader,
                decoder: Decoder::new(),
                buffer: vec![0; READ_BYTES],
                window,
            },
        }
    }

    /// The two halves.
    #[must_use]
    pub fn split(self) -> (SessionSender, SessionReceiver) {
        (self.sender, self.receiver)
    }
}

impl SessionSender {
    /// Sends input, waiting while the command does not read. Credits come in by
    /// [`SessionReceiver::next_frame`], so somebody must be listening meanwhile.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn input(&self, data: &[u8]) -> io::Result<()> {
        for chunk in data.chunks(PAYLOAD_BYTES_MAX) {
            let count = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
            let permit = self
                .window
                .acquire_many(count)
                .await
                .map_err(io::Error::other)?;
            permit.forget();
            self.send(&Frame::Stdin(chunk.to_vec())).await?;
        }
        Ok(())
    }

    /// Says that there is no more input.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn end_input(&self) -> io::Result<()> {
        self.send(&Frame::Stdin(Vec::new())).await
    }

    /// Tells the size of the terminal.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn resize(&self, size: TerminalSize) -> io::Result<()> {
        self.send(&Frame::Resize(size)).await
    }

    /// Sends the command a signal.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn signal(&self, number: u8) -> io::Result<()> {
        self.send(&Frame::Signal(number)).await
    }

    async fn send(&self, frame: &Frame) -> io::Result<()> {
        let bytes = frame.to_bytes();
        let mut writer = self.writer.lock().await;
        writer.write_all(&bytes).await?;
        writer.flush().await
    }
}

impl SessionReceiver {
    /// The next frame for the caller; nothing once the node ended the connection. Credits are taken in
    /// here and not given out.
    ///
    /// # Errors
    /// The connection broke, or the node sent what is no frame.
    pub async fn next_frame(&mut self) -> io::Result<Option<Frame>> {
        loop {
            match self.decoder.next_frame().map_err(io::Error::other)? {
                Some(Frame::Credit(bytes)) => {
                    let room = Semaphore::MAX_PERMITS - self.window.available_permits();
                    self.window.add_permits(room.min(bytes as usize));
                }
                Some(frame) => return Ok(Some(frame)),
                None => {
                    let length = self.reader.read(&mut self.buffer).await?;
                    if length == 0 {
                        return Ok(None);
                    }
                    self.decoder
                        .push(self.buffer.get(..length).unwrap_or_default());
                }
            }
        }
    }
}
