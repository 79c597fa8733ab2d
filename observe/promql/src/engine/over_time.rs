//! Functions on the points of a window, beside those that compute rates.

use std::sync::Arc;

use super::aggregate::{extreme, quantile, variance};
use super::column::Row;
use super::select::{RangeInput, RangeRow, Window};
use super::sliding::{Largest, Sliding};
use super::{Evaluator, Grid};
use crate::ast::{Expr, Span};
use crate::error::Error;
use crate::histogram::{Histogram, Kahan, mean};
use crate::source::{OfWindow, Value};

/// One point of either kind.
#[derive(Clone, Copy)]
enum Point<'a> {
    Float(f64),
    Histogram(&'a Histogram),
}

/// Both kinds of points of a window by time.
fn by_time<'a>(window: &Window<'a>) -> Vec<Point<'a>> {
    let mut points: Vec<(i64, Point<'a>)> =
        window.floats.iter().map(|(time, value)| (*time, Point::Float(*value))).collect();
    points.extend(window.histograms.iter().map(|(time, histogram)| (*time, Point::Histogram(histogram))));
    points.sort_by_key(|(time, _)| *time);
    points.into_iter().map(|(_, point)| point).collect()
}

fn changed(before: Point<'_>, after: Point<'_>) -> bool {
    match (before, after) {
        (Point::Float(before), Point::Float(after)) => {
            before != after && !(before.is_nan() && after.is_nan())
        }
        (Point::Histogram(before), Point::Histogram(after)) => !after.is_same(before),
        _ => true,
    }
}

fn was_reset(before: Point<'_>, after: Point<'_>) -> bool {
    match (before, after) {
        (Point::Float(before), Point::Float(after)) => after < before,
        (Point::Histogram(before), Point::Histogram(after)) => after.is_reset_after(before),
        _ => true,
    }
}

fn count_pairs(window: &Window<'_>, test: impl Fn(Point<'_>, Point<'_>) -> bool) -> f64 {
    if window.histograms.is_empty() {
        let pairs = window.floats.windows(2);
        return pairs.filter(|pair| test(Point::Float(pair[0].1), Point::Float(pair[1].1))).count() as f64;
    }
    by_time(window).windows(2).filter(|pair| test(pair[0], pair[1])).count() as f64
}

/// Numbers that a function takes beside its window, at most.
const PARAMETERS_MAX: usize = 2;

/// Line through points: slope per second, and value at `origin_ms`.
fn line(points: &[(i64, f64)], origin_ms: i64) -> (f64, f64) {
    let first = points[0].1;
    if points.iter().all(|(_, value)| *value == first) {
        return if first.is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, first) };
    }
    let n = points.len() as f64;
    let x = |time: i64| (time - origin_ms) as f64 / 1000.0;
    let mut totals = [Kahan::default(); 4];
    for (time, y) in points {
        let x = x(*time);
        for (total, value) in totals.iter_mut().zip([x, *y, x * y, x * x]) {
            total.add(value);
        }
    }
    let [sum_x, sum_y, sum_xy, sum_xx] = totals.map(Kahan::total);
    let slope = (sum_xy - sum_x * sum_y / n) / (sum_xx - sum_x * sum_x / n);
    (slope, sum_y / n - slope * sum_x / n)
}

/// Holt's linear method: smoothed level and trend.
fn smoothed(points: &[(i64, f64)], level_factor: f64, trend_factor: f64) -> f64 {
    let (mut level_before, mut level) = (0.0, points[0].1);
    let mut trend = points[1].1 - points[0].1;
    for (at, (_, value)) in points.iter().enumerate().skip(1) {
        if at > 1 {
            trend = trend_factor * (level - level_before) + (1.0 - trend_factor) * trend;
        }
        level_before = level;
        level = level_factor * value + (1.0 - level_factor) * (level + trend);
    }
    level
}

fn median_deviation(values: Vec<f64>) -> f64 {
    if values.iter().any(|value| value.is_nan()) {
        return f64::NAN;
    }
    let median = quantile(0.5, values.clone());
    quantile(0.5, values.into_iter().map(|value| (value - median).abs()).collect())
}

fn time_of_extreme(points: &[(i64, f64)], is_max: bool) -> Option<f64> {
    let best = points.iter().copied().reduce(|held, point| {
        let is_as_good = if is_max { point.1 >= held.1 } else { point.1 <= held.1 };
        if is_as_good || held.1.is_nan() { point } else { held }
    });
    best.map(|(time, _)| time as f64 / 1000.0)
}

fn edge(window: &Window<'_>, is_last: bool) -> Option<(i64, Value)> {
    let (floats, histograms) = (window.floats, window.histograms);
    let float = if is_last { floats.last() } else { floats.first() };
    let histogram = if is_last { histograms.last() } else { histograms.first() };
    let float = float.map(|(time, value)| (*time, Value::Float(*value)));
    let histogram = histogram.map(|(time, value)| (*time, Value::Histogram(value.clone())));
    match (float, histogram) {
        (Some(float), Some(histogram)) => {
            Some(if (float.0 > histogram.0) == is_last { float } else { histogram })
        }
        (float, histogram) => float.or(histogram),
    }
}

