//! Which path is answered by what.
//!
//! The frame of the page and its files hold no data and are for everybody: so a link from a pager's mail works even
//! though browsers withhold a `SameSite=Strict` cookie on it; the page then asks for its data itself, as our own site.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Path, Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode, Uri};
use tokio::sync::{Semaphore, watch};

use crate::access::{fence, refusal, require_session, session};
use crate::acknowledging::{self, Acknowledge};
use crate::assets::Assets;
use crate::attempts::Attempts;
use crate::config::Config;
use crate::password::Users;
use crate::reading::{self, Reading};
use crate::runbooks::{Runbooks, percent_encode};
use crate::sessions::Sessions;
use crate::signals::{Route, Signals};
use crate::status::{Examples, View};
use crate::{json, link, live, login};

/// What every handler can reach.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) is_https: bool,
    pub(crate) assets: Assets,
    pub(crate) runbooks: Arc<Runbooks>,
    pub(crate) users: Users,
    pub(crate) sessions: Sessions,
    pub(crate) attempts: Attempts,
    pub(crate) signals: Signals,
    pub(crate) views: watch::Receiver<Arc<View>>,
    pub(crate) examples: Examples,
    pub(crate) acknowledge: Acknowledge,
    pub(crate) reading: Reading,
    pub(crate) searches: Semaphore,
    pub(crate) live_streams: Arc<Semaphore>,
    /// True when the page is to stop.
    pub(crate) stop: watch::Receiver<bool>,
}

/// A login form with the longest name, password and path is well below this.
pub(crate) const BODY_BYTES_MAX: usize = 8 * 1024;
/// Everything but the live stream is answered in this time.
const ANSWER_SECONDS_MAX: Duration = Duration::from_secs(30);

pub(crate) fn router(app: Arc<App>, questions: Router) -> Router {
    let questions = questions.layer(from_fn_with_state(Arc::clone(&app), one_search));
    let api = Router::new()
        .route("/live", get(live::live))
        .route("/session", get(|| async { StatusCode::NO_CONTENT }))
        .route("/status", get(status))
        .route("/calls", get(reading::calls))
        .route("/calls/{call_id}", get(reading::call))
        .route("/logs", get(reading::logs))
        .nest_service("/explore", questions)
        .route("/runbooks", get(runbooks))
        .route("/runbooks/{name}", get(runbook))
        .route("/pages/{page_id}", get(page))
        .route("/pages/{page_id}/examples/{number}", get(example))
        .route("/pages/{page_id}/acknowledgement", post(acknowledging::post).delete(acknowledging::delete))
        .fallback(|| async { refusal(StatusCode::NOT_FOUND, "there is nothing at this path") })
        .layer(from_fn_with_state(Arc::clone(&app), require_session));
    Router::new()
        .nest("/api", api)
        .route("/login", get(frame).post(login::with_password))
        .route("/login/{token}", get(link::show).post(link::spend))
        .route("/logout", post(login::out))
        .route("/", get(frame))
        .route("/calls", get(frame))
        .route("/calls/{call_id}", get(frame))
        .route("/logs", get(frame))
        .route("/explore", get(frame))
        .route("/runbooks", get(frame))
        .route("/runbooks/{name}", get(frame))
        .route("/pages/{page_id}", get(frame))
        .route("/pages/{page_id}/examples/{number}", get(example_page))
        .fallback(get(file))
        .layer(from_fn(in_time))
        .layer(map_response(fence))
        .layer(from_fn_with_state(Arc::clone(&app), observe))
        .with_state(app)
}

/// Counts and times every answer.
async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let route = match request.uri().path() {
        "/api/live" => Route::Live,
        path if path.starts_with("/api/") => Route::Api,
        path if path.starts_with("/assets/") || path == "/favicon.svg" => Route::Asset,
        path if path.starts_with("/login") || path == "/logout" => Route::Login,
        _ => Route::Page,
    };
    let started = Instant::now();
    let response = next.run(request).await;
    let is_unknown = route == Route::Page && response.status() == StatusCode::NOT_FOUND;
    let route = if is_unknown { Route::Unknown } else { route };
    app.signals.request_answered(route, response.status().as_u16(), started.elapsed());
    response
}

/// A question to the metrics is a search like any other: bounded in number.
async fn one_search(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let Some(_permit) = reading::permit(&app) else { return reading::busy() };
    next.run(request).await
}

/// A store that hangs does not hold a connection for ever.
async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(ANSWER_SECONDS_MAX, next.run(request)).await {
        Ok(response) => response,
        Err(_) => refusal(StatusCode::SERVICE_UNAVAILABLE, "it took too long"),
    }
}

async fn frame(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    app.assets.index(&headers)
}

/// Files of the page; a path that is none gets the frame, which says that nothing is there.
async fn file(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path().trim_start_matches('/');
    let response = app.assets.file(path, &headers);
    if response.status() != StatusCode::NOT_FOUND || path.starts_with("assets/") {
        return response;
    }
    (StatusCode::NOT_FOUND, app.assets.index(&headers)).into_response()
}

/// The overview once, as the live stream tells it each second.
async fn status(State(app): State<Arc<App>>) -> Response {
    let snapshot = app.views.borrow().snapshot.to_string();
    ([(CONTENT_TYPE, "application/json")], snapshot).into_response()
}

async fn runbooks(State(app): State<Arc<App>>) -> Json<json::Runbooks> {
    Json(app.runbooks.titles())
}

async fn runbook(State(app): State<Arc<App>>, Path(name): Path<String>) -> Response {
    match app.runbooks.get(&name) {
        Some(runbook) => Json(runbook).into_response(),
        None => refusal(StatusCode::NOT_FOUND, "there is no such runbook"),
    }
}

async fn page(State(app): State<Arc<App>>, Path(page_id): Path<String>) -> Response {
    let view = Arc::clone(&app.views.borrow());
    match view.page(&page_id, &app.runbooks) {
        Some(page) => Json(page).into_response(),
        None => refusal(StatusCode::NOT_FOUND, "this page is not remembered"),
    }
}

/// The call behind an example, for the page to go to.
async fn example(State(app): State<Arc<App>>, Path((page_id, number)): Path<(String, usize)>) -> Response {
    match (app.examples)(&page_id, number) {
        Some(call_id) => Json(json::Example { call_id: call_id.into_inner() }).into_response(),
        None => refusal(StatusCode::NOT_FOUND, "this page has no such example, or it is too old"),
    }
}

/// The same as a redirect when the cookie came along; otherwise the page asks for itself.
async fn example_page(
    State(app): State<Arc<App>>,
    Path((page_id, number)): Path<(String, usize)>,
    headers: HeaderMap,
) -> Response {
    let call_id = session(&app, &headers).and_then(|_| (app.examples)(&page_id, number));
    match call_id {
        Some(call_id) => login::to(&format!("/calls/{}", percent_encode(call_id.reveal()))),
        None => app.assets.index(&headers),
    }
}
