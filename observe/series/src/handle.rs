//! The store as the pipeline writes it and queries read it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use arc_swap::ArcSwap;
use belfry_signal::{Registry, Sample};

use crate::block::{self, Block, Meta};
use crate::catalogue::Catalogue;
use crate::chunk::{Chunk, Point, decode};
use crate::config::Config;
use crate::error::Error;
use crate::head::{Head, Limits, Taken};
use crate::index::{LabelSet, SeriesIndex};
use crate::matcher::Matcher;
use crate::signals::{DropReason, Signals};

/// Blocks whose labels are offered beside the head's: the newest ones, a day of the usual length.
const BLOCKS_FOR_LABELS: usize = 12;

/// Opens the store.
#[derive(Debug)]
pub struct Series;

/// The one writer. Its calls may block on the disk: they belong on the pipeline's thread.
#[derive(Debug)]
pub struct SeriesWriter {
    config: Config,
    shared: Arc<Shared>,
    catalogue: Catalogue,
    signals: Signals,
    next_id: u64,
    /// What sealed blocks cover.
    checkpoint: u64,
    /// What blocks and head together cover: the position of the last samples taken.
    applied: u64,
    /// The position before that. Samples of one batch of the log may all come with the batch's position; until the
    /// next one comes, only this much is surely complete.
    complete: u64,
    is_seal_failing: bool,
}

/// Reads head and blocks together. Cheap to clone. Its calls read the disk: on a runtime, use `spawn_blocking`.
#[derive(Clone, Debug)]
pub struct SeriesReader {
    shared: Arc<Shared>,
    signals: Signals,
    points_max: usize,
}

/// One series and its points in a time.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesData {
    /// Names and values, sorted by name, `__name__` among them.
    pub labels: Vec<(String, String)>,
    /// Times in milliseconds since the Unix epoch, rising, and values.
    pub points: Vec<(i64, f64)>,
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    head: RwLock<Head>,
    /// Oldest first. Changed only under the head's write lock, so that a reader that holds the head's read lock sees
    /// each sample in exactly one of the two.
    blocks: ArcSwap<Vec<Meta>>,
    opened: Mutex<Vec<(u64, Arc<Block>)>>,
    opened_max: usize,
}

impl Series {
    /// Opens the store: reads the catalogue, not the blocks. What the head held before comes again from the log.
    ///
    /// # Errors
    /// When the directory cannot be used or another process uses it; never because of damage in it.
    pub fn open(config: Config, registry: &Registry) -> Result<(SeriesWriter, SeriesReader), Error> {
        if let Some((key, fault)) = config.check().into_iter().next() {
            return Err(Error::Config { key, fault });
        }
        let signals = Signals::register(registry);
        let (catalogue, contents) = Catalogue::open(&config.directory, &signals)?;
        let shared = Arc::new(Shared {
            directory: config.directory.clone(),
            head: RwLock::default(),
            blocks: ArcSwap::from_pointee(contents.blocks),
            opened: Mutex::default(),
            opened_max: config.block_indexes_max,
        });
        let reader = SeriesReader {
            shared: Arc::clone(&shared),
            signals: signals.clone(),
            points_max: config.select_points_max,
        };
        let writer = SeriesWriter {
            config,
            shared,
            catalogue,
            signals,
            next_id: contents.next_id,
            checkpoint: contents.checkpoint,
            applied: contents.checkpoint,
            complete: contents.checkpoint,
            is_seal_failing: false,
        };
        writer.measure();
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
        // In the middle of a batch, a block must not claim the batch's position.
        let covered = if position > self.applied { self.applied } else { self.complete };
        let sealed = if self.is_due(unix_millis) { self.seal(covered) } else { Ok(()) };
        if position > self.applied {
            self.complete = self.applied;
            self.applied = position;
        }
        let limits =
            Limits { series_max: self.config.series_max, metric_series_max: self.config.metric_series_max };
        let mut head = self.shared.head.write().unwrap_or_else(PoisonError::into_inner);
        if head.bytes() >= self.config.head_bytes_max {
            // Sealing failed and memory is all used: what comes now is lost, what is there stays readable.
            self.signals.dropped(DropReason::HeadFull, samples.len() as u64);
            return sealed;
        }
        let mut appended = 0;
        for sample in samples {
            match head.push(unix_millis, sample, limits) {
                Taken::Appended => appended += 1,
                Taken::OutOfOrder => self.signals.dropped(DropReason::OutOfOrder, 1),
                Taken::SeriesLimit => self.signals.dropped(DropReason::SeriesLimit, 1),
                Taken::MetricLimit { is_news } => {
                    self.signals.dropped(DropReason::MetricLimit, 1);
                    if is_news {
                        self.signals.limit_reached(&sample.name);
                    }
                }
            }
        }
        self.signals.appended(appended);
        self.signals.head_measured(head.series_count(), head.bytes());
        sealed
    }

