//! Downsampling: the samples of each stretch of five minutes or an hour, summed up; and how that is packed.
//!
//! Of floats: first and last sample, smallest, largest, sum, count, and what a counter lost in resets inside; from these
//! `rate`, `increase`, `delta` and the usual functions over time come out as from the samples, when windows begin and end
//! with stretches. Native histograms are thinned and not summed up: each is a column of hundreds of numbers, and a rate
//! needs nothing but the first and the last of a stretch and those on both sides of a reset, which are kept as they are.

use belfry_promql::{Stretch, is_stale};

use crate::chunk::{HistogramPoint, Point};
use crate::column::{self, push_varint, take_varint};

/// A column as it is, or as what differs from another.
const PLAIN: u8 = 0;
const DIFFERENCE: u8 = 1;

/// The end of the stretch that a time lies in.
pub(crate) fn end_of(unix_millis: i64, resolution_ms: i64) -> i64 {
    let into = unix_millis.rem_euclid(resolution_ms);
    if into == 0 { unix_millis } else { unix_millis.saturating_add(resolution_ms - into) }
}

/// Float points in order of time, summed up.
pub(crate) fn of_floats(floats: &[Point], histograms: &[HistogramPoint], resolution_ms: i64) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for (time, value) in floats {
        let end_ms = end_of(*time, resolution_ms);
        if is_stale(*value) {
            // A histogram that comes after it in the stretch says that the series goes on.
            let after = histograms.partition_point(|(held, _)| held <= time);
            let goes_on = histograms.get(after).is_some_and(|(held, _)| *held <= end_ms);
            match stretches.last_mut().filter(|held| held.end_ms == end_ms) {
                Some(held) => held.is_ended = !goes_on,
                None if goes_on => {}
                None => stretches.push(ended(end_ms)),
            }
            continue;
        }
        let one = one(end_ms, *time, *value);
        match stretches.last_mut().filter(|held| held.end_ms == end_ms) {
            Some(held) => join(held, &one),
            None => stretches.push(one),
        }
    }
    stretches
}

fn one(end_ms: i64, time: i64, value: f64) -> Stretch {
    let point = (time, value);
    let (count, lost, is_ended) = (1, 0.0, false);
    Stretch { end_ms, count, first: point, last: point, min: value, max: value, sum: value, lost, is_ended }
}

fn ended(end_ms: i64) -> Stretch {
    Stretch { count: 0, sum: 0.0, is_ended: true, ..one(end_ms, end_ms, f64::NAN) }
}

/// Adds what comes after to a stretch.
fn join(held: &mut Stretch, later: &Stretch) {
    if later.count == 0 {
        held.is_ended = later.is_ended;
        return;
    }
    if held.count == 0 {
        *held = Stretch { end_ms: held.end_ms, ..*later };
        return;
    }
    held.lost += later.lost;
    if later.first.1 < held.last.1 {
        held.lost += held.last.1;
    }
    if later.min < held.min || held.min.is_nan() {
        held.min = later.min;
    }
    if later.max > held.max || held.max.is_nan() {
        held.max = later.max;
    }
    held.sum += later.sum;
    held.count = held.count.saturating_add(later.count);
    held.last = later.last;
    held.is_ended = later.is_ended;
}

/// Stretches in order of time as longer ones.
pub(crate) fn coarser(stretches: Vec<Stretch>, resolution_ms: i64) -> Vec<Stretch> {
    let mut longer: Vec<Stretch> = Vec::new();
    for stretch in stretches {
        let end_ms = end_of(stretch.end_ms, resolution_ms);
        match longer.last_mut().filter(|held| held.end_ms == end_ms) {
            Some(held) => join(held, &stretch),
            None => longer.push(Stretch { end_ms, ..stretch }),
        }
    }
    longer
}

