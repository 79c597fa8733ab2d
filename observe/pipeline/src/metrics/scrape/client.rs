//! The HTTP client of scrapes and of sending: TLS, passwords and tokens as Prometheus' files name them.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{ConfigBuilderExt, FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use prost::bytes::Bytes;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use serde::Deserialize;

const REDIRECTS_MAX: usize = 10;
/// A connection that nobody used for so long is closed.
const IDLE: Duration = Duration::from_mins(2);

/// `basic_auth`
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BasicAuth {
    #[serde(default)]
    username: String,
    username_file: Option<PathBuf>,
    password: Option<String>,
    password_file: Option<PathBuf>,
}

/// `authorization`
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Authorization {
    #[serde(rename = "type")]
    kind: Option<String>,
    credentials: Option<String>,
    credentials_file: Option<PathBuf>,
}

/// `tls_config`
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsConfig {
    ca: Option<String>,
    ca_file: Option<PathBuf>,
    cert: Option<String>,
    cert_file: Option<PathBuf>,
    key: Option<String>,
    key_file: Option<PathBuf>,
    server_name: Option<String>,
    #[serde(default)]
    insecure_skip_verify: bool,
}

/// Secrets are not for logs.
macro_rules! is_secret {
    ($($name:ident),*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), " <secret>"))
            }
        }
    )*};
}
is_secret!(BasicAuth, Authorization, TlsConfig);

/// How requests of one job are made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HttpConfig {
    pub(crate) basic_auth: Option<BasicAuth>,
    pub(crate) authorization: Option<Authorization>,
    pub(crate) tls: TlsConfig,
    pub(crate) follows_redirects: bool,
    /// Paths are relative to it.
    pub(crate) directory: PathBuf,
}

impl HttpConfig {
    /// What is wrong with it.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.basic_auth.is_some() && self.authorization.is_some() {
            return Err("basic_auth and authorization exclude each other".to_owned());
        }
        if let Some(basic) = &self.basic_auth
            && (basic.password.is_some() && basic.password_file.is_some())
        {
            return Err("basic_auth has both password and password_file".to_owned());
        }
        if let Some(token) = &self.authorization {
            if token.credentials.is_some() && token.credentials_file.is_some() {
                return Err("authorization has both credentials and credentials_file".to_owned());
            }
            if token.kind.as_deref().is_some_and(|kind| kind.eq_ignore_ascii_case("basic")) {
                return Err("use basic_auth for the type \"basic\"".to_owned());
            }
        }
        let tls = &self.tls;
        if (tls.cert.is_some() || tls.cert_file.is_some()) != (tls.key.is_some() || tls.key_file.is_some()) {
            return Err("tls_config needs a certificate and a key, or neither".to_owned());
        }
        Ok(())
    }

    fn read(&self, path: &Path) -> Result<String, String> {
        let path = self.directory.join(path);
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// The `Authorization` header; files are read anew each time, since their contents are renewed.
    fn authorization(&self) -> Result<Option<HeaderValue>, String> {
        let secret = |text: &Option<String>, file: &Option<PathBuf>| match (text, file) {
            (Some(text), _) => Ok(text.clone()),
            (None, Some(file)) => self.read(file).map(|text| text.trim().to_owned()),
            (None, None) => Ok(String::new()),
        };
        let text = if let Some(basic) = &self.basic_auth {
            let user = match &basic.username_file {
                Some(file) => self.read(file)?.trim().to_owned(),
                None => basic.username.clone(),
            };
            let both = format!("{user}:{}", secret(&basic.password, &basic.password_file)?);
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(both))
        } else if let Some(token) = &self.authorization {
            let secret = secret(&token.credentials, &token.credentials_file)?;
            format!("{} {secret}", token.kind.as_deref().unwrap_or("Bearer"))
        } else {
            return Ok(None);
        };
        let mut value = HeaderValue::from_str(&text).map_err(|_| "a secret is no header".to_owned())?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    fn pem(&self, text: &Option<String>, file: &Option<PathBuf>) -> Result<Option<String>, String> {
        match (text, file) {
            (Some(text), _) => Ok(Some(text.clone())),
            (None, Some(file)) => self.read(file).map(Some),
            (None, None) => Ok(None),
        }
    }

    fn tls(&self) -> Result<rustls::ClientConfig, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let tls = &self.tls;
        let certificates = |pem: &str| {
            let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
            all.map_err(|error| format!("a certificate of tls_config cannot be read: {error}"))
        };
        let builder = if tls.insecure_skip_verify {
            let blind = Arc::new(Blind(provider));
            builder.dangerous().with_custom_certificate_verifier(blind)
        } else if let Some(pem) = self.pem(&tls.ca, &tls.ca_file)? {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in certificates(&pem)? {
                roots.add(certificate).map_err(|error| format!("an authority of tls_config: {error}"))?;
            }
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_webpki_verifier(verifier.map_err(|error| format!("tls_config: {error}"))?)
        } else {
            builder
                .with_native_roots()
                .map_err(|error| format!("the authorities of this machine: {error}"))?
        };
        let (chain, key) = (self.pem(&tls.cert, &tls.cert_file)?, self.pem(&tls.key, &tls.key_file)?);
        let (Some(chain), Some(key)) = (chain, key) else { return Ok(builder.with_no_client_auth()) };
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes());
        let key = key.map_err(|error| format!("the key of tls_config cannot be read: {error}"))?;
        builder
            .with_client_auth_cert(certificates(&chain)?, key)
            .map_err(|error| format!("tls_config: {error}"))
    }
}

