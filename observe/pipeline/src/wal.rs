//! The write-ahead log: a directory of segment files, appended to by one thread, fsynced before anything is acknowledged.
//!
//! Why our own: all stores share one position, so that each can say by one number what it has kept; a batch is
//! acknowledged after its fsync, never before; and damage anywhere costs the damaged records and nothing else.
//! No crate does these three (see `reference/telemetry.md` section 6: the candidates acknowledge from the page
//! cache, or are not maintained).
//!
//! A segment is named `<first position>-<salt>.wal`. There is no header that could be damaged: the name says it all.
//! A frame is `length u32 | crc32c u32 | position u64 | payload`, little endian; the checksum starts from the segment's
//! salt and covers length, position and payload. The salt makes it impossible to smuggle a frame in a message's bytes.
//! A start never writes to an old segment: it cuts the torn end off the last one and begins a new file.
//! After any failed write or fsync the file is abandoned too, because the page cache can no longer be believed.

mod codec;
mod segment;

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use self::codec::{Decoder, Encoder};
pub(crate) use self::segment::Segment;
use self::segment::Writer;
use crate::store::Entry;

const LOCK_FILE: &str = "wal.lock";

/// Limits of the log, from the configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) segment_bytes_max: u64,
    pub(crate) record_bytes_max: u64,
}

/// The log, open for appending. One per directory.
#[derive(Debug)]
pub(crate) struct Wal {
    directory: PathBuf,
    limits: Limits,
    /// Closed segments, oldest first.
    sealed: VecDeque<Segment>,
    current: Option<(Writer, Encoder)>,
    next_position: u64,
    /// Held for as long as the log is open.
    _lock: File,
}

/// What was found when the log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recovery {
    pub(crate) segments: u64,
    pub(crate) next_position: u64,
    /// Bytes cut off the end of the last segment: an unfinished, never acknowledged write.
    pub(crate) torn_bytes: u64,
}

/// What one append did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Appended {
    /// Position of the last entry.
    pub(crate) position: u64,
    pub(crate) bytes: u64,
    /// Indexes of the entries that are too long and were left out.
    pub(crate) oversize: Vec<usize>,
}

/// What a replay met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Replayed {
    pub(crate) entries: u64,
    /// Bytes that are no readable frame, and frames that are no readable entry.
    pub(crate) damaged_bytes: u64,
    /// Positions between readable frames that no frame has.
    pub(crate) missing: u64,
}

/// Why the log could not be opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    InUse,
    Directory(io::Error),
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        Self::Directory(error)
    }
}

/// A reading of the log that does not hold it: it can be appended to meanwhile.
#[derive(Debug)]
pub(crate) struct Replay {
    from: u64,
    last_position: Option<u64>,
    /// Everything up to here was read, even if the log's last positions were given up or lost.
    read_to: u64,
    met: Replayed,
}

impl Replay {
    /// A reading of what lies past `from`.
    pub(crate) fn new(from: u64) -> Self {
        Self { from, last_position: None, read_to: from, met: Replayed::default() }
    }

    /// How far it has come.
    pub(crate) fn position(&self) -> u64 {
        self.read_to
    }

    /// Notes that the log was read up to this position.
    pub(crate) fn finish_at(&mut self, position: u64) {
        self.read_to = self.read_to.max(position);
    }

    /// What was met so far.
    pub(crate) fn met(&self) -> Replayed {
        self.met
    }

    /// Reads a segment, which follows those read before, and calls `visit` with each entry's position, bytes and
    /// content, in order, each once.
    pub(crate) fn read(&mut self, segment: &Segment, mut visit: impl FnMut(u64, usize, Entry)) {
        let mut decoder = Decoder::default();
        let scan = segment.scan(|position, payload| {
            // Decoded even when it is not wanted: later frames may use the series that it defines.
            let entry = decoder.decode(payload);
            if self.last_position.is_some_and(|last| position <= last) {
                return;
            }
            self.met.missing += self.last_position.map_or(0, |last| position - last - 1);
            self.last_position = Some(position);
            match entry {
                Some(entry) if position > self.from => {
                    self.met.entries += 1;
                    visit(position, payload.len(), entry);
                }
                Some(_) => {}
                None => self.met.damaged_bytes += payload.len() as u64,
            }
        });
        self.met.damaged_bytes += scan.damaged_bytes + scan.tail_bytes;
    }
}

