//! Where subscribers are: address of record to contacts, in memory, bounded, found again after a crash.
//!
//! A change stands in the table at once; who asked for it is told when the journal has it (in the kernel, not on the
//! platter: it survives the death of the process, and a machine that dies takes its flows with it). A thread of its
//! own writes the journal, many changes at a time, so that nobody who decides about calls waits for a disk; what it
//! could not write is taken back. The journal is folded into a snapshot from time to time. What a registration may do
//! to a binding is RFC 3261 section 10.3 and lives in signalling.

mod file;
mod journal;
mod table;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use belfry_signal::{Pii, Region};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::error::Error;
use crate::signals::Signals;
use file::{Files, Record};
use journal::{Batch, Pending};
pub use table::network_of;
use table::{Packed, Table, pack, unpack};

/// One contact of an address of record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Binding {
    /// What makes it the same binding when it is refreshed: instance and reg-id (RFC 5626), or the contact URI.
    /// It must stay the first field: the table reads it without the rest.
    pub key: String,
    /// The contact URI as registered.
    pub contact: Pii<String>,
    /// Preference in thousandths.
    pub q_thousandths: u16,
    /// When it runs out, in nanoseconds since the Unix epoch.
    pub expires_unix_nanos: u64,
    /// When it was registered or refreshed last, in nanoseconds since the Unix epoch.
    pub updated_unix_nanos: u64,
    /// Since when its registrations carry one Call-ID, in nanoseconds since the Unix epoch: temporary GRUUs of before
    /// are void (RFC 5627 section 3.1.2).
    pub epoch_unix_nanos: u64,
    /// The Path values to it, top first (RFC 3327).
    pub path: Vec<String>,
    /// The edge's token of the flow that it registered on.
    pub flow: Option<String>,
    /// The transport of that flow, as `wss`.
    pub transport: String,
    /// Where the registration came from.
    pub source: Pii<SocketAddr>,
    /// Whether it is behind a NAT that closes unless somebody speaks.
    pub wants_keepalive: bool,
    /// The Call-ID of the registration.
    pub call_id: Pii<String>,
    /// The CSeq of the registration.
    pub cseq: u32,
    /// `+sip.instance`, when given.
    pub instance: Option<String>,
    /// `reg-id`, when given and honoured.
    pub reg_id: Option<u32>,
    /// The User-Agent, when given.
    pub user_agent: Option<String>,
    /// The region of the peer.
    pub region: Region,
    /// The country of the peer, when known.
    pub country: Option<String>,
}

impl Binding {
    /// The larger, the sooner it is tried: the more wanted, then the one that was refreshed last.
    #[must_use]
    pub fn rank(&self) -> impl Ord + use<> {
        (self.q_thousandths, self.updated_unix_nanos, self.expires_unix_nanos)
    }
}

/// A binding that is gone, with its address of record.
#[derive(Clone, Debug, PartialEq)]
pub struct Expired {
    /// The address of record.
    pub address: Pii<String>,
    /// What it was.
    pub binding: Binding,
}

/// What is to become of one binding.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "it lives as long as one REGISTER, and most changes put")]
pub enum Change {
    /// It is added, or replaces the one with its key.
    Put(Binding),
    /// The one with this key is removed, if it is there.
    Remove(String),
}

/// A binding whose NAT wants to be kept open now.
#[derive(Clone, Debug, PartialEq)]
pub struct KeepAlive {
    /// Names it to [`Bindings::answered`].
    pub slot: u32,
    /// Where it is.
    pub binding: Binding,
}

/// One round of keep-alives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Round {
    /// Whom to speak to.
    pub due: Vec<KeepAlive>,
    /// Who answered once and does not any more; their bindings are removed.
    pub lost: Vec<Expired>,
}

/// Tells when changes are in the journal. The journal's thread is woken by whoever waits, so that changes that are made
/// one right after another go into one write.
#[must_use = "the changes go to the journal when somebody waits for it"]
pub struct Writing {
    batch: Arc<Batch>,
    shared: Arc<Shared>,
}

impl Writing {
    /// Names the write that takes the changes: those with one number are written together, and one that waits for it
    /// waits for all.
    #[must_use]
    pub fn batch(&self) -> u64 {
        self.batch.number()
    }

