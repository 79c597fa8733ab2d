//! Who guesses passwords: counted by the address that the guesses come from, slowed down, then turned away for a while.
//!
//! Two counts, each with its own bound: guesses of one user from one address, and all guesses from an address. A count
//! of a user alone would let anybody lock that user out; so whoever guesses here leaves the same user's device at
//! another address alone. Of an address with many customers behind it (a carrier's NAT), a success takes one failure
//! off the address's count, so that a few devices with old passwords do not turn their neighbours away.
//!
//! No clock and no socket: the time is an argument.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use belfry_state::network_of;

use crate::config::GuardConfig;

/// Counts failures.
#[derive(Debug)]
pub(crate) struct Guard {
    config: GuardConfig,
    entries: HashMap<Suspect, Entry>,
    /// By the time of the last failure, to forget the oldest.
    order: BTreeSet<(Instant, Suspect)>,
    /// By their end.
    bans: BTreeSet<(Instant, Suspect)>,
    hasher: RandomState,
}

/// Whose failures are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Suspect {
    /// Everything from an IPv4 address or an IPv6 /64.
    Source(IpAddr),
    /// One user from there, by a hash.
    User(IpAddr, u64),
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    failures: u32,
    last: Instant,
    banned_until: Option<Instant>,
}

/// What a failure leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    /// How much later the refusal is to be sent.
    pub(crate) delay: Duration,
    /// Whether this one began a ban.
    pub(crate) ban: Option<BanKind>,
}

/// Who is banned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BanKind {
    /// Every request from an address.
    Source,
    /// The requests of one user from an address.
    User,
}

/// A ban, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// The address, or the first of its IPv6 /64.
    pub source: IpAddr,
    /// Whether all of it is banned, or one user who was guessed from there.
    pub is_whole_source: bool,
    /// What is left of it.
    pub remaining: Duration,
    /// Failures that led to it.
    pub failures: u32,
}

impl Guard {
    pub(crate) fn new(config: GuardConfig) -> Self {
        Self {
            config,
            entries: HashMap::new(),
            order: BTreeSet::new(),
            bans: BTreeSet::new(),
            hasher: RandomState::new(),
        }
    }

    /// Somebody's credentials were wrong.
    pub(crate) fn failed(&mut self, source: IpAddr, user: &str, now: Instant) -> Failed {
        let source = network_of(source);
        let suspects = [
            (Suspect::User(source, self.hasher.hash_one(user)), self.config.user_failures_max, BanKind::User),
            (Suspect::Source(source), self.config.source_failures_max, BanKind::Source),
        ];
        let mut failed = Failed { delay: Duration::ZERO, ban: None };
        for (suspect, failures_max, kind) in suspects {
            let (failures, began) = self.count(suspect, failures_max, now);
            // An address may hold many customers: only the guesses of one user slow down the next.
            if kind == BanKind::User {
                failed.delay = self.delay(failures);
            }
            if began {
                failed.ban = Some(kind);
            }
        }
        failed
    }

    /// Somebody's credentials were right.
    pub(crate) fn succeeded(&mut self, source: IpAddr, user: &str) {
        let source = network_of(source);
        self.forget(Suspect::User(source, self.hasher.hash_one(user)));
        if let Some(entry) = self.entries.get_mut(&Suspect::Source(source)) {
            entry.failures = entry.failures.saturating_sub(1);
        }
    }

    /// Whether anybody has failed lately.
    pub(crate) fn has_suspects(&self) -> bool {
        !self.entries.is_empty()
    }

    /// Whether everything from an address is refused now.
    pub(crate) fn is_source_banned(&self, source: IpAddr, now: Instant) -> bool {
        !self.bans.is_empty() && self.is_banned(Suspect::Source(network_of(source)), now)
    }

