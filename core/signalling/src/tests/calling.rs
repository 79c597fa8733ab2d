//! Calls that go as they should.

use belfry_relay_api::Refusal;
use belfry_signal::Journey;
use belfry_signal::record::Body;
use belfry_sip_proto::HeaderName;

use super::house::{Heard, House, Phone, SDP};
use crate::handle::Transport;

fn journey(house: &House) -> (u64, u64) {
    let counts = house.registry.journeys().counts();
    let found = counts.iter().find(|count| count.journey == Journey::CallSetup);
    found.map_or((0, 0), |count| (count.good, count.bad))
}

/// Two registered phones.
async fn phones(house: &mut House, caller: Transport, callee: Transport) -> (Phone, Phone) {
    let (alice, bob) = (Phone::new("alice", caller), Phone::new("bob", callee));
    house.register(&alice).await;
    house.register(&bob).await;
    (alice, bob)
}

/// Brings a call up: gives the INVITE as the callee got it and the 200 as the caller got it.
async fn talk(house: &mut House, alice: &Phone, bob: &Phone, call_id: &str) -> (Heard, Heard) {
    house.call(alice, bob.user, call_id, SDP).await;
    let invite = house.hear_request(bob, "INVITE").await;
    house.say(bob, &invite.answer("180 Ringing", "tb", &format!("Contact: {}\n", bob.contact())));
    house.hear_status(alice, 180).await;
    house.say_with(bob, &invite.answer("200 OK", "tb", &format!("Contact: {}\n", bob.contact())), SDP);
    let answered = house.hear_status(alice, 200).await;
    let ack = house.in_dialog(alice, "ACK", 2, &answered, &bob.contact(), None);
    house.say(alice, &ack);
    house.hear_request(bob, "ACK").await;
    (invite, answered)
}

#[tokio::test]
async fn a_call_goes_from_invite_to_its_record() {
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house, Transport::Udp, Transport::Wss).await;
    let (invite, answered) = talk(&mut house, &alice, &bob, "call-1").await;
    // Each side is sent by its own transport and sees its own flow on top.
    let via = &invite.values(HeaderName::Via)[0];
    assert!(via.starts_with("SIP/2.0/WSS edge.test:8443;branch=z9hG4bK"), "{via}");
    let routes = invite.values(HeaderName::RecordRoute);
    assert!(routes[0].starts_with("<sip:token-bob-wss@edge.test:8443;transport=wss;lr;leg=callee;call="));
    assert!(routes[1].starts_with("<sip:token-alice-udp@edge.test:5060;transport=udp;lr;leg=caller;call="));
    assert_eq!(invite.header(HeaderName::MaxForwards), "69");
    assert!(invite.message.request_uri().starts_with("sip:bob@192.0.2.7:"));
    assert!(!invite.text().contains("Proxy-Authorization"), "credentials for us do not travel on");
    // Sound goes through the relay both ways.
    assert!(invite.text().contains("c=IN IP4 198.51.100.9") && invite.text().contains("m=audio 20000"));
    assert!(answered.text().contains("m=audio 30000"));
    assert_eq!(house.core.live_calls(), 1);
    let bye = house.in_dialog(&alice, "BYE", 3, &answered, &bob.contact(), None);
    house.say(&alice, &bye);
    let bye = house.hear_request(&bob, "BYE").await;
    assert_eq!(bye.values(HeaderName::Route).len(), 0, "both Routes named us");
    house.say(&bob, &bye.answer("200 OK", "", ""));
    house.hear_status(&alice, 200).await;
    // The record was on disk before the 200 of the BYE left.
    let records = house.state.call_records(10).await.expect("readable");
    assert_eq!(records.len(), 1);
    let record = &records[0];
    assert_eq!(record.call_id.reveal(), "call-1");
    assert_eq!((record.status_code, &*record.outcome, &*record.cause), (200, "answered", "caller_hung_up"));
    assert_eq!(record.caller.reveal(), "sip:alice@belfry.test");
    assert_eq!(house.relay.asked(), ["offer caller", "answer callee", "delete"]);
    assert_eq!((house.core.live_calls(), journey(&house)), (0, (1, 0)));
    assert_eq!(house.metric("core_call_attempts_total{region=\"eu\",result=\"answered\"}"), Some(1.0));
    assert_eq!(house.metric("core_call_seconds_count{region=\"eu\"}"), Some(1.0));
}

