//! The pipeline's own thread: it alone writes the log and calls the stores, so it may block and nobody waits.
//!
//! It runs a small tokio runtime for its timers and channels. The only queue between a component and the disk is the
//! emitter's: what does not fit there is dropped and counted at the source.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use belfry_signal::{PackedRecord, RecordKind, RecordReceiver, Registry, Written};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

use crate::config::Config;
use crate::error::{Error, WriteError};
use crate::export::Intake;
use crate::signals::{DropReason, EntryKind, Signals, StoreName};
use crate::store::{Entry, Store};
use crate::wal::{Appended, Replay, Replayed, Segment, Wal};

/// Entries handed to the stores at a time during replay: memory stays bounded however long the log is.
const REPLAY_ENTRIES: usize = 1024;
/// Bytes of such entries in the log: those of a batch of points are long.
const REPLAY_BYTES: usize = 8 << 20;
/// Readings of what came in during the reading before; after these nothing comes in until the log is read to its end.
const INTAKE_ROUNDS: u32 = 4;
/// A round of samples is cut into entries of this many, so that a large registry never makes one that is too long.
const SAMPLES_PER_ENTRY: usize = 512;
/// Between two attempts to write a batch on a failing disk.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Between two readings of the log to a store that refuses it, at first and at most.
const CATCH_UP_PAUSE: Duration = Duration::from_secs(1);
const CATCH_UP_PAUSE_MAX: Duration = Duration::from_secs(30);
/// How often stores may close and publish, and the log is trimmed.
const TICK: Duration = Duration::from_secs(1);

/// What the handle asks for.
#[derive(Debug)]
pub(crate) enum Control {
    Flush(oneshot::Sender<()>),
    Drain(oneshot::Sender<()>),
    /// What came in at a door, in pieces that fit the log, and whom to tell.
    Write(Vec<Entry>, oneshot::Sender<Result<Written, WriteError>>),
}

/// Someone who waits until entries are durable.
struct Waiter {
    done: oneshot::Sender<Result<Written, WriteError>>,
    /// Which of the pending entries are his.
    entries: std::ops::Range<usize>,
}

/// A store and how far it was given entries.
struct Attached {
    store: Box<dyn Store>,
    name: StoreName,
    applied: u64,
    standing: Standing,
}

/// Where a store stands to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It is given what is appended.
    Abreast,
    /// The log is being read to it, or is about to be; what is appended reaches it by that reading.
    Behind,
    /// It refused a part of the log: a later reading begins there.
    Refused,
}

/// When the log is read again to stores that refused.
struct CatchingUp {
    pause: Duration,
    due: Option<Instant>,
}

impl Default for CatchingUp {
    fn default() -> Self {
        Self { pause: CATCH_UP_PAUSE, due: None }
    }
}

impl CatchingUp {
    /// A store refused again: the next reading is later each time, unless it took something.
    fn wait(&mut self, now: Instant, has_taken: bool) {
        if has_taken {
            self.pause = CATCH_UP_PAUSE;
        }
        self.due = Some(now + self.pause);
        self.pause = (self.pause * 2).min(CATCH_UP_PAUSE_MAX);
    }
}

impl Attached {
    /// The entries past what it has.
    fn fresh<'a>(&self, position: u64, entries: &'a [Entry]) -> &'a [Entry] {
        let count = usize::try_from(position.saturating_sub(self.applied)).unwrap_or(usize::MAX);
        &entries[entries.len() - count.min(entries.len())..]
    }

    /// The log was read to its end.
    fn caught_up(&mut self) {
        if self.standing == Standing::Behind {
            self.standing = Standing::Abreast;
        }
    }
}

/// What the worker is made of, besides its configuration and stores.
pub(crate) struct Parts {
    pub(crate) registry: Registry,
    pub(crate) records: RecordReceiver,
    pub(crate) requests: mpsc::Receiver<Control>,
    pub(crate) wal: Wal,
    pub(crate) signals: Signals,
    pub(crate) export: Option<Intake>,
}

