//! Calls and messages that go wrong: whose fault it is, what is said, and what is left behind.

use std::time::Duration;

use belfry_relay_api::{Leg, Notice, Refusal, SessionKey};
use belfry_signal::Journey;
use belfry_sip_proto::HeaderName;

use super::house::{Heard, House, PASSWORD, Phone, SDP, authorize};
use crate::Config;
use crate::handle::{SendFailure, Transport};

fn journey(house: &House) -> (u64, u64) {
    let counts = house.registry.journeys().counts();
    let found = counts.iter().find(|count| count.journey == Journey::CallSetup);
    found.map_or((0, 0), |count| (count.good, count.bad))
}

async fn phones(house: &mut House) -> (Phone, Phone) {
    let (alice, bob) = (Phone::new("alice", Transport::Udp), Phone::new("bob", Transport::Tcp));
    house.register(&alice).await;
    house.register(&bob).await;
    (alice, bob)
}

/// The one call record, as outcome, cause and status.
async fn record(house: &House) -> (String, String, u16) {
    house.until(|text| text.contains("core_call_records_total{outcome=\"written\"} 1")).await;
    let records = house.state.call_records(10).await.expect("readable");
    assert_eq!(records.len(), 1, "{records:?}");
    (records[0].outcome.to_string(), records[0].cause.to_string(), records[0].status_code)
}

fn failures(house: &House, room: &str, cause: &str) -> Option<f64> {
    house.metric(&format!(
        "journey_failures_total{{cause=\"{cause}\",journey=\"call_setup\",region=\"eu\",room=\"{room}\"}}"
    ))
}

#[tokio::test]
async fn unknown_and_absent_customers_are_told_apart() {
    let mut house = House::new().await;
    let alice = Phone::new("alice", Transport::Tcp);
    house.register(&alice).await;
    for (callee, status) in [("nobody", 404), ("carol", 480)] {
        house.call(&alice, callee, callee, SDP).await;
        let refused = house.hear_status(&alice, status).await;
        house.acknowledge(&alice, &refused);
    }
    house.until(|text| text.contains("core_call_records_total{outcome=\"written\"} 2")).await;
    let causes: Vec<_> =
        house.state.call_records(10).await.expect("readable").iter().map(|r| r.cause.to_string()).collect();
    assert!(causes.contains(&"unknown_customer".to_owned()) && causes.contains(&"not_registered".to_owned()));
    assert_eq!((journey(&house), house.relay.asked().len()), ((2, 0), 0));
}

#[tokio::test]
async fn callers_are_who_they_say_they_are() {
    let mut house = House::new().await;
    let (alice, _) = phones(&mut house).await;
    for (number, (user, password)) in [("alice", "wrong"), ("bob", PASSWORD)].into_iter().enumerate() {
        let call_id = format!("liar-{number}");
        house.say(&alice, &alice.invite("bob", &call_id, 1, ""));
        house.hear_status(&alice, 100).await;
        let challenged = house.hear_status(&alice, 407).await;
        house.acknowledge(&alice, &challenged);
        let authorization = authorize(&challenged, user, password, "INVITE", "sip:bob@belfry.test");
        house.say(&alice, &alice.invite("bob", &call_id, 2, &authorization));
        house.hear_status(&alice, 100).await;
        let refused = house.hear_status(&alice, 403).await;
        house.acknowledge(&alice, &refused);
    }
    assert_eq!(house.metric("core_call_attempts_total{region=\"eu\",result=\"denied\"}"), Some(2.0));
    assert_eq!(journey(&house), (2, 0));
}

