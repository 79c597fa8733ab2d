//! The upstream conformance scripts of PromQL through the HTTP API: each question of a script is asked by `query` or
//! `query_range` as well, and the answer in JSON must say what the engine said, which the script then checks.

use axum::Router;
use axum::body::Body;
use belfry_promql::{
    Answer, CounterReset, Data, Error, Histogram, Labels, Matcher, ScriptStore, SeriesData, Severity, Times,
    Value, run_script_in,
};
use belfry_series::{Config, Series, SeriesReader, SeriesWriter};
use belfry_signal::{NativeHistogram, PointValue, Registry, SeriesBatch, SeriesPoints};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::Value as Json;
use tower::ServiceExt as _;

use crate::Reader;

/// The scripts, with the number of their evals.
const FILES: [(&str, usize); 8] = [
    ("aggregators", 160),
    ("functions", 431),
    ("histograms", 185),
    ("literals", 25),
    ("native_histograms", 522),
    ("operators", 214),
    ("selectors", 31),
    ("staleness", 17),
];

struct Store {
    runtime: tokio::runtime::Runtime,
    added: SeriesBatch,
    position: u64,
    writer: SeriesWriter,
    reader: SeriesReader,
    router: Router,
    _directory: tempfile::TempDir,
}

impl Store {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let registry = Registry::for_test();
        let events = belfry_events::Config::for_test(directory.path().join("events"));
        let (_, events) = belfry_events::Events::open(events, &registry).expect("it opens");
        let config = Config {
            retention: std::time::Duration::from_hours(24),
            out_of_order_window: std::time::Duration::ZERO,
            ..Config::in_directory(directory.path().join("series"))
        };
        let (writer, reader) = Series::open(config, &registry).expect("it opens");
        let asking = Reader::new(events, reader.clone(), crate::Config::default(), &registry);
        let router = crate::router(asking.with_experimental_promql(true), &registry);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let added = SeriesBatch::default();
        Self { runtime, added, position: 0, writer, reader, router, _directory: directory }
    }

    /// The answer over HTTP: status and JSON.
    fn over_http(&self, text: &str, times: Times) -> (StatusCode, Json) {
        let seconds = |millis: i64| format!("{}", millis as f64 / 1000.0);
        let (path, times) = match times {
            Times::Instant(at) => ("query", vec![("time", seconds(at))]),
            Times::Range { start_ms, end_ms, step_ms } => (
                "query_range",
                vec![("start", seconds(start_ms)), ("end", seconds(end_ms)), ("step", seconds(step_ms))],
            ),
        };
        let pairs = times.into_iter().chain([("query", text.to_owned())]);
        let form: Vec<String> = pairs.map(|(name, value)| format!("{name}={}", escaped(&value))).collect();
        let request = Request::post(format!("/api/v1/{path}"))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(form.join("&")))
            .expect("a good request");
        self.runtime.block_on(async {
            let response = self.router.clone().oneshot(request).await.expect("infallible");
            let status = response.status();
            let body = response.into_body().collect().await.expect("a body").to_bytes();
            (status, serde_json::from_slice(&body).expect("JSON"))
        })
    }
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

impl belfry_promql::Series for Store {
    fn select(&self, matchers: &[Matcher], from_ms: i64, to_ms: i64) -> Result<Vec<SeriesData>, Error> {
        belfry_promql::Series::select(&self.reader, matchers, from_ms, to_ms)
    }
}

fn native(histogram: &Histogram) -> NativeHistogram {
    NativeHistogram {
        is_gauge: histogram.hint == CounterReset::Gauge,
        schema: histogram.schema,
        zero_threshold: histogram.zero_threshold,
        zero_count: histogram.zero_count,
        count: histogram.count,
        sum: histogram.sum,
        positive: histogram.positive.clone(),
        negative: histogram.negative.clone(),
        custom_bounds: histogram.custom_bounds.to_vec(),
    }
}

impl ScriptStore for Store {
    fn add(&mut self, labels: &Labels, unix_millis: i64, value: Value) {
        let value = match value {
            Value::Float(value) => PointValue::Float(value),
            Value::Histogram(histogram) => PointValue::Histogram(Box::new(native(&histogram))),
        };
        let is_same = self.added.series.last().is_some_and(|last| *last.labels == *labels.pairs());
        if !is_same {
            let (labels, points, exemplars) = (labels.pairs().into(), Vec::new(), Vec::new());
            self.added.series.push(SeriesPoints { labels, created_ms: None, points, exemplars });
        }
        if let Some(last) = self.added.series.last_mut() {
            last.points.push((unix_millis, value));
        }
    }

    fn loaded(&mut self) {
        self.position += 1;
        let (written, _) = self.writer.write(self.position, &std::mem::take(&mut self.added));
        assert_eq!(written.refusals(), 0);
    }

    fn clear(&mut self) {
        *self = Self::new();
    }

