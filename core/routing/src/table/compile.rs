//! From a plan to a table.

use std::collections::HashMap;
use std::sync::Arc;

use ipnet::IpNet;
use jiff::tz::TimeZone;

use super::{
    BlockLists, DEFAULT_TENANT, EmergencyEntry, GatewayEntry, LocationEntry, Offer, SubscriberRules, Table,
    TableError, Target, TenantEntry, TenantLimits, TrunkEntry,
};
use crate::decision::TrunkId;
use crate::number::Number;
use crate::plan::{Block, Plan, PrefixPlan, Side, Tenant, Trunk};
use crate::trie::DigitTrie;
use crate::window::Windows;

/// Every mobile phone treats these as emergency numbers (3GPP TS 22.101 section 10.1.1), wherever it is.
const ALWAYS_EMERGENCY: [&str; 2] = ["112", "911"];

impl Table {
    /// Makes a plan fast. `domains` are the domains served here, the first being the default tenant's home.
    ///
    /// # Errors
    /// The first fault of the plan; [`Plan::check`] names all of them.
    pub fn compile(plan: &Plan, domains: &[String]) -> Result<Self, TableError> {
        plan.first_fault()?;
        let trunk_ids: HashMap<&str, TrunkId> =
            plan.trunks.iter().zip(0..).map(|(trunk, place)| (trunk.name.as_str(), TrunkId(place))).collect();
        let locations = places(plan.emergency.locations.iter().map(|location| location.name.as_str()));
        let tenants = tenants(plan, domains, &trunk_ids, &locations);
        let mut zones = Vec::new();
        let trunks =
            plan.trunks.iter().map(|trunk| trunk_entry(trunk, &mut zones)).collect::<Result<Vec<_>, _>>()?;
        let mut table = Self {
            names: tenants.iter().map(|tenant| Arc::clone(&tenant.name)).zip(0..).collect(),
            domains: domains_of(&tenants, plan),
            prefixes: prefixes(plan, &trunk_ids),
            trunks,
            aliases: HashMap::new(),
            own: own_prefixes(plan, &tenants),
            subscribers: subscribers(plan, &locations),
            numbers: HashMap::new(),
            blocks: BlockLists::default(),
            emergency: emergency(plan, &trunk_ids),
            fraud: plan.fraud.clone(),
            watched: DigitTrie::default(),
            networks: networks(plan, &trunk_ids),
            users: by_name(plan, &trunk_ids, |trunk| trunk.accept_users.clone()),
            tls_names: by_name(plan, &trunk_ids, |trunk| {
                trunk.accept_tls_names.iter().map(|name| name.to_ascii_lowercase()).collect()
            }),
            tenants,
            zones,
        };
        for prefix in &plan.fraud.watched_prefixes {
            table.watched.entry(prefix, || ());
        }
        table.add_aliases(plan);
        table.add_blocks(plan);
        Ok(table)
    }

    fn add_aliases(&mut self, plan: &Plan) {
        for alias in &plan.aliases {
            let Some((user, domain)) = alias.address.split_once('@') else { continue };
            let target = Target { user: user.into(), domain: domain.into() };
            if let Some(number) = Number::parse(&alias.number).filter(|_| alias.number.starts_with('+')) {
                self.aliases.insert(number, target);
                self.numbers.entry(alias.address.as_str().into()).or_insert(number);
            } else if let Some(tenant) = self.tenant_to_fill(alias.tenant.as_deref()) {
                tenant.aliases.insert(alias.number.as_str().into(), target);
            }
        }
    }

    fn add_blocks(&mut self, plan: &Plan) {
        for block in &plan.blocks {
            let lists = match &block.tenant {
                None => Some(&mut self.blocks),
                Some(name) => self.tenant_to_fill(Some(name)).map(|tenant| &mut tenant.blocks),
            };
            if let Some(lists) = lists {
                add_block(lists, block);
            }
        }
    }

    fn tenant_to_fill(&mut self, name: Option<&str>) -> Option<&mut TenantEntry> {
        let place = self.names.get(name?).copied()?;
        self.tenants.get_mut(usize::from(place))
    }
}

fn add_block(lists: &mut BlockLists, block: &Block) {
    let list = match block.side {
        Side::Caller => &mut lists.caller,
        Side::Called => &mut lists.called,
    };
    *list.entry(&block.prefix, || false) = !block.is_allowed;
}

fn places<'p>(names: impl Iterator<Item = &'p str>) -> HashMap<&'p str, u16> {
    names.zip(0..).collect()
}

