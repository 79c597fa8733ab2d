//! Who costs what: the metrics, labels and pairs with the most series in memory.

use std::collections::BinaryHeap;

/// Unsorted counts of the head.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) metrics: Vec<(String, u64)>,
    pub(crate) labels: Vec<(String, u64)>,
    pub(crate) pairs: Vec<(String, u64)>,
    pub(crate) label_bytes: Vec<(String, u64)>,
}

/// One line of a top list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopEntry {
    /// A metric, a label, or `label=value`.
    pub name: String,
    /// Series, values or bytes.
    pub value: u64,
}

/// What the series in memory cost, largest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Top {
    /// Series in memory.
    pub series: u64,
    /// Different pairs of label and value among them.
    pub label_pairs: u64,
    /// Samples in memory.
    pub samples: u64,
    /// Bytes of packed samples, and of labels and sets.
    pub bytes: u64,
    /// First and last time in memory, in milliseconds since the Unix epoch.
    pub range: Option<(i64, i64)>,
    /// Series of each metric.
    pub metrics: Vec<TopEntry>,
    /// Values of each label.
    pub labels: Vec<TopEntry>,
    /// Series with each value of a label.
    pub pairs: Vec<TopEntry>,
    /// Bytes of each label's values.
    pub label_bytes: Vec<TopEntry>,
}

/// The `limit` largest.
pub(crate) fn largest(counts: Vec<(String, u64)>, limit: usize) -> Vec<TopEntry> {
    let mut heap: BinaryHeap<_> =
        counts.into_iter().map(|(name, value)| (value, std::cmp::Reverse(name))).collect();
    let mut entries = Vec::new();
    while entries.len() < limit
        && let Some((value, std::cmp::Reverse(name))) = heap.pop()
    {
        entries.push(TopEntry { name, value });
    }
    entries
}
