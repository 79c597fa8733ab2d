//! Everything that the store of events tells the world. If it is not in this file, an operator cannot see it.

use std::path::Path;
use std::time::Duration;

use belfry_signal::{Counter, Emitter, Gauge, Histogram, Registry, SECONDS, Severity, Value};

use crate::error::Error;
use crate::facts::RecordKind;

const COMPONENT: &str = "events";

belfry_signal::label_enum! {
    /// What became of splits.
    pub(crate) enum SplitState("state") {
        Ready = "ready",
        Damaged = "damaged",
    }
}

belfry_signal::label_enum! {
    /// Why records are no longer there.
    pub(crate) enum DropReason("reason") {
        Retention = "retention",
        DiskBound = "disk_bound",
        DiskFull = "disk_full",
        Thinned = "thinned",
        Unreadable = "unreadable",
        Refused = "refused",
    }
}

belfry_signal::label_enum! {
    /// Why a catalogue cannot be used.
    pub(crate) enum Unusable("reason") {
        Corrupted = "corrupted",
        Format = "format",
        Row = "row",
    }
}

belfry_signal::label_enum! {
    /// What is asked.
    pub(crate) enum Question("question") {
        Search = "search",
        Call = "call",
        Trace = "trace",
        Calls = "calls",
        Curve = "curve",
    }
}

belfry_signal::label_enum! {
    /// How a query ended.
    pub(crate) enum Outcome("outcome") {
        Complete = "complete",
        Partial = "partial",
        BadQuery = "bad_query",
        Failed = "failed",
    }
}

belfry_signal::label_enum! {
    /// What the builder does.
    pub(crate) enum Work("work") {
        Build = "build",
        Merge = "merge",
        Thin = "thin",
    }
}

belfry_signal::label_enum! {
    /// How waiting for the builder ended.
    pub(crate) enum Wait("outcome") {
        Taken = "taken",
        Refused = "refused",
    }
}

/// The store's metric handles and its voice.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    emitter: Emitter,
    indexed: Counter<(RecordKind,)>,
    dropped: Counter<(DropReason,)>,
    set_aside: Counter<(Unusable,)>,
    rebuilt: Counter<()>,
    splits: Gauge<(SplitState,)>,
    split_bytes: Gauge<()>,
    live: Gauge<()>,
    work_seconds: Histogram<(Work,)>,
    work_failures: Counter<(Work,)>,
    waits: Counter<(Wait,)>,
    queries: Counter<(Question, Outcome)>,
    query_seconds: Histogram<(Question,)>,
}

impl Signals {
    pub(crate) fn register(registry: &Registry) -> Self {
        let component = registry.component(COMPONENT);
        Self {
            emitter: component.emitter(),
            indexed: component.counter("records_indexed_total", "Records published in splits."),
            dropped: component.counter("records_dropped_total", "Records that are no longer searchable."),
            set_aside: component
                .counter("catalogues_set_aside_total", "Catalogues or stores set aside as unusable."),
            rebuilt: component.counter("catalogues_rebuilt_total", "Catalogues made again from the splits."),
            splits: component.gauge("splits", "Splits in the catalogue."),
            split_bytes: component.gauge("split_bytes", "Bytes of all splits on disk."),
            live: component.gauge("live_records", "Records in live buffers, searchable and not yet indexed."),
            work_seconds: component.histogram("index_seconds", "Time to build or merge a split.", SECONDS),
            work_failures: component
                .counter("index_failures_total", "Splits that could not be built or merged."),
            waits: component
                .counter("hand_over_waits_total", "Times that intake waited for the index builder."),
            queries: component.counter("queries_total", "Questions answered."),
            query_seconds: component.histogram("query_seconds", "Time to answer a question.", SECONDS),
        }
    }

    /// The store is open.
    pub(crate) fn opened(&self, splits: usize, records: u64, checkpoint: u64) {
        self.log(
            Severity::Info,
            "event store opened",
            vec![
                ("events.splits".into(), number(splits as u64)),
                ("events.records".into(), number(records)),
                ("events.checkpoint".into(), number(checkpoint)),
            ],
        );
    }

    /// The catalogue could not be used: it, or with another format the whole store, has a new name.
    pub(crate) fn catalogue_set_aside(&self, why: Unusable, error: &Error, aside: &Path) {
        self.set_aside.inc((why,));
        self.log(
            Severity::Error,
            "catalogue is unusable and was set aside",
            vec![
                ("reason".into(), Value::Text(why.as_str().into())),
                ("error".into(), Value::Text(error.to_string().into())),
                ("file.path".into(), Value::Text(aside.display().to_string().into())),
            ],
        );
    }

    /// The catalogue was missing or damaged, and was made again from the splits' footers.
    pub(crate) fn catalogue_rebuilt(&self, splits: usize, records: u64, damaged: usize) {
        self.rebuilt.inc(());
        self.log(
            Severity::Warn,
            "catalogue made again from the splits",
            vec![
                ("events.splits".into(), number(splits as u64)),
                ("events.records".into(), number(records)),
                ("events.splits_damaged".into(), number(damaged as u64)),
            ],
        );
    }

