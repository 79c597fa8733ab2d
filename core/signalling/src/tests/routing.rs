//! Trunks, numbers, limits, emergencies and fraud, as phones and other networks see them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use belfry_routing::Plan;
use belfry_signal::Registry;
use belfry_state::{RouteDocument, RouteImport, State};

use super::house::{Heard, House, PASSWORD, Phone, SDP, authorize};
use crate::Config;
use crate::handle::{SendFailure, Transport};

pub(super) const PLAN: &str = r#"
    [[tenants]]
    name = "acme"
    domains = ["belfry.test"]
    dial = { country_code = "44" }
    subscriber_concurrent_calls_max = 2

    [[aliases]]
    number = "+442071838750"
    address = "alice@belfry.test"

    [[trunks]]
    name = "one"
    gateways = [{ uri = "sip:192.0.2.201:5060;transport=udp" }]
    accept_networks = ["198.51.100.0/24"]
    cost = "0.01"
    concurrent_calls_max = 1
    serves_all = false
    prefixes = [{ prefix = "49", cost = "0.01" }]

    [[trunks]]
    name = "two"
    gateways = [{ uri = "sip:192.0.2.202" }]
    accept_users = ["carol@belfry.test"]
    accept_tls_names = ["sip.two.test"]
    cost = "0.02"
"#;

pub(super) const ONE: &str = "udp 192.0.2.201:5060 192.0.2.201";
pub(super) const TWO: &str = "udp 192.0.2.202:5060 192.0.2.202";
pub(super) const NUMBER: &str = "004930123";

async fn house_with(config: Config, more: &str) -> (House, Phone) {
    let mut house = House::with_plan(config, &format!("{PLAN}{more}")).await;
    let alice = Phone::new("alice", Transport::Udp);
    house.register(&alice).await;
    (house, alice)
}

async fn house() -> (House, Phone) {
    house_with(Config::for_test(), "").await
}

/// A trunk as the core hears it.
pub(super) fn trunk(place: &str) -> Phone {
    let source = place.split(' ').nth(1).expect("a place").parse().expect("an address");
    Phone { user: "carrier", flow: format!("flow of {place}"), transport: Transport::Udp, source }
}

pub(super) async fn hear_at(house: &mut House, place: &str, method: &str) -> Heard {
    let heard = house.hear().await;
    assert_eq!((heard.flow.as_str(), heard.message.method()), (place, method), "{}", heard.text());
    heard
}

/// The trunk refuses, and gets its ACK.
pub(super) async fn refuse(house: &mut House, place: &str, invite: &Heard, status: &str) {
    house.say(&trunk(place), &invite.answer(status, "tt", ""));
    hear_at(house, place, "ACK").await;
}

/// The trunk answers, and the call is acknowledged; gives the 200 that the caller got.
pub(super) async fn pick_up(house: &mut House, alice: &Phone, place: &str, invite: &Heard) -> Heard {
    let contact = format!("Contact: {}\n", trunk(place).contact());
    house.say_with(&trunk(place), &invite.answer("200 OK", "tt", &contact), SDP);
    let answered = house.hear_status(alice, 200).await;
    let cseq = answered.message.cseq().expect("a CSeq").number;
    let ack = house.in_dialog(alice, "ACK", cseq, &answered, &trunk(place).contact(), None);
    house.say(alice, &ack);
    let ack = house.hear().await;
    assert_eq!(ack.message.method(), "ACK", "{}", ack.text());
    answered
}

pub(super) async fn hang_up(house: &mut House, alice: &Phone, place: &str, answered: &Heard) {
    // Another BYE of the same CSeq would have the same branch in these tests.
    static CSEQ: AtomicU32 = AtomicU32::new(100);
    let cseq = CSEQ.fetch_add(1, Ordering::Relaxed);
    let bye = house.in_dialog(alice, "BYE", cseq, answered, &trunk(place).contact(), None);
    house.say(alice, &bye);
    let bye = house.hear().await;
    assert_eq!(bye.message.method(), "BYE", "{}", bye.text());
    house.say(&trunk(place), &bye.answer("200 OK", "", ""));
    house.hear_status(alice, 200).await;
}

/// Waits until nothing is held any more.
pub(super) async fn is_idle(house: &House) {
    house
        .until(|text| {
            let held =
                |line: &&str| line.starts_with("core_trunk_calls{") || line.starts_with("core_tenant_calls{");
            text.lines().filter(held).all(|line| line.ends_with(" 0"))
        })
        .await;
}

