//! What comes in: late and repeated samples, histograms, staleness, created times, exemplars, metadata, tenants.

use std::sync::Arc;

use belfry_promql::CounterReset;
use belfry_signal::{Exemplar, MetricMetadata, NativeHistogram, PointValue, SeriesBatch, SeriesPoints};

use super::*;

pub(super) fn labels(pairs: &[(&str, &str)]) -> belfry_signal::SeriesLabels {
    pairs.iter().map(|(name, value)| (Arc::from(*name), Arc::from(*value))).collect()
}

pub(super) fn series(name: &str, points: &[(i64, f64)]) -> SeriesPoints {
    SeriesPoints {
        labels: labels(&[("__name__", name)]),
        created_ms: None,
        points: points.iter().map(|(minute, value)| (at(*minute), PointValue::Float(*value))).collect(),
        exemplars: Vec::new(),
    }
}

pub(super) fn at(minute: i64) -> i64 {
    START_MS + minute * MINUTE_MS
}

fn batch(series: Vec<SeriesPoints>) -> SeriesBatch {
    SeriesBatch { series, metadata: Vec::new() }
}

fn floats(reader: &SeriesReader, name: &str) -> Vec<(i64, f64)> {
    let found = all(reader, &[Matcher::metric(name)]);
    let minutes = |(time, value): &(i64, f64)| ((time - START_MS) / MINUTE_MS, *value);
    found.first().map(|series| series.points.iter().map(minutes).collect()).unwrap_or_default()
}

#[test]
fn late_samples_are_merged_when_they_are_read_and_when_they_are_compacted() {
    let directory = tempfile::tempdir().expect("a directory");
    let late = Config { out_of_order_window: Duration::from_mins(30), ..config(directory.path()) };
    let (mut writer, reader, registry) = open(late);
    let write = |writer: &mut SeriesWriter, points: &[(i64, f64)]| {
        let written = writer.write(1, &batch(vec![series("x", points)])).0;
        (written.taken() - written.repeated, written.repeated, written.refusals())
    };
    assert_eq!(write(&mut writer, &[(5, 5.0), (40, 40.0), (42, 42.0)]), (3, 0, 0));
    // Behind the newest by less than the window, by more, twice the same, and another value at a time.
    assert_eq!(write(&mut writer, &[(41, 41.0), (12, 12.0), (11, 11.0)]), (2, 0, 1));
    assert_eq!(write(&mut writer, &[(41, 41.0), (41, 0.0), (42, 42.0), (42, 0.0)]), (0, 2, 2));
    let expected = [(5, 5.0), (12, 12.0), (40, 40.0), (41, 41.0), (42, 42.0)];
    assert_eq!(floats(&reader, "x"), expected);
    // So many that they fill a chunk of their own.
    let many: Vec<(i64, f64)> =
        (0..80).map(|n| (42 - n % 29, f64::from(i32::try_from(n).expect("small")))).collect();
    write(&mut writer, &[(70, 0.0)]);
    for point in &many {
        write(&mut writer, std::slice::from_ref(point));
    }
    let in_head = floats(&reader, "x");
    writer.flush().expect("the disk works");
    assert_eq!(floats(&reader, "x"), in_head);
    // What comes late after the seal is a block over others.
    write(&mut writer, &[(60, 60.0), (45, 45.0)]);
    writer.flush().expect("the disk works");
    let sealed = floats(&reader, "x");
    assert_eq!(sealed.len(), in_head.len() + 2);
    assert!(sealed.is_sorted_by(|a, b| a.0 < b.0));
    writer.maintenance().compact_all().expect("the disk works");
    assert_eq!(floats(&reader, "x"), sealed);
    assert_eq!(blocks(directory.path()).len(), 2, "one for each window of ninety minutes");
    let text = registry.encode_text();
    for line in [
        "dropped_total{reason=\"too_old\"} ",
        "dropped_total{reason=\"duplicate\"} ",
        "late_total ",
        "repeated_total ",
    ] {
        assert!(text.contains(&format!("series_samples_{line}")), "{line}: {text}");
        assert!(!text.contains(&format!("series_samples_{line}0\n")), "{line}: {text}");
    }
}

