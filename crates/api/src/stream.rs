//! Framing of `exec` and `console` once a connection was upgraded.
//!
//! A frame is a channel byte, the payload's length as four bytes in network order, and the payload:
//!
//! ```text
//!   caller -> node                           node -> caller
//!   0 stdin    bytes; empty: end of input    1 stdout  bytes
//!   3 resize   rows u16, columns u16         2 stderr  bytes
//!   4 signal   number u8                     5 exit    0 + code i32, or 1 + signal i32; the last frame
//!                                            6 credit  u32: more bytes of stdin that may be sent
//!                                            7 error   JSON of an `ApiError`; the last frame
//! ```
//!
//! The caller may send [`STDIN_WINDOW`] bytes of stdin at first and then as many as credits allow, so a
//! command that reads nothing never blocks a resize or a signal behind its input. In the other
//! direction the connection itself holds the node back. Either side ends a session by closing the
//! connection; the node then hangs up on the command.
//!
//! This module only turns bytes into frames and back: no I/O, no order of frames.

use std::fmt;

use crate::initial::{ApiError, TerminalSize};

/// Largest payload of a frame. Larger ones are a protocol error, so a peer cannot make us hold more.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

/// Bytes of stdin that a caller may send before the first credit.
pub const STDIN_WINDOW: u32 = 256 * 1024;

const HEADER_BYTES: usize = 5;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(i32),
}

impl Ended {
    /// The exit code that a shell shows for it: the code, or 128 + the signal.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        let shown = match self {
            Self::Code(code) => code & 0xff,
            Self::Signal(signal) => 128 + (signal & 0x7f),
        };
        u8::try_from(shown).unwrap_or(u8::MAX)
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Input; empty for its end.
    Stdin(Vec<u8>),
    /// Output.
    Stdout(Vec<u8>),
    /// Error output.
    Stderr(Vec<u8>),
    /// The caller's terminal has this size now.
    Resize(TerminalSize),
    /// Send the command's foreground process group this signal.
    Signal(u8),
    /// The command ended.
    Exit(Ended),
    /// So many more bytes of stdin may be sent.
    Credit(u32),
    /// The session broke.
    Error(ApiError),
}

/// Bytes that are no frame. The connection cannot go on after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// A channel that this version does not know.
    Channel(u8),
    /// A payload that is too large.
    Length(usize),
    /// A payload that does not fit its channel.
    Payload(u8),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Channel(channel) => write!(f, "frame of unknown channel {channel}"),
            Self::Length(length) => {
                write!(f, "frame of {length} bytes, more than {PAYLOAD_BYTES_MAX}")
            }
            Self::Payload(channel) => write!(f, "malformed frame of channel {channel}"),
        }
    }
}

impl std::error::Error for FrameError {}

impl Frame {
    /// Appends the frame's bytes. Data longer than [`PAYLOAD_BYTES_MAX`] becomes several frames.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Stdin(data) => encode_data(0, data, out),
            Self::Stdout(data) => encode_data(1, data, out),
            Self::Stderr(data) => encode_data(2, data, out),
            Self::Resize(size) => {
                let [a, b] = size.rows.to_be_bytes();
                let [c, d] = size.columns.to_be_bytes();
                encode_one(3, &[a, b, c, d], out);
            }
            Self::Signal(number) => encode_one(4, &[*number], out),
            Self::Exit(ended) => {
                let (kind, value) = match ended {
                    Ended::Code(code) => (0, *code),
                    Ended::Signal(signal) => (1, *signal),
                };
                let [a, b, c, d] = value.to_be_bytes();
                encode_one(5, &[kind, a, b, c, d], out);
            }
            Self::Credit(bytes) => encode_one(6, &bytes.to_be_bytes(), out),
            Self::Error(error) => {
                let json = serde_json::to_vec(error).unwrap_or_default();
                let fits = json.len() <= PAYLOAD_BYTES_MAX;
                encode_one(7, if fits { &json } else { LONG_ERROR }, out);
            }
        }
    }

    /// The frame's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    fn decode(channel: u8, payload: &[u8]) -> Result<Self, FrameError> {
        let malformed = || FrameError::Payload(channel);
        match channel {
            0 => Ok(Self::Stdin(payload.to_vec())),
            1 => Ok(Self::Stdout(payload.to_vec())),
            2 => Ok(Self::Stderr(payload.to_vec())),
            3 => match *payload {
                [a, b, c, d] => Ok(Self::Resize(TerminalSize {
                    rows: u16::from_be_bytes([a, b]),
                    columns: u16::from_be_bytes([c, d]),
                })),
                _ => Err(malformed()),
            },
            4 => match *payload {
                [number] => Ok(Self::Signal(number)),
                _ => Err(malformed()),
            },
            5 => match *payload {
                [0, a, b, c, d] => Ok(Self::Exit(Ended::Code(i32::from_be_bytes([a, b, c, d])))),
                [1, a, b, c, d] => Ok(Self::Exit(Ended::Signal(i32::from_be_bytes([a, b, c, d])))),
                _ => Err(malformed()),
            },
            6 => match *payload {
                [a, b, c, d] => Ok(Self::Credit(u32::from_be_bytes([a, b, c, d]))),
                _ => Err(malformed()),
            },
            7 => serde_json::from_slice(payload)
                .map(Self::Error)
                .map_err(|_| malformed()),
            other => Err(FrameError::Channel(other)),
        }
    }
}