/// Histograms in order of time: of each stretch the first and the last, and those on both sides of a reset. Staleness
/// markers stay where they end a stretch.
pub(crate) fn thinned(histograms: &[HistogramPoint], resolution_ms: i64) -> Vec<HistogramPoint> {
    let end_at = |at: usize| histograms.get(at).map(|(time, _)| end_of(*time, resolution_ms));
    let is_marker = |at: usize| histograms.get(at).is_some_and(|(_, held)| is_stale(held.sum));
    let before = |at: usize| (0..at).rev().find(|earlier| !is_marker(*earlier));
    let is_reset = |at: usize| {
        let previous = before(at).and_then(|earlier| histograms.get(earlier));
        let held = histograms.get(at);
        !is_marker(at)
            && previous.zip(held).is_some_and(|((_, previous), (_, held))| held.is_reset_after(previous))
    };
    let mut kept = vec![false; histograms.len()];
    for at in 0..histograms.len() {
        let is_last = end_at(at + 1) != end_at(at);
        let previous = before(at);
        let is_first = !is_marker(at) && previous.is_none_or(|earlier| end_at(earlier) != end_at(at));
        kept[at] |= is_first || is_last;
        if let Some(previous) = previous
            && is_reset(at)
        {
            (kept[at], kept[previous]) = (true, true);
        }
        // Behind the last sample of a stretch there may be a marker, which is what is kept for an end.
        if let Some(previous) = previous
            && is_last
            && is_marker(at)
            && end_at(previous) == end_at(at)
        {
            kept[previous] = true;
        }
    }
    histograms.iter().zip(kept).filter(|(_, is_kept)| *is_kept).map(|(point, _)| point.clone()).collect()
}

/// Packs all but the ends, which are the column of times.
pub(crate) fn encode(stretches: &[Stretch]) -> Vec<u8> {
    let column = |value: &dyn Fn(&Stretch) -> f64| stretches.iter().map(value).collect::<Vec<f64>>();
    let mut out = Vec::new();
    let first = column(&|held| held.first.1);
    let last = column(&|held| held.last.1);
    push(&mut out, &column(&|held| f64::from(held.count)), None);
    push(&mut out, &column(&|held| f64::from(u8::from(held.is_ended))), None);
    push(&mut out, &column(&|held| (held.end_ms - held.first.0) as f64), None);
    push(&mut out, &column(&|held| (held.end_ms - held.last.0) as f64), None);
    push(&mut out, &first, None);
    push(&mut out, &last, Some(&first));
    push(&mut out, &column(&|held| held.min), Some(&first));
    push(&mut out, &column(&|held| held.max), Some(&last));
    push(&mut out, &column(&|held| held.sum), None);
    push(&mut out, &column(&|held| held.lost), None);
    out
}

fn push(out: &mut Vec<u8>, values: &[f64], base: Option<&[f64]>) {
    let mut packed = vec![PLAIN];
    column::encode_values(values, &mut packed);
    if let Some(base) = base {
        let differences: Vec<f64> =
            values.iter().zip(base).map(|(value, base)| difference(*value, *base)).collect();
        let mut relative = vec![DIFFERENCE];
        column::encode_values(&differences, &mut relative);
        if relative.len() < packed.len() {
            packed = relative;
        }
    }
    push_varint(out, packed.len() as u64);
    out.extend_from_slice(&packed);
}

/// The bits in which two values differ, as a value: zero when they are the same.
fn difference(value: f64, base: f64) -> f64 {
    f64::from_bits(value.to_bits() ^ base.to_bits())
}

/// Unpacks stretches with these ends; `None` when the bytes do not hold them.
pub(crate) fn decode(ends: &[i64], bytes: &[u8]) -> Option<Vec<Stretch>> {
    let mut rest = bytes;
    let mut take = |base: Option<&[f64]>| {
        let length = usize::try_from(take_varint(&mut rest)?).ok()?;
        let (packed, after) = rest.split_at_checked(length)?;
        rest = after;
        let (how, packed) = packed.split_first()?;
        let values = column::decode_values(packed, ends.len())?;
        match (*how, base) {
            (PLAIN, _) => Some(values),
            (DIFFERENCE, Some(base)) => {
                Some(values.iter().zip(base).map(|(value, base)| difference(*value, *base)).collect())
            }
            _ => None,
        }
    };
    let (counts, ended) = (take(None)?, take(None)?);
    let (firsts, lasts) = (take(None)?, take(None)?);
    let first = take(None)?;
    let last = take(Some(&first))?;
    let (min, max) = (take(Some(&first))?, take(Some(&last))?);
    let (sum, lost) = (take(None)?, take(None)?);
    let time = |end_ms: i64, before: f64| end_ms.checked_sub(whole(before)?);
    let stretch = |(at, end_ms): (usize, &i64)| {
        Some(Stretch {
            end_ms: *end_ms,
            count: u32::try_from(whole(counts[at])?).ok()?,
            first: (time(*end_ms, firsts[at])?, first[at]),
            last: (time(*end_ms, lasts[at])?, last[at]),
            min: min[at],
            max: max[at],
            sum: sum[at],
            lost: lost[at],
            is_ended: ended[at] != 0.0,
        })
    };
    ends.iter().enumerate().map(stretch).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "within the bounds that were just looked at")]
