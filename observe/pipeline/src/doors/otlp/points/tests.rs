use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::AnyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogram, Gauge, Histogram, ResourceMetrics, ScopeMetrics, Sum, Summary, summary_data_point,
};

use super::*;

const SECOND: u64 = 1_000_000_000;

fn pair(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(Any::StringValue(value.to_owned())) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn request(metrics: Vec<(&str, &str, Data)>) -> ExportMetricsServiceRequest {
    let metric = |(name, unit, data): (&str, &str, Data)| Metric {
        name: name.to_owned(),
        unit: unit.to_owned(),
        data: Some(data),
        ..Metric::default()
    };
    let attributes = vec![
        pair("service.name", "web"),
        pair("service.namespace", "shop"),
        pair("service.instance.id", "i-1"),
        pair("host.name", "h"),
        pair("cloud.region", "eu"),
    ];
    let scope_metrics =
        vec![ScopeMetrics { metrics: metrics.into_iter().map(metric).collect(), ..ScopeMetrics::default() }];
    let resource = Some(Resource { attributes, ..Resource::default() });
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() }],
    }
}

fn deltas() -> Deltas {
    Deltas::new(100, Duration::from_secs(3600), Instant::now())
}

/// Series as `name{labels} value@seconds ...`, and how many points were refused.
fn convert(deltas: &mut Deltas, metrics: Vec<(&str, &str, Data)>) -> (Vec<String>, i64) {
    let promote = ["cloud.region".to_owned()];
    let (batch, refused) = Converter::new(deltas, &promote, Instant::now()).convert(request(metrics));
    deltas.commit(Instant::now());
    let shown = |series: &SeriesPoints| {
        let own = |name: &str| !matches!(name, "job" | "instance" | "cloud_region");
        let labels: Vec<String> = series
            .labels
            .iter()
            .filter(|(name, _)| own(name))
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let points: Vec<String> = series
            .points
            .iter()
            .map(|(time, value)| match value {
                PointValue::Float(number) if number.to_bits() == STALE_BITS => {
                    format!("stale@{}", time / 1000)
                }
                PointValue::Float(number) => format!("{number}@{}", time / 1000),
                PointValue::Histogram(native) => {
                    format!("n{}:{:?}@{}", native.schema, native.positive, time / 1000)
                }
            })
            .collect();
        format!("{} {}", labels.join(","), points.join(" "))
    };
    (batch.series.iter().map(shown).collect(), refused.refused)
}

fn number(value: Option<Number>, start: u64, time: u64, flags: u32) -> NumberDataPoint {
    NumberDataPoint {
        attributes: vec![pair("http.route", "/a")],
        start_time_unix_nano: start * SECOND,
        time_unix_nano: time * SECOND,
        value,
        flags,
        ..NumberDataPoint::default()
    }
}

fn sum(points: Vec<NumberDataPoint>, temporality: AggregationTemporality) -> Data {
    Data::Sum(Sum { data_points: points, aggregation_temporality: temporality as i32, is_monotonic: true })
}

#[test]
fn gauges_and_counters() {
    let gauge = Data::Gauge(Gauge {
        data_points: vec![
            number(Some(Number::AsDouble(0.5)), 0, 10, 0),
            number(None, 0, 20, NO_VALUE),
            number(None, 0, 30, 0),
        ],
    });
    let counter = sum(vec![number(Some(Number::AsInt(7)), 5, 10, 0)], AggregationTemporality::Cumulative);
    let (series, refused) = convert(&mut deltas(), vec![("load", "1", gauge), ("hits", "", counter)]);
    let expected = [
        "__name__=load_ratio,http_route=/a 0.5@10 stale@20",
        "__name__=hits_total,http_route=/a 7@10",
        "__name__=target_info,host_name=h 1@30",
    ];
    assert_eq!((series, refused), (expected.map(str::to_owned).to_vec(), 1));
}

#[test]
fn resources_become_job_and_instance() {
    let counter = sum(vec![number(Some(Number::AsInt(7)), 5, 10, 0)], AggregationTemporality::Cumulative);
    let promote = ["cloud.region".to_owned()];
    let mut deltas = deltas();
    let (batch, _) =
        Converter::new(&mut deltas, &promote, Instant::now()).convert(request(vec![("hits", "By", counter)]));
    let labels: Vec<String> =
        batch.series[0].labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let expected =
        ["__name__=hits_bytes_total", "cloud_region=eu", "http_route=/a", "instance=i-1", "job=shop/web"];
    assert_eq!(labels, expected);
    assert_eq!(batch.series[0].created_ms, Some(5000));
    assert_eq!(
        (batch.metadata[0].name.as_str(), batch.metadata[0].kind.as_str()),
        ("hits_bytes_total", "counter")
    );
    assert_eq!(batch.series[1].labels.len(), 5, "target_info has the rest: {:?}", batch.series[1].labels);
}

