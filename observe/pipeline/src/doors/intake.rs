//! What every door does with what it understood: room, rate, the log, and an account of it all.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use belfry_signal::{Record, Region, SeriesBatch, TraceKey, now_unix_nanos};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::config::DoorsConfig;
use super::listen::stopped;
use super::refusal::{Reason, Refusal};
use super::senders::{SenderAccount, Senders};
use super::shape::{Rules, Shaper, head};
use super::signals::{Entrance, Signals};
use crate::handle::PipelineHandle;

/// Bytes of a refused request that are kept as a sample.
const SAMPLE_BYTES: usize = 1024;
/// What one permit of the room stands for.
const ROOM_UNIT_BYTES: usize = 1024;

/// The common end of all doors. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Intake {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pipeline: PipelineHandle,
    signals: Signals,
    config: DoorsConfig,
    rules: Rules,
    room: Arc<Semaphore>,
    room_units: u32,
    senders: Senders,
    /// By door: the second, and how many samples were kept in it.
    samples: [AtomicU64; Entrance::ALL.len()],
    trace_key: TraceKey,
    region: Region,
}

/// Where something came in, and from whom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) door: Entrance,
    pub(crate) sender: IpAddr,
}

/// A place for bytes on their way to the disk; dropped when they are there.
#[derive(Debug)]
pub(crate) struct Room {
    _permit: OwnedSemaphorePermit,
}

impl Intake {
    /// None only when the configuration was not checked.
    pub(crate) fn new(
        config: DoorsConfig,
        pipeline: PipelineHandle,
        signals: Signals,
        trace_key: TraceKey,
        region: Region,
    ) -> Option<Self> {
        let units = config.bytes_in_flight_max / ROOM_UNIT_BYTES;
        let inner = Inner {
            pipeline,
            signals,
            rules: Rules::of(&config),
            room: Arc::new(Semaphore::new(units)),
            room_units: u32::try_from(units).unwrap_or(u32::MAX),
            senders: Senders::new(&config.senders, config.sender_records_per_second_max, config.senders_max)?,
            samples: std::array::from_fn(|_| AtomicU64::new(0)),
            config,
            trace_key,
            region,
        };
        Some(Self { inner: Arc::new(inner) })
    }

    pub(crate) fn config(&self) -> &DoorsConfig {
        &self.inner.config
    }

    pub(crate) fn signals(&self) -> &Signals {
        &self.inner.signals
    }

    pub(crate) fn trace_key(&self) -> &TraceKey {
        &self.inner.trace_key
    }

    pub(crate) fn region(&self) -> &Region {
        &self.inner.region
    }

