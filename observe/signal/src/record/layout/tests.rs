//! Every kind of record as each release wrote it: what is on a disk must stay readable.

use super::super::*;
use super::*;
use crate::trace::{SpanContext, SpanId, TraceId};

/// Name, the bytes in hexadecimal digits; written by hand into the file when a layout is added, and never changed after.
const GOLDEN: &str = include_str!("golden.txt");

/// As [`Call`] was before tenants and trunks.
#[derive(Serialize)]
struct First {
    call_id: Pii<String>,
    trace_id: TraceId,
    start_unix_nanos: u64,
    answer_unix_nanos: Option<u64>,
    caller: Pii<String>,
    callee: Pii<String>,
    region: Region,
    country: Option<String>,
    transport: Name,
    outcome: Name,
    status_code: u16,
    cause: Name,
    post_dial_seconds: Option<f64>,
    mos_min: Option<f64>,
    mos_mean: Option<f64>,
    silent_legs: Vec<Name>,
}

/// A record as it was when calls had no layouts.
#[derive(Serialize)]
struct Unnumbered<T> {
    unix_nanos: u64,
    component: Name,
    /// The place of the kind.
    kind: u8,
    body: T,
}

fn call(outcome: &'static str, tenant: Option<&str>) -> Call {
    Call {
        call_id: Pii::new("a84b4c76@pc33".into()),
        trace_id: TraceId([7; 16]),
        start_unix_nanos: 1_795_161_600_000_000_000,
        answer_unix_nanos: Some(1_795_161_601_000_000_000),
        caller: Pii::new("sip:alice@example.com".into()),
        callee: Pii::new("sip:bob@example.com".into()),
        region: Region::configured("eu-west").expect("a plain name"),
        country: Some("DE".into()),
        transport: "udp".into(),
        tenant: tenant.map(str::to_owned),
        calling_trunk: None,
        called_trunk: tenant.map(|_| "carrier-a".to_owned()),
        outcome: outcome.into(),
        status_code: 200,
        cause: "normal".into(),
        post_dial_seconds: Some(0.25),
        mos_min: None,
        mos_mean: Some(4.25),
        silent_legs: vec!["callee".into()],
    }
}

fn first(call: Call) -> First {
    First {
        call_id: call.call_id,
        trace_id: call.trace_id,
        start_unix_nanos: call.start_unix_nanos,
        answer_unix_nanos: call.answer_unix_nanos,
        caller: call.caller,
        callee: call.callee,
        region: call.region,
        country: call.country,
        transport: call.transport,
        outcome: call.outcome,
        status_code: call.status_code,
        cause: call.cause,
        post_dial_seconds: call.post_dial_seconds,
        mos_min: call.mos_min,
        mos_mean: call.mos_mean,
        silent_legs: call.silent_legs,
    }
}

fn record(body: Body) -> Record {
    Record { unix_nanos: 1_795_161_612_345_678_901, component: "core_signalling".into(), body }
}

fn unnumbered<T: Serialize>(body: T) -> Vec<u8> {
    let record = record(Body::Call(Box::new(call("busy", None))));
    let written = Unnumbered { unix_nanos: record.unix_nanos, component: record.component, kind: 4, body };
    postcard::to_stdvec(&written).expect("plain data")
}

