//! Calls that are paid for in advance, as phones and trunks see them.

use std::time::Duration;

use belfry_routing::rating::Decimal;
use belfry_sip_proto::HeaderName;
use belfry_state::{Books, CallRecord, ProfileDocument};

use super::house::{Heard, House, PASSWORD, Phone, SDP, authorize};
use super::routing::{NUMBER, ONE, PLAN, hang_up, is_idle, pick_up, refuse, trunk};
use crate::Config;
use crate::handle::Transport;

/// A cent a second to Germany; 0800 costs nothing.
const PROFILE: &str = r#"
name = "all"
version = 1
currency = "EUR"
time_zone = "UTC"
[[destinations]]
name = "Germany"
prefixes = ["49"]
tariffs = [{ name = "flat", price_per_minute = "0.60" }]
[[destinations]]
name = "free"
prefixes = ["44800"]
tariffs = [{ name = "flat", price_per_minute = "0" }]
"#;

/// A house in which these pay in advance, and a phone of alice's.
async fn house(accounts: &[(&str, &str)]) -> (House, Phone) {
    let mut house = House::with_plan(Config::for_test(), PLAN).await;
    let ledger = house.state.ledger().expect("open");
    let document = ProfileDocument { name: "all".to_owned(), version: 1, document: PROFILE.to_owned() };
    ledger.put_profile(document).await.expect("kept");
    for (name, balance) in accounts {
        ledger.open_account(name, "EUR").await.expect("opened");
        let amount: Decimal = balance.parse().expect("an amount");
        ledger.credit_account(name, amount, &format!("first of {name}"), None).await.expect("booked");
    }
    restart(&mut house).await;
    let alice = Phone::new("alice", Transport::Udp);
    house.register(&alice).await;
    (house, alice)
}

/// A core that knows all accounts.
async fn restart(house: &mut House) {
    let knows = "balances of accounts are known";
    let known =
        |house: &mut House| house.emitted().iter().filter(|body| format!("{body:?}").contains(knows)).count();
    known(house);
    house.restart().await;
    while known(house) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // The relay comes back by itself.
    house.until(|text| text.contains("core_relays 1")).await;
}

/// Alice calls a number with credentials; gives what comes after the 100.
async fn call(house: &mut House, alice: &Phone, number: &str, call_id: &str) -> Heard {
    house.say_with(alice, &alice.invite(number, call_id, 1, ""), SDP);
    house.hear_status(alice, 100).await;
    let challenged = house.hear_status(alice, 407).await;
    house.acknowledge(alice, &challenged);
    let uri = format!("sip:{number}@belfry.test");
    let authorization = authorize(&challenged, alice.user, PASSWORD, "INVITE", &uri);
    house.say_with(alice, &alice.invite(number, call_id, 2, &authorization), SDP);
    house.hear_status(alice, 100).await;
    house.hear().await
}

/// Alice calls and is let in; gives the 200 that she got.
async fn talk(house: &mut House, alice: &Phone, call_id: &str) -> Heard {
    let invite = call(house, alice, NUMBER, call_id).await;
    assert_eq!(invite.message.method(), "INVITE", "{}", invite.text());
    pick_up(house, alice, ONE, &invite).await
}

#[track_caller]
fn is_refused(heard: &Heard, status: u16, text: &str) {
    assert_eq!(heard.status(), status, "{}", heard.text());
    assert_eq!(heard.header(HeaderName::Reason), format!("SIP;cause={status};text=\"{text}\""));
    assert_eq!(heard.header(HeaderName::Warning), format!("399 belfry.test \"{text}\""));
}

/// Both sides are hung up on, and confirm it.
async fn is_cut_off(house: &mut House, alice: &Phone) {
    let mut hung_up = Vec::new();
    for _ in 0..2 {
        let bye = house.hear().await;
        assert_eq!(bye.message.method(), "BYE", "{}", bye.text());
        assert_eq!(bye.header(HeaderName::Reason), "SIP;cause=402;text=\"credit is used up\"");
        let phone = if bye.flow == alice.flow { alice.clone() } else { trunk(ONE) };
        house.say(&phone, &bye.answer("200 OK", "", ""));
        hung_up.push(bye.flow);
    }
    hung_up.sort();
    let mut expected = [alice.flow.clone(), trunk(ONE).flow];
    expected.sort();
    assert_eq!(hung_up, expected);
    is_idle(house).await;
}

