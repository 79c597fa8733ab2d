//! `kill -9` during traffic, and start again: everything acknowledged is there, and calls work at once.

use std::collections::BTreeSet;

use crate::running::{Ports, Running, eventually, free_port, site_config};
use crate::sipp::{call_with_sipp, register_with_sipp, start_calls};

/// Calls that would be made if nobody pulled the plug.
const CALLS: u32 = 400;

#[test]
fn what_was_acknowledged_survives_a_kill_during_traffic() {
    let directory = tempfile::tempdir().unwrap();
    let ports = Ports::free();
    let belfry = Running::start(directory.path(), ports, &site_config(directory.path(), &ports));
    belfry.subscribe(&["alice", "bob"]);
    let phones = [free_port(), free_port()];
    register_with_sipp(directory.path(), "alice", phones[0], ports.sip);
    register_with_sipp(directory.path(), "bob", phones[1], ports.sip);
    let traffic = start_calls(directory.path(), phones, CALLS, ports.sip);
    // What the read API shows has been fsynced and applied: it was acknowledged.
    let before =
        eventually("forty calls are found", || Some(calls(&belfry)).filter(|calls| calls.len() >= 40));
    assert!(belfry.metric("core_live_calls", "") >= 1.0, "there are calls under way");
    let (status, body) = belfry.api("/api/v1/calls/live?transport=udp&limit=1000");
    let live: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert!(status == 200 && !live["calls"].as_array().expect("calls").is_empty(), "{status} {body}");
    let (status, body) = belfry.api("/api/v1/calls/live?state=lively");
    assert!(status == 400 && body.contains("older_than"), "{status} {body}");
    let config = belfry.config.clone();
    belfry.kill();
    drop(traffic);

    let belfry = Running::start_again(directory.path(), ports, config);
    let after = eventually("every call is found again", || {
        let after = calls(&belfry);
        before.is_subset(&after).then_some(after)
    });
    assert!(after.len() >= before.len());
    // Nobody registers again: the bindings were acknowledged too, and calls work at once.
    call_with_sipp(directory.path(), phones, 10, ports.sip);
    assert_eq!(belfry.stop(), Some(0), "it stops in order");
}

/// The Call-IDs of the answered calls.
fn calls(belfry: &Running) -> BTreeSet<String> {
    let (status, body) = belfry.api("/api/v1/calls?outcome=answered&limit=1000");
    assert_eq!(status, 200, "{body}");
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
    let ids = answer["calls"]
        .as_array()
        .expect("calls")
        .iter()
        .map(|call| call["call_id"].as_str().unwrap().to_owned());
    ids.collect()
}
