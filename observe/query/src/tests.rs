//! The reader over HTTP and on a terminal, with a real store of events behind it.

use std::time::Duration;

use axum::Router;
use axum::body::Body as HttpBody;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::Value as Json;
use tower::ServiceExt as _;

use belfry_events::{Config, Events, EventsWriter};
use belfry_series::{Series, SeriesWriter};
use belfry_signal::record::{
    Body, Call, Direction, Log, Quality, Record, SipMessage, Span, SpanKind, SpanStatus,
};
use belfry_signal::{PackedRecord, Pii, Region, Registry, Sample, Severity, SpanContext, SpanId, TraceId};

use crate::{Reader, render_call, router};

/// 2026-11-20 08:00:00 UTC.
const START: u64 = 1_795_161_600_000_000_000;
const MILLI: u64 = 1_000_000;
const CALL_ID: &str = "a84b4c76/e66710@pc33";

fn region() -> Region {
    Region::configured("eu-west").expect("a plain name")
}

fn at(millis: u64, component: &'static str, body: Body) -> Record {
    Record { unix_nanos: START + millis * MILLI, component: component.into(), body }
}

fn sip(millis: u64, direction: Direction, port: u16, summary: &'static str, body: &str) -> Record {
    let message = format!("{summary} \u{1b}[31m\r\nCall-ID: {CALL_ID}\r\n\r\n{body}");
    let sip = SipMessage {
        call_id: Pii::new(CALL_ID.into()),
        trace_id: TraceId([1; 16]),
        direction,
        transport: "udp".into(),
        peer: Pii::new(([127, 0, 0, 1], port).into()),
        node: "core-1".into(),
        summary: summary.into(),
        cseq: "1 INVITE".into(),
        retransmission: summary == "180" && millis > 120,
        bytes: Pii::new(message.into_bytes()),
    };
    at(millis, "core_signalling", Body::Sip(sip))
}

fn quality(millis: u64, leg: &'static str, mos: f64) -> Record {
    let quality = Quality {
        call_id: Pii::new(CALL_ID.into()),
        trace_id: TraceId([1; 16]),
        leg: leg.into(),
        region: region(),
        window_seconds: 5.0,
        packets: 245,
        lost: 5,
        jitter_ms: 2.25,
        rtt_ms: Some(12.5),
        mos: Some(mos),
        r_factor: Some(80.0),
        payload_type: Some(0),
    };
    at(millis, "media_relay", Body::Quality(quality))
}

fn records() -> Vec<Record> {
    use Direction::{Received, Sent};
    let log = Log {
        severity: Severity::Warn,
        message: "media loss noticed".into(),
        attributes: vec![
            ("rtc.leg".into(), "caller".into()),
            ("sip.user_agent".into(), Pii::new("evil\u{1b}[2Jphone".to_owned()).into()),
        ],
        context: None,
        call_id: Some(Pii::new(CALL_ID.into())),
    };
    let span = Span {
        context: SpanContext { trace_id: TraceId([1; 16]), span_id: SpanId([2; 8]), sampled: true },
        parent: None,
        name: "sip.transaction".into(),
        kind: SpanKind::Server,
        start_unix_nanos: START,
        status: SpanStatus::Ok,
        attributes: vec![("sip.method".into(), "INVITE".into())],
        call_id: Some(Pii::new(CALL_ID.into())),
    };
    let call = Call {
        call_id: Pii::new(CALL_ID.into()),
        trace_id: TraceId([1; 16]),
        start_unix_nanos: START,
        answer_unix_nanos: Some(START + 900 * MILLI),
        caller: Pii::new("sip:alice@example.com".into()),
        callee: Pii::new("sip:bob@example.com".into()),
        region: region(),
        country: Some("DE".into()),
        transport: "udp".into(),
        tenant: Some("acme".into()),
        calling_trunk: None,
        called_trunk: Some("carrier-a".into()),
        outcome: "answered".into(),
        status_code: 200,
        cause: "normal".into(),
        post_dial_seconds: Some(0.12),
        mos_min: Some(2.1),
        mos_mean: Some(3.25),
        silent_legs: vec![],
    };
    vec![
        sip(0, Received, 5062, "INVITE", "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\n"),
        sip(1, Sent, 5062, "100", ""),
        sip(4, Sent, 5064, "INVITE", "v=0\r\n"),
        sip(110, Received, 5064, "180", ""),
        sip(120, Sent, 5062, "180", ""),
        sip(620, Received, 5064, "180", ""),
        sip(890, Received, 5064, "200", "v=0\r\n"),
        sip(900, Sent, 5062, "200", "v=0\r\n"),
        at(905, "core_signalling", Body::Span(span)),
        quality(5_900, "caller", 4.3),
        quality(5_901, "callee", 4.4),
        at(8_000, "media_relay", Body::Log(log)),
        quality(10_900, "caller", 2.1),
        quality(10_901, "callee", 4.4),
        at(12_000, "core_signalling", Body::Call(Box::new(call))),
    ]
}

