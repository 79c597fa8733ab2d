//! The compiled table: made once per plan, never changed, swapped as a whole.

mod compile;
mod decide;
mod order;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv6Net};
use jiff::tz::TimeZone;

use crate::cost::Cost;
use crate::decision::TrunkId;
use crate::number::{DialPlan, Number, NumberFormat};
use crate::plan::{Fraud, Identity, Order, Outside, ProbePlan};
use crate::trie::DigitTrie;
use crate::window::Windows;

/// The name of the tenant of domains that nobody names.
pub const DEFAULT_TENANT: &str = "default";

/// A fault that keeps a plan from being used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct TableError {
    /// The key inside the plan.
    pub key: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl TableError {
    /// A bounded name for labels.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        "plan"
    }
}

/// Who may call whom, by which way. Look-ups take nothing but the question.
#[derive(Debug)]
pub struct Table {
    tenants: Vec<TenantEntry>,
    names: HashMap<Arc<str>, u16>,
    /// Tenants by domain; others belong to the tenant at 0.
    domains: HashMap<Box<str>, u16>,
    trunks: Vec<TrunkEntry>,
    /// What trunks serve, by prefix.
    prefixes: DigitTrie<Vec<Offer>>,
    aliases: HashMap<Number, Target>,
    /// Prefixes of own numbers, with their tenants.
    own: DigitTrie<u16>,
    subscribers: HashMap<Box<str>, SubscriberRules>,
    /// The first international alias of an address: the number that trunks are shown.
    numbers: HashMap<Box<str>, Number>,
    blocks: BlockLists,
    emergency: EmergencyEntry,
    fraud: Fraud,
    watched: DigitTrie<()>,
    networks: Vec<(IpNet, TrunkId)>,
    users: HashMap<Box<str>, TrunkId>,
    tls_names: HashMap<Box<str>, TrunkId>,
    zones: Vec<TimeZone>,
}

#[derive(Debug)]
pub(crate) struct TenantEntry {
    pub(crate) name: Arc<str>,
    /// The domain of its own numbers.
    pub(crate) domain: Box<str>,
    pub(crate) dial: DialPlan,
    pub(crate) own_format: NumberFormat,
    /// `None` means all.
    pub(crate) trunks: Option<HashSet<TrunkId>>,
    pub(crate) order: Order,
    pub(crate) outside: Outside,
    pub(crate) caller_number: Option<Number>,
    pub(crate) limits: TenantLimits,
    pub(crate) emergency_numbers: Vec<Box<str>>,
    pub(crate) location: Option<u16>,
    /// What its phones dial.
    pub(crate) aliases: HashMap<Box<str>, Target>,
    pub(crate) blocks: BlockLists,
}

/// How many calls a tenant may have; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TenantLimits {
    /// At a time.
    pub concurrent_calls_max: u32,
    /// Per second.
    pub calls_per_second_max: u32,
    /// At a time, of each subscriber.
    pub subscriber_concurrent_calls_max: u32,
}

/// A trunk as calls need it.
#[derive(Debug)]
pub struct TrunkEntry {
    /// Its name.
    pub name: Arc<str>,
    /// Where it is reached.
    pub gateways: Vec<GatewayEntry>,
    /// What it is told of the caller.
    pub identity: Identity,
    /// Whether it may hear and tell asserted identities.
    pub is_trusted: bool,
    /// Final answers after which the next way is tried.
    pub failover_codes: Arc<[u16]>,
    /// A gateway that sends nothing for so many seconds is given up.
    pub response_timeout_seconds: u16,
    /// Places of its redirections that are tried for one call.
    pub redirects_max: u8,
    /// How its gateways are asked whether they are alive.
    pub probe: ProbePlan,
    /// Calls at a time; 0 is no limit.
    pub concurrent_calls_max: u32,
    /// New calls per second; 0 is no limit.
    pub calls_per_second_max: u32,
    /// Our user name when it asks for credentials.
    pub user: Option<Arc<str>>,
    pub(crate) is_transit: bool,
    pub(crate) is_last_resort: bool,
    pub(crate) serves_all: bool,
    pub(crate) cost: Cost,
    pub(crate) priority: u16,
    pub(crate) weight: u16,
    pub(crate) dial: DialPlan,
    pub(crate) format: NumberFormat,
    pub(crate) strip_digits: usize,
    pub(crate) prepend: Box<str>,
    pub(crate) windows: Windows,
    pub(crate) zone: u16,
}

