//! Hanging up on our own account: a BYE to each side of a dialog that we only watched.

use std::sync::Arc;
use std::time::Duration;

use belfry_relay_api::{Leg, Notice, Request, SessionKey};
use belfry_signal::{Cause, Room};
use belfry_sip_proto::HeaderName;
use belfry_sip_proto::build::Writer;
use belfry_sip_proto::transaction::TransactionId;

use super::Phase;
use crate::core::{Alarm, Core, Then, now};
use crate::exchange::{CallKey, Failure};
use crate::signals::{CallCause, MethodName};

/// How long a silent session that is not ours is left to its own core.
const ORPHAN_DELAY: Duration = Duration::from_secs(5);

impl Core {
    /// A relay noticed something about a session.
    pub(crate) fn on_relay_notice(&mut self, relay: &Arc<str>, notice: &Notice) {
        let (Notice::Silent { session } | Notice::OneWay { session, .. }) = notice;
        let Some(key) = self.call_key(&session.0) else {
            // Another core's call, or one from before a restart. Its own core would have ended it soon.
            if matches!(notice, Notice::Silent { .. }) {
                let alarm = Alarm::Orphan { relay: Arc::clone(relay), session: session.clone() };
                self.timers.set(now() + ORPHAN_DELAY, alarm);
            }
            return;
        };
        let root = self.calls.root(&key);
        match notice {
            Notice::Silent { .. } => {
                self.signals.relay_noticed("no sound from either side of a call", &key, root);
                self.hang_up(&key, CallCause::MediaTimeout);
            }
            Notice::OneWay { missing, .. } => {
                self.signals.relay_noticed("one side of a call is not heard", &key, root);
                if let Some(call) = self.calls.get_mut(&key)
                    && !call.silent_legs.contains(missing)
                {
                    call.silent_legs.push(*missing);
                }
            }
        }
    }

    /// A relay that came back does not have the session of a call: nobody hears anybody, and nobody ever will.
    pub(crate) fn on_session_lost(&mut self, key: &CallKey) {
        if self.calls.get(key).is_some_and(|call| call.phase == Phase::Talking) {
            let root = self.calls.root(key);
            self.signals.relay_noticed("relay lost the session of a call", key, root);
            self.hang_up(key, CallCause::MediaTimeout);
        }
    }

    /// Nobody ended the call of a silent session: its core is gone, and the relay need not keep it.
    pub(crate) fn on_orphan(&mut self, relay: &str, session: SessionKey) {
        if self.call_key(&session.0).is_none() {
            // A relay that is gone has freed it already; epoch 0 is no call's.
            let _ = self.ask_relay(relay, Request::Delete { session }, Then::Close { epoch: 0 });
        }
    }

    /// Ends an answered call from here: BYE to both sides, and the books are closed.
    pub(crate) fn hang_up(&mut self, key: &CallKey, cause: CallCause) {
        if self.calls.get(key).is_none_or(|call| call.phase != Phase::Talking) {
            return;
        }
        for leg in [Leg::Caller, Leg::Callee] {
            self.send_bye(key, leg, cause);
        }
        self.end_call(key, 200, cause);
    }

    /// The core stops: every call ends, those that ring with 503.
    pub(crate) fn end_all_calls(&mut self) {
        // Those too that are not routed yet: whoever is looked up now would ring when we are gone.
        let ringing = self.exchanges.iter().filter(|(_, exchange)| exchange.is_setup);
        let ringing: Vec<TransactionId> = ringing.map(|(id, _)| *id).collect();
        for id in ringing {
            self.cancel_tries(id);
            self.fail(id, Failure::ours(503, Room::Core, Cause::Overload, CallCause::ShutDown));
        }
        for key in self.calls.live_keys() {
            self.hang_up(&key, CallCause::ShutDown);
        }
    }

    /// Sends the BYE that the other side would have sent to this one.
    pub(crate) fn send_bye(&mut self, key: &CallKey, to: Leg, cause: CallCause) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let sender = call.party(to.other());
        sender.cseq_last = sender.cseq_last.saturating_add(1);
        let (cseq, from) = (sender.cseq_last, sender.address.clone());
        let tag = call.callee.tag.as_deref();
        let twin = call.twin.as_ref().filter(|_| to == Leg::Callee);
        let own = twin.map(|twin| (twin.call_id.to_string(), twin.local.clone(), twin.remote_with(tag)));
        let receiver = call.party(to);
        let (call_id, from, address) =
            own.unwrap_or_else(|| (key.to_string(), from, receiver.address.clone()));
        let (Some(contact), Some(hop)) = (receiver.contact.clone(), receiver.hop.clone()) else { return };
        let mut writer = Writer::request("BYE", &contact);
        for route in &receiver.routes {
            writer = writer.header(HeaderName::Route, route);
        }
        let (code, text) = match cause {
            CallCause::LifetimeOver => (408, "call lifetime over"),
            CallCause::ShutDown => (503, "server is stopping"),
            CallCause::SessionExpired => (408, "session was not refreshed"),
            CallCause::NoCredit => (402, "credit is used up"),
            CallCause::Operator => (480, "ended by the operator"),
            _ => (408, "media timeout"),
        };
        let bytes = writer
            .header(HeaderName::MaxForwards, "70")
            .header(HeaderName::From, &from)
            .header(HeaderName::To, &address)
            .header(HeaderName::CallId, &call_id)
            .header(HeaderName::CSeq, &format!("{cseq} BYE"))
            .header(HeaderName::Reason, &format!("SIP;cause={code};text=\"{text}\""))
            .finish();
        self.send_own(MethodName::Bye, &hop, &bytes);
    }
}
