//! Everything that the core tells the world: one method per thing that happens.
//!
//! Each method moves its metrics and hands over its log line, span or record together, so that they cannot drift.
//! Nothing else in this crate names a metric, a span, or a log at info or above.

mod attributes;
mod customer_signals;
mod indicators;
mod labels;
mod message_counters;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use belfry_signal::record::{Attributes, Call, Direction, Name, Span, SpanKind, SpanStatus};
use belfry_signal::{
    Cause, Component, Counter, CounterHandle, Emitter, Gauge, Histogram, Journey, Journeys, Pii, Region,
    Registry, Room, SECONDS, SECONDS_FAST, Severity, SipMessageRef, SpanContext, SpanId, TraceId,
    now_unix_nanos,
};

use crate::handle::Transport;
use crate::prepaid::PrepaidSignals;
use crate::routes::RoutingSignals;

use attributes::{IntoValue, count, next_hop, status_text, to_i64};
use customer_signals::CustomerSignals;
use indicators::CallIndicators;
pub(crate) use labels::{
    AttemptResult, BindingLoss, CallCause, Decision, KeepAliveStep, MethodName, RecordOutcome,
    RegisterOutcome, RelayOutcome, RelayRequest, Scope, SendFault, ShedReason, StatusClass, Way,
};
use message_counters::MessageCounters;

pub(crate) const COMPONENT: &str = "core";

/// The core's metric handles, its emitter and the journeys.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    emitter: Emitter,
    journeys: Journeys,
    node: String,
    messages: MessageCounters,
    retransmissions: Counter<(Way,)>,
    malformed: CounterHandle,
    stray: CounterHandle,
    send_failures: Counter<(SendFault,)>,
    shed: Counter<(ShedReason,)>,
    registrations: Counter<(RegisterOutcome, Region)>,
    registration_seconds: Histogram<(Region,)>,
    challenges: CounterHandle,
    /// Where customers are, and who only claims to be one.
    pub(crate) customers: CustomerSignals,
    indicators: CallIndicators,
    live_calls: Gauge<()>,
    relay_requests: Counter<(RelayRequest, RelayOutcome)>,
    relay_seconds: Histogram<(RelayRequest,)>,
    records: Counter<(RecordOutcome,)>,
    session_refreshes: CounterHandle,
    session_refusals: CounterHandle,
    strangers: CounterHandle,
    stranger_changes_refused: CounterHandle,
    store_failures: CounterHandle,
    edges: Gauge<()>,
    relays: Gauge<()>,
    transactions: Gauge<()>,
    queue: Gauge<()>,
    /// Routes, trunks, limits, fraud.
    pub(crate) routing: RoutingSignals,
    dead_next_hops: Gauge<()>,
    /// Accounts that pay in advance.
    pub(crate) prepaid: PrepaidSignals,
}

/// One message on its way in or out, for the ladder.
#[derive(Debug)]
pub(crate) struct Passing<'a> {
    /// Which way.
    pub(crate) way: Way,
    /// The request's method, or the method that the response answers.
    pub(crate) method: MethodName,
    /// The status code of a response.
    pub(crate) status: Option<u16>,
    /// The Call-ID.
    pub(crate) call_id: &'a str,
    /// The call's trace.
    pub(crate) trace_id: TraceId,
    /// CSeq as it stands.
    pub(crate) cseq: &'a str,
    /// The SIP transport.
    pub(crate) transport: Transport,
    /// The peer, when it is known.
    pub(crate) peer: Option<SocketAddr>,
    /// Whether it was seen or sent before.
    pub(crate) is_repeat: bool,
    /// When.
    pub(crate) unix_nanos: u64,
    /// The message.
    pub(crate) bytes: &'a [u8],
}

/// A span to emit.
#[derive(Debug)]
pub(crate) struct Ended<'a> {
    /// Trace and span.
    pub(crate) context: SpanContext,
    /// The span above.
    pub(crate) parent: Option<SpanId>,
    /// The Call-ID.
    pub(crate) call_id: &'a str,
    /// When it began.
    pub(crate) start_unix_nanos: u64,
    /// The final status code; 0 when there was none.
    pub(crate) status: u16,
}

