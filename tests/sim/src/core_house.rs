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

/// The core and the ends of its links.
pub(crate) struct CoreHouse {
    pub(crate) core: CoreHandle,
    pub(crate) config: Config,
    pub(crate) state: State,
    pub(crate) registry: Registry,
    pub(crate) to_core: LinkSender<FromEdge>,
    pub(crate) from_core: LinkReceiver<ToEdge>,
    pub(crate) to_relays_owner: LinkSender<FromRelay>,
    pub(crate) from_relays_owner: LinkReceiver<ToRelay>,
    /// When the core's wheels began to turn.
    pub(crate) origin: Instant,
    _edge_links: Links<FromEdge, ToEdge>,
    _relay_links: Links<FromRelay, ToRelay>,
    _directory: TempDir,
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
        // Nobody reads the records.
        let (registry, _records) = Registry::new(Resource::for_test(), 16);
        let mut state_config = belfry_state::Config::for_test(directory.path());
        state_config.subscribers_cached_max = 10_000;
        state_config.subscriber_cached_for = FOR_EVER;
        state_config.bindings_per_address_max = 10;
        state_config.snapshot_interval = FOR_EVER;
        state_config.records_spool_bytes_max = 1 << 30;
        state_config.records_in_memory_max = 10_000;
        let state = State::open(state_config, &registry).await.expect("state opens");
        for user in users {
            state.put_subscriber(&Subscriber::new(user, DOMAIN, PASSWORD)).await.expect("state writes");
        }
        for user in users.iter().chain(strangers) {
            state.subscriber(user, DOMAIN).await.expect("state reads");
        }
        // From here on time is the story's: the core's wheels begin to turn where it begins.
        tokio::time::pause();
        tokio::time::sleep(Duration::from_millis(1)).await;
        let origin = Instant::now();
        let mesh = Mesh::for_test(&registry);
        let mut relay_links = mesh.serve::<FromRelay, ToRelay>(Service::Media);
        let config = config_of(seed);
        let plan: Plan = toml::from_str(PLAN).expect("a plan");
        let deps = Deps {
            registry: registry.clone(),
            mesh: mesh.clone(),
            state: state.clone(),
            routes: Routes::of(plan, &config, Path::new("")).expect("routes"),
            prepaid: Prepaid::default(),
            trace_key: TraceKey::new([7; 32]),
            faults: Faults::default(),
        };
        let core = Core::start(config.clone(), deps).expect("the core starts");
        let mut edge_links = mesh.dial::<FromEdge, ToEdge>(Service::Signalling);
        let (to_core, from_core) = edge_links.next().await.expect("a link to the core").split();
        let addresses = [(Transport::Udp, 5060), (Transport::Tcp, 5060)];
        let addresses = addresses
            .into_iter()
            .map(|(transport, port)| PublicAddress { transport, host: "edge.test".to_owned(), port })
            .collect();
        to_core.try_send(FromEdge::Hello { node: "edge-1".to_owned(), addresses }).expect("room");
        let (to_relays_owner, from_relays_owner) =
            relay_links.next().await.expect("a link of the core").split();
        let house = Self {
            core,
            config,
            state,
            registry,
            to_core,
            from_core,
            to_relays_owner,
            from_relays_owner,
            origin,
            _edge_links: edge_links,
            _relay_links: relay_links,
            _directory: directory,
        };
        // What reads the database has read it before the story begins.
        let signs = ["core_edges 1", "core_relays 1", "core_prepaid_ready 1"];
        while !signs.iter().all(|sign| house.has(sign)) {
            let_threads_work().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        house
    }

    fn has(&self, line: &str) -> bool {
        self.registry.encode_text().lines().any(|known| known == line)
    }

    /// The sum over all lines of a metric that begin so.
    pub(crate) fn sum(&self, start: &str) -> f64 {
        let text = self.registry.encode_text();
        let lines = text.lines().filter(|line| line.starts_with(start));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }
}
