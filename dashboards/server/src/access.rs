//! Who may see what: the session behind a cookie, and the headers that fence the page in.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use belfry_door::PeerAddress;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, COOKIE, REFERRER_POLICY};
use http::header::{X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::time::Instant;

use crate::json::Refusal;
use crate::routes::App;
use crate::sessions::{Token, TokenHash};

/// The session that a request belongs to; handlers behind [`require_session`] can rely on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InSession(pub(crate) TokenHash);

/// Everything from our own origin; scripts and styles only as files; never in a frame.
const POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'";

const FENCES: [(HeaderName, &str); 6] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    // Not `no-referrer`: with that, browsers send `Origin: null` even with our own forms, and on plain HTTP nothing else
    // tells that they are ours.
    (REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Adds the security headers, and keeps answers out of caches unless they say otherwise.
pub(crate) async fn fence(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in FENCES {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Lets only requests with a session through.
pub(crate) async fn require_session(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    match session(&app, request.headers()) {
        Some(session) => {
            request.extensions_mut().insert(session);
            next.run(request).await
        }
        None => refusal(StatusCode::UNAUTHORIZED, "log in first"),
    }
}

/// The session that stands behind the request's cookie, if one does.
pub(crate) fn session(app: &App, headers: &HeaderMap) -> Option<InSession> {
    let name = cookie_name(app);
    let token = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))?;
    let hash = TokenHash::of(token);
    app.sessions.touch(hash, Instant::now()).then_some(InSession(hash))
}

/// The `Set-Cookie` that begins a session in the browser.
pub(crate) fn cookie(app: &App, token: &Token) -> String {
    let secure = if app.is_https { "; Secure" } else { "" };
    let seconds = app.config.session_age_max.as_secs();
    format!(
        "{}={}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}",
        cookie_name(app),
        token.as_str()
    )
}

/// The `Set-Cookie` that ends it.
pub(crate) fn no_cookie(app: &App) -> String {
    let secure = if app.is_https { "; Secure" } else { "" };
    format!("{}=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0{secure}", cookie_name(app))
}

/// An answer in JSON that says why there is none.
pub(crate) fn refusal(status: StatusCode, why: impl Into<String>) -> Response {
    (status, axum::Json(Refusal { error: why.into() })).into_response()
}

/// What a handler takes to know the peer; connections always carry it.
pub(crate) type Peer = Extension<PeerAddress>;

/// The `__Host-` prefix makes browsers refuse a cookie that another host or plain HTTP set.
fn cookie_name(app: &App) -> &'static str {
    if app.is_https { "__Host-belfry" } else { "belfry" }
}
