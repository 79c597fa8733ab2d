//! Who is turned away for guessing passwords, over the read API and the admin door; and an operator's pardon.

use std::net::IpAddr;

use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use belfry_door::PeerAddress;
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderValue};
use serde::Serialize;

use super::{LiveCalls, Problem};
use crate::signals::Signals;

/// One ban.
#[derive(Serialize)]
struct Shown {
    /// The address, or the first of its IPv6 /64.
    source: IpAddr,
    /// Whether all of the address is banned, or one user who was guessed from there.
    is_whole_source: bool,
    remaining_seconds: u64,
    failures: u32,
}

/// `GET /api/v1/bans` and `DELETE /api/v1/bans/{address}`.
pub(super) fn router(live: LiveCalls, signals: Signals) -> Router {
    Router::new()
        .route("/api/v1/bans", get(list))
        .route("/api/v1/bans/{address}", delete(pardon))
        .with_state((live, signals))
}

async fn list(State((live, _)): State<(LiveCalls, Signals)>) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Listed {
        bans: Vec<Shown>,
    }
    let bans = live.core()?.bans().await.into_iter().map(|ban| Shown {
        source: ban.source,
        is_whole_source: ban.is_whole_source,
        remaining_seconds: ban.remaining.as_secs(),
        failures: ban.failures,
    });
    let mut response = Json(Listed { bans: bans.collect() }).into_response();
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

async fn pardon(
    State((live, signals)): State<(LiveCalls, Signals)>,
    peer: Option<Extension<PeerAddress>>,
    Path(address): Path<String>,
) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Pardoned {
        source: IpAddr,
        was_banned: bool,
    }
    let Ok(source) = address.parse::<IpAddr>() else {
        let detail = format!("{address:?} is no address: write one as 203.0.113.7 or 2001:db8::7");
        return Err(Problem(StatusCode::BAD_REQUEST, detail));
    };
    let was_banned = live.core()?.pardon(source).await;
    signals.pardon_ordered(source, peer.map(|Extension(PeerAddress(address))| address), was_banned);
    Ok(Json(Pardoned { source, was_banned }).into_response())
}
