//! What the store says about itself and beside its samples: exemplars, and who costs what.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::Response;
use belfry_series::TopEntry;
use serde::Serialize;

use super::envelope::{self, Refusal, Remarks};
use super::parameters::{Parameters, for_index};
use super::{Api, parse};
use crate::reader::PromqlQuery;

/// Lines of each list of `status/tsdb`, as in Prometheus.
const TOP_LINES: usize = 10;
const TOP_LINES_MAX: usize = 10_000;

/// The exemplars of one series.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    series_labels: BTreeMap<String, String>,
    exemplars: Vec<Shown>,
}

#[derive(Debug, Serialize)]
struct Shown {
    labels: BTreeMap<String, String>,
    value: String,
    /// Seconds since the Unix epoch.
    timestamp: f64,
}

/// The exemplars of the series that a query's selectors name.
pub(super) async fn exemplars(State(api): State<Api>, parameters: Parameters) -> Result<Response, Refusal> {
    let expr = parse(&parameters)?;
    let (start, end) = (parameters.time("start")?, parameters.time("end")?);
    if let (Some(start), Some(end)) = (start, end)
        && end < start
    {
        return Err(Refusal::bad_data("end timestamp must not be before start timestamp"));
    }
    let selectors: Vec<_> = expr.selectors().into_iter().map(|selector| selector.matchers.clone()).collect();
    let selectors = for_index(&selectors)?;
    let found = api.reader.exemplars(selectors, start.unwrap_or(i64::MIN), end.unwrap_or(i64::MAX)).await?;
    let found: Vec<Found> = found
        .into_iter()
        .map(|series| Found {
            series_labels: series
                .labels
                .iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            exemplars: series
                .exemplars
                .into_iter()
                .map(|exemplar| Shown {
                    labels: exemplar.labels.into_iter().collect(),
                    value: belfry_promql::format_float(exemplar.value),
                    timestamp: exemplar.unix_millis as f64 / 1000.0,
                })
                .collect(),
        })
        .collect();
    envelope::success(&found, Remarks::default())
}

/// `status/tsdb`, with the names that Prometheus gives.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    head_stats: HeadStats,
    series_count_by_metric_name: Vec<Line>,
    label_value_count_by_label_name: Vec<Line>,
    memory_in_bytes_by_label_name: Vec<Line>,
    series_count_by_label_value_pair: Vec<Line>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct HeadStats {
    num_series: u64,
    num_label_pairs: u64,
    /// Samples, as chunks are counted by the hundred and twenty.
    chunk_count: u64,
    min_time: i64,
    max_time: i64,
    /// Bytes of samples, labels and sets: ours, beyond what Prometheus says.
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Line {
    name: String,
    value: u64,
}

fn lines(entries: Vec<TopEntry>) -> Vec<Line> {
    entries.into_iter().map(|entry| Line { name: entry.name, value: entry.value }).collect()
}

/// `status/runtimeinfo`, as far as the names mean something here.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Runtime {
    start_time: String,
    server_time: String,
    reload_config_success: bool,
    time_series_count: u64,
    storage_retention: String,
    #[serde(rename = "GOMAXPROCS")]
    threads: usize,
}

pub(super) async fn runtime(State(api): State<Api>) -> Result<Response, Refusal> {
    let stamp = |stamp: jiff::Timestamp| stamp.round(jiff::Unit::Second).unwrap_or(stamp).to_string();
    let runtime = Runtime {
        start_time: stamp(api.started),
        server_time: stamp(jiff::Timestamp::now()),
        reload_config_success: true,
        time_series_count: api.reader.series_count() as u64,
        storage_retention: format!("{}h", api.reader.retention().as_secs() / 3600),
        threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
    };
    envelope::success(&runtime, Remarks::default())
}

/// `status/flags`: of Prometheus' flags, those that have a meaning here.
pub(super) async fn flags(State(api): State<Api>) -> Result<Response, Refusal> {
    let seconds = |duration: std::time::Duration| format!("{}s", duration.as_secs());
    let config = api.reader.config();
    let flags = BTreeMap::from([
        ("query.lookback-delta", seconds(PromqlQuery::LOOKBACK)),
        ("query.timeout", seconds(config.timeout_max)),
        ("query.max-samples", config.samples_max.to_string()),
        ("query.max-concurrency", config.questions_max.to_string()),
        ("storage.tsdb.retention.time", seconds(api.reader.retention())),
        ("web.enable-remote-write-receiver", "true".to_owned()),
    ]);
    envelope::success(&flags, Remarks::default())
}

/// `status/walreplay`: this door opens only when the log was read.
pub(super) async fn replay() -> Result<Response, Refusal> {
    envelope::success(&serde_json::json!({"min": 0, "max": 0, "current": 0}), Remarks::default())
}

/// Who costs what in memory.
pub(super) async fn status(State(api): State<Api>, parameters: Parameters) -> Result<Response, Refusal> {
    let limit = parameters.limit()?.unwrap_or(TOP_LINES);
    if !(1..=TOP_LINES_MAX).contains(&limit) {
        return Err(Refusal::parameter("limit", "use 1 to 10000"));
    }
    let top = api.reader.top(limit).await?;
    let (min_time, max_time) = top.range.unwrap_or((i64::MAX, i64::MIN));
    let status = Status {
        head_stats: HeadStats {
            num_series: top.series,
            num_label_pairs: top.label_pairs,
            chunk_count: top.samples.div_ceil(120).max(top.series),
            min_time,
            max_time,
            bytes: top.bytes,
        },
        series_count_by_metric_name: lines(top.metrics),
        label_value_count_by_label_name: lines(top.labels),
        memory_in_bytes_by_label_name: lines(top.label_bytes),
        series_count_by_label_value_pair: lines(top.pairs),
    };
    envelope::success(&status, Remarks::default())
}
