//! A core that was killed and is back: the calls of before go on by their tokens, and can end.

use belfry_relay_api::Refusal;
use belfry_signal::record::Body;
use belfry_signal::{Severity, Value};
use belfry_sip_proto::HeaderName;

use super::house::{Heard, House, PASSWORD, Phone, SDP, authorize};
use crate::handle::Transport;

/// A call that is up while its core is killed and started again: the INVITE as the callee got it, the 200 as the
/// caller got it.
async fn survivors(house: &mut House, call_id: &str) -> (Phone, Phone, Heard, Heard) {
    let (alice, bob) = (Phone::new("alice", Transport::Udp), Phone::new("bob", Transport::Wss));
    house.register(&alice).await;
    house.register(&bob).await;
    house.call(&alice, "bob", call_id, SDP).await;
    let invite = house.hear_request(&bob, "INVITE").await;
    house.say_with(&bob, &invite.answer("200 OK", "tb", &format!("Contact: {}\n", bob.contact())), SDP);
    let answered = house.hear_status(&alice, 200).await;
    house.say(&alice, &house.in_dialog(&alice, "ACK", 2, &answered, &bob.contact(), None));
    house.hear_request(&bob, "ACK").await;
    house.restart().await;
    house.until(|text| text.contains("core_relays 1")).await;
    assert_eq!(house.core.live_calls(), 0);
    (alice, bob, invite, answered)
}

#[tokio::test]
async fn a_bye_of_before_the_restart_arrives_and_frees_the_session() {
    for is_caller in [true, false] {
        let mut house = House::new().await;
        let (alice, bob, invite, answered) = survivors(&mut house, "before").await;
        house.emitted();
        let (from, to, bye) = if is_caller {
            (&alice, &bob, house.in_dialog(&alice, "BYE", 3, &answered, &bob.contact(), None))
        } else {
            (&bob, &alice, house.in_dialog(&bob, "BYE", 1, &invite, &alice.contact(), Some("tb")))
        };
        house.say(from, &bye);
        let bye = house.hear_request(to, "BYE").await;
        assert_eq!(bye.values(HeaderName::Route).len(), 0, "both Routes named us");
        house.say(to, &bye.answer("200 OK", "", ""));
        house.hear_status(from, 200).await;
        assert_eq!(house.metric("core_unknown_byes_total"), Some(1.0));
        house
            .until(|text| text.contains("core_relay_requests_total{outcome=\"done\",request=\"delete\"} 1"))
            .await;
        assert_eq!(house.relay.asked(), ["offer caller", "answer callee", "delete"]);
        let records = house.state.call_records(10).await.expect("readable");
        assert_eq!(records.len(), 1, "its books were closed when the core came back");
        assert_eq!((&*records[0].cause, &*records[0].outcome), ("node_lost", "answered"));
        assert!(records[0].answer_unix_nanos.is_some_and(|at| at <= records[0].end_unix_nanos));
        let told = told_of_strangers(&mut house).await;
        assert_eq!(told, [("byes".to_owned(), Value::Int(1)), ("relay_sessions".to_owned(), Value::Int(1))]);
    }
}

