//! `/api/v1/parse_query`: the tree of a query, in the shape that Prometheus' page and its tools read.

use belfry_promql::ast::{
    Aggregate, At, Binary, BinaryOp, Duration, Expr, Group, Node, Selector, Subquery, ValueType,
};
use belfry_promql::{Function, METRIC_NAME, MatchOp, Matcher};
use serde_json::{Value as Json, json};

/// The tree of an expression.
pub(super) fn tree(expr: &Expr) -> Json {
    match &expr.node {
        Node::Number(value) => json!({"type": "numberLiteral", "val": belfry_promql::format_float(*value)}),
        Node::Text(text) => json!({"type": "stringLiteral", "val": text}),
        Node::Vector(selector) => vector(selector, "vectorSelector"),
        Node::Range(selector, range) => {
            let mut node = vector(selector, "matrixSelector");
            node["range"] = millis(Some(range));
            node
        }
        Node::Subquery(subquery) => of_subquery(subquery),
        Node::Paren(inner) => json!({"type": "parenExpr", "expr": tree(inner)}),
        Node::Unary { is_minus, operand } => {
            json!({"type": "unaryExpr", "op": if *is_minus { "-" } else { "+" }, "expr": tree(operand)})
        }
        Node::Binary(binary) => of_binary(binary),
        Node::Aggregate(aggregate) => of_aggregate(aggregate),
        Node::Call(function, arguments) => json!({
            "type": "call",
            "func": of_function(function),
            "args": arguments.iter().map(tree).collect::<Vec<_>>(),
        }),
    }
}

/// A fixed duration; one that depends on the query's own step or range has no number.
fn millis(duration: Option<&Duration>) -> Json {
    match duration {
        None => json!(0),
        Some(Duration::Fixed(millis)) => json!(millis),
        Some(Duration::Paren(inner)) => millis(Some(inner)),
        Some(Duration::Minus(inner)) => match millis(Some(inner)).as_i64() {
            Some(millis) => json!(-millis),
            None => Json::Null,
        },
        Some(_) => Json::Null,
    }
}

fn at(at: Option<At>) -> (Json, Json) {
    match at {
        None => (Json::Null, Json::Null),
        Some(At::Millis(millis)) => (json!(millis), Json::Null),
        Some(At::Start) => (Json::Null, json!("start")),
        Some(At::End) => (Json::Null, json!("end")),
    }
}

fn vector(selector: &Selector, kind: &str) -> Json {
    let (timestamp, start_or_end) = at(selector.at);
    let is_name = |matcher: &&Matcher| matcher.name == METRIC_NAME && matcher.op == MatchOp::Equal;
    let name = selector.matchers.iter().find(is_name).map(|matcher| matcher.value.clone());
    json!({
        "type": kind,
        "name": name.unwrap_or_default(),
        "offset": millis(selector.offset.as_ref()),
        "matchers": selector.matchers.iter().map(matcher).collect::<Vec<_>>(),
        "timestamp": timestamp,
        "startOrEnd": start_or_end,
    })
}

fn matcher(matcher: &Matcher) -> Json {
    let kind = match matcher.op {
        MatchOp::Equal => "=",
        MatchOp::NotEqual => "!=",
        MatchOp::Regex => "=~",
        MatchOp::NotRegex => "!~",
    };
    json!({"name": matcher.name, "value": matcher.value, "type": kind})
}

fn of_subquery(subquery: &Subquery) -> Json {
    let (timestamp, start_or_end) = at(subquery.at);
    json!({
        "type": "subquery",
        "expr": tree(&subquery.inner),
        "range": millis(Some(&subquery.range)),
        "offset": millis(subquery.offset.as_ref()),
        "step": millis(subquery.step.as_ref()),
        "timestamp": timestamp,
        "startOrEnd": start_or_end,
    })
}

fn of_binary(binary: &Binary) -> Json {
    let is_scalar = |side: &Expr| side.value_type() == ValueType::Scalar;
    let matching = if is_scalar(&binary.left) || is_scalar(&binary.right) {
        Json::Null
    } else {
        let matching = &binary.matching;
        let card = match (binary.op, matching.group) {
            (BinaryOp::And | BinaryOp::Or | BinaryOp::Unless, _) => "many-to-many",
            (_, Group::None) => "one-to-one",
            (_, Group::Left) => "many-to-one",
            (_, Group::Right) => "one-to-many",
        };
        json!({
            "card": card,
            "labels": matching.labels,
            "on": matching.is_on,
            "include": matching.include,
            "fillValues": {"lhs": matching.fill_left, "rhs": matching.fill_right},
        })
    };
    json!({
        "type": "binaryExpr",
        "op": binary.op.text(),
        "lhs": tree(&binary.left),
        "rhs": tree(&binary.right),
        "matching": matching,
        "bool": binary.returns_bool,
    })
}

fn of_aggregate(aggregate: &Aggregate) -> Json {
    json!({
        "type": "aggregation",
        "op": aggregate.op.text(),
        "expr": tree(&aggregate.inner),
        "param": aggregate.parameter.as_ref().map_or(Json::Null, tree),
        "grouping": aggregate.labels,
        "without": aggregate.is_without,
    })
}

fn of_function(function: &Function) -> Json {
    let name = |kind: ValueType| match kind {
        ValueType::Scalar => "scalar",
        ValueType::Text => "string",
        ValueType::InstantVector => "vector",
        ValueType::RangeVector => "matrix",
    };
    // How many arguments may be left out; -1 for any number more.
    let variadic = match function.arguments_max {
        usize::MAX => -1,
        most => i64::try_from(most - function.arguments_min).unwrap_or(0),
    };
    json!({
        "name": function.name,
        "argTypes": function.arguments.iter().map(|kind| name(*kind)).collect::<Vec<_>>(),
        "variadic": variadic,
        "returnType": name(function.returns),
    })
}
