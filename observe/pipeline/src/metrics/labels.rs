//! Labels of series as they come in: checked, sorted, each text held once.

use std::sync::Arc;

use belfry_signal::{MetricMetadata, SeriesLabels};
use hashbrown::HashSet;

/// The label that names the metric.
pub const METRIC: &str = "__name__";

/// Bounds on one series' labels; zero is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LabelLimits {
    /// Labels of a series.
    pub labels_max: usize,
    /// Bytes of a label's name.
    pub name_bytes_max: usize,
    /// Bytes of a label's value.
    pub value_bytes_max: usize,
}

/// Why labels cannot be those of a series.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelFault {
    /// No name.
    #[error("a series without a metric name")]
    NoName,
    /// A label without a name.
    #[error("a label without a name, of {metric:?}")]
    EmptyName {
        /// The metric.
        metric: String,
    },
    /// One name twice.
    #[error("label {name:?} stands twice, in {metric:?}")]
    Twice {
        /// The metric.
        metric: String,
        /// The label.
        name: String,
    },
    /// Not text.
    #[error("a label that is not UTF-8")]
    NotText,
    /// More or longer than allowed.
    #[error("{what} of {metric:?}: {found} are more than the {allowed} allowed")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// The metric.
        metric: String,
        /// How many there are.
        found: usize,
        /// How many there may be.
        allowed: usize,
    },
}

impl LabelFault {
    /// A bounded name for labels and answers.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Limit { .. } => "label_limit",
            _ => "labels",
        }
    }
}

/// Texts that come again, each held once. It grows with what it is given, so it lives as long as one request, or is
/// bounded by whoever keeps it.
#[derive(Debug, Default)]
pub struct Interner(HashSet<Arc<str>>);

impl Interner {
    /// The text, shared with its earlier uses.
    pub fn get(&mut self, text: &str) -> Arc<str> {
        if let Some(held) = self.0.get(text) {
            return Arc::clone(held);
        }
        let held: Arc<str> = Arc::from(text);
        self.0.insert(Arc::clone(&held));
        held
    }

    /// How many it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Makes a series' labels of pairs in any order: sorted by name, without empty values.
///
/// # Errors
/// When they cannot be those of a series.
pub fn series_labels(
    mut pairs: Vec<(Arc<str>, Arc<str>)>,
    limits: LabelLimits,
) -> Result<SeriesLabels, LabelFault> {
    pairs.retain(|(_, value)| !value.is_empty());
    pairs.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let metric = || metric_name(&pairs).unwrap_or_default().to_owned();
    if metric_name(&pairs).is_none() {
        return Err(LabelFault::NoName);
    }
    if pairs.first().is_some_and(|(name, _)| name.is_empty()) {
        return Err(LabelFault::EmptyName { metric: metric() });
    }
    if let Some(twice) = pairs.windows(2).find(|two| two[0].0 == two[1].0) {
        return Err(LabelFault::Twice { metric: metric(), name: twice[0].0.to_string() });
    }
    let longest = |of: fn(&(Arc<str>, Arc<str>)) -> usize| pairs.iter().map(of).max().unwrap_or(0);
    let checks = [
        ("labels", pairs.len(), limits.labels_max),
        ("bytes of a label's name", longest(|pair| pair.0.len()), limits.name_bytes_max),
        ("bytes of a label's value", longest(|pair| pair.1.len()), limits.value_bytes_max),
    ];
    for (what, found, allowed) in checks {
        if allowed > 0 && found > allowed {
            return Err(LabelFault::Limit { what, metric: metric(), found, allowed });
        }
    }
    Ok(pairs.into())
}

/// The metric's name among sorted or unsorted labels.
#[must_use]
pub fn metric_name(labels: &[(Arc<str>, Arc<str>)]) -> Option<&str> {
    labels.iter().find(|(name, _)| &**name == METRIC).map(|(_, value)| &**value)
}

/// The kinds of metrics by their number in remote write, both versions.
pub const KINDS: [&str; 8] =
    ["unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset"];

/// The name of a kind by its number in remote write.
#[must_use]
pub fn kind(number: i32) -> &'static str {
    usize::try_from(number).ok().and_then(|number| KINDS.get(number)).copied().unwrap_or(KINDS[0])
}

/// The family that a series of such a kind belongs to.
#[must_use]
pub fn family<'a>(metric: &'a str, kind: &str) -> &'a str {
    let endings: &[&str] = match kind {
        "histogram" | "gaugehistogram" => &["_bucket", "_count", "_sum", "_gcount", "_gsum"],
        "summary" => &["_count", "_sum"],
        _ => &[],
    };
    endings.iter().find_map(|ending| metric.strip_suffix(ending)).unwrap_or(metric)
}

/// Metadata by family, each once, the last word counting.
#[derive(Debug, Default)]
pub struct MetadataSet(std::collections::BTreeMap<String, MetricMetadata>);

impl MetadataSet {
    /// Takes what is said of a family.
    pub fn put(&mut self, metadata: MetricMetadata) {
        if !metadata.name.is_empty() {
            self.0.insert(metadata.name.clone(), metadata);
        }
    }

    /// Whether exactly this is said of a family already.
    #[must_use]
    pub fn has(&self, name: &str, kind: &str, help: &str, unit: &str) -> bool {
        let held = self.0.get(name);
        held.is_some_and(|held| held.kind == kind && held.help == help && held.unit == unit)
    }

    /// What is known of a family so far.
    pub fn entry(&mut self, name: &str) -> &mut MetricMetadata {
        self.0.entry(name.to_owned()).or_insert_with(|| MetricMetadata {
            name: name.to_owned(),
            kind: KINDS[0].to_owned(),
            help: String::new(),
            unit: String::new(),
        })
    }

    /// All of it, by name.
    #[must_use]
    pub fn into_vec(self) -> Vec<MetricMetadata> {
        self.0.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pairs: &[(&str, &str)], expected: Result<&str, &str>) {
        let mut texts = Interner::default();
        let pairs = pairs.iter().map(|(name, value)| (texts.get(name), texts.get(value))).collect();
        let limits = LabelLimits { labels_max: 4, name_bytes_max: 10, value_bytes_max: 6 };
        let made = series_labels(pairs, limits).map(|labels| {
            labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
        });
        let made = made.as_ref().map(String::as_str).map_err(LabelFault::reason);
        assert_eq!(made, expected);
    }

    #[test]
    fn labels_are_sorted_and_checked() {
        check(&[("b", "2"), ("__name__", "m"), ("a", "1"), ("c", "")], Ok("__name__=m,a=1,b=2"));
        check(&[("a", "1")], Err("labels"));
        check(&[("__name__", "m"), ("", "1")], Err("labels"));
        check(&[("__name__", "m"), ("a", "1"), ("a", "2")], Err("labels"));
        check(&[("__name__", "m"), ("a", "1"), ("b", "1"), ("c", "1"), ("d", "1")], Err("label_limit"));
        check(&[("__name__", "m"), ("abcdefghijk", "1")], Err("label_limit"));
        check(&[("__name__", "m"), ("a", "1234567")], Err("label_limit"));
        assert_eq!(family("a_bucket", "histogram"), "a");
        assert_eq!(family("a_count", "counter"), "a_count");
        assert_eq!((kind(1), kind(99), kind(-1)), ("counter", "unknown", "unknown"));
    }
}
