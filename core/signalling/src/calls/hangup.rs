//! Hanging up on our own account: a BYE to each side of a dialog that we only watched.

use belfry_relay_api::{Leg, Notice};
use belfry_sip_proto::HeaderName;
use belfry_sip_proto::build::Writer;

use super::Phase;
use crate::core::Core;
use crate::exchange::{CallKey, Destination};
use crate::signals::{CallCause, MethodName};

impl Core {
    /// The relay noticed something about a session.
    pub(crate) fn on_relay_notice(&mut self, notice: &Notice) {
        let (Notice::Silent { session } | Notice::OneWay { session, .. }) = notice;
        let Some(key) = self.call_key(&session.0) else { return };
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

    /// Sends the BYE that the other side would have sent to this one.
    pub(crate) fn send_bye(&mut self, key: &CallKey, to: Leg, cause: CallCause) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let sender = call.party(to.other());
        sender.cseq_last = sender.cseq_last.saturating_add(1);
        let (cseq, from) = (sender.cseq_last, sender.address.clone());
        let receiver = call.party(to);
        let (Some(contact), Some(hop)) = (receiver.contact.clone(), receiver.hop.clone()) else { return };
        let mut writer = Writer::request("BYE", &contact);
        for route in &receiver.routes {
            writer = writer.header(HeaderName::Route, route);
        }
        let text = match cause {
            CallCause::LifetimeOver => "call lifetime over",
            _ => "media timeout",
        };
        let bytes = writer
            .header(HeaderName::MaxForwards, "70")
            .header(HeaderName::From, &from)
            .header(HeaderName::To, &receiver.address)
            .header(HeaderName::CallId, key)
            .header(HeaderName::CSeq, &format!("{cseq} BYE"))
            .header(HeaderName::Reason, &format!("SIP;cause=408;text=\"{text}\""))
            .finish();
        self.send_own(MethodName::Bye, Destination { hop, uri: None, path: Vec::new() }, &bytes);
    }
}
