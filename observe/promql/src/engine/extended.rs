//! `anchored` and `smoothed`: ranges that look beyond their edges instead of extrapolating.
//!
//! Anchored: the last point at or before the left edge stands at that edge. Smoothed: the values at both edges
//! are interpolated between the points around them. Histograms take no part.

use super::column::Row;
use super::rate::Kind;
use super::select::{RangeInput, RangeRow};
use super::{Evaluator, Grid};
use crate::ast::{Extension, Selector};
use crate::error::Error;
use crate::source::{Value, is_stale};

/// The value at a time: that of a point there, else on the line between the points around it, else that of the
/// point before. A counter that falls in between is taken to start again from zero.
fn interpolated(points: &[(i64, f64)], time: i64, lookback: i64, is_counter: bool) -> Option<f64> {
    let next = points.partition_point(|(at, _)| *at <= time);
    let before = next.checked_sub(1).map(|at| points[at]).filter(|(at, _)| *at > time - lookback);
    let after = points.get(next).copied().filter(|(at, _)| *at < time + lookback);
    match (before, after) {
        (Some((at, value)), _) if at == time => Some(value),
        (Some((before_ms, before)), Some((after_ms, after))) => {
            let share = (time - before_ms) as f64 / (after_ms - before_ms) as f64;
            let from = if is_counter && after < before { 0.0 } else { before };
            Some(from + (after - from) * share)
        }
        (Some((_, value)), None) => Some(value),
        (None, _) => None,
    }
}

/// The points of an extended window, with those that stand at its edges.
fn extended(
    row: &RangeRow,
    input: &RangeInput,
    time: i64,
    lookback: i64,
    is_counter: bool,
) -> Vec<(i64, f64)> {
    let (from, to) = input.window(time);
    let first = row.floats.partition_point(|(at, _)| *at <= from);
    let last = row.floats.partition_point(|(at, _)| *at <= to);
    let inside = &row.floats[first..last];
    let mut points = Vec::with_capacity(inside.len() + 2);
    if input.extension == Extension::Anchored {
        if inside.is_empty() {
            return points;
        }
        let before = first.checked_sub(1).map(|at| row.floats[at]).filter(|(at, _)| *at > from - lookback);
        points.push((from, before.map_or(inside[0].1, |(_, value)| value)));
        points.extend_from_slice(inside);
        return points;
    }
    let start =
        interpolated(&row.floats, from, lookback, is_counter).or(inside.first().map(|(_, value)| *value));
    let end = interpolated(&row.floats, to, lookback, is_counter);
    let (Some(start), Some(end)) = (start, end) else { return points };
    points.push((from, start));
    points.extend(inside.iter().filter(|(at, _)| *at < to));
    points.push((to, end));
    points
}

impl Evaluator<'_> {
    fn over_extended(
        &mut self,
        input: &RangeInput,
        grid: Grid,
        is_counter: bool,
        function: impl Fn(&[(i64, f64)]) -> f64,
    ) -> Result<Vec<Row>, Error> {
        let lookback = self.options.lookback_ms;
        let mut rows = Vec::new();
        for row in &input.rows {
            self.spend(grid.count)?;
            let column = grid.times().map(|time| {
                let points = extended(row, input, time, lookback, is_counter);
                (!points.is_empty()).then(|| Value::Float(function(&points)))
            });
            let row = Row { labels: row.labels.clone(), drops_name: true, column: column.collect() };
            if row.has_values() {
                rows.push(row);
            }
        }
        Ok(rows)
    }

    pub(super) fn extended_rates(
        &mut self,
        kind: Kind,
        input: &RangeInput,
        grid: Grid,
    ) -> Result<Vec<Row>, Error> {
        let per = if kind.is_rate { input.range_ms as f64 / 1000.0 } else { 1.0 };
        for row in &input.rows {
            self.check_counter_name(kind, row.labels.metric_name(), input.span);
        }
        self.over_extended(input, grid, kind.is_counter, |points| {
            super::rate::change(points, kind.is_counter) / per
        })
    }

    pub(super) fn extended_counts(
        &mut self,
        name: &str,
        input: &RangeInput,
        grid: Grid,
    ) -> Result<Vec<Row>, Error> {
        let is_resets = name == "resets";
        self.over_extended(input, grid, false, |points| {
            let counts = |pair: &&[(i64, f64)]| {
                if is_resets { pair[1].1 < pair[0].1 } else { pair[1].1 != pair[0].1 }
            };
            points.windows(2).filter(counts).count() as f64
        })
    }

    /// `metric smoothed`: the value on the line between the samples around each time.
    pub(super) fn select_smoothed(&mut self, selector: &Selector, grid: Grid) -> Result<Vec<Row>, Error> {
        let (offset, at) = self.offset_and_at(selector)?;
        let lookback = self.options.lookback_ms;
        let reference = |time: i64| at.unwrap_or(time) - offset;
        let (from, to) = (reference(grid.start) - lookback + 1, reference(grid.end()) + lookback - 1);
        let mut rows = Vec::new();
        for mut series in self.read(selector, from, to)? {
            series.floats.retain(|(_, value)| !is_stale(*value));
            let value =
                |time| interpolated(&series.floats, reference(time), lookback, false).map(Value::Float);
            let column = grid.times().map(value).collect();
            let row = Row { labels: series.labels, drops_name: false, column };
            if row.has_values() {
                rows.push(row);
            }
        }
        Ok(rows)
    }
}
