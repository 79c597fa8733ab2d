//! Wrong passwords: slowed down, turned away, and nobody else with them.

use std::net::IpAddr;
use std::time::Duration;

use super::super::house::{House, PASSWORD, Phone, authorize};
use crate::config::BannedAnswer;
use crate::handle::Transport;
use crate::{Config, GuardConfig};

fn patient() -> GuardConfig {
    GuardConfig {
        delay_first: Duration::from_millis(1),
        delay_max: Duration::from_millis(2),
        ..Config::for_test().guard
    }
}

fn at(user: &'static str, address: &str) -> Phone {
    let phone = Phone::new(user, Transport::Tcp);
    let ip: IpAddr = address.parse().expect("an address");
    Phone { flow: format!("{user}-{address}"), source: (ip, phone.source.port()).into(), ..phone }
}

/// Registers with a password; the final status.
async fn register(house: &mut House, phone: &Phone, call_id: &str, password: &str) -> u16 {
    house.say(phone, &phone.register(call_id, 1, ""));
    let challenged = house.hear().await;
    if challenged.status() != 401 {
        return challenged.status();
    }
    let authorization = authorize(&challenged, phone.user, password, "REGISTER", "sip:belfry.test");
    let contact = format!("Contact: {}\n", phone.contact());
    house.say(phone, &phone.register(call_id, 2, &format!("{contact}{authorization}")));
    house.hear().await.status()
}

/// Registers for so many seconds; the final status.
async fn register_for(house: &mut House, phone: &Phone, call_id: &str, seconds: u32) -> u16 {
    house.say(phone, &phone.register(call_id, 1, ""));
    let challenged = house.hear_status(phone, 401).await;
    let authorization = authorize(&challenged, phone.user, PASSWORD, "REGISTER", "sip:belfry.test");
    let extra = format!("Contact: {}\nExpires: {seconds}\n{authorization}", phone.contact());
    house.say(phone, &phone.register(call_id, 2, &extra));
    house.hear().await.status()
}

#[tokio::test]
async fn whoever_guesses_is_turned_away_and_the_customer_is_not() {
    let mut house = House::with(Config { guard: patient(), ..Config::for_test() }).await;
    let (thief, alice) = (at("alice", "192.0.2.66"), at("alice", "192.0.2.7"));
    for number in 0..6 {
        assert_eq!(register(&mut house, &thief, &format!("g{number}"), "guess").await, 403);
    }
    assert_eq!(house.metric("core_bans_total{scope=\"user\"}"), Some(1.0));
    assert_eq!(house.metric("core_wrong_credentials_total"), Some(6.0));
    assert_eq!(register(&mut house, &thief, "found", PASSWORD).await, 403, "too late to be right");
    assert_eq!(house.metric("core_banned_requests_total"), Some(1.0));
    assert_eq!(register(&mut house, &alice, "home", PASSWORD).await, 200);
    // Other users from there are let in until the whole address has guessed too often.
    assert_eq!(register(&mut house, &at("bob", "192.0.2.66"), "bob", PASSWORD).await, 200);
    for number in 0..5 {
        register(&mut house, &at("carol", "192.0.2.66"), &format!("c{number}"), "guess").await;
    }
    assert_eq!(house.metric("core_bans_total{scope=\"source\"}"), Some(1.0));
    assert_eq!(register(&mut house, &at("carol", "192.0.2.66"), "c", PASSWORD).await, 403);
    // Bob is registered from there: he is no stranger.
    assert_eq!(register(&mut house, &at("bob", "192.0.2.66"), "bob-again", PASSWORD).await, 200);
    let bans = house.core.bans().await;
    assert_eq!(bans.iter().filter(|ban| ban.is_whole_source).count(), 1, "{bans:?}");
    assert!(house.core.pardon("192.0.2.66".parse().expect("an address")).await);
    assert_eq!(register(&mut house, &at("carol", "192.0.2.66"), "c-again", PASSWORD).await, 200);
    assert!(house.core.bans().await.is_empty());
}

