//! The store as the pipeline and queries meet it: windows, restarts, damage, limits.

mod blocks;
mod bucket;
mod carried;
pub(crate) mod faults;
mod levels;
mod samples;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use belfry_signal::{Registry, Sample};

use crate::{
    Config, Error, MatchOperator, Matcher, PromqlSource, Series, SeriesData, SeriesReader, SeriesWriter,
};

const MINUTE_MS: i64 = 60_000;
/// A round hour, so that windows begin where the tests say.
const START_MS: i64 = 1_700_002_800_000;

fn config(directory: &Path) -> Config {
    Config {
        block_duration: Duration::from_mins(10),
        compacted_duration_max: Duration::from_mins(90),
        retention: Duration::from_hours(1),
        out_of_order_window: Duration::ZERO,
        series_max: 1000,
        metric_series_max: 100,
        head_bytes_max: 10 << 20,
        select_points_max: 100_000,
        ..Config::in_directory(directory)
    }
}

fn open(config: Config) -> (SeriesWriter, SeriesReader, Registry) {
    let registry = Registry::for_test();
    let (writer, reader) = Series::open(config, &registry).expect("it opens whatever the directory holds");
    (writer, reader, registry)
}

fn sample(name: &str, labels: &[(&str, &str)], value: f64) -> Sample {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Sample { name: name.to_owned(), labels, value }
}

/// Two regions' good calls and one gauge, as of `minute`.
fn round(minute: i64) -> Vec<Sample> {
    let value = minute as f64;
    vec![
        sample("calls_total", &[("outcome", "good"), ("region", "eu")], value * 10.0),
        sample("calls_total", &[("outcome", "good"), ("region", "us-east")], value * 20.0),
        sample("up", &[], 1.0),
    ]
}

/// Appends one round a minute; the position in the log is the minute and one.
fn append(writer: &mut SeriesWriter, minutes: std::ops::Range<i64>) {
    for minute in minutes {
        let position = u64::try_from(minute).expect("not negative") + 1;
        writer.append(position, START_MS + minute * MINUTE_MS, &round(minute)).expect("the disk works");
    }
}

fn all(reader: &SeriesReader, matchers: &[Matcher]) -> Vec<SeriesData> {
    reader.select(matchers, i64::MIN, i64::MAX).expect("few points")
}

fn eu(reader: &SeriesReader) -> Vec<(i64, f64)> {
    let found = all(reader, &[Matcher::metric("calls_total"), Matcher::equal("region", "eu")]);
    found.into_iter().flat_map(|series| series.points).collect()
}

fn expected_eu(minutes: std::ops::Range<i64>) -> Vec<(i64, f64)> {
    minutes.map(|minute| (START_MS + minute * MINUTE_MS, minute as f64 * 10.0)).collect()
}

fn blocks(directory: &Path) -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir(directory).expect("a directory").map(|file| file.expect("readable").path());
    let mut paths: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|extension| extension == "block")).collect();
    paths.sort();
    paths
}

#[test]
fn samples_are_found_by_their_labels_in_head_and_blocks() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut writer, reader, registry) = open(config(directory.path()));
    append(&mut writer, 0..25);
    assert_eq!(blocks(directory.path()).len(), 2);
    assert_eq!(eu(&reader), expected_eu(0..25));
    assert_eq!(reader.series_count(), 3);
    assert_eq!(reader.label_names(), ["__name__", "outcome", "region"]);
    assert_eq!(reader.label_values("region"), ["eu", "us-east"]);

    let check = |matchers: &[(&str, MatchOperator, &str)], expected: &[&str]| {
        let matchers: Vec<_> = matchers
            .iter()
            .map(|(name, operator, value)| Matcher::new(name, *operator, value).expect("it compiles"))
            .collect();
        let found = all(&reader, &matchers);
        let shown: Vec<_> = found
            .iter()
            .map(|series| {
                let labels = series.labels.iter().filter(|(name, _)| name != "outcome");
                labels.map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(" ")
            })
            .collect();
        assert_eq!(shown, expected, "{matchers:?}");
        assert!(found.iter().all(|series| series.points.len() == 25));
    };
    use MatchOperator::{Equal, NotEqual, NotRegex, Regex};
    check(&[("__name__", Equal, "calls_total")], &["calls_total eu", "calls_total us-east"]);
    check(&[("region", NotEqual, "eu")], &["calls_total us-east", "up"]);
    check(&[("region", Regex, "us-.*|eu")], &["calls_total eu", "calls_total us-east"]);
    check(&[("__name__", Regex, "calls.*"), ("region", NotRegex, "us.*")], &["calls_total eu"]);
    check(&[("region", Equal, "")], &["up"]);
    check(&[("region", Equal, "mars")], &[]);

    // Both ends of a time are part of it, across a block's border.
    let from_to = reader
        .select(&[Matcher::metric("up")], START_MS + 8 * MINUTE_MS, START_MS + 21 * MINUTE_MS)
        .expect("few points");
    assert_eq!(from_to[0].points.len(), 14);
    assert!(registry.encode_text().contains("series_samples_appended_total 75"));
}

