//! What is measured, judged and noticed.

use belfry_relay_api::Notice;
use belfry_signal::record::Body;
use belfry_signal::{Cause, Journey, Region};

use super::*;

/// Both phones talk for some packets, faster than in life: early packets are no impairment.
async fn talk(caller: &mut Phone, callee: &mut Phone, packets: usize) {
    for number in 0..packets {
        caller.send().await;
        callee.send().await;
        // Few enough at a time for any receive buffer.
        if number % 5 == 4 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn eu() -> Region {
    Region::configured("eu").expect("a plain name")
}

/// Good and bad windows of the journey in the calls' region.
fn windows(registry: &Registry) -> (u64, u64) {
    let counts = registry.journeys().counts();
    let count = counts.iter().find(|c| c.journey == Journey::MediaQuality && c.region == eu());
    count.map_or((0, 0), |count| (count.good, count.bad))
}

#[tokio::test]
async fn clean_windows_are_good_and_recorded() {
    let mut bench = Bench::start(Config { quality_window: Duration::from_millis(200), ..config(4) });
    let (mut caller, mut callee) = (Phone::new(1).await, Phone::new(2).await);
    bench.call("a", &mut caller, &mut callee).await;
    until("both legs had a good window", async || {
        talk(&mut caller, &mut callee, 5).await;
        windows(&bench.registry).0 >= 2
    })
    .await;
    assert_eq!(windows(&bench.registry).1, 0);
    let records = bench.records();
    let qualities: Vec<_> = records
        .iter()
        .filter_map(|record| match &record.body {
            Body::Quality(quality) => Some(quality),
            _ => None,
        })
        .collect();
    assert!(qualities.len() >= 2, "{records:?}");
    let quality = qualities[0];
    assert_eq!((quality.leg.as_ref(), quality.region.as_str()), ("caller", "eu"));
    assert_eq!((quality.trace_id.0, quality.lost, quality.payload_type), ([7; 16], 0, Some(8)));
    assert!(quality.packets > 0 && quality.mos.is_some_and(|mos| mos > 4.3), "{quality:?}");
}

#[tokio::test]
async fn loss_that_we_cause_makes_windows_bad() {
    let bench = Bench::start(config(4));
    let (mut caller, mut callee) = (Phone::new(1).await, Phone::new(2).await);
    bench.call("a", &mut caller, &mut callee).await;
    bench.faults.set_loss(80_000);
    talk(&mut caller, &mut callee, 1_000).await;
    until("all packets were taken", async || leg_of(bench.query("a").await, Leg::Callee).packets == 1_000)
        .await;
    let report = bench.delete("a").await;
    for leg in [&report.caller, &report.callee] {
        assert_eq!(leg.lost, 0, "nothing was lost on the way to us");
        assert!(leg.mos.is_some_and(|mos| (2.8..4.0).contains(&mos)), "{leg:?}");
    }
    let sent = bench.value("media_forwarded_packets_total", "rtp");
    let dropped = bench.value("media_dropped_packets_total", "fault");
    assert!((100.0..220.0).contains(&dropped), "about 160 of 2,000: {dropped}");
    assert!((sent + dropped - 2_000.0).abs() < 0.5, "each packet is in one cell: {sent} and {dropped}");
}

#[tokio::test]
async fn loss_before_us_is_told_apart_from_ours() {
    let bench = Bench::start(config(4));
    let (mut caller, mut callee) = (Phone::new(1).await, Phone::new(2).await);
    bench.call("a", &mut caller, &mut callee).await;
    for _ in 0..10 {
        talk(&mut caller, &mut callee, 9).await;
        caller.next = caller.next.wrapping_add(1); // one of ten never arrives
        callee.send().await;
    }
    until("all packets were taken", async || leg_of(bench.query("a").await, Leg::Callee).packets == 100)
        .await;
    let report = bench.delete("a").await;
    assert_eq!((report.caller.packets, report.caller.lost), (90, 9), "the last gap is not one yet");
    assert_eq!((report.callee.packets, report.callee.lost), (100, 0));
    let (caller_mos, callee_mos) = (report.caller.mos.expect("heard"), report.callee.mos.expect("heard"));
    assert!(caller_mos < 3.7 && callee_mos > 4.3, "{caller_mos} and {callee_mos}");
}

#[tokio::test]
async fn bad_windows_burn_the_journey_with_their_cause() {
    let window = Duration::from_millis(300);
    let bench = Bench::start(Config { quality_window: window, ..config(4) });
    let (mut caller, mut callee) = (Phone::new(1).await, Phone::new(2).await);
    bench.call("a", &mut caller, &mut callee).await;
    bench.faults.set_loss(200_000);
    until("a window was bad", async || {
        talk(&mut caller, &mut callee, 10).await;
        windows(&bench.registry).1 >= 1
    })
    .await;
    let failed = bench.registry.journeys().failed_since(Journey::MediaQuality, &eu(), 0);
    assert_eq!(failed[0].cause, Cause::Loss);
    assert_eq!(failed[0].call_id.as_ref().map(|id| id.reveal().as_str()), Some("a@test"));
}

#[tokio::test]
async fn a_leg_that_is_not_heard_is_noticed_once() {
    let bench = Bench::start(Config {
        quality_window: Duration::from_millis(200),
        one_way_after: Duration::from_millis(300),
        ..config(4)
    });
    let mut notices = bench.relay.notices();
    let (mut caller, mut callee) = (Phone::new(1).await, Phone::new(2).await);
    bench.call("a", &mut caller, &mut callee).await;
    until("the silence of the callee burned the journey", async || {
        caller.send().await;
        windows(&bench.registry).1 >= 2
    })
    .await;
    match timeout(SOON, notices.recv()).await {
        Ok(Ok(Notice::OneWay { session, missing: Leg::Callee })) => assert_eq!(session, key("a")),
        other => panic!("{other:?}"),
    }
    assert!(notices.try_recv().is_err(), "once is enough");
    let failed = bench.registry.journeys().failed_since(Journey::MediaQuality, &eu(), 0);
    assert!(failed.iter().all(|event| event.cause == Cause::OneWay), "{failed:?}");
    assert!(bench.metric("media_one_way_sessions_total{leg=\"callee\",region=\"eu\"} 1"));
}

#[tokio::test]
async fn a_held_leg_is_not_missed() {
    let after = Duration::from_millis(100);
    let bench = Bench::start(Config { one_way_after: after, quality_window: after, ..config(4) });
    let mut notices = bench.relay.notices();
    let (mut caller, callee) = (Phone::new(1).await, Phone::new(2).await);
    bench.offer("a", Leg::Caller, &caller, "a=sendonly\r\n").await.expect("taken");
    caller.rtp_to = bench.answer("a", &callee, "a=recvonly\r\n").await.expect("taken").rtp;
    for _ in 0..40 {
        caller.send().await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(notices.try_recv().is_err());
    let (good, bad) = windows(&bench.registry);
    assert!(
        good >= 1 && bad == 0,
        "the leg that sends is judged, the one that listens is not: {good}, {bad}"
    );
}

#[tokio::test]
async fn a_held_call_is_not_given_up() {
    let bench = Bench::start(Config { abandoned_after: Duration::from_secs(1), ..config(4) });
    let mut notices = bench.relay.notices();
    let (caller, callee) = (Phone::new(1).await, Phone::new(2).await);
    for name in ["held", "unanswered"] {
        bench.offer(name, Leg::Caller, &caller, "a=inactive\r\n").await.expect("taken");
    }
    bench.answer("held", &callee, "a=inactive\r\n").await.expect("taken");
    until("the call that nobody answered was given up", async || bench.relay.live_sessions() == 1).await;
    assert!(matches!(bench.query("held").await, Reply::State(_)));
    assert!(notices.try_recv().is_err());
}

#[tokio::test]
async fn silence_and_abandonment_are_noticed() {
    let bench = Bench::start(Config {
        silent_after: Duration::from_millis(100),
        abandoned_after: Duration::from_secs(1),
        ..config(4)
    });
    let mut notices = bench.relay.notices();
    let (mut caller, mut callee) = (Phone::new(1).await, Phone::new(2).await);
    bench.call("a", &mut caller, &mut callee).await;
    let notice = timeout(SOON, notices.recv()).await;
    assert!(matches!(notice, Ok(Ok(Notice::Silent { .. }))), "{notice:?}");
    assert!(bench.metric("media_silent_sessions_total{region=\"eu\"} 1"));
    until("the call was given up", async || bench.relay.live_sessions() == 0).await;
    until("it was counted", async || bench.metric("media_sessions_ended_total{end=\"abandoned\"} 1")).await;
}

/// A quick relay for what happens to a call without a core.
fn orphan_config() -> Config {
    Config {
        quality_window: Duration::from_millis(200),
        one_way_after: Duration::from_millis(600),
        silent_after: Duration::from_secs(1),
        ..config(4)
    }
}

/// A call that was anchored by a core which is then gone, with a good window behind it.
async fn orphan(bench: &Bench, caller: &mut Phone, callee: &mut Phone) {
    let core = bench.relay.for_core();
    let offer = Request::Offer(describe("a", Leg::Caller, &caller.sdp("")));
    callee.rtp_to = given(core.request(offer).await).expect("taken").rtp;
    let answer = Request::Answer(describe("a", Leg::Callee, &callee.sdp("")));
    caller.rtp_to = given(core.clone().request(answer).await).expect("taken").rtp;
    until("both legs had a good window", async || {
        talk(caller, callee, 5).await;
        windows(&bench.registry).0 >= 2
    })
    .await;
    assert!(bench.metric("media_sessions_orphaned_total 0"), "its core is there");
    drop(core);
    until("the session is an orphan", async || {
        talk(caller, callee, 1).await;
        bench.metric("media_sessions_orphaned_total 1")
    })
    .await;
}

fn recorded_windows(bench: &mut Bench) -> usize {
    bench.records().iter().filter(|record| matches!(record.body, Body::Quality(_))).count()
}

#[tokio::test]
async fn a_call_without_a_core_goes_on_unjudged_until_a_side_hangs_up() {
    let mut bench = Bench::start(orphan_config());
    let mut notices = bench.relay.notices();
    let (mut caller, mut callee) = (Phone::new(1).await, Phone::new(2).await);
    orphan(&bench, &mut caller, &mut callee).await;
    let judged = windows(&bench.registry);
    bench.records();
    bench.faults.set_loss(500_000);
    let mut recorded = 0;
    until("four windows were recorded", async || {
        talk(&mut caller, &mut callee, 5).await;
        recorded += recorded_windows(&mut bench);
        recorded >= 4
    })
    .await;
    bench.faults.set_loss(0);
    assert_eq!(windows(&bench.registry), judged, "measured, and held against nobody");
    // What was dropped before does not come any more.
    while callee.hears_within(BRIEFLY).await.is_some() {}
    let packet = caller.send().await;
    assert_eq!(callee.hears().await, Some(packet), "sound goes on");
    // The caller hangs up; its BYE finds nobody, and the callee does not know.
    until("the session ended by itself", async || {
        callee.send().await;
        bench.metric("media_sessions_ended_total{end=\"orphaned\"} 1")
    })
    .await;
    assert!(bench.metric("media_sessions 0") && bench.metric("media_ports_used 0"));
    assert_eq!(windows(&bench.registry), judged);
    assert!(notices.try_recv().is_err(), "nobody is bothered");
    assert_eq!(bench.value("media_one_way_sessions_total", "caller"), 0.0);
}

#[tokio::test]
async fn a_call_without_a_core_ends_in_silence_or_when_it_is_deleted() {
    let bench = Bench::start(orphan_config());
    let (mut caller, mut callee) = (Phone::new(1).await, Phone::new(2).await);
    orphan(&bench, &mut caller, &mut callee).await;
    until("silence ended it", async || bench.metric("media_sessions_ended_total{end=\"orphaned\"} 1")).await;
    // One that nobody ever answered, and that its core will never end.
    let core = bench.relay.for_core();
    let offer = Request::Offer(describe("ringing", Leg::Caller, &caller.sdp("")));
    given(core.request(offer).await).expect("taken");
    drop(core);
    until("it ended too", async || bench.metric("media_sessions_ended_total{end=\"orphaned\"} 2")).await;
    let core = bench.relay.for_core();
    let offer = Request::Offer(describe("b", Leg::Caller, &caller.sdp("")));
    given(core.request(offer).await).expect("taken");
    drop(core);
    until("it is an orphan", async || bench.metric("media_sessions_orphaned_total 3")).await;
    bench.delete("b").await;
    assert!(bench.metric("media_sessions_ended_total{end=\"deleted\"} 1"));
}

#[tokio::test]
async fn a_core_that_asks_about_a_call_adopts_it() {
    let bench = Bench::start(orphan_config());
    let (mut caller, mut callee) = (Phone::new(1).await, Phone::new(2).await);
    orphan(&bench, &mut caller, &mut callee).await;
    let judged = windows(&bench.registry).0;
    bench.call("a", &mut caller, &mut callee).await;
    until("windows are judged again", async || {
        talk(&mut caller, &mut callee, 5).await;
        windows(&bench.registry).0 >= judged + 2
    })
    .await;
    assert_eq!(windows(&bench.registry).1, 0);
    // Now a side that is not heard is somebody's business again, and the call is not given up.
    until("the silence of the callee burns the journey", async || {
        caller.send().await;
        windows(&bench.registry).1 >= 1
    })
    .await;
    assert!(matches!(bench.query("a").await, Reply::State(_)));
}
