//! Label sets: sorted, immutable, cheap to clone and to compare.

use std::fmt;
use std::sync::Arc;

/// The label that holds the metric name.
pub const METRIC_NAME: &str = "__name__";

type Pair = (Arc<str>, Arc<str>);

/// A set of labels sorted by name, without empty values. The metric name is the label `__name__`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Arc<[Pair]>);

impl Default for Labels {
    fn default() -> Labels {
        Labels(Arc::from([]))
    }
}

impl Labels {
    /// From pairs in any order; of equal names the last counts, an empty value means the label is absent.
    pub fn from_pairs<N: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (N, V)>) -> Labels {
        let mut sorted: Vec<Pair> = Vec::new();
        for (name, value) in pairs {
            let (name, value): (Arc<str>, Arc<str>) = (Arc::from(name.as_ref()), Arc::from(value.as_ref()));
            match sorted.binary_search_by(|(held, _)| held.cmp(&name)) {
                Ok(at) => sorted[at].1 = value,
                Err(at) => sorted.insert(at, (name, value)),
            }
        }
        sorted.retain(|(_, value)| !value.is_empty());
        Labels(sorted.into())
    }

    /// From pairs that are sorted by name, without repetitions and empty values; their texts are shared.
    pub fn from_sorted(pairs: impl Into<Arc<[(Arc<str>, Arc<str>)]>>) -> Labels {
        let pairs = pairs.into();
        debug_assert!(pairs.is_sorted_by(|a, b| a.0 < b.0), "{pairs:?}");
        Labels(pairs)
    }

    /// All labels by name, their texts shared.
    pub fn pairs(&self) -> &[(Arc<str>, Arc<str>)] {
        &self.0
    }

    /// The value of a label; absent labels read as the empty string.
    pub fn get(&self, name: &str) -> &str {
        self.0.binary_search_by(|(held, _)| (**held).cmp(name)).map_or("", |at| &self.0[at].1)
    }

    /// Whether the label is there.
    pub fn has(&self, name: &str) -> bool {
        !self.get(name).is_empty()
    }

    /// The metric name, or the empty string.
    pub fn metric_name(&self) -> &str {
        self.get(METRIC_NAME)
    }

    /// All labels by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// How many labels there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no label at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The labels whose name passes.
    pub(crate) fn filtered(&self, keep: impl Fn(&str) -> bool) -> Labels {
        if self.0.iter().all(|(name, _)| keep(name)) {
            return self.clone();
        }
        Labels(self.0.iter().filter(|(name, _)| keep(name)).cloned().collect())
    }

    pub(crate) fn keep(&self, names: &[String]) -> Labels {
        self.filtered(|name| names.iter().any(|wanted| wanted == name))
    }

    pub(crate) fn without(&self, names: &[String]) -> Labels {
        self.filtered(|name| !names.iter().any(|unwanted| unwanted == name))
    }

    pub(crate) fn without_name(&self) -> Labels {
        self.filtered(|name| name != METRIC_NAME)
    }

    /// With one label set, or removed if the value is empty.
    pub(crate) fn with(&self, name: &str, value: &str) -> Labels {
        Labels::from_pairs(self.iter().chain([(name, value)]))
    }
}

/// `{a="b", c="d"}`, the metric name among the others.
impl fmt::Display for Labels {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("{")?;
        for (at, (name, value)) in self.iter().enumerate() {
            if at > 0 {
                out.write_str(", ")?;
            }
            if is_plain_label_name(name) {
                write!(out, "{name}={}", crate::text::quote(value))?;
            } else {
                write!(out, "{}={}", crate::text::quote(name), crate::text::quote(value))?;
            }
        }
        out.write_str("}")
    }
}

/// A label name that needs no quotes: `[a-zA-Z_][a-zA-Z0-9_]*`.
pub(crate) fn is_plain_label_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A metric name that needs no quotes: as a label name, with colons.
pub(crate) fn is_plain_metric_name(name: &str) -> bool {
    !name.is_empty()
        && !name.as_bytes()[0].is_ascii_digit()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':')
}

/// Any non-empty UTF-8 text may be a label name; bytes that are not UTF-8 may not.
pub(crate) fn is_valid_label_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|letter| crate::text::raw_byte(letter).is_some())
}
