//! The answers that we give ourselves, and the one place through which every answer to a request leaves.

use belfry_signal::record::SpanKind;
use belfry_signal::{Cause, Room};
use belfry_sip_proto::HeaderName;
use belfry_sip_proto::build;
use belfry_sip_proto::transaction::TransactionId;
use std::sync::Arc;
use std::time::Duration;

use crate::core::{Core, now};
use crate::edges::Way;
use crate::exchange::{CallKey, Exchange, Failure};
use crate::received::Received;
use crate::signals::{AttemptResult, CallCause, Ended, MethodName};

/// What we understand, for 405 and OPTIONS.
pub(crate) const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, REGISTER, MESSAGE, SUBSCRIBE, NOTIFY, PUBLISH, INFO, UPDATE, PRACK, REFER";

impl Core {
    /// The way of answers to a request.
    pub(crate) fn way_back(&self, request: &Received) -> Arc<Way> {
        let (target, peer) = request.way_back();
        Arc::new(Way {
            edge: Arc::clone(&request.edge),
            target,
            transport: request.transport,
            peer: Some(peer),
            method: request.method,
            call_id: request.call_id().into(),
            trace_id: request.trace_id,
            cseq: request.cseq_text().into(),
        })
    }

    /// The response of ours to a request, with a To tag that is the same for the same request.
    pub(crate) fn response(&self, request: &Received, status: u16, extra: &[(HeaderName, &str)]) -> Vec<u8> {
        let message = request.original.as_deref().unwrap_or(&request.message);
        let branch = message.top_via().and_then(|via| via.branch());
        let tag = format!("{:016x}", self.hash((request.call_id(), branch)));
        let tag = (status != 100).then_some(tag.as_str());
        build::response_to(message, status, None, tag, extra)
    }

    /// Answers a request of an exchange ourselves.
    pub(crate) fn answer(&mut self, id: TransactionId, status: u16, extra: &[(HeaderName, &str)]) {
        let Some(exchange) = self.exchanges.get(&id) else { return };
        let bytes = self.response(&exchange.request, status, extra);
        self.reply(id, Failure { status, bytes: Some(bytes), fault: None, cause: None });
    }

    /// Answers without a transaction: what could not even get one.
    pub(crate) fn answer_plain(&mut self, request: &Received, status: u16, extra: &[(HeaderName, &str)]) {
        if request.method == MethodName::Ack || request.message.top_via().is_none() {
            return;
        }
        let bytes = self.response(request, status, extra);
        let way = self.way_back(request);
        self.send_plain(&way, bytes);
    }

    /// Ends an exchange with a failure: the one that came, or one that we make.
    pub(crate) fn fail(&mut self, id: TransactionId, failure: Failure) {
        let Some(exchange) = self.exchanges.get(&id) else { return };
        if failure.bytes.is_some() {
            return self.reply(id, failure);
        }
        let retry_after = self.config.retry_after.as_secs().to_string();
        let mut extra = Vec::new();
        if failure.status == 503 {
            extra.push((HeaderName::RetryAfter, retry_after.as_str()));
        }
        let reason = reason_header(&failure);
        if let Some(reason) = &reason {
            extra.push((HeaderName::Reason, reason.as_str()));
        }
        let warning = self.warning_header(&failure);
        if let Some(warning) = &warning {
            extra.push((HeaderName::Warning, warning.as_str()));
        }
        let bytes = self.response(&exchange.request, failure.status, &extra);
        self.reply(id, Failure { bytes: Some(bytes), ..failure });
    }

    /// What a phone shows its owner who has no money (RFC 3261 section 20.43, code 399).
    fn warning_header(&self, failure: &Failure) -> Option<String> {
        let text = reason_text(failure)?;
        let is_about_money = matches!(failure.cause, Some(CallCause::NoCredit | CallCause::NotCharged));
        let domain = self.config.domains.first().filter(|_| is_about_money)?;
        Some(format!("399 {domain} \"{text}\""))
    }

    /// Sends an answer, provisional or final. A final one is judged and ends the exchange.
    pub(crate) fn reply(&mut self, id: TransactionId, answer: Failure) {
        let Failure { status, bytes: Some(mut bytes), fault, cause } = answer else { return };
        if status >= 200 {
            // Nobody needs the request any more; the transaction layer repeats the answer by itself.
            let Some(mut exchange) = self.exchanges.remove(&id) else { return };
            if let Some(forward) = &mut exchange.forward {
                let alarm = forward.alarm.take().map(|(_, timer)| timer);
                for timer in [alarm, forward.trying.take()].into_iter().flatten() {
                    self.timers.stop(timer);
                }
            }
            let request = Arc::clone(&exchange.request);
            // A REGISTER was judged by the registrar.
            let is_good = request.method == MethodName::Register || (status == 200 && fault.is_none());
            let is_told = self.is_told(id, &request, is_good);
            self.exchange_ended(&exchange, status, fault, cause, is_told);
            if status == 408 && request.method != MethodName::Invite {
                // Whoever asked has given up by now, and would take it for a stray answer (RFC 4320 section 4.2).
                return self.transactions.abandon(id, now());
            }
            if let Some(ended) = exchange.ended_call {
                match self.hold_for_record(ended.epoch, id, status, bytes) {
                    Some(given_back) => bytes = given_back,
                    None => return,
                }
            }
        }
        // A transaction that ended meanwhile has nobody left to answer.
        let _ = self.transactions.respond(id, status, bytes, now());
    }

