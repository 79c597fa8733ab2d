//! What came of it.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::{Arguments, Failure};

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
    /// By the second in which the work was due; empty unless they are asked for.
    seconds: Vec<Second>,
    patience: Duration,
}

/// What was due in one second.
#[derive(Clone, Default)]
struct Second {
    due: u32,
    done: u32,
    micros: Vec<u64>,
}

impl Report {
    pub(crate) fn new(arguments: &Arguments) -> Result<Self, Failure> {
        let histogram = || Histogram::new_with_bounds(1, MICROS_MAX, 3);
        Ok(Self {
            latency: histogram()?,
            lateness: histogram()?,
            done: 0,
            failed: 0,
            repeated: 0,
            first_failure: None,
            elapsed: Duration::ZERO,
            seconds: seconds_of(arguments),
            patience: arguments.patience(),
        })
    }

    /// A piece of work was done, so long after it was due.
    pub(crate) fn done(&mut self, due: Duration, after: Duration) {
        self.done += 1;
        self.latency.saturating_record(micros(after));
        let second = usize::try_from(due.as_secs()).unwrap_or(usize::MAX);
        if after <= self.patience
            && let Some(second) = self.seconds.get_mut(second)
        {
            second.done += 1;
            second.micros.push(micros(after));
        }
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
            "by_second": self.seconds.iter().map(Second::json).collect::<Vec<_>>(),
        })
        .to_string()
    }
}

impl Second {
    fn json(&self) -> serde_json::Value {
        let mut micros = self.micros.clone();
        micros.sort_unstable();
        let at =
            |part: f64| micros.get((micros.len() as f64 * part) as usize).map(|micros| *micros as f64 / 1e3);
        serde_json::json!({"due": self.due, "done": self.done, "p50": at(0.5), "p99": at(0.99)})
    }
}

fn seconds_of(arguments: &Arguments) -> Vec<Second> {
    let mut seconds = Vec::new();
    for number in (0..arguments.count).take_while(|_| arguments.by_second) {
        let second = usize::try_from(arguments.due(number).as_secs()).unwrap_or(usize::MAX);
        seconds.resize(second + 1, Second::default());
        seconds[second].due += 1;
    }
    seconds
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(MICROS_MAX).max(1)
}
