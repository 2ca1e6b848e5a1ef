//! What VEs used in each month, and up to where it was added: for billing.
//!
//! Amounts are numbers with a name; which there are is the meter's to know. A VE is its number and when it
//! was created, since numbers are given again. Rows outlive their VE.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, Transaction, TransactionBehavior, params};
use ve::VeId;

use crate::schema::{Registry, RegistryError};

/// Months that are kept: ten years, which is as long as bills must be in most countries.
const MONTHS_KEPT: i64 = 120;

/// What is added to the account of one VE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountEntry {
    /// Its number.
    pub ve: VeId,
    /// When it was created, in seconds since 1970.
    pub created: u64,
    /// Its name.
    pub name: String,
    /// Up to where was added, in the meter's own words.
    pub baseline: String,
    /// What is added to each month (`2026-11`).
    pub months: Vec<(String, Vec<(String, u64)>)>,
}

/// Up to where the account of a VE was added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountBaseline {
    /// Its number.
    pub ve: u32,
    /// When it was created, in seconds since 1970.
    pub created: u64,
    /// Its name.
    pub name: String,
    /// The baseline, in the meter's own words.
    pub baseline: String,
}

/// What a VE used in a month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountMonth {
    /// The month (`2026-11`).
    pub month: String,
    /// The VE's number.
    pub ve: u32,
    /// When it was created, in seconds since 1970.
    pub created: u64,
    /// Its name, as last known.
    pub name: String,
    /// Amounts by name.
    pub amounts: BTreeMap<String, u64>,
}

impl Registry {
    /// Adds to accounts and moves their baselines, all or none. It survives the daemon's death at once;
    /// the disk is not waited for.
    ///
    /// # Errors
    /// When the database cannot be written; nothing was added then.
    pub fn accounts_add(&self, entries: &[AccountEntry]) -> Result<(), RegistryError> {
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for entry in entries {
            transaction.prepare_cached(
                "INSERT INTO account_baselines (ve, created, name, baseline) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (ve) DO UPDATE SET created = ?2, name = ?3, baseline = ?4",
            )?.execute(
                params![entry.ve.get(), entry.created.cast_signed(), entry.name, entry.baseline],
            )?;
            for (month, amounts) in &entry.months {
                add_month(&transaction, entry, month, amounts)?;
            }
        }
        transaction.execute(
            "DELETE FROM account_totals WHERE month <
             (SELECT strftime('%Y-%m', max(month) || '-01', ?1) FROM account_totals)",
            [format!("-{MONTHS_KEPT} months")],
        )?;
        transaction.commit()?;
        Ok(())
    }

