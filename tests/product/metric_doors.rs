//! Metrics in and out against those whom we stand beside: Debian's Prometheus and its node exporter.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value as Json;

use crate::running::{Guarded, Ports, Running, eventually, free_port, signal, tool, wait_for_end};

pub(crate) fn start(directory: &Path, name: &str, arguments: &[String]) -> Guarded {
    let output = fs::OpenOptions::new().create(true).append(true).open(directory.join(format!("{name}.log")));
    let output = output.expect("a log file");
    let child = Command::new(tool(name))
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(output.try_clone().expect("a handle"))
        .stderr(output)
        .spawn();
    Guarded::new(child.unwrap_or_else(|error| panic!("{name} does not start: {error}")))
}

fn exporter(directory: &Path, port: u16) -> Guarded {
    start(directory, "prometheus-node-exporter", &[format!("--web.listen-address=127.0.0.1:{port}")])
}

fn prometheus(directory: &Path, port: u16) -> Guarded {
    start(
        directory,
        "prometheus",
        &[
            "--config.file=theirs.yml".to_owned(),
            "--storage.tsdb.path=theirs".to_owned(),
            format!("--web.listen-address=127.0.0.1:{port}"),
            "--web.enable-remote-write-receiver".to_owned(),
        ],
    )
}

/// The answer to a request, as JSON.
fn ask(port: u16, path: &str, form: &[(&str, &str)]) -> Json {
    let mut command = Command::new(tool("curl"));
    command.args(["--silent", "--max-time", "10", "--compressed", "--get"]);
    for (name, value) in form {
        command.args(["--data-urlencode", &format!("{name}={value}")]);
    }
    let output = command.arg(format!("http://127.0.0.1:{port}{path}")).output().expect("curl runs");
    serde_json::from_slice(&output.stdout).unwrap_or(Json::Null)
}

/// Series by their labels, each with its points as text and number.
fn series(answer: &Json) -> BTreeMap<String, Vec<(String, f64)>> {
    let result = answer["data"]["result"].as_array().unwrap_or_else(|| panic!("no result: {answer}"));
    let point =
        |point: &Json| (point[0].to_string(), point[1].as_str().expect("text").parse().expect("a number"));
    let one = |series: &Json| {
        let points = series["values"]
            .as_array()
            .map_or_else(|| vec![point(&series["value"])], |values| values.iter().map(point).collect());
        (series["metric"].to_string(), points)
    };
    result.iter().map(one).collect()
}

fn first_value(port: u16, query: &str) -> Option<f64> {
    let answer = ask(port, "/api/v1/query", &[("query", query)]);
    answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
}

/// The same question to both: whether they answer alike, and what differs.
fn difference(ports: [u16; 2], query: &str, end: &str, start: &str) -> Option<String> {
    let form = [("query", query), ("start", start), ("end", end), ("step", "1")];
    let [ours, theirs] = ports.map(|port| series(&ask(port, "/api/v1/query_range", &form)));
    if theirs.is_empty() {
        return Some(format!("{query}: the other has nothing"));
    }
    let names = |found: &BTreeMap<String, _>| found.keys().cloned().collect::<Vec<_>>();
    if names(&ours) != names(&theirs) {
        return Some(format!("{query}: {} and {} series", ours.len(), theirs.len()));
    }
    for (labels, points) in &ours {
        let other = &theirs[labels];
        let is_alike = points.len() == other.len()
            && points.iter().zip(other).all(|((time, value), (other_time, other))| {
                let is_near = (value - other).abs() <= 1e-9 * other.abs().max(1e-9);
                time == other_time && (is_near || (value.is_nan() && other.is_nan()))
            });
        if !is_alike {
            return Some(format!("{query} {labels}: {points:?} and {other:?}"));
        }
    }
    None
}

/// A site that scrapes the exporter and sends what it has to Prometheus; Prometheus scrapes it too and writes into us.
struct World {
    directory: tempfile::TempDir,
    belfry: Option<Running>,
    api: u16,
    prometheus: Guarded,
    exporter: Option<Guarded>,
    theirs: u16,
    exporter_port: u16,
}

