//! Sending a request on: the edits of RFC 3261 section 16.6, the branch, and what happens when it cannot leave.

use std::sync::Arc;

use belfry_relay_api::Leg;
use belfry_signal::{Cause, Room, SpanContext, TraceId, now_unix_nanos};
use belfry_sip_proto::digest::Credentials;
use belfry_sip_proto::transaction::{ClientKey, ClientRequest, MethodKind, TransactionId};
use belfry_sip_proto::{Edit, HeaderName, Limits, OwnedMessage, Via};

use crate::calls::hop_of;
use crate::core::{Alarm, Core, now};
use crate::edges::Way;
use crate::exchange::{Branch, Destination, Failure, Forward};
use crate::handle::Target;
use crate::received::Received;
use crate::signals::{CallCause, MethodName, SendFault};

/// A request ready to leave.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) way: Arc<Way>,
    pub(crate) branch: String,
    pub(crate) bytes: Vec<u8>,
}

impl Core {
    /// Tries the next destination of an exchange; without one, sends back the best failure.
    pub(crate) fn try_next(&mut self, id: TransactionId) {
        loop {
            let Some(exchange) = self.exchanges.get_mut(&id) else { return };
            let Some(forward) = exchange.forward.as_mut() else { return };
            let is_wanted = !exchange.is_cancelled;
            let Some(destination) = forward.destinations.pop_front().filter(|_| is_wanted) else {
                let best = forward.best.take();
                let fallback = if exchange.is_cancelled {
                    Failure::plain(487, CallCause::Cancelled)
                } else {
                    Failure::plain(480, CallCause::NotRegistered)
                };
                return self.fail(id, best.unwrap_or(fallback));
            };
            if let Err(failure) = self.send_branch(id, &destination) {
                self.note_failure(id, failure);
                continue;
            }
            return;
        }
    }

    /// Keeps the better of the failures seen so far (RFC 3261 section 16.7 step 6).
    pub(crate) fn note_failure(&mut self, id: TransactionId, failure: Failure) {
        let Some(forward) = self.exchanges.get_mut(&id).and_then(|exchange| exchange.forward.as_mut()) else {
            return;
        };
        if forward.best.as_ref().is_none_or(|best| failure.rank() < best.rank()) {
            forward.best = Some(failure);
        }
    }

    fn send_branch(&mut self, id: TransactionId, destination: &Destination) -> Result<(), Failure> {
        let gone = || Failure::plain(480, CallCause::NotRegistered);
        let exchange = self.exchanges.get(&id).ok_or_else(gone)?;
        let request = Arc::clone(&exchange.request);
        let forward = exchange.forward.as_ref().ok_or_else(gone)?;
        let (used, is_recorded, body) = (forward.routes_used, forward.is_recorded, forward.body.clone());
        if self.is_looping(&request, destination) {
            return Err(Failure::plain(482, CallCause::Rejected));
        }
        let prepared = self
            .prepare(&request, destination, used, is_recorded, body.as_deref())
            .ok_or_else(|| Failure::ours(503, Room::Edge, Cause::Unreachable, CallCause::ServerError))?;
        let span = self.exchanges.get(&id).map_or_else(SpanContext::new_root, |exchange| exchange.span);
        let branch = self
            .start_branch(prepared, Some(id), span)
            .map_err(|()| Failure::ours(503, Room::Core, Cause::Overload, CallCause::Overload))?;
        if let Some(forward) = self.forward_of(id) {
            forward.branch = Some(branch);
        }
        if request.method == MethodName::Invite {
            self.arm_ring_timer(id);
        }
        Ok(())
    }

    /// Sends a request of our own making along a destination, with a Via of ours; answers to it interest nobody.
    pub(crate) fn send_own(&mut self, method: MethodName, destination: Destination, bytes: &[u8]) {
        let Some(message) = OwnedMessage::scan(bytes.to_vec(), &Limits::default()).0 else { return };
        let Some(address) = self.edges.address(&destination.hop.edge, destination.hop.transport) else {
            return;
        };
        let branch = self.new_branch(0);
        let via = via_value(destination.hop.transport.via_token(), &address.host, address.port, &branch);
        let bytes = Edit::new(&message).prepend(HeaderName::Via, &via).finish();
        let call_id = message.call_id().unwrap_or_default();
        let trace_id = self.trace_key.trace_of_call(call_id);
        let (span, _) = self.span_of(call_id, trace_id);
        let way = way_to(&destination, method, &message, trace_id);
        if method == MethodName::Ack {
            return self.send_plain(&way, bytes);
        }
        // A full layer loses a BYE of ours; the phone will find out by itself.
        let _ = self.start_branch(Prepared { way, branch, bytes }, None, span);
    }

