//! What survives a restart: alerts, groups and what they were told, silences with who made them, alerts of rules.
//!
//! One transaction per save. Calls block; the desk makes them on a blocking thread.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use belfry_dispatch::{Changes, Restored};
use belfry_ledger::Ledger;
use belfry_ruler::Kept;
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ByGroup;
use crate::error::{Error, store};
use crate::store::OPENER;

type Rows = TableDefinition<'static, &'static str, &'static [u8]>;
const ALERTS: Rows = TableDefinition::new("alerts");
const GROUPS: Rows = TableDefinition::new("groups");
const SILENCES: Rows = TableDefinition::new("silences");
const RULES: Rows = TableDefinition::new("rules");
const NOTICES: TableDefinition<u64, &[u8]> = TableDefinition::new("notices");
const AUDIT: TableDefinition<u64, &[u8]> = TableDefinition::new("audit");
/// When somebody last judged.
const ALIVE: TableDefinition<&str, i64> = TableDefinition::new("alive");

/// Who changed what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Audit {
    pub(crate) at_ms: i64,
    /// As somebody says who they are.
    pub(crate) by: String,
    #[serde(serialize_with = "name_of")]
    pub(crate) change: Change,
    /// The silence.
    pub(crate) id: String,
    pub(crate) text: String,
}

belfry_signal::label_enum! {
    /// What was done to a silence.
    pub(crate) enum Change("change") { Set = "set", Expired = "expired" }
}

fn name_of<S: serde::Serializer>(change: &Change, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(change.as_str())
}

/// Everything that was written.
#[derive(Default)]
pub(super) struct Loaded {
    pub(super) restored: Restored,
    pub(super) kept: ByGroup<Vec<Kept>>,
    pub(super) alive_ms: Option<i64>,
    /// Rows that cannot be read.
    pub(super) unreadable: usize,
}

/// A handle to the file; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Store {
    ledger: Arc<Ledger>,
    notes: Arc<Mutex<Vec<Audit>>>,
    audit_max: usize,
}

impl Store {
    pub(super) fn open(directory: &Path, audit_max: usize) -> Result<Self, Error> {
        let path = directory.join("routing.redb");
        let opened = Ledger::open(&path, OPENER, |transaction| {
            for table in [ALERTS, GROUPS, SILENCES, RULES] {
                transaction.open_table(table)?;
            }
            transaction.open_table(NOTICES)?;
            transaction.open_table(AUDIT)?;
            transaction.open_table(ALIVE)?;
            Ok(())
        });
        let ledger = opened.map_err(|source| Error::Open { path, source: Box::new(source) })?;
        Ok(Self { ledger: Arc::new(ledger), notes: Arc::default(), audit_max })
    }

    pub(super) fn load(&self) -> Result<Loaded, Error> {
        self.ledger.read(load)
    }

    /// Writes a batch; durable on return. What failed may be written again: only a note of a change is then there twice,
    /// if the disk had it after all.
    pub(super) fn save(
        &self,
        changes: &Changes,
        rules: &[(String, Option<Vec<Kept>>)],
        audits: &[Audit],
        now_ms: i64,
    ) -> Result<(), Error> {
        self.ledger.write(|transaction| {
            put(transaction, ALERTS, &changes.alerts)?;
            put(transaction, GROUPS, &changes.groups)?;
            put(transaction, SILENCES, &changes.silences)?;
            put(transaction, RULES, rules)?;
            put_notices(transaction, changes)?;
            put_audits(transaction, audits, self.audit_max)?;
            transaction.open_table(ALIVE).map_err(store)?.insert("ms", now_ms).map_err(store)?;
            Ok(())
        })
    }

    /// Notes a change; it is written with the next save.
    pub(super) fn note(&self, audit: Audit) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(audit);
    }

    /// Notes changes that could not be written, before those of the meantime.
    pub(super) fn note_again(&self, audits: &[Audit]) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.splice(..0, audits.iter().cloned());
        let over = notes.len().saturating_sub(self.audit_max);
        notes.drain(..over);
    }

    pub(super) fn take_notes(&self) -> Vec<Audit> {
        std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn load(transaction: &ReadTransaction) -> Result<Loaded, Error> {
    let mut loaded = Loaded::default();
    let unreadable = &mut loaded.unreadable;
    let all = |table: Rows| -> Result<Vec<(String, Vec<u8>)>, Error> {
        let table = transaction.open_table(table).map_err(store)?;
        let rows = table.iter().map_err(store)?.map(|row| {
            let (key, value) = row.map_err(store)?;
            Ok((key.value().to_owned(), value.value().to_vec()))
        });
        rows.collect()
    };
    loaded.restored.alerts = read(all(ALERTS)?, unreadable);
    loaded.restored.groups = read(all(GROUPS)?, unreadable);
    loaded.restored.silences = read(all(SILENCES)?, unreadable);
    for (name, row) in all(RULES)? {
        match postcard::from_bytes(&row) {
            Ok(kept) => drop(loaded.kept.insert(name, kept)),
            Err(_) => *unreadable += 1,
        }
    }
    for row in transaction.open_table(NOTICES).map_err(store)?.iter().map_err(store)? {
        match postcard::from_bytes(row.map_err(store)?.1.value()) {
            Ok(notice) => loaded.restored.notices.push(notice),
            Err(_) => *unreadable += 1,
        }
    }
    let alive = transaction.open_table(ALIVE).map_err(store)?;
    loaded.alive_ms = alive.get("ms").map_err(store)?.map(|row| row.value());
    Ok(loaded)
}

fn put_notices(transaction: &WriteTransaction, changes: &Changes) -> Result<(), Error> {
    let mut notices = transaction.open_table(NOTICES).map_err(store)?;
    for (seq, notice) in &changes.notices {
        match notice {
            Some(notice) => {
                notices.insert(seq, postcard::to_stdvec(notice)?.as_slice()).map_err(store)?;
            }
            None => {
                notices.remove(seq).map_err(store)?;
            }
        }
    }
    Ok(())
}

fn put_audits(transaction: &WriteTransaction, audits: &[Audit], audit_max: usize) -> Result<(), Error> {
    let mut audit = transaction.open_table(AUDIT).map_err(store)?;
    for entry in audits {
        let next = audit.last().map_err(store)?.map_or(0, |row| row.0.value() + 1);
        audit.insert(next, postcard::to_stdvec(entry)?.as_slice()).map_err(store)?;
        if let Some(oldest) = next.checked_sub(audit_max as u64) {
            audit.remove(oldest).map_err(store)?;
        }
    }
    Ok(())
}

fn read<T: DeserializeOwned>(rows: Vec<(String, Vec<u8>)>, unreadable: &mut usize) -> Vec<T> {
    let mut found = Vec::new();
    for (_, row) in rows {
        match postcard::from_bytes(&row) {
            Ok(row) => found.push(row),
            Err(_) => *unreadable += 1,
        }
    }
    found
}

fn put<T: Serialize>(
    transaction: &WriteTransaction,
    table: Rows,
    rows: &[(String, Option<T>)],
) -> Result<(), Error> {
    let mut table = transaction.open_table(table).map_err(store)?;
    for (key, row) in rows {
        match row {
            Some(row) => {
                table.insert(key.as_str(), postcard::to_stdvec(row)?.as_slice()).map_err(store)?;
            }
            None => {
                table.remove(key.as_str()).map_err(store)?;
            }
        }
    }
    Ok(())
}
