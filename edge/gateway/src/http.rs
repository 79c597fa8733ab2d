//! HTTP/1.1 and h2 through Pingora's engine: routing, headers, errors, and one report per request.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use belfry_signal::{SpanContext, SpanId, now_unix_nanos};
use bytes::Bytes;
use http::Version;
use pingora_core::apps::HttpServerOptions;
use pingora_core::protocols::http::v2::server::default_h2_options;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, HttpProxy, ProxyHttp, Session, http_proxy};

use crate::edge::Edge;
use crate::peer::Peer;
use crate::routes::{Backend, Routes};
use crate::signals::{RequestEnd, ResponseFlag};
use crate::stream::Connection;

/// Headers with this beginning are between Belfry and its backends: never from outside, never to outside.
const INTERNAL_PREFIX: &str = "x-belfry-";
/// What customers could claim about themselves.
const CLAIMS: [&str; 6] = [
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-real-ip",
    "forwarded",
];

/// Pingora's engine with our front end.
pub(crate) type HttpEngine = Arc<HttpProxy<FrontEnd>>;

/// The edge's side of each request.
#[derive(Debug)]
pub(crate) struct FrontEnd {
    edge: Arc<Edge>,
    /// Requests that came without a trace; only its remainder matters.
    untraced: AtomicU32,
}

/// One request.
#[derive(Debug)]
pub(crate) struct RequestContext {
    connection: Option<Arc<Connection>>,
    /// The customer behind a trusted proxy, who is not the connection's peer.
    customer: Option<Peer>,
    start: Instant,
    start_unix_nanos: u64,
    context: SpanContext,
    parent: Option<SpanId>,
    backend: Option<Arc<Backend>>,
    slow_after: Duration,
    attempts: usize,
    flag: Option<ResponseFlag>,
    /// When the request went to a backend.
    forwarded: Option<Instant>,
    /// How long the response header took, from the request's header.
    answered_after: Option<Duration>,
}

/// Builds the engine; inside the runtime that will run it.
pub(crate) fn engine(conf: &Arc<ServerConf>, edge: &Arc<Edge>) -> HttpEngine {
    let mut proxy = http_proxy(conf, FrontEnd { edge: Arc::clone(edge), untraced: AtomicU32::new(0) });
    let mut h2_options = default_h2_options();
    h2_options.max_concurrent_streams(edge.limits.h2_streams_max);
    proxy.h2_options = Some(h2_options);
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(edge.timeouts.http_idle);
    options.keepalive_request_limit = Some(edge.limits.http_requests_per_connection_max);
    proxy.server_options = Some(options);
    Arc::new(proxy)
}

#[async_trait]
impl ProxyHttp for FrontEnd {
    type CTX = RequestContext;

