//! Levels: what they answer against what raw samples answer, what they do when samples come late or are deleted, and what
//! is left when raw samples are gone.

use std::cell::Cell;
use std::sync::Arc;

use belfry_promql::{
    Data, Error as QueryError, Options, Purpose, Selected, SeriesData as Selectable, Severity, Times, Value,
};
use belfry_signal::{NativeHistogram, PointValue, SeriesBatch, SeriesPoints};

use super::samples::labels;
use super::*;
use crate::level::{DAY_MS, Resolution};

const DAY_START_MS: i64 = 19_700 * DAY_MS;
const HOUR_MS: i64 = 3_600_000;
const DAYS: i64 = 4;

/// The same numbers in every run.
struct Noise(u64);

impl Noise {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What counts how often a level answered, or never lets one.
struct Asked<'a> {
    reader: &'a SeriesReader,
    is_raw: bool,
    resolution_ms: Cell<i64>,
}

impl belfry_promql::Series for Asked<'_> {
    fn select(
        &self,
        matchers: &[belfry_promql::Matcher],
        from_ms: i64,
        to_ms: i64,
    ) -> Result<Vec<Selectable>, QueryError> {
        belfry_promql::Series::select(self.reader, matchers, from_ms, to_ms)
    }

    fn select_for(
        &self,
        matchers: &[belfry_promql::Matcher],
        from_ms: i64,
        to_ms: i64,
        purpose: &Purpose,
    ) -> Result<Selected, QueryError> {
        if self.is_raw {
            return self.select(matchers, from_ms, to_ms).map(Selected::Samples);
        }
        let selected = self.reader.select_for(matchers, from_ms, to_ms, purpose)?;
        if let Selected::Stretches { resolution_ms, .. } = &selected {
            self.resolution_ms.set(*resolution_ms);
        }
        Ok(selected)
    }
}

fn levelled(directory: &Path) -> Config {
    Config {
        block_duration: Duration::from_hours(2),
        compacted_duration_max: Duration::from_hours(9 * 24),
        retention: Duration::from_hours(90 * 24),
        five_minutes_after: Duration::from_hours(3),
        one_hour_after: Duration::from_hours(12),
        select_points_max: 1_000_000,
        ..config(directory)
    }
}

fn histogram(count: u64) -> PointValue {
    PointValue::Histogram(Box::new(NativeHistogram {
        count: count as f64 * 2.0,
        sum: count as f64 * 1.5,
        positive: vec![(0, count as f64), (1, count as f64)],
        ..NativeHistogram::default()
    }))
}

/// Four days of a counter that restarts, a gauge with gaps, ends and NaN, and a histogram that restarts.
fn fill(writer: &mut SeriesWriter, noise: &mut Noise) {
    let (mut count, mut observed) = (0_u64, 0_u64);
    let mut time = DAY_START_MS - 7 * MINUTE_MS;
    let mut position = 0;
    while time < DAY_START_MS + DAYS * DAY_MS {
        time += 40_000 + i64::try_from(noise.below(9000)).expect("small");
        if noise.below(300) == 0 {
            time += 20 * MINUTE_MS;
        }
        count = if noise.below(500) == 0 { noise.below(3) } else { count + noise.below(40) };
        observed = if noise.below(700) == 0 { 0 } else { observed + noise.below(9) };
        let gauge = match noise.below(60) {
            0 => f64::NAN,
            1 => belfry_promql::stale_marker(),
            _ => noise.below(1000) as f64 / 8.0 - 40.0,
        };
        let one = |name: &str, value: PointValue| SeriesPoints {
            labels: labels(&[("__name__", name), ("job", "x")]),
            created_ms: None,
            points: vec![(time, value)],
            exemplars: Vec::new(),
        };
        let series = vec![
            one("counter_total", PointValue::Float(count as f64)),
            one("gauge", PointValue::Float(gauge)),
            one("spread", histogram(observed)),
        ];
        position += 1;
        writer.write(position, &SeriesBatch { series, metadata: Vec::new() }).1.expect("the disk works");
    }
}

