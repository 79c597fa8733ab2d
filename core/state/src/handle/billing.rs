//! Billing and the pages of call records, for whoever rates, lists or exports.

use std::collections::HashMap;

use belfry_signal::Registry;
use tokio::sync::oneshot;

use super::State;
use crate::billing::{BillingChange, Changed, ProfileDocument, Rating, RatingOutcome, Unrated};
use crate::bindings::prepare;
use crate::config::Config;
use crate::database::{self, Write};
use crate::error::Error;
use crate::record::{CallRecord, RecordPage};
use crate::signals::Signals;

/// The database of a state alone: for commands that run beside a process that has the rest of it.
#[derive(Clone, Debug)]
pub struct Ledger {
    pub(super) readers: sqlx::SqlitePool,
    writes: tokio::sync::mpsc::Sender<Write>,
    signals: Signals,
}

impl Ledger {
    /// Opens the database, which several processes may share.
    ///
    /// # Errors
    /// When the folder or the database cannot be used.
    pub async fn open(config: &Config, registry: &Registry) -> Result<Self, Error> {
        prepare(&config.directory)?;
        let signals = Signals::register(registry);
        let (readers, writes, _) = database::open(config, signals.clone()).await?;
        Ok(Self { readers, writes, signals })
    }

    /// Calls that wait to be rated, in the order in which they came.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn unrated_calls(&self, limit: u32) -> Result<Vec<Unrated>, Error> {
        database::unrated(&self.readers, limit).await
    }

    /// Free seconds that a caller has used of a profile's in a period.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn free_seconds_used(&self, caller: &str, profile: &str, period: &str) -> Result<u64, Error> {
        database::free_seconds_used(&self.readers, caller, profile, period).await
    }

    /// Writes ratings; a call that somebody else has rated meanwhile keeps its own. One that is refused alone is set aside
    /// ([`RatingOutcome::Refused`]) and told. How many were written or set aside.
    ///
    /// # Errors
    /// When the database refuses: then none was written.
    pub async fn put_ratings(&self, ratings: Vec<Rating>) -> Result<u64, Error> {
        let mut outcomes: HashMap<_, _> = ratings.iter().map(|rating| (rating.id, rating.outcome)).collect();
        let changed = self.change_all(BillingChange::Rate(ratings)).await?;
        for (id, error) in &changed.refused {
            outcomes.insert(*id, RatingOutcome::Refused);
            self.signals.rating_refused(*id, error);
        }
        self.signals.calls_rated(outcomes.into_values());
        Ok(changed.rows)
    }

    /// Takes the ratings of calls back that ended in `from..to`, with the free seconds that they used: they are to be
    /// rated again. How many there are.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn forget_ratings(&self, from_unix_nanos: u64, to_unix_nanos: u64) -> Result<u64, Error> {
        self.change(BillingChange::Forget { from_unix_nanos, to_unix_nanos }).await
    }

    /// Adds a version of a profile; whether it was new.
    ///
    /// # Errors
    /// [`Error::ProfileChanged`] when the version is there with another text.
    pub async fn put_profile(&self, profile: ProfileDocument) -> Result<bool, Error> {
        Ok(self.change(BillingChange::Profile(profile)).await? > 0)
    }

    /// All versions of all profiles, by name and version.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn profiles(&self) -> Result<Vec<ProfileDocument>, Error> {
        database::profiles(&self.readers).await
    }

    /// The newest version of each profile.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn newest_profiles(&self) -> Result<Vec<(String, u32)>, Error> {
        database::newest_profiles(&self.readers).await
    }

    /// What a version of a profile says.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn profile(&self, name: &str, version: u32) -> Result<Option<String>, Error> {
        database::profile(&self.readers, name, version).await
    }

    /// Bills an address (`user@domain` or `domain`) by a profile, or by none of its own. Whether that changed anything.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn assign_profile(&self, address: &str, profile: Option<&str>) -> Result<bool, Error> {
        let (address, profile) = (address.to_owned(), profile.map(str::to_owned));
        Ok(self.change(BillingChange::Assign { address, profile }).await? > 0)
    }

    /// Who is billed by which profile.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn assignments(&self) -> Result<Vec<(String, String)>, Error> {
        database::assignments(&self.readers).await
    }

    /// Records that ended in the page's time, in the order of their ends, and the page that goes on after them.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn records(&self, page: &RecordPage) -> Result<(Vec<CallRecord>, Option<RecordPage>), Error> {
        database::record_page(&self.readers, page).await
    }

    pub(super) async fn change(&self, change: BillingChange) -> Result<u64, Error> {
        Ok(self.change_all(change).await?.rows)
    }

    async fn change_all(&self, change: BillingChange) -> Result<Changed, Error> {
        let (waiting, answer) = oneshot::channel();
        self.writes.send(Write::Billing(Box::new(change), waiting)).await.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)?
    }
}

impl State {
    /// The database alone.
    ///
    /// # Errors
    /// [`Error::Closed`] when state is closing.
    pub fn ledger(&self) -> Result<Ledger, Error> {
        let writes = self.writes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let writes = writes.as_ref().ok_or(Error::Closed)?.clone();
        Ok(Ledger { readers: self.readers.clone(), writes, signals: self.signals.clone() })
    }
}
