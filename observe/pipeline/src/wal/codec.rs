//! How an entry is written in a segment: postcard, with each series spelled out once per segment.
//!
//! A round of samples names the same few thousand series every few seconds; spelled out each time they would be
//! nine tenths of the log. The first round of a segment defines a number for each series, later rounds use it.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use belfry_signal::{Record, Sample, wire};
use serde::{Deserialize, Serialize};

use crate::store::Entry;

type Series = (String, Vec<(String, String)>);

#[derive(Serialize)]
enum WrittenRef<'a> {
    Record(&'a Record),
    Samples(SamplesRef<'a>),
}

#[derive(Serialize)]
struct SamplesRef<'a> {
    unix_millis: i64,
    first_new: u32,
    new_series: &'a [Arc<Series>],
    values: &'a [(u32, f64)],
}

#[derive(Deserialize)]
enum Written {
    Record(Record),
    Samples(WrittenSamples),
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
    payload: Vec<u8>,
}

impl Encoder {
    /// The payload of one entry.
    pub(super) fn encode(&mut self, entry: &Entry) -> io::Result<&[u8]> {
        self.new_series.clear();
        self.payload.clear();
        let written = match entry {
            Entry::Record(record) => wire::append(&mut self.payload, &WrittenRef::Record(record)),
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
        };
        written.map_err(io::Error::other)?;
        Ok(&self.payload)
    }

    /// Takes back the series that the last entry defined, because it is not written.
    pub(super) fn forget_last(&mut self) {
        for series in self.new_series.drain(..) {
            self.numbers.remove(&series);
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
}

impl Decoder {
    /// The entry of one payload. Samples whose series was defined in a damaged frame are left out.
    pub(super) fn decode(&mut self, payload: &[u8]) -> Option<Entry> {
        match postcard::from_bytes(payload).ok()? {
            Written::Record(record) => Some(Entry::Record(Arc::new(record))),
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
        }
    }
}
