//! The store of series under crashes: `kill -9` and power cuts during ingest, compaction, downsampling and uploads, again and
//! again. Every acknowledged sample is there, levels say what raw samples say, and every start succeeds.
//!
//! A power cut is simulated on the files: what was written and not fsynced is cut at a random place or overwritten with
//! noise. `BELFRY_CRASH_ROUNDS` says how many crashes there are.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use belfry::app::observe::SeriesStore;
use belfry_pipeline::{Pipeline, PipelineHandle, WriteError};
use belfry_series::{Matcher, Series, SeriesReader};
use belfry_signal::{PointValue, Registry, Resource, SeriesBatch, SeriesPoints};

const DIRECTORY: &str = "BELFRY_STORE_CRASH_DIRECTORY";
const FIRST: &str = "BELFRY_STORE_CRASH_FIRST";
const START_MS: i64 = 1_700_006_400_000;
/// Time between two batches, in the data: a window of a minute is sealed every few of them.
const STEP_MS: i64 = 7_000;
const SERIES: usize = 12;
/// Batches that are left out after each crash: in the data, a day is over every few crashes, and is downsampled.
const LEFT_OUT: i64 = 4_000;
const HOUR_MS: i64 = 3_600_000;
const YEARS: Duration = Duration::from_secs(3600 * 24 * 365 * 20);

fn series_config(directory: &Path) -> belfry_series::Config {
    belfry_series::Config {
        block_duration: Duration::from_secs(60),
        compacted_duration_max: Duration::from_secs(3600),
        retention: YEARS,
        five_minutes_after: Duration::from_secs(60),
        five_minutes_retention: YEARS,
        one_hour_after: Duration::from_secs(60),
        one_hour_retention: YEARS,
        // Everything is old: it goes up as soon as it is sealed, and what is in it is read there.
        bucket: Some(belfry_series::BucketConfig {
            upload_after: Duration::ZERO,
            local_for: Duration::ZERO,
            ..belfry_series::BucketConfig::in_directory(directory.join("bucket"))
        }),
        select_points_max: 100_000_000,
        ..belfry_series::Config::in_directory(directory.join("series"))
    }
}

fn pipeline_config(directory: &Path) -> belfry_pipeline::Config {
    belfry_pipeline::Config {
        directory: directory.join("wal"),
        segment_bytes_max: 64 << 10,
        wal_bytes_max: 64 << 20,
        record_bytes_max: 1 << 20,
        commit_interval: Duration::from_millis(1),
        commit_records_max: 64,
        retry_for: Duration::ZERO,
        sample_interval: Duration::from_secs(3600),
        export: None,
    }
}

fn start(directory: &Path) -> (PipelineHandle, SeriesReader, Registry) {
    let (registry, records) = Registry::new(Resource::for_test(), 1024);
    let (mut writer, reader) =
        Series::open(series_config(directory), &registry).expect("every start succeeds");
    writer.compact_in_background().expect("a thread");
    let stores: Vec<Box<dyn belfry_pipeline::Store>> = vec![Box::new(SeriesStore::new(writer))];
    let pipeline = Pipeline::start(pipeline_config(directory), registry.clone(), records, stores);
    (pipeline.expect("every start succeeds"), reader, registry)
}

fn batch(number: i64) -> SeriesBatch {
    let one = |at: usize| SeriesPoints {
        labels: [("__name__", "crash_total".to_owned()), ("at", at.to_string())]
            .map(|(name, value)| (Arc::from(name), Arc::from(value.as_str())))
            .into(),
        created_ms: None,
        points: vec![(START_MS + number * STEP_MS, PointValue::Float(number as f64 * 3.0))],
        exemplars: Vec::new(),
    };
    SeriesBatch { series: (0..SERIES).map(one).collect(), metadata: Vec::new() }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// The newest file of the log and its length.
fn log_end(directory: &Path) -> (PathBuf, u64) {
    let files = std::fs::read_dir(directory.join("wal")).expect("a log").flatten().map(|file| file.path());
    let newest = files.filter(|path| path.extension().is_some_and(|held| held == "wal")).max();
    let newest = newest.expect("a file of the log");
    let length = newest.metadata().map_or(0, |metadata| metadata.len());
    (newest, length)
}

/// Not a test of its own: what the crashes happen to. Without the variable it has nothing to do.
#[test]
#[allow(clippy::print_stdout, reason = "the parent reads it")]
fn ingests_until_it_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let first: i64 = std::env::var(FIRST).expect("a number").parse().expect("a number");
    let (pipeline, _reader, _registry) = start(&directory);
    runtime().block_on(async {
        for number in first.. {
            if pipeline.write(batch(number)).await.is_ok() {
                let (file, length) = log_end(&directory);
                let mut out = std::io::stdout().lock();
                writeln!(out, "ack {number} {length} {}", file.display()).expect("the parent listens");
                out.flush().expect("the parent listens");
            }
        }
    });
}

