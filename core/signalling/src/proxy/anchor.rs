//! Anchoring: session descriptions go through the relay before they go on (RFC 3264 offers and answers).

use std::sync::Arc;

use belfry_relay_api::{Description, Leg, Refusal, Reply, Request, SessionKey};
use belfry_signal::{Cause, Room};
use belfry_sip_proto::transaction::TransactionId;

use crate::core::{Alarm, Core, Then, now};
use crate::exchange::{CallKey, Failure};
use crate::received::Received;
use crate::relays::Waiting;
use crate::signals::{CallCause, MethodName, RelayOutcome};

/// Whether a description offers or answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Offer,
    Answer,
}

impl Core {
    /// Takes a request's session description to the relay; false when there is nothing to take.
    pub(super) fn anchor_request(&mut self, id: TransactionId) -> bool {
        let Some(request) = self.request_of(id).filter(|_| self.config.anchor_media) else { return false };
        let carries = matches!(request.method, MethodName::Invite | MethodName::Update | MethodName::Prack);
        let is_stranger = self.exchanges.get(&id).is_some_and(|exchange| exchange.is_stranger);
        // The offer of a stranger's INVITE may come in its answer; it is looked for now whether a relay has a session.
        let may_bring_offer = is_stranger && request.method == MethodName::Invite;
        if !carries || (request.sdp().is_none() && !may_bring_offer) {
            return false;
        }
        match self.exchanges.get(&id).filter(|exchange| exchange.is_stranger).map(|e| e.call.clone()) {
            Some(Some(key)) => self.seek_session(id, &key),
            Some(None) => return false,
            None => return self.describe_request(id, &request),
        }
        true
    }

    /// Whether the relay has the session of a stranger: one that it opens for a change that fails is freed again.
    fn seek_session(&mut self, id: TransactionId, key: &CallKey) {
        let asked = self.relays.agreed(self.hash(key)).is_some_and(|relay| {
            let request = Request::Query { session: SessionKey(key.to_string()) };
            let then = Then::Seek { id, relay: Arc::clone(&relay) };
            self.ask_relay(&relay, request, then).is_ok()
        });
        if !asked {
            self.fail(id, failure_of(Refusal::Unavailable));
        }
    }

    fn on_session_sought(&mut self, id: TransactionId, relay: Arc<str>, reply: &Reply) {
        let Some(exchange) = self.exchanges.get_mut(&id) else { return };
        match reply {
            Reply::Refused(Refusal::UnknownSession) => exchange.opened_on = Some(relay),
            Reply::Refused(refusal) => return self.fail(id, failure_of(*refusal)),
            _ => {}
        }
        let request = Arc::clone(&exchange.request);
        if !self.describe_request(id, &request) {
            self.set_out(id);
        }
    }

    fn describe_request(&mut self, id: TransactionId, request: &Received) -> bool {
        let Some(sdp) = request.sdp() else { return false };
        let Some(exchange) = self.exchanges.get(&id) else { return false };
        let Some(key) = exchange.call.clone() else { return false };
        let from = exchange.forward.as_ref().map_or(Leg::Caller, |forward| forward.from);
        let is_offer_pending = self.calls.get(&key).is_some_and(|call| call.is_offer_delayed);
        let role =
            if request.method == MethodName::Prack && is_offer_pending { Role::Answer } else { Role::Offer };
        let (sdp, then, is_stranger) = (sdp.to_vec(), Then::Forward { id }, exchange.is_stranger);
        let asked = match is_stranger {
            true => self.describe_stranger(&key, role, from, sdp, request, then),
            false => self.describe(&key, role, from, sdp, request, then),
        };
        if let Err(refusal) = asked {
            self.fail(id, failure_of(refusal));
        }
        true
    }

