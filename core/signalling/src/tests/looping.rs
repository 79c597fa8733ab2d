//! Loops, spirals, strict routers, and what passes through untouched (RFC 3261 sections 16.3, 16.4 and 16.12,
//! RFC 5393).

use belfry_sip_proto::HeaderName;

use super::house::{Heard, House, PASSWORD, Phone, SDP, authorize};
use crate::handle::Transport;

async fn phones(house: &mut House) -> (Phone, Phone) {
    let (alice, bob) = (Phone::new("alice", Transport::Udp), Phone::new("bob", Transport::Tls));
    house.register(&alice).await;
    house.register(&bob).await;
    (alice, bob)
}

fn contact(phone: &Phone) -> String {
    format!("Contact: {}\n", phone.contact())
}

/// Brings a call up; gives the INVITE as bob got it and the 200 as alice got it.
async fn talk(house: &mut House, alice: &Phone, bob: &Phone, call_id: &str) -> (Heard, Heard) {
    house.call(alice, "bob", call_id, SDP).await;
    let invite = house.hear_request(bob, "INVITE").await;
    house.say_with(bob, &invite.answer("200 OK", "tb", &contact(bob)), SDP);
    let answered = house.hear_status(alice, 200).await;
    house.say(alice, &house.in_dialog(alice, "ACK", 2, &answered, &bob.contact(), None));
    house.hear_request(bob, "ACK").await;
    (invite, answered)
}

/// A MESSAGE to this user with these Via values below the sender's own, let in with credentials.
async fn message_via(house: &mut House, alice: &Phone, to: &str, call_id: &str, vias: &[String]) {
    let vias: String = vias.iter().map(|via| format!("Via: {via}\n")).collect();
    let message = |cseq: u32, extra: &str| {
        alice
            .invite(to, call_id, 7, &format!("{vias}{extra}"))
            .replace("INVITE", "MESSAGE")
            .replace("z9hG4bKi", &format!("z9hG4bK{}{cseq}", vias.len()))
    };
    house.say(alice, &message(1, ""));
    let challenged = house.hear_status(alice, 407).await;
    let uri = format!("sip:{to}@belfry.test");
    house.say(alice, &message(2, &authorize(&challenged, "alice", PASSWORD, "MESSAGE", &uri)));
}

#[tokio::test]
async fn a_loop_is_not_a_spiral() {
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house).await;
    let carol = Phone::new("carol", Transport::Udp);
    house.register(&carol).await;
    message_via(&mut house, &alice, "bob", "loop", &[]).await;
    let carried = house.hear_request(&bob, "MESSAGE").await;
    house.say(&bob, &carried.answer("200 OK", "t", ""));
    house.hear_status(&alice, 200).await;
    let own = carried.values(HeaderName::Via).remove(0);
    // It comes back for somebody else: a spiral, which is allowed (RFC 3261 section 16.3 step 4).
    message_via(&mut house, &alice, "carol", "loop", std::slice::from_ref(&own)).await;
    let spiral = house.hear_request(&carol, "MESSAGE").await;
    house.say(&carol, &spiral.answer("200 OK", "t", ""));
    house.hear_status(&alice, 200).await;
    // It comes back as it was: a loop, wherever in the way our Via stands.
    let between = "SIP/2.0/TCP proxy.test;branch=z9hG4bKfaraway".to_owned();
    message_via(&mut house, &alice, "bob", "loop", &[between, own]).await;
    house.hear_status(&alice, 482).await;
    // Vias of others that look like ours mean nothing.
    let alike = "SIP/2.0/UDP edge.test:5060;branch=z9hG4bK0123456789abcdef.0123456789abcdef".to_owned();
    message_via(&mut house, &alice, "bob", "alike", &[alike]).await;
    house.hear_request(&bob, "MESSAGE").await;
}

#[tokio::test]
async fn the_last_hop_is_counted() {
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house).await;
    let (_, answered) = talk(&mut house, &alice, &bob, "hops").await;
    let info = house.in_dialog(&alice, "INFO", 3, &answered, &bob.contact(), None);
    house.say(&alice, &info.replace("Max-Forwards: 70", "Max-Forwards: 1"));
    let carried = house.hear_request(&bob, "INFO").await;
    assert_eq!(carried.header(HeaderName::MaxForwards), "0");
    house.say(&bob, &carried.answer("200 OK", "", ""));
    house.hear_status(&alice, 200).await;
    let info = house.in_dialog(&alice, "INFO", 4, &answered, &bob.contact(), None);
    house.say(&alice, &info.replace("Max-Forwards: 70", "Max-Forwards: 0"));
    house.hear_status(&alice, 483).await;
    let info = house.in_dialog(&alice, "INFO", 5, &answered, &bob.contact(), None);
    house.say(&alice, &info.replace("Max-Forwards: 70\n", ""));
    assert_eq!(house.hear_request(&bob, "INFO").await.header(HeaderName::MaxForwards), "70");
}

