//! The task that owns the engine's state.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use belfry_dispatch::Incoming;
use belfry_notify::{BudgetFigures, NotifyHandle, PageId};
use belfry_promql::Labels;
use belfry_signal::{Region, Registry, now_unix_nanos};
use belfry_slo::{Grain, History, PPM, Severity, Transition, Window};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::clock::Clock;
use crate::config::Config;
use crate::corrections::{self, Correction, Corrections, Refused};
use crate::delivery::{Offer, offer};
use crate::desk::{DeskHandle, incoming};
use crate::error::Error;
use crate::evidence;
use crate::handle::EngineDeps;
use crate::handling::handled;
use crate::judge::Judge;
use crate::pages::{Delivery, Findings, Pages, Record};
use crate::policy::Policies;
use crate::queries::Queries;
use crate::rules::Rule;
use crate::signals::{Signals, ppm};
use crate::status::{Change, PageState, Status, Watchdog};
use crate::store::{Batch, HistoryRows, Loaded, SecondRow, Store};

#[cfg(test)]
mod tests;

const NANOS: u64 = 1_000_000_000;
/// How often everything is judged.
const TICK: Duration = Duration::from_secs(1);

/// What the handle asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Change(Change),
    Correct { change: corrections::Change, done: oneshot::Sender<Result<Correction, Refused>> },
    Corrections(oneshot::Sender<Vec<Correction>>),
    Drain(oneshot::Sender<Vec<String>>),
}

/// Owns everything; [`crate::EngineHandle`] talks to it.
pub(crate) struct Runner {
    config: Config,
    registry: Registry,
    notify: NotifyHandle,
    desk: Option<DeskHandle>,
    store: Store,
    signals: Signals,
    clock: Clock,
    publisher: watch::Sender<Arc<Status>>,
    judge: Judge,
    queries: Queries,
    corrections: Corrections,
    policies: Policies,
    pages: Pages,
    /// Newest first.
    changes: VecDeque<Change>,
    evaluations: u64,
    /// The second up to which counts are on disk, and when they were last written.
    saved_second: u64,
    saved_at: Instant,
    /// The outbox refused the last message: said once, not each second.
    is_delivery_refused: bool,
}

impl Runner {
    pub(crate) fn new(
        config: Config,
        rules: Vec<Rule>,
        deps: EngineDeps,
        store: Store,
        signals: Signals,
        clock: Clock,
        publisher: watch::Sender<Arc<Status>>,
    ) -> Self {
        let site = deps.registry.emitter().resource().site.clone();
        Self {
            queries: Queries::new(&rules, deps.metrics, signals.clone()),
            judge: Judge::new(rules, config.regions.clone(), config.stale_after.as_secs()),
            pages: Pages::new(site, config.group_window, config.group_join, config.pages_max),
            config,
            registry: deps.registry,
            notify: deps.notify,
            desk: deps.desk,
            store,
            signals,
            clock,
            publisher,
            corrections: Corrections::default(),
            policies: Policies::default(),
            changes: VecDeque::new(),
            evaluations: 0,
            saved_second: 0,
            saved_at: Instant::now(),
            is_delivery_refused: false,
        }
    }

    /// Takes up what was written: counts, open pages, and what is still owed about them.
    pub(crate) fn restore(&mut self, loaded: Loaded) {
        let places: BTreeMap<String, usize> =
            (0..).zip(self.judge.rules()).map(|(place, rule)| (series_prefix(rule), place)).collect();
        for (series, steps) in loaded.steps {
            let Some((prefix, region)) = series.rsplit_once('/') else { continue };
            // Counts of an SLO that is gone stay in the file: it may come back.
            let (Some(rule), Ok(region)) = (places.get(prefix), Region::configured(region)) else { continue };
            for (grain, step, counts) in steps {
                self.judge.restore(*rule, &region, grain, step, counts);
            }
        }
        self.saved_second = self.clock.unix_nanos() / NANOS;
        self.corrections.restore(loaded.corrections);
        self.pages.restore(loaded.pages);
        let names: Vec<String> = self.judge.rules().iter().map(|rule| rule.slo.name.clone()).collect();
        self.pages.close_orphans(self.clock.unix_nanos(), |slo| names.iter().any(|name| name == slo));
        for record in self.pages.records().filter(|record| record.is_open()) {
            let Some(rule) = names.iter().position(|name| *name == record.slo) else { continue };
            for member in record.members.iter().filter(|member| member.is_burning) {
                self.judge.restore_firing(rule, &member.region, record.started_unix_nanos / NANOS);
            }
        }
        self.signals.started(names.len(), self.pages.open_count(), loaded.unreadable);
    }

