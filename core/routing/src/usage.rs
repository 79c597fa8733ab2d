//! Calls against limits: counted when a call is let in, given back when the last holder lets go, whatever the way.
//!
//! A [`Slot`] gives its place back when it is dropped, so that no end of a call can forget to. Counts belong to names,
//! not to tables: they go on when a table is swapped.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::decision::{Caller, Decision, Outcome, Reason};
use crate::table::Table;

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;
/// From so many subscribers on, those without calls are forgotten now and then.
const IDLE_MAX: usize = 4096;

/// One call's place in a count.
#[derive(Debug)]
pub struct Slot(Arc<AtomicU32>);

impl Slot {
    fn take(count: &Arc<AtomicU32>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A call that was let in: its places, given back when this is dropped.
#[derive(Debug, Default)]
#[must_use = "the call is only counted as long as this is held"]
pub struct Admitted {
    _slots: Vec<Slot>,
    /// Whether it passes every limit.
    pub is_emergency: bool,
}

/// A call's place on the trunk that it leaves by, given back when this is dropped.
#[derive(Debug)]
#[must_use = "the call is only counted as long as this is held"]
pub struct TrunkPass {
    /// The trunk's name.
    pub trunk: Arc<str>,
    _slot: Slot,
}

/// Why a trunk takes no call now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Full {
    /// As many calls as it may have.
    Calls,
    /// Calls come faster than they may.
    Rate,
    /// It is not in the table any more.
    Gone,
}

impl Full {
    /// A bounded name for labels.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Rate => "rate",
            Self::Gone => "gone",
        }
    }
}

/// All counts of a node.
#[derive(Debug, Default)]
pub struct Usage {
    trunks: HashMap<Arc<str>, Count>,
    tenants: HashMap<Arc<str>, Count>,
    subscribers: HashMap<Box<str>, Arc<AtomicU32>>,
    emergency: Arc<AtomicU32>,
    /// At how many subscribers the idle ones are looked for next.
    purge_at: usize,
}

#[derive(Debug, Default)]
struct Count {
    calls: Arc<AtomicU32>,
    rate: Rate,
}

/// A bucket that holds one second's worth of calls (the generic cell rate algorithm of ITU-T I.371).
#[derive(Debug, Default)]
struct Rate {
    /// When the bucket is full again, in nanoseconds.
    full_at: u64,
}

impl Rate {
    /// Whether one more may pass, without letting it.
    fn has_room(&self, per_second_max: u32, now_nanos: u64) -> bool {
        per_second_max == 0
            || self.full_at.max(now_nanos) + SECOND / u64::from(per_second_max) <= now_nanos + SECOND
    }

    /// Lets one pass.
    fn pass(&mut self, per_second_max: u32, now_nanos: u64) {
        if per_second_max > 0 {
            self.full_at = self.full_at.max(now_nanos) + SECOND / u64::from(per_second_max);
        }
    }
}

impl Usage {
    /// Lets a decided call in, or says whose limit is reached. Nothing is counted for a call that is refused.
    ///
    /// # Errors
    /// The limit that is reached.
    pub fn admit(
        &mut self,
        table: &Table,
        decision: &Decision,
        caller: Caller<'_>,
        now_nanos: u64,
    ) -> Result<Admitted, Reason> {
        let (subscriber, trunk) = match caller {
            Caller::Subscriber { user, domain } => (Some((user, domain)), None),
            Caller::Trunk { trunk, .. } => (None, table.trunk(trunk)),
        };
        let called = match &decision.outcome {
            Outcome::Local(local) => Some((local.user.as_str(), local.domain.as_str())),
            Outcome::Trunks(_) | Outcome::Refused(_) => None,
        };
        let limits = table.tenant_limits(&decision.tenant);
        let subscriber_slots: Vec<(Arc<AtomicU32>, u32, Reason)> =
            [(subscriber, Reason::SubscriberFull), (called, Reason::CalledFull)]
                .into_iter()
                .filter_map(|(who, reason)| {
                    let (user, domain) = who?;
                    let calls_max = table.subscriber_calls_max(user, domain);
                    Some((self.subscriber(user, domain, calls_max)?, calls_max, reason))
                })
                .collect();
        let tenant = self.tenants.entry(Arc::clone(&decision.tenant)).or_default();
        let mut trunk = trunk.map(|entry| (self.trunks.entry(Arc::clone(&entry.name)).or_default(), entry));
        if decision.is_emergency {
            if is_full(&self.emergency, table.emergency_calls_max()) {
                return Err(Reason::EmergencyFull);
            }
        } else {
            let full = subscriber_slots.iter().find(|(count, calls_max, _)| is_full(count, *calls_max));
            if let Some((_, _, reason)) = full {
                return Err(*reason);
            }
            if is_full(&tenant.calls, limits.concurrent_calls_max) {
                return Err(Reason::TenantFull);
            }
            if let Some((count, entry)) = &trunk {
                if is_full(&count.calls, entry.concurrent_calls_max) {
                    return Err(Reason::TrunkFull);
                }
                if !count.rate.has_room(entry.calls_per_second_max, now_nanos) {
                    return Err(Reason::TrunkRate);
                }
            }
            if !tenant.rate.has_room(limits.calls_per_second_max, now_nanos) {
                return Err(Reason::TenantRate);
            }
            tenant.rate.pass(limits.calls_per_second_max, now_nanos);
            if let Some((count, entry)) = &mut trunk {
                count.rate.pass(entry.calls_per_second_max, now_nanos);
            }
        }
        let mut slots = vec![Slot::take(&tenant.calls)];
        slots.extend(trunk.map(|(count, _)| Slot::take(&count.calls)));
        slots.extend(subscriber_slots.iter().map(|(count, _, _)| Slot::take(count)));
        slots.extend(decision.is_emergency.then(|| Slot::take(&self.emergency)));
        Ok(Admitted { _slots: slots, is_emergency: decision.is_emergency })
    }

