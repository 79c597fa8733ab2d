//! The links to the edges: who is connected, what they listen on, and how a message leaves.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use belfry_mesh::{Link, LinkError, LinkReceiver, LinkSender, Links};
use belfry_signal::{TraceId, TraceKey};
use belfry_sip_proto::{HeaderName, Limits, Uri, build};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::admission::{Gate, Lane, Waiting};
use crate::core::Event;
use crate::handle::{FlowToken, FromEdge, PublicAddress, SendFailure, Target, ToEdge, Transport};
use crate::received::Received;
use crate::routes::Active;
use crate::signals::{MethodName, SendFault, Signals};

/// Edges whose addresses are remembered, connected or not.
const EDGES_MAX: usize = 1024;
/// Lifted bans that an edge with a full link has yet to hear of; it hears of this core's others with the next full set.
const LIFTS_MAX: usize = 1024;

/// Messages of one link that are read in one go.
const MESSAGES_PER_TURN: usize = 64;

/// What a link to an edge brings.
#[derive(Debug)]
pub(crate) enum EdgeEvent {
    /// An edge said hello.
    Up { node: Arc<str>, link: u64, addresses: Vec<PublicAddress>, sender: LinkSender<ToEdge> },
    /// Its link is gone.
    Down { node: Arc<str>, link: u64 },
    /// A SIP message came.
    Message(Box<Received>),
    /// A connection of an edge is gone.
    FlowClosed { edge: Arc<str>, flow: FlowToken },
    /// A message did not leave.
    SendFailed { id: u64, failure: SendFailure },
}

/// The way of a transaction's messages: where they go, and what the ladder says about them.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) edge: Arc<str>,
    pub(crate) target: Target,
    pub(crate) transport: Transport,
    /// The peer's address, when it is known.
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) method: MethodName,
    pub(crate) call_id: Box<str>,
    pub(crate) trace_id: TraceId,
    pub(crate) cseq: Box<str>,
}

/// The far end of a flow: how to reach a phone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hop {
    pub(crate) edge: Arc<str>,
    pub(crate) target: Target,
    pub(crate) transport: Transport,
    pub(crate) peer: Option<SocketAddr>,
}

/// Every edge that said hello, by node name.
#[derive(Debug, Default)]
pub(crate) struct Edges {
    edges: HashMap<Arc<str>, Edge>,
}

#[derive(Debug)]
struct Edge {
    link: u64,
    addresses: Vec<PublicAddress>,
    /// `None` while it is not connected; its addresses are still ours.
    sender: Option<LinkSender<ToEdge>>,
    /// Whether its link was full when it was to hear of bans.
    is_untold: bool,
    /// The lifts among what it did not hear.
    lifts: BTreeSet<IpAddr>,
}

impl Edges {
    /// An edge said hello; a link that it had before is forgotten.
    pub(crate) fn connected(
        &mut self,
        node: Arc<str>,
        link: u64,
        addresses: Vec<PublicAddress>,
        sender: LinkSender<ToEdge>,
    ) {
        if self.edges.len() >= EDGES_MAX && !self.edges.contains_key(&node) {
            self.edges.retain(|_, edge| edge.sender.is_some());
        }
        let edge = Edge { link, addresses, sender: Some(sender), is_untold: false, lifts: BTreeSet::new() };
        self.edges.insert(node, edge);
    }

    /// A link is gone; whether it was the edge's present one.
    pub(crate) fn lost(&mut self, node: &str, link: u64) -> bool {
        match self.edges.get_mut(node) {
            Some(edge) if edge.link == link => {
                edge.sender = None;
                true
            }
            _ => false,
        }
    }

    /// How many are connected.
    pub(crate) fn connected_count(&self) -> usize {
        self.edges.values().filter(|edge| edge.sender.is_some()).count()
    }

    /// Hands a message to an edge.
    pub(crate) fn send(&self, edge: &str, target: Target, id: u64, bytes: Vec<u8>) -> Result<(), SendFault> {
        let sender = self.edges.get(edge).and_then(|edge| edge.sender.as_ref()).ok_or(SendFault::EdgeLink)?;
        sender.try_send(ToEdge::Send { id, target, bytes }).map_err(|error| match error {
            LinkError::Full => SendFault::QueueFull,
            LinkError::Down => SendFault::EdgeLink,
        })
    }