#[tokio::test]
async fn hidden_callers_are_known_to_us_and_edge_addresses_mean_the_domain() {
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house).await;
    let hidden = |cseq, extra: &str| {
        alice
            .invite("bob", "hidden", cseq, &format!("Privacy: id\n{extra}"))
            .replace("From: \"alice\" <sip:alice@belfry.test>", "From: <sip:anonymous@anonymous.invalid>")
            .replace("INVITE sip:bob@belfry.test", "INVITE sip:bob@edge.test:5060")
    };
    house.say(&alice, &hidden(1, ""));
    house.hear_status(&alice, 100).await;
    let challenged = house.hear_status(&alice, 407).await;
    house.acknowledge(&alice, &challenged);
    let authorization = authorize(&challenged, "alice", PASSWORD, "INVITE", "sip:bob@edge.test:5060");
    house.say(&alice, &hidden(2, &authorization));
    house.hear_status(&alice, 100).await;
    let invite = house.hear_request(&bob, "INVITE").await;
    assert!(!invite.text().contains("sip:alice@belfry.test"), "{}", invite.text());
    house.say(&bob, &invite.answer("486 Busy Here", "tb", ""));
    house.hear_request(&bob, "ACK").await;
    house.hear_status(&alice, 486).await;
    record(&house).await;
    let records = house.state.call_records(1).await.expect("readable");
    let parties = (records[0].caller.reveal().as_str(), records[0].callee.reveal().as_str());
    assert_eq!(parties, ("sip:alice@belfry.test", "sip:bob@belfry.test"));
}

#[tokio::test]
async fn a_relay_without_ports_is_named() {
    let mut house = House::new().await;
    let (alice, _) = phones(&mut house).await;
    house.relay.refuse("offer", Refusal::PortsExhausted);
    house.call(&alice, "bob", "no-ports", SDP).await;
    let refused = house.hear_status(&alice, 503).await;
    assert_eq!(refused.header(HeaderName::RetryAfter), "5");
    assert!(refused.header(HeaderName::Reason).contains("media relay"), "{}", refused.text());
    house.acknowledge(&alice, &refused);
    assert_eq!(record(&house).await, ("failed".into(), "media_refused".into(), 503));
    assert_eq!(failures(&house, "media", "ports_exhausted"), Some(1.0));
    house.relay.refuse("offer", Refusal::BadDescription);
    house.call(&alice, "bob", "bad-sdp", SDP).await;
    house.hear_status(&alice, 488).await;
    assert_eq!(journey(&house), (1, 1), "a bad description is the customer's own");
}

#[tokio::test]
async fn a_refused_answer_hangs_up_on_the_callee() {
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house).await;
    house.relay.refuse("answer", Refusal::Unavailable);
    house.call(&alice, "bob", "no-answer", SDP).await;
    let invite = house.hear_request(&bob, "INVITE").await;
    house.say_with(&bob, &invite.answer("200 OK", "tb", &format!("Contact: {}\n", bob.contact())), SDP);
    let ack = house.hear_request(&bob, "ACK").await;
    assert_eq!(ack.header(HeaderName::CSeq), "2 ACK");
    let bye = house.hear_request(&bob, "BYE").await;
    assert!(
        bye.header(HeaderName::To).contains("tag=tb") && bye.header(HeaderName::From).contains("tag=falice")
    );
    house.say(&bob, &bye.answer("200 OK", "", ""));
    let refused = house.hear_status(&alice, 503).await;
    house.acknowledge(&alice, &refused);
    let (_, cause, status) = record(&house).await;
    assert_eq!((cause.as_str(), status), ("media_refused", 503));
    assert_eq!(house.core.live_calls(), 0);
}

#[tokio::test]
async fn a_silent_relay_is_not_waited_for_for_ever() {
    let config = Config { relay_timeout: Duration::from_millis(30), ..Config::for_test() };
    let mut house = House::with(config).await;
    let (alice, _) = phones(&mut house).await;
    house.relay.stay_silent();
    house.call(&alice, "bob", "silent", SDP).await;
    house.hear_status(&alice, 503).await;
    assert_eq!(failures(&house, "media", "unreachable"), Some(1.0));
}

