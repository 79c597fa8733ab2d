//! Calls that are paid for in advance, over the whole product: cut off at the second the money ends, charged once,
//! and right again after `kill -9` under calls.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use belfry_kit::{AnswerPlan, CallOutcome, CallPlan, Phone, PhoneConfig};
use belfry_signal::Registry;
use belfry_state::{CallRecord, Config, Ledger, RecordPage};
use rust_decimal::Decimal;
use tokio_util::sync::CancellationToken;

use crate::running::{Ports, Running, belfry, eventually, site_config};

/// A cent for each second of a call inside.
const BILLING: &str = r#"
[core.billing]
default_profile = "inside"
interval = "100ms"
[[core.billing.profiles]]
name = "inside"
version = 1
currency = "EUR"
time_zone = "UTC"
decimals = 2
[[core.billing.profiles.destinations]]
name = "inside"
prefixes = ["internal"]
tariffs = [{ name = "flat", price_per_minute = "0.60" }]
[core.signalling.prepaid]
slice = "2s"
renew_ahead = "1s"
poll_interval = "100ms"
"#;

async fn phone(user: &str, sip: u16) -> Arc<Phone> {
    let edge = SocketAddr::from((Ipv4Addr::LOCALHOST, sip));
    let mut config = PhoneConfig::new(user, "belfry.test", "secret", edge);
    config.answer = AnswerPlan::Answer { ring: Duration::from_millis(20) };
    config.timeout = Duration::from_secs(4);
    config.expires = Duration::from_secs(3600);
    let phone = Arc::new(Phone::start(config).await.expect("a socket"));
    phone.register().await.expect("registered");
    phone
}

