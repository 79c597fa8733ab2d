//! Bringing histograms to one layout: resolution, zero bucket, custom bounds.

use std::sync::Arc;

use super::Histogram;

/// The upper bound of bucket `index`: `2^(index * 2^-schema)`, the largest finite bound being `f64::MAX`.
pub(super) fn exponential_bound(index: i32, schema: i32) -> f64 {
    if schema <= 0 {
        let exponent = i64::from(index) << (-schema).min(31);
        return if exponent == 1024 { f64::MAX } else { power_of_two(exponent) };
    }
    let per_octave = 1_i64 << schema.min(31);
    let octave = i64::from(index).div_euclid(per_octave);
    let within = i64::from(index).rem_euclid(per_octave) as f64 / per_octave as f64;
    if octave == 1024 && within == 0.0 { f64::MAX } else { within.exp2() * power_of_two(octave) }
}

fn power_of_two(exponent: i64) -> f64 {
    (exponent.clamp(-2000, 2000) as f64).exp2()
}

/// Moves buckets to the index that `target` says; `target` may not decrease.
fn moved(buckets: &[(i32, f64)], target: impl Fn(i32) -> i32) -> Vec<(i32, f64)> {
    let mut moved: Vec<(i32, f64)> = Vec::with_capacity(buckets.len());
    for (index, count) in buckets {
        let index = target(*index);
        match moved.last_mut() {
            Some((last, held)) if *last == index => *held += count,
            _ => moved.push((index, *count)),
        }
    }
    moved
}

impl Histogram {
    /// In a coarser exponential schema.
    pub(super) fn downscaled(mut self, schema: i32) -> Histogram {
        let shift = (self.schema - schema).clamp(0, 31);
        if shift > 0 {
            self.positive = moved(&self.positive, |index| ((index - 1) >> shift) + 1);
            self.negative = moved(&self.negative, |index| ((index - 1) >> shift) + 1);
            self.schema = schema;
        }
        self
    }

    /// With a zero bucket at least as wide. A populated bucket that the edge would cut is taken in whole, so
    /// the threshold may come out larger than asked for.
    pub(super) fn with_zero_threshold(mut self, threshold: f64) -> Histogram {
        if threshold <= self.zero_threshold {
            return self;
        }
        let mut edge = threshold;
        for (index, count) in self.positive.iter().chain(&self.negative) {
            let (lower, upper) = self.bounds(*index);
            if *count != 0.0 && lower < threshold && upper > edge {
                edge = upper;
            }
        }
        let schema = self.schema;
        let is_inside = |index: i32| exponential_bound(index - 1, schema) < edge;
        for buckets in [&mut self.positive, &mut self.negative] {
            self.zero_count +=
                buckets.iter().filter(|(i, _)| is_inside(*i)).map(|(_, count)| count).sum::<f64>();
            buckets.retain(|(index, _)| !is_inside(*index));
        }
        self.zero_threshold = edge;
        self
    }

    /// With some of its custom bounds only.
    pub(super) fn with_bounds(mut self, bounds: &Arc<[f64]>) -> Histogram {
        if self.custom_bounds == *bounds {
            return self;
        }
        let old = self.custom_bounds.clone();
        self.positive = moved(&self.positive, |index| {
            let upper =
                usize::try_from(index).ok().and_then(|at| old.get(at)).copied().unwrap_or(f64::INFINITY);
            bounds.partition_point(|bound| *bound < upper) as i32
        });
        self.custom_bounds = bounds.clone();
        self
    }
}

/// A layout that histograms can be brought to without guessing.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    schema: i32,
    zero_threshold: f64,
    bounds: Arc<[f64]>,
    /// Whether custom bounds differed.
    pub(super) is_reconciled: bool,
}

impl Layout {
    /// The finest layout common to all, or nothing if exponential and custom bounds are mixed.
    pub(super) fn common<'a>(mut histograms: impl Iterator<Item = &'a Histogram> + Clone) -> Option<Layout> {
        let all = histograms.clone();
        let first = histograms.next()?;
        let mut layout = Layout {
            schema: first.schema,
            zero_threshold: first.zero_threshold,
            bounds: first.custom_bounds.clone(),
            is_reconciled: false,
        };
        for histogram in histograms {
            if histogram.is_custom() != first.is_custom() {
                return None;
            }
            layout.schema = layout.schema.min(histogram.schema);
            layout.zero_threshold = layout.zero_threshold.max(histogram.zero_threshold);
            if histogram.custom_bounds != layout.bounds {
                let shared = |bound: &&f64| histogram.custom_bounds.contains(bound);
                layout.bounds = layout.bounds.iter().filter(shared).copied().collect();
                layout.is_reconciled = true;
            }
        }
        // Taking in a cut bucket widens the zero bucket, which may cut a bucket of another histogram.
        loop {
            let widest = all
                .clone()
                .map(|histogram| histogram.clone().with_zero_threshold(layout.zero_threshold).zero_threshold)
                .fold(layout.zero_threshold, f64::max);
            if widest == layout.zero_threshold || first.is_custom() {
                return Some(layout);
            }
            layout.zero_threshold = widest;
        }
    }

    pub(super) fn apply(&self, histogram: &Histogram) -> Histogram {
        let histogram = histogram.clone();
        if histogram.is_custom() {
            histogram.with_bounds(&self.bounds)
        } else {
            histogram.with_zero_threshold(self.zero_threshold).downscaled(self.schema)
        }
    }
}
