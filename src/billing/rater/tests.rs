use belfry_signal::{Registry, Resource};
use belfry_state::{CallRecord, Config, Prepaid, ProfileDocument, RecordPage, State};

use super::*;

const PROFILE: &str = r#"
name = "NAME"
version = 1
currency = "EUR"
time_zone = "UTC"
free = { seconds = 90, period = "day" }
[[destinations]]
name = "anywhere"
prefixes = ["4"]
tariffs = [{ name = "flat", price_per_minute = "PRICE", takes_free_seconds = true }]
"#;

/// A call of a minute that ended at this second.
fn call(name: &str, caller: &str, callee: &str, second: u64) -> CallRecord {
    CallRecord {
        caller: caller.to_owned().into(),
        callee: callee.to_owned().into(),
        answer_unix_nanos: Some(second * 1_000_000_000),
        end_unix_nanos: (second + 60) * 1_000_000_000,
        ..CallRecord::for_test(name)
    }
}

async fn prices(ledger: &Ledger) -> Vec<String> {
    let (records, _) = ledger.records(&RecordPage::new(0, u64::MAX / 4, 100)).await.expect("readable");
    let shown = |record: &CallRecord| {
        let name = record.call_id.reveal();
        record.charge.as_ref().map_or(format!("{name} -"), |c| {
            format!("{name} {} {}/{} {}", c.price, c.profile, c.profile_version, c.free_seconds)
        })
    };
    records.iter().map(shown).collect()
}

async fn put(ledger: &Ledger, name: &str, version: u32, price: &str) {
    let document = PROFILE.replace("NAME", name).replace("PRICE", price);
    let document = document.replace("version = 1", &format!("version = {version}"));
    ledger.put_profile(ProfileDocument { name: name.to_owned(), version, document }).await.expect("kept");
}

async fn rate(ledger: &Ledger) -> u64 {
    let mut rater = Rater::load(ledger, Some("all".to_owned())).await.expect("loaded");
    // Calls of one batch use free seconds one after another too.
    rater.step(2).await.expect("rated") + rater.step(100).await.expect("rated")
}

#[tokio::test]
async fn calls_are_rated_once_and_again_when_it_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let registry = Registry::new(Resource::for_test(), 100).0;
    let state = State::open(Config::for_test(folder.path()), &registry).await.expect("opens");
    let ledger = state.ledger().expect("open");
    put(&ledger, "all", 1, "0.60").await;
    put(&ledger, "cheap", 1, "0.06").await;
    ledger.assign_profile("cheap.test", Some("cheap")).await.expect("assigned");
    ledger.assign_profile("dear@cheap.test", Some("all")).await.expect("assigned");
    let calls = [
        call("free", "sip:a@x.test", "sip:+431@x.test", 100),
        call("half", "sip:a@x.test", "tel:431;phone-context=+43", 200),
        call("full", "sip:a@x.test", "sip:431@x.test;user=phone", 300),
        call("next day", "sip:a@x.test", "sip:431@x.test", 86_400),
        call("other caller", "sip:b@cheap.test", "sip:431@x.test", 86_500),
        call("cheap", "sip:b@cheap.test", "sip:431@x.test", 86_600),
        call("dear", "sip:dear@cheap.test", "sip:431@x.test", 86_700),
        call("nowhere", "sip:a@x.test", "sip:999@x.test", 86_800),
        CallRecord {
            answer_unix_nanos: None,
            ..call("unanswered", "sip:a@x.test", "sip:431@x.test", 86_900)
        },
    ];
    for record in &calls {
        state.books().close_call(state.books().open_call(), record.clone()).await.expect("kept");
        assert!(state.books().settle().await);
    }
    assert_eq!(rate(&ledger).await, 9);
    let expected = [
        "free 0.0000 all/1 60",
        "half 0.3000 all/1 30",
        "full 0.6000 all/1 0",
        "next day 0.0000 all/1 60",
        "other caller 0.0000 cheap/1 60",
        "cheap 0.0300 cheap/1 30",
        "dear 0.0000 all/1 60",
        "nowhere -",
        "unanswered 0 all/1 0",
    ];
    assert_eq!(prices(&ledger).await, expected);
    assert_eq!(rate(&ledger).await, 0, "once");

    // A new version is for what comes, until somebody asks for more; free seconds are given back first.
    put(&ledger, "all", 2, "0.6").await;
    assert_eq!(prices(&ledger).await, expected);
    assert_eq!(ledger.forget_ratings(250_000_000_000, 86_460_000_000_001).await.expect("forgotten"), 3);
    assert_eq!(rate(&ledger).await, 3);
    let again = prices(&ledger).await;
    assert_eq!(again[1..4], ["half 0.3000 all/2 30", "full 0.6000 all/2 0", "next day 0.0000 all/2 60"]);
    let refused = ledger
        .put_profile(ProfileDocument { name: "all".to_owned(), version: 2, document: "other".to_owned() })
        .await;
    assert_eq!(refused.expect_err("a version never changes").reason(), "profile_changed");
}

