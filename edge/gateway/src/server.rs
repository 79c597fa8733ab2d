//! Pingora, fenced: one named thread that runs its server with our shutdown signal, our listeners and our drain.
//!
//! Pingora never listens, never handles a signal, never writes a pid file or an upgrade socket, never exits the
//! process. What we take from it is its runtime and its HTTP engine (ADR 0002).

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::OnceLock;

use async_trait::async_trait;
use belfry_mesh::Links;
use belfry_signalling::handle::{FromEdge, ToEdge};
use pingora_core::server::configuration::ServerConf;
use pingora_core::server::{ListenFds, RunArgs, Server, ShutdownSignal, ShutdownSignalWatch, ShutdownWatch};
use pingora_core::services::Service;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::admission::ListenerCount;
use crate::config::{ListenerConfig, ListenerKind};
use crate::core_links;
use crate::edge::Edge;
use crate::error::Error;
use crate::flows::UdpDoor;
use crate::http::{self, HttpEngine};
use crate::listener::Listener;
use crate::signals::ListenerName;
use crate::sip_udp;

/// Pending connections in the kernel; what does not fit is retried by the client's TCP.
const BACKLOG: i32 = 1_024;

/// Kernel memory of one UDP socket, each way.
const DATAGRAM_BUFFER_BYTES: usize = 4 << 20;

/// A bound socket of a listener, before there is a runtime to poll it.
pub(crate) struct Bound {
    pub(crate) name: ListenerName,
    pub(crate) tag: u32,
    pub(crate) config: ListenerConfig,
    pub(crate) address: SocketAddr,
    /// Connections that speak HTTP.
    pub(crate) http_open: ListenerCount,
    socket: Socket,
}

/// Everything that runs on Pingora's runtime.
pub(crate) struct EdgeService {
    pub(crate) edge: Arc<Edge>,
    pub(crate) threads: usize,
    pub(crate) bound: Vec<Bound>,
    pub(crate) tls: TlsAcceptors,
    pub(crate) links: Option<Links<FromEdge, ToEdge>>,
    /// Where the mesh runs, and the core when it is in this process: datagrams and what the core says are served there.
    pub(crate) near_core: Handle,
    pub(crate) conf: Arc<ServerConf>,
    pub(crate) shutdown: watch::Receiver<bool>,
    /// Where the handle finds the engine, to drain it.
    pub(crate) engine: Arc<OnceLock<HttpEngine>>,
}

/// TLS settings by what is spoken inside.
#[derive(Clone)]
pub(crate) struct TlsAcceptors {
    pub(crate) sniff: TlsAcceptor,
    pub(crate) sip: TlsAcceptor,
}

/// Tells Pingora to end when we say so.
struct OurSignal(CancellationToken);

#[async_trait]
impl ShutdownSignalWatch for OurSignal {
    async fn recv(&self) -> ShutdownSignal {
        self.0.cancelled().await;
        // Our drain is over by now; Pingora's own would only sleep.
        ShutdownSignal::FastShutdown
    }
}

/// Binds a listener.
///
/// # Errors
/// When the address is taken or not ours.
pub(crate) fn bind(config: &ListenerConfig, name: ListenerName, tag: u32) -> Result<Bound, Error> {
    let bind = || -> std::io::Result<(Socket, SocketAddr)> {
        let domain = Domain::for_address(config.address);
        let is_udp = config.kind == ListenerKind::SipUdp;
        let (kind, protocol) =
            if is_udp { (Type::DGRAM, Protocol::UDP) } else { (Type::STREAM, Protocol::TCP) };
        let socket = Socket::new(domain, kind, Some(protocol))?;
        socket.set_nonblocking(true)?;
        if domain == Domain::IPV6 {
            socket.set_only_v6(true)?;
        }
        if is_udp {
            // Best effort: bursts of registrations after an outage are larger than the default buffer.
            let _ = socket.set_recv_buffer_size(DATAGRAM_BUFFER_BYTES);
            let _ = socket.set_send_buffer_size(DATAGRAM_BUFFER_BYTES);
        } else {
            // A restart must not wait for old connections to time out.
            socket.set_reuse_address(true)?;
        }
        socket.bind(&config.address.into())?;
        if !is_udp {
            socket.listen(BACKLOG)?;
        }
        let address = socket.local_addr()?.as_socket().unwrap_or(config.address);
        Ok((socket, address))
    };
    let (socket, address) = bind().map_err(|source| Error::Bind {
        listener: config.name.clone(),
        address: config.address,
        source,
    })?;
    Ok(Bound { name, tag, config: config.clone(), address, http_open: ListenerCount::default(), socket })
}

