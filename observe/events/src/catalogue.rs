//! The catalogue: which splits exist and up to where the WAL is in them, in one redb file.
//!
//! A split counts from the moment its row is committed, together with the WAL position that it reaches: a crash
//! leaves either both or neither, so a replay from the checkpoint neither loses a record nor doubles one.
//!
//! After a failed write or sync the library refuses every later one, and nobody knows what the disk has. So the file is
//! then closed, and opened again by the next change. What is being published is tried again as it is; a split that
//! should have taken the place of others is taken out again, by whatever is changed next.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::facts::Stream;
use crate::filter::Filter;
use crate::schema::FORMAT;
use crate::signals::Unusable;

const SPLITS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("splits");
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
const TEXTS: TableDefinition<'_, &str, &str> = TableDefinition::new("texts");

/// A row: what is known of a split without opening it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SplitRow {
    pub(crate) id: u64,
    /// Time of the oldest record.
    pub(crate) from_nanos: u64,
    /// Time of the newest record.
    pub(crate) to_nanos: u64,
    pub(crate) records: u64,
    /// When it, or the last of those that it replaces, was published: clocks of others may say anything.
    pub(crate) published_nanos: u64,
    /// How many merges lie behind it.
    pub(crate) level: u32,
    /// Which records are in it, and so how long it is kept.
    pub(crate) stream: Stream,
    /// Whether the good calls were thinned out.
    pub(crate) is_thinned: bool,
    /// Whether attribute names were left out of the index.
    pub(crate) has_unindexed_names: bool,
    /// Length of the file: a torn split is noticed before it is opened.
    pub(crate) bytes: u64,
    /// WAL position that this split, or one that it replaces, reached.
    pub(crate) position: u64,
    /// Number of the record after its last.
    pub(crate) sequence_next: u64,
    /// Splits that were published together, itself included: one live buffer makes one of each stream.
    pub(crate) published_with: Vec<u64>,
    /// Splits whose records are in this one: their files may still be there after a crash.
    pub(crate) replaces: Vec<u64>,
    /// The components that speak in it, sorted; empty when there are more than [`COMPONENTS_MAX`].
    pub(crate) components: Vec<String>,
    /// Calls and traces inside.
    pub(crate) filter: Filter,
}

/// So many components are known of a split without opening it.
const COMPONENTS_MAX: usize = 64;

impl SplitRow {
    /// Sets the components, when they are few enough.
    pub(crate) fn set_components(&mut self, components: impl IntoIterator<Item = String>) {
        let sorted: BTreeSet<String> = components.into_iter().collect();
        let is_known = sorted.len() <= COMPONENTS_MAX;
        self.components = if is_known { sorted.into_iter().collect() } else { Vec::new() };
    }

    /// From when its age is counted: its newest record, unless that says that it comes from the future.
    pub(crate) fn aged_from_nanos(&self) -> u64 {
        self.to_nanos.min(self.published_nanos)
    }

    /// A row of which only what the records do not say is known.
    pub(crate) fn new(id: u64, stream: Stream, position: u64, sequence_next: u64) -> Self {
        Self {
            id,
            from_nanos: 0,
            to_nanos: 0,
            records: 0,
            published_nanos: belfry_signal::now_unix_nanos(),
            level: 0,
            stream,
            is_thinned: false,
            has_unindexed_names: false,
            bytes: 0,
            position,
            sequence_next,
            published_with: Vec::new(),
            replaces: Vec::new(),
            components: Vec::new(),
            filter: Filter::of(&[], 0),
        }
    }

    /// The row of what several splits are merged into; the filter is still to be made.
    pub(crate) fn of_parts<'a>(id: u64, parts: impl Iterator<Item = &'a Self> + Clone) -> Self {
        let highest = |of: fn(&Self) -> u64| parts.clone().map(of).max().unwrap_or_default();
        let stream = parts.clone().next().map_or(Stream::System, |part| part.stream);
        let mut row = Self {
            from_nanos: parts.clone().map(|part| part.from_nanos).min().unwrap_or_default(),
            to_nanos: highest(|part| part.to_nanos),
            records: parts.clone().map(|part| part.records).sum(),
            level: parts.clone().map(|part| part.level).max().unwrap_or_default() + 1,
            is_thinned: parts.clone().all(|part| part.is_thinned),
            has_unindexed_names: parts.clone().any(|part| part.has_unindexed_names),
            replaces: parts.clone().flat_map(|part| part.replaces.iter().copied().chain([part.id])).collect(),
            published_nanos: highest(|part| part.published_nanos),
            ..Self::new(id, stream, highest(|part| part.position), highest(|part| part.sequence_next))
        };
        // One of which they are not known makes them unknown of all.
        if parts.clone().all(|part| !part.components.is_empty()) {
            row.set_components(parts.flat_map(|part| part.components.iter().cloned()));
        }
        row
    }
}

