//! OTLP over HTTP and gRPC: reading requests, and answering as the protocol says.
//!
//! `opentelemetry-proto` reads protobuf and JSON. Of what it reads partly, a partial success tells how much was refused
//! and why; a full success leaves that out, as the specification wants.

use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use belfry_door::PeerAddress;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
    logs_service_server::LogsService,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
    metrics_service_server::MetricsService,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::TraceService,
};
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{Otlp, Stored, events};
use crate::doors::http::{answer, origin, unpack};
use crate::doors::intake::{Origin, Room};
use crate::doors::refusal::{Reason, Refusal};
use crate::doors::signals::Entrance;

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// The three paths of OTLP/HTTP.
pub(super) fn router(otlp: Otlp) -> Router {
    Router::new()
        .route("/v1/logs", post(http_logs))
        .route("/v1/traces", post(http_traces))
        .route("/v1/metrics", post(http_metrics))
        .with_state(otlp)
}

/// The path that Prometheus has for OTLP's metrics.
pub(super) fn api_router(otlp: Otlp) -> Router {
    Router::new().route("/api/v1/otlp/v1/metrics", post(http_metrics)).with_state(otlp)
}

type Peer = Option<Extension<PeerAddress>>;

async fn http_logs(State(otlp): State<Otlp>, peer: Peer, headers: HeaderMap, body: Bytes) -> Response {
    let origin = origin(Entrance::OtlpHttp, peer.map(|Extension(peer)| peer));
    serve(
        &otlp,
        &origin,
        &headers,
        body,
        |request| otlp.logs(&origin, request),
        |stored| ExportLogsServiceResponse { partial_success: partial_logs(stored) },
    )
    .await
}

async fn http_traces(State(otlp): State<Otlp>, peer: Peer, headers: HeaderMap, body: Bytes) -> Response {
    let origin = origin(Entrance::OtlpHttp, peer.map(|Extension(peer)| peer));
    serve(
        &otlp,
        &origin,
        &headers,
        body,
        |request| otlp.spans(&origin, request),
        |stored| ExportTraceServiceResponse { partial_success: partial_spans(stored) },
    )
    .await
}

async fn http_metrics(State(otlp): State<Otlp>, peer: Peer, headers: HeaderMap, body: Bytes) -> Response {
    let origin = origin(Entrance::OtlpHttp, peer.map(|Extension(peer)| peer));
    serve(
        &otlp,
        &origin,
        &headers,
        body,
        |request| otlp.points(&origin, request),
        |stored| ExportMetricsServiceResponse { partial_success: partial_points(stored) },
    )
    .await
}

/// One request from bytes to bytes. The body of a failure is a `google.rpc.Status`, as the specification asks.
async fn serve<Q, A, F>(
    otlp: &Otlp,
    origin: &Origin,
    headers: &HeaderMap,
    body: Bytes,
    store: impl FnOnce(Q) -> F,
    respond: impl FnOnce(Stored) -> A,
) -> Response
where
    Q: Message + Default + DeserializeOwned,
    A: Message + Serialize,
    F: Future<Output = Result<Stored, Refusal>>,
{
    let intake = &otlp.intake;
    intake.received(origin, body.len());
    let is_json = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(JSON.as_bytes()));
    let sample = body.clone();
    let read = || {
        let bytes_max = intake.config().request_bytes_max;
        let room = intake.try_room(body.len())?;
        let bytes = unpack(headers, body, bytes_max)?;
        let room = (room, intake.try_room(bytes.len())?);
        Ok((room, decode::<Q>(headers, &bytes, is_json)?))
    };
    let refused = |refusal: &Refusal| {
        let status = tonic_types::Status {
            code: code(refusal) as i32,
            message: refusal.text.clone(),
            details: Vec::new(),
        };
        let kind = if is_json { JSON } else { PROTOBUF };
        let body = if is_json {
            serde_json::json!({ "code": status.code, "message": status.message }).to_string().into_bytes()
        } else {
            status.encode_to_vec()
        };
        answer(intake, refusal, ([(CONTENT_TYPE, kind)], body))
    };
    let (_room, request) = match read() {
        Ok(request) => request,
        Err(refusal) => {
            intake.refused(origin, &refusal, 1, &sample);
            return refused(&refusal);
        }
    };
    match store(request).await {
        Err(refusal) => refused(&refusal),
        Ok(stored) => {
            let answer = respond(stored);
            if is_json {
                ([(CONTENT_TYPE, JSON)], without_nulls(&answer)).into_response()
            } else {
                (StatusCode::OK, [(CONTENT_TYPE, PROTOBUF)], answer.encode_to_vec()).into_response()
            }
        }
    }
}

/// A full success leaves `partialSuccess` out, which serde would write as null.
fn without_nulls(answer: &impl Serialize) -> String {
    let mut json = serde_json::to_value(answer).unwrap_or_default();
    if let Some(fields) = json.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    json.to_string()
}