impl Signals {
    /// Registers the core's families.
    #[must_use]
    pub(crate) fn register(registry: &Registry) -> Self {
        let c = registry.component(COMPONENT);
        let node = registry.emitter().resource().node.clone();
        Self {
            emitter: c.emitter(),
            journeys: c.journeys(),
            node,
            messages: MessageCounters::new(
                c.counter("requests_total", "SIP requests, retransmissions included."),
                c.counter("responses_total", "SIP responses, retransmissions included."),
            ),
            retransmissions: c.counter("retransmissions_total", "SIP messages that came or went again."),
            malformed: plain(
                &c,
                "malformed_messages_total",
                "Messages that are not SIP as RFC 3261 asks for.",
            ),
            stray: plain(&c, "stray_responses_total", "Responses that belong to no transaction."),
            send_failures: c.counter("send_failures_total", "Messages that did not leave, by reason."),
            shed: c.counter("shed_requests_total", "Requests answered 503 before anybody looked at them."),
            registrations: c.counter("registrations_total", "REGISTER requests answered, by outcome."),
            registration_seconds: c.histogram(
                "registration_seconds",
                "Registration request delay (RFC 6076 section 4.1): REGISTER to its 200.",
                SECONDS,
            ),
            challenges: plain(&c, "challenges_total", "Requests answered with 401 or 407 by us."),
            customers: CustomerSignals::register(&c),
            indicators: CallIndicators::register(&c),
            live_calls: c.gauge("live_calls", "Calls that ring or talk now."),
            relay_requests: c.counter("relay_requests_total", "Requests to the media relay, by outcome."),
            relay_seconds: c.histogram("relay_request_seconds", "Time that the relay took.", SECONDS_FAST),
            records: c.counter("call_records_total", "Call records, by what became of them."),
            session_refreshes: plain(
                &c,
                "session_refreshes_total",
                "Sessions of calls that were refreshed or changed.",
            ),
            session_refusals: plain(&c, "session_intervals_refused_total", "Requests answered 422."),
            strangers: plain(
                &c,
                "unknown_byes_total",
                "BYE requests carried on for calls that this core does not know, as after a restart.",
            ),
            stranger_changes_refused: plain(
                &c,
                "unknown_changes_refused_total",
                "Requests of dialogs refused whose Route is of a call that is over, or of none.",
            ),
            store_failures: plain(&c, "store_failures_total", "Store requests that failed or were too slow."),
            edges: c.gauge("edges", "Edges that are connected now."),
            relays: c.gauge("relays", "Relays that are connected now."),
            transactions: c.gauge("transactions", "Transactions that are open now."),
            queue: c.gauge("queue_messages", "Messages that wait for the core now."),
            routing: RoutingSignals::register(&c),
            prepaid: PrepaidSignals::register(&c),
            dead_next_hops: c
                .gauge("dead_next_hops", "Next hops that did not answer and are left alone now."),
        }
    }

    /// The name of this node.
    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    /// The core is ready.
    pub(crate) fn started(&self, domains: usize) {
        self.log(Severity::Info, "signalling core started", vec![("domains".into(), count(domains))]);
    }

    /// The core takes no new calls any more.
    pub(crate) fn drain_began(&self, live_calls: usize) {
        self.log(Severity::Info, "signalling core draining", vec![("live_calls".into(), count(live_calls))]);
    }

    /// An edge connected and said who it is.
    pub(crate) fn edge_connected(&self, edge: &str, edges: usize) {
        self.edges.set((), to_i64(edges));
        let node = ("edge".into(), edge.to_owned().into_value());
        self.log(Severity::Info, "edge connected", vec![node]);
    }

    /// An edge is gone.
    pub(crate) fn edge_lost(&self, edge: &str, edges: usize) {
        self.edges.set((), to_i64(edges));
        let node = ("edge".into(), edge.to_owned().into_value());
        self.log(Severity::Warn, "edge disconnected", vec![node]);
    }

    /// A link brought something else than a Hello first.
    pub(crate) fn edge_refused(&self) {
        self.log(Severity::Warn, "edge link refused because it did not say hello first", vec![]);
    }

    /// A relay connected.
    pub(crate) fn relay_connected(&self, relay: &str, relays: usize) {
        self.relays.set((), to_i64(relays));
        self.log(Severity::Info, "relay connected", vec![("relay".into(), relay.to_owned().into_value())]);
    }

    /// A relay is gone.
    pub(crate) fn relay_lost(&self, relay: &str, relays: usize) {
        self.relays.set((), to_i64(relays));
        self.log(Severity::Warn, "relay disconnected", vec![("relay".into(), relay.to_owned().into_value())]);
    }

    /// A SIP message came or went.
    pub(crate) fn message_counted(&self, method: MethodName, status: Option<u16>, way: Way, is_repeat: bool) {
        self.messages.count(method, status, way);
        if is_repeat {
            self.retransmissions.inc((way,));
        }
    }

