//! What is done to blocks besides reading them: compaction, retention, deletion by matcher, snapshots.
//!
//! All of it replaces whole blocks by whole blocks in one transaction, one piece of work at a time, beside the writer and
//! the readers.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use belfry_promql::Labels;

use crate::block::{Block, BlockWriter, Meta};
use crate::catalogue::{Catalogue, StoredDeletion};
use crate::compact::{Edit, merge};
use crate::error::Error;
use crate::level::{DAY_MS, DayChange, LEVELS, Levels, Resolution};
use crate::matcher::{MatchOperator, Matcher};
use crate::merge::Gathered;
use crate::plan;
use crate::shared::Shared;

/// How long deletion, snapshot and export wait for the writer to seal the head.
const FLUSH_PATIENCE: Duration = Duration::from_secs(60);

/// Works on the blocks of an open store. Cheap to clone. Its calls read and write the disk for long.
#[derive(Clone, Debug)]
pub struct Maintenance {
    shared: Arc<Shared>,
    is_cancelled: Arc<AtomicBool>,
}

/// What a deletion did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Blocks that were written anew, or went.
    pub blocks: u64,
    /// Points that are gone.
    pub points: u64,
}

/// How far some work is: done and all, in the unit that it says.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

impl Maintenance {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, is_cancelled: Arc::default() }
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed)
    }

    pub(crate) fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Has the writer seal what is in memory, so that blocks hold everything. With a writer that is not ticked, flush it
    /// instead.
    ///
    /// # Errors
    /// When the writer did not within a minute.
    pub fn flush(&self) -> Result<(), Error> {
        if self.shared.head().range().is_none() || self.shared.request_flush(FLUSH_PATIENCE) {
            Ok(())
        } else {
            Err(Error::Busy)
        }
    }

    /// Compacts what is due. Returns how many blocks were made.
    ///
    /// # Errors
    /// When blocks could not be read or written; they stay as they are.
    pub fn compact(&self) -> Result<usize, Error> {
        self.compact_until(|newest_ms| newest_ms)
    }

    /// Compacts everything as if all windows were over: for tools, and before an export.
    ///
    /// # Errors
    /// As with [`compact`](Self::compact).
    pub fn compact_all(&self) -> Result<usize, Error> {
        self.compact_until(|_| i64::MAX)
    }

    fn compact_until(&self, newest: impl Fn(i64) -> i64) -> Result<usize, Error> {
        let mut made = 0;
        loop {
            let _alone = self.shared.maintenance();
            let Some(newest_ms) = self.shared.newest_ms() else { return Ok(made) };
            let blocks = self.shared.blocks.load_full();
            let Some(plan) = self.plan(&blocks, newest(newest_ms)) else { return Ok(made) };
            let chosen: Vec<Arc<Block>> =
                blocks.iter().filter(|block| plan.ids.contains(&block.meta().id)).cloned().collect();
            let began = Instant::now();
            match self.replace(&chosen, plan.level, &|_, _| {}, |_| <_>::default()) {
                Ok(meta) => {
                    let (before, after) = (chosen.len(), meta.map_or(0, |meta| meta.bytes));
                    let before_bytes = chosen.iter().map(|block| block.meta().bytes).sum();
                    let seconds = began.elapsed().as_secs_f64();
                    self.shared.signals.compacted(before, before_bytes, after, seconds);
                    made += 1;
                }
                Err(Error::Cancelled) => return Ok(made),
                Err(error) => {
                    self.shared.signals.compaction_failed(error.reason());
                    return Err(error);
                }
            }
        }
    }

    /// What to compact next: raw blocks, then those of each level.
    fn plan(&self, blocks: &[Arc<Block>], newest_ms: i64) -> Option<plan::Plan> {
        let config = &self.shared.config;
        let longest_ms = crate::millis(config.compacted_duration_max);
        // While the bucket is away, what is here is compacted without what is there.
        let can_read = self.shared.bucket.as_ref().is_none_or(|bucket| !bucket.is_failing());
        [Resolution::Raw].into_iter().chain(LEVELS).find_map(|resolution| {
            let is_there = |block: &&Arc<Block>| block.is_local() || (can_read && !block.is_suspect());
            let held = blocks.iter().filter(is_there).map(|block| block.meta());
            let held = held.filter(|meta| meta.resolution() == resolution);
            // A stretch belongs to the window that it ends.
            let early = i64::from(resolution != Resolution::Raw);
            let metas: Vec<Meta> = held
                .map(|meta| Meta {
                    level: meta.level ^ resolution.bits(),
                    min_ms: meta.min_ms.saturating_sub(early),
                    max_ms: meta.max_ms.saturating_sub(early),
                    ..meta.clone()
                })
                .collect();
            let (first_ms, newest_ms) = match resolution.configured(config) {
                None if resolution != Resolution::Raw => return None,
                None => (crate::millis(config.block_duration), newest_ms),
                Some((after_ms, _)) => (DAY_MS, newest_ms.saturating_sub(after_ms).saturating_sub(DAY_MS)),
            };
            let mut plan = plan::next(&metas, &plan::windows(first_ms, longest_ms.max(first_ms)), newest_ms)?;
            plan.level |= resolution.bits();
            Some(plan)
        })
    }

    /// Writes blocks as one in their place. The caller holds the maintenance lock.
    fn replace(
        &self,
        blocks: &[Arc<Block>],
        level: u8,
        edit: Edit<'_>,
        also: impl FnOnce(&Levels) -> (Vec<DayChange>, Option<i64>),
    ) -> Result<Option<Meta>, Error> {
        let meta = self.merged(blocks, (i64::MIN, i64::MAX), level, edit)?;
        let ids: Vec<u64> = blocks.iter().map(|block| block.meta().id).collect();
        self.shared.replace(meta.as_slice(), &ids, also)?;
        Ok(meta)
    }

    /// Writes what lies in a time of some blocks as one, which nobody knows of yet.
    pub(crate) fn merged(
        &self,
        blocks: &[Arc<Block>],
        range: (i64, i64),
        level: u8,
        edit: Edit<'_>,
    ) -> Result<Option<Meta>, Error> {
        let id = self.shared.catalogue().take_id();
        let writer = BlockWriter::create(self.shared.directory(), id, level, 0)?;
        let is_raw = Resolution::of_bits(level) == Resolution::Raw;
        let exemplars_max = if is_raw { self.shared.config.series_exemplars_max } else { 0 };
        let merged = merge(blocks, range, writer, exemplars_max, edit, &|| self.is_cancelled())?;
        (0..merged.damaged).for_each(|_| self.shared.signals.chunk_damaged());
        if merged.damaged > 0 {
            // What could not be read is kept for a person to look at.
            for block in blocks {
                let _kept = std::fs::hard_link(block.path(), block.path().with_extension("damaged"));
            }
        }
        Ok(merged.meta)
    }

    /// Deletes blocks that are too old for their level, and the oldest while all together are too large: raw ones first,
    /// because what is downsampled is small and says most of it.
    pub fn delete_old(&self, unix_millis: i64) {
        let config = &self.shared.config;
        let oldest_ms = |resolution: Resolution| match resolution.configured(config) {
            _ if resolution == Resolution::Raw => unix_millis.saturating_sub(crate::millis(config.retention)),
            Some((_, retention_ms)) => unix_millis.saturating_sub(retention_ms),
            None => i64::MAX,
        };
        let is_old = |meta: &Meta| meta.max_ms < oldest_ms(meta.resolution());
        let is_too_much = |bytes: u64| config.disk_bytes_max.is_some_and(|max| bytes > max);
        {
            let blocks = self.shared.blocks.load();
            if !blocks.iter().any(|block| is_old(block.meta())) && !is_too_much(total_bytes(&blocks)) {
                return;
            }
        }
        let _alone = self.shared.maintenance();
        let blocks = self.shared.blocks.load_full();
        let mut by_age: Vec<&Arc<Block>> = blocks.iter().collect();
        by_age.sort_by_key(|block| (block.meta().resolution() != Resolution::Raw, block.meta().max_ms));
        let mut left = total_bytes(&blocks);
        let (mut ids, mut raw_gone_ms) = (Vec::new(), None);
        for block in by_age {
            let meta = block.meta();
            if !is_old(meta) && (!is_too_much(left) || !block.is_local()) {
                continue;
            }
            left -= if block.is_local() { meta.bytes } else { 0 };
            if !is_old(meta) && self.shared.catalogue().place(meta.id).is_some() {
                self.shared.retire(meta.id);
                continue;
            }
            ids.push(meta.id);
            if meta.resolution() == Resolution::Raw {
                raw_gone_ms = raw_gone_ms.max(Some(meta.max_ms));
            }
        }
        let also = |levels: &Levels| {
            let old = LEVELS.into_iter().flat_map(|level| levels.before(level, oldest_ms(level)));
            (old.map(|day| (day, None)).collect(), raw_gone_ms)
        };
        // The catalogue forgets first: a crash in between leaves files that the next start sets aside.
        if !ids.is_empty() && self.shared.replace(&[], &ids, also).is_ok() {
            self.shared.signals.blocks_deleted(ids.len() as u64);
        }
    }

    /// Deletes the points of the series that satisfy every matcher, from `from_ms` to `to_ms` inclusive, from the disk:
    /// the blocks that hold any are written anew without them. What is in memory must be sealed first
    /// ([`flush`](Self::flush)). A deletion that was begun is finished after a crash. `progress` counts blocks.
    /// The write-ahead log gives up what it still holds of them when its files are next trimmed.
    ///
    /// # Errors
    /// When a block could not be read or written; the deletion stays noted and is tried again.
    pub fn delete(
        &self,
        matchers: &[Matcher],
        from_ms: i64,
        to_ms: i64,
        progress: Progress<'_>,
    ) -> Result<Deleted, Error> {
        let stored = matchers.iter().map(|matcher| {
            let (name, operator, value) = matcher.parts();
            (name.to_owned(), operator.as_str().to_owned(), value.to_owned())
        });
        let deletion = StoredDeletion { id: 0, matchers: stored.collect(), from_ms, to_ms };
        // Alone from here on: otherwise whoever finishes deletions in the background may do this one, and what it deleted
        // would not be told.
        let alone = self.shared.maintenance();
        let deletion = self.shared.catalogue().put_deletion(deletion)?;
        self.finish_deletion(&alone, &deletion, progress)
    }

    /// Finishes what a crash interrupted.
    pub(crate) fn finish_deletions(&self) -> Result<(), Error> {
        let alone = self.shared.maintenance();
        let pending = self.shared.catalogue().deletions()?;
        for deletion in pending {
            self.finish_deletion(&alone, &deletion, &mut |_, _| {})?;
        }
        Ok(())
    }

    fn finish_deletion(
        &self,
        _alone: &MutexGuard<'_, ()>,
        deletion: &StoredDeletion,
        progress: Progress<'_>,
    ) -> Result<Deleted, Error> {
        let matchers: Vec<Matcher> = deletion
            .matchers
            .iter()
            .filter_map(|(name, operator, value)| Some((name, MatchOperator::written(operator)?, value)))
            .map(|(name, operator, value)| Matcher::new(name, operator, value))
            .collect::<Result<_, _>>()?;
        let blocks = self.shared.blocks.load_full();
        let mut deleted = Deleted::default();
        for (at, block) in (0_u64..).zip(blocks.iter()) {
            progress(at, blocks.len() as u64);
            let (meta, is_raw) = (block.meta(), block.meta().resolution() == Resolution::Raw);
            if meta.touches(deletion.from_ms, deletion.to_ms)
                && !block.select(&self.shared.cache, &matchers)?.is_empty()
            {
                let points = std::cell::Cell::new(0);
                let stretch_ms = meta.resolution().millis();
                let edit = |labels: &Labels, gathered: &mut Gathered| {
                    if matchers.iter().all(|matcher| matcher.is_match(labels.get(matcher.name()))) {
                        let before = gathered.len();
                        gathered.remove(deletion.from_ms, deletion.to_ms, meta.resolution());
                        points.set(points.get() + (before - gathered.len()) as u64);
                    }
                };
                // Days of which something is gone are made again from what is left. A stretch goes whole, and the first may
                // be the last of the day before.
                let also = |levels: &Levels| {
                    if is_raw {
                        let to_ms = deletion.to_ms.min(meta.max_ms);
                        return (levels.outdated(deletion.from_ms.max(meta.min_ms), to_ms), None);
                    }
                    let mut days =
                        levels.outdated(deletion.from_ms, deletion.to_ms.saturating_add(stretch_ms));
                    days.retain(|((level, _), _)| points.get() > 0 && *level == meta.resolution());
                    (days, None)
                };
                self.replace(std::slice::from_ref(block), meta.level, &edit, also)?;
                deleted.blocks += 1;
                deleted.points += if is_raw { points.get() } else { 0 };
            }
        }
        progress(blocks.len() as u64, blocks.len() as u64);
        self.shared.catalogue().remove_deletion(deletion.id)?;
        self.shared.signals.series_deleted(deleted.blocks, deleted.points);
        Ok(deleted)
    }

    /// Makes a copy of the store in another directory, which must not hold one: blocks are linked where the file system
    /// can, else copied. What is in memory must be sealed first ([`flush`](Self::flush)). `progress` counts blocks.
    ///
    /// # Errors
    /// When the directory is not empty, or a file cannot be written. Called again, it goes on where it ended.
    pub fn snapshot(&self, target: &Path, progress: Progress<'_>) -> Result<u64, Error> {
        let fault = |source| Error::File { path: target.to_owned(), source };
        std::fs::create_dir_all(target).map_err(fault)?;
        let _alone = self.shared.maintenance();
        let blocks = self.shared.blocks.load_full();
        for (at, block) in (0_u64..).zip(blocks.iter()) {
            progress(at, blocks.len() as u64);
            let copy = crate::block::path(target, block.meta().id);
            if !copy.exists() && std::fs::hard_link(block.path(), &copy).is_err() {
                let unfinished = copy.with_extension("new");
                block.copy_to(&unfinished)?;
                std::fs::rename(&unfinished, &copy).map_err(fault)?;
            }
        }
        // The catalogue of the copy is made from its blocks, as after a loss.
        Catalogue::open(target, None, &self.shared.signals)?;
        progress(blocks.len() as u64, blocks.len() as u64);
        Ok(blocks.len() as u64)
    }
}

/// Of those in the directory.
pub(crate) fn total_bytes(blocks: &[Arc<Block>]) -> u64 {
    blocks.iter().filter(|block| block.is_local()).map(|block| block.meta().bytes).sum()
}
