//! REGISTER from a phone's point of view (RFC 3261 section 10).

mod contacts;
mod gruu;
mod guarding;
mod outbound;
mod reachable;

use std::time::Duration;

use belfry_signal::{Journey, now_unix_nanos};
use belfry_sip_proto::HeaderName;

use super::house::{House, PASSWORD, Phone, authorize};
use crate::handle::Transport;

/// What the register journey has counted: good and bad.
fn journey(house: &House) -> (u64, u64) {
    let counts = house.registry.journeys().counts();
    let found = counts.iter().find(|count| count.journey == Journey::Register);
    found.map_or((0, 0), |count| (count.good, count.bad))
}

/// Registers with these extra headers after a challenge; gives the final answer's status and text.
async fn attempt(house: &mut House, phone: &Phone, call_id: &str, cseq: u32, extra: &str) -> (u16, String) {
    house.say(phone, &phone.register(call_id, cseq, extra));
    let challenged = house.hear_status(phone, 401).await;
    let authorization = authorize(&challenged, phone.user, PASSWORD, "REGISTER", "sip:belfry.test");
    let all = format!("{authorization}{extra}");
    house.say(phone, &phone.register(call_id, cseq + 1, &all));
    let answer = house.hear().await;
    (answer.status(), answer.text())
}

#[tokio::test]
async fn a_phone_registers_with_digest_over_every_transport() {
    let mut house = House::new().await;
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Wss] {
        let phone = Phone::new("alice", transport);
        let registered = house.register(&phone).await;
        let contact = phone.contact();
        assert!(
            registered.text().contains(&format!("Contact: {contact};expires=600")),
            "{}",
            registered.text()
        );
        assert!(registered.header(HeaderName::Via).contains(&format!("rport={}", phone.source.port())));
    }
    assert_eq!(house.state.bindings().get("alice@belfry.test", now_unix_nanos()).len(), 4);
    // A challenge is half of an exchange and counts for nothing.
    assert_eq!(journey(&house), (4, 0));
    assert_eq!(house.metric("core_registrations_total{outcome=\"challenged\",region=\"eu\"}"), Some(4.0));
}

#[tokio::test]
async fn both_digest_algorithms_are_offered() {
    let mut house = House::new().await;
    let phone = Phone::new("alice", Transport::Udp);
    house.say(&phone, &phone.register("both", 1, ""));
    let challenged = house.hear_status(&phone, 401).await;
    let challenges = challenged.values(HeaderName::WwwAuthenticate);
    assert_eq!(challenges.len(), 2);
    assert!(
        challenges[0].contains("algorithm=SHA-256") && challenges[1].contains("algorithm=MD5"),
        "{challenges:?}"
    );
}

#[tokio::test]
async fn wrong_customers_are_refused_and_nobody_is_to_blame() {
    let mut house = House::new().await;
    let phone = Phone::new("alice", Transport::Tcp);
    let cases = [("alice", "wrong"), ("nobody", PASSWORD), ("bob", PASSWORD)];
    for (number, (user, password)) in (1..).zip(cases) {
        let call_id = format!("wrong-{number}");
        house.say(&phone, &phone.register(&call_id, 1, ""));
        let challenged = house.hear_status(&phone, 401).await;
        let authorization = authorize(&challenged, user, password, "REGISTER", "sip:belfry.test");
        house.say(&phone, &phone.register(&call_id, 2, &authorization));
        house.hear_status(&phone, 403).await;
    }
    assert_eq!(journey(&house), (3, 0));
    let foreign = phone.register("foreign", 1, "").replace("belfry.test", "elsewhere.test");
    house.say(&phone, &foreign);
    house.hear_status(&phone, 404).await;
}

