//! Every signal of the edge: the only file that names its metrics, spans and logs.
//!
//! One past-tense method per thing that happens; it moves counters and hands over the record in one go, so that
//! log, metric and span cannot disagree. What a peer controls never becomes a label.

mod labels;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use belfry_signal::record::{Attributes, Body, Direction, Log, Name, SipMessage, Span, SpanKind, SpanStatus};
use belfry_signal::{
    Cause, Component, Counter, CounterHandle, Emitter, Gauge, GaugeGuard, Histogram, Journey, Journeys, Pii,
    Region, Registry, Room, SECONDS, Severity, SpanContext, SpanId, TraceKey, now_unix_nanos,
};
use belfry_signalling::handle::{SendFailure, Transport};

use crate::peer::Peer;

pub(crate) use labels::{CoreRefusal, Handshake, Limit, Malformed, Method};
pub use labels::{ListenerName, ResponseFlag};
use labels::{Reload, SendRefusal, Shed, StatusClass, TransportLabel, Way};

/// An HTTP request that is over.
#[derive(Debug)]
pub(crate) struct RequestEnd<'a> {
    pub(crate) peer: &'a Peer,
    pub(crate) flag: ResponseFlag,
    pub(crate) status: Option<u16>,
    pub(crate) method: &'static str,
    pub(crate) protocol: &'static str,
    pub(crate) path: &'a str,
    pub(crate) backend: Option<&'a str>,
    pub(crate) context: SpanContext,
    pub(crate) parent: Option<SpanId>,
    pub(crate) start_unix_nanos: u64,
    pub(crate) elapsed: Duration,
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    /// Whether most of the time was spent waiting for the backend.
    pub(crate) backend_was_slow: bool,
}

/// A SIP request that no core took.
#[derive(Debug)]
pub(crate) struct RefusedRequest<'a> {
    pub(crate) transport: Transport,
    pub(crate) region: &'a Region,
    pub(crate) source: SocketAddr,
    pub(crate) call_id: &'a str,
    pub(crate) cseq: &'a str,
    pub(crate) method: Method,
    /// Whether it starts something that a customer waits for: no To tag.
    pub(crate) is_initial: bool,
    pub(crate) reason: CoreRefusal,
    pub(crate) request: &'a [u8],
    /// The answer that the edge gave, if it could.
    pub(crate) answer: Option<&'a [u8]>,
}

/// Byte counters of one listener, for the hot path.
#[derive(Clone, Debug)]
pub(crate) struct ByteCounters {
    pub(crate) received: CounterHandle,
    pub(crate) sent: CounterHandle,
}

/// The edge's signals. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    emitter: Emitter,
    journeys: Journeys,
    trace_key: TraceKey,
    connections: Gauge<(ListenerName,)>,
    connections_total: Counter<(ListenerName,)>,
    handshakes: Counter<(ListenerName, Handshake)>,
    handshake_seconds: Histogram<(ListenerName,)>,
    limits: Counter<(ListenerName, Limit)>,
    malformed: Counter<(ListenerName, Malformed)>,
    bytes: Counter<(ListenerName, Way)>,
    requests: Counter<(ListenerName, ResponseFlag, StatusClass)>,
    request_seconds: Histogram<(ListenerName,)>,
    sip_messages: [[CounterHandle; 2]; TransportLabel::ALL.len()],
    sip_bytes: [[CounterHandle; 2]; TransportLabel::ALL.len()],
    sip_keepalives: Counter<(TransportLabel,)>,
    sip_flows: Gauge<(TransportLabel,)>,
    sip_refused: Counter<(TransportLabel, CoreRefusal)>,
    sip_shed: Counter<(ListenerName, Shed)>,
    sip_banned: CounterHandle,
    sip_unknown: CounterHandle,
    bans_refused: CounterHandle,
    refusals: Refusals,
    sip_unsent: Counter<(TransportLabel, SendRefusal)>,
    cores: Gauge<()>,
    reloads: Counter<(Reload,)>,
    geoip_build: Gauge<()>,
    certificates: Gauge<()>,
}

const COMPONENT: &str = "edge_gateway";

