//! One message: RFC 5424, or what is near to RFC 3164. Everything that has text in it is kept; what is not understood
//! stays in the text.

use std::net::IpAddr;

use belfry_signal::{Record, Value};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::severity;
use crate::doors::refusal::Refusal;
use crate::doors::shape::{self, ForeignLog, Shaper, text};

/// Names of the facilities (RFC 5424 section 6.2.1, in the words of syslog.conf).
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    "ntp", "security", "console", "clock", "local0", "local1", "local2", "local3", "local4", "local5",
    "local6", "local7",
];
/// Structured elements of one message that are read; what follows stays text.
const ELEMENTS_MAX: usize = 64;
/// What a message without a priority counts as (RFC 3164 section 4.3.3): user, notice.
const NO_PRIORITY: u8 = 13;
/// A time of this year that lies further ahead is of last year.
const AHEAD_SECONDS_MAX: i64 = 86_400;

/// What the head of a message says.
#[derive(Debug, Default)]
struct Head {
    unix_nanos: Option<u64>,
    host: Option<String>,
    attributes: Vec<(String, Value)>,
}

/// A message as a record. `sender` stands for the host where the message names none.
pub(crate) fn parse(
    bytes: &[u8],
    sender: Option<IpAddr>,
    zone: &TimeZone,
    shaper: &mut Shaper<'_>,
) -> Result<Record, Refusal> {
    let bytes = bytes.trim_ascii_end();
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    if bytes.is_empty() {
        return Err(Refusal::malformed("an empty message"));
    }
    let whole = shaper.text(bytes);
    let (priority, rest) = priority(&whole).unwrap_or((NO_PRIORITY, &whole));
    let now_nanos = shaper.now_nanos();
    let mut head = Head::default();
    let message = modern(rest, &mut head)
        .unwrap_or_else(|| {
            head = Head::default();
            classic(rest, zone, now_nanos, &mut head)
        })
        .to_owned();
    let Head { unix_nanos, host, mut attributes } = head;
    let facility = FACILITIES.get(usize::from(priority >> 3)).copied().unwrap_or("unknown");
    attributes.push(("syslog.facility".to_owned(), text(facility)));
    let host = host.or_else(|| sender.map(|address| address.to_string()));
    attributes.extend(host.map(|host| ("host.name".to_owned(), text(host))));
    let severity = severity(priority);
    Ok(shaper.log(ForeignLog { unix_nanos, severity, message, attributes, context: None }))
}

/// `<PRI>`, at most 191.
fn priority(whole: &str) -> Option<(u8, &str)> {
    let (digits, rest) = whole.strip_prefix('<')?.split_once('>')?;
    let is_number = (1..=3).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: u8 = digits.parse().ok().filter(|number| is_number && *number <= 191)?;
    Some((number, rest))
}

/// RFC 5424: all seven fields of the header, or nothing.
fn modern<'a>(rest: &'a str, head: &mut Head) -> Option<&'a str> {
    let rest = rest.strip_prefix('1')?.strip_prefix(' ')?;
    let mut fields = rest.splitn(6, ' ');
    let time = fields.next()?;
    let (host, app, process, kind) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let rest = fields.next()?;
    head.unix_nanos = match time {
        "-" => None,
        time => Some(nanos(time.parse::<jiff::Timestamp>().ok()?)?),
    };
    let said = |field: &str| (field != "-" && !field.is_empty()).then(|| field.to_owned());
    head.host = said(host);
    head.attributes.extend(said(app).map(|app| ("service.name".to_owned(), text(app))));
    head.attributes.extend(said(process).map(process_id));
    head.attributes.extend(said(kind).map(|kind| ("syslog.msgid".to_owned(), text(kind))));
    let rest = structured(rest, head)?;
    let message = rest.strip_prefix(' ').unwrap_or(rest);
    Some(message.strip_prefix('\u{feff}').unwrap_or(message))
}

/// `-` or `[id name="value" ...]...`; what follows.
fn structured<'a>(rest: &'a str, head: &mut Head) -> Option<&'a str> {
    if let Some(rest) = rest.strip_prefix('-') {
        return (rest.is_empty() || rest.starts_with(' ')).then_some(rest);
    }
    let mut rest = rest;
    for _ in 0..ELEMENTS_MAX {
        let Some(element) = rest.strip_prefix('[') else { break };
        rest = element_of(element, head)?;
    }
    Some(rest)
}

/// Names of structured data have 32 characters at most (RFC 5424 section 6.3.2); some senders take more.
const SD_NAME_BYTES_MAX: usize = 64;

