//! The indicators of calls (RFC 6076, ITU-T E.425): the same families per region, per tenant and per trunk.
//!
//! Four sets of families in place of one with four labels: their series add up, where those of one would multiply. A
//! call counts once in each set that it belongs to; one that was turned away before its caller was known has a region
//! only.

use std::time::Duration;

use belfry_signal::{Component, Counter, Histogram, Label, Region, SECONDS};

use super::labels::{AttemptResult, CallCause, Scope, SetupResult};
use crate::routes::{TenantName, TrunkName};

/// How long calls last, in seconds.
const CALL_SECONDS: &[f64] = &[1.0, 6.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0];

/// The names of one set.
struct Names {
    attempts: &'static str,
    ended: &'static str,
    post_dial: &'static str,
    calls: &'static str,
    disconnects: &'static str,
}

const REGIONS: Names = Names {
    attempts: "call_attempts_total",
    ended: "calls_ended_total",
    post_dial: "post_dial_seconds",
    calls: "call_seconds",
    disconnects: "disconnect_seconds",
};
const TENANTS: Names = Names {
    attempts: "tenant_call_attempts_total",
    ended: "tenant_calls_ended_total",
    post_dial: "tenant_post_dial_seconds",
    calls: "tenant_call_seconds",
    disconnects: "tenant_disconnect_seconds",
};
const CALLING_TRUNKS: Names = Names {
    attempts: "calling_trunk_call_attempts_total",
    ended: "calling_trunk_calls_ended_total",
    post_dial: "calling_trunk_post_dial_seconds",
    calls: "calling_trunk_call_seconds",
    disconnects: "calling_trunk_disconnect_seconds",
};
const CALLED_TRUNKS: Names = Names {
    attempts: "called_trunk_call_attempts_total",
    ended: "called_trunk_calls_ended_total",
    post_dial: "called_trunk_post_dial_seconds",
    calls: "called_trunk_call_seconds",
    disconnects: "called_trunk_disconnect_seconds",
};

/// All sets.
#[derive(Clone, Debug)]
pub(super) struct CallIndicators {
    regions: Indicators<Region>,
    tenants: Indicators<TenantName>,
    calling_trunks: Indicators<TrunkName>,
    called_trunks: Indicators<TrunkName>,
}

impl CallIndicators {
    pub(super) fn register(c: &Component) -> Self {
        Self {
            regions: Indicators::register(c, &REGIONS),
            tenants: Indicators::register(c, &TENANTS),
            calling_trunks: Indicators::register(c, &CALLING_TRUNKS),
            called_trunks: Indicators::register(c, &CALLED_TRUNKS),
        }
    }

    /// An INVITE chain got its final answer.
    pub(super) fn attempt_ended(
        &self,
        scope: &Scope<'_>,
        result: AttemptResult,
        post_dial: Option<Duration>,
    ) {
        self.regions.attempt_ended(Some(scope.region), result, post_dial);
        self.tenants.attempt_ended(scope.tenant.as_ref(), result, post_dial);
        self.calling_trunks.attempt_ended(scope.calling_trunk.as_ref(), result, post_dial);
        self.called_trunks.attempt_ended(scope.called_trunk.as_ref(), result, post_dial);
    }

    /// A call is over.
    pub(super) fn call_ended(&self, scope: &Scope<'_>, cause: CallCause, talked: Option<Duration>) {
        self.regions.call_ended(Some(scope.region), cause, talked);
        self.tenants.call_ended(scope.tenant.as_ref(), cause, talked);
        self.calling_trunks.call_ended(scope.calling_trunk.as_ref(), cause, talked);
        self.called_trunks.call_ended(scope.called_trunk.as_ref(), cause, talked);
    }

    /// The other side of a call confirmed its end.
    pub(super) fn disconnected(&self, scope: &Scope<'_>, delay: Duration) {
        self.regions.disconnected(Some(scope.region), delay);
        self.tenants.disconnected(scope.tenant.as_ref(), delay);
        self.calling_trunks.disconnected(scope.calling_trunk.as_ref(), delay);
        self.called_trunks.disconnected(scope.called_trunk.as_ref(), delay);
    }
}

/// One set of families.
#[derive(Clone, Debug)]
struct Indicators<W: Label> {
    attempts: Counter<(AttemptResult, W)>,
    ended: Counter<(CallCause, W)>,
    post_dial: Histogram<(SetupResult, W)>,
    calls: Histogram<(W,)>,
    disconnects: Histogram<(W,)>,
}

impl<W: Label + Clone> Indicators<W> {
    fn register(c: &Component, names: &Names) -> Self {
        let post_dial = "Session request delay (RFC 6076 section 4.3), post-dial delay: first INVITE to the first 18x or final response.";
        Self {
            attempts: c.counter(names.attempts, "Call attempts (one per INVITE chain), by result."),
            ended: c.counter(names.ended, "Calls that ended or never began, by cause."),
            post_dial: c.histogram(names.post_dial, post_dial, SECONDS),
            calls: c.histogram(
                names.calls,
                "Session duration (RFC 6076 section 4.5): 200 to BYE.",
                CALL_SECONDS,
            ),
            disconnects: c.histogram(
                names.disconnects,
                "Session disconnect delay (RFC 6076 section 4.4): BYE to its final response.",
                SECONDS,
            ),
        }
    }

    fn attempt_ended(&self, whose: Option<&W>, result: AttemptResult, post_dial: Option<Duration>) {
        let Some(whose) = whose else { return };
        self.attempts.inc((result, whose.clone()));
        if let Some(delay) = post_dial {
            let setup =
                if result == AttemptResult::Answered { SetupResult::Answered } else { SetupResult::Failed };
            self.post_dial.observe((setup, whose.clone()), delay.as_secs_f64());
        }
    }

    fn call_ended(&self, whose: Option<&W>, cause: CallCause, talked: Option<Duration>) {
        let Some(whose) = whose else { return };
        self.ended.inc((cause, whose.clone()));
        if let Some(talked) = talked {
            self.calls.observe((whose.clone(),), talked.as_secs_f64());
        }
    }

    fn disconnected(&self, whose: Option<&W>, delay: Duration) {
        if let Some(whose) = whose {
            self.disconnects.observe((whose.clone(),), delay.as_secs_f64());
        }
    }
}
