//! Quantiles, fractions and variance of a histogram.

use super::{Bucket, Histogram, Kahan};

/// What NaN observations did to a quantile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NanRemark {
    /// The quantile lies among them.
    Result,
    /// They count as larger than all others.
    Skew,
}

/// A bucket as interpolation sees it: the zero bucket leans to the side that has observations, the first
/// custom bucket begins at zero if it can.
pub(super) fn leaning(histogram: &Histogram, bucket: Bucket) -> Bucket {
    let mut bucket = bucket;
    if histogram.is_custom() {
        if bucket.lower == f64::NEG_INFINITY && bucket.upper > 0.0 && bucket.upper.is_finite() {
            bucket.lower = 0.0;
        }
    } else if is_zero(histogram, &bucket) {
        let has = |side: &[(i32, f64)]| side.iter().any(|(_, count)| *count != 0.0);
        match (has(&histogram.negative), has(&histogram.positive)) {
            (false, true) => bucket.lower = 0.0,
            (true, false) => bucket.upper = 0.0,
            _ => {}
        }
    }
    bucket
}

fn is_zero(histogram: &Histogram, bucket: &Bucket) -> bool {
    !histogram.is_custom() && bucket.lower <= 0.0 && bucket.upper >= 0.0
}

/// The value below which a share `q` of the observations lies.
pub(crate) fn quantile(q: f64, histogram: &Histogram) -> (f64, Option<NanRemark>) {
    if q < 0.0 {
        return (f64::NEG_INFINITY, None);
    }
    if q > 1.0 {
        return (f64::INFINITY, None);
    }
    if histogram.count == 0.0 || q.is_nan() {
        return (f64::NAN, None);
    }
    let has_nan = histogram.sum.is_nan();
    // From the nearer end, so that rounding hurts least. NaN observations count as the largest.
    let is_forward = has_nan || q < 0.5;
    let buckets = histogram.buckets();
    let target = if is_forward { q } else { 1.0 - q } * histogram.count;
    let mut seen = 0.0;
    let mut found = None;
    let mut step = |bucket: &Bucket| {
        if found.is_none() || seen < target {
            seen += bucket.count;
            found = Some(*bucket);
        }
    };
    if is_forward {
        buckets.iter().for_each(&mut step);
    } else {
        buckets.iter().rev().for_each(&mut step);
    }
    if has_nan && seen < target {
        return (f64::NAN, Some(NanRemark::Result));
    }
    let remark = has_nan.then_some(NanRemark::Skew);
    let Some(found) = found else { return (f64::NAN, remark) };
    let bucket = leaning(histogram, found);
    if bucket.lower == f64::NEG_INFINITY {
        return (bucket.upper, remark);
    }
    if bucket.upper == f64::INFINITY {
        return (bucket.lower, remark);
    }
    let seen = seen.min(histogram.count);
    let rank = if is_forward { target - (seen - bucket.count) } else { seen - target };
    (interpolate(histogram, &bucket, rank / bucket.count), remark)
}

fn interpolate(histogram: &Histogram, bucket: &Bucket, share: f64) -> f64 {
    if histogram.is_custom() || is_zero(histogram, bucket) {
        return bucket.lower + (bucket.upper - bucket.lower) * share;
    }
    let (low, high) = (bucket.lower.abs().log2(), bucket.upper.abs().log2());
    if bucket.lower > 0.0 {
        (low + (high - low) * share).exp2()
    } else {
        -(high + (low - high) * (1.0 - share)).exp2()
    }
}

/// The share of a bucket's observations at or below a value inside it.
pub(super) fn share_below(histogram: &Histogram, bucket: &Bucket, value: f64) -> f64 {
    if bucket.upper == f64::INFINITY {
        return 0.0;
    }
    if bucket.lower == f64::NEG_INFINITY {
        return 1.0;
    }
    if histogram.is_custom() || is_zero(histogram, bucket) {
        return (value - bucket.lower) / (bucket.upper - bucket.lower);
    }
    let (low, high, at) = (bucket.lower.abs().log2(), bucket.upper.abs().log2(), value.abs().log2());
    if bucket.lower > 0.0 { (at - low) / (high - low) } else { 1.0 - (at - high) / (low - high) }
}

/// How many observations lie at or below a value.
fn rank(histogram: &Histogram, buckets: &[Bucket], value: f64) -> f64 {
    let mut rank = 0.0;
    for bucket in buckets {
        let bucket = leaning(histogram, *bucket);
        if bucket.lower >= value {
            return rank;
        }
        if bucket.upper > value {
            return rank + bucket.count * share_below(histogram, &bucket, value);
        }
        rank += bucket.count;
    }
    if histogram.sum.is_nan() { rank } else { histogram.count }
}

/// The share of observations between two values. NaN observations are in no such share.
pub(crate) fn fraction(lower: f64, upper: f64, histogram: &Histogram) -> f64 {
    if histogram.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    let buckets = histogram.buckets();
    let below = |value| rank(histogram, &buckets, value).min(histogram.count);
    (below(upper) - below(lower)) / histogram.count
}

/// The variance, each bucket standing for its middle.
pub(crate) fn variance(histogram: &Histogram) -> f64 {
    let mean = histogram.sum / histogram.count;
    let squares = histogram.buckets().into_iter().map(|bucket| {
        let middle = if histogram.is_custom() {
            (bucket.upper + bucket.lower) / 2.0
        } else if is_zero(histogram, &bucket) {
            0.0
        } else {
            (bucket.upper * bucket.lower).sqrt().copysign(bucket.upper)
        };
        let distance = middle - mean;
        bucket.count * distance * distance
    });
    squares.collect::<Kahan>().total() / histogram.count
}
