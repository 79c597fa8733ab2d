//! The pipeline as a process meets it: counts that add up, restarts, failing disks, a collector.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use belfry_signal::record::{Body, Log, Span, SpanKind, SpanStatus};
use belfry_signal::{Pii, Record, RecordReceiver, Registry, Resource, Severity, SpanContext, Value};
use opentelemetry_proto::tonic::collector::logs::v1 as logs_v1;
use opentelemetry_proto::tonic::collector::trace::v1 as trace_v1;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use crate::{Config, Counts, Entry, Error, ExportConfig, Pipeline, PipelineHandle, Store, StoreError};

pub(crate) const SOON: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
struct Kept {
    entries: Vec<(u64, Entry)>,
    checkpoint: u64,
    flushes: usize,
}

/// Keeps what it is given, and says that it survives as far as the test sets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notebook(Arc<Mutex<Kept>>);

impl Notebook {
    /// The records that are wanted, in order.
    pub(crate) fn records(&self, is_wanted: impl Fn(&Record) -> bool) -> Vec<Arc<Record>> {
        let kept = self.0.lock().expect("not poisoned");
        let record = |(_, entry): &(u64, Entry)| match entry {
            Entry::Record(record) => {
                Some(Arc::new(record.read().expect("a record"))).filter(|record| is_wanted(record))
            }
            _ => None,
        };
        kept.entries.iter().filter_map(record).collect()
    }

    fn numbers(&self) -> Vec<u64> {
        let kept = self.0.lock().expect("not poisoned");
        let number = |(_, entry): &(u64, Entry)| match entry {
            Entry::Record(record) => {
                let record = record.read().expect("a record");
                (record.component == "test").then_some(record.unix_nanos)
            }
            _ => None,
        };
        kept.entries.iter().filter_map(number).collect()
    }

    fn sample_rounds(&self) -> usize {
        let kept = self.0.lock().expect("not poisoned");
        kept.entries.iter().filter(|(_, entry)| matches!(entry, Entry::Samples { .. })).count()
    }

    fn position_of(&self, number: u64) -> u64 {
        let kept = self.0.lock().expect("not poisoned");
        let is_it = |(_, entry): &&(u64, Entry)| matches!(entry, Entry::Record(record) if record.unix_nanos() == number);
        kept.entries.iter().find(is_it).expect("it was stored").0
    }
}

impl Store for Notebook {
    fn name(&self) -> &'static str {
        "notebook"
    }

    fn apply(&mut self, position: u64, entries: &[Entry]) -> Result<(), StoreError> {
        let mut kept = self.0.lock().expect("not poisoned");
        let first = position + 1 - entries.len() as u64;
        kept.entries.extend((first..).zip(entries.iter().cloned()));
        Ok(())
    }

    fn checkpoint(&self) -> u64 {
        self.0.lock().expect("not poisoned").checkpoint
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        self.0.lock().expect("not poisoned").flushes += 1;
        Err(StoreError::new("full", "no room"))
    }

    fn tick(&mut self, _: i64) {}
}

pub(crate) fn config(directory: &Path) -> Config {
    Config {
        directory: directory.join("wal"),
        segment_bytes_max: 64 << 10,
        wal_bytes_max: 1 << 20,
        record_bytes_max: 32 << 10,
        commit_interval: Duration::from_millis(1),
        commit_records_max: 100,
        retry_for: Duration::ZERO,
        sample_interval: Duration::from_secs(3600),
        export: None,
    }
}

pub(crate) fn start(config: Config, store: &Notebook, records_max: usize) -> (PipelineHandle, Registry) {
    let (registry, records) = Registry::new(Resource::for_test(), records_max);
    let stores: Vec<Box<dyn Store>> = vec![Box::new(store.clone())];
    let handle = Pipeline::start(config, registry.clone(), records, stores).expect("it starts");
    (handle, registry)
}

fn emit(registry: &Registry, numbers: impl IntoIterator<Item = u64>, padding: usize) {
    for number in numbers {
        let attributes = vec![("padding".into(), Value::Text("x".repeat(padding).into()))];
        let log = Log {
            severity: Severity::Info,
            message: "something happened".into(),
            attributes,
            context: None,
            call_id: None,
        };
        registry.emitter().emit_at(number, "test", Body::Log(log));
    }
}

