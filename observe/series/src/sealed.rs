//! Sealed chunks: the samples of one series as columns, or as the head packed them.
//!
//! The head's chunks go into a first block as they are, because sealing must be quick; compaction then makes columns of
//! them, of up to 4096 samples, and packs each with what suits it best. Times stand apart from values, so that series
//! that were sampled together share one column of times.

use std::sync::Arc;

use belfry_promql::Stretch;
use serde::{Deserialize, Serialize};

use crate::chunk::{Chunk, HistogramPoint, Point, Points, unpack};
use crate::column::{self, push_varint, take_varint};
use crate::layout::{Layout, hint_number, hint_of};
use crate::merge::Gathered;
use crate::stretch;

/// Samples of one sealed chunk at most.
pub(crate) const SEALED_SAMPLES_MAX: usize = 4096;

/// What a chunk's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// As the head packed them; times are among the values.
    HeadFloats,
    HeadHistograms,
    Floats,
    Histograms,
    /// Of a downsampled series.
    Stretches,
}

/// A chunk ready to be written.
#[derive(Clone, Debug)]
pub(crate) struct Sealed {
    pub(crate) kind: Kind,
    pub(crate) count: u32,
    pub(crate) min_ms: i64,
    pub(crate) max_ms: i64,
    /// Packed by the block's writer, which knows whether it has them already; empty for the head's kinds.
    pub(crate) times: Vec<i64>,
    pub(crate) values: Vec<u8>,
}

impl Sealed {
    /// A chunk of the head as it is.
    pub(crate) fn of_head(chunk: &Chunk) -> Option<Self> {
        let (kind, values) = match &chunk.layout {
            None => (Kind::HeadFloats, chunk.bytes.to_vec()),
            Some(layout) => {
                let mut values = layout_bytes(layout)?;
                values.extend_from_slice(&chunk.bytes);
                (Kind::HeadHistograms, values)
            }
        };
        let (min_ms, max_ms) = (chunk.min_ms, chunk.max_ms);
        Some(Self { kind, count: chunk.count, min_ms, max_ms, times: Vec::new(), values })
    }

    /// Floats as chunks of columns.
    pub(crate) fn of_floats(points: &[Point]) -> impl Iterator<Item = Self> {
        points.chunks(SEALED_SAMPLES_MAX).filter_map(|points| {
            let (times, floats): (Vec<i64>, Vec<f64>) = points.iter().copied().unzip();
            let mut values = Vec::new();
            column::encode_values(&floats, &mut values);
            Self::new(Kind::Floats, times, values)
        })
    }

    /// Histograms as chunks of columns, one for each stretch of a common layout.
    pub(crate) fn of_histograms(points: &[HistogramPoint]) -> Vec<Self> {
        let mut sealed = Vec::new();
        let mut rest = points;
        while let Some((_, first)) = rest.first() {
            let mut layout = Layout::of(first);
            let mut end = 1;
            while end < rest.len().min(SEALED_SAMPLES_MAX) {
                let histogram = &rest[end].1;
                if !layout.holds(histogram) {
                    let Some(wider) = layout.widened(histogram) else { break };
                    layout = wider;
                }
                end += 1;
            }
            let (stretch, after) = rest.split_at(end);
            sealed.extend(Self::of_stretch(&layout, stretch));
            rest = after;
        }
        sealed
    }

    fn of_stretch(layout: &Layout, points: &[HistogramPoint]) -> Option<Self> {
        let mut values = layout_bytes(layout)?;
        let hints: Vec<f64> = points.iter().map(|(_, held)| f64::from(hint_number(held.hint))).collect();
        let rows: Vec<Vec<f64>> = points.iter().map(|(_, held)| layout.row(held)).collect();
        let mut packed = Vec::new();
        let mut push = |column: &[f64]| {
            packed.clear();
            column::encode_values(column, &mut packed);
            push_varint(&mut values, packed.len() as u64);
            values.extend_from_slice(&packed);
        };
        push(&hints);
        let mut column = Vec::with_capacity(points.len());
        for at in 0..layout.columns() {
            column.clear();
            column.extend(rows.iter().filter_map(|row| row.get(at)));
            push(&column);
        }
        Self::new(Kind::Histograms, points.iter().map(|(time, _)| *time).collect(), values)
    }

    /// Stretches as chunks of columns.
    pub(crate) fn of_stretches(stretches: &[Stretch]) -> impl Iterator<Item = Self> {
        stretches.chunks(SEALED_SAMPLES_MAX).filter_map(|stretches| {
            let ends = stretches.iter().map(|held| held.end_ms).collect();
            Self::new(Kind::Stretches, ends, stretch::encode(stretches))
        })
    }

    /// All that was gathered of a series, floats first.
    pub(crate) fn all_of(gathered: &Gathered) -> Vec<Self> {
        let mut chunks: Vec<Self> = Self::of_floats(&gathered.floats).collect();
        chunks.extend(Self::of_stretches(&gathered.stretches));
        chunks.extend(Self::of_histograms(&gathered.histograms));
        chunks
    }

