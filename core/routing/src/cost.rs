//! What a minute over a trunk costs: exact decimals, no floating point.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// Decimals of a cost.
const DECIMALS: usize = 6;
/// Millionths in one.
const MILLION: u64 = 1_000_000;

/// Cost of a minute in millionths of the house's currency unit. What a caller pays is the rating's affair, not this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cost(pub u64);

impl Cost {
    /// Reads `0.0125`: up to nine digits before the point and six after it.
    ///
    /// # Errors
    /// Says what is allowed.
    pub fn parse(text: &str) -> Result<Self, CostError> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let are_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let has_form = (1..=9).contains(&whole.len())
            && decimals.len() <= DECIMALS
            && are_digits(whole)
            && are_digits(decimals)
            && !text.ends_with('.');
        if !has_form {
            return Err(CostError(text.chars().take(40).collect()));
        }
        let millionths = format!("{decimals:0<DECIMALS$}");
        let read = |part: &str| part.parse::<u64>().unwrap_or(0);
        Ok(Self(read(whole) * MILLION + read(&millionths)))
    }
}

/// A text that is no cost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a cost: write digits with at most six decimals, as 0.0125")]
pub struct CostError(String);

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = format!("{:06}", self.0 % MILLION);
        let decimals = decimals.trim_end_matches('0');
        write!(f, "{}", self.0 / MILLION)?;
        if decimals.is_empty() { Ok(()) } else { write!(f, ".{decimals}") }
    }
}

impl<'de> Deserialize<'de> for Cost {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A text, because TOML's numbers with a point are binary fractions.
        Self::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_exact() {
        for (text, millionths, shown) in [
            ("0.0125", 12_500, "0.0125"),
            ("1", 1_000_000, "1"),
            ("0.000001", 1, "0.000001"),
            ("12.50", 12_500_000, "12.5"),
        ] {
            let cost = Cost::parse(text).expect(text);
            assert_eq!((cost.0, cost.to_string().as_str()), (millionths, shown));
        }
        for text in ["", ".5", "1.", "-1", "1e3", "0.0000001", "1,5", "1234567890"] {
            assert!(Cost::parse(text).is_err(), "{text}");
        }
    }
}
