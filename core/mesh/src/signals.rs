//! Everything that the mesh tells about itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use belfry_signal::{
    Counter, CounterHandle, Emitter, Gauge, Histogram, Pii, Registry, SECONDS_FAST, Severity, now_unix_nanos,
};

use crate::Service;

belfry_signal::label_name! {
    /// A node's name from the configuration.
    pub(crate) struct Peer("peer", max = 256)
}

belfry_signal::label_enum! {
    /// Which way a message went.
    pub(crate) enum Direction("direction") { Received = "received", Sent = "sent" }
}

belfry_signal::label_enum! {
    /// Why two nodes did not come to a link.
    pub(crate) enum HandshakeFailure("reason") {
        ConnectFailed = "connect_failed",
        ConnectionsFull = "connections_full",
        Tls = "tls",
        TimedOut = "timed_out",
        NoIdentity = "no_identity",
        UnknownPeer = "unknown_peer",
        WrongPeer = "wrong_peer",
        BadHello = "bad_hello",
        WrongProtocol = "wrong_protocol",
        NotServed = "not_served",
    }
}

belfry_signal::label_enum! {
    /// Why a message did not go.
    pub(crate) enum DropReason("reason") {
        LinkFull = "link_full",
        LinkDown = "link_down",
        Oversize = "oversize",
    }
}

belfry_signal::label_enum! {
    /// Why a link ended.
    pub(crate) enum CloseReason("reason") {
        LetGo = "let_go",
        PeerClosed = "peer_closed",
        TimedOut = "timed_out",
        Oversize = "oversize",
        BadFrame = "bad_frame",
        Broken = "broken",
        Superseded = "superseded",
        Drained = "drained",
    }
}

const COMPONENT: &str = "mesh";

/// The mesh's families and its voice.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    emitter: Emitter,
    messages: Counter<(Service, Peer, Direction)>,
    links: Gauge<(Service, Peer)>,
    round_trip: Histogram<(Service, Peer)>,
    handshake_failures: Counter<(HandshakeFailure,)>,
    dropped: Counter<(DropReason,)>,
    links_closed: Counter<(CloseReason,)>,
    identity_renewals: Counter<()>,
    identity_renewal_failures: Counter<()>,
    /// The second in which a refused connection was last logged: garbage on the port must not flood the log.
    refusal_logged_second: Arc<AtomicU64>,
}

impl Signals {
    pub(crate) fn register(registry: &Registry) -> Self {
        let component = registry.component(COMPONENT);
        Self {
            emitter: component.emitter(),
            messages: component.counter("messages_total", "Messages taken from or given to a room."),
            links: component.gauge("links", "Links that are up."),
            round_trip: component.histogram(
                "round_trip_seconds",
                "Round trip of a heartbeat between nodes.",
                SECONDS_FAST,
            ),
            handshake_failures: component
                .counter("handshake_failures_total", "Attempts of two nodes that did not come to a link."),
            dropped: component.counter("dropped_total", "Messages that were refused or lost on a link."),
            links_closed: component.counter("links_closed_total", "Links that ended."),
            identity_renewals: component
                .counter("identity_renewals_total", "Times that this node got a new certificate."),
            identity_renewal_failures: component.counter(
                "identity_renewal_failures_total",
                "Times that a new certificate could not be had; the old one stays in use.",
            ),
            refusal_logged_second: Arc::default(),
        }
    }

    pub(crate) fn message_counter(
        &self,
        service: Service,
        peer: &Peer,
        direction: Direction,
    ) -> CounterHandle {
        self.messages.handle((service, peer.clone(), direction))
    }

    pub(crate) fn drop_counter(&self, reason: DropReason) -> CounterHandle {
        self.dropped.handle((reason,))
    }

    pub(crate) fn link_opened(&self, service: Service, peer: &Peer) {
        self.links.add((service, peer.clone()), 1);
        self.say(Severity::Info, "link opened", service, peer, "opened");
    }

    pub(crate) fn link_closed(&self, service: Service, peer: &Peer, reason: CloseReason, lost: u64) {
        self.links.add((service, peer.clone()), -1);
        self.links_closed.inc((reason,));
        self.dropped.add((DropReason::LinkDown,), lost);
        let severity = match reason {
            CloseReason::LetGo | CloseReason::Drained | CloseReason::Superseded => Severity::Info,
            _ => Severity::Warn,
        };
        self.say(severity, "link closed", service, peer, reason.as_str());
    }

    pub(crate) fn heartbeat_answered(&self, service: Service, peer: &Peer, seconds: f64) {
        self.round_trip.observe((service, peer.clone()), seconds);
    }

    /// Dialling failed; `is_news` is false while the same peer keeps failing in the same way.
    pub(crate) fn dial_failed(
        &self,
        service: Service,
        peer: &Peer,
        failure: HandshakeFailure,
        is_news: bool,
    ) {
        self.handshake_failures.inc((failure,));
        if is_news {
            self.say(Severity::Warn, "peer cannot be reached", service, peer, failure.as_str());
        }
    }

    /// Somebody connected and was refused; logged at most once a second, counted always.
    pub(crate) fn connection_refused(&self, address: Pii<String>, failure: HandshakeFailure) {
        self.handshake_failures.inc((failure,));
        let second = now_unix_nanos() / 1_000_000_000;
        if self.refusal_logged_second.swap(second, Ordering::Relaxed) == second {
            return;
        }
        let attributes =
            vec![("mesh.reason".into(), failure.as_str().into()), ("net.peer".into(), address.into())];
        self.emitter.log(COMPONENT, Severity::Warn, "connection refused", attributes, None, None);
    }

    pub(crate) fn message_oversized(&self, service: Service, peer: &Peer) {
        self.dropped.inc((DropReason::Oversize,));
        self.say(Severity::Error, "message is larger than a frame may be", service, peer, "oversize");
    }

    /// Two rooms of this process disagree about the types of a service: a fault of the build.
    pub(crate) fn service_mismatched(&self, service: Service, peer: &Peer) {
        self.say(
            Severity::Error,
            "the two ends of a service speak different types",
            service,
            peer,
            "mismatch",
        );
    }

    pub(crate) fn identity_renewed(&self) {
        self.identity_renewals.inc(());
        self.emitter.log(COMPONENT, Severity::Info, "identity renewed", Vec::new(), None, None);
    }

    pub(crate) fn identity_renewal_failed(&self, reason: &'static str) {
        self.identity_renewal_failures.inc(());
        let attributes = vec![("mesh.reason".into(), reason.into())];
        self.emitter.log(COMPONENT, Severity::Error, "identity not renewed", attributes, None, None);
    }

    fn say(
        &self,
        severity: Severity,
        message: &'static str,
        service: Service,
        peer: &Peer,
        reason: &'static str,
    ) {
        let attributes = vec![
            ("mesh.service".into(), service.as_str().into()),
            ("mesh.peer".into(), belfry_signal::Value::Text(peer.as_str().to_owned().into())),
            ("mesh.reason".into(), reason.into()),
        ];
        self.emitter.log(COMPONENT, severity, message, attributes, None, None);
    }
}