    /// The books of an exchange that got its final answer.
    fn exchange_ended(
        &mut self,
        exchange: &Exchange,
        status: u16,
        fault: Option<(Room, Cause)>,
        cause: Option<CallCause>,
        is_told: bool,
    ) {
        let request = &exchange.request;
        // A REGISTER has its own span and judgement.
        if is_told && request.method != MethodName::Register {
            let ended = Ended {
                context: exchange.span,
                parent: exchange.parent,
                call_id: request.call_id(),
                start_unix_nanos: request.unix_nanos,
                status,
            };
            self.signals.transaction_ended(ended, request.method, SpanKind::Server);
        }
        if exchange.is_stranger {
            self.on_stranger_answer(request, status, exchange.opened_on.as_ref());
        }
        if let Some(ended) = &exchange.ended_call {
            let delay = Duration::from_nanos(self.moment().saturating_sub(request.unix_nanos));
            self.signals.disconnected(delay, &self.scope(&request.region, &ended.whose));
        }
        if !exchange.is_setup {
            return;
        }
        let key = exchange.call.clone();
        self.setup_ended(key, request, status, fault, cause);
    }

    /// An INVITE that would set up a call got its final answer.
    fn setup_ended(
        &mut self,
        key: Option<CallKey>,
        request: &Received,
        status: u16,
        fault: Option<(Room, Cause)>,
        cause: Option<CallCause>,
    ) {
        let is_challenge = matches!(status, 401 | 407 | 422);
        if is_challenge {
            // The attempt goes on with credentials, or a longer session; it is one attempt (RFC 6076 section 4).
            let forgotten = key.and_then(|key| self.calls.forget(&key));
            if let Some(timer) = forgotten.and_then(|call| call.lifetime) {
                self.timers.stop(timer);
            }
            return;
        }
        let moment = self.moment();
        let post_dial = key.as_ref().and_then(|key| self.calls.get_mut(key)).map(|call| {
            // An answer went to the relay first, and was here before.
            let waited = call.waited(call.answer_unix_nanos.unwrap_or(moment));
            *call.post_dial.get_or_insert(waited)
        });
        let result = AttemptResult::of(status);
        let whose = key.as_ref().and_then(|key| self.calls.get(key)).map(|call| call.whose.clone());
        let scope = self.scope(&request.region, &whose.unwrap_or_default());
        self.signals.attempt_ended(result, &scope, fault, post_dial, request.call_id());
        if let Some(key) = key.filter(|_| status >= 300) {
            self.end_call(&key, status, cause.unwrap_or_else(|| cause_of(status)));
        }
    }
}

/// Says why in words that the caller's own log will keep (RFC 3326).
fn reason_header(failure: &Failure) -> Option<String> {
    Some(format!("SIP;cause={};text=\"{}\"", failure.status, reason_text(failure)?))
}

fn reason_text(failure: &Failure) -> Option<&'static str> {
    Some(match failure.cause? {
        CallCause::MediaRefused => "media relay has no room",
        CallCause::Overload => "overload",
        CallCause::FlowGone => "flow to the called phone is gone",
        CallCause::Operator => "ended by the operator",
        CallCause::Unreachable => "called phone did not answer",
        CallCause::NoRoute => "no trunk serves this number",
        CallCause::Blocked => "number is blocked",
        CallCause::LimitReached => "as many calls as allowed",
        CallCause::TrunkFull => "all trunks are busy",
        CallCause::Fraud => "call is held back for safety",
        CallCause::NoCredit => "not enough credit",
        CallCause::NotCharged => "no price for this number",
        _ => return None,
    })
}

/// What a final status of the called side says about the call.
fn cause_of(status: u16) -> CallCause {
    match AttemptResult::of(status) {
        AttemptResult::Busy => CallCause::Busy,
        AttemptResult::Unavailable => CallCause::NoAnswer,
        AttemptResult::Cancelled => CallCause::Cancelled,
        AttemptResult::Declined | AttemptResult::Redirected => CallCause::Declined,
        AttemptResult::NotFound => CallCause::UnknownCustomer,
        AttemptResult::Denied => CallCause::Denied,
        AttemptResult::Answered | AttemptResult::Ineffective | AttemptResult::Rejected => CallCause::Rejected,
    }
}
