//! Work on the store of metrics while Belfry runs: `belfry series` through the admin door.

use std::process::Output;

use crate::running::{Ports, Running, belfry, eventually, http, site_config};

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_running_belfry_copies_exports_and_deletes_its_metrics() {
    let directory = tempfile::tempdir().expect("a folder");
    let ports = Ports::free();
    let config = site_config(directory.path(), &ports) + "[observe.pipeline]\nsample_interval = \"1s\"\n";
    let site = Running::start(directory.path(), ports, &config);
    let admin = format!("127.0.0.1:{}", site.ports.admin);
    let count = "/api/v1/query?query=count_over_time(pipeline_lag_entries%7Bstore=%22series%22%7D%5B1h%5D)";
    eventually("metrics are stored", || site.api(count).1.contains("\"value\"").then_some(()));
    let path = |name: &str| directory.path().join(name).display().to_string();
    let done = |arguments: &[&str]| {
        let output = belfry(&[&["series"], arguments, &["--admin", &admin]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        text(&output)
    };
    assert!(done(&["snapshot", &path("copy")]).contains("blocks in "));
    let exported = done(&["export", &path("out")]);
    assert!(exported.contains("carried over") && !exported.contains(" 0 samples"), "{exported}");
    // The copy is a store of its own.
    let compacted = belfry(&["series", "compact", "--directory", &path("copy")]);
    assert!(compacted.status.success(), "{}", text(&compacted));
    let deleted = done(&["delete", "pipeline_lag_entries{store=\"series\"}"]);
    assert!(!deleted.starts_with("0 points"), "{deleted}");
    let (_, left) = site.api("/api/v1/query?query=count(count_over_time(pipeline_lag_entries%5B1h%5D))");
    assert!(left.contains("\"value\""), "the others are still there: {left}");
    assert!(done(&["import", &path("out")]).contains("carried over"));
    assert!(done(&["compact"]).contains("blocks made of others"));
    let (status, work) = http(site.ports.admin, "GET", "/api/v1/series/work").expect("it answers");
    assert!(status == 200 && work.contains("\"work\":\"compact\",\"state\":\"done\""), "{work}");

    // Who ordered what is in the log, and faults say what to do.
    eventually("the order is in the log", || {
        let found = belfry(&[
            "logs",
            "\"work on the store of metrics ordered\"",
            "--api",
            &format!("127.0.0.1:{}", site.ports.api),
        ]);
        text(&found).contains("ordered by an operator").then_some(())
    });
    for (path, expected, said) in [
        ("/api/v1/series/work/delete", 400, "needs a selector"),
        ("/api/v1/series/work/delete?selector=rate(x%5B5m%5D)", 400, "is not a selector"),
        ("/api/v1/series/work/snapshot?path=here", 400, "begins at its root"),
        ("/api/v1/series/work/paint", 404, "delete, snapshot, export, import, compact"),
        ("/api/v1/series/work/delete?wrong=1", 400, "known are selector"),
    ] {
        let (status, body) = http(site.ports.admin, "POST", path).expect("it answers");
        assert!(status == expected && body.contains(said), "{path}: {status} {body}");
    }
    let config = site.config.display().to_string();
    let in_use = belfry(&["series", "compact", "--config", &config]);
    assert!(!in_use.status.success() && text(&in_use).contains("--admin"), "{}", text(&in_use));
    let failed = belfry(&["series", "import", &path("nowhere"), "--admin", &admin]);
    assert!(!failed.status.success() && text(&failed).contains("nowhere"), "{}", text(&failed));
}
