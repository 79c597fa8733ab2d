//! Calls: which function does what, and the functions on single samples, labels and times.

use std::collections::BTreeSet;

use super::column::{Output, Row, joined};
use super::rate::Kind;
use super::select::Reads;
use super::{Evaluator, Grid, dates};
use crate::ast::{Expr, Node, ValueType};
use crate::error::Error;
use crate::functions::Function;
use crate::labels::{Labels, METRIC_NAME, is_valid_label_name};
use crate::matcher::{MatchOp, anchored};
use crate::source::{OfWindow, Value};
use crate::text::quote;

type OnFloat = fn(f64) -> f64;

/// Functions of one float.
const ON_FLOATS: &[(&str, OnFloat)] = &[
    ("abs", f64::abs),
    ("acos", f64::acos),
    ("acosh", f64::acosh),
    ("asin", f64::asin),
    ("asinh", f64::asinh),
    ("atan", f64::atan),
    ("atanh", f64::atanh),
    ("ceil", f64::ceil),
    ("cos", f64::cos),
    ("cosh", f64::cosh),
    ("deg", |radians| radians * 180.0 / std::f64::consts::PI),
    ("exp", f64::exp),
    ("floor", f64::floor),
    ("ln", f64::ln),
    ("log10", f64::log10),
    ("log2", f64::log2),
    ("rad", |degrees| degrees * std::f64::consts::PI / 180.0),
    ("sgn", sign),
    ("sin", f64::sin),
    ("sinh", f64::sinh),
    ("sqrt", f64::sqrt),
    ("tan", f64::tan),
    ("tanh", f64::tanh),
];

fn sign(value: f64) -> f64 {
    if value > 0.0 {
        1.0
    } else if value < 0.0 {
        -1.0
    } else {
        value
    }
}

/// To the nearest multiple, halves up.
fn round(value: f64, multiple: f64) -> f64 {
    let inverse = 1.0 / multiple;
    (value * inverse + 0.5).floor() / inverse
}

/// NaN wins over everything.
/// Go's minimum, which Prometheus has: the infinity at the end that is looked for wins over NaN.
fn lesser(left: f64, right: f64) -> f64 {
    if left == f64::NEG_INFINITY || right == f64::NEG_INFINITY {
        return f64::NEG_INFINITY;
    }
    if left.is_nan() || right.is_nan() { f64::NAN } else { left.min(right) }
}

/// Go's maximum.
fn greater(left: f64, right: f64) -> f64 {
    if left == f64::INFINITY || right == f64::INFINITY {
        return f64::INFINITY;
    }
    if left.is_nan() || right.is_nan() { f64::NAN } else { left.max(right) }
}

/// One series with value 1 where none of the rows has a value, labelled with what was asked for.
pub(super) fn absent_row(argument: &Expr, rows: &[Row], grid: Grid) -> Row {
    let is_absent = |at: usize| rows.iter().all(|row| row.column[at].is_none());
    let column = (0..grid.count).map(|at| is_absent(at).then_some(Value::Float(1.0))).collect();
    Row { labels: asked_labels(argument), drops_name: false, column }
}

/// Labels that a selector asks for by equality, each once.
fn asked_labels(expr: &Expr) -> Labels {
    let (Node::Vector(selector) | Node::Range(selector, _)) = &expr.unwrapped().node else {
        return Labels::default();
    };
    let is_single = |name: &str| selector.matchers.iter().filter(|matcher| matcher.name == name).count() == 1;
    Labels::from_pairs(
        selector
            .matchers
            .iter()
            .filter(|m| m.op == MatchOp::Equal && m.name != METRIC_NAME && is_single(&m.name))
            .map(|matcher| (&matcher.name, &matcher.value)),
    )
}

