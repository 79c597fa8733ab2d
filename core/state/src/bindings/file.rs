//! The files behind the bindings: a snapshot and the journals since it.
//!
//! A record is a frame of postcard bytes ([`crate::frame`]). The snapshot is one header record with the number of
//! the first journal that it does not hold, then one record per binding, then an end record with their count; it
//! is written beside and renamed over the old one. Journals are numbered; a fold starts the next one first, so no
//! change is ever in neither. A torn snapshot means starting with what the journals hold; a torn record ends its journal.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Binding;
use crate::error::Error;
use crate::frame;
use crate::signals::Signals;

/// Whoever holds this file locked owns the others.
const LOCK: &str = "bindings.lock";
const SNAPSHOT: &str = "bindings.snapshot";
const JOURNAL_PREFIX: &str = "bindings-";
const JOURNAL_SUFFIX: &str = ".journal";
/// Changes when the layout of [`Binding`] does: an older file then reads as torn and phones register again.
const LAYOUT: u32 = 1;
/// These files hold nothing but what we encode, and end at the first torn record: nothing is ever searched for.
const SEED: u32 = 0;

/// A change to the table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Change {
    Put { address: String, binding: Arc<Binding> },
    Remove { address: String, key: String },
}

#[derive(Serialize, Deserialize)]
enum SnapshotRecord {
    Start { layout: u32, next_journal: u64 },
    Entry { address: String, binding: Arc<Binding> },
    End { entries: u64 },
}

/// The open journal and where its folder is.
pub(super) struct Files {
    /// Held locked for as long as this process owns the folder: two would tidy away each other's journals.
    _lock: File,
    directory: PathBuf,
    journal: File,
    journal_number: u64,
    /// Whether the journal holds anything.
    is_dirty: bool,
    /// Bytes of the journal that are whole records.
    journal_bytes: u64,
}

/// A snapshot that is about to be written.
pub(super) struct Fold {
    directory: PathBuf,
    next_journal: u64,
    entries: Vec<(Arc<str>, Arc<Binding>)>,
}

impl Files {
    /// Reads what is there, hands every change to `apply`, and starts a new journal.
    pub(super) fn open(
        directory: &Path,
        signals: &Signals,
        mut apply: impl FnMut(Change),
    ) -> Result<Self, Error> {
        let lock = lock(directory)?;
        let first = match read_snapshot(&directory.join(SNAPSHOT)) {
            Ok(Some((next_journal, entries))) => {
                for (address, binding) in entries {
                    apply(Change::Put { address, binding });
                }
                next_journal
            }
            Ok(None) => 0,
            Err(fault) => {
                signals.snapshot_torn(fault);
                0
            }
        };
        let numbers = journal_numbers(directory)?;
        for &number in numbers.iter().filter(|&&number| number >= first) {
            let bytes = fs::read(journal_path(directory, number)).map_err(Error::file("read", directory))?;
            let mut rest = &bytes[..];
            let mut entries = 0;
            while let Some(change) = next_record(&mut rest) {
                apply(change);
                entries += 1;
            }
            if !rest.is_empty() {
                signals.journal_torn(entries);
            }
        }
        let journal_number = numbers.last().map_or(first, |last| last + 1).max(first);
        let journal = create(&journal_path(directory, journal_number))?;
        // What was read stands in older files; a fold at the first change or the first tick tidies them away.
        let is_dirty = !numbers.is_empty();
        let directory = directory.to_owned();
        Ok(Self { _lock: lock, directory, journal, journal_number, is_dirty, journal_bytes: 0 })
    }

    /// Writes one change. A write that fails half-way is cut off again, so that the next one is readable.
    pub(super) fn append(&mut self, change: &Change) -> Result<(), Error> {
        let path = || journal_path(&self.directory, self.journal_number);
        let record = encode(change).map_err(Error::file("write", &path()))?;
        if let Err(error) = self.journal.write_all(&record) {
            // Should this fail too, the torn record ends the journal at the next start, and a fold starts a new one.
            self.is_dirty |= self.journal.set_len(self.journal_bytes).is_err();
            return Err(Error::file("write", &path())(error));
        }
        self.journal_bytes += record.len() as u64;
        self.is_dirty = true;
        Ok(())
    }

    /// The last fold failed: the next one must not find everything clean.
    pub(super) fn not_folded(&mut self) {
        self.is_dirty = true;
    }

