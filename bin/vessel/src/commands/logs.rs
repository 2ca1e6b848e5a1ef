//! `vessel logs`.

use std::io::{IsTerminal, Write};

use client::ClientError;
use serde::Serialize;
use tokio::io::AsyncReadExt;

use crate::Context;
use crate::arguments::LogsArguments;
use crate::output::{Outcome, unwritable};

const READ_BYTES: usize = 64 * 1024;

/// Longest line that is held for JSON; a longer one is cut into several.
const LINE_BYTES_MAX: usize = 1024 * 1024;

#[derive(Serialize)]
struct Line<'a> {
    line: &'a str,
}

pub(crate) async fn run(context: &Context, arguments: LogsArguments) -> Outcome {
    let LogsArguments { ve, follow, lines } = arguments;
    let mut stream = context.client.logs(&ve, follow, lines).await?;
    let mut buffer = vec![0; READ_BYTES];
    let mut tamer = std::io::stdout().is_terminal().then(Tamer::default);
    let mut held = Vec::new();
    loop {
        let length = stream.read(&mut buffer).await.map_err(|source| {
            let socket = context.client.socket().to_owned();
            ClientError::Cut { socket, source }
        })?;
        let bytes = buffer.get(..length).unwrap_or_default();
        if context.out.json {
            held.extend_from_slice(bytes);
            write_lines(context, &mut held, bytes.is_empty())?;
        } else {
            let tamed = tamer.as_mut().map(|tamer| tamer.tame(bytes));
            let mut out = std::io::stdout().lock();
            let shown = tamed.as_deref().unwrap_or(bytes);
            out.write_all(shown)
                .and_then(|()| out.flush())
                .map_err(unwritable)?;
        }
        if bytes.is_empty() {
            return Ok(());
        }
    }
}

/// Writes the whole lines of `held` as one object each, and at the end the rest.
fn write_lines(context: &Context, held: &mut Vec<u8>, at_end: bool) -> Outcome {
    let whole = match held.iter().rposition(|&byte| byte == b'\n') {
        _ if at_end || held.len() > LINE_BYTES_MAX => held.len(),
        Some(last) => last + 1,
        None => 0,
    };
    let rest = held.split_off(whole);
    for line in String::from_utf8_lossy(held).lines() {
        let text = serde_json::to_string(&Line { line })
            .map_err(|error| crate::output::failed(error.to_string()))?;
        context.out.line(&text)?;
    }
    *held = rest;
    Ok(())
}

/// Takes from a log what would steer the reader's terminal: escape sequences of a VE could rename its
/// window or make it type. Colours (`ESC [ ... m`) pass; a file gets every byte.
#[derive(Debug, Default)]
struct Tamer {
    held: Vec<u8>,
    inside: Inside,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Inside {
    /// Plain text.
    #[default]
    Text,
    /// After `ESC`.
    Escape,
    /// After `ESC [`, until a byte from `@` to `~` (ECMA-48, section 5.4).
    Control,
    /// As before, but no colour.
    Other,
    /// After `ESC ]`, `P`, `X`, `^` or `_`, until BEL or `ESC \`.
    Message,
}

/// Longest sequence that is held back; no honest colour is longer.
const SEQUENCE_BYTES_MAX: usize = 64;

impl Tamer {
    fn tame(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            self.inside = self.step(byte, &mut out);
        }
        out
    }

    fn step(&mut self, byte: u8, out: &mut Vec<u8>) -> Inside {
        match (self.inside, byte) {
            (_, 0x1b) => {
                self.held = vec![byte];
                Inside::Escape
            }
            (Inside::Text, b'\n' | b'\r' | b'\t' | 0x20..=0x7e | 0x80..) => {
                out.push(byte);
                Inside::Text
            }
            (Inside::Escape, b'[') => {
                self.held.push(byte);
                Inside::Control
            }
            (Inside::Escape, b']' | b'P' | b'X' | b'^' | b'_') => Inside::Message,
            (Inside::Control, b'm') => {
                out.append(&mut self.held);
                out.push(byte);
                Inside::Text
            }
            (Inside::Control, b'0'..=b'9' | b';' | b':')
                if self.held.len() < SEQUENCE_BYTES_MAX =>
            {
                self.held.push(byte);
                Inside::Control
            }
            // No colour: nothing of it is shown, up to its last byte.
            (Inside::Control | Inside::Other, 0x20..=0x3f) => Inside::Other,
            (Inside::Message, 0x07) => Inside::Text,
            (Inside::Message, _) => Inside::Message,
            (Inside::Text | Inside::Escape | Inside::Control | Inside::Other, _) => Inside::Text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_pass_and_nothing_else_that_steers() {
        let text = b"a\x1b[0;32mOK\x1b[0m\n\x1b]0;title\x07b\x1b[2Jc\x1b[?25ld\x07\x1bce\x1bPq\x1b\\f\xc3\xa9";
        let expected = b"a\x1b[0;32mOK\x1b[0m\nbcdef\xc3\xa9";
        assert_eq!(Tamer::default().tame(text), expected);
        let mut tamer = Tamer::default();
        let cut: Vec<u8> = text.iter().flat_map(|byte| tamer.tame(&[*byte])).collect();
        assert_eq!(cut, expected);
    }
}
