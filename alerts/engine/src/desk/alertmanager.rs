//! Alertmanager's API v2, complete enough for amtool, Prometheus and Grafana; and Prometheus' of rules and alerts.

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use belfry_dispatch::{
    Acknowledgement, AlertView, Incoming, Matchers, PlainMatcher, Silence, SilenceError, SilenceRequest,
    parse_matchers,
};
use belfry_promql::{Labels, MatchOp, Matcher};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::handle::Changed;
use super::handle::DeskHandle;
use super::json::{object, parse_time, time};
use super::prometheus;
use super::store::{Audit, Change};

/// How much may be posted at once: ten thousand alerts with room.
const BODY_BYTES_MAX: usize = 16 << 20;

/// All routes of the desk.
pub(crate) fn router(desk: DeskHandle) -> Router {
    Router::new()
        .route("/api/v1/rules", get(prometheus::rules))
        .route("/api/v1/alerts", get(prometheus::alerts))
        .route("/api/v2/status", get(status))
        .route("/api/v2/receivers", get(receivers))
        .route("/api/v2/alerts", get(alerts).post(post_alerts))
        .route("/api/v2/alerts/groups", get(groups))
        .route("/api/v2/silences", get(silences).post(post_silence))
        .route("/api/v2/silence/{id}", get(silence).delete(expire_silence))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(desk)
}

/// A request that is not answered, as Alertmanager says it: a JSON string.
pub(crate) struct Refusal(pub(crate) StatusCode, pub(crate) String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

impl From<String> for Refusal {
    fn from(message: String) -> Self {
        Self(StatusCode::BAD_REQUEST, message)
    }
}

impl From<SilenceError> for Refusal {
    fn from(error: SilenceError) -> Self {
        let status = match error {
            SilenceError::NotFound(_) => StatusCode::NOT_FOUND,
            SilenceError::Invalid(_) => StatusCode::BAD_REQUEST,
            SilenceError::Full(_) => StatusCode::INSUFFICIENT_STORAGE,
        };
        Self(status, error.to_string())
    }
}

/// What was changed, once it is on disk.
pub(crate) fn saved<T>(changed: Changed<T>) -> Result<T, Refusal> {
    match changed {
        Changed::Saved(value) => Ok(value),
        Changed::Unsaved => Err(Refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "it is in force, and could not be written to disk: a restart would lose it. It is tried again each \
             second; see alerts_store_failures_total"
                .to_owned(),
        )),
        Changed::Ended => Err(ended()),
    }
}

pub(crate) fn ended() -> Refusal {
    Refusal(StatusCode::SERVICE_UNAVAILABLE, "the alert engine is stopping".to_owned())
}

type Parameters = Query<Vec<(String, String)>>;

async fn status(State(desk): State<DeskHandle>) -> Result<Response, Refusal> {
    let shown = desk.ask(|dispatch, _| dispatch.config().shown.clone()).await.ok_or_else(ended)?;
    let body = json!({
        "cluster": { "status": "disabled", "peers": [] },
        "config": { "original": shown },
        "uptime": time(Some(desk.now_ms())),
        "versionInfo": {
            "version": env!("CARGO_PKG_VERSION"), "revision": "belfry", "branch": "belfry",
            "buildUser": "", "buildDate": "", "goVersion": "",
        },
    });
    Ok(Json(body).into_response())
}

async fn receivers(State(desk): State<DeskHandle>) -> Result<Response, Refusal> {
    let names = desk.ask(|dispatch, _| {
        dispatch
            .config()
            .receivers
            .iter()
            .map(|receiver| json!({ "name": receiver.name }))
            .collect::<Vec<_>>()
    });
    Ok(Json(names.await.ok_or_else(ended)?).into_response())
}

/// Which alerts are asked for.
struct Filter {
    matchers: Matchers,
    receiver: Option<Matcher>,
    is_active: bool,
    is_silenced: bool,
    is_inhibited: bool,
    is_unprocessed: bool,
}

impl Filter {
    fn read(parameters: Vec<(String, String)>) -> Result<Self, Refusal> {
        let mut filter = Self {
            matchers: Matchers::default(),
            receiver: None,
            is_active: true,
            is_silenced: true,
            is_inhibited: true,
            is_unprocessed: true,
        };
        let mut plain = Vec::new();
        for (name, value) in parameters {
            let is_true = value != "false";
            match name.as_str() {
                "filter" => plain.extend(parse_matchers(&value)?),
                "receiver" if !value.is_empty() => {
                    filter.receiver = Some(Matcher::new("receiver", MatchOp::Regex, &value)?);
                }
                "active" => filter.is_active = is_true,
                "silenced" => filter.is_silenced = is_true,
                "inhibited" => filter.is_inhibited = is_true,
                "unprocessed" => filter.is_unprocessed = is_true,
                _ => {}
            }
        }
        filter.matchers = Matchers::of(&plain)?;
        Ok(filter)
    }