fn element_of<'a>(element: &'a str, head: &mut Head) -> Option<&'a str> {
    let end = element.find([' ', ']'])?;
    let (id, mut rest) = element.split_at(end);
    // It stands before each of the names: a long one must not be copied as often as there are of them.
    let id = shape::head(id, SD_NAME_BYTES_MAX);
    loop {
        rest = rest.trim_start_matches(' ');
        if let Some(rest) = rest.strip_prefix(']') {
            return Some(rest);
        }
        let (name, value) = rest.split_once("=\"")?;
        let mut unescaped = String::new();
        let mut characters = value.char_indices();
        rest = loop {
            match characters.next()? {
                (at, '"') => break &value[at + 1..],
                (_, '\\') => match characters.next()? {
                    (_, escaped @ ('"' | '\\' | ']')) => unescaped.push(escaped),
                    (_, other) => unescaped.extend(['\\', other]),
                },
                (_, other) => unescaped.push(other),
            }
        };
        head.attributes.push((format!("syslog.{id}.{name}"), text(unescaped)));
    }
}

/// RFC 3164 and its kin: a time, perhaps a host, perhaps a tag with a process, and the message.
fn classic<'a>(rest: &'a str, zone: &TimeZone, now_nanos: u64, head: &mut Head) -> &'a str {
    let rest = rest.trim_start_matches(' ');
    let Some((unix_nanos, rest)) = time(rest, zone, now_nanos) else {
        return tag(rest, head).unwrap_or(rest);
    };
    head.unix_nanos = Some(unix_nanos);
    // Some devices end the time with a colon.
    let rest = rest.strip_prefix(':').unwrap_or(rest).trim_start_matches(' ');
    // What sends to its own daemon leaves the host out.
    if let Some(message) = tag(rest, head) {
        return message;
    }
    let Some((host, rest)) = rest.split_once(' ') else { return rest };
    if host.is_empty() || host.len() > 255 || !host.bytes().all(|byte| byte.is_ascii_graphic()) {
        return rest;
    }
    head.host = Some(host.trim_end_matches(':').to_owned());
    tag(rest, head).unwrap_or(rest)
}

/// `app: message`, `app[123]: message`.
fn tag<'a>(rest: &'a str, head: &mut Head) -> Option<&'a str> {
    let end = rest.find(|c: char| c == ':' || c == '[' || c.is_whitespace())?;
    let (app, rest) = rest.split_at(end);
    let is_name = (1..=64).contains(&app.len())
        && app.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/@".contains(&byte));
    if !is_name {
        return None;
    }
    let (process, rest) = match rest.strip_prefix('[') {
        Some(inner) => {
            let (process, rest) = inner.split_once(']')?;
            (Some(process.to_owned()), rest)
        }
        None => (None, rest),
    };
    let message = rest.strip_prefix(':')?;
    // `http://` is no tag.
    let message = message.strip_prefix(' ').or_else(|| message.is_empty().then_some(message))?;
    head.attributes.push(("service.name".to_owned(), text(app)));
    head.attributes.extend(process.map(process_id));
    Some(message)
}

fn process_id(process: String) -> (String, Value) {
    let value = process.parse::<i64>().map_or_else(|_| text(process), Value::from);
    ("process.pid".to_owned(), value)
}

/// A time at the front: RFC 3339, or `Nov 20 14:05:59` with or without year and fractions.
fn time<'a>(rest: &'a str, zone: &TimeZone, now_nanos: u64) -> Option<(u64, &'a str)> {
    let (first, after) = rest.split_once(' ').unwrap_or((rest, ""));
    if first.len() >= 19
        && let Ok(stamp) = first.trim_end_matches(':').parse::<jiff::Timestamp>()
    {
        return Some((nanos(stamp)?, after));
    }
    let month = MONTHS.iter().position(|month| first.eq_ignore_ascii_case(month))?;
    let month = i8::try_from(month + 1).ok()?;
    let (day, after) = after.trim_start_matches(' ').split_once(' ')?;
    let day: i8 = day.parse().ok()?;
    let (next, tail) =
        after.trim_start_matches(' ').split_once(' ').unwrap_or((after.trim_start_matches(' '), ""));
    let (year, clock, tail) = match next.parse::<i16>() {
        Ok(year) if next.len() == 4 => {
            let (clock, tail) = tail.split_once(' ').unwrap_or((tail, ""));
            (Some(year), clock, tail)
        }
        _ => (None, next, tail),
    };
    let clock: jiff::civil::Time = clock.trim_end_matches(':').parse().ok()?;
    let now = jiff::Timestamp::from_nanosecond(i128::from(now_nanos)).ok()?;
    let in_year = |year: i16| {
        let date = jiff::civil::Date::new(year, month, day).ok()?;
        zone.to_timestamp(DateTime::from_parts(date, clock)).ok()
    };
    let this_year = zone.to_datetime(now).year();
    let stamp = match year {
        Some(year) => in_year(year)?,
        None => {
            let stamp = in_year(this_year);
            // The last evening of the year, read in the first morning of the next; or the other way round.
            let is_ahead = stamp.is_none_or(|stamp| stamp.as_second() > now.as_second() + AHEAD_SECONDS_MAX);
            if is_ahead { in_year(this_year - 1).or(stamp)? } else { stamp? }
        }
    };
    Some((nanos(stamp)?, tail))
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

fn nanos(stamp: jiff::Timestamp) -> Option<u64> {
    u64::try_from(stamp.as_nanosecond()).ok()
}

#[cfg(test)]
mod tests;
