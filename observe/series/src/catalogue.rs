//! Which blocks there are and how far they cover the log: one redb file, changed in whole transactions.
//!
//! A block exists when the catalogue says so. A file that it does not know is mostly left over from a crash before the
//! transaction, and the log, or the blocks that it was made of, still have its samples; so it is set aside, for a person
//! to look at. Only when the catalogue itself is gone or cannot be read do the blocks speak for themselves, each knowing
//! its own checkpoint, and the bucket is asked which of ours it holds. A directory of another format is set aside whole. Nothing that is not known is deleted.
//!
//! After a failed write the library refuses every later one, and nobody knows what the disk has. So the file is then closed
//! and opened again by whatever comes next, which takes the failed change back before it does its own.

mod rebuild;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use belfry_signal::MetricMetadata;
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition, TableHandle,
    WriteTransaction,
};
use serde::{Deserialize, Serialize};

use crate::block::{self, Block, Meta};
use crate::bucket::Bucket;
use crate::error::{Error, catalogue as fault};
use crate::level::{DayChange, Levels, Resolution, State};
use crate::signals::Signals;

const BLOCKS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("blocks_2");
const FACTS: TableDefinition<'_, &str, u64> = TableDefinition::new("facts");
const METADATA: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("metadata");
const DELETIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("deletions");
const IMPORTED: TableDefinition<'_, &str, u64> = TableDefinition::new("imported");
/// Days of levels, and how they stand.
const LEVELS: TableDefinition<'_, (u8, i64), u8> = TableDefinition::new("levels");
/// Objects of blocks that are in the bucket.
const PLACES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("places");
/// Objects that are to be deleted from the bucket, with the Unix milliseconds since when: those of blocks that are gone, and
/// those whose upload is not known to have ended.
const GARBAGE: TableDefinition<'_, &str, i64> = TableDefinition::new("garbage");
const CHECKPOINT: &str = "checkpoint";
/// Up to when raw samples may be gone, as the bits of a signed time.
const RAW_GONE: &str = "raw_gone_ms";
const FILE: &str = "catalogue.redb";
/// Where blocks go that the catalogue does not know.
const UNKNOWN: &str = "unknown";

#[derive(Debug)]
pub(crate) struct Catalogue {
    /// None after a failure, until it is next used.
    database: Option<Database>,
    directory: PathBuf,
    next_id: u64,
    checkpoint: u64,
    levels: Levels,
    places: BTreeMap<u64, Placed>,
    undos: Vec<Undo>,
}

/// Where a block is in the bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Placed {
    pub(crate) object: String,
    /// CRC-32C of the whole block.
    pub(crate) crc: u32,
}

/// What changes in one transaction.
#[derive(Debug, Default)]
pub(crate) struct Change<'a> {
    pub(crate) added: &'a [Meta],
    pub(crate) removed: &'a [Meta],
    /// Position of the log that is covered from now on; none when it stays.
    pub(crate) checkpoint: Option<u64>,
    pub(crate) days: Vec<DayChange>,
    /// Raw samples up to this time go.
    pub(crate) raw_gone_ms: Option<i64>,
}

/// A change that failed: the disk may have it, the store goes on without it.
#[derive(Debug)]
struct Undo {
    added: Vec<u64>,
    removed: Vec<Meta>,
    checkpoint: u64,
    days: Vec<DayChange>,
    raw_gone_ms: Option<i64>,
    /// Places that went.
    places: Vec<(u64, Placed)>,
    /// A place that came.
    placed: Option<(u64, Placed)>,
}

/// What the catalogue says at start.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// Blocks that can be read, in the order in which their samples came.
    pub(crate) blocks: Vec<Arc<Block>>,
    pub(crate) metadata: Vec<MetricMetadata>,
}

