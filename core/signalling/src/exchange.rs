//! What the core remembers of its transactions: the exchange with whoever asked, and the branches towards
//! whoever is asked on their behalf (the response context of RFC 3261 section 16).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use belfry_relay_api::Leg;
use belfry_routing::Cost;
use belfry_signal::{Cause, Room, SpanContext, SpanId};
use belfry_sip_proto::HeaderName;
use belfry_sip_proto::forking::{BranchIndex, Group, ResponseContext};
use belfry_sip_proto::timer::TimerKey;
use belfry_sip_proto::transaction::TransactionId;

use crate::calls::Whose;
use crate::edges::{Hop, Way};
use crate::handle::Transport;
use crate::received::Received;
use crate::signals::{CallCause, MethodName};

/// Names a call: its Call-ID.
pub(crate) type CallKey = Arc<str>;

/// A request that came, and what is being done about it.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) request: Arc<Received>,
    pub(crate) began: Instant,
    pub(crate) span: SpanContext,
    pub(crate) parent: Option<SpanId>,
    /// Set once the request is to be forwarded.
    pub(crate) forward: Option<Forward>,
    /// The call that the request sets up, changes or ends.
    pub(crate) call: Option<CallKey>,
    /// The call that it ended: its answer waits for the record.
    pub(crate) ended_call: Option<EndedCall>,
    /// Whether the sides of its call are told nothing of each other.
    pub(crate) is_masked: bool,
    /// Whether its dialog is of a call that this core does not know.
    pub(crate) is_stranger: bool,
    /// The relay that had no session of the stranger before this request.
    pub(crate) opened_on: Option<Arc<str>>,
    /// Whether it is the INVITE that sets a call up.
    pub(crate) is_setup: bool,
    /// Whether the caller does not want it any more.
    pub(crate) is_cancelled: bool,
    /// The CANCEL's Reason header, carried on (RFC 3326).
    pub(crate) cancel_reason: Option<String>,
    /// Whether it calls for help: no limit and no overload refuses it.
    pub(crate) is_emergency: bool,
}

/// A call that a BYE ended.
#[derive(Clone, Debug)]
pub(crate) struct EndedCall {
    /// Its books are found by it until they are closed.
    pub(crate) epoch: u64,
    pub(crate) whose: Whose,
}

/// Whom a request may go to: groups that are tried one after another; inside a group all are tried at once
/// (RFC 3261 section 16.5). This is what whoever decides on a route hands to `Core::begin_forward`.
///
/// A group says by itself which failures lead on to the next one, how long it may ring when there is another, and how
/// long its members may stay silent: contacts of a customer go by q value with [`Advance::Always`], trunks that lead to
/// the same number with [`Advance::OnTrouble`], one in each group.
///
/// [`Advance::Always`]: belfry_sip_proto::forking::Advance::Always
/// [`Advance::OnTrouble`]: belfry_sip_proto::forking::Advance::OnTrouble
pub(crate) type TargetSet = Vec<Group<Destination>>;

/// How a request travels on.
#[derive(Debug)]
pub(crate) struct Forward {
    /// Its branches, and the best of what came back.
    pub(crate) context: ResponseContext<Destination, Failure>,
    /// What each branch of the context is up to, by its index.
    pub(crate) tries: Vec<Try>,
    /// Top Route values that named us.
    pub(crate) routes_used: usize,
    /// Whether we stay in the path of the dialog that it may begin.
    pub(crate) is_recorded: bool,
    /// Which side of its call it came from.
    pub(crate) from: Leg,
    /// Whether its body is a session description that passes through the relay.
    pub(crate) has_offer: bool,
    /// The relay's session description in place of its own.
    pub(crate) body: Option<Vec<u8>>,
    /// What is known of the early dialogs' descriptions.
    pub(crate) early: EarlyDialogs,
    /// When the context wants to be looked at, and the timer that sees to it.
    pub(crate) alarm: Option<(Instant, TimerKey)>,
    /// Answers 100 to a request other than INVITE that is not answered soon.
    pub(crate) trying: Option<TimerKey>,
    /// Places of redirections that were tried.
    pub(crate) redirects: u8,
}

