//! Responses on their way back (RFC 3261 section 16.7).

use belfry_sip_proto::forking::BranchIndex;
use belfry_sip_proto::transaction::{ClientKey, OnResponse, TransactionId};
use belfry_sip_proto::{Edit, HeaderName, Limits, OwnedMessage};

use super::forward::Trouble;
use crate::core::{Core, now};
use crate::exchange::Failure;
use crate::received::Received;
use crate::signals::{CallCause, MethodName};

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
        if let OnResponse::ToUser(id) = outcome
            && self.is_probe_answer(id, &response)
        {
            return;
        }
        self.tell_with_call(outcome, &mut response);
        self.message_received(&mut response, matches!(outcome, OnResponse::Absorbed(_)));
        match outcome {
            OnResponse::ToUser(id) => self.on_branch_response(id, status, response),
            OnResponse::Absorbed(_) => {}
            OnResponse::Stray => self.signals.response_was_stray(),
        }
    }

    fn on_branch_response(&mut self, id: TransactionId, status: u16, response: Received) {
        let Some(branch) = self.branches.get_mut(&id) else { return };
        let is_first = !std::mem::replace(&mut branch.was_heard, true);
        let (exchange, index, method) = (branch.exchange, branch.index, branch.method);
        if let Some(address) = branch.way.peer.filter(|_| is_first && status != 503) {
            let transport = branch.way.transport;
            if self.dead.answered(transport, address) {
                self.signals.next_hop_came_back(transport, address, self.dead.len());
            }
        }
        if status < 200 {
            // Now it may be cancelled.
            self.send_cancel(id);
        } else {
            if status >= 300 && method == MethodName::Invite {
                self.acknowledge_failure(id, &response);
            }
            self.branch_ended(id, status);
        }
        let response = self.unmask_response(id, response);
        let Some(exchange) = exchange else { return };
        let is_answer = (200..300).contains(&status);
        if !is_answer && !self.is_current(exchange, index, id) {
            return;
        }
        match status {
            0..200 => self.on_provisional(exchange, index, id, status, response),
            200..300 if method == MethodName::Invite => self.on_answer(exchange, id, response),
            200..300 => self.on_success(exchange, index, id, response),
            _ => self.on_failure(exchange, index, status, &response),
        }
    }

    /// The ladder has what came on the other side of a call with two dialogs with that call.
    fn tell_with_call(&self, outcome: OnResponse, response: &mut Received) {
        let (OnResponse::ToUser(id) | OnResponse::Absorbed(id)) = outcome else { return };
        let Some(branch) = self.branches.get(&id) else { return };
        if response.call_id() != &*branch.way.call_id {
            response.trace_id = branch.way.trace_id;
            response.told_as = Some(branch.way.call_id.clone());
        }
    }

    fn on_provisional(
        &mut self,
        exchange: TransactionId,
        index: BranchIndex,
        branch: TransactionId,
        status: u16,
        response: Received,
    ) {
        let Some(forward) = self.forward_of(exchange) else { return };
        // Of other requests none but our own 100 goes back (RFC 4320 section 4.1).
        if !forward.context.on_provisional(index, status, now()) || response.method != MethodName::Invite {
            return;
        }
        self.note_early_dialog(exchange, index, status, response.message.to_tag());
        if self.exchanges.get(&exchange).is_some_and(|exchange| exchange.is_setup) {
            self.note_ringing(exchange);
        }
        self.forward_response(exchange, branch, response);
    }

    /// The called side showed a first sign of life.
    fn note_ringing(&mut self, exchange: TransactionId) {
        let moment = self.moment();
        let key = self.exchanges.get(&exchange).and_then(|exchange| exchange.call.clone());
        if let Some(call) = key.and_then(|key| self.calls.get_mut(&key)) {
            let waited = call.waited(moment);
            call.post_dial.get_or_insert(waited);
        }
    }

    /// A request other than INVITE was answered: the first answer counts.
    fn on_success(
        &mut self,
        exchange: TransactionId,
        index: BranchIndex,
        branch: TransactionId,
        response: Received,
    ) {
        let Some(forward) = self.forward_of(exchange) else { return };
        if forward.context.on_success(index) {
            self.act(exchange);
            self.forward_response(exchange, branch, response);
        }
    }

    /// Sends a response on, through the relay when it carries a session description.
    pub(super) fn forward_response(
        &mut self,
        exchange: TransactionId,
        branch: TransactionId,
        response: Received,
    ) {
        if let Some(response) = self.anchor_response(exchange, branch, response) {
            self.pass_on(exchange, branch, &response, None);
        }
    }

    /// Sends a response on; the description replaces its own.
    pub(super) fn pass_on(
        &mut self,
        exchange: TransactionId,
        branch: TransactionId,
        response: &Received,
        sdp: Option<&[u8]>,
    ) {
        let status = response.message.status().unwrap_or_default();
        let session = self.session_answer(exchange, response);
        let bytes = self.masked_answer(exchange, upstream(response, sdp, session.as_deref()));
        let is_answer = (200..300).contains(&status) && response.method == MethodName::Invite;
        if !self.exchanges.contains_key(&exchange) {
            if is_answer {
                self.let_go_of_callee(branch, response, "caller is gone");
            }
            return;
        }
        if is_answer {
            self.note_forwarded(branch, status, &bytes);
            self.note_answer(exchange, response);
        }
        if (200..300).contains(&status) {
            self.note_session(exchange, response);
        }
        self.reply(exchange, Failure { status, bytes: Some(bytes), fault: None, cause: None });
    }

    fn on_failure(&mut self, exchange: TransactionId, index: BranchIndex, status: u16, response: &Received) {
        if !self.exchanges.contains_key(&exchange) || self.answer_challenge(exchange, index, status, response)
        {
            return;
        }
        if (300..400).contains(&status) && self.follow_redirect(exchange, index, response) {
            return;
        }
        let failure = match status {
            // The called side's trouble is not this house's: 503 upstream would say that we serve nobody
            // (RFC 3261 section 16.7 step 6).
            503 => Failure::plain(500, CallCause::Rejected),
            _ => {
                let bytes = self.masked_answer(exchange, upstream(response, None, None));
                Failure { status, bytes: Some(bytes), fault: None, cause: None }
            }
        };
        self.fail_try(exchange, index, Trouble::Answered(status), failure);
    }
}

