//! Labels that came before: a sender names the same series in each request, byte for byte.

use std::hash::BuildHasher as _;
use std::sync::{Mutex, PoisonError};

use belfry_signal::SeriesLabels;
use hashbrown::{DefaultHashBuilder, HashMap};

/// Locks, so that requests side by side do not wait for each other.
const SHARDS: usize = 16;
/// Bytes that name a series; longer ones are read again each time. Fields that nobody knows may lengthen them at will.
const KEY_BYTES_MAX: usize = 2048;
/// About what an entry takes beside its bytes, and each of its labels: places in tables and lists, and counts of owners.
const ENTRY_BYTES: usize = 96;
const LABEL_BYTES: usize = 64;

/// Checked labels by the bytes that named them, of the series that were seen last.
#[derive(Debug)]
pub struct KnownLabels {
    hasher: DefaultHashBuilder,
    generation_bytes_max: usize,
    shards: [Mutex<Shard>; SHARDS],
}

/// Two generations: what was not asked for while the younger one filled is forgotten.
#[derive(Debug, Default)]
struct Shard {
    young: HashMap<Box<[u8]>, SeriesLabels>,
    young_bytes: usize,
    old: HashMap<Box<[u8]>, SeriesLabels>,
}

impl KnownLabels {
    /// Remembers what takes about so many bytes of memory, and half of it at least; nothing with zero.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let generation_bytes_max = bytes_max / SHARDS / 2;
        Self { hasher: DefaultHashBuilder::default(), generation_bytes_max, shards: Default::default() }
    }

    fn shard(&self, bytes: &[u8]) -> std::sync::MutexGuard<'_, Shard> {
        let number = usize::try_from(self.hasher.hash_one(bytes) % SHARDS as u64).unwrap_or_default();
        self.shards[number].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn may_hold(&self, bytes: &[u8]) -> bool {
        self.generation_bytes_max > 0 && bytes.len() <= KEY_BYTES_MAX
    }

    /// The labels that these bytes named.
    pub(super) fn get(&self, bytes: &[u8]) -> Option<SeriesLabels> {
        if !self.may_hold(bytes) {
            return None;
        }
        let mut shard = self.shard(bytes);
        if let Some(labels) = shard.young.get(bytes) {
            return Some(SeriesLabels::clone(labels));
        }
        let (bytes, labels) = shard.old.remove_entry(bytes)?;
        shard.put(bytes, SeriesLabels::clone(&labels), self.generation_bytes_max);
        Some(labels)
    }

    /// Remembers them.
    pub(super) fn put(&self, bytes: &[u8], labels: &SeriesLabels) {
        if self.may_hold(bytes) {
            self.shard(bytes).put(bytes.into(), SeriesLabels::clone(labels), self.generation_bytes_max);
        }
    }
}

impl Shard {
    fn put(&mut self, bytes: Box<[u8]>, labels: SeriesLabels, bytes_max: usize) {
        let taken = entry_bytes(&bytes, &labels);
        if taken > bytes_max {
            return;
        }
        if self.young_bytes + taken > bytes_max {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        // The same bytes name the same labels: two requests side by side may have read them both.
        if self.young.insert(bytes, labels).is_none() {
            self.young_bytes += taken;
        }
    }
}

/// About what an entry takes.
fn entry_bytes(bytes: &[u8], labels: &SeriesLabels) -> usize {
    let labels = labels.iter().map(|(name, value)| LABEL_BYTES + name.len() + value.len());
    ENTRY_BYTES + bytes.len() + labels.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_bytes(known: &KnownLabels) -> usize {
        let of_shard = |shard: &Mutex<Shard>| {
            let shard = shard.lock().expect("not poisoned");
            let entries = shard.young.iter().chain(&shard.old);
            entries.map(|(bytes, labels)| entry_bytes(bytes, labels)).sum::<usize>()
        };
        known.shards.iter().map(of_shard).sum()
    }

    #[test]
    fn what_is_asked_for_is_kept_and_the_rest_forgotten() {
        const BYTES_MAX: usize = 64 * SHARDS * 256;
        let known = KnownLabels::new(BYTES_MAX);
        let labels: SeriesLabels = [("__name__".into(), "m".into())].into();
        known.put(b"often", &labels);
        for number in 0..20_000_u32 {
            known.put(&number.to_le_bytes(), &labels);
            known.put(&number.to_le_bytes(), &labels);
            assert!(known.get(b"often").is_some(), "{number}");
        }
        assert!((BYTES_MAX / 4..=BYTES_MAX).contains(&held_bytes(&known)), "{}", held_bytes(&known));
        assert!(known.get(&1_u32.to_le_bytes()).is_none());
        let none = KnownLabels::new(0);
        none.put(b"a", &labels);
        assert!(none.get(b"a").is_none());
    }

    /// Tiny labels can be named by very many bytes, since fields that nobody knows are passed over.
    #[test]
    fn long_names_are_not_kept_and_what_is_kept_is_counted_in_bytes() {
        const BYTES_MAX: usize = 1 << 20;
        let known = KnownLabels::new(BYTES_MAX);
        let labels: SeriesLabels = [("__name__".into(), "m".into())].into();
        let named = |number: u32, length: usize| {
            let mut bytes = number.to_le_bytes().to_vec();
            bytes.resize(length, 0);
            bytes
        };
        known.put(&named(0, KEY_BYTES_MAX + 1), &labels);
        assert!(known.get(&named(0, KEY_BYTES_MAX + 1)).is_none());
        for number in 0..5000 {
            known.put(&named(number, KEY_BYTES_MAX), &labels);
        }
        let long: SeriesLabels = [("__name__".into(), "m".repeat(4000).into())].into();
        for number in 0..5000 {
            known.put(&named(number, 4), &long);
        }
        assert!((BYTES_MAX / 4..=BYTES_MAX).contains(&held_bytes(&known)), "{}", held_bytes(&known));
        let longer: SeriesLabels = [("__name__".into(), "m".repeat(BYTES_MAX).into())].into();
        known.put(b"longer", &longer);
        assert!(known.get(b"longer").is_none() && known.get(&named(4999, 4)).is_some());
    }
}
