//! The store as the pipeline writes it.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use belfry_promql::{Histogram, Value};
use belfry_signal::{MetricMetadata, PointValue, Registry, Sample, SeriesBatch, SeriesPoints, Written};

use crate::bucket::Bucket;
use crate::catalogue::Catalogue;
use crate::compact::Compactor;
use crate::config::Config;
use crate::error::Error;
use crate::head::{Head, HeadLimits, IndexLimits, METRIC_LABEL, Refused, Taken};
use crate::layout;
use crate::maintenance::Maintenance;
use crate::read::SeriesReader;
use crate::seal;
use crate::shared::Shared;
use crate::signals::{DropReason, Signals};

/// Between two seals that only a clock asks for, while old samples are being brought in.
const SEAL_PAUSE_MS: i64 = 60_000;

/// Opens the store.
#[derive(Debug)]
pub struct Series;

/// The one writer. Its calls may block on the disk: they belong on the pipeline's thread.
#[derive(Debug)]
pub struct SeriesWriter {
    shared: Arc<Shared>,
    limits: HeadLimits,
    /// What blocks and head together cover: the position of the last samples taken.
    applied: u64,
    /// The position before that. Samples of one batch of the log may all come with the batch's position; until the
    /// next one comes, only this much is surely complete.
    complete: u64,
    is_seal_failing: bool,
    last_clock_seal_ms: Option<i64>,
    compactor: Option<Compactor>,
}

impl Series {
    /// Opens the store: reads the catalogue, and of blocks their last bytes. What the head held before comes again from
    /// the log.
    ///
    /// # Errors
    /// When the directory cannot be used or another process uses it; never because of damage in it.
    pub fn open(config: Config, registry: &Registry) -> Result<(SeriesWriter, SeriesReader), Error> {
        if let Some((key, fault)) = config.check().into_iter().next() {
            return Err(Error::Config { key, fault });
        }
        let signals = Signals::register(registry);
        let bucket = config.bucket.as_ref().map(Bucket::open).transpose()?.map(Arc::new);
        let (catalogue, contents) = Catalogue::open(&config.directory, bucket.as_ref(), &signals)?;
        let checkpoint = catalogue.checkpoint();
        let limits = HeadLimits {
            index: IndexLimits {
                series_max: config.series_max,
                metric_series_max: config.metric_series_max,
                tenant_label: config.tenant_label.as_deref().map(Arc::from),
                tenant_series_max: config.tenant_series_max,
            },
            late_ms: crate::millis(config.out_of_order_window),
        };
        let (blocks, metadata) = (contents.blocks, contents.metadata);
        let shared = Arc::new(Shared::new(config, signals, catalogue, blocks, metadata, bucket));
        shared.measure();
        let reader = SeriesReader { shared: Arc::clone(&shared), is_ended: Arc::default() };
        let writer = SeriesWriter {
            shared,
            limits,
            applied: checkpoint,
            complete: checkpoint,
            is_seal_failing: false,
            last_clock_seal_ms: None,
            compactor: None,
        };
        Ok((writer, reader))
    }
}

impl SeriesWriter {
    /// Takes the samples of one moment, which the log has at `position` or a little before it, in the same batch.
    /// Samples that break a limit or come out of order are dropped and counted; the others are visible to readers
    /// at once. [`flush`](Self::flush) and [`tick`](Self::tick) come between batches.
    ///
    /// # Errors
    /// When a window was over and its block could not be written. The samples are taken all the same, and sealing
    /// is tried again.
    pub fn append(&mut self, position: u64, unix_millis: i64, samples: &[Sample]) -> Result<(), Error> {
        let sealed = self.begin(position, Some(unix_millis));
        let shared = Arc::clone(&self.shared);
        let mut head = shared.head_mut();
        if head.bytes() >= shared.config.head_bytes_max {
            // Sealing failed and memory is all used: what comes now is lost, what is there stays readable.
            shared.signals.dropped(DropReason::HeadFull, samples.len() as u64);
            return sealed;
        }
        let mut written = Written::default();
        let mut labels: Vec<(&str, &str)> = Vec::new();
        for sample in samples {
            labels.clear();
            labels.push((METRIC_LABEL, &sample.name));
            let pairs = sample.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            labels.extend(pairs.filter(|(_, value)| !value.is_empty()));
            labels.sort_unstable();
            let found = self.find(&mut head, &labels, 1);
            let Ok(number) = found else { continue };
            self.push_point(&mut head, number, unix_millis, &Value::Float(sample.value), &mut written);
        }
        self.finish(&head, &written);
        sealed
    }