    /// Whether a user's credentials are not even looked at when they come from an address.
    pub(crate) fn is_user_banned(&self, source: IpAddr, user: &str, now: Instant) -> bool {
        self.is_banned(Suspect::User(network_of(source), self.hasher.hash_one(user)), now)
    }

    /// Every ban, longest first, at most so many.
    pub(crate) fn bans(&self, bans_max: usize, now: Instant) -> Vec<Ban> {
        let mut bans: Vec<Ban> = self
            .entries
            .iter()
            .filter_map(|(suspect, entry)| {
                let remaining = entry.banned_until?.checked_duration_since(now)?;
                let (Suspect::Source(source) | Suspect::User(source, _)) = *suspect;
                let is_whole_source = matches!(suspect, Suspect::Source(_));
                Some(Ban { source, is_whole_source, remaining, failures: entry.failures })
            })
            .collect();
        bans.sort_by_key(|ban| (std::cmp::Reverse(ban.remaining), ban.source));
        bans.truncate(bans_max);
        bans
    }

    /// The addresses that are banned now as a whole, the longest first, at most so many.
    pub(crate) fn source_bans(&self, bans_max: usize, now: Instant) -> Vec<(IpAddr, Duration)> {
        let in_force = self.bans.iter().rev().filter_map(|(until, suspect)| match suspect {
            Suspect::Source(source) => Some((*source, until.checked_duration_since(now)?)),
            Suspect::User(..) => None,
        });
        in_force.filter(|(_, left)| !left.is_zero()).take(bans_max).collect()
    }

    /// Forgets all failures from an address; whether there was a ban.
    pub(crate) fn pardon(&mut self, source: IpAddr) -> bool {
        let source = network_of(source);
        let of_source = |suspect: &Suspect| {
            let (Suspect::Source(other) | Suspect::User(other, _)) = *suspect;
            other == source
        };
        let found: Vec<Suspect> = self.entries.keys().copied().filter(of_source).collect();
        let bans = self.bans.len();
        for suspect in found {
            self.forget(suspect);
        }
        self.bans.len() < bans
    }

    /// Bans that are in force, or ran out since the last [`expire`](Self::expire).
    pub(crate) fn bans_count(&self) -> usize {
        self.bans.len()
    }