impl Signals {
    pub(crate) fn register(registry: &Registry, trace_key: TraceKey) -> Self {
        let at = registry.component(COMPONENT);
        let sip_messages: Counter<(TransportLabel, Way)> =
            at.counter("sip_messages_total", "SIP messages that crossed the edge.");
        let sip_bytes: Counter<(TransportLabel, Way)> =
            at.counter("sip_bytes_total", "Bytes of SIP messages that crossed the edge.");
        let by_transport = |family: &Counter<(TransportLabel, Way)>| {
            std::array::from_fn(|transport| {
                let transport = TransportLabel::ALL[transport];
                [family.handle((transport, Way::In)), family.handle((transport, Way::Out))]
            })
        };
        let inner = Inner {
            emitter: at.emitter(),
            journeys: at.journeys(),
            trace_key,
            connections: at.gauge("connections", "Connections open now."),
            connections_total: at.counter("connections_total", "Connections accepted."),
            handshakes: at.counter("handshakes_total", "TLS handshakes ended."),
            handshake_seconds: at.histogram(
                "handshake_seconds",
                "Time of TLS handshakes that succeeded.",
                SECONDS,
            ),
            limits: at.counter("limits_total", "Connections and messages that ran into a limit."),
            malformed: at
                .counter("malformed_total", "Connections and messages given up because of bad input."),
            bytes: at.counter("bytes_total", "Bytes of connections, inside TLS."),
            requests: at.counter("requests_total", "HTTP requests, by what became of them."),
            request_seconds: at.histogram(
                "request_seconds",
                "Time of HTTP requests until their last byte.",
                SECONDS,
            ),
            sip_messages: by_transport(&sip_messages),
            sip_bytes: by_transport(&sip_bytes),
            sip_keepalives: at.counter("sip_keepalives_total", "Keep-alives answered (RFC 5626)."),
            sip_flows: at.gauge("sip_flows", "SIP connection flows open now."),
            sip_refused: at.counter("sip_refused_total", "SIP messages that no core took."),
            sip_shed: at.counter(
                "sip_shed_total",
                "Datagrams of unknown senders that were not looked at, because more came than can be served.",
            ),
            sip_banned: plain(
                &at,
                "sip_banned_total",
                "Datagrams of strangers that were turned away because a core banned their network.",
            ),
            sip_unknown: plain(
                &at,
                "sip_known_refused_total",
                "Customers who were let in and stay unknown in a rush, because their network has too many.",
            ),
            bans_refused: plain(&at, "bans_refused_total", "Bans of cores for which there was no place."),
            refusals: Refusals::default(),
            sip_unsent: at.counter("sip_unsent_total", "SIP messages that could not be sent to a customer."),
            cores: at.gauge("cores", "Links to signalling cores that are up."),
            reloads: at.counter("reloads_total", "Configuration reloads."),
            geoip_build: at.gauge("geoip_build_timestamp_seconds", "When the GeoIP file in use was built."),
            certificates: at.gauge("certificates", "Certificates in use."),
        };
        Self { inner: Arc::new(inner) }
    }

    pub(crate) fn byte_counters(&self, listener: &ListenerName) -> ByteCounters {
        ByteCounters {
            received: self.inner.bytes.handle((listener.clone(), Way::In)),
            sent: self.inner.bytes.handle((listener.clone(), Way::Out)),
        }
    }

    // Lifecycle.

    pub(crate) fn started(&self, listener: &ListenerName, address: SocketAddr) {
        let attributes = vec![
            ("edge.listener".into(), text(listener.as_str())),
            ("network.local.address".into(), text(&address.to_string())),
        ];
        self.log(Severity::Info, "listening", attributes);
    }

    pub(crate) fn drain_started(&self) {
        self.log(Severity::Info, "draining: no new connections", vec![]);
    }

    pub(crate) fn stopped(&self) {
        self.log(Severity::Info, "stopped", vec![]);
    }

    pub(crate) fn reloaded(&self) {
        self.inner.reloads.inc((Reload::Done,));
        self.log(Severity::Info, "configuration reloaded", vec![]);
    }

    pub(crate) fn reload_refused(&self, error: &crate::Error) {
        self.inner.reloads.inc((Reload::Refused,));
        let attributes = vec![
            ("error.type".into(), error.reason().into()),
            ("error.message".into(), text(&error.to_string())),
        ];
        self.log(Severity::Error, "reload refused, everything stays as it was", attributes);
    }

