//! What is wrong with a plan although it has the right types: every fault with its key.

use std::collections::HashSet;
use std::hash::Hash;

use crate::number::{Number, bare_digits};
use crate::plan::{Plan, Tenant, Trunk};
use crate::table::TableError;
use crate::window::Windows;

/// How many there may be of each kind. Names of tenants and trunks become labels, prefixes cost memory.
pub(super) const TENANTS_MAX: usize = 10_000;
pub(super) const TRUNKS_MAX: usize = 250;
pub(super) const GATEWAYS_MAX: usize = 16;
/// Places of redirections that one call may try.
const REDIRECTS_MAX: u8 = 8;
pub(super) const ALIASES_MAX: usize = 1_000_000;
pub(super) const SUBSCRIBERS_MAX: usize = 1_000_000;
pub(super) const PREFIXES_MAX: usize = 1_000_000;
pub(super) const BLOCKS_MAX: usize = 100_000;
pub(super) const LOCATIONS_MAX: usize = 10_000;

/// Faults that one check names; more of them help nobody.
const FAULTS_MAX: usize = 100;

type Faults = Vec<(String, String)>;

impl Plan {
    /// Every fault: its key inside the section, and what is wrong and allowed. A plan without faults compiles.
    #[must_use]
    pub fn check(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        self.check_counts(&mut faults);
        if faults.is_empty() {
            let tenants: HashSet<&str> = self.tenants.iter().map(|tenant| tenant.name.as_str()).collect();
            let trunks: HashSet<&str> = self.trunks.iter().map(|trunk| trunk.name.as_str()).collect();
            let names = Names { tenants, trunks, locations: self.locations() };
            self.check_tenants(&names, &mut faults);
            for (index, trunk) in self.trunks.iter().enumerate() {
                check_trunk(trunk, &format!("trunks[{index}]"), &mut faults);
            }
            self.check_trunks_together(&mut faults);
            self.check_people(&names, &mut faults);
            self.check_prefixes(&names, &mut faults);
            self.check_emergency(&names, &mut faults);
        }
        faults.truncate(FAULTS_MAX);
        faults
    }

    /// The first fault, as the error of compiling.
    pub(crate) fn first_fault(&self) -> Result<(), TableError> {
        match self.check().into_iter().next() {
            Some((key, message)) => Err(TableError { key, message }),
            None => Ok(()),
        }
    }

    fn locations(&self) -> HashSet<&str> {
        self.emergency.locations.iter().map(|location| location.name.as_str()).collect()
    }

    fn check_counts(&self, faults: &mut Faults) {
        let prefixes: usize = self.trunks.iter().map(|trunk| trunk.prefixes.len()).sum();
        for (key, count, count_max) in [
            ("tenants", self.tenants.len(), TENANTS_MAX),
            ("trunks", self.trunks.len(), TRUNKS_MAX),
            ("aliases", self.aliases.len(), ALIASES_MAX),
            ("subscribers", self.subscribers.len(), SUBSCRIBERS_MAX),
            ("prefixes", self.prefixes.len() + prefixes, PREFIXES_MAX),
            ("blocks", self.blocks.len(), BLOCKS_MAX),
            ("emergency.locations", self.emergency.locations.len(), LOCATIONS_MAX),
        ] {
            if count > count_max {
                faults.push((key.to_owned(), format!("{count} of them; at most {count_max} are allowed")));
            }
        }
    }

    fn check_tenants(&self, names: &Names<'_>, faults: &mut Faults) {
        let mut domains = Once::new("belongs to two tenants");
        let mut tenants = Once::new("is named twice");
        for (index, tenant) in self.tenants.iter().enumerate() {
            let key = format!("tenants[{index}]");
            tenants.see(tenant.name.as_str(), &tenant.name, &format!("{key}.name"), faults);
            for (place, domain) in tenant.domains.iter().enumerate() {
                domains.see(domain.as_str(), domain, &format!("{key}.domains[{place}]"), faults);
            }
            check_tenant(tenant, &key, names, faults);
        }
    }

    fn check_trunks_together(&self, faults: &mut Faults) {
        let mut trunks = Once::new("is named twice");
        let mut networks = Once::new("is accepted by two trunks");
        let mut users = Once::new("is accepted by two trunks");
        for (index, trunk) in self.trunks.iter().enumerate() {
            let key = format!("trunks[{index}]");
            trunks.see(trunk.name.as_str(), &trunk.name, &format!("{key}.name"), faults);
            for (place, network) in trunk.accept_networks.iter().enumerate() {
                let at = format!("{key}.accept_networks[{place}]");
                networks.see(network.trunc(), &network.to_string(), &at, faults);
            }
            for (place, user) in trunk.accept_users.iter().chain(&trunk.accept_tls_names).enumerate() {
                users.see(user.as_str(), user, &format!("{key}.accept_users[{place}]"), faults);
            }
        }
    }

