//! The admin door: liveness, readiness, metrics, drain, configuration, log level, catalogue, demo faults.
//!
//! On its own port, on localhost by default, on the tower runtime: a scrape must not cost a call its timing.
//! Plain hyper, because it is a dozen fixed paths that must work when everything else does not.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use belfry_signal::Registry;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};

use crate::catalog;
use crate::cli::Fault;

/// What an operator may set.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Connections at once.
    pub connections_max: usize,
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
    /// Binds the door and serves it until the process ends; returns where it is bound.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(self, config: &Config) -> std::io::Result<SocketAddr> {
        let listener = TcpListener::bind(config.listen).await?;
        let address = listener.local_addr()?;
        let permits = Arc::new(Semaphore::new(config.connections_max));
        tokio::spawn(async move {
            loop {
                let Ok(permit) = permits.clone().acquire_owned().await else { return };
                let Ok((stream, _)) = listener.accept().await else { continue };
                let admin = self.clone();
                tokio::spawn(async move {
                    let _permit = permit;
                    let service = service_fn(move |request| {
                        let admin = admin.clone();
                        async move { Ok::<_, Infallible>(admin.answer(&request).await) }
                    });
                    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    builder.http1().timer(TokioTimer::new());
                    // A broken admin connection concerns only whoever opened it.
                    let _ended = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Ok(address)
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        match (request.method(), path) {
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
                let filter = request.uri().query().unwrap_or_default().trim_start_matches("filter=");
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

    async fn switch_fault(&self, path: &str) -> Response<Full<Bytes>> {
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

    async fn order(&self, order: Order) -> Response<Full<Bytes>> {
        match self.orders.send(order).await {
            Ok(()) => text(StatusCode::ACCEPTED, "accepted\n"),
            Err(_) => text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
        }
    }
}

/// What there is, for whoever asks for something else.
const PATHS: &str = "GET /livez /readyz /metrics /catalog /config\n\
    POST /drain /log-level?filter=info,belfry=debug /faults/NAME/on|off (demo only)\n";

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert("content-type", hyper::header::HeaderValue::from_static("text/plain; version=0.0.4"));
    response
}
