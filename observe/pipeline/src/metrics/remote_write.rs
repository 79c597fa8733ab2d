//! Remote write 1.0 and 2.0, received: from the bytes of a request to points, and what of it cannot be taken.
//!
//! Specifications: <https://prometheus.io/docs/specs/prw/remote_write_spec/> and
//! <https://prometheus.io/docs/specs/prw/remote_write_spec_2_0/>. A series that is wrong costs that series; a request
//! that cannot be read costs all of it.

use std::sync::Arc;

use belfry_signal::{Exemplar, MetricMetadata, PointValue, SeriesBatch, SeriesLabels, SeriesPoints, Written};
use belfry_wire::messages::{Histogram, v1, v2};
use belfry_wire::native;
use prost::Message;
use prost::bytes::Bytes;

use super::labels::{Interner, LabelFault, LabelLimits, MetadataSet, family, kind, series_labels};

/// Which message a request holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `prometheus.WriteRequest`
    V1,
    /// `io.prometheus.write.v2.Request`
    V2,
}

impl Protocol {
    /// The protocol that a `Content-Type` names; none when it is not one of ours. Without a parameter it is 1.0.
    #[must_use]
    pub fn of_content_type(content_type: &str) -> Option<Self> {
        let mut parts = content_type.split(';').map(str::trim);
        if !parts.next()?.eq_ignore_ascii_case("application/x-protobuf") {
            return None;
        }
        for parameter in parts {
            let (name, value) = parameter.split_once('=')?;
            if name.trim().eq_ignore_ascii_case("proto") {
                return match value.trim().trim_matches('"') {
                    "prometheus.WriteRequest" => Some(Self::V1),
                    "io.prometheus.write.v2.Request" => Some(Self::V2),
                    _ => None,
                };
            }
        }
        Some(Self::V1)
    }

    /// The `Content-Type` of such a request.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::V1 => "application/x-protobuf",
            Self::V2 => "application/x-protobuf;proto=io.prometheus.write.v2.Request",
        }
    }

    /// The value of `X-Prometheus-Remote-Write-Version`.
    #[must_use]
    pub fn version(self) -> &'static str {
        match self {
            Self::V1 => "0.1.0",
            Self::V2 => "2.0.0",
        }
    }
}

/// Bounds on one request.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes after decompression.
    pub bytes_max: usize,
    /// Series.
    pub series_max: usize,
    /// Of each series.
    pub labels: LabelLimits,
}

/// Why a request cannot be read at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not what the header says.
    #[error("the body is not in snappy's block format: {0}")]
    Snappy(String),
    /// Too long.
    #[error(
        "the body is {bytes} bytes when decompressed, more than the {allowed} allowed: send smaller batches"
    )]
    Bytes {
        /// How many there are.
        bytes: usize,
        /// How many there may be.
        allowed: usize,
    },
    /// Not the message that the header says.
    #[error("the body is not the protobuf message that Content-Type names: {0}")]
    Message(String),
    /// Too many.
    #[error("{series} series are more than the {allowed} that one request may hold: send smaller batches")]
    Series {
        /// How many there are.
        series: usize,
        /// How many there may be.
        allowed: usize,
    },
    /// The first symbol must be empty.
    #[error("the first symbol is not the empty text: is this a message of another version?")]
    Symbols,
}

/// What a request holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decoded {
    /// What can be taken.
    pub batch: SeriesBatch,
    /// What cannot, counted by reason.
    pub refused: Written,
    /// The first thing that is wrong, for the answer.
    pub first_fault: Option<String>,
}

