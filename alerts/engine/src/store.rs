//! What survives a restart: pages with their examples, and the counts of every series.
//!
//! Examples are Call-IDs and stay in this file, in this region. Calls block; the engine makes them on a
//! blocking thread.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use belfry_ledger::Ledger;
use belfry_notify::{AlertName, BudgetFigures, DedupKey, PageId};
use belfry_signal::{Cause, Journey, Pii, Region, Room};
use belfry_slo::{Counts, Grain, HOURS_MAX, MINUTES_MAX, SECONDS_MAX};
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use crate::error::{Error, store};
use crate::evidence::Evidence;
use crate::pages::{Member, Record};

/// A page, by its handle.
const PAGES: TableDefinition<&str, &[u8]> = TableDefinition::new("pages");
/// The measured seconds of a minute, by series and minute.
const SECONDS: TableDefinition<(&str, u64), &[u8]> = TableDefinition::new("seconds");
/// Good, bad and measured seconds, by series and minute.
const MINUTES: TableDefinition<(&str, u64), (u64, u64, u64)> = TableDefinition::new("minutes");
/// Good, bad and measured seconds, by series and hour.
const HOURS: TableDefinition<(&str, u64), (u64, u64, u64)> = TableDefinition::new("hours");

/// A second of a minute: its place from 0 to 59, good and bad events.
pub(crate) type SecondRow = (u8, u64, u64);

/// The steps of one series that changed since they were last written.
#[derive(Clone, Debug, Default)]
pub(crate) struct HistoryRows {
    pub(crate) series: String,
    pub(crate) seconds: Vec<(u64, Vec<SecondRow>)>,
    pub(crate) minutes: Vec<(u64, Counts)>,
    pub(crate) hours: Vec<(u64, Counts)>,
}

/// One transaction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Batch {
    pub(crate) pages: Vec<Record>,
    pub(crate) evicted: Vec<PageId>,
    pub(crate) histories: Vec<HistoryRows>,
    /// The second up to which histories reach; older rows than the rings hold are dropped.
    pub(crate) now: u64,
}

/// Everything that was written.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) pages: Vec<Record>,
    /// By series: grain, step, counts.
    pub(crate) steps: BTreeMap<String, Vec<(Grain, u64, Counts)>>,
    /// Pages that name something that no longer exists.
    pub(crate) unreadable: usize,
}

/// A page as it stands in the file: names as texts, so that the order of an enum may change.
#[derive(Serialize, Deserialize)]
struct PageRow {
    site: String,
    slo: String,
    alert: String,
    journey: String,
    lead: Region,
    members: Vec<(Region, bool)>,
    room: String,
    causes: Vec<(String, u64)>,
    examples: Vec<Pii<String>>,
    objective_ppm: u32,
    window_seconds: u64,
    bad_events: u64,
    events: u64,
    burn_milli: u64,
    budget_remaining_ppm: i64,
    started_unix_nanos: u64,
    resolved_unix_nanos: Option<u64>,
    is_trigger_taken: bool,
    is_resolve_taken: bool,
}

/// In tests behind a disk that can fail.
#[cfg(test)]
pub(crate) const OPENER: belfry_ledger::Opener = belfry_ledger::failing::open;
#[cfg(not(test))]
pub(crate) const OPENER: belfry_ledger::Opener = belfry_ledger::open_file;

/// A handle to the file; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    ledger: Arc<Ledger>,
}

impl Store {
    /// Opens or creates the file in a directory.
    pub(crate) fn open(directory: &Path) -> Result<Self, Error> {
        let path = directory.join("alerts.redb");
        let opened = Ledger::open(&path, OPENER, |transaction| {
            transaction.open_table(PAGES)?;
            transaction.open_table(SECONDS)?;
            transaction.open_table(MINUTES)?;
            transaction.open_table(HOURS)?;
            Ok(())
        });
        let ledger = opened.map_err(|source| Error::Open { path, source: Box::new(source) })?;
        Ok(Self { ledger: Arc::new(ledger) })
    }

    /// Everything that was written.
    pub(crate) fn load(&self) -> Result<Loaded, Error> {
        self.ledger.read(load)
    }

    /// Writes a batch; durable on return. What failed may be written again.
    pub(crate) fn save(&self, batch: &Batch) -> Result<(), Error> {
        self.ledger.write(|transaction| save(transaction, batch))
    }

    /// The call behind an example of a page; numbers begin with 1.
    pub(crate) fn example(&self, page_id: &str, number: usize) -> Result<Option<Pii<String>>, Error> {
        self.ledger.read(|transaction| {
            let Some(row) = transaction.open_table(PAGES).map_err(store)?.get(page_id).map_err(store)? else {
                return Ok(None);
            };
            let row: PageRow = postcard::from_bytes(row.value())?;
            Ok(row.into_record().and_then(|record| record.example(number).cloned()))
        })
    }
}

