//! Accounts that pay in advance: where balances and prices come from.
//!
//! The core holds what is known of every account in memory ([`Accounts`]). A task of its own reads it from the store
//! when the core starts, after every call of before has its record there, and follows the ledger from then on: top-ups
//! of operators and charges of calls come by it. Who pays in advance is known from the beginning; how much there is, a
//! moment later, and until then calls that cost something are refused.
//!
//! Not here: how much a call may hold (`belfry_routing::prepaid`), and what becomes of it (`calls/paying`).

mod signals;

use std::sync::Arc;
use std::time::Duration;

use belfry_routing::prepaid::{Accounts, Movement, MovementKind, Standing};
use belfry_routing::rating::{Call, Decimal, Profile, RateTable, Tariffs};
use belfry_state::{CallRecord, Ledger, State};
use tokio::sync::mpsc;

use crate::core::{Control, Core};
pub(crate) use signals::{ChargeOutcome, PrepaidSignals, Renewed};

/// Prices are looked at once in so many looks at the ledger: they change less often than balances, and are more to read.
const LOOKS_PER_TARIFFS: u32 = 10;

/// Movements that are read at a time.
const MOVEMENTS_PER_READ: u32 = 1_000;

/// Who pays in advance, and by which prices.
#[derive(Debug, Default)]
pub struct Prepaid {
    names: Vec<String>,
    tariffs: Tariffs,
}

/// Why balances or prices are not known.
#[derive(Debug, thiserror::Error)]
pub enum PrepaidError {
    /// The store cannot be read.
    #[error("accounts: {0}")]
    Store(#[from] belfry_state::Error),
    /// Records of calls are still on their way to the database.
    #[error("accounts: call records are not in the database yet")]
    Records,
    /// A billing profile cannot be used.
    #[error("billing profile {name:?} version {version}: {fault}")]
    Profile {
        /// Its name.
        name: String,
        /// Its version.
        version: u32,
        /// What is wrong.
        fault: String,
    },
}

impl PrepaidError {
    /// A bounded name for labels.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Store(_) => "store",
            Self::Records => "records",
            Self::Profile { .. } => "profile",
        }
    }
}

impl Prepaid {
    /// Reads who pays in advance. Who has no billing profile of its own is billed by `default_profile`.
    ///
    /// # Errors
    /// When the store cannot be read, or a billing profile cannot be used.
    pub async fn load(default_profile: Option<String>, state: &State) -> Result<Self, PrepaidError> {
        let ledger = state.ledger()?;
        let names = ledger.account_names().await?;
        let mut tariffs = Tariffs { default: default_profile, ..Tariffs::default() };
        if !names.is_empty() {
            refresh(&mut tariffs, &ledger).await?;
        }
        Ok(Self { names, tariffs })
    }

    pub(crate) fn accounts(&self) -> Accounts {
        Accounts::named(self.names.iter().cloned())
    }

    pub(crate) fn tariffs(&self) -> Arc<Tariffs> {
        Arc::new(self.tariffs.clone())
    }
}

/// What the core learns of accounts.
#[derive(Debug)]
pub(crate) enum News {
    /// Where all stand, and what calls owe whose charge is not in the ledger: account, key, price.
    Opened { standings: Vec<Standing>, owed: Vec<(String, String, Decimal)> },
    /// The ledger has more.
    Moved(Vec<Movement>),
    /// Other prices.
    Tariffs(Arc<Tariffs>),
}

/// Follows the ledger.
#[derive(Debug)]
pub(crate) struct Follower {
    state: State,
    tariffs: Tariffs,
    /// The last movement that the core knows; `None` until balances are known.
    last_movement: Option<i64>,
    has_accounts: bool,
    looks: u32,
    signals: PrepaidSignals,
    /// Weak, so that a core whose handles are gone still ends.
    core: mpsc::WeakSender<Control>,
}

impl Follower {
    pub(crate) fn new(
        prepaid: Prepaid,
        state: State,
        signals: PrepaidSignals,
        core: mpsc::WeakSender<Control>,
    ) -> Self {
        let has_accounts = !prepaid.names.is_empty();
        Self { state, tariffs: prepaid.tariffs, last_movement: None, has_accounts, looks: 0, signals, core }
    }

