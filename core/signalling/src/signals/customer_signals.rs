//! What the core tells about where customers are, and about those who only claim to be customers.

use std::net::{IpAddr, SocketAddr};

use belfry_signal::record::Attributes;
use belfry_signal::{Component, Counter, CounterHandle, Emitter, Gauge, Pii, Severity};

use super::labels::{BanScope, BindingLoss, KeepAliveStep};
use super::{COMPONENT, plain, to_i64};
use crate::authority::BanKind;

/// Metric handles and the way out for log lines.
#[derive(Clone, Debug)]
pub(crate) struct CustomerSignals {
    emitter: Emitter,
    wrong_credentials: CounterHandle,
    bans_begun: Counter<(BanScope,)>,
    bans: Gauge<()>,
    banned_requests: CounterHandle,
    stayed_unknown: CounterHandle,
    bindings_lost: Counter<(BindingLoss,)>,
    keepalives: Counter<(KeepAliveStep,)>,
}

impl CustomerSignals {
    pub(super) fn register(c: &Component) -> Self {
        Self {
            emitter: c.emitter(),
            wrong_credentials: plain(c, "wrong_credentials_total", "Requests whose credentials are wrong."),
            bans_begun: c.counter("bans_total", "Bans for guessing passwords, by whom they are for."),
            bans: c.gauge("bans", "Bans that are in force now."),
            banned_requests: plain(c, "banned_requests_total", "Requests turned away because of a ban."),
            stayed_unknown: plain(
                c,
                "known_flows_refused_total",
                "Customers who were let in and stay unknown under overload, because their network has too many.",
            ),
            bindings_lost: c.counter(
                "bindings_lost_total",
                "Bindings removed before they ran out, because their device cannot be reached.",
            ),
            keepalives: c.counter("keepalives_total", "OPTIONS requests to phones behind NATs."),
        }
    }

    /// Somebody's credentials are wrong.
    pub(crate) fn credentials_were_wrong(&self) {
        self.wrong_credentials.inc();
    }

    /// Somebody was let in whose network has had its share of those who are known.
    pub(crate) fn stayed_unknown(&self) {
        self.stayed_unknown.inc();
    }

    /// Somebody guesses passwords and is turned away from now on.
    pub(crate) fn ban_began(&self, kind: BanKind, source: IpAddr, bans: usize) {
        let scope = match kind {
            BanKind::Source => BanScope::Source,
            BanKind::User => BanScope::User,
        };
        self.bans_begun.inc((scope,));
        self.bans_changed(bans);
        let attributes = vec![
            ("scope".into(), scope.as_str().into()),
            ("net.peer".into(), Pii::new(source.to_string()).into()),
        ];
        self.log(Severity::Warn, "address banned for guessing passwords", attributes);
    }

    /// An operator lifted a ban.
    pub(crate) fn ban_lifted(&self, source: IpAddr, bans: usize) {
        self.bans_changed(bans);
        let attributes = vec![("net.peer".into(), Pii::new(source.to_string()).into())];
        self.log(Severity::Info, "ban lifted by an operator", attributes);
    }

    /// So many bans are in force.
    pub(crate) fn bans_changed(&self, bans: usize) {
        self.bans.set((), to_i64(bans));
    }

    /// A request was turned away because of a ban.
    pub(crate) fn request_banned(&self) {
        self.banned_requests.inc();
    }

    /// A binding was removed because its device cannot be reached.
    pub(crate) fn binding_lost(&self, loss: BindingLoss, address: &str, source: SocketAddr) {
        self.bindings_lost.inc((loss,));
        let attributes = vec![
            ("reason".into(), loss.as_str().into()),
            ("sip.aor".into(), Pii::new(address.to_owned()).into()),
            ("net.peer".into(), Pii::new(source.to_string()).into()),
        ];
        self.log(Severity::Debug, "binding removed", attributes);
    }

    /// Keep-alives were sent, answered or put off.
    pub(crate) fn keepalives_went(&self, step: KeepAliveStep, count: usize) {
        self.keepalives.add((step,), count as u64);
    }

    fn log(&self, severity: Severity, message: &'static str, attributes: Attributes) {
        self.emitter.log(COMPONENT, severity, message, attributes, None, None);
    }
}
