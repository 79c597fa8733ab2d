//! The `[series]` section of `belfry.toml`.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::error::Error;

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
    /// Where older blocks go; none when all stay in the directory.
    #[serde(default)]
    pub bucket: Option<BucketConfig>,
    /// All blocks in the directory together; the oldest go first. None: only age counts.
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

/// A bucket of a store that speaks S3, or a directory on another disk.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketConfig {
    /// The bucket's name.
    #[serde(default)]
    pub name: Option<String>,
    /// Where it is, when it is not at AWS.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Its region.
    #[serde(default = "region")]
    pub region: String,
    /// A directory in the place of a bucket.
    #[serde(default)]
    pub directory: Option<PathBuf>,
    /// What the names of our objects begin with: one for each node.
    #[serde(default)]
    pub prefix: String,
    /// A file with the id of the key; left out, `AWS_ACCESS_KEY_ID` says it.
    #[serde(default)]
    pub access_key_file: Option<PathBuf>,
    /// A file with the secret of the key; left out, `AWS_SECRET_ACCESS_KEY` says it.
    #[serde(default)]
    pub secret_key_file: Option<PathBuf>,
    /// A block is uploaded when its last sample is older than this. Zero: every block, at once.
    #[serde(default = "upload_after", with = "humantime_serde")]
    pub upload_after: Duration,
    /// An uploaded block stays in the directory too until its last sample is older than this.
    #[serde(default = "local_for", with = "humantime_serde")]
    pub local_for: Duration,
    /// The longest that one question to the bucket may take.
    #[serde(default = "timeout", with = "humantime_serde")]
    pub timeout: Duration,
    /// Pieces of blocks in the bucket that are kept in memory.
    #[serde(default = "cache_bytes_max")]
    pub cache_bytes_max: usize,
}

fn region() -> String {
    "us-east-1".to_owned()
}

fn upload_after() -> Duration {
    Duration::from_hours(24)
}

fn local_for() -> Duration {
    Duration::from_hours(7 * 24)
}

fn timeout() -> Duration {
    Duration::from_secs(20)
}

fn cache_bytes_max() -> usize {
    128 << 20
}

impl BucketConfig {
    /// A directory in the place of a bucket, with the defaults.
    #[must_use]
    pub fn in_directory(directory: impl Into<PathBuf>) -> Self {
        Self {
            name: None,
            endpoint: None,
            region: region(),
            directory: Some(directory.into()),
            prefix: String::new(),
            access_key_file: None,
            secret_key_file: None,
            upload_after: upload_after(),
            local_for: local_for(),
            timeout: timeout(),
            cache_bytes_max: cache_bytes_max(),
        }
    }

    /// Id and secret of the key.
    pub(crate) fn keys(&self) -> Result<(String, String), Error> {
        let key = |file: Option<&PathBuf>, name: &str, variable: &str| match file {
            Some(path) => std::fs::read_to_string(path)
                .map(|text| text.trim().to_owned())
                .map_err(|source| Error::File { path: path.clone(), source }),
            None => std::env::var(variable).map_err(|_| Error::Config {
                key: format!("bucket.{name}"),
                fault: format!("name a file, or set {variable}"),
            }),
        };
        Ok((
            key(self.access_key_file.as_ref(), "access_key_file", "AWS_ACCESS_KEY_ID")?,
            key(self.secret_key_file.as_ref(), "secret_key_file", "AWS_SECRET_ACCESS_KEY")?,
        ))
    }

    fn check(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut expect = |is_good: bool, key: &str, text: &str| {
            if !is_good {
                faults.push((format!("bucket.{key}"), text.to_owned()));
            }
        };
        expect(
            self.name.is_some() != self.directory.is_some(),
            "name",
            "name either a bucket or a directory",
        );
        let is_url = |text: &String| text.starts_with("http://") || text.starts_with("https://");
        expect(
            self.endpoint.as_ref().is_none_or(is_url),
            "endpoint",
            "begin with https://, or with http:// inside your own network",
        );
        expect(
            self.access_key_file.is_some() == self.secret_key_file.is_some(),
            "secret_key_file",
            "name both files, or set both variables of the environment",
        );
        expect(self.local_for >= self.upload_after, "local_for", "must be at least upload_after");
        let times = Duration::from_millis(100)..=Duration::from_mins(5);
        expect(times.contains(&self.timeout), "timeout", "use 100ms to 5m");
        expect(self.cache_bytes_max >= 1 << 20, "cache_bytes_max", "use at least 1048576 bytes");
        faults
    }
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
            bucket: None,
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
        faults.extend(self.bucket.iter().flat_map(BucketConfig::check));
        faults
    }
}