fn ask(source: &dyn belfry_promql::Series, query: &str, times: Times) -> Data {
    let options = Options {
        lookback_ms: 300_000,
        samples_max: 50_000_000,
        subquery_step_ms: 60_000,
        experimental: true,
    };
    belfry_promql::query(query, source, times, &options, &AtomicBool::new(false)).expect("it evaluates").data
}

/// Every number of an answer, with its place.
fn numbers(data: &Data) -> Vec<(i64, Vec<f64>)> {
    let of_value = |value: &Value| match value {
        Value::Float(value) => vec![*value],
        Value::Histogram(held) => {
            let buckets = held.positive.iter().map(|(_, count)| *count);
            [held.count, held.sum].into_iter().chain(buckets).collect()
        }
    };
    match data {
        Data::Matrix(series) => series
            .iter()
            .flat_map(|series| {
                let floats = series.floats.iter().map(|(time, value)| (*time, vec![*value]));
                let of_histogram = |held: &Arc<_>| of_value(&Value::Histogram(Arc::clone(held)));
                floats.chain(series.histograms.iter().map(move |(time, held)| (*time, of_histogram(held))))
            })
            .collect(),
        Data::Vector(samples) => {
            samples.iter().map(|sample| (sample.unix_millis, of_value(&sample.value))).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn close(left: &[(i64, Vec<f64>)], right: &[(i64, Vec<f64>)], within: f64) -> Result<(), String> {
    if left.iter().map(|point| point.0).ne(right.iter().map(|point| point.0)) {
        return Err(format!("{} and {} points, or others", left.len(), right.len()));
    }
    for ((time, left), (_, right)) in left.iter().zip(right) {
        let same = left.len() == right.len()
            && left.iter().zip(right).all(|(left, right)| {
                left.to_bits() == right.to_bits()
                    || (left.is_nan() && right.is_nan())
                    || (left - right).abs() <= within * left.abs().max(right.abs()).max(1e-6)
            });
        if !same {
            return Err(format!("at {time}: {left:?} and {right:?}"));
        }
    }
    Ok(())
}

fn filled(directory: &Path) -> (SeriesWriter, SeriesReader) {
    let (mut writer, reader, _) = open(levelled(directory));
    fill(&mut writer, &mut Noise(0x1234_5678_9abc_def1));
    writer.maintenance().compact().expect("the disk works");
    assert!(writer.maintenance().downsample().expect("the disk works") >= 6);
    (writer, reader)
}

#[test]
fn levels_answer_as_raw_samples_do() {
    let directory = tempfile::tempdir().expect("a directory");
    let (writer, reader) = filled(directory.path());
    let check = |query: &str, (start, step): (i64, i64), resolution_ms: i64| {
        let times = Times::Range {
            start_ms: DAY_START_MS + start * MINUTE_MS,
            end_ms: DAY_START_MS + (DAYS * 24 * 60 - 30) * MINUTE_MS,
            step_ms: step * MINUTE_MS,
        };
        let asked = |is_raw| Asked { reader: &reader, is_raw, resolution_ms: Cell::new(0) };
        let (level, raw) = (asked(false), asked(true));
        let (found, expected) = (numbers(&ask(&level, query, times)), numbers(&ask(&raw, query, times)));
        assert!(expected.len() > 10, "{query}");
        assert_eq!(level.resolution_ms.get(), resolution_ms, "{query} every {step}m");
        close(&found, &expected, 1e-9).unwrap_or_else(|fault| panic!("{query} every {step}m: {fault}"));
    };
    let (five, hour) = (5 * MINUTE_MS, HOUR_MS);
    for query in [
        "rate(counter_total[1h])",
        "increase(counter_total[2h])",
        "delta(gauge[1h])",
        "min_over_time(gauge[1h])",
        "max_over_time(gauge[3h])",
        "sum_over_time(gauge[1h])",
        "count_over_time(gauge[1h])",
        "avg_over_time(gauge[2h])",
        "last_over_time(gauge[1h])",
        "first_over_time(gauge[1h])",
        "present_over_time(gauge[1h])",
        "gauge",
        "timestamp(counter_total)",
        "sum(gauge offset 1h) + 1",
        "histogram_count(spread)",
    ] {
        check(query, (60, 60), hour);
        check(query, (60, 15), five);
        check(query, (7, 3), 0);
    }
    // A subquery has steps of its own.
    check("max_over_time(rate(counter_total[1h])[6h:1h])", (60, 15), hour);
    // Of rates of histograms, the distance between samples is not known, so what is beyond the first and last of a
    // window that begins or ends with a gap is guessed differently: the bound of what a gap can be of a window. So an hour
    // of the two is too long.
    let times = Times::Range {
        start_ms: DAY_START_MS + HOUR_MS,
        end_ms: DAY_START_MS + DAYS * DAY_MS - HOUR_MS,
        step_ms: HOUR_MS,
    };
    let asked = |is_raw| Asked { reader: &reader, is_raw, resolution_ms: Cell::new(0) };
    let query = "rate(spread[2h])";
    let (level, raw) = (asked(false), asked(true));
    let (found, expected) = (numbers(&ask(&level, query, times)), numbers(&ask(&raw, query, times)));
    assert_eq!(level.resolution_ms.get(), five);
    close(&found, &expected, 0.05).expect("about the same");
    for query in ["quantile_over_time(0.9, gauge[1h])", "count_over_time(spread[1h])"] {
        let (level, raw) = (asked(false), asked(true));
        let (found, expected) = (numbers(&ask(&level, query, times)), numbers(&ask(&raw, query, times)));
        assert_eq!((level.resolution_ms.get(), found), (0, expected), "{query}: raw samples answer");
    }
    drop(writer);
}

#[test]
fn windows_that_are_not_whole_begin_and_end_a_stretch_earlier() {
    let directory = tempfile::tempdir().expect("a directory");
    let (_writer, reader) = filled(directory.path());
    // As Grafana asks: an hour and a scrape, every hour.
    let (range, step, five) = (3660_i64, HOUR_MS, 5 * MINUTE_MS);
    let (start, end) = (DAY_START_MS + HOUR_MS + 60_000, DAY_START_MS + DAYS * DAY_MS - HOUR_MS);
    let floor = |time: i64| time - time.rem_euclid(five);
    for (function, series, grows) in [
        ("rate", "counter_total", false),
        ("increase", "counter_total", true),
        ("max_over_time", "gauge", false),
        ("avg_over_time", "gauge", false),
    ] {
        let level = Asked { reader: &reader, is_raw: false, resolution_ms: Cell::new(0) };
        let times = Times::Range { start_ms: start, end_ms: end, step_ms: step };
        let found = numbers(&ask(&level, &format!("{function}({series}[{range}s])"), times));
        assert_eq!(level.resolution_ms.get(), five);
        assert!(found.len() > 80);
        for (time, values) in found {
            let (from, to) = (floor(time - range * 1000), floor(time));
            let query = format!("{function}({series}[{}s])", (to - from) / 1000);
            let mut expected = numbers(&ask(&reader, &query, Times::Instant(to)));
            if grows {
                expected[0].1[0] *= (range * 1000) as f64 / (to - from) as f64;
            }
            close(&[(to, values)], &expected, 1e-9).unwrap_or_else(|fault| panic!("{function}: {fault}"));
        }
    }
}

#[test]
fn what_comes_late_or_is_deleted_has_its_day_made_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut writer, reader) = filled(directory.path());
    let maintenance = writer.maintenance();
    let query = "sum(count_over_time({job=\"x\",__name__!=\"spread\"}[1h]))";
    let times = Times::Range {
        start_ms: DAY_START_MS + HOUR_MS,
        end_ms: DAY_START_MS + 2 * DAY_MS,
        step_ms: HOUR_MS,
    };
    let agree = |reader: &SeriesReader, resolution_ms: i64| {
        let level = Asked { reader, is_raw: false, resolution_ms: Cell::new(0) };
        let raw = Asked { reader, is_raw: true, resolution_ms: Cell::new(0) };
        let found = numbers(&ask(&level, query, times));
        assert_eq!(found, numbers(&ask(&raw, query, times)));
        assert_eq!(level.resolution_ms.get(), resolution_ms);
        found.iter().map(|point| point.1[0]).sum::<f64>()
    };
    let before = agree(&reader, HOUR_MS);
    // Another series of the first day, brought in now: in memory first, then in a block, then in the level.
    let late = SeriesPoints {
        labels: labels(&[("__name__", "late"), ("job", "x")]),
        created_ms: None,
        points: (1..100).map(|n| (DAY_START_MS + n * MINUTE_MS, PointValue::Float(1.0))).collect(),
        exemplars: Vec::new(),
    };
    let batch = SeriesBatch { series: vec![late], metadata: Vec::new() };
    writer.write(1 << 40, &batch).1.expect("the disk works");
    assert!((agree(&reader, 0) - before - 99.0).abs() < 1e-9);
    writer.flush().expect("the disk works");
    assert!((agree(&reader, HOUR_MS) - before - 99.0).abs() < 1e-9);
    assert_eq!(maintenance.downsample().expect("the disk works"), 2);
    assert!((agree(&reader, HOUR_MS) - before - 99.0).abs() < 1e-9);
    let (from, to) = (DAY_START_MS + 10 * MINUTE_MS, DAY_START_MS + 19 * MINUTE_MS);
    maintenance.delete(&[Matcher::metric("late")], from, to, &mut |_, _| {}).expect("the disk works");
    assert!((agree(&reader, HOUR_MS) - before - 89.0).abs() < 1e-9);
    maintenance.downsample().expect("the disk works");
    maintenance.compact().expect("the disk works");
    assert!((agree(&reader, HOUR_MS) - before - 89.0).abs() < 1e-9);
    drop((maintenance, writer, reader));
    let (writer, reader, _) = open(levelled(directory.path()));
    assert!((agree(&reader, HOUR_MS) - before - 89.0).abs() < 1e-9);
    // Without its catalogue the store does not know whether levels are up to date, so it makes them again.
    drop((writer, reader));
    std::fs::remove_file(directory.path().join("catalogue.redb")).expect("it was there");
    let (writer, reader, _) = open(levelled(directory.path()));
    agree(&reader, 0);
    writer.maintenance().downsample().expect("the disk works");
    assert!((agree(&reader, HOUR_MS) - before - 89.0).abs() < 1e-9);
}

#[test]
fn a_stretch_counts_for_what_it_takes() {
    let directory = tempfile::tempdir().expect("a directory");
    drop(filled(directory.path()));
    let times = Times::Range {
        start_ms: DAY_START_MS + HOUR_MS,
        end_ms: DAY_START_MS + 2 * DAY_MS,
        step_ms: HOUR_MS,
    };
    // About fifty stretches and as many results.
    let check = |select_points_max: usize, samples_max: usize| {
        let (_writer, reader, _) = open(Config { select_points_max, ..levelled(directory.path()) });
        let options =
            Options { lookback_ms: 300_000, samples_max, subquery_step_ms: 60_000, experimental: true };
        let cancel = AtomicBool::new(false);
        belfry_promql::query("rate(counter_total[1h])", &reader, times, &options, &cancel).map(drop)
    };
    assert_eq!(check(400, 1000), Ok(()));
    assert!(matches!(check(200, 1000), Err(QueryError::TooManySamples { samples_max: 200 })));
    assert!(matches!(check(400, 250), Err(QueryError::TooManySamples { samples_max: 250 })));
}

#[test]
fn a_deletion_that_begins_at_midnight_leaves_no_hole_in_the_day_before() {
    let directory = tempfile::tempdir().expect("a directory");
    let short = Config { compacted_duration_max: Duration::from_hours(2), ..levelled(directory.path()) };
    let (mut writer, reader, _) = open(short);
    fill(&mut writer, &mut Noise(0x1234_5678_9abc_def1));
    let maintenance = writer.maintenance();
    maintenance.compact().expect("the disk works");
    maintenance.downsample().expect("the disk works");
    let midnight = DAY_START_MS + DAY_MS;
    let counter = [Matcher::metric("counter_total")];
    maintenance.delete(&counter, midnight, midnight + 10 * MINUTE_MS, &mut |_, _| {}).expect("it works");
    maintenance.downsample().expect("the disk works");
    let times =
        Times::Range { start_ms: DAY_START_MS + HOUR_MS, end_ms: midnight + 3 * HOUR_MS, step_ms: HOUR_MS };
    let asked = |is_raw| Asked { reader: &reader, is_raw, resolution_ms: Cell::new(0) };
    let (level, raw) = (asked(false), asked(true));
    let query = "count_over_time(counter_total[1h])";
    let (found, expected) = (numbers(&ask(&level, query, times)), numbers(&ask(&raw, query, times)));
    assert_eq!((level.resolution_ms.get(), found), (HOUR_MS, expected));
}

#[test]
fn levels_outlive_raw_samples() {
    let directory = tempfile::tempdir().expect("a directory");
    let (writer, reader) = filled(directory.path());
    let at = |hours: i64| DAY_START_MS + hours * HOUR_MS;
    let query = "increase(counter_total[24h])";
    let expected = numbers(&ask(&reader, query, Times::Instant(at(24))));
    let last = numbers(&ask(&reader, "counter_total", Times::Instant(at(12))));
    drop((writer, reader));
    let short = Config { retention: Duration::from_hours(2), ..levelled(directory.path()) };
    let (writer, reader, _) = open(Config {
        five_minutes_retention: Duration::from_hours(24 * 30),
        one_hour_retention: Duration::from_hours(24 * 300),
        ..short.clone()
    });
    writer.maintenance().delete_old(at(24 * DAYS));
    let raw = reader
        .shared
        .blocks
        .load()
        .iter()
        .filter(|block| block.meta().resolution() == Resolution::Raw)
        .count();
    assert!(raw <= 2, "{raw} raw blocks are left");
    close(&numbers(&ask(&reader, query, Times::Instant(at(24)))), &expected, 1e-9).expect("as before");
    close(&numbers(&ask(&reader, "counter_total", Times::Instant(at(12)))), &last, 0.0).expect("as before");
    // A plain read has the samples that the level kept.
    let kept = reader.select(&[Matcher::metric("counter_total")], at(1), at(2)).expect("few points");
    assert!((12..=26).contains(&kept[0].points.len()), "{}", kept[0].points.len());
    // Where raw samples are whole they answer, also of a question that reaches back to where they are not.
    let gone_ms = reader.shared.levels.load().raw_gone_ms().expect("some went");
    let (cancel, last) = (AtomicBool::new(false), at(24 * DAYS) - 31 * MINUTE_MS);
    let options = Options {
        lookback_ms: 300_000,
        samples_max: 50_000_000,
        subquery_step_ms: 60_000,
        experimental: true,
    };
    for query in ["quantile_over_time(0.9, gauge[7m])", "deriv(gauge[7m])", "gauge"] {
        let source = PromqlSource::new(&reader, &cancel);
        let times = |start_ms: i64| Times::Range { start_ms, end_ms: last, step_ms: 11 * MINUTE_MS };
        let across =
            belfry_promql::query(query, &source, times(last - 500 * 11 * MINUTE_MS), &options, &cancel);
        let across = across.expect("it evaluates");
        let told: Vec<_> =
            across.annotations.of(Severity::Warning).map(|warning| warning.message.clone()).collect();
        assert!(told.len() == 1 && told[0].contains("are gone: stretches of"), "{query}: {told:?}");
        let (found, mut compared) = (numbers(&across.data), 0);
        for (time, values) in found.iter().filter(|point| point.0 > gone_ms + HOUR_MS) {
            let expected = numbers(&ask(&reader, query, Times::Instant(*time)));
            close(&[(*time, values.clone())], &expected, 1e-9)
                .unwrap_or_else(|fault| panic!("{query}: {fault}"));
            compared += 1;
        }
        assert!(compared >= 1 && found.len() > compared + 100, "{query}: {compared} of {}", found.len());
    }
    assert_eq!(reader.label_values("job"), ["x"]);
    // After a month what has five minutes goes too, and what has an hour answers.
    writer.maintenance().delete_old(at(24 * (DAYS + 30)));
    close(&numbers(&ask(&reader, query, Times::Instant(at(24)))), &expected, 1e-9).expect("as before");
    writer.maintenance().delete_old(at(24 * (DAYS + 300)));
    assert!(numbers(&ask(&reader, query, Times::Instant(at(24)))).is_empty());
    assert!(blocks(directory.path()).is_empty());
}
