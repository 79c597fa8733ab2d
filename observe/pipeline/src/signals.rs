//! Everything that the pipeline tells about itself.

use belfry_signal::{
    Counter, CounterHandle, Emitter, Gauge, Histogram, Registry, SECONDS_FAST, Severity, Value,
};

use crate::wal::Recovery;

belfry_signal::label_enum! {
    /// What was stored.
    pub(crate) enum EntryKind("kind") {
        Log = "log",
        Span = "span",
        Sip = "sip",
        Quality = "quality",
        Call = "call",
        Samples = "samples",
    }
}

belfry_signal::label_enum! {
    /// Why a record was not stored.
    pub(crate) enum DropReason("reason") {
        Disk = "disk",
        Oversize = "oversize",
    }
}

belfry_signal::label_enum! {
    /// What became of records on their way to the collector.
    pub(crate) enum ExportOutcome("outcome") {
        Sent = "sent",
        Failed = "failed",
        QueueFull = "queue_full",
    }
}

belfry_signal::label_name! {
    /// A store's name.
    pub(crate) struct StoreName("store", max = 8)
}

const COMPONENT: &str = "pipeline";

/// The pipeline's families and its voice.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    emitter: Emitter,
    written: Counter<()>,
    stored: Vec<CounterHandle>,
    dropped: Counter<(DropReason,)>,
    sample_sets_dropped: Counter<(DropReason,)>,
    wal_bytes: Counter<()>,
    wal_disk_bytes: Gauge<()>,
    commit_seconds: Histogram<()>,
    commit_failures: Counter<()>,
    segments_evicted: Counter<()>,
    replayed: Counter<(StoreName,)>,
    damaged_bytes: Counter<()>,
    missing: Counter<()>,
    store_failures: Counter<(StoreName,)>,
    lag: Gauge<(StoreName,)>,
    exported: Counter<(ExportOutcome,)>,
}

impl Signals {
    pub(crate) fn register(registry: &Registry) -> Self {
        let component = registry.component(COMPONENT);
        let stored: Counter<(EntryKind,)> = component
            .counter("records_stored_total", "Records that are durable: fsynced before they are counted.");
        Self {
            emitter: component.emitter(),
            written: component
                .counter("records_written_total", "Records of others that doors handed to the log."),
            stored: EntryKind::ALL.iter().map(|kind| stored.handle((*kind,))).collect(),
            dropped: component.counter("dropped_total", "Records that the pipeline took and could not keep."),
            sample_sets_dropped: component
                .counter("sample_sets_dropped_total", "Rounds of metric samples that could not be kept."),
            wal_bytes: component.counter("wal_bytes_total", "Bytes written to the write-ahead log."),
            wal_disk_bytes: component
                .gauge("wal_disk_bytes", "Bytes that the write-ahead log takes on disk."),
            commit_seconds: component.histogram(
                "commit_seconds",
                "Time to write and fsync one batch.",
                SECONDS_FAST,
            ),
            commit_failures: component
                .counter("commit_failures_total", "Attempts to write a batch that the disk refused."),
            segments_evicted: component.counter(
                "segments_evicted_total",
                "Log files deleted at the size limit although a store still needed them after a crash.",
            ),
            replayed: component.counter("replayed_total", "Entries read again from the log at start."),
            damaged_bytes: component
                .counter("damaged_bytes_total", "Bytes of the log that could not be read at start."),
            missing: component.counter(
                "missing_entries_total",
                "Positions that the log should hold at start and does not.",
            ),
            store_failures: component
                .counter("store_failures_total", "Batches that a store refused; the log still has them."),
            lag: component.gauge(
                "lag_entries",
                "Entries that a store keeps only in memory and in the log, past its checkpoint.",
            ),
            exported: component.counter("exported_total", "Spans and logs on their way to the collector."),
        }
    }

    pub(crate) fn records_written(&self, records: usize) {
        self.written.add((), records as u64);
    }

    /// Records that doors wrote since the start.
    pub(crate) fn records_written_count(&self) -> u64 {
        self.written.value(())
    }

    pub(crate) fn stored(&self, kind: EntryKind) {
        self.stored[kind as usize].inc();
    }

    /// Records stored since the start; rounds of samples are not records.
    pub(crate) fn records_stored(&self) -> u64 {
        let records = EntryKind::ALL.iter().filter(|kind| **kind != EntryKind::Samples);
        records.map(|kind| self.stored[*kind as usize].value()).sum()
    }

