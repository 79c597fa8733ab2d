//! The task that owns the outbox and sends it.
//!
//! Events of one service and dedup key form a lane. A lane sends its first event and nothing else until that
//! one is accepted or rejected, so a resolve never overtakes its trigger. Lanes do not wait for each other,
//! except that a service which asks for a pause gets it from all of its lanes.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use belfry_signal::{Journey, now_unix_nanos};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::back::Standing;
use crate::back::standing::Report;
use crate::client::{Outcome, Post};
use crate::config::Config;
use crate::error::Error;
use crate::event;
use crate::handle::{NotifyStatus, RejectedStatus, ServiceStatus, on_blocking_thread};
use crate::key::RoutingKey;
use crate::outbox::{Act, Draft, Entry, Outbox, Rejected, Word};
use crate::page::Notification;
use crate::signals::{Action, RetryReason, ServiceName, Signals};
use crate::target::Destination;

mod back;
#[cfg(test)]
mod tests;

/// What the handle asks for.
#[derive(Debug)]
pub(crate) enum Command {
    Enqueue { notification: Notification, done: oneshot::Sender<Result<(), Error>> },
    Report { service: String, report: Report, done: oneshot::Sender<Result<(), Error>> },
    Say { word: Word, done: oneshot::Sender<Result<bool, Error>> },
    OpenKeys { service: String, done: oneshot::Sender<Result<Vec<String>, Error>> },
    SetTargets { targets: Vec<Service>, done: oneshot::Sender<()> },
    Drain { until: Instant, done: oneshot::Sender<Vec<String>> },
}

/// A configured service, ready for use.
#[derive(Debug)]
pub(crate) struct Service {
    /// As entries of the outbox name it.
    pub(crate) id: String,
    pub(crate) name: ServiceName,
    pub(crate) to: Destination,
    /// Absent for webhooks.
    pub(crate) key: Option<RoutingKey>,
    pub(crate) journeys: Option<Vec<Journey>>,
    /// It stands in the routes of alerts, not in the configuration: pages do not go there.
    pub(crate) is_target: bool,
}

/// A service by its place in the configuration, and a dedup key.
type LaneKey = (usize, String);

/// What goes out one after the other.
#[derive(Debug)]
struct Lane {
    entries: VecDeque<Entry>,
    failures: u32,
    due: Instant,
    is_in_flight: bool,
}

/// How a service fares, and until when it wants to be left alone.
#[derive(Debug)]
struct Fare {
    status: ServiceStatus,
    paused_until: Instant,
}

/// What the disk refused to note; it is repeated until it does.
#[derive(Clone, Debug)]
enum Owed {
    Removal(u64),
    Rejection(Rejected),
}

/// How long a disk that failed is left alone.
const SETTLE_PAUSE: Duration = Duration::from_secs(1);

/// A drain that was asked for.
struct Draining {
    until: Instant,
    done: oneshot::Sender<Vec<String>>,
}

/// Owns everything; [`crate::NotifyHandle`] talks to it.
pub(crate) struct Sender {
    config: Config,
    services: Vec<Service>,
    origin: event::Sender,
    outbox: Outbox,
    signals: Signals,
    post: Post,
    commands: mpsc::Receiver<Command>,
    publisher: watch::Sender<Arc<NotifyStatus>>,
    lanes: BTreeMap<LaneKey, Lane>,
    fares: Vec<Fare>,
    rejected: VecDeque<Rejected>,
    in_flight: JoinSet<Outcome>,
    sent_at: HashMap<Id, (LaneKey, Instant)>,
    draining: Option<Draining>,
    /// At most one for each event that waited when the disk began to fail.
    owed: Vec<Owed>,
    /// Failures of the outbox that were made good, and when the next try is.
    failures_seen: u64,
    settle_at: Instant,
    /// How open incidents stand, as the outbox has it.
    standings: Arc<Vec<Standing>>,
}

enum Event {
    Command(Option<Command>),
    Answered(Result<(Id, Outcome), JoinError>),
    Due,
}