#[tokio::test]
async fn the_callee_may_hang_up_and_the_ladder_tells_the_story() {
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house, Transport::Tls, Transport::Udp).await;
    house.emitted();
    let (invite, _) = talk(&mut house, &alice, &bob, "call-2").await;
    let bye = house.in_dialog(&bob, "BYE", 1, &invite, &alice.contact(), Some("tb"));
    house.say(&bob, &bye);
    let bye = house.hear_request(&alice, "BYE").await;
    house.say(&alice, &bye.answer("200 OK", "", ""));
    house.hear_status(&bob, 200).await;
    let emitted = house.emitted();
    let ladder: Vec<String> = emitted
        .iter()
        .filter_map(|body| match body {
            Body::Sip(message) => Some(format!("{:?} {}", message.direction, message.summary)),
            _ => None,
        })
        .collect();
    let expected = [
        "Received INVITE",
        "Sent 100",
        "Sent 407",
        "Received ACK",
        "Received INVITE",
        "Sent 100",
        "Sent INVITE",
        "Received 180",
        "Sent 180",
        "Received 200",
        "Sent 200",
        "Received ACK",
        "Sent ACK",
        "Received BYE",
        "Sent BYE",
        "Received 200",
        "Sent 200",
    ];
    assert_eq!(ladder, expected);
    let call = emitted.iter().find_map(|body| match body {
        Body::Call(call) => Some(call),
        _ => None,
    });
    let call = call.expect("the call is told");
    assert_eq!(
        (&*call.cause, call.mos_min, call.mos_mean),
        ("callee_hung_up", Some(4.0), Some(4.300_000_000_000_001))
    );
    let spans: Vec<&str> = emitted
        .iter()
        .filter_map(|body| match body {
            Body::Span(span) => Some(span.name.as_ref()),
            _ => None,
        })
        .collect();
    assert!(spans.contains(&"sip.call") && spans.contains(&"sip.transaction"), "{spans:?}");
    let traces = emitted.iter().filter_map(|body| match body {
        Body::Span(span) => Some(span.context.trace_id),
        Body::Sip(message) => Some(message.trace_id),
        _ => None,
    });
    assert_eq!(traces.collect::<std::collections::HashSet<_>>().len(), 1, "a call is one trace");
}

#[tokio::test]
async fn a_busy_phone_is_acknowledged_hop_by_hop() {
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house, Transport::Tcp, Transport::Udp).await;
    house.call(&alice, "bob", "busy", SDP).await;
    let invite = house.hear_request(&bob, "INVITE").await;
    house.say(&bob, &invite.answer("486 Busy Here", "tb", ""));
    let ack = house.hear_request(&bob, "ACK").await;
    assert_eq!(ack.values(HeaderName::Via), &invite.values(HeaderName::Via)[..1]);
    let busy = house.hear_status(&alice, 486).await;
    house.acknowledge(&alice, &busy);
    // The phone repeats its answer: the ACK comes from state.
    house.say(&bob, &invite.answer("486 Busy Here", "tb", ""));
    house.hear_request(&bob, "ACK").await;
    assert_eq!(house.metric("core_requests_total{direction=\"sent\",method=\"ack\"}"), Some(2.0));
    house.until(|text| text.contains("core_call_records_total{outcome=\"written\"} 1")).await;
    let records = house.state.call_records(10).await.expect("readable");
    assert_eq!((records.len(), &*records[0].outcome, records[0].status_code), (1, "busy", 486));
    assert_eq!(journey(&house), (1, 0));
    assert!(house.relay.asked().contains(&"delete".to_owned()));
}