    /// Takes a place on a trunk for a call that is about to leave by it.
    ///
    /// # Errors
    /// Why the trunk takes no call now; an emergency call is only refused by a trunk that is gone.
    pub fn enter_trunk(
        &mut self,
        table: &Table,
        trunk: &str,
        is_emergency: bool,
        now_nanos: u64,
    ) -> Result<TrunkPass, Full> {
        // By name: the table may have been swapped since the way was decided.
        let entry = table.trunk_named(trunk).ok_or(Full::Gone)?;
        let count = self.trunks.entry(Arc::clone(&entry.name)).or_default();
        if !is_emergency {
            if is_full(&count.calls, entry.concurrent_calls_max) {
                return Err(Full::Calls);
            }
            if !count.rate.has_room(entry.calls_per_second_max, now_nanos) {
                return Err(Full::Rate);
            }
            count.rate.pass(entry.calls_per_second_max, now_nanos);
        }
        Ok(TrunkPass { trunk: Arc::clone(&entry.name), _slot: Slot::take(&count.calls) })
    }

    /// Calls on a trunk now, both ways.
    #[must_use]
    pub fn trunk_calls(&self, name: &str) -> u32 {
        self.trunks.get(name).map_or(0, |count| count.calls.load(Ordering::Relaxed))
    }

    /// Calls of a tenant now.
    #[must_use]
    pub fn tenant_calls(&self, name: &str) -> u32 {
        self.tenants.get(name).map_or(0, |count| count.calls.load(Ordering::Relaxed))
    }

    /// Calls of a subscriber now, as caller or called; only counted for those who have a limit.
    #[must_use]
    pub fn subscriber_calls(&self, user: &str, domain: &str) -> u32 {
        let found = self.subscribers.get(format!("{user}@{domain}").as_str());
        found.map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Whether nothing is counted: every call has given back what it held.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let is_zero = |count: &Arc<AtomicU32>| count.load(Ordering::Relaxed) == 0;
        self.trunks.values().chain(self.tenants.values()).all(|count| is_zero(&count.calls))
            && self.subscribers.values().all(is_zero)
            && is_zero(&self.emergency)
    }

    /// The count of a subscriber who has a limit.
    fn subscriber(&mut self, user: &str, domain: &str, calls_max: u32) -> Option<Arc<AtomicU32>> {
        if calls_max == 0 {
            return None;
        }
        if self.subscribers.len() >= self.purge_at.max(IDLE_MAX) {
            // As many as have calls stay, so that this is linear over time, and bounded by the calls.
            self.subscribers.retain(|_, count| Arc::strong_count(count) > 1);
            self.purge_at = self.subscribers.len() * 2;
        }
        Some(Arc::clone(self.subscribers.entry(format!("{user}@{domain}").into()).or_default()))
    }
}

fn is_full(count: &AtomicU32, calls_max: u32) -> bool {
    calls_max > 0 && count.load(Ordering::Relaxed) >= calls_max
}

#[cfg(test)]
mod tests;
