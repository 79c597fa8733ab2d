//! Prometheus' chunks of native histograms, of whole counts and of floats (`tsdb/docs/format/chunks.md`): what the
//! histograms of a chunk have in common, then the samples, times and whole counts as changes of changes, the rest by XOR.
//!
//! A chunk of a counter holds no reset; its first byte of flags says whether there was one before it. A staleness marker has
//! no buckets, and nothing but markers comes after it in its chunk.

use std::sync::Arc;

use belfry_promql::{CounterReset, Histogram, NHCB_SCHEMA, is_stale};
use belfry_signal::NativeHistogram;

use super::chunks::{FLOAT_HISTOGRAM, HISTOGRAM};
use super::xor::{Differences, push_difference, take_difference};
use crate::bits::{BitReader, BitWriter};
use crate::chunk::HistogramPoint;
use crate::layout::{self, Layout};

/// Widths of numbers, each after as many ones and a zero; then eight ones and all 64 bits.
const WIDTHS: [u8; 7] = [3, 6, 9, 12, 18, 25, 56];
/// Samples of one exported chunk.
const SAMPLES_PER_CHUNK: usize = 120;
/// Buckets and bounds that are followed; more are no histogram of anybody.
const BUCKETS_MAX: u64 = 100_000;
/// Whole counts that a double holds exactly.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
/// Bounds below this times a thousand, with three places at most, are written as whole numbers.
const THOUSANDTHS_MAX: f64 = 33_554_430.0;
/// The zero threshold of one byte is a power of two; this is added to its exponent.
const THRESHOLD_BIAS: i32 = 244;

const RESET: u8 = 0b1000_0000;
const NO_RESET: u8 = 0b0100_0000;
const GAUGE: u8 = 0b1100_0000;

/// A chunk and the time that it covers.
pub(super) struct Encoded {
    pub(super) encoding: u8,
    pub(super) min_ms: i64,
    pub(super) max_ms: i64,
    pub(super) bytes: Vec<u8>,
}

/// Histograms in order of time as chunks.
pub(super) fn encode(points: &[HistogramPoint]) -> Vec<Encoded> {
    let mut chunks = Vec::new();
    let mut rest = points;
    let mut previous: Option<&Arc<Histogram>> = None;
    while let Some((_, first)) = rest.first() {
        let is_reset =
            previous.is_some_and(|previous| !is_stale(first.sum) && first.is_reset_after(previous));
        let (layout, length) = stretch(rest);
        let (chunk, after) = rest.split_at(length);
        chunks.extend(encode_chunk(chunk, &layout, is_reset));
        previous = chunk.iter().rev().map(|(_, held)| held).find(|held| !is_stale(held.sum)).or(previous);
        rest = after;
    }
    chunks
}

/// How many of the first histograms are one chunk, and what they have in common.
fn stretch(points: &[HistogramPoint]) -> (Layout, usize) {
    let Some((_, first)) = points.first() else { return (Layout::of(&Histogram::default()), 0) };
    let is_marker = |held: &Histogram| is_stale(held.sum);
    let mut layout = if is_marker(first) { Layout::of(&Histogram::default()) } else { Layout::of(first) };
    let mut end = 1;
    while end < points.len().min(SAMPLES_PER_CHUNK) {
        let (before, held) = (&points[end - 1].1, &points[end].1);
        if is_marker(before) && !is_marker(held) {
            break;
        }
        if !is_marker(held) {
            let Some(wider) = layout.widened(held) else { break };
            if held.hint != CounterReset::Gauge && held.is_reset_after(before) {
                break;
            }
            layout = wider;
        }
        end += 1;
    }
    (layout, end)
}

