//! Typed records: what travels from a component to the pipeline and into the stores.
//!
//! They carry private values as [`Pii`], so only code that says `reveal` can see them.

mod layout;

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::label::Region;
use crate::pii::Pii;
use crate::trace::{SpanContext, SpanId, TraceId};

/// A text that is usually a literal.
pub type Name = Cow<'static, str>;

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// For whoever debugs.
    Debug,
    /// Lifecycle.
    Info,
    /// Unexpected, but nobody lost a call or data.
    Warn,
    /// A person must look.
    Error,
}

impl Severity {
    /// The OpenTelemetry severity text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        }
    }

    /// The OpenTelemetry severity number.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Debug => 5,
            Self::Info => 9,
            Self::Warn => 13,
            Self::Error => 17,
        }
    }
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// Text from a closed vocabulary or the configuration.
    Text(Name),
    /// Text that describes a person or device.
    Private(Pii<String>),
    /// A whole number.
    Int(i64),
    /// A measured number.
    Float(f64),
    /// Yes or no.
    Bool(bool),
}

/// As a person reads it; private values print redacted.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Private(private) => private.fmt(f),
            Self::Int(number) => number.fmt(f),
            Self::Float(number) => number.fmt(f),
            Self::Bool(truth) => truth.fmt(f),
        }
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<&Region> for Value {
    fn from(region: &Region) -> Self {
        Self::Text(Cow::Owned(region.as_str().to_owned()))
    }
}

impl From<Pii<String>> for Value {
    fn from(private: Pii<String>) -> Self {
        Self::Private(private)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Int(number.into())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

/// Named values, as in `[("sip.method", "INVITE".into())]`.
pub type Attributes = Vec<(Name, Value)>;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When, in nanoseconds since the Unix epoch.
    pub unix_nanos: u64,
    /// The component that says so, as `edge_gateway`.
    pub component: Name,
    /// What.
    pub body: Body,
}

/// How the component of a record begins that others made and that came in by a door, as `door_syslog`.
const FOREIGN: &str = "door_";

impl Record {
    /// Whether others made it. Then all its texts are theirs, its message and names too: none may become a label or
    /// leave the region.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        self.component.starts_with(FOREIGN)
    }
}

/// The kinds of record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Body {
    /// A log line.
    Log(Log),
    /// A finished span.
    Span(Span),
    /// A SIP message that was received or sent.
    Sip(SipMessage),
    /// A window of media quality on one leg.
    Quality(Quality),
    /// A call that ended.
    Call(#[serde(with = "layout")] Box<Call>),
}

impl Body {
    /// The kind, bounded, for labels.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Log(_) => "log",
            Self::Span(_) => "span",
            Self::Sip(_) => "sip",
            Self::Quality(_) => "quality",
            Self::Call(_) => "call",
        }
    }

    /// The call that it belongs to.
    #[must_use]
    pub fn call_id(&self) -> Option<&str> {
        let call_id = match self {
            Self::Log(log) => log.call_id.as_ref()?,
            Self::Span(span) => span.call_id.as_ref()?,
            Self::Sip(message) => &message.call_id,
            Self::Quality(quality) => &quality.call_id,
            Self::Call(call) => &call.call_id,
        };
        Some(call_id.reveal())
    }
}

/// A log line: a fixed event name and message, with the particulars as attributes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Log {
    /// How much it matters.
    pub severity: Severity,
    /// A fixed sentence, lower case, no full stop.
    pub message: Name,
    /// The particulars.
    pub attributes: Attributes,
    /// The trace it belongs to.
    pub context: Option<SpanContext>,
    /// The call it belongs to.
    pub call_id: Option<Pii<String>>,
}

/// How a span ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SpanStatus {
    /// As meant.
    Ok,
    /// Not as meant.
    Error,
}

/// Which side of a conversation a span is (OpenTelemetry span kind).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SpanKind {
    /// Inside the component.
    Internal,
    /// It answers somebody.
    Server,
    /// It asks somebody.
    Client,
}

/// A finished span; its end is the record's time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// The trace and the span.
    pub context: SpanContext,
    /// The span above it.
    pub parent: Option<SpanId>,
    /// A fixed name, as `sip.transaction`.
    pub name: Name,
    /// Which side.
    pub kind: SpanKind,
    /// When it began, in nanoseconds since the Unix epoch.
    pub start_unix_nanos: u64,
    /// How it ended.
    pub status: SpanStatus,
    /// The particulars.
    pub attributes: Attributes,
    /// The call it belongs to.
    pub call_id: Option<Pii<String>>,
}

/// Which way a message went, seen from the component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// It came.
    Received,
    /// It went.
    Sent,
}

/// A SIP message as it was on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SipMessage {
    /// The call, registration or other exchange: the Call-ID.
    pub call_id: Pii<String>,
    /// The trace of the call.
    pub trace_id: TraceId,
    /// Which way.
    pub direction: Direction,
    /// The SIP transport, as `udp`.
    pub transport: Name,
    /// The peer.
    pub peer: Pii<SocketAddr>,
    /// The name of the edge or core that saw it.
    pub node: Name,
    /// `INVITE` or `180`, bounded by the component to known methods and codes.
    pub summary: Name,
    /// The CSeq header's value.
    pub cseq: String,
    /// Whether it repeats one that was seen before.
    pub retransmission: bool,
    /// The whole message.
    #[serde(with = "as_bytes")]
    pub bytes: Pii<Vec<u8>>,
}