    /// Takes points of series with their own times: what remote write, OTLP and scraping bring. As with
    /// [`append`](Self::append), what is refused is counted by reason, and the rest is visible at once.
    ///
    /// # Errors
    /// Beside what became of the points: when a window was over and its block could not be written. The points are
    /// taken all the same.
    pub fn write(&mut self, position: u64, batch: &SeriesBatch) -> (Written, Result<(), Error>) {
        let newest_ms =
            batch.series.iter().flat_map(|series| series.points.iter().map(|(time, _)| *time)).max();
        let sealed = self.begin(position, newest_ms);
        let shared = Arc::clone(&self.shared);
        let mut written = Written::default();
        {
            let mut head = shared.head_mut();
            if head.bytes() >= shared.config.head_bytes_max {
                self.refuse(DropReason::HeadFull, batch.points() as u64, &mut written);
                return (written, sealed);
            }
            for series in &batch.series {
                self.write_series(&mut head, series, &mut written);
            }
            self.finish(&head, &written);
        }
        self.take_metadata(&batch.metadata);
        (written, sealed)
    }

    /// Before samples of a position: seals what is due, and notes the position.
    fn begin(&mut self, position: u64, newest_ms: Option<i64>) -> Result<(), Error> {
        // In the middle of a batch, a block must not claim the batch's position.
        let covered = if position > self.applied { self.applied } else { self.complete };
        let is_due = self.is_full() || newest_ms.is_some_and(|newest_ms| self.is_window_over(newest_ms));
        let sealed = if is_due { self.seal(covered) } else { Ok(()) };
        if position > self.applied {
            self.complete = self.applied;
            self.applied = position;
        }
        sealed
    }

    fn finish(&self, head: &Head, written: &Written) {
        let signals = &self.shared.signals;
        signals.appended(written.taken() - written.repeated);
        signals.repeated(written.repeated);
        signals.head_measured(head.series_count(), head.bytes());
    }

    fn write_series(&self, head: &mut Head, series: &SeriesPoints, written: &mut Written) {
        let labels: Vec<(&str, &str)> = series
            .labels
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        let points = series.points.len() as u64;
        if labels.is_empty()
            || !labels.is_sorted_by(|a, b| a.0 < b.0)
            || labels.iter().any(|(name, _)| name.is_empty())
        {
            return self.refuse(DropReason::Invalid, points, written);
        }
        let number = match self.find(head, &labels, points) {
            Ok(number) => number,
            Err(reason) => return written.refuse(reason.as_str(), points),
        };
        self.push_created(head, number, series);
        for (unix_millis, value) in &series.points {
            match checked(value) {
                Some(value) => self.push_point(head, number, *unix_millis, &value, written),
                None => self.refuse(DropReason::Invalid, 1, written),
            }
        }
        for exemplar in &series.exemplars {
            if head.exemplars_mut().push(number, exemplar.clone()) {
                written.exemplars += 1;
            } else {
                self.shared.signals.exemplar_dropped();
            }
        }
    }

    /// A sample of zero when the series says that it began after what is known of it.
    fn push_created(&self, head: &mut Head, number: u32, series: &SeriesPoints) {
        let (Some(created_ms), Some((first_ms, value))) = (series.created_ms, series.points.first()) else {
            return;
        };
        let is_news = head.last_ms(number).is_none_or(|last_ms| last_ms < created_ms);
        if !self.shared.config.created_zero || created_ms <= 0 || created_ms >= *first_ms || !is_news {
            return;
        }
        let zero = match checked(value) {
            Some(Value::Float(_)) => Value::Float(0.0),
            Some(Value::Histogram(held)) if held.hint != belfry_promql::CounterReset::Gauge => {
                let (positive, negative) = (Vec::new(), Vec::new());
                let (count, sum, zero_count) = (0.0, 0.0, 0.0);
                let zero = Histogram { count, sum, zero_count, positive, negative, ..(*held).clone() };
                Value::Histogram(Arc::new(zero))
            }
            _ => return,
        };
        // Nobody sent it, so nobody is told what became of it.
        let mut written = Written::default();
        self.push_point(head, number, created_ms, &zero, &mut written);
        self.shared.signals.appended(written.taken() - written.repeated);
    }

    /// Counts points that are refused.
    fn refuse(&self, reason: DropReason, points: u64, written: &mut Written) {
        self.shared.signals.dropped(reason, points);
        written.refuse(reason.as_str(), points);
    }

    /// The number of a series, new or not; or why it may not come in, its points counted.
    fn find(&self, head: &mut Head, labels: &[(&str, &str)], points: u64) -> Result<u32, DropReason> {
        let signals = &self.shared.signals;
        let refused = match head.number(labels, &self.limits) {
            Ok(number) => return Ok(number),
            Err(refused) => refused,
        };
        let reason = match refused {
            Refused::Series => DropReason::SeriesLimit,
            Refused::Metric { news } => {
                if let Some(offender) = news {
                    signals.metric_limit_reached(&offender.name, &offender.label, offender.values);
                }
                DropReason::MetricLimit
            }
            Refused::Tenant { news } => {
                if let Some(offender) = news {
                    signals.tenant_limit_reached(&offender.name, &offender.label, offender.values);
                }
                DropReason::TenantLimit
            }
        };
        signals.dropped(reason, points);
        Err(reason)
    }