impl Sender {
    #[expect(clippy::too_many_arguments, reason = "the one place that puts the task together")]
    pub(crate) fn new(
        config: Config,
        services: Vec<Service>,
        origin: event::Sender,
        outbox: Outbox,
        signals: Signals,
        post: Post,
        commands: mpsc::Receiver<Command>,
        publisher: watch::Sender<Arc<NotifyStatus>>,
    ) -> Self {
        let now = Instant::now();
        Self {
            fares: services.iter().map(|service| fare(service, now)).collect(),
            config,
            services,
            origin,
            outbox,
            signals,
            post,
            commands,
            publisher,
            lanes: BTreeMap::new(),
            rejected: VecDeque::new(),
            in_flight: JoinSet::new(),
            sent_at: HashMap::new(),
            draining: None,
            owed: Vec::new(),
            failures_seen: 0,
            settle_at: now,
            standings: Arc::default(),
        }
    }

    /// Sends until drained, or until nobody holds a handle any more.
    pub(crate) async fn run(mut self, (entries, rejected): (Vec<Entry>, Vec<Rejected>)) {
        self.rejected = rejected.into();
        for entry in entries {
            self.take_up(entry).await;
        }
        self.read_standings().await;
        self.signals.started(self.services.len(), self.waiting());
        self.publish();
        loop {
            self.send_what_is_due();
            if self.is_drained() {
                return self.end();
            }
            let wake_at = self.wake_at();
            let event = tokio::select! {
                biased;
                Some(answered) = self.in_flight.join_next_with_id() => Event::Answered(answered),
                command = self.commands.recv(), if self.draining.is_none() => Event::Command(command),
                () = sleep_until(wake_at) => Event::Due,
            };
            match event {
                Event::Command(Some(Command::Enqueue { notification, done })) => {
                    let result = self.enqueue(notification).await;
                    // A caller that is gone does not want to know.
                    let _unheard = done.send(result);
                }
                Event::Command(Some(Command::Report { service, report, done })) => {
                    let _unheard = done.send(self.reported(service, report).await);
                }
                Event::Command(Some(Command::Say { word, done })) => {
                    let _unheard = done.send(self.say(word).await);
                }
                Event::Command(Some(Command::OpenKeys { service, done })) => {
                    let outbox = self.outbox.clone();
                    let _unheard = done.send(on_blocking_thread(move || outbox.open_keys(&service)).await);
                }
                Event::Command(Some(Command::SetTargets { targets, done })) => {
                    self.set_targets(targets);
                    // A caller that is gone does not want to know.
                    let _unheard = done.send(());
                }
                Event::Command(Some(Command::Drain { until, done })) => self.begin_drain(until, done),
                Event::Command(None) => return,
                Event::Answered(answered) => self.answered(answered).await,
                Event::Due => {}
            }
            if self.is_unsettled() && Instant::now() >= self.settle_at {
                // It said so itself, and is tried again.
                let _failed = self.settle().await;
            }
            self.publish();
        }
    }

    async fn enqueue(&mut self, notification: Notification) -> Result<(), Error> {
        // What nobody knows whether it was taken comes first: it has the older place in its lane.
        self.settle().await?;
        let (act, mut drafts) = self.drafts(&notification);
        let full = self.without_room(act, &drafts);
        drafts.retain(|draft| !full.contains_key(&draft.service));
        let outbox = self.outbox.clone();
        let inserted = on_blocking_thread(move || match notification {
            Notification::Notice(notice) => {
                outbox.insert_notice(&notice.incident, notice.number, act, drafts, now_unix_nanos())
            }
            Notification::Trigger(page) => outbox.insert_triggers(page.id, drafts, now_unix_nanos()),
            Notification::Resolve { id, .. } => outbox.insert_resolves(id, drafts, now_unix_nanos()),
        });
        let entries = inserted.await.inspect_err(|error| self.signals.outbox_failed(error))?;
        for entry in entries {
            if let Some(service) = self.services.iter().find(|service| service.id == entry.service) {
                self.signals.event_enqueued(&service.name, act);
            }
            self.take_up(entry).await;
        }
        self.read_standings().await;
        match full.into_values().max() {
            None => Ok(()),
            Some(entries) => {
                self.signals.outbox_was_full();
                Err(Error::Full { entries })
            }
        }
    }