    /// Starts the next journal; what is to be written into the snapshot comes back, if anything changed.
    pub(super) fn begin_fold(
        &mut self,
        entries: Vec<(Arc<str>, Arc<Binding>)>,
    ) -> Result<Option<Fold>, Error> {
        if !self.is_dirty {
            return Ok(None);
        }
        let next_journal = self.journal_number + 1;
        self.journal = create(&journal_path(&self.directory, next_journal))?;
        self.journal_number = next_journal;
        self.journal_bytes = 0;
        self.is_dirty = false;
        Ok(Some(Fold { directory: self.directory.clone(), next_journal, entries }))
    }
}

impl Fold {
    /// Writes the snapshot, then removes the journals that it holds.
    pub(super) fn finish(self) -> Result<(), Error> {
        let path = self.directory.join(SNAPSHOT);
        let beside = self.directory.join(format!("{SNAPSHOT}.new"));
        self.write(&beside).map_err(Error::file("write", &beside))?;
        fs::rename(&beside, &path).map_err(Error::file("rename", &path))?;
        File::open(&self.directory)
            .and_then(|folder| folder.sync_all())
            .map_err(Error::file("sync", &self.directory))?;
        for number in journal_numbers(&self.directory)? {
            if number < self.next_journal {
                let journal = journal_path(&self.directory, number);
                fs::remove_file(&journal).map_err(Error::file("remove", &journal))?;
            }
        }
        Ok(())
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = io::BufWriter::new(File::create(path)?);
        file.write_all(&encode(&SnapshotRecord::Start { layout: LAYOUT, next_journal: self.next_journal })?)?;
        for (address, binding) in &self.entries {
            let entry = SnapshotRecord::Entry { address: address.to_string(), binding: Arc::clone(binding) };
            file.write_all(&encode(&entry)?)?;
        }
        file.write_all(&encode(&SnapshotRecord::End { entries: self.entries.len() as u64 })?)?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }
}

type Entries = Vec<(String, Arc<Binding>)>;

/// The journal to go on from and the bindings; nothing when there is no file; a bounded reason when it is torn.
fn read_snapshot(path: &Path) -> Result<Option<(u64, Entries)>, &'static str> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(_) => return Err("unreadable"),
    }
    let mut rest = &bytes[..];
    let Some(SnapshotRecord::Start { layout, next_journal }) = next_record(&mut rest) else {
        return Err("no_header");
    };
    if layout != LAYOUT {
        return Err("other_layout");
    }
    let mut entries = Vec::new();
    loop {
        match next_record(&mut rest) {
            Some(SnapshotRecord::Entry { address, binding }) => entries.push((address, binding)),
            Some(SnapshotRecord::End { entries: count }) if count == entries.len() as u64 => {
                return Ok(Some((next_journal, entries)));
            }
            _ => return Err("torn"),
        }
    }
}

fn encode<T: Serialize>(record: &T) -> io::Result<Vec<u8>> {
    let bytes = postcard::to_stdvec(record).map_err(io::Error::other)?;
    let mut framed = Vec::with_capacity(bytes.len() + frame::HEADER_BYTES);
    frame::push(SEED, &bytes, &mut framed)?;
    Ok(framed)
}

/// Takes one record off the front; leaves the rest as it is when there is no whole one.
fn next_record<T: DeserializeOwned>(rest: &mut &[u8]) -> Option<T> {
    let frame::Front::Whole(bytes) = frame::front(SEED, rest) else { return None };
    let record = postcard::from_bytes(bytes).ok()?;
    *rest = rest.get(frame::HEADER_BYTES + bytes.len()..)?;
    Some(record)
}

/// Takes the folder for this process; the system gives it back when the process ends, however it ends.
fn lock(directory: &Path) -> Result<File, Error> {
    let path = directory.join(LOCK);
    let file = File::create(&path).map_err(Error::file("create", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(Error::InUse(directory.to_owned())),
        Err(fs::TryLockError::Error(error)) => Err(Error::file("lock", &path)(error)),
    }
}

fn create(path: &Path) -> Result<File, Error> {
    fs::OpenOptions::new().create(true).append(true).open(path).map_err(Error::file("create", path))
}

fn journal_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{JOURNAL_PREFIX}{number}{JOURNAL_SUFFIX}"))
}

fn journal_numbers(directory: &Path) -> Result<Vec<u64>, Error> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory).map_err(Error::file("list", directory))? {
        let name = entry.map_err(Error::file("list", directory))?.file_name();
        let name = name.to_string_lossy();
        let number = name.strip_prefix(JOURNAL_PREFIX).and_then(|name| name.strip_suffix(JOURNAL_SUFFIX));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}
