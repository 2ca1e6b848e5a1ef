//! The database itself: opening it, its tables, its version.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};

use crate::durability::Durability;
use crate::shared::Shared;

/// Version of the tables that [`FORMATS`] make. A database of a newer version is refused, not
/// guessed at.
const VERSION: usize = FORMATS.len();

/// How long to wait for another process that holds the database (a person with `sqlite3`).
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// What leads from each version of the tables to the next, beginning with none. Only ever added to.
pub(crate) const FORMATS: [&str; 8] = [
    TABLES,
    STAGES,
    GUARANTEES,
    ACCOUNTS,
    GROWTH,
    OWNERS,
    APPLICATIONS,
    REVISIONS,
];

/// A specification may say how memory grows, and what was given: see [`GUARANTEES`].
const GROWTH: &str = "";

/// A VE's specification may name its owner and describe it. No table changes; see [`GUARANTEES`].
const OWNERS: &str = "";

/// A VE's specification may hold applications, and a record may be of a sandbox. No table changes; an older node
/// would start the VEs on the wrong files.
const APPLICATIONS: &str = "";

/// A VE's specification may hold the revision of its template. No table changes; see [`APPLICATIONS`].
const REVISIONS: &str = "";

/// A VE's specification may hold guarantees, bursts and rates. No table changes; the number keeps an older
/// node from dropping them silently when it writes the specification again.
const GUARANTEES: &str = "";

/// What VEs used; documents of other parts of the node; messages that wait.
const ACCOUNTS: &str = "
CREATE TABLE account_baselines (
    ve INTEGER PRIMARY KEY,
    created INTEGER NOT NULL,
    name TEXT NOT NULL,
    baseline TEXT NOT NULL
) STRICT;
CREATE TABLE account_totals (
    month TEXT NOT NULL,
    ve INTEGER NOT NULL,
    created INTEGER NOT NULL,
    name TEXT NOT NULL,
    amounts TEXT NOT NULL,
    PRIMARY KEY (month, ve, created)
) STRICT, WITHOUT ROWID;
CREATE TABLE documents (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    channel TEXT NOT NULL,
    body TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    next INTEGER NOT NULL
) STRICT;
";

/// A VE can be on its way out, and can have left something behind.
const STAGES: &str = "
ALTER TABLE ves ADD COLUMN stage TEXT NOT NULL DEFAULT 'whole';
ALTER TABLE ves ADD COLUMN unclean INTEGER NOT NULL DEFAULT 0;
UPDATE ves SET stage = 'creating' WHERE created = 0;
ALTER TABLE ves DROP COLUMN created;
";

const TABLES: &str = "
CREATE TABLE ves (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    spec TEXT NOT NULL,
    state TEXT NOT NULL,
    run TEXT,
    fault TEXT,
    first_boot TEXT,
    created INTEGER NOT NULL
) STRICT;
CREATE TABLE addresses (
    address TEXT PRIMARY KEY,
    ve INTEGER NOT NULL REFERENCES ves(id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
CREATE INDEX addresses_of_ve ON addresses(ve);
CREATE TABLE operations (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    ve INTEGER,
    subject TEXT NOT NULL,
    request TEXT NOT NULL,
    state TEXT NOT NULL,
    message TEXT,
    error_code TEXT,
    created INTEGER NOT NULL,
    ended INTEGER
) STRICT;
CREATE INDEX operations_open ON operations(state) WHERE ended IS NULL;
CREATE TABLE events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    ve INTEGER,
    subject TEXT NOT NULL,
    message TEXT
) STRICT;
";

/// The records of a node.
#[derive(Debug)]
pub struct Registry {
    connection: Mutex<Connection>,
    durability: Durability,
    shared: Shared,
}

/// Why the registry could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// SQLite could not open it or set it up.
    #[error("cannot open the registry {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// SQLite's words.
        source: rusqlite::Error,
    },
    /// Its write-ahead log, which SQLite made beside it, could not be opened.
    #[error("cannot open the log of the registry {}", path.display())]
    Log {
        /// The registry's file.
        path: PathBuf,
        /// The kernel's words.
        source: std::io::Error,
    },
    /// The file is there and is damaged.
    #[error(
        "the registry {} is damaged ({finding}); stop the node, keep a copy of the file, and \
         bring back an undamaged one",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The first thing that SQLite's check found.
        finding: String,
    },
    /// A newer Vessel wrote it.
    #[error(
        "the registry {} has format {found}, and this vesseld knows only {VERSION}; \
         use the newer vesseld",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
    },
}

/// Why a record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// SQLite failed: most often a full disk.
    #[error("the registry cannot be used")]
    Database(#[from] rusqlite::Error),
    /// The disk failed.
    #[error("the registry's log cannot be flushed to its disk")]
    Flush(#[source] std::io::Error),
    /// A record does not hold what it must.
    #[error("the registry's record of {what} cannot be read: {finding}")]
    Record {
        /// Which record.
        what: String,
        /// What is wrong in it.
        finding: String,
    },
}

impl Registry {
    /// Opens the registry in `path`, making it where there is none.
    ///
    /// # Errors
    /// Refuses a file that SQLite's own check finds damaged, and one of a newer format.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let open = |source| OpenError::Open {
            path: path.to_owned(),
            source,
        };
        let mut connection = Connection::open(path).map_err(open)?;
        prepare(&mut connection).map_err(|error| match error {
            Preparation::Sqlite(source) if is_damage(&source) => OpenError::Damaged {
                path: path.to_owned(),
                finding: source.to_string(),
            },
            Preparation::Sqlite(source) => open(source),
            Preparation::Damaged(finding) => OpenError::Damaged {
                path: path.to_owned(),
                finding,
            },
            Preparation::Newer(found) => OpenError::Newer {
                path: path.to_owned(),
                found,
            },
        })?;
        let shared = Shared::watch(&mut connection).map_err(open)?;
        let durability = Durability::new(path).map_err(|source| OpenError::Log {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            connection: Mutex::new(connection),
            durability,
            shared,
        })
    }

    /// Returns when everything that was written before is on disk.
    ///
    /// # Errors
    /// When the disk failed; what was written since the last success may be lost by a power cut.
    pub fn sync(&self) -> Result<(), RegistryError> {
        self.durability.wait()
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The connection, for one transaction. A panic of another holder has rolled its transaction
    /// back, so the connection is whole.
    pub(crate) fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

enum Preparation {
    Sqlite(rusqlite::Error),
    Damaged(String),
    Newer(i64),
}

impl From<rusqlite::Error> for Preparation {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn prepare(connection: &mut Connection) -> Result<(), Preparation> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    let finding: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if finding != "ok" {
        return Err(Preparation::Damaged(finding));
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = transaction.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let Some(steps) = usize::try_from(found)
        .ok()
        .and_then(|found| FORMATS.get(found..))
    else {
        return Err(Preparation::Newer(found));
    };
    if !steps.is_empty() {
        steps
            .iter()
            .try_for_each(|step| transaction.execute_batch(step))?;
        transaction.execute_batch(&format!("PRAGMA user_version = {VERSION}"))?;
    }
    transaction.commit()?;
    Ok(())
}

fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    matches!(
        error.sqlite_error_code(),
        Some(DatabaseCorrupt | NotADatabase)
    )
}
