//! Work on the store of metrics while Belfry runs, ordered through the admin door: deletion, snapshot, export, import,
//! compaction. One piece of work at a time, in a thread of its own; who ordered it is kept in the log.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use axum::extract::{Extension, Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use belfry_door::PeerAddress;
use belfry_series::{Error, Maintenance};
use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use crate::live::Problem;
use crate::series;
use crate::signals::Signals;

/// The store, and what is done to it.
#[derive(Clone)]
pub struct Upkeep {
    /// None until the store is open, and in a process without one.
    maintenance: Arc<OnceLock<Maintenance>>,
    signals: Signals,
    work: Arc<Mutex<Option<Work>>>,
}

/// A piece of work and how it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// `delete`, `snapshot`, `export`, `import` or `compact`.
    pub work: String,
    /// How far it is.
    pub state: WorkState,
    /// Blocks done.
    pub done: u64,
    /// Blocks in all.
    pub all: u64,
    /// What came of it, or went wrong; empty while it runs.
    pub result: String,
}

/// How far a piece of work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkState {
    /// Under way.
    Running,
    /// Ended well.
    Done,
    /// Ended with an error. What was done stays; ordered again, it goes on from there.
    Failed,
}

/// What an order says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    /// Of a deletion: whose points.
    selector: Option<String>,
    from_ms: Option<i64>,
    to_ms: Option<i64>,
    /// Of the others: a directory on this machine.
    path: Option<PathBuf>,
}

/// What to do: it tells its progress and gives what came of it.
type Task = Box<dyn FnOnce(&Maintenance, belfry_series::Progress<'_>) -> Result<String, Error> + Send>;

impl Upkeep {
    /// Upkeep of a store that is not open yet: the door is, before.
    #[must_use]
    pub fn new(signals: Signals) -> Self {
        Self { maintenance: Arc::default(), signals, work: Arc::default() }
    }

    /// The store is open.
    pub fn set(&self, maintenance: Maintenance) {
        // There is one in a process.
        let _first = self.maintenance.set(maintenance);
    }

    /// `POST /api/v1/series/work/{work}` and `GET /api/v1/series/work`.
    pub fn router(self) -> Router {
        Router::new()
            .route("/api/v1/series/work", get(show))
            .route("/api/v1/series/work/{work}", post(order))
            .with_state(self)
    }

    fn held(&self) -> MutexGuard<'_, Option<Work>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a piece of work unless there is one.
    fn begin(&self, name: &str, task: Task) -> Result<Work, Problem> {
        let maintenance = self.maintenance.get().cloned();
        let maintenance =
            maintenance.ok_or_else(|| Problem::unavailable("no store of metrics is open in this process"))?;
        let work = {
            let mut held = self.held();
            if let Some(other) = held.as_ref().filter(|held| held.state == WorkState::Running) {
                let text =
                    format!("there is a {} under way: {} of {} blocks", other.work, other.done, other.all);
                return Err(Problem(StatusCode::CONFLICT, text));
            }
            let state = WorkState::Running;
            let work = Work { work: name.to_owned(), state, done: 0, all: 0, result: String::new() };
            held.insert(work).clone()
        };
        let upkeep = self.clone();
        let thread = std::thread::Builder::new().name("belfry-upkeep".to_owned());
        let started = thread.spawn(move || upkeep.run(&maintenance, task));
        started.map(|_| work).map_err(|error| {
            *self.held() = None;
            Problem::unavailable(&format!("no thread can be started: {error}"))
        })
    }

    fn run(&self, maintenance: &Maintenance, task: Task) {
        let mut progress = |done: u64, all: u64| {
            if let Some(work) = self.held().as_mut() {
                (work.done, work.all) = (done, all);
            }
        };
        // Work is on blocks: what is in memory becomes one first.
        let ended = maintenance.flush().and_then(|()| task(maintenance, &mut progress));
        if let Some(work) = self.held().as_mut() {
            (work.state, work.result) = match ended {
                Ok(text) => (WorkState::Done, text),
                Err(error) => (WorkState::Failed, error.to_string()),
            };
            self.signals.store_work_ended(&work.work, work.state == WorkState::Done, &work.result);
        }
    }
}

async fn show(State(upkeep): State<Upkeep>) -> Response {
    Json(upkeep.held().clone()).into_response()
}

async fn order(
    State(upkeep): State<Upkeep>,
    peer: Option<Extension<PeerAddress>>,
    Path(name): Path<String>,
    params: Result<Query<Order>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Problem> {
    let Query(order) = params.map_err(|rejection| {
        let known =
            "known are selector, from_ms and to_ms of delete, and path of snapshot, export and import";
        Problem(StatusCode::BAD_REQUEST, format!("{}; {known}", rejection.body_text()))
    })?;
    let subject = order.selector.clone().or(order.path.as_ref().map(|path| path.display().to_string()));
    let task = task(&name, order)?;
    let work = upkeep.begin(&name, task)?;
    let peer = peer.map(|Extension(PeerAddress(address))| address);
    upkeep.signals.store_work_ordered(&work.work, subject.as_deref().unwrap_or_default(), peer);
    Ok((StatusCode::ACCEPTED, Json(work)).into_response())
}

fn task(name: &str, order: Order) -> Result<Task, Problem> {
    let bad = |text: String| Problem(StatusCode::BAD_REQUEST, text);
    let path = || match order.path.clone().filter(|path| path.is_absolute()) {
        Some(path) => Ok(path),
        None => Err(bad(format!("{name} needs a path of this machine that begins at its root: ?path=/..."))),
    };
    Ok(match name {
        "delete" => {
            let selector = order.selector.as_deref();
            let selector =
                selector.ok_or_else(|| bad("delete needs a selector: ?selector=...".to_owned()))?;
            let matchers = series::matchers(selector).map_err(|error| bad(format!("{error:#}")))?;
            let (from_ms, to_ms) = (order.from_ms.unwrap_or(i64::MIN), order.to_ms.unwrap_or(i64::MAX));
            Box::new(move |maintenance, progress| {
                series::deleted(maintenance.delete(&matchers, from_ms, to_ms, progress)?)
            })
        }
        "snapshot" => {
            let path = path()?;
            Box::new(move |maintenance, progress| {
                series::copied(maintenance.snapshot(&path, progress)?, &path)
            })
        }
        "export" => {
            let path = path()?;
            Box::new(move |maintenance, progress| {
                series::carried(&maintenance.export_prometheus(&path, progress)?, &path)
            })
        }
        "import" => {
            let path = path()?;
            Box::new(move |maintenance, progress| {
                series::carried(&maintenance.import_prometheus(&path, progress)?, &path)
            })
        }
        "compact" => Box::new(|maintenance, _| series::compacted(maintenance)),
        _ => {
            let text = format!("{name} is no work: there are delete, snapshot, export, import, compact");
            return Err(Problem(StatusCode::NOT_FOUND, text));
        }
    })
}
