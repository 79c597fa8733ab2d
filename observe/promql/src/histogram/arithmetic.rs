//! Adding, subtracting, averaging and scaling histograms, and finding counter resets between them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::layout::Layout;
use super::{CounterReset, Histogram, Kahan};

/// Why histograms do not combine: exponential and custom bounds are mixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch;

/// A combined histogram and what its reader should know.
#[derive(Clone, Debug)]
pub(crate) struct Combined {
    pub(crate) histogram: Histogram,
    /// Custom bounds differed; only common ones are left.
    pub(crate) is_reconciled: bool,
    /// One side said "reset", another "not reset".
    pub(crate) is_reset_conflict: bool,
}

/// `left + factor * right`. The result of a subtraction is a gauge.
pub(crate) fn combine(left: &Histogram, right: &Histogram, factor: f64) -> Result<Combined, Mismatch> {
    let layout = Layout::common([left, right].into_iter()).ok_or(Mismatch)?;
    let (mut total, other) = (layout.apply(left), layout.apply(right));
    total.zero_count += factor * other.zero_count;
    total.count += factor * other.count;
    total.sum += factor * other.sum;
    total.positive = merged(&total.positive, &other.positive, factor);
    total.negative = merged(&total.negative, &other.negative, factor);
    let (hint, is_reset_conflict) = joint_hint([left.hint, right.hint].into_iter());
    total.hint = if factor < 0.0 { CounterReset::Gauge } else { hint };
    Ok(Combined { histogram: total, is_reconciled: layout.is_reconciled, is_reset_conflict })
}

fn merged(left: &[(i32, f64)], right: &[(i32, f64)], factor: f64) -> Vec<(i32, f64)> {
    let mut merged = Vec::with_capacity(left.len().max(right.len()));
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    loop {
        match (left.peek(), right.peek()) {
            (Some(l), Some(r)) if l.0 == r.0 => {
                merged.push((l.0, l.1 + factor * r.1));
                left.next();
                right.next();
            }
            (Some(l), Some(r)) if l.0 > r.0 => {
                merged.push((r.0, factor * r.1));
                right.next();
            }
            (Some(l), _) => {
                merged.push(**l);
                left.next();
            }
            (None, Some(r)) => {
                merged.push((r.0, factor * r.1));
                right.next();
            }
            (None, None) => return merged,
        }
    }
}

/// The hint of several histograms together, and whether they contradict each other.
fn joint_hint(hints: impl Iterator<Item = CounterReset>) -> (CounterReset, bool) {
    let mut seen = [false; 4];
    for hint in hints {
        seen[hint as usize] = true;
    }
    let has = |hint: CounterReset| seen[hint as usize];
    let is_conflict = has(CounterReset::Reset) && has(CounterReset::NotReset);
    let hint = if has(CounterReset::Gauge) {
        CounterReset::Gauge
    } else if has(CounterReset::Unknown) || is_conflict {
        CounterReset::Unknown
    } else if has(CounterReset::Reset) {
        CounterReset::Reset
    } else {
        CounterReset::NotReset
    };
    (hint, is_conflict)
}

/// The sum of histograms, compensated bucket by bucket.
pub(crate) fn sum(histograms: &[Arc<Histogram>]) -> Result<Combined, Mismatch> {
    weighted(histograms, 1.0)
}

/// The mean of histograms. Where the sum overflows, each is divided first.
pub(crate) fn average(histograms: &[Arc<Histogram>]) -> Result<Combined, Mismatch> {
    let count = histograms.len() as f64;
    let mut total = weighted(histograms, 1.0)?;
    let finite = |histogram: &Histogram| {
        histogram.count.is_finite()
            && histogram.zero_count.is_finite()
            && histogram.sum.is_finite()
            && histogram.positive.iter().chain(&histogram.negative).all(|(_, count)| count.is_finite())
    };
    if !finite(&total.histogram) && histograms.iter().all(|histogram| finite(histogram)) {
        return weighted(histograms, count);
    }
    total.histogram.scale(|value| value / count);
    Ok(total)
}

