//! Samples of series that others measured: what remote write, OTLP and scraping bring in, in one form.
//!
//! The registry's own samples ([`crate::Sample`]) are floats of one moment. These here carry their own times, native
//! histograms, exemplars, created times and metadata. Plain data: the doors make it, the log keeps it, the store takes it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Names and values of a series, sorted by name, `__name__` among them, without empty values.
pub type SeriesLabels = Arc<[(Arc<str>, Arc<str>)]>;

/// Points of many series, taken or logged together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SeriesBatch {
    /// The series with their points.
    pub series: Vec<SeriesPoints>,
    /// What is known about metrics.
    pub metadata: Vec<MetricMetadata>,
}

/// New points of one series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeriesPoints {
    /// Which series.
    pub labels: SeriesLabels,
    /// When what it counts began, in milliseconds since the Unix epoch.
    pub created_ms: Option<i64>,
    /// Times in milliseconds since the Unix epoch, and values.
    pub points: Vec<(i64, PointValue)>,
    /// Examples of what was measured.
    pub exemplars: Vec<Exemplar>,
}

/// A float or a native histogram.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PointValue {
    /// A float; the staleness marker is one.
    Float(f64),
    /// A native histogram.
    Histogram(Box<NativeHistogram>),
}

/// A native histogram as it came. Integer counts are whole numbers here, exact to 2^53.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NativeHistogram {
    /// Whether it is a gauge; else it is a counter, whose resets the store finds.
    pub is_gauge: bool,
    /// Resolution, from -4 to 8; -53 for custom bounds.
    pub schema: i32,
    /// Width of the zero bucket to either side.
    pub zero_threshold: f64,
    /// Observations in the zero bucket.
    pub zero_count: f64,
    /// All observations.
    pub count: f64,
    /// Their sum; the staleness marker when the series ended.
    pub sum: f64,
    /// Buckets above zero by rising index; all buckets, from 0, with custom bounds.
    pub positive: Vec<(i32, f64)>,
    /// Buckets below zero by rising index.
    pub negative: Vec<(i32, f64)>,
    /// Upper bounds, rising, without the infinite one; only with schema -53.
    pub custom_bounds: Vec<f64>,
}

/// One measured case, with a way to find out more about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exemplar {
    /// As `trace_id`.
    pub labels: Vec<(String, String)>,
    /// When, in milliseconds since the Unix epoch.
    pub unix_millis: i64,
    /// What was measured.
    pub value: f64,
}

/// What became of points that others measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Floats taken, those that were there already among them.
    pub floats: u64,
    /// Native histograms taken, those that were there already among them.
    pub histograms: u64,
    /// Exemplars taken.
    pub exemplars: u64,
    /// Of the floats and histograms, those that were there already: nothing is lost.
    pub repeated: u64,
    /// Points refused, by reason; these are the reasons of `series_samples_dropped_total`.
    pub refused: Vec<(&'static str, u64)>,
}

/// The reason of refusal that passes by itself: there is no memory left until the disk takes what is there.
pub const REFUSED_HEAD_FULL: &str = "head_full";

/// What a metric is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricMetadata {
    /// The family's name.
    pub name: String,
    /// `counter`, `gauge`, `histogram`, `gaugehistogram`, `summary`, `info`, `stateset` or `unknown`.
    pub kind: String,
    /// One sentence.
    pub help: String,
    /// As `seconds`; empty when there is none.
    pub unit: String,
}

impl SeriesBatch {
    /// Points in all series.
    #[must_use]
    pub fn points(&self) -> usize {
        self.series.iter().map(|series| series.points.len()).sum()
    }
}

impl Written {
    /// Counts points that were refused.
    pub fn refuse(&mut self, reason: &'static str, points: u64) {
        if points == 0 {
            return;
        }
        match self.refused.iter_mut().find(|(held, _)| *held == reason) {
            Some((_, count)) => *count += points,
            None => self.refused.push((reason, points)),
        }
    }

    /// Floats and histograms that were taken.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.floats + self.histograms
    }

    /// Points that were refused, for whatever reason.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        self.refused.iter().map(|(_, count)| count).sum()
    }

    /// Both together.
    pub fn add(&mut self, other: &Self) {
        self.floats += other.floats;
        self.histograms += other.histograms;
        self.exemplars += other.exemplars;
        self.repeated += other.repeated;
        for (reason, points) in &other.refused {
            self.refuse(reason, *points);
        }
    }
}
