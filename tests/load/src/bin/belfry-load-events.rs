//! What telemetry costs: our own records through emitter, log, live buffer and splits, and searches afterwards.
//!
//! The processor time of the thread that makes the records is not counted, that of handing them over is. "Raw" is the
//! length of each record as a line of JSON. One line of figures each, for people and for scripts.

#![allow(clippy::expect_used, clippy::print_stdout, reason = "a measuring program")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use belfry::app::observe::EventsStore;
use belfry_events::{Config, Events, EventsReader, LogQuery, RecordKind};
use belfry_load::stream::{Stream, raw_bytes};
use belfry_pipeline::{Pipeline, PipelineHandle};
use belfry_signal::record::{Body, Call, Record};
use belfry_signal::{Registry, Resource};
use clap::Parser;
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};

#[derive(Parser)]
struct Arguments {
    /// How many records.
    #[arg(long, default_value_t = 500_000)]
    records: usize,
    /// Records a second; nothing means as fast as they are taken.
    #[arg(long)]
    rate: Option<f64>,
    /// Where the store is; a temporary directory unless given.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Time from one record to the next, in microseconds, as the records say it.
    #[arg(long, default_value_t = 200)]
    step_micros: u64,
    /// Only the write-ahead log, without the store.
    #[arg(long)]
    log_only: bool,
    /// How often the log is fsynced, in milliseconds.
    #[arg(long, default_value_t = 10)]
    commit_millis: u64,
    /// Ages, in seconds, at which a live buffer becomes a split.
    #[arg(long)]
    seal_seconds: Option<u64>,
    /// Seconds of measuring how soon a record is visible.
    #[arg(long, default_value_t = 5)]
    probe_seconds: u64,
    /// Look-ups of calls and traces.
    #[arg(long, default_value_t = 300)]
    lookups: usize,
}

fn seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default()).as_secs_f64()
}

fn unix_nanos() -> u64 {
    belfry_signal::now_unix_nanos()
}

