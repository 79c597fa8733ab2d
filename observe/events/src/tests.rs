//! The store as a whole: what goes in comes out, from buffers and from splits, before and after every accident.

mod accidents;
mod agreement;
mod keeping;

use std::borrow::Cow;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use belfry_signal::record::{
    Body, Call, Direction, Log, Quality, Record, SipMessage, Span, SpanKind, SpanStatus,
};
use belfry_signal::{PackedRecord, Pii, Region, Registry, Severity, SpanContext, SpanId, TraceId, Value};

use crate::{CallFilter, Config, Error, Events, EventsReader, EventsWriter, LogQuery};

const SECOND: u64 = 1_000_000_000;
/// 2026-11-20 08:00:00 UTC.
const START: u64 = 1_795_161_600 * SECOND;

fn open(directory: &Path) -> (EventsWriter, EventsReader) {
    open_with(Config::for_test(directory.to_owned()))
}

fn open_with(config: Config) -> (EventsWriter, EventsReader) {
    assert_eq!(config.check(), vec![]);
    Events::open(config, &Registry::for_test()).expect("the store opens")
}

fn apply(writer: &mut EventsWriter, position: u64, records: &[Record]) -> Result<(), Error> {
    let packed: Vec<_> = records.iter().map(|record| PackedRecord::of(record).expect("packed")).collect();
    writer.apply(position, &packed.iter().collect::<Vec<_>>())
}

fn trace(number: u8) -> TraceId {
    TraceId([number.max(1); 16])
}

fn log(second: u64, message: &'static str) -> Record {
    let body = Body::Log(Log {
        severity: Severity::Info,
        message: message.into(),
        attributes: vec![],
        context: None,
        call_id: None,
    });
    Record { unix_nanos: START + second * SECOND, component: "edge_gateway".into(), body }
}

fn sip(second: u64, call: u8, summary: &'static str) -> Record {
    let text = format!("{summary} sip:bob@example.com SIP/2.0\r\nCall-ID: call-{call}@host\r\n\r\n");
    let body = Body::Sip(SipMessage {
        call_id: Pii::new(format!("call-{call}@host")),
        trace_id: trace(call),
        direction: Direction::Received,
        transport: "udp".into(),
        peer: Pii::new(([127, 0, 0, 1], 5060).into()),
        node: "core-1".into(),
        summary: summary.into(),
        cseq: if summary == "REGISTER" { "1 REGISTER" } else { "1 INVITE" }.into(),
        retransmission: false,
        bytes: Pii::new(text.into_bytes()),
    });
    Record { unix_nanos: START + second * SECOND, component: "core_signalling".into(), body }
}

fn quality(second: u64, call: u8, mos: f64) -> Record {
    let body = Body::Quality(Quality {
        call_id: Pii::new(format!("call-{call}@host")),
        trace_id: trace(call),
        leg: "caller".into(),
        region: Region::configured("eu-west").expect("a plain name"),
        window_seconds: 5.0,
        packets: 250,
        lost: 3,
        jitter_ms: 1.5,
        rtt_ms: None,
        mos: Some(mos),
        r_factor: None,
        payload_type: Some(0),
    });
    Record { unix_nanos: START + second * SECOND, component: "media_relay".into(), body }
}

fn ended(second: u64, call: u8, outcome: &'static str, mos_min: Option<f64>) -> Record {
    let body = Body::Call(Box::new(Call {
        call_id: Pii::new(format!("call-{call}@host")),
        trace_id: trace(call),
        start_unix_nanos: START,
        answer_unix_nanos: None,
        caller: Pii::new("sip:alice@example.com".into()),
        callee: Pii::new("sip:bob@example.com".into()),
        region: Region::configured("eu-west").expect("a plain name"),
        country: Some("DE".into()),
        transport: "tls".into(),
        tenant: Some("acme".into()),
        calling_trunk: None,
        called_trunk: Some("carrier-a".into()),
        outcome: outcome.into(),
        status_code: 200,
        cause: "normal".into(),
        post_dial_seconds: Some(0.2),
        mos_min,
        mos_mean: mos_min,
        silent_legs: vec![],
    }));
    Record { unix_nanos: START + second * SECOND, component: "core_signalling".into(), body }
}

fn span(second: u64, call: u8, status: SpanStatus) -> Record {
    let body = Body::Span(Span {
        context: SpanContext { trace_id: trace(call), span_id: SpanId([call; 8]), sampled: true },
        parent: None,
        name: "sip.transaction".into(),
        kind: SpanKind::Server,
        start_unix_nanos: START + second * SECOND - SECOND / 2,
        status,
        attributes: vec![("sip.method".into(), "INVITE".into())],
        call_id: None,
    });
    Record { unix_nanos: START + second * SECOND, component: "core_signalling".into(), body }
}

