//! What a page may say. Everything here is a closed vocabulary, a configured name or a number.

use std::fmt;

use belfry_signal::{Cause, Journey, Region, Room};
use sha2::{Digest, Sha256};

use crate::notice::GroupNotice;

belfry_signal::label_enum! {
    /// The alerts that Belfry ships. Each has a runbook of its name.
    pub enum AlertName("alert") {
        /// Registrations fail faster than their budget allows.
        RegisterBudgetBurn = "RegisterBudgetBurn",
        /// Calls fail to be set up faster than their budget allows.
        CallSetupBudgetBurn = "CallSetupBudgetBurn",
        /// Legs sound bad more often than their budget allows.
        MediaQualityBudgetBurn = "MediaQualityBudgetBurn",
        /// HTTPS requests fail faster than their budget allows.
        EdgeHttpBudgetBurn = "EdgeHttpBudgetBurn",
        /// An SLO of the operator's own goes faster than its budget allows.
        SloBudgetBurn = "SloBudgetBurn",
        /// Always fires; its absence means that nobody judges.
        Watchdog = "Watchdog",
    }
}

belfry_signal::label_name! {
    /// An SLO's name from the rules.
    pub struct SloName("slo", max = 64)
}

/// How many examples a page links to.
pub const EXAMPLES_MAX: usize = 3;

/// An opaque handle to one page: a hash, so that it says nothing about whom the page is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PageId(u64);

/// What ties a resolve to its trigger at the service: stable for an alert of an SLO in a region of a site.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DedupKey(String);

/// The numbers behind a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetFigures {
    /// What was promised, in parts per million.
    pub objective_ppm: u32,
    /// The length of the window that the next three are about.
    pub window_seconds: u64,
    /// Bad events in the window.
    pub bad_events: u64,
    /// All events in the window.
    pub events: u64,
    /// How many times the allowed rate the window burns, in thousandths.
    pub burn_milli: u64,
    /// What is left of the period's budget, in parts per million; below zero is overdrawn.
    pub budget_remaining_ppm: i64,
}

/// Everything that on-call is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The page on our own site.
    pub id: PageId,
    /// Ties the resolve to the trigger.
    pub dedup_key: DedupKey,
    /// Which alert.
    pub alert: AlertName,
    /// Which SLO of those that may raise it; a configured name.
    pub slo: Option<SloName>,
    /// What customers cannot do.
    pub journey: Journey,
    /// Where it is worst.
    pub region: Region,
    /// Everywhere that it is bad, that region included.
    pub regions: Vec<Region>,
    /// The room at fault.
    pub room: Room,
    /// Why events were bad, and how many each.
    pub causes: Vec<(Cause, u64)>,
    /// How many examples our page shows; at most [`EXAMPLES_MAX`] are linked.
    pub examples: usize,
    /// When it began, in nanoseconds since the epoch.
    pub started_unix_nanos: u64,
    /// The numbers.
    pub budget: BudgetFigures,
}

/// What [`crate::NotifyHandle::enqueue`] takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notification {
    /// An alert began.
    Trigger(Box<Page>),
    /// It ended. It goes to those who were told that it began, and to nobody else.
    Resolve {
        /// The page that ended.
        id: PageId,
        /// The key that its trigger carried.
        dedup_key: DedupKey,
    },
    /// A group of alerts began, changed or ended.
    Notice(Box<GroupNotice>),
}

impl PageId {
    /// The handle of the page of this alert that began at this time.
    #[must_use]
    pub fn of(dedup_key: &DedupKey, started_unix_nanos: u64) -> Self {
        let mut hash = Sha256::new();
        hash.update(dedup_key.0.as_bytes());
        hash.update(started_unix_nanos.to_be_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&hash.finalize()[..8]);
        Self(u64::from_be_bytes(first))
    }
}

impl fmt::Display for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl DedupKey {
    /// The key of an alert: a hash of configured names, so that its length is fixed (64 of the 255 allowed).
    #[must_use]
    pub fn of(site: &str, slo: &str, region: &Region) -> Self {
        let mut hash = Sha256::new();
        for part in [site, slo, region.as_str()] {
            // The length first, so that no two lists of names run together to the same bytes.
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        Self(hex::encode(hash.finalize()))
    }

    /// The key as it goes out.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for DedupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(name: &str) -> Region {
        Region::configured(name).expect("plain")
    }

    #[test]
    fn keys_are_stable_distinct_and_short() {
        let key = DedupKey::of("site-1", "call_setup", &region("eu"));
        assert_eq!(key, DedupKey::of("site-1", "call_setup", &region("eu")));
        assert_eq!(key.as_str().len(), 64);
        for other in [
            DedupKey::of("site-2", "call_setup", &region("eu")),
            DedupKey::of("site-1", "register", &region("eu")),
            DedupKey::of("site-1", "call_setup", &region("us")),
            DedupKey::of("site-1call", "_setup", &region("eu")),
        ] {
            assert_ne!(key, other);
        }
    }

    #[test]
    fn handles_are_short_distinct_and_hashed() {
        let key = DedupKey::of("s", "call_setup", &region("eu"));
        let id = PageId::of(&key, 1_795_163_417_000_000_000);
        assert_eq!(id.to_string().len(), 16);
        assert_eq!(id, PageId::of(&key, 1_795_163_417_000_000_000));
        assert_ne!(id, PageId::of(&key, 1_795_163_418_000_000_000));
    }
}
