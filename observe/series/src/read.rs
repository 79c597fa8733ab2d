//! Reading head and blocks together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use belfry_promql::{Labels, STRETCH_POINTS};
use belfry_signal::{Exemplar, MetricMetadata};
use roaring::RoaringBitmap;

use crate::block::{Block, BlockSeries};
use crate::chunk::Point;
use crate::error::Error;
use crate::head::Chunks;
use crate::level::{Choice, Resolution};
use crate::matcher::Matcher;
use crate::merge::Gathered;
use crate::sealed::Kind;
use crate::shared::Shared;
use crate::signals::BucketWork;
use crate::top::{Top, largest};

/// Blocks whose labels are offered beside the head's: the newest ones.
const BLOCKS_FOR_LABELS: usize = 12;

/// Reads head and blocks together. Cheap to clone. Its calls read the disk: on a runtime, use `spawn_blocking`.
#[derive(Clone, Debug)]
pub struct SeriesReader {
    pub(crate) shared: Arc<Shared>,
    /// Raised when nobody waits any more.
    pub(crate) is_ended: Arc<AtomicBool>,
}

/// One series and its float points in a time.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesData {
    /// Names and values, sorted by name, `__name__` among them.
    pub labels: Vec<(String, String)>,
    /// Times in milliseconds since the Unix epoch, rising, and values.
    pub points: Vec<(i64, f64)>,
}

/// The exemplars of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesExemplars {
    /// The series.
    pub labels: Labels,
    /// By time.
    pub exemplars: Vec<Exemplar>,
}

/// Whether who asked still waits, and who is told what could not be read.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) is_cancelled: &'a dyn Fn() -> bool,
    pub(crate) note: &'a dyn Fn(&Error),
}

/// One question, and what it may still read.
struct Reading<'a> {
    matchers: &'a [Matcher],
    asker: Asker<'a>,
    /// Points.
    left: usize,
}

impl SeriesReader {
    /// The same, whose questions about labels and exemplars end early, with a part of the answer, when the flag is raised.
    #[must_use]
    pub fn until(&self, is_ended: Arc<AtomicBool>) -> Self {
        Self { shared: Arc::clone(&self.shared), is_ended }
    }

    fn is_ended(&self) -> bool {
        self.is_ended.load(Ordering::Relaxed)
    }

    /// The series that satisfy every matcher, sorted by labels, with their float points from `from_ms` to `to_ms`
    /// inclusive. Histograms are left out; [`crate::PromqlSource`] has them.
    ///
    /// # Errors
    /// When more points would be read than one query may. A block that cannot be read is skipped and counted.
    pub fn select(&self, matchers: &[Matcher], from_ms: i64, to_ms: i64) -> Result<Vec<SeriesData>, Error> {
        let selected =
            self.read(matchers, (from_ms, to_ms), Asker { is_cancelled: &|| false, note: &|_| {} })?;
        let with_floats = selected.into_iter().filter(|(_, gathered)| !gathered.floats.is_empty());
        Ok(with_floats.map(|(labels, gathered)| SeriesData::new(&labels, gathered.floats)).collect())
    }

    /// What every kind of select is made of. What cannot be read is noted and left out. Between blocks and between series it
    /// asks `is_cancelled`.
    pub(crate) fn read(
        &self,
        matchers: &[Matcher],
        (from_ms, to_ms): (i64, i64),
        asker: Asker<'_>,
    ) -> Result<BTreeMap<Labels, Gathered>, Error> {
        let levels = self.shared.levels.load_full();
        let (in_head, blocks) = {
            let head = self.shared.head();
            (head.select(matchers, from_ms, to_ms)?, self.shared.blocks.load_full())
        };
        let left = self.shared.config.select_points_max;
        let mut reading = Reading { matchers, asker, left };
        let range = (from_ms, to_ms);
        let mut selected: BTreeMap<Labels, Gathered> = BTreeMap::new();
        self.read_blocks(&mut reading, &blocks, Resolution::Raw, range, &mut selected)?;
        self.read_head(&mut reading, &in_head, range, &mut selected)?;
        // Where retention has taken samples, those that the levels kept stand for them.
        let gone_ms = levels.raw_gone_ms().map_or(i64::MIN, |gone_ms| gone_ms.min(to_ms));
        for (source, after_ms, until_ms) in levels.left((from_ms.saturating_sub(1), gone_ms)) {
            if source != Resolution::Raw && after_ms < until_ms {
                let mut kept = BTreeMap::new();
                let range = (after_ms.saturating_add(1), until_ms.saturating_add(source.millis()));
                self.read_blocks(&mut reading, &blocks, source, range, &mut kept)?;
                for (labels, mut gathered) in kept {
                    gathered.unfold((from_ms, to_ms.min(until_ms)));
                    selected.entry(labels).or_default().append(gathered);
                }
            }
        }
        selected.values_mut().for_each(Gathered::put_in_order);
        selected.retain(|_, gathered| !gathered.is_empty());
        Ok(selected)
    }

