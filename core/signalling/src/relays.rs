//! The links to the media relays: requests out, replies matched to what waits for them, time bounded.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use belfry_mesh::{LinkReceiver, LinkSender, Links};
use belfry_relay_api::{FromRelay, Request, ToRelay};
use belfry_sip_proto::timer::TimerKey;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::core::Event;
use crate::signals::RelayRequest;

/// What a link to a relay brings.
#[derive(Debug)]
pub(crate) enum RelayEvent {
    /// A relay connected.
    Up { node: Arc<str>, link: u64, sender: LinkSender<ToRelay> },
    /// Its link is gone.
    Down { node: Arc<str>, link: u64 },
    /// It said something.
    Message { node: Arc<str>, message: Box<FromRelay> },
}

/// Every connected relay, and the requests that wait for a reply, each with what is to happen then.
#[derive(Debug)]
pub(crate) struct Relays<T> {
    links: Vec<RelayLink>,
    waiting: HashMap<u64, Waiting<T>>,
    last_id: u64,
    turn: usize,
}

#[derive(Debug)]
struct RelayLink {
    node: Arc<str>,
    link: u64,
    sender: LinkSender<ToRelay>,
}

/// A request on its way.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    pub(crate) then: T,
    pub(crate) kind: RelayRequest,
    pub(crate) asked: Instant,
    pub(crate) timer: TimerKey,
    link: u64,
}

impl<T> Waiting<T> {
    pub(crate) fn took(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.asked)
    }
}

impl<T> Relays<T> {
    pub(crate) fn new() -> Self {
        Self { links: Vec::new(), waiting: HashMap::new(), last_id: 0, turn: 0 }
    }

    pub(crate) fn connected(&mut self, node: Arc<str>, link: u64, sender: LinkSender<ToRelay>) {
        self.links.retain(|known| known.node != node);
        self.links.push(RelayLink { node, link, sender });
    }

    /// A link is gone: the requests that went over it will have no reply.
    pub(crate) fn lost(&mut self, link: u64) -> Vec<Waiting<T>> {
        self.links.retain(|known| known.link != link);
        let ids: Vec<u64> =
            self.waiting.iter().filter(|(_, waiting)| waiting.link == link).map(|(id, _)| *id).collect();
        ids.into_iter().filter_map(|id| self.waiting.remove(&id)).collect()
    }

    pub(crate) fn connected_count(&self) -> usize {
        self.links.len()
    }

    /// Requests that wait for their reply.
    pub(crate) fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    /// The connected relays.
    pub(crate) fn nodes(&self) -> Vec<Arc<str>> {
        self.links.iter().map(|link| Arc::clone(&link.node)).collect()
    }

    /// The relay that everybody takes who asks for the same number, as long as relays neither come nor go.
    pub(crate) fn agreed(&self, number: u64) -> Option<Arc<str>> {
        let index = number.checked_rem(self.links.len() as u64)?;
        Some(Arc::clone(&self.links.get(usize::try_from(index).ok()?)?.node))
    }

    /// The relay for a new session: the connected ones in turn.
    pub(crate) fn choose(&mut self) -> Option<Arc<str>> {
        self.turn = self.turn.wrapping_add(1);
        let relay = self.links.get(self.turn.checked_rem(self.links.len())?)?;
        Some(Arc::clone(&relay.node))
    }

    /// Sends a request; `None` gives `then` back because the relay is not there.
    /// `arm` sets the timer that bounds the wait for the request with the given id.
    pub(crate) fn ask(
        &mut self,
        relay: &str,
        request: Request,
        then: T,
        now: Instant,
        arm: impl FnOnce(u64) -> TimerKey,
    ) -> Result<(), T> {
        let Some(link) = self.links.iter().find(|known| &*known.node == relay) else { return Err(then) };
        let kind = match &request {
            Request::Offer(_) => RelayRequest::Offer,
            Request::Answer(_) => RelayRequest::Answer,
            Request::Delete { .. } => RelayRequest::Delete,
            Request::Query { .. } => RelayRequest::Query,
        };
        self.last_id += 1;
        let id = self.last_id;
        if link.sender.try_send(ToRelay { id, request }).is_err() {
            return Err(then);
        }
        let waiting = Waiting { then, kind, asked: now, timer: arm(id), link: link.link };
        self.waiting.insert(id, waiting);
        Ok(())
    }

    /// The request that a reply or a timeout belongs to; it waits no more.
    pub(crate) fn take(&mut self, id: u64) -> Option<Waiting<T>> {
        self.waiting.remove(&id)
    }
}

/// Takes links as relays connect, each in a task of its own that ends with the link.
pub(crate) async fn accept(mut links: Links<ToRelay, FromRelay>, events: mpsc::Sender<Event>) {
    let mut last_link = 0;
    // Their tasks end with this one, and so do the links.
    let mut tasks = JoinSet::new();
    while let Some(link) = links.next().await {
        last_link += 1;
        let node: Arc<str> = link.peer().into();
        let (sender, receiver) = link.split();
        let up = RelayEvent::Up { node: Arc::clone(&node), link: last_link, sender };
        if events.send(Event::Relay(up)).await.is_err() {
            return;
        }
        tasks.spawn(read(receiver, node, last_link, events.clone()));
        while tasks.try_join_next().is_some() {}
    }
}

async fn read(mut receiver: LinkReceiver<FromRelay>, node: Arc<str>, link: u64, events: mpsc::Sender<Event>) {
    while let Some(message) = receiver.recv().await {
        let event = RelayEvent::Message { node: Arc::clone(&node), message: Box::new(message) };
        if events.send(Event::Relay(event)).await.is_err() {
            return;
        }
    }
    // The core may be gone already; then nobody needs to know.
    let _ = events.send(Event::Relay(RelayEvent::Down { node, link })).await;
}
