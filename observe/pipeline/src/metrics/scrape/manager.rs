//! Which targets there are: jobs from the file, their targets from the ways of finding them, a task for each.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;

use super::client::Client;
use super::config::{FileConfig, Job};
use super::masked::masked;
use super::page::{Ending, Scraping, Surroundings};
use super::target::{Made, Target, make};
use super::{Config, MeshNodes, discovery};
use crate::handle::PipelineHandle;
use crate::metrics::collect::Memory;
use crate::metrics::relabel::LabelMap;
use crate::metrics::signals::ScrapeSignals;

/// Lists of targets that wait to be taken.
const FOUND_WAITING: usize = 8;
/// Dropped targets that are told, where a job says nothing.
const DROPPED_KEPT: usize = 1000;

/// All jobs.
pub(super) struct Manager {
    config: Config,
    surroundings: Surroundings,
    nodes: MeshNodes,
    pools: Mutex<BTreeMap<String, Pool>>,
    /// Targets over all jobs.
    targets: Arc<AtomicUsize>,
    /// What the file said, without its secrets.
    shown: Mutex<String>,
}

/// One job, running.
struct Pool {
    /// To see whether a new file changes it.
    fingerprint: String,
    state: Arc<Mutex<PoolState>>,
    tasks: Vec<JoinHandle<()>>,
}

/// What one job scrapes now.
#[derive(Default)]
pub(super) struct PoolState {
    active: HashMap<String, Running>,
    pub(super) dropped: Vec<LabelMap>,
    pub(super) dropped_count: usize,
    /// Why targets could not be made, the first of the last list.
    pub(super) fault: Option<String>,
}

struct Running {
    target: Arc<Target>,
    ending: watch::Sender<Ending>,
}

