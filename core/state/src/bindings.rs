//! Where subscribers are: address of record to contacts, in memory, bounded, found again after a crash.
//!
//! Every change is written to a journal before it is acknowledged (to the kernel, not to the platter: it survives
//! the death of the process, and a machine that dies takes its flows with it). The journal is folded into a
//! snapshot from time to time. What a registration may do to a binding is RFC 3261 section 10.3 and lives in signalling.

mod file;
mod table;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use belfry_signal::{Pii, Region};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::error::Error;
use crate::signals::Signals;
use file::{Change, Files};
use table::Table;

/// One contact of an address of record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Binding {
    /// What makes it the same binding when it is refreshed: instance and reg-id (RFC 5626), or the contact URI.
    pub key: String,
    /// The contact URI as registered.
    pub contact: Pii<String>,
    /// Preference in thousandths.
    pub q_thousandths: u16,
    /// When it runs out, in nanoseconds since the Unix epoch.
    pub expires_unix_nanos: u64,
    /// The Path values to it, top first (RFC 3327).
    pub path: Vec<String>,
    /// The edge's token of the flow that it registered on.
    pub flow: Option<String>,
    /// The transport of that flow, as `wss`.
    pub transport: String,
    /// Where the registration came from.
    pub source: Pii<SocketAddr>,
    /// The Call-ID of the registration.
    pub call_id: Pii<String>,
    /// The CSeq of the registration.
    pub cseq: u32,
    /// `+sip.instance`, when given.
    pub instance: Option<String>,
    /// `reg-id`, when given.
    pub reg_id: Option<u32>,
    /// The User-Agent, when given.
    pub user_agent: Option<String>,
    /// The region of the peer.
    pub region: Region,
    /// The country of the peer, when known.
    pub country: Option<String>,
}

/// A binding that is gone, with its address of record.
#[derive(Clone, Debug, PartialEq)]
pub struct Expired {
    /// The address of record.
    pub address: Pii<String>,
    /// What it was.
    pub binding: Arc<Binding>,
}

/// The location store. Cheap to clone; every call is short.
#[derive(Clone)]
pub struct Bindings {
    shared: Arc<Shared>,
}

struct Shared {
    signals: Signals,
    held: Mutex<Held>,
    /// Held for as long as a snapshot is written: two at a time would write into one file.
    folding: Mutex<()>,
}

struct Held {
    table: Table,
    files: Files,
}

impl Bindings {
    /// Reads snapshot and journal, and starts a new journal.
    pub(crate) fn open(config: &Config, signals: Signals, now_unix_nanos: u64) -> Result<Self, Error> {
        let mut table = Table::new(config.bindings_max, config.bindings_per_address_max);
        let files = Files::open(&config.directory, &signals, |change| apply(&mut table, change))?;
        table.expire(now_unix_nanos);
        signals.bindings_changed(table.len());
        let held = Held { table, files };
        Ok(Self { shared: Arc::new(Shared { signals, held: Mutex::new(held), folding: Mutex::default() }) })
    }

    /// Adds a binding, or replaces the one with the same key.
    ///
    /// # Errors
    /// [`Error::BindingsFull`] or [`Error::AddressFull`] when a bound is reached; [`Error::File`] when the journal
    /// could not be written, and then the binding is not there.
    pub fn put(&self, address: &str, binding: Binding) -> Result<(), Error> {
        let mut held = self.held();
        let room = held.table.room_for(address, &binding.key);
        if let Err(error) = room {
            self.shared.signals.binding_refused(&error);
            return Err(error);
        }
        let change = Change::Put { address: address.to_owned(), binding: Arc::new(binding) };
        self.keep(&mut held, change)
    }

    /// Removes one binding; whether it was there.
    ///
    /// # Errors
    /// [`Error::File`] when the journal could not be written, and then the binding is still there.
    pub fn remove(&self, address: &str, key: &str) -> Result<bool, Error> {
        let mut held = self.held();
        if !held.table.contains(address, key) {
            return Ok(false);
        }
        let change = Change::Remove { address: address.to_owned(), key: key.to_owned() };
        self.keep(&mut held, change).map(|()| true)
    }