fn encode_chunk(points: &[HistogramPoint], layout: &Layout, is_reset: bool) -> Option<Encoded> {
    let ((min_ms, first), (max_ms, _)) = (points.first()?, points.last()?);
    let rows: Vec<(i64, Vec<f64>)> =
        points.iter().map(|(time, held)| (*time, row_of(layout, held))).collect();
    let is_whole = |value: &f64| *value >= 0.0 && *value <= WHOLE_MAX && value.fract() == 0.0;
    // All but the sum, which is the third number.
    let whole =
        rows.iter().all(|(_, row)| row.iter().enumerate().all(|(at, value)| at == 2 || is_whole(value)));
    let mut bits = BitWriter::default();
    bits.push(points.len() as u64, 16);
    let flags = match first.hint {
        CounterReset::Gauge => GAUGE,
        _ if is_reset => RESET,
        CounterReset::NotReset => NO_RESET,
        CounterReset::Unknown | CounterReset::Reset => 0,
    };
    bits.push(u64::from(flags), 8);
    push_layout(&mut bits, layout);
    if whole {
        push_whole(&mut bits, &rows, layout.positive().len());
    } else {
        push_floats(&mut bits, &rows);
    }
    let encoding = if whole { HISTOGRAM } else { FLOAT_HISTOGRAM };
    Some(Encoded { encoding, min_ms: *min_ms, max_ms: *max_ms, bytes: bits.into_bytes() })
}

/// Count, zero count, sum, and the buckets, of which a marker has none.
fn row_of(layout: &Layout, histogram: &Histogram) -> Vec<f64> {
    if is_stale(histogram.sum) { vec![0.0, 0.0, histogram.sum] } else { layout.row(histogram) }
}

fn push_layout(bits: &mut BitWriter, layout: &Layout) {
    let threshold = layout.zero_threshold();
    let exponent = threshold.log2();
    let in_byte = exponent + f64::from(THRESHOLD_BIAS);
    if threshold == 0.0 {
        bits.push(0, 8);
    } else if (1.0..=254.0).contains(&in_byte) && exponent.fract() == 0.0 && exponent.exp2() == threshold {
        bits.push(whole(in_byte).cast_unsigned(), 8);
    } else {
        bits.push(255, 8);
        bits.push(threshold.to_bits(), 64);
    }
    push_signed(bits, i64::from(layout.schema()));
    for indexes in [layout.positive(), layout.negative()] {
        let spans = spans_of(indexes);
        push_unsigned(bits, spans.len() as u64);
        for (offset, length) in spans {
            push_unsigned(bits, length);
            push_signed(bits, offset);
        }
    }
    if layout.schema() == NHCB_SCHEMA {
        push_unsigned(bits, layout.bounds().len() as u64);
        for bound in layout.bounds() {
            let thousandths = (bound * 1000.0).round();
            if (0.0..=THOUSANDTHS_MAX).contains(&thousandths) && thousandths / 1000.0 == *bound {
                push_unsigned(bits, whole(thousandths).cast_unsigned() + 1);
            } else {
                bits.push(0, 1);
                bits.push(bound.to_bits(), 64);
            }
        }
    }
}

/// Indexes as stretches of neighbours: the distance from the end of the one before, and how many.
fn spans_of(indexes: &[i32]) -> Vec<(i64, u64)> {
    let mut spans: Vec<(i64, u64)> = Vec::new();
    let mut next = 0;
    for index in indexes.iter().map(|index| i64::from(*index)) {
        match spans.last_mut().filter(|_| index == next) {
            Some((_, length)) => *length += 1,
            None => spans.push((index - next, 1)),
        }
        next = index + 1;
    }
    spans
}

#[expect(clippy::cast_possible_truncation, reason = "whole numbers below 2^53")]
fn whole(value: f64) -> i64 {
    value as i64
}

