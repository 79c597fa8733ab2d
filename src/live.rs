//! What the running core knows now, over the read API: the calls that live, filtered and in pages, with the operator's order
//! to end one; and the bans.
//!
//! The core may come and go (a drill stops it) while the doors stay; without one the answer is 503.

mod bans;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::extract::{Extension, Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use belfry_door::PeerAddress;
use belfry_signalling::{CoreHandle, GatewayState, InquiryError, LiveCall, LiveFilter, LiveState};
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::signals::Signals;

/// Calls of a page, unless the request says otherwise.
const ROWS_DEFAULT: usize = 100;
/// Calls of a page at most.
const ROWS_MAX: usize = 1000;

/// The core that runs now, for the doors.
#[derive(Clone, Default)]
pub struct LiveCalls(Arc<RwLock<Option<CoreHandle>>>);

impl LiveCalls {
    /// Another core runs, or none.
    pub fn set(&self, core: Option<CoreHandle>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = core;
    }

    fn core(&self) -> Result<CoreHandle, Problem> {
        let core = self.0.read().unwrap_or_else(PoisonError::into_inner).clone();
        core.ok_or_else(|| Problem::unavailable("no core runs in this process"))
    }

    /// `GET /api/v1/calls/live` and `DELETE /api/v1/calls/live/{call_id}`, the same of bans, and `GET /api/v1/trunks`: which
    /// gateways are alive.
    pub fn router(&self, signals: Signals) -> Router {
        Router::new()
            .route("/api/v1/calls/live", get(list))
            .route("/api/v1/calls/live/{call_id}", delete(end))
            .route("/api/v1/trunks", get(trunks))
            .with_state((self.clone(), signals.clone()))
            .merge(bans::router(self.clone(), signals))
    }
}

/// Why nothing can be shown or done (RFC 9457).
pub(crate) struct Problem(pub(crate) StatusCode, pub(crate) String);

impl Problem {
    pub(crate) fn unavailable(why: &str) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, why.to_owned())
    }
}

impl From<InquiryError> for Problem {
    fn from(error: InquiryError) -> Self {
        Self::unavailable(&error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Details {
            title: &'static str,
            status: u16,
            detail: String,
        }
        let Self(status, detail) = self;
        let title = status.canonical_reason().unwrap_or_default();
        let mut response = (status, Json(Details { title, status: status.as_u16(), detail })).into_response();
        let content_type = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        response
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    state: Option<LiveState>,
    tenant: Option<String>,
    trunk: Option<String>,
    region: Option<String>,
    country: Option<String>,
    transport: Option<String>,
    relay: Option<String>,
    held: Option<bool>,
    #[serde(default, with = "humantime_serde::option")]
    older_than: Option<Duration>,
    #[serde(default, with = "humantime_serde::option")]
    younger_than: Option<Duration>,
    after: Option<u64>,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct Listed {
    calls: Vec<LiveCall>,
    /// Give it as `after` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
}

async fn list(
    State((live, _)): State<(LiveCalls, Signals)>,
    params: Result<Query<Params>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let Query(params) = params.map_err(|rejection| {
        let known = "known are state (trying, early, confirmed), tenant, trunk, region, country, transport, relay, \
            held (true, false), older_than and younger_than (10m), after, limit";
        Problem(StatusCode::BAD_REQUEST, format!("{}; {known}", rejection.body_text()))
    })?;
    let limit = params.limit.unwrap_or(ROWS_DEFAULT);
    if !(1..=ROWS_MAX).contains(&limit) {
        return Err(Problem(StatusCode::BAD_REQUEST, format!("limit must lie between 1 and {ROWS_MAX}")));
    }
    let filter = LiveFilter {
        state: params.state,
        tenant: params.tenant,
        trunk: params.trunk,
        region: params.region,
        country: params.country,
        transport: params.transport,
        relay: params.relay,
        age_min: params.older_than,
        age_max: params.younger_than,
        is_held: params.held,
    };
    let page = live.core()?.live_calls_page(filter, params.after.unwrap_or(0), limit).await?;
    let mut response = Json(Listed { calls: page.calls, next: page.next }).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn trunks(State((live, _)): State<(LiveCalls, Signals)>) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Known {
        gateways: Vec<GatewayState>,
    }
    let gateways = live.core()?.gateways().await;
    Ok(Json(Known { gateways }).into_response())
}

async fn end(
    State((live, signals)): State<(LiveCalls, Signals)>,
    peer: Option<Extension<PeerAddress>>,
    Path(call_id): Path<String>,
) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Ended {
        call_id: String,
        /// How far it was.
        state: LiveState,
    }
    let ended = live.core()?.end_call(&call_id).await?;
    signals.call_end_ordered(&call_id, peer.map(|Extension(PeerAddress(address))| address), ended.is_some());
    match ended {
        Some(state) => Ok(Json(Ended { call_id, state }).into_response()),
        None => Err(Problem(StatusCode::NOT_FOUND, "no live call has this Call-ID".to_owned())),
    }
}
