//! Next hops: found by DNS, tried one after another, left alone while they do not answer (RFC 3263).

use std::net::SocketAddr;
use std::time::Duration;

use belfry_signal::{Pii, Region};
use belfry_sip_proto::HeaderName;
use belfry_state::{Binding, Change};
use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use tokio::net::UdpSocket;

use super::house::{Heard, House, Phone, SDP};
use crate::Config;
use crate::handle::{SendFailure, Transport};

/// What the tests' name server knows.
const ZONE: &[(&str, RecordType, &[&str])] = &[
    ("trunk.test.", RecordType::NAPTR, &["10 10 \"s\" \"SIP+D2U\" \"\" _sip._udp.trunk.test."]),
    (
        "_sip._udp.trunk.test.",
        RecordType::SRV,
        &["10 0 5060 one.trunk.test.", "20 0 5070 two.trunk.test.", "30 0 5080 three.trunk.test."],
    ),
    ("one.trunk.test.", RecordType::A, &["192.0.2.101"]),
    ("two.trunk.test.", RecordType::A, &["192.0.2.102"]),
    ("three.trunk.test.", RecordType::AAAA, &["2001:db8::3"]),
    ("secure.test.", RecordType::A, &["192.0.2.104"]),
];

/// A name server on loopback.
async fn name_server() -> SocketAddr {
    name_server_after(Duration::ZERO).await
}

/// One that takes its time over each answer.
async fn name_server_after(delay: Duration) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
    let address = socket.local_addr().expect("bound");
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
            let mut answer = question.into_response();
            let query = answer.queries[0].clone();
            let name = query.name().to_lowercase();
            let known =
                ZONE.iter().find(|(zone, kind, _)| name.to_string() == *zone && query.query_type() == *kind);
            for text in known.map_or(&[][..], |(_, _, records)| records) {
                let data = RData::try_from_str(query.query_type(), text).expect("a record");
                answer.add_answer(Record::from_rdata(query.name().clone(), 60, data));
            }
            let bytes = answer.to_vec().expect("a message");
            tokio::time::sleep(delay).await;
            socket.send_to(&bytes, from).await.expect("sent");
        }
    });
    address
}

/// A house in which bob is a device that is reached at this contact and has not registered.
async fn house(contacts: &[(&str, u16)], config: Config) -> (House, Phone) {
    let mut house = House::with(config).await;
    let alice = Phone::new("alice", Transport::Udp);
    house.register(&alice).await;
    for (contact, q_thousandths) in contacts {
        let binding = at_fixed(contact, *q_thousandths, 0);
        let writing = house.state.bindings().update("bob@belfry.test", &[Change::Put(binding)]);
        writing.expect("room").wait().await.expect("written");
    }
    (house, alice)
}

/// A device that is reached at this contact; with a `reg-id` it is one flow of a phone that has several.
fn at_fixed(contact: &str, q_thousandths: u16, reg_id: u32) -> Binding {
    let is_flow = reg_id > 0;
    Binding {
        key: contact.to_owned(),
        contact: Pii::new(contact.to_owned()),
        q_thousandths,
        expires_unix_nanos: u64::MAX,
        updated_unix_nanos: u64::from(reg_id),
        epoch_unix_nanos: 0,
        wants_keepalive: false,
        path: Vec::new(),
        flow: None,
        transport: "udp".to_owned(),
        source: Pii::new(SocketAddr::from(([192, 0, 2, 1], 5060))),
        call_id: Pii::new("static".to_owned()),
        cseq: 1,
        instance: is_flow.then(|| "urn:uuid:1".to_owned()),
        reg_id: is_flow.then_some(reg_id),
        user_agent: None,
        region: Region::configured("eu").expect("a plain name"),
        country: None,
    }
}

async fn with_dns() -> Config {
    let dns_timeout = Duration::from_secs(10);
    Config { dns_servers: vec![name_server().await], dns_timeout, ..Config::for_test() }
}

/// The peer at an address, as the core sees what comes from it.
fn peer(address: &str) -> Phone {
    let source: SocketAddr = address.parse().expect("an address");
    Phone { user: "bob", flow: format!("flow of {address}"), transport: Transport::Udp, source }
}

async fn hear_at(house: &mut House, place: &str, method: &str) -> Heard {
    let heard = house.hear().await;
    assert_eq!((heard.flow.as_str(), heard.message.method()), (place, method), "{}", heard.text());
    heard
}

