//! What is pushed to us over HTTP: remote write, and pages of text exposition.
//!
//! An answer is sent when the points are durable: 204 when all were taken; 400 when some were refused, after the others
//! were written, since sending them again would not help; 503 when the same request may do better a little later.
//! Statuses follow the specification of remote write 2.0.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use belfry_door::PeerAddress;
use belfry_signal::{REFUSED_HEAD_FULL, Registry, Written};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::labels::LabelLimits;
use super::remote_write::{self, Decoded, Fault, KnownLabels, Protocol};
use super::signals::{Outcome, Pushed as Told, ReceiveSignals};
use crate::error::WriteError;
use crate::handle::PipelineHandle;

mod groups;
mod push;

/// How long a request waits for its turn.
const TURN_WAIT: Duration = Duration::from_secs(2);
/// What a sender is told to wait when there is no room.
const RETRY_AFTER_SECONDS: &str = "5";
/// Bytes of a sender's name.
const SENDER_BYTES_MAX: usize = 120;

/// The paths that metrics are pushed to, for whoever guards the door; below the last are the groups.
pub const PATHS: &[&str] = &["/api/v1/write", "/api/v1/import/prometheus", "/metrics/"];

/// The `[observe.receive]` section of `belfry.toml`: what others push.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Requests that are read and written at once; others wait a moment and are then answered 503.
    pub requests_max: usize,
    /// Bytes of a request after decompression.
    pub request_bytes_max: usize,
    /// Series of one request.
    pub request_series_max: usize,
    /// Labels of a series.
    pub labels_max: usize,
    /// Bytes of a label's name.
    pub label_name_bytes_max: usize,
    /// Bytes of a label's value.
    pub label_value_bytes_max: usize,
    /// Bytes in memory, about, of what is made of one request.
    pub request_memory_bytes_max: usize,
    /// Bytes in memory, about, of labels that are remembered with what named them, so that they need not be read again.
    pub known_labels_bytes_max: usize,
    /// Bytes of an exemplar's labels; longer ones are refused.
    pub exemplar_bytes_max: usize,
    /// Bytes of a help text; longer ones are cut.
    pub help_bytes_max: usize,
    /// Senders that are accounted for one by one; the others are one.
    pub senders_max: usize,
    /// Groups of pushed metrics that are repeated until they are deleted.
    pub groups_max: usize,
    /// Where they are kept, so that the next process goes on repeating them.
    pub groups_directory: PathBuf,
    /// How often they are repeated.
    #[serde(with = "humantime_serde")]
    pub group_interval: Duration,
}

impl Config {
    /// The defaults of `belfry.toml`, for tools and tests.
    #[must_use]
    pub fn shipped() -> Self {
        Self {
            requests_max: 8,
            request_bytes_max: 32 << 20,
            request_series_max: 100_000,
            labels_max: 64,
            label_name_bytes_max: 512,
            label_value_bytes_max: 4096,
            request_memory_bytes_max: 128 << 20,
            known_labels_bytes_max: 128 << 20,
            exemplar_bytes_max: 1024,
            help_bytes_max: 1024,
            senders_max: 1000,
            groups_max: 1000,
            groups_directory: PathBuf::from("observe/groups"),
            group_interval: Duration::from_mins(1),
        }
    }

    /// Every fault: the key inside the section, and what is wrong with it and what is allowed.
    #[must_use]
    pub fn check(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut expect = |is_good: bool, key: &str, text: &str| {
            if !is_good {
                faults.push((key.to_owned(), text.to_owned()));
            }
        };
        expect((1..=1000).contains(&self.requests_max), "requests_max", "use 1 to 1000 requests");
        expect(
            (1024..=1 << 30).contains(&self.request_bytes_max),
            "request_bytes_max",
            "use 1024 to 1073741824 bytes",
        );
        expect(self.request_series_max >= 1, "request_series_max", "use at least 1 series");
        expect(self.labels_max >= 1, "labels_max", "use at least 1 label");
        expect(self.label_name_bytes_max >= 8, "label_name_bytes_max", "use at least 8 bytes");
        expect(self.label_value_bytes_max >= 1, "label_value_bytes_max", "use at least 1 byte");
        expect(
            self.request_memory_bytes_max >= 65_536,
            "request_memory_bytes_max",
            "use at least 65536 bytes",
        );
        expect(
            self.known_labels_bytes_max <= 1 << 36,
            "known_labels_bytes_max",
            "use 0 to 68719476736 bytes",
        );
        expect(self.exemplar_bytes_max >= 1, "exemplar_bytes_max", "use at least 1 byte");
        expect(self.help_bytes_max >= 16, "help_bytes_max", "use at least 16 bytes");
        expect(self.senders_max >= 1, "senders_max", "use at least 1 sender");
        expect(self.groups_max >= 1, "groups_max", "use at least 1 group");
        let interval = Duration::from_secs(5)..=Duration::from_mins(4);
        // Beyond five minutes a query would find nothing between two repetitions.
        expect(interval.contains(&self.group_interval), "group_interval", "use 5s to 4m");
        faults
    }

