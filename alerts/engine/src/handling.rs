//! Who works on what: acknowledgements of pages and of groups' incidents, made here or at the services that were told.
//!
//! What services say comes in as webhooks at [`HOOK_PATH`]; they are signed, so the path asks for no token.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use belfry_dispatch::Acknowledgement;
use belfry_notify::{NotifyHandle, Signature, Standing, StandingState, WebhookError};
use belfry_signal::Pii;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use tokio::sync::watch;

use crate::desk::{Changed, DeskHandle, Refusal, ended, saved};
use crate::status::{Handled, PageState, Status};

/// Where webhooks of services come in.
pub const HOOK_PATH: &str = "/hooks/pagerduty";
/// The longest name and comment that are kept.
const BY_CHARS_MAX: usize = 256;
const COMMENT_CHARS_MAX: usize = 1_024;

/// Takes acknowledgements.
#[derive(Clone, Debug)]
pub(crate) struct Handling {
    pub(crate) notify: NotifyHandle,
    pub(crate) desk: Option<DeskHandle>,
    pub(crate) status: watch::Receiver<Arc<Status>>,
}

/// Somebody works on an incident, as they say it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Posted {
    by: String,
    #[serde(default)]
    comment: String,
    until: Option<String>,
}

pub(crate) fn router(handling: Handling) -> Router {
    Router::new()
        .route("/api/v1/incidents/{incident}/acknowledgement", post(acknowledge).delete(unacknowledge))
        .route(HOOK_PATH, post(hook))
        .with_state(handling)
}

/// Somebody works on an incident: it is not told again until it is over, or until a time.
async fn acknowledge(
    State(handling): State<Handling>,
    Path(incident): Path<String>,
    body: Bytes,
) -> Result<Response, Refusal> {
    let posted: Posted = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    let until_ms = crate::desk::parse_time(posted.until.as_deref())?;
    handling.set(&incident, Some((posted.by, posted.comment, until_ms))).await
}

async fn unacknowledge(
    State(handling): State<Handling>,
    Path(incident): Path<String>,
) -> Result<Response, Refusal> {
    handling.set(&incident, None).await
}

async fn hook(State(handling): State<Handling>, headers: HeaderMap, body: Bytes) -> Response {
    let signature = headers.get("x-pagerduty-signature").and_then(|value| value.to_str().ok());
    let taken = handling.notify.webhook(Signature(signature.unwrap_or_default()), &body).await;
    let status = match taken {
        Ok(()) => return StatusCode::ACCEPTED.into_response(),
        Err(WebhookError::Signature) => StatusCode::UNAUTHORIZED,
        Err(WebhookError::Malformed) => StatusCode::BAD_REQUEST,
        Err(WebhookError::Unavailable) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let message = taken.err().map(|error| error.to_string());
    (status, Json(message)).into_response()
}

impl Handling {
    async fn set(
        &self,
        incident: &str,
        by: Option<(String, String, Option<i64>)>,
    ) -> Result<Response, Refusal> {
        match self.acknowledge(incident, by).await? {
            true => Ok(StatusCode::OK.into_response()),
            false => Err(Refusal(StatusCode::NOT_FOUND, "there is no such open incident".to_owned())),
        }
    }

    /// Notes who works on an incident (name, comment, until when in Unix milliseconds), or that nobody does. Whether
    /// there is such an open incident.
    pub(crate) async fn acknowledge(
        &self,
        incident: &str,
        by: Option<(String, String, Option<i64>)>,
    ) -> Result<bool, Refusal> {
        let is_page = self
            .status
            .borrow()
            .pages
            .iter()
            .any(|page| page.id == incident && page.state == PageState::Triggered);
        let (name, comment) =
            by.as_ref().map_or(("", ""), |(name, comment, _)| (name.as_str(), comment.as_str()));
        let telling = self.notify.acknowledge(incident, name, comment, by.is_some(), is_page);
        let is_told = telling.await.map_err(|error| {
            Refusal(StatusCode::SERVICE_UNAVAILABLE, format!("it cannot be written now: {error}"))
        })?;
        let Some(desk) = &self.desk else { return Ok(is_told) };
        let incident = incident.to_owned();
        let setting = desk.change(move |dispatch, now_ms| {
            let acknowledgement = by.map(|(by, comment, until_ms)| Acknowledgement {
                by: by.chars().take(BY_CHARS_MAX).collect(),
                comment: comment.chars().take(COMMENT_CHARS_MAX).collect(),
                at_ms: now_ms,
                until_ms,
            });
            (dispatch.acknowledge(&incident, acknowledgement.as_ref()), None)
        });
        match setting.await {
            Changed::Ended if is_told => Ok(true),
            Changed::Ended => Err(ended()),
            changed => Ok(saved(changed)? || is_told),
        }
    }
}

/// What people do about an incident: the newest word that says more than that it goes on.
pub(crate) fn handled(standings: &[Standing], incident: &str) -> Option<Handled> {
    let of = standings.iter().filter(|standing| standing.incident == incident);
    let said = of.filter(|standing| standing.state != StandingState::Triggered);
    let newest = said.max_by_key(|standing| standing.since_unix_nanos)?;
    Some(Handled {
        state: newest.state,
        by: newest.by.clone().map(Pii::into_inner),
        comment: newest.comment.clone(),
        place: newest.place,
        service: newest.service.clone(),
        since_unix_nanos: newest.since_unix_nanos,
    })
}