    fn check_people(&self, names: &Names<'_>, faults: &mut Faults) {
        let mut numbers = Once::new("means two addresses");
        for (index, alias) in self.aliases.iter().enumerate() {
            let key = format!("aliases[{index}]");
            check_address(&alias.address, &format!("{key}.address"), faults);
            let tenant = alias.tenant.as_deref();
            names.check_tenant(tenant, &format!("{key}.tenant"), faults);
            let at = format!("{key}.number");
            if alias.number.starts_with('+') {
                check_number(&alias.number, &at, faults);
                numbers.see((None, alias.number.as_str()), &alias.number, &at, faults);
            } else if alias.number.is_empty() || alias.number.len() > 32 {
                faults.push((at, "use 1 to 32 characters".to_owned()));
            } else if tenant.is_none() {
                let text =
                    format!("{:?} needs a tenant, or a plus sign before the country code", alias.number);
                faults.push((at, text));
            } else {
                numbers.see((tenant, alias.number.as_str()), &alias.number, &at, faults);
            }
        }
        let mut addresses = Once::new("has two sets of rules");
        for (index, subscriber) in self.subscribers.iter().enumerate() {
            let key = format!("subscribers[{index}]");
            let at = format!("{key}.address");
            check_address(&subscriber.address, &at, faults);
            addresses.see(subscriber.address.as_str(), &subscriber.address, &at, faults);
            if let Some(number) = &subscriber.number {
                check_number(number, &format!("{key}.number"), faults);
            }
            names.check_location(subscriber.location.as_deref(), &format!("{key}.location"), faults);
        }
    }

    fn check_prefixes(&self, names: &Names<'_>, faults: &mut Faults) {
        let mut rows = Once::new("stands twice for its trunk");
        for (index, row) in self.prefixes.iter().enumerate() {
            let key = format!("prefixes[{index}]");
            check_prefix(&row.prefix, &format!("{key}.prefix"), faults);
            names.check_trunk(&row.trunk, &format!("{key}.trunk"), faults);
            let at = format!("{key}.prefix");
            rows.see((row.trunk.as_str(), row.prefix.as_str()), &row.prefix, &at, faults);
        }
        for (index, trunk) in self.trunks.iter().enumerate() {
            for (place, prefix) in trunk.prefixes.iter().enumerate() {
                let at = format!("trunks[{index}].prefixes[{place}].prefix");
                check_prefix(&prefix.prefix, &at, faults);
                rows.see((trunk.name.as_str(), prefix.prefix.as_str()), &prefix.prefix, &at, faults);
            }
        }
        for (index, block) in self.blocks.iter().enumerate() {
            let key = format!("blocks[{index}]");
            check_prefix(&block.prefix, &format!("{key}.prefix"), faults);
            names.check_tenant(block.tenant.as_deref(), &format!("{key}.tenant"), faults);
        }
        for (index, prefix) in self.fraud.watched_prefixes.iter().enumerate() {
            check_prefix(prefix, &format!("fraud.watched_prefixes[{index}]"), faults);
        }
        if self.fraud.subjects_max == Some(0) {
            faults.push(("fraud.subjects_max".to_owned(), "must be more than 0".to_owned()));
        }
    }

    fn check_emergency(&self, names: &Names<'_>, faults: &mut Faults) {
        check_emergency_numbers(&self.emergency.numbers, "emergency.numbers", faults);
        for (index, trunk) in self.emergency.trunks.iter().enumerate() {
            names.check_trunk(trunk, &format!("emergency.trunks[{index}]"), faults);
        }
        if self.emergency.calls_max == 0 {
            faults.push(("emergency.calls_max".to_owned(), "must be more than 0".to_owned()));
        }
        let mut locations = Once::new("is named twice");
        for (index, location) in self.emergency.locations.iter().enumerate() {
            let key = format!("emergency.locations[{index}]");
            locations.see(location.name.as_str(), &location.name, &format!("{key}.name"), faults);
            let is_number = |number: &String| bare_digits(number).is_some();
            if !location.number.as_ref().is_none_or(is_number) {
                faults.push((format!("{key}.number"), "must be digits, with or without plus".to_owned()));
            }
            for (place, trunk) in location.trunks.iter().enumerate() {
                names.check_trunk(trunk, &format!("{key}.trunks[{place}]"), faults);
            }
        }
    }
}

