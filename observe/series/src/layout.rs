//! What the histograms of one chunk have in common: resolution, bounds, and which buckets there are.
//!
//! A histogram in a chunk is then a row of numbers (count, zero count, sum, buckets), and a chunk of histograms is a set
//! of columns, packed like those of floats.

use std::sync::Arc;

use belfry_promql::{CounterReset, Histogram, NHCB_SCHEMA, is_stale};
use serde::{Deserialize, Serialize};

/// Buckets of one histogram at most, as Prometheus' reducing limit; more are refused on the way in.
pub(crate) const BUCKETS_MAX: usize = 2000;
/// Columns before the buckets: count, zero count, sum.
const FIXED_COLUMNS: usize = 3;

/// The layout of a chunk's histograms.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Layout {
    is_gauge: bool,
    schema: i32,
    zero_threshold: f64,
    positive: Vec<i32>,
    negative: Vec<i32>,
    bounds: Arc<[f64]>,
}

impl Layout {
    pub(crate) fn of(histogram: &Histogram) -> Self {
        let indexes = |buckets: &[(i32, f64)]| buckets.iter().map(|(index, _)| *index).collect();
        Self {
            is_gauge: histogram.hint == CounterReset::Gauge,
            schema: histogram.schema,
            zero_threshold: histogram.zero_threshold,
            positive: indexes(&histogram.positive),
            negative: indexes(&histogram.negative),
            bounds: Arc::clone(&histogram.custom_bounds),
        }
    }

    pub(crate) fn schema(&self) -> i32 {
        self.schema
    }

    pub(crate) fn zero_threshold(&self) -> f64 {
        self.zero_threshold
    }

    /// Indexes of the buckets above zero.
    pub(crate) fn positive(&self) -> &[i32] {
        &self.positive
    }

    /// Indexes of the buckets below zero.
    pub(crate) fn negative(&self) -> &[i32] {
        &self.negative
    }

    pub(crate) fn bounds(&self) -> &[f64] {
        &self.bounds
    }

    /// Numbers of one histogram.
    pub(crate) fn columns(&self) -> usize {
        FIXED_COLUMNS + self.positive.len() + self.negative.len()
    }

    /// Whether a histogram can be a row of this layout. A staleness marker can be one of any.
    pub(crate) fn holds(&self, histogram: &Histogram) -> bool {
        if is_stale(histogram.sum) {
            return true;
        }
        self.is_gauge == (histogram.hint == CounterReset::Gauge)
            && self.schema == histogram.schema
            && self.zero_threshold.to_bits() == histogram.zero_threshold.to_bits()
            && *self.bounds == *histogram.custom_bounds
            && is_part(&histogram.positive, &self.positive)
            && is_part(&histogram.negative, &self.negative)
    }

    /// With the buckets of another histogram too, when that is all the difference.
    pub(crate) fn widened(&self, histogram: &Histogram) -> Option<Self> {
        let other = Self::of(histogram);
        let is_alike = self.is_gauge == other.is_gauge
            && self.schema == other.schema
            && self.zero_threshold.to_bits() == other.zero_threshold.to_bits()
            && *self.bounds == *other.bounds;
        let union = |left: &[i32], right: &[i32]| {
            let mut all = [left, right].concat();
            all.sort_unstable();
            all.dedup();
            all
        };
        is_alike.then(|| Self {
            positive: union(&self.positive, &other.positive),
            negative: union(&self.negative, &other.negative),
            ..other
        })
    }

    /// A histogram as a row.
    pub(crate) fn row(&self, histogram: &Histogram) -> Vec<f64> {
        let mut row = vec![histogram.count, histogram.zero_count, histogram.sum];
        row.extend(counts(&self.positive, &histogram.positive));
        row.extend(counts(&self.negative, &histogram.negative));
        row
    }