/// A response without our Via, and with another session description and a session timer when they are given.
pub(super) fn upstream(response: &Received, sdp: Option<&[u8]>, session: Option<&str>) -> Vec<u8> {
    let mut edit = Edit::new(&response.message).remove_top(HeaderName::Via);
    if let Some(session) = session {
        edit = edit.append(HeaderName::SessionExpires.as_str(), session);
        edit = edit.append(HeaderName::Require.as_str(), "timer");
    }
    match sdp {
        Some(sdp) => edit.set_body(None, &response.body_with(sdp)).finish(),
        None => edit.finish(),
    }
}

impl Failure {
    /// A challenge with the challenges of other branches (RFC 3261 section 16.7 step 7).
    pub(super) fn with_challenges(mut self, others: &[Self]) -> Self {
        let limits = Limits::default();
        let read = |bytes: &Option<Vec<u8>>| OwnedMessage::scan(bytes.clone().unwrap_or_default(), &limits).0;
        let Some(message) = read(&self.bytes) else { return self };
        let others: Vec<OwnedMessage> = others.iter().filter_map(|other| read(&other.bytes)).collect();
        let mut edit = Edit::new(&message);
        for name in [HeaderName::WwwAuthenticate, HeaderName::ProxyAuthenticate] {
            for value in others.iter().flat_map(|other| other.headers(name)) {
                edit = edit.append(name.as_str(), &String::from_utf8_lossy(value));
            }
        }
        self.bytes = Some(edit.finish());
        self
    }
}
