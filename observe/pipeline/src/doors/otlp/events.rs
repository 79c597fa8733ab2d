//! OTLP's logs and spans as records of ours. Pure.

use belfry_signal::record::{Span, SpanKind, SpanStatus};
use belfry_signal::{Record, Severity, SpanContext, SpanId, Value};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind as OtlpKind};
use opentelemetry_proto::tonic::trace::v1::{Span as OtlpSpan, Status, status::StatusCode};

use super::Understood;
use super::attributes::{add_shared, attributes, of_resource, shared, spelled};
use crate::doors::shape::{Expansion, ForeignLog, Shaper, bytes_of, context, severity, text};

/// Links of a span that are kept.
const LINKS_MAX: usize = 16;
/// Events of a span that are kept.
const EVENTS_MAX: usize = 128;

/// The log records of a request. All that was decoded can be kept.
pub(super) fn logs(request: ExportLogsServiceRequest, shaper: &mut Shaper<'_>) -> Understood<Record> {
    let (mut understood, mut expansion) = (Understood::default(), Expansion::default());
    for resource in request.resource_logs {
        let of_resource = of_resource(resource.resource);
        for of_scope in resource.scope_logs {
            let count = of_scope.log_records.len();
            let Some(shared) = shared_within(&of_resource, of_scope.scope, count, &mut expansion) else {
                understood.refuse_all(count, Expansion::REFUSED);
                continue;
            };
            for log in of_scope.log_records {
                understood.taken.push(record(log, &shared, shaper));
            }
        }
    }
    understood
}

fn record(log: LogRecord, shared: &[(String, Value)], shaper: &mut Shaper<'_>) -> Record {
    let mut own = Vec::with_capacity(log.attributes.len() + shared.len() + 1);
    attributes(log.attributes, &mut own);
    add_shared(&mut own, shared);
    if !log.event_name.is_empty() {
        own.push(("event.name".to_owned(), text(log.event_name.clone())));
    }
    let message = spelled(log.body);
    shaper.log(ForeignLog {
        // What has no time of its own has that at which it was seen first.
        unix_nanos: Some(if log.time_unix_nano > 0 {
            log.time_unix_nano
        } else {
            log.observed_time_unix_nano
        }),
        severity: by_number(log.severity_number)
            .or_else(|| severity(&log.severity_text))
            .unwrap_or(Severity::Info),
        message: if message.is_empty() { log.event_name } else { message },
        attributes: own,
        context: context(&log.trace_id, &log.span_id, log.flags & 1 == 1),
    })
}

/// The ranges of the data model of logs: 1 to 4 trace, 5 to 8 debug, and so on.
fn by_number(number: i32) -> Option<Severity> {
    match number {
        1..=8 => Some(Severity::Debug),
        9..=12 => Some(Severity::Info),
        13..=16 => Some(Severity::Warn),
        17..=24 => Some(Severity::Error),
        _ => None,
    }
}

/// The spans of a request, and their events as log lines. Spans without ids are refused.
pub(super) fn spans(request: ExportTraceServiceRequest, shaper: &mut Shaper<'_>) -> Understood<Record> {
    let (mut understood, mut expansion) = (Understood::default(), Expansion::default());
    for resource in request.resource_spans {
        let of_resource = of_resource(resource.resource);
        for of_scope in resource.scope_spans {
            let count = of_scope.spans.len();
            let Some(shared) = shared_within(&of_resource, of_scope.scope, count, &mut expansion) else {
                understood.refuse_all(count, Expansion::REFUSED);
                continue;
            };
            for span in of_scope.spans {
                add_span(span, &shared, &mut expansion, shaper, &mut understood);
            }
        }
    }
    understood
}

/// What the records of a scope share, while the request has not become too much. It is copied once for the scope and once
/// for each record; a scope without records has no need of it.
fn shared_within(
    of_resource: &[(String, Value)],
    scope: Option<InstrumentationScope>,
    records: usize,
    expansion: &mut Expansion,
) -> Option<Vec<(String, Value)>> {
    if records == 0 {
        return Some(Vec::new());
    }
    if !expansion.allows(bytes_of(of_resource), 1) {
        return None;
    }
    let shared = shared(of_resource, scope);
    expansion.allows(bytes_of(&shared), records).then_some(shared)
}