const LONG_ERROR: &[u8] = br#"{"code":"failed","message":"the session broke"}"#;

fn encode_data(channel: u8, data: &[u8], out: &mut Vec<u8>) {
    if data.is_empty() {
        encode_one(channel, data, out);
    }
    for chunk in data.chunks(PAYLOAD_BYTES_MAX) {
        encode_one(channel, chunk, out);
    }
}

fn encode_one(channel: u8, payload: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    out.reserve(HEADER_BYTES + payload.len());
    out.push(channel);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Collects bytes as they arrive and gives out whole frames.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
}

impl Decoder {
    /// A decoder that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes that arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Gives the next whole frame, or nothing while more bytes are needed.
    ///
    /// # Errors
    /// Refuses what is no frame as described at this module. The connection is of no use after it.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let bytes = self.buffer.get(self.start..).unwrap_or_default();
        let [channel, a, b, c, d, rest @ ..] = bytes else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX);
        if length > PAYLOAD_BYTES_MAX {
            return Err(FrameError::Length(length));
        }
        let Some(payload) = rest.get(..length) else {
            return Ok(None);
        };
        let frame = Frame::decode(*channel, payload)?;
        self.start += HEADER_BYTES + length;
        Ok(Some(frame))
    }

    /// Whether bytes of an unfinished frame are left: the peer was cut off.
    #[must_use]
    pub fn is_mid_frame(&self) -> bool {
        self.start < self.buffer.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::initial::ErrorCode;
    use proptest::prelude::*;

    fn frames() -> impl Strategy<Value = Frame> {
        let data = || proptest::collection::vec(any::<u8>(), 0..300);
        prop_oneof![
            data().prop_map(Frame::Stdin),
            data().prop_map(Frame::Stdout),
            data().prop_map(Frame::Stderr),
            any::<(u16, u16)>()
                .prop_map(|(rows, columns)| Frame::Resize(TerminalSize { rows, columns })),
            any::<u8>().prop_map(Frame::Signal),
            any::<i32>().prop_map(|code| Frame::Exit(Ended::Code(code))),
            any::<i32>().prop_map(|signal| Frame::Exit(Ended::Signal(signal))),
            any::<u32>().prop_map(Frame::Credit),
            "\\PC{0,40}".prop_map(|text| Frame::Error(ApiError::new(ErrorCode::Failed, text))),
        ]
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(
            sent in proptest::collection::vec(frames(), 0..12),
            cut in 1_usize..700,
        ) {
            let mut bytes = Vec::new();
            for frame in &sent {
                frame.encode(&mut bytes);
            }
            let mut decoder = Decoder::new();
            let mut received = Vec::new();
            for piece in bytes.chunks(cut) {
                decoder.push(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    received.push(frame);
                }
            }
            prop_assert_eq!(sent, received);
            prop_assert!(!decoder.is_mid_frame());
        }

        #[test]
        fn garbage_never_panics_and_never_grows(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            let mut decoder = Decoder::new();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_frame() {}
        }
    }

    #[test]
    fn long_data_is_cut_into_frames() {
        let data = vec![7; PAYLOAD_BYTES_MAX * 2 + 1];
        let mut decoder = Decoder::new();
        decoder.push(&Frame::Stdout(data.clone()).to_bytes());
        let mut joined = Vec::new();
        while let Some(Frame::Stdout(part)) = decoder.next_frame().unwrap() {
            joined.extend(part);
        }
        assert_eq!(joined, data);
    }

    #[test]
    fn refuses_a_payload_that_is_too_large_before_it_arrives() {
        let mut decoder = Decoder::new();
        decoder.push(&[1, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(decoder.next_frame(), Err(FrameError::Length(0xffff_ffff)));
    }

    #[test]
    fn exit_codes_are_those_of_a_shell() {
        assert_eq!(Ended::Code(3).exit_code(), 3);
        assert_eq!(Ended::Code(-1).exit_code(), 255);
        assert_eq!(Ended::Signal(9).exit_code(), 137);
    }
}
