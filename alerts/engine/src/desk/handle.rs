//! How others talk to the desk.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use belfry_dispatch::{Dispatch, Incoming, Taken};
use belfry_promql::Series;
use belfry_signal::SeriesBatch;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::prometheus::GroupStatus;
use super::settings::Sources;
use super::store::Audit;
use super::{SLO_SOURCE, millis};
use crate::clock::Clock;
use crate::signals::Signals;

/// Commands that may wait.
pub(super) const COMMANDS_MAX: usize = 256;
/// How long the pages of SLOs wait for the desk; after it they go out as if nothing kept them.
const JUDGE_TIMEOUT: Duration = Duration::from_millis(500);

/// Stores points; an error says that they were not stored.
pub type Write =
    Arc<dyn Fn(SeriesBatch) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// Lends work the series to judge by, which end early when the flag is raised, and say by an error what they cannot give:
/// rules must not judge by a part. May block.
pub type Read = Arc<dyn Fn(&AtomicBool, &mut dyn FnMut(&dyn Series)) + Send + Sync>;

/// The store of series, as the rules need it.
#[derive(Clone)]
pub struct Metrics {
    /// Reads.
    pub read: Read,
    /// Writes.
    pub write: Write,
    /// Labels that name this Belfry to others.
    pub external_labels: Vec<(String, String)>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

type Ask = Box<dyn FnOnce(&mut Dispatch, i64) + Send>;
/// What is told when it is known whether the change is on disk.
type Answer = Box<dyn FnOnce(bool) + Send>;
type AskAndSave = Box<dyn FnOnce(&mut Dispatch, i64) -> (Option<Audit>, Answer) + Send>;

/// What became of a change.
#[derive(Debug)]
pub(crate) enum Changed<T> {
    /// It is on disk.
    Saved(T),
    /// It holds, and a restart would lose it: the disk refuses. It is tried again each second.
    Unsaved,
    /// The desk has ended; nothing was changed.
    Ended,
}

/// What the handle asks for.
pub(super) enum Command {
    Ask(Ask),
    AskAndSave(AskAndSave),
    Post { alerts: Vec<Incoming>, done: oneshot::Sender<Taken> },
    Reload { sources: Box<Sources>, done: oneshot::Sender<()> },
    Drain(oneshot::Sender<Vec<String>>),
}

/// Shows and changes alerts, silences and rules. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DeskHandle {
    commands: mpsc::Sender<Command>,
    statuses: watch::Receiver<Arc<Vec<Arc<GroupStatus>>>>,
    clock: Clock,
    signals: Signals,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Command")
    }
}

impl DeskHandle {
    pub(super) fn new(
        commands: mpsc::Sender<Command>,
        statuses: watch::Receiver<Arc<Vec<Arc<GroupStatus>>>>,
        clock: Clock,
        signals: Signals,
    ) -> Self {
        Self { commands, statuses, clock, signals }
    }

    /// What the whole crate tells.
    pub(crate) fn signals(&self) -> Signals {
        self.signals.clone()
    }

    /// Every group of rules as it was last evaluated.
    #[must_use]
    pub fn rules(&self) -> Arc<Vec<Arc<GroupStatus>>> {
        self.statuses.borrow().clone()
    }

    pub(crate) fn now_ms(&self) -> i64 {
        millis(&self.clock)
    }

    /// Looks at what is known; `None` when the desk has ended.
    pub async fn ask<T: Send + 'static>(
        &self,
        look: impl FnOnce(&mut Dispatch, i64) -> T + Send + 'static,
    ) -> Option<T> {
        let (done, answer) = oneshot::channel();
        let ask: Ask = Box::new(move |dispatch, now_ms| drop(done.send(look(dispatch, now_ms))));
        self.commands.send(Command::Ask(ask)).await.ok()?;
        answer.await.ok()
    }

    /// Changes something that is to be on disk before it is answered, with a note of who changed it.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Dispatch, i64) -> (T, Option<Audit>) + Send + 'static,
    ) -> Changed<T> {
        let (done, answer) = oneshot::channel();
        let ask: AskAndSave = Box::new(move |dispatch, now_ms| {
            let (value, audit) = change(dispatch, now_ms);
            let answer: Answer = Box::new(move |is_saved| {
                let changed = if is_saved { Changed::Saved(value) } else { Changed::Unsaved };
                // A caller that is gone does not want to know.
                let _unheard = done.send(changed);
            });
            (audit, answer)
        });
        if self.commands.send(Command::AskAndSave(ask)).await.is_err() {
            return Changed::Ended;
        }
        answer.await.unwrap_or(Changed::Ended)
    }

    /// Takes alerts that somebody posted.
    pub(crate) async fn post(&self, alerts: Vec<Incoming>) -> Option<Taken> {
        let (done, answer) = oneshot::channel();
        self.commands.send(Command::Post { alerts, done }).await.ok()?;
        answer.await.ok()
    }

    /// The pages of SLOs that go on: of each, whether something keeps it from being told. A desk that does not answer
    /// keeps nothing.
    pub(crate) async fn judge_slos(&self, pages: Vec<Incoming>) -> Vec<bool> {
        let labels: Vec<_> = pages.iter().map(|page| page.labels.clone()).collect();
        let judging = self.ask(move |dispatch, now_ms| {
            dispatch.sync(SLO_SOURCE, pages, now_ms);
            labels.iter().map(|labels| !dispatch.muted(labels, now_ms).is_audible()).collect()
        });
        timeout(JUDGE_TIMEOUT, judging).await.ok().flatten().unwrap_or_default()
    }

    /// Takes other rules and routes; what alerts and groups remember stays.
    pub async fn reload(&self, sources: Sources) {
        let (done, answer) = oneshot::channel();
        let command = Command::Reload { sources: Box::new(sources), done };
        if self.commands.send(command).await.is_ok() {
            // A desk that has ended reloads nothing.
            let _ended = answer.await;
        }
    }

    /// Writes everything down and ends; names what could not be.
    pub(crate) async fn drain(&self, deadline: Duration) -> Vec<String> {
        let (done, ended) = oneshot::channel();
        let asking = async {
            if self.commands.send(Command::Drain(done)).await.is_err() {
                return Vec::new();
            }
            ended.await.unwrap_or_default()
        };
        timeout(deadline, asking)
            .await
            .unwrap_or_else(|_| vec!["alerts: the desk did not end in time".to_owned()])
    }
}