/// One branch of a context, over all addresses of its destination.
#[derive(Debug)]
pub(crate) struct Try {
    pub(crate) destination: Arc<Destination>,
    /// Its share of Max-Breadth.
    pub(crate) breadth: u8,
    /// The transaction that is under way; `None` before the request was sent.
    pub(crate) transaction: Option<TransactionId>,
    /// The address that is tried now, when the destination is a next hop.
    pub(crate) place: Option<Place>,
    /// Addresses of the destination that are left to try (RFC 3263 section 4.3).
    pub(crate) places: VecDeque<Place>,
    /// How many of the destination's other flows were tried.
    pub(crate) alternates_used: usize,
    /// The header that answers the next hop's challenge, once it has asked.
    pub(crate) authorization: Option<(HeaderName, String)>,
    /// How often it was asked where the destination is: only the last answer counts.
    pub(crate) lookups: u32,
    /// Early dialogs of this branch that the caller knows, by their To tags, oldest first.
    pub(crate) early_tags: Vec<Box<str>>,
}

/// Session descriptions that early dialogs have sent, by To tag: the relay holds one description of the called side,
/// the latest; should a branch be answered without repeating its own, it is described again.
#[derive(Debug, Default)]
pub(crate) struct EarlyDialogs {
    /// Oldest first.
    descriptions: VecDeque<(Box<str>, Vec<u8>)>,
    /// Whose description the relay has.
    described: Option<Box<str>>,
}

/// Early dialogs of one request whose description is remembered, and of one branch whose end the caller is told.
pub(crate) const EARLY_DIALOGS_MAX: usize = 8;

impl EarlyDialogs {
    /// The relay is told what this dialog's phone wants.
    pub(crate) fn describe(&mut self, tag: &str, sdp: &[u8]) {
        self.descriptions.retain(|(known, _)| &**known != tag);
        if self.descriptions.len() >= EARLY_DIALOGS_MAX {
            self.descriptions.pop_front();
        }
        self.descriptions.push_back((tag.into(), sdp.to_vec()));
        self.described = Some(tag.into());
    }

    /// What the relay must be told again before this dialog goes on, when it was told of another since.
    pub(crate) fn forgotten(&self, tag: &str) -> Option<Vec<u8>> {
        let is_other = self.described.as_deref().is_some_and(|described| described != tag);
        let known = self.descriptions.iter().find(|(known, _)| is_other && &**known == tag);
        known.map(|(_, sdp)| sdp.clone())
    }
}

/// One place to which a request may go.
#[derive(Clone, Debug)]
pub(crate) struct Destination {
    pub(crate) reach: Reach,
    /// The Request-URI to use; `None` keeps the one that is there.
    pub(crate) uri: Option<String>,
    /// Path values of the registration, to be the Route (RFC 3327 section 5.3), top first.
    pub(crate) path: Vec<String>,
    /// What is done to the request on its way out; `None` leaves it as RFC 3261 section 16.6 says.
    pub(crate) policy: Option<Arc<Policy>>,
    /// The trunk that it is a way of: a call takes a place on it.
    pub(crate) trunk: Option<TrunkWay>,
    /// Other ways to the same phone, tried one after another when this one is broken (RFC 5626 section 5.3). Their own
    /// alternates do not count.
    pub(crate) alternates: Vec<Destination>,
}

/// A way over a trunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TrunkWay {
    /// Its configured name.
    pub(crate) name: Arc<str>,
    /// The gateway's place among the trunk's.
    pub(crate) gateway: u8,
    /// What a minute costs.
    pub(crate) cost: Cost,
    /// Whether the trunk's limits do not count.
    pub(crate) is_emergency: bool,
    /// Whether it leads elsewhere, because the trunk said so: that says nothing of the gateway then.
    pub(crate) is_redirected: bool,
}

/// How a destination is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Over a flow that its phone opened: a binding, or the other side of a dialog.
    Flow(Hop),
    /// At an address that is looked up and to which an edge opens a flow by itself: a trunk, another domain.
    NextHop(NextHop),
}

/// Another server, as a Route, a Request-URI or a trunk's configuration names it (RFC 3263 section 4).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NextHop {
    /// Host name or address literal, without brackets.
    pub(crate) host: Arc<str>,
    /// Without a port, SRV records say which.
    pub(crate) port: Option<u16>,
    /// Without a transport, NAPTR records say which, or the URI's scheme.
    pub(crate) transport: Option<Transport>,
    /// Whether only TLS will do (`sips:`).
    pub(crate) is_secure: bool,
    /// The edge to leave by; any that is connected, without.
    pub(crate) edge: Option<Arc<str>>,
}

/// One address of a next hop.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) transport: Transport,
    pub(crate) address: SocketAddr,
    /// The name that its certificate must show (RFC 5922 section 7.1): the one that was looked up.
    pub(crate) name: Arc<str>,
}

