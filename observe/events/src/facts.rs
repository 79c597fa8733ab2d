//! What is searchable about a record: the one projection that the index and the live buffer both use.
//!
//! Typed records get the attribute names that DESIGN section 4 gives them, so that `sip.method:INVITE` finds
//! messages, spans and logs alike. Private values are facts too: this store never leaves the region, and only
//! authorised readers search it.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

use belfry_signal::record::{Attributes, Body, Call, Direction, Quality, SipMessage, Span, SpanStatus};
use belfry_signal::{Record, Severity, TraceId, Value};

use crate::words::cut;

pub use belfry_signal::RecordKind;

belfry_signal::label_enum! {
    /// What is kept together and equally long.
    #[derive(serde::Serialize, serde::Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Stream("stream") {
        /// All that belongs to a call, registration or other SIP exchange.
        Calls = "calls",
        /// Requests at the edge.
        Access = "access",
        /// The rest: what the system says about itself, and what others say about theirs.
        System = "system",
        /// Samples of what doors refused.
        Refused = "refused",
    }
}

/// What the doors of the pipeline say of something that they refused.
const REFUSED: &str = "refused at a door";

impl Stream {
    /// The stream of a record.
    #[must_use]
    pub fn of(body: &Body) -> Self {
        match body {
            _ if call_id(body).is_some() => Self::Calls,
            Body::Log(log) if log.message == "request" => Self::Access,
            Body::Log(log) if log.message == REFUSED => Self::Refused,
            Body::Span(span) if span.name == "edge.http" => Self::Access,
            _ => Self::System,
        }
    }
}

/// A Call-ID in 64 bits, for filters and the index. Readers compare the Call-ID itself as well.
pub(crate) fn call_key(call_id: &str) -> u64 {
    // A cryptographic hash, because peers choose Call-IDs and must not be able to make two collide.
    let digest = Sha256::digest(call_id.as_bytes());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(bytes)
}

/// The value of an attribute.
#[derive(Clone, Debug)]
pub(crate) enum Fact<'a> {
    Text(Cow<'a, str>),
    Int(i64),
    /// A measured number: it is compared, and its digits are no words.
    Float(f64),
}

impl Fact<'_> {
    /// The value as text.
    pub(crate) fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Int(number) => Cow::Owned(number.to_string()),
            Self::Float(number) => Cow::Owned(number.to_string()),
        }
    }

    /// The value as a number that can be ordered; the two zeros are one.
    #[expect(clippy::cast_precision_loss, reason = "numbers are searched as doubles")]
    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Self::Text(_) => None,
            Self::Int(number) => Some(*number as f64),
            Self::Float(number) => number.is_finite().then_some(number + 0.0),
        }
    }
}

/// What is searchable about one record.
#[derive(Clone, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) kind: RecordKind,
    pub(crate) severity: Severity,
    pub(crate) component: &'a str,
    pub(crate) node: Option<&'a str>,
    pub(crate) region: Option<&'a str>,
    pub(crate) trace_id: Option<TraceId>,
    pub(crate) call_id: Option<&'a str>,
    /// Texts in which words and phrases are looked for, besides the attributes that are not measured numbers; a
    /// phrase never reaches from one into the next.
    pub(crate) texts: Vec<Cow<'a, str>>,
    pub(crate) attributes: Vec<(Cow<'a, str>, Fact<'a>)>,
}