fn weighted(histograms: &[Arc<Histogram>], divisor: f64) -> Result<Combined, Mismatch> {
    let layout = Layout::common(histograms.iter().map(|histogram| &**histogram)).ok_or(Mismatch)?;
    let mut total = layout.apply(&histograms[0]);
    let (mut zero, mut count, mut sum) = (Kahan::default(), Kahan::default(), Kahan::default());
    let mut sides: [BTreeMap<i32, Kahan>; 2] = Default::default();
    for histogram in histograms {
        let aligned = layout.apply(histogram);
        zero.add(aligned.zero_count / divisor);
        count.add(aligned.count / divisor);
        sum.add(aligned.sum / divisor);
        for (side, buckets) in sides.iter_mut().zip([&aligned.positive, &aligned.negative]) {
            for (index, count) in buckets {
                side.entry(*index).or_default().add(count / divisor);
            }
        }
    }
    let [positive, negative] =
        sides.map(|side| side.into_iter().map(|(i, kahan)| (i, kahan.total())).collect());
    (total.positive, total.negative) = (positive, negative);
    (total.zero_count, total.count, total.sum) = (zero.total(), count.total(), sum.total());
    let (hint, is_reset_conflict) = joint_hint(histograms.iter().map(|histogram| histogram.hint));
    total.hint = hint;
    Ok(Combined { histogram: total, is_reconciled: layout.is_reconciled, is_reset_conflict })
}

impl Histogram {
    /// Applies a factor to every count and to the sum.
    pub(crate) fn scale(&mut self, change: impl Fn(f64) -> f64) {
        self.zero_count = change(self.zero_count);
        self.count = change(self.count);
        self.sum = change(self.sum);
        for (_, count) in self.positive.iter_mut().chain(&mut self.negative) {
            *count = change(*count);
        }
    }

    /// Times a number; a negative result is no counter any more.
    pub(crate) fn times(&self, factor: f64) -> Histogram {
        let mut result = self.clone();
        result.scale(|value| value * factor);
        if factor < 0.0 {
            result.hint = CounterReset::Gauge;
        }
        result
    }

    /// Divided by a number. Division by zero leaves no usable buckets.
    pub(crate) fn divided(&self, divisor: f64) -> Histogram {
        let mut result = self.clone();
        result.scale(|value| value / divisor);
        if divisor == 0.0 {
            result.positive.clear();
            result.negative.clear();
        }
        if divisor < 0.0 {
            result.hint = CounterReset::Gauge;
        }
        result
    }

    /// The hint of a histogram that follows `previous` in its series, as a store keeps it: gauges stay gauges; a counter
    /// is "not reset" after one in the same layout that it goes on from, else nothing is known.
    pub fn hint_after(&self, previous: Option<&Histogram>) -> CounterReset {
        if self.hint == CounterReset::Gauge {
            return CounterReset::Gauge;
        }
        let goes_on = |previous: &&Histogram| {
            previous.hint != CounterReset::Gauge
                && previous.schema == self.schema
                && previous.zero_threshold == self.zero_threshold
                && previous.custom_bounds == self.custom_bounds
        };
        let plain = Histogram { hint: CounterReset::Unknown, ..self.clone() };
        match previous.filter(goes_on) {
            Some(previous) if !plain.is_reset_after(previous) => CounterReset::NotReset,
            _ => CounterReset::Unknown,
        }
    }

    /// Whether a counter was reset between `previous` and this histogram, its successor.
    pub fn is_reset_after(&self, previous: &Histogram) -> bool {
        match self.hint {
            CounterReset::Reset => return true,
            CounterReset::NotReset => return false,
            CounterReset::Unknown | CounterReset::Gauge => {}
        }
        if self.is_custom() != previous.is_custom() || self.count < previous.count {
            return true;
        }
        let is_finer = !self.is_custom()
            && (self.schema > previous.schema || self.zero_threshold < previous.zero_threshold);
        if is_finer {
            return true;
        }
        let Some(layout) = Layout::common([self, previous].into_iter()) else { return true };
        let (current, previous) = (layout.apply(self), layout.apply(previous));
        // A bucket of the previous one that straddles the new threshold cannot have been counted on.
        previous.zero_threshold != self.zero_threshold
            || current.zero_count < previous.zero_count
            || has_shrunk(&current.positive, &previous.positive)
            || has_shrunk(&current.negative, &previous.negative)
    }
}

fn has_shrunk(current: &[(i32, f64)], previous: &[(i32, f64)]) -> bool {
    merged(current, previous, -1.0).iter().any(|(_, count)| *count < 0.0)
}
