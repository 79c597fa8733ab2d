//! The files of the books and what is known of the calls in them. Blocks on the disk.
//!
//! Files are numbered. A file begins with its head, then everything that is open, so that older files are wanted for
//! undelivered records only; they are removed when the database has those. Nothing is appended to a file of an
//! earlier process, or after an error.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::entry::Entry;
use super::segment::{self, Scanner, Segment, Writer};
use crate::error::Error;
use crate::record::{Book, CallRecord};

/// A file is followed by the next one from this size on, or from four times what it carried.
const SEGMENT_BYTES: u64 = 4 << 20;

/// Bounds of the log.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) directory: PathBuf,
    /// Bytes of all files; records are refused above it, notes of open calls from three quarters of it on.
    pub(crate) spool_bytes_max: u64,
}

/// The log, open for appending.
#[derive(Debug)]
pub(crate) struct Log {
    limits: Limits,
    /// Closed files, oldest first.
    sealed: VecDeque<Segment>,
    current: Option<Current>,
    next_number: u64,
    /// The calls that are open.
    open: BTreeMap<Book, Open>,
    /// Those whose record was written since the last fsync.
    closing: Vec<Book>,
    next_sequence: u64,
    next_book: u64,
    delivered: u64,
    /// When this process last said that it lives.
    alive_unix_nanos: u64,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Current {
    writer: Writer,
    carried_bytes: u64,
}

#[derive(Debug)]
struct Open {
    record: CallRecord,
    is_lost: bool,
}

/// How far the log can be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The newest file.
    pub(crate) number: u64,
    /// How much of it is on the platter.
    pub(crate) end: u64,
    /// The last record.
    pub(crate) last_sequence: u64,
    /// Bytes of all files.
    pub(crate) bytes: u64,
}

/// What was found when the log was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Records that the database may not have.
    pub(crate) undelivered: u64,
    /// Calls without a record.
    pub(crate) open: usize,
    /// Unreadable bytes between readable ones, and entries that mean nothing to us.
    pub(crate) damaged_bytes: u64,
}

/// What is noted without being waited for.
#[derive(Debug)]
pub(crate) enum Change {
    Open { book: Book, record: Box<CallRecord> },
    Gone { book: Book },
    Alive { unix_nanos: u64 },
    Delivered { sequence: u64, number: u64 },
}

impl Log {
    /// Reads what is there. Files that cannot be read are told by their bytes.
    ///
    /// # Errors
    /// When the folder cannot be made or listed.
    pub(crate) fn open(limits: Limits) -> Result<(Self, Found), Error> {
        let directory = limits.directory.as_path();
        fs::create_dir_all(directory).map_err(Error::file("make the folder", directory))?;
        let segments = segment::list(directory).map_err(Error::file("list", directory))?;
        let mut log = Self {
            next_number: segments.last().map_or(1, |last| last.number + 1),
            sealed: VecDeque::new(),
            current: None,
            open: BTreeMap::new(),
            closing: Vec::new(),
            next_sequence: 1,
            next_book: 1,
            delivered: 0,
            alive_unix_nanos: 0,
            buffer: Vec::new(),
            limits,
        };
        let mut found = Found::default();
        for segment in &segments {
            let mut replay = Replay { log: &mut log, carrying: None, damaged_bytes: 0 };
            if replay.read(segment).is_err() {
                replay.damaged_bytes += segment.bytes;
            }
            found.damaged_bytes += replay.damaged_bytes;
        }
        log.sealed = segments.into();
        // Whoever kept these books is dead: what it last said of the time is the last that is known of its calls.
        let alive = log.alive_unix_nanos;
        for open in log.open.values_mut().filter(|open| !open.is_lost) {
            open.record.end_unix_nanos = open.record.end_unix_nanos.max(alive);
            open.is_lost = true;
        }
        log.alive_unix_nanos = 0;
        found.open = log.open.len();
        found.undelivered = (log.next_sequence - 1).saturating_sub(log.delivered);
        Ok((log, found))
    }

    /// The first book that no call has.
    pub(crate) fn next_book(&self) -> u64 {
        self.next_book
    }

