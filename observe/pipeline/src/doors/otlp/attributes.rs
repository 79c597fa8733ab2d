//! OTLP's values as attributes of ours.

use belfry_signal::Value;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;

use crate::doors::shape::{below, text};

/// Attributes that all records of a resource and scope share, at most; the rest becomes one text.
const SHARED_MAX: usize = 100;
/// How deep values within values are read.
const DEPTH_MAX: usize = 8;

/// Attributes, maps within them as names with dots.
pub(super) fn attributes(keys: Vec<KeyValue>, into: &mut Vec<(String, Value)>) {
    for KeyValue { key, value, .. } in keys {
        if let Some(value) = value.and_then(|value| value.value) {
            push(key, value, 0, into);
        }
    }
}

/// What all records of a resource share.
pub(super) fn of_resource(resource: Option<Resource>) -> Vec<(String, Value)> {
    let mut shared = Vec::new();
    attributes(resource.map(|resource| resource.attributes).unwrap_or_default(), &mut shared);
    shared
}

/// What all records of a resource and scope share; a record's own attributes stand before them.
pub(super) fn shared(
    of_resource: &[(String, Value)],
    scope: Option<InstrumentationScope>,
) -> Vec<(String, Value)> {
    let mut shared = of_resource.to_vec();
    if let Some(scope) = scope {
        if !scope.name.is_empty() {
            shared.push(("otel.scope.name".to_owned(), text(scope.name)));
        }
        attributes(scope.attributes, &mut shared);
    }
    if shared.len() > SHARED_MAX {
        let rest: Vec<String> = shared
            .split_off(SHARED_MAX)
            .into_iter()
            .map(|(name, value)| match value {
                Value::Private(text) => format!("{name}={}", text.reveal()),
                other => format!("{name}={other}"),
            })
            .collect();
        shared.push(("resource.rest".to_owned(), text(rest.join(" "))));
    }
    shared
}

/// Adds what all share to a record's own, which are stronger.
pub(super) fn add_shared(own: &mut Vec<(String, Value)>, shared: &[(String, Value)]) {
    let from = own.len();
    for (name, value) in shared {
        if !own[..from].iter().any(|(other, _)| other == name) {
            own.push((name.clone(), value.clone()));
        }
    }
}

fn push(name: String, value: Any, depth: usize, into: &mut Vec<(String, Value)>) {
    let value = match value {
        Any::BoolValue(truth) => truth.into(),
        Any::IntValue(number) => number.into(),
        Any::DoubleValue(number) => number.into(),
        Any::KvlistValue(list) if depth < DEPTH_MAX => {
            for KeyValue { key, value, .. } in list.values {
                if let Some(value) = value.and_then(|value| value.value) {
                    push(below(&name, key), value, depth + 1, into);
                }
            }
            return;
        }
        other => text(spelled(Some(AnyValue { value: Some(other) }))),
    };
    into.push((name, value));
}

/// A value as text: strings as they are, lists and maps as JSON.
pub(super) fn spelled(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        None => String::new(),
        Some(Any::StringValue(text)) => text,
        Some(other) => match json(other, 0) {
            serde_json::Value::String(text) => text,
            json => json.to_string(),
        },
    }
}

fn json(value: Any, depth: usize) -> serde_json::Value {
    let inner = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(value) if depth < DEPTH_MAX => json(value, depth + 1),
        _ => serde_json::Value::Null,
    };
    match value {
        Any::StringValue(text) => text.into(),
        Any::BoolValue(truth) => truth.into(),
        Any::IntValue(number) => number.into(),
        Any::DoubleValue(number) => number.into(),
        Any::ArrayValue(list) => list.values.into_iter().map(|value| inner(Some(value))).collect(),
        Any::KvlistValue(list) => serde_json::Value::Object(
            list.values.into_iter().map(|pair| (pair.key, inner(pair.value))).collect(),
        ),
        Any::BytesValue(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
        // An index into a table that only profiles have.
        _ => serde_json::Value::Null,
    }
}
