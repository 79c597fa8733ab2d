//! The thread that writes the journal: everything that waits goes to the kernel in one write, and then all who
//! wait are told.
//!
//! A thread of its own, because a write to a full disk blocks for as long as it likes, and whoever decides about
//! calls must not wait for it.

use std::sync::{Arc, PoisonError};

use tokio::sync::oneshot;

use super::file::{Record, encode};
use super::table::{Packed, key_of, unpack};
use super::{Held, Shared};
use crate::error::Error;

/// Changes that stand in the table and not yet in the journal.
#[derive(Default)]
pub(super) struct Pending {
    records: Vec<u8>,
    undo: Vec<Undo>,
    waiting: Vec<oneshot::Sender<Result<(), Error>>>,
}

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
    pub(super) fn note(&mut self, address: &str, before: Option<Packed>, after: Option<Packed>) {
        let record = match (&before, &after) {
            (_, Some(packed)) => Record::Put { address, packed },
            (Some(packed), None) => Record::Remove { address, key: key_of(packed) },
            (None, None) => return,
        };
        // Only records of 4 GiB cannot be framed, and bindings are bounded far below.
        if encode(&record, &mut self.records).is_ok() {
            self.undo.push(Undo { address: address.into(), before, after });
        }
    }

    /// Tells when all that was noted until now is written.
    pub(super) fn wait(&mut self) -> oneshot::Receiver<Result<(), Error>> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.push(sender);
        receiver
    }
}

/// Writes until the last handle is gone and nothing waits any more.
pub(super) fn write(shared: &Shared) {
    loop {
        let is_closing = {
            let held = shared.held();
            let is_idle = |held: &mut Held| held.pending.waiting.is_empty() && held.pending.undo.is_empty();
            let waited = shared.wake.wait_while(held, |held| is_idle(held) && !held.is_closing);
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
    let pending = std::mem::take(&mut shared.held().pending);
    let written = if pending.records.is_empty() { Ok(()) } else { files.append(&pending.records) };
    drop(files);
    shared.signals.journal_written(written.is_ok(), pending.undo.len());
    if written.is_err() {
        take_back(&mut shared.held(), &pending.undo);
    }
    for waiting in pending.waiting {
        // Whoever gave up waiting does not need to know.
        let _ = waiting.send(written.clone());
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
            Some((binding, before)) => drop(held.table.put(address, &binding, Arc::clone(before))),
            None => drop(held.table.remove(address, &key)),
        }
    }
}
