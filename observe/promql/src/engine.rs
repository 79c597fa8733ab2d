//! Evaluation: a syntax tree over series, at one time or at many.

mod aggregate;
mod binary;
mod calls;
mod classic;
mod column;
mod dates;
mod extended;
mod info;
mod levels;
mod matching;
mod over_time;
mod profile;
mod ranking;
mod rate;
mod remarks;
mod select;
mod sliding;
mod times;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::annotation::{Annotations, Severity};
use crate::ast::{Expr, Node, ValueType};
use crate::error::Error;
use crate::labels::Labels;
use crate::source::{OfWindow, Series, SeriesData, Value};

use column::{Output, Row};
pub use profile::Plan;
use profile::Profile;
pub(crate) use times::{Asked, Grid, MILLIS_MAX, is_invariant};

/// What a query may do and use.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long a sample counts as current, in milliseconds. Prometheus: 5 minutes.
    pub lookback_ms: i64,
    /// At most so many samples read and values computed.
    pub samples_max: usize,
    /// The step of a subquery that names none, in milliseconds.
    pub subquery_step_ms: i64,
    /// Experimental functions, aggregations, selector extensions and fill modifiers.
    pub experimental: bool,
}

/// When a query is evaluated, in Unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// At one time.
    Instant(i64),
    /// From start to end, both included, at every step.
    Range {
        /// First time.
        start_ms: i64,
        /// Last time.
        end_ms: i64,
        /// Distance between times, above zero.
        step_ms: i64,
    },
}

/// The result of a query.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The values.
    pub data: Data,
    /// What the reader should know about them.
    pub annotations: Annotations,
    /// Samples that were read and values that were computed: what `Options::samples_max` bounds.
    pub samples: usize,
}

/// Values of a result. Range queries always give a matrix.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// One number.
    Scalar(i64, f64),
    /// One text.
    Text(i64, String),
    /// One value per series.
    Vector(Vec<Sample>),
    /// Points per series.
    Matrix(Vec<SeriesData>),
}

/// One value of a vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The series.
    pub labels: Labels,
    /// The time it was evaluated at.
    pub unix_millis: i64,
    /// Its value.
    pub value: Value,
}

/// Parses and evaluates a query.
///
/// # Errors
/// See [`Error`]. Raising `cancel` ends the query with `Error::Cancelled` soon after.
pub fn query(
    text: &str,
    series: &dyn Series,
    times: Times,
    options: &Options,
    cancel: &AtomicBool,
) -> Result<Answer, Error> {
    let expr = crate::parser::parse(text)?;
    query_expr(text, &expr, series, times, options, cancel)
}

/// Evaluates a parsed query. `text` is what it was parsed from; remarks give places in it.
///
/// # Errors
/// As [`query`].
pub fn query_expr(
    text: &str,
    expr: &Expr,
    series: &dyn Series,
    times: Times,
    options: &Options,
    cancel: &AtomicBool,
) -> Result<Answer, Error> {
    Ok(evaluate((text, expr), series, times, options, cancel, None)?.0)
}

/// Evaluates a parsed query as [`query_expr`] does, and tells what each of its nodes cost. `clock` gives seconds, from
/// any beginning.
///
/// # Errors
/// As [`query`].
pub fn explain(
    (text, expr): (&str, &Expr),
    series: &dyn Series,
    times: Times,
    options: &Options,
    cancel: &AtomicBool,
    clock: &dyn Fn() -> f64,
) -> Result<(Answer, Plan), Error> {
    let profile = Some(Profile::new(clock));
    let (answer, profile) = evaluate((text, expr), series, times, options, cancel, profile)?;
    let plan = profile.unwrap_or_else(|| Profile::new(clock)).plan(expr);
    Ok((answer, plan))
}