/// A little world: two calls, some logs.
fn world() -> Vec<Record> {
    vec![
        log(1, "tls handshake failed"),
        sip(2, 1, "INVITE"),
        sip(3, 1, "180"),
        sip(3, 2, "INVITE"),
        span(4, 1, SpanStatus::Error),
        quality(5, 1, 4.3),
        quality(10, 1, 2.9),
        log(11, "tls handshake done"),
        ended(12, 1, "answered", Some(2.9)),
        ended(13, 2, "busy", None),
    ]
}

fn seconds(reader: &EventsReader, text: &str) -> Vec<u64> {
    let query = LogQuery { text: text.into(), limit: 1000, ..LogQuery::default() };
    let found = reader.search(&query).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(found.splits_damaged, 0, "{text}");
    found.rows.iter().map(|row| (row.record.unix_nanos - START) / SECOND).collect()
}

/// Searches whose answers the little world knows, newest first.
fn check_world(reader: &EventsReader) {
    let expectations: &[(&str, &[u64])] = &[
        ("", &[13, 12, 11, 10, 5, 4, 3, 3, 2, 1]),
        ("handshake", &[11, 1]),
        ("\"handshake failed\"", &[1]),
        ("hand* -failed", &[11]),
        ("kind:sip", &[3, 3, 2]),
        ("kind:sip sip.method:INVITE", &[3, 3, 2]),
        ("kind:sip sip.response.status_code:180", &[3]),
        ("call_id:call-1@host kind:sip", &[3, 2]),
        ("severity:>=warn", &[4]),
        ("component:core_* NOT kind:sip", &[13, 12, 4]),
        ("region:eu-west kind:quality", &[10, 5]),
        ("node:core-1", &[3, 3, 2]),
        ("rtc.mos:<3.5", &[12, 10]),
        ("rtc.mos:>=2.9", &[12, 10, 5]),
        ("attributes.call.outcome:busy", &[13]),
        ("alice@example.com", &[13, 12]),
        ("trace_id:02020202020202020202020202020202", &[13, 3]),
        ("02020202020202020202020202020202", &[13, 3]),
        ("busy OR failed", &[13, 1]),
        ("span.duration_seconds:>0.4", &[4]),
        ("nothing_like_this", &[]),
        ("127.0.0.1:5060", &[3, 3, 2]),
    ];
    for (text, expected) in expectations {
        assert_eq!(&seconds(reader, text), expected, "{text}");
    }
    let view = reader.call("call-1@host").expect("read").expect("known");
    assert_eq!(view.trace_id, Some(trace(1)));
    let timeline = &view.timeline;
    let counts = (timeline.messages.len(), timeline.spans.len(), timeline.quality.len(), timeline.is_cut);
    assert_eq!(counts, (2, 1, 2, false));
    assert_eq!(timeline.messages[0].value.summary, "INVITE");
    assert_eq!(view.summary.expect("ended").outcome, "answered");
    assert!(reader.call("call-3@host").expect("read").is_none());
    let view = reader.trace(trace(2)).expect("read").expect("known");
    assert_eq!((view.calls.len(), view.timeline.messages.len()), (1, 1));
    assert!(reader.trace(trace(9)).expect("read").is_none());
    let filter = CallFilter { outcome: Some("busy".into()), limit: 10, ..CallFilter::default() };
    let calls = reader.calls(&filter).expect("read");
    assert_eq!(calls.rows.len(), 1);
    assert_eq!(calls.rows[0].call.call_id.reveal(), "call-2@host");
    let filter = CallFilter { text: "rtc.mos_min:<3".into(), limit: 10, ..CallFilter::default() };
    assert_eq!(reader.calls(&filter).expect("read").rows.len(), 1);
}

#[test]
fn records_are_found_at_once_and_after_every_move() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (mut writer, reader) = open(directory.path());
    apply(&mut writer, 7, &world()).expect("applied");
    check_world(&reader);
    assert_eq!(writer.checkpoint(), 0);
    writer.flush().expect("flushed");
    assert_eq!(writer.checkpoint(), 7);
    check_world(&reader);
    drop((writer, reader));
    let (mut writer, reader) = open(directory.path());
    assert_eq!(writer.checkpoint(), 7);
    check_world(&reader);
    // A replay from too early changes nothing; what is new is taken.
    apply(&mut writer, 5, &world()).expect("ignored");
    apply(&mut writer, 7, &world()).expect("ignored");
    check_world(&reader);
    apply(&mut writer, 8, &[log(20, "something new")]).expect("applied");
    apply(&mut writer, 8, &[log(20, "something new")]).expect("ignored");
    assert_eq!(seconds(&reader, "new"), [20]);
}

