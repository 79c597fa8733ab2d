//! The desk: one task that owns metric rules, alerts, silences and groups, and hands over what is to be told.
//!
//! Rules are evaluated on blocking threads, each group by itself and never twice at once; what they find goes to the
//! store of series and to the dispatcher. What the dispatcher decides is on disk before the outbox sees it.

mod alertmanager;
mod handle;
mod json;
mod prometheus;
mod rules;
mod settings;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use belfry_dispatch::{Acknowledgement, Act, Bounds, Dispatch, Incoming, IntegrationKind, Notice, Resume};
use belfry_notify::{GroupAlert, GroupNotice, Notification, NotifyHandle, Standing, StandingState};
use belfry_ruler::{Fault, Faults};
use belfry_signal::Pii;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use crate::clock::Clock;
use crate::delivery::{Offer, offer};
use crate::error::Error;
use crate::signals::Signals;

pub(crate) use alertmanager::{Refusal, ended, router, saved};
pub(crate) use handle::Changed;
pub use handle::{DeskHandle, Metrics, Read, Write};
pub(crate) use json::parse_time;
pub use prometheus::GroupStatus;
pub use settings::{Routing, Sources};

pub(crate) use store::Change;

use handle::Command;
use rules::{Finished, Ruler, Written};
use store::{Loaded, Store};

#[cfg(test)]
mod tests;

const TICK: Duration = Duration::from_secs(1);
/// How long sources that were not heard since a restart are waited for.
const WAIT_MAX_MS: i64 = 180_000;
/// How long the end waits for results of rules that are being written.
const WRITING_MAX: Duration = Duration::from_secs(2);
/// The source of pages about SLOs; they have a way of their own, with evidence.
pub(crate) const SLO_SOURCE: &str = "slo";

/// Owns everything.
pub(crate) struct Desk {
    routing: Routing,
    dispatch: Dispatch,
    ruler: Ruler,
    notify: NotifyHandle,
    store: Store,
    signals: Signals,
    clock: Clock,
    running: JoinSet<Finished>,
    writing: JoinSet<Written>,
    statuses: watch::Sender<Arc<Vec<Arc<GroupStatus>>>>,
    alive_saved: Option<Instant>,
    is_delivery_refused: bool,
    groups_refused: u64,
    /// What services said of incidents when it was last looked at.
    standings_seen: Arc<Vec<Standing>>,
}

/// What a desk begins with.
pub(crate) struct Beginning {
    pub(crate) routing: Routing,
    pub(crate) sources: Sources,
    pub(crate) metrics: Option<Metrics>,
    pub(crate) notify: NotifyHandle,
    pub(crate) store_directory: std::path::PathBuf,
    pub(crate) signals: Signals,
    pub(crate) clock: Clock,
}

/// Starts the desk.
pub(crate) fn start(beginning: Beginning) -> Result<DeskHandle, Error> {
    let Beginning { routing, sources, metrics, notify, store_directory, signals, clock } = beginning;
    let store = Store::open(&store_directory, routing.audit_max)?;
    let loaded = store.load()?;
    let now_ms = millis(&clock);
    let down_ms = loaded.alive_ms.map_or(0, |alive| (now_ms - alive).max(0));
    let config = Arc::new(sources.alertmanager.clone());
    let mut ruler = Ruler::new(&routing, metrics, signals.clone());
    ruler.take(&sources.groups, now_ms);
    let Loaded { restored, kept, .. } = loaded;
    let is_fresh = loaded.alive_ms.is_none();
    let lost = ruler.restore(kept, down_ms);
    let bounds = bounds(&routing);
    let (dispatch, unreadable) = if is_fresh {
        (Dispatch::new(config, bounds), 0)
    } else {
        let resume = Resume {
            awaited: ruler.sources().chain([SLO_SOURCE.to_owned()]).collect(),
            wait_max_ms: WAIT_MAX_MS,
            posts_wait_ms: i64::try_from(routing.posts_wait.as_millis()).unwrap_or(i64::MAX),
            down_ms,
        };
        Dispatch::resume(config, bounds, restored, &resume, now_ms)
    };
    signals.desk_started(ruler.rules(), dispatch.sizes().0, lost + unreadable + loaded.unreadable);
    let (statuses, receiver) = watch::channel(Arc::new(Vec::new()));
    let (commands, inbox) = mpsc::channel(handle::COMMANDS_MAX);
    let handle = DeskHandle::new(commands, receiver, clock.clone(), signals.clone());
    let mut desk = Desk {
        routing,
        dispatch,
        ruler,
        notify,
        store,
        signals,
        clock,
        running: JoinSet::new(),
        writing: JoinSet::new(),
        statuses,
        alive_saved: None,
        is_delivery_refused: false,
        groups_refused: 0,
        standings_seen: Arc::default(),
    };
    desk.end_unknown_sources(now_ms);
    desk.publish();
    tokio::spawn(desk.run(inbox));
    Ok(handle)
}

