//! One alert as it is known here, wherever it came from.

use belfry_promql::Labels;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// An alert as somebody tells it. Times are Unix milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Incoming {
    /// What identifies it.
    pub labels: Labels,
    /// What it says.
    pub annotations: Vec<(String, String)>,
    /// Since when; `None` for now.
    pub starts_at_ms: Option<i64>,
    /// When it ended or will have; `None` when nobody knows.
    pub ends_at_ms: Option<i64>,
    /// Where it comes from, for people.
    pub generator_url: String,
}

/// An alert as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlertRow {
    /// What identifies it.
    pub labels: Vec<(String, String)>,
    /// What it says.
    pub annotations: Vec<(String, String)>,
    /// Since when.
    pub starts_at_ms: i64,
    /// When it ended, or will be held for over unless somebody tells it again; `None` while its source says so.
    pub ends_at_ms: Option<i64>,
    /// When it was last told.
    pub updated_at_ms: i64,
    /// Where it comes from, for people.
    pub generator_url: String,
    /// Whose it is: only that source ends it. Empty when it was posted.
    pub source: String,
    /// Whether it is over.
    pub is_resolved: bool,
}

/// An alert in memory.
#[derive(Clone, Debug)]
pub(crate) struct Alert {
    pub(crate) labels: Labels,
    pub(crate) row: AlertRow,
    /// Groups that it is in.
    pub(crate) groups: usize,
}

impl Alert {
    pub(crate) fn is_firing(&self) -> bool {
        !self.row.is_resolved
    }
}

/// The stable name of a label set: 16 hexadecimal digits.
#[must_use]
pub fn fingerprint(labels: &Labels) -> String {
    let mut hash = Sha256::new();
    for (name, value) in labels.iter() {
        for part in [name, value] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
    }
    hex::encode(&hash.finalize()[..8])
}

/// Labels as plain data.
pub(crate) fn plain(labels: &Labels) -> Vec<(String, String)> {
    labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
