//! The points of one series from several places, as one.

use std::sync::Arc;

use belfry_promql::{CounterReset, Histogram, STRETCH_POINTS, Stretch, is_stale, stale_marker};

use crate::chunk::{HistogramPoint, Point, Points};
use crate::level::Resolution;
use crate::stretch;

/// Points of one series, gathered from chunks that mostly follow each other in time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Gathered {
    pub(crate) floats: Vec<Point>,
    pub(crate) histograms: Vec<HistogramPoint>,
    /// Of downsampled series.
    pub(crate) stretches: Vec<Stretch>,
}

impl Gathered {
    pub(crate) fn len(&self) -> usize {
        self.floats.len() + self.histograms.len() + self.stretches.len()
    }

    /// What it counts for where points are bounded.
    pub(crate) fn cost(&self) -> usize {
        self.floats.len() + self.histograms.len() + self.stretches.len() * STRETCH_POINTS
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
            Points::Stretches(stretches) => {
                self.stretches.extend(stretches.into_iter().filter(|held| range.contains(&held.end_ms)));
            }
        }
    }

    /// Adds what another place gathered.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.floats.append(&mut other.floats);
        self.histograms.append(&mut other.histograms);
        self.stretches.append(&mut other.stretches);
    }

    /// Without the points of a time, and without stretches of this resolution that touch it.
    pub(crate) fn remove(&mut self, from_ms: i64, to_ms: i64, resolution: Resolution) {
        let range = from_ms..=to_ms;
        let stretch_ms = resolution.millis();
        self.stretches
            .retain(|held| held.end_ms < from_ms || held.end_ms.saturating_sub(stretch_ms) >= to_ms);
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
        if !self.stretches.is_sorted_by(|a, b| a.end_ms < b.end_ms) {
            self.stretches.sort_by_key(|held| held.end_ms);
            self.stretches.dedup_by_key(|held| held.end_ms);
        }
        if !self.floats.is_empty() && !self.histograms.is_empty() {
            let (histograms, floats) = (&self.histograms, &mut self.floats);
            floats.retain(|(time, _)| histograms.binary_search_by_key(time, |(held, _)| *held).is_err());
        }
    }
}

impl Gathered {
    /// Raw points in order of time as stretches; histograms thinned.
    pub(crate) fn downsample(&mut self, resolution: Resolution) {
        let floats = std::mem::take(&mut self.floats);
        self.stretches = stretch::of_floats(&floats, &self.histograms, resolution.millis());
        self.histograms = stretch::thinned(&self.histograms, resolution.millis());
    }

    /// Stretches as those of their samples that they still know, from the first time to the second.
    pub(crate) fn unfold(&mut self, (from_ms, to_ms): (i64, i64)) {
        for held in std::mem::take(&mut self.stretches) {
            if held.count > 0 {
                self.floats.push(held.first);
            }
            if held.count > 1 {
                self.floats.push(held.last);
            }
            if held.is_ended {
                self.floats.push((held.end_ms, stale_marker()));
            }
        }
        self.keep((from_ms.saturating_sub(1), to_ms));
    }

    /// Stretches in order of time as longer ones; histograms thinned further.
    pub(crate) fn coarsen(&mut self, resolution: Resolution) {
        self.stretches = stretch::coarser(std::mem::take(&mut self.stretches), resolution.millis());
        self.histograms = stretch::thinned(&self.histograms, resolution.millis());
    }

    /// Takes away what lies after the first time, up to and with the second.
    pub(crate) fn without(&mut self, (after_ms, until_ms): (i64, i64)) {
        let is_outside = |time: i64| time <= after_ms || time > until_ms;
        self.floats.retain(|(time, _)| is_outside(*time));
        self.histograms.retain(|(time, _)| is_outside(*time));
        self.stretches.retain(|held| is_outside(held.end_ms));
    }

    /// Leaves what lies after the first time, up to and with the second.
    pub(crate) fn keep(&mut self, (after_ms, until_ms): (i64, i64)) {
        let is_inside = |time: i64| time > after_ms && time <= until_ms;
        self.floats.retain(|(time, _)| is_inside(*time));
        self.histograms.retain(|(time, _)| is_inside(*time));
        self.stretches.retain(|held| is_inside(held.end_ms));
    }
}

fn forget_hint(histogram: &mut Arc<Histogram>) {
    let says_something = matches!(histogram.hint, CounterReset::NotReset | CounterReset::Reset);
    if says_something && !is_stale(histogram.sum) {
        Arc::make_mut(histogram).hint = CounterReset::Unknown;
    }
}
