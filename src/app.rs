//! The composition root: starts the rooms that the configuration names, stops them in order.
//!
//! One function per room, none of which starts another.

pub mod alerts;
pub mod media;
pub mod observe;
pub mod secrets;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use belfry_dashboard::{Dashboard, DashboardDeps, DashboardHandle};
use belfry_door::{Access, Door, DoorHandle, Doors, Guard, Tokens};
use belfry_engine::{Change, EngineHandle, HOOK_PATH};
use belfry_gateway::{Gateway, GatewayDeps, GatewayHandle};
use belfry_mesh::Mesh;
use belfry_notify::NotifyHandle;
use belfry_pipeline::doors::{DoorsDeps, OpenDoors};
use belfry_pipeline::metrics::scrape::Scraper;
use belfry_relay::RelayHandle;
use belfry_signal::{Registry, Resource, TraceKey, now_unix_nanos};
use belfry_signalling::{Core, CoreHandle, Deps, Prepaid, Routes};
use belfry_state::{State, Subscriber};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tower_http::compression::CompressionLayer;

use crate::admin::{self, Admin, Order, SetLogLevel, Text};
use crate::config::{Config, needs_restart};
use crate::drain::{Drained, Step, drain};
use crate::limits;
use crate::live::LiveCalls;
use crate::signals::Signals;
use crate::upkeep::Upkeep;

/// Paths of the read APIs for those who have no token: probes, and webhooks, which are signed.
const API_OPEN_PATHS: &[&str] = &["/-/healthy", "/-/ready", HOOK_PATH];
/// How long a start waits until edge and core of one process are linked.
const CORE_LINK_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);
/// Orders from the admin door that may wait.
const ORDERS_MAX: usize = 16;

/// The runtimes and switches that the process gives the app.
#[derive(Clone)]
pub struct Surroundings {
    /// Runs what carries calls.
    pub data: Handle,
    /// Runs what watches.
    pub tower: Handle,
    /// Changes the log level of the terminal.
    pub set_log_level: SetLogLevel,
    /// Whether faults may be switched: only in a demo.
    pub has_faults: bool,
}

/// Switches that break a room on purpose; all off unless a demo turns them.
#[derive(Clone, Default)]
pub struct Faults {
    /// The core's.
    pub core: belfry_signalling::Faults,
    /// The relay's.
    pub relay: belfry_relay::Faults,
}

/// A running Belfry.
pub struct App {
    config: Config,
    /// All metrics, the emitter and the journeys of the process.
    pub registry: Registry,
    signals: Signals,
    surroundings: Surroundings,
    ready: Arc<AtomicBool>,
    config_text: Arc<Text>,
    orders: mpsc::Receiver<Order>,
    /// Switches that break a room on purpose.
    pub faults: Faults,
    trace_key: TraceKey,
    /// Links between the rooms.
    pub mesh: Mesh,
    live: LiveCalls,
    doors: Doors,
    /// The admin door.
    pub admin: DoorHandle,
    /// The door of the read APIs.
    pub api: Option<DoorHandle>,
    /// The observe room.
    pub observe: Option<observe::Observe>,
    /// The doors for others' telemetry.
    pub ingest: Option<OpenDoors>,
    scraper: Option<Scraper>,
    notify: Option<NotifyHandle>,
    /// The alert engine.
    pub engine: Option<EngineHandle>,
    /// The page.
    pub dashboard: Option<DashboardHandle>,
    relay: Option<RelayHandle>,
    state: Option<State>,
    rater: Option<tokio::task::JoinHandle<()>>,
    core: Option<CoreHandle>,
    /// The edge.
    pub gateway: Option<GatewayHandle>,
}