    /// What a SIP message said; it is counted apart, because not every routine one is told.
    pub(crate) fn message_told(&self, passing: Passing<'_>) {
        let summary = match passing.status {
            None => Name::from(passing.method.wire()),
            Some(status) => status_text(status),
        };
        let unknown_peer = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
        let message = SipMessageRef {
            call_id: Pii::new(passing.call_id),
            trace_id: passing.trace_id,
            direction: match passing.way {
                Way::Received => Direction::Received,
                Way::Sent => Direction::Sent,
            },
            transport: passing.transport.uri_token(),
            peer: Pii::new(passing.peer.unwrap_or(unknown_peer)),
            node: &self.node,
            summary: &summary,
            cseq: passing.cseq,
            retransmission: passing.is_repeat,
            bytes: Pii::new(passing.bytes),
        };
        self.emitter.sip_at(passing.unix_nanos, COMPONENT, message);
    }

    /// A message is not SIP as it should be.
    pub(crate) fn message_malformed(&self, reason: &'static str, peer: SocketAddr) {
        self.malformed.inc();
        let attributes =
            vec![("reason".into(), reason.into()), ("net.peer".into(), Pii::new(peer.to_string()).into())];
        self.log(Severity::Debug, "malformed message dropped", attributes);
    }

    /// A response belongs to no transaction.
    pub(crate) fn response_was_stray(&self) {
        self.stray.inc();
    }

    /// A message did not leave.
    pub(crate) fn send_failed(&self, fault: SendFault) {
        self.send_failures.inc((fault,));
    }

    /// A new request was answered 503 unseen.
    pub(crate) fn request_shed(&self, reason: ShedReason) {
        self.shed.inc((reason,));
    }

    /// A next hop does not answer.
    pub(crate) fn next_hop_died(&self, transport: Transport, address: SocketAddr, dead: usize) {
        self.dead_next_hops.set((), to_i64(dead));
        self.log(Severity::Warn, "next hop does not answer", next_hop(transport, address));
    }

    /// A next hop that did not answer does again.
    pub(crate) fn next_hop_came_back(&self, transport: Transport, address: SocketAddr, dead: usize) {
        self.dead_next_hops.set((), to_i64(dead));
        self.log(Severity::Info, "next hop answers again", next_hop(transport, address));
    }

    /// We asked for credentials.
    pub(crate) fn challenged(&self) {
        self.challenges.inc();
    }

    /// A REGISTER was answered.
    pub(crate) fn registration_ended(
        &self,
        ended: Ended<'_>,
        outcome: RegisterOutcome,
        region: &Region,
        fault: Option<(Room, Cause)>,
        is_told: bool,
    ) {
        self.registrations.inc((outcome, region.clone()));
        let seconds = seconds_since(ended.start_unix_nanos);
        if matches!(outcome, RegisterOutcome::Bound | RegisterOutcome::Removed | RegisterOutcome::Fetched) {
            self.registration_seconds.observe((region.clone(),), seconds);
        }
        // A challenge is half of an exchange: the journey is judged by its second half.
        if outcome != RegisterOutcome::Challenged {
            self.judge(Journey::Register, region, fault, ended.call_id);
        }
        if !is_told {
            return;
        }
        let attributes: Attributes = vec![
            ("outcome".into(), outcome.as_str().into()),
            ("sip.response.status_code".into(), ended.status.into()),
            ("geo.region".into(), region.into()),
        ];
        self.span("sip.register", SpanKind::Server, ended, fault.is_none(), attributes);
    }

    /// A transaction of a call, or of anything else but REGISTER, ended.
    pub(crate) fn transaction_ended(&self, ended: Ended<'_>, method: MethodName, kind: SpanKind) {
        let is_ok = ended.status != 0 && ended.status < 500;
        let attributes: Attributes = vec![
            ("sip.method".into(), method.wire().into()),
            ("sip.response.status_code".into(), ended.status.into()),
        ];
        self.span("sip.transaction", kind, ended, is_ok, attributes);
    }

    /// Something was decided about an INVITE: a span without length below its transaction's.
    pub(crate) fn decided(
        &self,
        decision: Decision,
        reason: &'static str,
        parent: SpanContext,
        call_id: &str,
    ) {
        let attributes: Attributes =
            vec![("decision".into(), decision.as_str().into()), ("reason".into(), reason.into())];
        let span = Span {
            context: parent.child(),
            parent: Some(parent.span_id),
            name: "sip.decision".into(),
            kind: SpanKind::Internal,
            start_unix_nanos: now_unix_nanos(),
            status: SpanStatus::Ok,
            attributes,
            call_id: Some(Pii::new(call_id.to_owned())),
        };
        self.emitter.span(COMPONENT, span);
    }