    fn push_point(
        &self,
        head: &mut Head,
        number: u32,
        unix_millis: i64,
        value: &Value,
        written: &mut Written,
    ) {
        let mut take = || match value {
            Value::Float(_) => written.floats += 1,
            Value::Histogram(_) => written.histograms += 1,
        };
        let reason = match head.push(number, unix_millis, value, &self.limits) {
            Taken::Appended => return take(),
            Taken::Late => {
                take();
                return self.shared.signals.late();
            }
            Taken::Repeated => {
                take();
                written.repeated += 1;
                return;
            }
            Taken::Duplicate => DropReason::Duplicate,
            Taken::OutOfOrder => DropReason::OutOfOrder,
            Taken::TooOld => DropReason::TooOld,
        };
        self.refuse(reason, 1, written);
    }

    fn take_metadata(&self, metadata: &[MetricMetadata]) {
        if metadata.is_empty() {
            return;
        }
        let mut held = self.shared.metadata.write().unwrap_or_else(PoisonError::into_inner);
        for metric in metadata {
            if held.len() < self.shared.config.metadata_max || held.contains_key(&metric.name) {
                held.insert(metric.name.clone(), metric.clone());
            } else {
                self.shared.signals.metadata_dropped();
            }
        }
    }

    /// The position of the log up to which everything is in sealed blocks.
    #[must_use]
    pub fn checkpoint(&self) -> u64 {
        self.shared.catalogue().checkpoint()
    }

    /// Seals the head now.
    ///
    /// # Errors
    /// When the block could not be written; the head keeps its samples.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.seal(self.applied)
    }

    /// Seals a window that is over although nothing came after it, does what others asked for, and has blocks compacted
    /// and old ones deleted.
    pub fn tick(&mut self, unix_millis: i64) {
        let has_paused = self
            .last_clock_seal_ms
            .is_none_or(|last_ms| unix_millis < last_ms || unix_millis - last_ms >= SEAL_PAUSE_MS);
        let is_over = self.is_window_over(unix_millis) && has_paused;
        if is_over || self.is_full() {
            self.last_clock_seal_ms = Some(unix_millis);
            // Counted and told by `seal`; tried again at the next tick.
            let _sealed = self.seal(self.applied);
        }
        if let Some(request) = self.shared.requested_flush()
            && self.seal(self.applied).is_ok()
        {
            self.shared.flushed(request);
        }
        match &self.compactor {
            Some(compactor) => compactor.wake(unix_millis),
            None => self.maintenance().delete_old(unix_millis),
        }
    }

    /// Starts a thread that compacts blocks and deletes old ones whenever [`tick`](Self::tick) says what time it is. It
    /// ends with the writer.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn compact_in_background(&mut self) -> Result<(), Error> {
        self.compactor = Some(Compactor::start(self.maintenance())?);
        Ok(())
    }

    /// Deletion, compaction, snapshot, export and import.
    #[must_use]
    pub fn maintenance(&self) -> Maintenance {
        Maintenance::new(Arc::clone(&self.shared))
    }

    /// Whether the window in which the head was opened is over at this time.
    fn is_window_over(&self, unix_millis: i64) -> bool {
        let window_ms = crate::millis(self.shared.config.block_duration);
        let opened_ms = self.shared.head().opened_ms();
        opened_ms.is_some_and(|opened_ms| unix_millis.div_euclid(window_ms) > opened_ms.div_euclid(window_ms))
    }

    /// Whether the head is as large as it may be.
    fn is_full(&self) -> bool {
        self.shared.head().bytes() >= self.shared.config.head_bytes_max
    }

    /// Makes the head blocks that cover the log up to `covered`.
    fn seal(&mut self, covered: u64) -> Result<(), Error> {
        let began = Instant::now();
        match seal::seal(&self.shared, &self.limits, covered) {
            Ok(sealed) => {
                self.is_seal_failing = false;
                if sealed.blocks > 0 {
                    let seconds = began.elapsed().as_secs_f64();
                    self.shared.signals.block_sealed(sealed.series, sealed.samples, sealed.bytes, seconds);
                    self.shared.measure();
                }
                Ok(())
            }
            Err(error) => {
                let was_failing = std::mem::replace(&mut self.is_seal_failing, true);
                self.shared.signals.seal_failed(error.reason(), !was_failing);
                Err(error)
            }
        }
    }
}

/// A value as the engine has it; none when it is no sound histogram.
fn checked(value: &PointValue) -> Option<Value> {
    match value {
        PointValue::Float(value) => Some(Value::Float(*value)),
        PointValue::Histogram(native) => {
            layout::checked(native).ok().map(|held| Value::Histogram(Arc::new(held)))
        }
    }
}
