//! Native histograms between their messages and our own form.
//!
//! A message holds spans of buckets and, for whole counts, differences from bucket to bucket; ours holds each bucket with
//! its index.

use belfry_signal::NativeHistogram;

use crate::messages::{BucketSpan, Count, Histogram, ZeroCount, client};

/// Buckets that one histogram may have; a span that says more is not followed.
const BUCKETS_MAX: usize = 10_000;
const GAUGE: i32 = 3;
/// Whole counts that a double holds exactly.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
/// The marker that a series ended, as bits.
const STALE: u64 = 0x7ff0_0000_0000_0002;

/// Why a message is no histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a native histogram whose spans and counts do not agree")]
pub struct NativeFault;

/// Buckets with their indexes; counts are given in order.
fn placed(spans: &[BucketSpan], counts: &[f64]) -> Result<Vec<(i32, f64)>, NativeFault> {
    let mut buckets = Vec::with_capacity(counts.len().min(BUCKETS_MAX));
    let mut counts = counts.iter();
    let mut index = 0_i32;
    for span in spans {
        index = index.checked_add(span.offset).ok_or(NativeFault)?;
        if span.length as usize > BUCKETS_MAX {
            return Err(NativeFault);
        }
        for _ in 0..span.length {
            buckets.push((index, *counts.next().ok_or(NativeFault)?));
            index = index.checked_add(1).ok_or(NativeFault)?;
        }
    }
    if counts.next().is_some() || buckets.len() > BUCKETS_MAX { Err(NativeFault) } else { Ok(buckets) }
}

fn summed(deltas: &[i64]) -> Result<Vec<f64>, NativeFault> {
    let mut count = 0_i64;
    deltas
        .iter()
        .map(|delta| {
            count = count.checked_add(*delta).ok_or(NativeFault)?;
            if count < 0 { Err(NativeFault) } else { Ok(count as f64) }
        })
        .collect()
}

/// A histogram of remote write. Reset hints other than "gauge" are left to the store, which finds resets itself.
///
/// # Errors
/// When spans and counts do not agree.
pub fn from_wire(message: &Histogram) -> Result<NativeHistogram, NativeFault> {
    let is_float = matches!(message.count, Some(Count::Float(_)));
    let side = |spans: &[BucketSpan], deltas: &[i64], counts: &[f64]| {
        if is_float { placed(spans, counts) } else { placed(spans, &summed(deltas)?) }
    };
    Ok(NativeHistogram {
        is_gauge: message.reset_hint == GAUGE,
        schema: message.schema,
        zero_threshold: message.zero_threshold,
        zero_count: match message.zero_count {
            Some(ZeroCount::Int(count)) => count as f64,
            Some(ZeroCount::Float(count)) => count,
            None => 0.0,
        },
        count: match message.count {
            Some(Count::Int(count)) => count as f64,
            Some(Count::Float(count)) => count,
            None => 0.0,
        },
        sum: message.sum,
        positive: side(&message.positive_spans, &message.positive_deltas, &message.positive_counts)?,
        negative: side(&message.negative_spans, &message.negative_deltas, &message.negative_counts)?,
        custom_bounds: message.custom_values.clone(),
    })
}

/// A histogram of the exposition in protobuf, when its metric has a native one.
///
/// # Errors
/// When spans and counts do not agree.
pub fn from_exposition(
    message: &client::Histogram,
    is_gauge: bool,
) -> Result<Option<NativeHistogram>, NativeFault> {
    // A native histogram without observations says so by a span of no length.
    let is_native = !message.positive_span.is_empty()
        || !message.negative_span.is_empty()
        || message.zero_threshold.unwrap_or(0.0) > 0.0
        || message.zero_count.unwrap_or(0) > 0;
    if !is_native {
        return Ok(None);
    }
    let is_float = message.sample_count_float.unwrap_or(0.0) > 0.0
        || message.zero_count_float.unwrap_or(0.0) > 0.0
        || !message.positive_count.is_empty()
        || !message.negative_count.is_empty();
    let side = |spans: &[BucketSpan], deltas: &[i64], counts: &[f64]| {
        if is_float { placed(spans, counts) } else { placed(spans, &summed(deltas)?) }
    };
    let count = message.sample_count_float.filter(|_| is_float);
    let zero_count = message.zero_count_float.filter(|_| is_float);
    Ok(Some(NativeHistogram {
        is_gauge,
        schema: message.schema.unwrap_or(0),
        zero_threshold: message.zero_threshold.unwrap_or(0.0),
        zero_count: zero_count.unwrap_or(message.zero_count.unwrap_or(0) as f64),
        count: count.unwrap_or(message.sample_count.unwrap_or(0) as f64),
        sum: message.sample_sum.unwrap_or(0.0),
        positive: side(&message.positive_span, &message.positive_delta, &message.positive_count)?,
        negative: side(&message.negative_span, &message.negative_delta, &message.negative_count)?,
        custom_bounds: Vec::new(),
    }))
}

