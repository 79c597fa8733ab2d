//! What of the daily round of phones is told, and that nothing that went badly is kept quiet.

use belfry_signal::record::Body;

use super::house::{House, PASSWORD, Phone, authorize};
use crate::config::Config;
use crate::handle::Transport;

/// So rare that no test meets it.
const HARDLY_EVER: u32 = u32::MAX;

/// The messages and spans that were emitted since the last look, as `REGISTER`, `401` or `span`.
fn told(house: &mut House) -> Vec<String> {
    let one = |body| match body {
        Body::Sip(message) => Some(message.summary.into_owned()),
        Body::Span(_) => Some("span".to_owned()),
        _ => None,
    };
    house.emitted().into_iter().filter_map(one).collect()
}

async fn house(trace_one_in: u32) -> House {
    House::with(Config { trace_one_in, ..Config::for_test() }).await
}

/// Registers with a password; gives the final status.
async fn register(house: &mut House, phone: &Phone, call_id: &str, password: &str) -> u16 {
    house.say(phone, &phone.register(call_id, 1, ""));
    let challenged = house.hear_status(phone, 401).await;
    let authorization = authorize(&challenged, phone.user, password, "REGISTER", "sip:belfry.test");
    house.say(phone, &phone.register(call_id, 2, &authorization));
    house.hear().await.status()
}

#[tokio::test]
async fn routine_registrations_are_counted_and_not_told() {
    let phone = Phone::new("alice", Transport::Udp);
    let mut house = house(HARDLY_EVER).await;
    assert_eq!(register(&mut house, &phone, "good", PASSWORD).await, 200);
    assert_eq!(told(&mut house), Vec::<String>::new());
    assert_eq!(house.metric("core_registrations_total{outcome=\"bound\",region=\"eu\"}"), Some(1.0));
}

#[tokio::test]
async fn a_refused_registration_is_told_with_its_request() {
    let phone = Phone::new("alice", Transport::Udp);
    let mut house = house(HARDLY_EVER).await;
    assert_eq!(register(&mut house, &phone, "bad", "wrong").await, 403);
    assert_eq!(told(&mut house), ["REGISTER", "span", "403"]);
}

#[tokio::test]
async fn a_repeat_is_told() {
    let phone = Phone::new("alice", Transport::Udp);
    let mut house = house(HARDLY_EVER).await;
    for _ in 0..2 {
        house.say(&phone, &phone.register("again", 1, ""));
        house.hear_status(&phone, 401).await;
    }
    assert_eq!(told(&mut house), ["REGISTER", "401"]);
}

#[tokio::test]
async fn everything_is_told_when_one_in_one_is() {
    let phone = Phone::new("alice", Transport::Udp);
    let mut house = house(1).await;
    assert_eq!(register(&mut house, &phone, "all", PASSWORD).await, 200);
    let mut told = told(&mut house);
    told.sort();
    assert_eq!(told, ["200", "401", "REGISTER", "REGISTER", "span", "span"]);
}
