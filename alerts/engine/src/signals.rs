//! Everything that the engine tells about itself.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use belfry_notify::{AlertName, SloName};
use belfry_signal::{Counter, Emitter, Gauge, Histogram, Registry, SECONDS_FAST, Severity, Value};

use belfry_dispatch::Taken;

use crate::desk::Change;
use crate::error::Error;
use crate::pages::Record;
use crate::status::SloStatus;

belfry_signal::label_enum! {
    /// What was not taken because a bound was reached.
    pub(crate) enum Refused("what") { Alert = "alert", Group = "group" }
}

belfry_signal::label_name! {
    /// Where an SLO is judged: a region, or a group of its own.
    pub(crate) struct Place("region", max = 320)
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
    budget: Gauge<(SloName, Place)>,
    blind: Gauge<(SloName,)>,
    groups_beyond: Gauge<(SloName,)>,
    queries: Counter<()>,
    query_failures: Counter<(SloName,)>,
    query_seconds: Histogram<()>,
    store_failures: Counter<()>,
    changes_dropped: Counter<()>,
    rules: Gauge<()>,
    rule_evaluations: Counter<()>,
    rule_failures: Counter<()>,
    rule_evaluation_seconds: Histogram<()>,
    rule_evaluations_missed: Counter<()>,
    rule_results_unwritten: Counter<()>,
    firing: Gauge<()>,
    groups: Gauge<()>,
    notices: Gauge<()>,
    posted: Counter<()>,
    refused: Counter<(Refused,)>,
    silence_changes: Counter<(Change,)>,
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
            blind: component.gauge("slo_blind", "Places of an SLO in which nothing is measured any more."),
            groups_beyond: component.gauge(
                "slo_groups_beyond",
                "Values of an SLO's label that are judged together because they are not listed or came too late.",
            ),
            queries: component.counter("slo_queries_total", "Times that an SLO's queries were asked."),
            query_failures: component
                .counter("slo_query_failures_total", "Times that an SLO's queries had no answer of use."),
            query_seconds: component.histogram(
                "slo_query_seconds",
                "Time to answer the queries of an SLO.",
                SECONDS_FAST,
            ),
            store_failures: component
                .counter("store_failures_total", "Failures to write pages or counts down."),
            changes_dropped: component
                .counter("changes_dropped_total", "Changes not recorded because the engine was busy."),
            rules: component.gauge("rules", "Rules on metrics."),
            rule_evaluations: component.counter("rule_evaluations_total", "Rules evaluated."),
            rule_failures: component.counter("rule_failures_total", "Rules that could not be evaluated."),
            rule_evaluation_seconds: component.histogram(
                "rule_evaluation_seconds",
                "Time to evaluate a group of rules and to write what it found.",
                SECONDS_FAST,
            ),
            rule_evaluations_missed: component.counter(
                "rule_evaluations_missed_total",
                "Moments of groups for which it was too late because the one before was not over.",
            ),
            rule_results_unwritten: component
                .counter("rule_results_unwritten_total", "Evaluations whose results were not stored."),
            firing: component.gauge("firing", "Alerts that fire, wherever they come from."),
            groups: component.gauge("groups", "Groups of alerts."),
            notices: component.gauge("notices_waiting", "Notices that the outbox has not taken yet."),
            posted: component.counter("posted_total", "Alerts that others posted."),
            refused: component
                .counter("refused_total", "What was not taken because as many as may be are known."),
            silence_changes: component.counter("silence_changes_total", "Silences that were set or ended."),
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
        let mut blind: BTreeMap<SloName, (i64, usize)> = BTreeMap::new();
        for slo in slos {
            // A name from the rules is always plain; one that is not has no gauge.
            if let (Ok(name), Ok(place)) =
                (SloName::configured(&slo.name), Place::configured(slo.region.as_str()))
            {
                self.budget.set((name.clone(), place), ppm(slo.budget_remaining_ratio));
                let entry = blind.entry(name).or_default();
                *entry = (entry.0 + i64::from(slo.is_blind), slo.groups_beyond);
            }
        }
        for (name, (places, beyond)) in blind {
            self.blind.set((name.clone(),), places);
            self.groups_beyond.set((name,), i64::try_from(beyond).unwrap_or(i64::MAX));
        }
    }

    /// An SLO's queries were asked.
    pub(crate) fn slo_was_asked(&self, took_seconds: f64) {
        self.queries.inc(());
        self.query_seconds.observe((), took_seconds);
    }

    /// An SLO's queries had no answer of use; said once until they have one again.
    pub(crate) fn slo_query_failed(&self, slo: &str, is_news: bool, message: &str) {
        if let Ok(name) = SloName::configured(slo) {
            self.query_failures.inc((name,));
        }
        if is_news {
            let attributes = vec![
                (Cow::Borrowed("slo"), Value::Text(Cow::Owned(slo.to_owned()))),
                (Cow::Borrowed("error"), Value::Text(Cow::Owned(message.to_owned()))),
            ];
            let text = "an objective's queries have no answer, it measures nothing until they have";
            self.emitter.log(COMPONENT, Severity::Warn, text, attributes, None, None);
        }
    }

    /// So much of a budget is gone that something is called for.
    pub(crate) fn policy_was_reached(&self, slo: &SloStatus, spent_percent: u32, action: &'static str) {
        let attributes = vec![
            (Cow::Borrowed("slo"), Value::Text(Cow::Owned(slo.name.clone()))),
            (Cow::Borrowed("geo.region"), Value::from(&slo.region)),
            (Cow::Borrowed("spent_percent"), Value::from(u64::from(spent_percent))),
            (Cow::Borrowed("action"), action.into()),
        ];
        self.emitter.log(COMPONENT, Severity::Warn, "error budget policy reached", attributes, None, None);
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

impl Signals {
    /// The desk began with what was left from before.
    pub(crate) fn desk_started(&self, rules: usize, firing: usize, unreadable: usize) {
        self.rules.set((), i64::try_from(rules).unwrap_or(i64::MAX));
        let attributes = vec![
            (Cow::Borrowed("rules"), Value::from(rules as u64)),
            (Cow::Borrowed("firing"), Value::from(firing as u64)),
            (Cow::Borrowed("left_out"), Value::from(unreadable as u64)),
        ];
        self.emitter.log(COMPONENT, Severity::Info, "alert desk started", attributes, None, None);
    }

    /// So many alerts fire, in so many groups, and so many notices wait.
    pub(crate) fn desk_moved(&self, firing: usize, groups: usize, waiting: usize) {
        for (gauge, value) in [(&self.firing, firing), (&self.groups, groups), (&self.notices, waiting)] {
            gauge.set((), i64::try_from(value).unwrap_or(i64::MAX));
        }
    }

    /// A group of rules was evaluated.
    pub(crate) fn rules_evaluated(&self, rules: usize, failures: usize, took_seconds: f64) {
        self.rule_evaluations.add((), rules as u64);
        self.rule_failures.add((), failures as u64);
        self.rule_evaluation_seconds.observe((), took_seconds);
    }

    /// It was too late for moments of a group.
    pub(crate) fn evaluations_missed(&self, missed: u64) {
        if missed > 0 {
            self.rule_evaluations_missed.add((), missed);
        }
    }

    /// An evaluation broke and took its group with it: nobody judges those rules until a restart.
    pub(crate) fn evaluation_was_lost(&self) {
        self.rule_failures.inc(());
        let message = "an evaluation of rules broke, restart to judge them again";
        self.emitter.log(COMPONENT, Severity::Error, message, vec![], None, None);
    }

    /// What rules found was not stored.
    pub(crate) fn results_not_written(&self) {
        self.rule_results_unwritten.inc(());
    }

    /// Others posted alerts.
    pub(crate) fn alerts_posted(&self, taken: Taken) {
        self.posted.add((), taken.taken as u64);
        self.alerts_refused(taken.refused);
    }

    /// Alerts were not taken.
    pub(crate) fn alerts_refused(&self, refused: usize) {
        if refused > 0 {
            self.refused.add((Refused::Alert,), refused as u64);
        }
    }

    /// Groups could not be made.
    pub(crate) fn groups_were_refused(&self, refused: u64) {
        self.refused.add((Refused::Group,), refused);
        let message = "as many groups of alerts as may be: some alerts are told to nobody";
        self.emitter.log(COMPONENT, Severity::Error, message, vec![], None, None);
    }

    /// Somebody set or ended a silence.
    pub(crate) fn silence_changed(&self, change: Change) {
        self.silence_changes.inc((change,));
        let attributes = vec![(Cow::Borrowed("change"), change.as_str().into())];
        self.emitter.log(COMPONENT, Severity::Info, "silence changed", attributes, None, None);
    }

    /// Rules and routes were read again.
    pub(crate) fn desk_reloaded(&self, rules: usize) {
        self.rules.set((), i64::try_from(rules).unwrap_or(i64::MAX));
        let attributes = vec![(Cow::Borrowed("rules"), Value::from(rules as u64))];
        self.emitter.log(
            COMPONENT,
            Severity::Info,
            "alert rules and routes reloaded",
            attributes,
            None,
            None,
        );
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