/// What the child acknowledged last, and how long which file of the log was then.
struct Acknowledged {
    number: i64,
    length: u64,
    file: PathBuf,
}

fn ingest_and_kill(directory: &Path, first: i64, acknowledgements: i64) -> Acknowledged {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["store_crash::ingests_until_it_is_killed", "--exact", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let out = BufReader::new(child.stdout.take().expect("piped"));
    let mut last = None;
    let mut left = acknowledgements;
    for line in out.lines() {
        let line = line.expect("text");
        // The harness may write its own words before on the same line.
        let Some(at) = line.find("ack ") else { continue };
        let words: Vec<&str> = line[at..].split(' ').collect();
        let [_, number, length, file] = words[..] else { continue };
        last = Some(Acknowledged {
            number: number.parse().expect("a number"),
            length: length.parse().expect("a number"),
            file: file.into(),
        });
        left -= 1;
        if left == 0 {
            child.kill().expect("it was alive");
        }
    }
    child.wait().expect("it ended");
    last.expect("something was acknowledged")
}

/// Loses what was not fsynced: cuts it at a random place, and sometimes leaves noise.
fn cut_power(directory: &Path, last: &Acknowledged) {
    for entry in std::fs::read_dir(directory.join("wal")).expect("a log").flatten() {
        let path = entry.path();
        let written = path.metadata().map_or(0, |metadata| metadata.len());
        let durable = match path.cmp(&last.file) {
            std::cmp::Ordering::Less => written,
            std::cmp::Ordering::Equal => last.length,
            std::cmp::Ordering::Greater => 0,
        };
        let is_log = path.extension().is_some_and(|held| held == "wal");
        if !is_log || written <= durable {
            continue;
        }
        let kept = durable + rand::random::<u64>() % (written - durable + 1);
        let mut bytes = std::fs::read(&path).expect("readable");
        bytes.truncate(usize::try_from(kept).expect("small"));
        if rand::random::<bool>() {
            bytes.extend((0..rand::random::<u8>()).map(|_| rand::random::<u8>()));
        }
        std::fs::write(&path, bytes).expect("writable");
    }
    for entry in std::fs::read_dir(directory.join("series")).expect("a store").flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|held| held == "new") {
            let bytes = std::fs::read(&path).expect("readable");
            let kept = usize::try_from(rand::random::<u64>()).unwrap_or(0) % (bytes.len() + 1);
            std::fs::write(&path, &bytes[..kept]).expect("writable");
        }
    }
}

/// The numbers of batches that are whole in the store, from one number to another.
fn found(reader: &SeriesReader, from: i64, to: i64) -> Vec<i64> {
    let (from_ms, to_ms) = (START_MS + from * STEP_MS, START_MS + to * STEP_MS);
    let series = reader.select(&[Matcher::metric("crash_total")], from_ms, to_ms).expect("it answers");
    assert_eq!(series.len(), SERIES);
    for other in &series[1..] {
        assert_eq!(other.points, series[0].points, "batches are there whole or not at all");
    }
    let number = |(time, value): &(i64, f64)| {
        let number = (time - START_MS) / STEP_MS;
        assert!((value - number as f64 * 3.0).abs() < 1e-9, "{number}: {value}");
        number
    };
    series[0].points.iter().map(number).collect()
}

