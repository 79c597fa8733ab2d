//! The watch for fraud: how fast, how dear and where to a subscriber or a tenant calls.
//!
//! Somebody who got hold of a password calls dear numbers, quickly, in countries that nobody called before. Windows
//! slide in steps of a twelfth and look back a little longer than they say, never shorter. Memory is bounded by
//! `subjects_max`; who is not watched because of it is counted by the caller.

use std::collections::HashMap;

use crate::cost::Cost;
use crate::plan::{Fraud, FraudLimits};

/// Subjects that are watched when the plan does not say.
const SUBJECTS_MAX: usize = 50_000;
/// Slots of a window: twelve and the one that is being filled.
const SLOTS: usize = 13;
/// Seconds of a slot of the minute, and of the hour.
const SHORT_SECONDS: u64 = 5;
const LONG_SECONDS: u64 = 300;
/// Destinations that are remembered of one subject; the oldest is forgotten.
const DESTINATIONS_MAX: usize = 64;
/// Seconds of an hour and of a day.
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
/// How often idle subjects are looked for while there is no room.
const PURGE_SECONDS: u64 = 10;

/// Who is watched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A subscriber, by address.
    Subscriber(Box<str>),
    /// A tenant, by name.
    Tenant(Box<str>),
}

/// What looks like fraud.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Suspicion {
    /// More calls in an hour than usual.
    CallsPerHour,
    /// More calls in a minute than anybody makes.
    CallsPerMinute,
    /// An hour's minutes cost more than usual.
    CostPerHour,
    /// A country or watched prefix that was not called before.
    NewDestination,
    /// More new destinations in a day than usual.
    NewDestinationsPerDay,
}

impl Suspicion {
    /// All.
    pub const ALL: [Self; 5] = [
        Self::CallsPerHour,
        Self::CallsPerMinute,
        Self::CostPerHour,
        Self::NewDestination,
        Self::NewDestinationsPerDay,
    ];

    /// A bounded name for labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CallsPerHour => "calls_per_hour",
            Self::CallsPerMinute => "calls_per_minute",
            Self::CostPerHour => "cost_per_hour",
            Self::NewDestination => "new_destination",
            Self::NewDestinationsPerDay => "new_destinations_per_day",
        }
    }
}

/// Something that a person should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Who.
    pub subject: Subject,
    /// What.
    pub suspicion: Suspicion,
}

/// What the guard thinks of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Worth telling, once an hour per subject and suspicion.
    pub alerts: Vec<Alert>,
    /// The call is refused for this.
    pub block: Option<Alert>,
    /// Subjects that are not watched because as many as may are.
    pub unwatched: u8,
}

/// Watches everybody who calls outside.
#[derive(Debug, Default)]
pub struct Guard {
    subjects: HashMap<Subject, Watch>,
    purge_at: u64,
}

#[derive(Debug)]
struct Watch {
    seen_at: u64,
    minute: Window<u32>,
    hour: Window<u32>,
    cost: Window<u64>,
    /// What the present calls cost a minute, and up to when that is in the window.
    running: u64,
    integrated_at: u64,
    live: u32,
    /// Destinations, with when they were first called; the oldest first.
    destinations: Vec<(u64, u64)>,
    /// When each suspicion was last told.
    told_at: [u64; Suspicion::ALL.len()],
}

/// Sums over the last twelve slots and the present one.
#[derive(Clone, Copy, Debug, Default)]
struct Window<T> {
    slots: [T; SLOTS],
    /// The number of the present slot since the epoch.
    slot: u64,
}

impl<T: Copy + Default + Into<u64> + std::ops::AddAssign> Window<T> {
    fn advance(&mut self, slot: u64) {
        let steps = slot.saturating_sub(self.slot).min(SLOTS as u64);
        for step in 1..=steps {
            // The last steps before the new slot: what is older has been cleared anyway.
            let cleared = slot - steps + step;
            self.slots[place(cleared)] = T::default();
        }
        self.slot = self.slot.max(slot);
    }

    fn add(&mut self, slot: u64, amount: T) {
        self.advance(slot);
        self.slots[place(self.slot)] += amount;
    }

    fn sum(&mut self, slot: u64) -> u64 {
        self.advance(slot);
        self.slots.iter().map(|slot| (*slot).into()).sum()
    }
}

