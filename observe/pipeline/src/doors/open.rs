//! Opening all doors that the configuration names, and closing them in good order.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use belfry_door::{Access, Door, DoorHandle, Guard, Limits, TokenError, Tokens};
use belfry_signal::{Registry, TraceKey};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::config::{DoorsConfig, HttpConfig, OtlpConfig, TlsConfig};
use super::flow::Protocol;
use super::hep::Hep;
use super::intake::Intake;
use super::listen::Acceptor;
use super::otlp::Otlp;
use super::senders::SenderAccount;
use super::signals::{Entrance, Signals};
use super::syslog::Syslog;
use crate::handle::PipelineHandle;

/// Why doors could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DoorsError {
    /// An address is taken.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A door of HTTP could not be opened.
    #[error(transparent)]
    Http(#[from] belfry_door::Error),
    /// A certificate or key cannot be used.
    #[error("cannot use {path} for TLS: {what}", path = path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A file with tokens cannot be used.
    #[error(transparent)]
    Tokens(#[from] TokenError),
    /// A file cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The section is wrong; its check says so first.
    #[error("the section [observe.doors] was not checked")]
    Unchecked,
}

impl DoorsError {
    /// A bounded name for labels.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "listen",
            Self::Http(_) => "http",
            Self::Tls { .. } => "tls",
            Self::Tokens(_) => "tokens",
            Self::File { .. } => "file",
            Self::Unchecked => "unchecked",
        }
    }
}

/// What doors need of the rest of the process.
#[derive(Clone, Debug)]
pub struct DoorsDeps {
    /// Where records go.
    pub pipeline: PipelineHandle,
    /// For metrics, and for what the process is called.
    pub registry: Registry,
    /// Makes the trace of a captured call, as the core makes that of its own.
    pub trace_key: TraceKey,
    /// Serves HTTP.
    pub doors: belfry_door::Doors,
}

/// Open doors. Cheap to clone.
#[derive(Clone, Debug)]
pub struct OpenDoors {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    intake: Intake,
    otlp: Otlp,
    addresses: Vec<(&'static str, SocketAddr)>,
    http: Vec<DoorHandle>,
    tokens: Vec<Arc<Tokens>>,
    stop: watch::Sender<bool>,
    tasks: Mutex<JoinSet<()>>,
}

/// What is opened one after the other.
struct Opening {
    intake: Intake,
    doors: belfry_door::Doors,
    stop: watch::Receiver<bool>,
    addresses: Vec<(&'static str, SocketAddr)>,
    http: Vec<DoorHandle>,
    tokens: Vec<Arc<Tokens>>,
    tasks: JoinSet<()>,
}

impl OpenDoors {
    /// Opens every door that the section names. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// When an address is taken, or a file cannot be used; then no door stays open.
    pub fn open(config: DoorsConfig, deps: DoorsDeps) -> Result<Self, DoorsError> {
        let DoorsDeps { pipeline, registry, trace_key, doors } = deps;
        let region = registry.emitter().resource().region.clone();
        let signals = Signals::register(&registry);
        let intake =
            Intake::new(config.clone(), pipeline, signals, trace_key, region).ok_or(DoorsError::Unchecked)?;
        let (stop, stopped) = watch::channel(false);
        let tokens = config.otlp.as_ref().and_then(|otlp| otlp.token_file.as_deref()).map(Tokens::open);
        let tokens = tokens.transpose()?.map(Arc::new);
        let otlp =
            Otlp::new(config.otlp.as_ref().unwrap_or(&OtlpConfig::default()), intake.clone(), tokens.clone());
        let mut opening = Opening {
            intake,
            doors,
            stop: stopped,
            addresses: Vec::new(),
            http: Vec::new(),
            tokens: Vec::new(),
            tasks: JoinSet::new(),
        };
        opening.open_all(&config, &otlp)?;
        config.warnings().iter().for_each(|warning| opening.intake.signals().opened_to_all(warning));
        opening.tokens.extend(tokens);
        let Opening { intake, addresses, http, tokens, tasks, .. } = opening;
        let tasks = Mutex::new(tasks);
        Ok(Self { inner: Arc::new(Inner { intake, otlp, addresses, http, tokens, stop, tasks }) })
    }

