//! The housekeeper: a thread that merges small neighbouring splits and drops splits that are too old or too many.
//!
//! Merging and dropping are one thread's work, so a split is never dropped while it is being merged. Retention
//! drops whole splits; it never rewrites one.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::error::Error;
use crate::signals::{DropReason, Work};
use crate::split::Split;
use crate::store::Store;

#[derive(Debug, Default)]
struct Due {
    unix_millis: Option<i64>,
    is_shut: bool,
}

#[derive(Debug, Default)]
struct Desk {
    due: Mutex<Due>,
    changed: Condvar,
}

/// The intake's end of the housekeeper. Dropping it lets the thread finish the merge in hand.
#[derive(Debug)]
pub(crate) struct Housekeeper {
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
}

impl Housekeeper {
    pub(crate) fn start(store: Arc<Store>) -> Result<Self, Error> {
        let desk = Arc::<Desk>::default();
        let path = store.config.directory.clone();
        let own_desk = Arc::clone(&desk);
        let thread = std::thread::Builder::new()
            .name("events-keep".to_owned())
            .spawn(move || {
                while let Some(unix_millis) = own_desk.next() {
                    let kept = catch_unwind(AssertUnwindSafe(|| keep(&store, unix_millis)));
                    if kept.is_err() {
                        let error = Error::Build("the index library panicked".to_owned());
                        store.signals.work_failed(Work::Merge, &error);
                    }
                }
            })
            .map_err(|source| Error::disk("start a thread for", path, source))?;
        Ok(Self { desk, thread: Some(thread) })
    }

    /// Asks for a round; a round that is asked for while another runs comes after it.
    pub(crate) fn ask(&self, unix_millis: i64) {
        self.desk.lock().unix_millis = Some(unix_millis);
        self.desk.changed.notify_all();
    }
}

impl Drop for Housekeeper {
    fn drop(&mut self) {
        self.desk.lock().is_shut = true;
        self.desk.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<i64> {
        let is_idle = |due: &mut Due| due.unix_millis.is_none() && !due.is_shut;
        let mut due = self.changed.wait_while(self.lock(), is_idle).unwrap_or_else(PoisonError::into_inner);
        if due.is_shut { None } else { due.unix_millis.take() }
    }
}

/// One round: what is too old or too much goes, then small neighbours are merged until none are left.
pub(crate) fn keep(store: &Store, unix_millis: i64) {
    let now_nanos = u64::try_from(unix_millis).unwrap_or(0).saturating_mul(1_000_000);
    drop_old(store, now_nanos);
    drop_excess(store);
    while let Some(group) = mergeable(store) {
        if let Err(error) = merge(store, &group) {
            store.signals.work_failed(Work::Merge, &error);
            // A damaged part is out of the next choice; anything else is tried again in the next round.
            match error {
                Error::Damaged { split, .. } if group.iter().any(|part| part.row.id == split) => {
                    for part in group.iter().filter(|part| part.row.id == split) {
                        store.found_damaged(part, &error);
                    }
                }
                _ => return,
            }
        }
    }
}

fn drop_old(store: &Store, now_nanos: u64) {
    let retention = u64::try_from(store.config.retention.as_nanos()).unwrap_or(u64::MAX);
    let oldest = now_nanos.saturating_sub(retention);
    let old = store.live.splits().into_iter().filter(|split| split.row.to_nanos < oldest).collect();
    drop_splits(store, DropReason::Retention, old);
}

/// Drops the oldest splits until number and bytes are within their bounds.
fn drop_excess(store: &Store) {
    let mut splits = store.live.splits();
    splits.sort_by_key(|split| split.row.to_nanos);
    let mut bytes: u64 = splits.iter().map(|split| split.row.bytes()).sum();
    let mut count = splits.len();
    let mut excess = Vec::new();
    for split in splits {
        if bytes <= store.config.disk_bytes_max && count <= store.config.splits_max {
            break;
        }
        bytes -= split.row.bytes();
        count -= 1;
        excess.push(split);
    }
    drop_splits(store, DropReason::DiskBound, excess);
}

fn drop_splits(store: &Store, why: DropReason, splits: Vec<Arc<Split>>) {
    if splits.is_empty() {
        return;
    }
    let ids: Vec<u64> = splits.iter().map(|split| split.row.id).collect();
    if let Err(error) = store.catalogue.forget(&ids) {
        store.signals.work_failed(Work::Merge, &error);
        return;
    }
    store.live.replace(&ids, None);
    store.open.forget(&ids);
    store.delete(&splits);
    store.signals.splits_dropped(why, splits.len(), splits.iter().map(|split| split.row.records).sum());
    store.count_splits();
}

/// The oldest run of neighbours of one level that is long enough to merge.
fn mergeable(store: &Store) -> Option<Vec<Arc<Split>>> {
    let mut splits: Vec<Arc<Split>> =
        store.live.splits().into_iter().filter(|split| !split.is_damaged()).collect();
    splits.sort_by_key(|split| (split.row.from_nanos, split.row.id));
    let span_max = u64::try_from(store.config.merged_span_max.as_nanos()).unwrap_or(u64::MAX);
    let mut group: Vec<Arc<Split>> = Vec::new();
    for split in splits {
        let records: u64 = group.iter().map(|part| part.row.records).sum();
        let first = group.first().map_or(split.row.from_nanos, |first| first.row.from_nanos);
        let last = group.iter().map(|part| part.row.to_nanos).max().unwrap_or(0).max(split.row.to_nanos);
        let fits = group.first().is_none_or(|first| first.row.level == split.row.level)
            && records + split.row.records <= store.config.merged_records_max
            && last.saturating_sub(first) <= span_max;
        if !fits {
            group.clear();
        }
        group.push(split);
        if group.len() >= store.config.merge_splits {
            return Some(group);
        }
    }
    None
}

fn merge(store: &Store, parts: &[Arc<Split>]) -> Result<(), Error> {
    let started = Instant::now();
    let merged =
        store.make_split(|id, directory| Split::merge(id, directory, parts, &store.config, &store.fields))?;
    let ids: Vec<u64> = parts.iter().map(|part| part.row.id).collect();
    store.catalogue.replace(&merged.row, &ids)?;
    store.live.replace(&ids, Some(Arc::new(merged)));
    store.open.forget(&ids);
    store.delete(parts);
    store.signals.splits_merged(started.elapsed());
    store.count_splits();
    Ok(())
}
