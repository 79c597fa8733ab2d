//! Live calls: one owner of what is known of each, from its INVITE until its record is durable.
//!
//! Not here: what to send (the proxy), and what the store and the relay have to say ([`ending`]).

mod chain;
mod ending;
mod hangup;
mod hold;
mod lately;
pub(crate) mod live;
mod paying;
mod stranger;
mod timer;
pub(crate) mod twin;
mod watch;
mod whose;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use belfry_relay_api::{Leg, SessionReport};
use belfry_signal::{Region, SpanContext};
use belfry_sip_proto::timer::TimerKey;
use belfry_sip_proto::transaction::TransactionId;
use belfry_sip_proto::{HeaderName, OwnedMessage};
use belfry_state::{Book, Books, Prepaid};

use crate::calls::chain::Chains;
use crate::calls::lately::Lately;
use crate::calls::twin::{Twin, Twins};
use crate::edges::Hop;
use crate::exchange::CallKey;
use crate::handle::{Target, Transport};
use crate::received::Received;
use crate::signals::CallCause;

pub(crate) use chain::Chain;
pub(crate) use hold::{Hold, Meter, OnTrunk};
pub(crate) use paying::Paying;
pub(crate) use stranger::Strangers;
pub(crate) use watch::Watch;
pub(crate) use whose::Whose;

/// How far a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// INVITE seen, no final answer.
    Setup,
    /// Answered 2xx.
    Talking,
}

/// One call.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) key: CallKey,
    pub(crate) phase: Phase,
    /// Tells calls apart that use one Call-ID after another.
    pub(crate) epoch: u64,
    /// Its books on the disk, which outlive this process.
    pub(crate) book: Book,
    /// The call's root span.
    pub(crate) root: SpanContext,
    pub(crate) start_unix_nanos: u64,
    pub(crate) answer_unix_nanos: Option<u64>,
    pub(crate) end_unix_nanos: u64,
    /// From the INVITE to the first sign of life of the called side.
    pub(crate) post_dial: Option<Duration>,
    pub(crate) caller: Party,
    pub(crate) callee: Party,
    pub(crate) region: Region,
    pub(crate) country: Option<String>,
    pub(crate) transport: Transport,
    /// The relay that holds its session.
    pub(crate) relay: Option<Arc<str>>,
    /// Whether the INVITE had no offer, so that the ACK brings the answer.
    pub(crate) is_offer_delayed: bool,
    pub(crate) report: Option<SessionReport>,
    /// Legs that the relay never heard.
    pub(crate) silent_legs: Vec<Leg>,
    /// The final status of the INVITE and why the call ended; meaningless while it lives.
    pub(crate) ending: Ending,
    /// Gives the call up when it outlives every sensible call; once it is over, when its record does not get safe.
    pub(crate) lifetime: Option<TimerKey>,
    /// Whose it is.
    pub(crate) whose: Whose,
    /// What it holds of limits and budgets.
    pub(crate) hold: Hold,
    /// Who pays for it in advance, and by which prices, even if it costs nothing.
    pub(crate) prepaid: Option<Box<Prepaid>>,
    /// What it holds of the account that pays for it.
    pub(crate) paying: Option<Box<Paying>>,
    /// When it was last heard of, who is on hold, how its session timer stands.
    pub(crate) watch: Watch,
    /// Its dialog on the other side of us, when the sides are told nothing of each other.
    pub(crate) twin: Option<Box<Twin>>,
    /// Final answers to BYE that wait for the record.
    pub(crate) held: Vec<(TransactionId, u16, Vec<u8>)>,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    pub(crate) status: u16,
    pub(crate) cause: CallCause,
}

/// One side of a call, as its dialog shows it.
#[derive(Debug, Default)]
pub(crate) struct Party {
    /// The From or To value with its tag.
    pub(crate) address: String,
    pub(crate) uri: String,
    pub(crate) tag: Option<String>,
    /// The remote target: where requests to this side go.
    pub(crate) contact: Option<String>,
    /// Routes between us and this side, nearest first.
    pub(crate) routes: Vec<String>,
    /// How to reach it; the latest flow that it was seen on.
    pub(crate) hop: Option<Hop>,
    /// The highest CSeq that it has used, plus those that we used in its name.
    pub(crate) cseq_last: u32,
}