    /// As [`read`](Self::read), in stretches of a level, of which those are given that end in the time and one before it.
    /// What is in no level yet, or not in this one, is summed up as it is read. Where the choice ends, samples follow.
    pub(crate) fn read_level(
        &self,
        matchers: &[Matcher],
        Choice { level, until_ms: chosen_ms }: Choice,
        (from_ms, to_ms): (i64, i64),
        asker: Asker<'_>,
    ) -> Result<BTreeMap<Labels, Gathered>, Error> {
        let stretch_ms = level.millis();
        let floor = |time: i64| time.saturating_sub(time.rem_euclid(stretch_ms));
        let after_ms = floor(from_ms.saturating_sub(1)).saturating_sub(stretch_ms);
        let samples_from = chosen_ms.filter(|end_ms| *end_ms < to_ms);
        let until_ms = samples_from.unwrap_or_else(|| floor(to_ms));
        let levels = self.shared.levels.load_full();
        let (in_head, head_ms, blocks) = {
            let head = self.shared.head();
            let in_head = head.select(matchers, after_ms.saturating_add(1), until_ms.max(to_ms))?;
            (in_head, head.range().map(|range| range.0), self.shared.blocks.load_full())
        };
        let left = self.shared.config.select_points_max;
        let mut reading = Reading { matchers, asker, left };
        let mut selected: BTreeMap<Labels, Gathered> = BTreeMap::new();
        for (source, after_ms, until_ms) in levels.sources(level, (after_ms, until_ms), head_ms) {
            let range = (after_ms.saturating_add(1), until_ms);
            let mut piece = BTreeMap::new();
            self.read_blocks(&mut reading, &blocks, source, range, &mut piece)?;
            if source == Resolution::Raw {
                self.read_head(&mut reading, &in_head, range, &mut piece)?;
            }
            for (labels, mut gathered) in piece {
                gathered.put_in_order();
                match source {
                    Resolution::Raw => gathered.downsample(level),
                    _ if source != level => gathered.coarsen(level),
                    _ => {}
                }
                selected.entry(labels).or_default().append(gathered);
            }
        }
        if let Some(end_ms) = samples_from {
            let range = (end_ms.saturating_add(1), to_ms);
            let mut piece = BTreeMap::new();
            self.read_blocks(&mut reading, &blocks, Resolution::Raw, range, &mut piece)?;
            self.read_head(&mut reading, &in_head, range, &mut piece)?;
            for (labels, mut gathered) in piece {
                gathered.put_in_order();
                selected.entry(labels).or_default().append(gathered);
            }
        }
        Ok(selected)
    }

    /// Adds what the blocks of a resolution hold of a time.
    fn read_blocks(
        &self,
        reading: &mut Reading<'_>,
        blocks: &[Arc<Block>],
        resolution: Resolution,
        (from_ms, to_ms): (i64, i64),
        selected: &mut BTreeMap<Labels, Gathered>,
    ) -> Result<(), Error> {
        for block in touching(blocks, from_ms, to_ms).filter(|block| block.meta().resolution() == resolution)
        {
            if (reading.asker.is_cancelled)() {
                return Err(Error::Cancelled);
            }
            let read = self.read_block(block, reading, (from_ms, to_ms));
            if let Err(error @ (Error::Bucket { .. } | Error::Lost { .. })) = &read {
                (reading.asker.note)(error);
            }
            for (labels, gathered) in self.unless_damaged(block, read)?.unwrap_or_default() {
                selected.entry(labels).or_default().append(gathered);
            }
        }
        Ok(())
    }

    /// Adds what was found in the head of a time.
    fn read_head(
        &self,
        reading: &mut Reading<'_>,
        in_head: &[Chunks],
        (from_ms, to_ms): (i64, i64),
        selected: &mut BTreeMap<Labels, Gathered>,
    ) -> Result<(), Error> {
        let points_max = self.shared.config.select_points_max;
        for (labels, chunks) in in_head {
            if (reading.asker.is_cancelled)() {
                return Err(Error::Cancelled);
            }
            let mut gathered = Gathered::default();
            for chunk in chunks.iter().filter(|chunk| chunk.max_ms >= from_ms && chunk.min_ms <= to_ms) {
                if let Some(points) = chunk.points() {
                    gathered.add(points, from_ms, to_ms);
                }
            }
            let left = reading.left.checked_sub(gathered.cost());
            reading.left = left.ok_or(Error::TooManyPoints { points_max })?;
            if !gathered.is_empty() {
                selected.entry(labels.clone()).or_default().append(gathered);
            }
        }
        Ok(())
    }

