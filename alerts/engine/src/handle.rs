//! How others talk to the engine.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use belfry_notify::NotifyHandle;
use belfry_signal::{Pii, Registry};
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::Clock;
use crate::config::Config;
use crate::desk::{self, Beginning, DeskHandle, Metrics, Routing, Sources};
use crate::error::Error;
use crate::handling::{self, Handling};
use crate::routes;
use crate::rules;
use crate::run::{Command, Runner};
use crate::signals::Signals;
use crate::status::{Change, Status};
use crate::store::Store;

/// Commands that may wait for the engine.
const COMMANDS_MAX: usize = 64;

/// Starts the engine.
#[derive(Debug)]
pub struct Engine;

/// What the engine works with.
#[derive(Clone, Debug)]
pub struct EngineDeps {
    /// Where the journey counts are, and the site's name.
    pub registry: Registry,
    /// Who is told of pages.
    pub notify: NotifyHandle,
    /// What silences and inhibits pages; without it nothing does.
    pub desk: Option<DeskHandle>,
}

/// What the desk works with.
#[derive(Debug)]
pub struct DeskDeps {
    /// Its settings.
    pub routing: Routing,
    /// What its files say.
    pub sources: Sources,
    /// Where it keeps what survives a restart.
    pub directory: PathBuf,
    /// For its signals.
    pub registry: Registry,
    /// Who is told.
    pub notify: NotifyHandle,
    /// The store of series; without one no rule is evaluated.
    pub metrics: Option<Metrics>,
}

/// Starts the desk. Call it inside a tokio runtime, when starting up: it reads its store before it returns.
///
/// # Errors
/// When the store cannot be opened.
pub fn start_desk(deps: DeskDeps) -> Result<DeskHandle, Error> {
    desk::start(Beginning {
        routing: deps.routing,
        sources: deps.sources,
        metrics: deps.metrics,
        notify: deps.notify,
        store_directory: deps.directory,
        signals: Signals::register(&deps.registry),
        clock: Clock::wall(),
    })
}

/// Shows what the engine knows. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EngineHandle {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Arc<Status>>,
    store: Store,
    signals: Signals,
    desk: Option<DeskHandle>,
    handling: Handling,
}

impl Engine {
    /// Reads the rules and what was left from before, and begins to judge. Call it inside a tokio runtime, when
    /// starting up: it reads its store before it returns.
    ///
    /// # Errors
    /// When the configuration or the rules cannot stand, or the store cannot be opened.
    pub fn start(config: Config, deps: EngineDeps) -> Result<EngineHandle, Error> {
        start_with(config, deps, Clock::wall())
    }
}

/// Starts with the given clock.
pub(crate) fn start_with(config: Config, deps: EngineDeps, clock: Clock) -> Result<EngineHandle, Error> {
    let rules = rules::load(&config.rules)?;
    if let Some((key, message)) = config.check().into_iter().next() {
        return Err(Error::Config { key, message });
    }
    let store = Store::open(&config.directory)?;
    let loaded = store.load()?;
    // Both name their metrics together, and a name is registered once.
    let signals = match &deps.desk {
        Some(desk) => desk.signals(),
        None => Signals::register(&deps.registry),
    };
    let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
    let (publisher, status) = watch::channel(Arc::new(Status::default()));
    let (desk, notify) = (deps.desk.clone(), deps.notify.clone());
    let mut runner = Runner::new(config, rules, deps, store.clone(), signals.clone(), clock, publisher);
    runner.restore(loaded);
    tokio::spawn(runner.run(receiver));
    let handling = Handling { notify, desk: desk.clone(), status: status.clone() };
    Ok(EngineHandle { commands, status, store, signals, desk, handling })
}

impl EngineHandle {
    /// Every snapshot, once a second.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Status>> {
        self.status.clone()
    }

    /// The newest snapshot.
    #[must_use]
    pub fn status(&self) -> Arc<Status> {
        self.status.borrow().clone()
    }

    /// Records that something was changed, for whoever asks "what happened at that time?". Never waits: when
    /// the engine is busy the change is dropped and counted.
    pub fn record_change(&self, change: Change) {
        if self.commands.try_send(Command::Change(change)).is_err() {
            self.signals.change_dropped();
        }
    }

    /// The Call-ID behind an example link of a page; numbers begin with 1. `None` when there is none.
    #[must_use]
    pub fn example(&self, page_id: &str, number: usize) -> Option<Pii<String>> {
        self.store.example(page_id, number).unwrap_or_else(|error| {
            self.signals.store_failed(&error);
            None
        })
    }

    /// Judges one last time, writes everything down and ends. Names what could not be written.
    pub async fn drain(&self, deadline: Duration) -> Vec<String> {
        let (done, ended) = oneshot::channel();
        let asking = async {
            if self.commands.send(Command::Drain(done)).await.is_err() {
                return Vec::new();
            }
            ended.await.unwrap_or_default()
        };
        let mut stragglers = match tokio::time::timeout(deadline, asking).await {
            Ok(stragglers) => stragglers,
            Err(_elapsed) => vec!["alerts: the engine did not end in time".to_owned()],
        };
        if let Some(desk) = &self.desk {
            stragglers.extend(desk.drain(deadline).await);
        }
        stragglers
    }

    /// Notes who works on a page or a group's incident (name and comment), or that nobody does. Services that were told
    /// of it hear of it. Whether there is such an open incident.
    ///
    /// # Errors
    /// Why it could not be noted, for people.
    pub async fn acknowledge(&self, incident: &str, by: Option<(String, String)>) -> Result<bool, String> {
        let by = by.map(|(name, comment)| (name, comment, None));
        self.handling.acknowledge(incident, by).await.map_err(|refusal| refusal.1)
    }

    /// What owns rules, silences and routes.
    #[must_use]
    pub fn desk(&self) -> Option<&DeskHandle> {
        self.desk.as_ref()
    }

    /// The JSON APIs: `/api/v1/incidents/{incident}/acknowledgement`, `/api/v1/slos`, `/api/v1/cells`, `/api/v1/pages`, `/api/v1/changes`; with a desk also Prometheus'
    /// `/api/v1/rules` and `/api/v1/alerts` and Alertmanager's `/api/v2`.
    pub fn router(&self) -> axum::Router {
        let router = routes::router(self.status.clone()).merge(handling::router(self.handling.clone()));
        match &self.desk {
            Some(desk) => router.merge(desk::router(desk.clone())),
            None => router,
        }
    }
}