    /// Waits until the changes survive the death of this process.
    ///
    /// # Errors
    /// [`Error::File`] when the journal could not be written, and then the changes are taken back;
    /// [`Error::Closed`] when state closed meanwhile.
    pub async fn wait(self) -> Result<(), Error> {
        self.shared.wake.notify_one();
        self.batch.outcome().await
    }
}

impl std::fmt::Debug for Writing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Writing").field(&self.batch()).finish()
    }
}

/// The location store. Cheap to clone; every call is short.
#[derive(Clone)]
pub struct Bindings {
    shared: Arc<Shared>,
    /// Ends the journal's thread with the last handle.
    _writer: Arc<Writer>,
}

struct Shared {
    signals: Signals,
    /// Changes that may wait for the journal.
    waiting_max: usize,
    held: Mutex<Held>,
    /// Taken before `held`, never after it.
    files: Mutex<Files>,
    /// Something waits for the journal, or the end has come.
    wake: Condvar,
    /// Held for as long as a snapshot is written: two at a time would write into one file.
    folding: Mutex<()>,
}

struct Held {
    table: Table,
    pending: Pending,
    is_closing: bool,
}

struct Writer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Bindings {
    /// Reads snapshot and journal, and starts a new journal.
    pub(crate) fn open(config: &Config, signals: Signals, now_unix_nanos: u64) -> Result<Self, Error> {
        let mut table = Table::new(config.bindings_max, config.bindings_per_address_max);
        let files = Files::open(&config.directory, &signals, |record| apply(&mut table, record))?;
        table.expire(now_unix_nanos);
        signals.bindings_changed(table.len());
        let held = Held { table, pending: Pending::default(), is_closing: false };
        let shared = Arc::new(Shared {
            signals,
            waiting_max: config.writes_queue_max,
            held: Mutex::new(held),
            files: Mutex::new(files),
            wake: Condvar::new(),
            folding: Mutex::default(),
        });
        let of_thread = Arc::clone(&shared);
        let spawned = std::thread::Builder::new()
            .name("bindings-journal".to_owned())
            .spawn(move || journal::write(&of_thread));
        let thread = spawned.map_err(Error::file("start a thread for", &config.directory))?;
        let writer = Writer { shared: Arc::clone(&shared), thread: Mutex::new(Some(thread)) };
        Ok(Self { shared, _writer: Arc::new(writer) })
    }

    /// Changes bindings of one address of record: all of them or none. They can be seen at once, and may be relied on
    /// when [`Writing::wait`] returns.
    ///
    /// # Errors
    /// [`Error::BindingsFull`], [`Error::AddressFull`] or [`Error::QueueFull`] when a bound is reached: nothing has
    /// changed then.
    pub fn update(&self, address: &str, changes: &[Change]) -> Result<Writing, Error> {
        let mut held = self.held();
        let is_addition = changes.iter().any(|change| matches!(change, Change::Put(_)));
        let room = if is_addition && held.pending.len() >= self.shared.waiting_max {
            Err(Error::QueueFull)
        } else {
            held.table.room_for(address, changes)
        };
        if let Err(error) = room {
            self.shared.signals.binding_refused(&error);
            return Err(error);
        }
        for change in changes {
            held.change(address, change);
        }
        Ok(Writing { batch: held.pending.wait(), shared: Arc::clone(&self.shared) })
    }

    /// The bindings that have not run out, the most wanted first, then the one that was refreshed last.
    #[must_use]
    pub fn get(&self, address: &str, now_unix_nanos: u64) -> Vec<Arc<Binding>> {
        let mut found = self.held().table.get(address);
        found.retain(|binding| binding.expires_unix_nanos > now_unix_nanos);
        found.sort_by_key(|binding| std::cmp::Reverse(binding.rank()));
        found.into_iter().map(Arc::new).collect()
    }

    /// Whether anybody is registered from a network, as [`network_of`] gives it.
    #[must_use]
    pub fn is_anybody_in(&self, network: IpAddr) -> bool {
        self.held().table.has_network(network)
    }

    /// Removes what has run out.
    pub fn expire(&self, now_unix_nanos: u64) -> Vec<Expired> {
        let mut held = self.held();
        // Not journalled: what has run out is as dead after a start as before.
        let expired = held.table.expire(now_unix_nanos);
        self.shared.signals.bindings_expired(expired.len());
        self.shared.signals.bindings_changed(held.table.len());
        drop(held);
        gone(expired)
    }

