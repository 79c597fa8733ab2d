//! PromQL beside Debian's Prometheus: the same random data written into both, the same random queries asked of both.
//!
//! `BELFRY_DIFFERENTIAL_QUERIES` asks more of them, `BELFRY_DIFFERENTIAL_SEED` others. Samples lie 3.7 s after multiples of
//! five seconds, and all times and ranges of queries are such multiples, so that no boundary falls on a sample: windows
//! are open to the left since 3.0, and closed in Debian's 2.42.

mod data;
mod queries;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use belfry_pipeline::metrics::remote_write::{Protocol, encode};
use belfry_signal::SeriesBatch;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value as Json;

use crate::metric_doors::start;
use crate::running::{PATIENCE, Ports, Running, eventually, free_port};

/// How far apart two numbers may be, of the larger one, and of one.
const TOLERANCE: f64 = 1e-9;
/// Differences that are told before the test gives up.
const TOLD_MAX: usize = 30;

/// What 2.42 answers otherwise: a part of the query, a part of the difference or the complaint, and why.
const KNOWN: &[(&str, &str, &str)] = &[
    ("__name__", "with the same labelset\" null", "2.42 drops names at once, 3.0 when all is computed"),
    ("atan2", "__name__", "2.42 keeps the name of a metric that atan2 has changed"),
    ("predict_linear", " @ ", "2.42 takes predict_linear with @ to be the same at all times"),
    ("std", "ours \"NaN\"", "2.42 says that one infinity or NaN alone deviates by nothing"),
    ("predict_linear", "theirs \"NaN\"", "2.42 adds up infinities to NaN where it compensates"),
    ("deriv", "theirs \"NaN\"", "2.42 adds up infinities to NaN where it compensates"),
];

#[test]
#[allow(clippy::print_stdout, reason = "what was compared")]
fn prometheus_answers_alike() {
    let number = |name: &str, usual: u64| {
        std::env::var(name)
            .map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name}: {text:?} is no number")))
    };
    let (seed, count) = (number("BELFRY_DIFFERENTIAL_SEED", 1), number("BELFRY_DIFFERENTIAL_QUERIES", 400));
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let (ports, theirs) = (Ports::free(), free_port());
    std::fs::write(path.join("empty.yml"), "global: {}\n").expect("written");
    let _prometheus = start(
        path,
        "prometheus",
        &[
            "--config.file=empty.yml".to_owned(),
            "--storage.tsdb.path=theirs".to_owned(),
            format!("--web.listen-address=127.0.0.1:{theirs}"),
            "--web.enable-remote-write-receiver".to_owned(),
            "--enable-feature=native-histograms,promql-at-modifier,promql-negative-offset".to_owned(),
        ],
    );
    let config = format!(
        "[node]\ndata = \"{}\"\nlog = \"warn\"\n[admin]\nlisten = \"127.0.0.1:{}\"\n[observe]\nlisten = \"127.0.0.1:{}\"\n\
         promql_experimental = true\n\
         [observe.series]\nout_of_order_window = \"6h\"\n",
        path.join("data").display(),
        ports.admin,
        ports.api,
    );
    let belfry = Running::start(path, ports, &config);
    let both = [belfry.ports.api, theirs];
    eventually("prometheus is ready", || {
        (exchange(theirs, "GET", "/-/ready", &[], &[])?.0 == 200).then_some(())
    });
    // Whole hours, so that the same seed is the same story at any time of the day.
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let begin = (now / 3600 - 2) * 3600;
    let mut random = StdRng::seed_from_u64(seed);
    for batch in data::batches(&mut random, begin) {
        both.iter().for_each(|port| write(*port, &batch));
    }
    let mut tally = Tally::default();
    for _ in 0..count {
        let query = queries::query(&mut random, begin);
        let at = begin + 600 + 5 * random.random_range(0..600);
        tally.compare(both, &query, "/api/v1/query", &[("time", at.to_string())]);
        let step = queries::pick(&mut random, &[15, 60, 65, 300]);
        let range =
            [("start", (at - 600).to_string()), ("end", (at + 600).to_string()), ("step", step.to_string())];
        tally.compare(both, &query, "/api/v1/query_range", &range);
    }
    println!(
        "{} answers alike, {} of them empty, {} refused by both; skipped: {:?}",
        tally.alike, tally.empty, tally.refused, tally.skipped
    );
    assert!(tally.differences.is_empty(), "seed {seed}:\n{}", tally.differences.join("\n"));
    assert!(tally.alike * 10 >= count * 2 * 7, "too little was compared");
    assert!(tally.empty * 2 < tally.alike, "most answers are empty");
}

#[derive(Default)]
struct Tally {
    alike: u64,
    empty: u64,
    refused: u64,
    skipped: std::collections::BTreeMap<&'static str, u64>,
    differences: Vec<String>,
}