/// Samples of whole counts: count, zero count and buckets as changes of changes; of buckets, what differs from the one
/// before in the histogram.
fn push_whole(bits: &mut BitWriter, rows: &[(i64, Vec<f64>)], positive: usize) {
    let mut before: Vec<i64> = Vec::new();
    let mut steps: Vec<i64> = Vec::new();
    let mut sum = Differences::default();
    for (at, (time, row)) in rows.iter().enumerate() {
        let is_marker = is_stale(row[2]);
        let mut numbers = vec![*time, whole(row[0]), whole(row[1])];
        let (up, down) = row[3..].split_at(positive.min(row.len() - 3));
        for side in [up, down] {
            let mut last = 0;
            for count in side.iter().map(|count| whole(*count)) {
                numbers.push(count - last);
                last = count;
            }
        }
        if at == 0 {
            push_signed(bits, *time);
            push_unsigned(bits, numbers[1].cast_unsigned());
            push_unsigned(bits, numbers[2].cast_unsigned());
            sum.first(bits, row[2]);
            numbers[3..].iter().for_each(|number| push_signed(bits, *number));
            steps = vec![0; numbers.len()];
        } else {
            for (place, number) in numbers.iter().enumerate() {
                let step = number.wrapping_sub(before[place]);
                let change = step.wrapping_sub(steps[place]);
                push_signed(bits, if is_marker && place > 0 { 0 } else { change });
                steps[place] = step;
                if place == 2 {
                    sum.push(bits, row[2]);
                }
            }
        }
        // After a marker come markers only, whose counts are not looked at.
        numbers.resize(steps.len(), 0);
        before = numbers;
    }
}

/// Samples of any counts: all by XOR, each number with its own window.
fn push_floats(bits: &mut BitWriter, rows: &[(i64, Vec<f64>)]) {
    let mut columns: Vec<Differences> = Vec::new();
    let (mut last_ms, mut last_step) = (0, 0);
    for (at, (time, row)) in rows.iter().enumerate() {
        let step = time.wrapping_sub(last_ms);
        push_signed(bits, if at == 0 { *time } else { step.wrapping_sub(last_step) });
        for (place, value) in row.iter().enumerate() {
            if at == 0 {
                columns.push(Differences::default());
                columns[place].first(bits, *value);
            } else {
                columns[place].push(bits, *value);
            }
        }
        (last_ms, last_step) = (*time, if at == 0 { 0 } else { step });
    }
}

/// Unpacks a chunk of this encoding; `None` when the bytes do not hold one, or histograms that nobody can have.
pub(super) fn decode(encoding: u8, bytes: &[u8]) -> Option<Vec<HistogramPoint>> {
    let mut bits = BitReader::new(bytes);
    let count = bits.take(16)?;
    let flags = u8::try_from(bits.take(8)?).ok()? & GAUGE;
    let common = Common::take(&mut bits, flags == GAUGE)?;
    let rows = if encoding == HISTOGRAM {
        take_whole(&mut bits, count, &common)?
    } else {
        take_floats(&mut bits, count, &common)?
    };
    let mut points: Vec<HistogramPoint> = Vec::with_capacity(rows.len());
    for (time, row) in rows {
        let mut histogram = common.histogram(&row)?;
        if flags != GAUGE {
            histogram.hint = match (points.is_empty(), flags) {
                (true, RESET) => CounterReset::Reset,
                (true, _) => CounterReset::Unknown,
                (false, _) => CounterReset::NotReset,
            };
        }
        points.push((time, Arc::new(histogram)));
    }
    Some(points)
}

/// What the histograms of a chunk have in common, as it is read.
struct Common {
    is_gauge: bool,
    schema: i32,
    zero_threshold: f64,
    positive: Vec<i32>,
    negative: Vec<i32>,
    bounds: Vec<f64>,
}

impl Common {
    fn take(bits: &mut BitReader<'_>, is_gauge: bool) -> Option<Self> {
        let zero_threshold = match i32::try_from(bits.take(8)?).ok()? {
            0 => 0.0,
            255 => f64::from_bits(bits.take(64)?),
            byte => f64::from(byte - THRESHOLD_BIAS).exp2(),
        };
        let schema = i32::try_from(take_signed(bits)?).ok()?;
        let (positive, negative) = (take_spans(bits)?, take_spans(bits)?);
        let mut bounds = Vec::new();
        if schema == NHCB_SCHEMA {
            for _ in 0..take_unsigned(bits).filter(|count| *count <= BUCKETS_MAX)? {
                bounds.push(match take_unsigned(bits)? {
                    0 => f64::from_bits(bits.take(64)?),
                    more => f64::from(u32::try_from(more - 1).ok()?) / 1000.0,
                });
            }
        }
        Some(Self { is_gauge, schema, zero_threshold, positive, negative, bounds })
    }

