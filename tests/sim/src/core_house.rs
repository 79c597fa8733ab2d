//! The core with its state, and the ends of its links that the simulation holds.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use belfry_mesh::{LinkReceiver, LinkSender, Links, Mesh, Service};
use belfry_relay_api::{FromRelay, ToRelay};
use belfry_routing::Plan;
use belfry_signal::{Registry, Resource, TraceKey};
use belfry_signalling::handle::{FromEdge, PublicAddress, ToEdge, Transport};
use belfry_signalling::{Config, Core, CoreHandle, Deps, Faults, Prepaid, Routes};
use belfry_state::{State, Subscriber};
use serde::Deserialize as _;
use tempfile::TempDir;

use crate::dice::Seed;
use crate::message::{DOMAIN, PASSWORD};

/// As shipped; a run changes what it must.
const SHIPPED: &str = include_str!("../../../belfry.toml");

/// A day: nothing that was read once is read again, because the database's threads know nothing of our time.
const FOR_EVER: Duration = Duration::from_secs(86_400);

const PLAN: &str = r#"
    [[tenants]]
    name = "acme"
    domains = ["belfry.test"]
    concurrent_calls_max = 500
    subscriber_concurrent_calls_max = 20
    [[trunks]]
    name = "one"
    gateways = [{ uri = "sip:192.0.2.201" }]
    concurrent_calls_max = 6
    response_timeout_seconds = 4
    cost = "0.01"
    [[trunks]]
    name = "two"
    accept_networks = ["192.0.2.202/32"]
    gateways = [{ uri = "sip:192.0.2.202" }, { uri = "sip:192.0.2.203", priority = 2 }]
    concurrent_calls_max = 40
    response_timeout_seconds = 6
    cost = "0.1"
"#;

/// How often a folder is asked for that a dead core still holds.
const PATIENCE: usize = 10_000;

/// What a start takes of the story's time, in milliseconds.
const START_MS: u64 = 300;

/// The core and the ends of its links.
pub(crate) struct CoreHouse {
    pub(crate) config: Config,
    /// None while the core is dead.
    state: Option<State>,
    /// The present life of the core.
    pub(crate) life: Life,
    /// What its lives counted, the first one first.
    registries: Vec<Registry>,
    /// When the core's wheels began to turn.
    pub(crate) origin: Instant,
    /// Whoever is asked for by name: read before the story goes on, because the database has threads of its own.
    names: Vec<String>,
    directory: TempDir,
}

/// A core from its start to its end, and the simulation's ends of its links; a link that is lost has none.
pub(crate) struct Life {
    pub(crate) core: CoreHandle,
    pub(crate) edge: Option<(LinkSender<FromEdge>, LinkReceiver<ToEdge>)>,
    pub(crate) relay: Option<(LinkSender<FromRelay>, LinkReceiver<ToRelay>)>,
    edge_links: Links<FromEdge, ToEdge>,
    relay_links: Links<FromRelay, ToRelay>,
}

fn config_of(seed: Seed) -> Config {
    let table: toml::Table = SHIPPED.parse().expect("the shipped configuration");
    let section = table["core"]["signalling"].clone();
    let mut config = Config::deserialize(section).expect("the shipped configuration");
    let mut dice = seed.dice("configuration");
    config.domains = vec![DOMAIN.to_owned()];
    config.nonce_lifetime = FOR_EVER;
    config.anchor_media = dice.happens(850);
    config.hiding.customers = dice.happens(300);
    if dice.happens(300) {
        config.hiding.trunks = vec!["*".to_owned()];
    }
    config.ring_timeout = Duration::from_secs(dice.pick(&[30, 45, 190]));
    config.fork_ring_timeout = Duration::from_secs(dice.pick(&[3, 20]));
    config.call_lifetime = Duration::from_secs(240);
    config.session_interval = Duration::from_secs(dice.pick(&[0, 0, 90]));
    config.routes_poll_interval = FOR_EVER;
    // The disk's threads know nothing of our time.
    config.store_timeout = FOR_EVER;
    config.prepaid.poll_interval = FOR_EVER;
    config.trace_one_in = 1;
    config
}

/// Tokio's paused clock does not run while a blocking task does; so it stands still while threads work that know nothing
/// of our time.
pub(crate) struct Brake {
    release: std::sync::mpsc::SyncSender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Brake {
    pub(crate) fn put() -> Self {
        let (release, released) = std::sync::mpsc::sync_channel::<()>(0);
        // It ends when the other end is gone.
        let task = tokio::task::spawn_blocking(move || {
            let _ = released.recv();
        });
        Self { release, task }
    }

    pub(crate) async fn release(self) {
        drop(self.release);
        // It cannot panic.
        let _ = self.task.await;
    }
}

/// Gives the processor to other threads and to other tasks.
pub(crate) async fn let_threads_work() {
    std::thread::sleep(Duration::from_micros(20));
    tokio::task::yield_now().await;
}

impl CoreHouse {
    /// Starts it in real time, because the database's threads take some.
    pub(crate) async fn start(seed: Seed, users: &[String], strangers: &[String]) -> Self {
        let shared_memory = Path::new("/dev/shm");
        let place = if shared_memory.is_dir() { shared_memory.to_owned() } else { std::env::temp_dir() };
        let directory = TempDir::with_prefix_in("belfry-sim-", place).expect("a temporary folder");
        let registry = registry();
        let state = open_state(&directory, &registry).await;
        for user in users {
            state.put_subscriber(&Subscriber::new(user, DOMAIN, PASSWORD)).await.expect("state writes");
        }
        let names: Vec<String> = users.iter().chain(strangers).cloned().collect();
        read_names(&state, &names).await;
        // From here on time is the story's: the core's wheels begin to turn where it begins.
        tokio::time::pause();
        tokio::time::sleep(Duration::from_millis(1)).await;
        let origin = Instant::now();
        let config = config_of(seed);
        let life = Life::begin(&config, &state, &registry).await;
        Self { config, state: Some(state), life, registries: vec![registry], origin, names, directory }
    }

