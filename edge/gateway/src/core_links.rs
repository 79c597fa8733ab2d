//! The mesh side of the edge: greets each core that comes up, and does what cores ask.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use belfry_mesh::{LinkReceiver, Links};
use belfry_signalling::handle::{FromEdge, SendFailure, Target, ToEdge, Transport};

use crate::cores::Core;
use crate::edge::Edge;
use crate::flows::{Datagram, Outgoing, Report};
use crate::sip_connect;
use crate::sip_connect::Peer;

/// What is done in one go: datagrams among it leave together.
const MESSAGES_PER_TURN: usize = 64;

/// Takes links as they come, until the edge stops.
pub(crate) async fn run(edge: Arc<Edge>, mut links: Links<FromEdge, ToEdge>) {
    loop {
        let link = tokio::select! {
            () = edge.stopping.cancelled() => return,
            link = links.next() => link,
        };
        let Some(link) = link else { return };
        let node: Arc<str> = link.peer().into();
        let (sender, receiver) = link.split();
        let hello = FromEdge::Hello { node: edge.node.clone(), addresses: edge.public_addresses.clone() };
        // First of all messages, and before the link is offered to anybody else.
        if sender.try_send(hello).is_err() {
            continue;
        }
        let core = Arc::new(edge.cores.add(sender));
        tokio::spawn(obey(Arc::clone(&edge), node, core, receiver));
    }
}

async fn obey(edge: Arc<Edge>, node: Arc<str>, core: Arc<Core>, mut receiver: LinkReceiver<ToEdge>) {
    let ban = |network, seconds, is_answered| {
        if !edge.bans.note(&node, network, seconds, is_answered, Instant::now()) {
            edge.signals.ban_not_kept();
        }
    };
    let mut messages = Vec::with_capacity(MESSAGES_PER_TURN);
    let mut datagrams = Vec::with_capacity(MESSAGES_PER_TURN);
    let mut stopping = pin!(edge.stopping.cancelled());
    loop {
        let count = tokio::select! {
            () = &mut stopping => 0,
            count = receiver.recv_many(&mut messages, MESSAGES_PER_TURN) => count,
        };
        if count == 0 {
            break;
        }
        for message in messages.drain(..) {
            match message {
                ToEdge::Send { id, target, bytes } => {
                    datagrams.extend(send(&edge, &core, id, target, bytes));
                }
                ToEdge::Ban { network, seconds, is_answered } => ban(network, seconds, is_answered),
                ToEdge::Bans { is_first, bans, is_answered } => {
                    if is_first {
                        edge.bans.forget(&node);
                    }
                    bans.into_iter().for_each(|(network, seconds)| ban(network, seconds, is_answered));
                }
            }
        }
        edge.flows.send_datagrams(&mut datagrams);
    }
    edge.cores.remove(&core);
}

/// Sends a message, unless it is a datagram, which is given back to be sent with others.
fn send(edge: &Arc<Edge>, core: &Arc<Core>, id: u64, target: Target, bytes: Vec<u8>) -> Option<Datagram> {
    let report = || Report { id, core: Arc::clone(core) };
    let outgoing = Outgoing { bytes, report: Some(report()) };
    let outcome = match target {
        Target::Flow(token) => edge.flows.send(&token, outgoing),
        Target::Address { transport, address, name } => match transport {
            Transport::Udp => edge.flows.datagram_to(address, outgoing).map(Some),
            Transport::Tcp => {
                sip_connect::send(edge, Peer { transport, address, name: None }, outgoing).map(|()| None)
            }
            Transport::Tls => {
                sip_connect::send(edge, Peer { transport, address, name }, outgoing).map(|()| None)
            }
            // A browser cannot be dialled: WebSocket clients connect to us (RFC 7118 section 1).
            Transport::Ws | Transport::Wss => Err(SendFailure::UnsupportedTransport),
        }
        .map_err(|failure| (Some(transport), failure)),
    };
    outcome.unwrap_or_else(|(transport, failure)| {
        edge.signals.send_refused(transport, failure);
        report().failed(failure);
        None
    })
}