    fn read_block(
        &self,
        block: &Block,
        reading: &mut Reading<'_>,
        (from_ms, to_ms): (i64, i64),
    ) -> Result<Vec<(Labels, Gathered)>, Error> {
        let points_max = self.shared.config.select_points_max;
        let numbers = block.select(&self.shared.cache, reading.matchers)?;
        let mut found = Vec::new();
        let mut damaged = 0;
        damaged += block.series(&self.shared.cache, &numbers, |_, series| {
            if (reading.asker.is_cancelled)() {
                return Err(Error::Cancelled);
            }
            let mut gathered = Gathered::default();
            for chunk in series.chunks.iter().filter(|chunk| chunk.touches(from_ms, to_ms)) {
                let cost = if chunk.kind == Kind::Stretches { STRETCH_POINTS } else { 1 };
                if (chunk.count as usize).saturating_mul(cost) > reading.left {
                    return Err(Error::TooManyPoints { points_max });
                }
                match block.chunk(chunk) {
                    Ok(points) => gathered.add(points, from_ms, to_ms),
                    Err(Error::Damaged { .. }) => self.shared.signals.chunk_damaged(),
                    Err(other) => return Err(other),
                }
            }
            let left = reading.left.checked_sub(gathered.cost());
            reading.left = left.ok_or(Error::TooManyPoints { points_max })?;
            if !gathered.is_empty() {
                found.push((series.labels.clone(), gathered));
            }
            Ok(())
        })?;
        (0..damaged).for_each(|_| self.shared.signals.chunk_damaged());
        Ok(found)
    }