#[tokio::test]
async fn contacts_are_fetched_shortened_and_removed() {
    let mut house = House::new().await;
    let phone = Phone::new("bob", Transport::Tls);
    house.register(&phone).await;
    let (status, text) = attempt(&mut house, &phone, "fetch", 1, "").await;
    assert!(status == 200 && text.contains("Contact: <sip:bob@"), "{text}");
    let short = format!("Contact: {};expires=3\n", phone.contact());
    let (status, text) = attempt(&mut house, &phone, "short", 1, &short).await;
    assert!(status == 423 && text.contains("Min-Expires: 10"), "{text}");
    let long = format!("Contact: {};q=0.5\nExpires: 999999\n", phone.contact());
    let (_, text) = attempt(&mut house, &phone, "long", 1, &long).await;
    assert!(text.contains(";expires=3600;q=0.500"), "{text}");
    // The same Call-ID may only count upwards (step 7).
    let (status, _) = attempt(&mut house, &phone, "long", 0, &long).await;
    assert_eq!(status, 500);
    let (status, _) = attempt(&mut house, &phone, "star", 1, "Contact: *\nExpires: 60\n").await;
    assert_eq!(status, 400);
    let (status, text) = attempt(&mut house, &phone, "star", 3, "Contact: *\nExpires: 0\n").await;
    assert!(status == 200 && !text.contains("Contact:"), "{text}");
    assert_eq!(journey(&house).1, 0);
}

#[tokio::test]
async fn one_customer_cannot_fill_the_store() {
    let mut house = House::new().await;
    let phone = Phone::new("carol", Transport::Tcp);
    let contacts: Vec<String> = (0..5).map(|number| format!("<sip:c@192.0.2.{number}>")).collect();
    let (status, _) =
        attempt(&mut house, &phone, "many", 1, &format!("Contact: {}\n", contacts.join(", "))).await;
    assert_eq!(status, 403);
    assert!(house.state.bindings().is_empty());
}

#[tokio::test]
async fn outbound_registrations_replace_themselves_and_die_with_their_flow() {
    let mut house = House::new().await;
    let extra = |uri: &str| {
        format!("Supported: path, outbound\nContact: <{uri}>;+sip.instance=\"<urn:uuid:1>\";reg-id=1\n")
    };
    let first = Phone::new("alice", Transport::Wss);
    let (_, text) = attempt(&mut house, &first, "a", 1, &extra("sip:alice@one.invalid")).await;
    assert!(text.contains("Require: outbound") && text.contains("reg-id=1"), "{text}");
    let second = Phone { flow: "another-flow".to_owned(), ..first.clone() };
    let (_, text) = attempt(&mut house, &second, "b", 1, &extra("sip:alice@two.invalid")).await;
    assert!(!text.contains("one.invalid") && text.contains("two.invalid"), "{text}");
    house.close_flow(&first);
    let (_, text) = attempt(&mut house, &second, "c", 1, "").await;
    assert!(text.contains("two.invalid"), "the old flow is not the binding's any more: {text}");
    house.close_flow(&second);
    let (_, text) = attempt(&mut house, &first, "d", 1, "").await;
    assert!(!text.contains("Contact:"), "{text}");
}

#[tokio::test]
async fn repeated_registers_are_answered_from_state() {
    let mut house = House::new().await;
    let phone = Phone::new("alice", Transport::Udp);
    let request = phone.register("again", 1, "");
    house.say(&phone, &request);
    let first = house.hear_status(&phone, 401).await;
    house.say(&phone, &request);
    let second = house.hear_status(&phone, 401).await;
    assert_eq!(first.text(), second.text());
    assert_eq!(house.metric("core_challenges_total"), Some(1.0));
    assert_eq!(house.metric("core_retransmissions_total{direction=\"received\"}"), Some(1.0));
}

#[tokio::test]
async fn a_slow_registrar_counts_as_bad() {
    let config = crate::Config { register_slow: Duration::from_millis(20), ..crate::Config::for_test() };
    let mut house = House::with(config).await;
    let phone = Phone::new("alice", Transport::Tcp);
    house.faults.set_register_delay(Duration::from_millis(30));
    house.register(&phone).await;
    assert_eq!(journey(&house), (0, 1));
    let line = "journey_failures_total{cause=\"slow\",journey=\"register\",region=\"eu\",room=\"core\"}";
    assert_eq!(house.metric(line), Some(1.0));
    house.faults.set_register_delay(Duration::ZERO);
    let (status, _) = attempt(&mut house, &phone, "quick", 1, "").await;
    assert_eq!(status, 200);
}
