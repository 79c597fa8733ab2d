//! The way in by a form, and the way out. The way in by a link has its own file.

use std::sync::Arc;

use axum::Form;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use belfry_door::is_cross_site;
use belfry_signal::Pii;
use http::header::{LOCATION, SET_COOKIE};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use tokio::time::Instant;

use crate::access::{Peer, cookie, no_cookie, refusal, session};
use crate::password::Verdict;
use crate::routes::App;
use crate::runbooks::percent_encode;
use crate::sessions::Owner;
use crate::signals::LoginOutcome;

/// What the login form sends.
#[derive(Deserialize)]
pub(crate) struct Credentials {
    name: String,
    password: String,
    #[serde(default)]
    next: String,
}

/// `POST /login`.
pub(crate) async fn with_password(
    State(app): State<Arc<App>>,
    peer: Peer,
    headers: HeaderMap,
    Form(credentials): Form<Credentials>,
) -> Response {
    let address = peer.0.0;
    let Credentials { name, password, next } = credentials;
    let now = Instant::now();
    let tried = |outcome| app.signals.login_tried(outcome, &Pii::new(name.clone()), address);
    if is_cross_site(&headers) {
        tried(LoginOutcome::CrossSite);
        return refusal(StatusCode::FORBIDDEN, "the form came from another site");
    }
    let why = if app.attempts.pause(address, now).is_some() {
        tried(LoginOutcome::Slowed);
        "slow"
    } else {
        match app.users.check(&name, password).await {
            Verdict::Right(owner) => {
                tried(LoginOutcome::Password);
                app.attempts.right(address);
                return enter(&app, owner, own_path(&next));
            }
            Verdict::Wrong => {
                tried(LoginOutcome::WrongPassword);
                app.attempts.wrong(address, now);
                "wrong"
            }
            Verdict::Busy => {
                tried(LoginOutcome::Busy);
                "busy"
            }
        }
    };
    to(&format!("/login?error={why}&next={}", percent_encode(own_path(&next))))
}

/// `POST /logout`.
pub(crate) async fn out(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    if is_cross_site(&headers) {
        return refusal(StatusCode::FORBIDDEN, "the form came from another site");
    }
    if let Some(session) = session(&app, &headers) {
        let now = Instant::now();
        let owner = app.sessions.end(session.0, now);
        app.signals.sessions_counted(app.sessions.count(now));
        if let Some(owner) = owner {
            app.signals.logged_out(owner.name());
        }
    }
    (StatusCode::SEE_OTHER, [(LOCATION, "/login".to_owned()), (SET_COOKIE, no_cookie(&app))]).into_response()
}

pub(crate) fn enter(app: &App, owner: Owner, path: &str) -> Response {
    let now = Instant::now();
    let token = app.sessions.begin(owner, now);
    app.signals.sessions_counted(app.sessions.count(now));
    let headers = [(LOCATION, path.to_owned()), (SET_COOKIE, cookie(app, &token))];
    (StatusCode::SEE_OTHER, headers).into_response()
}

/// A redirect that is always followed with GET.
pub(crate) fn to(path: &str) -> Response {
    (StatusCode::SEE_OTHER, [(LOCATION, path)]).into_response()
}

/// Only paths of our own are followed after a login; anything else would send people wherever a link's author likes.
fn own_path(next: &str) -> &str {
    let is_own = next.starts_with('/') && !next.starts_with("//");
    let is_plain = next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    if is_own && is_plain { next } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_leads_to_our_own_pages_only() {
        for (next, path) in [
            ("/", "/"),
            ("/logs?q=a%20b", "/logs?q=a%20b"),
            ("", "/"),
            ("//evil.example", "/"),
            ("/\\evil.example", "/"),
            ("https://evil.example", "/"),
            ("/a\r\nset-cookie: b=c", "/"),
        ] {
            assert_eq!(own_path(next), path, "{next:?}");
        }
    }
}
