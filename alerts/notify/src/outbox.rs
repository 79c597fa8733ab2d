//! The outbox on disk: what has to be sent, what was rejected, and which incidents were opened where.
//!
//! Every change is one redb transaction with an fsync: what `insert` returned from is still there after a crash.
//! Calls block; the sender makes them on a blocking thread.

use std::path::Path;
use std::sync::Arc;

use belfry_ledger::Ledger;
use redb::{ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::error::{Error, store};
use crate::page::PageId;

const QUEUE: TableDefinition<u64, &[u8]> = TableDefinition::new("queue");
const REJECTED: TableDefinition<u64, &[u8]> = TableDefinition::new("rejected");
const INCIDENTS: TableDefinition<&str, &[u8]> = TableDefinition::new("incidents");
/// How open incidents stand, by service and dedup key.
const STANDINGS: TableDefinition<&str, &[u8]> = TableDefinition::new("standings");

mod standings;

pub(crate) use standings::{Taken, Word};

/// What an event does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Act {
    /// Opens an incident.
    Trigger,
    /// Closes it.
    Resolve,
    /// Somebody here works on it.
    Acknowledge,
}

/// One event for one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Its place in the order of everything.
    pub(crate) seq: u64,
    /// The service's configured name.
    pub(crate) service: String,
    /// Events with the same key go out one after the other.
    pub(crate) dedup_key: String,
    /// What it does.
    pub(crate) act: Act,
    /// The event without its routing key.
    pub(crate) event: String,
    /// When it was taken.
    pub(crate) enqueued_unix_nanos: u64,
}

/// An event that will never be accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rejected {
    /// The event.
    pub(crate) entry: Entry,
    /// The HTTP status; 0 when no request was made.
    pub(crate) status: u16,
    /// What the service said, cut; shown on our page only.
    pub(crate) message: String,
}

/// The last pages that one service was told of under one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Incident {
    /// Newest last, at most [`PAGES_TOLD_MAX`].
    told: Vec<String>,
    /// Whether the newest still has to be resolved.
    is_open: bool,
}

/// How many pages back a repetition is recognised.
const PAGES_TOLD_MAX: usize = 8;

/// What one notification becomes for one service.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) service: String,
    pub(crate) dedup_key: String,
    pub(crate) event: String,
    /// Whether the service says how incidents stand: others are only told.
    pub(crate) is_followed: bool,
}

/// A handle to the outbox; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    ledger: Arc<Ledger>,
}

/// In tests behind a disk that can fail.
#[cfg(test)]
const OPENER: belfry_ledger::Opener = belfry_ledger::failing::open;
#[cfg(not(test))]
const OPENER: belfry_ledger::Opener = belfry_ledger::open_file;
/// The outbox's name in its directory.
const FILE: &str = "outbox.redb";

impl Outbox {
    /// Opens or creates the outbox in a directory.
    pub(crate) fn open(directory: &Path) -> Result<Self, Error> {
        let path = directory.join(FILE);
        let opened = Ledger::open(&path, OPENER, |transaction| {
            transaction.open_table(QUEUE)?;
            transaction.open_table(REJECTED)?;
            transaction.open_table(INCIDENTS)?;
            transaction.open_table(STANDINGS)?;
            Ok(())
        });
        let ledger = opened.map_err(|source| Error::Open { path, source: Box::new(source) })?;
        Ok(Self { ledger: Arc::new(ledger) })
    }

    /// How often the disk failed: after it, what was inserted in vain may be in the outbox all the same.
    pub(crate) fn failures(&self) -> u64 {
        self.ledger.failures()
    }

    /// Everything that waits, in order, and everything that was rejected.
    pub(crate) fn load(&self) -> Result<(Vec<Entry>, Vec<Rejected>), Error> {
        self.ledger.read(|transaction| {
            let mut entries = Vec::new();
            for row in transaction.open_table(QUEUE).map_err(store)?.iter().map_err(store)? {
                entries.push(postcard::from_bytes(row.map_err(store)?.1.value())?);
            }
            let mut rejected = Vec::new();
            for row in transaction.open_table(REJECTED).map_err(store)?.iter().map_err(store)? {
                rejected.push(postcard::from_bytes(row.map_err(store)?.1.value())?);
            }
            Ok((entries, rejected))
        })
    }

