//! A customer's connection from accept to the endpoint that speaks with it: admission, PROXY header, TLS, first bytes.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use belfry_signalling::handle::Transport;
use bytes::BytesMut;
use ipnet::IpNet;
use pingora_core::apps::ServerApp as _;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::TlsAcceptor;

use crate::admission::{ListenerCount, Place};
use crate::certificates::proven_names;
use crate::config::ListenerKind;
use crate::edge::Edge;
use crate::http::HttpEngine;
use crate::peer::Peer;
use crate::proxy_header;
use crate::signals::{ByteCounters, Handshake, Limit, ListenerName, Malformed};
use crate::sip_stream;
use crate::sip_websocket;
use crate::sniff::{self, Spoken, Unknown};
use crate::stream::{Connection, EdgeStream, HeaderClock, Socket};

/// How long to wait before accepting again when the process has no file descriptor left.
const NO_DESCRIPTOR_PAUSE: Duration = Duration::from_millis(100);

/// An HTTP/1.1 request header may not be longer, as Pingora has it for h2: its own bound for HTTP/1.1 is 1 MiB, which
/// a flood could fill on every connection until the header deadline.
const HTTP_HEADER_BYTES_MAX: usize = 64 * 1024;

/// Between two probes of a silent peer, and how many of them it may leave unanswered.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;

/// One listener for connections.
#[derive(Clone)]
pub(crate) struct Listener {
    pub(crate) edge: Arc<Edge>,
    pub(crate) name: ListenerName,
    /// The hash of the name, as in flow tokens.
    pub(crate) tag: u32,
    pub(crate) kind: ListenerKind,
    pub(crate) proxy_protocol_from: Vec<IpNet>,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) bytes: ByteCounters,
    pub(crate) open: ListenerCount,
    /// Connections that speak HTTP, which a drain waits for.
    pub(crate) http_open: ListenerCount,
    pub(crate) http: HttpEngine,
    /// Turns true when the edge drains: HTTP connections finish what they do and close.
    pub(crate) shutdown: watch::Receiver<bool>,
}