    pub(crate) fn state(&self) -> &State {
        self.state.as_ref().expect("the core lives")
    }

    /// The core dies as in a crash. What it handed to its state is on the disk, as it is with a process that is killed;
    /// what it had in memory is gone.
    pub(crate) async fn crash(&mut self) {
        self.life.core.kill().await;
        (self.life.edge, self.life.relay) = (None, None);
        let stragglers = self.state().drain(Duration::from_secs(10)).await;
        assert_eq!(stragglers, Vec::<String>::new(), "state lets go of its folder");
        self.state = None;
    }

    /// Another one starts from what is on the disk.
    pub(crate) async fn start_again(&mut self) {
        let registry = registry();
        let brake = Brake::put();
        let state = open_state(&self.directory, &registry).await;
        read_names(&state, &self.names).await;
        brake.release().await;
        self.life = Life::begin(&self.config, &state, &registry).await;
        self.state = Some(state);
        self.registries.push(registry);
    }

    /// The sum over all lines of a metric of the present life that begin so.
    pub(crate) fn gauge(&self, start: &str) -> f64 {
        self.registries.last().map_or(0.0, |registry| sum(registry, start))
    }

    /// The sum over all lines of a metric that begin so, in all lives of the core.
    pub(crate) fn count(&self, start: &str) -> f64 {
        self.registries.iter().map(|registry| sum(registry, start)).sum()
    }
}

fn registry() -> Registry {
    // Nobody reads the records.
    Registry::new(Resource::for_test(), 16).0
}

async fn open_state(directory: &TempDir, registry: &Registry) -> State {
    let mut config = belfry_state::Config::for_test(directory.path());
    config.subscribers_cached_max = 10_000;
    config.subscriber_cached_for = FOR_EVER;
    config.bindings_per_address_max = 10;
    config.snapshot_interval = FOR_EVER;
    config.records_spool_bytes_max = 1 << 30;
    config.records_in_memory_max = 10_000;
    for _ in 0..PATIENCE {
        match State::open(config.clone(), registry).await {
            Ok(state) => return state,
            // Tasks of the dead core let go of the folder when they get the processor.
            Err(error) if error.reason() == "in_use" => let_threads_work().await,
            Err(error) => panic!("state does not open: {error}"),
        }
    }
    panic!("the dead core does not let go of its folder");
}

async fn read_names(state: &State, names: &[String]) {
    for name in names {
        state.subscriber(name, DOMAIN).await.expect("state reads");
    }
}

fn sum(registry: &Registry, start: &str) -> f64 {
    let text = registry.encode_text();
    let lines = text.lines().filter(|line| line.starts_with(start));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

impl Life {
    async fn begin(config: &Config, state: &State, registry: &Registry) -> Self {
        let mesh = Mesh::for_test(registry);
        let relay_links = mesh.serve::<FromRelay, ToRelay>(Service::Media);
        let plan: Plan = toml::from_str(PLAN).expect("a plan");
        let deps = Deps {
            registry: registry.clone(),
            mesh: mesh.clone(),
            state: state.clone(),
            routes: Routes::of(plan, config, Path::new("")).expect("routes"),
            prepaid: Prepaid::default(),
            trace_key: TraceKey::new([7; 32]),
            faults: Faults::default(),
        };
        let core = Core::start(config.clone(), deps).expect("the core starts");
        let edge_links = mesh.dial::<FromEdge, ToEdge>(Service::Signalling);
        let mut life = Self { core, edge: None, relay: None, edge_links, relay_links };
        life.meet_edge().await;
        life.meet_relay().await;
        // What reads the database has read it before the story goes on, which takes the same time in every run.
        let signs = ["core_edges 1", "core_relays 1", "core_prepaid_ready 1"];
        let is_ready = || signs.iter().all(|sign| registry.encode_text().lines().any(|known| known == *sign));
        for _ in 0..START_MS {
            for _ in 0..5 {
                let_threads_work().await;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(is_ready(), "the core starts in time: {}", registry.encode_text());
        life
    }

    /// The edge connects and says who it is.
    pub(crate) async fn meet_edge(&mut self) {
        let (to_core, from_core) = self.edge_links.next().await.expect("a link to the core").split();
        let addresses = [(Transport::Udp, 5060), (Transport::Tcp, 5060)];
        let addresses = addresses
            .into_iter()
            .map(|(transport, port)| PublicAddress { transport, host: "edge.test".to_owned(), port })
            .collect();
        to_core.try_send(FromEdge::Hello { node: "edge-1".to_owned(), addresses }).expect("room");
        self.edge = Some((to_core, from_core));
    }

    /// The core's link to the relay is there.
    pub(crate) async fn meet_relay(&mut self) {
        self.relay = Some(self.relay_links.next().await.expect("a link of the core").split());
    }
}
