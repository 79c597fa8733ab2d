//! The 2xx of an INVITE: the first one makes the call; the caller acknowledges it, and everybody else who picks up is
//! thanked and hung up on.
//!
//! The relay holds one session per call, with one description of the called side. So only one dialog can be heard, and
//! of several phones that pick up at the same moment the first wins; the caller never hears of the others, which get
//! their ACK and BYE from here. Where no relay is between them the caller gets every 2xx (RFC 3261 section 16.7
//! step 5), and each dialog finds its way by the tokens in its Route.

use belfry_sip_proto::HeaderName;
use belfry_sip_proto::build::Writer;
use belfry_sip_proto::forking::BranchIndex;
use belfry_sip_proto::transaction::TransactionId;

use super::forward::ANSWERED_ELSEWHERE;
use super::response::upstream;
use crate::calls::hop_of;
use crate::core::{Core, now};
use crate::exchange::BranchAnswer;
use crate::received::Received;
use crate::signals::MethodName;

/// Dialogs of one branch that are hung up on and remembered; a proxy behind us may have forked as well.
const LET_GO_MAX: usize = 16;

impl Core {
    /// A 2xx to an INVITE came, or came again.
    pub(super) fn on_answer(&mut self, exchange: TransactionId, id: TransactionId, response: Received) {
        let Some(branch) = self.branches.get_mut(&id) else { return };
        let tag = response.message.to_tag().unwrap_or_default();
        match &branch.answer {
            Some(answer) if &*answer.tag == tag => {
                match answer.forwarded.clone() {
                    // The callee repeats its 2xx because the ACK is not there yet: so do we (RFC 6026 section 8.4).
                    // The caller's transaction may be over; then nobody waits for it.
                    Some((status, bytes)) => drop(self.transactions.respond(exchange, status, bytes, now())),
                    // The relay still works on the first.
                    None if self.exchanges.contains_key(&exchange) => {}
                    None => self.on_other_answer(exchange, id, &response),
                }
            }
            Some(_) => self.on_other_answer(exchange, id, &response),
            None => {
                branch.answer = Some(BranchAnswer { tag: tag.into(), forwarded: None });
                let index = branch.index;
                let is_first =
                    self.forward_of(exchange).is_some_and(|forward| forward.context.on_success(index));
                if is_first {
                    self.give_up_successor(exchange, index, id);
                    self.act(exchange);
                    self.forward_response(exchange, id, response);
                } else {
                    self.on_other_answer(exchange, id, &response);
                }
            }
        }
    }

    /// An address that was given up on answers after all: whoever was tried in its place is let go.
    fn give_up_successor(&mut self, exchange: TransactionId, index: BranchIndex, id: TransactionId) {
        let current = self.try_of(exchange, index).and_then(|known| known.transaction);
        if let Some(current) = current.filter(|current| *current != id) {
            self.cancel_branch(current, Some(ANSWERED_ELSEWHERE.to_owned()));
        }
    }

    /// Somebody picked up after somebody else, or after the caller had its final answer.
    fn on_other_answer(&mut self, exchange: TransactionId, id: TransactionId, response: &Received) {
        let call = self.calls.get(response.call_id());
        let why = if call.is_some() { "answered elsewhere" } else { "caller is gone" };
        let is_free = call.is_some_and(|call| call.relay.is_none() && call.twin.is_none());
        let is_let_go = self.branches.get(&id).is_some_and(|branch| !branch.let_go.is_empty());
        if is_free && !is_let_go && self.branches.get(&id).is_some_and(|branch| branch.is_setup) {
            let (status, bytes) = (response.message.status().unwrap_or(200), upstream(response, None, None));
            if self.transactions.respond(exchange, status, bytes, now()).is_ok() {
                return;
            }
        }
        self.let_go_of_callee(id, response, why);
    }