/// How many samples one series has, counted hour by hour: from levels, where there are some.
fn counted(reader: &SeriesReader, to: i64) -> f64 {
    let start_ms = START_MS.div_euclid(HOUR_MS) * HOUR_MS;
    let end_ms = start_ms + (to * STEP_MS).div_euclid(HOUR_MS) * HOUR_MS + 2 * HOUR_MS;
    let options = belfry_promql::Options {
        lookback_ms: 300_000,
        samples_max: 100_000_000,
        subquery_step_ms: 60_000,
        experimental: false,
    };
    let times = belfry_promql::Times::Range { start_ms, end_ms, step_ms: HOUR_MS };
    let cancel = std::sync::atomic::AtomicBool::new(false);
    let source = belfry_series::PromqlSource::new(reader, &cancel);
    let query = "count_over_time(crash_total{at=\"0\"}[1h])";
    let answer = belfry_promql::query(query, &source, times, &options, &cancel).expect("it answers");
    assert_eq!(answer.annotations.iter().count(), 0, "nothing is missing");
    let belfry_promql::Data::Matrix(series) = answer.data else { panic!("no matrix") };
    series.iter().flat_map(|series| &series.floats).map(|(_, count)| count).sum()
}

/// What a metric without labels says.
fn value(registry: &Registry, name: &str) -> f64 {
    let text = registry.encode_text();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| value.trim().parse().ok()).expect("it is registered")
}

#[test]
#[allow(clippy::print_stdout, reason = "how many crashes there were")]
fn every_acknowledged_sample_survives_kills_and_power_cuts() {
    let rounds: u32 =
        std::env::var("BELFRY_CRASH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    let directory = tempfile::tempdir().expect("a directory");
    let mut acknowledged: Vec<std::ops::RangeInclusive<i64>> = Vec::new();
    let (mut days, mut uploads) = (0.0, 0.0);
    let mut first = 0;
    for round in 0..rounds {
        let last = ingest_and_kill(directory.path(), first, 1 + i64::from(rand::random::<u8>() % 60));
        acknowledged.push(first..=last.number);
        if round % 2 == 1 {
            cut_power(directory.path(), &last);
        }
        let is_last = round + 1 == rounds;
        if !is_last && round % 10 != 9 {
            first = last.number + LEFT_OUT;
            continue;
        }
        let (pipeline, reader, registry) = start(directory.path());
        runtime().block_on(async {
            pipeline.flush().await;
            for numbers in &acknowledged {
                let there = found(&reader, *numbers.start(), *numbers.end());
                assert_eq!(there, numbers.clone().collect::<Vec<_>>(), "round {round}");
            }
            let raw = reader.select(&[Matcher::equal("at", "0")], i64::MIN, i64::MAX).expect("it answers");
            let samples: usize = raw.iter().map(|series| series.points.len()).sum();
            let difference = counted(&reader, last.number) - samples as f64;
            assert!(difference.abs() < 0.5, "round {round}: levels have {difference} more of {samples}");
            assert!(registry.encode_text().contains("series_blocks_damaged_total 0"), "nothing was damaged");
            assert!(pipeline.drain(Duration::from_secs(60)).await.is_empty(), "it stops in order");
        });
        days += value(&registry, "series_days_downsampled_total ");
        uploads += value(&registry, "series_blocks_uploaded_total ");
        first = last.number + LEFT_OUT;
    }
    let batches: i64 = acknowledged.iter().map(|numbers| numbers.end() - numbers.start() + 1).sum();
    // Most are made, and most go up, between two crashes, in the processes that crash.
    println!(
        "{rounds} crashes, {batches} acknowledged batches, none lost; at checks {days} days were downsampled and {uploads} blocks uploaded"
    );
    assert!(rounds < 100 || (days > 0.0 && uploads > 0.0), "there was nothing to crash");
}

#[test]
fn a_full_disk_refuses_clearly_queries_go_on_and_it_recovers_by_itself() {
    let directory = tempfile::tempdir().expect("a directory");
    let (pipeline, reader, _registry) = start(directory.path());
    runtime().block_on(async {
        pipeline.write(batch(1)).await.expect("the disk works");
        let (log, away) = (directory.path().join("wal"), directory.path().join("away"));
        std::fs::rename(&log, &away).expect("renamed");
        // The file that is open can still be written to; the next one cannot be made.
        let mut number = 2;
        let refused = loop {
            match pipeline.write(batch(number)).await {
                Ok(_) => number += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(refused, WriteError::Disk);
        assert_eq!(found(&reader, 0, number), (1..number).collect::<Vec<_>>());
        std::fs::rename(&away, &log).expect("renamed");
        pipeline.write(batch(number)).await.expect("the disk works again");
        assert_eq!(found(&reader, 0, number), (1..=number).collect::<Vec<_>>());
    });
}
