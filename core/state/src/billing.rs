//! Billing in the store: what calls cost, by which profile, and how many free seconds are used.
//!
//! State knows no tariffs: it keeps profiles as text, and prices as others made them.

use serde::{Deserialize, Serialize};

use crate::accounts::{AccountChange, Debit};
use crate::error::Error;
use crate::record::CallRecord;

/// What a call costs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// The price as an exact decimal.
    pub price: String,
    /// The currency's code.
    pub currency: String,
    /// The profile.
    pub profile: String,
    /// Its version.
    pub profile_version: u32,
    /// The destination's name in it.
    pub destination: String,
    /// Seconds that were charged.
    pub charged_seconds: u64,
    /// Those of them that free seconds paid for.
    pub free_seconds: u64,
    /// The first day of the period that they were taken from, when there were any to take.
    pub free_period: Option<String>,
}

/// How rating a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RatingOutcome {
    /// It has a price.
    Rated,
    /// Its caller has no profile.
    NoProfile,
    /// The profile has no destination for the number.
    NoDestination,
    /// The price cannot be counted.
    TooLarge,
    /// The store refused the rating, or the account its charge: it is set aside, and owed, until it is rated again.
    Refused,
}

impl RatingOutcome {
    /// The name in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rated => "rated",
            Self::NoProfile => "no_profile",
            Self::NoDestination => "no_destination",
            Self::TooLarge => "too_large",
            Self::Refused => "refused",
        }
    }
}

/// A call that waits to be rated.
#[derive(Clone, Debug, PartialEq)]
pub struct Unrated {
    /// The row.
    pub id: i64,
    /// The call.
    pub record: CallRecord,
}

/// The rating of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rating {
    /// The row.
    pub id: i64,
    /// Who pays: whose free seconds are used.
    pub caller: String,
    /// How it ended.
    pub outcome: RatingOutcome,
    /// The price, when there is one.
    pub charge: Option<Charge>,
    /// What an account pays for it.
    pub debit: Option<Debit>,
}

/// What came of a change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changed {
    /// How many rows it is about.
    pub(crate) rows: u64,
    /// Ratings that were refused one by one: the row of the call, and why.
    pub(crate) refused: Vec<(i64, Error)>,
}

impl Changed {
    pub(crate) fn rows(rows: u64) -> Self {
        Self { rows, refused: Vec::new() }
    }
}

/// A version of a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileDocument {
    /// The profile.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// What the operator wrote.
    pub document: String,
}

/// A change of what bills are made from.
#[derive(Clone, Debug)]
pub(crate) enum BillingChange {
    /// Calls have their ratings.
    Rate(Vec<Rating>),
    /// Calls that ended in this time are to be rated again: first, and the one after the last.
    Forget { from_unix_nanos: u64, to_unix_nanos: u64 },
    /// A new version of a profile.
    Profile(ProfileDocument),
    /// An account changes.
    Account(AccountChange),
    /// Who is billed by it; `None` takes the assignment back.
    Assign { address: String, profile: Option<String> },
}