pub(crate) struct Worker {
    config: Config,
    registry: Registry,
    records: RecordReceiver,
    requests: mpsc::Receiver<Control>,
    stores: Vec<Attached>,
    wal: Wal,
    signals: Signals,
    export: Option<Intake>,
    runtime: Option<Runtime>,
    /// Taken from the queue, not yet in the log.
    pending: Vec<Entry>,
    /// Empty; its memory is used again.
    taken: Vec<PackedRecord>,
    waiters: Vec<Waiter>,
    /// When the first of them was taken.
    pending_since: Option<Instant>,
    is_disk_failing: bool,
    catching_up: CatchingUp,
}

impl Worker {
    pub(crate) fn new(config: Config, parts: Parts, stores: Vec<Box<dyn Store>>) -> Result<Self, Error> {
        let attach = |store: Box<dyn Store>| {
            let name = StoreName::configured(store.name())
                .map_err(|error| Error::Config { key: "stores".to_owned(), fault: error.to_string() })?;
            Ok(Attached { applied: store.checkpoint(), name, store, standing: Standing::Behind })
        };
        let stores = stores.into_iter().map(attach).collect::<Result<_, Error>>()?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(Error::Thread)?;
        let Parts { registry, records, requests, wal, signals, export } = parts;
        Ok(Self {
            config,
            registry,
            records,
            requests,
            stores,
            wal,
            signals,
            export,
            runtime: Some(runtime),
            pending: Vec::new(),
            taken: Vec::new(),
            waiters: Vec::new(),
            pending_since: None,
            is_disk_failing: false,
            catching_up: CatchingUp::default(),
        })
    }

    /// Runs until it is drained.
    pub(crate) fn run(mut self) {
        self.replay();
        let Some(runtime) = self.runtime.take() else { return };
        // By the time this is answered, the worker is gone and the log's directory is free for the next one.
        if let Some(done) = runtime.block_on(self.serve()) {
            let _answer = done.send(());
        }
    }

    /// Gives the stores what the log holds past their checkpoints.
    fn replay(&mut self) {
        let began = Instant::now();
        let met = self.read_log();
        let seconds = began.elapsed().as_secs_f64();
        self.signals.replay_finished(met.entries, met.damaged_bytes, met.missing, seconds);
        self.tick();
    }

    /// Reads the log to those stores that are behind it, until it ends or none of them takes more. A long log takes a
    /// while: when the queue fills meanwhile, its records go into the log, and the reading meets them in their turn.
    /// What a store refuses is left, with all that follows, for a later reading.
    fn read_log(&mut self) -> Replayed {
        let behind = self.stores.iter_mut().filter(|attached| attached.standing == Standing::Refused);
        behind.for_each(|attached| attached.standing = Standing::Behind);
        let from = self.behind().map(|attached| attached.applied).min().unwrap_or(self.wal.head());
        let mut reading = Replay::new(from);
        for round in 0.. {
            let (mut segments, mut end) = self.wal.segments_past(reading.position());
            if segments.is_empty() && end < self.wal.head() {
                self.wal.seal_current();
                (segments, end) = self.wal.segments_past(reading.position());
            }
            if segments.is_empty() {
                self.stores.iter_mut().for_each(Attached::caught_up);
                break;
            }
            for segment in segments {
                if self.behind().next().is_some() {
                    self.replay_segment(&mut reading, &segment, round < INTAKE_ROUNDS);
                }
            }
            if !self.stores.is_empty() && self.behind().next().is_none() {
                break;
            }
            reading.finish_at(end);
            self.wal.seal_current();
        }
        reading.met()
    }

    /// The stores that read the log now.
    fn behind(&self) -> impl Iterator<Item = &Attached> {
        self.stores.iter().filter(|attached| attached.standing == Standing::Behind)
    }