/// What the catalogue says at start.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) rows: Vec<SplitRow>,
    /// WAL position up to which everything is in splits.
    pub(crate) checkpoint: u64,
    /// Number of the next record.
    pub(crate) sequence_next: u64,
    /// Number of the next split.
    pub(crate) split_next: u64,
}

/// The file, and what is known of it.
#[derive(Debug)]
pub(crate) struct Catalogue {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// None after a failure, until the next change.
    database: Option<Database>,
    undos: Vec<Undo>,
}

/// A replacement that failed: the disk may have it, the store goes on without it.
#[derive(Debug)]
struct Undo {
    added: u64,
    removed: Vec<SplitRow>,
}

impl Catalogue {
    /// Opens or creates the file and reads all of it.
    ///
    /// # Errors
    /// [`unusable`] tells those that the file itself is to blame for from those that may pass.
    pub(crate) fn open(path: &Path) -> Result<(Self, Contents), Error> {
        // A damaged page may make the library panic, and damage must not stop a start.
        catch_unwind(AssertUnwindSafe(|| Self::open_trusting(path))).unwrap_or_else(|_| {
            Err(Error::catalogue(redb::Error::Corrupted("the library panicked while it read it".to_owned())))
        })
    }

    fn open_trusting(path: &Path) -> Result<(Self, Contents), Error> {
        let database = open_file(path, true)?;
        let write = database.begin_write().map_err(Error::catalogue)?;
        {
            // Opened for writing once, so that they exist for readers.
            write.open_table(SPLITS).map_err(Error::catalogue)?;
            write.open_table(NUMBERS).map_err(Error::catalogue)?;
            let mut texts = write.open_table(TEXTS).map_err(Error::catalogue)?;
            let found = texts.get("format").map_err(Error::catalogue)?.map(|text| text.value().to_owned());
            match found {
                None => {
                    texts.insert("format", FORMAT).map_err(Error::catalogue)?;
                }
                Some(found) if found == FORMAT => {}
                Some(found) => {
                    return Err(Error::Format(format!("it is {found:?} and this version reads {FORMAT:?}")));
                }
            }
        }
        write.commit().map_err(Error::catalogue)?;
        let contents = read(&database)?;
        let state = State { database: Some(database), undos: Vec::new() };
        Ok((Self { path: path.to_owned(), state: Mutex::new(state) }, contents))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes the splits of a live buffer with the WAL position that they reach.
    pub(crate) fn publish(
        &self,
        splits: &[&SplitRow],
        checkpoint: u64,
        sequence_next: u64,
    ) -> Result<(), Error> {
        self.change(splits, &[], &[("checkpoint", checkpoint), ("sequence_next", sequence_next)])
    }

    /// Puts one split in the place of several. When this fails, [`settle`](Self::settle) says when it has surely not
    /// happened.
    pub(crate) fn replace(&self, merged: &SplitRow, replaced: &[&SplitRow]) -> Result<(), Error> {
        let ids: Vec<u64> = replaced.iter().map(|row| row.id).collect();
        self.change(&[merged], &ids, &[]).inspect_err(|_| {
            let removed = replaced.iter().copied().cloned().collect();
            self.lock().undos.push(Undo { added: merged.id, removed });
        })
    }

    /// Forgets splits. What failed may be tried again.
    pub(crate) fn forget(&self, splits: &[u64]) -> Result<(), Error> {
        self.change(&[], splits, &[])
    }

    /// Makes sure that replacements that failed have not happened.
    pub(crate) fn settle(&self) -> Result<(), Error> {
        if self.lock().undos.is_empty() { Ok(()) } else { self.change(&[], &[], &[]) }
    }

    fn change(&self, added: &[&SplitRow], removed: &[u64], set: &[(&str, u64)]) -> Result<(), Error> {
        let mut state = self.lock();
        let State { database, undos } = &mut *state;
        let opened = match database.take() {
            Some(opened) => opened,
            None => open_file(&self.path, false)?,
        };
        // Put back only when all went well.
        write(&opened, undos, added, removed, set)?;
        undos.clear();
        *database = Some(opened);
        Ok(())
    }
}

fn open_file(path: &Path, is_created: bool) -> Result<Database, Error> {
    #[cfg(test)]
    let opened = crate::faults::open(path, is_created);
    #[cfg(not(test))]
    let opened = if is_created { Database::create(path) } else { Database::open(path) };
    opened.map_err(|error| match redb::Error::from(error) {
        redb::Error::DatabaseAlreadyOpen => Error::InUse { path: path.to_owned() },
        redb::Error::Io(source) => Error::disk("open", path, source),
        error => Error::catalogue(error),
    })
}

fn read(database: &Database) -> Result<Contents, Error> {
    let read = database.begin_read().map_err(Error::catalogue)?;
    let splits = read.open_table(SPLITS).map_err(Error::catalogue)?;
    let mut rows = Vec::new();
    for row in splits.iter().map_err(Error::catalogue)? {
        let (id, bytes) = row.map_err(Error::catalogue)?;
        let row: SplitRow =
            postcard::from_bytes(bytes.value()).map_err(|source| Error::Row { row: id.value(), source })?;
        rows.push(row);
    }
    let numbers = read.open_table(NUMBERS).map_err(Error::catalogue)?;
    let number = |name: &str| -> Result<u64, Error> {
        Ok(numbers.get(name).map_err(Error::catalogue)?.map_or(0, |number| number.value()))
    };
    Ok(Contents {
        rows,
        checkpoint: number("checkpoint")?,
        sequence_next: number("sequence_next")?,
        split_next: number("split_next")?,
    })
}

fn write(
    database: &Database,
    undos: &[Undo],
    added: &[&SplitRow],
    removed: &[u64],
    set: &[(&str, u64)],
) -> Result<(), Error> {
    let write = database.begin_write().map_err(Error::catalogue)?;
    {
        let mut splits = write.open_table(SPLITS).map_err(Error::catalogue)?;
        let mut numbers = write.open_table(NUMBERS).map_err(Error::catalogue)?;
        let undone = undos.iter().map(|undo| &undo.added);
        for id in undone.chain(removed) {
            splits.remove(id).map_err(Error::catalogue)?;
        }
        // What a failed replacement took away comes back, unless it goes now.
        let restored = undos.iter().flat_map(|undo| &undo.removed).filter(|row| !removed.contains(&row.id));
        for row in restored.chain(added.iter().copied()) {
            let bytes = postcard::to_allocvec(row).map_err(|error| Error::Format(error.to_string()))?;
            splits.insert(row.id, bytes.as_slice()).map_err(Error::catalogue)?;
            let next = numbers.get("split_next").map_err(Error::catalogue)?;
            let next = next.map_or(0, |next| next.value());
            numbers.insert("split_next", next.max(row.id + 1)).map_err(Error::catalogue)?;
        }
        for (name, number) in set {
            numbers.insert(*name, number).map_err(Error::catalogue)?;
        }
    }
    write.commit().map_err(Error::catalogue)
}

/// Whether the file itself is to blame, so that no later try can read it: a lock, a permission or a failing disk
/// is not its fault.
pub(crate) fn unusable(error: &Error) -> Option<Unusable> {
    // The library says "invalid" or "ended early" of a file that is not one of its own, or is cut.
    let is_content = |kind| matches!(kind, ErrorKind::InvalidData | ErrorKind::UnexpectedEof);
    match error {
        Error::Format(_) => Some(Unusable::Format),
        Error::Row { .. } => Some(Unusable::Row),
        Error::Disk { source, .. } if is_content(source.kind()) => Some(Unusable::Corrupted),
        Error::Catalogue(error) => match error.as_ref() {
            redb::Error::Corrupted(_) => Some(Unusable::Corrupted),
            redb::Error::Io(source) if is_content(source.kind()) => Some(Unusable::Corrupted),
            redb::Error::UpgradeRequired(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. } => Some(Unusable::Format),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents_of(catalogue: &Catalogue) -> Contents {
        let state = catalogue.lock();
        read(state.database.as_ref().expect("open")).expect("read")
    }

    #[test]
    fn rows_and_checkpoint_survive() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("catalogue.redb");
        let row = SplitRow { filter: Filter::of(&[1, 2], 64), ..SplitRow::new(7, Stream::Access, 40, 4) };
        {
            let (catalogue, contents) = Catalogue::open(&path).expect("created");
            assert_eq!((contents.checkpoint, contents.rows.len()), (0, 0));
            catalogue.publish(&[&row], 40, 4).expect("published");
            catalogue.publish(&[], 50, 4).expect("published");
        }
        let (catalogue, contents) = Catalogue::open(&path).expect("opened");
        assert_eq!((contents.checkpoint, contents.sequence_next, contents.split_next), (50, 4, 8));
        assert_eq!(contents.rows, vec![row.clone()]);
        catalogue.replace(&SplitRow { id: 9, ..row.clone() }, &[&row]).expect("replaced");
        let ids: Vec<u64> = contents_of(&catalogue).rows.iter().map(|row| row.id).collect();
        assert_eq!(ids, [9]);
        catalogue.forget(&[9]).expect("forgotten");
        assert!(contents_of(&catalogue).rows.is_empty());
    }
}
