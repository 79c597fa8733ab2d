//! What was counted, second by second, as far back as an SLO's period.
//!
//! Three rings: seconds for the last six hours, minutes for the last three days, hours for the whole period.
//! Every ring holds all of the recent past in its own step, so a window is summed from a few seconds at either
//! end, whole minutes, and whole hours in the middle. Windows up to six hours are exact to the second; the
//! oldest edge of a longer one is rounded outward to the minute, beyond three days to the hour.

mod ring;
#[cfg(test)]
mod tests;

use std::ops::{Add, AddAssign};

use ring::Ring;

/// Seconds held one by one: six hours, and two minutes so that a six-hour window never meets the edge.
pub const SECONDS_MAX: usize = 6 * 3_600 + 120;
/// Minutes held: three days, and two hours for the same reason.
pub const MINUTES_MAX: usize = 3 * 1_440 + 120;
/// Hours held at most: a quarter of 92 days, and a day to spare.
pub const HOURS_MAX: usize = 93 * 24 + 2;
/// A sample that comes this late still covers the seconds since the one before it: the counts were kept
/// meanwhile. Anything longer is a hole: the process slept, and nobody knows what customers met.
pub const GAP_SECONDS_MAX: u64 = 5;
/// How far a clock may step back before the seconds that it takes back are forgotten.
pub const CLOCK_STEP_SECONDS_MAX: u64 = 60;

/// Good and bad events, and for how many seconds somebody was counting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events that were as they should be.
    pub good: u64,
    /// Events that were not.
    pub bad: u64,
    /// Seconds that were sampled, with or without events.
    pub measured_seconds: u64,
}

/// The counts of the last `seconds` seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// The length of the window.
    pub seconds: u64,
    /// Events that were as they should be.
    pub good: u64,
    /// Events that were not.
    pub bad: u64,
    /// Seconds of the window that were sampled.
    pub measured_seconds: u64,
}

/// The step of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Grain {
    /// One second.
    Second,
    /// Sixty seconds, beginning at a whole minute.
    Minute,
    /// 3600 seconds, beginning at a whole hour.
    Hour,
}

/// The counts of one SLO in one region, with bounded memory (about 400 KB).
#[derive(Clone, Debug)]
pub struct History {
    seconds: Ring<u32>,
    minutes: Ring<u64>,
    hours: Ring<u64>,
}

impl Add for Counts {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            good: self.good.saturating_add(other.good),
            bad: self.bad.saturating_add(other.bad),
            measured_seconds: self.measured_seconds.saturating_add(other.measured_seconds),
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Window {
    /// Good and bad events together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.good.saturating_add(self.bad)
    }

    /// The share of the window that was sampled, 0 to 1.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
    pub fn coverage_ratio(&self) -> f64 {
        (self.measured_seconds as f64 / self.seconds.max(1) as f64).min(1.0)
    }

    /// The share of events that were bad; `None` when there were none at all.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people; decisions use the integers")]
    pub fn error_ratio(&self) -> Option<f64> {
        (self.total() > 0).then(|| self.bad as f64 / self.total() as f64)
    }
}

impl Grain {
    /// The length of a step.
    #[must_use]
    pub fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
        }
    }
}

impl History {
    /// An empty history that can answer for a period of this length (at most [`HOURS_MAX`] hours).
    #[must_use]
    pub fn new(period_seconds: u64) -> Self {
        let hours = usize::try_from(period_seconds.div_ceil(3_600)).unwrap_or(HOURS_MAX).saturating_add(2);
        Self {
            seconds: Ring::new(SECONDS_MAX),
            minutes: Ring::new(MINUTES_MAX),
            hours: Ring::new(hours.min(HOURS_MAX)),
        }
    }

    /// Adds what happened in the second `now` (seconds since the epoch) and marks it as measured, together
    /// with up to [`GAP_SECONDS_MAX`] seconds before it when the sample is late.
    ///
    /// A clock that steps back a little adds to the newest second; one that steps back far takes the seconds
    /// that it denies with it.
    pub fn observe(&mut self, now: u64, good: u64, bad: u64) {
        let newest = self.seconds.newest();
        if now.saturating_add(CLOCK_STEP_SECONDS_MAX) < newest {
            self.rewind_to(now);
        }
        let newest = self.seconds.newest();
        let now = now.max(newest);
        self.advance_to(now);
        let is_late = newest > 0 && now - newest <= GAP_SECONDS_MAX;
        let measured_from = if is_late { (newest + 1).min(now) } else { now };
        for second in measured_from..=now {
            if self.seconds.at(second).measured_seconds == 0 {
                self.add(second, Counts { good: 0, bad: 0, measured_seconds: 1 });
            }
        }
        self.add(now, Counts { good, bad, measured_seconds: 0 });
    }

