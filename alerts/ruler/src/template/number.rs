//! Numbers for people, as Prometheus' template functions and C's `%g` write them.

use jiff::Timestamp;

/// C's `%.{precision}g`: so many significant digits, without trailing zeros.
pub(crate) fn general(value: f64, precision: usize) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    if value == 0.0 {
        return if value.is_sign_negative() { "-0" } else { "0" }.to_owned();
    }
    let precision = precision.max(1);
    let scientific = format!("{value:.*e}", precision - 1);
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if exponent < -4 || exponent >= i32::try_from(precision).unwrap_or(i32::MAX) {
        let mantissa = if mantissa.contains('.') {
            mantissa.trim_end_matches('0').trim_end_matches('.')
        } else {
            mantissa
        };
        return format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs());
    }
    let decimals = usize::try_from(i32::try_from(precision).unwrap_or(0) - 1 - exponent).unwrap_or(0);
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

const LARGE: [&str; 8] = ["k", "M", "G", "T", "P", "E", "Z", "Y"];
const SMALL: [&str; 8] = ["m", "u", "n", "p", "f", "a", "z", "y"];

/// `humanize`: SI prefixes, four digits.
pub(crate) fn humanize(mut value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return general(value, 4);
    }
    let mut prefix = "";
    if value.abs() >= 1.0 {
        for next in LARGE {
            if value.abs() < 1000.0 {
                break;
            }
            prefix = next;
            value /= 1000.0;
        }
    } else {
        for next in SMALL {
            if value.abs() >= 1.0 {
                break;
            }
            prefix = next;
            value *= 1000.0;
        }
    }
    format!("{}{prefix}", general(value, 4))
}

/// `humanize1024`: powers of 1024.
pub(crate) fn humanize_1024(mut value: f64) -> String {
    if value.abs() <= 1.0 || !value.is_finite() {
        return general(value, 4);
    }
    let mut prefix = "";
    for next in ["ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"] {
        if value.abs() < 1024.0 {
            break;
        }
        prefix = next;
        value /= 1024.0;
    }
    format!("{}{prefix}", general(value, 4))
}

/// `humanizeDuration`: seconds as `1d 2h 3m 4s`.
#[expect(clippy::cast_possible_truncation, reason = "a duration too long for an integer becomes the longest")]
pub(crate) fn humanize_duration(mut value: f64) -> String {
    if !value.is_finite() {
        return general(value, 4);
    }
    if value == 0.0 {
        return "0s".to_owned();
    }
    if value.abs() < 1.0 {
        let mut prefix = "";
        for next in SMALL {
            if value.abs() >= 1.0 {
                break;
            }
            prefix = next;
            value *= 1000.0;
        }
        return format!("{}{prefix}s", general(value, 4));
    }
    let sign = if value < 0.0 { "-" } else { "" };
    let value = value.abs();
    let whole = value as i64;
    let (seconds, minutes) = (whole % 60, whole / 60 % 60);
    let (hours, days) = (whole / 3_600 % 24, whole / 86_400);
    if days != 0 {
        format!("{sign}{days}d {hours}h {minutes}m {seconds}s")
    } else if hours != 0 {
        format!("{sign}{hours}h {minutes}m {seconds}s")
    } else if minutes != 0 {
        format!("{sign}{minutes}m {seconds}s")
    } else {
        format!("{sign}{}s", general(value, 4))
    }
}

/// `humanizePercentage`: a ratio as a percentage.
pub(crate) fn humanize_percentage(value: f64) -> String {
    format!("{}%", general(value * 100.0, 4))
}

/// A moment as Go prints it: `2009-02-13 23:31:30.43 +0000 UTC`.
pub(crate) fn print_time(unix_millis: i64) -> String {
    let Ok(time) = Timestamp::from_millisecond(unix_millis) else { return unix_millis.to_string() };
    let whole = time.strftime("%Y-%m-%d %H:%M:%S").to_string();
    let millis = format!("{:03}", unix_millis.rem_euclid(1_000));
    let fraction = millis.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{whole}{point}{fraction} +0000 UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_those_of_prometheus() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (1_000.0, "1000"),
            (12_345.0, "1.234e+04"),
            (0.000_012_3, "1.23e-05"),
            (0.1, "0.1"),
            (-2.5, "-2.5"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(general(value, 4), text);
        }
        for (value, text) in
            [(0.0, "0"), (1_234_567.0, "1.235M"), (0.12, "120m"), (1.0, "1"), (-1e27, "-1000Y")]
        {
            assert_eq!(humanize(value), text);
        }
        for (value, text) in [(1_048_576.0, "1Mi"), (1.0, "1"), (2_048.0, "2ki"), (0.5, "0.5")] {
            assert_eq!(humanize_1024(value), text);
        }
        for (value, text) in [
            (0.0, "0s"),
            (1.5, "1.5s"),
            (60.0, "1m 0s"),
            (3_600.0, "1h 0m 0s"),
            (86_400.0, "1d 0h 0m 0s"),
            (-90.0, "-1m 30s"),
            (0.000_001, "1us"),
            (0.1, "100ms"),
        ] {
            assert_eq!(humanize_duration(value), text);
        }
        assert_eq!(humanize_percentage(0.123_456), "12.35%");
        assert_eq!(print_time(1_234_567_890_430), "2009-02-13 23:31:30.43 +0000 UTC");
        assert_eq!(print_time(0), "1970-01-01 00:00:00 +0000 UTC");
    }
}
