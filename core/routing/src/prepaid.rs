//! Calls that are paid for in advance: how much of an account's money a call may use up, and for how long.
//!
//! An [`Accounts`] holds what is known of every account: its balance by the ledger, what calls that are over will
//! still take from it (*owed*), and what calls that are up hold of it (*held*). What is left is free:
//!
//! ```text
//! free = balance - owed - held
//! ```
//!
//! A call may hold only what is free, and may talk only for the seconds that what it holds pays for. So concurrent calls
//! of one account never spend more than there is, whatever each of them does. A [`Credit`] is what one call holds: a
//! slice of seconds first, another slice ahead of its end, and so on; when the account has no whole slice left, all the
//! seconds that it can pay for, which are the last. A credit that is dropped gives everything back.
//!
//! A call that is over owes its price ([`Credit::owe`]) until the ledger says that it was charged
//! ([`Accounts::apply`] with the key of the call). The price is [`rating`](crate::rating)'s, by the same profile and version as the call is charged by
//! later, to the last digit. Free seconds of a profile are not for those who pay in advance: two calls at a time would
//! both count on them.
//!
//! Not here: files, clocks, SIP. Whole seconds since the answer come in and go out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::rating::{Call, Decimal, Error, RateTable};

const NANOS: u64 = 1_000_000_000;

/// What happened to an account, in the order of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Movement {
    /// Which account.
    pub account: String,
    /// Its currency.
    pub currency: String,
    /// What happened.
    pub kind: MovementKind,
    /// What it added to the balance; less than nothing for a charge.
    pub amount: Decimal,
    /// What it is known by: for a charge, the call.
    pub key: String,
}

/// What happened to an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MovementKind {
    /// It was opened.
    Open,
    /// It came in, or was corrected.
    Credit,
    /// A call was charged.
    Charge,
    /// It pays for no more calls.
    Block,
    /// It pays again.
    Unblock,
}

impl MovementKind {
    /// All.
    pub const ALL: [Self; 5] = [Self::Open, Self::Credit, Self::Charge, Self::Block, Self::Unblock];

    /// The name in the ledger.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Credit => "credit",
            Self::Charge => "charge",
            Self::Block => "block",
            Self::Unblock => "unblock",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// Where an account stands by the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its name.
    pub name: String,
    /// Its currency.
    pub currency: String,
    /// The sum of its movements.
    pub balance: Decimal,
    /// Whether it pays for nothing.
    pub is_blocked: bool,
}

/// How well an account is off, by what is free of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Nothing.
    Empty,
    /// Less than the threshold.
    Low,
    /// Enough.
    Funded,
}

/// How long a call may talk for what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Seconds that are paid for at a time.
    pub slice_seconds: u64,
    /// No call is longer; a number that costs nothing for so long is free.
    pub call_seconds_max: u64,
}

/// Why an account does not pay for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// Its money does not pay for the first increment.
    #[error("not enough credit")]
    NoCredit,
    /// It is blocked.
    #[error("the account is blocked")]
    Blocked,
    /// No profile has a price for the number in the account's currency.
    #[error("no price for this number")]
    NoPrice,
    /// Its balance is not known yet.
    #[error("the balance is not known yet")]
    NotReady,
}

impl Refusal {
    /// All.
    pub const ALL: [Self; 4] = [Self::NoCredit, Self::Blocked, Self::NoPrice, Self::NotReady];

    /// A bounded name for labels.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoCredit => "no_credit",
            Self::Blocked => "blocked",
            Self::NoPrice => "no_price",
            Self::NotReady => "not_ready",
        }
    }
}

/// What becomes of a call whose slice ends soon, or has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Renewal {
    /// It may talk for another slice.
    Extended,
    /// It may talk for as long as the money lasts, which is less than a slice.
    Last,
    /// It gets no more.
    Nothing,
}

