//! Responses on their way back (RFC 3261 section 16.7).

use belfry_signal::record::SpanKind;
use belfry_signal::{Cause, Room};
use belfry_sip_proto::transaction::{ClientKey, OnResponse, TransactionId};
use belfry_sip_proto::{Edit, HeaderName, Limits, OwnedMessage, build};

use crate::calls::hop_of;
use crate::core::{Core, now};
use crate::exchange::Failure;
use crate::received::Received;
use crate::signals::{CallCause, Ended, MethodName};

impl Core {
    pub(super) fn on_response(&mut self, mut response: Received) {
        if let Some(fault) = response.fault {
            self.message_received(&mut response, false);
            return self.signals.message_malformed(fault.reason(), response.source);
        }
        if self.is_keepalive_answer(&response) {
            return;
        }
        let status = response.message.status().unwrap_or_default();
        let branch = response.message.top_via().and_then(|via| via.branch().map(str::to_owned));
        let key = ClientKey::new(branch.unwrap_or_default().as_bytes(), response.message.method().as_bytes());
        let outcome = self.transactions.on_response(&key, status, now());
        self.message_received(&mut response, matches!(outcome, OnResponse::Absorbed(_)));
        match outcome {
            OnResponse::ToUser(id) => self.on_branch_response(id, status, response),
            OnResponse::Absorbed(_) => {}
            OnResponse::Stray => self.signals.response_was_stray(),
        }
    }

    fn on_branch_response(&mut self, id: TransactionId, status: u16, response: Received) {
        let Some(branch) = self.branches.get_mut(&id) else { return };
        branch.was_heard = true;
        let (exchange, method) = (branch.exchange, branch.method);
        if let Some((status, answer)) = branch.answer.clone().filter(|_| status >= 200) {
            // The callee repeats its 2xx because the ACK is not there yet: so do we (RFC 6026 section 8.4).
            return self.repeat_answer(exchange, status, answer);
        }
        let is_answer = (200..300).contains(&status) && method == MethodName::Invite;
        let is_repeat = is_answer && std::mem::replace(&mut branch.is_answered, true);
        if is_repeat && exchange.is_some_and(|id| self.exchanges.contains_key(&id)) {
            // The relay still works on the first.
            return;
        }
        if status >= 300 && method == MethodName::Invite {
            self.acknowledge_failure(id, &response);
        }
        if status >= 200 {
            self.branch_ended(id, status);
        }
        let Some(exchange) = exchange else { return };
        if !self.exchanges.contains_key(&exchange) {
            return self.on_late_response(id, status, &response);
        }
        match status {
            0..=100 => self.cancel_if_wanted(exchange),
            101..200 => self.on_provisional(exchange, id, response),
            200..300 => self.forward_response(exchange, id, response),
            _ => self.on_failure(exchange, status, &response),
        }
    }

    fn on_provisional(&mut self, exchange: TransactionId, branch: TransactionId, response: Received) {
        self.cancel_if_wanted(exchange);
        if self.exchanges.get(&exchange).is_some_and(|exchange| exchange.is_setup) {
            self.arm_ring_timer(exchange);
            self.note_ringing(exchange);
        }
        self.forward_response(exchange, branch, response);
    }

    /// The called side showed a first sign of life.
    fn note_ringing(&mut self, exchange: TransactionId) {
        let key = self.exchanges.get(&exchange).and_then(|exchange| exchange.call.clone());
        if let Some(call) = key.and_then(|key| self.calls.get_mut(&key)) {
            let waited = now().saturating_duration_since(call.began);
            call.post_dial.get_or_insert(waited);
        }
    }

    /// Sends a response on, through the relay when it carries a session description.
    fn forward_response(&mut self, exchange: TransactionId, branch: TransactionId, response: Received) {
        if let Some(response) = self.anchor_response(exchange, branch, response) {
            self.pass_on(exchange, branch, &response, None);
        }
    }

