//! Lengths of time as rule files write them: whole numbers with a unit, as `30d`, `5m` or `1h30m`.

/// Why a text is not a length of time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a length of time: write whole numbers with s, m, h, d or w, as \"30d\" or \"1h30m\"")]
pub struct BadDuration(String);

/// Reads a length of time in seconds.
///
/// # Errors
/// When the text is empty, has an unknown unit or a number without one, or does not fit in 64 bits.
pub fn parse_seconds(text: &str) -> Result<u64, BadDuration> {
    read(text).ok_or_else(|| BadDuration(text.to_owned()))
}

fn read(text: &str) -> Option<u64> {
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let unit_seconds = match rest.as_bytes()[digits] {
            b's' => 1,
            b'm' => 60,
            b'h' => 3_600,
            b'd' => 86_400,
            b'w' => 604_800,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(unit_seconds)?)?;
        rest = &rest[digits + 1..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_whole_numbers_with_units() {
        for (text, seconds) in
            [("30d", 2_592_000), ("12h", 43_200), ("5m", 300), ("7s", 7), ("1h30m", 5_400), ("4w", 2_419_200)]
        {
            assert_eq!(parse_seconds(text), Ok(seconds), "{text}");
        }
        for text in [
            "",
            "5",
            "m",
            "5 m",
            "5ms",
            "1.5h",
            "-1h",
            "5M",
            "99999999999999999999s",
            "18446744073709551615w",
        ] {
            assert!(parse_seconds(text).is_err(), "{text}");
        }
    }
}