#[test]
fn a_restart_has_the_blocks_and_gets_the_rest_from_the_log() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut writer, reader, _) = open(config(directory.path()));
    append(&mut writer, 0..25);
    assert_eq!(writer.checkpoint(), 20);
    drop((writer, reader));

    let (mut writer, reader, _) = open(config(directory.path()));
    assert_eq!(writer.checkpoint(), 20);
    assert_eq!(eu(&reader), expected_eu(0..20));
    // The log replays what lies past the checkpoint.
    append(&mut writer, 20..25);
    assert_eq!(eu(&reader), expected_eu(0..25));

    // A flush covers everything, and the next start needs no replay.
    writer.flush().expect("the disk works");
    assert_eq!(writer.checkpoint(), 25);
    writer.flush().expect("an empty head is no block");
    drop((writer, reader));
    let (mut writer, reader, _) = open(config(directory.path()));
    assert_eq!((writer.checkpoint(), eu(&reader)), (25, expected_eu(0..25)));
    append(&mut writer, 25..26);
    assert_eq!(eu(&reader), expected_eu(0..26));
}

#[test]
fn a_block_sealed_in_the_middle_of_a_batch_does_not_claim_the_rest() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut writer, reader, _) = open(config(directory.path()));
    append(&mut writer, 0..9);
    // One batch of the log with the last round of a window and the first of the next.
    for minute in [9, 10] {
        writer.append(20, START_MS + minute * MINUTE_MS, &round(minute)).expect("the disk works");
    }
    assert_eq!(writer.checkpoint(), 9);
    drop((writer, reader));
    // After a crash the log gives the batch again: what the block already has shows once.
    let (mut writer, reader, _) = open(config(directory.path()));
    for minute in [9, 10] {
        writer.append(20, START_MS + minute * MINUTE_MS, &round(minute)).expect("the disk works");
    }
    assert_eq!(eu(&reader), expected_eu(0..11));
}

#[test]
fn a_window_that_is_over_is_sealed_even_when_nothing_follows() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut writer, _reader, _) = open(config(directory.path()));
    append(&mut writer, 0..5);
    writer.tick(START_MS + 9 * MINUTE_MS);
    assert_eq!(writer.checkpoint(), 0);
    writer.tick(START_MS + 10 * MINUTE_MS);
    assert_eq!((writer.checkpoint(), blocks(directory.path()).len()), (5, 1));
}

#[test]
fn old_blocks_go_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut writer, reader, registry) = open(config(directory.path()));
    append(&mut writer, 0..95);
    assert_eq!(blocks(directory.path()).len(), 9);
    writer.tick(START_MS + 95 * MINUTE_MS);
    // One hour before minute 95 is minute 35: the block of minutes 30 to 39 is still partly wanted.
    assert_eq!(eu(&reader), expected_eu(30..95));
    assert_eq!(blocks(directory.path()).len(), 6);
    assert!(registry.encode_text().contains("series_blocks_deleted_total 3"));
    drop((writer, reader));
    let (writer, reader, _) = open(config(directory.path()));
    assert_eq!(eu(&reader), expected_eu(30..90));
    assert_eq!(writer.checkpoint(), 90);
}

