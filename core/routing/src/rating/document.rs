//! What an operator writes.

use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A billing profile. A change is a new version: what was rated by an old one can be rated so again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// The currency's code (ISO 4217).
    pub currency: String,
    /// The time zone of its hours, as the IANA database names it.
    pub time_zone: String,
    /// Digits of a price after the point.
    #[serde(default = "four")]
    pub decimals: u32,
    /// How a price is brought to those digits.
    #[serde(default)]
    pub rounding: Rounding,
    /// Seconds that cost nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free: Option<FreeSeconds>,
    /// Dates whose day is `holiday`, and no day of the week.
    #[serde(default, deserialize_with = "dates", serialize_with = "texts")]
    pub holidays: Vec<jiff::civil::Date>,
    /// Where calls go and what they cost.
    pub destinations: Vec<Destination>,
}

/// How a price is brought to its digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rounding {
    /// To the nearest; halves away from zero.
    #[default]
    HalfUp,
    /// To the nearest; halves to the even digit.
    HalfEven,
    /// Up.
    Up,
    /// Down.
    Down,
}

/// Seconds that a customer may talk for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreeSeconds {
    /// How many in each period.
    pub seconds: u64,
    /// The period, which begins at midnight in the profile's time zone.
    pub period: FreePeriod,
}

/// How often free seconds come anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FreePeriod {
    /// Every day.
    Day,
    /// Every Monday.
    Week,
    /// Every first of a month.
    Month,
}

/// Where calls go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// Its name on the bill.
    pub name: String,
    /// Leading digits of its numbers; `""` is every number, `"internal"` whatever is no number.
    pub prefixes: Vec<String>,
    /// What it costs: the first whose hours it is holds, the last one always.
    pub tariffs: Vec<Tariff>,
}

impl Destination {
    /// The prefix of calls to what is no number.
    pub(super) const INTERNAL: &'static str = "internal";
}

/// What a call costs at some hours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tariff {
    /// Its name on the bill.
    pub name: String,
    /// The days on which it holds: `mon` to `sun`, or `holiday`; empty is every day.
    #[serde(default)]
    pub days: Vec<String>,
    /// From this time of the day on, as `08:00`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Up to this time; when it is not later than `from`, on the next day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Charged once.
    #[serde(default, deserialize_with = "decimal", serialize_with = "text")]
    pub connection_fee: Decimal,
    /// Charged at least, when the call costs anything.
    #[serde(default, deserialize_with = "decimal", serialize_with = "text")]
    pub minimum_charge: Decimal,
    /// Seconds of the first increment.
    #[serde(default = "one")]
    pub initial_seconds: u32,
    /// Seconds of every other increment.
    #[serde(default = "one")]
    pub following_seconds: u32,
    /// The price of sixty seconds.
    #[serde(deserialize_with = "decimal", serialize_with = "text")]
    pub price_per_minute: Decimal,
    /// The price of sixty seconds of the first increment, when it differs.
    #[serde(
        default,
        deserialize_with = "some_decimal",
        serialize_with = "some_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub initial_price_per_minute: Option<Decimal>,
    /// Whether free seconds pay for it.
    #[serde(default)]
    pub takes_free_seconds: bool,
}

impl Tariff {
    /// The key that is at fault, and what is allowed.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        for (key, seconds) in
            [("initial_seconds", self.initial_seconds), ("following_seconds", self.following_seconds)]
        {
            if !(1..=3600).contains(&seconds) {
                return Err((key, "use 1 to 3600 seconds".to_owned()));
            }
        }
        let initial = self.initial_price_per_minute.unwrap_or(self.price_per_minute);
        for (key, amount) in [
            ("connection_fee", self.connection_fee),
            ("minimum_charge", self.minimum_charge),
            ("price_per_minute", self.price_per_minute),
            ("initial_price_per_minute", initial),
        ] {
            if amount.is_sign_negative() && !amount.is_zero() || amount > Decimal::from(1_000_000) {
                return Err((key, "use 0 to 1000000".to_owned()));
            }
            if amount.scale() > 12 {
                return Err((key, "use at most 12 digits after the point".to_owned()));
            }
        }
        Ok(())
    }
}

fn four() -> u32 {
    4
}

fn one() -> u32 {
    1
}

/// A decimal is written as text: a float would have lost its last digits before we see it.
fn decimal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
    let text = String::deserialize(deserializer)?;
    Decimal::from_str_exact(&text)
        .map_err(|_| serde::de::Error::custom(format!("{text:?}: write an amount as text, as \"0.05\"")))
}

fn dates<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<jiff::civil::Date>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let date = |text: &String| {
        text.parse()
            .map_err(|_| serde::de::Error::custom(format!("{text:?}: write a date as \"2026-12-25\"")))
    };
    texts.iter().map(date).collect()
}

fn some_decimal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Decimal>, D::Error> {
    decimal(deserializer).map(Some)
}

fn text<S: Serializer>(amount: &Decimal, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(amount)
}

#[expect(clippy::ref_option, reason = "serde hands the field over")]
fn some_text<S: Serializer>(amount: &Option<Decimal>, serializer: S) -> Result<S::Ok, S::Error> {
    match amount {
        Some(amount) => serializer.collect_str(amount),
        None => serializer.serialize_none(),
    }
}

fn texts<S: Serializer>(dates: &[jiff::civil::Date], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(dates.iter().map(ToString::to_string))
}
