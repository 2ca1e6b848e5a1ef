//! Records of VEs: reserving, reading, changing, forgetting.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rusqlite::{OptionalExtension, Row, Transaction, TransactionBehavior, params};
use ve::{Name, Spec, State, VeId};

use crate::operations::{self, NewOperation, OperationId};
use crate::record::{FirstBoot, Stage, VeRecord};
use crate::schema::{Registry, RegistryError};
use crate::stored::{StoredFirstBoot, StoredRun, StoredSpec};

/// Why a new VE cannot have what it asks for.
#[derive(Debug, thiserror::Error)]
pub enum CreateConflict {
    /// Another VE has the name.
    #[error("the name `{name}` is taken by VE {holder}")]
    Name {
        /// The name.
        name: Name,
        /// Who has it.
        holder: VeId,
    },
    /// Another VE has an address.
    #[error("the address {address} is taken by VE {holder}")]
    Address {
        /// The address.
        address: IpAddr,
        /// Who has it.
        holder: VeId,
    },
    /// The registry failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl From<rusqlite::Error> for CreateConflict {
    fn from(error: rusqlite::Error) -> Self {
        Self::Registry(error.into())
    }
}

pub(crate) const COLUMNS: &str = "id, spec, state, run, fault, first_boot, stage, unclean";

impl Registry {
    /// Reserves number, name and addresses of a new VE and journals the operation that makes it,
    /// both or neither. `choose` makes the specification out of the numbers and addresses that are
    /// taken, within the transaction, so that two VEs can never be given the same. A power cut may
    /// undo it until the next call that waits for the disk; the daemon's death does not.
    ///
    /// # Errors
    /// Names the taken name or address and its holder; passes on what `choose` refuses.
    pub fn create_reserve<E: From<CreateConflict>>(
        &self,
        first_boot: &FirstBoot,
        now: u64,
        choose: impl FnOnce(&BTreeSet<VeId>, &BTreeSet<IpAddr>) -> Result<(Spec, NewOperation), E>,
    ) -> Result<(Spec, OperationId), E> {
        self.reserve_at(Stage::Creating, first_boot, now, choose)
    }

    /// The same for a sandbox in which a template is built. It is forgotten with the end of the operation.
    ///
    /// # Errors
    /// As [`Registry::create_reserve`].
    pub fn build_reserve<E: From<CreateConflict>>(
        &self,
        now: u64,
        choose: impl FnOnce(&BTreeSet<VeId>, &BTreeSet<IpAddr>) -> Result<(Spec, NewOperation), E>,
    ) -> Result<(Spec, OperationId), E> {
        self.reserve_at(Stage::Building, &FirstBoot::default(), now, choose)
    }

    fn reserve_at<E: From<CreateConflict>>(
        &self,
        stage: Stage,
        first_boot: &FirstBoot,
        now: u64,
        choose: impl FnOnce(&BTreeSet<VeId>, &BTreeSet<IpAddr>) -> Result<(Spec, NewOperation), E>,
    ) -> Result<(Spec, OperationId), E> {
        let mut connection = self.connection();
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(CreateConflict::from)?;
        let taken_ids = ids(&transaction).map_err(CreateConflict::from)?;
        let taken_addresses = addresses(&transaction, None).map_err(CreateConflict::from)?;
        let (spec, operation) = choose(&taken_ids, &taken_addresses)?;
        let operation = reserve(&transaction, (&spec, stage), first_boot, &operation, now)?;
        transaction.commit().map_err(CreateConflict::from)?;
        Ok((spec, operation))
    }

    /// The VE with this number; unfinished ones, too.
    ///
    /// # Errors
    /// When the database or the record cannot be read.
    pub fn ve(&self, id: VeId) -> Result<Option<VeRecord>, RegistryError> {
        let sql = format!("SELECT {COLUMNS} FROM ves WHERE id = ?1");
        let row = self
            .connection()
            .query_row(&sql, [id.get()], raw)
            .optional()?;
        row.map(RawRecord::read).transpose()
    }

    /// The VE with this name; unfinished ones, too.
    ///
    /// # Errors
    /// When the database or the record cannot be read.
    pub fn ve_by_name(&self, name: &Name) -> Result<Option<VeRecord>, RegistryError> {
        let sql = format!("SELECT {COLUMNS} FROM ves WHERE name = ?1");
        let row = self
            .connection()
            .query_row(&sql, [name.as_str()], raw)
            .optional()?;
        row.map(RawRecord::read).transpose()
    }

