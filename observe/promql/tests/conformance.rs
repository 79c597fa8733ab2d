//! Upstream's conformance scripts against our engine. They are other people's data and no part of this
//! repository: their folder comes from `BELFRY_PROMQL_DIR`. Passes per file may only rise.

use std::fs;
use std::path::PathBuf;

/// Files that are complete, with the number of their evals: all pass, and stay passing.
const COMPLETE: &[(&str, usize)] = &[
    ("aggregators.test", 160),
    ("functions.test", 431),
    ("histograms.test", 185),
    ("literals.test", 25),
    ("native_histograms.test", 522),
    ("operators.test", 214),
    ("selectors.test", 31),
    ("staleness.test", 17),
];

#[test]
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "the table is the point of this test")]
fn conformance_scripts_pass() {
    let Ok(folder) = std::env::var("BELFRY_PROMQL_DIR") else {
        eprintln!(
            "NOT RUN: PromQL conformance scripts. Set BELFRY_PROMQL_DIR to a folder with *.test files."
        );
        return;
    };
    let mut paths: Vec<PathBuf> =
        fs::read_dir(&folder).expect("a folder").flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "test"));
    paths.sort();
    assert!(!paths.is_empty(), "no *.test in {folder}");
    let mut faults = Vec::new();
    for path in paths {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let report = belfry_promql::run_script(&fs::read_to_string(&path).expect("a readable script"));
        println!("{name}: {} passed, {} failed", report.passed, report.failed.len());
        for failure in &report.failed {
            println!("  {name}:{}: {}", failure.line, failure.text);
        }
        let Some((_, passes)) = COMPLETE.iter().find(|(complete, _)| *complete == name) else { continue };
        if report.passed < *passes || !report.failed.is_empty() {
            faults.push(format!("{name}: {} passed, {} failed", report.passed, report.failed.len()));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
