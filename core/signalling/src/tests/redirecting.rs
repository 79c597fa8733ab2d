//! Redirections by trunks: followed as far as the plan of the trunk allows (RFC 3261 section 16.7 step 4).

use belfry_sip_proto::HeaderName;

use super::house::{Heard, House, Phone, SDP};
use crate::Config;
use crate::handle::{SendFailure, Transport};

fn plan(redirects_max: u8) -> String {
    format!(
        r#"
        [[tenants]]
        name = "acme"
        domains = ["belfry.test"]
        dial = {{ country_code = "44" }}

        [[trunks]]
        name = "one"
        gateways = [{{ uri = "sip:192.0.2.201" }}]
        cost = "0.01"
        concurrent_calls_max = 1
        redirects_max = {redirects_max}

        [[trunks]]
        name = "two"
        gateways = [{{ uri = "sip:192.0.2.202" }}]
        cost = "0.02"
        "#
    )
}

fn at(number: u8) -> String {
    format!("udp 192.0.2.{number}:5060 192.0.2.{number}")
}

/// Who is at such a place, as the core hears it.
fn peer(number: u8) -> Phone {
    let source = std::net::SocketAddr::from(([192, 0, 2, number], 5060));
    Phone { user: "carrier", flow: format!("flow of {number}"), transport: Transport::Udp, source }
}

/// The next INVITE, which must go there.
async fn hear_invite(house: &mut House, number: u8) -> Heard {
    let heard = house.hear().await;
    assert_eq!((heard.flow.as_str(), heard.message.method()), (&*at(number), "INVITE"), "{}", heard.text());
    heard
}

/// It refuses, or sends elsewhere, and gets its ACK.
async fn refuse(house: &mut House, number: u8, invite: &Heard, status: &str, headers: &str) {
    house.say(&peer(number), &invite.answer(status, "tt", headers));
    let ack = house.hear().await;
    assert_eq!((ack.flow.as_str(), ack.message.method()), (&*at(number), "ACK"), "{}", ack.text());
}

async fn called(redirects_max: u8, call_id: &str) -> (House, Phone, Heard) {
    let mut house = House::with_plan(Config::for_test(), &plan(redirects_max)).await;
    let alice = Phone::new("alice", Transport::Udp);
    house.register(&alice).await;
    house.call(&alice, "+4930123", call_id, SDP).await;
    let invite = hear_invite(&mut house, 201).await;
    (house, alice, invite)
}

const PLACES: &str = "Contact: <sip:b@192.0.2.212>;q=0.5, <sip:a@192.0.2.211;user=phone?Subject=x>;q=0.9\n\
                      Contact: <sip:us@belfry.test>, <tel:+4930>, <sip:c@192.0.2.213>;q=0.1\n";

#[tokio::test]
async fn places_are_tried_by_their_wish_and_no_more_than_allowed() {
    let (mut house, alice, invite) = called(2, "followed").await;
    refuse(&mut house, 201, &invite, "302 Moved Temporarily", PLACES).await;
    let first = hear_invite(&mut house, 211).await;
    assert_eq!(first.message.request_uri(), "sip:a@192.0.2.211;user=phone", "no headers of the URI");
    // It fails as the trunk itself may, and the next is tried; a second redirection has nothing left to spend.
    refuse(&mut house, 211, &first, "500 Oops", "").await;
    let second = hear_invite(&mut house, 212).await;
    assert_eq!(second.message.request_uri(), "sip:b@192.0.2.212");
    refuse(&mut house, 212, &second, "301 Moved Permanently", "Contact: <sip:d@192.0.2.214>\n").await;
    let told = house.hear_status(&alice, 301).await;
    assert!(told.header(HeaderName::Contact).contains("192.0.2.214"), "the caller may go on by itself");
    house.acknowledge(&alice, &told);
    house
        .until(|text| text.contains("core_call_attempts_total{region=\"eu\",result=\"redirected\"} 1"))
        .await;
    house.until(|text| text.contains("core_trunk_calls{trunk=\"one\"} 0")).await;
}

#[tokio::test]
async fn a_place_that_answers_gets_the_call_and_takes_the_trunks_place() {
    let (mut house, alice, invite) = called(3, "answered").await;
    refuse(&mut house, 201, &invite, "302 Moved Temporarily", "Contact: <sip:a@192.0.2.211>\n").await;
    let invite = hear_invite(&mut house, 211).await;
    house.say_with(&peer(211), &invite.answer("200 OK", "t", "Contact: <sip:a@192.0.2.211>\n"), SDP);
    house.hear_status(&alice, 200).await;
    house.until(|text| text.contains("core_trunk_calls{trunk=\"one\"} 1")).await;
}

#[tokio::test]
async fn places_that_lead_back_or_were_tried_are_no_places() {
    let (mut house, alice, invite) = called(4, "circle").await;
    refuse(&mut house, 201, &invite, "302 Moved Temporarily", "Contact: <sip:a@192.0.2.211>\n").await;
    let first = hear_invite(&mut house, 211).await;
    let circle = "Contact: <sip:a@192.0.2.211>, <sip:alice@belfry.test>, <sip:edge.test>\n";
    refuse(&mut house, 211, &first, "302 Moved Temporarily", circle).await;
    let told = house.hear_status(&alice, 302).await;
    house.acknowledge(&alice, &told);
}

