//! What is known about each peer, per service.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::Service;
use crate::signals::Peer;

/// How one service of one peer stands.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerHealth {
    /// The peer's node name; this node's own when the two rooms share the process.
    pub name: String,
    /// The service.
    pub service: Service,
    /// Whether at least one link is up.
    pub up: bool,
    /// Since when `up` is what it is.
    pub since: SystemTime,
    /// The last round trip between the nodes; none in process or before the first heartbeat.
    pub rtt_seconds: Option<f64>,
}

/// The book of all peers; bounded by the configuration's peers times the services.
#[derive(Debug, Default)]
pub(crate) struct Health {
    entries: Mutex<BTreeMap<(Peer, Service), Entry>>,
}

#[derive(Debug)]
struct Entry {
    links_up: usize,
    since: SystemTime,
    rtt_seconds: Option<f64>,
}

impl Health {
    /// Notes that links are wanted, so that a peer that was never reached shows as down.
    pub(crate) fn expect(&self, peer: &Peer, service: Service) {
        self.change(peer, service, |_| {});
    }

    pub(crate) fn opened(&self, peer: &Peer, service: Service) {
        self.change(peer, service, |entry| {
            if entry.links_up == 0 {
                entry.since = SystemTime::now();
            }
            entry.links_up += 1;
        });
    }

    pub(crate) fn closed(&self, peer: &Peer, service: Service) {
        self.change(peer, service, |entry| {
            entry.links_up = entry.links_up.saturating_sub(1);
            if entry.links_up == 0 {
                entry.since = SystemTime::now();
                entry.rtt_seconds = None;
            }
        });
    }

    pub(crate) fn measured(&self, peer: &Peer, service: Service, rtt_seconds: f64) {
        self.change(peer, service, |entry| entry.rtt_seconds = Some(rtt_seconds));
    }

    pub(crate) fn peers(&self) -> Vec<PeerHealth> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let describe = |((peer, service), entry): (&(Peer, Service), &Entry)| PeerHealth {
            name: peer.as_str().to_owned(),
            service: *service,
            up: entry.links_up > 0,
            since: entry.since,
            rtt_seconds: entry.rtt_seconds,
        };
        entries.iter().map(describe).collect()
    }

    fn change(&self, peer: &Peer, service: Service, change: impl FnOnce(&mut Entry)) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.entry((peer.clone(), service)).or_insert_with(|| Entry {
            links_up: 0,
            since: SystemTime::now(),
            rtt_seconds: None,
        });
        change(entry);
    }
}
