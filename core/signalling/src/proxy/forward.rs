//! Sending a request on: what the response context wants done, and the addresses of each of its branches.

use std::collections::VecDeque;
use std::sync::Arc;

use belfry_relay_api::Leg;
use belfry_signal::{Cause, Room};
use belfry_sip_proto::HeaderName;
use belfry_sip_proto::forking::{Action, BranchIndex, Final, ResponseContext, Unwanted};
use belfry_sip_proto::transaction::TransactionId;

use super::branch::silence;
use super::prepare::Leaving;
use crate::core::{Alarm, Core, now};
use crate::edges::Hop;
use crate::exchange::{Destination, EarlyDialogs, Failure, Forward, Place, Reach, TargetSet, Try};
use crate::handle::Target;
use crate::signals::{CallCause, Decision, MethodName, SendFault};

/// The breadth of requests that name none (RFC 5393 section 5.3.3).
const BREADTH_DEFAULT: u8 = 60;

/// Reason of the CANCEL to whoever rings in vain (RFC 3326): a phone that reads it shows no missed call.
pub(super) const ANSWERED_ELSEWHERE: &str = "SIP;cause=200;text=\"Call completed elsewhere\"";

/// How a branch failed, for the decision where else to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It did not leave.
    NotSent(SendFault),
    /// It was sent and nothing was heard.
    Silent,
    /// It was answered with this status.
    Answered(u16),
    /// We would not send it, wherever it goes.
    Ours,
}

impl Trouble {
    /// Whether another address of the same server may do better (RFC 3263 section 4.3).
    fn is_of_address(self) -> bool {
        match self {
            Self::NotSent(_) | Self::Silent => true,
            Self::Answered(status) => status == 503,
            Self::Ours => false,
        }
    }

    /// Whether another flow to the same phone may do better (RFC 5626 section 5.3).
    fn is_of_flow(self) -> bool {
        match self {
            Self::NotSent(_) | Self::Silent => true,
            Self::Answered(status) => status == 430,
            Self::Ours => false,
        }
    }

    /// What the trace says of it.
    fn reason(self) -> &'static str {
        match self {
            Self::NotSent(fault) => fault.as_str(),
            Self::Silent => "no response",
            Self::Answered(503) => "503",
            Self::Answered(430) => "430",
            Self::Answered(_) => "refused",
            Self::Ours => "not sent by us",
        }
    }

    /// The status by which the context judges.
    fn status(self, failure: &Failure) -> u16 {
        match self {
            Self::Answered(status) => status,
            Self::NotSent(SendFault::FlowGone | SendFault::BadToken) => 430,
            Self::NotSent(_) | Self::Silent | Self::Ours => failure.status,
        }
    }
}

impl Core {
    /// Sets out to these targets: through the relay first, when there is a session description to anchor.
    pub(crate) fn begin_forward(
        &mut self,
        id: TransactionId,
        targets: TargetSet,
        routes_used: usize,
        is_recorded: bool,
        from: Leg,
    ) {
        if self.refuse_short_session(id) {
            return;
        }
        self.mask(id, &targets);
        let Some(exchange) = self.exchanges.get_mut(&id) else { return };
        let message = &exchange.request.message;
        let ring = (exchange.request.method == MethodName::Invite).then_some(self.config.ring_timeout);
        let breadth = message.header_text(HeaderName::MaxBreadth).and_then(|text| text.trim().parse().ok());
        let breadth = breadth.unwrap_or(BREADTH_DEFAULT).min(self.config.fork_branches_max);
        if breadth == 0 {
            // RFC 5393 section 5.3.3.1: not even one branch is left to this request.
            return self.fail(id, Failure::plain(440, CallCause::Rejected));
        }
        exchange.forward = Some(Forward {
            context: ResponseContext::new(targets, ring, breadth),
            tries: Vec::new(),
            routes_used,
            is_recorded,
            from,
            has_offer: exchange.request.sdp().is_some(),
            body: None,
            early: EarlyDialogs::default(),
            alarm: None,
            trying: None,
            redirects: 0,
        });
        self.expect_answer(id);
        if !self.anchor_request(id) {
            self.set_out(id);
        }
    }

    /// The first targets are tried.
    pub(super) fn set_out(&mut self, id: TransactionId) {
        if let Some(forward) = self.forward_of(id) {
            forward.context.start(now());
            self.act(id);
        }
    }

    /// Does everything that the response context wants done.
    pub(super) fn act(&mut self, id: TransactionId) {
        while let Some(action) = self.forward_of(id).and_then(|forward| forward.context.next_action()) {
            match action {
                Action::Start { branch, target, breadth } => self.start_try(id, branch, target, breadth),
                Action::Cancel { branch, why } => self.give_up_try(id, branch, why),
                Action::Expire { branch, was_heard } => self.on_try_expired(id, branch, was_heard),
                Action::Finish { best, challenges } => self.finish(id, best, &challenges),
            }
        }
        self.arm(id);
    }

