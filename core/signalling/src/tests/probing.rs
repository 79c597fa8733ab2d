//! OPTIONS to trunks: who is down is left out while others are up.

use std::collections::HashSet;
use std::time::Duration;

use belfry_sip_proto::HeaderName;

use super::house::{Heard, House, Phone, SDP};
use crate::Config;
use crate::handle::{SendFailure, Transport};

const PLAN: &str = r#"
    [[tenants]]
    name = "acme"
    domains = ["belfry.test"]
    dial = { country_code = "44" }

    [[trunks]]
    name = "one"
    gateways = [{ uri = "sip:192.0.2.201" }]
    cost = "0.01"
    response_timeout_seconds = 2
    probe = { interval_seconds = 5, failures = 2, successes = 2 }

    [[trunks]]
    name = "two"
    gateways = [{ uri = "sip:192.0.2.202;transport=udp" }]
    cost = "0.02"
    response_timeout_seconds = 2
    probe = { interval_seconds = 5, failures = 2, successes = 2 }

    [[trunks]]
    name = "unasked"
    gateways = [{ uri = "sip:192.0.2.203" }]
    cost = "0.03"
"#;

fn at(number: u8) -> String {
    format!("udp 192.0.2.{number}:5060 192.0.2.{number}")
}

fn peer(number: u8) -> Phone {
    let source = std::net::SocketAddr::from(([192, 0, 2, number], 5060));
    Phone { user: "carrier", flow: format!("flow of {number}"), transport: Transport::Udp, source }
}

/// What a gateway does when it is asked.
#[derive(Clone, Copy)]
enum Does {
    Says(&'static str),
    Nothing,
    CannotBeReached,
}
use Does::{CannotBeReached, Nothing, Says};

/// Both gateways have their turn once; gives every different question that was heard.
async fn round(house: &mut House, does: [Does; 2]) -> Vec<Heard> {
    let mut asked: Vec<Heard> = Vec::new();
    let mut branches = HashSet::new();
    for _ in 0..5 {
        house.let_pass(Duration::from_secs(1)).await;
        for heard in house.hear_all().await {
            if heard.message.method() != "OPTIONS"
                || !branches.insert(heard.values(HeaderName::Via)[0].clone())
            {
                continue;
            }
            let gateway = [201, 202].into_iter().position(|number| heard.flow == at(number)).expect("known");
            match does[gateway] {
                Says(status) => house.say(&peer(201 + gateway as u8), &heard.answer(status, "t", "")),
                Nothing => {}
                CannotBeReached => house.fail_send(&heard, SendFailure::Unreachable),
            }
            asked.push(heard);
        }
    }
    asked
}

async fn states(house: &House) -> Vec<bool> {
    house.core.gateways().await.into_iter().map(|gateway| gateway.is_down).collect()
}

/// The first trunk that a call is tried on.
async fn first_tried(house: &mut House, alice: &Phone, number: &str, call_id: &str) -> String {
    house.call(alice, number, call_id, SDP).await;
    loop {
        let heard = house.hear().await;
        if heard.message.method() == "INVITE" {
            let status = heard.answer("486 Busy Here", "t", "");
            house.say(&Phone { flow: "flow".to_owned(), ..peer(201) }, &status);
            house.until(|text| text.contains("core_live_calls 0")).await;
            house.hear_all().await;
            return heard.flow;
        }
    }
}

async fn house() -> (House, Phone) {
    let mut house = House::with_plan(Config::for_test(), PLAN).await;
    let alice = Phone::new("alice", Transport::Udp);
    house.register(&alice).await;
    (house, alice)
}

#[tokio::test]
async fn gateways_are_asked_in_plain_sip_and_leave_nothing_in_the_ladder() {
    let (mut house, _) = house().await;
    house.emitted();
    let asked = round(&mut house, [Says("200 OK"), Says("405 Method Not Allowed")]).await;
    assert_eq!(asked.len(), 2, "once each, and nobody who is not to be asked");
    for heard in &asked {
        heard.message.check().expect("the core speaks SIP as it should be");
        let uri = heard.message.request_uri();
        assert!(uri.starts_with("sip:192.0.2.20"), "{uri}");
        assert_eq!(heard.header(HeaderName::To), format!("<{uri}>"));
    }
    assert_eq!(states(&house).await, [false, false], "every answer is one");
    let answered =
        |trunk: &str| format!("core_trunk_probes_total{{outcome=\"answered\",trunk=\"{trunk}\"}} 1");
    house.until(|text| text.contains(&answered("one")) && text.contains(&answered("two"))).await;
    let told = house.emitted();
    let is_sip = |body: &&belfry_signal::record::Body| matches!(body, belfry_signal::record::Body::Sip(_));
    assert_eq!(told.iter().filter(is_sip).count(), 0);
}

#[tokio::test]
async fn a_gateway_that_is_down_is_left_out_until_it_is_up_again() {
    for trouble in [Nothing, CannotBeReached, Says("503 Service Unavailable")] {
        let (mut house, alice) = house().await;
        let good = Says("200 OK");
        assert_eq!(first_tried(&mut house, &alice, "+4930123", "before").await, at(201));
        round(&mut house, [trouble, good]).await;
        assert_eq!(states(&house).await, [false, false], "one failure is nothing");
        round(&mut house, [trouble, good]).await;
        round(&mut house, [Nothing, good]).await;
        assert_eq!(states(&house).await, [true, false]);
        house.until(|text| text.contains("core_trunk_gateways{state=\"down\",trunk=\"one\"} 1")).await;
        assert_eq!(first_tried(&mut house, &alice, "+4930123", "while").await, at(202));
        // It comes back: one answer is nothing either.
        round(&mut house, [good, good]).await;
        assert!(!states(&house).await[1]);
        round(&mut house, [good, good]).await;
        round(&mut house, [good, good]).await;
        assert_eq!(states(&house).await, [false, false]);
        house.until(|text| text.contains("core_trunk_gateways{state=\"down\",trunk=\"one\"} 0")).await;
        assert_eq!(first_tried(&mut house, &alice, "+4930123", "after").await, at(201));
    }
}

#[tokio::test]
async fn when_all_are_down_all_are_tried_and_who_calls_for_help_tries_them_last() {
    let plan = PLAN.split("[[trunks]]\n    name = \"unasked\"").next().expect("the rest");
    let mut house = House::with_plan(Config::for_test(), plan).await;
    let alice = Phone::new("alice", Transport::Udp);
    house.register(&alice).await;
    for _ in 0..3 {
        round(&mut house, [Nothing, Says("200 OK")]).await;
    }
    assert_eq!(states(&house).await, [true, false]);
    assert_eq!(first_tried(&mut house, &alice, "112", "help").await, at(202));
    for _ in 0..3 {
        round(&mut house, [Nothing, Nothing]).await;
    }
    assert_eq!(states(&house).await, [true, true]);
    assert_eq!(first_tried(&mut house, &alice, "+4930123", "all").await, at(201));
}
