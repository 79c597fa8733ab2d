//! Compaction: blocks become one, series by series, each chunk packed as suits it best; and the thread that does it.

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use belfry_promql::Labels;
use belfry_signal::Exemplar;

use crate::block::{Block, BlockSeries, BlockWriter, Meta, SERIES_PER_PAGE};
use crate::error::Error;
use crate::maintenance::Maintenance;
use crate::merge::Gathered;
use crate::sealed::Sealed;

/// Reads the series of a block in order, a page at a time.
struct Source<'a> {
    block: &'a Block,
    page: Vec<BlockSeries>,
    at: usize,
    next_page: usize,
    number: u32,
    exemplars: std::iter::Peekable<std::vec::IntoIter<(u32, Vec<Exemplar>)>>,
    /// Pieces that could not be read.
    damaged: u64,
}

/// What a merge gave.
pub(crate) struct Merged {
    pub(crate) meta: Option<Meta>,
    /// Pages and chunks that could not be read and are not in the result.
    pub(crate) damaged: u64,
}

/// Changes the points of a series on their way; a series without points is left out.
pub(crate) type Edit<'a> = &'a dyn Fn(&Labels, &mut Gathered);

impl<'a> Source<'a> {
    fn new(block: &'a Block) -> Result<Self, Error> {
        let exemplars = unless_damaged(block, block.exemplars())?;
        let exemplars = exemplars.unwrap_or_default().into_iter().peekable();
        let mut source =
            Self { block, page: Vec::new(), at: 0, next_page: 0, number: 0, exemplars, damaged: 0 };
        source.fill()?;
        Ok(source)
    }

    /// Reads pages until there is a series or no page.
    fn fill(&mut self) -> Result<(), Error> {
        while self.at >= self.page.len() && self.next_page < self.block.pages()? {
            self.number = u32::try_from(self.next_page).unwrap_or(u32::MAX).saturating_mul(SERIES_PER_PAGE);
            let page = unless_damaged(self.block, self.block.page(self.next_page))?;
            self.damaged += u64::from(page.is_none());
            self.page = page.unwrap_or_default();
            self.at = 0;
            self.next_page += 1;
        }
        Ok(())
    }

    fn labels(&self) -> Option<&Labels> {
        self.page.get(self.at).map(|series| &series.labels)
    }

    /// Takes the present series' points and exemplars, and goes on to the next.
    fn take(
        &mut self,
        (from_ms, to_ms): (i64, i64),
        gathered: &mut Gathered,
        exemplars: &mut Vec<Exemplar>,
    ) -> Result<(), Error> {
        let Some(series) = self.page.get(self.at) else { return Ok(()) };
        for chunk in series.chunks.iter().filter(|chunk| chunk.touches(from_ms, to_ms)) {
            match unless_damaged(self.block, self.block.chunk(chunk))? {
                Some(points) => gathered.add(points, from_ms, to_ms),
                None => self.damaged += 1,
            }
        }
        while let Some((number, held)) = self.exemplars.next_if(|(number, _)| *number <= self.number) {
            if number == self.number {
                exemplars.extend(held);
            }
        }
        self.at += 1;
        self.number += 1;
        self.fill()
    }
}

/// What was read; none when it is damaged on our disk, where it stays as it is. What comes damaged from the bucket may come
/// well another time, so nothing is made without it.
fn unless_damaged<T>(block: &Block, read: Result<T, Error>) -> Result<Option<T>, Error> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(Error::Damaged { .. }) if block.is_local() => Ok(None),
        Err(error) => {
            if matches!(error, Error::Damaged { .. } | Error::Lost { .. }) {
                block.suspect();
            }
            Err(error)
        }
    }
}

/// What lies in a time of several blocks becomes one block, which the writer begins.
pub(crate) fn merge(
    blocks: &[Arc<Block>],
    range: (i64, i64),
    mut writer: BlockWriter,
    exemplars_max: usize,
    edit: Edit<'_>,
    is_cancelled: &dyn Fn() -> bool,
) -> Result<Merged, Error> {
    let mut sources: Vec<Source<'_>> =
        blocks.iter().map(|block| Source::new(block)).collect::<Result<_, _>>()?;
    for block in blocks {
        writer.cover(block.meta().checkpoint);
        writer.descend_from(block.meta().first_id);
    }
    while let Some(labels) = sources.iter().filter_map(Source::labels).min().cloned() {
        if writer.series().is_multiple_of(1024) && is_cancelled() {
            return Err(Error::Cancelled);
        }
        let mut gathered = Gathered::default();
        let mut exemplars = Vec::new();
        for source in &mut sources {
            if source.labels() == Some(&labels) {
                source.take(range, &mut gathered, &mut exemplars)?;
            }
        }
        gathered.put_in_order();
        edit(&labels, &mut gathered);
        if gathered.is_empty() {
            continue;
        }
        exemplars.sort_by_key(|exemplar| exemplar.unix_millis);
        exemplars.dedup();
        exemplars.drain(..exemplars.len().saturating_sub(exemplars_max));
        writer.push(&labels, &Sealed::all_of(&gathered), exemplars)?;
    }
    let damaged = sources.iter().map(|source| source.damaged).sum();
    Ok(Merged { meta: writer.finish()?, damaged })
}

/// The threads that work on blocks: one compacts, deletes and downsamples, and one speaks with the bucket, which may be
/// slow. They end when this is dropped.
#[derive(Debug)]
pub(crate) struct Compactor {
    workers: Vec<Worker>,
    maintenance: Maintenance,
}

#[derive(Debug)]
struct Worker {
    ticks: SyncSender<i64>,
    thread: JoinHandle<()>,
}

impl Compactor {
    pub(crate) fn start(maintenance: Maintenance) -> Result<Self, Error> {
        let mut workers = vec![Worker::start("belfry-compact", &maintenance, compact)?];
        if maintenance.shared().bucket.is_some() {
            workers.push(Worker::start("belfry-upload", &maintenance, Maintenance::tend_bucket)?);
        }
        Ok(Self { workers, maintenance })
    }

    /// Says what time it is; while a thread is busy, it need not know.
    pub(crate) fn wake(&self, unix_millis: i64) {
        for worker in &self.workers {
            let _busy = worker.ticks.try_send(unix_millis);
        }
    }
}

impl Worker {
    fn start(name: &str, maintenance: &Maintenance, work: fn(&Maintenance, i64)) -> Result<Self, Error> {
        let (ticks, receiver) = sync_channel(1);
        let worker = maintenance.clone();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || receiver.into_iter().for_each(|unix_millis| work(&worker, unix_millis)))
            .map_err(Error::Thread)?;
        Ok(Self { ticks, thread })
    }
}

impl Drop for Compactor {
    fn drop(&mut self) {
        self.maintenance.cancel();
        self.maintenance.shared().bucket.iter().for_each(|bucket| bucket.close());
        for Worker { ticks, thread } in self.workers.drain(..) {
            drop(ticks);
            // It has nothing to say; what it did not finish is done after the next start.
            let _ended = thread.join();
        }
    }
}

fn compact(maintenance: &Maintenance, unix_millis: i64) {
    maintenance.delete_old(unix_millis);
    // Each is told by itself and tried again at the next tick.
    let _finished = maintenance.finish_deletions();
    let _compacted = maintenance.compact();
    let _made = maintenance.downsample();
}
