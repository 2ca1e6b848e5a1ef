//! Running a program to its end, within a time.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::harness::slowness;

/// What a program did.
#[derive(Debug)]
pub(crate) struct Output {
    /// Its exit code; 128 and the signal's number if a signal ended it, as a shell says it.
    pub(crate) code: i32,
    /// What it wrote to its standard output.
    pub(crate) stdout: String,
    /// What it wrote to its standard error.
    pub(crate) stderr: String,
    shown: String,
}

/// A command that takes longer than this hangs: the slowest builds a Debian template.
const TIMEOUT: Duration = Duration::from_secs(300);
/// That is not built on an emulated machine, where all else takes longer, and the factor ends here.
const TIMEOUT_FACTOR_MAX: u32 = 2;

impl Output {
    /// Its standard output, if it ended well.
    pub(crate) fn success(self) -> Result<String> {
        if self.code != 0 {
            bail!("{self}");
        }
        Ok(self.stdout)
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` exited with {}", self.shown, self.code)?;
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.trim().is_empty() {
                write!(
                    f,
                    "\n  {name}: {}",
                    text.trim().replace('\n', "\n          ")
                )?;
            }
        }
        Ok(())
    }
}

/// Runs a command with nothing to read.
pub(crate) fn run(command: &mut Command) -> Result<Output> {
    run_with_input(command, b"")
}

/// Runs a command that reads `input`.
pub(crate) fn run_with_input(command: &mut Command, input: &[u8]) -> Result<Output> {
    feed(command, vec![input.to_owned()], Duration::ZERO)
}

/// Runs a command on whose terminal somebody types one piece after the other, looking up in between.
pub(crate) fn run_typing(command: &mut Command, pieces: &[&str]) -> Result<Output> {
    let pieces = pieces.iter().map(|piece| piece.as_bytes().to_owned());
    let pause = Duration::from_millis(400) * slowness();
    feed(command, pieces.collect(), pause)
}

/// Runs a command, with a pause before each piece of its input. A command that does not end is
/// killed and an error.
fn feed(command: &mut Command, pieces: Vec<Vec<u8>>, pause: Duration) -> Result<Output> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let shown = words
        .map(std::ffi::OsStr::to_string_lossy)
        .collect::<Vec<_>>()
        .join(" ");
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run `{shown}`"))?;
    let stdin = child.stdin.take();
    let feeder = std::thread::spawn(move || {
        let mut stdin = stdin?;
        for piece in pieces {
            std::thread::sleep(pause);
            // A program may end without having read everything.
            stdin.write_all(&piece).ok()?;
        }
        std::thread::sleep(pause);
        Some(())
    });
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let code = wait(&mut child, &shown)?;
    let _ = feeder.join();
    let text = |thread: std::thread::JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&thread.join().unwrap_or_default()).into_owned()
    };
    Ok(Output {
        code,
        stdout: text(stdout),
        stderr: text(stderr),
        shown,
    })
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes));
        bytes
    })
}

fn wait(child: &mut Child, shown: &str) -> Result<i32> {
    use std::os::unix::process::ExitStatusExt;
    let timeout = TIMEOUT * slowness().min(TIMEOUT_FACTOR_MAX);
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for a child")? {
            return Ok(status.code().unwrap_or(128 + status.signal().unwrap_or(0)));
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            bail!("`{shown}` did not end within {} s", timeout.as_secs());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
