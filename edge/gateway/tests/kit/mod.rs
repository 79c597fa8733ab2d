//! A whole edge on loopback with a core that the test plays and backends that say what they got.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test file uses its own part")]
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use belfry_gateway::{Config, Gateway, GatewayDeps, GatewayHandle};
use belfry_mesh::{LinkReceiver, LinkSender, Links, Mesh, Service};
use belfry_signal::{Registry, TraceKey};
use belfry_signalling::handle::{FromEdge, Inbound, PublicAddress, Target, ToEdge};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Nothing on loopback takes this long unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub struct TestEdge {
    pub handle: GatewayHandle,
    pub registry: Registry,
    pub mesh: Mesh,
    pub directory: tempfile::TempDir,
    pub config: String,
}

pub struct TestCore {
    pub links: Links<ToEdge, FromEdge>,
    pub sender: LinkSender<ToEdge>,
    pub receiver: LinkReceiver<FromEdge>,
    pub addresses: Vec<PublicAddress>,
}

/// The configuration of the tests, with `BACKEND` and `DIRECTORY` to be replaced.
pub const CONFIG: &str = r#"
threads = 2
[[listeners]]
name = "web"
kind = "tls-sniff"
address = "127.0.0.1:0"
[[listeners]]
name = "sip-udp"
kind = "sip-udp"
address = "127.0.0.1:0"
[[listeners]]
name = "sip-tcp"
kind = "sip-tcp"
address = "127.0.0.1:0"
[[listeners]]
name = "sip-tls"
kind = "sip-tls"
address = "127.0.0.1:0"
public_host = "sip.example.org"
public_port = 5061
[[listeners]]
name = "plain"
kind = "http"
address = "127.0.0.1:0"
[[listeners]]
name = "balanced"
kind = "tls-sniff"
address = "127.0.0.1:0"
proxy_protocol_from = ["127.0.0.0/8"]
[limits]
connections_max = 1000
connections_per_listener_max = 1000
connections_per_ip_max = 1000
handshakes_max = 1000
sip_message_bytes_max = 20000
sip_flows_max = 1000
sip_outward_max = 100
sip_flow_queue_max = 64
sip_known_sources_max = 64
sip_known_sources_per_network_max = 64
sip_bans_max = 16
tls_sessions_max = 100
h2_streams_max = 100
http_requests_per_connection_max = 1000
[timeouts]
handshake = "5s"
header = "5s"
stall = "5s"
http_idle = "30s"
sip_idle = "60s"
tcp_keepalive = "60s"
websocket_ping = "30s"
sip_connect = "2s"
[tls]
directory = "DIRECTORY/tls"
names = ["edge.example.org"]
[steering]
default_region = "us"
[[steering.regions]]
name = "eu"
site = "fra-1"
countries = ["DE", "FR"]
[[steering.regions]]
name = "us"
countries = ["US"]
[[steering.overrides]]
network = "127.0.0.8/29"
country = "DE"
[[steering.overrides]]
network = "203.0.113.0/24"
country = "FR"
[sip]
flow_key_file = "DIRECTORY/flow.key"
websocket_path = "/sip"
[http]
slow_after = "2s"
trace_one_in = 1
[[http.backends]]
name = "web"
addresses = ["BACKEND"]
connect_timeout = "1s"
read_timeout = "1s"
[[http.routes]]
path = "/app"
backend = "web"
"#;

