//! `kill -9` during traffic, and start again: everything acknowledged is there, and calls work at once.

use crate::real_clients::register_with_sipp;
use crate::running::{Ports, Running, eventually, free_port, site_config};

#[test]
fn what_was_acknowledged_survives_a_kill_during_traffic() {
    let directory = tempfile::tempdir().unwrap();
    let ports = Ports::free();
    let belfry = Running::start(directory.path(), ports, &site_config(directory.path(), &ports));
    belfry.subscribe(&["frank"]);
    for _ in 0..5 {
        register_with_sipp(directory.path(), "frank", free_port(), ports.sip);
    }
    // Stored means fsynced in the write-ahead log and applied; the counter moves after that.
    let stored = eventually("records are stored", || {
        let stored = belfry.metric("pipeline_records_stored_total", "kind=\"sip\"");
        (stored >= 20.0).then_some(stored)
    });
    let found_before = sip_messages(&belfry);
    assert!(found_before >= 20, "{found_before} messages are found of {stored} stored");
    let config = belfry.config.clone();
    belfry.kill();

    let belfry = Running::start_again(directory.path(), ports, config);
    let found_after = sip_messages(&belfry);
    assert!(
        found_after >= found_before,
        "{found_after} messages are found after the crash, {found_before} before"
    );
    register_with_sipp(directory.path(), "frank", free_port(), ports.sip);
    assert_eq!(belfry.stop(), Some(0), "it stops in order");
}

fn sip_messages(belfry: &Running) -> usize {
    let (status, body) = belfry.api("/api/v1/logs?query=kind:sip&limit=1000");
    assert_eq!(status, 200, "{body}");
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
    answer["lines"].as_array().expect("lines").len()
}