    /// The position of the log up to which everything is in sealed blocks.
    #[must_use]
    pub fn checkpoint(&self) -> u64 {
        self.checkpoint
    }

    /// Seals the head now.
    ///
    /// # Errors
    /// When the block could not be written; the head keeps its samples.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.seal(self.applied)
    }

    /// Seals a window that is over although nothing came after it, and deletes what is too old.
    pub fn tick(&mut self, unix_millis: i64) {
        if self.is_due(unix_millis) {
            // Counted and told by `seal`; tried again at the next tick.
            let _sealed = self.seal(self.applied);
        }
        self.delete_old(unix_millis);
    }

    /// Whether the head's window is over at this time, or the head is as large as it may be.
    fn is_due(&self, unix_millis: i64) -> bool {
        let head = self.shared.head.read().unwrap_or_else(PoisonError::into_inner);
        let window_ms = i64::try_from(self.config.block_duration.as_millis()).unwrap_or(i64::MAX);
        let is_over =
            |(min_ms, _): (i64, i64)| unix_millis.div_euclid(window_ms) > min_ms.div_euclid(window_ms);
        head.range().is_some_and(is_over) || head.bytes() >= self.config.head_bytes_max
    }

    /// Makes the head a block that covers the log up to `covered`.
    fn seal(&mut self, covered: u64) -> Result<(), Error> {
        match self.try_seal(covered) {
            Ok(()) => {
                self.is_seal_failing = false;
                Ok(())
            }
            Err(error) => {
                let was_failing = std::mem::replace(&mut self.is_seal_failing, true);
                self.signals.seal_failed(error.reason(), !was_failing);
                Err(error)
            }
        }
    }

    fn try_seal(&mut self, covered: u64) -> Result<(), Error> {
        let began = Instant::now();
        let (meta, series) = {
            let head = self.shared.head.read().unwrap_or_else(PoisonError::into_inner);
            let Some((min_ms, max_ms)) = head.range() else { return Ok(()) };
            let series = head.all();
            let meta = Meta {
                id: self.next_id,
                min_ms,
                max_ms,
                series: series.len() as u64,
                samples: head.samples(),
                bytes: 0,
                checkpoint: covered,
            };
            (meta, series)
        };
        let meta = block::write(&self.shared.directory, meta, &series)?;
        self.catalogue.change(std::slice::from_ref(&meta), &[], covered)?;
        self.next_id += 1;
        self.checkpoint = covered;
        {
            // Only this thread changes the head, so what was written is all that is in it.
            let mut head = self.shared.head.write().unwrap_or_else(PoisonError::into_inner);
            let mut blocks = self.shared.blocks.load().as_ref().clone();
            blocks.push(meta.clone());
            self.shared.blocks.store(Arc::new(blocks));
            *head = Head::default();
        }
        self.signals.block_sealed(series.len(), meta.samples, meta.bytes, began.elapsed().as_secs_f64());
        self.measure();
        Ok(())
    }

    fn delete_old(&mut self, unix_millis: i64) {
        let retention_ms = i64::try_from(self.config.retention.as_millis()).unwrap_or(i64::MAX);
        let oldest_ms = unix_millis.saturating_sub(retention_ms);
        let blocks = self.shared.blocks.load_full();
        let (kept, old): (Vec<Meta>, Vec<Meta>) =
            blocks.iter().cloned().partition(|meta| meta.max_ms >= oldest_ms);
        let ids: Vec<u64> = old.iter().map(|meta| meta.id).collect();
        // The catalogue forgets first: a crash in between leaves files that the next start deletes.
        if ids.is_empty() || self.catalogue.change(&[], &ids, self.checkpoint).is_err() {
            return;
        }
        {
            let _head = self.shared.head.write().unwrap_or_else(PoisonError::into_inner);
            self.shared.blocks.store(Arc::new(kept));
        }
        self.shared.opened.lock().unwrap_or_else(PoisonError::into_inner).retain(|(id, _)| !ids.contains(id));
        for id in &ids {
            let _deleted = std::fs::remove_file(block::path(&self.shared.directory, *id));
        }
        self.signals.blocks_deleted(ids.len() as u64);
        self.measure();
    }

    fn measure(&self) {
        let head = self.shared.head.read().unwrap_or_else(PoisonError::into_inner);
        self.signals.head_measured(head.series_count(), head.bytes());
        let blocks = self.shared.blocks.load();
        self.signals.blocks_measured(blocks.len(), blocks.iter().map(|meta| meta.bytes).sum());
    }
}

