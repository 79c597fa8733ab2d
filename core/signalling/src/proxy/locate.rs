//! Next hops: from a name to the addresses that are tried one after another (RFC 3263), and their challenges.

use std::sync::Arc;

use belfry_signal::{Cause, Room};
use belfry_sip_proto::digest::{Answering, Challenge};
use belfry_sip_proto::forking::BranchIndex;
use belfry_sip_proto::locate::{self, Locator, Protocol, Wanted};
use belfry_sip_proto::transaction::TransactionId;
use belfry_sip_proto::{HeaderName, NameAddr, Uri};

use super::forward::Trouble;
use crate::core::{Core, Done, now};
use crate::exchange::{Failure, NextHop, Place, Reach};
use crate::handle::Transport;
use crate::received::Received;
use crate::resolver::is_literal;
use crate::signals::{CallCause, SendFault};

impl NextHop {
    /// The server that a SIP URI names, by its host, port and transport.
    pub(crate) fn of_uri(uri: &Uri<'_>) -> Option<Self> {
        if !uri.is_sip() || uri.host().is_empty() {
            return None;
        }
        // `maddr` overrides the host for the next hop (RFC 3261 section 19.1.1).
        let host = uri.param("maddr").flatten().unwrap_or(uri.host());
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Some(Self {
            host: host.into(),
            port: uri.port(),
            transport: uri.transport().map(Transport::from_uri_token),
            is_secure: uri.as_str().get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("sips:")),
            edge: None,
        })
    }

    /// The server that the first of these Route values names.
    pub(crate) fn of_route(value: &str) -> Option<Self> {
        Self::of_uri(&NameAddr::parse(value.as_bytes())?.uri)
    }
}

impl Core {
    /// Finds out where a branch's next hop is, and sends the branch there.
    pub(super) fn locate(&mut self, id: TransactionId, branch: BranchIndex, next_hop: &NextHop) {
        let wanted = Wanted {
            host: next_hop.host.to_string(),
            port: next_hop.port,
            protocol: next_hop.transport.map(protocol_of),
            is_secure: next_hop.is_secure,
        };
        let dice = rand::random();
        let Some(known) = self.try_of(id, branch) else { return };
        let lookup = known.lookups;
        if is_literal(&wanted.host) {
            return self.on_located(id, branch, lookup, Locator::new(wanted, dice).places());
        }
        if self.lookups >= self.config.dns_lookups_max {
            let failure = Failure::ours(503, Room::Core, Cause::Overload, CallCause::Overload);
            return self.fail_try(id, branch, Trouble::Ours, failure);
        }
        self.lookups += 1;
        let resolver = self.resolver.clone();
        self.run_job(
            async move { Done::Located { id, branch, lookup, places: resolver.locate(wanted, dice).await } },
            Done::Located { id, branch, lookup, places: Vec::new() },
        );
    }

    /// It is known where a branch's next hop is. Where nobody answered lately is tried only when nothing else is left.
    pub(crate) fn on_located(
        &mut self,
        id: TransactionId,
        branch: BranchIndex,
        lookup: u32,
        places: Vec<locate::Place>,
    ) {
        // The branch may be on its way to another flow of the same phone by now.
        let Some(known) = self.try_of(id, branch).filter(|known| known.lookups == lookup) else { return };
        let Reach::NextHop(next_hop) = &known.destination.reach else { return };
        let name = Arc::clone(&next_hop.host);
        let now = now();
        let places = places.into_iter().map(|place| Place {
            transport: transport_of(place.protocol),
            address: place.address,
            name: Arc::clone(&name),
        });
        let (mut dead, alive): (Vec<Place>, Vec<Place>) =
            places.partition(|place| self.dead.is_dead(place.transport, place.address, now));
        let places = if alive.is_empty() { std::mem::take(&mut dead) } else { alive };
        let is_open = self.forward_of(id).is_some_and(|forward| forward.context.is_open(branch));
        if !is_open {
            // The caller gave up, or somebody else was faster.
            return;
        }
        if !self.is_wanted(id, branch) {
            // Another flow was to be tried, and meanwhile nobody wants that any more.
            let failure = Failure::plain(487, CallCause::Cancelled);
            return self.fail_try(id, branch, Trouble::Ours, failure);
        }
        if places.is_empty() {
            let failure = Failure::ours(503, Room::Core, Cause::Unreachable, CallCause::Unreachable);
            return self.fail_try(id, branch, Trouble::NotSent(SendFault::Unreachable), failure);
        }
        if let Some(known) = self.try_of(id, branch) {
            known.places = places.into();
        }
        self.send_to_next_place(id, branch);
    }

