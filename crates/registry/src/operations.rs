//! The journal of operations, and the events that they leave.

use rusqlite::{OptionalExtension, Row, Transaction, TransactionBehavior, params};
use ve::VeId;

use crate::record::VeRecord;
use crate::schema::{Registry, RegistryError};
use crate::ves::{self, CreateConflict};

/// Ended operations that are kept for people to look at.
const ENDED_KEPT: i64 = 10_000;
/// Events that are kept for those who follow them late.
const EVENTS_KEPT: i64 = 50_000;

/// The number of an operation; later ones are larger.
pub type OperationId = i64;

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationState {
    /// It waits for its VE's driver.
    Queued,
    /// Its steps are being carried out.
    Running,
    /// It did what it was asked for.
    Done,
    /// It failed, and what it had done was undone.
    Failed,
    /// It was cancelled, and what it had done was undone.
    Cancelled,
}

/// An operation to be journalled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOperation {
    /// Its verb.
    pub kind: &'static str,
    /// The VE, where it has one.
    pub ve: Option<VeId>,
    /// The VE's or template's name.
    pub subject: String,
    /// What was asked for, in the engine's own words.
    pub request: String,
}

/// An operation as journalled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its number.
    pub id: OperationId,
    /// Its verb.
    pub kind: String,
    /// The number of its VE.
    pub ve: Option<u32>,
    /// The VE's or template's name.
    pub subject: String,
    /// What was asked for, in the engine's own words.
    pub request: String,
    /// How far it is.
    pub state: OperationState,
    /// Its outcome in words.
    pub message: Option<String>,
    /// The stable word for its failure.
    pub error_code: Option<String>,
    /// When it was asked for, in seconds since 1970.
    pub created: u64,
    /// When it ended.
    pub ended: Option<u64>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its number; later ones are larger.
    pub id: i64,
    /// When, in seconds since 1970.
    pub at: u64,
    /// A stable word, as `ve-started`.
    pub kind: String,
    /// The number of the VE.
    pub ve: Option<u32>,
    /// The VE's or template's name.
    pub subject: String,
    /// Words for people.
    pub message: Option<String>,
}

/// What an operation leaves in the record of its VE when it ends.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// Nothing changed.
    Unchanged,
    /// This takes the record's place.
    Record(&'a VeRecord),
    /// The VE is no more.
    Forget(VeId),
}

