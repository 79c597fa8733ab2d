//! Who comes first when there is more to do than can be done (RFC 3261 section 21.5.4, RFC 5390).
//!
//! Messages wait in one of two lanes. In the first are those of dialogs, emergency calls, and customers who were let in
//! lately over the flow that they use now; it is always served before the second, in which everybody else waits. The
//! second lane is short: what finds it full is answered 503 with Retry-After by the task that reads the link, so that
//! refusing costs the core nothing; and what waited there too long is refused as well, because its sender has given up
//! or repeats it. While there is little to do nobody looks who is who.
//!
//! [`Gate`] is the decision alone: it takes counts and times and gives a [`Lane`]. The tasks of links and the core
//! share it; all its state is atomic, of fixed size, and may be wrong about somebody now and then without harm.
//!
//! Not here: the queues themselves, and the answer to whoever is turned away.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use belfry_state::network_of;

#[cfg(test)]
mod tests;

/// Where a message waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// It is served first.
    First,
    /// It is served when nobody is in the first lane.
    Second,
    /// Nowhere: it is turned away.
    Away,
}

/// What a message is, as far as its place in the queue goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// It goes on with something that was begun: a response, ACK, a request of a dialog.
    Begun,
    /// A new call to an emergency number.
    Emergency,
    /// It begins something.
    New,
}

/// How full the queues are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) first: usize,
    pub(crate) second: usize,
}

/// When to look who is who, and when to turn people away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// Up to so many messages wait in one lane, whosever they are.
    pub(crate) calm_max: usize,
    /// Messages in the second lane.
    pub(crate) second_max: usize,
    /// How long one may wait in the second lane.
    pub(crate) second_patience: Duration,
    /// How long somebody who was let in is known for it.
    pub(crate) known_for: Duration,
    /// Emergency calls of people who are not known, per second; more wait with the others.
    pub(crate) emergencies_per_second_max: u32,
}

/// Decides where messages wait.
#[derive(Debug)]
pub(crate) struct Gate {
    rules: Rules,
    known: KnownFlows,
    /// The present second and how many emergencies of strangers it had, in one word.
    emergencies: AtomicU64,
}

impl Gate {
    /// `flows_max` customers are known at a time, rounded up to a power of two; an hour brings `per_network_max` of one
    /// network.
    pub(crate) fn new(rules: Rules, flows_max: usize, per_network_max: u32) -> Self {
        Self { rules, known: KnownFlows::new(flows_max, per_network_max), emergencies: AtomicU64::new(0) }
    }

    /// Where a message waits that came over this flow of this edge; its class is asked for only when it matters.
    pub(crate) fn lane(
        &self,
        class: impl FnOnce() -> Class,
        flow: (&str, &str),
        waiting: Waiting,
        unix_seconds: u64,
    ) -> Lane {
        // Behind others in the second lane nothing of their flows may overtake them.
        if waiting.first <= self.rules.calm_max && waiting.second == 0 {
            return Lane::First;
        }
        let class = class();
        let is_first = class == Class::Begun
            || self.known.is_known(flow, unix_seconds, self.rules.known_for)
            || (class == Class::Emergency && self.may_call_for_help(unix_seconds));
        if is_first {
            Lane::First
        } else if waiting.second < self.rules.second_max {
            Lane::Second
        } else {
            Lane::Away
        }
    }

    /// Whether a message of the second lane waited too long to be of use to anybody.
    pub(crate) fn is_stale(&self, waited: Duration) -> bool {
        waited > self.rules.second_patience
    }

    /// Somebody from there was let in over this flow; whether he is known now.
    pub(crate) fn let_in(&self, flow: (&str, &str), source: IpAddr, unix_seconds: u64) -> bool {
        self.known.note(flow, source, unix_seconds)
    }

