//! The mesh as rooms hold it.

use std::any::Any;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use belfry_signal::Registry;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Service;
use crate::acceptor::{self, Accepted, DialId};
use crate::config::Config;
use crate::connection;
use crate::dialer::{self, Target};
use crate::error::Error;
use crate::health::{Health, PeerHealth};
use crate::identity::{self, Identity};
use crate::link::{Link, Links};
use crate::local;
use crate::signals::{CloseReason, Peer, Signals};

/// Links that wait for a room to take them.
const LINKS_WAITING: usize = 16;

/// The house's own service mesh. Cheap to clone.
#[derive(Clone)]
pub struct Mesh {
    inner: Arc<Inner>,
    identity: Option<Arc<Identity>>,
    local_address: Option<SocketAddr>,
}

/// What all links share.
pub(crate) struct Inner {
    pub(crate) config: Config,
    /// This node's name: the peer of links inside the process.
    pub(crate) node: Peer,
    /// The configured peers: the only names that may connect and become labels.
    pub(crate) peers: HashMap<String, Peer>,
    pub(crate) signals: Signals,
    pub(crate) health: Health,
    pub(crate) servers: Vec<watch::Sender<Option<Arc<Server>>>>,
    pub(crate) accepted: AcceptedLinks,
    pub(crate) tasks: TaskTracker,
    pub(crate) draining: CancellationToken,
    open_links: Mutex<Vec<(Service, Peer)>>,
    runtime: Handle,
}

/// A room that serves, with its message types erased: the registry holds rooms of every type.
pub(crate) struct Server {
    /// `mpsc::Sender<Link<S, R>>` of the room, for rooms in this process.
    pub(crate) local: Box<dyn Any + Send + Sync>,
    /// Runs the link of a peer on another node.
    pub(crate) accept: Box<dyn Fn(Accepted) -> Serving + Send + Sync>,
    /// Whether the room still takes links.
    pub(crate) is_open: Box<dyn Fn() -> bool + Send + Sync>,
}

type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The accepted connections by who dialled; bounded by `connections_max`.
#[derive(Default)]
pub(crate) struct AcceptedLinks(Mutex<HashMap<DialId, CancellationToken>>);

impl AcceptedLinks {
    pub(crate) fn lock(&self) -> MutexGuard<'_, HashMap<DialId, CancellationToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A link that is counted as up until it is closed.
pub(crate) struct Opening<'a> {
    inner: &'a Inner,
    service: Service,
    peer: Peer,
}

impl Opening<'_> {
    pub(crate) fn close(self, reason: CloseReason, lost: u64) {
        self.inner.health.closed(&self.peer, self.service);
        self.inner.signals.link_closed(self.service, &self.peer, reason, lost);
        let mut open_links = self.inner.open_links();
        let found =
            open_links.iter().position(|(service, peer)| *service == self.service && *peer == self.peer);
        if let Some(index) = found {
            open_links.swap_remove(index);
        }
    }
}

impl Inner {
    fn new(config: Config, registry: &Registry) -> Result<Self, Error> {
        if let Some((key, fault)) = config.check().into_iter().next() {
            return Err(Error::Config { key, fault });
        }
        let name = |key: &str, name: &str| {
            Peer::configured(name)
                .map_err(|error| Error::Config { key: key.to_owned(), fault: error.to_string() })
        };
        let node = name("node", &config.node)?;
        let mut peers = HashMap::new();
        for peer in &config.peers {
            peers.insert(peer.name.clone(), name("peers", &peer.name)?);
        }
        Ok(Self {
            config,
            node,
            peers,
            signals: Signals::register(registry),
            health: Health::default(),
            servers: Service::ALL.iter().map(|_| watch::Sender::new(None)).collect(),
            accepted: AcceptedLinks::default(),
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
            open_links: Mutex::default(),
            runtime: Handle::current(),
        })
    }

