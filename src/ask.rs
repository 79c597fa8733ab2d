//! Asking a running Belfry over HTTP, for the commands that look at one.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use belfry_door::Tokens;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::ToSocketAddrs;

/// The largest answer that a command reads.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// How long a command waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// What opens a door that asks for a token.
#[derive(Clone)]
pub struct Token {
    file: Option<PathBuf>,
    token: Option<String>,
}

impl Token {
    /// No token.
    #[must_use]
    pub fn none() -> Self {
        Self { file: None, token: None }
    }

    /// The first token of a file, if one is named.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn of(file: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = file else { return Ok(Self::none()) };
        let token = Tokens::read(path)?.into_iter().next();
        Ok(Self { file: Some(path.to_owned()), token })
    }

    /// What to do when it opens nothing.
    fn advice(&self) -> String {
        match &self.file {
            None => {
                "name a file with it: --token-file FILE, or BELFRY_TOKEN_FILE in the environment".to_owned()
            }
            Some(file) => format!(
                "the first one of {} is not good: it must be in the server's token_file, which a SIGHUP brings into force",
                file.display()
            ),
        }
    }
}

/// Sends one request and returns the body as text.
///
/// # Errors
/// When nobody listens there, nobody answers in time, or the answer is not a success.
pub async fn ask(method: Method, address: SocketAddr, path: &str, token: &Token) -> anyhow::Result<String> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", address.to_string())
        .header("accept", "text/plain, application/json;q=0.9")
        .body(Full::default())?;
    let (status, text) = exchange(address, request, token, PATIENCE).await?;
    if !status.is_success() {
        bail!("{address} answered {status}: {}", text.trim());
    }
    Ok(text)
}

/// Sends a form to `path` below an address such as `http://host:9090`, and returns status and body.
///
/// # Errors
/// When the address is not of that form, nobody listens there, or nobody answers in time.
pub async fn post_form(
    url: &str,
    path: &str,
    form: &[(&str, &str)],
    token: &Token,
    patience: Duration,
) -> anyhow::Result<(StatusCode, String)> {
    let base: Uri = url.parse().with_context(|| format!("read the address {url:?}"))?;
    let (Some("http"), Some(host)) = (base.scheme_str(), base.host()) else {
        bail!("{url:?} is not an address: write http://HOST:PORT");
    };
    let authority = format!("{host}:{}", base.port_u16().unwrap_or(80));
    let body: Vec<String> =
        form.iter().map(|(name, value)| format!("{name}={}", percent_encoded(value))).collect();
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("{}{path}", base.path().trim_end_matches('/')))
        .header("host", &authority)
        .header("accept", "application/json")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Full::from(body.join("&")))?;
    exchange(&authority, request, token, patience).await
}

async fn exchange(
    address: impl ToSocketAddrs + Display,
    mut request: Request<Full<Bytes>>,
    token: &Token,
    patience: Duration,
) -> anyhow::Result<(StatusCode, String)> {
    if let Some(token) = &token.token {
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    let exchanging = async {
        let stream = tokio::net::TcpStream::connect(&address)
            .await
            .with_context(|| format!("reach {address}: is Belfry running, and is this its port?"))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let response = sender.send_request(request).await?;
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED {
            bail!("{address} asks for a token: {}", token.advice());
        }
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("read the answer: {error}"))?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::time::timeout(patience, exchanging)
        .await
        .with_context(|| format!("{address} did not answer within {} s", patience.as_secs()))?
}

/// Escapes what may not stand in a path segment or in a form's value (RFC 3986 section 3.3).
#[must_use]
pub fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'@' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}
