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

belfry_signal::label_enum! {
    /// The kinds of record.
    pub enum RecordKind("kind") {
        /// A log line.
        Log = "log",
        /// A finished span.
        Span = "span",
        /// A SIP message.
        Sip = "sip",
        /// A window of media quality.
        Quality = "quality",
        /// A call that ended.
        Call = "call",
    }
}

impl RecordKind {
    /// The kind of a record.
    #[must_use]
    pub fn of(body: &Body) -> Self {
        match body {
            Body::Log(_) => Self::Log,
            Body::Span(_) => Self::Span,
            Body::Sip(_) => Self::Sip,
            Body::Quality(_) => Self::Quality,
            Body::Call(_) => Self::Call,
        }
    }
}

/// A Call-ID in 64 bits, for filters and the index. Readers that must be exact compare the Call-ID as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CallKey(pub(crate) u64);

impl CallKey {
    pub(crate) fn of(call_id: &str) -> Self {
        // A cryptographic hash, because peers choose Call-IDs and must not be able to make two collide.
        let digest = Sha256::digest(call_id.as_bytes());
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&digest[..8]);
        Self(u64::from_be_bytes(bytes))
    }
}

/// The value of an attribute, as text and, where it is one, as a number.
#[derive(Clone, Debug)]
pub(crate) struct Fact<'a> {
    pub(crate) text: Cow<'a, str>,
    pub(crate) number: Option<f64>,
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
    pub(crate) call_key: Option<CallKey>,
    /// Texts in which words and phrases are looked for; a phrase never reaches from one into the next.
    pub(crate) texts: Vec<Cow<'a, str>>,
    pub(crate) attributes: Vec<(Cow<'a, str>, Fact<'a>)>,
}

impl<'a> Facts<'a> {
    /// The facts of a record, of which at most `text_bytes_max` bytes of text.
    pub(crate) fn of(record: &'a Record, text_bytes_max: usize) -> Self {
        let mut facts = Facts {
            kind: RecordKind::of(&record.body),
            severity: severity(&record.body),
            component: &record.component,
            node: None,
            region: None,
            trace_id: trace_id(&record.body),
            call_key: call_id(&record.body).map(CallKey::of),
            texts: Vec::with_capacity(8),
            attributes: Vec::with_capacity(8),
        };
        match &record.body {
            Body::Log(log) => {
                facts.text(log.message.as_ref());
                facts.add_all(&log.attributes);
            }
            Body::Span(span) => facts.add_span(span, record.unix_nanos),
            Body::Sip(message) => facts.add_sip(message),
            Body::Quality(quality) => facts.add_quality(quality),
            Body::Call(call) => facts.add_call(call),
        }
        if let Some(call_id) = call_id(&record.body) {
            facts.add("sip.call_id", call_id, None);
        }
        facts.cut(text_bytes_max);
        facts
    }

    fn text(&mut self, text: impl Into<Cow<'a, str>>) {
        self.texts.push(text.into());
    }

    fn add(&mut self, name: &'a str, text: impl Into<Cow<'a, str>>, number: Option<f64>) {
        let text = text.into();
        self.texts.push(text.clone());
        self.attributes.push((attribute_name(name), Fact { text, number: number.and_then(plain) }));
    }

    fn add_number(&mut self, name: &'a str, number: f64) {
        self.add(name, number.to_string(), Some(number));
    }