    /// Sends a response on; the body replaces its own.
    pub(super) fn pass_on(
        &mut self,
        exchange: TransactionId,
        branch: TransactionId,
        response: &Received,
        body: Option<&[u8]>,
    ) {
        let status = response.message.status().unwrap_or_default();
        let bytes = upstream(response, body);
        let is_success = (200..300).contains(&status);
        if !self.exchanges.contains_key(&exchange) {
            return self.on_late_response(branch, status, response);
        }
        if is_success && response.method == MethodName::Invite {
            if let Some(branch) = self.branches.get_mut(&branch) {
                branch.answer = Some((status, bytes.clone()));
            }
            self.note_answer(exchange, response);
        }
        self.reply(exchange, Failure { status, bytes: Some(bytes), fault: None, cause: None });
    }

    fn note_answer(&mut self, exchange: TransactionId, response: &Received) {
        let Some(exchange) = self.exchanges.get(&exchange) else { return };
        let (key, is_setup) = (exchange.call.clone(), exchange.is_setup);
        let Some(key) = key else { return };
        if is_setup {
            // Of every dialog-forming response, two Record-Routes are ours.
            self.calls.answered(&key, response, 2);
        } else if let Some(call) = self.calls.get_mut(&key) {
            let leg = exchange.forward.as_ref().map(|forward| forward.from.other());
            if let Some(leg) = leg {
                call.party(leg).learn_contact(&response.message);
                call.party(leg).hop = Some(hop_of(response));
            }
        }
    }

    /// The caller has had its final answer. A phone that picks up now must not wait for a caller that is gone.
    fn on_late_response(&mut self, branch: TransactionId, status: u16, response: &Received) {
        if (200..300).contains(&status) {
            self.let_go_of_callee(branch, response, "caller is gone");
        }
    }

    fn repeat_answer(&mut self, exchange: Option<TransactionId>, status: u16, answer: Vec<u8>) {
        if let Some(exchange) = exchange {
            // The caller's transaction may be over; then nobody waits for it.
            let _ = self.transactions.respond(exchange, status, answer, now());
        }
    }

    fn on_failure(&mut self, exchange: TransactionId, status: u16, response: &Received) {
        let bytes = upstream(response, None);
        let mut failure = Failure { status, bytes: Some(bytes), fault: None, cause: None };
        if status == 503 {
            // The called phone's trouble is not this house's: 503 upstream would say that we serve nobody
            // (RFC 3261 section 16.7 step 6).
            failure = Failure::plain(500, CallCause::Rejected);
        }
        let is_settled = status >= 600 || self.exchanges.get(&exchange).is_some_and(|e| e.is_cancelled);
        if is_settled && let Some(forward) = self.forward_of(exchange) {
            forward.destinations.clear();
            forward.best = None;
        }
        self.branch_failed(Some(exchange), failure);
    }

    /// The ACK of a failure is ours to send, hop by hop (RFC 3261 section 17.1.1.3).
    fn acknowledge_failure(&mut self, id: TransactionId, response: &Received) {
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

    /// Nobody answered a branch (Timer B or F), or nobody answered its CANCEL.
    pub(crate) fn on_branch_timeout(&mut self, id: TransactionId) {
        let Some(branch) = self.branches.get(&id) else { return };
        let (exchange, was_heard, is_cancelled) = (branch.exchange, branch.was_heard, branch.is_cancelled);
        self.branch_ended(id, 408);
        let has_caller_given_up = exchange.is_some_and(|id| self.is_cancelled(id));
        let failure = if is_cancelled || has_caller_given_up {
            Failure::plain(487, CallCause::Cancelled)
        } else if was_heard {
            Failure::plain(408, CallCause::NoAnswer)
        } else {
            Failure::ours(408, Room::Core, Cause::Timeout, CallCause::Unreachable)
        };
        self.branch_failed(exchange, failure);
    }

    /// Timer C: it rang long enough (RFC 3261 section 16.8).
    pub(crate) fn on_ring_timeout(&mut self, id: TransactionId) {
        let Some(forward) = self.forward_of(id) else { return };
        forward.ring = None;
        let Some(branch) = forward.branch else { return };
        forward.destinations.clear();
        forward.best = Some(Failure::plain(408, CallCause::NoAnswer));
        self.cancel_branch(branch, None);
        self.try_next(id);
    }
}

/// A response without our Via, and with another body when one is given.
fn upstream(response: &Received, body: Option<&[u8]>) -> Vec<u8> {
    let edit = Edit::new(&response.message).remove_top(HeaderName::Via);
    match body {
        Some(body) => edit.set_body(None, body).finish(),
        None => edit.finish(),
    }
}