/// `insecure_skip_verify`: whoever answers is believed.
#[derive(Debug)]
struct Blind(Arc<CryptoProvider>);

impl ServerCertVerifier for Blind {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ClientFault {
    /// No connection, or it broke off.
    #[error("{0}")]
    Connection(String),
    /// A file that the configuration names.
    #[error("{0}")]
    Config(String),
    /// The body is longer than allowed.
    #[error("the body is longer than {bytes_max} bytes")]
    TooLong {
        /// The bound.
        bytes_max: usize,
    },
    /// The body is not what its header says.
    #[error("{0}")]
    Coding(String),
}

/// An answer, whole.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// Its body, unpacked.
    pub(crate) body: Bytes,
}

/// A client with one job's settings. Cheap to clone; connections are kept and used again.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    inner: legacy::Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    config: Arc<HttpConfig>,
}

impl Client {
    /// A client.
    ///
    /// # Errors
    /// When a file that the settings name cannot be used.
    pub(crate) fn new(config: HttpConfig) -> Result<Self, String> {
        let builder = HttpsConnectorBuilder::new().with_tls_config(config.tls()?).https_or_http();
        let builder = match &config.tls.server_name {
            Some(name) => {
                let name = ServerName::try_from(name.clone())
                    .map_err(|_| format!("the server_name {name:?} of tls_config is no name"))?;
                builder.with_server_name_resolver(FixedServerNameResolver::new(name))
            }
            None => builder,
        };
        let inner = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(2)
            .build(builder.enable_http1().build());
        Ok(Self { inner, config: Arc::new(config) })
    }

    /// Sends a request and takes the whole answer, of at most so many bytes after unpacking.
    ///
    /// # Errors
    /// When there is no answer, or it cannot be taken.
    pub(crate) async fn send(
        &self,
        method: Method,
        uri: Uri,
        headers: HeaderMap,
        body: Bytes,
        bytes_max: usize,
    ) -> Result<Answer, ClientFault> {
        let (mut uri, mut headers) = (uri, headers);
        let mut authorization = self.config.authorization().map_err(ClientFault::Config)?;
        for _ in 0..=REDIRECTS_MAX {
            let mut request = Request::new(Full::new(body.clone()));
            *request.method_mut() = method.clone();
            *request.uri_mut() = uri.clone();
            *request.headers_mut() = headers.clone();
            if let Some(value) = &authorization {
                request.headers_mut().insert(header::AUTHORIZATION, value.clone());
            }
            let answer =
                self.inner.request(request).await.map_err(|error| ClientFault::Connection(chain(&error)))?;
            let target = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            let moved = target.filter(|_| answer.status().is_redirection() && self.config.follows_redirects);
            let Some(target) = moved.and_then(|target| resolved(&uri, target)) else {
                return taken(answer, bytes_max).await;
            };
            if !is_same_place(&uri, &target) {
                // What was meant for one host is not told to another, nor to everybody on the way.
                authorization = None;
                headers = headers.into_iter().filter_map(not_secret).collect();
            }
            uri = target;
        }
        Err(ClientFault::Connection(format!("more than {REDIRECTS_MAX} redirects")))
    }
}

