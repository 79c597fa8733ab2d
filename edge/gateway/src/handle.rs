//! Starting the edge, and what the front door may do with it afterwards.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use belfry_mesh::{Mesh, Service};
use belfry_signal::{Registry, TraceKey};
use belfry_signalling::handle::{PublicAddress, Transport};
use pingora_core::apps::ServerApp as _;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::admission::{Admission, ListenerCount};
use crate::bans::Bans;
use crate::certificates::{self, AUTHORITY_FILE, Certificates, Snapshot};
use crate::config::{Config, ListenerKind};
use crate::cores::Cores;
use crate::edge::Edge;
use crate::error::Error;
use crate::flow_token::FlowKey;
use crate::flows::Flows;
use crate::geography::Geography;
use crate::http::HttpEngine;
use crate::routes::Routes;
use crate::server::{self, Bound, EdgeService, TlsAcceptors};
use crate::signals::{ListenerName, Signals};
use crate::sip_text;

/// What the edge is given by the front door.
#[derive(Clone)]
pub struct GatewayDeps {
    /// Where its signals go.
    pub registry: Registry,
    /// The way to the cores.
    pub mesh: Mesh,
    /// The site's key for trace ids.
    pub trace_key: TraceKey,
}

impl std::fmt::Debug for GatewayDeps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GatewayDeps").finish_non_exhaustive()
    }
}

/// The edge. See [`Gateway::start`].
#[derive(Debug)]
pub struct Gateway;

/// A running edge. Cheap to clone.
#[derive(Clone)]
pub struct GatewayHandle {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for GatewayHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GatewayHandle").field("addresses", &self.addresses()).finish_non_exhaustive()
    }
}

struct Inner {
    edge: Arc<Edge>,
    listeners: Vec<ListenerState>,
    authority_file: Option<std::path::PathBuf>,
    engine: Arc<OnceLock<HttpEngine>>,
    shutdown: watch::Sender<bool>,
    stop: CancellationToken,
    finished: watch::Receiver<bool>,
}

struct ListenerState {
    name: ListenerName,
    address: SocketAddr,
    http_open: ListenerCount,
}

/// How often a drain looks whether the last connection has gone.
const DRAIN_STEP: Duration = Duration::from_millis(20);

impl Gateway {
    /// Binds all listeners, loads certificates, GeoIP file and keys, and starts the thread that carries everything.
    /// Must be called inside a tokio runtime, which the mesh uses and which carries SIP over UDP; connections run on
    /// Pingora's.
    ///
    /// # Errors
    /// When the configuration contradicts itself, an address cannot be bound, or a file cannot be used. Nothing
    /// runs then.
    pub fn start(config: Config, deps: GatewayDeps) -> Result<GatewayHandle, Error> {
        if let Some((key, problem)) = config.check().into_iter().next() {
            return Err(Error::Config { key, problem });
        }
        let signals = Signals::register(&deps.registry, deps.trace_key.clone());
        let bound = bind_all(&config)?;
        let (edge, tls) = build(&config, &deps, &signals, &bound)?;
        let listeners = bound
            .iter()
            .map(|bound| ListenerState {
                name: bound.name.clone(),
                address: bound.address,
                http_open: bound.http_open.clone(),
            })
            .collect();
        let (shutdown, shutdown_seen) = watch::channel(false);
        let (finished_sender, finished) = watch::channel(false);
        let engine = Arc::new(OnceLock::new());
        let stop = CancellationToken::new();
        let service = EdgeService {
            edge: Arc::clone(&edge),
            threads: config.threads,
            bound,
            tls,
            links: Some(deps.mesh.dial(Service::Signalling)),
            near_core: Handle::current(),
            conf: Arc::new(server::server_conf(config.threads, &config.tls.directory)),
            shutdown: shutdown_seen,
            engine: Arc::clone(&engine),
        };
        let conf = server::server_conf(config.threads, &config.tls.directory);
        server::spawn(service, conf, stop.clone(), finished_sender)?;
        let is_own = config.tls.certificates.is_empty();
        let authority_file = is_own.then(|| config.tls.directory.join(AUTHORITY_FILE));
        let inner = Inner { edge, listeners, authority_file, engine, shutdown, stop, finished };
        Ok(GatewayHandle { inner: Arc::new(inner) })
    }
}

