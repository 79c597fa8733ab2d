//! What a query costs, node by node: what `EXPLAIN` is in other languages.
//!
//! The clock is the caller's. Nodes are known by where they lie in the tree, which does not move while it is evaluated.

use std::collections::HashMap;

use super::Evaluator;
use super::column::Output;
use crate::ast::{Expr, Node, Selector};

/// Characters of a node's text that are shown.
const TEXT_CHARS_MAX: usize = 160;

/// One node of a query with what it cost, and the nodes below it.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What kind of node it is, as `selector` or `aggregation`.
    pub kind: &'static str,
    /// The node as text; long ones are cut.
    pub text: String,
    /// How often it was evaluated. Nodes that do not depend on the time are evaluated once.
    pub evaluations: usize,
    /// Time taken, with the nodes below it, in the clock's seconds.
    pub seconds: f64,
    /// Series that it gave.
    pub series: usize,
    /// Series that it read from the store.
    pub series_read: usize,
    /// Samples that it read from the store.
    pub samples_read: usize,
    /// Values that it computed.
    pub values: usize,
    /// The nodes that it is made of.
    pub below: Vec<Plan>,
}

/// What one node cost so far.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    evaluations: usize,
    seconds: f64,
    series: usize,
    series_read: usize,
    samples_read: usize,
    values: usize,
}

/// Collects costs while a query is evaluated.
pub(super) struct Profile<'a> {
    clock: &'a dyn Fn() -> f64,
    costs: HashMap<usize, Cost>,
}

fn place<T>(node: &T) -> usize {
    std::ptr::from_ref(node).addr()
}

impl<'a> Profile<'a> {
    pub(super) fn new(clock: &'a dyn Fn() -> f64) -> Self {
        Self { clock, costs: HashMap::new() }
    }

    /// The tree of an expression that was evaluated.
    pub(super) fn plan(&self, expr: &Expr) -> Plan {
        let cost = |place: usize| self.costs.get(&place).copied().unwrap_or_default();
        let own = cost(place(expr));
        let read = match &expr.node {
            Node::Vector(selector) | Node::Range(selector, _) => cost(place(selector)),
            _ => Cost::default(),
        };
        let mut text = expr.to_string();
        if let Some((end, _)) = text.char_indices().nth(TEXT_CHARS_MAX) {
            text.truncate(end);
            text.push('\u{2026}');
        }
        Plan {
            kind: kind(&expr.node),
            text,
            // `timestamp(x)` reads its selector itself.
            evaluations: own.evaluations.max(read.evaluations),
            seconds: own.seconds.max(read.seconds),
            series: own.series.max(read.series_read),
            series_read: read.series_read,
            samples_read: read.samples_read,
            values: own.values,
            below: parts(expr).into_iter().map(|part| self.plan(part)).collect(),
        }
    }
}

impl Evaluator<'_> {
    /// The time, when somebody wants to know what things cost.
    pub(super) fn began(&self) -> Option<f64> {
        self.profile.as_ref().map(|profile| (profile.clock)())
    }

    /// Notes what a node gave.
    pub(super) fn note_output(&mut self, expr: &Expr, began: Option<f64>, output: &Output) {
        let series = match output {
            Output::Rows(rows) => rows.len(),
            Output::Scalar(_) | Output::Text(_) => 0,
        };
        self.note(place(expr), began, |cost| {
            cost.series = cost.series.max(series);
            cost.values += output.values();
        });
    }

    /// Notes what a range vector gave.
    pub(super) fn note_range(&mut self, expr: &Expr, began: Option<f64>, series: usize) {
        self.note(place(expr), began, |cost| cost.series = cost.series.max(series));
    }

    /// Notes what a selector read.
    pub(super) fn note_read(
        &mut self,
        selector: &Selector,
        began: Option<f64>,
        series: usize,
        samples: usize,
    ) {
        self.note(place(selector), began, |cost| {
            cost.series_read += series;
            cost.samples_read += samples;
        });
    }

    fn note(&mut self, place: usize, began: Option<f64>, add: impl FnOnce(&mut Cost)) {
        let (Some(profile), Some(began)) = (&mut self.profile, began) else { return };
        let cost = profile.costs.entry(place).or_default();
        cost.evaluations += 1;
        cost.seconds += (profile.clock)() - began;
        add(cost);
    }
}

fn kind(node: &Node) -> &'static str {
    match node {
        Node::Number(_) => "number",
        Node::Text(_) => "text",
        Node::Vector(_) => "selector",
        Node::Range(..) => "range",
        Node::Subquery(_) => "subquery",
        Node::Paren(_) => "parentheses",
        Node::Unary { .. } => "sign",
        Node::Binary(_) => "operator",
        Node::Aggregate(_) => "aggregation",
        Node::Call(..) => "function",
    }
}

fn parts(expr: &Expr) -> Vec<&Expr> {
    match &expr.node {
        Node::Number(_) | Node::Text(_) | Node::Vector(_) | Node::Range(..) => Vec::new(),
        Node::Subquery(subquery) => vec![&subquery.inner],
        Node::Paren(inner) | Node::Unary { operand: inner, .. } => vec![inner],
        Node::Binary(binary) => vec![&binary.left, &binary.right],
        Node::Aggregate(aggregate) => aggregate.parameter.iter().chain([&aggregate.inner]).collect(),
        Node::Call(_, arguments) => arguments.iter().collect(),
    }
}