    /// Counts a link as up.
    pub(crate) fn open(&self, service: Service, peer: &Peer) -> Opening<'_> {
        self.health.opened(peer, service);
        self.signals.link_opened(service, peer);
        self.open_links().push((service, peer.clone()));
        Opening { inner: self, service, peer: peer.clone() }
    }

    fn open_links(&self) -> MutexGuard<'_, Vec<(Service, Peer)>> {
        self.open_links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mesh {
    /// Loads or makes the identity, listens, and is ready for `serve` and `dial`.
    /// Links run on the tokio runtime that this is called on.
    ///
    /// # Errors
    /// When the configuration, the identity or the listening address cannot be used.
    pub async fn start(config: Config, registry: &Registry) -> Result<Self, Error> {
        let inner = Arc::new(Inner::new(config, registry)?);
        let config = &inner.config;
        let Some(identity_config) = config.identity.clone().filter(|_| config.is_networked()) else {
            return Ok(Self { inner, identity: None, local_address: None });
        };
        let identity = Arc::new(Identity::load(&identity_config, &config.trust_domain, &config.node)?);
        inner.runtime.spawn(identity::keep_fresh(Arc::clone(&inner), Arc::clone(&identity)));
        let mut local_address = None;
        if let Some(address) = config.listen {
            let refused = |source| Error::Listen { address, source };
            let listener = TcpListener::bind(address).await.map_err(refused)?;
            local_address = Some(listener.local_addr().map_err(refused)?);
            inner.runtime.spawn(acceptor::run(Arc::clone(&inner), Arc::clone(&identity), listener));
        }
        Ok(Self { inner, identity: Some(identity), local_address })
    }

    /// A mesh inside one process, for tests of the rooms.
    #[must_use]
    #[expect(clippy::panic, reason = "the literal configuration is valid")]
    pub fn for_test(registry: &Registry) -> Self {
        match Inner::new(Config::in_process("node-1"), registry) {
            Ok(inner) => Self { inner: Arc::new(inner), identity: None, local_address: None },
            Err(error) => panic!("{error}"),
        }
    }

    /// Where other nodes connect: the bound address, which matters when port 0 was configured.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.local_address
    }

    /// Offers a service: yields a link for each room of this process that dials it and each peer that connects.
    /// A later call takes over new links from an earlier one.
    #[must_use]
    pub fn serve<S, R>(&self, service: Service) -> Links<S, R>
    where
        S: Serialize + DeserializeOwned + Send + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        let (room, links) = mpsc::channel::<Link<S, R>>(LINKS_WAITING);
        let inner = Arc::downgrade(&self.inner);
        let accepting = room.clone();
        let accept = move |accepted: Accepted| -> Serving {
            let (inner, room) = (inner.clone(), accepting.clone());
            Box::pin(async move {
                let Some(inner) = inner.upgrade() else { return };
                let Accepted { peer, transport, superseded } = accepted;
                let (link, wire) = connection::link::<S, R>(&inner, service, &peer);
                if room.send(link).await.is_ok() {
                    connection::run(&inner, service, &peer, transport, wire, superseded).await;
                }
            })
        };
        let watched = room.clone();
        let server = Server {
            local: Box::new(room),
            accept: Box::new(accept),
            is_open: Box::new(move || !watched.is_closed()),
        };
        if !self.inner.draining.is_cancelled() {
            self.inner.servers[service.index()].send_replace(Some(Arc::new(server)));
        }
        Links::new(links)
    }

    /// Asks for a service: yields a link to the room of this process that serves it, if one does, and one to each
    /// configured peer with that service, again and again as they are lost and reached.
    #[must_use]
    pub fn dial<S, R>(&self, service: Service) -> Links<S, R>
    where
        S: Serialize + DeserializeOwned + Send + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        let (room, links) = mpsc::channel::<Link<S, R>>(LINKS_WAITING);
        let inner = &self.inner;
        inner.tasks.spawn_on(local::keep(Arc::clone(inner), service, room.clone()), &inner.runtime);
        for peer_config in inner.config.peers.iter().filter(|peer| peer.services.contains(&service)) {
            let (Some(identity), Some(peer), Some(address)) =
                (&self.identity, inner.peers.get(&peer_config.name), &peer_config.address)
            else {
                continue;
            };
            inner.health.expect(peer, service);
            let target =
                Target { peer: peer.clone(), address: address.clone(), service, instance: rand::random() };
            let keeping = dialer::keep(Arc::clone(inner), Arc::clone(identity), target, room.clone());
            inner.tasks.spawn_on(keeping, &inner.runtime);
        }
        Links::new(links)
    }

    /// How each peer stands, per service: those dialled from the start, those that connect from the first time.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerHealth> {
        self.inner.health.peers()
    }

    /// Stops accepting and dialling, sends what waits on each link, says goodbye.
    /// Returns the links that were still open at the deadline.
    pub async fn drain(&self, deadline: Duration) -> Vec<String> {
        let inner = &self.inner;
        inner.draining.cancel();
        for server in &inner.servers {
            server.send_replace(None);
        }
        inner.tasks.close();
        if tokio::time::timeout(deadline, inner.tasks.wait()).await.is_ok() {
            return Vec::new();
        }
        let describe = |(service, peer): &(Service, Peer)| format!("{} link with {peer}", service.as_str());
        inner.open_links().iter().map(describe).collect()
    }
}
