//! `kill -9` under calls, again and again: no call record is lost or doubled.
//!
//! Phones of the kit call without pause while the product is killed and started on what it left. In the end, every
//! call whose BYE was answered with 200 has one record, and no call has two.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use belfry_kit::{AnswerPlan, CallOutcome, CallPlan, CallReport, Phone, PhoneConfig};
use belfry_signal::Registry;
use belfry_state::{CallRecord, Config, Lost, State};
use tokio_util::sync::CancellationToken;

use crate::running::{Ports, Running, site_config};

/// How often the product is killed, when [`RUNS_VARIABLE`] does not say.
const RUNS: usize = 3;
const RUNS_VARIABLE: &str = "BELFRY_KILL_RUNS";
/// Calls at a time.
const CALLERS: u64 = 12;
const RING: Duration = Duration::from_millis(20);

async fn phone(user: &str, sip: u16) -> Arc<Phone> {
    let edge = SocketAddr::from((Ipv4Addr::LOCALHOST, sip));
    let mut config = PhoneConfig::new(user, "belfry.test", "secret", edge);
    config.answer = AnswerPlan::Answer { ring: RING };
    config.timeout = Duration::from_secs(4);
    config.expires = Duration::from_secs(3600);
    Arc::new(Phone::start(config).await.expect("a socket"))
}

/// Calls one after another until it is told to stop; some are taken back while they ring.
async fn keep_calling(alice: Arc<Phone>, number: u64, stop: CancellationToken) -> Vec<CallReport> {
    let mut reports = Vec::new();
    while !stop.is_cancelled() {
        let turn = reports.len() as u64 * CALLERS + number;
        let mut plan = CallPlan::talk(Duration::from_millis(20 + turn * 37 % 400));
        plan.give_up_after = Duration::from_secs(3);
        plan.cancel_after = turn.is_multiple_of(11).then_some(Duration::ZERO);
        let report = alice.call("sip:bob@belfry.test", plan).await;
        if report.outcome != CallOutcome::Ended {
            // Whoever is turned away while the product starts need not storm it.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        reports.push(report);
    }
    reports
}

/// All records in the database of a product that has stopped, after what the spool held was delivered.
async fn records(directory: &Path) -> Vec<CallRecord> {
    let state = State::open(Config::for_test(&directory.join("data/state")), &Registry::for_test()).await;
    let state = state.expect("nobody holds it");
    assert_eq!(state.books().close_lost_calls(Lost::Answered).await, [], "a stop leaves no call open");
    // Callers who heard nothing and have not given up when it stopped.
    state.books().close_lost_calls(Lost::All).await;
    assert!(state.books().settle().await, "the database takes everything");
    let records = state.call_records(u32::MAX).await.expect("readable");
    assert_eq!(state.drain(Duration::from_secs(10)).await, Vec::<String>::new());
    records
}

/// Holds the records against what the callers saw.
fn check(reports: &[CallReport], records: &[CallRecord]) -> String {
    let mut by_call: HashMap<&str, Vec<&CallRecord>> = HashMap::new();
    for record in records {
        by_call.entry(record.call_id.reveal()).or_default().push(record);
    }
    let doubled: Vec<_> = by_call.iter().filter(|(_, records)| records.len() > 1).collect();
    assert!(doubled.is_empty(), "{} calls have more than one record: {doubled:?}", doubled.len());
    let (mut ended, mut lost_while_talking, mut unknown_answers) = (0, 0, 0);
    for report in reports.iter().filter(|report| report.status == 200) {
        let record = by_call.get(report.call_id.as_str()).map(|records| records[0]);
        // Answered calls have a record however they ended; those whose BYE was answered must.
        let record = record.unwrap_or_else(|| panic!("no record of {report:?}"));
        // Between an answer and its note lie microseconds, in which a core may die: then nobody has talked yet.
        assert!(record.answer_unix_nanos.is_some() || record.cause == "node_lost", "{record:?}");
        unknown_answers += u32::from(record.answer_unix_nanos.is_none());
        ended += u32::from(report.outcome == CallOutcome::Ended);
        lost_while_talking += u32::from(record.cause == "node_lost");
        assert!(record.end_unix_nanos >= record.start_unix_nanos, "{record:?}");
    }
    let lost = records.iter().filter(|record| record.cause == "node_lost").count();
    format!(
        "{} attempts, {ended} with their BYE answered 200, {} records, {lost} of calls that died with their core \
         ({lost_while_talking} of them answered, {unknown_answers} of those noted as ringing)",
        reports.len(),
        records.len(),
    )
}

#[test]
#[allow(clippy::print_stderr, reason = "whoever runs it long wants to know what it did")]
fn no_record_is_lost_or_doubled_however_often_the_product_is_killed() {
    let runs = std::env::var(RUNS_VARIABLE).map_or(RUNS, |runs| runs.parse().expect("a number of runs"));
    let directory = tempfile::tempdir().unwrap();
    let ports = Ports::free();
    let mut belfry = Running::start(directory.path(), ports, &site_config(directory.path(), &ports));
    belfry.subscribe(&["alice", "bob"]);
    let config = belfry.config.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (alice, bob) = runtime.block_on(async {
        let (alice, bob) = (phone("alice", ports.sip).await, phone("bob", ports.sip).await);
        alice.register().await.expect("registered");
        bob.register().await.expect("registered");
        (alice, bob)
    });
    let stop = CancellationToken::new();
    let callers: Vec<_> = (0..CALLERS)
        .map(|number| runtime.spawn(keep_calling(Arc::clone(&alice), number, stop.clone())))
        .collect();
    for run in 0..runs {
        // Nothing to wait for: it dies at any moment of its calls.
        std::thread::sleep(Duration::from_millis(300 + (run as u64 * 7_919) % 1_000));
        belfry.kill();
        belfry = Running::start_again(directory.path(), ports, config.clone());
    }
    std::thread::sleep(Duration::from_millis(500));
    stop.cancel();
    let reports: Vec<CallReport> = runtime.block_on(async {
        let mut reports = Vec::new();
        for caller in callers {
            reports.extend(caller.await.expect("a caller"));
        }
        reports
    });
    drop(bob);
    assert_eq!(belfry.stop(), Some(0), "it stops in order");
    let records = runtime.block_on(records(directory.path()));
    let summary = check(&reports, &records);
    eprintln!("{runs} kills: {summary}");
    assert!(reports.iter().filter(|report| report.outcome == CallOutcome::Ended).count() >= runs * 5);
}
