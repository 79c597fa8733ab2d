//! Everything that state tells the world. If it is not in this file, an operator cannot see it.

use std::time::Duration;

use belfry_signal::record::Attributes;
use belfry_signal::{Counter, Emitter, Gauge, Histogram, Pii, Registry, SECONDS, Severity, label_enum};

use crate::billing::RatingOutcome;
use crate::database::Verdict;
use crate::error::Error;
use crate::record::CallRecord;

const COMPONENT: &str = "state";

label_enum! {
    /// What became of a call record in the end.
    enum RecordOutcome("outcome") { New = "new", Known = "known", Refused = "refused", Lost = "lost" }
}

label_enum! {
    /// How rating a call ended.
    enum RatingLabel("outcome") {
        Rated = "rated", NoProfile = "no_profile", NoDestination = "no_destination", TooLarge = "too_large",
        Refused = "refused",
    }
}

label_enum! {
    /// Where a subscriber was found.
    enum LookUp("source") { Memory = "memory", Database = "database", Failed = "failed" }
}

label_enum! {
    /// Why a binding was refused.
    enum Refusal("reason") {
        Bindings = "bindings_full",
        Address = "address_full",
        Journal = "journal_full",
    }
}

label_enum! {
    /// What became of a snapshot, a journal entry, a record on its way.
    enum Kept("outcome") { Ok = "ok", Failed = "failed" }
}

