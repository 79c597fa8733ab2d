//! Everything that the doors for others' telemetry tell about themselves.

use std::net::SocketAddr;

use belfry_signal::record::{Attributes, Body, Log};
use belfry_signal::{
    Counter, Emitter, Gauge, GaugeGuard, Histogram, Pii, Registry, SECONDS_FAST, Severity, Value,
};

use super::refusal::{Reason, Refusal};
use super::senders::SenderName;

belfry_signal::label_enum! {
    /// Where others' telemetry comes in.
    pub(crate) enum Entrance("door") {
        OtlpGrpc = "otlp_grpc",
        OtlpHttp = "otlp_http",
        Syslog = "syslog",
        Elastic = "elastic",
        Loki = "loki",
        Hep = "hep",
        File = "file",
    }
}

impl Entrance {
    /// The component of the records that come in here.
    pub(crate) fn component(self) -> &'static str {
        match self {
            Self::OtlpGrpc | Self::OtlpHttp => "door_otlp",
            Self::Syslog => "door_syslog",
            Self::Elastic => "door_elastic",
            Self::Loki => "door_loki",
            Self::Hep => "door_hep",
            Self::File => "door_file",
        }
    }
}

belfry_signal::label_enum! {
    /// What a door changed in a record so that it could be kept.
    pub(crate) enum Change("change") {
        /// Its text was longer than is kept.
        Cut = "cut",
        /// It had more attributes than stay apart.
        Folded = "folded",
        /// Its time lies in the future; it has the time at which it came.
        Future = "future",
        /// Its time lies too far back; it has the time at which it came.
        Past = "past",
        /// Its bytes are not UTF-8.
        Encoding = "encoding",
    }
}

belfry_signal::label_enum! {
    /// What became of captured calls.
    pub(crate) enum CallEnd("end") {
        /// It ended by BYE or by a final answer.
        Ended = "ended",
        /// Nothing was heard of it for long.
        Idle = "idle",
        /// As many as may be were followed: its messages are kept, and no record of it is made.
        Unfollowed = "unfollowed",
    }
}

const COMPONENT: &str = "doors";

/// The doors' families and their voice.
#[derive(Clone, Debug)]
pub(crate) struct Signals {
    emitter: Emitter,
    stored: Counter<(Entrance, SenderName)>,
    points_stored: Counter<(Entrance, SenderName)>,
    refused: Counter<(Entrance, Reason)>,
    changed: Counter<(Entrance, Change)>,
    received_bytes: Counter<(Entrance, SenderName)>,
    samples_left_out: Counter<(Entrance,)>,
    connections: Gauge<(Entrance,)>,
    connections_refused: Counter<(Entrance,)>,
    store_seconds: Histogram<(Entrance,)>,
    calls_open: Gauge<()>,
    calls_ended: Counter<(CallEnd,)>,
    delta_series: Gauge<()>,
    file_lag_bytes: Gauge<()>,
}

impl Signals {
    pub(crate) fn register(registry: &Registry) -> Self {
        let component = registry.component(COMPONENT);
        Self {
            emitter: component.emitter(),
            stored: component.counter(
                "records_stored_total",
                "Records of others that are durable, by door and configured sender.",
            ),
            points_stored: component.counter(
                "points_stored_total",
                "Points of others' series that are durable, by door and configured sender.",
            ),
            refused: component.counter("refused_total", "Records, or whole requests, that a door refused."),
            changed: component
                .counter("changed_total", "What was changed in others' records so that they could be kept."),
            received_bytes: component
                .counter("received_bytes_total", "Bytes that came in, as they came, by configured sender."),
            samples_left_out: component.counter(
                "refused_samples_left_out_total",
                "Refusals of which no sample was kept because there were too many.",
            ),
            connections: component.gauge("connections", "Connections of others open now."),
            connections_refused: component
                .counter("connections_refused_total", "Connections closed because too many were open."),
            store_seconds: component.histogram(
                "store_seconds",
                "From what came in being understood to its being durable.",
                SECONDS_FAST,
            ),
            calls_open: component.gauge("captured_calls", "Captured calls that are followed now."),
            calls_ended: component
                .counter("captured_calls_total", "Captured calls that ended, or that could not be followed."),
            delta_series: component.gauge("delta_series", "Series whose deltas are added up."),
            file_lag_bytes: component
                .gauge("file_lag_bytes", "Bytes of followed files that are not read yet."),
        }
    }

