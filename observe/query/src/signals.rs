//! Everything that the read APIs tell about themselves, and what they know of calls over time.

use std::time::Duration;

use belfry_signal::{Counter, Emitter, Histogram, Pii, Registry, SECONDS, Severity, Value};

use crate::curves::Curve;

const COMPONENT: &str = "query";

belfry_signal::label_enum! {
    /// What became of a query.
    pub(crate) enum Outcome("outcome") {
        Answered = "answered",
        /// It makes no sense, or has no defined result.
        Refused = "refused",
        /// It asked for more than one query may.
        TooMuch = "too_much",
        TimedOut = "timed_out",
        /// Nobody waited for it any more.
        Left = "left",
        /// A store failed.
        Failed = "failed",
    }
}

/// A query that ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended<'a> {
    pub(crate) text: &'a str,
    pub(crate) outcome: Outcome,
    pub(crate) took: Duration,
    /// Read and computed.
    pub(crate) samples: usize,
    /// From its first to its last time.
    pub(crate) span: Duration,
}

/// The families of the read APIs and their voice.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    emitter: Emitter,
    queries: Counter<(Outcome,)>,
    seconds: Histogram<()>,
    samples: Counter<()>,
    slow: Counter<()>,
    curves: Counter<()>,
    busy: Counter<()>,
}

impl Signals {
    pub(crate) fn register(registry: &Registry) -> Self {
        let component = registry.component(COMPONENT);
        let of_calls = registry.component("rtp");
        for curve in Curve::ALL {
            of_calls.curve(curve.name(), curve.help());
        }
        Self {
            emitter: component.emitter(),
            queries: component.counter("promql_total", "Queries in PromQL that ended."),
            seconds: component.histogram(
                "promql_seconds",
                "Time of a query in PromQL, waiting and all.",
                SECONDS,
            ),
            samples: component.counter(
                "promql_samples_total",
                "Samples that queries in PromQL read and values they computed.",
            ),
            slow: component.counter("slow_total", "Queries that took as long as slow_after, or longer."),
            curves: component
                .counter("calls_read_total", "Calls whose curves were read by a query in PromQL."),
            busy: component
                .counter("busy_total", "Questions that were not answered because questions_max others were."),
        }
    }

    /// A query ended; `is_slow` leaves a line in the log. Its text may name a call, so it is private.
    pub(crate) fn ended(&self, ended: &Ended<'_>, is_slow: bool, text_bytes_max: usize) {
        self.queries.inc((ended.outcome,));
        self.seconds.observe((), ended.took.as_secs_f64());
        self.samples.add((), ended.samples as u64);
        if !is_slow {
            return;
        }
        self.slow.inc(());
        let text = &ended.text[..ended.text.floor_char_boundary(text_bytes_max)];
        let attributes = vec![
            ("query.text".into(), Pii::new(text.to_owned()).into()),
            ("query.text_bytes".into(), Value::from(ended.text.len() as u64)),
            ("query.outcome".into(), ended.outcome.as_str().into()),
            ("query.seconds".into(), ended.took.as_secs_f64().into()),
            ("query.samples".into(), Value::from(ended.samples as u64)),
            ("query.range_seconds".into(), ended.span.as_secs_f64().into()),
        ];
        self.emitter.log(COMPONENT, Severity::Warn, "slow query", attributes, None, None);
    }

    /// A query read what is known of so many calls.
    pub(crate) fn calls_read(&self, calls: usize) {
        self.curves.add((), calls as u64);
    }

    /// A question was sent away because too many others were being answered.
    pub(crate) fn busy(&self) {
        self.busy.inc(());
    }
}
