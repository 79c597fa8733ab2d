//! The `[signalling]` section.

use std::net::SocketAddr;
use std::time::Duration;

use belfry_routing::rating::Decimal;
use belfry_sip_proto::Limits;
use belfry_sip_proto::session_timer::INTERVAL_SECONDS_MIN;
use serde::Deserialize;

use crate::admission::Rules;

/// How the signalling core behaves. Every value stands in the annotated `belfry.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The SIP domains served here; the first one also stands for the edge's own addresses.
    pub domains: Vec<String>,
    /// The digest algorithms offered in challenges, most wanted first (RFC 8760).
    pub digest_algorithms: Vec<DigestAlgorithm>,
    /// Whether challenges offer `auth-int` beside `auth`: credentials that protect the body too (RFC 7616 section 3.4).
    pub digest_auth_int: bool,
    /// How long a nonce may be used.
    #[serde(with = "humantime_serde")]
    pub nonce_lifetime: Duration,
    /// How many nonces have their use counted; above it, the count of the oldest is forgotten, and phones that hold a
    /// nonce of that age are challenged again.
    pub nonces_max: usize,

    /// What happens to whoever guesses passwords.
    pub guard: GuardConfig,

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
    /// Bytes of one contact with its Path and instance.
    pub contact_bytes_max: usize,
    /// Whether the answer to a REGISTER names the edge as the way out (Service-Route, RFC 3608).
    pub service_route: bool,
    /// What phones with RFC 5626 are told to keep their flows alive by (Flow-Timer, section 4.4).
    #[serde(with = "humantime_serde")]
    pub flow_timer: Duration,
    /// How UDP phones behind NATs are kept reachable.
    pub keepalive: KeepAliveConfig,
    /// How large a SIP message may be.
    pub message: MessageConfig,
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
    /// How calls of accounts that pay in advance are paid for.
    pub prepaid: PrepaidConfig,
    /// What the sides of a call are not told of each other.
    pub hiding: Hiding,
    /// What refused customers are told to wait.
    #[serde(with = "humantime_serde")]
    pub retry_after: Duration,
    /// Of the REGISTER and OPTIONS exchanges that went well, one in so many leaves its messages and a span.
    pub trace_one_in: u32,

    /// Tenants whose indicators have a label of their own, in the order of the plan; the others share `other`.
    pub tenants_labelled_max: usize,
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
    /// While so many messages wait or fewer, nobody looks whose they are.
    pub queue_messages_calm: usize,
    /// Messages that wait behind those of calls and of known customers; more are answered 503.
    pub queue_strangers_max: usize,
    /// How long they may wait.
    #[serde(with = "humantime_serde")]
    pub queue_strangers_timeout: Duration,
    /// Customers who are known for having been let in lately.
    pub known_flows_max: usize,
    /// Customers of one IPv4 address or IPv6 /64 who become known within an hour.
    pub known_flows_per_network_max: u32,
    /// How long they are.
    #[serde(with = "humantime_serde")]
    pub known_flow_timeout: Duration,
    /// Calls for help by unknown callers that are served before others, per second.
    pub emergencies_per_second_max: u32,
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

/// What happens to whoever guesses passwords. Failures are counted by the address that they come from (IPv6: the /64).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardConfig {
    /// Failures of one user from one address that are refused at once.
    pub failures_free: u32,
    /// How long the next refusal waits; each one after it waits twice as long as the one before.
    #[serde(with = "humantime_serde")]
    pub delay_first: Duration,
    /// The longest that a refusal waits.
    #[serde(with = "humantime_serde")]
    pub delay_max: Duration,
    /// Refusals that wait at a time; above it they are sent at once.
    pub delayed_max: usize,
    /// From so many failures on, this user is not let in from this address.
    pub user_failures_max: u32,
    /// From so many failures of any users on, this address is banned; a success takes one failure off.
    pub source_failures_max: u32,
    /// Failures are forgotten when there was none for so long.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// How long a ban lasts.
    #[serde(with = "humantime_serde")]
    pub ban_for: Duration,
    /// What banned requests get.
    pub banned: BannedAnswer,
    /// Addresses, and users at addresses, whose failures are counted; above it the oldest are forgotten.
    pub entries_max: usize,
}

/// What banned requests get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BannedAnswer {
    /// 403: a device with an old password tells its owner something.
    Refuse,
    /// Nothing.
    Drop,
}