fn add_span(
    span: OtlpSpan,
    shared: &[(String, Value)],
    expansion: &mut Expansion,
    shaper: &mut Shaper<'_>,
    understood: &mut Understood<Record>,
) {
    let is_whole = span.span_id.len() == 8 && span.span_id.iter().any(|byte| *byte != 0);
    let Some(context) = context(&span.trace_id, &span.span_id, true).filter(|_| is_whole) else {
        return understood.refuse("a span needs a trace id of 16 bytes and a span id of 8, not all zero");
    };
    let otlp_kind = span.kind();
    // Enough to see who: the rest stands on the span.
    let service: Vec<_> = shared.iter().filter(|(name, _)| name == "service.name").cloned().collect();
    if !expansion.allows(bytes_of(&service), span.events.len().min(EVENTS_MAX)) {
        return understood.refuse(Expansion::REFUSED);
    }
    for event in span.events.into_iter().take(EVENTS_MAX) {
        understood.beside.push(event_log(event, context, &service, shaper));
    }
    let mut own = Vec::with_capacity(span.attributes.len() + shared.len() + 2);
    attributes(span.attributes, &mut own);
    if !span.links.is_empty() {
        let links: Vec<String> = span.links.iter().take(LINKS_MAX).map(|link| hex(&link.trace_id)).collect();
        own.push(("span.links".to_owned(), text(links.join(" "))));
    }
    let kind = kind(otlp_kind, &mut own);
    let status = status(span.status, &mut own);
    add_shared(&mut own, shared);
    let parent: Option<[u8; 8]> = span.parent_span_id.try_into().ok();
    let record = Span {
        context,
        parent: parent.filter(|bytes| *bytes != [0; 8]).map(SpanId),
        name: span.name.into(),
        kind,
        start_unix_nanos: span.start_time_unix_nano,
        status,
        attributes: Vec::new(),
        call_id: None,
    };
    let end = span.end_time_unix_nano.max(span.start_time_unix_nano);
    understood.taken.push(shaper.span(end, record, own));
}

fn kind(kind: OtlpKind, own: &mut Vec<(String, Value)>) -> SpanKind {
    match kind {
        OtlpKind::Unspecified | OtlpKind::Internal => SpanKind::Internal,
        OtlpKind::Server => SpanKind::Server,
        OtlpKind::Client => SpanKind::Client,
        // They do not wait for each other, as servers and clients do.
        OtlpKind::Producer => {
            own.push(("span.kind".to_owned(), text("producer")));
            SpanKind::Client
        }
        OtlpKind::Consumer => {
            own.push(("span.kind".to_owned(), text("consumer")));
            SpanKind::Server
        }
    }
}

fn status(status: Option<Status>, own: &mut Vec<(String, Value)>) -> SpanStatus {
    let Some(status) = status else { return SpanStatus::Ok };
    if status.code() != StatusCode::Error {
        return SpanStatus::Ok;
    }
    if !status.message.is_empty() {
        own.push(("status.message".to_owned(), text(status.message)));
    }
    SpanStatus::Error
}

/// What happened within a span, as a line of its trace.
fn event_log(
    event: Event,
    context: SpanContext,
    service: &[(String, Value)],
    shaper: &mut Shaper<'_>,
) -> Record {
    let mut own = Vec::new();
    attributes(event.attributes, &mut own);
    add_shared(&mut own, service);
    let severity = if event.name == "exception" { Severity::Error } else { Severity::Info };
    shaper.log(ForeignLog {
        unix_nanos: Some(event.time_unix_nano),
        severity,
        message: event.name,
        attributes: own,
        context: Some(context),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};

    use super::*;
    use crate::doors::config::DoorsConfig;
    use crate::doors::shape::Rules;
    use crate::doors::signals::Entrance;

    fn read(
        resource_bytes: usize,
        scopes: usize,
        spans_each: usize,
        events_each: usize,
    ) -> Understood<Record> {
        let value = AnyValue { value: Some(any_value::Value::StringValue("x".repeat(resource_bytes))) };
        let service = KeyValue { key: "service.name".to_owned(), value: Some(value), ..KeyValue::default() };
        let resource = Resource { attributes: vec![service], ..Resource::default() };
        let span = OtlpSpan {
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            events: vec![Event::default(); events_each],
            ..OtlpSpan::default()
        };
        let scope = ScopeSpans { spans: vec![span; spans_each], ..ScopeSpans::default() };
        let resource_spans = vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![scope; scopes],
            ..ResourceSpans::default()
        }];
        let rules = Rules::of(&DoorsConfig::default());
        let mut shaper = Shaper::new(&rules, Entrance::OtlpHttp, 1_795_000_000_000_000_000);
        spans(ExportTraceServiceRequest { resource_spans }, &mut shaper)
    }

    #[test]
    fn what_a_request_becomes_is_bounded_with_its_events_and_what_is_shared() {
        let check = |resource_bytes, scopes, spans_each, events_each| {
            let understood = read(resource_bytes, scopes, spans_each, events_each);
            (understood.taken.len(), understood.beside.len(), understood.refused)
        };
        assert_eq!(check(10, 2, 3, 4), (6, 24, 0));
        // A service's long name stands in each of its spans' events.
        let (taken, beside, refused) = check(1 << 20, 1, 4, 120);
        assert!(taken == 1 && beside == 120 && refused == 3, "{taken} {beside} {refused}");
        // A scope without spans copies nothing, however long what its resource says.
        assert_eq!(check(1 << 20, 100_000, 0, 0), (0, 0, 0));
        let (taken, _, refused) = check(1 << 20, 100, 1, 0);
        assert!(taken < 64 && i64::try_from(taken).unwrap_or(0) + refused == 100, "{taken} {refused}");
    }
}
