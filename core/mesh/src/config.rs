//! The `[mesh]` section of `belfry.toml`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use belfry_signal::label::check_name;
use serde::Deserialize;

use crate::Service;
use crate::signals::Peer;

/// How this node meets the others.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// This node's name, which its certificate proves to the others.
    pub node: String,
    /// Where other nodes may connect; absent means that nobody connects here.
    pub listen: Option<SocketAddr>,
    /// The SPIFFE trust domain that all nodes of the site share, as `site.example`.
    pub trust_domain: String,
    /// Where the node's certificate comes from; needed as soon as there is `listen` or a peer with an address.
    pub identity: Option<IdentityConfig>,
    /// Every node that may connect here or is connected to.
    #[serde(default)]
    pub peers: Vec<PeerConfig>,
    /// Time for TCP, TLS and the first frames together.
    #[serde(with = "humantime_serde")]
    pub handshake_timeout: Duration,
    /// How often each link is probed.
    #[serde(with = "humantime_serde")]
    pub heartbeat_interval: Duration,
    /// A link without an answered probe for this long is dead.
    #[serde(with = "humantime_serde")]
    pub dead_after: Duration,
    /// The first pause before a peer is tried again; doubles with each failure.
    #[serde(with = "humantime_serde")]
    pub reconnect_min: Duration,
    /// The longest pause before a peer is tried again.
    #[serde(with = "humantime_serde")]
    pub reconnect_max: Duration,
    /// The largest frame, in bytes, in either direction.
    pub frame_bytes_max: usize,
    /// Messages that wait on a link, per direction, before the sender is told that it is full.
    pub queue_messages_max: usize,
    /// Connections from other nodes held at a time, handshakes included.
    pub connections_max: usize,
}

/// Where the node's certificate comes from: a local authority in `directory`, or three files made elsewhere.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityConfig {
    /// Holds `authority.pem` and `authority.key`, made on first start. Nodes that share them trust each other.
    pub directory: Option<PathBuf>,
    /// Life of the certificates that this node issues to itself, renewed at half of it.
    #[serde(with = "humantime_serde")]
    pub lifetime: Duration,
    /// PEM chain of this node, read again at half its life.
    pub certificate: Option<PathBuf>,
    /// PEM private key of this node.
    pub key: Option<PathBuf>,
    /// PEM certificates of the authorities that vouch for peers.
    pub authority: Option<PathBuf>,
}

/// Another node.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerConfig {
    /// Its name, which its certificate must prove.
    pub name: String,
    /// `host:port` where it listens; absent when it only connects to us.
    pub address: Option<String>,
    /// The services that are dialled there.
    #[serde(default)]
    pub services: Vec<Service>,
}

impl Config {
    /// A mesh inside one process: no listener, no peers.
    pub(crate) fn in_process(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            listen: None,
            trust_domain: "belfry.local".to_owned(),
            identity: None,
            peers: Vec::new(),
            handshake_timeout: Duration::from_secs(5),
            heartbeat_interval: Duration::from_secs(1),
            dead_after: Duration::from_secs(5),
            reconnect_min: Duration::from_millis(100),
            reconnect_max: Duration::from_secs(5),
            frame_bytes_max: 1 << 20,
            queue_messages_max: 1024,
            connections_max: 64,
        }
    }

    /// Whether another node is ever met.
    pub(crate) fn is_networked(&self) -> bool {
        self.listen.is_some() || self.peers.iter().any(|peer| peer.address.is_some())
    }

    /// Every fault: the key inside the section, and what is wrong with it and what is allowed.
    #[must_use]
    pub fn check(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut fault = |key: &str, text: String| faults.push((key.to_owned(), text));
        if let Err(error) = check_name(&self.node) {
            fault("node", error.to_string());
        }
        let is_domain_char =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.' | '_');
        if self.trust_domain.is_empty() || !self.trust_domain.chars().all(is_domain_char) {
            fault("trust_domain", "use a domain name of a-z, 0-9, '.', '-' and '_'".to_owned());
        }
        if self.dead_after < self.heartbeat_interval * 2 {
            fault("dead_after", "must be at least twice heartbeat_interval".to_owned());
        }
        for (key, duration) in [
            ("handshake_timeout", self.handshake_timeout),
            ("heartbeat_interval", self.heartbeat_interval),
            ("reconnect_min", self.reconnect_min),
        ] {
            if duration.is_zero() {
                fault(key, "must be longer than nothing".to_owned());
            }
        }
        if self.reconnect_max < self.reconnect_min {
            fault("reconnect_max", "must be at least reconnect_min".to_owned());
        }
        if !(1024..=64 << 20).contains(&self.frame_bytes_max) {
            fault("frame_bytes_max", "use 1024 to 67108864 bytes".to_owned());
        }
        if !(1..=1_000_000).contains(&self.queue_messages_max) {
            fault("queue_messages_max", "use 1 to 1000000 messages".to_owned());
        }
        if !(1..=100_000).contains(&self.connections_max) {
            fault("connections_max", "use 1 to 100000 connections".to_owned());
        }
        self.check_identity(&mut fault);
        self.check_peers(&mut fault);
        faults
    }

    fn check_identity(&self, fault: &mut impl FnMut(&str, String)) {
        let Some(identity) = &self.identity else {
            if self.is_networked() {
                fault(
                    "identity",
                    "is needed because other nodes are met (listen, or a peer's address)".to_owned(),
                );
            }
            return;
        };
        let files = [&identity.certificate, &identity.key, &identity.authority];
        let files_given = files.iter().filter(|file| file.is_some()).count();
        let is_complete = match &identity.directory {
            Some(_) => files_given == 0,
            None => files_given == files.len(),
        };
        if !is_complete {
            fault("identity", "give either directory, or all of certificate, key and authority".to_owned());
        }
        if identity.lifetime < Duration::from_secs(60) || identity.lifetime > Duration::from_hours(24 * 366) {
            fault("identity.lifetime", "use 1 minute to 1 year".to_owned());
        }
    }

    fn check_peers(&self, fault: &mut impl FnMut(&str, String)) {
        if self.peers.len() >= Peer::MAX {
            fault("peers", format!("at most {} peers can be named", Peer::MAX - 1));
        }
        for (index, peer) in self.peers.iter().enumerate() {
            if let Err(error) = check_name(&peer.name) {
                fault(&format!("peers[{index}].name"), error.to_string());
            }
            let is_repeated = self.peers[..index].iter().any(|earlier| earlier.name == peer.name);
            if is_repeated || peer.name == self.node {
                fault(&format!("peers[{index}].name"), "names another node, once".to_owned());
            }
            if peer.address.is_none() && !peer.services.is_empty() {
                fault(&format!("peers[{index}].address"), "is needed to dial the peer's services".to_owned());
            }
            if peer.address.as_ref().is_some_and(|address| !is_host_and_port(address)) {
                fault(&format!("peers[{index}].address"), "use host:port".to_owned());
            }
        }
    }
}

fn is_host_and_port(address: &str) -> bool {
    address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}
