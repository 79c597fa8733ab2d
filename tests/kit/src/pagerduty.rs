//! A stand-in for PagerDuty's Events API v2: it checks events as the real service does, and stricter, and keeps an inbox.
//!
//! `POST /v2/enqueue` and `POST /v2/change/enqueue` take events; `GET /inbox` shows what came, as JSON.
//! Answers can be scripted, so that a client's retries can be seen. People acknowledge and resolve (`act`), which webhooks
//! (`hook`) and `GET /incidents` of the REST API tell. Not here: escalation.

mod event;
mod inbox;
mod people;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use event::{EVENT_BYTES_MAX, Event};

pub use inbox::{Inbox, Incident, IncidentState, Rejected};

/// What to answer instead of the usual, once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// This status code, as 429 or 500. The event is not taken.
    Status(u16),
    /// The usual answer, after this time.
    Slow(Duration),
    /// Takes the event and closes the connection without an answer.
    TakeAndClose,
    /// Closes the connection without an answer.
    Close,
}

/// A running stand-in. It stops when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct PagerDuty {
    shared: Arc<Shared>,
    /// Where it listens.
    pub address: SocketAddr,
    _guard: Arc<StopGuard>,
}

#[derive(Debug)]
struct Shared {
    routing_keys: Vec<String>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    inbox: Inbox,
    script: VecDeque<Reply>,
    hooks: Vec<people::Hook>,
    rest_token: Option<String>,
}

#[derive(Debug)]
struct StopGuard(CancellationToken);

impl Drop for StopGuard {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl PagerDuty {
    /// Starts to listen; knows these routing keys of 32 characters and no others.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn start(listen: SocketAddr, routing_keys: &[&str]) -> Result<Self, Error> {
        let listener = TcpListener::bind(listen).await.map_err(Error::socket("bind"))?;
        let address = listener.local_addr().map_err(Error::socket("bind"))?;
        let routing_keys = routing_keys.iter().map(|key| (*key).to_owned()).collect();
        let shared = Arc::new(Shared { routing_keys, state: Mutex::default() });
        let stop = CancellationToken::new();
        tokio::spawn(accept(listener, Arc::clone(&shared), stop.clone()));
        Ok(Self { shared, address, _guard: Arc::new(StopGuard(stop)) })
    }

    /// Where events go.
    #[must_use]
    pub fn enqueue_url(&self) -> String {
        format!("http://{}/v2/enqueue", self.address)
    }

    /// Where the inbox is shown.
    #[must_use]
    pub fn inbox_url(&self) -> String {
        format!("http://{}/inbox", self.address)
    }

    /// What came so far.
    #[must_use]
    pub fn inbox(&self) -> Inbox {
        self.shared.state().inbox.clone()
    }

    /// Answers the next events like this, one after the other, then as usual again.
    pub fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        self.shared.state().script.extend(replies);
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => continue,
            },
        };
        let (shared, stop) = (Arc::clone(&shared), stop.clone());
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let shared = Arc::clone(&shared);
                async move { serve(&shared, request).await }
            });
            let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            // A client may leave when it likes; that is no fault here.
            tokio::select! {
                () = stop.cancelled() => {}
                _ended = connection => {}
            }
        });
    }
}

/// The script says so: hyper closes a connection whose service fails.
#[derive(Debug, thiserror::Error)]
#[error("closed without an answer, as scripted")]
struct Closed;

async fn serve(shared: &Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Closed> {
    match (request.method().clone(), request.uri().path()) {
        (Method::GET, "/inbox") => {
            let inbox = shared.state().inbox.clone();
            Ok(respond(StatusCode::OK, &serde_json::to_value(inbox).unwrap_or_default()))
        }
        (Method::GET, "/incidents") => {
            let login =
                request.headers().get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
            let (status, answer) =
                people::incidents(shared, login, request.uri().query().unwrap_or_default());
            Ok(respond(status, &answer))
        }
        (Method::POST, "/v2/enqueue") => take(shared, request, Event::parse).await,
        (Method::POST, "/v2/change/enqueue") => take(shared, request, Event::parse_change).await,
        (_, "/inbox" | "/v2/enqueue" | "/v2/change/enqueue") => {
            Ok(respond(StatusCode::METHOD_NOT_ALLOWED, &json!({ "status": "method not allowed" })))
        }
        _ => Ok(respond(StatusCode::NOT_FOUND, &json!({ "status": "not found" }))),
    }
}

async fn take(
    shared: &Arc<Shared>,
    request: Request<Incoming>,
    parse: fn(&Value, &[String]) -> Result<Event, Vec<String>>,
) -> Result<Response<Full<Bytes>>, Closed> {
    let reply = shared.state().script.pop_front();
    match &reply {
        Some(Reply::Slow(pause)) => tokio::time::sleep(*pause).await,
        Some(Reply::Close) => return Err(Closed),
        Some(Reply::Status(status)) => {
            shared.state().inbox.scripted += 1;
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let answer = json!({ "status": "scripted", "message": "this answer was asked for" });
            return Ok(respond(status, &answer));
        }
        _ => {}
    }
    let Ok(body) = Limited::new(request.into_body(), EVENT_BYTES_MAX).collect().await else {
        let errors = vec![format!("the event is larger than {EVENT_BYTES_MAX} bytes")];
        return Ok(refuse(shared, StatusCode::PAYLOAD_TOO_LARGE, errors));
    };
    let Ok(value) = serde_json::from_slice::<Value>(&body.to_bytes()) else {
        return Ok(refuse(shared, StatusCode::BAD_REQUEST, vec!["the body is not JSON".to_owned()]));
    };
    // The lock is let go before anybody answers.
    let taken = parse(&value, &shared.routing_keys)
        .and_then(|event| shared.state().inbox.take(event).map_err(|error| vec![error]));
    match taken {
        Err(errors) => Ok(refuse(shared, StatusCode::BAD_REQUEST, errors)),
        Ok(_) if reply == Some(Reply::TakeAndClose) => Err(Closed),
        Ok((dedup_key, before)) => {
            if let Some(before) = before {
                people::tell(shared, &dedup_key, before);
            }
            let answer = json!({ "status": "success", "message": "Event processed", "dedup_key": dedup_key });
            Ok(respond(StatusCode::ACCEPTED, &answer))
        }
    }
}

fn refuse(shared: &Shared, status: StatusCode, errors: Vec<String>) -> Response<Full<Bytes>> {
    let answer = json!({ "status": "invalid event", "message": "Event object is invalid", "errors": errors });
    shared.state().inbox.reject(status.as_u16(), errors);
    respond(status, &answer)
}

fn respond(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests;