    fn passes(&self, alert: &AlertView) -> bool {
        let is_silenced = !alert.muted.silenced_by.is_empty();
        let is_inhibited = !alert.muted.inhibited_by.is_empty();
        let is_active = !is_silenced && !is_inhibited;
        let of_receiver =
            |matcher: &Matcher| alert.receivers.iter().any(|receiver| matcher.matches(receiver));
        self.matchers.matches(&alert.labels)
            && self.receiver.as_ref().is_none_or(of_receiver)
            && (self.is_silenced || !is_silenced)
            && (self.is_inhibited || !is_inhibited)
            && (self.is_active || !is_active)
            && (self.is_unprocessed || alert.is_processed)
    }
}

fn alert_json(alert: &AlertView) -> Value {
    let state = if !alert.is_processed {
        "unprocessed"
    } else if alert.muted.is_audible() {
        "active"
    } else {
        "suppressed"
    };
    let ends_at_ms = alert.row.ends_at_ms.unwrap_or(alert.row.updated_at_ms + 300_000);
    json!({
        "labels": object(&alert.row.labels),
        "annotations": object(&alert.row.annotations),
        "startsAt": time(Some(alert.row.starts_at_ms)),
        "endsAt": time(Some(ends_at_ms)),
        "updatedAt": time(Some(alert.row.updated_at_ms)),
        "generatorURL": alert.row.generator_url,
        "fingerprint": alert.fingerprint,
        "receivers": alert.receivers.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>(),
        "status": {
            "state": state,
            "silencedBy": alert.muted.silenced_by,
            "inhibitedBy": alert.muted.inhibited_by,
            "mutedBy": [],
        },
    })
}

async fn alerts(State(desk): State<DeskHandle>, Query(parameters): Parameters) -> Result<Response, Refusal> {
    let filter = Filter::read(parameters)?;
    let found = desk.ask(move |dispatch, now_ms| {
        let alerts = dispatch.alerts(now_ms);
        alerts.iter().filter(|alert| filter.passes(alert)).map(alert_json).collect::<Vec<_>>()
    });
    Ok(Json(found.await.ok_or_else(ended)?).into_response())
}

