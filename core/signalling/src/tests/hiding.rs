//! Calls whose sides are told nothing of each other (RFC 7092).

use belfry_signal::record::Body;
use belfry_sip_proto::HeaderName;

use super::house::{Heard, House, Phone, SDP};
use crate::handle::Transport;
use crate::{Config, Hiding, LiveFilter};

fn hiding() -> Config {
    let remove_headers = vec!["User-Agent".to_owned(), "X-Inside".to_owned()];
    Config { hiding: Hiding { customers: true, remove_headers, ..Hiding::default() }, ..Config::for_test() }
}

async fn house_with_phones() -> (House, Phone, Phone) {
    let mut house = House::with(hiding()).await;
    let (alice, bob) = (Phone::new("alice", Transport::Udp), Phone::new("bob", Transport::Tcp));
    house.register(&alice).await;
    house.register(&bob).await;
    (house, alice, bob)
}

/// Rings, and is answered and acknowledged; gives the 200 as the caller got it.
async fn answer(house: &mut House, alice: &Phone, bob: &Phone, invite: &Heard) -> Heard {
    let contact = format!("Contact: {}\nUser-Agent: bobphone/1\n", bob.contact());
    house.say(bob, &invite.answer("180 Ringing", "tb", &contact));
    house.hear_status(alice, 180).await;
    house.say_with(bob, &invite.answer("200 OK", "tb", &contact), SDP);
    let answered = house.hear_status(alice, 200).await;
    house.say(alice, &by(house, alice, "ACK", 2, &answered, None));
    let ack = house.hear_request(bob, "ACK").await;
    assert_is_of(&ack, invite, "tb");
    assert_eq!(format!("<{}>", ack.message.request_uri()), bob.contact());
    answered
}

/// A request within the dialog as its side knows it: to the Contact that it was given.
fn by(house: &House, phone: &Phone, method: &str, cseq: u32, seen: &Heard, tag: Option<&str>) -> String {
    house.in_dialog(phone, method, cseq, seen, &seen.header(HeaderName::Contact), tag)
}

/// What reached the called side is of the dialog that its INVITE began.
#[track_caller]
fn assert_is_of(heard: &Heard, invite: &Heard, tag: &str) {
    assert_eq!(heard.header(HeaderName::CallId), invite.header(HeaderName::CallId), "{}", heard.text());
    let (from, to) =
        (invite.header(HeaderName::From), format!("{};tag={tag}", invite.header(HeaderName::To)));
    let (is_forth, is_back) = (heard.header(HeaderName::From) == from, heard.header(HeaderName::From) == to);
    assert!(is_forth || is_back, "{}", heard.text());
    assert_eq!(heard.header(HeaderName::To), if is_forth { to } else { from }, "{}", heard.text());
}