    /// Every VE by number; unfinished ones, too.
    ///
    /// # Errors
    /// When the database or a record cannot be read.
    pub fn ves(&self) -> Result<Vec<VeRecord>, RegistryError> {
        let records = self.ves_shared()?;
        Ok(records.iter().map(|record| (**record).clone()).collect())
    }

    /// Holds addresses for a VE beside those of its record, until the record is next written and is
    /// not unclean: as long as the VE may still use them, nobody else gets them.
    /// `choose` names them out of those that other VEs hold, within the transaction, so that two
    /// VEs can never be given the same.
    ///
    /// # Errors
    /// Names an address that another VE has, and holds none; passes on what `choose` refuses.
    pub fn addresses_hold<E: From<CreateConflict>>(
        &self,
        id: VeId,
        choose: impl FnOnce(&BTreeSet<IpAddr>) -> Result<Vec<IpAddr>, E>,
    ) -> Result<Vec<IpAddr>, E> {
        let mut connection = self.connection();
        let transaction = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(CreateConflict::from)?;
        let taken = addresses(&transaction, Some(id)).map_err(CreateConflict::from)?;
        let chosen = choose(&taken)?;
        hold_addresses(&transaction, id, &chosen)?;
        transaction.commit().map_err(CreateConflict::from)?;
        drop(connection);
        self.sync().map_err(CreateConflict::from)?;
        Ok(chosen)
    }

    /// The addresses that are held for a VE.
    ///
    /// # Errors
    /// When the database or an address cannot be read.
    pub fn addresses_held(&self, id: VeId) -> Result<Vec<IpAddr>, RegistryError> {
        let connection = self.connection();
        let mut statement =
            connection.prepare_cached("SELECT address FROM addresses WHERE ve = ?1")?;
        let texts = statement.query_map([id.get()], |row| row.get::<_, String>(0))?;
        texts.map(|text| read_address(&text?)).collect()
    }

    /// Records what is about to be true of a VE, without waiting for the disk: it survives the daemon at
    /// once, and a power cut, behind which nothing runs, with the next call that waits.
    ///
    /// # Errors
    /// Names an address that another VE has, and changes nothing.
    pub fn ve_intend(&self, record: &VeRecord) -> Result<(), CreateConflict> {
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        update(&transaction, record)?;
        Ok(transaction.commit()?)
    }

    /// Puts `record` in place of what is known of that VE. Its number and name stay as they are.
    ///
    /// # Errors
    /// Names an address that another VE has, and changes nothing.
    pub fn ve_update(&self, record: &VeRecord) -> Result<(), CreateConflict> {
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        update(&transaction, record)?;
        transaction.commit()?;
        drop(connection);
        self.sync()?;
        Ok(())
    }
}

fn reserve(
    transaction: &Transaction<'_>,
    (spec, stage): (&Spec, Stage),
    first_boot: &FirstBoot,
    operation: &NewOperation,
    now: u64,
) -> Result<OperationId, CreateConflict> {
    let holder = transaction
        .query_row(
            "SELECT id FROM ves WHERE name = ?1",
            [spec.name.as_str()],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(holder) = holder {
        let holder = number(holder)?;
        return Err(CreateConflict::Name {
            name: spec.name.clone(),
            holder,
        });
    }
    transaction.execute(
        "INSERT INTO ves (id, name, spec, state, first_boot, stage) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            spec.id.get(),
            spec.name.as_str(),
            json(&StoredSpec::from(spec)),
            State::Stopped.as_str(),
            json(&StoredFirstBoot::from(first_boot)),
            stage.as_str(),
        ],
    )?;
    hold_addresses(transaction, spec.id, &spec.addresses)?;
    Ok(operations::insert(transaction, operation, now)?)
}

/// Writes `record` within a transaction of the caller's.
pub(crate) fn update(
    transaction: &Transaction<'_>,
    record: &VeRecord,
) -> Result<(), CreateConflict> {
    let VeRecord {
        spec,
        state,
        run,
        fault,
        first_boot,
        stage,
        unclean,
    } = record;
    transaction.execute(
        "UPDATE ves SET spec = ?2, state = ?3, run = ?4, fault = ?5, first_boot = ?6, stage = ?7,
         unclean = ?8 WHERE id = ?1",
        params![
            spec.id.get(),
            json(&StoredSpec::from(spec)),
            state.as_str(),
            run.as_ref().map(|run| json(&StoredRun::from(run))),
            fault,
            first_boot
                .as_ref()
                .map(|first_boot| json(&StoredFirstBoot::from(first_boot))),
            stage.as_str(),
            unclean,
        ],
    )?;
    if !unclean {
        transaction.execute("DELETE FROM addresses WHERE ve = ?1", [spec.id.get()])?;
    }
    hold_addresses(transaction, spec.id, &spec.addresses)
}

