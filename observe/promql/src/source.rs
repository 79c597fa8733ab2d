//! What the engine reads: series of floats and histograms behind one trait.

use std::sync::Arc;

use crate::error::Error;
use crate::histogram::Histogram;
use crate::labels::Labels;
use crate::matcher::Matcher;

/// The bits of the NaN that says "this series ended here".
pub const STALE_NAN_BITS: u64 = 0x7ff0_0000_0000_0002;

/// Whether a value is the staleness marker.
pub fn is_stale(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// The staleness marker.
pub fn stale_marker() -> f64 {
    f64::from_bits(STALE_NAN_BITS)
}

/// One sample value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A float.
    Float(f64),
    /// A native histogram.
    Histogram(Arc<Histogram>),
}

/// A series with its points. Both lists are sorted by time (Unix milliseconds) without duplicates, and no time
/// is in both.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SeriesData {
    /// All labels, `__name__` among them.
    pub labels: Labels,
    /// Float points. Staleness markers are among them.
    pub floats: Vec<(i64, f64)>,
    /// Native histogram points.
    pub histograms: Vec<(i64, Arc<Histogram>)>,
}

/// The samples of one series in one stretch of time, summed up: what is left of them when they are downsampled. A stretch
/// begins after a multiple of its resolution and ends with the next one, as PromQL's windows do. Staleness markers are
/// not among the samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stretch {
    /// The end, which is part of it, in Unix milliseconds.
    pub end_ms: i64,
    /// How many samples; none when there is nothing but the end of the series.
    pub count: u32,
    /// The first sample: time and value.
    pub first: (i64, f64),
    /// The last sample.
    pub last: (i64, f64),
    /// The smallest value; NaN only if there is nothing else.
    pub min: f64,
    /// The largest value; NaN only if there is nothing else.
    pub max: f64,
    /// The sum of the values.
    pub sum: f64,
    /// What a counter lost in resets inside: the values before them, added up.
    pub lost: f64,
    /// Whether a staleness marker follows the last sample.
    pub is_ended: bool,
}

/// A stretch takes the memory of so many samples, and counts as so many.
pub const STRETCH_POINTS: usize = 6;

/// A downsampled series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StretchedSeries {
    /// All labels.
    pub labels: Labels,
    /// Of floats, by time.
    pub stretches: Vec<Stretch>,
    /// Floats after the stretches, where the answer goes on in samples; staleness markers are among them.
    pub samples: Vec<(i64, f64)>,
    /// Native histograms are not summed up but thinned: of each stretch the first and the last, and those around resets.
    pub histograms: Vec<(i64, Arc<Histogram>)>,
}

impl StretchedSeries {
    /// What it counts for where samples are bounded.
    #[must_use]
    pub fn points(&self) -> usize {
        self.stretches.len() * STRETCH_POINTS + self.samples.len() + self.histograms.len()
    }
}

/// What a selector is read for, so that a store can choose how finely to answer. Times are those that the selector is
/// evaluated for, `offset` and `@` taken into account, in Unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purpose {
    /// Whether the query is one over a range of time. Queries at one time want raw samples.
    pub is_range_query: bool,
    /// First time.
    pub start_ms: i64,
    /// Distance between times; zero when there is one time.
    pub step_ms: i64,
    /// How far each window reaches back; zero for an instant selector.
    pub range_ms: i64,
    /// What is computed from windows.
    pub of_window: OfWindow,
}

/// What is computed from each window, as far as it matters for how finely samples must be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfWindow {
    /// The latest sample: instant selectors.
    Latest,
    /// `rate`, `increase`, `delta`.
    Change,
    /// `min_over_time`, `max_over_time`.
    Least,
    /// See [`Self::Least`].
    Largest,
    /// `sum_over_time`.
    Sum,
    /// `count_over_time`.
    Count,
    /// `avg_over_time`.
    Mean,
    /// `first_over_time`, `last_over_time` and whether there is anything.
    Edge,
    /// Anything else: it needs every sample.
    Samples,
}

impl OfWindow {
    /// What a function of a range vector needs.
    #[must_use]
    pub fn of_function(name: &str) -> Self {
        match name {
            "rate" | "increase" | "delta" => Self::Change,
            "min_over_time" => Self::Least,
            "max_over_time" => Self::Largest,
            "sum_over_time" => Self::Sum,
            "count_over_time" => Self::Count,
            "avg_over_time" => Self::Mean,
            "first_over_time" | "last_over_time" | "present_over_time" | "absent_over_time" => Self::Edge,
            _ => Self::Samples,
        }
    }
}

/// What a store answers a selector with.
#[derive(Clone, Debug)]
pub enum Selected {
    /// Raw samples.
    Samples(Vec<SeriesData>),
    /// Downsampled ones, all of one resolution. The engine moves the borders of windows that lie inside a stretch back to
    /// its beginning.
    Stretches {
        /// Length of a stretch.
        resolution_ms: i64,
        /// The end of the last stretch: what comes after it are samples, and borders of windows stay where they are.
        until_ms: i64,
        /// The series.
        series: Vec<StretchedSeries>,
    },
}

/// Where series come from.
pub trait Series {
    /// Every series that passes all matchers, with its points in `from_ms..=to_ms`. A series without a point
    /// in there may be left out.
    ///
    /// # Errors
    /// `Error::Source` if the store cannot answer.
    fn select(&self, matchers: &[Matcher], from_ms: i64, to_ms: i64) -> Result<Vec<SeriesData>, Error>;

    /// As [`select`](Self::select), for a store that has downsampled series too and may answer with these where
    /// they serve the purpose.
    ///
    /// # Errors
    /// As with [`select`](Self::select).
    fn select_for(
        &self,
        matchers: &[Matcher],
        from_ms: i64,
        to_ms: i64,
        _purpose: &Purpose,
    ) -> Result<Selected, Error> {
        self.select(matchers, from_ms, to_ms).map(Selected::Samples)
    }

    /// What was missing in the answers so far, as warnings of the query.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}