    /// Takes a response's session description to the relay; gives the response back when there is nothing to take.
    pub(super) fn anchor_response(
        &mut self,
        id: TransactionId,
        branch: TransactionId,
        response: Received,
    ) -> Option<Received> {
        let carries = matches!(response.method, MethodName::Invite | MethodName::Update | MethodName::Prack);
        if !carries || !self.config.anchor_media {
            return Some(response);
        }
        let Some(exchange) = self.exchanges.get_mut(&id) else { return Some(response) };
        let is_stranger = exchange.is_stranger;
        let (Some(key), Some(forward)) = (exchange.call.clone(), exchange.forward.as_mut()) else {
            return Some(response);
        };
        let tag = response.message.to_tag().unwrap_or_default();
        let is_answer = response.method == MethodName::Invite && response.message.status() >= Some(200);
        let (sdp, is_repeated) = match response.sdp() {
            Some(sdp) => (sdp.to_vec(), false),
            // It said all that there is to say when it began to ring; since then another phone did.
            None => match forward.early.forgotten(tag).filter(|_| is_answer) {
                Some(sdp) => (sdp, true),
                None => return Some(response),
            },
        };
        if exchange.is_setup {
            forward.early.describe(tag, &sdp);
        }
        let role = if forward.has_offer { Role::Answer } else { Role::Offer };
        let from = forward.from.other();
        let response = Arc::new(response);
        let (exchange, answered) = (id, Arc::clone(&response));
        let then = match is_repeated {
            true => Then::Restore { exchange, branch, response: answered },
            false => Then::Respond { exchange, branch, response: answered },
        };
        let asked = match is_stranger {
            true => self.describe_stranger(&key, role, from, sdp, &response, then),
            false => self.describe(&key, role, from, sdp, &response, then),
        };
        if let Err(refusal) = asked {
            self.refuse_answer(id, branch, &response, refusal);
        }
        None
    }

    /// Takes the answer in an ACK to the relay; false when there is none.
    pub(super) fn anchor_ack(&mut self, ack: &Arc<Received>) -> bool {
        let Some(sdp) = ack.sdp().filter(|_| self.config.anchor_media) else { return false };
        let then = Then::Acknowledge { ack: Arc::clone(ack) };
        let Some(key) = self.call_key(ack.call_id()) else {
            let used = self.routes_used(&ack.message);
            let is_alive = self.is_stranger(ack) && self.may_be_alive(&used);
            let Some(leg) = used.leg.filter(|_| is_alive) else { return false };
            let key: CallKey = ack.call_id().into();
            return self.describe_stranger(&key, Role::Answer, leg.other(), sdp.to_vec(), ack, then).is_ok();
        };
        let Some(leg) = self.calls.get(&key).and_then(|call| call.leg_of(&ack.message)) else { return false };
        // Without the relay the call has no sound, but it has an ACK; the relay's notice will end it.
        self.describe(&key, Role::Answer, leg, sdp.to_vec(), ack, then).is_ok()
    }

    fn describe(
        &mut self,
        key: &CallKey,
        role: Role,
        from: Leg,
        sdp: Vec<u8>,
        by: &Received,
        then: Then,
    ) -> Result<(), Refusal> {
        let relay = match self.calls.get(key).and_then(|call| call.relay.clone()) {
            Some(relay) => relay,
            None => self.relays.choose().ok_or(Refusal::Unavailable)?,
        };
        let call = self.calls.get_mut(key).ok_or(Refusal::UnknownSession)?;
        call.relay = Some(Arc::clone(&relay));
        let description = Description {
            session: SessionKey(key.to_string()),
            from,
            sdp,
            signalled_from: by.source.ip(),
            region: call.region.as_str().to_owned(),
            trace_id: call.root.trace_id.0,
        };
        self.ask_description(&relay, role, description, then)
    }

    /// The same for a call that this core does not know. Its session is most likely on the one relay there is; on
    /// another, both legs are described anew and meet there.
    fn describe_stranger(
        &mut self,
        key: &CallKey,
        role: Role,
        from: Leg,
        sdp: Vec<u8>,
        by: &Received,
        then: Then,
    ) -> Result<(), Refusal> {
        let relay = self.relays.agreed(self.hash(key)).ok_or(Refusal::Unavailable)?;
        let description = Description {
            session: SessionKey(key.to_string()),
            from,
            sdp,
            signalled_from: by.source.ip(),
            region: by.region.as_str().to_owned(),
            trace_id: by.trace_id.0,
        };
        self.ask_description(&relay, role, description, then)
    }

    fn ask_description(
        &mut self,
        relay: &str,
        role: Role,
        description: Description,
        then: Then,
    ) -> Result<(), Refusal> {
        let request = match role {
            Role::Offer => Request::Offer(description),
            Role::Answer => Request::Answer(description),
        };
        self.ask_relay(relay, request, then).map_err(|_| Refusal::Unavailable)
    }