impl App {
    /// Starts every room that is on, watchers first, the edge last.
    ///
    /// # Errors
    /// When a room cannot be started; what was started is dropped.
    pub async fn start(
        config: Config,
        config_text: &str,
        surroundings: Surroundings,
    ) -> anyhow::Result<Self> {
        let node = &config.node;
        let resource = Resource {
            node: node.name.clone(),
            site: node.site.clone(),
            region: node.region.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let (registry, records) = Registry::new(resource, node.records_max);
        let signals = Signals::register(&registry);
        signals.open_files_allowed(limits::raise_open_files());
        let trace_key = TraceKey::new(secrets::key(&node.data.join("secrets/trace.key"))?);
        let mesh = Mesh::start(config.mesh.clone(), &registry).await.context("start the mesh")?;
        let (order_sender, orders) = mpsc::channel(ORDERS_MAX);
        let ready = Arc::new(AtomicBool::new(false));
        let config_text = Arc::new(Text::new(config_text));
        let doors = Doors::new(&registry);
        let door = Admin {
            registry: registry.clone(),
            ready: ready.clone(),
            config_text: config_text.clone(),
            set_log_level: surroundings.set_log_level.clone(),
            orders: order_sender,
            has_faults: surroundings.has_faults,
        };
        let live = LiveCalls::default();
        let upkeep = Upkeep::new(signals.clone());
        let routes = live.router(signals.clone()).merge(upkeep.clone().router());
        let admin = start_admin(door, &config.admin, &doors, routes, &surroundings).await?;
        let observe = start_observe(&config, &registry, records, &surroundings.tower)?;
        observe.iter().for_each(|observe| upkeep.set(observe.maintenance.clone()));
        let mut app = Self {
            observe,
            config,
            registry,
            signals,
            surroundings,
            ready,
            config_text,
            orders,
            faults: Faults::default(),
            trace_key,
            mesh,
            live,
            doors,
            admin,
            api: None,
            ingest: None,
            notify: None,
            engine: None,
            dashboard: None,
            scraper: None,
            relay: None,
            state: None,
            rater: None,
            core: None,
            gateway: None,
        };
        app.start_alerts().await?;
        app.start_api().await?;
        app.start_dashboard().await?;
        app.start_media()?;
        app.start_state().await?;
        app.start_core().await?;
        app.start_edge().await?;
        app.set_ready(true);
        Ok(app)
    }

    /// The next order from the admin door.
    pub async fn next_order(&mut self) -> Option<Order> {
        self.orders.recv().await
    }

    /// Adds subscribers to the store, if there is one.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn subscribe(&self, subscribers: Vec<Subscriber>) -> anyhow::Result<()> {
        let Some(state) = self.state.clone() else { return Ok(()) };
        for subscriber in &subscribers {
            state.put_subscriber(subscriber).await.context("add a subscriber")?;
        }
        Ok(())
    }

