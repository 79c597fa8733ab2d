//! The `[state]` section of `belfry.toml`.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

/// Where state is kept and how much of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Holds the database, the bindings' snapshot and their journal; made when it is missing.
    pub directory: PathBuf,
    /// Database connections for reading; writing has one of its own.
    pub readers_max: u32,
    /// Writes that wait for the disk before more are refused.
    pub writes_queue_max: usize,
    /// Writes that share one fsync.
    pub writes_per_commit_max: usize,
    /// Bytes of the spool, in which call records wait for the database and open calls are noted.
    pub records_spool_bytes_max: u64,
    /// Call records in memory while neither spool nor database takes them; more are lost, and told.
    pub records_in_memory_max: usize,
    /// Call records that go to the database in one transaction.
    pub records_per_batch_max: usize,
    /// How long a database that refuses call records is left alone.
    #[serde(with = "humantime_serde")]
    pub records_retry_interval: Duration,
    /// Subscribers remembered from the database, so that a registration costs no query.
    pub subscribers_cached_max: usize,
    /// How long a subscriber is remembered. Changes through this process are seen at once.
    #[serde(with = "humantime_serde")]
    pub subscriber_cached_for: Duration,
    /// Bindings of all subscribers together.
    pub bindings_max: usize,
    /// Bindings of one address of record.
    pub bindings_per_address_max: usize,
    /// How often the journal of bindings is folded into a snapshot.
    #[serde(with = "humantime_serde")]
    pub snapshot_interval: Duration,
}

impl Config {
    /// Every fault: the key inside the section, and what is wrong with it and what is allowed.
    #[must_use]
    pub fn check(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut fault = |key: &str, text: &str| faults.push((key.to_owned(), text.to_owned()));
        if self.directory.as_os_str().is_empty() {
            fault("directory", "name a folder");
        }
        if !(1..=64).contains(&self.readers_max) {
            fault("readers_max", "use 1 to 64 connections");
        }
        if !(1..=1_000_000).contains(&self.writes_queue_max) {
            fault("writes_queue_max", "use 1 to 1000000 writes");
        }
        if !(1..=10_000).contains(&self.writes_per_commit_max) {
            fault("writes_per_commit_max", "use 1 to 10000 writes");
        }
        if !(1 << 20..=1 << 40).contains(&self.records_spool_bytes_max) {
            fault("records_spool_bytes_max", "use 1048576 (1 MiB) to 1099511627776 (1 TiB) bytes");
        }
        if !(1..=1_000_000).contains(&self.records_in_memory_max) {
            fault("records_in_memory_max", "use 1 to 1000000 records");
        }
        if !(1..=10_000).contains(&self.records_per_batch_max) {
            fault("records_per_batch_max", "use 1 to 10000 records");
        }
        if !(Duration::from_millis(10)..=Duration::from_secs(3600)).contains(&self.records_retry_interval) {
            fault("records_retry_interval", "use 10ms to 1h");
        }
        if self.subscribers_cached_max > 10_000_000 {
            fault("subscribers_cached_max", "use 0 to 10000000 subscribers");
        }
        if !(1..=100_000_000).contains(&self.bindings_max) {
            fault("bindings_max", "use 1 to 100000000 bindings");
        }
        if !(1..=1_000).contains(&self.bindings_per_address_max) {
            fault("bindings_per_address_max", "use 1 to 1000 bindings");
        }
        if self.snapshot_interval < Duration::from_millis(100) {
            fault("snapshot_interval", "use at least 100ms");
        }
        faults
    }

    /// Small bounds for tests, in this folder.
    #[must_use]
    pub fn for_test(directory: &std::path::Path) -> Self {
        Self {
            directory: directory.to_owned(),
            readers_max: 2,
            writes_queue_max: 1_000,
            writes_per_commit_max: 100,
            records_spool_bytes_max: 1 << 20,
            records_in_memory_max: 100,
            records_per_batch_max: 100,
            records_retry_interval: Duration::from_millis(50),
            subscribers_cached_max: 100,
            subscriber_cached_for: Duration::from_secs(30),
            bindings_max: 1_000,
            bindings_per_address_max: 4,
            snapshot_interval: Duration::from_secs(60),
        }
    }
}
