//! Pages: how tripped regions become one, who still has to be told, and when they end. No I/O and no clock.
//!
//! Regions of one SLO that trip within the group window form one page; one that trips soon after it was sent
//! joins it, and so does one of its own regions that trips again. The page ends when every region of it is fine.
//! Each page is told of exactly once when it begins and once when it ends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use belfry_notify::{AlertName, BudgetFigures, DedupKey, Notification, Page as Told, PageId};
use belfry_signal::{Journey, Pii, Region};

use crate::evidence::Evidence;
use crate::status::{Page as Shown, PageState};

#[cfg(test)]
pub(crate) mod tests;

/// A region of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) region: Region,
    pub(crate) is_burning: bool,
}

/// A page that was or will be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) id: PageId,
    pub(crate) dedup_key: DedupKey,
    /// The site in whose name the key was made.
    pub(crate) site: String,
    pub(crate) slo: String,
    pub(crate) alert: AlertName,
    pub(crate) journey: Journey,
    /// The region with the most bad events when it was sent.
    pub(crate) lead: Region,
    pub(crate) members: Vec<Member>,
    pub(crate) evidence: Evidence,
    pub(crate) budget: BudgetFigures,
    pub(crate) started_unix_nanos: u64,
    pub(crate) resolved_unix_nanos: Option<u64>,
    /// The outbox has the trigger.
    pub(crate) is_trigger_taken: bool,
    /// The outbox has the resolve.
    pub(crate) is_resolve_taken: bool,
}

/// What a page that is about to be sent says.
#[derive(Clone, Debug)]
pub(crate) struct Findings {
    pub(crate) alert: AlertName,
    pub(crate) journey: Journey,
    pub(crate) lead: Region,
    pub(crate) evidence: Evidence,
    pub(crate) budget: BudgetFigures,
}

/// Regions that tripped together and wait a moment for others.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Forming {
    members: Vec<Member>,
    due_unix_nanos: u64,
}

/// All pages.
#[derive(Debug)]
pub(crate) struct Pages {
    site: String,
    group_window: Duration,
    group_join: Duration,
    pages_max: usize,
    forming: BTreeMap<String, Forming>,
    /// Oldest first.
    records: VecDeque<Record>,
    changed: BTreeSet<PageId>,
    evicted: Vec<PageId>,
}

/// Which of its two messages of a page the outbox took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Trigger,
    Resolve,
}

impl Pages {
    pub(crate) fn new(site: String, group_window: Duration, group_join: Duration, pages_max: usize) -> Self {
        Self {
            site,
            group_window,
            group_join,
            pages_max,
            forming: BTreeMap::new(),
            records: VecDeque::new(),
            changed: BTreeSet::new(),
            evicted: Vec::new(),
        }
    }

    /// Puts back written pages, in any order.
    pub(crate) fn restore(&mut self, mut records: Vec<Record>) {
        records.sort_by_key(|record| record.started_unix_nanos);
        self.records = records.into();
    }