    /// Makes records of what comes now.
    pub(crate) fn shaper(&self, door: Entrance) -> Shaper<'_> {
        Shaper::new(&self.inner.rules, door, now_unix_nanos())
    }

    /// Counts what a decoder had to change.
    pub(crate) fn note_changes(&self, door: Entrance, shaper: &Shaper<'_>) {
        for (change, times) in shaper.changes() {
            (0..times).for_each(|_| self.inner.signals.changed(door, change));
        }
    }

    /// Notes that bytes came.
    pub(crate) fn received(&self, origin: &Origin, bytes: usize) {
        let inner = &self.inner;
        inner.senders.received(origin.sender, bytes, Instant::now());
        inner.signals.received(origin.door, inner.senders.name(origin.sender), bytes);
    }

    /// Room for bytes at once, for protocols that say "later".
    pub(crate) fn try_room(&self, bytes: usize) -> Result<Room, Refusal> {
        let room = Arc::clone(&self.inner.room);
        room.try_acquire_many_owned(self.units(bytes)).map(|permit| Room { _permit: permit }).map_err(|_| {
            Refusal::new(Reason::Busy, "as much waits for the disk as may wait; send it again a little later")
        })
    }

    /// Room for bytes when there is some, for protocols in which not reading on means "later".
    pub(crate) async fn room(&self, bytes: usize) -> Option<Room> {
        let room = Arc::clone(&self.inner.room);
        room.acquire_many_owned(self.units(bytes)).await.ok().map(|permit| Room { _permit: permit })
    }

    fn units(&self, bytes: usize) -> u32 {
        u32::try_from(bytes / ROOM_UNIT_BYTES + 1).unwrap_or(u32::MAX).min(self.inner.room_units)
    }

    /// Stores records: when this returns well, they are durable and can be found.
    ///
    /// # Errors
    /// Why not, counted already.
    pub(crate) async fn store(&self, origin: &Origin, records: Vec<Record>) -> Result<(), Refusal> {
        self.store_shared(origin, records.into_iter().map(Arc::new).collect()).await
    }

    /// The same for senders that nobody can tell to come again: it is tried until it works, or until we stop. Whoever
    /// waits for this does not read on, which is how a stream says "later".
    pub(crate) async fn store_patiently(
        &self,
        origin: &Origin,
        records: Vec<Record>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<(), Refusal> {
        let records: Vec<Arc<Record>> = records.into_iter().map(Arc::new).collect();
        let stored = loop {
            let stored = self.try_store(origin, records.clone()).await;
            match stored {
                Err(refusal) if refusal.is_passing() && refusal.reason != Reason::Ended => {
                    if tokio::time::timeout(self.retry_after(), stopped(stop)).await.is_ok() {
                        break Err(refusal);
                    }
                }
                stored => break stored,
            }
        };
        // What waited and was stored in the end was not refused, and what was not, once.
        if let Err(refusal) = &stored {
            self.refused(origin, refusal, records.len(), &[]);
        }
        stored
    }

    async fn store_shared(&self, origin: &Origin, records: Vec<Arc<Record>>) -> Result<(), Refusal> {
        let count = records.len();
        let stored = self.try_store(origin, records).await;
        if let Err(refusal) = &stored {
            self.refused(origin, refusal, count, &[]);
        }
        stored
    }

    /// Counts only what was stored.
    async fn try_store(&self, origin: &Origin, records: Vec<Arc<Record>>) -> Result<(), Refusal> {
        let (count, began) = (records.len(), Instant::now());
        if count == 0 {
            return Ok(());
        }
        let inner = &self.inner;
        let stored = match inner.senders.allow(origin.sender, count, began) {
            Ok(()) => inner.pipeline.write_records(records).await.map_err(Refusal::from),
            Err(refusal) => Err(refusal),
        };
        if stored.is_ok() {
            inner.senders.stored(origin.sender, count, began);
            let seconds = began.elapsed().as_secs_f64();
            inner.signals.stored(origin.door, inner.senders.name(origin.sender), count, seconds);
        }
        stored
    }

    /// Stores points of series.
    ///
    /// # Errors
    /// Why not, counted already.
    pub(crate) async fn store_points(&self, origin: &Origin, batch: SeriesBatch) -> Result<(), Refusal> {
        let (count, began) = (batch.points(), Instant::now());
        let inner = &self.inner;
        let stored = match inner.senders.allow(origin.sender, count, began) {
            Ok(()) => inner.pipeline.write(batch).await.map(drop).map_err(Refusal::from),
            Err(refusal) => Err(refusal),
        };
        match &stored {
            Ok(()) => {
                inner.senders.stored(origin.sender, count, began);
                let seconds = began.elapsed().as_secs_f64();
                inner.signals.points_stored(origin.door, inner.senders.name(origin.sender), count, seconds);
            }
            Err(refusal) => self.refused(origin, refusal, count, &[]),
        }
        stored
    }

    /// Counts what was refused, and keeps a sample of it.
    pub(crate) fn refused(&self, origin: &Origin, refusal: &Refusal, records: usize, sample: &[u8]) {
        let inner = &self.inner;
        inner.senders.refused(origin.sender, records, Instant::now());
        inner.signals.refused(origin.door, refusal.reason, records);
        if !self.may_sample(origin.door) {
            return inner.signals.sample_left_out(origin.door);
        }
        let sample = String::from_utf8_lossy(&sample[..sample.len().min(SAMPLE_BYTES)]).into_owned();
        let refusal = Refusal { text: head(&refusal.text, SAMPLE_BYTES).to_owned(), ..refusal.clone() };
        inner.signals.refused_sample(origin.door, origin.sender.to_string(), &refusal, sample);
    }

    fn may_sample(&self, door: Entrance) -> bool {
        let most = u64::from(self.inner.config.refused_samples_per_second_max);
        let second = now_unix_nanos() / 1_000_000_000;
        let next = |held: u64| {
            let taken = if held >> 16 == second { held & 0xffff } else { 0 };
            (taken < most.min(0xffff)).then_some(second << 16 | (taken + 1))
        };
        self.inner.samples[door as usize].fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }

    /// Who sent most.
    pub(crate) fn senders(&self, count: usize) -> Vec<SenderAccount> {
        self.inner.senders.top(count)
    }

    /// What senders are told to wait.
    pub(crate) fn retry_after(&self) -> Duration {
        Duration::from_secs(1)
    }
}