/// Names that others may use.
struct Names<'p> {
    tenants: HashSet<&'p str>,
    trunks: HashSet<&'p str>,
    locations: HashSet<&'p str>,
}

impl Names<'_> {
    fn check_trunk(&self, name: &str, key: &str, faults: &mut Faults) {
        if !self.trunks.contains(name) {
            faults.push((key.to_owned(), format!("no trunk is called {name:?}; {}", known(&self.trunks))));
        }
    }

    fn check_tenant(&self, name: Option<&str>, key: &str, faults: &mut Faults) {
        if let Some(name) = name.filter(|name| *name != "default" && !self.tenants.contains(name)) {
            faults.push((key.to_owned(), format!("no tenant is called {name:?}; {}", known(&self.tenants))));
        }
    }

    fn check_location(&self, name: Option<&str>, key: &str, faults: &mut Faults) {
        if let Some(name) = name.filter(|name| !self.locations.contains(name)) {
            let text = format!("no emergency location is called {name:?}; {}", known(&self.locations));
            faults.push((key.to_owned(), text));
        }
    }
}

/// A few of the names that would have been right.
fn known(names: &HashSet<&str>) -> String {
    let mut names: Vec<&str> = names.iter().copied().collect();
    names.sort_unstable();
    match names.len() {
        0 => "there are none".to_owned(),
        1..=12 => format!("there are {}", names.join(", ")),
        more => format!("there are {} and {} more", names[..12].join(", "), more - 12),
    }
}

/// Things of which there may be one each.
struct Once<T> {
    seen: HashSet<T>,
    fault: &'static str,
}

impl<T: Eq + Hash> Once<T> {
    fn new(fault: &'static str) -> Self {
        Self { seen: HashSet::new(), fault }
    }

    fn see(&mut self, thing: T, shown: &str, key: &str, faults: &mut Faults) {
        if !self.seen.insert(thing) {
            faults.push((key.to_owned(), format!("{shown:?} {}", self.fault)));
        }
    }
}

fn check_tenant(tenant: &Tenant, key: &str, names: &Names<'_>, faults: &mut Faults) {
    check_name(&tenant.name, &format!("{key}.name"), faults);
    for (index, domain) in tenant.domains.iter().enumerate() {
        check_host(domain, &format!("{key}.domains[{index}]"), faults);
    }
    tenant.dial.check(&format!("{key}.dial"), faults);
    for (index, prefix) in tenant.own_prefixes.iter().enumerate() {
        check_prefix(prefix, &format!("{key}.own_prefixes[{index}]"), faults);
    }
    if !tenant.own_prefixes.is_empty() && tenant.domains.is_empty() {
        faults.push((format!("{key}.own_prefixes"), "needs a domain".to_owned()));
    }
    for (index, trunk) in tenant.trunks.iter().enumerate() {
        names.check_trunk(trunk, &format!("{key}.trunks[{index}]"), faults);
    }
    if let Some(number) = &tenant.caller_number {
        check_number(number, &format!("{key}.caller_number"), faults);
    }
    check_emergency_numbers(&tenant.emergency_numbers, &format!("{key}.emergency_numbers"), faults);
    names.check_location(tenant.location.as_deref(), &format!("{key}.location"), faults);
}