/// How UDP phones behind NATs are kept reachable: by an OPTIONS request to each of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeepAliveConfig {
    /// How often each phone is asked, as far as `per_second_max` allows; zero asks nobody.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// Requests a second to all phones together.
    pub per_second_max: usize,
    /// A phone that has answered before and leaves so many unanswered is gone.
    pub unanswered_max: u8,
}

/// How calls of accounts that pay in advance are paid for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrepaidConfig {
    /// How much talking is paid for at a time, in whole seconds: less lets more calls share the end of an account, more
    /// asks less often.
    #[serde(with = "humantime_serde")]
    pub slice: Duration,
    /// How long before the end of a slice the next one is paid for.
    #[serde(with = "humantime_serde")]
    pub renew_ahead: Duration,
    /// An account with less than this, in its own currency, runs low.
    #[serde(deserialize_with = "decimal")]
    pub low_balance: Decimal,
    /// How often the ledger is looked at: top-ups count after so long at the latest.
    #[serde(with = "humantime_serde")]
    pub poll_interval: Duration,
}

/// An amount is written as text: a float would have lost its last digits before we see it.
fn decimal<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
    let text = String::deserialize(deserializer)?;
    Decimal::from_str_exact(&text)
        .map_err(|_| serde::de::Error::custom(format!("{text:?}: write an amount as text, as \"1.00\"")))
}

/// How large a SIP message may be; what is larger is answered 513, or dropped when it is a response.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessageConfig {
    /// Bytes of a whole message.
    pub bytes_max: usize,
    /// Bytes of the start line, or of one header field with its folds.
    pub line_bytes_max: usize,
    /// Header fields.
    pub headers_max: usize,
}

