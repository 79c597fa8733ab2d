//! Several phones ring for one request (RFC 3261 sections 16.6 and 16.7).

use std::time::Duration;

use belfry_sip_proto::HeaderName;

use super::house::{Heard, House, PASSWORD, Phone, SDP, authorize};
use crate::handle::{SendFailure, Transport};

/// Alice, and bob's phones: on his desk, in his browser and in his pocket.
pub(super) struct Family {
    pub(super) alice: Phone,
    pub(super) desk: Phone,
    pub(super) web: Phone,
    pub(super) mobile: Phone,
}

/// Registers them; the parameters are those of the contacts of bob's phones.
pub(super) async fn family(house: &mut House, params: [&str; 3]) -> Family {
    let family = Family {
        alice: Phone::new("alice", Transport::Udp),
        desk: Phone::new("bob", Transport::Udp),
        web: Phone::new("bob", Transport::Wss),
        mobile: Phone::new("bob", Transport::Tls),
    };
    house.register(&family.alice).await;
    for (phone, params) in [&family.desk, &family.web, &family.mobile].into_iter().zip(params) {
        house.register_as(phone, params).await;
    }
    family
}

fn contact(phone: &Phone) -> String {
    format!("Contact: {}\n", phone.contact())
}

fn sdp_of(number: u8) -> String {
    SDP.replace("o=- 1 1", &format!("o=- {number} 1"))
}

/// The phone whose INVITE was cancelled confirms it.
async fn confirm_cancel(house: &mut House, phone: &Phone, invite: &Heard) -> Heard {
    let cancel = house.hear_request(phone, "CANCEL").await;
    house.say(phone, &cancel.answer("200 OK", "tx", ""));
    house.say(phone, &invite.answer("487 Request Terminated", "tx", ""));
    house.hear_request(phone, "ACK").await;
    cancel
}

#[tokio::test]
async fn all_ring_and_the_first_to_answer_gets_the_call() {
    let mut house = House::new().await;
    let Family { alice, desk, web, mobile } = family(&mut house, ["", "", ""]).await;
    house.call(&alice, "bob", "fork", SDP).await;
    let invites = house.hear_requests(&[&desk, &web, &mobile], "INVITE").await;
    let branches: std::collections::HashSet<String> =
        invites.iter().map(|invite| invite.values(HeaderName::Via).remove(0)).collect();
    assert_eq!(branches.len(), 3, "each branch is a transaction of its own");
    for invite in &invites {
        assert_eq!(invite.header(HeaderName::MaxBreadth), "5", "16 for three (RFC 5393)");
        assert!(invite.text().contains("m=audio 20000"), "all get the one description of the relay");
    }
    for (phone, invite, tag) in [(&desk, &invites[0], "t1"), (&web, &invites[1], "t2")] {
        house.say(phone, &invite.answer("180 Ringing", tag, &contact(phone)));
        assert_eq!(house.hear_status(&alice, 180).await.message.to_tag(), Some(tag));
    }
    house.say_with(&web, &invites[1].answer("200 OK", "t2", &contact(&web)), SDP);
    // The desk rang and is cancelled; the mobile said nothing yet and is cancelled when it does.
    let cancel = house.hear_request(&desk, "CANCEL").await;
    assert_eq!(cancel.header(HeaderName::Reason), "SIP;cause=200;text=\"Call completed elsewhere\"");
    let answered = house.hear_status(&alice, 200).await;
    assert_eq!(answered.message.to_tag(), Some("t2"));
    house.say(&desk, &cancel.answer("200 OK", "t1", ""));
    house.say(&desk, &invites[0].answer("487 Request Terminated", "t1", ""));
    house.hear_request(&desk, "ACK").await;
    house.say(&mobile, &invites[2].answer("180 Ringing", "t3", &contact(&mobile)));
    confirm_cancel(&mut house, &mobile, &invites[2]).await;
    assert!(house.is_quiet().await, "the caller hears nothing of the others any more");
    // The dialog is with the web phone, whatever the others said.
    house.say(&alice, &house.in_dialog(&alice, "ACK", 2, &answered, &web.contact(), None));
    house.hear_request(&web, "ACK").await;
    house.say(&alice, &house.in_dialog(&alice, "BYE", 3, &answered, &web.contact(), None));
    let bye = house.hear_request(&web, "BYE").await;
    house.say(&web, &bye.answer("200 OK", "", ""));
    house.hear_status(&alice, 200).await;
    assert_eq!(house.relay.asked(), ["offer caller", "answer callee", "delete"]);
    assert_eq!(house.state.call_records(10).await.expect("readable").len(), 1);
    assert_eq!(house.metric("core_call_attempts_total{region=\"eu\",result=\"answered\"}"), Some(1.0));
}