impl OperationState {
    const ALL: [Self; 5] = [
        Self::Queued,
        Self::Running,
        Self::Done,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The word for it in tables, JSON and the journal.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

const COLUMNS: &str = "id, kind, ve, subject, request, state, message, error_code, created, ended";

impl Registry {
    /// Journals an operation that reserves nothing. It survives the daemon at once, and a power cut
    /// with the next call that waits for the disk.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn operation_insert(
        &self,
        operation: &NewOperation,
        now: u64,
    ) -> Result<OperationId, RegistryError> {
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let id = insert(&transaction, operation, now)?;
        transaction.commit()?;
        Ok(id)
    }

    /// Ends an operation and records what it left, both or neither, with an event. An operation
    /// never ends before it began, also when the clock was set back meanwhile.
    ///
    /// # Errors
    /// Names an address that another VE has; nothing is changed then.
    pub fn operation_end(
        &self,
        id: OperationId,
        state: OperationState,
        failure: Option<(&str, &str)>,
        outcome: Outcome<'_>,
        event: &Event,
    ) -> Result<i64, CreateConflict> {
        let event = self.operation_end_unwaited(id, state, failure, outcome, event)?;
        self.sync()?;
        Ok(event)
    }

    /// The same without waiting for the disk, for what nobody was told: it survives the daemon at once, and a
    /// power cut with the next call that waits.
    ///
    /// # Errors
    /// Names an address that another VE has; nothing is changed then.
    pub fn operation_end_unwaited(
        &self,
        id: OperationId,
        state: OperationState,
        failure: Option<(&str, &str)>,
        outcome: Outcome<'_>,
        event: &Event,
    ) -> Result<i64, CreateConflict> {
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        leave(&transaction, outcome)?;
        let (code, message) = failure.unzip();
        transaction.execute(
            "UPDATE operations SET state = ?2, message = ?3, error_code = ?4,
             ended = max(created, ?5) WHERE id = ?1",
            params![id, state.as_str(), message, code, stamp(event.at)],
        )?;
        transaction.execute(
            "DELETE FROM operations WHERE ended IS NOT NULL AND id <= ?1",
            [id - ENDED_KEPT],
        )?;
        let event = event_insert(&transaction, event)?;
        transaction.commit()?;
        Ok(event)
    }

    /// Records what happened outside of any operation, with its event, both or neither.
    ///
    /// # Errors
    /// Names an address that another VE has; nothing is changed then.
    pub fn record(&self, outcome: Outcome<'_>, event: &Event) -> Result<i64, CreateConflict> {
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        leave(&transaction, outcome)?;
        let id = event_insert(&transaction, event)?;
        transaction.commit()?;
        drop(connection);
        self.sync()?;
        Ok(id)
    }

    /// One operation.
    ///
    /// # Errors
    /// When the database or the record cannot be read.
    pub fn operation(&self, id: OperationId) -> Result<Option<Operation>, RegistryError> {
        let sql = format!("SELECT {COLUMNS} FROM operations WHERE id = ?1");
        Ok(self.connection().query_row(&sql, [id], read).optional()?)
    }

    /// The newest operations first, at most `most`.
    ///
    /// # Errors
    /// When the database or a record cannot be read.
    pub fn operations(&self, most: u32) -> Result<Vec<Operation>, RegistryError> {
        let connection = self.connection();
        let sql = format!("SELECT {COLUMNS} FROM operations ORDER BY id DESC LIMIT ?1");
        let mut statement = connection.prepare_cached(&sql)?;
        Ok(statement
            .query_map([most], read)?
            .collect::<Result<_, _>>()?)
    }

    /// Operations that never ended, oldest first: what was under way when the node went down.
    ///
    /// # Errors
    /// When the database or a record cannot be read.
    pub fn operations_open(&self) -> Result<Vec<Operation>, RegistryError> {
        let connection = self.connection();
        let sql = format!("SELECT {COLUMNS} FROM operations WHERE ended IS NULL ORDER BY id");
        let mut statement = connection.prepare_cached(&sql)?;
        Ok(statement.query_map([], read)?.collect::<Result<_, _>>()?)
    }

    /// Events after the one numbered `after`, oldest first, at most `most`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn events_after(&self, after: i64, most: u32) -> Result<Vec<Event>, RegistryError> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(
            "SELECT id, at, kind, ve, subject, message FROM events WHERE id > ?1 ORDER BY id LIMIT ?2",
        )?;
        let events = statement.query_map(params![after, most], |row| {
            Ok(Event {
                id: row.get(0)?,
                at: row.get::<_, i64>(1)?.cast_unsigned(),
                kind: row.get(2)?,
                ve: row.get(3)?,
                subject: row.get(4)?,
                message: row.get(5)?,
            })
        })?;
        Ok(events.collect::<Result<_, _>>()?)
    }

    /// The number of the newest event, 0 where there is none.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn event_newest(&self) -> Result<i64, RegistryError> {
        let sql = "SELECT coalesce(max(id), 0) FROM events";
        Ok(self.connection().query_row(sql, [], |row| row.get(0))?)
    }
}

pub(crate) fn insert(
    transaction: &Transaction<'_>,
    operation: &NewOperation,
    now: u64,
) -> Result<OperationId, RegistryError> {
    transaction.execute(
        "INSERT INTO operations (kind, ve, subject, request, state, created)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            operation.kind,
            operation.ve.map(VeId::get),
            operation.subject,
            operation.request,
            OperationState::Queued.as_str(),
            stamp(now),
        ],
    )?;
    Ok(transaction.last_insert_rowid())
}

fn leave(transaction: &Transaction<'_>, outcome: Outcome<'_>) -> Result<(), CreateConflict> {
    match outcome {
        Outcome::Unchanged => Ok(()),
        Outcome::Record(record) => ves::update(transaction, record),
        Outcome::Forget(ve) => Ok(ves::forget(transaction, ve)?),
    }
}

fn event_insert(transaction: &Transaction<'_>, event: &Event) -> Result<i64, rusqlite::Error> {
    transaction.execute(
        "INSERT INTO events (at, kind, ve, subject, message) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![
            stamp(event.at),
            event.kind,
            event.ve,
            event.subject,
            event.message
        ],
    )?;
    let id = transaction.last_insert_rowid();
    transaction.execute("DELETE FROM events WHERE id <= ?1", [id - EVENTS_KEPT])?;
    Ok(id)
}

pub(crate) fn stamp(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

fn read(row: &Row<'_>) -> Result<Operation, rusqlite::Error> {
    let state: String = row.get(5)?;
    let known = OperationState::ALL
        .into_iter()
        .find(|known| known.as_str() == state);
    Ok(Operation {
        id: row.get(0)?,
        kind: row.get(1)?,
        ve: row.get(2)?,
        subject: row.get(3)?,
        request: row.get(4)?,
        state: known.ok_or_else(|| {
            let source = format!("there is no operation state `{state}`").into();
            rusqlite::Error::FromSqlConversionFailure(5, rusqlite::types::Type::Text, source)
        })?,
        message: row.get(6)?,
        error_code: row.get(7)?,
        created: row.get::<_, i64>(8)?.cast_unsigned(),
        ended: row.get::<_, Option<i64>>(9)?.map(i64::cast_unsigned),
    })
}
