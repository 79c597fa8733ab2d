//! The closed vocabularies of the core's labels.

use belfry_relay_api::{Refusal, Reply};
use belfry_signal::{Region, label_enum};

use crate::routes::{TenantName, TrunkName};

label_enum! {
    /// A SIP method; everything that we do not know is `other`.
    pub(crate) enum MethodName("method") {
        /// RFC 3261.
        Register = "register",
        /// RFC 3261.
        Invite = "invite",
        /// RFC 3261.
        Ack = "ack",
        /// RFC 3261.
        Bye = "bye",
        /// RFC 3261.
        Cancel = "cancel",
        /// RFC 3261.
        Options = "options",
        /// RFC 3428.
        Message = "message",
        /// RFC 6665.
        Subscribe = "subscribe",
        /// RFC 6665.
        Notify = "notify",
        /// RFC 3903.
        Publish = "publish",
        /// RFC 6086.
        Info = "info",
        /// RFC 3311.
        Update = "update",
        /// RFC 3262.
        Prack = "prack",
        /// RFC 3515.
        Refer = "refer",
        /// An extension.
        Other = "other",
    }
}

impl MethodName {
    /// The method with this name on the wire (methods are case-sensitive, RFC 3261 section 7.1).
    #[must_use]
    pub(crate) fn of(method: &[u8]) -> Self {
        Self::ALL
            .iter()
            .copied()
            .find(|known| *known != Self::Other && known.wire().as_bytes() == method)
            .unwrap_or(Self::Other)
    }

    /// The name on the wire.
    #[must_use]
    pub(crate) fn wire(self) -> &'static str {
        match self {
            Self::Register => "REGISTER",
            Self::Invite => "INVITE",
            Self::Ack => "ACK",
            Self::Bye => "BYE",
            Self::Cancel => "CANCEL",
            Self::Options => "OPTIONS",
            Self::Message => "MESSAGE",
            Self::Subscribe => "SUBSCRIBE",
            Self::Notify => "NOTIFY",
            Self::Publish => "PUBLISH",
            Self::Info => "INFO",
            Self::Update => "UPDATE",
            Self::Prack => "PRACK",
            Self::Refer => "REFER",
            Self::Other => "OTHER",
        }
    }
}

label_enum! {
    /// The class of a status code.
    pub(crate) enum StatusClass("class") {
        /// 100 to 199.
        Provisional = "1xx",
        /// 200 to 299.
        Success = "2xx",
        /// 300 to 399.
        Redirection = "3xx",
        /// 400 to 499.
        ClientError = "4xx",
        /// 500 to 599.
        ServerError = "5xx",
        /// 600 to 699.
        GlobalFailure = "6xx",
    }
}

impl StatusClass {
    /// The class of a status code.
    #[must_use]
    pub(crate) fn of(status: u16) -> Self {
        match status {
            0..=199 => Self::Provisional,
            200..=299 => Self::Success,
            300..=399 => Self::Redirection,
            400..=499 => Self::ClientError,
            500..=599 => Self::ServerError,
            _ => Self::GlobalFailure,
        }
    }
}

label_enum! {
    /// Which way a message went.
    pub(crate) enum Way("direction") {
        /// It came.
        Received = "received",
        /// It went.
        Sent = "sent",
    }
}

label_enum! {
    /// How a REGISTER ended.
    pub(crate) enum RegisterOutcome("outcome") {
        /// Contacts were bound or refreshed.
        Bound = "bound",
        /// Contacts were removed.
        Removed = "removed",
        /// The contacts were asked for.
        Fetched = "fetched",
        /// Credentials were asked for.
        Challenged = "challenged",
        /// The credentials are wrong, or not for this address.
        Denied = "denied",
        /// The request was wrong in another way.
        Rejected = "rejected",
        /// We could not serve it.
        Failed = "failed",
    }
}

impl RegisterOutcome {
    /// Whether the phone got what it came for, or is on its way to it.
    pub(crate) fn is_good(self) -> bool {
        matches!(self, Self::Bound | Self::Removed | Self::Fetched | Self::Challenged)
    }
}

label_enum! {
    /// Why a binding was removed before it ran out.
    pub(crate) enum BindingLoss("reason") {
        /// The edge says that its flow is gone.
        FlowClosed = "flow_closed",
        /// Nobody answered keep-alives any more.
        Unanswered = "unanswered",
    }
}

label_enum! {
    /// What became of keep-alives.
    pub(crate) enum KeepAliveStep("step") {
        /// It was sent.
        Sent = "sent",
        /// It was answered.
        Answered = "answered",
        /// Its turn came later than it should, because so many are sent in a second at most.
        Late = "late",
    }
}

label_enum! {
    /// Whom a ban is for.
    pub(crate) enum BanScope("scope") {
        /// All of an address.
        Source = "source",
        /// One user from an address.
        User = "user",
    }
}

