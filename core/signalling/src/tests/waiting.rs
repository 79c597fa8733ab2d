//! What a caller is told while a request is under way (RFC 4320, RFC 6228).

use std::time::Duration;

use belfry_sip_proto::HeaderName;

use super::forking::{Family, family};
use super::house::{Heard, House, PASSWORD, Phone, SDP, authorize};
use crate::Config;
use crate::handle::Transport;

/// A MESSAGE to bob that is let in; gives it as he got it.
async fn message(house: &mut House, alice: &Phone, bob: &Phone, call_id: &str) -> Heard {
    let message = |cseq, extra: &str| {
        alice.invite("bob", call_id, cseq, extra).replace("INVITE", "MESSAGE").replace("bKi", "bKm")
    };
    house.say(alice, &message(1, ""));
    let challenged = house.hear_status(alice, 407).await;
    let authorized = authorize(&challenged, "alice", PASSWORD, "MESSAGE", "sip:bob@belfry.test");
    house.say(alice, &message(2, &authorized));
    house.hear_request(bob, "MESSAGE").await
}

#[tokio::test]
async fn a_request_that_nobody_answers_is_100_after_a_while_and_never_408() {
    let mut house = House::new().await;
    let (alice, bob) = (Phone::new("alice", Transport::Udp), Phone::new("bob", Transport::Tcp));
    house.register(&alice).await;
    house.register(&bob).await;
    message(&mut house, &alice, &bob, "unanswered").await;
    house.let_pass(Duration::from_millis(3_300)).await;
    assert!(house.hear_all().await.is_empty(), "phones repeat themselves for a while before they are told");
    house.let_pass(Duration::from_millis(400)).await;
    let heard = house.hear_all().await;
    assert_eq!(heard.iter().map(Heard::status).collect::<Vec<_>>(), [100]);
    assert_eq!(heard[0].flow, alice.flow);
    // Timer F of the branch to bob.
    house.let_pass(Duration::from_secs(32)).await;
    assert!(house.hear_all().await.is_empty(), "no 408 goes back");
    house.until(|text| text.contains("core_transactions 0")).await;
}

#[tokio::test]
async fn of_what_comes_back_for_a_message_only_the_end_goes_on() {
    for (answer, expected) in [("200 OK", Some(200)), ("404 Not Found", Some(404)), ("408 Slow", None)] {
        let mut house = House::new().await;
        let (alice, bob) = (Phone::new("alice", Transport::Udp), Phone::new("bob", Transport::Tcp));
        house.register(&alice).await;
        house.register(&bob).await;
        let asked = message(&mut house, &alice, &bob, "answered").await;
        house.say(&bob, &asked.answer("182 Queued", "tb", ""));
        assert!(house.is_quiet().await, "no provisional response but 100");
        house.say(&bob, &asked.answer(answer, "tb", ""));
        match expected {
            Some(status) => drop(house.hear_status(&alice, status).await),
            None => assert!(house.is_quiet().await, "{answer}"),
        }
        // Whoever was answered needs no 100.
        house.let_pass(Duration::from_secs(4)).await;
        assert!(house.hear_all().await.is_empty(), "{answer}");
    }
}

fn contact(phone: &Phone) -> String {
    format!("Contact: {}\n", phone.contact())
}

/// Two phones ring, one of them refuses: what the caller hears of that.
async fn refused_by_one(headers: &str, hides: bool) -> (Option<Heard>, String, String) {
    let hiding = crate::Hiding { customers: hides, ..crate::Hiding::default() };
    let mut house = House::with(Config { hiding, ..Config::for_test() }).await;
    let Family { alice, desk, web, .. } = family(&mut house, ["", "", ";q=0.1"]).await;
    let invite = |cseq, extra: &str| alice.invite("bob", "early", cseq, &format!("{headers}{extra}"));
    house.say_with(&alice, &invite(1, ""), SDP);
    house.hear_status(&alice, 100).await;
    let challenged = house.hear_status(&alice, 407).await;
    house.acknowledge(&alice, &challenged);
    let authorized = authorize(&challenged, "alice", PASSWORD, "INVITE", "sip:bob@belfry.test");
    house.say_with(&alice, &invite(2, &authorized), SDP);
    house.hear_status(&alice, 100).await;
    let invites = house.hear_requests(&[&desk, &web], "INVITE").await;
    let mut tags = Vec::new();
    for (phone, invite, tag) in [(&desk, &invites[0], "t1"), (&web, &invites[1], "t2")] {
        house.say(phone, &invite.answer("180 Ringing", tag, &contact(phone)));
        tags.push(house.hear_status(&alice, 180).await.message.to_tag().unwrap_or_default().to_owned());
    }
    house.say(&desk, &invites[0].answer("486 Busy Here", "t1", ""));
    house.hear_request(&desk, "ACK").await;
    let told = house.hear_all().await;
    assert!(told.len() <= 1, "{told:?}");
    // The last branch ends the call: nothing more than that is to be told.
    house.say(&web, &invites[1].answer("480 Gone", "t2", ""));
    house.hear_request(&web, "ACK").await;
    let mobile = house.hear().await;
    assert_eq!(mobile.message.method(), "INVITE", "{}", mobile.text());
    (told.into_iter().next(), tags.remove(0), tags.remove(0))
}

#[tokio::test]
async fn a_caller_that_understands_it_hears_which_early_dialog_is_lost() {
    for hides in [false, true] {
        let (told, lost, _) = refused_by_one("Supported: 199, timer\n", hides).await;
        let told = told.expect("199");
        assert_eq!((told.status(), told.message.to_tag()), (199, Some(&*lost)), "{}", told.text());
        assert_eq!(told.header(HeaderName::Reason), "SIP;cause=486");
        assert_eq!(told.header(HeaderName::CSeq), "2 INVITE");
        told.message.check().expect("a whole response");
    }
}

#[tokio::test]
async fn other_callers_hear_nothing_of_it() {
    for headers in ["", "Supported: 100rel\n", "Supported: 199\nRequire: 100rel\n"] {
        let (told, ..) = refused_by_one(headers, false).await;
        assert!(told.is_none(), "{headers}: {told:?}");
    }
}
