//! The look at a service's incidents every few minutes: what no webhook told us.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

use super::incidents;
use crate::client::Get;
use crate::sender::Command;
use crate::signals::{ServiceName, Signals};
use crate::target::Destination;

/// Looks at the incidents of one service.
pub(crate) struct Reconciler {
    pub(crate) service: String,
    pub(crate) name: ServiceName,
    /// The beginning of every address, with the login.
    pub(crate) api: Destination,
    pub(crate) look_every: Duration,
    /// Incidents that are asked for in one look; the others have their turn in the next.
    pub(crate) looks_max: usize,
    pub(crate) get: Get,
    /// Weak, so that notification ends when nobody else holds a handle.
    pub(crate) commands: mpsc::WeakSender<Command>,
    /// Somebody knows that there is something to see.
    pub(crate) nudge: Arc<Notify>,
    pub(crate) signals: Signals,
}

impl Reconciler {
    /// Looks until nobody takes what it sees.
    pub(crate) async fn run(self) {
        let mut ticks = interval(self.look_every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut after = String::new();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.nudge.notified() => {}
            }
            let Some(is_done) = self.look(&mut after).await else { return };
            self.signals.looked(&self.name, is_done);
        }
    }

    /// One look, going on after the key where the last one ended. Whether the service answered; `None` when nobody
    /// listens here any more.
    async fn look(&self, after: &mut String) -> Option<bool> {
        let commands = self.commands.upgrade()?;
        let (done, keys) = oneshot::channel();
        commands.send(Command::OpenKeys { service: self.service.clone(), done }).await.ok()?;
        // A store that fails has said so itself.
        let Ok(keys) = keys.await.ok()? else { return Some(true) };
        let split = keys.partition_point(|key| key <= after);
        let turn: Vec<&String> = keys[split..].iter().chain(&keys[..split]).take(self.looks_max).collect();
        for key in turn {
            let Ok(at) = self.api.below(&incidents::query(key)) else { return Some(false) };
            let Some(body) = (self.get)(at).await else { return Some(false) };
            let Ok(report) = incidents::read(key, &body) else { return Some(false) };
            after.clone_from(key);
            let Some(report) = report else { continue };
            let (done, taken) = oneshot::channel();
            commands.send(Command::Report { service: self.service.clone(), report, done }).await.ok()?;
            if taken.await.ok()?.is_err() {
                return Some(true);
            }
        }
        Some(true)
    }
}