/// All accounts that are known.
#[derive(Debug, Default)]
pub struct Accounts {
    accounts: HashMap<Box<str>, Shared>,
    is_ready: bool,
    /// How many were how well off when that was last told: empty, low, funded.
    counts: [usize; 3],
}

type Shared = Arc<Mutex<Account>>;

/// What is known of an account.
#[derive(Debug)]
struct Account {
    currency: String,
    balance: Decimal,
    is_blocked: bool,
    /// Prices of calls that are over and not yet in the ledger, by the key of the call.
    owed: HashMap<Box<str>, Decimal>,
    /// Their sum.
    owed_sum: Decimal,
    /// What calls that are up hold.
    held: Decimal,
    /// How well off it was when that was last told.
    told: Level,
}

impl Account {
    fn free(&self) -> Decimal {
        self.balance - self.owed_sum - self.held
    }
}

impl Accounts {
    /// Accounts of which only the names are known: they pay for nothing until [`open`](Self::open).
    #[must_use]
    pub fn named(names: impl IntoIterator<Item = String>) -> Self {
        let standing =
            |name| Standing { name, currency: String::new(), balance: Decimal::ZERO, is_blocked: false };
        let mut accounts = Self::default();
        names.into_iter().for_each(|name| accounts.put(standing(name)));
        accounts
    }

    /// It is known where every account stands, and what calls that are over still owe: account, key, price. Accounts with
    /// less than `low` run low.
    pub fn open(
        &mut self,
        standings: impl IntoIterator<Item = Standing>,
        owed: impl IntoIterator<Item = (String, String, Decimal)>,
        low: Decimal,
    ) {
        standings.into_iter().for_each(|standing| self.put(standing));
        for (account, key, price) in owed {
            if let Some(account) = self.accounts.get(account.as_str()) {
                owe(&mut lock(account), &key, price);
            }
        }
        self.is_ready = true;
        self.counts = [0; 3];
        for account in self.accounts.values() {
            let mut account = lock(account);
            account.told = level_of(account.free(), low);
            self.counts[account.told as usize] += 1;
        }
    }