    #[expect(clippy::cast_precision_loss, reason = "numbers are searched as doubles, here and in the index")]
    fn add_all(&mut self, attributes: &'a Attributes) {
        for (name, value) in attributes {
            match value {
                Value::Text(text) => {
                    if name == "geo.region" {
                        self.region = Some(text);
                    }
                    self.add(name, text.as_ref(), None);
                }
                Value::Private(text) => self.add(name, text.reveal().as_str(), None),
                Value::Int(number) => self.add(name, number.to_string(), Some(*number as f64)),
                Value::Float(number) => self.add_number(name, *number),
                Value::Bool(truth) => self.add(name, if *truth { "true" } else { "false" }, None),
            }
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a duration in seconds")]
    fn add_span(&mut self, span: &'a Span, end_unix_nanos: u64) {
        self.text(span.name.as_ref());
        self.add_all(&span.attributes);
        self.add("span.name", span.name.as_ref(), None);
        self.add("span.status", if span.status == SpanStatus::Error { "error" } else { "ok" }, None);
        let seconds = end_unix_nanos.saturating_sub(span.start_unix_nanos) as f64 / 1e9;
        self.add_number("span.duration_seconds", seconds);
    }

    fn add_sip(&mut self, message: &'a SipMessage) {
        self.node = Some(&message.node);
        self.text(message.summary.as_ref());
        match message.summary.parse::<u16>() {
            Ok(code) => self.add("sip.response.status_code", message.summary.as_ref(), Some(code.into())),
            Err(_) => self.add("sip.method", message.summary.as_ref(), None),
        }
        if let Some(method) = message.cseq.split_ascii_whitespace().nth(1)
            && method != message.summary
        {
            self.add("sip.method", method, None);
        }
        self.add("sip.cseq", message.cseq.as_str(), None);
        let direction = if message.direction == Direction::Received { "received" } else { "sent" };
        self.add("sip.direction", direction, None);
        self.add("sip.transport", message.transport.as_ref(), None);
        self.add("sip.peer", message.peer.reveal().to_string(), None);
        self.add("sip.retransmission", if message.retransmission { "true" } else { "false" }, None);
        self.text(String::from_utf8_lossy(message.bytes.reveal()));
    }

    #[expect(clippy::cast_precision_loss, reason = "numbers are searched as doubles, here and in the index")]
    fn add_quality(&mut self, quality: &'a Quality) {
        self.region = Some(quality.region.as_str());
        self.add("rtc.leg", quality.leg.as_ref(), None);
        self.add("geo.region", quality.region.as_str(), None);
        self.add_number("rtp.packets", quality.packets as f64);
        let expected = quality.packets.saturating_add(quality.lost).max(1);
        self.add_number("rtp.loss_ratio", quality.lost as f64 / expected as f64);
        self.add_number("rtp.jitter_ms", quality.jitter_ms);
        let optional = [
            ("rtp.rtt_ms", quality.rtt_ms),
            ("rtc.mos", quality.mos),
            ("rtc.r_factor", quality.r_factor),
            ("rtp.payload_type", quality.payload_type.map(f64::from)),
        ];
        for (name, number) in optional {
            if let Some(number) = number {
                self.add_number(name, number);
            }
        }
    }

    fn add_call(&mut self, call: &'a Call) {
        self.region = Some(call.region.as_str());
        self.add("call.outcome", call.outcome.as_ref(), None);
        self.add("call.cause", call.cause.as_ref(), None);
        self.add("call.caller", call.caller.reveal().as_str(), None);
        self.add("call.callee", call.callee.reveal().as_str(), None);
        self.add("geo.region", call.region.as_str(), None);
        self.add("sip.transport", call.transport.as_ref(), None);
        self.add("sip.response.status_code", call.status_code.to_string(), Some(call.status_code.into()));
        if let Some(country) = &call.country {
            self.add("geo.country", country.as_str(), None);
        }
        let optional = [
            ("call.post_dial_seconds", call.post_dial_seconds),
            ("rtc.mos_min", call.mos_min),
            ("rtc.mos", call.mos_mean),
        ];
        for (name, number) in optional {
            if let Some(number) = number {
                self.add_number(name, number);
            }
        }
        for leg in &call.silent_legs {
            self.add("call.silent_leg", leg.as_ref(), None);
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
            shorten(&mut fact.text, bytes_max);
        }
    }
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

/// Numbers that can be ordered; the two zeros are one.
fn plain(number: f64) -> Option<f64> {
    number.is_finite().then_some(number + 0.0)
}

/// An attribute's name as it is indexed and searched: what the query language can write.
pub(crate) fn attribute_name(name: &str) -> Cow<'_, str> {
    if name.chars().all(is_name_char) {
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
    let call_id = match body {
        Body::Log(log) => log.call_id.as_ref()?,
        Body::Span(span) => span.call_id.as_ref()?,
        Body::Sip(message) => &message.call_id,
        Body::Quality(quality) => &quality.call_id,
        Body::Call(call) => &call.call_id,
    };
    Some(call_id.reveal())
}

/// About how much memory a record takes.
pub(crate) fn weight(record: &Record) -> usize {
    let attributes = |attributes: &Attributes| -> usize {
        attributes
            .iter()
            .map(|(name, value)| {
                let text = match value {
                    Value::Text(text) => text.len(),
                    Value::Private(text) => text.reveal().len(),
                    Value::Int(_) | Value::Float(_) | Value::Bool(_) => 0,
                };
                64 + name.len() + text
            })
            .sum()
    };
    let own = match &record.body {
        Body::Log(log) => log.message.len() + attributes(&log.attributes),
        Body::Span(span) => span.name.len() + attributes(&span.attributes),
        Body::Sip(message) => message.bytes.reveal().len() + message.cseq.len() + message.node.len(),
        Body::Quality(_) => 0,
        Body::Call(call) => 256 + call.caller.reveal().len() + call.callee.reveal().len(),
    };
    size_of::<Record>() + 64 + own + call_id(&record.body).map_or(0, str::len)
}
