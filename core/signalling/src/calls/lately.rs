//! Calls that ended lately, so that what still travels for them is not taken for a stranger's: a re-INVITE that the BYE
//! overtook would open the relay's session again, and a BYE that crossed another would be told as one of a lost call.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

/// Calls that are remembered; what is older than the oldest of so many is a stranger again.
const ENDED_MAX: usize = 65_536;

/// As long as a request may be on its way: 64 T1 (RFC 3261 section 17.1.2.2).
const LATELY: Duration = Duration::from_secs(32);

/// Hashes of Call-IDs, the oldest first. That one stands for another happens once in some billions of years.
#[derive(Debug, Default)]
pub(super) struct Lately {
    ended: HashSet<u64>,
    order: VecDeque<(Instant, u64)>,
    hasher: RandomState,
}

impl Lately {
    /// A call is over.
    pub(super) fn note(&mut self, call_id: &str, now: Instant) {
        while let Some((at, hash)) = self.order.front().copied() {
            if now.saturating_duration_since(at) <= LATELY && self.order.len() < ENDED_MAX {
                break;
            }
            self.order.pop_front();
            self.ended.remove(&hash);
        }
        let hash = self.hasher.hash_one(call_id);
        if self.ended.insert(hash) {
            self.order.push_back((now, hash));
        }
    }

    /// Whether a call of this Call-ID ended lately.
    pub(super) fn has(&self, call_id: &str) -> bool {
        !self.ended.is_empty() && self.ended.contains(&self.hasher.hash_one(call_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_remembered_for_a_while_and_not_without_bound() {
        let (mut lately, began) = (Lately::default(), Instant::now());
        lately.note("one", began);
        assert!(lately.has("one") && !lately.has("two"));
        lately.note("two", began + LATELY);
        assert!(lately.has("one"));
        lately.note("three", began + LATELY + Duration::from_millis(1));
        assert!(!lately.has("one") && lately.has("two") && lately.has("three"));
        for number in 0..2 * ENDED_MAX {
            lately.note(&number.to_string(), began + LATELY);
        }
        assert!(lately.order.len() <= ENDED_MAX && lately.ended.len() == lately.order.len());
    }
}
