//! The way out for records: bounded, never waiting, counting what it drops.

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::label::Region;
use crate::metric::{Counter, CounterHandle};
use crate::now_unix_nanos;
use crate::packed::{RecordKind, Stub};
use crate::pii::Pii;
use crate::queue::{Queue, RecordReceiver};
use crate::record::{
    Attributes, Body, Call, Log, Name, Quality, Record, Severity, SipBodyRef, SipMessageRef, SipRecordRef,
    Span,
};
use crate::registry::Component;
use crate::trace::SpanContext;

/// What all records of a process have in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resource {
    /// The node's name from the configuration.
    pub node: String,
    /// The site's name from the configuration.
    pub site: String,
    /// The region in which the site stands.
    pub region: Region,
    /// The version of Belfry.
    pub version: String,
}

impl Resource {
    /// A resource for tests.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a literal")]
    pub fn for_test() -> Self {
        let region = Region::configured("test").expect("a plain name");
        Self { node: "node-1".into(), site: "site-1".into(), region, version: "test".into() }
    }
}

/// Takes records from components. Cheap to clone; never blocks; full means dropped and counted.
#[derive(Clone, Debug)]
pub struct Emitter {
    queue: Arc<Queue>,
    resource: Arc<Resource>,
    counts: Arc<OnceLock<Counts>>,
}

#[derive(Debug)]
struct Counts {
    emitted: [CounterHandle; RecordKind::ALL.len()],
    dropped: [CounterHandle; RecordKind::ALL.len()],
}

impl Emitter {
    pub(crate) fn new(resource: Resource, records_max: usize) -> (Self, RecordReceiver) {
        let (queue, receiver) = Queue::new(records_max);
        (Self { queue, resource: Arc::new(resource), counts: Arc::default() }, receiver)
    }

    pub(crate) fn register(&self, component: &Component) {
        let emitted: Counter<(RecordKind,)> =
            component.counter("records_emitted_total", "Records that components handed to telemetry.");
        let dropped: Counter<(RecordKind,)> = component
            .counter("records_dropped_total", "Records dropped because the telemetry queue was full.");
        let handles =
            |family: &Counter<(RecordKind,)>| std::array::from_fn(|i| family.handle((RecordKind::ALL[i],)));
        let counts = Counts { emitted: handles(&emitted), dropped: handles(&dropped) };
        if self.counts.set(counts).is_err() {
            debug_assert!(false, "an emitter is registered once");
        }
    }

    /// What this process is called.
    #[must_use]
    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    /// Hands over a record of now.
    pub fn emit(&self, component: &'static str, body: Body) {
        self.emit_at(now_unix_nanos(), component, body);
    }

    /// Hands over a record of the given time.
    pub fn emit_at(&self, unix_nanos: u64, component: &'static str, body: Body) {
        let record = Record { unix_nanos, component: Name::Borrowed(component), body };
        self.count(RecordKind::of(&record.body), self.queue.push(&record));
    }

    fn count(&self, kind: RecordKind, is_taken: bool) {
        let kind = kind as usize;
        if let Some(counts) = self.counts.get() {
            counts.emitted[kind].inc();
            if !is_taken {
                counts.dropped[kind].inc();
            }
        }
    }

    /// A log line. Info and above also go to the operator's terminal, with private values redacted.
    pub fn log(
        &self,
        component: &'static str,
        severity: Severity,
        message: &'static str,
        attributes: Attributes,
        context: Option<SpanContext>,
        call_id: Option<Pii<String>>,
    ) {
        // The facade wants the level at compile time.
        let particulars = Particulars(&attributes);
        match severity {
            Severity::Error => tracing::error!(target: "belfry", "{component}: {message}{particulars}"),
            Severity::Warn => tracing::warn!(target: "belfry", "{component}: {message}{particulars}"),
            Severity::Info => tracing::info!(target: "belfry", "{component}: {message}{particulars}"),
            Severity::Debug => tracing::debug!(target: "belfry", "{component}: {message}{particulars}"),
        }
        let message = Name::Borrowed(message);
        self.emit(component, Body::Log(Log { severity, message, attributes, context, call_id }));
    }