impl Wal {
    /// Opens the log. Positions go on above both what the log holds and `floor`, the stores' highest checkpoint.
    pub(crate) fn open(directory: &Path, limits: Limits, floor: u64) -> Result<(Self, Recovery), OpenError> {
        std::fs::create_dir_all(directory)?;
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).open(directory.join(LOCK_FILE))?;
        lock.try_lock().map_err(|error| match error {
            std::fs::TryLockError::WouldBlock => OpenError::InUse,
            std::fs::TryLockError::Error(error) => OpenError::Directory(error),
        })?;
        let mut sealed = segment::list(directory)?;
        let mut recovery = Recovery::default();
        let mut last_position = floor;
        // Only the last one that was written can be torn; empty ones say nothing.
        while let Some(last) = sealed.back_mut() {
            last_position = last_position.max(last.first_position() - 1);
            let end = last.cut_torn_end()?;
            recovery.torn_bytes += end.torn_bytes;
            if let Some(position) = end.last_position {
                last_position = last_position.max(position);
                break;
            }
            last.remove(end.is_readable)?;
            sealed.pop_back();
        }
        segment::sync_directory(directory)?;
        recovery.segments = sealed.len() as u64;
        recovery.next_position = last_position + 1;
        let wal = Self {
            directory: directory.to_owned(),
            limits,
            sealed,
            current: None,
            next_position: last_position + 1,
            _lock: lock,
        };
        Ok((wal, recovery))
    }

    /// The position of the last entry, or where the last one would have been.
    pub(crate) fn head(&self) -> u64 {
        self.next_position - 1
    }

    /// Bytes on disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        let current = self.current.as_ref().map_or(0, |(writer, _)| writer.bytes());
        self.sealed.iter().map(Segment::bytes).sum::<u64>() + current
    }

    /// Appends entries and fsyncs: when this returns, they survive. After an error nothing was appended, and the
    /// next attempt goes to a new file.
    pub(crate) fn append(&mut self, entries: &[Entry]) -> io::Result<Appended> {
        match self.try_append(entries) {
            Ok(appended) => {
                self.next_position = appended.position + 1;
                Ok(appended)
            }
            Err(error) => {
                self.abandon_current();
                Err(error)
            }
        }
    }

    fn try_append(&mut self, entries: &[Entry]) -> io::Result<Appended> {
        if self.current.as_ref().is_some_and(|(writer, _)| writer.bytes() >= self.limits.segment_bytes_max) {
            self.seal_current();
        }
        let (writer, encoder) = match &mut self.current {
            Some(current) => current,
            None => {
                let writer = Writer::create(&self.directory, self.next_position)?;
                self.current.insert((writer, Encoder::default()))
            }
        };
        let mut appended = Appended { position: self.next_position - 1, ..Appended::default() };
        for (index, entry) in entries.iter().enumerate() {
            let payload = encoder.encode(entry)?;
            if (payload[0].len() + payload[1].len()) as u64 > self.limits.record_bytes_max {
                encoder.forget_last();
                appended.oversize.push(index);
                continue;
            }
            appended.position += 1;
            writer.push(appended.position, payload);
        }
        appended.bytes = writer.commit()?;
        Ok(appended)
    }

    /// Gives up the positions of entries that were dropped, so that no position ever names two entries.
    pub(crate) fn skip(&mut self, entries: usize) {
        self.next_position += entries as u64;
    }

    /// The closed segments that can hold something past `position`, oldest first, and the last position that any
    /// closed segment can hold.
    pub(crate) fn segments_past(&self, position: u64) -> (Vec<Segment>, u64) {
        let end = self.current.as_ref().map_or(self.next_position, |(writer, _)| writer.first_position());
        let ends = self.sealed.iter().skip(1).map(Segment::first_position).chain([end]);
        let wanted = self.sealed.iter().zip(ends).filter(|(_, end)| *end > position + 1);
        (wanted.map(|(segment, _)| segment.clone()).collect(), end - 1)
    }

    /// Closes the file that is written to, so that it can be read.
    pub(crate) fn seal_current(&mut self) {
        if let Some((writer, _)) = self.current.take() {
            self.sealed.push_back(writer.seal());
        }
    }

    /// Deletes the closed segments that hold nothing past `checkpoint`. Returns how many.
    pub(crate) fn trim(&mut self, checkpoint: u64) -> io::Result<usize> {
        let mut trimmed = 0;
        while self.end_of_oldest().is_some_and(|end| end <= checkpoint) && self.evict_oldest()? {
            trimmed += 1;
        }
        Ok(trimmed)
    }

    /// Deletes the oldest closed segment, whatever it holds; false when there is none.
    pub(crate) fn evict_oldest(&mut self) -> io::Result<bool> {
        // The newest file stays: it carries the position over a restart.
        if self.sealed.len() + usize::from(self.current.is_some()) < 2 {
            return Ok(false);
        }
        let Some(oldest) = self.sealed.pop_front() else { return Ok(false) };
        match std::fs::remove_file(oldest.path()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                self.sealed.push_front(oldest);
                return Err(error);
            }
        }
        segment::sync_directory(&self.directory)?;
        Ok(true)
    }

    /// The last position that the oldest closed segment can hold.
    fn end_of_oldest(&self) -> Option<u64> {
        self.sealed.front()?;
        let current_first =
            self.current.as_ref().map_or(self.next_position, |(writer, _)| writer.first_position());
        Some(self.sealed.get(1).map_or(current_first, Segment::first_position) - 1)
    }

    /// Closes a file whose last write failed: what was fsynced before stays, the rest is cut if the disk allows.
    fn abandon_current(&mut self) {
        if let Some(segment) = self.current.take().and_then(|(writer, _)| writer.abandon()) {
            self.sealed.push_back(segment);
        }
    }
}

#[cfg(test)]
mod tests;