#[test]
fn what_was_not_in_a_split_comes_back_by_replay_and_only_once() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let world = world();
    {
        let (mut writer, _reader) = open(directory.path());
        apply(&mut writer, 1, &world[..4]).expect("applied");
        writer.flush().expect("flushed");
        apply(&mut writer, 2, &world[4..8]).expect("applied");
        // The process ends here without a flush.
    }
    let (mut writer, reader) = open(directory.path());
    assert_eq!(writer.checkpoint(), 1);
    for (position, batch) in [(1, &world[..4]), (2, &world[4..8]), (3, &world[8..])] {
        apply(&mut writer, position, batch).expect("applied");
    }
    check_world(&reader);
}

#[test]
fn time_limits_and_limits_hold_across_buffers_and_splits() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (mut writer, reader) = open(directory.path());
    for second in 0..30 {
        apply(&mut writer, second + 1, &[log(second, "tick"), log(second, "tock")]).expect("applied");
        if second % 10 == 9 && second < 25 {
            writer.flush().expect("flushed");
        }
    }
    let query = LogQuery {
        from_nanos: Some(START + 5 * SECOND),
        to_nanos: Some(START + 25 * SECOND),
        limit: 7,
        ..LogQuery::default()
    };
    let found = reader.search(&query).expect("read");
    let rows: Vec<(u64, bool)> = found
        .rows
        .iter()
        .map(|row| ((row.record.unix_nanos - START) / SECOND, row.sequence % 2 == 1))
        .collect();
    let expected = [(24, true), (24, false), (23, true), (23, false), (22, true), (22, false), (21, true)];
    assert_eq!(rows, expected);
    assert!(found.has_more);
    let all = reader.search(&LogQuery { limit: 40, ..query.clone() }).expect("read");
    assert_eq!((all.rows.len(), all.has_more), (40, false));
    let warnings = LogQuery { severity_min: Some(Severity::Warn), ..query };
    assert!(reader.search(&warnings).expect("read").rows.is_empty());
}

#[test]
fn ticks_seal_by_age_and_move_the_checkpoint_without_records() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (mut writer, reader) = open(directory.path());
    apply(&mut writer, 3, &[log(1, "old enough")]).expect("applied");
    writer.tick(1_000);
    writer.tick(4_000);
    assert_eq!(writer.checkpoint(), 0);
    writer.tick(6_000);
    writer.flush().expect("published");
    assert_eq!(writer.checkpoint(), 3);
    assert_eq!(seconds(&reader, "old"), [1]);
    apply(&mut writer, 9, &[]).expect("applied");
    writer.tick(7_000);
    writer.tick(12_000);
    writer.flush().expect("published");
    assert_eq!(writer.checkpoint(), 9);
    let splits = fs::read_dir(directory.path().join("splits")).expect("listed").count();
    assert_eq!(splits, 1, "a checkpoint alone makes no split");
}

#[test]
fn merging_keeps_everything_and_retention_drops_what_is_old() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let config = Config {
        merge_splits: 4,
        retention: Duration::from_secs(1000),
        merged_span_max: Duration::from_secs(500),
        ..Config::for_test(directory.path().to_owned())
    };
    let (mut writer, reader) = open_with(config);
    for (i, record) in world().into_iter().enumerate() {
        apply(&mut writer, i as u64 + 1, &[record]).expect("applied");
        writer.flush().expect("flushed");
    }
    let splits = || fs::read_dir(directory.path().join("splits")).expect("listed").count();
    assert_eq!(splits(), 10);
    writer.keep(i64::try_from(START / 1_000_000).expect("fits") + 20_000);
    // Seven of calls, of which four are now one, and three of the system.
    assert_eq!(splits(), 7);
    check_world(&reader);
    apply(&mut writer, 11, &[log(2000, "much later")]).expect("applied");
    writer.flush().expect("flushed");
    writer.keep(i64::try_from(START / 1_000_000).expect("fits") + 2_000_000);
    assert_eq!(splits(), 1);
    assert_eq!(seconds(&reader, ""), [2000]);
    drop((writer, reader));
    assert_eq!(seconds(&open(directory.path()).1, ""), [2000]);
}

#[test]
fn the_oldest_splits_go_when_the_disk_bound_is_met() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let config = Config { splits_max: 3, merge_splits: 64, ..Config::for_test(directory.path().to_owned()) };
    let (mut writer, reader) = open_with(config);
    for second in 0..5 {
        apply(&mut writer, second + 1, &[log(second, "tick")]).expect("applied");
        writer.flush().expect("flushed");
    }
    writer.keep(i64::try_from(START / 1_000_000).expect("fits"));
    assert_eq!(seconds(&reader, ""), [4, 3, 2]);
}