impl GatewayHandle {
    /// Where the edge listens, with the ports that it got.
    #[must_use]
    pub fn addresses(&self) -> Vec<(ListenerName, SocketAddr)> {
        self.inner.listeners.iter().map(|listener| (listener.name.clone(), listener.address)).collect()
    }

    /// The certificate (PEM) that clients must trust, when the edge uses its local CA.
    #[must_use]
    pub fn authority_file(&self) -> Option<&std::path::Path> {
        self.inner.authority_file.as_deref()
    }

    /// Whether the thread that carries the connections is alive, for readiness.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let finished = &self.inner.finished;
        // The sender is gone without a word only when the thread died.
        finished.has_changed().is_ok() && !*finished.borrow()
    }

    /// Where a customer at `ip` belongs and why, step by step in words.
    #[must_use]
    pub fn explain(&self, ip: IpAddr) -> Vec<String> {
        self.inner.edge.geography.load().explain(ip)
    }

    /// Returns when the first core is linked, so that nobody is told 503 only because we have just started.
    pub async fn first_core(&self) {
        self.inner.edge.cores.first().await;
    }

    /// Connections to SIP clients that are open now.
    #[must_use]
    pub fn sip_flows(&self) -> usize {
        self.inner.edge.flows.count()
    }

    /// Swaps certificates, GeoIP file, steering and HTTP routes; no connection is touched. Reads files, so it
    /// belongs on a blocking thread when the disk may be slow.
    ///
    /// # Errors
    /// When anything in the new configuration cannot be used: then everything stays as it was.
    pub fn reload(&self, config: &Config) -> Result<(), Error> {
        let edge = &self.inner.edge;
        match prepare_reload(config, &edge.signals) {
            Ok((geography, snapshot, outbound_tls)) => {
                edge.geography.store(Arc::new(geography));
                edge.certificates.swap(snapshot);
                edge.outbound_tls.store(outbound_tls);
                edge.routes.store(Arc::new(Routes::new(&config.http)));
                edge.signals.reloaded();
                Ok(())
            }
            Err(error) => {
                edge.signals.reload_refused(&error);
                Err(error)
            }
        }
    }

    /// Takes no new connections, lets HTTP requests finish and closes idle HTTP connections. SIP flows and UDP stay
    /// served, because the core still finishes dialogs over them: [`GatewayHandle::stop`] ends those.
    ///
    /// Returns what was still open at the deadline. The handle may be dropped after that; the flows stay served until
    /// the process ends.
    pub async fn drain(&self, deadline: Duration) -> Vec<String> {
        let inner = &self.inner;
        let until = Instant::now() + deadline;
        inner.edge.signals.drain_started();
        inner.edge.draining.cancel();
        // Nobody listens when no connection is open.
        let _ = inner.shutdown.send(true);
        loop {
            if let Some(engine) = inner.engine.get() {
                // Again each time: a connection may just have become idle.
                engine.cleanup().await;
            }
            let open = inner.listeners.iter().filter(|listener| listener.http_open.open() > 0);
            let stragglers: Vec<String> = open
                .map(|listener| {
                    format!("edge: {} HTTP connections on {}", listener.http_open.open(), listener.name)
                })
                .collect();
            let is_shut = inner.edge.accepting.open() == 0;
            if (is_shut && stragglers.is_empty()) || Instant::now() >= until {
                return stragglers;
            }
            sleep(DRAIN_STEP).await;
        }
    }

    /// Ends all flows and the edge's thread, once the core has finished its dialogs. Returns what did not end in
    /// time.
    pub async fn stop(&self, deadline: Duration) -> Vec<String> {
        let inner = &self.inner;
        let until = Instant::now() + deadline;
        inner.edge.draining.cancel();
        inner.edge.flows.close_all();
        while inner.edge.flows.count() > 0 && Instant::now() < until {
            sleep(DRAIN_STEP).await;
        }
        let mut stragglers = Vec::new();
        if inner.edge.flows.count() > 0 {
            stragglers.push(format!("edge: {} SIP connections", inner.edge.flows.count()));
        }
        inner.edge.stopping.cancel();
        inner.stop.cancel();
        let mut finished = inner.finished.clone();
        let left = until.saturating_duration_since(Instant::now()).max(DRAIN_STEP);
        if timeout(left, finished.wait_for(|finished| *finished)).await.is_err() {
            stragglers.push("edge: runtime".to_owned());
        }
        inner.edge.signals.stopped();
        stragglers
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // After a drain the flows stay served for as long as the process lives: the core may still be finishing its
        // dialogs over them. Otherwise nobody without a handle could ever stop the thread.
        if !self.edge.draining.is_cancelled() {
            self.edge.stopping.cancel();
            self.stop.cancel();
        }
    }
}