    /// The services that have no room, with how many events wait for them. Each has room of its own, so that one that is
    /// away for days keeps nothing from the others. An end always has room: there is one for a beginning at most.
    fn without_room(&self, act: Act, drafts: &[Draft]) -> BTreeMap<String, usize> {
        let mut full = BTreeMap::new();
        for draft in drafts.iter().filter(|_| act == Act::Trigger) {
            let place = self.services.iter().position(|service| service.id == draft.service);
            let waiting = place.map_or(0, |place| self.waiting_for(place));
            if waiting >= self.config.outbox_max {
                full.insert(draft.service.clone(), waiting);
            }
        }
        full
    }

    /// After the disk failed: repeats what it did not take, and takes up what it holds although it said that it failed.
    async fn settle(&mut self) -> Result<(), Error> {
        let failures = self.outbox.failures();
        if failures == self.failures_seen {
            return Ok(());
        }
        let (outbox, owed, rejected_max) = (self.outbox.clone(), self.owed.clone(), self.config.rejected_max);
        let settling = on_blocking_thread(move || {
            for owed in &owed {
                match owed {
                    Owed::Removal(seq) => outbox.remove(*seq)?,
                    Owed::Rejection(rejected) => outbox.reject(rejected, rejected_max)?,
                }
            }
            outbox.load()
        });
        let settled = settling.await.inspect_err(|error| self.signals.outbox_failed(error));
        self.settle_at = Instant::now() + SETTLE_PAUSE;
        let (entries, _) = settled?;
        self.owed.clear();
        self.failures_seen = failures;
        let held: HashSet<u64> =
            self.lanes.values().flat_map(|lane| lane.entries.iter().map(|entry| entry.seq)).collect();
        for entry in entries.into_iter().filter(|entry| !held.contains(&entry.seq)) {
            self.take_up(entry).await;
        }
        self.read_standings().await;
        Ok(())
    }

    /// What a notification becomes for each service that it concerns. An end is drafted for all of them, also when the
    /// way by which it was told left the configuration: the outbox knows who was told of the beginning.
    fn drafts(&self, notification: &Notification) -> (Act, Vec<Draft>) {
        let site = &self.origin.site;
        let draft = |service: &Service, dedup_key: &str, event: String| Draft {
            service: service.id.clone(),
            dedup_key: dedup_key.to_owned(),
            event,
            is_followed: service.key.is_some(),
        };
        match notification {
            Notification::Notice(notice) => {
                let is_meant = |service: &&Service| match &notice.to {
                    _ if notice.is_resolve => true,
                    Some(name) => service.id == *name,
                    None => !service.is_target,
                };
                let drafts = self.services.iter().filter(is_meant).map(|service| {
                    let key = notice.dedup_key(site, &service.id);
                    let event = match service.key {
                        Some(_) => notice.event(&key, site),
                        None => notice.webhook(),
                    };
                    draft(service, &key, event)
                });
                (if notice.is_resolve { Act::Resolve } else { Act::Trigger }, drafts.collect())
            }
            Notification::Trigger(page) => {
                let event = self.origin.trigger(page);
                let is_concerned = |service: &&Service| {
                    !service.is_target
                        && service.journeys.as_ref().is_none_or(|journeys| journeys.contains(&page.journey))
                };
                let drafts = self.services.iter().filter(is_concerned);
                let key = page.dedup_key.as_str();
                (Act::Trigger, drafts.map(|service| draft(service, key, event.clone())).collect())
            }
            Notification::Resolve { dedup_key, .. } => {
                let key = dedup_key.as_str();
                let event = event::Sender::resolve(key);
                let drafts = self.services.iter().map(|service| draft(service, key, event.clone()));
                (Act::Resolve, drafts.collect())
            }
        }
    }

    /// Puts an event that is on disk into its lane.
    async fn take_up(&mut self, entry: Entry) {
        let place = self.services.iter().position(|service| service.id == entry.service);
        let Some(place) = place else {
            // The service left the configuration while the event waited: nobody can be told any more.
            let message = "the service is no longer configured".to_owned();
            return self.reject(Rejected { entry, status: 0, message }).await;
        };
        let lane = self.lanes.entry((place, entry.dedup_key.clone())).or_insert_with(|| Lane {
            entries: VecDeque::new(),
            failures: 0,
            due: Instant::now(),
            is_in_flight: false,
        });
        lane.entries.push_back(entry);
    }

