//! The closed vocabularies of the relay's metrics.

use belfry_relay_api::{Leg, Refusal, Reply, Request};

belfry_signal::label_enum! {
    /// What a forwarded packet was.
    pub(crate) enum Traffic("kind") { Rtp = "rtp", Rtcp = "rtcp", Other = "other" }
}

belfry_signal::label_enum! {
    /// Why a packet from outside was not taken.
    pub(crate) enum Unwanted("reason") {
        /// Its source is not the leg's.
        Foreign = "foreign",
        /// The leg has not been described yet.
        Undescribed = "undescribed",
        /// It is not what belongs on the port.
        Malformed = "malformed",
        /// It is STUN, and we offered no ICE.
        Stun = "stun",
    }
}

belfry_signal::label_enum! {
    /// Why a packet that was taken was not sent on.
    pub(crate) enum Loss("reason") {
        /// The loss fault is on.
        Fault = "fault",
        /// The kernel's send buffer was full.
        SendBuffer = "send_buffer",
        /// The other leg's port is closed or its host cannot be reached.
        Unreachable = "unreachable",
        /// The other leg has no address: on hold, or not heard and described by name.
        NoDestination = "no_destination",
    }
}

belfry_signal::label_enum! {
    /// A side of a call.
    pub(super) enum Side("leg") { Caller = "caller", Callee = "callee" }
}

belfry_signal::label_enum! {
    /// Where packets of a window went missing.
    pub(super) enum Place("place") {
        /// Before they reached us or in us.
        Lost = "lost",
        /// They came, but after their turn.
        Late = "late",
    }
}

belfry_signal::label_enum! {
    /// What was asked.
    pub(crate) enum Asked("request") { Offer = "offer", Answer = "answer", Delete = "delete", Query = "query" }
}

belfry_signal::label_enum! {
    /// How a request ended.
    pub(super) enum Outcome("outcome") {
        Done = "done",
        PortsExhausted = "ports_exhausted",
        SessionsExhausted = "sessions_exhausted",
        BadDescription = "bad_description",
        UnknownSession = "unknown_session",
        Draining = "draining",
        Unavailable = "unavailable",
    }
}

belfry_signal::label_enum! {
    /// Why a session ended.
    pub(crate) enum End("end") {
        /// The core said so.
        Deleted = "deleted",
        /// Nothing was heard of it for too long.
        Abandoned = "abandoned",
        /// Its core was gone, and one side or both fell silent.
        Orphaned = "orphaned",
        /// The relay stopped.
        Stopped = "stopped",
    }
}

impl From<Leg> for Side {
    fn from(leg: Leg) -> Self {
        match leg {
            Leg::Caller => Self::Caller,
            Leg::Callee => Self::Callee,
        }
    }
}

impl From<&Request> for Asked {
    fn from(request: &Request) -> Self {
        match request {
            Request::Offer(_) => Self::Offer,
            Request::Answer(_) => Self::Answer,
            Request::Delete { .. } => Self::Delete,
            Request::Query { .. } => Self::Query,
        }
    }
}

impl From<&Reply> for Outcome {
    fn from(reply: &Reply) -> Self {
        match reply {
            Reply::Description { .. } | Reply::Deleted(_) | Reply::State(_) => Self::Done,
            Reply::Refused(refusal) => match refusal {
                Refusal::PortsExhausted => Self::PortsExhausted,
                Refusal::SessionsExhausted => Self::SessionsExhausted,
                Refusal::BadDescription => Self::BadDescription,
                Refusal::UnknownSession => Self::UnknownSession,
                Refusal::Draining => Self::Draining,
                Refusal::Unavailable => Self::Unavailable,
            },
        }
    }
}