impl Party {
    /// The side that wrote this From or To.
    pub(crate) fn of(message: &OwnedMessage, header: HeaderName) -> Self {
        let value = message.header_text(header).unwrap_or_default().into_owned();
        let address = if header == HeaderName::From { message.from() } else { message.to() };
        Self {
            uri: address.map(|address| address.uri.address_of_record()).unwrap_or_default(),
            tag: address.and_then(|address| address.tag()).map(str::to_owned),
            address: value,
            ..Self::default()
        }
    }

    /// Learns the remote target of a dialog-forming message (RFC 3261 section 12.2.1.2).
    pub(crate) fn learn_contact(&mut self, message: &OwnedMessage) {
        let contact = message.contacts().next();
        if let Some(address) = contact.as_ref().and_then(|contact| contact.address()) {
            self.contact = Some(address.uri.as_str().to_owned());
        }
    }
}

impl Call {
    /// From the INVITE to that moment.
    pub(crate) fn waited(&self, unix_nanos: u64) -> Duration {
        Duration::from_nanos(unix_nanos.saturating_sub(self.start_unix_nanos))
    }

    /// From the answer to the end.
    pub(crate) fn talked(&self) -> Option<Duration> {
        Some(Duration::from_nanos(self.end_unix_nanos.saturating_sub(self.answer_unix_nanos?)))
    }

    pub(crate) fn party(&mut self, leg: Leg) -> &mut Party {
        match leg {
            Leg::Caller => &mut self.caller,
            Leg::Callee => &mut self.callee,
        }
    }

    /// Which side wrote a request of the dialog, by its From tag; `None` when its tags are not the dialog's.
    pub(crate) fn leg_of(&self, request: &OwnedMessage) -> Option<Leg> {
        let (from, to) = (request.from_tag(), request.to_tag());
        let (caller, callee) = (self.caller.tag.as_deref(), self.callee.tag.as_deref());
        if from == caller && (to == callee || callee.is_none()) {
            return Some(Leg::Caller);
        }
        (to == caller && (from == callee || callee.is_none())).then_some(Leg::Callee)
    }

    /// A request of the dialog came from this side: it is there, and counts on.
    pub(crate) fn heard(&mut self, leg: Leg, request: &Received) {
        let cseq = request.message.cseq().map_or(0, |cseq| cseq.number);
        self.watch.heard_unix_nanos = request.unix_nanos;
        let party = self.party(leg);
        party.hop = Some(hop_of(request));
        party.cseq_last = party.cseq_last.max(cseq);
    }
}

/// The way back to whoever sent a message.
pub(crate) fn hop_of(received: &Received) -> Hop {
    Hop {
        edge: Arc::clone(&received.edge),
        target: Target::Flow(received.flow.clone()),
        transport: received.transport,
        peer: Some(received.source),
    }
}

/// All calls that are not yet closed: the live ones by Call-ID, and by epoch those that are over and whose record
/// is not yet durable, so that a Call-ID can be used again at once.
#[derive(Debug)]
pub(crate) struct Calls {
    books: Books,
    live: HashMap<CallKey, Call>,
    /// The live calls by their age, for whoever reads them page by page.
    by_epoch: BTreeMap<u64, CallKey>,
    closing: HashMap<u64, Call>,
    lately: Lately,
    twins: Twins,
    chains: Chains,
    last_epoch: u64,
    /// Calls whose note in the books is not what it should be.
    changed: Vec<CallKey>,
}