#[tokio::test]
async fn silence_on_both_sides_ends_the_call() {
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house).await;
    house.call(&alice, "bob", "dead-air", SDP).await;
    let invite = house.hear_request(&bob, "INVITE").await;
    house.say_with(&bob, &invite.answer("200 OK", "tb", &format!("Contact: {}\n", bob.contact())), SDP);
    let answered = house.hear_status(&alice, 200).await;
    house.say(&alice, &house.in_dialog(&alice, "ACK", 2, &answered, &bob.contact(), None));
    house.hear_request(&bob, "ACK").await;
    let session = SessionKey("dead-air".to_owned());
    house.relay.notice(Notice::OneWay { session: session.clone(), missing: Leg::Callee });
    house.relay.notice(Notice::Silent { session });
    let to_alice = house.hear_request(&alice, "BYE").await;
    let to_bob = house.hear_request(&bob, "BYE").await;
    assert!(to_alice.message.request_uri().starts_with("sip:alice@"));
    assert_eq!(to_bob.header(HeaderName::CSeq), "3 BYE");
    assert!(to_alice.header(HeaderName::Reason).contains("media timeout"));
    house.say(&alice, &to_alice.answer("200 OK", "", ""));
    house.say(&bob, &to_bob.answer("200 OK", "", ""));
    assert_eq!(record(&house).await, ("answered".into(), "media_timeout".into(), 200));
}

#[tokio::test]
async fn a_store_that_cannot_write_does_not_keep_phones_waiting() {
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house).await;
    house.call(&alice, "bob", "no-disk", SDP).await;
    let invite = house.hear_request(&bob, "INVITE").await;
    house.say_with(&bob, &invite.answer("200 OK", "tb", &format!("Contact: {}\n", bob.contact())), SDP);
    let answered = house.hear_status(&alice, 200).await;
    house.state.drain(Duration::from_secs(5)).await;
    house.say(&alice, &house.in_dialog(&alice, "BYE", 3, &answered, &bob.contact(), None));
    let bye = house.hear_request(&bob, "BYE").await;
    house.say(&bob, &bye.answer("200 OK", "", ""));
    house.hear_status(&alice, 200).await;
    assert_eq!(house.metric("core_call_records_total{outcome=\"failed\"}"), Some(1.0));
    // A caller is not our fault; a store is.
    house.say(&alice, &alice.invite("carol", "no-disk-2", 1, ""));
    house.hear_status(&alice, 100).await;
    let challenged = house.hear_status(&alice, 407).await;
    house.acknowledge(&alice, &challenged);
    let authorization = authorize(&challenged, "carol", PASSWORD, "INVITE", "sip:carol@belfry.test");
    house.say(&alice, &alice.invite("carol", "no-disk-2", 2, &authorization));
    house.hear_status(&alice, 100).await;
    house.hear_status(&alice, 500).await;
    assert_eq!(failures(&house, "core", "store"), Some(1.0));
}

#[tokio::test]
async fn switched_faults_do_what_they_say_and_nothing_after() {
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house).await;
    house.faults.set_answer_503(true);
    house.say(&alice, &alice.invite("bob", "faulty", 1, ""));
    house.hear_status(&alice, 100).await;
    let refused = house.hear_status(&alice, 503).await;
    assert_eq!(refused.header(HeaderName::RetryAfter), "5");
    house.acknowledge(&alice, &refused);
    assert_eq!((journey(&house), failures(&house, "core", "server_error")), ((0, 1), Some(1.0)));
    assert_eq!(record(&house).await, ("failed".into(), "server_error".into(), 503));
    house.faults.set_answer_503(false);
    house.call(&alice, "bob", "healthy", SDP).await;
    house.hear_request(&bob, "INVITE").await;
}

