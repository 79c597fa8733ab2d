//! Strangers: calls that this core does not know, because they were set up before it was restarted, or by another core
//! that is gone.
//!
//! Their requests travel by the tokens in Route, which also name the leg, so that a re-INVITE still passes through the
//! relay. Their records were written when this core came, from what the dead one had noted (cause `node_lost`), and stand.
//! What their BYE can do is to free the relay's session.

use std::sync::Arc;

use belfry_relay_api::{Request, SessionKey};

use crate::core::{Core, Then};
use crate::received::Received;
use crate::signals::MethodName;

/// What was seen of strangers since the log last told.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Strangers {
    /// BYEs that were carried on.
    byes: usize,
    /// Relay sessions that were freed for them.
    sessions: usize,
}

impl Core {
    /// Whether a request of a dialog belongs to a call that this core does not know; one that has just ended is known.
    pub(crate) fn is_stranger(&self, request: &Received) -> bool {
        self.calls.get(request.call_id()).is_none() && !self.calls.is_over(request.call_id())
    }

    /// The BYE of a stranger is on its way to the other side.
    pub(crate) fn on_stranger_bye(&mut self, request: &Received) {
        self.strangers.byes += 1;
        self.signals.stranger_ended();
        self.free_session(request.call_id());
    }

    /// A stranger's request got a final answer; some mean that the other side knows no such dialog any more
    /// (RFC 5057 section 5.1).
    pub(crate) fn on_stranger_answer(
        &mut self,
        request: &Received,
        status: u16,
        opened_on: Option<&Arc<str>>,
    ) {
        let is_change = matches!(request.method, MethodName::Invite | MethodName::Update);
        if is_change && matches!(status, 408 | 481) {
            self.free_session(request.call_id());
        } else if let Some(relay) = opened_on.filter(|_| status >= 300) {
            // Nobody has use for a session that only this change needed.
            let session = SessionKey(request.call_id().to_owned());
            let _ = self.ask_relay(relay, Request::Delete { session }, Then::Free);
        }
    }

    /// Asks every relay to end the session of a call: any of them may hold it.
    fn free_session(&mut self, call_id: &str) {
        for relay in self.relays.nodes() {
            let request = Request::Delete { session: SessionKey(call_id.to_owned()) };
            // A relay that cannot be asked ends a session without a core by itself.
            let _ = self.ask_relay(&relay, request, Then::Free);
        }
    }

    /// A relay held the session of a stranger and has ended it.
    pub(crate) fn on_session_freed(&mut self) {
        self.strangers.sessions += 1;
    }

    /// Tells the log what was seen of strangers, when there was something.
    pub(crate) fn report_strangers(&mut self) {
        let Strangers { byes, sessions } = std::mem::take(&mut self.strangers);
        if byes > 0 || sessions > 0 {
            self.signals.strangers_passed(byes, sessions);
        }
    }

    /// A relay is back on a new link: asks about the calls that it holds, so that it does not take them for orphans.
    pub(crate) fn claim_sessions(&mut self, relay: &Arc<str>) {
        for key in self.calls.on_relay(relay) {
            let request = Request::Query { session: SessionKey(key.to_string()) };
            if self.ask_relay(relay, request, Then::Claim { call: Arc::clone(&key) }).is_err() {
                // The link is full or gone again; what is not claimed is not judged, and lives as long as it sounds.
                return;
            }
        }
    }
}
