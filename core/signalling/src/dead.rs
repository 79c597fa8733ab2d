//! Next hops that did not answer lately: they are not tried while others are there (RFC 3263 section 4.3).
//!
//! Plain state with time as an argument. A place is forgotten when its time is over, when it answers, or when more are
//! dead than may be remembered: then the one that was noted first goes.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::handle::Transport;

/// Where somebody does not answer.
type Key = (Transport, SocketAddr);

/// The places that are not tried for now.
#[derive(Debug)]
pub(crate) struct DeadPlaces {
    until: HashMap<Key, Instant>,
    /// In the order in which they were noted; what was forgotten since leaves its name here until its time is over.
    order: VecDeque<(Instant, Key)>,
    lifetime: Duration,
    places_max: usize,
}

impl DeadPlaces {
    pub(crate) fn new(lifetime: Duration, places_max: usize) -> Self {
        Self { until: HashMap::new(), order: VecDeque::new(), lifetime, places_max }
    }

    /// Nobody answers there; whether that is news.
    pub(crate) fn note(&mut self, transport: Transport, address: SocketAddr, now: Instant) -> bool {
        self.forget_old(now);
        let key = (transport, address);
        let is_news = !self.until.contains_key(&key);
        while self.order.len() >= self.places_max {
            self.forget_first();
        }
        let until = now + self.lifetime;
        self.until.insert(key, until);
        self.order.push_back((until, key));
        is_news
    }

    /// Somebody answers there; whether that is news.
    pub(crate) fn answered(&mut self, transport: Transport, address: SocketAddr) -> bool {
        !self.until.is_empty() && self.until.remove(&(transport, address)).is_some()
    }

    /// Whether nobody answered there lately.
    pub(crate) fn is_dead(&self, transport: Transport, address: SocketAddr, now: Instant) -> bool {
        self.until.get(&(transport, address)).is_some_and(|until| *until > now)
    }

    /// How many are remembered.
    pub(crate) fn len(&self) -> usize {
        self.until.len()
    }

    /// Forgets whose time is over.
    pub(crate) fn forget_old(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(until, _)| *until <= now) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let Some((until, key)) = self.order.pop_front() else { return };
        // It may have been noted again since.
        if self.until.get(&key) == Some(&until) {
            self.until.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(30);

    fn address(number: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], number))
    }

    #[test]
    fn places_are_dead_for_a_time_or_until_they_answer() {
        let mut dead = DeadPlaces::new(LIFETIME, 10);
        let start = Instant::now();
        assert!(dead.note(Transport::Udp, address(1), start));
        assert!(!dead.note(Transport::Udp, address(1), start + LIFETIME / 2), "known already");
        assert!(!dead.is_dead(Transport::Tcp, address(1), start), "another transport is another place");
        assert!(dead.is_dead(Transport::Udp, address(1), start + LIFETIME), "noted again meanwhile");
        assert!(!dead.is_dead(Transport::Udp, address(1), start + LIFETIME * 2));
        assert!(dead.answered(Transport::Udp, address(1)));
        assert!(!dead.answered(Transport::Udp, address(1)));
        assert!(!dead.is_dead(Transport::Udp, address(1), start));
        dead.forget_old(start + LIFETIME * 2);
        assert_eq!((dead.len(), dead.order.len()), (0, 0));
    }

    #[test]
    fn only_so_many_are_remembered() {
        let mut dead = DeadPlaces::new(LIFETIME, 3);
        let start = Instant::now();
        for number in 1..=5 {
            dead.note(Transport::Udp, address(number), start);
        }
        let known: Vec<u16> =
            (1..=5).filter(|number| dead.is_dead(Transport::Udp, address(*number), start)).collect();
        assert_eq!((known, dead.len()), (vec![3, 4, 5], 3));
        for _ in 0..100 {
            dead.note(Transport::Udp, address(5), start);
        }
        assert!(dead.order.len() <= 3, "noting one again and again needs no room");
    }
}
