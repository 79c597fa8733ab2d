//! The HTTP API of Prometheus over our stores, so that Grafana, promtool and every client library can ask.
//!
//! Paths, parameters (GET and POST form), shapes, statuses and error types are those of Prometheus 3. Beyond it, times may
//! also be `now` and `-15m`. `metadata` describes the metrics of this process, and those of which the store was told.
//!
//! Not here: evaluation (`belfry-promql`), rules and alerts; targets and writing, which the pipeline's doors answer.

mod envelope;
mod explain;
mod federate;
mod found;
mod parameters;
mod parsed;
mod remote_read;
mod render;
mod stored;

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use http::{HeaderValue, header};
use serde::Serialize;

use belfry_promql::{Severity, Times};
use belfry_signal::{Kind, Registry, now_unix_nanos};

use crate::error::Error;
use crate::reader::{Evaluated, PromqlQuery, Reader};
use envelope::{Refusal, Remarks};
use parameters::Parameters;

/// Points of one series that a range query gives at most, as in Prometheus.
const POINTS_MAX: i64 = 11_000;
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

/// All of the API.
pub(crate) fn routes(reader: Reader, registry: Registry) -> Router {
    let more = Router::new()
        .route("/api/v1/read", post(remote_read::read))
        .route("/federate", get(federate::federate))
        .route("/api/v1/status/buildinfo", get(build))
        .route("/api/v1/status/tsdb", get(stored::status).post(stored::status))
        .route("/api/v1/status/runtimeinfo", get(stored::runtime))
        .route("/api/v1/status/flags", get(stored::flags))
        .route("/api/v1/status/walreplay", get(stored::replay))
        .route("/-/healthy", get(async || "Belfry is healthy.\n"))
        .route("/-/ready", get(async || "Belfry is ready.\n"))
        .with_state(Api::new(reader.clone(), registry.clone()));
    Router::new().nest("/api/v1", questions(reader, registry)).merge(more)
}

/// The questions alone, without `/api/v1` before them: what a page for people asks.
pub(crate) fn questions(reader: Reader, registry: Registry) -> Router {
    Router::new()
        .route("/query", get(query).post(query))
        .route("/query_range", get(query_range).post(query_range))
        .route("/query_exemplars", get(stored::exemplars).post(stored::exemplars))
        .route("/format_query", get(format_query).post(format_query))
        .route("/parse_query", get(parse_query).post(parse_query))
        .route("/series", get(found::series).post(found::series))
        .route("/labels", get(found::labels).post(found::labels))
        .route("/label/{name}/values", get(found::label_values))
        .route("/metadata", get(metadata))
        .route("/functions", get(functions))
        .with_state(Api::new(reader, registry))
}

impl Api {
    fn new(reader: Reader, registry: Registry) -> Self {
        Self { reader, registry, started: jiff::Timestamp::now() }
    }
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
        timeout: positive("timeout", api.reader.config().timeout_max)?,
        explain: parameters.first("explain").is_some_and(|wanted| wanted != "0" && wanted != "false"),
    };
    let (limit, bytes_max) = (parameters.limit()?, api.reader.config().answer_bytes_max);
    let rendered = api.reader.evaluate_then(query, move |evaluated| {
        let Evaluated { answer, remarks, has_calls, plan } = evaluated;
        let said = |severity| answer.annotations.of(severity).map(ToString::to_string).collect();
        let mut remarks = Remarks { warnings: remarks, infos: said(Severity::Info) };
        remarks.warnings.extend::<Vec<String>>(said(Severity::Warning));
        let rendered = render::data(&answer.data, limit, bytes_max).ok_or_else(|| {
            Refusal::execution(format!(
                "the answer is longer than {bytes_max} bytes: ask for fewer series, a shorter time or a longer step"
            ))
        })?;
        if !rendered.is_whole {
            remarks.warnings.push(TRUNCATED.to_owned());
        }
        let plan = plan.map(|plan| explain::json(&plan, answer.samples));
        Ok::<_, Refusal>((envelope::enclose(&rendered.bytes, &remarks, plan.as_ref()), has_calls))
    });
    let (body, has_calls) = rendered.await??;
    let mut response = envelope::json(body);
    if has_calls {
        // It holds a Call-ID: nothing between here and the reader may keep it.
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    Ok(response)
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
        // What calls knew rises and falls.
        let kind = if metric.kind == Kind::Curve { Kind::Gauge } else { metric.kind };
        (metric.name.clone(), Metadata { r#type: kind.to_string(), help: metric.help.to_owned(), unit })
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

/// A function of PromQL, for completion.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FunctionJson {
    name: &'static str,
    arg_types: Vec<&'static str>,
    return_type: &'static str,
    is_experimental: bool,
}

/// Ours: what a query may call, so that a page can complete it.
async fn functions() -> Result<Response, Refusal> {
    let one = |function: &belfry_promql::Function| FunctionJson {
        name: function.name,
        arg_types: function.arguments.iter().map(|kind| kind.name()).collect(),
        return_type: function.returns.name(),
        is_experimental: function.is_experimental,
    };
    let functions: Vec<_> = belfry_promql::functions().iter().map(one).collect();
    envelope::success(&functions, Remarks::default())
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
