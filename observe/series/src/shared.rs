//! What writer, readers and maintenance share.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use arc_swap::ArcSwap;
use belfry_signal::MetricMetadata;

use crate::block::{Block, Meta, PageCache};
use crate::bucket::Bucket;
use crate::catalogue::{Catalogue, Change};
use crate::config::Config;
use crate::error::Error;
use crate::head::Head;
use crate::level::{DayChange, Levels};
use crate::signals::Signals;

/// The store's state. Locks are taken in this order: maintenance, catalogue, head.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) signals: Signals,
    head: RwLock<Head>,
    /// In the order in which their samples came. Changed under the catalogue's lock; what moves samples from the head holds the head's write lock
    /// too, so that a reader that holds the head's read lock sees each sample in exactly one of the two.
    pub(crate) blocks: ArcSwap<Vec<Arc<Block>>>,
    /// Which days are downsampled. A reader takes it before the blocks: what it then says is in these.
    pub(crate) levels: ArcSwap<Levels>,
    pub(crate) cache: PageCache,
    catalogue: Mutex<Catalogue>,
    /// Held by whoever replaces blocks: compaction, deletion, retention, import.
    maintenance: Mutex<()>,
    pub(crate) metadata: RwLock<BTreeMap<String, MetricMetadata>>,
    flushes: Flushes,
    /// Where older blocks go.
    pub(crate) bucket: Option<Arc<Bucket>>,
}

/// How others have the head sealed by the writer, who may be busy.
#[derive(Debug, Default)]
struct Flushes {
    /// Asked for, and done.
    counts: Mutex<(u64, u64)>,
    changed: Condvar,
}

impl Shared {
    pub(crate) fn new(
        config: Config,
        signals: Signals,
        catalogue: Catalogue,
        blocks: Vec<Arc<Block>>,
        metadata: Vec<MetricMetadata>,
        bucket: Option<Arc<Bucket>>,
    ) -> Self {
        let head = Head::new(config.series_exemplars_max, config.exemplars_max);
        Self {
            head: RwLock::new(head),
            blocks: ArcSwap::from_pointee(blocks),
            levels: ArcSwap::from_pointee(catalogue.levels().clone()),
            cache: PageCache::new(config.index_cache_bytes_max),
            catalogue: Mutex::new(catalogue),
            maintenance: Mutex::default(),
            metadata: RwLock::new(metadata.into_iter().map(|metric| (metric.name.clone(), metric)).collect()),
            flushes: Flushes::default(),
            bucket,
            config,
            signals,
        }
    }

    pub(crate) fn directory(&self) -> &PathBuf {
        &self.config.directory
    }

    pub(crate) fn head(&self) -> RwLockReadGuard<'_, Head> {
        self.head.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn head_mut(&self) -> RwLockWriteGuard<'_, Head> {
        self.head.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn catalogue(&self) -> MutexGuard<'_, Catalogue> {
        self.catalogue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn maintenance(&self) -> MutexGuard<'_, ()> {
        self.maintenance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes blocks in the place of others, and deletes the files of those; `also` says what becomes of levels.
    pub(crate) fn replace(
        &self,
        added: &[Meta],
        removed: &[u64],
        also: impl FnOnce(&Levels) -> (Vec<DayChange>, Option<i64>),
    ) -> Result<(), Error> {
        let mut catalogue = self.catalogue();
        let opened = self.open_all(added)?;
        let blocks = self.blocks.load_full();
        let gone = blocks.iter().map(|block| block.meta()).filter(|meta| removed.contains(&meta.id));
        let gone: Vec<Meta> = gone.cloned().collect();
        let (days, raw_gone_ms) = also(catalogue.levels());
        let checkpoint = None;
        catalogue.change(&Change { added, removed: &gone, checkpoint, days, raw_gone_ms })?;
        self.swap(&catalogue, opened, removed);
        drop(catalogue);
        for id in removed {
            // A file that stays is deleted at the next start: the catalogue does not know it any more.
            let _deleted = std::fs::remove_file(crate::block::path(self.directory(), *id));
        }
        self.measure();
        Ok(())
    }

    /// From now on reads an uploaded block from the bucket, and deletes its file.
    pub(crate) fn retire(&self, id: u64) {
        let Some(bucket) = &self.bucket else { return };
        let catalogue = self.catalogue();
        let Some(placed) = catalogue.place(id) else { return };
        let mut blocks: Vec<Arc<Block>> = self.blocks.load().as_ref().clone();
        let Some(held) = blocks.iter_mut().find(|block| block.meta().id == id) else { return };
        *held = Arc::new(Block::in_bucket(self.directory(), held.meta().clone(), bucket, &placed.object));
        self.blocks.store(Arc::new(blocks));
        drop(catalogue);
        // One that stays is found at the next start, and goes then.
        let _deleted = std::fs::remove_file(crate::block::path(self.directory(), id));
        self.measure();
    }

    pub(crate) fn open_all(&self, metas: &[Meta]) -> Result<Vec<Arc<Block>>, Error> {
        metas.iter().map(|meta| Block::open(self.directory(), meta.clone()).map(Arc::new)).collect()
    }

    /// Shows readers the new list, as the catalogue has it now.
    pub(crate) fn swap(&self, catalogue: &Catalogue, added: Vec<Arc<Block>>, removed: &[u64]) {
        let mut blocks: Vec<Arc<Block>> = self.blocks.load().as_ref().clone();
        blocks.retain(|block| !removed.contains(&block.meta().id));
        blocks.extend(added);
        blocks.sort_by_key(|block| (block.meta().first_id, block.meta().id));
        self.blocks.store(Arc::new(blocks));
        if **self.levels.load() != *catalogue.levels() {
            self.levels.store(Arc::new(catalogue.levels().clone()));
        }
    }

    /// The newest time in head and blocks.
    pub(crate) fn newest_ms(&self) -> Option<i64> {
        let in_blocks = self.blocks.load().iter().map(|block| block.meta().max_ms).max();
        in_blocks.max(self.head().newest_ms())
    }

    pub(crate) fn measure(&self) {
        {
            let head = self.head();
            self.signals.head_measured(head.series_count(), head.bytes());
        }
        let blocks = self.blocks.load();
        let (local, others): (Vec<_>, Vec<_>) = blocks.iter().partition(|block| block.is_local());
        let bytes = local.iter().map(|block| block.meta().bytes).sum();
        self.signals.blocks_measured(blocks.len(), bytes, others.len());
    }

    /// Asks the writer to seal the head, and waits until it did; false when it did not in time.
    pub(crate) fn request_flush(&self, patience: Duration) -> bool {
        let mut counts = self.flushes.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.0 += 1;
        let wanted = counts.0;
        let waited = self.flushes.changed.wait_timeout_while(counts, patience, |counts| counts.1 < wanted);
        let (counts, _) = waited.unwrap_or_else(PoisonError::into_inner);
        counts.1 >= wanted
    }

    /// Which request for a flush waits, if any.
    pub(crate) fn requested_flush(&self) -> Option<u64> {
        let counts = self.flushes.counts.lock().unwrap_or_else(PoisonError::into_inner);
        (counts.0 > counts.1).then_some(counts.0)
    }

    /// Tells those who wait for this request and those before it.
    pub(crate) fn flushed(&self, request: u64) {
        let mut counts = self.flushes.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.1 = counts.1.max(request);
        self.flushes.changed.notify_all();
    }
}