    /// Whether balances are known.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.accounts.len()
    }

    /// Whether nobody pays in advance.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }

    /// The account that pays for a subscriber (`user@domain`) of a tenant, if one does: its own, or its tenant's.
    #[must_use]
    pub fn payer<'a>(&self, subscriber: &'a str, tenant: &'a str) -> Option<&'a str> {
        if self.accounts.is_empty() {
            return None;
        }
        [subscriber, tenant].into_iter().find(|name| self.accounts.contains_key(*name))
    }

    /// What is free of an account.
    #[must_use]
    pub fn free(&self, name: &str) -> Option<Decimal> {
        self.accounts.get(name).map(|account| lock(account).free())
    }

    /// The level to which an account has come since it was last asked for; `None` when that is the same, or balances
    /// are not known.
    #[must_use]
    pub fn level_changed(&mut self, name: &str, low: Decimal) -> Option<Level> {
        let mut account = lock(self.accounts.get(name).filter(|_| self.is_ready)?);
        let level = level_of(account.free(), low);
        let before = std::mem::replace(&mut account.told, level);
        self.counts[before as usize] = self.counts[before as usize].saturating_sub(1);
        self.counts[level as usize] += 1;
        (before != level).then_some(level)
    }

    /// How many accounts are how well off, as far as it was asked for: empty, low, funded.
    #[must_use]
    pub fn levels(&self) -> [usize; 3] {
        self.counts
    }

    /// The ledger has another movement. Each is applied once, in its order.
    pub fn apply(&mut self, movement: &Movement) {
        if !self.accounts.contains_key(movement.account.as_str()) {
            self.put(Standing {
                name: movement.account.clone(),
                currency: movement.currency.clone(),
                balance: Decimal::ZERO,
                is_blocked: false,
            });
        }
        let Some(account) = self.accounts.get(movement.account.as_str()) else { return };
        let mut account = lock(account);
        account.balance += movement.amount;
        match movement.kind {
            MovementKind::Charge => {
                if let Some(price) = account.owed.remove(movement.key.as_str()) {
                    account.owed_sum -= price;
                }
            }
            MovementKind::Block => account.is_blocked = true,
            MovementKind::Unblock => account.is_blocked = false,
            MovementKind::Open | MovementKind::Credit => {}
        }
    }

    /// Lets a call to this number hold its first slice, as if it were answered at this time; `None` when the number
    /// costs nothing for as long as a call may last.
    ///
    /// # Errors
    /// Why the account does not pay for it.
    pub fn authorise(
        &self,
        name: &str,
        table: Option<&Arc<RateTable>>,
        dialled: &str,
        unix_nanos: u64,
        terms: Terms,
    ) -> Result<Option<Credit>, Refusal> {
        let account = self.accounts.get(name).ok_or(Refusal::NoPrice)?;
        let unknown = if self.is_ready { Refusal::NoPrice } else { Refusal::NotReady };
        let table = table.ok_or(unknown)?;
        let quote =
            Quote { table: Arc::clone(table), dialled: dialled.into(), answer_unix_nanos: unix_nanos };
        let most = quote.price(terms.call_seconds_max).map_err(|_| Refusal::NoPrice)?;
        if most.is_zero() {
            return Ok(None);
        }
        if !self.is_ready {
            return Err(Refusal::NotReady);
        }
        {
            let known = lock(account);
            if known.is_blocked {
                return Err(Refusal::Blocked);
            }
            if known.currency != table.profile().currency {
                return Err(Refusal::NoPrice);
            }
        }
        let mut credit = Credit {
            account: Arc::clone(account),
            name: name.into(),
            quote,
            terms,
            held: Decimal::ZERO,
            seconds: 0,
        };
        match credit.renew() {
            Renewal::Nothing => Err(Refusal::NoCredit),
            Renewal::Extended | Renewal::Last => Ok(Some(credit)),
        }
    }

    fn put(&mut self, standing: Standing) {
        let Standing { name, currency, balance, is_blocked } = standing;
        if let Some(known) = self.accounts.get(name.as_str()) {
            let mut known = lock(known);
            known.currency = currency;
            known.balance = balance;
            known.is_blocked = is_blocked;
            return;
        }
        let account = Account {
            currency,
            balance,
            is_blocked,
            owed: HashMap::new(),
            owed_sum: Decimal::ZERO,
            held: Decimal::ZERO,
            told: Level::Funded,
        };
        self.accounts.insert(name.into(), Arc::new(Mutex::new(account)));
        self.counts[Level::Funded as usize] += 1;
    }
}

/// What a call costs by its length.
#[derive(Clone, Debug)]
struct Quote {
    table: Arc<RateTable>,
    dialled: Box<str>,
    answer_unix_nanos: u64,
}

impl Quote {
    /// The price of so many seconds.
    fn price(&self, seconds: u64) -> Result<Decimal, Error> {
        let end_unix_nanos = self.answer_unix_nanos.saturating_add(seconds.saturating_mul(NANOS));
        self.price_until(end_unix_nanos)
    }

    fn price_until(&self, end_unix_nanos: u64) -> Result<Decimal, Error> {
        let (dialled, answer_unix_nanos) = (&*self.dialled, self.answer_unix_nanos);
        let call = Call { dialled, answer_unix_nanos, end_unix_nanos, free_seconds_left: 0 };
        Ok(self.table.rate(call)?.price)
    }

