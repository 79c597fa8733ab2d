//! The smallest exchange that phones can call through: a registrar with digest and a stateless proxy that routes by
//! the user part and by flow, over all four transports. It can lose datagrams on purpose.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use belfry_sip_proto::digest::{Algorithm, Challenge, Credentials, Nonce, NonceKey};
use belfry_sip_proto::{Edit, Frame, Framer, HeaderName, Limits, OwnedMessage, build};
use futures_util::{SinkExt as _, StreamExt as _};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Message as WebSocketMessage;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

use crate::tls::Trust;

pub(crate) const DOMAIN: &str = "localhost";
pub(crate) const PASSWORD: &str = "s3cret";
static KEY: LazyLock<NonceKey> = LazyLock::new(|| NonceKey::new([1; 32]));
const NOW: u64 = 1_000;

type Flow = mpsc::Sender<Vec<u8>>;

/// The exchange and where it listens.
pub(crate) struct Exchange {
    pub(crate) udp: SocketAddr,
    pub(crate) tcp: SocketAddr,
    pub(crate) tls: SocketAddr,
    pub(crate) wss: SocketAddr,
    pub(crate) trust: Trust,
    pub(crate) seen: Arc<AtomicU64>,
    /// How many BYEs are still to be answered as an edge without a core does.
    pub(crate) byes_to_refuse: Arc<AtomicU64>,
}

struct Core {
    algorithm: Algorithm,
    flows: Mutex<Vec<Flow>>,
    bindings: Mutex<HashMap<String, usize>>,
    seen: Arc<AtomicU64>,
    byes_to_refuse: Arc<AtomicU64>,
    /// Every how-manieth datagram is lost; 0 for none.
    lose_every: u64,
}

impl Exchange {
    pub(crate) async fn start(algorithm: Algorithm, lose_every: u64) -> Self {
        let (seen, byes_to_refuse) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let core = Arc::new(Core {
            algorithm,
            flows: Mutex::default(),
            bindings: Mutex::default(),
            seen: Arc::clone(&seen),
            byes_to_refuse: Arc::clone(&byes_to_refuse),
            lose_every,
        });
        let (trust, acceptor) = certificates();
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.expect("a port"));
        let udp = socket.local_addr().expect("bound");
        tokio::spawn(serve_udp(Arc::clone(&core), socket));
        let mut addresses = Vec::new();
        for kind in ["tcp", "tls", "wss"] {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            addresses.push(listener.local_addr().expect("bound"));
            let (core, acceptor) = (Arc::clone(&core), acceptor.clone());
            tokio::spawn(async move {
                loop {
                    let (stream, _) = listener.accept().await.expect("a connection");
                    let (core, acceptor) = (Arc::clone(&core), acceptor.clone());
                    tokio::spawn(async move {
                        match kind {
                            "tcp" => serve_stream(core, stream).await,
                            "tls" => serve_stream(core, acceptor.accept(stream).await.expect("tls")).await,
                            _ => serve_websocket(core, acceptor.accept(stream).await.expect("tls")).await,
                        }
                    });
                }
            });
        }
        Self { udp, tcp: addresses[0], tls: addresses[1], wss: addresses[2], trust, seen, byes_to_refuse }
    }
}

fn certificates() -> (Trust, TlsAcceptor) {
    let mut authority = CertificateParams::new(Vec::new()).expect("no names");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority =
        CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key")).expect("signed");
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(vec![DOMAIN.to_owned()]).expect("a name");
    let leaf = leaf.signed_by(&key, &authority).expect("signed");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key.into())
        .expect("a certificate");
    let trust = Trust::from_pem(authority.pem().as_bytes()).expect("an authority");
    (trust, TlsAcceptor::from(Arc::new(config)))
}

impl Core {
    fn open(&self, flow: Flow) -> usize {
        let mut flows = self.flows.lock().expect("whole");
        flows.push(flow);
        flows.len() - 1
    }

    fn send(&self, flow: usize, bytes: Vec<u8>) {
        let flow = self.flows.lock().expect("whole").get(flow).cloned();
        if let Some(flow) = flow {
            drop(flow.try_send(bytes));
        }
    }

    fn take(&self, bytes: Vec<u8>, from: usize) {
        self.seen.fetch_add(1, Ordering::Relaxed);
        let message = OwnedMessage::parse(bytes, &Limits::default()).expect("phones write well");
        message.check().expect("phones write well");
        if !message.is_request() {
            let branch = message.top_via().and_then(|via| via.branch()).unwrap_or_default().to_owned();
            let to = branch.rsplit('f').next().and_then(|flow| flow.parse().ok()).expect("our branch");
            return self.send(to, Edit::new(&message).remove_top(HeaderName::Via).finish());
        }
        if message.method() == "REGISTER" {
            let answer = self.register(&message, from);
            return self.send(from, answer);
        }
        let refuse = |left: u64| left.checked_sub(1);
        if message.method() == "BYE"
            && self.byes_to_refuse.fetch_update(Ordering::Relaxed, Ordering::Relaxed, refuse).is_ok()
        {
            let retry_after = [(HeaderName::RetryAfter, "0")];
            return self.send(from, build::response_to(&message, 503, None, Some("x"), &retry_after));
        }
        let user = message.uri().and_then(|uri| uri.user().map(str::to_owned)).unwrap_or_default();
        let to = self.bindings.lock().expect("whole").get(&user).copied();
        match to {
            Some(to) => {
                // Deterministic, so that retransmissions and CANCEL land in the same transaction.
                let theirs = message.top_via().and_then(|via| via.branch()).unwrap_or_default().to_owned();
                let via = format!("SIP/2.0/UDP exchange;branch={theirs}f{from}");
                let forwarded =
                    Edit::new(&message).prepend(HeaderName::Via, &via).set_max_forwards(69).finish();
                self.send(to, forwarded);
            }
            None if message.method() == "ACK" => {}
            None => self.send(from, build::response_to(&message, 404, None, Some("x"), &[])),
        }
    }