    fn limits(&self) -> remote_write::Limits {
        remote_write::Limits {
            bytes_max: self.request_bytes_max,
            series_max: self.request_series_max,
            memory_bytes_max: self.request_memory_bytes_max,
            labels: self.label_limits(),
            exemplar_bytes_max: self.exemplar_bytes_max,
            help_bytes_max: self.help_bytes_max,
        }
    }

    fn label_limits(&self) -> LabelLimits {
        LabelLimits {
            labels_max: self.labels_max,
            name_bytes_max: self.label_name_bytes_max,
            value_bytes_max: self.label_value_bytes_max,
        }
    }
}

/// What one sender sent, since the start.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Account {
    requests: u64,
    requests_refused: u64,
    floats: u64,
    histograms: u64,
    exemplars: u64,
    refused: BTreeMap<&'static str, u64>,
    last_fault: Option<String>,
    last_unix_millis: i64,
}

/// What the handlers share.
#[derive(Debug)]
struct Receiver {
    config: Config,
    pipeline: PipelineHandle,
    turns: Arc<Semaphore>,
    signals: ReceiveSignals,
    senders: Mutex<BTreeMap<String, Account>>,
    groups: groups::Groups,
    known: Arc<KnownLabels>,
}

/// The doors for what is pushed. Whoever serves them decides who may come here, and bounds the bytes of a body as it is
/// sent. Needs a runtime: groups are repeated from a task that ends with the router.
///
/// `POST /api/v1/write`, `/api/v1/import/prometheus`, `/metrics/job/{job}/...` as the Pushgateway has them (with PUT and
/// DELETE), and `GET /api/v1/status/senders`.
///
/// # Errors
/// When the directory of the groups cannot be used.
pub fn router(config: Config, pipeline: PipelineHandle, registry: &Registry) -> Result<Router, String> {
    let turns = Arc::new(Semaphore::new(config.requests_max));
    let directory = &config.groups_directory;
    let opened = groups::Groups::open(directory, config.groups_max);
    let (groups, damaged) = opened.map_err(|error| format!("{}: {error}", directory.display()))?;
    let signals = ReceiveSignals::register(registry);
    signals.groups_opened(groups.len(), damaged);
    let known = Arc::new(KnownLabels::new(config.known_labels_bytes_max));
    let accounts = Mutex::default();
    let receiver = Receiver { config, pipeline, turns, signals, senders: accounts, groups, known };
    let receiver = Arc::new(receiver);
    tokio::spawn(groups::repeat(Arc::downgrade(&receiver)));
    let router = Router::new()
        .route("/api/v1/write", post(write))
        .route("/api/v1/import/prometheus", post(import))
        .route("/metrics/{*grouping}", post(push_group).put(push_group).delete(push_group))
        .route("/api/v1/status/senders", get(senders))
        .with_state(receiver);
    Ok(router)
}

