//! The `[pipeline]` section of `belfry.toml`.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

/// How telemetry becomes durable.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the write-ahead log lives.
    pub directory: PathBuf,
    /// A log file is closed when it is this long.
    pub segment_bytes_max: u64,
    /// The log as a whole: when the stores stay behind this far, the oldest file goes, counted.
    pub wal_bytes_max: u64,
    /// The longest entry; a longer one is dropped and counted.
    pub record_bytes_max: u64,
    /// How long the first record of a batch waits for company before the fsync.
    #[serde(with = "humantime_serde")]
    pub commit_interval: Duration,
    /// A batch of this many records does not wait any longer.
    pub commit_records_max: usize,
    /// How long a batch is tried again on a failing disk before it is dropped and counted.
    #[serde(with = "humantime_serde")]
    pub retry_for: Duration,
    /// How often the metrics are sampled into the series store.
    #[serde(with = "humantime_serde")]
    pub sample_interval: Duration,
    /// A collector that gets spans and logs, without their private values.
    pub export: Option<ExportConfig>,
}

/// Export of spans and logs over OTLP/gRPC.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportConfig {
    /// The collector, as `http://collector.example:4317`.
    pub endpoint: String,
    /// Time for one batch, retries included.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// How long a batch waits for company.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// A batch of this many does not wait any longer.
    pub batch_records_max: usize,
    /// Records that wait for the collector; more are dropped and counted.
    pub queue_records_max: usize,
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
            (64 << 10..=1 << 30).contains(&self.segment_bytes_max),
            "segment_bytes_max",
            "use 65536 to 1073741824 bytes",
        );
        expect(
            self.wal_bytes_max >= self.segment_bytes_max.saturating_mul(2),
            "wal_bytes_max",
            "must hold at least two segments",
        );
        expect(
            (1024..=16 << 20).contains(&self.record_bytes_max),
            "record_bytes_max",
            "use 1024 to 16777216 bytes",
        );
        expect(self.commit_interval <= Duration::from_secs(1), "commit_interval", "use at most 1s");
        expect(
            (1..=100_000).contains(&self.commit_records_max),
            "commit_records_max",
            "use 1 to 100000 records",
        );
        expect(self.retry_for <= Duration::from_secs(60), "retry_for", "use at most 60s");
        expect(
            (Duration::from_millis(100)..=Duration::from_hours(1)).contains(&self.sample_interval),
            "sample_interval",
            "use 100ms to 1h",
        );
        if let Some(export) = &self.export {
            expect(
                export.endpoint.starts_with("http://"),
                "export.endpoint",
                "use http://host:port (TLS to a collector goes through the mesh or a local agent)",
            );
            expect(!export.timeout.is_zero(), "export.timeout", "must be longer than nothing");
            expect(!export.interval.is_zero(), "export.interval", "must be longer than nothing");
            expect(
                (1..=100_000).contains(&export.batch_records_max),
                "export.batch_records_max",
                "use 1 to 100000 records",
            );
            expect(
                export.queue_records_max >= export.batch_records_max,
                "export.queue_records_max",
                "must hold at least one batch",
            );
        }
        faults
    }
}
