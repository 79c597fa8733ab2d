//! The mesh side of the edge: greets each core that comes up, and does what cores ask.

use std::sync::Arc;

use belfry_mesh::{LinkReceiver, Links};
use belfry_signalling::handle::{FromEdge, SendFailure, Target, ToEdge, Transport};

use crate::cores::Core;
use crate::edge::Edge;
use crate::flows::{Outgoing, Report};
use crate::sip_connect;
use crate::sip_connect::Peer;

/// Takes links as they come, until the edge stops.
pub(crate) async fn run(edge: Arc<Edge>, mut links: Links<FromEdge, ToEdge>) {
    loop {
        let link = tokio::select! {
            () = edge.stopping.cancelled() => return,
            link = links.next() => link,
        };
        let Some(link) = link else { return };
        let (sender, receiver) = link.split();
        let hello = FromEdge::Hello { node: edge.node.clone(), addresses: edge.public_addresses.clone() };
        // First of all messages, and before the link is offered to anybody else.
        if sender.try_send(hello).is_err() {
            continue;
        }
        let core = edge.cores.add(sender);
        tokio::spawn(obey(Arc::clone(&edge), core, receiver));
    }
}

async fn obey(edge: Arc<Edge>, core: Core, mut receiver: LinkReceiver<ToEdge>) {
    loop {
        let message = tokio::select! {
            () = edge.stopping.cancelled() => None,
            message = receiver.recv() => message,
        };
        match message {
            None => break,
            Some(ToEdge::Send { id, target, bytes }) => send(&edge, &core, id, target, bytes),
        }
    }
    edge.cores.remove(&core);
}

fn send(edge: &Arc<Edge>, core: &Core, id: u64, target: Target, bytes: Vec<u8>) {
    let report = Report { id, core: core.clone() };
    let outgoing = |bytes| Outgoing { bytes, report: Some(report.clone()) };
    let outcome = match target {
        Target::Flow(token) => edge.flows.send(&token, outgoing(bytes)),
        Target::Address { transport, address, name } => match transport {
            Transport::Udp => edge.flows.send_datagram(address, &bytes),
            Transport::Tcp => {
                sip_connect::send(edge, Peer { transport, address, name: None }, outgoing(bytes))
            }
            Transport::Tls => sip_connect::send(edge, Peer { transport, address, name }, outgoing(bytes)),
            // A browser cannot be dialled: WebSocket clients connect to us (RFC 7118 section 1).
            Transport::Ws | Transport::Wss => Err(SendFailure::UnsupportedTransport),
        }
        .map_err(|failure| (Some(transport), failure)),
    };
    if let Err((transport, failure)) = outcome {
        edge.signals.send_refused(transport, failure);
        report.failed(failure);
    }
}
