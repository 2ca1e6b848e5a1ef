//! The lock between those who add contents and those who remove them.

use std::fs::{File, OpenOptions};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::{Catalogue, CatalogueError};

/// How often a taken lock is tried again. The kernel could wait, but not be told to stop waiting.
const POLL: Duration = Duration::from_millis(20);

/// Held until dropped.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "the lock lives as long as the file")] File);

/// Locks out those who remove. Waits as long as `wait` says yes.
pub(super) fn shared(
    catalogue: &Catalogue,
    wait: impl Fn() -> bool,
) -> Result<Lock, CatalogueError> {
    acquire(catalogue, FlockOperation::NonBlockingLockShared, wait)
}

/// Locks out everybody.
pub(super) fn exclusive(catalogue: &Catalogue, patience: Duration) -> Result<Lock, CatalogueError> {
    let begin = Instant::now();
    let wait = || begin.elapsed() < patience;
    acquire(catalogue, FlockOperation::NonBlockingLockExclusive, wait)
}

fn acquire(
    catalogue: &Catalogue,
    operation: FlockOperation,
    wait: impl Fn() -> bool,
) -> Result<Lock, CatalogueError> {
    let path = catalogue.path.join("lock");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(CatalogueError::system("open", &path))?;
    loop {
        match rustix::fs::flock(&file, operation) {
            Ok(()) => return Ok(Lock(file)),
            Err(Errno::WOULDBLOCK) if wait() => std::thread::sleep(POLL),
            Err(Errno::WOULDBLOCK) => return Err(CatalogueError::Busy),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(CatalogueError::system("lock", &path)(errno.into())),
        }
    }
}
