//! What an operator writes: tenants, aliases, trunks, blocks, emergency numbers, fraud limits.
//!
//! A plan comes from `[core.routing]` in `belfry.toml`, from imported documents of the same shape, and from imported
//! tables of prefixes. [`Plan::append`] puts them together; [`Table::compile`](crate::Table::compile) makes them fast.

mod check;

use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;

use crate::cost::Cost;
use crate::number::{DialPlan, NumberFormat};
use crate::window::WindowPlan;

/// Everything about who may call whom, by which way.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Plan {
    /// Who has customers here. Domains that no tenant names belong to a tenant called `default`.
    pub tenants: Vec<Tenant>,
    /// Numbers that mean an address.
    pub aliases: Vec<Alias>,
    /// Rules of single subscribers.
    pub subscribers: Vec<SubscriberPlan>,
    /// Other networks.
    pub trunks: Vec<Trunk>,
    /// Prefixes that a trunk serves, besides those that stand with the trunk.
    pub prefixes: Vec<PrefixRow>,
    /// Numbers that may not call or be called.
    pub blocks: Vec<Block>,
    /// Numbers that always pass.
    pub emergency: Emergency,
    /// When calling looks like fraud.
    pub fraud: Fraud,
}

/// Whose customers they are.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// Its name, as in labels.
    pub name: String,
    /// Its SIP domains.
    #[serde(default)]
    pub domains: Vec<String>,
    /// How its phones write numbers.
    #[serde(default)]
    pub dial: DialPlan,
    /// Prefixes of its own numbers: calls to them stay inside, whether or not a phone is there.
    #[serde(default)]
    pub own_prefixes: Vec<String>,
    /// How the user part of an own number is written: in the address of record.
    #[serde(default)]
    pub own_format: NumberFormat,
    /// The trunks that it may use; empty means all.
    #[serde(default)]
    pub trunks: Vec<String>,
    /// How trunks are ordered.
    #[serde(default)]
    pub order: Order,
    /// Which numbers its subscribers may call, unless their own rules say otherwise.
    #[serde(default)]
    pub outside: Outside,
    /// The number shown to trunks for subscribers who have none.
    #[serde(default)]
    pub caller_number: Option<String>,
    /// Calls at a time; 0 is no limit.
    #[serde(default)]
    pub concurrent_calls_max: u32,
    /// New calls per second; 0 is no limit.
    #[serde(default)]
    pub calls_per_second_max: u32,
    /// Calls at a time of each subscriber; 0 is no limit.
    #[serde(default)]
    pub subscriber_concurrent_calls_max: u32,
    /// Emergency numbers besides the house's.
    #[serde(default)]
    pub emergency_numbers: Vec<String>,
    /// Where its subscribers are, by the name of an emergency location.
    #[serde(default)]
    pub location: Option<String>,
}

/// How trunks are ordered for a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The cheapest first, then by priority, then by weight.
    #[default]
    LeastCost,
    /// The lowest priority number first, then by weight; costs are not looked at.
    Priority,
}

/// Which numbers outside the house may be called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outside {
    /// All.
    #[default]
    All,
    /// Those of the dial plan's country.
    National,
    /// None but emergency numbers.
    None,
}

/// A number that means an address.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alias {
    /// International with a plus sign (`+442071838750`), then it counts for everybody; or what the phones of a tenant
    /// dial, as `101`.
    pub number: String,
    /// The tenant whose phones dial it; needed for a number without plus sign.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Whom it means, as `alice@example.org`.
    pub address: String,
}

/// Rules of one subscriber.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubscriberPlan {
    /// Whose, as `alice@example.org`.
    pub address: String,
    /// The number shown to trunks, international with a plus sign.
    #[serde(default)]
    pub number: Option<String>,
    /// Calls at a time instead of the tenant's `subscriber_concurrent_calls_max`; 0 is no limit.
    #[serde(default)]
    pub concurrent_calls_max: Option<u32>,
    /// Which numbers may be called, instead of the tenant's.
    #[serde(default)]
    pub outside: Option<Outside>,
    /// Where the subscriber is, by the name of an emergency location.
    #[serde(default)]
    pub location: Option<String>,
}

