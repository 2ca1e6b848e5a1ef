//! Running other programs, without a window or a voice, as quickly as it goes.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A command from words.
pub(crate) fn words<S: AsRef<OsStr>>(words: &[S]) -> Command {
    let mut command = Command::new(words.first().map_or(OsStr::new("false"), AsRef::as_ref));
    command.args(words.iter().skip(1));
    command
}

/// Runs a command, which must succeed, and returns its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", shown(command)))?;
    if !output.status.success() {
        bail!(
            "{} failed ({}): {}",
            shown(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} wrote no text", shown(command)))
}

/// The version that a program tells on the first line of its `--version`: its last word, or nothing
/// if there is no such program.
pub(crate) fn version(program: &str) -> Option<String> {
    let text = output(Command::new(program).arg("--version")).ok()?;
    let line = text.lines().next()?;
    let number = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
    line.split_whitespace().find(number).map(str::to_owned)
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    format!("`{}`", words.join(" "))
}