fn place(slot: u64) -> usize {
    usize::try_from(slot % SLOTS as u64).unwrap_or(0)
}

impl Guard {
    /// Judges a call to a trunk before it leaves, and counts it unless it is refused.
    ///
    /// `destination` is from [`Table::destination_of`](crate::Table::destination_of); `is_home` says that it is the
    /// caller's own country and no watched prefix.
    pub fn judge(
        &mut self,
        fraud: &Fraud,
        subjects: &[Subject],
        destination: u64,
        is_home: bool,
        now_seconds: u64,
    ) -> Judgement {
        let mut judgement = Judgement::default();
        for subject in subjects {
            let limits = limits_of(fraud, subject);
            if *limits == FraudLimits::default() {
                continue;
            }
            let Some(watch) = self.watch(fraud, subject, now_seconds) else {
                judgement.unwatched += 1;
                continue;
            };
            watch.judge(limits, subject, destination, is_home, now_seconds, &mut judgement);
            if judgement.block.is_some() {
                return judgement;
            }
        }
        for subject in subjects {
            if let Some(watch) = self.subjects.get_mut(subject) {
                watch.count(destination, is_home, now_seconds);
            }
        }
        judgement
    }

    /// A call was answered: from now on it costs so much a minute.
    pub fn answered(&mut self, subjects: &[Subject], cost: Cost, now_seconds: u64) {
        for subject in subjects {
            if let Some(watch) = self.subjects.get_mut(subject) {
                watch.integrate(now_seconds);
                watch.running += cost.0;
                watch.live += 1;
            }
        }
    }

    /// A call that [`answered`](Self::answered) was told of is over.
    pub fn ended(&mut self, subjects: &[Subject], cost: Cost, now_seconds: u64) {
        for subject in subjects {
            if let Some(watch) = self.subjects.get_mut(subject).filter(|watch| watch.live > 0) {
                watch.integrate(now_seconds);
                watch.running = watch.running.saturating_sub(cost.0);
                watch.live -= 1;
            }
        }
    }

    /// How many are watched.
    #[must_use]
    pub fn len(&self) -> usize {
        self.subjects.len()
    }

    /// Whether nobody is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.subjects.is_empty()
    }

    fn watch(&mut self, fraud: &Fraud, subject: &Subject, now_seconds: u64) -> Option<&mut Watch> {
        let subjects_max = fraud.subjects_max.unwrap_or(SUBJECTS_MAX);
        if self.subjects.len() >= subjects_max && !self.subjects.contains_key(subject) {
            if now_seconds < self.purge_at {
                return None;
            }
            self.purge_at = now_seconds + PURGE_SECONDS;
            self.subjects.retain(|_, watch| watch.live > 0 || watch.seen_at + HOUR > now_seconds);
            if self.subjects.len() >= subjects_max {
                return None;
            }
        }
        let watch = self.subjects.entry(subject.clone()).or_insert_with(|| Watch::new(now_seconds));
        watch.seen_at = now_seconds;
        Some(watch)
    }
}

impl Watch {
    fn new(now_seconds: u64) -> Self {
        Self {
            seen_at: now_seconds,
            minute: Window::default(),
            hour: Window::default(),
            cost: Window::default(),
            running: 0,
            integrated_at: now_seconds,
            live: 0,
            destinations: Vec::new(),
            told_at: [0; Suspicion::ALL.len()],
        }
    }