    /// What a block gave; one that cannot be read is counted and gives nothing, so that the others still answer.
    fn unless_damaged<T>(&self, block: &Block, read: Result<T, Error>) -> Result<Option<T>, Error> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(Error::Damaged { .. } | Error::File { .. }) => {
                self.shared.signals.block_damaged(block.meta().id);
                Ok(None)
            }
            Err(Error::Lost { .. }) => {
                self.shared.signals.bucket_failed(BucketWork::Read);
                self.shared.signals.block_damaged(block.meta().id);
                Ok(None)
            }
            Err(Error::Bucket { .. }) => {
                self.shared.signals.bucket_failed(BucketWork::Read);
                Ok(None)
            }
            Err(other) => Err(other),
        }
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
        let (in_head, blocks) = {
            let head = self.shared.head();
            (head.label_sets(matchers, from_ms, to_ms), self.shared.blocks.load_full())
        };
        let mut sets: BTreeSet<Labels> = in_head.unwrap_or_default().into_iter().collect();
        // Newest first: when there are more than may be named, those of today are.
        for block in touching(&blocks, from_ms, to_ms).rev() {
            if sets.len() >= series_max || self.is_ended() {
                break;
            }
            let read = block.select(&self.shared.cache, matchers).and_then(|numbers| {
                block.series(&self.shared.cache, &numbers, |_, series: &BlockSeries| {
                    if self.is_ended() {
                        return Err(Error::Cancelled);
                    }
                    if series.chunks.iter().any(|chunk| chunk.touches(from_ms, to_ms)) {
                        sets.insert(series.labels.clone());
                    }
                    Ok(())
                })
            });
            // Damage is counted; nothing else can be wrong here.
            let _told = self.unless_damaged(block, read);
        }
        sets.iter().take(series_max).map(owned).collect()
    }

    /// The names of all labels in the head and the newest blocks, sorted.
    #[must_use]
    pub fn label_names(&self) -> Vec<String> {
        let mut names: BTreeSet<String> = self.shared.head().index().names().map(str::to_owned).collect();
        for block in self.shared.blocks.load().iter().rev().take(BLOCKS_FOR_LABELS) {
            if self.is_ended() {
                break;
            }
            let read = block.label_names().map(|held| names.extend(held.map(str::to_owned)));
            let _told = self.unless_damaged(block, read);
        }
        names.into_iter().collect()
    }

    /// The values of a label in the head and the newest blocks, sorted.
    #[must_use]
    pub fn label_values(&self, name: &str) -> Vec<String> {
        let mut values: BTreeSet<String> =
            self.shared.head().index().values(name).map(str::to_owned).collect();
        for block in self.shared.blocks.load().iter().rev().take(BLOCKS_FOR_LABELS) {
            if self.is_ended() {
                break;
            }
            let read = block.label_values(&self.shared.cache, name, |value| {
                values.insert(value.to_owned());
            });
            let _told = self.unless_damaged(block, read);
        }
        values.into_iter().collect()
    }

    /// The exemplars of the series that satisfy every matcher, from `from_ms` to `to_ms` inclusive, by series.
    ///
    /// # Errors
    /// When a matcher cannot be evaluated. A block that cannot be read is skipped and counted.
    pub fn exemplars(
        &self,
        matchers: &[Matcher],
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<SeriesExemplars>, Error> {
        let mut all: BTreeMap<Labels, Vec<Exemplar>> = BTreeMap::new();
        let is_wanted = |exemplar: &&Exemplar| (from_ms..=to_ms).contains(&exemplar.unix_millis);
        let blocks = {
            let head = self.shared.head();
            for number in crate::postings::select(head.index(), matchers)? {
                let found: Vec<_> = head.exemplars().of(number).filter(is_wanted).cloned().collect();
                if !found.is_empty() {
                    all.insert(head.index().labels(number), found);
                }
            }
            self.shared.blocks.load_full()
        };
        // An exemplar may be a little older than the samples it came with.
        for block in blocks.iter() {
            if self.is_ended() {
                break;
            }
            let read = self.block_exemplars(block, matchers, &mut |labels, exemplars| {
                all.entry(labels.clone()).or_default().extend(exemplars.iter().filter(is_wanted).cloned());
            });
            self.unless_damaged(block, read)?;
        }
        let in_order =
            all.into_iter().filter(|(_, exemplars)| !exemplars.is_empty()).map(|(labels, mut exemplars)| {
                exemplars.sort_by_key(|exemplar| exemplar.unix_millis);
                exemplars.dedup();
                SeriesExemplars { labels, exemplars }
            });
        Ok(in_order.collect())
    }

    fn block_exemplars(
        &self,
        block: &Block,
        matchers: &[Matcher],
        visit: &mut dyn FnMut(&Labels, &[Exemplar]),
    ) -> Result<(), Error> {
        let stored: BTreeMap<u32, Vec<Exemplar>> = block.exemplars()?.into_iter().collect();
        if stored.is_empty() {
            return Ok(());
        }
        let with_exemplars: RoaringBitmap = stored.keys().copied().collect();
        let numbers = block.select(&self.shared.cache, matchers)? & with_exemplars;
        block.series(&self.shared.cache, &numbers, |number, series| {
            visit(&series.labels, stored.get(&number).map_or(&[], Vec::as_slice));
            Ok(())
        })?;
        Ok(())
    }

    /// What metrics are, as far as whoever brought them said; by name.
    #[must_use]
    pub fn metadata(&self) -> Vec<MetricMetadata> {
        let metadata = self.shared.metadata.read().unwrap_or_else(PoisonError::into_inner);
        metadata.values().cloned().collect()
    }

    /// How long blocks are kept.
    #[must_use]
    pub fn retention(&self) -> std::time::Duration {
        self.shared.config.retention
    }

    /// Series in the head: what is alive now.
    #[must_use]
    pub fn series_count(&self) -> usize {
        self.shared.head().series_count()
    }

    /// What the series in memory cost: the `limit` largest of each kind.
    #[must_use]
    pub fn top(&self, limit: usize) -> Top {
        let head = self.shared.head();
        let counts = head.index().counts();
        Top {
            series: head.series_count() as u64,
            label_pairs: counts.pairs.len() as u64,
            samples: head.samples(),
            bytes: (head.bytes() + head.index().bytes()) as u64,
            range: head.range(),
            metrics: largest(counts.metrics, limit),
            labels: largest(counts.labels, limit),
            pairs: largest(counts.pairs, limit),
            label_bytes: largest(counts.label_bytes, limit),
        }
    }
}

impl SeriesData {
    fn new(labels: &Labels, points: Vec<Point>) -> Self {
        Self { labels: owned(labels), points }
    }
}

fn touching(blocks: &[Arc<Block>], from_ms: i64, to_ms: i64) -> impl DoubleEndedIterator<Item = &Arc<Block>> {
    blocks.iter().filter(move |block| block.meta().touches(from_ms, to_ms))
}

fn owned(labels: &Labels) -> Vec<(String, String)> {
    labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