fn bind_all(config: &Config) -> Result<Vec<Bound>, Error> {
    let mut all = Vec::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        let name = ListenerName::configured(&listener.name).map_err(|error| Error::Config {
            key: format!("listeners[{index}].name"),
            problem: error.to_string(),
        })?;
        all.push(server::bind(listener, name, listener_tag(&listener.name))?);
    }
    Ok(all)
}

/// Names a listener in flow tokens, independent of its place in the configuration.
fn listener_tag(name: &str) -> u32 {
    (sip_text::hash(name.as_bytes(), b"listener") >> 32) as u32
}

fn build(
    config: &Config,
    deps: &GatewayDeps,
    signals: &Signals,
    bound: &[Bound],
) -> Result<(Arc<Edge>, TlsAcceptors), Error> {
    let certificates = Certificates::new(Snapshot::load(config, signals)?);
    let sessions_max = config.limits.tls_sessions_max;
    let acceptor = |protocols: &[&[u8]], clients| {
        certificates::server_config(&certificates, protocols, sessions_max, clients).map(TlsAcceptor::from)
    };
    let tls = TlsAcceptors {
        sniff: acceptor(&[b"h2", b"http/1.1", b"sip/2"], None)?,
        sip: acceptor(&[], certificates::client_verifier(&config.tls)?)?,
    };
    let flow_key = FlowKey::load(&config.sip.flow_key_file)?;
    let limits = &config.limits;
    let edge = Edge {
        node: deps.registry.emitter().resource().node.clone(),
        signals: signals.clone(),
        limits: limits.clone(),
        timeouts: config.timeouts.clone(),
        sip: config.sip.clone(),
        admission: Admission::new(limits),
        handshakes: Semaphore::new(limits.handshakes_max),
        certificates,
        geography: ArcSwap::from_pointee(Geography::load(config, signals)?),
        routes: ArcSwap::from_pointee(Routes::new(&config.http)),
        outbound_tls: ArcSwap::new(certificates::client_config(&config.tls)?),
        flows: Flows::new(flow_key, limits, signals.clone()),
        bans: Bans::new(limits.sip_bans_max),
        cores: Cores::new(signals.clone()),
        public_addresses: public_addresses(bound),
        accepting: ListenerCount::default(),
        draining: CancellationToken::new(),
        stopping: CancellationToken::new(),
    };
    Ok((Arc::new(edge), tls))
}

type Reloaded = (Geography, Snapshot, Arc<rustls::ClientConfig>);

/// Everything that can fail, before anything is swapped.
fn prepare_reload(config: &Config, signals: &Signals) -> Result<Reloaded, Error> {
    if let Some((key, problem)) = config.check().into_iter().next() {
        return Err(Error::Config { key, problem });
    }
    let geography = Geography::load(config, signals)?;
    let snapshot = Snapshot::load(config, signals)?;
    Ok((geography, snapshot, certificates::client_config(&config.tls)?))
}

/// The first listener of each transport is the one that customers are told of; a port for SIP alone before one that
/// sniffs.
fn public_addresses(bound: &[Bound]) -> Vec<PublicAddress> {
    let kinds = [
        (ListenerKind::SipUdp, Transport::Udp),
        (ListenerKind::SipTcp, Transport::Tcp),
        (ListenerKind::SipTls, Transport::Tls),
        (ListenerKind::TlsSniff, Transport::Tls),
        (ListenerKind::TlsSniff, Transport::Wss),
        (ListenerKind::Http, Transport::Ws),
    ];
    let mut addresses: Vec<PublicAddress> = Vec::new();
    for (kind, transport) in kinds {
        let listener = bound.iter().find(|bound| bound.config.kind == kind);
        let is_known = addresses.iter().any(|address| address.transport == transport);
        if let Some(listener) = listener.filter(|_| !is_known) {
            let host = listener.config.public_host.clone().unwrap_or_else(|| match listener.address {
                SocketAddr::V4(address) => address.ip().to_string(),
                SocketAddr::V6(address) => format!("[{}]", address.ip()),
            });
            let port = listener.config.public_port.unwrap_or(listener.address.port());
            addresses.push(PublicAddress { transport, host, port });
        }
    }
    addresses
}