#[tokio::test]
async fn a_gone_flow_is_forgotten_and_the_next_contact_is_tried() {
    let mut house = House::new().await;
    let (alice, _) = phones(&mut house).await;
    let desk = Phone::new("bob", Transport::Tls);
    house.register(&desk).await;
    house.call(&alice, "bob", "two-contacts", SDP).await;
    let (first, second) = (house.hear().await, house.hear().await);
    assert_ne!(first.flow, second.flow, "both are wanted as much and ring at once");
    assert_ne!(first.values(HeaderName::Via)[0], second.values(HeaderName::Via)[0]);
    house.fail_send(&first, SendFailure::FlowGone);
    assert!(house.is_quiet().await, "the other may still answer");
    assert_eq!(house.state.bindings().len(), 2, "alice and the one that is left");
    house.fail_send(&second, SendFailure::FlowGone);
    let refused = house.hear_status(&alice, 480).await;
    house.acknowledge(&alice, &refused);
    assert_eq!(record(&house).await, ("no_answer".into(), "flow_gone".into(), 480));
    assert_eq!(journey(&house), (1, 0));
}

#[tokio::test]
async fn within_a_call_a_gone_flow_is_430_unless_the_phone_is_back() {
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house).await;
    house.call(&alice, "bob", "flow-430", SDP).await;
    let invite = house.hear_request(&bob, "INVITE").await;
    house.say_with(&bob, &invite.answer("200 OK", "tb", &format!("Contact: {}\n", bob.contact())), SDP);
    let answered = house.hear_status(&alice, 200).await;
    house.say(&alice, &house.in_dialog(&alice, "INFO", 3, &answered, &bob.contact(), None));
    let info = house.hear_request(&bob, "INFO").await;
    house.fail_send(&info, SendFailure::FlowGone);
    house.hear_status(&alice, 430).await;
    // It registers the same contact on a new connection, and is reached there.
    let back = Phone { flow: "bobs-new-flow".to_owned(), ..bob.clone() };
    house.register(&back).await;
    house.say(&alice, &house.in_dialog(&alice, "INFO", 4, &answered, &bob.contact(), None));
    let info = house.hear_request(&bob, "INFO").await;
    house.fail_send(&info, SendFailure::FlowGone);
    let info = house.hear_request(&back, "INFO").await;
    house.say(&back, &info.answer("200 OK", "", ""));
    house.hear_status(&alice, 200).await;
}

#[tokio::test]
async fn a_long_queue_is_shortened_with_503() {
    let mut house = House::with(Config { queue_messages_overload: 5, ..Config::for_test() }).await;
    let phone = Phone::new("alice", Transport::Tcp);
    for number in 0..40 {
        house.say(&phone, &phone.register(&format!("flood-{number}"), 1, ""));
    }
    let mut statuses = Vec::new();
    for _ in 0..40 {
        statuses.push(house.hear().await.status());
    }
    assert!(statuses.contains(&503), "{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, 401 | 503)), "{statuses:?}");
    assert_eq!(statuses.last(), Some(&401), "the queue is short again");
}

#[tokio::test]
async fn a_long_queue_does_not_refuse_repeats() {
    let mut house = House::with(Config { queue_messages_overload: 5, ..Config::for_test() }).await;
    let phone = Phone::new("alice", Transport::Udp);
    let register = phone.register("repeated", 1, "");
    house.say(&phone, &register);
    house.hear_status(&phone, 401).await;
    for _ in 0..40 {
        house.say(&phone, &register);
    }
    for _ in 0..40 {
        house.hear_status(&phone, 401).await;
    }
}

#[tokio::test]
async fn without_a_free_transaction_requests_are_refused() {
    let mut house = House::with(Config { transactions_max: 1, ..Config::for_test() }).await;
    let phone = Phone::new("alice", Transport::Udp);
    house.say(&phone, &phone.register("first", 1, ""));
    house.hear_status(&phone, 401).await;
    house.say(&phone, &phone.register("second", 1, ""));
    let refused = house.hear_status(&phone, 503).await;
    assert_eq!(refused.header(HeaderName::RetryAfter), "5");
    assert_eq!(house.metric("core_shed_requests_total{reason=\"transactions\"}"), Some(1.0));
}

#[tokio::test]
async fn an_edge_that_cannot_send_is_to_blame() {
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house).await;
    house.call(&alice, "bob", "unreachable", SDP).await;
    let invite = house.hear_request(&bob, "INVITE").await;
    house.fail_send(&invite, SendFailure::Unreachable);
    house.hear_status(&alice, 503).await;
    assert_eq!(failures(&house, "edge", "unreachable"), Some(1.0));
}