fn evaluate<'a>(
    (text, expr): (&'a str, &Expr),
    series: &'a dyn Series,
    times: Times,
    options: &'a Options,
    cancel: &'a AtomicBool,
    profile: Option<Profile<'a>>,
) -> Result<(Answer, Option<Profile<'a>>), Error> {
    let grid = Grid::of(times)?;
    let mut evaluator = Evaluator {
        text,
        series,
        options,
        cancel,
        query: Asked::of(times),
        annotations: Annotations::default(),
        samples: 0,
        reads_counts_only: false,
        profile,
    };
    let is_instant = matches!(times, Times::Instant(_));
    let data = match expr.value_type() {
        ValueType::RangeVector if is_instant => evaluator.range_result(expr, grid)?,
        ValueType::RangeVector | ValueType::Text if !is_instant => {
            let found = expr.value_type().name();
            let message = format!(
                "invalid expression type {found:?} for range query, must be scalar or instant vector"
            );
            return Err(Error::parse(text, expr.span, message));
        }
        _ => {
            let output = evaluator.eval(expr, grid)?;
            finish(output, grid, is_instant)?
        }
    };
    for warning in series.warnings() {
        evaluator.annotations.add(Severity::Warning, text, expr.span, warning);
    }
    let Evaluator { annotations, samples, profile, .. } = evaluator;
    Ok((Answer { data, annotations, samples }, profile))
}

fn finish(output: Output, grid: Grid, is_instant: bool) -> Result<Data, Error> {
    let rows = match output {
        Output::Scalar(values) if is_instant => return Ok(Data::Scalar(grid.start, values[0])),
        Output::Scalar(values) => {
            let column = values.into_iter().map(|value| Some(Value::Float(value))).collect();
            vec![Row { labels: Labels::default(), drops_name: false, column }]
        }
        Output::Text(text) => return Ok(Data::Text(grid.start, text)),
        Output::Rows(rows) => column::named(rows)?,
    };
    if is_instant {
        let samples = rows.into_iter().filter_map(|mut row| {
            let value = row.column.pop().flatten()?;
            Some(Sample { labels: row.labels, unix_millis: grid.start, value })
        });
        return Ok(Data::Vector(samples.collect()));
    }
    let mut matrix: Vec<SeriesData> = rows.into_iter().map(|row| row.into_points(grid)).collect();
    matrix.retain(|series| !series.floats.is_empty() || !series.histograms.is_empty());
    matrix.sort_by(|left, right| left.labels.cmp(&right.labels));
    Ok(Data::Matrix(matrix))
}

/// One evaluation: what it reads, what it may use, what it has noticed.
pub(crate) struct Evaluator<'a> {
    text: &'a str,
    series: &'a dyn Series,
    options: &'a Options,
    cancel: &'a AtomicBool,
    /// The times of the whole query, which `@ start()` and `step()` mean even inside a subquery.
    query: Asked,
    annotations: Annotations,
    samples: usize,
    /// Inside `histogram_count` and the like: counter resets are then found from the counts while reading.
    reads_counts_only: bool,
    /// What each node costs, when somebody asked.
    profile: Option<Profile<'a>>,
}

