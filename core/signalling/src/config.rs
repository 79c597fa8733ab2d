//! The `[signalling]` section.

use std::net::SocketAddr;
use std::time::Duration;

use belfry_sip_proto::session_timer::INTERVAL_SECONDS_MIN;
use serde::Deserialize;

/// How the signalling core behaves. Every value stands in the annotated `belfry.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The SIP domains served here; the first one also stands for the edge's own addresses.
    pub domains: Vec<String>,
    /// The digest algorithms offered in challenges, most wanted first (RFC 8760).
    pub digest_algorithms: Vec<DigestAlgorithm>,
    /// How long a nonce may be used.
    #[serde(with = "humantime_serde")]
    pub nonce_lifetime: Duration,
    /// How many nonces have their use counted; above it, the count of the oldest is forgotten, and until its lifetime ends
    /// such a nonce may be used again.
    pub nonces_max: usize,

    /// The shortest registration; shorter ones are answered 423.
    #[serde(with = "humantime_serde")]
    pub expires_min: Duration,
    /// What a registration gets that does not say.
    #[serde(with = "humantime_serde")]
    pub expires_default: Duration,
    /// The longest registration; longer ones are shortened.
    #[serde(with = "humantime_serde")]
    pub expires_max: Duration,
    /// Contacts per address of record.
    pub contacts_per_aor_max: usize,
    /// A registration answered later than this counts as bad.
    #[serde(with = "humantime_serde")]
    pub register_slow: Duration,

    /// Whether the sound of calls goes through the relay; without, session descriptions pass unchanged.
    pub anchor_media: bool,
    /// How long the relay may take over a request.
    #[serde(with = "humantime_serde")]
    pub relay_timeout: Duration,
    /// How long a store may take over a request.
    #[serde(with = "humantime_serde")]
    pub store_timeout: Duration,

    /// How long a called phone may ring (Timer C of RFC 3261 section 16.6: more than three minutes).
    #[serde(with = "humantime_serde")]
    pub ring_timeout: Duration,
    /// How long phones may ring before those that are wanted less ring (lower q value, RFC 3261 section 16.6).
    #[serde(with = "humantime_serde")]
    pub fork_ring_timeout: Duration,
    /// Branches of one request at a time; a request may ask for fewer (Max-Breadth, RFC 5393).
    pub fork_branches_max: u8,
    /// After this an answered call is given up, whatever its phones say.
    #[serde(with = "humantime_serde")]
    pub call_lifetime: Duration,
    /// The longest session interval (RFC 4028): longer ones are lowered, and it is asked for where nobody asks. 0 asks
    /// for nothing.
    #[serde(with = "humantime_serde")]
    pub session_interval: Duration,
    /// The shortest session interval; shorter ones are answered 422, or raised for those who know no timers.
    #[serde(with = "humantime_serde")]
    pub session_interval_min: Duration,
    /// A session that was not refreshed is ended so long after its interval.
    #[serde(with = "humantime_serde")]
    pub session_grace: Duration,
    /// What the sides of a call are not told of each other.
    pub hiding: Hiding,
    /// What refused customers are told to wait.
    #[serde(with = "humantime_serde")]
    pub retry_after: Duration,

    /// How often it is looked whether routes were imported.
    #[serde(with = "humantime_serde")]
    pub routes_poll_interval: Duration,
    /// DNS servers for next hops; without any, those of the host.
    pub dns_servers: Vec<SocketAddr>,
    /// How long it may take to find out where a next hop is.
    #[serde(with = "humantime_serde")]
    pub dns_timeout: Duration,
    /// DNS answers that are remembered as long as they say themselves.
    pub dns_cache_max: u64,
    /// Next hops that are looked up at a time.
    pub dns_lookups_max: usize,
    /// How long a next hop that did not answer is left alone while others are there.
    #[serde(with = "humantime_serde")]
    pub dead_next_hop_timeout: Duration,
    /// Next hops that are remembered for not answering.
    pub dead_next_hops_max: usize,

    /// Calls at a time.
    pub calls_max: usize,
    /// Transactions at a time.
    pub transactions_max: usize,
    /// Messages that wait for the core.
    pub queue_messages_max: usize,
    /// From so many waiting messages on, new requests are answered 503.
    pub queue_messages_overload: usize,
    /// Store requests at a time.
    pub store_requests_max: usize,
}

/// The `[signalling.hiding]` section: calls in which we are the other phone for each side (RFC 7092).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hiding {
    /// Trunks whose calls are hidden, both ways; `*` stands for all.
    pub trunks: Vec<String>,
    /// Whether calls between customers are hidden.
    pub customers: bool,
    /// Headers that do not pass, by name in any case. What a message needs to arrive always passes.
    pub remove_headers: Vec<String>,
    /// When not empty: of the headers that this core does not know, only these pass.
    pub keep_headers: Vec<String>,
}

/// A digest algorithm (RFC 8760).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub enum DigestAlgorithm {
    /// `MD5`, which every phone knows.
    #[serde(rename = "MD5")]
    Md5,
    /// `SHA-256`.
    #[serde(rename = "SHA-256")]
    Sha256,
}

