//! The HTTP face of the reader: JSON, with bounds on everything that a request can ask for.

use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{HeaderValue, header};
use serde::{Deserialize, Serialize};

use belfry_events::{CallFilter, Found, LogQuery, RecordKind};
use belfry_signal::{Registry, Severity, TraceId, now_unix_nanos};

use crate::error::Error;
use crate::json::{CallJson, CallRowJson, LogLineJson, TraceJson};
use crate::ladder::render_call;
use crate::reader::Reader;
use crate::{prometheus, series, time};

/// Rows of a list, unless the request says otherwise.
const ROWS_DEFAULT: usize = 100;
/// Rows of a list at most; the store has a bound of its own as well.
const ROWS_MAX: usize = 1000;
/// How far back lists look, unless the request says otherwise.
const RANGE_DEFAULT_NANOS: u64 = 3600 * 1_000_000_000;
/// A Call-ID in a path; SIP messages with longer ones are refused at the edge.
const CALL_ID_BYTES_MAX: usize = 1024;
const WIDTH_DEFAULT: usize = 100;
const WIDTH_MAX: usize = 400;

/// The routes. Whoever serves them decides who may come here.
///
/// `GET /api/v1/calls/{call_id}` (also `?format=text`), `/api/v1/calls`, `/api/v1/logs`, `/api/v1/traces/{trace_id}`,
/// `/api/v1/points`; and of the HTTP API of Prometheus `/api/v1/query`, `query_range`, `query_exemplars`, `format_query`,
/// `series`, `labels`, `label/{name}/values`, `metadata`, `status/buildinfo`, and `/-/healthy` and `/-/ready`.
/// `registry` says what the metrics of this process mean.
pub fn router(reader: Reader, registry: &Registry) -> Router {
    let prometheus = prometheus::routes(reader.clone(), registry.clone());
    Router::new()
        .route("/api/v1/calls", get(calls))
        .route("/api/v1/calls/{call_id}", get(call))
        .route("/api/v1/logs", get(logs))
        .route("/api/v1/traces/{trace_id}", get(trace))
        .merge(series::routes())
        .with_state(reader)
        .merge(prometheus)
}

/// The questions of the HTTP API of Prometheus alone, without `/api/v1` before them: `query`, `query_range`, `series`,
/// `labels`, `label/{name}/values`, `metadata`, `functions` and the like, for a page with a login of its own.
pub fn questions(reader: Reader, registry: &Registry) -> Router {
    prometheus::questions(reader, registry.clone())
}

/// Records that a search found, and how far the list can be trusted.
#[derive(Debug, Serialize)]
struct LogsJson {
    lines: Vec<LogLineJson>,
    #[serde(flatten)]
    extent: Extent,
}

/// Calls that were found, and how far the list can be trusted.
#[derive(Debug, Serialize)]
struct CallsJson {
    calls: Vec<CallRowJson>,
    #[serde(flatten)]
    extent: Extent,
}