    /// All pages, oldest first.
    pub(crate) fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.iter()
    }

    /// A region of an SLO began to burn.
    pub(crate) fn tripped(&mut self, now_unix_nanos: u64, slo: &str, region: &Region) {
        let join_nanos = nanos(self.group_join);
        let open = self.records.iter_mut().rev().filter(|record| record.is_open() && record.slo == slo);
        for record in open {
            let member = record.members.iter_mut().find(|member| member.region == *region);
            let is_recent = now_unix_nanos.saturating_sub(record.started_unix_nanos) <= join_nanos;
            match member {
                Some(member) => member.is_burning = true,
                None if is_recent => {
                    record.members.push(Member { region: region.clone(), is_burning: true });
                }
                None => continue,
            }
            self.changed.insert(record.id);
            return;
        }
        let due_unix_nanos = now_unix_nanos.saturating_add(nanos(self.group_window));
        let forming = self.forming.entry(slo.to_owned());
        let members = &mut forming.or_insert(Forming { members: vec![], due_unix_nanos }).members;
        match members.iter_mut().find(|member| member.region == *region) {
            Some(member) => member.is_burning = true,
            None => members.push(Member { region: region.clone(), is_burning: true }),
        }
    }

    /// A region of an SLO is fine again; the page that ended with it, if one did.
    pub(crate) fn recovered(&mut self, now_unix_nanos: u64, slo: &str, region: &Region) -> Option<&Record> {
        if let Some(forming) = self.forming.get_mut(slo) {
            settle(&mut forming.members, region);
        }
        // A region burns in one open page at most: it comes back to the page that it is in.
        let mut open = self.records.iter_mut().filter(|record| record.is_open() && record.slo == slo);
        let record = open.find_map(|record| settle(&mut record.members, region).then_some(record))?;
        self.changed.insert(record.id);
        if record.members.iter().any(|member| member.is_burning) {
            return None;
        }
        record.resolved_unix_nanos = Some(now_unix_nanos);
        Some(record)
    }

    /// Ends an open page whose SLO is no longer judged: nobody else would.
    pub(crate) fn close_orphans(&mut self, now_unix_nanos: u64, is_judged: impl Fn(&str) -> bool) {
        for record in self.records.iter_mut().filter(|record| record.is_open() && !is_judged(&record.slo)) {
            record.members.iter_mut().for_each(|member| member.is_burning = false);
            record.resolved_unix_nanos = Some(now_unix_nanos);
            self.changed.insert(record.id);
        }
    }

    /// The groups whose moment of waiting is over, by SLO, with the regions that still burn.
    /// A group that is fine again by then was nothing to wake somebody for.
    pub(crate) fn due(&mut self, now_unix_nanos: u64) -> Vec<(String, Vec<Region>)> {
        let is_due = |forming: &Forming| forming.due_unix_nanos <= now_unix_nanos;
        let due: Vec<String> =
            self.forming.iter().filter(|(_, forming)| is_due(forming)).map(|(slo, _)| slo.clone()).collect();
        let mut groups = Vec::new();
        for slo in due {
            let Some(forming) = self.forming.remove(&slo) else { continue };
            let burning = forming.members.into_iter().filter(|member| member.is_burning);
            let regions: Vec<Region> = burning.map(|member| member.region).collect();
            if !regions.is_empty() {
                groups.push((slo, regions));
            }
        }
        groups
    }

    /// Opens the page of a group. Its messages are due with [`Pages::undelivered`].
    pub(crate) fn open(
        &mut self,
        now_unix_nanos: u64,
        slo: &str,
        regions: Vec<Region>,
        found: Findings,
    ) -> Record {
        self.make_room();
        let dedup_key = DedupKey::of(&self.site, slo, &found.lead);
        let id = PageId::of(&dedup_key, now_unix_nanos);
        self.changed.insert(id);
        let record = Record {
            id,
            dedup_key,
            site: self.site.clone(),
            slo: slo.to_owned(),
            alert: found.alert,
            journey: found.journey,
            lead: found.lead,
            members: regions.into_iter().map(|region| Member { region, is_burning: true }).collect(),
            evidence: found.evidence,
            budget: found.budget,
            started_unix_nanos: now_unix_nanos,
            resolved_unix_nanos: None,
            is_trigger_taken: false,
            is_resolve_taken: false,
        };
        self.records.push_back(record.clone());
        record
    }

    /// Forgets the oldest pages that are over and told, until there is room for one more.
    fn make_room(&mut self) {
        while self.records.len() >= self.pages_max {
            let Some(oldest) = self.records.iter().position(Record::is_done) else { return };
            if let Some(record) = self.records.remove(oldest) {
                self.changed.remove(&record.id);
                self.evicted.push(record.id);
            }
        }
    }

    /// What still has to be told, in order: a page's trigger before its resolve.
    pub(crate) fn undelivered(&self) -> Vec<(PageId, Delivery, Notification)> {
        let mut messages = Vec::new();
        for record in &self.records {
            if !record.is_trigger_taken {
                messages.push((record.id, Delivery::Trigger, Notification::Trigger(Box::new(record.told()))));
            }
            if record.resolved_unix_nanos.is_some() && !record.is_resolve_taken {
                let resolve = Notification::Resolve { id: record.id, dedup_key: record.dedup_key.clone() };
                messages.push((record.id, Delivery::Resolve, resolve));
            }
        }
        messages
    }

    /// The outbox took a message.
    pub(crate) fn delivered(&mut self, id: PageId, delivery: Delivery) {
        if let Some(record) = self.records.iter_mut().find(|record| record.id == id) {
            match delivery {
                Delivery::Trigger => record.is_trigger_taken = true,
                Delivery::Resolve => record.is_resolve_taken = true,
            }
            self.changed.insert(id);
        }
    }

    /// A page is over that was not told: nobody has to be told of it any more.
    pub(crate) fn let_go(&mut self, id: PageId) {
        self.delivered(id, Delivery::Trigger);
        self.delivered(id, Delivery::Resolve);
    }

    /// Pages to be written down and pages to be forgotten, since the last time this was asked.
    pub(crate) fn take_changes(&mut self) -> (Vec<Record>, Vec<PageId>) {
        let changed = std::mem::take(&mut self.changed);
        let records = self.records.iter().filter(|record| changed.contains(&record.id)).cloned().collect();
        (records, std::mem::take(&mut self.evicted))
    }

    /// Gives back changes that could not be written down.
    pub(crate) fn keep_changes(&mut self, records: &[Record], evicted: Vec<PageId>) {
        self.changed.extend(records.iter().map(|record| record.id));
        self.evicted.extend(evicted);
    }

    /// Whether something has to be written down.
    pub(crate) fn has_changes(&self) -> bool {
        !self.changed.is_empty() || !self.evicted.is_empty()
    }

    /// How many pages go on.
    pub(crate) fn open_count(&self) -> usize {
        self.records.iter().filter(|record| record.is_open()).count()
    }

    /// The pages for people, newest first.
    pub(crate) fn shown(&self) -> Vec<Shown> {
        self.records.iter().rev().map(Record::shown).collect()
    }
}

