//! The admin door: liveness, readiness, metrics, drain, configuration, log level, catalogue, demo faults.
//!
//! On its own port, on localhost by default, on the tower runtime: a scrape must not cost a call its timing.
//! A dozen fixed paths behind the same bounds and the same guard as the read APIs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use belfry_door::{Access, Door, DoorHandle, Doors, Limits};
use belfry_signal::Registry;
use hyper::{Method, StatusCode, Uri};
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::app::access;
use crate::catalog;
use crate::cli::Fault;

/// What an operator may set.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Connections at once; more are answered 503.
    pub connections_max: usize,
    /// A client sends a request's head within this time, and its body within the same again.
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    /// A client that takes nothing of an answer for so long loses its connection.
    #[serde(with = "humantime_serde")]
    pub write_timeout: Duration,
    /// Tokens that open the door, one on a line; absent means that it is for loopback only.
    pub token_file: Option<PathBuf>,
    /// Names that the door goes by without a token, beside addresses and `localhost`.
    pub host_names: Vec<String>,
}

/// No request has a body.
const REQUEST_BYTES_MAX: usize = 1024;
/// For probes, which have no token.
const OPEN_PATHS: &[&str] = &["/livez", "/readyz"];

impl Config {
    /// What is wrong although it has the right type: key, what is allowed.
    #[must_use]
    pub fn check(&self) -> Vec<(String, String)> {
        self.limits().check_guarded(self.listen, self.token_file.is_some())
    }

    fn limits(&self) -> Limits {
        Limits {
            connections_max: self.connections_max,
            header_timeout: self.header_timeout,
            write_timeout: self.write_timeout,
            request_bytes_max: REQUEST_BYTES_MAX,
        }
    }
}

/// What comes in through the door for the main loop to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Order {
    /// Drain and stop.
    Drain,
    /// Switch a fault of a demo.
    Fault(Fault, bool),
}

/// Changes the log filter of the running process; the error says what is allowed.
pub type SetLogLevel = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// What the door shows and whom it tells.
#[derive(Clone)]
pub struct Admin {
    /// For `/metrics` and `/catalog`.
    pub registry: Registry,
    /// For `/readyz`.
    pub ready: Arc<AtomicBool>,
    /// For `/config`: the text in force, secrets never in it.
    pub config_text: Arc<Text>,
    /// For `/log-level`.
    pub set_log_level: SetLogLevel,
    /// For `/drain` and `/faults`.
    pub orders: mpsc::Sender<Order>,
    /// Whether faults may be switched: only in a demo.
    pub has_faults: bool,
}

/// A text that is replaced whole; readers get the one in force.
#[derive(Debug)]
pub struct Text(RwLock<Arc<str>>);

impl Text {
    /// A text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(RwLock::new(text.into()))
    }

    /// The one in force.
    #[must_use]
    pub fn get(&self) -> Arc<str> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces it.
    pub fn set(&self, text: &str) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = text.into();
    }
}

impl Admin {
    /// Opens the door, with the routes of the live calls, and serves it until the process ends. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// When the address cannot be bound, or the token file cannot be used.
    pub fn start(
        self,
        config: &Config,
        doors: &Doors,
        live: Router,
    ) -> Result<DoorHandle, belfry_door::Error> {
        let access = access("admin", config.token_file.as_deref(), &config.host_names, OPEN_PATHS)?;
        let answer = |State(admin): State<Self>, method: Method, uri: Uri| async move {
            admin.answer(&method, &uri).await
        };
        let router = Router::new().fallback(answer).with_state(self).merge(live);
        doors.open(Door::Admin, config.listen, config.limits(), Access::Guarded(access), router)
    }

    async fn answer(&self, method: &Method, uri: &Uri) -> Response {
        let path = uri.path();
        match (method, path) {
            (&Method::GET, "/livez") => text(StatusCode::OK, "alive\n"),
            (&Method::GET, "/readyz") if self.ready.load(Ordering::Acquire) => {
                text(StatusCode::OK, "ready\n")
            }
            (&Method::GET, "/readyz") => text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
            (&Method::GET, "/metrics") => text(StatusCode::OK, self.registry.encode_text()),
            (&Method::GET, "/catalog") => text(StatusCode::OK, catalog::render(&self.registry.catalogue())),
            (&Method::GET, "/config") => text(StatusCode::OK, self.config_text.get().to_string()),
            (&Method::POST, "/drain") => self.order(Order::Drain).await,
            (&Method::POST, "/log-level") => {
                let filter = uri.query().unwrap_or_default().trim_start_matches("filter=");
                match (self.set_log_level)(filter) {
                    Ok(()) => text(StatusCode::OK, "log level set\n"),
                    Err(reason) => text(StatusCode::BAD_REQUEST, format!("{reason}\n")),
                }
            }
            (&Method::POST, path) if path.starts_with("/faults/") => self.switch_fault(path).await,
            (_, "/") => text(StatusCode::OK, PATHS),
            (_, "/livez" | "/readyz" | "/metrics" | "/catalog" | "/config" | "/drain" | "/log-level") => {
                text(StatusCode::METHOD_NOT_ALLOWED, PATHS)
            }
            _ => text(StatusCode::NOT_FOUND, PATHS),
        }
    }

    async fn switch_fault(&self, path: &str) -> Response {
        if !self.has_faults {
            return text(StatusCode::FORBIDDEN, "faults can be switched in a demo only\n");
        }
        let mut parts = path.trim_start_matches("/faults/").split('/');
        let fault = parts.next().and_then(Fault::named);
        let switch = parts.next();
        match (fault, switch) {
            (Some(fault), Some(switch @ ("on" | "off"))) => {
                self.order(Order::Fault(fault, switch == "on")).await
            }
            _ => {
                let names = Fault::ALL.map(Fault::as_str).join(", ");
                text(StatusCode::NOT_FOUND, format!("POST /faults/NAME/on or /off, with a NAME of {names}\n"))
            }
        }
    }

    async fn order(&self, order: Order) -> Response {
        match self.orders.send(order).await {
            Ok(()) => text(StatusCode::ACCEPTED, "accepted\n"),
            Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
        }
    }
}

/// What there is, for whoever asks for something else.
const PATHS: &str = "GET /livez /readyz /metrics /catalog /config\n\
    POST /drain /log-level?filter=info,belfry=debug /faults/NAME/on|off (demo only)\n\
    POST /api/v1/series/work/delete|snapshot|export|import|compact   GET /api/v1/series/work\n\
    GET /api/v1/calls/live   DELETE /api/v1/calls/live/CALL-ID   GET /api/v1/trunks\n\
    GET /api/v1/bans   DELETE /api/v1/bans/ADDRESS\n";

fn text(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert("content-type", hyper::header::HeaderValue::from_static("text/plain; version=0.0.4"));
    response
}
