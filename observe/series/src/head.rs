//! The series of the window that is not sealed yet, in memory.

use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use belfry_signal::Sample;

use crate::chunk::{Chunk, ChunkBuilder, SAMPLES_PER_CHUNK};
use crate::index::{LabelSet, SeriesIndex};
use crate::matcher::Matcher;

/// The label that carries the metric's name, as in Prometheus.
pub(crate) const METRIC_LABEL: &str = "__name__";

/// Limits on what may come in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) series_max: usize,
    pub(crate) metric_series_max: usize,
}

/// What became of one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Appended,
    OutOfOrder,
    /// The metric has too many series. `is_news` the first time in this window.
    MetricLimit {
        is_news: bool,
    },
    SeriesLimit,
}

#[derive(Debug, Default)]
pub(crate) struct Head {
    index: SeriesIndex,
    series: Vec<HeadSeries>,
    /// Series by the hash of name and labels; a list, because hashes collide.
    numbers: HashMap<u64, Vec<u32>>,
    hasher: RandomState,
    metric_series: HashMap<Arc<str>, usize>,
    /// Metrics whose limit was already told.
    offenders: HashSet<String>,
    samples: u64,
    bytes: usize,
    range: Option<(i64, i64)>,
}

#[derive(Debug, Default)]
struct HeadSeries {
    closed: Vec<Arc<Chunk>>,
    open: ChunkBuilder,
}

/// A series with all its chunks.
pub(crate) type Chunks = (LabelSet, Vec<Arc<Chunk>>);

impl Head {
    pub(crate) fn series_count(&self) -> usize {
        self.series.len()
    }

    pub(crate) fn samples(&self) -> u64 {
        self.samples
    }

    /// Bytes of packed samples.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// First and last time; none while it is empty.
    pub(crate) fn range(&self) -> Option<(i64, i64)> {
        self.range
    }

    pub(crate) fn index(&self) -> &SeriesIndex {
        &self.index
    }

    pub(crate) fn push(&mut self, unix_millis: i64, sample: &Sample, limits: Limits) -> Taken {
        let number = match self.number(sample, limits) {
            Ok(number) => number,
            Err(refused) => return refused,
        };
        let series = &mut self.series[number as usize];
        let last_ms = series.open.last_ms().or(series.closed.last().map(|chunk| chunk.max_ms));
        if last_ms.is_some_and(|last_ms| unix_millis <= last_ms) {
            return Taken::OutOfOrder;
        }
        let before = series.open.len_bytes();
        series.open.push(unix_millis, sample.value);
        self.bytes += series.open.len_bytes() - before;
        if series.open.count() >= SAMPLES_PER_CHUNK {
            series.closed.push(Arc::new(std::mem::take(&mut series.open).close()));
        }
        self.samples += 1;
        let (min_ms, max_ms) = self.range.unwrap_or((unix_millis, unix_millis));
        self.range = Some((min_ms.min(unix_millis), max_ms.max(unix_millis)));
        Taken::Appended
    }

    fn number(&mut self, sample: &Sample, limits: Limits) -> Result<u32, Taken> {
        let hash = self.hasher.hash_one((&sample.name, &sample.labels));
        let known = self.numbers.get(&hash).map_or(&[][..], Vec::as_slice);
        let is_it =
            |number: &&u32| self.index.labels(**number).is_some_and(|labels| is_series(labels, sample));
        if let Some(number) = known.iter().find(is_it) {
            return Ok(*number);
        }
        if self.series.len() >= limits.series_max {
            return Err(Taken::SeriesLimit);
        }
        match self.metric_series.entry(sample.name.as_str().into()) {
            Slot::Occupied(count) if *count.get() >= limits.metric_series_max => {
                let is_news = self.offenders.insert(sample.name.clone());
                return Err(Taken::MetricLimit { is_news });
            }
            Slot::Occupied(mut count) => *count.get_mut() += 1,
            Slot::Vacant(slot) => drop(slot.insert(1)),
        }
        let labels = sample.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let number = self.index.push(std::iter::once((METRIC_LABEL, sample.name.as_str())).chain(labels));
        self.series.push(HeadSeries::default());
        self.numbers.entry(hash).or_default().push(number);
        Ok(number)
    }

    /// The chunks that touch a time, of the series that satisfy every matcher.
    pub(crate) fn select(&self, matchers: &[Matcher], from_ms: i64, to_ms: i64) -> Vec<Chunks> {
        let mut selected = Vec::new();
        for number in self.index.select(matchers) {
            let (Some(labels), Some(series)) = (self.index.labels(number), self.series.get(number as usize))
            else {
                continue;
            };
            let mut chunks = series.chunks();
            chunks.retain(|chunk| chunk.max_ms >= from_ms && chunk.min_ms <= to_ms);
            if !chunks.is_empty() {
                selected.push((Arc::clone(labels), chunks));
            }
        }
        selected
    }

    /// Everything, for sealing, sorted by labels.
    pub(crate) fn all(&self) -> Vec<Chunks> {
        let mut all: Vec<Chunks> = (0_u32..)
            .zip(&self.series)
            .filter_map(|(number, series)| Some((Arc::clone(self.index.labels(number)?), series.chunks())))
            .filter(|(_, chunks)| !chunks.is_empty())
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

impl HeadSeries {
    fn chunks(&self) -> Vec<Arc<Chunk>> {
        let mut chunks = self.closed.clone();
        if self.open.count() > 0 {
            chunks.push(Arc::new(self.open.snapshot()));
        }
        chunks
    }
}

/// Whether the labels are the sample's; both are sorted, and the metric's name stands somewhere among the former.
fn is_series(labels: &LabelSet, sample: &Sample) -> bool {
    let mut rest = sample.labels.iter();
    labels.len() == sample.labels.len() + 1
        && labels.iter().all(|(name, value)| {
            if name.as_ref() == METRIC_LABEL {
                return value.as_ref() == sample.name;
            }
            rest.next().is_some_and(|(other, text)| name.as_ref() == other && value.as_ref() == text)
        })
}