    /// Tells all edges of one ban, or of its end. One whose link is full hears of it later.
    pub(crate) fn tell_ban(&mut self, order: &ToEdge) {
        for edge in self.edges.values_mut() {
            if !edge.is_told(order) {
                edge.is_untold = true;
                if let ToEdge::Ban { network, seconds: 0, .. } = order
                    && edge.lifts.len() < LIFTS_MAX
                {
                    edge.lifts.insert(*network);
                }
            }
        }
    }

    /// Tells one edge, or all, of all bans.
    pub(crate) fn tell_all_bans(&mut self, only: Option<&str>, orders: &[ToEdge]) {
        let told = self.edges.iter_mut().filter(|(node, _)| only.is_none_or(|only| only == &***node));
        told.for_each(|(_, edge)| edge.tell_all_bans(orders));
    }

    /// Whether an edge did not hear of bans because its link was full.
    pub(crate) fn is_any_untold(&self) -> bool {
        self.edges.values().any(|edge| edge.is_untold)
    }

    /// Tells those of all bans.
    pub(crate) fn tell_the_untold(&mut self, orders: &[ToEdge]) {
        self.edges.values_mut().filter(|edge| edge.is_untold).for_each(|edge| edge.tell_all_bans(orders));
    }

    /// The address that an edge shows to customers of a transport.
    pub(crate) fn address(&self, edge: &str, transport: Transport) -> Option<&PublicAddress> {
        let addresses = &self.edges.get(edge)?.addresses;
        addresses.iter().find(|address| address.transport == transport).or_else(|| addresses.first())
    }

    /// The edge by which to reach others over a transport: the preferred one when it is connected and speaks it, and
    /// any other unless only the preferred one will do.
    pub(crate) fn outward(
        &self,
        transport: Transport,
        preferred: Option<&Arc<str>>,
        is_only: bool,
    ) -> Option<Arc<str>> {
        let speaks = |edge: &Edge| {
            edge.sender.is_some() && edge.addresses.iter().any(|address| address.transport == transport)
        };
        let wanted = preferred.filter(|node| self.edges.get(*node).is_some_and(speaks));
        if wanted.is_some() || is_only {
            return wanted.cloned();
        }
        self.edges.iter().filter(|(_, edge)| speaks(edge)).map(|(node, _)| node).min().cloned()
    }

    /// Whether a host and port name one of our edges; without a port, the default ports of SIP count.
    pub(crate) fn is_ours(&self, uri: &Uri<'_>) -> bool {
        self.edges.values().any(|edge| names(edge, uri))
    }

    /// Whether a host, on whatever port, is one of our edges'.
    pub(crate) fn is_our_host(&self, host: &str) -> bool {
        let is_host = |address: &PublicAddress| same_host(&address.host, host);
        self.edges.values().any(|edge| edge.addresses.iter().any(is_host))
    }

    /// Whether a message comes from an edge of ours: from its address, or from whoever proves its name. Anybody can
    /// write an edge's name into a header.
    pub(crate) fn is_edge(&self, source: IpAddr, peer_names: &[String]) -> bool {
        let is_it = |address: &PublicAddress| {
            bare(&address.host).parse().is_ok_and(|host: IpAddr| host.to_canonical() == source.to_canonical())
                || peer_names.iter().any(|name| same_host(name, &address.host))
        };
        self.edges.values().any(|edge| edge.addresses.iter().any(is_it))
    }

    /// The edge that a Route of ours names; `preferred` when it is one of several behind one address.
    pub(crate) fn edge_of(&self, uri: &Uri<'_>, preferred: &Arc<str>) -> Option<Arc<str>> {
        if self.edges.get(preferred).is_some_and(|edge| names(edge, uri)) {
            return Some(Arc::clone(preferred));
        }
        self.edges.iter().find(|(_, edge)| names(edge, uri)).map(|(node, _)| Arc::clone(node))
    }
}

impl Edge {
    /// Whether it needs to hear no more of an order: one that is away is told all when it comes back.
    fn is_told(&self, order: &ToEdge) -> bool {
        let sent = self.sender.as_ref().map(|sender| sender.try_send(order.clone()));
        !matches!(sent, Some(Err(LinkError::Full)))
    }