#[tokio::test]
async fn a_caller_may_give_up() {
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house, Transport::Udp, Transport::Udp).await;
    house.call(&alice, "bob", "cancelled", SDP).await;
    let invite = house.hear_request(&bob, "INVITE").await;
    let cancel = alice
        .invite("bob", "cancelled", 2, "Reason: SIP;cause=200;text=\"Call completed elsewhere\"\n")
        .replace("INVITE ", "CANCEL ")
        .replace("2 INVITE", "2 CANCEL");
    house.say(&alice, &cancel);
    house.hear_status(&alice, 200).await;
    // Nothing was heard of the phone yet, so its CANCEL waits (RFC 3261 section 9.1).
    assert!(house.is_quiet().await);
    house.say(&bob, &invite.answer("180 Ringing", "tb", ""));
    let sent = house.hear_request(&bob, "CANCEL").await;
    assert_eq!(sent.values(HeaderName::Via), &invite.values(HeaderName::Via)[..1]);
    assert_eq!(sent.message.request_uri(), invite.message.request_uri());
    assert!(sent.header(HeaderName::Reason).contains("completed elsewhere"));
    house.hear_status(&alice, 180).await;
    house.say(&bob, &sent.answer("200 OK", "tb", ""));
    house.say(&bob, &invite.answer("487 Request Terminated", "tb", ""));
    house.hear_request(&bob, "ACK").await;
    let terminated = house.hear_status(&alice, 487).await;
    house.acknowledge(&alice, &terminated);
    house.until(|text| text.contains("core_call_records_total{outcome=\"written\"} 1")).await;
    let records = house.state.call_records(10).await.expect("readable");
    assert_eq!((&*records[0].outcome, &*records[0].cause), ("cancelled", "cancelled"));
    assert_eq!((journey(&house), house.core.live_calls()), ((1, 0), 0));
    // A CANCEL of nothing.
    house.say(&alice, &cancel.replace("cancelled", "unknown"));
    house.hear_status(&alice, 481).await;
}

#[tokio::test]
async fn an_answer_is_repeated_until_the_ack_and_a_repeated_invite_is_absorbed() {
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house, Transport::Udp, Transport::Udp).await;
    house.call(&alice, "bob", "repeat", SDP).await;
    let invite = house.hear_request(&bob, "INVITE").await;
    let ok = invite.answer("200 OK", "tb", &format!("Contact: {}\n", bob.contact()));
    house.say_with(&bob, &ok, SDP);
    let first = house.hear_status(&alice, 200).await;
    house.say_with(&bob, &ok, SDP);
    let second = house.hear_status(&alice, 200).await;
    assert_eq!(first.text(), second.text(), "the relay is not asked again");
    assert_eq!(house.relay.asked(), ["offer caller", "answer callee"]);
    assert_eq!(house.metric("core_call_attempts_total{region=\"eu\",result=\"answered\"}"), Some(1.0));
}

#[tokio::test]
async fn an_answer_repeated_while_the_relay_works_on_it_hangs_nobody_up() {
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house, Transport::Udp, Transport::Udp).await;
    house.call(&alice, "bob", "impatient", SDP).await;
    let invite = house.hear_request(&bob, "INVITE").await;
    let ok = invite.answer("200 OK", "tb", &format!("Contact: {}\n", bob.contact()));
    say_twice_while_the_relay_works(&mut house, &bob, &ok).await;
    let answered = house.hear_status(&alice, 200).await;
    assert!(house.is_quiet().await, "no BYE");
    assert_eq!((house.relay.asked().len(), house.core.live_calls()), (2, 1));
    house.say(&alice, &house.in_dialog(&alice, "ACK", 2, &answered, &bob.contact(), None));
    house.hear_request(&bob, "ACK").await;
    // The same when the session is changed.
    house.say_with(&bob, &house.in_dialog(&bob, "INVITE", 1, &invite, &alice.contact(), Some("tb")), SDP);
    house.hear_status(&bob, 100).await;
    let again = house.hear_request(&alice, "INVITE").await;
    let ok = again.answer("200 OK", "", &format!("Contact: {}\n", alice.contact()));
    say_twice_while_the_relay_works(&mut house, &alice, &ok).await;
    house.hear_status(&bob, 200).await;
    assert!(house.is_quiet().await, "no BYE");
    assert_eq!((house.relay.asked().len(), house.core.live_calls()), (4, 1));
}