fn decode<Q: Message + Default + DeserializeOwned>(
    headers: &HeaderMap,
    bytes: &[u8],
    is_json: bool,
) -> Result<Q, Refusal> {
    if is_json {
        return serde_json::from_slice(bytes)
            .map_err(|error| Refusal::malformed(format!("OTLP/JSON: {error}")));
    }
    let is_protobuf =
        headers.get(CONTENT_TYPE).is_none_or(|kind| kind.as_bytes().starts_with(PROTOBUF.as_bytes()));
    if !is_protobuf {
        let text = "content-type is application/x-protobuf or application/json";
        return Err(Refusal::new(Reason::Unsupported, text));
    }
    Q::decode(bytes).map_err(|error| Refusal::malformed(format!("OTLP/protobuf: {error}")))
}

fn partial_logs(stored: Stored) -> Option<ExportLogsPartialSuccess> {
    let Stored { refused, why } = stored;
    (refused > 0).then_some(ExportLogsPartialSuccess { rejected_log_records: refused, error_message: why })
}

fn partial_spans(stored: Stored) -> Option<ExportTracePartialSuccess> {
    let Stored { refused, why } = stored;
    (refused > 0).then_some(ExportTracePartialSuccess { rejected_spans: refused, error_message: why })
}

fn partial_points(stored: Stored) -> Option<ExportMetricsPartialSuccess> {
    let Stored { refused, why } = stored;
    (refused > 0).then_some(ExportMetricsPartialSuccess { rejected_data_points: refused, error_message: why })
}

fn code(refusal: &Refusal) -> tonic::Code {
    match refusal.reason {
        Reason::Malformed | Reason::Broken | Reason::Unsupported | Reason::TooLong => {
            tonic::Code::InvalidArgument
        }
        Reason::Rate | Reason::Busy | Reason::Disk | Reason::Ended => tonic::Code::Unavailable,
        Reason::Token => tonic::Code::Unauthenticated,
    }
}

/// UNAVAILABLE with the time to wait is what the protocol calls back-pressure.
pub(super) fn grpc_status(otlp: &Otlp, refusal: &Refusal) -> tonic::Status {
    if refusal.is_passing() {
        let details = ErrorDetails::with_retry_info(Some(otlp.intake.retry_after()));
        return tonic::Status::with_error_details(code(refusal), refusal.text.clone(), details);
    }
    tonic::Status::new(code(refusal), refusal.text.clone())
}

/// Who asks, and room for what he sent; tonic has unpacked it within the bound.
fn admit<Q: Message>(otlp: &Otlp, request: &tonic::Request<Q>) -> Result<(Origin, Room), tonic::Status> {
    let peer = request.extensions().get::<super::grpc::GrpcPeer>().map(|peer| PeerAddress(peer.0));
    let origin = origin(Entrance::OtlpGrpc, peer);
    let refuse = |refusal: Refusal| {
        otlp.intake.refused(&origin, &refusal, 1, &[]);
        grpc_status(otlp, &refusal)
    };
    if let Some(tokens) = &otlp.tokens {
        let shown = request.metadata().get("authorization").map(|value| value.as_bytes().to_vec());
        let bearer =
            shown.as_deref().filter(|shown| shown.len() > 7 && shown[..7].eq_ignore_ascii_case(b"bearer "));
        if !bearer.is_some_and(|shown| tokens.has(shown[7..].trim_ascii())) {
            return Err(refuse(Refusal::new(Reason::Token, "send metadata `authorization: Bearer TOKEN`")));
        }
    }
    let bytes = request.get_ref().encoded_len();
    otlp.intake.received(&origin, bytes);
    let room = otlp.intake.try_room(bytes).map_err(refuse)?;
    Ok((origin, room))
}

#[tonic::async_trait]
impl LogsService for Otlp {
    async fn export(
        &self,
        request: tonic::Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, tonic::Status> {
        let (origin, _room) = admit(self, &request)?;
        let stored = self.logs(&origin, request.into_inner()).await;
        let stored = stored.map_err(|refusal| grpc_status(self, &refusal))?;
        Ok(tonic::Response::new(ExportLogsServiceResponse { partial_success: partial_logs(stored) }))
    }
}

#[tonic::async_trait]
impl TraceService for Otlp {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let (origin, _room) = admit(self, &request)?;
        let stored = self.spans(&origin, request.into_inner()).await;
        let stored = stored.map_err(|refusal| grpc_status(self, &refusal))?;
        Ok(tonic::Response::new(ExportTraceServiceResponse { partial_success: partial_spans(stored) }))
    }
}

#[tonic::async_trait]
impl MetricsService for Otlp {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        let (origin, _room) = admit(self, &request)?;
        let stored = self.points(&origin, request.into_inner()).await;
        let stored = stored.map_err(|refusal| grpc_status(self, &refusal))?;
        Ok(tonic::Response::new(ExportMetricsServiceResponse { partial_success: partial_points(stored) }))
    }
}

impl Otlp {
    async fn logs(&self, origin: &Origin, request: ExportLogsServiceRequest) -> Result<Stored, Refusal> {
        let mut shaper = self.intake.shaper(origin.door);
        let understood = events::logs(request, &mut shaper);
        self.intake.note_changes(origin.door, &shaper);
        self.store(origin, understood).await
    }

    async fn spans(&self, origin: &Origin, request: ExportTraceServiceRequest) -> Result<Stored, Refusal> {
        let mut shaper = self.intake.shaper(origin.door);
        let understood = events::spans(request, &mut shaper);
        self.intake.note_changes(origin.door, &shaper);
        self.store(origin, understood).await
    }
}