#[tokio::test]
async fn a_phones_503_is_not_ours() {
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house).await;
    house.call(&alice, "bob", "phone-503", SDP).await;
    let invite = house.hear_request(&bob, "INVITE").await;
    house.say(&bob, &invite.answer("503 Service Unavailable", "tb", ""));
    house.hear_request(&bob, "ACK").await;
    house.hear_status(&alice, 500).await;
    assert_eq!(journey(&house), (1, 0));
}

#[tokio::test]
async fn a_phone_that_challenges_does_not_make_two_attempts() {
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house).await;
    house.call(&alice, "bob", "challenged", SDP).await;
    let invite = house.hear_request(&bob, "INVITE").await;
    let challenge = "Proxy-Authenticate: Digest realm=\"bobs-phone\", nonce=\"1\"\n";
    house.say(&bob, &invite.answer("407 Proxy Authentication Required", "tb", challenge));
    house.hear_request(&bob, "ACK").await;
    let challenged = house.hear_status(&alice, 407).await;
    assert!(challenged.text().contains("bobs-phone"));
    house.acknowledge(&alice, &challenged);
    assert_eq!((journey(&house), house.core.live_calls()), ((0, 0), 0));
    house.call_from(&alice, "bob", "challenged", 3, SDP).await;
    let invite = house.hear_request(&bob, "INVITE").await;
    house.say_with(&bob, &invite.answer("200 OK", "tb", &format!("Contact: {}\n", bob.contact())), SDP);
    house.hear_status(&alice, 200).await;
    assert_eq!((journey(&house), house.relay.asked().len()), ((1, 0), 3));
}

#[tokio::test]
async fn it_rings_only_so_long() {
    let config = Config { ring_timeout: Duration::from_secs(1), ..Config::for_test() };
    let mut house = House::with(config).await;
    let (alice, bob) = phones(&mut house).await;
    house.call(&alice, "bob", "long-ring", SDP).await;
    let invite = house.hear_request(&bob, "INVITE").await;
    house.say(&bob, &invite.answer("180 Ringing", "tb", ""));
    house.hear_status(&alice, 180).await;
    let cancel = house.hear_request(&bob, "CANCEL").await;
    let refused = house.hear_status(&alice, 408).await;
    house.acknowledge(&alice, &refused);
    house.say(&bob, &cancel.answer("200 OK", "tb", ""));
    house.say(&bob, &invite.answer("487 Request Terminated", "tb", ""));
    house.hear_request(&bob, "ACK").await;
    assert_eq!(record(&house).await, ("no_answer".into(), "no_answer".into(), 408));
    assert_eq!(journey(&house), (1, 0));
}

#[tokio::test]
async fn loops_hops_and_strangers_are_refused() {
    let mut house = House::new().await;
    let (alice, _) = phones(&mut house).await;
    house.say(&alice, &alice.invite("bob", "hops", 1, "").replace("Max-Forwards: 70", "Max-Forwards: 0"));
    house.hear_status(&alice, 483).await;
    house.say(&alice, &alice.invite("bob", "require", 1, "Proxy-Require: teleport\n"));
    let refused = house.hear_status(&alice, 420).await;
    assert_eq!(refused.header(HeaderName::Unsupported), "teleport");
    house.say(&alice, &alice.invite("bob", "relay", 1, "Route: <sip:elsewhere.test;lr>\n"));
    house.hear_status(&alice, 100).await;
    house.hear_status(&alice, 403).await;
    let dialog = alice
        .invite("bob", "no-dialog", 1, "")
        .replace("<sip:bob@belfry.test>", "<sip:bob@belfry.test>;tag=x");
    house.say(&alice, &dialog);
    house.hear_status(&alice, 100).await;
    house.hear_status(&alice, 481).await;
}