    /// Anybody may call for help, but nobody may flood us by it.
    fn may_call_for_help(&self, unix_seconds: u64) -> bool {
        let second = unix_seconds << 32;
        let count = |word: u64| if word >> 32 == unix_seconds & 0xffff_ffff { word & 0xffff_ffff } else { 0 };
        let most = u64::from(self.rules.emergencies_per_second_max);
        let next = |word| (count(word) < most).then(|| second | (count(word) + 1));
        self.emergencies.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

/// Who was let in lately, by whatever names them (a flow, an address): a table of fixed size with two places for each. One
/// that finds both taken puts out the older of them, who is then a stranger under overload until it is let in again.
/// That somebody is taken for another has a chance of one in two thousand million. No lock: it may be wrong now and then
/// without harm.
///
/// Of one network (an IPv4 address, an IPv6 /64) so many become known in an hour and no more: otherwise one customer with
/// many ports would put all others out. Newcomers are counted in a sketch of fixed size (count-min, Cormode and
/// Muthukrishnan 2005, two rows): of a network it never counts too few, and seldom too many.
#[derive(Debug)]
pub struct KnownFlows {
    /// Fingerprint in the upper half, Unix seconds in the lower; 0 is nobody.
    places: Box<[AtomicU64]>,
    /// Two rows: the hour in the upper half, newcomers in the lower.
    newcomers: [Box<[AtomicU64]>; 2],
    per_network_max: u32,
    hasher: RandomState,
}

/// Newcomers of a network are counted for so long.
const NEWCOMERS_SECONDS: u64 = 3600;

impl KnownFlows {
    /// Of so many at a time, rounded up to a power of two; 10 bytes each. Of one network so many an hour.
    #[must_use]
    pub fn new(flows_max: usize, per_network_max: u32) -> Self {
        let places = flows_max.max(2).next_power_of_two();
        let zeros = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect();
        let row = (places / 8).max(64);
        let newcomers = [zeros(row), zeros(row)];
        Self { places: zeros(places), newcomers, per_network_max, hasher: RandomState::new() }
    }

    /// Somebody from there was let in; false when too many of its network were, lately, and it stays unknown.
    pub fn note(&self, flow: impl Hash, source: IpAddr, unix_seconds: u64) -> bool {
        let (fingerprint, [one, other]) = self.seats(flow);
        let held = [one.load(Ordering::Relaxed), other.load(Ordering::Relaxed)];
        let is_own = |word: u64| word >> 32 == fingerprint;
        if !held.into_iter().any(is_own) && !self.has_room_for(source, unix_seconds) {
            return false;
        }
        let takes_one = is_own(held[0]) || (!is_own(held[1]) && seconds_of(held[0]) <= seconds_of(held[1]));
        let word = fingerprint << 32 | (unix_seconds & 0xffff_ffff);
        if takes_one { one } else { other }.store(word, Ordering::Relaxed);
        true
    }

    /// Counts a newcomer, unless its network has had all that it gets in this hour.
    fn has_room_for(&self, source: IpAddr, unix_seconds: u64) -> bool {
        let hour = (unix_seconds / NEWCOMERS_SECONDS) & 0xffff_ffff;
        let hash = self.hasher.hash_one(network_of(source));
        let cell = |row: usize| {
            let bits = hash >> (32 * row) & 0xffff_ffff;
            let cells = &self.newcomers[row];
            &cells[usize::try_from(bits).unwrap_or_default() % cells.len()]
        };
        let count = |word: u64| if word >> 32 == hour { word & 0xffff_ffff } else { 0 };
        let counted = [cell(0), cell(1)].map(|cell| (cell, count(cell.load(Ordering::Relaxed))));
        if counted.iter().all(|(_, count)| *count >= u64::from(self.per_network_max)) {
            return false;
        }
        for (cell, count) in counted {
            cell.store(hour << 32 | (count + 1), Ordering::Relaxed);
        }
        true
    }

    /// Whether somebody was let in and `known_for` has not passed since.
    pub fn is_known(&self, flow: impl Hash, unix_seconds: u64, known_for: Duration) -> bool {
        let (fingerprint, seats) = self.seats(flow);
        let oldest = unix_seconds.saturating_sub(known_for.as_secs());
        seats
            .into_iter()
            .map(|seat| seat.load(Ordering::Relaxed))
            .any(|word| word >> 32 == fingerprint && seconds_of(word) >= oldest)
    }

    fn seats(&self, flow: impl Hash) -> (u64, [&AtomicU64; 2]) {
        let hash = self.hasher.hash_one(flow);
        let mask = self.places.len() as u64 - 1;
        let seat = |bits: u64| &self.places[usize::try_from(bits & mask).unwrap_or_default()];
        // The seats and the fingerprint come from different bits; 0 is nobody's.
        let spread = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((hash >> 32).max(1), [seat(hash), seat(spread >> 20)])
    }
}

fn seconds_of(word: u64) -> u64 {
    word & 0xffff_ffff
}