    /// Judges each second until drained, or until nobody holds a handle any more.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.tick().await,
                found = self.queries.next() => if let Some(found) = found {
                    self.judge.measured(found.rule, found.second, &found.metered, found.beyond);
                },
                command = commands.recv() => match command {
                    Some(Command::Change(change)) => self.changed(change),
                    // A caller that is gone does not want to know.
                    Some(Command::Correct { change, done }) => drop(done.send(self.correct(change).await)),
                    Some(Command::Corrections(done)) => drop(done.send(self.corrections.all().to_vec())),
                    Some(Command::Drain(done)) => {
                        let stragglers = self.end().await;
                        // A caller that is gone does not want to know.
                        let _unheard = done.send(stragglers);
                        return;
                    }
                    None => {
                        self.end().await;
                        return;
                    }
                },
            }
        }
    }

    async fn tick(&mut self) {
        let (began, now_nanos) = (Instant::now(), self.clock.unix_nanos());
        let now = now_nanos / NANOS;
        self.queries.begin_due(now);
        if !self.corrections.all().is_empty() {
            self.judge.exclude(|slo, place| self.corrections.of(slo, place));
        }
        let counts = self.registry.journeys().counts();
        for turn in self.judge.sample(now, &counts) {
            let slo = self.judge.rules()[turn.rule].slo.name.clone();
            match turn.transition {
                Transition::Triggered => self.pages.tripped(now_nanos, &slo, &turn.region),
                Transition::Resolved => {
                    if let Some(record) = self.pages.recovered(now_nanos, &slo, &turn.region) {
                        self.signals.page_resolved(record);
                    }
                }
            }
        }
        for (slo, regions) in self.pages.due(now_nanos) {
            if let Some(found) = self.find(now, &slo, &regions) {
                let record = self.pages.open(now_nanos, &slo, regions, found);
                self.signals.page_triggered(&record);
            }
        }
        // A page is on disk before the outbox has it: after a crash in between it is offered again, and the
        // other way round nobody would remember that a resolve is owed. When the disk refuses, paging goes on all the
        // same: that is an error of its own in the log, and an unpaged fault would be the greater harm.
        if self.pages.has_changes() || self.saved_at.elapsed() >= self.config.save_every {
            self.save(now).await;
        }
        self.deliver().await;
        self.evaluations += 1;
        self.publish(now_nanos, began);
    }

    /// What the page of a group says: evidence and figures over all of its regions.
    fn find(&self, now: u64, slo: &str, regions: &[Region]) -> Option<Findings> {
        let (place, rule) = (0..).zip(self.judge.rules()).find(|(_, rule)| rule.slo.name == slo)?;
        let burning =
            regions.iter().filter_map(|region| self.judge.assessment(place, region)?.worst_page_pair());
        let fastest = burning.map(|(pair, _)| pair).max_by_key(|pair| pair.factor_milli);
        let page_pairs = rule.slo.pairs.iter().copied().filter(|pair| pair.severity == Severity::Page);
        let window_seconds = fastest.into_iter().chain(page_pairs).next()?.long_seconds;
        let windows: Vec<(&Region, Window)> = regions
            .iter()
            .map(|region| (region, self.judge.window(place, region, now, window_seconds)))
            .collect();
        let (lead, _) = windows.iter().max_by_key(|(_, window)| window.bad)?;
        let (bad_events, events) = windows
            .iter()
            .fold((0_u64, 0_u64), |sum, (_, window)| (sum.0 + window.bad, sum.1 + window.total()));
        let budget_ppm = u128::from(rule.slo.objective.budget_ppm());
        let burn_milli = (u128::from(bad_events) * u128::from(PPM) * 1_000)
            .checked_div(u128::from(events) * budget_ppm)
            .unwrap_or(0);
        let remaining = self.judge.assessment(place, lead).map_or(0.0, |a| a.budget.remaining_ratio());
        // Failed events carry the wall clock's time, whatever clock the engine goes by.
        let since = now_unix_nanos().saturating_sub(window_seconds.saturating_mul(NANOS));
        let journeys = self.registry.journeys();
        // What queries count, nobody here saw fail.
        let seen = regions.iter().filter(|_| rule.is_counted_here());
        let failed = seen.flat_map(|region| journeys.failed_since(rule.journey, region, since));
        Some(Findings {
            alert: rule.alert,
            journey: rule.journey,
            lead: (*lead).clone(),
            evidence: evidence::gather(rule.journey, failed.collect()),
            budget: BudgetFigures {
                objective_ppm: rule.slo.objective.ppm(),
                window_seconds,
                bad_events,
                events,
                burn_milli: u64::try_from(burn_milli).unwrap_or(u64::MAX),
                budget_remaining_ppm: ppm(remaining),
            },
        })
    }

    /// Writes changed pages and the counts since the last time.
    async fn save(&mut self, now: u64) -> bool {
        let (pages, evicted) = self.pages.take_changes();
        // A clock that stepped back takes written steps with it: they are written anew.
        let from = self.saved_second.min(now);
        let histories = self.judge.histories().map(|((rule, region), history)| {
            let rule = &self.judge.rules()[*rule];
            history_rows(format!("{}/{region}", series_prefix(rule)), history, from)
        });
        let batch =
            Arc::new(Batch { pages, evicted, histories: histories.collect(), now, ..Batch::default() });
        let (store, written) = (self.store.clone(), batch.clone());
        let saving = tokio::task::spawn_blocking(move || store.save(&written));
        self.saved_at = Instant::now();
        match saving.await.unwrap_or(Err(Error::Interrupted)) {
            Ok(()) => {
                self.saved_second = now;
                true
            }
            Err(error) => {
                self.signals.store_failed(&error);
                self.pages.keep_changes(&batch.pages, batch.evicted.clone());
                false
            }
        }
    }

    /// Tells the desk of the pages that go on; those that were not told yet and that something keeps from being told.
    /// One that is over before it was told needs nobody: neither its beginning nor its end goes out.
    async fn withheld(&mut self) -> BTreeSet<PageId> {
        let Some(desk) = self.desk.clone() else { return BTreeSet::new() };
        let going: Vec<(PageId, bool, Incoming)> = self
            .pages
            .records()
            .filter(|record| record.is_open() || !record.is_trigger_taken)
            .map(|record| (record.id, record.is_open(), alert_of(record)))
            .collect();
        let alerts = going.iter().map(|(_, _, alert)| alert.clone()).collect();
        let kept = desk.judge_slos(alerts).await;
        let kept = going.into_iter().zip(kept).filter(|(_, is_kept)| *is_kept);
        let kept: Vec<(PageId, bool)> = kept.map(|((id, is_open, _), _)| (id, is_open)).collect();
        for (id, _) in kept.iter().filter(|(_, is_open)| !is_open) {
            self.pages.let_go(*id);
        }
        kept.into_iter().map(|(id, _)| id).collect()
    }

    /// Offers the outbox what it has not taken yet, in order; stops at the first refusal, unless that concerns one of
    /// several services only.
    async fn deliver(&mut self) {
        let withheld = self.withheld().await;
        let mut refused = None;
        let mut passed = BTreeSet::new();
        for (id, delivery, notification) in self.pages.undelivered() {
            if (delivery == Delivery::Trigger && withheld.contains(&id)) || passed.contains(&id) {
                continue;
            }
            match offer(&self.notify, notification).await {
                Offer::Taken => self.pages.delivered(id, delivery),
                Offer::Full => {
                    refused = Some("full");
                    passed.insert(id);
                }
                Offer::Refused(reason) => {
                    refused = Some(reason);
                    break;
                }
            }
        }
        if let Some(reason) = refused.filter(|_| !self.is_delivery_refused) {
            self.signals.delivery_was_refused(reason);
        }
        self.is_delivery_refused = refused.is_some();
    }

    /// Makes a correction once it is on disk.
    async fn correct(&mut self, change: corrections::Change) -> Result<Correction, Refused> {
        let now_nanos = self.clock.unix_nanos();
        let is_slo = |name: &str| self.judge.rules().iter().any(|rule| rule.slo.name == name);
        let correction = self.corrections.decide(&change, now_nanos / NANOS, is_slo)?;
        let batch =
            Batch { corrections: vec![correction.clone()], now: self.saved_second, ..Batch::default() };
        let store = self.store.clone();
        let saved = tokio::task::spawn_blocking(move || store.save(&batch)).await;
        if let Err(error) = saved.unwrap_or(Err(Error::Interrupted)) {
            self.signals.store_failed(&error);
            return Err(Refused::Unsaved);
        }
        self.corrections.take(correction.clone());
        let verb = if correction.withdrawn.is_some() { "withdrawn" } else { "made" };
        self.changed(Change {
            unix_nanos: now_nanos,
            kind: "slo_correction",
            text: format!("correction {} of {} was {verb}", correction.id, correction.slo),
        });
        Ok(correction)
    }

    fn publish(&mut self, now_nanos: u64, began: Instant) {
        let slos = self.judge.slos();
        for (slo, spent_percent, action) in self.policies.news(&slos) {
            self.signals.policy_was_reached(&slo, spent_percent, action);
            let text = format!("{spent_percent} % of the budget of {} in {} is gone", slo.name, slo.region);
            self.changed(Change { unix_nanos: now_nanos, kind: action, text });
        }
        self.signals.evaluated(now_nanos, began.elapsed(), &slos);
        self.signals.pages_moved(self.pages.open_count(), self.pages.undelivered().len());
        let standings = self.notify.status().standings.clone();
        let mut pages = self.pages.shown();
        for page in pages.iter_mut().filter(|page| page.state == PageState::Triggered) {
            page.handled = handled(&standings, &page.id);
        }
        let status = Status {
            unix_nanos: now_nanos,
            watchdog: Watchdog { unix_nanos: now_nanos, evaluations: self.evaluations },
            slos,
            cells: self.judge.cells(now_nanos / NANOS),
            pages,
            changes: self.changes.iter().cloned().collect(),
        };
        self.publisher.send_replace(Arc::new(status));
    }

    fn changed(&mut self, change: Change) {
        self.changes.push_front(change);
        self.changes.truncate(self.config.changes_max);
    }

    async fn end(&mut self) -> Vec<String> {
        self.tick().await;
        let now = self.clock.unix_nanos() / NANOS;
        let mut stragglers = Vec::new();
        if !self.save(now).await {
            stragglers.push(format!("alerts: counts since second {} were not written", self.saved_second));
        }
        let undelivered = self.pages.undelivered().len();
        if undelivered > 0 {
            stragglers.push(format!("alerts: {undelivered} messages of pages wait for the outbox"));
        }
        stragglers
    }
}

