//! Somebody who is logged in says that they work on a page, or that they do not.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Response};
use belfry_door::is_cross_site;
use belfry_engine::EngineHandle;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use tokio::time::Instant;

use crate::access::{InSession, refusal};
use crate::routes::App;

/// Notes who works on a page (name, comment), or that nobody does; whether there is such an open page.
pub(crate) type Acknowledge = Box<
    dyn Fn(String, Option<(String, String)>) -> Pin<Box<dyn Future<Output = Result<bool, String>> + Send>>
        + Send
        + Sync,
>;

/// The engine's way to take it.
pub(crate) fn acknowledge(engine: EngineHandle) -> Acknowledge {
    Box::new(move |page, by| {
        let engine = engine.clone();
        Box::pin(async move { engine.acknowledge(&page, by).await })
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Posted {
    #[serde(default)]
    comment: String,
}

/// `POST /api/pages/{page_id}/acknowledgement`: in the name of whoever is logged in.
pub(crate) async fn post(
    State(app): State<Arc<App>>,
    Extension(session): Extension<InSession>,
    Path(page): Path<String>,
    headers: HeaderMap,
    posted: Json<Posted>,
) -> Response {
    let Some(owner) = app.sessions.owner(session.0, Instant::now()) else {
        return refusal(StatusCode::UNAUTHORIZED, "log in first");
    };
    set(&app, &headers, page, Some((owner.name().into_inner(), posted.0.comment))).await
}

/// `DELETE /api/pages/{page_id}/acknowledgement`.
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Path(page): Path<String>,
    headers: HeaderMap,
) -> Response {
    set(&app, &headers, page, None).await
}

async fn set(app: &App, headers: &HeaderMap, page: String, by: Option<(String, String)>) -> Response {
    if is_cross_site(headers) {
        return refusal(StatusCode::FORBIDDEN, "the request came from another site");
    }
    match (app.acknowledge)(page, by).await {
        Ok(true) => StatusCode::NO_CONTENT.into_response(),
        Ok(false) => refusal(StatusCode::NOT_FOUND, "this page is not open"),
        Err(why) => refusal(StatusCode::SERVICE_UNAVAILABLE, why),
    }
}
