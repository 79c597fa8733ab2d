//! What the routes tell the world: decisions, trunks, limits, fraud.
//!
//! Numbers and addresses are in spans and logs as `Pii`, never in labels; names of tenants and trunks come from the
//! configuration.

use belfry_routing::{Reason, Suspicion, TableSize};
use belfry_signal::record::{Attributes, Span, SpanKind, SpanStatus};
use belfry_signal::{
    Bound, Component, Counter, Emitter, Gauge, Histogram, Label, Pii, SECONDS_FAST, Severity, SpanContext,
    SpanId, label_enum, label_name, now_unix_nanos,
};
use std::time::Duration;

use super::RoutesError;
use crate::signals::{COMPONENT, StatusClass};

label_name! {
    /// A trunk of the routes.
    pub(crate) struct TrunkName("trunk", max = 256)
}

label_name! {
    /// A tenant of the routes.
    pub(crate) struct TenantName("tenant", max = 1024)
}

impl TrunkName {
    /// Stands for names that are no labels.
    pub(crate) fn other() -> Self {
        Self("other".into())
    }
}

impl TenantName {
    /// Stands for the tenants that are too many to have a label each.
    pub(crate) fn other() -> Self {
        Self("other".into())
    }
}

label_enum! {
    /// Where a request goes.
    pub(crate) enum RouteOutcome("outcome") {
        /// To a subscriber.
        Local = "local",
        /// To trunks.
        Trunk = "trunk",
        /// Nowhere.
        Refused = "refused",
    }
}

label_enum! {
    /// What became of a way out.
    pub(crate) enum TrunkOutcome("outcome") {
        /// The call left by it.
        Entered = "entered",
        /// It has as many calls as it may have.
        Full = "full",
        /// Calls come faster than they may.
        Rate = "rate",
        /// It answered the call.
        Answered = "answered",
    }
}

label_enum! {
    /// What became of an OPTIONS to a gateway.
    pub(crate) enum ProbeOutcome("outcome") {
        /// It answered.
        Answered = "answered",
        /// It said that it has no service (408, 503, 504).
        Refused = "refused",
        /// It said nothing in time.
        Silent = "silent",
        /// It could not be reached, or not be found.
        Unreachable = "unreachable",
        /// It was not asked, through no fault of its own.
        Skipped = "skipped",
    }
}

label_enum! {
    /// Whether a gateway is alive.
    pub(crate) enum GatewayLife("state") {
        /// It is, as far as is known.
        Up = "up",
        /// It failed too often.
        Down = "down",
    }
}

label_enum! {
    /// What the guard did.
    pub(crate) enum FraudAction("action") {
        /// Somebody was told.
        Alerted = "alerted",
        /// The call was refused.
        Blocked = "blocked",
    }
}

label_enum! {
    /// What became of new routes.
    pub(crate) enum LoadOutcome("outcome") {
        /// They are in force.
        Loaded = "loaded",
        /// The old ones stay in force.
        Refused = "refused",
    }
}

/// Why a request was refused, as a label.
#[derive(Clone, Copy, Debug)]
struct RefusalReason(Reason);

impl Label for RefusalReason {
    const NAME: &'static str = "reason";
    const BOUND: Bound = Bound::Enum(Reason::ALL.len());
    fn text(&self) -> &str {
        self.0.as_str()
    }
}

/// What looks like fraud, as a label.
#[derive(Clone, Copy, Debug)]
struct SuspicionName(Suspicion);

impl Label for SuspicionName {
    const NAME: &'static str = "suspicion";
    const BOUND: Bound = Bound::Enum(Suspicion::ALL.len());
    fn text(&self) -> &str {
        self.0.as_str()
    }
}

/// The families of the routes.
#[derive(Clone, Debug)]
pub(crate) struct RoutingSignals {
    emitter: Emitter,
    decided: Counter<(RouteOutcome, TenantName)>,
    refused: Counter<(RefusalReason, TenantName)>,
    tries: Counter<(TrunkName, TrunkOutcome)>,
    failures: Counter<(TrunkName, StatusClass)>,
    inbound: Counter<(TrunkName,)>,
    probes: Counter<(TrunkName, ProbeOutcome)>,
    probe_seconds: Histogram<(TrunkName,)>,
    gateways: Gauge<(TrunkName, GatewayLife)>,
    trunk_calls: Gauge<(TrunkName,)>,
    tenant_calls: Gauge<(TenantName,)>,
    tenants_unlabelled: Gauge<()>,
    emergency: Counter<()>,
    fraud: Counter<(SuspicionName, FraudAction)>,
    unwatched: Counter<()>,
    loads: Counter<(LoadOutcome,)>,
    prefixes: Gauge<()>,
    version: Gauge<()>,
}