impl Calls {
    /// No calls, whose books will be kept there.
    pub(crate) fn new(books: Books) -> Self {
        Self {
            books,
            live: HashMap::new(),
            by_epoch: BTreeMap::new(),
            closing: HashMap::new(),
            lately: Lately::default(),
            twins: Twins::default(),
            chains: Chains::default(),
            last_epoch: 0,
            changed: Vec::new(),
        }
    }

    /// Calls that ring or talk.
    pub(crate) fn live_count(&self) -> usize {
        self.live.len()
    }

    /// Calls in memory, those included whose record is being written.
    pub(crate) fn len(&self) -> usize {
        self.live.len() + self.closing.len()
    }

    pub(crate) fn get(&self, call_id: &str) -> Option<&Call> {
        self.live.get(call_id)
    }

    pub(crate) fn get_mut(&mut self, call_id: &str) -> Option<&mut Call> {
        self.live.get_mut(call_id)
    }

    pub(crate) fn key(&self, call_id: &str) -> Option<CallKey> {
        self.live.get_key_value(call_id).map(|(key, _)| Arc::clone(key))
    }

    pub(crate) fn root(&self, call_id: &str) -> Option<SpanContext> {
        self.live.get(call_id).map(|call| call.root)
    }

    /// The chain of INVITEs that this one begins or goes on with: challenges make one attempt of several.
    pub(crate) fn chain(&mut self, invite: &Received, now: Instant) -> Chain {
        self.chains.of(invite, now)
    }

    /// Opens the books of a call; `None` when a call of this Call-ID is open.
    pub(crate) fn open(&mut self, invite: &Received, now: Instant) -> Option<CallKey> {
        if self.live.contains_key(invite.call_id()) {
            return None;
        }
        let key: CallKey = invite.call_id().into();
        self.last_epoch += 1;
        let chain = self.chains.of(invite, now);
        let mut caller = Party::of(&invite.message, HeaderName::From);
        caller.learn_contact(&invite.message);
        caller.routes = route_values(&invite.message);
        caller.hop = Some(hop_of(invite));
        caller.cseq_last = invite.message.cseq().map_or(0, |cseq| cseq.number);
        let callee = Party { tag: None, ..Party::of(&invite.message, HeaderName::To) };
        let call = Call {
            key: Arc::clone(&key),
            phase: Phase::Setup,
            epoch: self.last_epoch,
            book: self.books.open_call(),
            root: chain.root,
            start_unix_nanos: chain.start_unix_nanos,
            answer_unix_nanos: None,
            end_unix_nanos: 0,
            post_dial: None,
            caller,
            callee,
            region: invite.region.clone(),
            country: invite.country.clone(),
            transport: invite.transport,
            relay: chain.relay,
            is_offer_delayed: invite.sdp().is_none(),
            report: None,
            silent_legs: Vec::new(),
            ending: Ending { status: 500, cause: CallCause::ServerError },
            lifetime: None,
            whose: Whose::default(),
            hold: Hold::default(),
            prepaid: None,
            paying: None,
            watch: Watch::new(invite.unix_nanos),
            twin: None,
            held: Vec::new(),
        };
        self.by_epoch.insert(call.epoch, Arc::clone(&key));
        self.live.insert(Arc::clone(&key), call);
        self.changed.push(Arc::clone(&key));
        Some(key)
    }

    /// The call was answered by this response; the first answer makes the dialog that is followed.
    pub(crate) fn answered(&mut self, call_id: &str, response: &Received, our_routes: usize) -> bool {
        let Some(call) = self.live.get_mut(call_id).filter(|call| call.phase == Phase::Setup) else {
            return false;
        };
        call.phase = Phase::Talking;
        call.answer_unix_nanos = Some(response.unix_nanos);
        let mut callee = Party::of(&response.message, HeaderName::To);
        callee.learn_contact(&response.message);
        // Above our own Record-Routes stand those of proxies between us and the callee, the callee's nearest first.
        let routes = route_values(&response.message);
        let above = routes.len().saturating_sub(our_routes + call.caller.routes.len());
        callee.routes = routes.into_iter().take(above).rev().collect();
        callee.hop = Some(hop_of(response));
        callee.cseq_last = call.callee.cseq_last;
        callee.uri = std::mem::take(&mut call.callee.uri);
        call.callee = callee;
        self.changed.push(Arc::clone(&call.key));
        true
    }

