//! Aggregations that pick series from a group: `topk`, `bottomk`, `limitk`, `limit_ratio`.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use super::aggregate::groups;
use super::column::Row;
use super::{Evaluator, Grid};
use crate::ast::{Aggregate, AggregateOp, Span};
use crate::error::Error;
use crate::labels::Labels;
use crate::source::Value;

impl Evaluator<'_> {
    pub(super) fn rank(&mut self, aggregate: &Aggregate, grid: Grid) -> Result<Vec<Row>, Error> {
        let Some(parameter) = &aggregate.parameter else { return Ok(Vec::new()) };
        if matches!(aggregate.op, AggregateOp::Limitk | AggregateOp::LimitRatio) && !self.options.experimental
        {
            return Err(Error::Execution(format!("{} is experimental and not enabled", aggregate.op.text())));
        }
        let limits = self.scalar(parameter, grid)?;
        let limits = self.checked_limits(aggregate.op, limits, parameter.span)?;
        let mut rows = self.rows(&aggregate.inner, grid)?;
        // Of equal series the first by labels wins, so that the choice at a time is the same alone and in a range.
        rows.sort_by(|left, right| left.labels.cmp(&right.labels));
        let mut is_kept = vec![vec![false; grid.count]; rows.len()];
        let mut order: Vec<usize> = Vec::new();
        for group in groups(aggregate, &rows) {
            self.spend(grid.count)?;
            let mut picked = Vec::new();
            for (at, limit) in limits.iter().enumerate() {
                picked = self.picked(aggregate.op, &rows, &group.rows, at, *limit, aggregate.inner.span);
                for row in &picked {
                    is_kept[*row][at] = true;
                }
            }
            // At a single time the rank is the order of the result.
            order.extend(if grid.count == 1 { picked } else { group.rows });
        }
        for (row, is_kept) in rows.iter_mut().zip(&is_kept) {
            for (slot, is_kept) in row.column.iter_mut().zip(is_kept) {
                if !is_kept {
                    *slot = None;
                }
            }
        }
        let mut rows: Vec<Option<Row>> = rows.into_iter().map(Some).collect();
        let ordered = order.into_iter().filter_map(|at| rows[at].take());
        Ok(ordered.filter(Row::has_values).collect())
    }

    fn checked_limits(&mut self, op: AggregateOp, limits: Vec<f64>, span: Span) -> Result<Vec<f64>, Error> {
        let is_ratio = op == AggregateOp::LimitRatio;
        let mut checked = Vec::with_capacity(limits.len());
        for limit in limits {
            if limit.is_nan() {
                let what = if is_ratio { "Ratio" } else { "Parameter" };
                return Err(Error::Execution(format!("{what} value is NaN")));
            }
            if is_ratio && limit.abs() > 1.0 {
                self.invalid_ratio(span, limit, limit.clamp(-1.0, 1.0));
            }
            if !is_ratio && limit.abs() >= i64::MAX as f64 {
                return Err(Error::Execution(format!("Scalar value {limit} overflows int64")));
            }
            checked.push(if is_ratio { limit.clamp(-1.0, 1.0) } else { limit.max(0.0).trunc() });
        }
        Ok(checked)
    }

    fn picked(
        &mut self,
        op: AggregateOp,
        rows: &[Row],
        members: &[usize],
        at: usize,
        limit: f64,
        span: Span,
    ) -> Vec<usize> {
        let present = members.iter().copied().filter(|row| rows[*row].column[at].is_some());
        match op {
            AggregateOp::Limitk => return present.take(limit as usize).collect(),
            AggregateOp::LimitRatio => {
                return present.filter(|row| is_in_share(&rows[*row].labels, limit)).collect();
            }
            _ => {}
        }
        let mut floats: Vec<(usize, f64)> = Vec::new();
        for row in present {
            match rows[row].column[at] {
                Some(Value::Float(value)) => floats.push((row, value)),
                _ => self.ignored_in_aggregation(span, op.text()),
            }
        }
        let is_top = op == AggregateOp::Topk;
        floats.sort_by(|(_, left), (_, right)| match (left.is_nan(), right.is_nan()) {
            (false, false) if is_top => right.total_cmp(left),
            (false, false) => left.total_cmp(right),
            (left, right) => left.cmp(&right),
        });
        floats.truncate(limit as usize);
        floats.into_iter().map(|(row, _)| row).collect()
    }
}

/// Whether a series falls into a share of all, by its labels only: the same at every time and in every query.
/// A negative ratio is the complement of the positive one.
fn is_in_share(labels: &Labels, ratio: f64) -> bool {
    let mut hasher = DefaultHasher::new();
    labels.hash(&mut hasher);
    let place = hasher.finish() as f64 / u64::MAX as f64;
    if ratio >= 0.0 { place < ratio || ratio >= 1.0 } else { place >= 1.0 + ratio }
}
