//! Belfry's own test scripts, in the language that `belfry promql test` reads.

use std::fs;
use std::path::Path;

#[test]
fn own_scripts_pass() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut faults = Vec::new();
    let mut passed = 0;
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let report = belfry_promql::run_script(&fs::read_to_string(entry.path()).expect("a readable script"));
        passed += report.passed;
        faults
            .extend(report.failed.iter().map(|failure| format!("{name}:{}: {}", failure.line, failure.text)));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(passed > 100, "only {passed} evals were found");
}
