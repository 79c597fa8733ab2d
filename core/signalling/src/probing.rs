//! OPTIONS to the gateways of trunks, as their plans ask for it: who is down is found out before a call finds it out.
//!
//! A gateway of several addresses is up when one of them answers. Any answer is one but 408, 503 and 504, by which a
//! server says itself that nobody is behind it: what it thinks of OPTIONS is not the question. These requests have
//! transactions and no exchange; they are counted and do not stand in the ladder, which tells calls.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use belfry_routing::{Change, GatewayKey, Probes, Turn};
use belfry_sip_proto::build::Writer;
use belfry_sip_proto::locate::{self, Locator, Wanted};
use belfry_sip_proto::transaction::{ClientKey, ClientRequest, MethodKind, TransactionId};
use belfry_sip_proto::{HeaderName, Limits, OwnedMessage, Uri};
use tokio::sync::oneshot;

use crate::core::{Control, Core, CoreHandle, Done, now, unix_seconds};
use crate::exchange::{NextHop, Place};
use crate::received::Received;
use crate::resolver::is_literal;
use crate::routes::{ProbeOutcome, QuietGateways};
use crate::signals::{MethodName, Way as Direction};

/// Addresses of a gateway that are asked one after another.
const PLACES_MAX: usize = 4;

/// What is known of the gateways of trunks.
#[derive(Debug, Default)]
pub(crate) struct Gateways {
    /// Those that left a call without an answer lately.
    pub(crate) quiet: QuietGateways,
    /// Those that are asked whether they are alive.
    pub(crate) probes: Probes,
    /// Questions that are under way.
    pub(crate) asked: HashMap<TransactionId, Asked>,
}

/// A question that is under way.
#[derive(Debug)]
pub(crate) struct Asked {
    key: GatewayKey,
    /// What is left to ask, when this one does not answer.
    places: VecDeque<Place>,
    /// When it is given up.
    until: Instant,
    began: Instant,
}

/// What is known of a gateway that is asked.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct GatewayState {
    /// The trunk.
    pub trunk: String,
    /// Its place among the trunk's gateways, from 0.
    pub gateway: u8,
    /// Where it is.
    pub uri: String,
    /// Whether it is down.
    pub is_down: bool,
    /// Since when, in seconds since the Unix epoch.
    pub since_unix_seconds: u64,
}

impl CoreHandle {
    /// The gateways that are asked whether they are alive, by trunk.
    pub async fn gateways(&self) -> Vec<GatewayState> {
        let (answer, gateways) = oneshot::channel();
        self.order(Control::Gateways(answer)).await;
        gateways.await.unwrap_or_default()
    }
}

impl Core {
    /// Whose turn it is, once a second.
    pub(crate) fn probe_gateways(&mut self) {
        let now = now();
        let silent: Vec<TransactionId> =
            self.gateways.asked.iter().filter(|(_, asked)| asked.until <= now).map(|(id, _)| *id).collect();
        for id in silent {
            self.transactions.abandon(id, now);
            self.probe_failed(id, ProbeOutcome::Silent);
        }
        for turn in self.gateways.probes.due(now) {
            self.probe(turn);
        }
    }

    fn probe(&mut self, turn: Turn) {
        let Turn { key, uri } = turn;
        let Some(next_hop) = Uri::parse(&uri).and_then(|uri| NextHop::of_uri(&uri)) else {
            return self.probe_ended(&key, ProbeOutcome::Unreachable, None);
        };
        let wanted = Wanted {
            host: next_hop.host.to_string(),
            port: next_hop.port,
            protocol: next_hop.transport.map(super::proxy::protocol_of),
            is_secure: next_hop.is_secure,
        };
        let dice = rand::random();
        if is_literal(&wanted.host) {
            let places = Locator::new(wanted, dice).places();
            return self.on_gateway_located(&key, &uri, places);
        }
        if self.lookups >= self.config.dns_lookups_max {
            // Our trouble is not the gateway's.
            return self.probe_skipped(&key);
        }
        self.lookups += 1;
        let resolver = self.resolver.clone();
        let otherwise = Done::GatewayLocated { key: key.clone(), uri: uri.clone(), places: Vec::new() };
        self.run_job(
            async move { Done::GatewayLocated { key, uri, places: resolver.locate(wanted, dice).await } },
            otherwise,
        );
    }

    /// It is known where a gateway is.
    pub(crate) fn on_gateway_located(&mut self, key: &GatewayKey, uri: &str, places: Vec<locate::Place>) {
        let host = Uri::parse(uri).and_then(|uri| NextHop::of_uri(&uri)).map(|next_hop| next_hop.host);
        let name = host.unwrap_or_default();
        let places = places.into_iter().take(PLACES_MAX).map(|place| Place {
            transport: super::proxy::transport_of(place.protocol),
            address: place.address,
            name: Arc::clone(&name),
        });
        self.ask_gateway(key.clone(), places.collect());
    }

