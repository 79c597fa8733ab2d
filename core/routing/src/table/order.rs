//! Which trunks, in which order.

use super::{Offer, Table, TenantEntry, TrunkEntry};
use crate::cost::Cost;
use crate::decision::{Explain, Hop, Question, TrunkId};
use crate::number::Number;
use crate::plan::Order;
use crate::window::minute_of_week;

/// Ways that one call may try; a caller does not wait for more.
pub(crate) const HOPS_MAX: usize = 32;

/// A trunk that would take the call.
struct Candidate<'t> {
    id: TrunkId,
    entry: &'t TrunkEntry,
    cost: Cost,
    priority: u16,
    /// Its place among equals: lower is first.
    lot: f64,
    prefix_length: usize,
}

impl Table {
    /// The ways to a number, most wanted first.
    pub(super) fn hops(
        &self,
        question: &Question<'_>,
        tenant: &TenantEntry,
        number: &Number,
        caller: Option<&Number>,
        from: Option<TrunkId>,
        explain: &mut impl Explain,
    ) -> Vec<Hop> {
        let offers = self.offers(number);
        let mut candidates = Vec::new();
        for (place, entry) in (0..).zip(&self.trunks) {
            let id = TrunkId(place);
            let offer = offers.get(usize::from(place)).copied().flatten();
            let against = if from == Some(id) {
                Some("the call came from it".to_owned())
            } else if tenant.trunks.as_ref().is_some_and(|allowed| !allowed.contains(&id)) {
                Some(format!("tenant {} may not use it", tenant.name))
            } else {
                self.against(entry, offer, question.unix_seconds)
            };
            if let Some(against) = against {
                explain.step("trunk", || format!("{}: {against}", entry.name));
                continue;
            }
            let (prefix_length, offer) = match offer {
                Some((length, offer)) => (length, offer),
                None => (0, own_offer(id, entry)),
            };
            let cost = offer.cost.unwrap_or(entry.cost);
            explain.step("trunk", || {
                let (name, priority, weight) = (&entry.name, offer.priority, offer.weight);
                let matched = &number.digits()[..prefix_length];
                let last = if entry.is_last_resort { "; last resort" } else { "" };
                format!("{name}: prefix {matched:?}, cost {cost}, priority {priority}, weight {weight}{last}")
            });
            let lot = lot(question.random, place, offer.weight);
            candidates.push(Candidate { id, entry, cost, priority: offer.priority, lot, prefix_length });
        }
        candidates.sort_by(|one, other| compare(one, other, tenant.order));
        let mut hops = Vec::new();
        for candidate in &candidates {
            push_hops(candidate, question.random, &mut hops, |entry| Written {
                called: written(entry, number),
                caller: caller.map(|caller| entry.format.write(caller, &entry.dial)),
            });
        }
        explain_order(self, &hops, explain);
        hops
    }

    /// The ways for somebody who calls for help: neither hours nor costs nor limits count.
    pub(super) fn emergency_hops(
        &self,
        question: &Question<'_>,
        dialled: &str,
        caller: Option<&Number>,
        trunks: &[TrunkId],
        explain: &mut impl Explain,
    ) -> Vec<Hop> {
        let mut ids: Vec<TrunkId> = if trunks.is_empty() {
            let mut all: Vec<(bool, u16, u16)> = Vec::with_capacity(self.trunks.len());
            all.extend(
                self.trunks
                    .iter()
                    .zip(0..)
                    .map(|(entry, place)| (entry.is_last_resort, entry.priority, place)),
            );
            all.sort_unstable();
            all.into_iter().map(|(_, _, place)| TrunkId(place)).collect()
        } else {
            trunks.to_vec()
        };
        // A call that came from a trunk does not go back there.
        if let crate::decision::Caller::Trunk { trunk, .. } = question.caller {
            ids.retain(|id| *id != trunk);
        }
        let mut hops = Vec::new();
        for id in ids {
            let Some(entry) = self.trunk(id) else { continue };
            let (cost, priority, lot) = (entry.cost, entry.priority, 0.0);
            let candidate = Candidate { id, entry, cost, priority, lot, prefix_length: 0 };
            push_hops(&candidate, question.random, &mut hops, |entry| Written {
                called: dialled.to_owned(),
                caller: caller.map(|caller| entry.format.write(caller, &entry.dial)),
            });
        }
        explain_order(self, &hops, explain);
        hops
    }