#[tokio::test]
async fn a_call_is_cut_off_at_the_second_in_which_its_money_ends() {
    for (balance, seconds) in [("0.10", 10), ("0.60", 60), ("1.25", 125)] {
        let (mut house, alice) = house(&[("alice@belfry.test", balance)]).await;
        talk(&mut house, &alice, "cut").await;
        house.let_pass(Duration::from_secs(seconds) - Duration::from_millis(300)).await;
        assert!(house.is_quiet().await, "{balance} pays for {seconds} s");
        house.let_pass(Duration::from_millis(400)).await;
        is_cut_off(&mut house, &alice).await;
        let record = house.state.call_records(1).await.expect("readable").remove(0);
        assert_eq!((&*record.cause, &*record.outcome, record.status_code), ("no_credit", "answered", 200));
        let talked = record.end_unix_nanos - record.answer_unix_nanos.expect("answered");
        assert_eq!(talked, seconds * 1_000_000_000);
        assert_eq!(record.called_number.as_ref().map(|number| number.reveal().as_str()), Some("+4930123"));
        assert_eq!((record.tenant.as_deref(), record.called_trunk.as_deref()), (Some("acme"), Some("one")));
        let prepaid = record.prepaid.expect("paid in advance");
        assert_eq!((prepaid.account.reveal().as_str(), prepaid.profile_version), ("alice@belfry.test", 1));
        // Nothing has been charged yet, but it is owed.
        let refused = call(&mut house, &alice, NUMBER, "again").await;
        is_refused(&refused, 402, "not enough credit");
        assert_eq!(house.metric("core_prepaid_renewals_total{outcome=\"cut_off\"}"), Some(1.0));
    }
}

#[tokio::test]
async fn who_cannot_pay_is_refused_and_who_need_not_is_let_in() {
    let (mut house, alice) = house(&[("alice@belfry.test", "0")]).await;
    let refused = call(&mut house, &alice, NUMBER, "no-money").await;
    is_refused(&refused, 402, "not enough credit");
    house.acknowledge(&alice, &refused);
    // Trunk two serves everything, but the profile has no price for it.
    let refused = call(&mut house, &alice, "0012125551234", "no-price").await;
    is_refused(&refused, 403, "no price for this number");
    house.acknowledge(&alice, &refused);
    for (number, call_id) in [("0800123456", "free"), ("112", "help"), ("bob", "inside")] {
        let heard = call(&mut house, &alice, number, call_id).await;
        let is_let_in = heard.message.is_request() || heard.status() == 480;
        assert!(is_let_in, "{number}: {}", heard.text());
        if heard.message.is_request() {
            is_busy(&mut house, &alice, &heard).await;
        } else {
            house.acknowledge(&alice, &heard);
        }
    }
    let asked =
        |outcome: &str| house.metric(&format!("core_prepaid_decisions_total{{outcome=\"{outcome}\"}}"));
    assert_eq!((asked("no_credit"), asked("no_price"), asked("free")), (Some(1.0), Some(1.0), Some(2.0)));
    // What costs nothing is rated by the prices of its day, too; only calls for help are nobody's.
    house.until(|text| text.contains("core_live_calls 0")).await;
    let records = house.state.call_records(10).await.expect("readable");
    let version = |call_id: &str| {
        let record = records.iter().find(|record| record.call_id.reveal() == call_id).expect("a record");
        record.prepaid.as_ref().map(|prepaid| prepaid.profile_version)
    };
    assert_eq!((version("free"), version("inside"), version("help")), (Some(1), Some(1), None));
    for cause in ["no_credit", "not_chargeable"] {
        let line = format!("core_calls_ended_total{{cause=\"{cause}\",region=\"eu\"}} 1");
        house.until(|text| text.contains(&line)).await;
    }
    let decided = house.emitted();
    let spans = decided.iter().map(|body| format!("{body:?}"));
    assert!(spans.filter(|span| span.contains("\"charge\"") && span.contains("no_credit")).count() >= 1);
}

/// The trunk that got an INVITE is busy, and nobody is asked in its place.
async fn is_busy(house: &mut House, alice: &Phone, invite: &Heard) {
    refuse(house, &invite.flow, invite, "486 Busy Here").await;
    let busy = house.hear_status(alice, 486).await;
    house.acknowledge(alice, &busy);
}

