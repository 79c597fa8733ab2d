//! Type rules that hold after the shape is known: arguments, operands, aggregations.

use crate::ast::{Expr, Extension, Group, Node, Span, ValueType};
use crate::error::Error;
use crate::functions::Function;

/// Checks the number of arguments of a call.
pub(super) fn argument_count(text: &str, span: Span, function: &Function, found: usize) -> Result<(), Error> {
    let (min, max) = (function.arguments_min, function.arguments_max);
    if (min..=max).contains(&found) {
        return Ok(());
    }
    let wanted = if min == max {
        format!("{min}")
    } else if max == usize::MAX {
        format!("at least {min}")
    } else {
        format!("{min} to {max}")
    };
    let message = format!("expected {wanted} argument(s) in call to {:?}, found {found}", function.name);
    Err(Error::parse(text, span, message))
}

/// Checks the types of a whole tree.
pub(super) fn types(text: &str, expr: &Expr) -> Result<(), Error> {
    let fail = |span: Span, message: String| Err(Error::parse(text, span, message));
    let want = |found: &Expr, wanted: ValueType, context: &str| {
        let found_type = found.value_type();
        if found_type == wanted {
            return Ok(());
        }
        let (wanted, found_type) = (wanted.name(), found_type.name());
        fail(found.span, format!("expected type {wanted} in {context}, got {found_type}"))
    };
    match &expr.node {
        Node::Number(_) | Node::Text(_) => Ok(()),
        Node::Vector(selector) | Node::Range(selector, _) => {
            if selector.matchers.iter().all(|matcher| matcher.matches("")) {
                let message = "vector selector must contain at least one non-empty matcher";
                return fail(expr.span, message.to_owned());
            }
            Ok(())
        }
        Node::Paren(inner) => types(text, inner),
        Node::Subquery(subquery) => {
            want(&subquery.inner, ValueType::InstantVector, "subquery").or_else(|error| {
                match subquery.inner.value_type() {
                    ValueType::Scalar => Ok(()),
                    _ => Err(error),
                }
            })?;
            types(text, &subquery.inner)
        }
        Node::Unary { operand, .. } => {
            if !matches!(operand.value_type(), ValueType::Scalar | ValueType::InstantVector) {
                let found = operand.value_type().name();
                let message = format!(
                    "unary expression only allowed on expressions of type scalar or instant vector, got {found}"
                );
                return fail(operand.span, message);
            }
            types(text, operand)
        }
        Node::Binary(binary) => {
            operands(text, expr)?;
            types(text, &binary.left)?;
            types(text, &binary.right)
        }
        Node::Aggregate(aggregate) => {
            want(&aggregate.inner, ValueType::InstantVector, "aggregation expression")?;
            if let (Some(parameter), Some(wanted)) = (&aggregate.parameter, aggregate.op.parameter()) {
                want(parameter, wanted, "aggregation parameter")?;
                types(text, parameter)?;
            }
            types(text, &aggregate.inner)
        }
        Node::Call(function, arguments) => {
            extensions(text, function, arguments)?;
            for (at, argument) in arguments.iter().enumerate() {
                let Some(wanted) = function.arguments.get(at).or(function.arguments.last()) else { continue };
                want(argument, *wanted, &format!("call to function {:?}", function.name))?;
                // The second argument of info narrows down what the first one finds.
                let is_narrowing = function.name == "info" && at == 1;
                if !is_narrowing || !matches!(argument.node, Node::Vector(_)) {
                    types(text, argument)?;
                }
            }
            Ok(())
        }
    }
}

/// `anchored` and `smoothed` have a meaning for some functions only.
fn extensions(text: &str, function: &Function, arguments: &[Expr]) -> Result<(), Error> {
    for argument in arguments {
        let Node::Range(selector, _) = &argument.unwrapped().node else { continue };
        let (word, allowed): (&str, &[&str]) = match selector.extension {
            Extension::None => continue,
            Extension::Anchored => ("anchored", &["changes", "delta", "increase", "rate", "resets"]),
            Extension::Smoothed => ("smoothed", &["delta", "increase", "rate"]),
        };
        if !allowed.contains(&function.name) {
            let message = format!(
                "{word} modifier can only be used with: {} - not with {}",
                allowed.join(", "),
                function.name
            );
            return Err(Error::parse(text, argument.span, message));
        }
    }
    Ok(())
}

fn operands(text: &str, expr: &Expr) -> Result<(), Error> {
    let Node::Binary(binary) = &expr.node else { return Ok(()) };
    let fail = |span: Span, message: &str| Err(Error::parse(text, span, message));
    let mut scalars = 0;
    for side in [&binary.left, &binary.right] {
        match side.value_type() {
            ValueType::Scalar => scalars += 1,
            ValueType::InstantVector => {}
            _ => {
                return fail(
                    side.span,
                    "binary expression must contain only scalar and instant vector types",
                );
            }
        }
    }
    let matching = &binary.matching;
    let has_modifiers = matching.is_on
        || !matching.labels.is_empty()
        || matching.group != Group::None
        || matching.fill_left.is_some();
    if scalars > 0 && binary.op.is_set() {
        return fail(expr.span, "set operator not allowed in binary scalar expression");
    }
    if scalars > 0 && has_modifiers {
        return fail(expr.span, "vector matching only allowed between instant vectors");
    }
    if scalars == 2 && binary.op.is_comparison() && !binary.returns_bool {
        return fail(expr.span, "comparisons between scalars must use BOOL modifier");
    }
    if scalars == 2 && binary.op.is_trim() {
        return fail(expr.span, "trim operators need an instant vector of histograms on the left");
    }
    let shared = matching.include.iter().find(|label| matching.labels.contains(label));
    if matching.is_on
        && let Some(label) = shared
    {
        return fail(expr.span, &format!("label {label:?} must not occur in ON and GROUP clause at once"));
    }
    Ok(())
}
