//! How an entry is written in a segment: postcard, with each series spelled out once per segment.
//!
//! A round of samples names the same few thousand series every few seconds; spelled out each time they would be
//! nine tenths of the log. The first round of a segment defines a number for each series, later rounds use it.

use std::io;
use std::sync::Arc;

use belfry_signal::{
    Exemplar, MetricMetadata, PackedRecord, PointValue, Record, Sample, SeriesBatch, SeriesLabels,
    SeriesPoints, wire,
};
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use crate::store::Entry;

type Series = (String, Vec<(String, String)>);

/// How a record begins in the log: as the first of [`Written`]. Its own bytes follow as they were emitted.
const RECORD: &[u8] = &[0];

/// What [`Written`] reads, but for its records.
#[derive(Serialize)]
enum WrittenRef<'a> {
    #[expect(dead_code, reason = "it keeps the place of the records, whose bytes are there already")]
    Record,
    Samples(SamplesRef<'a>),
    Batch(BatchRef<'a>),
}

#[derive(Serialize)]
struct SamplesRef<'a> {
    unix_millis: i64,
    first_new: u32,
    new_series: &'a [Arc<Series>],
    values: &'a [(u32, f64)],
}

/// Points of series by number, times counted from the batch's first.
#[derive(Serialize)]
struct BatchRef<'a> {
    base_millis: i64,
    first_new: u32,
    new_series: &'a [SeriesLabels],
    series: Vec<PointsRef<'a>>,
    metadata: &'a [MetricMetadata],
}

#[derive(Serialize)]
struct PointsRef<'a> {
    number: u32,
    created_ms: Option<i64>,
    points: Vec<(i64, &'a PointValue)>,
    exemplars: &'a [Exemplar],
}

#[derive(Deserialize)]
enum Written {
    Record(Record),
    Samples(WrittenSamples),
    Batch(WrittenBatch),
}

/// Field for field what [`BatchRef`] writes.
#[derive(Deserialize)]
struct WrittenBatch {
    base_millis: i64,
    first_new: u32,
    new_series: Vec<SeriesLabels>,
    series: Vec<WrittenPoints>,
    metadata: Vec<MetricMetadata>,
}

/// Field for field what [`PointsRef`] writes.
#[derive(Deserialize)]
struct WrittenPoints {
    number: u32,
    created_ms: Option<i64>,
    points: Vec<(i64, PointValue)>,
    exemplars: Vec<Exemplar>,
}

/// Field for field what [`SamplesRef`] writes.
#[derive(Deserialize)]
struct WrittenSamples {
    unix_millis: i64,
    first_new: u32,
    new_series: Vec<Series>,
    values: Vec<(u32, f64)>,
}

/// Encodes the entries of one segment.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    numbers: HashMap<Arc<Series>, u32>,
    /// The series that the last entry defined.
    new_series: Vec<Arc<Series>>,
    values: Vec<(u32, f64)>,
    /// The series of batches are numbered apart: their labels are shared texts.
    batch_numbers: HashMap<SeriesLabels, u32>,
    new_batch_series: Vec<SeriesLabels>,
    payload: Vec<u8>,
}