    /// Notes in the books what changed since the last time: before anybody hears of it.
    pub(crate) fn note_changes(&mut self, node: &str) {
        for key in std::mem::take(&mut self.changed) {
            // A call that is over already has its record on the way.
            if let Some(call) = self.live.get(&key) {
                self.books.note_call(call.book, ending::record_if_lost(call, node));
            }
        }
    }

    /// The call is over; gives the epoch by which it is found until its books are closed. `None` when it was over.
    pub(crate) fn ended(
        &mut self,
        call_id: &str,
        ending: Ending,
        unix_nanos: u64,
        now: Instant,
    ) -> Option<u64> {
        let mut call = self.live.remove(call_id)?;
        self.by_epoch.remove(&call.epoch);
        self.chains.end(call_id);
        call.ending = ending;
        // Clocks of two edges may differ by more than a short call lasts.
        call.end_unix_nanos = unix_nanos.max(call.answer_unix_nanos.unwrap_or(call.start_unix_nanos));
        let epoch = call.epoch;
        self.lately.note(call_id, now);
        self.closing.insert(epoch, call);
        Some(epoch)
    }

    /// The live calls that began after the one of this epoch, the oldest first.
    fn after(&self, epoch: u64) -> impl Iterator<Item = (u64, &Call)> {
        let from = epoch.saturating_add(1);
        self.by_epoch.range(from..).filter_map(|(epoch, key)| Some((*epoch, self.live.get(key)?)))
    }

    /// The live calls.
    pub(crate) fn live_keys(&self) -> Vec<CallKey> {
        self.live.keys().cloned().collect()
    }

    /// The live calls whose session this relay holds.
    pub(crate) fn on_relay(&self, relay: &str) -> Vec<CallKey> {
        self.live
            .values()
            .filter(|call| call.relay.as_deref() == Some(relay))
            .map(|call| Arc::clone(&call.key))
            .collect()
    }

    /// Whether a call is over, and its books are still open or were closed lately.
    pub(crate) fn is_over(&self, call_id: &str) -> bool {
        self.lately.has(call_id)
    }

    /// A call that is over and whose books are open.
    pub(crate) fn closing(&mut self, epoch: u64) -> Option<&mut Call> {
        self.closing.get_mut(&epoch)
    }

    /// Drops the books of an attempt that the called side challenged: it goes on with the next INVITE of its chain,
    /// on the relay that has its session. Should none come, the relay gives the session up by itself.
    pub(crate) fn forget(&mut self, call_id: &str) -> Option<Call> {
        let call = self.live.remove(call_id)?;
        self.by_epoch.remove(&call.epoch);
        self.twins.remove(&call);
        self.books.forget_call(call.book);
        if let Some(relay) = &call.relay {
            self.chains.keep_relay(call_id, Arc::clone(relay));
        }
        Some(call)
    }

    /// Closes the books.
    pub(crate) fn close(&mut self, epoch: u64) -> Option<Call> {
        let call = self.closing.remove(&epoch)?;
        self.twins.remove(&call);
        Some(call)
    }

    /// Calls by the Call-ID of their twins.
    pub(crate) fn twins(&self) -> &Twins {
        &self.twins
    }

    /// A call gets its other dialog.
    pub(crate) fn set_twin(&mut self, call_id: &str, twin: Twin) {
        if let Some(call) = self.live.get_mut(call_id) {
            self.twins.insert(&twin, Arc::clone(&call.key));
            call.twin = Some(Box::new(twin));
        }
    }
}

/// The Record-Route values of a message, as they stand.
fn route_values(message: &OwnedMessage) -> Vec<String> {
    message
        .headers(HeaderName::RecordRoute)
        .map(|value| String::from_utf8_lossy(value).into_owned())
        .collect()
}