/// Another network.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trunk {
    /// Its name, as in labels.
    pub name: String,
    /// Where it is; several are tried one after another, by priority and weight. Empty for a trunk that only calls in.
    #[serde(default)]
    pub gateways: Vec<Gateway>,
    /// Networks whose requests are this trunk's.
    #[serde(default)]
    pub accept_networks: Vec<IpNet>,
    /// Subscribers whose credentials make a request this trunk's, as `carrier@example.org`.
    #[serde(default)]
    pub accept_users: Vec<String>,
    /// Names in client certificates that make a request this trunk's.
    #[serde(default)]
    pub accept_tls_names: Vec<String>,
    /// Whether calls of this trunk may leave by another trunk.
    #[serde(default)]
    pub is_transit: bool,
    /// How it writes numbers when it calls in.
    #[serde(default = "trunk_dial")]
    pub dial: DialPlan,
    /// How it wants numbers written.
    #[serde(default)]
    pub format: NumberFormat,
    /// Digits cut from the front of the number as written, plus sign not counted.
    #[serde(default)]
    pub strip_digits: u8,
    /// What is put before the number, after cutting.
    #[serde(default)]
    pub prepend: String,
    /// What is told of the caller.
    #[serde(default)]
    pub identity: Identity,
    /// Whether the P-Asserted-Identity that it sends is believed (RFC 3325 section 5).
    #[serde(default)]
    pub is_trusted: bool,
    /// Our user name when it asks for credentials.
    #[serde(default)]
    pub user: Option<String>,
    /// The file with our password for it.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Calls at a time, both ways; 0 is no limit.
    #[serde(default)]
    pub concurrent_calls_max: u32,
    /// New calls per second to it; 0 is no limit.
    #[serde(default)]
    pub calls_per_second_max: u32,
    /// Lower is preferred.
    #[serde(default = "one")]
    pub priority: u16,
    /// Its share among trunks that are otherwise equal.
    #[serde(default = "one_weight")]
    pub weight: u16,
    /// What a minute costs where no prefix says so.
    #[serde(default)]
    pub cost: Cost,
    /// Whether it serves every number, or only its prefixes.
    #[serde(default = "yes")]
    pub serves_all: bool,
    /// What it serves, and for how much.
    #[serde(default)]
    pub prefixes: Vec<PrefixPlan>,
    /// When it may be used; always when empty.
    #[serde(default)]
    pub windows: Vec<WindowPlan>,
    /// The clocks of the windows, as `Europe/London`.
    #[serde(default = "utc")]
    pub time_zone: String,
    /// Whether it is only tried when every other trunk failed.
    #[serde(default)]
    pub is_last_resort: bool,
    /// Final answers after which the next trunk is tried. 408 also stands for silence, 503 for an unreachable gateway.
    #[serde(default = "failover_codes")]
    pub failover_codes: Vec<u16>,
    /// A gateway that sends nothing for so long is given up.
    #[serde(default = "six_seconds")]
    pub response_timeout_seconds: u16,
    /// Of the places that its 3xx names, so many are tried for one call; 0 passes the 3xx on to the caller.
    #[serde(default)]
    pub redirects_max: u8,
    /// How it is asked whether its gateways are alive.
    #[serde(default)]
    pub probe: ProbePlan,
}

/// OPTIONS to gateways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProbePlan {
    /// Seconds from one to the next; 0 asks nothing.
    pub interval_seconds: u16,
    /// So many failures one after another, and a gateway is down.
    pub failures: u8,
    /// So many answers one after another, and it is up again.
    pub successes: u8,
}

impl Default for ProbePlan {
    fn default() -> Self {
        Self { interval_seconds: 0, failures: 3, successes: 2 }
    }
}

fn one() -> u16 {
    1
}

fn one_weight() -> u16 {
    1
}

fn yes() -> bool {
    true
}

fn utc() -> String {
    "UTC".to_owned()
}

fn six_seconds() -> u16 {
    6
}

fn failover_codes() -> Vec<u16> {
    vec![408, 500, 502, 503, 504]
}

fn trunk_dial() -> DialPlan {
    DialPlan { bare_is_international: true, ..DialPlan::default() }
}

/// Where a trunk is reached.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// A SIP URI without user, as `sip:203.0.113.10:5060;transport=udp` or `sips:carrier.example`.
    pub uri: String,
    /// Lower is tried first.
    #[serde(default = "one")]
    pub priority: u16,
    /// Its share among gateways of one priority.
    #[serde(default = "one_weight")]
    pub weight: u16,
}

/// What a trunk serves.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefixPlan {
    /// The first digits of international numbers.
    pub prefix: String,
    /// What a minute costs; left out, the trunk does not serve the prefix.
    #[serde(default)]
    pub cost: Option<Cost>,
    /// Instead of the trunk's.
    #[serde(default)]
    pub priority: Option<u16>,
    /// Instead of the trunk's.
    #[serde(default)]
    pub weight: Option<u16>,
}

