//! From points to the bytes of a request.

use std::sync::Arc;

use belfry_signal::{MetricMetadata, PointValue, SeriesBatch, SeriesPoints};
use belfry_wire::messages::{Histogram, v1, v2};
use belfry_wire::native;
use prost::Message;
use prost::bytes::Bytes;

use super::Protocol;
use crate::metrics::labels::{KINDS, family, metric_name};

/// A batch as a request of remote write, compressed.
#[must_use]
pub fn encode(protocol: Protocol, batch: &SeriesBatch) -> Vec<u8> {
    let message = match protocol {
        Protocol::V1 => encode_v1(batch).encode_to_vec(),
        Protocol::V2 => encode_v2(batch).encode_to_vec(),
    };
    // It fails only for inputs of four gigabytes and more, which our batches never are.
    snap::raw::Encoder::new().compress_vec(&message).unwrap_or_default()
}

pub(super) fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn histograms(series: &SeriesPoints) -> impl Iterator<Item = Histogram> {
    series.points.iter().filter_map(|(time, value)| match value {
        PointValue::Histogram(held) => Some(native::to_wire(held, *time)),
        PointValue::Float(_) => None,
    })
}

fn floats(series: &SeriesPoints) -> impl Iterator<Item = (i64, f64)> {
    series.points.iter().filter_map(|(time, value)| match value {
        PointValue::Float(value) => Some((*time, *value)),
        PointValue::Histogram(_) => None,
    })
}

fn kind_number(kind: &str) -> i32 {
    (0..).zip(KINDS).find(|(_, known)| *known == kind).map_or(0, |(number, _)| number)
}

pub(super) fn encode_v1(batch: &SeriesBatch) -> v1::WriteRequest {
    let label = |(name, value): (&str, &str)| v1::Label { name: bytes(name), value: bytes(value) };
    let series = |series: &SeriesPoints| v1::TimeSeries {
        labels: series.labels.iter().map(|(name, value)| label((name, value))).collect(),
        samples: floats(series).map(|(timestamp, value)| v1::Sample { value, timestamp }).collect(),
        exemplars: series
            .exemplars
            .iter()
            .map(|held| v1::Exemplar {
                labels: held.labels.iter().map(|(name, value)| label((name, value))).collect(),
                value: held.value,
                timestamp: held.unix_millis,
            })
            .collect(),
        histograms: histograms(series).collect(),
    };
    let metadata = |metric: &MetricMetadata| v1::MetricMetadata {
        kind: kind_number(&metric.kind),
        metric_family_name: bytes(&metric.name),
        help: bytes(&metric.help),
        unit: bytes(&metric.unit),
    };
    v1::WriteRequest {
        timeseries: batch.series.iter().map(series).collect(),
        metadata: batch.metadata.iter().map(metadata).collect(),
    }
}

#[derive(Default)]
struct Symbols {
    numbers: std::collections::HashMap<Arc<str>, u32>,
    texts: Vec<Bytes>,
}

impl Symbols {
    fn number(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        self.numbers.insert(Arc::from(text), number);
        self.texts.push(bytes(text));
        number
    }
}

pub(super) fn encode_v2(batch: &SeriesBatch) -> v2::Request {
    let mut symbols = Symbols::default();
    symbols.number("");
    let mut timeseries = Vec::with_capacity(batch.series.len());
    for series in &batch.series {
        let start_timestamp = series.created_ms.unwrap_or(0);
        let metric = metric_name(&series.labels).unwrap_or_default();
        let described = batch.metadata.iter().find(|known| family(metric, &known.kind) == known.name);
        let metadata = described.map(|known| v2::Metadata {
            kind: kind_number(&known.kind),
            help_ref: symbols.number(&known.help),
            unit_ref: symbols.number(&known.unit),
        });
        let mut references = |pairs: &mut dyn Iterator<Item = (&str, &str)>| -> Vec<u32> {
            pairs.flat_map(|(name, value)| [symbols.number(name), symbols.number(value)]).collect()
        };
        timeseries.push(v2::TimeSeries {
            labels_refs: references(&mut series.labels.iter().map(|(name, value)| (&**name, &**value))),
            samples: floats(series)
                .map(|(timestamp, value)| v2::Sample { value, timestamp, start_timestamp })
                .collect(),
            histograms: histograms(series).map(|held| Histogram { start_timestamp, ..held }).collect(),
            exemplars: series
                .exemplars
                .iter()
                .map(|held| v2::Exemplar {
                    labels_refs: references(
                        &mut held.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())),
                    ),
                    value: held.value,
                    timestamp: held.unix_millis,
                })
                .collect(),
            metadata,
            created_timestamp: start_timestamp,
        });
    }
    v2::Request { symbols: symbols.texts, timeseries }
}