#[tokio::test]
async fn what_comes_back_unchanged_is_a_loop() {
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house).await;
    let message = |extra: &str| alice.invite("bob", "loop", 2, extra).replace("INVITE", "MESSAGE");
    house.say(&alice, &message(""));
    let challenged = house.hear_status(&alice, 407).await;
    let authorized = |house: &Heard| authorize(house, "alice", PASSWORD, "MESSAGE", "sip:bob@belfry.test");
    let first = message(&authorized(&challenged)).replace("z9hG4bK", "z9hG4bKa");
    house.say(&alice, &first);
    let carried = house.hear_request(&bob, "MESSAGE").await;
    let own_via = carried.values(HeaderName::Via).remove(0);
    let again =
        message(&format!("Via: {own_via}\n{}", authorized(&challenged))).replace("z9hG4bKi", "z9hG4bKb");
    house.say(&alice, &again);
    house.hear_status(&alice, 482).await;
}

#[tokio::test]
async fn whoever_picks_up_too_late_is_hung_up_on() {
    let config = Config { ring_timeout: Duration::from_secs(1), ..Config::for_test() };
    let mut house = House::with(config).await;
    let (alice, bob) = phones(&mut house).await;
    house.call(&alice, "bob", "late", SDP).await;
    let invite = house.hear_request(&bob, "INVITE").await;
    house.say(&bob, &invite.answer("180 Ringing", "tb", ""));
    house.hear_status(&alice, 180).await;
    house.hear_request(&bob, "CANCEL").await;
    house.hear_status(&alice, 408).await;
    house.say_with(&bob, &invite.answer("200 OK", "tb", &format!("Contact: {}\n", bob.contact())), SDP);
    let ack = house.hear_request(&bob, "ACK").await;
    assert_eq!(ack.header(HeaderName::CSeq), "2 ACK");
    let bye = house.hear_request(&bob, "BYE").await;
    assert_eq!((bye.header(HeaderName::CSeq), bye.message.to_tag()), ("3 BYE".to_owned(), Some("tb")));
}

#[tokio::test]
async fn credentials_of_one_domain_do_not_open_another() {
    let domains = vec!["belfry.test".to_owned(), "other.test".to_owned()];
    let mut house = House::with(Config { domains, ..Config::for_test() }).await;
    let phone = Phone::new("alice", Transport::Tcp);
    let foreign =
        phone.register("cross", 1, "").replace("To: <sip:alice@belfry.test>", "To: <sip:alice@other.test>");
    house.say(&phone, &foreign);
    house.hear_status(&phone, 404).await;
}

#[tokio::test]
async fn a_stopping_core_hangs_up_and_writes_records() {
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house).await;
    house.call(&alice, "bob", "talking", SDP).await;
    let invite = house.hear_request(&bob, "INVITE").await;
    house.say_with(&bob, &invite.answer("200 OK", "tb", &format!("Contact: {}\n", bob.contact())), SDP);
    house.hear_status(&alice, 200).await;
    assert_eq!(house.core.drain(Duration::from_millis(1)).await, ["1 call"]);
    house.hear_request(&alice, "BYE").await;
    house.hear_request(&bob, "BYE").await;
    assert_eq!(record(&house).await, ("answered".into(), "shut_down".into(), 200));
    assert!(house.relay.asked().contains(&"delete".to_owned()));
}

#[tokio::test]
async fn a_core_may_stop_and_start_again_in_one_process() {
    let mut house = House::new().await;
    let (alice, _) = phones(&mut house).await;
    house.restart().await;
    house.call(&alice, "bob", "after", SDP).await;
    house.hear_request(&Phone::new("bob", Transport::Tcp), "INVITE").await;
}

