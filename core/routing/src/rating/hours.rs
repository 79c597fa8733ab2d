//! The hours at which a tariff holds, and when that may change.

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};

use super::document::Tariff;

const DAY_NAMES: [&str; 8] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun", HOLIDAY];
const HOLIDAY: &str = "holiday";
const HOLIDAY_INDEX: usize = 7;

/// The hours of a tariff.
#[derive(Clone, Debug)]
pub(super) struct Hours {
    /// By index in [`DAY_NAMES`].
    days: [bool; 8],
    from: Time,
    /// Midnight is the end of the day.
    to: Time,
}

impl Hours {
    pub(super) fn new(tariff: &Tariff) -> Result<Self, String> {
        let mut days = [tariff.days.is_empty(); 8];
        for day in &tariff.days {
            let index = DAY_NAMES.iter().position(|name| name == day);
            let slot = index.and_then(|index| days.get_mut(index));
            *slot
                .ok_or_else(|| format!("days: {day:?}: use mon, tue, wed, thu, fri, sat, sun, holiday"))? =
                true;
        }
        let time = |key: &str, text: &Option<String>| -> Result<Time, String> {
            let Some(text) = text else { return Ok(Time::midnight()) };
            let is_end = key == "to" && text == "24:00";
            let text = if is_end { "00:00" } else { text };
            let time = (text.len() == 5).then(|| Time::strptime("%H:%M", text).ok()).flatten();
            time.ok_or_else(|| format!("{key}: {text:?}: write a time of the day, as \"08:00\""))
        };
        Ok(Self { days, from: time("from", &tariff.from)?, to: time("to", &tariff.to)? })
    }

    /// Whether there is no hour at which it does not hold.
    pub(super) fn is_always(&self) -> bool {
        self.days.iter().all(|day| *day) && self.from == Time::midnight() && self.to == Time::midnight()
    }

    /// Whether it holds at this local time.
    pub(super) fn holds(&self, at: DateTime, holidays: &[Date]) -> bool {
        let is_day = |date: Date| self.days.get(day_of(date, holidays)).copied().unwrap_or(false);
        let time = at.time();
        if self.from == self.to {
            // A whole day, which begins at `from`.
            let begun = if time >= self.from { Ok(at.date()) } else { at.date().yesterday() };
            return begun.is_ok_and(is_day);
        }
        if self.from < self.to || self.to == Time::midnight() {
            return time >= self.from && (self.to == Time::midnight() || time < self.to) && is_day(at.date());
        }
        // Over midnight, the day is that on which it began.
        (time >= self.from && is_day(at.date()))
            || (time < self.to && at.date().yesterday().is_ok_and(is_day))
    }

    /// The times of the day at which it begins or ends.
    pub(super) fn edges(&self) -> [Time; 2] {
        [self.from, self.to]
    }
}

fn day_of(date: Date, holidays: &[Date]) -> usize {
    if holidays.contains(&date) {
        return HOLIDAY_INDEX;
    }
    usize::from(date.weekday().to_monday_zero_offset().unsigned_abs()).min(HOLIDAY_INDEX - 1)
}

/// The next instant after this one at which any of the hours may begin or end: at one of their edges, at midnight, or
/// when the zone's clocks are changed. Between the two, nothing changes.
pub(super) fn next_change<'a>(
    at: Timestamp,
    zone: &TimeZone,
    hours: impl Iterator<Item = &'a Hours>,
) -> Option<Timestamp> {
    let today = zone.to_datetime(at).date();
    let mut times: Vec<Time> = hours.flat_map(Hours::edges).chain([Time::midnight()]).collect();
    times.sort_unstable();
    times.dedup();
    let mut next = zone.following(at).next().map(|transition| transition.timestamp());
    // A day of 25 hours, and a time that the clocks leave out, still leave one of these three days' edges.
    for days in 0..3 {
        let Ok(date) = today.checked_add(Span::new().days(days)) else { break };
        for time in &times {
            let local = date.to_datetime(*time);
            let ambiguous = zone.to_ambiguous_timestamp(local);
            for instant in [ambiguous.earlier(), ambiguous.later()].into_iter().flatten() {
                if instant > at && next.is_none_or(|next| instant < next) {
                    next = Some(instant);
                }
            }
        }
    }
    next
}

/// The day of the week on which free seconds come anew.
pub(super) const WEEK_BEGINS: Weekday = Weekday::Monday;