/// What a trunk serves, as a row of a table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrefixRow {
    /// The trunk.
    pub trunk: String,
    /// The first digits of international numbers.
    pub prefix: String,
    /// What a minute costs; left out, the trunk does not serve the prefix.
    #[serde(default)]
    pub cost: Option<Cost>,
    /// Instead of the trunk's.
    #[serde(default)]
    pub priority: Option<u16>,
    /// Instead of the trunk's.
    #[serde(default)]
    pub weight: Option<u16>,
}

/// What a trunk is told of the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// P-Asserted-Identity with the caller's number; left out when the caller asks for privacy (RFC 3325 section 7)
    /// and the trunk is not trusted.
    #[default]
    Asserted,
    /// No P-Asserted-Identity; From stays as the caller wrote it.
    None,
}

/// Numbers that may not call or be called. The longest prefix of a list decides.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// For whom; everybody when left out.
    #[serde(default)]
    pub tenant: Option<String>,
    /// Whether the caller's or the called number is looked at.
    pub side: Side,
    /// The first digits of international numbers.
    pub prefix: String,
    /// Whether numbers with this prefix are let through although a shorter prefix is blocked.
    #[serde(default)]
    pub is_allowed: bool,
}

/// Whose number a block is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Who calls.
    Caller,
    /// Who is called.
    Called,
}

/// Numbers that always pass: before limits, blocks and overload.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Emergency {
    /// What is dialled, as `999`, besides 112, 911 and `urn:service:sos` (RFC 5031), which always are.
    pub numbers: Vec<String>,
    /// The trunks that take them, in this order; empty means every trunk, by priority.
    pub trunks: Vec<String>,
    /// Whether the caller must authenticate like for any call.
    pub is_authenticated: bool,
    /// Emergency calls at a time, beyond every other bound.
    pub calls_max: u32,
    /// Where callers may be, and who is called for them.
    pub locations: Vec<Location>,
}

impl Default for Emergency {
    fn default() -> Self {
        Self {
            numbers: Vec::new(),
            trunks: Vec::new(),
            is_authenticated: true,
            calls_max: 1000,
            locations: Vec::new(),
        }
    }
}

/// Where callers are.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Location {
    /// What tenants and subscribers call it.
    pub name: String,
    /// Who is called instead of the number that was dialled; left out, the dialled number goes to the trunk.
    #[serde(default)]
    pub number: Option<String>,
    /// The trunks that take these calls, in this order; empty means those of all emergency calls.
    #[serde(default)]
    pub trunks: Vec<String>,
}

/// When calling looks like fraud. Limits of 0 are off.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fraud {
    /// For each subscriber.
    pub subscriber: FraudLimits,
    /// For each tenant.
    pub tenant: FraudLimits,
    /// Prefixes that are never called for the first time without telling somebody.
    pub watched_prefixes: Vec<String>,
    /// Subscribers and tenants that are watched at a time.
    pub subjects_max: Option<usize>,
}

/// From when on somebody is told, and from when on calls are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FraudLimits {
    /// Calls to trunks within an hour.
    pub calls_per_hour_alert: u32,
    /// Calls to trunks within an hour.
    pub calls_per_hour_block: u32,
    /// Calls to trunks within a minute.
    pub calls_per_minute_block: u32,
    /// What the trunks' minutes of an hour cost, by the trunks' cost tables.
    pub cost_per_hour_alert: Cost,
    /// What the trunks' minutes of an hour cost, by the trunks' cost tables.
    pub cost_per_hour_block: Cost,
    /// Whether somebody is told of the first call to a country, or to a watched prefix.
    pub new_destination_alert: bool,
    /// New destinations within a day.
    pub new_destinations_per_day_block: u32,
}

impl Plan {
    /// Adds everything of another plan. Emergency numbers and locations are added; the rest of its `emergency` and its
    /// `fraud` section stays behind: those are this plan's to say.
    pub fn append(&mut self, other: Plan) {
        self.tenants.extend(other.tenants);
        self.aliases.extend(other.aliases);
        self.subscribers.extend(other.subscribers);
        self.trunks.extend(other.trunks);
        self.prefixes.extend(other.prefixes);
        self.blocks.extend(other.blocks);
        for number in other.emergency.numbers {
            if !self.emergency.numbers.contains(&number) {
                self.emergency.numbers.push(number);
            }
        }
        self.emergency.locations.extend(other.emergency.locations);
    }
}