    /// A 2xx goes to the caller: so do its repeats.
    pub(super) fn note_forwarded(&mut self, id: TransactionId, status: u16, bytes: &[u8]) {
        if let Some(answer) = self.branches.get_mut(&id).and_then(|branch| branch.answer.as_mut()) {
            answer.forwarded = Some((status, bytes.to_vec()));
        }
    }

    /// The call is answered, or changed.
    pub(super) fn note_answer(&mut self, exchange: TransactionId, response: &Received) {
        let Some(exchange) = self.exchanges.get(&exchange) else { return };
        let (key, is_setup) = (exchange.call.clone(), exchange.is_setup);
        let Some(key) = key else { return };
        if is_setup {
            // Of every dialog-forming response, two Record-Routes are ours.
            if self.calls.answered(&key, response, 2) {
                self.note_trunk_answer(&key);
                self.begin_paying(&key);
            }
        } else if let Some(call) = self.calls.get_mut(&key) {
            let leg = exchange.forward.as_ref().map(|forward| forward.from.other());
            if let Some(leg) = leg {
                call.party(leg).learn_contact(&response.message);
                call.party(leg).hop = Some(hop_of(response));
            }
        }
    }

    /// Whoever sent an INVITE never sees this 2xx to it. A call that did not come to be is hung up on; one whose change
    /// failed goes on, and its other side only needs the ACK. A 2xx that was passed on is acknowledged by its caller.
    pub(super) fn let_go_of_callee(&mut self, id: TransactionId, response: &Received, why: &str) {
        let tag = response.message.to_tag().unwrap_or_default();
        let Some(branch) = self.branches.get_mut(&id).filter(|known| known.method == MethodName::Invite)
        else {
            return;
        };
        let is_passed_on = |answer: &BranchAnswer| &*answer.tag == tag && answer.forwarded.is_some();
        if branch.answer.as_ref().is_some_and(is_passed_on) {
            return;
        }
        let is_known = branch.let_go.iter().any(|known| &**known == tag);
        if !is_known && branch.let_go.len() < LET_GO_MAX {
            branch.let_go.push(tag.into());
        }
        let is_hung_up = branch.is_setup && !is_known;
        self.thank_callee(id, response, is_hung_up.then_some(why));
    }

    /// The ACK that a caller will not send, and with a reason the BYE too.
    fn thank_callee(&mut self, branch: TransactionId, response: &Received, bye: Option<&str>) {
        // In its own words, when its dialog is not the caller's.
        let message = response.original.as_deref().unwrap_or(&response.message);
        let contact = message.contacts().next();
        let Some(contact) = contact.as_ref().and_then(|contact| contact.address()) else { return };
        let Some(cseq) = message.cseq() else { return };
        // Above our own two Record-Routes stand those of proxies between us and the callee.
        let routes: Vec<String> = message
            .routes(HeaderName::RecordRoute)
            .take_while(|route| !self.edges.is_ours(&route.uri))
            .map(|route| format!("<{}>", route.uri))
            .collect();
        let requests = [(MethodName::Ack, cseq.number), (MethodName::Bye, cseq.number.saturating_add(1))];
        for (method, number) in requests.into_iter().take(if bye.is_some() { 2 } else { 1 }) {
            let mut writer = Writer::request(method.wire(), contact.uri.as_str());
            for route in routes.iter().rev() {
                writer = writer.header(HeaderName::Route, route);
            }
            writer = writer
                .header(HeaderName::MaxForwards, "70")
                .copy(message, HeaderName::From)
                .copy(message, HeaderName::To)
                .copy(message, HeaderName::CallId)
                .header(HeaderName::CSeq, &format!("{number} {}", method.wire()));
            if let Some(why) = bye.filter(|_| method == MethodName::Bye) {
                writer = writer.header(HeaderName::Reason, &format!("SIP;cause=503;text=\"{why}\""));
            }
            self.send_own(method, &hop_of(response), &writer.finish());
        }
        self.branch_ended(branch, 200);
    }
}
