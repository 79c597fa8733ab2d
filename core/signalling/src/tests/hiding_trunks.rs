//! Topology hiding by trunk, both ways, and which headers pass then.

use belfry_sip_proto::HeaderName;

use super::house::{Heard, House, PASSWORD, Phone, SDP, authorize};
use super::routing::{NUMBER, ONE, PLAN, TWO, hang_up, hear_at, is_idle, pick_up, refuse, trunk};
use crate::handle::Transport;
use crate::{Config, Hiding};

async fn house(trunks: &[&str], keep_headers: &[&str]) -> (House, Phone) {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let hiding = Hiding { trunks: owned(trunks), keep_headers: owned(keep_headers), ..Hiding::default() };
    let mut house = House::with_plan(Config { hiding, ..Config::for_test() }, PLAN).await;
    let alice = Phone::new("alice", Transport::Udp);
    house.register(&alice).await;
    (house, alice)
}

/// An INVITE with these headers leaves by trunk one; gives it as the trunk got it.
async fn call_out(house: &mut House, alice: &Phone, call_id: &str, headers: &str) -> Heard {
    house.say_with(alice, &alice.invite(NUMBER, call_id, 1, headers), SDP);
    house.hear_status(alice, 100).await;
    let challenged = house.hear_status(alice, 407).await;
    house.acknowledge(alice, &challenged);
    let uri = format!("sip:{NUMBER}@belfry.test");
    let authorization = authorize(&challenged, alice.user, PASSWORD, "INVITE", &uri);
    house.say_with(alice, &alice.invite(NUMBER, call_id, 2, &format!("{headers}{authorization}")), SDP);
    house.hear_status(alice, 100).await;
    hear_at(house, ONE, "INVITE").await
}

fn is_hidden(heard: &Heard, call_id: &str) -> bool {
    let is_hidden = heard.header(HeaderName::CallId) != call_id;
    assert_eq!(is_hidden, heard.values(HeaderName::RecordRoute).is_empty(), "{}", heard.text());
    assert_eq!(is_hidden, heard.values(HeaderName::Via).len() == 1, "{}", heard.text());
    assert_eq!(is_hidden, !heard.text().contains("192.0.2.7"), "{}", heard.text());
    is_hidden
}

#[tokio::test]
async fn only_the_listed_trunk_is_told_nothing() {
    for (trunks, first, second) in [
        (vec!["one"], true, true),
        (vec!["*"], true, true),
        (vec!["three"], false, false),
        (vec![], false, false),
    ] {
        let (mut house, alice) = house(&trunks, &[]).await;
        let invite = call_out(&mut house, &alice, "out", "").await;
        assert_eq!(is_hidden(&invite, "out"), first, "{trunks:?}");
        // One call has one twin: what it fails over to sees the same.
        refuse(&mut house, ONE, &invite, "503 Service Unavailable").await;
        let over = hear_at(&mut house, TWO, "INVITE").await;
        assert_eq!(is_hidden(&over, "out"), second, "{trunks:?}");
        let answered = pick_up(&mut house, &alice, TWO, &over).await;
        assert_eq!(answered.header(HeaderName::CallId), "out");
        hang_up_hidden(&mut house, &alice, &answered, first).await;
        is_idle(&house).await;
        let record = house.state.call_records(1).await.expect("readable").remove(0);
        assert_eq!((record.call_id.reveal().as_str(), record.called_trunk.as_deref()), ("out", Some("two")));
    }
}

async fn hang_up_hidden(house: &mut House, alice: &Phone, answered: &Heard, is_masked: bool) {
    if !is_masked {
        return hang_up(house, alice, TWO, answered).await;
    }
    let contact = answered.header(HeaderName::Contact);
    house.say(alice, &house.in_dialog(alice, "BYE", 9, answered, &contact, None));
    let bye = house.hear().await;
    assert_eq!(bye.message.method(), "BYE", "{}", bye.text());
    house.say(&trunk(TWO), &bye.answer("200 OK", "", ""));
    house.hear_status(alice, 200).await;
}

#[tokio::test]
async fn a_trunk_that_shows_credentials_is_hidden_like_one_that_is_known_by_its_address() {
    let (mut house, alice) = house(&["two"], &[]).await;
    let carol = Phone::new("carol", Transport::Udp);
    let invite = house.invite(&carol, &alice, "in", "").await;
    assert_ne!(invite.header(HeaderName::CallId), "in", "{}", invite.text());
    assert!(invite.values(HeaderName::RecordRoute).is_empty());
}

#[tokio::test]
async fn of_strange_headers_only_those_that_are_kept_pass() {
    let strange = "X-Keep: 1\nX-Drop: 2\nSubject: known to SIP\nx-keep: 3\n";
    let (mut house, alice) = house(&["one"], &["X-Keep"]).await;
    let invite = call_out(&mut house, &alice, "strange", strange).await;
    let text = invite.text();
    assert_eq!(text.to_ascii_lowercase().matches("x-keep:").count(), 2, "{text}");
    assert!(!text.contains("X-Drop") && text.contains("Subject: known to SIP"), "{text}");
    // What a message needs to arrive passes, whatever is kept.
    for needed in
        ["Via:", "From:", "To:", "Call-ID:", "CSeq:", "Contact:", "Max-Forwards:", "Content-Length:"]
    {
        assert!(text.contains(needed), "{needed} in {text}");
    }
    let contact = format!("Contact: {}\nX-Trunk: inside\nX-Keep: 4\n", trunk(ONE).contact());
    house.say_with(&trunk(ONE), &invite.answer("200 OK", "tt", &contact), SDP);
    let answered = house.hear_status(&alice, 200).await;
    assert!(
        !answered.text().contains("X-Trunk") && answered.text().contains("X-Keep: 4"),
        "{}",
        answered.text()
    );
}