impl Tally {
    fn compare(&mut self, ports: [u16; 2], query: &str, path: &str, times: &[(&str, String)]) {
        if self.differences.len() >= TOLD_MAX {
            return;
        }
        // Renamed in 3.0.
        let today = query.replace("holt_winters(", "double_exponential_smoothing(");
        let (ours, theirs) = (ask(ports[0], path, &today, times), ask(ports[1], path, query, times));
        match (&ours["error"], &theirs["error"]) {
            (Json::Null, Json::Null) => {
                let (left, right) = (sorted(&ours["data"]), sorted(&theirs["data"]));
                if is_alike(&left, &right) {
                    self.alike += 1;
                    self.empty += u64::from(right["result"].as_array().is_some_and(Vec::is_empty));
                    return;
                }
            }
            (Json::String(_), Json::String(_)) => {
                self.refused += 1;
                return;
            }
            _ => {}
        }
        let told = format!(
            "{query}\n  {times:?}\n  {} {} {}",
            first_difference(&sorted(&ours["data"]), &sorted(&theirs["data"])),
            theirs["error"],
            ours["error"]
        );
        match KNOWN.iter().find(|(part, also, _)| query.contains(part) && told.contains(also)) {
            Some((_, _, why)) => *self.skipped.entry(why).or_default() += 1,
            None => self.differences.push(told),
        }
    }
}

/// An answer's series in an order of their own: that of a vector has no meaning.
fn sorted(data: &Json) -> Json {
    let mut data = data.clone();
    if let Some(result) = data["result"].as_array_mut()
        && result.iter().all(Json::is_object)
    {
        result.sort_by_key(|series| series["metric"].to_string());
    }
    data
}

fn is_alike(left: &Json, right: &Json) -> bool {
    match (left, right) {
        (Json::Array(left), Json::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(left, right)| is_alike(left, right))
        }
        (Json::Object(left), Json::Object(right)) => {
            left.len() == right.len()
                && left.iter().all(|(name, value)| {
                    right.get(name).is_some_and(|other| {
                        if name == "metric" { value == other } else { is_alike(value, other) }
                    })
                })
        }
        (Json::String(left), Json::String(right)) => {
            left == right
                || match (left.parse::<f64>(), right.parse::<f64>()) {
                    (Ok(left), Ok(right)) => {
                        let scale = left.abs().max(right.abs()).max(1.0);
                        (left.is_nan() && right.is_nan()) || (left - right).abs() <= TOLERANCE * scale
                    }
                    _ => false,
                }
        }
        _ => left == right,
    }
}

/// Where two answers part, short enough to be read.
fn first_difference(ours: &Json, theirs: &Json) -> String {
    let pairs: Vec<(String, &Json, &Json)> = match (ours, theirs) {
        (Json::Array(left), Json::Array(right)) if left.len() == right.len() => (0..)
            .zip(left.iter().zip(right))
            .map(|(at, (left, right))| (format!("[{at}]"), left, right))
            .collect(),
        (Json::Object(left), Json::Object(right))
            if left.keys().eq(right.keys()) && !left.contains_key("__name__") =>
        {
            left.iter().map(|(name, value)| (format!(".{name}"), value, &right[name])).collect()
        }
        _ => Vec::new(),
    };
    let parting = pairs.into_iter().find(|(_, left, right)| !is_alike(left, right));
    if let Some((place, left, right)) = parting {
        return place + &first_difference(left, right);
    }
    let short = |json: &Json| json.to_string().chars().take(300).collect::<String>();
    format!(": ours {}, theirs {}", short(ours), short(theirs))
}

fn write(port: u16, batch: &SeriesBatch) {
    let headers = [
        ("Content-Type", "application/x-protobuf"),
        ("Content-Encoding", "snappy"),
        ("X-Prometheus-Remote-Write-Version", "0.1.0"),
    ];
    let (status, body) =
        exchange(port, "POST", "/api/v1/write", &headers, &encode(Protocol::V1, batch)).expect("an answer");
    assert!((200..300).contains(&status), "{port}: {status} {body}");
}

fn ask(port: u16, path: &str, query: &str, times: &[(&str, String)]) -> Json {
    let mut form = format!("query={}", escaped(query));
    for (name, value) in times {
        form.push_str(&format!("&{name}={value}"));
    }
    let headers = [("Content-Type", "application/x-www-form-urlencoded")];
    let (_, body) = exchange(port, "POST", path, &headers, form.as_bytes()).expect("an answer");
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{port} {query}: {error}: {body}"))
}

fn escaped(text: &str) -> String {
    text.bytes()
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            },
        )
        .collect()
}

/// A request of HTTP/1.0, so that the answer is not cut into chunks.
fn exchange(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Option<(u16, String)> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut head =
        format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}