/// A phone answers and repeats its answer, both before the relay has replied.
async fn say_twice_while_the_relay_works(house: &mut House, phone: &Phone, ok: &str) {
    house.relay.hold();
    house.say_with(phone, ok, SDP);
    house.say_with(phone, ok, SDP);
    assert!(house.is_quiet().await);
    house.relay.release();
}

#[tokio::test]
async fn a_change_that_the_relay_refuses_leaves_the_call() {
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house, Transport::Udp, Transport::Udp).await;
    let (invite, _) = talk(&mut house, &alice, &bob, "unchanged").await;
    house.relay.refuse("answer", Refusal::Unavailable);
    house.say_with(&bob, &house.in_dialog(&bob, "INVITE", 1, &invite, &alice.contact(), Some("tb")), SDP);
    house.hear_status(&bob, 100).await;
    let again = house.hear_request(&alice, "INVITE").await;
    let ok = again.answer("200 OK", "", &format!("Contact: {}\n", alice.contact()));
    for repeat in [false, true] {
        house.say_with(&alice, &ok, SDP);
        // The one who answered is not left to wait for an ACK, nor hung up on.
        house.hear_request(&alice, "ACK").await;
        if !repeat {
            let refused = house.hear_status(&bob, 503).await;
            house.acknowledge(&bob, &refused);
        }
        assert!(house.is_quiet().await, "no BYE");
    }
    assert_eq!(house.core.live_calls(), 1);
}

#[tokio::test]
async fn a_call_id_used_again_is_another_record() {
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house, Transport::Tcp, Transport::Tcp).await;
    for cseq in [1, 11] {
        house.call_from(&alice, "bob", "used-again", cseq, SDP).await;
        let invite = house.hear_request(&bob, "INVITE").await;
        house.say_with(&bob, &invite.answer("200 OK", "tb", &format!("Contact: {}\n", bob.contact())), SDP);
        let answered = house.hear_status(&alice, 200).await;
        house.say(&alice, &house.in_dialog(&alice, "BYE", cseq + 2, &answered, &bob.contact(), None));
        let bye = house.hear_request(&bob, "BYE").await;
        house.say(&bob, &bye.answer("200 OK", "", ""));
        house.hear_status(&alice, 200).await;
    }
    assert_eq!(house.state.call_records_count().await.expect("readable"), 2);
}

#[tokio::test]
async fn a_session_is_changed_by_either_side() {
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house, Transport::Tcp, Transport::Tcp).await;
    let (invite, _) = talk(&mut house, &alice, &bob, "reinvite").await;
    let again = house.in_dialog(&bob, "INVITE", 1, &invite, &alice.contact(), Some("tb"));
    house.say_with(&bob, &again, SDP);
    house.hear_status(&bob, 100).await;
    let again = house.hear_request(&alice, "INVITE").await;
    assert!(again.text().contains("m=audio 30000"), "{}", again.text());
    house.say_with(&alice, &again.answer("200 OK", "", &format!("Contact: {}\n", alice.contact())), SDP);
    let changed = house.hear_status(&bob, 200).await;
    assert!(changed.text().contains("m=audio 20000"));
    assert_eq!(house.relay.asked()[2..], ["offer callee", "answer caller"]);
    // A re-INVITE is no attempt.
    assert_eq!(journey(&house), (1, 0));
    let bye = house.in_dialog(&bob, "BYE", 2, &invite, &alice.contact(), Some("tb"));
    house.say(&bob, &bye);
    let bye = house.hear_request(&alice, "BYE").await;
    house.say(&alice, &bye.answer("200 OK", "", ""));
    house.hear_status(&bob, 200).await;
    assert_eq!(house.state.call_records_count().await.expect("readable"), 1);
}

