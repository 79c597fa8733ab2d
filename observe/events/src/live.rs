//! What readers see: the filling buffer, the buffers on their way into splits, and the splits, always together.
//!
//! One lock covers all three, so a record moves from a buffer into a split in one step for every reader: it is
//! never missing and never there twice. The lock is held for pointer copies only.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::blocks::Packed;
use crate::split::Split;

/// Records that came together, packed: they wait for half a minute, and what was allocated for them in pieces is better
/// used again by whoever made them.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) records: Packed,
}

/// A full buffer on its way into a split.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) batches: Vec<Arc<Batch>>,
    /// WAL position up to which everything is in this buffer or in those before.
    pub(crate) position: u64,
    pub(crate) sequence_next: u64,
}

#[derive(Debug, Default)]
struct State {
    filling: Vec<Arc<Batch>>,
    sealed: Vec<Arc<Sealed>>,
    splits: Vec<Arc<Split>>,
}

/// The shared state of the store.
#[derive(Debug, Default)]
pub(crate) struct Live {
    state: RwLock<State>,
}

/// What was there at one moment.
#[derive(Debug)]
pub(crate) struct Snapshot {
    /// Live records, in order of arrival.
    pub(crate) batches: Vec<Arc<Batch>>,
    pub(crate) splits: Vec<Arc<Split>>,
}

impl Live {
    pub(crate) fn new(splits: Vec<Arc<Split>>) -> Self {
        Self { state: RwLock::new(State { splits, ..State::default() }) }
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, batch: Batch) {
        self.write().filling.push(Arc::new(batch));
    }

    /// Takes the filling buffer off as a sealed one.
    pub(crate) fn seal(&self, position: u64, sequence_next: u64) -> Arc<Sealed> {
        let mut state = self.write();
        let batches = std::mem::take(&mut state.filling);
        let sealed = Arc::new(Sealed { batches, position, sequence_next });
        state.sealed.push(Arc::clone(&sealed));
        sealed
    }

    /// Puts splits in the place of the sealed buffer that they were built from.
    pub(crate) fn publish(&self, sealed: &Arc<Sealed>, splits: Vec<Arc<Split>>) {
        let mut state = self.write();
        state.sealed.retain(|other| !Arc::ptr_eq(other, sealed));
        state.splits.extend(splits);
    }

    /// Drops splits and, after a merge, adds the one that replaces them.
    pub(crate) fn replace(&self, dropped: &[u64], merged: Option<Arc<Split>>) {
        let mut state = self.write();
        state.splits.retain(|split| !dropped.contains(&split.row.id));
        state.splits.extend(merged);
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let state = self.read();
        let sealed = state.sealed.iter().flat_map(|sealed| &sealed.batches);
        let batches = sealed.chain(&state.filling).cloned().collect();
        Snapshot { batches, splits: state.splits.clone() }
    }

    pub(crate) fn splits(&self) -> Vec<Arc<Split>> {
        self.read().splits.clone()
    }

    pub(crate) fn live_records(&self) -> usize {
        let state = self.read();
        let sealed = state.sealed.iter().flat_map(|sealed| &sealed.batches);
        sealed.chain(&state.filling).map(|batch| batch.records.len()).sum()
    }

    /// Numbers of sound and damaged splits, and their bytes.
    pub(crate) fn split_counts(&self) -> (usize, usize, u64) {
        let state = self.read();
        let damaged = state.splits.iter().filter(|split| split.is_damaged()).count();
        let bytes = state.splits.iter().map(|split| split.row.bytes).sum();
        (state.splits.len() - damaged, damaged, bytes)
    }
}
