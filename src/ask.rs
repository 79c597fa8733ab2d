//! Asking a running Belfry over HTTP, for the commands that look at one.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;

/// The largest answer that a command reads.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// How long a command waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends one request and returns the body as text.
///
/// # Errors
/// When nobody listens there, nobody answers in time, or the answer is not a success.
pub async fn ask(method: Method, address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let asking = async {
        let stream = tokio::net::TcpStream::connect(address)
            .await
            .with_context(|| format!("reach {address}: is Belfry running, and is this its port?"))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", address.to_string())
            .header("accept", "text/plain, application/json;q=0.9")
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("read the answer: {error}"))?.to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        if !status.is_success() {
            bail!("{address} answered {status}: {}", text.trim());
        }
        Ok(text)
    };
    tokio::time::timeout(PATIENCE, asking)
        .await
        .with_context(|| format!("{address} did not answer within {} s", PATIENCE.as_secs()))?
}
