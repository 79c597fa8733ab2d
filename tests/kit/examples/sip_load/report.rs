//! What came of it.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::Failure;

/// Longer than anything that is waited for, in microseconds.
const MICROS_MAX: u64 = 600_000_000;

pub(crate) struct Report {
    latency: Histogram<u64>,
    /// How far behind its own plan the generator was: when this is large, its processor was the limit.
    lateness: Histogram<u64>,
    pub(crate) done: u32,
    pub(crate) failed: u32,
    pub(crate) repeated: u32,
    /// The first thing that went wrong.
    pub(crate) first_failure: Option<String>,
    pub(crate) elapsed: Duration,
}

impl Report {
    pub(crate) fn new() -> Result<Self, Failure> {
        let histogram = || Histogram::new_with_bounds(1, MICROS_MAX, 3);
        Ok(Self {
            latency: histogram()?,
            lateness: histogram()?,
            done: 0,
            failed: 0,
            repeated: 0,
            first_failure: None,
            elapsed: Duration::ZERO,
        })
    }

    /// A piece of work was done, so long after it was due.
    pub(crate) fn done(&mut self, after: Duration) {
        self.done += 1;
        self.latency.saturating_record(micros(after));
    }

    pub(crate) fn failed(&mut self, why: impl FnOnce() -> String) {
        self.failed += 1;
        self.first_failure.get_or_insert_with(why);
    }

    /// A piece of work was begun, so long after it was due.
    pub(crate) fn begun(&mut self, late: Duration) {
        self.lateness.saturating_record(micros(late));
    }

    pub(crate) fn json(&self) -> String {
        let milliseconds = |histogram: &Histogram<u64>, quantile| {
            serde_json::json!(
                Duration::from_micros(histogram.value_at_quantile(quantile)).as_secs_f64() * 1e3
            )
        };
        serde_json::json!({
            "done": self.done,
            "failed": self.failed,
            "repeated": self.repeated,
            "first_failure": self.first_failure,
            "seconds": self.elapsed.as_secs_f64(),
            "latency_ms": {
                "p50": milliseconds(&self.latency, 0.5),
                "p99": milliseconds(&self.latency, 0.99),
                "p999": milliseconds(&self.latency, 0.999),
                "max": milliseconds(&self.latency, 1.0),
            },
            "late_ms_p99": milliseconds(&self.lateness, 0.99),
        })
        .to_string()
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(MICROS_MAX).max(1)
}
