//! Blocks of Prometheus: out, in again, and before the eyes of promtool.

use std::process::Command;

use super::samples::at;
use super::*;
use crate::Carried;

fn filled(directory: &Path) -> (SeriesWriter, SeriesReader) {
    let (mut writer, reader, _) = open(config(directory));
    append(&mut writer, 0..150);
    let odd = [sample("odd", &[("text", "größe \"x\"\n")], -1.5e-300), sample("odd", &[], f64::INFINITY)];
    writer.append(151, at(150), &odd).expect("the disk works");
    let histogram = |minute: i64| {
        // A restart after an hour, and halves at the end.
        let count = if minute < 60 { minute } else { minute - 60 } as f64;
        let count = if minute < 140 { count } else { count + 0.5 };
        belfry_signal::PointValue::Histogram(Box::new(belfry_signal::NativeHistogram {
            count: count * 3.0,
            sum: count * 0.7,
            schema: 1,
            zero_threshold: 1e-9,
            positive: vec![(-2, count), (-1, count), (7 + i32::from(minute > 30), count)],
            ..belfry_signal::NativeHistogram::default()
        }))
    };
    let series = belfry_signal::SeriesPoints {
        labels: super::samples::labels(&[("__name__", "spread")]),
        points: (0..150).map(|minute| (at(minute), histogram(minute))).collect(),
        ..super::samples::series("", &[])
    };
    let batch = belfry_signal::SeriesBatch { series: vec![series], metadata: Vec::new() };
    assert_eq!(writer.write(152, &batch).0.histograms, 150);
    writer.flush().expect("the disk works");
    writer.maintenance().compact_all().expect("the disk works");
    (writer, reader)
}

/// Without what is known about resets, which a chunk says by other means, and without empty buckets.
fn histograms(reader: &SeriesReader) -> Vec<(i64, belfry_promql::Histogram)> {
    let matcher = belfry_promql::Matcher::equal("__name__", "spread");
    let found = belfry_promql::Series::select(reader, &[matcher], i64::MIN, i64::MAX).expect("it answers");
    let plain = |(time, held): &(i64, std::sync::Arc<belfry_promql::Histogram>)| {
        let mut held = (**held).clone();
        held.hint = belfry_promql::CounterReset::Unknown;
        held.positive.retain(|(_, count)| *count != 0.0);
        (*time, held)
    };
    found[0].histograms.iter().map(plain).collect()
}

fn evaluated(reader: &SeriesReader, query: &str) -> belfry_promql::Data {
    evaluated_at(reader, query, 149)
}

fn evaluated_at(reader: &SeriesReader, query: &str, minute: i64) -> belfry_promql::Data {
    let options = belfry_promql::Options {
        lookback_ms: 300_000,
        samples_max: 1_000_000,
        subquery_step_ms: 60_000,
        experimental: false,
    };
    let times = belfry_promql::Times::Instant(at(minute));
    belfry_promql::query(query, reader, times, &options, &AtomicBool::new(false)).expect("it evaluates").data
}

#[test]
fn blocks_go_out_and_come_in_again_unchanged() {
    let directories: [_; 3] = std::array::from_fn(|_| tempfile::tempdir().expect("a directory"));
    let (writer, reader) = filled(directories[0].path());
    let prometheus = directories[1].path();
    let mut told = Vec::new();
    let carried = writer
        .maintenance()
        .export_prometheus(prometheus, &mut |done, whole| told.push((done, whole)))
        .expect("the disk works");
    assert_eq!((carried.samples, carried.histograms, carried.histograms_left_out), (602, 150, 0));
    assert_eq!(told.last(), Some(&(carried.blocks, carried.blocks)));
    let again = writer.maintenance().export_prometheus(prometheus, &mut |_, _| {}).expect("the disk works");
    assert_eq!(again, Carried { blocks_before: carried.blocks, ..Carried::default() });

    let long = Config { retention: Duration::from_hours(24), ..config(directories[2].path()) };
    let (copy_writer, copy_reader, _) = open(long);
    let imported =
        copy_writer.maintenance().import_prometheus(prometheus, &mut |_, _| {}).expect("they are read");
    assert_eq!(imported, carried);
    assert_eq!(all(&copy_reader, &[]), all(&reader, &[]));
    assert_eq!(histograms(&copy_reader), histograms(&reader));
    let increase = "histogram_count(increase(spread[140m]))";
    assert_eq!(evaluated(&copy_reader, increase), evaluated(&reader, increase));
    let again =
        copy_writer.maintenance().import_prometheus(prometheus, &mut |_, _| {}).expect("they are read");
    assert_eq!(again.blocks_before, carried.blocks);

    // Damage is refused with what and where, and nothing of the block is taken over.
    let mut entries =
        std::fs::read_dir(prometheus).expect("readable").map(|entry| entry.expect("readable").path());
    let block = entries.find(|path| path.join("meta.json").exists()).expect("a block");
    let chunks = block.join("chunks/000001");
    let mut bytes = std::fs::read(&chunks).expect("readable");
    bytes[20] ^= 1;
    std::fs::write(&chunks, bytes).expect("writable");
    let empty = tempfile::tempdir().expect("a directory");
    let (fresh, fresh_reader, _) = open(config(empty.path()));
    let refused = fresh.maintenance().import_prometheus(&block, &mut |_, _| {});
    assert!(matches!(&refused, Err(Error::Foreign { .. })), "{refused:?}");
    assert!(all(&fresh_reader, &[]).is_empty());
    assert!(fresh.maintenance().import_prometheus(empty.path(), &mut |_, _| {}).is_err());
}