    fn register(&self, request: &OwnedMessage, from: usize) -> Vec<u8> {
        let user = request.to().and_then(|to| to.uri.user().map(str::to_owned)).expect("a user");
        let credentials =
            request.header(HeaderName::Authorization).and_then(|value| Credentials::parse(value).ok());
        let is_known = credentials.is_some_and(|credentials| {
            KEY.check(DOMAIN, &credentials.nonce, NOW, 60) == Nonce::Fresh
                && credentials.verify("REGISTER", &self.algorithm.ha1(&user, DOMAIN, PASSWORD))
        });
        if !is_known {
            let challenge =
                Challenge::new(DOMAIN, KEY.issue(DOMAIN, NOW, 1), self.algorithm, false).to_string();
            return build::response_to(
                request,
                401,
                None,
                Some("r"),
                &[(HeaderName::WwwAuthenticate, &challenge)],
            );
        }
        let seconds = request.expires_seconds().expect("phones say how long");
        let mut bindings = self.bindings.lock().expect("whole");
        if seconds == 0 {
            bindings.remove(&user);
            return build::response_to(request, 200, None, Some("r"), &[]);
        }
        bindings.insert(user, from);
        let contact = request.header_text(HeaderName::Contact).expect("a contact");
        let contact = format!("{contact};expires={}", seconds.min(120));
        build::response_to(request, 200, None, Some("r"), &[(HeaderName::Contact, &contact)])
    }
}

async fn serve_udp(core: Arc<Core>, socket: Arc<UdpSocket>) {
    let mut flows: HashMap<SocketAddr, usize> = HashMap::new();
    let mut buffer = vec![0; 65_535];
    let mut datagrams = 0;
    loop {
        let Ok((size, peer)) = socket.recv_from(&mut buffer).await else { continue };
        datagrams += 1;
        if size <= 4 || (core.lose_every > 0 && datagrams % core.lose_every == 0) {
            continue;
        }
        let flow = *flows.entry(peer).or_insert_with(|| {
            let (sender, mut queue) = mpsc::channel::<Vec<u8>>(64);
            let socket = Arc::clone(&socket);
            tokio::spawn(async move {
                while let Some(bytes) = queue.recv().await {
                    drop(socket.send_to(&bytes, peer).await);
                }
            });
            core.open(sender)
        });
        core.take(buffer[..size].to_vec(), flow);
    }
}

async fn serve_stream<S: AsyncRead + AsyncWrite + Send + 'static>(core: Arc<Core>, stream: S) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let (sender, mut queue) = mpsc::channel::<Vec<u8>>(64);
    tokio::spawn(async move {
        while let Some(bytes) = queue.recv().await {
            drop(writer.write_all(&bytes).await);
        }
    });
    let flow = core.open(sender);
    let mut framer = Framer::new(Limits::default());
    let mut buffer = vec![0; 4096];
    while let Ok(size @ 1..) = reader.read(&mut buffer).await {
        framer.push(&buffer[..size]);
        while let Some(frame) = framer.next_frame().expect("phones frame well") {
            match frame {
                Frame::Message(bytes) => core.take(bytes, flow),
                Frame::Ping => core.send(flow, Framer::PONG.to_vec()),
                Frame::Pong => {}
            }
        }
    }
}

async fn serve_websocket<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(core: Arc<Core>, stream: S) {
    #[expect(clippy::result_large_err, reason = "the library's callback")]
    let protocol = |request: &Request, mut response: Response| {
        let asked = request.headers().get("Sec-WebSocket-Protocol").expect("phones ask for it").clone();
        assert_eq!(asked, "sip");
        response.headers_mut().insert("Sec-WebSocket-Protocol", asked);
        Ok(response)
    };
    let socket = tokio_tungstenite::accept_hdr_async(stream, protocol).await.expect("a handshake");
    let (mut sink, mut stream) = socket.split();
    let (sender, mut queue) = mpsc::channel::<Vec<u8>>(64);
    tokio::spawn(async move {
        while let Some(bytes) = queue.recv().await {
            let text = String::from_utf8(bytes).expect("text");
            drop(sink.send(WebSocketMessage::text(text)).await);
        }
    });
    let flow = core.open(sender);
    while let Some(Ok(message)) = stream.next().await {
        if let WebSocketMessage::Text(text) = message {
            core.take(text.as_bytes().to_vec(), flow);
        }
    }
}
