//! Requests within a dialog: loose routing by the flow tokens that we put into Record-Route (RFC 3261 section
//! 16.12, RFC 5658), and the ACK of a 2xx, which has no transaction.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use belfry_relay_api::Leg;
use belfry_signal::now_unix_nanos;
use belfry_sip_proto::forking::{Advance, Group};
use belfry_sip_proto::transaction::TransactionId;
use belfry_sip_proto::{Edit, HeaderName, Limits, OwnedMessage, Uri};
use belfry_state::Binding;

use super::prepare::Leaving;
use crate::calls::Phase;
use crate::core::{Core, unix_seconds};
use crate::edges::Hop;
use crate::exchange::{CallKey, Destination, EndedCall, Failure, Reach};
use crate::handle::{FlowToken, Target, Transport};
use crate::location::destination_of;
use crate::received::Received;
use crate::signals::{CallCause, MethodName};

/// How a token begins that names an address; an edge's tokens have no such sign in them.
const ADDRESS_TOKEN: &str = "to~";

/// The life in the Routes of a dialog that is no call, as a subscription's: no core's own.
const NO_CALL: u32 = 0;

/// The top Route values that name us.
#[derive(Debug, Default)]
pub(crate) struct RoutesUsed {
    /// How many there are.
    pub(crate) count: usize,
    /// The last of them: it names the flow to leave by.
    pub(crate) last: Option<String>,
    /// The leg that the last one leads to, when it shows that we wrote it for this call.
    pub(crate) leg: Option<Leg>,
    /// When and by which core it was written; with the leg.
    mark: Option<Mark>,
}

/// When the call of a Route of ours began, and in which life of which core: what one that nobody knows is judged by.
/// The life of a dialog that is no call is [`NO_CALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    unix_seconds: u64,
    life: u32,
}

impl fmt::Display for Mark {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:x}.{:x}", self.unix_seconds, self.life)
    }
}