fn assert_adds_up(counts: Counts) {
    assert_eq!(counts.emitted, counts.stored + counts.dropped, "{counts:?}");
}

#[tokio::test]
async fn everything_emitted_is_stored_and_reaches_the_store() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Notebook::default();
    let (pipeline, registry) = start(config(directory.path()), &store, 5000);
    emit(&registry, 1..=3000, 10);
    pipeline.flush().await;
    assert_eq!(store.numbers(), (1..=3000).collect::<Vec<_>>());
    // The first round of samples comes by itself, and may stand behind many a flush.
    while store.sample_rounds() == 0 {
        pipeline.flush().await;
    }
    assert_adds_up(pipeline.counts());
    assert_eq!(pipeline.counts().dropped, 0);
    assert!(registry.encode_text().contains("pipeline_records_stored_total{kind=\"log\"}"));

    assert_eq!(pipeline.drain(SOON).await, Vec::<String>::new());
    assert_eq!(store.0.lock().expect("not poisoned").flushes, 1);
    // Who emits after the end is counted too.
    emit(&registry, 3001..=3010, 0);
    pipeline.flush().await;
    let counts = pipeline.counts();
    assert_adds_up(counts);
    assert!(counts.dropped >= 10, "{counts:?}");
}

#[tokio::test]
async fn a_full_queue_drops_and_the_counts_still_add_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Notebook::default();
    let (pipeline, registry) = start(config(directory.path()), &store, 10);
    emit(&registry, 1..=5000, 0);
    emit(&registry, [6000], 40_000);
    pipeline.flush().await;
    let counts = pipeline.counts();
    assert_adds_up(counts);
    assert!(counts.dropped > 0, "{counts:?}");
}

#[tokio::test]
async fn a_restart_replays_past_the_checkpoint_exactly_once() {
    let directory = tempfile::tempdir().expect("a directory");
    // One segment per run, so that the checkpoint lies inside it and nothing is trimmed.
    let config =
        || Config { segment_bytes_max: 4 << 20, wal_bytes_max: 16 << 20, ..config(directory.path()) };
    let store = Notebook::default();
    let (pipeline, registry) = start(config(), &store, 5000);
    emit(&registry, 1..=900, 100);
    pipeline.flush().await;
    pipeline.drain(SOON).await;
    let checkpoint = store.position_of(600);

    // The process is gone, and with it what the store had in memory past its checkpoint.
    let revived = Notebook::default();
    revived.0.lock().expect("not poisoned").checkpoint = checkpoint;
    let (pipeline, registry) = start(config(), &revived, 5000);
    emit(&registry, 901..=910, 0);
    pipeline.flush().await;
    assert_eq!(revived.numbers(), (601..=910).collect::<Vec<_>>());
    let counts = pipeline.counts();
    assert_adds_up(counts);
    assert!(counts.stored < 100, "replayed entries are not counted again: {counts:?}");
    let text = registry.encode_text();
    assert!(text.contains("pipeline_missing_entries_total 0"), "{text}");
    assert!(text.contains("pipeline_damaged_bytes_total 0"), "{text}");
    pipeline.drain(SOON).await;
    drop(pipeline);

    // A torn end and a damaged middle are counted and do not stop the start.
    let mut files: Vec<_> = std::fs::read_dir(directory.path().join("wal"))
        .expect("a directory")
        .map(|file| file.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "wal"))
        .collect();
    files.sort();
    let first = files.first().expect("a file");
    let mut bytes = std::fs::read(first).expect("readable");
    bytes[1000] ^= 0xff;
    std::fs::write(first, bytes).expect("writable");
    let last = files.last().expect("a file");
    let mut bytes = std::fs::read(last).expect("readable");
    bytes.extend_from_slice(b"torn");
    std::fs::write(last, bytes).expect("writable");
    let revived = Notebook::default();
    let (pipeline, registry) = start(config(), &revived, 5000);
    pipeline.flush().await;
    let numbers = revived.numbers();
    assert_eq!(numbers.len(), 909);
    assert!(numbers.is_sorted() && numbers.last() == Some(&910));
    let text = registry.encode_text();
    assert!(text.contains("pipeline_missing_entries_total 1"), "{text}");
    assert!(!text.contains("pipeline_damaged_bytes_total 0"), "{text}");
    pipeline.drain(SOON).await;
}

