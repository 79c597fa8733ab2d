//! Requests within a dialog: loose routing by the flow tokens that we put into Record-Route (RFC 3261 section
//! 16.12, RFC 5658), and the ACK of a 2xx, which has no transaction.

use std::collections::VecDeque;
use std::sync::Arc;

use belfry_relay_api::Leg;
use belfry_signal::now_unix_nanos;
use belfry_sip_proto::transaction::TransactionId;
use belfry_sip_proto::{HeaderName, OwnedMessage, Uri};
use belfry_state::Binding;

use crate::calls::Phase;
use crate::core::Core;
use crate::edges::Hop;
use crate::exchange::{CallKey, Destination, Failure};
use crate::handle::{FlowToken, Target, Transport};
use crate::location::destination_of;
use crate::received::Received;
use crate::signals::{CallCause, MethodName};

/// The top Route values that name us.
#[derive(Debug, Default)]
pub(crate) struct RoutesUsed {
    /// How many there are.
    pub(crate) count: usize,
    /// The last of them: it names the flow to leave by.
    pub(crate) last: Option<String>,
    /// The leg that the last one leads to, when it shows that we wrote it for this call.
    pub(crate) leg: Option<Leg>,
}

impl Core {
    /// How many of a request's top Routes are ours; we always put two (one for each side).
    pub(crate) fn routes_used(&self, message: &OwnedMessage) -> RoutesUsed {
        let mut used = RoutesUsed::default();
        for route in message.routes(HeaderName::Route) {
            if !self.is_our_route(&route.uri) {
                break;
            }
            used.count += 1;
            used.last = Some(route.uri.as_str().to_owned());
            let leg = route.uri.param("leg").flatten().and_then(leg_named);
            let check = route.uri.param("call").flatten();
            let call_id = message.call_id().unwrap_or_default();
            used.leg = leg.filter(|leg| check == Some(self.route_check(*leg, call_id).as_str()));
        }
        used
    }

    /// Whether a Route names one of our edges, or one of our domains as phones write it for their outbound proxy.
    fn is_our_route(&self, uri: &Uri<'_>) -> bool {
        let is_domain = || self.config.domains.iter().any(|domain| uri.host().eq_ignore_ascii_case(domain));
        uri.is_sip() && (self.edges.is_ours(uri) || is_domain())
    }

