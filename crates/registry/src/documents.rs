//! Small records whose form only their owner knows (rules and states of alerts), and messages that wait
//! to be sent.
//!
//! A message is put in the outbox in the transaction that records why, and leaves it when somebody has taken
//! it: so it is sent at least once, whatever is killed between.

use rusqlite::{OptionalExtension, TransactionBehavior, params};

use crate::operations::stamp;
use crate::schema::{Registry, RegistryError};

/// Most messages that wait. When more come, the oldest go: a channel that was dead for weeks should not be
/// flooded when it is back.
const OUTBOX_MAX: i64 = 10_000;

/// A change of documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentChange {
    /// What kind of record.
    pub kind: &'static str,
    /// Which of them.
    pub key: String,
    /// What it is from now on; nothing to remove it.
    pub body: Option<String>,
}

/// A message that waits to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its number, never given again.
    pub id: i64,
    /// Where it goes.
    pub channel: String,
    /// What it says, in its owner's own words.
    pub body: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried next, in seconds since 1970.
    pub next: u64,
}

impl Registry {
    /// All documents of a kind, by key.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn documents(&self, kind: &str) -> Result<Vec<(String, String)>, RegistryError> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached("SELECT key, body FROM documents WHERE kind = ?1 ORDER BY key")?;
        let rows = statement.query_map([kind], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// One document.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn document(&self, kind: &str, key: &str) -> Result<Option<String>, RegistryError> {
        let connection = self.connection();
        let mut statement =
            connection.prepare_cached("SELECT body FROM documents WHERE kind = ?1 AND key = ?2")?;
        Ok(statement
            .query_row([kind, key], |row| row.get(0))
            .optional()?)
    }

    /// Changes documents and puts messages (channel, body) in the outbox, all or none, to be tried at
    /// once. On disk when it returns.
    ///
    /// # Errors
    /// When the database cannot be written; nothing was changed then.
    pub fn documents_change(
        &self,
        changes: &[DocumentChange],
        messages: &[(String, String)],
        now: u64,
    ) -> Result<(), RegistryError> {
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for change in changes {
            match &change.body {
                Some(body) => transaction.execute(
                    "INSERT INTO documents (kind, key, body) VALUES (?1, ?2, ?3)
                     ON CONFLICT (kind, key) DO UPDATE SET body = ?3",
                    params![change.kind, change.key, body],
                )?,
                None => transaction.execute(
                    "DELETE FROM documents WHERE kind = ?1 AND key = ?2",
                    params![change.kind, change.key],
                )?,
            };
        }
        for (channel, body) in messages {
            transaction.execute(
                "INSERT INTO outbox (channel, body, attempts, next) VALUES (?1, ?2, 0, ?3)",
                params![channel, body, stamp(now)],
            )?;
        }
        transaction.execute(
            "DELETE FROM outbox WHERE id <= (SELECT max(id) FROM outbox) - ?1",
            [OUTBOX_MAX],
        )?;
        transaction.commit()?;
        drop(connection);
        self.sync()
    }