    /// Takes the trigger of a page, once: a page that a service was told of already is not told again.
    pub(crate) fn insert_triggers(
        &self,
        page: PageId,
        drafts: Vec<Draft>,
        now_unix_nanos: u64,
    ) -> Result<Vec<Entry>, Error> {
        let page = page.to_string();
        self.insert(&page, Act::Trigger, drafts, now_unix_nanos, |incident| {
            (!incident.told.contains(&page)).then(|| incident.told_of(page.clone(), true))
        })
    }

    /// Takes the resolve of a page, once, for services that were told of it.
    pub(crate) fn insert_resolves(
        &self,
        page: PageId,
        drafts: Vec<Draft>,
        now_unix_nanos: u64,
    ) -> Result<Vec<Entry>, Error> {
        let page = page.to_string();
        self.insert(&page, Act::Resolve, drafts, now_unix_nanos, |incident| {
            let is_owed = incident.is_open && incident.told.last() == Some(&page);
            is_owed.then_some(Incident { is_open: false, ..incident })
        })
    }

    /// Takes a notice of an incident, once: what was told of it already is not told again, and its end only where
    /// its beginning was told.
    pub(crate) fn insert_notice(
        &self,
        incident: &str,
        number: u64,
        act: Act,
        drafts: Vec<Draft>,
        now_unix_nanos: u64,
    ) -> Result<Vec<Entry>, Error> {
        let told = format!("{incident}:{number}");
        let is_same = move |other: &String| other.rsplit_once(':').is_some_and(|(of, _)| of == incident);
        self.insert(incident, act, drafts, now_unix_nanos, |known| {
            let is_repeated = known.told.contains(&told);
            let is_owed = known.is_open && known.told.last().is_some_and(is_same);
            let is_taken = !is_repeated && (act == Act::Trigger || is_owed);
            is_taken.then(|| known.told_of(told.clone(), act == Act::Trigger))
        })
    }

    /// Takes events for all services or for none.
    fn insert(
        &self,
        name: &str,
        act: Act,
        drafts: Vec<Draft>,
        now_unix_nanos: u64,
        next: impl Fn(Incident) -> Option<Incident>,
    ) -> Result<Vec<Entry>, Error> {
        self.ledger.write(|transaction| {
            let mut queue = transaction.open_table(QUEUE).map_err(store)?;
            let mut incidents = transaction.open_table(INCIDENTS).map_err(store)?;
            let rejected = transaction.open_table(REJECTED).map_err(store)?;
            let mut seq = next_seq(&queue, &rejected)?;
            let mut standings = transaction.open_table(STANDINGS).map_err(store)?;
            let mut taken = Vec::new();
            for draft in drafts {
                let key = format!("{}/{}", draft.service, draft.dedup_key);
                let incident = incidents.get(key.as_str()).map_err(store)?;
                let incident: Option<Incident> =
                    incident.map(|row| postcard::from_bytes(row.value())).transpose()?;
                let before = incident.unwrap_or_default();
                let was_open = before.is_open;
                let Some(incident) = next(before) else { continue };
                standings::follow(&mut standings, &key, &draft, &incident, was_open, now_unix_nanos)?;
                let row = postcard::to_stdvec(&incident)?;
                incidents.insert(key.as_str(), row.as_slice()).map_err(store)?;
                let entry = Entry {
                    seq,
                    service: draft.service,
                    dedup_key: draft.dedup_key,
                    act,
                    event: draft.event,
                    enqueued_unix_nanos: now_unix_nanos,
                };
                queue.insert(seq, postcard::to_stdvec(&entry)?.as_slice()).map_err(store)?;
                taken.push(entry);
                seq += 1;
            }
            if act == Act::Resolve {
                standings.remove(standings::here(name).as_str()).map_err(store)?;
            }
            Ok(taken)
        })
    }

    /// Forgets an event that was accepted.
    pub(crate) fn remove(&self, seq: u64) -> Result<(), Error> {
        self.ledger.write(|transaction| {
            transaction.open_table(QUEUE).map_err(store)?.remove(seq).map_err(store)?;
            Ok(())
        })
    }

    /// Moves an event that will never be accepted to where people see it; the oldest make room.
    pub(crate) fn reject(&self, rejected: &Rejected, rejected_max: usize) -> Result<(), Error> {
        self.ledger.write(|transaction| {
            let seq = rejected.entry.seq;
            transaction.open_table(QUEUE).map_err(store)?.remove(seq).map_err(store)?;
            let mut table = transaction.open_table(REJECTED).map_err(store)?;
            table.insert(seq, postcard::to_stdvec(rejected)?.as_slice()).map_err(store)?;
            let mut kept = table.iter().map_err(store)?.count();
            while kept > rejected_max {
                table.pop_first().map_err(store)?;
                kept -= 1;
            }
            Ok(())
        })
    }
}