pub(crate) struct World {
    _directory: tempfile::TempDir,
    _writer: EventsWriter,
    _series_writer: SeriesWriter,
    registry: Registry,
    pub(crate) reader: Reader,
}

impl World {
    pub(crate) fn router(&self) -> Router {
        router(self.reader.clone(), &self.registry)
    }
}

/// A store with one call, and with a minute of `calls_total`: in region eu the seconds, in region us no numbers.
pub(crate) fn world() -> World {
    let directory = tempfile::tempdir().expect("temporary directory");
    let registry = Registry::for_test();
    let config = Config::for_test(directory.path().join("events"));
    let (mut writer, events) = Events::open(config, &registry).expect("the store opens");
    let packed: Vec<_> = records().iter().map(|record| PackedRecord::of(record).expect("packed")).collect();
    writer.apply(1, &packed.iter().collect::<Vec<_>>()).expect("applied");
    let config = belfry_series::Config {
        block_duration: Duration::from_secs(3600),
        retention: Duration::from_secs(86_400),
        select_points_max: 10_000,
        ..belfry_series::Config::in_directory(directory.path().join("series"))
    };
    let (mut series_writer, series) = Series::open(config, &registry).expect("the store opens");
    for second in 0..60u32 {
        let sample = |region: &str, value: f64| Sample {
            name: "calls_total".into(),
            labels: vec![("region".into(), region.into())],
            value,
        };
        let unix_millis = i64::try_from(START / MILLI).expect("fits") + i64::from(second) * 1000;
        let samples = [sample("eu", second.into()), sample("us", f64::NAN)];
        series_writer.append(u64::from(second) + 1, unix_millis, &samples).expect("appended");
    }
    let reader =
        Reader::new(events, series, crate::Config { calls_max: 2, ..crate::Config::default() }, &registry);
    World { _directory: directory, _writer: writer, _series_writer: series_writer, registry, reader }
}

async fn get(router: &Router, path: &str) -> (StatusCode, String, String) {
    let request = Request::get(path).body(HttpBody::empty()).expect("a good request");
    let response = router.clone().oneshot(request).await.expect("infallible");
    let status = response.status();
    let content_type = response.headers()[header::CONTENT_TYPE].to_str().expect("text").to_owned();
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    (status, content_type, String::from_utf8(bytes.to_vec()).expect("text"))
}

async fn get_json(router: &Router, path: &str) -> Json {
    let (status, content_type, text) = get(router, path).await;
    assert_eq!((status, content_type.as_str()), (StatusCode::OK, "application/json"), "{path}: {text}");
    serde_json::from_str(&text).expect("JSON")
}

#[tokio::test]
async fn a_call_is_found_by_its_call_id() {
    let world = world();
    let router = world.router();
    let call = get_json(&router, "/api/v1/calls/a84b4c76%2Fe66710@pc33").await;
    assert_eq!(call["call_id"], CALL_ID);
    assert_eq!(call["start"], "2026-11-20T08:00:00Z");
    assert_eq!(call["start_unix_ms"], 1_795_161_600_000.0);
    assert_eq!(call["summary"]["outcome"], "answered");
    let roles: Vec<&Json> =
        call["participants"].as_array().expect("list").iter().map(|one| &one["role"]).collect();
    assert_eq!(roles, ["caller", "node", "callee"]);
    let ladder = call["ladder"].as_array().expect("list");
    assert_eq!(ladder.len(), 8);
    assert_eq!((&ladder[2]["from"], &ladder[2]["to"]), (&"core-1".into(), &"callee".into()));
    assert_eq!((&ladder[2]["offset_ms"], &ladder[2]["has_sdp"]), (&4.0.into(), &true.into()));
    assert_eq!(ladder[5]["retransmission"], true);
    assert_eq!(call["spans"][0]["duration_ms"], 905.0);
    assert_eq!(call["quality"][0]["leg"], "caller");
    assert_eq!(call["quality"][0]["points"][1]["mos"], 2.1);
    assert_eq!(call["logs"][0]["attributes"]["rtc.leg"], "caller");
    let trace = get_json(&router, &format!("/api/v1/traces/{}", TraceId([1; 16]))).await;
    assert_eq!(trace["calls"][0]["callee"], "sip:bob@example.com");
    assert_eq!(trace["spans"], call["spans"]);
}