/// A store that is slow to take the first batches: it says that it was called, and waits to be let go.
struct Gate {
    notebook: Notebook,
    called: std::sync::mpsc::SyncSender<()>,
    go: std::sync::mpsc::Receiver<()>,
}

impl Store for Gate {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn apply(&mut self, position: u64, entries: &[Entry]) -> Result<(), StoreError> {
        if self.called.send(()).is_ok() {
            // When the test lets go of its end, nothing waits any more.
            let _gone = self.go.recv();
        }
        self.notebook.apply(position, entries)
    }

    fn checkpoint(&self) -> u64 {
        0
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn tick(&mut self, _: i64) {}
}

/// A store that refuses for a while, from its second call on.
#[derive(Clone)]
struct Full {
    notebook: Notebook,
    calls: std::sync::Arc<std::sync::atomic::AtomicU32>,
    is_full: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl Store for Full {
    fn name(&self) -> &'static str {
        "full"
    }

    fn apply(&mut self, position: u64, entries: &[Entry]) -> Result<(), StoreError> {
        let calls = self.calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if calls > 0 && self.is_full.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(StoreError::new("busy", "no room"));
        }
        self.notebook.apply(position, entries)
    }

    fn checkpoint(&self) -> u64 {
        0
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn tick(&mut self, _: i64) {}
}

#[tokio::test]
async fn what_a_store_refuses_in_a_replay_comes_again_before_what_follows_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let (pipeline, registry) = start(config(directory.path()), &Notebook::default(), 5000);
    emit(&registry, 1..=3000, 0);
    pipeline.drain(SOON).await;
    drop(pipeline);

    let full = Full {
        notebook: Notebook::default(),
        calls: std::sync::Arc::default(),
        is_full: std::sync::Arc::default(),
    };
    full.is_full.store(true, std::sync::atomic::Ordering::Relaxed);
    let (registry, records) = Registry::new(Resource::for_test(), 5000);
    let stores: Vec<Box<dyn Store>> = vec![Box::new(full.clone())];
    let pipeline =
        Pipeline::start(config(directory.path()), registry.clone(), records, stores).expect("it starts");
    emit(&registry, 3001..=3010, 0);
    pipeline.flush().await;
    let taken = full.notebook.numbers();
    assert!(!taken.is_empty() && taken.len() < 3000, "{}", taken.len());
    assert!(full.calls.load(std::sync::atomic::Ordering::Relaxed) <= 4, "it is not asked for each batch");
    full.is_full.store(false, std::sync::atomic::Ordering::Relaxed);
    while full.notebook.numbers().len() < 3010 {
        pipeline.flush().await;
    }
    emit(&registry, 3011..=3020, 0);
    pipeline.flush().await;
    assert_eq!(full.notebook.numbers(), (1..=3020).collect::<Vec<_>>(), "each once and in order");
    pipeline.drain(SOON).await;
}

#[tokio::test]
async fn what_is_emitted_during_a_long_replay_is_kept_and_stays_in_order() {
    let directory = tempfile::tempdir().expect("a directory");
    let (pipeline, registry) = start(config(directory.path()), &Notebook::default(), 5000);
    emit(&registry, 1..=3000, 0);
    pipeline.drain(SOON).await;
    drop(pipeline);

    let (called, is_called) = std::sync::mpsc::sync_channel(0);
    let (go, may_go) = std::sync::mpsc::sync_channel(0);
    let notebook = Notebook::default();
    let gate = Gate { notebook: notebook.clone(), called, go: may_go };
    let (registry, records) = Registry::new(Resource::for_test(), 200);
    let pipeline = Pipeline::start(config(directory.path()), registry.clone(), records, vec![Box::new(gate)])
        .expect("it starts");
    // Twice three quarters of what the queue holds, each while a batch is under way.
    for numbers in [3001..=3150, 3151..=3300] {
        is_called.recv().expect("the replay goes on");
        emit(&registry, numbers, 0);
        go.send(()).expect("the store waits");
    }
    drop((is_called, go));
    pipeline.flush().await;
    assert_eq!(notebook.numbers(), (1..=3300).collect::<Vec<_>>());
    let counts = pipeline.counts();
    assert_adds_up(counts);
    assert_eq!(counts.dropped, 0);
    pipeline.drain(SOON).await;
}