fn load(transaction: &ReadTransaction) -> Result<Loaded, Error> {
    let mut loaded = Loaded::default();
    for row in transaction.open_table(PAGES).map_err(store)?.iter().map_err(store)? {
        let row: PageRow = postcard::from_bytes(row.map_err(store)?.1.value())?;
        match row.into_record() {
            Some(record) => loaded.pages.push(record),
            None => loaded.unreadable += 1,
        }
    }
    for row in transaction.open_table(SECONDS).map_err(store)?.iter().map_err(store)? {
        let (key, value) = row.map_err(store)?;
        let (series, minute) = key.value();
        let seconds: Vec<SecondRow> = postcard::from_bytes(value.value())?;
        for (place, good, bad) in seconds {
            let second = minute.saturating_mul(60) + u64::from(place);
            let counts = Counts { good, bad, measured_seconds: 1 };
            loaded.push(series, Grain::Second, second, counts);
        }
    }
    for (table, grain) in [(MINUTES, Grain::Minute), (HOURS, Grain::Hour)] {
        for row in transaction.open_table(table).map_err(store)?.iter().map_err(store)? {
            let (key, value) = row.map_err(store)?;
            let ((series, step), (good, bad, measured_seconds)) = (key.value(), value.value());
            let counts = Counts { good, bad, measured_seconds };
            loaded.push(series, grain, step, counts);
        }
    }
    Ok(loaded)
}

fn save(transaction: &WriteTransaction, batch: &Batch) -> Result<(), Error> {
    let mut pages = transaction.open_table(PAGES).map_err(store)?;
    for record in &batch.pages {
        let row = postcard::to_stdvec(&PageRow::from(record))?;
        pages.insert(record.id.to_string().as_str(), row.as_slice()).map_err(store)?;
    }
    for id in &batch.evicted {
        pages.remove(id.to_string().as_str()).map_err(store)?;
    }
    let mut seconds = transaction.open_table(SECONDS).map_err(store)?;
    let mut minutes = transaction.open_table(MINUTES).map_err(store)?;
    let mut hours = transaction.open_table(HOURS).map_err(store)?;
    let (minute, hour) = (batch.now / 60, batch.now / 3_600);
    for rows in &batch.histories {
        let series = rows.series.as_str();
        for (minute, row) in &rows.seconds {
            let row = postcard::to_stdvec(row)?;
            seconds.insert((series, *minute), row.as_slice()).map_err(store)?;
        }
        for (step, counts) in &rows.minutes {
            minutes.insert((series, *step), columns(*counts)).map_err(store)?;
        }
        for (step, counts) in &rows.hours {
            hours.insert((series, *step), columns(*counts)).map_err(store)?;
        }
        let old = |newest: u64, held: usize| (series, 0)..(series, newest.saturating_sub(held as u64));
        seconds.retain_in(old(minute, SECONDS_MAX / 60), |_, _| false).map_err(store)?;
        minutes.retain_in(old(minute, MINUTES_MAX), |_, _| false).map_err(store)?;
        hours.retain_in(old(hour, HOURS_MAX), |_, _| false).map_err(store)?;
    }
    Ok(())
}

impl Loaded {
    fn push(&mut self, series: &str, grain: Grain, step: u64, counts: Counts) {
        match self.steps.get_mut(series) {
            Some(steps) => steps.push((grain, step, counts)),
            None => {
                self.steps.insert(series.to_owned(), vec![(grain, step, counts)]);
            }
        }
    }
}

fn columns(counts: Counts) -> (u64, u64, u64) {
    (counts.good, counts.bad, counts.measured_seconds)
}

impl From<&Record> for PageRow {
    fn from(record: &Record) -> Self {
        let causes = record.evidence.causes.iter();
        let members = record.members.iter();
        Self {
            site: record.site.clone(),
            slo: record.slo.clone(),
            alert: record.alert.as_str().to_owned(),
            journey: record.journey.as_str().to_owned(),
            lead: record.lead.clone(),
            members: members.map(|member| (member.region.clone(), member.is_burning)).collect(),
            room: record.evidence.room.as_str().to_owned(),
            causes: causes.map(|(cause, count)| (cause.as_str().to_owned(), *count)).collect(),
            examples: record.evidence.examples.clone(),
            objective_ppm: record.budget.objective_ppm,
            window_seconds: record.budget.window_seconds,
            bad_events: record.budget.bad_events,
            events: record.budget.events,
            burn_milli: record.budget.burn_milli,
            budget_remaining_ppm: record.budget.budget_remaining_ppm,
            started_unix_nanos: record.started_unix_nanos,
            resolved_unix_nanos: record.resolved_unix_nanos,
            is_trigger_taken: record.is_trigger_taken,
            is_resolve_taken: record.is_resolve_taken,
        }
    }
}