    /// A new request was answered 503 by the task that read it.
    pub(crate) fn request_turned_away(&self, method: MethodName, region: &Region, call_id: &str) {
        self.shed.inc((ShedReason::Stranger,));
        if method == MethodName::Invite {
            let fault = Some((Room::Core, Cause::Overload));
            self.indicators.attempt_ended(&Scope::of_region(region), AttemptResult::Ineffective, None);
            self.judge(Journey::CallSetup, region, fault, call_id);
        }
    }

    /// An INVITE chain got its final answer: a call began, or will never begin.
    pub(crate) fn attempt_ended(
        &self,
        result: AttemptResult,
        scope: &Scope<'_>,
        fault: Option<(Room, Cause)>,
        post_dial: Option<Duration>,
        call_id: &str,
    ) {
        self.indicators.attempt_ended(scope, result, post_dial);
        let region = scope.region;
        self.judge(Journey::CallSetup, region, fault, call_id);
        let mut attributes: Attributes =
            vec![("result".into(), result.as_str().into()), ("geo.region".into(), region.into())];
        attributes.extend(post_dial.map(|delay| ("post_dial_seconds".into(), delay.as_secs_f64().into())));
        let call_id = Some(Pii::new(call_id.to_owned()));
        let Some((room, cause)) = fault else {
            self.emitter.log(COMPONENT, Severity::Debug, "call attempt ended", attributes, None, call_id);
            return;
        };
        attributes.push(("room".into(), room.as_str().into()));
        attributes.push(("cause".into(), cause.as_str().into()));
        self.emitter.log(COMPONENT, Severity::Warn, "call set-up failed", attributes, None, call_id);
    }

    /// A call is over, or never began; its record goes to the pipeline and its root span ends.
    pub(crate) fn call_ended(
        &self,
        call: Call,
        talked: Option<Duration>,
        cause: CallCause,
        context: SpanContext,
        scope: &Scope<'_>,
    ) {
        self.indicators.call_ended(scope, cause, talked);
        let attributes: Attributes = vec![
            ("outcome".into(), call.outcome.clone().into_value()),
            ("cause".into(), cause.as_str().into()),
            ("sip.response.status_code".into(), call.status_code.into()),
            ("geo.region".into(), (&call.region).into()),
            ("sip.caller".into(), call.caller.clone().into()),
            ("sip.callee".into(), call.callee.clone().into()),
        ];
        let is_ok = !matches!(
            cause,
            CallCause::MediaRefused | CallCause::ServerError | CallCause::Overload | CallCause::MediaTimeout
        );
        let call_id = call.call_id.reveal().clone();
        let ended = Ended {
            context,
            parent: None,
            call_id: &call_id,
            start_unix_nanos: call.start_unix_nanos,
            status: call.status_code,
        };
        let about: Attributes = vec![
            ("cause".into(), cause.as_str().into()),
            ("outcome".into(), call.outcome.clone().into_value()),
            ("seconds".into(), seconds_since(call.start_unix_nanos).into()),
        ];
        let whose = Some(call.call_id.clone());
        self.emitter.log(COMPONENT, Severity::Debug, "call ended", about, Some(context), whose);
        self.span("sip.call", SpanKind::Server, ended, is_ok, attributes);
        self.emitter.call(COMPONENT, call);
    }

    /// The other side of a call confirmed its end.
    pub(crate) fn disconnected(&self, delay: Duration, scope: &Scope<'_>) {
        self.indicators.disconnected(scope, delay);
    }

    /// The relay answered, or did not.
    pub(crate) fn relay_answered(&self, request: RelayRequest, outcome: RelayOutcome, took: Duration) {
        self.relay_requests.inc((request, outcome));
        self.relay_seconds.observe((request,), took.as_secs_f64());
    }

    /// The relay heard nothing from either side of a call, or only from one.
    pub(crate) fn relay_noticed(&self, message: &'static str, call_id: &str, context: Option<SpanContext>) {
        let call_id = Some(Pii::new(call_id.to_owned()));
        self.emitter.log(COMPONENT, Severity::Warn, message, vec![], context, call_id);
    }