/// The metric families and the way out for records.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    emitter: Emitter,
    records: Counter<(RecordOutcome,)>,
    spooled: Counter<(Kept,)>,
    spool_seconds: Histogram<()>,
    spool_bytes: Gauge<()>,
    spool_records: Gauge<()>,
    in_memory: Gauge<()>,
    notes_failed: Counter<()>,
    books_kept: Gauge<()>,
    calls_lost: Counter<()>,
    deliveries: Counter<(Kept,)>,
    ratings: Counter<(RatingLabel,)>,
    commits: Counter<(Kept,)>,
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
            records: component.counter(
                "call_records_total",
                "Call records by what became of them: new or known to the database, refused by it, or lost.",
            ),
            spooled: component.counter(
                "spool_writes_total",
                "Call records written to the spool, and writes that the disk refused.",
            ),
            spool_seconds: component.histogram(
                "spool_seconds",
                "Time to bring the books to the platter.",
                SECONDS,
            ),
            spool_bytes: component.gauge("spool_bytes", "Bytes of the spool."),
            spool_records: component
                .gauge("spool_records", "Call records in the spool that the database does not have."),
            in_memory: component.gauge(
                "records_in_memory",
                "Call records that are in memory only, because neither disk nor database takes them.",
            ),
            notes_failed: component.counter(
                "call_notes_failed_total",
                "Open calls that could not be noted, and would have no record after a crash.",
            ),
            books_kept: component.gauge(
                "books_kept",
                "1 while the disk takes the books of calls; 0 when their thread ended: restart the process.",
            ),
            calls_lost: component.counter(
                "calls_lost_total",
                "Calls whose core was gone and whose record was made from what was noted.",
            ),
            deliveries: component
                .counter("deliveries_total", "Batches of call records for the database, by outcome."),
            ratings: component.counter("ratings_total", "Calls rated, by outcome."),
            commits: component.counter("commits_total", "Commits of the database, by outcome."),
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

    fn log(&self, severity: Severity, message: &'static str, attributes: Attributes) {
        self.emitter.log(COMPONENT, severity, message, attributes, None, None);
    }

    fn log_of(&self, severity: Severity, message: &'static str, attributes: Attributes, record: &CallRecord) {
        self.emitter.log(COMPONENT, severity, message, attributes, None, Some(record.call_id.clone()));
    }

    pub(crate) fn opened(&self, bindings: usize) {
        let attributes = vec![("state.bindings".into(), (bindings as u64).into())];
        self.emitter.log(COMPONENT, Severity::Info, "state opened", attributes, None, None);
    }

    /// The books were read at the start.
    pub(crate) fn books_opened(&self, undelivered: u64, open: usize, damaged_bytes: u64) {
        self.books_kept.set((), 1);
        if undelivered > 0 || open > 0 {
            let attributes = vec![
                ("state.records".into(), undelivered.into()),
                ("state.calls".into(), (open as u64).into()),
            ];
            let message = "books hold call records to deliver, or calls of a process that is gone";
            self.log(Severity::Info, message, attributes);
        }
        if damaged_bytes > 0 {
            let attributes = vec![("state.bytes".into(), damaged_bytes.into())];
            self.log(Severity::Error, "books hold bytes that cannot be read", attributes);
        }
    }

    /// The books were written, or could not be.
    pub(crate) fn books_written(&self, error: Option<&Error>) {
        if let Some(error) = error {
            self.spooled.inc((Kept::Failed,));
            let attributes = vec![("error.reason".into(), error.reason().into())];
            self.log(Severity::Error, "books could not be written", attributes);
        }
    }

    /// The thread that writes the books came to a sudden end.
    pub(crate) fn books_deserted(&self) {
        self.books_kept.set((), 0);
        let message = "the thread that writes the books of calls failed; records go to the database from memory, and \
            calls that are up when this process dies have none: restart it when calls allow";
        self.log(Severity::Error, message, vec![]);
    }

    /// Records are on the platter.
    pub(crate) fn books_synced(&self, took: Duration, records: usize) {
        self.spool_seconds.observe((), took.as_secs_f64());
        self.spooled.add((Kept::Ok,), records as u64);
    }

    /// What the spool holds.
    pub(crate) fn spool_changed(&self, bytes: u64, records: u64) {
        self.spool_bytes.set((), i64::try_from(bytes).unwrap_or(i64::MAX));
        self.spool_records.set((), i64::try_from(records).unwrap_or(i64::MAX));
    }

    /// Open calls could not be noted: a crash now would leave them without a record.
    pub(crate) fn notes_failed(&self, count: u64) {
        self.notes_failed.add((), count);
    }

    /// Calls of a core that is gone got their record.
    pub(crate) fn calls_lost(&self, count: usize) {
        self.calls_lost.add((), count as u64);
        if count > 0 {
            let attributes = vec![("state.calls".into(), (count as u64).into())];
            let message = "calls of a core that is gone were closed with the time of its last sign of life";
            self.log(Severity::Warn, message, attributes);
        }
    }

    /// The database judged a record.
    pub(crate) fn call_record_judged(&self, verdict: Verdict, record: &CallRecord) {
        let outcome = match verdict {
            Verdict::New => RecordOutcome::New,
            Verdict::Known => RecordOutcome::Known,
            Verdict::Refused(_) => RecordOutcome::Refused,
        };
        self.records.inc((outcome,));
        if let Verdict::Refused(code) = verdict {
            let attributes = vec![("sqlite.code".into(), code.into())];
            let message = "the database refuses a call record, which is set aside in the file refused.log";
            self.log_of(Severity::Error, message, attributes, record);
        }
    }

    /// Records set aside in former times were tried again.
    pub(crate) fn refused_tried_again(&self, taken: usize, left: usize) {
        let attributes =
            vec![("state.taken".into(), (taken as u64).into()), ("state.left".into(), (left as u64).into())];
        self.log(Severity::Warn, "call records that were set aside were tried again", attributes);
    }

    /// Neither spool nor memory has room.
    pub(crate) fn call_record_lost(&self, record: &CallRecord) {
        self.records.inc((RecordOutcome::Lost,));
        self.log_of(Severity::Error, "a call record found no place and is lost", vec![], record);
    }

    /// The spool would not take a record.
    pub(crate) fn record_held_in_memory(&self, record: &CallRecord) {
        let message = "the spool refuses a call record, which is in memory until the database has it";
        self.log_of(Severity::Error, message, vec![], record);
    }

    pub(crate) fn in_memory_changed(&self, records: usize) {
        self.in_memory.set((), i64::try_from(records).unwrap_or(i64::MAX));
    }

    /// A batch went to the database.
    pub(crate) fn records_delivered(&self, count: usize, was_away: bool) {
        self.deliveries.inc((Kept::Ok,));
        if was_away {
            let attributes = vec![("state.records".into(), (count as u64).into())];
            self.log(Severity::Info, "the database takes call records again", attributes);
        }
    }

    /// A batch did not; told once for as long as it lasts.
    pub(crate) fn delivery_failed(&self, error: &Error, was_away: bool) {
        self.deliveries.inc((Kept::Failed,));
        if !was_away {
            let attributes = vec![("error.reason".into(), error.reason().into())];
            self.log(
                Severity::Error,
                "the database takes no call records, which wait in the spool",
                attributes,
            );
        }
    }

    /// Calls were rated.
    pub(crate) fn calls_rated(&self, outcomes: impl Iterator<Item = RatingOutcome>) {
        for outcome in outcomes {
            self.ratings.inc((match outcome {
                RatingOutcome::Rated => RatingLabel::Rated,
                RatingOutcome::NoProfile => RatingLabel::NoProfile,
                RatingOutcome::NoDestination => RatingLabel::NoDestination,
                RatingOutcome::TooLarge => RatingLabel::TooLarge,
                RatingOutcome::Refused => RatingLabel::Refused,
            },));
        }
    }

    /// A rating or its charge was refused, and set aside.
    pub(crate) fn rating_refused(&self, id: i64, error: &Error) {
        let attributes = vec![
            ("state.record".into(), id.into()),
            ("error.reason".into(), error.reason().into()),
            ("error.message".into(), Pii::new(error.to_string()).into()),
        ];
        let message = "a call could not be charged and is set aside; mend its account, and rate it again";
        self.log(Severity::Error, message, attributes);
    }

    /// A commit ended; whoever asked for it tells what it means that it failed.
    pub(crate) fn commit_ended(&self, took: Duration, error: Option<&Error>) {
        self.commit_seconds.observe((), took.as_secs_f64());
        self.commits.inc((if error.is_none() { Kept::Ok } else { Kept::Failed },));
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
            Error::AddressFull => Refusal::Address,
            Error::QueueFull => Refusal::Journal,
            _ => Refusal::Bindings,
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