/// Why a request was not taken as a whole.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("this door takes {0}")]
    MediaType(&'static str),
    #[error(transparent)]
    Fault(#[from] Fault),
    #[error("{0}")]
    Page(String),
    #[error("as many requests as may are being written already: send again a little later")]
    Busy,
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("the request broke off")]
    Broken,
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::MediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            // A sender cannot do better by sending the same again.
            Self::Fault(Fault::Bytes { .. } | Fault::Series { .. } | Fault::Memory { .. }) => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Self::Fault(_) | Self::Page(_) | Self::Broken | Self::Write(WriteError::Oversize) => {
                StatusCode::BAD_REQUEST
            }
            Self::Busy | Self::Write(WriteError::Disk | WriteError::Ended) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn outcome(&self) -> Outcome {
        match self.status() {
            StatusCode::SERVICE_UNAVAILABLE => Outcome::Later,
            _ => Outcome::Refused,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = (status, format!("{self}\n")).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        response
    }
}

/// Where a request comes from: address and program. Told only by this door itself, never in a label.
fn sender(request: &Request) -> String {
    let agent = request.headers().get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    let address = request.extensions().get::<PeerAddress>().map(|peer| format!("{} ", peer.0));
    let mut sender = format!("{}{}", address.unwrap_or_default(), agent.unwrap_or("unnamed"));
    sender.truncate(sender.floor_char_boundary(SENDER_BYTES_MAX));
    sender
}

async fn write(State(receiver): State<Arc<Receiver>>, request: Request) -> Response {
    let sender = sender(&request);
    let protocol = protocol(request.headers());
    let told = match protocol {
        Ok(Protocol::V2) => Told::V2,
        _ => Told::V1,
    };
    let answered = async {
        let protocol = protocol?;
        let turn = receiver.turn().await?;
        let bytes = body(request).await?;
        let limits = receiver.config.limits();
        let known = Arc::clone(&receiver.known);
        let decoding = move || remote_write::decode_known(protocol, &bytes, &limits, &known);
        let decoded = tokio::task::spawn_blocking(decoding).await.map_err(|_| Refusal::Broken)??;
        let written = receiver.store(decoded).await;
        drop(turn);
        written
    };
    let answered = answered.await;
    receiver.account(&sender, told, answered.as_ref());
    match answered {
        Ok((written, fault)) => answer(&written, fault),
        Err(refusal) => refusal.into_response(),
    }
}

/// Content negotiation of remote write 2.0.
fn protocol(headers: &HeaderMap) -> Result<Protocol, Refusal> {
    const TAKEN: &str = "application/x-protobuf (prometheus.WriteRequest) and \
        application/x-protobuf;proto=io.prometheus.write.v2.Request, compressed with snappy";
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    // Old senders of 1.0 name neither.
    let protocol = Protocol::of_content_type(text(header::CONTENT_TYPE).unwrap_or("application/x-protobuf"));
    let is_snappy = text(header::CONTENT_ENCODING).is_none_or(|coding| coding.eq_ignore_ascii_case("snappy"));
    protocol.filter(|_| is_snappy).ok_or(Refusal::MediaType(TAKEN))
}

async fn body(request: Request) -> Result<prost::bytes::Bytes, Refusal> {
    axum::body::to_bytes(request.into_body(), usize::MAX).await.map_err(|_| Refusal::Broken)
}

/// The counts that 2.0 asks for, and the status.
fn answer(written: &Written, fault: Option<String>) -> Response {
    let refusals = written.refusals();
    let is_full = is_full(written);
    let status = match refusals {
        0 => StatusCode::NO_CONTENT,
        _ if is_full => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    };
    let text = if refusals == 0 { String::new() } else { explain(written, fault) };
    let mut response = (status, text).into_response();
    let counts =
        [("samples", written.floats), ("histograms", written.histograms), ("exemplars", written.exemplars)];
    for (kind, count) in counts {
        let name = format!("x-prometheus-remote-write-{kind}-written");
        if let Ok(name) = header::HeaderName::from_bytes(name.as_bytes()) {
            response.headers_mut().insert(name, count.into());
        }
    }
    if is_full {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
    }
    response
}

/// Whether some were refused that may be taken a little later.
fn is_full(written: &Written) -> bool {
    written.refused.iter().any(|(reason, _)| *reason == REFUSED_HEAD_FULL)
}

/// `3 points were refused: out_of_order 2, labels 1 (first: ...); 7 were written`
fn explain(written: &Written, fault: Option<String>) -> String {
    let reasons: Vec<String> =
        written.refused.iter().map(|(reason, points)| format!("{reason} {points}")).collect();
    let first = fault.map_or(String::new(), |fault| format!(" (first: {fault})"));
    format!(
        "{} points were refused: {}{first}; {} were written\n",
        written.refusals(),
        reasons.join(", "),
        written.taken()
    )
}

impl Receiver {
    async fn turn(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let turn = tokio::time::timeout(TURN_WAIT, Arc::clone(&self.turns).acquire_owned()).await;
        turn.ok().and_then(Result::ok).ok_or(Refusal::Busy)
    }

    /// Stores what was decoded; says what became of it.
    async fn store(&self, decoded: Decoded) -> Result<(Written, Option<String>), Refusal> {
        let Decoded { batch, mut refused, first_fault } = decoded;
        refused.add(&self.pipeline.write(batch).await?);
        Ok((refused, first_fault))
    }

    fn account(&self, sender: &str, protocol: Told, answered: Result<&(Written, Option<String>), &Refusal>) {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = senders.contains_key(sender) || senders.len() < self.config.senders_max;
        let account = senders.entry(if is_known { sender } else { "others" }.to_owned()).or_default();
        account.requests += 1;
        account.last_unix_millis = crate::metrics::scrape::now_ms();
        match answered {
            Ok((written, fault)) => {
                account.floats += written.floats;
                account.histograms += written.histograms;
                account.exemplars += written.exemplars;
                for (reason, points) in &written.refused {
                    *account.refused.entry(reason).or_default() += points;
                }
                if written.refusals() > 0 {
                    account.last_fault = Some(explain(written, fault.clone()));
                }
                let outcome = if written.refusals() == 0 { Outcome::Taken } else { Outcome::Partly };
                self.signals.request_answered(protocol, outcome, Some(written));
            }
            Err(refusal) => {
                account.requests_refused += 1;
                account.last_fault = Some(refusal.to_string());
                self.signals.request_answered(protocol, refusal.outcome(), None);
            }
        }
    }
}

/// A page of text exposition: times as it says, else now.
async fn import(
    State(receiver): State<Arc<Receiver>>,
    Query(parameters): Query<Vec<(String, String)>>,
    request: Request,
) -> Response {
    let sender = sender(&request);
    let answered = async {
        let turn = receiver.turn().await?;
        let headers = request.headers().clone();
        let page = push::Page::of(&headers, body(request).await?, &receiver.config)?;
        let added = parameters.iter().filter(|(name, _)| name == "extra_label");
        let added = added.filter_map(|(_, pair)| pair.split_once('='));
        let added = added.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let decoded = page.decoded(&added, crate::metrics::scrape::now_ms(), &receiver.config)?;
        let written = receiver.store(decoded).await;
        drop(turn);
        written
    };
    let answered = answered.await;
    receiver.account(&sender, Told::Text, answered.as_ref());
    match answered {
        Ok((written, fault)) => answer(&written, fault),
        Err(refusal) => refusal.into_response(),
    }
}

/// A group of metrics, as one pushes it to the Pushgateway.
async fn push_group(
    State(receiver): State<Arc<Receiver>>,
    Path(grouping): Path<String>,
    request: Request<Body>,
) -> Response {
    let sender = sender(&request);
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let answered = async {
        let group = push::grouping(&grouping).map_err(Refusal::Page)?;
        let turn = receiver.turn().await?;
        let now_ms = crate::metrics::scrape::now_ms();
        let page = if method == Method::DELETE {
            None
        } else {
            let page = push::Page::of(&headers, body(request).await?, &receiver.config)?;
            Some((page.decoded(&group, now_ms, &receiver.config)?, method == Method::PUT))
        };
        // A task of its own, since a client may leave between the file and the store.
        let changing = change_group(Arc::clone(&receiver), turn, group, page, now_ms);
        tokio::spawn(changing).await.map_err(|_| Refusal::Write(WriteError::Ended))?
    };
    let answered = answered.await;
    receiver.account(&sender, Told::Text, answered.as_ref());
    match answered {
        Ok((written, _)) if written.refusals() == 0 => StatusCode::OK.into_response(),
        Ok((written, fault)) => answer(&written, fault),
        Err(refusal) => refusal.into_response(),
    }
}

/// Puts a page and whether it replaces all, or ends the group: in its file, in memory, in the store.
async fn change_group(
    receiver: Arc<Receiver>,
    turn: OwnedSemaphorePermit,
    group: push::Group,
    page: Option<(Decoded, bool)>,
    now_ms: i64,
) -> Result<(Written, Option<String>), Refusal> {
    let mut told = match page {
        Some((page, replaces_all)) => receiver.groups.put(&group, page, replaces_all, now_ms).await?,
        None => receiver.groups.delete(&group, now_ms).await?,
    };
    let answered = receiver.store(std::mem::take(&mut told.decoded)).await?;
    if !is_full(&answered.0) {
        told.stored();
    }
    drop(turn);
    Ok(answered)
}

/// Who sent how much.
async fn senders(State(receiver): State<Arc<Receiver>>) -> Response {
    #[derive(Serialize)]
    struct Answer {
        status: &'static str,
        data: BTreeMap<String, Account>,
    }
    let data = receiver.senders.lock().unwrap_or_else(PoisonError::into_inner).clone();
    axum::Json(Answer { status: "success", data }).into_response()
}