    fn histogram(&self, row: &[f64]) -> Option<Histogram> {
        let sum = *row.get(2)?;
        let counts = row.get(3..)?;
        let (up, down) = counts.split_at(self.positive.len().min(counts.len()));
        let zipped = |indexes: &[i32], counts: &[f64]| -> Vec<(i32, f64)> {
            indexes.iter().copied().zip(counts.iter().copied()).collect()
        };
        layout::checked(&NativeHistogram {
            is_gauge: self.is_gauge,
            schema: self.schema,
            zero_threshold: self.zero_threshold,
            zero_count: row[1],
            count: row[0],
            sum,
            positive: zipped(&self.positive, up),
            negative: zipped(&self.negative, down),
            custom_bounds: self.bounds.clone(),
        })
        .ok()
    }
}

fn take_spans(bits: &mut BitReader<'_>) -> Option<Vec<i32>> {
    let mut indexes = Vec::new();
    let mut next = 0_i64;
    for _ in 0..take_unsigned(bits).filter(|count| *count <= BUCKETS_MAX)? {
        let length = take_unsigned(bits)?;
        next = next.checked_add(take_signed(bits)?)?;
        if length + indexes.len() as u64 > BUCKETS_MAX {
            return None;
        }
        for _ in 0..length {
            indexes.push(i32::try_from(next).ok()?);
            next += 1;
        }
    }
    Some(indexes)
}

type Rows = Vec<(i64, Vec<f64>)>;

fn take_whole(bits: &mut BitReader<'_>, count: u64, common: &Common) -> Option<Rows> {
    let width = 3 + common.positive.len() + common.negative.len();
    let (mut numbers, mut steps) = (vec![0_i64; width], vec![0_i64; width]);
    let mut sum = Differences::default();
    let mut rows = Rows::new();
    for at in 0..count {
        let mut value = 0.0;
        for place in 0..width {
            if at == 0 {
                numbers[place] = match place {
                    1 | 2 => take_unsigned(bits)?.cast_signed(),
                    _ => take_signed(bits)?,
                };
            } else {
                steps[place] = steps[place].wrapping_add(take_signed(bits)?);
                numbers[place] = numbers[place].wrapping_add(steps[place]);
            }
            if place == 2 {
                value = if at == 0 { sum.take_first(bits)? } else { sum.take(bits)? };
                if is_stale(value) {
                    break;
                }
            }
        }
        let mut row = vec![numbers[1] as f64, numbers[2] as f64, value];
        if is_stale(value) {
            row = vec![0.0, 0.0, value];
        } else {
            let (up, down) = numbers[3..].split_at(common.positive.len());
            for side in [up, down] {
                let mut held = 0_i64;
                row.extend(side.iter().map(|change| {
                    held = held.wrapping_add(*change);
                    held as f64
                }));
            }
        }
        rows.push((numbers[0], row));
    }
    Some(rows)
}

fn take_floats(bits: &mut BitReader<'_>, count: u64, common: &Common) -> Option<Rows> {
    let width = 3 + common.positive.len() + common.negative.len();
    let mut columns = vec![Differences::default(); width];
    let (mut time, mut step) = (0_i64, 0_i64);
    let mut rows = Rows::new();
    for at in 0..count {
        let change = take_signed(bits)?;
        if at == 0 {
            time = change;
        } else {
            step = step.wrapping_add(change);
            time = time.wrapping_add(step);
        }
        let mut row = Vec::with_capacity(width.min(64));
        for column in &mut columns {
            row.push(if at == 0 { column.take_first(bits)? } else { column.take(bits)? });
            if row.len() == 3 && is_stale(row[2]) {
                row = vec![0.0, 0.0, row[2]];
                break;
            }
        }
        rows.push((time, row));
    }
    Some(rows)
}