/// A deletion that was asked for and is not done yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredDeletion {
    pub(crate) id: u64,
    /// Name, operator as PromQL writes it, value.
    pub(crate) matchers: Vec<(String, String, String)>,
    pub(crate) from_ms: i64,
    pub(crate) to_ms: i64,
}

/// Opens or creates the file; says whether what was there could be read.
fn open_file(directory: &Path) -> Result<(Database, bool), Error> {
    let file_fault = |source| Error::File { path: directory.to_owned(), source };
    std::fs::create_dir_all(directory).map_err(file_fault)?;
    let path = directory.join(FILE);
    match database_at(&path, true) {
        Ok(database) => Ok((database, true)),
        Err(DatabaseError::DatabaseAlreadyOpen) => Err(Error::InUse { path }),
        // A disk that refuses to be written says nothing about what it holds.
        Err(DatabaseError::Storage(StorageError::Io(source))) if !is_content(source.kind()) => {
            Err(Error::File { path, source })
        }
        Err(_) => {
            // A start never refuses because of damage: the file is set aside for a person to look at.
            set_aside(&path).map_err(file_fault)?;
            Ok((database_at(&path, true).map_err(fault)?, false))
        }
    }
}

/// The file, opened; behind the tests' failing disk in tests.
fn database_at(path: &Path, is_created: bool) -> Result<Database, DatabaseError> {
    #[cfg(test)]
    return crate::tests::faults::open(path, is_created);
    #[cfg(not(test))]
    if is_created { Database::create(path) } else { Database::open(path) }
}

/// Whether a fault speaks of what the file holds: the library says "invalid" or "ended early" of one that is cut.
fn is_content(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::InvalidData | ErrorKind::UnexpectedEof)
}

/// The names of all tables: none in a new file, others in one of another format.
fn tables(database: &Database) -> Result<Vec<String>, Error> {
    let read = database.begin_read().map_err(fault)?;
    Ok(read.list_tables().map_err(fault)?.map(|table| table.name().to_owned()).collect())
}

/// Gives a file or directory a name of its own beside it. Nothing is deleted.
fn set_aside(path: &Path) -> std::io::Result<PathBuf> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let aside = free_name(path, |number| format!(".damaged-{}", seconds + number));
    std::fs::rename(path, &aside)?;
    Ok(aside)
}

/// Moves a block that nobody knows into a directory of its own.
fn set_aside_block(directory: &Path, id: u64) -> std::io::Result<()> {
    let unknown = directory.join(UNKNOWN);
    std::fs::create_dir_all(&unknown)?;
    let path = block::path(directory, id);
    let target = unknown.join(path.file_name().unwrap_or_default());
    // The number of a block that was set aside may be given again.
    std::fs::rename(&path, free_name(&target, |number| format!(".{number}")))
}

/// The path with the first ending that no other has.
fn free_name(path: &Path, ending: impl Fn(u64) -> String) -> PathBuf {
    let named = |number: u64| {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(ending(number));
        path.with_file_name(name)
    };
    (0..).map(named).find(|free| !free.exists()).unwrap_or_else(|| named(0))
}

impl Catalogue {
    /// Opens the catalogue, checks each block's file, and sets aside what no transaction published and what is of
    /// another format.
    pub(crate) fn open(
        directory: &Path,
        bucket: Option<&Arc<Bucket>>,
        signals: &Signals,
    ) -> Result<(Self, Contents), Error> {
        let file_fault = |source| Error::File { path: directory.to_owned(), source };
        let (mut database, is_readable) = open_file(directory)?;
        let mut tables = tables(&database)?;
        if !tables.is_empty() && !tables.iter().any(|table| table == BLOCKS.name()) {
            drop(database);
            let aside = set_aside(directory).map_err(file_fault)?;
            signals.store_set_aside(&aside);
            (database, _) = open_file(directory)?;
            tables.clear();
        }
        let ids = block::list(directory).map_err(file_fault)?;
        block::remove_unfinished(directory).map_err(file_fault)?;
        let mut catalogue = Self {
            database: Some(database),
            directory: directory.to_owned(),
            next_id: 0,
            checkpoint: 0,
            levels: Levels::default(),
            places: BTreeMap::new(),
            undos: Vec::new(),
        };
        if !is_readable || tables.is_empty() {
            let rebuilt = catalogue.rebuild(&ids, bucket)?;
            if !is_readable || rebuilt > 0 {
                signals.catalogue_rebuilt(rebuilt);
            }
        }
        let contents = catalogue.read(&ids, bucket, signals)?;
        bucket.map_or(Ok(()), |bucket| bucket.check_holds(catalogue.places.len()))?;
        Ok((catalogue, contents))
    }

