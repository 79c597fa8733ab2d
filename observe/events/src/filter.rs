//! Which calls and traces a split may hold: a Bloom filter, so that a search for one call opens few splits.

use serde::{Deserialize, Serialize};

/// Bits per key; with ten probes fewer than one stranger in a thousand is let through, so that a call is found in a
/// thousand splits by opening the few that have it.
const BITS_PER_KEY: usize = 15;
const PROBES: u64 = 10;

/// Says "perhaps" or "certainly not".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Filter {
    words: Vec<u64>,
}

impl Filter {
    /// A filter of the given distinct keys, in at most `bytes_max` bytes: beyond that it lets more strangers in.
    pub(crate) fn of(keys: &[u64], bytes_max: usize) -> Self {
        let words_wanted = (keys.len() * BITS_PER_KEY).div_ceil(64).max(1);
        let mut filter = Self { words: vec![0; words_wanted.min((bytes_max / 8).max(1))] };
        for key in keys {
            for bit in filter.bits(*key) {
                filter.words[bit / 64] |= 1 << (bit % 64);
            }
        }
        filter
    }

    /// Whether the split may hold the key.
    pub(crate) fn may_hold(&self, key: u64) -> bool {
        self.bits(key).all(|bit| self.words.get(bit / 64).is_some_and(|word| word >> (bit % 64) & 1 == 1))
    }

    fn bits(&self, key: u64) -> impl Iterator<Item = usize> + use<> {
        let bits = (self.words.len() as u64 * 64).max(1);
        let first = mix(key);
        let step = mix(key ^ 0x9e37_79b9_7f4a_7c15) | 1;
        (0..PROBES).map(move |probe| {
            usize::try_from(first.wrapping_add(step.wrapping_mul(probe)) % bits).unwrap_or_default()
        })
    }
}

/// The finaliser of SplitMix64: every bit of the key moves every bit of the result.
fn mix(key: u64) -> u64 {
    let mut mixed = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The filter's key of a trace: kept apart from calls, whose keys are hashes already.
pub(crate) fn trace_key(trace_id: &[u8]) -> u64 {
    trace_id.chunks(8).fold(0x7472_6163_6500_0000, |key, chunk| {
        let mut bytes = [0; 8];
        bytes[..chunk.len()].copy_from_slice(chunk);
        mix(key ^ u64::from_be_bytes(bytes))
    })
}

/// A stable hash of a word, for terms that stand for it.
pub(crate) fn word_key(word: &str) -> u64 {
    word.as_bytes().chunks(8).fold(word.len() as u64, |key, chunk| {
        let mut bytes = [0; 8];
        bytes[..chunk.len()].copy_from_slice(chunk);
        mix(key ^ u64::from_le_bytes(bytes))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_always_pass_and_strangers_seldom() {
        let keys: Vec<u64> = (0..5000).map(|i| i * 7919).collect();
        let filter = Filter::of(&keys, 1 << 20);
        assert!(keys.iter().all(|key| filter.may_hold(*key)));
        let strangers = (0..10_000).filter(|i| filter.may_hold(i * 7919 + 1)).count();
        assert!(strangers < 60, "{strangers} of 10000 strangers passed");
        let small = Filter::of(&keys, 64);
        assert!(keys.iter().all(|key| small.may_hold(*key)));
        assert!(!Filter::of(&[], 64).may_hold(1));
    }
}