/// Decompresses and decodes a request.
///
/// # Errors
/// When it cannot be read as a whole.
pub fn decode(protocol: Protocol, compressed: &[u8], limits: &Limits) -> Result<Decoded, Fault> {
    let bytes = decompress(compressed, limits.bytes_max)?;
    let wrong = |error: prost::DecodeError| Fault::Message(error.to_string());
    let few = |series: usize| {
        let allowed = limits.series_max;
        if series > allowed { Err(Fault::Series { series, allowed }) } else { Ok(()) }
    };
    let mut reading = Reading { limits: limits.labels, ..Reading::default() };
    match protocol {
        Protocol::V1 => {
            let request = v1::WriteRequest::decode(bytes).map_err(wrong)?;
            few(request.timeseries.len())?;
            reading.take_v1(request);
        }
        Protocol::V2 => {
            let request = v2::Request::decode(bytes).map_err(wrong)?;
            few(request.timeseries.len())?;
            if request.symbols.first().is_none_or(|first| !first.is_empty()) && !request.timeseries.is_empty()
            {
                return Err(Fault::Symbols);
            }
            reading.take_v2(request);
        }
    }
    reading.decoded.batch.metadata = reading.metadata.into_vec();
    Ok(reading.decoded)
}

pub(super) fn decompress(compressed: &[u8], bytes_max: usize) -> Result<Bytes, Fault> {
    let snappy = |error: snap::Error| Fault::Snappy(error.to_string());
    let bytes = snap::raw::decompress_len(compressed).map_err(snappy)?;
    if bytes > bytes_max {
        return Err(Fault::Bytes { bytes, allowed: bytes_max });
    }
    Ok(Bytes::from(snap::raw::Decoder::new().decompress_vec(compressed).map_err(snappy)?))
}

#[derive(Default)]
struct Reading {
    limits: LabelLimits,
    texts: Interner,
    metadata: MetadataSet,
    decoded: Decoded,
}

impl Reading {
    fn refuse(&mut self, reason: &'static str, points: usize, fault: impl ToString) {
        self.decoded.refused.refuse(reason, points.max(1) as u64);
        self.decoded.first_fault.get_or_insert_with(|| fault.to_string());
    }

    fn text(&mut self, bytes: &Bytes) -> Result<Arc<str>, LabelFault> {
        let text = std::str::from_utf8(bytes).map_err(|_| LabelFault::NotText)?;
        Ok(self.texts.get(text))
    }

    fn points(
        &mut self,
        labels: SeriesLabels,
        floats: impl Iterator<Item = (i64, f64)>,
        histograms: &[Histogram],
    ) -> SeriesPoints {
        let mut points: Vec<(i64, PointValue)> =
            floats.map(|(time, value)| (time, PointValue::Float(value))).collect();
        for histogram in histograms {
            match native::from_wire(histogram) {
                Ok(held) => points.push((histogram.timestamp, PointValue::Histogram(Box::new(held)))),
                Err(fault) => self.refuse("invalid", 1, fault),
            }
        }
        SeriesPoints { labels, created_ms: None, points, exemplars: Vec::new() }
    }

    fn take_v1(&mut self, request: v1::WriteRequest) {
        for series in request.timeseries {
            let points = series.samples.len() + series.histograms.len();
            let labels = self.labels_v1(&series.labels);
            let labels = match labels {
                Ok(labels) => labels,
                Err(fault) => {
                    self.refuse(fault.reason(), points, fault);
                    continue;
                }
            };
            let floats = series.samples.iter().map(|sample| (sample.timestamp, sample.value));
            let mut taken = self.points(labels, floats, &series.histograms);
            for exemplar in series.exemplars {
                let labels = exemplar.labels.iter().map(|label| pair(&label.name, &label.value)).collect();
                taken.exemplars.extend(exemplar_of(labels, exemplar.value, exemplar.timestamp));
            }
            self.decoded.batch.series.push(taken);
        }
        for metric in request.metadata {
            let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
            self.metadata.put(MetricMetadata {
                name: text(&metric.metric_family_name),
                kind: kind(metric.kind).to_owned(),
                help: text(&metric.help),
                unit: text(&metric.unit),
            });
        }
    }

    fn labels_v1(&mut self, labels: &[v1::Label]) -> Result<SeriesLabels, LabelFault> {
        let mut pairs = Vec::with_capacity(labels.len());
        for label in labels {
            pairs.push((self.text(&label.name)?, self.text(&label.value)?));
        }
        series_labels(pairs, self.limits)
    }