#[test]
fn attribute_names_beyond_the_bound_are_found_by_scanning() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let config = Config { split_attributes_max: 16, ..Config::for_test(directory.path().to_owned()) };
    let (mut writer, reader) = open_with(config);
    let records: Vec<Record> = (0..40)
        .map(|i| {
            let mut record = log(i, "tick");
            if let Body::Log(log) = &mut record.body {
                log.attributes = vec![(Cow::Owned(format!("made.up{i}")), Value::Int(7))];
            }
            record
        })
        .collect();
    apply(&mut writer, 1, &records).expect("applied");
    for _ in 0..2 {
        assert_eq!(seconds(&reader, "made.up39:7"), [39]);
        assert_eq!(seconds(&reader, "made.up3:7"), [3]);
        assert_eq!(seconds(&reader, "made.up38:>6"), [38]);
        assert_eq!(seconds(&reader, "7").len(), 40);
        assert_eq!(seconds(&reader, "NOT made.up39:7").len(), 39);
        writer.flush().expect("flushed");
    }
}

#[test]
fn a_beginning_that_stands_for_very_many_words_loses_none() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (mut writer, reader) = open(directory.path());
    let records: Vec<Record> = (0..3000)
        .map(|i| {
            let mut record = log(i, "tick");
            if let Body::Log(log) = &mut record.body {
                log.message = Cow::Owned(format!("ticket x{i:04}"));
            }
            record
        })
        .collect();
    apply(&mut writer, 1, &records).expect("applied");
    for _ in 0..2 {
        let query = LogQuery { text: "\"ticket x2\"* -x2999".into(), limit: 1000, ..LogQuery::default() };
        assert_eq!(reader.search(&query).expect("read").rows.len(), 999);
        let query = LogQuery { text: "\"ticket x\"*".into(), limit: 1000, ..LogQuery::default() };
        let found = reader.search(&LogQuery { to_nanos: Some(START + 500 * SECOND), ..query }).expect("read");
        assert_eq!((found.rows.len(), found.has_more), (500, false));
        writer.flush().expect("flushed");
    }
}

#[test]
fn bad_searches_are_errors_with_a_place() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (_writer, reader) = open(directory.path());
    let error = reader.search(&LogQuery { text: "a AND".into(), limit: 1, ..LogQuery::default() });
    match error {
        Err(Error::BadQuery(bad)) => assert_eq!(bad.position, 6),
        other => panic!("{other:?}"),
    }
}

/// Prints how long things take with 100,000 records; asserts only that the answers are there.
#[test]
#[expect(clippy::print_stderr, reason = "the figures are for whoever runs it with --no-capture")]
fn a_hundred_thousand_records_are_searched() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (mut writer, reader) = open(directory.path());
    let messages =
        ["tls handshake failed", "registration stored", "no route to destination", "call answered"];
    let started = Instant::now();
    for batch in 0..100u64 {
        let records: Vec<Record> = (0..1000u64)
            .map(|i| {
                let number = batch * 1000 + i;
                let mut record = log(number / 50, messages[usize::try_from(number % 4).expect("small")]);
                if let Body::Log(log) = &mut record.body {
                    log.attributes =
                        vec![("rtc.mos".into(), Value::Int(i64::try_from(number).expect("fits")))];
                    log.call_id = Some(Pii::new(format!("{}@host", number / 20)));
                }
                record
            })
            .collect();
        apply(&mut writer, batch + 1, &records).expect("applied");
    }
    let applied = started.elapsed();
    writer.flush().expect("flushed");
    let flushed = started.elapsed();
    let bytes: u64 = fs::read_dir(directory.path().join("splits"))
        .expect("listed")
        .map(|file| file.expect("listed").metadata().expect("there").len())
        .sum();
    let mut report =
        format!("applied in {applied:?}, all indexed after {flushed:?}, {bytes} bytes on disk\n");
    for text in ["handshake", "\"no route\" rtc.mos:>99000", "NOT tls", "call_id:777@host", "77*"] {
        let started = Instant::now();
        let query = LogQuery { text: text.into(), limit: 100, ..LogQuery::default() };
        let rows = reader.search(&query).expect("read").rows.len();
        report.push_str(&format!("{text}: {rows} rows in {:?}\n", started.elapsed()));
        assert!(rows > 0, "{text}");
    }
    let started = Instant::now();
    let view = reader.call("777@host").expect("read").expect("known");
    report.push_str(&format!("one call: {} logs in {:?}\n", view.timeline.logs.len(), started.elapsed()));
    assert_eq!(view.timeline.logs.len(), 20);
    eprintln!("{report}");
}
