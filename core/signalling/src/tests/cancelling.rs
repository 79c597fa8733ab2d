//! CANCEL and what crosses it on the way (RFC 3261 sections 9 and 16.10).

use std::time::Duration;

use belfry_sip_proto::HeaderName;

use super::forking::{Family, family};
use super::house::{Heard, House, Phone, SDP};

fn contact(phone: &Phone) -> String {
    format!("Contact: {}\n", phone.contact())
}

/// The CANCEL of a call's authenticated INVITE.
fn cancel_of(alice: &Phone, call_id: &str, extra: &str) -> String {
    alice.invite("bob", call_id, 2, extra).replace("INVITE ", "CANCEL ").replace("2 INVITE", "2 CANCEL")
}

/// Rings all phones of bob; gives their INVITEs.
async fn ring(house: &mut House, family: &Family, call_id: &str) -> Vec<Heard> {
    let phones = [&family.desk, &family.web, &family.mobile];
    house.call(&family.alice, "bob", call_id, SDP).await;
    let invites = house.hear_requests(&phones, "INVITE").await;
    for (phone, invite) in phones.into_iter().zip(&invites) {
        house.say(phone, &invite.answer("180 Ringing", "t", &contact(phone)));
        house.hear_status(&family.alice, 180).await;
    }
    invites
}

#[tokio::test]
async fn every_phone_that_rings_is_cancelled() {
    let mut house = House::new().await;
    let family = family(&mut house, ["", "", ""]).await;
    let invites = ring(&mut house, &family, "cancel-all").await;
    house.say(&family.alice, &cancel_of(&family.alice, "cancel-all", "Reason: Q.850;cause=16\n"));
    house.hear_status(&family.alice, 200).await;
    let phones = [&family.desk, &family.web, &family.mobile];
    let cancels = house.hear_requests(&phones, "CANCEL").await;
    for (at, phone) in phones.into_iter().enumerate() {
        assert_eq!(cancels[at].header(HeaderName::Reason), "Q.850;cause=16", "carried on (RFC 3326)");
        house.say(phone, &cancels[at].answer("200 OK", "t", ""));
        house.say(phone, &invites[at].answer("487 Request Terminated", "t", ""));
        house.hear_request(phone, "ACK").await;
    }
    let terminated = house.hear_status(&family.alice, 487).await;
    house.acknowledge(&family.alice, &terminated);
    // The CANCEL comes once more: it is answered, and that is all.
    house.say(&family.alice, &cancel_of(&family.alice, "cancel-all", ""));
    house.hear_status(&family.alice, 200).await;
    assert!(house.is_quiet().await);
    assert_eq!(house.core.live_calls(), 0);
}

#[tokio::test]
async fn an_answer_that_crosses_the_cancel_makes_the_call() {
    let mut house = House::new().await;
    let family = family(&mut house, ["", "", ""]).await;
    let invites = ring(&mut house, &family, "crossing").await;
    house.say(&family.alice, &cancel_of(&family.alice, "crossing", ""));
    house.hear_status(&family.alice, 200).await;
    let phones = [&family.desk, &family.web, &family.mobile];
    house.hear_requests(&phones, "CANCEL").await;
    house.say(&family.desk, &invites[0].answer("487 Request Terminated", "t", ""));
    house.hear_request(&family.desk, "ACK").await;
    // The 2xx had been sent before the CANCEL came (RFC 3261 section 9.2): the caller gets it and says BYE.
    house.say_with(&family.web, &invites[1].answer("200 OK", "t", &contact(&family.web)), SDP);
    let answered = house.hear_status(&family.alice, 200).await;
    house.say(&family.mobile, &invites[2].answer("487 Request Terminated", "t", ""));
    house.hear_request(&family.mobile, "ACK").await;
    let (alice, web) = (&family.alice, &family.web);
    house.say(alice, &house.in_dialog(alice, "ACK", 2, &answered, &web.contact(), None));
    house.hear_request(web, "ACK").await;
    house.say(alice, &house.in_dialog(alice, "BYE", 3, &answered, &web.contact(), None));
    let bye = house.hear_request(web, "BYE").await;
    house.say(web, &bye.answer("200 OK", "", ""));
    house.hear_status(alice, 200).await;
    assert_eq!(house.state.call_records(10).await.expect("readable").len(), 1);
}

#[tokio::test]
async fn a_cancel_after_the_answer_changes_nothing() {
    let mut house = House::new().await;
    let family = family(&mut house, ["", ";q=0.1", ";q=0.1"]).await;
    house.call(&family.alice, "bob", "too-late", SDP).await;
    let invite = house.hear_request(&family.desk, "INVITE").await;
    house.say_with(&family.desk, &invite.answer("200 OK", "t", &contact(&family.desk)), SDP);
    house.hear_status(&family.alice, 200).await;
    house.say(&family.alice, &cancel_of(&family.alice, "too-late", ""));
    house.hear_status(&family.alice, 200).await;
    assert!(house.is_quiet().await);
    assert_eq!(house.core.live_calls(), 1);
}

#[tokio::test]
async fn a_cancel_while_the_relay_is_asked_stops_everything() {
    let mut house = House::new().await;
    let family = family(&mut house, ["", "", ""]).await;
    house.relay.hold();
    house.call(&family.alice, "bob", "early-cancel", SDP).await;
    house.say(&family.alice, &cancel_of(&family.alice, "early-cancel", ""));
    house.hear_status(&family.alice, 200).await;
    let terminated = house.hear_status(&family.alice, 487).await;
    house.acknowledge(&family.alice, &terminated);
    house.relay.release();
    assert!(house.is_quiet().await, "no phone rings for a caller that is gone");
    house.until(|text| text.contains("core_call_records_total{outcome=\"written\"} 1")).await;
}

#[tokio::test]
async fn phones_that_never_answer_their_cancel_are_given_up() {
    let mut house = House::new().await;
    let family = family(&mut house, ["", "", ""]).await;
    ring(&mut house, &family, "deaf").await;
    house.say(&family.alice, &cancel_of(&family.alice, "deaf", ""));
    house.hear_status(&family.alice, 200).await;
    house.let_pass(Duration::from_secs(33)).await;
    let heard = house.hear_all().await;
    let terminated = heard.iter().find(|heard| heard.status() == 487).expect("64 * T1 are over");
    house.acknowledge(&family.alice, terminated);
    assert_eq!(house.core.live_calls(), 0);
}