#[tokio::test]
async fn a_number_leaves_by_the_cheapest_trunk_and_its_place_comes_back() {
    let (mut house, alice) = house().await;
    let own = "P-Asserted-Identity: <sip:+4470@x>\nP-Preferred-Identity: <sip:+4471@x>\n";
    house.say_with(&alice, &alice.invite(NUMBER, "out-1", 1, own), SDP);
    house.hear_status(&alice, 100).await;
    let challenged = house.hear_status(&alice, 407).await;
    house.acknowledge(&alice, &challenged);
    let uri = format!("sip:{NUMBER}@belfry.test");
    let authorization = authorize(&challenged, "alice", PASSWORD, "INVITE", &uri);
    house.say_with(&alice, &alice.invite(NUMBER, "out-1", 2, &format!("{own}{authorization}")), SDP);
    house.hear_status(&alice, 100).await;
    let invite = hear_at(&mut house, ONE, "INVITE").await;
    assert_eq!(invite.message.request_uri(), "sip:+4930123@192.0.2.201:5060;transport=udp;user=phone");
    let text = invite.text();
    // Who calls is what we know of her, not what she says.
    assert_eq!(text.matches("P-Asserted-Identity").count(), 1, "{text}");
    assert!(text.contains("P-Asserted-Identity: <sip:+442071838750@belfry.test;user=phone>"), "{text}");
    assert!(!text.contains("P-Preferred-Identity"), "{text}");
    let answered = pick_up(&mut house, &alice, ONE, &invite).await;
    house.until(|text| text.contains("core_trunk_calls{trunk=\"one\"} 1")).await;
    hang_up(&mut house, &alice, ONE, &answered).await;
    is_idle(&house).await;
    assert_eq!(house.metric("core_trunk_tries_total{outcome=\"answered\",trunk=\"one\"}"), Some(1.0));
    let decided = "core_routes_decided_total{outcome=\"trunk\",tenant=\"acme\"}";
    assert_eq!(house.metric(decided), Some(1.0));
    let records = house.state.call_records(1).await.expect("readable");
    assert_eq!(records[0].callee.reveal(), "sip:004930123@belfry.test");
}

#[tokio::test]
async fn the_next_trunk_is_tried_after_trouble_and_not_after_an_answer() {
    let (mut house, alice) = house().await;
    for (number, status) in [(1, "503 Service Unavailable"), (2, "408 Request Timeout"), (3, "500 Oops")] {
        let call_id = format!("over-{number}");
        house.call(&alice, NUMBER, &call_id, SDP).await;
        // After a 503 the address is left alone for a while, but it is the only one of its trunk.
        let invite = hear_at(&mut house, ONE, "INVITE").await;
        refuse(&mut house, ONE, &invite, status).await;
        let second = hear_at(&mut house, TWO, "INVITE").await;
        assert_eq!(second.message.request_uri(), "sip:+4930123@192.0.2.202;user=phone");
        let answered = pick_up(&mut house, &alice, TWO, &second).await;
        hang_up(&mut house, &alice, TWO, &answered).await;
    }
    house.call(&alice, NUMBER, "over-4", SDP).await;
    let invite = hear_at(&mut house, ONE, "INVITE").await;
    refuse(&mut house, ONE, &invite, "486 Busy Here").await;
    let busy = house.hear_status(&alice, 486).await;
    house.acknowledge(&alice, &busy);
    // Whom no edge reaches is passed over as well.
    house.call(&alice, NUMBER, "over-5", SDP).await;
    let invite = hear_at(&mut house, ONE, "INVITE").await;
    house.fail_send(&invite, SendFailure::Unreachable);
    let invite = hear_at(&mut house, TWO, "INVITE").await;
    refuse(&mut house, TWO, &invite, "404 Not Found").await;
    let failed = house.hear_status(&alice, 404).await;
    house.acknowledge(&alice, &failed);
    is_idle(&house).await;
    assert_eq!(house.metric("core_trunk_failures_total{class=\"5xx\",trunk=\"one\"}"), Some(3.0));
}

#[tokio::test]
async fn a_silent_trunk_is_given_up_soon() {
    let (mut house, alice) = house_with(Config::for_test(), "").await;
    house.call(&alice, NUMBER, "silent", SDP).await;
    hear_at(&mut house, ONE, "INVITE").await;
    house.let_pass(Duration::from_secs(7)).await;
    // Both are repeated meanwhile.
    let second =
        house.hear_all().await.into_iter().rfind(|heard| heard.flow == TWO).expect("the next trunk's turn");
    let answered = pick_up(&mut house, &alice, TWO, &second).await;
    hang_up(&mut house, &alice, TWO, &answered).await;
    // The next call does not wait for it.
    house.call(&alice, NUMBER, "silent-2", SDP).await;
    let invite = hear_at(&mut house, TWO, "INVITE").await;
    let answered = pick_up(&mut house, &alice, TWO, &invite).await;
    hang_up(&mut house, &alice, TWO, &answered).await;
    is_idle(&house).await;
}

