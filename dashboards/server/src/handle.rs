//! Starting the page, and the handle that the rest of the process holds.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use belfry_engine::EngineHandle;
use belfry_mesh::Mesh;
use belfry_query::Reader;
use belfry_signal::Registry;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::assets::Assets;
use crate::attempts::Attempts;
use crate::config::Config;
use crate::error::Error;
use crate::keeping::{self, Keeper};
use crate::password::Users;
use crate::reading::Reading;
use crate::routes::{App, router};
use crate::runbooks::Runbooks;
use crate::serving::Server;
use crate::sessions::{Limits, Sessions};
use crate::signals::Signals;
use crate::status::{Examples, Projector, View, examples};

/// The control-tower page.
pub struct Dashboard;

/// What the page shows and where it tells about itself.
pub struct DashboardDeps {
    /// Where signals are registered.
    pub registry: Registry,
    /// Calls, logs, spans.
    pub reader: Reader,
    /// Budgets, cells, pages, changes.
    pub engine: EngineHandle,
    /// Links to other nodes, when there are any.
    pub mesh: Option<Mesh>,
}

/// The page, running. Cheap to clone.
#[derive(Clone)]
pub struct DashboardHandle {
    inner: Arc<Inner>,
}

struct Inner {
    app: Arc<App>,
    address: SocketAddr,
    public_url: String,
    stop: watch::Sender<bool>,
    server: Mutex<Option<JoinHandle<()>>>,
}

/// Where the views come from; in tests, not from an engine.
pub(crate) struct Sources {
    pub(crate) views: watch::Receiver<Arc<View>>,
    pub(crate) examples: Examples,
    pub(crate) reading: Reading,
    pub(crate) runbooks: Arc<Runbooks>,
    pub(crate) stop: watch::Sender<bool>,
}

impl Dashboard {
    /// Listens and serves until [`DashboardHandle::drain`]. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// When a setting cannot stand, the address is taken, or there is no randomness.
    pub fn start(config: Config, deps: DashboardDeps) -> Result<DashboardHandle, Error> {
        let DashboardDeps { registry, reader, engine, mesh } = deps;
        let (stop, stopped) = watch::channel(false);
        let runbooks = Arc::new(Runbooks::built_in());
        let site = registry.emitter().resource().site.clone();
        let (projector, views) =
            Projector::new(engine.subscribe(), mesh, site, Arc::clone(&runbooks), stopped);
        let sources =
            Sources { views, examples: examples(engine), reading: Reading::of(&reader), runbooks, stop };
        let handle = serve(config, &registry, sources)?;
        // It ends with the stop signal or the engine, so nobody has to wait for it.
        tokio::spawn(projector.run());
        Ok(handle)
    }
}

pub(crate) fn serve(config: Config, registry: &Registry, sources: Sources) -> Result<DashboardHandle, Error> {
    if let Some((key, message)) = config.check().into_iter().next() {
        return Err(Error::Config { key, message });
    }
    let Sources { views, examples, reading, runbooks, stop } = sources;
    let listen = |source| Error::Listen { address: config.listen, source };
    let listener = bind(config.listen).map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    let public_url = config.public_url.clone().unwrap_or_else(|| format!("http://{address}"));
    let signals = Signals::register(registry);
    let app = Arc::new(App {
        is_https: public_url.starts_with("https://"),
        assets: Assets::new(),
        runbooks,
        users: Users::new(config.users.clone())?,
        sessions: Sessions::new(Limits {
            sessions_max: config.sessions_max,
            idle_max: config.session_ttl,
            age_max: config.session_age_max,
            link_age_max: config.login_link_ttl,
        }),
        attempts: Attempts::default(),
        signals: signals.clone(),
        views,
        examples,
        reading,
        searches: Semaphore::new(config.searches_max),
        live_streams: Arc::new(Semaphore::new(config.live_streams_max)),
        stop: stop.subscribe(),
        config,
    });
    if let Some(file) = app.config.sessions_file.clone() {
        match keeping::load(&file) {
            Ok(mut kept) => {
                kept.retain(|session| session.owner.may_stay(&app.config));
                app.sessions.take_up(kept, Instant::now());
            }
            Err(_) => signals.sessions_not_kept(),
        }
        tokio::spawn(Keeper { app: Arc::clone(&app), file, stop: stop.subscribe() }.run());
    }
    let server = Server {
        listener,
        router: router(Arc::clone(&app)),
        connections: Arc::new(Semaphore::new(app.config.connections_max)),
        signals: signals.clone(),
        stop: stop.subscribe(),
    };
    signals.started(address, app.config.users.len(), app.assets.has_page());
    let server = Mutex::new(Some(tokio::spawn(server.run())));
    Ok(DashboardHandle { inner: Arc::new(Inner { app, address, public_url, stop, server }) })
}

/// Binds at once, so that whoever starts us knows whether the address was free.
fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

impl DashboardHandle {
    /// The address that is listened on, with the port that was given for port 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.inner.address
    }

    /// A new link that logs one person in, once; none when the configuration does not allow links or has
    /// users, who log in by their passwords.
    #[must_use]
    pub fn login_link(&self) -> Option<String> {
        let app = &self.inner.app;
        let make = || app.sessions.new_link(Instant::now());
        let token = app.config.allows_links().then(make)?;
        Some(format!("{}/login/{}", self.inner.public_url, token.as_str()))
    }

    /// Stops accepting, ends live streams, waits for requests; names what was still open at the deadline.
    pub async fn drain(&self, deadline: Duration) -> Vec<String> {
        self.inner.stop.send_replace(true);
        let server = self.inner.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut server) = server else { return vec![] };
        let stragglers = match tokio::time::timeout(deadline, &mut server).await {
            Ok(_) => vec![],
            Err(_) => {
                server.abort();
                vec!["page requests that were not answered".to_owned()]
            }
        };
        self.inner.app.signals.stopped(stragglers.len());
        stragglers
    }
}
