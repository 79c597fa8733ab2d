//! Intake: records become visible at once and durable in splits a little later.

use std::sync::Arc;

use belfry_signal::{PackedRecord, Registry};

use crate::blocks::Packed;
use crate::building::Builder;
use crate::config::Config;
use crate::error::Error;
use crate::handle::EventsReader;
use crate::housekeeping::Housekeeper;
use crate::live::Batch;
use crate::signals::Signals;
use crate::store::Store;

/// How often the housekeeper looks around, in milliseconds.
const HOUSEKEEPING_MILLIS: i64 = 5_000;

/// The store of events; see [`Events::open`].
#[derive(Debug)]
pub struct Events;

/// The one writer of the store. `apply` and `tick` block only on the store's own locks and, when the builder is behind
/// but does not fail, for a bounded time. `flush` and dropping it wait for the build or merge in hand, which reads and
/// writes whole splits; give it a thread that may.
pub struct EventsWriter {
    store: Arc<Store>,
    builder: Builder,
    housekeeper: Housekeeper,
    /// Position of the last batch that was taken.
    applied: u64,
    /// Position up to which buffers were sealed.
    sealed: u64,
    checkpoint_at_open: u64,
    sequence_next: u64,
    filling_records: usize,
    filling_bytes: usize,
    filling_since_millis: Option<i64>,
    housekeeping_millis: Option<i64>,
}

impl Events {
    /// Opens or creates the store in `config.directory` and starts its two threads.
    ///
    /// Splits that are damaged are reported and left out; what a crash left half-built is removed. When the
    /// catalogue is damaged or of another format, the directory is renamed to `<directory>.damaged-<unix seconds>`
    /// and an empty store begun. The caller then replays its log from [`EventsWriter::checkpoint`].
    ///
    /// # Errors
    /// When the store is open in another process, or the disk or its permissions refuse.
    pub fn open(config: Config, registry: &Registry) -> Result<(EventsWriter, EventsReader), Error> {
        let signals = Signals::register(registry);
        let (store, resume) = Store::open(config, signals)?;
        let store = Arc::new(store);
        let writer = EventsWriter {
            builder: Builder::start(Arc::clone(&store))?,
            housekeeper: Housekeeper::start(Arc::clone(&store))?,
            applied: resume.checkpoint,
            sealed: resume.checkpoint,
            checkpoint_at_open: resume.checkpoint,
            sequence_next: resume.sequence_next,
            filling_records: 0,
            filling_bytes: 0,
            filling_since_millis: None,
            housekeeping_millis: None,
            store: Arc::clone(&store),
        };
        Ok((writer, EventsReader::new(store)))
    }
}

impl EventsWriter {
    /// Takes the records of one log position; they are searchable when this returns. A position at or before one
    /// that was taken is ignored, so a replay may begin too early. A batch without records moves the position.
    ///
    /// # Errors
    /// [`Error::Busy`] when the live buffer is full and the builder did not catch up in `hand_over_wait`, or at once when
    /// the builder's last try failed: nothing was taken, which is counted. The same batch may be offered again; once a later one is taken, the checkpoint
    /// passes over it.
    pub fn apply(&mut self, position: u64, records: &[&PackedRecord]) -> Result<(), Error> {
        if position <= self.applied {
            return Ok(());
        }
        let records =
            Packed::of(self.sequence_next, records).map_err(|error| Error::Build(error.to_string()))?;
        let (count, bytes) = (records.len(), records.bytes());
        self.make_room(count, bytes)?;
        if count > 0 {
            self.store.live.push(Batch { records });
        }
        self.sequence_next += count as u64;
        self.applied = position;
        self.filling_records += count;
        self.filling_bytes += bytes;
        if self.is_full() && self.builder.has_room() {
            self.seal();
        }
        self.store.signals.live_changed(self.filling_records + self.builder.waiting_records());
        Ok(())
    }

    /// The position up to which everything is durable in splits: the log before it may go.
    #[must_use]
    pub fn checkpoint(&self) -> u64 {
        self.builder.published().unwrap_or(self.checkpoint_at_open)
    }

    /// Makes everything taken so far durable, and waits for it.
    ///
    /// # Errors
    /// When a split could not be built or published; its records stay searchable and are tried again.
    pub fn flush(&mut self) -> Result<(), Error> {
        if self.applied > self.sealed {
            if !self.builder.has_room() {
                self.builder.wait_until_published()?;
            }
            self.seal();
        }
        self.builder.wait_until_published()
    }

    /// Tells the time, about once a second: seals a buffer that has its age, and wakes the housekeeper.
    pub fn tick(&mut self, unix_millis: i64) {
        if self.applied > self.sealed {
            let since = *self.filling_since_millis.get_or_insert(unix_millis);
            let age = i64::try_from(self.store.config.seal_age.as_millis()).unwrap_or(i64::MAX);
            let is_aged = unix_millis.saturating_sub(since) >= age;
            if (is_aged || self.is_full()) && self.builder.has_room() {
                self.seal();
            }
        }
        let is_due = self
            .housekeeping_millis
            .is_none_or(|last| unix_millis.saturating_sub(last) >= HOUSEKEEPING_MILLIS);
        if is_due {
            self.housekeeping_millis = Some(unix_millis);
            self.housekeeper.ask(unix_millis);
        }
    }

    /// Does now, in this thread, what the housekeeper does on a tick: retention, bounds, merging.
    #[cfg(test)]
    pub(crate) fn keep(&self, unix_millis: i64) {
        crate::housekeeping::keep(&self.store, unix_millis, &|| false);
    }

    /// What the threads share.
    #[cfg(test)]
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    fn is_full(&self) -> bool {
        self.filling_records >= self.store.config.seal_records_max
            || self.filling_bytes >= self.store.config.seal_bytes_max
    }

    /// Makes sure that a batch may be taken: seals, and waits for the builder if it must.
    fn make_room(&mut self, records: usize, bytes: usize) -> Result<(), Error> {
        let config = &self.store.config;
        let is_over = self.filling_records + records > config.live_records_max
            || self.filling_bytes + bytes > config.live_bytes_max;
        if !is_over || self.filling_records == 0 {
            return Ok(());
        }
        if !self.builder.has_room() {
            let has_room = self.builder.wait_for_room(config.hand_over_wait);
            if !has_room {
                self.store.signals.batch_refused(records as u64);
                return Err(Error::Busy);
            }
            self.store.signals.hand_over_waited();
        }
        self.seal();
        Ok(())
    }

    fn seal(&mut self) {
        let sealed = self.store.live.seal(self.applied, self.sequence_next);
        self.builder.hand_over(sealed);
        self.sealed = self.applied;
        self.filling_records = 0;
        self.filling_bytes = 0;
        self.filling_since_millis = None;
    }
}
