//! The HTTP API of Prometheus over our stores, so that Grafana, promtool and every client library can ask.
//!
//! Paths, parameters (GET and POST form), shapes, statuses and error types are those of Prometheus 3. Beyond it, times may
//! also be `now` and `-15m`. `metadata` describes the metrics of this process, and those of which the store was told.
//!
//! Not here: evaluation (`belfry-promql`), rules and alerts; targets and writing, which the pipeline's doors answer.

mod envelope;
mod federate;
mod parameters;
mod parsed;
mod remote_read;
mod render;
mod stored;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Serialize;

use belfry_promql::{Severity, Times};
use belfry_series::{MatchOperator, Matcher};
use belfry_signal::{Registry, now_unix_nanos};

use crate::error::Error;
use crate::reader::{PromqlQuery, Reader};
use envelope::{Refusal, Remarks};
use parameters::Parameters;

/// Points of one series that a range query gives at most, as in Prometheus.
const POINTS_MAX: i64 = 11_000;
/// Series that one selector finds at most.
const SERIES_MAX: usize = 100_000;
/// Selectors in one request.
const SELECTORS_MAX: usize = 64;
/// The release of Prometheus whose API this is. Grafana and others read it to learn what they may ask.
const API_VERSION: &str = "3.5.0";
const TRUNCATED: &str = "results truncated due to limit";

/// What the handlers share.
#[derive(Clone)]
struct Api {
    reader: Reader,
    registry: Registry,
    started: jiff::Timestamp,
}

pub(crate) fn routes(reader: Reader, registry: Registry) -> Router {
    Router::new()
        .route("/api/v1/query", get(query).post(query))
        .route("/api/v1/query_range", get(query_range).post(query_range))
        .route("/api/v1/query_exemplars", get(stored::exemplars).post(stored::exemplars))
        .route("/api/v1/format_query", get(format_query).post(format_query))
        .route("/api/v1/parse_query", get(parse_query).post(parse_query))
        .route("/api/v1/read", post(remote_read::read))
        .route("/federate", get(federate::federate))
        .route("/api/v1/series", get(series).post(series))
        .route("/api/v1/labels", get(labels).post(labels))
        .route("/api/v1/label/{name}/values", get(label_values))
        .route("/api/v1/metadata", get(metadata))
        .route("/api/v1/status/buildinfo", get(build))
        .route("/api/v1/status/tsdb", get(stored::status).post(stored::status))
        .route("/api/v1/status/runtimeinfo", get(stored::runtime))
        .route("/api/v1/status/flags", get(stored::flags))
        .route("/api/v1/status/walreplay", get(stored::replay))
        .route("/-/healthy", get(async || "Belfry is healthy.\n"))
        .route("/-/ready", get(async || "Belfry is ready.\n"))
        .with_state(Api { reader, registry, started: jiff::Timestamp::now() })
}

async fn query(State(api): State<Api>, parameters: Parameters) -> Result<Response, Refusal> {
    let at_ms = parameters.time("time")?.unwrap_or_else(now_ms);
    evaluate(&api, &parameters, Times::Instant(at_ms)).await
}

async fn query_range(State(api): State<Api>, parameters: Parameters) -> Result<Response, Refusal> {
    let needed = |name: &'static str| {
        parameters
            .time(name)?
            .ok_or_else(|| Refusal::parameter(name, "cannot parse \"\" to a valid timestamp"))
    };
    let (start_ms, end_ms) = (needed("start")?, needed("end")?);
    if end_ms < start_ms {
        return Err(Refusal::parameter("end", "end timestamp must not be before start timestamp"));
    }
    let step = parameters.duration_ms("step")?;
    let step_ms = step.ok_or_else(|| Refusal::parameter("step", "cannot parse \"\" to a valid duration"))?;
    if step_ms <= 0 {
        let text = "zero or negative query resolution step widths are not accepted. Try a positive integer";
        return Err(Refusal::parameter("step", text));
    }
    if end_ms.saturating_sub(start_ms) / step_ms > POINTS_MAX {
        return Err(Refusal::bad_data(
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)",
        ));
    }
    evaluate(&api, &parameters, Times::Range { start_ms, end_ms, step_ms }).await
}

async fn evaluate(api: &Api, parameters: &Parameters, times: Times) -> Result<Response, Refusal> {
    let positive = |name: &'static str, usual: Duration| match parameters.duration_ms(name)? {
        None => Ok(usual),
        Some(ms) => u64::try_from(ms)
            .ok()
            .filter(|ms| *ms > 0)
            .map(Duration::from_millis)
            .ok_or_else(|| Refusal::parameter(name, "must be above zero")),
    };
    let query = PromqlQuery {
        text: parameters.first("query").unwrap_or_default().to_owned(),
        times,
        lookback: positive("lookback_delta", PromqlQuery::LOOKBACK)?,
        timeout: positive("timeout", PromqlQuery::TIMEOUT_MAX)?.min(PromqlQuery::TIMEOUT_MAX),
    };
    let limit = parameters.limit()?;
    let rendered = api.reader.evaluate_then(query, move |answer| {
        let remarks = |severity| answer.annotations.of(severity).map(ToString::to_string).collect();
        let mut remarks = Remarks { warnings: remarks(Severity::Warning), infos: remarks(Severity::Info) };
        let (data, is_whole) = render::data(&answer.data, limit);
        if !is_whole {
            remarks.warnings.push(TRUNCATED.to_owned());
        }
        envelope::enclose(&data, &remarks)
    });
    Ok(envelope::json(rendered.await?))
}

async fn format_query(parameters: Parameters) -> Result<Response, Refusal> {
    envelope::success(&belfry_promql::format(&parse(&parameters)?), Remarks::default())
}

