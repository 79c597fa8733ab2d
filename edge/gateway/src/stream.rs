//! A customer's connection as Pingora and the SIP endpoints read it: plain or TLS, with bytes read ahead, counted,
//! and held to the total header deadline that Pingora lacks.

use std::io;
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf as _, BytesMut};
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::SslDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest,
    UniqueID, UniqueIDType,
};
use pingora_http::ResponseHeader;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use crate::peer::Peer;
use crate::signals::ByteCounters;

/// What carries the bytes.
#[derive(Debug)]
pub(crate) enum Socket {
    /// Plain TCP.
    Plain(TcpStream),
    /// TLS that a customer opened.
    Server(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    /// TLS that the edge opened.
    Client(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

/// What travels with an HTTP connection to each of its requests.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The customer.
    pub(crate) peer: Peer,
    /// The header deadline.
    pub(crate) clock: HeaderClock,
}

/// Where an HTTP connection stands with its next request header.
///
/// Armed from the start of the connection, disarmed when a request is whole, armed again by the first byte of the
/// next one. On h2 only the first request is held to it: after that the idle timeout of h2 takes over.
#[derive(Debug)]
pub(crate) struct HeaderClock {
    phase: AtomicU8,
    until: Mutex<Instant>,
    limit: Duration,
    /// Bytes of the header so far; `usize::MAX` is no bound (h2 has its own).
    bytes: AtomicUsize,
    bytes_max: usize,
}

const WAITING: u8 = 0;
const READING: u8 = 1;
const SERVING: u8 = 2;
const EXPIRED: u8 = 3;
const TOO_LONG: u8 = 4;

impl HeaderClock {
    /// A clock that runs until `until` for the first header, and `limit` for each later one; a header that is not
    /// whole after `bytes_max` bytes is given up.
    pub(crate) fn armed(until: Instant, limit: Duration, bytes_max: usize) -> Self {
        let (phase, bytes) = (AtomicU8::new(READING), AtomicUsize::new(0));
        Self { phase, until: Mutex::new(until), limit, bytes, bytes_max }
    }

    /// A request header is whole.
    pub(crate) fn request_came(&self) {
        self.phase.store(SERVING, Ordering::Relaxed);
    }

    /// A request is answered; the next byte begins another.
    pub(crate) fn request_ended(&self) {
        self.phase.store(WAITING, Ordering::Relaxed);
    }

    /// Whether the deadline passed.
    pub(crate) fn is_expired(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == EXPIRED
    }

    /// Whether a header was longer than allowed.
    pub(crate) fn is_too_long(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == TOO_LONG
    }

    /// Whether a header was begun and never came to an end.
    pub(crate) fn is_reading(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == READING
    }

    fn deadline(&self) -> Option<Instant> {
        self.is_reading().then(|| *self.until.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn bytes_came(&self, count: usize) {
        if self.phase.load(Ordering::Relaxed) == WAITING {
            self.bytes.store(0, Ordering::Relaxed);
            *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now() + self.limit;
            self.phase.store(READING, Ordering::Relaxed);
        }
        self.bytes.fetch_add(count, Ordering::Relaxed);
    }

    /// True once, when a header is still not whole after as many bytes as are allowed.
    fn has_had_enough(&self) -> bool {
        let is_over = self.is_reading() && self.bytes.load(Ordering::Relaxed) >= self.bytes_max;
        if is_over {
            self.phase.store(TOO_LONG, Ordering::Relaxed);
        }
        is_over
    }
}

/// A customer's connection.
#[derive(Debug)]
pub(crate) struct EdgeStream {
    socket: Socket,
    /// What was read to find out what is spoken.
    read_ahead: BytesMut,
    bytes: ByteCounters,
    http: Option<Http>,
}

#[derive(Debug)]
struct Http {
    connection: Arc<Connection>,
    sleep: Pin<Box<Sleep>>,
    is_h2: bool,
    /// Carries the connection to `ProxyHttp`: the one slot that Pingora hands through unread.
    proxy_digest: Arc<ProxyDigest>,
    ssl_digest: Option<Arc<SslDigest>>,
    socket_digest: Arc<SocketDigest>,
}

impl EdgeStream {
    /// A connection, before it is known what is spoken on it, or for SIP.
    pub(crate) fn new(socket: Socket, bytes: ByteCounters) -> Self {
        Self { socket, read_ahead: BytesMut::new(), bytes, http: None }
    }

    /// Puts bytes back, to be read again by whoever gets the connection.
    pub(crate) fn unread(&mut self, bytes: BytesMut) {
        self.read_ahead = bytes;
    }

    /// The protocol that the TLS handshake agreed on (RFC 7301).
    pub(crate) fn agreed_protocol(&self) -> Option<&[u8]> {
        match &self.socket {
            Socket::Plain(_) => None,
            Socket::Server(stream) => stream.get_ref().1.alpn_protocol(),
            Socket::Client(stream) => stream.get_ref().1.alpn_protocol(),
        }
    }

    /// A connection for Pingora's HTTP engine.
    pub(crate) fn for_http(
        mut self,
        connection: Arc<Connection>,
        is_h2: bool,
    ) -> Result<Self, Box<pingora_core::Error>> {
        let until = connection.clock.deadline().unwrap_or_else(Instant::now);
        let digest_head = Box::new(ResponseHeader::build(200, Some(0))?);
        let user_data = Box::new(Arc::clone(&connection));
        let ssl_digest = match &self.socket {
            Socket::Plain(_) => None,
            Socket::Server(_) | Socket::Client(_) => {
                Some(Arc::new(SslDigest::new("", "", None, None, Vec::new())))
            }
        };
        self.http = Some(Http {
            sleep: Box::pin(tokio::time::sleep_until(until)),
            connection,
            is_h2,
            proxy_digest: Arc::new(ProxyDigest::new(digest_head, Some(user_data))),
            ssl_digest,
            socket_digest: Arc::new(SocketDigest::from_raw_fd(self.tcp().as_raw_fd())),
        });
        Ok(self)
    }

    fn tcp(&self) -> &TcpStream {
        match &self.socket {
            Socket::Plain(stream) => stream,
            Socket::Server(stream) => stream.get_ref().0,
            Socket::Client(stream) => stream.get_ref().0,
        }
    }

    fn poll_socket_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Socket::Server(stream) => Pin::new(stream).poll_read(cx, buffer),
            Socket::Client(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }

    /// Ready with an error once the header deadline has passed.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(http) = &mut self.http else { return Poll::Pending };
        let Some(until) = http.connection.clock.deadline() else { return Poll::Pending };
        if http.sleep.deadline() != until {
            http.sleep.as_mut().reset(until);
        }
        ready!(http.sleep.as_mut().poll(cx));
        http.connection.clock.phase.store(EXPIRED, Ordering::Relaxed);
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the request header did not come in time"))
    }
}

impl AsyncRead for EdgeStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Poll::Ready(error) = this.poll_deadline(cx) {
            return Poll::Ready(Err(error));
        }
        if this.http.as_ref().is_some_and(|http| http.connection.clock.has_had_enough()) {
            return Poll::Ready(Err(io::Error::other("the request header is too long")));
        }
        let before = buffer.filled().len();
        if this.read_ahead.is_empty() {
            ready!(this.poll_socket_read(cx, buffer))?;
            this.bytes.received.add((buffer.filled().len() - before) as u64);
        } else {
            let length = this.read_ahead.len().min(buffer.remaining());
            buffer.put_slice(&this.read_ahead[..length]);
            this.read_ahead.advance(length);
        }
        let received = buffer.filled().len() - before;
        if let Some(http) = this.http.as_ref().filter(|_| received > 0) {
            http.connection.clock.bytes_came(received);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for EdgeStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let sent = ready!(match &mut self.socket {
            Socket::Plain(stream) => Pin::new(stream).poll_write(cx, buffer),
            Socket::Server(stream) => Pin::new(stream).poll_write(cx, buffer),
            Socket::Client(stream) => Pin::new(stream).poll_write(cx, buffer),
        })?;
        self.bytes.sent.add(sent as u64);
        Poll::Ready(Ok(sent))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = ready!(match &mut self.socket {
            Socket::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, buffers),
            Socket::Server(stream) => Pin::new(stream).poll_write_vectored(cx, buffers),
            Socket::Client(stream) => Pin::new(stream).poll_write_vectored(cx, buffers),
        })?;
        self.bytes.sent.add(sent as u64);
        Poll::Ready(Ok(sent))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Socket::Server(stream) => Pin::new(stream).poll_flush(cx),
            Socket::Client(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            Socket::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Server(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Client(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

// The faces that Pingora's `IO` asks of a stream.

#[async_trait]
impl Shutdown for EdgeStream {
    async fn shutdown(&mut self) {
        // The peer may be gone already; then there is nobody left to say goodbye to.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for EdgeStream {
    fn id(&self) -> UniqueIDType {
        self.tcp().as_raw_fd()
    }
}

impl Ssl for EdgeStream {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.http.as_ref()?.ssl_digest.clone()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.http.as_ref().filter(|http| http.is_h2).map(|_| ALPN::H2)
    }
}

impl GetTimingDigest for EdgeStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for EdgeStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.http.as_ref().map(|http| Arc::clone(&http.proxy_digest))
    }
}

impl GetSocketDigest for EdgeStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.http.as_ref().map(|http| Arc::clone(&http.socket_digest))
    }
}

impl Peek for EdgeStream {}
