//! Native histograms: exponential buckets (schemas -4 to 8) and custom bounds (schema -53).
//!
//! Counts are floats; an integer histogram converts without loss up to 2^53. Buckets are a sparse list of
//! (index, count) sorted by index: merging, downscaling and comparing are then walks over sorted lists, and
//! the spans and deltas of the exchange formats stay at the edges of the system.

mod arithmetic;
mod classic;
mod kahan;
mod layout;
mod statistics;
mod trim;

use std::fmt;
use std::sync::Arc;

pub(crate) use arithmetic::{average, combine, sum};
pub(crate) use classic::{ClassicBucket, classic_fraction, classic_quantile};
pub(crate) use kahan::{Kahan, mean};
pub(crate) use statistics::{NanRemark, fraction, quantile, variance};
pub(crate) use trim::trim;

use crate::text::format_short;

/// The schema number of histograms with custom bounds.
pub const NHCB_SCHEMA: i32 = -53;

/// What is known about a counter reset between this histogram and the one before it in its series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CounterReset {
    /// Nothing is known; it has to be looked for.
    #[default]
    Unknown,
    /// There was a reset.
    Reset,
    /// There was none.
    NotReset,
    /// Not a counter: resets have no meaning.
    Gauge,
}

/// A native histogram.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    /// What is known about a reset before it.
    pub hint: CounterReset,
    /// Resolution: a bucket's bounds are powers of `2^(2^-schema)`; `NHCB_SCHEMA` for custom bounds.
    pub schema: i32,
    /// Width of the zero bucket to either side.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: f64,
    /// All observations, those that are NaN among them.
    pub count: f64,
    /// Sum of all observations.
    pub sum: f64,
    /// Buckets above zero by index; with custom bounds all buckets, from 0.
    pub positive: Vec<(i32, f64)>,
    /// Buckets below zero by index, mirrored.
    pub negative: Vec<(i32, f64)>,
    /// Upper bounds, ascending, without +Inf; only with `NHCB_SCHEMA`.
    pub custom_bounds: Arc<[f64]>,
}

/// A bucket with its bounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Lower bound.
    pub lower: f64,
    /// Upper bound.
    pub upper: f64,
    /// Observations in it.
    pub count: f64,
    /// Whether the lower bound belongs to it.
    pub has_lower: bool,
    /// Whether the upper bound belongs to it.
    pub has_upper: bool,
}

impl Histogram {
    /// Whether the bounds are custom.
    pub fn is_custom(&self) -> bool {
        self.schema == NHCB_SCHEMA
    }

    /// All buckets with observations or negative counts, by ascending bounds.
    pub fn buckets(&self) -> Vec<Bucket> {
        let mut buckets = Vec::with_capacity(self.negative.len() + self.positive.len() + 1);
        for (index, count) in self.negative.iter().rev() {
            let (lower, upper) = self.bounds(*index);
            buckets.push(Bucket {
                lower: -upper,
                upper: -lower,
                count: *count,
                has_lower: true,
                has_upper: false,
            });
        }
        if self.zero_count != 0.0 {
            let (lower, upper) = (-self.zero_threshold, self.zero_threshold);
            buckets.push(Bucket { lower, upper, count: self.zero_count, has_lower: true, has_upper: true });
        }
        for (index, count) in &self.positive {
            let (lower, upper) = self.bounds(*index);
            buckets.push(Bucket { lower, upper, count: *count, has_lower: false, has_upper: true });
        }
        buckets.retain(|bucket| bucket.count != 0.0);
        buckets
    }

    /// Lower and upper bound of a bucket above zero.
    pub(crate) fn bounds(&self, index: i32) -> (f64, f64) {
        if self.is_custom() {
            let bound = |at: i32| usize::try_from(at).ok().and_then(|at| self.custom_bounds.get(at)).copied();
            let lower =
                if index <= 0 { f64::NEG_INFINITY } else { bound(index - 1).unwrap_or(f64::INFINITY) };
            (lower, bound(index).unwrap_or(f64::INFINITY))
        } else {
            (layout::exponential_bound(index - 1, self.schema), layout::exponential_bound(index, self.schema))
        }
    }

    /// Without buckets that hold nothing.
    pub(crate) fn compacted(mut self) -> Histogram {
        self.positive.retain(|(_, count)| *count != 0.0);
        self.negative.retain(|(_, count)| *count != 0.0);
        self
    }

    /// Whether two histograms hold the same observations in the same layout. Hints do not count; NaN sums are
    /// equal when their bits are.
    pub(crate) fn is_same(&self, other: &Histogram) -> bool {
        let (left, right) = (self.clone().compacted(), other.clone().compacted());
        left.schema == right.schema
            && left.zero_threshold == right.zero_threshold
            && left.zero_count == right.zero_count
            && left.count == right.count
            && (left.sum == right.sum || left.sum.to_bits() == right.sum.to_bits())
            && left.positive == right.positive
            && left.negative == right.negative
            && left.custom_bounds == right.custom_bounds
    }
}

/// `{count:4, sum:5, (0.5,1]:1, (1,2]:3}`
impl fmt::Display for Histogram {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{{count:{}, sum:{}", format_short(self.count), format_short(self.sum))?;
        for bucket in self.buckets() {
            let open = if bucket.has_lower { '[' } else { '(' };
            let close = if bucket.has_upper { ']' } else { ')' };
            let (lower, upper) = (format_short(bucket.lower), format_short(bucket.upper));
            write!(out, ", {open}{lower},{upper}{close}:{}", format_short(bucket.count))?;
        }
        out.write_str("}")
    }
}
