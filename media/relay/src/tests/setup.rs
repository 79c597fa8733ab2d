//! Offers, answers, forwarding, latching, and everything that is refused.

use super::*;
use crate::error::Error;

#[tokio::test]
async fn packets_cross_both_ways_and_delete_frees_the_ports() {
    let config = config(4);
    let (port_min, port_max) = (config.port_min, config.port_max);
    let bench = Bench::start(config);
    let (mut caller, mut callee) = (Phone::new(1).await, Phone::new(2).await);
    bench.call("a", &mut caller, &mut callee).await;
    for phone in [&caller, &callee] {
        assert!((port_min..=port_max).contains(&phone.rtp_to.port()) && phone.rtp_to.port() % 2 == 0);
    }
    assert!(bench.metric("media_ports_used 4") && bench.metric("media_sessions 1"));
    for _ in 0..10 {
        let packet = caller.send().await;
        assert_eq!(callee.hears().await, Some(packet));
        let packet = callee.send().await;
        assert_eq!(caller.hears().await, Some(packet));
    }
    let report = bench.delete("a").await;
    for leg in [&report.caller, &report.callee] {
        assert_eq!((leg.packets, leg.bytes, leg.lost, leg.foreign), (10, 1_720, 0, 0));
        assert_eq!(leg.payload_type, Some(8));
        assert!(leg.mos.is_some_and(|mos| mos > 4.3), "{leg:?}");
    }
    assert!(bench.metric("media_ports_used 0") && bench.metric("media_sessions 0"));
    assert!(bench.metric("media_forwarded_packets_total{kind=\"rtp\"} 20"));
    assert!(bench.metric("media_forwarded_bytes_total{kind=\"rtp\"} 3440"));
    assert!(matches!(bench.query("a").await, Reply::Refused(Refusal::UnknownSession)));
    std::net::UdpSocket::bind(caller.rtp_to).expect("the port is free again");
}

#[tokio::test]
async fn rtcp_goes_its_own_way_and_tells_the_round_trip() {
    let bench = Bench::start(config(4));
    let (mut caller, mut callee) = (Phone::new(1).await, Phone::new(2).await);
    bench.call("a", &mut caller, &mut callee).await;
    // Sockets for RTCP that the descriptions do not name: they latch by their host.
    let (mut caller_rtcp, mut callee_rtcp) = (Phone::new(1).await, Phone::new(2).await);
    caller_rtcp.rtp_to = SocketAddr::new(caller.rtp_to.ip(), caller.rtp_to.port() + 1);
    callee_rtcp.rtp_to = SocketAddr::new(callee.rtp_to.ip(), callee.rtp_to.port() + 1);
    // The callee's first report latches its socket; it goes to where the caller's is thought to be.
    callee_rtcp.send_to_relay(&receiver_report(2, 1, 0)).await;
    until("the callee's report was forwarded", async || {
        bench.metric("media_forwarded_packets_total{kind=\"rtcp\"} 1")
    })
    .await;
    caller_rtcp.send_to_relay(&sender_report(1, 0x0001_2345_6789_0000)).await;
    assert_eq!(callee_rtcp.hears().await, Some(sender_report(1, 0x0001_2345_6789_0000)));
    callee_rtcp.send_to_relay(&receiver_report(2, 1, 0x2345_6789)).await;
    assert_eq!(caller_rtcp.hears().await, Some(receiver_report(2, 1, 0x2345_6789)));
    let report = bench.delete("a").await;
    assert!(report.callee.rtt_ms.is_some_and(|rtt| rtt < 1_000.0), "{report:?}");
    assert_eq!(report.caller.rtt_ms, None);
}

#[tokio::test]
async fn shared_ports_carry_rtcp_when_both_sides_agree() {
    let bench = Bench::start(config(4));
    let (mut caller, mut callee) = (Phone::new(1).await, Phone::new(2).await);
    callee.rtp_to = bench.offer("a", Leg::Caller, &caller, "a=rtcp-mux\r\n").await.expect("taken").rtp;
    caller.rtp_to = bench.answer("a", &callee, "a=rtcp-mux\r\n").await.expect("taken").rtp;
    caller.send_to_relay(&sender_report(1, 1 << 40)).await;
    assert_eq!(callee.hears().await, Some(sender_report(1, 1 << 40)));
}