/// Runs `belfry billing …` on a configuration; it must do what it is told.
#[track_caller]
fn billing(config: &Path, arguments: &[&str]) -> String {
    let config = config.to_string_lossy().into_owned();
    let output = belfry(&[&["billing"], arguments, &["--config", &config]].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// A site where this account has this much, and its phones.
struct Site {
    directory: tempfile::TempDir,
    ports: Ports,
    runtime: tokio::runtime::Runtime,
}

impl Site {
    fn start(account: &str, balance: &str) -> (Self, Running) {
        let directory = tempfile::tempdir().expect("a folder");
        let ports = Ports::free();
        let config = format!("{}{BILLING}", site_config(directory.path(), &ports));
        let belfry = Running::start(directory.path(), ports, &config);
        belfry.subscribe(&["alice", "bob", "carol"]);
        assert_eq!(billing(&belfry.config, &["account", "open", account, "--currency", "EUR"]), "opened\n");
        let booked = billing(&belfry.config, &["credit", account, balance, "--key", "first"]);
        assert!(booked.starts_with("booked"), "{booked}");
        eventually("the core knows the account", || {
            let reached = |level: &str| belfry.metric("core_prepaid_levels_reached_total", level);
            (reached("low") + reached("funded")).ge(&1.0).then_some(())
        });
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("one");
        (Self { directory, ports, runtime }, belfry)
    }

    /// The ledger of an account and all records, of a product that has stopped.
    fn books(&self, account: &str) -> (Decimal, Vec<belfry_state::Movement>, Vec<CallRecord>) {
        self.runtime.block_on(async {
            let config = Config::for_test(&self.directory.path().join("data/state"));
            let ledger = Ledger::open(&config, &Registry::for_test()).await.expect("opens");
            let balance = ledger.account(account).await.expect("readable").expect("there").balance;
            let movements = ledger.movements_of(account, u32::MAX).await.expect("readable");
            let page = RecordPage::new(0, u64::MAX / 4, 1_000_000);
            (balance, movements, ledger.records(&page).await.expect("readable").0)
        })
    }
}

#[test]
fn a_caller_with_money_for_three_seconds_is_cut_off_after_three_seconds() {
    let (site, belfry) = Site::start("alice@belfry.test", "0.03");
    let (alice, report) = site.runtime.block_on(async {
        let alice = phone("alice", site.ports.sip).await;
        let bob = phone("bob", site.ports.sip).await;
        let report = alice.call("sip:bob@belfry.test", CallPlan::talk(Duration::from_secs(20))).await;
        drop(bob);
        (alice, report)
    });
    assert_eq!((&report.outcome, report.status), (&CallOutcome::Ended, 200), "{report:?}");
    // It hears of its end when its money ends, and never before.
    assert!(report.talked >= Duration::from_millis(2_900), "{report:?}");
    assert!(report.talked < Duration::from_secs(15), "{report:?}");
    // Nothing is left, whether the call is charged by now or not.
    let refused = site.runtime.block_on(alice.call("sip:carol@belfry.test", CallPlan::talk(Duration::ZERO)));
    assert_eq!(refused.outcome, CallOutcome::Rejected(402));
    eventually("the call is charged", || {
        billing(&belfry.config, &["balance", "alice@belfry.test"]).starts_with("0.00 EUR").then_some(())
    });
    let shown = billing(&belfry.config, &["balance", "alice@belfry.test"]);
    assert!(shown.contains("charge") && shown.contains("-0.03") && shown.contains("first"), "{shown}");
    let config = belfry.config.to_string_lossy().into_owned();
    let listed = belfry_list(&config, &["--cause", "no_credit", "--tenant", "default"]);
    let line = listed.lines().find(|line| line.contains("sip:bob@belfry.test")).expect("the call");
    assert!(line.contains(" 3.000 ") && line.ends_with("0.03 EUR"), "{listed}");
    // Doing a top-up again changes nothing.
    let again = billing(&belfry.config, &["credit", "alice@belfry.test", "0.03", "--key", "first"]);
    assert!(again.contains("nothing changed; the balance is 0.00 EUR"), "{again}");
    assert_eq!(belfry.stop(), Some(0));
    let (balance, movements, records) = site.books("alice@belfry.test");
    assert!(balance.is_zero());
    assert_eq!(movements.iter().filter(|movement| movement.kind == "charge").count(), 1);
    let cut = records.iter().find(|record| record.cause == "no_credit" && record.status_code == 200);
    let cut = cut.expect("the record of the call that was cut off");
    assert_eq!(cut.end_unix_nanos - cut.answer_unix_nanos.expect("answered"), 3_000_000_000);
}

fn belfry_list(config: &str, arguments: &[&str]) -> String {
    let output = belfry(&[&["records", "list", "--config", config], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// How often the product is killed.
const KILLS: usize = 4;
/// Calls at a time.
const CALLERS: u64 = 6;

/// Calls one after another until it is told to stop.
async fn keep_calling(alice: Arc<Phone>, number: u64, stop: CancellationToken) -> u32 {
    let mut turn = 0;
    let mut answered = 0;
    while !stop.is_cancelled() {
        turn += 1;
        let mut plan = CallPlan::talk(Duration::from_millis(50 + (turn * CALLERS + number) * 97 % 2_500));
        plan.give_up_after = Duration::from_secs(3);
        let report = alice.call("sip:bob@belfry.test", plan).await;
        answered += u32::from(report.status == 200);
        if report.outcome != CallOutcome::Ended {
            // Whoever is turned away while the product starts need not storm it.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    answered
}

#[test]
fn balances_are_right_after_every_kill_and_every_call_is_charged_once() {
    const ACCOUNT: &str = "default";
    let (site, mut belfry) = Site::start(ACCOUNT, "1.00");
    let config = belfry.config.clone();
    let stop = CancellationToken::new();
    let (bob, callers) = site.runtime.block_on(async {
        let alice = phone("alice", site.ports.sip).await;
        let bob = phone("bob", site.ports.sip).await;
        let callers: Vec<_> = (0..CALLERS)
            .map(|number| tokio::spawn(keep_calling(Arc::clone(&alice), number, stop.clone())))
            .collect();
        (bob, callers)
    });
    for kill in 0..KILLS {
        std::thread::sleep(Duration::from_millis(700 + (kill as u64 * 7_919) % 1_000));
        belfry.kill();
        belfry = Running::start_again(site.directory.path(), site.ports, config.clone());
        // More money while they call, so that there are calls to lose.
        billing(&config, &["credit", ACCOUNT, "0.50", "--key", &format!("after kill {kill}")]);
    }
    std::thread::sleep(Duration::from_secs(2));
    stop.cancel();
    let answered = site.runtime.block_on(sum(callers));
    drop(bob);
    assert_eq!(belfry.stop(), Some(0), "it stops in order");
    // What came to the database while it stopped is charged after the next start.
    belfry = Running::start_again(site.directory.path(), site.ports, config.clone());
    let unrated = || belfry_list(&config.to_string_lossy(), &["--limit", "100000"]);
    eventually("every call is rated", || {
        let listed = unrated();
        let waiting = listed.lines().skip(1).any(|line| !line.trim_end().ends_with("EUR"));
        (!waiting).then_some(())
    });
    assert_eq!(belfry.stop(), Some(0), "it stops in order");
    let (balance, movements, records) = site.books(ACCOUNT);
    let mut prices: HashMap<String, Decimal> = HashMap::new();
    let paid = records.iter().filter(|record| record.prepaid.is_some());
    for record in paid {
        let price = record.charge.as_ref().map(|charge| charge.price.parse::<Decimal>().expect("a price"));
        let price = price.unwrap_or_else(|| panic!("not rated: {record:?}"));
        let before = prices.insert(record.charge_key(), price);
        assert_eq!(before, None, "two records of one call: {record:?}");
    }
    prices.retain(|_, price| !price.is_zero());
    let mut charged: HashMap<String, Decimal> = HashMap::new();
    for movement in movements.iter().filter(|movement| movement.kind == "charge") {
        let before = charged.insert(movement.key.reveal().clone(), -movement.amount);
        assert_eq!(before, None, "charged twice: {movement:?}");
    }
    assert_eq!(charged, prices, "every call is charged once, with the price of its record");
    assert_eq!(movements.iter().map(|movement| movement.amount).sum::<Decimal>(), balance);
    // What a core holds dies with it, but a call that is lost ends with the core's last sign of life, within what it
    // held: so not even a kill overdraws.
    assert!(balance >= Decimal::ZERO, "{balance}");
    assert!(answered >= 10 && !charged.is_empty(), "{answered} answered, {} charged", charged.len());
    assert!(records.iter().any(|record| record.cause == "node_lost"), "kills met calls");
}

async fn sum(callers: Vec<tokio::task::JoinHandle<u32>>) -> u32 {
    let mut sum = 0;
    for caller in callers {
        sum += caller.await.expect("a caller");
    }
    sum
}
