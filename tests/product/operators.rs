//! What an operator limits, ends and forgives, over the whole product: concurrent calls of subscribers, tenants and
//! trunks; live calls over HTTP; bans.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use belfry_kit::{AnswerPlan, CallOutcome, CallPlan, CallReport, Phone, PhoneConfig};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::running::{Ports, Running, belfry, eventually, http, site_config};

/// Longer than any test takes: somebody else ends these calls.
const TALK: Duration = Duration::from_secs(60);

const ROUTES: &str = r#"
[core.signalling.guard]
failures_free = 1
delay_first = "1ms"
delay_max = "2ms"
user_failures_max = 3
source_failures_max = 100
[[core.routing.tenants]]
name = "acme"
domains = ["belfry.test"]
dial = { country_code = "44" }
concurrent_calls_max = 3
subscriber_concurrent_calls_max = 2
[[core.routing.trunks]]
name = "carrier"
gateways = [{ uri = "sip:127.0.0.2:5999" }]
accept_networks = ["127.0.0.2/32"]
concurrent_calls_max = 1
serves_all = false
"#;

fn start(users: &[&str]) -> (tempfile::TempDir, Running, Runtime) {
    let directory = tempfile::tempdir().expect("a folder");
    let ports = Ports::free();
    let config = format!("{}{ROUTES}", site_config(directory.path(), &ports));
    let belfry = Running::start(directory.path(), ports, &config);
    belfry.subscribe(users);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("one");
    (directory, belfry, runtime)
}

async fn switched_on(user: &str, sip: u16, source: Ipv4Addr, password: &str) -> Arc<Phone> {
    let edge = SocketAddr::from((Ipv4Addr::LOCALHOST, sip));
    let mut config = PhoneConfig::new(user, "belfry.test", password, edge);
    config.answer = AnswerPlan::Answer { ring: Duration::from_millis(20) };
    config.source = source.into();
    Arc::new(Phone::start(config).await.expect("a socket"))
}

async fn phone(user: &str, sip: u16) -> Arc<Phone> {
    let phone = switched_on(user, sip, Ipv4Addr::LOCALHOST, "secret").await;
    phone.register().await.expect("registered");
    phone
}

/// Calls, and talks until somebody ends it.
fn talk(runtime: &Runtime, from: &Arc<Phone>, to: &str) -> JoinHandle<CallReport> {
    let (from, to) = (Arc::clone(from), format!("sip:{to}@belfry.test"));
    runtime.spawn(async move { from.call(&to, CallPlan::talk(TALK)).await })
}

#[track_caller]
fn is_refused(runtime: &Runtime, from: &Arc<Phone>, to: &str, status: u16) {
    let report =
        runtime.block_on(from.call(&format!("sip:{to}@belfry.test"), CallPlan::talk(Duration::ZERO)));
    assert_eq!(report.outcome, CallOutcome::Rejected(status), "{report:?}");
}

/// The Call-IDs of so many calls that talk.
fn talking(belfry: &Running, count: usize, filter: &str) -> Vec<String> {
    eventually("the calls talk", || {
        let (status, body) = belfry.api(&format!("/api/v1/calls/live?state=confirmed{filter}"));
        assert_eq!(status, 200, "{body}");
        let live: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        let calls = live["calls"].as_array().expect("calls");
        let ids = calls.iter().map(|call| call["call_id"].as_str().expect("an id").to_owned());
        let ids: Vec<String> = ids.collect();
        (ids.len() == count).then_some(ids)
    })
}