    /// Where each door listens, with the port that was given for port 0.
    #[must_use]
    pub fn addresses(&self) -> &[(&'static str, SocketAddr)] {
        &self.inner.addresses
    }

    /// `POST /api/v1/otlp/v1/metrics`, as Prometheus has it, for a door that decides itself who may come in.
    pub fn api_router(&self) -> Router {
        self.inner.otlp.api_router()
    }

    /// Who sent most, by bytes.
    #[must_use]
    pub fn senders(&self, count: usize) -> Vec<SenderAccount> {
        self.inner.intake.senders(count)
    }

    /// Reads the token files again. Where one cannot be used, its old tokens stay in force.
    ///
    /// # Errors
    /// What is wrong with the first such file.
    pub fn reread_tokens(&self) -> Result<(), DoorsError> {
        let http = self.inner.http.iter().map(|door| door.reread_tokens().map_err(DoorsError::from));
        let rest = self.inner.tokens.iter().map(|tokens| tokens.reread().map(drop).map_err(DoorsError::from));
        // All are read before the first fault is told.
        http.chain(rest).collect::<Vec<_>>().into_iter().collect()
    }

    /// Takes nothing new, and waits until what came is durable. Returns what was not finished at the deadline.
    pub async fn drain(&self, deadline: Duration) -> Vec<String> {
        self.inner.stop.send_replace(true);
        let mut tasks = std::mem::take(&mut *self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let ending = async {
            let mut stragglers = Vec::new();
            for door in &self.inner.http {
                stragglers.extend(door.drain(deadline).await);
            }
            while tasks.join_next().await.is_some() {}
            stragglers
        };
        tokio::time::timeout(deadline, ending)
            .await
            .unwrap_or_else(|_| vec!["others' telemetry on its way to the log".to_owned()])
    }
}

impl Opening {
    fn open_all(&mut self, config: &DoorsConfig, otlp: &Otlp) -> Result<(), DoorsError> {
        if let Some(config) = &config.otlp {
            self.open_otlp(config, otlp)?;
        }
        if let Some(elastic) = &config.elastic {
            let router = super::elastic::router(self.intake.clone());
            self.open_http("elastic", Door::Elastic, elastic, router)?;
        }
        if let Some(loki) = &config.loki {
            let router = super::loki::router(self.intake.clone());
            self.open_http("loki", Door::Loki, loki, router)?;
        }
        if let Some(syslog) = &config.syslog {
            let protocol = Syslog::new(syslog.time_zone.as_deref());
            self.open_datagrams("syslog udp", syslog.udp_listen, &protocol)?;
            self.open_streams("syslog tcp", syslog.tcp_listen, None, &protocol)?;
            self.open_streams("syslog tls", syslog.tls_listen, syslog.tls.as_ref(), &protocol)?;
        }
        if let Some(hep) = &config.hep {
            let protocol = Hep::new(hep, &self.intake)?;
            self.open_datagrams("hep udp", hep.udp_listen, &protocol)?;
            self.open_streams("hep tcp", hep.tcp_listen, None, &protocol)?;
            self.open_streams("hep tls", hep.tls_listen, hep.tls.as_ref(), &protocol)?;
            self.tasks.spawn(protocol.sweep(self.intake.clone(), self.stop.clone()));
        }
        if !config.files.is_empty() {
            self.tasks.spawn(super::tail::follow(config.clone(), self.intake.clone(), self.stop.clone()));
        }
        Ok(())
    }

    fn open_otlp(&mut self, config: &OtlpConfig, otlp: &Otlp) -> Result<(), DoorsError> {
        if let Some(listen) = config.http_listen {
            let door = HttpConfig {
                listen,
                token_file: config.token_file.clone(),
                host_names: config.host_names.clone(),
                tls: config.tls.clone(),
            };
            self.open_http("otlp http", Door::Otlp, &door, otlp.router())?;
        }
        if let Some(listen) = config.grpc_listen {
            let (listener, address) = super::listen::bind_tcp(listen)?;
            let acceptor = self.acceptor(listener, Entrance::OtlpGrpc, config.tls.as_ref(), &[b"h2"])?;
            self.tasks.spawn(otlp.clone().serve(acceptor));
            self.opened("otlp grpc", Entrance::OtlpGrpc, address);
        }
        Ok(())
    }

    fn open_http(
        &mut self,
        name: &'static str,
        door: Door,
        config: &HttpConfig,
        router: Router,
    ) -> Result<(), DoorsError> {
        let own = self.intake.config();
        let limits = Limits {
            connections_max: own.connections_max,
            header_timeout: own.idle_timeout.min(Duration::from_mins(10)),
            write_timeout: Duration::from_secs(30),
            request_bytes_max: own.request_bytes_max,
        };
        let tokens = config.token_file.as_deref().map(Tokens::open).transpose()?.map(Arc::new);
        let guard = Guard {
            pushes: None,
            section: "observe.doors",
            tokens,
            host_names: config.host_names.clone(),
            open_paths: &[],
            cors_origins: Vec::new(),
            cors_paths: &[],
        };
        let tls = config.tls.as_ref().map(|tls| super::listen::tls(tls, &[b"http/1.1"])).transpose()?;
        let handle =
            self.doors.open_with(door, config.listen, limits, Access::Guarded(guard), router, tls)?;
        self.addresses.push((name, handle.local_addr()));
        self.http.push(handle);
        Ok(())
    }

    fn open_datagrams<P: Protocol>(
        &mut self,
        name: &'static str,
        listen: Option<SocketAddr>,
        protocol: &P,
    ) -> Result<(), DoorsError> {
        let Some(listen) = listen else { return Ok(()) };
        let (socket, address) = super::listen::bind_udp(listen)?;
        self.tasks.spawn(super::flow::datagrams(
            protocol.clone(),
            socket,
            self.intake.clone(),
            self.stop.clone(),
        ));
        self.opened(name, P::DOOR, address);
        Ok(())
    }

    fn open_streams<P: Protocol>(
        &mut self,
        name: &'static str,
        listen: Option<SocketAddr>,
        tls: Option<&TlsConfig>,
        protocol: &P,
    ) -> Result<(), DoorsError> {
        let Some(listen) = listen else { return Ok(()) };
        let (listener, address) = super::listen::bind_tcp(listen)?;
        let acceptor = self.acceptor(listener, P::DOOR, tls, &[])?;
        let (protocol, intake, stop) = (protocol.clone(), self.intake.clone(), self.stop.clone());
        self.tasks
            .spawn(acceptor.run(move |guest| {
                super::flow::stream(protocol.clone(), guest, intake.clone(), stop.clone())
            }));
        self.opened(name, P::DOOR, address);
        Ok(())
    }

    fn acceptor(
        &self,
        listener: tokio::net::TcpListener,
        door: Entrance,
        tls: Option<&TlsConfig>,
        protocols: &[&[u8]],
    ) -> Result<Acceptor, DoorsError> {
        let tls = tls.map(|tls| super::listen::tls(tls, protocols)).transpose()?;
        Ok(Acceptor { listener, door, tls, intake: self.intake.clone(), stop: self.stop.clone() })
    }

    fn opened(&mut self, name: &'static str, door: Entrance, address: SocketAddr) {
        self.addresses.push((name, address));
        self.intake.signals().opened(door, name, address);
    }
}

/// Reads a small file whole.
pub(super) fn read_small(path: &Path) -> Result<String, DoorsError> {
    let read = std::fs::read_to_string(path).map(|text| text.trim().to_owned());
    read.map_err(|source| DoorsError::File { path: path.to_owned(), source })
}
