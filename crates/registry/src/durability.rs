//! Making commits durable, many with one flush.
//!
//! SQLite runs with `synchronous=NORMAL`: a commit is in the write-ahead log and survives the
//! daemon, but not a power cut, before the log is flushed. With `FULL` SQLite would flush within
//! each commit, one after the other, while it holds the database: 400 commits of a hundred VEs
//! made and started took 2.1 s on a disk that others used, too. Here whoever needs its commit to
//! be durable waits outside the lock; one of those that wait flushes the log for all. The log is
//! written front to back, so a durable commit never stands without those before it.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::schema::RegistryError;

/// The write-ahead log, as what has to be flushed.
#[derive(Debug)]
pub(crate) struct Durability {
    log: File,
    state: Mutex<State>,
    flushed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// How many have asked so far; each counts the commits before it.
    asked: u64,
    /// Up to which of them the log is flushed.
    durable: u64,
    flushing: bool,
    /// After a failed flush the kernel may have dropped what it could not write, and a later
    /// flush would succeed without it (fsync(2), "Errors"): nothing counts as durable any more.
    failed: Option<io::ErrorKind>,
}

impl Durability {
    /// For the registry in `path`, whose log exists.
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        // Closing a descriptor of the log harms no lock of SQLite's: those are on other files.
        let log = File::options().read(true).write(true).open(log)?;
        if let Some(folder) = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            File::open(folder)?.sync_all()?;
        }
        Ok(Self {
            log,
            state: Mutex::default(),
            flushed: Condvar::new(),
        })
    }

    /// Returns when every commit that was made before is on disk.
    pub(crate) fn wait(&self) -> Result<(), RegistryError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.asked += 1;
        let mine = state.asked;
        loop {
            if let Some(kind) = state.failed {
                return Err(RegistryError::Flush(kind.into()));
            }
            if state.durable >= mine {
                return Ok(());
            }
            if state.flushing {
                state = self
                    .flushed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.flushing = true;
            let covered = state.asked;
            drop(state);
            let outcome = self.log.sync_data();
            state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.flushing = false;
            match outcome {
                Ok(()) => state.durable = covered,
                Err(error) => state.failed = Some(error.kind()),
            }
            self.flushed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_who_waits_is_served() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.db");
        File::create(folder.path().join("registry.db-wal")).unwrap();
        let durability = Durability::new(&path).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| (0..20).for_each(|_| durability.wait().unwrap()));
            }
        });
        let state = durability.state.lock().unwrap();
        assert_eq!((state.asked, state.durable), (320, 320));
    }

    #[test]
    fn after_a_failed_flush_nothing_counts_as_durable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.db");
        // What is no file cannot be flushed (fsync(2), EINVAL).
        let log = folder.path().join("registry.db-wal");
        std::os::unix::fs::symlink("/dev/full", &log).unwrap();
        let durability = Durability::new(&path).unwrap();
        for _ in 0..2 {
            let error = durability.wait().unwrap_err();
            assert_eq!(
                error.to_string(),
                "the registry's log cannot be flushed to its disk"
            );
        }
    }
}