async fn groups(State(desk): State<DeskHandle>, Query(parameters): Parameters) -> Result<Response, Refusal> {
    let filter = Filter::read(parameters)?;
    let found = desk.ask(move |dispatch, now_ms| {
        let groups = dispatch.groups(now_ms).into_iter().filter_map(|group| {
            let alerts: Vec<Value> =
                group.alerts.iter().filter(|alert| filter.passes(alert)).map(alert_json).collect();
            let labels: std::collections::BTreeMap<&str, &str> = group.labels.iter().collect();
            let incidents = group.told.iter().map(|(target, told)| {
                json!({
                    "target": target, "incident": told.incident, "since": time(Some(told.at_ms)),
                    "acknowledgement": told.acknowledgement.as_ref().map(acknowledgement_json),
                })
            });
            (!alerts.is_empty()).then(|| {
                json!({
                    "labels": labels, "receiver": { "name": group.receiver }, "alerts": alerts,
                    "incidents": incidents.collect::<Vec<_>>(),
                })
            })
        });
        groups.collect::<Vec<_>>()
    });
    Ok(Json(found.await.ok_or_else(ended)?).into_response())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PostedAlert {
    labels: std::collections::BTreeMap<String, String>,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
    starts_at: Option<String>,
    ends_at: Option<String>,
    #[serde(default, rename = "generatorURL")]
    generator_url: String,
}

impl PostedAlert {
    fn read(self) -> Result<Incoming, String> {
        let (starts_at_ms, ends_at_ms) =
            (parse_time(self.starts_at.as_deref())?, parse_time(self.ends_at.as_deref())?);
        let labels = Labels::from_pairs(&self.labels);
        if labels.is_empty() {
            return Err("at least one label pair required".to_owned());
        }
        if starts_at_ms.zip(ends_at_ms).is_some_and(|(starts, ends)| starts > ends) {
            return Err("start time must be before end time".to_owned());
        }
        let annotations = self.annotations.into_iter().filter(|(_, text)| !text.is_empty()).collect();
        Ok(Incoming { labels, annotations, starts_at_ms, ends_at_ms, generator_url: self.generator_url })
    }
}

/// The right ones are taken although others are wrong, as Alertmanager does it.
async fn post_alerts(State(desk): State<DeskHandle>, body: Bytes) -> Result<Response, Refusal> {
    let posted: Vec<PostedAlert> = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    let (mut right, mut wrong) = (Vec::new(), Vec::new());
    for alert in posted {
        match alert.read() {
            Ok(alert) => right.push(alert),
            Err(error) => wrong.push(error),
        }
    }
    let taken = desk.post(right).await.ok_or_else(ended)?;
    if taken.refused > 0 {
        let message = format!("{} alerts were not taken: as many as may be are known", taken.refused);
        return Err(Refusal(StatusCode::INSUFFICIENT_STORAGE, message));
    }
    match wrong.is_empty() {
        true => Ok(StatusCode::OK.into_response()),
        false => Err(wrong.join("; ").into()),
    }
}

fn silence_json(silence: &Silence, now_ms: i64) -> Value {
    json!({
        "id": silence.id,
        "status": { "state": silence.state(now_ms).as_str() },
        "updatedAt": time(Some(silence.updated_at_ms)),
        "comment": silence.comment,
        "createdBy": silence.created_by,
        "startsAt": time(Some(silence.starts_at_ms)),
        "endsAt": time(Some(silence.ends_at_ms)),
        "matchers": silence.matchers,
    })
}

/// Those that are in force first, and of them the one that ends first.
async fn silences(
    State(desk): State<DeskHandle>,
    Query(parameters): Parameters,
) -> Result<Response, Refusal> {
    let mut plain: Vec<PlainMatcher> = Vec::new();
    for (_, value) in parameters.iter().filter(|(name, _)| name == "filter") {
        plain.extend(parse_matchers(value)?);
    }
    let found = desk.ask(move |dispatch, now_ms| {
        let mut found: Vec<&Silence> = dispatch
            .silences()
            .filter(|silence| {
                plain.iter().all(|wanted| silence.matchers.iter().any(|held| is_about(held, wanted)))
            })
            .collect();
        found.sort_by_key(|silence| {
            (silence.ends_at_ms <= now_ms, silence.starts_at_ms > now_ms, silence.ends_at_ms)
        });
        found.into_iter().map(|silence| silence_json(silence, now_ms)).collect::<Vec<_>>()
    });
    Ok(Json(found.await.ok_or_else(ended)?).into_response())
}

/// Whether a silence's matcher is what a filter asks for.
fn is_about(held: &PlainMatcher, wanted: &PlainMatcher) -> bool {
    let labels = Labels::from_pairs([(held.name.as_str(), held.value.as_str())]);
    held.name == wanted.name
        && Matchers::of(std::slice::from_ref(wanted)).is_ok_and(|wanted| wanted.matches(&labels))
}

async fn silence(State(desk): State<DeskHandle>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let found =
        desk.ask(move |dispatch, now_ms| dispatch.silence(&id).map(|silence| silence_json(silence, now_ms)));
    match found.await.ok_or_else(ended)? {
        Some(silence) => Ok(Json(silence).into_response()),
        None => Err(Refusal(StatusCode::NOT_FOUND, "silence not found".to_owned())),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PostedSilence {
    #[serde(default)]
    id: String,
    matchers: Vec<PlainMatcher>,
    starts_at: String,
    ends_at: String,
    #[serde(default)]
    created_by: String,
    #[serde(default)]
    comment: String,
}

async fn post_silence(State(desk): State<DeskHandle>, body: Bytes) -> Result<Response, Refusal> {
    let posted: PostedSilence = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    let missing = || "a silence needs startsAt and endsAt".to_owned();
    let request = SilenceRequest {
        id: Some(posted.id).filter(|id| !id.is_empty()),
        matchers: posted.matchers,
        starts_at_ms: parse_time(Some(&posted.starts_at))?.ok_or_else(missing)?,
        ends_at_ms: parse_time(Some(&posted.ends_at))?.ok_or_else(missing)?,
        created_by: posted.created_by,
        comment: posted.comment,
    };
    let fresh_id = uuid();
    let set = desk.change(move |dispatch, now_ms| {
        let (by, text) = (request.created_by.clone(), request.comment.clone());
        let outcome = dispatch.set_silence(request, &fresh_id, now_ms);
        let audit = outcome.as_ref().ok().map(|id| Audit {
            at_ms: now_ms,
            by,
            change: Change::Set,
            id: id.clone(),
            text,
        });
        (outcome, audit)
    });
    let id = saved(set.await)??;
    Ok(Json(json!({ "silenceID": id })).into_response())
}

async fn expire_silence(State(desk): State<DeskHandle>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let expire = desk.change(move |dispatch, now_ms| {
        let outcome = dispatch.expire_silence(&id, now_ms);
        let audit = outcome.is_ok().then(|| Audit {
            at_ms: now_ms,
            by: String::new(),
            change: Change::Expired,
            id,
            text: String::new(),
        });
        (outcome, audit)
    });
    saved(expire.await)??;
    Ok(StatusCode::OK.into_response())
}

fn acknowledgement_json(acknowledgement: &Acknowledgement) -> Value {
    json!({
        "by": acknowledgement.by, "comment": acknowledgement.comment, "at": time(Some(acknowledgement.at_ms)),
        "until": acknowledgement.until_ms.map(|until| time(Some(until))),
    })
}

/// A random UUID (RFC 9562, version 4).
fn uuid() -> String {
    let random = (rand::random::<u128>() & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{random:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