#[tokio::test]
async fn lists_are_searched_and_bounded() {
    let world = world();
    let router = world.router();
    let range = "from=2026-11-20T07:59:00Z&to=2026-11-20T08:01:00Z";
    let logs = get_json(&router, &format!("/api/v1/logs?{range}&kinds=log")).await;
    assert_eq!(logs["lines"].as_array().expect("list").len(), 1);
    assert_eq!(logs["lines"][0]["message"], "media loss noticed");
    assert_eq!(logs["lines"][0]["severity"], "WARN");
    let all = get_json(&router, &format!("/api/v1/logs?{range}&limit=3")).await;
    assert_eq!((all["lines"].as_array().expect("list").len(), &all["has_more"]), (3, &true.into()));
    let found =
        get_json(&router, &format!("/api/v1/logs?{range}&query=kind:sip%20sip.method:INVITE%20AND%20180"))
            .await;
    assert_eq!(found["lines"].as_array().expect("list").len(), 3);
    assert_eq!(found["lines"][0]["message"], "180 received from 127.0.0.1:5064 over udp");
    let calls =
        get_json(&router, &format!("/api/v1/calls?{range}&outcome=answered&q=rtc.mos_min:%3C3")).await;
    assert_eq!(calls["calls"][0]["call_id"], CALL_ID);
    assert_eq!(calls["calls"][0]["duration_seconds"], 12.0);
    let none = get_json(&router, &format!("/api/v1/calls?{range}&outcome=busy")).await;
    assert_eq!(none["calls"], Json::Array(vec![]));
}

#[tokio::test]
async fn points_are_found_by_their_labels_and_thinned() {
    let world = world();
    let router = world.router();
    assert_eq!(world.reader.series_count(), 2);
    let range = "from=1795161600&to=1795161660";
    let path = format!("/api/v1/points?{range}&match=calls_total");
    let points = get_json(&router, &path).await;
    assert_eq!(points["series"][0]["labels"]["region"], "eu");
    assert_eq!(points["series"][0]["points"].as_array().expect("list").len(), 60);
    assert_eq!(points["series"][0]["points"][59], serde_json::json!([1_795_161_659_000i64, 59.0]));
    assert_eq!(points["series"][1]["points"][0][1], Json::Null, "not a number");
    let thinned = get_json(&router, &format!("{path}&points_max=6")).await;
    let values: Vec<f64> = thinned["series"][0]["points"]
        .as_array()
        .expect("list")
        .iter()
        .map(|point| point[1].as_f64().expect("a number"))
        .collect();
    assert_eq!(values, [9.0, 19.0, 29.0, 39.0, 49.0, 59.0], "the last of each stretch");
}