#[tokio::test]
async fn a_second_answer_is_thanked_and_hung_up_on() {
    let mut house = House::new().await;
    let Family { alice, desk, web, mobile } = family(&mut house, ["", "", ";q=0.1"]).await;
    house.call(&alice, "bob", "two-answers", SDP).await;
    let invites = house.hear_requests(&[&desk, &web], "INVITE").await;
    // Both pick up at the same moment.
    house.relay.hold();
    house.say_with(&desk, &invites[0].answer("200 OK", "t1", &contact(&desk)), SDP);
    house.say_with(&web, &invites[1].answer("200 OK", "t2", &contact(&web)), SDP);
    let ack = house.hear_request(&web, "ACK").await;
    assert_eq!((ack.header(HeaderName::CSeq), ack.message.to_tag()), ("2 ACK".to_owned(), Some("t2")));
    let bye = house.hear_request(&web, "BYE").await;
    house.say(&web, &bye.answer("200 OK", "", ""));
    house.relay.release();
    let answered = house.hear_status(&alice, 200).await;
    assert_eq!(answered.message.to_tag(), Some("t1"));
    // Its 2xx comes once more: it is acknowledged once more, and not hung up on again.
    house.say_with(&web, &invites[1].answer("200 OK", "t2", &contact(&web)), SDP);
    house.hear_request(&web, "ACK").await;
    // And of the first it is the caller who acknowledges.
    house.say_with(&desk, &invites[0].answer("200 OK", "t1", &contact(&desk)), SDP);
    house.hear_status(&alice, 200).await;
    assert!(house.is_quiet().await);
    let _ = mobile;
    assert_eq!((house.core.live_calls(), house.relay.asked().len()), (1, 2));
}

#[tokio::test]
async fn a_proxy_behind_us_may_have_forked_too() {
    let mut house = House::new().await;
    let Family { alice, desk, .. } = family(&mut house, ["", ";q=0.1", ";q=0.1"]).await;
    house.call(&alice, "bob", "forked-behind", SDP).await;
    let invite = house.hear_request(&desk, "INVITE").await;
    for tag in ["t1", "t2"] {
        house.say(&desk, &invite.answer("180 Ringing", tag, &contact(&desk)));
        assert_eq!(house.hear_status(&alice, 180).await.message.to_tag(), Some(tag));
    }
    house.say_with(&desk, &invite.answer("200 OK", "t1", &contact(&desk)), SDP);
    house.hear_status(&alice, 200).await;
    house.say_with(&desk, &invite.answer("200 OK", "t2", &contact(&desk)), SDP);
    let ack = house.hear_request(&desk, "ACK").await;
    assert_eq!(ack.message.to_tag(), Some("t2"));
    let bye = house.hear_request(&desk, "BYE").await;
    assert_eq!(bye.message.to_tag(), Some("t2"));
}

#[tokio::test]
async fn without_a_relay_the_caller_gets_every_answer() {
    let mut house = House::with(crate::Config { anchor_media: false, ..crate::Config::for_test() }).await;
    let Family { alice, desk, web, .. } = family(&mut house, ["", "", ";q=0.1"]).await;
    house.call(&alice, "bob", "all-answers", SDP).await;
    let invites = house.hear_requests(&[&desk, &web], "INVITE").await;
    let mut answers = Vec::new();
    for (phone, invite, tag) in [(&desk, &invites[0], "t1"), (&web, &invites[1], "t2")] {
        house.say_with(phone, &invite.answer("200 OK", tag, &contact(phone)), SDP);
        let answered = house.hear_status(&alice, 200).await;
        assert_eq!(answered.message.to_tag(), Some(tag));
        answers.push(answered);
    }
    // The caller keeps the first and ends the second dialog (RFC 3261 section 13.2.2.4).
    for (answered, phone) in answers.iter().zip([&desk, &web]) {
        house.say(&alice, &house.in_dialog(&alice, "ACK", 2, answered, &phone.contact(), None));
        house.hear_request(phone, "ACK").await;
    }
    house.say(&alice, &house.in_dialog(&alice, "BYE", 3, &answers[1], &web.contact(), None));
    let bye = house.hear_request(&web, "BYE").await;
    house.say(&web, &bye.answer("200 OK", "", ""));
    house.hear_status(&alice, 200).await;
    assert_eq!(house.core.live_calls(), 1, "the first goes on");
}

