//! The way in by a one-time link: opening it shows a button, and only the button spends it.
//!
//! Links are opened by others than people: chat and mail look at them for a preview, scanners for safety. None of
//! them presses a button. The pages here are whole without a script.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse, Response};
use belfry_door::is_cross_site;
use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use crate::access::{Peer, refusal, session};
use crate::login::{enter, to};
use crate::routes::App;
use crate::sessions::Owner;
use crate::signals::LoginOutcome;

/// `GET /login/{token}`: asks whether to use the link now.
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    peer: Peer,
    headers: HeaderMap,
    Path(token): Path<String>,
) -> Response {
    if app.config.allows_links() && app.sessions.has_link(&token, Instant::now()) {
        return Html(page(&app, ASK)).into_response();
    }
    wrong(&app, peer, &headers)
}

/// `POST /login/{token}`: good once.
pub(crate) async fn spend(
    State(app): State<Arc<App>>,
    peer: Peer,
    headers: HeaderMap,
    Path(token): Path<String>,
) -> Response {
    if is_cross_site(&headers) {
        app.signals.login_tried(LoginOutcome::CrossSite, &Owner::Link.name(), peer.0.0);
        return refusal(StatusCode::FORBIDDEN, "the form came from another site");
    }
    if app.config.allows_links() && app.sessions.spend_link(&token, Instant::now()) {
        app.signals.login_tried(LoginOutcome::Link, &Owner::Link.name(), peer.0.0);
        return enter(&app, Owner::Link, "/");
    }
    wrong(&app, peer, &headers)
}

/// A link that lets nobody in (any more).
fn wrong(app: &App, peer: Peer, headers: &HeaderMap) -> Response {
    // Somebody who is in already and opens the link again, for example by going back, just goes on.
    if session(app, headers).is_some() {
        return to("/");
    }
    app.signals.login_tried(LoginOutcome::WrongLink, &Owner::Link.name(), peer.0.0);
    let why = if app.config.allows_links() {
        format!(
            "<p>A link lets one person in, once, and waits {} to be used. Belfry prints a new one on its terminal \
             when it starts.</p>",
            words(app.config.login_link_ttl)
        )
    } else {
        "<p>This site has users: log in with your name and password.</p>\n<p><a href=\"/login\">Log in</a></p>".to_owned()
    };
    let body = format!("<h1>Belfry</h1>\n<p>This login link was used before or is too old.</p>\n{why}");
    (StatusCode::GONE, Html(page(app, &format!("<form>\n{body}\n</form>")))).into_response()
}

/// Without an action a form goes to where it came from: the link itself.
const ASK: &str = "<form method=\"post\">\n<h1>Belfry</h1>\n<p>Control tower. This link lets one person in, once.</p>\n\
    <button type=\"submit\" autofocus>Log in</button>\n</form>";

fn page(app: &App, inner: &str) -> String {
    let style = app.assets.stylesheets().map(|path| format!("<link rel=\"stylesheet\" href=\"/{path}\">\n"));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"robots\" content=\"noindex\">\n\
         <title>Log in \u{b7} Belfry</title>\n<link rel=\"icon\" href=\"/favicon.svg\" type=\"image/svg+xml\">\n\
         {}</head>\n<body>\n<main class=\"login\" id=\"main\">\n{inner}\n</main>\n</body>\n</html>\n",
        style.collect::<String>()
    )
}

/// A time as people say it; whole hours and minutes are what is configured.
fn words(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds % 3600 == 0 => format!("{} h", seconds / 3600),
        seconds if seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}
