//! Durations and sizes as Prometheus writes them.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error as _};

/// A duration as Prometheus writes it: `1h30m`, `15s`, `500ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

const UNITS: [(&str, u64); 7] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
    ("y", 31_536_000_000),
];

impl Span {
    /// Reads it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut millis = 0_u64;
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.find(|letter: char| !letter.is_ascii_digit())?;
            let (number, after) = rest.split_at(digits);
            let letters = after.find(|letter: char| letter.is_ascii_digit()).unwrap_or(after.len());
            let (unit, after) = after.split_at(letters);
            let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
            millis = millis.checked_add(number.parse::<u64>().ok()?.checked_mul(*scale)?)?;
            rest = after;
        }
        (!text.is_empty()).then(|| Self(Duration::from_millis(millis)))
    }
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return f.write_str("0s");
        }
        for (unit, scale) in UNITS.iter().rev() {
            let is_short = !matches!(*unit, "y" | "w" | "d");
            // A number of weeks is written as such only when it is whole, as Prometheus does.
            if millis >= *scale && (is_short || millis.is_multiple_of(*scale)) {
                write!(f, "{}{unit}", millis / scale)?;
                millis %= scale;
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| D::Error::custom(format!("{text:?} is no duration, as 1m30s is one")))
    }
}

/// A size as `10MB`; zero is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size(pub usize);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let shift = match unit.trim().trim_end_matches("iB").trim_end_matches('B') {
            "" => 0,
            "K" => 10,
            "M" => 20,
            "G" => 30,
            _ => return Err(D::Error::custom(format!("{text:?} is no size, as 10MB is one"))),
        };
        let size = number.parse::<usize>().ok().and_then(|number| number.checked_mul(1 << shift));
        size.map(Self).ok_or_else(|| D::Error::custom(format!("{text:?} is no size, as 10MB is one")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_prometheus() {
        for (text, written) in
            [("90s", "1m30s"), ("1d", "1d"), ("36h", "36h"), ("2w", "2w"), ("1500ms", "1s500ms")]
        {
            assert_eq!(Span::parse(text).map(|span| span.to_string()).as_deref(), Some(written));
        }
        for text in ["", "5", "s", "5x", "-5s", "99999999999999999999s"] {
            assert_eq!(Span::parse(text), None, "{text}");
        }
    }
}
