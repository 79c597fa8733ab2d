//! Times and numbers as Go's programs write and read them.

use std::collections::BTreeMap;

use jiff::Timestamp;

/// RFC 3339 with milliseconds; Go's zero time for none.
pub(super) fn time(unix_millis: Option<i64>) -> String {
    let at = unix_millis.and_then(|millis| Timestamp::from_millisecond(millis).ok());
    at.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |at| format!("{at:.3}"))
}

/// RFC 3339 as milliseconds; `None` for Go's zero time and for nothing.
pub(crate) fn parse_time(text: Option<&str>) -> Result<Option<i64>, String> {
    let Some(text) = text.filter(|text| !text.is_empty() && !text.starts_with("0001-01-01")) else {
        return Ok(None);
    };
    let at: Timestamp = text.parse().map_err(|_| format!("{text:?} is no time, as 2026-11-20T08:30:00Z"))?;
    Ok(Some(at.as_millisecond()))
}

/// A float as Go writes it with `%e`: `1e+00`, `-2.5e-03`.
pub(super) fn scientific(value: f64) -> String {
    if !value.is_finite() {
        return belfry_promql::format_float(value);
    }
    let text = format!("{value:e}");
    let Some((mantissa, exponent)) = text.split_once('e') else { return text };
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// Labels as an object.
pub(super) fn object(pairs: &[(String, String)]) -> BTreeMap<&str, &str> {
    pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_numbers_read_as_those_of_go() {
        assert_eq!(time(Some(1_795_163_417_123)), "2026-11-20T08:30:17.123Z");
        assert_eq!(parse_time(Some("2026-11-20T09:30:17.123+01:00")), Ok(Some(1_795_163_417_123)));
        assert_eq!((parse_time(None), parse_time(Some("0001-01-01T00:00:00.000Z"))), (Ok(None), Ok(None)));
        assert!(parse_time(Some("tomorrow")).is_err());
        for (value, text) in
            [(1.0, "1e+00"), (0.0, "0e+00"), (-0.0025, "-2.5e-03"), (1e100, "1e+100"), (f64::NAN, "NaN")]
        {
            assert_eq!(scientific(value), text);
        }
    }
}
