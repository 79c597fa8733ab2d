//! Who may hold a connection: counts of what is open now, given back by guards.
//!
//! The global and the listener's count are taken at accept, before a byte is read; the count per client when its
//! address is certain, which behind a PROXY protocol header is after that header.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::LimitsConfig;
use crate::signals::Limit;

/// The counts of one edge. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    total: AtomicUsize,
    total_max: usize,
    listener_max: usize,
    client_max: usize,
    /// At most as many entries as there are connections.
    clients: Mutex<HashMap<IpAddr, usize>>,
}

/// The count of one listener.
#[derive(Clone, Debug, Default)]
pub(crate) struct ListenerCount(Arc<AtomicUsize>);

/// Holds a count one higher until it is dropped.
#[derive(Debug)]
#[must_use = "the count falls again as soon as the guard is dropped"]
pub(crate) struct Held(ListenerCount);

/// A place among all connections and the listener's; given back on drop.
#[derive(Debug)]
pub(crate) struct Place {
    shared: Arc<Shared>,
    listener: ListenerCount,
}

/// A place among the client's connections; given back on drop.
#[derive(Debug)]
pub(crate) struct ClientPlace {
    shared: Arc<Shared>,
    key: IpAddr,
}

impl ListenerCount {
    /// Connections open now.
    pub(crate) fn open(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Counts one until the guard is dropped.
    pub(crate) fn hold(&self) -> Held {
        self.0.fetch_add(1, Ordering::Relaxed);
        Held(self.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Admission {
    pub(crate) fn new(limits: &LimitsConfig) -> Self {
        let shared = Shared {
            total: AtomicUsize::new(0),
            total_max: limits.connections_max,
            listener_max: limits.connections_per_listener_max,
            client_max: limits.connections_per_ip_max,
            clients: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// A place for a new connection, or the limit that is in the way.
    pub(crate) fn enter(&self, listener: &ListenerCount) -> Result<Place, Limit> {
        if !take(&self.shared.total, self.shared.total_max) {
            return Err(Limit::Connections);
        }
        if !take(&listener.0, self.shared.listener_max) {
            self.shared.total.fetch_sub(1, Ordering::Relaxed);
            return Err(Limit::ListenerConnections);
        }
        Ok(Place { shared: Arc::clone(&self.shared), listener: listener.clone() })
    }

    /// A place among the connections of the client at `ip`: one IPv4 address, or one IPv6 /64.
    pub(crate) fn enter_client(&self, ip: IpAddr) -> Result<ClientPlace, Limit> {
        let key = client_key(ip);
        let mut clients = self.shared.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let count = clients.entry(key).or_insert(0);
        if *count >= self.shared.client_max {
            return Err(Limit::IpConnections);
        }
        *count += 1;
        Ok(ClientPlace { shared: Arc::clone(&self.shared), key })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.total.fetch_sub(1, Ordering::Relaxed);
        self.listener.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for ClientPlace {
    fn drop(&mut self) {
        let mut clients = self.shared.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = clients.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&self.key);
            }
        }
    }
}

fn take(count: &AtomicUsize, max: usize) -> bool {
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| (open < max).then_some(open + 1)).is_ok()
}

/// An IPv6 customer has a whole /64 to change addresses in.
fn client_key(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from(u128::from(ip) & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(total: usize, listener: usize, client: usize) -> Admission {
        Admission {
            shared: Arc::new(Shared {
                total: AtomicUsize::new(0),
                total_max: total,
                listener_max: listener,
                client_max: client,
                clients: Mutex::default(),
            }),
        }
    }

    #[test]
    fn places_are_bounded_and_given_back() {
        let admission = admission(3, 2, 10);
        let (web, phones) = (ListenerCount::default(), ListenerCount::default());
        let first = admission.enter(&web).expect("room");
        let _second = admission.enter(&web).expect("room");
        assert_eq!(admission.enter(&web).err(), Some(Limit::ListenerConnections));
        let _third = admission.enter(&phones).expect("room elsewhere");
        assert_eq!(admission.enter(&phones).err(), Some(Limit::Connections));
        drop(first);
        assert_eq!(web.open(), 1);
        assert!(admission.enter(&phones).is_ok());
    }

    #[test]
    fn a_client_is_an_address_or_a_64() {
        let admission = admission(10, 10, 1);
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let held = admission.enter_client(ip("2001:db8:1:2::1")).expect("room");
        assert_eq!(admission.enter_client(ip("2001:db8:1:2:ffff::9")).err(), Some(Limit::IpConnections));
        assert!(admission.enter_client(ip("2001:db8:1:3::1")).is_ok());
        let _v4 = admission.enter_client(ip("192.0.2.1")).expect("room");
        assert_eq!(admission.enter_client(ip("::ffff:192.0.2.1")).err(), Some(Limit::IpConnections));
        drop(held);
        assert!(admission.enter_client(ip("2001:db8:1:2::2")).is_ok());
        assert_eq!(admission.shared.clients.lock().expect("not poisoned").len(), 1, "nothing stays behind");
    }
}
