//! Deltas added up: Prometheus' counters and histograms count from a beginning.
//!
//! The state of a series is kept while it is heard of, for a bounded number of series. A request changes it as a whole
//! or not at all: when its points were not stored, the sender sends them again, and they must count once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use belfry_signal::{NativeHistogram, SeriesLabels};
use foldhash::HashMap;

/// What was added up.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Total {
    Number(f64),
    /// Counts of buckets by their bounds, count and sum.
    Classic {
        bounds: Vec<f64>,
        counts: Vec<u64>,
        count: u64,
        sum: f64,
    },
    Native(Box<NativeHistogram>),
}

#[derive(Clone, Debug)]
struct State {
    total: Total,
    /// When the first delta began, in milliseconds since the Unix epoch.
    created_ms: i64,
    last_ms: i64,
    heard: Instant,
}

/// The series whose deltas are added up.
#[derive(Debug)]
pub(super) struct Deltas {
    states: HashMap<SeriesLabels, State>,
    series_max: usize,
    idle: Duration,
    swept: Instant,
    /// What the request under way changed, and how it was before.
    undo: Vec<(SeriesLabels, Option<State>)>,
}

impl Deltas {
    pub(super) fn new(series_max: usize, idle: Duration, now: Instant) -> Self {
        Self { states: HashMap::default(), series_max, idle, swept: now, undo: Vec::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.states.len()
    }

    /// Adds a delta that covers the time from `start_ms` to `time_ms`. Returns the total and when it began.
    pub(super) fn add(
        &mut self,
        labels: &SeriesLabels,
        delta: Total,
        (start_ms, time_ms): (i64, i64),
        now: Instant,
    ) -> Result<(Total, i64), &'static str> {
        let known = self.states.get(labels);
        if known.is_some_and(|known| time_ms <= known.last_ms) {
            return Err("a delta is not newer than the last one of its series");
        }
        if known.is_none() && self.states.len() >= self.series_max {
            return Err("too many series of deltas: raise delta_series_max, or send cumulative points");
        }
        let before = known.cloned();
        let state = match &before {
            None => State { total: delta, created_ms: start_ms, last_ms: time_ms, heard: now },
            Some(known) => match sum(&known.total, &delta) {
                Some(total) => State { total, last_ms: time_ms, heard: now, ..known.clone() },
                // Its buckets changed: it begins anew.
                None => State { total: delta, created_ms: start_ms, last_ms: time_ms, heard: now },
            },
        };
        let answer = (state.total.clone(), state.created_ms);
        self.undo.push((Arc::clone(labels), before));
        self.states.insert(Arc::clone(labels), state);
        Ok(answer)
    }

    /// Whether the request under way added something up.
    pub(super) fn has_changed(&self) -> bool {
        !self.undo.is_empty()
    }

    /// Keeps what the request changed, and lets go of series that were not heard of for long.
    pub(super) fn commit(&mut self, now: Instant) {
        self.undo.clear();
        if now.saturating_duration_since(self.swept) > self.idle / 8 {
            self.swept = now;
            let idle = self.idle;
            self.states.retain(|_, state| now.saturating_duration_since(state.heard) < idle);
        }
    }

    /// Takes back what the request changed.
    pub(super) fn roll_back(&mut self) {
        while let Some((labels, before)) = self.undo.pop() {
            match before {
                Some(state) => self.states.insert(labels, state),
                None => self.states.remove(&labels),
            };
        }
    }
}

/// Two totals together, when they are of one form.
fn sum(total: &Total, delta: &Total) -> Option<Total> {
    match (total, delta) {
        (Total::Number(total), Total::Number(delta)) => Some(Total::Number(total + delta)),
        (
            Total::Classic { bounds, counts, count, sum },
            Total::Classic { bounds: other_bounds, counts: more, count: more_count, sum: more_sum },
        ) if bounds == other_bounds && counts.len() == more.len() => Some(Total::Classic {
            bounds: bounds.clone(),
            counts: counts.iter().zip(more).map(|(count, more)| count.saturating_add(*more)).collect(),
            count: count.saturating_add(*more_count),
            sum: sum + more_sum,
        }),
        (Total::Native(total), Total::Native(delta)) => {
            native_sum(total, delta).map(Box::new).map(Total::Native)
        }
        _ => None,
    }
}