    /// A request of a dialog came: to the other side, over the flow where that was seen last.
    pub(crate) fn on_dialog_request(
        &mut self,
        id: TransactionId,
        request: &Arc<Received>,
        used: &RoutesUsed,
    ) {
        let token_hop = used.last.as_deref().and_then(|route| self.hop_by_token(route, &request.edge));
        let place = self.place_in_call(request);
        let is_stranger = place.is_none() && self.is_stranger(request);
        // Who is in no call of ours must show by its Route that it was; and a call that is over cannot be changed.
        let is_change = request.method == MethodName::Invite && !is_stranger;
        if place.is_none() && (used.leg.is_none() || is_change) {
            return self.fail(id, Failure::plain(481, CallCause::Rejected));
        }
        let (call, from, seen_hop) = match place {
            Some((key, leg, hop)) => (Some(key), leg, hop),
            None => (None, used.leg.map_or(Leg::Caller, Leg::other), None),
        };
        let Some(hop) = seen_hop.or(token_hop) else {
            return self.fail(id, Failure::plain(481, CallCause::Rejected));
        };
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            exchange.is_stranger = is_stranger;
            exchange.call = call.clone().or_else(|| is_stranger.then(|| request.call_id().into()));
        }
        let asked = request.message.uri();
        let uri = asked.and_then(|uri| self.contact_behind(&uri, &hop, now_unix_nanos()));
        let mut destinations = VecDeque::from([Destination { hop, uri, path: Vec::new() }]);
        if let Some(key) = &call {
            destinations.extend(self.other_flows(key, from.other(), &request.message));
        }
        self.begin_forward(id, destinations, used.count, false, from);
        match call {
            Some(key) if request.method == MethodName::Bye => self.on_bye(id, &key, from),
            None if request.method == MethodName::Bye && is_stranger => self.on_stranger_bye(request),
            _ => {}
        }
    }

    /// Flows on which the phone that a request of a dialog names has registered since: when the one that the dialog
    /// was made on is gone, the phone may be back on another.
    fn other_flows(&self, key: &CallKey, leg: Leg, message: &OwnedMessage) -> Vec<Destination> {
        let Some(call) = self.calls.get(key) else { return Vec::new() };
        let party = if leg == Leg::Caller { &call.caller } else { &call.callee };
        let Some(aor) = Uri::parse(&party.uri).and_then(|uri| self.aor_of(&uri)) else { return Vec::new() };
        let is_named = |binding: &&Arc<Binding>| binding.contact.reveal() == message.request_uri();
        let known = |destination: &Destination| party.hop.as_ref() != Some(&destination.hop);
        self.bindings_of(&aor, now_unix_nanos())
            .iter()
            .filter(is_named)
            .filter_map(|binding| destination_of(binding))
            .filter(known)
            .map(|destination| Destination { uri: None, ..destination })
            .collect()
    }

    /// A BYE ends the call whatever the other side says to it.
    fn on_bye(&mut self, id: TransactionId, key: &CallKey, from: Leg) {
        if self.calls.get(key).is_none_or(|call| call.phase != Phase::Talking) {
            return;
        }
        let cause = match from {
            Leg::Caller => CallCause::CallerHungUp,
            Leg::Callee => CallCause::CalleeHungUp,
        };
        let ended = self.end_call(key, 200, cause);
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            exchange.ended_call = ended;
        }
    }

    /// The call that a request belongs to, who of it sent it, and where the other side is.
    fn place_in_call(&mut self, request: &Received) -> Option<(CallKey, Leg, Option<Hop>)> {
        let key = self.call_key(request.call_id())?;
        let call = self.calls.get_mut(&key)?;
        let leg = call.leg_of(&request.message)?;
        call.heard(leg, request);
        if matches!(request.method, MethodName::Invite | MethodName::Update) {
            call.party(leg).learn_contact(&request.message);
        }
        let hop = call.party(leg.other()).hop.clone();
        Some((key, leg, hop))
    }

    /// The ACK of a 2xx goes end to end, without a transaction (RFC 3261 section 16.11).
    pub(crate) fn on_ack(&mut self, ack: Arc<Received>) {
        if !self.anchor_ack(&ack) {
            self.forward_ack(&ack, None);
        }
    }

    /// Sends an ACK on; the body replaces its own.
    pub(crate) fn forward_ack(&mut self, ack: &Arc<Received>, body: Option<&[u8]>) {
        let used = self.routes_used(&ack.message);
        let seen_hop = self.place_in_call(ack).and_then(|(_, _, hop)| hop);
        let route = used.last.as_deref().filter(|_| used.leg.is_some());
        let token_hop = || route.and_then(|route| self.hop_by_token(route, &ack.edge));
        let Some(hop) = seen_hop.or_else(token_hop) else { return };
        let destination = Destination { hop, uri: None, path: Vec::new() };
        if let Some(prepared) = self.prepare(ack, &destination, used.count, false, body) {
            self.send_plain(&prepared.way, prepared.bytes);
        }
    }

    /// The flow that a Route of ours names: its token is the user part.
    fn hop_by_token(&self, route: &str, preferred: &Arc<str>) -> Option<Hop> {
        let uri = Uri::parse(route)?;
        let token = uri.user().filter(|token| !token.is_empty())?;
        let transport = Transport::from_uri_token(uri.transport().unwrap_or_default());
        let edge = self.edges.edge_of(&uri, preferred)?;
        Some(Hop { edge, target: Target::Flow(FlowToken(token.to_owned())), transport, peer: None })
    }

    /// The Record-Route value that names a flow of ours, and the leg of the call that is reached by it: a core that
    /// does not know the call reads both from the Route.
    pub(crate) fn route_of(&self, hop: &Hop, leg: Leg, call_id: &str) -> Option<String> {
        let address = self.edges.address(&hop.edge, hop.transport)?;
        let Target::Flow(FlowToken(token)) = &hop.target else { return None };
        let transport = hop.transport.uri_token();
        let check = self.route_check(leg, call_id);
        let (host, port, leg) = (&address.host, address.port, leg.as_str());
        Some(format!("<sip:{token}@{host}:{port};transport={transport};lr;leg={leg};call={check}>"))
    }

    /// What only this site can write into a Route of a call: it outlives the core, as the site's key does.
    fn route_check(&self, leg: Leg, call_id: &str) -> String {
        let hash = self.trace_key.trace_of_call(&format!("{} {call_id}", leg.as_str()));
        hash.to_string().chars().take(16).collect()
    }
}

/// The leg that a Route names.
fn leg_named(name: &str) -> Option<Leg> {
    [Leg::Caller, Leg::Callee].into_iter().find(|leg| leg.as_str() == name)
}
