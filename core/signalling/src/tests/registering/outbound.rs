//! Path, Service-Route and the flows of RFC 5626.

use belfry_signal::now_unix_nanos;
use belfry_sip_proto::HeaderName;

use super::super::house::{House, PASSWORD, Phone, authorize};
use super::attempt;
use crate::handle::{SendFailure, Transport};

const INSTANCE: &str = "+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-000a95a0e128>\"";

fn flow(phone: &Phone, reg_id: u32) -> String {
    format!("Supported: path, outbound\nContact: {};reg-id={reg_id};{INSTANCE}", phone.contact())
}

/// Registers with a second Via, as through another proxy, and this Path.
async fn through_proxy(house: &mut House, phone: &Phone, call_id: &str, extra: &str) -> (u16, String) {
    let via = "\nVia: SIP/2.0/TCP 10.0.0.9;branch=z9hG4bKfar\nMax-Forwards";
    let distant = |text: String| text.replacen("\nMax-Forwards", via, 1);
    house.say(phone, &distant(phone.register(call_id, 1, extra)));
    let challenged = house.hear_status(phone, 401).await;
    let authorization = authorize(&challenged, phone.user, PASSWORD, "REGISTER", "sip:belfry.test");
    house.say(phone, &distant(phone.register(call_id, 2, &format!("{extra}\n{authorization}"))));
    let answer = house.hear().await;
    (answer.status(), answer.text())
}

#[tokio::test]
async fn the_answer_names_the_way_out_and_the_flow_timer() {
    let mut house = House::new().await;
    let phone = Phone::new("alice", Transport::Wss);
    let (status, text) = attempt(&mut house, &phone, "a", 1, &flow(&phone, 1)).await;
    assert_eq!(status, 200, "{text}");
    for line in
        ["Require: outbound", "Flow-Timer: 120", "Service-Route: <sip:edge.test:8443;transport=wss;lr>"]
    {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    // Without the option tag the flow's number means nothing, nor without an instance.
    for (call_id, plain) in ["b", "c"].into_iter().zip([
        format!("Contact: {};reg-id=1;{INSTANCE}", phone.contact()),
        format!("Supported: outbound\nContact: {};reg-id=1", phone.contact()),
    ]) {
        let (status, text) = attempt(&mut house, &phone, call_id, 1, &plain).await;
        assert!(status == 200 && !text.contains("Require") && !text.contains("Flow-Timer"), "{text}");
    }
}

#[tokio::test]
async fn several_flows_of_one_phone_are_one_device() {
    let mut house = House::new().await;
    let (first, second) = (Phone::new("alice", Transport::Tls), Phone::new("alice", Transport::Tcp));
    for (phone, reg_id) in [(&first, 1), (&second, 2)] {
        let (status, text) = attempt(&mut house, phone, "a", reg_id * 2, &flow(phone, reg_id)).await;
        assert_eq!(status, 200, "{text}");
    }
    assert_eq!(house.state.bindings().len(), 2);
    let both = format!("{}, <sip:alice@two.example>", flow(&first, 1));
    assert_eq!(attempt(&mut house, &first, "b", 1, &both).await.0, 400, "one flow in one request");
    // The younger flow is called; when the edge has lost it, the other one is, and its binding is gone.
    let bob = Phone::new("bob", Transport::Tcp);
    house.call(&bob, "alice", "call", "").await;
    let lost = house.hear_request(&second, "INVITE").await;
    house.fail_send(&lost, SendFailure::FlowGone);
    house.hear_request(&first, "INVITE").await;
    assert_eq!(house.state.bindings().len(), 1);
    assert_eq!(house.metric("core_bindings_lost_total{reason=\"flow_closed\"}"), Some(1.0));
}

#[tokio::test]
async fn a_proxy_on_the_way_must_know_flows() {
    let mut house = House::new().await;
    let phone = Phone::new("alice", Transport::Tcp);
    let contact = flow(&phone, 1);
    let (status, text) = through_proxy(&mut house, &phone, "none", &contact).await;
    assert_eq!(status, 439, "{text}");
    let deaf = format!("Path: <sip:near.example;lr;ob>, <sip:far.example;lr>\n{contact}");
    assert_eq!(through_proxy(&mut house, &phone, "deaf", &deaf).await.0, 439, "the first hop stands last");
    let able = format!("Path: <sip:near.example;lr>, <sip:far.example;lr;ob>\n{contact}");
    let (status, text) = through_proxy(&mut house, &phone, "able", &able).await;
    assert!(status == 200 && text.contains("Require: outbound"), "{text}");
    assert!(text.contains("Path: <sip:near.example;lr>\r\nPath: <sip:far.example;lr;ob>"), "{text}");
    // Calls go along the Path.
    let bob = Phone::new("bob", Transport::Tcp);
    house.call(&bob, "alice", "call", "").await;
    let invite = house.hear_request(&phone, "INVITE").await;
    assert_eq!(invite.values(HeaderName::Route), ["<sip:near.example;lr>", "<sip:far.example;lr;ob>"]);
    assert_eq!(invite.message.request_uri(), phone.contact().trim_matches(['<', '>']));
}

#[tokio::test]
async fn an_edge_of_ours_in_the_path_is_the_flow_when_it_is_the_edge_that_says_so() {
    let mut house = House::new().await;
    let phone = Phone::new("alice", Transport::Tcp);
    let path = "<sip:far-token@edge.test:5061;transport=tls;lr;ob>, <sip:behind.example;lr>";
    let extra = format!("Supported: path\nPath: {path}\nContact: {}", phone.contact());
    assert_eq!(through_proxy(&mut house, &phone, "thief", &extra).await.0, 403, "the token may be a trunk's");
    house.peer_names = vec!["elsewhere.test".to_owned()];
    assert_eq!(through_proxy(&mut house, &phone, "other", &extra).await.0, 403);
    assert!(house.state.bindings().is_empty());
    house.peer_names = vec!["edge.test".to_owned()];
    assert_eq!(through_proxy(&mut house, &phone, "a", &extra).await.0, 200);
    house.peer_names.clear();
    let binding = house.state.bindings().get("alice@belfry.test", now_unix_nanos()).remove(0);
    assert_eq!(binding.flow.as_deref(), Some("edge-1/far-token"));
    assert_eq!((binding.transport.as_str(), &binding.path), ("tls", &vec!["<sip:behind.example;lr>".into()]));
    let bob = Phone::new("bob", Transport::Tcp);
    house.call(&bob, "alice", "call", "").await;
    let beyond = Phone { flow: "far-token".to_owned(), ..phone };
    let invite = house.hear_request(&beyond, "INVITE").await;
    assert_eq!(invite.values(HeaderName::Route), ["<sip:behind.example;lr>"]);
}

#[tokio::test]
async fn bindings_answer_only_what_survives_the_process() {
    let mut house = House::new().await;
    let phone = Phone::new("alice", Transport::Udp);
    house.register(&phone).await;
    assert_eq!(house.metric("state_journal_entries_total{outcome=\"ok\"}"), Some(1.0));
}
