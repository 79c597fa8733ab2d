//! Live calls as operators see and end them, and session timers (RFC 4028).

use std::time::Duration;

use belfry_relay_api::{Notice, SessionKey};
use belfry_sip_proto::HeaderName;

use super::house::{Heard, House, PASSWORD, Phone, SDP, authorize};
use crate::handle::Transport;
use crate::{Config, LiveCall, LiveFilter, LiveState};

const HELD: &str = "v=0\r\no=- 1 2 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\na=sendonly\r\n";

async fn house_with_phones(config: Config) -> (House, Phone, Phone) {
    let mut house = House::with(config).await;
    let (alice, bob) = (Phone::new("alice", Transport::Udp), Phone::new("bob", Transport::Tcp));
    house.register(&alice).await;
    house.register(&bob).await;
    (house, alice, bob)
}

fn quick_sessions() -> Config {
    // The stores know nothing of the time that the tests let pass: they are waited for.
    let patience = Duration::from_secs(3600);
    let config = Config::for_test();
    Config {
        session_interval: Duration::from_secs(90),
        store_timeout: patience,
        relay_timeout: patience,
        ..config
    }
}

/// The callee picks up with these headers; gives the 200 as the caller got it, after its ACK.
async fn pick_up(house: &mut House, alice: &Phone, bob: &Phone, invite: &Heard, headers: &str) -> Heard {
    let ok = invite.answer("200 OK", "tb", &format!("Contact: {}\n{headers}", bob.contact()));
    house.say_with(bob, &ok, SDP);
    let answered = house.hear_status(alice, 200).await;
    house.say(alice, &house.in_dialog(alice, "ACK", 2, &answered, &bob.contact(), None));
    house.hear_request(bob, "ACK").await;
    answered
}

async fn live(house: &House) -> Vec<LiveCall> {
    house.core.live_calls_page(LiveFilter::default(), 0, 100).await.expect("the core runs").calls
}

async fn record_of(house: &House) -> belfry_state::CallRecord {
    house.until(|text| text.contains("core_call_records_total{outcome=\"written\"} 1")).await;
    house.state.call_records(10).await.expect("readable").remove(0)
}

#[tokio::test]
async fn a_live_call_is_shown_from_its_invite_to_its_end() {
    let (mut house, alice, bob) = house_with_phones(Config::for_test()).await;
    assert_eq!(live(&house).await.len(), 0);
    let invite = house.invite(&alice, &bob, "shown", "").await;
    assert_eq!(live(&house).await[0].state, LiveState::Trying);
    house.say(&bob, &invite.answer("180 Ringing", "tb", &format!("Contact: {}\n", bob.contact())));
    house.hear_status(&alice, 180).await;
    assert_eq!(live(&house).await[0].state, LiveState::Early);
    let answered = pick_up(&mut house, &alice, &bob, &invite, "").await;
    let call = live(&house).await.remove(0);
    assert_eq!((call.call_id.reveal().as_str(), call.state), ("shown", LiveState::Confirmed));
    assert_eq!((call.transport, call.country.as_deref(), call.session), ("udp", Some("GB"), None));
    assert_eq!(call.caller.uri.reveal(), "sip:alice@belfry.test");
    assert_eq!((call.caller.tag.as_deref(), call.callee.tag.as_deref()), (Some("falice"), Some("tb")));
    assert_eq!((call.caller.cseq, call.callee.transport, call.relay.is_some()), (2, Some("tcp"), true));
    assert!(call.answer_unix_nanos.is_some() && call.held_by.is_empty());
    // On hold, and back.
    house.say_with(&bob, &house.in_dialog(&bob, "INVITE", 1, &invite, &alice.contact(), Some("tb")), HELD);
    house.hear_status(&bob, 100).await;
    let hold = house.hear_request(&alice, "INVITE").await;
    house.say_with(&alice, &hold.answer("200 OK", "", &format!("Contact: {}\n", alice.contact())), SDP);
    house.hear_status(&bob, 200).await;
    let call = live(&house).await.remove(0);
    assert_eq!((call.held_by, call.callee.cseq), (vec!["callee"], 1));
    house.say_with(&bob, &house.in_dialog(&bob, "UPDATE", 2, &invite, &alice.contact(), Some("tb")), SDP);
    let update = house.hear_request(&alice, "UPDATE").await;
    house.say_with(&alice, &update.answer("200 OK", "", ""), SDP);
    house.hear_status(&bob, 200).await;
    assert!(live(&house).await[0].held_by.is_empty());
    assert_eq!(house.metric("core_session_refreshes_total"), Some(2.0));
    house.say(&alice, &house.in_dialog(&alice, "BYE", 3, &answered, &bob.contact(), None));
    let bye = house.hear_request(&bob, "BYE").await;
    house.say(&bob, &bye.answer("200 OK", "", ""));
    house.hear_status(&alice, 200).await;
    assert!(live(&house).await.is_empty());
}

