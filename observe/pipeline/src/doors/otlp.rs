//! OTLP: logs, traces and metrics of anything that has an OpenTelemetry SDK, over gRPC and HTTP.

mod attributes;
mod delta;
mod events;
mod grpc;
mod names;
mod points;
mod wire;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use belfry_door::Tokens;
use belfry_signal::Record;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use tokio::sync::Mutex;

use self::delta::Deltas;
use self::points::Converter;
use super::config::OtlpConfig;
use super::intake::{Intake, Origin};
use super::listen::Acceptor;
use super::refusal::{Reason, Refusal};

/// What all requests share. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Otlp {
    intake: Intake,
    tokens: Option<Arc<Tokens>>,
    promote: Arc<[String]>,
    deltas: Arc<Mutex<Deltas>>,
}

/// What a decoder made of a request, and what it refused.
#[derive(Debug)]
struct Understood<T> {
    taken: Vec<T>,
    /// Made of what belongs to what was taken, and not counted as sent.
    beside: Vec<T>,
    refused: i64,
    why: String,
}

impl<T> Default for Understood<T> {
    fn default() -> Self {
        Self { taken: Vec::new(), beside: Vec::new(), refused: 0, why: String::new() }
    }
}

impl<T> Understood<T> {
    /// Counts one refused; the first reason is told.
    fn refuse(&mut self, why: &str) {
        self.refuse_all(1, why);
    }

    fn refuse_all(&mut self, count: usize, why: &str) {
        self.refused = self.refused.saturating_add(i64::try_from(count).unwrap_or(i64::MAX));
        if self.why.is_empty() {
            why.clone_into(&mut self.why);
        }
    }
}

/// What of a request was not taken; nothing, usually.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stored {
    refused: i64,
    why: String,
}

impl Otlp {
    pub(crate) fn new(config: &OtlpConfig, intake: Intake, tokens: Option<Arc<Tokens>>) -> Self {
        let deltas = Deltas::new(config.delta_series_max, config.delta_idle, Instant::now());
        Self { intake, tokens, promote: config.promote.clone().into(), deltas: Arc::new(Mutex::new(deltas)) }
    }

    /// The paths of OTLP/HTTP.
    pub(crate) fn router(&self) -> Router {
        wire::router(self.clone())
    }

    /// The path of Prometheus for metrics over OTLP/HTTP.
    pub(crate) fn api_router(&self) -> Router {
        wire::api_router(self.clone())
    }

    /// Serves OTLP/gRPC until told to stop.
    pub(crate) async fn serve(self, acceptor: Acceptor) {
        grpc::serve(self, acceptor).await;
    }

    async fn store(&self, origin: &Origin, understood: Understood<Record>) -> Result<Stored, Refusal> {
        let Understood { mut taken, beside, refused, why } = understood;
        self.note_refused(origin, refused, &why);
        taken.extend(beside);
        self.intake.store(origin, taken).await?;
        Ok(Stored { refused, why })
    }

    async fn points(&self, origin: &Origin, request: ExportMetricsServiceRequest) -> Result<Stored, Refusal> {
        // Held until the points are durable, so that deltas of requests that fail are taken back.
        let mut deltas = self.deltas.lock().await;
        // A sender that left while his points were being stored sends them again: they are in already.
        deltas.commit(Instant::now());
        let (batch, understood) = Converter::new(&mut deltas, &self.promote, Instant::now()).convert(request);
        let (refused, why) = (understood.refused, understood.why);
        self.note_refused(origin, refused, &why);
        if batch.points() > 0 {
            // Without deltas nothing can be taken back: others need not wait.
            if deltas.has_changed() {
                let stored = self.intake.store_points(origin, batch).await;
                if stored.is_err() {
                    deltas.roll_back();
                }
                deltas.commit(Instant::now());
                self.intake.signals().delta_series(deltas.len());
                stored?;
            } else {
                drop(deltas);
                self.intake.store_points(origin, batch).await?;
            }
        }
        Ok(Stored { refused, why })
    }

    fn note_refused(&self, origin: &Origin, refused: i64, why: &str) {
        if refused > 0 {
            let refusal = Refusal::new(Reason::Malformed, why);
            self.intake.refused(origin, &refusal, usize::try_from(refused).unwrap_or(usize::MAX), &[]);
        }
    }
}

/// For the fuzzer: a request as it comes over HTTP, to whatever it can be.
#[doc(hidden)]
pub(super) mod fuzz {
    use std::time::{Duration, Instant};

    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use prost::Message as _;

    use super::{Converter, Deltas, events};
    use crate::doors::config::DoorsConfig;
    use crate::doors::shape::{Rules, Shaper};
    use crate::doors::signals::Entrance;

    /// Any bytes as logs, spans and metrics, in protobuf and JSON.
    pub fn otlp(bytes: &[u8]) {
        let rules = Rules::of(&DoorsConfig::default());
        let mut shaper = Shaper::new(&rules, Entrance::OtlpHttp, 1_795_000_000_000_000_000);
        for request in [ExportLogsServiceRequest::decode(bytes).ok(), serde_json::from_slice(bytes).ok()] {
            let _logs = events::logs(request.unwrap_or_default(), &mut shaper);
        }
        for request in [ExportTraceServiceRequest::decode(bytes).ok(), serde_json::from_slice(bytes).ok()] {
            let _spans = events::spans(request.unwrap_or_default(), &mut shaper);
        }
        let now = Instant::now();
        let mut deltas = Deltas::new(10, Duration::from_secs(60), now);
        for request in [ExportMetricsServiceRequest::decode(bytes).ok(), serde_json::from_slice(bytes).ok()] {
            let _points = Converter::new(&mut deltas, &[], now).convert(request.unwrap_or_default());
        }
    }
}
