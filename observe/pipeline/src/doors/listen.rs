//! Streams and datagrams from others: bounded in number, in TLS where it is asked for, ended in good order.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use belfry_signal::GaugeGuard;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use tokio_rustls::server::TlsStream;

use super::config::TlsConfig;
use super::intake::{Intake, Origin};
use super::open::DoorsError;
use super::refusal::{Reason, Refusal};
use super::signals::Entrance;

/// After a failed accept (out of descriptors) others finish first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A TLS handshake comes to its end within this time.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// What the kernel may hold of datagrams while we write: bursts of syslog are long.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;

/// A stream of somebody's, plain or in TLS.
#[derive(Debug)]
pub(crate) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection that was let in: its place is given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) wire: Wire,
    pub(crate) peer: IpAddr,
    _place: (OwnedSemaphorePermit, GaugeGuard),
}

/// Accepts connections for one door.
pub(crate) struct Acceptor {
    pub(crate) listener: TcpListener,
    pub(crate) door: Entrance,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) intake: Intake,
    pub(crate) stop: watch::Receiver<bool>,
}

impl Acceptor {
    /// Serves each connection with `serve` until told to stop, and then waits for those that are open: they see the
    /// same `stop`.
    pub(crate) async fn run<F>(self, serve: impl Fn(Guest) -> F + Clone + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let places = Arc::new(Semaphore::new(self.intake.config().connections_max));
        let mut stop = self.stop.clone();
        let mut open = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stopped(&mut stop) => break,
                Some(_) = open.join_next() => continue,
                accepted = self.listener.accept() => accepted,
            };
            let Ok((stream, peer)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            // On a socket for both families, addresses of version 4 come dressed as version 6.
            let peer = peer.ip().to_canonical();
            let Ok(permit) = Arc::clone(&places).try_acquire_owned() else {
                self.intake.signals().connection_refused(self.door);
                continue;
            };
            let place = (permit, self.intake.signals().connection_opened(self.door));
            let (tls, serve) = (self.tls.clone(), serve.clone());
            let (intake, door) = (self.intake.clone(), self.door);
            open.spawn(async move {
                match secure(stream, tls).await {
                    Ok(wire) => serve(Guest { wire, peer, _place: place }).await,
                    Err(error) => {
                        let refusal = Refusal::new(Reason::Broken, format!("TLS handshake: {error}"));
                        intake.refused(&Origin { door, sender: peer }, &refusal, 1, &[]);
                    }
                }
            });
        }
        drop(self.listener);
        while open.join_next().await.is_some() {}
    }
}

async fn secure(stream: TcpStream, tls: Option<TlsAcceptor>) -> io::Result<Wire> {
    let Some(tls) = tls else { return Ok(Wire::Plain(stream)) };
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream));
    Ok(Wire::Tls(Box::new(handshake.await.map_err(|_| io::ErrorKind::TimedOut)??)))
}

/// Returns when the doors are to close, also when nobody is left to say so.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stops| *stops).await;
}

/// Binds at once, so that whoever opens a door knows whether the address was free.
pub(crate) fn bind_tcp(address: SocketAddr) -> Result<(TcpListener, SocketAddr), DoorsError> {
    let bind = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok((TcpListener::from_std(listener)?, address))
    };
    bind().map_err(|source| DoorsError::Listen { address, source })
}

/// The same for datagrams.
pub(crate) fn bind_udp(address: SocketAddr) -> Result<(UdpSocket, SocketAddr), DoorsError> {
    let bind = || {
        let socket = std::net::UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        // The system may allow less; what is lost then is lost before we see it, and `netstat -su` counts it.
        let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
        let address = socket.local_addr()?;
        Ok((UdpSocket::from_std(socket)?, address))
    };
    bind().map_err(|source| DoorsError::Listen { address, source })
}

/// What accepts TLS with the certificate of the configuration.
/// `protocols` are offered by ALPN (RFC 7301); none means that nobody asks.
pub(crate) fn tls(config: &TlsConfig, protocols: &[&[u8]]) -> Result<TlsAcceptor, DoorsError> {
    let unusable = |path: &Path, what: String| DoorsError::Tls { path: path.to_owned(), what };
    let read = |path: &Path| -> Result<Vec<CertificateDer<'static>>, DoorsError> {
        let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
        found.map_err(|error| unusable(path, error.to_string()))
    };
    let chain = read(&config.certificate_file)?;
    let key = PrivateKeyDer::from_pem_file(&config.key_file)
        .map_err(|error| unusable(&config.key_file, error.to_string()))?;
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&config.certificate_file, error.to_string()))?;
    let builder = match &config.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(read(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| unusable(path, error.to_string()))?)
        }
    };
    let mut server = builder
        .with_single_cert(chain, key)
        .map_err(|error| unusable(&config.certificate_file, error.to_string()))?;
    server.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(TlsAcceptor::from(Arc::new(server)))
}

impl AsyncRead for Guest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Wire::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Guest {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Wire::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        }
    }
}