impl Config {
    /// What is wrong: key path in the section, and what is allowed.
    #[must_use]
    pub fn check(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut require = |is_met: bool, key: &str, allowed: &str| {
            if !is_met {
                faults.push((key.to_owned(), allowed.to_owned()));
            }
        };
        require(!self.domains.is_empty(), "domains", "name at least one domain");
        for (index, domain) in self.domains.iter().enumerate() {
            let is_host = !domain.is_empty()
                && domain
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.[]:".contains(&b));
            require(is_host, &format!("domains[{index}]"), "use a lower-case host name or address");
        }
        require(!self.digest_algorithms.is_empty(), "digest_algorithms", "list \"MD5\", \"SHA-256\" or both");
        let is_ordered = self.expires_min <= self.expires_default && self.expires_default <= self.expires_max;
        require(is_ordered, "expires_default", "must lie between expires_min and expires_max");
        require(self.expires_min >= Duration::from_secs(1), "expires_min", "must be at least 1s");
        let shortest_ring = Duration::from_secs(1);
        require(self.ring_timeout >= shortest_ring, "ring_timeout", "must be at least 1s; the RFC says 3min");
        let shortest_turn = Duration::from_secs(1);
        require(self.fork_ring_timeout >= shortest_turn, "fork_ring_timeout", "must be at least 1s");
        let floor = Duration::from_secs(u64::from(INTERVAL_SECONDS_MIN));
        let is_long = self.session_interval_min >= floor;
        require(is_long, "session_interval_min", "must be at least 90s (RFC 4028 section 4)");
        let is_within = self.session_interval.is_zero() || self.session_interval >= self.session_interval_min;
        require(
            is_within,
            "session_interval",
            "must be at least session_interval_min, or 0s to ask for nothing",
        );
        require(!self.relay_timeout.is_zero(), "relay_timeout", "must be more than 0s");
        require(!self.dns_timeout.is_zero(), "dns_timeout", "must be more than 0s");
        require(!self.store_timeout.is_zero(), "store_timeout", "must be more than 0s");
        let quickest_poll = Duration::from_millis(100);
        require(self.routes_poll_interval >= quickest_poll, "routes_poll_interval", "must be at least 100ms");
        for (key, bound) in [
            ("nonces_max", self.nonces_max),
            ("contacts_per_aor_max", self.contacts_per_aor_max),
            ("fork_branches_max", usize::from(self.fork_branches_max)),
            ("dns_lookups_max", self.dns_lookups_max),
            ("dead_next_hops_max", self.dead_next_hops_max),
            ("calls_max", self.calls_max),
            ("transactions_max", self.transactions_max),
            ("queue_messages_max", self.queue_messages_max),
            ("store_requests_max", self.store_requests_max),
        ] {
            require(bound > 0, key, "must be more than 0");
        }
        require(
            (1..=self.queue_messages_max).contains(&self.queue_messages_overload),
            "queue_messages_overload",
            "must lie between 1 and queue_messages_max",
        );
        faults
    }

    /// A configuration for tests.
    #[cfg(test)]
    pub(crate) fn for_test() -> Self {
        Self {
            domains: vec!["belfry.test".to_owned()],
            digest_algorithms: vec![DigestAlgorithm::Sha256, DigestAlgorithm::Md5],
            nonce_lifetime: Duration::from_secs(300),
            nonces_max: 1024,
            expires_min: Duration::from_secs(10),
            expires_default: Duration::from_secs(600),
            expires_max: Duration::from_secs(3600),
            contacts_per_aor_max: 4,
            register_slow: Duration::from_secs(1),
            anchor_media: true,
            relay_timeout: Duration::from_secs(1),
            store_timeout: Duration::from_secs(1),
            ring_timeout: Duration::from_secs(180),
            fork_ring_timeout: Duration::from_secs(20),
            fork_branches_max: 16,
            call_lifetime: Duration::from_secs(12 * 3600),
            session_interval: Duration::from_secs(1800),
            session_interval_min: Duration::from_secs(90),
            session_grace: Duration::from_secs(32),
            hiding: Hiding::default(),
            retry_after: Duration::from_secs(5),
            routes_poll_interval: Duration::from_secs(60),
            dns_servers: Vec::new(),
            dns_timeout: Duration::from_secs(1),
            dns_cache_max: 64,
            dns_lookups_max: 16,
            dead_next_hop_timeout: Duration::from_secs(30),
            dead_next_hops_max: 64,
            calls_max: 100,
            transactions_max: 1000,
            queue_messages_max: 256,
            queue_messages_overload: 200,
            store_requests_max: 64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_name_their_key() {
        assert_eq!(Config::for_test().check(), vec![]);
        let bad = Config {
            domains: vec!["Belfry Test".to_owned()],
            expires_default: Duration::from_secs(1),
            queue_messages_overload: 257,
            ..Config::for_test()
        };
        let keys: Vec<String> = bad.check().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["domains[0]", "expires_default", "queue_messages_overload"]);
    }
}
