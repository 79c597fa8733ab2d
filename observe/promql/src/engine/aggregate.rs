//! Aggregations that make one series of a group: `sum`, `avg`, `count`, `quantile` and the like.

use std::collections::HashMap;
use std::sync::Arc;

use super::column::{Output, Row};
use super::{Evaluator, Grid};
use crate::ast::{Aggregate, AggregateOp, Span};
use crate::error::Error;
use crate::histogram::{self, Histogram, Kahan};
use crate::labels::{Labels, METRIC_NAME, is_valid_label_name};
use crate::source::Value;
use crate::text::{format_float, quote};

/// A group: its labels and which rows are in it.
pub(super) struct Members {
    pub(super) labels: Labels,
    /// Whether a metric name that was grouped by goes away at the end, because it does in one of the rows.
    pub(super) drops_name: bool,
    pub(super) rows: Vec<usize>,
}

fn key(aggregate: &Aggregate, labels: &Labels) -> Labels {
    if aggregate.is_without {
        labels.without(&aggregate.labels).without_name()
    } else {
        labels.keep(&aggregate.labels)
    }
}

/// Groups in the order in which they first appear.
pub(super) fn groups(aggregate: &Aggregate, rows: &[Row]) -> Vec<Members> {
    let mut places: HashMap<Labels, usize> = HashMap::new();
    let mut groups: Vec<Members> = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        let labels = key(aggregate, &row.labels);
        let place = *places.entry(labels.clone()).or_insert_with(|| {
            groups.push(Members { labels, drops_name: false, rows: Vec::new() });
            groups.len() - 1
        });
        groups[place].rows.push(at);
        groups[place].drops_name |= row.drops_name && groups[place].labels.has(METRIC_NAME);
    }
    groups
}

/// The quantile of unsorted values. NaN counts as the smallest.
pub(super) fn quantile(q: f64, mut values: Vec<f64>) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    values.sort_by(|left, right| match (left.is_nan(), right.is_nan()) {
        (false, false) => left.total_cmp(right),
        (left, right) => right.cmp(&left),
    });
    let rank = q * (values.len() - 1) as f64;
    let lower = (rank.floor() as usize).min(values.len() - 1);
    let upper = (lower + 1).min(values.len() - 1);
    let weight = rank - rank.floor();
    values[lower] * (1.0 - weight) + values[upper] * weight
}

/// The variance by Welford's method; infinite and NaN values make it NaN.
pub(super) fn variance(values: impl Iterator<Item = f64>) -> f64 {
    let (mut count, mut mean, mut squares) = (0.0, Kahan::default(), Kahan::default());
    for value in values {
        count += 1.0;
        let distance = value - mean.total();
        mean.add(distance / count);
        squares.add(distance * (value - mean.total()));
    }
    let total = squares.total();
    if mean.total().is_finite() { total / count } else { f64::NAN }
}

/// The larger (or smaller) of two values; NaN only if there is nothing else.
pub(super) fn extreme(is_max: bool, values: impl Iterator<Item = f64>) -> Option<f64> {
    values.reduce(|held, value| {
        let is_better = if is_max { value > held } else { value < held };
        if is_better || held.is_nan() { value } else { held }
    })
}

