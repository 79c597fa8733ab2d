//! Connections that the edge opens itself, to SIP peers that the core names by address.

use std::net::SocketAddr;
use std::sync::Arc;

use belfry_signalling::handle::{SendFailure, Transport};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::edge::Edge;
use crate::flows::{OpenFlow, Outgoing};
use crate::signals::ListenerName;
use crate::sip_stream;
use crate::stream::{EdgeStream, Socket};

/// The listener under which outward connections are counted.
pub(crate) const OUTWARD: &str = "outward";

/// Whom to connect to. Connections are used again for the same peer only: one that showed another name than the one
/// that is wanted now proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Peer {
    pub(crate) transport: Transport,
    pub(crate) address: SocketAddr,
    /// The name that its certificate must show; without one, the address.
    pub(crate) name: Option<String>,
}

/// Sends over the connection to that peer, opening one when there is none. Never waits: what cannot be sent later
/// is reported then.
pub(crate) fn send(edge: &Arc<Edge>, peer: Peer, outgoing: Outgoing) -> Result<(), SendFailure> {
    if let Some(flow) = edge.flows.send_or_open(&peer, outgoing)? {
        tokio::spawn(open(Arc::clone(edge), peer, flow));
    }
    Ok(())
}

async fn open(edge: Arc<Edge>, to: Peer, mut flow: OpenFlow) {
    let Ok(listener) = ListenerName::configured(OUTWARD) else { return };
    let transport = to.transport;
    let peer = edge.geography.load().place(&listener, to.address, transport == Transport::Tls);
    match timeout(edge.timeouts.sip_connect, connect(&edge, &to)).await {
        Ok(Ok(socket)) => {
            let stream = EdgeStream::new(socket, edge.signals.byte_counters(&listener));
            sip_stream::carry(&edge, &peer, transport, stream, flow).await;
        }
        Ok(Err(_)) | Err(_) => {
            flow.queue.close();
            while let Ok(outgoing) = flow.queue.try_recv() {
                edge.signals.send_refused(Some(transport), SendFailure::Unreachable);
                if let Some(report) = outgoing.report {
                    report.failed(SendFailure::Unreachable);
                }
            }
        }
    }
}

async fn connect(edge: &Edge, to: &Peer) -> std::io::Result<Socket> {
    let stream = TcpStream::connect(to.address).await?;
    stream.set_nodelay(true)?;
    if to.transport != Transport::Tls {
        return Ok(Socket::Plain(stream));
    }
    // The core resolved the name; the certificate must show the one that was asked for, not what DNS made of it
    // (RFC 5922 section 7.1).
    let name = match &to.name {
        Some(name) => ServerName::try_from(name.clone()).map_err(std::io::Error::other)?,
        None => ServerName::IpAddress(to.address.ip().into()),
    };
    let connector = TlsConnector::from(edge.outbound_tls.load_full());
    let stream = connector.connect(name, stream).await?;
    Ok(Socket::Client(Box::new(stream)))
}