#[tokio::test]
async fn an_offer_may_come_in_the_answer() {
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house, Transport::Udp, Transport::Tls).await;
    house.call(&alice, "bob", "late-offer", "").await;
    let invite = house.hear_request(&bob, "INVITE").await;
    house.say_with(&bob, &invite.answer("200 OK", "tb", &format!("Contact: {}\n", bob.contact())), SDP);
    let answered = house.hear_status(&alice, 200).await;
    let ack = house.in_dialog(&alice, "ACK", 2, &answered, &bob.contact(), None);
    house.say_with(&alice, &ack, SDP);
    let ack = house.hear_request(&bob, "ACK").await;
    assert!(ack.text().contains("m=audio 20000"), "{}", ack.text());
    assert_eq!(house.relay.asked(), ["offer callee", "answer caller"]);
}

#[tokio::test]
async fn a_phone_that_comes_back_on_another_flow_keeps_its_call() {
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house, Transport::Tls, Transport::Udp).await;
    let (invite, answered) = talk(&mut house, &alice, &bob, "moved").await;
    let moved = Phone { flow: "alices-new-flow".to_owned(), ..alice.clone() };
    house.say(&moved, &house.in_dialog(&moved, "INFO", 3, &answered, &bob.contact(), None));
    let info = house.hear_request(&bob, "INFO").await;
    house.say(&bob, &info.answer("200 OK", "", ""));
    house.hear_status(&moved, 200).await;
    house.say(&bob, &house.in_dialog(&bob, "BYE", 1, &invite, &alice.contact(), Some("tb")));
    house.hear_request(&moved, "BYE").await;
}

#[tokio::test]
async fn both_may_hang_up_at_once_and_there_is_one_record() {
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house, Transport::Tcp, Transport::Tcp).await;
    let (invite, answered) = talk(&mut house, &alice, &bob, "crossing").await;
    house.say(&alice, &house.in_dialog(&alice, "BYE", 3, &answered, &bob.contact(), None));
    house.say(&bob, &house.in_dialog(&bob, "BYE", 1, &invite, &alice.contact(), Some("tb")));
    let to_bob = house.hear_request(&bob, "BYE").await;
    let to_alice = house.hear_request(&alice, "BYE").await;
    house.say(&bob, &to_bob.answer("200 OK", "", ""));
    house.say(&alice, &to_alice.answer("200 OK", "", ""));
    let mut heard =
        [house.hear().await, house.hear().await].map(|heard| (heard.flow.clone(), heard.status()));
    heard.sort();
    assert_eq!(heard, [(alice.flow, 200), (bob.flow, 200)]);
    house.until(|text| text.contains("core_call_records_total{outcome=\"written\"} 1")).await;
    assert_eq!(house.state.call_records_count().await.expect("readable"), 1);
    assert_eq!(house.metric("core_disconnect_seconds_count{region=\"eu\"}"), Some(1.0));
}

#[tokio::test]
async fn early_dialogs_find_their_way_by_token() {
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house, Transport::Udp, Transport::Tls).await;
    house.call(&alice, "bob", "early", "").await;
    let invite = house.hear_request(&bob, "INVITE").await;
    let reliable = format!("Contact: {}\nRequire: 100rel\nRSeq: 1\n", bob.contact());
    house.say_with(&bob, &invite.answer("183 Session Progress", "tb", &reliable), SDP);
    let progress = house.hear_status(&alice, 183).await;
    assert!(progress.text().contains("m=audio 30000"));
    house.say_with(&alice, &house.in_dialog(&alice, "PRACK", 3, &progress, &bob.contact(), None), SDP);
    let prack = house.hear_request(&bob, "PRACK").await;
    assert!(prack.text().contains("m=audio 20000"), "{}", prack.text());
    house.say(&bob, &prack.answer("200 OK", "", ""));
    house.hear_status(&alice, 200).await;
    // The callee changes the session before it answers.
    house.say_with(&bob, &house.in_dialog(&bob, "UPDATE", 1, &invite, &alice.contact(), Some("tb")), SDP);
    let update = house.hear_request(&alice, "UPDATE").await;
    house.say_with(&alice, &update.answer("200 OK", "", ""), SDP);
    house.hear_status(&bob, 200).await;
    let asked = ["offer callee", "answer caller", "offer callee", "answer caller"];
    assert_eq!(house.relay.asked(), asked);
}

