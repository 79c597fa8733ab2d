//! How much a series changes: `rate`, `increase`, `delta`, `irate`, `idelta`, for floats and for histograms.

use std::sync::Arc;

use super::column::Row;
use super::select::{RangeInput, RangeRow, Window};
use super::{Evaluator, Grid};
use crate::ast::{Extension, Span};
use crate::error::Error;
use crate::histogram::{self, CounterReset, Histogram};
use crate::source::Value;

/// Samples farther from the edge than this many mean distances are not extrapolated to it.
const EXTRAPOLATION_DISTANCES: f64 = 1.1;

/// Counters by their usual names.
const COUNTER_ENDINGS: &[&str] = &["_total", "_sum", "_count", "_bucket"];

/// What a rate function computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// Falling values are resets, and the result is never below zero.
    pub(super) is_counter: bool,
    /// Per second.
    pub(super) is_rate: bool,
    /// Of the last two samples only.
    pub(super) is_instant: bool,
}

impl Kind {
    pub(super) fn of(name: &str) -> Option<Kind> {
        let kind = |is_counter, is_rate, is_instant| Some(Kind { is_counter, is_rate, is_instant });
        match name {
            "rate" => kind(true, true, false),
            "increase" => kind(true, false, false),
            "delta" => kind(false, false, false),
            "irate" => kind(true, true, true),
            "idelta" => kind(false, false, true),
            _ => None,
        }
    }
}

/// The change over all points, resets of a counter added up.
pub(super) fn change(points: &[(i64, f64)], is_counter: bool) -> f64 {
    let mut change = points[points.len() - 1].1 - points[0].1;
    if is_counter {
        for pair in points.windows(2) {
            if pair[1].1 < pair[0].1 {
                change += pair[0].1;
            }
        }
    }
    change
}

/// The factor from the change between the samples to the change over the window. `zero_ratio` is first value
/// over change: it says where a counter would have been zero, before which nothing is extrapolated.
fn extrapolation(
    window: &Window<'_>,
    first_ms: i64,
    last_ms: i64,
    count: usize,
    zero_ratio: Option<f64>,
) -> f64 {
    let seconds = |milliseconds: i64| milliseconds as f64 / 1000.0;
    let sampled = seconds(last_ms - first_ms);
    let mean_distance = sampled / (count - 1) as f64;
    let limit = mean_distance * EXTRAPOLATION_DISTANCES;
    let mut to_start = seconds(first_ms - window.from_ms);
    let mut to_end = seconds(window.to_ms - last_ms);
    if to_start >= limit {
        to_start = mean_distance / 2.0;
    }
    if let Some(ratio) = zero_ratio {
        to_start = to_start.min(sampled * ratio);
    }
    if to_end >= limit {
        to_end = mean_distance / 2.0;
    }
    (sampled + to_start + to_end) / sampled
}

fn zero_ratio(kind: Kind, first: f64, change: f64) -> Option<f64> {
    (kind.is_counter && change > 0.0 && first >= 0.0).then(|| first / change)
}