#[tokio::test]
async fn addresses_of_a_name_are_tried_in_their_order() {
    let (mut house, alice) = house(&[("sip:bob@trunk.test", 1000)], with_dns().await).await;
    let places = [
        "udp 192.0.2.101:5060 trunk.test",
        "udp 192.0.2.102:5070 trunk.test",
        "udp [2001:db8::3]:5080 trunk.test",
    ];
    house.call(&alice, "bob", "trunk-1", SDP).await;
    // The first cannot be reached, the second has no room (RFC 3263 section 4.3), the third answers.
    let first = hear_at(&mut house, places[0], "INVITE").await;
    assert_eq!(first.message.request_uri(), "sip:bob@trunk.test");
    house.fail_send(&first, SendFailure::Unreachable);
    let second = hear_at(&mut house, places[1], "INVITE").await;
    assert_ne!(first.values(HeaderName::Via)[0], second.values(HeaderName::Via)[0], "a branch of its own");
    let two = peer("192.0.2.102:5070");
    house.say(&two, &second.answer("503 Service Unavailable", "t2", ""));
    hear_at(&mut house, places[1], "ACK").await;
    let third = hear_at(&mut house, places[2], "INVITE").await;
    let three = peer("[2001:db8::3]:5080");
    let contact = "Contact: <sip:gateway@[2001:db8::3]:5080>\n";
    house.say_with(&three, &third.answer("200 OK", "t3", contact), SDP);
    let answered = house.hear_status(&alice, 200).await;
    house.until(|text| text.contains("core_dead_next_hops 2")).await;
    // The dialog goes on along the flow on which the peer was seen.
    house
        .say(&alice, &house.in_dialog(&alice, "ACK", 2, &answered, "<sip:gateway@[2001:db8::3]:5080>", None));
    hear_at(&mut house, &three.flow, "ACK").await;
    // The next call does not try in vain.
    house.call(&alice, "bob", "trunk-2", SDP).await;
    let next = hear_at(&mut house, places[2], "INVITE").await;
    house.say(&three, &next.answer("486 Busy Here", "t4", ""));
    hear_at(&mut house, places[2], "ACK").await;
    let busy = house.hear_status(&alice, 486).await;
    house.acknowledge(&alice, &busy);
    // Should the last fail as well, all are tried again: nothing is lost by it.
    house.call(&alice, "bob", "trunk-3", SDP).await;
    let next = hear_at(&mut house, places[2], "INVITE").await;
    house.fail_send(&next, SendFailure::Unreachable);
    let refused = house.hear_status(&alice, 503).await;
    house.acknowledge(&alice, &refused);
    house.call(&alice, "bob", "trunk-4", SDP).await;
    let again = hear_at(&mut house, places[0], "INVITE").await;
    house.say(&peer("192.0.2.101:5060"), &again.answer("180 Ringing", "t5", ""));
    house.hear_status(&alice, 180).await;
    house.until(|text| text.contains("core_dead_next_hops 2")).await;
}

#[tokio::test]
async fn an_address_that_answers_after_all_gets_the_call() {
    let (mut house, alice) = house(&[("sip:bob@trunk.test", 1000)], with_dns().await).await;
    house.call(&alice, "bob", "late-answer", SDP).await;
    let first = hear_at(&mut house, "udp 192.0.2.101:5060 trunk.test", "INVITE").await;
    // An edge may say that it could not send although it did.
    house.fail_send(&first, SendFailure::Unreachable);
    let place = "udp 192.0.2.102:5070 trunk.test";
    let second = hear_at(&mut house, place, "INVITE").await;
    house.say(&peer("192.0.2.102:5070"), &second.answer("180 Ringing", "t2", ""));
    house.hear_status(&alice, 180).await;
    // The transaction of the first is gone: what it says is nobody's.
    house.say(&peer("192.0.2.101:5060"), &first.answer("486 Busy Here", "t1", ""));
    assert!(house.is_quiet().await);
    house.until(|text| text.contains("core_stray_responses_total 1")).await;
}

/// A number of a trunk whose addresses are tried after two seconds of silence: the first INVITE, and the second.
async fn silent_trunk(call_id: &str) -> (House, Phone, Heard, Heard) {
    let plan = r#"
        [[tenants]]
        name = "acme"
        domains = ["belfry.test"]
        dial = { country_code = "44" }

        [[trunks]]
        name = "far"
        gateways = [{ uri = "sip:trunk.test" }]
        response_timeout_seconds = 2
    "#;
    let mut house = House::with_plan(with_dns().await, plan).await;
    let alice = Phone::new("alice", Transport::Udp);
    house.register(&alice).await;
    house.call(&alice, "+4930123", call_id, SDP).await;
    let first = hear_at(&mut house, "udp 192.0.2.101:5060 trunk.test", "INVITE").await;
    house.let_pass(Duration::from_millis(2_100)).await;
    let heard = house.hear_all().await;
    let place = "udp 192.0.2.102:5070 trunk.test";
    let second = heard.iter().find(|heard| heard.flow == place).expect("the next address").clone();
    (house, alice, first, second)
}

