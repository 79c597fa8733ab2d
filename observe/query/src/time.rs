//! Times as people write and read them.

use jiff::Timestamp;

use crate::error::Error;

const NANOS_PER_SECOND: u64 = 1_000_000_000;
const HINT: &str =
    "write 2026-11-20T08:30:00Z, Unix seconds as 1795161600, now, or a time ago as -15m (s, m, h, d)";

/// Nanoseconds since the Unix epoch of a time in a request.
///
/// # Errors
/// When it is not written in one of the ways that the hint names.
pub(crate) fn parse(place: &'static str, text: &str, now_nanos: u64) -> Result<u64, Error> {
    let wrong = || Error::BadRequest { place, what: format!("{text:?} is not a time"), hint: HINT };
    let text = text.trim();
    if text == "now" {
        return Ok(now_nanos);
    }
    if let Some(ago) = text.strip_prefix('-') {
        return seconds_of(ago)
            .and_then(|seconds| seconds.checked_mul(NANOS_PER_SECOND))
            .map(|nanos| now_nanos.saturating_sub(nanos))
            .ok_or_else(wrong);
    }
    if let Some(nanos) = unix_nanos(text) {
        return Ok(nanos);
    }
    let timestamp: Timestamp = text.parse().map_err(|_| wrong())?;
    u64::try_from(timestamp.as_nanosecond()).map_err(|_| wrong())
}

/// `1795161600` or `1795161600.25`, without going through a double.
fn unix_nanos(text: &str) -> Option<u64> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if seconds.is_empty() || !are_digits(seconds) || !are_digits(fraction) {
        return None;
    }
    let nanos: u64 = format!("{fraction:0<9.9}").parse().ok()?;
    seconds.parse::<u64>().ok()?.checked_mul(NANOS_PER_SECOND)?.checked_add(nanos)
}

/// `90s`, `15m`, `6h`, `7d`.
fn seconds_of(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// RFC 3339 in UTC, with as many digits as the time has.
pub(crate) fn text(unix_nanos: u64) -> String {
    Timestamp::from_nanosecond(i128::from(unix_nanos)).map_or_else(|_| String::new(), |time| time.to_string())
}

/// Milliseconds since the Unix epoch, as browsers count: exact to less than a microsecond.
#[expect(clippy::cast_precision_loss, reason = "a double holds today's milliseconds to 0.0002")]
pub(crate) fn millis(unix_nanos: u64) -> f64 {
    (unix_nanos / 1_000_000) as f64 + (unix_nanos % 1_000_000) as f64 / 1e6
}

/// Milliseconds from one time to another; negative when it was before.
#[expect(clippy::cast_precision_loss, reason = "differences inside a call are small")]
pub(crate) fn offset_millis(from_nanos: u64, to_nanos: u64) -> f64 {
    if to_nanos >= from_nanos {
        (to_nanos - from_nanos) as f64 / 1e6
    } else {
        -((from_nanos - to_nanos) as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let now = 1_795_161_600 * NANOS_PER_SECOND;
        let cases: &[(&str, Option<u64>)] = &[
            ("now", Some(now)),
            ("-15m", Some(now - 900 * NANOS_PER_SECOND)),
            ("1795161600", Some(now)),
            ("1795161600.25", Some(now + NANOS_PER_SECOND / 4)),
            ("2026-11-20T08:00:00Z", Some(now)),
            ("2026-11-20T09:00:00+01:00", Some(now)),
            ("", None),
            ("yesterday", None),
            ("-15", None),
            ("-99999999999999999999d", None),
            ("1.x", None),
            ("99999999999999999999", None),
            ("-é", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse("from", text, now).ok(), *expected, "{text:?}");
        }
        assert_eq!(super::text(now + 5_000_000), "2026-11-20T08:00:00.005Z");
        assert!((millis(now + 1_500_000) - 1_795_161_600_001.5).abs() < 0.001);
    }
}