/// One of each kind, with every field told.
fn kinds() -> Vec<(&'static str, Record)> {
    let context = SpanContext { trace_id: TraceId([7; 16]), span_id: SpanId([2; 8]), sampled: true };
    let attributes: Attributes = vec![
        ("text".into(), "plain".into()),
        ("private".into(), Pii::new("hidden".to_owned()).into()),
        ("int".into(), (-3_i64).into()),
        ("float".into(), 0.5.into()),
        ("bool".into(), true.into()),
    ];
    let call_id = Pii::new("a84b4c76@pc33".to_owned());
    let log = Log {
        severity: Severity::Warn,
        message: "media loss noticed".into(),
        attributes: attributes.clone(),
        context: Some(context),
        call_id: Some(call_id.clone()),
    };
    let span = Span {
        context,
        parent: Some(SpanId([3; 8])),
        name: "sip.transaction".into(),
        kind: SpanKind::Client,
        start_unix_nanos: 1_795_161_612_000_000_000,
        status: SpanStatus::Error,
        attributes,
        call_id: Some(call_id.clone()),
    };
    let sip = SipMessage {
        call_id: call_id.clone(),
        trace_id: TraceId([7; 16]),
        direction: Direction::Sent,
        transport: "tls".into(),
        peer: Pii::new(([127, 0, 0, 1], 5060).into()),
        node: "core-1".into(),
        summary: "INVITE".into(),
        cseq: "1 INVITE".into(),
        retransmission: true,
        bytes: Pii::new(b"INVITE sip:bob@example.com SIP/2.0\r\n".to_vec()),
    };
    let quality = Quality {
        call_id,
        trace_id: TraceId([7; 16]),
        leg: "caller".into(),
        region: Region::configured("eu-west").expect("a plain name"),
        window_seconds: 5.0,
        packets: 245,
        lost: 5,
        jitter_ms: 2.25,
        rtt_ms: Some(12.5),
        mos: Some(4.25),
        r_factor: None,
        payload_type: Some(8),
    };
    vec![
        ("log", record(Body::Log(log))),
        ("span", record(Body::Span(span))),
        ("sip", record(Body::Sip(sip))),
        ("quality", record(Body::Quality(quality))),
        ("call", record(Body::Call(Box::new(call("answered", Some("acme")))))),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn golden(name: &str) -> Vec<u8> {
    let line = GOLDEN.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let digits = line.unwrap_or_else(|| panic!("golden.txt has no {name}")).as_bytes();
    let digit = |digit: u8| char::from(digit).to_digit(16).expect("a digit") as u8;
    digits.chunks(2).map(|pair| digit(pair[0]) * 16 + digit(pair[1])).collect()
}

#[test]
fn what_a_release_wrote_is_read_and_written_the_same() {
    for (name, record) in kinds() {
        let written = hex(&postcard::to_stdvec(&record).expect("plain data"));
        assert_eq!(postcard::from_bytes::<Record>(&golden(name)).as_ref(), Ok(&record), "{name} {written}");
        assert_eq!(written, hex(&golden(name)), "{name}: a changed layout needs a number of its own");
    }
}

#[test]
fn calls_of_the_releases_before_there_were_layouts_are_read() {
    let check = |name: &str, bytes: &[u8], expected: Call| {
        assert_eq!(hex(bytes), hex(&golden(name)), "{name}");
        let read = postcard::from_bytes::<Record>(&golden(name));
        assert_eq!(read, Ok(record(Body::Call(Box::new(expected)))), "{name}");
    };
    for (name, outcome) in
        [("call-0-answered", "answered"), ("call-0-busy", "busy"), ("call-0-no_answer", "no_answer")]
    {
        check(name, &unnumbered(first(call(outcome, None))), call(outcome, None));
    }
    check("call-1-tenant", &unnumbered(call("failed", Some("acme"))), call("failed", Some("acme")));
    check("call-1-plain", &unnumbered(call("failed", None)), call("failed", None));
}

#[test]
fn layouts_of_newer_releases_and_cut_ones_are_refused() {
    let mut bytes = golden("call");
    let at = bytes.windows(3).position(|window| window == [4, 0, LAYOUT]).expect("the number") + 2;
    for end in at..bytes.len() - 1 {
        assert!(postcard::from_bytes::<Record>(&bytes[..end]).is_err(), "cut at {end}");
    }
    bytes[at] = LAYOUT + 1;
    assert!(postcard::from_bytes::<Record>(&bytes).is_err());
}

#[test]
fn for_people_a_call_has_names() {
    let record = record(Body::Call(Box::new(call("answered", None))));
    let json = serde_json::to_value(&record).expect("JSON");
    assert_eq!(json["body"]["Call"]["outcome"], "answered");
    assert_eq!(serde_json::from_value::<Record>(json).expect("a record"), record);
}