    /// Reads the log again to stores that refused a part of it, less and less often while they go on refusing.
    fn catch_up(&mut self) {
        let has_refused = |stores: &[Attached]| stores.iter().any(|each| each.standing == Standing::Refused);
        if !has_refused(&self.stores) || self.catching_up.due.is_some_and(|due| due > Instant::now()) {
            return;
        }
        let taken = |stores: &[Attached]| stores.iter().map(|each| each.applied).sum::<u64>();
        let before = taken(&self.stores);
        self.read_log();
        if has_refused(&self.stores) {
            self.catching_up.wait(Instant::now(), taken(&self.stores) > before);
        } else {
            self.catching_up = CatchingUp::default();
        }
    }

    fn replay_segment(&mut self, reading: &mut Replay, segment: &Segment, with_intake: bool) {
        let mut batch = Vec::with_capacity(REPLAY_ENTRIES);
        let (mut last, mut held_bytes) = (reading.position(), 0);
        reading.read(segment, |position, bytes, entry| {
            let is_full = batch.len() == REPLAY_ENTRIES || held_bytes + bytes > REPLAY_BYTES;
            // A store is given consecutive entries, so that it can tell the position of each.
            if is_full || position != last + 1 {
                replay_to(&mut self.stores, &self.signals, last, &batch);
                batch.clear();
                held_bytes = 0;
                if with_intake && self.records.len() >= self.records.max_capacity() / 4 {
                    self.commit_all();
                }
            }
            batch.push(entry);
            held_bytes += bytes;
            last = position;
        });
        replay_to(&mut self.stores, &self.signals, last, &batch);
    }