    /// Sends a request to a relay and bounds the wait for its reply.
    pub(crate) fn ask_relay(&mut self, relay: &str, request: Request, then: Then) -> Result<(), Then> {
        let (timers, deadline) = (&mut self.timers, now() + self.config.relay_timeout);
        self.relays.ask(relay, request, then, now(), |id| timers.set(deadline, Alarm::Relay(id)))
    }

    /// The relay did not answer in time, or is gone.
    pub(crate) fn on_relay_silent(&mut self, waiting: Waiting<Then>) {
        self.on_relay_reply(waiting, Reply::Refused(Refusal::Unavailable));
    }

    pub(crate) fn on_relay_reply(&mut self, waiting: Waiting<Then>, reply: Reply) {
        self.signals.relay_answered(waiting.kind, RelayOutcome::of(&reply), waiting.took(now()));
        match (waiting.then, reply) {
            (Then::Forward { id }, Reply::Description { sdp }) => {
                let request = self.request_of(id);
                if let Some((forward, request)) = self.forward_of(id).zip(request) {
                    forward.body = Some(request.body_with(&sdp));
                    self.set_out(id);
                }
            }
            (Then::Seek { id, relay }, reply) => self.on_session_sought(id, relay, &reply),
            (Then::Forward { id }, reply) => self.fail(id, failure_of(refusal_of(&reply))),
            (Then::Respond { exchange, branch, response }, Reply::Description { sdp }) => {
                self.pass_on(exchange, branch, &response, Some(&sdp));
            }
            (Then::Respond { exchange, branch, response }, reply) => {
                self.refuse_answer(exchange, branch, &response, refusal_of(&reply));
            }
            (Then::Acknowledge { ack }, Reply::Description { sdp }) => {
                self.forward_ack(&ack, Some(&ack.body_with(&sdp)));
            }
            (Then::Acknowledge { ack }, _) => self.forward_ack(&ack, None),
            (Then::Restore { exchange, branch, response }, Reply::Description { .. }) => {
                self.pass_on(exchange, branch, &response, None);
            }
            (Then::Restore { exchange, branch, response }, reply) => {
                self.refuse_answer(exchange, branch, &response, refusal_of(&reply));
            }
            (Then::Claim { call }, Reply::Refused(Refusal::UnknownSession)) => self.on_session_lost(&call),
            (Then::Close { epoch }, Reply::Deleted(report)) => self.on_session_closed(epoch, Some(*report)),
            (Then::Close { epoch }, _) => self.on_session_closed(epoch, None),
            (Then::Free, Reply::Deleted(_)) => self.on_session_freed(),
            (Then::Free | Then::Claim { .. }, _) => {}
        }
    }

    /// The relay refused the callee's answer: the callee is thanked and hung up on, the caller is told.
    fn refuse_answer(
        &mut self,
        id: TransactionId,
        branch: TransactionId,
        response: &Received,
        refusal: Refusal,
    ) {
        if response.message.status() < Some(200) {
            // Early sound is lost; the call goes on.
            return;
        }
        self.let_go_of_callee(branch, response, "media relay has no room");
        self.fail(id, failure_of(refusal));
    }
}

fn refusal_of(reply: &Reply) -> Refusal {
    match reply {
        Reply::Refused(refusal) => *refusal,
        // A reply of the wrong kind: the relay speaks another language than we do.
        Reply::Description { .. } | Reply::Deleted(_) | Reply::State(_) => Refusal::Unavailable,
    }
}

/// How a refusal of the relay is answered, and who is to blame.
fn failure_of(refusal: Refusal) -> Failure {
    let ours = |cause| Failure::ours(503, Room::Media, cause, CallCause::MediaRefused);
    match refusal {
        Refusal::PortsExhausted => ours(Cause::PortsExhausted),
        Refusal::SessionsExhausted | Refusal::Draining => ours(Cause::Overload),
        Refusal::Unavailable => ours(Cause::Unreachable),
        Refusal::BadDescription => Failure::plain(488, CallCause::Rejected),
        Refusal::UnknownSession => Failure::plain(481, CallCause::Rejected),
    }
}
