//! The builder: a thread that makes splits of sealed live buffers and publishes them with the WAL checkpoint.
//!
//! The hand-over is bounded: when as many buffers wait as may, intake keeps filling its own buffer and then waits.
//! A buffer that cannot be built stays searchable and is tried again; nothing behind it overtakes it, because the
//! checkpoint must not pass records that are not in a split.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::blocks::Stub;
use crate::catalogue::SplitRow;
use crate::error::Error;
use crate::facts::{RecordKind, Stream};
use crate::live::Sealed;
use crate::signals::Work;
use crate::split::Split;
use crate::store::Store;

const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
struct Queue {
    /// In order; the first is the one that is being built.
    waiting: VecDeque<Arc<Sealed>>,
    /// Checkpoint of the last published buffer.
    published: Option<u64>,
    /// The last try failed: until one succeeds, nobody waits for it.
    is_failing: bool,
    failure: String,
    is_shut: bool,
}

#[derive(Debug, Default)]
struct Desk {
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// The intake's end of the builder. Dropping it lets the thread finish the split in hand.
#[derive(Debug)]
pub(crate) struct Builder {
    desk: Arc<Desk>,
    buffers_max: usize,
    thread: Option<JoinHandle<()>>,
}

impl Builder {
    pub(crate) fn start(store: Arc<Store>) -> Result<Self, Error> {
        let desk = Arc::<Desk>::default();
        let buffers_max = store.config.sealed_buffers_max;
        let path = store.config.directory.clone();
        let own_desk = Arc::clone(&desk);
        let thread = std::thread::Builder::new()
            .name("events-build".to_owned())
            .spawn(move || run(&store, &own_desk))
            .map_err(|source| Error::disk("start a thread for", path, source))?;
        Ok(Self { desk, buffers_max, thread: Some(thread) })
    }

    /// Whether one more buffer may wait.
    pub(crate) fn has_room(&self) -> bool {
        self.desk.lock().waiting.len() < self.buffers_max
    }

    /// Records in buffers that are not published yet.
    pub(crate) fn waiting_records(&self) -> usize {
        let queue = self.desk.lock();
        let batches = queue.waiting.iter().flat_map(|sealed| &sealed.batches);
        batches.map(|batch| batch.records.len()).sum()
    }

    /// The checkpoint of the last buffer that was published since the start.
    pub(crate) fn published(&self) -> Option<u64> {
        self.desk.lock().published
    }

    /// Hands over a sealed buffer; the caller made sure that there is room.
    pub(crate) fn hand_over(&self, sealed: Arc<Sealed>) {
        self.desk.lock().waiting.push_back(sealed);
        self.desk.changed.notify_all();
    }

    /// Waits until there is room; `false` when there was none in time, or when building fails, which may last for hours.
    pub(crate) fn wait_for_room(&self, wait: Duration) -> bool {
        let queue = self.desk.lock();
        let is_hopeful = |queue: &mut Queue| queue.waiting.len() >= self.buffers_max && !queue.is_failing;
        let waited = self.desk.changed.wait_timeout_while(queue, wait, is_hopeful);
        let (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        queue.waiting.len() < self.buffers_max
    }

    /// Waits until every buffer that was handed over is published.
    ///
    /// # Errors
    /// As soon as a try to build fails, or at once when the last one did; it is tried again nevertheless.
    pub(crate) fn wait_until_published(&self) -> Result<(), Error> {
        let queue = self.desk.lock();
        let is_busy = |queue: &mut Queue| !queue.waiting.is_empty() && !queue.is_failing;
        let queue = self.desk.changed.wait_while(queue, is_busy).unwrap_or_else(PoisonError::into_inner);
        if queue.waiting.is_empty() { Ok(()) } else { Err(Error::Build(queue.failure.clone())) }
    }
}

impl Drop for Builder {
    fn drop(&mut self) {
        self.desk.lock().is_shut = true;
        self.desk.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported by the thread.
            let _ = thread.join();
        }
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first waiting buffer, or `None` when the store is shut.
    fn first(&self) -> Option<Arc<Sealed>> {
        let is_idle = |queue: &mut Queue| queue.waiting.is_empty() && !queue.is_shut;
        let queue = self.changed.wait_while(self.lock(), is_idle).unwrap_or_else(PoisonError::into_inner);
        if queue.is_shut { None } else { queue.waiting.front().cloned() }
    }