    fn tell_all_bans(&mut self, orders: &[ToEdge]) {
        self.is_untold = !orders.iter().all(|order| self.is_told(order));
        while !self.is_untold
            && let Some(network) = self.lifts.first().copied()
        {
            // A ban that began since is among those of above, and lives on.
            let is_banned = |order: &ToEdge| matches!(order, ToEdge::Bans { bans, .. } if bans.iter().any(|(other, _)| *other == network));
            let lift = ToEdge::Ban { network, seconds: 0, is_answered: false };
            self.is_untold = !orders.iter().any(is_banned) && !self.is_told(&lift);
            if !self.is_untold {
                self.lifts.remove(&network);
            }
        }
    }
}

fn names(edge: &Edge, uri: &Uri<'_>) -> bool {
    edge.addresses.iter().any(|address| {
        let is_port = match uri.port() {
            Some(port) => port == address.port,
            None => matches!(address.port, 5060 | 5061 | 80 | 443),
        };
        is_port && same_host(&address.host, uri.host())
    })
}

/// Host names compare without case; IPv6 literals with or without their brackets.
fn same_host(one: &str, other: &str) -> bool {
    bare(one).eq_ignore_ascii_case(bare(other))
}

fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// What the tasks of links need.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    pub(crate) events: mpsc::Sender<Event>,
    /// Messages that are served when no other event waits.
    pub(crate) strangers: mpsc::Sender<Box<Received>>,
    pub(crate) gate: Arc<Gate>,
    /// Whose table says which numbers call for help.
    pub(crate) routes: watch::Receiver<Arc<Active>>,
    /// What whoever is turned away is told to wait, in seconds.
    pub(crate) retry_after: Arc<str>,
    pub(crate) signals: Signals,
    pub(crate) trace_key: TraceKey,
    pub(crate) limits: Limits,
}

/// Takes links as edges connect, each in a task of its own that ends with the link.
pub(crate) async fn accept(mut links: Links<ToEdge, FromEdge>, reader: Reader) {
    let mut last_link = 0;
    // Their tasks end with this one, and so do the links.
    let mut tasks = JoinSet::new();
    while let Some(link) = links.next().await {
        last_link += 1;
        tasks.spawn(reader.clone().serve(link, last_link));
        while tasks.try_join_next().is_some() {}
    }
}

impl Reader {
    async fn serve(self, link: Link<ToEdge, FromEdge>, number: u64) {
        let (sender, mut receiver) = link.split();
        let Some(FromEdge::Hello { node, addresses }) = receiver.recv().await else {
            self.signals.edge_refused();
            return;
        };
        let node: Arc<str> = node.into();
        let up = EdgeEvent::Up { node: Arc::clone(&node), link: number, addresses, sender: sender.clone() };
        if self.events.send(Event::Edge(up)).await.is_ok() {
            self.read(&mut receiver, &node, &sender).await;
        }
        // The core may be gone already; then nobody needs to know.
        let _ = self.events.send(Event::Edge(EdgeEvent::Down { node, link: number })).await;
    }

    /// Reads until the link or the core is gone. A full queue makes the link wait, which the edge sees and counts.
    async fn read(
        &self,
        receiver: &mut LinkReceiver<FromEdge>,
        node: &Arc<str>,
        sender: &LinkSender<ToEdge>,
    ) {
        let mut messages = Vec::with_capacity(MESSAGES_PER_TURN);
        while receiver.recv_many(&mut messages, MESSAGES_PER_TURN).await > 0 {
            for message in messages.drain(..) {
                let Some(event) = self.event_of(message, node, sender) else { continue };
                if self.events.send(Event::Edge(event)).await.is_err() {
                    return;
                }
            }
        }
    }

    fn event_of(&self, message: FromEdge, node: &Arc<str>, sender: &LinkSender<ToEdge>) -> Option<EdgeEvent> {
        match message {
            FromEdge::Hello { .. } => None,
            FromEdge::FlowClosed { flow } => Some(EdgeEvent::FlowClosed { edge: Arc::clone(node), flow }),
            FromEdge::SendFailed { id, failure } => Some(EdgeEvent::SendFailed { id, failure }),
            FromEdge::Message(inbound) => {
                let source = *inbound.source.reveal();
                let read = Received::read(Arc::clone(node), inbound, &self.limits, &self.trace_key);
                let received =
                    read.inspect_err(|fault| self.signals.message_malformed(fault.reason(), source)).ok()?;
                self.queue(Box::new(received), sender).map(EdgeEvent::Message)
            }
        }
    }