#[tokio::test]
async fn edges_are_told_whom_to_turn_away() {
    let guard = GuardConfig { source_failures_max: 3, user_failures_max: 100, ..patient() };
    let plan = "[[trunks]]\nname = \"one\"\ngateways = [{ uri = \"sip:192.0.2.201\" }]\n\
                accept_networks = [\"203.0.113.0/28\", \"2001:db8:7:7::9/128\"]\n";
    let mut house = House::with_plan(Config { guard, ..Config::for_test() }, plan).await;
    let guess = async |house: &mut House, address: &str| {
        for number in 0..3 {
            register(house, &at("alice", address), &format!("{address}-{number}"), "guess").await;
        }
        house.orders()
    };
    let network = |address: &str| address.parse::<IpAddr>().expect("an address");
    assert_eq!(guess(&mut house, "192.0.2.66").await, [(network("192.0.2.66"), 60, true)]);
    assert_eq!(guess(&mut house, "2001:db8:6:6::1").await, [(network("2001:db8:6:6::"), 60, true)]);
    // Who shares a network with a trunk is our own business: the edge knows no trunks.
    assert_eq!(guess(&mut house, "2001:db8:7:7::1").await, []);
    assert_eq!(house.core.bans().await.iter().filter(|ban| ban.is_whole_source).count(), 3);
    // An edge that comes later learns it too.
    house.change_edge().await;
    let mut told = Vec::new();
    while told.len() < 2 {
        assert!(house.is_quiet().await);
        told.extend(house.orders());
    }
    assert!(told.iter().all(|(_, seconds, _)| (55..=60).contains(seconds)), "{told:?}");
    assert!(house.core.pardon(network("192.0.2.66")).await);
    assert!(house.is_quiet().await);
    assert_eq!(house.orders(), [(network("192.0.2.66"), 0, true)]);
    // Whatever this core knows: the ban may be another's.
    assert!(!house.core.pardon(network("192.0.2.66")).await);
    assert!(house.is_quiet().await);
    assert_eq!(house.orders(), [(network("192.0.2.66"), 0, true)]);
}

#[tokio::test]
async fn edges_are_not_told_of_networks_where_customers_are_registered() {
    let guard = GuardConfig { source_failures_max: 3, user_failures_max: 100, ..patient() };
    let mut house = House::with(Config { guard, ..Config::for_test() }).await;
    let neighbour = at("bob", "192.0.2.66");
    assert_eq!(register(&mut house, &neighbour, "home", PASSWORD).await, 200);
    for number in 0..3 {
        register(&mut house, &at("alice", "192.0.2.66"), &format!("g{number}"), "guess").await;
    }
    assert_eq!(house.core.bans().await.len(), 1);
    assert!(house.is_quiet().await);
    assert_eq!(house.orders(), []);
    // The last of them goes, and there are only strangers.
    assert_eq!(register_for(&mut house, &neighbour, "home-2", 0).await, 200);
    for _ in 0..100 {
        assert!(house.is_quiet().await);
        if let [(network, 1..=60, true)] = house.orders()[..] {
            assert_eq!(network, "192.0.2.66".parse::<IpAddr>().expect("an address"));
            return;
        }
    }
    panic!("the edge is told nothing");
}

#[tokio::test]
async fn edges_are_told_anew_when_trunks_change() {
    let guard = GuardConfig { source_failures_max: 3, user_failures_max: 100, ..patient() };
    let plan = "[[trunks]]\nname = \"one\"\ngateways = [{ uri = \"sip:192.0.2.201\" }]\n\
                accept_networks = [\"203.0.113.0/28\"]\n";
    let mut house = House::with_plan(Config { guard, ..Config::for_test() }, plan).await;
    for number in 0..3 {
        register(&mut house, &at("alice", "203.0.113.5"), &format!("g{number}"), "guess").await;
    }
    assert!(house.is_quiet().await);
    assert_eq!((house.orders(), house.core.bans().await.len()), (Vec::new(), 1));
    house.core.reroute(belfry_routing::Plan::default()).await.expect("a plan");
    for _ in 0..100 {
        assert!(house.is_quiet().await);
        if let [(_, 1..=60, true)] = house.orders()[..] {
            return;
        }
    }
    panic!("the edge is told nothing");
}

#[tokio::test]
async fn refusals_come_later_and_later_and_right_answers_at_once() {
    let guard = GuardConfig {
        delay_first: Duration::from_millis(150),
        delay_max: Duration::from_secs(9),
        ..patient()
    };
    let mut house = House::with(Config { guard, ..Config::for_test() }).await;
    let thief = at("alice", "192.0.2.66");
    for number in 0..2 {
        assert_eq!(register(&mut house, &thief, &format!("g{number}"), "guess").await, 403);
    }
    let other = at("bob", "192.0.2.66");
    house.say(&thief, &thief.register("slow", 1, ""));
    let challenged = house.hear_status(&thief, 401).await;
    let authorization = authorize(&challenged, "alice", "guess", "REGISTER", "sip:belfry.test");
    house.say(&thief, &thief.register("slow", 2, &authorization));
    assert_eq!(register(&mut house, &other, "quick", PASSWORD).await, 200, "nobody waits for the refusal");
    house.hear_status(&thief, 403).await;
}

