//! Spans and logs to somebody's collector, over OTLP/gRPC, beside the log and never in its way.
//!
//! What leaves is what `convert` lets out: names and values from closed vocabularies. A private value becomes
//! `[private]`, the Call-ID stays here (the trace id, a keyed hash of it, goes), and SIP messages, quality windows
//! and call records are not exported at all.
//! The exporter of `opentelemetry-otlp` retries what its protocol calls retryable within the batch's time; a batch
//! that fails then is dropped and counted. The stores here have it anyway.

mod convert;

use std::sync::Arc;
use std::time::Duration;

use belfry_signal::record::Body;
use belfry_signal::{Record, RecordKind, Resource};
use opentelemetry_otlp::{LogExporter, SpanExporter, WithExportConfig};
use opentelemetry_sdk::logs::{LogBatch, LogExporter as _};
use opentelemetry_sdk::trace::SpanExporter as _;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use self::convert::Converter;
use crate::config::ExportConfig;
use crate::error::Error;
use crate::signals::{ExportOutcome, Signals};
use crate::store::Entry;

/// The export task, as the handle holds it.
#[derive(Debug)]
pub(crate) struct Export {
    tasks: TaskTracker,
}

/// Where the worker offers what it stored. When it is dropped, the task sends the rest and ends.
#[derive(Debug)]
pub(crate) struct Intake {
    queue: mpsc::Sender<Arc<Record>>,
    signals: Signals,
}

/// Starts the task on the caller's runtime. The collector need not be there yet.
pub(crate) fn start(
    config: &ExportConfig,
    resource: &Resource,
    signals: &Signals,
) -> Result<(Export, Intake), Error> {
    let runtime = Handle::try_current().map_err(|error| Error::Export(error.to_string()))?;
    let fault = |error: opentelemetry_otlp::ExporterBuildError| Error::Export(error.to_string());
    let mut spans = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(&config.endpoint)
        .with_timeout(config.timeout)
        .build()
        .map_err(fault)?;
    let mut logs = LogExporter::builder()
        .with_tonic()
        .with_endpoint(&config.endpoint)
        .with_timeout(config.timeout)
        .build()
        .map_err(fault)?;
    let described = convert::resource(resource);
    spans.set_resource(&described);
    logs.set_resource(&described);
    let (queue, records) = mpsc::channel(config.queue_records_max);
    let task = Task {
        records,
        spans,
        logs,
        converter: Converter::new(),
        interval: config.interval,
        batch_records_max: config.batch_records_max,
        signals: signals.clone(),
        is_failing: false,
    };
    let tasks = TaskTracker::new();
    tasks.spawn_on(task.run(), &runtime);
    tasks.close();
    Ok((Export { tasks }, Intake { queue, signals: signals.clone() }))
}

impl Export {
    /// Waits until everything offered was sent or given up.
    pub(crate) async fn finished(&self) {
        self.tasks.wait().await;
    }
}

impl Intake {
    /// Queues the spans and logs among the entries; when the queue is full they are dropped and counted.
    pub(crate) fn offer(&self, entries: Vec<Entry>) {
        let mut refused = 0;
        for entry in entries {
            let Entry::Record(record) = entry else { continue };
            if !matches!(record.kind(), RecordKind::Span | RecordKind::Log) {
                continue;
            }
            let Ok(record) = record.read() else { continue };
            // What others sent is free text: it stays in the region.
            if !record.is_foreign() && self.queue.try_send(Arc::new(record)).is_err() {
                refused += 1;
            }
        }
        if refused > 0 {
            self.signals.exported(ExportOutcome::QueueFull, refused);
        }
    }
}

struct Task {
    records: mpsc::Receiver<Arc<Record>>,
    spans: SpanExporter,
    logs: LogExporter,
    converter: Converter,
    interval: Duration,
    batch_records_max: usize,
    signals: Signals,
    is_failing: bool,
}

impl Task {
    async fn run(mut self) {
        let mut batch = Vec::new();
        while let Some(first) = self.records.recv().await {
            batch.push(first);
            let due = tokio::time::Instant::now() + self.interval;
            while batch.len() < self.batch_records_max {
                let room = self.batch_records_max - batch.len();
                let taking = self.records.recv_many(&mut batch, room);
                match tokio::time::timeout_at(due, taking).await {
                    Ok(0) | Err(_) => break,
                    Ok(_) => {}
                }
            }
            self.send(std::mem::take(&mut batch)).await;
        }
    }

    async fn send(&mut self, batch: Vec<Arc<Record>>) {
        let mut spans = Vec::new();
        let mut logs = Vec::new();
        for record in batch {
            match &record.body {
                Body::Span(span) => spans.push(self.converter.span(&record, span)),
                Body::Log(log) => logs.push(self.converter.log(&record, log)),
                Body::Sip(_) | Body::Quality(_) | Body::Call(_) => {}
            }
        }
        if !spans.is_empty() {
            let count = spans.len();
            let is_sent = self.spans.export(spans).await.is_ok();
            self.note(count, is_sent);
        }
        if !logs.is_empty() {
            let borrowed: Vec<_> = logs.iter().map(|(record, scope)| (record, scope)).collect();
            let is_sent = self.logs.export(LogBatch::new(&borrowed)).await.is_ok();
            self.note(logs.len(), is_sent);
        }
    }

    fn note(&mut self, records: usize, is_sent: bool) {
        let was_failing = std::mem::replace(&mut self.is_failing, !is_sent);
        if !is_sent {
            return self.signals.export_failed(records, !was_failing);
        }
        self.signals.exported(ExportOutcome::Sent, records);
        if was_failing {
            self.signals.export_recovered();
        }
    }
}
