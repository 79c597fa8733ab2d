//! Requests that we send: their client transactions, from the first byte to the last repeat.

use std::sync::Arc;

use belfry_signal::record::SpanKind;
use belfry_signal::{Cause, Room, SpanContext, now_unix_nanos};
use belfry_sip_proto::forking::BranchIndex;
use belfry_sip_proto::transaction::{ClientKey, ClientRequest, MethodKind, TransactionId};
use belfry_sip_proto::{Edit, HeaderName, Limits, OwnedMessage, build};

use super::forward::Trouble;
use super::prepare::{Prepared, via_value, way_to};
use crate::core::{Core, now};
use crate::edges::Hop;
use crate::exchange::{Branch, Failure};
use crate::handle::Target;
use crate::received::Received;
use crate::signals::{CallCause, Ended, MethodName, SendFault};

impl Core {
    /// Sends a request of our own making along a hop, with a Via of ours; answers to it interest nobody.
    pub(crate) fn send_own(&mut self, method: MethodName, hop: &Hop, bytes: &[u8]) {
        let Some(message) = OwnedMessage::scan(bytes.to_vec(), &Limits::default()).0 else { return };
        let Some(address) = self.edges.address(&hop.edge, hop.transport) else {
            return;
        };
        let branch = self.new_branch(0);
        let via = via_value(hop.transport.via_token(), &address.host, address.port, &branch);
        let bytes = Edit::new(&message).prepend(HeaderName::Via, &via).finish();
        let call_id = message.call_id().unwrap_or_default();
        // What leaves for the other side of a call with two dialogs is told with that call.
        let call_id = self.calls.twins().call_of(call_id).map_or(call_id, |key| &**key);
        let trace_id = self.trace_key.trace_of_call(call_id);
        let (span, _) = self.span_of(call_id, trace_id);
        let way = way_to(hop, method, &message, call_id, trace_id);
        if method == MethodName::Ack {
            return self.send_plain(&way, bytes);
        }
        // A full layer loses a BYE of ours; the phone will find out by itself.
        let _ = self.start_branch(Prepared { way, branch, bytes }, None, span);
    }

    /// Starts a client transaction for a branch of an exchange, or for nobody; the error is that there is no room.
    pub(crate) fn start_branch(
        &mut self,
        prepared: Prepared,
        of: Option<(TransactionId, BranchIndex)>,
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
        let exchange = of.map(|(exchange, _)| exchange);
        let branch = Branch {
            exchange,
            index: of.map_or(BranchIndex(0), |(_, index)| index),
            is_setup: is_invite && self.is_setup(exchange),
            method,
            way,
            sent: if is_invite { bytes } else { Vec::new() },
            span: parent.child(),
            parent: parent.span_id,
            start_unix_nanos: now_unix_nanos(),
            was_heard: false,
            unwanted: None,
            is_cancelled: false,
            answer: None,
            let_go: Vec::new(),
            is_over: false,
        };
        self.branches.insert(id, branch);
        Ok(id)
    }

    pub(super) fn is_setup(&self, exchange: Option<TransactionId>) -> bool {
        exchange.and_then(|id| self.exchanges.get(&id)).is_some_and(|exchange| exchange.is_setup)
    }

    /// The ACK of a failure is ours to send, hop by hop (RFC 3261 section 17.1.1.3).
    pub(super) fn acknowledge_failure(&mut self, id: TransactionId, response: &Received) {
        let Some(branch) = self.branches.get(&id) else { return };
        if let Some(invite) = OwnedMessage::scan(branch.sent.clone(), &Limits::default()).0 {
            let ack = build::ack_to(&invite, &response.message);
            self.transactions.acknowledge(id, ack, now());
        }
    }

    /// A branch has its final response, or will never have one; its span ends.
    pub(crate) fn branch_ended(&mut self, id: TransactionId, status: u16) {
        let Some(branch) = self.branches.get_mut(&id) else { return };
        if std::mem::replace(&mut branch.is_over, true) {
            return;
        }
        let ended = Ended {
            context: branch.span,
            parent: Some(branch.parent),
            call_id: &branch.way.call_id,
            start_unix_nanos: branch.start_unix_nanos,
            status,
        };
        self.signals.transaction_ended(ended, branch.method, SpanKind::Client);
    }

    /// A request of a branch did not leave its edge.
    pub(crate) fn on_branch_unsendable(&mut self, id: TransactionId, fault: SendFault) {
        let Some(branch) = self.branches.get(&id) else { return };
        let (exchange, index, way) = (branch.exchange, branch.index, Arc::clone(&branch.way));
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
        if let Some(exchange) = exchange.filter(|exchange| self.is_current(*exchange, index, id)) {
            self.fail_try(exchange, index, Trouble::NotSent(fault), failure);
        }
    }

    /// Nobody answered a branch (Timer B or F), or nobody answered its CANCEL.
    pub(crate) fn on_branch_timeout(&mut self, id: TransactionId) {
        let Some(branch) = self.branches.get(&id) else { return };
        let (exchange, index) = (branch.exchange, branch.index);
        let (was_heard, is_unwanted) = (branch.was_heard, branch.unwanted.is_some());
        self.branch_ended(id, 408);
        let has_caller_given_up = exchange.is_some_and(|id| self.is_cancelled(id));
        let failure = if is_unwanted || has_caller_given_up {
            Failure::plain(487, CallCause::Cancelled)
        } else if was_heard {
            Failure::plain(408, CallCause::NoAnswer)
        } else {
            silence()
        };
        if let Some(exchange) = exchange.filter(|exchange| self.is_current(*exchange, index, id)) {
            let trouble = if was_heard { Trouble::Answered(failure.status) } else { Trouble::Silent };
            self.fail_try(exchange, index, trouble, failure);
        }
    }
}

/// Nothing was ever heard of a destination.
pub(super) fn silence() -> Failure {
    Failure::ours(408, Room::Core, Cause::Timeout, CallCause::Unreachable)
}