fn world() -> World {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path();
    let ports = Ports::free();
    let [theirs, exporter_port] = [free_port(), free_port()];
    let scrape = |job: &str| {
        format!(
            "- job_name: {job}\n  scrape_interval: 1s\n  static_configs: [{{targets: ['127.0.0.1:{exporter_port}'], labels: {{site: test}}}}]\n"
        )
    };
    // Each sends on only what it fetched itself.
    let send = |port: u16, job: &str| {
        format!(
            "remote_write:\n- url: http://127.0.0.1:{port}/api/v1/write\n  queue_config: {{batch_send_deadline: 1s}}\n  \
             write_relabel_configs: [{{source_labels: [job], regex: {job}, action: keep}}]\n"
        )
    };
    let file = |job: &str, to: u16| format!("scrape_configs:\n{}{}", scrape(job), send(to, job));
    fs::write(path.join("theirs.yml"), file("theirs", ports.api)).expect("written");
    fs::write(path.join("ours.yml"), file("ours", theirs)).expect("written");
    let config = format!(
        "[node]\ndata = \"{data}\"\nlog = \"warn,belfry=info\"\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n\
         [observe]\nlisten = \"127.0.0.1:{api}\"\n[observe.scrape]\nfile = \"{file}\"\n",
        data = path.join("data").display(),
        admin = ports.admin,
        api = ports.api,
        file = path.join("ours.yml").display(),
    );
    let exporter = exporter(path, exporter_port);
    let belfry = Running::start(path, ports, &config);
    let prometheus = prometheus(path, theirs);
    World {
        directory,
        api: belfry.ports.api,
        belfry: Some(belfry),
        prometheus,
        exporter: Some(exporter),
        theirs,
        exporter_port,
    }
}

impl World {
    fn ours(&self) -> u16 {
        self.api
    }

    /// A time that both have data around, to whole seconds, and one five seconds earlier.
    fn times(&self) -> (String, String) {
        let now = first_value(self.ours(), "vector(time())").expect("a time").floor();
        (format!("{}", now - 2.0), format!("{}", now - 7.0))
    }
}

const QUERIES: &[&str] = &[
    "up{job=\"JOB\"}",
    "node_cpu_seconds_total{job=\"JOB\"}",
    "sum by (mode) (rate(node_cpu_seconds_total{job=\"JOB\"}[5s]))",
    "count({job=\"JOB\"})",
    "count by (__name__) ({job=\"JOB\",__name__=~\"node_memory.*\"})",
    "scrape_samples_scraped{job=\"JOB\"}",
    "max_over_time(node_load1{job=\"JOB\"}[4s]) - min_over_time(node_load1{job=\"JOB\"}[4s])",
    "topk(3, go_memstats_alloc_bytes{job=\"JOB\"})",
    "go_gc_duration_seconds{job=\"JOB\",quantile=\"0.5\"}",
];

#[test]
fn both_know_what_either_measured() {
    let mut world = world();
    let ports = [world.ours(), world.theirs];
    for job in ["theirs", "ours"] {
        for port in ports {
            eventually("both stores have the job", || {
                first_value(port, &format!("count_over_time(up{{job=\"{job}\"}}[30s]) > 9"))
            });
        }
        let (end, start) = world.times();
        for query in QUERIES {
            let query = query.replace("JOB", job);
            let mut last = String::new();
            // What was measured last is still on its way.
            let deadline = std::time::Instant::now() + crate::running::PATIENCE;
            while let Some(difference) = difference(ports, &query, &end, &start) {
                last.clone_from(&difference);
                assert!(std::time::Instant::now() < deadline, "{last}");
                std::thread::sleep(std::time::Duration::from_millis(300));
            }
        }
    }
    targets_are_told(&world);
    what_they_miss_comes_later(&mut world);
    what_is_gone_ends(&mut world);
}

fn targets_are_told(world: &World) {
    let targets = ask(world.ours(), "/api/v1/targets", &[]);
    let active = &targets["data"]["activeTargets"][0];
    assert_eq!(active["health"], "up", "{targets}");
    assert_eq!(active["labels"]["job"], "ours", "{targets}");
    let described = ask(world.ours(), "/api/v1/metadata", &[("metric", "node_cpu_seconds_total")]);
    assert_eq!(described["data"]["node_cpu_seconds_total"][0]["type"], "counter", "{described}");
    let federated = Command::new(tool("curl"))
        .args(["--silent", "--get", "--data-urlencode", "match[]={job=\"ours\",__name__=\"up\"}"])
        .arg(format!("http://127.0.0.1:{}/federate", world.ours()))
        .output()
        .expect("curl runs");
    let page = String::from_utf8_lossy(&federated.stdout).into_owned();
    assert!(page.contains("up{instance=") && page.contains("job=\"ours\""), "{page}");
}