impl Record {
    pub(crate) fn is_open(&self) -> bool {
        self.resolved_unix_nanos.is_none()
    }

    fn is_done(&self) -> bool {
        self.is_resolve_taken
    }

    fn regions(&self) -> Vec<Region> {
        self.members.iter().map(|member| member.region.clone()).collect()
    }

    fn told(&self) -> Told {
        Told {
            id: self.id,
            dedup_key: self.dedup_key.clone(),
            alert: self.alert,
            journey: self.journey,
            region: self.lead.clone(),
            regions: self.regions(),
            room: self.evidence.room,
            causes: self.evidence.causes.clone(),
            examples: self.evidence.examples.len(),
            started_unix_nanos: self.started_unix_nanos,
            budget: self.budget,
        }
    }

    fn shown(&self) -> Shown {
        Shown {
            id: self.id.to_string(),
            alert: self.alert,
            journey: self.journey,
            region: self.lead.clone(),
            regions: self.regions(),
            room: self.evidence.room,
            causes: self.evidence.causes.clone(),
            state: if self.is_open() { PageState::Triggered } else { PageState::Resolved },
            triggered_unix_nanos: self.started_unix_nanos,
            resolved_unix_nanos: self.resolved_unix_nanos,
            summary: self.summary(),
            examples: self.evidence.examples.len(),
            handled: None,
        }
    }

    fn summary(&self) -> String {
        let regions: Vec<_> = self.members.iter().map(|member| member.region.as_str()).collect();
        let causes = self.evidence.causes.iter();
        let causes: Vec<_> = causes.map(|(cause, count)| format!("{} {count}", cause.as_str())).collect();
        let because = if causes.is_empty() { String::new() } else { format!(" ({})", causes.join(", ")) };
        format!(
            "{} in {} fails at {}{because}: {} of {} events bad in {} s",
            self.journey.as_str(),
            regions.join(", "),
            self.evidence.room.as_str(),
            self.budget.bad_events,
            self.budget.events,
            self.budget.window_seconds,
        )
    }

    /// The call behind an example's number, from 1.
    pub(crate) fn example(&self, number: usize) -> Option<&Pii<String>> {
        number.checked_sub(1).and_then(|place| self.evidence.examples.get(place))
    }
}

/// Marks a region as fine; whether it was burning.
fn settle(members: &mut [Member], region: &Region) -> bool {
    let burning = members.iter_mut().find(|member| member.region == *region && member.is_burning);
    burning.is_some_and(|member| {
        member.is_burning = false;
        true
    })
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