    /// Returns whom to tell that it is over.
    async fn serve(mut self) -> Option<oneshot::Sender<()>> {
        let mut sampling = tokio::time::interval(self.config.sample_interval);
        sampling.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut ticking = tokio::time::interval(TICK);
        ticking.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = self.pending_since.map(|since| since + self.config.commit_interval);
            // While a batch waits for company, nobody wakes this thread but for a full one.
            let awaited =
                due.map_or(1, |_| self.config.commit_records_max.saturating_sub(self.pending.len()).max(1));
            tokio::select! {
                biased;
                () = sleep_until(due) => self.commit_all(),
                request = self.requests.recv() => match request {
                    Some(Control::Flush(done)) => {
                        self.commit_all();
                        // The one who asked may have stopped waiting.
                        let _answer = done.send(());
                    }
                    Some(Control::Write(entries, done)) => self.take_written(entries, done),
                    Some(Control::Drain(done)) => {
                        self.finish();
                        return Some(done);
                    }
                    None => {
                        self.finish();
                        return None;
                    }
                },
                _ = sampling.tick() => self.sample(),
                _ = ticking.tick() => self.tick(),
                () = self.records.arrived(awaited) => match due {
                    None => self.pending_since = Some(Instant::now()),
                    Some(_) => self.commit_all(),
                },
            }
        }
    }

    fn take_written(&mut self, entries: Vec<Entry>, done: oneshot::Sender<Result<Written, WriteError>>) {
        self.pending_since.get_or_insert_with(Instant::now);
        let first = self.pending.len();
        let records = entries.iter().filter(|entry| matches!(entry, Entry::Record(_))).count();
        self.signals.records_written(records);
        self.pending.extend(entries);
        self.waiters.push(Waiter { done, entries: first..self.pending.len() });
        if self.pending.len() >= self.config.commit_records_max {
            self.commit();
        }
    }

    fn sample(&mut self) {
        self.pending_since.get_or_insert_with(Instant::now);
        let unix_millis = unix_millis();
        let all = self.registry.samples();
        let entry = |samples: &[_]| Entry::Samples { unix_millis, samples: samples.to_vec() };
        self.pending.extend(all.chunks(SAMPLES_PER_ENTRY).map(entry));
        if self.pending.len() >= self.config.commit_records_max {
            self.commit();
        }
    }

    /// Commits everything that stands in the queue now.
    fn commit_all(&mut self) {
        let mut taken = std::mem::take(&mut self.taken);
        self.records.take(&mut taken);
        for record in taken.drain(..) {
            self.pending.push(Entry::Record(record));
            if self.pending.len() >= self.config.commit_records_max {
                self.commit();
            }
        }
        self.taken = taken;
        self.commit();
    }

    fn finish(&mut self) {
        // Closing first: whoever emits from here on is told at once, and counts the drop.
        self.records.close();
        self.commit_all();
        self.flush_stores(|_| true);
        self.trim();
        self.export = None;
    }

    fn flush_stores(&mut self, is_wanted: impl Fn(&dyn Store) -> bool) {
        for attached in self.stores.iter_mut().filter(|attached| is_wanted(attached.store.as_ref())) {
            if let Err(error) = attached.store.flush() {
                self.signals.store_failed(&attached.name, error.reason());
            }
        }
    }

    fn trim_to_checkpoint(&mut self) {
        // Without a store the log is all there is: it keeps what its size allows.
        if let Some(checkpoint) = self.stores.iter().map(|attached| attached.store.checkpoint()).min() {
            // A file that cannot be deleted now is tried again at the next tick.
            let _trimmed = self.wal.trim(checkpoint);
        }
    }

    /// Makes the pending entries durable, then visible; or drops and counts them.
    fn commit(&mut self) {
        self.pending_since = None;
        let waiters = std::mem::take(&mut self.waiters);
        if self.pending.is_empty() {
            answer(waiters, |_| Ok(Written::default()));
            return;
        }
        let mut entries = std::mem::take(&mut self.pending);
        let Some(appended) = self.append_with_patience(&entries) else {
            self.wal.skip(entries.len());
            for entry in &entries {
                self.signals.dropped(kind_of(entry), DropReason::Disk);
            }
            answer(waiters, |_| Err(WriteError::Disk));
            return;
        };
        for index in appended.oversize.iter().rev() {
            let entry = entries.remove(*index);
            self.signals.dropped(kind_of(&entry), DropReason::Oversize);
        }
        for entry in &entries {
            self.signals.stored(kind_of(entry));
        }
        apply(&mut self.stores, &self.signals, appended.position, &entries);
        // Answered when readers can see them too.
        self.answer_writers(waiters, &appended, entries.len());
        if let Some(export) = &self.export {
            export.offer(entries);
        } else {
            entries.clear();
            self.pending = entries;
        }
    }

    /// Appends, and tries again for a while when the disk refuses. While it goes on refusing, each batch gets one try.
    fn append_with_patience(&mut self, entries: &[Entry]) -> Option<Appended> {
        let began = Instant::now();
        let patience = if self.is_disk_failing { Duration::ZERO } else { self.config.retry_for };
        loop {
            let attempt_began = Instant::now();
            match self.wal.append(entries) {
                Ok(appended) => {
                    let seconds = attempt_began.elapsed().as_secs_f64();
                    self.signals.committed(seconds, appended.bytes, self.wal.disk_bytes());
                    if std::mem::take(&mut self.is_disk_failing) {
                        self.signals.commits_recovered();
                    }
                    return Some(appended);
                }
                Err(error) => {
                    let was_failing = std::mem::replace(&mut self.is_disk_failing, true);
                    self.signals.commit_failed(&error, !was_failing);
                }
            }
            if began.elapsed() >= patience {
                return None;
            }
            std::thread::sleep(RETRY_PAUSE);
        }
    }

    /// Tells those who wait what the stores made of their entries. `stored` are the entries that were not left out.
    fn answer_writers(&mut self, waiters: Vec<Waiter>, appended: &Appended, stored: usize) {
        if waiters.is_empty() {
            return;
        }
        let told = self.stores.iter_mut().flat_map(|attached| attached.store.take_written());
        let written: HashMap<u64, Written> = told.collect();
        let first = (appended.position + 1).saturating_sub(stored as u64);
        answer(waiters, |places| {
            let mut sum = Written::default();
            for place in places {
                let Err(before) = appended.oversize.binary_search(&place) else {
                    return Err(WriteError::Oversize);
                };
                // What a store that is behind will make of it, nobody knows yet.
                if let Some(outcome) = written.get(&(first + (place - before) as u64)) {
                    sum.add(outcome);
                }
            }
            Ok(sum)
        });
    }

    fn tick(&mut self) {
        let now = unix_millis();
        for attached in &mut self.stores {
            attached.store.tick(now);
        }
        self.catch_up();
        self.trim();
    }

    fn trim(&mut self) {
        let head = self.wal.head();
        for attached in &self.stores {
            self.signals.lag_measured(&attached.name, head.saturating_sub(attached.store.checkpoint()));
        }
        self.trim_to_checkpoint();
        // Before the limit bites, the stores that hold the log back are asked to publish what they have.
        if self.wal.disk_bytes() > self.config.wal_bytes_max / 4 * 3 {
            let lowest = self.stores.iter().map(|attached| attached.store.checkpoint()).min();
            self.flush_stores(|store| Some(store.checkpoint()) == lowest);
            self.trim_to_checkpoint();
        }
        while self.wal.disk_bytes() > self.config.wal_bytes_max {
            if !matches!(self.wal.evict_oldest(), Ok(true)) {
                break;
            }
            self.signals.segment_evicted(self.wal.disk_bytes());
        }
        self.signals.wal_size_changed(self.wal.disk_bytes());
    }
}