/// A request that was routed.
#[derive(Debug)]
pub(crate) struct Routed<'a> {
    pub(crate) outcome: RouteOutcome,
    pub(crate) reason: Option<Reason>,
    pub(crate) tenant: TenantName,
    pub(crate) trunk: Option<TrunkName>,
    pub(crate) ways: usize,
    pub(crate) is_emergency: bool,
    pub(crate) call_id: &'a str,
    pub(crate) parent: SpanContext,
    pub(crate) began_unix_nanos: u64,
}

impl RoutingSignals {
    pub(crate) fn register(c: &Component) -> Self {
        Self {
            emitter: c.emitter(),
            decided: c.counter("routes_decided_total", "Requests routed, by where they go."),
            refused: c.counter("route_refusals_total", "Requests that go nowhere, by why."),
            tries: c
                .counter("trunk_tries_total", "Calls that wanted to leave by a trunk, by what became of it."),
            failures: c.counter("trunk_failures_total", "Failures of calls on a trunk, by class of status."),
            inbound: c.counter("trunk_requests_total", "Requests that came in from a trunk."),
            probes: c
                .counter("trunk_probes_total", "OPTIONS to the gateways of a trunk, by what became of them."),
            probe_seconds: c.histogram(
                "trunk_probe_seconds",
                "Time until a gateway of a trunk answered OPTIONS.",
                SECONDS_FAST,
            ),
            gateways: c.gauge(
                "trunk_gateways",
                "Gateways of a trunk that are asked by OPTIONS, by whether they are alive.",
            ),
            trunk_calls: c.gauge("trunk_calls", "Calls on a trunk now, both ways."),
            tenant_calls: c.gauge("tenant_calls", "Calls of a tenant now."),
            tenants_unlabelled: c.gauge(
                "tenants_unlabelled",
                "Tenants that share the label other, because they are too many.",
            ),
            emergency: c.counter("emergency_calls_total", "Calls to emergency numbers."),
            fraud: c.counter("fraud_suspicions_total", "Calls that look like fraud, by what was done."),
            unwatched: c.counter(
                "fraud_unwatched_total",
                "Calls of subjects that are not watched because as many as may be are.",
            ),
            loads: c.counter("routes_loads_total", "New routes, by whether they came into force."),
            prefixes: c.gauge("route_prefixes", "Prefixes of trunks in the routes."),
            version: c.gauge("routes_version", "The import that the routes in force know."),
        }
    }

    /// New routes are in force.
    pub(crate) fn loaded(&self, version: Option<u64>, size: TableSize) {
        let version = i64::try_from(version.unwrap_or(0)).unwrap_or(i64::MAX);
        self.loads.inc((LoadOutcome::Loaded,));
        self.prefixes.set((), to_i64(size.prefixes));
        self.version.set((), version);
        let attributes = vec![
            ("version".into(), version.into()),
            ("trunks".into(), to_i64(size.trunks).into()),
            ("prefixes".into(), to_i64(size.prefixes).into()),
            ("aliases".into(), to_i64(size.aliases).into()),
            ("prefix_bytes".into(), to_i64(size.prefix_bytes).into()),
        ];
        self.emitter.log(COMPONENT, Severity::Info, "routes loaded", attributes, None, None);
    }

    /// New routes do not hold together; the old ones stay in force.
    pub(crate) fn refused(&self, error: &RoutesError) {
        self.loads.inc((LoadOutcome::Refused,));
        let message = "new routes refused, the old ones stay in force";
        // An import may name numbers and addresses in its faults.
        let fault = Pii::new(error.to_string());
        let attributes = vec![("reason".into(), error.reason().into()), ("fault".into(), fault.into())];
        self.emitter.log(COMPONENT, Severity::Error, message, attributes, None, None);
    }

    /// A request came in from a trunk.
    pub(crate) fn came_from_trunk(&self, trunk: TrunkName) {
        self.inbound.inc((trunk,));
    }

    /// It is decided where a request goes.
    pub(crate) fn routed(&self, routed: Routed<'_>) {
        self.decided.inc((routed.outcome, routed.tenant.clone()));
        if routed.is_emergency {
            self.emergency.inc(());
        }
        let mut attributes: Attributes = vec![
            ("outcome".into(), routed.outcome.as_str().into()),
            ("tenant".into(), name(routed.tenant.as_str())),
            ("ways".into(), to_i64(routed.ways).into()),
            ("emergency".into(), routed.is_emergency.into()),
            ("sip.call_id".into(), Pii::new(routed.call_id.to_owned()).into()),
        ];
        attributes.extend(routed.trunk.map(|trunk| ("trunk".into(), name(trunk.as_str()))));
        if let Some(reason) = routed.reason {
            self.refused.inc((RefusalReason(reason), routed.tenant));
            attributes.push(("reason".into(), reason.as_str().into()));
        }
        let (context, parent) = (routed.parent.child(), routed.parent.span_id);
        self.span("sip.route", context, parent, routed.call_id, routed.began_unix_nanos, attributes);
    }

