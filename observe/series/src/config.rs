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
    /// The window of time that the first compacted blocks cover.
    #[serde(with = "humantime_serde")]
    pub block_duration: Duration,
    /// Blocks are compacted to windows three times as long, again and again, up to this.
    #[serde(with = "humantime_serde")]
    pub compacted_duration_max: Duration,
    /// Blocks whose last sample is older than this are deleted.
    #[serde(with = "humantime_serde")]
    pub retention: Duration,
    /// A day is downsampled to stretches of five minutes when it has been over for this long, and for a window of blocks and
    /// of late samples at least.
    #[serde(with = "humantime_serde")]
    pub five_minutes_after: Duration,
    /// What is downsampled to five minutes is deleted when it is older than this. Zero: nothing is.
    #[serde(with = "humantime_serde")]
    pub five_minutes_retention: Duration,
    /// A day is downsampled to stretches of an hour when it has been over for this long.
    #[serde(with = "humantime_serde")]
    pub one_hour_after: Duration,
    /// What is downsampled to an hour is deleted when it is older than this. Zero: nothing is.
    #[serde(with = "humantime_serde")]
    pub one_hour_retention: Duration,
    /// All blocks together; the oldest go first. None: only age counts.
    pub disk_bytes_max: Option<u64>,
    /// Samples this much older than the newest are still taken. Zero: a series' samples come in order or are refused.
    #[serde(with = "humantime_serde")]
    pub out_of_order_window: Duration,
    /// Whether a series that says when it was created gets a sample of zero at that time, so that `rate` sees the start.
    pub created_zero: bool,
    /// Series in memory, over all metrics; new ones beyond it are dropped and counted.
    pub series_max: usize,
    /// Series of one metric in memory; new ones beyond it are dropped and counted, and only that metric suffers.
    pub metric_series_max: usize,
    /// The label that says whose series it is; none when all are one tenant's.
    pub tenant_label: Option<String>,
    /// Series of one tenant in memory; new ones beyond it are dropped and counted.
    pub tenant_series_max: usize,
    /// Exemplars of one series that a block, or the head, keeps.
    pub series_exemplars_max: usize,
    /// Exemplars in memory.
    pub exemplars_max: usize,
    /// Metrics whose type, help and unit are kept.
    pub metadata_max: usize,
    /// Packed samples in memory, in bytes; they are sealed into a block early when there are more.
    pub head_bytes_max: usize,
    /// Points that one query may read.
    pub select_points_max: usize,
    /// Pages of the blocks' indexes kept in memory for queries.
    pub index_cache_bytes_max: usize,
}

impl Config {
    /// The defaults of `belfry.toml`, for tools and tests.
    #[must_use]
    pub fn in_directory(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            block_duration: Duration::from_hours(2),
            compacted_duration_max: Duration::from_hours(31 * 24),
            retention: Duration::from_hours(90 * 24),
            five_minutes_after: Duration::from_hours(12),
            five_minutes_retention: Duration::from_hours(180 * 24),
            one_hour_after: Duration::from_hours(24),
            one_hour_retention: Duration::from_hours(730 * 24),
            disk_bytes_max: None,
            out_of_order_window: Duration::from_mins(30),
            created_zero: true,
            series_max: 1_000_000,
            metric_series_max: 10_000,
            tenant_label: None,
            tenant_series_max: 100_000,
            series_exemplars_max: 10,
            exemplars_max: 100_000,
            metadata_max: 10_000,
            head_bytes_max: 256 << 20,
            select_points_max: 5_000_000,
            index_cache_bytes_max: 64 << 20,
        }
    }

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
        expect(
            self.compacted_duration_max >= self.block_duration,
            "compacted_duration_max",
            "must be at least block_duration",
        );
        expect(self.retention >= self.block_duration, "retention", "must be at least block_duration");
        expect(
            self.disk_bytes_max.is_none_or(|bytes| bytes >= 1 << 20),
            "disk_bytes_max",
            "use at least 1048576 bytes, or leave it out",
        );
        expect(
            self.out_of_order_window <= Duration::from_hours(7 * 24),
            "out_of_order_window",
            "use 0s to 7days",
        );
        expect((1..=50_000_000).contains(&self.series_max), "series_max", "use 1 to 50000000 series");
        expect(
            (1..=self.series_max).contains(&self.metric_series_max),
            "metric_series_max",
            "use 1 to series_max series",
        );
        expect(
            self.tenant_label.as_ref().is_none_or(|label| !label.is_empty()),
            "tenant_label",
            "name a label, or leave it out",
        );
        expect(self.tenant_series_max >= 1, "tenant_series_max", "use at least 1 series");
        expect(self.head_bytes_max >= 64 << 10, "head_bytes_max", "use at least 65536 bytes");
        expect(self.select_points_max >= 1, "select_points_max", "use at least 1 point");
        expect(self.index_cache_bytes_max >= 1 << 20, "index_cache_bytes_max", "use at least 1048576 bytes");
        faults
    }
}
