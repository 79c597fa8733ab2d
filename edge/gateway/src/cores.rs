//! The links to signalling cores: which one takes a message.
//!
//! Rendezvous hashing over the Call-ID: every message of a call goes to the same core as long as that core is up,
//! and a core that comes or goes moves only its own share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use belfry_mesh::{LinkError, LinkSender};
use belfry_signalling::handle::FromEdge;

use tokio::sync::watch;

use crate::signals::{CoreRefusal, Signals};
use crate::sip_text::hash;

/// One core, as long as its link lives.
#[derive(Clone, Debug)]
pub(crate) struct Core {
    id: u64,
    name: Arc<str>,
    sender: LinkSender<FromEdge>,
}

/// All cores that are up.
#[derive(Debug)]
pub(crate) struct Cores {
    links: ArcSwap<Vec<Core>>,
    next_id: AtomicU64,
    /// Whether a core ever came.
    has_come: watch::Sender<bool>,
    signals: Signals,
}

impl Core {
    /// Hands a message over; what does not fit is dropped and counted by the mesh.
    pub(crate) fn send(&self, message: FromEdge) -> Result<(), CoreRefusal> {
        self.sender.try_send(message).map_err(|error| match error {
            LinkError::Full => CoreRefusal::QueueFull,
            _ => CoreRefusal::NoneUp,
        })
    }
}

impl Cores {
    pub(crate) fn new(signals: Signals) -> Self {
        let has_come = watch::Sender::new(false);
        Self { links: ArcSwap::default(), next_id: AtomicU64::new(0), has_come, signals }
    }

    /// A link came up.
    pub(crate) fn add(&self, sender: LinkSender<FromEdge>) -> Core {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let core = Core { id, name: sender.peer().into(), sender };
        self.links.rcu(|links| {
            let mut links = Vec::clone(links);
            links.push(core.clone());
            links
        });
        self.signals.core_came(&core.name, self.links.load().len());
        self.has_come.send_replace(true);
        core
    }

    /// Returns when the first core has come.
    pub(crate) async fn first(&self) {
        // The sender is our own: it cannot be gone.
        let _ = self.has_come.subscribe().wait_for(|has_come| *has_come).await;
    }

    /// A link is gone.
    pub(crate) fn remove(&self, core: &Core) {
        self.links.rcu(|links| links.iter().filter(|link| link.id != core.id).cloned().collect::<Vec<_>>());
        self.signals.core_left(&core.name, self.links.load().len());
    }

    /// Hands a message to the core of its call.
    pub(crate) fn send(&self, call_id: &str, message: FromEdge) -> Result<(), CoreRefusal> {
        let links = self.links.load();
        let core = match &links[..] {
            [only] => Some(only),
            several => {
                let up = several.iter().filter(|link| link.sender.is_up());
                up.max_by_key(|link| weight(call_id, &link.name))
            }
        };
        core.map_or(Err(CoreRefusal::NoneUp), |core| core.send(message))
    }

    /// Whether a core does not keep up with what it is sent.
    pub(crate) fn is_any_behind(&self) -> bool {
        self.links.load().iter().any(|link| link.sender.is_behind())
    }

    /// Tells every core.
    pub(crate) fn tell_all(&self, message: &FromEdge) {
        for core in self.links.load().iter() {
            // A core whose queue is full learns from the flow's next use that it is gone.
            let _ = core.send(message.clone());
        }
    }
}

/// How much a core wants a call; the one that wants it most gets it.
fn weight(call_id: &str, core: &str) -> u64 {
    hash(call_id.as_bytes(), core.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick<'a>(call_id: &str, cores: &[&'a str]) -> &'a str {
        cores.iter().max_by_key(|core| weight(call_id, core)).expect("some core")
    }

    #[test]
    fn calls_spread_evenly_and_only_the_lost_cores_calls_move() {
        let cores = ["core-1", "core-2", "core-3", "core-4"];
        let mut counts = [0; 4];
        for call in 0..4_000 {
            let call_id = format!("{call}@192.0.2.1");
            let owner = pick(&call_id, &cores);
            counts[cores.iter().position(|core| *core == owner).expect("one of them")] += 1;
            if owner != "core-2" {
                assert_eq!(
                    pick(&call_id, &["core-4", "core-1", "core-3"]),
                    owner,
                    "{call_id} moved for nothing"
                );
            }
        }
        assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
    }
}
