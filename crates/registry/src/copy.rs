//! A copy of the whole registry beside it, for the day on which the registry itself is damaged.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use crate::schema::Registry;

/// Why no copy could be made. The one that was there is as before.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// SQLite cannot read the registry, or not write the copy.
    #[error("the registry cannot be copied")]
    Database(#[from] rusqlite::Error),
    /// The copy cannot be put in its place.
    #[error("the copy of the registry cannot be put in its place")]
    Place(#[from] io::Error),
}

impl Registry {
    /// Moves what is recorded from the log into the registry's file, and writes all of it to a file of
    /// its own, which takes the place of the one at `copy` at once and whole. Others read and write the
    /// registry meanwhile.
    ///
    /// # Errors
    /// See [`CopyError`].
    pub fn copy_to(&self, copy: &Path) -> Result<(), CopyError> {
        let new = copy.with_extension("new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let source = {
            let connection = self.connection();
            connection.path().unwrap_or_default().to_owned()
        };
        // `VACUUM INTO` gives its file the mode of the registry, which root alone can read.
        let other = Connection::open_with_flags(source, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        // So that a log that is lost takes no more with it than what came after this.
        other.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        other.execute("VACUUM INTO ?1", [new.to_string_lossy()])?;
        File::open(&new)?.sync_all()?;
        fs::rename(&new, copy)?;
        if let Some(folder) = copy.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }

    /// How many rows were written so far: the same number means that a copy is as good as another.
    pub fn changes(&self) -> u64 {
        self.connection().total_changes()
    }
}
