//! Points that wait to be sent, and up to which position of the log everything was.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use belfry_signal::{PointValue, SeriesBatch, SeriesPoints};
use tokio::sync::Notify;

use crate::metrics::signals::SendSignals;

/// An entry of the log, as it is sent.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) position: u64,
    pub(super) batch: SeriesBatch,
}

/// The queue between the pipeline's thread and the requests.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    news: Notify,
    bytes_max: usize,
    signals: SendSignals,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Taken>,
    bytes: usize,
    points: usize,
    /// Entries that were handed out and are not done, with their bytes.
    out: BTreeMap<u64, usize>,
    /// The last position that was put in.
    last: u64,
    /// Everything up to here is done.
    done: u64,
}

/// Bytes of a batch in memory, about.
fn weight(batch: &SeriesBatch) -> usize {
    let of_point = |value: &PointValue| match value {
        PointValue::Float(_) => 24,
        PointValue::Histogram(held) => {
            128 + 12 * (held.positive.len() + held.negative.len() + held.custom_bounds.len())
        }
    };
    let of_series = |series: &SeriesPoints| {
        let points: usize = series.points.iter().map(|(_, value)| of_point(value)).sum();
        96 + 32 * series.labels.len() + points + 160 * series.exemplars.len()
    };
    64 + batch.series.iter().map(of_series).sum::<usize>() + 200 * batch.metadata.len()
}

impl Queue {
    /// A queue whose entries up to `done` were sent before.
    pub(super) fn new(done: u64, bytes_max: usize, signals: SendSignals) -> Self {
        let state = State { done, last: done, ..State::default() };
        Self { state: Mutex::new(state), news: Notify::new(), bytes_max, signals }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether another batch of entries may come.
    pub(super) fn has_room(&self) -> bool {
        self.state().bytes < self.bytes_max
    }

    /// Takes an entry; positions rise.
    pub(super) fn put(&self, taken: Taken) {
        let mut state = self.state();
        state.last = state.last.max(taken.position);
        if taken.batch.points() == 0 && taken.batch.metadata.is_empty() {
            state.settle();
            return;
        }
        state.bytes += weight(&taken.batch);
        state.points += taken.batch.points();
        state.waiting.push_back(taken);
        self.signals.waiting(state.bytes);
        drop(state);
        self.news.notify_one();
    }

    /// Points that wait.
    pub(super) fn points(&self) -> usize {
        self.state().points
    }

    /// Entries from the front with about so many points, at least one entry when there is any.
    pub(super) fn take(&self, points_max: usize) -> Vec<Taken> {
        let mut state = self.state();
        let mut taken = Vec::new();
        let mut points = 0;
        while let Some(next) = state.waiting.front() {
            let more = next.batch.points();
            if !taken.is_empty() && points + more > points_max {
                break;
            }
            points += more;
            let Some(next) = state.waiting.pop_front() else { break };
            state.points = state.points.saturating_sub(more);
            let bytes = weight(&next.batch);
            state.out.insert(next.position, bytes);
            taken.push(next);
        }
        taken
    }

    /// Entries that were taken are done with: sent, or refused for good.
    pub(super) fn finish(&self, positions: &[u64]) {
        let mut state = self.state();
        for position in positions {
            if let Some(bytes) = state.out.remove(position) {
                state.bytes = state.bytes.saturating_sub(bytes);
            }
        }
        state.settle();
        self.signals.waiting(state.bytes);
    }

    /// Everything up to this position is done.
    pub(super) fn done(&self) -> u64 {
        self.state().done
    }

    /// Returns when something came.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }
}

impl State {
    fn settle(&mut self) {
        let out = self.out.keys().next().copied();
        let waiting = self.waiting.front().map(|taken| taken.position);
        let first = out.into_iter().chain(waiting).min();
        self.done = first.map_or(self.last, |first| first - 1).max(self.done);
    }
}

#[cfg(test)]
mod tests {
    use belfry_signal::{Registry, Resource};

    use super::*;
    use crate::metrics::collect::float;

    fn entry(position: u64, points: usize) -> Taken {
        let labels = [("__name__".into(), "m".into())];
        let series = (0..points).map(|_| float(labels.clone().into(), 1, 1.0)).collect();
        Taken { position, batch: SeriesBatch { series, metadata: Vec::new() } }
    }

    #[test]
    fn the_position_moves_only_over_what_is_done() {
        let resource = Resource {
            node: "n".to_owned(),
            site: "s".to_owned(),
            region: belfry_signal::Region::configured("eu").expect("a region"),
            version: String::new(),
        };
        let (registry, _records) = Registry::new(resource, 1);
        let queue = Queue::new(7, 100, SendSignals::register(&registry));
        assert!(queue.has_room());
        for (position, points) in [(8, 2), (9, 0), (10, 3), (12, 4), (13, 0)] {
            queue.put(entry(position, points));
        }
        assert_eq!((queue.done(), queue.points(), queue.has_room()), (7, 9, false));
        let first = queue.take(5);
        assert_eq!(first.iter().map(|taken| taken.position).collect::<Vec<_>>(), [8, 10]);
        queue.finish(&[10]);
        assert_eq!(queue.done(), 7, "8 is still out");
        queue.finish(&[8]);
        assert_eq!(queue.done(), 11, "12 still waits");
        assert_eq!(queue.take(1).len(), 1, "one entry comes whatever its size");
        queue.finish(&[12]);
        assert_eq!((queue.done(), queue.has_room(), queue.points()), (13, true, 0));
    }
}