impl<'a> Facts<'a> {
    /// The facts of a record, of which at most `text_bytes_max` bytes of text, and of each attribute as many.
    pub(crate) fn of(record: &'a Record, text_bytes_max: usize) -> Self {
        let mut facts = Facts {
            kind: RecordKind::of(&record.body),
            severity: severity(&record.body),
            component: &record.component,
            node: None,
            region: None,
            trace_id: trace_id(&record.body),
            call_id: call_id(&record.body),
            texts: Vec::with_capacity(2),
            attributes: Vec::with_capacity(16),
        };
        match &record.body {
            Body::Log(log) => {
                facts.texts.push(log.message.as_ref().into());
                facts.add_all(&log.attributes);
            }
            Body::Span(span) => facts.add_span(span, record.unix_nanos),
            Body::Sip(message) => facts.add_sip(message),
            Body::Quality(quality) => facts.add_quality(quality),
            Body::Call(call) => facts.add_call(call),
        }
        if let Some(call_id) = facts.call_id {
            facts.add("sip.call_id", call_id);
        }
        facts.cut(text_bytes_max);
        facts
    }

    fn add(&mut self, name: &'a str, text: impl Into<Cow<'a, str>>) {
        self.attributes.push((attribute_name(name), Fact::Text(text.into())));
    }

    fn add_int(&mut self, name: &'a str, number: impl Into<i64>) {
        self.attributes.push((attribute_name(name), Fact::Int(number.into())));
    }

    fn add_float(&mut self, name: &'a str, number: f64) {
        self.attributes.push((attribute_name(name), Fact::Float(number)));
    }