    /// Removes every binding of an address of record (`Contact: *`); how many there were.
    ///
    /// # Errors
    /// As [`remove`](Self::remove).
    pub fn remove_all(&self, address: &str) -> Result<usize, Error> {
        let mut held = self.held();
        let keys: Vec<String> = held.table.get(address).iter().map(|binding| binding.key.clone()).collect();
        for key in &keys {
            self.keep(&mut held, Change::Remove { address: address.to_owned(), key: key.clone() })?;
        }
        Ok(keys.len())
    }

    /// The bindings that have not run out, the most wanted first, then the youngest.
    #[must_use]
    pub fn get(&self, address: &str, now_unix_nanos: u64) -> Vec<Arc<Binding>> {
        let mut found: Vec<_> = self.held().table.get(address).to_vec();
        found.retain(|binding| binding.expires_unix_nanos > now_unix_nanos);
        found.sort_by_key(|binding| std::cmp::Reverse((binding.q_thousandths, binding.expires_unix_nanos)));
        found
    }

    /// Removes what has run out.
    pub fn expire(&self, now_unix_nanos: u64) -> Vec<Expired> {
        let mut held = self.held();
        // Not journalled: what has run out is as dead after a start as before.
        let expired = held.table.expire(now_unix_nanos);
        self.shared.signals.bindings_expired(expired.len());
        self.shared.signals.bindings_changed(held.table.len());
        expired
    }

    /// Removes the bindings of a flow that is gone (RFC 5626 section 5.3).
    pub fn flow_closed(&self, flow: &str) -> Vec<Expired> {
        let mut held = self.held();
        let gone = held.table.of_flow(flow);
        for (address, binding) in &gone {
            let change = Change::Remove { address: address.clone(), key: binding.key.clone() };
            if self.keep(&mut held, change).is_err() {
                // The flow is dead whatever the disk says; after a start the edge will say so again.
                held.table.remove(address, &binding.key);
            }
        }
        self.shared.signals.bindings_changed(held.table.len());
        gone.into_iter().map(|(address, binding)| Expired { address: address.into(), binding }).collect()
    }

    /// How many bindings are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held().table.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Folds the journal into a snapshot, if anything changed. Blocks on the disk: not for an async thread.
    ///
    /// # Errors
    /// [`Error::File`]; the journal then still holds everything.
    pub(crate) fn snapshot(&self) -> Result<(), Error> {
        let _folding = self.shared.folding.lock().unwrap_or_else(PoisonError::into_inner);
        let fold = {
            let mut held = self.held();
            let entries = held.table.entries();
            held.files.begin_fold(entries)?
        };
        let Some(fold) = fold else { return Ok(()) };
        let result = fold.finish();
        if result.is_err() {
            self.held().files.not_folded();
        }
        self.shared.signals.snapshot_ended(result.as_ref().copied());
        result
    }

    fn keep(&self, held: &mut Held, change: Change) -> Result<(), Error> {
        let written = held.files.append(&change);
        self.shared.signals.journal_written(written.is_ok());
        written?;
        apply(&mut held.table, change);
        self.shared.signals.bindings_changed(held.table.len());
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        // A panic while holding the lock leaves a table that is whole: every change is applied in one step.
        self.shared.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Bindings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bindings").field("len", &self.len()).finish()
    }
}

fn apply(table: &mut Table, change: Change) {
    match change {
        Change::Put { address, binding } => table.put(&address, binding),
        Change::Remove { address, key } => {
            table.remove(&address, &key);
        }
    }
}

/// The folder that holds the files, made when it is missing.
pub(crate) fn prepare(directory: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(directory).map_err(Error::file("make the folder", directory))
}

#[cfg(test)]
mod tests;
