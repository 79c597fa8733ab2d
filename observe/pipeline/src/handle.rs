//! The pipeline as the root holds it.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use belfry_signal::{PackedRecord, Record, RecordReceiver, Registry, SeriesBatch, Written};
use tokio::sync::{mpsc, oneshot};

use crate::config::Config;
use crate::error::{Error, WriteError};
use crate::export;
use crate::pieces::pieces;
use crate::signals::Signals;
use crate::store::{Entry, Store};
use crate::wal::{Limits, OpenError, Wal};
use crate::worker::{Control, Parts, Worker};

/// Requests that wait for the worker.
const CONTROLS_WAITING: usize = 16;

/// Starts the pipeline.
#[derive(Debug)]
pub struct Pipeline;

/// A running pipeline. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PipelineHandle {
    control: mpsc::Sender<Control>,
    registry: Registry,
    signals: Signals,
    export: Option<Arc<export::Export>>,
}

/// What became of the records of this process. After [`PipelineHandle::flush`], with nobody emitting,
/// `emitted` is `stored` and `dropped` together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records that components handed over, and those that doors wrote.
    pub emitted: u64,
    /// Records that survive a crash.
    pub stored: u64,
    /// Records that were dropped: the queue was full, the disk failed, or they were too long.
    pub dropped: u64,
}

impl Pipeline {
    /// Opens the log, starts the worker's thread, replays, and then takes records. Returns before the replay ends.
    ///
    /// # Errors
    /// When the directory cannot be used or another process uses it; never because of what the log holds.
    pub fn start(
        config: Config,
        registry: Registry,
        records: RecordReceiver,
        stores: Vec<Box<dyn Store>>,
    ) -> Result<PipelineHandle, Error> {
        if let Some((key, fault)) = config.check().into_iter().next() {
            return Err(Error::Config { key, fault });
        }
        let signals = Signals::register(&registry);
        let limits =
            Limits { segment_bytes_max: config.segment_bytes_max, record_bytes_max: config.record_bytes_max };
        let floor = stores.iter().map(|store| store.checkpoint()).max().unwrap_or(0);
        let (wal, recovery) = Wal::open(&config.directory, limits, floor).map_err(|error| match error {
            OpenError::InUse => Error::InUse { path: config.directory.clone() },
            OpenError::Directory(source) => Error::Directory { path: config.directory.clone(), source },
        })?;
        signals.log_opened(&recovery);
        let (export, intake) = match &config.export {
            Some(config) => {
                let (export, intake) = export::start(config, registry.emitter().resource(), &signals)?;
                (Some(Arc::new(export)), Some(intake))
            }
            None => (None, None),
        };
        let (control, requests) = mpsc::channel(CONTROLS_WAITING);
        let parts = Parts {
            registry: registry.clone(),
            records,
            requests,
            wal,
            signals: signals.clone(),
            export: intake,
        };
        let worker = Worker::new(config, parts, stores)?;
        let _thread: JoinHandle<()> = std::thread::Builder::new()
            .name("belfry-pipeline".to_owned())
            .spawn(move || worker.run())
            .map_err(Error::Thread)?;
        Ok(PipelineHandle { control, registry, signals, export })
    }
}

impl PipelineHandle {
    /// Stores points of series that others measured: when this returns well, they survive a crash, and it says what the
    /// series store took, and what it refused and why. Calls wait here while the disk is slow, and are stored together.
    ///
    /// # Errors
    /// When they were not stored, or only the first of them.
    pub async fn write(&self, batch: SeriesBatch) -> Result<Written, WriteError> {
        self.write_entries(pieces(batch).into_iter().map(Entry::Series).collect()).await
    }

    /// Stores records that others made: when this returns well, they survive a crash and searches find them. Unlike
    /// what our own components emit they are not dropped when the queue is full: the caller waits, and so does whoever
    /// sent them.
    ///
    /// # Errors
    /// When they were not stored; [`WriteError::Oversize`] when all were but those that are too long for the log.
    pub async fn write_records(&self, records: Vec<Arc<Record>>) -> Result<(), WriteError> {
        // What cannot be written as bytes cannot be in the log either, as what is too long for it.
        let packed = records.iter().map(|record| PackedRecord::of(record).map(Entry::Record));
        let entries = packed.collect::<Result<_, _>>().map_err(|_| WriteError::Oversize)?;
        self.write_entries(entries).await.map(drop)
    }

    async fn write_entries(&self, entries: Vec<Entry>) -> Result<Written, WriteError> {
        let (done, is_done) = oneshot::channel();
        let write = Control::Write(entries, done);
        self.control.send(write).await.map_err(|_| WriteError::Ended)?;
        is_done.await.map_err(|_| WriteError::Ended)?
    }

    /// Waits until everything emitted so far is fsynced and applied to the stores, or counted as dropped.
    pub async fn flush(&self) {
        let (done, is_done) = oneshot::channel();
        // A worker that is gone has nothing left to flush.
        if self.control.send(Control::Flush(done)).await.is_ok() {
            let _answer = is_done.await;
        }
    }

    /// Takes what is still queued, flushes the stores, and ends the worker. Later records are dropped and counted.
    /// Returns what was not finished at the deadline.
    pub async fn drain(&self, deadline: Duration) -> Vec<String> {
        let (done, is_done) = oneshot::channel();
        let finish = async {
            if self.control.send(Control::Drain(done)).await.is_ok() {
                let _answer = is_done.await;
            }
        };
        let begun = tokio::time::Instant::now();
        let mut stragglers = Vec::new();
        if tokio::time::timeout(deadline, finish).await.is_err() {
            stragglers.push("telemetry on its way to disk".to_owned());
        }
        if let Some(export) = &self.export {
            let left = deadline.saturating_sub(begun.elapsed());
            if tokio::time::timeout(left, export.finished()).await.is_err() {
                stragglers.push("telemetry on its way to the collector".to_owned());
            }
        }
        stragglers
    }

    /// What became of the records of this process.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let (mut emitted, mut dropped) = (0, 0);
        for sample in self.registry.samples() {
            match sample.name.as_str() {
                "signal_records_emitted_total" => emitted += whole(sample.value),
                "signal_records_dropped_total" => dropped += whole(sample.value),
                _ => {}
            }
        }
        Counts {
            emitted: emitted + self.signals.records_written_count(),
            stored: self.signals.records_stored(),
            dropped: dropped + self.signals.records_dropped(),
        }
    }
}

/// A counter's value; exact below 2^53.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "counters are whole and not negative"
)]
fn whole(value: f64) -> u64 {
    value as u64
}