    /// Starts a client transaction; the error is that there is no room.
    pub(crate) fn start_branch(
        &mut self,
        prepared: Prepared,
        exchange: Option<TransactionId>,
        parent: SpanContext,
    ) -> Result<TransactionId, ()> {
        let Prepared { way, branch, bytes } = prepared;
        let method = way.method;
        let is_invite = method == MethodName::Invite;
        let wire_method = way.cseq.split(' ').next_back().unwrap_or_default();
        let request = ClientRequest {
            key: ClientKey::new(branch.as_bytes(), wire_method.as_bytes()),
            method: if is_invite { MethodKind::Invite } else { MethodKind::Other },
            path: Arc::clone(&way),
            is_reliable: way.transport.is_reliable(),
            bytes: bytes.clone(),
        };
        let id = self.transactions.send(request, now()).map_err(|_| ())?;
        let branch = Branch {
            exchange,
            is_setup: is_invite && self.is_setup(exchange),
            is_answered: false,
            method,
            way,
            sent: if is_invite { bytes } else { Vec::new() },
            span: parent.child(),
            parent: parent.span_id,
            start_unix_nanos: now_unix_nanos(),
            was_heard: false,
            is_cancelled: false,
            answer: None,
            is_over: false,
        };
        self.branches.insert(id, branch);
        Ok(id)
    }

    /// The edits of RFC 3261 section 16.6; `None` when the destination's edge is unknown.
    pub(crate) fn prepare(
        &self,
        request: &Received,
        destination: &Destination,
        routes_used: usize,
        is_recorded: bool,
        body: Option<&[u8]>,
    ) -> Option<Prepared> {
        let message = &request.message;
        let hop = &destination.hop;
        let address = self.edges.address(&hop.edge, hop.transport)?;
        let branch = self.new_branch(self.loop_mark(request, destination));
        let via = via_value(hop.transport.via_token(), &address.host, address.port, &branch);
        let hops = message.max_forwards().map_or(70, |hops| hops.saturating_sub(1));
        let mut edit = Edit::new(message).set_max_forwards(hops).prepend(HeaderName::Via, &via);
        if routes_used > 0 {
            edit = edit.remove_top_values(HeaderName::Route, routes_used);
        }
        for value in destination.path.iter().rev() {
            edit = edit.prepend(HeaderName::Route, value);
        }
        if is_recorded {
            // The caller's side first, so that the callee's stands on top (RFC 5658 section 4).
            for (hop, leg) in [(&hop_of(request), Leg::Caller), (hop, Leg::Callee)] {
                if let Some(route) = self.route_of(hop, leg, request.call_id()) {
                    edit = edit.prepend(HeaderName::RecordRoute, &route);
                }
            }
        }
        if let Some(uri) = &destination.uri {
            edit = edit.set_request_uri(uri);
        }
        if self.holds_only_our_credentials(message) {
            edit = edit.remove(HeaderName::ProxyAuthorization);
        }
        if let Some(body) = body {
            edit = edit.set_body(None, body);
        }
        let way = way_to(destination, request.method, message, request.trace_id);
        Some(Prepared { way, branch, bytes: edit.finish() })
    }

    /// Credentials for us need not travel on to the called phone (RFC 3261 section 22.3).
    fn holds_only_our_credentials(&self, message: &OwnedMessage) -> bool {
        let mut values = message.headers(HeaderName::ProxyAuthorization).peekable();
        values.peek().is_some()
            && values.all(|value| {
                Credentials::parse(value)
                    .is_ok_and(|credentials| self.config.domains.contains(&credentials.realm.into_owned()))
            })
    }

    fn new_branch(&self, mark: u64) -> String {
        format!("z9hG4bK{:016x}.{mark:016x}", rand::random::<u64>())
    }