    /// Up to where each account was added.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn account_baselines(&self) -> Result<Vec<AccountBaseline>, RegistryError> {
        let connection = self.connection();
        let mut statement = connection
            .prepare_cached("SELECT ve, created, name, baseline FROM account_baselines")?;
        let rows = statement.query_map([], |row| {
            Ok(AccountBaseline {
                ve: row.get(0)?,
                created: row.get::<_, i64>(1)?.cast_unsigned(),
                name: row.get(2)?,
                baseline: row.get(3)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What VEs used in a month, or in all that are kept, by month and number.
    ///
    /// # Errors
    /// When the database or a row cannot be read.
    pub fn account_months(&self, month: Option<&str>) -> Result<Vec<AccountMonth>, RegistryError> {
        let connection = self.connection();
        let mut statement = connection.prepare_cached(
            "SELECT month, ve, created, name, amounts FROM account_totals
             WHERE ?1 IS NULL OR month = ?1 ORDER BY month, ve, created",
        )?;
        let rows = statement.query_map([month], |row| {
            let text: String = row.get(4)?;
            let row = AccountMonth {
                month: row.get(0)?,
                ve: row.get(1)?,
                created: row.get::<_, i64>(2)?.cast_unsigned(),
                name: row.get(3)?,
                amounts: BTreeMap::new(),
            };
            Ok((row, text))
        })?;
        let mut months = Vec::new();
        for row in rows {
            let (mut row, text) = row?;
            row.amounts = parse(&text, &row.month, row.ve)?;
            months.push(row);
        }
        Ok(months)
    }
}

fn add_month(
    transaction: &Transaction<'_>,
    entry: &AccountEntry,
    month: &str,
    amounts: &[(String, u64)],
) -> Result<(), RegistryError> {
    let key = params![month, entry.ve.get(), entry.created.cast_signed()];
    let before: Option<String> = transaction
        .prepare_cached(
            "SELECT amounts FROM account_totals WHERE month = ?1 AND ve = ?2 AND created = ?3",
        )?
        .query_row(key, |row| row.get(0))
        .optional()?;
    let mut sums = match before {
        Some(text) => parse(&text, month, entry.ve.get())?,
        None => BTreeMap::new(),
    };
    for (name, amount) in amounts {
        let sum = sums.entry(name.clone()).or_default();
        *sum = sum.saturating_add(*amount);
    }
    let text =
        serde_json::to_string(&sums).map_err(|error| damaged(month, entry.ve.get(), &error))?;
    transaction
        .prepare_cached(
            "INSERT INTO account_totals (month, ve, created, name, amounts) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (month, ve, created) DO UPDATE SET name = ?4, amounts = ?5",
        )?
        .execute(params![
            month,
            entry.ve.get(),
            entry.created.cast_signed(),
            entry.name,
            text
        ])?;
    Ok(())
}

fn parse(text: &str, month: &str, ve: u32) -> Result<BTreeMap<String, u64>, RegistryError> {
    serde_json::from_str(text).map_err(|error| damaged(month, ve, &error))
}

fn damaged(month: &str, ve: u32, error: &serde_json::Error) -> RegistryError {
    RegistryError::Record {
        what: format!("what VE {ve} used in {month}"),
        finding: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn entry(number: u32, month: &str, amount: u64) -> AccountEntry {
        AccountEntry {
            ve: VeId::new(number).unwrap(),
            created: 5,
            name: format!("ve-{number}"),
            baseline: amount.to_string(),
            months: vec![(month.to_owned(), vec![("cpu".to_owned(), amount)])],
        }
    }

    #[test]
    fn what_is_added_is_there_for_the_next_opener() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("registry.db");
        let registry = Registry::open(&path).unwrap();
        registry
            .accounts_add(&[entry(100, "2026-11", 5), entry(101, "2026-11", 1)])
            .unwrap();
        registry
            .accounts_add(&[entry(100, "2026-11", 7), entry(100, "2026-12", 2)])
            .unwrap();
        drop(registry);
        let registry = Registry::open(&path).unwrap();
        let of = |month| -> Vec<(u32, u64)> {
            let rows = registry.account_months(month).unwrap();
            rows.iter()
                .map(|row| (row.ve, row.amounts["cpu"]))
                .collect()
        };
        assert_eq!(of(Some("2026-11")), [(100, 12), (101, 1)]);
        assert_eq!(of(None), [(100, 12), (101, 1), (100, 2)]);
        let baselines = registry.account_baselines().unwrap();
        assert_eq!((baselines.len(), baselines[0].baseline.as_str()), (2, "2"));
    }

    #[test]
    fn months_of_more_than_ten_years_ago_go() {
        let folder = TempDir::new().unwrap();
        let registry = Registry::open(&folder.path().join("registry.db")).unwrap();
        registry
            .accounts_add(&[entry(100, "2026-10", 1), entry(100, "2026-11", 1)])
            .unwrap();
        registry.accounts_add(&[entry(100, "2036-11", 1)]).unwrap();
        let months = registry.account_months(None).unwrap();
        let months: Vec<&str> = months.iter().map(|row| row.month.as_str()).collect();
        assert_eq!(months, ["2026-11", "2036-11"]);
    }
}
