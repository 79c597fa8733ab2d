//! Connections and requests: bounded in number, patient for a while, ended in good order.

use std::collections::{BTreeMap, HashMap};
use std::error::Error as _;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use http::{Method, StatusCode};
use http_body_util::LengthLimitError;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::config::Limits;
use crate::cors;
use crate::guard::Guard;
use crate::signals::{Cut, Door, Refused, Signals, TurnedAway};
use crate::stall::Impatient;

/// After a failed accept (out of descriptors) we let others finish first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections over the bound that are told so; more are closed without a word.
const TURNING_AWAY_MAX: usize = 32;
/// How long such a connection may take to hear it.
const TURNING_AWAY_TIME: Duration = Duration::from_secs(1);
/// What it hears.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\nretry-after: 1\r\n\
    connection: close\r\ncontent-length: 44\r\n\r\nall connections of this door are in use now\n";

/// The address of the other end of the connection, as an extension of each request.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddress(pub IpAddr);

/// The task that owns the listener and its connections.
pub(crate) struct Server {
    pub(crate) listener: TcpListener,
    pub(crate) router: Router,
    pub(crate) limits: Limits,
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) turning_away: Arc<Semaphore>,
    pub(crate) door: Door,
    pub(crate) signals: Signals,
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) tls: Option<TlsAcceptor>,
}

/// A connection, plain or in TLS.
trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Wire for S {}

impl Server {
    pub(crate) fn new(
        listener: TcpListener,
        router: Router,
        keeper: &Arc<Keeper>,
        stop: watch::Receiver<bool>,
        tls: Option<TlsAcceptor>,
    ) -> Self {
        let limits = keeper.limits;
        Self {
            listener,
            // The keeper has gathered the body before a handler reads it.
            router: router
                .layer(DefaultBodyLimit::disable())
                .layer(from_fn_with_state(Arc::clone(keeper), admit)),
            limits,
            connections: Arc::new(Semaphore::new(limits.connections_max)),
            turning_away: Arc::new(Semaphore::new(TURNING_AWAY_MAX)),
            door: keeper.door,
            signals: keeper.signals.clone(),
            stop,
            tls,
        }
    }

    /// Accepts until told to stop, then waits for the connections that are open.
    pub(crate) async fn run(self) {
        let mut stop = self.stop.clone();
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut stop) => break,
                Some(_) = open.join_next() => {}
                accepted = accept(&self.listener) => match accepted {
                    Ok((stream, peer)) => self.take(stream, peer, &mut open),
                    Err(_) => {
                        self.signals.connection_turned_away(self.door, TurnedAway::Accept);
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(self.listener);
        while open.join_next().await.is_some() {}
    }

    fn take(&self, stream: TcpStream, peer: SocketAddr, open: &mut JoinSet<()>) {
        if let Ok(permit) = Arc::clone(&self.connections).try_acquire_owned() {
            open.spawn(self.serve(stream, peer, permit));
            return;
        }
        self.signals.connection_turned_away(self.door, TurnedAway::Full);
        if let Ok(permit) = Arc::clone(&self.turning_away).try_acquire_owned() {
            open.spawn(turn_away(stream, permit));
        }
    }

    fn serve(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        permit: OwnedSemaphorePermit,
    ) -> impl Future<Output = ()> + Send + 'static {
        // On a socket for both families, addresses of version 4 come dressed as version 6.
        let peer = PeerAddress(peer.ip().to_canonical());
        let service = TowerToHyperService::new(self.router.clone().layer(Extension(peer)));
        // What is written waits in the kernel at first: it too gives up on a client that takes none of it.
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(self.limits.write_timeout));
        let stream = Impatient::new(stream, self.limits.write_timeout);
        let (tls, header_timeout) = (self.tls.clone(), self.limits.header_timeout);
        let open = self.signals.connection_opened(self.door);
        let (mut stop, signals, door) = (self.stop.clone(), self.signals.clone(), self.door);
        async move {
            let secured = tokio::select! {
                secured = secure(stream, tls, header_timeout) => secured,
                () = stopped(&mut stop) => return,
            };
            let Some(stream) = secured else { return signals.connection_cut(door, Cut::Handshake) };
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(header_timeout)
                .serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stopped(&mut stop) => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Some(cut) = ended.err().as_ref().and_then(cut) {
                signals.connection_cut(door, cut);
            }
            drop((permit, open));
        }
    }
}

/// The connection as it is, or in TLS once its handshake came to a good end in time.
async fn secure(
    stream: Impatient<TcpStream>,
    tls: Option<TlsAcceptor>,
    timeout: Duration,
) -> Option<Box<dyn Wire>> {
    let Some(tls) = tls else { return Some(Box::new(stream)) };
    let secured = tokio::time::timeout(timeout, tls.accept(stream)).await.ok()?.ok()?;
    Some(Box::new(secured))
}

/// Returns when the door is to close, also when nobody is left to say so.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stops| *stops).await;
}

async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = listener.accept().await?;
    // A connection that is gone already is noticed when it is read.
    let _ = stream.set_nodelay(true);
    Ok((stream, peer))
}

/// Whether we ended the connection. What else goes wrong on one concerns only the client.
fn cut(error: &hyper::Error) -> Option<Cut> {
    if error.is_timeout() {
        return Some(Cut::Header);
    }
    let source = error.source().and_then(|source| source.downcast_ref::<io::Error>())?;
    (source.kind() == ErrorKind::TimedOut).then_some(Cut::Stalled)
}