#[tokio::test]
async fn the_end_of_a_silent_address_ends_nothing_else() {
    for is_refused in [true, false] {
        let (mut house, alice, first, second) = silent_trunk("late-end").await;
        house.say(&peer("192.0.2.102:5070"), &second.answer("180 Ringing", "t2", ""));
        house.hear_status(&alice, 180).await;
        if is_refused {
            house.say(&peer("192.0.2.101:5060"), &first.answer("404 Not Found", "t1", ""));
            hear_at(&mut house, "udp 192.0.2.101:5060 trunk.test", "ACK").await;
            assert!(house.is_quiet().await);
        } else {
            // Timer B of the first.
            house.let_pass(Duration::from_secs(33)).await;
            assert!(house.hear_all().await.iter().all(|heard| heard.flow == first.flow));
        }
        let contact = "Contact: <sip:gateway@192.0.2.102:5070>\n";
        house.say_with(&peer("192.0.2.102:5070"), &second.answer("200 OK", "t2", contact), SDP);
        house.hear_status(&alice, 200).await;
    }
}

#[tokio::test]
async fn a_late_answer_of_a_silent_address_gets_the_call_and_the_next_is_let_go() {
    let (mut house, alice, first, second) = silent_trunk("late-yes").await;
    house.say(&peer("192.0.2.102:5070"), &second.answer("180 Ringing", "t2", ""));
    house.hear_status(&alice, 180).await;
    let contact = "Contact: <sip:gateway@192.0.2.101:5060>\n";
    house.say_with(&peer("192.0.2.101:5060"), &first.answer("200 OK", "t1", contact), SDP);
    let heard = [house.hear().await, house.hear().await];
    assert!(heard.iter().any(|heard| heard.flow == second.flow && heard.message.method() == "CANCEL"));
    assert!(heard.iter().any(|heard| heard.flow == alice.flow && heard.status() == 200));
}

#[tokio::test]
async fn a_name_that_leads_nowhere_is_an_answer() {
    let (mut house, alice) = house(&[("sip:bob@nowhere.test", 1000)], with_dns().await).await;
    house.call(&alice, "bob", "nowhere", SDP).await;
    let refused = house.hear_status(&alice, 503).await;
    house.acknowledge(&alice, &refused);
    house.until(|text| text.contains("core_call_records_total{outcome=\"written\"} 1")).await;
}

#[tokio::test]
async fn tls_is_spoken_to_the_name_and_not_to_the_address() {
    for contact in ["sips:bob@secure.test", "sip:bob@secure.test;transport=tls"] {
        let (mut house, alice) = house(&[(contact, 1000)], with_dns().await).await;
        house.call(&alice, "bob", "secure", SDP).await;
        let invite = hear_at(&mut house, "tls 192.0.2.104:5061 secure.test", "INVITE").await;
        assert!(invite.values(HeaderName::Via)[0].starts_with("SIP/2.0/TLS edge.test:5061;"));
    }
}

#[tokio::test]
async fn a_caller_that_gives_up_during_the_lookup_rings_nobody() {
    // A name server that says nothing.
    let silent = UdpSocket::bind("127.0.0.1:0").await.expect("binds");
    let dns_servers = vec![silent.local_addr().expect("bound")];
    let config = Config { dns_servers, dns_timeout: Duration::from_millis(300), ..Config::for_test() };
    let (mut house, alice) = house(&[("sip:bob@trunk.test", 1000)], config).await;
    house.call(&alice, "bob", "silent-dns", SDP).await;
    let cancel = alice
        .invite("bob", "silent-dns", 2, "")
        .replace("INVITE ", "CANCEL ")
        .replace("2 INVITE", "2 CANCEL");
    house.say(&alice, &cancel);
    house.hear_status(&alice, 200).await;
    let terminated = house.hear_status(&alice, 487).await;
    house.acknowledge(&alice, &terminated);
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(house.is_quiet().await);
    // Without a caller that gives up it takes only so long.
    house.call(&alice, "bob", "silent-dns-2", SDP).await;
    house.hear_status(&alice, 503).await;
}

