//! What the store costs: samples per CPU-second, bytes per sample after compaction, memory per active series, start-up.
//!
//! ```text
//! cargo run --release -p belfry-series --example bench [SERIES] [KIND...]
//! ```
//! `BELFRY_BENCH_ROUNDS` says how many samples each series gets. Kinds: `counters`, `gauges`, `own`, `random`. Each runs in a process of its own, so that memory is its own. Prints one
//! line of JSON per kind, for `tests/bench`.

#![allow(clippy::expect_used, clippy::print_stdout, reason = "a program that prints what it measured")]

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use belfry_series::{Config, Matcher, Series};
use belfry_signal::{PointValue, Registry, SeriesBatch, SeriesLabels, SeriesPoints};

const START_MS: i64 = 1_700_006_400_000;
const STEP_MS: i64 = 15_000;
/// Two windows and a bit: sealed, compacted, and a head that is as full as it gets.
const ROUNDS: i64 = 480 * 2;
/// The round before the first window is over.
const FULL: i64 = 478;

/// A generator of numbers that is the same in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn labels(kind: &str, number: usize) -> SeriesLabels {
    let pairs = [
        ("__name__", format!("{kind}_metric_{:03}_total", number % 97)),
        ("datacenter", format!("site-{}", number % 3)),
        ("instance", format!("10.{}.{}.{}:9100", number / 65_536, number / 256 % 256, number % 256)),
        ("job", "node".to_owned()),
        ("mode", ["idle", "system", "user"][number % 3].to_owned()),
    ];
    pairs.iter().map(|(name, value)| (Arc::from(*name), Arc::from(value.as_str()))).collect()
}

/// The next value of a series, as such series go.
fn next_value(kind: &str, number: usize, value: f64, noise: &mut Noise) -> f64 {
    match kind {
        // Requests, bytes: most rise by a few, some stand, a few rise by many.
        "counters" => match number % 10 {
            0..=3 => value,
            4..=7 => value + noise.below(12) as f64,
            8 => value + (noise.below(5) * 1460) as f64,
            _ => value + 15.0,
        },
        // Memory, queues, temperatures: they repeat, and move in steps.
        "gauges" => match number % 10 {
            0..=4 => value,
            5..=7 if noise.below(8) > 0 => value,
            5..=7 => noise.below(64) as f64,
            8 => value + (noise.below(9) as f64 - 4.0) * 4096.0,
            _ => ((20.0 + noise.unit() * 5.0) * 10.0).round() / 10.0,
        },
        // A page like our own: many counters that stand, histograms' buckets, a few gauges.
        "own" => match number % 20 {
            0..=11 => value,
            12..=16 if noise.below(3) > 0 => value,
            12..=16 => value + noise.below(4) as f64,
            17 => value + noise.unit() * 0.01,
            18 => value + 1.0,
            _ => noise.below(200) as f64,
        },
        _ => noise.unit(),
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let series: usize = arguments.first().and_then(|text| text.parse().ok()).unwrap_or(20_000);
    if let Some(kind) = arguments.get(1).filter(|_| arguments.len() == 2) {
        return println!("{}", measure(kind, series));
    }
    let kinds = if arguments.len() > 2 {
        arguments[1..].to_vec()
    } else {
        ["counters", "gauges", "own", "random"].map(str::to_owned).to_vec()
    };
    for kind in kinds {
        let program = std::env::current_exe().expect("this program");
        let status = Command::new(program).args([series.to_string(), kind]).status().expect("it runs");
        assert!(status.success());
    }
}

fn measure(kind: &str, series: usize) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let config = Config {
        metric_series_max: series,
        series_max: series.max(1_000_000),
        head_bytes_max: 4 << 30,
        ..Config::in_directory(directory.path())
    };
    let registry = Registry::for_test();
    let (mut writer, reader) = Series::open(config.clone(), &registry).expect("it opens");
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let mut values: Vec<f64> = (0..series).map(|_| noise.below(1000) as f64).collect();
    let all: Vec<SeriesLabels> = (0..series).map(|number| labels(kind, number)).collect();
    let before = resident_bytes();
    let mut taking = Duration::ZERO;
    let mut head_bytes = 0;
    let rounds: i64 =
        std::env::var("BELFRY_BENCH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    for round in 0..rounds {
        // Instances are scraped at their own time, and a few milliseconds off.
        let jitter: Vec<i64> = (0..64).map(|target| target * 200 + noise.below(5).cast_signed()).collect();
        let mut batch = SeriesBatch::default();
        for (number, labels) in all.iter().enumerate() {
            values[number] = next_value(kind, number, values[number], &mut noise);
            let time = START_MS + round * STEP_MS + jitter[number % 64];
            let points = vec![(time, PointValue::Float(values[number]))];
            batch.series.push(SeriesPoints {
                labels: Arc::clone(labels),
                created_ms: None,
                points,
                exemplars: Vec::new(),
            });
        }
        let began = cpu_seconds();
        writer.write(u64::try_from(round).expect("small") + 1, &batch).1.expect("the disk works");
        taking += Duration::from_secs_f64(cpu_seconds() - began);
        if round == FULL.min(rounds - 1) {
            head_bytes = resident_bytes().saturating_sub(before);
        }
    }
    let samples = series as f64 * rounds as f64;
    let began = cpu_seconds();
    writer.flush().expect("the disk works");
    let sealed_bytes = block_bytes(directory.path());
    writer.maintenance().compact_all().expect("the disk works");
    let compacting = cpu_seconds() - began;
    let bytes = block_bytes(directory.path());
    let began = Instant::now();
    let one = reader
        .select(&[Matcher::equal("instance", "10.0.0.7:9100")], i64::MIN, i64::MAX)
        .expect("few points");
    let select_seconds = began.elapsed().as_secs_f64();
    drop((writer, reader));
    let began = Instant::now();
    let (_writer, _reader) = Series::open(config, &Registry::for_test()).expect("it opens");
    let open_seconds = began.elapsed().as_secs_f64();
    format!(
        "{{\"kind\":\"{kind}\",\"series\":{series},\"samples\":{samples},\"samples_per_cpu_second\":{:.0},\
         \"samples_per_cpu_second_with_compaction\":{:.0},\"head_bytes_per_series\":{:.0},\
         \"bytes_per_sample_sealed\":{:.3},\"bytes_per_sample\":{:.3},\"select_one_seconds\":{select_seconds:.4},\
         \"select_points\":{},\"open_seconds\":{open_seconds:.4}}}",
        samples / taking.as_secs_f64(),
        samples / (taking.as_secs_f64() + compacting),
        head_bytes as f64 / series as f64,
        sealed_bytes as f64 / samples,
        bytes as f64 / samples,
        one.iter().map(|series| series.points.len()).sum::<usize>(),
    )
}

fn block_bytes(directory: &std::path::Path) -> u64 {
    let files = std::fs::read_dir(directory).expect("a directory").flatten();
    let blocks = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "block"));
    blocks.map(|file| file.metadata().expect("there").len()).sum()
}

fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: u64 = text.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).expect("a number");
    pages * 4096
}

/// User and system time of this process.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").ok();
    let main =
        text.and_then(|text| text.split_whitespace().next().and_then(|nanos| nanos.parse::<f64>().ok()));
    main.expect("Linux") / 1e9
}
