//! The price of a call.

use jiff::civil::Date;
use jiff::{Span, Timestamp};
use rust_decimal::Decimal;

use super::document::{FreePeriod, Tariff};
use super::hours::{WEEK_BEGINS, next_change};
use super::{Error, RateTable, round};

const NANOS: i128 = 1_000_000_000;
/// No call is longer: ten years.
const SECONDS_MAX: u64 = 315_360_000;
const SIXTY: Decimal = Decimal::from_parts(60, 0, 0, false, 0);

/// A call to rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// The number in E.164 with or without `+`, or anything else for what is no number.
    pub dialled: &'a str,
    /// When it was answered, in nanoseconds since the Unix epoch.
    pub answer_unix_nanos: u64,
    /// When it ended.
    pub end_unix_nanos: u64,
    /// Free seconds that its customer has left in the period of the answer.
    pub free_seconds_left: u64,
}

/// What a call costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rated {
    /// The price in the profile's currency.
    pub price: Decimal,
    /// The destination's name.
    pub destination: String,
    /// The prefix that decided.
    pub prefix: String,
    /// Seconds of all increments, those paid by free seconds included.
    pub charged_seconds: u64,
    /// Free seconds that paid for some of them.
    pub free_seconds: u64,
    /// Which tariffs it crossed, in order.
    pub parts: Vec<Part>,
}

/// A stretch of a call within one tariff.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The tariff's name.
    pub tariff: String,
    /// Charged seconds.
    pub seconds: u64,
}

/// A call on its way through the tariffs.
struct Meter<'a> {
    table: &'a RateTable,
    destination: usize,
    answer: i128,
    /// Seconds that the call lasted, begun ones whole.
    length: u64,
    /// Seconds from the answer to the next increment.
    offset: u64,
    free_left: u64,
    /// Price per minute times seconds, summed up.
    sixtieths: Decimal,
    free_used: u64,
    parts: Vec<Part>,
}

impl RateTable {
    /// The price of an answered call.
    ///
    /// # Errors
    /// [`Error::NoDestination`] and [`Error::TooLarge`].
    pub fn rate(&self, call: Call<'_>) -> Result<Rated, Error> {
        let (destination, prefix) = self.destination(call.dialled).ok_or(Error::NoDestination)?;
        let length = call.end_unix_nanos.saturating_sub(call.answer_unix_nanos).div_ceil(1_000_000_000);
        if length > SECONDS_MAX {
            return Err(Error::TooLarge);
        }
        let mut meter = Meter {
            table: self,
            destination,
            answer: i128::from(call.answer_unix_nanos),
            length,
            offset: 0,
            free_left: call.free_seconds_left,
            sixtieths: Decimal::ZERO,
            free_used: 0,
            parts: Vec::new(),
        };
        let first = meter.tariff_at(meter.instant(0)?)?;
        meter.run().ok_or(Error::TooLarge)??;
        let talk = meter.sixtieths.checked_div(SIXTY).ok_or(Error::TooLarge)?;
        let sum = talk.checked_add(first.connection_fee).ok_or(Error::TooLarge)?;
        let sum = if sum.is_zero() { sum } else { sum.max(first.minimum_charge) };
        let name = self.profile.destinations.get(destination).map(|destination| destination.name.clone());
        Ok(Rated {
            price: round(sum, self.profile.decimals, self.profile.rounding),
            destination: name.unwrap_or_default(),
            prefix: prefix.to_owned(),
            charged_seconds: meter.offset,
            free_seconds: meter.free_used,
            parts: meter.parts,
        })
    }

    /// The first day of the period of free seconds in which this instant lies; `None` without free seconds.
    #[must_use]
    pub fn free_period(&self, unix_nanos: u64) -> Option<Date> {
        let free = self.profile.free?;
        let at = Timestamp::from_nanosecond(i128::from(unix_nanos)).ok()?;
        let date = self.zone.to_datetime(at).date();
        Some(match free.period {
            FreePeriod::Day => date,
            FreePeriod::Week => {
                let days = date.weekday().since(WEEK_BEGINS);
                date.checked_sub(Span::new().days(days)).ok()?
            }
            FreePeriod::Month => date.first_of_month(),
        })
    }
}

impl<'a> Meter<'a> {
    /// Charges increment after increment, all that begin within one tariff at once. `None` when a sum cannot be held.
    fn run(&mut self) -> Option<Result<(), Error>> {
        while self.offset < self.length {
            let at = match self.instant(self.offset) {
                Ok(at) => at,
                Err(error) => return Some(Err(error)),
            };
            let tariff = match self.tariff_at(at) {
                Ok(tariff) => tariff,
                Err(error) => return Some(Err(error)),
            };
            if self.offset == 0 {
                let price = tariff.initial_price_per_minute.unwrap_or(tariff.price_per_minute);
                self.charge(tariff, price, u64::from(tariff.initial_seconds))?;
                continue;
            }
            let step = u64::from(tariff.following_seconds);
            let until = self.seconds_until_change(at).map_or(self.length, |change| change.min(self.length));
            let increments = (until - self.offset).div_ceil(step);
            self.charge(tariff, tariff.price_per_minute, increments.checked_mul(step)?)?;
        }
        Some(Ok(()))
    }

    fn charge(&mut self, tariff: &Tariff, price_per_minute: Decimal, seconds: u64) -> Option<()> {
        let free = if tariff.takes_free_seconds { self.free_left.min(seconds) } else { 0 };
        self.free_left -= free;
        self.free_used += free;
        let amount = price_per_minute.checked_mul(Decimal::from(seconds - free))?;
        self.sixtieths = self.sixtieths.checked_add(amount)?;
        self.offset = self.offset.checked_add(seconds)?;
        match self.parts.last_mut().filter(|part| part.tariff == tariff.name) {
            Some(part) => part.seconds += seconds,
            None => self.parts.push(Part { tariff: tariff.name.clone(), seconds }),
        }
        Some(())
    }

    fn instant(&self, offset: u64) -> Result<Timestamp, Error> {
        let nanos = self.answer + i128::from(offset) * NANOS;
        Timestamp::from_nanosecond(nanos).map_err(|_| Error::TooLarge)
    }

    /// Seconds from the answer to the first whole second at or after the next change of tariff.
    fn seconds_until_change(&self, at: Timestamp) -> Option<u64> {
        let hours = self.table.hours.get(self.destination)?;
        if let [_] = hours.as_slice() {
            return None;
        }
        let change = next_change(at, &self.table.zone, hours.iter())?;
        let nanos = change.as_nanosecond() - self.answer;
        u64::try_from((nanos + NANOS - 1) / NANOS).ok()
    }

    fn tariff_at(&self, at: Timestamp) -> Result<&'a Tariff, Error> {
        let table = self.table;
        let local = table.zone.to_datetime(at);
        let hours = table.hours.get(self.destination).ok_or(Error::NoDestination)?;
        let holds = |hours: &super::Hours| hours.holds(local, &table.profile.holidays);
        let index = hours.iter().position(holds).ok_or(Error::NoDestination)?;
        let destination = table.profile.destinations.get(self.destination);
        destination.and_then(|destination| destination.tariffs.get(index)).ok_or(Error::NoDestination)
    }
}
