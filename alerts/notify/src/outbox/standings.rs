//! How open incidents stand, on disk.

use redb::{ReadableTable, Table};

use super::{Act, Draft, Entry, INCIDENTS, Incident, Outbox, QUEUE, REJECTED, STANDINGS};
use crate::back::standing::Report;
use crate::back::{Place, Standing, StandingState};
use crate::error::{Error, store};

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is the newest word now.
    Changed,
    /// Something newer is known, or the same.
    Known,
    /// We ended the incident, and it is open there: it is ended again.
    Ended,
    /// No incident of ours.
    Unknown,
}

/// What is said of an incident here.
#[derive(Clone, Debug)]
pub(crate) struct Word {
    pub(crate) incident: String,
    pub(crate) state: StandingState,
    pub(crate) by: Option<belfry_signal::Pii<String>>,
    pub(crate) comment: String,
    /// Nobody needs to have been told of it: it is known to be open.
    pub(crate) is_open_here: bool,
}

/// Keeps what is known of an incident in step with what its service is told.
pub(super) fn follow(
    standings: &mut Table<'_, &str, &[u8]>,
    key: &str,
    draft: &Draft,
    incident: &Incident,
    was_open: bool,
    now_unix_nanos: u64,
) -> Result<(), Error> {
    if !incident.is_open {
        standings.remove(key).map_err(store)?;
        return Ok(());
    }
    let held: Option<Standing> = match standings.get(key).map_err(store)? {
        Some(row) => Some(postcard::from_bytes(row.value())?),
        None => None,
    };
    // What somebody ended there begins anew with the next trigger.
    let is_ended = held.is_some_and(|held| held.state == StandingState::Resolved);
    if draft.is_followed && (!was_open || is_ended) {
        let standing = Standing {
            service: draft.service.clone(),
            incident: incident.name().to_owned(),
            state: StandingState::Triggered,
            by: None,
            comment: String::new(),
            place: Place::Here,
            since_unix_nanos: now_unix_nanos,
        };
        standings.insert(key, postcard::to_stdvec(&standing)?.as_slice()).map_err(store)?;
    }
    Ok(())
}

impl Outbox {
    /// How all open incidents stand.
    pub(crate) fn standings(&self) -> Result<Vec<Standing>, Error> {
        self.ledger.read(|transaction| {
            let table = transaction.open_table(STANDINGS).map_err(store)?;
            let rows = table.iter().map_err(store)?;
            rows.map(|row| Ok(postcard::from_bytes(row.map_err(store)?.1.value())?)).collect()
        })
    }

    /// The dedup keys under which incidents are open at a service, as far as it says how they stand.
    pub(crate) fn open_keys(&self, service: &str) -> Result<Vec<String>, Error> {
        self.ledger.read(|transaction| {
            let prefix = format!("{service}/");
            let table = transaction.open_table(STANDINGS).map_err(store)?;
            let mut keys = Vec::new();
            for row in table.range(prefix.as_str()..).map_err(store)? {
                let key = row.map_err(store)?.0;
                let Some(dedup_key) = key.value().strip_prefix(&prefix) else { break };
                keys.push(dedup_key.to_owned());
            }
            Ok(keys)
        })
    }

    /// Takes what a service says; durable on return.
    pub(crate) fn report(
        &self,
        service: &str,
        report: &Report,
        resolve: &Draft,
        now: u64,
    ) -> Result<(Taken, Option<Entry>), Error> {
        let key = format!("{service}/{}", report.dedup_key);
        self.ledger.write(|transaction| {
            let incidents = transaction.open_table(INCIDENTS).map_err(store)?;
            let incident: Incident = match incidents.get(key.as_str()).map_err(store)? {
                Some(row) => postcard::from_bytes(row.value())?,
                None => return Ok((Taken::Unknown, None)),
            };
            let mut standings = transaction.open_table(STANDINGS).map_err(store)?;
            let held: Option<Standing> = match standings.get(key.as_str()).map_err(store)? {
                Some(row) => Some(postcard::from_bytes(row.value())?),
                None => None,
            };
            if let Some(held) = held.filter(|_| incident.is_open) {
                let Some(after) = held.after(report) else { return Ok((Taken::Known, None)) };
                standings.insert(key.as_str(), postcard::to_stdvec(&after)?.as_slice()).map_err(store)?;
                return Ok((Taken::Changed, None));
            }
            let mut queue = transaction.open_table(QUEUE).map_err(store)?;
            let is_on_its_way = super::waits(&queue, service, &report.dedup_key)?;
            if incident.is_open || report.state == StandingState::Resolved || is_on_its_way {
                return Ok((Taken::Known, None));
            }
            let rejected = transaction.open_table(REJECTED).map_err(store)?;
            let seq = super::next_seq(&queue, &rejected)?;
            let entry = Entry {
                seq,
                service: service.to_owned(),
                dedup_key: report.dedup_key.clone(),
                act: Act::Resolve,
                event: resolve.event.clone(),
                enqueued_unix_nanos: now,
            };
            queue.insert(seq, postcard::to_stdvec(&entry)?.as_slice()).map_err(store)?;
            Ok((Taken::Ended, Some(entry)))
        })
    }

    /// Takes what somebody here says of an incident; gives the events for services that were told of it, and whether
    /// there is such an incident.
    pub(crate) fn say(
        &self,
        word: &Word,
        event: impl Fn(&str) -> String,
        now: u64,
    ) -> Result<(bool, Vec<Entry>), Error> {
        self.ledger.write(|transaction| {
            let mut standings = transaction.open_table(STANDINGS).map_err(store)?;
            let mut held: Vec<(String, Standing)> = Vec::new();
            for row in standings.iter().map_err(store)? {
                let (key, row) = row.map_err(store)?;
                let standing: Standing = postcard::from_bytes(row.value())?;
                if standing.incident == word.incident {
                    held.push((key.value().to_owned(), standing));
                }
            }
            let is_known = word.is_open_here || !held.is_empty();
            if is_known && !held.iter().any(|(_, standing)| standing.service.is_empty()) {
                held.push((here(&word.incident), word.standing(String::new(), now)));
            }
            let mut queue = transaction.open_table(QUEUE).map_err(store)?;
            let rejected = transaction.open_table(REJECTED).map_err(store)?;
            let mut entries = Vec::new();
            for (key, standing) in held {
                let said = word.standing(standing.service.clone(), now);
                standings.insert(key.as_str(), postcard::to_stdvec(&said)?.as_slice()).map_err(store)?;
                let dedup_key = key.strip_prefix(&format!("{}/", standing.service)).unwrap_or_default();
                let is_new = word.state == StandingState::Acknowledged && standing.state != word.state;
                if !is_new || standing.service.is_empty() {
                    continue;
                }
                let entry = Entry {
                    seq: super::next_seq(&queue, &rejected)?,
                    service: standing.service,
                    dedup_key: dedup_key.to_owned(),
                    act: Act::Acknowledge,
                    event: event(dedup_key),
                    enqueued_unix_nanos: now,
                };
                queue.insert(entry.seq, postcard::to_stdvec(&entry)?.as_slice()).map_err(store)?;
                entries.push(entry);
            }
            Ok((is_known, entries))
        })
    }
}

/// Where stands what was said here alone of an incident.
pub(super) fn here(incident: &str) -> String {
    format!("/{incident}")
}

impl Word {
    fn standing(&self, service: String, now: u64) -> Standing {
        Standing {
            service,
            incident: self.incident.clone(),
            state: self.state,
            by: self.by.clone(),
            comment: self.comment.clone(),
            place: Place::Here,
            since_unix_nanos: now,
        }
    }
}
