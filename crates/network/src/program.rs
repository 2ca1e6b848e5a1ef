//! Running programs that speak to the kernel for us, in the calling thread's network namespace.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Where distributions put them. A daemon's `PATH` often lacks the `sbin` directories.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin"];

/// Finds a program.
pub(crate) fn find(name: &str) -> Option<String> {
    let places = FOLDERS.iter().map(|folder| format!("{folder}/{name}"));
    places.into_iter().find(|place| Path::new(place).exists())
}

/// Runs a program to its end.
pub(crate) fn run(program: &str, arguments: &[&str], input: &str) -> io::Result<Output> {
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // The input is read whole before anything is answered, so this cannot block on a full pipe.
    let written = child
        .stdin
        .take()
        .map_or(Ok(()), |mut pipe| pipe.write_all(input.as_bytes()));
    let output = child.wait_with_output()?;
    match written {
        // It gave up before it had read everything: what it said tells more than the broken pipe.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(output),
    }
}
