//! A series source in memory, for scripts and tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::Error;
use crate::histogram::{CounterReset, Histogram};
use crate::labels::Labels;
use crate::matcher::Matcher;
use crate::source::{Series, SeriesData, Value};

/// Series in memory.
#[derive(Clone, Debug, Default)]
pub struct MemorySeries {
    series: BTreeMap<Labels, BTreeMap<i64, Value>>,
}

impl MemorySeries {
    /// Nothing in it yet.
    pub fn new() -> MemorySeries {
        MemorySeries::default()
    }

    /// Adds a point, replacing one at the same time. A counter histogram's reset hint is set from the point
    /// before it, as a store does: unknown after a reset or after something else, else "not reset".
    pub fn add(&mut self, labels: &Labels, unix_millis: i64, value: Value) {
        let points = self.series.entry(labels.clone()).or_default();
        let value = match value {
            Value::Histogram(histogram) if histogram.hint != CounterReset::Gauge => {
                let previous = points.range(..unix_millis).next_back().map(|(_, value)| value);
                Value::Histogram(Arc::new(hinted(&histogram, previous)))
            }
            other => other,
        };
        points.insert(unix_millis, value);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.series.clear();
    }
}

fn hinted(histogram: &Histogram, previous: Option<&Value>) -> Histogram {
    let previous = match previous {
        Some(Value::Histogram(previous)) => Some(&**previous),
        _ => None,
    };
    Histogram { hint: histogram.hint_after(previous), ..histogram.clone() }
}

impl Series for MemorySeries {
    fn select(&self, matchers: &[Matcher], from_ms: i64, to_ms: i64) -> Result<Vec<SeriesData>, Error> {
        let mut found = Vec::new();
        for (labels, points) in &self.series {
            if from_ms > to_ms || !matchers.iter().all(|matcher| matcher.matches_labels(labels)) {
                continue;
            }
            let mut data = SeriesData { labels: labels.clone(), ..SeriesData::default() };
            for (time, value) in points.range(from_ms..=to_ms) {
                match value {
                    Value::Float(value) => data.floats.push((*time, *value)),
                    Value::Histogram(value) => data.histograms.push((*time, value.clone())),
                }
            }
            found.push(data);
        }
        Ok(found)
    }
}