impl TestEdge {
    /// Starts an edge with the test configuration after `change`.
    pub fn start(backend: SocketAddr, change: impl FnOnce(String) -> String) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let config = CONFIG.replace("DIRECTORY", &directory.path().display().to_string());
        let config = change(config.replace("BACKEND", &backend.to_string()));
        let registry = Registry::for_test();
        let mesh = Mesh::for_test(&registry);
        let deps =
            GatewayDeps { registry: registry.clone(), mesh: mesh.clone(), trace_key: TraceKey::new([7; 32]) };
        let handle = Gateway::start(parse(&config), deps).expect("starts");
        Self { handle, registry, mesh, directory, config }
    }

    pub fn address(&self, listener: &str) -> SocketAddr {
        let addresses = self.handle.addresses();
        addresses.iter().find(|(name, _)| name.as_str() == listener).expect("a listener").1
    }

    pub fn authority(&self) -> PathBuf {
        self.handle.authority_file().expect("a local CA").to_owned()
    }

    /// A core that has greeted the edge.
    pub async fn core(&self) -> TestCore {
        let mut links = self.mesh.serve::<ToEdge, FromEdge>(Service::Signalling);
        let link = timeout(PATIENCE, links.next()).await.expect("in time").expect("a link");
        let (sender, mut receiver) = link.split();
        let hello = timeout(PATIENCE, receiver.recv()).await.expect("in time").expect("a message");
        let FromEdge::Hello { addresses, .. } = hello else { panic!("the first message is {hello:?}") };
        // The edge offers a link to customers only after its greeting is sent.
        self.metric_reaches("cores", &[], 1.0).await;
        TestCore { sender, receiver, addresses, links }
    }

    /// A TLS connection that trusts the edge's local CA.
    pub async fn tls(&self, listener: &str, protocols: &[&[u8]]) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.address(listener)).await.expect("connects");
        self.tls_over(stream, protocols).await.expect("shakes hands")
    }

    pub async fn tls_over(
        &self,
        stream: TcpStream,
        protocols: &[&[u8]],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        connect_tls(&self.client_config(protocols), stream).await
    }

    pub fn client_config(&self, protocols: &[&[u8]]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(self.authority()).expect("readable") {
            roots.add(certificate.expect("a certificate")).expect("usable");
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }

    /// One sample of the edge's metrics: the sum over all series whose labels hold all of `labels`.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let name = format!("edge_gateway_{name}");
        let matches = |sample: &&belfry_signal::Sample| {
            let has = |(key, value): &(&str, &str)| {
                sample.labels.iter().any(|(name, text)| name == key && text == value)
            };
            sample.name == name && labels.iter().all(has)
        };
        self.registry.samples().iter().filter(matches).map(|sample| sample.value).sum()
    }

    /// Waits until a metric has at least that value.
    pub async fn metric_reaches(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let reached = async {
            while self.metric(name, labels) < value {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout(PATIENCE, reached).await.is_err() {
            panic!(
                "{name} {labels:?} is {}, not {value}\n{}",
                self.metric(name, labels),
                self.registry.encode_text()
            );
        }
    }

    /// The journey's (good, bad) in a region.
    pub fn journey(&self, journey: belfry_signal::Journey, region: &str) -> (u64, u64) {
        let counts = self.registry.journeys().counts();
        let count = counts.iter().find(|count| count.journey == journey && count.region.as_str() == region);
        count.map_or((0, 0), |count| (count.good, count.bad))
    }
}

impl TestCore {
    /// Loses the link, and gets the next one.
    pub async fn restart(self) -> Self {
        let Self { mut links, sender, receiver, .. } = self;
        drop((sender, receiver));
        let link = timeout(PATIENCE, links.next()).await.expect("in time").expect("a link");
        let (sender, mut receiver) = link.split();
        let hello = timeout(PATIENCE, receiver.recv()).await.expect("in time").expect("a message");
        let FromEdge::Hello { addresses, .. } = hello else { panic!("the first message is {hello:?}") };
        Self { sender, receiver, addresses, links }
    }

    /// The next SIP message.
    pub async fn message(&mut self) -> Inbound {
        match self.next().await {
            FromEdge::Message(inbound) => inbound,
            other => panic!("not a message: {other:?}"),
        }
    }

    pub async fn next(&mut self) -> FromEdge {
        timeout(PATIENCE, self.receiver.recv()).await.expect("in time").expect("the link is up")
    }

    /// Bans an address, or lifts the ban.
    pub fn ban(&self, address: &str, seconds: u32, is_answered: bool) {
        let network = address.parse().expect("an address");
        self.sender.try_send(ToEdge::Ban { network, seconds, is_answered }).expect("the link takes it");
    }

    /// Says all its bans, which are these.
    pub fn ban_only(&self, addresses: &[&str], seconds: u32, is_answered: bool) {
        let ban = |address: &&str| (address.parse().expect("an address"), seconds);
        let bans = addresses.iter().map(ban).collect();
        self.sender.try_send(ToEdge::Bans { is_first: true, bans, is_answered }).expect("the link takes it");
    }

    pub fn send(&self, id: u64, target: Target, bytes: &[u8]) {
        self.sender.try_send(ToEdge::Send { id, target, bytes: bytes.to_vec() }).expect("the link takes it");
    }
}

pub async fn connect_tls(
    config: &Arc<ClientConfig>,
    stream: TcpStream,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("edge.example.org").expect("a name");
    TlsConnector::from(Arc::clone(config)).connect(name, stream).await
}

pub fn parse(config: &str) -> Config {
    let config: Config = toml::from_str(config).expect("readable");
    assert_eq!(config.check(), []);
    config
}

/// A SIP request with that method and Call-ID.
pub fn request(method: &str, call_id: &str) -> Vec<u8> {
    format!(
        "{method} sip:bob@example.org SIP/2.0\r\nVia: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bK{call_id}\r\n\
         From: <sip:alice@example.org>;tag=1\r\nTo: <sip:bob@example.org>\r\nCall-ID: {call_id}\r\n\
         CSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// A backend that answers with the request's line and headers, with `status` from the query (`?status=503`).
pub async fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service =
                service_fn(
                    |request: Request<Incoming>| async move { Ok::<_, hyper::Error>(echo(request).await) },
                );
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    address
}

/// A backend that remembers each request as it understood it: its line, and whether the edge had seen it.
pub async fn recording_backend() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("bound");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let record = Arc::clone(&record);
            let service = service_fn(move |request: Request<Incoming>| {
                let is_ours = request.headers().contains_key("x-belfry-region");
                let line = format!("{} {} {is_ours}", request.method(), request.uri());
                record.lock().expect("not poisoned").push(line);
                async move { Ok::<_, hyper::Error>(echo(request).await) }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    (address, seen)
}

async fn echo(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let mut text = format!("{} {}\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        text.push_str(&format!("{name}: {}\n", value.to_str().unwrap_or("?")));
    }
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    text.push_str(&format!("body: {} bytes\n", body.len()));
    if query.contains("stall") {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    if query.contains("big") {
        text = "x".repeat(64 << 20);
    }
    let status: u16 = query.strip_prefix("status=").and_then(|status| status.parse().ok()).unwrap_or(200);
    Response::builder()
        .status(status)
        .header("x-belfry-secret", "internal")
        .body(Full::new(Bytes::from(text)))
        .expect("a response")
}

/// One HTTP/1.1 request; the status, the headers' text, the body.
pub async fn http1<S>(stream: S, request: Request<Full<Bytes>>) -> (u16, hyper::HeaderMap, String)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("ready");
    tokio::spawn(connection);
    let response =
        timeout(PATIENCE, sender.send_request(request)).await.expect("in time").expect("an answer");
    collect(response).await
}

/// One h2 request.
pub async fn http2<S>(stream: S, request: Request<Full<Bytes>>) -> (u16, hyper::HeaderMap, String)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("ready");
    tokio::spawn(connection);
    let response =
        timeout(PATIENCE, sender.send_request(request)).await.expect("in time").expect("an answer");
    collect(response).await
}

pub async fn collect(response: Response<Incoming>) -> (u16, hyper::HeaderMap, String) {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    (parts.status.as_u16(), parts.headers, String::from_utf8_lossy(&body).into_owned())
}

pub fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::builder().uri(uri).header("host", "edge.example.org").body(Full::default()).expect("a request")
}

/// Everything until the peer closes, at most 64 KiB.
pub async fn read_all<S: tokio::io::AsyncRead + Unpin>(stream: &mut S) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset is an end too.
    let _ = timeout(PATIENCE, stream.take(65_536).read_to_end(&mut bytes)).await.expect("closed in time");
    bytes
}

/// Reads until the bytes end with `end`.
pub async fn read_until<S: tokio::io::AsyncRead + Unpin>(stream: &mut S, end: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let reading = async {
        while !bytes.ends_with(end) {
            let mut byte = [0];
            stream.read_exact(&mut byte).await.expect("more bytes");
            bytes.push(byte[0]);
        }
    };
    timeout(PATIENCE, reading).await.expect("in time");
    bytes
}

pub async fn write<S: tokio::io::AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) {
    stream.write_all(bytes).await.expect("written");
    stream.flush().await.expect("flushed");
}