/// Where a trunk is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayEntry {
    /// `sip` or `sips`.
    pub scheme: Box<str>,
    /// Host, port and parameters, as `203.0.113.10:5060;transport=udp`.
    pub rest: Box<str>,
    pub(crate) priority: u16,
    pub(crate) weight: u16,
}

impl GatewayEntry {
    /// The URI of the gateway itself.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("{}:{}", self.scheme, self.rest)
    }

    /// The Request-URI of a call to a number over it (RFC 3261 section 19.1.6).
    #[must_use]
    pub fn uri_of(&self, called: &str) -> String {
        format!("{}:{called}@{};user=phone", self.scheme, self.rest)
    }
}

/// What one trunk asks for one prefix; without a cost it does not serve it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    pub(crate) trunk: TrunkId,
    pub(crate) priority: u16,
    pub(crate) weight: u16,
    pub(crate) cost: Option<Cost>,
}

/// Whom an alias means.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) user: Box<str>,
    pub(crate) domain: Box<str>,
}

#[derive(Clone, Debug)]
pub(crate) struct SubscriberRules {
    pub(crate) number: Option<Number>,
    pub(crate) concurrent_calls_max: Option<u32>,
    pub(crate) outside: Option<Outside>,
    pub(crate) location: Option<u16>,
}

/// Blocked prefixes; `false` lets through.
#[derive(Debug, Default)]
pub(crate) struct BlockLists {
    pub(crate) caller: DigitTrie<bool>,
    pub(crate) called: DigitTrie<bool>,
}

#[derive(Debug)]
pub(crate) struct EmergencyEntry {
    pub(crate) numbers: Vec<Box<str>>,
    pub(crate) trunks: Vec<TrunkId>,
    pub(crate) is_authenticated: bool,
    pub(crate) calls_max: u32,
    pub(crate) locations: Vec<LocationEntry>,
}

#[derive(Debug)]
pub(crate) struct LocationEntry {
    pub(crate) name: Box<str>,
    pub(crate) number: Option<Box<str>>,
    pub(crate) trunks: Vec<TrunkId>,
}

/// How large a table is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableSize {
    /// Tenants, the default one included.
    pub tenants: usize,
    /// Trunks.
    pub trunks: usize,
    /// Prefixes of trunks.
    pub prefixes: usize,
    /// Aliases.
    pub aliases: usize,
    /// Memory of the prefixes, in bytes.
    pub prefix_bytes: usize,
}

impl Table {
    /// The trunk whose networks hold this address; the longest prefix wins.
    #[must_use]
    pub fn trunk_of_address(&self, address: IpAddr) -> Option<TrunkId> {
        // Longest first, by compile. IPv4 in IPv6 is compared as IPv4.
        let address = address.to_canonical();
        self.networks.iter().find(|(network, _)| network.contains(&address)).map(|(_, trunk)| *trunk)
    }

    /// Whether a trunk calls in from this network: an IPv4 address, or an IPv6 /64 by its first address.
    #[must_use]
    pub fn is_trunk_in(&self, network: IpAddr) -> bool {
        let network = match network.to_canonical() {
            IpAddr::V4(address) => IpNet::from(IpAddr::V4(address)),
            IpAddr::V6(address) => Ipv6Net::new(address, 64).map_or_else(|_| IpNet::from(network), IpNet::V6),
        };
        let overlaps = |other: &IpNet| other.contains(&network) || network.contains(other);
        self.networks.iter().any(|(other, _)| overlaps(other))
    }

    /// The trunk that calls in with this subscriber's credentials.
    #[must_use]
    pub fn trunk_of_user(&self, address: &str) -> Option<TrunkId> {
        self.users.get(address).copied()
    }

