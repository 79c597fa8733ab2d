//! The files of the books and what is known of the calls in them. Blocks on the disk.
//!
//! Files are numbered. A file begins with its head, then everything that is open, so that older files are wanted for
//! undelivered records only; they are removed when the database has those. Nothing is appended to a file of an
//! earlier process, or after an error.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    /// Those whose record is written and not yet on the platter, with the end of what was written then.
    closing: Vec<(Book, u64)>,
    /// Lost calls that nobody answered, by Call-ID and caller's tag: their callers may ask again.
    ringing: HashMap<(String, String), Book>,
    next_sequence: u64,
    next_book: u64,
    delivered: u64,
    /// When this process last said that it lives.
    alive_unix_nanos: u64,
    losses: u64,
    /// The number of the file that was given up last.
    abandoned: u64,
    buffer: Vec<u8>,
}

/// A sync under way.
#[derive(Debug)]
pub(crate) struct Sync {
    file: Arc<fs::File>,
    number: u64,
    bytes: u64,
    #[cfg(test)]
    panics: bool,
}

impl Sync {
    /// One with a fault of ours.
    #[cfg(test)]
    pub(crate) fn panicking(self) -> Self {
        Self { panics: true, ..self }
    }

    /// Waits for the platter.
    pub(crate) fn run(&self) -> io::Result<()> {
        #[cfg(test)]
        assert!(!self.panics, "a fault of ours");
        self.file.sync_data()
    }
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

/// Which calls without a core are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Those that were answered: nothing more can come of them.
    Answered,
    /// Those too that only rang, whose callers have given up asking (RFC 3261 Timer B).
    All,
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
            ringing: HashMap::new(),
            next_sequence: 1,
            next_book: 1,
            delivered: 0,
            alive_unix_nanos: 0,
            losses: 0,
            abandoned: 0,
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
                self.take_over(book, &record)?;
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
        #[cfg(test)]
        assert_ne!(record.call_id.reveal(), super::tests::FAULT, "a fault of ours");
        self.take_over(book, record)?;
        let sequence = self.next_sequence;
        self.encode(&Entry::Closed { sequence, book, record: Cow::Borrowed(record) })?;
        if self.bytes() + self.buffer.len() as u64 > self.limits.spool_bytes_max {
            return Err(Error::SpoolFull);
        }
        self.append()?;
        self.next_sequence += 1;
        let end = self.current.as_ref().map_or(0, |current| current.writer.segment.bytes);
        self.closing.push((book, end));
        Ok(())
    }

    /// A caller whose INVITE was lost with its core says it again, and it is the same call: one record is enough.
    fn take_over(&mut self, book: Book, record: &CallRecord) -> Result<(), Error> {
        if self.ringing.is_empty() || self.ringing.values().any(|lost| *lost == book) {
            return Ok(());
        }
        let caller = (record.call_id.reveal().clone(), record.from_tag.clone());
        match self.ringing.remove(&caller) {
            Some(book) => self.note(Change::Gone { book }),
            None => Ok(()),
        }
    }

    /// All that are open have lost their core: those in books below this one.
    pub(crate) fn lose_all_below(&mut self, below: Book) {
        let alive = self.alive_unix_nanos;
        for (book, open) in self.open.range_mut(..below) {
            if !open.is_lost {
                open.record.end_unix_nanos = open.record.end_unix_nanos.max(alive);
                open.is_lost = true;
            }
            if open.record.answer_unix_nanos.is_none() {
                let caller = (open.record.call_id.reveal().clone(), open.record.from_tag.clone());
                self.ringing.insert(caller, *book);
            }
        }
    }

    /// Lost calls with the record that each is to have: those that were answered, or all of them.
    pub(crate) fn lost(&self, which: Lost) -> Vec<(Book, CallRecord)> {
        let wanted =
            |open: &&Open| open.is_lost && (which == Lost::All || open.record.answer_unix_nanos.is_some());
        // Those whose record is on its way to the platter have it.
        let closing: HashSet<Book> = self.closing.iter().map(|(book, _)| *book).collect();
        let lost = self.open.iter().filter(|(book, open)| wanted(open) && !closing.contains(book));
        lost.map(|(book, open)| (*book, open.record.clone())).collect()
    }

    /// Brings everything to the platter, and waits for it.
    ///
    /// # Errors
    /// When the disk refuses: then what was written since the last time must be written again.
    pub(crate) fn sync(&mut self) -> Result<(), Error> {
        let Some(sync) = self.begin_sync() else { return Ok(()) };
        let result = sync.run();
        self.end_sync(&sync, result)
    }

    /// What brings everything written so far to the platter, while more is written; `None` when all is there.
    pub(crate) fn begin_sync(&mut self) -> Option<Sync> {
        let writer = &self.current.as_ref()?.writer;
        let Segment { number, bytes, .. } = writer.segment;
        (bytes != writer.synced_bytes).then(|| Sync {
            file: writer.handle(),
            number,
            bytes,
            #[cfg(test)]
            panics: false,
        })
    }

    /// A sync came to its end.
    ///
    /// # Errors
    /// Its own: then what was written since the last one must be written again.
    pub(crate) fn end_sync(&mut self, sync: &Sync, result: io::Result<()>) -> Result<(), Error> {
        let is_current = |current: &&mut Current| current.writer.segment.number == sync.number;
        let current = self.current.as_mut().filter(is_current);
        if let Err(error) = result {
            match current {
                Some(_) => self.abandon(),
                // The kernel tells a file's error once: the sync with which it was closed meanwhile knew nothing of it.
                None => self.losses += u64::from(sync.number != self.abandoned),
            }
            return Err(Error::file("sync", &self.limits.directory)(error));
        }
        // A file that was closed meanwhile was synced when it was closed.
        let Some(current) = current else { return Ok(()) };
        current.writer.synced(sync.bytes);
        self.forget_closed(sync.bytes);
        Ok(())
    }

    /// The records up to this place in the file are on the platter: their notes are of no use any more.
    fn forget_closed(&mut self, bytes: u64) {
        for (book, _) in self.closing.extract_if(.., |(_, end)| *end <= bytes) {
            self.open.remove(&book);
            self.ringing.retain(|_, ringing| *ringing != book);
        }
    }

    /// How often something written was lost before it was on the platter.
    pub(crate) fn losses(&self) -> u64 {
        self.losses
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
            self.close_after_error();
            return Err(Error::file("write", &self.limits.directory)(error));
        }
        Ok(())
    }

    /// A write failed, as on a full disk: what was written whole before it is still worth having.
    fn close_after_error(&mut self) {
        let is_kept = self.current.as_mut().is_some_and(|current| current.writer.cut_and_sync().is_ok());
        match self.current.take_if(|_| is_kept) {
            Some(current) => {
                self.forget_closed(u64::MAX);
                self.sealed.push_back(current.writer.segment);
            }
            None => self.abandon(),
        }
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
            self.forget_closed(u64::MAX);
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

    /// The disk lost what was written since the last sync.
    fn abandon(&mut self) {
        self.closing.clear();
        self.losses += 1;
        if let Some(current) = self.current.take() {
            self.abandoned = current.writer.segment.number;
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