#[tokio::test]
async fn a_phone_behind_a_nat_is_found_and_strangers_are_not_heard() {
    let bench = Bench::start(config(4));
    let (mut caller, mut callee) = (Phone::new(1).await, Phone::new(2).await);
    // What the phone says of itself is not where its packets come from.
    caller.described = "10.1.2.3:4000".parse().expect("an address");
    bench.call("a", &mut caller, &mut callee).await;
    let mut stranger = Phone::at(Ipv4Addr::new(127, 0, 0, 66), 666).await;
    stranger.rtp_to = caller.rtp_to;
    for _ in 0..3 {
        stranger.send().await;
    }
    until("the stranger was counted", async || leg_of(bench.query("a").await, Leg::Caller).foreign == 3)
        .await;
    let packet = caller.send().await;
    assert_eq!(callee.hears().await, Some(packet), "the first that comes is the caller's");
    let packet = callee.send().await;
    assert_eq!(caller.hears().await, Some(packet), "and it goes to where the caller is");
    // From now on the kernel keeps others out, even from the caller's own host.
    let mut neighbour = Phone::new(667).await;
    neighbour.rtp_to = caller.rtp_to;
    neighbour.send().await;
    stranger.send().await;
    assert_eq!(callee.hears_within(BRIEFLY).await, None);
    let report = bench.delete("a").await;
    assert_eq!((report.caller.packets, report.caller.foreign), (1, 3));
    assert!(bench.metric("media_refused_packets_total{reason=\"foreign\"} 3"));
}

#[tokio::test]
async fn a_leg_that_moves_is_followed_after_its_new_offer() {
    let bench = Bench::start(config(4));
    let (mut caller, mut callee) = (Phone::new(1).await, Phone::new(2).await);
    bench.call("a", &mut caller, &mut callee).await;
    caller.send().await;
    callee.hears().await.expect("before the move");
    callee.send().await;
    caller.hears().await.expect("both are latched, and the kernel filters for both");
    let mut moved = Phone::at(Ipv4Addr::new(127, 0, 0, 2), 2).await;
    let given =
        bench.offer("a", Leg::Callee, &moved, "a=sendrecv\r\n").await.expect("a re-INVITE of the callee");
    assert_eq!(given.rtp, caller.rtp_to, "the caller's ports stay");
    moved.rtp_to = callee.rtp_to;
    let packet = caller.send().await;
    assert_eq!(moved.hears().await, Some(packet), "sound goes where the description says at once");
    let packet = moved.send().await;
    assert_eq!(caller.hears().await, Some(packet));
    callee.send().await;
    assert_eq!(caller.hears_within(BRIEFLY).await, None, "the old place is not heard any more");
}

#[tokio::test]
async fn a_relay_on_every_address_advertises_one_and_follows_legs_too() {
    let advertised_address = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let config = Config { bind_address: Ipv4Addr::UNSPECIFIED.into(), advertised_address, ..config(4) };
    let bench = Bench::start(config);
    let (mut caller, mut callee) = (Phone::new(1).await, Phone::new(2).await);
    bench.call("a", &mut caller, &mut callee).await;
    for _ in 0..2 {
        let packet = caller.send().await;
        assert_eq!(callee.hears().await, Some(packet));
        let packet = callee.send().await;
        assert_eq!(caller.hears().await, Some(packet));
        // The same again after both were described anew and their sockets opened for everyone.
        bench.call("a", &mut caller, &mut callee).await;
    }
}

#[tokio::test]
async fn what_is_not_media_is_counted_by_kind() {
    let bench = Bench::start(config(4));
    let (mut caller, mut callee) = (Phone::new(1).await, Phone::new(2).await);
    bench.call("a", &mut caller, &mut callee).await;
    for (packet, name, kind, is_heard) in [
        (&b""[..], "media_refused_packets_total", "malformed", false),
        (b"hello", "media_refused_packets_total", "malformed", false),
        (&[0x80, 8, 0], "media_refused_packets_total", "malformed", false),
        (&[0x80, 201, 0, 9], "media_refused_packets_total", "malformed", false),
        (&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42], "media_refused_packets_total", "stun", false),
        (&[22, 254, 253, 0], "media_forwarded_packets_total", "other", true),
    ] {
        let before = bench.value(name, kind);
        caller.send_to_relay(packet).await;
        until(kind, async || bench.value(name, kind) > before).await;
        if is_heard {
            assert_eq!(callee.hears().await.as_deref(), Some(packet));
        }
    }
    let packet = caller.send().await;
    assert_eq!(callee.hears().await, Some(packet), "and the call goes on");
}