#[tokio::test]
async fn less_wanted_phones_ring_when_the_others_do_not_answer() {
    let mut house = House::new().await;
    let Family { alice, desk, web, mobile } = family(&mut house, [";q=0.9", ";q=0.5", ";q=0.5"]).await;
    house.call(&alice, "bob", "by-q", SDP).await;
    let first = house.hear_request(&desk, "INVITE").await;
    house.say(&desk, &first.answer("486 Busy Here", "t1", ""));
    house.hear_request(&desk, "ACK").await;
    let invites = house.hear_requests(&[&web, &mobile], "INVITE").await;
    house.say(&web, &invites[0].answer("480 Temporarily Unavailable", "t2", ""));
    house.hear_request(&web, "ACK").await;
    assert!(house.is_quiet().await, "the mobile may still answer");
    house.say(&mobile, &invites[1].answer("404 Not Found", "t3", ""));
    house.hear_request(&mobile, "ACK").await;
    // The best of the three (RFC 3261 section 16.7 step 6).
    let refused = house.hear_status(&alice, 486).await;
    house.acknowledge(&alice, &refused);
}

#[tokio::test]
async fn what_rings_too_long_is_cancelled_and_the_next_rings() {
    let mut house = House::new().await;
    let Family { alice, desk, web, mobile } = family(&mut house, [";q=0.9", ";q=0.5", ";q=0.1"]).await;
    house.call(&alice, "bob", "ring-on", SDP).await;
    let first = house.hear_request(&desk, "INVITE").await;
    house.say(&desk, &first.answer("180 Ringing", "t1", ""));
    house.hear_status(&alice, 180).await;
    house.let_pass(Duration::from_secs(19)).await;
    assert!(house.is_quiet().await);
    house.let_pass(Duration::from_millis(1_200)).await;
    let cancel = house.hear_request(&desk, "CANCEL").await;
    house.say(&desk, &cancel.answer("200 OK", "t1", ""));
    let second = house.hear_request(&web, "INVITE").await;
    house.say(&desk, &first.answer("487 Request Terminated", "t1", ""));
    house.hear_request(&desk, "ACK").await;
    house.say_with(&web, &second.answer("200 OK", "t2", &contact(&web)), SDP);
    house.hear_status(&alice, 200).await;
    let _ = mobile;
}

#[tokio::test]
async fn a_refusal_for_everybody_stops_the_search() {
    let mut house = House::new().await;
    let Family { alice, desk, web, .. } = family(&mut house, ["", "", ";q=0.1"]).await;
    house.call(&alice, "bob", "decline", SDP).await;
    let invites = house.hear_requests(&[&desk, &web], "INVITE").await;
    house.say(&web, &invites[1].answer("180 Ringing", "t2", ""));
    house.hear_status(&alice, 180).await;
    house.say(&desk, &invites[0].answer("603 Decline", "t1", ""));
    house.hear_request(&desk, "ACK").await;
    let cancel = confirm_cancel(&mut house, &web, &invites[1]).await;
    assert!(cancel.header(HeaderName::Reason).starts_with("SIP;cause=600"), "{}", cancel.text());
    let refused = house.hear_status(&alice, 603).await;
    house.acknowledge(&alice, &refused);
    assert!(house.is_quiet().await, "the mobile never rings");
}