    /// A call record was written, or could not be.
    pub(crate) fn record_written(&self, outcome: RecordOutcome, call_id: &str) {
        self.records.inc((outcome,));
        let message = match outcome {
            RecordOutcome::Written => return,
            RecordOutcome::InMemory => "call answered while its record is in memory only",
            RecordOutcome::Failed => "call answered without knowing its record to be safe",
        };
        let call_id = Some(Pii::new(call_id.to_owned()));
        self.emitter.log(COMPONENT, Severity::Error, message, vec![], None, call_id);
    }

    /// A call of a core that is gone has its record, which goes to the pipeline too.
    pub(crate) fn call_lost(&self, call: Call, context: SpanContext, scope: &Scope<'_>) {
        self.indicators.call_ended(scope, CallCause::NodeLost, None);
        let whose = Some(call.call_id.clone());
        self.emitter.log(
            COMPONENT,
            Severity::Warn,
            "call was lost with its core",
            vec![],
            Some(context),
            whose,
        );
        self.emitter.call(COMPONENT, call);
    }

    /// A session was refreshed or changed by re-INVITE or UPDATE.
    pub(crate) fn session_refreshed(&self) {
        self.session_refreshes.inc();
    }

    /// A request wanted its session refreshed too often.
    pub(crate) fn session_interval_refused(&self) {
        self.session_refusals.inc();
    }

    /// An operator ended a call.
    pub(crate) fn call_ended_by_operator(&self, call_id: &str, context: SpanContext) {
        let call_id = Some(Pii::new(call_id.to_owned()));
        let message = "call ended by an operator";
        self.emitter.log(COMPONENT, Severity::Info, message, vec![], Some(context), call_id);
    }

    /// The BYE of a call that is not known here was carried on.
    pub(crate) fn stranger_ended(&self) {
        self.strangers.inc();
    }

    /// A change of a call that is over, or too old to be alive, was refused.
    pub(crate) fn stranger_refused(&self) {
        self.stranger_changes_refused.inc();
    }

    /// Calls that are not known here came to their end.
    pub(crate) fn strangers_passed(&self, byes: usize, sessions: usize) {
        let attributes = vec![("byes".into(), count(byes)), ("relay_sessions".into(), count(sessions))];
        let message =
            "calls ended that this core does not know, as after a restart; their records end with the crash";
        self.log(Severity::Warn, message, attributes);
    }

    /// A store request failed or took too long.
    pub(crate) fn store_failed(&self, reason: &'static str) {
        self.store_failures.inc();
        self.log(Severity::Error, "store request failed", vec![("reason".into(), reason.into())]);
    }

    /// What the core holds now.
    pub(crate) fn load_changed(&self, live_calls: usize, transactions: usize, waiting: usize, dead: usize) {
        self.dead_next_hops.set((), to_i64(dead));
        self.live_calls.set((), to_i64(live_calls));
        self.transactions.set((), to_i64(transactions));
        self.queue.set((), to_i64(waiting));
    }

    fn judge(&self, journey: Journey, region: &Region, fault: Option<(Room, Cause)>, call_id: &str) {
        match fault {
            None => self.journeys.good(journey, region),
            Some((room, cause)) => {
                self.journeys.bad(journey, region, room, cause, Some(Pii::new(call_id.to_owned())));
            }
        }
    }

    fn span(
        &self,
        name: &'static str,
        kind: SpanKind,
        ended: Ended<'_>,
        is_ok: bool,
        mut attributes: Attributes,
    ) {
        attributes.push(("sip.call_id".into(), Pii::new(ended.call_id.to_owned()).into()));
        let span = Span {
            context: ended.context,
            parent: ended.parent,
            name: name.into(),
            kind,
            start_unix_nanos: ended.start_unix_nanos,
            status: if is_ok { SpanStatus::Ok } else { SpanStatus::Error },
            attributes,
            call_id: Some(Pii::new(ended.call_id.to_owned())),
        };
        self.emitter.span(COMPONENT, span);
    }

    fn log(&self, severity: Severity, message: &'static str, attributes: Attributes) {
        self.emitter.log(COMPONENT, severity, message, attributes, None, None);
    }
}

/// A family without labels, resolved at once.
fn plain(component: &Component, name: &'static str, help: &'static str) -> CounterHandle {
    component.counter::<()>(name, help).handle(())
}

#[expect(clippy::cast_precision_loss, reason = "durations of calls are far below 2^53 nanoseconds")]
fn seconds_since(unix_nanos: u64) -> f64 {
    now_unix_nanos().saturating_sub(unix_nanos) as f64 / 1e9
}
