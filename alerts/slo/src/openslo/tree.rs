//! YAML documents as trees in which every value knows its place, and the reader that notes every mistake.

use std::fmt;

use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::{Location, Spanned};

use crate::rules::Fault;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) at: Location,
    pub(super) value: Value,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Flag(bool),
    Number(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Spanned<String>, Node)>),
}

/// A mapping whose keys are taken one by one; what is left in the end nobody knows.
#[derive(Debug)]
pub(super) struct Fields {
    pub(super) at: Location,
    left: Vec<(Spanned<String>, Node)>,
    asked: Vec<&'static str>,
}

/// Collects mistakes and remarks with their places.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) faults: Vec<Fault>,
    pub(super) remarks: Vec<Fault>,
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { at: spanned.referenced, value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Flag(flag))
    }

    #[expect(clippy::cast_precision_loss, reason = "numbers of an SLO file are small")]
    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "numbers of an SLO file are small")]
    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Number(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Value::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(key) = map.next_key()? {
            pairs.push((key, map.next_value()?));
        }
        Ok(Value::Map(pairs))
    }
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Flag(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

impl Notes {
    pub(super) fn fault(&mut self, at: Location, message: impl Into<String>) {
        self.faults.push(placed(at, message.into()));
    }

    pub(super) fn remark(&mut self, at: Location, message: impl Into<String>) {
        self.remarks.push(placed(at, message.into()));
    }

    fn wrong(&mut self, node: &Node, key: &str, wanted: &str) {
        self.fault(node.at, format!("{key} is {wanted}, not {}", node.value.kind()));
    }

    pub(super) fn text(&mut self, key: &str, node: &Node) -> Option<String> {
        match &node.value {
            Value::Text(text) => Some(text.clone()),
            _ => {
                self.wrong(node, key, "a text");
                None
            }
        }
    }

    pub(super) fn number(&mut self, key: &str, node: &Node) -> Option<f64> {
        match &node.value {
            Value::Number(number) if number.is_finite() => Some(*number),
            _ => {
                self.wrong(node, key, "a number");
                None
            }
        }
    }

    pub(super) fn flag(&mut self, key: &str, node: &Node) -> Option<bool> {
        match &node.value {
            Value::Flag(flag) => Some(*flag),
            _ => {
                self.wrong(node, key, "true or false");
                None
            }
        }
    }

    pub(super) fn list(&mut self, key: &str, node: Node) -> Option<Vec<Node>> {
        match node.value {
            Value::List(nodes) => Some(nodes),
            _ => {
                self.wrong(&node, key, "a list");
                None
            }
        }
    }

    pub(super) fn fields(&mut self, key: &str, node: Node) -> Option<Fields> {
        match node.value {
            Value::Map(left) => Some(Fields { at: node.at, left, asked: Vec::new() }),
            _ => {
                self.wrong(&node, key, "a mapping");
                None
            }
        }
    }
}

impl Fields {
    /// The value of a key that may be missing; nothing at all counts as missing.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Node> {
        self.asked.push(key);
        let place = self.left.iter().position(|(name, _)| name.value == key)?;
        Some(self.left.remove(place).1).filter(|node| !matches!(node.value, Value::Null))
    }

    /// The value of a key that must be there.
    pub(super) fn need(&mut self, notes: &mut Notes, key: &'static str) -> Option<Node> {
        let found = self.take(key);
        if found.is_none() {
            notes.fault(self.at, format!("{key} is missing"));
        }
        found
    }

    pub(super) fn text(&mut self, notes: &mut Notes, key: &'static str) -> Option<String> {
        let node = self.take(key)?;
        notes.text(key, &node)
    }

    /// All that is left, for mappings whose keys are free.
    pub(super) fn rest(&mut self) -> Vec<(Spanned<String>, Node)> {
        std::mem::take(&mut self.left)
    }

    /// Every key that nobody asked for is a mistake.
    pub(super) fn done(self, notes: &mut Notes) {
        for (key, _) in &self.left {
            let allowed = self.asked.join(", ");
            notes.fault(key.referenced, format!("{:?} is not known here: there are {allowed}", key.value));
        }
    }
}

/// Reads all documents of a text; empty ones are left out.
pub(super) fn documents(text: &str) -> Result<Vec<Node>, Fault> {
    serde_saphyr::from_multiple::<Node>(text)
        .map(|nodes| nodes.into_iter().filter(|node| !matches!(node.value, Value::Null)).collect())
        .map_err(|error| {
            let error = error.without_snippet();
            let message = error.to_string();
            let message = message.lines().next().unwrap_or_default().to_owned();
            match error.location() {
                Some(at) => placed(at, message),
                None => Fault { line: 1, column: 1, message },
            }
        })
}

fn placed(at: Location, message: String) -> Fault {
    let place = |number: u64| usize::try_from(number).unwrap_or(usize::MAX).max(1);
    Fault { line: place(at.line()), column: place(at.column()), message }
}