#[tokio::test]
async fn a_full_trunk_is_passed_over_until_a_place_is_free() {
    let (mut house, alice) = house().await;
    house.call(&alice, NUMBER, "full-1", SDP).await;
    let invite = hear_at(&mut house, ONE, "INVITE").await;
    let first = pick_up(&mut house, &alice, ONE, &invite).await;
    house.call(&alice, NUMBER, "full-2", SDP).await;
    let invite = hear_at(&mut house, TWO, "INVITE").await;
    let second = pick_up(&mut house, &alice, TWO, &invite).await;
    assert_eq!(house.metric("core_trunk_tries_total{outcome=\"full\",trunk=\"one\"}"), Some(1.0));
    // Alice has as many calls as she may have.
    house.call(&alice, NUMBER, "full-3", SDP).await;
    let refused = house.hear_status(&alice, 480).await;
    assert!(refused.text().contains("as many calls as allowed"), "{}", refused.text());
    house.acknowledge(&alice, &refused);
    hang_up(&mut house, &alice, ONE, &first).await;
    hang_up(&mut house, &alice, TWO, &second).await;
    house.call(&alice, NUMBER, "full-4", SDP).await;
    let invite = hear_at(&mut house, ONE, "INVITE").await;
    // The caller gives up while it rings.
    house.say(&trunk(ONE), &invite.answer("180 Ringing", "tt", ""));
    house.hear_status(&alice, 180).await;
    let cancel = alice.invite(NUMBER, "full-4", 2, "").replace("INVITE", "CANCEL");
    house.say(&alice, &cancel);
    house.hear_status(&alice, 200).await;
    let cancel = hear_at(&mut house, ONE, "CANCEL").await;
    house.say(&trunk(ONE), &cancel.answer("200 OK", "", ""));
    house.say(&trunk(ONE), &invite.answer("487 Request Terminated", "tt", ""));
    hear_at(&mut house, ONE, "ACK").await;
    let gone = house.hear_status(&alice, 487).await;
    house.acknowledge(&alice, &gone);
    is_idle(&house).await;
}

#[tokio::test]
async fn a_trunk_calls_in_by_its_address_or_its_credentials() {
    let (mut house, alice) = house().await;
    let carrier = Phone {
        user: "carrier",
        flow: "token-carrier".to_owned(),
        transport: Transport::Udp,
        source: "198.51.100.7:5060".parse().expect("an address"),
    };
    // Nobody asks it for credentials; the number is Alice's.
    house.say_with(&carrier, &carrier.invite("+442071838750", "in-1", 1, ""), SDP);
    house.hear_status(&carrier, 100).await;
    let invite = house.hear_request(&alice, "INVITE").await;
    house.say_with(&alice, &invite.answer("486 Busy Here", "ta", ""), "");
    house.hear_request(&alice, "ACK").await;
    let busy = house.hear_status(&carrier, 486).await;
    house.acknowledge(&carrier, &busy);
    // It may not call out again by another trunk.
    house.say_with(&carrier, &carrier.invite("+4930123", "in-2", 1, ""), SDP);
    house.hear_status(&carrier, 100).await;
    let refused = house.hear_status(&carrier, 404).await;
    house.acknowledge(&carrier, &refused);
    assert_eq!(house.metric("core_trunk_requests_total{trunk=\"one\"}"), Some(2.0));
    // By the name in its certificate, wherever it comes from.
    house.peer_names = vec!["other.test".to_owned(), "sip.two.test".to_owned()];
    let named = Phone::new("named", Transport::Tls);
    house.say_with(&named, &named.invite("+442071838750", "in-4", 1, ""), SDP);
    house.hear_status(&named, 100).await;
    let invite = house.hear_request(&alice, "INVITE").await;
    house.say_with(&alice, &invite.answer("486 Busy Here", "ta", ""), "");
    house.hear_request(&alice, "ACK").await;
    let busy = house.hear_status(&named, 486).await;
    house.acknowledge(&named, &busy);
    house.peer_names.clear();
    // Carol's credentials are trunk two's: her From is whatever she likes.
    let carol = Phone::new("carol", Transport::Udp);
    let invite = |cseq, extra: &str| {
        let invite = carol.invite("+442071838750", "in-3", cseq, extra);
        invite.replace("<sip:carol@belfry.test>;tag", "<sip:+4930999@belfry.test>;tag")
    };
    house.say_with(&carol, &invite(1, ""), SDP);
    house.hear_status(&carol, 100).await;
    let challenged = house.hear_status(&carol, 407).await;
    house.acknowledge(&carol, &challenged);
    let uri = "sip:+442071838750@belfry.test";
    let authorization = authorize(&challenged, "carol", PASSWORD, "INVITE", uri);
    house.say_with(&carol, &invite(2, &authorization), SDP);
    house.hear_status(&carol, 100).await;
    house.hear_request(&alice, "INVITE").await;
    assert_eq!(house.metric("core_trunk_requests_total{trunk=\"two\"}"), Some(2.0));
}