#[tokio::test]
async fn a_failing_disk_costs_counted_records_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Notebook::default();
    let (pipeline, registry) = start(config(directory.path()), &store, 5000);
    let (wal, away) = (directory.path().join("wal"), directory.path().join("away"));
    emit(&registry, 1..=10, 0);
    pipeline.flush().await;
    std::fs::rename(&wal, &away).expect("renamed");
    // Enough to fill the open file, so that a new one is needed.
    for round in 0..20 {
        emit(&registry, round * 100 + 100..round * 100 + 200, 100);
        pipeline.flush().await;
    }
    let counts = pipeline.counts();
    assert_adds_up(counts);
    assert!(counts.dropped > 0, "{counts:?}");
    std::fs::rename(&away, &wal).expect("renamed");
    emit(&registry, [9000], 0);
    pipeline.flush().await;
    assert!(store.numbers().contains(&9000));
    let text = registry.encode_text();
    assert!(!text.contains("pipeline_dropped_total{reason=\"disk\"} 0"), "{text}");
    pipeline.drain(SOON).await;
}

#[tokio::test]
async fn a_log_that_no_store_keeps_up_with_stays_within_its_limit() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Notebook::default();
    let mut config = config(directory.path());
    config.wal_bytes_max = 128 << 10;
    let wal = config.directory.clone();
    let (pipeline, registry) = start(config, &store, 5000);
    for round in 0..10 {
        emit(&registry, round * 100..round * 100 + 100, 500);
        pipeline.flush().await;
    }
    pipeline.drain(SOON).await;
    let sizes = std::fs::read_dir(wal).expect("a directory").map(|file| file.expect("readable").metadata());
    let bytes: u64 = sizes.map(|metadata| metadata.expect("readable").len()).sum();
    assert!(bytes <= 192 << 10, "{bytes} bytes");
    assert!(!registry.encode_text().contains("pipeline_segments_evicted_total 0"));
}

#[tokio::test]
async fn two_processes_cannot_share_a_log() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Notebook::default();
    let (pipeline, _registry) = start(config(directory.path()), &store, 10);
    let (registry, records): (Registry, RecordReceiver) = Registry::new(Resource::for_test(), 10);
    let refused = Pipeline::start(config(directory.path()), registry, records, Vec::new());
    assert!(matches!(refused, Err(Error::InUse { .. })));
    pipeline.drain(SOON).await;
}

/// A collector that passes on what it is sent.
#[derive(Clone)]
struct Collector(mpsc::Sender<String>, mpsc::Sender<trace_v1::ExportTraceServiceRequest>);