/// Says that there is no room, and reads what was sent, so that the answer is not lost with it.
async fn turn_away(mut stream: TcpStream, permit: OwnedSemaphorePermit) {
    let telling = async {
        stream.write_all(FULL).await?;
        stream.shutdown().await?;
        let mut sent = [0; 1024];
        while stream.read(&mut sent).await? > 0 {}
        io::Result::Ok(())
    };
    // Whoever does not wait for the answer does not want it.
    let _ = tokio::time::timeout(TURNING_AWAY_TIME, telling).await;
    drop(permit);
}

/// Looks at each request before it is answered.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) door: Door,
    pub(crate) limits: Limits,
    pub(crate) guard: Option<Guard>,
    pub(crate) signals: Signals,
    pub(crate) under_way: UnderWay,
}

/// Requests that are being answered, by what they ask for.
#[derive(Debug, Default)]
pub(crate) struct UnderWay {
    requests: Mutex<HashMap<u64, (Method, Option<MatchedPath>)>>,
    next: AtomicU64,
}

/// One of them, while it lasts.
struct Entry<'a> {
    under_way: &'a UnderWay,
    number: u64,
}

impl UnderWay {
    fn enter(&self, request: &Request) -> Entry<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let what = (request.method().clone(), request.extensions().get::<MatchedPath>().cloned());
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).insert(number, what);
        Entry { under_way: self, number }
    }

    /// `GET /api/v1/calls/{call_id} (2)`: the route and not the path, which may hold a Call-ID.
    pub(crate) fn names(&self) -> (usize, Vec<String>) {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let mut counts = BTreeMap::<String, usize>::new();
        for (method, path) in requests.values() {
            let path = path.as_ref().map_or("of an unknown path", MatchedPath::as_str);
            *counts.entry(format!("{method} {path}")).or_default() += 1;
        }
        let name =
            |(what, count): (String, usize)| if count == 1 { what } else { format!("{what} ({count})") };
        (requests.len(), counts.into_iter().map(name).collect())
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.under_way.requests.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
    }
}

/// The way of every request: who asks, then all that he says, then the answer.
async fn admit(State(keeper): State<Arc<Keeper>>, request: Request, next: Next) -> Response {
    let _under_way = keeper.under_way.enter(&request);
    let peer = request.extensions().get::<PeerAddress>().map(|peer| peer.0);
    let invited = keeper.guard.as_ref().and_then(|guard| guard.invited(&request));
    let mut response = match invited {
        Some(_) if cors::is_preflight(&request) => cors::preflight(),
        _ => answer(&keeper, request, peer, next).await,
    };
    if let Some(origin) = invited {
        cors::allow(&mut response, origin);
    }
    response
}

async fn answer(keeper: &Keeper, request: Request, peer: Option<IpAddr>, next: Next) -> Response {
    let admitted = match keeper.guard.as_ref().map_or(Ok(()), |guard| guard.check(&request)) {
        Ok(()) => keeper.gather(request).await,
        Err(refused) => Err(refused),
    };
    match admitted {
        Ok(request) => next.run(request).await,
        Err(refused) => {
            keeper.signals.request_refused(keeper.door, refused, peer);
            keeper.refusal(refused)
        }
    }
}

impl Keeper {
    /// Waits for the whole body, so that a handler has it or never sees the request.
    async fn gather(&self, request: Request) -> Result<Request, Refused> {
        if request.body().is_end_stream() {
            return Ok(request);
        }
        let bytes_max = self.limits.request_bytes_max;
        if request.body().size_hint().lower() > bytes_max as u64 {
            return Err(Refused::TooLong);
        }
        let (parts, body) = request.into_parts();
        let gathering = tokio::time::timeout(self.limits.header_timeout, to_bytes(body, bytes_max));
        let bytes = gathering.await.map_err(|_| Refused::TooSlow)?.map_err(|error| {
            let is_too_long = error.source().is_some_and(<dyn std::error::Error>::is::<LengthLimitError>);
            if is_too_long { Refused::TooLong } else { Refused::Broken }
        })?;
        Ok(Request::from_parts(parts, Body::from(bytes)))
    }

    fn refusal(&self, refused: Refused) -> Response {
        let section = self.guard.as_ref().map_or("this door", |guard| guard.section);
        let (status, why) = match refused {
            Refused::NoToken => (
                StatusCode::UNAUTHORIZED,
                format!(
                    "this door asks for a token: send `Authorization: Bearer TOKEN`, or the token as the password of \
                     HTTP Basic, with a TOKEN of the file that [{section}] token_file names"
                ),
            ),
            Refused::WrongToken => (
                StatusCode::UNAUTHORIZED,
                format!(
                    "this token is not good: compare it with the file that [{section}] token_file names; a changed \
                     file is in force after a SIGHUP"
                ),
            ),
            Refused::Host => (
                StatusCode::MISDIRECTED_REQUEST,
                format!(
                    "without a token this door answers to an address or localhost only, so that a web page cannot \
                     reach it by a name of its own: ask it by its address, add the name to [{section}] host_names, or \
                     set [{section}] token_file"
                ),
            ),
            Refused::CrossSite => (
                StatusCode::FORBIDDEN,
                "a page of another site made the browser ask, and gets no answer".to_owned(),
            ),
            Refused::TooLong => (
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body is longer than {} bytes", self.limits.request_bytes_max),
            ),
            Refused::TooSlow => (
                StatusCode::REQUEST_TIMEOUT,
                format!("the body took longer than {:?}", self.limits.header_timeout),
            ),
            Refused::Broken => (StatusCode::BAD_REQUEST, "the body broke off".to_owned()),
        };
        let kind = [(CONTENT_TYPE, "text/plain; charset=utf-8"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
        if status == StatusCode::UNAUTHORIZED {
            return (status, kind, [(WWW_AUTHENTICATE, "Bearer")], format!("{why}\n")).into_response();
        }
        (status, kind, format!("{why}\n")).into_response()
    }
}