    pub(crate) fn opened(&self, door: Entrance, transport: &'static str, address: SocketAddr) {
        let attributes = vec![
            ("door".into(), door.as_str().into()),
            ("transport".into(), transport.into()),
            ("net.address".into(), Value::Text(address.to_string().into())),
        ];
        self.log(Severity::Info, "door for telemetry opened", attributes);
    }

    /// A door takes anything from whoever reaches it, and others can read it on the way; that may be meant so.
    pub(crate) fn opened_to_all(&self, warning: &str) {
        let attributes = vec![("warning".into(), Value::Text(warning.to_owned().into()))];
        self.log(Severity::Warn, "door for telemetry takes plain text from the network", attributes);
    }

    pub(crate) fn received(&self, door: Entrance, sender: &SenderName, bytes: usize) {
        self.received_bytes.add((door, sender.clone()), bytes as u64);
    }

    pub(crate) fn stored(&self, door: Entrance, sender: &SenderName, records: usize, seconds: f64) {
        self.stored.add((door, sender.clone()), records as u64);
        self.store_seconds.observe((door,), seconds);
    }

    pub(crate) fn points_stored(&self, door: Entrance, sender: &SenderName, points: usize, seconds: f64) {
        self.points_stored.add((door, sender.clone()), points as u64);
        self.store_seconds.observe((door,), seconds);
    }

    pub(crate) fn refused(&self, door: Entrance, reason: Reason, records: usize) {
        self.refused.add((door, reason), records as u64);
    }

    /// Keeps the beginning of what was refused where a person can find it: `message:"refused at a door"`.
    pub(crate) fn refused_sample(&self, door: Entrance, sender: String, refusal: &Refusal, sample: String) {
        let attributes = vec![
            ("door".into(), door.as_str().into()),
            ("reason".into(), refusal.reason.as_str().into()),
            ("refusal".into(), Pii::new(refusal.text.clone()).into()),
            ("net.peer".into(), Pii::new(sender).into()),
            ("sample".into(), Pii::new(sample).into()),
        ];
        // Past the terminal: what strangers send must not fill it.
        let log = Log {
            severity: Severity::Warn,
            message: "refused at a door".into(),
            attributes,
            context: None,
            call_id: None,
        };
        self.emitter.emit(COMPONENT, Body::Log(log));
    }

    pub(crate) fn sample_left_out(&self, door: Entrance) {
        self.samples_left_out.inc((door,));
    }

    pub(crate) fn changed(&self, door: Entrance, change: Change) {
        self.changed.inc((door, change));
    }

    pub(crate) fn connection_opened(&self, door: Entrance) -> GaugeGuard {
        self.connections.guard((door,))
    }

    pub(crate) fn connection_refused(&self, door: Entrance) {
        self.connections_refused.inc((door,));
    }

    pub(crate) fn captured_calls(&self, open: usize) {
        self.calls_open.set((), i64::try_from(open).unwrap_or(i64::MAX));
    }

    pub(crate) fn captured_call_ended(&self, end: CallEnd) {
        self.calls_ended.inc((end,));
    }

    pub(crate) fn delta_series(&self, series: usize) {
        self.delta_series.set((), i64::try_from(series).unwrap_or(i64::MAX));
    }

    pub(crate) fn file_lag(&self, bytes: u64) {
        self.file_lag_bytes.set((), i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// How far files were read cannot be written down: after a restart some lines come twice.
    pub(crate) fn checkpoint_failed(&self, error: &std::io::Error) {
        let attributes = vec![("error".into(), Value::Text(error.kind().to_string().into()))];
        self.log(Severity::Error, "how far files were read cannot be kept", attributes);
    }

    fn log(&self, severity: Severity, message: &'static str, attributes: Attributes) {
        self.emitter.log(COMPONENT, severity, message, attributes, None, None);
    }
}