#[tonic::async_trait]
impl trace_v1::trace_service_server::TraceService for Collector {
    async fn export(
        &self,
        request: Request<trace_v1::ExportTraceServiceRequest>,
    ) -> Result<Response<trace_v1::ExportTraceServiceResponse>, Status> {
        let request = request.into_inner();
        self.0.send(format!("{request:?}")).await.expect("the test listens");
        self.1.send(request).await.expect("the test listens");
        Ok(Response::new(trace_v1::ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl logs_v1::logs_service_server::LogsService for Collector {
    async fn export(
        &self,
        request: Request<logs_v1::ExportLogsServiceRequest>,
    ) -> Result<Response<logs_v1::ExportLogsServiceResponse>, Status> {
        self.0.send(format!("{:?}", request.into_inner())).await.expect("the test listens");
        Ok(Response::new(logs_v1::ExportLogsServiceResponse::default()))
    }
}

fn private_span_and_log(registry: &Registry) -> SpanContext {
    let context = SpanContext::new_root();
    let attributes = vec![
        ("sip.method".into(), "INVITE".into()),
        ("sip.caller".into(), Pii::new("alice-secret".to_owned()).into()),
    ];
    let call_id = Some(Pii::new("call-secret".to_owned()));
    registry.emitter().span(
        "core",
        Span {
            context,
            parent: None,
            name: "sip.transaction".into(),
            kind: SpanKind::Server,
            start_unix_nanos: belfry_signal::now_unix_nanos(),
            status: SpanStatus::Ok,
            attributes: attributes.clone(),
            call_id: call_id.clone(),
        },
    );
    registry.emitter().log("core", Severity::Warn, "call went wrong", attributes, Some(context), call_id);
    context
}

fn export_config(address: SocketAddr) -> ExportConfig {
    ExportConfig {
        endpoint: format!("http://{address}"),
        timeout: Duration::from_secs(5),
        interval: Duration::from_millis(1),
        batch_records_max: 100,
        queue_records_max: 1000,
    }
}

#[tokio::test]
async fn a_collector_gets_spans_and_logs_and_no_private_value() {
    let incoming = tonic::transport::server::TcpIncoming::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
        .expect("a free port");
    let address = incoming.local_addr().expect("bound");
    let (texts, mut texts_taken) = mpsc::channel(100);
    let (requests, mut requests_taken) = mpsc::channel(100);
    let collector = Collector(texts, requests);
    let server = tonic::transport::Server::builder()
        .add_service(trace_v1::trace_service_server::TraceServiceServer::new(collector.clone()))
        .add_service(logs_v1::logs_service_server::LogsServiceServer::new(collector))
        .serve_with_incoming(incoming);
    let serving = tokio::spawn(server);

    let directory = tempfile::tempdir().expect("a directory");
    let store = Notebook::default();
    let mut config = config(directory.path());
    config.export = Some(export_config(address));
    let (pipeline, registry) = start(config, &store, 100);
    let context = private_span_and_log(&registry);
    pipeline.flush().await;

    let request = tokio::time::timeout(SOON, requests_taken.recv()).await.expect("soon").expect("one");
    let span = &request.resource_spans[0].scope_spans[0].spans[0];
    assert_eq!((span.name.as_str(), &span.trace_id[..]), ("sip.transaction", &context.trace_id.0[..]));
    assert_adds_up(pipeline.counts());
    assert_eq!(pipeline.drain(SOON).await, Vec::<String>::new());
    let mut all = String::new();
    texts_taken.close();
    while let Some(text) = texts_taken.recv().await {
        all.push_str(&text);
    }
    for wanted in ["INVITE", "[private]", "call went wrong", "node-1", "WARN"] {
        assert!(all.contains(wanted), "{wanted} is missing: {all}");
    }
    assert!(!all.contains("secret"), "{all}");
    assert!(registry.encode_text().contains("pipeline_exported_total{outcome=\"sent\"}"));
    serving.abort();
}

#[tokio::test]
async fn a_collector_that_is_not_there_holds_nothing_up() {
    let nobody =
        std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port").local_addr().expect("bound");
    let directory = tempfile::tempdir().expect("a directory");
    let store = Notebook::default();
    let mut config = config(directory.path());
    let mut export = export_config(nobody);
    export.timeout = Duration::from_millis(200);
    export.queue_records_max = 100;
    config.export = Some(export);
    let (pipeline, registry) = start(config, &store, 5000);
    emit(&registry, 1..=2000, 0);
    pipeline.flush().await;
    assert_eq!(store.numbers().len(), 2000);
    assert_eq!(pipeline.counts().dropped, 0, "the collector's drops are not the pipeline's");
    pipeline.drain(SOON).await;
    let text = registry.encode_text();
    assert!(text.contains("pipeline_exported_total{outcome=\"queue_full\"}"), "{text}");
    assert!(text.contains("pipeline_exported_total{outcome=\"failed\"}"), "{text}");
}

#[test]
fn the_section_reads_from_toml_and_is_checked() {
    let text = r#"
        directory = "data/wal"
        segment_bytes_max = 67108864
        wal_bytes_max = 4294967296
        record_bytes_max = 1048576
        commit_interval = "10ms"
        commit_records_max = 4096
        retry_for = "2s"
        sample_interval = "5s"
        [export]
        endpoint = "http://127.0.0.1:4317"
        timeout = "5s"
        interval = "1s"
        batch_records_max = 512
        queue_records_max = 8192
    "#;
    let config: Config = toml::from_str(text).expect("the section reads");
    assert_eq!(config.check(), vec![]);
    let check = |from: &str, to: &str, key: &str| {
        let config: Config = toml::from_str(&text.replace(from, to)).expect("it still reads");
        let keys: Vec<_> = config.check().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, [key]);
    };
    check("data/wal", "", "directory");
    check("4294967296", "1", "wal_bytes_max");
    check("\"10ms\"", "\"1h\"", "commit_interval");
    check("http://", "https://", "export.endpoint");
    check("8192", "1", "export.queue_records_max");
    assert!(toml::from_str::<Config>(&format!("speed = 3\n{text}")).is_err());
}

#[test]
fn records_read_back_as_they_were_written() {
    // Every kind of record crosses the log; a type that postcard cannot read back would show only after a crash.
    let record = Record {
        unix_nanos: 1,
        component: "core".into(),
        body: Body::Sip(belfry_signal::record::SipMessage {
            call_id: Pii::new("a@b".into()),
            trace_id: belfry_signal::TraceId::random(),
            direction: belfry_signal::record::Direction::Received,
            transport: "udp".into(),
            peer: Pii::new("[::1]:5060".parse().expect("an address")),
            node: "edge-1".into(),
            summary: "INVITE".into(),
            cseq: "1 INVITE".into(),
            retransmission: false,
            bytes: Pii::new(vec![0, 1, 2]),
        }),
    };
    let bytes = postcard::to_stdvec(&record).expect("plain data");
    assert_eq!(postcard::from_bytes::<Record>(&bytes).expect("plain data"), record);
}

/// Takes everything, and notes the bytes of the points that it was given at once.
#[derive(Clone, Default)]
struct Weighing(std::sync::Arc<std::sync::Mutex<Vec<usize>>>);

impl Store for Weighing {
    fn name(&self) -> &'static str {
        "weighing"
    }

    fn apply(&mut self, _: u64, entries: &[Entry]) -> Result<(), StoreError> {
        let points = |entry: &Entry| match entry {
            Entry::Series(batch) => batch.points() * size_of::<(i64, belfry_signal::PointValue)>(),
            _ => 0,
        };
        self.0.lock().expect("not poisoned").push(entries.iter().map(points).sum());
        Ok(())
    }

    fn checkpoint(&self) -> u64 {
        0
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn tick(&mut self, _: i64) {}
}

#[tokio::test]
async fn a_replay_of_long_entries_is_bounded_by_bytes() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = || Config {
        segment_bytes_max: 64 << 20,
        wal_bytes_max: 256 << 20,
        record_bytes_max: 1 << 20,
        ..config(directory.path())
    };
    let open = |store: &Weighing| {
        let (registry, records) = Registry::new(Resource::for_test(), 100);
        Pipeline::start(config(), registry, records, vec![Box::new(store.clone())]).expect("it starts")
    };
    let pipeline = open(&Weighing::default());
    let labels: belfry_signal::SeriesLabels = [("__name__".into(), "m".into())].into();
    for round in 0..150 {
        let point = |at: i64| (round * 10_000 + at, belfry_signal::PointValue::Float(at as f64 / 7.0));
        let (created_ms, exemplars) = (None, Vec::new());
        let points = (0..10_000).map(point).collect();
        let series = belfry_signal::SeriesPoints { labels: labels.clone(), created_ms, points, exemplars };
        let batch = belfry_signal::SeriesBatch { series: vec![series], metadata: Vec::new() };
        pipeline.write(batch).await.expect("written");
    }
    pipeline.drain(SOON).await;
    drop(pipeline);
    let again = Weighing::default();
    let pipeline = open(&again);
    pipeline.flush().await;
    let weights = again.0.lock().expect("not poisoned").clone();
    // A point takes half its size in the log.
    assert!(weights.len() >= 2 && weights.iter().all(|bytes| *bytes <= 24 << 20), "{weights:?}");
    assert_eq!(weights.iter().sum::<usize>(), 1_500_000 * size_of::<(i64, belfry_signal::PointValue)>());
    pipeline.drain(SOON).await;
}