impl MessageConfig {
    /// As the wire layer wants them.
    #[must_use]
    pub fn limits(self) -> Limits {
        Limits {
            message_bytes_max: self.bytes_max,
            line_bytes_max: self.line_bytes_max,
            headers_max: self.headers_max,
        }
    }
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
        let mut faults = self.check_sessions();
        faults.extend(self.check_counts());
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
        let shortest = Duration::from_secs(1);
        require(self.ring_timeout >= shortest, "ring_timeout", "must be at least 1s; the RFC says 3min");
        require(self.fork_ring_timeout >= shortest, "fork_ring_timeout", "must be at least 1s");
        require(!self.relay_timeout.is_zero(), "relay_timeout", "must be more than 0s");
        require(!self.dns_timeout.is_zero(), "dns_timeout", "must be more than 0s");
        require(!self.store_timeout.is_zero(), "store_timeout", "must be more than 0s");
        require(self.routes_poll_interval.as_millis() >= 100, "routes_poll_interval", "use 100ms or more");
        let prepaid = &self.prepaid;
        let slices = Duration::from_secs(1)..=Duration::from_secs(3600);
        require(slices.contains(&prepaid.slice), "prepaid.slice", "must lie between 1s and 1h");
        require(
            prepaid.renew_ahead < prepaid.slice,
            "prepaid.renew_ahead",
            "must be less than prepaid.slice",
        );
        require(prepaid.poll_interval.as_millis() >= 10, "prepaid.poll_interval", "use 10ms or more");
        require(
            (1..=self.queue_messages_max).contains(&self.queue_messages_overload),
            "queue_messages_overload",
            "must lie between 1 and queue_messages_max",
        );
        require(
            self.queue_messages_calm < self.queue_messages_overload,
            "queue_messages_calm",
            "must be less than queue_messages_overload",
        );
        let longest = Duration::from_secs(20);
        require(
            self.guard.delay_max <= longest,
            "guard.delay_max",
            "must be at most 20s: phones give up at 32s",
        );
        let shortest = Duration::from_secs(10);
        require(self.flow_timer >= shortest, "flow_timer", "must be at least 10s");
        let message = &self.message;
        for (key, value, allowed) in [
            ("message.bytes_max", message.bytes_max, 1_300..=65_535),
            ("message.line_bytes_max", message.line_bytes_max, 256..=65_535),
            ("message.headers_max", message.headers_max, 16..=4_096),
        ] {
            let text = format!("must lie between {} and {}", allowed.start(), allowed.end());
            require(allowed.contains(&value), key, &text);
        }
        faults
    }

    /// Who comes first under overload.
    pub(crate) fn admission_rules(&self) -> Rules {
        Rules {
            calm_max: self.queue_messages_calm,
            second_max: self.queue_strangers_max,
            second_patience: self.queue_strangers_timeout,
            known_for: self.known_flow_timeout,
            emergencies_per_second_max: self.emergencies_per_second_max,
        }
    }

    /// Bounds of zero, which would let nothing through.
    fn check_counts(&self) -> Vec<(String, String)> {
        let bounds = [
            ("trace_one_in", self.trace_one_in as usize),
            ("nonces_max", self.nonces_max),
            ("contacts_per_aor_max", self.contacts_per_aor_max),
            ("fork_branches_max", usize::from(self.fork_branches_max)),
            ("dns_lookups_max", self.dns_lookups_max),
            ("dead_next_hops_max", self.dead_next_hops_max),
            ("contact_bytes_max", self.contact_bytes_max),
            ("keepalive.per_second_max", self.keepalive.per_second_max),
            ("keepalive.unanswered_max", usize::from(self.keepalive.unanswered_max)),
            ("guard.entries_max", self.guard.entries_max),
            ("guard.user_failures_max", self.guard.user_failures_max as usize),
            ("guard.source_failures_max", self.guard.source_failures_max as usize),
            ("calls_max", self.calls_max),
            ("transactions_max", self.transactions_max),
            ("queue_messages_max", self.queue_messages_max),
            ("queue_strangers_max", self.queue_strangers_max),
            ("known_flows_max", self.known_flows_max),
            ("known_flows_per_network_max", self.known_flows_per_network_max as usize),
            ("store_requests_max", self.store_requests_max),
        ];
        let zero = bounds.into_iter().filter(|(_, bound)| *bound == 0);
        zero.map(|(key, _)| (key.to_owned(), "must be more than 0".to_owned())).collect()
    }

    /// What is wrong with the session timers.
    fn check_sessions(&self) -> Vec<(String, String)> {
        let fault = |key: &str, allowed: &str| (key.to_owned(), allowed.to_owned());
        let mut faults = Vec::new();
        if self.session_interval_min < Duration::from_secs(u64::from(INTERVAL_SECONDS_MIN)) {
            faults.push(fault("session_interval_min", "must be at least 90s (RFC 4028 section 4)"));
        }
        if !self.session_interval.is_zero() && self.session_interval < self.session_interval_min {
            let allowed = "must be at least session_interval_min, or 0s to ask for nothing";
            faults.push(fault("session_interval", allowed));
        }
        faults
    }

    /// A configuration for tests.
    #[cfg(test)]
    pub(crate) fn for_test() -> Self {
        Self {
            domains: vec!["belfry.test".to_owned()],
            digest_algorithms: vec![DigestAlgorithm::Sha256, DigestAlgorithm::Md5],
            digest_auth_int: false,
            nonce_lifetime: Duration::from_secs(300),
            nonces_max: 1024,
            guard: GuardConfig::for_test(),
            expires_min: Duration::from_secs(10),
            expires_default: Duration::from_secs(600),
            expires_max: Duration::from_secs(3600),
            contacts_per_aor_max: 4,
            contact_bytes_max: 1024,
            service_route: true,
            flow_timer: Duration::from_secs(120),
            keepalive: KeepAliveConfig {
                interval: Duration::from_secs(3600),
                per_second_max: 100,
                unanswered_max: 2,
            },
            message: MessageConfig { bytes_max: 65_535, line_bytes_max: 8_192, headers_max: 256 },
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
            prepaid: PrepaidConfig {
                slice: Duration::from_secs(60),
                renew_ahead: Duration::from_secs(10),
                low_balance: Decimal::ONE,
                poll_interval: Duration::from_secs(3600),
            },
            hiding: Hiding::default(),
            retry_after: Duration::from_secs(5),
            tenants_labelled_max: 100,
            routes_poll_interval: Duration::from_secs(60),
            trace_one_in: 1,
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
            queue_messages_calm: 64,
            queue_strangers_max: 64,
            queue_strangers_timeout: Duration::from_secs(1),
            known_flows_max: 1024,
            known_flows_per_network_max: 64,
            known_flow_timeout: Duration::from_secs(3600),
            emergencies_per_second_max: 10,
            store_requests_max: 64,
        }
    }
}

#[cfg(test)]
impl GuardConfig {
    /// Small numbers.
    pub(crate) fn for_test() -> Self {
        Self {
            failures_free: 2,
            delay_first: Duration::from_millis(100),
            delay_max: Duration::from_millis(400),
            delayed_max: 100,
            user_failures_max: 6,
            source_failures_max: 10,
            window: Duration::from_secs(60),
            ban_for: Duration::from_secs(60),
            banned: BannedAnswer::Refuse,
            entries_max: 100,
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