    /// Whether a branch is worth another request.
    fn is_wanted(&mut self, id: TransactionId, branch: BranchIndex) -> bool {
        !self.is_cancelled(id) && self.forward_of(id).is_some_and(|forward| forward.context.is_wanted(branch))
    }

    /// A next hop has something to do with why a request failed.
    pub(super) fn note_dead(&mut self, place: &Place, trouble: Trouble) {
        let is_dead = match trouble {
            Trouble::NotSent(fault) => fault == SendFault::Unreachable,
            Trouble::Silent => true,
            Trouble::Answered(status) => status == 503,
            Trouble::Ours => false,
        };
        if is_dead && self.dead.note(place.transport, place.address, now()) {
            self.signals.next_hop_died(place.transport, place.address, self.dead.len());
        }
    }

    /// Answers the challenge of a peer that knows us, in the caller's place; false when the peer does not, or does not
    /// believe us. CSeq stays as it is, because it is the caller's: peers that are meant for proxies accept that.
    pub(super) fn answer_challenge(
        &mut self,
        id: TransactionId,
        branch: BranchIndex,
        status: u16,
        response: &Received,
    ) -> bool {
        let (asked, header) = match status {
            401 => (HeaderName::WwwAuthenticate, HeaderName::Authorization),
            407 => (HeaderName::ProxyAuthenticate, HeaderName::ProxyAuthorization),
            _ => return false,
        };
        let is_wanted = self.is_wanted(id, branch);
        let Some(request) = self.request_of(id) else { return false };
        let body = self.forward_of(id).and_then(|forward| forward.body.clone());
        let Some(known) = self.try_of(id, branch).filter(|_| is_wanted) else { return false };
        let policy = known.destination.policy.clone();
        let Some(credentials) = policy.as_ref().and_then(|policy| policy.credentials.as_ref()) else {
            return false;
        };
        let challenge = response.message.headers(asked).find_map(|value| Challenge::parse(value).ok());
        let Some(challenge) = challenge.filter(|_| known.authorization.is_none()) else {
            // The caller cannot answer it either, and need not know: the peer is as good as broken.
            let failure = Failure::ours(500, Room::Core, Cause::ServerError, CallCause::ServerError);
            self.fail_try(id, branch, Trouble::Answered(500), failure);
            return true;
        };
        let cnonce = format!("{:016x}", rand::random::<u64>());
        let uri = known.destination.uri.as_deref().unwrap_or_else(|| request.message.request_uri());
        let answering = Answering {
            username: &credentials.username,
            password: &credentials.password,
            method: request.message.method(),
            uri,
            cnonce: &cnonce,
            nonce_count: 1,
        };
        let answer = challenge.answer_for(&answering, body.as_deref().unwrap_or(request.message.body()));
        known.authorization = Some((header, answer));
        match known.place.clone() {
            Some(place) => {
                known.places.push_front(place);
                self.send_to_next_place(id, branch);
            }
            None => self.reach(id, branch),
        }
        true
    }
}

pub(crate) fn protocol_of(transport: Transport) -> Protocol {
    match transport {
        Transport::Udp => Protocol::Udp,
        Transport::Tcp | Transport::Ws => Protocol::Tcp,
        Transport::Tls | Transport::Wss => Protocol::Tls,
    }
}

pub(crate) fn transport_of(protocol: Protocol) -> Transport {
    match protocol {
        Protocol::Udp => Transport::Udp,
        Protocol::Tcp => Transport::Tcp,
        Protocol::Tls => Transport::Tls,
    }
}