#[tokio::test]
async fn calls_side_by_side_keep_their_ports_apart() {
    let bench = std::sync::Arc::new(Bench::start(Config { sessions_max: 30, ..config(40) }));
    for round in 0..2 {
        let mut calls = tokio::task::JoinSet::new();
        for number in 0..20 {
            let bench = std::sync::Arc::clone(&bench);
            calls.spawn(async move {
                let name = format!("{round}-{number}");
                let (mut caller, mut callee) = (Phone::new(number).await, Phone::new(100 + number).await);
                bench.call(&name, &mut caller, &mut callee).await;
                let packet = caller.send().await;
                assert_eq!(callee.hears().await, Some(packet));
                let packet = callee.send().await;
                assert_eq!(caller.hears().await, Some(packet));
                let report = bench.delete(&name).await;
                assert_eq!((report.caller.packets, report.callee.packets), (1, 1));
            });
        }
        while let Some(call) = calls.join_next().await {
            call.expect("each call goes well");
        }
        assert_eq!(bench.relay.live_sessions(), 0);
        assert!(bench.metric("media_ports_used 0"));
    }
}

#[tokio::test]
async fn media_can_be_held_added_and_ended() {
    let bench = Bench::start(config(8));
    let (mut caller, mut callee) = (Phone::new(1).await, Phone::new(2).await);
    bench.call("a", &mut caller, &mut callee).await;
    let with_video = "m=video 5000 RTP/AVP 96\r\n";
    let given = bench.offer("a", Leg::Caller, &caller, with_video).await.expect("video is added");
    assert!(!given.sdp.contains("m=video 5000 ") && bench.metric("media_ports_used 8"), "{}", given.sdp);
    let ended = "m=video 0 RTP/AVP 96\r\n";
    bench.offer("a", Leg::Caller, &caller, ended).await.expect("video is ended");
    assert!(bench.metric("media_ports_used 4"));
    let described = caller.described;
    caller.described = SocketAddr::from(([0, 0, 0, 0], described.port()));
    let held = bench.offer("a", Leg::Caller, &caller, ended).await.expect("hold the old way");
    assert!(held.sdp.contains("c=IN IP4 0.0.0.0\r\n"), "{}", held.sdp);
    callee.send().await;
    assert_eq!(caller.hears_within(BRIEFLY).await, None);
    assert!(bench.metric("media_dropped_packets_total{reason=\"no_destination\"} 1"));
    caller.described = described;
    bench.offer("a", Leg::Caller, &caller, ended).await.expect("taken back");
    let packet = callee.send().await;
    assert_eq!(caller.hears().await, Some(packet));
}

#[tokio::test]
async fn what_runs_out_is_refused_by_name() {
    let bench = Bench::start(Config { sessions_max: 2, ..config(4) });
    let (mut caller, mut callee) = (Phone::new(1).await, Phone::new(2).await);
    bench.call("a", &mut caller, &mut callee).await;
    bench.call("b", &mut caller, &mut callee).await;
    let refused = bench.offer("c", Leg::Caller, &caller, "").await.map(drop);
    assert_eq!(refused, Err(Refusal::SessionsExhausted));
    bench.delete("b").await;
    // Two pairs are free: one audio stream fits, audio and video do not, and nothing of the attempt stays.
    let refused = bench.offer("c", Leg::Caller, &caller, "m=video 5000 RTP/AVP 96\r\n").await.map(drop);
    assert_eq!(refused, Err(Refusal::PortsExhausted));
    assert_eq!(bench.relay.live_sessions(), 1);
    assert!(bench.metric("media_sessions 1"));
    bench.offer("c", Leg::Caller, &caller, "").await.expect("there is room for audio");
    assert!(bench.metric("media_requests_total{outcome=\"ports_exhausted\",request=\"offer\"} 1"));
}

#[tokio::test]
async fn descriptions_that_cannot_be_anchored_are_refused() {
    let mut bench = Bench::start(config(4));
    let phone = Phone::new(1).await;
    for (sdp, what) in [
        ("hello".to_owned(), "v=0"),
        (phone.sdp("c=IN IP4 224.2.1.1\r\n"), "multicast"),
        (phone.sdp("").repeat(100), "longer"),
    ] {
        let reply = bench.relay.request(Request::Offer(describe("a", Leg::Caller, &sdp))).await;
        assert!(matches!(reply, Reply::Refused(Refusal::BadDescription)), "{reply:?}");
        let records = format!("{:?}", bench.records());
        assert!(records.contains("a session description was refused") && records.contains(what), "{records}");
    }
    let answer = bench.answer("a", &phone, "").await.map(drop);
    assert_eq!(answer, Err(Refusal::UnknownSession));
    bench.offer("a", Leg::Caller, &phone, "").await.expect("taken");
    let answer = bench.answer("a", &phone, "m=video 5000 RTP/AVP 96\r\n").await.map(drop);
    assert_eq!(answer, Err(Refusal::BadDescription), "it was not offered");
}