#[tokio::test]
async fn the_list_is_filtered_and_paged() {
    let (mut house, alice, bob) = house_with_phones(Config::for_test()).await;
    for call_id in ["one", "two", "three"] {
        house.invite(&alice, &bob, call_id, "").await;
    }
    let page = async |filter: LiveFilter, after, limit| {
        let page = house.core.live_calls_page(filter, after, limit).await.expect("the core runs");
        let ids: Vec<String> = page.calls.iter().map(|call| call.call_id.reveal().clone()).collect();
        (ids.join(" "), page.next)
    };
    let all = LiveFilter::default;
    let (first, next) = page(all(), 0, 2).await;
    assert_eq!(first, "one two");
    assert_eq!(page(all(), next.expect("there is more"), 2).await, ("three".to_owned(), None));
    assert_eq!(page(all(), 0, usize::MAX).await, ("one two three".to_owned(), None));
    let text = |text: &str| Some(text.to_owned());
    let cases = [
        (LiveFilter { region: text("eu"), ..all() }, true),
        (LiveFilter { region: text("us"), ..all() }, false),
        (LiveFilter { country: text("gb"), transport: text("udp"), ..all() }, true),
        (LiveFilter { transport: text("tcp"), ..all() }, false),
        (LiveFilter { state: Some(LiveState::Trying), is_held: Some(false), ..all() }, true),
        (LiveFilter { state: Some(LiveState::Confirmed), ..all() }, false),
        (LiveFilter { age_min: Some(Duration::from_secs(3600)), ..all() }, false),
        (LiveFilter { age_max: Some(Duration::from_secs(3600)), ..all() }, true),
        (LiveFilter { trunk: text("carrier"), ..all() }, false),
    ];
    for (filter, is_found) in cases {
        assert_eq!(page(filter.clone(), 0, 10).await.0.is_empty(), !is_found, "{filter:?}");
    }
}

#[tokio::test]
async fn an_operator_ends_calls() {
    let (mut house, alice, bob) = house_with_phones(Config::for_test()).await;
    assert_eq!(house.core.end_call("nobody").await, Ok(None));
    let ringing = house.invite(&alice, &bob, "rings", "").await;
    house.say(&bob, &ringing.answer("180 Ringing", "tb", ""));
    house.hear_status(&alice, 180).await;
    assert_eq!(house.core.end_call("rings").await, Ok(Some(LiveState::Early)));
    let cancel = house.hear_request(&bob, "CANCEL").await;
    house.say(&bob, &cancel.answer("200 OK", "tb", ""));
    let ended = house.hear_status(&alice, 480).await;
    assert!(ended.header(HeaderName::Reason).contains("ended by the operator"));
    house.acknowledge(&alice, &ended);
    house.say(&bob, &ringing.answer("487 Request Terminated", "tb", ""));
    house.hear_request(&bob, "ACK").await;
    let record = record_of(&house).await;
    assert_eq!((&*record.cause, record.status_code), ("operator", 480));

    let talking = house.invite(&alice, &bob, "talks", "").await;
    pick_up(&mut house, &alice, &bob, &talking, "").await;
    assert_eq!(house.core.end_call("talks").await, Ok(Some(LiveState::Confirmed)));
    for (phone, bye) in [&alice, &bob].into_iter().zip(house.hear_requests(&[&alice, &bob], "BYE").await) {
        assert!(bye.header(HeaderName::Reason).contains("ended by the operator"));
        house.say(phone, &bye.answer("200 OK", "", ""));
    }
    house.until(|text| text.contains("core_call_records_total{outcome=\"written\"} 2")).await;
    let records = house.state.call_records(10).await.expect("readable");
    assert!(records.iter().any(|r| (&*r.cause, r.status_code, &*r.outcome) == ("operator", 200, "answered")));
    assert_eq!(house.core.live_calls(), 0);
}