    /// Sees to it that the context is looked at when it wants to be. An alarm that comes too early does no harm, so
    /// that most provisional responses need no new one.
    fn arm(&mut self, id: TransactionId) {
        let Some(forward) = self.exchanges.get_mut(&id).and_then(|exchange| exchange.forward.as_mut()) else {
            return;
        };
        let Some(deadline) = forward.context.deadline() else { return };
        if forward.alarm.is_some_and(|(at, _)| at <= deadline) {
            return;
        }
        if let Some((_, key)) = forward.alarm.take() {
            self.timers.stop(key);
        }
        forward.alarm = Some((deadline, self.timers.set(deadline, Alarm::Ring(id))));
    }

    /// The context's alarm: something may have taken too long (Timer C, RFC 3261 section 16.8).
    pub(crate) fn on_ring_timeout(&mut self, id: TransactionId) {
        let Some(forward) = self.forward_of(id) else { return };
        forward.alarm = None;
        forward.context.on_time(now());
        self.act(id);
    }

    fn start_try(&mut self, id: TransactionId, branch: BranchIndex, target: Destination, breadth: u8) {
        let Some(forward) = self.forward_of(id) else { return };
        debug_assert_eq!(forward.tries.len(), branch.0, "the context numbers its branches in order");
        let trunk = target.trunk.clone();
        forward.tries.push(Try {
            destination: Arc::new(target),
            breadth,
            transaction: None,
            place: None,
            places: VecDeque::new(),
            alternates_used: 0,
            authorization: None,
            lookups: 0,
            early_tags: Vec::new(),
        });
        if let Some(Err(failure)) = trunk.map(|way| self.enter_trunk(id, &way)) {
            return self.fail_try(id, branch, Trouble::Ours, failure);
        }
        self.reach(id, branch);
    }

    /// Sends a branch to its destination, once it is known where that is.
    pub(super) fn reach(&mut self, id: TransactionId, branch: BranchIndex) {
        let Some(known) = self.try_of(id, branch) else { return };
        known.lookups += 1;
        let destination = Arc::clone(&known.destination);
        match &destination.reach {
            Reach::Flow(hop) => self.send_try(id, branch, hop.clone()),
            Reach::NextHop(next_hop) => self.locate(id, branch, next_hop),
        }
    }

    /// Sends a branch to the next of its addresses.
    pub(super) fn send_to_next_place(&mut self, id: TransactionId, branch: BranchIndex) {
        let preferred = self.request_of(id).map(|request| Arc::clone(&request.edge));
        let Some(known) = self.try_of(id, branch) else { return };
        let place = known.places.pop_front();
        known.place.clone_from(&place);
        let wanted = match &known.destination.reach {
            Reach::NextHop(next_hop) => next_hop.edge.clone(),
            Reach::Flow(_) => None,
        };
        let hop = place.and_then(|place| {
            let preferred = wanted.as_ref().or(preferred.as_ref());
            let edge = self.edges.outward(place.transport, preferred, wanted.is_some())?;
            Some(hop_to(edge, &place))
        });
        match hop {
            Some(hop) => self.send_try(id, branch, hop),
            None => {
                let failure = Failure::ours(503, Room::Edge, Cause::Unreachable, CallCause::ServerError);
                self.fail_try(id, branch, Trouble::NotSent(SendFault::EdgeLink), failure);
            }
        }
    }

    /// An address, by way of any edge that speaks its transport.
    pub(crate) fn hop_outward(&self, place: &Place) -> Option<Hop> {
        Some(hop_to(self.edges.outward(place.transport, None, false)?, place))
    }

    fn send_try(&mut self, id: TransactionId, branch: BranchIndex, hop: Hop) {
        match self.try_to_send(id, branch, &hop) {
            Ok(transaction) => {
                if let Some(forward) = self.forward_of(id) {
                    forward.context.on_sent(branch, now());
                    if let Some(known) = forward.tries.get_mut(branch.0) {
                        known.transaction = Some(transaction);
                    }
                }
                // Lookups and failovers do not pass through `act`.
                self.arm(id);
            }
            Err(failure) => self.fail_try(id, branch, Trouble::Ours, failure),
        }
    }

    fn try_to_send(
        &mut self,
        id: TransactionId,
        branch: BranchIndex,
        hop: &Hop,
    ) -> Result<TransactionId, Failure> {
        let gone = || Failure::plain(480, CallCause::NotRegistered);
        let exchange = self.exchanges.get(&id).ok_or_else(gone)?;
        let request = Arc::clone(&exchange.request);
        let forward = exchange.forward.as_ref().ok_or_else(gone)?;
        let known = forward.tries.get(branch.0).ok_or_else(gone)?;
        if self.is_looping(&request, &known.destination) {
            return Err(Failure::plain(482, CallCause::Rejected));
        }
        let leaving = Leaving {
            destination: &known.destination,
            hop,
            routes_used: forward.routes_used,
            is_recorded: forward.is_recorded,
            body: forward.body.as_deref(),
            breadth: (!request.is_in_dialog()).then_some(known.breadth),
            authorization: known.authorization.as_ref(),
        };
        let prepared = self
            .prepare(&request, leaving)
            .ok_or_else(|| Failure::ours(503, Room::Edge, Cause::Unreachable, CallCause::ServerError))?;
        let span = exchange.span;
        self.start_branch(prepared, Some((id, branch)), span)
            .map_err(|()| Failure::ours(503, Room::Core, Cause::Overload, CallCause::Overload))
    }