fn native(count: f64) -> NativeHistogram {
    let positive = vec![(0, count / 2.0), (3, count / 2.0)];
    NativeHistogram { schema: 2, count, sum: count * 1.5, positive, ..NativeHistogram::default() }
}

#[test]
fn histograms_and_markers_survive_seal_restart_and_compaction() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut writer, reader, _) = open(config(directory.path()));
    let stale = belfry_promql::stale_marker();
    let custom = NativeHistogram {
        schema: -53,
        count: 3.0,
        sum: 2.5,
        positive: vec![(0, 1.0), (2, 2.0)],
        custom_bounds: vec![0.5, 1.0],
        ..NativeHistogram::default()
    };
    let gauge = NativeHistogram { is_gauge: true, ..native(7.0) };
    let ended = NativeHistogram { sum: stale, ..NativeHistogram::default() };
    let values = [native(2.0), native(5.0), native(1.0), ended, custom, gauge];
    let mut points: Vec<(i64, PointValue)> =
        (0..).zip(values).map(|(minute, held)| (at(minute), PointValue::Histogram(Box::new(held)))).collect();
    points.push((at(6), PointValue::Float(stale)));
    points.push((at(7), PointValue::Float(-0.0)));
    let histogram = SeriesPoints { points, ..series("h", &[]) };
    let broken = NativeHistogram { schema: 99, ..native(1.0) };
    let refused =
        SeriesPoints { points: vec![(at(1), PointValue::Histogram(Box::new(broken)))], ..series("b", &[]) };
    let written = writer.write(1, &batch(vec![histogram, refused])).0;
    assert_eq!((written.floats, written.histograms, written.refused), (2, 6, vec![("invalid", 1)]));

    let all = [belfry_promql::Matcher::equal("__name__", "h")];
    let select = |reader: &SeriesReader| {
        let found = belfry_promql::Series::select(reader, &all, i64::MIN, i64::MAX).expect("few points");
        let data = found.into_iter().next().expect("it is there");
        let floats: Vec<(i64, u64)> =
            data.floats.iter().map(|(time, value)| (*time, value.to_bits())).collect();
        let shown: Vec<_> =
            data.histograms.iter().map(|(time, held)| (*time, held.hint, held.to_string())).collect();
        (floats, shown, data.histograms[3].1.sum.to_bits())
    };
    let in_head = select(&reader);
    assert_eq!(in_head.0, [(at(6), stale.to_bits()), (at(7), (-0.0_f64).to_bits())]);
    assert_eq!(in_head.2, stale.to_bits());
    use CounterReset::{Gauge, NotReset, Unknown};
    let hints: Vec<CounterReset> = in_head.1.iter().map(|(_, hint, _)| *hint).collect();
    assert_eq!(hints[..3], [Unknown, NotReset, Unknown]);
    assert_eq!(hints[4..], [Unknown, Gauge]);
    writer.flush().expect("the disk works");
    assert_eq!(select(&reader), in_head);
    writer.maintenance().compact_all().expect("the disk works");
    assert_eq!(select(&reader), in_head);
    drop((writer, reader));
    let (_writer, reader, _) = open(config(directory.path()));
    assert_eq!(select(&reader), in_head);
}

#[test]
fn a_series_that_says_when_it_began_starts_at_zero() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut writer, reader, _) = open(config(directory.path()));
    let mut write = |created_minute: Option<i64>, points: &[(i64, f64)]| {
        let created_ms = created_minute.map(at);
        let created = SeriesPoints { created_ms, ..series("c_total", points) };
        writer.write(1, &batch(vec![created])).1.expect("the disk works");
    };
    write(Some(1), &[(3, 30.0)]);
    write(Some(1), &[(4, 40.0)]);
    // It was restarted between two samples.
    write(Some(6), &[(7, 5.0)]);
    write(None, &[(8, 6.0)]);
    let expected = [(1, 0.0), (3, 30.0), (4, 40.0), (6, 0.0), (7, 5.0), (8, 6.0)];
    assert_eq!(floats(&reader, "c_total"), expected);
}

