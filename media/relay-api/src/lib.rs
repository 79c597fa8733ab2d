//! The contract between whoever signals a call and whoever relays its sound: plain data, no behaviour.
//!
//! A *session* is one call anchored on one relay. A *leg* is one side of it: the caller's or the callee's.
//! The signalling core sends a [`Request`] and gets exactly one [`Reply`] with the same id;
//! the relay sends [`Notice`]s on its own account. The same types travel in process and, encoded, over the mesh.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Names one anchored call: the SIP Call-ID, which the relay treats as an opaque key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionKey(pub String);

/// One side of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Leg {
    /// The side that sent the first offer.
    Caller,
    /// The side that answered it.
    Callee,
}

impl Leg {
    /// The side that hears what this one says.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Caller => Self::Callee,
            Self::Callee => Self::Caller,
        }
    }

    /// The name used in labels and attributes (`rtc.leg`).
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Callee => "callee",
        }
    }
}

/// What the core sends to the relay; `id` pairs it with its reply.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ToRelay {
    /// Chosen by the sender, unique per link.
    pub id: u64,
    /// What is asked for.
    pub request: Request,
}

/// What the relay sends to the core.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum FromRelay {
    /// The answer to the request with this id.
    Reply {
        /// The request's id.
        id: u64,
        /// Its outcome.
        reply: Reply,
    },
    /// Something that the relay noticed on its own.
    Notice(Notice),
}

/// A request to the relay.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// A session description that travels from `from` to the other leg as an offer:
    /// creates the session or renegotiates it (RFC 3264).
    Offer(Description),
    /// The answer to the offer that stands, travelling from `from` to the other leg.
    Answer(Description),
    /// The call is over: stop forwarding, free the ports, report.
    Delete {
        /// Which call.
        session: SessionKey,
    },
    /// What is known about a live session.
    Query {
        /// Which call.
        session: SessionKey,
    },
}

/// A session description on its way through the relay.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Description {
    /// Which call.
    pub session: SessionKey,
    /// The leg that wrote the description.
    pub from: Leg,
    /// The SDP body as it came (RFC 8866); the relay edits addresses and ports, line by line.
    pub sdp: Vec<u8>,
    /// Where the leg's signalling came from: its RTP is expected from this address or the one in the SDP.
    pub signalled_from: IpAddr,
    /// The caller's region, for labels.
    pub region: String,
    /// The trace that the call belongs to: 16 bytes, from the keyed hash of the Call-ID.
    pub trace_id: [u8; 16],
}

/// The outcome of a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The rewritten description to send on.
    Description {
        /// The SDP body.
        sdp: Vec<u8>,
    },
    /// The session is gone; this is what it was.
    Deleted(Box<SessionReport>),
    /// The session as it stands.
    State(Box<SessionReport>),
    /// It could not be done.
    Refused(Refusal),
}

/// Why the relay refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Every port of the configured range is in use: answer 503.
    #[error("every media port is in use")]
    PortsExhausted,
    /// The configured number of sessions is reached: answer 503.
    #[error("the relay holds as many sessions as it may")]
    SessionsExhausted,
    /// The body is not a session description that can be anchored: answer 488.
    #[error("the session description cannot be used")]
    BadDescription,
    /// No such session: answer 481.
    #[error("there is no such session")]
    UnknownSession,
    /// The relay is draining: answer 503 or choose another.
    #[error("the relay is draining")]
    Draining,
    /// The relay could not open a socket or did not answer in time: answer 503.
    #[error("the relay is not available")]
    Unavailable,
}

impl Refusal {
    /// A bounded name for labels.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::PortsExhausted => "ports_exhausted",
            Self::SessionsExhausted => "sessions_exhausted",
            Self::BadDescription => "bad_description",
            Self::UnknownSession => "unknown_session",
            Self::Draining => "draining",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Something the relay noticed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Notice {
    /// No packet came on either leg for the configured time: the call is probably dead.
    Silent {
        /// Which call.
        session: SessionKey,
    },
    /// One leg sends and the other never did, past the configured time.
    OneWay {
        /// Which call.
        session: SessionKey,
        /// The leg that is not heard.
        missing: Leg,
    },
}

/// Quality of what arrived from one leg.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LegReport {
    /// RTP packets received from the leg.
    pub packets: u64,
    /// RTP payload and header bytes received from the leg.
    pub bytes: u64,
    /// Packets that the sequence numbers say were lost on the way to us (RFC 3550 A.3).
    pub lost: u64,
    /// Packets that came twice.
    pub duplicates: u64,
    /// Packets refused because they came from a wrong source.
    pub foreign: u64,
    /// Interarrival jitter in milliseconds (RFC 3550 A.8), the last value.
    pub jitter_ms: f64,
    /// The highest interarrival jitter in milliseconds.
    pub jitter_ms_max: f64,
    /// Round trip to the leg in milliseconds by RTCP, when it was measured.
    pub rtt_ms: Option<f64>,
    /// Mean opinion score of the whole leg (G.107), when at least one packet came.
    pub mos: Option<f64>,
    /// The lowest score of any reporting window.
    pub mos_min: Option<f64>,
    /// RTP payload type last seen.
    pub payload_type: Option<u8>,
}

/// A session as the relay saw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SessionReport {
    /// Which call.
    pub session: SessionKey,
    /// Seconds since the session was made.
    pub seconds: f64,
    /// Seconds since the last packet from either leg; `None` when none ever came.
    pub quiet_seconds: Option<f64>,
    /// What came from the caller.
    pub caller: LegReport,
    /// What came from the callee.
    pub callee: LegReport,
}
