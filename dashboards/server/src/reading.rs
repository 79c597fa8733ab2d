//! From the stores to JSON: calls, one call, log lines. This file knows the reader's types; nobody else here does.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use belfry_query::{CallFilter, CallRow, CallView, Error, Found, LogLine, LogQuery, Reader, RecordKind};
use belfry_signal::record::{
    Attributes, Body, Call, Direction, Log, Quality, SipMessage, Span, SpanKind, SpanStatus,
};
use belfry_signal::{Severity, Value, now_unix_nanos};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::StatusCode;
use serde::Deserialize;
use tokio::sync::SemaphorePermit;

use crate::access::refusal;
use crate::json;
use crate::json::millis;
use crate::routes::App;
use crate::signals::Bounded;

/// Where calls and logs are read from: three questions, so that tests can answer them without a store.
pub(crate) struct Reading {
    pub(crate) calls: Ask<CallFilter, Found<CallRow>>,
    pub(crate) call: Ask<String, Option<CallView>>,
    pub(crate) search: Ask<LogQuery, Found<LogLine>>,
}

/// A question to the stores.
pub(crate) type Ask<Q, A> = Box<dyn Fn(Q) -> BoxFuture<'static, Result<A, Error>> + Send + Sync>;

impl Reading {
    pub(crate) fn of(reader: &Reader) -> Self {
        let (for_calls, for_call, for_search) = (reader.clone(), reader.clone(), reader.clone());
        Self {
            calls: Box::new(move |filter| {
                let reader = for_calls.clone();
                async move { reader.calls(filter).await }.boxed()
            }),
            call: Box::new(move |call_id| {
                let reader = for_call.clone();
                async move { reader.call(call_id).await }.boxed()
            }),
            search: Box::new(move |query| {
                let reader = for_search.clone();
                async move { reader.search(query).await }.boxed()
            }),
        }
    }
}

/// Without a time range, logs are searched this far back.
const LOGS_SINCE: Duration = Duration::from_secs(3600);

/// The filters of the list of calls.
#[derive(Debug, Deserialize)]
pub(crate) struct CallsAsked {
    outcome: Option<String>,
    region: Option<String>,
    #[serde(default)]
    q: String,
}

/// The filters of a log search.
#[derive(Debug, Deserialize)]
pub(crate) struct LogsAsked {
    #[serde(default)]
    q: String,
    severity: Option<String>,
    #[serde(default, with = "humantime_serde::option")]
    since: Option<Duration>,
}

/// `GET /api/calls`.
pub(crate) async fn calls(State(app): State<Arc<App>>, Query(asked): Query<CallsAsked>) -> Response {
    let Some(_permit) = permit(&app) else { return busy() };
    let filter = CallFilter {
        outcome: asked.outcome.filter(|outcome| !outcome.is_empty()),
        region: asked.region.filter(|region| !region.is_empty()),
        text: asked.q,
        limit: app.config.rows_max,
        ..CallFilter::default()
    };
    match (app.reading.calls)(filter).await {
        Ok(found) => {
            let row = |row: &CallRow| call_row(&row.call, Some(row.end_unix_nanos));
            let calls = found.rows.iter().map(row).collect();
            let is_damaged = found.splits_damaged > 0;
            Json(json::Calls { calls, has_more: found.has_more, is_damaged }).into_response()
        }
        Err(error) => failed(&app, &error),
    }
}

/// `GET /api/calls/{call_id}`.
pub(crate) async fn call(State(app): State<Arc<App>>, Path(call_id): Path<String>) -> Response {
    let Some(_permit) = permit(&app) else { return busy() };
    match (app.reading.call)(call_id).await {
        Ok(Some(view)) => {
            let end_unix_nanos = end_of(&app, &view).await;
            Json(call_detail(&view, end_unix_nanos)).into_response()
        }
        Ok(None) => refusal(StatusCode::NOT_FOUND, "no record of this call is kept"),
        Err(error) => failed(&app, &error),
    }
}

/// `GET /api/logs`.
pub(crate) async fn logs(State(app): State<Arc<App>>, Query(asked): Query<LogsAsked>) -> Response {
    let Some(_permit) = permit(&app) else { return busy() };
    let severity_min = match asked.severity.as_deref() {
        None | Some("" | "debug") => None,
        Some("info") => Some(Severity::Info),
        Some("warn") => Some(Severity::Warn),
        Some("error") => Some(Severity::Error),
        Some(_) => return refusal(StatusCode::BAD_REQUEST, "severity is debug, info, warn or error"),
    };
    let back = u64::try_from(asked.since.unwrap_or(LOGS_SINCE).as_nanos()).unwrap_or(u64::MAX);
    let query = LogQuery {
        text: asked.q,
        from_nanos: Some(now_unix_nanos().saturating_sub(back)),
        severity_min,
        kinds: vec![RecordKind::Log],
        limit: app.config.rows_max,
        ..LogQuery::default()
    };
    match (app.reading.search)(query).await {
        Ok(found) => {
            let line = |line: &LogLine| match &line.record.body {
                Body::Log(log) => Some(log_line(line.record.unix_nanos, &line.record.component, log)),
                _ => None,
            };
            let lines = found.rows.iter().filter_map(line).collect();
            let is_damaged = found.splits_damaged > 0;
            Json(json::Logs { lines, has_more: found.has_more, is_damaged }).into_response()
        }
        Err(error) => failed(&app, &error),
    }
}

