//! Everything that the engine tells about itself.

use std::borrow::Cow;
use std::time::Duration;

use belfry_notify::AlertName;
use belfry_signal::{Counter, Emitter, Gauge, Histogram, Region, Registry, SECONDS_FAST, Severity, Value};

use crate::error::Error;
use crate::pages::Record;
use crate::status::SloStatus;

belfry_signal::label_name! {
    /// An SLO's name from the rules.
    pub(crate) struct SloName("slo", max = 64)
}

const COMPONENT: &str = "alerts";
const NANOS: u64 = 1_000_000_000;

/// The crate's families and its voice.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    emitter: Emitter,
    evaluations: Counter<()>,
    evaluation_seconds: Histogram<()>,
    watchdog: Gauge<()>,
    triggered: Counter<(AlertName,)>,
    resolved: Counter<(AlertName,)>,
    open: Gauge<()>,
    undelivered: Gauge<()>,
    budget: Gauge<(SloName, Region)>,
    store_failures: Counter<()>,
    changes_dropped: Counter<()>,
}

impl Signals {
    pub(crate) fn register(registry: &Registry) -> Self {
        let component = registry.component(COMPONENT);
        Self {
            emitter: component.emitter(),
            evaluations: component.counter("evaluations_total", "Times that all SLOs were judged."),
            evaluation_seconds: component.histogram(
                "evaluation_seconds",
                "Time to judge all SLOs.",
                SECONDS_FAST,
            ),
            watchdog: component.gauge("watchdog_timestamp_seconds", "When all SLOs were last judged."),
            triggered: component.counter("pages_triggered_total", "Pages opened."),
            resolved: component.counter("pages_resolved_total", "Pages that ended."),
            open: component.gauge("pages_open", "Pages that go on."),
            undelivered: component
                .gauge("pages_undelivered", "Messages of pages that the outbox has not taken yet."),
            budget: component
                .gauge("budget_remaining_ppm", "What is left of an SLO's budget; below 0 is overdrawn."),
            store_failures: component
                .counter("store_failures_total", "Failures to write pages or counts down."),
            changes_dropped: component
                .counter("changes_dropped_total", "Changes not recorded because the engine was busy."),
        }
    }

    /// The engine began with what was left from before.
    pub(crate) fn started(&self, slos: usize, pages_open: usize, unreadable: usize) {
        let attributes = vec![
            (Cow::Borrowed("slos"), Value::from(slos as u64)),
            (Cow::Borrowed("pages_open"), Value::from(pages_open as u64)),
        ];
        self.emitter.log(COMPONENT, Severity::Info, "alert engine started", attributes, None, None);
        if unreadable > 0 {
            let attributes = vec![(Cow::Borrowed("pages"), Value::from(unreadable as u64))];
            self.emitter.log(
                COMPONENT,
                Severity::Error,
                "pages of another version cannot be read, resolve them by hand",
                attributes,
                None,
                None,
            );
        }
    }

    /// Every SLO was judged. This is the Watchdog: when it stands still, nobody judges.
    pub(crate) fn evaluated(&self, now: u64, took: Duration, slos: &[SloStatus]) {
        self.evaluations.inc(());
        self.evaluation_seconds.observe((), took.as_secs_f64());
        self.watchdog.set((), i64::try_from(now / NANOS).unwrap_or(i64::MAX));
        for slo in slos {
            // A name from the rules is always plain; one that is not has no gauge.
            if let Ok(name) = SloName::configured(&slo.name) {
                self.budget.set((name, slo.region.clone()), ppm(slo.budget_remaining_ratio));
            }
        }
    }

    /// A page was opened.
    pub(crate) fn page_triggered(&self, record: &Record) {
        self.triggered.inc((record.alert,));
        self.emitter.log(COMPONENT, Severity::Warn, "page triggered", about(record), None, None);
    }

    /// A page ended.
    pub(crate) fn page_resolved(&self, record: &Record) {
        self.resolved.inc((record.alert,));
        self.emitter.log(COMPONENT, Severity::Info, "page resolved", about(record), None, None);
    }

    /// So many pages go on, and so many messages about them wait for room in the outbox.
    pub(crate) fn pages_moved(&self, open: usize, undelivered: usize) {
        self.open.set((), i64::try_from(open).unwrap_or(i64::MAX));
        self.undelivered.set((), i64::try_from(undelivered).unwrap_or(i64::MAX));
    }

    /// The outbox did not take a message; it is offered again each second.
    pub(crate) fn delivery_was_refused(&self, reason: &'static str) {
        let attributes = vec![(Cow::Borrowed("reason"), reason.into())];
        self.emitter.log(
            COMPONENT,
            Severity::Error,
            "outbox did not take page, will offer it again",
            attributes,
            None,
            None,
        );
    }

    /// Pages or counts could not be written down; it is tried again.
    pub(crate) fn store_failed(&self, error: &Error) {
        self.store_failures.inc(());
        let attributes = vec![(Cow::Borrowed("reason"), error.reason().into())];
        self.emitter.log(COMPONENT, Severity::Error, "alert store could not be used", attributes, None, None);
    }

    /// A change could not be recorded.
    pub(crate) fn change_dropped(&self) {
        self.changes_dropped.inc(());
    }
}

fn about(record: &Record) -> Vec<(Cow<'static, str>, Value)> {
    vec![
        (Cow::Borrowed("alert"), record.alert.as_str().into()),
        (Cow::Borrowed("journey"), record.journey.as_str().into()),
        (Cow::Borrowed("geo.region"), Value::from(&record.lead)),
        (Cow::Borrowed("room"), record.evidence.room.as_str().into()),
        (Cow::Borrowed("page"), Value::Text(Cow::Owned(record.id.to_string()))),
    ]
}

/// A ratio in parts per million, as far as an integer goes.
#[expect(clippy::cast_possible_truncation, reason = "a float that is too large becomes the largest integer")]
pub(crate) fn ppm(ratio: f64) -> i64 {
    (ratio * 1_000_000.0).round() as i64
}