    /// The file; after a failure it is opened anew.
    fn database(&mut self) -> Result<Database, Error> {
        match self.database.take() {
            Some(database) => Ok(database),
            None => database_at(&self.directory.join(FILE), false).map_err(fault),
        }
    }

    /// Does something in one transaction, after what failed before was taken back.
    fn transact<T>(&mut self, work: impl FnOnce(&WriteTransaction) -> Result<T, Error>) -> Result<T, Error> {
        let database = self.database()?;
        // Put back only when all went well.
        let write = database.begin_write().map_err(fault)?;
        if !self.undos.is_empty() {
            undo(&write, &self.undos)?;
        }
        let done = work(&write)?;
        write.commit().map_err(fault)?;
        self.database = Some(database);
        for id in self.undos.drain(..).flat_map(|undo| undo.added) {
            // A file that stays is set aside at the next start: the catalogue does not know it.
            let _deleted = std::fs::remove_file(block::path(&self.directory, id));
        }
        Ok(done)
    }

    fn read(
        &mut self,
        ids: &[u64],
        bucket: Option<&Arc<Bucket>>,
        signals: &Signals,
    ) -> Result<Contents, Error> {
        let database = self.database()?;
        let write = database.begin_write().map_err(fault)?;
        let mut contents = Contents::default();
        {
            let blocks = write.open_table(BLOCKS).map_err(fault)?;
            let facts = write.open_table(FACTS).map_err(fault)?;
            self.checkpoint = facts.get(CHECKPOINT).map_err(fault)?.map_or(0, |value| value.value());
            let raw_gone = facts.get(RAW_GONE).map_err(fault)?;
            raw_gone.into_iter().for_each(|bits| self.levels.raw_went(bits.value().cast_signed()));
            let mut lost = Vec::new();
            let places = write.open_table(PLACES).map_err(fault)?;
            for row in places.iter().map_err(fault)? {
                let (id, placed) = row.map_err(fault)?;
                self.places
                    .extend(postcard::from_bytes(placed.value()).ok().map(|placed| (id.value(), placed)));
            }
            let mut garbage = write.open_table(GARBAGE).map_err(fault)?;
            garbage.retain(|object, _| !self.is_place(object)).map_err(fault)?;
            for row in blocks.iter().map_err(fault)? {
                let (id, meta) = row.map_err(fault)?;
                self.next_id = self.next_id.max(id.value() + 1);
                let meta = postcard::from_bytes::<Meta>(meta.value()).ok();
                let placed = self.places.get(&id.value()).zip(bucket);
                let open = |meta: Meta| match (Block::open(&self.directory, meta.clone()), placed) {
                    (Ok(block), _) => Some(block),
                    (Err(_), Some((placed, bucket))) => {
                        Some(Block::in_bucket(&self.directory, meta, bucket, &placed.object))
                    }
                    (Err(_), None) => None,
                };
                match meta.clone().and_then(open) {
                    Some(block) => contents.blocks.push(Arc::new(block)),
                    None => {
                        signals.block_damaged(id.value());
                        lost.extend(meta);
                    }
                }
            }
            for id in ids {
                self.next_id = self.next_id.max(id + 1);
                if blocks.get(id).map_err(fault)?.is_none() {
                    // What cannot be moved now is tried again at the next start.
                    let moved = set_aside_block(&self.directory, *id);
                    signals.block_set_aside(*id, moved.is_ok());
                }
            }
            contents.metadata = metadata_of(&write)?;
            let levels = write.open_table(LEVELS).map_err(fault)?;
            for row in levels.iter().map_err(fault)? {
                let (key, state) = row.map_err(fault)?;
                let (level, day) = key.value();
                let state = if state.value() == State::Made as u8 { State::Made } else { State::Outdated };
                self.levels.set(((Resolution::of_bits(level << 6), day), Some(state)));
            }
            // What a lost block of a level held is made again.
            rebuild::levels_of(&lost).0.into_iter().for_each(|day| self.levels.set(day));
            write.open_table(DELETIONS).map_err(fault)?;
            write.open_table(IMPORTED).map_err(fault)?;
        }
        write.commit().map_err(fault)?;
        self.database = Some(database);
        contents.blocks.sort_by_key(|block| (block.meta().first_id, block.meta().id));
        Ok(contents)
    }

