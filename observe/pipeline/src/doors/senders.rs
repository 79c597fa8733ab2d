//! Who sends how much: one account for each address, bounded in number, and one name for each configured sender.
//!
//! Addresses never become labels. A sender has a name of its own in the metrics when the configuration gives it one;
//! everybody else is `other`. The accounts by address are for people who ask.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use belfry_signal::Pii;
use foldhash::HashMap;

use super::config::SenderConfig;
use super::refusal::{Reason, Refusal};

belfry_signal::label_name! {
    /// A sender that the configuration names; `other` for all the rest.
    pub(crate) struct SenderName("sender", max = 33)
}

/// What one address sent since it was first seen, or since its account was closed for room.
#[derive(Clone, Debug, PartialEq)]
pub struct SenderAccount {
    /// Whose.
    pub address: Pii<IpAddr>,
    /// Its configured name, or `other`.
    pub name: String,
    /// Records and series points that were stored.
    pub stored: u64,
    /// Records that were refused.
    pub refused: u64,
    /// Bytes that came, as they came.
    pub bytes: u64,
}

#[derive(Debug)]
struct Account {
    stored: u64,
    refused: u64,
    bytes: u64,
    /// Records that it may send at once, and when that was so.
    allowance: f64,
    at: Instant,
}

/// All accounts. Two generations: when the young one is full it becomes the old one, and what was not seen since goes.
#[derive(Debug)]
pub(crate) struct Senders {
    named: Vec<(SenderConfig, SenderName)>,
    other: SenderName,
    records_per_second_max: f64,
    accounts_max: usize,
    accounts: Mutex<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<IpAddr, Account>,
    old: HashMap<IpAddr, Account>,
}

impl Senders {
    /// `named` have been checked; a name that is none is left out, and its senders are `other`.
    pub(crate) fn new(
        named: &[SenderConfig],
        records_per_second_max: u64,
        accounts_max: usize,
    ) -> Option<Self> {
        let configured =
            |sender: &SenderConfig| Some((sender.clone(), SenderName::configured(&sender.name).ok()?));
        Some(Self {
            named: named.iter().filter_map(configured).collect(),
            other: SenderName::configured("other").ok()?,
            records_per_second_max: rate(records_per_second_max),
            accounts_max: accounts_max.max(2),
            accounts: Mutex::default(),
        })
    }

    /// The name for labels.
    pub(crate) fn name(&self, address: IpAddr) -> &SenderName {
        self.of(address).map_or(&self.other, |(_, name)| name)
    }

    fn of(&self, address: IpAddr) -> Option<&(SenderConfig, SenderName)> {
        self.named.iter().find(|(sender, _)| sender.networks.iter().any(|network| network.contains(&address)))
    }

    /// Takes so many records off the sender's allowance.
    pub(crate) fn allow(&self, address: IpAddr, records: usize, now: Instant) -> Result<(), Refusal> {
        let own = self.of(address).and_then(|(sender, _)| sender.records_per_second_max).map(rate);
        let rate = own.unwrap_or(self.records_per_second_max);
        if rate == 0.0 {
            return Ok(());
        }
        #[expect(clippy::cast_precision_loss, reason = "counts of records in one request")]
        let wanted = records as f64;
        self.with(address, now, |account| {
            let seconds = now.saturating_duration_since(account.at).as_secs_f64();
            account.allowance = (account.allowance + seconds * rate).min(rate);
            account.at = now;
            // A request larger than a second's worth is taken when the allowance is whole, and paid for afterwards.
            if account.allowance < wanted.min(rate) {
                let text = format!("more than {rate} records a second come from this address");
                return Err(Refusal::new(Reason::Rate, text));
            }
            account.allowance -= wanted;
            Ok(())
        })
    }

    pub(crate) fn stored(&self, address: IpAddr, records: usize, now: Instant) {
        self.with(address, now, |account| account.stored += records as u64);
    }

    pub(crate) fn refused(&self, address: IpAddr, records: usize, now: Instant) {
        self.with(address, now, |account| account.refused += records as u64);
    }

    pub(crate) fn received(&self, address: IpAddr, bytes: usize, now: Instant) {
        self.with(address, now, |account| account.bytes += bytes as u64);
    }

    /// The accounts, who sent most bytes first.
    pub(crate) fn top(&self, count: usize) -> Vec<SenderAccount> {
        let accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = |(address, account): (&IpAddr, &Account)| SenderAccount {
            address: Pii::new(*address),
            name: self.name(*address).as_str().to_owned(),
            stored: account.stored,
            refused: account.refused,
            bytes: account.bytes,
        };
        let mut all: Vec<_> = accounts.young.iter().chain(&accounts.old).map(shown).collect();
        all.sort_by_key(|account| std::cmp::Reverse(account.bytes));
        all.truncate(count);
        all
    }

    fn with<T>(&self, address: IpAddr, now: Instant, change: impl FnOnce(&mut Account) -> T) -> T {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let Generations { young, old } = &mut *accounts;
        if young.len() >= self.accounts_max / 2 && !young.contains_key(&address) {
            *old = std::mem::take(young);
        }
        let account = young.entry(address).or_insert_with(|| {
            let fresh = Account { stored: 0, refused: 0, bytes: 0, allowance: f64::INFINITY, at: now };
            old.remove(&address).unwrap_or(fresh)
        });
        change(account)
    }
}

#[expect(clippy::cast_precision_loss, reason = "rates of records")]
fn rate(records: u64) -> f64 {
    records as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn address(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from(number).into()
    }

    #[test]
    fn accounts_are_bounded_and_the_busy_ones_stay() {
        let senders = Senders::new(&[], 0, 100).expect("good names");
        let now = Instant::now();
        for number in 0..10_000 {
            senders.received(address(number), 10, now);
            senders.received(address(7_000_000), 1, now);
        }
        let top = senders.top(1000);
        assert!(top.len() <= 100, "{}", top.len());
        assert_eq!(top[0].bytes, 10_000, "who is seen all the time keeps his account");
    }

    #[test]
    fn each_address_has_its_rate_and_named_ones_their_own() {
        let web = SenderConfig {
            name: "web".to_owned(),
            networks: vec!["10.0.0.0/8".parse().expect("a network")],
            records_per_second_max: Some(1000),
        };
        let senders = Senders::new(&[web], 10, 100).expect("good names");
        let (stranger, known) = (address(1), address(0x0a00_0001));
        let now = Instant::now();
        assert_eq!(senders.name(known).as_str(), "web");
        assert_eq!(senders.name(stranger).as_str(), "other");
        assert!(senders.allow(stranger, 10, now).is_ok());
        assert_eq!(senders.allow(stranger, 1, now).map_err(|refusal| refusal.reason), Err(Reason::Rate));
        assert!(senders.allow(known, 900, now).is_ok());
        assert!(senders.allow(stranger, 5, now + Duration::from_millis(500)).is_ok());
        // More than a second's worth at once passes when nothing is owed, and is owed then.
        assert!(senders.allow(stranger, 50, now + Duration::from_secs(10)).is_ok());
        assert!(senders.allow(stranger, 1, now + Duration::from_secs(13)).is_err());
        assert!(senders.allow(stranger, 1, now + Duration::from_secs(16)).is_ok());
    }
}