/// Pingora's settings: nothing that touches the process or the shared temporary directory.
pub(crate) fn server_conf(threads: usize, private_directory: &Path) -> ServerConf {
    let private = |name: &str| private_directory.join(name).display().to_string();
    ServerConf {
        threads,
        daemon: false,
        pid_file: private("pingora.pid"),
        upgrade_sock: private("pingora-upgrade.sock"),
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    }
}

/// Starts the thread; `finished` turns true when it ends.
///
/// # Errors
/// When the thread cannot be started.
pub(crate) fn spawn(
    service: EdgeService,
    conf: ServerConf,
    stop: CancellationToken,
    finished: watch::Sender<bool>,
) -> Result<(), Error> {
    let run = move || {
        let mut server = Server::new_with_opt_and_conf(None, conf);
        server.add_service(service);
        server.run(RunArgs { shutdown_signal: Box::new(OurSignal(stop)) });
        // Whoever waits for this may be gone already.
        let _ = finished.send(true);
    };
    std::thread::Builder::new().name("edge-pingora".to_owned()).spawn(run).map_err(Error::Runtime)?;
    Ok(())
}

#[async_trait]
impl Service for EdgeService {
    async fn start_service(
        &mut self,
        _fds: Option<ListenFds>,
        _shutdown: ShutdownWatch,
        _listeners_per_fd: usize,
    ) {
        let engine = http::engine(&self.conf, &self.edge);
        // The service starts once, so the slot is empty.
        let _ = self.engine.set(Arc::clone(&engine));
        let mut doors = Vec::new();
        for bound in self.bound.drain(..) {
            let address = bound.address;
            self.edge.signals.started(&bound.name, address);
            if bound.config.kind == ListenerKind::SipUdp {
                let socket = Arc::new(UdpSocket::from(bound.socket));
                let is_ipv4 = address.is_ipv4();
                doors.push(UdpDoor { listener: bound.tag, socket: Arc::clone(&socket), is_ipv4 });
                let receiving = sip_udp::receive(Arc::clone(&self.edge), bound.name, bound.tag, socket);
                self.near_core.spawn(receiving);
            } else {
                let listener = Listener {
                    edge: Arc::clone(&self.edge),
                    bytes: self.edge.signals.byte_counters(&bound.name),
                    name: bound.name,
                    tag: bound.tag,
                    kind: bound.config.kind,
                    tls: self.tls.of(bound.config.kind),
                    proxy_protocol_from: bound.config.proxy_protocol_from,
                    open: ListenerCount::default(),
                    http_open: bound.http_open,
                    http: Arc::clone(&engine),
                    shutdown: self.shutdown.clone(),
                };
                let Ok(socket) = TcpListener::from_std(bound.socket.into()) else { continue };
                tokio::spawn(Arc::new(listener).accept(socket));
            }
        }
        self.edge.flows.set_udp_doors(doors);
        if let Some(links) = self.links.take() {
            self.near_core.spawn(core_links::run(Arc::clone(&self.edge), links));
        }
        self.edge.stopping.cancelled().await;
    }

    fn name(&self) -> &'static str {
        "edge"
    }

    fn threads(&self) -> Option<usize> {
        Some(self.threads)
    }
}

impl TlsAcceptors {
    fn of(&self, kind: ListenerKind) -> Option<TlsAcceptor> {
        match kind {
            ListenerKind::TlsSniff => Some(self.sniff.clone()),
            ListenerKind::SipTls => Some(self.sip.clone()),
            ListenerKind::SipTcp | ListenerKind::SipUdp | ListenerKind::Http => None,
        }
    }
}