#[test]
fn a_torn_block_is_skipped_and_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut writer, reader, _) = open(config(directory.path()));
    append(&mut writer, 0..31);
    drop((writer, reader));
    let paths = blocks(directory.path());
    // The first is cut short: seen at start. The second has a bit flipped in its footer: seen when it is read.
    let bytes = std::fs::read(&paths[0]).expect("readable");
    std::fs::write(&paths[0], &bytes[..bytes.len() - 5]).expect("writable");
    let mut bytes = std::fs::read(&paths[1]).expect("readable");
    let in_index = bytes.len() - 60;
    bytes[in_index] ^= 1;
    std::fs::write(&paths[1], bytes).expect("writable");
    // The third has one flipped in its first chunk: that chunk is lost, the other series are there.
    let mut bytes = std::fs::read(&paths[2]).expect("readable");
    bytes[10] ^= 1;
    std::fs::write(&paths[2], bytes).expect("writable");

    let (writer, reader, registry) = open(config(directory.path()));
    assert!(registry.encode_text().contains("series_blocks_damaged_total 1"));
    assert_eq!(writer.checkpoint(), 30);
    let found = all(&reader, &[]);
    let minutes: usize = found.iter().map(|series| series.points.len()).sum();
    assert_eq!(minutes, 20, "two of three series of ten minutes");
    let text = registry.encode_text();
    assert!(text.contains("series_blocks_damaged_total 2"), "{text}");
    assert!(text.contains("series_chunks_damaged_total 1"), "{text}");
}

#[test]
fn what_no_transaction_published_is_set_aside_and_comes_again_from_the_log() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut writer, reader, _) = open(config(directory.path()));
    append(&mut writer, 0..15);
    drop((writer, reader));
    // A crash between writing a block and the catalogue's transaction.
    let path = blocks(directory.path()).remove(0);
    std::fs::copy(&path, directory.path().join("0000000000000007.block")).expect("copied");
    let (mut writer, reader, registry) = open(config(directory.path()));
    assert_eq!(blocks(directory.path()), [path]);
    assert!(directory.path().join("unknown/0000000000000007.block.0").exists());
    assert!(registry.encode_text().contains("series_blocks_set_aside_total 1"));
    append(&mut writer, 10..15);
    assert_eq!(eu(&reader), expected_eu(0..15));
}

#[test]
fn a_store_of_another_format_is_set_aside_and_the_store_begins_anew() {
    let parent = tempfile::tempdir().expect("a directory");
    let directory = parent.path().join("series");
    std::fs::create_dir(&directory).expect("created");
    let old_block = directory.join("0000000000000003.block");
    std::fs::write(&old_block, b"a block of before").expect("written");
    {
        let database = redb::Database::create(directory.join("catalogue.redb")).expect("created");
        let write = database.begin_write().expect("begun");
        let table = redb::TableDefinition::<u64, &[u8]>::new("blocks");
        write.open_table(table).expect("opened").insert(3, b"of before".as_slice()).expect("inserted");
        write.commit().expect("committed");
    }
    let (mut writer, reader, registry) = open(config(&directory));
    assert_eq!(writer.checkpoint(), 0);
    let aside: Vec<_> = std::fs::read_dir(parent.path())
        .expect("listed")
        .map(|entry| entry.expect("listed").path())
        .filter(|path| *path != directory)
        .collect();
    let [aside] = aside.as_slice() else { panic!("{aside:?}") };
    let kept = std::fs::read(aside.join("0000000000000003.block")).expect("it is still there");
    assert_eq!(kept, b"a block of before");
    assert!(aside.join("catalogue.redb").exists());
    assert!(registry.encode_text().contains("series_stores_set_aside_total 1"));
    append(&mut writer, 0..25);
    drop((writer, reader));
    let (_writer, reader, registry) = open(config(&directory));
    assert_eq!(eu(&reader), expected_eu(0..20));
    assert!(registry.encode_text().contains("series_stores_set_aside_total 0"), "once");
}

#[test]
fn a_catalogue_that_is_lost_or_damaged_is_rebuilt_from_the_blocks() {
    for is_damaged in [true, false] {
        let directory = tempfile::tempdir().expect("a directory");
        let (mut writer, reader, _) = open(config(directory.path()));
        append(&mut writer, 0..25);
        drop((writer, reader));
        let path = directory.path().join("catalogue.redb");
        if is_damaged {
            std::fs::write(&path, b"this is not a database").expect("writable");
        } else {
            std::fs::remove_file(&path).expect("it was there");
        }
        let (mut writer, reader, registry) = open(config(directory.path()));
        assert_eq!((writer.checkpoint(), eu(&reader)), (20, expected_eu(0..20)), "damaged: {is_damaged}");
        append(&mut writer, 20..35);
        assert_eq!(eu(&reader), expected_eu(0..35));
        assert!(registry.encode_text().contains("series_catalogue_rebuilds_total 1"));
    }
}