    /// Per trunk, what its longest matching prefix asks for.
    fn offers(&self, number: &Number) -> Vec<Option<(usize, Offer)>> {
        let mut offers = vec![None; self.trunks.len()];
        // Longer prefixes come later and stand over shorter ones.
        for (length, found) in self.prefixes.prefixes(number.digits()) {
            for offer in found {
                if let Some(place) = offers.get_mut(usize::from(offer.trunk.0)) {
                    *place = Some((length, *offer));
                }
            }
        }
        offers
    }

    /// What speaks against a trunk.
    fn against(
        &self,
        entry: &TrunkEntry,
        offer: Option<(usize, Offer)>,
        unix_seconds: i64,
    ) -> Option<String> {
        if entry.gateways.is_empty() {
            return Some("has no gateway".to_owned());
        }
        match offer {
            Some((_, Offer { cost: None, .. })) => return Some("does not serve this prefix".to_owned()),
            None if !entry.serves_all => return Some("serves none of the number's prefixes".to_owned()),
            Some(_) | None => {}
        }
        if entry.windows.are_always() {
            return None;
        }
        let zone = self.zones.get(usize::from(entry.zone))?;
        let minute = minute_of_week(unix_seconds, zone);
        (!entry.windows.contain(minute)).then(|| "is closed at this hour".to_owned())
    }
}

fn own_offer(trunk: TrunkId, entry: &TrunkEntry) -> Offer {
    Offer { trunk, priority: entry.priority, weight: entry.weight, cost: Some(entry.cost) }
}

fn compare(one: &Candidate<'_>, other: &Candidate<'_>, order: Order) -> std::cmp::Ordering {
    let last = one.entry.is_last_resort.cmp(&other.entry.is_last_resort);
    let by_cost = match order {
        Order::LeastCost => one.cost.cmp(&other.cost),
        Order::Priority => std::cmp::Ordering::Equal,
    };
    last.then(by_cost).then(one.priority.cmp(&other.priority)).then(one.lot.total_cmp(&other.lot))
}

/// Numbers as one trunk wants them.
struct Written {
    called: String,
    caller: Option<String>,
}

fn push_hops(
    candidate: &Candidate<'_>,
    random: u64,
    hops: &mut Vec<Hop>,
    write: impl Fn(&TrunkEntry) -> Written,
) {
    let entry = candidate.entry;
    let mut gateways: Vec<(u16, f64, u8)> = entry
        .gateways
        .iter()
        .zip(0..)
        .map(|(gateway, place)| (gateway.priority, lot(!random, u16::from(place), gateway.weight), place))
        .collect();
    gateways.sort_by(|one, other| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)));
    for (_, _, gateway) in gateways {
        if hops.len() >= HOPS_MAX {
            return;
        }
        let Written { called, caller } = write(entry);
        hops.push(Hop {
            trunk: candidate.id,
            gateway,
            called,
            caller,
            cost: candidate.cost,
            prefix_length: u8::try_from(candidate.prefix_length).unwrap_or(u8::MAX),
        });
    }
}

/// The number as a trunk wants it: formatted, cut, prefixed.
fn written(entry: &TrunkEntry, number: &Number) -> String {
    let formatted = entry.format.write(number, &entry.dial);
    if entry.strip_digits == 0 && entry.prepend.is_empty() {
        return formatted;
    }
    let (sign, digits) = formatted.strip_prefix('+').map_or(("", formatted.as_str()), |digits| ("+", digits));
    let cut = digits.get(entry.strip_digits..).unwrap_or_default();
    let sign = if entry.strip_digits > 0 || !entry.prepend.is_empty() { "" } else { sign };
    format!("{sign}{}{cut}", entry.prepend)
}

/// A lot whose order among others picks each first with the probability of its weight: the arrival times of Poisson
/// processes (Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006).
fn lot(random: u64, place: u16, weight: u16) -> f64 {
    if weight == 0 {
        return f64::INFINITY;
    }
    // splitmix64 (Steele, Lea and Flood, 2014), so that one random number gives every trunk its own.
    let mut mixed = random.wrapping_add(0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(u64::from(place) + 1));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^= mixed >> 31;
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    let uniform = ((mixed >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
    -uniform.ln() / f64::from(weight)
}

fn explain_order(table: &Table, hops: &[Hop], explain: &mut impl Explain) {
    for (place, hop) in (1..).zip(hops) {
        explain.step("way", || {
            let (name, gateway) = table.trunk(hop.trunk).map_or(("", String::new()), |entry| {
                let gateway = entry.gateways.get(usize::from(hop.gateway));
                (&*entry.name, gateway.map(super::GatewayEntry::uri).unwrap_or_default())
            });
            let caller = hop.caller.as_deref().unwrap_or("nobody");
            format!("{place}. {name} {gateway}: {} from {caller}, cost {}", hop.called, hop.cost)
        });
    }
}