    fn judge(
        &mut self,
        limits: &FraudLimits,
        subject: &Subject,
        destination: u64,
        is_home: bool,
        now: u64,
        judgement: &mut Judgement,
    ) {
        self.integrate(now);
        let in_minute = self.minute.sum(now / SHORT_SECONDS) + 1;
        let in_hour = self.hour.sum(now / LONG_SECONDS) + 1;
        let cost = self.cost.sum(now / LONG_SECONDS);
        let is_new = self.is_new(destination, is_home);
        let new_today = self.destinations.iter().filter(|(_, first)| first + DAY > now).count() as u64;
        let reached = |value: u64, limit: u64| limit > 0 && value > limit;
        let blocks = [
            (Suspicion::CallsPerMinute, reached(in_minute, limits.calls_per_minute_block.into())),
            (Suspicion::CallsPerHour, reached(in_hour, limits.calls_per_hour_block.into())),
            (Suspicion::CostPerHour, reached(cost, limits.cost_per_hour_block.0)),
            (
                Suspicion::NewDestinationsPerDay,
                is_new && reached(new_today + 1, limits.new_destinations_per_day_block.into()),
            ),
        ];
        if let Some((suspicion, _)) = blocks.into_iter().find(|(_, is_reached)| *is_reached) {
            judgement.block = Some(Alert { subject: subject.clone(), suspicion });
            return;
        }
        // The first destination of all says nothing: nobody is known yet.
        let is_told = is_new && !self.destinations.is_empty() && limits.new_destination_alert;
        let alerts = [
            (Suspicion::CallsPerHour, reached(in_hour, limits.calls_per_hour_alert.into())),
            (Suspicion::CostPerHour, reached(cost, limits.cost_per_hour_alert.0)),
            (Suspicion::NewDestination, is_told),
        ];
        for (suspicion, _) in alerts.into_iter().filter(|(_, is_reached)| *is_reached) {
            if suspicion == Suspicion::NewDestination || self.may_tell(suspicion, now) {
                judgement.alerts.push(Alert { subject: subject.clone(), suspicion });
            }
        }
    }

    fn may_tell(&mut self, suspicion: Suspicion, now: u64) -> bool {
        let place = Suspicion::ALL.iter().position(|known| *known == suspicion).unwrap_or(0);
        let was_told = self.told_at[place] > 0 && self.told_at[place] + HOUR > now;
        if !was_told {
            self.told_at[place] = now;
        }
        !was_told
    }

    fn is_new(&self, destination: u64, is_home: bool) -> bool {
        !is_home && !self.destinations.iter().any(|(known, _)| *known == destination)
    }

    fn count(&mut self, destination: u64, is_home: bool, now: u64) {
        self.minute.add(now / SHORT_SECONDS, 1);
        self.hour.add(now / LONG_SECONDS, 1);
        if self.is_new(destination, is_home) {
            if self.destinations.len() >= DESTINATIONS_MAX {
                self.destinations.remove(0);
            }
            self.destinations.push((destination, now));
        }
    }

    /// Adds what the present calls have cost since the last time, slot by slot.
    fn integrate(&mut self, now: u64) {
        // What is older than the window does not count any more.
        let mut from = self.integrated_at.max(now.saturating_sub(LONG_SECONDS * SLOTS as u64));
        while from < now {
            let slot = from / LONG_SECONDS;
            let until = ((slot + 1) * LONG_SECONDS).min(now);
            self.cost.add(slot, self.running.saturating_mul(until - from) / 60);
            from = until;
        }
        self.integrated_at = self.integrated_at.max(now);
    }
}