    /// Asks the next of a gateway's addresses.
    fn ask_gateway(&mut self, key: GatewayKey, mut places: VecDeque<Place>) {
        let Some(place) = places.pop_front() else {
            return self.probe_ended(&key, ProbeOutcome::Unreachable, None);
        };
        let routes = Arc::clone(&self.routes);
        let trunk = routes.table.trunk_named(&key.0);
        let Some(gateway) = trunk.and_then(|trunk| trunk.gateways.get(usize::from(key.1))) else { return };
        let timeout = trunk.map_or(1, |trunk| trunk.response_timeout_seconds);
        let Some(hop) = self.hop_outward(&place) else { return self.probe_skipped(&key) };
        let Some(address) = self.edges.address(&hop.edge, hop.transport) else {
            return self.probe_skipped(&key);
        };
        let branch = self.new_branch(0);
        let via = super::proxy::via_value(hop.transport.via_token(), &address.host, address.port, &branch);
        let domain = self.config.domains.first().map_or("localhost", String::as_str);
        let uri = gateway.uri();
        let random: u64 = rand::random();
        let bytes = Writer::request("OPTIONS", &uri)
            .header(HeaderName::Via, &format!("{via};rport"))
            .header(HeaderName::MaxForwards, "70")
            .header(HeaderName::From, &format!("<sip:{domain}>;tag={random:016x}"))
            .header(HeaderName::To, &format!("<{uri}>"))
            .header(HeaderName::CallId, &format!("probe-{random:016x}"))
            .header(HeaderName::CSeq, "1 OPTIONS")
            .header(HeaderName::Accept, "application/sdp")
            .finish();
        let Some(message) = OwnedMessage::scan(bytes.clone(), &Limits::default()).0 else { return };
        let call_id = message.call_id().unwrap_or_default();
        let trace_id = self.trace_key.trace_of_call(call_id);
        let request = ClientRequest {
            key: ClientKey::new(branch.as_bytes(), b"OPTIONS"),
            method: MethodKind::Other,
            path: super::proxy::way_to(&hop, MethodName::Options, &message, call_id, trace_id),
            is_reliable: hop.transport.is_reliable(),
            bytes,
        };
        let now = now();
        match self.transactions.send(request, now) {
            Ok(id) => {
                let until = now + Duration::from_secs(timeout.into());
                self.gateways.asked.insert(id, Asked { key, places, until, began: now });
            }
            Err(_) => self.probe_skipped(&key),
        }
    }

    /// Whether a response answers such a question; then it is dealt with.
    pub(crate) fn is_probe_answer(&mut self, id: TransactionId, response: &Received) -> bool {
        let Some(asked) = self.gateways.asked.get(&id) else { return false };
        let status = response.message.status().unwrap_or_default();
        self.signals.message_counted(MethodName::Options, Some(status), Direction::Received, false);
        if status < 200 {
            return true;
        }
        let began = asked.began;
        if matches!(status, 408 | 503 | 504) {
            self.probe_failed(id, ProbeOutcome::Refused);
        } else if let Some(asked) = self.gateways.asked.remove(&id) {
            self.probe_ended(&asked.key, ProbeOutcome::Answered, Some(now() - began));
        }
        true
    }

    /// Whether a message that did not leave was such a question; then it is dealt with.
    pub(crate) fn is_probe_unsendable(&mut self, id: TransactionId) -> bool {
        let is_probe = self.gateways.asked.contains_key(&id);
        if is_probe {
            self.transactions.abandon(id, now());
            self.probe_failed(id, ProbeOutcome::Unreachable);
        }
        is_probe
    }

    /// An address did not answer: the next one, or the gateway did not.
    fn probe_failed(&mut self, id: TransactionId, outcome: ProbeOutcome) {
        let Some(asked) = self.gateways.asked.remove(&id) else { return };
        match asked.places.is_empty() {
            true => self.probe_ended(&asked.key, outcome, None),
            false => self.ask_gateway(asked.key, asked.places),
        }
    }

    fn probe_ended(&mut self, key: &GatewayKey, outcome: ProbeOutcome, took: Option<Duration>) {
        let change = match outcome {
            ProbeOutcome::Answered => self.gateways.probes.answered(key, unix_seconds()),
            _ => self.gateways.probes.failed(key, unix_seconds()),
        };
        let label = self.routes.trunk_label(&key.0);
        self.signals.routing.gateway_asked(label.clone(), outcome, took);
        if let Some(change) = change {
            self.signals.routing.gateway_changed(&label, key.1, change == Change::WentDown);
        }
    }

    /// Nobody could be asked, for reasons of our own: that says nothing of the gateway.
    fn probe_skipped(&mut self, key: &GatewayKey) {
        self.gateways.probes.skipped(key);
        self.signals.routing.gateway_asked(self.routes.trunk_label(&key.0), ProbeOutcome::Skipped, None);
    }

    /// All of them, for whoever asks.
    pub(crate) fn gateway_states(&self) -> Vec<GatewayState> {
        let state = |health: belfry_routing::Health| GatewayState {
            trunk: health.key.0.to_string(),
            gateway: health.key.1,
            uri: health.uri,
            is_down: health.is_down,
            since_unix_seconds: health.since_unix_seconds,
        };
        self.gateways.probes.all().into_iter().map(state).collect()
    }
}
