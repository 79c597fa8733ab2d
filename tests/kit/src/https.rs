//! HTTPS customers: requests over HTTP/1.1 or h2, from a chosen local address.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::{http1, http2};
use hyper::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::{Instant, timeout};

use crate::error::Error;
use crate::tls::Trust;
use crate::wire::{connect_tcp, connect_tls};

/// A customer of the HTTPS door.
#[derive(Clone, Debug)]
pub struct HttpsConfig {
    /// The edge's address.
    pub edge: SocketAddr,
    /// The name that the edge's certificate must have, and the Host.
    pub server_name: String,
    /// The local address.
    pub source: IpAddr,
    /// Whom the customer trusts.
    pub trust: Trust,
    /// Whether h2 is spoken; otherwise HTTP/1.1.
    pub is_http2: bool,
    /// Time for connecting, and for each request.
    pub timeout: Duration,
}

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    config: HttpsConfig,
    sender: Sender,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

/// What came back.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Header names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// From the request to the last byte.
    pub took: Duration,
}

impl Answer {
    /// The first header of this lower-case name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Connects, asks once, and closes.
///
/// # Errors
/// When the edge cannot be reached, does not prove its name, or does not answer in time.
pub async fn get(config: &HttpsConfig, path: &str) -> Result<Answer, Error> {
    Connection::open(config.clone()).await?.get(path, &[]).await
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When the edge cannot be reached or does not prove its name, or speaks another protocol.
    pub async fn open(config: HttpsConfig) -> Result<Self, Error> {
        let opening = Self::connect(&config);
        let sender = timeout(config.timeout, opening).await.map_err(|_| Error::Timeout)??;
        Ok(Self { config, sender })
    }

    async fn connect(config: &HttpsConfig) -> Result<Sender, Error> {
        let failed = |error: hyper::Error| Error::Http(error.to_string());
        let protocol = if config.is_http2 { "h2" } else { "http/1.1" };
        let stream = connect_tcp(config.source, config.edge).await?;
        let stream = connect_tls(stream, &config.server_name, &config.trust, &[protocol]).await?;
        let agreed = stream.get_ref().1.alpn_protocol().unwrap_or(b"http/1.1");
        if agreed != protocol.as_bytes() {
            return Err(Error::Protocol("the edge chose another http version"));
        }
        let stream = TokioIo::new(stream);
        // The connections' own ends are told to their senders, where the error is looked at.
        if config.is_http2 {
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), stream).await.map_err(failed)?;
            tokio::spawn(connection);
            Ok(Sender::Http2(sender))
        } else {
            let (sender, connection) = http1::handshake(stream).await.map_err(failed)?;
            tokio::spawn(connection);
            Ok(Sender::Http1(sender))
        }
    }

    /// Asks for a path, with further headers.
    ///
    /// # Errors
    /// When there is no whole answer in time.
    pub async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Result<Answer, Error> {
        let limit = self.config.timeout;
        timeout(limit, self.ask(path, headers)).await.map_err(|_| Error::Timeout)?
    }

    async fn ask(&mut self, path: &str, headers: &[(&str, &str)]) -> Result<Answer, Error> {
        let start = Instant::now();
        let authority = format!("{}:{}", self.config.server_name, self.config.edge.port());
        let mut request = match self.sender {
            Sender::Http1(_) => Request::get(path).header("host", authority),
            Sender::Http2(_) => Request::get(format!("https://{authority}{path}")).version(Version::HTTP_2),
        };
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::new()).map_err(|error| Error::Http(error.to_string()))?;
        let failed = |error: hyper::Error| Error::Http(error.to_string());
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await.map_err(failed)?;
                sender.send_request(request).await
            }
            Sender::Http2(sender) => {
                sender.ready().await.map_err(failed)?;
                sender.send_request(request).await
            }
        }
        .map_err(failed)?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(failed)?.to_bytes();
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = parts.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        Ok(Answer { status: parts.status.as_u16(), headers, body, took: start.elapsed() })
    }
}