label_enum! {
    /// How an attempt to set up a call ended. RFC 6076 and E.425 ratios are sums of these:
    /// SER = answered / (all - redirected), SEER adds unavailable, busy and declined, ISA = ineffective / all,
    /// ASR = answered / all, NER adds busy, no answer, cancelled and declined.
    pub(crate) enum AttemptResult("result") {
        /// 2xx.
        Answered = "answered",
        /// 3xx.
        Redirected = "redirected",
        /// 486.
        Busy = "busy",
        /// 480: the called customer is not there or did not answer.
        Unavailable = "unavailable",
        /// 600 and 603.
        Declined = "declined",
        /// 487: the caller gave up.
        Cancelled = "cancelled",
        /// 408, 500, 503, 504.
        Ineffective = "ineffective",
        /// 404, 410, 484, 604: no such customer.
        NotFound = "not_found",
        /// 401, 402, 403, 407: the caller may not.
        Denied = "denied",
        /// Every other failure.
        Rejected = "rejected",
    }
}

impl AttemptResult {
    /// The result that a final status code stands for.
    #[must_use]
    pub(crate) fn of(status: u16) -> Self {
        match status {
            200..=299 => Self::Answered,
            300..=399 => Self::Redirected,
            486 => Self::Busy,
            480 => Self::Unavailable,
            600 | 603 => Self::Declined,
            487 => Self::Cancelled,
            408 | 500 | 503 | 504 => Self::Ineffective,
            404 | 410 | 484 | 604 => Self::NotFound,
            401..=403 | 407 => Self::Denied,
            _ => Self::Rejected,
        }
    }

    /// The outcome of a call record: `answered`, `busy`, `no_answer`, `cancelled`, `rejected`, `failed`.
    #[must_use]
    pub(crate) fn record_outcome(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Busy => "busy",
            Self::Unavailable => "no_answer",
            Self::Cancelled => "cancelled",
            Self::Ineffective => "failed",
            Self::Redirected | Self::Declined | Self::NotFound | Self::Denied | Self::Rejected => "rejected",
        }
    }
}

label_enum! {
    /// Whether a session was set up: RFC 6076 section 4.3 tells the delays of the two apart.
    pub(crate) enum SetupResult("result") {
        /// 2xx.
        Answered = "answered",
        /// Every other final response.
        Failed = "failed",
    }
}

/// Whose a measure is: what all indicators of calls are told apart by. Names of the configuration only, so that their
/// number is known; what is to be told apart next is a field here and a set in `signals/indicators.rs`.
#[derive(Clone, Debug)]
pub(crate) struct Scope<'a> {
    /// The caller's region.
    pub(crate) region: &'a Region,
    /// The caller's tenant, or the called one's for calls from trunks.
    pub(crate) tenant: Option<TenantName>,
    /// The trunk that a call came by.
    pub(crate) calling_trunk: Option<TrunkName>,
    /// The trunk that it left by, or was last tried at.
    pub(crate) called_trunk: Option<TrunkName>,
}

impl<'a> Scope<'a> {
    /// Nobody knows whose it is.
    pub(crate) fn of_region(region: &'a Region) -> Self {
        Self { region, tenant: None, calling_trunk: None, called_trunk: None }
    }
}

label_enum! {
    /// Why a call ended, or never began.
    pub(crate) enum CallCause("cause") {
        /// The caller hung up.
        CallerHungUp = "caller_hung_up",
        /// The called side hung up.
        CalleeHungUp = "callee_hung_up",
        /// No sound came from either side.
        MediaTimeout = "media_timeout",
        /// It outlived every sensible call.
        LifetimeOver = "lifetime_over",
        /// The core stopped and did not wait for it.
        ShutDown = "shut_down",
        /// The core died; the call's end is its last sign of life.
        NodeLost = "node_lost",
        /// Nobody refreshed the session (RFC 4028); its end is the last sign of life.
        SessionExpired = "session_expired",
        /// An operator ended it.
        Operator = "operator",
        /// The called side was busy.
        Busy = "busy",
        /// The called side did not answer in time.
        NoAnswer = "no_answer",
        /// The caller gave up.
        Cancelled = "cancelled",
        /// The called side refused, or redirected.
        Declined = "declined",
        /// The called customer is unknown.
        UnknownCustomer = "unknown_customer",
        /// The called customer is known and not registered.
        NotRegistered = "not_registered",
        /// The caller may not.
        Denied = "denied",
        /// The flow to the called phone is gone.
        FlowGone = "flow_gone",
        /// The called phone said nothing.
        Unreachable = "unreachable",
        /// The relay refused.
        MediaRefused = "media_refused",
        /// We failed.
        ServerError = "server_error",
        /// We were overloaded or draining.
        Overload = "overload",
        /// The called side failed in another way.
        Rejected = "rejected",
        /// No trunk serves the number.
        NoRoute = "no_route",
        /// Caller or called number is blocked.
        Blocked = "blocked",
        /// Caller, called customer or tenant has as many calls as it may have.
        LimitReached = "limit_reached",
        /// No trunk had room.
        TrunkFull = "trunk_full",
        /// It looked like fraud.
        Fraud = "fraud",
        /// The account that pays for it has no money, or its money came to an end.
        NoCredit = "no_credit",
        /// Its account has no price for the number, or is blocked.
        NotCharged = "not_chargeable",
    }
}

