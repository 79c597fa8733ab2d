//! The live calls as an operator sees them: pages of a list, filtered, and the order to end one.
//!
//! The core's own task reads them, at most so many in one turn; whoever asks goes on from where it stopped.

use std::sync::Arc;
use std::time::Duration;

use belfry_relay_api::Leg;
use belfry_signal::{Pii, Region, now_unix_nanos};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::oneshot;

use super::{Call, Party, Phase};
use crate::core::{Core, CoreHandle, now};
use crate::exchange::Failure;
use crate::handle::Transport;
use crate::signals::CallCause;

/// Calls that one turn of the core looks at.
const SCAN_MAX: usize = 1024;
/// Calls of one page.
pub(crate) const PAGE_MAX: usize = 1000;

/// How far a call is, in the words of RFC 4235.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LiveState {
    /// The INVITE came, and nothing of the called side.
    Trying,
    /// The called side showed a sign of life.
    Early,
    /// It was answered.
    Confirmed,
}

/// Which calls are wanted: all that every given field fits.
#[derive(Clone, Debug, Default)]
pub struct LiveFilter {
    /// How far it is.
    pub state: Option<LiveState>,
    /// Whose customer's it is.
    pub tenant: Option<String>,
    /// The trunk that it came by or leaves by.
    pub trunk: Option<String>,
    /// The caller's region.
    pub region: Option<String>,
    /// The caller's country.
    pub country: Option<String>,
    /// The caller's transport, as in a URI.
    pub transport: Option<String>,
    /// The relay that holds its session.
    pub relay: Option<String>,
    /// Began at least so long ago.
    pub age_min: Option<Duration>,
    /// Began at most so long ago.
    pub age_max: Option<Duration>,
    /// Whether somebody is on hold.
    pub is_held: Option<bool>,
}

/// One live call.
#[derive(Clone, Debug, Serialize)]
pub struct LiveCall {
    /// Its Call-ID.
    pub call_id: Pii<String>,
    /// Its Call-ID on the other side of us, where that is another one.
    pub other_call_id: Option<Pii<String>>,
    /// The trace of its ladder, logs and spans.
    pub trace_id: String,
    /// How far it is.
    pub state: LiveState,
    /// Who holds the other side: `caller`, `callee`.
    pub held_by: Vec<&'static str>,
    /// Whose customer's it is.
    pub tenant: Option<String>,
    /// The trunk that it came by.
    pub calling_trunk: Option<String>,
    /// The trunk that it left by, or is being tried at.
    pub called_trunk: Option<String>,
    /// The side that called.
    pub caller: LiveParty,
    /// The side that was called.
    pub callee: LiveParty,
    /// The caller's region.
    pub region: Region,
    /// The caller's country.
    pub country: Option<String>,
    /// The caller's transport.
    pub transport: &'static str,
    /// The relay that holds its session.
    pub relay: Option<String>,
    /// Legs that the relay never heard.
    pub silent_legs: Vec<&'static str>,
    /// Since its INVITE.
    pub age_seconds: f64,
    /// When its INVITE came.
    pub start_unix_nanos: u64,
    /// When it was answered.
    pub answer_unix_nanos: Option<u64>,
    /// Seconds since the answer that its account has paid for, when it is paid for in advance.
    pub paid_seconds: Option<u64>,
    /// When its dialog last had a message.
    pub heard_unix_nanos: u64,
    /// Its session timer, when one side at least keeps one.
    pub session: Option<LiveSession>,
}

/// One side of a live call.
#[derive(Clone, Debug, Serialize)]
pub struct LiveParty {
    /// Its address.
    pub uri: Pii<String>,
    /// Its tag in the dialog.
    pub tag: Option<String>,
    /// Where requests to it go.
    pub contact: Option<Pii<String>>,
    /// Proxies between us and it.
    pub routes: usize,
    /// The edge that it is reached by.
    pub edge: Option<String>,
    /// Its transport.
    pub transport: Option<&'static str>,
    /// The last CSeq that was used in its name.
    pub cseq: u32,
}

/// The session timer of a live call (RFC 4028).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LiveSession {
    /// How long it lives without a refresh.
    pub interval_seconds: u64,
    /// What of that is left; negative in the grace after it.
    pub left_seconds: f64,
    /// Who refreshes.
    pub refresher: &'static str,
    /// Refreshes that came.
    pub refreshes: u32,
}

