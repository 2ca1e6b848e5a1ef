//! What people and scripts read: data on standard output, everything else on standard error.

use std::io::{self, IsTerminal, Write};

use api::latest::{ApiError, ErrorCode};
use client::ClientError;
use serde::Serialize;

/// Why a verb ends early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It failed; to be shown.
    Failed(ApiError),
    /// Everything was said already; end with this code.
    Said(u8),
}

/// What verbs come back with.
pub(crate) type Outcome<T = ()> = Result<T, Stop>;

impl From<ApiError> for Stop {
    fn from(error: ApiError) -> Self {
        Self::Failed(error)
    }
}

impl From<ClientError> for Stop {
    fn from(error: ClientError) -> Self {
        Self::Failed(error.into_api_error())
    }
}

/// A failure of the command line's own.
pub(crate) fn failed(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::Failed, message)
}

/// A request that makes no sense.
pub(crate) fn usage(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::Usage, message)
}

/// A message without the numbers of the system's errors, which say nothing to people beside their words.
pub(crate) fn without_numbers(text: &str) -> String {
    let mut parts = text.split(" (os error ");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let after = part.split_once(')').map_or("", |(_, after)| after);
        out.push_str(after);
    }
    out
}

/// How to speak to whoever called.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// Whether data is written as JSON.
    pub(crate) json: bool,
    /// Whether only errors are said.
    pub(crate) quiet: bool,
    /// Whether standard output is a terminal.
    pub(crate) on_terminal: bool,
    /// Whether standard error is a terminal.
    pub(crate) errors_on_terminal: bool,
    /// Whether colours are wanted where there is a terminal (<https://no-color.org>).
    color: bool,
}

impl Output {
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self {
            json,
            quiet,
            on_terminal: io::stdout().is_terminal(),
            errors_on_terminal: io::stderr().is_terminal(),
            color: !refused && !dumb,
        }
    }

    /// Whether progress is shown.
    pub(crate) fn shows_progress(self) -> bool {
        self.errors_on_terminal && !self.quiet
    }

    /// Whether standard output may have colours.
    pub(crate) fn colors(self) -> bool {
        self.on_terminal && self.color
    }

    /// Writes a line of data.
    pub(crate) fn line(self, text: &str) -> Outcome {
        self.raw(format!("{text}\n").as_bytes())
    }

    /// Writes data as it is.
    pub(crate) fn raw(self, bytes: &[u8]) -> Outcome {
        let mut out = io::stdout().lock();
        out.write_all(bytes)
            .and_then(|()| out.flush())
            .map_err(unwritable)
    }

    /// Writes a value as JSON, indented for people who look at it.
    pub(crate) fn json<T: Serialize>(self, value: &T) -> Outcome {
        let text = if self.on_terminal {
            serde_json::to_string_pretty(value)
        } else {
            serde_json::to_string(value)
        };
        let text =
            text.map_err(|error| failed(format!("the answer cannot be written as JSON: {error}")))?;
        self.line(&text)
    }

    /// Writes one value for one thing that was named, an array for all else.
    pub(crate) fn json_of<T: Serialize>(self, values: &[T], one: bool) -> Outcome {
        match values {
            [value] if one => self.json(value),
            values => self.json(&values),
        }
    }

    /// Says something that is no data.
    pub(crate) fn note(self, text: &str) {
        if !self.quiet {
            self.say(text);
        }
    }

    /// Says what failed and what to do next.
    pub(crate) fn error(self, error: &ApiError) {
        let paint = |style: &str, word: &str| {
            if self.errors_on_terminal && self.color {
                format!("\x1b[{style}m{word}\x1b[0m")
            } else {
                word.to_owned()
            }
        };
        let mut text = format!(
            "{} {}",
            paint("1;31", "error:"),
            one_line(&without_numbers(&error.message))
        );
        if let Some(hint) = &error.hint {
            text.push_str(&format!("\n{} {}", paint("1;36", "hint:"), one_line(hint)));
        }
        self.say(&text);
    }

    fn say(self, text: &str) {
        // Nobody is left to be told that standard error cannot be written.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }
}

/// What a reader that left means for a writer: `vessel list | head -1` is no failure.
pub(crate) fn unwritable(error: io::Error) -> Stop {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Stop::Said(0),
        _ => Stop::Failed(failed(format!(
            "standard output cannot be written: {error}"
        ))),
    }
}

/// Text of a node or a VE as it may be shown: no control characters that would steer the terminal.
pub(crate) fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\n' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}