/// Two native histograms at the coarser resolution of both.
fn native_sum(total: &NativeHistogram, delta: &NativeHistogram) -> Option<NativeHistogram> {
    if total.zero_threshold.to_bits() != delta.zero_threshold.to_bits() {
        return None;
    }
    let schema = total.schema.min(delta.schema);
    let merged = |ours: &[(i32, f64)], theirs: &[(i32, f64)]| {
        let coarse =
            |buckets: &[(i32, f64)], by: i32| coarser(buckets, u32::try_from(by).unwrap_or_default());
        let mut all = coarse(ours, total.schema - schema);
        all.extend(coarse(theirs, delta.schema - schema));
        all.sort_by_key(|(index, _)| *index);
        join(all)
    };
    Some(NativeHistogram {
        schema,
        zero_threshold: total.zero_threshold,
        zero_count: total.zero_count + delta.zero_count,
        count: total.count + delta.count,
        sum: total.sum + delta.sum,
        positive: merged(&total.positive, &delta.positive),
        negative: merged(&total.negative, &delta.negative),
        ..NativeHistogram::default()
    })
}

/// Buckets at a resolution lower by so many steps. Bucket `i` ends at `base^i`.
pub(super) fn coarser(buckets: &[(i32, f64)], steps: u32) -> Vec<(i32, f64)> {
    let steps = steps.min(31);
    join(buckets.iter().map(|(index, count)| (((index - 1) >> steps) + 1, *count)).collect())
}

fn join(buckets: Vec<(i32, f64)>) -> Vec<(i32, f64)> {
    let mut joined: Vec<(i32, f64)> = Vec::with_capacity(buckets.len());
    for (index, count) in buckets {
        match joined.last_mut() {
            Some((last, sum)) if *last == index => *sum += count,
            _ => joined.push((index, count)),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(name: &str) -> SeriesLabels {
        [(Arc::from("__name__"), Arc::from(name))].into()
    }

    #[test]
    fn deltas_count_once_also_when_a_request_is_repeated() {
        let now = Instant::now();
        let mut deltas = Deltas::new(2, Duration::from_secs(60), now);
        let add = |deltas: &mut Deltas, name: &str, delta: f64, time: i64| {
            deltas.add(&labels(name), Total::Number(delta), (time - 10, time), now)
        };
        assert_eq!(add(&mut deltas, "a", 5.0, 100), Ok((Total::Number(5.0), 90)));
        deltas.roll_back();
        assert_eq!(add(&mut deltas, "a", 5.0, 100), Ok((Total::Number(5.0), 90)));
        deltas.commit(now);
        assert_eq!(add(&mut deltas, "a", 2.0, 110), Ok((Total::Number(7.0), 90)));
        deltas.roll_back();
        assert_eq!(add(&mut deltas, "a", 2.0, 110), Ok((Total::Number(7.0), 90)));
        assert!(add(&mut deltas, "a", 2.0, 110).is_err(), "the same once more");
        assert!(add(&mut deltas, "b", 1.0, 100).is_ok());
        assert!(add(&mut deltas, "c", 1.0, 100).is_err(), "there is no room");
        deltas.commit(now + Duration::from_secs(61));
        assert_eq!(deltas.len(), 0, "nothing was heard of them");
    }

    #[test]
    fn buckets_of_two_resolutions_meet_at_the_coarser() {
        assert_eq!(coarser(&[(1, 1.0), (2, 2.0), (3, 4.0)], 1), [(1, 3.0), (2, 4.0)]);
        assert_eq!(coarser(&[(-1, 1.0), (0, 2.0), (1, 4.0)], 1), [(0, 3.0), (1, 4.0)]);
        let native = |schema: i32, positive: Vec<(i32, f64)>| {
            Total::Native(Box::new(NativeHistogram { schema, positive, ..NativeHistogram::default() }))
        };
        let expected = native(0, vec![(1, 6.0), (2, 4.0)]);
        let one = native(1, vec![(1, 1.0), (2, 2.0), (3, 4.0)]);
        assert_eq!(sum(&one, &native(0, vec![(1, 3.0)])), Some(expected));
        assert_eq!(sum(&one, &Total::Number(1.0)), None);
    }
}
