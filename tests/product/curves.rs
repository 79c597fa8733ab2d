//! What single calls knew of their sound, asked for in PromQL by their Call-ID.

use serde_json::Value as Json;

use crate::running::{Ports, Running, belfry, eventually, free_port, site_config};
use crate::sipp::{call_with_sipp, register_with_sipp};

/// The answer to a request, as JSON.
fn ask(belfry: &Running, path: &str) -> Json {
    let (status, body) = belfry.api(path);
    assert_eq!(status, 200, "{path}: {body}");
    // A chunked answer has its lengths around it.
    let from = body.find('{').unwrap_or_default();
    let to = body.rfind('}').unwrap_or_default();
    serde_json::from_str(&body[from..=to]).unwrap_or_else(|error| panic!("{path}: {error}: {body}"))
}

/// Points of a curve: milliseconds since the Unix epoch and value.
fn points(series: &Json) -> Vec<(i64, f64)> {
    let point = |point: &Json| {
        let millis = (point[0].as_f64().expect("a time") * 1000.0).round() as i64;
        (millis, point[1].as_str().expect("text").parse().expect("a number"))
    };
    series["values"].as_array().expect("points").iter().map(point).collect()
}

#[test]
fn a_call_answers_promql_with_what_its_page_shows() {
    let directory = tempfile::tempdir().unwrap();
    let ports = Ports::free();
    let config =
        site_config(directory.path(), &ports).replace("[media]\n", "[media]\nquality_window = \"200ms\"\n");
    let site = Running::start(directory.path(), ports, &config);
    site.subscribe(&["alice", "bob"]);
    let (alice, bob) = (free_port(), free_port());
    register_with_sipp(directory.path(), "alice", alice, ports.sip);
    register_with_sipp(directory.path(), "bob", bob, ports.sip);
    call_with_sipp(directory.path(), [alice, bob], 2, ports.sip);
    let calls = eventually("both calls are found", || {
        let found = ask(&site, "/api/v1/calls?outcome=answered");
        (found["calls"].as_array()?.len() == 2).then(|| found["calls"].clone())
    });
    let call_id = calls[0]["call_id"].as_str().expect("a Call-ID").to_owned();
    let call = eventually("its quality is found", || {
        let call = ask(&site, &format!("/api/v1/calls/{call_id}"));
        let legs = call["quality"].as_array()?.clone();
        (legs.len() == 2
            && legs.iter().all(|leg| leg["points"].as_array().is_some_and(|list| list.len() > 1)))
        .then_some(call)
    });
    for (metric, read) in [
        (
            "rtp_jitter_seconds",
            &(|point: &Json| point["jitter_ms"].as_f64().map(|millis| millis / 1000.0))
                as &dyn Fn(&Json) -> Option<f64>,
        ),
        ("rtp_loss_ratio", &|point| point["loss_ratio"].as_f64()),
        ("rtp_packets", &|point| point["packets"].as_f64()),
        ("rtp_mos", &|point| point["mos"].as_f64()),
    ] {
        for leg in call["quality"].as_array().expect("legs") {
            let name = leg["leg"].as_str().expect("a leg");
            let selector = format!("{metric}%7Bcall_id=%22{call_id}%22,leg=%22{name}%22%7D");
            let found = ask(&site, &format!("/api/v1/query?query={selector}%5B1h%5D"));
            let mut asked: Vec<(i64, f64)> = Vec::new();
            for series in found["data"]["result"].as_array().expect("series") {
                assert_eq!(series["metric"]["region"], leg["region"], "{found}");
                asked.extend(points(series));
            }
            asked.sort_by_key(|(at, _)| *at);
            let shown: Vec<(i64, f64)> = leg["points"]
                .as_array()
                .expect("points")
                .iter()
                .filter_map(|point| Some((point["unix_ms"].as_f64()?.floor() as i64, read(point)?)))
                .collect();
            assert!(!shown.is_empty() && asked.len() == shown.len(), "{metric} {name}: {asked:?} {shown:?}");
            for ((at, value), (shown_at, shown)) in asked.iter().zip(&shown) {
                assert!(
                    (at - shown_at).abs() <= 1 && (value - shown).abs() < 1e-9,
                    "{metric} {name} at {at}"
                );
            }
        }
    }
    // In functions, with real series, through our own command; and nothing of it is in the index.
    let url = format!("http://127.0.0.1:{}", ports.api);
    let expr = format!(
        "max by (leg) (max_over_time(rtp_jitter_seconds{{call_id=\"{call_id}\"}}[1h])) * on () group_left () vector(1)"
    );
    let output = belfry(&["promql", "query", &expr, "--url", &url]);
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(table.contains("{leg=\"callee\"}") && table.contains("{leg=\"caller\"}"), "{table}");
    let output = belfry(&["promql", "explain", &expr, "--url", &url]);
    let plan = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(plan.starts_with("MILLISECONDS") && plan.contains("range: rtp_jitter_seconds"), "{plan}");
    let output = belfry(&["promql", "query", "rtp_jitter_seconds", "--url", &url]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("call_id="), "advice");
    let names = ask(&site, "/api/v1/label/__name__/values");
    assert!(!names.to_string().contains("rtp_"), "{names}");
}
