//! Keeps one link to one service of one other node, for ever: connect, run, pause, again.

use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_rustls::{TlsConnector, TlsStream};
use tokio_util::sync::CancellationToken;

use crate::Service;
use crate::connection;
use crate::handle::Inner;
use crate::identity::{self, Identity};
use crate::link::Link;
use crate::signals::{HandshakeFailure, Peer};
use crate::wire::{self, Hello, PROTOCOL, Transport, Welcome};

/// Where and whom a dialler meets.
pub(crate) struct Target {
    pub(crate) peer: Peer,
    pub(crate) address: String,
    pub(crate) service: Service,
    pub(crate) instance: u64,
}

/// Runs until the mesh drains or the room lets go of its `Links`.
pub(crate) async fn keep<S, R>(
    inner: Arc<Inner>,
    identity: Arc<Identity>,
    target: Target,
    links: mpsc::Sender<Link<S, R>>,
) where
    S: Serialize + Send + 'static,
    R: DeserializeOwned + Send + 'static,
{
    let mut backoff = Backoff::new(inner.config.reconnect_min, inner.config.reconnect_max);
    let mut last_failure = None;
    loop {
        let attempt = tokio::select! {
            attempt = meet(&inner, &identity, &target) => attempt,
            () = inner.draining.cancelled() => return,
        };
        match attempt {
            Ok(transport) => {
                last_failure = None;
                let began = Instant::now();
                let (link, wire) = connection::link::<S, R>(&inner, target.service, &target.peer);
                let is_wanted = tokio::select! {
                    sent = links.send(link) => sent.is_ok(),
                    () = inner.draining.cancelled() => false,
                };
                if !is_wanted {
                    return;
                }
                let never = CancellationToken::new();
                connection::run(&inner, target.service, &target.peer, transport, wire, never).await;
                if began.elapsed() > inner.config.reconnect_max {
                    backoff.reset();
                }
            }
            Err(failure) => {
                let is_news = last_failure.replace(failure) != Some(failure);
                inner.signals.dial_failed(target.service, &target.peer, failure, is_news);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.next_pause()) => {}
            () = inner.draining.cancelled() => return,
            () = links.closed() => return,
        }
    }
}

async fn meet(inner: &Inner, identity: &Identity, target: &Target) -> Result<Transport, HandshakeFailure> {
    tokio::time::timeout(inner.config.handshake_timeout, connect(inner, identity, target))
        .await
        .unwrap_or(Err(HandshakeFailure::TimedOut))
}

async fn connect(inner: &Inner, identity: &Identity, target: &Target) -> Result<Transport, HandshakeFailure> {
    let stream = TcpStream::connect(&target.address).await.map_err(|_| HandshakeFailure::ConnectFailed)?;
    // Signalling is many small messages: waiting to fill a segment would add 40 ms.
    stream.set_nodelay(true).map_err(|_| HandshakeFailure::ConnectFailed)?;
    // The SPIFFE identity decides, not the host name; the name here only fills SNI.
    let name = ServerName::try_from(target.peer.as_str().replace('_', "-"))
        .map_err(|_| HandshakeFailure::WrongPeer)?;
    let connector = TlsConnector::from(Arc::clone(&identity.client));
    let stream = connector.connect(name, stream).await.map_err(|_| HandshakeFailure::Tls)?;
    let proved = identity::peer_name(stream.get_ref().1.peer_certificates(), &inner.config.trust_domain)?;
    if proved != target.peer.as_str() {
        return Err(HandshakeFailure::WrongPeer);
    }
    let mut transport = wire::transport(TlsStream::Client(stream), inner.config.frame_bytes_max);
    let hello = Hello {
        protocol: PROTOCOL,
        node: inner.config.node.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        service: target.service.as_str().to_owned(),
        instance: target.instance,
    };
    wire::greet(&mut transport, &hello).await?;
    match wire::greeted::<Welcome>(&mut transport).await? {
        Welcome::Open { node, version } if node == target.peer.as_str() => {
            tracing::debug!(%node, %version, "peer welcomed us");
            Ok(transport)
        }
        Welcome::Open { .. } => Err(HandshakeFailure::WrongPeer),
        Welcome::WrongProtocol { .. } => Err(HandshakeFailure::WrongProtocol),
        Welcome::NotServed => Err(HandshakeFailure::NotServed),
    }
}

/// Exponential pauses with jitter, so that a site's edges do not all come back in the same millisecond.
struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    fn reset(&mut self) {
        self.next = self.min;
    }

    /// Between half and all of a pause that doubles each time.
    fn next_pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.max);
        pause.mul_f64(rand::random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_again() {
        let (min, max) = (Duration::from_millis(100), Duration::from_millis(500));
        let mut backoff = Backoff::new(min, max);
        for full_ms in [100, 200, 400, 500, 500] {
            let pause = backoff.next_pause();
            let full = Duration::from_millis(full_ms);
            assert!(pause >= full / 2 && pause <= full, "{pause:?} for {full:?}");
        }
        backoff.reset();
        assert!(backoff.next_pause() <= min);
    }
}
