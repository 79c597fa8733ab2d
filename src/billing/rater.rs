//! Rates calls of the store, in order.

use std::collections::{BTreeMap, HashMap};

use anyhow::Context;
use belfry_routing::rating::{Call, Error, RateTable};
use belfry_state::{CallRecord, Charge, Ledger, Rating, RatingOutcome, Unrated};

/// Profiles and who is billed by them, as they are now.
pub(super) struct Rater {
    ledger: Ledger,
    /// The newest version of each profile.
    tables: BTreeMap<String, RateTable>,
    assignments: HashMap<String, String>,
    default: Option<String>,
}

/// Free seconds that were used: by caller, profile and period.
type Used = HashMap<(String, String, String), u64>;

impl Rater {
    /// Reads profiles and assignments.
    pub(super) async fn load(ledger: &Ledger, default: Option<String>) -> anyhow::Result<Self> {
        let ledger = ledger.clone();
        let mut rater = Self { ledger, tables: BTreeMap::new(), assignments: HashMap::new(), default };
        rater.refresh().await?;
        Ok(rater)
    }

    /// Learns what has changed; a profile is read when it has a new version.
    pub(super) async fn refresh(&mut self) -> anyhow::Result<()> {
        for (name, version) in self.ledger.newest_profiles().await? {
            if self.tables.get(&name).is_some_and(|table| table.profile().version == version) {
                continue;
            }
            let Some(document) = self.ledger.profile(&name, version).await? else { continue };
            let read = super::read(&document)
                .with_context(|| format!("billing profile {name} version {version}"))?;
            self.tables.insert(name, RateTable::new(read)?);
        }
        self.assignments = self.ledger.assignments().await?.into_iter().collect();
        Ok(())
    }

    /// Whether there is nothing to rate by.
    pub(super) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Rates the next calls; how many.
    pub(super) async fn step(&mut self, limit: u32) -> anyhow::Result<u64> {
        let unrated = self.ledger.unrated_calls(limit).await?;
        let mut used = Used::new();
        let mut ratings = Vec::with_capacity(unrated.len());
        for call in unrated {
            ratings.push(self.rate(call, &mut used).await?);
        }
        if ratings.is_empty() {
            return Ok(0);
        }
        Ok(self.ledger.put_ratings(ratings).await?)
    }

    async fn rate(&self, call: Unrated, used: &mut Used) -> anyhow::Result<Rating> {
        let Unrated { id, record } = call;
        let caller = record.caller.reveal().clone();
        let not = |outcome| Rating { id, caller: caller.clone(), outcome, charge: None };
        let Some(table) = self.table_of(&caller) else { return Ok(not(RatingOutcome::NoProfile)) };
        let profile = table.profile();
        let charge = |price: String| Charge {
            price,
            currency: profile.currency.clone(),
            profile: profile.name.clone(),
            profile_version: profile.version,
            destination: String::new(),
            charged_seconds: 0,
            free_seconds: 0,
            free_period: None,
        };
        let Some(answer_unix_nanos) = record.answer_unix_nanos else {
            let charge = Some(charge("0".to_owned()));
            return Ok(Rating { charge, ..not(RatingOutcome::Rated) });
        };
        let period = table.free_period(answer_unix_nanos).map(|date| date.to_string());
        let key = period.as_ref().map(|period| (caller.clone(), profile.name.clone(), period.clone()));
        let free_seconds_left = match (&key, profile.free) {
            (Some(key), Some(free)) => free.seconds.saturating_sub(self.used(key, used).await?),
            _ => 0,
        };
        let dialled = dialled(&record);
        let end_unix_nanos = record.end_unix_nanos;
        let rated = match table.rate(Call { dialled, answer_unix_nanos, end_unix_nanos, free_seconds_left }) {
            Ok(rated) => rated,
            Err(Error::NoDestination) => return Ok(not(RatingOutcome::NoDestination)),
            Err(_) => return Ok(not(RatingOutcome::TooLarge)),
        };
        if let Some(key) = key {
            *used.entry(key).or_default() += rated.free_seconds;
        }
        let charge = Charge {
            destination: rated.destination,
            charged_seconds: rated.charged_seconds,
            free_seconds: rated.free_seconds,
            free_period: period,
            ..charge(rated.price.to_string())
        };
        Ok(Rating { charge: Some(charge), ..not(RatingOutcome::Rated) })
    }

    /// Free seconds used before this call, those of its own batch included.
    async fn used(&self, key: &(String, String, String), used: &mut Used) -> anyhow::Result<u64> {
        if let Some(used) = used.get(key) {
            return Ok(*used);
        }
        let (caller, profile, period) = key;
        let stored = self.ledger.free_seconds_used(caller, profile, period).await?;
        used.insert(key.clone(), stored);
        Ok(stored)
    }

    /// The profile of an address: its own, its domain's, or the one of all others.
    fn table_of(&self, caller: &str) -> Option<&RateTable> {
        let address = caller.split_once(':').map_or(caller, |(_, address)| address).to_ascii_lowercase();
        let domain = address.split_once('@').map_or(address.as_str(), |(_, domain)| domain);
        let own = self.assignments.get(&address).or_else(|| self.assignments.get(domain));
        self.tables.get(own.or(self.default.as_ref())?)
    }
}

/// The number that was dialled: the user part of the called address, or the number of a `tel:` URI.
fn dialled(record: &CallRecord) -> &str {
    let callee = record.callee.reveal();
    let address = callee.split_once(':').map_or(callee.as_str(), |(_, address)| address);
    address.split(['@', ';']).next().unwrap_or(address)
}

#[cfg(test)]
mod tests;
