//! Bans of the cores, which stand at the edge too: a datagram from a network that guessed passwords is turned away before
//! it costs a core anything.
//!
//! The core decides who is banned and for how long, and never tells of a network with a trunk in it, or
//! one that a customer is registered from. Here a ban is for
//! strangers only: who was let in lately from that address and port, what goes on with something that was begun, and
//! calls for help pass, and the core decides. Connections pass as well: they have bounds of their own, and the core sees
//! whose they are. A core that comes says all its bans anew, in the place of what it said before; they end by themselves.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use belfry_signalling::network_of;

/// Who is banned now.
#[derive(Debug)]
pub(crate) struct Bans {
    table: Mutex<HashMap<IpAddr, Ban>>,
    /// How many stand in the table, so that nobody is looked up while it is empty.
    count: AtomicUsize,
    bans_max: usize,
}

/// One ban.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ban {
    /// The core that said so.
    by: Arc<str>,
    until: Instant,
    /// Whether who is turned away gets a 403, or nothing.
    is_answered: bool,
}

impl Bans {
    pub(crate) fn new(bans_max: usize) -> Self {
        Self { table: Mutex::default(), count: AtomicUsize::new(0), bans_max }
    }

    /// A core bans a network for so many seconds, or for none any more. False when there are too many bans: then the core
    /// alone turns it away.
    pub(crate) fn note(
        &self,
        by: &Arc<str>,
        network: IpAddr,
        seconds: u32,
        is_answered: bool,
        now: Instant,
    ) -> bool {
        let network = network_of(network);
        let mut table = self.table();
        if seconds == 0 {
            table.remove(&network);
        } else {
            if table.len() >= self.bans_max {
                table.retain(|_, ban| ban.until > now);
            }
            if table.len() >= self.bans_max && !table.contains_key(&network) {
                return false;
            }
            let until = now + Duration::from_secs(seconds.into());
            table.insert(network, Ban { by: Arc::clone(by), until, is_answered });
        }
        self.count.store(table.len(), Ordering::Relaxed);
        true
    }

    /// A core is about to say all its bans: what it said before is void.
    pub(crate) fn forget(&self, by: &str) {
        let mut table = self.table();
        table.retain(|_, ban| &*ban.by != by);
        self.count.store(table.len(), Ordering::Relaxed);
    }

    /// Whether strangers from an address are to be turned away now, and whether they get a 403.
    pub(crate) fn of(&self, source: IpAddr, now: Instant) -> Option<bool> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let network = network_of(source);
        let mut table = self.table();
        let (until, is_answered) = table.get(&network).map(|ban| (ban.until, ban.is_answered))?;
        if until <= now {
            table.remove(&network);
            self.count.store(table.len(), Ordering::Relaxed);
            return None;
        }
        Some(is_answered)
    }

    fn table(&self) -> MutexGuard<'_, HashMap<IpAddr, Ban>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bans_are_for_networks_end_and_are_bounded() {
        let (bans, now) = (Bans::new(2), Instant::now());
        let core: Arc<str> = "core-1".into();
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert!(bans.note(&core, ip("192.0.2.66"), 60, true, now));
        assert!(bans.note(&core, ip("2001:db8:1:2::9"), 30, false, now));
        for (address, at, banned) in [
            ("192.0.2.66", 59, Some(true)),
            ("::ffff:192.0.2.66", 59, Some(true)),
            ("192.0.2.67", 0, None),
            ("2001:db8:1:2:ffff::1", 29, Some(false)),
            ("2001:db8:1:3::9", 0, None),
        ] {
            let found = bans.of(ip(address), now + Duration::from_secs(at));
            assert_eq!(found, banned, "{address} after {at} s");
        }
        assert!(!bans.note(&core, ip("192.0.2.1"), 60, true, now), "no room");
        assert_eq!(bans.of(ip("2001:db8:1:2::9"), now + Duration::from_secs(30)), None);
        assert!(bans.note(&core, ip("192.0.2.1"), 60, true, now), "the room of one that is over");
        bans.note(&core, ip("192.0.2.66"), 0, true, now);
        assert_eq!(bans.of(ip("192.0.2.66"), now), None, "lifted");
    }
    #[test]
    fn what_a_core_says_anew_is_in_the_place_of_what_it_said() {
        let (bans, now) = (Bans::new(9), Instant::now());
        let network = |last: u8| IpAddr::from([192, 0, 2, last]);
        let cores: [Arc<str>; 2] = ["core-1".into(), "core-2".into()];
        for (last, core) in [(1, 0), (2, 0), (3, 1)] {
            assert!(bans.note(&cores[core], network(last), 60, true, now));
        }
        bans.forget("core-1");
        assert!(bans.note(&cores[0], network(2), 60, true, now));
        let found = [1, 2, 3].map(|last| bans.of(network(last), now).is_some());
        assert_eq!(found, [false, true, true]);
        // Whoever forgives, forgives for all.
        bans.note(&cores[0], network(3), 0, true, now);
        assert_eq!(bans.of(network(3), now), None);
    }
}