/// A page of the list.
#[derive(Clone, Debug, Default)]
pub struct LivePage {
    /// The calls, the oldest first.
    pub calls: Vec<LiveCall>,
    /// Where the next page begins; `None` when this is the last.
    pub next: Option<u64>,
}

/// What is asked of the core from outside.
#[derive(Debug)]
pub(crate) enum Inquiry {
    /// Live calls that began after this one.
    Live { filter: Arc<LiveFilter>, after: u64, limit: usize, reply: oneshot::Sender<LivePage> },
    /// Ends a call; gives how far it was.
    End { call_id: String, reply: oneshot::Sender<Option<LiveState>> },
}

/// Why the core did not answer an inquiry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InquiryError {
    /// It answers others.
    #[error("the core answers as many inquiries as it may")]
    Busy,
    /// It has stopped.
    #[error("the core has stopped")]
    Stopped,
}

impl InquiryError {
    /// A bounded name for labels.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Stopped => "stopped",
        }
    }
}

impl CoreHandle {
    /// Live calls that fit, the oldest first, from the one behind `after` on: at most so many, and never more than
    /// 1000. Between two turns of the core calls may come and go.
    ///
    /// # Errors
    /// When the core is busy with others, or has stopped.
    pub async fn live_calls_page(
        &self,
        filter: LiveFilter,
        after: u64,
        limit: usize,
    ) -> Result<LivePage, InquiryError> {
        let (filter, limit) = (Arc::new(filter), limit.clamp(1, PAGE_MAX));
        let mut page = LivePage { calls: Vec::new(), next: Some(after) };
        while let Some(after) = page.next.filter(|_| page.calls.len() < limit) {
            let (reply, answer) = oneshot::channel();
            let left = limit - page.calls.len();
            self.inquire(Inquiry::Live { filter: Arc::clone(&filter), after, limit: left, reply })?;
            let more = answer.await.map_err(|_| InquiryError::Stopped)?;
            page.calls.extend(more.calls);
            page.next = more.next;
        }
        Ok(page)
    }

    /// Ends a call by the operator's order: BYE to both sides, or CANCEL and 480 when it rings. Gives how far it was;
    /// `None` when there is no such call.
    ///
    /// # Errors
    /// When the core is busy with others, or has stopped.
    pub async fn end_call(&self, call_id: &str) -> Result<Option<LiveState>, InquiryError> {
        let (reply, answer) = oneshot::channel();
        self.inquire(Inquiry::End { call_id: call_id.to_owned(), reply })?;
        answer.await.map_err(|_| InquiryError::Stopped)
    }

    fn inquire(&self, inquiry: Inquiry) -> Result<(), InquiryError> {
        self.inquiries.try_send(inquiry).map_err(|error| match error {
            TrySendError::Full(_) => InquiryError::Busy,
            TrySendError::Closed(_) => InquiryError::Stopped,
        })
    }
}

impl Core {
    /// Answers one inquiry, at the cost of a message or two.
    pub(crate) fn on_inquiry(&mut self, inquiry: Inquiry) {
        // Who asked may be gone.
        match inquiry {
            Inquiry::Live { filter, after, limit, reply } => {
                let _ = reply.send(self.live_page(&filter, after, limit));
            }
            Inquiry::End { call_id, reply } => {
                let _ = reply.send(self.end_by_operator(&call_id));
            }
        }
    }

    fn live_page(&self, filter: &LiveFilter, after: u64, limit: usize) -> LivePage {
        let limit = limit.clamp(1, PAGE_MAX);
        let mut page = LivePage::default();
        for (seen, (epoch, call)) in self.calls.after(after).enumerate() {
            if seen >= SCAN_MAX || page.calls.len() >= limit {
                page.next = Some(epoch - 1);
                break;
            }
            if filter.fits(call) {
                page.calls.push(live(call));
            }
        }
        page
    }

