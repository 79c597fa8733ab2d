//! The section `[observe.query]`: what questions may cost, and what is told of slow ones. The defaults are in
//! `belfry.toml`.

use std::time::Duration;

use serde::Deserialize;

/// Bounds of the read APIs.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Questions that are answered at the same time; more would only slow each other down.
    pub questions_max: usize,
    /// Samples that one query in PromQL may read and values that it may compute, about 16 bytes each.
    pub samples_max: usize,
    /// The longest that one query may take; a request may ask for less.
    #[serde(with = "humantime_serde")]
    pub timeout_max: Duration,
    /// Bytes of one answer to a query.
    pub answer_bytes_max: usize,
    /// Calls whose curves one query may read.
    pub calls_max: usize,
    /// A query that takes so long leaves a line in the log.
    #[serde(with = "humantime_serde")]
    pub slow_after: Duration,
    /// Bytes of its text in that line; the rest is cut.
    pub slow_text_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            questions_max: 4,
            samples_max: 10_000_000,
            timeout_max: Duration::from_mins(2),
            answer_bytes_max: 256 << 20,
            calls_max: 16,
            slow_after: Duration::from_secs(5),
            slow_text_bytes_max: 2000,
        }
    }
}

impl Config {
    /// Every fault: the key inside the section, and what is allowed.
    #[must_use]
    pub fn check(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut expect = |is_good: bool, key: &str, text: &str| {
            if !is_good {
                faults.push((key.to_owned(), text.to_owned()));
            }
        };
        let (second, day) = (Duration::from_secs(1), Duration::from_hours(24));
        expect((1..=256).contains(&self.questions_max), "questions_max", "use 1 to 256");
        expect((1000..=10_000_000_000).contains(&self.samples_max), "samples_max", "use 1000 to 10000000000");
        expect((second..=day).contains(&self.timeout_max), "timeout_max", "use 1s to 1day");
        let bytes = 64 << 10..=4 << 30;
        expect(bytes.contains(&self.answer_bytes_max), "answer_bytes_max", "use 65536 to 4294967296");
        expect((1..=1000).contains(&self.calls_max), "calls_max", "use 1 to 1000");
        expect(
            (100..=100_000).contains(&self.slow_text_bytes_max),
            "slow_text_bytes_max",
            "use 100 to 100000",
        );
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named_with_what_is_allowed() {
        assert_eq!(Config::default().check(), vec![]);
        assert_eq!(Config { calls_max: 0, ..Config::default() }.check()[0].1, "use 1 to 1000");
    }
}
