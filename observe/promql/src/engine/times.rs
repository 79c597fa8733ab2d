//! The times a query is evaluated at, and what in a query depends on them.

use super::Times;
use crate::ast::{At, Duration, DurationOp, Expr, Node};
use crate::error::Error;

/// At most so many steps in one query, as in Prometheus.
const STEPS_MAX: i64 = 11_000;

/// Times and durations stay within this, so that adding some of them cannot overflow: 285 000 years.
pub(crate) const MILLIS_MAX: i64 = 9_000_000_000_000_000;

/// Evenly spaced times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) start: i64,
    /// Zero for a single time.
    pub(crate) step: i64,
    pub(crate) count: usize,
}

impl Grid {
    pub(super) fn of(times: Times) -> Result<Grid, Error> {
        let (first, last, step) = match times {
            Times::Instant(at) => (at, at, 0),
            Times::Range { start_ms, end_ms, step_ms } => (start_ms, end_ms, step_ms),
        };
        if [first, last, step].iter().any(|time| time.unsigned_abs() > MILLIS_MAX.unsigned_abs()) {
            return Err(Error::Execution("time out of bounds".to_owned()));
        }
        match times {
            Times::Instant(at) => Ok(Grid { start: at, step: 0, count: 1 }),
            Times::Range { start_ms, end_ms, step_ms } => {
                if step_ms <= 0 {
                    return Err(Error::Execution("step must be greater than zero".to_owned()));
                }
                if end_ms < start_ms {
                    return Err(Error::Execution("end must not be before start".to_owned()));
                }
                let steps = end_ms.saturating_sub(start_ms) / step_ms;
                if steps > STEPS_MAX {
                    return Err(Error::Execution(format!(
                        "more than {STEPS_MAX} points per series, use a larger step"
                    )));
                }
                Ok(Grid { start: start_ms, step: step_ms, count: steps as usize + 1 })
            }
        }
    }

    pub(crate) fn time(&self, at: usize) -> i64 {
        self.start.saturating_add(self.step.saturating_mul(at as i64))
    }

    pub(crate) fn end(&self) -> i64 {
        self.time(self.count.saturating_sub(1))
    }

    pub(super) fn times(self) -> impl Iterator<Item = i64> {
        (0..self.count).map(move |at| self.time(at))
    }
}

/// The times as they were asked for: the end need not be one of the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) start: i64,
    pub(crate) end: i64,
    /// Zero for a single time.
    pub(crate) step: i64,
}

impl Asked {
    pub(super) fn of(times: Times) -> Asked {
        match times {
            Times::Instant(at) => Asked { start: at, end: at, step: 0 },
            Times::Range { start_ms, end_ms, step_ms } => {
                Asked { start: start_ms, end: end_ms, step: step_ms }
            }
        }
    }

    /// What `@` means.
    pub(super) fn fixed(&self, at: Option<At>) -> Option<i64> {
        at.map(|at| match at {
            At::Millis(milliseconds) => milliseconds,
            At::Start => self.start,
            At::End => self.end,
        })
    }
}

/// A duration in milliseconds for a query with these times.
pub(super) fn milliseconds(duration: &Duration, query: Asked) -> Result<i64, Error> {
    let seconds = seconds(duration, query);
    let milliseconds = (seconds * 1000.0).round();
    if !milliseconds.is_finite() || milliseconds.abs() > MILLIS_MAX as f64 {
        return Err(Error::Execution(format!("duration expression {duration} is out of range")));
    }
    Ok(milliseconds as i64)
}

fn seconds(duration: &Duration, query: Asked) -> f64 {
    match duration {
        Duration::Fixed(milliseconds) => *milliseconds as f64 / 1000.0,
        Duration::Step => query.step as f64 / 1000.0,
        Duration::Range => (query.end - query.start) as f64 / 1000.0,
        Duration::Minus(inner) => -seconds(inner, query),
        Duration::Paren(inner) => seconds(inner, query),
        Duration::Compute(op, left, right) => {
            let (left, right) = (seconds(left, query), seconds(right, query));
            match op {
                DurationOp::Add => left + right,
                DurationOp::Sub => left - right,
                DurationOp::Mul => left * right,
                DurationOp::Div => left / right,
                DurationOp::Mod => left % right,
                DurationOp::Pow => left.powf(right),
                DurationOp::Min => left.min(right),
                DurationOp::Max => left.max(right),
            }
        }
    }
}

/// Functions whose result depends on the time although their arguments do not.
const TIME_DEPENDENT: &[&str] = &[
    "time",
    "timestamp",
    "predict_linear",
    "days_in_month",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "hour",
    "minute",
    "month",
    "year",
    "info",
];

/// Whether an expression has the same value at every time of the query.
pub(crate) fn is_invariant(expr: &Expr) -> bool {
    match &expr.node {
        Node::Number(_) | Node::Text(_) => true,
        Node::Vector(selector) | Node::Range(selector, _) => selector.at.is_some(),
        Node::Subquery(subquery) => subquery.at.is_some(),
        Node::Paren(inner) | Node::Unary { operand: inner, .. } => is_invariant(inner),
        Node::Binary(binary) => is_invariant(&binary.left) && is_invariant(&binary.right),
        Node::Aggregate(aggregate) => {
            is_invariant(&aggregate.inner) && aggregate.parameter.as_ref().is_none_or(is_invariant)
        }
        Node::Call(function, arguments) => {
            !TIME_DEPENDENT.contains(&function.name) && arguments.iter().all(is_invariant)
        }
    }
}
