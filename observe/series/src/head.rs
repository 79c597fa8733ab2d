//! The series of the present, in memory: found by their labels, packed as they come.
//!
//! A series is labels as numbers of shared texts, an open chunk, closed chunks, and, when samples come late, a short
//! sorted list of those. Everything else is kept per value of a label, so that a series costs about a kilobyte.

mod index;
mod late;

use std::sync::Arc;

use belfry_promql::{Histogram, Labels, Value, is_stale};

use crate::chunk::{Chunk, ChunkBuilder, SAMPLES_PER_CHUNK};
use crate::error::Error;
use crate::exemplar::Exemplars;
use crate::matcher::Matcher;
use crate::postings;

use self::index::HeadIndex;
pub(crate) use self::index::{Limits as IndexLimits, METRIC_LABEL, Refused};
use self::late::Late;

/// Limits on what may come in.
#[derive(Clone, Debug)]
pub(crate) struct HeadLimits {
    pub(crate) index: IndexLimits,
    /// Samples this much older than the newest one are still taken.
    pub(crate) late_ms: i64,
}

/// What became of one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    Appended,
    /// Taken behind later ones.
    Late,
    /// The same sample again: nothing is lost.
    Repeated,
    /// Another value at a time that has one.
    Duplicate,
    /// Older than the series' last, and late samples are not taken.
    OutOfOrder,
    /// Older than late samples may be.
    TooOld,
}

#[derive(Debug, Default)]
pub(crate) struct Head {
    index: HeadIndex,
    series: Vec<HeadSeries>,
    exemplars: Exemplars,
    samples: u64,
    bytes: usize,
    range: Option<(i64, i64)>,
    /// What the newest time was when the first sample since the last seal came.
    opened_ms: Option<i64>,
    /// Newest time ever taken; it outlives a seal.
    newest_ms: Option<i64>,
}

#[derive(Debug, Default)]
struct HeadSeries {
    open: ChunkBuilder,
    closed: Vec<Arc<Chunk>>,
    closed_bytes: u32,
    late: Option<Box<Late>>,
    /// The last sample in order; it outlives a seal, so that what comes again is known.
    last_ms: Option<i64>,
    last_bits: u64,
    /// Whether anything came since the last seal.
    is_active: bool,
}

/// A series with all its chunks, those in order first.
pub(crate) type Chunks = (Labels, Vec<Arc<Chunk>>);

impl Head {
    /// An empty head for these limits.
    pub(crate) fn new(series_exemplars_max: usize, exemplars_max: usize) -> Self {
        Self { exemplars: Exemplars::new(series_exemplars_max, exemplars_max), ..Self::default() }
    }

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

    /// What the newest time was when the first sample since the last seal came.
    pub(crate) fn opened_ms(&self) -> Option<i64> {
        self.opened_ms
    }

    /// The newest time ever taken.
    pub(crate) fn newest_ms(&self) -> Option<i64> {
        self.newest_ms
    }

    pub(crate) fn index(&self) -> &HeadIndex {
        &self.index
    }

    pub(crate) fn exemplars(&self) -> &Exemplars {
        &self.exemplars
    }

    pub(crate) fn exemplars_mut(&mut self) -> &mut Exemplars {
        &mut self.exemplars
    }

    /// The number of a series, new or not. Labels are sorted by name and have no empty values.
    pub(crate) fn number(&mut self, labels: &[(&str, &str)], limits: &HeadLimits) -> Result<u32, Refused> {
        let number = self.index.number(labels, &limits.index)?;
        if number as usize >= self.series.len() {
            self.series.resize_with(number as usize + 1, HeadSeries::default);
        }
        Ok(number)
    }