#[tokio::test]
async fn who_calls_for_help_passes_every_bound() {
    let config = Config { calls_max: 1, ..Config::for_test() };
    let block = "[[blocks]]\nside = \"caller\"\nprefix = \"44\"\n[emergency]\ntrunks = [\"one\", \"two\"]\n";
    let (mut house, alice) = house_with(config, block).await;
    // One call fills the house and trunk one; it is itself an emergency call.
    house.call(&alice, "112", "help-1", SDP).await;
    let invite = hear_at(&mut house, ONE, "INVITE").await;
    assert_eq!(invite.message.request_uri(), "sip:112@192.0.2.201:5060;transport=udp;user=phone");
    pick_up(&mut house, &alice, ONE, &invite).await;
    // Others are turned away, who calls for help is not, by the same full trunk.
    house.say_with(&alice, &alice.invite(NUMBER, "plain", 1, ""), SDP);
    house.hear_status(&alice, 100).await;
    let refused = house.hear_status(&alice, 503).await;
    house.acknowledge(&alice, &refused);
    for number in 2..6 {
        house.call(&alice, "112", &format!("help-{number}"), SDP).await;
        let invite = hear_at(&mut house, ONE, "INVITE").await;
        pick_up(&mut house, &alice, ONE, &invite).await;
    }
    assert_eq!(house.metric("core_emergency_calls_total"), Some(5.0));
    house.until(|text| text.contains("core_trunk_calls{trunk=\"one\"} 5")).await;
}

#[tokio::test]
async fn help_needs_no_credentials_when_the_house_says_so() {
    let (mut house, _) = house_with(Config::for_test(), "[emergency]\nis_authenticated = false\n").await;
    let stranger = Phone::new("stranger", Transport::Tls);
    let invite =
        stranger.invite("x", "sos", 1, "").replace("INVITE sip:x@belfry.test", "INVITE urn:service:sos.fire");
    house.say_with(&stranger, &invite, SDP);
    house.hear_status(&stranger, 100).await;
    let invite = hear_at(&mut house, ONE, "INVITE").await;
    assert_eq!(invite.message.request_uri(), "sip:112@192.0.2.201:5060;transport=udp;user=phone");
    house.say_with(&stranger, &stranger.invite(NUMBER, "no-sos", 1, ""), SDP);
    house.hear_status(&stranger, 100).await;
    let asked = house.hear_status(&stranger, 407).await;
    house.acknowledge(&stranger, &asked);
    // What looks like an emergency and is none by the rules is a call of nobody.
    let invite = stranger.invite("112;x", "half-sos", 1, "");
    house.say_with(&stranger, &invite, SDP);
    house.hear_status(&stranger, 100).await;
    house.hear_status(&stranger, 403).await;
}