fn push_signed(bits: &mut BitWriter, value: i64) {
    let fits = |width: u8| {
        let half = 1_i64 << (width - 1);
        (1 - half..=half).contains(&value)
    };
    push_number(bits, value.cast_unsigned(), value == 0, &fits);
}

fn push_unsigned(bits: &mut BitWriter, value: u64) {
    push_number(bits, value, value == 0, &|width| value < 1 << width);
}

fn push_number(bits: &mut BitWriter, value: u64, is_zero: bool, fits: &dyn Fn(u8) -> bool) {
    if is_zero {
        return bits.push(0, 1);
    }
    for (ones, width) in (1_u8..).zip(WIDTHS) {
        if fits(width) {
            bits.push((1 << (ones + 1)) - 2, ones + 1);
            return bits.push(value, width);
        }
    }
    bits.push(0xff, 8);
    bits.push(value, 64);
}

/// The width of the next number and its bits.
fn take_number(bits: &mut BitReader<'_>) -> Option<(u8, u64)> {
    for width in [0].into_iter().chain(WIDTHS) {
        if !bits.bit()? {
            return Some((width, if width == 0 { 0 } else { bits.take(width)? }));
        }
    }
    Some((64, bits.take(64)?))
}

fn take_unsigned(bits: &mut BitReader<'_>) -> Option<u64> {
    take_number(bits).map(|(_, value)| value)
}

fn take_signed(bits: &mut BitReader<'_>) -> Option<i64> {
    let (width, value) = take_number(bits)?;
    if width == 0 || width == 64 {
        return Some(value.cast_signed());
    }
    // The largest of a width is positive: the range leans by one.
    let leans = value > 1 << (width - 1);
    Some(value.cast_signed() - if leans { 1 << width } else { 0 })
}

impl Differences {
    /// The first value of a column, whole.
    fn first(&mut self, bits: &mut BitWriter, value: f64) {
        self.last = value.to_bits();
        bits.push(self.last, 64);
    }

    fn push(&mut self, bits: &mut BitWriter, value: f64) {
        push_difference(bits, value.to_bits() ^ self.last, &mut self.window);
        self.last = value.to_bits();
    }

    fn take_first(&mut self, bits: &mut BitReader<'_>) -> Option<f64> {
        self.last = bits.take(64)?;
        Some(f64::from_bits(self.last))
    }

    fn take(&mut self, bits: &mut BitReader<'_>) -> Option<f64> {
        let mut window = self.window.unwrap_or_default();
        self.last ^= take_difference(bits, &mut window)?;
        self.window = Some(window);
        Some(f64::from_bits(self.last))
    }
}

#[cfg(test)]
mod tests {
    use belfry_promql::stale_marker;
    use proptest::prelude::*;

    use super::*;

    fn back(points: &[HistogramPoint]) -> Vec<HistogramPoint> {
        encode(points)
            .iter()
            .flat_map(|chunk| decode(chunk.encoding, &chunk.bytes).expect("it decodes"))
            .collect()
    }

    /// Without hints, which say the same by other means, and without buckets that hold nothing.
    fn plain(points: &[HistogramPoint]) -> Vec<(i64, Histogram)> {
        let plain = |held: &Histogram| {
            if is_stale(held.sum) {
                // Nothing else is looked at.
                return Histogram { sum: held.sum, ..Histogram::default() };
            }
            let is_gauge = held.hint == CounterReset::Gauge;
            let mut held = held.clone();
            held.hint = if is_gauge { CounterReset::Gauge } else { CounterReset::Unknown };
            held.positive.retain(|(_, count)| *count != 0.0);
            held.negative.retain(|(_, count)| *count != 0.0);
            held
        };
        points.iter().map(|(time, held)| (*time, plain(held))).collect()
    }