    /// Takes a sample of a known series.
    pub(crate) fn push(
        &mut self,
        number: u32,
        unix_millis: i64,
        value: &Value,
        limits: &HeadLimits,
    ) -> Taken {
        let newest_ms = self.newest_ms.unwrap_or(unix_millis);
        let Some(series) = self.series.get_mut(number as usize) else { return Taken::OutOfOrder };
        let before = series.bytes();
        let taken = series.push(unix_millis, value, newest_ms, limits.late_ms);
        if matches!(taken, Taken::Appended | Taken::Late) {
            series.is_active = true;
            self.bytes = (self.bytes + series.bytes()).saturating_sub(before);
            self.samples += 1;
            let (min_ms, max_ms) = self.range.unwrap_or((unix_millis, unix_millis));
            self.range = Some((min_ms.min(unix_millis), max_ms.max(unix_millis)));
            self.newest_ms = Some(newest_ms.max(unix_millis));
            self.opened_ms = self.opened_ms.or(self.newest_ms);
        }
        taken
    }

    /// The last time of a series' samples in order.
    pub(crate) fn last_ms(&self, number: u32) -> Option<i64> {
        self.series.get(number as usize)?.last_ms
    }

    /// The chunks that touch a time, of the series that satisfy every matcher.
    pub(crate) fn select(
        &self,
        matchers: &[Matcher],
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<Chunks>, Error> {
        let mut selected = Vec::new();
        for number in postings::select(&self.index, matchers)? {
            let Some(series) = self.series.get(number as usize) else { continue };
            let chunks = series.chunks(from_ms, to_ms);
            if !chunks.is_empty() {
                selected.push((self.index.labels(number), chunks));
            }
        }
        Ok(selected)
    }

    /// The labels of the series that satisfy every matcher and have a chunk that touches the time.
    pub(crate) fn label_sets(
        &self,
        matchers: &[Matcher],
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<Labels>, Error> {
        let numbers = postings::select(&self.index, matchers)?;
        let has_chunk = |number: &u32| {
            let series = self.series.get(*number as usize);
            series.is_some_and(|series| series.touches(from_ms, to_ms))
        };
        Ok(numbers.into_iter().filter(has_chunk).map(|number| self.index.labels(number)).collect())
    }

    /// Everything, for sealing: numbers with their labels, sorted by these, and chunks.
    pub(crate) fn all(&self) -> Vec<(u32, Labels, Vec<Arc<Chunk>>)> {
        let mut all: Vec<_> = (0_u32..)
            .zip(&self.series)
            .filter(|(_, series)| series.is_active)
            .map(|(number, series)| (number, self.index.labels(number), series.chunks(i64::MIN, i64::MAX)))
            .filter(|(_, _, chunks)| !chunks.is_empty())
            .collect();
        all.sort_by(|a, b| a.1.cmp(&b.1));
        all
    }

    /// Forgets samples and exemplars, which a block has now. Series that nothing came for are forgotten too, when they are many:
    /// those that stay are numbered anew, so that texts and sets of the others go.
    pub(crate) fn sealed(&mut self, limits: &HeadLimits) {
        (self.samples, self.bytes, self.range, self.opened_ms) = (0, 0, None, None);
        self.exemplars = self.exemplars.emptied();
        let active = self.series.iter().filter(|series| series.is_active).count();
        let is_sparse = active < self.series.len() / 4 * 3;
        for series in &mut self.series {
            series.seal(is_sparse);
        }
        self.index.forget_offenders();
        if !is_sparse {
            self.series.iter_mut().for_each(|series| series.is_active = false);
            return;
        }
        let mut kept = Self {
            exemplars: std::mem::take(&mut self.exemplars),
            newest_ms: self.newest_ms,
            ..Self::default()
        };
        let old = std::mem::take(&mut self.series);
        for (number, mut series) in (0_u32..).zip(old).filter(|(_, series)| series.is_active) {
            let labels = self.index.labels(number);
            let pairs: Vec<(&str, &str)> = labels.iter().collect();
            // What was let in stays in.
            if kept.index.number(&pairs, &limits.index.without_limits()).is_err() {
                continue;
            }
            series.is_active = false;
            kept.series.push(series);
        }
        *self = kept;
    }
}

impl HeadSeries {
    fn bytes(&self) -> usize {
        let late = self.late.as_ref().map_or(0, |late| late.bytes());
        self.open.len_bytes() + self.closed_bytes as usize + late
    }

    fn push(&mut self, unix_millis: i64, value: &Value, newest_ms: i64, late_ms: i64) -> Taken {
        match self.last_ms {
            Some(last_ms) if unix_millis == last_ms => {
                let is_same = self.last_bits == fingerprint(value);
                return if is_same { Taken::Repeated } else { Taken::Duplicate };
            }
            Some(last_ms) if unix_millis < last_ms => {
                if late_ms == 0 {
                    return Taken::OutOfOrder;
                }
                if unix_millis < newest_ms.saturating_sub(late_ms) {
                    return Taken::TooOld;
                }
                let late = self.late.get_or_insert_default();
                let taken = late.push(unix_millis, value);
                for chunk in late.take_full() {
                    self.add_closed(chunk);
                }
                return taken;
            }
            _ => {}
        }
        self.append(unix_millis, value);
        self.last_ms = Some(unix_millis);
        self.last_bits = fingerprint(value);
        Taken::Appended
    }

    fn append(&mut self, unix_millis: i64, value: &Value) {
        match value {
            Value::Float(value) => {
                if !self.open.takes(None) {
                    self.close();
                }
                self.open.push(unix_millis, *value);
                if self.open.count() >= SAMPLES_PER_CHUNK {
                    self.close();
                }
            }
            // A full chunk stays open until the next histogram, which is compared with its last.
            Value::Histogram(histogram) => {
                let hinted = hinted(histogram, self.open.last_histogram());
                let is_full = self.open.count() == 0 || self.open.count() >= SAMPLES_PER_CHUNK;
                if is_full || !self.open.takes(Some(&hinted)) {
                    self.close();
                    self.open = ChunkBuilder::for_histogram(&hinted);
                }
                self.open.push_histogram(unix_millis, &hinted);
            }
        }
    }

    fn close(&mut self) {
        let open = std::mem::take(&mut self.open);
        if open.count() > 0 {
            self.add_closed(Arc::new(open.close()));
        }
    }

    fn add_closed(&mut self, chunk: Arc<Chunk>) {
        self.closed_bytes =
            self.closed_bytes.saturating_add(u32::try_from(chunk.bytes.len()).unwrap_or(u32::MAX));
        // A vector that doubles would begin with room for four.
        self.closed.reserve_exact(1);
        self.closed.push(chunk);
    }

    fn chunks(&self, from_ms: i64, to_ms: i64) -> Vec<Arc<Chunk>> {
        let is_wanted = |chunk: &Arc<Chunk>| chunk.max_ms >= from_ms && chunk.min_ms <= to_ms;
        let open = (self.open.count() > 0).then(|| Arc::new(self.open.snapshot()));
        let late = self.late.iter().flat_map(|late| late.chunks());
        self.closed.iter().cloned().chain(open).chain(late).filter(is_wanted).collect()
    }

    /// Whether there is a chunk in a time; a little more is told than is there, as with chunks of blocks.
    fn touches(&self, from_ms: i64, to_ms: i64) -> bool {
        !self.chunks(from_ms, to_ms).is_empty()
    }

    fn seal(&mut self, shrinks: bool) {
        self.closed.clear();
        self.closed_bytes = 0;
        self.open = ChunkBuilder::default();
        self.late = None;
        if shrinks {
            self.closed.shrink_to_fit();
        }
    }
}

/// The histogram with its hint as it follows the one before it in the chunk.
fn hinted(histogram: &Arc<Histogram>, previous: Option<&Arc<Histogram>>) -> Arc<Histogram> {
    if is_stale(histogram.sum) {
        return Arc::clone(histogram);
    }
    let hint = histogram.hint_after(previous.map(|previous| &**previous));
    if hint == histogram.hint {
        return Arc::clone(histogram);
    }
    Arc::new(Histogram { hint, ..(**histogram).clone() })
}

/// Enough of a value to tell whether it came before.
fn fingerprint(value: &Value) -> u64 {
    match value {
        Value::Float(value) => value.to_bits(),
        Value::Histogram(histogram) => {
            let numbers = [histogram.count, histogram.sum, histogram.zero_count];
            let buckets = histogram.positive.iter().chain(&histogram.negative).map(|(_, count)| *count);
            numbers.into_iter().chain(buckets).fold(1, |held: u64, number| {
                held.rotate_left(7).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number.to_bits()
            })
        }
    }
}