    fn asked(&self, text: &str, times: Times, answer: &Result<Answer, Error>) -> Result<(), String> {
        let (status, told) = self.over_http(text, times);
        match answer {
            Err(error) => {
                let fault = told["error"].as_str().unwrap_or_default();
                if status == StatusCode::OK || !fault.ends_with(&error.to_string()) {
                    return Err(format!("over HTTP: {status} {fault:?}, expected {error}"));
                }
                Ok(())
            }
            Ok(answer) if status != StatusCode::OK => {
                Err(format!("over HTTP: {status} {told}, expected {answer:?}"))
            }
            Ok(answer) => compare(answer, &told).map_err(|fault| format!("over HTTP: {fault}: {told}")),
        }
    }
}

/// Whether the JSON says what the answer is.
fn compare(answer: &Answer, told: &Json) -> Result<(), String> {
    for (severity, name) in [(Severity::Warning, "warnings"), (Severity::Info, "infos")] {
        let expected: Vec<Json> =
            answer.annotations.of(severity).map(|remark| Json::from(remark.to_string())).collect();
        let found = told[name].as_array().cloned().unwrap_or_default();
        if found != expected {
            return Err(format!("{name} {found:?} instead of {expected:?}"));
        }
    }
    let result = &told["data"]["result"];
    let is_alike = match &answer.data {
        Data::Scalar(time, value) => is_point(result, *time, &Value::Float(*value)),
        Data::Text(_, text) => result[1] == text.as_str(),
        Data::Vector(samples) => {
            let found = result.as_array().map(Vec::as_slice).unwrap_or_default();
            found.len() == samples.len()
                && samples.iter().zip(found).all(|(sample, found)| {
                    let name = if matches!(sample.value, Value::Float(_)) { "value" } else { "histogram" };
                    has_labels(found, &sample.labels)
                        && is_point(&found[name], sample.unix_millis, &sample.value)
                })
        }
        Data::Matrix(matrix) => {
            let found = result.as_array().map(Vec::as_slice).unwrap_or_default();
            found.len() == matrix.len()
                && matrix.iter().zip(found).all(|(series, found)| is_series(found, series))
        }
    };
    if is_alike { Ok(()) } else { Err(format!("expected {:?}", answer.data)) }
}

fn has_labels(found: &Json, labels: &Labels) -> bool {
    let metric = found["metric"].as_object();
    metric.is_some_and(|metric| {
        metric.len() == labels.iter().count() && labels.iter().all(|(name, value)| metric[name] == value)
    })
}

fn is_series(found: &Json, series: &SeriesData) -> bool {
    let points = |name: &str| found[name].as_array().cloned().unwrap_or_default();
    let (floats, histograms) = (points("values"), points("histograms"));
    has_labels(found, &series.labels)
        && floats.len() == series.floats.len()
        && histograms.len() == series.histograms.len()
        && floats
            .iter()
            .zip(&series.floats)
            .all(|(found, (time, value))| is_point(found, *time, &Value::Float(*value)))
        && histograms.iter().zip(&series.histograms).all(|(found, (time, value))| {
            is_point(found, *time, &Value::Histogram(std::sync::Arc::clone(value)))
        })
}

fn is_point(found: &Json, unix_millis: i64, value: &Value) -> bool {
    let is_time = found[0].as_f64().is_some_and(|seconds| (seconds * 1000.0).round() == unix_millis as f64);
    let is_value = match value {
        Value::Float(value) => is_number(&found[1], *value),
        Value::Histogram(held) => {
            let buckets = held.buckets();
            let told = found[1]["buckets"].as_array().cloned().unwrap_or_default();
            is_number(&found[1]["count"], held.count)
                && is_number(&found[1]["sum"], held.sum)
                && told.len() == buckets.len()
                && told.iter().zip(&buckets).all(|(told, bucket)| {
                    let numbers = [bucket.lower, bucket.upper, bucket.count];
                    numbers.iter().enumerate().all(|(at, number)| is_number(&told[at + 1], *number))
                })
        }
    };
    is_time && is_value
}

/// The same bits, but for those of numbers that are none.
fn is_number(found: &Json, value: f64) -> bool {
    let found = found.as_str().and_then(|text| text.parse::<f64>().ok());
    found.is_some_and(|found| found.to_bits() == value.to_bits() || (found.is_nan() && value.is_nan()))
}

#[test]
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "a test that prints its table")]
fn upstream_scripts_pass_over_http() {
    let Some(folder) = std::env::var_os("BELFRY_PROMQL_DIR") else {
        eprintln!("BELFRY_PROMQL_DIR is unset: the upstream scripts of PromQL were NOT run over HTTP");
        return;
    };
    println!("{:20} {:>6} {:>6}", "file", "http", "evals");
    let mut faults = Vec::new();
    for (name, evals) in FILES {
        let path = std::path::Path::new(&folder).join(format!("{name}.test"));
        let text = std::fs::read_to_string(&path).expect("a script");
        let report = run_script_in(&text, &mut Store::new());
        for failure in &report.failed {
            faults.push(format!("{name}.test:{}: {}", failure.line, failure.text));
        }
        println!("{name:20} {:>6} {evals:>6}", report.passed);
        if report.passed != evals {
            faults.push(format!("{name}: {} of {evals}", report.passed));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