impl Mark {
    fn parse(text: &str) -> Option<Self> {
        let (unix_seconds, life) = text.split_once('.')?;
        Some(Self {
            unix_seconds: u64::from_str_radix(unix_seconds, 16).ok()?,
            life: u32::from_str_radix(life, 16).ok()?,
        })
    }
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
            let shown = route.uri.param("call").flatten().and_then(|shown| shown.rsplit_once('.'));
            let call_id = message.call_id().unwrap_or_default();
            let token = route.uri.user().unwrap_or_default();
            let proven = leg.zip(shown).and_then(|(leg, (mark, check))| {
                let mark = Mark::parse(mark)?;
                (self.route_check(leg, token, call_id, mark) == check).then_some((leg, mark))
            });
            (used.leg, used.mark) = proven.unzip();
        }
        used
    }

    /// Whether a call that this core does not know may be alive all the same: when its Route is of another life or of
    /// another core, and no older than a call may become. What this life set up and does not know is over: whoever keeps
    /// the Route of an old call has in it no way to a trunk without account, limits and record.
    pub(super) fn may_be_alive(&self, used: &RoutesUsed) -> bool {
        used.mark.is_some_and(|mark| ![self.life, NO_CALL].contains(&mark.life) && self.is_young(mark))
    }

    /// Whether it is no longer ago than a call may last.
    fn is_young(&self, mark: Mark) -> bool {
        let age = Duration::from_secs(unix_seconds().saturating_sub(mark.unix_seconds));
        age <= self.config.call_lifetime
    }

    /// Whether a request goes on by nothing but its Route, which shows that it was of a dialog of ours once. Nobody asks
    /// its sender for credentials, so what asks the other side for something passes only while its dialog may be there.
    fn may_go_on(&self, request: &Received, used: &RoutesUsed, is_stranger: bool) -> bool {
        let Some(mark) = used.mark else { return false };
        match request.method {
            // It ends things, and nothing else.
            MethodName::Bye => true,
            // Of a subscription, or of a transfer that outlives the call that it was ordered in (RFC 3515).
            MethodName::Notify => self.is_young(mark),
            MethodName::Subscribe if mark.life == NO_CALL => self.is_young(mark),
            _ => is_stranger && self.may_be_alive(used),
        }
    }

    /// Undoes what a strict router did: it put our Route into the Request-URI and the target behind the others
    /// (RFC 3261 section 16.4).
    pub(crate) fn unstrict(&self, mut request: Received) -> Received {
        let message = &request.message;
        let is_route = |uri: &Uri<'_>| {
            uri.param("lr").is_some() && uri.param("call").is_some() && self.is_our_route(uri)
        };
        if !message.uri().is_some_and(|uri| is_route(&uri)) {
            return request;
        }
        let mut routes: Vec<String> = message
            .headers(HeaderName::Route)
            .map(|value| String::from_utf8_lossy(value).into_owned())
            .collect();
        let target = routes.pop().and_then(|last| {
            Some(belfry_sip_proto::NameAddr::parse(last.as_bytes())?.uri.as_str().to_owned())
        });
        let Some(target) = target else { return request };
        // Our own value goes back to the top, where a loose router would have left it.
        let own = format!("<{}>", message.request_uri());
        let mut edit = Edit::new(message).remove(HeaderName::Route).set_request_uri(&target);
        for route in std::iter::once(&own).chain(&routes) {
            edit = edit.append(HeaderName::Route.as_str(), route);
        }
        if let Some(message) = OwnedMessage::scan(edit.finish(), &Limits::default()).0 {
            request.message = message;
        }
        request
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
        // Whoever takes part in a call sees the tokens of its Routes, and must not reach what they name in another.
        let route = used.last.as_deref().filter(|_| used.leg.is_some());
        let token_hop = route.and_then(|route| self.hop_by_token(route, &request.edge));
        let place = self.place_in_call(request);
        let is_stranger = place.is_none() && self.is_stranger(request);
        // Who is in no call of ours must show by its Route that it was; and in a call that is over nothing is asked.
        if place.is_none() && !self.may_go_on(request, used, is_stranger) {
            if used.leg.is_some() && is_stranger {
                self.signals.stranger_refused();
            }
            return self.fail(id, Failure::plain(481, CallCause::Rejected));
        }
        let (call, from, seen_hop) = match place {
            Some((key, leg, hop)) => (Some(key), leg, hop),
            None => (None, used.leg.map_or(Leg::Caller, Leg::other), None),
        };
        let Some(hop) = seen_hop.clone().or_else(|| token_hop.clone()) else {
            return self.fail(id, Failure::plain(481, CallCause::Rejected));
        };
        if let Some(exchange) = self.exchanges.get_mut(&id) {
            exchange.is_stranger = is_stranger;
            exchange.call = call.clone().or_else(|| is_stranger.then(|| request.call_id().into()));
        }
        let asked = request.message.uri();
        let uri = asked.and_then(|uri| self.contact_behind(&uri, &hop, now_unix_nanos()));
        let mut destinations = Vec::new();
        if let Some(key) = &call {
            // A connection that is gone is opened anew where we opened it, or by the phone.
            let is_ours_to_open = |hop: &Hop| matches!(hop.target, Target::Address { .. });
            destinations.extend(
                token_hop.filter(|token| is_ours_to_open(token) && *token != hop).map(Destination::flow),
            );
            let named = uri.as_deref().unwrap_or(request.message.request_uri());
            let others = self.other_flows(key, from.other(), named);
            destinations.extend(others.into_iter().map(|other| Destination { uri: uri.clone(), ..other }));
        }
        destinations.insert(0, Destination { uri, ..Destination::flow(hop) });
        // One side of a dialog is one customer: only trouble on the way leads on.
        let group = |destination| Group { advance: Advance::OnTrouble, ..Group::new(vec![destination]) };
        let targets = destinations.into_iter().map(group).collect();
        self.begin_forward(id, targets, used.count, false, from);
        match call {
            Some(key) if request.method == MethodName::Bye => self.on_bye(id, &key, from),
            None if request.method == MethodName::Bye && is_stranger => self.on_stranger_bye(request),
            _ => {}
        }
    }

    /// Flows on which the phone with this contact, which a request of a dialog names, has registered since: when the one
    /// that the dialog was made on is gone, the phone may be back on another.
    fn other_flows(&self, key: &CallKey, leg: Leg, contact: &str) -> Vec<Destination> {
        let Some(call) = self.calls.get(key) else { return Vec::new() };
        let party = if leg == Leg::Caller { &call.caller } else { &call.callee };
        let Some(aor) = Uri::parse(&party.uri).and_then(|uri| self.aor_of(&uri)) else { return Vec::new() };
        let is_named = |binding: &&Arc<Binding>| binding.contact.reveal() == contact;
        let known = |destination: &Destination| match &destination.reach {
            Reach::Flow(hop) => party.hop.as_ref() != Some(hop),
            Reach::NextHop(_) => true,
        };
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
        let whose = self.calls.get(key).map(|call| call.whose.clone()).unwrap_or_default();
        let ended = self.end_call(key, 200, cause).map(|epoch| EndedCall { epoch, whose });
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
        // Before the answer several dialogs may be there at once: only the Route says which one is meant.
        let is_early = call.phase == Phase::Setup && leg == Leg::Caller;
        let hop = call.party(leg.other()).hop.clone().filter(|_| !is_early);
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
        let asked = ack.message.uri();
        let uri = asked.and_then(|uri| self.contact_behind(&uri, &hop, now_unix_nanos()));
        let destination = Destination { uri, ..Destination::flow(hop.clone()) };
        let leaving = Leaving { body, ..Leaving::in_dialog(&destination, &hop, used.count) };
        if let Some(prepared) = self.prepare(ack, leaving) {
            self.send_plain(&prepared.way, prepared.bytes);
        }
    }

    /// The flow that a Route of ours names: its token is the user part.
    fn hop_by_token(&self, route: &str, preferred: &Arc<str>) -> Option<Hop> {
        let uri = Uri::parse(route)?;
        let token = uri.user().filter(|token| !token.is_empty())?;
        let transport = Transport::from_uri_token(uri.transport().unwrap_or_default());
        let edge = self.edges.edge_of(&uri, preferred)?;
        if let Some((address, name)) = self.address_in(token, transport) {
            let target = Target::Address { transport, address, name: Some(name) };
            return Some(Hop { edge, target, transport, peer: Some(address) });
        }
        Some(Hop { edge, target: Target::Flow(FlowToken(token.to_owned())), transport, peer: None })
    }

    /// Names an address as an edge names a flow, for next hops to which no flow is open yet. Only this site can make
    /// one, so that nobody sends through us to addresses of their own choice.
    fn address_token(&self, transport: Transport, address: SocketAddr, name: &str) -> String {
        // Colons may not stand in the user part of a URI (RFC 3261 section 25.1).
        let ip = address.ip().to_string().replace(':', "_");
        let place = format!("{ip}~{}~{name}", address.port());
        let check = self.route_check_of(&format!("{} {place}", transport.uri_token()));
        format!("{ADDRESS_TOKEN}{place}~{check}")
    }

    /// The address and name in a token of [`Core::address_token`].
    fn address_in(&self, token: &str, transport: Transport) -> Option<(SocketAddr, String)> {
        let (place, check) = token.strip_prefix(ADDRESS_TOKEN)?.rsplit_once('~')?;
        if self.route_check_of(&format!("{} {place}", transport.uri_token())) != check {
            return None;
        }
        let (ip, rest) = place.split_once('~')?;
        let (port, name) = rest.split_once('~')?;
        let ip: IpAddr = ip.replace('_', ":").parse().ok()?;
        Some((SocketAddr::new(ip, port.parse().ok()?), name.to_owned()))
    }

    /// The Record-Route value that names a flow of ours, and the leg of the call that is reached by it: a core that
    /// does not know the call reads both from the Route.
    /// A dialog that is no call began at `dialog_unix_nanos`.
    pub(crate) fn route_of(
        &self,
        hop: &Hop,
        leg: Leg,
        call_id: &str,
        dialog_unix_nanos: u64,
    ) -> Option<String> {
        let address = self.edges.address(&hop.edge, hop.transport)?;
        let token = match &hop.target {
            Target::Flow(FlowToken(token)) => Cow::Borrowed(token.as_str()),
            Target::Address { transport, address, name } => {
                Cow::Owned(self.address_token(*transport, *address, name.as_deref().unwrap_or_default()))
            }
        };
        let transport = hop.transport.uri_token();
        let of_call = self.calls.get(call_id).map(|call| (call.start_unix_nanos, self.life));
        // Nobody makes a call of a dialog that is none.
        let (unix_nanos, life) = of_call.unwrap_or((dialog_unix_nanos, NO_CALL));
        let mark = Mark { unix_seconds: unix_nanos / 1_000_000_000, life };
        let check = self.route_check(leg, &token, call_id, mark);
        let (host, port, leg) = (&address.host, address.port, leg.as_str());
        Some(format!("<sip:{token}@{host}:{port};transport={transport};lr;leg={leg};call={mark}.{check}>"))
    }

    /// What only this site can write into a Route of a call: it outlives the core, as the site's key does. It covers
    /// the token, so that nobody leads a request of his old call over another flow, as a trunk's, and the mark, so that
    /// nobody makes it younger.
    fn route_check(&self, leg: Leg, token: &str, call_id: &str, mark: Mark) -> String {
        self.route_check_of(&format!("{} {token} {mark} {call_id}", leg.as_str()))
    }

    fn route_check_of(&self, text: &str) -> String {
        let hash = self.trace_key.trace_of_call(text);
        hash.to_string().chars().take(16).collect()
    }
}

/// The leg that a Route names.
fn leg_named(name: &str) -> Option<Leg> {
    [Leg::Caller, Leg::Callee].into_iter().find(|leg| leg.as_str() == name)
}