#[test]
fn nobody_has_more_calls_at_a_time_than_it_may_and_an_operator_ends_them() {
    let (_directory, belfry, runtime) = start(&["alice", "bob", "carol", "dave", "erin"]);
    let sip = belfry.ports.sip;
    let phones = ["alice", "bob", "carol", "dave", "erin"].map(|user| runtime.block_on(phone(user, sip)));
    let [alice, _bob, _carol, dave, erin] = &phones;
    let carrier = runtime.block_on(switched_on("carrier", sip, Ipv4Addr::new(127, 0, 0, 2), "none"));

    let mut calls = vec![talk(&runtime, alice, "bob"), talk(&runtime, alice, "carol")];
    talking(&belfry, 2, "");
    is_refused(&runtime, alice, "dave", 480);
    calls.push(talk(&runtime, dave, "bob"));
    talking(&belfry, 3, "&tenant=acme");
    is_refused(&runtime, erin, "bob", 486);
    is_refused(&runtime, erin, "carol", 480);
    let refused = |reason: &str| belfry.metric("core_route_refusals_total", reason);
    assert_eq!(["subscriber_full", "called_full", "tenant_full"].map(refused).map(|n| n as u32), [1, 1, 1]);

    // The API's door, the admin door and the command end one each.
    let ids = talking(&belfry, 3, "");
    let path = |id: &str| format!("/api/v1/calls/live/{}", id.replace('@', "%40"));
    let (status, body) = http(belfry.ports.api, "DELETE", &path(&ids[0])).expect("an answer");
    assert!(status == 200 && body.contains("\"confirmed\""), "{status} {body}");
    let (status, body) = http(belfry.ports.admin, "DELETE", &path(&ids[1])).expect("an answer");
    assert_eq!(status, 200, "{body}");
    let output = belfry_cli(&belfry, &["calls", "end", &ids[2]]);
    assert!(output.contains("ended"), "{output}");
    for call in calls {
        let report = runtime.block_on(call).expect("a report");
        assert_eq!(report.outcome, CallOutcome::Ended, "{report:?}");
        assert!(report.talked < TALK, "{report:?}");
    }
    let (status, body) = http(belfry.ports.api, "DELETE", &path(&ids[0])).expect("an answer");
    assert!(status == 404 && body.contains("no live call"), "{status} {body}");
    let listed = eventually("the records are there", || {
        let listed = belfry_records(&belfry, &["--cause", "operator"]);
        (listed.lines().count() == 4).then_some(listed)
    });
    assert!(listed.contains("acme"), "{listed}");
    eventually("nothing is held", || belfry.metric("core_tenant_calls", "").lt(&0.5).then_some(()));

    // A trunk's own limit, at its door; and its name in the list of live calls and in the record.
    let inward = talk(&runtime, &carrier, "bob");
    let ids = talking(&belfry, 1, "&trunk=carrier");
    is_refused(&runtime, &carrier, "carol", 503);
    assert_eq!(refused("trunk_full") as u32, 1);
    let again = talk(&runtime, alice, "dave");
    talking(&belfry, 2, "");
    assert_eq!(http(belfry.ports.api, "DELETE", &path(&ids[0])).expect("an answer").0, 200);
    assert_eq!(runtime.block_on(inward).expect("a report").outcome, CallOutcome::Ended);
    let left = talking(&belfry, 1, "");
    assert_eq!(http(belfry.ports.api, "DELETE", &path(&left[0])).expect("an answer").0, 200);
    assert_eq!(runtime.block_on(again).expect("a report").outcome, CallOutcome::Ended);
    let listed = eventually("its record is there", || {
        let listed = belfry_records(&belfry, &["--trunk", "carrier", "--cause", "operator"]);
        (listed.lines().count() == 2).then_some(listed)
    });
    assert!(listed.contains("carrier>"), "{listed}");
}

#[test]
fn whoever_guesses_is_banned_listed_and_forgiven() {
    let (_directory, belfry, runtime) = start(&["alice"]);
    let sip = belfry.ports.sip;
    let list = |arguments: &[&str]| belfry_cli(&belfry, &[&["bans", "list"], arguments].concat());
    assert_eq!(list(&[]), "ADDRESS  WHOM  LEFT  FAILURES\n0 bans\n");
    runtime.block_on(async {
        let guessing = switched_on("alice", sip, Ipv4Addr::LOCALHOST, "wrong").await;
        for _ in 0..4 {
            assert!(guessing.register().await.is_err());
        }
        let alice = switched_on("alice", sip, Ipv4Addr::LOCALHOST, "secret").await;
        assert!(alice.register().await.is_err(), "not from this address");
    });
    let listed = list(&[]);
    assert!(listed.contains("127.0.0.1  one user") && listed.ends_with("1 bans\n"), "{listed}");
    let (status, body) = belfry.api("/api/v1/bans");
    assert!(status == 200 && body.contains("\"source\":\"127.0.0.1\""), "{status} {body}");
    assert!(list(&["--json"]).contains("\"is_whole_source\":false"));
    let (status, body) = http(belfry.ports.api, "DELETE", "/api/v1/bans/nobody").expect("an answer");
    assert!(status == 400 && body.contains("is no address"), "{status} {body}");
    assert_eq!(belfry_cli(&belfry, &["bans", "pardon", "127.0.0.1"]), "127.0.0.1 is forgiven\n");
    assert_eq!(belfry_cli(&belfry, &["bans", "pardon", "203.0.113.9"]), "203.0.113.9 was not banned\n");
    assert!(list(&[]).ends_with("0 bans\n"));
    drop(runtime.block_on(phone("alice", sip)));
    assert!(belfry.logged().contains("pardon ordered by an operator"), "{}", belfry.logged());
}

/// Runs a command that asks the running Belfry; it must do what it is told.
#[track_caller]
fn belfry_cli(running: &Running, arguments: &[&str]) -> String {
    let api = format!("127.0.0.1:{}", running.ports.api);
    let output = belfry(&[arguments, &["--api", &api]].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[track_caller]
fn belfry_records(running: &Running, arguments: &[&str]) -> String {
    let config = running.config.to_string_lossy().into_owned();
    let output = belfry(&[&["records", "list", "--config", &config], arguments].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
