//! The `histogram_*` functions, on native histograms and on classic ones (series with a label `le`).

use std::collections::HashMap;
use std::sync::Arc;

use super::column::Row;
use super::{Evaluator, Grid};
use crate::ast::{Expr, Span};
use crate::error::Error;
use crate::histogram::{self, ClassicBucket, Histogram, NanRemark};
use crate::labels::{Labels, METRIC_NAME, is_valid_label_name};
use crate::source::Value;
use crate::text::{format_float, quote};

/// The label that holds the upper bound of a classic bucket.
const BOUND: &str = "le";

/// All series of one histogram: classic buckets, and the native one of the same labels.
struct Family {
    labels: Labels,
    buckets: Vec<(Option<f64>, usize)>,
    native: Vec<usize>,
}

/// A histogram at one time.
enum Shape<'a> {
    Native(&'a Arc<Histogram>),
    Classic(Vec<ClassicBucket>),
}

fn place_of(places: &mut HashMap<Labels, usize>, families: &mut Vec<Family>, labels: Labels) -> usize {
    *places.entry(labels.clone()).or_insert_with(|| {
        families.push(Family { labels, buckets: Vec::new(), native: Vec::new() });
        families.len() - 1
    })
}

fn families(rows: &[Row]) -> Vec<Family> {
    let mut places: HashMap<Labels, usize> = HashMap::new();
    let mut families: Vec<Family> = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        let bound = row.labels.get(BOUND);
        let has_histograms = row.column.iter().flatten().any(|value| matches!(value, Value::Histogram(_)));
        let has_floats = row.column.iter().flatten().any(|value| matches!(value, Value::Float(_)));
        if has_floats {
            let labels = row.labels.without(&[BOUND.to_owned()]);
            let place = place_of(&mut places, &mut families, labels);
            families[place].buckets.push((crate::text::parse_float(bound), at));
        }
        if has_histograms {
            let place = place_of(&mut places, &mut families, row.labels.clone());
            families[place].native.push(at);
        }
    }
    families
}

