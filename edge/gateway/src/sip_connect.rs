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

/// Sends over the connection to that peer, opening one when there is none. Never waits: what cannot be sent later
/// is reported then.
pub(crate) fn send(
    edge: &Arc<Edge>,
    transport: Transport,
    address: SocketAddr,
    outgoing: Outgoing,
) -> Result<(), SendFailure> {
    if let Some(flow) = edge.flows.send_or_open(transport, address, outgoing)? {
        tokio::spawn(open(Arc::clone(edge), transport, address, flow));
    }
    Ok(())
}

async fn open(edge: Arc<Edge>, transport: Transport, address: SocketAddr, mut flow: OpenFlow) {
    let Ok(listener) = ListenerName::configured(OUTWARD) else { return };
    let peer = edge.geography.load().place(&listener, address, transport == Transport::Tls);
    match timeout(edge.timeouts.sip_connect, connect(&edge, transport, address)).await {
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

async fn connect(edge: &Edge, transport: Transport, address: SocketAddr) -> std::io::Result<Socket> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    if transport != Transport::Tls {
        return Ok(Socket::Plain(stream));
    }
    // The core resolved the name already; what is left to check is the address (RFC 5922 section 7.1).
    let connector = TlsConnector::from(edge.outbound_tls.load_full());
    let stream = connector.connect(ServerName::IpAddress(address.ip().into()), stream).await?;
    Ok(Socket::Client(Box::new(stream)))
}