#[tokio::test]
async fn without_anchoring_descriptions_pass_unchanged() {
    let mut house = House::with(crate::Config { anchor_media: false, ..crate::Config::for_test() }).await;
    let (alice, bob) = phones(&mut house, Transport::Tcp, Transport::Udp).await;
    let (invite, answered) = talk(&mut house, &alice, &bob, "direct").await;
    assert!(invite.message.body() == SDP.as_bytes() && answered.message.body() == SDP.as_bytes());
    assert!(house.relay.asked().is_empty());
}

#[tokio::test]
async fn phones_on_two_edges_call_each_other() {
    let mut house = House::new().await;
    let (alice, bob) = (Phone::new("alice", Transport::Udp), Phone::new("bob", Transport::Tls));
    house.register(&alice).await;
    let mut first = house.change_edge().await;
    house.register(&bob).await;
    house.use_edge(&mut first);
    house.call(&alice, "bob", "two-edges", SDP).await;
    house.use_edge(&mut first);
    let invite = house.hear_request(&bob, "INVITE").await;
    let routes = invite.values(HeaderName::RecordRoute);
    assert!(routes[0].contains("@edge-two.test:5061") && routes[1].contains("@edge.test:5060"), "{routes:?}");
    house.say_with(&bob, &invite.answer("200 OK", "tb", &format!("Contact: {}\n", bob.contact())), SDP);
    house.use_edge(&mut first);
    let answered = house.hear_status(&alice, 200).await;
    house.say(&alice, &house.in_dialog(&alice, "ACK", 2, &answered, &bob.contact(), None));
    house.use_edge(&mut first);
    house.hear_request(&bob, "ACK").await;
    // The callee's edge is gone: its phones cannot be reached, and that is the edge's fault.
    house.use_edge(&mut first);
    house.lose_edge(first).await;
    house.call(&alice, "bob", "edge-gone", SDP).await;
    house.hear_status(&alice, 503).await;
    let line =
        "journey_failures_total{cause=\"unreachable\",journey=\"call_setup\",region=\"eu\",room=\"edge\"}";
    assert_eq!(house.metric(line), Some(1.0));
}

#[tokio::test]
async fn messages_and_unknown_methods_are_carried_and_extensions_untouched() {
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house, Transport::Tcp, Transport::Udp).await;
    for method in ["MESSAGE", "NEWMETHOD"] {
        let call_id = format!("m-{method}");
        let request = |cseq: u32, extra: &str| {
            alice
                .invite("bob", &call_id, cseq, &format!("X-Odd:  kept   as it is\n{extra}"))
                .replace("INVITE", method)
        };
        house.say(&alice, &request(1, ""));
        let challenged = house.hear_status(&alice, 407).await;
        let authorization = super::house::authorize(
            &challenged,
            "alice",
            super::house::PASSWORD,
            method,
            "sip:bob@belfry.test",
        );
        house.say(&alice, &request(2, &authorization));
        let carried = house.hear_request(&bob, method).await;
        assert!(carried.text().contains("X-Odd:  kept   as it is\r\n"), "{}", carried.text());
        house.say(&bob, &carried.answer("202 Accepted", "tb", ""));
        house.hear_status(&alice, 202).await;
    }
    assert_eq!(journey(&house), (0, 0));
}

#[tokio::test]
async fn we_answer_options_ourselves() {
    let mut house = House::new().await;
    let phone = Phone::new("alice", Transport::Udp);
    let ping = phone
        .invite("x", "ping", 1, "")
        .replace("INVITE", "OPTIONS")
        .replace("sip:x@belfry.test SIP", "sip:edge.test SIP");
    house.say(&phone, &ping);
    let pong = house.hear_status(&phone, 200).await;
    assert!(pong.header(HeaderName::Allow).contains("INVITE"));
    house.say(&phone, &ping.replace("ping", "other").replace("OPTIONS", "PUBLISH"));
    house.hear_status(&phone, 405).await;
}
