//! The shapes of the JSON that people's pages read: twins of the records, which are made for machines.
//!
//! Times come twice: `time` in RFC 3339 to read, `unix_ms` in milliseconds to draw. Private values are plain here:
//! the router's readers are authorised.

use std::collections::BTreeMap;

use belfry_events::{CallRow, CallView, LogLine, Stamped, Timeline, TraceView, severity, trace_id};
use belfry_signal::record::{Body, Call, Direction, Quality, Record, SipMessage, Span, SpanKind};
use serde::Serialize;

use crate::describe::{attributes, describe, status};
use crate::participants::Participants;
use crate::time::{millis, offset_millis, text};

/// One call: ladder, spans, quality, logs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CallJson {
    /// The Call-ID.
    pub call_id: String,
    /// Its trace, in 32 hexadecimal digits.
    pub trace_id: Option<String>,
    /// The time that offsets count from: the first thing that is known.
    pub start: String,
    /// The same in milliseconds since the Unix epoch.
    pub start_unix_ms: f64,
    /// The call record, once the call ended.
    pub summary: Option<CallSummaryJson>,
    /// The columns of the ladder, from left to right.
    pub participants: Vec<ParticipantJson>,
    /// SIP messages in order of time.
    pub ladder: Vec<LadderEntryJson>,
    /// Spans in order of their start.
    pub spans: Vec<SpanJson>,
    /// Quality by leg.
    pub quality: Vec<LegJson>,
    /// Log lines in order of time.
    pub logs: Vec<LogLineJson>,
    /// Whether older records were left out because there were too many.
    pub is_cut: bool,
    /// Damaged parts of the store that could hold more.
    pub splits_damaged: usize,
}

/// One trace: spans, messages and logs of all its calls.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TraceJson {
    /// The trace, in 32 hexadecimal digits.
    pub trace_id: String,
    /// The time that offsets count from.
    pub start: String,
    /// The same in milliseconds since the Unix epoch.
    pub start_unix_ms: f64,
    /// Calls that ended in it.
    pub calls: Vec<CallSummaryJson>,
    /// The columns of the ladder.
    pub participants: Vec<ParticipantJson>,
    /// SIP messages in order of time.
    pub ladder: Vec<LadderEntryJson>,
    /// Spans in order of their start.
    pub spans: Vec<SpanJson>,
    /// Quality by leg.
    pub quality: Vec<LegJson>,
    /// Log lines in order of time.
    pub logs: Vec<LogLineJson>,
    /// Whether older records were left out because there were too many.
    pub is_cut: bool,
    /// Damaged parts of the store that could hold more.
    pub splits_damaged: usize,
}

/// A call that ended.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CallSummaryJson {
    /// The Call-ID.
    pub call_id: String,
    /// Its trace.
    pub trace_id: String,
    /// When the INVITE came.
    pub start: String,
    /// The same in milliseconds since the Unix epoch.
    pub start_unix_ms: f64,
    /// When it was answered, in milliseconds since the Unix epoch.
    pub answer_unix_ms: Option<f64>,
    /// Who called.
    pub caller: String,
    /// Who was called.
    pub callee: String,
    /// The caller's region.
    pub region: String,
    /// The caller's country.
    pub country: Option<String>,
    /// The caller's transport.
    pub transport: String,
    /// Whose customer's it is.
    pub tenant: Option<String>,
    /// The trunk that it came by.
    pub calling_trunk: Option<String>,
    /// The trunk that it left by, or last tried to.
    pub called_trunk: Option<String>,
    /// `answered`, `busy`, `no_answer`, `cancelled`, `rejected`, `failed`.
    pub outcome: String,
    /// Final status code of the INVITE.
    pub status_code: u16,
    /// Why it ended.
    pub cause: String,
    /// Seconds from INVITE to ringing.
    pub post_dial_seconds: Option<f64>,
    /// Lowest score of either leg.
    pub mos_min: Option<f64>,
    /// Mean score of both legs.
    pub mos_mean: Option<f64>,
    /// Legs from which nothing was heard.
    pub silent_legs: Vec<String>,
}

/// A call in a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CallRowJson {
    /// When it ended.
    pub end: String,
    /// The same in milliseconds since the Unix epoch.
    pub end_unix_ms: f64,
    /// From INVITE to end, in seconds.
    pub duration_seconds: f64,
    /// The call.
    #[serde(flatten)]
    pub call: CallSummaryJson,
}