/// A page as an alert, for silences, inhibition and the APIs.
fn alert_of(record: &Record) -> Incoming {
    let page = record.id.to_string();
    let labels = Labels::from_pairs([
        ("alertname", record.alert.as_str()),
        ("slo", record.slo.as_str()),
        ("journey", record.journey.as_str()),
        ("region", record.lead.as_str()),
        ("site", record.site.as_str()),
        ("severity", "page"),
        ("page", page.as_str()),
    ]);
    let since_ms = i64::try_from(record.started_unix_nanos / 1_000_000).unwrap_or(i64::MAX);
    incoming(&labels, &[], since_ms, String::new())
}

/// What the series of a rule are called on disk, without the region.
fn series_prefix(rule: &Rule) -> String {
    format!("{}/{}", rule.slo.name, rule.journey.as_str())
}

/// The steps of a history from the second `from` on, whole minutes and hours at a time.
fn history_rows(series: String, history: &History, from: u64) -> HistoryRows {
    let first_minute = from / 60;
    let mut seconds: Vec<(u64, Vec<SecondRow>)> = Vec::new();
    for (second, counts) in history.steps(Grain::Second, first_minute * 60) {
        let (minute, place) = (second / 60, u8::try_from(second % 60).unwrap_or(0));
        if seconds.last().is_none_or(|(last, _)| *last != minute) {
            seconds.push((minute, Vec::new()));
        }
        if let Some((_, row)) = seconds.last_mut() {
            row.push((place, counts.good, counts.bad));
        }
    }
    HistoryRows {
        series,
        seconds,
        minutes: history.steps(Grain::Minute, first_minute).collect(),
        hours: history.steps(Grain::Hour, from / 3_600).collect(),
    }
}
