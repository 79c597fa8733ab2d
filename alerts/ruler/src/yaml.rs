//! Reading YAML with places: what is wrong, and where.

use std::fmt;

use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::{Location, Spanned};

/// One mistake in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its line, from 1; 0 when it has no place.
    pub line: u64,
    /// Its column, from 1.
    pub column: u64,
    /// What is wrong, and what is allowed.
    pub message: String,
}

/// Every mistake in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return f.write_str(&self.message);
        }
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Faults {}

/// Names and texts in the order of the file, each text with its place.
#[derive(Clone, Debug, Default)]
pub struct Pairs(pub Vec<(String, Spanned<String>)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Pairs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("names with texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(name) = map.next_key()? {
                    pairs.push((name, map.next_value()?));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// Collects mistakes while a file is checked.
#[derive(Debug, Default)]
pub struct Collector {
    faults: Vec<Fault>,
}

impl Collector {
    /// Notes a mistake at a place.
    pub fn at(&mut self, location: Location, message: impl Into<String>) {
        self.faults.push(Fault { line: location.line(), column: location.column(), message: message.into() });
    }

    /// Notes a mistake at a value.
    pub fn on<T>(&mut self, value: &Spanned<T>, message: impl Into<String>) {
        self.at(value.referenced, message);
    }

    /// The value, unless there were mistakes.
    ///
    /// # Errors
    /// All mistakes, by their places.
    pub fn finish<T>(mut self, value: T) -> Result<T, Faults> {
        self.faults.sort_by_key(|fault| (fault.line, fault.column));
        if self.faults.is_empty() { Ok(value) } else { Err(Faults(self.faults)) }
    }
}

/// Reads a document into plain data. An empty document is an empty mapping.
///
/// # Errors
/// What is wrong with its form, with the place.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, Faults> {
    let is_empty = text.lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line == "---"
    });
    let text = if is_empty { "{}" } else { text };
    serde_saphyr::from_str(text).map_err(|error| {
        let error = error.without_snippet();
        let (line, column) = error.location().map_or((0, 0), |place| (place.line(), place.column()));
        let message = error.to_string();
        Faults(vec![Fault { line, column, message: message.lines().next().unwrap_or_default().to_owned() }])
    })
}

/// A duration as `5m` or `1h30m`, in milliseconds.
pub fn duration(value: &Spanned<String>, faults: &mut Collector) -> i64 {
    let text = value.value.trim();
    if text == "0" {
        return 0;
    }
    belfry_promql::parse_duration(text).unwrap_or_else(|| {
        faults.on(value, format!("{text:?} is not a duration, as 30s, 5m or 1h30m"));
        0
    })
}
