//! The HTTP API of Prometheus, path by path, as clients ask it: GET and POST, gzip, pages from elsewhere.

use std::process::Command;

use serde_json::{Value as Json, json};

use crate::running::{Ports, Running, eventually, site_config, tool};

/// Status, headers in lower case, and body, as curl has them.
fn curl(arguments: &[&str], url: &str) -> (u16, String, String) {
    let output = Command::new(tool("curl"))
        .args(["--silent", "--include", "--max-time", "20", "--globoff"])
        .args(arguments)
        .arg(url)
        .output()
        .expect("curl runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    (status, head.to_lowercase(), body.to_owned())
}

struct Site {
    _running: Running,
    url: String,
    _directory: tempfile::TempDir,
}

impl Site {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let ports = Ports::free();
        let config = site_config(directory.path(), &ports)
            + "cors_origins = [\"https://graphs.example\"]\n[observe.pipeline]\nsample_interval = \"1s\"\n\
               [alerts.engine]\n[alerts.notify]\n[alerts.routing]\n";
        let running = Running::start(directory.path(), ports, &config);
        let url = format!("http://127.0.0.1:{}", ports.api);
        Self { _running: running, url, _directory: directory }
    }

    fn get(&self, path: &str) -> Json {
        self.asked(&[], path)
    }

    /// The data of a success.
    fn asked(&self, arguments: &[&str], path: &str) -> Json {
        let (status, head, body) = curl(arguments, &format!("{}{path}", self.url));
        assert_eq!(status, 200, "{path}: {head} {body}");
        let answer: Json =
            serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"));
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        answer["data"].clone()
    }
}

const OTLP: &str = r#"{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"s"}}]},
    "scopeMetrics":[{"metrics":[{"name":"pushed","gauge":{"dataPoints":[{"timeUnixNano":"NOW","asDouble":7.5}]}}]}]}]}"#;

#[test]
fn every_path_of_the_api_answers() {
    let site = Site::start();
    eventually("metrics are stored", || {
        let found = site.get("/api/v1/query?query=series_head_series");
        (!found["result"].as_array()?.is_empty()).then_some(())
    });
    // Path, and what of the answer tells that it is the right one. The same by GET and as a form.
    let is_object = |data: &Json, keys: &[&str]| keys.iter().all(|key| data.get(key).is_some());
    for (path, form) in [
        ("query", "query=vector(1)"),
        ("query_range", "query=vector(1)&start=0&end=60&step=30"),
        ("series", "match[]=series_head_series"),
        ("labels", "match[]=series_head_series"),
        ("query_exemplars", "query=series_head_series&start=0&end=60"),
        ("format_query", "query=sum(x)by(y)"),
        ("parse_query", "query=sum(x)by(y)"),
    ] {
        let got = site.get(&format!("/api/v1/{path}?{form}"));
        let posted = site.asked(&["--data", form], &format!("/api/v1/{path}"));
        if path != "query" {
            assert_eq!(got, posted, "{path}");
        }
    }
    for (path, keys) in [
        ("metadata?metric=series_head_series", &["series_head_series"][..]),
        ("metadata?metric=rtp_jitter_seconds", &["rtp_jitter_seconds"]),
        ("rules", &["groups"]),
        ("alerts", &["alerts"]),
        ("targets", &["activeTargets", "droppedTargets"]),
        ("status/config", &["yaml"]),
        ("status/flags", &["query.timeout", "storage.tsdb.retention.time"]),
        ("status/runtimeinfo", &["startTime", "storageRetention"]),
        ("status/buildinfo", &["version", "goVersion"]),
        ("status/tsdb", &["headStats", "seriesCountByMetricName"]),
        ("status/walreplay", &["min", "max", "current"]),
    ] {
        let data = site.get(&format!("/api/v1/{path}"));
        assert!(is_object(&data, keys), "{path}: {data}");
    }
    assert!(site.get("/api/v1/targets/metadata").is_array());
    assert_eq!(
        site.get("/api/v1/label/__name__/values?match[]=series_head_series"),
        json!(["series_head_series"])
    );
    let (status, head, page) = curl(&[], &format!("{}/federate?match[]=series_head_series", site.url));
    assert!(status == 200 && head.contains("text/plain") && page.contains("series_head_series{"), "{page}");
    for path in ["/-/healthy", "/-/ready"] {
        assert_eq!(curl(&[], &format!("{}{path}", site.url)).0, 200, "{path}");
    }
    // What is no protobuf is said to be none; what is, is written in `metric_doors.rs`.
    for path in ["write", "read"] {
        let (status, _, body) = curl(&["--data-binary", "x"], &format!("{}/api/v1/{path}", site.url));
        assert!((400..500).contains(&status), "{path}: {status} {body}");
    }
    let now = site.get("/api/v1/query?query=time()")["result"][0].as_f64().expect("a time");
    let body = OTLP.replace("NOW", &format!("{:.0}", now * 1e9));
    let sent = ["--header", "content-type: application/json", "--data-binary", &body];
    let (status, _, answer) = curl(&sent, &format!("{}/api/v1/otlp/v1/metrics", site.url));
    assert_eq!((status, answer.as_str()), (200, "{}"));
    let found = site.get("/api/v1/query?query=pushed{job=%22s%22}");
    assert_eq!(found["result"][0]["value"][1], "7.5", "{found}");
}

#[test]
fn answers_are_packed_and_pages_from_elsewhere_need_an_invitation() {
    let site = Site::start();
    let range = format!("{}/api/v1/query_range?query=time()&start=0&end=5000&step=1", site.url);
    let (status, head, packed) = curl(&["--header", "accept-encoding: gzip"], &range);
    assert!(status == 200 && head.contains("content-encoding: gzip"), "{head}");
    let (_, head, plain) = curl(&[], &range);
    assert!(!head.contains("content-encoding") && packed.len() < plain.len(), "{head}");
    let ask = |origin: &str, more: &[&str]| {
        let origin = format!("origin: {origin}");
        curl(&[&["--header", &origin], more].concat(), &format!("{}/api/v1/query?query=1", site.url))
    };
    let (status, head, _) = ask("https://graphs.example", &[]);
    assert!(status == 200 && head.contains("access-control-allow-origin: https://graphs.example"), "{head}");
    let preflight = ["--request", "OPTIONS", "--header", "access-control-request-method: POST"];
    assert_eq!(ask("https://graphs.example", &preflight).0, 204);
    let (status, head, _) = ask("https://other.example", &[]);
    assert!(status == 403 && !head.contains("access-control"), "{head}");
}
