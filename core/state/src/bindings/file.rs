//! The files behind the bindings: a snapshot and the journals since it.
//!
//! A record is a frame ([`crate::frame`]) of a tag, the address, and a packed binding or a key. The
//! snapshot is one record with the number of the first journal that it does not hold, then one record per binding,
//! then an end record with their count; it is written beside and renamed over the old one. Journals are numbered; a
//! fold starts the next one first, so no change is ever in neither. A torn snapshot means starting with what the
//! journals hold; a torn record ends its journal.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Bindings;
use super::table::{Packed, unpack};
use crate::error::Error;
use crate::frame;
use crate::signals::Signals;

/// Whoever holds this file locked owns the others.
const LOCK: &str = "bindings.lock";
const SNAPSHOT: &str = "bindings.snapshot";
const JOURNAL_PREFIX: &str = "bindings-";
const JOURNAL_SUFFIX: &str = ".journal";
/// Slots that are copied out of the table at a time, so that nobody waits long for it while a snapshot is written.
const SLOTS_PER_LOOK: usize = 4_096;
/// These files hold nothing but what we encode, and end at the first torn record: nothing is ever searched for.
const SEED: u32 = 0;

// The low half of a tag is the layout of a binding: it changes when [`Binding`](super::Binding) does. An older file
// then reads as torn, and phones register again.
const START: u8 = 0x12;
const PUT: u8 = 0x22;
const REMOVE: u8 = 0x32;
const END: u8 = 0x42;

/// One record of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    /// The first of a snapshot: the journal to go on from.
    Start { next_journal: u64 },
    /// A binding is there.
    Put { address: &'a str, packed: &'a [u8] },
    /// A binding is gone.
    Remove { address: &'a str, key: &'a str },
    /// The last of a snapshot.
    End { entries: u64 },
}

/// The open journal and where its folder is.
pub(super) struct Files {
    /// Held locked for as long as this process owns the folder: two would tidy away each other's journals.
    lock: Arc<File>,
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
}