#[tokio::test]
async fn draining_refuses_new_calls_and_waits_for_the_old() {
    let bench = Bench::start(config(4));
    let (mut caller, mut callee) = (Phone::new(1).await, Phone::new(2).await);
    bench.call("a", &mut caller, &mut callee).await;
    let relay = bench.relay.clone();
    let drain = tokio::spawn(async move { relay.drain(SOON).await });
    // The drain begins when its task first runs; calls that come before are taken, and ended here.
    let mut number = 0;
    until("new calls are refused", async || {
        number += 1;
        let name = format!("new-{number}");
        let refusal = bench.offer(&name, Leg::Caller, &caller, "").await.err();
        if refusal.is_none() {
            bench.delete(&name).await;
        }
        refusal == Some(Refusal::Draining)
    })
    .await;
    bench.offer("a", Leg::Caller, &caller, "").await.expect("an old call may still be renegotiated");
    bench.delete("a").await;
    assert_eq!(drain.await.expect("no panic"), Vec::<String>::new());
    let after = bench.offer("c", Leg::Caller, &caller, "").await.map(drop);
    assert_eq!(after, Err(Refusal::Unavailable));
}

#[tokio::test]
async fn calls_that_outlast_the_drain_are_counted_and_cut_off() {
    let mut bench = Bench::start(config(4));
    let (mut caller, mut callee) = (Phone::new(1).await, Phone::new(2).await);
    bench.call("a", &mut caller, &mut callee).await;
    assert_eq!(bench.relay.drain(Duration::from_millis(20)).await, ["1 media session"]);
    assert!(bench.metric("media_sessions_ended_total{end=\"stopped\"} 1"));
    assert!(bench.metric("media_ports_used 0"));
    assert!(bench.records().iter().any(|record| record.body.kind() == "span"));
}

#[test]
fn the_configuration_is_checked() {
    assert_eq!(config(2).check(), []);
    for (change, key) in [
        (Config { bind_address: Ipv4Addr::UNSPECIFIED.into(), ..config(2) }, "advertised_address"),
        (Config { advertised_address: "::1".parse().ok(), ..config(2) }, "advertised_address"),
        (Config { port_min: 80, ..config(2) }, "port_min"),
        (Config { port_max: 1_025, port_min: 1_024, ..config(2) }, "port_max"),
        (Config { dscp: 64, ..config(2) }, "dscp"),
        (Config { workers: 0, ..config(2) }, "workers"),
        (Config { streams_max: 33, ..config(2) }, "streams_max"),
        (Config { quality_window: Duration::from_millis(1), ..config(2) }, "quality_window"),
        (Config { mos_min: 5.0, ..config(2) }, "mos_min"),
    ] {
        let problems = change.check();
        assert!(problems.len() == 1 && problems[0].0 == key, "{key}: {problems:?}");
        let started = Relay::start(change, &Registry::for_test(), Faults::default());
        assert!(matches!(started, Err(Error::Config { .. })));
    }
}

#[test]
fn an_address_of_another_host_is_an_error_at_start() {
    let elsewhere = Config { bind_address: Ipv4Addr::new(192, 0, 2, 1).into(), ..config(2) };
    let started = Relay::start(elsewhere, &Registry::for_test(), Faults::default());
    assert!(matches!(started, Err(Error::Bind(_))), "{started:?}");
}

#[test]
fn the_section_reads_as_documented() {
    let shipped: toml::Table = include_str!("../../../../belfry.toml").parse().expect("TOML");
    let config: Config = shipped["media"].clone().try_into().expect("every key is known and none is missing");
    assert_eq!(config.check(), []);
}

fn sender_report(ssrc: u32, ntp_time: u64) -> Vec<u8> {
    use webrtc_util::marshal::Marshal as _;
    let report = rtcp::sender_report::SenderReport { ssrc, ntp_time, ..Default::default() };
    report.marshal().expect("encodes").to_vec()
}

fn receiver_report(ssrc: u32, about: u32, last_sender_report: u32) -> Vec<u8> {
    let block =
        rtcp::reception_report::ReceptionReport { ssrc: about, last_sender_report, ..Default::default() };
    belfry_rtp_proto::rtcp::write_receiver_report(ssrc, block).expect("encodes")
}
