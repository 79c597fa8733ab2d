//! Labels that came before: a sender names the same series in each request, byte for byte.

use std::hash::BuildHasher as _;
use std::sync::{Mutex, PoisonError};

use belfry_signal::SeriesLabels;
use hashbrown::{DefaultHashBuilder, HashMap};

/// Locks, so that requests side by side do not wait for each other.
const SHARDS: usize = 16;

/// Checked labels by the bytes that named them, of so many series as were seen last.
#[derive(Debug)]
pub struct KnownLabels {
    hasher: DefaultHashBuilder,
    shard_max: usize,
    shards: [Mutex<Shard>; SHARDS],
}

/// Two generations: what was not asked for while the younger one filled is forgotten.
#[derive(Debug, Default)]
struct Shard {
    young: HashMap<Box<[u8]>, SeriesLabels>,
    old: HashMap<Box<[u8]>, SeriesLabels>,
}

impl KnownLabels {
    /// Remembers about so many, and half of them at least; none with zero.
    #[must_use]
    pub fn new(labels_max: usize) -> Self {
        let shard_max = labels_max / SHARDS / 2;
        Self { hasher: DefaultHashBuilder::default(), shard_max, shards: Default::default() }
    }

    fn shard(&self, bytes: &[u8]) -> std::sync::MutexGuard<'_, Shard> {
        let number = usize::try_from(self.hasher.hash_one(bytes) % SHARDS as u64).unwrap_or_default();
        self.shards[number].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The labels that these bytes named.
    pub(super) fn get(&self, bytes: &[u8]) -> Option<SeriesLabels> {
        if self.shard_max == 0 {
            return None;
        }
        let mut shard = self.shard(bytes);
        if let Some(labels) = shard.young.get(bytes) {
            return Some(SeriesLabels::clone(labels));
        }
        let (bytes, labels) = shard.old.remove_entry(bytes)?;
        shard.put(bytes, SeriesLabels::clone(&labels), self.shard_max);
        Some(labels)
    }

    /// Remembers them.
    pub(super) fn put(&self, bytes: &[u8], labels: &SeriesLabels) {
        if self.shard_max > 0 {
            self.shard(bytes).put(bytes.into(), SeriesLabels::clone(labels), self.shard_max);
        }
    }
}

impl Shard {
    fn put(&mut self, bytes: Box<[u8]>, labels: SeriesLabels, shard_max: usize) {
        if self.young.len() >= shard_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(bytes, labels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_kept_and_the_rest_forgotten() {
        let known = KnownLabels::new(64 * SHARDS);
        let labels: SeriesLabels = [("__name__".into(), "m".into())].into();
        known.put(b"often", &labels);
        for number in 0..20_000_u32 {
            known.put(&number.to_le_bytes(), &labels);
            assert!(known.get(b"often").is_some(), "{number}");
        }
        let count: usize = known
            .shards
            .iter()
            .map(|shard| {
                let shard = shard.lock().expect("not poisoned");
                shard.young.len() + shard.old.len()
            })
            .sum();
        assert!(count <= 64 * SHARDS, "{count}");
        assert!(known.get(&1_u32.to_le_bytes()).is_none());
        let none = KnownLabels::new(0);
        none.put(b"a", &labels);
        assert!(none.get(b"a").is_none());
    }
}