/// A column of the ladder.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ParticipantJson {
    /// What ladder entries call it.
    pub label: String,
    /// `caller`, `node`, `callee` or `other`.
    pub role: &'static str,
    /// Address and port, unless it is one of our nodes.
    pub address: Option<String>,
}

/// One SIP message of the ladder.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LadderEntryJson {
    /// When.
    pub time: String,
    /// The same in milliseconds since the Unix epoch.
    pub unix_ms: f64,
    /// Milliseconds after the start.
    pub offset_ms: f64,
    /// `received` or `sent`, seen from the node.
    pub direction: &'static str,
    /// Label of the participant that sent it.
    pub from: String,
    /// Label of the participant that it went to.
    pub to: String,
    /// SIP transport.
    pub transport: String,
    /// Method or status code.
    pub summary: String,
    /// The CSeq header.
    pub cseq: String,
    /// Whether it repeats one that was seen before.
    pub retransmission: bool,
    /// Whether it has an SDP body.
    pub has_sdp: bool,
    /// The node that saw it.
    pub node: String,
    /// The message as it was on the wire; bytes that are not UTF-8 are replaced.
    pub raw: String,
}

/// One bar of the waterfall.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SpanJson {
    /// 16 hexadecimal digits.
    pub span_id: String,
    /// The span above it.
    pub parent_id: Option<String>,
    /// What.
    pub name: String,
    /// `internal`, `server` or `client`.
    pub kind: &'static str,
    /// Who.
    pub component: String,
    /// When it began.
    pub start: String,
    /// The same in milliseconds since the Unix epoch.
    pub start_unix_ms: f64,
    /// Milliseconds after the start of the whole.
    pub offset_ms: f64,
    /// How long.
    pub duration_ms: f64,
    /// `ok` or `error`.
    pub status: &'static str,
    /// The particulars.
    pub attributes: BTreeMap<String, serde_json::Value>,
}

/// The quality curve of one leg.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LegJson {
    /// `caller` or `callee`: whose sound this is.
    pub leg: String,
    /// The leg's region.
    pub region: String,
    /// One point per window, in order of time.
    pub points: Vec<QualityPointJson>,
}

/// One window of quality.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct QualityPointJson {
    /// End of the window, in milliseconds since the Unix epoch.
    pub unix_ms: f64,
    /// Milliseconds after the start.
    pub offset_ms: f64,
    /// Length of the window.
    pub window_seconds: f64,
    /// Packets that came.
    pub packets: u64,
    /// Packets lost.
    pub lost: u64,
    /// Lost of expected, 0 to 1.
    pub loss_ratio: f64,
    /// Interarrival jitter.
    pub jitter_ms: f64,
    /// Round trip.
    pub rtt_ms: Option<f64>,
    /// Mean opinion score.
    pub mos: Option<f64>,
    /// Transmission rating.
    pub r_factor: Option<f64>,
    /// RTP payload type.
    pub payload_type: Option<u8>,
}

/// One record of a search.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LogLineJson {
    /// Its number in the store, in the order of arrival: who follows a search knows by it what is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// When.
    pub time: String,
    /// The same in milliseconds since the Unix epoch.
    pub unix_ms: f64,
    /// `log`, `span`, `sip`, `quality` or `call`.
    pub kind: &'static str,
    /// `DEBUG`, `INFO`, `WARN` or `ERROR`.
    pub severity: &'static str,
    /// Who.
    pub component: String,
    /// What, in one line.
    pub message: String,
    /// The call it belongs to.
    pub call_id: Option<String>,
    /// The trace it belongs to.
    pub trace_id: Option<String>,
    /// The particulars.
    pub attributes: BTreeMap<String, serde_json::Value>,
}

impl CallJson {
    /// The twin of a call view.
    #[must_use]
    pub fn of(view: &CallView) -> Self {
        let start = start_of(&view.timeline, view.summary.as_ref());
        let parts = Parts::of(&view.timeline, start);
        Self {
            call_id: view.call_id.reveal().clone(),
            trace_id: view.trace_id.map(|trace_id| trace_id.to_string()),
            start: text(start),
            start_unix_ms: millis(start),
            summary: view.summary.as_ref().map(CallSummaryJson::of),
            participants: parts.participants,
            ladder: parts.ladder,
            spans: parts.spans,
            quality: parts.quality,
            logs: parts.logs,
            is_cut: view.timeline.is_cut,
            splits_damaged: view.timeline.splits_damaged,
        }
    }
}