    /// Removes the bindings of a flow that is gone (RFC 5626 section 5.3).
    pub fn flow_closed(&self, flow: &str) -> Vec<Expired> {
        let mut held = self.held();
        let of_flow = held.table.of_flow(flow);
        for (address, packed) in &of_flow {
            held.change(address, &Change::Remove(table::key_of(packed).to_owned()));
        }
        if !of_flow.is_empty() {
            self.changed();
        }
        drop(held);
        gone(of_flow)
    }

    /// The next bindings that want to be kept alive, at most so many; removes those of them that answered before and
    /// have left the last `unanswered_max` without an answer.
    pub fn keep_alive(&self, turns_max: usize, unanswered_max: u8) -> Round {
        let mut held = self.held();
        let turns = held.table.turns(turns_max, unanswered_max);
        let mut lost = Vec::new();
        let mut due = Vec::with_capacity(turns.len());
        for turn in turns {
            if turn.is_lost {
                held.change(&turn.address, &Change::Remove(table::key_of(&turn.packed).to_owned()));
                lost.push((turn.address, turn.packed));
            } else {
                due.extend(unpack(&turn.packed).map(|binding| KeepAlive { slot: turn.slot, binding }));
            }
        }
        if !lost.is_empty() {
            self.changed();
        }
        drop(held);
        Round { due, lost: gone(lost) }
    }

    /// A keep-alive was answered.
    pub fn answered(&self, slot: u32) {
        self.held().table.answered(slot);
    }

    /// A keep-alive did not leave, for reasons that are not the phone's: its turn does not count as unanswered.
    pub fn not_asked(&self, slot: u32) {
        self.held().table.not_asked(slot);
    }

    /// How many bindings want to be kept alive.
    #[must_use]
    pub fn kept_alive(&self) -> usize {
        self.held().table.kept_alive()
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

    /// What keeps the folder this process's own: whoever else writes there holds it too.
    pub(crate) fn folder_lock(&self) -> Arc<std::fs::File> {
        self.shared.files().lock()
    }

    /// Folds the journal into a snapshot, if anything changed. Blocks on the disk: not for an async thread.
    ///
    /// # Errors
    /// [`Error::File`]; the journal then still holds everything.
    pub(crate) fn snapshot(&self) -> Result<(), Error> {
        let _folding = self.shared.folding.lock().unwrap_or_else(PoisonError::into_inner);
        let fold = self.shared.files().begin_fold()?;
        let Some(fold) = fold else { return Ok(()) };
        let result = fold.finish(self);
        if result.is_err() {
            self.shared.files().not_folded();
        }
        self.shared.signals.snapshot_ended(result.as_ref().copied());
        result
    }

    fn changed(&self) {
        self.shared.wake.notify_one();
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.shared.held()
    }
}

impl Shared {
    fn held(&self) -> MutexGuard<'_, Held> {
        // A panic while holding the lock leaves a table that is whole: every change is applied in one step.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn change(&mut self, address: &str, change: &Change) {
        let address = self.table.shared_address(address);
        match change {
            Change::Put(binding) => {
                let Some(packed) = pack(binding) else { return };
                let before = self.table.put(Arc::clone(&address), binding, Arc::clone(&packed));
                self.pending.note(address, before, Some(packed));
            }
            Change::Remove(key) => {
                let before = self.table.remove(&address, key);
                self.pending.note(address, before, None);
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.held().is_closing = true;
        self.shared.wake.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // It writes what still waits; then the folder is free for the next owner.
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Bindings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bindings").field("len", &self.len()).finish()
    }
}

/// What a file says, done to a table that nobody else sees yet.
fn apply(table: &mut Table, record: Record<'_>) {
    match record {
        Record::Put { address, packed } => {
            if let Some(binding) = unpack(packed) {
                table.put(table.shared_address(address), &binding, packed.into());
            }
        }
        Record::Remove { address, key } => {
            table.remove(address, key);
        }
        Record::Start { .. } | Record::End { .. } => {}
    }
}

fn gone(packed: Vec<(Arc<str>, Packed)>) -> Vec<Expired> {
    let unpacked = packed.into_iter().filter_map(|(address, packed)| Some((address, unpack(&packed)?)));
    unpacked.map(|(address, binding)| Expired { address: address.to_string().into(), binding }).collect()
}

/// The folder that holds the files, made when it is missing.
pub(crate) fn prepare(directory: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(directory).map_err(Error::file("make the folder", directory))
}

#[cfg(test)]
mod tests;