    #[test]
    fn numbers_are_as_wide_as_they_must_be() {
        for (value, width) in [(0, 1), (4, 5), (-3, 5), (5, 9), (-4, 9), (256, 13), (2048, 17), (-2048, 24)] {
            let mut bits = BitWriter::default();
            push_signed(&mut bits, value);
            assert_eq!(bits.bytes().len(), usize::div_ceil(width, 8), "{value}");
            assert_eq!(take_signed(&mut BitReader::new(bits.bytes())), Some(value));
        }
        for value in [0, 7, 8, 262_143, 33_554_431, 33_554_432, u64::MAX] {
            let mut bits = BitWriter::default();
            push_unsigned(&mut bits, value);
            assert_eq!(take_unsigned(&mut BitReader::new(bits.bytes())), Some(value));
        }
        assert_eq!(spans_of(&[-3, -2, 0, 5]), [(-3, 2), (1, 1), (4, 1)]);
    }

    #[test]
    fn resets_gauges_bounds_and_ends_begin_chunks() {
        let histogram = |count: f64| Histogram {
            count,
            sum: count * 0.3,
            zero_threshold: 2_f64.powi(-128),
            positive: vec![(-1, count), (4, 1.0)],
            ..Histogram::default()
        };
        let custom = Histogram {
            schema: NHCB_SCHEMA,
            zero_threshold: 0.0,
            custom_bounds: [0.005, 1.0, 33_555.0, 1.0 / 3.0 * 1e6].into(),
            ..histogram(2.5)
        };
        let marker = Histogram { sum: stale_marker(), ..Histogram::default() };
        let gauge = Histogram { hint: CounterReset::Gauge, ..histogram(1.0) };
        let custom = Histogram { positive: vec![(0, 1.5), (4, 1.0)], ..custom };
        let all = [histogram(1.0), histogram(5.0), histogram(2.0), marker, histogram(3.0), gauge, custom];
        let points: Vec<HistogramPoint> =
            (0..).zip(all).map(|(n, held)| (n * 15_000 + n % 3, Arc::new(held))).collect();
        let chunks = encode(&points);
        assert_eq!(chunks.iter().map(|chunk| chunk.encoding).collect::<Vec<_>>(), [2, 2, 2, 2, 3]);
        let flags: Vec<u8> = chunks.iter().map(|chunk| chunk.bytes[2]).collect();
        assert_eq!(flags, [0, RESET, 0, GAUGE, RESET]);
        let bits = |points: &[HistogramPoint]| format!("{:?}", plain(points));
        assert_eq!(bits(&back(&points)), bits(&points));
    }

    proptest! {
        #[test]
        fn what_went_in_comes_out(
            rows in proptest::collection::vec(
                (1_i64..100_000, proptest::collection::btree_map(-50_i32..50, 0_u32..1_000_000, 0..6), any::<bool>()),
                1..150,
            ),
            is_float in any::<bool>(),
        ) {
            let mut time = 1_700_000_000_000;
            let points: Vec<HistogramPoint> = rows
                .iter()
                .map(|(step, buckets, is_negative)| {
                    time += step;
                    let scale = if is_float { 0.37 } else { 1.0 };
                    let counts: Vec<(i32, f64)> =
                        buckets.iter().map(|(index, count)| (*index, f64::from(*count) * scale)).collect();
                    let count = counts.iter().map(|(_, count)| count).sum();
                    let (positive, negative) = if *is_negative { (vec![], counts) } else { (counts, vec![]) };
                    let held = Histogram { count, sum: count * 1.7, positive, negative, ..Histogram::default() };
                    (time, Arc::new(held))
                })
                .collect();
            prop_assert_eq!(plain(&back(&points)), plain(&points));
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), encoding in 2_u8..4) {
            let _points = decode(encoding, &bytes);
        }
    }
}