    /// Adds what happened in the `seconds` seconds that end with `now`, all of which were measured. The events stand in
    /// the last of them, because nobody knows when they were.
    pub fn observe_span(&mut self, now: u64, seconds: u64, good: u64, bad: u64) {
        let newest = self.seconds.newest();
        if now.saturating_add(CLOCK_STEP_SECONDS_MAX) < newest {
            self.rewind_to(now);
        }
        let now = now.max(self.seconds.newest());
        self.advance_to(now);
        for second in (now + 1).saturating_sub(seconds.max(1))..=now {
            if self.seconds.at(second).measured_seconds == 0 {
                self.add(second, Counts { good: 0, bad: 0, measured_seconds: 1 });
            }
        }
        self.add(now, Counts { good, bad, measured_seconds: 0 });
    }

    /// The counts from the second `start` up to but not including `end`, edges rounded as in [`History::window`].
    #[must_use]
    pub fn between(&self, start: u64, end: u64) -> Counts {
        if start >= end { Counts::default() } else { self.sum(start, end) }
    }

    /// The window of `seconds` seconds that ends with the second `now`, which is included.
    #[must_use]
    pub fn window(&self, now: u64, seconds: u64) -> Window {
        let end = now.saturating_add(1);
        let counts = self.sum(end.saturating_sub(seconds), end);
        Window { seconds, good: counts.good, bad: counts.bad, measured_seconds: counts.measured_seconds }
    }

    /// The newest second that was observed; 0 when none was.
    #[must_use]
    pub fn newest_second(&self) -> u64 {
        self.seconds.newest()
    }

    /// The measured steps of a ring from `from` on, oldest first: what a shell writes down.
    /// A step's number is its first second divided by its length.
    pub fn steps(&self, grain: Grain, from: u64) -> impl Iterator<Item = (u64, Counts)> + '_ {
        let (oldest, newest) = match grain {
            Grain::Second => (self.seconds.oldest(), self.seconds.newest()),
            Grain::Minute => (self.minutes.oldest(), self.minutes.newest()),
            Grain::Hour => (self.hours.oldest(), self.hours.newest()),
        };
        (oldest.max(from)..=newest)
            .map(move |index| (index, self.at(grain, index)))
            .filter(|(_, counts)| counts.measured_seconds > 0)
    }

    /// Puts back a step that [`History::steps`] gave; a step too old to be held is ignored.
    pub fn restore(&mut self, grain: Grain, index: u64, counts: Counts) {
        self.advance_to(index.saturating_mul(grain.seconds()));
        match grain {
            Grain::Second => self.seconds.set(index, counts),
            Grain::Minute => self.minutes.set(index, counts),
            Grain::Hour => self.hours.set(index, counts),
        }
    }

    fn at(&self, grain: Grain, index: u64) -> Counts {
        match grain {
            Grain::Second => self.seconds.at(index),
            Grain::Minute => self.minutes.at(index),
            Grain::Hour => self.hours.at(index),
        }
    }

    fn add(&mut self, second: u64, counts: Counts) {
        self.seconds.add(second, counts);
        self.minutes.add(second / 60, counts);
        self.hours.add(second / 3_600, counts);
    }

    fn advance_to(&mut self, second: u64) {
        self.seconds.advance_to(second);
        self.minutes.advance_to(second / 60);
        self.hours.advance_to(second / 3_600);
    }

    fn rewind_to(&mut self, second: u64) {
        self.seconds.rewind_to(second);
        self.minutes.rewind_to(second / 60);
        self.hours.rewind_to(second / 3_600);
        // The newest minute and hour still hold later seconds: build them again from the ring below.
        let minute = second / 60;
        let in_minute = self.seconds.sum(minute * 60, second + 1);
        self.minutes.set(minute, in_minute);
        let hour = second / 3_600;
        let in_hour = self.minutes.sum(hour * 60, minute + 1);
        self.hours.set(hour, in_hour);
    }

    /// The sum from the second `start` up to but not including `end`.
    fn sum(&self, start: u64, end: u64) -> Counts {
        let seconds_from = self.seconds.oldest();
        if start >= seconds_from && end - start < 120 {
            return self.seconds.sum(start, end);
        }
        // Whole minutes in the middle; the seconds before them only while the ring of seconds reaches there.
        let first_minute = if start >= seconds_from { start.div_ceil(60) } else { start / 60 };
        let end_minute = (end / 60).max(first_minute);
        let mut counts = self.seconds.sum(end_minute * 60, end);
        if start >= seconds_from {
            counts += self.seconds.sum(start, first_minute * 60);
        }
        counts + self.sum_minutes(first_minute, end_minute)
    }

    fn sum_minutes(&self, start: u64, end: u64) -> Counts {
        let minutes_from = self.minutes.oldest();
        if start >= minutes_from && end - start < 120 {
            return self.minutes.sum(start, end);
        }
        let first_hour = if start >= minutes_from { start.div_ceil(60) } else { start / 60 };
        let end_hour = (end / 60).max(first_hour);
        let mut counts = self.minutes.sum(end_hour * 60, end);
        if start >= minutes_from {
            counts += self.minutes.sum(start, first_hour * 60);
        }
        counts + self.hours.sum(first_hour, end_hour)
    }
}