    fn new_ctx(&self) -> RequestContext {
        RequestContext {
            connection: None,
            customer: None,
            start: Instant::now(),
            start_unix_nanos: now_unix_nanos(),
            context: SpanContext::new_root(),
            parent: None,
            backend: None,
            slow_after: Duration::MAX,
            attempts: 0,
            flag: None,
            forwarded: None,
            answered_after: None,
        }
    }

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut RequestContext) -> Result<()> {
        ctx.connection = connection_of(session);
        if let Some(connection) = &ctx.connection {
            connection.clock.request_came();
        }
        // An upgraded connection is quiet for as long as its users are.
        let timeouts = &self.edge.timeouts;
        let stall = if session.is_upgrade_req() { timeouts.sip_idle } else { timeouts.stall };
        session.set_read_timeout(Some(stall));
        session.set_write_timeout(Some(timeouts.stall));
        if session.get_keepalive().is_some() {
            session.set_keepalive(Some(timeouts.http_idle.as_secs().max(1)));
        }
        let incoming =
            header_text(session.req_header(), "traceparent").and_then(SpanContext::parse_traceparent);
        match incoming {
            Some(incoming) => {
                ctx.context = incoming.child();
                ctx.parent = Some(incoming.span_id);
            }
            None => {
                let number = self.untraced.fetch_add(1, Ordering::Relaxed);
                ctx.context.sampled = number.is_multiple_of(self.edge.routes.load().trace_one_in.max(1));
            }
        }
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut RequestContext) -> Result<bool> {
        let routes = self.edge.routes.load();
        ctx.slow_after = routes.slow_after;
        let request = session.req_header();
        let host = request.uri.host().or_else(|| header_text(request, "host")).unwrap_or_default();
        ctx.backend = routes.find(host, request.uri.path()).map(Arc::clone);
        ctx.customer = ctx.connection.as_ref().and_then(|connection| {
            let address = forwarded_customer(&routes, request, connection.peer.address)?;
            Some(self.edge.geography.load().place(
                &connection.peer.listener,
                address,
                connection.peer.is_secure,
            ))
        });
        if ctx.connection.is_some() && ctx.backend.is_some() {
            return Ok(false);
        }
        let flag = if ctx.connection.is_some() { ResponseFlag::NoRoute } else { ResponseFlag::Internal };
        ctx.flag = Some(flag);
        let status = if flag == ResponseFlag::NoRoute { 404 } else { 500 };
        respond(session, status, flag, ctx).await;
        Ok(true)
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut RequestContext) -> Result<Box<HttpPeer>> {
        let Some(backend) = &ctx.backend else {
            return Error::e_explain(ErrorType::InternalError, "a request without a backend");
        };
        ctx.attempts += 1;
        ctx.forwarded.get_or_insert_with(Instant::now);
        let mut peer = HttpPeer::new(backend.pick(), false, String::new());
        peer.options.connection_timeout = Some(backend.connect_timeout);
        peer.options.total_connection_timeout = Some(backend.connect_timeout);
        let is_upgrade = session.is_upgrade_req();
        let read_timeout = if is_upgrade { self.edge.timeouts.sip_idle } else { backend.read_timeout };
        peer.options.read_timeout = Some(read_timeout);
        peer.options.write_timeout = Some(self.edge.timeouts.stall);
        peer.options.idle_timeout = Some(self.edge.timeouts.http_idle);
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        upstream: &mut RequestHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        let Some(connection) = &ctx.connection else { return Ok(()) };
        let peer = &connection.peer;
        let customer = ctx.customer.as_ref().unwrap_or(peer);
        let is_trusted = self.edge.routes.load().trusts(peer.address.ip());
        let ip = peer.address.ip().to_canonical().to_string();
        let (mut forwarded_for, mut proto) = (ip.clone(), if peer.is_secure { "https" } else { "http" });
        if is_trusted {
            let claims =
                upstream.headers.get_all("x-forwarded-for").iter().filter_map(|claim| claim.to_str().ok());
            forwarded_for = claims.chain([ip.as_str()]).collect::<Vec<_>>().join(", ");
            proto = match header_text(session.req_header(), "x-forwarded-proto") {
                Some("https") => "https",
                Some("http") => "http",
                _ => proto,
            };
        }
        for name in CLAIMS {
            upstream.remove_header(name);
        }
        remove_internal(upstream);
        upstream.insert_header("x-forwarded-for", forwarded_for)?;
        upstream.insert_header("x-forwarded-proto", proto)?;
        upstream.insert_header("x-belfry-region", customer.region.as_str())?;
        if let Some(country) = customer.country {
            upstream.insert_header("x-belfry-country", country.as_str())?;
        }
        upstream.insert_header("traceparent", ctx.context.traceparent())?;
        Ok(())
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut RequestContext,
    ) -> Result<()> {
        ctx.answered_after = Some(ctx.start.elapsed());
        let internal: Vec<_> = response
            .headers
            .keys()
            .filter(|name| name.as_str().starts_with(INTERNAL_PREFIX))
            .cloned()
            .collect();
        for name in internal {
            response.remove_header(&name);
        }
        if response.status.is_server_error() {
            ctx.flag = Some(ResponseFlag::BackendError);
        }
        Ok(())
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut RequestContext,
        mut error: Box<Error>,
    ) -> Box<Error> {
        // Nothing was sent yet, so the next server may have it whatever the method is.
        error.set_retry(ctx.backend.as_ref().is_some_and(|backend| ctx.attempts < backend.servers()));
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut RequestContext,
    ) -> FailToProxy {
        let (flag, status) = judge(error);
        ctx.flag = Some(flag);
        if let Some(status) = status {
            respond(session, status, flag, ctx).await;
        }
        FailToProxy { error_code: status.unwrap_or_default(), can_reuse_downstream: false }
    }

    fn suppress_error_log(&self, _: &Session, _: &RequestContext, _: &Error) -> bool {
        // `logging` tells it with its flag; a second story in another format helps nobody.
        true
    }

    async fn logging(&self, session: &mut Session, _error: Option<&Error>, ctx: &mut RequestContext) {
        let Some(connection) = ctx.connection.take() else { return };
        let request = session.req_header();
        let is_h2 = request.version == Version::HTTP_2;
        let answered_after = ctx.answered_after.unwrap_or_else(|| ctx.start.elapsed());
        let is_slow = answered_after > ctx.slow_after;
        let flag = match ctx.flag {
            // Who leaves after having waited too long was not served; who leaves at once changed their mind.
            None | Some(ResponseFlag::ClientGone) if is_slow => ResponseFlag::Slow,
            None => ResponseFlag::Fine,
            Some(flag) => flag,
        };
        let backend_wait = ctx
            .forwarded
            .map_or(Duration::ZERO, |at| answered_after.saturating_sub(at.duration_since(ctx.start)));
        self.edge.signals.request_ended(&RequestEnd {
            peer: ctx.customer.as_ref().unwrap_or(&connection.peer),
            flag,
            status: session.response_written().map(|response| response.status.as_u16()),
            method: method_name(request),
            protocol: protocol_name(request.version),
            path: request.uri.path(),
            backend: ctx.backend.as_ref().map(|backend| backend.name.as_str()),
            context: ctx.context,
            parent: ctx.parent,
            start_unix_nanos: ctx.start_unix_nanos,
            elapsed: ctx.start.elapsed(),
            received_bytes: session.body_bytes_read() as u64,
            sent_bytes: session.body_bytes_sent() as u64,
            backend_was_slow: backend_wait * 2 > answered_after,
        });
        if !is_h2 {
            connection.clock.request_ended();
        }
    }
}