#[tokio::test]
async fn another_number_than_was_decided_on_is_not_dialled() {
    let (mut house, alice, invite) = called(3, "dearer").await;
    let dearer = "Contact: <sip:+4490055555@192.0.2.201>, <sip:0900@192.0.2.211>\n";
    refuse(&mut house, 201, &invite, "302 Moved Temporarily", dearer).await;
    let told = house.hear_status(&alice, 302).await;
    house.acknowledge(&alice, &told);
    // The same number elsewhere is what the caller wanted.
    let (mut house, _, invite) = called(3, "same").await;
    refuse(&mut house, 201, &invite, "302 Moved Temporarily", "Contact: <sip:+4930123@192.0.2.211>\n").await;
    let first = hear_invite(&mut house, 211).await;
    let text = first.text();
    assert!(!text.contains("P-Asserted-Identity"), "who calls is for our trunk to know: {text}");
}

/// A trunk that is told who calls and has a password of ours, with two gateways, and one that is dearer.
async fn trusted(call_id: &str) -> (House, Phone, Heard) {
    let secret = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(secret.path(), "s3cret").expect("written");
    let plan = plan(3).replace(
        "gateways = [{ uri = \"sip:192.0.2.201\" }]",
        &format!(
            "gateways = [{{ uri = \"sip:192.0.2.201\", weight = 1000 }}, {{ uri = \"sip:192.0.2.203\", weight = 0 }}]\n\
             user = \"belfry\"\npassword_file = {:?}",
            secret.path()
        ),
    );
    let alias = "\n[[aliases]]\nnumber = \"+442071838750\"\naddress = \"alice@belfry.test\"\n";
    let mut house = House::with_plan(Config::for_test(), &format!("{plan}{alias}")).await;
    let alice = Phone::new("alice", Transport::Udp);
    house.register(&alice).await;
    house.call(&alice, "+4930123", call_id, SDP).await;
    let invite = hear_invite(&mut house, 201).await;
    assert!(invite.text().contains("P-Asserted-Identity: <sip:+442071838750@"), "{}", invite.text());
    (house, alice, invite)
}

const CHALLENGE: &str =
    "Proxy-Authenticate: Digest realm=\"carrier\", nonce=\"n\", algorithm=MD5, qop=\"auth\"\n";

#[tokio::test]
async fn our_name_and_password_are_for_the_trunks_gateways_alone() {
    // Where the trunk leads to, who hears the INVITE, whether it says who calls, and whether a challenge is answered.
    for (call_id, place, number, is_named, is_answered) in [
        ("own", "sip:+4930123@192.0.2.203", 203, true, true),
        ("own-port", "sip:+4930123@192.0.2.203;transport=udp", 203, true, true),
        ("other-user", "sip:b@192.0.2.203", 203, true, false),
        ("foreign", "sip:+4930123@192.0.2.211", 211, false, false),
        ("maddr", "sip:+4930123@192.0.2.203;maddr=192.0.2.211", 211, false, false),
        ("maddr-upper", "sip:+4930123@192.0.2.203;MADDR=192.0.2.211", 211, false, false),
    ] {
        let (mut house, alice, invite) = trusted(call_id).await;
        refuse(&mut house, 201, &invite, "302 Moved Temporarily", &format!("Contact: <{place}>\n")).await;
        let invite = house.hear().await;
        assert!(invite.flow.starts_with(&format!("udp 192.0.2.{number}:5060")), "{call_id}: {}", invite.flow);
        let text = invite.text();
        assert_eq!(text.contains("P-Asserted-Identity"), is_named, "{call_id}: {text}");
        house.say(&peer(number), &invite.answer("407 Proxy Authentication Required", "tt", CHALLENGE));
        let mut answered = false;
        // Its ACK, and then the answer to the challenge, or what the caller is told.
        for _ in 0..2 {
            let heard = house.hear().await;
            answered |= heard.text().contains("Proxy-Authorization: Digest username=\"belfry\"");
            if heard.flow == alice.flow {
                assert_eq!(heard.status(), 407, "the caller may answer it: {}", heard.text());
            }
        }
        assert_eq!(answered, is_answered, "{call_id}");
    }
}

#[tokio::test]
async fn a_dead_place_does_not_make_the_gateway_quiet_that_named_it() {
    for is_named in [true, false] {
        let (mut house, alice, invite) = called(1, "dead-place").await;
        let dead = if is_named {
            refuse(&mut house, 201, &invite, "302 Moved Temporarily", "Contact: <sip:a@192.0.2.211>\n").await;
            hear_invite(&mut house, 211).await
        } else {
            invite
        };
        house.fail_send(&dead, SendFailure::Unreachable);
        let next = hear_invite(&mut house, 202).await;
        refuse(&mut house, 202, &next, "486 Busy Here", "").await;
        let told = house.hear_status(&alice, 486).await;
        house.acknowledge(&alice, &told);
        house.until(|text| text.contains("core_live_calls 0")).await;
        house.call(&alice, "+4930123", "next", SDP).await;
        // The cheaper trunk comes first, unless its own gateway cannot be reached.
        hear_invite(&mut house, if is_named { 201 } else { 202 }).await;
    }
}

#[tokio::test]
async fn without_leave_the_caller_is_told() {
    let (mut house, alice, invite) = called(0, "told").await;
    refuse(&mut house, 201, &invite, "302 Moved Temporarily", PLACES).await;
    let told = house.hear_status(&alice, 302).await;
    assert_eq!(told.values(HeaderName::Contact).len(), 5);
    house.acknowledge(&alice, &told);
}