impl std::fmt::Debug for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manager").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Manager {
    pub(super) fn new(
        config: Config,
        pipeline: PipelineHandle,
        signals: ScrapeSignals,
        nodes: MeshNodes,
    ) -> Self {
        let turns = Arc::new(Semaphore::new(config.scrapes_max));
        let page_bytes_max = config.page_bytes_max;
        let surroundings = Surroundings { pipeline, signals, turns, page_bytes_max };
        let targets = Arc::new(AtomicUsize::new(0));
        Self { config, surroundings, nodes, pools: Mutex::default(), targets, shown: Mutex::default() }
    }

    fn pools(&self) -> MutexGuard<'_, BTreeMap<String, Pool>> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what the file says now.
    pub(super) fn apply(&self) -> Result<(), String> {
        let Some(path) = &self.config.file else { return Ok(()) };
        let (_, jobs) = FileConfig::load(path)?;
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let shown = masked(&text).map_err(|fault| format!("{}: {fault}", path.display()))?;
        // Whatever can fail does so before anything is changed.
        let clients: Vec<Client> = jobs
            .iter()
            .map(|job| Client::new(job.http.clone()).map_err(|fault| format!("job {:?}: {fault}", job.name)))
            .collect::<Result<_, _>>()?;
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown;
        let mut pools = self.pools();
        let mut before = std::mem::take(&mut *pools);
        for (job, client) in jobs.into_iter().zip(clients) {
            let fingerprint = format!("{job:?}");
            match before.remove(&job.name) {
                Some(same) if same.fingerprint == fingerprint => {
                    pools.insert(job.name.clone(), same);
                }
                other => {
                    if let Some(other) = other {
                        self.end(other, Ending::Quiet);
                    }
                    pools.insert(job.name.clone(), self.begin(job, client, fingerprint));
                }
            }
        }
        for (_, gone) in before {
            self.end(gone, Ending::Gone);
        }
        self.surroundings.signals.started(pools.len());
        Ok(())
    }

    pub(super) fn stop(&self) {
        for (_, pool) in std::mem::take(&mut *self.pools()) {
            self.end(pool, Ending::Quiet);
        }
    }

    fn begin(&self, job: Job, client: Client, fingerprint: String) -> Pool {
        let job = Arc::new(job);
        let state = Arc::new(Mutex::new(PoolState::default()));
        let (found, lists) = mpsc::channel(FOUND_WAITING);
        let signals = self.surroundings.signals.clone();
        let finding = discovery::run(Arc::clone(&job), Arc::clone(&self.nodes), signals, found);
        let syncing = Syncing {
            job,
            client,
            surroundings: self.surroundings.clone(),
            state: Arc::clone(&state),
            targets: Arc::clone(&self.targets),
            targets_max: self.config.targets_max,
        };
        let tasks = vec![tokio::spawn(finding), tokio::spawn(syncing.run(lists))];
        Pool { fingerprint, state, tasks }
    }

    fn end(&self, pool: Pool, ending: Ending) {
        pool.tasks.iter().for_each(JoinHandle::abort);
        let mut state = pool.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.targets.fetch_sub(state.active.len(), Ordering::Relaxed);
        for (_, running) in state.active.drain() {
            running.ending.send_replace(ending);
        }
    }

    /// What each job scrapes: its name, its targets by address, and its state.
    pub(super) fn view<T>(&self, mut each: impl FnMut(&str, &[Arc<Target>], &PoolState) -> T) -> Vec<T> {
        let pools = self.pools();
        let view = |(name, pool): (&String, &Pool)| {
            let state = pool.state.lock().unwrap_or_else(PoisonError::into_inner);
            let mut targets: Vec<Arc<Target>> =
                state.active.values().map(|running| Arc::clone(&running.target)).collect();
            targets.sort_by_key(|target| target.uri.to_string());
            each(name, &targets, &state)
        };
        pools.iter().map(view).collect()
    }

    /// The file as it was last taken, without secrets.
    pub(super) fn text(&self) -> String {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Takes lists of targets as they come, and starts and ends tasks.
struct Syncing {
    job: Arc<Job>,
    client: Client,
    surroundings: Surroundings,
    state: Arc<Mutex<PoolState>>,
    targets: Arc<AtomicUsize>,
    targets_max: usize,
}

impl Syncing {
    async fn run(self, mut lists: mpsc::Receiver<discovery::Found>) {
        let mut by_way: BTreeMap<usize, Vec<LabelMap>> = BTreeMap::new();
        while let Some((way, targets)) = lists.recv().await {
            by_way.insert(way, targets);
            self.sync(by_way.values().flatten());
        }
    }

    fn sync<'a>(&self, found: impl Iterator<Item = &'a LabelMap>) {
        let mut wanted: BTreeMap<String, Target> = BTreeMap::new();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let kept_max = if self.job.dropped_kept_max > 0 { self.job.dropped_kept_max } else { DROPPED_KEPT };
        (state.dropped, state.dropped_count, state.fault) = (Vec::new(), 0, None);
        for labels in found {
            match make(&self.job, labels) {
                Made::Target(target) => drop(wanted.insert(target.key(), *target)),
                Made::Dropped(labels) => {
                    state.dropped_count += 1;
                    if state.dropped.len() < kept_max {
                        state.dropped.push(labels);
                    }
                }
                Made::Fault(fault) => drop(state.fault.get_or_insert(fault)),
            }
        }
        if self.job.targets_max > 0 && wanted.len() > self.job.targets_max {
            // As Prometheus does: a job with too many targets has none, so that somebody notices.
            let text =
                format!("{} targets are more than target_limit {}", wanted.len(), self.job.targets_max);
            state.fault = Some(text);
            wanted.clear();
        }
        let gone: Vec<String> =
            state.active.keys().filter(|key| !wanted.contains_key(*key)).cloned().collect();
        self.targets.fetch_sub(gone.len(), Ordering::Relaxed);
        for key in gone {
            if let Some(running) = state.active.remove(&key) {
                running.ending.send_replace(Ending::Gone);
            }
        }
        let mut refused = 0;
        for (key, target) in wanted {
            if state.active.contains_key(&key) {
                continue;
            }
            if self.targets.fetch_add(1, Ordering::Relaxed) >= self.targets_max {
                self.targets.fetch_sub(1, Ordering::Relaxed);
                refused += 1;
                continue;
            }
            let running = self.start(target);
            state.active.insert(key, running);
        }
        if refused > 0 {
            state.fault = Some(format!("{refused} targets are more than targets_max allows"));
        }
        self.surroundings.signals.targets_counted(self.targets.load(Ordering::Relaxed), refused);
    }

    fn start(&self, target: Target) -> Running {
        let (ending, is_ending) = watch::channel(Ending::Not);
        let target = Arc::new(target);
        let scraping = Scraping {
            job: Arc::clone(&self.job),
            target: Arc::clone(&target),
            client: self.client.clone(),
            surroundings: self.surroundings.clone(),
            ending: is_ending,
            memory: Memory::default(),
        };
        tokio::spawn(scraping.run());
        Running { target, ending }
    }
}