#[tokio::test]
async fn challenges_of_several_phones_are_gathered() {
    let mut house = House::new().await;
    let Family { alice, desk, web, .. } = family(&mut house, ["", "", ";q=0.1"]).await;
    house.call(&alice, "bob", "challenges", SDP).await;
    let invites = house.hear_requests(&[&desk, &web], "INVITE").await;
    let ask = |realm: &str| format!("Proxy-Authenticate: Digest realm=\"{realm}\", nonce=\"n\"\n");
    house.say(&desk, &invites[0].answer("407 Proxy Authentication Required", "t1", &ask("one")));
    house.hear_request(&desk, "ACK").await;
    house.say(&web, &invites[1].answer("407 Proxy Authentication Required", "t2", &ask("two")));
    house.hear_request(&web, "ACK").await;
    let third = house.hear().await;
    assert_eq!(third.message.method(), "INVITE", "a challenge is no answer: the mobile rings");
    let mobile = Phone::new("bob", Transport::Tls);
    house.say(&mobile, &third.answer("486 Busy Here", "t3", ""));
    house.hear_request(&mobile, "ACK").await;
    let challenged = house.hear_status(&alice, 407).await;
    let realms = challenged.values(HeaderName::ProxyAuthenticate).join(" ");
    assert!(realms.contains("\"one\"") && realms.contains("\"two\""), "{realms}");
}

#[tokio::test]
async fn early_sound_is_of_whoever_rang_last_and_then_of_whoever_answers() {
    let mut house = House::new().await;
    let Family { alice, desk, web, .. } = family(&mut house, ["", "", ";q=0.1"]).await;
    house.call(&alice, "bob", "early-sound", SDP).await;
    let invites = house.hear_requests(&[&desk, &web], "INVITE").await;
    let reliable = |phone: &Phone| format!("{}Require: 100rel\nRSeq: 1\n", contact(phone));
    let progress = |phone: &Phone, at: usize, tag: &str| {
        invites[at].answer("183 Session Progress", tag, &reliable(phone))
    };
    house.say_with(&desk, &progress(&desk, 0, "t1"), &sdp_of(1));
    let first = house.hear_status(&alice, 183).await;
    house.say_with(&web, &progress(&web, 1, "t2"), &sdp_of(2));
    let second = house.hear_status(&alice, 183).await;
    // Each early dialog is reached by its own Route.
    for (progress, phone, at) in [(&first, &desk, 3), (&second, &web, 4)] {
        house.say(&alice, &house.in_dialog(&alice, "PRACK", at, progress, &phone.contact(), None));
        let prack = house.hear_request(phone, "PRACK").await;
        house.say(phone, &prack.answer("200 OK", "", ""));
        house.hear_status(&alice, 200).await;
    }
    // The desk answers and does not repeat its description: the relay is told again.
    house.say(&desk, &invites[0].answer("200 OK", "t1", &contact(&desk)));
    house.hear_request(&web, "CANCEL").await;
    let answered = house.hear_status(&alice, 200).await;
    assert!(answered.message.body().is_empty(), "it is forwarded as it came");
    let described = house.relay.described();
    assert_eq!(
        described.iter().map(|sdp| sdp.contains("o=- 1 1")).collect::<Vec<_>>(),
        [true, true, false, true]
    );
}

#[tokio::test]
async fn messages_go_to_all_phones_and_the_first_answer_counts() {
    let mut house = House::new().await;
    let Family { alice, desk, web, mobile } = family(&mut house, ["", "", ""]).await;
    let message = |cseq: u32, extra: &str| {
        alice.invite("bob", "text", cseq, extra).replace("INVITE", "MESSAGE") + "Content-Type: text/plain\n"
    };
    house.say(&alice, &message(1, ""));
    let challenged = house.hear_status(&alice, 407).await;
    let authorized = authorize(&challenged, "alice", PASSWORD, "MESSAGE", "sip:bob@belfry.test");
    house.say(&alice, &message(2, &authorized));
    let messages = house.hear_requests(&[&desk, &web, &mobile], "MESSAGE").await;
    house.say(&desk, &messages[0].answer("480 Temporarily Unavailable", "t1", ""));
    house.say(&web, &messages[1].answer("200 OK", "t2", ""));
    house.hear_status(&alice, 200).await;
    house.say(&mobile, &messages[2].answer("200 OK", "t3", ""));
    assert!(house.is_quiet().await, "nothing but INVITE is cancelled, and one answer is enough");
    assert!(messages[0].values(HeaderName::RecordRoute).is_empty());
}