    /// What the catalogue holds now.
    pub(crate) fn splits_changed(&self, ready: usize, damaged: usize, bytes: u64) {
        self.splits.set((SplitState::Ready,), i64::try_from(ready).unwrap_or(i64::MAX));
        self.splits.set((SplitState::Damaged,), i64::try_from(damaged).unwrap_or(i64::MAX));
        self.split_bytes.set((), i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// How many records wait in live buffers now.
    pub(crate) fn live_changed(&self, records: usize) {
        self.live.set((), i64::try_from(records).unwrap_or(i64::MAX));
    }

    /// A live buffer became a split.
    pub(crate) fn split_built(&self, took: Duration, kinds: &[u64; RecordKind::ALL.len()]) {
        self.work_seconds.observe((Work::Build,), took.as_secs_f64());
        for (kind, records) in RecordKind::ALL.iter().zip(kinds) {
            if *records > 0 {
                self.indexed.add((*kind,), *records);
            }
        }
    }

    /// Several splits became one.
    pub(crate) fn splits_merged(&self, took: Duration) {
        self.work_seconds.observe((Work::Merge,), took.as_secs_f64());
    }

    /// A split could not be built or merged; it is tried again.
    pub(crate) fn work_failed(&self, work: Work, error: &Error) {
        self.work_failures.inc((work,));
        let message = match work {
            Work::Build => "split could not be built, trying again",
            Work::Merge => "splits could not be merged",
            Work::Thin => "good calls could not be thinned out",
        };
        self.log(Severity::Error, message, reason(error));
    }

    /// A split is not what the catalogue says; searches go without it. Runbook: EventsSplitDamaged.
    pub(crate) fn split_damaged(&self, split: u64, records: u64, what: &str) {
        self.dropped.add((DropReason::Unreadable,), records);
        self.log(
            Severity::Error,
            "split is damaged and skipped",
            vec![
                ("events.split".into(), Value::Text(format!("{split:016x}").into())),
                ("events.records".into(), number(records)),
                ("error".into(), Value::Text(what.to_owned().into())),
            ],
        );
    }

    /// A sound split could not be read this time; the answer says that it is missing.
    pub(crate) fn split_unreadable(&self, split: u64, error: &Error) {
        let mut attributes = reason(error);
        attributes.push(("events.split".into(), Value::Text(format!("{split:016x}").into())));
        self.log(Severity::Error, "split could not be read", attributes);
    }

    /// Splits were dropped as a whole.
    pub(crate) fn splits_dropped(&self, why: DropReason, splits: usize, records: u64) {
        self.dropped.add((why,), records);
        let severity = if why == DropReason::Retention { Severity::Info } else { Severity::Warn };
        self.log(
            severity,
            "splits dropped",
            vec![
                ("reason".into(), Value::Text(why.as_str().into())),
                ("events.splits".into(), number(splits as u64)),
                ("events.records".into(), number(records)),
            ],
        );
    }

    /// The good calls of a split keep only their summaries from now on.
    pub(crate) fn split_thinned(&self, took: Duration, records_dropped: u64) {
        self.work_seconds.observe((Work::Thin,), took.as_secs_f64());
        self.dropped.add((DropReason::Thinned,), records_dropped);
    }

    /// A file that no catalogue row names was removed: what a crash left while a split was being built.
    pub(crate) fn orphan_removed(&self, name: String) {
        self.log(
            Severity::Info,
            "orphan split removed",
            vec![("events.split".into(), Value::Text(name.into()))],
        );
    }

    /// Intake waited for the index builder, and there was room in time.
    pub(crate) fn hand_over_waited(&self) {
        self.waits.inc((Wait::Taken,));
    }

    /// Intake waited for the index builder in vain: these records are in the log but not searchable.
    pub(crate) fn batch_refused(&self, records: u64) {
        self.waits.inc((Wait::Refused,));
        self.dropped.add((DropReason::Refused,), records);
        self.log(
            Severity::Error,
            "index builder is behind, records refused",
            vec![("events.records".into(), number(records))],
        );
    }

    /// A question was answered, well or not.
    pub(crate) fn query_ended(&self, question: Question, outcome: Outcome, took: Duration) {
        self.queries.inc((question, outcome));
        self.query_seconds.observe((question,), took.as_secs_f64());
    }

    fn log(&self, severity: Severity, message: &'static str, attributes: belfry_signal::record::Attributes) {
        self.emitter.log(COMPONENT, severity, message, attributes, None, None);
    }
}

fn number(number: u64) -> Value {
    number.into()
}

fn reason(error: &Error) -> belfry_signal::record::Attributes {
    vec![
        ("reason".into(), Value::Text(error.reason().into())),
        ("error".into(), Value::Text(error.to_string().into())),
    ]
}