#[tokio::test]
async fn callers_are_guarded_as_well_and_bans_can_be_silent() {
    let guard = GuardConfig { banned: BannedAnswer::Drop, source_failures_max: 3, ..patient() };
    let mut house = House::with(Config { guard, ..Config::for_test() }).await;
    let thief = at("alice", "192.0.2.66");
    for number in 0..3 {
        let call_id = format!("call-{number}");
        house.say(&thief, &thief.invite("bob", &call_id, 1, ""));
        house.hear_status(&thief, 100).await;
        let challenged = house.hear_status(&thief, 407).await;
        house.acknowledge(&thief, &challenged);
        let authorization = authorize(&challenged, "alice", "guess", "INVITE", "sip:bob@belfry.test");
        house.say(&thief, &thief.invite("bob", &call_id, 2, &authorization));
        house.hear_status(&thief, 100).await;
        let denied = house.hear_status(&thief, 403).await;
        house.acknowledge(&thief, &denied);
    }
    house.say(&thief, &thief.register("silence", 1, ""));
    assert!(house.is_quiet().await);
    assert_eq!(house.metric("core_banned_requests_total"), Some(1.0));
}

#[tokio::test]
async fn credentials_are_for_what_they_say() {
    let mut house = House::new().await;
    let alice = Phone::new("alice", Transport::Tcp);
    // What phones write into the digest-uri of a call to bob, and whether it is meant.
    let cases = [
        ("sip:bob@belfry.test", true),
        ("sip:bob@edge.test:5060;transport=tcp", true),
        ("sip:edge.test:5060", true),
        ("sip:198.51.100.7:5060", true),
        ("sip:carol@belfry.test", false),
        ("sip:bob@elsewhere.test", false),
        ("nonsense", false),
    ];
    for (number, (uri, is_meant)) in cases.into_iter().enumerate() {
        let call_id = format!("uri-{number}");
        house.say(&alice, &alice.invite("bob", &call_id, 1, ""));
        house.hear_status(&alice, 100).await;
        let challenged = house.hear_status(&alice, 407).await;
        house.acknowledge(&alice, &challenged);
        let authorization = authorize(&challenged, "alice", PASSWORD, "INVITE", uri);
        house.say(&alice, &alice.invite("bob", &call_id, 2, &authorization));
        house.hear_status(&alice, 100).await;
        let answer = house.hear().await;
        assert_eq!(answer.status(), if is_meant { 480 } else { 400 }, "{uri}");
        house.acknowledge(&alice, &answer);
    }
}

#[tokio::test]
async fn nobody_is_banned_by_who_writes_his_address_into_datagrams() {
    let guard = GuardConfig { source_failures_max: 3, ..patient() };
    let plan = r#"
        [[trunks]]
        name = "carrier"
        gateways = [{ uri = "sip:192.0.2.201" }]
        accept_networks = ["198.51.100.0/24"]
    "#;
    let mut house = House::with_plan(Config { guard, ..Config::for_test() }, plan).await;
    let thief = at("alice", "192.0.2.66");
    house.say(&thief, &thief.register("heard", 1, ""));
    let challenged = house.hear_status(&thief, 401).await;
    let authorization = authorize(&challenged, "alice", "guess", "REGISTER", "sip:belfry.test");
    let victim = at("alice", "192.0.2.7");
    for number in 0..9 {
        house.say(&victim, &victim.register(&format!("forged-{number}"), 1, &authorization));
        house.hear_status(&victim, 401).await;
    }
    assert_eq!(house.metric("core_wrong_credentials_total"), Some(0.0));
    assert_eq!(register(&mut house, &victim, "home", PASSWORD).await, 200);
    // A trunk whose phones guess, or so it seems, calls all the same.
    let carrier = at("carol", "198.51.100.7");
    for number in 0..3 {
        assert_eq!(register(&mut house, &carrier, &format!("c{number}"), "guess").await, 403);
    }
    assert_eq!(house.metric("core_bans_total{scope=\"source\"}"), Some(1.0));
    house.say(&carrier, &carrier.invite("alice", "in", 1, ""));
    house.hear_status(&carrier, 100).await;
    house.hear_request(&victim, "INVITE").await;
}

#[tokio::test]
async fn a_tag_in_to_takes_no_register_past_a_ban() {
    let guard = GuardConfig { source_failures_max: 1, ..patient() };
    let mut house = House::with(Config { guard, ..Config::for_test() }).await;
    let thief = at("alice", "192.0.2.66");
    assert_eq!(register(&mut house, &thief, "guess", "guess").await, 403);
    let to = "To: <sip:alice@belfry.test>";
    let tagged = thief.register("tagged", 1, "").replace(to, &format!("{to};tag=x"));
    house.say(&thief, &tagged);
    house.hear_status(&thief, 403).await;
    assert_eq!(house.metric("core_banned_requests_total"), Some(1.0));
}
