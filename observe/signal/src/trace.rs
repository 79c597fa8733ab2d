//! Trace and span ids, the W3C trace context, and the rule that a call is a trace.
//!
//! The trace id of a call is a keyed hash of its Call-ID: every leg, node and retry lands in one trace without
//! any coordination, and nobody without the key can go from the id back to the call.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// Names a trace (W3C Trace Context section 3.2.2.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct TraceId(pub [u8; 16]);

/// Names a span in a trace.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct SpanId(pub [u8; 8]);

impl TraceId {
    /// A new random id.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// Reads 32 hexadecimal digits; all zeros is not an id.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        (bytes != [0; 16]).then_some(Self(bytes))
    }
}

impl SpanId {
    /// A new random id.
    #[must_use]
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// Reads 16 hexadecimal digits; all zeros is not an id.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 8];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        (bytes != [0; 8]).then_some(Self(bytes))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where in a trace something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpanContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The span that is open.
    pub span_id: SpanId,
    /// Whether the trace is kept by whoever started it.
    pub sampled: bool,
}

impl SpanContext {
    /// The root of a new trace.
    #[must_use]
    pub fn new_root() -> Self {
        Self { trace_id: TraceId::random(), span_id: SpanId::random(), sampled: true }
    }

    /// A new span below this one.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { span_id: SpanId::random(), ..*self }
    }

    /// The `traceparent` header (W3C Trace Context section 3.2).
    #[must_use]
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }

    /// Reads a `traceparent` header; unknown versions are read as far as version 00 goes, as the standard asks.
    #[must_use]
    pub fn parse_traceparent(text: &str) -> Option<Self> {
        let mut fields = text.trim().split('-');
        let version = fields.next()?;
        let trace_id = TraceId::parse(fields.next()?)?;
        let span_id = SpanId::parse(fields.next()?)?;
        let flags = u8::from_str_radix(fields.next()?.get(..2)?, 16).ok()?;
        let is_known = version == "00" && fields.next().is_none();
        let is_later = version.len() == 2 && version != "00" && version != "ff";
        (is_known || is_later).then_some(Self { trace_id, span_id, sampled: flags & 1 == 1 })
    }
}

/// The site's key for trace ids, prepared: every message needs one.
#[derive(Clone)]
pub struct TraceKey(Option<Hmac<Sha256>>);

impl TraceKey {
    /// A key from 32 secret bytes, the same on all nodes of a site.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        // HMAC takes a key of any length; were it ever refused, the zero id is invalid and visible.
        Self(Hmac::new_from_slice(&key).ok())
    }

    /// The trace of the call with this Call-ID.
    #[must_use]
    pub fn trace_of_call(&self, call_id: &str) -> TraceId {
        let mut bytes = [0; 16];
        if let Some(key) = &self.0 {
            let code = key.clone().chain_update(call_id).finalize().into_bytes();
            bytes.copy_from_slice(&code[..16]);
        }
        TraceId(bytes)
    }
}

impl fmt::Debug for TraceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TraceKey([secret])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traceparent_survives_a_round_trip() {
        let context = SpanContext::new_root();
        assert_eq!(SpanContext::parse_traceparent(&context.traceparent()), Some(context));
        let child = context.child();
        assert_eq!(child.trace_id, context.trace_id);
        assert_ne!(child.span_id, context.span_id);
    }

    #[test]
    fn malformed_trace_contexts_are_refused() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(SpanContext::parse_traceparent(good).is_some());
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
        ] {
            assert_eq!(SpanContext::parse_traceparent(bad), None, "{bad:?}");
        }
        assert!(
            SpanContext::parse_traceparent("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-new")
                .is_some()
        );
    }

    #[test]
    fn a_call_is_one_trace_per_key() {
        let key = TraceKey::new([7; 32]);
        assert_eq!(key.trace_of_call("a@b"), key.trace_of_call("a@b"));
        assert_ne!(key.trace_of_call("a@b"), key.trace_of_call("a@c"));
        assert_ne!(key.trace_of_call("a@b"), TraceKey::new([8; 32]).trace_of_call("a@b"));
    }
}