/// A call of a minute that alice's account pays for.
fn prepaid(name: &str, second: u64, version: u32) -> CallRecord {
    let prepaid = Prepaid {
        account: "a@x.test".to_owned().into(),
        profile: "all".to_owned(),
        profile_version: version,
    };
    CallRecord { prepaid: Some(prepaid), ..call(name, "sip:a@x.test", "sip:431@x.test", second) }
}

async fn balance(ledger: &Ledger) -> String {
    let account = ledger.account("a@x.test").await.expect("readable").expect("there");
    let movements = ledger.movements_of("a@x.test", 1_000).await.expect("readable");
    let sum: Decimal = movements.iter().map(|movement| movement.amount).sum();
    assert_eq!(sum, account.balance, "the balance is the sum of the ledger: {movements:?}");
    assert_eq!(movements.first().map(|movement| movement.balance_after), Some(account.balance));
    account.balance.normalize().to_string()
}

#[tokio::test]
async fn an_account_is_charged_once_for_each_record_by_the_version_that_its_call_was_let_in_by() {
    let folder = tempfile::tempdir().expect("a folder");
    let registry = Registry::new(Resource::for_test(), 100).0;
    let state = State::open(Config::for_test(folder.path()), &registry).await.expect("opens");
    let ledger = state.ledger().expect("open");
    put(&ledger, "all", 1, "0.60").await;
    ledger.open_account("a@x.test", "EUR").await.expect("opened");
    ledger.credit_account("a@x.test", Decimal::from(5), "v1", None).await.expect("booked");
    let close = async |record: &CallRecord| {
        let kept = state.books().close_call(state.books().open_call(), record.clone()).await;
        kept.expect("kept");
        assert!(state.books().settle().await);
    };
    close(&prepaid("one", 100, 1)).await;
    // The same call again, as after a crash between the record and its delivery.
    close(&prepaid("one", 100, 1)).await;
    rate(&ledger).await;
    // A minute; the free seconds of the profile are not for those who pay in advance.
    assert_eq!(balance(&ledger).await, "4.4");
    put(&ledger, "all", 2, "6").await;
    close(&prepaid("two", 200, 1)).await;
    close(&CallRecord { answer_unix_nanos: None, ..prepaid("unanswered", 300, 2) }).await;
    close(&CallRecord { is_emergency: true, ..prepaid("for help", 400, 2) }).await;
    rate(&ledger).await;
    assert_eq!(balance(&ledger).await, "3.8");
    // Rating again what was rated charges nobody again.
    assert_eq!(ledger.forget_ratings(0, u64::MAX / 4).await.expect("forgotten"), 0);
    rate(&ledger).await;
    assert_eq!(balance(&ledger).await, "3.8");
    // Nothing is lost when the account is not there: it owes.
    let mut orphan = prepaid("orphan", 500, 1);
    orphan.prepaid = orphan.prepaid.map(|prepaid| Prepaid { account: "b@x".to_owned().into(), ..prepaid });
    close(&orphan).await;
    rate(&ledger).await;
    let owing = ledger.account("b@x").await.expect("readable").expect("opened");
    assert_eq!(owing.balance.normalize().to_string(), "-0.6");
}

#[tokio::test]
async fn a_charge_that_is_refused_is_set_aside_and_the_others_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let registry = Registry::new(Resource::for_test(), 100).0;
    let state = State::open(Config::for_test(folder.path()), &registry).await.expect("opens");
    let ledger = state.ledger().expect("open");
    put(&ledger, "all", 1, "0.60").await;
    ledger.open_account("a@x.test", "EUR").await.expect("opened");
    // The account was opened in another currency after its call was let in.
    ledger.open_account("b@x", "GBP").await.expect("opened");
    let mut pounds = prepaid("pounds", 200, 1);
    pounds.prepaid = pounds.prepaid.map(|prepaid| Prepaid { account: "b@x".to_owned().into(), ..prepaid });
    for record in [&prepaid("one", 100, 1), &pounds, &prepaid("two", 300, 1)] {
        state.books().close_call(state.books().open_call(), record.clone()).await.expect("kept");
        assert!(state.books().settle().await);
    }
    assert_eq!(rate(&ledger).await, 3);
    assert_eq!(balance(&ledger).await, "-1.2");
    assert_eq!(rate(&ledger).await, 0, "it is not tried for ever");
    let text = registry.encode_text();
    for (outcome, count) in [("rated", 2), ("refused", 1)] {
        let line = format!("state_ratings_total{{outcome=\"{outcome}\"}} {count}");
        assert!(text.lines().any(|known| known == line), "{line} in {text}");
    }
    // Nobody was charged for it, and it is owed: a core that starts counts with it.
    let snapshot = ledger.accounts_snapshot().await.expect("readable");
    let owed: Vec<_> = snapshot.unrated.iter().map(|record| record.call_id.reveal().as_str()).collect();
    assert_eq!(owed, ["pounds"]);
    // When asked for, it alone is tried again.
    assert_eq!(ledger.forget_ratings(0, u64::MAX / 4).await.expect("forgotten"), 1);
    assert_eq!(rate(&ledger).await, 1);
    assert_eq!(balance(&ledger).await, "-1.2");
}
