//! Session timers of our calls (RFC 4028): what requests and answers are told on their way, who refreshes, and what
//! becomes of a call that nobody refreshes.
//!
//! Section 8.3 lets a proxy free what it holds for a session that is over, and forbids it to send BYE. Here a call's
//! sound goes through the relay and its seconds cost money, so freeing it in silence would leave two phones that pay for
//! nothing: it is ended towards both, after a grace in which its own sides could have done so.

use belfry_relay_api::Leg;
use belfry_sip_proto::session_timer::{Agreed, Ask, Refresher, Wish};
use belfry_sip_proto::transaction::TransactionId;
use belfry_sip_proto::{Edit, HeaderName};
use std::sync::Arc;
use std::time::Duration;

use super::watch::Session;
use super::{Phase, hop_of};
use crate::core::{Alarm, Core, now};
use crate::exchange::CallKey;
use crate::received::Received;
use crate::signals::{CallCause, MethodName};

impl Core {
    fn session_wish(&self) -> Wish {
        let seconds = |duration: Duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX);
        Wish {
            seconds: seconds(self.config.session_interval),
            seconds_min: seconds(self.config.session_interval_min),
        }
    }

    /// What a request asks of the session when it leaves; `None` for requests that refresh nothing, and for those that
    /// are refused.
    fn session_ask(&self, request: &Received) -> Option<Ask> {
        let is_refresh = matches!(request.method, MethodName::Invite | MethodName::Update);
        is_refresh.then(|| self.session_wish().ask(&request.message).ok()).flatten()
    }

    /// A request is about to leave. One whose session interval is too small is answered 422; true when it was.
    pub(crate) fn refuse_short_session(&mut self, id: TransactionId) -> bool {
        let Some(exchange) = self.exchanges.get(&id) else { return false };
        let request = Arc::clone(&exchange.request);
        if !matches!(request.method, MethodName::Invite | MethodName::Update) {
            return false;
        }
        if let Some(key) = exchange.call.clone().filter(|_| exchange.is_setup)
            && let Some(call) = self.calls.get_mut(&key)
        {
            call.watch.setup = Some(id);
        }
        let Err(seconds_min) = self.session_wish().ask(&request.message) else { return false };
        self.signals.session_interval_refused();
        self.answer(id, 422, &[(HeaderName::MinSe, &seconds_min.to_string())]);
        true
    }

    /// Tells a request that leaves for how long its session may live.
    pub(crate) fn with_session_timer<'m>(&self, edit: Edit<'m>, request: &Received) -> Edit<'m> {
        let Some(ask) = self.session_ask(request).filter(|ask| ask.is_changed) else { return edit };
        let edit = match ask.seconds_min {
            Some(seconds) => edit.set(HeaderName::MinSe, &seconds.to_string()),
            None => edit,
        };
        match ask.expires {
            Some(expires) => edit.set(HeaderName::SessionExpires, &expires.to_string()),
            None => edit,
        }
    }

    /// What both sides of an exchange agreed on with this 2xx.
    fn session_agreed(&self, exchange: TransactionId, response: &Received) -> Option<Agreed> {
        let is_success = response.message.status().is_some_and(|status| (200..300).contains(&status));
        let exchange = self.exchanges.get(&exchange).filter(|_| is_success)?;
        self.session_ask(&exchange.request)?.agreed(&response.message)
    }

    /// The Session-Expires that a 2xx must be given on its way to whoever asked for it.
    pub(crate) fn session_answer(&self, exchange: TransactionId, response: &Received) -> Option<String> {
        let agreed = self.session_agreed(exchange, response)?;
        agreed.is_inserted.then(|| agreed.expires.to_string())
    }

    /// A 2xx is on its way: the session begins, or goes on for another interval.
    pub(crate) fn note_session(&mut self, id: TransactionId, response: &Received) {
        let agreed = self.session_agreed(id, response);
        let Some(exchange) = self.exchanges.get(&id) else { return };
        let is_refresh = matches!(exchange.request.method, MethodName::Invite | MethodName::Update);
        let (Some(key), Some(forward), true) = (&exchange.call, &exchange.forward, is_refresh) else {
            return;
        };
        let (key, from, request) = (Arc::clone(key), forward.from, Arc::clone(&exchange.request));
        let is_setup = exchange.is_setup;
        let Some(call) = self.calls.get_mut(&key) else { return };
        call.watch.heard_unix_nanos = response.unix_nanos;
        match (request.sdp(), response.sdp()) {
            (Some(offer), _) => call.watch.offered(from, offer),
            (None, Some(offer)) => call.watch.offered(from.other(), offer),
            (None, None) => {}
        }
        if request.method == MethodName::Update {
            // A refresh of the target, as a re-INVITE is (RFC 3311 section 5.1).
            call.party(from.other()).learn_contact(&response.message);
            call.party(from.other()).hop = Some(hop_of(response));
            if call.phase == Phase::Setup {
                return;
            }
        }
        if !is_setup {
            call.watch.refreshes = call.watch.refreshes.saturating_add(1);
            self.signals.session_refreshed();
        }
        self.set_session(&key, from, agreed);
    }

    fn set_session(&mut self, key: &CallKey, from: Leg, agreed: Option<Agreed>) {
        let Some(call) = self.calls.get_mut(key) else { return };
        if let Some(alarm) = call.watch.alarm.take() {
            self.timers.stop(alarm);
        }
        call.watch.session = agreed.map(|agreed| Session {
            interval: Duration::from_secs(u64::from(agreed.expires.seconds)),
            refresher: match agreed.expires.refresher {
                Some(Refresher::Uac) => from,
                Some(Refresher::Uas) | None => from.other(),
            },
            refreshed: now(),
        });
        let Some(session) = call.watch.session else { return };
        let at = session.expires() + self.config.session_grace;
        call.watch.alarm = Some(self.timers.set(at, Alarm::SessionOver(Arc::clone(key))));
    }

    /// A session was not refreshed in time, and none of its sides has ended it.
    pub(crate) fn on_session_over(&mut self, key: &CallKey) {
        let Some(call) = self.calls.get_mut(key) else { return };
        call.watch.alarm = None;
        // Another call may have the Call-ID by now.
        if call.watch.session.is_some_and(|session| session.expires() <= now()) {
            self.hang_up(key, CallCause::SessionExpired);
        }
    }
}