/// Forgets a VE within a transaction of the caller's.
pub(crate) fn forget(transaction: &Transaction<'_>, id: VeId) -> Result<(), rusqlite::Error> {
    transaction
        .execute("DELETE FROM ves WHERE id = ?1", [id.get()])
        .map(drop)
}

fn hold_addresses(
    transaction: &Transaction<'_>,
    id: VeId,
    addresses: &[IpAddr],
) -> Result<(), CreateConflict> {
    let mut holder_of =
        transaction.prepare_cached("SELECT ve FROM addresses WHERE address = ?1")?;
    let mut hold = transaction.prepare_cached("INSERT INTO addresses VALUES (?1, ?2)")?;
    for address in addresses {
        let text = address.to_string();
        match holder_of
            .query_row([&text], |row| row.get(0))
            .optional()?
            .map(number)
            .transpose()?
        {
            Some(holder) if holder == id => {}
            Some(holder) => {
                return Err(CreateConflict::Address {
                    address: *address,
                    holder,
                });
            }
            None => hold.execute(params![text, id.get()]).map(drop)?,
        }
    }
    Ok(())
}

fn ids(transaction: &Transaction<'_>) -> Result<BTreeSet<VeId>, RegistryError> {
    let mut statement = transaction.prepare_cached("SELECT id FROM ves")?;
    let numbers = statement.query_map([], |row| row.get::<_, i64>(0))?;
    numbers.map(|id| number(id?)).collect()
}

/// The addresses that are taken, but for those of the VE `except`.
fn addresses(
    transaction: &Transaction<'_>,
    except: Option<VeId>,
) -> Result<BTreeSet<IpAddr>, RegistryError> {
    let mut statement =
        transaction.prepare_cached("SELECT address FROM addresses WHERE ve IS NOT ?1")?;
    let texts = statement.query_map([except.map(VeId::get)], |row| row.get::<_, String>(0))?;
    texts.map(|text| read_address(&text?)).collect()
}

fn read_address(text: &str) -> Result<IpAddr, RegistryError> {
    text.parse().map_err(|_| RegistryError::Record {
        what: "addresses".into(),
        finding: format!("`{text}` is no address"),
    })
}

fn number(id: i64) -> Result<VeId, RegistryError> {
    u32::try_from(id)
        .ok()
        .and_then(|id| VeId::new(id).ok())
        .ok_or_else(|| RegistryError::Record {
            what: format!("VE {id}"),
            finding: "its number cannot be one".into(),
        })
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("stored records have string keys and no failing parts")
}

pub(crate) struct RawRecord {
    id: i64,
    spec: String,
    state: String,
    run: Option<String>,
    fault: Option<String>,
    first_boot: Option<String>,
    stage: String,
    unclean: bool,
}

pub(crate) fn raw(row: &Row<'_>) -> Result<RawRecord, rusqlite::Error> {
    Ok(RawRecord {
        id: row.get(0)?,
        spec: row.get(1)?,
        state: row.get(2)?,
        run: row.get(3)?,
        fault: row.get(4)?,
        first_boot: row.get(5)?,
        stage: row.get(6)?,
        unclean: row.get(7)?,
    })
}

impl RawRecord {
    pub(crate) fn read(self) -> Result<VeRecord, RegistryError> {
        let id = number(self.id)?;
        let unreadable = |finding: String| RegistryError::Record {
            what: format!("VE {id}"),
            finding,
        };
        let spec = from_json::<StoredSpec>(&self.spec).and_then(|spec| spec.into_spec(id));
        let run = self.run.as_deref().map(from_json::<StoredRun>).transpose();
        let first_boot = self
            .first_boot
            .as_deref()
            .map(from_json::<StoredFirstBoot>)
            .transpose();
        Ok(VeRecord {
            spec: spec.map_err(unreadable)?,
            state: State::from_word(&self.state)
                .ok_or_else(|| unreadable(format!("there is no state `{}`", self.state)))?,
            run: run.map_err(unreadable)?.map(Into::into),
            fault: self.fault,
            first_boot: first_boot.map_err(unreadable)?.map(Into::into),
            stage: Stage::from_word(&self.stage)
                .ok_or_else(|| unreadable(format!("there is no stage `{}`", self.stage)))?,
            unclean: self.unclean,
        })
    }
}

fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}
