//! Syntax tree to text: on one line (`Display`), and broken over lines where it is long (`format`).

use std::fmt;

use crate::ast::{Aggregate, At, Binary, Duration, DurationOp, Expr, Extension, Group, Node, Selector};
use crate::labels::{is_plain_label_name, is_plain_metric_name};
use crate::text::{format_duration, format_short, quote};

/// Expressions that fit in this many characters stay on one line.
const LINE_WIDTH_MAX: usize = 100;

/// The query in its canonical form, long ones broken over lines.
pub fn format(expr: &Expr) -> String {
    pretty(expr, 0)
}

fn indent(depth: usize) -> String {
    "  ".repeat(depth)
}

fn pretty(expr: &Expr, depth: usize) -> String {
    let flat = expr.to_string();
    if flat.len() + 2 * depth <= LINE_WIDTH_MAX {
        return format!("{}{flat}", indent(depth));
    }
    let pad = indent(depth);
    let listed =
        |items: &[&Expr]| items.iter().map(|item| pretty(item, depth + 1)).collect::<Vec<_>>().join(",\n");
    match &expr.node {
        Node::Paren(inner) => format!("{pad}(\n{}\n{pad})", pretty(inner, depth + 1)),
        Node::Binary(binary) => {
            let (left, right) = (pretty(&binary.left, depth + 1), pretty(&binary.right, depth + 1));
            format!("{left}\n{pad}{}{}\n{right}", binary.op.text(), modifiers(binary))
        }
        Node::Aggregate(aggregate) => {
            let items: Vec<&Expr> = aggregate.parameter.iter().chain([&aggregate.inner]).collect();
            format!("{pad}{}(\n{}\n{pad})", aggregate_head(aggregate), listed(&items))
        }
        Node::Call(function, arguments) => {
            format!("{pad}{}(\n{}\n{pad})", function.name, listed(&arguments.iter().collect::<Vec<_>>()))
        }
        _ => format!("{pad}{flat}"),
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.node {
            Node::Number(value) => out.write_str(&format_short(*value)),
            Node::Text(value) => out.write_str(&quote(value)),
            Node::Vector(selector) => write!(out, "{}{}", head(selector), tail(selector)),
            Node::Range(selector, range) => write!(out, "{}[{range}]{}", head(selector), tail(selector)),
            Node::Subquery(subquery) => {
                write!(out, "{}[{}:", subquery.inner, subquery.range)?;
                if let Some(step) = &subquery.step {
                    write!(out, "{step}")?;
                }
                write!(out, "]{}", times(subquery.offset.as_ref(), subquery.at))
            }
            Node::Paren(inner) => write!(out, "({inner})"),
            Node::Unary { is_minus, operand } => {
                write!(out, "{}{operand}", if *is_minus { "-" } else { "+" })
            }
            Node::Binary(binary) => {
                write!(out, "{} {}{} {}", binary.left, binary.op.text(), modifiers(binary), binary.right)
            }
            Node::Aggregate(aggregate) => {
                write!(out, "{}(", aggregate_head(aggregate))?;
                if let Some(parameter) = &aggregate.parameter {
                    write!(out, "{parameter}, ")?;
                }
                write!(out, "{})", aggregate.inner)
            }
            Node::Call(function, arguments) => {
                let arguments: Vec<String> = arguments.iter().map(Expr::to_string).collect();
                write!(out, "{}({})", function.name, arguments.join(", "))
            }
        }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Duration::Fixed(milliseconds) => out.write_str(&format_duration(*milliseconds)),
            Duration::Step => out.write_str("step()"),
            Duration::Range => out.write_str("range()"),
            Duration::Minus(inner) => write!(out, "-{inner}"),
            Duration::Paren(inner) => write!(out, "({inner})"),
            Duration::Compute(op, left, right) => {
                let sign = match op {
                    DurationOp::Add => "+",
                    DurationOp::Sub => "-",
                    DurationOp::Mul => "*",
                    DurationOp::Div => "/",
                    DurationOp::Mod => "%",
                    DurationOp::Pow => "^",
                    DurationOp::Min => return write!(out, "min_of({left}, {right})"),
                    DurationOp::Max => return write!(out, "max_of({left}, {right})"),
                };
                write!(out, "{left} {sign} {right}")
            }
        }
    }
}

fn label(name: &str) -> String {
    if is_plain_label_name(name) { name.to_owned() } else { quote(name) }
}

fn head(selector: &Selector) -> String {
    let mut text = String::new();
    let mut listed = Vec::new();
    for matcher in &selector.matchers {
        if matcher.is_metric_name() && is_plain_metric_name(&matcher.value) && text.is_empty() {
            text.clone_from(&matcher.value);
        } else if matcher.is_metric_name() && !matcher.value.is_empty() {
            listed.push(quote(&matcher.value));
        } else {
            listed.push(matcher.to_string());
        }
    }
    if listed.is_empty() { text } else { format!("{text}{{{}}}", listed.join(",")) }
}

fn tail(selector: &Selector) -> String {
    let extension = match selector.extension {
        Extension::None => "",
        Extension::Anchored => " anchored",
        Extension::Smoothed => " smoothed",
    };
    format!("{extension}{}", times(selector.offset.as_ref(), selector.at))
}

fn times(offset: Option<&Duration>, at: Option<At>) -> String {
    let at = match at {
        None => String::new(),
        Some(At::Start) => " @ start()".to_owned(),
        Some(At::End) => " @ end()".to_owned(),
        Some(At::Millis(milliseconds)) => {
            format!(" @ {}.{:03}", milliseconds.div_euclid(1000), milliseconds.rem_euclid(1000))
        }
    };
    offset.map_or(at.clone(), |offset| format!("{at} offset {offset}"))
}

fn names(labels: &[String]) -> String {
    labels.iter().map(|name| label(name)).collect::<Vec<_>>().join(", ")
}

fn aggregate_head(aggregate: &Aggregate) -> String {
    let word = if aggregate.is_without { "without" } else { "by" };
    match (aggregate.labels.is_empty(), aggregate.is_without) {
        (true, false) => aggregate.op.text().to_owned(),
        _ => format!("{} {word} ({}) ", aggregate.op.text(), names(&aggregate.labels)),
    }
}

fn modifiers(binary: &Binary) -> String {
    let matching = &binary.matching;
    let mut text = if binary.returns_bool { " bool".to_owned() } else { String::new() };
    if matching.is_on || !matching.labels.is_empty() {
        let word = if matching.is_on { "on" } else { "ignoring" };
        text.push_str(&format!(" {word} ({})", names(&matching.labels)));
    }
    let group = match matching.group {
        Group::None => "",
        Group::Left => " group_left",
        Group::Right => " group_right",
    };
    if !group.is_empty() {
        text.push_str(&format!("{group} ({})", names(&matching.include)));
    }
    match (matching.fill_left, matching.fill_right) {
        (Some(left), Some(right)) if left.to_bits() == right.to_bits() => {
            text.push_str(&format!(" fill ({})", format_short(left)));
        }
        (left, right) => {
            for (word, value) in [("fill_left", left), ("fill_right", right)] {
                if let Some(value) = value {
                    text.push_str(&format!(" {word} ({})", format_short(value)));
                }
            }
        }
    }
    text
}