#[tokio::test]
async fn a_strict_router_before_us_is_understood() {
    // RFC 3261 section 16.4: our own Record-Route stands in the Request-URI, the target at the end of Route.
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house).await;
    let (_, answered) = talk(&mut house, &alice, &bob, "strict").await;
    let strict = |method: &str, cseq: u32| {
        let loose = house.in_dialog(&alice, method, cseq, &answered, &bob.contact(), None);
        let target = bob.contact();
        let routes: Vec<&str> = loose.lines().filter_map(|line| line.strip_prefix("Route: ")).collect();
        let (first, others) = routes.split_first().expect("two Routes");
        let others: String = others.iter().map(|route| format!("Route: {route}\n")).collect();
        let rest: String = loose
            .lines()
            .skip(1)
            .filter(|line| !line.starts_with("Route: "))
            .map(|line| format!("{line}\n"))
            .collect();
        let uri = first.trim_start_matches('<').trim_end_matches('>');
        format!("{method} {uri} SIP/2.0\n{rest}{others}Route: {target}\n")
    };
    let (info, ack) = (strict("INFO", 3), strict("ACK", 2));
    house.say(&alice, &info);
    let carried = house.hear_request(&bob, "INFO").await;
    assert_eq!(format!("<{}>", carried.message.request_uri()), bob.contact());
    assert!(carried.values(HeaderName::Route).is_empty(), "{}", carried.text());
    house.say(&bob, &carried.answer("200 OK", "", ""));
    house.hear_status(&alice, 200).await;
    house.say(&alice, &ack.replace("z9hG4bKd", "z9hG4bKe"));
    let ack = house.hear_request(&bob, "ACK").await;
    assert_eq!(format!("<{}>", ack.message.request_uri()), bob.contact());
}

#[tokio::test]
async fn a_strict_router_behind_us_finds_itself_in_the_request_uri() {
    // RFC 3261 section 16.12.1.2.
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house).await;
    let (_, answered) = talk(&mut house, &alice, &bob, "strict-behind").await;
    for (route, uri, routes) in [
        ("<sip:old.test>", "sip:old.test".to_owned(), vec![bob.contact()]),
        ("<sip:new.test;lr>", bob.contact().replace(['<', '>'], ""), vec!["<sip:new.test;lr>".to_owned()]),
    ] {
        let info = house.in_dialog(&alice, "INFO", 3, &answered, &bob.contact(), None);
        let info = info
            .replace("From: ", &format!("Route: {route}\nFrom: "))
            .replace("z9hG4bKd", &format!("z9hG4bK{}", route.len()));
        house.say(&alice, &info);
        let carried = house.hear_request(&bob, "INFO").await;
        assert_eq!(
            (carried.message.request_uri(), carried.values(HeaderName::Route)),
            (uri.as_str(), routes)
        );
    }
}

#[tokio::test]
async fn methods_of_a_dialog_pass_in_both_directions() {
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house).await;
    let (invite, answered) = talk(&mut house, &alice, &bob, "methods").await;
    let methods =
        ["INFO", "UPDATE", "REFER", "NOTIFY", "SUBSCRIBE", "MESSAGE", "PUBLISH", "OPTIONS", "FANCY"];
    for (at, method) in methods.into_iter().enumerate() {
        let cseq = 10 + u32::try_from(at).expect("few");
        let untouched =
            "X-Unknown:   spaced  ;a=\"b,c\"\nRefer-To: <sip:carol@belfry.test?Replaces=1%3Bto-tag%3D2>\n";
        let there = house.in_dialog(&alice, method, cseq, &answered, &bob.contact(), None) + untouched;
        house.say(&alice, &there);
        let carried = house.hear_request(&bob, method).await;
        assert!(carried.text().contains(&untouched.replace('\n', "\r\n")), "{}", carried.text());
        house.say(&bob, &carried.answer("202 Accepted", "", "X-Also:  untouched\n"));
        assert!(house.hear_status(&alice, 202).await.text().contains("X-Also:  untouched\r\n"));
        let back = house.in_dialog(&bob, method, cseq, &invite, &alice.contact(), Some("tb"));
        house.say(&bob, &back);
        let carried = house.hear_request(&alice, method).await;
        house.say(&alice, &carried.answer("200 OK", "", ""));
        house.hear_status(&bob, 200).await;
    }
}

