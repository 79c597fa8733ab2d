//! Periods that begin with the calendar: a month, a quarter, a week, in a place's own time.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

/// The step of a calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// An hour.
    Hour,
    /// A day, however many hours it has.
    Day,
    /// Seven days.
    Week,
    /// A month, however many days it has.
    Month,
    /// Three months.
    Quarter,
}

/// Periods of equal steps that follow each other from a beginning on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    start: DateTime,
    zone: TimeZone,
    unit: Unit,
    steps: u32,
}

/// One period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CalendarPeriod {
    /// Its first second, since the epoch.
    pub start: u64,
    /// The first second after it.
    pub end: u64,
}

impl Unit {
    /// Its length at most, in seconds.
    #[must_use]
    pub fn seconds_max(self) -> u64 {
        match self {
            Self::Hour => 3_600,
            Self::Day => 90_000,
            Self::Week => 7 * 86_400 + 3_600,
            Self::Month => 31 * 86_400 + 3_600,
            Self::Quarter => 92 * 86_400 + 3_600,
        }
    }

    fn seconds_mean(self) -> i64 {
        match self {
            Self::Hour => 3_600,
            Self::Day => 86_400,
            Self::Week => 7 * 86_400,
            Self::Month => 2_629_746,
            Self::Quarter => 3 * 2_629_746,
        }
    }

    fn times(self, number: i64) -> Option<Span> {
        let span = Span::new();
        match self {
            Self::Hour => span.try_hours(number).ok(),
            Self::Day => span.try_days(number).ok(),
            Self::Week => span.try_weeks(number).ok(),
            Self::Month => span.try_months(number).ok(),
            Self::Quarter => span.try_months(number.checked_mul(3)?).ok(),
        }
    }
}

impl Calendar {
    /// Periods of `steps` units that begin with `start` (as `2026-01-01 00:00:00`) in a zone (as `Europe/Berlin`).
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn new(start: &str, zone: &str, unit: Unit, steps: u32) -> Result<Self, String> {
        let zone = TimeZone::get(zone).map_err(|_| {
            format!("{zone:?} is not a time zone: write a name of the IANA database, as Europe/Berlin or UTC")
        })?;
        let start: DateTime = start.parse().map_err(|_| {
            format!("{start:?} is not a time: write it as 2026-01-01 00:00:00, without a zone")
        })?;
        Ok(Self { start, zone, unit, steps: steps.max(1) })
    }

    /// The longest that a period may be, in seconds.
    #[must_use]
    pub fn seconds_max(&self) -> u64 {
        self.unit.seconds_max().saturating_mul(u64::from(self.steps))
    }

    /// The period that a second lies in.
    ///
    /// Steps are always counted from the beginning, so that months after the 31st do not wander.
    #[must_use]
    pub fn period(&self, second: u64) -> CalendarPeriod {
        let now = i64::try_from(second).unwrap_or(i64::MAX);
        let origin = self.boundary(0).unwrap_or(0);
        let length = self.unit.seconds_mean().saturating_mul(i64::from(self.steps)).max(1);
        // The mean length leads close to it; a few steps lead there.
        let mut number = now.saturating_sub(origin).div_euclid(length);
        while self.boundary(number).is_some_and(|start| start > now) {
            number -= 1;
        }
        while self.boundary(number + 1).is_some_and(|end| end <= now) {
            number += 1;
        }
        let seconds =
            |boundary: Option<i64>, otherwise: i64| u64::try_from(boundary.unwrap_or(otherwise)).unwrap_or(0);
        let start = seconds(self.boundary(number), now);
        let end = seconds(self.boundary(number + 1), now.saturating_add(length));
        CalendarPeriod { start, end: end.max(start + 1) }
    }

    /// The first second of the period of this number; `None` beyond the years that a calendar knows.
    fn boundary(&self, number: i64) -> Option<i64> {
        let span = self.unit.times(number.checked_mul(i64::from(self.steps))?)?;
        let local = self.start.checked_add(span).ok()?;
        let timestamp: Timestamp = self.zone.to_timestamp(local).ok()?;
        Some(timestamp.as_second())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(text: &str) -> u64 {
        u64::try_from(text.parse::<Timestamp>().expect("a time").as_second()).expect("after 1970")
    }

    fn check(start: &str, zone: &str, unit: Unit, steps: u32, cases: &[(&str, &str, &str)]) {
        let calendar = Calendar::new(start, zone, unit, steps).expect("right");
        for (now, from, to) in cases {
            let period = calendar.period(second(now));
            assert_eq!((period.start, period.end), (second(from), second(to)), "{zone} {unit:?} at {now}");
            assert!(period.end - period.start <= calendar.seconds_max());
        }
    }

    #[test]
    fn months_begin_in_the_places_own_time_and_follow_its_clocks() {
        check(
            "2026-01-01 00:00:00",
            "Europe/Berlin",
            Unit::Month,
            1,
            &[
                ("2026-11-20T18:00:00Z", "2026-10-31T23:00:00Z", "2026-11-30T23:00:00Z"),
                ("2026-10-31T22:59:59Z", "2026-09-30T22:00:00Z", "2026-10-31T23:00:00Z"),
                ("2026-10-31T23:00:00Z", "2026-10-31T23:00:00Z", "2026-11-30T23:00:00Z"),
                ("2025-12-31T22:00:00Z", "2025-11-30T23:00:00Z", "2025-12-31T23:00:00Z"),
            ],
        );
    }

    #[test]
    fn months_that_begin_late_do_not_wander() {
        check(
            "2026-01-31 00:00:00",
            "UTC",
            Unit::Month,
            1,
            &[
                ("2026-02-28T12:00:00Z", "2026-02-28T00:00:00Z", "2026-03-31T00:00:00Z"),
                ("2026-05-30T12:00:00Z", "2026-04-30T00:00:00Z", "2026-05-31T00:00:00Z"),
            ],
        );
    }

    #[test]
    fn days_weeks_and_quarters_are_steps_too() {
        // The day on which Berlin's clocks go back has 25 hours.
        check(
            "2026-01-01 00:00:00",
            "Europe/Berlin",
            Unit::Day,
            1,
            &[("2026-10-25T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z")],
        );
        check(
            "2026-01-05 00:00:00",
            "UTC",
            Unit::Week,
            2,
            &[("2026-01-20T00:00:00Z", "2026-01-19T00:00:00Z", "2026-02-02T00:00:00Z")],
        );
        check(
            "2020-01-01 00:00:00",
            "UTC",
            Unit::Quarter,
            1,
            &[("2026-11-20T00:00:00Z", "2026-10-01T00:00:00Z", "2027-01-01T00:00:00Z")],
        );
    }

    #[test]
    fn zones_and_times_that_are_none_are_named() {
        assert!(Calendar::new("2026-01-01", "Mars/Olympus", Unit::Day, 1).is_err_and(|e| e.contains("IANA")));
        assert!(Calendar::new("yesterday", "UTC", Unit::Day, 1).is_err_and(|e| e.contains("2026-01-01")));
    }
}