    pub(crate) fn certificates_loaded(&self, count: usize) {
        self.inner.certificates.set((), i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub(crate) fn authority_created(&self, path: &std::path::Path) {
        let attributes = vec![("file.path".into(), text(&path.display().to_string()))];
        self.log(Severity::Info, "made a local certificate authority; clients must trust it", attributes);
    }

    pub(crate) fn geoip_loaded(&self, build_unix_seconds: u64) {
        self.inner.geoip_build.set((), i64::try_from(build_unix_seconds).unwrap_or(i64::MAX));
    }

    pub(crate) fn core_came(&self, node: &str, up: usize) {
        self.inner.cores.set((), i64::try_from(up).unwrap_or(i64::MAX));
        self.log(Severity::Info, "core is up", vec![("mesh.peer".into(), text(node))]);
    }

    pub(crate) fn core_left(&self, node: &str, up: usize) {
        self.inner.cores.set((), i64::try_from(up).unwrap_or(i64::MAX));
        self.log(Severity::Warn, "core is gone", vec![("mesh.peer".into(), text(node))]);
    }

    // Bans, and who is known.

    /// What a stranger of a banned network sent was not passed to a core.
    pub(crate) fn stranger_turned_away(&self) {
        self.inner.sip_banned.inc();
    }

    /// A ban found no place here.
    pub(crate) fn ban_not_kept(&self) {
        self.inner.bans_refused.inc();
    }

    /// Somebody was let in whose network has had its share of those who are known.
    pub(crate) fn peer_stayed_unknown(&self) {
        self.inner.sip_unknown.inc();
    }

    // A rush of datagrams.

    pub(crate) fn datagrams_shed(&self, listener: &ListenerName, answered: u64, dropped: u64) {
        self.inner.sip_shed.add((listener.clone(), Shed::Answered), answered);
        self.inner.sip_shed.add((listener.clone(), Shed::Dropped), dropped);
    }

    pub(crate) fn rush_began(&self, listener: &ListenerName) {
        let attributes = vec![("edge.listener".into(), text(listener.as_str()))];
        let event = "more datagrams than can be served: known customers first";
        self.log(Severity::Warn, event, attributes);
    }

    pub(crate) fn rush_ended(&self, listener: &ListenerName, answered: u64, dropped: u64) {
        let attributes = vec![
            ("edge.listener".into(), text(listener.as_str())),
            ("datagrams.answered".into(), answered.into()),
            ("datagrams.dropped".into(), dropped.into()),
        ];
        self.log(Severity::Info, "the rush of datagrams is over", attributes);
    }

    // Connections.

    pub(crate) fn connection_accepted(&self, listener: &ListenerName) -> GaugeGuard {
        self.inner.connections_total.inc((listener.clone(),));
        self.inner.connections.guard((listener.clone(),))
    }

    pub(crate) fn limit_hit(&self, listener: &ListenerName, limit: Limit) {
        self.inner.limits.inc((listener.clone(), limit));
    }

    pub(crate) fn handshake_ended(&self, listener: &ListenerName, outcome: Handshake, elapsed: Duration) {
        self.inner.handshakes.inc((listener.clone(), outcome));
        if matches!(outcome, Handshake::Done | Handshake::Resumed) {
            self.inner.handshake_seconds.observe((listener.clone(),), elapsed.as_secs_f64());
        }
    }

    pub(crate) fn input_malformed(&self, listener: &ListenerName, reason: Malformed, source: SocketAddr) {
        self.inner.malformed.inc((listener.clone(), reason));
        let attributes = vec![
            ("edge.listener".into(), text(listener.as_str())),
            ("reason".into(), reason.as_str().into()),
            ("client.address".into(), Pii::new(source.to_string()).into()),
        ];
        self.log(Severity::Debug, "malformed input", attributes);
    }

    // HTTP.

    /// The access log line, the span, the metrics and the journey of a request: all here. A request that went well
    /// leaves a span only when its trace is kept: the log line says as much, and each record costs an index entry.
    pub(crate) fn request_ended(&self, end: &RequestEnd<'_>) {
        let inner = &self.inner;
        inner.requests.inc((end.peer.listener.clone(), end.flag, StatusClass::of(end.status)));
        inner.request_seconds.observe((end.peer.listener.clone(),), end.elapsed.as_secs_f64());
        let attributes = request_attributes(end);
        let is_bad = self.judge(end);
        let severity = if is_bad { Severity::Warn } else { Severity::Debug };
        // To the store and not to the operator's terminal: there are thousands a second, and a bad backend would
        // drown everything else there.
        let log = Log {
            severity,
            message: Name::Borrowed("request"),
            attributes: attributes.clone(),
            context: Some(end.context),
            call_id: None,
        };
        inner.emitter.emit(COMPONENT, Body::Log(log));
        if !is_bad && !end.context.sampled {
            return;
        }
        let span = Span {
            context: end.context,
            parent: end.parent,
            name: Name::Borrowed("edge.http"),
            kind: SpanKind::Server,
            start_unix_nanos: end.start_unix_nanos,
            status: if is_bad { SpanStatus::Error } else { SpanStatus::Ok },
            attributes,
            call_id: None,
        };
        inner.emitter.span(COMPONENT, span);
    }

    /// Counts the journey event, and says whether it was bad.
    fn judge(&self, end: &RequestEnd<'_>) -> bool {
        let slow_room = if end.backend_was_slow { Room::Backend } else { Room::Edge };
        let fault = match end.flag {
            ResponseFlag::Fine | ResponseFlag::NoRoute => None,
            // Not events: the customer ended them, and nothing says that we were late.
            ResponseFlag::ClientGone | ResponseFlag::ClientStalled | ResponseFlag::ClientMalformed => {
                return false;
            }
            ResponseFlag::Slow => Some((slow_room, Cause::Slow)),
            ResponseFlag::BackendError | ResponseFlag::BackendBroken => {
                Some((Room::Backend, Cause::ServerError))
            }
            ResponseFlag::BackendUnreachable => Some((Room::Backend, Cause::Unreachable)),
            ResponseFlag::BackendTimeout => Some((Room::Backend, Cause::Timeout)),
            ResponseFlag::Internal => Some((Room::Edge, Cause::ServerError)),
        };
        match fault {
            None => self.inner.journeys.good(Journey::EdgeHttp, &end.peer.region),
            Some((room, cause)) => {
                self.inner.journeys.bad(Journey::EdgeHttp, &end.peer.region, room, cause, None);
            }
        }
        fault.is_some()
    }

    // SIP.

    pub(crate) fn sip_received(&self, transport: Transport, bytes: usize) {
        let index = TransportLabel::from(transport) as usize;
        self.inner.sip_messages[index][0].inc();
        self.inner.sip_bytes[index][0].add(bytes as u64);
    }

    pub(crate) fn sip_sent(&self, transport: Transport, bytes: usize) {
        let index = TransportLabel::from(transport) as usize;
        self.inner.sip_messages[index][1].inc();
        self.inner.sip_bytes[index][1].add(bytes as u64);
    }

    pub(crate) fn keepalive_answered(&self, transport: Transport) {
        self.inner.sip_keepalives.inc((transport.into(),));
    }

    pub(crate) fn flow_opened(&self, transport: Transport) -> GaugeGuard {
        self.inner.sip_flows.guard((transport.into(),))
    }

    pub(crate) fn send_refused(&self, transport: Option<Transport>, failure: SendFailure) {
        // A token that is not ours names no transport; UDP is where such tokens are replayed from.
        let transport = transport.map_or(TransportLabel::Udp, TransportLabel::from);
        self.inner.sip_unsent.inc((transport, failure.into()));
    }

    /// No core took a response or an ACK: nobody waits for an answer to those.
    pub(crate) fn message_refused(&self, transport: Transport, reason: CoreRefusal) {
        self.inner.sip_refused.inc((transport.into(), reason));
    }

    /// No core took a request. The core cannot tell this story, so the edge does: each is counted, and once a second one
    /// is told, with its ladder and how many there were.
    pub(crate) fn request_refused(&self, refused: &RefusedRequest<'_>) {
        let inner = &self.inner;
        inner.sip_refused.inc((refused.transport.into(), refused.reason));
        let call_id = Pii::new(refused.call_id.to_owned());
        let journey = match refused.method {
            Method::Invite => Some(Journey::CallSetup),
            Method::Register => Some(Journey::Register),
            Method::Ack | Method::Other => None,
        };
        if let Some(journey) = journey.filter(|_| refused.is_initial) {
            let cause = match refused.reason {
                CoreRefusal::NoneUp => Cause::Unreachable,
                CoreRefusal::QueueFull => Cause::Overload,
            };
            inner.journeys.bad(journey, refused.region, Room::Core, cause, Some(call_id.clone()));
        }
        let Some(count) = inner.refusals.told(now_unix_nanos() / 1_000_000_000) else { return };
        let trace_id = inner.trace_key.trace_of_call(refused.call_id);
        let context = SpanContext { trace_id, span_id: SpanId::random(), sampled: true };
        let attributes = vec![
            ("sip.method".into(), refused.method.as_str().into()),
            ("sip.transport".into(), refused.transport.uri_token().into()),
            ("reason".into(), refused.reason.as_str().into()),
            ("geo.region".into(), refused.region.into()),
            ("edge.refused".into(), count.into()),
        ];
        let message = "no core took requests, of which this is one";
        inner.emitter.log(
            COMPONENT,
            Severity::Warn,
            message,
            attributes,
            Some(context),
            Some(call_id.clone()),
        );
        let record = |direction, summary: &'static str, bytes: &[u8]| {
            let message = SipMessage {
                call_id: call_id.clone(),
                trace_id,
                direction,
                transport: refused.transport.uri_token().into(),
                peer: Pii::new(refused.source),
                node: inner.emitter.resource().node.clone().into(),
                summary: summary.into(),
                cseq: refused.cseq.to_owned(),
                retransmission: false,
                bytes: Pii::new(bytes.to_vec()),
            };
            inner.emitter.emit_at(now_unix_nanos(), COMPONENT, Body::Sip(message));
        };
        record(Direction::Received, refused.method.as_str(), refused.request);
        if let Some(answer) = refused.answer {
            record(Direction::Sent, "503", answer);
        }
    }

    fn log(&self, severity: Severity, message: &'static str, attributes: Attributes) {
        self.inner.emitter.log(COMPONENT, severity, message, attributes, None, None);
    }
}

/// A family without labels, resolved at once.
fn plain(component: &Component, name: &'static str, help: &'static str) -> CounterHandle {
    component.counter::<()>(name, help).handle(())
}

/// Refusals, of which one a second is told.
#[derive(Debug, Default)]
struct Refusals {
    /// The second in which the last one was told.
    told_unix_seconds: AtomicU64,
    /// Those since.
    untold: AtomicU64,
}

impl Refusals {
    /// Counts one; gives how many there were since the last that was told, when it is to be told.
    fn told(&self, unix_seconds: u64) -> Option<u64> {
        let untold = self.untold.fetch_add(1, Ordering::Relaxed) + 1;
        let last = self.told_unix_seconds.swap(unix_seconds, Ordering::Relaxed);
        // Others that count meanwhile stand in the next line.
        (last != unix_seconds).then(|| {
            self.untold.fetch_sub(untold, Ordering::Relaxed);
            untold
        })
    }
}

fn text(text: &str) -> belfry_signal::Value {
    belfry_signal::Value::Text(Name::Owned(text.to_owned()))
}

fn request_attributes(end: &RequestEnd<'_>) -> Attributes {
    let mut attributes: Attributes = vec![
        ("edge.listener".into(), text(end.peer.listener.as_str())),
        ("edge.response_flag".into(), end.flag.as_str().into()),
        ("http.request.method".into(), end.method.into()),
        ("network.protocol.name".into(), end.protocol.into()),
        ("url.path".into(), Pii::new(end.path.to_owned()).into()),
        ("client.address".into(), Pii::new(end.peer.address.to_string()).into()),
        ("geo.region".into(), (&end.peer.region).into()),
        ("edge.steering_reason".into(), end.peer.reason.as_str().into()),
        ("duration_seconds".into(), end.elapsed.as_secs_f64().into()),
        ("http.request.body.size".into(), end.received_bytes.into()),
        ("http.response.body.size".into(), end.sent_bytes.into()),
    ];
    if let Some(status) = end.status {
        attributes.push(("http.response.status_code".into(), status.into()));
    }
    if let Some(backend) = end.backend {
        attributes.push(("edge.backend".into(), text(backend)));
    }
    if let Some(country) = end.peer.country {
        attributes.push(("geo.country".into(), text(country.as_str())));
    }
    if let Some(asn) = end.peer.asn {
        attributes.push(("net.asn".into(), i64::from(asn).into()));
    }
    if let Some(site) = &end.peer.site {
        attributes.push(("geo.site".into(), text(site)));
    }
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_once_a_second_and_none_is_left_out() {
        let refusals = Refusals::default();
        let told: Vec<_> = [7, 7, 7, 8, 8, 9].map(|second| refusals.told(second)).into();
        assert_eq!(told, [Some(1), None, None, Some(3), None, Some(2)]);
    }
}
