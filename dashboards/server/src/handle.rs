//! Starting the page, and the handle that the rest of the process holds.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use belfry_door::{Access, Door, DoorHandle, Doors};
use belfry_engine::EngineHandle;
use belfry_mesh::Mesh;
use belfry_query::Reader;
use belfry_signal::Registry;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::acknowledging::{Acknowledge, acknowledge};
use crate::assets::Assets;
use crate::attempts::Attempts;
use crate::config::Config;
use crate::error::Error;
use crate::keeping::{self, Keeper};
use crate::password::Users;
use crate::reading::Reading;
use crate::routes::{App, router};
use crate::runbooks::Runbooks;
use crate::sessions::{Limits, Sessions};
use crate::signals::Signals;
use crate::status::{Examples, Projector, View, examples};

/// The control-tower page.
pub struct Dashboard;

/// What the page shows and where it tells about itself.
pub struct DashboardDeps {
    /// Where signals are registered.
    pub registry: Registry,
    /// How the page is served.
    pub doors: Doors,
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
    door: DoorHandle,
    public_url: String,
    stop: watch::Sender<bool>,
}

/// Where the views come from; in tests, not from an engine.
pub(crate) struct Sources {
    pub(crate) views: watch::Receiver<Arc<View>>,
    pub(crate) examples: Examples,
    pub(crate) acknowledge: Acknowledge,
    pub(crate) reading: Reading,
    /// What the page asks of the metrics, in the shapes of Prometheus.
    pub(crate) questions: axum::Router,
    pub(crate) runbooks: Arc<Runbooks>,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) doors: Doors,
}

impl Dashboard {
    /// Listens and serves until [`DashboardHandle::drain`]. Call it inside a tokio runtime.
    ///
    /// # Errors
    /// When a setting cannot stand, the address is taken, or there is no randomness.
    pub fn start(config: Config, deps: DashboardDeps) -> Result<DashboardHandle, Error> {
        let DashboardDeps { registry, doors, reader, engine, mesh } = deps;
        let (stop, stopped) = watch::channel(false);
        let runbooks = Arc::new(Runbooks::built_in());
        let site = registry.emitter().resource().site.clone();
        let (projector, views) =
            Projector::new(engine.subscribe(), mesh, site, Arc::clone(&runbooks), stopped);
        let sources = Sources {
            views,
            acknowledge: acknowledge(engine.clone()),
            examples: examples(engine),
            questions: belfry_query::questions(reader.clone(), &registry),
            reading: Reading::of(&reader),
            runbooks,
            stop,
            doors,
        };
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
    let Sources { views, examples, acknowledge, reading, questions, runbooks, stop, doors } = sources;
    let signals = Signals::register(registry);
    let app = Arc::new(App {
        is_https: config.public_url.as_ref().is_some_and(|url| url.starts_with("https://")),
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
        acknowledge,
        reading,
        searches: Semaphore::new(config.searches_max),
        live_streams: Arc::new(Semaphore::new(config.live_streams_max)),
        stop: stop.subscribe(),
        config,
    });
    if let Some(file) = &app.config.sessions_file {
        match keeping::load(file) {
            Ok(mut kept) => {
                kept.retain(|session| session.owner.may_stay(&app.config));
                app.sessions.take_up(kept, Instant::now());
            }
            Err(_) => signals.sessions_not_kept(),
        }
    }
    let (listen, limits) = (app.config.listen, app.config.door_limits());
    let door = doors.open(Door::Page, listen, limits, Access::Behind, router(Arc::clone(&app), questions))?;
    // Not before: a second process on the same address must leave the file of the first one alone.
    if let Some(file) = app.config.sessions_file.clone() {
        tokio::spawn(Keeper { app: Arc::clone(&app), file, stop: stop.subscribe() }.run());
    }
    let address = door.local_addr();
    let public_url = app.config.public_url.clone().unwrap_or_else(|| format!("http://{address}"));
    signals.started(address, app.config.users.len(), app.assets.has_page());
    Ok(DashboardHandle { inner: Arc::new(Inner { app, door, public_url, stop }) })
}

/// Returns when the page is to stop, also when nobody is left to say so.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stops| *stops).await;
}

impl DashboardHandle {
    /// The address that is listened on, with the port that was given for port 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.inner.door.local_addr()
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
        let stragglers = self.inner.door.drain(deadline).await;
        self.inner.app.signals.stopped(stragglers.len());
        stragglers
    }
}