#[test]
fn only_the_excess_of_a_metric_is_dropped() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut writer, reader, registry) = open(config(directory.path()));
    let many: Vec<_> =
        (0..150).map(|n| sample("burst", &[("id", n.to_string().as_str())], 1.0)).chain(round(0)).collect();
    writer.append(1, START_MS, &many).expect("the disk works");
    writer.append(2, START_MS + 1000, &many).expect("the disk works");
    assert_eq!(all(&reader, &[Matcher::metric("burst")]).len(), 100);
    assert_eq!(all(&reader, &[Matcher::metric("calls_total")]).len(), 2);
    let text = registry.encode_text();
    assert!(text.contains("series_samples_dropped_total{reason=\"metric_limit\"} 100"), "{text}");

    // The whole has a limit too, and time does not run backwards.
    for metric in 0..20 {
        let name = format!("metric_{metric}");
        let wide: Vec<_> = (0..90).map(|n| sample(&name, &[("id", n.to_string().as_str())], 1.0)).collect();
        writer.append(3, START_MS + 2000, &wide).expect("the disk works");
    }
    assert_eq!(reader.series_count(), 1000);
    writer.append(4, START_MS, &round(0)).expect("the disk works");
    let text = registry.encode_text();
    assert!(!text.contains("series_samples_dropped_total{reason=\"series_limit\"} 0"), "{text}");
    assert!(text.contains("series_samples_dropped_total{reason=\"out_of_order\"} 3"), "{text}");
}

#[test]
fn a_query_that_reads_too_much_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut config = config(directory.path());
    config.select_points_max = 50;
    let (mut writer, reader, _) = open(config);
    append(&mut writer, 0..25);
    assert_eq!(all(&reader, &[Matcher::metric("up")]).len(), 1);
    assert!(matches!(reader.select(&[], i64::MIN, i64::MAX), Err(Error::TooManyPoints { points_max: 50 })));
}

#[test]
fn memory_is_bounded_when_no_block_can_be_written() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("series");
    let mut small = config(&path);
    small.head_bytes_max = 64 << 10;
    let (mut writer, reader, registry) = open(small);
    std::fs::rename(&path, directory.path().join("away")).expect("renamed");
    let noise: Vec<_> = (0..90).map(|n| sample("noise", &[("id", n.to_string().as_str())], 0.0)).collect();
    let mut failures = 0;
    for second in 0..200_u32 {
        let values = noise.iter().enumerate().map(|(n, sample)| Sample {
            value: (f64::from(second) * 1.7 + n as f64).sin(),
            ..sample.clone()
        });
        let samples: Vec<_> = values.collect();
        let time = START_MS + i64::from(second) * 1000;
        failures += usize::from(writer.append(u64::from(second) + 1, time, &samples).is_err());
    }
    assert!(failures > 0);
    let text = registry.encode_text();
    assert!(!text.contains("series_samples_dropped_total{reason=\"head_full\"} 0"), "{text}");
    assert!(!all(&reader, &[Matcher::metric("noise")]).is_empty(), "what was taken stays readable");
    assert_eq!(writer.checkpoint(), 0);
    std::fs::rename(directory.path().join("away"), &path).expect("renamed");
    writer.append(201, START_MS + 300_000, &noise).expect("the disk works again");
    assert_eq!((writer.checkpoint(), blocks(&path).len()), (200, 1));
}

#[test]
fn two_processes_cannot_share_a_store() {
    let directory = tempfile::tempdir().expect("a directory");
    let (_writer, _reader, _) = open(config(directory.path()));
    let refused = Series::open(config(directory.path()), &Registry::for_test());
    assert!(matches!(refused, Err(Error::InUse { .. })));
}

#[test]
fn the_section_reads_from_toml_and_is_checked() {
    let text = r#"
        directory = "data/series"
        block_duration = "2h"
        compacted_duration_max = "31days"
        retention = "90d"
        five_minutes_after = "12h"
        five_minutes_retention = "180d"
        one_hour_after = "24h"
        one_hour_retention = "730d"
        out_of_order_window = "30m"
        created_zero = true
        series_max = 1000000
        metric_series_max = 10000
        tenant_series_max = 100000
        series_exemplars_max = 10
        exemplars_max = 100000
        metadata_max = 10000
        head_bytes_max = 268435456
        select_points_max = 10000000
        index_cache_bytes_max = 67108864
    "#;
    let config: Config = toml::from_str(text).expect("the section reads");
    assert_eq!(config.check(), vec![]);
    let check = |from: &str, to: &str, key: &str| {
        let config: Config = toml::from_str(&text.replace(from, to)).expect("it still reads");
        let keys: Vec<_> = config.check().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, [key]);
    };
    check("data/series", "", "directory");
    check("\"90d\"", "\"1h\"", "retention");
    check("\"30m\"", "\"9d\"", "out_of_order_window");
    check("metric_series_max = 10000\n", "metric_series_max = 2000000\n", "metric_series_max");
    check("268435456", "1", "head_bytes_max");
    assert!(toml::from_str::<Config>(&format!("speed = 3\n{text}")).is_err());
}