    /// The most seconds of `0..=seconds_max` that this amount pays for, and what they cost. A price never falls with
    /// the length.
    fn affordable(&self, amount: Decimal, seconds_max: u64) -> Option<(u64, Decimal)> {
        let fits = |seconds: u64| self.price(seconds).ok().filter(|price| *price <= amount);
        if let Some(price) = fits(seconds_max) {
            return Some((seconds_max, price));
        }
        let (mut most, mut price) = (0, fits(0)?);
        let mut least_not = seconds_max;
        while least_not - most > 1 {
            let middle = most + (least_not - most) / 2;
            match fits(middle) {
                Some(cost) => (most, price) = (middle, cost),
                None => least_not = middle,
            }
        }
        Some((most, price))
    }
}

/// What one call holds of its account. Dropped, it gives that back.
#[derive(Debug)]
pub struct Credit {
    account: Shared,
    name: Box<str>,
    quote: Quote,
    terms: Terms,
    held: Decimal,
    /// What is held pays for so many seconds since the answer.
    seconds: u64,
}

impl Credit {
    /// The account's name.
    #[must_use]
    pub fn account(&self) -> &str {
        &self.name
    }

    /// Name and version of the profile that the call is charged by.
    #[must_use]
    pub fn profile(&self) -> (&str, u32) {
        let profile = self.quote.table.profile();
        (&profile.name, profile.version)
    }

    /// Since the answer, the call may talk for so many seconds.
    #[must_use]
    pub fn seconds(&self) -> u64 {
        self.seconds
    }

    /// What the call holds.
    #[must_use]
    pub fn held(&self) -> Decimal {
        self.held
    }

    /// The call was answered: what it may hold is counted anew, because another tariff may hold by now.
    pub fn answered(&mut self, unix_nanos: u64) -> Renewal {
        self.quote.answer_unix_nanos = unix_nanos;
        self.seconds = 0;
        self.extend()
    }

    /// Tries to pay for another slice.
    pub fn renew(&mut self) -> Renewal {
        self.extend()
    }

    /// The call is over at this time: what it costs is owed from now on, under this key, and the rest is free. Gives
    /// the price.
    pub fn owe(mut self, key: &str, end_unix_nanos: u64) -> Decimal {
        // Whoever cuts the call off keeps its end within what was paid; a price that cannot be counted is all of it.
        let price = self.quote.price_until(end_unix_nanos).unwrap_or(self.held);
        let mut account = lock(&self.account);
        account.held -= self.held;
        owe(&mut account, key, price);
        drop(account);
        self.held = Decimal::ZERO;
        price
    }

    /// Holds what pays for a slice more than now, or for as much as there is.
    fn extend(&mut self) -> Renewal {
        let wanted = (self.seconds + self.terms.slice_seconds.max(1)).min(self.terms.call_seconds_max);
        if self.seconds >= wanted {
            return Renewal::Nothing;
        }
        let mut account = lock(&self.account);
        // What it holds already is its own.
        let amount = account.free() + self.held;
        // Who has nothing does not talk either for as long as the price is rounded to nothing.
        if amount <= Decimal::ZERO {
            return Renewal::Nothing;
        }
        let Some((seconds, price)) = self.quote.affordable(amount, wanted) else {
            return Renewal::Nothing;
        };
        if seconds <= self.seconds || account.is_blocked {
            return Renewal::Nothing;
        }
        account.held += price - self.held;
        self.held = price;
        self.seconds = seconds;
        if seconds == wanted { Renewal::Extended } else { Renewal::Last }
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        lock(&self.account).held -= self.held;
    }
}

fn owe(account: &mut Account, key: &str, price: Decimal) {
    // What costs nothing is not in the ledger either.
    if price.is_zero() {
        return;
    }
    if let Some(before) = account.owed.insert(key.into(), price) {
        account.owed_sum -= before;
    }
    account.owed_sum += price;
}

fn level_of(free: Decimal, low: Decimal) -> Level {
    if free <= Decimal::ZERO {
        Level::Empty
    } else if free < low {
        Level::Low
    } else {
        Level::Funded
    }
}

/// Nobody panics while holding it.
fn lock(account: &Shared) -> MutexGuard<'_, Account> {
    account.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