#[tokio::test]
async fn a_draining_core_finishes_what_it_has() {
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house).await;
    house.call(&alice, "bob", "last", SDP).await;
    let invite = house.hear_request(&bob, "INVITE").await;
    let core = house.core.clone();
    let drain = tokio::spawn(async move { core.drain(Duration::from_millis(300)).await });
    house.until(|_| !drain.is_finished()).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    house.say(&alice, &alice.invite("bob", "too-late", 1, ""));
    house.hear_status(&alice, 100).await;
    house.hear_status(&alice, 503).await;
    house.say(&bob, &invite.answer("180 Ringing", "tb", ""));
    house.hear_status(&alice, 180).await;
    assert_eq!(drain.await.expect("no panic"), ["1 call"]);
    // It did not wait, but it left nothing open.
    house.hear_request(&bob, "CANCEL").await;
    house.hear_status(&alice, 503).await;
    assert_eq!(record(&house).await, ("failed".into(), "shut_down".into(), 503));
}

#[tokio::test]
async fn the_rfcs_torture_does_no_harm() {
    let mut house = House::new().await;
    let phone = Phone::new("alice", Transport::Udp);
    let mut messages = torture();
    // The RFC's own messages stay outside the repository, as for sip-proto's test of them.
    if let Some(folder) = std::env::var_os("BELFRY_RFC4475_DIR") {
        for entry in std::fs::read_dir(folder).expect("the folder is there") {
            messages.push(std::fs::read(entry.expect("readable").path()).expect("readable"));
        }
    }
    for (bytes, transport) in
        messages.into_iter().flat_map(|m| [(m.clone(), Transport::Udp), (m, Transport::Tls)])
    {
        house.say_bytes(&Phone { transport, ..phone.clone() }, bytes);
    }
    // Still there, still right.
    house.say(&phone, &phone.register("after", 1, ""));
    loop {
        let heard: Heard = house.hear().await;
        if heard.header(HeaderName::CallId) == "after" {
            assert_eq!(heard.status(), 401);
            break;
        }
    }
}

/// Messages that are wrong, or look it (after RFC 4475), and every prefix of a right one.
fn torture() -> Vec<Vec<u8>> {
    let texts = [
        "INVITE sip:bob@belfry.test SIP/2.0\r\n\r\n",
        "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP edge.test;branch=z9hG4bKx\r\nCSeq: 1 INVITE\r\n\r\n",
        "INVITE sip:a@b SIP/7.0\r\nVia: SIP/7.0/UDP x\r\nTo: x\r\nFrom: y\r\nCall-ID: z\r\nCSeq: 1 INVITE\r\n\r\n",
        "REGISTER sip:belfry.test SIP/2.0\r\nTo: <sip:a@belfry.test>\r\nFrom: <sip:a@belfry.test>;tag=x\r\nCall-ID: c\r\nCSeq: 1 REGISTER\r\nContact: <sip:x@y?Route=%3Csip:z%3E>\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\nl: 0\r\n\r\n",
        "!interesting-Method0123456789_*+`.%indeed'~ sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*:&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@belfry.test SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK2\r\nTo: <sip:b@belfry.test>\r\nFrom: <sip:a@belfry.test>;tag=1\r\nCall-ID: i\r\nCSeq: 139122385 !interesting-Method0123456789_*+`.%indeed'~\r\nMax-Forwards: 255\r\n\r\n",
        "ACK sip:bob@belfry.test SIP/2.0\r\nVia: SIP/2.0/UDP x;branch=z9hG4bK3\r\nTo: <sip:b@belfry.test>;tag=q\r\nFrom: <sip:a@belfry.test>;tag=1\r\nCall-ID: k\r\nCSeq: 1 ACK\r\nRoute: <sip:forged-token@edge.test:5060;lr>\r\n\r\n",
        "\r\n\r\n",
    ];
    let mut all: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    let whole = texts[3].as_bytes();
    all.extend((0..whole.len()).step_by(7).map(|end| whole[..end].to_vec()));
    all.push(vec![0xff; 100]);
    all
}