    /// Starts the core, if the configuration has one and it is not running.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start_core(&mut self) -> anyhow::Result<()> {
        let (Some(core), Some(state), None) = (&self.config.core, &self.state, &self.core) else {
            return Ok(());
        };
        let (plan, state) = (core.routing.clone(), state.clone());
        let (signalling, data) = (core.signalling.clone(), self.config.node.data.clone());
        let (store, default_profile) = (state.clone(), core.billing.default_profile.clone());
        let loading = self.surroundings.data.spawn(async move {
            let prepaid = Prepaid::load(default_profile, &store).await.context("read the accounts")?;
            let routes = Routes::load(plan, &signalling, &data, &store).await.context("load the routes")?;
            anyhow::Ok((routes, prepaid))
        });
        let (routes, prepaid) = loading.await??;
        let deps = Deps {
            registry: self.registry.clone(),
            mesh: self.mesh.clone(),
            routes,
            prepaid,
            state,
            trace_key: self.trace_key.clone(),
            faults: self.faults.core.clone(),
        };
        let config = core.signalling.clone();
        let starting = self.surroundings.data.spawn(async move { Core::start(config, deps) });
        let core = starting.await?.context("start the core")?;
        self.live.set(Some(core.clone()));
        self.core = Some(core);
        self.signals.room_started("core");
        Ok(())
    }

    /// Stops the core at once, as a crash would, and leaves the rest running.
    pub async fn stop_core(&mut self) {
        if let Some(core) = self.core.take() {
            self.live.set(None);
            core.kill().await;
            self.signals.room_drained("core", &[]);
        }
    }

    /// Takes a new configuration into force, or says why not, and what of it waits for a restart. Changed token files are
    /// read in any case: a fault elsewhere must not keep a token that was withdrawn.
    pub async fn reload(
        &mut self,
        loaded: Result<(Config, String), Vec<crate::config::Fault>>,
    ) -> Vec<String> {
        let mut told = Box::pin(self.take_config(loaded)).await;
        told.extend(self.reread_tokens());
        told
    }

    async fn take_config(
        &mut self,
        loaded: Result<(Config, String), Vec<crate::config::Fault>>,
    ) -> Vec<String> {
        let (config, text) = match loaded {
            Ok(loaded) => loaded,
            Err(faults) => {
                self.signals.config_refused(faults.len());
                return faults.iter().map(ToString::to_string).collect();
            }
        };
        let mut is_rerouted = false;
        if let (Some(running), Some(core)) = (&self.core, &config.core) {
            if let Err(error) = running.reroute(core.routing.clone()).await {
                self.signals.config_refused(1);
                return vec![format!("core: {error}; the old routes stay in force, and the edge as it was")];
            }
            is_rerouted = true;
        }
        if let (Some(gateway), Some(edge)) = (&self.gateway, config.edge.clone())
            && let Err(error) = gateway.reload(&edge)
        {
            self.signals.config_refused(1);
            let rest = if is_rerouted { "; the core's new routes are in force already" } else { "" };
            return vec![format!("edge: {error}; the edge stays as it was{rest}")];
        }
        if let (Some(engine), Some(notify), Some(alerts)) = (&self.engine, &self.notify, &config.alerts)
            && let Err(error) = alerts::reload(engine, notify, alerts).await
        {
            self.signals.config_refused(1);
            return vec![format!("alerts: {error:#}; rules and routes of alerts stay as they were")];
        }
        let scraping = self.scraper.as_ref().map_or(Ok(()), |scraper| {
            let _in_tower = self.surroundings.tower.enter();
            scraper.reload()
        });
        let needs_restart = needs_restart(&self.config_text.get(), &text);
        self.config_text.set(&text);
        self.config = config;
        self.signals.config_reloaded(&needs_restart);
        self.note_change("config", "configuration reloaded");
        let restart = needs_restart.into_iter().map(|key| format!("{key} changed: in force after a restart"));
        let scraping =
            scraping.err().map(|fault| format!("observe.scrape: {fault}; what was scraped still is"));
        restart.chain(scraping).collect()
    }

    /// Takes changed token files into force; a file that cannot be used changes nothing and is named.
    fn reread_tokens(&self) -> Vec<String> {
        let doors = [Some(&self.admin), self.api.as_ref()];
        let rereads = doors.into_iter().flatten().filter_map(|door| door.reread_tokens().err());
        let ingest = self.ingest.as_ref().and_then(|doors| doors.reread_tokens().err());
        let wrong = rereads.map(|error| error.to_string()).chain(ingest.map(|error| error.to_string()));
        wrong.map(|error| format!("{error}; the tokens of before stay in force")).collect()
    }

    /// Shows a change on the page, beside the alerts that it may have caused.
    pub fn note_change(&self, kind: &'static str, text: &str) {
        if let Some(engine) = &self.engine {
            engine.record_change(Change { unix_nanos: now_unix_nanos(), kind, text: text.to_owned() });
        }
    }

    /// Says that a fault was switched.
    pub fn note_fault(&self, fault: &'static str, is_on: bool) {
        self.signals.fault_switched(fault, is_on);
        self.note_change("fault", &format!("{fault} {}", if is_on { "on" } else { "off" }));
    }

    /// Stops in order; when `now` ends, at once. Returns what did not finish.
    pub async fn drain(mut self, now: impl Future<Output = ()>) -> Drained {
        self.set_ready(false);
        let limits = self.config.node.drain;
        let mut steps = Vec::new();
        if let Some(gateway) = self.gateway.clone() {
            steps.push(Step::new(
                "edge",
                limits.edge,
                |deadline| async move { gateway.drain(deadline).await },
            ));
        }
        if let Some(core) = self.core.take() {
            steps.push(Step::new("core", limits.core, |deadline| async move { core.drain(deadline).await }));
        }
        if let Some(rater) = self.rater.take() {
            // What it has not rated, it rates after the next start.
            rater.abort();
        }
        if let Some(state) = self.state.take() {
            steps.push(Step::new(
                "state",
                limits.core,
                |deadline| async move { state.drain(deadline).await },
            ));
        }
        if let Some(relay) = self.relay.take() {
            steps.push(Step::new(
                "media",
                limits.media,
                |deadline| async move { relay.drain(deadline).await },
            ));
        }
        // The edge holds the customers' flows until their calls are over.
        if let Some(gateway) = self.gateway.take() {
            let limit = limits.edge;
            steps.push(Step::new(
                "edge flows",
                limit,
                |deadline| async move { gateway.stop(deadline).await },
            ));
        }
        let mesh = self.mesh.clone();
        steps.push(Step::new("mesh", limits.media, |deadline| async move { mesh.drain(deadline).await }));
        steps.extend(self.stop_watchers());
        drain(steps, &self.signals, now).await
    }

    /// What watches, in the order in which it stops: what is told before what keeps it.
    fn stop_watchers(&mut self) -> Vec<Step> {
        let limits = self.config.node.drain;
        let mut steps = Vec::new();
        if let Some(scraper) = self.scraper.take() {
            scraper.stop();
        }
        if let Some(engine) = self.engine.take() {
            steps.push(Step::new(
                "alerts",
                limits.alerts,
                |deadline| async move { engine.drain(deadline).await },
            ));
        }
        if let Some(notify) = self.notify.take() {
            steps.push(Step::new(
                "notify",
                limits.alerts,
                |deadline| async move { notify.drain(deadline).await },
            ));
        }
        if let Some(dashboard) = self.dashboard.take() {
            let limit = limits.alerts;
            steps.push(Step::new(
                "dashboard",
                limit,
                |deadline| async move { dashboard.drain(deadline).await },
            ));
        }
        if let Some(api) = self.api.take() {
            let limit = limits.observe;
            steps.push(Step::new("read APIs", limit, |deadline| async move { api.drain(deadline).await }));
        }
        if let Some(ingest) = self.ingest.take() {
            let limit = limits.observe;
            steps.push(Step::new("doors", limit, |deadline| async move { ingest.drain(deadline).await }));
        }
        if let Some(observe) = self.observe.take() {
            let pipeline = observe.pipeline;
            steps.push(Step::new("observe", limits.observe, |deadline| async move {
                pipeline.drain(deadline).await
            }));
        }
        steps
    }

    fn set_ready(&self, is_ready: bool) {
        self.ready.store(is_ready, Ordering::Release);
        self.signals.readiness_changed(is_ready);
    }

    async fn start_alerts(&mut self) -> anyhow::Result<()> {
        let Some(config) = self.config.alerts.clone() else { return Ok(()) };
        let node = [("site", &self.config.node.site), ("node", &self.config.node.name)];
        let node = node.map(|(name, value)| (name.to_owned(), value.clone()));
        let metrics = self.observe.as_ref().map(|observe| alerts::metrics(observe, node.into()));
        let registry = self.registry.clone();
        let starting = self.surroundings.tower.spawn(async move { alerts::start(config, registry, metrics) });
        let (notify, engine) = starting.await??;
        self.notify = Some(notify);
        self.engine = Some(engine);
        self.signals.room_started("alerts");
        Ok(())
    }

    async fn start_api(&mut self) -> anyhow::Result<()> {
        Box::pin(self.open_doors()).await?;
        let (Some(config), Some(observe)) = (&self.config.observe, &self.observe) else { return Ok(()) };
        let mut router = belfry_query::router(observe.reader.clone(), &self.registry);
        if let Some(engine) = &self.engine {
            router = router.merge(engine.router());
        }
        if self.config.core.is_some() {
            router = router.merge(self.live.router(self.signals.clone()));
        }
        if let Some(ingest) = &self.ingest {
            router = router.merge(ingest.api_router());
        }
        let doors = {
            let _in_tower = self.surroundings.tower.enter();
            observe::start_doors(config, observe, &self.registry, &self.config.mesh.peers, &self.mesh)
        };
        let (scraper, pushed) = doors.context("start the doors for metrics")?;
        router = router.merge(pushed).layer(CompressionLayer::new());
        let mut guard = access("observe", config.token_file.as_deref(), &config.host_names, API_OPEN_PATHS)
            .context("start the read APIs")?;
        guard.pushes = observe::pushes(config).context("start the read APIs")?;
        guard.cors_origins.clone_from(&config.cors_origins);
        guard.cors_paths = observe::QUERY_PATHS;
        let (doors, listen, limits) = (self.doors.clone(), config.listen, config.limits());
        let opening = self
            .surroundings
            .tower
            .spawn(async move { doors.open(Door::Api, listen, limits, Access::Guarded(guard), router) });
        self.api = Some(opening.await?.context("start the read APIs")?);
        self.scraper = Some(scraper);
        self.signals.room_started("observe");
        Ok(())
    }

    /// Opens the doors for others' telemetry that the configuration names; without any, what the read APIs' door takes.
    async fn open_doors(&mut self) -> anyhow::Result<()> {
        let (Some(section), Some(observe)) = (&self.config.observe, &self.observe) else { return Ok(()) };
        let config = section.doors.clone().unwrap_or_default();
        let deps = DoorsDeps {
            pipeline: observe.pipeline.clone(),
            registry: self.registry.clone(),
            trace_key: self.trace_key.clone(),
            doors: self.doors.clone(),
        };
        let opening = self.surroundings.tower.spawn(async move { OpenDoors::open(*config, deps) });
        self.ingest = Some(opening.await?.context("open the doors for telemetry")?);
        Ok(())
    }

    async fn start_dashboard(&mut self) -> anyhow::Result<()> {
        let (Some(config), Some(observe), Some(engine)) =
            (self.config.dashboard.clone(), &self.observe, &self.engine)
        else {
            return Ok(());
        };
        let deps = DashboardDeps {
            registry: self.registry.clone(),
            doors: self.doors.clone(),
            reader: observe.reader.clone(),
            engine: engine.clone(),
            mesh: Some(self.mesh.clone()),
        };
        let starting = self.surroundings.tower.spawn(async move { Dashboard::start(config, deps) });
        self.dashboard = Some(starting.await?.context("start the dashboard")?);
        self.signals.room_started("dashboard");
        Ok(())
    }

    fn start_media(&mut self) -> anyhow::Result<()> {
        let Some(config) = self.config.media.clone() else { return Ok(()) };
        let _in_data = self.surroundings.data.enter();
        let relay = media::start(config, &self.registry, &self.mesh, self.faults.relay.clone());
        self.relay = Some(relay.context("start the media room")?);
        self.signals.room_started("media");
        Ok(())
    }

    async fn start_state(&mut self) -> anyhow::Result<()> {
        let Some(core) = &self.config.core else { return Ok(()) };
        let (config, registry) = (core.state.clone(), self.registry.clone());
        let data = self.surroundings.data.clone();
        let opening =
            self.surroundings.data.spawn_blocking(move || data.block_on(State::open(config, &registry)));
        let state = opening.await?.context("open the state store")?;
        let (billing, ledger) = (core.billing.clone(), state.ledger().context("open the ledger")?);
        let signals = self.signals.clone();
        let rating = self
            .surroundings
            .data
            .spawn(async move { crate::billing::start(&billing, ledger, signals).await });
        self.rater = Some(rating.await?.context("begin to rate calls")?);
        self.state = Some(state);
        Ok(())
    }

    async fn start_edge(&mut self) -> anyhow::Result<()> {
        let Some(config) = self.config.edge.clone() else { return Ok(()) };
        let deps = GatewayDeps {
            registry: self.registry.clone(),
            mesh: self.mesh.clone(),
            trace_key: self.trace_key.clone(),
        };
        let starting = self.surroundings.data.spawn_blocking(move || Gateway::start(config, deps));
        let gateway = starting.await?.context("start the edge")?;
        if self.core.is_some() {
            // It is in this process and comes at once; an edge without one serves HTTPS all the same.
            let _ = tokio::time::timeout(CORE_LINK_TIMEOUT, gateway.first_core()).await;
        }
        self.gateway = Some(gateway);
        self.signals.room_started("edge");
        Ok(())
    }
}