fn whole(value: f64) -> Option<i64> {
    (0.0..=9e15).contains(&value).then_some(value as i64)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use belfry_promql::{CounterReset, Histogram, stale_marker};
    use proptest::prelude::*;

    use super::*;

    const FIVE_MS: i64 = 300_000;

    #[test]
    fn a_stretch_says_what_its_samples_did() {
        let points = [(1, 5.0), (300_000, 9.0), (300_001, 2.0), (400_000, 1.0), (600_000, 4.0)];
        let stretches = of_floats(&points, &[], FIVE_MS);
        let ends: Vec<_> = stretches.iter().map(|held| (held.end_ms, held.count, held.lost)).collect();
        assert_eq!(ends, [(300_000, 2, 0.0), (600_000, 3, 2.0)]);
        let second = stretches[1];
        assert_eq!((second.first, second.last), ((300_001, 2.0), (600_000, 4.0)));
        assert_eq!((second.min, second.max, second.sum), (1.0, 4.0, 7.0));
        assert_eq!(coarser(stretches, 600_000), of_floats(&points, &[], 600_000));
        let marked = [(1, 5.0), (2, stale_marker()), (300_001, stale_marker()), (600_001, 1.0)];
        let told: Vec<_> =
            of_floats(&marked, &[], FIVE_MS).iter().map(|held| (held.count, held.is_ended)).collect();
        assert_eq!(told, [(1, true), (0, true), (1, false)]);
        let goes_on = [(3_i64, Arc::new(Histogram::default()))];
        assert!(!of_floats(&marked[..2], &goes_on, FIVE_MS)[0].is_ended);
    }

    #[test]
    fn of_histograms_the_edges_and_the_resets_stay() {
        let histogram = |count: f64| {
            let held = Histogram { count, sum: count, positive: vec![(0, count)], ..Histogram::default() };
            Arc::new(Histogram { hint: CounterReset::Unknown, ..held })
        };
        let marker = Arc::new(Histogram { sum: stale_marker(), ..Histogram::default() });
        let counts = [1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 4.0];
        let mut points: Vec<_> =
            (1..).zip(counts).map(|(n, count)| (n * 40_000_i64, histogram(count))).collect();
        points.push((290_000, marker));
        let kept: Vec<i64> = thinned(&points, FIVE_MS).iter().map(|(time, _)| *time / 10_000).collect();
        assert_eq!(kept, [4, 12, 16, 28, 29]);
    }

    proptest! {
        #[test]
        fn what_went_in_comes_out(
            steps in proptest::collection::vec((1_i64..200_000, prop_oneof![any::<f64>(), Just(7.0), Just(f64::NAN)]), 1..60),
        ) {
            let mut time = 1_700_000_000_000;
            let points: Vec<Point> = steps.iter().map(|(step, value)| { time += step; (time, *value) }).collect();
            let stretches = of_floats(&points, &[], FIVE_MS);
            let ends: Vec<i64> = stretches.iter().map(|held| held.end_ms).collect();
            let bytes = encode(&stretches);
            let back = decode(&ends, &bytes).expect("it decodes");
            // NaN is not equal to itself; how it prints is.
            prop_assert_eq!(format!("{back:?}"), format!("{stretches:?}"));
            for end in [0, 1, bytes.len() / 2, bytes.len() - 1] {
                prop_assert!(decode(&ends, &bytes[..end]).is_none());
            }
            let counted: u32 = stretches.iter().map(|held| held.count).sum();
            prop_assert_eq!(counted as usize, points.len());
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _stretches = decode(&[1, 2, 3], &bytes);
        }
    }
}
