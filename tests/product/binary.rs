//! The commands that answer and end.

use crate::running::{
    Ports, Running, belfry, belfry_with_input, eventually, free_port, http, signal, site_config,
};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_shipped_defaults_are_a_good_configuration() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/belfry.toml");
    let output = belfry(&["check", "--config", path]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(
        text(&output.stdout).contains("edge, core, media, observe, alerts, dashboard"),
        "{}",
        text(&output.stdout)
    );
}

#[test]
fn check_names_every_fault_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bad.toml");
    std::fs::write(&path, "[node]\nname = \"Node 1\"\n[media]\nport_min = \"low\"\nprot_max = 3\n[egde]\n")
        .unwrap();
    let output = belfry(&["check", "--config", &path.to_string_lossy()]);
    assert_eq!(output.status.code(), Some(78));
    let complaints = text(&output.stderr);
    for (place, word) in
        [(":4:", "port_min"), (":5:1", "unknown field `prot_max`"), (":6:2", "unknown section `egde`")]
    {
        let found = complaints
            .lines()
            .any(|line| line.contains(place) && (word == "port_min" || line.contains(word)));
        assert!(found, "{place} {word} in:\n{complaints}");
    }
    let missing = belfry(&["check", "--config", "/nowhere/belfry.toml"]);
    assert_eq!(missing.status.code(), Some(78));
    assert!(text(&missing.stderr).contains("cannot be read"));
}

#[test]
fn the_catalogue_is_as_pinned() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/catalog.txt");
    let output = belfry(&["catalog"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    if std::env::var_os("BELFRY_BLESS").is_some() {
        std::fs::write(golden, &printed).unwrap();
    }
    let pinned = std::fs::read_to_string(golden).unwrap_or_default();
    assert!(printed == pinned, "the catalogue changed; if that is meant, run this test with BELFRY_BLESS=1");
    let mut names: Vec<&str> = printed
        .lines()
        .filter(|line| !line.starts_with(' '))
        .map(|line| &line[..line.find(' ').unwrap()])
        .collect();
    let all = names.len();
    names.dedup();
    assert_eq!(all, names.len(), "a metric is registered twice");
}

#[test]
fn sip_parse_prints_one_json_line_per_message() {
    let directory = tempfile::tempdir().unwrap();
    let good = directory.path().join("good");
    let bad = directory.path().join("bad");
    let message = "OPTIONS sip:b@example.com SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@e.com>;tag=1\r\n\
        To: <sip:b@e.com>\r\nCall-ID: x@y\r\nCSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n";
    std::fs::write(&good, message).unwrap();
    std::fs::write(&bad, message.replace("CSeq: 1 OPTIONS", "CSeq: 1 INVITE")).unwrap();
    let output = belfry(&["sip", "parse", &good.to_string_lossy(), &bad.to_string_lossy()]);
    assert!(output.status.success());
    let lines: Vec<serde_json::Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["verdict"], &lines[1]["verdict"]), (&"ok".into(), &"reject".into()));
    assert_eq!((&lines[1]["status"], &lines[1]["reason"]), (&400.into(), &"cseq_method_mismatch".into()));
}

#[test]
fn help_teaches_and_wrong_use_is_named() {
    let help = text(&belfry(&["--help"]).stdout);
    for word in ["demo", "check", "FIRST STEPS", "SIGTERM drains", "EXIT CODES"] {
        assert!(help.contains(word), "{word}:\n{help}");
    }
    let wrong = belfry(&["demo", "--fault", "core-eror@3"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(text(&wrong.stderr).contains("there are core-errors"), "{}", text(&wrong.stderr));
    let completions = text(&belfry(&["completions", "bash"]).stdout);
    assert!(completions.contains("_belfry()"));
    let hash = belfry_with_input(&["hash-password"], "secret\n");
    assert!(text(&hash.stdout).starts_with("$argon2id$"), "{}", text(&hash.stderr));
}

#[test]
fn sighup_swaps_a_good_configuration_and_keeps_the_old_one_before_a_bad_one() {
    let directory = tempfile::tempdir().unwrap();
    let ports = Ports::free();
    let config = site_config(directory.path(), &ports);
    let belfry = Running::start(directory.path(), ports, &config);
    let reloads = |outcome: &str| {
        let (_, metrics) = http(ports.admin, "GET", "/metrics").unwrap();
        metrics.contains(&format!("belfry_config_reloads_total{{outcome=\"{outcome}\"}} 1")).then_some(())
    };
    std::fs::write(directory.path().join("belfry.toml"), format!("{config}\n[edge.nonsense]\n")).unwrap();
    signal(belfry.id(), "HUP");
    eventually("the bad configuration is refused", || reloads("refused"));
    assert!(!http(ports.admin, "GET", "/config").unwrap().1.contains("nonsense"));
    std::fs::write(directory.path().join("belfry.toml"), format!("{config}\n# a comment that is new\n"))
        .unwrap();
    signal(belfry.id(), "HUP");
    eventually("the good configuration is swapped in", || reloads("swapped"));
    assert!(http(ports.admin, "GET", "/config").unwrap().1.contains("a comment that is new"));
    assert_eq!(belfry.stop(), Some(0));
}

#[test]
fn a_port_that_is_taken_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let _taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let ports = Ports { admin: port, ..Ports::free() };
    let config = directory.path().join("belfry.toml");
    std::fs::write(&config, site_config(directory.path(), &ports)).unwrap();
    let output = belfry(&["run", "--config", &config.to_string_lossy()]);
    assert_eq!(output.status.code(), Some(1));
    let complaint = text(&output.stderr);
    assert!(complaint.contains(&format!("127.0.0.1:{port}")) && complaint.contains("in use"), "{complaint}");
}