    /// What a request looks like when it comes back unchanged (RFC 3261 section 16.6 step 8, RFC 5393 section 4).
    fn loop_mark(&self, request: &Received, destination: &Destination) -> u64 {
        let message = &request.message;
        let uri = destination.uri.as_deref().unwrap_or_else(|| message.request_uri());
        let routes: Vec<&[u8]> = message.headers(HeaderName::Route).collect();
        let cseq = message.cseq().map_or(0, |cseq| cseq.number);
        self.hash(LoopParts {
            call_id: request.call_id(),
            from_tag: message.from_tag(),
            to_tag: message.to_tag(),
            cseq,
            uri,
            routes: &routes,
        })
    }

    /// Whether this request would leave as it left before (RFC 3261 section 16.3 step 4).
    fn is_looping(&self, request: &Received, destination: &Destination) -> bool {
        let mark = format!(".{:016x}", self.loop_mark(request, destination));
        let vias = request.message.headers(HeaderName::Via).filter_map(Via::parse);
        vias.filter_map(|via| via.branch()).any(|branch| branch.ends_with(&mark))
    }

    /// Timer C, set anew (RFC 3261 section 16.6 step 11, section 16.7 step 2).
    pub(crate) fn arm_ring_timer(&mut self, id: TransactionId) {
        let key = self.timers.set(now() + self.config.ring_timeout, Alarm::Ring(id));
        let before = self.forward_of(id).and_then(|forward| forward.ring.replace(key));
        if let Some(before) = before {
            self.timers.stop(before);
        }
    }

    /// A request of a branch did not leave its edge.
    pub(crate) fn on_branch_unsendable(&mut self, id: TransactionId, fault: SendFault) {
        let Some(branch) = self.branches.get(&id) else { return };
        let (exchange, way) = (branch.exchange, Arc::clone(&branch.way));
        let failure = match fault {
            SendFault::FlowGone | SendFault::BadToken => {
                // RFC 5626 section 5.3: 430; this flow is of no use to anybody any more.
                if let Target::Flow(flow) = &way.target {
                    self.on_flow_closed(&way.edge, flow);
                }
                Failure::plain(if self.is_setup(exchange) { 480 } else { 430 }, CallCause::FlowGone)
            }
            SendFault::QueueFull => Failure::ours(503, Room::Edge, Cause::Overload, CallCause::Overload),
            SendFault::Unreachable | SendFault::UnsupportedTransport | SendFault::EdgeLink => {
                Failure::ours(503, Room::Edge, Cause::Unreachable, CallCause::ServerError)
            }
        };
        self.branch_ended(id, 0);
        self.branch_failed(exchange, failure);
    }

    fn is_setup(&self, exchange: Option<TransactionId>) -> bool {
        exchange.and_then(|id| self.exchanges.get(&id)).is_some_and(|exchange| exchange.is_setup)
    }

    /// A branch came to nothing: on to the next destination.
    pub(crate) fn branch_failed(&mut self, exchange: Option<TransactionId>, failure: Failure) {
        let Some(id) = exchange else { return };
        if let Some(forward) = self.forward_of(id) {
            forward.branch = None;
        }
        self.note_failure(id, failure);
        self.try_next(id);
    }

    pub(crate) fn forward_of(&mut self, id: TransactionId) -> Option<&mut Forward> {
        self.exchanges.get_mut(&id)?.forward.as_mut()
    }
}

#[derive(Hash)]
struct LoopParts<'a> {
    call_id: &'a str,
    from_tag: Option<&'a str>,
    to_tag: Option<&'a str>,
    cseq: u32,
    uri: &'a str,
    routes: &'a [&'a [u8]],
}

fn way_to(
    destination: &Destination,
    method: MethodName,
    message: &OwnedMessage,
    trace_id: TraceId,
) -> Arc<Way> {
    let call_id = message.call_id().unwrap_or_default();
    let cseq = message.cseq().map_or_else(String::new, |cseq| format!("{} {}", cseq.number, cseq.method));
    Arc::new(Way {
        edge: Arc::clone(&destination.hop.edge),
        target: destination.hop.target.clone(),
        transport: destination.hop.transport,
        peer: destination.hop.peer,
        method,
        call_id: call_id.into(),
        trace_id,
        cseq: cseq.into(),
    })
}

fn via_value(transport: &str, host: &str, port: u16, branch: &str) -> String {
    format!("SIP/2.0/{transport} {host}:{port};branch={branch}")
}
