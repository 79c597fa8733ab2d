//! The operators `</` and `>/`: the part of a histogram at or below a value, or above it.
//!
//! The sum of what is left is estimated from the buckets, unless everything is left.

use super::statistics::{leaning, share_below};
use super::{Bucket, Histogram};

/// What is left of a bucket: how many observations, and the value each stands for.
struct Rest {
    count: f64,
    value: f64,
}

/// The part at or below `cut` (`keeps_lower`), or above it.
pub(crate) fn trim(histogram: &Histogram, cut: f64, keeps_lower: bool) -> Histogram {
    let mut result = histogram.clone();
    let (mut count, mut sum) = (0.0, 0.0);
    let mut is_changed = false;
    let mut keep = |bucket: Bucket| {
        let rest = if histogram.is_custom() {
            rest_of_custom(histogram, bucket, cut, keeps_lower)
        } else {
            rest_of(histogram, leaning(histogram, bucket), cut, keeps_lower)
        };
        is_changed |= rest.count != bucket.count;
        count += rest.count;
        sum += if rest.count == 0.0 { 0.0 } else { rest.count * rest.value };
        rest.count
    };
    for (index, held) in &mut result.positive {
        let (lower, upper) = histogram.bounds(*index);
        *held = keep(Bucket { lower, upper, count: *held, has_lower: false, has_upper: true });
    }
    for (index, held) in &mut result.negative {
        let (lower, upper) = histogram.bounds(*index);
        *held =
            keep(Bucket { lower: -upper, upper: -lower, count: *held, has_lower: true, has_upper: false });
    }
    if histogram.zero_count != 0.0 {
        let (lower, upper) = (-histogram.zero_threshold, histogram.zero_threshold);
        let bucket = Bucket { lower, upper, count: histogram.zero_count, has_lower: true, has_upper: true };
        result.zero_count = keep(bucket);
    }
    if !is_changed {
        return histogram.clone();
    }
    (result.count, result.sum) = (count, sum);
    result.compacted()
}

fn rest_of(histogram: &Histogram, bucket: Bucket, cut: f64, keeps_lower: bool) -> Rest {
    let middle = |lower: f64, upper: f64| {
        if histogram.is_custom()
            || (lower <= 0.0 && upper >= 0.0)
            || (bucket.lower <= 0.0 && bucket.upper >= 0.0)
        {
            (lower + upper) / 2.0
        } else {
            (lower * upper).sqrt().copysign(upper)
        }
    };
    let is_below = bucket.upper <= cut;
    if is_below || bucket.lower >= cut {
        let count = if is_below == keeps_lower { bucket.count } else { 0.0 };
        return Rest { count, value: middle(bucket.lower, bucket.upper) };
    }
    let below = share_below(histogram, &bucket, cut);
    if keeps_lower {
        Rest { count: bucket.count * below, value: middle(bucket.lower, cut) }
    } else {
        Rest { count: bucket.count * (1.0 - below), value: middle(cut, bucket.upper) }
    }
}

/// Open-ended buckets stay whole or go whole; their observations are taken to lie at the bound, or at the cut
/// where that is farther out.
fn rest_of_custom(histogram: &Histogram, bucket: Bucket, cut: f64, keeps_lower: bool) -> Rest {
    let all_stays = cut == if keeps_lower { f64::INFINITY } else { f64::NEG_INFINITY };
    let nothing_stays = cut == if keeps_lower { f64::NEG_INFINITY } else { f64::INFINITY };
    let is_open_both = bucket.lower == f64::NEG_INFINITY && bucket.upper == f64::INFINITY;
    if all_stays {
        return Rest { count: bucket.count, value: 0.0 };
    }
    if nothing_stays || is_open_both {
        return Rest { count: 0.0, value: 0.0 };
    }
    if bucket.upper == f64::INFINITY {
        return Rest { count: if keeps_lower { 0.0 } else { bucket.count }, value: bucket.lower.max(cut) };
    }
    if bucket.lower == f64::NEG_INFINITY {
        if bucket.upper <= 0.0 {
            return Rest {
                count: if keeps_lower { bucket.count } else { 0.0 },
                value: bucket.upper.min(cut),
            };
        }
        // It begins at zero then; a cut below zero lies outside of what it can be split into.
        if cut < 0.0 {
            return Rest { count: 0.0, value: 0.0 };
        }
    }
    rest_of(histogram, leaning(histogram, bucket), cut, keeps_lower)
}