    fn new(kind: Kind, times: Vec<i64>, values: Vec<u8>) -> Option<Self> {
        let (min_ms, max_ms) = (*times.first()?, *times.last()?);
        let count = u32::try_from(times.len()).ok()?;
        Some(Self { kind, count, min_ms, max_ms, times, values })
    }
}

/// Unpacks a chunk from its two parts; `None` when they do not hold what they should.
pub(crate) fn open(kind: Kind, count: u32, times: &[u8], values: &[u8]) -> Option<Points> {
    let size = usize::try_from(count).ok().filter(|count| *count <= column::COLUMN_VALUES_MAX)?;
    match kind {
        Kind::HeadFloats => unpack(values, count, None),
        Kind::HeadHistograms => {
            let (layout, rest) = take_layout(values)?;
            unpack(rest, count, Some(&layout))
        }
        Kind::Floats => {
            let times = column::decode_times(times, size)?;
            let values = column::decode_values(values, size)?;
            Some(Points::Floats(times.into_iter().zip(values).collect()))
        }
        Kind::Stretches => {
            let ends = column::decode_times(times, size)?;
            stretch::decode(&ends, values).map(Points::Stretches)
        }
        Kind::Histograms => {
            let times = column::decode_times(times, size)?;
            let (layout, mut rest) = take_layout(values)?;
            let mut take = || {
                let length = usize::try_from(take_varint(&mut rest)?).ok()?;
                let (packed, after) = rest.split_at_checked(length)?;
                rest = after;
                column::decode_values(packed, size)
            };
            let hints = take()?;
            let columns: Vec<Vec<f64>> = (0..layout.columns()).map(|_| take()).collect::<Option<_>>()?;
            let histogram = |(at, time): (usize, i64)| {
                let row: Vec<f64> = columns.iter().map(|column| column[at]).collect();
                Some((time, Arc::new(layout.histogram(hint_of(small(hints[at])), &row)?)))
            };
            times.into_iter().enumerate().map(histogram).collect::<Option<_>>().map(Points::Histograms)
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a hint is 0 to 3; others read as unknown"
)]
fn small(value: f64) -> u64 {
    value as u64
}

fn layout_bytes(layout: &Layout) -> Option<Vec<u8>> {
    let bytes = postcard::to_stdvec(layout).ok()?;
    let mut out = Vec::with_capacity(bytes.len() + 3);
    push_varint(&mut out, bytes.len() as u64);
    out.extend_from_slice(&bytes);
    Some(out)
}

fn take_layout(bytes: &[u8]) -> Option<(Layout, &[u8])> {
    let mut rest = bytes;
    let length = usize::try_from(take_varint(&mut rest)?).ok()?;
    let (packed, after) = rest.split_at_checked(length)?;
    let layout: Layout = postcard::from_bytes(packed).ok()?;
    layout.is_sound().then_some((layout, after))
}

#[cfg(test)]
mod tests {
    use belfry_promql::{CounterReset, Histogram};

    use super::*;

    fn reopened(sealed: &Sealed) -> Points {
        let times = column::encode_times(&sealed.times);
        open(sealed.kind, sealed.count, &times, &sealed.values).expect("it opens")
    }

    #[test]
    fn histograms_come_back_and_new_buckets_widen_the_layout() {
        let histogram = |n: u32| {
            let mut positive: Vec<(i32, f64)> = vec![(0, f64::from(n)), (3, 2.0)];
            if n > 3 {
                positive.push((7, 1.0));
            }
            let hint = if n == 0 { CounterReset::Unknown } else { CounterReset::NotReset };
            Arc::new(Histogram {
                hint,
                count: f64::from(n) + 2.0,
                sum: 1.5,
                positive,
                ..Histogram::default()
            })
        };
        let points: Vec<HistogramPoint> = (0..50).map(|n| (i64::from(n) * 1000, histogram(n))).collect();
        let sealed = Sealed::of_histograms(&points);
        assert_eq!(sealed.len(), 1);
        let Points::Histograms(back) = reopened(&sealed[0]) else { panic!("no histograms") };
        assert_eq!(back[49], points[49]);
        assert_eq!(back[2].1.positive, [(0, 2.0), (3, 2.0), (7, 0.0)]);
        let custom = |bound: f64| {
            Arc::new(Histogram { schema: -53, custom_bounds: [bound].into(), ..Histogram::default() })
        };
        assert_eq!(Sealed::of_histograms(&[(1, custom(1.0)), (2, custom(2.0))]).len(), 2);
        for end in 0..sealed[0].values.len() {
            assert!(
                open(Kind::Histograms, 50, &column::encode_times(&sealed[0].times), &sealed[0].values[..end])
                    .is_none()
            );
        }
    }

    #[test]
    fn floats_are_cut_into_chunks() {
        let points: Vec<Point> = (0..5000_i32).map(|n| (i64::from(n) * 15_000, f64::from(n % 7))).collect();
        let sealed: Vec<Sealed> = Sealed::of_floats(&points).collect();
        assert_eq!(sealed.iter().map(|chunk| chunk.count).collect::<Vec<_>>(), [4096, 904]);
        assert_eq!(reopened(&sealed[1]), Points::Floats(points[4096..].to_vec()));
    }
}