/// The connection that a request came on: Pingora hands our stream's digest through.
fn connection_of(session: &Session) -> Option<Arc<Connection>> {
    let user_data = session.digest()?.proxy_digest.as_ref()?.user_data.as_ref()?;
    user_data.downcast_ref::<Arc<Connection>>().map(Arc::clone)
}

/// The customer whom a trusted proxy forwards for: the last address in `x-forwarded-for` that is not a trusted proxy
/// itself. What stands before it was claimed by people whom nobody trusts.
fn forwarded_customer(routes: &Routes, request: &RequestHeader, proxy: SocketAddr) -> Option<SocketAddr> {
    if !routes.trusts(proxy.ip()) {
        return None;
    }
    let claims = request.headers.get_all("x-forwarded-for").iter().filter_map(|claim| claim.to_str().ok());
    let addresses = claims.flat_map(|claim| claim.split(',')).map(|claim| claim.trim().parse::<IpAddr>());
    let addresses: Vec<IpAddr> = addresses.collect::<Result<_, _>>().ok()?;
    let customer = addresses.into_iter().rev().find(|ip| !routes.trusts(*ip))?;
    Some(SocketAddr::new(customer, proxy.port()))
}

/// Whose fault an error is, and what the customer is told; `None` when nobody is there to be told.
fn judge(error: &Error) -> (ResponseFlag, Option<u16>) {
    use ErrorType as Type;
    match (error.esource(), error.etype()) {
        (ErrorSource::Upstream, Type::ConnectTimedout | Type::ReadTimedout | Type::WriteTimedout) => {
            (ResponseFlag::BackendTimeout, Some(504))
        }
        (
            ErrorSource::Upstream,
            Type::ConnectRefused
            | Type::ConnectNoRoute
            | Type::ConnectError
            | Type::SocketError
            | Type::BindError,
        ) => (ResponseFlag::BackendUnreachable, Some(503)),
        (ErrorSource::Upstream, _) => (ResponseFlag::BackendBroken, Some(502)),
        (ErrorSource::Downstream, Type::ReadTimedout) => (ResponseFlag::ClientStalled, Some(408)),
        (ErrorSource::Downstream, Type::WriteTimedout) => (ResponseFlag::ClientStalled, None),
        (ErrorSource::Downstream, Type::ReadError | Type::WriteError | Type::ConnectionClosed) => {
            (ResponseFlag::ClientGone, None)
        }
        (ErrorSource::Downstream, Type::H2Error) => (ResponseFlag::ClientGone, None),
        (ErrorSource::Downstream, Type::HTTPStatus(status)) => (ResponseFlag::ClientMalformed, Some(*status)),
        (ErrorSource::Downstream, _) => (ResponseFlag::ClientMalformed, Some(400)),
        (ErrorSource::Internal | ErrorSource::Unset, Type::HTTPStatus(status)) if *status < 500 => {
            (ResponseFlag::ClientMalformed, Some(*status))
        }
        (ErrorSource::Internal | ErrorSource::Unset, _) => (ResponseFlag::Internal, Some(500)),
    }
}

/// A small answer of our own. It names the flag and the trace, by which the operator finds the rest.
async fn respond(session: &mut Session, status: u16, flag: ResponseFlag, ctx: &RequestContext) {
    let body = format!("{status} {} (trace {})\n", flag.as_str(), ctx.context.trace_id);
    let build = || -> Result<ResponseHeader> {
        let mut response = ResponseHeader::build(status, Some(4))?;
        response.insert_header("content-type", "text/plain; charset=utf-8")?;
        response.insert_header("content-length", body.len())?;
        response.insert_header("cache-control", "no-store")?;
        Ok(response)
    };
    if let Ok(response) = build() {
        // When even this cannot be written, the client is gone, and the access log says what it would have got.
        let _ = session.downstream_session.write_error_response(response, Bytes::from(body)).await;
    }
}

fn remove_internal(request: &mut RequestHeader) {
    let internal: Vec<_> =
        request.headers.keys().filter(|name| name.as_str().starts_with(INTERNAL_PREFIX)).cloned().collect();
    for name in internal {
        request.remove_header(&name);
    }
}

fn header_text<'a>(request: &'a RequestHeader, name: &str) -> Option<&'a str> {
    request.headers.get(name)?.to_str().ok()
}

/// The methods of RFC 9110 and 5789 by name: what a peer invents does not become an attribute.
fn method_name(request: &RequestHeader) -> &'static str {
    ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"]
        .into_iter()
        .find(|name| *name == request.method.as_str())
        .unwrap_or("_OTHER")
}

fn protocol_name(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "http/1.0",
        Version::HTTP_2 => "h2",
        _ => "http/1.1",
    }
}