#[tokio::test]
async fn calls_of_one_account_share_its_money_and_give_back_what_they_do_not_use() {
    let (mut house, alice) = house(&[("acme", "0.70")]).await;
    // The tenant pays for alice; trunk one takes one call at a time, two is dearer and takes the other.
    let first = talk(&mut house, &alice, "first").await;
    let invite = call(&mut house, &alice, NUMBER, "second").await;
    assert_eq!(invite.message.method(), "INVITE", "ten cents are left: {}", invite.text());
    is_busy(&mut house, &alice, &invite).await;
    hang_up(&mut house, &alice, ONE, &first).await;
    is_idle(&house).await;
    let records = house.state.call_records(2).await.expect("readable");
    assert!(
        records.iter().all(|record| {
            record.prepaid.as_ref().is_some_and(|prepaid| prepaid.account.reveal() == "acme")
        })
    );
    // What the first held of its minute is free again, all but the second that it talked.
    let again = talk(&mut house, &alice, "third").await;
    let page = house.core.live_calls_page(crate::LiveFilter::default(), 0, 10).await.expect("a page");
    assert_eq!(page.calls[0].paid_seconds, Some(60));
    hang_up(&mut house, &alice, ONE, &again).await;
}

#[tokio::test]
async fn what_a_lost_call_owes_is_known_before_anybody_is_let_in_again() {
    let (mut house, alice) = house(&[("alice@belfry.test", "0.01")]).await;
    talk(&mut house, &alice, "lost").await;
    restart(&mut house).await;
    let record = house.state.call_records(1).await.expect("readable").remove(0);
    assert_eq!((&*record.cause, record.prepaid.is_some()), ("node_lost", true));
    let talked = record.end_unix_nanos - record.answer_unix_nanos.expect("answered");
    let refused = call(&mut house, &alice, NUMBER, "next").await;
    // It died in the nanosecond of its answer, or its first second is owed.
    if talked > 0 {
        is_refused(&refused, 402, "not enough credit");
    }
    assert_eq!(hear_nothing_else(&mut house).await, 0);
}

#[tokio::test]
async fn what_a_record_owes_that_the_database_refuses_is_owed_all_the_same() {
    let (mut house, alice) = house(&[("alice@belfry.test", "0.60")]).await;
    let answered = talk(&mut house, &alice, "known").await;
    hang_up(&mut house, &alice, ONE, &answered).await;
    is_idle(&house).await;
    // Another call of a minute, whose record lies beside the database.
    let known = house.state.call_records(1).await.expect("readable").remove(0);
    let answer = known.answer_unix_nanos.expect("answered");
    let record =
        CallRecord { call_id: "refused".to_owned().into(), end_unix_nanos: answer + 60_000_000_000, ..known };
    Books::set_aside_for_test(house.directory(), &record).expect("set aside");
    restart(&mut house).await;
    let refused = call(&mut house, &alice, NUMBER, "next").await;
    is_refused(&refused, 402, "not enough credit");
}

async fn hear_nothing_else(house: &mut House) -> usize {
    house.hear_all().await.iter().filter(|heard| heard.message.is_request()).count()
}

#[tokio::test]
async fn a_top_up_counts_while_a_call_is_up_and_when_it_would_be_cut_off() {
    let mut config = Config::for_test();
    config.prepaid.poll_interval = Duration::from_millis(20);
    let mut house = House::with_plan(config, PLAN).await;
    let alice = Phone::new("alice", Transport::Udp);
    house.register(&alice).await;
    let ledger = house.state.ledger().expect("open");
    let document = ProfileDocument { name: "all".to_owned(), version: 1, document: PROFILE.to_owned() };
    ledger.put_profile(document).await.expect("kept");
    // Nobody pays in advance yet; then alice does, while the core runs.
    let invite = call(&mut house, &alice, NUMBER, "before").await;
    assert_eq!(invite.message.method(), "INVITE");
    is_busy(&mut house, &alice, &invite).await;
    ledger.open_account("alice@belfry.test", "EUR").await.expect("opened");
    house.until(|text| text.contains("core_prepaid_levels_reached_total{level=\"empty\"} 1")).await;
    let refused = call(&mut house, &alice, NUMBER, "empty").await;
    is_refused(&refused, 402, "not enough credit");
    house.acknowledge(&alice, &refused);
    let two: Decimal = "2".parse().expect("an amount");
    assert!(ledger.credit_account("alice@belfry.test", two, "v1", None).await.expect("booked"));
    assert!(!ledger.credit_account("alice@belfry.test", two, "v1", None).await.expect("booked"));
    house.until(|text| text.contains("core_prepaid_levels_reached_total{level=\"funded\"} 1")).await;
    let invite = call(&mut house, &alice, NUMBER, "funded").await;
    assert!(invite.message.is_request(), "{}", invite.text());
    let answered = pick_up(&mut house, &alice, ONE, &invite).await;
    hang_up(&mut house, &alice, ONE, &answered).await;
    is_idle(&house).await;
}