    /// An operator ends a call: one that talks by BYE to both sides, one that rings by CANCEL and 480.
    fn end_by_operator(&mut self, call_id: &str) -> Option<LiveState> {
        let call = self.calls.get(call_id)?;
        let (key, state, root) = (Arc::clone(&call.key), state_of(call), call.root);
        let setup = call.watch.setup.filter(|id| self.exchanges.contains_key(id));
        match (call.phase, setup) {
            (Phase::Talking, _) => self.hang_up(&key, CallCause::Operator),
            (Phase::Setup, Some(id)) => {
                self.cancel_tries(id);
                self.fail(id, Failure::plain(480, CallCause::Operator));
            }
            // It has not left yet: the stores that are asked about it answer in a moment.
            (Phase::Setup, None) => return None,
        }
        self.signals.call_ended_by_operator(call_id, root);
        Some(state)
    }
}

impl LiveFilter {
    fn fits(&self, call: &Call) -> bool {
        let is = |wanted: &Option<String>, known: Option<&str>| {
            wanted
                .as_deref()
                .is_none_or(|wanted| known.is_some_and(|known| known.eq_ignore_ascii_case(wanted)))
        };
        let age = age_of(call);
        self.state.is_none_or(|state| state == state_of(call))
            && self.age_min.is_none_or(|least| age >= least)
            && self.age_max.is_none_or(|most| age <= most)
            && self.is_held.is_none_or(|is_held| is_held == call.watch.holders().next().is_some())
            && is(&self.region, Some(call.region.as_str()))
            && is(&self.country, call.country.as_deref())
            && is(&self.transport, Some(call.transport.uri_token()))
            && is(&self.relay, call.relay.as_deref())
            && is(&self.tenant, call.whose.tenant.as_deref())
            && self.trunk.as_deref().is_none_or(|trunk| call.is_on_trunk(trunk))
    }
}

/// Since its INVITE.
fn age_of(call: &Call) -> Duration {
    Duration::from_nanos(now_unix_nanos().saturating_sub(call.start_unix_nanos))
}

fn state_of(call: &Call) -> LiveState {
    match call.phase {
        Phase::Talking => LiveState::Confirmed,
        Phase::Setup if call.post_dial.is_some() => LiveState::Early,
        Phase::Setup => LiveState::Trying,
    }
}

fn live(call: &Call) -> LiveCall {
    let names = |legs: Vec<Leg>| legs.into_iter().map(Leg::as_str).collect();
    LiveCall {
        call_id: Pii::new(call.key.to_string()),
        other_call_id: call.twin.as_ref().map(|twin| Pii::new(twin.call_id.to_string())),
        trace_id: call.root.trace_id.to_string(),
        state: state_of(call),
        held_by: names(call.watch.holders().collect()),
        tenant: call.whose.tenant.as_deref().map(str::to_owned),
        calling_trunk: call.whose.calling_trunk.as_deref().map(str::to_owned),
        called_trunk: call.whose.called_trunk.as_deref().map(str::to_owned),
        caller: party(&call.caller),
        callee: party(&call.callee),
        region: call.region.clone(),
        country: call.country.clone(),
        transport: call.transport.uri_token(),
        relay: call.relay.as_deref().map(str::to_owned),
        silent_legs: names(call.silent_legs.clone()),
        age_seconds: age_of(call).as_secs_f64(),
        start_unix_nanos: call.start_unix_nanos,
        answer_unix_nanos: call.answer_unix_nanos,
        paid_seconds: call.paying.as_ref().map(|paying| paying.seconds()),
        heard_unix_nanos: call.watch.heard_unix_nanos,
        session: session(call),
    }
}

fn session(call: &Call) -> Option<LiveSession> {
    let session = call.watch.session?;
    let (expires, now) = (session.expires(), now());
    let left_seconds = match expires.checked_duration_since(now) {
        Some(left) => left.as_secs_f64(),
        None => -now.saturating_duration_since(expires).as_secs_f64(),
    };
    Some(LiveSession {
        interval_seconds: session.interval.as_secs(),
        left_seconds,
        refresher: session.refresher.as_str(),
        refreshes: call.watch.refreshes,
    })
}

fn party(party: &Party) -> LiveParty {
    LiveParty {
        uri: Pii::new(party.uri.clone()),
        tag: party.tag.clone(),
        contact: party.contact.clone().map(Pii::new),
        routes: party.routes.len(),
        edge: party.hop.as_ref().map(|hop| hop.edge.to_string()),
        transport: party.hop.as_ref().map(|hop| Transport::uri_token(hop.transport)),
        cseq: party.cseq_last,
    }
}