label_enum! {
    /// What was asked of the relay.
    pub(crate) enum RelayRequest("request") {
        /// An offer.
        Offer = "offer",
        /// An answer.
        Answer = "answer",
        /// The end of a session.
        Delete = "delete",
        /// A look at a session.
        Query = "query",
    }
}

label_enum! {
    /// What the relay said.
    pub(crate) enum RelayOutcome("outcome") {
        /// It did what was asked.
        Done = "done",
        /// No port was free.
        PortsExhausted = "ports_exhausted",
        /// No session was free.
        SessionsExhausted = "sessions_exhausted",
        /// The description was not usable.
        BadDescription = "bad_description",
        /// It does not know the session.
        UnknownSession = "unknown_session",
        /// It is draining.
        Draining = "draining",
        /// There is no relay, or it did not answer in time.
        Unavailable = "unavailable",
    }
}

impl RelayOutcome {
    /// What a reply amounts to.
    #[must_use]
    pub(crate) fn of(reply: &Reply) -> Self {
        match reply {
            Reply::Description { .. } | Reply::Deleted(_) | Reply::State(_) => Self::Done,
            Reply::Refused(Refusal::PortsExhausted) => Self::PortsExhausted,
            Reply::Refused(Refusal::SessionsExhausted) => Self::SessionsExhausted,
            Reply::Refused(Refusal::BadDescription) => Self::BadDescription,
            Reply::Refused(Refusal::UnknownSession) => Self::UnknownSession,
            Reply::Refused(Refusal::Draining) => Self::Draining,
            Reply::Refused(Refusal::Unavailable) => Self::Unavailable,
        }
    }
}

label_enum! {
    /// Whether a call record was written.
    pub(crate) enum RecordOutcome("outcome") {
        /// It is on the disk.
        Written = "written",
        /// Neither disk nor database took it yet; it is tried again until one does.
        InMemory = "in_memory",
        /// It is lost, or the store was too slow to say.
        Failed = "failed",
    }
}

label_enum! {
    /// Why a request was turned away before anybody looked at it.
    pub(crate) enum ShedReason("reason") {
        /// The queue is long.
        Queue = "queue",
        /// No transaction is free.
        Transactions = "transactions",
        /// No call is free.
        Calls = "calls",
        /// The core is draining.
        Draining = "draining",
        /// A fault was switched on.
        Fault = "fault",
        /// Too many wait who are not known.
        Stranger = "stranger",
        /// It waited too long behind others.
        Stale = "stale",
    }
}

label_enum! {
    /// What was decided about a request.
    pub(crate) enum Decision("decision") {
        /// Who the caller is.
        Authenticate = "authenticate",
        /// Where it goes.
        Route = "route",
        /// That it goes to several places.
        Fork = "fork",
        /// That another place is tried.
        FailOver = "fail_over",
        /// Whether and for how long its account pays for it.
        Charge = "charge",
        /// That it goes nowhere.
        Refuse = "refuse",
    }
}

label_enum! {
    /// Why a message did not leave.
    pub(crate) enum SendFault("reason") {
        /// The flow is gone.
        FlowGone = "flow_gone",
        /// The token is not one of the edge's.
        BadToken = "bad_token",
        /// The peer could not be reached.
        Unreachable = "unreachable",
        /// The flow's queue was full.
        QueueFull = "queue_full",
        /// The edge does not speak the transport.
        UnsupportedTransport = "unsupported_transport",
        /// The link to the edge is down or full.
        EdgeLink = "edge_link",
    }
}

impl From<crate::handle::SendFailure> for SendFault {
    fn from(failure: crate::handle::SendFailure) -> Self {
        use crate::handle::SendFailure;
        match failure {
            SendFailure::FlowGone => Self::FlowGone,
            SendFailure::BadToken => Self::BadToken,
            SendFailure::Unreachable => Self::Unreachable,
            SendFailure::QueueFull => Self::QueueFull,
            SendFailure::UnsupportedTransport => Self::UnsupportedTransport,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_known_by_their_exact_name() {
        assert_eq!(MethodName::of(b"INVITE"), MethodName::Invite);
        assert_eq!(MethodName::of(b"invite"), MethodName::Other);
        assert_eq!(MethodName::of(b"OTHER"), MethodName::Other);
    }

    #[test]
    fn results_follow_rfc_6076() {
        let seer: Vec<u16> = (100..700)
            .filter(|status| {
                use AttemptResult::{Answered, Busy, Declined, Unavailable};
                *status >= 200
                    && matches!(AttemptResult::of(*status), Answered | Busy | Declined | Unavailable)
                    && *status % 100 != 99
                    && !(201..300).contains(status)
            })
            .collect();
        assert_eq!(seer, [200, 480, 486, 600, 603]);
        assert_eq!(AttemptResult::of(503), AttemptResult::Ineffective);
    }
}