impl Listener {
    /// Accepts until the edge drains.
    pub(crate) async fn accept(self: Arc<Self>, socket: TcpListener) {
        let _accepting = self.edge.accepting.hold();
        loop {
            let accepted = tokio::select! {
                () = self.edge.draining.cancelled() => {
                    // Before the count falls: a drain that has seen it fall may say that nobody listens.
                    drop(socket);
                    return;
                }
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, remote)) => match self.edge.admission.enter(&self.open) {
                    Ok(place) => {
                        tokio::spawn(Arc::clone(&self).serve(stream, remote, place));
                    }
                    // Dropped before a byte is read: a flood costs one accept each and no memory.
                    Err(limit) => self.edge.signals.limit_hit(&self.name, limit),
                },
                Err(error) if is_exhaustion(&error) => {
                    self.edge.signals.limit_hit(&self.name, Limit::FileDescriptors);
                    sleep(NO_DESCRIPTOR_PAUSE).await;
                }
                // The client was gone before we looked.
                Err(_) => {}
            }
        }
    }

    async fn serve(self: Arc<Self>, mut stream: TcpStream, remote: SocketAddr, _place: Place) {
        let signals = &self.edge.signals;
        let _open = signals.connection_accepted(&self.name);
        let until = Instant::now() + self.edge.timeouts.handshake;
        if stream.set_nodelay(true).is_err() {
            return;
        }
        keep_probing(&stream, self.edge.timeouts.tcp_keepalive);
        let Some(address) = self.customer(&mut stream, remote, until).await else { return };
        let _client = match self.edge.admission.enter_client(address.ip()) {
            Ok(place) => place,
            Err(limit) => return signals.limit_hit(&self.name, limit),
        };
        let mut peer = self.edge.geography.load().place(&self.name, address, self.tls.is_some());
        let socket = match &self.tls {
            None => Some(Socket::Plain(stream)),
            Some(tls) => self.shake_hands(tls, stream, until, &peer).await,
        };
        let Some(socket) = socket else { return };
        if let Socket::Server(stream) = &socket {
            peer.names = proven_names(stream.get_ref().1.peer_certificates().unwrap_or_default());
        }
        let stream = EdgeStream::new(socket, self.bytes.clone());
        match self.kind {
            ListenerKind::SipTcp => self.serve_sip(peer, Transport::Tcp, stream).await,
            ListenerKind::SipTls => self.serve_sip(peer, Transport::Tls, stream).await,
            ListenerKind::TlsSniff | ListenerKind::Http => self.serve_spoken(peer, stream).await,
            // Has no connections.
            ListenerKind::SipUdp => {}
        }
    }

    /// The customer's address: the peer's, or what its PROXY header says when it comes from a configured network.
    async fn customer(
        &self,
        stream: &mut TcpStream,
        remote: SocketAddr,
        until: Instant,
    ) -> Option<SocketAddr> {
        let ip: IpAddr = remote.ip().to_canonical();
        if !self.proxy_protocol_from.iter().any(|network| network.contains(&ip)) {
            return Some(remote);
        }
        match timeout_at(until, proxy_header::read(stream)).await {
            Ok(Ok(source)) => Some(source.unwrap_or(remote)),
            Ok(Err(_)) => {
                self.edge.signals.input_malformed(&self.name, Malformed::ProxyHeader, remote);
                None
            }
            Err(_) => {
                self.edge.signals.limit_hit(&self.name, Limit::ProxyHeaderTime);
                None
            }
        }
    }

    async fn shake_hands(
        &self,
        tls: &TlsAcceptor,
        stream: TcpStream,
        until: Instant,
        peer: &Peer,
    ) -> Option<Socket> {
        let signals = &self.edge.signals;
        let Ok(_permit) = self.edge.handshakes.try_acquire() else {
            signals.limit_hit(&self.name, Limit::Handshakes);
            return None;
        };
        let start = Instant::now();
        let shaken = timeout_at(until, tls.accept(stream)).await;
        let elapsed = start.elapsed();
        let (outcome, socket) = match shaken {
            Ok(Ok(stream)) => {
                let is_resumed = stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
                let outcome = if is_resumed { Handshake::Resumed } else { Handshake::Done };
                (outcome, Some(Socket::Server(Box::new(stream))))
            }
            Ok(Err(error)) => (handshake_failure(&error), None),
            Err(_) => (Handshake::TimedOut, None),
        };
        signals.handshake_ended(&peer.listener, outcome, elapsed);
        socket
    }

    /// Finds out what is spoken, within the header deadline, and hands the connection on.
    async fn serve_spoken(&self, peer: Peer, mut stream: EdgeStream) {
        let until = Instant::now() + self.edge.timeouts.header;
        let agreed = match stream.agreed_protocol() {
            Some(b"h2") => Some(Spoken::Http2),
            Some(b"sip/2") => Some(Spoken::Sip),
            _ => None,
        };
        let spoken = match agreed {
            Some(spoken) => spoken,
            None => {
                let mut first_bytes = BytesMut::new();
                let sniffed = sniff::sniff(&mut stream, &mut first_bytes, &self.edge.sip.websocket_path);
                let sniffed = timeout_at(until, sniffed).await;
                stream.unread(first_bytes);
                match sniffed {
                    Ok(Ok(spoken)) => spoken,
                    Ok(Err(Unknown::CutShort)) => return,
                    Ok(Err(Unknown::Malformed)) => return self.give_up(&peer, Malformed::FirstBytes),
                    Err(_) => return self.edge.signals.limit_hit(&self.name, Limit::HeaderTime),
                }
            }
        };
        match spoken {
            Spoken::Http1 => self.serve_http(peer, stream, until, false).await,
            Spoken::Http2 => self.serve_http(peer, stream, until, true).await,
            Spoken::SipWebSocket => self.serve_websocket(peer, stream, until).await,
            Spoken::Sip if peer.is_secure => self.serve_sip(peer, Transport::Tls, stream).await,
            Spoken::Sip => self.give_up(&peer, Malformed::FirstBytes),
        }
    }

    async fn serve_http(&self, peer: Peer, stream: EdgeStream, until: Instant, is_h2: bool) {
        let _open = self.http_open.hold();
        let bytes_max = if is_h2 { usize::MAX } else { HTTP_HEADER_BYTES_MAX };
        let clock = HeaderClock::armed(until, self.edge.timeouts.header, bytes_max);
        let connection = Arc::new(Connection { peer, clock });
        let Ok(stream) = stream.for_http(Arc::clone(&connection), is_h2) else { return };
        self.http.process_new(Box::new(stream), &self.shutdown).await;
        if connection.clock.is_expired() {
            self.edge.signals.limit_hit(&self.name, Limit::HeaderTime);
        } else if connection.clock.is_too_long() {
            self.edge.signals.limit_hit(&self.name, Limit::HeaderBytes);
        } else if connection.clock.is_reading() {
            self.give_up(&connection.peer, Malformed::HttpRequest);
        }
    }

    async fn serve_websocket(&self, peer: Peer, stream: EdgeStream, until: Instant) {
        let transport = if peer.is_secure { Transport::Wss } else { Transport::Ws };
        let opening = sip_websocket::accept(stream, self.edge.limits.sip_message_bytes_max);
        let Ok(Some(socket)) = timeout_at(until, opening).await else {
            return self.give_up(&peer, Malformed::WebSocket);
        };
        match self.edge.flows.open(transport, self.tag, peer.address) {
            Ok(flow) => sip_websocket::carry(&self.edge, &peer, transport, socket, flow).await,
            Err(limit) => self.edge.signals.limit_hit(&self.name, limit),
        }
    }

    async fn serve_sip(&self, peer: Peer, transport: Transport, stream: EdgeStream) {
        match self.edge.flows.open(transport, self.tag, peer.address) {
            Ok(flow) => sip_stream::carry(&self.edge, &peer, transport, stream, flow).await,
            Err(limit) => self.edge.signals.limit_hit(&self.name, limit),
        }
    }

    fn give_up(&self, peer: &Peer, reason: Malformed) {
        self.edge.signals.input_malformed(&self.name, reason, peer.address);
    }
}

