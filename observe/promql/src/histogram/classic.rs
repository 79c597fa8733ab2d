//! Quantiles and fractions of classic histograms: cumulative counts by upper bound.

/// A cumulative bucket of a classic histogram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ClassicBucket {
    pub(crate) upper: f64,
    pub(crate) count: f64,
}

/// Differences this small against their value are rounding, not a broken histogram.
const ROUNDING: f64 = 1e-12;

/// Sorted, equal bounds joined, counts never falling. Says whether counts had to be lifted beyond rounding.
/// Nothing if there is no +Inf bucket or no other.
fn repaired(mut buckets: Vec<ClassicBucket>) -> Option<(Vec<ClassicBucket>, bool)> {
    buckets.sort_by(|left, right| left.upper.total_cmp(&right.upper));
    let mut joined: Vec<ClassicBucket> = Vec::with_capacity(buckets.len());
    for bucket in buckets {
        match joined.last_mut() {
            Some(last) if last.upper == bucket.upper => last.count += bucket.count,
            _ => joined.push(bucket),
        }
    }
    if joined.len() < 2 || joined.last()?.upper != f64::INFINITY {
        return None;
    }
    let mut highest = joined[0].count;
    let mut is_forced = false;
    for bucket in &mut joined[1..] {
        if bucket.count < highest {
            is_forced |= (highest - bucket.count) > ROUNDING * highest.abs().max(bucket.count.abs());
            bucket.count = highest;
        }
        highest = bucket.count;
    }
    Some((joined, is_forced))
}

/// The quantile, and whether the counts were not monotonic.
pub(crate) fn classic_quantile(q: f64, buckets: Vec<ClassicBucket>) -> (f64, bool) {
    if q.is_nan() {
        return (f64::NAN, false);
    }
    if q < 0.0 {
        return (f64::NEG_INFINITY, false);
    }
    if q > 1.0 {
        return (f64::INFINITY, false);
    }
    let Some((buckets, is_forced)) = repaired(buckets) else { return (f64::NAN, false) };
    let last = buckets.len() - 1;
    let observations = buckets[last].count;
    if observations == 0.0 || observations.is_nan() {
        return (f64::NAN, is_forced);
    }
    let mut rank = q * observations;
    let found = buckets[..last].partition_point(|bucket| bucket.count < rank);
    if found == last {
        return (buckets[last - 1].upper, is_forced);
    }
    let upper = buckets[found].upper;
    if found == 0 && upper <= 0.0 {
        return (upper, is_forced);
    }
    let mut lower = 0.0;
    let mut count = buckets[found].count;
    if found > 0 {
        lower = buckets[found - 1].upper;
        count -= buckets[found - 1].count;
        rank -= buckets[found - 1].count;
    }
    (lower + (upper - lower) * (rank / count), is_forced)
}

/// The share of observations between two values.
pub(crate) fn classic_fraction(lower: f64, upper: f64, buckets: Vec<ClassicBucket>) -> f64 {
    let count_of_all = |buckets: &[ClassicBucket]| buckets.last().map_or(0.0, |bucket| bucket.count);
    let buckets = match repaired(buckets.clone()) {
        Some((buckets, _)) => buckets,
        // A single +Inf bucket still has a count to relate to.
        None if buckets.len() == 1 && buckets[0].upper == f64::INFINITY => buckets,
        None => return f64::NAN,
    };
    let observations = count_of_all(&buckets);
    if observations == 0.0 || observations.is_nan() || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    (rank(&buckets, upper) - rank(&buckets, lower)) / observations
}

/// Observations at or below a value. Open-ended buckets are not split.
fn rank(buckets: &[ClassicBucket], value: f64) -> f64 {
    let mut previous = ClassicBucket { upper: f64::NEG_INFINITY, count: 0.0 };
    if buckets[0].upper > 0.0 {
        previous.upper = 0.0;
    }
    for bucket in buckets {
        if previous.upper >= value {
            return previous.count;
        }
        if bucket.upper > value {
            let share = if bucket.upper == f64::INFINITY {
                0.0
            } else if previous.upper == f64::NEG_INFINITY {
                1.0
            } else {
                (value - previous.upper) / (bucket.upper - previous.upper)
            };
            return previous.count + (bucket.count - previous.count) * share;
        }
        previous = *bucket;
    }
    previous.count
}