#[track_caller]
fn assert_hides(heard: &Heard, secrets: &[&str]) {
    let text = heard.text();
    for secret in secrets {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    assert!(heard.values(HeaderName::RecordRoute).is_empty(), "{text}");
}

#[tokio::test]
async fn a_call_has_a_dialog_of_its_own_on_each_side_and_one_record() {
    let (mut house, alice, bob) = house_with_phones().await;
    house.emitted();
    let alices = alice.contact();
    let alices = alices.trim_matches(['<', '>']);
    let bobs = bob.contact();
    let bobs = bobs.trim_matches(['<', '>']);
    let setup =
        house.invite(&alice, &bob, "secret-1", "User-Agent: alicephone/1\nX-Inside: 10.0.0.1\n").await;
    let of_alice = ["secret-1", "falice", alices, "alicephone", "10.0.0.1", "token-alice"];
    assert_hides(&setup, &of_alice);
    assert_eq!(setup.values(HeaderName::Via).len(), 1);
    let answered = answer(&mut house, &alice, &bob, &setup).await;
    let of_bob = ["tag=tb", bobs, "bobphone", "token-bob"];
    assert_hides(&answered, &of_bob);
    assert_eq!(answered.values(HeaderName::Via).len(), 1);
    let shown = house.core.live_calls_page(LiveFilter::default(), 0, 1).await.expect("live").calls.remove(0);
    let other = shown.other_call_id.expect("another").reveal().clone();
    assert_eq!((shown.call_id.reveal().as_str(), other), ("secret-1", setup.header(HeaderName::CallId)));

    // The called side changes the session.
    house.say_with(&bob, &by(&house, &bob, "INVITE", 7, &setup, Some("tb")), SDP);
    house.hear_status(&bob, 100).await;
    let change = house.hear_request(&alice, "INVITE").await;
    assert_hides(&change, &of_bob);
    assert_eq!(change.values(HeaderName::Via).len(), 1);
    assert_eq!(change.header(HeaderName::CallId), "secret-1");
    assert_eq!(change.header(HeaderName::From), answered.header(HeaderName::To));
    assert_eq!((change.message.request_uri(), &*change.header(HeaderName::CSeq)), (alices, "7 INVITE"));
    house.say_with(&alice, &change.answer("200 OK", "", &format!("Contact: {}\n", alice.contact())), SDP);
    let changed = house.hear_status(&bob, 200).await;
    assert_hides(&changed, &of_alice);
    assert_is_of(&changed, &setup, "tb");
    house.say(&bob, &by(&house, &bob, "ACK", 7, &setup, Some("tb")));
    assert_eq!(house.hear_request(&alice, "ACK").await.header(HeaderName::CallId), "secret-1");

    // Everything else of a dialog, both ways.
    for (cseq, method) in [(3, "REFER"), (4, "INFO"), (5, "OPTIONS"), (6, "UPDATE")] {
        house.say(&alice, &by(&house, &alice, method, cseq, &answered, None));
        let request = house.hear_request(&bob, method).await;
        assert_hides(&request, &of_alice);
        assert_is_of(&request, &setup, "tb");
        house.say(&bob, &request.answer("202 Accepted", "", &format!("Contact: {}\n", bob.contact())));
        assert_hides(&house.hear_status(&alice, 202).await, &of_bob);
    }
    house.say(&bob, &by(&house, &bob, "NOTIFY", 8, &setup, Some("tb")));
    let notify = house.hear_request(&alice, "NOTIFY").await;
    house.say(&alice, &notify.answer("481 Call/Transaction Does Not Exist", "", ""));
    assert_is_of(&house.hear_status(&bob, 481).await, &setup, "tb");

    house.say(&bob, &by(&house, &bob, "BYE", 9, &setup, Some("tb")));
    let bye = house.hear_request(&alice, "BYE").await;
    assert_eq!(bye.header(HeaderName::CallId), "secret-1");
    house.say(&alice, &bye.answer("200 OK", "", ""));
    let ended = house.hear_status(&bob, 200).await;
    assert_is_of(&ended, &setup, "tb");
    let records = house.state.call_records(10).await.expect("readable");
    assert_eq!((records.len(), &*records[0].cause), (1, "callee_hung_up"));
    assert_eq!(records[0].call_id.reveal(), "secret-1");
    // One ladder and one trace.
    let told: std::collections::HashSet<(String, String)> = house
        .emitted()
        .iter()
        .filter_map(|body| match body {
            Body::Sip(message) => Some((message.call_id.reveal().to_string(), message.trace_id.to_string())),
            _ => None,
        })
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
}

#[tokio::test]
async fn hidden_calls_are_cancelled_refused_and_ended_by_us() {
    let (mut house, alice, bob) = house_with_phones().await;
    // Busy.
    let setup = house.invite(&alice, &bob, "busy", "").await;
    house.say(&bob, &setup.answer("486 Busy Here", "tb", ""));
    let ack = house.hear_request(&bob, "ACK").await;
    assert_is_of(&ack, &setup, "tb");
    let busy = house.hear_status(&alice, 486).await;
    assert_hides(&busy, &["tag=tb"]);
    assert_eq!((busy.header(HeaderName::CallId).as_str(), busy.values(HeaderName::Via).len()), ("busy", 1));
    house.acknowledge(&alice, &busy);
    // The caller gives up.
    let setup = house.invite(&alice, &bob, "given-up", "").await;
    house.say(&bob, &setup.answer("180 Ringing", "tb", ""));
    house.hear_status(&alice, 180).await;
    let cancel =
        alice.invite("bob", "given-up", 2, "").replace("INVITE ", "CANCEL ").replace("2 INVITE", "2 CANCEL");
    house.say(&alice, &cancel);
    house.hear_status(&alice, 200).await;
    let cancel = house.hear_request(&bob, "CANCEL").await;
    assert_eq!(cancel.header(HeaderName::CallId), setup.header(HeaderName::CallId));
    house.say(&bob, &cancel.answer("200 OK", "tb", ""));
    house.say(&bob, &setup.answer("487 Request Terminated", "tb", ""));
    assert_is_of(&house.hear_request(&bob, "ACK").await, &setup, "tb");
    let terminated = house.hear_status(&alice, 487).await;
    assert_hides(&terminated, &["tag=tb"]);
    house.acknowledge(&alice, &terminated);
    // A phone that picks up too late is thanked and hung up on in its own dialog.
    let setup = house.invite(&alice, &bob, "late", "").await;
    house.relay.refuse("answer", belfry_relay_api::Refusal::PortsExhausted);
    house.say_with(&bob, &setup.answer("200 OK", "tb", &format!("Contact: {}\n", bob.contact())), SDP);
    assert_is_of(&house.hear_request(&bob, "ACK").await, &setup, "tb");
    assert_is_of(&house.hear_request(&bob, "BYE").await, &setup, "tb");
    house.hear_status(&alice, 503).await;
}

#[tokio::test]
async fn an_operator_ends_both_dialogs_and_after_that_nobody_knows_them() {
    let (mut house, alice, bob) = house_with_phones().await;
    let setup = house.invite(&alice, &bob, "ended", "Privacy: user\n").await;
    assert!(
        setup.header(HeaderName::From).starts_with("\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=")
    );
    let answered = answer(&mut house, &alice, &bob, &setup).await;
    assert!(house.core.end_call("ended").await.is_ok_and(|state| state.is_some()));
    let byes = house.hear_requests(&[&alice, &bob], "BYE").await;
    assert_eq!(byes[0].header(HeaderName::CallId), "ended");
    assert_eq!(byes[0].header(HeaderName::From), answered.header(HeaderName::To));
    assert_is_of(&byes[1], &setup, "tb");
    house.say(&alice, &byes[0].answer("200 OK", "", ""));
    house.say(&bob, &byes[1].answer("200 OK", "", ""));
    house.until(|text| text.contains("core_call_records_total{outcome=\"written\"} 1")).await;
    house.say(&bob, &by(&house, &bob, "INFO", 9, &setup, Some("tb")));
    house.hear_status(&bob, 481).await;
}

/// A third phone, registered.
async fn carol(house: &mut House) -> Phone {
    let carol = Phone::new("carol", Transport::Tls);
    house.register(&carol).await;
    carol
}

/// A call that is answered, whoever calls whom: what the called side got, and what the caller got.
async fn talk(house: &mut House, caller: &Phone, called: &Phone, call_id: &str) -> (Heard, Heard) {
    let invite = house.invite(caller, called, call_id, "").await;
    let contact = format!("Contact: {}\n", called.contact());
    let tag = format!("t{}", called.user);
    house.say_with(called, &invite.answer("200 OK", &tag, &contact), SDP);
    let answered = house.hear_status(caller, 200).await;
    house.say(caller, &by(house, caller, "ACK", 2, &answered, None));
    house.hear_request(called, "ACK").await;
    (invite, answered)
}

/// A dialog as whoever is called by this name knows it, for its other side: Replaces names the other side's tag first.
fn named(seen: &Heard, own_tag: Option<&str>) -> String {
    let tag = |name: HeaderName| {
        let value = seen.header(name);
        value.split("tag=").nth(1).unwrap_or_default().split(';').next().unwrap_or_default().to_owned()
    };
    let call_id = seen.header(HeaderName::CallId);
    match own_tag {
        None => format!("{call_id};to-tag={};from-tag={}", tag(HeaderName::To), tag(HeaderName::From)),
        Some(own) => format!("{call_id};to-tag={};from-tag={own}", tag(HeaderName::From)),
    }
}

#[tokio::test]
async fn an_attended_transfer_names_a_hidden_call_as_its_other_side_knows_it() {
    // Who consulted whom decides in whose words the call is named.
    for is_consulted in [true, false] {
        let (mut house, alice, bob) = house_with_phones().await;
        let carol = carol(&mut house).await;
        let (to_bob, first) = talk(&mut house, &alice, &bob, "first").await;
        let (named_by_alice, known_to_carol) = if is_consulted {
            let (invite, answered) = talk(&mut house, &alice, &carol, "consultation").await;
            let known = format!(
                "{};to-tag=tcarol;from-tag={}",
                invite.header(HeaderName::CallId),
                invite.message.from_tag().unwrap_or_default()
            );
            (named(&answered, None), known)
        } else {
            let (invite, answered) = talk(&mut house, &carol, &alice, "consultation").await;
            let to = answered.message.to_tag().unwrap_or_default().to_owned();
            let known = format!("consultation;to-tag=fcarol;from-tag={to}");
            (named(&invite, Some("talice")), known)
        };
        assert_ne!(named_by_alice, known_to_carol, "two dialogs");
        let escaped = named_by_alice.replace(';', "%3B").replace('=', "%3D");
        let refer = by(&house, &alice, "REFER", 3, &first, None)
            + &format!("Refer-To: \"C\" <sip:carol@belfry.test?Subject=x&Replaces={escaped}>\n");
        house.say(&alice, &refer);
        let refer = house.hear_request(&bob, "REFER").await;
        let refer_to = refer.header(HeaderName::ReferTo);
        let replaces = refer_to.split("Replaces=").nth(1).unwrap_or_default().trim_end_matches('>');
        let replaces = replaces.replace("%3B", ";").replace("%3D", "=");
        assert_eq!(replaces, known_to_carol, "{refer_to}");
        assert!(refer_to.starts_with("\"C\" <sip:carol@belfry.test?Subject=x&"), "{refer_to}");
        let _ = &to_bob;
        // Bob does as he is told; and so does one who was told by somebody else, in alice's words.
        for (call_id, value) in [("joined-1", replaces), ("joined-2", named_by_alice)] {
            let headers = format!("Require: replaces\nReplaces: {value};early-only\n");
            let invite = house.invite(&bob, &carol, call_id, &headers).await;
            let replaces = invite.header(HeaderName::Replaces);
            assert_eq!(replaces, format!("{known_to_carol};early-only"), "{}", invite.text());
        }
        // What names no call here passes as it is.
        let headers = "Replaces: elsewhere;to-tag=1;from-tag=2\n";
        let invite = house.invite(&bob, &carol, "strange", headers).await;
        assert_eq!(invite.header(HeaderName::Replaces), "elsewhere;to-tag=1;from-tag=2");
    }
}
