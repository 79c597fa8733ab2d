//! Senders that others wrote, at the doors for telemetry: OpenTelemetry's SDKs of Python and Node, rsyslog, syslog-ng,
//! Elasticsearch's client, a Loki handler, and Kamailio's captures.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::running::{
    Guarded, PATIENCE, Ports, Running, belfry, eventually, free_port, site_config, tool, wait_for_end,
};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/senders");
/// What `make deps-test` installs for this test.
const INSTALLED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/build-output/senders");
const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/build-output/tools");

/// A site with doors.
fn site(directory: &Path, doors: &str) -> Running {
    let ports = Ports::free();
    let config = site_config(directory, &ports) + "[observe.pipeline]\nsample_interval = \"1s\"\n" + doors;
    Running::start(directory, ports, &config)
}

/// A file that must be there.
fn installed(path: &str) -> PathBuf {
    let path = Path::new(INSTALLED).join(path);
    assert!(path.exists(), "{} is missing; `make deps-test` installs it", path.display());
    path
}

/// Runs a script to its end; what it printed.
fn run(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .env("NODE_PATH", format!("{INSTALLED}/node_modules"))
        .output()
        .expect("it starts");
    let printed = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{arguments:?}: {}", printed(&output.stderr));
    printed(&output.stdout)
}