/// The attributes of the warning about calls that are not known, which comes with the next sweep.
async fn told_of_strangers(house: &mut House) -> Vec<(String, Value)> {
    for _ in 0..500 {
        for body in house.emitted() {
            if let Body::Log(log) = body
                && log.severity == Severity::Warn
                && log.message.contains("does not know")
            {
                return log
                    .attributes
                    .iter()
                    .map(|(name, value)| (name.to_string(), value.clone()))
                    .collect();
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the log says nothing");
}

#[tokio::test]
async fn requests_of_before_the_restart_find_their_way_by_token() {
    let mut house = House::new().await;
    let (alice, bob, invite, answered) = survivors(&mut house, "carried").await;
    house.say(&alice, &house.in_dialog(&alice, "INFO", 3, &answered, &bob.contact(), None));
    let info = house.hear_request(&bob, "INFO").await;
    house.say(&bob, &info.answer("200 OK", "", ""));
    house.hear_status(&alice, 200).await;
    // A new description still passes through the relay, as the leg's that sent it.
    house.say_with(&bob, &house.in_dialog(&bob, "INVITE", 1, &invite, &alice.contact(), Some("tb")), SDP);
    house.hear_status(&bob, 100).await;
    let again = house.hear_request(&alice, "INVITE").await;
    assert!(again.text().contains("m=audio 30000"), "{}", again.text());
    house.say_with(&alice, &again.answer("200 OK", "", &format!("Contact: {}\n", alice.contact())), SDP);
    let agreed = house.hear_status(&bob, 200).await;
    assert!(agreed.text().contains("m=audio 20000"), "{}", agreed.text());
    house.say(&bob, &house.in_dialog(&bob, "ACK", 1, &invite, &alice.contact(), Some("tb")));
    house.hear_request(&alice, "ACK").await;
    house.say_with(&alice, &house.in_dialog(&alice, "UPDATE", 4, &answered, &bob.contact(), None), SDP);
    let update = house.hear_request(&bob, "UPDATE").await;
    house.say_with(&bob, &update.answer("200 OK", "", ""), SDP);
    house.hear_status(&alice, 200).await;
    let asked = house.relay.asked();
    assert_eq!(
        asked[2..],
        ["query", "offer callee", "answer caller", "query", "offer caller", "answer callee"]
    );
    assert_eq!(house.metric("core_unknown_byes_total"), Some(0.0));
}

#[tokio::test]
async fn an_offer_in_the_acknowledgement_of_before_is_answered_through_the_relay() {
    let mut house = House::new().await;
    let (alice, bob, _, answered) = survivors(&mut house, "delayed").await;
    house.say(&alice, &house.in_dialog(&alice, "INVITE", 3, &answered, &bob.contact(), None));
    house.hear_status(&alice, 100).await;
    let again = house.hear_request(&bob, "INVITE").await;
    house.say_with(&bob, &again.answer("200 OK", "", &format!("Contact: {}\n", bob.contact())), SDP);
    house.hear_status(&alice, 200).await;
    house.say_with(&alice, &house.in_dialog(&alice, "ACK", 3, &answered, &bob.contact(), None), SDP);
    let ack = house.hear_request(&bob, "ACK").await;
    assert!(ack.text().contains("m=audio 20000"), "{}", ack.text());
    // It is asked first, so that a session which this change opens is freed should the change fail.
    assert_eq!(house.relay.asked()[2..], ["query", "offer callee", "answer caller"]);
}

#[tokio::test]
async fn a_relay_that_comes_back_hears_whose_calls_it_has() {
    let mut house = House::new().await;
    let (alice, bob) = (Phone::new("alice", Transport::Udp), Phone::new("bob", Transport::Wss));
    house.register(&alice).await;
    house.register(&bob).await;
    house.call(&alice, "bob", "kept", SDP).await;
    house.hear_request(&bob, "INVITE").await;
    house.relay.let_go();
    house
        .until(|text| text.contains("core_relay_requests_total{outcome=\"done\",request=\"query\"} 1"))
        .await;
    assert_eq!(house.relay.asked(), ["offer caller", "query"]);
}

#[tokio::test]
async fn a_change_of_a_call_that_nobody_has_frees_its_session() {
    let mut house = House::new().await;
    let (alice, bob, _, answered) = survivors(&mut house, "gone").await;
    house.say_with(&alice, &house.in_dialog(&alice, "INVITE", 3, &answered, &bob.contact(), None), SDP);
    house.hear_status(&alice, 100).await;
    let again = house.hear_request(&bob, "INVITE").await;
    house.say(&bob, &again.answer("481 Call/Transaction Does Not Exist", "", ""));
    house.hear_request(&bob, "ACK").await;
    house.hear_status(&alice, 481).await;
    house
        .until(|text| text.contains("core_relay_requests_total{outcome=\"done\",request=\"delete\"} 1"))
        .await;
}

#[tokio::test]
async fn a_forged_route_opens_nothing() {
    let mut house = House::new().await;
    let (alice, bob, _, answered) = survivors(&mut house, "forged").await;
    let before = house.relay.asked().len();
    for (cseq, method) in [(3, "INVITE"), (4, "INFO"), (5, "BYE")] {
        let request = house.in_dialog(&alice, method, cseq, &answered, &bob.contact(), None);
        house.say_with(&alice, &request.replace(";call=", ";call=1"), SDP);
        if method == "INVITE" {
            house.hear_status(&alice, 100).await;
        }
        let refused = house.hear_status(&alice, 481).await;
        if method == "INVITE" {
            house.acknowledge(&alice, &refused);
        }
    }
    assert!(house.is_quiet().await);
    assert_eq!(house.relay.asked().len(), before);
}

/// What asks the other side for something without a transaction of its own kind.
const ASKING: [&str; 5] = ["UPDATE", "REFER", "MESSAGE", "INFO", "OPTIONS"];

/// Says an INVITE and all other requests with an old Route, which must go nowhere.
async fn must_be_over(house: &mut House, phone: &Phone, text: impl Fn(&str, u32) -> String) {
    let before = house.metric("core_unknown_changes_refused_total").unwrap_or_default();
    let asked = house.relay.asked();
    house.say_with(phone, &text("INVITE", 71), SDP);
    house.hear_status(phone, 100).await;
    let refused = house.hear_status(phone, 481).await;
    house.acknowledge(phone, &refused);
    for (cseq, method) in (72..).zip(ASKING) {
        house.say_with(phone, &text(method, cseq), SDP);
        house.hear_status(phone, 481).await;
    }
    house.say_with(phone, &text("ACK", 71), SDP);
    assert_eq!(house.metric("core_unknown_changes_refused_total"), Some(before + 6.0));
    house.hear_all().await;
    assert_eq!(house.relay.asked(), asked, "no session is opened");
}

#[tokio::test]
async fn a_route_of_a_call_that_is_over_leads_nowhere() {
    let mut house = House::new().await;
    let (alice, bob) = (Phone::new("alice", Transport::Udp), Phone::new("bob", Transport::Wss));
    house.register(&alice).await;
    house.register(&bob).await;
    let mut old = None;
    // What ended lately is forgotten when another call ends later.
    for call_id in ["over", "later"] {
        house.call(&alice, "bob", call_id, SDP).await;
        let invite = house.hear_request(&bob, "INVITE").await;
        house.say_with(&bob, &invite.answer("200 OK", "tb", &format!("Contact: {}\n", bob.contact())), SDP);
        let answered = house.hear_status(&alice, 200).await;
        house.say(&alice, &house.in_dialog(&alice, "ACK", 2, &answered, &bob.contact(), None));
        house.hear_request(&bob, "ACK").await;
        house.say(&alice, &house.in_dialog(&alice, "BYE", 3, &answered, &bob.contact(), None));
        let bye = house.hear_request(&bob, "BYE").await;
        house.say(&bob, &bye.answer("200 OK", "", ""));
        house.hear_status(&alice, 200).await;
        house.until(|text| text.contains("core_live_calls 0")).await;
        // It ended just now, and is no stranger's.
        for (cseq, method) in (50..).zip(ASKING.into_iter().chain(["SUBSCRIBE"])) {
            house.say(&alice, &alice.in_dialog_of(&answered, method, cseq, &bob.contact()));
            house.hear_status(&alice, 481).await;
        }
        old.get_or_insert(answered);
        house.let_pass(std::time::Duration::from_secs(33)).await;
        house.hear_all().await;
    }
    let old = old.expect("a call");
    let text = |method: &str, cseq: u32| {
        let text = alice.in_dialog_of(&old, method, cseq, &bob.contact());
        text.replace("tag=tb", "tag=another")
    };
    must_be_over(&mut house, &alice, text).await;
    house.say(&alice, &text("SUBSCRIBE", 80));
    house.hear_status(&alice, 481).await;
    // A transfer is told of after the call in which it was ordered.
    house.say(&alice, &text("NOTIFY", 81));
    house.hear_request(&bob, "NOTIFY").await;
}

#[tokio::test]
async fn a_subscription_is_not_older_than_calls_become() {
    let mut house = House::new().await;
    let (alice, bob) = (Phone::new("alice", Transport::Udp), Phone::new("bob", Transport::Wss));
    house.register(&alice).await;
    house.register(&bob).await;
    let lifetime = crate::Config::for_test().call_lifetime;
    house.set_clock_back(lifetime - std::time::Duration::from_secs(60));
    let young = subscribed(&mut house, &alice, &bob, "young").await;
    house.set_clock_back(lifetime + std::time::Duration::from_secs(60));
    let old = subscribed(&mut house, &alice, &bob, "old").await;
    house.say(&alice, &alice.in_dialog_of(&young, "SUBSCRIBE", 90, &bob.contact()));
    let again = house.hear_request(&bob, "SUBSCRIBE").await;
    let answer = again.answer("200 OK", "", &format!("Contact: {}\n", bob.contact()));
    house.say(&bob, &answer);
    let renewed = house.hear_status(&alice, 200).await;
    // What renews a subscription makes no younger Route.
    house.say(&alice, &alice.in_dialog_of(&renewed, "SUBSCRIBE", 91, &bob.contact()));
    house.hear_status(&alice, 481).await;
    for method in ["SUBSCRIBE", "NOTIFY"] {
        house.say(&alice, &alice.in_dialog_of(&old, method, 92, &bob.contact()));
        house.hear_status(&alice, 481).await;
    }
}

/// A subscription of one phone to another; the 200 as the first got it.
async fn subscribed(house: &mut House, alice: &Phone, bob: &Phone, call_id: &str) -> Heard {
    let subscribe = |cseq: u32, extra: &str| {
        let text = alice.invite("bob", call_id, cseq, &format!("Event: presence\n{extra}"));
        text.replace("INVITE", "SUBSCRIBE")
    };
    house.say(alice, &subscribe(1, ""));
    let challenged = house.hear_status(alice, 407).await;
    let uri = "sip:bob@belfry.test";
    house.say(alice, &subscribe(2, &authorize(&challenged, "alice", PASSWORD, "SUBSCRIBE", uri)));
    let asked = house.hear_request(bob, "SUBSCRIBE").await;
    house.say(bob, &asked.answer("200 OK", "tb", &format!("Contact: {}\n", bob.contact())));
    house.hear_status(alice, 200).await
}

#[tokio::test]
async fn a_route_of_a_dialog_that_was_no_call_makes_none() {
    let mut house = House::new().await;
    let (alice, bob) = (Phone::new("alice", Transport::Udp), Phone::new("bob", Transport::Wss));
    house.register(&alice).await;
    house.register(&bob).await;
    let agreed = subscribed(&mut house, &alice, &bob, "watched").await;
    for is_restarted in [false, true] {
        if is_restarted {
            house.restart().await;
            house.until(|text| text.contains("core_relays 1")).await;
        }
        let text = |method: &str, cseq: u32| {
            alice.in_dialog_of(&agreed, method, cseq + 20 * u32::from(is_restarted), &bob.contact())
        };
        must_be_over(&mut house, &alice, text).await;
    }
    // What it is for still works.
    let again = house.in_dialog(&alice, "SUBSCRIBE", 90, &agreed, &bob.contact(), None);
    house.say(&alice, &again);
    house.hear_request(&bob, "SUBSCRIBE").await;
}

#[tokio::test]
async fn a_call_of_before_the_restart_is_not_older_than_calls_become() {
    let mut house = House::new().await;
    let lifetime = crate::Config::for_test().call_lifetime;
    house.set_clock_back(lifetime + std::time::Duration::from_secs(1));
    let (alice, bob, _, answered) = survivors(&mut house, "ancient").await;
    let text = |method: &str, cseq: u32| alice.in_dialog_of(&answered, method, cseq, &bob.contact());
    must_be_over(&mut house, &alice, text).await;
    house.say(&alice, &text("NOTIFY", 80));
    house.hear_status(&alice, 481).await;
    // It can be hung up all the same.
    house.say(&alice, &house.in_dialog(&alice, "BYE", 73, &answered, &bob.contact(), None));
    house.hear_request(&bob, "BYE").await;
}

#[tokio::test]
async fn a_party_of_a_call_reaches_no_flow_but_the_others() {
    let mut house = House::new().await;
    let (alice, bob, _, answered) = survivors(&mut house, "past").await;
    let stolen = |request: String| request.replace("<sip:token-bob-wss@", "<sip:token-of-a-trunk@");
    house.say_with(
        &alice,
        &stolen(house.in_dialog(&alice, "INVITE", 3, &answered, &bob.contact(), None)),
        SDP,
    );
    house.hear_status(&alice, 100).await;
    let refused = house.hear_status(&alice, 481).await;
    house.acknowledge(&alice, &refused);
    // Before the answer it is the Route that says which phone is meant, in a call that is known, too.
    house.call(&alice, "bob", "early", SDP).await;
    let invite = house.hear_request(&bob, "INVITE").await;
    house.say(&bob, &invite.answer("180 Ringing", "tb", &format!("Contact: {}\n", bob.contact())));
    let ringing = house.hear_status(&alice, 180).await;
    let info = house.in_dialog(&alice, "INFO", 3, &ringing, &bob.contact(), None);
    house.say(&alice, &stolen(info));
    house.hear_status(&alice, 481).await;
    house.say(&alice, &house.in_dialog(&alice, "INFO", 4, &ringing, &bob.contact(), None));
    house.hear_request(&bob, "INFO").await;
}

#[tokio::test]
async fn a_failed_change_frees_only_the_session_that_it_opened() {
    for is_known in [true, false] {
        let mut house = House::new().await;
        let (alice, bob, _, answered) = survivors(&mut house, "refused").await;
        if !is_known {
            house.relay.refuse("query", Refusal::UnknownSession);
        }
        house.say_with(&alice, &house.in_dialog(&alice, "INVITE", 3, &answered, &bob.contact(), None), SDP);
        house.hear_status(&alice, 100).await;
        let again = house.hear_request(&bob, "INVITE").await;
        house.say(&bob, &again.answer("488 Not Acceptable Here", "", ""));
        house.hear_request(&bob, "ACK").await;
        house.hear_status(&alice, 488).await;
        house.is_quiet().await;
        assert_eq!(house.relay.asked().contains(&"delete".to_owned()), !is_known);
    }
}
