//! When a trunk may be used: days and hours in a time zone.

use jiff::Timestamp;
use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use serde::Deserialize;

/// Minutes in a day and in a week.
const DAY: u16 = 24 * 60;
const WEEK: u16 = 7 * DAY;

/// Days and hours, as the operator writes them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowPlan {
    /// `mon` to `sun`, or ranges as `mon-fri`; empty means every day.
    #[serde(default)]
    pub days: Vec<String>,
    /// The first minute, as `08:00`.
    #[serde(default = "midnight")]
    pub from: String,
    /// The minute after the last one, as `18:00`; `24:00` is the end of the day. Before `from`, the window ends on the
    /// next day.
    #[serde(default = "end_of_day")]
    pub to: String,
}

fn midnight() -> String {
    "00:00".to_owned()
}

fn end_of_day() -> String {
    "24:00".to_owned()
}

/// Windows made ready: ranges of minutes of the week from Monday's midnight on, ends excluded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Windows(Vec<(u16, u16)>);

impl Windows {
    /// Makes windows ready.
    ///
    /// # Errors
    /// The index of the window, its key and what is wrong.
    pub(crate) fn compile(plans: &[WindowPlan]) -> Result<Self, (usize, &'static str, String)> {
        let mut ranges = Vec::new();
        for (index, plan) in plans.iter().enumerate() {
            let minute = |key: &'static str, text: &str| {
                let message = || (index, key, format!("{text:?} is not a time from 00:00 to 24:00"));
                minute_of(text).ok_or_else(message)
            };
            let (from, to) = (minute("from", &plan.from)?, minute("to", &plan.to)?);
            if from == to || from == DAY {
                return Err((index, "to", "the window is empty".to_owned()));
            }
            let length = if to > from { to - from } else { to + DAY - from };
            let days = days_of(&plan.days).map_err(|message| (index, "days", message))?;
            for day in (0..7).filter(|day| days[usize::from(*day)]) {
                let start = day * DAY + from;
                let end = start + length;
                ranges.push((start, end.min(WEEK)));
                if end > WEEK {
                    ranges.push((0, end - WEEK));
                }
            }
        }
        Ok(Self(ranges))
    }

    /// Whether a minute of the week is inside; without windows, every one is.
    pub(crate) fn contain(&self, minute_of_week: u16) -> bool {
        self.0.is_empty() || self.0.iter().any(|(start, end)| (*start..*end).contains(&minute_of_week))
    }

    pub(crate) fn are_always(&self) -> bool {
        self.0.is_empty()
    }
}

/// The minute of the week at a time, by the clocks of a zone. An hour that a clock change repeats is there twice, and
/// one that it skips is not there.
pub(crate) fn minute_of_week(unix_seconds: i64, zone: &TimeZone) -> u16 {
    let timestamp = Timestamp::from_second(unix_seconds).unwrap_or(Timestamp::UNIX_EPOCH);
    let local = zone.to_datetime(timestamp);
    let unsigned = |number: i8| u16::try_from(number).unwrap_or(0);
    unsigned(local.weekday().to_monday_zero_offset()) * DAY
        + unsigned(local.hour()) * 60
        + unsigned(local.minute())
}

fn minute_of(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let has_form = hours.len() == 2 && minutes.len() == 2;
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    let is_time = has_form && (hours < 24 && minutes < 60 || hours == 24 && minutes == 0);
    is_time.then_some(hours * 60 + minutes)
}

fn days_of(texts: &[String]) -> Result<[bool; 7], String> {
    let mut days = [texts.is_empty(); 7];
    for text in texts {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (day_of(first, text)?, day_of(last, text)?);
        let mut day = first;
        loop {
            days[day] = true;
            if day == last {
                break;
            }
            day = (day + 1) % 7;
        }
    }
    Ok(days)
}

fn day_of(name: &str, text: &str) -> Result<usize, String> {
    const NAMES: [(&str, Weekday); 7] = [
        ("mon", Weekday::Monday),
        ("tue", Weekday::Tuesday),
        ("wed", Weekday::Wednesday),
        ("thu", Weekday::Thursday),
        ("fri", Weekday::Friday),
        ("sat", Weekday::Saturday),
        ("sun", Weekday::Sunday),
    ];
    NAMES
        .iter()
        .position(|(known, _)| *known == name)
        .ok_or_else(|| format!("{text:?} is neither a day (mon to sun) nor a range as mon-fri"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(days: &[&str], from: &str, to: &str) -> WindowPlan {
        WindowPlan {
            days: days.iter().map(|day| (*day).to_owned()).collect(),
            from: from.to_owned(),
            to: to.to_owned(),
        }
    }

    fn check(plans: &[WindowPlan], zone: &str, time: &str, expected: bool) {
        let windows = Windows::compile(plans).expect("good windows");
        let seconds = time.parse::<Timestamp>().expect("a time").as_second();
        let zone = TimeZone::get(zone).expect("a zone");
        assert_eq!(windows.contain(minute_of_week(seconds, &zone)), expected, "{plans:?} {time}");
    }

    #[test]
    fn windows_follow_the_clocks_of_their_zone() {
        let office = [window(&["mon-fri"], "08:00", "18:00")];
        let night = [window(&[], "22:00", "06:00")];
        let sunday_night = [window(&["sun"], "22:00", "06:00")];
        // 2026-11-20 is a Friday.
        for (plans, zone, time, expected) in [
            (&office, "UTC", "2026-11-20T08:00:00Z", true),
            (&office, "UTC", "2026-11-20T07:59:59Z", false),
            (&office, "UTC", "2026-11-20T18:00:00Z", false),
            (&office, "UTC", "2026-11-21T12:00:00Z", false),
            (&office, "Europe/Berlin", "2026-11-20T07:00:00Z", true),
            // Summer time: 08:00 in Berlin is 06:00 UTC.
            (&office, "Europe/Berlin", "2026-07-20T06:00:00Z", true),
            (&office, "Europe/Berlin", "2026-07-20T05:59:00Z", false),
            (&night, "UTC", "2026-11-20T23:00:00Z", true),
            (&night, "UTC", "2026-11-21T05:59:00Z", true),
            (&night, "UTC", "2026-11-21T06:00:00Z", false),
            // Over the end of the week.
            (&sunday_night, "UTC", "2026-11-23T05:00:00Z", true),
            (&sunday_night, "UTC", "2026-11-24T05:00:00Z", false),
        ] {
            check(plans, zone, time, expected);
        }
        check(&[], "UTC", "2026-11-20T08:00:00Z", true);
    }

    #[test]
    fn bad_windows_say_what_is_allowed() {
        for (plan, key, word) in [
            (window(&["mo"], "08:00", "18:00"), "days", "mon to sun"),
            (window(&[], "8:00", "18:00"), "from", "00:00 to 24:00"),
            (window(&[], "08:00", "24:01"), "to", "00:00 to 24:00"),
            (window(&[], "08:00", "08:00"), "to", "empty"),
        ] {
            let (index, found, message) = Windows::compile(&[plan]).expect_err(key);
            assert!(index == 0 && found == key && message.contains(word), "{message}");
        }
    }
}