    /// A call leaves by a trunk, or cannot.
    pub(crate) fn trunk_tried(
        &self,
        trunk: TrunkName,
        outcome: TrunkOutcome,
        call_id: &str,
        parent: SpanContext,
    ) {
        let attributes: Attributes = vec![
            ("trunk".into(), name(trunk.as_str())),
            ("outcome".into(), outcome.as_str().into()),
            ("sip.call_id".into(), Pii::new(call_id.to_owned()).into()),
        ];
        self.tries.inc((trunk, outcome));
        let (context, above) = (parent.child(), parent.span_id);
        self.span("sip.route.trunk", context, above, call_id, now_unix_nanos(), attributes);
    }

    /// A trunk answered a call.
    pub(crate) fn trunk_answered(&self, trunk: TrunkName) {
        self.tries.inc((trunk, TrunkOutcome::Answered));
    }

    /// A call failed on a trunk.
    pub(crate) fn trunk_failed(&self, trunk: TrunkName, status: u16) {
        self.failures.inc((trunk, StatusClass::of(status)));
    }

    /// A gateway was asked whether it is alive.
    pub(crate) fn gateway_asked(&self, trunk: TrunkName, outcome: ProbeOutcome, took: Option<Duration>) {
        if let Some(took) = took {
            self.probe_seconds.observe((trunk.clone(),), took.as_secs_f64());
        }
        self.probes.inc((trunk, outcome));
    }

    /// A gateway went down, or came back.
    pub(crate) fn gateway_changed(&self, trunk: &TrunkName, gateway: u8, is_down: bool) {
        let attributes: Attributes =
            vec![("trunk".into(), name(trunk.as_str())), ("gateway".into(), i64::from(gateway).into())];
        let (severity, message) = match is_down {
            true => (Severity::Warn, "trunk gateway is down: it does not answer OPTIONS"),
            false => (Severity::Info, "trunk gateway is up again"),
        };
        self.emitter.log(COMPONENT, severity, message, attributes, None, None);
    }

    /// How many gateways of a trunk are up and down.
    pub(crate) fn gateways_counted(&self, trunk: &TrunkName, up: usize, down: usize) {
        self.gateways.set((trunk.clone(), GatewayLife::Up), to_i64(up));
        self.gateways.set((trunk.clone(), GatewayLife::Down), to_i64(down));
    }

    /// A call looks like fraud.
    pub(crate) fn fraud_suspected(
        &self,
        suspicion: Suspicion,
        action: FraudAction,
        tenant: &TenantName,
        subject: String,
        call_id: &str,
    ) {
        self.fraud.inc((SuspicionName(suspicion), action));
        let attributes = vec![
            ("suspicion".into(), suspicion.as_str().into()),
            ("action".into(), action.as_str().into()),
            ("tenant".into(), name(tenant.as_str())),
            ("subject".into(), Pii::new(subject).into()),
        ];
        let call_id = Some(Pii::new(call_id.to_owned()));
        self.emitter.log(COMPONENT, Severity::Warn, "call looks like fraud", attributes, None, call_id);
    }

    /// As many are watched as may be; this call's caller is not.
    pub(crate) fn fraud_unwatched(&self, subjects: u8) {
        self.unwatched.add((), subjects.into());
    }

    /// How many calls there are on a trunk now.
    pub(crate) fn trunk_load(&self, trunk: TrunkName, calls: u32) {
        self.trunk_calls.set((trunk,), calls.into());
    }

    /// How many calls a tenant has now.
    pub(crate) fn tenant_load(&self, tenant: TenantName, calls: u32) {
        self.tenant_calls.set((tenant,), calls.into());
    }

    /// So many tenants have no label of their own.
    pub(crate) fn tenants_unlabelled(&self, tenants: usize) {
        self.tenants_unlabelled.set((), to_i64(tenants));
    }

    fn span(
        &self,
        what: &'static str,
        context: SpanContext,
        parent: SpanId,
        call_id: &str,
        start_unix_nanos: u64,
        attributes: Attributes,
    ) {
        let span = Span {
            context,
            parent: Some(parent),
            name: what.into(),
            kind: SpanKind::Internal,
            start_unix_nanos,
            status: SpanStatus::Ok,
            attributes,
            call_id: Some(Pii::new(call_id.to_owned())),
        };
        self.emitter.span(COMPONENT, span);
    }
}

fn name(name: &str) -> belfry_signal::Value {
    belfry_signal::Value::Text(name.to_owned().into())
}

fn to_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
