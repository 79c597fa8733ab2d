//! The site's own doors, as clients meet them: tokens, web pages from elsewhere, bounds, the end.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::running::{PATIENCE, Ports, Running, belfry, eventually, signal, site_config, tool};

const TOKEN: &str = "b41f0f9d7c3e4a5d8f60";
const NEXT_TOKEN: &str = "5c0d2f7e91a84b36e7d1";

/// Sends these bytes and returns everything that comes back.
fn exchange(port: u16, sent: &str) -> String {
    let mut stream = connect(port);
    stream.write_all(sent.as_bytes()).expect("sent");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

fn request(line: &str, headers: &[&str]) -> String {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    format!("{line} HTTP/1.1\r\nConnection: close\r\nContent-Length: 0\r\n{headers}\r\n")
}

fn write_token(path: &Path, text: &str, mode: u32) {
    std::fs::write(path, text).expect("written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("ours");
}

/// A site whose read APIs ask for [`TOKEN`].
fn guarded_site(directory: &Path) -> (Running, PathBuf) {
    let token_file = directory.join("api.token");
    write_token(&token_file, TOKEN, 0o600);
    let ports = Ports::free();
    let config = format!("{}token_file = \"{}\"\n", site_config(directory, &ports), token_file.display());
    (Running::start(directory, ports, &config), token_file)
}

/// Runs `belfry promql query 1` against this port, with more arguments and environment.
fn query(port: u16, arguments: &[&str], environment: &[(&str, &Path)]) -> Output {
    let url = format!("http://127.0.0.1:{port}");
    Command::new(env!("CARGO_BIN_EXE_belfry"))
        .args(["promql", "query", "1", "--url", &url])
        .args(arguments)
        .envs(environment.iter().copied())
        .output()
        .expect("belfry runs")
}

fn status_of(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_read_apis_open_to_a_token_only() {
    let directory = tempfile::tempdir().unwrap();
    let (site, token_file) = guarded_site(directory.path());
    let port = site.ports.api;
    let bare = exchange(port, &request("GET /api/v1/query?query=1", &["Host: belfry.example"]));
    assert!(bare.starts_with("HTTP/1.1 401") && bare.contains("www-authenticate: Bearer\r\n"), "{bare}");
    let wrong = exchange(port, &request("GET /api/v1/logs", &["Host: b", "Authorization: Bearer x"]));
    assert!(wrong.starts_with("HTTP/1.1 401") && wrong.contains("SIGHUP"), "{wrong}");
    for path in ["/-/healthy", "/-/ready"] {
        let probe = exchange(port, &request(&format!("GET {path}"), &["Host: belfry.example"]));
        assert!(probe.starts_with("HTTP/1.1 200"), "{path} {probe}");
    }
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let shown = exchange(port, &request("GET /api/v1/query?query=1", &["Host: belfry.example", &bearer]));
    assert!(shown.starts_with("HTTP/1.1 200") && shown.contains("\"success\""), "{shown}");
    // As a password, as Grafana and exporters send it.
    let url = format!("http://localhost:{port}/api/v1/labels");
    let curl = Command::new(tool("curl")).args(["-sf", "-u", &format!("grafana:{TOKEN}"), &url]).output();
    assert!(curl.expect("curl runs").status.success());
    let url = format!("http://promtool:{TOKEN}@localhost:{port}");
    let promtool = Command::new(tool("promtool")).args(["query", "instant", &url, "vector(1)"]).output();
    assert!(promtool.expect("promtool runs").status.success());

    let bare = query(port, &[], &[]);
    assert!(!bare.status.success() && status_of(&bare).contains("--token-file"), "{}", status_of(&bare));
    let file = token_file.to_string_lossy().into_owned();
    let shown = query(port, &["--token-file", &file], &[]);
    assert!(shown.status.success(), "{}", status_of(&shown));
    assert!(query(port, &[], &[("BELFRY_TOKEN_FILE", &token_file)]).status.success());
    let api = format!("127.0.0.1:{port}");
    let call = belfry(&["call", "nobody", "--api", &api, "--token-file", &file]);
    assert!(status_of(&call).contains("404"), "the token is taken: {}", status_of(&call));
    let slo = belfry(&["slo", "--api", &api]);
    assert!(status_of(&slo).contains("asks for a token"), "{}", status_of(&slo));
    assert!(site.metric("door_requests_refused_total", "reason=\"no_token\"") >= 3.0);
}

#[test]
fn a_token_is_replaced_without_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (site, token_file) = guarded_site(directory.path());
    let opens = |token: &str| {
        let header = format!("Authorization: Bearer {token}");
        exchange(site.ports.api, &request("GET /api/v1/labels", &["Host: b", &header]))
            .starts_with("HTTP/1.1 200")
    };
    assert!(opens(TOKEN) && !opens(NEXT_TOKEN));
    write_token(&token_file, &format!("{TOKEN}\n{NEXT_TOKEN}\n"), 0o600);
    signal(site.id(), "HUP");
    eventually("both tokens are good", || (opens(TOKEN) && opens(NEXT_TOKEN)).then_some(()));
    write_token(&token_file, NEXT_TOKEN, 0o644);
    signal(site.id(), "HUP");
    eventually("a file that all may read is refused", || site.logged().contains("chmod 600").then_some(()));
    assert!(opens(TOKEN), "the tokens of before stay in force");
    write_token(&token_file, NEXT_TOKEN, 0o600);
    signal(site.id(), "HUP");
    eventually("the old token is not good any more", || (!opens(TOKEN)).then_some(()));
    assert!(opens(NEXT_TOKEN));
    // A fault elsewhere keeps no token that was withdrawn.
    std::fs::write(&site.config, "[egde]\n").unwrap();
    write_token(&token_file, TOKEN, 0o600);
    signal(site.id(), "HUP");
    eventually("the token of before is not good any more", || (!opens(NEXT_TOKEN)).then_some(()));
    assert!(opens(TOKEN));
}

#[test]
fn web_pages_from_elsewhere_reach_no_door() {
    let directory = tempfile::tempdir().unwrap();
    let ports = Ports::free();
    let site = Running::start(directory.path(), ports, &site_config(directory.path(), &ports));
    for (port, path) in [(ports.api, "/api/v1/labels"), (ports.admin, "/config")] {
        let own = exchange(port, &request(&format!("GET {path}"), &["Host: localhost"]));
        assert!(own.starts_with("HTTP/1.1 200"), "{own}");
        let rebound = exchange(port, &request(&format!("GET {path}"), &["Host: rebound.example"]));
        assert!(rebound.starts_with("HTTP/1.1 421") && rebound.contains("host_names"), "{rebound}");
    }
    for header in ["Origin: http://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site"] {
        let host = format!("Host: 127.0.0.1:{}", ports.admin);
        let drained = exchange(ports.admin, &request("POST /drain", &[&host, header]));
        assert!(drained.starts_with("HTTP/1.1 403"), "{header}: {drained}");
    }
    assert_eq!(site.metric("door_requests_refused_total", "door=\"admin\",reason=\"cross_site\""), 3.0);
    assert_eq!(site.metric("belfry_ready", ""), 1.0, "nobody drained it");
}

#[test]
fn a_door_is_bounded_and_names_its_stragglers() {
    let directory = tempfile::tempdir().unwrap();
    let ports = Ports::free();
    let config = site_config(directory.path(), &ports)
        + "connections_max = 2\nheader_timeout = \"1s\"\n[node.drain]\nobserve = \"200ms\"\n";
    let site = Running::start(directory.path(), ports, &config);
    let ask = request("GET /api/v1/labels", &["Host: localhost"]);
    let mut slow = connect(ports.api);
    slow.write_all(b"GET /api/v1/la").expect("sent");
    let held = connect(ports.api);
    eventually("two connections are open", || {
        (site.metric("door_connections", "door=\"api\"") == 2.0).then_some(())
    });
    let full = exchange(ports.api, &ask);
    assert!(full.starts_with("HTTP/1.1 503") && full.contains("retry-after"), "{full}");
    assert_eq!(site.metric("door_connections_refused_total", "door=\"api\",reason=\"full\""), 1.0);
    assert_eq!(slow.read(&mut [0; 1]).expect("closed in order"), 0, "half a head is not waited for");
    eventually("both are let go", || (site.metric("door_connections", "door=\"api\"") == 0.0).then_some(()));
    assert!(exchange(ports.api, &ask).starts_with("HTTP/1.1 200"));
    drop((held, site));

    let config = config.replace("header_timeout = \"1s\"", "header_timeout = \"60s\"");
    let site = Running::start(directory.path(), ports, &config);
    let mut slow = connect(ports.api);
    let half = "POST /api/v1/query HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nhalf";
    slow.write_all(half.as_bytes()).expect("sent");
    eventually("it is open", || (site.metric("door_connections", "door=\"api\"") == 1.0).then_some(()));
    let log = site.log.clone();
    assert_eq!(site.stop(), Some(1), "somebody did not finish");
    let logged = std::fs::read_to_string(log).expect("a log");
    assert!(logged.contains("did not finish: read APIs: POST /api/v1/query"), "{logged}");
}

#[test]
fn a_door_to_the_network_is_not_opened_without_a_token() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("belfry.toml");
    let check = |text: &str, words: &[&str]| {
        std::fs::write(&path, text).unwrap();
        for command in ["check", "run"] {
            let output = belfry(&[command, "--config", &path.to_string_lossy()]);
            let said = status_of(&output);
            assert!(!output.status.success(), "{command} {text}\n{said}");
            for word in words {
                assert!(said.contains(word), "{command} {text}\n{said}");
            }
        }
    };
    check(
        "[observe]\nlisten = \"0.0.0.0:9090\"\n",
        &["belfry.toml:2:10: `observe.listen`", "set token_file"],
    );
    check("[admin]\nlisten = \"[::]:9901\"\n", &["belfry.toml:2:10: `admin.listen`", "set token_file"]);
    check("[observe]\nconnections_max = 0\n", &["belfry.toml:2:19: `observe.connections_max`"]);
    let data = directory.path().join("data");
    std::fs::create_dir_all(&data).unwrap();
    write_token(&data.join("api.token"), TOKEN, 0o644);
    let ports = Ports::free();
    let guarded = format!(
        "[node]\ndata = \"{}\"\n[admin]\nlisten = \"127.0.0.1:{}\"\n[observe]\nlisten = \"0.0.0.0:{}\"\ntoken_file = ",
        data.display(),
        ports.admin,
        ports.api
    );
    check(&format!("{guarded}\"api.token\"\n"), &["mode 644", "chmod 600"]);
    check(&format!("{guarded}\"none.token\"\n"), &["cannot read the token file", "openssl rand -hex 32"]);
}