impl PageRow {
    /// The page; `None` when it names an alert, journey or room that this version does not know.
    fn into_record(self) -> Option<Record> {
        let cause_named = |name: &str| Cause::ALL.iter().copied().find(|cause| cause.as_str() == name);
        let dedup_key = DedupKey::of(&self.site, &self.slo, &self.lead);
        let evidence = Evidence {
            room: Room::ALL.iter().copied().find(|room| room.as_str() == self.room)?,
            causes: self.causes.iter().filter_map(|(name, n)| Some((cause_named(name)?, *n))).collect(),
            examples: self.examples,
        };
        let members = self.members.into_iter();
        Some(Record {
            id: PageId::of(&dedup_key, self.started_unix_nanos),
            dedup_key,
            site: self.site,
            slo: self.slo,
            alert: AlertName::ALL.iter().copied().find(|alert| alert.as_str() == self.alert)?,
            journey: Journey::ALL.iter().copied().find(|journey| journey.as_str() == self.journey)?,
            lead: self.lead,
            members: members.map(|(region, is_burning)| Member { region, is_burning }).collect(),
            evidence,
            budget: BudgetFigures {
                objective_ppm: self.objective_ppm,
                window_seconds: self.window_seconds,
                bad_events: self.bad_events,
                events: self.events,
                burn_milli: self.burn_milli,
                budget_remaining_ppm: self.budget_remaining_ppm,
            },
            started_unix_nanos: self.started_unix_nanos,
            resolved_unix_nanos: self.resolved_unix_nanos,
            is_trigger_taken: self.is_trigger_taken,
            is_resolve_taken: self.is_resolve_taken,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pages::{Pages, tests::findings};

    fn record() -> Record {
        let region = |name| Region::configured(name).expect("plain");
        let mut pages = Pages::new("site-1".into(), Duration::ZERO, Duration::ZERO, 8);
        pages.open(1_795_163_417_000_000_000, "call_setup", vec![region("eu"), region("us")], findings("eu"));
        pages.take_changes().0.remove(0)
    }

    #[test]
    fn pages_come_back_as_they_were_with_their_examples() {
        let directory = tempfile::tempdir().expect("a directory");
        let page = record();
        {
            let store = Store::open(directory.path()).expect("opens");
            store.save(&Batch { pages: vec![page.clone()], ..Batch::default() }).expect("saves");
        }
        let store = Store::open(directory.path()).expect("opens");
        assert_eq!(store.load().expect("loads").pages, std::slice::from_ref(&page));
        let id = page.id.to_string();
        let example = |number| store.example(&id, number).expect("reads").map(Pii::into_inner);
        assert_eq!((example(0), example(1), example(2)), (None, Some("a@b".to_owned()), None));
        assert_eq!(store.example("ffffffffffffffff", 1).expect("reads"), None);
        store.save(&Batch { evicted: vec![page.id], ..Batch::default() }).expect("saves");
        assert_eq!(store.load().expect("loads").pages, []);
    }

    #[test]
    fn counts_come_back_and_what_is_too_old_is_dropped() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Store::open(directory.path()).expect("opens");
        let counts = Counts { good: 5, bad: 1, measured_seconds: 60 };
        let rows = |minute: u64| HistoryRows {
            series: "call_setup/call_setup/eu".into(),
            seconds: vec![(minute, vec![(7, 5, 1), (8, 0, 0)])],
            minutes: vec![(minute, counts)],
            hours: vec![(minute / 60, counts)],
        };
        let (first, second) = (29_919_390, 29_919_390 + 4_000);
        for minute in [first, second] {
            let batch = Batch { histories: vec![rows(minute)], now: minute * 60, ..Batch::default() };
            store.save(&batch).expect("saves");
        }
        let loaded = store.load().expect("loads");
        let steps = &loaded.steps["call_setup/call_setup/eu"];
        let of = |grain| {
            let of_grain = steps.iter().filter(|(other, _, _)| *other == grain);
            of_grain.map(|(_, step, _)| *step).collect::<Vec<_>>()
        };
        assert_eq!(of(Grain::Second), [second * 60 + 7, second * 60 + 8], "six hours of seconds");
        assert_eq!(of(Grain::Minute), [first, second], "three days of minutes");
        assert_eq!(of(Grain::Hour), [first / 60, second / 60]);
    }
}
