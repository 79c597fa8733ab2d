//! Metric handles over `prometheus` families, typed by their labels.

use std::marker::PhantomData;

use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};

use crate::label::Labels;

/// Buckets for things that people wait for: 1 ms to 30 s.
pub const SECONDS: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Buckets for things inside the house: 10 µs to 1 s.
pub const SECONDS_FAST: &[f64] =
    &[0.000_01, 0.000_05, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];

/// A family of counters.
#[derive(Clone, Debug)]
pub struct Counter<L> {
    family: IntCounterVec,
    labels: PhantomData<fn(L)>,
}

/// One counter of a family, resolved once for use on a hot path.
#[derive(Clone, Debug)]
pub struct CounterHandle(prometheus::IntCounter);

/// A family of gauges.
#[derive(Clone, Debug)]
pub struct Gauge<L> {
    family: IntGaugeVec,
    labels: PhantomData<fn(L)>,
}

/// Holds a gauge one higher until it is dropped.
#[derive(Debug)]
#[must_use = "the gauge falls again as soon as the guard is dropped"]
pub struct GaugeGuard(prometheus::IntGauge);

/// A family of histograms.
#[derive(Clone, Debug)]
pub struct Histogram<L> {
    family: HistogramVec,
    labels: PhantomData<fn(L)>,
}

/// One histogram of a family, resolved once for use on a hot path.
#[derive(Clone, Debug)]
pub struct HistogramHandle(prometheus::Histogram);

impl<L: Labels> Counter<L> {
    pub(crate) fn new(family: IntCounterVec) -> Self {
        Self { family, labels: PhantomData }
    }

    /// Adds one.
    #[expect(clippy::needless_pass_by_value, reason = "labels are small and built at the call")]
    pub fn inc(&self, labels: L) {
        labels.with_texts(|texts| self.family.with_label_values(texts).inc());
    }

    /// Adds `n`.
    #[expect(clippy::needless_pass_by_value, reason = "labels are small and built at the call")]
    pub fn add(&self, labels: L, n: u64) {
        labels.with_texts(|texts| self.family.with_label_values(texts).inc_by(n));
    }

    /// Resolves one counter.
    #[expect(clippy::needless_pass_by_value, reason = "labels are small and built at the call")]
    pub fn handle(&self, labels: L) -> CounterHandle {
        CounterHandle(labels.with_texts(|texts| self.family.with_label_values(texts)))
    }

    /// What one counter stands at.
    #[expect(clippy::needless_pass_by_value, reason = "labels are small and built at the call")]
    pub fn value(&self, labels: L) -> u64 {
        labels.with_texts(|texts| self.family.with_label_values(texts).get())
    }
}

impl CounterHandle {
    /// Adds one.
    pub fn inc(&self) {
        self.0.inc();
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.inc_by(n);
    }

    /// What it stands at.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.get()
    }
}

impl<L: Labels> Gauge<L> {
    pub(crate) fn new(family: IntGaugeVec) -> Self {
        Self { family, labels: PhantomData }
    }

    /// Sets the gauge.
    #[expect(clippy::needless_pass_by_value, reason = "labels are small and built at the call")]
    pub fn set(&self, labels: L, value: i64) {
        labels.with_texts(|texts| self.family.with_label_values(texts).set(value));
    }

    /// Moves the gauge by `delta`.
    #[expect(clippy::needless_pass_by_value, reason = "labels are small and built at the call")]
    pub fn add(&self, labels: L, delta: i64) {
        labels.with_texts(|texts| self.family.with_label_values(texts).add(delta));
    }

    /// Counts one until the guard is dropped.
    #[expect(clippy::needless_pass_by_value, reason = "labels are small and built at the call")]
    pub fn guard(&self, labels: L) -> GaugeGuard {
        let gauge = labels.with_texts(|texts| self.family.with_label_values(texts));
        gauge.inc();
        GaugeGuard(gauge)
    }

    /// What the gauge stands at.
    #[expect(clippy::needless_pass_by_value, reason = "labels are small and built at the call")]
    pub fn value(&self, labels: L) -> i64 {
        labels.with_texts(|texts| self.family.with_label_values(texts).get())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl<L: Labels> Histogram<L> {
    pub(crate) fn new(family: HistogramVec) -> Self {
        Self { family, labels: PhantomData }
    }

    /// Records one value, in the family's unit.
    #[expect(clippy::needless_pass_by_value, reason = "labels are small and built at the call")]
    pub fn observe(&self, labels: L, value: f64) {
        labels.with_texts(|texts| self.family.with_label_values(texts).observe(value));
    }

    /// Resolves one histogram.
    #[expect(clippy::needless_pass_by_value, reason = "labels are small and built at the call")]
    pub fn handle(&self, labels: L) -> HistogramHandle {
        HistogramHandle(labels.with_texts(|texts| self.family.with_label_values(texts)))
    }
}

impl HistogramHandle {
    /// Records one value, in the family's unit.
    pub fn observe(&self, value: f64) {
        self.0.observe(value);
    }
}