#[test]
fn exemplars_and_metadata_are_kept_and_bounded() {
    let directory = tempfile::tempdir().expect("a directory");
    let small = Config { series_exemplars_max: 3, metadata_max: 1, ..config(directory.path()) };
    let (mut writer, reader, registry) = open(small.clone());
    let exemplar = |minute: i64| Exemplar {
        labels: vec![("trace_id".to_owned(), format!("t{minute}"))],
        unix_millis: at(minute),
        value: 0.25,
    };
    let metadata = |name: &str| MetricMetadata {
        name: name.to_owned(),
        kind: "counter".to_owned(),
        help: "Calls.".to_owned(),
        unit: String::new(),
    };
    let with_exemplars = |minutes: std::ops::Range<i64>| SeriesPoints {
        exemplars: minutes.clone().map(exemplar).collect(),
        ..series("e_total", &minutes.map(|minute| (minute, 1.0)).collect::<Vec<_>>())
    };
    let first =
        SeriesBatch { series: vec![with_exemplars(0..5)], metadata: vec![metadata("e"), metadata("f")] };
    assert_eq!(writer.write(1, &first).0.exemplars, 5);
    let times = |reader: &SeriesReader, from: i64, to: i64| -> Vec<i64> {
        let found = reader.exemplars(&[Matcher::metric("e_total")], at(from), at(to)).expect("they are read");
        found
            .iter()
            .flat_map(|series| &series.exemplars)
            .map(|held| (held.unix_millis - START_MS) / MINUTE_MS)
            .collect()
    };
    assert_eq!(times(&reader, 0, 9), [2, 3, 4]);
    writer.flush().expect("the disk works");
    writer.write(2, &batch(vec![with_exemplars(5..7)])).1.expect("the disk works");
    assert_eq!(times(&reader, 3, 5), [3, 4, 5]);
    writer.flush().expect("the disk works");
    writer.maintenance().compact_all().expect("the disk works");
    drop((writer, reader));
    let (_writer, reader, _) = open(small);
    assert_eq!(times(&reader, 0, 9), [4, 5, 6]);
    assert_eq!(reader.metadata(), [metadata("e")]);
    assert!(registry.encode_text().contains("series_metadata_dropped_total 1"));
}

#[test]
fn the_limits_name_the_label_and_spare_the_others() {
    let directory = tempfile::tempdir().expect("a directory");
    let limited = Config {
        tenant_label: Some("tenant".to_owned()),
        tenant_series_max: 60,
        metric_series_max: 50,
        ..config(directory.path())
    };
    let registry = Registry::new(belfry_signal::Resource::for_test(), 1000);
    let (registry, mut records) = registry;
    let (mut writer, reader) = Series::open(limited, &registry).expect("it opens");
    let wide = |tenant: &str, metric: &str, count: usize| -> SeriesBatch {
        let one = |n: usize| SeriesPoints {
            labels: labels(&[
                ("__name__", metric),
                ("job", "x"),
                ("tenant", tenant),
                ("user", &n.to_string()),
            ]),
            ..series("", &[(1, 1.0)])
        };
        batch((0..count).map(one).collect())
    };
    let refused = |writer: &mut SeriesWriter, tenant: &str, metric: &str, count: usize| {
        writer.write(1, &wide(tenant, metric, count)).0.refusals()
    };
    assert_eq!(refused(&mut writer, "a", "m", 70), 20, "more than the metric may have");
    assert_eq!(refused(&mut writer, "a", "n", 30), 20, "more than the tenant may have");
    assert_eq!(refused(&mut writer, "b", "n", 30), 0, "another tenant has its own");
    let text = registry.encode_text();
    assert!(text.contains("series_samples_dropped_total{reason=\"metric_limit\"} 20"), "{text}");
    assert!(text.contains("series_samples_dropped_total{reason=\"tenant_limit\"} 20"), "{text}");
    let mut told = Vec::new();
    while let Ok(record) = records.try_recv() {
        if let belfry_signal::record::Body::Log(log) = record.body {
            told.push(format!("{} {:?}", log.message, log.attributes));
        }
    }
    assert_eq!(
        told.iter().filter(|text| text.contains("\"user\"")).count(),
        2,
        "each is told once: {told:?}"
    );
    let top = reader.top(2);
    assert_eq!((top.series, top.metrics[0].name.as_str(), top.metrics[0].value), (90, "m", 50));
    assert_eq!((top.labels[0].name.as_str(), top.labels[0].value), ("user", 50));
    assert_eq!(top.pairs[0].name, "job=x");
}