fn bounds(routing: &Routing) -> Bounds {
    Bounds {
        alerts_max: routing.alerts_max,
        posted_max: routing.posted_max,
        posted_ahead_max_ms: i64::try_from(routing.posted_ahead_max.as_millis()).unwrap_or(i64::MAX),
        groups_max: routing.groups_max,
        silences_max: routing.silences_max,
        notices_max: routing.notices_max,
        external_url: routing.external_url.clone(),
        own_ways: vec![SLO_SOURCE.to_owned()],
    }
}

pub(crate) fn millis(clock: &Clock) -> i64 {
    i64::try_from(clock.unix_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

impl Desk {
    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.tick().await,
                Some(finished) = self.running.join_next() => self.finished(finished.ok()),
                Some(written) = self.writing.join_next() => self.ruler.written(written.ok()),
                command = inbox.recv() => match command {
                    Some(Command::Ask(ask)) => {
                        let now_ms = millis(&self.clock);
                        ask(&mut self.dispatch, now_ms);
                    }
                    Some(Command::AskAndSave(ask)) => {
                        let now_ms = millis(&self.clock);
                        let (audit, answer) = ask(&mut self.dispatch, now_ms);
                        if let Some(audit) = audit {
                            self.signals.silence_changed(audit.change);
                            self.store.note(audit);
                        }
                        answer(self.save().await);
                    }
                    Some(Command::Post { alerts, done }) => {
                        let taken = self.dispatch.post(alerts, millis(&self.clock));
                        self.signals.alerts_posted(taken);
                        // A caller that is gone does not want to know.
                        let _unheard = done.send(taken);
                    }
                    Some(Command::Reload { sources, done }) => {
                        self.reload(&sources).await;
                        let _unheard = done.send(());
                    }
                    Some(Command::Drain(done)) => {
                        let _unheard = done.send(self.end().await);
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
        let now_ms = millis(&self.clock);
        self.ruler.begin_due(now_ms, &mut self.running);
        self.follow_services();
        self.dispatch.tick(now_ms);
        if self.save().await {
            self.deliver().await;
        }
        let (firing, groups, waiting) = self.dispatch.sizes();
        self.signals.desk_moved(firing, groups, waiting);
        let refused = self.dispatch.groups_refused();
        if refused > self.groups_refused {
            self.signals.groups_were_refused(refused - self.groups_refused);
            self.groups_refused = refused;
        }
    }

    /// Takes over who works on what where services say it; what they said last holds.
    fn follow_services(&mut self) {
        let standings = self.notify.status().standings.clone();
        if Arc::ptr_eq(&standings, &self.standings_seen) {
            return;
        }
        let mut newest: BTreeMap<&str, &Standing> = BTreeMap::new();
        for standing in standings.iter() {
            let held = newest.entry(&standing.incident).or_insert(standing);
            if standing.since_unix_nanos > held.since_unix_nanos {
                *held = standing;
            }
        }
        self.dispatch.follow(|incident, held| {
            let standing = newest.get(incident)?;
            let is_acknowledged = standing.state == StandingState::Acknowledged;
            (is_acknowledged != held.is_some()).then(|| {
                is_acknowledged.then(|| Acknowledgement {
                    by: standing.by.clone().map(Pii::into_inner).unwrap_or_default(),
                    comment: standing.comment.clone(),
                    at_ms: i64::try_from(standing.since_unix_nanos / 1_000_000).unwrap_or(i64::MAX),
                    until_ms: None,
                })
            })
        });
        self.standings_seen = standings;
    }

    /// A group was evaluated: its alerts go to the dispatcher.
    fn finished(&mut self, finished: Option<Finished>) {
        let Some(finished) = finished else {
            self.signals.evaluation_was_lost();
            return;
        };
        let now_ms = millis(&self.clock);
        if let Some((source, firing)) = self.ruler.finished(finished, &mut self.writing) {
            let taken = self.dispatch.sync(&source, firing, now_ms);
            self.signals.alerts_refused(taken.refused);
        }
        self.publish();
    }

    fn publish(&mut self) {
        self.statuses.send_replace(Arc::new(self.ruler.statuses()));
    }

    /// Alerts of groups that are gone are over.
    fn end_unknown_sources(&mut self, now_ms: i64) {
        let known: Vec<String> = self.ruler.sources().collect();
        self.dispatch.await_only(|source| source == SLO_SOURCE || known.iter().any(|k| k == source));
        let of_rules =
            |source: &&str| source.starts_with(rules::SOURCE_PREFIX) && !known.iter().any(|k| k == source);
        let gone: Vec<String> = self.dispatch.sources().filter(of_rules).map(str::to_owned).collect();
        for source in gone {
            self.dispatch.sync(&source, Vec::new(), now_ms);
        }
    }

    /// Takes other rules and routes; what alerts and groups remember stays.
    async fn reload(&mut self, sources: &Sources) {
        let now_ms = millis(&self.clock);
        // A group that is out being evaluated is waited for, so that it takes what it remembers along.
        while let Some(finished) = self.running.join_next().await {
            self.finished(finished.ok());
        }
        let ended = self.ruler.take(&sources.groups, now_ms);
        self.ruler.write("", ended, &mut self.writing);
        self.end_unknown_sources(now_ms);
        self.dispatch.reconfigure(Arc::new(sources.alertmanager.clone()), now_ms);
        self.save().await;
        self.signals.desk_reloaded(self.ruler.rules());
        self.publish();
    }

    /// Writes what changed; whether everything is on disk.
    async fn save(&mut self) -> bool {
        let changes = self.dispatch.take_changes();
        let rows = self.ruler.take_changes();
        let audits = self.store.take_notes();
        let now_ms = millis(&self.clock);
        let is_alive_due = self.alive_saved.is_none_or(|at| at.elapsed() >= self.routing.save_every);
        if changes.is_empty() && rows.is_empty() && audits.is_empty() && !is_alive_due {
            return true;
        }
        let batch = Arc::new((changes, rows, audits));
        let (store, written) = (self.store.clone(), batch.clone());
        let saving = tokio::task::spawn_blocking(move || {
            let (changes, rows, audits) = &*written;
            store.save(changes, rows, audits, now_ms)
        });
        match saving.await.unwrap_or(Err(Error::Interrupted)) {
            Ok(()) => {
                self.alive_saved = Some(Instant::now());
                true
            }
            Err(error) => {
                self.signals.store_failed(&error);
                let (changes, rows, audits) = &*batch;
                self.dispatch.keep_changes(changes);
                self.ruler.keep_changes(rows.iter().map(|(name, _)| name.clone()));
                self.store.note_again(audits);
                false
            }
        }
    }

    /// Offers the outbox what it has not taken, in order; stops at the first refusal, unless that concerns one way only.
    async fn deliver(&mut self) {
        let notices: Vec<Notice> = self.dispatch.notices().cloned().collect();
        let newest: BTreeMap<(String, String), u64> = notices
            .iter()
            .map(|notice| ((notice.target.clone(), notice.incident.clone()), notice.seq))
            .collect();
        let mut refused = None;
        let mut full = BTreeSet::new();
        for notice in notices {
            let (seq, target) = (notice.seq, notice.target.clone());
            let is_superseded = newest.get(&(target.clone(), notice.incident.clone())) > Some(&seq);
            // An end always has room.
            let is_known_full = full.contains(&target) && notice.act == Act::Trigger;
            let offered = match is_known_full {
                true => Offer::Full,
                false => {
                    let notification = Notification::Notice(Box::new(self.told(notice)));
                    offer(&self.notify, notification).await
                }
            };
            match offered {
                Offer::Taken => self.dispatch.taken(seq),
                Offer::Full => {
                    refused = Some("full");
                    // What a later notice of the incident says better needs not wait.
                    if is_superseded {
                        self.dispatch.taken(seq);
                    }
                    // Of all services together some may have room.
                    if self.dispatch_kind(&target) != Some(IntegrationKind::Service(None)) {
                        full.insert(target);
                    }
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

    /// A notice as the outbox takes it.
    fn told(&self, notice: Notice) -> GroupNotice {
        let kind = self.dispatch_kind(&notice.target);
        GroupNotice {
            to: match kind {
                Some(IntegrationKind::Service(name)) => name,
                _ => Some(notice.target),
            },
            incident: notice.incident,
            number: notice.number,
            is_resolve: notice.act == Act::Resolve,
            receiver: notice.receiver,
            group_key: notice.group_key,
            group_labels: notice.group_labels,
            common_labels: notice.common_labels,
            common_annotations: notice.common_annotations,
            alerts: notice
                .alerts
                .into_iter()
                .map(|alert| GroupAlert {
                    is_firing: alert.is_firing,
                    labels: alert.labels,
                    annotations: alert.annotations,
                    starts_at_ms: alert.starts_at_ms,
                    ends_at_ms: alert.ends_at_ms,
                    generator_url: alert.generator_url,
                    fingerprint: alert.fingerprint,
                })
                .collect(),
            truncated: notice.truncated,
            texts: notice.texts,
            external_url: self.routing.external_url.clone(),
        }
    }

    fn dispatch_kind(&self, target: &str) -> Option<IntegrationKind> {
        let config = self.dispatch.config();
        let integrations = config.receivers.iter().flat_map(|receiver| &receiver.integrations);
        integrations.into_iter().find(|other| other.target == target).map(|other| other.kind.clone())
    }

    /// Waits for points that are on their way, not for ever.
    async fn end_writing(&mut self) -> Vec<String> {
        let until = Instant::now() + WRITING_MAX;
        while let Ok(Some(written)) = timeout_at(until, self.writing.join_next()).await {
            self.ruler.written(written.ok());
        }
        let groups = self.writing.len();
        (groups > 0)
            .then(|| format!("alerts: results of {groups} groups of rules were not written"))
            .into_iter()
            .collect()
    }

    async fn end(&mut self) -> Vec<String> {
        self.ruler.cancel();
        while let Some(finished) = self.running.join_next().await {
            self.finished(finished.ok());
        }
        let mut stragglers = self.end_writing().await;
        self.alive_saved = None;
        if !self.save().await {
            stragglers.push("alerts: alerts and silences were not written".to_owned());
        } else {
            self.deliver().await;
            self.save().await;
        }
        let waiting = self.dispatch.sizes().2;
        if waiting > 0 {
            stragglers.push(format!("alerts: {waiting} notices wait for the outbox"));
        }
        stragglers
    }
}

/// An alert of a rule as the dispatcher takes it.
pub(crate) fn incoming(
    labels: &belfry_promql::Labels,
    annotations: &[(String, String)],
    since_ms: i64,
    url: String,
) -> Incoming {
    Incoming {
        labels: labels.clone(),
        annotations: annotations.to_vec(),
        starts_at_ms: Some(since_ms),
        ends_at_ms: None,
        generator_url: url,
    }
}

/// Sources by name, for what is kept of them.
pub(crate) type ByGroup<T> = BTreeMap<String, T>;

/// The first mistake of a file as an error.
pub(crate) fn faulty(file: &str, faults: &Faults) -> Error {
    let lines = faults.0.iter().map(|fault: &Fault| format!("{file}:{fault}"));
    Error::File { faults: lines.collect::<Vec<_>>().join("; ") }
}
