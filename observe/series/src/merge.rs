//! The points of one series from several places, as one.

use std::sync::Arc;

use belfry_promql::{CounterReset, Histogram, is_stale};

use crate::chunk::{HistogramPoint, Point, Points};

/// Points of one series, gathered from chunks that mostly follow each other in time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Gathered {
    pub(crate) floats: Vec<Point>,
    pub(crate) histograms: Vec<HistogramPoint>,
}

impl Gathered {
    pub(crate) fn len(&self) -> usize {
        self.floats.len() + self.histograms.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds the points of a chunk that lie in a time.
    pub(crate) fn add(&mut self, points: Points, from_ms: i64, to_ms: i64) {
        let range = from_ms..=to_ms;
        match points {
            Points::Floats(points) => {
                self.floats.extend(points.into_iter().filter(|(time, _)| range.contains(time)));
            }
            Points::Histograms(points) => {
                self.histograms.extend(points.into_iter().filter(|(time, _)| range.contains(time)));
            }
        }
    }

    /// Adds what another place gathered.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.floats.append(&mut other.floats);
        self.histograms.append(&mut other.histograms);
    }

    /// Without the points of a time.
    pub(crate) fn remove(&mut self, from_ms: i64, to_ms: i64) {
        let range = from_ms..=to_ms;
        self.floats.retain(|(time, _)| !range.contains(time));
        self.histograms.retain(|(time, _)| !range.contains(time));
    }

    /// Brings the points in the order of time, each time once: of several the one that was added first.
    /// Where histograms of different places are mixed, what each said about a reset before it holds no more.
    pub(crate) fn put_in_order(&mut self) {
        if !self.floats.is_sorted_by(|a, b| a.0 < b.0) {
            self.floats.sort_by_key(|(time, _)| *time);
            self.floats.dedup_by_key(|(time, _)| *time);
        }
        if !self.histograms.is_sorted_by(|a, b| a.0 < b.0) {
            self.histograms.sort_by_key(|(time, _)| *time);
            self.histograms.dedup_by_key(|(time, _)| *time);
            self.histograms.iter_mut().for_each(|(_, histogram)| forget_hint(histogram));
        }
        if !self.floats.is_empty() && !self.histograms.is_empty() {
            let (histograms, floats) = (&self.histograms, &mut self.floats);
            floats.retain(|(time, _)| histograms.binary_search_by_key(time, |(held, _)| *held).is_err());
        }
    }
}

fn forget_hint(histogram: &mut Arc<Histogram>) {
    let says_something = matches!(histogram.hint, CounterReset::NotReset | CounterReset::Reset);
    if says_something && !is_stale(histogram.sum) {
        Arc::make_mut(histogram).hint = CounterReset::Unknown;
    }
}
