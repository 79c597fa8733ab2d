//! Binary operators on values, and between a vector and a number.

use std::sync::Arc;

use super::column::{Output, Row};
use super::{Evaluator, Grid};
use crate::ast::{Binary, BinaryOp, Span};
use crate::error::Error;
use crate::histogram::{self, Histogram};
use crate::source::Value;

/// What an operator makes of two samples.
#[derive(Clone, Debug)]
pub(super) enum Element {
    /// A new value.
    Value(Value),
    /// A comparison's verdict.
    Verdict(bool),
    /// The operator is not defined for these.
    Nothing,
}

/// Arithmetic on floats; a comparison gives 1 or 0.
pub(super) fn on_floats(op: BinaryOp, left: f64, right: f64) -> f64 {
    match op {
        BinaryOp::Add => left + right,
        BinaryOp::Sub => left - right,
        BinaryOp::Mul => left * right,
        BinaryOp::Div => left / right,
        BinaryOp::Mod => left % right,
        BinaryOp::Pow => left.powf(right),
        BinaryOp::Atan2 => left.atan2(right),
        _ => f64::from(u8::from(compares(op, left, right))),
    }
}

fn compares(op: BinaryOp, left: f64, right: f64) -> bool {
    match op {
        BinaryOp::Equal => left == right,
        BinaryOp::NotEqual => left != right,
        BinaryOp::Less => left < right,
        BinaryOp::LessEqual => left <= right,
        BinaryOp::Greater => left > right,
        BinaryOp::GreaterEqual => left >= right,
        _ => false,
    }
}

impl Evaluator<'_> {
    pub(super) fn binary(&mut self, binary: &Binary, span: Span, grid: Grid) -> Result<Output, Error> {
        let fills = binary.matching.fill_left.is_some() || binary.matching.fill_right.is_some();
        if fills && !self.options.experimental {
            return Err(Error::Execution("fill modifiers are experimental and not enabled".to_owned()));
        }
        let reads_counts_only = self.reads_counts_only;
        if binary.op.is_trim() {
            self.reads_counts_only = false;
        }
        let left = self.eval(&binary.left, grid);
        let right = self.eval(&binary.right, grid);
        self.reads_counts_only = reads_counts_only;
        match (left?, right?) {
            (Output::Scalar(left), Output::Scalar(right)) => {
                let values = left.iter().zip(&right).map(|(left, right)| on_floats(binary.op, *left, *right));
                Ok(Output::Scalar(values.collect()))
            }
            (Output::Rows(rows), Output::Scalar(scalars)) => {
                Ok(Output::Rows(self.with_scalar(binary, span, rows, &scalars, false)))
            }
            (Output::Scalar(scalars), Output::Rows(rows)) => {
                Ok(Output::Rows(self.with_scalar(binary, span, rows, &scalars, true)))
            }
            (Output::Rows(left), Output::Rows(right)) if binary.op.is_set() => {
                super::matching::set_operation(binary, left, right).map(Output::Rows)
            }
            (Output::Rows(left), Output::Rows(right)) => {
                self.match_vectors(binary, span, left, right, grid).map(Output::Rows)
            }
            _ => Err(Error::Execution("strings have no operators".to_owned())),
        }
    }

    fn with_scalar(
        &mut self,
        binary: &Binary,
        span: Span,
        rows: Vec<Row>,
        scalars: &[f64],
        is_swapped: bool,
    ) -> Vec<Row> {
        let op = binary.op;
        let drops_name = binary.returns_bool || !(op.is_comparison() || op.is_trim());
        let mut kept = Vec::with_capacity(rows.len());
        for mut row in rows {
            row.drops_name |= drops_name;
            for (slot, scalar) in row.column.iter_mut().zip(scalars) {
                let Some(value) = slot.take() else { continue };
                let scalar = Value::Float(*scalar);
                let element = match is_swapped {
                    true => self.element(op, &scalar, &value, span),
                    false => self.element(op, &value, &scalar, span),
                };
                *slot = match element {
                    Element::Value(value) => Some(value),
                    Element::Verdict(verdict) if binary.returns_bool => {
                        Some(Value::Float(f64::from(u8::from(verdict))))
                    }
                    Element::Verdict(true) => Some(value),
                    Element::Verdict(false) | Element::Nothing => None,
                };
            }
            if row.has_values() {
                kept.push(row);
            }
        }
        kept
    }

    pub(super) fn element(&mut self, op: BinaryOp, left: &Value, right: &Value, span: Span) -> Element {
        match (left, right) {
            (Value::Float(left), Value::Float(right)) if op.is_comparison() => {
                Element::Verdict(compares(op, *left, *right))
            }
            (Value::Float(left), Value::Float(right)) if !op.is_trim() => {
                Element::Value(Value::Float(on_floats(op, *left, *right)))
            }
            (Value::Float(factor), Value::Histogram(histogram)) if op == BinaryOp::Mul => {
                Element::Value(Value::Histogram(Arc::new(histogram.times(*factor))))
            }
            (Value::Histogram(histogram), Value::Float(number)) => match op {
                BinaryOp::Mul => Element::Value(Value::Histogram(Arc::new(histogram.times(*number)))),
                BinaryOp::Div => Element::Value(Value::Histogram(Arc::new(histogram.divided(*number)))),
                BinaryOp::TrimUpper | BinaryOp::TrimLower => {
                    let rest = histogram::trim(histogram, *number, op == BinaryOp::TrimUpper);
                    Element::Value(Value::Histogram(Arc::new(rest)))
                }
                _ => self.undefined(op, left, right, span),
            },
            (Value::Histogram(left), Value::Histogram(right)) if op == BinaryOp::Equal => {
                Element::Verdict(left.is_same(right))
            }
            (Value::Histogram(left), Value::Histogram(right)) if op == BinaryOp::NotEqual => {
                Element::Verdict(!left.is_same(right))
            }
            (Value::Histogram(left), Value::Histogram(right)) if op == BinaryOp::Add => {
                self.combined(left, right, 1.0, span)
            }
            (Value::Histogram(left), Value::Histogram(right)) if op == BinaryOp::Sub => {
                self.combined(left, right, -1.0, span)
            }
            _ => self.undefined(op, left, right, span),
        }
    }

    fn combined(&mut self, left: &Histogram, right: &Histogram, factor: f64, span: Span) -> Element {
        let (sign, operation) = if factor < 0.0 { ("-", "subtraction") } else { ("+", "addition") };
        let Ok(combined) = histogram::combine(left, right, factor) else {
            self.incompatible_buckets(span, sign);
            return Element::Nothing;
        };
        if combined.is_reset_conflict {
            self.reset_conflict(span, operation);
        }
        if combined.is_reconciled {
            self.reconciled(span, operation);
        }
        Element::Value(Value::Histogram(Arc::new(combined.histogram)))
    }

    fn undefined(&mut self, op: BinaryOp, left: &Value, right: &Value, span: Span) -> Element {
        let name = |value: &Value| if matches!(value, Value::Float(_)) { "float" } else { "histogram" };
        self.incompatible_types(span, name(left), op.text(), name(right));
        Element::Nothing
    }
}
