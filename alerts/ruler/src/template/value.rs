//! What templates work on: values as Go's templates know them, and how they print.

use std::collections::BTreeMap;

use belfry_promql::format_short;

/// A value inside a template.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing.
    Nil,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// Text.
    Text(String),
    /// A moment, in Unix milliseconds.
    Time(i64),
    /// Names and values.
    Map(BTreeMap<String, Value>),
    /// Values in order.
    List(Vec<Value>),
}

impl Value {
    /// A map of texts.
    pub fn texts<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Value {
        Value::Map(pairs.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect())
    }

    /// What `if` and `and` ask: neither empty nor zero.
    pub(crate) fn is_true(&self) -> bool {
        match self {
            Value::Nil => false,
            Value::Bool(value) => *value,
            Value::Int(value) => *value != 0,
            Value::Float(value) => *value != 0.0,
            Value::Text(text) => !text.is_empty(),
            Value::Time(_) => true,
            Value::Map(map) => !map.is_empty(),
            Value::List(list) => !list.is_empty(),
        }
    }

    /// The name of its type, as Go says it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Value::Nil => "nil",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float64",
            Value::Text(_) => "string",
            Value::Time(_) => "time.Time",
            Value::Map(_) => "map[string]string",
            Value::List(_) => "[]interface {}",
        }
    }

    /// As a number; texts are read as one.
    pub(crate) fn number(&self) -> Result<f64, String> {
        match self {
            Value::Int(value) => Ok(*value as f64),
            Value::Float(value) => Ok(*value),
            Value::Text(text) => {
                text.trim().parse().map_err(|_| format!("{text:?} cannot be read as a number"))
            }
            other => Err(format!("can't convert {} to float", other.kind())),
        }
    }

    /// As text; anything else than text is a fault.
    pub(crate) fn text(&self) -> Result<&str, String> {
        match self {
            Value::Text(text) => Ok(text),
            other => Err(format!("expected string; found {}", other.kind())),
        }
    }

    /// How it stands in the output.
    pub(crate) fn print(&self) -> String {
        match self {
            Value::Nil => "<no value>".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Int(value) => value.to_string(),
            Value::Float(value) => format_short(*value),
            Value::Text(text) => text.clone(),
            Value::Time(millis) => super::number::print_time(*millis),
            Value::Map(map) => {
                let entries: Vec<String> =
                    map.iter().map(|(name, value)| format!("{name}:{}", value.print())).collect();
                format!("map[{}]", entries.join(" "))
            }
            Value::List(list) => {
                format!("[{}]", list.iter().map(Value::print).collect::<Vec<_>>().join(" "))
            }
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}