impl Evaluator<'_> {
    pub(super) fn rates(&mut self, kind: Kind, mut input: RangeInput, grid: Grid) -> Result<Vec<Row>, Error> {
        if input.extension != Extension::None && !kind.is_instant {
            return self.extended_rates(kind, &input, grid);
        }
        if kind.is_counter && !kind.is_instant {
            input.rows.iter_mut().filter(|row| row.counts.is_empty()).for_each(RangeRow::find_resets);
        }
        let span = input.span;
        self.over_windows(&input, grid, |this, row, window| {
            let name = row.labels.metric_name();
            if kind.is_instant {
                return this.instant_change(kind, window, span, name);
            }
            if !window.floats.is_empty() && !window.histograms.is_empty() {
                this.mixed_floats_and_histograms(span, name);
                return None;
            }
            this.extrapolated(kind, row, window, input.range_ms, span)
        })
    }

    fn extrapolated(
        &mut self,
        kind: Kind,
        row: &RangeRow,
        window: &Window<'_>,
        range_ms: i64,
        span: Span,
    ) -> Option<Value> {
        if window.points() < 2 {
            return None;
        }
        // Of downsampled series a window's borders may have moved; the change is still that of the range.
        let length_ms = (window.to_ms - window.from_ms) as f64;
        let per = if kind.is_rate { length_ms / 1000.0 } else { length_ms / range_ms as f64 };
        let name = row.labels.metric_name();
        if let [(first_ms, first), .., (last_ms, _)] = window.floats {
            self.check_counter_name(kind, name, span);
            let last = window.floats[window.floats.len() - 1].1;
            let lost = if kind.is_counter { row.lost_in(window) } else { 0.0 };
            let change = last - first + lost;
            let ratio = zero_ratio(kind, *first, change);
            let factor = extrapolation(window, *first_ms, *last_ms, row.samples_in(window), ratio) / per;
            return Some(Value::Float(change * factor));
        }
        let [(first_ms, first), .., (last_ms, _)] = window.histograms else { return None };
        let mut change = self.histogram_change(kind, window.histograms, span, name)?;
        let ratio = zero_ratio(kind, first.count, change.count);
        let factor = extrapolation(window, *first_ms, *last_ms, window.histograms.len(), ratio) / per;
        change.scale(|value| value * factor);
        Some(Value::Histogram(Arc::new(change)))
    }

    pub(super) fn check_counter_name(&mut self, kind: Kind, name: &str, span: Span) {
        let is_counter_name = COUNTER_ENDINGS.iter().any(|ending| name.ends_with(ending));
        if kind.is_counter && !name.is_empty() && !is_counter_name {
            self.maybe_not_a_counter(span, name);
        }
    }

    fn check_hints(&mut self, kind: Kind, points: &[(i64, Arc<Histogram>)], span: Span, name: &str) {
        let is_gauge = |(_, histogram): &(i64, Arc<Histogram>)| histogram.hint == CounterReset::Gauge;
        if kind.is_counter && points.iter().any(is_gauge) {
            self.not_a_counter(span, name);
        }
        if !kind.is_counter && !points.iter().all(is_gauge) {
            self.not_a_gauge(span, name);
        }
    }

    /// The change over all points. If the second is a reset, the first counts as empty whatever its layout.
    pub(super) fn histogram_change(
        &mut self,
        kind: Kind,
        points: &[(i64, Arc<Histogram>)],
        span: Span,
        name: &str,
    ) -> Option<Histogram> {
        self.check_hints(kind, points, span, name);
        let last = &points[points.len() - 1].1;
        let mut first = points[0].1.clone();
        if kind.is_counter && points[1].1.is_reset_after(&first) {
            first = Arc::new(empty_like(&points[1].1));
        }
        let layouts = || std::iter::once(&first).chain(points[1..].iter().map(|(_, histogram)| histogram));
        if layouts().any(|histogram| histogram.is_custom() != last.is_custom()) {
            self.mixed_schemas(span, name);
            return None;
        }
        // Bounds that differ anywhere are narrowed to the common ones, also where only a middle point differs.
        let narrow = layouts().fold(empty_like(last), |narrow, histogram| {
            histogram::combine(&narrow, &empty_like(histogram), 1.0)
                .map_or(narrow, |combined| combined.histogram)
        });
        let mut is_reconciled = false;
        let mut add = |total: Histogram, other: &Histogram, factor: f64| {
            let combined = histogram::combine(&total, other, factor).ok()?;
            is_reconciled |= combined.is_reconciled && factor < 0.0;
            Some(combined.histogram)
        };
        let mut total = add((**last).clone(), &first, -1.0)?;
        total = add(total, &narrow, 1.0)?;
        if kind.is_counter {
            let chain: Vec<&Arc<Histogram>> = layouts().collect();
            for pair in chain.windows(2) {
                if pair[1].is_reset_after(pair[0]) {
                    total = add(total, pair[0], 1.0)?;
                }
            }
        }
        if is_reconciled {
            self.reconciled(span, "subtraction");
        }
        total.hint = CounterReset::Gauge;
        Some(total.compacted())
    }

    fn instant_change(&mut self, kind: Kind, window: &Window<'_>, span: Span, name: &str) -> Option<Value> {
        let mut latest: Vec<(i64, Value)> = Vec::with_capacity(4);
        latest.extend(window.floats.iter().rev().take(2).map(|(time, value)| (*time, Value::Float(*value))));
        let histograms = window.histograms.iter().rev().take(2);
        latest.extend(histograms.map(|(time, value)| (*time, Value::Histogram(value.clone()))));
        latest.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
        let [(last_ms, last), (before_ms, before), ..] = latest.as_slice() else { return None };
        let seconds = (last_ms - before_ms) as f64 / 1000.0;
        if seconds == 0.0 {
            return None;
        }
        let per = if kind.is_rate { seconds } else { 1.0 };
        match (before, last) {
            (Value::Float(before), Value::Float(last)) => {
                let is_reset = kind.is_counter && last < before;
                Some(Value::Float(if is_reset { *last } else { last - before } / per))
            }
            (Value::Histogram(before), Value::Histogram(last)) => {
                self.instant_histogram_change(kind, before, last, per, span, name)
            }
            _ => {
                self.mixed_floats_and_histograms(span, name);
                None
            }
        }
    }

    fn instant_histogram_change(
        &mut self,
        kind: Kind,
        before: &Arc<Histogram>,
        last: &Arc<Histogram>,
        per: f64,
        span: Span,
        name: &str,
    ) -> Option<Value> {
        self.check_hints(kind, &[(0, before.clone()), (0, last.clone())], span, name);
        let mut change = if kind.is_counter && last.is_reset_after(before) {
            (**last).clone()
        } else {
            let Ok(combined) = histogram::combine(last, before, -1.0) else {
                self.mixed_schemas(span, name);
                return None;
            };
            if combined.is_reconciled {
                self.reconciled(span, "subtraction");
            }
            combined.histogram
        };
        change.hint = CounterReset::Gauge;
        change.scale(|value| value / per);
        Some(Value::Histogram(Arc::new(change.compacted())))
    }
}

fn empty_like(histogram: &Histogram) -> Histogram {
    Histogram {
        schema: histogram.schema,
        zero_threshold: histogram.zero_threshold,
        custom_bounds: histogram.custom_bounds.clone(),
        ..Histogram::default()
    }
}