/// What is done to requests that leave for a peer of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Policy {
    /// The peer's configured name: it stands in spans.
    pub(crate) name: Arc<str>,
    /// Answers the peer's challenges (401 and 407) in the caller's place.
    pub(crate) credentials: Option<PeerCredentials>,
    /// Headers that are taken off, by name in any case. Via, From, To, Call-ID, CSeq, Route, Record-Route and Contact
    /// stay.
    pub(crate) remove: Vec<String>,
    /// Headers that are put on, after those were taken off.
    pub(crate) add: Vec<(String, String)>,
}

/// How we show a peer who we are.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct PeerCredentials {
    pub(crate) username: String,
    pub(crate) password: String,
}

impl std::fmt::Debug for PeerCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerCredentials").finish_non_exhaustive()
    }
}

impl Destination {
    /// The far end of a flow.
    pub(crate) fn flow(hop: Hop) -> Self {
        Self {
            reach: Reach::Flow(hop),
            uri: None,
            path: Vec::new(),
            policy: None,
            trunk: None,
            alternates: Vec::new(),
        }
    }

    /// Another server.
    pub(crate) fn next_hop(next_hop: NextHop) -> Self {
        Self {
            reach: Reach::NextHop(next_hop),
            uri: None,
            path: Vec::new(),
            policy: None,
            trunk: None,
            alternates: Vec::new(),
        }
    }

    /// Whether this hop leads there.
    pub(crate) fn is_over(&self, hop: &Hop) -> bool {
        matches!(&self.reach, Reach::Flow(known) if known.target == hop.target)
    }
}

/// A final failure that may be sent back.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: u16,
    /// The response to forward; `None` when we make one ourselves.
    pub(crate) bytes: Option<Vec<u8>>,
    /// Who is to blame, when it is us.
    pub(crate) fault: Option<(Room, Cause)>,
    /// What the call record says; `None` lets the status code say it.
    pub(crate) cause: Option<CallCause>,
}

impl Failure {
    /// A failure of our own making.
    pub(crate) fn ours(status: u16, room: Room, cause: Cause, call_cause: CallCause) -> Self {
        Self { status, bytes: None, fault: Some((room, cause)), cause: Some(call_cause) }
    }

    /// A refusal that is nobody's fault here.
    pub(crate) fn plain(status: u16, cause: CallCause) -> Self {
        Self { status, bytes: None, fault: None, cause: Some(cause) }
    }
}

/// A request that we sent.
#[derive(Debug)]
pub(crate) struct Branch {
    /// Whose it is; `None` when we sent it on our own account.
    pub(crate) exchange: Option<TransactionId>,
    /// Which branch of the exchange's context.
    pub(crate) index: BranchIndex,
    pub(crate) method: MethodName,
    pub(crate) way: Arc<Way>,
    /// The request as sent, from which its ACK and CANCEL are made; empty for other methods than INVITE.
    pub(crate) sent: Vec<u8>,
    pub(crate) span: SpanContext,
    pub(crate) parent: SpanId,
    pub(crate) start_unix_nanos: u64,
    /// Whether anything was heard: only then may it be cancelled (RFC 3261 section 9.1).
    pub(crate) was_heard: bool,
    /// Nobody wants it any more: a CANCEL goes out as soon as something was heard.
    pub(crate) unwanted: Option<Cancelling>,
    /// Whether a CANCEL went out.
    pub(crate) is_cancelled: bool,
    /// Whether it is of an INVITE that sets a call up: an answer that nobody waits for any more is hung up on.
    pub(crate) is_setup: bool,
    /// The first 2xx to an INVITE.
    pub(crate) answer: Option<BranchAnswer>,
    /// To tags of dialogs that were thanked and hung up on: repeats of their 2xx are only acknowledged.
    pub(crate) let_go: Vec<Box<str>>,
    pub(crate) is_over: bool,
}

/// The CANCEL that a branch is to get.
#[derive(Debug)]
pub(crate) struct Cancelling {
    /// Its Reason header (RFC 3326).
    pub(crate) reason: Option<String>,
}

/// A 2xx to an INVITE.
#[derive(Debug)]
pub(crate) struct BranchAnswer {
    /// The To tag: a 2xx with another one is of another dialog.
    pub(crate) tag: Box<str>,
    /// As it was forwarded: the callee repeats it until it sees the ACK. `None` while the relay works on it, and when
    /// it was not forwarded at all.
    pub(crate) forwarded: Option<(u16, Vec<u8>)>,
}