    fn add_all(&mut self, attributes: &'a Attributes) {
        for (name, value) in attributes {
            match value {
                Value::Text(text) => {
                    if name == "geo.region" {
                        self.region = Some(text);
                    }
                    self.add(name, text.as_ref());
                }
                Value::Private(text) => {
                    if name == "host.name" {
                        self.node = Some(text.reveal());
                    }
                    self.add(name, text.reveal().as_str());
                }
                Value::Int(number) => self.add_int(name, *number),
                Value::Float(number) => self.add_float(name, *number),
                Value::Bool(truth) => self.add(name, yes_or_no(*truth)),
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a duration in seconds")]
    fn add_span(&mut self, span: &'a Span, end_unix_nanos: u64) {
        self.add_all(&span.attributes);
        self.add("span.name", span.name.as_ref());
        self.add("span.status", if span.status == SpanStatus::Error { "error" } else { "ok" });
        let seconds = end_unix_nanos.saturating_sub(span.start_unix_nanos) as f64 / 1e9;
        self.add_float("span.duration_seconds", seconds);
    }

    fn add_sip(&mut self, message: &'a SipMessage) {
        self.node = Some(&message.node);
        match message.summary.parse::<u16>() {
            Ok(code) => self.add_int("sip.response.status_code", code),
            Err(_) => self.add("sip.method", message.summary.as_ref()),
        }
        if let Some(method) = message.cseq.split_ascii_whitespace().nth(1)
            && method != message.summary
        {
            self.add("sip.method", method);
        }
        self.add("sip.cseq", message.cseq.as_str());
        let direction = if message.direction == Direction::Received { "received" } else { "sent" };
        self.add("sip.direction", direction);
        self.add("sip.transport", message.transport.as_ref());
        self.add("sip.peer", message.peer.reveal().to_string());
        self.add("sip.retransmission", yes_or_no(message.retransmission));
        let bytes = message.bytes.reveal();
        // Nearly all are UTF-8, which this sees ten times faster than the lossy way.
        let text = std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed);
        self.texts.push(text);
    }

    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    fn add_quality(&mut self, quality: &'a Quality) {
        self.region = Some(quality.region.as_str());
        self.add("rtc.leg", quality.leg.as_ref());
        self.add("geo.region", quality.region.as_str());
        self.add_int("rtp.packets", i64::try_from(quality.packets).unwrap_or(i64::MAX));
        let expected = quality.packets.saturating_add(quality.lost).max(1);
        self.add_float("rtp.loss_ratio", quality.lost as f64 / expected as f64);
        self.add_float("rtp.jitter_ms", quality.jitter_ms);
        let optional =
            [("rtp.rtt_ms", quality.rtt_ms), ("rtc.mos", quality.mos), ("rtc.r_factor", quality.r_factor)];
        for (name, number) in optional {
            if let Some(number) = number {
                self.add_float(name, number);
            }
        }
        if let Some(payload_type) = quality.payload_type {
            self.add_int("rtp.payload_type", payload_type);
        }
    }

    fn add_call(&mut self, call: &'a Call) {
        self.region = Some(call.region.as_str());
        self.add("call.outcome", call.outcome.as_ref());
        self.add("call.cause", call.cause.as_ref());
        self.add("call.caller", call.caller.reveal().as_str());
        self.add("call.callee", call.callee.reveal().as_str());
        self.add("geo.region", call.region.as_str());
        self.add("sip.transport", call.transport.as_ref());
        self.add_int("sip.response.status_code", call.status_code);
        if let Some(country) = &call.country {
            self.add("geo.country", country.as_str());
        }
        let names = [
            ("call.tenant", &call.tenant),
            ("call.calling_trunk", &call.calling_trunk),
            ("call.called_trunk", &call.called_trunk),
        ];
        for (name, value) in names {
            if let Some(value) = value {
                self.add(name, value.as_str());
            }
        }
        let optional = [
            ("call.post_dial_seconds", call.post_dial_seconds),
            ("rtc.mos_min", call.mos_min),
            ("rtc.mos", call.mos_mean),
        ];
        for (name, number) in optional {
            if let Some(number) = number {
                self.add_float(name, number);
            }
        }
        for leg in &call.silent_legs {
            self.add("call.silent_leg", leg.as_ref());
        }
    }

    /// Keeps the first `bytes_max` bytes of text, and of each attribute as many.
    fn cut(&mut self, bytes_max: usize) {
        let mut left = bytes_max;
        for text in &mut self.texts {
            shorten(text, left);
            left -= text.len();
        }
        for (_, fact) in &mut self.attributes {
            if let Fact::Text(text) = fact {
                shorten(text, bytes_max);
            }
        }
    }
}

fn yes_or_no(truth: bool) -> &'static str {
    if truth { "true" } else { "false" }
}

fn shorten(text: &mut Cow<'_, str>, bytes_max: usize) {
    if text.len() > bytes_max {
        let length = cut(text, bytes_max).len();
        match text {
            Cow::Borrowed(borrowed) => *borrowed = &borrowed[..length],
            Cow::Owned(owned) => owned.truncate(length),
        }
    }
}

/// An attribute's name as it is indexed and searched: what the query language can write.
pub(crate) fn attribute_name(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|byte| byte.is_ascii() && is_name_char(byte.into())) {
        Cow::Borrowed(name)
    } else {
        Cow::Owned(name.chars().map(|c| if is_name_char(c) { c } else { '_' }).collect())
    }
}

/// What a field or attribute name is made of.
pub(crate) fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/' | '@')
}

/// How much a record matters: log lines say it; of the rest, what went wrong is a warning.
#[must_use]
pub fn severity(body: &Body) -> Severity {
    match body {
        Body::Log(log) => log.severity,
        Body::Span(span) if span.status == SpanStatus::Error => Severity::Warn,
        Body::Call(call) if call.outcome == "failed" => Severity::Warn,
        Body::Call(_) => Severity::Info,
        Body::Span(_) | Body::Sip(_) | Body::Quality(_) => Severity::Debug,
    }
}

/// The trace that a record belongs to.
#[must_use]
pub fn trace_id(body: &Body) -> Option<TraceId> {
    let trace_id = match body {
        Body::Log(log) => log.context?.trace_id,
        Body::Span(span) => span.context.trace_id,
        Body::Sip(message) => message.trace_id,
        Body::Quality(quality) => quality.trace_id,
        Body::Call(call) => call.trace_id,
    };
    (trace_id != TraceId::default()).then_some(trace_id)
}

/// The call that a record belongs to.
pub(crate) fn call_id(body: &Body) -> Option<&str> {
    body.call_id()
}