    /// A finished span.
    pub fn span(&self, component: &'static str, span: Span) {
        self.emit(component, Body::Span(span));
    }

    /// A SIP message received or sent at the given time.
    pub fn sip_at(&self, unix_nanos: u64, component: &'static str, message: SipMessageRef<'_>) {
        let stub = Stub::about(unix_nanos, RecordKind::Sip, message.call_id.reveal());
        let record = SipRecordRef { unix_nanos, component, body: SipBodyRef::Sip(message) };
        self.count(RecordKind::Sip, self.queue.push_encoded(stub, &record));
    }

    /// A window of media quality.
    pub fn quality(&self, component: &'static str, quality: Quality) {
        self.emit(component, Body::Quality(quality));
    }

    /// A call that ended.
    pub fn call(&self, component: &'static str, call: Call) {
        self.emit(component, Body::Call(Box::new(call)));
    }
}

/// The particulars as a person at a terminal reads them, with private values redacted.
struct Particulars<'a>(&'a Attributes);

impl fmt::Display for Particulars<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (separator, (name, value)) in std::iter::once(": ").chain(std::iter::repeat(", ")).zip(self.0) {
            write!(f, "{separator}{name} {value}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Direction, SipMessage};
    use crate::registry::Registry;
    use crate::trace::TraceId;

    #[test]
    fn particulars_read_well_and_keep_secrets() {
        let private = Pii::new("+442071838750".to_owned());
        let attributes: Attributes = vec![
            ("edge.listener".into(), "https".into()),
            ("caller".into(), private.into()),
            ("calls".into(), 3_i64.into()),
        ];
        assert_eq!(Particulars(&attributes).to_string(), ": edge.listener https, caller [private], calls 3");
        assert_eq!(Particulars(&vec![]).to_string(), "");
    }

    #[test]
    fn a_message_that_is_not_copied_is_the_same_record() {
        let (registry, mut receiver) = Registry::new(Resource::for_test(), 2);
        let (trace_id, peer) = (TraceId(*b"0123456789abcdef"), "192.0.2.1:5060".parse().expect("an address"));
        let given = SipMessageRef {
            call_id: Pii::new("a@b"),
            trace_id,
            direction: Direction::Sent,
            transport: "udp",
            peer: Pii::new(peer),
            node: "node-1",
            summary: "INVITE",
            cseq: "1 INVITE",
            retransmission: true,
            bytes: Pii::new(b"INVITE sip:b@c SIP/2.0"),
        };
        registry.emitter().sip_at(7, "test", given);
        let message = SipMessage {
            call_id: Pii::new("a@b".to_owned()),
            trace_id,
            direction: Direction::Sent,
            transport: "udp".into(),
            peer: Pii::new(peer),
            node: "node-1".into(),
            summary: "INVITE".into(),
            cseq: "1 INVITE".to_owned(),
            retransmission: true,
            bytes: Pii::new(b"INVITE sip:b@c SIP/2.0".to_vec()),
        };
        let expected = Record { unix_nanos: 7, component: "test".into(), body: Body::Sip(message) };
        assert_eq!(receiver.try_recv(), Ok(expected));
    }

    #[test]
    fn a_full_queue_drops_and_counts_and_never_waits() {
        let (registry, mut receiver) = Registry::new(Resource::for_test(), 2);
        for _ in 0..5 {
            registry.emitter().log("test", Severity::Debug, "something happened", vec![], None, None);
        }
        let text = registry.encode_text();
        assert!(text.contains("signal_records_emitted_total{kind=\"log\"} 5"), "{text}");
        assert!(text.contains("signal_records_dropped_total{kind=\"log\"} 3"), "{text}");
        let record = receiver.try_recv().expect("the first record was kept");
        assert_eq!(record.body.kind(), "log");
    }
}