/// The record of a call is written when it ends, and the list of calls knows that time.
async fn end_of(app: &App, view: &CallView) -> Option<u64> {
    let filter = CallFilter { trace_id: Some(view.trace_id?), limit: 1, ..CallFilter::default() };
    let found = (app.reading.calls)(filter).await.ok()?;
    found.rows.first().map(|row| row.end_unix_nanos)
}

pub(crate) fn permit(app: &App) -> Option<SemaphorePermit<'_>> {
    let permit = app.searches.try_acquire().ok();
    if permit.is_none() {
        app.signals.bound_reached(Bounded::Search);
    }
    permit
}

pub(crate) fn busy() -> Response {
    refusal(StatusCode::SERVICE_UNAVAILABLE, "too many searches are under way; try again in a moment")
}

fn failed(app: &App, error: &Error) -> Response {
    if error.reason() == "bad_query" {
        return refusal(StatusCode::BAD_REQUEST, error.to_string());
    }
    if matches!(error, Error::Busy | Error::Stopping) {
        return busy();
    }
    app.signals.reading_failed(error.reason());
    refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

fn call_row(call: &Call, end_unix_nanos: Option<u64>) -> json::CallRow {
    json::CallRow {
        call_id: call.call_id.reveal().clone(),
        trace_id: call.trace_id.to_string(),
        start_ms: millis(call.start_unix_nanos),
        end_ms: end_unix_nanos.map(millis),
        answer_ms: call.answer_unix_nanos.map(millis),
        caller: call.caller.reveal().clone(),
        callee: call.callee.reveal().clone(),
        region: call.region.as_str().to_owned(),
        country: call.country.clone(),
        transport: call.transport.to_string(),
        tenant: call.tenant.clone(),
        calling_trunk: call.calling_trunk.clone(),
        called_trunk: call.called_trunk.clone(),
        outcome: call.outcome.to_string(),
        status_code: call.status_code,
        cause: call.cause.to_string(),
        post_dial_seconds: call.post_dial_seconds,
        mos_min: call.mos_min,
        mos_mean: call.mos_mean,
        silent_legs: call.silent_legs.iter().map(ToString::to_string).collect(),
    }
}

fn call_detail(view: &CallView, end_unix_nanos: Option<u64>) -> json::CallDetail {
    let timeline = &view.timeline;
    json::CallDetail {
        call_id: view.call_id.reveal().clone(),
        trace_id: view.trace_id.map(|trace_id| trace_id.to_string()),
        summary: view.summary.as_ref().map(|call| call_row(call, end_unix_nanos)),
        messages: timeline
            .messages
            .iter()
            .map(|stamped| message(stamped.unix_nanos, &stamped.value))
            .collect(),
        spans: timeline
            .spans
            .iter()
            .map(|stamped| span(stamped.unix_nanos, &stamped.component, &stamped.value))
            .collect(),
        quality: timeline.quality.iter().map(|stamped| quality(stamped.unix_nanos, &stamped.value)).collect(),
        logs: timeline
            .logs
            .iter()
            .map(|stamped| log_line(stamped.unix_nanos, &stamped.component, &stamped.value))
            .collect(),
        is_cut: timeline.is_cut,
        is_damaged: timeline.splits_damaged > 0,
    }
}

fn message(unix_nanos: u64, message: &SipMessage) -> json::Message {
    json::Message {
        at_ms: millis(unix_nanos),
        direction: match message.direction {
            Direction::Received => "received",
            Direction::Sent => "sent",
        },
        transport: message.transport.to_string(),
        peer: message.peer.reveal().to_string(),
        node: message.node.to_string(),
        summary: message.summary.to_string(),
        cseq: message.cseq.clone(),
        retransmission: message.retransmission,
        text: String::from_utf8_lossy(message.bytes.reveal()).into_owned(),
    }
}

fn span(end_unix_nanos: u64, component: &str, span: &Span) -> json::Span {
    json::Span {
        span_id: span.context.span_id.to_string(),
        parent_id: span.parent.map(|parent| parent.to_string()),
        component: component.to_owned(),
        name: span.name.to_string(),
        kind: match span.kind {
            SpanKind::Internal => "internal",
            SpanKind::Server => "server",
            SpanKind::Client => "client",
        },
        start_ms: millis(span.start_unix_nanos),
        end_ms: millis(end_unix_nanos),
        ok: span.status == SpanStatus::Ok,
        attributes: attributes(&span.attributes),
    }
}

fn quality(unix_nanos: u64, quality: &Quality) -> json::Quality {
    json::Quality {
        at_ms: millis(unix_nanos),
        leg: quality.leg.to_string(),
        region: quality.region.as_str().to_owned(),
        window_seconds: quality.window_seconds,
        packets: quality.packets,
        lost: quality.lost,
        jitter_ms: quality.jitter_ms,
        rtt_ms: quality.rtt_ms,
        mos: quality.mos,
        r_factor: quality.r_factor,
        payload_type: quality.payload_type,
    }
}

fn log_line(unix_nanos: u64, component: &str, log: &Log) -> json::LogLine {
    json::LogLine {
        at_ms: millis(unix_nanos),
        severity: log.severity.as_str(),
        component: component.to_owned(),
        message: log.message.to_string(),
        attributes: attributes(&log.attributes),
        trace_id: log.context.map(|context| context.trace_id.to_string()),
        call_id: log.call_id.as_ref().map(|call_id| call_id.reveal().clone()),
    }
}

/// People who are logged in at the site may see private values: that is what the page is for.
fn attributes(attributes: &Attributes) -> Vec<(String, String)> {
    let text = |value: &Value| match value {
        Value::Text(text) => text.to_string(),
        Value::Private(private) => private.reveal().clone(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
    };
    attributes.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}