/// Prometheus is away for a while, and we are restarted meanwhile: it has every point afterwards.
fn what_they_miss_comes_later(world: &mut World) {
    let path = world.directory.path().to_owned();
    let from = first_value(world.ours(), "vector(time())").expect("a time");
    signal(world.prometheus.id(), "TERM");
    wait_for_end(&mut world.prometheus);
    let count = |port, seconds: f64| {
        first_value(port, &format!("count_over_time(up{{job=\"ours\"}}[{}s])", seconds.ceil()))
    };
    eventually("some points more", || {
        let now = first_value(world.ours(), "vector(time())")?;
        (now - from > 4.0).then_some(())
    });
    let belfry = world.belfry.as_ref().expect("it runs");
    let (ports, config) = (belfry.ports, belfry.config.clone());
    if let Some(belfry) = world.belfry.take() {
        belfry.kill();
    }
    world.belfry = Some(Running::start_again(&path, ports, config));
    world.prometheus = prometheus(&path, world.theirs);
    eventually("it has every point that we have", || {
        let now = first_value(world.ours(), "vector(time())")?;
        let (ours, theirs) = (count(world.ours(), now - from)?, count(world.theirs, now - from)?);
        (ours > 5.0 && (ours - theirs).abs() <= 1.0).then_some(())
    });
}

/// The exporter ends: its series end with the next scrape, and `up` says so.
fn what_is_gone_ends(world: &mut World) {
    drop(world.exporter.take());
    eventually("up is 0", || first_value(world.ours(), "up{job=\"ours\"} == 0"));
    assert_eq!(first_value(world.ours(), "count(node_load1{job=\"ours\"}) or vector(0)"), Some(0.0));
    let targets = ask(world.ours(), "/api/v1/targets", &[("state", "active")]);
    let active = &targets["data"]["activeTargets"][0];
    assert_eq!(active["health"], "down", "{targets}");
    assert!(active["lastError"].as_str().is_some_and(|fault| fault.contains("refused")), "{targets}");
    world.exporter = Some(exporter(world.directory.path(), world.exporter_port));
    eventually("up is 1 again", || first_value(world.ours(), "up{job=\"ours\"} == 1"));
}

#[test]
fn pages_are_pushed_and_groups_live_until_they_are_deleted() {
    let directory = tempfile::tempdir().expect("a directory");
    let ports = Ports::free();
    let config = format!(
        "[node]\ndata = \"{}\"\n[admin]\nlisten = \"127.0.0.1:{}\"\n[observe]\nlisten = \"127.0.0.1:{}\"\n",
        directory.path().join("data").display(),
        ports.admin,
        ports.api
    );
    let belfry = Running::start(directory.path(), ports, &config);
    let push = |method: &str, path: &str, page: &str| {
        let output = Command::new(tool("curl"))
            .args(["--silent", "--write-out", "%{http_code}", "--request", method, "--data-binary", page])
            .args(["--header", "Content-Type: text/plain"])
            .arg(format!("http://127.0.0.1:{}{path}", belfry.ports.api))
            .output()
            .expect("curl runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let value = |query: &str| first_value(belfry.ports.api, query);
    assert_eq!(push("POST", "/api/v1/import/prometheus?extra_label=host=h1", "a{b=\"c\"} 5\n"), "204");
    assert_eq!(value("a{b=\"c\",host=\"h1\"}"), Some(5.0));
    assert!(push("POST", "/api/v1/import/prometheus", "a 5\n?\n").ends_with("400"));
    assert_eq!(push("POST", "/metrics/job/backup/host/h2", "done 1\nbytes 7\n"), "200");
    assert_eq!(value("done{job=\"backup\",host=\"h2\"}"), Some(1.0));
    assert_eq!(push("POST", "/metrics/job/backup/host/h2", "done 2\n"), "200");
    assert_eq!((value("done"), value("bytes")), (Some(2.0), Some(7.0)));
    assert_eq!(push("PUT", "/metrics/job/backup/host/h2", "done 3\n"), "200");
    assert_eq!((value("done"), value("bytes")), (Some(3.0), None));
    assert_eq!(push("DELETE", "/metrics/job/backup/host/h2", ""), "200");
    assert_eq!((value("done"), value("push_time_seconds")), (None, None));
    assert!(push("POST", "/metrics/host/h2", "done 1\n").ends_with("400"));
    assert!(push("POST", "/api/v1/write", "no protobuf").ends_with("415"));
    let senders = ask(belfry.ports.api, "/api/v1/status/senders", &[]);
    assert!(senders["data"].to_string().contains("curl"), "{senders}");
}
