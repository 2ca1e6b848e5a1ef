//! A VE's console at the launcher: everything the VE writes goes into a bounded log and to whoever
//! is attached; what they type goes in.
//!
//! A VE that floods its console must not cost the node more than that VE is worth: reading pauses
//! when a console has used up its allowance, the terminal fills, and the VE's writers wait.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use super::dev::Console;
use crate::spec::{ConsoleLog, WindowSize};

/// Most that is read from a console at once, so that other events get their turn.
const READ_BYTES_MAX: usize = 16 * 1024;
/// Allowance of a console: this much at once ...
const BURST_BYTES: u64 = 512 * 1024;
/// ... and this much in a second.
const RATE_BYTES_PER_SECOND: u64 = 256 * 1024;
/// Most people at one console.
pub(super) const ATTACHMENTS_MAX: usize = 16;
/// What an attached reader may be behind before it is cut off.
const BACKLOG_BYTES_MAX: usize = 256 * 1024;

/// The console of one VE.
#[derive(Debug)]
pub(super) struct ConsoleState {
    terminal: Console,
    log: Option<Log>,
    attachments: BTreeMap<u64, Attachment>,
    allowance: u64,
    refilled: Instant,
}

#[derive(Debug)]
struct Attachment {
    socket: OwnedFd,
    backlog: Vec<u8>,
}

#[derive(Debug)]
struct Log {
    file: File,
    bytes: u64,
    spec: ConsoleLog,
}

/// What to do about a console after it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Wait for more.
    Listen,
    /// Do not read before this time.
    PauseUntil(Instant),
    /// Its terminal is gone.
    Closed,
}

impl ConsoleState {
    /// A console whose log cannot be opened works without one: a full disk stops no VE.
    pub(super) fn new(terminal: Console, spec: ConsoleLog) -> Self {
        Self {
            terminal,
            log: Log::open(spec).ok(),
            attachments: BTreeMap::new(),
            allowance: BURST_BYTES,
            refilled: Instant::now(),
        }
    }

    pub(super) fn master(&self) -> BorrowedFd<'_> {
        self.terminal.master.as_fd()
    }

    /// The sockets whose readers are behind, for the loop to wait until they can be written.
    pub(super) fn attachment(&self, number: u64) -> Option<BorrowedFd<'_>> {
        self.attachments
            .get(&number)
            .map(|attachment| attachment.socket.as_fd())
    }

    pub(super) fn is_full(&self) -> bool {
        self.attachments.len() >= ATTACHMENTS_MAX
    }

    pub(super) fn attach(&mut self, number: u64, socket: OwnedFd) {
        self.attachments.insert(
            number,
            Attachment {
                socket,
                backlog: Vec::new(),
            },
        );
    }

    pub(super) fn detach(&mut self, number: u64) {
        self.attachments.remove(&number);
    }

    pub(super) fn resize(&self, size: WindowSize) -> Result<(), Errno> {
        crate::task::resize_terminal(&self.terminal.slave, size)
    }

    /// Reads what the VE wrote, once, and passes it on. Names the attachments that broke.
    pub(super) fn drain(&mut self, now: Instant) -> (Next, Vec<u64>) {
        let passed = now.duration_since(self.refilled).as_millis();
        let earned = u64::try_from(passed)
            .unwrap_or(u64::MAX)
            .saturating_mul(RATE_BYTES_PER_SECOND)
            / 1_000;
        if earned > 0 {
            self.allowance = self.allowance.saturating_add(earned).min(BURST_BYTES);
            self.refilled = now;
        }
        if self.allowance == 0 {
            return (
                Next::PauseUntil(now + Duration::from_millis(50)),
                Vec::new(),
            );
        }
        let mut buffer = [0; READ_BYTES_MAX];
        let length = match rustix::io::read(&self.terminal.master, &mut buffer) {
            Ok(0) => return (Next::Closed, Vec::new()),
            Ok(length) => length,
            Err(Errno::AGAIN | Errno::INTR) => return (Next::Listen, Vec::new()),
            Err(_) => return (Next::Closed, Vec::new()),
        };
        let bytes = &buffer[..length];
        self.allowance = self
            .allowance
            .saturating_sub(u64::try_from(length).unwrap_or(u64::MAX));
        if let Some(log) = &mut self.log {
            log.append(bytes);
        }
        let mut broken = Vec::new();
        for (number, attachment) in &mut self.attachments {
            if attachment.send(bytes).is_err() {
                broken.push(*number);
            }
        }
        (Next::Listen, broken)
    }

    /// Passes on what an attached person typed, or what waits for them; false when they are gone.
    pub(super) fn serve_attachment(&mut self, number: u64) -> bool {
        let Some(attachment) = self.attachments.get_mut(&number) else {
            return false;
        };
        if attachment.send(&[]).is_err() {
            return false;
        }
        let mut buffer = [0; 1024];
        match rustix::net::recv(&attachment.socket, &mut buffer, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => false,
            Ok((_, length)) => {
                // What the VE does not read is lost, as on a real terminal line.
                let _ = rustix::io::write(&self.terminal.master, &buffer[..length]);
                true
            }
            Err(Errno::AGAIN | Errno::INTR) => true,
            Err(_) => false,
        }
    }

    /// Whether an attached reader is behind.
    pub(super) fn is_behind(&self, number: u64) -> bool {
        self.attachments
            .get(&number)
            .is_some_and(|attachment| !attachment.backlog.is_empty())
    }

    /// Numbers of all attachments.
    pub(super) fn attachments(&self) -> Vec<u64> {
        self.attachments.keys().copied().collect()
    }
}

impl Attachment {
    /// Sends what waits and then `bytes`; keeps what does not fit.
    fn send(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        self.backlog.extend_from_slice(bytes);
        if self.backlog.is_empty() {
            return Ok(());
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match rustix::net::send(&self.socket, &self.backlog, flags) {
            Ok(sent) => {
                self.backlog.drain(..sent);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        if self.backlog.len() > BACKLOG_BYTES_MAX {
            Err(Errno::NOBUFS)
        } else {
            Ok(())
        }
    }
}

impl Log {
    fn open(spec: ConsoleLog) -> std::io::Result<Self> {
        let file = open_log(&spec.path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { file, bytes, spec })
    }

    /// Appends; at the limit the file becomes `NAME.1` and a new one begins. A log that cannot be
    /// written loses what it should have held.
    fn append(&mut self, bytes: &[u8]) {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if self.bytes > 0 && self.bytes + length > self.spec.bytes_max {
            let mut older = self.spec.path.clone().into_os_string();
            older.push(".1");
            let turned = std::fs::rename(&self.spec.path, PathBuf::from(older))
                .and_then(|()| open_log(&self.spec.path));
            match turned {
                Ok(file) => (self.file, self.bytes) = (file, 0),
                Err(_) => return,
            }
        }
        if self.file.write_all(bytes).is_ok() {
            self.bytes += length;
        }
    }
}

fn open_log(path: &PathBuf) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_never_grows_beyond_two_files_of_its_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console.log");
        let mut log = Log::open(ConsoleLog {
            path: path.clone(),
            bytes_max: 100,
        })
        .unwrap();
        for _ in 0..100 {
            log.append(b"0123456789");
        }
        assert!(std::fs::metadata(&path).unwrap().len() <= 100);
        assert!(
            std::fs::metadata(directory.path().join("console.log.1"))
                .unwrap()
                .len()
                <= 100
        );
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
    }
}
