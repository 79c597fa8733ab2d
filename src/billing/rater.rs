//! Rates calls of the store, in order.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Context;
use belfry_routing::rating::{Call, Decimal, Error, RateTable, Tariffs};
use belfry_state::{Charge, Debit, Ledger, Prepaid, Rating, RatingOutcome, Unrated};

/// Profiles and who is billed by them, as they are now.
pub(super) struct Rater {
    ledger: Ledger,
    tariffs: Tariffs,
    /// Older versions by which calls were let in that were paid for in advance.
    versions: HashMap<(String, u32), Arc<RateTable>>,
}

/// Older versions that are remembered.
const VERSIONS_MAX: usize = 64;

/// Free seconds that were used: by caller, profile and period.
type Used = HashMap<(String, String, String), u64>;

impl Rater {
    /// Reads profiles and assignments.
    pub(super) async fn load(ledger: &Ledger, default: Option<String>) -> anyhow::Result<Self> {
        let tariffs = Tariffs { default, ..Tariffs::default() };
        let mut rater = Self { ledger: ledger.clone(), tariffs, versions: HashMap::new() };
        rater.refresh().await?;
        Ok(rater)
    }

    /// Learns what has changed; a profile is read when it has a new version.
    pub(super) async fn refresh(&mut self) -> anyhow::Result<()> {
        for (name, version) in self.ledger.newest_profiles().await? {
            let known = self.tariffs.tables.get(&name);
            if known.is_some_and(|table| table.profile().version == version) {
                continue;
            }
            let Some(document) = self.ledger.profile(&name, version).await? else { continue };
            let read = super::read(&document)
                .with_context(|| format!("billing profile {name} version {version}"))?;
            self.tariffs.tables.insert(name, Arc::new(RateTable::new(read)?));
        }
        self.tariffs.assignments = self.ledger.assignments().await?.into_iter().collect();
        Ok(())
    }

    /// Whether there is nothing to rate by.
    pub(super) fn is_empty(&self) -> bool {
        self.tariffs.tables.is_empty()
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

    async fn rate(&mut self, call: Unrated, used: &mut Used) -> anyhow::Result<Rating> {
        let Unrated { id, record } = call;
        let caller = record.caller.reveal().clone();
        let not = |outcome| Rating { id, caller: caller.clone(), outcome, charge: None, debit: None };
        let table = match &record.prepaid {
            Some(prepaid) => self.version(prepaid).await?,
            None => self.tariffs.of(&caller).cloned(),
        };
        let Some(table) = table else { return Ok(not(RatingOutcome::NoProfile)) };
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
        let Some(answer_unix_nanos) = record.answer_unix_nanos.filter(|_| !record.is_emergency) else {
            let charge = Some(charge("0".to_owned()));
            return Ok(Rating { charge, ..not(RatingOutcome::Rated) });
        };
        // Free seconds are not for those who pay in advance.
        let period = table.free_period(answer_unix_nanos).filter(|_| record.prepaid.is_none());
        let period = period.map(|date| date.to_string());
        let key = period.as_ref().map(|period| (caller.clone(), profile.name.clone(), period.clone()));
        let free_seconds_left = match (&key, profile.free) {
            (Some(key), Some(free)) => free.seconds.saturating_sub(self.used(key, used).await?),
            _ => 0,
        };
        let dialled = record.dialled();
        let end_unix_nanos = record.end_unix_nanos;
        let rated = match table.rate(Call { dialled, answer_unix_nanos, end_unix_nanos, free_seconds_left }) {
            Ok(rated) => rated,
            Err(Error::NoDestination) => return Ok(not(RatingOutcome::NoDestination)),
            Err(_) => return Ok(not(RatingOutcome::TooLarge)),
        };
        if let Some(key) = key {
            *used.entry(key).or_default() += rated.free_seconds;
        }
        let debit = record.prepaid.as_ref().filter(|_| rated.price > Decimal::ZERO).map(|prepaid| Debit {
            account: prepaid.account.reveal().clone(),
            key: record.charge_key(),
            amount: rated.price,
            currency: profile.currency.clone(),
        });
        let charge = Charge {
            destination: rated.destination,
            charged_seconds: rated.charged_seconds,
            free_seconds: rated.free_seconds,
            free_period: period,
            ..charge(rated.price.to_string())
        };
        Ok(Rating { charge: Some(charge), debit, ..not(RatingOutcome::Rated) })
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

    /// The version of a profile by which a call was let in; `None` when nobody has it any more.
    async fn version(&mut self, prepaid: &Prepaid) -> anyhow::Result<Option<Arc<RateTable>>> {
        let (name, version) = (&prepaid.profile, prepaid.profile_version);
        let newest = self.tariffs.tables.get(name).filter(|table| table.profile().version == version);
        if let Some(table) = newest.or_else(|| self.versions.get(&(name.clone(), version))) {
            return Ok(Some(Arc::clone(table)));
        }
        let Some(document) = self.ledger.profile(name, version).await? else { return Ok(None) };
        let table = Arc::new(RateTable::new(super::read(&document)?)?);
        if self.versions.len() >= VERSIONS_MAX {
            self.versions.clear();
        }
        self.versions.insert((name.clone(), version), Arc::clone(&table));
        Ok(Some(table))
    }
}

#[cfg(test)]
mod tests;
