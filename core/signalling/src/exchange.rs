//! What the core remembers of its transactions: the exchange with whoever asked, and the branches towards
//! whoever is asked on their behalf (the response context of RFC 3261 section 16).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use belfry_relay_api::Leg;
use belfry_signal::{Cause, Room, SpanContext, SpanId};
use belfry_sip_proto::timer::TimerKey;
use belfry_sip_proto::transaction::TransactionId;

use crate::edges::{Hop, Way};
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
    /// The epoch of the call that it ended: its answer waits for the record.
    pub(crate) ended_call: Option<u64>,
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
}

/// How a request travels on.
#[derive(Debug)]
pub(crate) struct Forward {
    /// Where it may go, next first.
    pub(crate) destinations: VecDeque<Destination>,
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
    /// The branch that is tried now.
    pub(crate) branch: Option<TransactionId>,
    /// The best failure so far (RFC 3261 section 16.7 step 6).
    pub(crate) best: Option<Failure>,
    /// Timer C.
    pub(crate) ring: Option<TimerKey>,
}

/// One place to which a request may go.
#[derive(Clone, Debug)]
pub(crate) struct Destination {
    pub(crate) hop: Hop,
    /// The Request-URI to use; `None` keeps the one that is there.
    pub(crate) uri: Option<String>,
    /// Path values of the registration, to be the Route (RFC 3327 section 5.3).
    pub(crate) path: Vec<String>,
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

    /// How good it is to send back: lower is better. A 6xx settles it; then 3xx, 4xx, 5xx, and among the 4xx the
    /// ones that the caller can do something about.
    pub(crate) fn rank(&self) -> u16 {
        match self.status {
            600.. => 0,
            300..400 => 1,
            401 | 407 | 415 | 420 | 484 => 2,
            400..500 if self.status != 408 && self.status != 430 => 3,
            400..500 => 4,
            _ => 5,
        }
    }
}

/// A request that we sent.
#[derive(Debug)]
pub(crate) struct Branch {
    /// Whose it is; `None` when we sent it on our own account.
    pub(crate) exchange: Option<TransactionId>,
    pub(crate) method: MethodName,
    pub(crate) way: Arc<Way>,
    /// The request as sent, from which its ACK and CANCEL are made; empty for other methods than INVITE.
    pub(crate) sent: Vec<u8>,
    pub(crate) span: SpanContext,
    pub(crate) parent: SpanId,
    pub(crate) start_unix_nanos: u64,
    /// Whether anything was heard: only then may it be cancelled (RFC 3261 section 9.1).
    pub(crate) was_heard: bool,
    /// Whether a CANCEL went out.
    pub(crate) is_cancelled: bool,
    /// Whether it is of an INVITE that sets a call up: an answer that nobody waits for any more is hung up on.
    pub(crate) is_setup: bool,
    /// Whether its 2xx is here: until the relay has done its part, repeats of it mean nothing new.
    pub(crate) is_answered: bool,
    /// The 2xx as it was forwarded: the callee repeats it until it sees the ACK.
    pub(crate) answer: Option<(u16, Vec<u8>)>,
    pub(crate) is_over: bool,
}