#[tokio::test]
async fn requests_outside_of_dialogs_find_their_customer() {
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house).await;
    for (method, is_recorded) in [
        ("SUBSCRIBE", true),
        ("REFER", true),
        ("PUBLISH", false),
        ("MESSAGE", false),
        ("INFO", false),
        ("FANCY", false),
    ] {
        let request = |cseq: u32, extra: &str| {
            alice.invite("bob", &format!("out-{method}"), cseq, extra).replace("INVITE", method)
        };
        house.say(&alice, &request(1, ""));
        let challenged = house.hear_status(&alice, 407).await;
        let authorized = authorize(&challenged, "alice", PASSWORD, method, "sip:bob@belfry.test");
        house.say(&alice, &request(2, &authorized));
        let carried = house.hear_request(&bob, method).await;
        assert_eq!(!carried.values(HeaderName::RecordRoute).is_empty(), is_recorded, "{method}");
        assert_eq!(carried.header(HeaderName::MaxBreadth), "16");
        house.say(&bob, &carried.answer("489 Bad Event", "t", ""));
        house.hear_status(&alice, 489).await;
    }
}

#[tokio::test]
async fn provisional_responses_of_all_kinds_pass() {
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house).await;
    house.call(&alice, "bob", "provisional", SDP).await;
    let invite = house.hear_request(&bob, "INVITE").await;
    house.say(&bob, &invite.answer("100 Trying", "", ""));
    for status in [
        "180 Ringing",
        "181 Call Is Being Forwarded",
        "182 Queued",
        "183 Session Progress",
        "199 Early Dialog Terminated",
    ] {
        house.say(&bob, &invite.answer(status, "tb", &contact(&bob)));
        let code = status[..3].parse().expect("a status");
        house.hear_status(&alice, code).await;
    }
    assert!(house.is_quiet().await, "100 is hop by hop");
}

#[tokio::test]
async fn descriptions_within_several_parts_pass_through_the_relay() {
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house).await;
    let body = |sdp: &str| {
        format!(
            "--b1\r\nContent-Type: application/sdp\r\n\r\n{sdp}\r\n--b1\r\nContent-Type: application/isup\r\n\r\n\u{1}\u{2}\r\n--b1--\r\n"
        )
    };
    let mixed = |head: &str| {
        let body = body(SDP);
        let head = head.trim_end().replace('\n', "\r\n");
        let length = body.len();
        format!(
            "{head}\r\nContent-Type: multipart/mixed;boundary=b1\r\nContent-Length: {length}\r\n\r\n{body}"
        )
    };
    house.say_bytes(&alice, mixed(&alice.invite("bob", "parts", 1, "")).into_bytes());
    house.hear_status(&alice, 100).await;
    let challenged = house.hear_status(&alice, 407).await;
    house.acknowledge(&alice, &challenged);
    let authorized = authorize(&challenged, "alice", PASSWORD, "INVITE", "sip:bob@belfry.test");
    house.say_bytes(&alice, mixed(&alice.invite("bob", "parts", 2, &authorized)).into_bytes());
    house.hear_status(&alice, 100).await;
    let invite = house.hear_request(&bob, "INVITE").await;
    let relayed = |port: &str| body(&SDP.replace("192.0.2.1", "198.51.100.9").replace("4000", port));
    assert_eq!(String::from_utf8_lossy(invite.message.body()), relayed("20000"));
    house.say_bytes(&bob, mixed(&invite.answer("200 OK", "tb", &contact(&bob))).into_bytes());
    let answered = house.hear_status(&alice, 200).await;
    assert_eq!(String::from_utf8_lossy(answered.message.body()), relayed("30000"));
    assert_eq!(house.relay.asked(), ["offer caller", "answer callee"]);
}

#[tokio::test]
async fn what_was_decided_stands_in_the_trace() {
    let mut house = House::new().await;
    let (alice, bob) = phones(&mut house).await;
    house.emitted();
    talk(&mut house, &alice, &bob, "decisions").await;
    let decisions: Vec<(String, String)> = house
        .emitted()
        .iter()
        .filter_map(|body| match body {
            belfry_signal::record::Body::Span(span) if span.name == "sip.decision" => {
                let value = |key: &str| {
                    let found = span.attributes.iter().find(|(name, _)| *name == key);
                    found.map_or_else(String::new, |(_, value)| value.to_string())
                };
                Some((value("decision"), value("reason")))
            }
            _ => None,
        })
        .collect();
    let pairs: Vec<(&str, &str)> =
        decisions.iter().map(|(what, why)| (what.as_str(), why.as_str())).collect();
    assert_eq!(pairs, [("authenticate", "challenged"), ("authenticate", "granted"), ("route", "registered")]);
}