/// Spans and counts of one side.
fn spans(buckets: &[(i32, f64)]) -> (Vec<BucketSpan>, Vec<f64>) {
    let mut spans: Vec<BucketSpan> = Vec::new();
    let mut next = 0_i32;
    for (index, _) in buckets {
        match spans.last_mut() {
            Some(last) if *index == next => last.length += 1,
            _ => spans.push(BucketSpan { offset: index.saturating_sub(next), length: 1 }),
        }
        next = index.saturating_add(1);
    }
    (spans, buckets.iter().map(|(_, count)| *count).collect())
}

/// Differences from bucket to bucket.
#[expect(clippy::cast_possible_truncation, reason = "asked only of whole counts below 2^53")]
fn deltas(counts: &[f64]) -> Vec<i64> {
    let before = std::iter::once(0.0).chain(counts.iter().copied());
    before.zip(counts).map(|(before, count)| *count as i64 - before as i64).collect()
}

/// A histogram as remote write and remote read have it. `None` hint means that the reader finds resets himself.
#[must_use]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and below 2^53")]
pub fn to_wire(native: &NativeHistogram, unix_millis: i64) -> Histogram {
    let is_whole = |count: &f64| count.fract() == 0.0 && (0.0..WHOLE_MAX).contains(count);
    let all = [native.count, native.zero_count];
    let mut counts = all.iter().chain(native.positive.iter().chain(&native.negative).map(|(_, count)| count));
    let is_integer = native.sum.to_bits() == STALE || counts.all(is_whole);
    let (positive_spans, positive_counts) = spans(&native.positive);
    let (negative_spans, negative_counts) = spans(&native.negative);
    let (positive_deltas, negative_deltas) =
        if is_integer { (deltas(&positive_counts), deltas(&negative_counts)) } else { Default::default() };
    let floats = |counts: Vec<f64>| if is_integer { Vec::new() } else { counts };
    Histogram {
        count: Some(if is_integer { Count::Int(native.count as u64) } else { Count::Float(native.count) }),
        sum: native.sum,
        schema: native.schema,
        zero_threshold: native.zero_threshold,
        zero_count: Some(if is_integer {
            ZeroCount::Int(native.zero_count as u64)
        } else {
            ZeroCount::Float(native.zero_count)
        }),
        negative_spans,
        negative_deltas,
        negative_counts: floats(negative_counts),
        positive_spans,
        positive_deltas,
        positive_counts: floats(positive_counts),
        reset_hint: if native.is_gauge { GAUGE } else { 0 },
        timestamp: unix_millis,
        custom_values: native.custom_bounds.clone(),
        start_timestamp: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_come_back_as_they_went() {
        let whole = NativeHistogram {
            schema: 2,
            zero_threshold: 0.001,
            zero_count: 3.0,
            count: 20.0,
            sum: 7.5,
            positive: vec![(-3, 4.0), (-2, 1.0), (5, 7.0), (9, 2.0)],
            negative: vec![(0, 3.0)],
            ..NativeHistogram::default()
        };
        let float = NativeHistogram { count: 20.5, is_gauge: true, ..whole.clone() };
        let custom = NativeHistogram {
            schema: -53,
            custom_bounds: vec![0.5, 1.0],
            positive: vec![(0, 1.0), (2, 4.0)],
            count: 5.0,
            ..NativeHistogram::default()
        };
        for native in [whole, float, custom, NativeHistogram::default()] {
            assert_eq!(from_wire(&to_wire(&native, 7)), Ok(native));
        }
    }

    #[test]
    fn a_histogram_that_contradicts_itself_is_refused() {
        let span = |offset, length| BucketSpan { offset, length };
        let good = Histogram { count: Some(Count::Int(1)), ..Histogram::default() };
        let cases = [
            Histogram { positive_spans: vec![span(0, 2)], positive_deltas: vec![1], ..good.clone() },
            Histogram { positive_spans: vec![span(0, 1)], positive_deltas: vec![1, 1], ..good.clone() },
            Histogram { positive_spans: vec![span(0, u32::MAX)], positive_deltas: vec![1], ..good.clone() },
            Histogram { positive_spans: vec![span(i32::MAX, 1)], positive_deltas: vec![1], ..good.clone() },
            Histogram { negative_spans: vec![span(0, 1)], negative_deltas: vec![-1], ..good },
        ];
        for case in cases {
            assert_eq!(from_wire(&case), Err(NativeFault), "{case:?}");
        }
    }
}