/// A function of floats; histograms beside them are remarked on, alone they give nothing.
fn on_floats(name: &str, points: &[(i64, f64)], window: &Window<'_>, parameters: &[f64]) -> Option<f64> {
    let values = || points.iter().map(|(_, value)| *value);
    match name {
        "min_over_time" => extreme(false, values()),
        "max_over_time" => extreme(true, values()),
        "stddev_over_time" => Some(variance(values()).sqrt()),
        "stdvar_over_time" => Some(variance(values())),
        "mad_over_time" => Some(median_deviation(values().collect())),
        "quantile_over_time" => Some(quantile(parameters[0], values().collect())),
        "ts_of_max_over_time" => time_of_extreme(points, true),
        "ts_of_min_over_time" => time_of_extreme(points, false),
        "deriv" if points.len() > 1 => Some(line(points, points[0].0).0),
        "predict_linear" if points.len() > 1 => {
            let (slope, intercept) = line(points, window.time_ms);
            Some(slope * parameters[0] + intercept)
        }
        "double_exponential_smoothing" if points.len() > 1 => {
            Some(smoothed(points, parameters[0], parameters[1]))
        }
        _ => None,
    }
}

/// `last_over_time` and `first_over_time` give back samples as they were, names too.
fn keep_names(rows: &mut [Row], input: &RangeInput) {
    let mut sources = input.rows.iter();
    for row in rows {
        let source = sources.by_ref().find(|source| source.labels == row.labels);
        row.drops_name = source.is_some_and(|source| source.drops_name);
    }
}

impl Evaluator<'_> {
    /// Any function of one range vector and some numbers that is not a rate.
    pub(super) fn over_time(
        &mut self,
        name: &'static str,
        input: &RangeInput,
        parameters: &[Vec<f64>],
        grid: Grid,
    ) -> Result<Vec<Row>, Error> {
        let span = input.span;
        let (mut sums, mut largest) = (Sliding::<Kahan>::new(), Sliding::<Largest>::new());
        // The smallest of some values is the largest of their opposites.
        let sign = if name == "min_over_time" { -1.0 } else { 1.0 };
        let mut rows = self.over_windows(input, grid, |this, row, window| match name {
            "min_over_time" | "max_over_time" if row.histograms.is_empty() => {
                let best = largest.total(window, &row.floats, |value| sign * value)?;
                Some(Value::Float(sign * best.0))
            }
            "sum_over_time" | "avg_over_time" if row.histograms.is_empty() => {
                let total = sums.total(window, &row.floats, |value| value)?.total();
                if !total.is_finite() {
                    return this.total_over_time(name, row, window, span);
                }
                let count = if name == "avg_over_time" { row.samples_in(window) as f64 } else { 1.0 };
                Some(Value::Float(total / count))
            }
            "count_over_time" => {
                Some(Value::Float((row.samples_in(window) + window.histograms.len()) as f64))
            }
            "present_over_time" => Some(Value::Float(1.0)),
            "last_over_time" => edge(window, true).map(|(_, value)| value),
            "first_over_time" => edge(window, false).map(|(_, value)| value),
            "ts_of_last_over_time" => edge(window, true).map(|(time, _)| Value::Float(time as f64 / 1000.0)),
            "ts_of_first_over_time" => {
                edge(window, false).map(|(time, _)| Value::Float(time as f64 / 1000.0))
            }
            "changes" => Some(Value::Float(count_pairs(window, changed))),
            "resets" => Some(Value::Float(count_pairs(window, was_reset))),
            "sum_over_time" | "avg_over_time" => this.total_over_time(name, row, window, span),
            _ => {
                let mut numbers = [f64::NAN; PARAMETERS_MAX];
                numbers.iter_mut().zip(parameters).for_each(|(number, values)| *number = values[window.at]);
                if window.floats.is_empty() {
                    return None;
                }
                if !window.histograms.is_empty() {
                    this.ignored_in_range(span, row.labels.metric_name());
                }
                on_floats(name, window.floats, window, &numbers).map(Value::Float)
            }
        })?;
        if matches!(name, "last_over_time" | "first_over_time") {
            keep_names(&mut rows, input);
        }
        Ok(rows)
    }

    fn total_over_time(
        &mut self,
        name: &str,
        row: &RangeRow,
        window: &Window<'_>,
        span: Span,
    ) -> Option<Value> {
        let is_mean = name == "avg_over_time";
        let metric = row.labels.metric_name();
        if window.histograms.is_empty() {
            let values = window.floats.iter().map(|(_, value)| *value);
            let total = if is_mean { mean(values) } else { values.collect::<Kahan>().total() };
            return Some(Value::Float(total));
        }
        if !window.floats.is_empty() {
            self.mixed_floats_and_histograms(span, metric);
            return None;
        }
        let histograms: Vec<Arc<Histogram>> =
            window.histograms.iter().map(|(_, histogram)| histogram.clone()).collect();
        self.total_of_histograms(&histograms, is_mean, span, metric)
    }

    /// `absent_over_time`: where no series has a point.
    pub(super) fn absent_over_time(&mut self, argument: &Expr, grid: Grid) -> Result<Vec<Row>, Error> {
        let input = self.range(argument, grid, OfWindow::Edge)?;
        let rows = self.over_windows(&input, grid, |_, _, _| Some(Value::Float(1.0)))?;
        Ok(vec![super::calls::absent_row(argument, &rows, grid)])
    }
}