/// The default tenant first, as the plan describes it or with nothing of its own.
fn tenants(
    plan: &Plan,
    domains: &[String],
    trunks: &HashMap<&str, TrunkId>,
    locations: &HashMap<&str, u16>,
) -> Vec<TenantEntry> {
    let unnamed = Tenant {
        name: DEFAULT_TENANT.to_owned(),
        domains: Vec::new(),
        dial: Default::default(),
        own_prefixes: Vec::new(),
        own_format: Default::default(),
        trunks: Vec::new(),
        order: Default::default(),
        outside: Default::default(),
        caller_number: None,
        concurrent_calls_max: 0,
        calls_per_second_max: 0,
        subscriber_concurrent_calls_max: 0,
        emergency_numbers: Vec::new(),
        location: None,
    };
    let default = plan.tenants.iter().find(|tenant| tenant.name == DEFAULT_TENANT).unwrap_or(&unnamed);
    let others = plan.tenants.iter().filter(|tenant| tenant.name != DEFAULT_TENANT);
    let home = domains.first().map_or("", String::as_str);
    let entry = |tenant: &Tenant| TenantEntry {
        name: tenant.name.as_str().into(),
        domain: tenant.domains.first().map_or(home, String::as_str).into(),
        dial: tenant.dial.clone(),
        own_format: tenant.own_format,
        trunks: (!tenant.trunks.is_empty()).then(|| ids(&tenant.trunks, trunks).into_iter().collect()),
        order: tenant.order,
        outside: tenant.outside,
        caller_number: tenant.caller_number.as_deref().and_then(Number::parse),
        limits: TenantLimits {
            concurrent_calls_max: tenant.concurrent_calls_max,
            calls_per_second_max: tenant.calls_per_second_max,
            subscriber_concurrent_calls_max: tenant.subscriber_concurrent_calls_max,
        },
        emergency_numbers: tenant.emergency_numbers.iter().map(|number| number.as_str().into()).collect(),
        location: tenant.location.as_deref().and_then(|name| locations.get(name)).copied(),
        aliases: HashMap::new(),
        blocks: BlockLists::default(),
    };
    std::iter::once(default).chain(others).map(entry).collect()
}

fn domains_of(tenants: &[TenantEntry], plan: &Plan) -> HashMap<Box<str>, u16> {
    let places: HashMap<&str, u16> = tenants.iter().map(|tenant| &*tenant.name).zip(0..).collect();
    plan.tenants
        .iter()
        .flat_map(|tenant| {
            let place = places.get(tenant.name.as_str()).copied().unwrap_or(0);
            tenant.domains.iter().map(move |domain| (domain.as_str().into(), place))
        })
        .collect()
}

fn ids(names: &[String], trunks: &HashMap<&str, TrunkId>) -> Vec<TrunkId> {
    names.iter().filter_map(|name| trunks.get(name.as_str()).copied()).collect()
}

fn trunk_entry(trunk: &Trunk, zones: &mut Vec<TimeZone>) -> Result<TrunkEntry, TableError> {
    let fault =
        |key: &str, message: String| TableError { key: format!("trunks.{}.{key}", trunk.name), message };
    let windows = Windows::compile(&trunk.windows).map_err(|(_, key, message)| fault(key, message))?;
    let zone = TimeZone::get(&trunk.time_zone).map_err(|error| fault("time_zone", error.to_string()))?;
    let place = zones.iter().position(|known| *known == zone).unwrap_or_else(|| {
        zones.push(zone);
        zones.len() - 1
    });
    Ok(TrunkEntry {
        name: trunk.name.as_str().into(),
        gateways: gateways(trunk),
        identity: trunk.identity,
        is_trusted: trunk.is_trusted,
        // A trunk without room is 503 as well, and the next one's turn.
        failover_codes: trunk.failover_codes.iter().copied().chain([503]).collect(),
        response_timeout_seconds: trunk.response_timeout_seconds,
        redirects_max: trunk.redirects_max,
        probe: trunk.probe,
        concurrent_calls_max: trunk.concurrent_calls_max,
        calls_per_second_max: trunk.calls_per_second_max,
        user: trunk.user.as_deref().map(Arc::from),
        is_transit: trunk.is_transit,
        is_last_resort: trunk.is_last_resort,
        serves_all: trunk.serves_all,
        cost: trunk.cost,
        priority: trunk.priority,
        weight: trunk.weight,
        dial: trunk.dial.clone(),
        format: trunk.format,
        strip_digits: usize::from(trunk.strip_digits),
        prepend: trunk.prepend.as_str().into(),
        windows,
        // At most one zone per trunk.
        zone: u16::try_from(place).unwrap_or(0),
    })
}

