//! How open incidents stand, on disk.

use redb::{ReadableTable, Table};

use super::{Act, Draft, ENDED, Entry, HEARD, INCIDENTS, Incident, Outbox, QUEUE, REJECTED, STANDINGS};
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

/// How long an incident that was ended here is asked about, until it is seen that it is over there.
const ENDED_NANOS_MAX: u64 = 24 * 3_600 * 1_000_000_000;

/// What a service is told of an incident now.
pub(super) struct Step<'a> {
    pub(super) key: &'a str,
    pub(super) draft: &'a Draft,
    pub(super) incident: &'a Incident,
    pub(super) was_open: bool,
    pub(super) now_unix_nanos: u64,
}

impl Step<'_> {
    /// Keeps what is known of an incident in step with it.
    pub(super) fn follow(
        &self,
        standings: &mut Table<'_, &str, &[u8]>,
        ended: &mut Table<'_, &str, u64>,
    ) -> Result<(), Error> {
        if !self.draft.is_followed {
            return Ok(());
        }
        if !self.incident.is_open {
            standings.remove(self.key).map_err(store)?;
            ended.insert(self.key, self.now_unix_nanos).map_err(store)?;
            return Ok(());
        }
        ended.remove(self.key).map_err(store)?;
        let held: Option<Standing> = held(standings, self.key)?;
        // What somebody ended there begins anew with the next trigger.
        let is_ended = held.is_some_and(|held| held.state == StandingState::Resolved);
        if self.was_open && !is_ended {
            return Ok(());
        }
        let standing = Standing {
            service: self.draft.service.clone(),
            incident: self.incident.name().to_owned(),
            state: StandingState::Triggered,
            by: None,
            comment: String::new(),
            place: Place::Here,
            since_unix_nanos: self.now_unix_nanos,
        };
        standings.insert(self.key, postcard::to_stdvec(&standing)?.as_slice()).map_err(store)?;
        Ok(())
    }
}

fn held(
    standings: &impl ReadableTable<&'static str, &'static [u8]>,
    key: &str,
) -> Result<Option<Standing>, Error> {
    match standings.get(key).map_err(store)? {
        Some(row) => Ok(Some(postcard::from_bytes(row.value())?)),
        None => Ok(None),
    }
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

    /// The dedup keys to ask a service about: those of open incidents, and of those of which nobody saw yet that they are
    /// over there as well.
    pub(crate) fn open_keys(&self, service: &str, now: u64) -> Result<Vec<String>, Error> {
        self.ledger.write(|transaction| {
            let prefix = format!("{service}/");
            let mut ended = transaction.open_table(ENDED).map_err(store)?;
            ended.retain(|_, since| now.saturating_sub(since) < ENDED_NANOS_MAX).map_err(store)?;
            let standings = transaction.open_table(STANDINGS).map_err(store)?;
            let mut keys = std::collections::BTreeSet::new();
            let mut add =
                |key: &str| key.strip_prefix(&prefix).map(|key| keys.insert(key.to_owned())).is_some();
            for row in standings.range(prefix.as_str()..).map_err(store)? {
                if !add(row.map_err(store)?.0.value()) {
                    break;
                }
            }
            for row in ended.range(prefix.as_str()..).map_err(store)? {
                if !add(row.map_err(store)?.0.value()) {
                    break;
                }
            }
            Ok(keys.into_iter().collect())
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
        let key = key.as_str();
        self.ledger.write(|transaction| {
            let incidents = transaction.open_table(INCIDENTS).map_err(store)?;
            let incident: Incident = match incidents.get(key).map_err(store)? {
                Some(row) => postcard::from_bytes(row.value())?,
                None => return Ok((Taken::Unknown, None)),
            };
            let mut heard = transaction.open_table(HEARD).map_err(store)?;
            let age = (report.age.created_unix_nanos, report.age.said_unix_nanos);
            let is_old = heard.get(key).map_err(store)?.is_some_and(|last| age < last.value());
            if is_old {
                return Ok((Taken::Known, None));
            }
            heard.insert(key, age).map_err(store)?;
            if incident.is_open {
                let mut standings = transaction.open_table(STANDINGS).map_err(store)?;
                let Some(held) = held(&standings, key)? else { return Ok((Taken::Known, None)) };
                let after = held.after(report, now);
                if after == held {
                    return Ok((Taken::Known, None));
                }
                standings.insert(key, postcard::to_stdvec(&after)?.as_slice()).map_err(store)?;
                return Ok((Taken::Changed, None));
            }
            if report.state == StandingState::Resolved {
                transaction.open_table(ENDED).map_err(store)?.remove(key).map_err(store)?;
                return Ok((Taken::Known, None));
            }
            let mut queue = transaction.open_table(QUEUE).map_err(store)?;
            if super::waits(&queue, service, &report.dedup_key)? {
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