    /// Forgets what is old.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some((until, suspect)) = self.bans.first().copied().filter(|(until, _)| *until <= now) {
            self.bans.remove(&(until, suspect));
            if let Some(entry) = self.entries.get_mut(&suspect) {
                (entry.banned_until, entry.failures) = (None, 0);
            }
        }
        let kept_for = self.config.window.max(self.config.ban_for);
        while let Some((last, suspect)) = self.order.first().copied() {
            if now.saturating_duration_since(last) <= kept_for {
                break;
            }
            self.forget(suspect);
        }
    }

    fn is_banned(&self, suspect: Suspect, now: Instant) -> bool {
        self.entries.get(&suspect).and_then(|entry| entry.banned_until).is_some_and(|until| until > now)
    }

    /// Counts a failure; how many there are now, and whether a ban began.
    fn count(&mut self, suspect: Suspect, failures_max: u32, now: Instant) -> (u32, bool) {
        if !self.entries.contains_key(&suspect)
            && self.entries.len() >= self.config.entries_max
            && let Some((_, oldest)) = self.order.first().copied()
        {
            self.forget(oldest);
        }
        let fresh = Entry { failures: 0, last: now, banned_until: None };
        let entry = self.entries.entry(suspect).or_insert(fresh);
        self.order.remove(&(entry.last, suspect));
        if now.saturating_duration_since(entry.last) > self.config.window {
            entry.failures = 0;
        }
        entry.last = now;
        entry.failures = entry.failures.saturating_add(1);
        self.order.insert((now, suspect));
        let is_free = entry.banned_until.is_none_or(|until| until <= now);
        let begins = is_free && entry.failures >= failures_max;
        if begins {
            let until = now + self.config.ban_for;
            if let Some(before) = entry.banned_until.replace(until) {
                self.bans.remove(&(before, suspect));
            }
            self.bans.insert((until, suspect));
        }
        (entry.failures, begins)
    }

    fn forget(&mut self, suspect: Suspect) {
        if let Some(entry) = self.entries.remove(&suspect) {
            self.order.remove(&(entry.last, suspect));
            if let Some(until) = entry.banned_until {
                self.bans.remove(&(until, suspect));
            }
        }
    }

    /// The first few failures are typing mistakes; from then on each waits twice as long as the one before.
    fn delay(&self, failures: u32) -> Duration {
        let Some(doublings) = failures.checked_sub(self.config.failures_free + 1) else {
            return Duration::ZERO;
        };
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        self.config.delay_first.saturating_mul(factor).min(self.config.delay_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> GuardConfig {
        GuardConfig { entries_max: 6, ..GuardConfig::for_test() }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn guesses_are_slowed_down_and_then_banned_where_they_come_from() {
        let (mut guard, now) = (Guard::new(config()), Instant::now());
        let (bad, good) = (ip("192.0.2.66"), ip("192.0.2.1"));
        let delays: Vec<u128> = (0..5).map(|_| guard.failed(bad, "alice", now).delay.as_millis()).collect();
        assert_eq!(delays, [0, 0, 100, 200, 400]);
        let last = guard.failed(bad, "alice", now);
        assert_eq!((last.delay.as_millis(), last.ban), (400, Some(BanKind::User)), "the longest delay");
        assert!(guard.is_user_banned(bad, "alice", now));
        assert!(!guard.is_user_banned(good, "alice", now), "her own device is elsewhere");
        assert!(!guard.is_user_banned(bad, "bob", now) && !guard.is_source_banned(bad, now));
        assert_eq!(guard.failed(bad, "alice", now).ban, None, "one ban is told once");
        for number in 0..3 {
            guard.failed(bad, &format!("user{number}"), now);
        }
        assert!(guard.is_source_banned(bad, now) && guard.bans_count() == 2);
        assert!(guard.bans(9, now).iter().any(|ban| ban.is_whole_source && ban.source == bad));
        let later = now + Duration::from_secs(61);
        assert!(!guard.is_source_banned(bad, later) && !guard.is_user_banned(bad, "alice", later));
        guard.expire(later + Duration::from_secs(60));
        assert!(guard.entries.is_empty() && guard.order.is_empty() && guard.bans_count() == 0);
    }

    #[test]
    fn successes_and_pardons_take_failures_away() {
        let (mut guard, now) = (Guard::new(config()), Instant::now());
        let source = ip("192.0.2.1");
        for number in 0..40 {
            assert_eq!(guard.failed(source, "old", now).ban, None, "{number}");
            guard.succeeded(source, "old");
        }
        for _ in 0..6 {
            guard.failed(source, "old", now);
        }
        assert!(guard.is_user_banned(source, "old", now));
        assert!(guard.pardon(source) && !guard.pardon(source));
        assert!(!guard.is_user_banned(source, "old", now) && guard.bans_count() == 0);
    }

    #[test]
    fn the_table_is_bounded_and_a_whole_ipv6_network_is_one_source() {
        let (mut guard, now) = (Guard::new(config()), Instant::now());
        for number in 0..100_u64 {
            guard.failed(ip(&format!("2001:db8::{number:x}")), "x", now + Duration::from_millis(number));
        }
        assert!(guard.is_source_banned(ip("2001:db8::ffff"), now), "two entries, not two hundred");
        for number in 0..100 {
            guard.failed(ip(&format!("198.51.100.{number}")), "x", now + Duration::from_secs(1));
            assert!(guard.entries.len() <= 6 && guard.entries.len() == guard.order.len());
        }
        let banned = guard.entries.values().filter(|entry| entry.banned_until.is_some()).count();
        assert_eq!(guard.bans_count(), banned);
    }
}