    /// A number that no block has or had in this run.
    pub(crate) fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// Position of the log up to which everything is in blocks.
    pub(crate) fn checkpoint(&self) -> u64 {
        self.checkpoint
    }

    /// What there is of levels.
    pub(crate) fn levels(&self) -> &Levels {
        &self.levels
    }

    /// Publishes blocks and forgets others, in one transaction with the checkpoint and with what it makes of levels. After
    /// an error the disk may have the change; the next transaction takes it back first, and only then the files of the
    /// added blocks go.
    pub(crate) fn change(&mut self, change: &Change<'_>) -> Result<(), Error> {
        let checkpoint = change.checkpoint.unwrap_or(self.checkpoint);
        let raw_gone_ms = change.raw_gone_ms.max(self.levels.raw_gone_ms());
        let placed = change.removed.iter().filter_map(|meta| self.places.get_key_value(&meta.id));
        let places: Vec<(u64, Placed)> = placed.map(|(id, placed)| (*id, placed.clone())).collect();
        let changed = self.transact(|write| {
            let mut blocks = write.open_table(BLOCKS).map_err(fault)?;
            for meta in change.added {
                put_block(&mut blocks, meta)?;
            }
            for meta in change.removed {
                blocks.remove(meta.id).map_err(fault)?;
            }
            for (id, placed) in &places {
                write.open_table(PLACES).map_err(fault)?.remove(id).map_err(fault)?;
                put_garbage(write, &placed.object)?;
            }
            put_facts(write, checkpoint, &change.days, raw_gone_ms)
        });
        match changed {
            Ok(()) => {
                self.checkpoint = checkpoint;
                places.iter().for_each(|(id, _)| drop(self.places.remove(id)));
                change.days.iter().for_each(|day| self.levels.set(*day));
                raw_gone_ms.into_iter().for_each(|gone_ms| self.levels.raw_went(gone_ms));
            }
            Err(_) => self.undos.push(Undo {
                added: change.added.iter().map(|meta| meta.id).collect(),
                removed: change.removed.to_vec(),
                checkpoint: self.checkpoint,
                days: change.days.iter().map(|(day, _)| (*day, self.levels.state(*day))).collect(),
                raw_gone_ms: self.levels.raw_gone_ms(),
                places,
                placed: None,
            }),
        }
        changed
    }

