//! `load_with_nhcb`: classic histograms of a load as native ones with custom bounds.

use std::collections::BTreeMap;

use super::points::Point;
use crate::histogram::{Histogram, NHCB_SCHEMA};
use crate::labels::{Labels, METRIC_NAME};
use crate::source::Value;

/// What the series of one classic histogram say at one time.
#[derive(Default)]
struct Classic {
    /// Upper bound and cumulative count; of equal bounds the first counts.
    buckets: Vec<(f64, f64)>,
    sum: f64,
    count: Option<f64>,
}

/// Every native histogram that a load implies, with its place in the series.
pub(super) fn converted(loaded: &BTreeMap<Labels, Vec<Point>>) -> Vec<(Labels, usize, Histogram)> {
    let mut classics: BTreeMap<(Labels, usize), Classic> = BTreeMap::new();
    for (labels, points) in loaded {
        let name = labels.metric_name();
        let Some((base, part)) = ["_bucket", "_sum", "_count"]
            .into_iter()
            .find_map(|part| name.strip_suffix(part).map(|base| (base, part)))
        else {
            continue;
        };
        let Ok(bound) = labels.get("le").parse::<f64>().or(if part == "_bucket" { Err(()) } else { Ok(0.0) })
        else {
            continue;
        };
        let family = labels.without(&["le".to_owned()]).with(METRIC_NAME, base);
        for (at, point) in points.iter().enumerate() {
            let Point::Sample { value: Value::Float(value), .. } = point else { continue };
            let classic = classics.entry((family.clone(), at)).or_default();
            match part {
                "_sum" => classic.sum = *value,
                "_count" => classic.count = Some(*value),
                _ if classic.buckets.iter().any(|(held, _)| *held == bound) => {}
                _ => classic.buckets.push((bound, *value)),
            }
        }
    }
    let with_buckets = classics.into_iter().filter(|(_, classic)| !classic.buckets.is_empty());
    with_buckets.map(|((labels, at), classic)| (labels, at, native(classic))).collect()
}

fn native(mut classic: Classic) -> Histogram {
    classic.buckets.sort_by(|left, right| left.0.total_cmp(&right.0));
    let last = classic.buckets.last().map_or(0.0, |(_, count)| *count);
    let count = classic.count.unwrap_or(last);
    if !classic.buckets.last().is_some_and(|(bound, _)| bound.is_infinite()) {
        classic.buckets.push((f64::INFINITY, count));
    }
    let mut below = 0.0;
    let mut positive = Vec::with_capacity(classic.buckets.len());
    for (at, (_, cumulative)) in classic.buckets.iter().enumerate() {
        positive.push((at as i32, cumulative - below));
        below = *cumulative;
    }
    Histogram {
        schema: NHCB_SCHEMA,
        count,
        sum: classic.sum,
        positive,
        custom_bounds: classic
            .buckets
            .iter()
            .map(|(bound, _)| *bound)
            .filter(|bound| bound.is_finite())
            .collect(),
        ..Histogram::default()
    }
}
