//! All records in memory, as long as nobody changes them.
//!
//! Whoever looks at all VEs again and again (the meter, a list) would read and parse each record anew: 15 us each,
//! and a node at rest changes none. SQLite itself says when a row of the table was written by this connection
//! (`sqlite3_update_hook`), and when the file was by another (`PRAGMA data_version`): a person with `sqlite3`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;

use crate::record::VeRecord;
use crate::schema::{Registry, RegistryError};
use crate::ves::{COLUMNS, raw};

/// The table that is watched.
const TABLE: &str = "ves";

/// Records as they were last read.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Rows that this connection wrote so far, in transactions that came to nothing, too.
    written: Arc<AtomicU64>,
    read: Mutex<Option<Read>>,
}

#[derive(Debug)]
struct Read {
    /// What was written before they were read, by this connection and by others.
    version: (u64, i64),
    records: Arc<[Arc<VeRecord>]>,
}

impl Shared {
    /// Watches a connection.
    pub(crate) fn watch(connection: &mut Connection) -> Result<Self, rusqlite::Error> {
        let shared = Self::default();
        let written = Arc::clone(&shared.written);
        connection.update_hook(Some(move |_, _: &str, table: &str, _| {
            if table == TABLE {
                written.fetch_add(1, Ordering::Relaxed);
            }
        }))?;
        Ok(shared)
    }
}

impl Registry {
    /// Every VE by number, unfinished ones, too: the records that the last caller got, unless one was changed.
    ///
    /// # Errors
    /// When the database or a record cannot be read.
    pub fn ves_shared(&self) -> Result<Arc<[Arc<VeRecord>]>, RegistryError> {
        let connection = self.connection();
        // Nobody writes by this connection while its lock is held.
        let written = self.shared().written.load(Ordering::Relaxed);
        let version: i64 = connection
            .prepare_cached("PRAGMA data_version")?
            .query_row([], |row| row.get(0))?;
        let version = (written, version);
        let mut read = self
            .shared()
            .read
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(read) = read.as_ref().filter(|read| read.version == version) {
            return Ok(Arc::clone(&read.records));
        }
        let sql = format!("SELECT {COLUMNS} FROM {TABLE} ORDER BY id");
        let mut statement = connection.prepare_cached(&sql)?;
        let rows = statement
            .query_map([], raw)?
            .collect::<Result<Vec<_>, _>>()?;
        let records = rows.into_iter().map(|row| row.read().map(Arc::new));
        let records: Arc<[_]> = records.collect::<Result<_, _>>()?;
        *read = Some(Read {
            version,
            records: Arc::clone(&records),
        });
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operations::{Event, NewOperation, Outcome};
    use crate::record::FirstBoot;
    use crate::ves::CreateConflict;
    use tempfile::TempDir;
    use ve::{Name, Spec, State, VeId};

    fn create(registry: &Registry, number: u32) {
        let spec = |number| {
            let name = Name::new(&format!("ve-{number}")).unwrap();
            let id = VeId::new(number).unwrap();
            Spec::new(id, name, Name::new("debian").unwrap(), 5)
        };
        let operation = NewOperation {
            kind: "create",
            ve: None,
            subject: String::new(),
            request: String::new(),
        };
        let made = |_: &_, _: &_| Ok::<_, CreateConflict>((spec(number), operation));
        let first_boot = FirstBoot::default();
        registry.create_reserve(&first_boot, 5, made).unwrap();
    }

    #[test]
    fn records_are_read_again_when_one_changed_and_only_then() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("registry.db");
        let registry = Registry::open(&path).unwrap();
        create(&registry, 100);
        let first = registry.ves_shared().unwrap();
        let event = Event {
            id: 0,
            at: 5,
            kind: "something-else".to_owned(),
            ve: None,
            subject: String::new(),
            message: None,
        };
        registry.record(Outcome::Unchanged, &event).unwrap();
        assert!(Arc::ptr_eq(&first, &registry.ves_shared().unwrap()));

        let mut record = (*first[0]).clone();
        record.state = State::Running;
        registry.ve_update(&record).unwrap();
        assert_eq!(registry.ves_shared().unwrap()[0].state, State::Running);
        assert_eq!(first[0].state, State::Stopped);
        registry
            .record(Outcome::Forget(record.spec.id), &event)
            .unwrap();
        assert!(registry.ves_shared().unwrap().is_empty());
    }

    #[test]
    fn what_another_program_writes_is_seen() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("registry.db");
        let registry = Registry::open(&path).unwrap();
        create(&registry, 100);
        assert_eq!(registry.ves().unwrap().len(), 1);
        let other = Connection::open(&path).unwrap();
        other.execute("DELETE FROM ves", []).unwrap();
        assert!(registry.ves().unwrap().is_empty());
    }
}