/// The records that our own command finds, once there are so many.
fn found(site: &Running, query: &str, kinds: &str, count: usize) -> Vec<Value> {
    let api = format!("127.0.0.1:{}", site.ports.api);
    eventually(&format!("{count} records of {query}"), || {
        let output = belfry(&["logs", query, "--kinds", kinds, "--json", "--api", &api, "--since", "1d"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        (lines.len() >= count).then_some(lines)
    })
}

/// The value of an instant query, once there is one.
fn value(site: &Running, query: &str) -> f64 {
    eventually(query, || {
        let output =
            belfry(&["promql", "query", query, "--url", &format!("http://127.0.0.1:{}", site.ports.api)]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        text.lines().nth(1)?.split_whitespace().last()?.parse().ok()
    })
}

#[test]
fn opentelemetry_of_python_and_node() {
    let directory = tempfile::tempdir().unwrap();
    let (grpc, http) = (free_port(), free_port());
    let doors = format!(
        "[observe.doors.otlp]\ngrpc_listen = \"127.0.0.1:{grpc}\"\nhttp_listen = \"127.0.0.1:{http}\"\n"
    );
    let site = site(directory.path(), &doors);
    let addresses = [format!("http://127.0.0.1:{grpc}"), format!("http://127.0.0.1:{http}")];
    let python = installed("venv/bin/python");
    let script = format!("{SCRIPTS}/otel.py");
    let printed = run(&python, &[&script, &addresses[0], &addresses[1]]);
    let trace_id = printed.trim();
    installed("node_modules/@opentelemetry/api");
    run(&tool("node"), &[&format!("{SCRIPTS}/otel.cjs"), &addresses[0], &addresses[1]]);

    let declined = &found(&site, "\"card declined\"", "log", 1)[0];
    assert_eq!((&declined["severity"], &declined["trace_id"]), (&"WARN".into(), &trace_id.into()));
    assert_eq!(declined["attributes"]["service.name"], "shop");
    let pay = &found(&site, "service.name:shop span.name:pay span.status:error", "span", 1)[0];
    assert_eq!(pay["attributes"]["amount"], 12.5);
    // The line stands in its trace.
    let (status, body) = site.api(&format!("/api/v1/traces/{trace_id}"));
    assert!(status == 200 && body.contains("card declined") && body.contains("\"pay\""), "{body}");
    let missing = &found(&site, "\"template missing\"", "log", 1)[0];
    assert_eq!((&missing["severity"], &missing["attributes"]["page.size"]), (&"ERROR".into(), &7.into()));
    found(&site, "\"cache missed\" service.name:portal", "log", 1);
    // Deltas are added up, exponential histograms are native ones.
    assert_eq!(value(&site, "payments_total{job=\"shop\",instance=\"py-1\",kind=\"card\"}"), 7.0);
    assert_eq!(value(&site, "histogram_count(took_seconds{job=\"shop\"})"), 2.0);
    assert_eq!(value(&site, "render_time_milliseconds_count{job=\"portal\",page=\"home\"}"), 1.0);
    assert_eq!(value(&site, "target_info{job=\"shop\",host_name=\"py-host\"}"), 1.0);
    assert_eq!(site.metric("doors_refused_total", ""), 0.0);
    assert_eq!(site.stop(), Some(0));
}

/// A daemon of Debian's, unpacked with its libraries.
fn daemon(name: &str, arguments: &[&str]) -> Guarded {
    let program = Path::new(TOOLS).join("usr/sbin").join(name);
    assert!(program.exists(), "{name} is missing; `make deps-test` unpacks it");
    let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib/syslog-ng"];
    let libraries: Vec<String> = libraries.iter().map(|folder| format!("{TOOLS}/{folder}")).collect();
    let child = Command::new(program)
        .args(arguments)
        .env("LD_LIBRARY_PATH", libraries.join(":"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    Guarded::new(child)
}

fn start_rsyslog(directory: &Path, port: u16) -> Guarded {
    let here = directory.display();
    fs::write(directory.join("rs.log"), "from rsyslog counted\n").expect("written");
    let forward = |framing: &str, template: &str| {
        format!(
            "action(type=\"omfwd\" target=\"127.0.0.1\" port=\"{port}\" protocol=\"tcp\" TCP_Framing=\"{framing}\" \
             template=\"{template}\")\n"
        )
    };
    let config = format!(
        "global(workDirectory=\"{here}\" localHostname=\"rs-host\")\nmodule(load=\"imfile\" PollingInterval=\"1\")\n\
         input(type=\"imfile\" File=\"{here}/rs.log\" Tag=\"app[42]:\" Facility=\"local3\" Severity=\"warning\")\n{}{}",
        forward("octet-counted", "RSYSLOG_SyslogProtocol23Format"),
        forward("traditional", "RSYSLOG_TraditionalForwardFormat"),
    );
    let file = directory.join("rsyslog.conf");
    fs::write(&file, config).expect("written");
    let modules = format!("{TOOLS}/usr/lib/x86_64-linux-gnu/rsyslog");
    daemon(
        "rsyslogd",
        &["-n", "-f", &file.to_string_lossy(), "-i", &format!("{here}/rs.pid"), "-M", &modules],
    )
}

fn start_syslog_ng(directory: &Path, [udp, tcp, tls]: [u16; 3], authority: &Path) -> Guarded {
    let here = directory.display();
    fs::write(directory.join("ng.log"), "from syslog-ng\n").expect("written");
    let config = format!(
        "@version: 3.38\nsource s {{ file(\"{here}/ng.log\" flags(no-parse) program-override(\"ng\")); }};\n\
         destination tcp {{ syslog(\"127.0.0.1\" port({tcp}) transport(\"tcp\")); }};\n\
         destination udp {{ network(\"127.0.0.1\" port({udp}) transport(\"udp\")); }};\n\
         destination tls {{ syslog(\"127.0.0.1\" port({tls}) transport(\"tls\") \
           tls(ca-file(\"{}\") peer-verify(required-untrusted))); }};\n\
         log {{ source(s); destination(tcp); destination(udp); destination(tls); }};\n",
        authority.display()
    );
    let file = directory.join("syslog-ng.conf");
    fs::write(&file, config).expect("written");
    let modules = format!("--module-path={TOOLS}/usr/lib/syslog-ng/3.38");
    let path = |name: &str| format!("{here}/{name}");
    daemon(
        "syslog-ng",
        &[
            "--foreground",
            "--no-caps",
            &modules,
            "-f",
            &file.to_string_lossy(),
            "-R",
            &path("ng.persist"),
            "-p",
            &path("ng.pid"),
            "-c",
            &path("ng.ctl"),
        ],
    )
}

#[test]
fn rsyslog_and_syslog_ng() {
    let directory = tempfile::tempdir().unwrap();
    let ports = [free_port(), free_port(), free_port()];
    let [udp, tcp, tls] = ports;
    let path = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    let (certificate, key) = (path("cert.pem"), path("key.pem"));
    let subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"];
    let mut making =
        vec!["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", &key, "-out", &certificate];
    making.extend(subject);
    run(&tool("openssl"), &making);
    let doors = format!(
        "[observe.doors.syslog]\nudp_listen = \"127.0.0.1:{udp}\"\ntcp_listen = \"127.0.0.1:{tcp}\"\n\
         tls_listen = \"127.0.0.1:{tls}\"\ntls = {{ certificate_file = \"{certificate}\", key_file = \"{key}\" }}\n"
    );
    let site = site(directory.path(), &doors);
    let _rsyslog = start_rsyslog(directory.path(), tcp);
    let _syslog_ng = start_syslog_ng(directory.path(), ports, Path::new(&certificate));
    let lines = found(&site, "\"from rsyslog counted\" component:door_syslog", "log", 2);
    for line in &lines {
        let attributes = &line["attributes"];
        let said = ["service.name", "syslog.facility", "host.name"]
            .map(|name| attributes[name].as_str().unwrap_or(""));
        assert_eq!(said, ["app", "local3", "rs-host"], "{line}");
        assert_eq!((&line["severity"], &attributes["process.pid"]), (&"WARN".into(), &42.into()), "{line}");
    }
    assert!(lines.iter().any(|line| line["attributes"]["process.pid"] == 42));
    let lines = found(&site, "\"from syslog-ng\" service.name:ng", "log", 3);
    assert_eq!(lines.len(), 3);
    // Hosts are nodes.
    assert!(!found(&site, "node:rs-host", "log", 2).is_empty());
    assert_eq!(site.metric("doors_refused_total", ""), 0.0);
    assert_eq!(site.stop(), Some(0));
}

#[test]
fn clients_of_elasticsearch_and_loki() {
    let directory = tempfile::tempdir().unwrap();
    let (elastic, loki) = (free_port(), free_port());
    let doors = format!(
        "[observe.doors.elastic]\nlisten = \"127.0.0.1:{elastic}\"\n[observe.doors.loki]\nlisten = \"127.0.0.1:{loki}\"\n"
    );
    let site = site(directory.path(), &doors);
    let python = installed("venv/bin/python");
    let script = format!("{SCRIPTS}/bulk.py");
    let addresses = [format!("http://127.0.0.1:{elastic}"), format!("http://127.0.0.1:{loki}")];
    let printed = run(&python, &[&script, &addresses[0], &addresses[1]]);
    assert_eq!(printed.trim(), "(50, [])");
    let lines = found(&site, "shipped order.total:<3", "log", 2);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(
        (&lines[0]["severity"], &lines[0]["attributes"]["host.name"]),
        (&"WARN".into(), &"es-host".into())
    );
    let line = &found(&site, "\"invoice lost\"", "log", 1)[0];
    assert_eq!(line["attributes"]["service.name"], "billing");
    assert_eq!((&line["severity"], &line["attributes"]["customer"]), (&"ERROR".into(), &"c7".into()));
    assert_eq!(site.metric("doors_records_stored_total", "door=\"elastic\""), 50.0);
    assert_eq!(site.stop(), Some(0));
}

/// A process that ends its children when it is asked to end, and would leave them behind otherwise.
struct Family(Guarded);

impl Drop for Family {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        let deadline = std::time::Instant::now() + PATIENCE;
        while matches!(self.0.try_wait(), Ok(None)) && std::time::Instant::now() < deadline {
            std::thread::sleep(PATIENCE / 300);
        }
    }
}

#[test]
fn captures_of_kamailio_are_calls() {
    let directory = tempfile::tempdir().unwrap();
    let (hep, proxy, uas, uac) = (free_port(), free_port(), free_port(), free_port());
    let site = site(directory.path(), &format!("[observe.doors.hep]\nudp_listen = \"127.0.0.1:{hep}\"\n"));
    let config = fs::read_to_string(format!("{SCRIPTS}/kamailio.cfg")).expect("a configuration");
    let config = config
        .replace("HEP_PORT", &hep.to_string())
        .replace("UAS_PORT", &uas.to_string())
        .replace("SIP_PORT", &proxy.to_string());
    let file = directory.path().join("kamailio.cfg");
    fs::write(&file, config).expect("written");
    let log = fs::File::create(directory.path().join("kamailio.log")).expect("a file");
    let kamailio = Command::new(tool("kamailio"))
        .args(["-DD", "-E", "-m", "32", "-M", "8", "-Y"])
        .arg(directory.path())
        .arg("-f")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("kamailio starts");
    let _kamailio = Family(Guarded::new(kamailio));
    let sipp = |scenario: &str, port: u16, more: &[&str]| {
        let child = Command::new(tool("sipp"))
            .current_dir(directory.path())
            .env("TERM", "dumb")
            .args(["-sn", scenario, "-i", "127.0.0.1", "-p", &port.to_string(), "-nostdin", "-m", "1"])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sipp starts");
        Guarded::new(child)
    };
    let _callee = sipp("uas", uas, &[]);
    std::thread::sleep(PATIENCE / 30);
    let mut caller = sipp("uac", uac, &["-d", "300", &format!("127.0.0.1:{proxy}")]);
    let status = wait_for_end(&mut caller);
    let logged = || fs::read_to_string(directory.path().join("kamailio.log")).unwrap_or_default();
    assert!(status.success(), "the call went wrong: {status}\n{}", logged());

    let call = &found(&site, "component:door_hep", "call", 1)[0];
    let call_id = call["call_id"].as_str().expect("it has one").to_owned();
    let view = eventually("all messages are there", || {
        let (status, body) = site.api(&format!("/api/v1/calls/{call_id}"));
        assert_eq!(status, 200, "{body}");
        let view: Value = serde_json::from_str(&body).expect("JSON");
        (view["ladder"].as_array()?.len() >= 12).then_some(view)
    });
    let ladder: Vec<String> = view["ladder"]
        .as_array()
        .expect("a ladder")
        .iter()
        .map(|rung| {
            ["from", "summary", "to"].map(|name| rung[name].as_str().unwrap_or_default().to_owned()).join(" ")
        })
        .collect();
    let middle = format!("127.0.0.1:{proxy}");
    for wanted in
        [format!("caller INVITE {middle}"), format!("{middle} INVITE callee"), format!("callee 200 {middle}")]
    {
        assert!(ladder.contains(&wanted), "{wanted} in {ladder:?}");
    }
    assert_eq!(view["summary"]["outcome"], "answered");
    assert_eq!(view["summary"]["cause"], "caller_hung_up");
    let drawn = belfry(&["call", &call_id, "--api", &format!("127.0.0.1:{}", site.ports.api)]);
    assert!(String::from_utf8_lossy(&drawn.stdout).contains("INVITE"), "{drawn:?}");
    assert_eq!(site.metric("doors_captured_calls_total", "end=\"ended\""), 1.0);
    assert_eq!(site.stop(), Some(0));
}
