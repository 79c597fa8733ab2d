//! What operators hand on: series as columns, one slot per time.

use std::collections::HashMap;

use super::Grid;
use crate::error::Error;
use crate::labels::Labels;
use crate::source::{SeriesData, Value};

/// One slot per time; `None` where the series has no value.
pub(crate) type Column = Vec<Option<Value>>;

/// A series while it is computed. The metric name is kept until the end even where it will be dropped, so that
/// later operators can still see it.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) labels: Labels,
    /// Whether the name goes away at the end.
    pub(crate) drops_name: bool,
    pub(crate) column: Column,
}

/// What an expression yields.
#[derive(Clone, Debug)]
pub(crate) enum Output {
    Scalar(Vec<f64>),
    Text(String),
    Rows(Vec<Row>),
}

impl Output {
    pub(super) fn values(&self) -> usize {
        match self {
            Output::Scalar(values) => values.len(),
            Output::Text(_) => 1,
            Output::Rows(rows) => rows.iter().map(|row| row.column.len()).sum(),
        }
    }

    /// One value to many times.
    pub(super) fn repeated(self, count: usize) -> Output {
        match self {
            Output::Scalar(values) => Output::Scalar(vec![values[0]; count]),
            Output::Text(text) => Output::Text(text),
            Output::Rows(mut rows) => {
                for row in &mut rows {
                    let value = row.column.pop().flatten();
                    row.column = vec![value; count];
                }
                Output::Rows(rows)
            }
        }
    }
}

impl Row {
    pub(super) fn has_values(&self) -> bool {
        self.column.iter().any(Option::is_some)
    }

    /// The name as the reader will see it.
    pub(super) fn metric_name(&self) -> &str {
        self.labels.metric_name()
    }

    /// Turns floats into other floats and drops histograms, as most functions on samples do.
    pub(super) fn map_floats(&mut self, change: impl Fn(usize, f64) -> f64) {
        self.drops_name = true;
        for (at, slot) in self.column.iter_mut().enumerate() {
            *slot = match slot.take() {
                Some(Value::Float(value)) => Some(Value::Float(change(at, value))),
                _ => None,
            };
        }
    }

    pub(super) fn into_points(self, grid: Grid) -> SeriesData {
        let mut data = SeriesData { labels: self.labels, ..SeriesData::default() };
        for (at, value) in self.column.into_iter().enumerate() {
            match value {
                Some(Value::Float(value)) => data.floats.push((grid.time(at), value)),
                Some(Value::Histogram(value)) => data.histograms.push((grid.time(at), value)),
                None => {}
            }
        }
        data
    }
}

/// Takes away the names that are due and joins rows that have become the same series.
pub(super) fn named(rows: Vec<Row>) -> Result<Vec<Row>, Error> {
    let renamed = rows.into_iter().map(|row| {
        if row.drops_name { Row { labels: row.labels.without_name(), drops_name: false, ..row } } else { row }
    });
    joined(renamed.collect())
}

/// Joins rows with the same labels. Two values at the same time have no defined meaning.
pub(super) fn joined(rows: Vec<Row>) -> Result<Vec<Row>, Error> {
    let mut places: HashMap<(Labels, bool), usize> = HashMap::with_capacity(rows.len());
    let mut kept: Vec<Row> = Vec::with_capacity(rows.len());
    for row in rows {
        if !row.has_values() {
            continue;
        }
        let Some(place) = places.get(&(row.labels.clone(), row.drops_name)) else {
            places.insert((row.labels.clone(), row.drops_name), kept.len());
            kept.push(row);
            continue;
        };
        for (slot, value) in kept[*place].column.iter_mut().zip(row.column) {
            if slot.is_some() && value.is_some() {
                return Err(Error::Execution(
                    "vector cannot contain metrics with the same labelset".to_owned(),
                ));
            }
            if value.is_some() {
                *slot = value;
            }
        }
    }
    Ok(kept)
}
