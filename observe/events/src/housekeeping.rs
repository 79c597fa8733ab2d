//! The housekeeper: a thread that merges small neighbouring splits, thins out good calls, and drops splits that are too
//! old or too many.
//!
//! All of it is one thread's work, so a split is never dropped while it is being merged. What is to be kept, `keeping`
//! says.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use belfry_signal::Record;
use belfry_signal::record::Body;

use crate::catalogue::SplitRow;
use crate::config::WhenDiskFull;
use crate::error::Error;
use crate::facts::{RecordKind, Stream};
use crate::keeping::Outcomes;
use crate::query::Expr;
use crate::signals::{DropReason, Work};
use crate::split::Split;
use crate::store::Store;

/// No call is longer: its summary is looked for so long after its records.
const CALL_LONGEST: Duration = Duration::from_hours(12);

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
                let is_stopped = || own_desk.lock().is_shut;
                while let Some(unix_millis) = own_desk.next() {
                    let kept = catch_unwind(AssertUnwindSafe(|| keep(&store, unix_millis, &is_stopped)));
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

/// One round: what is too old or too much goes, good calls are thinned out when their time has come, then small
/// neighbours are merged until none are left. Between two pieces of work it ends when `is_stopped` says so.
pub(crate) fn keep(store: &Store, unix_millis: i64, is_stopped: &dyn Fn() -> bool) {
    let now_nanos = u64::try_from(unix_millis).unwrap_or(0).saturating_mul(1_000_000);
    drop_old(store, now_nanos);
    drop_excess(store);
    drop_for_room(store);
    thin_out(store, now_nanos, is_stopped);
    for stream in Stream::ALL {
        merge_all(store, *stream, is_stopped);
    }
}

/// Whether splits may be written anew now: each is there twice for a while, for which a full disk has no room.
fn may_rewrite(store: &Store, is_stopped: &dyn Fn() -> bool) -> bool {
    !is_stopped() && store.missing_bytes() == 0
}

fn merge_all(store: &Store, stream: Stream, is_stopped: &dyn Fn() -> bool) {
    while may_rewrite(store, is_stopped)
        && let Some(group) = mergeable(store, stream)
    {
        if let Err(error) = merge(store, &group) {
            store.signals.work_failed(Work::Merge, &error);
            // A damaged part is out of the next choice; anything else is tried again in the next round.
            if !found_damaged(store, &group, &error) {
                return;
            }
        }
    }
}

/// Whether the error is the damage of one of the splits, which is then left out from now on.
fn found_damaged(store: &Store, splits: &[Arc<Split>], error: &Error) -> bool {
    let Error::Damaged { split, .. } = error else { return false };
    let damaged = splits.iter().find(|part| part.row.id == *split);
    damaged.is_some_and(|part| {
        store.found_damaged(part, error);
        true
    })
}

fn drop_old(store: &Store, now_nanos: u64) {
    let keep = &store.config.keep;
    let is_old = |split: &Split| {
        let retention = keep.retention(split.row.stream, store.config.retention);
        let oldest = now_nanos.saturating_sub(u64::try_from(retention.as_nanos()).unwrap_or(u64::MAX));
        split.row.aged_from_nanos() < oldest && !keep.is_held(&split.row)
    };
    let old = store.live.splits().into_iter().filter(|split| is_old(split)).collect();
    drop_splits(store, DropReason::Retention, old);
}

/// The splits that may go, oldest first.
fn free_to_go(store: &Store) -> Vec<Arc<Split>> {
    let mut splits = store.live.splits();
    splits.retain(|split| !store.config.keep.is_held(&split.row));
    splits.sort_by_key(|split| split.row.aged_from_nanos());
    splits
}

/// Drops the oldest splits until number and bytes are within their bounds.
fn drop_excess(store: &Store) {
    let splits = store.live.splits();
    let mut bytes: u64 = splits.iter().map(|split| split.row.bytes).sum();
    let mut count = splits.len();
    let mut excess = Vec::new();
    for split in free_to_go(store) {
        if bytes <= store.config.disk_bytes_max && count <= store.config.splits_max {
            break;
        }
        bytes -= split.row.bytes;
        count -= 1;
        excess.push(split);
    }
    drop_splits(store, DropReason::DiskBound, excess);
}

/// Drops the oldest splits until as much of the disk is free as must be, if the operator wants that.
fn drop_for_room(store: &Store) {
    if store.config.when_disk_full != WhenDiskFull::DropOldest {
        return;
    }
    let mut missing_bytes = store.missing_bytes();
    let mut dropped = Vec::new();
    for split in free_to_go(store) {
        if missing_bytes == 0 {
            break;
        }
        missing_bytes = missing_bytes.saturating_sub(split.row.bytes);
        dropped.push(split);
    }
    drop_splits(store, DropReason::DiskFull, dropped);
}

/// Thins out one split, the oldest in the list that can be: a round must not keep retention waiting for long.
fn thin_out(store: &Store, now_nanos: u64, is_stopped: &dyn Fn() -> bool) {
    for split in store.live.splits() {
        if split.is_damaged() || !store.config.keep.is_to_be_thinned(&split.row, now_nanos) {
            continue;
        }
        if !may_rewrite(store, is_stopped) {
            return;
        }
        match thin(store, &split) {
            Ok(()) => return,
            Err(error) => {
                store.signals.work_failed(Work::Thin, &error);
                found_damaged(store, std::slice::from_ref(&split), &error);
            }
        }
    }
}

/// Writes a split of calls anew, without what good calls leave.
fn thin(store: &Store, split: &Arc<Split>) -> Result<(), Error> {
    store.settle()?;
    let started = Instant::now();
    let keep = &store.config.keep;
    let mut outcomes = Outcomes::default();
    split.each_record(|_, record| {
        outcomes.meet(&record);
        Ok(())
    })?;
    // A summary is as old as the end of its call.
    let longest = u64::try_from(CALL_LONGEST.as_nanos()).unwrap_or(u64::MAX);
    let (from_nanos, to_nanos) = (split.row.from_nanos, split.row.to_nanos.saturating_add(longest));
    let expr = Expr::Kind(vec![RecordKind::Call]);
    for other in store.live.splits() {
        let row = &other.row;
        let may_know =
            row.stream == Stream::Calls && row.to_nanos >= from_nanos && row.from_nanos <= to_nanos;
        if !may_know || other.is_damaged() {
            continue;
        }
        let text_bytes_max = store.config.record_text_bytes_max;
        let read = other.each_match(&store.open, &store.fields, &expr, text_bytes_max, |record| {
            if let Body::Call(call) = &record.body {
                outcomes.ended(call, keep);
            }
        });
        // Out of the next try, in which its calls are of unknown outcome, and stay.
        read.inspect_err(|error| {
            found_damaged(store, std::slice::from_ref(&other), error);
        })?;
    }
    let id = store.next_id();
    let row = SplitRow {
        is_thinned: true,
        level: split.row.level,
        ..SplitRow::of_parts(id, std::iter::once(&split.row))
    };
    let thinned = store.make_split(id, |path| {
        let is_wanted = |record: &Record| outcomes.keeps(record, keep);
        split.filtered(path, row, &store.config, &store.fields, is_wanted)
    })?;
    let dropped = split.row.records.saturating_sub(thinned.row.records);
    let thinned = Arc::new(thinned);
    if thinned.row.records == 0 {
        store.delete(std::slice::from_ref(&thinned));
        store.catalogue.forget(&[split.row.id])?;
        store.live.replace(&[split.row.id], None);
    } else {
        store.put_in_place(&thinned, std::slice::from_ref(split))?;
        store.live.replace(&[split.row.id], Some(thinned));
    }
    store.delete(std::slice::from_ref(split));
    store.open.forget(&[split.row.id]);
    store.signals.split_thinned(started.elapsed(), dropped);
    store.count_splits();
    Ok(())
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
    store.delete(&splits);
    store.open.forget(&ids);
    store.signals.splits_dropped(why, splits.len(), splits.iter().map(|split| split.row.records).sum());
    store.count_splits();
}

/// The oldest run of neighbours of one level that is long enough to merge.
fn mergeable(store: &Store, stream: Stream) -> Option<Vec<Arc<Split>>> {
    let mut splits = store.live.splits();
    splits.retain(|split| split.row.stream == stream && !split.is_damaged());
    splits.sort_by_key(|split| (split.row.aged_from_nanos(), split.row.id));
    let span_max = u64::try_from(store.config.merged_span_max(stream).as_nanos()).unwrap_or(u64::MAX);
    let mut group: Vec<Arc<Split>> = Vec::new();
    for split in splits {
        let records: u64 = group.iter().map(|part| part.row.records).sum();
        let first = group.iter().map(|part| part.row.aged_from_nanos()).min();
        let aged_from = split.row.aged_from_nanos();
        let span = first.map_or(0, |first| aged_from.saturating_sub(first));
        let fits = group.first().is_none_or(|first| {
            first.row.level == split.row.level && first.row.is_thinned == split.row.is_thinned
        }) && records + split.row.records <= store.config.merged_records_max
            && span <= span_max;
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
    store.settle()?;
    let started = Instant::now();
    let id = store.next_id();
    let merged = store.make_split(id, |path| Split::merge(id, path, parts, &store.config, &store.fields))?;
    let merged = Arc::new(merged);
    let ids: Vec<u64> = parts.iter().map(|part| part.row.id).collect();
    store.put_in_place(&merged, parts)?;
    store.live.replace(&ids, Some(merged));
    store.delete(parts);
    store.open.forget(&ids);
    store.signals.splits_merged(started.elapsed());
    store.count_splits();
    Ok(())
}