impl TraceJson {
    /// The twin of a trace view.
    #[must_use]
    pub fn of(view: &TraceView) -> Self {
        let start = start_of(&view.timeline, view.calls.first());
        let parts = Parts::of(&view.timeline, start);
        Self {
            trace_id: view.trace_id.to_string(),
            start: text(start),
            start_unix_ms: millis(start),
            calls: view.calls.iter().map(CallSummaryJson::of).collect(),
            participants: parts.participants,
            ladder: parts.ladder,
            spans: parts.spans,
            quality: parts.quality,
            logs: parts.logs,
            is_cut: view.timeline.is_cut,
            splits_damaged: view.timeline.splits_damaged,
        }
    }
}

impl CallSummaryJson {
    /// The twin of a call record.
    #[must_use]
    pub fn of(call: &Call) -> Self {
        Self {
            call_id: call.call_id.reveal().clone(),
            trace_id: call.trace_id.to_string(),
            start: text(call.start_unix_nanos),
            start_unix_ms: millis(call.start_unix_nanos),
            answer_unix_ms: call.answer_unix_nanos.map(millis),
            caller: call.caller.reveal().clone(),
            callee: call.callee.reveal().clone(),
            region: call.region.as_str().to_owned(),
            country: call.country.clone(),
            transport: call.transport.as_ref().to_owned(),
            tenant: call.tenant.clone(),
            calling_trunk: call.calling_trunk.clone(),
            called_trunk: call.called_trunk.clone(),
            outcome: call.outcome.as_ref().to_owned(),
            status_code: call.status_code,
            cause: call.cause.as_ref().to_owned(),
            post_dial_seconds: call.post_dial_seconds,
            mos_min: call.mos_min,
            mos_mean: call.mos_mean,
            silent_legs: call.silent_legs.iter().map(|leg| leg.as_ref().to_owned()).collect(),
        }
    }
}

impl CallRowJson {
    /// The twin of a row.
    #[must_use]
    pub fn of(row: &CallRow) -> Self {
        Self {
            end: text(row.end_unix_nanos),
            end_unix_ms: millis(row.end_unix_nanos),
            duration_seconds: offset_millis(row.call.start_unix_nanos, row.end_unix_nanos) / 1000.0,
            call: CallSummaryJson::of(&row.call),
        }
    }
}

impl LogLineJson {
    /// The twin of a search's row.
    #[must_use]
    pub fn of(line: &LogLine) -> Self {
        Self { sequence: Some(line.sequence), ..Self::of_record(&line.record) }
    }

    fn of_record(record: &Record) -> Self {
        let (message, call_id, attributes) = describe(record);
        Self {
            sequence: None,
            time: text(record.unix_nanos),
            unix_ms: millis(record.unix_nanos),
            kind: record.body.kind(),
            severity: severity(&record.body).as_str(),
            component: record.component.as_ref().to_owned(),
            message,
            call_id,
            trace_id: trace_id(&record.body).map(|trace_id| trace_id.to_string()),
            attributes,
        }
    }
}

/// What calls and traces have in common.
struct Parts {
    participants: Vec<ParticipantJson>,
    ladder: Vec<LadderEntryJson>,
    spans: Vec<SpanJson>,
    quality: Vec<LegJson>,
    logs: Vec<LogLineJson>,
}

impl Parts {
    fn of(timeline: &Timeline, start: u64) -> Self {
        let participants = Participants::of(&timeline.messages);
        Self {
            ladder: timeline.messages.iter().map(|message| rung(message, &participants, start)).collect(),
            participants: participants
                .list
                .into_iter()
                .map(|participant| ParticipantJson {
                    label: participant.label,
                    role: participant.role.as_str(),
                    address: participant.address.map(|address| address.to_string()),
                })
                .collect(),
            spans: timeline.spans.iter().map(|span| bar(span, start)).collect(),
            quality: legs(&timeline.quality, start),
            logs: timeline
                .logs
                .iter()
                .map(|log| {
                    let (unix_nanos, component) = (log.unix_nanos, log.component.clone());
                    LogLineJson::of_record(&Record {
                        unix_nanos,
                        component,
                        body: Body::Log(log.value.clone()),
                    })
                })
                .collect(),
        }
    }
}

