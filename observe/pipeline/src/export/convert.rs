//! From our records to OpenTelemetry's: the place that decides what may leave.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use belfry_signal::record::{Attributes, Log, Name, Span, SpanKind, SpanStatus};
use belfry_signal::{Record, Severity, Value};
use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, LoggerProvider as _};
use opentelemetry::trace::{SpanContext, SpanId, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, Key, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::{SdkLogRecord, SdkLogger, SdkLoggerProvider};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

/// What stands in the place of a private value.
const REDACTED: &str = "[private]";

/// Makes OpenTelemetry's records.
pub(super) struct Converter {
    /// The SDK gives out empty log records through a logger only; it exports nothing itself.
    logger: SdkLogger,
}

/// Names this process to the collector.
pub(super) fn resource(resource: &belfry_signal::Resource) -> Resource {
    Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", "belfry"),
            KeyValue::new("service.instance.id", resource.node.clone()),
            KeyValue::new("service.version", resource.version.clone()),
            KeyValue::new("belfry.site", resource.site.clone()),
            KeyValue::new("geo.region", resource.region.as_str().to_owned()),
        ])
        .build()
}

impl Converter {
    pub(super) fn new() -> Self {
        Self { logger: SdkLoggerProvider::builder().build().logger("belfry") }
    }

    pub(super) fn span(&self, record: &Record, span: &Span) -> SpanData {
        SpanData {
            span_context: SpanContext::new(
                TraceId::from_bytes(span.context.trace_id.0),
                SpanId::from_bytes(span.context.span_id.0),
                flags(span.context.sampled),
                false,
                TraceState::NONE,
            ),
            parent_span_id: span.parent.map_or(SpanId::INVALID, |parent| SpanId::from_bytes(parent.0)),
            parent_span_is_remote: false,
            span_kind: match span.kind {
                SpanKind::Internal => opentelemetry::trace::SpanKind::Internal,
                SpanKind::Server => opentelemetry::trace::SpanKind::Server,
                SpanKind::Client => opentelemetry::trace::SpanKind::Client,
            },
            name: span.name.clone(),
            start_time: time(span.start_unix_nanos),
            end_time: time(record.unix_nanos.max(span.start_unix_nanos)),
            attributes: attributes::<opentelemetry::Value>(&span.attributes)
                .map(|(key, value)| KeyValue::new(key, value))
                .collect(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: match span.status {
                SpanStatus::Ok => Status::Unset,
                SpanStatus::Error => Status::error(""),
            },
            instrumentation_scope: scope(&record.component),
        }
    }

    pub(super) fn log(&self, record: &Record, log: &Log) -> (SdkLogRecord, InstrumentationScope) {
        let mut converted = self.logger.create_log_record();
        converted.set_timestamp(time(record.unix_nanos));
        converted.set_observed_timestamp(time(record.unix_nanos));
        converted.set_severity_text(log.severity.as_str());
        converted.set_severity_number(match log.severity {
            Severity::Debug => opentelemetry::logs::Severity::Debug,
            Severity::Info => opentelemetry::logs::Severity::Info,
            Severity::Warn => opentelemetry::logs::Severity::Warn,
            Severity::Error => opentelemetry::logs::Severity::Error,
        });
        converted.set_body(AnyValue::String(log.message.clone().into_owned().into()));
        converted.add_attributes(attributes::<AnyValue>(&log.attributes));
        if let Some(context) = log.context {
            converted.set_trace_context(
                TraceId::from_bytes(context.trace_id.0),
                SpanId::from_bytes(context.span_id.0),
                Some(flags(context.sampled)),
            );
        }
        (converted, scope(&record.component))
    }
}

/// Attributes as spans or logs want them, without private values.
fn attributes<V>(attributes: &Attributes) -> impl Iterator<Item = (Key, V)> + '_
where
    V: From<String> + From<i64> + From<f64> + From<bool>,
{
    attributes.iter().map(|(name, value)| {
        let value = match value {
            Value::Text(text) => V::from(text.clone().into_owned()),
            Value::Private(_) => V::from(REDACTED.to_owned()),
            Value::Int(number) => V::from(*number),
            Value::Float(number) => V::from(*number),
            Value::Bool(truth) => V::from(*truth),
        };
        (Key::from(name.clone().into_owned()), value)
    })
}

fn scope(component: &Name) -> InstrumentationScope {
    InstrumentationScope::builder(component.clone()).build()
}

fn flags(is_sampled: bool) -> TraceFlags {
    if is_sampled { TraceFlags::SAMPLED } else { TraceFlags::default() }
}

fn time(unix_nanos: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(unix_nanos)
}