    fn published(&self) {
        let mut queue = self.lock();
        queue.published = queue.waiting.pop_front().map(|sealed| sealed.position);
        queue.is_failing = false;
        drop(queue);
        self.changed.notify_all();
    }

    fn failed(&self, error: &Error) {
        let mut queue = self.lock();
        queue.is_failing = true;
        queue.failure = error.to_string();
        drop(queue);
        self.changed.notify_all();
    }

    /// Waits before the next try; ends early when the store is shut.
    fn pause(&self, pause: Duration) {
        let waited = self.changed.wait_timeout_while(self.lock(), pause, |queue| !queue.is_shut);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

fn run(store: &Store, desk: &Desk) {
    let mut pause = RETRY_FIRST;
    // What was built of the first buffer and is not committed yet.
    let mut built = None;
    while let Some(sealed) = desk.first() {
        let published = catch_unwind(AssertUnwindSafe(|| publish(store, &sealed, &mut built)))
            .unwrap_or_else(|_| Err(Error::Build("the index library panicked".to_owned())));
        match published {
            Ok(()) => {
                built = None;
                pause = RETRY_FIRST;
                desk.published();
            }
            Err(error) => {
                store.signals.work_failed(Work::Build, &error);
                desk.failed(&error);
                desk.pause(pause);
                pause = (pause * 2).min(RETRY_MAX);
            }
        }
    }
}

/// Builds a split of each stream, commits them with their checkpoint, then shows them in the buffer's place.
///
/// When the commit fails, nobody knows whether the disk has it: what was built stays in `built`, and the next try commits
/// the same splits again, which changes nothing if they were committed. When there is none, the next start tells.
fn publish(store: &Store, sealed: &Arc<Sealed>, built: &mut Option<Vec<Arc<Split>>>) -> Result<(), Error> {
    let splits = match built {
        Some(splits) => splits,
        None => built.insert(build(store, sealed)?),
    };
    let rows: Vec<&SplitRow> = splits.iter().map(|split| &split.row).collect();
    store.catalogue.publish(&rows, sealed.position, sealed.sequence_next)?;
    store.live.publish(sealed, splits.clone());
    store.count_splits();
    Ok(())
}

/// Builds a split of each stream; nothing is left of them when one fails.
fn build(store: &Store, sealed: &Arc<Sealed>) -> Result<Vec<Arc<Split>>, Error> {
    let missing_bytes = store.missing_bytes();
    if missing_bytes > 0 {
        let wanted_bytes = store.config.disk_free_bytes_min;
        let path = store.config.directory.clone();
        return Err(Error::DiskFull { path, free_bytes: wanted_bytes - missing_bytes, wanted_bytes });
    }
    let mut streams: [Vec<(&Stub, &[u8])>; Stream::ALL.len()] = std::array::from_fn(|_| Vec::new());
    let mut kinds = [0; RecordKind::ALL.len()];
    for (stub, bytes) in sealed.batches.iter().flat_map(|batch| batch.records.iter()) {
        streams[stub.stream as usize].push((stub, bytes));
        kinds[stub.kind as usize] += 1;
    }
    let started = Instant::now();
    let wanted: Vec<_> = Stream::ALL.iter().zip(streams).filter(|(_, records)| !records.is_empty()).collect();
    let ids: Vec<u64> = wanted.iter().map(|_| store.next_id()).collect();
    let mut splits = Vec::new();
    for ((stream, records), id) in wanted.into_iter().zip(&ids) {
        let row = SplitRow {
            published_with: ids.clone(),
            ..SplitRow::new(*id, *stream, sealed.position, sealed.sequence_next)
        };
        let made = store.make_split(*id, |path| {
            Split::build_packed(path, row, records.into_iter(), &store.config, &store.fields)
        });
        match made {
            Ok(split) => splits.push(Arc::new(split)),
            Err(error) => {
                store.delete(&splits);
                return Err(error);
            }
        }
    }
    if !splits.is_empty() {
        store.signals.split_built(started.elapsed(), &kinds);
    }
    Ok(splits)
}
