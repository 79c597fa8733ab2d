//! What an operator may set about the store of events, and what is allowed.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::facts::Stream;
use crate::keeping::Keep;

/// The section `[observe.events]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the catalogue and the splits live.
    pub directory: PathBuf,
    /// A live buffer of this age becomes a split.
    #[serde(with = "humantime_serde")]
    pub seal_age: Duration,
    /// A live buffer of this many records becomes a split.
    pub seal_records_max: usize,
    /// A live buffer of this many bytes becomes a split.
    pub seal_bytes_max: usize,
    /// Live buffers that may wait for the index builder.
    pub sealed_buffers_max: usize,
    /// Records that the filling live buffer may hold while the builder is behind; beyond it `apply` waits.
    pub live_records_max: usize,
    /// Bytes that the filling live buffer may hold while the builder is behind; beyond it `apply` waits.
    pub live_bytes_max: usize,
    /// How long `apply` waits for the builder before it refuses.
    #[serde(with = "humantime_serde")]
    pub hand_over_wait: Duration,
    /// Memory with which the builder starts a split.
    pub index_memory_bytes: usize,
    /// Text of one record that is searchable; the record itself is kept whole.
    pub record_text_bytes_max: usize,
    /// Distinct attribute names that one split indexes; others are found as plain text and by scanning.
    pub split_attributes_max: usize,
    /// Bytes of one split's filter of calls and traces.
    pub filter_bytes_max: usize,
    /// This many neighbouring splits of one size are merged.
    pub merge_splits: usize,
    /// A merged split holds at most this many records.
    pub merged_records_max: u64,
    /// A merged split spans at most this long, and an eighth of what its stream is kept, so that retention can let it go.
    #[serde(with = "humantime_serde")]
    pub merged_span_max: Duration,
    /// Splits kept open for searching.
    pub open_splits_max: usize,
    /// Splits kept at all; beyond it the oldest go early.
    pub splits_max: usize,
    /// Disk that splits may use; beyond it the oldest go early.
    pub disk_bytes_max: u64,
    /// How long records are kept.
    #[serde(with = "humantime_serde")]
    pub retention: Duration,
    /// What is kept longer, shorter or in part.
    #[serde(default)]
    pub keep: Keep,
    /// Below so many free bytes the disk counts as full: the rest is for the log.
    #[serde(default = "disk_free_bytes_min")]
    pub disk_free_bytes_min: u64,
    /// What happens when the disk is full.
    #[serde(default)]
    pub when_disk_full: WhenDiskFull,
    /// Rows that one search may return.
    pub search_rows_max: usize,
    /// Records that one call or trace may show.
    pub call_records_max: usize,
    /// Length of a search text.
    pub search_text_bytes_max: usize,
}

/// What happens when the disk is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenDiskFull {
    /// New records are refused, counted and told; what is there stays.
    #[default]
    Refuse,
    /// The oldest splits go before their time, but for what is held.
    DropOldest,
}

fn disk_free_bytes_min() -> u64 {
    256 << 20
}

impl Config {
    /// What is wrong: the key inside the section, and what is allowed.
    #[must_use]
    pub fn check(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut require = |is_right: bool, key: &str, allowed: &str| {
            if !is_right {
                faults.push((key.to_owned(), allowed.to_owned()));
            }
        };
        let second = Duration::from_secs(1);
        require(!self.directory.as_os_str().is_empty(), "directory", "a directory is needed");
        require(self.seal_age >= second, "seal_age", "at least 1s");
        require(self.seal_records_max >= 1, "seal_records_max", "at least 1");
        require(self.seal_bytes_max >= 64 << 10, "seal_bytes_max", "at least 65536");
        require((1..=16).contains(&self.sealed_buffers_max), "sealed_buffers_max", "1 to 16");
        require(
            self.live_records_max >= self.seal_records_max,
            "live_records_max",
            "at least seal_records_max",
        );
        require(self.live_bytes_max >= self.seal_bytes_max, "live_bytes_max", "at least seal_bytes_max");
        require(
            (15 << 20..=1 << 30).contains(&self.index_memory_bytes),
            "index_memory_bytes",
            "15 MiB (15728640) to 1 GiB",
        );
        require(self.record_text_bytes_max >= 256, "record_text_bytes_max", "at least 256");
        require(self.split_attributes_max >= 16, "split_attributes_max", "at least 16");
        require(self.filter_bytes_max >= 1024, "filter_bytes_max", "at least 1024");
        require((2..=64).contains(&self.merge_splits), "merge_splits", "2 to 64");
        require((1..=10_000_000).contains(&self.merged_records_max), "merged_records_max", "1 to 10000000");
        require(self.merged_span_max <= self.retention, "merged_span_max", "at most retention");
        require(self.open_splits_max >= 1, "open_splits_max", "at least 1");
        require(self.splits_max >= 2, "splits_max", "at least 2");
        require(self.disk_bytes_max >= 1 << 20, "disk_bytes_max", "at least 1048576");
        require(self.retention >= second, "retention", "at least 1s");
        self.keep.check(&mut require);
        require((1..=100_000).contains(&self.search_rows_max), "search_rows_max", "1 to 100000");
        require((1..=1_000_000).contains(&self.call_records_max), "call_records_max", "1 to 1000000");
        require(self.search_text_bytes_max >= 64, "search_text_bytes_max", "at least 64");
        faults
    }

    /// How long a merged split of the stream may span: its oldest record stays so much longer than it should.
    pub(crate) fn merged_span_max(&self, stream: Stream) -> Duration {
        self.merged_span_max.min(self.keep.retention(stream, self.retention) / 8)
    }

    /// A configuration for tests: small buffers, a directory of the caller's.
    #[must_use]
    pub fn for_test(directory: PathBuf) -> Self {
        Self {
            directory,
            seal_age: Duration::from_secs(5),
            seal_records_max: 32_768,
            seal_bytes_max: 48 << 20,
            sealed_buffers_max: 2,
            live_records_max: 65_536,
            live_bytes_max: 96 << 20,
            hand_over_wait: Duration::from_secs(5),
            index_memory_bytes: 15 << 20,
            record_text_bytes_max: 16 << 10,
            split_attributes_max: 1000,
            filter_bytes_max: 512 << 10,
            merge_splits: 8,
            merged_records_max: 250_000,
            merged_span_max: Duration::from_secs(24 * 3600),
            open_splits_max: 256,
            splits_max: 20_000,
            disk_bytes_max: 20 << 30,
            retention: Duration::from_secs(90 * 24 * 3600),
            keep: Keep::default(),
            disk_free_bytes_min: 0,
            when_disk_full: WhenDiskFull::Refuse,
            search_rows_max: 1000,
            call_records_max: 20_000,
            search_text_bytes_max: 2000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named_with_what_is_allowed() {
        let good = Config::for_test(PathBuf::from("events"));
        assert_eq!(good.check(), vec![]);
        let bad = Config { merge_splits: 1, live_records_max: 1, ..good };
        let faults = bad.check();
        let keys: Vec<&str> = faults.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["live_records_max", "merge_splits"]);
        assert_eq!(faults[1].1, "2 to 64");
    }
}