/// What a list covers.
#[derive(Debug, Serialize)]
struct Extent {
    /// Whether older rows were left out because of the limit.
    has_more: bool,
    splits_read: usize,
    /// Damaged parts of the store that are left out.
    splits_damaged: usize,
    from: String,
    to: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogsParams {
    #[serde(default, alias = "q")]
    query: String,
    from: Option<String>,
    to: Option<String>,
    severity: Option<String>,
    kinds: Option<String>,
    limit: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct CallsParams {
    #[serde(default, alias = "q")]
    query: String,
    from: Option<String>,
    to: Option<String>,
    outcome: Option<String>,
    region: Option<String>,
    trace_id: Option<String>,
    limit: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct CallParams {
    format: Option<String>,
    width: Option<usize>,
}

/// Query parameters, whose faults are problem details as everything else.
pub(crate) struct Params<T>(pub(crate) T);

impl<S: Send + Sync, T: serde::de::DeserializeOwned> axum::extract::FromRequestParts<S> for Params<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut http::request::Parts, state: &S) -> Result<Self, Error> {
        let params = Query::<T>::from_request_parts(parts, state).await;
        params.map(|Query(params)| Self(params)).map_err(|rejection| Error::BadRequest {
            place: "query parameters",
            what: rejection.body_text(),
            hint: "see the parameters of this path in observe/events/README.md",
        })
    }
}

async fn logs(State(reader): State<Reader>, Params(params): Params<LogsParams>) -> Result<Response, Error> {
    let range = Range::of(params.from.as_deref(), params.to.as_deref())?;
    let query = LogQuery {
        text: params.query,
        from_nanos: Some(range.from),
        to_nanos: Some(range.to),
        severity_min: params.severity.as_deref().map(severity).transpose()?,
        kinds: kinds(params.kinds.as_deref())?,
        limit: rows(params.limit)?,
    };
    let found = reader.search(query).await?;
    let lines = found.rows.iter().map(LogLineJson::of).collect();
    Ok(private(Json(LogsJson { lines, extent: range.extent(&found) }).into_response()))
}

async fn calls(State(reader): State<Reader>, Params(params): Params<CallsParams>) -> Result<Response, Error> {
    let range = Range::of(params.from.as_deref(), params.to.as_deref())?;
    let filter = CallFilter {
        from_nanos: Some(range.from),
        to_nanos: Some(range.to),
        outcome: params.outcome,
        region: params.region,
        trace_id: params.trace_id.as_deref().map(trace_id).transpose()?,
        text: params.query,
        limit: rows(params.limit)?,
    };
    let found = reader.calls(filter).await?;
    let calls = found.rows.iter().map(CallRowJson::of).collect();
    Ok(private(Json(CallsJson { calls, extent: range.extent(&found) }).into_response()))
}

async fn call(
    State(reader): State<Reader>,
    Path(call_id): Path<String>,
    Params(params): Params<CallParams>,
) -> Result<Response, Error> {
    let is_text = match params.format.as_deref() {
        None | Some("json") => false,
        Some("text") => true,
        Some(other) => {
            let what = format!("{other:?} is not a format");
            return Err(Error::BadRequest { place: "format", what, hint: "json or text" });
        }
    };
    let view = find_call(&reader, call_id).await?;
    if !is_text {
        return Ok(private(Json(CallJson::of(&view)).into_response()));
    }
    let width = params.width.unwrap_or(WIDTH_DEFAULT).min(WIDTH_MAX);
    let content_type = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok(private((content_type, render_call(&view, width)).into_response()))
}

async fn trace(State(reader): State<Reader>, Path(text): Path<String>) -> Result<Response, Error> {
    let view = reader.trace(trace_id(&text)?).await?;
    let view = view.ok_or(Error::NotFound { place: "trace_id", what: "the trace" })?;
    Ok(private(Json(TraceJson::of(&view)).into_response()))
}

async fn find_call(reader: &Reader, call_id: String) -> Result<belfry_events::CallView, Error> {
    if call_id.is_empty() || call_id.len() > CALL_ID_BYTES_MAX {
        return Err(Error::BadRequest {
            place: "call_id",
            what: format!("{} bytes", call_id.len()),
            hint: "a Call-ID has 1 to 1024 bytes; encode reserved characters in the path, as %2F for a slash",
        });
    }
    reader.call(call_id).await?.ok_or(Error::NotFound { place: "call_id", what: "the call" })
}

/// Answers hold private values: nothing between here and the reader may keep them.
fn private(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

pub(crate) struct Range {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Range {
    pub(crate) fn of(from: Option<&str>, to: Option<&str>) -> Result<Self, Error> {
        let now = now_unix_nanos();
        let to = to.map_or(Ok(now), |text| time::parse("to", text, now))?;
        let from =
            from.map_or(Ok(to.saturating_sub(RANGE_DEFAULT_NANOS)), |text| time::parse("from", text, now))?;
        if from > to {
            return Err(Error::BadRequest {
                place: "from",
                what: "it is after to".to_owned(),
                hint: "from is the earlier time",
            });
        }
        // Records of this very moment belong to "now".
        let to = if to == now { to + 1_000_000_000 } else { to };
        Ok(Self { from, to })
    }

    fn extent<T>(&self, found: &Found<T>) -> Extent {
        Extent {
            has_more: found.has_more,
            splits_read: found.splits_read,
            splits_damaged: found.splits_damaged,
            from: time::text(self.from),
            to: time::text(self.to),
        }
    }
}

fn rows(wanted: Option<usize>) -> Result<usize, Error> {
    match wanted.unwrap_or(ROWS_DEFAULT) {
        rows @ 1..=ROWS_MAX => Ok(rows),
        rows => {
            Err(Error::BadRequest { place: "limit", what: format!("{rows} rows"), hint: "ask for 1 to 1000" })
        }
    }
}

fn trace_id(text: &str) -> Result<TraceId, Error> {
    TraceId::parse(text).ok_or_else(|| Error::BadRequest {
        place: "trace_id",
        what: format!("{text:?} is not a trace id"),
        hint: "32 hexadecimal digits, not all zero",
    })
}

fn severity(text: &str) -> Result<Severity, Error> {
    match text.to_ascii_lowercase().as_str() {
        "debug" => Ok(Severity::Debug),
        "info" => Ok(Severity::Info),
        "warn" | "warning" => Ok(Severity::Warn),
        "error" => Ok(Severity::Error),
        _ => Err(Error::BadRequest {
            place: "severity",
            what: format!("{text:?} is not a severity"),
            hint: "debug, info, warn or error: this and above",
        }),
    }
}

/// Kinds by name, separated by commas; all unless the request says otherwise.
fn kinds(text: Option<&str>) -> Result<Vec<RecordKind>, Error> {
    match text {
        None | Some("all") => Ok(Vec::new()),
        Some(names) => names.split(',').map(kind).collect(),
    }
}

fn kind(name: &str) -> Result<RecordKind, Error> {
    let known = RecordKind::ALL.iter().find(|kind| kind.as_str() == name.trim());
    known.copied().ok_or_else(|| Error::BadRequest {
        place: "kinds",
        what: format!("{name:?} is not a kind"),
        hint: "log, span, sip, quality, call, separated by commas, or all",
    })
}