    /// Records up to this one are in the database.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered
    }

    /// The files' folder.
    pub(crate) fn directory(&self) -> &Path {
        &self.limits.directory
    }

    /// How far it can be read.
    pub(crate) fn progress(&self) -> Progress {
        let current = self.current.as_ref().map(|current| &current.writer);
        Progress {
            number: current.map_or(self.next_number, |writer| writer.segment.number),
            end: current.map_or(0, |writer| writer.synced_bytes),
            last_sequence: self.next_sequence - 1,
            bytes: self.bytes(),
        }
    }

    fn bytes(&self) -> u64 {
        let current = self.current.as_ref().map_or(0, |current| current.writer.segment.bytes);
        self.sealed.iter().map(|segment| segment.bytes).sum::<u64>() + current
    }

    /// Notes a change. It is in the kernel when this returns, and on the platter with the next [`sync`](Self::sync).
    ///
    /// # Errors
    /// When it could not be written. What is open is known all the same, and goes into the next file.
    pub(crate) fn note(&mut self, change: Change) -> Result<(), Error> {
        match change {
            Change::Open { book, record } => {
                self.next_book = self.next_book.max(book.0 + 1);
                let is_room = self.bytes() < self.limits.spool_bytes_max / 4 * 3;
                let entry = Entry::Open { book, record: Cow::Borrowed(&record), is_lost: false };
                let written = if is_room {
                    self.encode(&entry).and_then(|()| self.append())
                } else {
                    Err(Error::SpoolFull)
                };
                self.open.insert(book, Open { record: *record, is_lost: false });
                written
            }
            Change::Gone { book } => {
                if self.open.remove(&book).is_none() {
                    return Ok(());
                }
                self.encode(&Entry::Gone { book })?;
                self.append()
            }
            Change::Alive { unix_nanos } => {
                self.alive_unix_nanos = unix_nanos;
                if self.open.is_empty() {
                    return Ok(());
                }
                self.encode(&Entry::Alive { unix_nanos })?;
                self.append()
            }
            Change::Delivered { sequence, number } => {
                self.remove_before(number);
                if sequence <= self.delivered {
                    return Ok(());
                }
                self.delivered = sequence;
                self.encode(&Entry::Delivered { sequence })?;
                self.append()
            }
        }
    }

    /// Writes a call's record, which takes the place of its note with the next [`sync`](Self::sync).
    ///
    /// # Errors
    /// When it could not be written, or there is no room. The note stays, so that a crash still leaves a record.
    pub(crate) fn close(&mut self, book: Book, record: &CallRecord) -> Result<(), Error> {
        let sequence = self.next_sequence;
        self.encode(&Entry::Closed { sequence, book, record: Cow::Borrowed(record) })?;
        if self.bytes() + self.buffer.len() as u64 > self.limits.spool_bytes_max {
            return Err(Error::SpoolFull);
        }
        self.append()?;
        self.next_sequence += 1;
        self.closing.push(book);
        Ok(())
    }

    /// The calls that nobody will close, with the record that each is to have.
    pub(crate) fn lost(&mut self) -> Vec<(Book, CallRecord)> {
        let alive = self.alive_unix_nanos;
        for open in self.open.values_mut().filter(|open| !open.is_lost) {
            open.record.end_unix_nanos = open.record.end_unix_nanos.max(alive);
            open.is_lost = true;
        }
        self.open.iter().map(|(book, open)| (*book, open.record.clone())).collect()
    }

    /// Brings everything to the platter.
    ///
    /// # Errors
    /// When the disk refuses: then what was written since the last time must be written again.
    pub(crate) fn sync(&mut self) -> Result<(), Error> {
        let Some(current) = &mut self.current else { return Ok(()) };
        if let Err(error) = current.writer.sync() {
            self.abandon();
            return Err(Error::file("sync", &self.limits.directory)(error));
        }
        for book in self.closing.drain(..) {
            self.open.remove(&book);
        }
        Ok(())
    }

    fn encode(&mut self, entry: &Entry<'_>) -> Result<(), Error> {
        self.make_room();
        self.buffer.clear();
        let salt = self.ready()?.writer.segment.salt;
        entry.push(salt, &mut self.buffer).map_err(Error::file("encode", &self.limits.directory))
    }

    /// Writes what was encoded.
    fn append(&mut self) -> Result<(), Error> {
        self.ready()?;
        let Some(current) = &mut self.current else { return Ok(()) };
        if let Err(error) = current.writer.write(&self.buffer) {
            self.abandon();
            return Err(Error::file("write", &self.limits.directory)(error));
        }
        Ok(())
    }

    /// Goes on in a new file when the present one is long.
    fn make_room(&mut self) {
        let least = SEGMENT_BYTES.min(self.limits.spool_bytes_max / 8);
        let is_long =
            |current: &Current| current.writer.segment.bytes >= least.max(4 * current.carried_bytes);
        // Everything in the old file must be on the platter before a reader takes it to be whole.
        if self.current.as_ref().is_some_and(is_long)
            && self.sync().is_ok()
            && let Some(current) = self.current.take()
        {
            self.sealed.push_back(current.writer.segment);
        }
    }

    /// The file to append to, made when there is none.
    fn ready(&mut self) -> Result<&mut Current, Error> {
        let current = match self.current.take() {
            Some(current) => current,
            None => self.begin().map_err(Error::file("begin a file in", &self.limits.directory))?,
        };
        Ok(self.current.insert(current))
    }

    fn begin(&mut self) -> io::Result<Current> {
        let mut writer = Writer::create(&self.limits.directory, self.next_number)?;
        self.next_number += 1;
        match self.carry(&mut writer) {
            Ok(()) => Ok(Current { carried_bytes: writer.segment.bytes, writer }),
            Err(error) => {
                // Without its end, what it carries is not believed; empty, it is of no use to anybody.
                drop(fs::remove_file(&writer.abandon().path));
                Err(error)
            }
        }
    }

    /// Writes everything that is open into a new file, and brings it to the platter.
    fn carry(&mut self, writer: &mut Writer) -> io::Result<()> {
        let salt = writer.segment.salt;
        let mut bytes = Vec::new();
        let head = Entry::Head {
            next_sequence: self.next_sequence,
            next_book: self.next_book,
            delivered: self.delivered,
        };
        head.push(salt, &mut bytes)?;
        for (book, open) in &self.open {
            let mut record = Cow::Borrowed(&open.record);
            if !open.is_lost && self.alive_unix_nanos > record.end_unix_nanos {
                record.to_mut().end_unix_nanos = self.alive_unix_nanos;
            }
            Entry::Open { book: *book, record, is_lost: open.is_lost }.push(salt, &mut bytes)?;
            if bytes.len() as u64 > SEGMENT_BYTES {
                writer.write(&bytes)?;
                bytes.clear();
            }
        }
        Entry::Carried.push(salt, &mut bytes)?;
        writer.write(&bytes)?;
        writer.sync()
    }

    fn abandon(&mut self) {
        self.closing.clear();
        if let Some(current) = self.current.take() {
            self.sealed.push_back(current.writer.abandon());
        }
    }

    /// Removes the closed files before this one, whose records are all in the database.
    fn remove_before(&mut self, number: u64) {
        // Only a file that carries everything open makes older ones useless.
        if self.current.is_none() {
            return;
        }
        while let Some(oldest) = self.sealed.front().filter(|oldest| oldest.number < number) {
            match fs::remove_file(&oldest.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return,
                _ => drop(self.sealed.pop_front()),
            }
        }
    }
}

