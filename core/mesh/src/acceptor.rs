//! The listening side: who connects must finish TLS, prove a configured name and ask for a service, in time.

use std::net::SocketAddr;
use std::sync::Arc;

use belfry_signal::Pii;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::{TlsAcceptor, TlsStream};
use tokio_util::sync::CancellationToken;

use crate::Service;
use crate::handle::Inner;
use crate::identity::{self, Identity};
use crate::signals::{HandshakeFailure, Peer};
use crate::wire::{self, Hello, PROTOCOL, Transport, Welcome};

/// A peer that finished the handshake, on its way to the room that serves it.
pub(crate) struct Accepted {
    pub(crate) peer: Peer,
    pub(crate) transport: Transport,
    /// Cancelled when the same dialler comes back on a new connection.
    pub(crate) superseded: CancellationToken,
}

/// Names what a connection replaces when it is made again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DialId {
    peer: Peer,
    service: Service,
    instance: u64,
}

/// Takes connections until the mesh drains.
pub(crate) async fn run(inner: Arc<Inner>, identity: Arc<Identity>, listener: TcpListener) {
    let seats = Arc::new(Semaphore::new(inner.config.connections_max));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = inner.draining.cancelled() => return,
        };
        let Ok((stream, address)) = accepted else {
            // Out of file descriptors, or the peer is gone already: a short pause keeps this from spinning.
            tokio::time::sleep(inner.config.reconnect_min).await;
            continue;
        };
        let Ok(seat) = Arc::clone(&seats).try_acquire_owned() else {
            inner.signals.connection_refused(shown(address), HandshakeFailure::ConnectionsFull);
            continue;
        };
        let task = serve(Arc::clone(&inner), Arc::clone(&identity), stream, address);
        inner.tasks.spawn(async move {
            task.await;
            drop(seat);
        });
    }
}

async fn serve(inner: Arc<Inner>, identity: Arc<Identity>, stream: TcpStream, address: SocketAddr) {
    let welcoming = welcome(&inner, &identity, stream);
    let welcomed = tokio::time::timeout(inner.config.handshake_timeout, welcoming)
        .await
        .unwrap_or(Err(HandshakeFailure::TimedOut));
    let (id, transport) = match welcomed {
        Ok(welcomed) => welcomed,
        Err(failure) => return inner.signals.connection_refused(shown(address), failure),
    };
    let server = inner.servers[id.service.index()].borrow().clone();
    let Some(server) = server else {
        return inner.signals.connection_refused(shown(address), HandshakeFailure::NotServed);
    };
    let superseded = CancellationToken::new();
    if let Some(earlier) = inner.accepted.lock().insert(id.clone(), superseded.clone()) {
        earlier.cancel();
    }
    let accepted = Accepted { peer: id.peer.clone(), transport, superseded: superseded.clone() };
    (server.accept)(accepted).await;
    // A superseded connection must leave the entry of its successor alone.
    if !superseded.is_cancelled() {
        inner.accepted.lock().remove(&id);
    }
}

async fn welcome(
    inner: &Inner,
    identity: &Identity,
    stream: TcpStream,
) -> Result<(DialId, Transport), HandshakeFailure> {
    stream.set_nodelay(true).map_err(|_| HandshakeFailure::ConnectFailed)?;
    let acceptor = TlsAcceptor::from(Arc::clone(&identity.server));
    let stream = acceptor.accept(stream).await.map_err(|_| HandshakeFailure::Tls)?;
    let proved = identity::peer_name(stream.get_ref().1.peer_certificates(), &inner.config.trust_domain)?;
    let peer = inner.peers.get(&proved).cloned().ok_or(HandshakeFailure::UnknownPeer)?;
    let mut transport = wire::transport(TlsStream::Server(stream), inner.config.frame_bytes_max);
    let hello = wire::greeted::<Hello>(&mut transport).await?;
    if hello.node != proved {
        return Err(HandshakeFailure::WrongPeer);
    }
    if hello.protocol != PROTOCOL {
        wire::greet(&mut transport, &Welcome::WrongProtocol { protocol: PROTOCOL }).await?;
        return Err(HandshakeFailure::WrongProtocol);
    }
    let served = Service::parse(&hello.service).filter(|service| {
        inner.servers[service.index()].borrow().as_ref().is_some_and(|server| (server.is_open)())
    });
    let Some(service) = served else {
        wire::greet(&mut transport, &Welcome::NotServed).await?;
        return Err(HandshakeFailure::NotServed);
    };
    let open =
        Welcome::Open { node: inner.config.node.clone(), version: env!("CARGO_PKG_VERSION").to_owned() };
    wire::greet(&mut transport, &open).await?;
    tracing::debug!(node = %proved, version = %hello.version, "peer accepted");
    Ok((DialId { peer, service, instance: hello.instance }, transport))
}

fn shown(address: SocketAddr) -> Pii<String> {
    Pii::new(address.to_string())
}