#[tokio::test]
async fn who_knows_session_timers_is_told_for_whom_to_refresh() {
    let (mut house, alice, bob) = house_with_phones(quick_sessions()).await;
    let timer = "Supported: timer\nSession-Expires: 3600\n";
    let setup = house.invite(&alice, &bob, "timed", timer).await;
    assert_eq!(setup.header(HeaderName::SessionExpires), "90", "lowered, and nobody is named");
    // The callee knows no timers: the caller learns it from us, and refreshes.
    let answered = pick_up(&mut house, &alice, &bob, &setup, "").await;
    assert_eq!(answered.header(HeaderName::SessionExpires), "90;refresher=uac");
    assert_eq!(answered.header(HeaderName::Require), "timer");
    let session = live(&house).await[0].session.expect("a session");
    assert_eq!((session.interval_seconds, session.refresher, session.refreshes), (90, "caller", 0));
    // A refresh by UPDATE in time.
    house.let_pass(Duration::from_secs(60)).await;
    let update = house.in_dialog(&alice, "UPDATE", 3, &answered, &bob.contact(), None);
    house.say(&alice, &format!("{update}Supported: timer\nSession-Expires: 90;refresher=uac\n"));
    let update = house.hear_request(&bob, "UPDATE").await;
    house.say(&bob, &update.answer("200 OK", "", "Session-Expires: 90;refresher=uac\nRequire: timer\n"));
    house.hear_status(&alice, 200).await;
    let heard = live(&house).await[0].heard_unix_nanos;
    house.let_pass(Duration::from_secs(100)).await;
    let session = live(&house).await[0].session.expect("still there: 100 s are within interval and grace");
    assert!(session.left_seconds < 0.0 && session.refreshes == 1, "{session:?}");
    // No refresh any more, and no BYE of the phones.
    house.let_pass(Duration::from_secs(25)).await;
    for (phone, bye) in [&alice, &bob].into_iter().zip(house.hear_requests(&[&alice, &bob], "BYE").await) {
        assert!(bye.header(HeaderName::Reason).contains("not refreshed"));
        house.say(phone, &bye.answer("200 OK", "", ""));
    }
    let record = record_of(&house).await;
    assert_eq!((&*record.cause, record.end_unix_nanos), ("session_expired", heard), "the last sign of life");
}

#[tokio::test]
async fn the_callee_may_keep_the_timer_and_who_knows_none_has_none() {
    let (mut house, alice, bob) = house_with_phones(quick_sessions()).await;
    let setup = house.invite(&alice, &bob, "theirs", "").await;
    assert_eq!(setup.header(HeaderName::SessionExpires), "90", "asked for");
    pick_up(&mut house, &alice, &bob, &setup, "Session-Expires: 90;refresher=uas\n").await;
    assert_eq!(live(&house).await[0].session.map(|session| session.refresher), Some("callee"));
    assert!(house.core.end_call("theirs").await.is_ok());
    house.hear_requests(&[&alice, &bob], "BYE").await;

    let setup = house.invite(&alice, &bob, "nobodys", "").await;
    let answered = pick_up(&mut house, &alice, &bob, &setup, "").await;
    assert_eq!(answered.header(HeaderName::SessionExpires), "", "the caller would not understand it");
    assert_eq!(live(&house).await[0].session, None);
}

#[tokio::test]
async fn an_interval_too_small_is_refused_and_tried_again_as_one_attempt() {
    let (mut house, alice, bob) = house_with_phones(quick_sessions()).await;
    let short = "Supported: timer\nSession-Expires: 60\n";
    house.say_with(&alice, &alice.invite("bob", "short", 1, short), SDP);
    house.hear_status(&alice, 100).await;
    let challenged = house.hear_status(&alice, 407).await;
    house.acknowledge(&alice, &challenged);
    let authorization = authorize(&challenged, "alice", PASSWORD, "INVITE", "sip:bob@belfry.test");
    house.say_with(&alice, &alice.invite("bob", "short", 2, &format!("{authorization}{short}")), SDP);
    house.hear_status(&alice, 100).await;
    let refused = house.hear_status(&alice, 422).await;
    assert_eq!(refused.header(HeaderName::MinSe), "90");
    house.acknowledge(&alice, &refused);
    assert_eq!((live(&house).await.len(), house.relay.asked().len()), (0, 0));

    assert_eq!(house.metric("core_session_intervals_refused_total"), Some(1.0));
    assert_eq!(house.metric("core_call_records_total{outcome=\"written\"}"), None, "it is not over yet");
    // Who knows no timers is not refused: the called side is told.
    let setup = house.invite(&alice, &bob, "old", "Session-Expires: 60\n").await;
    let headers = (setup.header(HeaderName::SessionExpires), setup.header(HeaderName::MinSe));
    assert_eq!(headers, ("90".to_owned(), "90".to_owned()));
}

#[tokio::test]
async fn a_silent_call_ended_when_it_was_last_heard() {
    let (mut house, alice, bob) = house_with_phones(Config::for_test()).await;
    let setup = house.invite(&alice, &bob, "silent", "").await;
    pick_up(&mut house, &alice, &bob, &setup, "").await;
    let before = live(&house).await.remove(0);
    house.relay.heard_nothing_for(3600.0);
    house.relay.notice(Notice::Silent { session: SessionKey("silent".to_owned()) });
    house.hear_requests(&[&alice, &bob], "BYE").await;
    let record = record_of(&house).await;
    assert_eq!(&*record.cause, "media_timeout");
    // An hour ago it did not live yet; its answer and ACK are the last that was heard.
    assert!(record.end_unix_nanos >= before.answer_unix_nanos.expect("answered"));
    assert!(record.end_unix_nanos <= before.heard_unix_nanos.max(before.start_unix_nanos));
}
