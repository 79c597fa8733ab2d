//! One request to the Events API, and what its answer means.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::error::Error;
use crate::signals::RetryReason;
use crate::target::Destination;

#[cfg(test)]
mod tests;

/// Who asks.
const AGENT: &str = concat!("belfry/", env!("CARGO_PKG_VERSION"));
/// How much of an answer is read.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// How much of an answer is kept when an event is rejected.
const MESSAGE_CHARS_MAX: usize = 500;
/// The longest pause that a service may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The service has it.
    Accepted,
    /// The service will never take this event.
    Rejected {
        /// The HTTP status.
        status: u16,
        /// What it said.
        message: String,
    },
    /// Try again.
    Retry {
        /// Why.
        reason: RetryReason,
        /// Not sooner than this, when the service said so.
        after: Option<Duration>,
    },
}

/// A request under way.
pub(crate) type Posting = Pin<Box<dyn Future<Output = Outcome> + Send>>;
/// Posts a body to a URL. The body holds a routing key: it is never logged.
pub(crate) type Post = Arc<dyn Fn(Destination, Vec<u8>) -> Posting + Send + Sync>;

/// A question under way: the body of a good answer.
pub(crate) type Getting = Pin<Box<dyn Future<Output = Option<Bytes>> + Send>>;
/// Gets what a URL has to say.
pub(crate) type Get = Arc<dyn Fn(Destination) -> Getting + Send + Sync>;

/// How much of what was asked for is read.
const ASKED_BYTES_MAX: usize = 256 * 1024;

/// Asks over HTTP/1.1, with TLS when some service needs it.
pub(crate) fn http_get(needs_tls: bool, request_timeout: Duration) -> Result<Get, Error> {
    let client: Client<_, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector(needs_tls)?);
    Ok(Arc::new(move |from| {
        let client = client.clone();
        Box::pin(async move { tokio::time::timeout(request_timeout, get(&client, from)).await.ok()? })
    }))
}

async fn get(
    client: &Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    from: Destination,
) -> Option<Bytes> {
    let mut request = http::Request::builder()
        .uri(from.url)
        .header(ACCEPT, "application/vnd.pagerduty+json;version=2")
        .header(USER_AGENT, AGENT)
        .body(Full::default())
        .ok()?;
    if let Some(authorization) = from.authorization {
        request.headers_mut().insert(AUTHORIZATION, authorization);
    }
    let answer = client.request(request).await.ok()?;
    if answer.status() != StatusCode::OK {
        return None;
    }
    let body = Limited::new(answer.into_body(), ASKED_BYTES_MAX).collect().await.ok()?;
    Some(body.to_bytes())
}

/// A poster over HTTP/1.1, with TLS when some service needs it.
pub(crate) fn http_post(needs_tls: bool, request_timeout: Duration) -> Result<Post, Error> {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(30))
        .build(connector(needs_tls)?);
    Ok(Arc::new(move |to, body| {
        let client = client.clone();
        Box::pin(async move {
            let retry = |reason| Outcome::Retry { reason, after: None };
            match tokio::time::timeout(request_timeout, post(&client, to, body)).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_broken)) => retry(RetryReason::Network),
                Err(_elapsed) => retry(RetryReason::Timeout),
            }
        })
    }))
}

fn connector(needs_tls: bool) -> Result<HttpsConnector<HttpConnector>, Error> {
    let provider = rustls::crypto::ring::default_provider();
    if needs_tls {
        let builder = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(provider)
            .map_err(|error| Error::Tls(error.to_string()))?;
        return Ok(builder.https_or_http().enable_http1().build());
    }
    // Only this machine is spoken to: no certificate could be trusted, and none is asked for.
    let tls = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Tls(error.to_string()))?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Ok(HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build())
}

/// The connection or the answer broke.
struct Broken;

async fn post(
    client: &Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    to: Destination,
    body: Vec<u8>,
) -> Result<Outcome, Broken> {
    let mut request = http::Request::builder()
        .method(Method::POST)
        .uri(to.url)
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, AGENT)
        .body(Full::new(Bytes::from(body)))
        .map_err(|_| Broken)?;
    if let Some(authorization) = to.authorization {
        request.headers_mut().insert(AUTHORIZATION, authorization);
    }
    let answer = client.request(request).await.map_err(|_| Broken)?;
    let (status, headers) = (answer.status(), answer.headers().clone());
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    // The status decides; an answer that is cut short after it changes nothing.
    let message = body.map(|body| body.to_bytes()).unwrap_or_default();
    Ok(judge(status, &headers, &message))
}

/// What an answer means.
///
/// PagerDuty: 202 is accepted, 400 must not be retried, 429 and 5xx must. The statuses that its manual does not
/// name are retried too unless they speak of the event itself: an expired proxy login loses no page.
fn judge(status: StatusCode, headers: &HeaderMap, message: &[u8]) -> Outcome {
    let retry = |reason| {
        let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        Outcome::Retry { reason, after: seconds.map(|s| Duration::from_secs(s).min(RETRY_AFTER_MAX)) }
    };
    match status.as_u16() {
        200..=299 => Outcome::Accepted,
        400 | 413 | 422 => Outcome::Rejected {
            status: status.as_u16(),
            message: String::from_utf8_lossy(message).chars().take(MESSAGE_CHARS_MAX).collect(),
        },
        429 => retry(RetryReason::RateLimited),
        500..=599 => retry(RetryReason::ServerError),
        408 => retry(RetryReason::Timeout),
        _ => retry(RetryReason::Refused),
    }
}