/// Starts the observe room, if the configuration has one.
fn start_observe(
    config: &Config,
    registry: &Registry,
    records: belfry_signal::RecordReceiver,
    tower: &Handle,
) -> anyhow::Result<Option<observe::Observe>> {
    let section = config.observe.as_ref();
    let started = section.map(|section| observe::start(section, registry, records, tower));
    started.transpose().context("start the observe room")
}

async fn start_admin(
    door: Admin,
    config: &admin::Config,
    doors: &Doors,
    live: axum::Router,
    surroundings: &Surroundings,
) -> anyhow::Result<DoorHandle> {
    let (config, doors) = (config.clone(), doors.clone());
    let starting = surroundings.tower.spawn(async move { door.start(&config, &doors, live) });
    starting.await?.context("open the admin door")
}

/// What a guarded door asks for.
///
/// # Errors
/// When the token file cannot be used.
pub(crate) fn access(
    section: &'static str,
    token_file: Option<&Path>,
    host_names: &[String],
    open_paths: &'static [&'static str],
) -> Result<Guard, belfry_door::Error> {
    let tokens = token_file.map(Tokens::open).transpose()?.map(Arc::new);
    let host_names = host_names.to_vec();
    let (cors_origins, cors_paths) = (Vec::new(), &[][..]);
    Ok(Guard { section, tokens, pushes: None, host_names, open_paths, cors_origins, cors_paths })
}
