//! Everything that state tells the world. If it is not in this file, an operator cannot see it.

use std::time::Duration;

use belfry_signal::{Counter, Emitter, Gauge, Histogram, Registry, SECONDS, Severity, label_enum};

use crate::error::Error;
use crate::record::Appended;

const COMPONENT: &str = "state";

label_enum! {
    /// What became of a call record.
    enum AppendOutcome("outcome") { New = "new", Known = "known", Failed = "failed" }
}

label_enum! {
    /// Where a subscriber was found.
    enum LookUp("source") { Memory = "memory", Database = "database", Failed = "failed" }
}

label_enum! {
    /// Why a binding was refused.
    enum Refusal("reason") {
        BindingsFull = "bindings_full",
        AddressFull = "address_full",
        JournalFull = "journal_full",
    }
}

label_enum! {
    /// What became of a snapshot or a journal entry.
    enum Kept("outcome") { Ok = "ok", Failed = "failed" }
}

/// The metric families and the way out for records.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    emitter: Emitter,
    records: Counter<(AppendOutcome,)>,
    commit_seconds: Histogram<()>,
    look_ups: Counter<(LookUp,)>,
    bindings: Gauge<()>,
    refused: Counter<(Refusal,)>,
    expired: Counter<()>,
    snapshots: Counter<(Kept,)>,
    journal: Counter<(Kept,)>,
}

impl Signals {
    pub(crate) fn register(registry: &Registry) -> Self {
        let component = registry.component(COMPONENT);
        Self {
            emitter: component.emitter(),
            records: component
                .counter("call_records_total", "Call records handed in, by what became of them."),
            commit_seconds: component.histogram(
                "commit_seconds",
                "Time to bring one batch of writes to the disk, fsync included.",
                SECONDS,
            ),
            look_ups: component.counter("subscriber_lookups_total", "Subscribers looked up, by where found."),
            bindings: component.gauge("bindings", "Bindings held now."),
            refused: component
                .counter("bindings_refused_total", "Bindings refused because a bound was reached."),
            expired: component.counter("bindings_expired_total", "Bindings that ran out."),
            snapshots: component.counter("snapshots_total", "Snapshots of the bindings, by outcome."),
            journal: component
                .counter("journal_entries_total", "Changes of bindings journalled, by outcome."),
        }
    }

    pub(crate) fn opened(&self, bindings: usize) {
        let attributes = vec![("state.bindings".into(), (bindings as u64).into())];
        self.emitter.log(COMPONENT, Severity::Info, "state opened", attributes, None, None);
    }

    pub(crate) fn call_record_appended(&self, result: Result<Appended, &Error>) {
        let outcome = match result {
            Ok(Appended::New) => AppendOutcome::New,
            Ok(Appended::Known) => AppendOutcome::Known,
            Err(_) => AppendOutcome::Failed,
        };
        self.records.inc((outcome,));
    }

    pub(crate) fn commit_ended(&self, took: Duration, error: Option<&Error>) {
        self.commit_seconds.observe((), took.as_secs_f64());
        if let Some(error) = error {
            let attributes = vec![("error.reason".into(), error.reason().into())];
            self.emitter.log(COMPONENT, Severity::Error, "writes were lost", attributes, None, None);
        }
    }

    pub(crate) fn subscriber_remembered(&self) {
        self.look_ups.inc((LookUp::Memory,));
    }

    pub(crate) fn subscriber_read(&self, is_read: bool) {
        self.look_ups.inc((if is_read { LookUp::Database } else { LookUp::Failed },));
    }

    pub(crate) fn bindings_changed(&self, held: usize) {
        self.bindings.set((), i64::try_from(held).unwrap_or(i64::MAX));
    }

    pub(crate) fn binding_refused(&self, error: &Error) {
        let refusal = match error {
            Error::AddressFull => Refusal::AddressFull,
            Error::QueueFull => Refusal::JournalFull,
            _ => Refusal::BindingsFull,
        };
        self.refused.inc((refusal,));
    }

    pub(crate) fn bindings_expired(&self, count: usize) {
        self.expired.add((), count as u64);
    }

    pub(crate) fn journal_written(&self, is_written: bool, entries: usize) {
        self.journal.add((if is_written { Kept::Ok } else { Kept::Failed },), entries as u64);
    }

    pub(crate) fn snapshot_ended(&self, result: Result<(), &Error>) {
        self.snapshots.inc((if result.is_ok() { Kept::Ok } else { Kept::Failed },));
        if let Err(error) = result {
            let attributes = vec![("error.reason".into(), error.reason().into())];
            self.emitter.log(COMPONENT, Severity::Error, "bindings snapshot failed", attributes, None, None);
        }
    }

    pub(crate) fn snapshot_torn(&self, fault: &'static str) {
        let attributes = vec![("error.reason".into(), fault.into())];
        let message = "bindings snapshot is torn, starting without it";
        self.emitter.log(COMPONENT, Severity::Error, message, attributes, None, None);
    }

    pub(crate) fn journal_torn(&self, entries: usize) {
        let attributes = vec![("state.entries".into(), (entries as u64).into())];
        let message = "bindings journal ends in a torn entry, kept what was before it";
        self.emitter.log(COMPONENT, Severity::Warn, message, attributes, None, None);
    }
}
