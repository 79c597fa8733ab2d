//! The thread that writes the journal: everything that waits goes to the kernel in one write, and then all who
//! wait are told.
//!
//! A thread of its own, because a write to a full disk blocks for as long as it likes, and whoever decides about
//! calls must not wait for it.

use std::pin::pin;
use std::sync::{Arc, OnceLock, PoisonError};

use tokio::sync::Notify;

use super::file::{Record, encode};
use super::table::{Packed, key_of, unpack};
use super::{Held, Shared};
use crate::error::Error;

/// Changes that stand in the table and not yet in the journal.
#[derive(Default)]
pub(super) struct Pending {
    records: Vec<u8>,
    undo: Vec<Undo>,
    /// What whoever waits for these changes is told; none when nobody does.
    promise: Option<Promise>,
    /// The number of the write that will take them.
    number: u64,
}

/// Changes that go to the kernel in one write, and what became of them.
#[derive(Debug)]
pub(super) struct Batch {
    number: u64,
    written: OnceLock<Result<(), Error>>,
    told: Notify,
}

/// The journal's side of a batch: dropped without an outcome, it says that state is closed.
struct Promise(Arc<Batch>);

/// How to take one change back.
struct Undo {
    address: Arc<str>,
    before: Option<Packed>,
    after: Option<Packed>,
}

impl Pending {
    /// How many changes wait.
    pub(super) fn len(&self) -> usize {
        self.undo.len()
    }

    /// Notes a change that stands in the table now.
    pub(super) fn note(&mut self, address: Arc<str>, before: Option<Packed>, after: Option<Packed>) {
        let record = match (&before, &after) {
            (_, Some(packed)) => Record::Put { address: &address, packed },
            (Some(packed), None) => Record::Remove { address: &address, key: key_of(packed) },
            (None, None) => return,
        };
        // Only records of 4 GiB cannot be framed, and bindings are bounded far below.
        if encode(&record, &mut self.records).is_ok() {
            self.undo.push(Undo { address, before, after });
        }
    }

    /// Tells when all that was noted until now is written.
    pub(super) fn wait(&mut self) -> Arc<Batch> {
        let number = self.number;
        let promise = self.promise.get_or_insert_with(|| Promise(Arc::new(Batch::new(number))));
        Arc::clone(&promise.0)
    }

    /// Takes what is to be written now; what comes next is of the next write.
    fn take(&mut self) -> Self {
        let next = Self { number: self.number + 1, ..Self::default() };
        std::mem::replace(self, next)
    }

    fn is_empty(&self) -> bool {
        self.undo.is_empty() && self.promise.is_none()
    }
}

impl Batch {
    fn new(number: u64) -> Self {
        Self { number, written: OnceLock::new(), told: Notify::new() }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Waits until it is known what became of the write.
    pub(super) async fn outcome(&self) -> Result<(), Error> {
        loop {
            let mut told = pin!(self.told.notified());
            // From here on nothing is missed.
            told.as_mut().enable();
            if let Some(written) = self.written.get() {
                return written.clone();
            }
            told.await;
        }
    }
}

impl Promise {
    fn keep(&self, written: Result<(), Error>) {
        // The first word counts.
        let _ = self.0.written.set(written);
        self.0.told.notify_waiters();
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.keep(Err(Error::Closed));
    }
}

/// Writes until the last handle is gone and nothing waits any more.
pub(super) fn write(shared: &Shared) {
    loop {
        let is_closing = {
            let held = shared.held();
            let is_idle = |held: &mut Held| held.pending.is_empty() && !held.is_closing;
            let waited = shared.wake.wait_while(held, is_idle);
            waited.unwrap_or_else(PoisonError::into_inner).is_closing
        };
        write_pending(shared);
        if is_closing {
            return;
        }
    }
}

/// Writes what waits now.
fn write_pending(shared: &Shared) {
    let mut files = shared.files();
    let (pending, bindings) = {
        let mut held = shared.held();
        (held.pending.take(), held.table.len())
    };
    let written = if pending.records.is_empty() { Ok(()) } else { files.append(&pending.records) };
    drop(files);
    shared.signals.bindings_changed(bindings);
    shared.signals.journal_written(written.is_ok(), pending.undo.len());
    if written.is_err() {
        take_back(&mut shared.held(), &pending.undo);
    }
    if let Some(promise) = &pending.promise {
        promise.keep(written);
    }
}

/// What could not be written must not be there, as far as nobody changed it since.
fn take_back(held: &mut Held, undo: &[Undo]) {
    for Undo { address, before, after } in undo.iter().rev() {
        let key = after.as_deref().or(before.as_deref()).map_or("", key_of);
        let present = held.table.packed(address, key);
        let is_as_left = match (present, after) {
            (Some(present), Some(after)) => Arc::ptr_eq(present, after),
            (None, None) => true,
            _ => false,
        };
        if !is_as_left {
            continue;
        }
        let key = key.to_owned();
        match before.as_ref().and_then(|before| unpack(before).map(|binding| (binding, before))) {
            Some((binding, before)) => {
                drop(held.table.put(Arc::clone(address), &binding, Arc::clone(before)));
            }
            None => drop(held.table.remove(address, &key)),
        }
    }
}