#[test]
fn deltas_are_added_up() {
    let mut deltas = deltas();
    let mut send = |value: i64, start: u64, time: u64| {
        let points = vec![number(Some(Number::AsInt(value)), start, time, 0)];
        convert(&mut deltas, vec![("hits", "", sum(points, AggregationTemporality::Delta))])
    };
    assert_eq!(send(5, 0, 10).0[0], "__name__=hits_total,http_route=/a 5@10");
    assert_eq!(send(2, 10, 20).0[0], "__name__=hits_total,http_route=/a 7@20");
    assert_eq!(send(2, 10, 20).1, 1, "the same again is refused");
}

#[test]
fn histograms_with_bounds_count_all_below() {
    let point = |counts: Vec<u64>, time: u64| HistogramDataPoint {
        time_unix_nano: time * SECOND,
        count: counts.iter().sum(),
        sum: Some(2.5),
        bucket_counts: counts,
        explicit_bounds: vec![0.1, 1.0],
        exemplars: vec![OtlpExemplar {
            value: Some(exemplar::Value::AsDouble(0.5)),
            trace_id: vec![1; 16],
            time_unix_nano: SECOND,
            ..OtlpExemplar::default()
        }],
        ..HistogramDataPoint::default()
    };
    let data = |points, temporality: AggregationTemporality| {
        Data::Histogram(Histogram { data_points: points, aggregation_temporality: temporality as i32 })
    };
    let mut deltas = deltas();
    let cumulative = data(vec![point(vec![1, 2, 3], 10)], AggregationTemporality::Cumulative);
    let (series, _) = convert(&mut deltas, vec![("took", "s", cumulative)]);
    let expected = [
        "__name__=took_seconds_bucket,le=0.1 1@10",
        "__name__=took_seconds_bucket,le=1 3@10",
        "__name__=took_seconds_bucket,le=+Inf 6@10",
        "__name__=took_seconds_count 6@10",
        "__name__=took_seconds_sum 2.5@10",
        "__name__=target_info,host_name=h 1@10",
    ];
    assert_eq!(series, expected);
    for time in [10, 20] {
        let delta = data(vec![point(vec![1, 2, 3], time)], AggregationTemporality::Delta);
        let (series, _) = convert(&mut deltas, vec![("more", "", delta)]);
        let of_all = if time == 10 { "6@10" } else { "12@20" };
        assert_eq!(series[2], format!("__name__=more_bucket,le=+Inf {of_all}"));
    }
    let wrong = data(vec![point(vec![1, 2], 10)], AggregationTemporality::Cumulative);
    assert_eq!(convert(&mut deltas, vec![("wrong", "", wrong)]).1, 1);
}

#[test]
fn exponential_histograms_become_native() {
    let point = |scale: i32, offset: i32, counts: Vec<u64>| ExponentialHistogramDataPoint {
        time_unix_nano: 10 * SECOND,
        scale,
        count: counts.iter().sum(),
        positive: Some(Buckets { offset, bucket_counts: counts }),
        ..ExponentialHistogramDataPoint::default()
    };
    let one = |point| {
        let histogram = ExponentialHistogram { data_points: vec![point], aggregation_temporality: 2 };
        let (series, refused) =
            convert(&mut deltas(), vec![("h", "", Data::ExponentialHistogram(histogram))]);
        (series.into_iter().find(|series| series.starts_with("__name__=h ")), refused)
    };
    let named = |text: &str| (Some(format!("__name__=h {text}")), 0);
    assert_eq!(one(point(3, 0, vec![1, 0, 2])), named("n3:[(1, 1.0), (3, 2.0)]@10"));
    assert_eq!(one(point(0, -2, vec![4, 5])), named("n0:[(-1, 4.0), (0, 5.0)]@10"));
    // Scale 9 to 8: two buckets become one.
    assert_eq!(one(point(9, 0, vec![1, 2, 4])), named("n8:[(1, 3.0), (2, 4.0)]@10"));
    assert_eq!(one(point(-5, 0, vec![1])), (None, 1));
    assert_eq!(one(point(20, i32::MAX - 1, vec![1, 2, 3])), (None, 1));
    assert_eq!(one(point(0, i32::MIN, vec![1])), (None, 1));
}

#[test]
fn summaries_and_what_is_too_much() {
    let summary = Data::Summary(Summary {
        data_points: vec![SummaryDataPoint {
            time_unix_nano: 10 * SECOND,
            count: 3,
            sum: 1.5,
            quantile_values: vec![summary_data_point::ValueAtQuantile { quantile: 0.99, value: 0.7 }],
            ..SummaryDataPoint::default()
        }],
    });
    let (series, _) = convert(&mut deltas(), vec![("s", "", summary)]);
    assert_eq!(
        series[..3],
        ["__name__=s,quantile=0.99 0.7@10", "__name__=s_count 3@10", "__name__=s_sum 1.5@10"]
    );
    let wide = NumberDataPoint {
        attributes: (0..100_000).map(|number| pair(&format!("f{number}"), "x")).collect(),
        ..number(Some(Number::AsInt(1)), 0, 10, 0)
    };
    let gauge = Data::Gauge(Gauge { data_points: vec![wide] });
    assert_eq!(convert(&mut deltas(), vec![("g", "", gauge)]), (vec![], 1));
}