impl Evaluator<'_> {
    /// Accounts for samples read or values computed; also the place where a query is cancelled.
    pub(crate) fn spend(&mut self, samples: usize) -> Result<(), Error> {
        self.samples = self.samples.saturating_add(samples);
        if self.cancel.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        if self.samples > self.options.samples_max {
            return Err(Error::TooManySamples { samples_max: self.options.samples_max });
        }
        Ok(())
    }

    /// Evaluates anything but a range vector. What does not depend on the time is evaluated once.
    pub(crate) fn eval(&mut self, expr: &Expr, grid: Grid) -> Result<Output, Error> {
        let began = self.began();
        let output = self.eval_once_or_each(expr, grid)?;
        self.note_output(expr, began, &output);
        Ok(output)
    }

    fn eval_once_or_each(&mut self, expr: &Expr, grid: Grid) -> Result<Output, Error> {
        let is_cheap = matches!(expr.node, Node::Number(_) | Node::Text(_) | Node::Paren(_));
        if grid.count > 1 && !is_cheap && times::is_invariant(expr) {
            let once = self.eval_node(expr, Grid { count: 1, ..grid })?;
            let output = once.repeated(grid.count);
            self.spend(output.values())?;
            return Ok(output);
        }
        let output = self.eval_node(expr, grid)?;
        self.spend(output.values())?;
        Ok(output)
    }

    fn eval_node(&mut self, expr: &Expr, grid: Grid) -> Result<Output, Error> {
        match &expr.node {
            Node::Number(value) => Ok(Output::Scalar(vec![*value; grid.count])),
            Node::Text(text) => Ok(Output::Text(text.clone())),
            Node::Paren(inner) => self.eval(inner, grid),
            Node::Vector(selector) => {
                Ok(Output::Rows(self.select_vector(selector, grid, select::Reads::Values)?))
            }
            Node::Unary { is_minus, operand } => self.unary(*is_minus, operand, grid),
            Node::Binary(binary) => self.binary(binary, expr.span, grid),
            Node::Aggregate(aggregate) => self.aggregate(aggregate, grid),
            Node::Call(function, arguments) => self.call(function, arguments, expr, grid),
            Node::Range(..) | Node::Subquery(_) => {
                Err(Error::Execution("a range vector stands where a value is needed".to_owned()))
            }
        }
    }

    pub(crate) fn rows(&mut self, expr: &Expr, grid: Grid) -> Result<Vec<Row>, Error> {
        match self.eval(expr, grid)? {
            Output::Rows(rows) => Ok(rows),
            Output::Scalar(values) => {
                let column = values.into_iter().map(|value| Some(Value::Float(value))).collect();
                Ok(vec![Row { labels: Labels::default(), drops_name: false, column }])
            }
            Output::Text(_) => Err(Error::Execution("a string stands where a vector is needed".to_owned())),
        }
    }

    pub(crate) fn scalar(&mut self, expr: &Expr, grid: Grid) -> Result<Vec<f64>, Error> {
        match self.eval(expr, grid)? {
            Output::Scalar(values) => Ok(values),
            _ => Err(Error::Execution("a number is needed here".to_owned())),
        }
    }

    /// The text of a string argument, which is a literal in any number of parentheses.
    pub(crate) fn text_of(&self, expr: &Expr) -> Result<String, Error> {
        match &expr.unwrapped().node {
            Node::Text(text) => Ok(text.clone()),
            _ => Err(Error::Execution("a string literal is needed here".to_owned())),
        }
    }

    fn unary(&mut self, is_minus: bool, operand: &Expr, grid: Grid) -> Result<Output, Error> {
        match self.eval(operand, grid)? {
            Output::Scalar(values) if is_minus => {
                Ok(Output::Scalar(values.into_iter().map(|v| -v).collect()))
            }
            Output::Rows(mut rows) if is_minus => {
                for row in &mut rows {
                    row.drops_name = true;
                    for value in row.column.iter_mut().flatten() {
                        match value {
                            Value::Float(float) => *float = -*float,
                            Value::Histogram(histogram) => *histogram = Arc::new(histogram.times(-1.0)),
                        }
                    }
                }
                Ok(Output::Rows(rows))
            }
            output => Ok(output),
        }
    }

    /// The result of an instant query for a range vector: the points themselves.
    fn range_result(&mut self, expr: &Expr, grid: Grid) -> Result<Data, Error> {
        let input = self.range(expr, grid, OfWindow::Samples)?;
        let (from, to) = input.window(grid.time(0));
        let mut matrix = Vec::new();
        for row in input.rows {
            let inside = |time: i64| time > from && time <= to;
            let labels = if row.drops_name { row.labels.without_name() } else { row.labels };
            matrix.push(SeriesData {
                labels,
                floats: row.floats.into_iter().filter(|(time, _)| inside(*time)).collect(),
                histograms: row.histograms.into_iter().filter(|(time, _)| inside(*time)).collect(),
            });
        }
        matrix.retain(|series| !series.floats.is_empty() || !series.histograms.is_empty());
        matrix.sort_by(|left, right| left.labels.cmp(&right.labels));
        Ok(Data::Matrix(matrix))
    }
}

#[cfg(test)]
mod tests;