/// Whether a redirection stays with the scheme, the host and the port that secrets are for.
fn is_same_place(from: &Uri, to: &Uri) -> bool {
    let port =
        |uri: &Uri| uri.port_u16().or(if uri.scheme_str() == Some("https") { Some(443) } else { Some(80) });
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    from.scheme_str() == to.scheme_str() && host(from) == host(to) && port(from) == port(to)
}

/// A header that may go elsewhere.
fn not_secret((name, value): (Option<HeaderName>, HeaderValue)) -> Option<(HeaderName, HeaderValue)> {
    let is_known = |name: &HeaderName| {
        [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, header::COOKIE].contains(name)
    };
    name.filter(|name| !value.is_sensitive() && !is_known(name)).map(|name| (name, value))
}

fn resolved(base: &Uri, target: &str) -> Option<Uri> {
    let target: Uri = target.parse().ok()?;
    if target.authority().is_some() {
        return Some(target);
    }
    let mut parts = base.clone().into_parts();
    parts.path_and_query = target.into_parts().path_and_query;
    Uri::from_parts(parts).ok()
}

/// An error with its causes: "client error (Connect): tcp connect error: Connection refused".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

async fn taken(
    answer: http::Response<hyper::body::Incoming>,
    bytes_max: usize,
) -> Result<Answer, ClientFault> {
    let (parts, body) = answer.into_parts();
    let body = Limited::new(body, bytes_max).collect().await.map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            ClientFault::TooLong { bytes_max }
        } else {
            ClientFault::Connection(error.to_string())
        }
    })?;
    let mut body = body.to_bytes();
    if parts.headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding == "gzip") {
        body = unzipped(&body, bytes_max).map(Bytes::from).map_err(ClientFault::Coding)?;
    }
    Ok(Answer { status: parts.status, headers: parts.headers, body })
}

/// A gzip body, of so many bytes at most when unpacked.
///
/// # Errors
/// When it is longer, or not gzip.
pub(crate) fn unzipped(body: &[u8], bytes_max: usize) -> Result<Vec<u8>, String> {
    let mut plain = Vec::new();
    let bounded = bytes_max as u64 + 1;
    let read = flate2::read::MultiGzDecoder::new(body).take(bounded).read_to_end(&mut plain);
    read.map_err(|error| format!("the body is not gzip: {error}"))?;
    if plain.len() > bytes_max {
        Err(format!("the body is longer than {bytes_max} bytes"))
    } else {
        Ok(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_stay_with_the_place_they_are_for() {
        let check = |from: &'static str, to: &'static str, expected: bool| {
            let (from, to) = (Uri::from_static(from), Uri::from_static(to));
            assert_eq!(is_same_place(&from, &to), expected, "{from} {to}");
        };
        check("https://h:9100/a", "https://h:9100/b", true);
        check("https://h/a", "https://H:443/b", true);
        check("http://h/a", "http://h:80/b", true);
        check("https://h:9100/a", "http://h:9100/a", false);
        check("http://h:9100/a", "https://h:9100/a", false);
        check("https://h:9100/a", "https://h:9101/a", false);
        check("https://h/a", "https://i/a", false);
        let mut key = HeaderValue::from_static("hush");
        key.set_sensitive(true);
        let told = |name, value| not_secret((Some(name), value)).is_some();
        assert!(told(header::ACCEPT, HeaderValue::from_static("*/*")));
        assert!(!told(HeaderName::from_static("x-key"), key));
        assert!(!told(header::COOKIE, HeaderValue::from_static("a=b")));
    }
}
