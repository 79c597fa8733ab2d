//! Random series: counters with resets or gaps, gauges with gaps and ends, odd values, classic and native histograms.

use std::collections::BTreeMap;
use std::sync::Arc;

use belfry_signal::{NativeHistogram, PointValue, SeriesBatch, SeriesLabels, SeriesPoints};
use rand::{RngExt as _, rngs::StdRng};

use super::queries::pick;

/// Points of each series, fifteen seconds apart: an hour.
const POINTS: u64 = 240;
/// Points of each request; the other takes nothing that is an hour older than the newest.
const POINTS_AT_ONCE: usize = 40;

type Column = Vec<Option<PointValue>>;

fn labels(pairs: &[(&str, &str)]) -> SeriesLabels {
    let sorted: BTreeMap<&str, &str> = pairs.iter().copied().collect();
    sorted.into_iter().map(|(name, value)| (Arc::from(name), Arc::from(value))).collect()
}

fn stale() -> f64 {
    f64::from_bits(0x7ff0_0000_0000_0002)
}

/// The data in requests, oldest first.
pub(super) fn batches(random: &mut StdRng, begin: u64) -> Vec<SeriesBatch> {
    let mut all: Vec<(SeriesLabels, Column)> = Vec::new();
    for (index, l) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
        let g = if index.is_multiple_of(2) { "x" } else { "y" };
        let n = index.to_string();
        let named = |name: &str| labels(&[("__name__", name), ("l", l), ("g", g)]);
        all.push((named("c_total"), counter(random, index)));
        all.push((named("d_total"), counter(random, index + 1)));
        all.push((named("w"), gauge(random, index)));
        all.push((labels(&[("__name__", "v"), ("l", l), ("g", g), ("n", &n)]), walk(random)));
        all.push((
            labels(&[("__name__", "i"), ("l", l), ("version", pick(random, &["1.2", "1.10", "2"]))]),
            constant(),
        ));
        all.push((labels(&[("__name__", "h"), ("l", l), ("g", g)]), native(random, index)));
        if index < 3 {
            all.push((labels(&[("__name__", "odd"), ("l", l)]), odd(random)));
            for (le, column) in classic(random) {
                all.push((labels(&[("__name__", "b_bucket"), ("l", l), ("g", g), ("le", le)]), column));
            }
        }
    }
    let time = |at: usize| i64::try_from((begin + 15 * at as u64) * 1000 + 3700).expect("a time");
    let slice = |from: usize| {
        let series = all.iter().map(|(labels, column)| {
            let until = (from + POINTS_AT_ONCE).min(column.len());
            let points = (from..until).filter_map(|at| Some((time(at), column[at].clone()?))).collect();
            SeriesPoints { labels: Arc::clone(labels), created_ms: None, points, exemplars: Vec::new() }
        });
        let series = series.filter(|series| !series.points.is_empty()).collect();
        SeriesBatch { series, metadata: Vec::new() }
    };
    (0..POINTS as usize).step_by(POINTS_AT_ONCE).map(slice).collect()
}

/// Every other one is reset now and then, the others have gaps: after a gap and near zero 3.0 extrapolates otherwise.
fn counter(random: &mut StdRng, index: usize) -> Column {
    let mut value = random.random_range(5000..9000) as f64;
    let step = |at| {
        value += random.random_range(0..40) as f64 / if index == 3 { 8.0 } else { 1.0 };
        let is_rare = random.random_range(0..25) == 0 && at > 0;
        if is_rare && index.is_multiple_of(2) {
            value = random.random_range(0..30) as f64;
        }
        (!is_rare || index.is_multiple_of(2)).then_some(PointValue::Float(value))
    };
    (0..POINTS).map(step).collect()
}

fn gauge(random: &mut StdRng, index: usize) -> Column {
    let step = |_| {
        let value = random.random_range(-50_000..50_000) as f64 / 100.0;
        match random.random_range(0..20) {
            0 if index > 1 => None,
            1 if index > 2 => Some(PointValue::Float(stale())),
            _ => Some(PointValue::Float(value)),
        }
    };
    (0..POINTS).map(step).collect()
}

fn walk(random: &mut StdRng) -> Column {
    let mut value = random.random_range(1.0..1000.0);
    let step = |_| {
        value += random.random_range(-3.0..3.0);
        Some(PointValue::Float(value))
    };
    (0..POINTS).map(step).collect()
}

fn constant() -> Column {
    (0..POINTS).map(|_| Some(PointValue::Float(1.0))).collect()
}

fn odd(random: &mut StdRng) -> Column {
    let step = |_| {
        let value = random.random_range(-9..10) as f64;
        let odd = pick(random, &[value, value, value, 0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY]);
        Some(PointValue::Float(odd))
    };
    (0..POINTS).map(step).collect()
}

fn classic(random: &mut StdRng) -> Vec<(&'static str, Column)> {
    let bounds = ["0.1", "0.5", "1", "2.5", "+Inf"];
    let mut counts = [500_u64; 5];
    let mut columns: Vec<Column> = vec![Vec::new(); bounds.len()];
    for _ in 0..POINTS {
        for _ in 0..random.random_range(0..9) {
            counts[random.random_range(0..bounds.len())] += 1;
        }
        let mut sum = 0;
        for (column, count) in columns.iter_mut().zip(counts) {
            sum += count;
            column.push(Some(PointValue::Float(sum as f64)));
        }
    }
    bounds.into_iter().zip(columns).collect()
}

/// Counts are far from zero: since 3.0 rates are not extrapolated beyond it.
fn native(random: &mut StdRng, index: usize) -> Column {
    let (mut buckets, mut zero, mut sum) = ([900_u64; 8], 900_u64, 8e4);
    let step = |_| {
        for _ in 0..random.random_range(0..9) {
            buckets[random.random_range(0..buckets.len())] += 1;
            sum += random.random_range(0..800) as f64 / 4.0;
        }
        zero += random.random_range(0..3);
        if index == 2 && random.random_range(0..40) == 0 {
            (buckets, zero, sum) = ([300; 8], 300, 2e4);
        }
        let positive: Vec<(i32, f64)> = (-2..)
            .zip(buckets)
            .filter(|(_, count)| *count > 0)
            .map(|(at, count)| (at, count as f64))
            .collect();
        let count = zero as f64 + positive.iter().map(|(_, count)| count).sum::<f64>();
        Some(PointValue::Histogram(Box::new(NativeHistogram {
            is_gauge: false,
            schema: (index % 3) as i32,
            zero_threshold: 0.001,
            zero_count: zero as f64,
            count,
            sum,
            positive,
            negative: Vec::new(),
            custom_bounds: Vec::new(),
        })))
    };
    (0..POINTS).map(step).collect()
}