fn gateways(trunk: &Trunk) -> Vec<GatewayEntry> {
    let gateways = trunk.gateways.iter().filter_map(|gateway| {
        let (scheme, rest) = gateway.uri.split_once(':')?;
        let (priority, weight) = (gateway.priority, gateway.weight);
        Some(GatewayEntry { scheme: scheme.into(), rest: rest.into(), priority, weight })
    });
    gateways.collect()
}

fn prefixes(plan: &Plan, trunks: &HashMap<&str, TrunkId>) -> DigitTrie<Vec<Offer>> {
    let mut trie: DigitTrie<Vec<Offer>> = DigitTrie::default();
    let mut add = |trunk: &Trunk, row: &PrefixPlan| {
        let Some(id) = trunks.get(trunk.name.as_str()) else { return };
        let offer = Offer {
            trunk: *id,
            priority: row.priority.unwrap_or(trunk.priority),
            weight: row.weight.unwrap_or(trunk.weight),
            cost: row.cost,
        };
        trie.entry(&row.prefix, Vec::new).push(offer);
    };
    let by_name: HashMap<&str, &Trunk> =
        plan.trunks.iter().map(|trunk| (trunk.name.as_str(), trunk)).collect();
    for trunk in &plan.trunks {
        trunk.prefixes.iter().for_each(|row| add(trunk, row));
    }
    for row in &plan.prefixes {
        if let Some(trunk) = by_name.get(row.trunk.as_str()) {
            let (prefix, cost) = (row.prefix.clone(), row.cost);
            add(trunk, &PrefixPlan { prefix, cost, priority: row.priority, weight: row.weight });
        }
    }
    trie.shrink();
    trie
}

fn own_prefixes(plan: &Plan, tenants: &[TenantEntry]) -> DigitTrie<u16> {
    let places: HashMap<&str, u16> = tenants.iter().map(|tenant| &*tenant.name).zip(0..).collect();
    let mut trie = DigitTrie::default();
    for tenant in &plan.tenants {
        let place = places.get(tenant.name.as_str()).copied().unwrap_or(0);
        for prefix in &tenant.own_prefixes {
            trie.entry(prefix, || place);
        }
    }
    trie
}

fn subscribers(plan: &Plan, locations: &HashMap<&str, u16>) -> HashMap<Box<str>, SubscriberRules> {
    plan.subscribers
        .iter()
        .map(|subscriber| {
            let rules = SubscriberRules {
                number: subscriber.number.as_deref().and_then(Number::parse),
                concurrent_calls_max: subscriber.concurrent_calls_max,
                outside: subscriber.outside,
                location: subscriber.location.as_deref().and_then(|name| locations.get(name)).copied(),
            };
            (subscriber.address.as_str().into(), rules)
        })
        .collect()
}

fn emergency(plan: &Plan, trunks: &HashMap<&str, TrunkId>) -> EmergencyEntry {
    let plan = &plan.emergency;
    let location = |location: &crate::plan::Location| LocationEntry {
        name: location.name.as_str().into(),
        number: location.number.as_deref().map(Into::into),
        trunks: ids(&location.trunks, trunks),
    };
    EmergencyEntry {
        numbers: ALWAYS_EMERGENCY
            .into_iter()
            .chain(plan.numbers.iter().map(String::as_str))
            .map(Into::into)
            .collect(),
        trunks: ids(&plan.trunks, trunks),
        is_authenticated: plan.is_authenticated,
        calls_max: plan.calls_max,
        locations: plan.locations.iter().map(location).collect(),
    }
}

/// Longest prefixes first, so that the first that holds an address is the one that knows it best.
fn networks(plan: &Plan, trunks: &HashMap<&str, TrunkId>) -> Vec<(IpNet, TrunkId)> {
    let mut networks: Vec<(IpNet, TrunkId)> = plan
        .trunks
        .iter()
        .filter_map(|trunk| Some((trunk, *trunks.get(trunk.name.as_str())?)))
        .flat_map(|(trunk, id)| trunk.accept_networks.iter().map(move |network| (network.trunc(), id)))
        .collect();
    networks.sort_by_key(|(network, _)| std::cmp::Reverse(network.prefix_len()));
    networks
}

fn by_name(
    plan: &Plan,
    trunks: &HashMap<&str, TrunkId>,
    names: impl Fn(&Trunk) -> Vec<String>,
) -> HashMap<Box<str>, TrunkId> {
    let mut found = HashMap::new();
    for trunk in &plan.trunks {
        if let Some(id) = trunks.get(trunk.name.as_str()) {
            found.extend(names(trunk).into_iter().map(|name| (name.into(), *id)));
        }
    }
    found
}