impl Encoder {
    /// The payload of one entry, in two pieces.
    pub(super) fn encode<'a>(&'a mut self, entry: &'a Entry) -> io::Result<[&'a [u8]; 2]> {
        self.new_series.clear();
        self.new_batch_series.clear();
        self.payload.clear();
        let written = match entry {
            Entry::Record(record) => return Ok([RECORD, record.bytes()]),
            Entry::Samples { unix_millis, samples } => {
                self.number(samples);
                let first_new = self.numbers.len() - self.new_series.len();
                let samples = SamplesRef {
                    unix_millis: *unix_millis,
                    first_new: u32::try_from(first_new).unwrap_or(u32::MAX),
                    new_series: &self.new_series,
                    values: &self.values,
                };
                wire::append(&mut self.payload, &WrittenRef::Samples(samples))
            }
            Entry::Series(batch) => {
                // The batch's view borrows the numbers; the bytes go beside.
                let mut payload = std::mem::take(&mut self.payload);
                let written = wire::append(&mut payload, &WrittenRef::Batch(self.number_batch(batch)));
                self.payload = payload;
                written
            }
        };
        written.map_err(io::Error::other)?;
        Ok([&self.payload, &[]])
    }

    /// Takes back the series that the last entry defined, because it is not written.
    pub(super) fn forget_last(&mut self) {
        for series in self.new_series.drain(..) {
            self.numbers.remove(&series);
        }
        for series in self.new_batch_series.drain(..) {
            self.batch_numbers.remove(&series);
        }
    }

    fn number_batch<'a>(&'a mut self, batch: &'a SeriesBatch) -> BatchRef<'a> {
        let times = || batch.series.iter().flat_map(|series| series.points.iter().map(|(time, _)| *time));
        let base_millis = times().next().unwrap_or_default();
        let mut series = Vec::with_capacity(batch.series.len());
        for held in &batch.series {
            let number = match self.batch_numbers.get(&held.labels) {
                Some(number) => *number,
                None => {
                    let number = u32::try_from(self.batch_numbers.len()).unwrap_or(u32::MAX);
                    self.batch_numbers.insert(Arc::clone(&held.labels), number);
                    self.new_batch_series.push(Arc::clone(&held.labels));
                    number
                }
            };
            let points =
                held.points.iter().map(|(time, value)| (time.wrapping_sub(base_millis), value)).collect();
            series.push(PointsRef {
                number,
                created_ms: held.created_ms,
                points,
                exemplars: &held.exemplars,
            });
        }
        let first_new = self.batch_numbers.len() - self.new_batch_series.len();
        BatchRef {
            base_millis,
            first_new: u32::try_from(first_new).unwrap_or(u32::MAX),
            new_series: &self.new_batch_series,
            series,
            metadata: &batch.metadata,
        }
    }

    fn number(&mut self, samples: &[Sample]) {
        self.values.clear();
        for sample in samples {
            let series = (sample.name.clone(), sample.labels.clone());
            let number = match self.numbers.get(&series) {
                Some(number) => *number,
                None => {
                    let number = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
                    let series = Arc::new(series);
                    self.numbers.insert(Arc::clone(&series), number);
                    self.new_series.push(series);
                    number
                }
            };
            self.values.push((number, sample.value));
        }
    }
}

/// Decodes the entries of one segment, from its start.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    series: Vec<Option<Series>>,
    batch_series: Vec<Option<SeriesLabels>>,
}

impl Decoder {
    /// The entry of one payload. Samples whose series was defined in a damaged frame are left out.
    pub(super) fn decode(&mut self, payload: &[u8]) -> Option<Entry> {
        match postcard::from_bytes(payload).ok()? {
            Written::Record(record) => PackedRecord::of(&record).ok().map(Entry::Record),
            Written::Samples(written) => {
                let first_new = usize::try_from(written.first_new).ok()?;
                // The checksum vouches for the number; the test keeps a wrong one from taking all memory.
                if first_new > self.series.len().saturating_add(10_000_000) {
                    return None;
                }
                self.series.resize(first_new, None);
                self.series.extend(written.new_series.into_iter().map(Some));
                let sample = |(number, value): (u32, f64)| {
                    let (name, labels) = self.series.get(usize::try_from(number).ok()?)?.clone()?;
                    Some(Sample { name, labels, value })
                };
                let samples = written.values.into_iter().filter_map(sample).collect();
                Some(Entry::Samples { unix_millis: written.unix_millis, samples })
            }
            Written::Batch(written) => self.batch(written).map(Entry::Series),
        }
    }

    fn batch(&mut self, written: WrittenBatch) -> Option<SeriesBatch> {
        let first_new = usize::try_from(written.first_new).ok()?;
        if first_new > self.batch_series.len().saturating_add(10_000_000) {
            return None;
        }
        self.batch_series.resize(first_new, None);
        self.batch_series.extend(written.new_series.into_iter().map(Some));
        let base_millis = written.base_millis;
        let series = written.series.into_iter().filter_map(|held| {
            let labels = self.batch_series.get(usize::try_from(held.number).ok()?)?.clone()?;
            let points = held.points.into_iter().map(|(time, value)| (time.wrapping_add(base_millis), value));
            let (created_ms, exemplars) = (held.created_ms, held.exemplars);
            Some(SeriesPoints { labels, created_ms, points: points.collect(), exemplars })
        });
        Some(SeriesBatch { series: series.collect(), metadata: written.metadata })
    }
}