/// The number of the next event. A rejected event keeps its number, so the next one is after both tables.
fn next_seq(
    queue: &impl ReadableTable<u64, &'static [u8]>,
    rejected: &impl ReadableTable<u64, &'static [u8]>,
) -> Result<u64, Error> {
    let last_queued = queue.last().map_err(store)?.map(|row| row.0.value());
    let last_rejected = rejected.last().map_err(store)?.map(|row| row.0.value());
    Ok(last_queued.max(last_rejected).map_or(0, |last| last + 1))
}

/// Whether an event waits for a service under a key.
fn waits(
    queue: &impl ReadableTable<u64, &'static [u8]>,
    service: &str,
    dedup_key: &str,
) -> Result<bool, Error> {
    for row in queue.iter().map_err(store)? {
        let entry: Entry = postcard::from_bytes(row.map_err(store)?.1.value())?;
        if entry.service == service && entry.dedup_key == dedup_key {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Incident {
    /// The page or incident that the service was last told of.
    fn name(&self) -> &str {
        let last = self.told.last().map_or("", String::as_str);
        last.rsplit_once(':').map_or(last, |(incident, _)| incident)
    }

    /// As it is when its service was told of something more.
    fn told_of(mut self, told: String, is_open: bool) -> Incident {
        if self.told.len() == PAGES_TOLD_MAX {
            self.told.remove(0);
        }
        self.told.push(told);
        Incident { is_open, ..self }
    }
}

#[cfg(test)]
mod tests {
    use belfry_signal::Region;

    use super::*;
    use crate::page::DedupKey;

    fn draft(service: &str) -> Vec<Draft> {
        let (service, dedup_key) = (service.into(), "k".into());
        vec![Draft { service, dedup_key, event: "{}".into(), is_followed: true }]
    }

    fn page(started: u64) -> PageId {
        let region = Region::configured("eu").expect("plain");
        PageId::of(&DedupKey::of("s", "call_setup", &region), started)
    }

    #[test]
    fn what_was_inserted_is_there_after_opening_again_in_order() {
        let directory = tempfile::tempdir().expect("a directory");
        let outbox = Outbox::open(directory.path()).expect("opens");
        for started in 1..=3 {
            outbox.insert_triggers(page(started), draft("a"), started).expect("taken");
        }
        outbox.remove(1).expect("removed");
        drop(outbox);
        let (entries, rejected) = Outbox::open(directory.path()).expect("opens").load().expect("loads");
        assert_eq!(entries.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(rejected, []);
    }

    #[test]
    fn a_page_is_triggered_once_and_resolved_once_where_it_was_triggered() {
        let directory = tempfile::tempdir().expect("a directory");
        let outbox = Outbox::open(directory.path()).expect("opens");
        let both = || [draft("a"), draft("b")].concat();
        let trigger = |id, drafts| outbox.insert_triggers(id, drafts, 0).expect("inserts").len();
        let resolve = |id| outbox.insert_resolves(id, both(), 0).expect("inserts").len();
        assert_eq!(resolve(page(1)), 0, "nothing was triggered");
        assert_eq!(trigger(page(1), draft("a")), 1);
        assert_eq!(trigger(page(1), draft("a")), 0, "again after a crash");
        assert_eq!(resolve(page(2)), 0, "another page");
        assert_eq!(resolve(page(1)), 1, "only where it was triggered");
        assert_eq!(resolve(page(1)), 0);
        assert_eq!(trigger(page(1), draft("a")), 0, "a page that ended does not begin again");
        assert_eq!(trigger(page(2), both()), 2, "the next one does");
    }

    #[test]
    fn rejected_events_stay_visible_and_bounded() {
        let directory = tempfile::tempdir().expect("a directory");
        let outbox = Outbox::open(directory.path()).expect("opens");
        for started in 1..=4 {
            let entry = outbox.insert_triggers(page(started), draft("a"), 0).expect("taken").remove(0);
            outbox.reject(&Rejected { entry, status: 400, message: "no".into() }, 2).expect("rejected");
        }
        let (entries, rejected) = outbox.load().expect("loads");
        assert_eq!(entries, []);
        assert_eq!(rejected.iter().map(|rejected| rejected.entry.seq).collect::<Vec<_>>(), [2, 3]);
    }
}