    /// Keeps what metrics are.
    pub(crate) fn put_metadata<'a>(
        &mut self,
        metadata: impl Iterator<Item = &'a MetricMetadata>,
    ) -> Result<(), Error> {
        self.transact(|write| {
            let mut table = write.open_table(METADATA).map_err(fault)?;
            for metric in metadata {
                let bytes = postcard::to_stdvec(metric).map_err(Error::Encode)?;
                table.insert(metric.name.as_str(), bytes.as_slice()).map_err(fault)?;
            }
            Ok(())
        })
    }

    /// Notes a deletion that is to be done, whatever happens meanwhile; its id is new.
    pub(crate) fn put_deletion(&mut self, mut deletion: StoredDeletion) -> Result<StoredDeletion, Error> {
        deletion.id = self.take_id();
        self.transact(|write| {
            let bytes = postcard::to_stdvec(&deletion).map_err(Error::Encode)?;
            let mut table = write.open_table(DELETIONS).map_err(fault)?;
            table.insert(deletion.id, bytes.as_slice()).map_err(fault)?;
            Ok(())
        })?;
        Ok(deletion)
    }

    /// Where a block is in the bucket; none when it is not there.
    pub(crate) fn place(&self, id: u64) -> Option<&Placed> {
        self.places.get(&id)
    }

    /// An upload begins: until its end is noted too, what there is of the object is garbage.
    pub(crate) fn begin_upload(&mut self, object: &str) -> Result<(), Error> {
        self.transact(|write| put_garbage(write, object))
    }

    /// A block is in the bucket. After an error the disk may have its place; the next transaction takes it back first.
    pub(crate) fn end_upload(&mut self, id: u64, placed: Placed) -> Result<(), Error> {
        let noted = self.transact(|write| put_place(write, id, &placed));
        match noted {
            Ok(()) => drop(self.places.insert(id, placed)),
            Err(_) => self.undos.push(Undo {
                added: Vec::new(),
                removed: Vec::new(),
                checkpoint: self.checkpoint,
                days: Vec::new(),
                raw_gone_ms: self.levels.raw_gone_ms(),
                places: Vec::new(),
                placed: Some((id, placed)),
            }),
        }
        noted
    }

    /// Whether a block is read from this object.
    fn is_place(&self, object: &str) -> bool {
        self.places.values().any(|placed| placed.object == object)
    }

    /// Objects that have been garbage for so long that no query reads them any more. What failed before is taken back
    /// first: it may have noted objects that are still read.
    pub(crate) fn garbage(&mut self, for_ms: i64) -> Result<Vec<String>, Error> {
        if !self.undos.is_empty() {
            self.transact(|_| Ok(()))?;
        }
        let database = self.database()?;
        let read = database.begin_read().map_err(fault)?;
        let mut objects = Vec::new();
        for row in read.open_table(GARBAGE).map_err(fault)?.iter().map_err(fault)? {
            let (object, since) = row.map_err(fault)?;
            let is_old = unix_millis().saturating_sub(since.value()) >= for_ms;
            if is_old && !self.is_place(object.value()) {
                objects.push(object.value().to_owned());
            }
        }
        drop(read);
        self.database = Some(database);
        Ok(objects)
    }

    /// An object is deleted.
    pub(crate) fn remove_garbage(&mut self, object: &str) -> Result<(), Error> {
        self.transact(|write| {
            write.open_table(GARBAGE).map_err(fault)?.remove(object).map_err(fault)?;
            Ok(())
        })
    }

    /// A deletion is done.
    pub(crate) fn remove_deletion(&mut self, id: u64) -> Result<(), Error> {
        self.transact(|write| {
            write.open_table(DELETIONS).map_err(fault)?.remove(id).map_err(fault)?;
            Ok(())
        })
    }

    /// Whether a block of this name was taken over.
    pub(crate) fn is_imported(&mut self, name: &str) -> Result<bool, Error> {
        let database = self.database()?;
        let read = database.begin_read().map_err(fault)?;
        let table = read.open_table(IMPORTED).map_err(fault)?;
        let is_there = table.get(name).map_err(fault)?.is_some();
        drop((table, read));
        self.database = Some(database);
        Ok(is_there)
    }

    /// A block of this name was taken over.
    pub(crate) fn put_imported(&mut self, name: &str) -> Result<(), Error> {
        self.transact(|write| {
            write.open_table(IMPORTED).map_err(fault)?.insert(name, 1).map_err(fault)?;
            Ok(())
        })
    }

    /// Deletions that are not done yet.
    pub(crate) fn deletions(&mut self) -> Result<Vec<StoredDeletion>, Error> {
        let database = self.database()?;
        let read = database.begin_read().map_err(fault)?;
        let mut deletions = Vec::new();
        for row in read.open_table(DELETIONS).map_err(fault)?.iter().map_err(fault)? {
            let (_, stored) = row.map_err(fault)?;
            deletions.extend(postcard::from_bytes(stored.value()).ok());
        }
        drop(read);
        self.database = Some(database);
        Ok(deletions)
    }
}

