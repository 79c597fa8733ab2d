//! Slowing down who guesses passwords: wrong ones cost the address growing pauses.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Wrong passwords that cost nothing: people mistype.
const FREE: u32 = 4;
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// After so long without a wrong password all is forgotten.
const MEMORY: Duration = Duration::from_secs(15 * 60);
/// Addresses that are remembered; the one that was quiet for longest makes room.
const ADDRESSES_MAX: usize = 4096;

/// Wrong passwords by address. An IPv6 /64 counts as one address.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    inner: Mutex<HashMap<IpAddr, Wrong>>,
}

#[derive(Clone, Copy, Debug)]
struct Wrong {
    count: u32,
    last: Instant,
}

impl Attempts {
    /// How long this address has yet to wait, if it has.
    pub(crate) fn pause(&self, address: IpAddr, now: Instant) -> Option<Duration> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let wrong = inner.get(&network(address))?;
        let over = wrong.count.checked_sub(FREE + 1)?;
        let pause = PAUSE_MIN.saturating_mul(1 << over.min(16)).min(PAUSE_MAX);
        pause.checked_sub(now - wrong.last).filter(|left| !left.is_zero())
    }

    pub(crate) fn wrong(&self, address: IpAddr, now: Instant) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.retain(|_, wrong| now - wrong.last < MEMORY);
        let address = network(address);
        if inner.len() >= ADDRESSES_MAX && !inner.contains_key(&address) {
            let quietest = inner.iter().min_by_key(|(_, wrong)| wrong.last).map(|(address, _)| *address);
            quietest.map(|address| inner.remove(&address));
        }
        let wrong = inner.entry(address).or_insert(Wrong { count: 0, last: now });
        *wrong = Wrong { count: wrong.count.saturating_add(1), last: now };
    }

    pub(crate) fn right(&self, address: IpAddr) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).remove(&network(address));
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let attempts = Attempts::default();
        let start = Instant::now();
        let address: IpAddr = "192.0.2.7".parse().expect("literal");
        let mut pauses = Vec::new();
        for _ in 0..12 {
            attempts.wrong(address, start);
            pauses.push(attempts.pause(address, start).map_or(0, |pause| pause.as_secs()));
        }
        assert_eq!(pauses, [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(attempts.pause(address, start + PAUSE_MAX), None);
        assert_eq!(attempts.pause("192.0.2.8".parse().expect("literal"), start), None);
        attempts.right(address);
        assert_eq!(attempts.pause(address, start), None);
    }

    #[test]
    fn a_whole_ipv6_network_is_one_guesser() {
        let attempts = Attempts::default();
        let start = Instant::now();
        for host in 0..6 {
            attempts.wrong(format!("2001:db8::{host:x}").parse().expect("literal"), start);
        }
        assert!(attempts.pause("2001:db8::ffff".parse().expect("literal"), start).is_some());
        assert!(attempts.pause("2001:db8:0:1::1".parse().expect("literal"), start).is_none());
    }

    #[test]
    fn memory_is_bounded() {
        let attempts = Attempts::default();
        let start = Instant::now();
        for address in 0..ADDRESSES_MAX + 10 {
            let address = std::net::Ipv4Addr::from(u32::try_from(address).expect("small"));
            attempts.wrong(address.into(), start);
        }
        assert_eq!(attempts.inner.lock().expect("alone").len(), ADDRESSES_MAX);
    }
}