/// Gives each store what lies past what it already has. `position` is that of the last entry; they are consecutive.
fn apply(stores: &mut [Attached], signals: &Signals, position: u64, entries: &[Entry]) {
    for attached in stores.iter_mut().filter(|attached| attached.standing == Standing::Abreast) {
        let fresh = attached.fresh(position, entries);
        if fresh.is_empty() {
            continue;
        }
        match attached.store.apply(position, fresh) {
            Err(error) if error.is_later => {
                attached.standing = Standing::Refused;
                continue;
            }
            Err(error) => signals.store_failed(&attached.name, error.reason()),
            Ok(()) => {}
        }
        attached.applied = position;
    }
}

/// Gives each store that is behind what the log has past what it already has, until it refuses.
fn replay_to(stores: &mut [Attached], signals: &Signals, position: u64, entries: &[Entry]) {
    for attached in stores.iter_mut().filter(|attached| attached.standing == Standing::Behind) {
        let fresh = attached.fresh(position, entries);
        if fresh.is_empty() {
            continue;
        }
        let count = fresh.len() as u64;
        let taken = attached.store.apply(position, fresh);
        if let Err(error) = &taken
            && !error.is_later
        {
            signals.store_failed(&attached.name, error.reason());
        }
        if taken.is_err_and(|error| !error.is_taken) {
            attached.standing = Standing::Refused;
        } else {
            attached.applied = position;
            signals.replayed(&attached.name, count);
        }
    }
}

/// Tells those who wait what became of their entries; one who stopped waiting need not know.
fn answer(waiters: Vec<Waiter>, result: impl Fn(std::ops::Range<usize>) -> Result<Written, WriteError>) {
    for waiter in waiters {
        let _told = waiter.done.send(result(waiter.entries));
    }
}

fn kind_of(entry: &Entry) -> EntryKind {
    match entry {
        Entry::Samples { .. } | Entry::Series(_) => EntryKind::Samples,
        Entry::Record(record) => match record.kind() {
            RecordKind::Log => EntryKind::Log,
            RecordKind::Span => EntryKind::Span,
            RecordKind::Sip => EntryKind::Sip,
            RecordKind::Quality => EntryKind::Quality,
            RecordKind::Call => EntryKind::Call,
        },
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

fn unix_millis() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_gets_on_is_read_to_again_soon() {
        let now = Instant::now();
        let mut catching_up = CatchingUp::default();
        let mut check = |has_taken, seconds: &[u64]| {
            for seconds in seconds {
                catching_up.wait(now, has_taken);
                assert_eq!(catching_up.due, Some(now + Duration::from_secs(*seconds)));
            }
        };
        check(false, &[1, 2, 4, 8, 16, 30, 30]);
        check(true, &[1, 1]);
        check(false, &[2, 4]);
    }
}