/// Reading one file of before.
struct Replay<'a> {
    log: &'a mut Log,
    /// What the file carries, until its end shows that it is all.
    carrying: Option<BTreeMap<Book, Open>>,
    damaged_bytes: u64,
}

impl Replay<'_> {
    fn read(&mut self, segment: &Segment) -> io::Result<()> {
        let mut scanner = Scanner::open(segment, 0, u64::MAX)?;
        while let Some(frame) = scanner.next()? {
            match Entry::read(frame) {
                Some(entry) => self.take(entry),
                None => self.damaged_bytes += frame.len() as u64,
            }
        }
        self.damaged_bytes += scanner.damaged_bytes;
        Ok(())
    }

    fn take(&mut self, entry: Entry<'static>) {
        let log = &mut *self.log;
        match entry {
            Entry::Head { next_sequence, next_book, delivered } => {
                log.next_sequence = log.next_sequence.max(next_sequence);
                log.next_book = log.next_book.max(next_book);
                log.delivered = log.delivered.max(delivered);
                self.carrying = Some(BTreeMap::new());
            }
            Entry::Carried => {
                if let Some(carried) = self.carrying.take() {
                    log.open = carried;
                    // It carries the time of the process before, too.
                    log.alive_unix_nanos = 0;
                }
            }
            Entry::Open { book, record, is_lost } => {
                log.next_book = log.next_book.max(book.0 + 1);
                let open = Open { record: record.into_owned(), is_lost };
                self.carrying.as_mut().unwrap_or(&mut log.open).insert(book, open);
            }
            Entry::Gone { book } => {
                log.open.remove(&book);
            }
            Entry::Alive { unix_nanos } => log.alive_unix_nanos = unix_nanos,
            Entry::Closed { sequence, book, record: _ } => {
                log.next_sequence = log.next_sequence.max(sequence + 1);
                log.open.remove(&book);
            }
            Entry::Delivered { sequence } => log.delivered = log.delivered.max(sequence),
        }
    }
}

#[cfg(test)]
mod tests;