#[test]
fn promql_reads_head_and_blocks_and_ends_when_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut writer, reader, _) = open(config(directory.path()));
    append(&mut writer, 0..25);
    // The same series to PromQL as the one without the label.
    writer
        .append(
            26,
            START_MS + 25 * MINUTE_MS,
            &[sample("up", &[("region", "")], f64::from_bits(belfry_promql::STALE_NAN_BITS))],
        )
        .expect("the disk works");
    assert!(blocks(directory.path()).len() >= 2, "there are blocks and a head");
    let options = belfry_promql::Options {
        lookback_ms: 5 * MINUTE_MS,
        samples_max: 1000,
        subquery_step_ms: MINUTE_MS,
        experimental: false,
    };
    let cancel = AtomicBool::new(false);
    let source = PromqlSource::new(&reader, &cancel);
    let check = |text: &str, minute: i64, expected: &[f64]| {
        let at = belfry_promql::Times::Instant(START_MS + minute * MINUTE_MS);
        let answer = belfry_promql::query(text, &source, at, &options, &cancel).expect(text);
        let belfry_promql::Data::Vector(found) = answer.data else { panic!("{text}: no vector") };
        let values: Vec<_> = found.into_iter().map(|sample| sample.value).collect();
        let expected: Vec<_> = expected.iter().map(|value| belfry_promql::Value::Float(*value)).collect();
        assert_eq!(values, expected, "{text}");
    };
    check("calls_total{region=\"eu\"}", 12, &[120.0]);
    check("sum by (region) (increase(calls_total[20m]))", 24, &[200.0, 400.0]);
    check("calls_total{region!~\"us.*\"}", 24, &[240.0]);
    check("count_over_time(up[1h])", 25, &[25.0]);
    check("up", 24, &[1.0]);
    check("up", 25, &[]);
    let limited = |samples_max: usize| {
        let options = belfry_promql::Options { samples_max, ..options.clone() };
        let at = belfry_promql::Times::Instant(START_MS + 24 * MINUTE_MS);
        belfry_promql::query("count_over_time(up[1h])", &source, at, &options, &cancel).map(drop)
    };
    assert_eq!(limited(10), Err(belfry_promql::Error::TooManySamples { samples_max: 10 }));
    cancel.store(true, Ordering::Relaxed);
    let all = [belfry_promql::Matcher::equal("__name__", "up")];
    let select = belfry_promql::Series::select(&source, &all, i64::MIN, i64::MAX);
    assert_eq!(select, Err(belfry_promql::Error::Cancelled));
    assert!(belfry_promql::Series::select(&reader, &all, i64::MIN, i64::MAX).is_ok());
}

#[test]
fn label_sets_are_found_by_matcher_and_time_without_points() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut writer, reader, _) = open(config(directory.path()));
    append(&mut writer, 0..12);
    writer.append(13, START_MS + 12 * MINUTE_MS, &[sample("late", &[], 1.0)]).expect("the disk works");
    let found = |matchers: &[Matcher], minutes: std::ops::RangeInclusive<i64>, series_max: usize| {
        let (from, to) = (START_MS + minutes.start() * MINUTE_MS, START_MS + minutes.end() * MINUTE_MS);
        let sets = reader.label_sets(matchers, from, to, series_max);
        sets.into_iter().map(|set| set[0].1.clone()).collect::<Vec<_>>()
    };
    assert_eq!(found(&[], 0..=12, 100), ["calls_total", "calls_total", "late", "up"]);
    assert_eq!(found(&[], 0..=5, 100), ["calls_total", "calls_total", "up"]);
    assert_eq!(found(&[Matcher::equal("region", "eu")], 0..=12, 100), ["calls_total"]);
    assert_eq!(found(&[], 0..=12, 2).len(), 2);
    assert_eq!(found(&[], 13..=20, 100), [""; 0]);
}
