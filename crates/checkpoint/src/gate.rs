//! The daemon's side of [`runtime::gate`]: who waits there, and letting him on.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use runtime::gate::GO;

/// How long CRIU's script, once it has come, may take to say for whom: it does so at once.
const WORDS_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the daemon looks whether somebody has come.
pub(crate) const POLL: Duration = Duration::from_millis(5);

/// A place that CRIU's script comes to.
#[derive(Debug)]
pub(crate) struct Gate {
    listener: UnixListener,
    path: PathBuf,
}

/// CRIU at a turning point; dropped, it turns back.
#[derive(Debug)]
pub(crate) struct Waiting {
    stream: UnixStream,
    /// The VE's init, as CRIU tells it.
    pub(crate) init: u32,
}

impl Gate {
    /// Opens a gate at `path`, in place of one that a dead daemon left.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whoever has come, if somebody has.
    pub(crate) fn look(&self) -> io::Result<Option<Waiting>> {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(WORDS_TIMEOUT))?;
        let mut words = String::new();
        BufReader::new(&stream).read_line(&mut words)?;
        let init = words.trim().parse().map_err(io::Error::other)?;
        Ok(Some(Waiting { stream, init }))
    }
}

impl Waiting {
    /// Lets CRIU complete its work.
    pub(crate) fn let_on(mut self) -> io::Result<()> {
        self.stream.write_all(&[GO])
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // One that stays is replaced by the next.
        let _ = std::fs::remove_file(&self.path);
    }
}