fn metadata_of(write: &WriteTransaction) -> Result<Vec<MetricMetadata>, Error> {
    let mut held = Vec::new();
    for row in write.open_table(METADATA).map_err(fault)?.iter().map_err(fault)? {
        let (_, stored) = row.map_err(fault)?;
        held.extend(postcard::from_bytes(stored.value()).ok());
    }
    Ok(held)
}

fn put_block(blocks: &mut redb::Table<'_, u64, &'static [u8]>, meta: &Meta) -> Result<(), Error> {
    let bytes = postcard::to_stdvec(meta).map_err(Error::Encode)?;
    blocks.insert(meta.id, bytes.as_slice()).map_err(fault)?;
    Ok(())
}

/// Takes back what failed, the last first: what the first found is then what there is.
fn undo(write: &WriteTransaction, undos: &[Undo]) -> Result<(), Error> {
    let mut blocks = write.open_table(BLOCKS).map_err(fault)?;
    for undo in undos.iter().rev() {
        for id in &undo.added {
            blocks.remove(id).map_err(fault)?;
        }
        for meta in &undo.removed {
            put_block(&mut blocks, meta)?;
        }
        for (id, placed) in &undo.places {
            put_place(write, *id, placed)?;
        }
        if let Some((id, placed)) = &undo.placed {
            write.open_table(PLACES).map_err(fault)?.remove(id).map_err(fault)?;
            put_garbage(write, &placed.object)?;
        }
        put_facts(write, undo.checkpoint, &undo.days, undo.raw_gone_ms)?;
    }
    Ok(())
}

/// A block is in the bucket, and its object no garbage.
fn put_place(write: &WriteTransaction, id: u64, placed: &Placed) -> Result<(), Error> {
    let bytes = postcard::to_stdvec(placed).map_err(Error::Encode)?;
    write.open_table(PLACES).map_err(fault)?.insert(id, bytes.as_slice()).map_err(fault)?;
    write.open_table(GARBAGE).map_err(fault)?.remove(placed.object.as_str()).map_err(fault)?;
    Ok(())
}

fn put_garbage(write: &WriteTransaction, object: &str) -> Result<(), Error> {
    write.open_table(GARBAGE).map_err(fault)?.insert(object, unix_millis()).map_err(fault)?;
    Ok(())
}

fn unix_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn put_facts(
    write: &WriteTransaction,
    checkpoint: u64,
    days: &[DayChange],
    raw_gone_ms: Option<i64>,
) -> Result<(), Error> {
    let mut facts = write.open_table(FACTS).map_err(fault)?;
    facts.insert(CHECKPOINT, checkpoint).map_err(fault)?;
    match raw_gone_ms {
        Some(gone_ms) => drop(facts.insert(RAW_GONE, gone_ms.cast_unsigned()).map_err(fault)?),
        None => drop(facts.remove(RAW_GONE).map_err(fault)?),
    }
    let mut levels = write.open_table(LEVELS).map_err(fault)?;
    for ((level, day), state) in days {
        let key = (level.number(), *day);
        match state {
            Some(state) => drop(levels.insert(key, *state as u8).map_err(fault)?),
            None => drop(levels.remove(key).map_err(fault)?),
        }
    }
    Ok(())
}