    /// Takes other targets. One that is gone is told what is owed to it until the next start.
    fn set_targets(&mut self, targets: Vec<Service>) {
        for target in targets {
            match self.services.iter_mut().find(|service| service.id == target.id) {
                Some(held) if held.is_target => *held = target,
                // A service of the configuration has the older right to its name.
                Some(_) => {}
                None => {
                    self.fares.push(fare(&target, Instant::now()));
                    self.services.push(target);
                }
            }
        }
    }

    fn send_what_is_due(&mut self) {
        let now = Instant::now();
        for (key, lane) in &mut self.lanes {
            let due = lane.due.max(self.fares[key.0].paused_until);
            if lane.is_in_flight || due > now || self.in_flight.len() >= self.config.in_flight_max {
                continue;
            }
            let service = &self.services[key.0];
            let Some(entry) = lane.entries.front() else { continue };
            // Our own event cannot fail to be read back; if it did, the service would say 400.
            let body = match &service.key {
                Some(key) => event::with_key(&entry.event, key).unwrap_or_default(),
                None => entry.event.clone().into_bytes(),
            };
            let task = self.in_flight.spawn((self.post)(service.to.clone(), body));
            lane.is_in_flight = true;
            self.sent_at.insert(task.id(), (key.clone(), now));
        }
    }

    async fn answered(&mut self, answered: Result<(Id, Outcome), JoinError>) {
        let (id, outcome) = match answered {
            Ok(answered) => answered,
            Err(error) => (error.id(), Outcome::Retry { reason: RetryReason::Network, after: None }),
        };
        let Some((key, sent_at)) = self.sent_at.remove(&id) else { return };
        let took = sent_at.elapsed();
        match outcome {
            Outcome::Accepted => {
                let Some(entry) = self.leave_lane(&key) else { return };
                self.signals.event_accepted(&self.services[key.0].name, entry.act, took);
                let status = &mut self.fares[key.0].status;
                status.accepted += 1;
                status.last_accepted_unix_nanos = Some(now_unix_nanos());
                status.last_failure = None;
                let outbox = self.outbox.clone();
                if let Err(error) = on_blocking_thread(move || outbox.remove(entry.seq)).await {
                    // If we end before it is noted, it is sent again: the dedup key makes that harmless.
                    self.signals.outbox_failed(&error);
                    self.owed.push(Owed::Removal(entry.seq));
                }
            }
            Outcome::Rejected { status, message } => {
                let Some(entry) = self.leave_lane(&key) else { return };
                self.fares[key.0].status.last_failure = Some("rejected");
                self.reject(Rejected { entry, status, message }).await;
            }
            Outcome::Retry { reason, after } => self.retry_later(&key, reason, after, took),
        }
    }