#[tokio::test]
async fn flows_of_one_phone_are_tried_one_after_another() {
    let mut house = House::new().await;
    let instance = |reg_id: u8| format!(";+sip.instance=\"<urn:uuid:1>\";reg-id={reg_id}");
    let (one, two) = (instance(1), instance(2));
    let Family { alice, desk, web, mobile } = family(&mut house, [&one, &two, ";q=0.1"]).await;
    house.call(&alice, "bob", "outbound", SDP).await;
    // RFC 5626 section 5.3: the same phone must not ring twice.
    let first = house.hear().await;
    assert!(house.is_quiet().await);
    let (used, other) = if first.flow == desk.flow { (&desk, &web) } else { (&web, &desk) };
    assert_eq!(first.flow, used.flow);
    house.fail_send(&first, SendFailure::FlowGone);
    let second = house.hear_request(other, "INVITE").await;
    house.say(other, &second.answer("430 Flow Failed", "t1", ""));
    house.hear_request(other, "ACK").await;
    let third = house.hear_request(&mobile, "INVITE").await;
    house.say_with(&mobile, &third.answer("200 OK", "t3", &contact(&mobile)), SDP);
    house.hear_status(&alice, 200).await;
}

#[tokio::test]
async fn a_flow_that_fails_after_a_refusal_for_everybody_has_no_successor() {
    let mut house = House::new().await;
    let instance = |reg_id: u8| format!(";+sip.instance=\"<urn:uuid:1>\";reg-id={reg_id}");
    let (one, two) = (instance(1), instance(2));
    let Family { alice, desk, web, mobile } = family(&mut house, [&one, &two, ""]).await;
    house.call(&alice, "bob", "unwanted", SDP).await;
    let (one, two) = (house.hear().await, house.hear().await);
    let (invite, other) = if one.flow == mobile.flow { (one, two) } else { (two, one) };
    assert!(other.flow == desk.flow || other.flow == web.flow, "{}", other.flow);
    house.say(&mobile, &invite.answer("603 Decline", "t1", ""));
    house.hear_request(&mobile, "ACK").await;
    house.fail_send(&other, SendFailure::FlowGone);
    let refused = house.hear_status(&alice, 603).await;
    house.acknowledge(&alice, &refused);
    assert!(house.is_quiet().await, "the other flow never rings");
}

#[tokio::test]
async fn breadth_runs_out() {
    // RFC 5393 section 5.3.3.
    let mut house = House::new().await;
    let Family { alice, desk, web, mobile } = family(&mut house, ["", "", ""]).await;
    let mut cseq = 1;
    for (breadth, at_once) in [("2", 2), ("1", 1), ("0", 0)] {
        let extra = format!("Max-Breadth: {breadth}\n");
        let call_id = format!("breadth-{breadth}");
        let invite = |cseq: u32, more: &str| alice.invite("bob", &call_id, cseq, &format!("{extra}{more}"));
        house.say_with(&alice, &invite(cseq, ""), SDP);
        house.hear_status(&alice, 100).await;
        let challenged = house.hear_status(&alice, 407).await;
        house.acknowledge(&alice, &challenged);
        let authorized = authorize(&challenged, "alice", PASSWORD, "INVITE", "sip:bob@belfry.test");
        house.say_with(&alice, &invite(cseq + 1, &authorized), SDP);
        house.hear_status(&alice, 100).await;
        cseq += 2;
        if at_once == 0 {
            house.hear_status(&alice, 440).await;
            continue;
        }
        let mut rung = 0;
        while rung < 3 {
            let mut now = Vec::new();
            for _ in 0..at_once.min(3 - rung) {
                now.push(house.hear().await);
            }
            assert!(house.is_quiet().await, "no more than {at_once} at a time");
            for invite in now {
                assert_eq!(invite.message.method(), "INVITE");
                let phone = [&desk, &web, &mobile].into_iter().find(|phone| phone.flow == invite.flow);
                let phone = phone.expect("one of bob's");
                house.say(phone, &invite.answer("480 Temporarily Unavailable", "t", ""));
                rung += 1;
                house.hear_request(phone, "ACK").await;
            }
        }
        let refused = house.hear_status(&alice, 480).await;
        house.acknowledge(&alice, &refused);
    }
}