#[test]
#[allow(clippy::print_stderr, reason = "what was not run is told")]
fn promtool_reads_what_is_exported() {
    let Some(promtool) = std::env::var_os("BELFRY_PROMTOOL") else {
        eprintln!("NOT RUN: BELFRY_PROMTOOL is unset, so promtool did not read an exported block");
        return;
    };
    let (directory, target) =
        (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let (writer, reader) = filled(directory.path());
    writer.maintenance().export_prometheus(target.path(), &mut |_, _| {}).expect("the disk works");
    let run = |arguments: &[&str]| {
        let output =
            Command::new(&promtool).args(arguments).arg(target.path()).output().expect("promtool runs");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {out}{err}");
        out.into_owned()
    };
    let dump = run(&["tsdb", "dump"]);
    let samples: usize = all(&reader, &[]).iter().map(|series| series.points.len()).sum();
    // This release shows floats only; Prometheus itself reads the histograms, below.
    assert_eq!(dump.lines().count(), samples, "{dump}");
    for line in [
        format!("{{__name__=\"calls_total\", outcome=\"good\", region=\"eu\"}} 420 {}", at(42)),
        format!("{{__name__=\"odd\", text=\"größe \\\"x\\\"\\n\"}} -1.5e-300 {}", at(150)),
        format!("{{__name__=\"odd\"}} +Inf {}", at(150)),
    ] {
        assert!(dump.lines().any(|held| held == line), "{line} is not in\n{dump}");
    }
    let matched = Command::new(&promtool)
        .args(["tsdb", "dump", "--match={region=~\"us.*\"}"])
        .arg(target.path())
        .output()
        .expect("promtool runs");
    assert_eq!(String::from_utf8_lossy(&matched.stdout).lines().count(), 150, "postings select");
    assert!(run(&["tsdb", "list"]).lines().count() > 1);
    let prometheus = Path::new(&promtool).with_file_name("prometheus");
    if prometheus.exists() {
        prometheus_agrees(&prometheus, target.path(), &reader);
    }
}

/// Prometheus on the exported blocks answers as we do: on whole counts, on halves, over a reset and a new bucket.
fn prometheus_agrees(program: &Path, blocks: &Path, reader: &SeriesReader) {
    let port = super::bucket::free_port();
    let config = blocks.join("prometheus.yml");
    std::fs::write(&config, "global: {}\n").expect("written");
    let argument = |name: &str, value: &dyn std::fmt::Display| format!("--{name}={value}");
    let child = Command::new(program)
        .arg(argument("config.file", &config.display()))
        .arg(argument("storage.tsdb.path", &blocks.display()))
        .arg(argument("storage.tsdb.retention.time", &"90y"))
        .arg(argument("web.listen-address", &format_args!("127.0.0.1:{port}")))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("it starts");
    let server = super::bucket::Server { child, port };
    while !super::bucket::say(server.port, "GET /-/ready").is_some_and(|answer| answer.contains(" 200 ")) {
        std::thread::yield_now();
    }
    for (query, time) in [
        ("histogram_count(spread)", 42),
        ("histogram_sum(spread)", 149),
        // Quantiles of 2.42 interpolate in another way; shares of observations do not, at the bounds of buckets.
        ("histogram_fraction(0,0.5,spread)", 100),
        ("histogram_count(increase(spread[8370s]))", 149),
        ("histogram_sum(rate(spread[1770s]))", 75),
    ] {
        let seconds = at(time) / 1000;
        let answer =
            super::bucket::say(server.port, &format!("GET /api/v1/query?query={query}&time={seconds}"));
        let answer = answer.expect("it answers");
        let value = answer.rsplit(",\"").next().and_then(|rest| rest.split('"').next()?.parse::<f64>().ok());
        let belfry_promql::Data::Vector(ours) = evaluated_at(reader, query, time) else {
            panic!("no vector")
        };
        let belfry_promql::Value::Float(ours) = ours[0].value else { panic!("no float") };
        let value = value.unwrap_or_else(|| panic!("{query}: {answer}"));
        assert!((value - ours).abs() <= 1e-9 * ours.abs(), "{query} at {time}: {value}, ours is {ours}");
    }
}
