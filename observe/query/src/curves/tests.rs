use belfry_events::Found;
use belfry_promql::is_stale;
use belfry_signal::record::Direction;
use belfry_signal::{Pii, Region, TraceId};

use super::*;

const SECOND: u64 = 1_000_000_000;

fn window(second: u64, leg: &'static str, payload_type: Option<u8>) -> Stamped<Quality> {
    let value = Quality {
        call_id: Pii::new("a".into()),
        trace_id: TraceId([1; 16]),
        leg: leg.into(),
        region: Region::configured("eu").expect("a name"),
        window_seconds: 5.0,
        packets: 240,
        lost: 10,
        jitter_ms: second as f64,
        rtt_ms: None,
        mos: Some(4.0),
        r_factor: None,
        payload_type,
    };
    Stamped { unix_nanos: second * SECOND, component: "media_relay".into(), value }
}

fn message(body: &str) -> Stamped<SipMessage> {
    let value = SipMessage {
        call_id: Pii::new("a".into()),
        trace_id: TraceId([1; 16]),
        direction: Direction::Received,
        transport: "udp".into(),
        peer: Pii::new(([127, 0, 0, 1], 5060).into()),
        node: "core".into(),
        summary: "INVITE".into(),
        cseq: "1 INVITE".into(),
        retransmission: false,
        bytes: Pii::new(format!("INVITE sip:a@b SIP/2.0\r\n\r\n{body}").into_bytes()),
    };
    Stamped { unix_nanos: 0, component: "core".into(), value }
}

fn of(mut windows: Vec<Stamped<Quality>>, messages: &[Stamped<SipMessage>]) -> Vec<SeriesData> {
    // The store gives the newest first.
    windows.sort_by_key(|window| std::cmp::Reverse(window.unix_nanos));
    let found = Found { rows: windows, has_more: false, splits_read: 0, splits_damaged: 0 };
    curves("a", &found, messages)
}

fn jitter(series: &[SeriesData]) -> Vec<&SeriesData> {
    series.iter().filter(|series| series.labels.metric_name() == "rtp_jitter_seconds").collect()
}

#[test]
fn a_leg_is_a_series_that_ends_when_nothing_more_is_heard() {
    let found = of(
        vec![window(5, "caller", Some(0)), window(10, "caller", Some(0)), window(60, "caller", Some(0))],
        &[],
    );
    // Round trip and rating were never known.
    assert_eq!(found.len(), 6);
    let [jitter] = jitter(&found)[..] else { panic!("one leg") };
    let labels: Vec<_> = jitter.labels.iter().collect();
    assert_eq!(
        labels,
        [
            ("__name__", "rtp_jitter_seconds"),
            ("call_id", "a"),
            ("codec", "PCMU"),
            ("leg", "caller"),
            ("payload_type", "0"),
            ("region", "eu"),
        ]
    );
    let points: Vec<_> =
        jitter.floats.iter().map(|(at, value)| (*at, (!is_stale(*value)).then_some(*value))).collect();
    assert_eq!(
        points,
        [(5000, Some(0.005)), (10_000, Some(0.01)), (22_500, None), (60_000, Some(0.06)), (72_500, None)]
    );
    let loss = found.iter().find(|series| series.labels.metric_name() == "rtp_loss_ratio").expect("known");
    assert_eq!(loss.floats[0], (5000, 0.04));
}

#[test]
fn legs_and_codecs_are_apart_and_offers_name_what_is_dynamic() {
    let said = [message("v=0\r\na=rtpmap:111 opus/48000/2\r\n"), message("v=0\r\na=rtpmap:111 old/8000\r\n")];
    let found = of(
        vec![
            window(5, "caller", Some(111)),
            window(5, "callee", Some(8)),
            window(10, "callee", Some(99)),
            window(10, "caller", None),
        ],
        &said,
    );
    let mut codecs: Vec<_> =
        jitter(&found).iter().map(|series| (series.labels.get("leg"), series.labels.get("codec"))).collect();
    codecs.sort_unstable();
    assert_eq!(codecs, [("callee", ""), ("callee", "PCMA"), ("caller", ""), ("caller", "opus")]);
    for hostile in ["a=rtpmap:111 \r\n", "a=rtpmap:111 o\u{1b}[31m/8000\r\n", "a=rtpmap:1111 x/8000\r\n"] {
        let found = of(vec![window(5, "caller", Some(111))], &[message(hostile)]);
        assert!(jitter(&found)[0].labels.get("codec").is_empty(), "{hostile:?}");
    }
}

#[test]
fn a_selector_says_which_calls_it_wants() {
    let calls = |names: &[&str]| Wanted::Calls(names.iter().map(|name| (*name).to_owned()).collect());
    let none = || Wanted::NoCall("rtp_jitter_seconds".to_owned());
    for (text, expected) in [
        ("rtp_jitter_seconds{call_id=\"a@b\"}", calls(&["a@b"])),
        ("rtp_jitter_seconds{call_id=~\"a@b|c\\\\.d\"}", calls(&["a@b", "c.d"])),
        ("rtp_jitter_seconds{call_id=~\"(x|y)\"}", calls(&["x", "y"])),
        ("{call_id=\"a\"}", calls(&["a"])),
        ("{__name__=~\"rtp_.*\", call_id=\"a\"}", calls(&["a"])),
        ("up{call_id=\"a\"}", Wanted::Nothing),
        ("{__name__=~\"rtp_.*\"}", Wanted::Nothing),
        ("{region=\"eu\"}", Wanted::Nothing),
        ("rtp_jitter_seconds", none()),
        ("rtp_jitter_seconds{call_id!=\"\"}", none()),
        ("rtp_jitter_seconds{call_id=~\".+\"}", none()),
        ("rtp_jitter_seconds{call_id=~\"a.b\"}", none()),
        ("rtp_jitter_seconds{call_id=~\"a\\\\w\"}", none()),
        ("rtp_jitter_seconds{call_id=\"\"}", none()),
    ] {
        let expr = belfry_promql::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(Wanted::of(&expr.selectors()[0].matchers), expected, "{text}");
    }
}