impl Evaluator<'_> {
    pub(super) fn call(
        &mut self,
        function: &'static Function,
        arguments: &[Expr],
        expr: &Expr,
        grid: Grid,
    ) -> Result<Output, Error> {
        let name = function.name;
        if function.is_experimental && !self.options.experimental {
            return Err(Error::parse(
                self.text,
                expr.span,
                format!("function {name:?} is experimental and not enabled"),
            ));
        }
        if function.returns == ValueType::Scalar {
            return self.scalar_call(name, arguments, grid).map(Output::Scalar);
        }
        if let Some(kind) = Kind::of(name) {
            let input = self.range(&arguments[0], grid, OfWindow::of_function(name))?;
            return self.rates(kind, input, grid).map(Output::Rows);
        }
        if name == "absent_over_time" {
            return self.absent_over_time(&arguments[0], grid).map(Output::Rows);
        }
        if let Some(at) =
            arguments.iter().position(|argument| argument.value_type() == ValueType::RangeVector)
        {
            return self.range_call(name, arguments, at, grid).map(Output::Rows);
        }
        if name.starts_with("histogram_") {
            return self.histogram_call(name, arguments, grid).map(Output::Rows);
        }
        if dates::is_date(name) {
            return self.date_call(name, arguments, grid).map(Output::Rows);
        }
        self.vector_call(name, arguments, grid).map(Output::Rows)
    }

    fn scalar_call(&mut self, name: &str, arguments: &[Expr], grid: Grid) -> Result<Vec<f64>, Error> {
        let seconds = |milliseconds: i64| milliseconds as f64 / 1000.0;
        let constant = |value: f64| Ok(vec![value; grid.count]);
        match name {
            "time" => Ok(grid.times().map(seconds).collect()),
            "pi" => constant(std::f64::consts::PI),
            "start" => constant(seconds(self.query.start)),
            "end" => constant(seconds(self.query.end)),
            "step" => constant(seconds(self.query.step)),
            "range" => constant(seconds(self.query.end - self.query.start)),
            "min_of" | "max_of" => {
                let (left, right) = (self.scalar(&arguments[0], grid)?, self.scalar(&arguments[1], grid)?);
                let pick = if name == "min_of" { lesser } else { greater };
                Ok(left.iter().zip(&right).map(|(left, right)| pick(*left, *right)).collect())
            }
            _ => {
                let rows = self.rows(&arguments[0], grid)?;
                let at_time = |at: usize| {
                    let mut floats = rows.iter().filter_map(|row| match row.column[at] {
                        Some(Value::Float(value)) => Some(value),
                        _ => None,
                    });
                    floats.next().filter(|_| floats.next().is_none()).unwrap_or(f64::NAN)
                };
                Ok((0..grid.count).map(at_time).collect())
            }
        }
    }

    fn range_call(
        &mut self,
        name: &'static str,
        arguments: &[Expr],
        at: usize,
        grid: Grid,
    ) -> Result<Vec<Row>, Error> {
        let mut parameters = Vec::new();
        for argument in arguments.iter().filter(|argument| argument.value_type() == ValueType::Scalar) {
            parameters.push(self.scalar(argument, grid)?);
        }
        if name == "quantile_over_time" {
            for q in parameters[0].clone().into_iter().filter(|q| !(0.0..=1.0).contains(q)) {
                self.invalid_quantile(arguments[0].span, q);
            }
        }
        if name == "double_exponential_smoothing" {
            for (values, what) in parameters.iter().zip(["smoothing", "trend"]) {
                if let Some(value) = values.iter().find(|value| !(**value > 0.0 && **value < 1.0)) {
                    return Err(Error::Execution(format!(
                        "invalid {what} factor. Expected: 0 < factor < 1, got: {value}"
                    )));
                }
            }
        }
        let input = self.range(&arguments[at], grid, OfWindow::of_function(name))?;
        if input.extension != crate::ast::Extension::None && matches!(name, "changes" | "resets") {
            return self.extended_counts(name, &input, grid);
        }
        self.over_time(name, &input, &parameters, grid)
    }

    fn vector_call(&mut self, name: &str, arguments: &[Expr], grid: Grid) -> Result<Vec<Row>, Error> {
        match name {
            "absent" => {
                let rows = self.rows(&arguments[0], grid)?;
                Ok(vec![absent_row(&arguments[0], &rows, grid)])
            }
            "timestamp" => self.timestamp(&arguments[0], grid),
            "vector" => self.rows(&arguments[0], grid),
            "label_replace" => self.label_replace(arguments, grid),
            "label_join" => self.label_join(arguments, grid),
            "sort" | "sort_desc" => self.sort(name == "sort_desc", &arguments[0], grid),
            "sort_by_label" | "sort_by_label_desc" => {
                self.sort_by_label(name == "sort_by_label_desc", arguments, grid)
            }
            "info" => self.info(arguments, grid),
            _ => self.on_samples(name, arguments, grid),
        }
    }

    /// Functions of a float and at most two numbers. Histograms give nothing.
    fn on_samples(&mut self, name: &str, arguments: &[Expr], grid: Grid) -> Result<Vec<Row>, Error> {
        let mut rows = self.rows(&arguments[0], grid)?;
        let mut numbers = Vec::new();
        for argument in &arguments[1..] {
            numbers.push(self.scalar(argument, grid)?);
        }
        let number = |which: usize, at: usize| numbers.get(which).map_or(1.0, |values| values[at]);
        let simple = ON_FLOATS.iter().find(|(known, _)| *known == name).map(|(_, function)| *function);
        for row in &mut rows {
            match (simple, name) {
                (Some(function), _) => row.map_floats(|_, value| function(value)),
                (None, "round") => row.map_floats(|at, value| round(value, number(0, at))),
                (None, "clamp_min") => row.map_floats(|at, value| greater(value, number(0, at))),
                (None, "clamp_max") => row.map_floats(|at, value| lesser(value, number(0, at))),
                (None, "clamp") => {
                    row.map_floats(|at, value| greater(number(0, at), lesser(number(1, at), value)));
                    for (at, slot) in row.column.iter_mut().enumerate() {
                        if number(0, at) > number(1, at) {
                            *slot = None;
                        }
                    }
                }
                _ => return Err(Error::Execution(format!("function {name} has no implementation"))),
            }
        }
        rows.retain(Row::has_values);
        Ok(rows)
    }

    /// Of a selector the time of the sample, of anything else the time of evaluation.
    fn timestamp(&mut self, argument: &Expr, grid: Grid) -> Result<Vec<Row>, Error> {
        let is_selector = matches!(argument.unwrapped().node, Node::Vector(_));
        let mut rows = match &argument.unwrapped().node {
            Node::Vector(selector) => self.select_vector(selector, grid, Reads::Times)?,
            _ => self.rows(argument, grid)?,
        };
        for row in &mut rows {
            row.drops_name = true;
            if !is_selector {
                for (at, slot) in row.column.iter_mut().enumerate() {
                    *slot = slot.take().map(|_| Value::Float(grid.time(at) as f64 / 1000.0));
                }
            }
        }
        Ok(rows)
    }

    fn label_replace(&mut self, arguments: &[Expr], grid: Grid) -> Result<Vec<Row>, Error> {
        let [vector, target, replacement, source, pattern] = arguments else { return Ok(Vec::new()) };
        let (target, source) = (self.text_of(target)?, self.text_of(source)?);
        let pattern = anchored(&self.text_of(pattern)?).map_err(Error::Execution)?;
        let replacement = self.text_of(replacement)?;
        check_label(&target, "label_replace")?;
        let mut rows = self.rows(vector, grid)?;
        for row in &mut rows {
            let Some(captures) = pattern.captures(row.labels.get(&source)) else { continue };
            let mut value = String::new();
            captures.expand(&replacement, &mut value);
            row.labels = row.labels.with(&target, &value);
            row.drops_name &= target != METRIC_NAME;
        }
        joined(rows)
    }

    fn label_join(&mut self, arguments: &[Expr], grid: Grid) -> Result<Vec<Row>, Error> {
        let [vector, target, separator, sources @ ..] = arguments else { return Ok(Vec::new()) };
        let (target, separator) = (self.text_of(target)?, self.text_of(separator)?);
        check_label(&target, "label_join")?;
        let sources = sources.iter().map(|source| self.text_of(source)).collect::<Result<Vec<_>, _>>()?;
        for source in &sources {
            check_label(source, "label_join")?;
        }
        let mut rows = self.rows(vector, grid)?;
        for row in &mut rows {
            let values: Vec<&str> = sources.iter().map(|source| row.labels.get(source)).collect();
            let value = values.join(&separator);
            row.labels = row.labels.with(&target, &value);
            row.drops_name &= target != METRIC_NAME;
        }
        joined(rows)
    }

    /// Sorts by value at a single time; over many times there is no one order. NaN comes last.
    fn sort(&mut self, is_descending: bool, argument: &Expr, grid: Grid) -> Result<Vec<Row>, Error> {
        let mut rows = self.rows(argument, grid)?;
        if grid.count > 1 {
            return Ok(rows);
        }
        rows.retain(|row| matches!(row.column[0], Some(Value::Float(_))));
        let value = |row: &Row| match row.column[0] {
            Some(Value::Float(value)) => value,
            _ => f64::NAN,
        };
        rows.sort_by(|left, right| {
            let (left, right) = (value(left), value(right));
            match (left.is_nan(), right.is_nan()) {
                (false, false) if is_descending => right.total_cmp(&left),
                (false, false) => left.total_cmp(&right),
                (left, right) => left.cmp(&right),
            }
        });
        Ok(rows)
    }

    fn sort_by_label(
        &mut self,
        is_descending: bool,
        arguments: &[Expr],
        grid: Grid,
    ) -> Result<Vec<Row>, Error> {
        let mut rows = self.rows(&arguments[0], grid)?;
        let names = arguments[1..].iter().map(|name| self.text_of(name)).collect::<Result<Vec<_>, _>>()?;
        rows.sort_by(|left, right| {
            let by_label = names
                .iter()
                .map(|name| crate::text::natural_order(left.labels.get(name), right.labels.get(name)))
                .find(|order| order.is_ne());
            let order = by_label.unwrap_or_else(|| left.labels.cmp(&right.labels));
            if is_descending { order.reverse() } else { order }
        });
        Ok(rows)
    }
}

fn check_label(name: &str, function: &str) -> Result<(), Error> {
    if is_valid_label_name(name) {
        return Ok(());
    }
    // An empty name can be read, it is empty in every series; only as a target it makes no sense.
    Err(Error::Execution(format!("invalid label name in {function}(): {}", quote(name))))
}

/// Labels used by `info` to find its partners.
pub(super) fn identifying() -> BTreeSet<&'static str> {
    BTreeSet::from(["instance", "job"])
}
