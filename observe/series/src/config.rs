//! The `[series]` section of `belfry.toml`.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

/// How metrics are kept.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where blocks and catalogue live.
    pub directory: PathBuf,
    /// The window of time that one block covers.
    #[serde(with = "humantime_serde")]
    pub block_duration: Duration,
    /// Blocks whose last sample is older than this are deleted.
    #[serde(with = "humantime_serde")]
    pub retention: Duration,
    /// Series in one window, over all metrics; more are dropped and counted.
    pub series_max: usize,
    /// Series in one window of one metric; more are dropped and counted.
    pub metric_series_max: usize,
    /// Packed samples in memory, in bytes; a block is sealed early when there are more.
    pub head_bytes_max: usize,
    /// Points that one query may read.
    pub select_points_max: usize,
    /// Indexes of blocks kept in memory for queries.
    pub block_indexes_max: usize,
}

impl Config {
    /// Every fault: the key inside the section, and what is wrong with it and what is allowed.
    #[must_use]
    pub fn check(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut expect = |is_good: bool, key: &str, text: &str| {
            if !is_good {
                faults.push((key.to_owned(), text.to_owned()));
            }
        };
        expect(!self.directory.as_os_str().is_empty(), "directory", "name a directory");
        expect(
            (Duration::from_secs(60)..=Duration::from_hours(24)).contains(&self.block_duration),
            "block_duration",
            "use 1m to 24h",
        );
        expect(self.retention >= self.block_duration, "retention", "must be at least block_duration");
        expect((1..=50_000_000).contains(&self.series_max), "series_max", "use 1 to 50000000 series");
        expect(
            (1..=self.series_max).contains(&self.metric_series_max),
            "metric_series_max",
            "use 1 to series_max series",
        );
        expect(self.head_bytes_max >= 64 << 10, "head_bytes_max", "use at least 65536 bytes");
        expect(self.select_points_max >= 1, "select_points_max", "use at least 1 point");
        expect(self.block_indexes_max >= 1, "block_indexes_max", "use at least 1 index");
        faults
    }
}