async fn parse_query(parameters: Parameters) -> Result<Response, Refusal> {
    envelope::success(&parsed::tree(&parse(&parameters)?), Remarks::default())
}

fn parse(parameters: &Parameters) -> Result<belfry_promql::ast::Expr, Refusal> {
    Ok(belfry_promql::parse(parameters.first("query").unwrap_or_default()).map_err(Error::from)?)
}

async fn series(State(api): State<Api>, parameters: Parameters) -> Result<Response, Refusal> {
    let selectors = parameters.selectors(SELECTORS_MAX)?;
    if selectors.is_empty() {
        return Err(Refusal::bad_data("no match[] parameter provided"));
    }
    let (sets, remarks) = find(&api, &parameters, selectors).await?;
    let sets: Vec<BTreeMap<String, String>> =
        sets.into_iter().map(|labels| labels.into_iter().collect()).collect();
    limited(sets, &parameters, remarks)
}

async fn labels(State(api): State<Api>, parameters: Parameters) -> Result<Response, Refusal> {
    let selectors = parameters.selectors(SELECTORS_MAX)?;
    if selectors.is_empty() && !parameters.has_range() {
        return limited(api.reader.label_names().await?, &parameters, Remarks::default());
    }
    let selectors = if selectors.is_empty() { vec![Vec::new()] } else { selectors };
    let (sets, remarks) = find(&api, &parameters, selectors).await?;
    let names: BTreeSet<String> = sets.into_iter().flatten().map(|(name, _)| name).collect();
    limited(names.into_iter().collect(), &parameters, remarks)
}

async fn label_values(
    State(api): State<Api>,
    Path(name): Path<String>,
    parameters: Parameters,
) -> Result<Response, Refusal> {
    let mut selectors = parameters.selectors(SELECTORS_MAX)?;
    if selectors.is_empty() && !parameters.has_range() {
        return limited(api.reader.label_values(name).await?, &parameters, Remarks::default());
    }
    let is_there = Matcher::new(&name, MatchOperator::NotEqual, "").map_err(Error::from)?;
    if selectors.is_empty() {
        selectors.push(Vec::new());
    }
    selectors.iter_mut().for_each(|matchers| matchers.push(is_there.clone()));
    let (sets, remarks) = find(&api, &parameters, selectors).await?;
    let values: BTreeSet<String> =
        sets.into_iter().flatten().filter(|(held, _)| *held == name).map(|(_, value)| value).collect();
    limited(values.into_iter().collect(), &parameters, remarks)
}

/// The label sets that any of the selectors finds in the request's time, which is all time unless it says otherwise.
async fn find(
    api: &Api,
    parameters: &Parameters,
    selectors: Vec<Vec<Matcher>>,
) -> Result<(Vec<Vec<(String, String)>>, Remarks), Refusal> {
    let start_ms = parameters.time("start")?.unwrap_or(i64::MIN);
    let end_ms = parameters.time("end")?.unwrap_or(i64::MAX);
    if end_ms < start_ms {
        return Err(Refusal::parameter("end", "end timestamp must not be before start timestamp"));
    }
    let sets = api.reader.label_sets(selectors, start_ms, end_ms, SERIES_MAX).await?;
    let mut remarks = Remarks::default();
    if sets.len() >= SERIES_MAX {
        remarks.warnings.push(format!("no more than {SERIES_MAX} series are looked at: narrow the selector"));
    }
    Ok((sets, remarks))
}

fn limited<T: Serialize>(
    mut items: Vec<T>,
    parameters: &Parameters,
    mut remarks: Remarks,
) -> Result<Response, Refusal> {
    if let Some(limit) = parameters.limit()?
        && items.len() > limit
    {
        items.truncate(limit);
        remarks.warnings.push(TRUNCATED.to_owned());
    }
    envelope::success(&items, remarks)
}

/// What one metric is.
#[derive(Debug, Serialize)]
struct Metadata {
    r#type: String,
    help: String,
    unit: String,
}

async fn metadata(State(api): State<Api>, parameters: Parameters) -> Result<Response, Refusal> {
    let wanted = parameters.first("metric");
    let limit = parameters.limit()?.unwrap_or(usize::MAX);
    let own = api.registry.catalogue().into_iter().map(|metric| {
        // The catalogue says 1 where there is no unit; Prometheus says nothing.
        let unit = Some(metric.unit()).filter(|unit| *unit != "1").unwrap_or_default().to_owned();
        (
            metric.name.clone(),
            Metadata { r#type: metric.kind.to_string(), help: metric.help.to_owned(), unit },
        )
    });
    let stored =
        api.reader.metadata().into_iter().map(|metric| {
            (metric.name, Metadata { r#type: metric.kind, help: metric.help, unit: metric.unit })
        });
    // What this process says of its own metrics counts.
    let all: BTreeMap<String, Metadata> = stored.chain(own).collect();
    let metrics: BTreeMap<String, [Metadata; 1]> = all
        .into_iter()
        .filter(|(name, _)| wanted.is_none_or(|wanted| wanted == name))
        .take(limit)
        .map(|(name, metric)| (name, [metric]))
        .collect();
    envelope::success(&metrics, Remarks::default())
}

/// What answers here, with the names that Prometheus gives.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Build {
    version: &'static str,
    revision: &'static str,
    branch: &'static str,
    build_user: &'static str,
    build_date: &'static str,
    go_version: &'static str,
}

async fn build() -> Result<Response, Refusal> {
    let build = Build {
        version: API_VERSION,
        revision: concat!("belfry-", env!("CARGO_PKG_VERSION")),
        branch: "",
        build_user: "",
        build_date: "",
        go_version: "",
    };
    envelope::success(&build, Remarks::default())
}

fn now_ms() -> i64 {
    i64::try_from(now_unix_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod conformance;
#[cfg(test)]
mod tests;
