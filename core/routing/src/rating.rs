//! What a call costs: billing profiles, and the price of a call by one of them.
//!
//! Everything that may be argued about is a rule here:
//!
//! - A call lasts from its answer to its end; a begun second counts whole. A call that was not answered costs nothing.
//! - The destination is the longest prefix of the dialled number.
//! - An increment is charged whole, at the tariff in force when it begins, in the profile's time zone. The first
//!   increment of a call is the initial one of its tariff; every other is a following one of the tariff then in force.
//! - Free seconds pay for charged seconds, the earliest first; an increment that they pay for in part is charged for the
//!   rest of its seconds. They never pay for connection fees.
//! - The connection fee is that of the tariff in force at the answer, and so is the minimum charge: a call that costs
//!   more than nothing costs at least that.
//! - Sums are exact; only the price of the call is rounded, once, by the profile's rule.
//!
//! [`Profile`] is what an operator writes, [`RateTable`] what it is made ready into. Decimals are `rust_decimal`, times
//! `jiff` with its own copy of the time zone database, so that a price does not depend on the host.

mod charge;
mod document;
mod hours;
mod tariffs;

use std::collections::HashMap;

use jiff::tz::TimeZone;
use rust_decimal::RoundingStrategy;

pub use charge::{Call, Part, Rated};
pub use document::{FreePeriod, FreeSeconds, Profile, Rounding};
pub use rust_decimal::Decimal;
pub use tariffs::Tariffs;

use document::Destination;
use hours::Hours;

/// Digits of an E.164 number and some for access codes.
const PREFIX_DIGITS_MAX: usize = 24;

/// Why a profile cannot be used, or a call not rated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The profile has a fault.
    #[error("{place}: {fault}")]
    Profile {
        /// Where, as `destinations[3].tariffs[0].from`.
        place: String,
        /// What is wrong and what is allowed.
        fault: String,
    },
    /// No prefix of the profile is one of the number.
    #[error("the profile has no destination for this number")]
    NoDestination,
    /// Price or duration are beyond what can be counted exactly.
    #[error("the price of the call cannot be counted")]
    TooLarge,
}

impl Error {
    /// A bounded name for labels.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Profile { .. } => "profile",
            Self::NoDestination => "no_destination",
            Self::TooLarge => "too_large",
        }
    }
}

/// A billing profile made ready.
#[derive(Clone, Debug)]
pub struct RateTable {
    profile: Profile,
    zone: TimeZone,
    /// Index into the profile's destinations, by prefix.
    prefixes: HashMap<Box<str>, usize>,
    longest: usize,
    /// The hours of each tariff, by destination.
    hours: Vec<Vec<Hours>>,
    internal: Option<usize>,
}

impl RateTable {
    /// Makes a profile ready.
    ///
    /// # Errors
    /// The first fault of the profile.
    pub fn new(profile: Profile) -> Result<Self, Error> {
        let fault =
            |place: &str, fault: &str| Error::Profile { place: place.to_owned(), fault: fault.to_owned() };
        if profile.name.is_empty() || profile.name.len() > 64 {
            return Err(fault("name", "use 1 to 64 characters"));
        }
        let is_code = profile.currency.len() == 3 && profile.currency.bytes().all(|b| b.is_ascii_uppercase());
        if !is_code {
            return Err(fault("currency", "use a code of ISO 4217, as \"EUR\""));
        }
        if profile.decimals > 12 {
            return Err(fault("decimals", "use 0 to 12"));
        }
        let zone = jiff::tz::TimeZoneDatabase::bundled()
            .get(&profile.time_zone)
            .map_err(|_| fault("time_zone", "use a name of the IANA database, as \"Europe/Vienna\""))?;
        let mut table =
            Self { zone, prefixes: HashMap::new(), longest: 0, hours: Vec::new(), internal: None, profile };
        for index in 0..table.profile.destinations.len() {
            table.add(index)?;
        }
        if table.hours.is_empty() {
            return Err(fault("destinations", "list at least one"));
        }
        Ok(table)
    }

    /// The profile as it was written.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    fn add(&mut self, index: usize) -> Result<(), Error> {
        let Some(destination) = self.profile.destinations.get(index) else { return Ok(()) };
        let place = format!("destinations[{index}]");
        let fault = |key: &str, fault: String| Error::Profile { place: format!("{place}.{key}"), fault };
        for prefix in &destination.prefixes {
            let digits = prefix.strip_prefix('+').unwrap_or(prefix);
            if prefix == Destination::INTERNAL {
                if self.internal.replace(index).is_some() {
                    return Err(fault("prefixes", "\"internal\" stands twice in the profile".to_owned()));
                }
                continue;
            }
            if digits.len() > PREFIX_DIGITS_MAX || !digits.bytes().all(|b| b.is_ascii_digit()) {
                let text = format!("{prefix:?}: use digits, \"\" for all numbers, or \"internal\"");
                return Err(fault("prefixes", text));
            }
            if self.prefixes.insert(digits.into(), index).is_some() {
                return Err(fault("prefixes", format!("{prefix:?} stands twice in the profile")));
            }
            self.longest = self.longest.max(digits.len());
        }
        let mut hours = Vec::with_capacity(destination.tariffs.len());
        for (number, tariff) in destination.tariffs.iter().enumerate() {
            let place = format!("{place}.tariffs[{number}]");
            tariff
                .check()
                .map_err(|(key, fault)| Error::Profile { place: format!("{place}.{key}"), fault })?;
            hours.push(Hours::new(tariff).map_err(|fault| Error::Profile { place, fault })?);
        }
        if hours.last().is_none_or(|last| !last.is_always()) {
            return Err(fault(
                "tariffs",
                "the last tariff must hold always: give it no days and hours".to_owned(),
            ));
        }
        self.hours.push(hours);
        Ok(())
    }

    /// The destination of a dialled number, or of what is no number, with the prefix that it has.
    fn destination(&self, dialled: &str) -> Option<(usize, &str)> {
        let digits = dialled.strip_prefix('+').unwrap_or(dialled);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return self.internal.map(|index| (index, Destination::INTERNAL));
        }
        let longest = self.longest.min(digits.len());
        (0..=longest).rev().find_map(|length| {
            let (prefix, index) = self.prefixes.get_key_value(digits.get(..length)?)?;
            Some((*index, &**prefix))
        })
    }
}

/// Rounds by a profile's rule.
fn round(amount: Decimal, decimals: u32, rounding: Rounding) -> Decimal {
    let strategy = match rounding {
        Rounding::HalfUp => RoundingStrategy::MidpointAwayFromZero,
        Rounding::HalfEven => RoundingStrategy::MidpointNearestEven,
        Rounding::Up => RoundingStrategy::AwayFromZero,
        Rounding::Down => RoundingStrategy::ToZero,
    };
    let mut rounded = amount.round_dp_with_strategy(decimals, strategy);
    // All of its digits, as a bill shows them.
    rounded.rescale(decimals);
    rounded
}

#[cfg(test)]
mod tests;