    fn retry_later(&mut self, key: &LaneKey, reason: RetryReason, after: Option<Duration>, took: Duration) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        lane.is_in_flight = false;
        lane.failures = lane.failures.saturating_add(1);
        let pause = backoff(&self.config, lane.failures).max(after.unwrap_or_default());
        let now = Instant::now();
        lane.due = now + pause;
        let fare = &mut self.fares[key.0];
        fare.status.last_failure = Some(reason.as_str());
        if reason == RetryReason::RateLimited {
            fare.paused_until = fare.paused_until.max(now + pause);
        }
        self.signals.request_failed(&self.services[key.0].name, reason, took, pause);
    }

    /// Takes the first event out of its lane: it has been answered for good.
    fn leave_lane(&mut self, key: &LaneKey) -> Option<Entry> {
        let lane = self.lanes.get_mut(key)?;
        lane.is_in_flight = false;
        lane.failures = 0;
        lane.due = Instant::now();
        let entry = lane.entries.pop_front();
        if lane.entries.is_empty() {
            self.lanes.remove(key);
        }
        entry
    }

    async fn reject(&mut self, rejected: Rejected) {
        // A service that left the configuration has no label any more; the log line names it all the same.
        if let Ok(name) = ServiceName::configured(&rejected.entry.service) {
            self.signals.event_rejected(&name, rejected.entry.act, rejected.status);
        }
        let (outbox, row, rejected_max) = (self.outbox.clone(), rejected.clone(), self.config.rejected_max);
        if let Err(error) = on_blocking_thread(move || outbox.reject(&row, rejected_max)).await {
            self.signals.outbox_failed(&error);
            self.owed.push(Owed::Rejection(rejected.clone()));
        }
        self.rejected.push_back(rejected);
        while self.rejected.len() > self.config.rejected_max {
            self.rejected.pop_front();
        }
    }

    fn begin_drain(&mut self, until: Instant, done: oneshot::Sender<Vec<String>>) {
        self.draining = Some(Draining { until, done });
        // One more try for everything that waits, however long its pause was to be.
        let now = Instant::now();
        self.lanes.values_mut().for_each(|lane| lane.due = lane.due.min(now));
    }

    fn is_drained(&self) -> bool {
        let is_over = |draining: &Draining| self.lanes.is_empty() || Instant::now() >= draining.until;
        self.draining.as_ref().is_some_and(is_over)
    }

    fn end(self) {
        let Some(draining) = self.draining else { return };
        let mut waiting: BTreeMap<usize, usize> = BTreeMap::new();
        for ((place, _), lane) in &self.lanes {
            *waiting.entry(*place).or_default() += lane.entries.len();
        }
        let stragglers = waiting.into_iter().map(|(place, events)| {
            format!("notify: {events} events for {} stay in the outbox", self.services[place].name)
        });
        // A caller that is gone does not want to know.
        let _unheard = draining.done.send(stragglers.collect());
    }

    fn wake_at(&self) -> Instant {
        let idle = Instant::now() + Duration::from_secs(3_600);
        let is_full = self.in_flight.len() >= self.config.in_flight_max;
        let lanes = self.lanes.iter().filter(|(_, lane)| !lane.is_in_flight && !is_full);
        let next = lanes.map(|(key, lane)| lane.due.max(self.fares[key.0].paused_until)).min();
        let until = self.draining.as_ref().map(|draining| draining.until);
        let settle_at = self.is_unsettled().then_some(self.settle_at);
        next.into_iter().chain(until).chain(settle_at).min().unwrap_or(idle).min(idle)
    }

    fn waiting(&self) -> usize {
        self.lanes.values().map(|lane| lane.entries.len()).sum()
    }

    fn waiting_for(&self, place: usize) -> usize {
        let lanes = self.lanes.range((place, String::new())..(place + 1, String::new()));
        lanes.map(|(_, lane)| lane.entries.len()).sum()
    }

    fn is_unsettled(&self) -> bool {
        self.outbox.failures() != self.failures_seen
    }

    fn publish(&mut self) {
        for fare in &mut self.fares {
            fare.status.waiting = 0;
            fare.status.oldest_unix_nanos = None;
        }
        for ((place, _), lane) in &self.lanes {
            let status = &mut self.fares[*place].status;
            status.waiting += lane.entries.len();
            let oldest = lane.entries.front().map(|entry| entry.enqueued_unix_nanos);
            status.oldest_unix_nanos = status.oldest_unix_nanos.into_iter().chain(oldest).min();
        }
        self.signals.outbox_moved(self.waiting());
        let rejected = self.rejected.iter().map(|rejected| RejectedStatus {
            service: rejected.entry.service.clone(),
            action: Action::from(rejected.entry.act).as_str(),
            status: rejected.status,
            message: rejected.message.clone(),
            enqueued_unix_nanos: rejected.entry.enqueued_unix_nanos,
        });
        let status = NotifyStatus {
            services: self.fares.iter().map(|fare| fare.status.clone()).collect(),
            rejected: rejected.collect(),
            standings: self.standings.clone(),
        };
        self.publisher.send_replace(Arc::new(status));
    }
}

/// How a service fares that was never asked.
fn fare(service: &Service, now: Instant) -> Fare {
    Fare { status: ServiceStatus { name: service.id.clone(), ..ServiceStatus::default() }, paused_until: now }
}

/// The pause after so many failures in a row: doubled each time up to the longest, and between half and all of
/// that, so that many senders that failed together do not come back together.
fn backoff(config: &Config, failures: u32) -> Duration {
    let doubled = config.backoff_min.saturating_mul(1 << failures.saturating_sub(1).min(20));
    doubled.min(config.backoff_max).mul_f64(rand::random_range(0.5..=1.0))
}
