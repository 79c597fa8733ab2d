//! Metrics as an operator asks for them: our own command, and Debian's promtool against the read API.

use std::path::Path;
use std::process::{Command, Output};

use crate::running::{Ports, Running, belfry, belfry_with_input, eventually, site_config, tool};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a command that must succeed printed, on both of its outputs.
fn printed(output: &Output) -> String {
    let all = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{}: {all}", output.status);
    all
}

fn promtool(arguments: &[&str]) -> Output {
    Command::new(tool("promtool")).args(arguments).output().expect("promtool runs")
}

/// A site whose metrics have been stored twice at least.
fn site(directory: &Path) -> Running {
    let ports = Ports::free();
    let config = site_config(directory, &ports) + "[observe.pipeline]\nsample_interval = \"1s\"\n";
    let belfry = Running::start(directory, ports, &config);
    eventually("metrics are stored", || {
        let (status, body) =
            belfry.api("/api/v1/query?query=count_over_time(series_head_series%5B1m%5D)%3E=2");
        assert_eq!(status, 200, "{body}");
        body.contains("\"value\"").then_some(())
    });
    belfry
}

#[test]
fn a_running_site_answers_our_command() {
    let directory = tempfile::tempdir().unwrap();
    let site = site(directory.path());
    let url = format!("http://127.0.0.1:{}", site.ports.api);
    let ask = |arguments: &[&str]| belfry(&[&["promql", "query", "--url", &url], arguments].concat());
    let table = printed(&ask(&["series_head_series"]));
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("SERIES") && lines[0].ends_with("VALUE"), "{table}");
    let count: f64 = lines[1].strip_prefix("series_head_series").unwrap().trim().parse().unwrap();
    assert!(count > 10.0, "{table}");
    let range = printed(&ask(&["sum(series_head_series)", "--from", "-10s", "--step", "1s"]));
    assert!(range.lines().count() >= 3 && range.starts_with("SERIES  TIME"), "{range}");
    let before = printed(&ask(&["count(series_head_series)", "--at", "-1d"]));
    assert_eq!(before, "SERIES  VALUE\n", "nothing was stored yesterday");
    assert_eq!(printed(&ask(&["-1 + 3"])), "2\n");
    let histogram = printed(&ask(&[
        "histogram_quantile(0.9, sum by (le) (rate(series_seal_seconds_bucket[1m]))) or vector(1)",
    ]));
    assert_eq!(histogram.lines().count(), 2, "{histogram}");
    let wrong = ask(&["sum("]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong.stderr).contains("1:5: parse error"), "{}", text(&wrong.stderr));
    let nobody = belfry(&["promql", "query", "1", "--url", "http://127.0.0.1:1"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody.stderr).contains("is Belfry running"), "{}", text(&nobody.stderr));
    let secure = belfry(&["promql", "query", "1", "--url", "https://127.0.0.1"]);
    assert!(text(&secure.stderr).contains("http://HOST:PORT"), "{}", text(&secure.stderr));
}

#[test]
fn promtool_asks_the_read_api() {
    let directory = tempfile::tempdir().unwrap();
    let site = site(directory.path());
    let url = format!("http://127.0.0.1:{}", site.ports.api);
    let instant = printed(&promtool(&["query", "instant", &url, "series_head_series"]));
    assert!(instant.starts_with("series_head_series => "), "{instant}");
    let scalar = printed(&promtool(&["query", "instant", &url, "1 / 0"]));
    assert!(scalar.starts_with("scalar: +Inf @["), "{scalar}");
    let range =
        printed(&promtool(&["query", "range", "--step=1s", &url, "sum by (job) (series_head_series)"]));
    assert!(range.starts_with("{} =>\n") && range.lines().count() >= 3, "{range}");
    let series = printed(&promtool(&["query", "series", "--match=pipeline_lag_entries", &url]));
    assert!(series.contains("store=\"series\""), "{series}");
    let labels = printed(&promtool(&["query", "labels", &url, "__name__"]));
    assert!(labels.lines().any(|name| name == "series_head_series"), "{labels}");
    let wrong = promtool(&["query", "instant", &url, "sum("]);
    assert!(!wrong.status.success());
    assert!(text(&wrong.stderr).contains("bad_data"), "{}", text(&wrong.stderr));
    // What `promtool check healthy` and `ready` ask in later releases than Debian's.
    for path in ["/-/healthy", "/-/ready"] {
        assert_eq!(site.api(path).0, 200, "{path}");
    }
}

#[test]
fn scripts_are_run_and_every_failure_has_its_line() {
    let directory = tempfile::tempdir().unwrap();
    let load = "load 1m\n  calls_total{region=\"eu\"} 0+60x10\n\n";
    let rate = "eval instant at 10m rate(calls_total[5m])\n  {region=\"eu\"}";
    let (good, bad) = (directory.path().join("good.test"), directory.path().join("bad.test"));
    std::fs::write(&good, format!("{load}{rate} 1\n")).unwrap();
    std::fs::write(&bad, format!("{load}{rate} 2\n\n{rate} 1\n")).unwrap();
    let (good, bad) = (good.to_string_lossy().into_owned(), bad.to_string_lossy().into_owned());
    assert_eq!(printed(&belfry(&["promql", "test", &good])), format!("{good}: 1 passed, 0 failed\n"));
    let output = belfry(&["promql", "test", &good, &bad]);
    assert_eq!(output.status.code(), Some(1));
    let report = text(&output.stdout);
    assert!(report.contains(&format!("{bad}: 1 passed, 1 failed\n  line 4: ")), "{report}");
    let missing = belfry(&["promql", "test", "/nowhere.test", &good]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("/nowhere.test") && text(&missing.stdout).contains("1 passed"));
}

#[test]
fn queries_are_laid_out_and_faults_pointed_at() {
    assert_eq!(
        printed(&belfry(&["promql", "fmt", "sum(rate(x[5m]))by(region)"])),
        "sum by (region) (rate(x[5m]))\n"
    );
    assert_eq!(printed(&belfry_with_input(&["promql", "fmt", "-"], "-x\n")), "-x\n");
    let wrong = belfry(&["promql", "fmt", "sum(up) by (region"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong.stderr).lines().last().unwrap().trim_end().ends_with('^'), "{}", text(&wrong.stderr));
}

/// The whole conformance suite through the command, where its data are at hand.
#[test]
#[allow(clippy::print_stdout, clippy::print_stderr, reason = "the table of the run, and that there was none")]
fn the_upstream_scripts_pass() {
    let Some(folder) = std::env::var_os("BELFRY_PROMQL_DIR") else {
        eprintln!("BELFRY_PROMQL_DIR is unset: the upstream scripts of PromQL were NOT run");
        return;
    };
    let mut files: Vec<String> = std::fs::read_dir(folder)
        .expect("a folder of scripts")
        .map(|file| file.unwrap().path().to_string_lossy().into_owned())
        .filter(|path| path.ends_with(".test"))
        .collect();
    files.sort();
    let mut arguments = vec!["promql", "test"];
    arguments.extend(files.iter().map(String::as_str));
    let report = printed(&belfry(&arguments));
    assert_eq!(report.lines().count(), files.len(), "{report}");
    println!("{report}");
}