impl Evaluator<'_> {
    pub(super) fn histogram_call(
        &mut self,
        name: &str,
        arguments: &[Expr],
        grid: Grid,
    ) -> Result<Vec<Row>, Error> {
        match name {
            "histogram_quantile" => {
                let qs = self.scalar(&arguments[0], grid)?;
                self.check_quantiles(&qs, arguments[0].span);
                let rows = self.full_rows(&arguments[1], grid)?;
                self.quantiles(&rows, &qs, None, arguments[1].span, grid)
            }
            "histogram_quantiles" => self.many_quantiles(arguments, grid),
            "histogram_fraction" => {
                let (lower, upper) = (self.scalar(&arguments[0], grid)?, self.scalar(&arguments[1], grid)?);
                let rows = self.full_rows(&arguments[2], grid)?;
                self.fractions(&rows, &lower, &upper, arguments[2].span, grid)
            }
            "histogram_count" | "histogram_sum" | "histogram_avg" => {
                let reads_counts_only = std::mem::replace(&mut self.reads_counts_only, true);
                let rows = self.rows(&arguments[0], grid);
                self.reads_counts_only = reads_counts_only;
                Ok(of_histograms(rows?, |histogram| match name {
                    "histogram_count" => histogram.count,
                    "histogram_sum" => histogram.sum,
                    _ => histogram.sum / histogram.count,
                }))
            }
            _ => {
                let rows = self.full_rows(&arguments[0], grid)?;
                let is_deviation = name == "histogram_stddev";
                Ok(of_histograms(rows, |histogram| {
                    let variance = histogram::variance(histogram);
                    if is_deviation { variance.sqrt() } else { variance }
                }))
            }
        }
    }

    /// Rows whose histograms are read whole, whatever is around.
    fn full_rows(&mut self, expr: &Expr, grid: Grid) -> Result<Vec<Row>, Error> {
        let reads_counts_only = std::mem::replace(&mut self.reads_counts_only, false);
        let rows = self.rows(expr, grid);
        self.reads_counts_only = reads_counts_only;
        rows
    }

    fn check_quantiles(&mut self, qs: &[f64], span: Span) {
        for q in qs.iter().filter(|q| !(0.0..=1.0).contains(*q)) {
            self.invalid_quantile(span, *q);
        }
    }

    fn many_quantiles(&mut self, arguments: &[Expr], grid: Grid) -> Result<Vec<Row>, Error> {
        let [vector, label, quantiles @ ..] = arguments else { return Ok(Vec::new()) };
        let label = self.text_of(label)?;
        if !is_valid_label_name(&label) {
            return Err(Error::Execution(format!("invalid label name {}", quote(&label))));
        }
        let mut all = Vec::new();
        for argument in quantiles {
            let qs = self.scalar(argument, grid)?;
            self.check_quantiles(&qs, argument.span);
            all.push(qs);
        }
        let rows = self.full_rows(vector, grid)?;
        let mut results = Vec::new();
        for qs in &all {
            results.extend(self.quantiles(&rows, qs, Some(&label), vector.span, grid)?);
        }
        super::column::joined(results)
    }

    fn quantiles(
        &mut self,
        rows: &[Row],
        qs: &[f64],
        label: Option<&str>,
        span: Span,
        grid: Grid,
    ) -> Result<Vec<Row>, Error> {
        let mut results = self.per_histogram(rows, span, grid, |this, name, at, shape| match shape {
            Shape::Native(histogram) => {
                let (value, remark) = histogram::quantile(qs[at], histogram);
                if let Some(remark) = remark {
                    this.nan_quantile(span, name, remark == NanRemark::Result);
                }
                value
            }
            Shape::Classic(buckets) => {
                let (value, is_forced) = histogram::classic_quantile(qs[at], buckets);
                if is_forced {
                    this.forced_monotonicity(span, name);
                }
                value
            }
        })?;
        if let Some(label) = label {
            for row in &mut results {
                row.labels = row.labels.with(label, &quantile_text(qs[0]));
            }
        }
        Ok(results)
    }

    fn fractions(
        &mut self,
        rows: &[Row],
        lower: &[f64],
        upper: &[f64],
        span: Span,
        grid: Grid,
    ) -> Result<Vec<Row>, Error> {
        self.per_histogram(rows, span, grid, |this, name, at, shape| match shape {
            Shape::Native(histogram) => {
                if histogram.sum.is_nan() && histogram.count > 0.0 {
                    this.nan_fraction(span, name);
                }
                histogram::fraction(lower[at], upper[at], histogram)
            }
            Shape::Classic(buckets) => histogram::classic_fraction(lower[at], upper[at], buckets),
        })
    }

    /// Finds the histograms among some series and applies a function to each at each time.
    fn per_histogram(
        &mut self,
        rows: &[Row],
        span: Span,
        grid: Grid,
        mut function: impl FnMut(&mut Self, &str, usize, Shape<'_>) -> f64,
    ) -> Result<Vec<Row>, Error> {
        let mut results = Vec::new();
        for family in families(rows) {
            self.spend(grid.count)?;
            let name = family.labels.get(METRIC_NAME).to_owned();
            let mut column = Vec::with_capacity(grid.count);
            for at in 0..grid.count {
                let shape = self.shape(&family, rows, at, span, &name);
                column.push(shape.map(|shape| Value::Float(function(self, &name, at, shape))));
            }
            let row = Row { labels: family.labels, drops_name: true, column };
            if row.has_values() {
                results.push(row);
            }
        }
        Ok(results)
    }

    fn shape<'r>(
        &mut self,
        family: &Family,
        rows: &'r [Row],
        at: usize,
        span: Span,
        name: &str,
    ) -> Option<Shape<'r>> {
        let native = family.native.iter().find_map(|row| match &rows[*row].column[at] {
            Some(Value::Histogram(histogram)) => Some(histogram),
            _ => None,
        });
        let mut buckets = Vec::new();
        for (bound, row) in &family.buckets {
            let Some(Value::Float(count)) = rows[*row].column[at] else { continue };
            match bound {
                Some(upper) => buckets.push(ClassicBucket { upper: *upper, count }),
                None => self.bad_bucket_label(span, name, rows[*row].labels.get(BOUND)),
            }
        }
        match (native, buckets.is_empty()) {
            (Some(_), false) => {
                self.mixed_classic_and_native(span, name);
                None
            }
            (Some(histogram), true) => Some(Shape::Native(histogram)),
            (None, false) => Some(Shape::Classic(buckets)),
            (None, true) => None,
        }
    }
}

/// A quantile as a label value: always with a fraction, `1.0`.
fn quantile_text(q: f64) -> String {
    let text = format_float(q);
    if q.is_finite() && !text.contains('.') { format!("{text}.0") } else { text }
}

fn of_histograms(mut rows: Vec<Row>, function: impl Fn(&Histogram) -> f64) -> Vec<Row> {
    for row in &mut rows {
        row.drops_name = true;
        for slot in &mut row.column {
            *slot = match slot.take() {
                Some(Value::Histogram(histogram)) => Some(Value::Float(function(&histogram))),
                _ => None,
            };
        }
    }
    rows.retain(Row::has_values);
    rows
}