impl Shared {
    /// A block with its index, from memory or from disk. Blocks are opened outside of any lock of the writer.
    fn open(&self, id: u64) -> Result<Arc<Block>, Error> {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = opened.iter().position(|(known, _)| *known == id) {
            let found = opened.remove(index);
            let block = Arc::clone(&found.1);
            opened.push(found);
            return Ok(block);
        }
        drop(opened);
        let block = Arc::new(Block::open(&self.directory, id)?);
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        // The least recently used stands first.
        while opened.len() >= self.opened_max {
            opened.remove(0);
        }
        opened.push((id, Arc::clone(&block)));
        Ok(block)
    }
}

impl SeriesReader {
    /// The series that satisfy every matcher, sorted by labels, with their points from `from_ms` to `to_ms` inclusive.
    ///
    /// # Errors
    /// When more points would be read than one query may. A block that cannot be read is skipped and counted.
    pub fn select(&self, matchers: &[Matcher], from_ms: i64, to_ms: i64) -> Result<Vec<SeriesData>, Error> {
        let selected = self.read(matchers, from_ms, to_ms, &|| false)?;
        Ok(selected.into_iter().map(|(labels, points)| SeriesData::new(&labels, points)).collect())
    }

    /// What every kind of select is made of. Between blocks and between series of the head it asks `is_cancelled`.
    /// The points of a series rise in time unless the clock was set back.
    pub(crate) fn read(
        &self,
        matchers: &[Matcher],
        from_ms: i64,
        to_ms: i64,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<BTreeMap<LabelSet, Vec<Point>>, Error> {
        let (in_head, blocks) = {
            let head = self.shared.head.read().unwrap_or_else(PoisonError::into_inner);
            (head.select(matchers, from_ms, to_ms), self.shared.blocks.load_full())
        };
        let too_many = || Error::TooManyPoints { points_max: self.points_max };
        let mut left = self.points_max;
        let mut selected: BTreeMap<LabelSet, Vec<Point>> = BTreeMap::new();
        for meta in blocks.iter().filter(|meta| meta.max_ms >= from_ms && meta.min_ms <= to_ms) {
            if is_cancelled() {
                return Err(Error::Cancelled);
            }
            let Some(block) = self.open(meta.id) else { continue };
            let (found, damaged) = block.select(matchers, from_ms, to_ms, left).ok_or_else(too_many)?;
            (0..damaged).for_each(|_| self.signals.chunk_damaged());
            for series in found {
                left = left.checked_sub(series.points.len()).ok_or_else(too_many)?;
                selected.entry(series.labels).or_default().extend(series.points);
            }
        }
        for (labels, chunks) in in_head {
            if is_cancelled() {
                return Err(Error::Cancelled);
            }
            let points = unpack(&chunks, from_ms, to_ms);
            left = left.checked_sub(points.len()).ok_or_else(too_many)?;
            if !points.is_empty() {
                selected.entry(labels).or_default().extend(points);
            }
        }
        Ok(selected)
    }

    /// The labels of the series that satisfy every matcher and may have a point from `from_ms` to `to_ms`, sorted, at
    /// most `series_max` of them. Reads indexes and no points, so a chunk that only spans the time counts.
    #[must_use]
    pub fn label_sets(
        &self,
        matchers: &[Matcher],
        from_ms: i64,
        to_ms: i64,
        series_max: usize,
    ) -> Vec<Vec<(String, String)>> {
        let (mut sets, blocks) = {
            let head = self.shared.head.read().unwrap_or_else(PoisonError::into_inner);
            let in_head: BTreeSet<LabelSet> =
                head.select(matchers, from_ms, to_ms).into_iter().map(|(labels, _)| labels).collect();
            (in_head, self.shared.blocks.load_full())
        };
        // Newest first: when there are more than may be named, those of today are.
        for meta in blocks.iter().rev().filter(|meta| meta.max_ms >= from_ms && meta.min_ms <= to_ms) {
            if sets.len() >= series_max {
                break;
            }
            if let Some(block) = self.open(meta.id) {
                sets.extend(block.label_sets(matchers, from_ms, to_ms));
            }
        }
        sets.iter().take(series_max).map(owned).collect()
    }

    /// The names of all labels in the head and the newest blocks, sorted.
    #[must_use]
    pub fn label_names(&self) -> Vec<String> {
        self.gather(|index, names| names.extend(index.names().map(str::to_owned)))
    }

    /// The values of a label in the head and the newest blocks, sorted.
    #[must_use]
    pub fn label_values(&self, name: &str) -> Vec<String> {
        self.gather(|index, values| values.extend(index.values(name).map(str::to_owned)))
    }

    /// Series in the head: what is alive now.
    #[must_use]
    pub fn series_count(&self) -> usize {
        self.shared.head.read().unwrap_or_else(PoisonError::into_inner).series_count()
    }

    fn gather(&self, take: impl Fn(&SeriesIndex, &mut BTreeSet<String>)) -> Vec<String> {
        let mut texts = BTreeSet::new();
        let blocks = {
            let head = self.shared.head.read().unwrap_or_else(PoisonError::into_inner);
            take(head.index(), &mut texts);
            self.shared.blocks.load_full()
        };
        for meta in blocks.iter().rev().take(BLOCKS_FOR_LABELS) {
            if let Some(block) = self.open(meta.id) {
                take(block.index(), &mut texts);
            }
        }
        texts.into_iter().collect()
    }

    /// A block; one that cannot be read is counted, one that was deleted meanwhile is not.
    fn open(&self, id: u64) -> Option<Arc<Block>> {
        match self.shared.open(id) {
            Ok(block) => Some(block),
            Err(Error::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => None,
            Err(_) => {
                self.signals.block_damaged(id);
                None
            }
        }
    }
}

impl SeriesData {
    fn new(labels: &LabelSet, mut points: Vec<Point>) -> Self {
        put_in_order(&mut points);
        Self { labels: owned(labels), points }
    }
}

/// Blocks follow each other in time unless the clock was set back; then the points of both times are mixed here.
pub(crate) fn put_in_order(points: &mut Vec<Point>) {
    if !points.is_sorted_by(|a, b| a.0 < b.0) {
        points.sort_by_key(|(time, _)| *time);
        points.dedup_by_key(|(time, _)| *time);
    }
}

fn owned(labels: &LabelSet) -> Vec<(String, String)> {
    labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

fn unpack(chunks: &[Arc<Chunk>], from_ms: i64, to_ms: i64) -> Vec<Point> {
    let unpacked = chunks.iter().filter_map(|chunk| decode(&chunk.bytes, chunk.count));
    unpacked.flatten().filter(|(time, _)| (from_ms..=to_ms).contains(time)).collect()
}