fn is_exhaustion(error: &io::Error) -> bool {
    // EMFILE and ENFILE, which std has no kind for.
    matches!(error.raw_os_error(), Some(23 | 24))
}

fn handshake_failure(error: &io::Error) -> Handshake {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    match cause {
        Some(rustls::Error::AlertReceived(_)) => Handshake::ClientRefused,
        Some(rustls::Error::PeerIncompatible(_) | rustls::Error::NoApplicationProtocol) => {
            Handshake::Incompatible
        }
        Some(
            rustls::Error::InvalidMessage(_)
            | rustls::Error::InappropriateMessage { .. }
            | rustls::Error::InappropriateHandshakeMessage { .. }
            | rustls::Error::DecryptError
            | rustls::Error::PeerMisbehaved(_)
            | rustls::Error::PeerSentOversizedRecord,
        ) => Handshake::Malformed,
        Some(_) => Handshake::Failed,
        None => Handshake::CutShort,
    }
}

/// Has the kernel probe a silent peer: a phone that lost its power or its NAT is found out long before its registration
/// ends, and its bindings go with its flow.
fn keep_probing(stream: &TcpStream, after: Duration) {
    let probes = TcpKeepalive::new().with_time(after).with_interval(PROBE_INTERVAL).with_retries(PROBES);
    // Without it the idle timeout ends the connection, only later.
    let _ = SockRef::from(stream).set_tcp_keepalive(&probes);
}