#[tokio::test]
async fn a_look_up_that_comes_too_late_sends_nothing_more() {
    // Bob's phone has two flows; the name of the first is found only after its time is over and the second was tried.
    let server = name_server_after(Duration::from_millis(1_200)).await;
    let config = Config {
        dns_servers: vec![server],
        dns_timeout: Duration::from_secs(4),
        fork_ring_timeout: Duration::from_secs(1),
        ..Config::for_test()
    };
    let (mut house, alice) = house(&[], config).await;
    let changes = [
        Change::Put(at_fixed("sip:bob@secure.test", 1000, 2)),
        Change::Put(at_fixed("sip:bob@192.0.2.108", 1000, 1)),
        Change::Put(at_fixed("sip:bob@192.0.2.109", 100, 0)),
    ];
    house.state.bindings().update("bob@belfry.test", &changes).expect("room").wait().await.expect("written");
    house.call(&alice, "bob", "late-lookup", SDP).await;
    let second = hear_at(&mut house, "udp 192.0.2.108:5060 192.0.2.108", "INVITE").await;
    house.say(&peer("192.0.2.108:5060"), &second.answer("180 Ringing", "t", ""));
    house.hear_status(&alice, 180).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let others = house.hear_all().await;
    assert!(others.iter().all(|heard| !heard.flow.contains("192.0.2.104")), "{others:?}");
}

#[tokio::test]
async fn a_peer_rings_only_so_long() {
    let (mut house, alice) = house(&[("sip:bob@trunk.test", 1000)], with_dns().await).await;
    house.call(&alice, "bob", "ring-c", SDP).await;
    let place = "udp 192.0.2.101:5060 trunk.test";
    let invite = hear_at(&mut house, place, "INVITE").await;
    house.say(&peer("192.0.2.101:5060"), &invite.answer("180 Ringing", "t1", ""));
    house.hear_status(&alice, 180).await;
    // Timer C counts from when it was sent, which was after the lookup.
    house.let_pass(Duration::from_secs(181)).await;
    let heard = house.hear_all().await;
    assert!(heard.iter().any(|heard| heard.flow == place && heard.message.method() == "CANCEL"));
    assert!(heard.iter().any(|heard| heard.flow == alice.flow && heard.status() == 408));
}

#[tokio::test]
async fn silence_leads_on_and_is_remembered() {
    let contacts = [("sip:bob@192.0.2.105", 900), ("sip:bob@192.0.2.106:5062", 500)];
    let (mut house, alice) =
        house(&contacts, Config { fork_ring_timeout: Duration::from_secs(60), ..Config::for_test() }).await;
    house.call(&alice, "bob", "silence", SDP).await;
    let (first, second) = ("udp 192.0.2.105:5060 192.0.2.105", "udp 192.0.2.106:5062 192.0.2.106");
    house.let_pass(Duration::from_millis(31_500)).await;
    let heard = house.hear_all().await;
    assert!(heard.iter().all(|heard| heard.flow == first) && heard.len() >= 6, "repeated until Timer B");
    house.let_pass(Duration::from_millis(900)).await;
    let heard = house.hear_all().await;
    let found = heard.iter().find(|heard| heard.flow == second).expect("64 * T1 are over");
    let two = peer("192.0.2.106:5062");
    house.say_with(&two, &found.answer("200 OK", "t", "Contact: <sip:bob@192.0.2.106:5062>\n"), SDP);
    house.hear_status(&alice, 200).await;
    house.until(|text| text.contains("core_dead_next_hops 1")).await;
}

#[tokio::test]
async fn after_a_restart_the_route_names_the_peer() {
    let (mut house, alice) = house(&[("sip:bob@192.0.2.107:5066", 1000)], Config::for_test()).await;
    house.call(&alice, "bob", "restarted", SDP).await;
    let place = "udp 192.0.2.107:5066 192.0.2.107";
    let invite = hear_at(&mut house, place, "INVITE").await;
    let bob = peer("192.0.2.107:5066");
    let contact = "<sip:bob@192.0.2.107:5066>";
    house.say_with(&bob, &invite.answer("200 OK", "t", &format!("Contact: {contact}\n")), SDP);
    let answered = house.hear_status(&alice, 200).await;
    house.restart().await;
    house.until(|text| text.contains("core_relays 1")).await;
    let ack = house.in_dialog(&alice, "ACK", 2, &answered, contact, None);
    house.say(&alice, &ack);
    hear_at(&mut house, place, "ACK").await;
    house.say(&alice, &house.in_dialog(&alice, "BYE", 3, &answered, contact, None));
    hear_at(&mut house, place, "BYE").await;
    // Nobody makes such a Route for a place of their own choice.
    let forged =
        house.in_dialog(&alice, "BYE", 4, &answered, contact, None).replace("192.0.2.107~", "192.0.2.66~");
    house.say(&alice, &forged);
    let heard = house.hear().await;
    assert_ne!(heard.message.method(), "BYE-TO-ELSEWHERE");
    assert!(!heard.flow.contains("192.0.2.66 ") && !heard.flow.starts_with("udp "), "{}", heard.flow);
}