#[tokio::test]
async fn blocked_and_fraudulent_calls_are_refused_and_told() {
    let more = "[[blocks]]\nside = \"called\"\nprefix = \"881\"\n\
        [fraud.subscriber]\ncalls_per_hour_alert = 1\ncalls_per_hour_block = 2\n";
    let (mut house, alice) = house_with(Config::for_test(), more).await;
    house.call(&alice, "+881123", "blocked", SDP).await;
    let refused = house.hear_status(&alice, 403).await;
    house.acknowledge(&alice, &refused);
    for number in 1..=2 {
        house.call(&alice, NUMBER, &format!("fraud-{number}"), SDP).await;
        let invite = hear_at(&mut house, ONE, "INVITE").await;
        refuse(&mut house, ONE, &invite, "486 Busy Here").await;
        let busy = house.hear_status(&alice, 486).await;
        house.acknowledge(&alice, &busy);
    }
    house.call(&alice, NUMBER, "fraud-3", SDP).await;
    let refused = house.hear_status(&alice, 403).await;
    house.acknowledge(&alice, &refused);
    let fraud = |action: &str| {
        let name = format!("core_fraud_suspicions_total{{action=\"{action}\",suspicion=\"calls_per_hour\"}}");
        house.metric(&name)
    };
    assert_eq!((fraud("alerted"), fraud("blocked")), (Some(1.0), Some(1.0)));
    let refusals = |reason: &str| {
        house.metric(&format!("core_route_refusals_total{{reason=\"{reason}\",tenant=\"acme\"}}"))
    };
    assert_eq!((refusals("called_blocked"), refusals("fraud")), (Some(1.0), Some(1.0)));
    let records = house.state.call_records(10).await.expect("readable");
    let causes: Vec<&str> = records.iter().map(|record| &*record.cause).collect();
    assert!(causes.contains(&"fraud") && causes.contains(&"blocked"), "{causes:?}");
    is_idle(&house).await;
}

#[tokio::test]
async fn routes_are_swapped_while_calls_go_on() {
    let (mut house, alice) = house().await;
    house.call(&alice, NUMBER, "swap-1", SDP).await;
    let invite = hear_at(&mut house, ONE, "INVITE").await;
    let first = pick_up(&mut house, &alice, ONE, &invite).await;
    let new: Plan = toml::from_str(&PLAN.replace("cost = \"0.02\"", "cost = \"0.001\"")).expect("a plan");
    house.core.reroute(new.clone()).await.expect("good routes");
    house.call(&alice, NUMBER, "swap-2", SDP).await;
    let invite = hear_at(&mut house, TWO, "INVITE").await;
    let second = pick_up(&mut house, &alice, TWO, &invite).await;
    // What does not hold together changes nothing.
    let mut broken = new;
    broken.trunks[0].name = "Not a name".to_owned();
    let error = house.core.reroute(broken).await.expect_err("refused");
    assert!(error.to_string().contains("trunks[0].name"), "{error}");
    assert_eq!(house.metric("core_routes_loads_total{outcome=\"refused\"}"), Some(1.0));
    hang_up(&mut house, &alice, ONE, &first).await;
    hang_up(&mut house, &alice, TWO, &second).await;
    is_idle(&house).await;
}

#[tokio::test]
async fn imports_are_seen_without_being_told() {
    let routes_poll_interval = Duration::from_millis(100);
    let (mut house, alice) = house_with(Config { routes_poll_interval, ..Config::for_test() }, "").await;
    let import = async |text: &str| {
        let document =
            RouteDocument { name: "more".to_owned(), text: text.to_owned(), imported_unix_nanos: 0 };
        let config = belfry_state::Config::for_test(house.directory());
        let import = RouteImport::Document(document);
        State::import_routes(&config, &Registry::for_test(), &import).await.expect("imports");
    };
    import("[[aliases]]\nnumber = \"+4930123\"\naddress = \"alice@belfry.test\"\n").await;
    house.until(|text| text.contains("core_routes_version 1")).await;
    // A broken one, written past the command that would have refused it, is told and changes nothing.
    import("[[aliases]]\nnumber = 5\n").await;
    house.until(|text| text.contains("core_routes_loads_total{outcome=\"refused\"} 1")).await;
    house.call(&alice, NUMBER, "aliased", SDP).await;
    house.hear_request(&alice, "INVITE").await;
}

#[tokio::test]
async fn identities_that_nobody_asserted_do_not_reach_phones() {
    let (mut house, alice) = house().await;
    let bob = Phone::new("bob", Transport::Udp);
    house.register(&bob).await;
    house.say_with(&alice, &alice.invite("bob", "pai", 1, ""), SDP);
    house.hear_status(&alice, 100).await;
    let challenged = house.hear_status(&alice, 407).await;
    house.acknowledge(&alice, &challenged);
    let authorization = authorize(&challenged, "alice", PASSWORD, "INVITE", "sip:bob@belfry.test");
    let extra = format!("P-Asserted-Identity: <sip:queen@palace.test>\n{authorization}");
    house.say_with(&alice, &alice.invite("bob", "pai", 2, &extra), SDP);
    house.hear_status(&alice, 100).await;
    let invite = house.hear_request(&bob, "INVITE").await;
    assert!(!invite.text().contains("P-Asserted-Identity"), "{}", invite.text());
}