fn check_trunk(trunk: &Trunk, key: &str, faults: &mut Faults) {
    check_name(&trunk.name, &format!("{key}.name"), faults);
    trunk.dial.check(&format!("{key}.dial"), faults);
    if trunk.gateways.len() > GATEWAYS_MAX {
        let text = format!("{} of them; at most {GATEWAYS_MAX} are allowed", trunk.gateways.len());
        faults.push((format!("{key}.gateways"), text));
    }
    for (index, gateway) in trunk.gateways.iter().enumerate() {
        let host = gateway.uri.strip_prefix("sip:").or_else(|| gateway.uri.strip_prefix("sips:"));
        let is_host =
            |host: &str| !host.is_empty() && !host.contains(['@', '<', '>', ' ', '"', '?', '\r', '\n']);
        if !host.is_some_and(is_host) {
            let text = format!("{:?} is not a SIP URI without user, as sip:203.0.113.10:5060", gateway.uri);
            faults.push((format!("{key}.gateways[{index}].uri"), text));
        }
    }
    for (index, user) in trunk.accept_users.iter().enumerate() {
        check_address(user, &format!("{key}.accept_users[{index}]"), faults);
    }
    if trunk.user.is_some() != trunk.password_file.is_some() {
        faults.push((format!("{key}.user"), "user and password_file go together".to_owned()));
    }
    if trunk.prepend.len() > 16 || !trunk.prepend.bytes().all(|b| b.is_ascii_digit() || b"+*#".contains(&b)) {
        faults.push((format!("{key}.prepend"), "use up to 16 digits, +, * and #".to_owned()));
    }
    for (index, code) in
        trunk.failover_codes.iter().enumerate().filter(|(_, code)| !(400..600).contains(*code))
    {
        let text = format!("{code} is not a status from 400 to 599; 6xx means everywhere");
        faults.push((format!("{key}.failover_codes[{index}]"), text));
    }
    if !(1..=32).contains(&trunk.response_timeout_seconds) {
        faults.push((format!("{key}.response_timeout_seconds"), "use 1 to 32 seconds".to_owned()));
    }
    if trunk.redirects_max > REDIRECTS_MAX {
        faults.push((format!("{key}.redirects_max"), format!("use 0 to {REDIRECTS_MAX}")));
    }
    if trunk.probe.interval_seconds != 0 && !(5..=3600).contains(&trunk.probe.interval_seconds) {
        faults.push((
            format!("{key}.probe.interval_seconds"),
            "use 5 to 3600 seconds, or 0 for none".to_owned(),
        ));
    }
    for (name, count) in [("failures", trunk.probe.failures), ("successes", trunk.probe.successes)] {
        if !(1..=20).contains(&count) {
            faults.push((format!("{key}.probe.{name}"), "use 1 to 20".to_owned()));
        }
    }
    if let Err((index, window_key, message)) = Windows::compile(&trunk.windows) {
        faults.push((format!("{key}.windows[{index}].{window_key}"), message));
    }
    if jiff::tz::TimeZone::get(&trunk.time_zone).is_err() {
        let text = format!("{:?} is not a time zone, as Europe/London", trunk.time_zone);
        faults.push((format!("{key}.time_zone"), text));
    }
}

fn check_name(name: &str, key: &str, faults: &mut Faults) {
    let is_plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b));
    let starts_well = name.starts_with(|first: char| first.is_ascii_lowercase());
    if !is_plain || !starts_well || name.len() > 63 {
        let text =
            format!("{name:?} is not a name: use 1 to 63 of a-z, 0-9, '-' and '_', starting with a letter");
        faults.push((key.to_owned(), text));
    }
}

fn check_host(host: &str, key: &str, faults: &mut Faults) {
    let is_host = !host.is_empty()
        && host.len() <= 253
        && host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.[]:".contains(&b));
    if !is_host {
        faults.push((key.to_owned(), format!("{host:?} is not a lower-case host name or address")));
    }
}

fn check_address(address: &str, key: &str, faults: &mut Faults) {
    let is_address = address.split_once('@').is_some_and(|(user, host)| {
        let is_host =
            !host.is_empty() && host.bytes().all(|b| !b.is_ascii_uppercase() && b.is_ascii_graphic());
        !user.is_empty() && user.bytes().all(|b| b.is_ascii_graphic()) && is_host && !host.contains('@')
    });
    if !is_address {
        faults.push((key.to_owned(), format!("{address:?} is not user@domain, the domain in lower case")));
    }
}

fn check_number(number: &str, key: &str, faults: &mut Faults) {
    if !number.starts_with('+') || Number::parse(number).is_none() {
        let text = format!("{number:?} is not an international number with plus sign, as +442071838750");
        faults.push((key.to_owned(), text));
    }
}

fn check_prefix(prefix: &str, key: &str, faults: &mut Faults) {
    if prefix.len() > crate::number::DIGITS_MAX || !prefix.bytes().all(|byte| byte.is_ascii_digit()) {
        let text = format!("{prefix:?} is not the first digits of international numbers, without plus sign");
        faults.push((key.to_owned(), text));
    }
}

fn check_emergency_numbers(numbers: &[String], key: &str, faults: &mut Faults) {
    for (index, number) in numbers.iter().enumerate() {
        if !(1..=8).contains(&number.len()) || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            faults.push((format!("{key}[{index}]"), format!("{number:?} is not 1 to 8 digits")));
        }
    }
}