fn limits_of<'f>(fraud: &'f Fraud, subject: &Subject) -> &'f FraudLimits {
    match subject {
        Subject::Subscriber(_) => &fraud.subscriber,
        Subject::Tenant(_) => &fraud.tenant,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn subject() -> [Subject; 1] {
        [Subject::Subscriber("alice@belfry.test".into())]
    }

    fn fraud(subscriber: FraudLimits) -> Fraud {
        Fraud { subscriber, ..Fraud::default() }
    }

    #[test]
    fn calls_are_counted_in_sliding_windows() {
        let fraud = fraud(FraudLimits {
            calls_per_minute_block: 5,
            calls_per_hour_alert: 8,
            calls_per_hour_block: 12,
            ..FraudLimits::default()
        });
        let mut guard = Guard::default();
        let mut judge = |at: u64| guard.judge(&fraud, &subject(), 44, true, NOW + at);
        for second in 0..5 {
            assert_eq!(judge(second), Judgement::default(), "{second}");
        }
        assert_eq!(judge(6).block.map(|alert| alert.suspicion), Some(Suspicion::CallsPerMinute));
        // A refused call does not count; after the minute there is room again.
        for at in [100, 110, 120] {
            assert_eq!(judge(at).block, None);
        }
        assert_eq!(judge(200).alerts.len(), 1, "the ninth of the hour is told");
        assert_eq!(judge(300).alerts.len(), 0, "and only once an hour");
        assert_eq!((judge(310).block, judge(320).block), (None, None));
        assert_eq!(judge(400).block.map(|alert| alert.suspicion), Some(Suspicion::CallsPerHour));
        assert_eq!(judge(2 * HOUR), Judgement::default(), "the window slid on");
    }

    #[test]
    fn running_calls_cost_while_they_run() {
        let fraud = fraud(FraudLimits {
            cost_per_hour_alert: Cost(1_000_000),
            cost_per_hour_block: Cost(2_000_000),
            ..FraudLimits::default()
        });
        let (mut guard, cost) = (Guard::default(), Cost(600_000));
        let suspicion = |guard: &mut Guard, at: u64| {
            let judgement = guard.judge(&fraud, &subject(), 44, true, NOW + at);
            (judgement.alerts.len(), judgement.block.map(|alert| alert.suspicion))
        };
        assert_eq!(suspicion(&mut guard, 0), (0, None));
        guard.answered(&subject(), cost, NOW);
        assert_eq!(suspicion(&mut guard, 60), (0, None));
        assert_eq!(suspicion(&mut guard, 120), (1, None), "two minutes at 0.6");
        assert_eq!(suspicion(&mut guard, 240), (0, Some(Suspicion::CostPerHour)), "four minutes");
        guard.ended(&subject(), cost, NOW + 240);
        assert_eq!(suspicion(&mut guard, 1800).1, Some(Suspicion::CostPerHour), "still of this hour");
        assert_eq!(suspicion(&mut guard, 2 * HOUR), (0, None));
        // A call that outlives its window costs its window, no more.
        guard.answered(&subject(), Cost(10), NOW + 2 * HOUR);
        assert_eq!(suspicion(&mut guard, 100 * HOUR), (0, None));
    }

    #[test]
    fn new_destinations_are_told_and_many_are_refused() {
        let fraud = fraud(FraudLimits {
            new_destination_alert: true,
            new_destinations_per_day_block: 3,
            ..FraudLimits::default()
        });
        let mut guard = Guard::default();
        let mut judge = |destination: u64, at: u64| {
            let judgement = guard.judge(&fraud, &subject(), destination, false, NOW + at);
            (judgement.alerts.len(), judgement.block.map(|alert| alert.suspicion))
        };
        assert_eq!(judge(144, 0), (0, None), "nobody is known yet");
        assert_eq!(judge(144, 1), (0, None));
        assert_eq!(judge(1881, 2), (1, None));
        assert_eq!(judge(1355, 3), (1, None));
        assert_eq!(judge(1371, 4), (0, Some(Suspicion::NewDestinationsPerDay)));
        assert_eq!(judge(1355, 5), (0, None), "known ones go on");
        assert_eq!(judge(1371, DAY + 10), (1, None), "a day later there is room again");
    }

    #[test]
    fn as_many_are_watched_as_may_be() {
        let limits = FraudLimits { calls_per_hour_block: 1, ..FraudLimits::default() };
        let fraud = Fraud { subjects_max: Some(2), ..fraud(limits) };
        let mut guard = Guard::default();
        let mut judge = |name: &str, at: u64| {
            let subject = [Subject::Subscriber(name.into())];
            guard.judge(&fraud, &subject, 1, true, NOW + at).unwatched
        };
        assert_eq!((judge("a", 0), judge("b", 0), judge("c", 0)), (0, 0, 1));
        assert_eq!(judge("c", 2 * HOUR), 0, "the idle ones made room");
        assert!(guard.len() <= 2);
    }

    proptest::proptest! {
        #[test]
        fn no_hour_holds_more_than_the_limit(gaps in proptest::collection::vec(0_u64..1200, 1..200)) {
            let limits = FraudLimits { calls_per_hour_block: 7, ..FraudLimits::default() };
            let (fraud, mut guard, mut at) = (fraud(limits), Guard::default(), NOW);
            let mut passed = Vec::new();
            for gap in gaps {
                at += gap;
                if guard.judge(&fraud, &subject(), 1, true, at).block.is_none() {
                    passed.push(at);
                }
            }
            for (index, first) in passed.iter().enumerate() {
                let within = passed[index..].iter().filter(|at| **at < first + HOUR).count();
                proptest::prop_assert!(within <= 7, "{within} calls in one hour");
            }
        }
    }
}