#[tokio::test]
async fn what_happens_within_a_call_neither_costs_nor_saves_money() {
    let (mut house, alice) = house(&[("alice@belfry.test", "0.10")]).await;
    let answered = talk(&mut house, &alice, "changed").await;
    let carrier = trunk(ONE);
    house.let_pass(Duration::from_secs(5)).await;
    // The session changes, and is asked about.
    let change = house.in_dialog(&alice, "INVITE", 10, &answered, &carrier.contact(), None);
    house.say_with(&alice, &change, SDP);
    house.hear_status(&alice, 100).await;
    let change = house.hear_request(&carrier, "INVITE").await;
    let contact = format!("Contact: {}\n", carrier.contact());
    house.say_with(&carrier, &change.answer("200 OK", "", &contact), SDP);
    let changed = house.hear_status(&alice, 200).await;
    house.say(&alice, &house.in_dialog(&alice, "ACK", 10, &changed, &carrier.contact(), None));
    house.hear_request(&carrier, "ACK").await;
    for (cseq, method) in [(11, "INFO"), (12, "OPTIONS")] {
        house.say(&alice, &house.in_dialog(&alice, method, cseq, &answered, &carrier.contact(), None));
        let request = house.hear_request(&carrier, method).await;
        house.say(&carrier, &request.answer("200 OK", "", ""));
        house.hear_status(&alice, 200).await;
    }
    // A change that is refused ends nothing.
    let refused = house.in_dialog(&alice, "INVITE", 13, &answered, &carrier.contact(), None);
    house.say_with(&alice, &refused, SDP);
    house.hear_status(&alice, 100).await;
    let refused = house.hear_request(&carrier, "INVITE").await;
    house.say(&carrier, &refused.answer("488 Not Acceptable Here", "", ""));
    house.hear_request(&carrier, "ACK").await;
    let refused = house.hear_status(&alice, 488).await;
    house.acknowledge(&alice, &refused);
    house.let_pass(Duration::from_millis(4_500)).await;
    assert!(house.is_quiet().await, "ten seconds are not over");
    house.let_pass(Duration::from_millis(600)).await;
    is_cut_off(&mut house, &alice).await;
    assert_eq!(house.metric("core_call_attempts_total{region=\"eu\",result=\"answered\"}"), Some(1.0));
}

#[tokio::test]
async fn whoever_is_hung_up_on_pays_for_the_begun_second_only() {
    let (mut house, alice) = house(&[("alice@belfry.test", "0.02")]).await;
    let invite = call(&mut house, &alice, NUMBER, "short").await;
    let answered = pick_up(&mut house, &alice, ONE, &invite).await;
    // The called side hangs up at once.
    let carrier = trunk(ONE);
    let bye = house.in_dialog(&carrier, "BYE", 7, &invite, &alice.contact(), Some("tt"));
    house.say(&carrier, &bye);
    let bye = house.hear_request(&alice, "BYE").await;
    house.say(&alice, &bye.answer("200 OK", "", ""));
    house.hear_status(&carrier, 200).await;
    is_idle(&house).await;
    assert_eq!(answered.status(), 200);
    talk(&mut house, &alice, "next").await;
    let page = house.core.live_calls_page(crate::LiveFilter::default(), 0, 10).await.expect("a page");
    assert_eq!(page.calls[0].paid_seconds, Some(1), "a cent is owed, a cent is left");
}