    /// Puts a message where it has to wait; gives it back when it is to be served first.
    fn queue(&self, received: Box<Received>, sender: &LinkSender<ToEdge>) -> Option<Box<Received>> {
        let used = |queue: usize, room: usize| queue - room;
        let waiting = Waiting {
            first: used(self.events.max_capacity(), self.events.capacity()),
            second: used(self.strangers.max_capacity(), self.strangers.capacity()),
        };
        let class = || received.class(&self.routes.borrow().table);
        let flow = (&*received.edge, received.flow.0.as_str());
        let refused = match self.gate.lane(class, flow, waiting, received.unix_nanos / 1_000_000_000) {
            Lane::First => return Some(received),
            Lane::Second => match self.strangers.try_send(received) {
                Ok(()) => return None,
                Err(mpsc::error::TrySendError::Full(refused)) => refused,
                // The core is gone.
                Err(mpsc::error::TrySendError::Closed(_)) => return None,
            },
            Lane::Away => received,
        };
        self.turn_away(&refused, sender);
        None
    }

    /// Answers 503 without troubling the core. The ladder does not see it: under such load it is the last thing that
    /// anybody needs.
    fn turn_away(&self, request: &Received, sender: &LinkSender<ToEdge>) {
        self.signals.request_turned_away(request.method, &request.region, request.call_id());
        if request.message.top_via().is_none() {
            return;
        }
        let tag = format!("{:016x}", rand::random::<u64>());
        let extra = [(HeaderName::RetryAfter, &*self.retry_after)];
        let bytes = build::response_to(&request.message, 503, None, Some(&tag), &extra);
        // An edge whose link is full drops it; the phone repeats its request, later and later.
        let _ = sender.try_send(ToEdge::Send { id: 0, target: request.way_back().0, bytes });
    }
}

#[cfg(test)]
mod tests {
    use belfry_mesh::{Mesh, Service};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_did_not_hear_of_a_ban_hears_of_it_later() {
        let mesh = Mesh::for_test(&belfry_signal::Registry::for_test());
        let mut served = mesh.serve::<ToEdge, FromEdge>(Service::Signalling);
        let mut dialled = mesh.dial::<FromEdge, ToEdge>(Service::Signalling);
        let (sender, _from_edge) = served.next().await.expect("a link").split();
        let (_to_core, mut receiver) = dialled.next().await.expect("a link").split();
        let mut edges = Edges::default();
        edges.connected("edge-1".into(), 1, Vec::new(), sender.clone());
        let network = |last: u8| IpAddr::from([192, 0, 2, last]);
        let lift = |last: u8| ToEdge::Ban { network: network(last), seconds: 0, is_answered: false };
        edges.tell_ban(&lift(1));
        assert!(!edges.is_any_untold());
        while sender.try_send(lift(2)).is_ok() {}
        edges.tell_ban(&lift(3));
        edges.tell_ban(&lift(4));
        assert!(edges.is_any_untold());
        // Still full; then there is room again.
        let bans = vec![(network(4), 60)];
        let all = [ToEdge::Bans { is_first: true, bans, is_answered: true }];
        edges.tell_the_untold(&all);
        assert!(edges.is_any_untold());
        let mut taken = Vec::new();
        while taken.len() < 1024 {
            receiver.recv_many(&mut taken, 1024).await;
        }
        edges.tell_the_untold(&all);
        assert!(!edges.is_any_untold());
        taken.clear();
        receiver.recv_many(&mut taken, 1024).await;
        let [ToEdge::Bans { .. }, ToEdge::Ban { network: lifted, seconds: 0, .. }] = &taken[..] else {
            panic!("{taken:?}")
        };
        assert_eq!(*lifted, network(3), "what was banned anew since is not lifted");
        edges.tell_the_untold(&all);
        assert!(edges.edges.values().all(|edge| edge.lifts.is_empty()));
    }
}
