//! Phones behind NATs are asked now and then, and removed when they do not answer any more.

use std::time::Duration;

use super::super::house::{House, Phone};
use super::attempt;
use crate::handle::Transport;
use crate::{Config, KeepAliveConfig};

fn eager() -> Config {
    let keepalive =
        KeepAliveConfig { interval: Duration::from_secs(1), per_second_max: 10, unanswered_max: 2 };
    Config { keepalive, expires_default: Duration::from_secs(600), ..Config::for_test() }
}

#[tokio::test]
async fn phones_behind_nats_are_asked_and_the_silent_removed() {
    let mut house = House::with(eager()).await;
    let hidden = Phone::new("alice", Transport::Udp);
    let private = "Contact: <sip:alice@10.0.0.5:5060>";
    assert_eq!(attempt(&mut house, &hidden, "a", 1, private).await.0, 200);
    // Neither an open phone nor a connection needs it.
    house.register(&Phone::new("bob", Transport::Udp)).await;
    let tcp = Phone::new("carol", Transport::Tcp);
    assert_eq!(attempt(&mut house, &tcp, "c", 1, "Contact: <sip:carol@10.0.0.6>").await.0, 200);
    tokio::time::pause();
    // Who never answered may be deaf to it and stays.
    for _ in 0..5 {
        let asked = house.hear_request(&hidden, "OPTIONS").await;
        assert_eq!(asked.message.request_uri(), "sip:alice@10.0.0.5:5060");
    }
    let asked = house.hear_request(&hidden, "OPTIONS").await;
    house.say(&hidden, &asked.answer("404 Not Found", "", ""));
    // A forged answer is nobody's.
    let forged = asked.answer("200 OK", "", "").replace("z9hG4bKalive00000000", "z9hG4bKalive00000001");
    house.say(&hidden, &forged);
    for _ in 0..2 {
        house.hear_request(&hidden, "OPTIONS").await;
    }
    let line = "core_bindings_lost_total{reason=\"unanswered\"} 1";
    house.until(|text| text.contains(line)).await;
    assert_eq!(house.state.bindings().len(), 2);
    assert_eq!(house.metric("core_keepalives_total{step=\"answered\"}"), Some(1.0));
    assert_eq!(house.metric("core_stray_responses_total"), Some(0.0), "no keep-alive is a stray");
}

#[tokio::test]
async fn an_edge_that_is_away_is_not_the_phones_silence() {
    let mut house = House::with(eager()).await;
    let mut ends = house.change_edge().await;
    let hidden = Phone::new("alice", Transport::Udp);
    let private = "Contact: <sip:alice@10.0.0.5:5060>";
    assert_eq!(attempt(&mut house, &hidden, "a", 1, private).await.0, 200);
    let asked = house.hear_request(&hidden, "OPTIONS").await;
    house.say(&hidden, &asked.answer("200 OK", "", ""));
    house.until(|text| text.contains("core_keepalives_total{step=\"answered\"} 1")).await;
    house.use_edge(&mut ends);
    house.lose_edge(ends).await;
    house.let_pass(Duration::from_secs(6)).await;
    assert_eq!(house.state.bindings().len(), 1);
    assert_eq!(house.metric("core_bindings_lost_total{reason=\"unanswered\"}").unwrap_or_default(), 0.0);
}

#[tokio::test]
async fn keepalives_have_a_budget() {
    let keepalive = KeepAliveConfig { per_second_max: 1, ..eager().keepalive };
    let mut house = House::with(Config { keepalive, ..eager() }).await;
    let phone = Phone::new("alice", Transport::Udp);
    let three = "Contact: <sip:alice@10.0.0.5>, <sip:alice@10.0.0.6>, <sip:alice@10.0.0.7>";
    assert_eq!(attempt(&mut house, &phone, "a", 1, three).await.0, 200);
    tokio::time::pause();
    let mut asked = Vec::new();
    for _ in 0..6 {
        asked.push(house.hear_request(&phone, "OPTIONS").await.message.request_uri().to_owned());
    }
    let mut first = asked[..3].to_vec();
    first.sort();
    assert_eq!(first, ["sip:alice@10.0.0.5", "sip:alice@10.0.0.6", "sip:alice@10.0.0.7"]);
    assert_eq!(asked[..3], asked[3..], "each has its turn");
    assert!(house.metric("core_keepalives_total{step=\"late\"}") >= Some(10.0));
}