    /// The histogram of a row; `None` when the row is too short.
    pub(crate) fn histogram(&self, hint: CounterReset, row: &[f64]) -> Option<Histogram> {
        let (fixed, buckets) = row.split_first_chunk::<FIXED_COLUMNS>()?;
        let (positive, negative) = buckets.split_at_checked(self.positive.len())?;
        let zipped = |indexes: &[i32], counts: &[f64]| -> Vec<(i32, f64)> {
            indexes.iter().copied().zip(counts.iter().copied()).collect()
        };
        (negative.len() == self.negative.len()).then(|| Histogram {
            hint: if self.is_gauge { CounterReset::Gauge } else { hint },
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: fixed[1],
            count: fixed[0],
            sum: fixed[2],
            positive: zipped(&self.positive, positive),
            negative: zipped(&self.negative, negative),
            custom_bounds: Arc::clone(&self.bounds),
        })
    }

    /// Whether a layout that was read can be one.
    pub(crate) fn is_sound(&self) -> bool {
        let is_rising = |indexes: &[i32]| indexes.is_sorted_by(|a, b| a < b) && indexes.len() <= BUCKETS_MAX;
        is_rising(&self.positive) && is_rising(&self.negative) && self.bounds.len() <= BUCKETS_MAX
    }
}

fn is_part(buckets: &[(i32, f64)], indexes: &[i32]) -> bool {
    let mut rest = indexes.iter();
    buckets.iter().all(|(index, _)| rest.any(|held| held == index))
}

fn counts<'a>(indexes: &'a [i32], buckets: &'a [(i32, f64)]) -> impl Iterator<Item = f64> + 'a {
    let mut rest = buckets.iter().peekable();
    indexes.iter().map(move |index| rest.next_if(|(held, _)| held == index).map_or(0.0, |(_, count)| *count))
}

/// A hint as two bits.
pub(crate) fn hint_number(hint: CounterReset) -> u8 {
    match hint {
        CounterReset::Unknown => 0,
        CounterReset::Reset => 1,
        CounterReset::NotReset => 2,
        CounterReset::Gauge => 3,
    }
}

/// The hint of two bits.
pub(crate) fn hint_of(number: u64) -> CounterReset {
    match number {
        1 => CounterReset::Reset,
        2 => CounterReset::NotReset,
        3 => CounterReset::Gauge,
        _ => CounterReset::Unknown,
    }
}

/// A histogram from outside as the engine has it, or what is wrong with it.
pub(crate) fn checked(native: &belfry_signal::NativeHistogram) -> Result<Histogram, &'static str> {
    let is_rising = |buckets: &[(i32, f64)]| buckets.is_sorted_by(|a, b| a.0 < b.0);
    if native.positive.len() + native.negative.len() > BUCKETS_MAX || native.custom_bounds.len() > BUCKETS_MAX
    {
        return Err("a histogram has more than 2000 buckets");
    }
    if !is_rising(&native.positive) || !is_rising(&native.negative) {
        return Err("the buckets of a histogram are not in order");
    }
    if native.schema == NHCB_SCHEMA {
        let last = i32::try_from(native.custom_bounds.len()).unwrap_or(i32::MAX);
        let is_inside = |(index, _): &(i32, f64)| (0..=last).contains(index);
        if !native.positive.iter().all(is_inside) || !native.negative.is_empty() || native.zero_count != 0.0 {
            return Err("a histogram with custom bounds has a bucket outside of them");
        }
        if !native.custom_bounds.is_sorted_by(|a, b| a < b) || native.custom_bounds.iter().any(|b| b.is_nan())
        {
            return Err("the custom bounds of a histogram do not rise");
        }
    } else if !(-4..=8).contains(&native.schema) || !native.custom_bounds.is_empty() {
        return Err("the schema of a histogram is not from -4 to 8, and not -53");
    }
    if native.zero_threshold.is_nan() || native.zero_threshold < 0.0 {
        return Err("the zero threshold of a histogram is negative or no number");
    }
    Ok(Histogram {
        hint: if native.is_gauge { CounterReset::Gauge } else { CounterReset::Unknown },
        schema: native.schema,
        zero_threshold: native.zero_threshold,
        zero_count: native.zero_count,
        count: native.count,
        sum: native.sum,
        positive: native.positive.clone(),
        negative: native.negative.clone(),
        custom_bounds: native.custom_bounds.as_slice().into(),
    })
}