impl Files {
    /// Reads what is there, hands every change to `apply`, and starts a new journal.
    pub(super) fn open(
        directory: &Path,
        signals: &Signals,
        mut apply: impl FnMut(Record<'_>),
    ) -> Result<Self, Error> {
        let lock = lock(directory)?;
        let first = match read_snapshot(&directory.join(SNAPSHOT)) {
            Ok(Some((next_journal, entries))) => {
                for (address, packed) in &entries {
                    apply(Record::Put { address, packed });
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
            while let Some(record) = next_record(&mut rest) {
                apply(record);
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
        Ok(Self { lock: Arc::new(lock), directory, journal, journal_number, is_dirty, journal_bytes: 0 })
    }

    /// Whoever else writes in the folder holds this for as long.
    pub(super) fn lock(&self) -> Arc<File> {
        Arc::clone(&self.lock)
    }

    /// Writes whole records. A write that fails half-way is cut off again, so that the next one is readable.
    pub(super) fn append(&mut self, records: &[u8]) -> Result<(), Error> {
        if let Err(error) = self.journal.write_all(records) {
            let path = journal_path(&self.directory, self.journal_number);
            // Should this fail too, the torn record ends the journal at the next start, and a fold starts a new one.
            self.is_dirty |= self.journal.set_len(self.journal_bytes).is_err();
            return Err(Error::file("write", &path)(error));
        }
        self.journal_bytes += records.len() as u64;
        self.is_dirty = true;
        Ok(())
    }

    /// The last fold failed: the next one must not find everything clean.
    pub(super) fn not_folded(&mut self) {
        self.is_dirty = true;
    }

    /// Puts another file in the journal's place; gives the one before.
    #[cfg(test)]
    pub(super) fn journal_for_test(&mut self, journal: File) -> File {
        std::mem::replace(&mut self.journal, journal)
    }

    /// Starts the next journal, if anything changed. What the table holds from now on goes into the snapshot: every
    /// change of the journals before stands in the table already, and a change while the snapshot is written is in
    /// the new journal, whichever side of it the snapshot saw.
    pub(super) fn begin_fold(&mut self) -> Result<Option<Fold>, Error> {
        if !self.is_dirty {
            return Ok(None);
        }
        let next_journal = self.journal_number + 1;
        self.journal = create(&journal_path(&self.directory, next_journal))?;
        self.journal_number = next_journal;
        self.journal_bytes = 0;
        self.is_dirty = false;
        Ok(Some(Fold { directory: self.directory.clone(), next_journal }))
    }
}

impl Fold {
    /// Writes the snapshot, then removes the journals that it holds.
    pub(super) fn finish(self, bindings: &Bindings) -> Result<(), Error> {
        let path = self.directory.join(SNAPSHOT);
        let beside = self.directory.join(format!("{SNAPSHOT}.new"));
        self.write(bindings, &beside).map_err(Error::file("write", &beside))?;
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

    fn write(&self, bindings: &Bindings, path: &Path) -> io::Result<()> {
        let mut file = io::BufWriter::new(File::create(path)?);
        let mut record = Vec::new();
        let mut write = |record_of: Record<'_>| {
            record.clear();
            encode(&record_of, &mut record)?;
            file.write_all(&record)
        };
        write(Record::Start { next_journal: self.next_journal })?;
        let (mut entries, mut from) = (0, Some(0));
        while let Some(at) = from {
            let (some, next) = bindings.held().table.entries(at, SLOTS_PER_LOOK);
            for (address, packed) in &some {
                write(Record::Put { address, packed })?;
            }
            entries += some.len() as u64;
            from = next;
        }
        write(Record::End { entries })?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }
}

type Entries = Vec<(String, Packed)>;

/// The journal to go on from and the bindings; nothing when there is no file; a bounded reason when it is torn.
fn read_snapshot(path: &Path) -> Result<Option<(u64, Entries)>, &'static str> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(_) => return Err("unreadable"),
    }
    let mut rest = &bytes[..];
    let Some(Record::Start { next_journal }) = next_record(&mut rest) else {
        return Err("no_header");
    };
    let mut entries = Entries::new();
    loop {
        match next_record(&mut rest) {
            Some(Record::Put { address, packed }) => entries.push((address.to_owned(), packed.into())),
            Some(Record::End { entries: count }) if count == entries.len() as u64 => {
                return Ok(Some((next_journal, entries)));
            }
            _ => return Err("torn"),
        }
    }
}

/// Adds a framed record to the bytes.
pub(super) fn encode(record: &Record<'_>, to: &mut Vec<u8>) -> io::Result<()> {
    let number;
    let (tag, address, rest) = match record {
        Record::Start { next_journal: given } | Record::End { entries: given } => {
            number = given.to_le_bytes();
            let tag = if matches!(record, Record::Start { .. }) { START } else { END };
            (tag, "", &number[..])
        }
        Record::Put { address, packed } => (PUT, *address, *packed),
        Record::Remove { address, key } => (REMOVE, *address, key.as_bytes()),
    };
    frame::push_with(SEED, to, |to| {
        // A text is its length and its bytes.
        let mut head = [0; 16];
        let head = postcard::to_slice(&(tag, address.len()), &mut head).map_err(io::Error::other)?;
        to.extend_from_slice(head);
        to.extend_from_slice(address.as_bytes());
        to.extend_from_slice(rest);
        Ok(())
    })
}

/// Takes one record off the front; leaves the rest as it is when there is no whole one.
fn next_record<'a>(rest: &mut &'a [u8]) -> Option<Record<'a>> {
    let frame::Front::Whole(bytes) = frame::front(SEED, rest) else { return None };
    let ((tag, address), body): ((u8, &str), _) = postcard::take_from_bytes(bytes).ok()?;
    let number = || body.try_into().ok().map(u64::from_le_bytes);
    let record = match tag {
        START => Record::Start { next_journal: number()? },
        END => Record::End { entries: number()? },
        PUT => Record::Put { address, packed: unpack(body).map(|_| body)? },
        REMOVE => Record::Remove { address, key: std::str::from_utf8(body).ok()? },
        _ => return None,
    };
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
