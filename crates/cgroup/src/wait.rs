//! Waiting for the kernel to change a key of `cgroup.events`, without polling in a loop.

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::error::FileError;
use crate::files::{Directory, failure, keyed};

/// Waits until `key` in the events file has `value`. Answers whether it came to that in time; a
/// group that is gone has no processes, so it counts as so.
pub(crate) fn for_event(
    directory: &Directory,
    file: &Path,
    key: &str,
    value: u64,
    timeout: Duration,
) -> Result<bool, FileError> {
    let start = Instant::now();
    let events = match directory.open_file(file, OFlags::RDONLY) {
        Err(error) if error.is_missing() => return Ok(value == 0),
        other => other?,
    };
    loop {
        let mut buffer = [0_u8; 256];
        let length = match rustix::io::pread(&events, &mut buffer, 0) {
            Ok(length) => length,
            Err(Errno::NODEV) => return Ok(value == 0),
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(failure("read", directory.path().join(file), errno)),
        };
        let text = String::from_utf8_lossy(&buffer[..length]);
        if keyed(&text, key) == Some(value) {
            return Ok(true);
        }
        let Some(left) = timeout
            .checked_sub(start.elapsed())
            .filter(|left| !left.is_zero())
        else {
            return Ok(false);
        };
        // The kernel wakes those who poll a file that changed after they read it.
        let mut fds = [PollFd::new(&events, PollFlags::PRI)];
        let left = Timespec::try_from(left).ok();
        match rustix::event::poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(failure("wait for", directory.path().join(file), errno)),
        }
    }
}