/// A message on its way into telemetry, as whoever passes it on has it: nothing is copied but into the record. Field for
/// field what [`SipMessage`] is, with the same bytes.
#[derive(Clone, Debug, Serialize)]
pub struct SipMessageRef<'a> {
    /// The call, registration or other exchange: the Call-ID.
    pub call_id: Pii<&'a str>,
    /// The trace of the call.
    pub trace_id: TraceId,
    /// Which way.
    pub direction: Direction,
    /// The SIP transport, as `udp`.
    pub transport: &'a str,
    /// The peer.
    pub peer: Pii<SocketAddr>,
    /// The name of the edge or core that saw it.
    pub node: &'a str,
    /// `INVITE` or `180`, bounded by the component to known methods and codes.
    pub summary: &'a str,
    /// The CSeq header's value.
    pub cseq: &'a str,
    /// Whether it repeats one that was seen before.
    pub retransmission: bool,
    /// The whole message.
    #[serde(serialize_with = "in_one_piece")]
    pub bytes: Pii<&'a [u8]>,
}

fn in_one_piece<S: serde::Serializer>(bytes: &Pii<&[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes.reveal())
}

/// A [`Record`] of such a message.
#[derive(Serialize)]
pub(crate) struct SipRecordRef<'a> {
    pub(crate) unix_nanos: u64,
    pub(crate) component: &'a str,
    pub(crate) body: SipBodyRef<'a>,
}

/// [`Body`] with the one kind that it may be, in its place.
#[derive(Serialize)]
pub(crate) enum SipBodyRef<'a> {
    #[expect(dead_code, reason = "it keeps a place")]
    Log,
    #[expect(dead_code, reason = "it keeps a place")]
    Span,
    Sip(SipMessageRef<'a>),
}

/// Bytes in one piece: serde takes a vector for a sequence, and visits every byte of a message.
mod as_bytes {
    use std::fmt;

    use serde::de::{SeqAccess, Visitor};
    use serde::{Deserializer, Serializer};

    use crate::pii::Pii;

    pub(super) fn serialize<S: Serializer>(bytes: &Pii<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes.reveal())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Pii<Vec<u8>>, D::Error> {
        deserializer.deserialize_byte_buf(Bytes).map(Pii::new)
    }

    struct Bytes;

    impl<'de> Visitor<'de> for Bytes {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
            Ok(bytes.to_vec())
        }

        fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
            Ok(bytes)
        }

        /// Formats for people have no bytes but lists of numbers.
        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<u8>, A::Error> {
            let mut bytes = Vec::new();
            while let Some(byte) = sequence.next_element()? {
                bytes.push(byte);
            }
            Ok(bytes)
        }
    }
}

/// Media quality of one leg over one window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// The call.
    pub call_id: Pii<String>,
    /// Its trace.
    pub trace_id: TraceId,
    /// `caller` or `callee`: whose sound this is.
    pub leg: Name,
    /// The leg's region.
    pub region: Region,
    /// Length of the window in seconds.
    pub window_seconds: f64,
    /// Packets that came in the window.
    pub packets: u64,
    /// Packets lost in the window.
    pub lost: u64,
    /// Interarrival jitter at the end of the window, in milliseconds.
    pub jitter_ms: f64,
    /// Round trip to the leg, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Mean opinion score of the window.
    pub mos: Option<f64>,
    /// Transmission rating of the window.
    pub r_factor: Option<f64>,
    /// RTP payload type.
    pub payload_type: Option<u8>,
}

/// A call that ended, as search and the call page show it. On disk its layout has a number: see `record/layout.rs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// The Call-ID.
    pub call_id: Pii<String>,
    /// The trace.
    pub trace_id: TraceId,
    /// When the INVITE came, in nanoseconds since the Unix epoch.
    pub start_unix_nanos: u64,
    /// When it was answered.
    pub answer_unix_nanos: Option<u64>,
    /// Who called.
    pub caller: Pii<String>,
    /// Who was called.
    pub callee: Pii<String>,
    /// The caller's region.
    pub region: Region,
    /// The caller's country.
    pub country: Option<String>,
    /// The caller's transport.
    pub transport: Name,
    /// Whose customer's it is: the caller's tenant, or the called one's for calls from trunks.
    pub tenant: Option<String>,
    /// The trunk that it came by.
    pub calling_trunk: Option<String>,
    /// The trunk that it left by, or last tried to.
    pub called_trunk: Option<String>,
    /// `answered`, `busy`, `no_answer`, `cancelled`, `rejected`, `failed`.
    pub outcome: Name,
    /// The final status code of the INVITE.
    pub status_code: u16,
    /// Why it ended or failed, from a closed vocabulary.
    pub cause: Name,
    /// Seconds from INVITE to the first ringing or final answer (post-dial delay).
    pub post_dial_seconds: Option<f64>,
    /// The lowest score of either leg.
    pub mos_min: Option<f64>,
    /// The mean score of both legs.
    pub mos_mean: Option<f64>,
    /// Legs from which nothing was heard although the call was answered.
    pub silent_legs: Vec<Name>,
}
