//! A redb file that goes on after its disk failed.
//!
//! After a failed write the library refuses every later one, and nobody knows what the disk has. So the file is closed then,
//! and opened again by whatever comes next. Whether a change that failed is in it after that cannot be said: whoever writes
//! repeats the change so that twice is as good as once, or looks at [`Ledger::failures`] and reads anew.
//!
//! Not here: what the tables hold. Every call blocks; transactions go one at a time.

pub mod failing;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use redb::{Database, DatabaseError, ReadTransaction, ReadableDatabase, WriteTransaction};

/// Opens the file, or creates it.
pub type Opener = fn(&Path) -> Result<Database, DatabaseError>;

/// The file of a path. Share it in an `Arc`.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    opener: Opener,
    /// None after a failure, until it is next used.
    database: Mutex<Option<Database>>,
    failures: AtomicU64,
}

/// Opens a file as the library does.
///
/// # Errors
/// What the library says.
pub fn open_file(path: &Path) -> Result<Database, DatabaseError> {
    Database::create(path)
}

impl Ledger {
    /// Opens or creates the file and its directory; `prepare` makes the tables.
    ///
    /// # Errors
    /// When the directory or the file cannot be made, opened or written.
    pub fn open(
        path: &Path,
        opener: Opener,
        prepare: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<Ledger, redb::Error> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let ledger = Ledger {
            path: path.to_owned(),
            opener,
            database: Mutex::new(Some(opener(path)?)),
            failures: AtomicU64::new(0),
        };
        ledger.write(prepare)?;
        Ok(ledger)
    }

    /// Changes something in one transaction, which is durable on return.
    ///
    /// # Errors
    /// What `work` says, or the disk: then nothing was changed, or all of it.
    pub fn write<T, E: From<redb::Error>>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, E>,
    ) -> Result<T, E> {
        self.transact(|database| {
            let transaction = database.begin_write().map_err(fault)?;
            let done = work(&transaction)?;
            transaction.commit().map_err(fault)?;
            Ok(done)
        })
    }

    /// Reads something.
    ///
    /// # Errors
    /// What `work` says, or the disk.
    pub fn read<T, E: From<redb::Error>>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, E>,
    ) -> Result<T, E> {
        self.transact(|database| work(&database.begin_read().map_err(fault)?))
    }

    /// How often something failed; each time what was to be changed may be in the file or not.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Acquire)
    }

    fn transact<T, E: From<redb::Error>>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, E>,
    ) -> Result<T, E> {
        // A thread that broke while it held the file left none behind: it is opened again.
        let mut held = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = match held.take() {
            Some(database) => Ok(database),
            None => (self.opener)(&self.path).map_err(fault),
        };
        // Put back only when all went well.
        let outcome = outcome.and_then(|database| work(&database).map(|done| (database, done)));
        match outcome {
            Ok((database, done)) => {
                *held = Some(database);
                Ok(done)
            }
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Release);
                Err(error)
            }
        }
    }
}

/// Any of the library's many errors.
fn fault<E: From<redb::Error>>(error: impl Into<redb::Error>) -> E {
    E::from(error.into())
}

#[cfg(test)]
mod tests {
    use redb::TableDefinition;

    use super::*;

    const TABLE: TableDefinition<'_, u64, u64> = TableDefinition::new("table");

    fn insert(ledger: &Ledger, key: u64) -> Result<(), redb::Error> {
        ledger.write(|transaction| {
            transaction.open_table(TABLE)?.insert(key, key)?;
            Ok(())
        })
    }

    fn keys(ledger: &Ledger) -> Result<Vec<u64>, redb::Error> {
        ledger.read(|transaction| {
            let table = transaction.open_table(TABLE)?;
            let rows = redb::ReadableTable::iter(&table)?;
            rows.map(|row| Ok(row?.0.value())).collect()
        })
    }

    #[test]
    fn a_disk_that_fails_for_a_while_needs_no_restart() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("below").join("ledger.redb");
        let ledger = Ledger::open(&path, failing::open, |transaction| {
            transaction.open_table(TABLE)?;
            Ok(())
        })
        .expect("opens");
        insert(&ledger, 1).expect("written");
        failing::set(&path, true).expect("the switch");
        for key in 2..5 {
            insert(&ledger, key).expect_err("the disk fails");
        }
        assert_eq!(ledger.failures(), 3);
        failing::set(&path, false).expect("the switch");
        insert(&ledger, 9).expect("the disk works again");
        let keys = keys(&ledger).expect("read");
        assert_eq!((keys.first(), keys.last()), (Some(&1), Some(&9)));
    }

    #[test]
    fn what_its_user_refuses_is_taken_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ledger.redb");
        let ledger = Ledger::open(&path, open_file, |transaction| {
            transaction.open_table(TABLE)?;
            Ok(())
        })
        .expect("opens");
        let refused: Result<(), redb::Error> = ledger.write(|transaction| {
            transaction.open_table(TABLE)?.insert(1, 1)?;
            Err(redb::Error::Corrupted("says its user".to_owned()))
        });
        assert!(refused.is_err());
        insert(&ledger, 2).expect("written");
        assert_eq!(keys(&ledger).expect("read"), [2]);
    }
}
