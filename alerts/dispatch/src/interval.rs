//! Time intervals: when a route speaks and when it does not, as Alertmanager's files say it.

use belfry_ruler::yaml::Collector;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_saphyr::Spanned;

/// A named set of times.
#[derive(Clone, Debug, PartialEq)]
pub struct TimeInterval {
    /// Its name.
    pub name: String,
    spans: Vec<Span>,
}

/// Times that fulfil every condition that is there.
#[derive(Clone, Debug, PartialEq)]
struct Span {
    /// Minutes of the day, the end excluded.
    times: Vec<(i64, i64)>,
    /// 0 is Sunday.
    weekdays: Vec<(i64, i64)>,
    /// Negative counts from the end of the month.
    days: Vec<(i64, i64)>,
    months: Vec<(i64, i64)>,
    years: Vec<(i64, i64)>,
    zone: TimeZone,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IntervalText {
    pub(crate) name: Spanned<String>,
    #[serde(default)]
    time_intervals: Vec<SpanText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SpanText {
    #[serde(default)]
    times: Vec<TimesText>,
    #[serde(default)]
    weekdays: Vec<Spanned<String>>,
    #[serde(default)]
    days_of_month: Vec<Spanned<String>>,
    #[serde(default)]
    months: Vec<Spanned<String>>,
    #[serde(default)]
    years: Vec<Spanned<String>>,
    location: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TimesText {
    start_time: Spanned<String>,
    end_time: Spanned<String>,
}

const WEEKDAYS: [&str; 7] = ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

impl TimeInterval {
    pub(crate) fn read(text: &IntervalText, faults: &mut Collector) -> TimeInterval {
        let spans = text.time_intervals.iter().map(|span| Span::read(span, faults)).collect();
        TimeInterval { name: text.name.value.clone(), spans }
    }

    /// Whether a moment is one of its times.
    pub fn contains(&self, unix_millis: i64) -> bool {
        let Ok(at) = Timestamp::from_millisecond(unix_millis) else { return false };
        self.spans.iter().any(|span| span.contains(at))
    }
}

impl Span {
    fn read(text: &SpanText, faults: &mut Collector) -> Span {
        let times = text.times.iter().map(|times| {
            let (start, end) = (minute(&times.start_time, faults), minute(&times.end_time, faults));
            if start >= end {
                faults.on(&times.start_time, "start_time must be before end_time");
            }
            (start, end)
        });
        let times = times.collect();
        let named = |names: &'static [&'static str], first: i64| {
            move |word: &str| {
                let at = names.iter().position(|name| name.eq_ignore_ascii_case(word));
                at.and_then(|at| i64::try_from(at).ok()).map(|at| at + first).or_else(|| word.parse().ok())
            }
        };
        let number = |word: &str| word.parse().ok();
        let zone = text.location.as_ref().map_or(TimeZone::UTC, |place| {
            TimeZone::get(&place.value).unwrap_or_else(|_| {
                faults.on(place, format!("{:?} is no time zone, as Europe/Berlin", place.value));
                TimeZone::UTC
            })
        });
        Span {
            times,
            weekdays: ranges(&text.weekdays, (0, 6), named(&WEEKDAYS, 0), faults),
            days: ranges(&text.days_of_month, (-31, 31), number, faults),
            months: ranges(&text.months, (1, 12), named(&MONTHS, 1), faults),
            years: ranges(&text.years, (1970, 9_999), number, faults),
            zone,
        }
    }

    fn contains(&self, at: Timestamp) -> bool {
        let at = at.to_zoned(self.zone.clone());
        let is_in = |ranges: &[(i64, i64)], value: i64| {
            ranges.is_empty() || ranges.iter().any(|(from, to)| (*from..=*to).contains(&value))
        };
        let minute = i64::from(at.hour()) * 60 + i64::from(at.minute());
        let is_time =
            self.times.is_empty() || self.times.iter().any(|(from, to)| (*from..*to).contains(&minute));
        let days = i64::from(at.days_in_month());
        let from_end = |day: i64| if day < 0 { days + day + 1 } else { day };
        let day_ranges: Vec<(i64, i64)> =
            self.days.iter().map(|(from, to)| (from_end(*from), from_end(*to))).collect();
        is_time
            && is_in(&self.weekdays, i64::from(at.weekday().to_sunday_zero_offset()))
            && is_in(&day_ranges, i64::from(at.day()))
            && is_in(&self.months, i64::from(at.month()))
            && is_in(&self.years, i64::from(at.year()))
    }
}

/// `HH:MM` as minutes of the day.
fn minute(text: &Spanned<String>, faults: &mut Collector) -> i64 {
    let parts = text.value.split_once(':').and_then(|(hour, minute)| {
        let is_plain = hour.len() == 2 && minute.len() == 2;
        let (hour, minute): (i64, i64) = (hour.parse().ok()?, minute.parse().ok()?);
        let is_time = (0..24).contains(&hour) && (0..60).contains(&minute) || (hour, minute) == (24, 0);
        (is_plain && is_time).then_some(hour * 60 + minute)
    });
    parts.unwrap_or_else(|| {
        faults.on(text, format!("{:?} is no time of day, as 09:00", text.value));
        0
    })
}

/// `monday:friday`, `1:5`, `-3:-1`, `march`.
fn ranges(
    texts: &[Spanned<String>],
    (first, last): (i64, i64),
    read: impl Fn(&str) -> Option<i64>,
    faults: &mut Collector,
) -> Vec<(i64, i64)> {
    let mut found = Vec::new();
    for text in texts {
        let (from, to) = text.value.split_once(':').unwrap_or((&text.value, &text.value));
        match (read(from.trim()), read(to.trim())) {
            (Some(from), Some(to))
                if (first..=last).contains(&from)
                    && (first..=last).contains(&to)
                    && (from <= to || (from > 0 && to < 0))
                    && (first >= 0 || (from != 0 && to != 0)) =>
            {
                found.push((from, to));
            }
            _ => faults.on(text, format!("{:?} is no range between {first} and {last}", text.value)),
        }
    }
    found
}
