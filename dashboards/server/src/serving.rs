//! Connections: bounded in number, patient for a while, ended in good order.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;

use crate::access::PeerAddress;
use crate::signals::Signals;

/// A browser that connected says what it wants within this time, the first time and between requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(20);
/// After a failed accept (out of descriptors) we let others finish first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The task that owns the listener and its connections.
pub(crate) struct Server {
    pub(crate) listener: TcpListener,
    pub(crate) router: Router,
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) signals: Signals,
    pub(crate) stop: watch::Receiver<bool>,
}

impl Server {
    /// Accepts until told to stop, then waits for the connections that are open.
    pub(crate) async fn run(self) {
        let mut stop = self.stop.clone();
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut stop) => break,
                Some(_) = open.join_next() => {}
                accepted = accept(&self.listener, &self.connections) => match accepted {
                    Ok((stream, peer, permit)) => {
                        open.spawn(self.serve(stream, peer, permit));
                    }
                    Err(_) => {
                        self.signals.accept_failed();
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(self.listener);
        while open.join_next().await.is_some() {}
    }

    fn serve(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        permit: OwnedSemaphorePermit,
    ) -> impl Future<Output = ()> + Send + 'static {
        let router = self.router.clone().layer(Extension(PeerAddress(peer.ip())));
        let service = TowerToHyperService::new(router);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service);
        let open = self.signals.connection_opened();
        let mut stop = self.stop.clone();
        async move {
            tokio::pin!(connection);
            tokio::select! {
                _ = connection.as_mut() => {}
                () = stopped(&mut stop) => {
                    connection.as_mut().graceful_shutdown();
                    // What went wrong on a connection that is being closed helps nobody.
                    let _ = connection.await;
                }
            }
            drop((permit, open));
        }
    }
}

/// Returns when the page is to stop, also when nobody is left to say so.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stops| *stops).await;
}

/// Waits for room first, so that more connections wait in the kernel and not in our memory.
async fn accept(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = Arc::clone(connections).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer, permit))
}