fn disk_bytes(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_ascii_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or_default()
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn main() {
    let arguments = Arguments::parse();
    let temporary = tempfile::tempdir().expect("a directory");
    let directory = arguments.directory.clone().unwrap_or_else(|| temporary.path().to_owned());
    let (registry, receiver) = Registry::new(Resource::for_test(), 65_536);
    let mut config = Config::for_test(directory.join("events"));
    config.merged_records_max = 500_000;
    config.disk_bytes_max = 1 << 40;
    config.hand_over_wait = Duration::from_secs(30);
    if let Some(age) = arguments.seal_seconds {
        config.seal_age = Duration::from_secs(age);
    }
    let (writer, reader) = Events::open(config, &registry).expect("the store opens");
    let stores: Vec<Box<dyn belfry_pipeline::Store>> =
        if arguments.log_only { vec![] } else { vec![Box::new(EventsStore(writer))] };
    let wal = directory.join("wal");
    let pipeline_config = belfry_pipeline::Config {
        directory: wal,
        segment_bytes_max: 64 << 20,
        wal_bytes_max: 4 << 30,
        record_bytes_max: 1 << 20,
        commit_interval: Duration::from_millis(arguments.commit_millis),
        commit_records_max: 4096,
        retry_for: Duration::from_secs(2),
        sample_interval: Duration::from_secs(3600),
        export: None,
    };
    let pipeline = Pipeline::start(pipeline_config, registry.clone(), receiver, stores).expect("starts");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");

    let step_nanos = arguments.step_micros * 1000;
    let start = unix_nanos() - step_nanos * arguments.records as u64;
    let mut stream = Stream::new(7, start, step_nanos);
    let raw = feed(&arguments, &registry, &pipeline, &mut stream, &runtime);
    if !arguments.log_only {
        settle(&directory, &raw);
        visible(&arguments, &registry, &reader, &mut stream);
        look_up(&arguments, &reader, &stream);
        ask(&reader);
    }
    println!("memory: {} MB now, {} MB at most", status("VmRSS:") / 1000, status("VmHWM:") / 1000);
    runtime.block_on(pipeline.drain(Duration::from_secs(30)));
}

/// Raw bytes, and what they cost.
struct Raw {
    bytes: u64,
    records: u64,
    cpu_seconds: f64,
    made_seconds: f64,
}

fn feed(
    arguments: &Arguments,
    registry: &Registry,
    pipeline: &PipelineHandle,
    stream: &mut Stream,
    runtime: &tokio::runtime::Runtime,
) -> Raw {
    let emitter = registry.emitter();
    let mut raw = Raw { bytes: 0, records: 0, cpu_seconds: 0.0, made_seconds: 0.0 };
    let began = Instant::now();
    let (cpu_began, thread_began) = (seconds(ClockId::ProcessCPUTime), seconds(ClockId::ThreadCPUTime));
    let mut handed_seconds = 0.0;
    let mut chunk: Vec<Record> = Vec::new();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number")]
    let chunk_records = arguments.rate.map_or(256, |rate| (rate / 200.0).clamp(1.0, 256.0) as usize);
    while raw.records < arguments.records as u64 {
        while chunk.len() < chunk_records {
            stream.next_into(&mut chunk);
        }
        raw.records += chunk.len() as u64;
        raw.bytes += chunk.iter().map(|record| raw_bytes(record) as u64).sum::<u64>();
        if let Some(rate) = arguments.rate {
            #[expect(clippy::cast_precision_loss, reason = "a time")]
            let due = Duration::from_secs_f64(raw.records as f64 / rate);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
        loop {
            let counts = pipeline.counts();
            if counts.emitted - counts.stored - counts.dropped < 32_768 {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let before = seconds(ClockId::ThreadCPUTime);
        for record in chunk.drain(..) {
            emitter.emit_at(record.unix_nanos, "load", record.body);
        }
        handed_seconds += seconds(ClockId::ThreadCPUTime) - before;
    }
    runtime.block_on(pipeline.flush());
    // The builder and the housekeeper still have work in hand: wait until the process is idle.
    let mut last = seconds(ClockId::ProcessCPUTime);
    loop {
        std::thread::sleep(Duration::from_millis(1500));
        let now = seconds(ClockId::ProcessCPUTime);
        if now - last < 0.02 {
            break;
        }
        last = now;
    }
    let thread = seconds(ClockId::ThreadCPUTime) - thread_began;
    raw.made_seconds = thread - handed_seconds;
    raw.cpu_seconds = seconds(ClockId::ProcessCPUTime) - cpu_began - raw.made_seconds;
    report(&raw, handed_seconds, began.elapsed(), pipeline);
    raw
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn report(raw: &Raw, handed_seconds: f64, took: Duration, pipeline: &PipelineHandle) {
    let counts = pipeline.counts();
    println!(
        "fed: {} records, {:.1} MB raw ({} B each) in {:.1} s; stored {}, dropped {}",
        raw.records,
        megabytes(raw.bytes),
        raw.bytes / raw.records,
        took.as_secs_f64(),
        counts.stored,
        counts.dropped,
    );
    println!(
        "cost: {:.2} us a record ({:.2} of it to hand over), {:.1} MB/s raw per CPU-second, {:.0} records/s per CPU-second",
        raw.cpu_seconds * 1e6 / raw.records as f64,
        handed_seconds * 1e6 / raw.records as f64,
        megabytes(raw.bytes) / raw.cpu_seconds,
        raw.records as f64 / raw.cpu_seconds,
    );
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn settle(directory: &Path, raw: &Raw) {
    let (events, wal) = (disk_bytes(&directory.join("events")), disk_bytes(&directory.join("wal")));
    println!(
        "disk: {:.1} MB of splits and catalogue = 1/{:.1} of raw; log {:.1} MB; memory {} MB",
        megabytes(events),
        raw.bytes as f64 / events as f64,
        megabytes(wal),
        status("VmRSS:") / 1000,
    );
}

/// A record of its own trace every 50 ms among others, and how long until a search has it.
fn visible(arguments: &Arguments, registry: &Registry, reader: &EventsReader, stream: &mut Stream) {
    let emitter = registry.emitter();
    let mut waits = Histogram::<u64>::new(3).expect("a histogram");
    let began = Instant::now();
    let mut others: Vec<Record> = Vec::new();
    while began.elapsed() < Duration::from_secs(arguments.probe_seconds) {
        for _ in 0..20 {
            stream.next_into(&mut others);
        }
        let probe = others.iter().find(|record| matches!(record.body, Body::Call(_))).cloned();
        let Some(Record { body: Body::Call(call), .. }) = probe else { continue };
        let trace_id = call.trace_id;
        for record in
            others.drain(..).filter(|record| belfry_events::trace_id(&record.body) != Some(trace_id))
        {
            emitter.emit("load", record.body);
        }
        let handed = Instant::now();
        emitter.emit("load", Body::Call(Box::new(Call::clone(&call))));
        while reader.trace(trace_id).expect("read").is_none() {
            std::thread::sleep(Duration::from_micros(500));
        }
        waits.record(u64::try_from(handed.elapsed().as_micros()).unwrap_or(u64::MAX)).expect("fits");
        std::thread::sleep(Duration::from_millis(20));
    }
    print_times("visible after", &waits);
}

fn print_times(what: &str, times: &Histogram<u64>) {
    let millis = |quantile: f64| Duration::from_micros(times.value_at_quantile(quantile)).as_secs_f64() * 1e3;
    println!(
        "{what}: p50 {:.2} ms, p99 {:.2} ms, at most {:.2} ms ({})",
        millis(0.5),
        millis(0.99),
        millis(1.0),
        times.len()
    );
}

fn look_up(arguments: &Arguments, reader: &EventsReader, stream: &Stream) {
    let mut times = [Histogram::<u64>::new(3).expect("a histogram"), Histogram::new(3).expect("a histogram")];
    let calls = stream.calls();
    let step = (calls.len() / arguments.lookups.max(1)).max(1);
    for (call_id, trace_id) in calls.iter().step_by(step) {
        let began = Instant::now();
        let view = reader.call(call_id).expect("read").expect("known");
        times[0].record(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)).expect("fits");
        assert!(!view.timeline.messages.is_empty());
        let began = Instant::now();
        reader.trace(*trace_id).expect("read").expect("known");
        times[1].record(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)).expect("fits");
    }
    print_times("one call by its Call-ID", &times[0]);
    print_times("one trace by its id", &times[1]);
}

/// Ten questions that people ask, over everything.
fn ask(reader: &EventsReader) {
    let questions = [
        ("", vec![]),
        ("severity:>=warn", vec![]),
        ("backend_error", vec![]),
        ("kind:call attributes.call.outcome:failed", vec![]),
        ("rtc.mos:<3.01 kind:quality", vec![]),
        ("sip.method:REGISTER sip.response.status_code:401", vec![]),
        ("4930012345", vec![]),
        ("\"mesh link lost\" core-fra-2", vec![]),
        ("link* -reset", vec![RecordKind::Log]),
        ("http.response.status_code:>=500 \"/api/v1/presence\"", vec![]),
    ];
    for (text, kinds) in questions {
        let mut times = Histogram::<u64>::new(3).expect("a histogram");
        let mut found = (0, 0);
        for _ in 0..5 {
            let began = Instant::now();
            let query =
                LogQuery { text: text.to_owned(), kinds: kinds.clone(), limit: 100, ..LogQuery::default() };
            let rows = reader.search(&query).expect("read");
            times.record(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)).expect("fits");
            found = (rows.rows.len(), rows.splits_read);
        }
        print_times(&format!("[{text}] {} rows of {} splits", found.0, found.1), &times);
    }
}