    /// Runs until the core is gone.
    pub(crate) async fn run(mut self, interval: Duration) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_failing = false;
        loop {
            ticks.tick().await;
            if self.core.upgrade().is_none() {
                return;
            }
            let outcome = self.look().await;
            match &outcome {
                Err(error) => self.signals.following_failed(error, is_failing),
                Ok(()) if is_failing => self.signals.following_went_on(),
                Ok(()) => {}
            }
            is_failing = outcome.is_err();
        }
    }

    async fn look(&mut self) -> Result<(), PrepaidError> {
        let ledger = self.state.ledger()?;
        let is_turn = self.looks.is_multiple_of(LOOKS_PER_TARIFFS);
        self.looks = self.looks.wrapping_add(1);
        if self.has_accounts && is_turn && refresh(&mut self.tariffs, &ledger).await? {
            self.tell(News::Tariffs(Arc::new(self.tariffs.clone()))).await;
        }
        let Some(mut last) = self.last_movement else { return self.open(&ledger).await };
        loop {
            let movements = ledger.movements_after(last, MOVEMENTS_PER_READ).await?;
            let Some(newest) = movements.last().map(|movement| movement.id) else { return Ok(()) };
            if !std::mem::replace(&mut self.has_accounts, true) {
                refresh(&mut self.tariffs, &ledger).await?;
                self.tell(News::Tariffs(Arc::new(self.tariffs.clone()))).await;
            }
            self.tell(News::Moved(movements.iter().map(moved).collect())).await;
            last = newest;
            self.last_movement = Some(last);
        }
    }

    /// Reads where every account stands, once all calls of before have their records in the database.
    async fn open(&mut self, ledger: &Ledger) -> Result<(), PrepaidError> {
        if self.has_accounts && !self.state.books().settle().await {
            return Err(PrepaidError::Records);
        }
        let snapshot = ledger.accounts_snapshot().await?;
        // What the database refuses is not charged yet either. One that is in both is owed once, by its key.
        let set_aside = self.state.books().set_aside().await?;
        let mut owed = Vec::with_capacity(snapshot.unrated.len());
        for record in snapshot.unrated.iter().chain(&set_aside) {
            owed.extend(self.owed(ledger, record).await?);
        }
        let standings = snapshot.accounts.into_iter().map(|account| Standing {
            name: account.name.reveal().clone(),
            currency: account.currency,
            balance: account.balance,
            is_blocked: account.is_blocked,
        });
        let standings: Vec<Standing> = standings.collect();
        if !std::mem::replace(&mut self.has_accounts, !standings.is_empty()) && self.has_accounts {
            refresh(&mut self.tariffs, ledger).await?;
            self.tell(News::Tariffs(Arc::new(self.tariffs.clone()))).await;
        }
        self.signals.opened(standings.len(), owed.len());
        self.tell(News::Opened { standings, owed }).await;
        self.last_movement = Some(snapshot.last_movement);
        Ok(())
    }

    /// What an unrated call will be charged, by the version of the profile that it was let in by.
    async fn owed(
        &self,
        ledger: &Ledger,
        record: &CallRecord,
    ) -> Result<Option<(String, String, Decimal)>, PrepaidError> {
        let (Some(prepaid), Some(answer_unix_nanos)) = (&record.prepaid, record.answer_unix_nanos) else {
            return Ok(None);
        };
        let (name, version) = (&prepaid.profile, prepaid.profile_version);
        let newest = self.tariffs.tables.get(name).filter(|table| table.profile().version == version);
        let table = match newest {
            Some(table) => Arc::clone(table),
            None => match table_of(ledger, name, version).await? {
                Some(table) => table,
                None => return Ok(None),
            },
        };
        let end_unix_nanos = record.end_unix_nanos;
        let call =
            Call { dialled: record.dialled(), answer_unix_nanos, end_unix_nanos, free_seconds_left: 0 };
        // What has no price is not charged.
        let price = table.rate(call).ok().map(|rated| rated.price);
        Ok(price.map(|price| (prepaid.account.reveal().clone(), record.charge_key(), price)))
    }

    async fn tell(&self, news: News) {
        // A core that is gone needs no news.
        if let Some(core) = self.core.upgrade() {
            let _ = core.send(Control::Accounts(Box::new(news))).await;
        }
    }
}

fn moved(movement: &belfry_state::Movement) -> Movement {
    Movement {
        account: movement.account.reveal().clone(),
        currency: movement.currency.clone(),
        kind: MovementKind::named(&movement.kind).unwrap_or(MovementKind::Credit),
        amount: movement.amount,
        key: movement.key.reveal().clone(),
    }
}

/// Learns of new versions of profiles and of assignments; whether anything changed.
async fn refresh(tariffs: &mut Tariffs, ledger: &Ledger) -> Result<bool, PrepaidError> {
    let mut is_changed = false;
    for (name, version) in ledger.newest_profiles().await? {
        if tariffs.tables.get(&name).is_some_and(|table| table.profile().version == version) {
            continue;
        }
        if let Some(table) = table_of(ledger, &name, version).await? {
            tariffs.tables.insert(name, table);
            is_changed = true;
        }
    }
    let assignments = ledger.assignments().await?.into_iter().collect();
    if tariffs.assignments != assignments {
        tariffs.assignments = assignments;
        is_changed = true;
    }
    Ok(is_changed)
}

async fn table_of(ledger: &Ledger, name: &str, version: u32) -> Result<Option<Arc<RateTable>>, PrepaidError> {
    let fault = |fault: String| PrepaidError::Profile { name: name.to_owned(), version, fault };
    let Some(document) = ledger.profile(name, version).await? else { return Ok(None) };
    let profile: Profile = toml::from_str(&document).map_err(|error| fault(error.to_string()))?;
    let table = RateTable::new(profile).map_err(|error| fault(error.to_string()))?;
    Ok(Some(Arc::new(table)))
}

impl Core {
    /// The follower has news of accounts.
    pub(crate) fn on_account_news(&mut self, news: News) {
        match news {
            News::Opened { standings, owed } => {
                self.accounts.open(standings, owed, self.config.prepaid.low_balance);
                self.report_accounts();
            }
            News::Tariffs(tariffs) => self.tariffs = tariffs,
            News::Moved(movements) => {
                for movement in movements {
                    self.accounts.apply(&movement);
                    self.tell_level(&movement.account);
                }
            }
        }
    }

    /// Tells that an account runs low, is empty, or has money again.
    pub(crate) fn tell_level(&mut self, account: &str) {
        let low = self.config.prepaid.low_balance;
        if let Some(level) = self.accounts.level_changed(account, low) {
            self.signals.prepaid.level_reached(level, account);
        }
    }

    /// How accounts are off, for the gauges.
    pub(crate) fn report_accounts(&self) {
        self.signals.prepaid.levels(self.accounts.levels(), self.accounts.is_ready());
    }
}