#[tokio::test]
async fn what_is_wrong_is_said_with_its_place_and_the_way_out() {
    let world = world();
    let router = world.router();
    let cases = [
        ("/api/v1/logs?q=a%20AND", 400, "q", "missing"),
        ("/api/v1/logs?from=yesterday", 400, "from", "not a time"),
        ("/api/v1/logs?from=now&to=-5m", 400, "from", "after to"),
        ("/api/v1/logs?limit=100000", 400, "limit", "100000 rows"),
        ("/api/v1/logs?limit=x", 400, "query parameters", "limit"),
        ("/api/v1/logs?querry=x", 400, "query parameters", "querry"),
        ("/api/v1/logs?severity=loud", 400, "severity", "loud"),
        ("/api/v1/logs?kinds=log,sips", 400, "kinds", "sips"),
        ("/api/v1/calls/a?format=xml", 400, "format", "xml"),
        ("/api/v1/points?match=up%7B", 400, "match", "at character"),
        ("/api/v1/points", 400, "match", "missing"),
        ("/api/v1/points?match=%7Ba=~%22(%22%7D", 400, "match", "regular expression"),
        ("/api/v1/points?match=%7Ba=%22%22%7D", 400, "match", "every series"),
        ("/api/v1/points?match=up&points_max=0", 400, "points_max", "0"),
        ("/api/v1/calls?trace_id=12", 400, "trace_id", "12"),
        ("/api/v1/traces/12", 400, "trace_id", "12"),
        ("/api/v1/traces/0123456789abcdef0123456789abcdef", 404, "trace_id", "not known"),
        ("/api/v1/calls/nobody@nowhere", 404, "call_id", "not known"),
    ];
    for (path, status, place, detail) in cases {
        let (found, content_type, text) = get(&router, path).await;
        let problem: Json = serde_json::from_str(&text).expect("JSON");
        assert_eq!(
            (found.as_u16(), content_type.as_str()),
            (status, "application/problem+json"),
            "{path}: {text}"
        );
        assert_eq!(problem["where"], place, "{path}: {text}");
        assert!(problem["detail"].as_str().expect("text").contains(detail), "{path}: {text}");
        assert!(!problem["hint"].as_str().expect("text").is_empty(), "{path}");
    }
    let (_, _, text) = get(&router, "/api/v1/logs?q=a%20AND").await;
    assert_eq!(serde_json::from_str::<Json>(&text).expect("JSON")["position"], 6);
}

const GOLDEN: &str = r"Call a84b4c76/e66710@pc33
  sip:alice@example.com -> sip:bob@example.com
  answered 200 (normal)
  2026-11-20T08:00:00Z, from eu-west in DE over udp
  tenant acme, left by trunk carrier-a
  answered after 0.900 s, post-dial delay 0.120 s, MOS 3.25 mean, 2.10 lowest
  trace 01010101010101010101010101010101

                   caller               core-1               callee
               127.0.0.1:5062                            127.0.0.1:5064
   +0.000 s           |------ INVITE ----->|                    |   udp 1 INVITE, sdp
   +0.001 s           |<--- 100 Trying ----|                    |   udp 1 INVITE
   +0.004 s           |                    |------ INVITE ----->|   udp 1 INVITE, sdp
   +0.110 s           |                    |<-- 180 Ringing ----|   udp 1 INVITE
   +0.120 s           |<-- 180 Ringing ----|                    |   udp 1 INVITE
   +0.620 s           |                    |<-- 180 Ringing ----|   udp 1 INVITE, again
   +0.890 s           |                    |<----- 200 OK ------|   udp 1 INVITE, sdp
   +0.900 s           |<----- 200 OK ------|                    |   udp 1 INVITE, sdp

Quality      region       windows  packets   lost    loss  jitter max  rtt max   MOS mean  lowest
  caller     eu-west            2      490     10   2.0 %      2.2 ms  12.5 ms       3.20    2.10
    MOS over time (1 worst, 9 best): 94
  callee     eu-west            2      490     10   2.0 %      2.2 ms  12.5 ms       4.40    4.40
    MOS over time (1 worst, 9 best): 99

Log
   +8.000 s  WARN  media_relay      media loss noticed rtc.leg=caller sip.user_agent=evil?[2Jphone
";

#[tokio::test]
async fn a_call_is_drawn_for_a_terminal() {
    let world = world();
    let view = world.reader.call(CALL_ID.to_owned()).await.expect("read").expect("known");
    let drawn = render_call(&view, 100);
    assert_eq!(drawn, GOLDEN, "drawn:\n{drawn}");
    let router = world.router();
    let (status, content_type, text) = get(&router, "/api/v1/calls/a84b4c76%2Fe66710@pc33?format=text").await;
    assert_eq!((status, content_type.as_str()), (StatusCode::OK, "text/plain; charset=utf-8"));
    assert_eq!(text, drawn);
    for width in [0, 40, 80, 1000] {
        assert!(!render_call(&view, width).contains('\u{1b}'));
    }
}