    /// Messages that wait for a channel and are to be tried by now, oldest first, at most `most`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn outbox_due(
        &self,
        channel: &str,
        now: u64,
        most: u32,
    ) -> Result<Vec<Message>, RegistryError> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(
            "SELECT id, channel, body, attempts, next FROM outbox
             WHERE channel = ?1 AND next <= ?2 ORDER BY id LIMIT ?3",
        )?;
        let key = params![channel, stamp(now), most];
        let rows = statement.query_map(key, |row| {
            Ok(Message {
                id: row.get(0)?,
                channel: row.get(1)?,
                body: row.get(2)?,
                attempts: row.get(3)?,
                next: row.get::<_, i64>(4)?.cast_unsigned(),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// How many messages wait for each channel, and when the first of them is tried.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn outbox_waiting(&self) -> Result<Vec<(String, u64, u64)>, RegistryError> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(
            "SELECT channel, count(*), min(next) FROM outbox GROUP BY channel ORDER BY channel",
        )?;
        let rows = statement.query_map([], |row| {
            let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
            Ok((row.get(0)?, number(1)?, number(2)?))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Drops what waits for a channel that is no more.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn outbox_drop(&self, channel: &str) -> Result<(), RegistryError> {
        let connection = self.connection();
        connection.execute("DELETE FROM outbox WHERE channel = ?1", [channel])?;
        Ok(())
    }

    /// Takes messages out of the outbox: they were sent, or are given up.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn outbox_remove(&self, ids: &[i64]) -> Result<(), RegistryError> {
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for id in ids {
            transaction.execute("DELETE FROM outbox WHERE id = ?1", [id])?;
        }
        Ok(transaction.commit()?)
    }

    /// Says that messages could not be sent, and when they are tried again.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn outbox_postpone(&self, ids: &[i64], next: u64) -> Result<(), RegistryError> {
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for id in ids {
            transaction.execute(
                "UPDATE outbox SET attempts = attempts + 1, next = ?2 WHERE id = ?1",
                params![id, stamp(next)],
            )?;
        }
        Ok(transaction.commit()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn put(key: &str, body: Option<&str>) -> DocumentChange {
        DocumentChange {
            kind: "test",
            key: key.to_owned(),
            body: body.map(str::to_owned),
        }
    }

    #[test]
    fn a_message_waits_until_somebody_took_it() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("registry.db");
        let registry = Registry::open(&path).unwrap();
        let messages = [
            ("mail".to_owned(), "one".to_owned()),
            ("mail".to_owned(), "two".to_owned()),
        ];
        registry
            .documents_change(&[put("a", Some("1"))], &messages, 7)
            .unwrap();
        drop(registry);
        let registry = Registry::open(&path).unwrap();
        let waiting = registry.outbox_due("mail", 7, 10).unwrap();
        assert_eq!(
            (waiting.len(), waiting[0].body.as_str(), waiting[0].next),
            (2, "one", 7)
        );
        registry.outbox_postpone(&[waiting[0].id], 90).unwrap();
        registry.outbox_remove(&[waiting[1].id]).unwrap();
        assert_eq!(registry.outbox_due("mail", 89, 10).unwrap(), [], "not yet");
        assert_eq!(
            registry.outbox_waiting().unwrap(),
            [("mail".to_owned(), 1, 90)]
        );
        let left = registry.outbox_due("mail", 90, 10).unwrap();
        assert_eq!((left.len(), left[0].attempts, left[0].next), (1, 1, 90));
        // Numbers are not given again, so that a receiver may drop what it knows.
        registry.outbox_remove(&[left[0].id]).unwrap();
        registry.documents_change(&[], &messages[..1], 8).unwrap();
        let next = registry.outbox_due("mail", u64::MAX, 10).unwrap();
        assert!(next[0].id > waiting[1].id);
        registry.outbox_drop("other").unwrap();
        assert_eq!(registry.outbox_waiting().unwrap().len(), 1);
        registry.outbox_drop("mail").unwrap();
        assert_eq!(registry.outbox_waiting().unwrap(), []);
    }

    #[test]
    fn documents_are_put_replaced_and_removed() {
        let folder = TempDir::new().unwrap();
        let registry = Registry::open(&folder.path().join("registry.db")).unwrap();
        let change = |change| registry.documents_change(&[change], &[], 0).unwrap();
        change(put("b", Some("1")));
        change(put("a", Some("2")));
        change(put("b", Some("3")));
        let all = registry.documents("test").unwrap();
        assert_eq!(
            all,
            [
                ("a".to_owned(), "2".to_owned()),
                ("b".to_owned(), "3".to_owned())
            ]
        );
        change(put("a", None));
        assert_eq!(registry.document("test", "a").unwrap(), None);
        assert_eq!(
            registry.document("test", "b").unwrap().as_deref(),
            Some("3")
        );
        assert!(registry.documents("other").unwrap().is_empty());
    }
}
