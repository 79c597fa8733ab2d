//! Which nonces were used how often, so that credentials that were overheard cannot be used again.
//!
//! Bounded: when the count of an old nonce has to be forgotten, every nonce that is as old and not remembered counts
//! as used from then on. Its phone is challenged again, which costs a round trip and nobody's attention.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use belfry_sip_proto::digest::{Credentials, NonceKey};

/// The table.
#[derive(Debug)]
pub(super) struct Uses {
    uses_max: usize,
    /// The highest count seen, by a hash of who used which nonce with which client nonce.
    highest: HashMap<u64, u32>,
    /// What was remembered first, with the time at which its nonce was issued.
    order: VecDeque<(u64, u64)>,
    /// Nonces issued then or before, and not remembered, may have been used.
    forgotten_until: u64,
    hasher: RandomState,
}

impl Uses {
    pub(super) fn new(uses_max: usize) -> Self {
        Self {
            uses_max,
            highest: HashMap::new(),
            order: VecDeque::new(),
            forgotten_until: 0,
            hasher: RandomState::new(),
        }
    }

    /// Whether these credentials, which are right, were never seen before. Clients without `qop` have no count, so a
    /// nonce is good for one request of theirs (RFC 7616 section 3.3 on one-time nonces).
    pub(super) fn is_first(&mut self, credentials: &Credentials<'_>) -> bool {
        let count = credentials.nonce_count.unwrap_or(u32::MAX);
        let counted = credentials.nonce_count.and(credentials.cnonce.as_deref());
        let user = self.hasher.hash_one((&credentials.nonce, counted, &credentials.username));
        if let Some(highest) = self.highest.get_mut(&user) {
            let is_new = count > *highest;
            *highest = (*highest).max(count);
            return is_new;
        }
        let issued = NonceKey::issued_unix_seconds(&credentials.nonce).unwrap_or_default();
        if issued <= self.forgotten_until {
            return false;
        }
        if self.order.len() >= self.uses_max
            && let Some((oldest, issued)) = self.order.pop_front()
        {
            self.highest.remove(&oldest);
            self.forgotten_until = self.forgotten_until.max(issued);
        }
        self.highest.insert(user, count);
        self.order.push_back((user, issued));
        true
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        (self.highest.len(), self.order.len())
    }
}