    /// A branch came to nothing: another address of its destination, or the context decides.
    pub(super) fn fail_try(
        &mut self,
        id: TransactionId,
        branch: BranchIndex,
        trouble: Trouble,
        failure: Failure,
    ) {
        let is_cancelled = self.is_cancelled(id);
        let Some(forward) = self.forward_of(id) else { return };
        if !forward.context.is_open(branch) {
            return;
        }
        let is_wanted = !is_cancelled && forward.context.is_wanted(branch);
        let Some(known) = forward.tries.get_mut(branch.0) else { return };
        let place = known.place.clone();
        if let Some(place) = place.filter(|_| trouble.is_of_address()) {
            self.note_dead(&place, trouble);
            let has_more = self.try_of(id, branch).is_some_and(|known| !known.places.is_empty());
            if is_wanted && has_more {
                self.decided(id, Decision::FailOver, trouble.reason());
                return self.send_to_next_place(id, branch);
            }
        }
        if is_wanted && trouble.is_of_flow() && self.take_alternate(id, branch) {
            self.decided(id, Decision::FailOver, trouble.reason());
            return self.reach(id, branch);
        }
        self.note_trunk_failure(id, branch, trouble);
        if let Some(forward) = self.forward_of(id) {
            let status = trouble.status(&failure);
            forward.context.on_final(branch, status, failure, now());
            self.act(id);
            self.tell_lost_dialogs(id, branch, status);
        }
    }

    /// Puts the next flow to the same phone in the place of the one that is broken; false when there is none.
    fn take_alternate(&mut self, id: TransactionId, branch: BranchIndex) -> bool {
        let Some(known) = self.try_of(id, branch) else { return false };
        let Some(next) = known.destination.alternates.get(known.alternates_used).cloned() else {
            return false;
        };
        known.alternates_used += 1;
        let alternates = known.destination.alternates.clone();
        known.destination = Arc::new(Destination { alternates, ..next });
        known.transaction = None;
        true
    }

    /// Nobody waits for a branch any more.
    fn give_up_try(&mut self, id: TransactionId, branch: BranchIndex, why: Unwanted) {
        let transaction = self.try_of(id, branch).and_then(|known| known.transaction);
        let given = self.exchanges.get(&id).and_then(|exchange| exchange.cancel_reason.clone());
        let reason = match why {
            Unwanted::AnsweredElsewhere => Some(ANSWERED_ELSEWHERE.to_owned()),
            Unwanted::RefusedEverywhere => Some("SIP;cause=600;text=\"Busy everywhere\"".to_owned()),
            Unwanted::CallerGaveUp => given,
        };
        if let Some(transaction) = transaction {
            self.cancel_branch(transaction, reason);
        }
    }

    /// A branch took too long.
    fn on_try_expired(&mut self, id: TransactionId, branch: BranchIndex, was_heard: bool) {
        let transaction = self.try_of(id, branch).and_then(|known| known.transaction);
        if let Some(transaction) = transaction {
            self.cancel_branch(transaction, None);
        }
        let (trouble, failure) = if was_heard {
            (Trouble::Answered(408), Failure::plain(408, CallCause::NoAnswer))
        } else {
            (Trouble::Silent, silence())
        };
        self.fail_try(id, branch, trouble, failure);
    }

    /// Sends the best response back.
    fn finish(&mut self, id: TransactionId, best: Option<Final<Failure>>, challenges: &[Failure]) {
        let Some(exchange) = self.exchanges.get(&id) else { return };
        let fallback = || match exchange.is_cancelled {
            true => Failure::plain(487, CallCause::Cancelled),
            false => Failure::plain(480, CallCause::NotRegistered),
        };
        let best = best.map_or_else(fallback, |best| best.response);
        let best = if challenges.is_empty() { best } else { best.with_challenges(challenges) };
        self.fail(id, best);
    }

    pub(crate) fn forward_of(&mut self, id: TransactionId) -> Option<&mut Forward> {
        self.exchanges.get_mut(&id)?.forward.as_mut()
    }

    /// Whether this transaction is the one that its branch of the context is about: after a failover, the ones before
    /// say nothing any more, unless they are answered.
    pub(super) fn is_current(
        &mut self,
        id: TransactionId,
        branch: BranchIndex,
        transaction: TransactionId,
    ) -> bool {
        self.try_of(id, branch).is_some_and(|known| known.transaction == Some(transaction))
    }

    pub(super) fn try_of(&mut self, id: TransactionId, branch: BranchIndex) -> Option<&mut Try> {
        self.forward_of(id)?.tries.get_mut(branch.0)
    }
}

/// An address, as an edge reaches it.
fn hop_to(edge: Arc<str>, place: &Place) -> Hop {
    let Place { transport, address, name } = place;
    let target = Target::Address { transport: *transport, address: *address, name: Some(name.to_string()) };
    Hop { edge, target, transport: *transport, peer: Some(*address) }
}