    /// Records dropped here since the start; the emitter counts its own.
    pub(crate) fn records_dropped(&self) -> u64 {
        DropReason::ALL.iter().map(|reason| self.dropped.value((*reason,))).sum()
    }

    pub(crate) fn dropped(&self, kind: EntryKind, reason: DropReason) {
        match kind {
            EntryKind::Samples => self.sample_sets_dropped.inc((reason,)),
            _ => self.dropped.inc((reason,)),
        }
    }

    pub(crate) fn committed(&self, seconds: f64, bytes: u64, disk_bytes: u64) {
        self.commit_seconds.observe((), seconds);
        self.wal_bytes.add((), bytes);
        self.wal_size_changed(disk_bytes);
    }

    pub(crate) fn wal_size_changed(&self, disk_bytes: u64) {
        self.wal_disk_bytes.set((), i64::try_from(disk_bytes).unwrap_or(i64::MAX));
    }

    /// The disk refused a batch; `is_news` on the first of a row.
    pub(crate) fn commit_failed(&self, error: &std::io::Error, is_news: bool) {
        self.commit_failures.inc(());
        if is_news {
            let attributes = vec![("error".into(), Value::Text(error.kind().to_string().into()))];
            self.log(Severity::Error, "telemetry cannot be written to disk", attributes);
        }
    }

    pub(crate) fn commits_recovered(&self) {
        self.log(Severity::Info, "telemetry is written to disk again", Vec::new());
    }

    pub(crate) fn segment_evicted(&self, disk_bytes: u64) {
        self.segments_evicted.inc(());
        self.wal_size_changed(disk_bytes);
        self.log(Severity::Error, "write-ahead log is at its limit and loses its oldest file", Vec::new());
    }

    pub(crate) fn log_opened(&self, recovery: &Recovery) {
        self.damaged_bytes.add((), recovery.torn_bytes);
        let attributes = vec![
            ("wal.segments".into(), recovery.segments.into()),
            ("wal.next_position".into(), recovery.next_position.into()),
            ("wal.torn_bytes".into(), recovery.torn_bytes.into()),
        ];
        let is_torn = recovery.torn_bytes > 0;
        let severity = if is_torn { Severity::Warn } else { Severity::Info };
        let message =
            if is_torn { "write-ahead log opened, its torn end was cut" } else { "write-ahead log opened" };
        self.log(severity, message, attributes);
    }

    pub(crate) fn replay_finished(&self, entries: u64, damaged_bytes: u64, missing: u64, seconds: f64) {
        self.damaged_bytes.add((), damaged_bytes);
        self.missing.add((), missing);
        let attributes = vec![
            ("wal.entries".into(), entries.into()),
            ("wal.damaged_bytes".into(), damaged_bytes.into()),
            ("wal.missing_entries".into(), missing.into()),
            ("seconds".into(), seconds.into()),
        ];
        let is_whole = damaged_bytes == 0 && missing == 0;
        let severity = if is_whole { Severity::Info } else { Severity::Error };
        let message =
            if is_whole { "write-ahead log replayed" } else { "write-ahead log replayed with gaps" };
        self.log(severity, message, attributes);
    }

    pub(crate) fn replayed(&self, store: &StoreName, entries: u64) {
        self.replayed.add((store.clone(),), entries);
    }

    pub(crate) fn store_failed(&self, store: &StoreName, reason: &'static str) {
        self.store_failures.inc((store.clone(),));
        let attributes = vec![
            ("store".into(), Value::Text(store.as_str().to_owned().into())),
            ("store.reason".into(), reason.into()),
        ];
        self.log(Severity::Error, "store did not take a batch", attributes);
    }

    pub(crate) fn lag_measured(&self, store: &StoreName, entries: u64) {
        self.lag.set((store.clone(),), i64::try_from(entries).unwrap_or(i64::MAX));
    }

    pub(crate) fn exported(&self, outcome: ExportOutcome, records: usize) {
        self.exported.add((outcome,), records as u64);
    }

    /// The collector refused or did not answer; `is_news` on the first of a row.
    pub(crate) fn export_failed(&self, records: usize, is_news: bool) {
        self.exported(ExportOutcome::Failed, records);
        if is_news {
            self.log(Severity::Warn, "collector does not take spans or logs", Vec::new());
        }
    }

    pub(crate) fn export_recovered(&self) {
        self.log(Severity::Info, "collector takes spans and logs again", Vec::new());
    }

    fn log(&self, severity: Severity, message: &'static str, attributes: belfry_signal::record::Attributes) {
        self.emitter.log(COMPONENT, severity, message, attributes, None, None);
    }
}