    fn take_v2(&mut self, request: v2::Request) {
        // A symbol that is no text is wrong only for those who use it.
        let symbols: Vec<Option<Arc<str>>> =
            request.symbols.iter().map(|bytes| std::str::from_utf8(bytes).ok().map(Arc::from)).collect();
        for series in request.timeseries {
            let points = series.samples.len() + series.histograms.len();
            let Some(pairs) = resolved(&symbols, &series.labels_refs) else {
                self.refuse("labels", points, "a series refers to symbols that the request does not have");
                continue;
            };
            let labels = match series_labels(pairs, self.limits) {
                Ok(labels) => labels,
                Err(fault) => {
                    self.refuse(fault.reason(), points, fault);
                    continue;
                }
            };
            self.take_metadata(&symbols, &labels, series.metadata);
            let floats = series.samples.iter().map(|sample| (sample.timestamp, sample.value));
            let mut taken = self.points(labels, floats, &series.histograms);
            let starts = series.samples.first().map(|sample| sample.start_timestamp);
            let starts = starts.or(series.histograms.first().map(|histogram| histogram.start_timestamp));
            let began = starts.into_iter().chain([series.created_timestamp]).find(|began| *began > 0);
            taken.created_ms = began;
            for exemplar in series.exemplars {
                let labels = resolved(&symbols, &exemplar.labels_refs).map(|pairs| {
                    pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
                });
                taken.exemplars.extend(exemplar_of(labels, exemplar.value, exemplar.timestamp));
            }
            self.decoded.batch.series.push(taken);
        }
    }

    fn take_metadata(
        &mut self,
        symbols: &[Option<Arc<str>>],
        labels: &SeriesLabels,
        metadata: Option<v2::Metadata>,
    ) {
        let Some(metadata) = metadata else { return };
        let text = |reference: u32| {
            let held = symbols.get(reference as usize).and_then(Option::as_deref);
            held.unwrap_or_default().to_owned()
        };
        let (help, unit) = (text(metadata.help_ref), text(metadata.unit_ref));
        if metadata.kind == 0 && help.is_empty() && unit.is_empty() {
            return;
        }
        let kind = kind(metadata.kind);
        let metric = super::labels::metric_name(labels).unwrap_or_default();
        self.metadata.put(MetricMetadata {
            name: family(metric, kind).to_owned(),
            kind: kind.to_owned(),
            help,
            unit,
        });
    }
}

fn resolved(symbols: &[Option<Arc<str>>], references: &[u32]) -> Option<Vec<(Arc<str>, Arc<str>)>> {
    let text = |reference: &u32| symbols.get(*reference as usize)?.clone();
    if !references.len().is_multiple_of(2) {
        return None;
    }
    references.chunks_exact(2).map(|two| Some((text(&two[0])?, text(&two[1])?))).collect()
}

fn pair(name: &Bytes, value: &Bytes) -> Option<(String, String)> {
    let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).ok();
    Some((text(name)?, text(value)?))
}

/// An exemplar, unless its labels are no text.
fn exemplar_of(labels: Option<Vec<(String, String)>>, value: f64, unix_millis: i64) -> Option<Exemplar> {
    labels.map(|labels| Exemplar { labels, unix_millis, value })
}

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

fn bytes(text: &str) -> Bytes {
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
    (0..).zip(super::labels::KINDS).find(|(_, known)| *known == kind).map_or(0, |(number, _)| number)
}

fn encode_v1(batch: &SeriesBatch) -> v1::WriteRequest {
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

fn encode_v2(batch: &SeriesBatch) -> v2::Request {
    let mut symbols = Symbols::default();
    symbols.number("");
    let mut timeseries = Vec::with_capacity(batch.series.len());
    for series in &batch.series {
        let start_timestamp = series.created_ms.unwrap_or(0);
        let metric = super::labels::metric_name(&series.labels).unwrap_or_default();
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

#[cfg(test)]
mod tests;
