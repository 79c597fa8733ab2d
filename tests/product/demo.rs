//! The demo as a newcomer runs it: a fault, one page with its evidence, one resolve, and nothing lost.

use serde_json::Value;

use crate::running::{belfry, free_port};

#[test]
fn a_fault_in_the_demo_is_one_page_and_one_resolve() {
    let directory = tempfile::tempdir().unwrap();
    let report = directory.path().join("report.json");
    // The demo's doors are twenty thousand ports or less above their usual places.
    let offset = (free_port() % 17_000 + 3_000).to_string();
    let output = belfry(&[
        "demo",
        "--for",
        "45",
        "--fault",
        "core-errors@12+15",
        "--port-offset",
        &offset,
        "--report",
        &report.to_string_lossy(),
    ]);
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(said.contains("/login/"), "a newcomer gets a login link:\n{said}");
    let report: Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    assert!(report["calls"]["completed_ratio_outside_faults"].as_f64().unwrap() >= 0.995, "{report:#}");
    assert!(report["calls"]["completed"].as_u64().unwrap() >= 50, "{report:#}");
    assert_eq!(report["signals"]["dropped"], 0, "{report:#}");
    assert_eq!(report["signals"]["emitted"], report["signals"]["stored"], "{report:#}");
    let pages: Vec<&Value> =
        report["pages"].as_array().unwrap().iter().filter(|page| page["journey"] == "call_setup").collect();
    assert_eq!(pages.len(), 1, "{report:#}");
    assert_eq!(
        (&pages[0]["triggers"], &pages[0]["resolves"]),
        (&Value::from(1), &Value::from(1)),
        "{report:#}"
    );
    assert_eq!(pages[0]["fault"], "core-errors");
    // The promise to on-call, with the machine to itself.
    assert!(pages[0]["seconds_to_trigger"].as_f64().unwrap() <= 8.0, "{report:#}");
}
