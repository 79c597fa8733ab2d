//! Accounts that pay in advance, and the ledger of what came and went.
//!
//! A balance is the sum of its movements and is written in the transaction that adds one. Every movement has a key, so
//! that doing it again changes nothing: a call is charged by its record's own identity, in the transaction that rates
//! the record. What calls that are up hold of an account is in the memory of their core, and gone with it.

use belfry_signal::Pii;
use rust_decimal::Decimal;

use crate::error::Error;
use crate::record::CallRecord;

/// Digits of an amount after the point.
const DECIMALS_MAX: u32 = 12;
/// No amount is larger.
const AMOUNT_MAX: i64 = 1_000_000_000_000;
/// Bytes of names, keys and notes.
const TEXT_BYTES_MAX: usize = 256;

/// An account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// `user@domain`, or a tenant's name.
    pub name: Pii<String>,
    /// The currency's code.
    pub currency: String,
    /// The sum of its movements.
    pub balance: Decimal,
    /// Whether it pays for nothing.
    pub is_blocked: bool,
    /// When it was opened.
    pub opened_unix_nanos: u64,
}

/// What came to an account, or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Movement {
    /// Its place in the ledger of all accounts.
    pub id: i64,
    /// The account.
    pub account: Pii<String>,
    /// The account's currency.
    pub currency: String,
    /// `open`, `credit`, `charge`, `block`, `unblock`.
    pub kind: String,
    /// What it added to the balance.
    pub amount: Decimal,
    /// The balance after it.
    pub balance_after: Decimal,
    /// What it is known by.
    pub key: Pii<String>,
    /// What somebody wrote beside it.
    pub note: Option<String>,
    /// When.
    pub unix_nanos: u64,
}

/// Everything that a core must know of accounts before it lets a call in, as of one moment.
#[derive(Clone, Debug, Default)]
pub struct AccountsSnapshot {
    /// All accounts.
    pub accounts: Vec<Account>,
    /// The last movement that their balances hold.
    pub last_movement: i64,
    /// Answered calls that are not rated yet: what they cost is not in the balances.
    pub unrated: Vec<CallRecord>,
}

/// The charge of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debit {
    /// Who pays.
    pub account: String,
    /// The call.
    pub key: String,
    /// How much.
    pub amount: Decimal,
    /// In which currency.
    pub currency: String,
}

/// A change of an account.
#[derive(Clone, Debug)]
pub(crate) enum AccountChange {
    Open { name: String, currency: String },
    Credit { name: String, amount: Decimal, key: String, note: Option<String> },
    Block { name: String, is_blocked: bool },
}

impl CallRecord {
    /// What a charge of this call is known by: the identity of its record.
    #[must_use]
    pub fn charge_key(&self) -> String {
        format!("call:{}:{}:{}", self.epoch, self.from_tag, self.call_id.reveal())
    }
}

/// An amount as it may stand in the ledger.
///
/// # Errors
/// [`Error::BadAccount`] when it has more digits, or is larger, than any money.
pub(crate) fn check_amount(amount: Decimal) -> Result<(), Error> {
    if amount.scale() > DECIMALS_MAX || amount.abs() > Decimal::from(AMOUNT_MAX) {
        return Err(Error::BadAccount(format!(
            "{amount}: an amount has at most {DECIMALS_MAX} digits after the point, and is at most {AMOUNT_MAX}"
        )));
    }
    Ok(())
}

/// A text as it may stand in the ledger.
///
/// # Errors
/// [`Error::BadAccount`] when it is empty or too long.
pub(crate) fn check_text(what: &str, text: &str) -> Result<(), Error> {
    if text.is_empty() || text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(Error::BadAccount(format!("{what}: use 1 to {TEXT_BYTES_MAX} bytes of plain text")));
    }
    Ok(())
}