    /// The trunk whose client certificate has this name.
    #[must_use]
    pub fn trunk_of_tls_name(&self, name: &str) -> Option<TrunkId> {
        self.tls_names.get(name.to_ascii_lowercase().as_str()).copied()
    }

    /// A trunk.
    #[must_use]
    pub fn trunk(&self, id: TrunkId) -> Option<&TrunkEntry> {
        self.trunks.get(usize::from(id.0))
    }

    /// A trunk, by its name.
    #[must_use]
    pub fn trunk_named(&self, name: &str) -> Option<&TrunkEntry> {
        self.trunks.iter().find(|trunk| &*trunk.name == name)
    }

    /// All trunks.
    pub fn trunks(&self) -> impl Iterator<Item = &TrunkEntry> {
        self.trunks.iter()
    }

    /// The names of all tenants, the default one first.
    pub fn tenants(&self) -> impl Iterator<Item = &Arc<str>> {
        self.tenants.iter().map(|tenant| &tenant.name)
    }

    /// How large it is.
    #[must_use]
    pub fn size(&self) -> TableSize {
        let local: usize = self.tenants.iter().map(|tenant| tenant.aliases.len()).sum();
        TableSize {
            tenants: self.tenants.len(),
            trunks: self.trunks.len(),
            prefixes: self.prefixes.prefixes_count(),
            aliases: self.aliases.len() + local,
            prefix_bytes: self.prefixes.bytes(),
        }
    }

    /// How many calls a tenant may have.
    #[must_use]
    pub fn tenant_limits(&self, tenant: &str) -> TenantLimits {
        self.tenants
            .iter()
            .find(|entry| &*entry.name == tenant)
            .map_or_else(TenantLimits::default, |entry| entry.limits)
    }

    /// How many calls a subscriber may have at a time; 0 is no limit.
    #[must_use]
    pub fn subscriber_calls_max(&self, user: &str, domain: &str) -> u32 {
        let own = self.rules_of(user, domain).and_then(|rules| rules.concurrent_calls_max);
        own.unwrap_or_else(|| self.tenant_of(domain).limits.subscriber_concurrent_calls_max)
    }

    /// How many emergency calls there may be, beyond every other bound.
    #[must_use]
    pub fn emergency_calls_max(&self) -> u32 {
        self.emergency.calls_max
    }

    /// Whether who calls for help must authenticate.
    #[must_use]
    pub fn is_emergency_authenticated(&self) -> bool {
        self.emergency.is_authenticated
    }

    /// When calling looks like fraud.
    #[must_use]
    pub fn fraud(&self) -> &Fraud {
        &self.fraud
    }

    /// Where a call goes for the eyes of the fraud guard: its watched prefix, or its country code.
    #[must_use]
    pub fn destination_of(&self, number: &Number) -> u64 {
        let watched = self.watched.longest(number.digits()).map_or(0, |(length, ())| length);
        let length = watched.max(number.country_code().len()).min(number.digits().len());
        // A leading 1 tells 04 from 4.
        number.digits()[..length].bytes().fold(1, |sum, digit| sum * 10 + u64::from(digit - b'0'))
    }

    /// Whether a number is of a tenant's own country and under no watched prefix.
    #[must_use]
    pub fn is_home(&self, tenant: &str, number: &Number) -> bool {
        let is_own =
            self.tenant_named(tenant).is_some_and(|entry| entry.dial.country_code == number.country_code());
        is_own && self.watched.longest(number.digits()).is_none()
    }

    fn tenant_named(&self, name: &str) -> Option<&TenantEntry> {
        self.tenants.get(usize::from(*self.names.get(name)?))
    }

    pub(crate) fn tenant_of(&self, domain: &str) -> &TenantEntry {
        let place = self.domains.get(domain).copied().unwrap_or(0);
        // The default tenant always is there.
        &self.tenants[usize::from(place)]
    }

    pub(crate) fn rules_of(&self, user: &str, domain: &str) -> Option<&SubscriberRules> {
        if self.subscribers.is_empty() {
            return None;
        }
        self.subscribers.get(format!("{user}@{domain}").as_str())
    }
}

#[cfg(test)]
mod tests;
