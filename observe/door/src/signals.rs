//! Everything that the doors tell about themselves.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use belfry_signal::{Counter, Emitter, Gauge, GaugeGuard, Pii, Registry, Severity, Value, now_unix_nanos};

belfry_signal::label_enum! {
    /// Which door.
    pub enum Door("door") {
        /// Liveness, metrics, drain.
        Admin = "admin",
        /// Calls, logs, traces, series.
        Api = "api",
        /// The control-tower page.
        Page = "page",
        /// OTLP of others over HTTP.
        Otlp = "otlp",
        /// Others' documents for Elasticsearch.
        Elastic = "elastic",
        /// Others' lines for Loki.
        Loki = "loki",
    }
}

belfry_signal::label_enum! {
    /// Why a connection was not taken.
    pub(crate) enum TurnedAway("reason") {
        /// As many as may were open.
        Full = "full",
        /// It could not be accepted: usually the process has too many files open.
        Accept = "accept",
    }
}

belfry_signal::label_enum! {
    /// Why a connection was ended by us.
    pub(crate) enum Cut("reason") {
        /// No whole head of a request came in time, at first or after an answer.
        Header = "header_timeout",
        /// The client took nothing of its answer.
        Stalled = "write_stalled",
        /// It was still open when the drain's time was over.
        Drained = "drained",
        /// No TLS came about in time.
        Handshake = "handshake",
    }
}

belfry_signal::label_enum! {
    /// Why a request was refused.
    pub(crate) enum Refused("reason") {
        /// It shows no token.
        NoToken = "no_token",
        /// It shows one that is not good.
        WrongToken = "wrong_token",
        /// It names the door by a name that is not the door's: DNS rebinding.
        Host = "host",
        /// Another site made a browser send it.
        CrossSite = "cross_site",
        /// Its body is too long.
        TooLong = "too_long",
        /// Its body came too slowly.
        TooSlow = "too_slow",
        /// Its body broke off.
        Broken = "broken",
    }
}

const COMPONENT: &str = "door";

/// The crate's families and its voice.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    emitter: Emitter,
    connections: Gauge<(Door,)>,
    turned_away: Counter<(Door, TurnedAway)>,
    cut: Counter<(Door, Cut)>,
    refused: Counter<(Door, Refused)>,
    /// When a refusal was last logged: whoever knocks a thousand times a second is told of once.
    told_unix_seconds: Arc<AtomicU64>,
}

impl Signals {
    pub(crate) fn register(registry: &Registry) -> Self {
        let component = registry.component(COMPONENT);
        Self {
            emitter: component.emitter(),
            connections: component.gauge("connections", "Connections open now."),
            turned_away: component
                .counter("connections_refused_total", "Connections that were not taken, by reason."),
            cut: component.counter("connections_cut_total", "Connections that we ended, by reason."),
            refused: component.counter("requests_refused_total", "Requests refused at the door, by reason."),
            told_unix_seconds: Arc::default(),
        }
    }

    pub(crate) fn opened(&self, door: Door, address: SocketAddr, has_token: bool) {
        let attributes = vec![
            (Cow::Borrowed("door"), Value::from(door.as_str())),
            (Cow::Borrowed("net.address"), Value::Text(Cow::Owned(address.to_string()))),
            (Cow::Borrowed("has_token"), Value::from(has_token)),
        ];
        self.emitter.log(COMPONENT, Severity::Info, "door opened", attributes, None, None);
    }

    pub(crate) fn connection_opened(&self, door: Door) -> GaugeGuard {
        self.connections.guard((door,))
    }

    pub(crate) fn connection_turned_away(&self, door: Door, reason: TurnedAway) {
        self.turned_away.inc((door, reason));
    }

    pub(crate) fn connection_cut(&self, door: Door, reason: Cut) {
        self.cut.inc((door, reason));
    }

    pub(crate) fn request_refused(&self, door: Door, reason: Refused, peer: Option<IpAddr>) {
        self.refused.inc((door, reason));
        let now = now_unix_nanos() / 1_000_000_000;
        if self.told_unix_seconds.swap(now, Ordering::Relaxed) == now {
            return;
        }
        let mut attributes = vec![
            (Cow::Borrowed("door"), Value::from(door.as_str())),
            (Cow::Borrowed("reason"), Value::from(reason.as_str())),
        ];
        if let Some(peer) = peer {
            attributes.push((Cow::Borrowed("net.peer"), Value::from(Pii::new(peer.to_string()))));
        }
        self.emitter.log(
            COMPONENT,
            Severity::Warn,
            "a request was refused at the door",
            attributes,
            None,
            None,
        );
    }

    pub(crate) fn tokens_reread(&self, door: Door, tokens: usize) {
        let attributes = vec![
            (Cow::Borrowed("door"), Value::from(door.as_str())),
            (Cow::Borrowed("tokens"), Value::from(tokens as u64)),
        ];
        self.emitter.log(COMPONENT, Severity::Info, "token file re-read", attributes, None, None);
    }

    /// The old tokens stay in force: somebody who was shut out may still get in.
    pub(crate) fn tokens_not_reread(&self, door: Door) {
        let attributes = vec![(Cow::Borrowed("door"), Value::from(door.as_str()))];
        let message = "token file cannot be used, the old tokens stay in force";
        self.emitter.log(COMPONENT, Severity::Error, message, attributes, None, None);
    }
}