impl Evaluator<'_> {
    pub(super) fn aggregate(&mut self, aggregate: &Aggregate, grid: Grid) -> Result<Output, Error> {
        use AggregateOp::{Bottomk, CountValues, LimitRatio, Limitk, Topk};
        let rows = match aggregate.op {
            Topk | Bottomk | Limitk | LimitRatio => self.rank(aggregate, grid)?,
            CountValues => self.count_values(aggregate, grid)?,
            _ => self.fold(aggregate, grid)?,
        };
        Ok(Output::Rows(rows))
    }

    fn fold(&mut self, aggregate: &Aggregate, grid: Grid) -> Result<Vec<Row>, Error> {
        let mut shares = Vec::new();
        if let Some(parameter) = &aggregate.parameter {
            shares = self.scalar(parameter, grid)?;
            for share in shares.clone().into_iter().filter(|share| !(0.0..=1.0).contains(share)) {
                self.invalid_quantile(parameter.span, share);
            }
        }
        let rows = self.rows(&aggregate.inner, grid)?;
        let mut results = Vec::new();
        for group in groups(aggregate, &rows) {
            self.spend(grid.count)?;
            let mut column = Vec::with_capacity(grid.count);
            for at in 0..grid.count {
                let members = group.rows.iter().filter_map(|row| rows[*row].column[at].as_ref());
                let share = shares.get(at).copied().unwrap_or(f64::NAN);
                column.push(self.fold_values(aggregate.op, members, share, aggregate.inner.span));
            }
            let row = Row { labels: group.labels, drops_name: group.drops_name, column };
            if row.has_values() {
                results.push(row);
            }
        }
        Ok(results)
    }

    fn fold_values<'v>(
        &mut self,
        op: AggregateOp,
        members: impl Iterator<Item = &'v Value> + Clone,
        share: f64,
        span: Span,
    ) -> Option<Value> {
        let count = members.clone().count();
        if count == 0 {
            return None;
        }
        match op {
            AggregateOp::Count => return Some(Value::Float(count as f64)),
            AggregateOp::Group => return Some(Value::Float(1.0)),
            _ => {}
        }
        let floats = members.clone().filter_map(|value| match value {
            Value::Float(value) => Some(*value),
            Value::Histogram(_) => None,
        });
        let float_count = floats.clone().count();
        let is_total = matches!(op, AggregateOp::Sum | AggregateOp::Avg);
        if float_count < count && is_total {
            if float_count > 0 {
                self.mixed_aggregation(span);
                return None;
            }
            let histograms: Vec<Arc<Histogram>> = members
                .filter_map(|value| match value {
                    Value::Histogram(histogram) => Some(histogram.clone()),
                    Value::Float(_) => None,
                })
                .collect();
            return self.total_of_histograms(&histograms, op == AggregateOp::Avg, span, "");
        }
        if float_count < count {
            self.ignored_in_aggregation(span, op.text());
        }
        if float_count == 0 {
            return None;
        }
        Some(Value::Float(match op {
            AggregateOp::Sum => floats.collect::<Kahan>().total(),
            AggregateOp::Avg => histogram::mean(floats),
            AggregateOp::Max => extreme(true, floats)?,
            AggregateOp::Min => extreme(false, floats)?,
            AggregateOp::Stddev => variance(floats).sqrt(),
            AggregateOp::Stdvar => variance(floats),
            _ => quantile(share, floats.collect()),
        }))
    }

    /// Sum or mean of histograms, with the remarks that go with it.
    pub(super) fn total_of_histograms(
        &mut self,
        histograms: &[Arc<Histogram>],
        is_mean: bool,
        span: Span,
        name: &str,
    ) -> Option<Value> {
        let total = if is_mean { histogram::average(histograms) } else { histogram::sum(histograms) };
        let Ok(total) = total else {
            self.mixed_schemas(span, name);
            return None;
        };
        if total.is_reset_conflict {
            self.reset_conflict(span, "aggregation");
        }
        if total.is_reconciled {
            self.reconciled(span, "aggregation");
        }
        Some(Value::Histogram(Arc::new(total.histogram)))
    }

    fn count_values(&mut self, aggregate: &Aggregate, grid: Grid) -> Result<Vec<Row>, Error> {
        let label = match &aggregate.parameter {
            Some(parameter) => self.text_of(parameter)?,
            None => String::new(),
        };
        if !is_valid_label_name(&label) {
            return Err(Error::Execution(format!("invalid label name {}", quote(&label))));
        }
        let rows = self.rows(&aggregate.inner, grid)?;
        let mut places: HashMap<(Labels, bool), usize> = HashMap::new();
        let mut counts: Vec<(Labels, bool, Vec<u32>)> = Vec::new();
        for row in &rows {
            let labels = key(aggregate, &row.labels);
            let drops_name = row.drops_name && labels.has(METRIC_NAME) && label != METRIC_NAME;
            for (at, value) in row.column.iter().enumerate() {
                let text = match value {
                    None => continue,
                    Some(Value::Float(value)) => format_float(*value),
                    Some(Value::Histogram(histogram)) => histogram.to_string(),
                };
                let labels = labels.with(&label, &text);
                let place = *places.entry((labels.clone(), drops_name)).or_insert_with(|| {
                    counts.push((labels, drops_name, vec![0; grid.count]));
                    counts.len() - 1
                });
                counts[place].2[at] += 1;
            }
        }
        self.spend(counts.len() * grid.count)?;
        let row = |(labels, drops_name, counts): (Labels, bool, Vec<u32>)| Row {
            labels,
            drops_name,
            column: counts.into_iter().map(|n| (n > 0).then(|| Value::Float(f64::from(n)))).collect(),
        };
        Ok(counts.into_iter().map(row).collect())
    }
}