/// The first thing that is known: offsets are counted from here, so they are never negative.
pub(crate) fn start_of(timeline: &Timeline, call: Option<&Call>) -> u64 {
    let messages = timeline.messages.first().map(|message| message.unix_nanos);
    let spans = timeline.spans.first().map(|span| span.value.start_unix_nanos);
    let quality = timeline.quality.first().map(|point| point.unix_nanos);
    let logs = timeline.logs.first().map(|log| log.unix_nanos);
    let call = call.map(|call| call.start_unix_nanos);
    [messages, spans, quality, logs, call].into_iter().flatten().min().unwrap_or_default()
}

/// Whether a message carries a session description.
pub(crate) fn has_sdp(message: &SipMessage) -> bool {
    let bytes = message.bytes.reveal();
    let body = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    body.is_some_and(|at| bytes[at + 4..].starts_with(b"v=0"))
}

/// Lost of expected.
#[expect(clippy::cast_precision_loss, reason = "a ratio")]
pub(crate) fn loss_ratio(packets: u64, lost: u64) -> f64 {
    lost as f64 / packets.saturating_add(lost).max(1) as f64
}

fn rung(message: &Stamped<SipMessage>, participants: &Participants, start: u64) -> LadderEntryJson {
    let sip = &message.value;
    let (from, to) = participants.ends(sip);
    let label = |index: usize| participants.list.get(index).map_or_else(String::new, |one| one.label.clone());
    LadderEntryJson {
        time: text(message.unix_nanos),
        unix_ms: millis(message.unix_nanos),
        offset_ms: offset_millis(start, message.unix_nanos),
        direction: if sip.direction == Direction::Received { "received" } else { "sent" },
        from: label(from),
        to: label(to),
        transport: sip.transport.as_ref().to_owned(),
        summary: sip.summary.as_ref().to_owned(),
        cseq: sip.cseq.clone(),
        retransmission: sip.retransmission,
        has_sdp: has_sdp(sip),
        node: sip.node.as_ref().to_owned(),
        raw: String::from_utf8_lossy(sip.bytes.reveal()).into_owned(),
    }
}

fn bar(span: &Stamped<Span>, start: u64) -> SpanJson {
    let value = &span.value;
    SpanJson {
        span_id: value.context.span_id.to_string(),
        parent_id: value.parent.map(|parent| parent.to_string()),
        name: value.name.as_ref().to_owned(),
        kind: match value.kind {
            SpanKind::Internal => "internal",
            SpanKind::Server => "server",
            SpanKind::Client => "client",
        },
        component: span.component.as_ref().to_owned(),
        start: text(value.start_unix_nanos),
        start_unix_ms: millis(value.start_unix_nanos),
        offset_ms: offset_millis(start, value.start_unix_nanos),
        duration_ms: offset_millis(value.start_unix_nanos, span.unix_nanos).max(0.0),
        status: status(value.status),
        attributes: attributes(&value.attributes),
    }
}

fn legs(points: &[Stamped<Quality>], start: u64) -> Vec<LegJson> {
    let mut legs: Vec<LegJson> = Vec::new();
    for point in points {
        let quality = &point.value;
        let one = QualityPointJson {
            unix_ms: millis(point.unix_nanos),
            offset_ms: offset_millis(start, point.unix_nanos),
            window_seconds: quality.window_seconds,
            packets: quality.packets,
            lost: quality.lost,
            loss_ratio: loss_ratio(quality.packets, quality.lost),
            jitter_ms: quality.jitter_ms,
            rtt_ms: quality.rtt_ms,
            mos: quality.mos,
            r_factor: quality.r_factor,
            payload_type: quality.payload_type,
        };
        match legs.iter_mut().find(|leg| leg.leg == quality.leg) {
            Some(leg) => leg.points.push(one),
            None => legs.push(LegJson {
                leg: quality.leg.as_ref().to_owned(),
                region: quality.region.as_str().to_owned(),
                points: vec![one],
            }),
        }
    }
    legs
}
